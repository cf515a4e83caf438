"What works where no folder but the output's can be written to, as in a container: no home, no temporary folder."

import os
import re
import shutil
import subprocess
import sys

import pytest
from conftest import ROOT

from speak.data.audio import write_audio
from speak.data.images import write_image
from speak.data.video import read_video
from speak.synthetic.corpus import Factors, make_tracks, render


@pytest.fixture
def speak(tmp_path):
    "The command, from a copy of the package in which no cache can be kept: even root makes no folder under a file."
    copy = tmp_path / 'package'
    shutil.copytree(ROOT / 'speak', copy / 'speak', ignore=shutil.ignore_patterns('__pycache__'))
    for folder in [f for f in copy.rglob('*') if f.is_dir()]:
        (folder / '__pycache__').write_text('no folder')
    env = {k: v for k, v in os.environ.items() if not k.startswith(('XDG_', 'HF_', 'MPL', 'NUMBA', 'TORCH'))}
    env.update(HOME='/dev/null/home', PYTHONPATH=str(copy), HF_HUB_OFFLINE='1')
    # no temporary folder: what the standard library looks at is taken away, as a read-only file system does
    script = (
        'import sys, tempfile; tempfile._candidate_tempdir_list = lambda: ["/dev/null/tmp"]; '
        'import speak.cli; sys.exit(speak.cli.main())'
    )

    def run(*words):
        command = [sys.executable, '-c', script, *map(str, words)]
        return subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True)

    return run


def check_quiet(done):
    "It ended well, and its standard error tells of progress and nothing else."
    assert done.returncode == 0, done.stderr
    assert all(re.search(r'\d+ of \d+ frames', line) for line in done.stderr.splitlines()), done.stderr


@pytest.mark.slow
def test_generate_and_doctor_need_no_cache(tmp_path, speak):
    someone = make_tracks(Factors(11006, 11007, 2, 2 * 10**8 + 91, 'neutral', 0, 2 * 10**8 + 91))
    write_image(tmp_path / 'who.png', render(someone, 256, [0]).frames[0])
    write_audio(tmp_path / 'speech.wav', someone.wave[:8000])
    options = ('--identity', tmp_path / 'who.png', '--audio', tmp_path / 'speech.wav', '--out', tmp_path / 'out.mp4')
    check_quiet(speak('generate', *options))
    assert read_video(tmp_path / 'out.mp4').shape[0] == 15
    doctor = speak('doctor')
    check_quiet(doctor)
    assert 'MISSING' not in doctor.stdout

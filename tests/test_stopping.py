"What is left by a signal that asks a process to end: nothing half-written, and work that goes on as if undisturbed."

import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time

import pytest
from conftest import ROOT
from safetensors.torch import load_file

from speak.data.audio import write_audio
from speak.data.images import write_image
from speak.data.video_writer import write_video
from speak.synthetic.corpus import Factors, make_tracks, render
from speak.training.checkpoint import load_tensors

pytestmark = pytest.mark.slow
STATUS = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGHUP: 129}


def start(*command):
    "A process in a group of its own."
    pipe = subprocess.PIPE
    words = [str(w) for w in command]
    return subprocess.Popen(words, cwd=ROOT, start_new_session=True, stdout=pipe, stderr=pipe, text=True)


def speak(*words):
    "The command `speak`."
    return start(sys.executable, '-c', 'import sys, speak.cli as c; sys.exit(c.main())', *words)


def wait_for(p, condition):
    "Until a condition holds, or the process has ended."
    while p.poll() is None and not condition():
        time.sleep(0.02)


def stop(p, number, group):
    "Send a signal to a process or its group; returns its output and its errors, within ten seconds."
    (os.killpg if group else os.kill)(p.pid, number)
    began = time.monotonic()
    printed = p.communicate(timeout=60)
    assert time.monotonic() - began < 10
    return printed


def stop_cleanly(p, number, group, folder):
    "Stop a command: it prints one line beside its progress, and leaves no part of a file."
    errors = stop(p, number, group)[1]
    assert p.returncode == STATUS[number], errors
    lines = [line for line in errors.splitlines() if line and not re.search(r'\d+ of \d+ \w+s\b', line)]
    assert lines == ['speak: stopped'], errors
    assert parts(folder) == []


def parts(folder):
    "Names of files that are not complete."
    return [f.name for f in folder.rglob('*.part')]


@pytest.fixture(scope='module')
def inputs(tmp_path_factory):
    "A picture, a speech, and a folder of six recordings."
    folder = tmp_path_factory.mktemp('inputs')
    tracks = make_tracks(Factors(11006, 11007, 2, 91, 'neutral', 0, 91))
    frames = render(tracks, 128).frames
    write_image(folder / 'who.png', frames[0])
    write_audio(folder / 'speech.wav', tracks.wave)
    (folder / 'raw').mkdir()
    write_video(folder / 'raw' / 'a.mp4', frames, tracks.wave)
    for name in 'bcdef':
        shutil.copy(folder / 'raw' / 'a.mp4', folder / 'raw' / f'{name}.mp4')
    return folder


@pytest.mark.parametrize('number,group', [(signal.SIGTERM, False), (signal.SIGINT, True), (signal.SIGHUP, False)])
def test_generate_leaves_nothing(tmp_path, inputs, number, group):
    words = ('--identity', inputs / 'who.png', '--audio', inputs / 'speech.wav', '--out', tmp_path / 'out.mp4')
    p = speak('generate', *words)
    wait_for(p, lambda: parts(tmp_path))
    assert parts(tmp_path)
    stop_cleanly(p, number, group, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_demo_leaves_whole_files(tmp_path):
    p = speak('demo', '--out', tmp_path / 'demo')
    wait_for(p, lambda: any('result' in name for name in parts(tmp_path)))
    stop_cleanly(p, signal.SIGTERM, True, tmp_path)
    assert sorted(f.suffix for f in (tmp_path / 'demo').iterdir()) == ['.mp4', '.mp4', '.png', '.wav']


@pytest.mark.parametrize('shard', [0, 3])
def test_prepare_goes_on(tmp_path, inputs, shard):
    words = ('--corpus', 'folder', '--source', inputs / 'raw', '--size', 64, '--jobs', 2, '--shard', shard)

    def prepare(out):
        return speak('prepare', *words, '--out', tmp_path / out)

    whole = prepare('whole')
    assert whole.wait() == 0
    for number, group in ((signal.SIGTERM, False), (signal.SIGINT, True)):
        p = prepare('stopped')
        wait_for(p, lambda: parts(tmp_path / 'stopped'))
        assert parts(tmp_path / 'stopped')
        stop_cleanly(p, number, group, tmp_path)
    last = prepare('stopped')
    assert last.wait() == 0
    for name in ('clips.csv', 'rejected.csv'):
        assert (tmp_path / 'stopped' / name).read_bytes() == (tmp_path / 'whole' / name).read_bytes()
    files = {f.relative_to(tmp_path / 'whole') for f in (tmp_path / 'whole').rglob('*')}
    assert {f.relative_to(tmp_path / 'stopped') for f in (tmp_path / 'stopped').rglob('*')} == files


BUILD = """
import sys
from speak.data.cache import FrameCache
from speak.synthetic.dataset import SyntheticCorpus

FrameCache.build(SyntheticCorpus(400), sys.argv[1], 32, jobs=2, progress=False)
"""


@pytest.mark.parametrize('number,group', [(signal.SIGTERM, False), (signal.SIGINT, True)])
def test_cache_leaves_nothing(tmp_path, number, group):
    p = start(sys.executable, '-c', BUILD, tmp_path)
    wait_for(p, lambda: list(tmp_path.glob('*.part/clips/*.npy')))
    stop(p, number, group)
    assert p.returncode == (143 if number == signal.SIGTERM else -signal.SIGINT)
    assert list(tmp_path.iterdir()) == []


TRAIN = """
import sys
from speak.config import configure
from speak.data.cache import FrameCache
from speak.synthetic.dataset import SyntheticCorpus
from speak.training.irfd import IrfdStage
from speak.training.loop import make_accelerator, run_stage
from speak.training.sync import SyncStage

run, cache, workers = sys.argv[1:]
c = configure('test', checkpoint_interval_s=1e6, steps_sync=90, steps_irfd=45, num_workers=int(workers))
acc = make_accelerator(c)
frames = FrameCache.build(SyntheticCorpus(c.data.n_clips), cache, c.data.image_size, jobs=1, progress=False)
run_stage(SyncStage(c, acc, frames), run, progress=False)
run_stage(IrfdStage(c, acc, frames), run, progress=False)
"""


@pytest.mark.parametrize('workers', [0, 2])
def test_training_goes_on(tmp_path, workers):
    "A checkpoint is written only after a signal and at the end, and two runs end alike."

    def train(run):
        return start(sys.executable, '-c', TRAIN, tmp_path / run, tmp_path / 'cache', workers)

    def log_size(stage):
        file = tmp_path / 'stopped' / f'{stage}.csv'
        return file.stat().st_size if file.exists() else 0

    whole = train('whole')
    assert whole.communicate(timeout=600) and whole.returncode == 0
    rng, kills, stopped_at = random.Random(workers), 0, {}
    while True:
        p, before = train('stopped'), {s: log_size(s) for s in ('sync', 'irfd')}
        if kills < 3:
            wait_for(p, lambda: any(log_size(s) > size + 20 for s, size in before.items()))  # twenty steps more
        if kills == 3 or p.poll() is not None:
            break
        number = rng.choice([signal.SIGTERM, signal.SIGINT])
        printed, errors = stop(p, number, rng.random() < 0.5 or workers > 0)
        assert p.returncode == (143 if number == signal.SIGTERM else -signal.SIGINT), errors
        assert f'stopped by {number.name} after step' in printed
        kills += 1
        stage, step = printed.split(':')[0].split()[-1], int(printed.split('after step ')[1].split()[0])
        assert load_tensors(tmp_path / 'stopped' / f'{stage}.safetensors')[0]['step'] == step
        assert stopped_at.get(stage, 0) < step
        stopped_at[stage] = step
    assert kills >= 2 and p.communicate(timeout=600) and p.returncode == 0
    for stage in ('sync', 'irfd'):
        a, b = (load_file(tmp_path / run / f'{stage}.safetensors') for run in ('whole', 'stopped'))
        assert a.keys() == b.keys() and all(a[k].equal(b[k]) for k in a), stage
    assert parts(tmp_path) == []


TOGETHER = """
import sys
from speak.config import configure
from speak.data.cache import FrameCache
from speak.synthetic.dataset import SyntheticCorpus
from speak.training.loop import make_accelerator, run_stage
from speak.training.sync import SyncStage

run = sys.argv[1]
c = configure('test', checkpoint_interval_s=1e6, steps_sync=100000)
acc = make_accelerator(c)
with acc.main_process_first():
    corpus = SyntheticCorpus(c.data.n_clips)
    frames = FrameCache.build(corpus, f'{run}/cache', c.data.image_size, jobs=1, progress=False)
run_stage(SyncStage(c, acc, frames), run, progress=False)
"""


def n_lines(file):
    return len(file.read_text().splitlines()) if file.exists() else 0


def test_processes_stop_together(tmp_path, monkeypatch):
    "Where one gets a signal, both stop at the same step."
    monkeypatch.setenv('ACCELERATE_USE_CPU', 'true')
    (tmp_path / 'train.py').write_text(TOGETHER)
    p = start(sys.executable, '-m', 'torch.distributed.run', '--nproc_per_node', 2, tmp_path / 'train.py', tmp_path)
    wait_for(p, lambda: n_lines(tmp_path / 'sync.csv') > 2)
    ranks = subprocess.run(['pgrep', '-P', str(p.pid)], capture_output=True, text=True).stdout.split()
    os.kill(int(ranks[-1]), signal.SIGTERM)
    printed, errors = p.communicate(timeout=60)
    assert printed.count('stopped by SIGTERM after step') == 1 and 'exitcode  : 143' in errors, printed + errors
    assert f"after step {load_tensors(tmp_path / 'sync.safetensors')[0]['step']} of" in printed


@pytest.mark.parametrize('number', [signal.SIGTERM, signal.SIGINT])
def test_papermill_goes_on(tmp_path, number):
    "SIGTERM ends papermill alone; its kernel notices that, and ends after the step at hand."
    run = tmp_path / 'stopped'
    papermill = (sys.executable, '-m', 'papermill', '--cwd', 'nbs', 'nbs/train.ipynb', tmp_path / 'stopped.ipynb')
    folders = ('-p', 'run_dir', run, '-p', 'cache_dir', tmp_path / 'cache')
    p = start(*papermill, *folders, '-y', 'settings: {checkpoint_interval_s: 1.0e+6, steps_sync: 3000}')
    wait_for(p, lambda: n_lines(run / 'sync.csv') > 2)
    assert p.poll() is None, p.communicate()
    os.kill(p.pid, number)
    p.wait()
    until = time.monotonic() + 10
    while not (run / 'sync.safetensors').exists() and time.monotonic() < until:
        time.sleep(0.05)
    step = load_tensors(run / 'sync.safetensors')[0]['step']
    assert step > 20
    time.sleep(1.5)
    assert load_tensors(run / 'sync.safetensors')[0]['step'] == step  # nobody trains on
    assert parts(tmp_path) == []

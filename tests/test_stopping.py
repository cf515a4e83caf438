"What a signal that asks a process to end leaves: nothing half-written, and work that goes on as if nothing had been."

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


def start(*command):  # in a group of its own
    pipe = subprocess.PIPE
    words = [str(w) for w in command]
    return subprocess.Popen(words, cwd=ROOT, start_new_session=True, stdout=pipe, stderr=pipe, text=True)


def speak(*words):
    return start(sys.executable, '-c', 'import sys, speak.cli as c; sys.exit(c.main())', *words)


def wait_for(p, there):  # until it is there, or the process has ended
    while p.poll() is None and not there():
        time.sleep(0.02)


def stop(p, number, group):  # what it says
    (os.killpg if group else os.kill)(p.pid, number)
    began = time.monotonic()
    said = p.communicate(timeout=60)
    assert time.monotonic() - began < 10
    return said


def stopped_cleanly(p, number, group, folder):
    said = stop(p, number, group)[1]
    assert p.returncode == STATUS[number], said
    lines = [line for line in said.splitlines() if line and not re.search(r'\d+ of \d+ \w+s\b', line)]  # progress
    assert lines == ['speak: stopped'], said
    assert parts(folder) == []


def parts(folder):
    return [f.name for f in folder.rglob('*.part')]


@pytest.fixture(scope='module')
def inputs(tmp_path_factory):
    folder, acts = tmp_path_factory.mktemp('inputs'), make_tracks(Factors(11006, 11007, 2, 91, 'neutral', 0, 91))
    frames = render(acts, 128).frames
    write_image(folder / 'who.png', frames[0])
    write_audio(folder / 'speech.wav', acts.wave)
    (folder / 'raw').mkdir()
    write_video(folder / 'raw' / 'a.mp4', frames, acts.wave)
    for name in 'bcdef':
        shutil.copy(folder / 'raw' / 'a.mp4', folder / 'raw' / f'{name}.mp4')
    return folder


@pytest.mark.parametrize('number,group', [(signal.SIGTERM, False), (signal.SIGINT, True), (signal.SIGHUP, False)])
def test_generate_leaves_nothing(tmp_path, inputs, number, group):
    p = speak(
        'generate', '--identity', inputs / 'who.png', '--audio', inputs / 'speech.wav', '--out', tmp_path / 'out.mp4'
    )
    wait_for(p, lambda: parts(tmp_path))
    assert parts(tmp_path)
    stopped_cleanly(p, number, group, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_demo_leaves_whole_files(tmp_path):
    p = speak('demo', '--out', tmp_path / 'demo')
    wait_for(p, lambda: any('result' in name for name in parts(tmp_path)))
    stopped_cleanly(p, signal.SIGTERM, True, tmp_path)
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
        stopped_cleanly(p, number, group, tmp_path)
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
from speak.training.loop import make_accelerator, run_stage
from speak.training.irfd import IrfdStage
from speak.training.sync import SyncStage
run, cache, workers = sys.argv[1:]
c = configure('test', checkpoint_interval_s=1e6, steps_sync=90, steps_irfd=45, num_workers=int(workers))
acc = make_accelerator(c)
frames = FrameCache.build(SyntheticCorpus(c.data.n_clips), cache, c.data.image_size, jobs=1, progress=False)
run_stage(SyncStage(c, acc, frames), run, progress=False)
run_stage(IrfdStage(c, acc, frames), run, progress=False)
"""


@pytest.mark.parametrize('workers', [0, 2])
def test_training_goes_on(tmp_path, workers):  # a checkpoint is written only where a signal asks for it, and at the end
    def train(run):
        return start(sys.executable, '-c', TRAIN, tmp_path / run, tmp_path / 'cache', workers)

    def log(stage):
        file = tmp_path / 'stopped' / f'{stage}.csv'
        return file.stat().st_size if file.exists() else 0

    whole = train('whole')
    assert whole.communicate(timeout=600) and whole.returncode == 0
    rng, kills, at = random.Random(workers), 0, {}
    while True:
        p, before = train('stopped'), {s: log(s) for s in ('sync', 'irfd')}
        if kills < 3:
            wait_for(p, lambda: any(log(s) > size + 20 for s, size in before.items()))  # twenty steps more
        if kills == 3 or p.poll() is not None:
            break
        number = rng.choice([signal.SIGTERM, signal.SIGINT])
        said, error = stop(p, number, rng.random() < 0.5 or workers > 0)
        assert p.returncode == (143 if number == signal.SIGTERM else -signal.SIGINT), error
        assert f'stopped by {number.name} after step' in said
        kills += 1
        stage, step = said.split(':')[0].split()[-1], int(said.split('after step ')[1].split()[0])
        assert load_tensors(tmp_path / 'stopped' / f'{stage}.safetensors')[0]['step'] == step
        assert at.get(stage, 0) < step
        at[stage] = step
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
c = configure('test', checkpoint_interval_s=1e6, steps_sync=100000)
acc = make_accelerator(c)
with acc.main_process_first():
    frames = FrameCache.build(SyntheticCorpus(c.data.n_clips), sys.argv[1] + '/cache', c.data.image_size, jobs=1, progress=False)
run_stage(SyncStage(c, acc, frames), sys.argv[1], progress=False)
"""


def test_processes_stop_together(tmp_path, monkeypatch):  # where one is asked, at the same step
    monkeypatch.setenv('ACCELERATE_USE_CPU', 'true')
    (tmp_path / 'train.py').write_text(TOGETHER)
    p = start(sys.executable, '-m', 'torch.distributed.run', '--nproc_per_node', 2, tmp_path / 'train.py', tmp_path)
    wait_for(p, lambda: (tmp_path / 'sync.csv').exists() and len((tmp_path / 'sync.csv').read_text().splitlines()) > 2)
    ranks = subprocess.run(['pgrep', '-P', str(p.pid)], capture_output=True, text=True).stdout.split()
    os.kill(int(ranks[-1]), signal.SIGTERM)
    said, error = p.communicate(timeout=60)
    assert said.count('stopped by SIGTERM after step') == 1 and 'exitcode  : 143' in error, said + error
    assert f"after step {load_tensors(tmp_path / 'sync.safetensors')[0]['step']} of" in said


@pytest.mark.parametrize('number', [signal.SIGTERM, signal.SIGINT])
def test_papermill_goes_on(tmp_path, number):  # SIGTERM only ends papermill; the kernel sees that it is gone
    def train(run, steps):
        return start(
            sys.executable,
            '-m',
            'papermill',
            '--cwd',
            'nbs',
            'nbs/train.ipynb',
            tmp_path / f'{run}.ipynb',
            '-p',
            'run_dir',
            tmp_path / run,
            '-p',
            'cache_dir',
            tmp_path / 'cache',
            '-y',
            f'settings: {{checkpoint_every_s: 1.0e+6, steps_sync: {steps}}}',
        )

    p, run = train('stopped', 3000), tmp_path / 'stopped'
    wait_for(p, lambda: (run / 'sync.csv').exists() and len((run / 'sync.csv').read_text().splitlines()) > 2)
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

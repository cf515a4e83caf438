"A training run that is killed, for real, goes on as if nothing had happened."

import os
import random
import signal
import subprocess
import sys
import time

import pytest
from safetensors.torch import load_file

from speak.config import configure
from speak.data.cache import FrameCache
from speak.synthetic.dataset import SyntheticCorpus

N_KILLS = 6

TRAIN = """
import sys
from speak.config import configure
from speak.data.cache import FrameCache
from speak.synthetic.dataset import SyntheticCorpus
from speak.training.irfd import IrfdStage
from speak.training.loop import make_accelerator, run_stage
from speak.training.sync import SyncStage
from speak.training.talker import TalkerStage

run, cache = sys.argv[1:]
c = configure('test', checkpoint_interval_s=0., steps_sync=60, steps_irfd=60, steps_talker=60)
acc = make_accelerator(c)
frames = FrameCache.build(SyntheticCorpus(c.data.n_clips), cache, c.data.image_size, jobs=1, progress=False)
run_stage(SyncStage(c, acc, frames), run, progress=False)
run_stage(IrfdStage(c, acc, frames), run, progress=False)
run_stage(TalkerStage(c, acc, frames, f'{run}/irfd.safetensors', f'{run}/sync.safetensors'), run, progress=False)
print('finished')
"""


def start(run, cache):
    "A run of three stages, which saves after each step."
    words = [sys.executable, '-c', TRAIN, str(run), str(cache)]
    return subprocess.Popen(words, stdout=subprocess.PIPE, text=True, start_new_session=True)


def last_saved(run):
    "When the newest checkpoint of a run was written, in ns; 0 before the first."
    return max((f.stat().st_mtime_ns for f in run.glob('*.safetensors')), default=0)


def kill_after_a_save(p, run, before, delay):
    "Kill a run `delay` seconds after it saved more than at `before`; False where it ended by itself."
    while p.poll() is None and last_saved(run) == before:
        time.sleep(0.02)
    time.sleep(delay)
    if p.poll() is not None:
        return False
    os.killpg(p.pid, signal.SIGKILL)
    p.communicate()
    return True


@pytest.mark.slow
def test_killed_run_ends_where_an_undisturbed_one_does(tmp_path):
    whole, killed, cache = (tmp_path / name for name in ('whole', 'killed', 'cache'))
    data = configure('test').data
    # Built before, so that both runs take as long.
    FrameCache.build(SyntheticCorpus(data.n_clips), cache, data.image_size, jobs=1, progress=False)
    assert 'finished' in start(whole, cache).communicate(timeout=600)[0]
    rng, kills, out = random.Random(0), 0, ''
    while 'finished' not in out:
        before = last_saved(killed)
        p = start(killed, cache)
        if kills < N_KILLS and kill_after_a_save(p, killed, before, rng.uniform(0, 0.8)):
            kills += 1
            continue
        out = p.communicate(timeout=600)[0]
        assert p.returncode == 0
    assert kills >= 4
    for stage in ('sync', 'irfd', 'talker'):
        a, b = (load_file(run / f'{stage}.safetensors') for run in (whole, killed))
        assert a.keys() == b.keys() and all(a[k].equal(b[k]) for k in a), stage
    assert not list(killed.glob('*.part'))

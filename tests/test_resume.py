"A training run that is killed, for real, goes on as if nothing had happened."

import os
import random
import signal
import subprocess
import sys
import time

import pytest
from safetensors.torch import load_file

RUN = """
import sys
from speak.config import configure
from speak.data.cache import FrameCache
from speak.synthetic.dataset import SyntheticCorpus
from speak.training.loop import make_accelerator, run_stage
from speak.training.irfd import IrfdStage
from speak.training.sync import SyncStage
from speak.training.talker import TalkerStage
run, cache = sys.argv[1:]
c = configure('test', checkpoint_interval_s=0., steps_sync=60, steps_irfd=60, steps_talker=60)
acc, frames = make_accelerator(c), FrameCache.build(SyntheticCorpus(c.data.n_clips), cache, c.data.image_size, jobs=1, progress=False)
run_stage(SyncStage(c, acc, frames), run, progress=False)
run_stage(IrfdStage(c, acc, frames), run, progress=False)
run_stage(TalkerStage(c, acc, frames, f'{run}/irfd.safetensors', f'{run}/sync.safetensors'), run, progress=False)
print('finished')
"""


def start(run, cache):
    return subprocess.Popen(
        [sys.executable, '-c', RUN, str(run), str(cache)], stdout=subprocess.PIPE, text=True, start_new_session=True
    )


@pytest.mark.slow
def test_killed_run_ends_where_an_undisturbed_one_does(tmp_path):
    from speak.config import configure
    from speak.data.cache import FrameCache
    from speak.synthetic.dataset import SyntheticCorpus

    FrameCache.build(
        SyntheticCorpus(configure('test').clips), tmp_path / 'cache', 32, jobs=1, progress=False
    )  # so that both runs take as long
    assert 'finished' in start(tmp_path / 'whole', tmp_path / 'cache').communicate(timeout=600)[0]
    newest = lambda: max((f.stat().st_mtime_ns for f in (tmp_path / 'killed').glob('*.safetensors')), default=0)
    rng, kills, out = random.Random(0), 0, ''
    while 'finished' not in out:
        p, before = start(tmp_path / 'killed', tmp_path / 'cache'), newest()
        if kills < 6:
            while p.poll() is None and newest() == before:
                time.sleep(0.02)  # it has made and saved a step more than the one before
            time.sleep(rng.uniform(0, 0.8))
            if p.poll() is None:
                os.killpg(p.pid, signal.SIGKILL)
                p.communicate()
                kills += 1
                continue
        out = p.communicate(timeout=600)[0]
        assert p.returncode == 0
    assert kills >= 4
    for stage in ('sync', 'irfd', 'talker'):
        a, b = (load_file(tmp_path / d / f'{stage}.safetensors') for d in ('whole', 'killed'))
        assert a.keys() == b.keys() and all(a[k].equal(b[k]) for k in a), stage
    assert not list((tmp_path / 'killed').glob('*.part'))

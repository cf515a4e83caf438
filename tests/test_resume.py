"A training run that is killed, for real, goes on as if nothing had happened."
import os, random, signal, subprocess, sys, time
import pytest
from safetensors.torch import load_file

RUN = """
import sys
from speak.config import configure
from speak.data.corpora import Cache, SyntheticCorpus
from speak.training.loop import make_accelerator, run_stage
from speak.training.irfd import IrfdStage
from speak.training.sync import SyncStage
from speak.training.talker import TalkerStage
run, cache = sys.argv[1:]
c = configure('nano', checkpoint_every_s=0., steps_sync=12, steps_irfd=12, steps_talker=12)
acc, frames = make_accelerator(c), Cache.build(SyntheticCorpus(c.clips), cache, c.size, jobs=1, progress=False)
run_stage(SyncStage(c, acc, frames), run, progress=False)
run_stage(IrfdStage(c, acc, frames), run, progress=False)
run_stage(TalkerStage(c, acc, frames, f'{run}/irfd.safetensors', f'{run}/sync.safetensors'), run, progress=False)
print('finished')
"""

def start(run, cache): return subprocess.Popen([sys.executable, '-c', RUN, str(run), str(cache)], stdout=subprocess.PIPE, text=True, start_new_session=True)

@pytest.mark.slow
def test_killed_run_ends_where_an_undisturbed_one_does(tmp_path):
    whole = start(tmp_path/'whole', tmp_path/'cache'); began = time.monotonic()
    assert 'finished' in whole.communicate(timeout=600)[0]
    took, rng, kills = time.monotonic() - began, random.Random(0), 0
    for _ in range(40):
        p = start(tmp_path/'killed', tmp_path/'cache')
        try: out = p.communicate(timeout=took*rng.uniform(0.4, 1.1) if kills < 6 else 600)[0]
        except subprocess.TimeoutExpired:
            os.killpg(p.pid, signal.SIGKILL); p.communicate(); kills += 1; continue
        assert p.returncode == 0 and 'finished' in out
        break
    assert kills >= 3 and 'finished' in out
    for stage in ('sync', 'irfd', 'talker'):
        a, b = (load_file(tmp_path/d/f'{stage}.safetensors') for d in ('whole', 'killed'))
        assert a.keys() == b.keys() and all(a[k].equal(b[k]) for k in a), stage
    assert not list((tmp_path/'killed').glob('*.part'))

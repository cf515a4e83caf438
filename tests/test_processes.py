"Two processes train one model, as torchrun starts them on a cluster."
import os, subprocess, sys
from pathlib import Path
import pytest
from speak.training.loop import read_log

REPO = Path(__file__).parents[1]

@pytest.mark.slow
def test_two_processes(tmp_path):
    run = tmp_path/'run'
    notebook = f"{sys.executable} -m papermill --cwd nbs nbs/train.ipynb {tmp_path}/train.$RANK.ipynb -p preset nano -p run_dir {run} --log-output"
    env = dict(os.environ, ACCELERATE_USE_CPU='true', OMP_NUM_THREADS='1')
    done = subprocess.run([sys.executable, '-m', 'torch.distributed.run', '--nproc_per_node', '2', '--no-python', 'bash', '-c', notebook], cwd=REPO, env=env, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stderr.count('processes: 2') + done.stdout.count('processes: 2') >= 2                  # each saw the other
    assert [r['step'] for r in read_log(run/'talker.csv')] == [6]                                   # one log, of one process
    assert sorted(p.name for p in (run/'export').iterdir() if p.suffix != '.md') == ['config.json', 'model.safetensors']

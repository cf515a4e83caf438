"Two processes train one model, as torchrun starts them on a cluster."

import csv
import io
import os
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest

from speak.data.audio import write_audio
from speak.data.video_writer import write_video
from speak.synthetic.dataset import SyntheticCorpus
from speak.training.log import read_log

REPO = Path(__file__).parents[1]


def start(tmp_path, *parameters):  # what the processes said
    notebook = (
        f"{sys.executable} -m papermill --cwd nbs nbs/train.ipynb {tmp_path}/train.$RANK.ipynb -p preset nano "
        f"-p run_dir {tmp_path / 'run'} {' '.join(parameters)} --log-output"
    )
    env = dict(os.environ, ACCELERATE_USE_CPU='true', OMP_NUM_THREADS='1')
    done = subprocess.run(
        [sys.executable, '-m', 'torch.distributed.run', '--nproc_per_node', '2', '--no-python', 'bash', '-c', notebook],
        cwd=REPO,
        env=env,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stderr.count('processes: 2') + done.stdout.count('processes: 2') >= 2  # each saw the other
    return done.stdout + done.stderr


def train(tmp_path, *parameters):
    said = start(tmp_path, *parameters)
    assert [r['step'] for r in read_log(tmp_path / 'run/talker.csv')] == [6]  # one log, of one process
    assert sorted(p.name for p in (tmp_path / 'run/export').iterdir() if p.suffix != '.md') == [
        'config.json',
        'model.safetensors',
    ]
    return said


@pytest.mark.slow
def test_two_processes(tmp_path):
    train(tmp_path)


@pytest.mark.slow
def test_two_processes_stop_by_the_clock(tmp_path):  # at the same step, or one would wait for the other
    said = start(
        tmp_path, '-p', 'minutes', '0.05', '-y', '"settings: {steps_sync: 100000}"'
    )  # more than any machine does in three seconds
    assert (
        said.count('The 0.05 minutes are up after step') == 1
        and 'of 100000 of the stage sync' in said
        and not (tmp_path / 'run/export').exists()
    )
    train(tmp_path)


@pytest.mark.slow
def test_two_processes_stream_shards(tmp_path):
    corpus, data = SyntheticCorpus(12), tmp_path / 'data'
    (data / 'shards').mkdir(parents=True)
    with open(data / 'clips.csv', 'w', newline='') as f:
        table = csv.writer(f)
        table.writerow(['clip', 'identity', 'emotion', 'split', 'audio_s', 'shard'])
        for a in range(0, 12, 4):
            with tarfile.open(data / 'shards' / f'train-{a // 4:06d}.tar', 'w') as tar:
                for i in range(a, a + 4):
                    clip, c = corpus.load(i, 32), corpus.clips[i]
                    write_video(tmp_path / 'a.mp4', clip.frames)
                    write_audio(tmp_path / 'a.wav', clip.wave)
                    np.savez(tmp_path / 'a.npz', landmarks=clip.landmarks)
                    if i == 5:
                        os.truncate(tmp_path / 'a.mp4', 3000)
                    for ending in 'mp4', 'wav', 'npz':
                        tar.add(tmp_path / f'a.{ending}', f'{c.name}.{ending}')
                    table.writerow(
                        [c.name, c.identity, c.emotion, 'train', len(clip.frames) / 30, f'train-{a // 4:06d}']
                    )
    said = train(
        tmp_path, '-p', 'data', str(data), '-p', 'frames', 'stream', '-y', '"settings: {workers: 2, steps_irfd: 24}"'
    )
    assert '12 clips' in said and 'read while training in 4 lanes' in said
    left_out = list(csv.DictReader(io.StringIO((tmp_path / 'run/left_out.csv').read_text())))
    assert [r['clip'] for r in left_out] == ['train_00005'] and 'train-000001.tar/train_00005.mp4' in left_out[0][
        'reason'
    ]  # once, by one of four workers
    assert not (tmp_path / 'run/cache').exists()

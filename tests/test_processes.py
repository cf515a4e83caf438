"Two processes train one model, as torchrun starts them on a cluster."

import csv
import io
import os
import subprocess
import sys
import tarfile

import numpy as np
import pytest
from conftest import ROOT

from speak.data.audio import write_audio
from speak.data.video_writer import write_video
from speak.synthetic.dataset import SyntheticCorpus
from speak.training.log import read_log

pytestmark = pytest.mark.slow


def start(tmp_path, *parameters):
    "Run the training notebook in two processes; returns what both printed."
    notebook = (
        f'{sys.executable} -m papermill --cwd nbs nbs/train.ipynb {tmp_path}/train.$RANK.ipynb -p preset test '
        f'-p run_dir {tmp_path / "run"} {" ".join(parameters)} --log-output'
    )
    done = subprocess.run(
        [sys.executable, '-m', 'torch.distributed.run', '--nproc_per_node', '2', '--no-python', 'bash', '-c', notebook],
        cwd=ROOT,
        env=dict(os.environ, ACCELERATE_USE_CPU='true', OMP_NUM_THREADS='1'),
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    printed = done.stdout + done.stderr
    assert printed.count('processes: 2') >= 2  # each knows of the other
    return printed


def train(tmp_path, *parameters):
    "Train to the end: one log, and one export, of one process."
    printed = start(tmp_path, *parameters)
    assert [r['step'] for r in read_log(tmp_path / 'run' / 'talker.csv')] == [6]
    exported = sorted(p.name for p in (tmp_path / 'run' / 'export').iterdir() if p.suffix != '.md')
    assert exported == ['config.json', 'model.safetensors']
    return printed


def test_two_processes(tmp_path):
    train(tmp_path)


def test_two_processes_stop_by_the_clock(tmp_path):
    "At the same step, or one would wait for the other. No machine makes so many steps in three seconds."
    printed = start(tmp_path, '-p', 'minutes', '0.05', '-y', '"settings: {steps_sync: 100000}"')
    assert printed.count('The 0.05 minutes are up after step') == 1
    assert 'of 100000 of the stage sync' in printed
    assert not (tmp_path / 'run' / 'export').exists()
    train(tmp_path)


def make_shards(data, tmp_path, n_clips=12, per_shard=4, damaged=5):
    "A corpus of shards in `data`, one of whose videos is cut off."
    corpus = SyntheticCorpus(n_clips)
    (data / 'shards').mkdir(parents=True)
    with open(data / 'clips.csv', 'w', newline='') as f:
        table = csv.writer(f)
        table.writerow(['clip', 'identity', 'emotion', 'split', 'audio_s', 'shard'])
        for first in range(0, n_clips, per_shard):
            shard = f'train-{first // per_shard:06d}'
            with tarfile.open(data / 'shards' / f'{shard}.tar', 'w') as tar:
                for i in range(first, first + per_shard):
                    clip, info = corpus.load(i, 32), corpus.clips[i]
                    write_video(tmp_path / 'a.mp4', clip.frames)
                    write_audio(tmp_path / 'a.wav', clip.wave)
                    np.savez(tmp_path / 'a.npz', landmarks=clip.landmarks)
                    if i == damaged:
                        os.truncate(tmp_path / 'a.mp4', 3000)
                    for suffix in ('mp4', 'wav', 'npz'):
                        tar.add(tmp_path / f'a.{suffix}', f'{info.name}.{suffix}')
                    seconds = len(clip.frames) / 30
                    table.writerow([info.name, info.identity, info.emotion, 'train', seconds, shard])


def test_two_processes_stream_shards(tmp_path):
    "Each with two workers; a damaged clip is left out once, though only one of the four workers meets it."
    make_shards(tmp_path / 'data', tmp_path)
    settings = '"settings: {num_workers: 2, steps_irfd: 24}"'
    printed = train(tmp_path, '-p', 'data', str(tmp_path / 'data'), '-p', 'frames', 'stream', '-y', settings)
    assert '12 clips' in printed and 'read while training in 4 lanes' in printed
    left_out = list(csv.DictReader(io.StringIO((tmp_path / 'run' / 'left_out.csv').read_text())))
    assert [r['clip'] for r in left_out] == ['train_00005']
    assert 'train-000001.tar/train_00005.mp4' in left_out[0]['reason']
    assert not (tmp_path / 'run' / 'cache').exists()

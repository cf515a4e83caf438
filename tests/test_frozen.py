"""What the shipped weights paint and what a training step loses, recorded, so that rebuilding the code changes neither.

`python tests/test_frozen.py` records anew, which is right only where a change of figures is meant."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

HERE = Path(__file__).parent / 'frozen'
CASES, SECONDS, SHOWN = 12, 2.0, (0, 20, 40, 59)  # of the benchmark; the frames that are kept of each


def painted() -> np.ndarray:
    "Frames of the benchmark's first cases, one row a case: uint8 (12*S, 4*S, 3)"
    from speak.evaluation.benchmark import case_inputs, cases
    from speak.pipeline import SpeakPipeline

    pipe, rows = SpeakPipeline.from_pretrained('tiny', 'cpu'), []
    for case in cases(CASES, 0):
        x = case_inputs(case, pipe.size)
        x = x._replace(wave=x.wave[: round(SECONDS * 16000)])
        frames = pipe(*x, crop=False)
        rows.append(np.concatenate([frames[min(k, len(frames) - 1)] for k in SHOWN], 1))
    return np.concatenate(rows)


def shapes() -> dict:
    "Names and sizes of the shipped weights"
    from speak.weights import find_weights, load_talker

    return {k: list(v.shape) for k, v in load_talker(*find_weights('tiny')).state_dict().items()}


def losses(folder) -> dict:
    "The logged losses of a few steps of each stage, by the recipe of the shipped weights on a small corpus"
    from speak.config import configure
    from speak.data.cache import FrameCache
    from speak.synthetic.dataset import SyntheticCorpus, SyntheticImages
    from speak.training.irfd import IrfdStage
    from speak.training.log import read_log
    from speak.training.loop import make_accelerator, run_stage
    from speak.training.sync import SyncStage
    from speak.training.talker import TalkerStage

    c = configure(
        'tiny', n_clips=6, n_short_clips=6, n_still_identities=4, shapes_per_identity=2, batch_sync=4, batch_irfd=2,
        batch_talker=2, batch_single_frames=4, batch_supervised=4, batch_augmented=4, steps_sync=3, steps_supervised=3,
        steps_irfd=6, steps_talker=9, flow_only_fraction=0.3, gan_start_fraction=0.7,
    )  # fmt: skip
    acc, size, data = make_accelerator(c), c.data.image_size, c.data
    clips = SyntheticCorpus(data.n_clips, max_frames=data.max_clip_frames, n_short_clips=data.n_short_clips)
    cache = FrameCache.build(clips, folder, size, jobs=1, progress=False)
    stills = SyntheticImages(data.n_still_identities, shapes_per_identity=data.shapes_per_identity)
    images = FrameCache.build(stills, folder, size, progress=False)
    make = dict(
        sync=lambda: SyncStage(c, acc, cache),
        irfd=lambda: IrfdStage(c, acc, cache, images),
        talker=lambda: TalkerStage(c, acc, cache, folder / 'irfd.safetensors', folder / 'sync.safetensors'),
    )
    for stage in make.values():
        run_stage(stage(), folder, progress=False, log_every=1)
    return {
        name: [
            {k: v for k, v in row.items() if k not in ('seconds', 'waiting')}
            for row in read_log(folder / f'{name}.csv')
        ]
        for name in make
    }


@pytest.mark.slow
def test_frames_of_the_shipped_weights():
    kept = np.asarray(Image.open(HERE / 'frames.png')).astype(int)
    off = np.abs(painted() - kept)
    assert off.max() <= 1, f'{(off > 1).mean():.2%} of the pixels differ, by up to {off.max()}'


def test_shapes_of_the_shipped_weights():
    assert shapes() == json.loads((HERE / 'shapes.json').read_text())


@pytest.mark.slow
def test_losses_of_the_first_steps(tmp_path):
    torch.set_num_threads(1)
    kept, now = json.loads((HERE / 'losses.json').read_text()), losses(tmp_path)
    for name, rows in kept.items():
        assert len(rows) == len(now[name])
        for then, new in zip(rows, now[name]):
            for k, v in then.items():
                assert new[k] == pytest.approx(v, rel=2e-3, abs=1e-5), (name, then['step'], k)


if __name__ == '__main__':
    import tempfile

    torch.set_num_threads(1)
    HERE.mkdir(exist_ok=True)
    Image.fromarray(painted()).save(HERE / 'frames.png')
    (HERE / 'shapes.json').write_text(json.dumps(shapes(), indent=0) + '\n')
    with tempfile.TemporaryDirectory() as folder:
        (HERE / 'losses.json').write_text(json.dumps(losses(Path(folder)), indent=1) + '\n')
    sys.exit(0)

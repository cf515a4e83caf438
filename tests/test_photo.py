"The shipped weights for photographs, on a person of the embedded corpus whom they never saw."

import numpy as np
import pytest

from speak.pipeline import SpeakPipeline
from speak.synthetic.portraits import portraits
from speak.synthetic.voices import draw_speech

SIZE = 256


@pytest.fixture(scope='module')
def pipe():
    return SpeakPipeline.from_pretrained('photo', 'cpu')


@pytest.fixture(scope='module')
def person():
    return next(p for p in portraits(90_003, 40, SIZE) if np.abs(p.angles).max() < 12)


@pytest.fixture(scope='module')
def wide(person):
    "A picture of the whole person's surroundings, wider than high, with an odd number of rows"
    return np.pad(person.image, ((0, 1), (60, 100), (0, 0)), mode='edge')


@pytest.fixture(scope='module')
def speech():
    return draw_speech(10**6 + 5, ['en'], ['espeak']).wave[:16000]


def change(frames: np.ndarray) -> float:
    return float(np.abs(np.diff(frames.astype(float), axis=0)).mean())


def test_the_whole_picture_comes_back_and_what_is_far_from_the_head_stays(pipe, wide, speech):
    frames = pipe(wide, speech)
    assert frames.shape == (30, SIZE, SIZE + 160, 3)
    assert (frames[:, :, :8] == wide[:SIZE, :8]).all() and (frames[:, :, -8:] == wide[:SIZE, -8:]).all()


def test_the_mouth_moves_with_speech_and_rests_in_silence(pipe, wide, speech):
    spoken, silent = pipe(wide, speech), pipe(wide, np.full(16000, 1e-4, np.float32))
    assert change(spoken) > 2 * change(silent)


def test_the_head_turns_with_the_pose_video(pipe, person, wide, speech):
    turned = [p.image for p in portraits(90_003, 40, SIZE) if np.abs(p.angles).max() < 40][:8]
    still, moved = pipe(wide, speech, crop=True), pipe(wide, speech, pose=np.stack(turned), crop=True)
    assert change(moved) > 2 * change(still)


def test_a_square_of_any_even_size(pipe, wide, speech):
    assert pipe(wide, speech[:3200], size=192).shape == (6, 192, 192, 3)


def test_the_head_starts_where_the_picture_has_it(pipe, wide, speech):
    "A driver who sits elsewhere in the frame does not pull the head there."
    first = np.pad(wide[:, 60 : 60 + SIZE], ((0, 0), (40, 0), (0, 0)), mode='edge')[:, :SIZE]
    second = np.pad(wide[:, 60 : 60 + SIZE], ((0, 0), (70, 0), (0, 0)), mode='edge')[:, :SIZE]
    still, moved = (pipe(wide, speech[:6400], pose=pose) for pose in (None, np.stack([first] * 6 + [second] * 6)))
    off = [float(np.abs(still[k].astype(float) - moved[k]).mean()) for k in (0, 11)]
    assert off[0] < 3 < off[1], off

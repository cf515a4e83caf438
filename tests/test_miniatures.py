"From a corpus as downloaded to the first steps of training it, with two commands."

import subprocess
import sys
from pathlib import Path

import pytest

from speak.data.prepare.fixtures import make_fixture_corpus
from speak.training.log import read_log

REPO = Path(__file__).parents[1]
# scikit-image's detector gives no landmarks; these are the settings that the error names
WITHOUT = (
    'irfd_weights: {head_pose: 0, landmark_flow: 0}, talker_weights: {landmark_flow: 0, sync: 0}, '
    'flow_only_fraction: 0, steps_supervised: 0'
)


@pytest.mark.slow
@pytest.mark.parametrize('corpus', ['voxceleb1', 'voxceleb2', 'mead', 'cremad', 'hdtf'])
def test_training_starts(tmp_path, corpus):
    def run(*command):
        done = subprocess.run([sys.executable, *command], cwd=REPO, capture_output=True, text=True, timeout=600)
        assert done.returncode == 0, done.stderr[-3000:]
        return done.stdout

    raw = make_fixture_corpus(corpus, tmp_path / 'raw')
    command = 'import sys; from speak.cli import main; sys.exit(main())'
    folders = ('--corpus', corpus, '--source', str(raw), '--out', str(tmp_path / 'clips'))
    small = ('--size', '64', '--shortest', '0.3', '--upscale', '4', '--allow-silent', '--jobs', '1')
    assert 'clips (' in run('-c', command, 'prepare', *folders, *small)
    notebook = ('-m', 'papermill', '--cwd', 'nbs', 'nbs/train.ipynb', str(tmp_path / 'out.ipynb'))
    parameters = dict(preset='tiny', data=tmp_path / 'clips', run_dir=tmp_path / 'run')
    few = 'steps_irfd: 2, steps_talker: 2, batch_irfd: 2, batch_talker: 1, batch_single_frames: 2, batch_supervised: 0'
    words = [w for name, value in parameters.items() for w in ('-p', name, str(value))]
    run(*notebook, *words, '-y', f'settings: {{{WITHOUT}, {few}}}')
    rows = read_log(tmp_path / 'run' / 'talker.csv')
    assert rows[-1]['step'] == 2 and rows[-1]['l1'] > 0
    assert (tmp_path / 'run' / 'export' / 'model.safetensors').is_file()

"The notebooks for papermill, run as their users run them: saved are lines and pictures, no bars and no warnings."

import csv
import json
import re
import shutil
from pathlib import Path

import papermill
import pytest

from speak.data.prepare.corpus import prepare
from speak.data.prepare.fixtures import make_fixture_corpus
from speak.data.video_writer import write_video
from speak.evaluation import benchmark

NBS = Path(__file__).parents[1] / 'nbs'


def saved(name, folder, **parameters):
    "What a notebook shows, as text, after it was run."
    out = folder / f'{name}.ipynb'
    papermill.execute_notebook(NBS / f'{name}.ipynb', out, parameters, cwd=NBS, progress_bar=False)
    nb = json.loads(out.read_text(encoding='utf8'))
    shown = [o for c in nb['cells'] for o in c.get('outputs', [])]
    assert not [
        o for o in shown if o.get('name') == 'stderr' or 'application/vnd.jupyter.widget-view+json' in o.get('data', {})
    ]
    assert len(json.dumps(nb['metadata'])) < 50_000  # with the widgets' state
    text = '\n'.join(''.join(o.get('text') or o['data'].get('text/plain', '')) for o in shown)
    assert not re.search(r'\r|it/s|[Ww]arning', text), text
    return text


@pytest.fixture(scope='module')
def clips(tmp_path_factory):  # prepared, without landmarks
    folder = tmp_path_factory.mktemp('corpus')
    raw = make_fixture_corpus('hdtf', folder / 'raw')
    few = dict(size=64, shortest_s=0.3, upscale=4.0, detector='speak', progress=False)
    prepare('hdtf', raw, folder / 'clips ä', **few)
    prepare('hdtf', raw, folder / 'shards', shard=3, **few)
    shutil.copytree(folder / 'clips ä', folder / 'one')
    table = folder / 'one' / 'clips.csv'
    rows = list(csv.DictReader(open(table, encoding='utf8')))
    with open(table, 'w', newline='', encoding='utf8') as f:
        out = csv.DictWriter(f, rows[0])
        out.writeheader()
        out.writerow(dict(rows[0], split='train'))
    return folder


@pytest.mark.slow
def test_bars_are_one_line_each(tmp_path):
    said = saved('train', tmp_path)
    for stage in 'sync', 'irfd', 'talker':
        assert len(re.findall(rf'^{stage}: 6 of 6 in .* s, \w+=', said, re.M)) == 1, said
    assert re.search(r'^prepare: 9 of 9 recordings in .* s$', saved('prepare', tmp_path), re.M)


@pytest.mark.slow
@pytest.mark.parametrize('corpus,split,baselines', [('clips ä', 'test', 2), ('shards', 'test', 2), ('one', 'train', 1)])
def test_clips_without_landmarks_are_scored(clips, tmp_path, corpus, split, baselines):
    said = saved('evaluate', tmp_path, data=str(clips / corpus))
    assert (
        f"clips of the split '{split}'" in said
        and 'clips without landmarks: ' in said
        and "detector='face-alignment'" in said
    )
    assert (
        'SSIM' in said
        and re.search(r'^model +0\.9', said, re.M)
        and len(re.findall(r'^(picture|mean_frame) +0\.', said, re.M)) == baselines
    )


@pytest.mark.slow
def test_videos_in_sub_folders_are_scored(tmp_path):
    case = benchmark.cases(1, 0)[0]
    (tmp_path / 'videos' / 'mine').mkdir(parents=True)
    write_video(tmp_path / 'videos' / 'mine' / f'{case.name}.mp4', benchmark.ground_truth(case, 64).frames)
    said = saved('benchmark', tmp_path, model=str(tmp_path / 'videos'), cases=1, controls=0)
    assert re.search(r'^SSIM +0\.9', said, re.M) and 'no video for: none missing' in said

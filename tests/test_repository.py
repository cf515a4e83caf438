"""The repository agrees with itself: what is made from something else is what that would make now."""

import configparser
import json
import re
import runpy
from pathlib import Path

import pytest
from conftest import ROOT, files, run

notebooks = [f for f in files() if f.suffix == '.ipynb' and f.parts[0] == 'nbs']


def cells(notebook: Path) -> list[dict]:
    return json.loads((ROOT / notebook).read_text(encoding='utf8'))['cells']


def source(cell: dict) -> str:
    return ''.join(cell['source'])


def exports(notebook: Path) -> bool:
    return any(re.search(r'^#\|\s*default_exp\b', source(c), re.M) for c in cells(notebook) if c['cell_type'] == 'code')


@pytest.mark.parametrize('command', ['nbdev_export', 'nbdev_clean'])
def test_nbdev_changes_nothing(tree, command):
    def contents():
        return {
            f.relative_to(tree): f.read_bytes() for f in tree.rglob('*') if f.is_file() and '__pycache__' not in f.parts
        }

    before = contents()
    run(command, cwd=tree)
    after = contents()
    changed = sorted(
        str(f) for f in before.keys() | after.keys() if before.get(f) != after.get(f) and f.name != '.last_checked'
    )
    assert not changed, f'{command} changes {", ".join(changed)}'


def test_no_module_without_a_notebook():
    made = {(ROOT / 'nbs' / n.relative_to('nbs')).resolve() for n in notebooks}
    for f in files():
        if f.parts[0] != 'speak' or f.suffix != '.py' or f.name in ('__init__.py', '_modidx.py'):
            continue
        origin = re.search(r'File to edit: (\S+\.ipynb)', (ROOT / f).read_text(encoding='utf8'))
        assert origin, f'{f} was not exported from a notebook'
        assert (ROOT / f.parent / origin[1]).resolve() in made, f'{f} comes from {origin[1]}, which is not there'


def test_readme_is_what_index_says():
    made = runpy.run_path(str(ROOT / 'tools' / 'readme.py'))['readme']()
    assert (ROOT / 'README.md').read_text(encoding='utf8') == made, (
        'README.md differs from nbs/index.ipynb: run `make readme`'
    )


def test_readme_links_to_files_that_are_there():
    text = (ROOT / 'README.md').read_text(encoding='utf8')
    links = re.findall(r'\]\(([^)\s#]+)', text) + re.findall(r'(?:src|href)="([^"#]+)"', text)
    missing = [link for link in links if not re.match(r'[a-z]+:', link) and not (ROOT / link).exists()]
    assert links and not missing, f'README.md links to {", ".join(missing)}'


def test_readme_names_every_notebook():
    text = (ROOT / 'README.md').read_text(encoding='utf8')
    unnamed = [str(n) for n in notebooks if n != Path('nbs/index.ipynb') and f']({n.as_posix()})' not in text]
    assert not unnamed, f'README.md has no link to {", ".join(unnamed)}'


def test_parameterised_notebooks_have_one_tagged_cell():
    "Papermill runs the defaults, and says nothing, when the tag is gone."
    for n in notebooks:
        if len(n.parts) > 2 or n.name == 'index.ipynb' or exports(n):
            continue
        tagged = [c for c in cells(n) if 'parameters' in c['metadata'].get('tags', [])]
        assert len(tagged) == 1, f'{n} has {len(tagged)} cells tagged `parameters`'


@pytest.mark.parametrize('pattern,megabytes', [('*.ipynb', 1), ('*', 20)])
def test_sizes(pattern, megabytes):
    large = {
        str(f): (ROOT / f).stat().st_size
        for f in files()
        if f.match(pattern) and (ROOT / f).stat().st_size > megabytes * 1e6
    }
    assert not large, f'over {megabytes} MB: {large}'


def texts(f: Path):
    "The text of file `f` as a reader sees it: for a notebook, its sources and what its cells printed; nothing for a picture."
    try:
        text = (ROOT / f).read_text(encoding='utf8')
    except UnicodeDecodeError:
        return
    if f.suffix != '.ipynb':
        yield text
        return
    for c in json.loads(text)['cells']:
        yield source(c)
        for o in c.get('outputs', []):
            yield ''.join(o.get('text', []))
            yield '\n'.join(o.get('traceback', []))
            yield from (''.join(v) for k, v in o.get('data', {}).items() if k.startswith('text/'))


def machine_paths(text: str, places: list[str]) -> list[str]:
    "Those of `places` that stand in `text` as the beginning of a path, or someone's home folder."
    text = re.sub(r'\x1b\[[0-9;]*m', ' ', text)  # colours of a traceback
    starts = [rf'(?<![\w.~/-]){re.escape(p)}(?![\w-])' for p in places]
    return [m[0] for s in starts + [r'(?<![\w./-])/(?:home|Users)/\w+/'] for m in re.finditer(s, text)]


def test_machine_paths_are_found():
    assert machine_paths('see /a/b/c.py', ['/a/b']) == ['/a/b']
    assert machine_paths('File \x1b[0;32m/a/b/c.py', ['/a/b']) == ['/a/b']
    assert machine_paths('x/a/b and /a/bc and ~/a/b and https://a.org/a/b', ['/a/b']) == []
    assert machine_paths('in /home/' + 'ann/x', []) == ['/home/' + 'ann/']


def test_no_machine_paths():
    places = [str(p) for p in {Path.home(), ROOT} if len(p.parts) > 1]
    found = {str(f): paths for f in files() for t in texts(f) if (paths := machine_paths(t, places))}
    assert not found, f'paths of this machine: {found}'


def test_versions_agree():
    version = configparser.ConfigParser()
    version.read(ROOT / 'settings.ini', encoding='utf8')
    version = version['DEFAULT']['version']
    assert re.search(rf'^version: {re.escape(version)}$', (ROOT / 'CITATION.cff').read_text(encoding='utf8'), re.M)
    assert f'__version__ = "{version}"' in (ROOT / 'speak' / '__init__.py').read_text(encoding='utf8')

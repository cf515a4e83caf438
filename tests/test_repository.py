"""The repository agrees with itself: what is made from something else is what that would make now."""

import ast
import configparser
import io
import json
import re
import runpy
import tokenize
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
    "The text of a file as a reader sees it: a notebook's sources and what its cells printed; nothing for a picture."
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


# How the code reads. `make lint` checks the rest.

MAX_LINE, MAX_CELL = 120, 60
# What is left to do, as notebook -> how many: these only shrink.
LONG_LINES: dict[str, int] = {}
# Only of cells that export.
LONG_CELLS: dict[str, int] = {}
DRAWINGS = ('nbs/synthetic/cartoon.ipynb',)  # one long list of strokes each, which may be a long cell


def code_of(cell: dict) -> str:
    "A code cell's Python: magics and commands of the shell become `pass`."
    return re.sub(r'^(\s*)[%!].*$', r'\1pass', source(cell), flags=re.M)


def exported(notebook: Path) -> list[str]:
    "The code of the cells that the module is made of, without nbdev's directives."
    code = [source(c) for c in cells(notebook) if c['cell_type'] == 'code']
    return [re.sub(r'^#\|.*\n?', '', c, flags=re.M) for c in code if re.search(r'^#\|\s*export', c, re.M)]


def long_lines(text: str) -> list[str]:
    return [line for line in text.splitlines() if len(line) > MAX_LINE]


def statement_chains(code: str) -> list[int]:
    "The lines in which a semicolon joins statements; one at a cell's end only hides its value."
    tokens = list(tokenize.generate_tokens(io.StringIO(code + '\n').readline))
    joins = [t for t, after in zip(tokens, tokens[1:]) if t.string == ';' and after.type not in (4, 0)]
    return [t.start[0] for t in joins if t.type == tokenize.OP]


def test_long_lines_and_chains_are_found():
    assert long_lines('a' * 120) == [] and long_lines('b\n' + 'a' * 121) == ['a' * 121]
    assert statement_chains("a = 1\nb = ';'  # a; b\nplot(a);") == []
    assert statement_chains('a = 1; b = 2\nif a: b; c') == [1, 2]


def over(found: dict[str, list], known: dict[str, int]) -> str:
    "What `found` has more than `known`, and what `known` has to be now."
    new = {n: items for n, items in found.items() if len(items) > known.get(n, 0)}
    now = {n: len(items) for n, items in found.items()}
    return f'new: {new}; the list has to be {now}'


def lines_by_notebook() -> dict[str, list[str]]:
    code = {str(n): [source(c) for c in cells(n) if c['cell_type'] == 'code'] for n in notebooks}
    return {n: lines for n, texts in code.items() if (lines := [line for t in texts for line in long_lines(t)])}


def test_no_long_line_in_a_notebook():
    found = lines_by_notebook()
    assert {n: len(lines) for n, lines in found.items()} == LONG_LINES, over(found, LONG_LINES)


def test_no_long_line_in_a_module():
    "But those of the notebooks that it was exported from, and in the header that nbdev writes."
    known = {line for lines in lines_by_notebook().values() for line in lines}
    for f in (f for f in files() if f.parts[0] == 'speak' and f.suffix == '.py' and f.name != '_modidx.py'):
        text = (ROOT / f).read_text(encoding='utf8').split('# %% ', 2)[-1]
        assert set(long_lines(text)) <= known, f'{f}: {set(long_lines(text)) - known}'


def test_no_long_cell():
    found = {}
    for n in notebooks:
        lengths = [len(code.strip().splitlines()) for code in exported(n)]
        if n.as_posix() not in DRAWINGS and (long := [k for k in lengths if k > MAX_CELL]):
            found[str(n)] = long
    assert {n: len(long) for n, long in found.items()} == LONG_CELLS, over(found, LONG_CELLS)


@pytest.mark.parametrize('notebook', notebooks, ids=str)
def test_no_statements_are_chained(notebook):
    for code in (code_of(c) for c in cells(notebook) if c['cell_type'] == 'code'):
        assert not statement_chains(code), f'{notebook}: statements joined by `;` in\n{code}'


def imported(module: Path) -> set[str]:
    "The modules of this package that a module imports, as `speak.a.b`; wherever the import stands."
    names = set()
    package = list(module.parts[:-1])
    for node in ast.walk(ast.parse((ROOT / module).read_text(encoding='utf8'))):
        if isinstance(node, ast.Import):
            names |= {a.name for a in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            start = '.'.join([*base, *(node.module or '').split('.')]).strip('.')
            names |= {f'{start}.{a.name}' for a in node.names}
    return {n for n in names if n.split('.')[0] == 'speak'}


def test_the_paper_stands_alone():
    "What is printed imports nothing of what was added to it, and nothing that only training needs."
    if not (ROOT / 'speak' / 'paper').is_dir():
        pytest.skip('speak/paper is not there')
    added = ('warp', 'supervision', 'synthetic', 'data', 'training', 'evaluation')
    for f in (f for f in files() if f.parts[:2] == ('speak', 'paper') and f.suffix == '.py'):
        wrong = sorted(n for n in imported(f) if n.split('.')[1] in added)
        assert not wrong, f'{f} imports {", ".join(wrong)}'


def test_generating_loads_no_renderer():
    "numba compiles the renderer of the embedded corpus, which a user's own files do not need."
    code = "import sys, speak.pipeline; print(*{'numba', 'llvmlite'} & set(sys.modules))"
    assert run('python', '-c', code, cwd=ROOT).split() == []

"""What pip installs is what settings.ini says, from versions that are locked with hashes."""

import ast
import configparser
import re
import sys
import tomllib
import zipfile
from importlib.metadata import distribution, packages_distributions

import pytest
import yaml
from conftest import ROOT, files, run
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name


def settings() -> dict:
    config = configparser.ConfigParser()
    config.read(ROOT / 'settings.ini', encoding='utf8')
    return config['DEFAULT']


pyproject = tomllib.loads((ROOT / 'pyproject.toml').read_text(encoding='utf8'))
project = pyproject['project']
runtime, dev = project['dependencies'], project['optional-dependencies']['dev']
lock_only, left_out = pyproject['dependency-groups']['lock'], set(pyproject['tool']['uv']['exclude-dependencies'])


def locked(text: str) -> list[tuple[Requirement, int]]:
    "Each requirement of a lock file, with the number of its hashes."
    return [
        (Requirement(entry.split('\\')[0].strip()), entry.count('--hash=sha256:'))
        for entry in re.split(r'\n(?=\S)', re.sub(r'^#.*\n', '', text, flags=re.M))
        if entry.strip()
    ]


def version_of(entry: Requirement) -> str:
    return next(iter(entry.specifier)).version


lock = locked((ROOT / 'requirements.lock').read_text(encoding='utf8'))


def test_pyproject_agrees_with_settings():
    s = settings()
    assert runtime == s['requirements'].split()
    assert dev == s['dev_requirements'].split()
    assert project['scripts'] == dict(pair.split('=') for pair in s['console_scripts'].split())
    assert (project['name'], project['description']) == (s['lib_name'], s['description'])
    assert project['requires-python'] == f'>={s["min_python"]}'


@pytest.mark.parametrize('requirement', runtime + dev + lock_only)
def test_requirement_is_bounded_and_locked(requirement):
    r = Requirement(requirement)
    assert any(s.operator in ('<', '==') for s in r.specifier), f'{r} has no upper bound'
    found = [entry for entry, _ in lock if canonicalize_name(entry.name) == canonicalize_name(r.name)]
    assert found, f'{r} is not in requirements.lock: run `make lock`'
    for entry in found:
        assert r.specifier.contains(version_of(entry)), (
            f'requirements.lock has {entry}, pyproject.toml asks for {r}: run `make lock`'
        )


def test_lock_is_exact_and_hashed():
    for r, hashes in lock:
        assert [s.operator for s in r.specifier] == ['=='] and hashes, (
            f'{r} in requirements.lock has no exact version or no hash'
        )


def test_lock_has_all_that_its_packages_ask_for():
    "It is installed with --no-deps, so pip looks for nothing that is missing."
    here = {canonicalize_name(e.name): version_of(e) for e, _ in lock if not e.marker or e.marker.evaluate()}
    todo, seen, missing = [Requirement(r) for r in runtime + dev + lock_only], set(), []
    while todo:
        r = todo.pop()
        name = canonicalize_name(r.name)
        if str(r) in seen or name in left_out:
            continue
        seen.add(str(r))
        if name not in here or not r.specifier.contains(here[name], prereleases=True):
            missing.append(f'{r} (locked: {here.get(name)})')
            continue
        for needed in map(Requirement, distribution(r.name).requires or []):
            if not needed.marker or any(needed.marker.evaluate(dict(extra=extra)) for extra in ('', *r.extras)):
                todo.append(needed)
    assert not missing, f'requirements.lock misses {", ".join(missing)}: run `make lock`'


def test_lock_has_one_cv2():
    "Each package opencv-... has the folder cv2: a second one replaces files of the first."
    names = {canonicalize_name(entry.name) for entry, _ in lock}
    assert {n for n in names if n.startswith('opencv-')} == {Requirement(r).name for r in lock_only}
    assert left_out == {'opencv-python', 'opencv-contrib-python'}


def test_locked_versions_import_together():
    "In a process of its own: torchaudio refuses a torch that it was not built for."
    packages = 'torch, torchvision, torchaudio, piq, seaborn, cv2, face_alignment, syncnet_python'
    run('python', '-c', f'import {packages}; cv2.resize, cv2.VideoCapture', cwd=ROOT)


def test_lock_names_no_place():
    text = (ROOT / 'requirements.lock').read_text(encoding='utf8')
    assert not re.search(r'://|--(extra-)?index-url|--find-links|--trusted-host| @ ', text)


def test_imports_are_required():
    "A module that is there only because another package happens to bring it goes when that package changes."
    required = {canonicalize_name(Requirement(r).name) for r in runtime}
    optional = {
        canonicalize_name(Requirement(r).name) for group in project['optional-dependencies'].values() for r in group
    } - required
    provides, missing = packages_distributions(), set()
    for f in (f for f in files() if f.parts[0] == 'speak' and f.suffix == '.py'):
        for node in ast.walk(ast.parse((ROOT / f).read_text(encoding='utf8'))):
            names = (
                [a.name for a in node.names]
                if isinstance(node, ast.Import)
                else [node.module]
                if isinstance(node, ast.ImportFrom) and not node.level
                else []
            )
            for top in {name.split('.')[0] for name in names} - set(sys.stdlib_module_names) - {'speak', '__future__'}:
                if (
                    not required & {canonicalize_name(d) for d in provides.get(top, [])}
                    and canonicalize_name(top) not in optional
                ):
                    missing.add(f'{top} ({f})')
    assert not missing, f'imported and not in requirements: {", ".join(sorted(missing))}'


def test_conda_environment_agrees():
    deps = yaml.safe_load((ROOT / 'environment.yml').read_text(encoding='utf8'))['dependencies']
    assert f'python={settings()["min_python"]}' in deps
    assert [d['pip'] for d in deps if isinstance(d, dict)] == [['-r requirements.lock']]
    command = (ROOT / 'environment.yml').read_text(encoding='utf8').splitlines()[0]
    assert 'PIP_NO_DEPS=1 conda env create -f environment.yml' in command  # pip cannot be asked for it in the file


def test_wheel_holds_code_weights_and_command(tree):
    "Exactly the package: every module and weight file, no notebook, no test."
    extra = tree / 'speak' / 'weights' / 'a' / 'model.safetensors'
    extra.parent.mkdir(parents=True)
    extra.write_bytes(b'')
    run(
        'python',
        '-m',
        'pip',
        'wheel',
        '.',
        '--quiet',
        '--no-index',
        '--no-deps',
        '--no-build-isolation',
        '--wheel-dir',
        'dist',
        cwd=tree,
    )
    (wheel,) = (tree / 'dist').glob('*.whl')
    with zipfile.ZipFile(wheel) as z:
        names = set(z.namelist())
        info = next(n.split('/')[0] for n in names if '.dist-info/' in n)
        metadata, entries = (z.read(f'{info}/{name}').decode() for name in ('METADATA', 'entry_points.txt'))
    package = {f.as_posix() for f in files() if f.parts[0] == 'speak'} | {'speak/weights/a/model.safetensors'}
    assert {n for n in names if not n.startswith(info)} == package
    assert f'{info}/licenses/LICENSE' in names
    assert f'Version: {settings()["version"]}\n' in metadata and 'License-Expression: Apache-2.0' in metadata
    assert 'speak = speak.cli:main' in entries

import os
import shutil
import subprocess
import sys
from fnmatch import fnmatch
from pathlib import Path

import pytest

os.environ['HF_HUB_OFFLINE'] = '1'  # a test never waits for a model hub

ROOT = Path(__file__).resolve().parent.parent


def files() -> list[Path]:
    "The repository's files, relative to its root: what git knows or would add; else what .gitignore does not name."
    if shutil.which('git') and (ROOT / '.git').exists():
        # safe.directory: the checkout may belong to another user, as in a container.
        command = ['git', '-c', 'safe.directory=*', 'ls-files', '-z', '--cached', '--others', '--exclude-standard']
        names = subprocess.run(command, cwd=ROOT, check=True, capture_output=True).stdout.decode().split('\0')
    else:
        ignored = [line.strip('/') for line in (ROOT / '.gitignore').read_text().split()] + ['.git']
        names = [Path(d, f).relative_to(ROOT) for d, _, fs in os.walk(ROOT) for f in fs]
        names = [n for n in names if not any(fnmatch(part, pattern) for part in n.parts for pattern in ignored)]
    return sorted(f for f in {Path(n) for n in names if n} if (ROOT / f).is_file() and not (ROOT / f).is_symlink())


@pytest.fixture
def tree(tmp_path) -> Path:
    "A copy of the repository's files that a test may change."
    for f in files():
        (tmp_path / 'tree' / f).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / f, tmp_path / 'tree' / f)
    return tmp_path / 'tree'


def run(*command, cwd: Path) -> str:
    "What `command` prints; its first word is looked for beside this Python. A failure shows all of it."
    done = subprocess.run(
        [str(Path(sys.executable).parent / command[0]), *command[1:]],
        cwd=cwd,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    assert done.returncode == 0, f'{" ".join(command)}: {done.stdout}'
    return done.stdout

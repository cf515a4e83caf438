"""README.md from nbs/index.ipynb. Quarto, which nbdev_readme needs, is not a Python package; nbconvert is."""

import posixpath
import re
from pathlib import Path

import nbformat
from nbconvert import MarkdownExporter

root = Path(__file__).resolve().parent.parent


def from_root(text: str) -> str:
    "`text` with its relative links and pictures, which start at nbs/, starting at the repository's root."

    def moved(m):
        return m[1] + posixpath.normpath(posixpath.join('nbs', m[2])) + m[3]

    return re.sub(r'(\]\(|\b(?:src|href)=")(?![a-z]+:|#|/)([^)"\s]+)([)"])', moved, text)


def readme(root: Path = root) -> str:
    "What README.md has to hold."
    nb = nbformat.read(root / 'nbs' / 'index.ipynb', as_version=4)
    nb.metadata['language_info'] = dict(name='python')  # nbdev_clean takes it out, and the exporter marks code with it
    cells = []
    for cell in nb.cells:
        lines = cell.source.split('\n')
        if any(re.match(r'#\|\s*hide\b', line) for line in lines):
            continue
        cell.source = '\n'.join(line for line in lines if not line.startswith('#|')).strip('\n')
        if cell.cell_type == 'markdown':
            cell.source = from_root(cell.source)
        if cell.source:
            cells.append(cell)
    nb.cells = cells
    text, resources = MarkdownExporter().from_notebook_node(nb)
    if resources.get('outputs'):
        raise SystemExit('nbs/index.ipynb has a picture among its outputs: put it into nbs/images and refer to it.')
    note = '<!-- Made by `make readme` from nbs/index.ipynb: edit that. -->\n\n'
    return note + re.sub(r'\n{3,}', '\n\n', text).strip() + '\n'


if __name__ == '__main__':
    (root / 'README.md').write_text(readme(), encoding='utf8')

"""Make speak/synthetic/head_shapes.npz: how heads differ, the principal components of the embedded corpus's people.

    python tools/head_shapes.py speak/synthetic/head_shapes.npz

What it is made from is the package itself: the shapes of N_PEOPLE people, drawn from seeds that no split of the corpus
uses. Half precision; `warp.head_mesh` fits it to photographs.
"""

import sys
from pathlib import Path

import numpy as np

from speak.synthetic.face_shape import sample_shape

N_PEOPLE, N_COMPONENTS = 600, 24


def head_shapes() -> dict[str, np.ndarray]:
    "`mean` (N,3), `components` (K,N,3), one standard deviation of each, and `scale`, that of actions, of the mean."
    people = [sample_shape(np.random.default_rng([8, k])) for k in range(N_PEOPLE)]
    vertices = np.stack([p.vertices for p in people]).astype(np.float64)
    mean = vertices.mean(0)
    flat = (vertices - mean).reshape(N_PEOPLE, -1)
    # The smaller way round: people are fewer than coordinates.
    values, vectors = np.linalg.eigh(flat @ flat.T / N_PEOPLE)
    chosen = np.argsort(-values)[:N_COMPONENTS]
    components = vectors[:, chosen].T @ flat / np.sqrt(N_PEOPLE)
    components *= np.sign(components[np.arange(N_COMPONENTS), np.abs(components).argmax(1)])[:, None]
    return dict(
        mean=mean.astype(np.float16),
        components=components.reshape(N_COMPONENTS, -1, 3).astype(np.float16),
        scale=np.float32(np.mean([p.scale for p in people])),
    )


if __name__ == '__main__':
    file = Path(sys.argv[1])
    np.savez_compressed(file, **head_shapes())
    print(f'{file}: {file.stat().st_size / 1e6:.2f} MB')

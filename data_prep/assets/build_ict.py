"""Build the second family of heads that the mesh styles render: semanticface/assets/head_ict.npz.

    python data_prep/assets/build_ict.py --source ict.npz

``ict.npz`` holds the ICT-FaceKit light model (MIT, see ``semanticface/assets/head_ict.LICENSE``) read from its OBJ
files: ``neutral`` float[26719, 3] in centimetres, ``identity`` [M, 26719, 3], ``expr`` [57, 26719, 3] with
``expr_names``, ``faces`` and ``face_mat``. The script keeps skin, inside of the mouth and lashes, thins the skin, and
takes eyeballs, teeth and tongue from ``head.npz``, moved as the model moves its own. The painter works in coordinates
of the MakeHuman base mesh, so every vertex also gets its place there, by a smooth warp from the model's landmarks.
The same source gives the same bytes.
"""

from __future__ import annotations

import heapq
from pathlib import Path

import numpy as np
from build_head import occlusion, sparse, vertex_normals

from semanticface import arkit, assets
from semanticface.cli.scripts import ScriptParser
from semanticface.rendering.head.rig import (
    EYE_LEFT,
    EYE_RIGHT,
    GAINS,
    LASHES,
    LOWER_TEETH,
    SKIN,
    TONGUE,
    UPPER_TEETH,
    Rig,
    rig,
    sphere_of,
)
from semanticface.rendering.types import POINTS
from semanticface.utils.files import atomic_open

OUT = assets.path("head_ict.npz")
# Vertices of the model's parts.
SOCKET = slice(11248, 13294)
N_SKIN = 13294
TEETH, LASH = slice(17039, 21451), slice(25351, 26719)
SCLERA = ("M_ScleraLeft", "M_ScleraRight")
# The model's vertices of the 68 landmarks of iBUG's scheme.
LANDMARKS = (
    1225, 1888, 1052, 367, 1719, 1722, 2199, 1447, 966, 3661, 4390, 3927, 3924, 2608, 3272, 4088, 3443, 268, 493, 1914,
    2044, 1401, 3615, 4240, 4114, 2734, 2509, 978, 4527, 4942, 4857, 1140, 2075, 1147, 4269, 3360, 1507, 1542, 1537,
    1528, 1518, 1511, 3742, 3751, 3756, 3721, 3725, 3732, 5708, 5695, 2081, 0, 4275, 6200, 6213, 6346, 6461, 5518, 5957,
    5841, 5702, 5711, 5533, 6216, 6207, 6470, 5517, 5966,
)  # fmt: skip
# Project landmark -> number in that scheme.
NUMBERS = {
    **{f"browLeft{k}": 21 + k for k in range(1, 6)}, **{f"browRight{k}": 22 - k for k in range(1, 6)},
    "eyeLeftInner": 42, "eyeLeftUpperInner": 43, "eyeLeftUpperOuter": 44, "eyeLeftOuter": 45, "eyeLeftLowerOuter": 46,
    "eyeLeftLowerInner": 47, "eyeRightOuter": 36, "eyeRightUpperOuter": 37, "eyeRightUpperInner": 38,
    "eyeRightInner": 39, "eyeRightLowerInner": 40, "eyeRightLowerOuter": 41,
    "noseBridge": 27, "noseMiddle": 28, "noseLow": 29, "noseTip": 30, "noseBase": 33,
    "lipCornerRight": 48, "lipUpperRight2": 49, "lipUpperRight1": 50, "lipUpper": 51, "lipUpperLeft1": 52,
    "lipUpperLeft2": 53, "lipCornerLeft": 54, "lipLowerLeft2": 55, "lipLowerLeft1": 56, "lipLower": 57,
    "lipLowerRight1": 58, "lipLowerRight2": 59, "mouthCornerRight": 60, "mouthUpperRight": 61, "mouthUpper": 62,
    "mouthUpperLeft": 63, "mouthCornerLeft": 64, "mouthLowerLeft": 65, "mouthLower": 66, "mouthLowerRight": 67,
    "chin": 8,
}  # fmt: skip
EYE_SCALE = 0.97
"""Of the eyeballs' radius, so that closed lids cover them."""
STRENGTHS = {"eyeSquint": 1.5, "mouthPress": 1.4, "cheekSquint": 1.5, "noseSneer": 0.85, "mouthUpperUp": 0.85,
             "mouthShrugLower": 0.85}  # fmt: skip
"""Gain of actions whose deltas move less or more than faces do at the action's full strength."""
HEM = np.array([[1.75, -0.35, 1.15], [1.9, -4.0, 1.15]], np.float32)
"""The clothes' rings below the hem, as ``rig.Rig.hem``: shoulders are wider than the model's hem."""


def nearest(points: np.ndarray, among: np.ndarray) -> np.ndarray:
    """Index of the nearest row of ``among`` for each point, int64[N]."""
    square = (among**2).sum(1)
    return np.concatenate([np.argmin(square - 2 * p @ among.T, axis=1) for p in np.array_split(points, 40)])


class Warp:
    """A smooth map of space that takes source points to target points: affine, plus a sum of |distance| terms."""

    def __init__(self, source: np.ndarray, target: np.ndarray, smoothing: np.ndarray) -> None:
        n = len(source)
        self.source = source
        system = np.zeros((n + 4, n + 4))
        system[:n, :n] = -self._distances(source) + np.diag(smoothing)
        system[:n, n:] = self._affine(source)
        system[n:, :n] = system[:n, n:].T
        self.solution = np.linalg.solve(system, np.concatenate([target - source, np.zeros((4, 3))]))

    def _distances(self, points: np.ndarray) -> np.ndarray:
        return np.linalg.norm(points[:, None] - self.source, axis=-1)

    @staticmethod
    def _affine(points: np.ndarray) -> np.ndarray:
        return np.concatenate([np.ones((len(points), 1)), points], 1)

    def __call__(self, points: np.ndarray) -> np.ndarray:
        parts = np.array_split(points, 20)
        return np.concatenate(
            [p + np.concatenate([-self._distances(p), self._affine(p)], 1) @ self.solution for p in parts]
        )


def ear_points(skin: np.ndarray) -> np.ndarray:
    """Top, back, outermost and lowest point of the left ear and of the right, float[8, 3]."""
    out = []
    for side in (1, -1):
        p = skin * [side, 1, 1]
        level = (p[:, 1] > -0.3) & (p[:, 1] < 0.5) & (p[:, 2] > -0.25) & (p[:, 2] < 0.3)
        shell, lobe = p[level & (p[:, 0] > 0.845)], p[level & (p[:, 0] > 0.70) & (p[:, 1] < 0.1)]
        picks = [shell[shell[:, 1].argmax()], shell[shell[:, 2].argmin()], shell[shell[:, 0].argmax()]]
        out += [q * [side, 1, 1] for q in (*picks, lobe[lobe[:, 1].argmin()])]
    return np.array(out)


def canonical(skin: np.ndarray, normals: np.ndarray, landmarks: dict[str, int], base: Rig) -> Warp:
    """The warp from the model's neutral head to the MakeHuman base mesh.

    Landmarks and ears lie on each other; then, three times, the model's surface is drawn to the base mesh.
    """
    outside = (base.part == SKIN) & (base.masks[:, 1] < 0.2)
    pairs = [(skin[i], base.base[base.point_ids[POINTS.index(name)]]) for name, i in landmarks.items()]
    fixed = np.array([p for p, _ in pairs]), np.array([q for _, q in pairs])
    ears = ear_points(skin), ear_points(base.base[outside & (base.masks[:, 3] > 0.3)])
    source, target = (np.concatenate([a, b]) for a, b in zip(fixed, ears, strict=True))
    warp = Warp(source, target, np.full(len(source), 1e-3))
    base_normals = vertex_normals(base.base.astype(float), base.triangles)
    ids = np.flatnonzero(outside & (base.masks[:, 3] < 0.2) & (base.base[:, 1] > -1.7))
    rng = np.random.default_rng(0)
    candidates = rng.permutation(np.flatnonzero(skin[:, 1] > -1.4))
    chosen: list[int] = []
    for i in candidates:  # evenly spread
        if all(((skin[i] - skin[j]) ** 2).sum() > 0.17**2 for j in chosen):
            chosen.append(int(i))
    picked = np.array(chosen)
    for _ in range(3):
        now = warp(skin[picked])
        partner = ids[nearest(now, base.base[ids])]
        gap = base.base[partner] - now
        along = (gap * base_normals[partner]).sum(1)
        good = (np.linalg.norm(gap, axis=1) < 0.35) & ((normals[picked] * base_normals[partner]).sum(1) > 0.5)
        good &= np.linalg.norm(source[:, None] - skin[picked], axis=-1).min(0) > 0.10
        pull = now + along[:, None] * base_normals[partner]
        warp = Warp(
            np.concatenate([source, skin[picked][good]]), np.concatenate([target, pull[good]]),
            np.concatenate([np.full(len(source), 1e-3), np.full(int(good.sum()), 0.02)]),
        )  # fmt: skip
    return warp


def thin(vertices: np.ndarray, triangles: np.ndarray, keep: np.ndarray, target: int) -> np.ndarray:
    """Merge vertices into neighbours where the surface changes least, until ``target`` triangles stay.

    Args:
        vertices: float[V, 3].
        triangles: int[T, 3].
        keep: float[V], how many times dearer a vertex is than its error; infinite for one that stays.
        target: number of triangles.

    Returns:
        int[T', 3]: every vertex that is left is one of the old ones, at its place.
    """
    faces = [tuple(int(i) for i in t) for t in triangles]
    around: list[set[int]] = [set() for _ in vertices]
    quadric = np.zeros((len(vertices), 4, 4))
    for k, face in enumerate(faces):
        a, b, c = vertices[list(face)]
        normal = np.cross(b - a, c - a)
        area = np.linalg.norm(normal)
        plane = np.append(normal, -normal @ a) / max(area, 1e-12)
        for i in face:
            around[i].add(k)
            quadric[i] += area * np.outer(plane, plane)
    alive = set(range(len(faces)))
    count: dict[tuple[int, int], int] = {}
    for a, b, c in faces:
        for i, j in ((a, b), (b, c), (c, a)):
            key = (min(i, j), max(i, j))
            count[key] = count.get(key, 0) + 1
    border = {i for edge, n in count.items() if n == 1 for i in edge}
    stamp = [0] * len(vertices)

    def ring(i: int) -> set[int]:
        return {j for k in around[i] for j in faces[k]} - {i}

    def push(i: int) -> None:
        if i in border or not np.isfinite(keep[i]) or not around[i]:
            return
        best = None
        for j in ring(i):
            at = np.append(vertices[j], 1)
            length = ((vertices[i] - vertices[j]) ** 2).sum()
            cost = float(at @ quadric[i] @ at + 2e-4 * length * length) * keep[i]
            if best is None or (cost, j) < best:
                best = (cost, j)
        if best is not None:
            heapq.heappush(heap, (*best, i, stamp[i]))

    heap: list[tuple[float, int, int, int]] = []
    for i in range(len(vertices)):
        push(i)
    while len(alive) > target and heap:
        _, j, i, when = heapq.heappop(heap)
        if when != stamp[i] or not around[i]:
            continue
        moved = [k for k in around[i] if j not in faces[k]]
        if len(ring(i) & ring(j)) != 2 or not _keeps_facing(vertices, faces, moved, i, j):
            stamp[i] += 1
            continue
        for k in list(around[i]):
            if k in moved:
                faces[k] = tuple(j if v == i else v for v in faces[k])
                around[j].add(k)
            else:
                alive.discard(k)
                for v in faces[k]:
                    around[v].discard(k)
        around[i].clear()
        quadric[j] += quadric[i]
        for v in {j, *ring(j)}:
            stamp[v] += 1
            push(v)
    return np.array([faces[k] for k in sorted(alive)])


def _keeps_facing(vertices: np.ndarray, faces: list[tuple[int, ...]], moved: list[int], old: int, new: int) -> bool:
    """Whether no triangle turns over when a vertex moves to another's place."""
    for k in moved:
        a, b, c = (vertices[v] for v in faces[k])
        p, q, r = (vertices[new if v == old else v] for v in faces[k])
        before, after = np.cross(b - a, c - a), np.cross(q - p, r - p)
        if before @ after < 0.5 * np.linalg.norm(before) * np.linalg.norm(after):
            return False
    return True


def affine_fit(points: np.ndarray, deltas: np.ndarray, at: np.ndarray) -> np.ndarray:
    """The affine field that fits deltas at points best, evaluated at other points: [N, 3]."""
    terms = np.concatenate([np.ones((len(points), 1)), points], 1)
    field = np.linalg.lstsq(terms, deltas, rcond=None)[0]
    return np.concatenate([np.ones((len(at), 1)), at], 1) @ field


def fit_row(row: np.ndarray, source: np.ndarray, upper: bool) -> np.ndarray:
    """Move and scale a row of teeth so that it is as wide and as deep as the model's, and its edge as high."""
    low, high = source.min(0), source.max(0)
    scale = (high - low) / np.ptp(row, axis=0)
    scale[1] = scale[0]
    out = (row - row.mean(0)) * scale
    shift = (low + high) / 2 - (out.min(0) + out.max(0)) / 2
    shift[1] = low[1] - out[:, 1].min() if upper else high[1] - out[:, 1].max()
    return out + shift


def blend(
    values: np.ndarray, at: np.ndarray, normals: np.ndarray, points: np.ndarray, point_normals: np.ndarray
) -> np.ndarray:
    """Values [M, K] of the points nearest to places that face the same way, weighted by closeness: [N, K]."""
    out = np.zeros((len(at), values.shape[1]))
    square = (points**2).sum(1)
    for rows in np.array_split(np.arange(len(at)), 40):
        distance = np.maximum((at[rows] ** 2).sum(1)[:, None] + square - 2 * at[rows] @ points.T, 0)
        distance += 0.02 * (1 - normals[rows] @ point_normals.T)
        near = np.argpartition(distance, 5, axis=1)[:, :5]
        weight = 1 / (np.take_along_axis(distance, near, 1) + 2e-5)
        out[rows] = (values[near] * weight[..., None]).sum(1) / weight.sum(1)[:, None]
    return out


class Model:
    """The source in decimetres, in the head space of ``rig``, and its deltas."""

    def __init__(self, path: Path, modes: int) -> None:
        with np.load(path) as file:
            self.neutral = file["neutral"].astype(float) / 10
            self.modes = file["identity"][:modes].astype(float) / 10
            shapes = dict(zip(file["expr_names"].tolist(), file["expr"].astype(float) / 10, strict=True))
            materials = dict(zip(file["mats"].tolist(), range(len(file["mats"])), strict=True))
            faces, material = file["faces"].astype(int), file["face_mat"]
        base = rig()
        self.sclera = [np.unique(faces[material == materials[name]]) for name in SCLERA]
        balls = [sphere_of(self.neutral[ids]) for ids in self.sclera]
        middle = (balls[0][0] + balls[1][0]) / 2
        self.neutral += base.average.eye_centres.mean(0) - middle
        self.balls = [sphere_of(self.neutral[ids]) for ids in self.sclera]
        inside = np.arange(len(self.neutral)) < N_SKIN
        self.skin = faces[inside[faces].all(1) & (material <= materials["M_BackHead"])]
        self.lashes = faces[(faces >= LASH.start).all(1)]
        self.shapes = [self._action(name, shapes) for name in arkit.NAMES]
        lower = np.linalg.norm(shapes["jawOpen"][TEETH], axis=1) > 0.1
        ids = np.arange(TEETH.start, TEETH.stop)
        self.teeth = [ids[~lower], ids[lower]]

    @staticmethod
    def _action(name: str, shapes: dict[str, np.ndarray]) -> np.ndarray:
        """Deltas of an action; the model spells sides ``_L`` and ``_R``, and gives two actions in halves."""
        theirs = (
            name.replace("Left", "_L").replace("Right", "_R") if name[-4:] == "Left" or name[-5:] == "Right" else name
        )
        theirs = name if name in shapes else theirs
        if theirs in shapes:
            return shapes[theirs]
        if f"{name}_L" in shapes:
            return shapes[f"{name}_L"] + shapes[f"{name}_R"]
        return np.zeros_like(next(iter(shapes.values())))


class Parts:
    """Eyeballs, teeth and tongue: those of ``head.npz`` at the model's place, moved by affine fits of its deltas."""

    def __init__(self, model: Model) -> None:
        self.model, base = model, rig()
        self.rows = {part: np.flatnonzero(base.part == part)
                     for part in (UPPER_TEETH, LOWER_TEETH, TONGUE, EYE_LEFT, EYE_RIGHT)}  # fmt: skip
        self.base = np.concatenate([base.base[r] for r in self.rows.values()])
        self.part = np.repeat(list(self.rows), [len(r) for r in self.rows.values()])
        average, place = base.average.vertices.astype(float), {}
        upper, lower = (model.neutral[ids] for ids in model.teeth)
        place[UPPER_TEETH] = fit_row(average[self.rows[UPPER_TEETH]], upper, upper=True)
        place[LOWER_TEETH] = fit_row(average[self.rows[LOWER_TEETH]], lower, upper=False)
        before, after = average[self.rows[LOWER_TEETH]], place[LOWER_TEETH]
        place[TONGUE] = average[self.rows[TONGUE]] + (after.mean(0) - before.mean(0))
        self.unit = []
        for side, part in enumerate((EYE_LEFT, EYE_RIGHT)):
            ball = average[self.rows[part]] - base.average.eye_centres[side]
            self.unit.append(ball / np.linalg.norm(ball, axis=1, keepdims=True))
            centre, radius = model.balls[side]
            place[part] = centre + EYE_SCALE * radius * self.unit[side]
        self.vertices = np.concatenate([place[part] for part in self.rows])
        index = np.full(len(base.base), -1)
        index[np.concatenate(list(self.rows.values()))] = np.arange(len(self.base))
        triangles = index[base.triangles]
        self.triangles = triangles[(triangles >= 0).all(1)]

    def deltas(self, of_model: np.ndarray, eyes: bool) -> np.ndarray:
        """What the parts do as the model moves by ``of_model`` [26719, 3]; ``eyes`` whether eyeballs move."""
        out = np.zeros_like(self.vertices)
        for part in self.rows:
            own = self.part == part
            if part in (EYE_LEFT, EYE_RIGHT):
                if eyes:
                    side = int(part == EYE_RIGHT)
                    ids, (centre, radius) = self.model.sclera[side], self.model.balls[side]
                    new_centre, new_radius = sphere_of(self.model.neutral[ids] + of_model[ids])
                    out[own] = new_centre - centre + EYE_SCALE * (new_radius - radius) * self.unit[side]
            else:
                ids = self.model.teeth[0 if part == UPPER_TEETH else 1]
                out[own] = affine_fit(self.model.neutral[ids], of_model[ids], self.vertices[own])
        return out


def build(path: Path, modes: int, triangles: int) -> dict[str, np.ndarray]:
    """The arrays of the file, by name; see ``rig.Rig`` for their meaning."""
    model, base = Model(path, modes), rig()
    parts = Parts(model)
    skin = model.neutral[:N_SKIN]
    normals = vertex_normals(skin, model.skin)
    landmarks = {name: LANDMARKS[number] for name, number in NUMBERS.items()}
    warp = canonical(skin, normals, landmarks, base)
    base_skin = warp(skin)

    # Eyes and mouth keep most of their vertices: they are small, and what the actions move.
    dear = np.ones(N_SKIN)
    for point, reach, factor in ((model.balls[0][0], 0.30, 20.0), (model.balls[1][0], 0.30, 20.0),
                                 (np.array([0, -0.34, 1.1]), 0.32, 8.0)):  # fmt: skip
        dear = np.maximum(dear, 1 + (factor - 1) * np.exp(-((((skin - point) ** 2).sum(1) / reach**2) ** 2)))
    dear[SOCKET] = 0.2
    dear[list(landmarks.values())] = np.inf
    faces = thin(skin, model.skin, dear, triangles)

    used = np.unique(np.concatenate([faces.ravel(), model.lashes.ravel()]))
    index = np.full(len(model.neutral), -1)
    index[used] = np.arange(len(used))
    is_lash = used >= LASH.start
    n, m = len(used), len(parts.base)
    vertices = np.concatenate([model.neutral[used], parts.vertices])
    part = np.concatenate([np.where(is_lash, LASHES, SKIN), parts.part]).astype(np.uint8)
    all_triangles = np.concatenate([index[faces], parts.triangles + n, index[model.lashes]])

    place = np.zeros((n + m, 3))
    place[:n][~is_lash], place[n:] = base_skin[used[~is_lash]], parts.base
    lash = model.neutral[used[is_lash]]
    on_skin = np.linalg.norm(lash - skin[nearest(lash, skin)], axis=1)
    along = np.clip((on_skin - 0.01) / 0.06, 0, 1)[:, None]
    centres = np.where(lash[:, :1] > 0, model.balls[0][0], model.balls[1][0])
    outwards = (lash - centres) / np.linalg.norm(lash - centres, axis=1, keepdims=True)
    middles = np.where(lash[:, :1] > 0, base.lash_centre, base.lash_centre * [-1, 1, 1])
    place[:n][is_lash] = middles + (0.145 + 0.09 * along) * outwards

    surface = np.flatnonzero(base.part == SKIN)
    same = surface[nearest(place, base.base[surface])]
    here = vertex_normals(place, all_triangles)
    there = vertex_normals(base.base.astype(float), base.triangles)[surface]
    masks = blend(base.masks[surface], place, here, base.base[surface].astype(float), there)
    masks[part != SKIN] = 0
    # Outside the lips' rim no skin belongs to the inside of the mouth.
    rim = np.array([place[index[landmarks[name]], 2] for name in ("mouthUpper", "mouthLower")]).min()
    masks[:, 1] *= place[:, 2] < rim - 0.02 - 0.9 * np.abs(place[:, 0])
    socket = np.zeros(n + m, bool)
    socket[:n] = (used >= SOCKET.start) & (used < SOCKET.stop)
    masks[socket] = (0, 1, 0, 0)
    uv = np.where((part == SKIN)[:, None], base.uv[same], 0)

    moves, eyes_moves = [], []
    for action, shape in zip(arkit.NAMES, model.shapes, strict=True):
        moves.append(np.concatenate([shape[used], parts.deltas(shape, eyes=False)]))
        if action == "tongueOut":
            moves[-1][n:] = GAINS[action] * base.deltas(action)[np.concatenate(list(parts.rows.values()))]
    for mode in model.modes:
        eyes_moves.append(np.concatenate([mode[used], parts.deltas(mode, eyes=True)]))
    scales = np.array([np.abs(mode).max() / 127 for mode in eyes_moves])

    flipped = nearest(vertices * [-1, 1, 1], vertices)
    for number in set(part.tolist()):
        own = np.flatnonzero(part == number)
        other = {EYE_LEFT: EYE_RIGHT, EYE_RIGHT: EYE_LEFT}.get(number, number)
        among = np.flatnonzero(part == other)
        flipped[own] = among[nearest(vertices[own] * [-1, 1, 1], vertices[among])]

    points = []
    front = np.flatnonzero((part == SKIN) & (masks[:, 1] < 0.5))
    for name in POINTS:
        if name in landmarks:
            points.append(int(index[landmarks[name]]))
        elif name.startswith("iris"):
            eye = np.flatnonzero(part == (EYE_LEFT if name == "irisLeft" else EYE_RIGHT))
            points.append(int(eye[vertices[eye, 2].argmax()]))
        else:
            points.append(int(front[nearest(base.base[base.point_ids[POINTS.index(name)]][None], place[front])[0]]))

    solid = all_triangles[part[all_triangles[:, 0]] == SKIN].astype(np.int32)
    openness = occlusion(vertices, vertex_normals(vertices, all_triangles), solid)
    openness = (openness + openness[flipped]) / 2
    gains = [STRENGTHS.get(arkit.stem(name), 1.0) for name in arkit.NAMES]
    offsets, rows, deltas = sparse(moves)
    return {
        "vertices": vertices.astype(np.float32), "base": place.astype(np.float32),
        "triangles": all_triangles.astype(np.uint16), "part": part, "uv": uv.astype(np.float16),
        "masks": (masks * 255).round().astype(np.uint8),
        "sky": (np.clip(openness, 0, 1) * 255).round().astype(np.uint8),
        "eye_centres": np.array([c for c, _ in model.balls], np.float32),
        "mirror": flipped.astype(np.uint16), "point_ids": np.array(points, np.int32), "hem": HEM,
        "expression_names": np.array(arkit.NAMES), "expression_offsets": offsets, "expression_rows": rows,
        "expression_deltas": deltas, "gains": np.array(gains),
        "modes": np.stack([np.rint(v / s) for v, s in zip(eyes_moves, scales, strict=True)]).astype(np.int8),
        "mode_scales": scales.astype(np.float32),
    }  # fmt: skip


def main() -> None:
    parser = ScriptParser(__doc__)
    parser.add_argument("--source", type=Path, required=True, help="the ICT-FaceKit light model as npz")
    parser.add_argument("--identities", type=int, default=80, help="modes of identity to keep (default %(default)s)")
    parser.add_argument("--triangles", type=int, default=13_000, help="of the skin (default %(default)s)")
    parser.add_argument("--out", type=Path, default=OUT, help=f"output file (default {OUT.name} in the package)")
    options = parser.parse_args()
    arrays = build(options.source, options.identities, options.triangles)
    with atomic_open(options.out, "wb") as file:
        np.savez_compressed(file, **arrays)
    print(f"{options.out}: {options.out.stat().st_size / 1e6:.2f} MB, {len(arrays['vertices'])} vertices, "
          f"{len(arrays['triangles'])} triangles, {len(arrays['modes'])} identity modes")  # fmt: skip


if __name__ == "__main__":
    main()

"""The head rig: identity and expression in, vertices out, for every family of heads.

Units are decimetres; y points up, z out of the face and +x to the subject's left. The origin lies inside the head,
midway between the ears. Eyes are aligned across identities, so heads differ in shape and not in position.

A family is data: one mesh with its identities and its deltas of the 52 actions. ``makehuman`` (see
``assets/HEAD_LICENSE.md``) is the MakeHuman base mesh with the "Face Units" expressions, both CC0; ``ict`` (see
``assets/head_ict.LICENSE``) is ICT-FaceKit's model. All textures are painted in the coordinates of the first.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache

import numba as nb
import numpy as np

from semanticface import arkit, assets
from semanticface.rendering.kernels import kernel
from semanticface.rendering.types import POINTS

SKIN, EYE_LEFT, EYE_RIGHT, UPPER_TEETH, LOWER_TEETH, TONGUE, LASHES = range(7)

# Gain of targets that move less than faces do at the action's full strength.
GAINS = {
    "eyeSquint": 1.2, "browInnerUp": 1.4, "browOuterUp": 1.2, "mouthStretch": 1.35, "mouthDimple": 1.2,
    "noseSneer": 1.35, "cheekSquint": 1.15, "mouthFrown": 1.15, "tongueOut": 1.8,
}  # fmt: skip
ORIGIN = np.array([0.0, 6.95, 0.45], np.float32)
_FILES = {"makehuman": "head.npz", "ict": "head_ict.npz"}
# Clothes hang from the hem of the body in rings: factor along x, drop along y in decimetres, factor along z.
_HEM = np.array([[1.18, -0.45, 1.05], [1.3, -4.0, 1.05]], np.float32)
ANCESTRIES = ("african", "asian", "caucasian")
# Mean of detail axes, by name without side and direction, as a weight of the positive target; others have mean 0. The
# base mesh has wide eyes, thick lips and low irises; ``eval/rest.py`` measures how far people differ.
AXIS_MEANS = {
    "eye-corner1": -0.6, "eye-corner2": -0.6, "eye-eyefold": -0.25, "mouth-scale-vert": -0.45,
    "mouth-upperlip-height": -0.65, "mouth-lowerlip-height": -0.65,
}  # fmt: skip
# Standard deviation of detail axes, as a multiple of the spread; others have 1.
AXIS_SPREADS = {
    "eye-height1": 1.3, "eye-height2": 1.3, "eye-height3": 1.3, "eye-scale": 1.2, "eyebrows-trans": 0.7,
    "mouth-upperlip-height": 1.5, "mouth-lowerlip-height": 1.5, "mouth-scale-vert": 1.3,
}  # fmt: skip
# How far age changes the face at rest from 45 years or so on: lower lids and thinner lips.
AGED_AXIS_MEANS = {"mouth-upperlip-height": -0.3, "mouth-lowerlip-height": -0.3, "eyebrows-trans": -0.3}
LID_REST, AGED_LID_REST, LID_SPREAD = 0.02, 0.05, 0.055
"""How far the lids are closed at rest, as ``eyeBlink``: mean, what age adds, standard deviation at a spread of 0.22."""
EYE_LIFT, EYE_LIFT_SPREAD = 0.022, 0.003
"""How far eyeballs lie above MakeHuman's place, decimetres: mean and standard deviation."""
EYE_LOWERED = 0.07
"""How much lower they lie if the lids were closed at rest, decimetres."""
_AGES = ("baby", "child", "young", "old")
# Spread of the weights of a family's identity modes; 1 is how much the scanned people differ.
_MODE_SPREAD = 0.8
_GAINS = np.array([GAINS.get(arkit.stem(n), 1.0) for n in arkit.NAMES])
_LID_COLUMNS = [
    [arkit.INDEX[f"eye{a}{side}"] for a in ("Blink", "LookDown", "LookUp", "Squint", "Wide")]
    for side in ("Left", "Right")
]


@dataclass(frozen=True, slots=True, eq=False)
class Movement:
    """How one head carries out the 52 actions.

    Attributes:
        mixing: float32[52, 52]; row k holds what the deltas of action k are weighted with, by coefficient.
        gaze: float32[2, 2], gain of the eyes' angle: (left, right) x (sideways, up and down).
    """

    mixing: np.ndarray
    gaze: np.ndarray


@dataclass(frozen=True, slots=True, eq=False)
class Identity:
    """One head without expression.

    Attributes:
        vertices: float32[V, 3], decimetres.
        eye_centres: float32[2, 3], left eye first.
        eye_radii: float32[2].
        masculine: 0 to 1.
        age: 0 (baby) over 1 (child) and 2 (young adult) to 3 (old).
        ancestry: weights of ``ANCESTRIES``, sum 1.
        family: of heads, one of ``rendering.types.FAMILIES``.
        movement: how this head carries out the actions; ``None`` for exactly as the family's data has them.
        lids: how far the left and right lids are closed at rest, as ``eyeBlink``; ``vertices`` has them so. Negative
            for wide eyes.
    """

    vertices: np.ndarray
    eye_centres: np.ndarray
    eye_radii: np.ndarray
    masculine: float
    age: float
    ancestry: tuple[float, float, float]
    family: str = "makehuman"
    movement: Movement | None = None
    lids: tuple[float, float] = (0.0, 0.0)


@kernel
def _add_deltas(out, weights, offsets, rows, deltas):  # type: ignore[no-untyped-def]
    for t in range(len(weights)):
        w = weights[t]
        if w == 0.0:
            continue
        for k in range(offsets[t], offsets[t + 1]):
            i = rows[k]
            out[i, 0] += w * deltas[k, 0]
            out[i, 1] += w * deltas[k, 1]
            out[i, 2] += w * deltas[k, 2]


@kernel
def _push_lids_out(out, lids, centres, radii):  # type: ignore[no-untyped-def]
    """Push lid vertices out of the eyeballs, as identity and expression targets do not know of each other."""
    for side in range(2):
        cx, cy, cz = centres[side, 0], centres[side, 1], centres[side, 2]
        limit = radii[side] * 1.035
        for i in lids[side]:
            dx, dy, dz = out[i, 0] - cx, out[i, 1] - cy, out[i, 2] - cz
            r = (dx * dx + dy * dy + dz * dz) ** 0.5
            if r < limit and dz > 0.0:
                s = limit / r
                out[i, 0], out[i, 1], out[i, 2] = cx + dx * s, cy + dy * s, cz + dz * s


@kernel
def vertex_normals(vertices, triangles):  # type: ignore[no-untyped-def]
    """Area-weighted unit vertex normals, float32[V, 3]."""
    out = np.zeros_like(vertices)
    for t in range(len(triangles)):
        a, b, c = triangles[t, 0], triangles[t, 1], triangles[t, 2]
        ux, uy, uz = vertices[b, 0] - vertices[a, 0], vertices[b, 1] - vertices[a, 1], vertices[b, 2] - vertices[a, 2]
        vx, vy, vz = vertices[c, 0] - vertices[a, 0], vertices[c, 1] - vertices[a, 1], vertices[c, 2] - vertices[a, 2]
        nx, ny, nz = uy * vz - uz * vy, uz * vx - ux * vz, ux * vy - uy * vx
        for i in (a, b, c):
            out[i, 0] += nx
            out[i, 1] += ny
            out[i, 2] += nz
    for i in range(len(out)):
        r = math.sqrt(out[i, 0] * out[i, 0] + out[i, 1] * out[i, 1] + out[i, 2] * out[i, 2])
        if r > 0.0:
            out[i, 0], out[i, 1], out[i, 2] = out[i, 0] / r, out[i, 1] / r, out[i, 2] / r
    return out


def _deltas_of(data: dict[str, np.ndarray], kind: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Sparse targets of a head file: offsets [T + 1], vertex index int64[K], delta float32[K, 3]."""
    return data[f"{kind}_offsets"], data[f"{kind}_rows"].astype(np.int64), data[f"{kind}_deltas"].astype(np.float32)


def sphere_of(points: np.ndarray) -> tuple[np.ndarray, float]:
    """Return centre, float64[3], and radius of the sphere nearest to points [N, 3], by least squares."""
    points = np.asarray(points, np.float64)
    terms = np.concatenate([2 * points, np.ones((len(points), 1))], 1)
    solution = np.linalg.lstsq(terms, (points**2).sum(1), rcond=None)[0]
    return solution[:3], float(np.sqrt(solution[3] + (solution[:3] ** 2).sum()))


class _DetailAxes:
    """Detail targets as sampling axes.

    An axis is a pair of opposite targets, or one target. The left and right axis of a part share one sample,
    and each adds a little of its own. ``AXIS_MEANS`` and ``AXIS_SPREADS`` shift and widen some.
    """

    def __init__(self, names: list[str]) -> None:
        opposites = {"incr": "decr", "in": "out", "up": "down", "forward": "backward", "convex": "concave",
                     "compress": "uncompress"}  # fmt: skip
        index = {name: k for k, name in enumerate(names)}
        self.size = len(names)
        positive: list[int] = []
        negative: list[int] = []
        shared: list[int] = []
        own: list[int] = []
        scales: list[float] = []
        parts: list[str] = []
        first: dict[str, int] = {}
        used: set[str] = set()
        for name in names:
            stem, _, end = name.rpartition("-")
            if name in used or any(b == end and f"{stem}-{a}" in index for a, b in opposites.items()):
                continue
            pair = next((b for a, b in opposites.items() if a == end and f"{stem}-{b}" in index), None)
            used |= {name, f"{stem}-{pair}"}
            positive.append(index[name])
            negative.append(index[f"{stem}-{pair}"] if pair else -1)
            sided = name[:2] in ("l-", "r-")
            parts.append(stem[2:] if sided else stem)
            wider = AXIS_SPREADS.get(parts[-1], 1.0)
            shared.append(first.setdefault(name[2:] if sided else name, len(scales)))
            scales.append(wider)
            own.append(len(scales) if sided else -1)
            if sided:
                scales.append(0.2 * wider)
        self._means, self._aged = (
            np.array([m.get(part, 0.0) for part in parts]) for m in (AXIS_MEANS, AGED_AXIS_MEANS)
        )
        self._positive, self._negative = np.array(positive), np.array(negative)
        self._shared, self._own, self._scales = np.array(shared), np.array(own), np.array(scales)

    def sample(self, rng: np.random.Generator, spread: float, aged: float) -> np.ndarray:
        """Weights of all detail targets, float64[targets].

        Args:
            rng: source of randomness.
            spread: standard deviation of the axes that ``AXIS_SPREADS`` does not name.
            aged: 0 for the means of a young face, 1 for those of an old one.
        """
        samples = rng.normal(0, spread * self._scales)
        common = samples[self._shared]
        value = np.where(self._own < 0, common, 0.95 * common + samples[self._own])
        value += self._means + aged * self._aged
        target = np.where(value > 0, self._positive, self._negative)
        weights = np.zeros(self.size)
        weights[target[target >= 0]] = np.abs(value[target >= 0])
        return weights


def _sample_rest(rng: np.random.Generator, spread: float, aged: float) -> np.ndarray:
    """Sample a face's shape at rest as coefficients, float64[52]; eyeBlink may be negative.

    Faces at rest smile or frown a little, press their lips, raise or lower their brows, and not evenly. All of this is
    shape: labels are 0.
    """
    rest = np.zeros(arkit.N_ACTIONS)
    scale = spread / 0.22

    def add(raised: tuple[str, ...], lowered: tuple[str, ...], both: float, each: float, most: float) -> None:
        common, own = rng.normal(0, both * scale), rng.normal(0, each * scale, 2)
        for side, value in zip(("Left", "Right"), np.clip(common + own, -most, most), strict=True):
            for name in raised if value > 0 else lowered:
                rest[arkit.INDEX[name + side]] += abs(value)

    lids = np.clip(LID_REST + aged * AGED_LID_REST + rng.normal(0, LID_SPREAD * scale), -0.12, 0.4)
    add(("mouthSmile",), ("mouthFrown",), 0.05, 0.07, 0.15)
    add(("browOuterUp",), ("browDown",), 0.03, 0.13, 0.25)
    add(("mouthPress",), (), 0.08, 0.03, 0.15)
    for left, right, most in (("mouthLeft", "mouthRight", 0.1), ("jawLeft", "jawRight", 0.1)):
        value = np.clip(rng.normal(0, 0.04 * scale), -most, most)
        rest[arkit.INDEX[left if value > 0 else right]] = abs(value)
    rest[[blink for blink, *_ in _LID_COLUMNS]] = lids + rng.normal(0, 0.025 * scale, 2)
    return rest


class Rig:
    """The average head of a family, its 52 actions and its identities. Get it from ``rig()``; it never changes.

    Attributes:
        family: one of ``rendering.types.FAMILIES``.
        triangles: int32[T, 3].
        part: uint8[V], one of ``SKIN`` … ``LASHES``.
        base: float32[V, 3], places on MakeHuman's base mesh. A place means the same on every face of every family:
            textures use these coordinates.
        masks: float32[V, 4] in [0, 1]: lips, inside of the mouth, eyelids, ears.
        openness: float32[V], ambient occlusion of the base mesh: 1 is fully open.
        uv: float32[V, 2], MakeHuman's texture coordinates (0 on the eyeballs).
        mirror: int64[V], the vertex on the other side.
        point_ids: int64[70], the vertex of each of ``rendering.types.POINTS``.
        box_ids: int64[B], skin vertices from brow tops to chin and cheek to cheek.
        lash_centre: float32[3], centre of the left eyeball on the base mesh.
        inter_pupil: distance between the average head's pupils, decimetres.
        hem: float32[2, 3], rings of clothes below the hem: factor along x, drop along y, factor along z.
    """

    def __init__(self, family: str = "makehuman") -> None:
        with np.load(assets.path(_FILES[family])) as file:
            data = dict(file)
        if tuple(data["expression_names"]) != arkit.NAMES:
            raise ValueError(f"assets/{_FILES[family]} has other actions than arkit: build it again (data_prep/assets)")
        self.family = family
        self.base = data["base"] if "base" in data else data["vertices"] - ORIGIN
        self.hem = data.get("hem", _HEM)
        self.triangles = data["triangles"].astype(np.int32)
        self.part = data["part"]
        self.masks = data["masks"].astype(np.float32) / 255
        self.openness = data["sky"].astype(np.float32) / 255
        self.uv = data["uv"].astype(np.float32)
        self.mirror = data["mirror"].astype(np.int64)
        self.point_ids = data["point_ids"].astype(np.int64)
        self.box_ids = np.flatnonzero(
            (self.part == SKIN) & (self.base[:, 2] > 0.25) & (self.base[:, 1] < 0.56) & (self.base[:, 1] > -0.76)
            & (self.masks[:, 1] < 0.5)
        )  # fmt: skip
        self._expression = _deltas_of(data, "expression")
        self._gains = data.get("gains", _GAINS)
        self._eyes = [np.flatnonzero(self.part == k) for k in (EYE_LEFT, EYE_RIGHT)]
        self._base_centres = np.array([(self.base[e[0]] + self.base[e[-1]]) / 2 for e in self._eyes])
        if family == "makehuman":
            self._base_centres = data["eye_centres"] - ORIGIN
        self.lash_centre = self._base_centres[0]
        skin = np.flatnonzero(self.part == SKIN)
        near = [np.linalg.norm(self.base[skin] - c, axis=1) < 0.3 for c in self._base_centres]
        self._lids = nb.typed.List([skin[n] for n in near])
        self._teeth = [np.flatnonzero(self.part == k) for k in (UPPER_TEETH, LOWER_TEETH)]
        if family == "makehuman":
            self._macro, self._detail = _deltas_of(data, "macro"), _deltas_of(data, "detail")
            self._macro_names = [str(n) for n in data["macro_names"]]
            self._axes = _DetailAxes([str(n) for n in data["detail_names"]])
            self.average = self._identity(
                self._macro_weights(0.5, 2.0, (1 / 3,) * 3, 0.5), None, 0.5, 2.0, (1 / 3,) * 3
            )
        else:
            self._vertices, self._modes = data["vertices"], data["modes"]
            self._mode_scales = data["mode_scales"]
            self.average = self._from_modes(np.zeros(len(self._modes)), 0.5, 2.0, (1 / 3,) * 3)
        self.inter_pupil = float(np.linalg.norm(self.average.eye_centres[0] - self.average.eye_centres[1]))

    def _macro_weights(self, masculine: float, age: float, ancestry: tuple[float, ...], weight: float) -> np.ndarray:
        """Weights of the macro targets. ``weight`` runs from 0 (thin) over 0.5 to 1 (heavy)."""
        ages = {a: max(0.0, 1 - abs(age - k)) for k, a in enumerate(_AGES)}
        genders = {"female": 1 - masculine, "male": masculine}
        heavy = {"minweight": max(0.0, 1 - 2 * weight), "maxweight": max(0.0, 2 * weight - 1)}
        heavy["averageweight"] = 1 - sum(heavy.values())
        out = np.zeros(len(self._macro_names))
        for k, name in enumerate(self._macro_names):
            kind, gender, years, *rest = name.split("-")
            build = heavy[rest[1]] if kind == "universal" else ancestry[ANCESTRIES.index(kind)]
            out[k] = build * genders[gender] * ages[years]
        return out

    def _identity(
        self, macros: np.ndarray, details: np.ndarray | None, masculine: float, age: float, ancestry: tuple[float, ...],
        rest: np.ndarray | None = None, eye_lift: float = 0.0,
    ) -> Identity:  # fmt: skip
        v = self.base.copy()
        _add_deltas(v, macros, *self._macro)
        if details is not None:
            _add_deltas(v, details, *self._detail)
        for eye in self._eyes:
            v[eye, 1] += eye_lift
        centres = np.array([(v[e[0]] + v[e[-1]]) / 2 for e in self._eyes])
        v += self._base_centres.mean(0) - centres.mean(0)
        centres = np.array([(v[e[0]] + v[e[-1]]) / 2 for e in self._eyes], np.float32)
        radii = np.array([np.linalg.norm(v[e] - c, axis=1).mean() for e, c in zip(self._eyes, centres, strict=True)])
        radii = radii.astype(np.float32)
        for k, rows in enumerate(self._teeth):
            # As modelled the teeth would poke through the corners of a smiling mouth.
            middle = v[rows].mean(0)
            v[rows] = middle + (v[rows] - middle) * 0.84
            v[rows] -= np.array([0, 0.055 * (1 - k), 0.05], np.float32)
        # As modelled the tip of the tongue lies before the lower teeth.
        v[self.part == TONGUE] -= np.array([0, 0.02, 0.10], np.float32)
        lids = (0.0, 0.0)
        if rest is not None:
            _add_deltas(v, rest, *self._expression)
            lids = tuple(float(rest[blink]) for blink, *_ in _LID_COLUMNS)  # type: ignore[assignment]
        _push_lids_out(v, self._lids, centres, radii)
        return Identity(v, centres, radii, float(masculine), float(age), tuple(float(a) for a in ancestry), lids=lids)  # type: ignore[arg-type]

    def _from_modes(self, weights: np.ndarray, masculine: float, age: float, ancestry: tuple[float, ...]) -> Identity:
        """A head of a family whose identities are dense modes, by their weights."""
        scaled = (weights * self._mode_scales).astype(np.float32)
        v = self._vertices + np.tensordot(scaled, self._modes.astype(np.float32), 1)
        middle = np.mean([(v[e[0]] + v[e[-1]]) / 2 for e in self._eyes], axis=0)
        v += self._base_centres.mean(0) - middle
        centres = np.array([(v[e[0]] + v[e[-1]]) / 2 for e in self._eyes], np.float32)
        radii = np.array([np.linalg.norm(v[e] - c, axis=1).mean() for e, c in zip(self._eyes, centres, strict=True)])
        radii = radii.astype(np.float32)
        _push_lids_out(v, self._lids, centres, radii)
        movement = Movement(np.diag(self._closing(v)).astype(np.float32), np.ones((2, 2), np.float32))
        return Identity(v, centres, radii, float(masculine), float(age), tuple(float(a) for a in ancestry),  # type: ignore[arg-type]
                        self.family, movement)  # fmt: skip

    def _closing(self, vertices: np.ndarray) -> np.ndarray:
        """Gain of each action with which this head's lids close as the average head's do at eyeBlink 1; float64[52]."""
        gains = np.ones(arkit.N_ACTIONS)
        points = dict(zip(POINTS, self.point_ids, strict=True))
        for side in ("Left", "Right"):
            upper = [points[f"eye{side}Upper{k}"] for k in ("Inner", "Outer")]
            lower = [points[f"eye{side}Lower{k}"] for k in ("Inner", "Outer")]
            deltas = self.deltas(f"eyeBlink{side}")[:, 1]
            travel = float((deltas[lower] - deltas[upper]).mean())
            rest = float((self._vertices[upper, 1] - self._vertices[lower, 1]).mean())
            own = float((vertices[upper, 1] - vertices[lower, 1]).mean())
            gains[arkit.INDEX[f"eyeBlink{side}"]] = np.clip(1 + (own - rest) / travel, 0.7, 1.7)
        return gains

    def deltas(self, action: str) -> np.ndarray:
        """What an action at 1 adds to the vertices, before ``GAINS``; float32[V, 3]."""
        out = np.zeros_like(self.base)
        offsets, rows, deltas = self._expression
        own = slice(offsets[arkit.INDEX[action]], offsets[arkit.INDEX[action] + 1])
        out[rows[own]] = deltas[own]
        return out

    def identity(self, seed: int, spread: float = 0.22) -> Identity:
        """Sample an identity: sex, age, ancestry and build, then details and the face at rest.

        Details are sampled with a standard deviation of ``spread`` about the means of people. A spread of 0.22 looks
        human; 0.45 gives caricatures. The two sides share nine tenths of each sample.
        """
        rng = np.random.default_rng([seed, 11])
        masculine = float(np.clip(rng.normal(rng.integers(2), 0.25), 0, 1))
        age = float(np.clip(rng.choice([1.55, 2.0, 2.25, 2.65], p=[0.1, 0.35, 0.35, 0.2]) + rng.normal(0, 0.2), 1.2, 3))
        ancestry = rng.dirichlet([0.35, 0.35, 0.35])
        if self.family != "makehuman":
            weights = rng.normal(0, spread / 0.22 * _MODE_SPREAD, len(self._modes))
            return self._from_modes(weights, masculine, age, tuple(ancestry))
        weight = float(np.clip(rng.normal(0.5, 0.22), 0, 1))
        aged = float(np.clip((age - 2.1) / 0.6, 0, 1))
        details = self._axes.sample(rng, spread, aged)
        rest = _sample_rest(rng, spread, aged)
        # Eyes under low lids lie lower, or they would be half hidden.
        low = rest[[blink for blink, *_ in _LID_COLUMNS]].mean()
        eye_lift = EYE_LIFT - EYE_LOWERED * low + rng.normal(0, EYE_LIFT_SPREAD) * spread / 0.22
        return self._identity(
            self._macro_weights(masculine, age, tuple(ancestry), weight), details, masculine, age, tuple(ancestry),
            rest, eye_lift,
        )  # fmt: skip

    def _expression_weights(self, coefficients: np.ndarray, movement: Movement | None) -> np.ndarray:
        """Coefficients times the family's gains; a closed lid is not moved further by gaze or squint."""
        weights = coefficients if movement is None else coefficients @ movement.mixing.T
        weights = weights * self._gains
        for blink, down, up, squint, wide in _LID_COLUMNS:
            open_ = 1 - coefficients[..., blink]
            weights[..., down] *= open_
            weights[..., up] *= open_
            weights[..., squint] *= 0.35 + 0.65 * open_
            weights[..., wide] *= open_
        return weights

    def eye_angles(self, coefficients: np.ndarray, movement: Movement | None = None) -> np.ndarray:
        """Degrees that the eyes are turned in the head, float32[..., 2, 2]: as ``arkit.gaze_degrees``.

        ``movement`` is that of the identity; without it the eyes turn by exactly the angles of the gaze actions.
        """
        gaze: np.ndarray = arkit.gaze_degrees(np.asarray(coefficients, np.float32)).astype(np.float32)
        return gaze if movement is None else gaze * movement.gaze

    def eye_rotations(self, coefficients: np.ndarray, movement: Movement | None = None) -> np.ndarray:
        """Rotation matrices of the eyeballs, float32[..., 2, 3, 3], from eye space (z out of the pupil) to the head."""
        gaze = self.eye_angles(coefficients, movement)
        yaw, pitch = np.moveaxis(np.radians(gaze), -1, 0)
        cy, sy, cp, sp, zero = np.cos(yaw), np.sin(yaw), np.cos(pitch), np.sin(pitch), np.zeros_like(yaw)
        rows = [[cy, -sy * sp, sy * cp], [zero, cp, sp], [-sy, -cy * sp, cy * cp]]
        return np.stack([np.stack(r, -1) for r in rows], -2).astype(np.float32)

    def vertices(self, coefficients: np.ndarray, identity: Identity | None = None) -> np.ndarray:
        """Vertices under an expression.

        Args:
            coefficients: [..., 52] in [0, 1], project order.
            identity: the head; the average head by default.

        Returns:
            float32[..., V, 3], decimetres.
        """
        identity = identity or self.average
        c = np.asarray(coefficients, np.float32)
        flat = c.reshape(-1, arkit.N_ACTIONS)
        weights = self._expression_weights(flat, identity.movement)
        rotations = self.eye_rotations(flat, identity.movement)
        out = np.empty((len(flat), *identity.vertices.shape), np.float32)
        for n in range(len(flat)):
            v = out[n]
            v[:] = identity.vertices
            # A lid that is partly closed at rest has less way to go.
            for (blink, *_), closed in zip(_LID_COLUMNS, identity.lids, strict=True):
                weights[n, blink] *= 1 - closed
            _add_deltas(v, weights[n], *self._expression)
            _push_lids_out(v, self._lids, identity.eye_centres, identity.eye_radii)
            for side, rows in enumerate(self._eyes):
                v[rows] = (
                    identity.eye_centres[side]
                    + (identity.vertices[rows] - identity.eye_centres[side]) @ rotations[n, side].T
                )
        return out.reshape(*c.shape[:-1], *identity.vertices.shape)


def rig(family: str = "makehuman") -> Rig:
    """The rig of a family of heads, loaded once per process."""
    return _rig(family)


@cache
def _rig(family: str) -> Rig:
    return Rig(family)

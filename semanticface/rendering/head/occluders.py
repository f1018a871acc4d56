"""Occluders in front of the face: a hand, a phone, a cup, a microphone, loose hair.

Hands and hair follow the skin under the expression, so that they touch it without penetrating.
"""

from __future__ import annotations

from functools import cache

import numpy as np

from semanticface.rendering.head import channel
from semanticface.rendering.head.appearance import Appearance, linear_rgb
from semanticface.rendering.head.props import Material, Prop, join_props, make_prop, tube
from semanticface.rendering.head.rig import SKIN, rig
from semanticface.rendering.kernels import kernel

# Hand poses: position on the left half of the base mesh, range of the fingers' angle from straight up towards the nose
# (degrees), range of their bend, probability.
_HAND_POSES: tuple[tuple[tuple[float, float, float], tuple[float, float], tuple[float, float], float], ...] = (
    ((0.55, -0.15, 0.55), (-25, 35), (0.1, 0.6), 0.26),  # cheek
    ((0.30, -0.62, 0.80), (10, 80), (0.2, 1.0), 0.24),  # chin
    ((0.30, 0.75, 0.85), (20, 95), (0.0, 0.4), 0.18),  # forehead
    ((0.60, 0.32, 0.45), (-10, 50), (0.1, 0.9), 0.16),  # beside the eye
    ((0.10, -0.32, 0.95), (50, 100), (0.0, 0.5), 0.16),  # mouth
)
_OBJECT_COLOURS = np.array(
    [(24, 24, 26), (225, 222, 216), (150, 30, 36), (40, 70, 120), (60, 60, 64), (210, 170, 60)], float
)


@cache
def _face_skin_ids(family: str) -> np.ndarray:
    r = rig(family)
    return np.flatnonzero((r.part == SKIN) & (r.masks[:, 1] < 0.5) & (r.base[:, 1] > -1.1) & (r.base[:, 2] > -0.1))


def _face_skin(vertices: np.ndarray, family: str) -> np.ndarray:
    """Skin of the face and brow under the expression, float32[N, 3]."""
    return vertices[_face_skin_ids(family)]


@kernel
def _required_lift(path, radius, skin, out):  # type: ignore[no-untyped-def]
    """How far along ``out`` each point of a tube must move to lie on the skin, float64[N]."""
    lift = np.zeros(len(path))
    reach = (1.3 * radius) ** 2
    for k in range(len(path)):
        for i in range(len(skin)):
            dx, dy, dz = path[k, 0] - skin[i, 0], path[k, 1] - skin[i, 1], path[k, 2] - skin[i, 2]
            height = dx * out[0] + dy * out[1] + dz * out[2]
            if dx * dx + dy * dy + dz * dz - height * height < reach:
                lift[k] = max(lift[k], radius * 0.85 - height)
    return np.minimum(lift, 0.7)


def _smooth_lift(lift: np.ndarray) -> np.ndarray:
    """Remove kinks: raise each point to the mean of its neighbours, twice."""
    for _ in range(2):
        padded = np.pad(lift, 1, mode="edge")
        lift = np.maximum(lift, 0.5 * (padded[:-2] + padded[2:]))
    return lift


def _lift_off_skin(path: np.ndarray, radius: float, skin: np.ndarray, out: np.ndarray) -> np.ndarray:
    """Lift a path along ``out`` until a tube of ``radius`` lies on the skin."""
    return path + _smooth_lift(_required_lift(path, radius, skin, out))[:, None] * out


@kernel
def _skin_depth(xy, skin, reach):  # type: ignore[no-untyped-def]
    """z of the foremost skin within ``reach`` of points x, y, or of the nearest skin; float64[N]."""
    out = np.empty(len(xy))
    for k in range(len(xy)):
        best, nearest, z = -1e9, 1e9, 0.0
        for i in range(len(skin)):
            dx, dy = xy[k, 0] - skin[i, 0], xy[k, 1] - skin[i, 1]
            d = dx * dx + dy * dy
            if d < nearest:
                nearest, z = d, skin[i, 2]
            if d < reach * reach:
                best = max(best, skin[i, 2])
        out[k] = best if best > -1e8 else z
    return out


def _skin_material(appearance: Appearance, rng: np.random.Generator) -> Material:
    skin = 0.85 * appearance.colours[channel.SKIN] + 0.15 * appearance.colours[channel.BLOOD]
    r, g, b = (skin * rng.uniform(0.85, 1.1)).tolist()
    return Material((r, g, b), 0.4, 1.0, 0.14, 9)


def _finger(path: np.ndarray, radius: float, material: Material, up: np.ndarray, blood: np.ndarray) -> Prop:
    """A finger from the knuckle: joints thicker and redder, redder at the tip."""
    t = np.linspace(0, 1, len(path))
    joints = np.exp(-(((t - 0.42) / 0.06) ** 2)) + np.exp(-(((t - 0.72) / 0.05) ** 2))
    radii = radius * (1.05 - 0.22 * t + 0.06 * joints)
    finger = make_prop(*tube(path, radii, up, sides=8, rounded=True), material)
    ring = np.concatenate([np.zeros(3), np.clip(0.5 * joints + 0.8 * (t > 0.9), 0, 1), np.ones(3)]).repeat(8)
    colour = finger.colour + 0.35 * ring[:, None] * (blood - finger.colour)
    return Prop(finger.positions, colour.astype(np.float32), finger.surface, finger.triangles)


def hand(vertices: np.ndarray, appearance: Appearance, seed: int, family: str = "makehuman") -> Prop:
    """A hand that touches the face.

    Args:
        vertices: float32[V, 3], the head under its expression.
        appearance: of the subject, whose hand it is.
        seed: of position and pose.
        family: of the head.
    """
    rng = np.random.default_rng([seed, 15])
    shares = np.array([rest[3] for rest in _HAND_POSES])
    positions, turns, bends, _ = _HAND_POSES[rng.choice(len(_HAND_POSES), p=shares / shares.sum())]
    side = rng.choice([-1.0, 1.0])
    target = np.array(positions) * [side, 1, 1] + rng.normal(0, 0.05, 3)
    r = rig(family)
    skin = _face_skin(vertices, family)
    touch = vertices[np.argmin(((r.base - target) ** 2).sum(1))]
    out = touch * [1, 0.5, 1] - [0, 0, 0.1]
    out = out / np.linalg.norm(out)
    turn = np.radians(rng.uniform(*turns))
    up = np.array([-side * np.sin(turn), np.cos(turn), 0.0])
    up -= (up @ out) * out
    up /= np.linalg.norm(up)
    across = np.cross(up, out)  # from the little finger to the thumb, or back: left or right hand
    across *= rng.choice([-1.0, 1.0])
    size = rng.uniform(0.88, 1.08)
    bent = rng.uniform(*bends)
    material, blood = _skin_material(appearance, rng), appearance.colours[channel.BLOOD]
    knuckles = touch - up * 0.42 * size + out * 0.10
    alone = rng.random() < 0.15  # one finger extended, the others closed
    spread = rng.uniform(0.02, 0.16)
    parts = []
    for k, (length, radius) in enumerate(((0.72, 0.086), (0.80, 0.088), (0.75, 0.084), (0.60, 0.074))):
        at = (k - 1.5) * 0.185 * size
        lean = (k - 1.5) * spread + rng.normal(0, 0.03)
        curl = 2.2 if alone and k else bent + rng.normal(0, 0.12)
        t = np.linspace(0, 1, 9)
        # The bend grows with every joint, towards the face.
        angle = np.clip(curl, 0, 2.4) * t**0.8
        step = length * size / 8
        forward, inward = np.cumsum(step * np.cos(angle)), np.cumsum(step * np.sin(angle))
        path = (
            knuckles + across * (at + np.sin(lean) * forward)[:, None] + up * (forward * np.cos(lean))[:, None]
            - out * (inward * 0.8)[:, None] - up * 0.06 * abs(k - 1.2)
        )  # fmt: skip
        path = _lift_off_skin(path, radius * size, skin, out)
        parts.append(_finger(path, radius * size, material, out, blood))
    wrist = knuckles - up * 0.95 * size
    palm = np.linspace(wrist, knuckles + up * 0.02, 6) + out * 0.02
    palm = _lift_off_skin(palm, 0.16 * size, skin, out)
    width = np.array([0.27, 0.36, 0.41, 0.42, 0.41, 0.38]) * size
    parts.append(make_prop(*tube(palm, width, out, up_radius=width * 0.34, sides=12, rounded=True), material))
    root = palm[1] + across * -0.25 * size
    tip = palm[4] + across * -(0.55 + 0.2 * rng.random()) * size + up * 0.1
    thumb = np.linspace(root, tip, 9) + (across * -0.1)[None] * np.sin(np.linspace(0, np.pi, 9))[:, None]
    parts.append(_finger(_lift_off_skin(thumb, 0.1 * size, skin, out), 0.105 * size, material, out, blood))
    elbow = palm[0] - up * 1.6 + np.array([0.4 * side, -1.2, 0.25])
    arm = np.linspace(elbow, palm[0] + up * 0.1, 6)
    if rng.random() < 0.6:  # a sleeve
        r_, g_, b_ = appearance.colours[channel.CLOTH].tolist()
        cut = 4 if rng.random() < 0.5 else 3
        parts.append(
            make_prop(*tube(arm[:cut], 0.46, out, up_radius=0.4, sides=10), Material((r_, g_, b_), 0.05, 0.0, 0.25, 18))
        )
    parts.append(make_prop(*tube(arm, np.linspace(0.42, 0.27, 6) * size, out, up_radius=np.linspace(0.38, 0.2,
                            6) * size, sides=10), material))  # fmt: skip
    return join_props(parts)


def _grip(
    middle: np.ndarray, axis: np.ndarray, forward: np.ndarray, radius: float, material: Material, blood: np.ndarray
) -> list[Prop]:
    """Four fingers and a thumb around a rod at ``middle``; ``forward`` is where the fingers show."""
    side = np.cross(axis, forward)
    parts = []
    for k in range(4):
        turn = np.linspace(-1.9, 1.5 - 0.15 * k, 9)
        ring = np.cos(turn)[:, None] * forward + np.sin(turn)[:, None] * side
        path = middle + axis * (0.28 - 0.185 * k) + (radius + 0.07) * ring
        parts.append(_finger(path, 0.085, material, axis, blood))
    turn = np.linspace(-2.2, -0.4, 9)
    ring = np.cos(turn)[:, None] * forward + np.sin(turn)[:, None] * side
    thumb = middle + axis * np.linspace(0.1, 0.45, 9)[:, None] + (radius + 0.08) * ring
    parts.append(_finger(thumb, 0.1, material, axis, blood))
    back = middle - side * (radius + 0.22) - forward * 0.1
    palm = np.linspace(back - axis * 0.45, back + axis * 0.3, 5)
    parts.append(make_prop(*tube(palm, 0.16, side, up_radius=0.36, sides=10, rounded=True), material))
    arm = np.linspace(back - axis * 0.3, back - axis * 2.2 - side * 0.8, 5)
    parts.append(make_prop(*tube(arm, np.linspace(0.24, 0.4, 5), side, sides=10), material))
    return parts


def _slab(middle: np.ndarray, axes: np.ndarray, half: np.ndarray, material: Material) -> Prop:
    """A flat-shaded box: every face has vertices of its own."""
    corners = np.array([(-1, -1), (1, -1), (1, 1), (-1, 1)])
    positions: list[np.ndarray] = []
    triangles: list[np.ndarray] = []
    for k in range(3):
        for sign in (-1, 1):
            at = np.zeros((4, 3))
            at[:, k], at[:, (k + 1) % 3], at[:, (k + 2) % 3] = sign, corners[:, 0], corners[:, 1] * sign
            triangles += [np.array([0, 1, 2]) + 4 * len(positions), np.array([0, 2, 3]) + 4 * len(positions)]
            positions.append(middle + (at * half) @ axes)
    return make_prop(np.concatenate(positions), np.array(triangles), material)


def held_object(vertices: np.ndarray, appearance: Appearance, seed: int, family: str = "makehuman") -> Prop:
    """A microphone, a cup or a phone in front of the face, and the hand that holds it; arguments as for ``hand``."""
    rng = np.random.default_rng([seed, 16])
    material, blood = _skin_material(appearance, rng), appearance.colours[channel.BLOOD]
    finger = Material(
        linear_rgb(_OBJECT_COLOURS[rng.integers(len(_OBJECT_COLOURS))] * rng.uniform(0.7, 1.1)), rng.uniform(0.3, 1.6)
    )
    side = rng.choice([-1.0, 1.0])
    mouth = vertices[np.argmin(((rig(family).base - [0, -0.32, 1.0]) ** 2).sum(1))]
    kind = rng.random()
    if kind < 0.35:  # a microphone
        axis = np.array([-0.35 * side, 1.0, -0.55 + 0.2 * rng.random()])
        axis /= np.linalg.norm(axis)
        head = mouth + np.array([0.08 * side, -0.42 - 0.15 * rng.random(), 0.38])
        stick = np.linspace(head - 2.0 * axis, head, 8)
        ball = np.linspace(head - 0.1 * axis, head + 0.12 * axis, 4)
        mesh = Material((0.09, 0.09, 0.1), 1.0, 0.0, 0.9, 45)
        parts = [make_prop(*tube(stick, np.linspace(0.11, 0.16, 8), np.array([0.0, 0, 1]), sides=10), finger),
                 make_prop(*tube(ball, 0.24, np.array([0.0, 0, 1]), sides=12, rounded=True), mesh)]  # fmt: skip
        parts += _grip(head - 1.0 * axis, axis, np.array([-side * 0.3, 0.1, 1.0]), 0.13, material, blood)
    elif kind < 0.7:  # a cup at the mouth
        axis = np.array([0.0, 1.0, rng.uniform(-0.5, 0.05)])
        axis /= np.linalg.norm(axis)
        wide = rng.uniform(0.32, 0.42)
        rim = mouth + np.array([rng.normal(0, 0.05), rng.uniform(-0.22, 0.02), wide + 0.06])
        wall = np.linspace(rim - 1.0 * axis, rim, 6)
        ends = np.concatenate([wall[:1], wall, wall[-1:] - 0.05 * axis])
        girth = np.concatenate([[0.01], np.linspace(wide * 0.78, wide, 6), [wide * 0.9]])
        parts = [make_prop(*tube(ends + np.linspace(-1e-3, 1e-3, 8)[:, None] * axis, girth, np.array([0.0, 0, 1]),
                            sides=18), finger)]  # fmt: skip
        parts += _grip(rim - 0.55 * axis, axis, np.array([-side * 0.6, 0.0, 1.0]) / 1.17, wide * 0.9, material, blood)
    else:  # a phone: at the ear, or before the lower face
        glass = Material((0.012, 0.012, 0.014), 2.2)
        if rng.random() < 0.5:
            ear = vertices[(rig(family).masks[:, 3] > 0.5) & (side * rig(family).base[:, 0] > 0)].mean(0)
            middle = ear + np.array([0.14 * side, -0.35, 0.22])
            long = np.array([-0.05 * side, 0.9, -0.42])
            flat = np.array([side, 0.05, 0.15])
        else:
            middle = mouth + rng.uniform((-0.6, -0.9, 0.8), (0.6, -0.35, 1.4))
            long = np.array([rng.normal(0, 0.2), 1.0, -0.2])
            flat = np.array([rng.normal(0, 0.15), 0.2, 1.0])
        long /= np.linalg.norm(long)
        flat -= (flat @ long) * long
        flat /= np.linalg.norm(flat)
        axes = np.stack([np.cross(long, flat), long, flat])
        size = np.array([0.37, 0.76, 0.042]) * rng.uniform(0.9, 1.1)
        lens = middle + axes[0] * 0.22 + long * 0.58 + flat * 0.035
        parts = [_slab(middle, axes, size, finger), _slab(lens, axes, np.array([0.1, 0.12, 0.03]), glass)]
        for k in range(4):
            t = np.linspace(0, 1, 9)
            edge = middle - axes[0] * 0.44 + long * (0.12 - 0.19 * k) - flat * 0.08
            path = edge + axes[0] * (0.42 - 0.05 * k) * t[:, None] + flat * (0.2 * np.sin(2.2 * t))[:, None]
            parts.append(_finger(path, 0.085, material, long, blood))
        thumb = middle + axes[0] * 0.42 + np.linspace(-0.45, 0.25, 9)[:, None] * long + flat * 0.1
        parts.append(_finger(thumb, 0.1, material, flat, blood))
        palm = np.linspace(middle - long * 1.0 - flat * 0.16, middle + long * 0.1 - flat * 0.16, 5)
        parts.append(make_prop(*tube(palm, 0.40, flat, up_radius=0.15, sides=10, rounded=True), material))
        arm = np.linspace(palm[0], palm[0] + [0.5 * side, -2.4, -0.2], 5)
        parts.append(make_prop(*tube(arm, np.linspace(0.26, 0.42, 5), flat, sides=10), material))
    return join_props(parts)


def loose_hair(vertices: np.ndarray, appearance: Appearance, seed: int, family: str = "makehuman") -> Prop:
    """Loose hair from the hairline across forehead, eyes or cheeks; arguments as for ``hand``."""
    rng = np.random.default_rng([seed, 17])
    skin = _face_skin(vertices, family)
    skin = skin[skin[:, 2] > 0.2]
    root, fall = rng.normal(0, 0.28), rng.choice([-1.0, 1.0])
    low = rng.uniform(-0.25, 0.55)
    parts = []
    for _ in range(int(rng.integers(3, 11))):
        t = np.linspace(0, 1, 14)
        x0, end = root + rng.normal(0, 0.12), low + rng.normal(0, 0.12)
        bow = fall * (rng.uniform(0.05, 0.5) * t**1.4) + 0.04 * np.sin(rng.uniform(2, 7) * t + rng.uniform(0, 6))
        x, y = x0 + bow, 1.06 + (end - 1.06) * t
        z = _smooth_lift(_skin_depth(np.stack([x, y], 1), skin, 0.05) + 0.03)
        path = np.stack([x, y, z + 0.02 * rng.random()], 1)
        wide = rng.uniform(0.008, 0.042) * (1 - 0.85 * t**2)
        r, g, b = (appearance.colours[channel.HAIR] * rng.uniform(0.7, 1.3)).tolist()
        parts.append(make_prop(*tube(path, wide, np.array([0.0, 0, 1]), up_radius=0.3 * wide, sides=4),
                           Material((r, g, b), 0.6, 0.2, 0.4, 30)))  # fmt: skip
    return join_props(parts)

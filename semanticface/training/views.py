"""Views of faces for training the vision encoder: moved, turned, mirrored and degraded pictures with their labels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F

from semanticface.arkit import MIRROR_INDEX, mirror_pose
from semanticface.models import nano
from semanticface.rendering.types import POINTS
from semanticface.training.nano_vision import Faces, to_tensor

_ZOOM = (0.9, 1.12)  # side of a view in sides of the face's box
_SHIFT = 0.05  # standard deviation of its centre, in sides of the box
_TURN = 6.0  # standard deviation of its rotation, degrees


def _swap_sides(name: str) -> str:
    return name.replace("Left", "#").replace("Right", "Left").replace("#", "Right")


MIRROR_POINTS = np.array([POINTS.index(_swap_sides(name)) for name in POINTS])


@dataclass(frozen=True, eq=False)
class Views:
    """A batch of views.

    Attributes:
        images: float32[B, 3, 128, 128] in [-1, 1].
        coefficients: float32[B, 52].
        known: bool[B, 52], which coefficients are.
        points: float32[B, 70, 2] in [0, 1] over the view, NaN if not known.
        pose: float32[B, 9], NaN if not known.
        mirrored: bool[B].
    """

    images: torch.Tensor
    coefficients: torch.Tensor
    known: torch.Tensor
    points: torch.Tensor
    pose: torch.Tensor
    mirrored: torch.Tensor


def make_views(faces: Faces, indices: np.ndarray, rng: torch.Generator) -> Views:
    """Return one random view of each of these faces; half of them are mirrored."""
    count = len(indices)
    mirrored = (torch.rand(count, generator=rng) < 0.5).numpy()
    pixels, coefficients, known = faces.pixels[indices], faces.coefficients[indices], faces.known[indices]
    points, pose = faces.points[indices], faces.pose[indices]
    pixels = np.where(mirrored[:, None, None, None], pixels[:, :, ::-1], pixels)
    coefficients = np.where(mirrored[:, None], coefficients[:, MIRROR_INDEX], coefficients)
    known = np.where(mirrored[:, None], known[:, MIRROR_INDEX], known)
    pose = np.where(mirrored[:, None], mirror_pose(pose), pose)
    other_side = points[:, MIRROR_POINTS] * np.array([-1, 1], np.float32) + np.array([1, 0], np.float32)
    points = np.where(mirrored[:, None, None], other_side, points)

    # Of renders the shot has moved the frame already: their views are turned, and zoomed only a little.
    low, high = _ZOOM if faces.margin > 1 else (0.95, 1.05)
    zoom = torch.empty(count).uniform_(low, high, generator=rng) / faces.margin
    angle = torch.randn(count, generator=rng) * np.radians(_TURN)
    shift = torch.randn(count, 2, generator=rng) * ((_SHIFT if faces.margin > 1 else 0.02) / faces.margin)
    cos, sin = zoom * angle.cos(), zoom * angle.sin()
    # Maps view coordinates in [-1, 1] to picture coordinates in [-1, 1].
    turn = torch.stack([torch.stack([cos, -sin], 1), torch.stack([sin, cos], 1)], 1)  # [B, 2, 2]
    theta = torch.cat([turn, 2 * shift[:, :, None]], dim=2)
    grid = F.affine_grid(theta, [count, 3, nano.IMAGE_SIZE, nano.IMAGE_SIZE], align_corners=False)
    images = F.grid_sample(
        to_tensor(np.ascontiguousarray(pixels)), grid, mode="bilinear", padding_mode="border", align_corners=False
    )
    in_picture = torch.from_numpy(np.ascontiguousarray(points)) * 2 - 1 - 2 * shift[:, None]
    in_view = torch.linalg.solve(turn, in_picture.transpose(1, 2)).transpose(1, 2)
    pose_there = torch.from_numpy(np.ascontiguousarray(pose))
    # Turning the picture turns the head: content rotates against the view's rotation.
    pose_there[:, 2] -= angle
    return Views(
        augment(images, rng),
        torch.from_numpy(np.ascontiguousarray(coefficients)),
        torch.from_numpy(np.ascontiguousarray(known)),
        (in_view + 1) / 2,
        pose_there,
        torch.from_numpy(mirrored),
    )


def concat_views(parts: list[Views]) -> Views:
    """Join batches of views."""
    names = Views.__dataclass_fields__
    return Views(**{name: torch.cat([getattr(part, name) for part in parts]) for name in names})


def augment(images: torch.Tensor, rng: torch.Generator) -> torch.Tensor:
    """Vary light, colour, sharpness and occlusion of images [B, 3, H, W] in [-1, 1], in place; labels stay valid."""
    n, _, height, width = images.shape

    def uniform(low: float, high: float, *shape: int) -> torch.Tensor:
        return torch.rand(shape, generator=rng) * (high - low) + low

    def some(share: float) -> torch.Tensor:
        return (torch.rand(n, generator=rng) < share).nonzero().flatten()

    # Statistics mixing (Zhou et al. 2021, on pixels): contrast and tint become those of another picture, in part.
    mixed = some(0.3)
    mean, spread = images.mean((2, 3), keepdim=True), images.std((2, 3), keepdim=True).clamp(min=0.02)
    other = torch.randperm(n, generator=rng)[mixed]
    share = uniform(0, 1, len(mixed), 1, 1, 1)
    plain = (images[mixed] - mean[mixed]) / spread[mixed]
    to_spread, to_mean = torch.lerp(spread[mixed], spread[other], share), torch.lerp(mean[mixed], mean[other], share)
    images[mixed] = plain * to_spread + to_mean

    grey = some(0.15)
    images[grey] = images[grey].mean(1, keepdim=True)
    gain = uniform(0.6, 1.4, n, 1, 1, 1) * uniform(0.85, 1.15, n, 3, 1, 1)
    images.mul_(gain).add_(uniform(-0.3, 0.3, n, 1, 1, 1))
    soft, coarse, noisy = some(0.2), some(0.15), some(0.4)
    images[soft] = F.avg_pool2d(images[soft], 3, 1, 1, count_include_pad=False)
    images[coarse] = F.interpolate(F.avg_pool2d(images[coarse], 2), scale_factor=2.0, mode="bilinear")
    noise = torch.randn(len(noisy), 3, height, width, generator=rng)
    images[noisy] += noise * uniform(0, 0.12, len(noisy), 1, 1, 1)
    for row in some(0.2).tolist():
        top, left = int(uniform(0, height)), int(uniform(0, width))
        tall, wide = int(uniform(8, height / 3)), int(uniform(8, width / 3))
        images[row, :, top : top + tall, left : left + wide] = uniform(-1, 1, 3, 1, 1)
    return images.clamp_(-1, 1)

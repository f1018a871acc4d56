"""What subjects look like: beards with a shape, heads of one material, flat cartoons; labels stay on the face."""

from dataclasses import replace
from functools import cache

import numpy as np
import pytest

from semanticface import arkit
from semanticface.rendering import draw as drawing
from semanticface.rendering import render
from semanticface.rendering.head import channel as ch
from semanticface.rendering.head.appearance import appearance_of
from semanticface.rendering.head.rig import rig
from semanticface.rendering.shading.beard import grow_beard
from semanticface.rendering.shading.toon import toon_style


@cache
def appearances():
    return [appearance_of(subject, rig().identity(subject)) for subject in range(150)]


def is_of_one_material(appearance) -> bool:
    return np.array_equal(appearance.colours[ch.SKIN], appearance.colours[ch.LIPS])


def test_some_heads_are_of_one_material_and_their_eyes_can_be_read():
    heads = [appearance for appearance in appearances() if is_of_one_material(appearance)]
    assert 3 <= len(heads) <= 18
    for head in heads:
        assert head.hair == "bald" and head.params[ch.PORES] == head.params[ch.FRECKLES] == 0
        assert head.colours[ch.IRIS].mean() < 0.7 * head.colours[ch.SCLERA].mean()


def test_beards_are_short_and_long():
    lengths = [appearance.beard_length for appearance in appearances() if appearance.beard_length > 0]
    assert len(lengths) >= 10 and min(lengths) < 0.15 and max(lengths) > 0.3
    assert all(appearance.params[ch.BEARD] > 0 for appearance in appearances() if appearance.beard_length > 0)


def test_a_beard_hangs_from_the_chin_and_leaves_lips_and_eyes(monkeypatch):
    head = rig()
    bearded = next(appearance for appearance in appearances() if appearance.beard_length > 0.3)
    vertices = head.vertices(arkit.vector({}), head.average)
    moved = np.abs(grow_beard(vertices, bearded, head) - vertices).max(1)
    assert moved.max() > 0.15
    assert moved[head.masks[:, 0] > 0.5].max() == 0 and moved[head.base[:, 1] > 0.2].max() == 0
    assert grow_beard(vertices, replace(bearded, beard_length=0.0), head) is vertices

    pictures = []
    for length in (0.0, 0.5):
        grown = replace(bearded, beard_length=length)
        monkeypatch.setattr(drawing, "appearance_of", lambda subject, identity, grown=grown: grown)
        pictures.append(render(arkit.vector({"jawOpen": 0.4}), subject=None, shot=None, size=96, supersample=1))
    np.testing.assert_array_equal(pictures[0].points, pictures[1].points)
    np.testing.assert_array_equal(pictures[0].box, pictures[1].box)
    assert not np.array_equal(pictures[0].image, pictures[1].image)


def test_some_toons_are_flat_some_unpainted_and_blush_varies():
    styles = [toon_style(subject, rig().identity(subject)) for subject in range(60)]
    assert 5 < sum(style.light_bands[0] == -2 for style in styles) < 30
    assert 5 < sum(style.lip_strength == 0 for style in styles) < 35
    assert 10 < sum(style.appearance.params[ch.BLUSH] > 0 for style in styles) < 45


@pytest.mark.parametrize("style", ["photo", "toon"])
def test_the_same_seeds_give_the_same_bytes(style):
    subject = next(i for i, appearance in enumerate(appearances()) if appearance.beard_length > 0.3)
    first, again = (render(arkit.vector({}), style=style, subject=subject, shot=3, size=64) for _ in range(2))
    assert first.image.tobytes() == again.image.tobytes()

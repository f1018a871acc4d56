"""Render contact sheets: every action in every style, and random faces of each style.

    python data_prep/assets/contact_sheet.py --out outputs/contact

For each style, ``<style>_actions.png`` shows the plain subject at rest and with each of the 52 actions at 1
(``mouthClose`` and ``tongueOut`` with an open jaw), and ``<style>_random.png`` shows random subjects, shots and
expressions; ``looks.jpg``, the README's image, shows two rows of each; ``pose.jpg``, of docs/formats.md, what positive
rotations of head and eyes look like. Check them after every change to a style.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from semanticface import arkit
from semanticface.cli.scripts import ScriptParser
from semanticface.rendering import CONDITIONS, HELD_OUT_STYLE, STYLES, render
from semanticface.semantics.expression_sampler import sample_coefficients
from semanticface.utils.files import atomic_path
from semanticface.utils.progress import tqdm

# Actions that are only visible with another one.
NEEDS = {"mouthClose": "jawOpen", "tongueOut": "jawOpen"}


def sheet(images: list[np.ndarray], labels: list[str], columns: int) -> Image.Image:
    """Images in a grid, each with a small label."""
    size = images[0].shape[0]
    rows = -(-len(images) // columns)
    out = Image.new("RGB", (columns * size, rows * size))
    draw = ImageDraw.Draw(out)
    for k, (image, label) in enumerate(zip(images, labels, strict=True)):
        x, y = k % columns * size, k // columns * size
        out.paste(Image.fromarray(image), (x, y))
        draw.text((x + 4, y + 2), label, fill=(255, 214, 90), stroke_width=1, stroke_fill=(0, 0, 0))
    return out


def actions(style: str, size: int, subject: int | None) -> Image.Image:
    """The face at rest and with each action at 1."""
    images, labels = [], []
    for name in ("neutral", *arkit.NAMES):
        c = np.zeros(arkit.N_ACTIONS, np.float32)
        if name in arkit.INDEX:
            c[arkit.INDEX[name]] = 1
        if name in NEEDS:
            c[arkit.INDEX[NEEDS[name]]] = 0.7
        rendered = render(c, style=style, subject=subject, size=size, framing="crop")
        images.append(rendered.image)
        labels.append(f"{name} + {NEEDS[name]}" if name in NEEDS else name)
    return sheet(images, labels, 9)


def rotations(size: int) -> Image.Image:
    """The plain head with each rotation of head and left eye at a positive angle."""
    eyes = {
        "EyeYaw": {"eyeLookInLeft": 1.0, "eyeLookOutRight": 1.0},
        "EyePitch": {"eyeLookDownLeft": 1.0, "eyeLookDownRight": 1.0},
    }
    images, labels = [], []
    for number, name in enumerate(arkit.POSE_NAMES[:3]):
        pose = np.zeros(arkit.N_POSE)
        pose[number] = 0.45
        images.append(render(np.zeros(arkit.N_ACTIONS), subject=None, size=size, pose=pose).image)
        labels.append(f"{name} +0.45")
    for name, values in eyes.items():
        rendered = render(arkit.vector(values), subject=None, size=size, framing="crop")
        images.append(rendered.image)
        angle = rendered.pose[arkit.POSE_NAMES.index(f"Left{name}")]
        labels.append(f"Left{name}, Right{name} {angle:+.2f}")
    return sheet(images, labels, len(images))


def random_faces(style: str, options: argparse.Namespace, columns: int = 8) -> Image.Image:
    """Random subjects, shots and expressions."""
    images = []
    for k in range(options.seed, options.seed + options.count):
        c = sample_coefficients(np.random.default_rng([k, 1]))
        rendered = render(c, style=style, subject=k, shot=k, size=options.size, framing=options.framing,
                          conditions=options.conditions)  # fmt: skip
        images.append(rendered.image)
    return sheet(images, [""] * options.count, columns)


def main() -> None:
    parser = ScriptParser(__doc__)
    parser.add_argument("--out", type=Path, default=Path("outputs/contact"), help="folder for the PNG files")
    parser.add_argument(
        "--style", choices=(*STYLES, HELD_OUT_STYLE), action="append", help="render only this style (repeatable)"
    )
    parser.add_argument("--size", type=int, default=160, help="of one face in pixels")
    parser.add_argument("--count", type=int, default=40, help="faces on a random sheet")
    parser.add_argument("--subject", type=int, help="subject of the action sheet (default: the plain average head)")
    parser.add_argument("--seed", type=int, default=0, help="first subject and shot of the random sheet")
    parser.add_argument("--framing", choices=("portrait", "crop"), default="portrait", help="of the random sheet")
    parser.add_argument("--conditions", choices=CONDITIONS, default="usual", help="of the random sheet")
    options = parser.parse_args()
    rows = []
    for style in tqdm(options.style or (*STYLES, HELD_OUT_STYLE), desc="styles"):
        for kind in ("actions", "random"):
            if kind == "actions":
                image = actions(style, options.size, options.subject)
            else:
                image = random_faces(style, options)
                rows.append(image.crop((0, 0, image.width, min(2 * options.size, image.height))))
            target = options.out / f"{style}_{kind}.png"
            with atomic_path(target) as temporary:
                image.save(temporary)
            tqdm.write(str(target))
    with atomic_path(options.out / "pose.jpg") as temporary:
        rotations(options.size).save(temporary, quality=88)
    overview = Image.fromarray(np.concatenate([np.asarray(row) for row in rows]))
    overview = overview.resize((960, round(960 * overview.height / overview.width)), Image.Resampling.LANCZOS)
    with atomic_path(options.out / "looks.jpg") as temporary:
        overview.save(temporary, quality=88)


if __name__ == "__main__":
    main()

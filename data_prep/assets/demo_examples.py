"""Render the demo's example images and its short clip.

    python data_prep/assets/demo_examples.py

Writes to semanticface/assets/demo/examples/ (about 100 kB). Subjects and expressions were chosen by how the images look
and so that their faces are detected, not by a model's predictions; none was in the shipped model's training, whose
subjects are below ``FIRST``. The astronaut in that folder is a photograph and stays as it is.
"""

from __future__ import annotations

from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import av
import numpy as np
from PIL import Image

from semanticface import arkit, assets
from semanticface.cli.scripts import ScriptParser
from semanticface.rendering import render
from semanticface.semantics.expression_sampler import EXPRESSIONS

FIRST = 5_000_000
STILLS = (  # file, style, subject and shot (offset from FIRST), expression
    ("photo-1", "photo", 8, "open smile"),
    ("photo-2", "photo", 25, "doubt"),
    ("toon-1", "toon", 42, "laugh"),
    ("toon-2", "toon", 63, "anger"),
    ("drawn-1", "drawn", 83, "surprise"),
)
SIZE = 384
CLIP = ("smile", "surprise", "doubt", "anger")  # expressions of the clip
CLIP_SUBJECT = 5
FPS = 25
HOLD_FRAMES, MOVE_FRAMES = 10, 14


def main() -> None:
    parser = ScriptParser(__doc__)
    default = assets.path("demo/examples")
    parser.add_argument("--out", type=Path, default=default, help="output folder (default: the demo's)")
    out: Path = parser.parse_args().out
    out.mkdir(parents=True, exist_ok=True)
    for name, style, number, expression in STILLS:
        rendered = render(_vector(expression), style=style, subject=FIRST + number, shot=FIRST + number, size=SIZE)
        Image.fromarray(rendered.image).save(out / f"{name}.jpg", quality=85)
    animation = animate(CLIP, HOLD_FRAMES, MOVE_FRAMES)
    frames = [render(values, style="toon", subject=FIRST + CLIP_SUBJECT, size=256).image for values in animation]
    write_clip(out / "clip.webm", frames)
    Image.fromarray(frames[2 * (HOLD_FRAMES + MOVE_FRAMES)]).save(out / "clip.jpg", quality=85)
    for path in sorted(out.iterdir()):
        print(f"{path.name}: {path.stat().st_size / 1000:.0f} kB")


def animate(expressions: tuple[str, ...], hold: int, move: int) -> list[np.ndarray]:
    """Coefficients [52] of each frame: from rest through the expressions, each held for a while, and back."""
    stops = [np.zeros(arkit.N_ACTIONS, np.float32), *map(_vector, expressions), np.zeros(arkit.N_ACTIONS, np.float32)]
    frames = [stops[0]] * (hold // 2)
    for before, after in pairwise(stops):
        t = (np.arange(1, move + 1) / move)[:, None]
        t = t * t * (3 - 2 * t)
        frames += list(before + t * (after - before)) + [after] * hold
    return frames


def _vector(expression: str) -> np.ndarray:
    """An expression as coefficients; the right side is a little weaker, as in real faces."""
    out = np.zeros(arkit.N_ACTIONS, np.float32)
    for name, value in EXPRESSIONS[expression].items():
        if name in arkit.INDEX:
            out[arkit.INDEX[name]] = value
        else:
            base = name.removesuffix("Side")
            out[arkit.INDEX[f"{base}Left"]] = value
            if base == name:
                out[arkit.INDEX[f"{base}Right"]] = 0.85 * value
    return out


def write_clip(path: Path, frames: list[np.ndarray]) -> None:
    """Write frames as VP9, which every browser plays."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libvpx-vp9", rate=Fraction(FPS), options={"crf": "36", "b": "0"})
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = "yuv420p"
        for pixels in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, "rgb24")))
        container.mux(stream.encode())


if __name__ == "__main__":
    main()

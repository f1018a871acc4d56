"""Draw the examples that the demo offers: people, cartoons and a drawing, and a short clip.

    python data_prep/assets/demo_examples.py

They go to semanticface/assets/demo/examples/ (about 100 kB). People and expressions are named below and were chosen by
how the pictures look and so that their faces are found, not by what a model reads off them; nobody there was in the
shipped model's training, whose people have numbers below ``FIRST``. The astronaut in that folder is a photograph and
is left alone.
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
STILLS = (  # file, look, person and shot after FIRST, expression
    ("photo-1", "photo", 8, "open smile"),
    ("photo-2", "photo", 25, "doubt"),
    ("toon-1", "toon", 42, "laugh"),
    ("toon-2", "toon", 63, "anger"),
    ("drawn-1", "drawn", 83, "surprise"),
)
SIZE = 384
CLIP = ("smile", "surprise", "doubt", "anger")  # what the face of the clip goes through
CLIP_PERSON = 5
RATE = 25
HELD, MOVED = 10, 14  # frames


def main() -> None:
    """Draw everything anew."""
    parser = ScriptParser(__doc__)
    default = assets.path("demo/examples")
    parser.add_argument("--out", type=Path, default=default, help="folder (default: the demo's own)")
    out: Path = parser.parse_args().out
    out.mkdir(parents=True, exist_ok=True)
    for name, style, number, expression in STILLS:
        drawn = render(_vector(expression), style=style, subject=FIRST + number, shot=FIRST + number, size=SIZE)
        Image.fromarray(drawn.image).save(out / f"{name}.jpg", quality=85)
    played = acted(CLIP, HELD, MOVED)
    frames = [render(values, style="toon", subject=FIRST + CLIP_PERSON, size=256).image for values in played]
    write_clip(out / "clip.webm", frames)
    Image.fromarray(frames[2 * (HELD + MOVED)]).save(out / "clip.jpg", quality=85)
    for path in sorted(out.iterdir()):
        print(f"{path.name}: {path.stat().st_size / 1000:.0f} kB")


def acted(expressions: tuple[str, ...], held: int, moved: int) -> list[np.ndarray]:
    """Coefficients [52] of each frame: from rest through the expressions, each held a while, and back."""
    stops = [np.zeros(arkit.N_ACTIONS, np.float32), *map(_vector, expressions), np.zeros(arkit.N_ACTIONS, np.float32)]
    frames = [stops[0]] * (held // 2)
    for before, after in pairwise(stops):
        share = (np.arange(1, moved + 1) / moved)[:, None]
        share = share * share * (3 - 2 * share)
        frames += list(before + share * (after - before)) + [after] * held
    return frames


def _vector(expression: str) -> np.ndarray:
    """An expression's families as actions; the left side moves a little more, as in a lively face."""
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
        stream = container.add_stream("libvpx-vp9", rate=Fraction(RATE), options={"crf": "36", "b": "0"})
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = "yuv420p"
        for pixels in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, "rgb24")))
        container.mux(stream.encode())


if __name__ == "__main__":
    main()

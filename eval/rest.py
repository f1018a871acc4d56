"""Do rendered faces at rest look like people's? Eyes, lids, lips and brows, measured alike on both.

    pip install -c constraints.txt mediapipe                 # and MediaPipe's face_landmarker.task, from its pages
    python eval/rest.py PORTRAITS --task face_landmarker.task

PORTRAITS is a folder of pictures with one face each; several may be given. Faces that MediaPipe finds near-neutral,
with closed lips and seen from the front, are measured (`semanticface/evaluation/rest.py` says how), and subjects
rendered from the front with all coefficients 0. The table has mean and standard deviation of
each measure on both; `off` is the difference of the means in standard deviations of the people, `spread` the ratio of
the standard deviations, rendered to real. A good head has every `off` within 0.3 and every `spread` within 25 % of 1.

Writes `rest.png` to `--out`: rendered faces and portraits in turns, to look at. The last line is one JSON object.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from semanticface.arkit import N_ACTIONS
from semanticface.cli.scripts import ScriptParser
from semanticface.data.importers.mediapipe import FaceLandmarker
from semanticface.errors import ConfigError, SemanticFaceError
from semanticface.evaluation import people
from semanticface.evaluation.rest import MEASURES, is_at_rest, measure, statistics
from semanticface.rendering import render
from semanticface.utils.files import atomic_path
from semanticface.utils.progress import tqdm
from semanticface.vision.image_io import load_picture

TILE, COLUMNS, SHEET_FACES = 160, 8, 32


def portraits(folders: list[Path]) -> Iterator[Image.Image]:
    """Yield the pictures of folders in the order of their names."""
    for path in tqdm([path for folder in folders for path in people.portraits(folder)], desc="portraits"):
        yield load_picture(path)


def renders(count: int, first: int) -> Iterator[Image.Image]:
    """Yield rendered subjects at rest."""
    for subject in tqdm(range(first, first + count), desc="renders"):
        yield Image.fromarray(render(np.zeros(N_ACTIONS), subject=subject, size=256).image)


def measured(images: Iterator[Image.Image], landmarker: FaceLandmarker, *, select: bool) -> tuple[list[Any], list[Any]]:
    """Return the measures of the faces, and tiles of the first ones; ``select`` drops faces that move."""
    faces, tiles = [], []
    for image in images:
        found = landmarker.locate(image)
        if found is None or (select and not is_at_rest(*found)):
            continue
        points = found[0][:, :2]
        faces.append(measure(points))
        if len(tiles) < SHEET_FACES:
            centre, half = (points.min(0) + points.max(0)) / 2, np.ptp(points, 0).max() * 0.6
            tiles.append(image.crop((*(centre - half), *(centre + half))).resize((TILE, TILE)))
    return faces, tiles


def sheet(rendered: list[Image.Image], real: list[Image.Image]) -> Image.Image:
    """Rows of rendered faces and of portraits in turns."""
    rows = [tiles[k : k + COLUMNS] for k in range(0, SHEET_FACES, COLUMNS) for tiles in (rendered, real)]
    out = Image.new("RGB", (COLUMNS * TILE, len(rows) * TILE))
    for y, row in enumerate(rows):
        for x, tile in enumerate(row):
            out.paste(tile, (x * TILE, y * TILE))
    return out


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and compare; return the exit code."""
    parser = ScriptParser(__doc__)
    parser.add_argument("portraits", type=Path, nargs="+", metavar="PORTRAITS", help="folders of pictures of people")
    parser.add_argument("--task", type=Path, required=True, help="MediaPipe's face_landmarker.task")
    parser.add_argument("--count", type=int, default=200, help="subjects to render (default %(default)s)")
    parser.add_argument("--first", type=int, default=0, help="the first subject (default %(default)s)")
    parser.add_argument("--out", type=Path, default=Path("outputs/rest"), help="folder (default: %(default)s)")
    options = parser.parse_args(arguments)
    try:
        with FaceLandmarker(options.task) as landmarker:
            real, real_tiles = measured(portraits(options.portraits), landmarker, select=True)
            rendered, rendered_tiles = measured(renders(options.count, options.first), landmarker, select=False)
        if min(len(real), len(rendered)) < 2:
            raise ConfigError(f"{len(real)} portraits and {len(rendered)} renders at rest: too few to compare.")
        with atomic_path(options.out / "rest.png") as temporary:
            sheet(rendered_tiles, real_tiles).save(temporary, format="PNG")
    except SemanticFaceError as error:
        print(f"rest: {error}", file=sys.stderr)
        return 2
    theirs, ours = statistics(real), statistics(rendered)
    print(f"{len(real)} portraits at rest, {len(rendered)} renders\n")
    print(f"{'':14} {'people':>15} {'rendered':>15} {'off':>6} {'spread':>6}")
    figures = {}
    for name, what in MEASURES.items():
        (mean, sd), (our_mean, our_sd) = theirs[name], ours[name]
        figures[name] = {
            "people": [round(mean, 4), round(sd, 4)],
            "rendered": [round(our_mean, 4), round(our_sd, 4)],
            "off": round((our_mean - mean) / sd, 2),
            "spread": round(our_sd / sd, 2),
        }
        off, spread = figures[name]["off"], figures[name]["spread"]
        print(f"{name:14} {mean:7.3f} ±{sd:6.3f} {our_mean:7.3f} ±{our_sd:6.3f} {off:6} {spread:6}  {what}")
    print(f"\n{options.out / 'rest.png'}")
    print(json.dumps({"portraits": len(real), "renders": len(rendered), "measures": figures}))
    return 0


if __name__ == "__main__":
    sys.exit(main())

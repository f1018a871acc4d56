"""Render a table of coefficients on the plain head: one PNG per row, resumable, with an optional contact sheet."""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path

import numpy as np
from PIL import Image

from semanticface import __version__
from semanticface.errors import SemanticFaceError, TableError
from semanticface.formats.tables import read_coefficients
from semanticface.rendering import STYLES, render
from semanticface.utils.files import atomic_open, atomic_path
from semanticface.utils.progress import tqdm
from semanticface.vision.image_io import contact_sheet

SHEET_PICTURES = 60
_THUMBNAIL = 160


def render_table(file: Path, folder: Path, *, style: str = "photo", size: int = 256, sheet: bool = False) -> int:
    """Render each good row of a table as ``folder/NNNNNN.png``, numbered from 1; return the number of bad rows.

    A bad row is reported on standard error and, like one without a face, leaves a gap in the numbers. Existing pictures
    are kept, so the same call resumes an interrupted one.

    Args:
        file: a CSV or JSONL that ``tables.read_coefficients`` reads.
        folder: created if needed; else empty, or started by this function with the same file and settings.
        style: one of ``rendering.STYLES``.
        size: side in pixels.
        sheet: also write ``sheet.png`` with up to ``SHEET_PICTURES`` rows, evenly spread.

    Raises:
        TableError: the file is not such a table, or has no rows.
        SemanticFaceError: an unknown style, a folder with other content, or a failed write.
    """
    if style not in STYLES:
        raise SemanticFaceError(f"{style}: no such style. Choose one of {', '.join(STYLES)}.")
    rows = list(read_coefficients(file, lambda text: tqdm.write(f"semanticface: {text}", file=sys.stderr)))
    if not rows:
        raise TableError(f"{file}: no rows below the header. Give a file with coefficients.")
    _claim(folder, file, style, size)
    drawn = []
    for number, row in enumerate(tqdm(rows, unit="picture"), start=1):
        if row.lost:
            continue
        if row.coefficients is None:
            tqdm.write(f"semanticface: {row.error}", file=sys.stderr)
            continue
        target = folder / f"{number:06d}.png"
        drawn.append((target, f"{target.stem} {Path(row.label).name}"))
        if not target.exists():
            picture = render(row.coefficients, style=style, subject=None, size=size).image
            with atomic_path(target) as temporary:
                Image.fromarray(picture).save(temporary)
    if sheet and drawn:
        _write_sheet(folder / "sheet.png", drawn)
    return len(rows) - len(drawn) - sum(row.lost for row in rows)


def _claim(folder: Path, file: Path, style: str, size: int) -> None:
    """Record in the folder what it is made from, or check that the record there matches."""
    with file.open("rb") as opened:
        digest = hashlib.file_digest(opened, "sha256").hexdigest()
    recipe = json.dumps({"sha256": digest, "look": style, "size": size, "version": __version__})
    record = folder / "render.json"
    if record.is_file():
        if record.read_text(encoding="utf-8") != recipe:
            raise SemanticFaceError(
                f"{folder}: was made from another file or with other settings. Delete it or choose a new folder."
            )
        return
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise SemanticFaceError(f"{folder}: contains something else. Choose a new folder for the pictures.")
    with atomic_open(record) as out:
        out.write(recipe)


def _write_sheet(target: Path, drawn: list[tuple[Path, str]]) -> None:
    places = np.linspace(0, len(drawn) - 1, min(len(drawn), SHEET_PICTURES)).round().astype(int)
    shown = [drawn[place] for place in places]
    pixels = []
    for path, _ in shown:
        with Image.open(path, formats=("PNG",)) as picture:
            pixels.append(np.asarray(picture.convert("RGB").resize((_THUMBNAIL, _THUMBNAIL))))
    with atomic_path(target) as temporary:
        contact_sheet(pixels, [caption for _, caption in shown], columns=10).save(temporary)

"""Pages with pictures of what became of takes: one for each take, and one that lists them all.

A kept face stands beside the plain head with its coefficients: rows that found the wrong frame show at a glance.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from semanticface.data.captures.dataset import CaptureSet, TakeRecord, shard_rows
from semanticface.rendering import render
from semanticface.utils.html import Table, TableSection, write_page
from semanticface.vision.crop import Box, crop_face

PAGE = "report.html"
"""The page of all takes."""
FATES = {
    "kept": "in the dataset",
    "near duplicate": "like a face kept before it",
    "near neutral": "at rest, beyond the few that are kept",
    "no frame": "rows without a video frame of their own",
    "dropped frame": "lost by the camera, another is repeated in its place",
    "damaged frame": "cannot be decoded",
    "no face": "no face found in the frame or picture",
    "several faces": "more than one face, and nothing says whose the numbers are",
    "no picture": "missing, or not a picture that can be read",
    "bad row": "rows that cannot be read",
    "no row": "video frames without a row",
}
"""What can become of a row or frame, and what that means."""
SHOWN = {"kept": 12, "near duplicate": 6, "near neutral": 6, "no face": 6}
"""Of which there are pictures on a take's page, and how many at most."""
SIDE = 160

_ON_INDEX = 6
_MOST_STRIPS = 60
_QUALITY = 85


@dataclass(frozen=True, slots=True)
class Thumbnail:
    """One picture and, if known, its coefficients.

    Attributes:
        picture: of ``SIDE`` pixels.
        caption: a few words.
        coefficients: float32[52]; drawn beside the picture.
    """

    picture: Image.Image
    caption: str
    coefficients: np.ndarray | None = None


@dataclass(frozen=True, slots=True)
class Gallery(TableSection):
    """A section of small pictures under its tables.

    Attributes:
        pictures: in order.
        link: a page that says more, relative to this one, and what the link is called.
    """

    pictures: Sequence[Thumbnail] = ()
    link: tuple[str, str] | None = None

    def html(self) -> Iterator[str]:
        yield '<div class="card">'
        for table in self.tables:
            yield from table.html()
        columns = "grid-template-columns:repeat(auto-fill,minmax(9.5rem,1fr));max-width:none"
        yield f'<div class="pictures" style="{columns}">\n'
        for shown in self.pictures:
            images = [shown.picture]
            if shown.coefficients is not None:
                head = render(shown.coefficients, subject=None, size=SIDE, framing="crop").image
                images.append(Image.fromarray(head))
            yield f'<figure><div class="frame" style="aspect-ratio:{len(images)};grid-auto-flow:column">'
            yield "".join(_image(image, shown.caption) for image in images)
            yield f"</div><figcaption>{escape(shown.caption)}</figcaption></figure>\n"
        yield "</div>"
        if self.link:
            target, name = self.link
            anchor = f'<a href="{escape(target)}" style="color:var(--accent)">{escape(name)}</a>'
            yield f'<p class="quiet checked">{anchor}</p>'
        yield "</div>\n"


def thumbnail(picture: Image.Image, box: Box | None) -> Image.Image:
    """Return a picture's face, or the whole picture where there is none, as a square of ``SIDE`` pixels."""
    return crop_face(picture, box or Box(0, 0, *picture.size).square(), SIDE)


def write_take_page(
    path: Path,
    record: TakeRecord,
    pictures: Mapping[str, Sequence[Thumbnail]],
    labels: Mapping[str, Any] | None = None,
) -> None:
    """Write the page of one take.

    Args:
        path: the HTML file.
        record: of the take.
        pictures: by what became of them, see ``SHOWN``.
        labels: who says what the coefficients are (``picture_import.PictureSettings``); None for the app.

    Raises:
        SemanticFaceError: the system refuses to write.
    """
    counts = Table(
        ("what became of it", "rows", "that is"),
        [(fate, f"{record.counts[fate]:,}", FATES[fate]) for fate in FATES if record.counts.get(fate)],
    )
    told = f"Rows found their frames by {record.paired}." if labels is None else f"{record.paired}. {_known(labels)}"
    sections: list[TableSection] = [TableSection("Rows", [counts], told)]
    for fate, shown in pictures.items():
        if shown:
            some = "" if len(shown) == record.counts.get(fate) else f"{len(shown)} of {record.counts.get(fate, 0):,}. "
            beside = "Beside each face its coefficients on the plain head." if shown[0].coefficients is not None else ""
            sections.append(Gallery(fate.capitalize(), [], f"{some}{beside}", shown))
    if record.remarks:
        sections.append(TableSection("To be known", [Table(("remark",), [(remark,) for remark in record.remarks])]))
    facts = {"subject": record.subject, "split": record.split, "kept": f"{record.kept:,} faces"}
    subtitle = "One take of a Live Link Face capture." if labels is None else "Pictures of one person, imported."
    write_page(path, record.name, sections, subtitle=subtitle, recipe=facts)


def _known(labels: Mapping[str, Any]) -> str:
    """Return whose coefficients they are, and what of them is not known."""
    out = f"Coefficients by {labels['by']}."
    if labels.get("unknown"):
        out += f" It does not know {', '.join(labels['unknown'])}: 0 in every row, whatever the face does."
    if labels.get("weak"):
        out += f" It hardly ever sees {', '.join(labels['weak'])}."
    return out


def write_index_page(captures: CaptureSet, problems: Sequence[str]) -> None:
    """Write ``PAGE``: the takes that are there, faces of each, and what was left out as a whole.

    Raises:
        SemanticFaceError: a take's rows cannot be read, or the system refuses to write.
    """
    records = captures.records()
    fates = [fate for fate in FATES if any(record.counts.get(fate) for record in records)]
    rows = [
        (record.name, record.subject, record.split, *(f"{record.counts.get(fate, 0):,}" for fate in fates))
        for record in records
    ]
    sections: list[TableSection] = []
    if problems:
        table = Table(("left out",), [(problem,) for problem in problems])
        sections.append(TableSection("Left out", [table], "By the command that wrote this page."))
    labels = captures.recipe["settings"].get("labels")
    about = "" if labels is None else _known(labels)
    sections.append(TableSection("Takes", [Table(("take", "subject", "split", *fates), rows)], about))
    for record in records[:_MOST_STRIPS]:
        there = shard_rows(captures.shard(record))
        places = np.linspace(0, len(there) - 1, min(_ON_INDEX, len(there))).round().astype(int)
        shown = [
            Thumbnail(
                thumbnail(row["picture"].convert("RGB"), Box(*row["box"])),
                row["timecode"] or f"{row['frame']}",
                np.array(row["coefficients"], np.float32),
            )
            for row in (there[int(place)] for place in places)
        ]
        link = (f"report/{captures.page(record.key).name}", "what was kept and dropped, and why")
        sections.append(Gallery(f"{record.name}, {record.subject}", [], "", shown, link))
    people = {record.subject for record in records}
    facts = {
        "takes": str(len(records)),
        "people": str(len(people)),
        "faces": f"{sum(record.kept for record in records):,}",
    }
    what = "Live Link Face takes" if labels is None else "Pictures with coefficients"
    subtitle = f"{what} as a dataset of faces. Personal data: handle this page as you handle the pictures."
    write_page(captures.folder / PAGE, "Imported captures", sections, subtitle=subtitle, recipe=facts)


def hide(out: Path, subject: str) -> None:
    """Delete the pages that show a person, which ``tidy`` writes anew once their rows are gone.

    Raises:
        DatasetError: no dataset of captures.
    """
    captures = CaptureSet(out, None)
    (out / PAGE).unlink(missing_ok=True)
    for record in captures.records():
        if record.subject == subject:
            captures.page(record.key).unlink(missing_ok=True)


def tidy(out: Path) -> list[TakeRecord]:
    """Delete what is left of people who were forgotten, and write index and report anew; return their takes.

    Raises:
        DatasetError: no dataset of captures.
        SemanticFaceError: the system refuses to write.
    """
    captures = CaptureSet(out, None)
    gone = captures.forget_empty()
    captures.write_index(list(captures.recipe["settings"]["splits"]))
    write_index_page(captures, ())
    return gone


def _image(picture: Image.Image, label: str) -> str:
    data = BytesIO()
    picture.save(data, "JPEG", quality=_QUALITY)
    return f'<img alt="{escape(label)}" src="data:image/jpeg;base64,{base64.b64encode(data.getvalue()).decode()}">'

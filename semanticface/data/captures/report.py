"""HTML pages about imported takes: one for each take, and an index of all.

Each kept face is shown next to the plain head with its coefficients: rows paired with the wrong frame stand out.
"""

from __future__ import annotations

import base64
import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from io import BytesIO
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from PIL import Image

from semanticface.data.captures.dataset import CaptureSet, TakeRecord, shard_rows
from semanticface.rendering import render
from semanticface.utils.html import Table, TableSection, write_page
from semanticface.vision.crop import Box, crop_face

PAGE = "report.html"
"""The index page."""
STATUSES = {
    "kept": "in the dataset",
    "near duplicate": "like a face kept before it",
    "near neutral": "at rest, beyond the few that are kept",
    "no frame": "rows without a video frame of their own",
    "dropped frame": "lost by the camera, which repeated another frame",
    "damaged frame": "cannot be decoded",
    "no face": "no face found in the frame or picture",
    "several faces": "more than one face, and nothing says whose the coefficients are",
    "no picture": "missing, or not a readable picture",
    "bad row": "rows that cannot be read",
    "no row": "video frames without a row",
}
"""Every status of a row or frame, explained."""
MAX_THUMBNAILS = {"kept": 12, "near duplicate": 6, "near neutral": 6, "no face": 6}
"""Thumbnails on a take's page at most, by status; other statuses have none."""
THUMBNAIL_SIDE = 160

_INDEX_THUMBNAILS = 6  # of a take
_INDEX_TAKES = 60  # with thumbnails
_MAX_REMARKS = 20
_QUALITY = 85

T = TypeVar("T")


def evenly_spaced(items: Sequence[T], most: int) -> list[T]:
    """Return at most ``most`` of the items, evenly spaced."""
    indices = np.linspace(0, len(items) - 1, min(most, len(items))).round().astype(int)
    return [items[index] for index in indices.tolist()]


@dataclass(frozen=True, slots=True)
class Thumbnail:
    """One small image.

    Attributes:
        picture: of ``THUMBNAIL_SIDE`` pixels.
        caption: a few words.
        coefficients: float32[52]; the head is rendered from them next to the picture. None if not known.
    """

    picture: Image.Image
    caption: str
    coefficients: np.ndarray | None = None


@dataclass(frozen=True, slots=True)
class Gallery(TableSection):
    """A section with thumbnails under its tables.

    Attributes:
        pictures: in order.
        link: target of a link, relative to this page, and its text.
    """

    pictures: Sequence[Thumbnail] = ()
    link: tuple[str, str] | None = None

    def html(self) -> Iterator[str]:
        yield '<div class="card">'
        for table in self.tables:
            yield from table.html()
        columns = "grid-template-columns:repeat(auto-fill,minmax(9.5rem,1fr));max-width:none"
        yield f'<div class="pictures" style="{columns}">\n'
        for each in self.pictures:
            images = [each.picture]
            if each.coefficients is not None:
                head = render(each.coefficients, subject=None, size=THUMBNAIL_SIDE, framing="crop").image
                images.append(Image.fromarray(head))
            yield f'<figure><div class="frame" style="aspect-ratio:{len(images)};grid-auto-flow:column">'
            yield "".join(_image(image, each.caption) for image in images)
            yield f"</div><figcaption>{escape(each.caption)}</figcaption></figure>\n"
        yield "</div>"
        if self.link:
            target, name = self.link
            anchor = f'<a href="{escape(target)}" style="color:var(--accent)">{escape(name)}</a>'
            yield f'<p class="quiet checked">{anchor}</p>'
        yield "</div>\n"


def thumbnail(picture: Image.Image, box: Box | None) -> Image.Image:
    """Return the face in a picture, or the whole picture if the box is None, as a small square."""
    return crop_face(picture, box or Box(0, 0, *picture.size).square(), THUMBNAIL_SIDE)


def finish_take(
    captures: CaptureSet,
    record: TakeRecord,
    thumbnails: Mapping[str, Sequence[Thumbnail]],
    *,
    location: str,
    labels: Mapping[str, Any] | None = None,
) -> TakeRecord:
    """Write page and record of a take whose rows are written; return the record with counts and remarks tidied.

    Args:
        captures: the dataset.
        record: of the take.
        thumbnails: by status, see ``MAX_THUMBNAILS``.
        location: what the remark about further remarks begins with.
        labels: where the coefficients come from (``PictureSettings.labels``); None for the app.
    """
    remarks = record.remarks[:_MAX_REMARKS]
    if more := len(record.remarks) - len(remarks):
        remarks.append(f"{location}: {more} more remarks of this kind.")
    counts = {status: count for status, count in sorted(record.counts.items()) if count}
    record = dataclasses.replace(record, counts=counts, remarks=remarks)
    _write_take_page(captures.page(record.key), record, thumbnails, labels)
    captures.put(record)
    return record


def _write_take_page(
    path: Path,
    record: TakeRecord,
    thumbnails: Mapping[str, Sequence[Thumbnail]],
    labels: Mapping[str, Any] | None,
) -> None:
    counts = Table(
        ("status", "rows", "meaning"),
        [(status, f"{record.counts[status]:,}", STATUSES[status]) for status in STATUSES if status in record.counts],
    )
    how = f"Rows paired with frames by {record.paired}." if labels is None else f"{record.paired}. {_source(labels)}"
    sections: list[TableSection] = [TableSection("Rows", [counts], how)]
    for status in MAX_THUMBNAILS:
        if shown := thumbnails.get(status, ()):
            count = record.counts.get(status, 0)
            some = "" if len(shown) == count else f"{len(shown)} of {count:,}. "
            head = (
                "Each face next to the plain head with its coefficients." if shown[0].coefficients is not None else ""
            )
            sections.append(Gallery(status.capitalize(), [], f"{some}{head}", shown))
    if record.remarks:
        sections.append(TableSection("Remarks", [Table(("remark",), [(remark,) for remark in record.remarks])]))
    facts = {"subject": record.subject, "split": record.split, "kept": f"{record.kept:,} faces"}
    subtitle = "One take of a Live Link Face capture." if labels is None else "Pictures of one person, imported."
    write_page(path, record.name, sections, subtitle=subtitle, recipe=facts)


def _source(labels: Mapping[str, Any]) -> str:
    """Return where coefficients come from, and which actions that source lacks."""
    out = f"Coefficients by {labels['by']}."
    if labels.get("unknown"):
        out += f" It does not have {', '.join(labels['unknown'])}: 0 in every row, whatever the face does."
    if labels.get("weak"):
        out += f" It hardly ever detects {', '.join(labels['weak'])}."
    return out


def write_index_page(captures: CaptureSet, problems: Sequence[str]) -> None:
    """Write ``PAGE``: all takes with some faces of each, and the problems of the import that writes it."""
    records = captures.records()
    statuses = [status for status in STATUSES if any(record.counts.get(status) for record in records)]
    rows = [
        (record.name, record.subject, record.split, *(f"{record.counts.get(status, 0):,}" for status in statuses))
        for record in records
    ]
    sections: list[TableSection] = []
    if problems:
        table = Table(("problem",), [(problem,) for problem in problems])
        sections.append(TableSection("Left out", [table], "By the command that wrote this page."))
    labels = captures.recipe["settings"].get("labels")
    about = "" if labels is None else _source(labels)
    sections.append(TableSection("Takes", [Table(("take", "subject", "split", *statuses), rows)], about))
    for record in records[:_INDEX_TAKES]:
        faces = shard_rows(captures.shard(record))
        shown = [
            Thumbnail(
                thumbnail(row["picture"].convert("RGB"), Box(*row["box"])),
                row["timecode"] or f"{row['frame']}",
                np.array(row["coefficients"], np.float32),
            )
            for row in map(faces.__getitem__, evenly_spaced(range(len(faces)), _INDEX_THUMBNAILS))
        ]
        link = (f"report/{captures.page(record.key).name}", "what was kept and dropped, and why")
        sections.append(Gallery(f"{record.name}, {record.subject}", [], "", shown, link))
    facts = {
        "takes": str(len(records)),
        "people": str(len({record.subject for record in records})),
        "faces": f"{sum(record.kept for record in records):,}",
    }
    what = "Live Link Face takes" if labels is None else "Pictures with coefficients"
    subtitle = f"{what} as a dataset of faces. Personal data: handle this page like the pictures themselves."
    write_page(captures.folder / PAGE, "Imported captures", sections, subtitle=subtitle, recipe=facts)


def delete_pages(out: Path, subject: str) -> None:
    """Delete the pages that show a person; ``remove_empty_takes`` rewrites the index once their rows are deleted."""
    captures = CaptureSet(out, None)
    (out / PAGE).unlink(missing_ok=True)
    for record in captures.records():
        if record.subject == subject:
            captures.page(record.key).unlink(missing_ok=True)


def remove_empty_takes(out: Path) -> list[TakeRecord]:
    """Delete records and pages of takes without rows, rewrite the index and its page; return those takes.

    Raises:
        DatasetError: ``out`` is not a capture dataset.
    """
    captures = CaptureSet(out, None)
    removed = captures.forget_empty()
    captures.write_index(list(captures.recipe["settings"]["splits"]))
    write_index_page(captures, ())
    return removed


def _image(picture: Image.Image, label: str) -> str:
    data = BytesIO()
    picture.save(data, "JPEG", quality=_QUALITY)
    return f'<img alt="{escape(label)}" src="data:image/jpeg;base64,{base64.b64encode(data.getvalue()).decode()}">'

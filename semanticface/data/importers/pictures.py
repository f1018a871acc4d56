"""Import pictures with coefficients from elsewhere into a dataset of faces: find the face, crop, re-encode, write.

Pictures are grouped by person into parts of at most a thousand, each written whole or not at all, so that a stopped
import resumes. A problem with a picture is reported with its location; the others are imported and keep their numbers.
"""

from __future__ import annotations

import dataclasses
import hashlib
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
from PIL import Image

from semanticface.data.captures.admission import ImportResult, Part, import_each
from semanticface.data.captures.dataset import CaptureSet, ShardWriter, TakeRecord, shard_writer
from semanticface.data.captures.report import MAX_THUMBNAILS, Thumbnail, evenly_spaced, finish_take, thumbnail
from semanticface.data.captures.rows import CONTEXT, CaptureSettings, crop_with_context, make_row
from semanticface.data.consent import normalize_name
from semanticface.errors import PictureError, SemanticFaceError
from semanticface.semantics.analysis import Analysis
from semanticface.utils.lock import exclusive
from semanticface.utils.progress import tqdm
from semanticface.vision.crop import Box
from semanticface.vision.image_io import load_picture

PART_SIZE = 1000
"""Pictures of a part at most."""
SECOND_FACE = 0.5
"""A picture is ambiguous if a second face is at least this share as wide as the first."""


@dataclass(frozen=True, slots=True, eq=False)
class Reading:
    """What a reader finds in a crop of one face.

    Attributes:
        coefficients: float32[52] in [0, 1], 0 for actions it lacks.
        points: float32[70, 2], pixel x and y of ``rendering.types.POINTS``, NaN where not known.
        pose: float32[9], ``arkit.POSE_NAMES``.
    """

    coefficients: np.ndarray
    points: np.ndarray
    pose: np.ndarray


Reader = Callable[[Image.Image], "Reading | None"]
"""Reads the one face in a crop; None if it finds none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PictureSettings(CaptureSettings):
    """Settings that decide the rows of a dataset of pictures; ``neutral`` and what follows it apply to videos only.

    Attributes:
        labels: where the coefficients come from and which actions are missing; goes into the recipe of the dataset and
            of every model trained on it.
        crop: ``find`` the face, or ``none`` if pictures are already square crops of one face.
    """

    labels: dict[str, Any]
    crop: Literal["find", "none"] = "find"

    @property
    def context(self) -> float:
        return CONTEXT if self.crop == "find" else 1.0


@dataclass(frozen=True, slots=True, eq=False)
class LabelledImage:
    """One picture.

    Attributes:
        location: a file or a line, for messages.
        number: of the row or picture in its source, from 1.
        path: the picture's file.
        coefficients: float32[52] in [0, 1]; None if they are to be predicted from the picture.
        analysis: that came with them; None to write one.
        pose: float32[9], ``arkit.POSE_NAMES``; None if not known.
    """

    location: str
    number: int
    path: Path
    coefficients: np.ndarray | None = None
    analysis: Analysis | None = None
    pose: np.ndarray | None = None

    @property
    def name(self) -> str:
        """Location and file."""
        return self.location if self.location == str(self.path) else f"{self.location}: {self.path}"


class ImagePart(Part, Protocol):
    """A part that writes its own rows: pictures of one person, or a video."""

    def write(self, writer: ShardWriter, settings: PictureSettings, reader: Reader | None) -> PartResult: ...


@dataclass(slots=True)
class PartResult:
    """What was written of a part.

    Attributes:
        counts: pictures or frames by status, see ``report.STATUSES``.
        thumbnails: for its page, by status.
        remarks: a sentence each.
        broken: whether something broken was left out.
        paired: how pictures and coefficients belong together, in half a sentence.
    """

    counts: Counter[str] = field(default_factory=Counter)
    thumbnails: dict[str, list[Thumbnail]] = field(default_factory=lambda: defaultdict(list))
    remarks: list[str] = field(default_factory=list)
    broken: bool = False
    paired: str = ""

    def leave_out(self, status: str, why: str) -> None:
        """Note something broken that was left out."""
        self.counts[status] += 1
        self.remarks.append(why)
        self.broken = True


@dataclass(frozen=True, slots=True, eq=False)
class PicturePart:
    """Pictures of one person, or of some of a collection's people, each of whom is in one picture.

    Attributes:
        name: for messages and pages.
        key: base name of its files.
        subject: who is in them, or ``COLLECTION#GROUP``.
        state: hash of the pictures and their coefficients.
        items: the pictures.
        paired: how pictures and coefficients belong together.
        problems: a sentence for each row of this person without a usable picture.
    """

    name: str
    key: str
    subject: str
    state: int
    items: Sequence[LabelledImage]
    paired: str
    problems: Sequence[str] = ()

    def write(self, writer: ShardWriter, settings: PictureSettings, reader: Reader | None) -> PartResult:
        """Write the rows of all usable pictures."""
        out = PartResult(paired=self.paired)
        for problem in self.problems:
            out.leave_out("bad row", problem)
        with_thumbnail = set(evenly_spaced(range(len(self.items)), MAX_THUMBNAILS["kept"]))
        for index, item in enumerate(tqdm(self.items, desc=self.name, unit="picture", leave=False)):
            try:
                picture = load_picture(item.path, name=item.name)
            except PictureError as error:
                out.leave_out("no picture", str(error))
                continue
            face, status, why = select_face(picture, settings.crop)
            if face is None:
                out.leave_out(status, f"{item.location}: {why}. Left out.")
                if status == "no face":  # several faces may be of people who were never asked
                    _add_no_face(out, picture, item)
                continue
            crop, box = crop_with_context(picture, face, settings.size, settings.context)
            values, pose, points = item.coefficients, item.pose, None
            if reader is not None:
                reading = reader(crop)
                if reading is not None:
                    values, pose, points = reading.coefficients, reading.pose, reading.points
            if values is None:
                out.leave_out(
                    "no face", f"{item.location}: {settings.labels['by']} finds no face in the crop. Left out."
                )
                _add_no_face(out, picture, item)
                continue
            writer.add(
                make_row(
                    crop,
                    box,
                    values,
                    subject=f"{self.subject}-{item.number:04d}" if "#" in self.subject else self.subject,
                    take=self.key,
                    frame=item.number,
                    emotion=settings.emotion,
                    pose=pose,
                    points=points,
                    analysis=item.analysis,
                )
            )
            out.counts["kept"] += 1
            if index in with_thumbnail:
                out.thumbnails["kept"].append(Thumbnail(thumbnail(picture, face), item.path.name, values))
        return out


def select_face(picture: Image.Image, crop: str) -> tuple[Box | None, str, str]:
    """Return the box of the face that coefficients are about; else None, the picture's status and the reason."""
    if crop == "none":
        return Box(0, 0, *picture.size).square(), "", ""
    faces = _detect_faces(picture)
    if not faces:
        return None, "no face", "no face found"
    count = sum(face.width >= SECOND_FACE * faces[0].width for face in faces[1:])
    if count:
        return None, "several faces", f"{1 + count} faces found, and nothing says whose the coefficients are"
    return faces[0], "", ""


def _detect_faces(picture: Image.Image) -> list[Box]:
    from semanticface.vision.face_detector import detect_faces

    return detect_faces(picture)


def _add_no_face(out: PartResult, picture: Image.Image, item: LabelledImage) -> None:
    if len(out.thumbnails["no face"]) < MAX_THUMBNAILS["no face"]:
        out.thumbnails["no face"].append(Thumbnail(thumbnail(picture, None), item.path.name))


def parse_subject(value: object) -> str:
    """Return the person that a cell names, who may be a number; empty if it names nobody."""
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    return normalize_name(value) if isinstance(value, str) else ""


def group_by_person(
    source: Path, items: Mapping[str, Sequence[LabelledImage]], bad: Mapping[str, Sequence[str]]
) -> list[PicturePart]:
    """Split each person's pictures into parts of at most ``PART_SIZE``, in order.

    Args:
        source: the table or folder.
        items: of each person.
        bad: of each person, the problems with further rows.
    """
    out = []
    for who in dict.fromkeys([*items, *bad]):
        theirs = items.get(who, ())
        count = max(1, -(-len(theirs) // PART_SIZE))
        for index in range(count):
            inside = theirs[index * PART_SIZE : (index + 1) * PART_SIZE]
            number = f" {index + 1:04d}" if count > 1 else ""
            out.append(
                PicturePart(
                    name=f"{source.name}{number}",
                    key=part_key(f"{source.stem}-{who}{number}", f"{source.resolve()}\n{who}\n{index}"),
                    subject=who,
                    state=hash_state(*map(_state, inside)),
                    items=inside,
                    paired="Each picture is the one that its row names" if source.is_file() else "Pictures of a folder",
                    problems=bad.get(who, ()) if index == 0 else (),
                )
            )
    return out


def _state(item: LabelledImage) -> str:
    try:
        status = item.path.stat()
        file = f"{status.st_size} {status.st_mtime_ns}"
    except (OSError, ValueError):
        file = "missing"
    values = "" if item.coefficients is None else item.coefficients.tolist()
    return f"{item.number} {item.path} {file} {values}"


def part_key(name: str, source: str) -> str:
    """Return a readable file name that differs between sources."""
    slug = re.sub(r"[^A-Za-z0-9_-]+", "-", name).strip("-")[:60] or "part"
    return f"{slug}-{hashlib.sha256(source.encode(errors='surrogateescape')).hexdigest()[:8]}"


def hash_state(*parts: str) -> int:
    """Return a 48-bit number that differs between states of files."""
    text = "\n".join(parts).encode(errors="surrogateescape")
    return int.from_bytes(hashlib.sha256(text).digest()[:6], "big")


def import_parts(
    parts: Sequence[ImagePart],
    out: Path,
    settings: PictureSettings,
    *,
    problems: Sequence[str] = (),
    reader: Reader | None = None,
    consent: Path | None = None,
    assign: Mapping[str, str] | None = None,
    log: Callable[[str], None] = print,
) -> ImportResult:
    """Import parts into a dataset, new or started by this function with the same settings.

    Args:
        parts: each of one person.
        out: folder of the dataset.
        settings: which rows to write.
        problems: with what could not become a part.
        reader: predicts the coefficients of parts that have none.
        consent: the consent list; by default the one in ``out``. It is copied there.
        assign: people to put into a given split, whatever the hash says.
        log: receives a line per part.

    Raises:
        ConfigError: there is no consent list (the message contains a template), or it cannot be read.
        DatasetError: ``out`` holds something else or was started with other settings.
        SemanticFaceError: nothing can be written. Finished parts stay, and the same call resumes.
    """
    with exclusive(out):
        captures = CaptureSet(out, dataclasses.asdict(settings))
        return import_each(
            captures,
            parts,
            lambda part, split: _import_part(captures, part, split, settings, reader),
            settings.splits,
            consent=consent,
            assign=assign or {},
            problems=problems,
            log=log,
        )


def _import_part(
    captures: CaptureSet, part: ImagePart, split: str, settings: PictureSettings, reader: Reader | None
) -> TakeRecord:
    with shard_writer(captures.folder / split / f"take-{part.key}.arrow") as writer:
        result = part.write(writer, settings, reader)
        if not result.counts["kept"]:
            counts = ", ".join(f"{count:,} {status}" for status, count in result.counts.most_common())
            why = f": {counts}; {result.remarks[-1]}" if result.remarks else ""
            raise SemanticFaceError(f"{part.name}: no face left to import{why}")
    record = TakeRecord(
        part.key,
        part.name,
        part.subject,
        split,
        part.state,
        result.counts,
        result.paired,
        result.remarks,
        result.broken,
    )
    return finish_take(captures, record, result.thumbnails, location=part.name, labels=settings.labels)

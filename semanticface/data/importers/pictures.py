"""Pictures with coefficients from elsewhere to a dataset of faces: find, crop, encode anew, write; part by part.

What comes in is a list of ``Source``: pictures of one person, from a folder, a table or a video. They are put into a
``CaptureSet`` a thousand at a time, each part whole or not there, so that a run that was stopped goes on. Consent,
splits by person, pages and forgetting are those of captures. What is wrong with a picture is said with its place; the
others go on, and keep their numbers.
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

from semanticface import arkit
from semanticface.data.captures.dataset import CaptureSet, ShardWriter, TakeRecord, shard_writer
from semanticface.data.captures.importer import Imported, ended, refusal, splits_for, take_consent
from semanticface.data.captures.report import PAGE, SHOWN, Thumbnail, thumbnail, write_index_page, write_take_page
from semanticface.data.captures.take import CONTEXT, SMALLEST, check_kept
from semanticface.data.consent import LOOK, plain_name
from semanticface.errors import PictureError, SemanticFaceError
from semanticface.semantics.analysis import Analysis, describe
from semanticface.semantics.answer import format_answer
from semanticface.utils.progress import tqdm
from semanticface.vision.crop import Box, crop_face, to_crop
from semanticface.vision.image_io import encode_jpeg, load_picture

AT_ONCE = 1000
"""Pictures of a part."""
RIVAL = 0.5
"""A second face is in the way where it is at least this share as wide as the first."""

_MOST_REMARKS = 20
_STILL = np.zeros(len(arkit.POSE_NAMES), np.float32)

Reader = Callable[[Image.Image], "np.ndarray | None"]
"""Reads the coefficients of the one face in a crop, float32[52] in [0, 1]; None where it sees none."""


@dataclass(frozen=True, slots=True)
class PictureSettings:
    """What decides the rows of a dataset of pictures.

    Attributes:
        labels: who says what the coefficients are, and what of them is not known; goes into the recipe of the dataset
            and of every model made with it.
        size: side of the pictures in pixels at most; smaller faces are not enlarged.
        crop: ``find`` the face, or ``none`` where pictures are square crops of one face already.
        neutral, keep_neutral, apart: of videos, see ``capture_take.ImportSettings``; pictures are all kept.
        splits: share of each split, by name.
        emotion: whether answers carry an emotional implication.
    """

    labels: dict[str, Any]
    size: int = 512
    crop: Literal["find", "none"] = "find"
    neutral: float = 0.15
    keep_neutral: int = 5
    apart: float = 0.1
    splits: dict[str, float] = field(default_factory=lambda: {"train": 0.8, "validation": 0.1, "test": 0.1})
    emotion: bool = True

    def __post_init__(self) -> None:
        check_kept(self.size, self.neutral, self.keep_neutral, self.apart, self.splits)


@dataclass(frozen=True, slots=True, eq=False)
class Labelled:
    """One picture.

    Attributes:
        place: where it stands, for messages: a file, a line.
        number: of the row or picture in what it came from, from 1.
        picture: its file.
        coefficients: float32[52] in [0, 1]; None where they are to be read from the picture.
        analysis: words that came with them; None to write some.
        pose: float32[9], ``arkit.POSE_NAMES``; None where not known.
    """

    place: str
    number: int
    picture: Path
    coefficients: np.ndarray | None = None
    analysis: Analysis | None = None
    pose: np.ndarray | None = None

    @property
    def name(self) -> str:
        """Where it stands and which file it is."""
        file = str(self.picture)
        return file if self.place == file else f"{self.place}: {file}"


class Part(Protocol):
    """What becomes one file of the dataset: pictures of one person, or a video."""

    @property
    def name(self) -> str: ...
    @property
    def key(self) -> str: ...
    @property
    def subject(self) -> str: ...
    @property
    def mark(self) -> int: ...
    def write(self, writer: ShardWriter, settings: PictureSettings, reader: Reader | None) -> Outcome: ...


@dataclass(slots=True)
class Outcome:
    """What became of a part.

    Attributes:
        fates: how many of what, see ``capture_report.FATES``.
        shown: pictures for its page.
        remarks: what is to be known, a sentence each.
        broken: whether something was left out that should not have to be.
        told: how pictures and coefficients belong together, in half a sentence.
    """

    fates: Counter[str] = field(default_factory=Counter)
    shown: dict[str, list[Thumbnail]] = field(default_factory=lambda: defaultdict(list))
    remarks: list[str] = field(default_factory=list)
    broken: bool = False
    told: str = ""

    def miss(self, fate: str, why: str) -> None:
        """Note something that was left out because it is broken."""
        self.fates[fate] += 1
        self.remarks.append(why)
        self.broken = True


@dataclass(frozen=True, slots=True, eq=False)
class Pictures:
    """Pictures of one person, a ``Part``.

    Attributes:
        name: what to call them.
        key: names their files.
        subject: who is in them.
        mark: tells these pictures from others of the same key.
        items: the pictures.
        told: how pictures and coefficients belong together.
        problems: of rows that belong here and hold no picture, a sentence each.
    """

    name: str
    key: str
    subject: str
    mark: int
    items: Sequence[Labelled]
    told: str
    problems: Sequence[str] = ()

    def write(self, writer: ShardWriter, settings: PictureSettings, reader: Reader | None) -> Outcome:
        """Write what can be used of the pictures."""
        out = Outcome(told=self.told)
        for problem in self.problems:
            out.miss("bad row", problem)
        shown = set(np.linspace(0, len(self.items) - 1, min(SHOWN["kept"], len(self.items))).round().astype(int))
        bar = tqdm(self.items, desc=self.name, unit="picture", leave=False)
        for place, item in enumerate(bar):
            try:
                picture = load_picture(item.picture, name=item.name)
            except PictureError as error:
                out.miss("no picture", str(error))
                continue
            box, fate, why = face_in(picture, settings.crop)
            if box is None:
                out.miss(fate, f"{item.place}: {why}. Left out.")
                if fate == "no face":  # several may be people who were never asked
                    _show(out, picture, item)
                continue
            crop, corners = cropped(picture, box, settings)
            values = item.coefficients if reader is None else reader(crop)
            if values is None:
                out.miss("no face", f"{item.place}: {settings.labels['by']} sees no face in the crop. Left out.")
                _show(out, picture, item)
                continue
            writer.add(row_of(crop, corners, values, self, settings, number=item.number, item=item))
            out.fates["kept"] += 1
            if place in shown:
                out.shown["kept"].append(Thumbnail(thumbnail(picture, box), item.picture.name, values))
        return out


def face_in(picture: Image.Image, crop: str) -> tuple[Box | None, str, str]:
    """Return the box of the face that numbers are about; else what became of the picture, and why."""
    if crop == "none":
        return Box(0, 0, *picture.size).square(), "", ""
    faces = _detect_faces(picture)
    if not faces:
        return None, "no face", "no face found"
    rivals = [face for face in faces[1:] if face.width >= RIVAL * faces[0].width]
    if rivals:
        return None, "several faces", f"{1 + len(rivals)} faces found, and nothing says whose the numbers are"
    return faces[0], "", ""


def _detect_faces(picture: Image.Image) -> list[Box]:
    from semanticface.vision.face_detector import detect_faces

    return detect_faces(picture)


def cropped(picture: Image.Image, box: Box, settings: PictureSettings) -> tuple[Image.Image, np.ndarray]:
    """Return the picture that is kept, and the box of the face in it, float32[4]."""
    window = box.square(CONTEXT if settings.crop == "find" else 1.0)
    side = min(settings.size, max(SMALLEST, round(window.width)))
    corners = to_crop(np.array([[box.x0, box.y0], [box.x1, box.y1]]), window, side)
    return crop_face(picture, window, side), corners.ravel().astype(np.float32)


def row_of(
    crop: Image.Image,
    corners: np.ndarray,
    values: np.ndarray,
    part: Part,
    settings: PictureSettings,
    *,
    number: int,
    item: Labelled | None = None,
    timecode: str = "",
) -> dict[str, Any]:
    """Return a row of the dataset."""
    # Stage I reads the numbers as the answer shows them, so that words and digits never disagree.
    shown = np.round(values, 2)
    words = _words(shown, item.analysis if item else None, settings.emotion)
    pose = item.pose if item is not None and item.pose is not None else _STILL
    return {
        "picture": encode_jpeg(crop),
        "coefficients": values,
        "subject": part.subject,
        "look": LOOK,
        "answer": format_answer(shown, words),
        "box": corners,
        "pose": pose,
        "take": part.key,
        "timecode": timecode,
        "frame": number,
    }


def _words(values: np.ndarray, given: Analysis | None, emotion: bool) -> Analysis:
    """Return the words that came with the numbers, with an emotional implication or without as wanted; else ours."""
    if given is None or (emotion and given.emotional_implication is None):
        return describe(values, emotion=emotion)
    return given if emotion else dataclasses.replace(given, emotional_implication=None)


def _show(out: Outcome, picture: Image.Image, item: Labelled) -> None:
    if len(out.shown["no face"]) < SHOWN["no face"]:
        out.shown["no face"].append(Thumbnail(thumbnail(picture, None), item.picture.name))


def person(value: object) -> str:
    """Return who a cell names; some datasets have numbers for names. Empty where it names nobody."""
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    return plain_name(value) if isinstance(value, str) else ""


def parts_of(origin: Path, items: Mapping[str, Sequence[Labelled]], bad: Mapping[str, Sequence[str]]) -> list[Pictures]:
    """Group the pictures of a table or folder by person, at most ``AT_ONCE`` a part, each person's in their order.

    Args:
        origin: the table or folder.
        items: of each person.
        bad: what is wrong with further rows of each person, a sentence each.
    """
    out = []
    for who in dict.fromkeys([*items, *bad]):
        theirs = items.get(who, ())
        count = max(1, -(-len(theirs) // AT_ONCE))
        for place in range(count):
            inside = theirs[place * AT_ONCE : (place + 1) * AT_ONCE]
            number = f" {place + 1:04d}" if count > 1 else ""
            out.append(
                Pictures(
                    name=f"{origin.name}{number}",
                    key=key_of(f"{origin.stem}-{who}{number}", f"{origin.resolve()}\n{who}\n{place}"),
                    subject=who,
                    mark=mark_of(*map(_state, inside)),
                    items=inside,
                    told="Each picture is the one that its row names" if origin.is_file() else "Pictures of a folder",
                    problems=bad.get(who, ()) if place == 0 else (),
                )
            )
    return out


def _state(item: Labelled) -> str:
    try:
        status = item.picture.stat()
        file = f"{status.st_size} {status.st_mtime_ns}"
    except (OSError, ValueError):
        file = "missing"
    values = "" if item.coefficients is None else item.coefficients.tolist()
    return f"{item.number} {item.picture} {file} {values}"


def key_of(name: str, origin: str) -> str:
    """Return what names the files of a part: readable, and another one for another origin."""
    slug = re.sub(r"[^A-Za-z0-9_-]+", "-", name).strip("-")[:60] or "part"
    return f"{slug}-{hashlib.sha256(origin.encode(errors='surrogateescape')).hexdigest()[:8]}"


def mark_of(*parts: str) -> int:
    """Return a number that tells one state of files from another."""
    told = "\n".join(parts).encode(errors="surrogateescape")
    return int.from_bytes(hashlib.sha256(told).digest()[:6], "big")


def import_parts(
    parts: Sequence[Part],
    out: Path,
    settings: PictureSettings,
    *,
    problems: Sequence[str] = (),
    reader: Reader | None = None,
    consent: Path | None = None,
    assign: Mapping[str, str] | None = None,
    say: Callable[[str], None] = print,
) -> Imported:
    """Bring parts into a dataset, new or begun by this function with the same settings.

    Args:
        parts: each of one person.
        out: the folder of the dataset.
        settings: what decides its rows.
        problems: what is wrong with parts that are not there at all.
        reader: reads coefficients, of parts that have none.
        consent: the list of who agreed to what; by default the one in ``out``. It is copied there.
        assign: people to put into a split by name, whatever the hash says.
        say: is told a line for each part.

    Raises:
        ConfigError: no consent list, or one that cannot be read; it shows one to be filled in.
        DatasetError: ``out`` holds something else or was begun with other settings.
        SemanticFaceError: the system refuses to write. What was there stays, and the same call goes on.
    """
    captures = CaptureSet(out, dataclasses.asdict(settings))
    wrong = list(problems)
    people = sorted({part.subject for part in parts})
    permissions = take_consent(out, consent, people)
    splits = splits_for(captures, set(people), settings.splits, assign or {})
    (out / PAGE).unlink(missing_ok=True)  # written last: without it something is not finished
    for gone in captures.forget_empty():
        say(f"{gone.name}: {gone.subject} was forgotten; its page is deleted")
    for why in ended(captures, permissions):
        say(f"{why}. Delete their faces: semanticface forget SUBJECT {out}")
    there = {record.key: record for record in captures.records()}
    records: list[TakeRecord] = []
    fresh: set[str] = set()
    refused: set[str] = set()
    for part in parts:
        if why := refusal(part.name, part.subject, splits, permissions):
            if part.subject not in refused:
                wrong.append(why)
            refused.add(part.subject)
            continue
        record = there.get(part.key)
        if record is not None and (record.subject, record.split, record.film_bytes) == (
            part.subject, splits[part.subject], part.mark,
        ):  # fmt: skip
            say(f"{part.name}: there already, {record.kept:,} faces of {record.subject} in {record.split}")
        else:
            try:
                record = _import_part(captures, part, splits[part.subject], settings, reader)
            except SemanticFaceError as error:
                wrong.append(str(error))
                continue
            fresh.add(record.key)
            left = ", ".join(f"{count:,} {fate}" for fate, count in record.counts.items() if fate != "kept")
            kept = f"{record.kept:,} faces of {record.subject} kept in {record.split}"
            say(f"{part.name}: {kept} (left: {left or 'nothing'})")
        records.append(record)
    rows = captures.write_index(list(settings.splits))
    write_index_page(captures, wrong)
    return Imported(records, fresh, wrong, rows)


def _import_part(
    captures: CaptureSet, part: Part, split: str, settings: PictureSettings, reader: Reader | None
) -> TakeRecord:
    with shard_writer(captures.folder / split / f"take-{part.key}.arrow") as writer:
        outcome = part.write(writer, settings, reader)
        if not outcome.fates["kept"]:
            told = ", ".join(f"{count:,} {fate}" for fate, count in outcome.fates.most_common())
            why = f": {told}; {outcome.remarks[-1]}" if outcome.remarks else ""
            raise SemanticFaceError(f"{part.name}: nothing of it is left{why}")
    remarks = outcome.remarks
    if len(remarks) > _MOST_REMARKS:
        remarks = [*remarks[:_MOST_REMARKS], f"{part.name}: {len(remarks) - _MOST_REMARKS} more remarks of this kind."]
    counts = {fate: count for fate, count in sorted(outcome.fates.items()) if count}
    record = TakeRecord(
        part.key, part.name, part.subject, split, part.mark, counts, outcome.told, remarks, outcome.broken
    )
    pictures = {fate: outcome.shown.get(fate, []) for fate in SHOWN}
    write_take_page(captures.page(part.key), record, pictures, settings.labels)
    captures.put(record)
    return record

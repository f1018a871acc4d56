"""Convert recordings to Live Link Face CSV, our JSONL, our CSV, or an animated glTF head."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from itertools import chain
from pathlib import Path

import numpy as np

from semanticface import arkit
from semanticface.errors import SemanticFaceError, TableError
from semanticface.formats import live_link, tables
from semanticface.formats.live_link import LiveLinkRow
from semanticface.formats.recording import PROGRESS_DELAY, RecordedFrame, TimecodeLabels, read
from semanticface.formats.recording import track as read_track
from semanticface.utils.progress import tqdm
from semanticface.vision.timecode import parse

FORMATS = {"livelink": (".csv",), "jsonl": (".jsonl",), "csv": (".csv",), "glb": (".glb", ".vrm")}
"""Output formats and their file suffixes."""


@dataclass(slots=True)
class Counts:
    """Number of rows read, and of rows that could not be written."""

    rows: int = 0
    failed: int = 0


def format_of(out: Path) -> str:
    """Return the format that an output file's name asks for: the first of ``FORMATS`` with its suffix.

    Raises:
        SemanticFaceError: no format has it.
    """
    for form, suffixes in FORMATS.items():
        if out.suffix.lower() in suffixes:
            return form
    known = ", ".join(dict.fromkeys(suffix for suffixes in FORMATS.values() for suffix in suffixes))
    raise SemanticFaceError(f"{out}: its name says no format. End it in one of {known}, or add --to.")


def check_output_name(out: Path, form: str) -> None:
    """Check that an output file has a suffix of the format and is not a folder."""
    suffixes = FORMATS[form]
    if out.suffix.lower() not in suffixes:
        raise SemanticFaceError(f"{out}: files of the format {form} end in {' or '.join(suffixes)}. Rename it.")
    if out.is_dir():
        raise SemanticFaceError(f"{out}: is a folder. Choose another name for the output.")


def convert(
    source: Path,
    out: Path,
    form: str,
    fps: Fraction | None,
    warn: Callable[[str], None],
    avatar: Path | None = None,
    *,
    note: tables.Note,
) -> Counts:
    """Convert a recording to one of ``FORMATS`` atomically.

    Invalid rows are kept in JSONL and CSV and omitted from a Live Link CSV; an animation interpolates over them.

    Args:
        source: a file for ``recording.read``.
        out: output file.
        form: output format.
        fps: rows per second without timecodes (30), or the timecode rate for an animation; see ``recording.track``.
        warn: called with a message for each invalid row.
        avatar: .glb or .vrm to animate instead of the project's head.
        note: called with what is worth knowing: of the source as in ``recording.read``, actions and bones missing
            in an avatar.

    Raises:
        TableError: the source is not a recording, or has no usable row.
        SemanticFaceError: an unusable avatar, or a failed write.
    """
    counts = Counts()
    if form == "glb":
        from semanticface.formats.gltf_head import write_head
        from semanticface.formats.retarget import write_avatar

        def count(text: str) -> None:
            counts.failed += 1
            warn(text)

        track = read_track(source, fps, count, note)
        counts.rows = track.total
        if avatar is None:
            write_head(out, track, source.stem)
        else:
            unmoved = write_avatar(out, avatar, track, source.stem, note)
            if unmoved.actions:
                number = f"{len(unmoved.actions)} of {arkit.N_ACTIONS} actions"
                note(f"{avatar}: no morph target for {', '.join(unmoved.actions)} ({number}). They do not show.")
            if unmoved.bones:
                note(f"{avatar}: no bone for the {', the '.join(unmoved.bones)}. Recorded rotations do not show there.")
        return counts
    frames = _count_rows(source, counts, warn, note)
    first = next(frames, None)
    if first is None:
        raise TableError(f"{source}: no rows below the header. Give a file with coefficients.")
    frames = chain([first], frames)
    if form == "livelink":
        live_link.write(out, _live_link_rows(frames, source, fps, counts, warn))
    else:
        tables.write(out, frames)
    return counts


def _count_rows(
    source: Path, counts: Counts, warn: Callable[[str], None], note: tables.Note
) -> Iterator[RecordedFrame]:
    for frame in tqdm(read(source, note), unit="row", delay=PROGRESS_DELAY, leave=False):
        counts.rows += 1
        if frame.failed:
            counts.failed += 1
            warn(frame.reason)
        yield frame


def _live_link_rows(
    frames: Iterator[RecordedFrame],
    source: Path,
    fps: Fraction | None,
    counts: Counts,
    warn: Callable[[str], None],
) -> Iterator[LiveLinkRow]:
    labels = TimecodeLabels(fps)
    no_pose = np.zeros(arkit.N_POSE)
    written = 0
    for frame in frames:
        if frame.values is None:
            continue
        try:
            timecode = labels.label(frame, counts.rows - 1)
            if parse(timecode) is None:
                raise TableError(f"line {frame.line}: {timecode!r} is not a timecode. Write HH:MM:SS:FF.fff.")
        except TableError as error:
            counts.failed += 1
            warn(f"{source}, {error}")
            continue
        written += 1
        yield LiveLinkRow(timecode, frame.values, no_pose if frame.pose is None else frame.pose)
    if not written:
        raise TableError(f"{source}: no row with coefficients. Give another file.")

"""Recordings from one form into another: Live Link Face CSV, our JSONL, our CSV, an animated head as glTF."""

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
"""What can be written, and how its files may be called."""


@dataclass(slots=True)
class Counts:
    """How many rows were read, and how many of them could not be written out."""

    rows: int = 0
    failed: int = 0


def check_output_name(out: Path, form: str) -> None:
    """See that a file's name fits what goes into it.

    Raises:
        SemanticFaceError: another suffix than the form's, or the name of a folder.
    """
    suffixes = FORMATS[form]
    if out.suffix.lower() not in suffixes:
        raise SemanticFaceError(f"{out}: a file of the form {form} ends in {' or '.join(suffixes)}. Rename it.")
    if out.is_dir():
        raise SemanticFaceError(f"{out}: is a folder. Choose another name for the output.")


def convert(
    source: Path,
    out: Path,
    form: str,
    fps: Fraction | None,
    complain: Callable[[str], None],
    avatar: Path | None = None,
) -> Counts:
    """Write a recording in one of ``FORMATS``; the file appears only when it is complete.

    A bad row keeps its place in JSONL and CSV, and has no row in a Live Link CSV, where its timecode is missing; an
    animation goes from the row before it to the one after.

    Args:
        source: what ``recording.read`` reads.
        out: see ``FORMATS``.
        form: which of them.
        fps: rows a second of a recording without timecodes (30), or, for an animation, frames a second in which its
            timecodes count; *optional*, see ``recording.track``.
        complain: is told of each bad row, and of actions that an avatar lacks, in a sentence.
        avatar: .glb or .vrm to animate in place of the plain head; *optional*.

    Raises:
        TableError: the source is no recording, or no row of it can be used.
        SemanticFaceError: an avatar that cannot be used, or no room to write.
    """
    counts = Counts()
    if form == "glb":
        from semanticface.formats.gltf_head import write_head
        from semanticface.formats.retarget import write_avatar

        def count(text: str) -> None:
            counts.failed += 1
            complain(text)

        track = read_track(source, fps, count)
        counts.rows = len(track.times) + counts.failed
        if avatar is None:
            write_head(out, track, source.stem)
        elif missing := write_avatar(out, avatar, track, source.stem):
            number = f"{len(missing)} of {arkit.N_ACTIONS} actions"
            complain(f"{avatar}: no morph target for {', '.join(missing)} ({number}). They do not show.")
        return counts
    moments = _watched(source, counts, complain)
    first = next(moments, None)
    if first is None:
        raise TableError(f"{source}: no rows below the header. Give a file with coefficients.")
    moments = chain([first], moments)
    if form == "livelink":
        live_link.write(out, _take(moments, source, fps, counts, complain))
    else:
        tables.write(out, moments)
    return counts


def _watched(source: Path, counts: Counts, complain: Callable[[str], None]) -> Iterator[RecordedFrame]:
    for moment in tqdm(read(source), unit="row", delay=PROGRESS_DELAY, leave=False):
        counts.rows += 1
        if moment.status != "ok":
            counts.failed += 1
            complain(moment.reason)
        yield moment


def _take(
    moments: Iterator[RecordedFrame],
    source: Path,
    fps: Fraction | None,
    counts: Counts,
    complain: Callable[[str], None],
) -> Iterator[LiveLinkRow]:
    labels = TimecodeLabels(fps)
    still = np.zeros(len(arkit.POSE_NAMES))
    for moment in moments:
        if moment.values is None:
            continue
        try:
            timecode = labels.label(moment, counts.rows - 1)
            if parse(timecode) is None:
                raise TableError(f"line {moment.line}: {timecode!r} is not a timecode. Write HH:MM:SS:FF.fff.")
        except TableError as error:
            counts.failed += 1
            complain(f"{source}, {error}")
            continue
        yield LiveLinkRow(timecode, moment.values, still if moment.pose is None else moment.pose)
    if counts.failed == counts.rows:
        raise TableError(f"{source}: no row with coefficients. Give a file that has some.")

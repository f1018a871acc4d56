"""Find Live Link Face takes on disk: in folders of any depth, zipped or not.

The app saves a take as a folder with ``<Slate>_<Take>_<Subject>.csv`` (a calibrated take has three: ``…_cal.csv``,
``…_raw.csv`` and ``…_neutral.csv``), a ``.mov`` of the same name, ``take.json``, ``frame_log.csv``,
``video_metadata.json`` and a thumbnail. Only the tables, the video, ``take.json`` and the frame log are read.

Archives are not trusted: members are unpacked under our own names, sizes are capped and counted while unpacking, and
unpacked files are deleted after use.
"""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import stat
import tempfile
import zipfile
import zlib
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from semanticface.errors import SemanticFaceError
from semanticface.vision import video_reader

MAX_FILES = 100_000
"""In one folder or archive."""
MAX_TEXT = 2**30
"""Bytes of one CSV or JSON."""
MAX_VIDEO = 2**36
"""Bytes of one video, 64 GiB."""
MAX_RATIO = 100
"""Unpacked bytes per packed byte: takes reach 20, zip bombs a thousand."""

FRAME_LOG = "frame_log.csv"
TAKE_JSON = "take.json"
_TEXT = (".csv", ".json")
_PARTS = ("_cal", "_raw", "_neutral")
_NAMED = re.compile(r".+_\d+_(?P<subject>.+)")
_BLOCK = 2**20
_HEAD = 64  # bytes that identify a Live Link CSV


class ArchiveError(SemanticFaceError):
    """A ZIP that cannot be read or is not safe to unpack."""


@dataclass(frozen=True, slots=True)
class Stored:
    """A file, on its own or in a ZIP.

    Attributes:
        path: the file, or the archive.
        member: its name in the archive; empty outside of one.
        size: bytes.
    """

    path: Path
    member: str
    size: int

    def __str__(self) -> str:
        return f"{self.path}/{self.member}" if self.member else str(self.path)

    @property
    def name(self) -> str:
        return PurePosixPath(self.member).name if self.member else self.path.name

    @contextlib.contextmanager
    def on_disk(self, scratch: Path) -> Iterator[Path]:
        """Yield a path to read it from; a member of an archive is in ``scratch`` until the end of the block."""
        if not self.member:
            yield self.path
            return
        scratch.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=scratch) as folder:
            # Of the member's name only the suffix, one of a few, reaches the disk.
            target = Path(folder) / f"file{PurePosixPath(self.member).suffix.lower()}"
            self._unpack(target)
            yield target

    def _unpack(self, target: Path) -> None:
        if self.size > shutil.disk_usage(target.parent).free:
            raise SemanticFaceError(f"{self}: no room to unpack {self.size / 2**20:.0f} MiB. Free some space.")
        written = 0
        try:
            with zipfile.ZipFile(self.path) as archive, archive.open(self.member) as source, target.open("wb") as out:
                while block := source.read(_BLOCK):
                    written += len(block)
                    if written > self.size:
                        raise ArchiveError(f"{self}: larger than the archive says. Pack it again.")
                    out.write(block)
        except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, NotImplementedError) as error:
            raise ArchiveError(f"{self}: cannot be unpacked ({error}). Copy or pack the archive again.") from error
        except OSError as error:
            raise SemanticFaceError(f"{self}: {error.strerror or error}. Free some space or copy it again.") from error


@dataclass(frozen=True, slots=True)
class TakeFiles:
    """The files of one take.

    Attributes:
        name: file name of its table, without suffix.
        subject: who is recorded, from ``take.json`` or else the file name; empty if neither says.
        table: the CSV of coefficients, calibrated ones if there are any.
        raw: of a calibrated take, the uncalibrated CSV.
        neutral: of a calibrated take, the resting face that the app subtracted.
        video: or None.
        log: ``frame_log.csv``, or None.
    """

    name: str
    subject: str
    table: Stored
    raw: Stored | None = None
    neutral: Stored | None = None
    video: Stored | None = None
    log: Stored | None = None


def find_takes(path: Path, scratch: Path) -> tuple[list[TakeFiles], list[str]]:
    """Return the takes at a path, a CSV, a ZIP or a folder of any depth, and the problems with others there.

    Args:
        path: links in folders and hidden files are skipped.
        scratch: where small files are unpacked.
    """
    try:
        stored, problems = _listed(path)
    except (SemanticFaceError, OSError) as error:
        reason = str(error) if isinstance(error, SemanticFaceError) else f"{path}: {error.strerror}. Check the path."
        return [], [reason]
    groups: dict[tuple[Path, str], list[Stored]] = defaultdict(list)
    for file in stored:
        inside = str(PurePosixPath(file.member).parent) if file.member else ""
        groups[(file.path if file.member else file.path.parent, inside)].append(file)
    takes: list[TakeFiles] = []
    for files in groups.values():
        try:
            found, wrong = _takes_among(files, scratch, asked=path.is_file() and not stored[0].member)
        except SemanticFaceError as error:
            found, wrong = [], [str(error)]
        takes += found
        problems += wrong
    if not takes and not problems:
        problems.append(f"{path}: no Live Link Face take in it. Choose the folder or ZIP that the app exported.")
    return takes, problems


def _listed(path: Path) -> tuple[list[Stored], list[str]]:
    """Return every file that may belong to a take, and the problems with unreadable archives."""
    if not path.exists():
        raise SemanticFaceError(f"{path}: no such file or folder. Check the path.")
    if path.is_file():
        if path.suffix.lower() == ".zip":
            return _members(path), []
        siblings = sorted(p for p in path.parent.iterdir() if p.is_file() and not p.name.startswith("."))
        mine = [p for p in siblings if p.name in (FRAME_LOG, TAKE_JSON) or _stem(p.name) == _stem(path.name)]
        return [Stored(p, "", p.stat().st_size) for p in mine if _wanted(p.name)], []
    out: list[Stored] = []
    problems: list[str] = []
    for count, file in enumerate(sorted(path.rglob("*"))):
        if count >= MAX_FILES:
            raise SemanticFaceError(f"{path}: more than {MAX_FILES:,} files. Import the folders of takes one by one.")
        if any(part.startswith(".") for part in file.relative_to(path).parts) or file.is_symlink():
            continue
        if file.suffix.lower() == ".zip":
            try:
                out += _members(file)
            except ArchiveError as error:
                problems.append(str(error))
        elif file.is_file() and _wanted(file.name):
            out.append(Stored(file, "", file.stat().st_size))
    return out, problems


def _wanted(name: str) -> bool:
    return PurePosixPath(name).suffix.lower() in (*_TEXT, *video_reader.SUFFIXES)


def _members(path: Path) -> list[Stored]:
    """Return the members of an archive that may belong to takes; raise an ArchiveError if it is not safe."""
    try:
        with zipfile.ZipFile(path) as archive:
            infos = archive.infolist()
    except (zipfile.BadZipFile, OSError, EOFError, ValueError, NotImplementedError) as error:
        raise ArchiveError(f"{path}: not a ZIP that can be read ({error}). Copy or pack it again.") from error
    if len(infos) > MAX_FILES:
        raise ArchiveError(f"{path}: more than {MAX_FILES:,} files. Pack fewer takes into one archive.")
    out = []
    for info in infos:
        parts = PurePosixPath(info.filename.replace("\\", "/")).parts
        if info.filename.startswith(("/", "\\")) or ".." in parts or ":" in info.filename.partition("/")[0]:
            raise ArchiveError(f"{path}: contains {info.filename!r}, a path outside the archive. Not unpacked.")
        if stat.S_ISLNK(info.external_attr >> 16):
            raise ArchiveError(f"{path}: contains the link {info.filename!r}. Pack the files themselves.")
        hidden = any(part.startswith(".") or part == "__MACOSX" for part in parts)
        if info.is_dir() or hidden or not _wanted(info.filename):
            continue
        if info.flag_bits & 1:
            raise ArchiveError(f"{path}: {info.filename!r} is encrypted. Pack it without a password.")
        text = PurePosixPath(info.filename).suffix.lower() in _TEXT
        if info.file_size > (MAX_TEXT if text else MAX_VIDEO) or info.file_size > MAX_RATIO * info.compress_size + 4096:
            raise ArchiveError(
                f"{path}: {info.filename!r} would unpack from {info.compress_size:,} to {info.file_size:,} bytes, "
                "more than any take. Not unpacked."
            )
        out.append(Stored(path, info.filename, info.file_size))
    return out


def _stem(name: str) -> str:
    """Return a file's name without its suffix and without the mark of a calibrated take's tables."""
    stem = PurePosixPath(name).stem
    return next((stem.removesuffix(part) for part in _PARTS if stem.endswith(part)), stem)


def _takes_among(files: list[Stored], scratch: Path, *, asked: bool) -> tuple[list[TakeFiles], list[str]]:
    """Return the takes among the files of one folder.

    Args:
        files: all of them.
        scratch: see ``find_takes``.
        asked: whether the user named the table itself, so it must be one.
    """
    problems = []
    log = next((file for file in files if file.name == FRAME_LOG), None)
    videos = [file for file in files if PurePosixPath(file.name).suffix.lower() in video_reader.SUFFIXES]
    tables: dict[str, dict[str, Stored]] = defaultdict(dict)
    for file in files:
        stem = PurePosixPath(file.name).stem
        if file.name.lower().endswith(".csv") and file.name != FRAME_LOG:
            has_video = any(_stem(video.name) == _stem(file.name) for video in videos)
            if has_video or asked or _is_take(file, scratch):
                tables[_stem(file.name)][stem.removeprefix(_stem(file.name))] = file
    take_json = next((file for file in files if file.name == TAKE_JSON), None)
    facts = _json(take_json, scratch) if take_json is not None else {}
    takes = []
    for name, parts in tables.items():
        table = parts.get("_cal") or parts.get("") or parts.get("_raw")
        if table is None:
            problems.append(f"{parts['_neutral']}: the take of this resting face is missing. Copy the whole folder.")
            continue
        video = next((video for video in videos if PurePosixPath(video.name).stem == name), None)
        if video is None and len(tables) == len(videos) == 1:
            video = videos[0]
        named = _NAMED.fullmatch(name)
        subject = facts.get("subject") if len(tables) == 1 else None
        subject = subject if isinstance(subject, str) and subject.strip() else named["subject"] if named else ""
        calibrated = table is parts.get("_cal")
        takes.append(
            TakeFiles(
                name,
                subject.strip(),
                table,
                parts.get("_raw") if calibrated else None,
                parts.get("_neutral") if calibrated else None,
                video,
                log if len(tables) == 1 else None,
            )
        )
    used = {take.video for take in takes}
    problems += [_without_table(video, facts) for video in videos if video not in used]
    return takes, problems


def _without_table(video: Stored, facts: dict[str, Any]) -> str:
    """Return what to do about a video without coefficients: MetaHuman Animator records none."""
    predict = f"semanticface predict {video} --out take.csv reads them from the video"
    if any("metahuman" in str(value).lower() for value in facts.values()):
        return f"{video}: a MetaHuman Animator take has no ARKit coefficients; {predict}."
    return (
        f"{video}: the CSV of this video is missing. Copy it too, if the app wrote one; a MetaHuman Animator take has "
        f"none, and {predict}."
    )


def _is_take(file: Stored, scratch: Path) -> bool:
    with file.on_disk(scratch) as path, path.open("rb") as opened:
        return opened.read(_HEAD).removeprefix(b"\xef\xbb\xbf").lower().startswith(b"timecode")


def _json(file: Stored, scratch: Path) -> dict[str, Any]:
    """Return a JSON object; an empty one if the file holds none, since it is optional."""
    with file.on_disk(scratch) as path:
        try:
            value = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError):
            return {}
    return value if isinstance(value, dict) else {}

"""A zero-shot run: pictures, questions and a reader in, every reply kept on disk; what is there is not asked again.

The replies of a zero-shot run on disk: appended one by one as they come, so that nothing asked is asked again.

A folder holds the replies to one question: ``asked.json`` says what was asked of what, and ``SET.jsonl`` has a line for
each reply, in the form that ``semanticface predict`` writes, with the text of those that are no answer. Of several
lines about one picture the last counts.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import sqlite3
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from types import TracebackType
from typing import Any

from PIL import Image

from semanticface.errors import ConfigError, PictureError, SemanticFaceError, ServerError
from semanticface.evaluation.zero_shot.pictures import PictureSet
from semanticface.evaluation.zero_shot.questions import Judged, Question, Reply, ZeroShotModel, judge
from semanticface.formats import tables
from semanticface.llm.chat import RETRYABLE
from semanticface.utils.files import write_json
from semanticface.utils.progress import tqdm
from semanticface.vision.crop import Box

AGAIN = (*RETRYABLE, "too_large", "bad_reply", "not_asked")
"""Statuses that another run may mend."""

_KEPT = 100_000  # characters of a text that is no answer


@contextlib.contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Keep other runs out of a folder: they would ask, and pay for, the same. A run that is killed lets go of it.

    Raises:
        ConfigError: another run is at work there.
        SemanticFaceError: the system refuses to write.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # SQLite locks files on every system, and a lock ends with its process.
        lock = sqlite3.connect(folder / ".lock", timeout=0, isolation_level=None)
        lock.execute("BEGIN EXCLUSIVE")
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode == sqlite3.SQLITE_BUSY:
            raise ConfigError(f"another run is at work in {folder}: wait for it, or choose another --out.") from error
        raise SemanticFaceError(f"cannot write into {folder}: {error}. Choose another --out.") from error
    except OSError as error:
        raise SemanticFaceError(f"cannot write into {folder}: {error.strerror}. Choose another --out.") from error
    with contextlib.closing(lock):
        yield


def claim(folder: Path, asked: Mapping[str, Any]) -> None:
    """Note in a folder what its replies are replies to, or check that the note there says the same.

    Raises:
        ConfigError: the folder has replies to another question, or its note cannot be read.
        SemanticFaceError: the system refuses to write.
    """
    path = folder / "asked.json"
    if path.is_file() and any(each.stat().st_size for each in folder.glob("*.jsonl")):
        try:
            there = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise ConfigError(f"{path} cannot be read: {error}. Remove {folder} and ask anew.") from error
        differing = [key for key in {**there, **asked} if there.get(key) != asked.get(key)]
        if differing:
            raise ConfigError(
                f"{folder} holds replies to another question ({', '.join(differing)} differ). "
                "Choose another --out, or remove that folder to ask anew."
            )
        return
    write_json(path, dict(asked))


def fingerprint(picture: Image.Image) -> str:
    """Return what tells a picture from another of the same name."""
    return hashlib.sha256(f"{picture.mode} {picture.size} ".encode() + picture.tobytes()).hexdigest()[:16]


class AnswerLog:
    """The replies about one set of pictures; use it as a context manager.

    A line that a killed run was writing is dropped.

    Args:
        path: ``SET.jsonl``; made with the first reply.

    Raises:
        TableError: a line in the middle is damaged.
        SemanticFaceError: the system refuses to read or write.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._rows: dict[str, dict[str, Any]] = {}
        self._judged: dict[str, Judged] = {}
        self._file: FileIO | None = None
        self._read()

    def __enter__(self) -> AnswerLog:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def _read(self) -> None:
        if not self.path.is_file() or not self.path.stat().st_size:
            return
        try:
            with self.path.open("rb+") as file:
                whole = file.read().rfind(b"\n") + 1
                file.truncate(whole)
        except OSError as error:
            raise SemanticFaceError(f"{self.path}: {error.strerror}. Check its permissions.") from error
        if not whole:
            return
        for line, row, problem in tables.read_objects(self.path):
            name = "" if row is None else row.get("image")
            if row is None or not isinstance(name, str):
                where = problem or f"{self.path}, line {line}: no image"
                raise tables.TableError(f"{where} Remove that line; its picture is then asked about again.")
            try:
                self._judged[name] = self._from_row(row, line)
            except (LookupError, TypeError, ValueError) as error:
                raise tables.TableError(f"{self.path}, line {line}: damaged. Remove that line.") from error
            self._rows[name] = row

    def _from_row(self, row: dict[str, Any], line: int) -> Judged:
        box = None if row.get("box") is None else Box(*row["box"])
        if row["status"] != "ok":
            return Judged(row["image"], row["status"], row.get("reason", ""), box=box)
        read = tables.parse_row(row, self.path, line)
        if read.error:
            raise tables.TableError(read.error)
        return Judged(row["image"], "ok", "", read.coefficients, read.analysis, box)

    def __contains__(self, shown: tuple[str, str]) -> bool:
        """Whether the model has spoken about a picture, given by name and ``fingerprint``: it need not be asked."""
        name, print_ = shown
        row = self._rows.get(name)
        return row is not None and row.get("picture") == print_ and (row["status"] == "ok" or "text" in row)

    def add(self, reply: Reply, judged: Judged, print_: str) -> None:
        """Append a reply; it is in the file when this returns.

        Raises:
            SemanticFaceError: the system refuses to write; what was there before stays.
        """
        told = tables.RowResult(judged.image, judged.status, judged.reason, judged.coefficients, judged.analysis)
        row: dict[str, Any] = told.to_dict()
        if judged.box is not None:
            box = judged.box
            row["box"] = [round(corner, 2) for corner in (box.x0, box.y0, box.x1, box.y1)]
        if reply.status == "ok" and judged.status != "ok":
            row["text"] = reply.text[:_KEPT]
        row |= {"picture": print_, "seconds": round(reply.seconds, 3), "attempts": reply.attempts}
        row |= {"tokens_in": reply.tokens_in, "tokens_out": reply.tokens_out}
        # backslashreplace: names of pictures that are not Unicode must not stop the run.
        line = json.dumps(row, ensure_ascii=False, allow_nan=False).encode(errors="backslashreplace") + b"\n"
        try:
            if self._file is None:
                self.path.parent.mkdir(parents=True, exist_ok=True)
                self._file = self.path.open("ab", buffering=0)
            while line:
                line = line[self._file.write(line) :]
        except OSError as error:
            raise SemanticFaceError(
                f"cannot write {self.path}: {error.strerror or error}. Free some space and run again."
            ) from error
        self._rows[judged.image], self._judged[judged.image] = row, judged

    def judged(self, name: str) -> Judged:
        """Return what became of a picture; one that was not asked about has the status ``not_asked``."""
        found = self._judged.get(name)
        return found or Judged(name, "not_asked", f"{name}: not asked about yet. Run the same command again.")

    def tokens(self, names: list[str]) -> tuple[int, int]:
        """Return the tokens that the replies about these pictures took, in and out, as far as the model counted."""
        rows = [self._rows[name] for name in names if name in self._rows]
        return sum(row.get("tokens_in", 0) for row in rows), sum(row.get("tokens_out", 0) for row in rows)


IN_A_ROW = 10
"""After so many requests in a row that got no reply the run stops: what is wrong is wrong with all of them."""


@dataclass(eq=False)
class Asking:
    """One question about one set of pictures.

    Attributes:
        asked: the question.
        pictures: the set.
        log: the replies so far.
        prints: fingerprint of each picture; None where it cannot be read.
        wanted: places of the pictures that the model has not spoken about yet.
    """

    asked: Question
    pictures: PictureSet
    log: AnswerLog
    prints: list[str | None]
    wanted: list[int]

    def judged(self) -> list[Judged]:
        """Return what became of each picture, in order."""
        return [self.log.judged(name) for name in self.pictures.names]

    def again(self) -> int:
        """Return of how many pictures that can be read another run may learn more."""
        return sum(
            print_ is not None and each.status in AGAIN for print_, each in zip(self.prints, self.judged(), strict=True)
        )


def fingerprints(pictures: PictureSet) -> list[str | None]:
    """Return what identifies each picture of a set; None where it cannot be read."""
    out: list[str | None] = []
    for i in tqdm(range(len(pictures.names)), desc=f"looking at {pictures.key}", unit="picture", leave=False):
        try:
            out.append(fingerprint(pictures.load(i)))
        except PictureError:
            out.append(None)
    return out


def prepare(
    reader: ZeroShotModel, asked: Question, pictures: PictureSet, prints: list[str | None], folder: Path
) -> Asking:
    """Open the replies that there are to a question and see which are wanted.

    Args:
        reader: what will be asked.
        asked: the question.
        pictures: the set.
        prints: from ``fingerprints``.
        folder: of the run; replies go to ``folder/SEMANTICS``, or ``folder/SEMANTICS-KEY`` where there are examples.

    Raises:
        ConfigError: what is there answers another question.
        TableError: the replies there are damaged.
    """
    place = folder / (f"{asked.semantics}-{pictures.key}" if asked.examples else asked.semantics)
    claim(place, {"question": asked.record(), "reader": reader.record(asked)})
    log = AnswerLog(place / f"{pictures.key}.jsonl")
    wanted = [
        i
        for i, (name, print_) in enumerate(zip(pictures.names, prints, strict=True))
        if print_ is None or (name, print_) not in log
    ]
    return Asking(asked, pictures, log, prints, wanted)


def run(reader: ZeroShotModel, asking: Asking) -> None:
    """Ask about every picture that is wanted; shows a progress bar and names what failed on standard error.

    Raises:
        ServerError: nothing more can be had; the replies that came are kept.
        SemanticFaceError: a reply could not be written; those before it are kept.
    """
    unread: list[Reply] = []
    prints = dict(zip(asking.pictures.names, asking.prints, strict=True))

    def pictures() -> Iterator[tuple[str, Image.Image]]:
        for i in asking.wanted:
            name = asking.pictures.names[i]
            try:
                yield name, asking.pictures.load(i)
            except PictureError as error:
                unread.append(Reply(name, status=error.code, reason=str(error).removeprefix(f"{name}: ")))

    title = f"{reader.name}: {asking.pictures.key}, {asking.asked.semantics} semantics"
    silent = 0
    with asking.log, tqdm(total=len(asking.wanted), desc=title, unit="picture", disable=not asking.wanted) as bar:

        def keep(reply: Reply) -> None:
            judged = judge(reply, emotion=asking.asked.emotion)
            asking.log.add(reply, judged, prints[reply.image] or "")
            bar.update()
            if judged.status != "ok":
                tqdm.write(f"zero_shot: {judged.status}: {judged.reason}", file=sys.stderr)

        # Closed on any error, so that requests under way do not outlive it.
        with contextlib.closing(reader.read(asking.asked, pictures())) as replies:
            for reply in replies:
                keep(reply)
                silent = 0 if reply.status in ("ok", "no_face") else silent + 1
                if silent == IN_A_ROW:
                    said = reply.reason.rstrip(".")
                    raise ServerError(
                        f"{IN_A_ROW} requests in a row got no reply; of the last it is said: {said}. "
                        "Mend that and run the same command again: what was answered is kept."
                    )
        for reply in unread:
            keep(reply)

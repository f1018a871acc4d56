"""A zero-shot run: queries a model about pictures and appends each reply to a log, so that a rerun resumes.

A folder holds the replies to one question: ``asked.json`` identifies question and model, and ``SET.jsonl`` has a line
for each reply, as ``semanticface predict`` writes it, plus the text of replies that are no answer. Of several lines
about one picture the last counts.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
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
from semanticface.evaluation.zero_shot.questions import ParsedReply, Question, Reply, ZeroShotModel, parse_reply
from semanticface.formats import tables
from semanticface.llm.chat import RETRYABLE
from semanticface.utils.files import write_json
from semanticface.utils.progress import tqdm
from semanticface.vision.crop import Box

FIXABLE = (*RETRYABLE, "too_large", "bad_reply", "not_asked")
"""Statuses that another run may fix."""
MAX_CONSECUTIVE_FAILURES = 10
"""After this many requests in a row without a reply the run stops: the cause affects all of them."""

_MAX_TEXT = 100_000  # characters kept of a text that is no answer


def claim(folder: Path, asked: Mapping[str, Any]) -> None:
    """Record in a folder what its replies answer, or check that the record there matches."""
    path = folder / "asked.json"
    if path.is_file() and any(each.stat().st_size for each in folder.glob("*.jsonl")):
        try:
            there = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise ConfigError(f"{path} cannot be read: {error}. Remove {folder} to start over.") from error
        different = [key for key in {**there, **asked} if there.get(key) != asked.get(key)]
        if different:
            raise ConfigError(
                f"{folder} holds replies to another question ({', '.join(different)} differ). "
                "Choose another --out, or remove that folder to start over."
            )
        return
    write_json(path, dict(asked))


def fingerprint(picture: Image.Image) -> str:
    """Return a hash of the pixels, which distinguishes pictures of the same name."""
    return hashlib.sha256(f"{picture.mode} {picture.size} ".encode() + picture.tobytes()).hexdigest()[:16]


class AnswerLog:
    """The replies about one set of pictures, as a context manager; an unfinished last line is dropped.

    Args:
        path: ``SET.jsonl``; created with the first reply.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._rows: dict[str, dict[str, Any]] = {}
        self._replies: dict[str, ParsedReply] = {}
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
                end = file.read().rfind(b"\n") + 1
                file.truncate(end)
        except OSError as error:
            raise SemanticFaceError(f"{self.path}: {error.strerror}. Check its permissions.") from error
        if not end:
            return
        for line, row, problem in tables.read_objects(self.path):
            name = "" if row is None else row.get("image")
            if row is None or not isinstance(name, str):
                where = problem or f"{self.path}, line {line}: no image"
                raise tables.TableError(f"{where} Remove that line; its picture is then queried again.")
            try:
                self._replies[name] = self._from_row(row, line)
            except (LookupError, TypeError, ValueError) as error:
                raise tables.TableError(f"{self.path}, line {line}: damaged. Remove that line.") from error
            self._rows[name] = row

    def _from_row(self, row: dict[str, Any], line: int) -> ParsedReply:
        box = None if row.get("box") is None else Box(*row["box"])
        if row["status"] != "ok":
            return ParsedReply(row["image"], row["status"], row.get("reason", ""), box=box)
        read = tables.parse_row(row, self.path, line)
        if read.error:
            raise tables.TableError(read.error)
        return ParsedReply(row["image"], "ok", "", read.coefficients, read.analysis, box)

    def __contains__(self, picture: tuple[str, str]) -> bool:
        """Whether there is a reply about a picture, given by name and ``fingerprint``."""
        name, print_ = picture
        row = self._rows.get(name)
        return row is not None and row.get("picture") == print_ and (row["status"] == "ok" or "text" in row)

    def add(self, reply: Reply, parsed: ParsedReply, print_: str) -> None:
        """Append a reply; it is in the file when this returns."""
        answered = tables.RowResult(parsed.image, parsed.status, parsed.reason, parsed.coefficients, parsed.analysis)
        row: dict[str, Any] = answered.to_dict()
        if parsed.box is not None:
            box = parsed.box
            row["box"] = [round(corner, 2) for corner in (box.x0, box.y0, box.x1, box.y1)]
        if reply.status == "ok" and parsed.status != "ok":
            row["text"] = reply.text[:_MAX_TEXT]
        row |= {"picture": print_, "seconds": round(reply.seconds, 3), "attempts": reply.attempts}
        row |= {"tokens_in": reply.tokens_in, "tokens_out": reply.tokens_out}
        # backslashreplace: picture names that are not Unicode must not stop the run.
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
        self._rows[parsed.image], self._replies[parsed.image] = row, parsed

    def reply(self, name: str) -> ParsedReply:
        """Return the reply about a picture; without one, its status is ``not_asked``."""
        found = self._replies.get(name)
        return found or ParsedReply(name, "not_asked", f"{name}: not queried yet. Run the same command again.")

    def tokens(self, names: list[str]) -> tuple[int, int]:
        """Return the tokens of the replies about these pictures, in and out, as far as the model counted them."""
        rows = [self._rows[name] for name in names if name in self._rows]
        return sum(row.get("tokens_in", 0) for row in rows), sum(row.get("tokens_out", 0) for row in rows)


@dataclass(eq=False)
class Task:
    """One question about one set of pictures.

    Attributes:
        question: the question.
        pictures: the set.
        log: the replies so far.
        prints: fingerprint of each picture; None if it cannot be read.
        wanted: indices of the pictures without a reply.
    """

    question: Question
    pictures: PictureSet
    log: AnswerLog
    prints: list[str | None]
    wanted: list[int]

    def replies(self) -> list[ParsedReply]:
        """Return the reply about each picture, in order."""
        return [self.log.reply(name) for name in self.pictures.names]

    def count_retryable(self) -> int:
        """Return the number of readable pictures for which another run may get a reply."""
        pairs = zip(self.prints, self.replies(), strict=True)
        return sum(print_ is not None and each.status in FIXABLE for print_, each in pairs)


def fingerprints(pictures: PictureSet) -> list[str | None]:
    """Return the fingerprint of each picture of a set; None if it cannot be read."""
    out: list[str | None] = []
    for i in tqdm(range(len(pictures.names)), desc=f"hashing {pictures.key}", unit="picture", leave=False):
        try:
            out.append(fingerprint(pictures.load(i)))
        except PictureError:
            out.append(None)
    return out


def prepare(
    model: ZeroShotModel, question: Question, pictures: PictureSet, prints: list[str | None], folder: Path
) -> Task:
    """Open the existing replies to a question and determine which are missing.

    Args:
        model: the model to query.
        question: the question.
        pictures: the set.
        prints: from ``fingerprints``.
        folder: of the run; replies go to ``folder/SEMANTICS``, or ``folder/SEMANTICS-KEY`` with few-shot examples.
    """
    target = folder / (f"{question.semantics}-{pictures.key}" if question.examples else question.semantics)
    claim(target, {"question": question.record(), "reader": model.record(question)})
    log = AnswerLog(target / f"{pictures.key}.jsonl")
    wanted = [
        i
        for i, (name, print_) in enumerate(zip(pictures.names, prints, strict=True))
        if print_ is None or (name, print_) not in log
    ]
    return Task(question, pictures, log, prints, wanted)


def run(model: ZeroShotModel, task: Task) -> None:
    """Query the model about every missing picture, with a progress bar; failures are named on standard error.

    Raises a ServerError if every request fails; the replies so far are kept.
    """
    unreadable: list[Reply] = []
    prints = dict(zip(task.pictures.names, task.prints, strict=True))

    def pictures() -> Iterator[tuple[str, Image.Image]]:
        for i in task.wanted:
            name = task.pictures.names[i]
            try:
                yield name, task.pictures.load(i)
            except PictureError as error:
                unreadable.append(Reply(name, status=error.code, reason=str(error).removeprefix(f"{name}: ")))

    title = f"{model.name}: {task.pictures.key}, {task.question.semantics} semantics"
    failures = 0
    with task.log, tqdm(total=len(task.wanted), desc=title, unit="picture", disable=not task.wanted) as bar:

        def keep(reply: Reply) -> None:
            parsed = parse_reply(reply, emotion=task.question.emotion)
            task.log.add(reply, parsed, prints[reply.image] or "")
            bar.update()
            if parsed.status != "ok":
                tqdm.write(f"zero_shot: {parsed.status}: {parsed.reason}", file=sys.stderr)

        # Closed on any error, to cancel pending requests.
        with contextlib.closing(model.answer(task.question, pictures())) as replies:
            for reply in replies:
                keep(reply)
                failures = 0 if reply.status in ("ok", "no_face") else failures + 1
                if failures == MAX_CONSECUTIVE_FAILURES:
                    reason = reply.reason.rstrip(".")
                    raise ServerError(
                        f"{failures} requests in a row got no reply; the last: {reason}. "
                        "Fix that and run the same command again: the replies so far are kept."
                    )
        for reply in unreadable:
            keep(reply)

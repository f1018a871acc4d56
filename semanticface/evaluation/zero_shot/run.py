"""A zero-shot run: pictures, questions and a reader in, every reply kept on disk; what is there is not asked again."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from PIL import Image
from tqdm import tqdm

from semanticface.errors import PictureError, ServerError
from semanticface.evaluation.zero_shot.answers import AGAIN, AnswerLog, claim, fingerprint
from semanticface.evaluation.zero_shot.pictures import PictureSet
from semanticface.evaluation.zero_shot.questions import Judged, Question, Reader, Reply, judge

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


def prepare(reader: Reader, asked: Question, pictures: PictureSet, prints: list[str | None], folder: Path) -> Asking:
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


def run(reader: Reader, asking: Asking) -> None:
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

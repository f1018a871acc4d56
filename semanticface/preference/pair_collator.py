"""Pairs before a model: what is shown of both faces of each, and which of its tokens are scored.

Only numbers that differ between the two faces are scored, and words where answers have them. A number that is equal in
both has no verdict: it may be right or wrong, and nobody looked. It carries no margin and no likelihood is asked of it.

Numbers side by side without words see nothing but the picture, so one row serves both faces of all pairs of a picture:
it holds the keys of the numbers that differ, and no others. A number of one token is scored for all faces at the same
place. Where numbers stand in a row or behind words, each face has a row of its own, chosen ones first.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import datasets
import numpy as np
import torch
import torch.utils.data
from PIL import Image

from semanticface import arkit
from semanticface.arkit import to_hundredths
from semanticface.errors import DatasetError
from semanticface.models.answer_tokens import GROUP, IGNORED, AnswerEncoding, Numbers
from semanticface.preference.types import Pair
from semanticface.prompts import Prompt
from semanticface.semantics.analysis import describe_many
from semanticface.semantics.answer import format_answer
from semanticface.training.collator import Collator, Example
from semanticface.training.datasets import EvalFaces

GREY = (128, 128, 128)
"""Colour of the blank picture with which a model's use of the picture is measured."""

CHOSEN, REJECTED = 0, 1

_Target = tuple[int, int, int]
"""Which answer, the place among a lesson's labels, and the token that is scored there."""


@dataclass(frozen=True, slots=True, eq=False)
class PairExample:
    """A pair as a model is shown it.

    Attributes:
        picture: square RGB crop at the model's image size; None where what the tower saw in it is at hand.
        faces: float32[2, 52] in [0, 1], chosen and rejected.
        view: number of the picture: pairs of the same one are shown it once.
        features: what the tower saw (``features.SeenTower``), each tensor [1, …].
    """

    picture: Image.Image | None
    faces: np.ndarray
    view: int
    features: Mapping[str, torch.Tensor] | None = None


class PairDataset(torch.utils.data.Dataset[PairExample]):
    """Pairs with their pictures, read from disk when asked for; the mirror images, if wanted, behind all others.

    Args:
        pairs: of one split; to_hundredths, as all candidates are.
        faces: that split, from ``load_faces``.
        image_size: side of the crops in pixels.
        mirrored: also every pair with picture and faces flipped.

    Attributes:
        features: what the tower saw in each of ``views``, from then on shown in place of pictures; None where it looks.

    Raises:
        DatasetError: a pair of a row that is not there, or of two equal faces.
    """

    def __init__(self, pairs: Sequence[Pair], faces: datasets.Dataset, image_size: int, *, mirrored: bool) -> None:
        for pair in pairs:
            if not 0 <= pair.row < len(faces):
                raise DatasetError(f"a pair is about row {pair.row} of {len(faces)}: use the dataset of the pairs.")
            if np.array_equal(to_hundredths(pair.chosen), to_hundredths(pair.rejected)):
                raise DatasetError(f"row {pair.row}: both faces of a pair are equal. Make the pairs anew.")
        self.pairs = pairs
        self.features: Sequence[Mapping[str, torch.Tensor]] | None = None
        self._pictures = EvalFaces(faces, image_size)
        shown = [(pair.row, flipped) for flipped in ((False, True) if mirrored else (False,)) for pair in pairs]
        self._views = list(dict.fromkeys(shown))
        number = {view: nth for nth, view in enumerate(self._views)}
        self._view_of = [number[view] for view in shown]

    def __len__(self) -> int:
        return len(self._view_of)

    @property
    def views(self) -> int:
        """How many different pictures are shown, mirror images counted."""
        return len(self._views)

    def view(self, number: int) -> Image.Image:
        """Return one of the different pictures."""
        row, flipped = self._views[number]
        picture = self._pictures[row].picture
        assert picture is not None
        return picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if flipped else picture

    def __getitem__(self, place: int) -> PairExample:
        if not 0 <= place < len(self):
            raise IndexError(place)
        flipped, index = divmod(place, len(self.pairs))
        pair = self.pairs[index]
        both = np.stack([pair.chosen, pair.rejected]).astype(np.float32)
        both = both[:, arkit.MIRROR_INDEX] if flipped else both
        view = self._view_of[place]
        if self.features is not None:
            return PairExample(None, both, view, self.features[view])
        return PairExample(self.view(view), both, view)

    def shuffled(self, seed: Sequence[int]) -> np.ndarray:
        """Return places in an order of chance in which the pairs of a picture follow each other; int[len]."""
        turn = np.random.default_rng(seed).permutation(self.views)
        return np.argsort(turn[self._view_of], kind="stable")


def blank(sides: PairExample) -> PairExample:
    """Return a pair with a grey picture in place of its own.

    Args:
        sides: one with a picture.
    """
    assert sides.picture is not None
    return PairExample(Image.new("RGB", sides.picture.size, GREY), sides.faces, sides.view)


class PairCollator(Collator):
    """Makes batches of pairs, in the form that TRL's ``DPOTrainer`` knows: chosen answers, then rejected ones.

    Args:
        processor: as for ``Collator``.
        prompt: what the model is asked.
        numbers: how the 52 numbers are laid out.
        words: whether answers have words: what Stage I says of each face.
        emotion: whether those speak of emotion.
    """

    def __init__(self, processor: Any, prompt: Prompt, *, numbers: Numbers, words: bool, emotion: bool) -> None:
        super().__init__(processor, prompt, numbers=numbers)
        self.words = words
        self.emotion = emotion

    def of(self, pairs: Sequence[PairExample]) -> dict[str, Any]:
        """Return a batch of B pairs; answers 0 to B - 1 are the chosen ones, B to 2B - 1 the rejected.

        Returns:
            ``input_ids`` int64[2B, 1 + K]: behind a token without meaning the tokens that are scored, in the order in
            which they stand in the answer; ``attention_mask`` and ``completion_mask``: which of them there are;
            ``shown``: what the model is shown, R rows as from ``Collator``; labels stand where something is scored.
            With it ``of`` int64[T]: for each token that is scored the place in the flattened [R, L] that predicts it,
            and ``to`` int64[T]: its place in the flattened [2B, K].
        """
        if self.parallel and not self.words:
            views: dict[int, list[int]] = {}
            for index, pair in enumerate(pairs):
                views.setdefault(pair.view, []).append(index)
            rows = [
                self._shared({index: to_hundredths(pairs[index].faces) for index in those}, len(pairs))
                for those in views.values()
            ]
            pictured = [pairs[those[0]] for those in views.values()]
        else:
            told = self._told(pairs)
            rows = [
                self._own(told[side][index], pair, side * len(pairs) + index)
                for side in (CHOSEN, REJECTED)
                for index, pair in enumerate(pairs)
            ]
            pictured = [*pairs, *pairs]
        examples = [Example(pair.picture, "", features=pair.features) for pair in pictured]
        shown = self.append_answers(self._prompts(examples), [lesson for lesson, _ in rows])

        spelled: list[list[int]] = [[] for _ in range(2 * len(pairs))]
        scored = []
        length = shown["labels"].shape[1]
        first = length - max(len(lesson.labels) for lesson, _ in rows)
        for row, (_, targets) in enumerate(rows):
            for answer, place, token in targets:
                scored.append((row * length + first + place, answer, len(spelled[answer])))
                spelled[answer].append(token)
        width = max(map(len, spelled))
        shown["of"] = torch.tensor([place for place, _, _ in scored])
        shown["to"] = torch.tensor([answer * width + nth for _, answer, nth in scored])
        real = torch.tensor([[1] * len(tokens) + [0] * (width - len(tokens)) for tokens in spelled])
        ids = torch.tensor([[self.pad_id, *tokens, *[self.pad_id] * (width - len(tokens))] for tokens in spelled])
        return {
            "input_ids": ids,
            "attention_mask": torch.cat([torch.ones_like(real[:, :1]), real], dim=1),
            "completion_mask": torch.cat([torch.zeros_like(real[:, :1]), real], dim=1),
            "shown": shown,
        }

    def _told(self, pairs: Sequence[PairExample]) -> list[list[str]]:
        """Return the answers of each side."""
        told = []
        for side in (CHOSEN, REJECTED):
            faces = np.stack([pair.faces[side] for pair in pairs])
            words = describe_many(faces, emotion=self.emotion) if self.words else [None] * len(faces)
            told.append([format_answer(face, analysis) for face, analysis in zip(faces, words, strict=True)])
        return told

    def _own(self, answer: str, pair: PairExample, number: int) -> tuple[AnswerEncoding, list[_Target]]:
        """Return the lesson of one face, and what of it is scored."""
        lesson = self.answer_encoder(answer)
        differ = np.unique(np.flatnonzero(np.diff(to_hundredths(pair.faces), axis=0)[0]))
        scored = np.isin(lesson.numbers, differ)
        if self.words:
            # The words, and the token that ends them: in a row the first of what follows, which is none of them.
            n_words = sum(weight > 0 for weight in self.answer_encoder(answer, "words").weights)
            scored[: n_words if self.parallel else n_words + 1] = True
        labels = [label if kept else IGNORED for label, kept in zip(lesson.labels, scored, strict=True)]
        weights = scored.astype(float).tolist()
        targets = [(number, place, labels[place]) for place in np.flatnonzero(scored).tolist()]
        return dataclasses.replace(lesson, labels=labels, weights=weights), targets

    def _shared(self, faces: Mapping[int, np.ndarray], n_pairs: int) -> tuple[AnswerEncoding, list[_Target]]:
        """Return one lesson for all pairs of a picture, int[2, 52] by number of the pair, and what of it is scored."""
        tokens = self.answer_encoder.tokens
        lesson = AnswerEncoding(labels=[IGNORED], weights=[0.0], numbers=[-1])
        targets: list[_Target] = []
        differ = {pair: set(np.flatnonzero(both[CHOSEN] != both[REJECTED]).tolist()) for pair, both in faces.items()}
        for number in sorted(set().union(*differ.values())):
            key = tokens.keys[number] if number else tokens.opening
            starts: dict[tuple[int, ...], int] = {}
            for pair, both in faces.items():
                if number not in differ[pair]:
                    continue
                for side in (CHOSEN, REJECTED):
                    spelled = tokens.spelled[both[side, number]]
                    begins = (*key, *spelled[:-1])
                    if begins not in starts:
                        # A group of its own, or branches of one number would see each other.
                        branch = len(starts) * GROUP + number + 1
                        starts[begins] = len(lesson.ids)
                        lesson.ids.extend(begins)
                        lesson.steps.extend(range(1, 1 + len(begins)))
                        lesson.branches.extend([branch] * len(begins))
                        silent = len(key) - 1
                        lesson.labels.extend([IGNORED] * silent + list(spelled))
                        lesson.weights.extend([0.0] * silent + [1.0] * len(spelled))
                        lesson.numbers.extend([-1] * silent + [number] * len(spelled))
                    start = starts[begins] + len(key)
                    targets += [(side * n_pairs + pair, start + nth, token) for nth, token in enumerate(spelled)]
        return lesson, targets

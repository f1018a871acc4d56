"""Pairs before a model: what is shown of both faces of each, and which of its tokens are scored.

Only numbers that differ between the two faces are scored, and words where answers have them. A number that is equal in
both has no verdict: it may be right or wrong, and nobody looked. It carries no margin and no likelihood is asked of it.

Numbers side by side without words see nothing but the picture, so one row serves both faces of a pair: it holds the
keys of the numbers that differ, and no others. A number of one token is scored for both faces at the same place. Where
numbers stand in a row or behind words, each face has a row of its own, chosen ones first.
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
from semanticface.answer import format_answer
from semanticface.collate import Collator, Example
from semanticface.errors import DatasetError
from semanticface.layout import GROUP, IGNORED, Lesson, Numbers
from semanticface.preference.types import Pair
from semanticface.prompts import Prompt
from semanticface.rows import EvalRows
from semanticface.semantics import describe_many

GREY = (128, 128, 128)
"""Colour of the blank picture with which a model's use of the picture is measured."""

CHOSEN, REJECTED = 0, 1

_Target = tuple[int, int, int]
"""Which side, the place among a lesson's labels, and the token that is scored there."""


@dataclass(frozen=True, slots=True, eq=False)
class Sides:
    """A pair as a model is shown it.

    Attributes:
        picture: square RGB crop at the model's image size; None where what the tower saw in it is at hand.
        faces: float32[2, 52] in [0, 1], chosen and rejected.
        features: what the tower saw (``features.SeenTower``), each tensor [1, …].
    """

    picture: Image.Image | None
    faces: np.ndarray
    features: Mapping[str, torch.Tensor] | None = None


class PairRows(torch.utils.data.Dataset[Sides]):
    """Pairs with their pictures, read from disk when asked for; the mirror images, if wanted, behind all others.

    Args:
        pairs: of one split; hundredths, as all candidates are.
        faces: that split, from ``load_faces``.
        image_size: side of the crops in pixels.
        mirrored: also every pair with picture and faces flipped.

    Raises:
        DatasetError: a pair of a row that is not there, or of two equal faces.
    """

    def __init__(self, pairs: Sequence[Pair], faces: datasets.Dataset, image_size: int, *, mirrored: bool) -> None:
        for pair in pairs:
            if not 0 <= pair.row < len(faces):
                raise DatasetError(f"a pair is about row {pair.row} of {len(faces)}: use the dataset of the pairs.")
            if np.array_equal(_hundredths(pair.chosen), _hundredths(pair.rejected)):
                raise DatasetError(f"row {pair.row}: both faces of a pair are equal. Make the pairs anew.")
        self.pairs = pairs
        self.mirrored = mirrored
        self.features: Sequence[Mapping[str, torch.Tensor]] | None = None
        self._pictures = EvalRows(faces, image_size)

    def __len__(self) -> int:
        return len(self.pairs) * (2 if self.mirrored else 1)

    def crop(self, place: int) -> Image.Image:
        """Return the picture of a pair."""
        flipped, index = divmod(place, len(self.pairs))
        picture = self._pictures[self.pairs[index].row].picture
        assert picture is not None
        return picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if flipped else picture

    def __getitem__(self, place: int) -> Sides:
        if not 0 <= place < len(self):
            raise IndexError(place)
        flipped, index = divmod(place, len(self.pairs))
        pair = self.pairs[index]
        both = np.stack([pair.chosen, pair.rejected]).astype(np.float32)
        both = both[:, arkit.MIRROR_INDEX] if flipped else both
        if self.features is not None:
            return Sides(None, both, self.features[place])
        return Sides(self.crop(place), both)


def blank(sides: Sides) -> Sides:
    """Return a pair with a grey picture in place of its own.

    Args:
        sides: one with a picture.
    """
    assert sides.picture is not None
    return Sides(Image.new("RGB", sides.picture.size, GREY), sides.faces)


def _hundredths(face: np.ndarray) -> np.ndarray:
    return np.rint(np.asarray(face, np.float64) * 100).astype(int)


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

    def of(self, pairs: Sequence[Sides]) -> dict[str, Any]:
        """Return a batch of B pairs.

        Returns:
            ``input_ids`` int64[2B, 1 + K]: behind a token without meaning the tokens that are scored, in the order in
            which they stand in the answer; ``attention_mask`` and ``completion_mask``: which of them there are;
            ``shown``: what the model is shown, as from ``Collator``, R rows, with ``into`` int64[R, 2, L]: for either
            side where in the flattened [2B, K] the score of what each position predicts belongs, -1 for nowhere.
        """
        if self.parallel and not self.words:
            rows = [self._shared(_hundredths(pair.faces)) for pair in pairs]
            side_rows = [[(CHOSEN, pair), (REJECTED, pair)] for pair in range(len(pairs))]
            pictured = list(pairs)
        else:
            told = self._told(pairs)
            rows = [self._own(told[side][index], pair, side) for side in (0, 1) for index, pair in enumerate(pairs)]
            side_rows = [[(side, pair)] for side in (CHOSEN, REJECTED) for pair in range(len(pairs))]
            pictured = [*pairs, *pairs]
        examples = [Example(pair.picture, "", features=pair.features) for pair in pictured]
        shown = self.answered(self._prompts(examples), [lesson for lesson, _ in rows])

        spelled: list[list[int]] = [[] for _ in range(2 * len(pairs))]
        places: list[tuple[int, int, int, int, int]] = []
        for row, ((_, targets), owners) in enumerate(zip(rows, side_rows, strict=True)):
            answer_of = {side: side * len(pairs) + pair for side, pair in owners}
            for side, place, token in targets:
                answer = answer_of[side]
                places.append((row, side, place, answer, len(spelled[answer])))
                spelled[answer].append(token)
        width = max(map(len, spelled))
        first = shown["labels"].shape[1] - max(len(lesson.labels) for lesson, _ in rows)
        into = torch.full((len(rows), 2, shown["labels"].shape[1]), -1)
        for row, side, place, answer, nth in places:
            into[row, side, first + place] = answer * width + nth
        shown["into"] = into
        real = torch.tensor([[1] * len(tokens) + [0] * (width - len(tokens)) for tokens in spelled])
        ids = torch.tensor([[self.pad, *tokens, *[self.pad] * (width - len(tokens))] for tokens in spelled])
        return {
            "input_ids": ids,
            "attention_mask": torch.cat([torch.ones_like(real[:, :1]), real], dim=1),
            "completion_mask": torch.cat([torch.zeros_like(real[:, :1]), real], dim=1),
            "shown": shown,
        }

    def _told(self, pairs: Sequence[Sides]) -> list[list[str]]:
        """Return the answers of each side."""
        told = []
        for side in (CHOSEN, REJECTED):
            faces = np.stack([pair.faces[side] for pair in pairs])
            words = describe_many(faces, emotion=self.emotion) if self.words else [None] * len(faces)
            told.append([format_answer(face, analysis) for face, analysis in zip(faces, words, strict=True)])
        return told

    def _own(self, answer: str, pair: Sides, side: int) -> tuple[Lesson, list[_Target]]:
        """Return the lesson of one face, and what of it is scored."""
        lesson = self.lay_out(answer)
        differ = np.unique(np.flatnonzero(np.diff(_hundredths(pair.faces), axis=0)[0]))
        scored = np.isin(lesson.numbers, differ)
        if self.words:
            # The words, and the token that ends them: in a row the first of what follows, which is none of them.
            n_words = sum(weight > 0 for weight in self.lay_out(answer, "words").weights)
            scored[: n_words if self.parallel else n_words + 1] = True
        labels = [label if kept else IGNORED for label, kept in zip(lesson.labels, scored, strict=True)]
        weights = scored.astype(float).tolist()
        targets = [(side, place, labels[place]) for place in np.flatnonzero(scored).tolist()]
        return dataclasses.replace(lesson, labels=labels, weights=weights), targets

    def _shared(self, values: np.ndarray) -> tuple[Lesson, list[_Target]]:
        """Return one lesson for both faces of a pair, int[2, 52], and what of it is scored for which."""
        tokens = self.lay_out.tokens
        lesson = Lesson(labels=[IGNORED], weights=[0.0], numbers=[-1])
        targets: list[_Target] = []
        for number in np.flatnonzero(values[CHOSEN] != values[REJECTED]).tolist():
            key = tokens.keys[number] if number else tokens.opening
            spelled = [tokens.spelled[value] for value in values[:, number]]
            begins = [(*key, *each[:-1]) for each in spelled]
            start = 0
            for side in (CHOSEN, REJECTED):
                if side == CHOSEN or begins[REJECTED] != begins[CHOSEN]:
                    start = len(lesson.ids)
                    lesson.ids.extend(begins[side])
                    lesson.steps.extend(range(1, 1 + len(begins[side])))
                    # A group of its own, or the two would see each other.
                    lesson.branches.extend([side * GROUP + number + 1] * len(begins[side]))
                    silent = len(key) - 1
                    lesson.labels.extend([IGNORED] * silent + list(spelled[side]))
                    lesson.weights.extend([0.0] * silent + [1.0] * len(spelled[side]))
                    lesson.numbers.extend([-1] * silent + [number] * len(spelled[side]))
                targets += [(side, start + len(key) + nth, token) for nth, token in enumerate(spelled[side])]
        return lesson, targets

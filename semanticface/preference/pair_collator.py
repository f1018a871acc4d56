"""Batches of preference pairs: one encoding per face, or one for all faces of a picture, and the scored tokens.

Only numbers that differ between the two faces are scored, and the analysis where answers have one. A number that is
equal in both has no verdict, so it contributes neither margin nor likelihood.

With parallel decoding and no analysis, numbers attend to nothing but the picture. Then one row serves both faces of all
pairs of a picture: it holds the keys of the numbers that differ, and a number of one token is scored for all faces at
the same position. In sequential decoding, or behind an analysis, each face has its own row, chosen ones first.
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
from semanticface.models.answer_tokens import BRANCHES_PER_ANSWER, IGNORE_INDEX, AnswerEncoding, Numbers
from semanticface.preference.types import Pair
from semanticface.prompts import Prompt
from semanticface.semantics.analysis import describe_many
from semanticface.semantics.answer import format_answer
from semanticface.training.collator import Collator, Example
from semanticface.training.datasets import EvalFaces

GREY = (128, 128, 128)
"""Colour of the blank picture that measures how much a model uses the picture."""

CHOSEN, REJECTED = 0, 1

_Target = tuple[int, int, int]
"""Index of the answer, position among an encoding's labels, and the token scored there."""


@dataclass(frozen=True, slots=True, eq=False)
class PairExample:
    """A pair with its picture.

    Attributes:
        picture: square RGB crop at the model's image size; None where ``features`` replace it.
        faces: float32[2, 52] in [0, 1], chosen and rejected.
        view: number of the picture; pairs with the same one share a row where possible.
        features: cached vision features, each tensor [1, …].
    """

    picture: Image.Image | None
    faces: np.ndarray
    view: int
    features: Mapping[str, torch.Tensor] | None = None


class PairDataset(torch.utils.data.Dataset[PairExample]):
    """Pairs with their pictures, read from disk on access; mirror images, if any, follow all others.

    Args:
        pairs: of one split; hundredths, as all candidates.
        faces: that split, from ``load_faces``.
        image_size: side of the crops in pixels.
        mirrored: add every pair with picture and faces flipped.

    Attributes:
        features: cached vision features of each of ``n_views`` pictures, once set used in place of pictures.

    Raises:
        DatasetError: a pair of a missing row, or of two equal faces.
    """

    def __init__(self, pairs: Sequence[Pair], faces: datasets.Dataset, image_size: int, *, mirrored: bool) -> None:
        for pair in pairs:
            if not 0 <= pair.row < len(faces):
                raise DatasetError(f"a pair is about row {pair.row} of {len(faces)}: use the dataset of the pairs.")
            if np.array_equal(to_hundredths(pair.chosen), to_hundredths(pair.rejected)):
                raise DatasetError(f"row {pair.row}: both faces of a pair are equal. Make the pairs again.")
        self.pairs = pairs
        self.features: Sequence[Mapping[str, torch.Tensor]] | None = None
        self._pictures = EvalFaces(faces, image_size)
        views = [(pair.row, flipped) for flipped in ((False, True) if mirrored else (False,)) for pair in pairs]
        self._views = list(dict.fromkeys(views))
        number = {view: nth for nth, view in enumerate(self._views)}
        self._view_of = [number[view] for view in views]

    def __len__(self) -> int:
        return len(self._view_of)

    @property
    def n_views(self) -> int:
        """Number of different pictures, mirror images included."""
        return len(self._views)

    def view(self, number: int) -> Image.Image:
        """Return one of the different pictures."""
        row, flipped = self._views[number]
        picture = self._pictures[row].picture
        assert picture is not None
        return picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if flipped else picture

    def __getitem__(self, index: int) -> PairExample:
        if not 0 <= index < len(self):
            raise IndexError(index)
        flipped, nth = divmod(index, len(self.pairs))
        pair = self.pairs[nth]
        both = np.stack([pair.chosen, pair.rejected]).astype(np.float32)
        both = both[:, arkit.MIRROR_INDEX] if flipped else both
        view = self._view_of[index]
        if self.features is not None:
            return PairExample(None, both, view, self.features[view])
        return PairExample(self.view(view), both, view)

    def shuffled(self, seed: Sequence[int]) -> np.ndarray:
        """Return indices in random order, with the pairs of a picture next to each other; int[len]."""
        order = np.random.default_rng(seed).permutation(self.n_views)
        return np.argsort(order[self._view_of], kind="stable")


def blank(example: PairExample) -> PairExample:
    """Return a pair with a grey picture in place of its own."""
    assert example.picture is not None
    return PairExample(Image.new("RGB", example.picture.size, GREY), example.faces, example.view)


class PairCollator(Collator):
    """Makes batches of pairs for TRL's ``DPOTrainer``: chosen answers, then rejected ones.

    Args:
        processor: as for ``Collator``.
        prompt: what the model is asked.
        numbers: layout of the 52 numbers.
        analysis: whether answers have an analysis, written by Stage I.
        emotion: whether it speaks of emotion.
    """

    def __init__(self, processor: Any, prompt: Prompt, *, numbers: Numbers, analysis: bool, emotion: bool) -> None:
        super().__init__(processor, prompt, numbers=numbers)
        self.analysis = analysis
        self.emotion = emotion

    def __call__(self, pairs: Sequence[PairExample]) -> dict[str, Any]:  # type: ignore[override]
        """Return a batch of B pairs; answers 0 to B - 1 are the chosen ones, B to 2B - 1 the rejected.

        Returns:
            ``input_ids`` int64[2B, 1 + K]: a pad token, then the scored tokens in answer order; ``attention_mask`` and
            ``completion_mask``, of the same shape, mark the real ones. ``model_inputs``: the model's R rows as from
            ``Collator``, with labels only where something is scored, and for each of the T scored tokens
            ``score_positions`` int64[T], the position in the flattened [R, L] that predicts it, and ``token_slots``
            int64[T], its slot in the flattened [2B, K].
        """
        if self.parallel and not self.analysis:
            views: dict[int, list[int]] = {}
            for index, pair in enumerate(pairs):
                views.setdefault(pair.view, []).append(index)
            rows = [
                self._shared_row({index: to_hundredths(pairs[index].faces) for index in members}, len(pairs))
                for members in views.values()
            ]
            pictured = [pairs[members[0]] for members in views.values()]
        else:
            answers = self._answers(pairs)
            rows = [
                self._face_row(answers[side][index], pair, side * len(pairs) + index)
                for side in (CHOSEN, REJECTED)
                for index, pair in enumerate(pairs)
            ]
            pictured = [*pairs, *pairs]
        examples = [Example(pair.picture, "", features=pair.features) for pair in pictured]
        model_inputs = self.append_answers(self._prompts(examples), [encoding for encoding, _ in rows])

        spelled: list[list[int]] = [[] for _ in range(2 * len(pairs))]  # scored tokens of each answer
        scored = []  # (position in [R, L], answer, slot in the answer)
        length = model_inputs["labels"].shape[1]
        first = length - max(len(encoding.labels) for encoding, _ in rows)
        for row, (_, targets) in enumerate(rows):
            for answer, position, token in targets:
                scored.append((row * length + first + position, answer, len(spelled[answer])))
                spelled[answer].append(token)
        width = max(map(len, spelled))
        model_inputs["score_positions"] = torch.tensor([position for position, _, _ in scored])
        model_inputs["token_slots"] = torch.tensor([answer * width + slot for _, answer, slot in scored])
        real = torch.tensor([[1] * len(tokens) + [0] * (width - len(tokens)) for tokens in spelled])
        ids = torch.tensor([[self.pad_id, *tokens, *[self.pad_id] * (width - len(tokens))] for tokens in spelled])
        return {
            "input_ids": ids,
            "attention_mask": torch.cat([torch.ones_like(real[:, :1]), real], dim=1),
            "completion_mask": torch.cat([torch.zeros_like(real[:, :1]), real], dim=1),
            "model_inputs": model_inputs,
        }

    def _answers(self, pairs: Sequence[PairExample]) -> list[list[str]]:
        """Return the answers of each side."""
        answers = []
        for side in (CHOSEN, REJECTED):
            faces = np.stack([pair.faces[side] for pair in pairs])
            analyses = describe_many(faces, emotion=self.emotion) if self.analysis else [None] * len(faces)
            answers.append([format_answer(face, analysis) for face, analysis in zip(faces, analyses, strict=True)])
        return answers

    def _face_row(self, answer: str, pair: PairExample, number: int) -> tuple[AnswerEncoding, list[_Target]]:
        """Return the encoding of one face and its scored tokens."""
        encoding = self.answer_encoder(answer)
        differ = np.unique(np.flatnonzero(np.diff(to_hundredths(pair.faces), axis=0)[0]))
        scored = np.isin(encoding.number_ids, differ)
        if self.analysis:
            # The analysis and the token that ends it: sequentially that is the first token of what follows.
            n_analysis = sum(weight > 0 for weight in self.answer_encoder(answer, "analysis").loss_weights)
            scored[: n_analysis if self.parallel else n_analysis + 1] = True
        labels = [label if kept else IGNORE_INDEX for label, kept in zip(encoding.labels, scored, strict=True)]
        weights = scored.astype(float).tolist()
        targets = [(number, position, labels[position]) for position in np.flatnonzero(scored).tolist()]
        return dataclasses.replace(encoding, labels=labels, loss_weights=weights), targets

    def _shared_row(self, faces: Mapping[int, np.ndarray], n_pairs: int) -> tuple[AnswerEncoding, list[_Target]]:
        """Return one encoding for all pairs of a picture, int[2, 52] by number of the pair, and its scored tokens."""
        tokens = self.answer_encoder.number_tokens
        encoding = AnswerEncoding(labels=[IGNORE_INDEX], loss_weights=[0.0], number_ids=[-1])
        targets: list[_Target] = []
        differ = {pair: set(np.flatnonzero(both[CHOSEN] != both[REJECTED]).tolist()) for pair, both in faces.items()}
        for number in sorted(set().union(*differ.values())):
            key = tokens.keys[number] if number else tokens.opening
            starts: dict[tuple[int, ...], int] = {}  # branches of this number, by their tokens
            for pair, both in faces.items():
                if number not in differ[pair]:
                    continue
                for side in (CHOSEN, REJECTED):
                    spelled = tokens.value_tokens[both[side, number]]
                    prefix = (*key, *spelled[:-1])
                    if prefix not in starts:
                        # A group of its own, or branches of one number would attend to each other.
                        branch = len(starts) * BRANCHES_PER_ANSWER + number + 1
                        starts[prefix] = len(encoding.ids)
                        encoding.ids.extend(prefix)
                        encoding.position_offsets.extend(range(1, 1 + len(prefix)))
                        encoding.branch_ids.extend([branch] * len(prefix))
                        unscored = len(key) - 1
                        encoding.labels.extend([IGNORE_INDEX] * unscored + list(spelled))
                        encoding.loss_weights.extend([0.0] * unscored + [1.0] * len(spelled))
                        encoding.number_ids.extend([-1] * unscored + [number] * len(spelled))
                    start = starts[prefix] + len(key)
                    targets += [(side * n_pairs + pair, start + nth, token) for nth, token in enumerate(spelled)]
        return encoding, targets

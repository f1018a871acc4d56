"""Stage I: describe 52 coefficients in an animator's words.

``describe`` turns a vector into an ``Analysis`` with four levels: an expression category (``semantics.expression``),
the muscle movements of eight regions with graded intensities (``semantics.movements``), an emotion cue (none with
``emotion=False``) and the symmetry of the face. ``semantics.faithfulness`` checks an analysis against coefficients.

Left and right are the subject's own. Categories name what is visible ("raised brows and open mouth"), never an
emotion; emotions appear only in ``emotional_implication``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from semanticface.arkit import N_ACTIONS, REGIONS, to_hundredths
from semanticface.semantics.expression import UNCLEAR, categories
from semanticface.semantics.movements import VISIBLE, muscle_movements, muscle_movements_many, symmetry, visible
from semanticface.semantics.phrasing import GRADES

__all__ = ["GRADES", "UNCLEAR", "VISIBLE", "Analysis", "describe", "describe_many", "visible"]

_BATCH_SIZE = 4096  # faces whose arrays fit a processor's cache


@dataclass(frozen=True, slots=True)
class Analysis:
    """A face described in words.

    Attributes:
        expression_category: the expression as a whole, such as ``smile with raised cheeks``.
        muscle_movements: a phrase for each of the eight ``arkit.REGIONS``, in order.
        emotional_implication: the suggested emotion, or ``not clearly observable``; None when emotion is off.
        symmetry: whether both halves of the face move alike, and where they differ most.
    """

    expression_category: str
    muscle_movements: dict[str, str]
    emotional_implication: str | None
    symmetry: str

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form; the emotion key is omitted when emotion is off."""
        out: dict[str, Any] = {
            "expression_category": self.expression_category,
            "muscle_movements": dict(self.muscle_movements),
        }
        if self.emotional_implication is not None:
            out["emotional_implication"] = self.emotional_implication
        out["symmetry"] = self.symmetry
        return out

    def texts(self) -> dict[str, str]:
        """Return every text by its key or region, in the order of an answer."""
        out = {"expression_category": self.expression_category, **self.muscle_movements}
        if self.emotional_implication is not None:
            out["emotional_implication"] = self.emotional_implication
        return out | {"symmetry": self.symmetry}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Analysis:
        """Build from the JSON form, in any key order.

        Raises:
            ValueError: a missing or unknown key, or a value that is not text.
        """
        if not isinstance(values, Mapping):
            raise ValueError("an analysis must be an object with expression_category, muscle_movements and symmetry")
        needed = {"expression_category", "muscle_movements", "symmetry"}
        if set(values) - {"emotional_implication"} != needed:
            raise ValueError(f"an analysis must have the keys {sorted(needed)} and optionally emotional_implication")
        movements = values["muscle_movements"]
        if not isinstance(movements, Mapping) or set(movements) != set(REGIONS):
            raise ValueError(f"muscle_movements must have exactly the keys {list(REGIONS)}")
        for text in (*movements.values(), *(value for key, value in values.items() if key != "muscle_movements")):
            if not isinstance(text, str) or not text.strip():
                raise ValueError("every value of an analysis must be non-empty text")
        return cls(
            values["expression_category"],
            {region: movements[region] for region in REGIONS},
            values.get("emotional_implication"),
            values["symmetry"],
        )


def describe_many(coefficients: np.ndarray, *, emotion: bool = True) -> list[Analysis]:
    """Describe many faces.

    Args:
        coefficients: [N, 52] in [0, 1], project order.
        emotion: False sets ``emotional_implication`` to None.

    Raises:
        ValueError: a wrong shape, or a value outside [0, 1].
    """
    coefficients = np.asarray(coefficients)
    if coefficients.ndim != 2 or coefficients.shape[1] != N_ACTIONS:
        raise ValueError(f"expected [N, {N_ACTIONS}] coefficients, got shape {coefficients.shape}")
    out: list[Analysis] = []
    for start in range(0, len(coefficients), _BATCH_SIZE):
        values = to_hundredths(coefficients[start : start + _BATCH_SIZE])
        out += [
            Analysis(category, movements, (cue or UNCLEAR) if emotion else None, symmetric)
            for (category, cue), movements, symmetric in zip(
                categories(values), muscle_movements_many(values), symmetry(values), strict=True
            )
        ]
    return out


def describe(coefficients: np.ndarray, *, emotion: bool = True) -> Analysis:
    """Describe one face, a [52] vector, like ``describe_many`` but without lookup tables that only pay for many."""
    coefficients = np.asarray(coefficients)
    if coefficients.shape != (N_ACTIONS,):
        raise ValueError(f"expected [{N_ACTIONS}] coefficients, got shape {coefficients.shape}")
    values = to_hundredths(coefficients)
    ((category, cue),) = categories(values[None])
    (symmetric,) = symmetry(values[None])
    return Analysis(category, muscle_movements(values), (cue or UNCLEAR) if emotion else None, symmetric)

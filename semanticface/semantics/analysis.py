"""Stage I: what 52 coefficients look like, in words an animator would use, and whether such words are true.

``describe`` turns a vector into an ``Analysis`` of four levels: an expression category
(``semanticface.semantics.expression``), the muscle movements of eight regions with graded intensities
(``semanticface.semantics.movements``), an emotion cue (or none at all with ``emotion=False``) and the symmetry of the
face. ``agreement`` reads an analysis back, also one that a model wrote in its own words, and checks it against
coefficients.

Left and right are the subject's own. Categories name what is seen ("raised brows and open mouth"), never a feeling;
the feeling is said in ``emotional_implication`` alone.
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

__all__ = [
    "GRADES",
    "UNCLEAR",
    "VISIBLE",
    "Analysis",
    "describe",
    "describe_many",
    "visible",
]


_AT_ONCE = 4096  # faces whose arrays fit a processor's cache


@dataclass(frozen=True, slots=True)
class Analysis:
    """A face in words.

    Attributes:
        expression_category: what the face shows as a whole, such as ``smile with raised cheeks``.
        muscle_movements: a phrase for each of the eight ``arkit.REGIONS``, in their order.
        emotional_implication: what the face suggests, or ``not clearly observable``; None when emotion is switched off.
        symmetry: whether both halves of the face do the same, and where they differ most.
    """

    expression_category: str
    muscle_movements: dict[str, str]
    emotional_implication: str | None
    symmetry: str

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form; the emotion key is left out where emotion is switched off."""
        out: dict[str, Any] = {
            "expression_category": self.expression_category,
            "muscle_movements": dict(self.muscle_movements),
        }
        if self.emotional_implication is not None:
            out["emotional_implication"] = self.emotional_implication
        out["symmetry"] = self.symmetry
        return out

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Analysis:
        """Build from the JSON form, in any key order.

        Raises:
            ValueError: a missing or unknown key, or a value that is not text.
        """
        if not isinstance(values, Mapping):
            raise ValueError("an analysis is an object with expression_category, muscle_movements and symmetry")
        needed = {"expression_category", "muscle_movements", "symmetry"}
        if set(values) - {"emotional_implication"} != needed:
            raise ValueError(f"an analysis has the keys {sorted(needed)} and perhaps emotional_implication")
        movements = values["muscle_movements"]
        if not isinstance(movements, Mapping) or set(movements) != set(REGIONS):
            raise ValueError(f"muscle_movements has exactly the keys {list(REGIONS)}")
        for text in (*movements.values(), *(value for key, value in values.items() if key != "muscle_movements")):
            if not isinstance(text, str) or not text.strip():
                raise ValueError("every value of an analysis is text, and none is empty")
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
        emotion: False leaves ``emotional_implication`` out (None).

    Raises:
        ValueError: a wrong shape, or a value that is not a number in [0, 1].
    """
    given = np.asarray(coefficients)
    if given.ndim != 2 or given.shape[1] != N_ACTIONS:
        raise ValueError(f"expected [N, {N_ACTIONS}] coefficients, got shape {given.shape}")
    out: list[Analysis] = []
    for start in range(0, len(given), _AT_ONCE):
        values = to_hundredths(given[start : start + _AT_ONCE])
        out += [
            Analysis(category, movements, (cue or UNCLEAR) if emotion else None, symmetric)
            for (category, cue), movements, symmetric in zip(
                categories(values), muscle_movements_many(values), symmetry(values), strict=True
            )
        ]
    return out


def describe(coefficients: np.ndarray, *, emotion: bool = True) -> Analysis:
    """Describe one face, a [52] vector; as ``describe_many`` does, without the tables that only pay for many."""
    given = np.asarray(coefficients)
    if given.shape != (N_ACTIONS,):
        raise ValueError(f"expected [{N_ACTIONS}] coefficients, got shape {given.shape}")
    values = to_hundredths(given)
    ((category, cue),) = categories(values[None])
    (symmetric,) = symmetry(values[None])
    return Analysis(category, muscle_movements(values), (cue or UNCLEAR) if emotion else None, symmetric)

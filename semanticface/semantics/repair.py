"""Repair an analysis that was written before its numbers: replace what does not hold for them.

Of a region's text the clauses that hold stay, and Stage I's words about the rest take the place of those that do not.
The category, the emotion and the symmetry are replaced whole.
"""

from __future__ import annotations

import numpy as np

from semanticface.arkit import REGIONS, to_hundredths
from semanticface.semantics.analysis import Analysis, describe
from semanticface.semantics.faithfulness import Faces, text_claims


def repaired(analysis: Analysis, coefficients: np.ndarray) -> tuple[Analysis, dict[str, str]]:
    """Return an analysis of which every claim holds for the [52] coefficients, and the texts that were replaced.

    Returns:
        The analysis, and the former text of each region or key that changed.
    """
    faces = Faces(to_hundredths(coefficients)[None])
    texts = analysis.texts()
    changed = {key: text for key, text in texts.items() if not _holds(faces, key, text)}
    if not changed:
        return analysis, {}
    rules = describe(coefficients, emotion=analysis.emotional_implication is not None).texts()
    for key, text in changed.items():
        texts[key] = _mended(faces, key, text, rules[key]) if key in REGIONS else rules[key]
    movements = {region: texts[region] for region in REGIONS}
    emotion = texts.get("emotional_implication")
    return Analysis(texts["expression_category"], movements, emotion, texts["symmetry"]), changed


def _holds(faces: Faces, key: str, text: str) -> bool:
    return all(faces.first_holds(claim) for claim in text_claims(key, text))


def _mended(faces: Faces, region: str, text: str, rules: str) -> str:
    kept: list[str] = []
    for clause in text.split(", "):
        if _holds(faces, region, ", ".join([*kept, clause])):
            kept.append(clause)
    if not kept:
        return rules
    said = _actions(region, ", ".join(kept))
    for clause in rules.split(", "):
        longer = ", ".join([*kept, clause])
        if _actions(region, longer) - said and _holds(faces, region, longer):
            kept.append(clause)
            said = _actions(region, longer)
    return ", ".join(kept)


def _actions(region: str, text: str) -> set[str]:
    return {name for claim in text_claims(region, text) for name in claim.actions}

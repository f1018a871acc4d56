"""Candidates made in code for the pictures of a dataset, saved as train/prefer.py saves them. Not a test file."""

from __future__ import annotations

import hashlib
from pathlib import Path

import datasets
import numpy as np

from semanticface.data.faces import load_faces
from semanticface.preference.files import CandidateHeader, write_candidates
from semanticface.preference.types import Candidate, CandidateSet
from semanticface.semantics.expression_sampler import sample_coefficients


def slates_of(folder: Path, split: str = "train", *, count: int = 3) -> list[CandidateSet]:
    """Return random candidates for every row of a split."""
    rng = np.random.default_rng(11)
    out = []
    for row, there in enumerate(load_faces(folder, split).cast_column("picture", datasets.Image(decode=False))):
        faces = [sample_coefficients(rng).round(2).astype(np.float32) for _ in range(count)]
        candidates = tuple(Candidate(f"model-{n}", "model", face) for n, face in enumerate(faces, start=1))
        picture = hashlib.sha256(there["picture"]["bytes"]).hexdigest()
        out.append(CandidateSet(picture, row, there["subject"], candidates))
    return out


def save(path: Path, folder: Path, slates: list[CandidateSet], split: str = "train") -> Path:
    """Write slates about a split of a dataset as a file of candidates of round 1."""
    header = CandidateHeader("m" * 64, load_faces(folder, split)._fingerprint, split, 1, {})
    write_candidates(path, header, slates)
    return path

"""Random candidates for the pictures of a dataset, saved as by train/prefer.py. Not a test file."""

import hashlib
from pathlib import Path

import datasets
import numpy as np

from semanticface.data.faces import load_faces
from semanticface.preference.files import CandidateHeader, write_candidates
from semanticface.preference.types import Candidate, CandidateSet
from semanticface.semantics.expression_sampler import sample_coefficients


def candidate_sets_of(folder: Path, split: str = "train", *, count: int = 3) -> list[CandidateSet]:
    """Return random candidates for every row of a split."""
    rng = np.random.default_rng(11)
    out = []
    for row, record in enumerate(load_faces(folder, split).cast_column("picture", datasets.Image(decode=False))):
        faces = [sample_coefficients(rng).round(2).astype(np.float32) for _ in range(count)]
        candidates = tuple(Candidate(f"model-{n}", "model", face) for n, face in enumerate(faces, start=1))
        picture = hashlib.sha256(record["picture"]["bytes"]).hexdigest()
        out.append(CandidateSet(picture, row, record["subject"], candidates))
    return out


def save(path: Path, folder: Path, candidate_sets: list[CandidateSet], split: str = "train") -> Path:
    """Write candidate sets for a split of a dataset as a file of candidates of round 1."""
    header = CandidateHeader("m" * 64, load_faces(folder, split)._fingerprint, split, 1, {})
    write_candidates(path, header, candidate_sets)
    return path

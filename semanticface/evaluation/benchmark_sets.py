"""The benchmark's pictures: who is drawn, in which look, how; and the constants that readers of them stand beside.

Row k of a set follows from the set's key and k alone, so the first 50 pictures of 500 are the 50 of a smaller set.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from semanticface.data.rendered import RenderSettings, render_set, renderer_hash
from semanticface.evaluation import metrics
from semanticface.semantics.expression_sampler import sample_coefficients

ROWS = 500
SIZE = 512
FIRST_SUBJECT = 8_000_000
SUBJECTS = 100_000
"""Training sets count their people from 0, the face finder's from 5,000,000, the benchmarks of speed from 9,000,000."""
LABELS_FOR_CONSTANTS = 20_000
SEED = 2026


def set_folder(pictures: Path, key: str, rows: int) -> Path:
    """Return where a set's pictures are kept; another renderer, another folder."""
    return pictures / f"{key}-{rows}-{renderer_hash()}"


def draw_set(pictures: Path, key: str, rows: int, *, size: int = SIZE, workers: int = 1) -> Path:
    """Return the folder of a set's pictures, drawn where they are not there yet; shows a progress bar.

    Args:
        pictures: folder of the sets.
        key: one of ``benchmark.SETS``.
        rows: pictures of the set.
        size: side of the portraits in pixels.
        workers: processes that draw.

    Raises:
        ConfigError: settings that cannot be met.
        DatasetError: the folder holds something else, or a worker was killed.
        SemanticFaceError: the system refuses to write.
    """
    settings = RenderSettings(
        rows=rows,
        looks={"photo" if key == "shifted" else key: 1.0},
        size=size,
        conditions="hard" if key == "shifted" else "usual",
        splits={"test": 1.0},
        first_subject=FIRST_SUBJECT,
        subjects=SUBJECTS,
        seed=SEED,
    )
    return render_set(set_folder(pictures, key, rows), settings, workers=workers)


def constant_answers(labels: int = LABELS_FOR_CONSTANTS) -> tuple[np.ndarray, np.ndarray]:
    """Return mean and median, float32[52] each, of the distribution that labels are drawn from, over ``labels``."""
    rng = np.random.default_rng(SEED)
    return metrics.constants(np.stack([sample_coefficients(rng) for _ in range(labels)]))

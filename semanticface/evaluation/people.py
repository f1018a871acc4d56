"""What a model says of photographs of people, for whom nobody knows the coefficients.

Three questions can be asked without labels:

* **What fires at rest?** On still faces, the share of actions above ``FIRES``. A face is still if MediaPipe's own
  scores of the actions in ``BELIEVED``, but for gaze and ``browDown`` (which it gives to smiling and calm faces alike),
  are all below ``STILL``. As MediaPipe chooses the faces, its own share flatters it.
* **Where do the eyes look?** The mean of ``eyeLookUp`` minus ``eyeLookDown`` over both eyes. People look into the
  camera in portraits, so it should be near 0.
* **Does it agree with MediaPipe where MediaPipe can be believed?** Pearson's correlation over pictures on the actions
  in ``BELIEVED`` that vary among the pictures, and both means. Correlation does not depend on MediaPipe's scale, means
  do: its scores are rescaled to ARKit's, then clipped to [0, 1].
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from semanticface import arkit
from semanticface.data.importers.mediapipe import ACTIONS, BELIEVED
from semanticface.errors import ConfigError
from semanticface.evaluation import bootstrap
from semanticface.evaluation.benchmark import MODEL, PEER, false_rates, plain
from semanticface.vision.image_io import SUFFIXES

STILL = 0.3
VARIES = 0.02
"""Standard deviation of MediaPipe's scores below which an action is left out of the agreement."""
_STILL_ACTIONS = [arkit.INDEX[name] for name in BELIEVED if not name.startswith(("eyeLook", "browDown"))]


def portraits(folder: Path) -> list[Path]:
    """Return the pictures in a folder of people, by name.

    Raises:
        ConfigError: the folder is missing, or holds no picture.
    """
    if not folder.is_dir():
        raise ConfigError(f"{folder}: no such folder. Give a folder with portraits of people.")
    found = sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES)
    if not found:
        raise ConfigError(f"{folder}: no pictures in this folder. Give a folder with portraits of people.")
    return found


def still_faces(peer: np.ndarray) -> np.ndarray:
    """Return which faces MediaPipe says are nearly neutral, bool[N].

    Args:
        peer: float[N, 52], MediaPipe's scores; NaN rows if it finds no face, which is not still.
    """
    return np.asarray((peer[:, _STILL_ACTIONS] < STILL).all(axis=1))


def score_people(model: np.ndarray, peer: np.ndarray, sample: np.ndarray, *, seed: int = 0) -> dict[str, Any]:
    """Answer the questions of this module.

    Args:
        model: float[N, 52] in [0, 1]; NaN rows without an answer.
        peer: float[N, 52], MediaPipe's scores; NaN rows without a face.
        sample: bool[N], pictures that count for gaze and agreement; still faces count wherever they are.
        seed: of the bootstrap, which resamples pictures.

    Returns:
        A JSON-serializable dict; figures are [value, low, high], or None if undefined:

        * ``pictures`` and ``still``: counts; ``answered``: {method: count} among both;
        * ``rest``: ``benchmark.false_rates`` on the still faces;
        * ``gaze_up``: by method;
        * ``agreement``: mean correlation over the actions of ``actions``: {action: {correlation, mean_model,
          mean_mediapipe}}, over pictures that both methods answer.
    """
    still = still_faces(peer)
    answers = {MODEL: np.asarray(model, np.float64), PEER: np.asarray(peer, np.float64)}
    counted = still | sample
    out: dict[str, Any] = {"pictures": int(sample.sum()), "still": int(still.sum())}
    out["answered"] = {key: int((~np.isnan(rows[counted]).any(axis=1)).sum()) for key, rows in answers.items()}
    rest = {key: rows[still] for key, rows in answers.items()}
    out["rest"] = false_rates(rest, np.arange(still.sum()), actions={PEER: ACTIONS}, seed=seed)
    out["gaze_up"] = {key: _mean(_gaze_up(rows[sample]), seed) for key, rows in answers.items()}
    both = sample & ~np.isnan(answers[MODEL]).any(axis=1) & ~np.isnan(answers[PEER]).any(axis=1)
    ours, theirs = answers[MODEL][both], answers[PEER][both]
    names = [name for name in BELIEVED if len(theirs) > 1 and theirs[:, arkit.INDEX[name]].std() >= VARIES]
    indices = [arkit.INDEX[name] for name in names]
    out["agreement"], out["actions"] = None, {}
    if names:
        weights = bootstrap.resample(np.arange(len(ours)), seed=seed)
        each = bootstrap.correlations(theirs[:, indices], ours[:, indices], weights)
        out["agreement"] = plain(bootstrap.estimate(np.nanmean(each, axis=1)))
        for name, i, correlation in zip(names, indices, each[0], strict=True):
            scale, offset = BELIEVED[name]
            out["actions"][name] = {
                "correlation": round(float(correlation), 5),
                "mean_model": round(float(ours[:, i].mean()), 5),
                "mean_mediapipe": round(float(np.clip(scale * theirs[:, i] + offset, 0, 1).mean()), 5),
            }
    return out


def headline(found: dict[str, Any]) -> Iterator[tuple[str, float | None]]:
    """Yield the figures of the benchmark's last output line from ``score_people``'s result."""
    yield "people_agreement", _value(found["agreement"])
    for key, suffix in ((MODEL, ""), (PEER, f"_{PEER}")):
        yield f"people_rest_false_rate{suffix}", _value(found["rest"]["false_rate"][key])
        yield f"people_gaze_up{suffix}", _value(found["gaze_up"][key])


def _gaze_up(answers: np.ndarray) -> np.ndarray:
    up, down = ([arkit.INDEX[f"eyeLook{way}{side}"] for side in ("Left", "Right")] for way in ("Up", "Down"))
    difference: np.ndarray = answers[:, up].mean(axis=1) - answers[:, down].mean(axis=1)
    return difference[~np.isnan(difference)]


def _mean(values: np.ndarray, seed: int) -> list[float] | None:
    if not len(values):
        return None
    weights = bootstrap.resample(np.arange(len(values)), seed=seed)
    return plain(bootstrap.mean(values, weights))


def _value(figure: list[float] | None) -> float | None:
    return None if figure is None else figure[0]

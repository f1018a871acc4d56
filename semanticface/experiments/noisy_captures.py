"""Simulated facial capture: takes of rendered people, with exact labels and with those capture software would write.

A take is a face that moves from one expression to the next at about 30 frames a second; every so many frames one is
rendered. ``CaptureErrors`` are applied to the whole sequence before frames are picked, because software errs over time:
it reads some movements too weakly and some not at all, reports a little of what is absent, lets one movement leak into
others, ties the two sides of a face together, and smooths, which adds lag.

Their size follows a real Live Link Face take (a range of motion of one person, 4,030 frames at about 30 a second) as
far as that can be measured without ground truth, by ``statistics``. In it about half of the actions are never exactly
0, and others nearly always; maxima lie anywhere between 0.1 and 1; both sides move alike; hardly any fast noise is
left. Some of this is the person, not error: actions correlate in real expressions too. The lag cannot be measured on a
single take and is a guess.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets
import numpy as np

from semanticface import arkit
from semanticface.config import check_range
from semanticface.data.faces import load_faces, recipe_of_kind, shard_path, write_index, write_shard
from semanticface.data.rendered import RenderSettings, render_row
from semanticface.errors import DatasetError
from semanticface.recipe import versions, write_recipe
from semanticface.semantics.analysis import describe_many
from semanticface.semantics.answer import format_answer
from semanticface.semantics.expression_sampler import sample_coefficients
from semanticface.utils.progress import tqdm

# Actions that both sides make together; gaze is left out: it goes in on one side and out on the other.
_PAIRS = [
    (action.index, arkit.INDEX[action.mirror])
    for action in arkit.ACTIONS
    if action.name.endswith("Left") and not action.name.startswith(("jaw", "mouthLeft", "eyeLookIn", "eyeLookOut"))
]
_OPPOSED = [
    (arkit.INDEX[one], arkit.INDEX[other])
    for one, other in (
        ("jawLeft", "jawRight"),
        ("mouthLeft", "mouthRight"),
        *(
            (f"eye{one}{side}", f"eye{other}{side}")
            for side in ("Left", "Right")
            for one, other in (("LookIn", "LookOut"), ("LookUp", "LookDown"), ("Wide", "Blink"))
        ),
    )
]
_HOLD, _MOVE = (3, 45), (4, 12)
"""Least and most frames for which an expression is held, and in which the face moves to the next."""

_SECOND = 30
_INACTIVE = 0.12
_CONSTANT = 1e-8

# The errors at severity 1. Logarithms of gains and of biases are normal: mean and standard deviation.
_GAIN = (-0.35, 0.35)
_BIAS = (-2.9, 0.7)
_AT_REST = 0.65
"""Share of actions with a positive bias, reported at rest; the others' bias is negative."""
_DEAD = 0.04
"""Two actions of 52: in the real take jaw left and right end at 0.11."""
_LEAKS = 0.1
"""Share of pairs of actions that leak."""
_LEAK = (0.1, 0.2)
"""Amount of a leak, mean and standard deviation; below 0 one movement hides another."""
_TIE = (0.8, 1.0)
"""Share of the difference between both sides that is lost."""
_LAG = (1.0, 3.0)
"""Frames; the smoothing gives the slow changes of a real take."""
_NOISE, _NOISE_CORRELATION = 0.01, 0.95
"""Standard deviation, and correlation with the next frame: slow, because half of the changes of speed in the real take
are below hundredths too."""


def expression_sequence(seed: int, frames: int) -> np.ndarray:
    """Make a sequence that moves between random expressions, as at 30 frames a second.

    Args:
        seed: determines the sequence; a longer one begins with the shorter one.
        frames: length.

    Returns:
        float32[frames, 52] in [0, 1]: ``sample_coefficients`` held for a while, with minimum-jerk paths between (Flash
        and Hogan 1985). Opposed actions, such as jaw left and right, exclude each other in every frame.
    """
    check_range("frames", frames, 0)
    rng = np.random.default_rng([seed, 17])
    parts, count, pose = [np.zeros((0, arkit.N_ACTIONS))], 0, sample_coefficients(rng)
    while count < frames:
        target = sample_coefficients(rng)
        hold, move = int(rng.integers(*_HOLD, endpoint=True)), int(rng.integers(*_MOVE, endpoint=True))
        t = np.concatenate([np.zeros(hold), np.arange(1, move + 1) / move])[:, None]
        parts.append(pose + (10 * t**3 - 15 * t**4 + 6 * t**5) * (target - pose))
        count, pose = count + hold + move, target
    sequence = np.concatenate(parts)[:frames]
    for one, other in _OPPOSED:
        both = np.minimum(sequence[:, one], sequence[:, other])
        sequence[:, one] -= both
        sequence[:, other] -= both
    return sequence.clip(0, 1).astype(np.float32)


@dataclass(frozen=True, slots=True, eq=False)
class Statistics:
    """Statistics of a capture that show its errors without ground truth.

    Attributes:
        zeros: float64[52], share of frames in which an action is exactly 0.
        low: float64[52], 5th percentile of each action.
        high: float64[52], 99th percentile of each action.
        inactive: bool[52], actions that never exceed 0.12.
        side_correlations: float64[16], correlation of left and right side for actions that both sides make together.
        correlations: float64[52, 52], correlations between actions.
        autocorrelation_1: float64[52], correlation of each action with itself one frame before.
        autocorrelation_30: float64[52], the same for 30 frames before.
        jitter: float64[52], root mean square of the second differences over time, divided by the square root of 6: the
            standard deviation of the noise if it were white and all else slow.

    Correlations with a constant are NaN.
    """

    zeros: np.ndarray
    low: np.ndarray
    high: np.ndarray
    inactive: np.ndarray
    side_correlations: np.ndarray
    correlations: np.ndarray
    autocorrelation_1: np.ndarray
    autocorrelation_30: np.ndarray
    jitter: np.ndarray

    def summary(self) -> dict[str, float]:
        """Return shares, and medians over actions or pairs of actions."""
        between = np.abs(self.correlations[np.triu_indices(arkit.N_ACTIONS, 1)])
        return {
            "never_zero": float(np.mean(self.zeros < 0.01)),
            "mostly_zero": float(np.mean(self.zeros > 0.5)),
            "inactive": float(self.inactive.mean()),
            "low": float(np.median(self.low)),
            "high": float(np.median(self.high)),
            "high_tenth": float(np.percentile(self.high, 10)),
            "sides": float(np.nanmedian(self.side_correlations)),
            "together": float(np.nanmedian(between)),
            "steadiness": float(np.nanmedian(self.autocorrelation_1)),
            "memory": float(np.nanmedian(self.autocorrelation_30)),
            "jitter": float(np.median(self.jitter)),
        }


def statistics(coefficients: np.ndarray) -> Statistics:
    """Measure a sequence.

    Args:
        coefficients: ``[T, 52]`` in [0, 1], in order of time, about 30 frames a second, rounded to hundredths; T > 31.
    """
    x = np.asarray(coefficients, np.float64)
    if x.ndim != 2 or x.shape[1] != arkit.N_ACTIONS or len(x) <= _SECOND + 1:
        raise ValueError(f"expected [T, {arkit.N_ACTIONS}] coefficients, T > {_SECOND + 1}, got shape {x.shape}")
    left, right = (list(side) for side in zip(*_PAIRS, strict=True))
    every = np.arange(arkit.N_ACTIONS)
    return Statistics(
        zeros=(x == 0).mean(axis=0),
        low=np.percentile(x, 5, axis=0),
        high=np.percentile(x, 99, axis=0),
        inactive=x.max(axis=0) <= _INACTIVE,
        side_correlations=_correlations(x[:, left], x[:, right]),
        correlations=np.stack([_correlations(x, x[:, [index] * arkit.N_ACTIONS]) for index in every]),
        autocorrelation_1=_correlations(x[1:], x[:-1]),
        autocorrelation_30=_correlations(x[_SECOND:], x[:-_SECOND]),
        jitter=np.sqrt(np.mean(np.diff(x, n=2, axis=0) ** 2, axis=0) / 6),
    )


def _correlations(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Correlate columns, float64[columns]; NaN where one is constant."""
    one, other = one - one.mean(axis=0), other - other.mean(axis=0)
    spread = np.sqrt((one**2).mean(axis=0) * (other**2).mean(axis=0))
    out = np.full(one.shape[1], np.nan)
    np.divide((one * other).mean(axis=0), spread, out=out, where=spread > _CONSTANT)
    return out


@dataclass(frozen=True, slots=True, eq=False)
class CaptureErrors:
    """The errors of one software on one person's face.

    The label of a frame x is ``mix @ x``, smoothed by a first-order filter with a delay of ``lag`` frames, times
    ``gain``, plus ``bias``, plus noise; clipped to [0, 1] and rounded to hundredths. Dead actions are 0.

    Attributes:
        gain: float64[52], factor of each movement; 0 for dead actions.
        bias: float64[52], above 0 for actions reported at rest, below 0 for those with a threshold; 0 for dead actions.
        mix: float64[52, 52], how much of each column's action goes into each row's; the identity is perfect.
        lag: mean delay in frames.
        noise: standard deviation of the noise.
        noise_correlation: correlation of the noise of successive frames, 0 to 1.
        seed: of the noise.
    """

    gain: np.ndarray
    bias: np.ndarray
    mix: np.ndarray
    lag: float
    noise: float
    noise_correlation: float
    seed: int

    @property
    def dead(self) -> np.ndarray:
        """Actions that are never reported, bool[52]."""
        return self.gain == 0

    @staticmethod
    def sample(seed: int, severity: float = 1.0) -> CaptureErrors:
        """Sample errors, nearly alike on both sides of the face.

        Args:
            seed: of person and software, and of the noise.
            severity: 0 to 2; 0 only rounds, 1 gives the statistics of a real take, 2 is far worse.
        """
        check_range("severity", severity, 0, 2)
        rng = np.random.default_rng([seed, 18])
        partner = arkit.MIRROR_INDEX
        # A pair's common part is sampled at the index of one side; a midline action is its own partner.
        common_index = np.where(partner < np.arange(arkit.N_ACTIONS), partner, np.arange(arkit.N_ACTIONS))

        def normals() -> np.ndarray:
            """Return standard normal values, nearly alike on both sides; float64[52]."""
            own, common = rng.standard_normal((2, arkit.N_ACTIONS))
            return np.asarray(0.97 * common[common_index] + 0.243 * own)

        gain = np.exp(severity * (_GAIN[0] + _GAIN[1] * normals()))
        at_rest = rng.random(arkit.N_ACTIONS)[common_index] < _AT_REST
        size = np.exp(_BIAS[0] + _BIAS[1] * normals())
        bias = severity * np.where(at_rest, size, -size)
        dead = rng.random(arkit.N_ACTIONS)[common_index] < _DEAD * severity
        gain[dead] = bias[dead] = 0.0
        leaks = rng.random((arkit.N_ACTIONS, arkit.N_ACTIONS)) < _LEAKS
        amounts = severity * rng.normal(*_LEAK, leaks.shape)
        mix = np.eye(arkit.N_ACTIONS) + np.where(leaks & ~np.eye(arkit.N_ACTIONS, dtype=bool), amounts, 0.0)
        tie = np.eye(arkit.N_ACTIONS)
        for left, right in _PAIRS:
            # Half of each side's difference goes to the other, which keeps their mean.
            over = 0.5 * min(1.0, severity * rng.uniform(*_TIE))
            tie[[left, right], [left, right]] = 1 - over
            tie[[left, right], [right, left]] = over
        lag = severity * rng.uniform(*_LAG)
        return CaptureErrors(gain, bias, tie @ mix, lag, severity * _NOISE, _NOISE_CORRELATION, seed)

    def corrupt(self, coefficients: np.ndarray, *, take: int = 0) -> np.ndarray:
        """Return the labels that the software would write.

        Args:
            coefficients: ``[T, 52]`` in [0, 1], in order of time.
            take: number of the take; each has its own noise.

        Returns:
            float32[T, 52] in [0, 1], hundredths.
        """
        true = np.asarray(coefficients, np.float64)
        if true.ndim != 2 or true.shape[1] != arkit.N_ACTIONS:
            raise ValueError(f"expected [T, {arkit.N_ACTIONS}] coefficients, got shape {true.shape}")
        smoothed = _low_pass(true @ self.mix.T, 1 / (1 + self.lag))
        fresh = np.random.default_rng([self.seed, take, 19]).standard_normal(true.shape)
        # Keeps the standard deviation constant.
        fresh[1:] *= np.sqrt(1 - self.noise_correlation**2)
        noise = np.zeros_like(fresh)
        for frame, new in enumerate(fresh):
            noise[frame] = new + (self.noise_correlation * noise[frame - 1] if frame else 0.0)
        labels = self.gain * smoothed + self.bias + self.noise * noise
        labels[:, self.dead] = 0.0
        return np.round(labels.clip(0, 1), 2).astype(np.float32) + np.float32(0)


def _low_pass(values: np.ndarray, rate: float) -> np.ndarray:
    """Apply a first-order filter over time from the first frame on; delays by 1 / rate - 1 frames."""
    out = values.copy()
    for frame in range(1, len(values)):
        out[frame] = out[frame - 1] + rate * (values[frame] - out[frame - 1])
    return out


@dataclass(frozen=True, slots=True)
class TakeSettings:
    """Size and style of the takes.

    Attributes:
        train: training takes, each of another person.
        validation: validation takes, of other people.
        frames: pictures per take.
        every: frames from one picture to the next, at about 30 a second.
        style: in which people are rendered.
        first_subject: number of the first person.
        seed: of expressions, cameras and light.
    """

    train: int = 150
    validation: int = 30
    frames: int = 12
    every: int = 12
    style: str = "photo"
    first_subject: int = 7_000_000
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("train", "validation", "frames", "every"):
            check_range(f"takes.{name}", getattr(self, name), 1)
        check_range("takes.seed", self.seed, 0)

    @property
    def splits(self) -> dict[str, int]:
        """Takes of each split."""
        return {"train": self.train, "validation": self.validation}

    def sequence(self, take: int) -> np.ndarray:
        """Return every frame of a take, float32[frames * every, 52]."""
        return expression_sequence(self.seed * 1_000_003 + take, self.frames * self.every)

    def takes(self, split: str) -> range:
        """Return the numbers of a split's takes; those of ``validation`` follow those of ``train``."""
        start = 0 if split == "train" else self.train
        return range(start, start + self.splits[split])


def record_takes(out: Path, settings: TakeSettings, errors: CaptureErrors) -> dict[str, np.ndarray]:
    """Render takes and write them twice: ``out/exact``, and ``out/captured`` with the labels of simulated capture.

    Returns:
        The captured labels of each split, float32[takes * frames, 52].
    """
    exact = render_takes(out / "exact", settings)
    labels = {split: captured_labels(settings, errors, split) for split in settings.splits}
    relabel(exact, out / "captured", labels, {"of": dataclasses.asdict(settings), "seed": errors.seed})
    return labels


def render_takes(out: Path, settings: TakeSettings) -> Path:
    """Render the pictures of all takes, 128 px crops with exact labels in order of time, unless they exist."""
    render_settings = RenderSettings(rows=1, size=128, supersample=1, framing="crop")
    expected, recipe = dataclasses.asdict(settings), recipe_of_kind(out)
    if recipe is not None and any(shard_path(out, split, 0, 1).is_file() for split in settings.splits):
        existing = recipe.get("takes", {})
        pairs = [(name, existing.get(name), value) for name, value in expected.items()]
        differing = [f"{name} was {other}, now {value}" for name, other, value in pairs if other != value]
        if differing:
            raise DatasetError(f"{out} holds other takes ({', '.join(differing)}). Use the same, or another folder.")
    write_recipe(out, {"kind": "faces", "takes": expected})
    for split, takes in settings.splits.items():
        path = shard_path(out, split, 0, 1)
        if path.is_file():
            continue
        rows = []
        for take in tqdm(settings.takes(split), desc=f"rendering takes, {split}", total=takes, unit="take"):
            rng = np.random.default_rng([settings.seed, take, 23])
            for coefficients in settings.sequence(take)[:: settings.every]:
                shot = int(rng.integers(2**31))
                subject = settings.first_subject + take
                rows.append(
                    render_row(
                        render_settings, coefficients, style=settings.style, subject=subject, shot=shot, seed=shot
                    )
                )
        write_shard(path, rows)
    write_index(out, dict.fromkeys(settings.splits, 1), {"takes": expected, "versions": versions()})
    return out


def captured_labels(settings: TakeSettings, errors: CaptureErrors, split: str) -> np.ndarray:
    """Return the captured labels of a split's pictures, float32[takes * frames, 52]."""
    return np.concatenate(
        [errors.corrupt(settings.sequence(take), take=take)[:: settings.every] for take in settings.takes(split)]
    )


def relabel(faces: Path, out: Path, labels: Mapping[str, np.ndarray], origin: Mapping[str, Any]) -> Path:
    """Write the same pictures with other labels and matching answers.

    Args:
        faces: a folder of faces.
        out: the new folder.
        labels: float32[rows, 52] in hundredths, for each split to write.
        origin: how the labels were made; determines the new dataset's fingerprint.
    """
    for split, values in labels.items():
        rows = load_faces(faces, split).cast_column("picture", datasets.Image(decode=False))
        if len(rows) != len(values):
            raise DatasetError(f"{faces}: {len(rows)} rows in {split}, but {len(values)} labels for them.")
        answers = [format_answer(value, each) for value, each in zip(values, describe_many(values), strict=True)]
        new = [
            row | {"picture": row["picture"]["bytes"], "coefficients": value, "answer": answer}
            for row, value, answer in zip(rows, values, answers, strict=True)
        ]
        write_shard(shard_path(out, split, 0, 1), new)
    write_index(out, dict.fromkeys(labels, 1), origin)
    if recipe_of_kind(faces) is not None:  # rendered people need not consent
        write_recipe(out, {"kind": "faces", "relabelled": dict(origin)})
    return out

"""How capture software errs, for experiments in which the truth is known: sequences, errors put into them, statistics.

Software that captures coefficients from video is wrong in ways of its own: it reads some movements too weakly and some
not at all, reports a little of what is not there, lets one movement leak into others, ties the two sides of a face to
each other, and smooths, so that it trails behind. ``CaptureErrors`` does this to exact coefficients.

How much, follows what a real Live Link Face take leaves to see (a range of motion of one person, 4,030 frames at about
30 a second), as far as one can see it without a truth; ``statistics`` measures it. There about half of the actions are
never exactly 0, and others nearly always; ranges end anywhere from 0.1 to 1; the two sides move as one; nearly nothing
is left of fast noise. What the person did is in it too: part of what ties actions together is no error. How far the
software trails, no take alone can tell: that is a guess.

Takes of rendered people with exact labels, and the same pictures with the labels that capture software would write.

A take is a face that wanders from one expression to the next, at about 30 frames a second, of which every so many
frames one is drawn. Software errs over time, so errors are put into the whole sequence before frames are picked.
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

# Pairs that both sides of a face make together; gaze goes in on one side where it goes out on the other.
_ALIKE = [
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
"""Frames for which an expression is held, and in which the face moves on to the next: at least and at most."""

_SECOND = 30
_INACTIVE = 0.12
_CONSTANT = 1e-8

# The errors at severity 1. Logarithms of gains and of what is reported at rest are normal: mean and spread.
_GAIN = (-0.35, 0.35)
_SLIGHT = (-2.9, 0.7)
_AT_REST = 0.65
"""Share of actions reported at rest; of the others, as much must be overcome to be seen."""
_DEAD = 0.04
"""Two actions of 52: the real take's jaw, to either side, ends at 0.11."""
_LEAKS = 0.1
"""Share of pairs of actions that leak."""
_LEAK = (0.1, 0.2)
"""How much, mean and standard deviation; below 0 one movement hides another."""
_TIE = (0.8, 1.0)
"""Share of the difference between both sides that is lost."""
_LAG = (1.0, 3.0)
"""Frames; with the smoothing come the slow changes of a real take."""
_NOISE, _MEMORY = 0.01, 0.95
"""Standard deviation, and what is left of it in the next frame: slow, for half of the changes in the real take's
speed, too, are lost in hundredths."""


def wander(seed: int, frames: int) -> np.ndarray:
    """Make a sequence in which a face goes from one random expression to the next, as at 30 frames a second.

    Args:
        seed: the same one gives the same sequence; a longer one begins with the shorter one.
        frames: how many.

    Returns:
        float32[frames, 52] in [0, 1]: ``sample_coefficients`` held for a while, and eased in between, with
        minimum-jerk paths (Flash and Hogan 1985). What excludes each other, such as jaw left and right, does so in
        every frame.

    Raises:
        ConfigError: a negative number of frames.
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
    """What can be seen of a capture's errors without a truth.

    Attributes:
        zeros: float64[52], share of frames in which an action is exactly 0.
        low: float64[52], 5th percentile of each action.
        high: float64[52], 99th percentile of each action.
        inactive: bool[52], actions that never exceed 0.12.
        sides: float64[16], correlation of the left and the right side of what both sides do together.
        together: float64[52, 52], correlations between actions.
        steadiness: float64[52], correlation of each action with itself a frame before.
        memory: float64[52], the same for 30 frames before.
        jitter: float64[52], root mean square of the second differences over time, over the square root of 6: the
            spread of the noise, were it new in every frame and all else slow.

    Correlations with what does not vary are NaN.
    """

    zeros: np.ndarray
    low: np.ndarray
    high: np.ndarray
    inactive: np.ndarray
    sides: np.ndarray
    together: np.ndarray
    steadiness: np.ndarray
    memory: np.ndarray
    jitter: np.ndarray

    def summary(self) -> dict[str, float]:
        """Return a few figures by name: shares, and medians over actions or pairs of actions."""
        apart = np.abs(self.together[np.triu_indices(arkit.N_ACTIONS, 1)])
        return {
            "never_zero": float(np.mean(self.zeros < 0.01)),
            "mostly_zero": float(np.mean(self.zeros > 0.5)),
            "inactive": float(self.inactive.mean()),
            "low": float(np.median(self.low)),
            "high": float(np.median(self.high)),
            "high_tenth": float(np.percentile(self.high, 10)),
            "sides": float(np.nanmedian(self.sides)),
            "together": float(np.nanmedian(apart)),
            "steadiness": float(np.nanmedian(self.steadiness)),
            "memory": float(np.nanmedian(self.memory)),
            "jitter": float(np.median(self.jitter)),
        }


def statistics(coefficients: np.ndarray) -> Statistics:
    """Measure a sequence.

    Args:
        coefficients: ``[T, 52]`` in [0, 1], in order of time, about 30 frames a second, rounded to hundredths; T > 31.

    Raises:
        ValueError: another shape, or too few frames.
    """
    x = np.asarray(coefficients, np.float64)
    if x.ndim != 2 or x.shape[1] != arkit.N_ACTIONS or len(x) <= _SECOND + 1:
        raise ValueError(f"expected [T, {arkit.N_ACTIONS}] coefficients, T > {_SECOND + 1}, got shape {x.shape}")
    left, right = (list(side) for side in zip(*_ALIKE, strict=True))
    every = np.arange(arkit.N_ACTIONS)
    return Statistics(
        zeros=(x == 0).mean(axis=0),
        low=np.percentile(x, 5, axis=0),
        high=np.percentile(x, 99, axis=0),
        inactive=x.max(axis=0) <= _INACTIVE,
        sides=_correlations(x[:, left], x[:, right]),
        together=np.stack([_correlations(x, x[:, [index] * arkit.N_ACTIONS]) for index in every]),
        steadiness=_correlations(x[1:], x[:-1]),
        memory=_correlations(x[_SECOND:], x[:-_SECOND]),
        jitter=np.sqrt(np.mean(np.diff(x, n=2, axis=0) ** 2, axis=0) / 6),
    )


def _correlations(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Of each column of one with that of the other, float64[columns]; NaN where one does not vary."""
    one, other = one - one.mean(axis=0), other - other.mean(axis=0)
    spread = np.sqrt((one**2).mean(axis=0) * (other**2).mean(axis=0))
    out = np.full(one.shape[1], np.nan)
    np.divide((one * other).mean(axis=0), spread, out=out, where=spread > _CONSTANT)
    return out


@dataclass(frozen=True, slots=True, eq=False)
class CaptureErrors:
    """The errors that one person's face meets with one software.

    What is written for a frame x: ``mix @ x``, smoothed by a filter of first order that trails by ``lag`` frames, times
    ``gain``, plus ``bias``, plus noise; clipped to [0, 1] and rounded to hundredths. Dead actions are 0.

    Attributes:
        gain: float64[52], how strongly movements are read; 0 for dead actions.
        bias: float64[52], above 0 for what is reported at rest, below for what must be overcome to be seen; 0 for dead
            actions.
        mix: float64[52, 52], how much of each column's action is seen in each row's; the identity is perfect.
        lag: frames by which what is written trails behind, in the mean.
        noise: standard deviation of the noise.
        memory: share of a frame's noise that is still there in the next, 0 to 1.
        seed: of the noise.
    """

    gain: np.ndarray
    bias: np.ndarray
    mix: np.ndarray
    lag: float
    noise: float
    memory: float
    seed: int

    @property
    def dead(self) -> np.ndarray:
        """Which actions are never seen, bool[52]."""
        return self.gain == 0

    @staticmethod
    def draw(seed: int, severity: float = 1.0) -> CaptureErrors:
        """Draw errors; both sides of a pair err nearly alike.

        Args:
            seed: of person and software, and of the noise.
            severity: 0 errs in nothing but rounding, 1 leaves the statistics of a real take, 2 is far worse.

        Raises:
            ConfigError: severity not from 0 to 2.
        """
        check_range("severity", severity, 0, 2)
        rng = np.random.default_rng([seed, 18])
        partner = arkit.MIRROR_INDEX
        # What a pair shares is drawn with its left side; a midline action is its own partner.
        share = np.where(partner < np.arange(arkit.N_ACTIONS), partner, np.arange(arkit.N_ACTIONS))

        def normals() -> np.ndarray:
            """Nearly alike on both sides, standard normal; float64[52]."""
            own, common = rng.standard_normal((2, arkit.N_ACTIONS))
            return np.asarray(0.97 * common[share] + 0.243 * own)

        gain = np.exp(severity * (_GAIN[0] + _GAIN[1] * normals()))
        at_rest = rng.random(arkit.N_ACTIONS)[share] < _AT_REST
        size = np.exp(_SLIGHT[0] + _SLIGHT[1] * normals())
        bias = severity * np.where(at_rest, size, -size)
        dead = rng.random(arkit.N_ACTIONS)[share] < _DEAD * severity
        gain[dead] = bias[dead] = 0.0
        leaks = rng.random((arkit.N_ACTIONS, arkit.N_ACTIONS)) < _LEAKS
        amounts = severity * rng.normal(*_LEAK, leaks.shape)
        mix = np.eye(arkit.N_ACTIONS) + np.where(leaks & ~np.eye(arkit.N_ACTIONS, dtype=bool), amounts, 0.0)
        tie = np.eye(arkit.N_ACTIONS)
        for left, right in _ALIKE:
            # Half of what is lost of one side's own goes to the other: the mean of both stays.
            over = 0.5 * min(1.0, severity * rng.uniform(*_TIE))
            tie[[left, right], [left, right]] = 1 - over
            tie[[left, right], [right, left]] = over
        lag = severity * rng.uniform(*_LAG)
        return CaptureErrors(gain, bias, tie @ mix, lag, severity * _NOISE, _MEMORY, seed)

    def corrupt(self, coefficients: np.ndarray, *, take: int = 0) -> np.ndarray:
        """Return what the software would have written.

        Args:
            coefficients: ``[T, 52]`` in [0, 1], in order of time.
            take: number of the take; each has noise of its own.

        Returns:
            float32[T, 52] in [0, 1], hundredths.

        Raises:
            ValueError: another shape.
        """
        true = np.asarray(coefficients, np.float64)
        if true.ndim != 2 or true.shape[1] != arkit.N_ACTIONS:
            raise ValueError(f"expected [T, {arkit.N_ACTIONS}] coefficients, got shape {true.shape}")
        seen = _trail(true @ self.mix.T, 1 / (1 + self.lag))
        fresh = np.random.default_rng([self.seed, take, 19]).standard_normal(true.shape)
        # Scaled so that the noise, begun at its steady spread, keeps it.
        fresh[1:] *= np.sqrt(1 - self.memory**2)
        noise = np.zeros_like(fresh)
        for frame, new in enumerate(fresh):
            noise[frame] = new + (self.memory * noise[frame - 1] if frame else 0.0)
        written = self.gain * seen + self.bias + self.noise * noise
        written[:, self.dead] = 0.0
        return np.round(written.clip(0, 1), 2).astype(np.float32) + np.float32(0)


def _trail(values: np.ndarray, rate: float) -> np.ndarray:
    """Filter of first order over time, begun at the first frame; trails by 1 / rate - 1 frames."""
    out = values.copy()
    for frame in range(1, len(values)):
        out[frame] = out[frame - 1] + rate * (values[frame] - out[frame - 1])
    return out


@dataclass(frozen=True, slots=True)
class TakeSettings:
    """What is recorded.

    Attributes:
        train: takes to learn from, each of another person.
        validation: takes to measure on, of people of their own.
        frames: pictures of each take.
        every: frames from one picture to the next, at about 30 a second.
        look: in which people are drawn.
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
        """Takes of each split; those of ``validation`` come behind those of ``train``."""
        return {"train": self.train, "validation": self.validation}

    def sequence(self, take: int) -> np.ndarray:
        """Return every frame of a take, float32[frames * every, 52]."""
        return wander(self.seed * 1_000_003 + take, self.frames * self.every)

    def numbers(self, split: str) -> range:
        """Return the numbers of a split's takes."""
        start = 0 if split == "train" else self.train
        return range(start, start + self.splits[split])


def record_takes(out: Path, settings: TakeSettings, errors: CaptureErrors) -> dict[str, np.ndarray]:
    """Draw takes and write them twice: ``out/exact``, and ``out/captured`` with the labels of software that errs.

    Returns:
        By split, what the software wrote; float32[takes * frames, 52].

    Raises:
        ConfigError: an unknown look.
        DatasetError: the folder holds other takes.
        SemanticFaceError: the disk refuses.
    """
    exact = draw_takes(out / "exact", settings)
    labels = {split: captured(settings, errors, split) for split in settings.splits}
    relabel(exact, out / "captured", labels, {"of": dataclasses.asdict(settings), "seed": errors.seed})
    return labels


def draw_takes(out: Path, settings: TakeSettings) -> Path:
    """Draw the pictures of all takes, 128 px crops with exact labels, in order of time; or find them drawn.

    Raises:
        ConfigError: an unknown look.
        DatasetError: the folder holds other takes, whose pictures would get these labels.
        SemanticFaceError: the disk refuses.
    """
    drawing = RenderSettings(rows=1, size=128, supersample=1, framing="crop")
    wanted, begun = dataclasses.asdict(settings), recipe_of_kind(out)
    if begun is not None and any(shard_path(out, split, 0, 1).is_file() for split in settings.splits):
        there = begun.get("takes", {})
        pairs = [(name, there.get(name), want) for name, want in wanted.items()]
        differing = [f"{name} {other} there, {want} here" for name, other, want in pairs if other != want]
        if differing:
            raise DatasetError(f"{out} holds other takes ({', '.join(differing)}). Use the same, or another folder.")
    write_recipe(out, {"kind": "faces", "takes": wanted})
    for split, takes in settings.splits.items():
        path = shard_path(out, split, 0, 1)
        if path.is_file():
            continue
        rows = []
        for take in tqdm(settings.numbers(split), desc=f"drawing takes, {split}", total=takes, unit="take"):
            rng = np.random.default_rng([settings.seed, take, 23])
            for coefficients in settings.sequence(take)[:: settings.every]:
                shot = int(rng.integers(2**31))
                subject = settings.first_subject + take
                rows.append(
                    render_row(drawing, coefficients, style=settings.style, subject=subject, shot=shot, seed=shot)
                )
        write_shard(path, rows)
    write_index(out, dict.fromkeys(settings.splits, 1), {"takes": wanted, "versions": versions()})
    return out


def captured(settings: TakeSettings, errors: CaptureErrors, split: str) -> np.ndarray:
    """Return what software would have written for a split's pictures; float32[takes * frames, 52]."""
    return np.concatenate(
        [errors.corrupt(settings.sequence(take), take=take)[:: settings.every] for take in settings.numbers(split)]
    )


def relabel(faces: Path, out: Path, labels: Mapping[str, np.ndarray], told: Mapping[str, Any]) -> Path:
    """Write the same pictures with other labels and the answers that belong to them.

    Args:
        faces: a folder of faces.
        out: the new folder.
        labels: float32[rows, 52] in hundredths, for each split that is written.
        told: how they were made; decides the new dataset's fingerprint.

    Raises:
        DatasetError: another number of rows.
        SemanticFaceError: the disk refuses.
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
    write_index(out, dict.fromkeys(labels, 1), told)
    if recipe_of_kind(faces) is not None:  # nobody in them exists, so nobody has to agree to be shown
        write_recipe(out, {"kind": "faces", "relabelled": dict(told)})
    return out

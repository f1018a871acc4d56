"""A person's face at rest, taken off what a model reads.

Nobody's face rests at 0: lids hang, lips are thin, brows frown by shape alone. One neutral picture, or the calmest
moments of a video, show what a model reads there (``inference.neutral_source``), and ``NeutralFace`` takes it off all
that follows. A value at rest
becomes 0 and 1 stays 1, so that a blink still closes the eyes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

MAX_REST = 0.6
"""A rest above this is none: the eyes are shut, or the mouth is open. No more than this is taken off."""
MIN_FACES = 5
"""Fewer frames than this do not show how a face rests: one of them may be a blink."""


@dataclass(frozen=True, eq=False)
class NeutralFace:
    """What a model reads from a person at rest.

    Attributes:
        rest: float32[52] in [0, ``MAX_REST``].
    """

    rest: np.ndarray

    @classmethod
    def from_readings(cls, readings: np.ndarray) -> NeutralFace:
        """Return the face of readings float[N, 52], N at least 1: their median, which a blink does not move."""
        return cls(np.median(readings, axis=0).clip(0, MAX_REST).astype(np.float32))

    def apply(self, values: np.ndarray) -> np.ndarray:
        """Return coefficients without the rest: float32[..., 52] in [0, 1], from float[..., 52] in [0, 1]."""
        without: np.ndarray = (np.asarray(values, np.float32) - self.rest) / (1 - self.rest)
        return without.clip(0, 1)


class NeutralLearner:
    """Learns a face at rest from the first seconds of a camera, and takes it off from then on.

    Args:
        seconds: how long the person keeps a calm face after the first frame that shows it.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._start: float | None = None
        self._readings: list[np.ndarray] = []
        self.face: NeutralFace | None = None

    def step(self, values: np.ndarray, time: float) -> np.ndarray:
        """Return coefficients float[52] at ``time`` in seconds without the rest, as they are while it is learnt."""
        if self.face is not None:
            return self.face.apply(values)
        self._start = time if self._start is None else self._start
        self._readings.append(values)
        if time - self._start >= self._seconds and len(self._readings) >= MIN_FACES:
            self.face = NeutralFace.from_readings(np.stack(self._readings))
            self._readings.clear()
        return values

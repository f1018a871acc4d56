"""The One-Euro filter (Casiez, Roussel and Vogel, CHI 2012) for coefficients over time, with settings per region.

A low-pass filter whose cutoff rises with speed: it removes jitter from a face at rest and hardly delays fast movements.
Equations from the paper's algorithm 1: speed is relative to the last filtered value and smoothed at 1 Hz, the cutoff is
``min_cutoff + beta * speed``, and each step's weight depends on the actual time since the last value.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from semanticface import arkit

SPEED_CUTOFF = 1.0
"""Cutoff in Hz of the filter on speed; the paper's value."""
MAX_GAP = 0.5
"""Seconds without a value after which the filter restarts."""


@dataclass(frozen=True, slots=True)
class OneEuroSettings:
    """Filter settings of a region.

    Attributes:
        min_cutoff: Hz, above 0; lower removes more jitter from a face at rest.
        beta: Hz per unit per second, 0 or more; higher follows fast movements more closely.
    """

    min_cutoff: float
    beta: float

    def __post_init__(self) -> None:
        if not (0 < self.min_cutoff < math.inf and 0 <= self.beta < math.inf):
            raise ValueError(
                f"a cutoff of {self.min_cutoff:g} Hz and a beta of {self.beta:g}: "
                "give a cutoff above 0 and a beta of 0 or more"
            )


Settings = Mapping[str, OneEuroSettings | None]

DEFAULTS: Settings = {
    "brows": OneEuroSettings(1.0, 3.0),
    "eyes": None,
    "gaze": OneEuroSettings(1.5, 3.0),
    "cheeks": OneEuroSettings(1.0, 2.0),
    "nose": OneEuroSettings(1.0, 2.0),
    "mouth": OneEuroSettings(1.5, 3.0),
    "jaw": OneEuroSettings(1.0, 3.0),
    "tongue": OneEuroSettings(1.0, 3.0),
}
"""By region of ``arkit.REGIONS``; None disables filtering. Eyes are unfiltered because a blink lasts 0.1 s.

Chosen on a real range-of-motion take with added white noise of 0.03 and 0.06, as a compromise between the settings
closest to the clean take at either level. About two thirds of the noise's RMS error remain, and a third of the jitter
between frames.
"""


class OneEuroFilter:
    """One-Euro filter over the components of a vector.

    Args:
        min_cutoff: Hz [N]; infinity disables filtering of a component.
        beta: Hz per unit per second [N].
        state: ``state`` of another filter, to continue from it.
    """

    def __init__(self, min_cutoff: np.ndarray, beta: np.ndarray, state: list[list[float]] | None = None) -> None:
        self._min_cutoff = np.asarray(min_cutoff, dtype=np.float64)
        self._beta = np.asarray(beta, dtype=np.float64)
        self._last: tuple[float, np.ndarray, np.ndarray] | None = None
        if state is not None:
            (time,), values, speed = state
            self._last = time, np.array(values), np.array(speed)

    @property
    def state(self) -> list[list[float]] | None:
        """Time, values and speeds after the last step, JSON-serialisable; None before the first."""
        if self._last is None:
            return None
        time, values, speed = self._last
        return [[time], values.tolist(), speed.tolist()]

    def step(self, values: np.ndarray, time: float) -> np.ndarray:
        """Return the filtered values [N] at ``time`` in seconds.

        Each lies between the last filtered and the new value. Restarts after ``MAX_GAP`` and if time does not advance.
        """
        values = np.asarray(values, dtype=np.float64)
        elapsed = 0.0 if self._last is None else time - self._last[0]
        if self._last is None or not 0 < elapsed <= MAX_GAP:
            self._last = time, values, np.zeros_like(values)
            return values
        _, before, speed = self._last
        speed = speed + _weight(SPEED_CUTOFF, elapsed) * ((values - before) / elapsed - speed)
        weight = _weight(self._min_cutoff + self._beta * np.abs(speed), elapsed)
        filtered = before + weight * (values - before)
        self._last = time, filtered, speed
        return filtered


def _weight(cutoff: float | np.ndarray, elapsed: float) -> np.ndarray:
    """Return the weight of a new value in a first-order low-pass with this cutoff (Hz) after ``elapsed`` seconds."""
    return 1.0 / (1.0 + 1.0 / (2 * math.pi * np.asarray(cutoff) * elapsed))


POSE = OneEuroSettings(1.5, 6.0)
"""Settings for rotations in radians: heads turn slower than faces move, and tremble less."""


def coefficient_filter(settings: Settings = DEFAULTS) -> OneEuroFilter:
    """Return a filter over the 52 coefficients; values in [0, 1] stay in [0, 1].

    Args:
        settings: by region of ``arkit.REGIONS`` (others are a KeyError); omitted regions are not filtered.
    """
    min_cutoff, beta = np.full(arkit.N_ACTIONS, np.inf), np.zeros(arkit.N_ACTIONS)
    for region, setting in settings.items():
        indices = arkit.REGION_INDEX[region]
        if setting is not None:
            min_cutoff[indices], beta[indices] = setting.min_cutoff, setting.beta
    return OneEuroFilter(min_cutoff, beta)


class FaceFilter:
    """Filters the coefficients and the pose of one face over time.

    Args:
        settings: as for ``coefficient_filter``; None filters nothing.
    """

    def __init__(self, settings: Settings | None) -> None:
        self._coefficients = None if settings is None else coefficient_filter(settings)
        # No rotation comes near a half turn, so none wraps.
        self._pose = OneEuroFilter(np.full(arkit.N_POSE, POSE.min_cutoff), np.full(arkit.N_POSE, POSE.beta))

    def step(
        self, coefficients: np.ndarray, pose: np.ndarray | None, time: float
    ) -> tuple[np.ndarray, np.ndarray | None]:
        """Return coefficients float64[52] and pose float64[9], None if not known, at ``time`` in seconds."""
        values = coefficients.astype(np.float64)
        rotations = None if pose is None else pose.astype(np.float64)
        if self._coefficients is None:
            return values, rotations
        return self._coefficients.step(values, time), None if rotations is None else self._pose.step(rotations, time)

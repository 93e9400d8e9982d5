"""From clock offsets to one clock: what a recorder measured between a stream's clock and its own, made into lines.

Pure. The rules are those of pyxdf (resets cut the offsets into segments, a line that is robust against single bad
measurements is laid through each), so that a file reads the same here and there. The line is the minimum of the Huber
loss (Huber 1964); pyxdf stops an ADMM iteration after 1000 steps on the way to it, which shows where offsets are few or
far off.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import least_squares

HUBER = 1e-4
"""Seconds beyond which an offset counts as an outlier: LSL measures to about 0.1 ms."""
MAX_SECONDS = 1e12
"""Of a clock and between two clocks: thirty thousand years."""


def are_times(stamps: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Which of the stamps (n,) can be times: those that are no number or beyond any clock cannot.

    >>> are_times(np.array([0.5, np.nan, np.inf, 1e300])).tolist()
    [True, False, False, False]
    """
    believable: NDArray[np.bool_] = np.abs(stamps) < MAX_SECONDS  # NaN compares false
    return believable


@dataclass(frozen=True, slots=True)
class Line:
    """Offset at stream time t: ``middle + slope * (t - centre)``, seconds."""

    centre: float
    middle: float
    slope: float

    def apply(self, times: NDArray[np.float64]) -> NDArray[np.float64]:
        """``times`` (n,) on the recorder's clock. A line of zero leaves them as they are, to the last bit."""
        if self.middle == 0.0 and self.slope == 0.0:
            return times
        # times + (middle + slope * (times - centre)), in one array only; stamps may be infinite
        with np.errstate(over="ignore", invalid="ignore"):
            moved = times - self.centre
            moved *= self.slope
            moved += self.middle
            moved += times
        return moved


def _glitches(steps: NDArray[np.float64], deviations: float, seconds: float) -> NDArray[np.bool_]:
    away = np.abs(steps - np.median(steps))
    spread = float(np.median(away)) + float(np.finfo(float).eps)
    return np.logical_and(away / spread > deviations, away > seconds)


def segments(times: NDArray[np.float64], values: NDArray[np.float64]) -> list[slice]:
    """Stretches of offsets between resets of the stream's clock.

    A reset is time running backwards, or a late measurement (5 s and 5 median deviations) together with a jump of the
    offset (1 s and 10 median deviations).
    """
    if len(times) < 2:
        return [slice(0, len(times))] if len(times) else []
    dt, dv = np.diff(times), np.diff(values)
    reset = (dt < 0) | (_glitches(dt, 5.0, 5.0) & _glitches(dv, 10.0, 1.0))
    edges = [0, *(np.flatnonzero(reset) + 1).tolist(), len(times)]
    return [slice(a, b) for a, b in itertools.pairwise(edges)]


def robust_line(times: NDArray[np.float64], values: NDArray[np.float64]) -> Line:
    """The line through (n,) offsets that minimises the Huber loss."""
    centre = float(times.mean())
    reach = float(np.abs(times - centre).max())
    base = float(np.median(values))
    if len(times) == 1 or reach < 1e-6:  # measured at one moment: no line
        return Line(0.0, base, 0.0)
    design = np.column_stack([np.ones(len(times)), (times - centre) / reach])
    y = (values - base) / HUBER

    def residuals(line: NDArray[np.float64]) -> NDArray[np.float64]:
        left: NDArray[np.float64] = design @ line - y
        return left

    def slopes(_: NDArray[np.float64]) -> NDArray[np.float64]:
        return design

    fit = least_squares(
        residuals,
        np.linalg.lstsq(design, y)[0],
        jac=slopes,
        loss="huber",
        ftol=1e-15,
        xtol=1e-15,
        gtol=1e-12,
    )
    return Line(centre, base + float(fit.x[0]) * HUBER, float(fit.x[1]) * HUBER / reach)


def last_is_corrupt(times: NDArray[np.float64], values: NDArray[np.float64]) -> bool:
    """Whether the last of the offsets stands out by its time or its value.

    An outlet destroyed while it is recorded leaves one such offset and samples beyond the footer's count (pylsl #67,
    liblsl #246). On its own it proves nothing: a clock reset looks the same.
    """
    if len(times) < 3:
        return False
    steps = np.diff(times)
    usual, last = float(np.median(steps[:-1])), abs(float(steps[-1]))
    if (last > 10.0 * usual) if usual > 0 else last > 0:
        return True
    middle = float(np.median(values[:-1]))
    deviation = float(np.median(np.abs(values[:-1] - middle)))
    return deviation > float(np.finfo(float).eps) and abs(float(values[-1]) - middle) > 10.0 * 1.4826 * deviation

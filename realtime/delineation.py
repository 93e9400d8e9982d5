"""Where the waves of a heartbeat begin, peak and end, and the intervals between them.

For each beat apart, from the slopes of one lead: the QRS complex ends where the slope has sunk to a small share of its
steepest; P and T waves end where the tangent at their steepest meets the level beside them (Lepeschkin and Surawicz,
Circulation 6:378, 1952, for the T wave). For the eye and for intervals; one lead cannot see a wave that is flat in it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

BEFORE, AFTER = 0.36, 0.75
"""Seconds around the peak that are needed at most."""
QRS = 0.14, 0.18
"""Seconds before and after the peak within which the complex lies."""
SMOOTH_QRS, SMOOTH_WAVES = 0.004, 0.012
"""Seconds, standard deviations of the smoothing."""
BODY = 0.25
"""Share of the steepest slope that belongs to the complex for sure."""
EDGE_ON, EDGE_OFF = 0.045, 0.05
"""Shares of the steepest slope at which the complex begins and ends."""
REST = 0.04, 0.06
"""Seconds that the complex may go on at most before and after its last steep part."""
QUIET = 0.008
"""Seconds for which the slope must stay below."""
SEEN = 2.5
"""A P or T wave exceeds this many standard deviations of what is left by the smoothing, and LEAST uV."""
LEAST = 15.0
SHARES_P, SHARES_T = (1.0, 0.8), (1.0, 1.0)
"""How far along the tangent, at onset and offset: where cardiologists of LUDB put it."""


@dataclass(frozen=True, slots=True)
class Waves:
    """Times of one beat, seconds; NaN where there is no such wave to be seen."""

    p_onset: float = math.nan
    p_peak: float = math.nan
    p_offset: float = math.nan
    qrs_onset: float = math.nan
    r_peak: float = math.nan
    qrs_offset: float = math.nan
    t_onset: float = math.nan
    t_peak: float = math.nan
    t_offset: float = math.nan

    @property
    def pr(self) -> float:
        """Begin of P to begin of QRS, seconds."""
        return self.qrs_onset - self.p_onset

    @property
    def qrs(self) -> float:
        """Duration of QRS, seconds."""
        return self.qrs_offset - self.qrs_onset

    @property
    def qt(self) -> float:
        """Begin of QRS to end of T, seconds."""
        return self.t_offset - self.qrs_onset


def qtc(qt: float, rr: float, formula: str = "Fridericia") -> float:
    """The QT interval corrected for the RR interval before it, both seconds; ``formula`` is Fridericia or Bazett.

    >>> round(qtc(0.36, 0.64), 3), round(qtc(0.36, 0.64, "Bazett"), 3)
    (0.418, 0.45)
    """
    if formula not in ("Fridericia", "Bazett"):
        raise ValueError(f"{formula} is no known correction of QT: Fridericia or Bazett")
    return qt / (math.cbrt(rr) if formula == "Fridericia" else math.sqrt(rr))


def delineate(
    samples: NDArray[np.float64], rate: float, peak: int, before: float = math.nan, after: float = math.nan
) -> Waves:
    """The waves around sample ``peak`` of ``samples`` (n,), uV, as seconds from the first sample.

    ``before`` and ``after`` are the RR intervals to the neighbouring beats, seconds, when known. From BEFORE the
    peak to AFTER it, or to the next beat, ``samples`` should reach; waves beyond their ends are not found.
    """
    fine = ndimage.gaussian_filter1d(samples, SMOOTH_QRS * rate, mode="nearest")
    soft = ndimage.gaussian_filter1d(samples, SMOOTH_WAVES * rate, mode="nearest")
    slope = np.gradient(fine)
    onset, offset = _complex(slope, rate, peak)
    rough = float(np.median(np.abs(samples - soft))) / 0.6745
    seen = max(LEAST, SEEN * rough)
    low = max(0, onset - round(0.28 * rate))
    if before == before:
        low = max(low, peak - round(0.55 * before * rate))
    p = _wave(soft, low, onset - round(0.008 * rate), rate, seen, SHARES_P)
    high = min(len(samples) - 1, peak + round(0.6 * rate))
    if after == after:
        high = min(high, peak + round(0.72 * after * rate))
    t = _wave(soft, offset + round(0.04 * rate), high, rate, seen, SHARES_T)
    moments = [index / rate for index in (*p, onset, peak, offset, *t)]
    return Waves(*moments)


def _complex(slope: NDArray[np.float64], rate: float, peak: int) -> tuple[int, int]:
    low, high = max(0, peak - round(QRS[0] * rate)), min(len(slope) - 1, peak + round(QRS[1] * rate))
    steep = np.abs(slope)
    near = round(0.06 * rate)
    top = float(steep[max(0, peak - near) : peak + near + 1].max())
    quiet = max(1, round(QUIET * rate))
    body = np.flatnonzero(steep[low : high + 1] > BODY * top) + low
    # Parts of the complex follow each other within 40 ms: what lies apart is another wave.
    gap = round(0.04 * rate)
    first = last = peak
    for index in body[body <= peak][::-1]:
        if first - index > gap:
            break
        first = int(index)
    for index in body[body >= peak]:
        if index - last > gap:
            break
        last = int(index)
    return _edge(steep, first, max(low, first - round(REST[0] * rate)), EDGE_ON * top, quiet), _edge(
        steep, last, min(high, last + round(REST[1] * rate)), EDGE_OFF * top, quiet
    )


def _edge(steep: NDArray[np.float64], start: int, stop: int, limit: float, quiet: int) -> int:
    """From ``start`` towards ``stop`` the first index where the slope comes to rest below ``limit``, else the least."""
    step = 1 if stop >= start else -1
    below = 0
    for index in range(start, stop + step, step):
        below = below + 1 if steep[index] < limit else 0
        if below == quiet:
            return index - step * (quiet - 1)
    low, high = min(start, stop), max(start, stop)
    return low + int(np.argmin(steep[low : high + 1]))


def _wave(
    soft: NDArray[np.float64], low: int, high: int, rate: float, seen: float, shares: tuple[float, float]
) -> tuple[float, float, float]:
    """Onset, peak and offset of the largest wave between the indices; NaN three times when there is none."""
    if high - low < round(0.04 * rate):
        return math.nan, math.nan, math.nan
    part = soft[low : high + 1]
    line = np.linspace(part[: max(1, round(0.01 * rate))].mean(), part[-max(1, round(0.01 * rate)) :].mean(), len(part))
    height = part - line
    top = int(np.argmax(np.abs(height)))
    sign = 1.0 if height[top] > 0 else -1.0
    edge = round(0.015 * rate)
    if abs(height[top]) < seen or top < edge or top > len(part) - 1 - edge:
        return math.nan, math.nan, math.nan
    slope = sign * np.gradient(part)
    left = _foot(sign * part[: top + 1], slope[: top + 1], shares[0])
    right = _foot(sign * part[top:][::-1], -slope[top:][::-1], shares[1])
    return low + left, float(low + top), low + len(part) - 1 - right


def _foot(rising: NDArray[np.float64], slope: NDArray[np.float64], share: float) -> float:
    """Where the tangent at the steepest of a flank that ends on its peak meets the lowest level before it."""
    steepest = int(np.argmax(slope))
    if slope[steepest] <= 0:
        return 0.0
    level = float(rising[: steepest + 1].min())
    return max(0.0, steepest - share * (float(rising[steepest]) - level) / float(slope[steepest]))

"""Bad and absent channels of EEG made of the good ones by spherical splines, the same bits every time.

The splines are those of Perrin, Pernier, Bertrand & Echallier, Electroencephalogr Clin Neurophysiol 72, 1989. What a
network sees of a window is decided here and nowhere else: for live sessions, replays and training. What stands in a bad
channel, be it NaN, has no part in it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.polynomial import legendre
from numpy.typing import NDArray

from models.api import BAD_SCORE, Verdict
from models.electrodes import is_electrode, on_sphere

TERMS = 50
"""Of the Legendre series of a spline; MNE-Python takes as many."""
STIFFNESS = 4
"""Order of the spline (Perrin et al., equation 3)."""
SMOOTHING = 1e-5
"""Added to the diagonal, as MNE-Python does."""
LEAST_GOOD = 6
"""Electrodes that a bad one is interpolated from; of fewer it is not."""
DECIMALS = 9
"""Of a weight: libraries of linear algebra differ after the twelfth."""

_SERIES = [0.0] + [(2 * n + 1) / (n * (n + 1)) ** STIFFNESS / (4 * math.pi) for n in range(1, TERMS + 1)]


def as_seen(
    signal: NDArray[np.float32], channels: Sequence[str], verdicts: Sequence[Verdict], bad_score: float = BAD_SCORE
) -> NDArray[np.float32]:
    """A window's ``signal`` (channels, time) as a network sees it, with one of ``verdicts`` a channel.

    Channels that score less than ``bad_score``, as absent ones do, are interpolated from the others, as `repaired`
    says. The very array when there is none.
    """
    bad = [row for row, verdict in enumerate(verdicts) if not verdict.score >= bad_score]  # NaN is bad, too
    return repaired(signal, channels, bad)


def repaired(signal: NDArray[np.float32], channels: Sequence[str], bad: Sequence[int]) -> NDArray[np.float32]:
    """``signal`` (channels, time) with the rows ``bad`` interpolated; the very array when there is none.

    They are zero where nothing is known to make them of: a label that names no place of the 10-10 system, or fewer than
    LEAST_GOOD good electrodes. A good channel without a place stays as it is.
    """
    if len(signal) != len(channels):
        raise ValueError(f"a signal of {len(signal)} channels came with {len(channels)} labels")
    if not bad:
        return signal
    made = signal.copy()
    made[list(bad)] = 0.0
    rows, good, matrix = weights(tuple(channels), tuple(sorted(bad)))
    for row, factors in zip(rows, matrix, strict=True):
        # One by one and in order: a product of matrices sums in an order that depends on the machine.
        total = np.zeros(signal.shape[1])
        for other, factor in zip(good, factors.tolist(), strict=True):
            total += factor * signal[other].astype(np.float64)
        made[row] = total
    return made


@lru_cache(maxsize=64)
def weights(
    channels: tuple[str, ...], bad: tuple[int, ...]
) -> tuple[tuple[int, ...], tuple[int, ...], NDArray[np.float64]]:
    """Which rows of ``bad`` can be interpolated, from which good rows, and by what (rows, good), read-only.

    Empty when there are fewer than LEAST_GOOD good electrodes.
    """
    placed = [row for row, label in enumerate(channels) if is_electrode(label)]
    good = tuple(row for row in placed if row not in bad)
    rows = tuple(row for row in placed if row in bad)
    if len(good) < LEAST_GOOD or not rows:
        return (), (), np.zeros((0, 0))
    places = on_sphere(channels)
    known, wanted = places[list(good)], places[list(rows)]
    system = np.ones((len(good) + 1, len(good) + 1))
    system[:-1, :-1] = _spline(known @ known.T) + SMOOTHING * np.eye(len(good))
    system[-1, -1] = 0.0
    asked = np.hstack([_spline(wanted @ known.T), np.ones((len(rows), 1))])
    # The system is symmetric: what is solved for the rows asked for is what the good channels are multiplied by.
    matrix = np.ascontiguousarray(np.linalg.solve(system, asked.T)[:-1].T).round(DECIMALS)
    matrix.setflags(write=False)
    return rows, good, matrix


def _spline(cosines: NDArray[np.float64]) -> NDArray[np.float64]:
    """g of Perrin et al., equation 3."""
    return np.asarray(legendre.legval(np.clip(cosines, -1.0, 1.0), _SERIES))

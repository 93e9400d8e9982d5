"""What lies around the network: the person's resting baseline before it, calibrated estimates after it.

All of it computes: arrays in, arrays out, no clock. Training uses the same functions as a live session.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from models.bundle import (
    BinaryCalibration,
    Calibration,
    ContinuousCalibration,
    Manifest,
    OrdinalCalibration,
    Rest,
    Target,
)

_NODES, _WEIGHTS = np.polynomial.hermite_e.hermegauss(41)
_WEIGHTS = _WEIGHTS / _WEIGHTS.sum()
"""Points and weights that average over a standard normal."""

_TIME_TOLERANCE = 1e-6
"""Seconds; window ends are multiples of the hop up to rounding."""


def resting_statistics(
    embeddings: ArrayLike, pooled_sd: ArrayLike, prior_windows: float, floor: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean and standard deviation (D,) of resting embeddings (n, D), n >= 1.

    A minute of overlapping windows says little about a spread, so the variance is shrunk towards the pooled one, which
    counts for ``prior_windows`` windows; it is never below ``floor`` times the pooled deviation.
    """
    values = np.asarray(embeddings, dtype=np.float64)
    pooled = np.asarray(pooled_sd, dtype=np.float64)
    n = len(values)
    own = values.var(axis=0, ddof=1) if n > 1 else np.zeros(values.shape[1])
    weight = prior_windows + n - 1
    variance = (prior_windows * np.square(pooled) + (n - 1) * own) / weight if weight > 0 else np.square(pooled)
    return values.mean(axis=0), np.maximum(np.sqrt(variance), floor * pooled)


def baseline_windows(rest: Rest, seconds: float, hop: float) -> tuple[int, int]:
    """How many windows fit into the baseline, and how many of them a kind of signal needs good.

    >>> rest = Rest(seconds=60.0, min_share=0.5, pooled_sd=(1.0,), prior_windows=10.0, floor=0.1)
    >>> baseline_windows(rest, seconds=10.0, hop=1.0)
    (51, 26)
    """
    fit = math.floor((rest.seconds - seconds) / hop + _TIME_TOLERANCE) + 1
    return fit, max(1, math.ceil(rest.min_share * fit - _TIME_TOLERANCE))


class RestingBaseline:
    """Collects the embeddings of a session's beginning until at least one kind of signal has enough of them.

    It begins with the first window that has a good kind and lasts `Rest.seconds`; while no kind has its share of good
    windows by then, it goes on. Kinds that have too few when it closes have no baseline in this session.
    """

    def __init__(self, manifest: Manifest) -> None:
        self._rest = manifest.rest
        self._seconds, self._hop = manifest.window.seconds, manifest.window.hop
        self._parts: dict[str, slice] = {}
        begin = 0
        for kind, width in manifest.embedding.items():
            self._parts[kind] = slice(begin, begin + width)
            begin += width
        self.fit, self.needed = baseline_windows(manifest.rest, self._seconds, self._hop)
        self._collected: dict[str, list[NDArray[np.float64]]] = {kind: [] for kind in self._parts}
        self._stop: float | None = None
        self.complete = False
        self.mean = np.zeros(begin)
        """(D,) zero where a kind has no baseline."""
        self.sd = np.ones(begin)
        """(D,) one where a kind has no baseline."""

    @property
    def begun(self) -> bool:
        return self._stop is not None

    @property
    def kinds(self) -> tuple[str, ...]:
        """The kinds that have a baseline, or would have one if it closed now."""
        return tuple(kind for kind, collected in self._collected.items() if len(collected) >= self.needed)

    def part(self, kind: str) -> slice:
        """Where a kind stands in the embedding."""
        return self._parts[kind]

    def good_seconds(self, kind: str) -> float:
        """How much good signal of a kind was collected, counted in hops."""
        return len(self._collected[kind]) * self._hop

    def seconds_left(self, t_end: float) -> float:
        """Until the baseline can close, seen from a window ending at ``t_end``; 0 when only good signal is wanting."""
        return self._rest.seconds if self._stop is None else max(0.0, self._stop - t_end)

    def good_seconds_left(self) -> float:
        """Good signal still wanting in the kind that is nearest to its share."""
        return (self.needed - max(len(collected) for collected in self._collected.values())) * self._hop

    def over_before(self, t_end: float) -> bool:
        """Whether a window ending at ``t_end`` comes after the baseline; closes it when it does."""
        if not self.complete and self._stop is not None and t_end > self._stop + _TIME_TOLERANCE and self.kinds:
            self._close()
        return self.complete

    def add(self, t_end: float, embedding: ArrayLike, good: Collection[str]) -> None:
        """Takes the parts of an embedding (D,) that belong to good kinds, and closes when it is time."""
        values = np.asarray(embedding, dtype=np.float64)
        if self._stop is None:
            self._stop = t_end - self._seconds + self._rest.seconds
        for kind in good:
            self._collected[kind].append(values[self._parts[kind]])
        if t_end >= self._stop - _TIME_TOLERANCE and self.kinds:
            self._close()

    def _close(self) -> None:
        pooled = np.asarray(self._rest.pooled_sd)
        for kind in self.kinds:
            part = self._parts[kind]
            self.mean[part], self.sd[part] = resting_statistics(
                self._collected[kind], pooled[part], self._rest.prior_windows, self._rest.floor
            )
        self.complete = True


def calibrated(
    logit: ArrayLike, targets: Sequence[Target], calibration: Mapping[str, Calibration]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Estimates and their standard deviations, (targets,) each and on the targets' ranges, of logits (targets,).

    >>> target = Target(name="arousal", kind="binary", range=(1.0, 9.0), meaning="")
    >>> fit = {"arousal": BinaryCalibration(temperature=2.0, bias=0.0, logit_sd=1.2)}
    >>> mean, sd = calibrated([0.0], [target], fit)
    >>> mean.tolist(), sd.round(2).tolist()
    ([5.0], [1.89])
    """
    values = np.asarray(logit, dtype=np.float64)
    pairs = [_estimate(values[i], target, calibration[target.name]) for i, target in enumerate(targets)]
    mean, sd = np.array(pairs).T
    return mean, sd


def _estimate(logit: np.float64, target: Target, calibration: Calibration) -> tuple[float, float]:
    low, high = target.range
    match calibration:
        case BinaryCalibration(temperature=temperature, bias=bias, logit_sd=wide):
            return _expected(logit / temperature, wide, np.array([-bias]), np.array([high - low]), low)
        case OrdinalCalibration(temperature=temperature, thresholds=thresholds, logit_sd=wide):
            return _expected(logit / temperature, wide, np.array(thresholds), np.diff(target.levels), low)
        case ContinuousCalibration(slope=slope, intercept=intercept, sd=sd):
            return min(max(float(slope * logit + intercept), low), high), sd


def _expected(
    x: np.float64, wide: float, thresholds: NDArray[np.float64], steps: NDArray[np.float64], low: float
) -> tuple[float, float]:
    """Expected level of a cumulative link, and its deviation when x scatters by ``wide``.

    Gauss-Hermite quadrature: the first-order rule, ``wide`` times the slope, leaves the range where the scatter is
    wide.
    """
    scattered = _sigmoid(x + wide * _NODES[:, None] - thresholds) @ steps
    mean = scattered @ _WEIGHTS
    spread = math.sqrt(max(float(np.square(scattered - mean) @ _WEIGHTS), 0.0))
    return low + float(_sigmoid(x - thresholds) @ steps), spread


def _sigmoid(x: NDArray[np.float64]) -> NDArray[np.float64]:
    # The exponent is never positive: no overflow at either end.
    small = np.exp(-np.abs(x))
    return np.asarray(np.where(x >= 0, 1.0, small) / (1.0 + small))


def mean_score(scores: Sequence[float]) -> float:
    """Mean channel score, 0 when there is none or one is not a number."""
    mean = float(np.mean(scores)) if len(scores) else 0.0
    return mean if math.isfinite(mean) else 0.0


def only_finite(values: Mapping[str, NDArray[np.float32]]) -> bool:
    """True when no array holds NaN or infinity."""
    return all(bool(np.isfinite(array).all()) for array in values.values())

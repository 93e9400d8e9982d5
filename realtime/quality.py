"""A first measure of how good a channel was over a window: missing, flat, stuck, too small or too large."""

from __future__ import annotations

import numba
import numpy as np
from numpy.typing import NDArray

from models.api import InputSpec, Verdict
from realtime.filters import MISSING, SETTLING, STUCK
from realtime.sources import microvolts

FLAT = 0.5
"""uV, standard deviation after filtering: below it there is an open input, not a body."""
TAILS = 0.01
"""Share of a window at either end that its amplitude leaves out: one spike is no bad channel. A QRS complex in every
second is more than this."""
LARGE = {"eeg": (200.0, 500.0), "ecg": (6000.0, 12000.0)}
"""uV, peak to peak: doubtful from the first on, bad from the second on."""
SMALL = {"ecg": (200.0, 100.0)}
"""uV, peak to peak: doubtful below the first, bad below the second; a lead that lost the skin picks up this little."""


@numba.njit(cache=True)
def _measure(signals, flags, measured, stuck, sd):  # type: ignore[no-untyped-def]
    for c in range(signals.shape[0]):
        n, runs, total = 0, 0, 0.0
        for i in range(signals.shape[1]):
            if flags[c, i] & (MISSING | SETTLING) == 0:
                n += 1
                total += signals[c, i]
                if flags[c, i] & STUCK:
                    runs += 1
        mean = total / max(1, n)
        squares = 0.0
        for i in range(signals.shape[1]):
            if flags[c, i] & (MISSING | SETTLING) == 0:
                squares += (signals[c, i] - mean) ** 2
        measured[c] = n
        stuck[c] = runs
        sd[c] = np.sqrt(squares / max(1, n))


def assess(
    spec: InputSpec, signals: NDArray[np.float32], flags: NDArray[np.uint8], absent: NDArray[np.bool_]
) -> tuple[Verdict, ...]:
    """One verdict a channel of ``signals`` (channels, time) in ``spec.unit`` with their ``flags`` (channels, time).

    Both are filtered and C-contiguous; ``absent`` (channels,) marks what the stream does not have. Samples that are
    missing or settling are left out of all but the missing share; the score is that of the worst criterion.
    """
    channels, length = signals.shape
    unit = microvolts(spec.unit)
    measured, stuck = np.zeros(channels, np.int64), np.zeros(channels, np.int64)
    sd = np.zeros(channels)
    _measure(signals, flags, measured, stuck, sd)
    ordered = np.sort(np.where(flags & (MISSING | SETTLING) == 0, signals, np.float32(np.inf)), axis=1)
    tail = (TAILS * measured).astype(np.int64)
    rows = np.arange(channels)
    low, high = ordered[rows, tail], ordered[rows, np.maximum(measured - 1 - tail, 0)]
    return tuple(
        Verdict(name, 0.0, "absent")
        if absent[c]
        else _verdict(
            name,
            spec.kind,
            1.0 - int(measured[c]) / max(1, length),
            int(stuck[c]) / max(1, int(measured[c])),
            unit * float(sd[c]),
            unit * (float(high[c]) - float(low[c])) if measured[c] else 0.0,
        )
        for c, name in enumerate(spec.channels)
    )


def _verdict(name: str, kind: str, missing: float, stuck: float, sd: float, span: float) -> Verdict:
    if missing > 0.99:
        return Verdict(name, 0.0, "missing")
    if sd < FLAT or stuck > 0.95:
        return Verdict(name, 0.0, "flat")
    found = []
    if missing > 0.05:
        found.append((1.0 - missing, f"{100 * missing:.0f} % missing"))
    if stuck > 0.05:
        found.append((max(0.0, 1.0 - 2 * stuck), f"railed {100 * stuck:.0f} % of the time"))
    for doubtful, bad in (limits[kind] for limits in (LARGE, SMALL) if kind in limits):
        score = (bad - span) / (bad - doubtful)
        if score < 1:
            found.append((max(0.0, score), f"amplitude {span:.0f} uV"))
    score, reason = min(found, default=(1.0, ""), key=lambda criterion: criterion[0])
    return Verdict(name, score, reason)

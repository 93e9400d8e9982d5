"""A first measure of how good a channel was over a window: flat, stuck, too large or too small, missing."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from models.api import InputSpec, Verdict
from realtime.filters import MISSING, SETTLING, STUCK
from realtime.sources import microvolts

FLAT = 0.5
"""uV, standard deviation after filtering: below it there is an open input, not a body."""


def assess(
    spec: InputSpec, signals: NDArray[np.float32], flags: NDArray[np.uint8], absent: NDArray[np.bool_]
) -> tuple[Verdict, ...]:
    """One verdict a channel of ``signals`` (channels, time) in ``spec.unit`` with their ``flags`` (channels, time).

    ``absent`` (channels,) marks what the stream does not have.
    """
    unit = microvolts(spec.unit)
    return tuple(
        Verdict(name, 0.0, "absent") if gone else _verdict(name, spec.kind, row * np.float32(unit), flag)
        for name, row, flag, gone in zip(spec.channels, signals, flags, absent, strict=True)
    )


def _verdict(name: str, kind: str, row: NDArray[np.float32], flag: NDArray[np.uint8]) -> Verdict:
    measured = (flag & (MISSING | SETTLING)) == 0
    missing = 1.0 - float(np.count_nonzero(measured)) / len(row)
    if missing >= 0.99:
        return Verdict(name, 0.0, "missing")
    x = row[measured]
    found = [(1.0 - missing, f"{100 * missing:.0f} % missing" if missing > 0.05 else "")]
    stuck = float(np.count_nonzero(flag[measured] & STUCK)) / len(x)
    if float(x.std(dtype=np.float64)) < FLAT or stuck > 0.95:
        found.append((0.0, "flat"))
    elif stuck > 0.05:
        found.append((max(0.0, 1.0 - 2 * stuck), f"railed {100 * stuck:.0f} % of the time"))
    low, high = np.partition(x, [len(x) // 100, len(x) - 1 - len(x) // 100])[
        [len(x) // 100, len(x) - 1 - len(x) // 100]
    ]
    span = float(high - low)
    if kind == "eeg" and span > 200:
        found.append((max(0.0, (500 - span) / 300), f"amplitude {span:.0f} uV"))
    score, reason = min(found, key=lambda f: f[0])
    return Verdict(name, score, reason)

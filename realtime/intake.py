"""What is let in: stamps that go forward, smoothed; holes in them; and values that are numbers."""

from __future__ import annotations

from dataclasses import dataclass

import numba
import numpy as np
from numpy.typing import NDArray

from realtime.filters import BRIDGE, HOLE, MISSING, REACHED, RESTART, STUCK

SKIPPED = 0.03
"""A step of more seconds than this, up to BRIDGE, is a hole: interpolated for the filters' sake, counted as missing.

Jitter of stamps at the edges of packets stays below it, and at the 100 Hz and more that models are fed with it is at
least three samples.
"""
BANDWIDTH = 0.1
"""Hz: how fast the smoothed stamps follow. Most LSL sources stamp a chunk when they send it, which jitters by
milliseconds: stamps of neighbouring chunks overlap, and a wave between them would be bent."""
DRIFT = 0.05
"""By this share of the nominal rate the true one may differ."""
LEAP = 5.0
"""A step forward of more seconds than this is believed when CONFIRMED samples in a row agree on it."""
CONFIRMED = 8
"""Samples. Those of a leap wait until so many agree, and count from the first on. A segment this young is given up when
the stamps go back to where it does not belong."""
ABSURD = 1e10
"""Seconds: no session clock comes this far (Unix time is 1.8e9)."""
RUN_SECONDS = 0.05
RUN_SAMPLES = 5

_AHEAD = 2 * CONFIRMED
"""Rows before those of a batch: what waits from before, and what waits after it, in turn."""
_REFUSE, _SUSPECTED = 254, 255
_LAST, _BEFORE, _SUSPECT, _FIRST, _PERIOD, _STAMP = range(6)
_SINCE, _SUSPECTS, _PENDING, _SAMPLES, _LOST, _REFUSED, _GAPS, _SIDE = range(8)


@dataclass(frozen=True, slots=True)
class Counters:
    """What became of the samples of one stream."""

    samples: int = 0
    """Taken."""
    lost: int = 0
    """Known by the device to be missing."""
    refused: int = 0
    """Not taken: the stamp was no number, that of the last sample again, too far back, or a leap that nothing has
    confirmed."""
    gaps: int = 0
    """Holes in time, bridged or not."""
    overrun: int = 0
    """Grid points given up because another stream lagged by more than an hour."""


@numba.njit(cache=True)
def _judge(t, rate, moments, counts):  # type: ignore[no-untyped-def]
    step = t - moments[_LAST]
    error = step - moments[_PERIOD]
    if not abs(t) < ABSURD:
        return _REFUSE
    if counts[_SINCE] == 0:
        return RESTART
    if t == moments[_STAMP]:
        return _REFUSE
    if error < -SKIPPED:
        if counts[_SINCE] >= CONFIRMED or step > -BRIDGE or t <= moments[_BEFORE]:
            return _REFUSE
        counts[_REFUSED] += counts[_SINCE]
        counts[_SAMPLES] -= counts[_SINCE]
        counts[_SINCE] = 0
        return RESTART
    if step > LEAP:
        return _SUSPECTED
    if step > BRIDGE or counts[_PENDING] > BRIDGE * rate:
        return RESTART
    if step > SKIPPED or counts[_PENDING] > 0:
        return HOLE
    return 0


@numba.njit(cache=True)
def _accept(t, mark, rate, omega, moments, counts):  # type: ignore[no-untyped-def]
    error = t - moments[_LAST] - moments[_PERIOD]
    if mark == HOLE:
        counts[_GAPS] += 1
    elif mark == RESTART:
        if counts[_SINCE] > 0:
            moments[_BEFORE] = moments[_LAST]
            counts[_GAPS] += 1
            counts[_SINCE] = 0
        if moments[_BEFORE] == -np.inf:
            moments[_FIRST] = t
    counts[_PENDING] = 0
    counts[_SINCE] += 1
    counts[_SAMPLES] += 1
    moments[_STAMP] = t
    if mark == 0:
        t = moments[_LAST] + moments[_PERIOD] + np.sqrt(2.0) * omega * error
        period = moments[_PERIOD] + omega * omega * error
        moments[_PERIOD] = min(max(period, (1 - DRIFT) / rate), (1 + DRIFT) / rate)
    elif mark == RESTART:
        moments[_PERIOD] = 1 / rate
    moments[_LAST] = t
    return t


@numba.njit(cache=True)
def _admit(times, rows, lost, rate, moments, counts, held, keep, marks, smoothed):  # type: ignore[no-untyped-def]
    # ``held`` has, of each sample that waits, its stamp, where its row lies, and what was pending when it came.
    counts[_PENDING] += lost
    counts[_LOST] += lost
    # A delay-locked loop, critically damped: Adriaensen, "Using a DLL to filter time", Linux Audio Conference 2005.
    omega = 2 * np.pi * BANDWIDTH / rate
    kept = 0
    for i in range(times.shape[0]):
        t = times[i]
        mark = _judge(t, rate, moments, counts)
        if mark == _REFUSE:
            counts[_REFUSED] += 1
            continue
        waiting = counts[_SUSPECTS]
        if mark == _SUSPECTED:
            if waiting > 0 and not 0 < t - moments[_SUSPECT] <= BRIDGE:
                counts[_REFUSED] += waiting
                waiting = 0
            moments[_SUSPECT] = t
            if waiting + 1 < CONFIRMED:
                held[waiting, 0] = t
                held[waiting, 1] = _AHEAD + i
                held[waiting, 2] = counts[_PENDING]
                counts[_SUSPECTS] = waiting + 1
                continue
        else:
            counts[_REFUSED] += waiting
            waiting = 0
        counts[_SUSPECTS] = 0
        pending = counts[_PENDING]
        before = 0
        for j in range(waiting + 1):
            at = t
            row = _AHEAD + i
            if waiting > 0:
                if j < waiting:
                    at = held[j, 0]
                    row = int(held[j, 1])
                    counts[_PENDING] = int(held[j, 2]) - before
                    before = int(held[j, 2])
                else:
                    counts[_PENDING] = pending - before
                mark = RESTART if j == 0 else _judge(at, rate, moments, counts)
                if mark == _REFUSE:
                    counts[_REFUSED] += 1
                    continue
            smoothed[kept] = _accept(at, mark, rate, omega, moments, counts)
            keep[kept] = row
            marks[kept] = mark
            kept += 1
    if counts[_SUSPECTS] > 0:  # their rows outlive this batch; what waited before it may be among those kept
        counts[_SIDE] = 1 - counts[_SIDE]
        for j in range(counts[_SUSPECTS]):
            row = counts[_SIDE] * CONFIRMED + j
            rows[row] = rows[int(held[j, 1])]
            held[j, 1] = row
    return kept


class Intake:
    """Decides which samples of one stream are taken, and where its segments begin. Belongs to one thread.

    A stamp must be a number and new. Within SKIPPED seconds of where the stream's own rhythm puts the sample it counts
    as jitter, and the sample gets a stamp of that rhythm, which follows slowly. A step of more than BRIDGE seconds, or
    as many lost samples, ends a segment; a shorter hole is marked. A stamp further back is refused, a lone wild one
    too. A leap that lasts is followed: its first samples wait, with their values, until it is confirmed.
    """

    def __init__(self, rate: float, batch: int, width: int = 1) -> None:
        self._rate = rate
        self._moments = np.zeros(6)
        self._counts = np.zeros(8, np.int64)
        self._held = np.zeros((CONFIRMED, 3))
        self._times = np.zeros(batch)
        self.rows = np.zeros((_AHEAD + batch, width), np.float32)
        """The values (rows, width) to which the row numbers of `admit` belong; valid until its next call."""
        self._keep = np.zeros(batch + CONFIRMED, np.int64)
        self._marks = np.zeros(batch + CONFIRMED, np.uint8)
        self._smoothed = np.zeros(batch + CONFIRMED)
        self.reset()
        self.admit(np.zeros(0), np.zeros((0, width), np.float32), 0)

    def admit(
        self, times: NDArray[np.float64], values: NDArray[np.float32], lost: int
    ) -> tuple[NDArray[np.int64], NDArray[np.uint8], NDArray[np.float64]]:
        """Samples of stamps (n,) and values (n, width), at most ``batch``; of those that are taken the numbers of their
        ``rows``, their marks and smoothed stamps (m,): up to CONFIRMED - 1 more than came now have waited till now.

        All are views of the intake's own memory, valid until the next call.
        """
        # Chunks come read-only, strided or in other types; the kernel is compiled for these arrays only, so that no
        # chunk ever makes the live path wait for a compiler.
        n = len(times)
        self._times[:n] = times
        self.rows[_AHEAD : _AHEAD + n] = values
        kept = _admit(
            self._times[:n],
            self.rows,
            max(0, lost),
            self._rate,
            self._moments,
            self._counts,
            self._held,
            self._keep,
            self._marks,
            self._smoothed,
        )
        return self._keep[:kept], self._marks[:kept], self._smoothed[:kept]

    @property
    def first(self) -> float:
        """The earliest stamp taken, seconds; NaN before there is one."""
        return float(self._moments[_FIRST])

    @property
    def last(self) -> float:
        """The newest stamp taken, seconds; NaN before there is one."""
        return float(self._moments[_STAMP]) if self._counts[_SINCE] else float("nan")

    def counters(self, overrun: int) -> Counters:
        c = self._counts
        refused = int(c[_REFUSED] + c[_SUSPECTS])  # what still waits has not been taken
        return Counters(int(c[_SAMPLES]), int(c[_LOST]), refused, int(c[_GAPS]), overrun)

    def reset(self) -> None:
        """As new."""
        self._moments[:] = 0.0, -np.inf, 0.0, np.nan, 1 / self._rate, np.nan
        self._counts[:] = 0


@numba.njit(cache=True)
def _pick(raw, keep, marks, columns, scale, run, before, length, samples, flags):  # type: ignore[no-untyped-def]
    for i in range(keep.shape[0]):
        for c in range(columns.shape[0]):
            value = raw[keep[i], columns[c]]
            flag = 0
            if not np.isfinite(value):
                flag = MISSING
                length[c] = 0
            elif length[c] > 0 and value == before[c] and marks[i] != RESTART:
                length[c] += 1
                if length[c] == run:
                    flag = STUCK | REACHED
                elif length[c] > run:
                    flag = STUCK
            else:
                length[c] = 1
            before[c] = value
            samples[i, c] = scale * value
            flags[i, c] = flag


class Pick:
    """The columns of a stream that a model takes, in its unit, with flags. Belongs to one thread."""

    def __init__(self, columns: tuple[int, ...], scale: float, rate: float, batch: int) -> None:
        self.run_length = max(RUN_SAMPLES, round(RUN_SECONDS * rate))
        self._columns = np.array(columns, np.int64)
        self._scale = float(scale)
        self._before = np.zeros(len(columns), np.float32)
        self._length = np.zeros(len(columns), np.int64)
        self._samples = np.zeros((batch, len(columns)))
        self._flags = np.zeros((batch, len(columns)), np.uint8)
        self.run(np.zeros((0, 1), np.float32), np.zeros(0, np.int64), np.zeros(0, np.uint8))

    def run(
        self, raw: NDArray[np.float32], keep: NDArray[np.int64], marks: NDArray[np.uint8]
    ) -> tuple[NDArray[np.float64], NDArray[np.uint8]]:
        """Values and flags (m, columns) of rows ``keep`` (m,) of ``raw`` (n, width); views, till the next call."""
        m = len(keep)
        samples, flags = self._samples[:m], self._flags[:m]
        _pick(
            raw,
            keep,
            marks,
            self._columns,
            self._scale,
            self.run_length,
            self._before,
            self._length,
            samples,
            flags,
        )
        return samples, flags

    def reset(self) -> None:
        """As new."""
        self._before[:] = 0.0
        self._length[:] = 0

"""Resampling of one stream, whatever its rate and the jitter of its stamps, onto the grid of the model.

Grid point n lies at ``n / rate`` seconds on the session clock. Its value is a windowed-sinc interpolation at the
fractional position that its time has between the stamps of its two neighbours, so that a drifting or unsteady clock
bends the interpolation and never shifts it.
"""

from __future__ import annotations

import math

import numba
import numpy as np
from numpy.typing import NDArray
from scipy import signal

from realtime.filters import BRIDGE, HOLE, MISSING, REACHED, RESTART, SETTLING, STUCK

ATTENUATION = 70.0
"""dB of the Kaiser window: what is left of aliases and images."""
LEAST_HALF = 8
"""Samples of the stream on either side of a grid point, at least."""
PHASES = 512
"""Of the kernel table, interpolated linearly between: an error of less than 1e-5 of a full-scale wave."""
NEVER = -(2**62)
"""The grid index before everything."""
MEMORY = 1024
"""Rows of history held between two compactions."""


def half_width(rate: float, grid: float, passband: float) -> int:
    """Samples of a stream of ``rate`` Hz that a grid point needs on either side.

    A Kaiser kernel with its cutoff at the lower of the two Nyquist frequencies keeps ``passband`` Hz whole and rejects
    its images and aliases, ``min(rate, grid) - passband`` and up, when its transition band fits between (Kaiser's
    formula).
    Where the two are closer than a fifth of the slower rate, the kernel is not made longer still: it would cost more
    delay than the last hertz are worth.
    """
    slower = min(rate, grid)
    transition = max(slower - 2 * passband, 0.2 * slower)
    return max(LEAST_HALF, math.ceil((ATTENUATION - 7.95) / (2.285 * 2 * math.pi) * rate / transition / 2))


def kernel_table(rate: float, grid: float, half: int) -> NDArray[np.float64]:
    """Taps (PHASES + 1, 2 * half) for grid points 0, 1/PHASES ... 1 of the way between two samples; rows sum to 1."""
    cutoff = min(1.0, grid / rate)
    offsets = np.arange(2 * half) - (half - 1) - np.arange(PHASES + 1)[:, None] / PHASES
    window = np.i0(signal.kaiser_beta(ATTENUATION) * np.sqrt(np.clip(1 - (offsets / half) ** 2, 0, None)))
    taps = np.sinc(cutoff * offsets) * window
    return np.ascontiguousarray(taps / taps.sum(axis=1, keepdims=True))


@numba.njit(cache=True)
def _owe(g, rate, left, half, past_times, past_flags, owed):  # type: ignore[no-untyped-def]
    """Adds to ``owed`` which share of a grid point's time is nearest to samples that are missing.

    A point can only be missing or not. What the nearest sample says would be wrong by any factor where single values
    are missing at a rate that goes into the grid's, so what a point does not say is said by one of the next.
    """
    low, high = (g - 0.5) / rate, (g + 0.5) / rate
    j = left
    while j > left - half + 1 and 0.5 * (past_times[j - 1] + past_times[j]) > low:
        j -= 1
    while j < left + half:
        begin = 0.5 * (past_times[j - 1] + past_times[j]) if j > left - half + 1 else low
        end = 0.5 * (past_times[j] + past_times[j + 1])
        share = rate * (min(end, high) - max(begin, low))
        if share > 0:
            for c in range(owed.shape[0]):
                if past_flags[j, c] & MISSING:
                    owed[c] += share
        if end >= high:
            break
        j += 1


@numba.njit(cache=True)
def _resample(  # type: ignore[no-untyped-def]
    times,
    samples,
    flags,
    marks,
    start,
    rate,
    table,
    run,
    burst,
    past_times,
    past,
    past_flags,
    past_marks,
    state,
    owed,
    taps,
    sums,
    at,
    rows,
    row_flags,
):
    phases = table.shape[0] - 1
    width = table.shape[1]
    half = width // 2
    room = past_times.shape[0]
    channels = samples.shape[1]
    count, following, clean, out = state[0], state[1], state[2], 0
    i = start
    while i < times.shape[0]:
        if out + burst > at.shape[0]:
            break
        if marks[i] == RESTART or (count and not 0 < times[i] - past_times[count - 1] <= BRIDGE):
            count = 0
            owed[:] = 0.0
        if count == room:
            for j in range(width):
                past_times[j] = past_times[room - width + j]
                past_marks[j] = past_marks[room - width + j]
                for c in range(channels):
                    past[j, c] = past[room - width + j, c]
                    past_flags[j, c] = past_flags[room - width + j, c]
            count = width
        past_times[count] = times[i]
        past_marks[count] = marks[i]
        clean += 1
        for c in range(channels):
            if flags[i, c] & MISSING:
                clean = 0
            past[count, c] = samples[i, c]
            past_flags[count, c] = flags[i, c]
            if flags[i, c] & REACHED:
                # Only now is it known that the values before were the beginning of a run.
                for j in range(max(0, count - run + 1), count + 1):
                    past_flags[j, c] |= STUCK
        count += 1
        i += 1
        if count < width:
            continue
        left = count - half - 1
        a, b = past_times[left], past_times[left + 1]
        g = max(following, np.int64(math.floor(a * rate)))
        while g / rate < a:
            g += 1
        while g / rate < b:
            fraction = (g / rate - a) / (b - a)
            phase = min(int(fraction * phases), phases - 1)
            weight = fraction * phases - phase
            for m in range(width):
                taps[m] = (1 - weight) * table[phase, m] + weight * table[phase + 1, m]
            for c in range(channels):
                sums[c] = 0.0
            for m in range(width):
                for c in range(channels):
                    sums[c] += taps[m] * past[left - half + 1 + m, c]
            nearest = left if fraction < 0.5 else left + 1
            if clean < width:
                _owe(g, rate, left, half, past_times, past_flags, owed)
            for c in range(channels):
                f = np.int64(past_flags[nearest, c]) & (STUCK | SETTLING)
                if owed[c] >= 0.5:
                    owed[c] -= 1.0
                    f |= MISSING
                if past_marks[left + 1] == HOLE:
                    f |= MISSING
                rows[out, c] = 0.0 if f & MISSING else sums[c]
                row_flags[out, c] = f
            at[out] = g
            out += 1
            g += 1
        following = max(following, g)
    state[0], state[1], state[2] = count, following, clean
    return i, out


class Resampler:
    """Carries samples and their flags onto the grid. Belongs to one thread.

    A grid point comes out once as many samples lie beyond it as the kernel reaches; where a segment begins or ends the
    points that lack this support never come.
    """

    def __init__(self, rate: float, grid: float, channels: int, *, passband: float, run: int, batch: int) -> None:
        """From ``rate`` to ``grid`` Hz; ``run`` is the number of equal values that make a run (STUCK)."""
        self.half = half_width(rate, grid, passband)
        self.rate = rate
        self.grid = grid
        self._table = kernel_table(rate, grid, self.half)
        self._run = run
        self._burst = math.ceil(BRIDGE * grid) + 2
        room = MEMORY + 2 * self.half
        self._past_times = np.zeros(room)
        self._past = np.zeros((room, channels))
        self._past_flags = np.zeros((room, channels), np.uint8)
        self._past_marks = np.zeros(room, np.uint8)
        self._state = np.array([0, NEVER, 0], np.int64)
        self._owed = np.zeros(channels)
        self._taps = np.zeros(2 * self.half)
        self._sums = np.zeros(channels)
        size = self._burst + math.ceil(1.1 * batch * grid / rate)
        self._at = np.zeros((size, 1), np.int64)
        self._rows = np.zeros((size, channels), np.float32)
        self._row_flags = np.zeros((size, channels), np.uint8)
        self.run(np.zeros(0), np.zeros((0, channels)), np.zeros((0, channels), np.uint8), np.zeros(0, np.uint8), 0)

    @property
    def lookahead(self) -> float:
        """Seconds of signal beyond a grid point that must be there before it comes out."""
        return self.half / self.rate

    @property
    def following(self) -> int:
        """Grid points before this one have come out or never will; NEVER at the beginning."""
        return int(self._state[1])

    def run(
        self,
        times: NDArray[np.float64],
        samples: NDArray[np.float64],
        flags: NDArray[np.uint8],
        marks: NDArray[np.uint8],
        start: int,
    ) -> tuple[int, NDArray[np.int64], NDArray[np.float32], NDArray[np.uint8]]:
        """Take rows ``start`` and on of ``times`` (n,), ``samples`` and ``flags`` (n, channels), ``marks`` (n,).

        Returns the first row not taken (n when all were; else call again from there), and what came out: grid indices
        (m, 1), values and flags (m, channels). They are views of the resampler's own memory, valid until the next call.
        A row marked RESTART, or whose stamp does not follow within BRIDGE, begins a new segment; a row marked HOLE has
        unmeasured time before it.
        """
        taken, out = _resample(
            times,
            samples,
            flags,
            marks,
            start,
            self.grid,
            self._table,
            self._run,
            self._burst,
            self._past_times,
            self._past,
            self._past_flags,
            self._past_marks,
            self._state,
            self._owed,
            self._taps,
            self._sums,
            self._at[:, 0],
            self._rows,
            self._row_flags,
        )
        return taken, self._at[:out], self._rows[:out], self._row_flags[:out]

    def reset(self) -> None:
        """As new."""
        self._state[:] = 0, NEVER, 0
        self._owed[:] = 0.0

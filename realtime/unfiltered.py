"""What only the raw signal shows, second by second: mains, noise, drift, clipping and values that are sent twice.

The model's filters take most of this away, so it is measured before them. A second is that of the session clock and is
measured once, when the first sample after it has come: however a recording is cut, the figures are the same bits.
"""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from scipy import fft, signal

from realtime.filters import MISSING

MAINS = (50.0, 60.0)
"""Hz."""
HIGH = (30.0, 100.0)
"""Hz: noise of electrodes and muscle, with little brain in it."""
LEAST = 0.8
"""Share of a second's samples without which it has no spectrum."""
KEPT = 3600
"""Seconds kept of a stream that nobody asks about."""

LEVEL, TOTAL, FIFTY, SIXTY, PASSED, PASSED_FIFTY, PASSED_SIXTY, SLOWER, HIGHER, REPEATED, CLIPPED = range(11)
"""The columns of `Unfiltered.over`: the mean; power from 1 Hz on and its mains shares; the same as the model's filters
let it through; power density (unit^2/Hz) from 1 Hz to HIGH and within HIGH but for the mains; share of samples equal to
the one before, and share of samples at the second's largest or smallest value. NaN where a second has no spectrum."""
COLUMNS = 11


class Unfiltered:
    """Measures the channels of one kind of signal before its filter. Belongs to one thread."""

    def __init__(self, rate: float, width: int, sos: NDArray[np.float64]) -> None:
        """At ``rate`` Hz, ``width`` channels; ``sos`` is the filter that follows."""
        self._length = round(rate)
        self._least = math.ceil(LEAST * rate)
        spacing = rate / self._length
        frequencies = np.arange(self._length // 2 + 1) * spacing
        self._window = signal.get_window("hann", self._length)
        self._slope = np.arange(self._length) - (self._length - 1) / 2
        response = np.abs(signal.freqz_sos(sos, frequencies, fs=rate)[1]) ** 2
        counted = (frequencies >= 0.99) & (frequencies < 0.99 * rate / 2)
        mains = [np.abs(frequencies - f) <= 1.5 if f + 1.5 < 0.97 * rate / 2 else frequencies < 0 for f in MAINS]
        for f, band in zip(MAINS, mains, strict=True):
            # The window spreads a line over three bins; the filter acts on the line, which is rarely off by 0.1 Hz.
            if band.any():
                response[band] = np.mean(np.abs(signal.freqz_sos(sos, [f - 0.1, f + 0.1], fs=rate)[1]) ** 2)
        harmonics = np.zeros(len(frequencies), np.bool_)
        for f in MAINS:
            for multiple in range(1, 4):
                harmonics |= np.abs(frequencies - multiple * f) <= 2.5
        high = counted & ~harmonics & (frequencies >= HIGH[0]) & (frequencies <= HIGH[1])
        slow = counted & ~harmonics & (frequencies < HIGH[0])
        self._weights = np.stack(
            [
                counted * 1.0,
                *(band & counted for band in mains),
                response * counted,
                *(response * (band & counted) for band in mains),
                slow / (max(1, int(slow.sum())) * spacing),
                high / (max(1, int(high.sum())) * spacing),
            ]
        )
        # One-sided power of a Hann-windowed stretch: the sum over the bins is the variance.
        self._weights *= 2 / (self._length * np.sum(self._window**2))
        self._samples = np.zeros((2 * self._length, width))
        self._missing = np.zeros((2 * self._length, width), np.bool_)
        self._width = width
        self.reset()

    def reset(self) -> None:
        """As new."""
        self._seconds: dict[int, NDArray[np.float64]] = {}
        self._current: int | None = None
        self._count = 0

    def take(self, times: NDArray[np.float64], samples: NDArray[np.float64], flags: NDArray[np.uint8]) -> None:
        """Samples (n, width) that were let in, with their smoothed stamps (n,) and flags, before they are filtered."""
        if not len(times):
            return
        numbers = np.floor(times).astype(np.int64)
        edges = [0, *(1 + np.flatnonzero(np.diff(numbers))).tolist(), len(numbers)]
        for a, b in pairwise(edges):
            number = int(numbers[a])
            if number != self._current:
                self._close()
                self._current = number
            room = min(b - a, len(self._samples) - self._count)  # a source twice as fast as it says is cut off
            into = slice(self._count, self._count + room)
            self._samples[into] = samples[a : a + room]
            self._missing[into] = flags[a : a + room] & MISSING != 0
            self._count += room

    def over(self, start: float, stop: float) -> NDArray[np.float64]:
        """Figures (seconds, width, COLUMNS) of the whole seconds between two times that had samples.

        What lies before ``start`` is forgotten: ask in the order of time.
        """
        for number in [number for number in self._seconds if number < math.floor(start)]:
            del self._seconds[number]
        numbers = range(math.ceil(start), math.floor(stop))
        found = [self._seconds[number] for number in numbers if number in self._seconds]
        return np.stack(found) if found else np.zeros((0, self._width, COLUMNS))

    def _close(self) -> None:
        """The second in hand is over."""
        if self._current is None or not self._count:
            return
        # A segment that was given up may touch a second again: its first measure stands.
        self._seconds.setdefault(self._current, self._measure(self._count))
        self._count = 0
        while len(self._seconds) > KEPT:
            del self._seconds[next(iter(self._seconds))]

    def _measure(self, n: int) -> NDArray[np.float64]:
        samples, missing = self._samples[:n], self._missing[:n]
        there = n - missing.sum(axis=0)
        figures = np.full((self._width, COLUMNS), np.nan)
        filled = np.where(missing, 0.0, samples)
        mean = filled.sum(axis=0) / np.maximum(there, 1)
        filled = np.where(missing, mean, filled)
        figures[:, LEVEL] = np.where(there > 0, mean, np.nan)
        if n > 1:
            same = (filled[1:] == filled[:-1]) & ~missing[1:] & ~missing[:-1]
            figures[:, REPEATED] = same.sum(axis=0) / np.maximum(there - 1, 1)
            extreme = (filled == filled.max(axis=0)) | (filled == filled.min(axis=0))
            figures[:, CLIPPED] = (extreme & ~missing).sum(axis=0) / np.maximum(there, 1)
        if n >= self._least:
            piece = np.zeros((self._length, self._width))
            used = min(n, self._length)
            piece[:used] = filled[n - used :] - mean
            tilt = (self._slope[:used, None] * piece[:used]).sum(axis=0) / np.sum(self._slope[:used] ** 2)
            piece[:used] -= tilt * self._slope[:used, None]
            power = np.abs(fft.rfft(piece * self._window[:, None], axis=0)) ** 2
            sums = np.stack([(power * weights[:, None]).sum(axis=0) for weights in self._weights], axis=1)
            sums[there < self._least] = np.nan
            figures[:, TOTAL : HIGHER + 1] = sums
        return figures

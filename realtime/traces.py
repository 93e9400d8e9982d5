"""Samples for the eye: a stream thinned to its envelope, so that no spike is lost between two pixels."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from devices.api import Chunk, StreamInfo
from realtime.api import Traces

PAIRS_A_SECOND = 125
"""Smallest and largest sample of each 8 ms; slower streams pass unthinned."""


def binned(rate: float) -> int:
    """How many samples of a stream of ``rate`` become a pair; 1 when all pass."""
    return max(1, int(rate // PAIRS_A_SECOND)) if rate > 2 * PAIRS_A_SECOND else 1


def row_rate(rate: float) -> float:
    """How many rows a second a stream of ``rate`` is drawn by.

    >>> [row_rate(rate) for rate in (130.0, 250.0, 500.0, 1000.0)]
    [130.0, 250.0, 250.0, 250.0]
    """
    return rate if binned(rate) == 1 else 2 * rate / binned(rate)


class Thinner:
    """Collects the chunks of one stream; ``take`` gives what is complete as min/max pairs of whole bins."""

    def __init__(self, info: StreamInfo) -> None:
        self._stream = info.key
        self._bin = binned(info.rate)
        self._gap_over = 3.0 / info.rate
        self._times: list[NDArray[np.float64]] = []
        self._data: list[NDArray[np.float32]] = []
        self._last = np.nan
        self._gap = False

    def add(self, chunk: Chunk) -> list[Traces]:
        """Keep a chunk; when it comes after a gap, what was waiting is given first."""
        if not len(chunk.times):
            return []
        torn = chunk.lost > 0 or chunk.times[0] - self._last > self._gap_over
        before = self.take(everything=True) if torn else []
        self._gap |= bool(torn)
        self._last = chunk.times[-1]
        self._times.append(chunk.times)
        self._data.append(chunk.single)
        return before

    def take(self, *, everything: bool = False) -> list[Traces]:
        """What is complete: none or one message. ``everything`` gives the last, incomplete bin as it is."""
        if not self._times:
            return []
        times, data = np.concatenate(self._times), np.concatenate(self._data)
        whole = len(times) // self._bin
        used = whole * self._bin
        self._times, self._data = ([], []) if everything or used == len(times) else ([times[used:]], [data[used:]])
        pieces: list[tuple[NDArray[np.float64], NDArray[np.float32]]] = []
        if self._bin == 1:
            pieces.append((times, data))
        elif whole:
            bins = data[:used].reshape(whole, self._bin, -1)
            pairs = np.stack([bins.min(axis=1), bins.max(axis=1)], axis=1).reshape(2 * whole, -1)
            half = self._bin // 2
            moments = np.stack([times[: used : self._bin], times[half : used : self._bin]], axis=1).reshape(-1)
            pieces.append((moments, pairs))
        if everything and self._bin > 1 and used < len(times):
            pieces.append((times[used:], data[used:]))
        if not pieces:
            return []
        gap, self._gap = self._gap, False
        return [
            Traces(self._stream, np.concatenate([t for t, _ in pieces]), np.concatenate([d for _, d in pieces]), gap)
        ]

    def clear(self) -> None:
        self._times, self._data = [], []
        self._last = np.nan
        self._gap = False

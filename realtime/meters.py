"""What has come of each stream, in numbers, for the screen and for the description of the record."""

from __future__ import annotations

import math
from collections import deque

import numpy as np

from devices.api import Chunk, Clock, Events, StreamInfo

GAP = 0.1
"""Seconds without a sample that are a gap, beyond `GAP_SAMPLES` of a slow stream."""
GAP_SAMPLES = 4
RATE_OVER = 5.0
"""Seconds over which the effective rate is taken."""


class Meter:
    """Counts one stream. ``take`` belongs to one thread; the numbers may be read from any, ``arrived`` also be set."""

    def __init__(self, info: StreamInfo) -> None:
        self._gap = max(GAP, GAP_SAMPLES / info.rate) if info.rate else math.inf
        self.arrived = math.nan
        """``time.monotonic()`` of the last arrival."""
        self.offset = math.nan
        """Seconds between the clock of the source and the session's; NaN when it was not measured."""
        self.offset_sd = math.nan
        self._recent: deque[tuple[float, int]] = deque()
        self.rewind()

    def rewind(self) -> None:
        """A replay starts over: the counts do, too."""
        self.newest = math.nan
        """Stamp of the newest sample."""
        self.samples = self.lost = self.gaps = 0
        self._recent.clear()

    def take(self, item: Chunk | Events | Clock) -> None:
        match item:
            case Chunk() if len(item.times):
                self._count(item)
            case Events() if len(item.times):
                self.newest = float(item.times[-1])
                self.samples += len(item.times)
                self.lost += item.lost
            case Clock():
                self.offset, self.offset_sd = item.offset, item.uncertainty

    def _count(self, chunk: Chunk) -> None:
        newest = float(chunk.times[-1])
        steps = np.diff(chunk.times, prepend=self.newest)
        holes = steps > self._gap  # false for the first sample, before which there was nothing
        self.gaps += int(np.count_nonzero(holes)) + (chunk.lost > 0 and not holes[0])
        self.samples += len(chunk.times)
        self.lost += chunk.lost
        if not math.isfinite(newest):  # a stamp that is no time would never grow old
            return
        self.newest = newest
        recent = self._recent
        if recent and newest < recent[-1][0]:
            recent.clear()
        recent.append((newest, len(chunk.times)))
        while recent[0][0] < newest - RATE_OVER:
            recent.popleft()

    @property
    def rate(self) -> float:
        """Hz, from the stamps and sizes of the last chunks; NaN from fewer than two."""
        recent = tuple(self._recent)
        if len(recent) < 2 or not recent[-1][0] > recent[0][0]:
            return math.nan
        return sum(count for _, count in recent[1:]) / (recent[-1][0] - recent[0][0])

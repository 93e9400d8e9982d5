"""The last seconds of one stream, kept for drawing, and its reduction to what a screen can show."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


class History:
    """The newest rows of one stream: times (n,) in seconds and data (n, channels), in constant memory.

    A missing stretch is one row of NaN, so that a curve drawn with ``connect="finite"`` breaks there.
    """

    def __init__(self, channels: int, capacity: int) -> None:
        self.capacity = capacity
        self.times = np.empty(2 * capacity, np.float64)
        self.data = np.empty((2 * capacity, channels), np.float32)
        self.forget()

    def forget(self) -> None:
        """Empty it."""
        self._end = 0
        self._written = 0

    @property
    def newest(self) -> float:
        """Time of the newest row, NaN when empty."""
        return float(self.times[self._end - 1]) if self._end else float("nan")

    def append(self, times: NDArray[np.float64], data: NDArray[np.float32], *, gap: bool = False) -> None:
        """Add rows; with ``gap`` a break goes before them. Rows without a finite time are left out."""
        finite = np.isfinite(times)
        if not finite.all():
            times, data, gap = times[finite], data[finite], True
        if not times.size:
            return
        if times.size >= self.capacity:
            times, data = times[-self.capacity :], data[-self.capacity :]
            self.forget()
        elif self._end and times[0] < self.newest - 1.0:
            self.forget()  # the clock was set back: what is drawn must stay in order of time
        if gap and self._end:
            self._add(np.array([self.newest]), np.full((1, self.data.shape[1]), np.nan, np.float32))
        self._add(times, data)

    def _add(self, times: NDArray[np.float64], data: NDArray[np.float32]) -> None:
        if self._end + times.size > self.times.size:
            kept = min(self._end, self.capacity)
            self.times[:kept] = self.times[self._end - kept : self._end]
            self.data[:kept] = self.data[self._end - kept : self._end]
            self._end = kept
        self.times[self._end : self._end + times.size] = times
        self.data[self._end : self._end + times.size] = data
        self._end += times.size
        self._written += times.size

    def since(self, time: float, points: int) -> tuple[NDArray[np.float64], NDArray[np.float32]]:
        """Rows from ``time`` on, as at most about ``2 * points`` rows: (m,) and (m, channels); do not write into them.

        More rows than that become pairs of minimum and maximum. Groups start at fixed rows of the stream, so that the
        picture does not flicker while it scrolls.
        """
        first = max(0, self._end - self.capacity)
        start = first + int(np.searchsorted(self.times[first : self._end], time))
        count = self._end - start
        group = 1
        while count > group * max(points, 1) and group < 1 << 20:
            group *= 2
        if group <= 2:  # pairs of two rows would save nothing
            return self.times[start : self._end], self.data[start : self._end]
        start += -(self._written - count) % group
        groups = (self._end - start) // group
        cut = start + groups * group
        blocks = self.data[start:cut].reshape(groups, group, -1)
        times = np.empty(2 * groups + self._end - cut)
        data = np.empty((times.size, blocks.shape[2]), np.float32)
        times[0 : 2 * groups : 2] = self.times[start:cut:group]
        times[1 : 2 * groups : 2] = self.times[start + group // 2 : cut : group]
        data[0 : 2 * groups : 2] = blocks.min(axis=1)
        data[1 : 2 * groups : 2] = blocks.max(axis=1)
        times[2 * groups :] = self.times[cut : self._end]
        data[2 * groups :] = self.data[cut : self._end]
        return times, data


def stacked(
    times: NDArray[np.float64], rows: NDArray[np.float32], offsets: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """One line through all channels: ``rows`` (m, channels) shifted by ``offsets`` (channels,), NaN between channels.

    Returns x and y, each (channels * (m + 1),): one path draws faster than one a channel.
    """
    count, channels = rows.shape
    y = np.full((channels, count + 1), np.nan)
    y[:, :count] = rows.T + offsets[:, None]
    x = np.zeros((channels, count + 1))
    x[:, :count] = times
    return x.ravel(), y.ravel()

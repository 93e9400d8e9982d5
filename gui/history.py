"""What a stream was like, for the whole session in bounded memory, and its reduction to what a screen can show."""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

Seen = tuple[NDArray[np.float64], NDArray[np.float32]]
"""Times (n,) and rows (n, channels)."""
Value = TypeVar("Value")

LEVEL_BYTES = 64_000_000
"""Memory of a stream at one resolution: 64 channels as they are sent for 16 min, 8 channels for 1.8 h."""
FOLD = 16
"""Rows that become their smallest and largest value one resolution further down."""
LONGEST = 24 * 3600.0
"""Seconds of signal that the coarsest resolution has room for."""
PAGE = 2048
"""Rows that are allocated at once."""


class Rows:
    """Times and rows (n, channels), counted from 0 on; the newest ``capacity`` of them are kept, in pages."""

    def __init__(self, channels: int, capacity: int) -> None:
        self.channels = channels
        self.capacity = capacity
        self.forget()

    def forget(self) -> None:
        """Empty it."""
        self._pages: list[Seen] = []
        self._firsts: list[float] = []
        """Time of the first row of every page."""
        self._base = 0
        self.end = 0
        self.folded = 0
        """Rows before it are in the next resolution."""

    @property
    def first(self) -> int:
        """The number of the oldest row that is kept."""
        return self._base

    @property
    def nbytes(self) -> int:
        return sum(times.nbytes + data.nbytes for times, data in self._pages)

    def add(self, times: NDArray[np.float64], data: NDArray[np.float32]) -> None:
        """Append rows."""
        done = 0
        while done < len(times):
            at = (self.end - self._base) % PAGE
            if at == 0 and self.end - self._base == PAGE * len(self._pages):
                self._turn_page(float(times[done]))
            count = min(PAGE - at, len(times) - done)
            page_times, page_data = self._pages[-1]
            page_times[at : at + count] = times[done : done + count]
            page_data[at : at + count] = data[done : done + count]
            self.end += count
            done += count

    def _turn_page(self, first: float) -> None:
        if len(self._pages) * PAGE >= self.capacity:  # the oldest page is written anew
            self._pages.append(self._pages.pop(0))
            del self._firsts[0]
            self._base += PAGE
        else:
            self._pages.append((np.empty(PAGE, np.float64), np.empty((PAGE, self.channels), np.float32)))
        self._firsts.append(first)

    def cut(self, row: int) -> None:
        """Drop the rows from number ``row`` on."""
        self.end = max(min(row, self.end), self._base)
        pages = -(-(self.end - self._base) // PAGE)
        del self._pages[pages:], self._firsts[pages:]
        self.folded = min(self.folded, self.end)

    def time(self, row: int) -> float:
        """Of one row, which must be there."""
        page, at = divmod(row - self._base, PAGE)
        return float(self._pages[page][0][at])

    def place(self, time: float, *, after: bool = False) -> int:
        """The number of the first row not before ``time``; ``after``: later than it."""
        page = (bisect_right if after else bisect_left)(self._firsts, time) - 1
        if page < 0:
            return self._base
        begin = self._base + page * PAGE
        times = self._pages[page][0][: min(PAGE, self.end - begin)]
        return begin + int(np.searchsorted(times, time, "right" if after else "left"))

    def read(self, first: int, last: int) -> Seen:
        """Rows ``first`` to ``last`` (exclusive); do not write into them."""
        first, last = max(first, self._base), min(last, self.end)
        if first >= last:
            return np.empty(0), np.empty((0, self.channels), np.float32)
        pages = range((first - self._base) // PAGE, (last - 1 - self._base) // PAGE + 1)
        parts = []
        for page in pages:
            begin = self._base + page * PAGE
            part = slice(max(first - begin, 0), min(last - begin, PAGE))
            parts.append((self._pages[page][0][part], self._pages[page][1][part]))
        if len(parts) == 1:
            return parts[0]
        return np.concatenate([times for times, _ in parts]), np.concatenate([data for _, data in parts])


class History:
    """One stream since the dashboard looks on: the newest rows as they came, older ones as smallest and largest value.

    A pyramid: every resolution has an eighth of the rows of the one before and the same room, so that it reaches eight
    times as far back. A missing stretch is one row of NaN wherever it is as long as two rows, so that a curve drawn
    with ``connect="finite"`` breaks there.
    """

    def __init__(self, channels: int, rate: float, level_bytes: int = LEVEL_BYTES) -> None:
        """``rate`` of rows a second, at most; ``level_bytes`` of memory for one resolution."""
        self.channels = channels
        self.rate = rate
        room = max(2 * PAGE, level_bytes // (4 * channels + 8))
        self.levels: list[Rows] = []
        while True:
            needed = math.ceil(LONGEST * self.row_rate(len(self.levels)))
            self.levels.append(Rows(channels, min(room, needed)))
            if needed <= room and needed <= 16 * PAGE:
                break

    def row_rate(self, level: int) -> float:
        """Rows a second of a level."""
        return self.rate * (2 / FOLD) ** level

    @property
    def nbytes(self) -> int:
        return sum(level.nbytes for level in self.levels)

    @property
    def newest(self) -> float:
        """Time of the newest row, NaN when empty."""
        rows = self.levels[0]
        return rows.time(rows.end - 1) if rows.end > rows.first else math.nan

    @property
    def oldest(self) -> float:
        """Time of the oldest row at any resolution, NaN when empty."""
        return min((rows.time(rows.first) for rows in self.levels if rows.end > rows.first), default=math.nan)

    def grain(self, time: float) -> float:
        """Seconds of which only smallest and largest value are still known at ``time``; 0 where all that came is."""
        for level, rows in enumerate(self.levels):
            if rows.first == 0 or time >= rows.time(rows.first):
                return 2 / self.row_rate(level) if level else 0.0
        return 2 / self.row_rate(len(self.levels) - 1)

    def forget(self) -> None:
        """Empty it."""
        for rows in self.levels:
            rows.forget()

    def append(self, times: NDArray[np.float64], data: NDArray[np.float32], *, gap: bool = False) -> None:
        """Add rows; with ``gap`` a break goes before them. Rows without a finite time are left out."""
        finite = np.isfinite(times)
        if not finite.all():
            times, data, gap = times[finite], data[finite], True
        if not times.size:
            return
        newest = self.newest
        if times[0] < newest - 1.0:
            self.forget()  # the clock was set back: what is drawn must stay in order of time
        elif gap and math.isfinite(newest):
            self._break(newest, float(times[0]) - newest)
        for first in range(0, len(times), PAGE // 2):  # less than a level has room for, and folded before it goes
            part = slice(first, first + PAGE // 2)
            self.levels[0].add(times[part], data[part])
            self._fold()

    def cut(self, time: float) -> None:
        """Drop what came from ``time`` on: it will come again."""
        self._fold(everything=True)
        for rows in self.levels:
            rows.cut(rows.place(time))
            rows.folded = rows.end

    def _break(self, newest: float, length: float) -> None:
        """Write down that ``length`` seconds are missing, at every resolution at which that can be seen."""
        nothing = np.full((1, self.channels), np.nan, np.float32)
        for level, rows in enumerate(self.levels):
            if level and length < 2 / self.row_rate(level):
                return
            self._fold_level(level, everything=True)
            rows.add(np.array([newest]), nothing)
            rows.folded = rows.end

    def _fold(self, *, everything: bool = False) -> None:
        for level in range(len(self.levels) - 1):
            self._fold_level(level, everything=everything)

    def _fold_level(self, level: int, *, everything: bool) -> None:
        """Pass on what is complete; with ``everything`` what is not, too."""
        if level + 1 >= len(self.levels):
            return
        rows, coarser = self.levels[level], self.levels[level + 1]
        whole = (rows.end - rows.folded) // FOLD
        if whole:
            times, data = rows.read(rows.folded, rows.folded + whole * FOLD)
            coarser.add(*folded(times, data, FOLD))
            rows.folded += whole * FOLD
        if everything and rows.end > rows.folded:
            times, data = rows.read(rows.folded, rows.end)
            coarser.add(*folded(times, data, len(times)))
            rows.folded = rows.end

    def between(self, low: float, high: float, points: int) -> Seen:
        """Rows from ``low`` to ``high`` as at most about ``2 * points`` rows: (m,) and (m, channels); do not write.

        More rows than that become pairs of smallest and largest. Groups start at fixed rows of the stream, so that the
        picture does not flicker while it scrolls.
        """
        points = max(points, 1)
        for level, rows in enumerate(self.levels):
            first, last = rows.place(low), rows.place(high, after=True)
            there = rows.first == 0 or (rows.end > rows.first and rows.time(rows.first) <= low)
            if level + 1 == len(self.levels) or (there and last - first <= FOLD * points):
                break
        parts = [grouped(rows, first, last, points)]
        for finer in reversed(self.levels[:level]):  # what has not been folded yet
            begin = max(finer.folded, finer.place(low))
            parts.append(finer.read(begin, finer.place(high, after=True)))
        if not any(len(times) for times, _ in parts[1:]):
            return parts[0]
        return np.concatenate([times for times, _ in parts]), np.concatenate([data for _, data in parts])


def folded(times: NDArray[np.float64], data: NDArray[np.float32], group: int) -> Seen:
    """Smallest and largest of each ``group`` rows, NaN left out; the number of rows is a multiple of it."""
    blocks = data.reshape(len(times) // group, group, -1)
    found_times = np.empty(2 * len(blocks))
    found = np.empty((2 * len(blocks), blocks.shape[2]), np.float32)
    found_times[0::2] = times[::group]
    found_times[1::2] = times[group // 2 :: group]
    found[0::2] = np.fmin.reduce(blocks, axis=1)
    found[1::2] = np.fmax.reduce(blocks, axis=1)
    return found_times, found


def grouped(rows: Rows, first: int, last: int, points: int) -> Seen:
    """Rows ``first`` to ``last`` of ``rows``, in groups of a power of two where they are many; NaN stays."""
    group = 1
    while last - first > group * points and group < 1 << 20:
        group *= 2
    if group <= 2:  # pairs of two rows would save nothing
        return rows.read(first, last)
    start = first + -first % group
    times, data = rows.read(start, last)
    groups = len(times) // group
    cut = groups * group
    blocks = data[:cut].reshape(groups, group, -1)
    found_times = np.empty(2 * groups + len(times) - cut)
    found = np.empty((found_times.size, data.shape[1]), np.float32)
    found_times[0 : 2 * groups : 2] = times[:cut:group]
    found_times[1 : 2 * groups : 2] = times[group // 2 : cut : group]
    found[0 : 2 * groups : 2] = blocks.min(axis=1)
    found[1 : 2 * groups : 2] = blocks.max(axis=1)
    found_times[2 * groups :] = times[cut:]
    found[2 * groups :] = data[cut:]
    return found_times, found


class Moments(Generic[Value]):
    """What happened when, in order of time, the newest ``most`` of it."""

    def __init__(self, most: int) -> None:
        self.most = most
        self._times: list[float] = []
        self._values: list[Value] = []

    def __len__(self) -> int:
        return len(self._times)

    def add(self, time: float, value: Value) -> None:
        """Keep one moment; one without a finite time is left out."""
        if not math.isfinite(time):
            return
        at = bisect_right(self._times, time)
        self._times.insert(at, time)
        self._values.insert(at, value)
        if len(self._times) > 1.1 * self.most:
            del self._times[: -self.most], self._values[: -self.most]

    def between(self, low: float, high: float) -> list[tuple[float, Value]]:
        """Those from ``low`` to ``high``."""
        first, last = bisect_left(self._times, low), bisect_right(self._times, high)
        return list(zip(self._times[first:last], self._values[first:last], strict=True))

    def clear(self) -> None:
        self._times.clear()
        self._values.clear()


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

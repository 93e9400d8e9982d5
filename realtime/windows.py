"""Chunks in, windows out: the one path that live sessions, replays and training share.

However a recording is cut into chunks, and however the chunks of its streams are interleaved, the windows are the same
to the last bit: all that is computed goes sample by sample, and a window is cut when every kind of signal has passed
its end. Only a `Tick` cuts earlier.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence

import numba
import numpy as np
from numpy.typing import NDArray

from devices.api import Chunk, End, Item, Rewind, StreamInfo, Tick
from models.api import InputSpec, Verdict, Window, WindowSpec
from realtime.filters import MISSING, SETTLING, Filter, design
from realtime.intake import ABSURD, CONFIRMED, Counters, Intake, Pick
from realtime.quality import assess
from realtime.resample import NEVER, Resampler
from realtime.ring import Ring
from realtime.sources import Picked, choose
from realtime.unfiltered import Unfiltered

BATCH = 4096
"""Samples that go through at a time."""
PIECE = BATCH - CONFIRMED
"""Samples taken at a time; a longer chunk goes through in pieces, and with a piece some that have waited."""
GRACE = 1.0
"""Seconds after the end of a window, beside the resampler's reach, after which a tick cuts it without what is missing.

A chest strap sends 0.56 s of ECG at a time."""
LEAD = 3600.0
"""Seconds of signal kept for a stream that is ahead of another; what comes beyond it overwrites the oldest."""
VOID = 60
"""Windows in a row, without a sample in any of them, that one call gives; it goes on after the hole."""


class Windower:
    """Cuts ``spec``'s windows from the chunks of ``streams``. Belongs to one thread.

    ``picked`` says what feeds each kind of signal. What is never picked is not waited for: it is zeros in every window.
    """

    def __init__(self, spec: WindowSpec, streams: Sequence[StreamInfo], *, grace: float = GRACE) -> None:
        self.spec = spec
        self.picked: dict[str, Picked] = choose(streams, spec)
        self._length = round(spec.seconds * spec.rate)
        self._lanes = {
            one.kind: _Lane(one, self.picked[one.kind], spec, grace) for one in spec.inputs if one.kind in self.picked
        }
        self._feeds = {
            stream.key: _Feed(stream, [lane for lane in self._lanes.values() if lane.picked.stream == stream.key])
            for stream in streams
            if any(picked.stream == stream.key for picked in self.picked.values())
        }
        self.grace = grace + max((lane.resampler.lookahead for lane in self._lanes.values()), default=0.0)
        """Seconds after its end at which a tick cuts a window."""
        self._next: int | None = None
        self._skipped = 0
        self._window(0, 0, 1)  # compiles what cuts a window, or loads it: no live window waits for that

    def push(self, chunk: Chunk) -> list[Window]:
        """Take a chunk; the windows that every kind of signal has now passed. Chunks of unused streams do nothing."""
        feed = self._feeds.get(chunk.stream)
        if feed is None:
            return []
        if chunk.data.shape != (len(chunk.times), feed.width):
            raise ValueError(
                f"{chunk.stream}: {len(chunk.times)} stamps of {feed.width} channels came with data {chunk.data.shape}"
            )
        windows: list[Window] = []
        data = chunk.single
        for at in range(0, max(1, len(chunk.times)), PIECE):
            floor = NEVER if self._next is None else self._first_point(self._next)
            feed.take(chunk.times[at : at + PIECE], data[at : at + PIECE], 0 if at else chunk.lost, floor)
            windows += self._cut_until(min(lane.resampler.following for lane in self._lanes.values()))
        return windows

    def tick(self, now: float) -> list[Window]:
        """The session clock is at ``now``: the windows that are overdue by ``grace``, without what has not come.

        When the list is empty nothing has changed. When it is not, this very tick must be part of the record, after the
        chunks that came before it: a replay that gives it back at the same place cuts the same windows.
        """
        if not abs(now) < ABSURD:
            return []
        last = math.floor((now - self.grace) / self.spec.hop)
        while last * self.spec.hop + self.grace >= now:
            last -= 1
        return self._cut(last)

    def finish(self) -> list[Window]:
        """Nothing follows: the windows that at least one kind of signal has passed."""
        return self._cut_until(max((lane.resampler.following for lane in self._lanes.values()), default=NEVER))

    def reset(self) -> None:
        """Forget everything that came: from here on as new."""
        for feed in self._feeds.values():
            feed.reset()
        self._next = None
        self._skipped = 0

    @property
    def counters(self) -> dict[str, Counters]:
        """For each stream in use, by key."""
        return {key: feed.counters() for key, feed in self._feeds.items()}

    @property
    def skipped(self) -> int:
        """Windows not given because they lay in a long hole of all streams."""
        return self._skipped

    def newest(self, kind: str) -> float:
        """Stamp of the newest sample of what feeds ``kind``, seconds; NaN before the first or when nothing does."""
        return self._feeds[self.picked[kind].stream].intake.last if kind in self.picked else math.nan

    def delay(self, kind: str, frequency: float = 10.0) -> float:
        """Seconds by which the causal filters of ``kind`` delay a wave of ``frequency`` Hz; not corrected for."""
        return self._lanes[kind].filter.delay(frequency)

    def _last_point(self, k: int) -> int:
        """The grid point at which window ``k`` ends; not part of it."""
        return round(k * self.spec.hop * self.spec.rate)

    def _first_point(self, k: int) -> int:
        return self._last_point(k) - self._length

    def _upcoming(self) -> int | None:
        """The number of the next window; None while no sample has come."""
        if self._next is not None:
            return self._next
        known = [feed.intake.first for feed in self._feeds.values() if not math.isnan(feed.intake.first)]
        if not known:
            return None
        earliest, hop, seconds = min(known), self.spec.hop, self.spec.seconds
        k = math.ceil((earliest + seconds) / hop)
        while k * hop - seconds < earliest:
            k += 1
        while (k - 1) * hop - seconds >= earliest:
            k -= 1
        return k

    def _cut_until(self, point: int) -> list[Window]:
        """The windows that end at or before grid point ``point``."""
        k = self._upcoming()
        if k is None or self._last_point(k) > point:
            return []
        last = max(k, int(point / self.spec.rate / self.spec.hop) - 1)
        while self._last_point(last + 1) <= point:
            last += 1
        return self._cut(last)

    def _cut(self, last: int) -> list[Window]:
        """The windows up to number ``last``, but for the middle of long holes."""
        k = self._upcoming()
        if k is None or k > last:
            return []
        windows: list[Window] = []
        row = 0
        while k <= last:
            first, end = self._first_point(k), self._last_point(k)
            row = 0 if any(lane.holds(first, end) for lane in self._lanes.values()) else row + 1
            if row > VOID:
                resumed = self._resumed(first, last)
                self._skipped += resumed - k
                k = resumed
                continue
            windows.append(self._window(k, first, end))
            k += 1
        self._next = k
        return windows

    def _resumed(self, first: int, last: int) -> int:
        """The first window from grid point ``first`` on that holds a sample, or the one after ``last``."""
        points = [point for lane in self._lanes.values() if (point := lane.from_point(first)) is not None]
        if not points:
            return last + 1
        k = int(min(points) / self.spec.rate / self.spec.hop) - 1
        while self._last_point(k) <= min(points):
            k += 1
        return min(k, last + 1)

    def _window(self, k: int, first: int, end: int) -> Window:
        signals: dict[str, NDArray[np.float32]] = {}
        present: dict[str, float] = {}
        quality: dict[str, tuple[Verdict, ...]] = {}
        for one in self.spec.inputs:
            values = np.zeros((len(one.channels), end - first), np.float32)
            flags = np.full(values.shape, MISSING, np.uint8)
            absent = np.ones(len(one.channels), np.bool_)
            if one.kind in self._lanes:
                self._lanes[one.kind].cut(first, end, values, flags, absent)
                raw = self._lanes[one.kind].raw_seconds(k * self.spec.hop - self.spec.seconds, k * self.spec.hop)
            else:
                raw = None
            signals[one.kind] = values
            present[one.kind] = int(np.count_nonzero((flags & (MISSING | SETTLING)) == 0)) / max(1, flags.size)
            quality[one.kind] = assess(one, values, flags, absent, rate=self.spec.rate, raw=raw)
        return Window(k * self.spec.hop, self.spec.seconds, signals, present, quality)


def iter_windows(
    items: Iterable[Item], spec: WindowSpec, streams: Sequence[StreamInfo], *, grace: float = GRACE
) -> Iterator[Window]:
    """The windows of a recording, by the same path as live: ``items`` as a device gives them, to `End` or their end."""
    windower = Windower(spec, streams, grace=grace)
    for item in items:
        if isinstance(item, Chunk):
            yield from windower.push(item)
        elif isinstance(item, Tick):
            yield from windower.tick(item.time)
        elif isinstance(item, Rewind):
            windower.reset()
        elif isinstance(item, End):
            break
    yield from windower.finish()


@numba.njit(cache=True)
def _place(at, first, places, rows, row_flags, values, flags):  # type: ignore[no-untyped-def]
    # Samples lie (time, channel) while live and (channel, time) where a network sees them: the one transpose.
    for i in range(rows.shape[0]):
        for c in range(rows.shape[1]):
            values[places[c], at[i, 0] - first] = rows[i, c]
            flags[places[c], at[i, 0] - first] = row_flags[i, c]


class _Lane:
    """One kind of signal: its columns picked, filtered, brought onto the grid and kept."""

    def __init__(self, one: InputSpec, picked: Picked, spec: WindowSpec, grace: float) -> None:
        self.picked = picked
        columns = tuple(column for column in picked.columns if column >= 0)
        width = len(columns)
        self._places = np.flatnonzero(np.array(picked.columns) >= 0)
        self._pick = Pick(columns, picked.scale, picked.rate, BATCH)
        self.filter = Filter(design(one, picked.rate), width, picked.rate)
        self.resampler = Resampler(
            picked.rate, spec.rate, width, passband=one.band[1], run=self._pick.run_length, batch=BATCH
        )
        self._unfiltered = Unfiltered(picked.rate, width, self.filter.sos)
        self._lead = round(LEAD * spec.rate)
        room = round((spec.seconds + spec.hop + 2 * grace + 5.0) * spec.rate)
        self._at = Ring(room, 1, np.int64)
        self._values = Ring(room, width, np.float32)
        self._flags = Ring(room, width, np.uint8)
        self.overrun = 0

    def take(
        self,
        raw: NDArray[np.float32],
        times: NDArray[np.float64],
        keep: NDArray[np.int64],
        marks: NDArray[np.uint8],
        floor: int,
    ) -> None:
        """Samples that were let in; grid points from ``floor`` on are still wanted."""
        samples, flags = self._pick.run(raw, keep, marks)
        self._unfiltered.take(times, samples, flags)
        self.filter.run(samples, flags, marks)
        taken = 0
        while taken < len(times):
            taken, at, values, out_flags = self.resampler.run(times, samples, flags, marks, taken)
            self._make_room(at[:, 0], floor)
            self._at.write(at)
            self._values.write(values)
            self._flags.write(out_flags)

    def _make_room(self, coming: NDArray[np.int64], floor: int) -> None:
        """Before rows are written: grid points still wanted must not be written over, up to LEAD."""
        there = self._at.view(self._at.oldest, self._at.written)[:, 0]
        over = len(there) + len(coming) - self._at.capacity
        if over <= 0:
            return
        wanted = sum(len(points) - int(points.searchsorted(floor)) for points in (there, coming))
        if wanted <= self._at.capacity:
            return
        room = min(max(2 * self._at.capacity, wanted), max(self._lead, self._at.capacity))
        self.overrun += max(0, wanted - room)
        for ring in (self._at, self._values, self._flags):
            ring.grow(room)

    def _rows(self, first: int, end: int) -> tuple[int, int]:
        """The rows of the rings with grid points ``first`` to ``end``."""
        oldest = self._at.oldest
        points = self._at.view(oldest, self._at.written)[:, 0]
        return oldest + int(points.searchsorted(first)), oldest + int(points.searchsorted(end))

    def holds(self, first: int, end: int) -> bool:
        """Whether there is any grid point from ``first`` to ``end``."""
        low, high = self._rows(first, end)
        return high > low

    def from_point(self, first: int) -> int | None:
        """The first grid point from ``first`` on that there is."""
        low, _ = self._rows(first, first)
        return int(self._at.view(low, low + 1)[0, 0]) if low < self._at.written else None

    def cut(
        self, first: int, end: int, values: NDArray[np.float32], flags: NDArray[np.uint8], absent: NDArray[np.bool_]
    ) -> None:
        """Fill ``values`` and ``flags`` (channels of the spec, end - first) and ``absent`` (channels of the spec,)."""
        low, high = self._rows(first, end)
        at = self._at.view(low, high)
        _place(at, first, self._places, self._values.view(low, high), self._flags.view(low, high), values, flags)
        absent[self._places] = False

    def raw_seconds(self, start: float, stop: float) -> NDArray[np.float64]:
        """Figures (seconds, channels of the spec, columns) of the signal before the filter, NaN where absent."""
        measured = self._unfiltered.over(start, stop)
        figures = np.full((len(measured), len(self.picked.columns), measured.shape[2]), np.nan)
        figures[:, self._places] = measured
        return figures

    def reset(self) -> None:
        self._pick.reset()
        self.filter.reset()
        self._unfiltered.reset()
        self.resampler.reset()
        for ring in (self._at, self._values, self._flags):
            ring.clear()
        self.overrun = 0


class _Feed:
    """One stream that feeds at least one kind of signal."""

    def __init__(self, stream: StreamInfo, lanes: list[_Lane]) -> None:
        self.width = len(stream.channels)
        self.lanes = lanes
        self.intake = Intake(stream.rate, PIECE, self.width)

    def take(self, times: NDArray[np.float64], raw: NDArray[np.float32], lost: int, floor: int) -> None:
        keep, marks, stamps = self.intake.admit(times, raw, lost)
        for lane in self.lanes:
            lane.take(self.intake.rows, stamps, keep, marks, floor)

    def counters(self) -> Counters:
        return self.intake.counters(sum(lane.overrun for lane in self.lanes))

    def reset(self) -> None:
        self.intake.reset()
        for lane in self.lanes:
            lane.reset()

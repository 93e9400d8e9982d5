"""Replay of an XDF recording: ``xdf:PATH``, ``xdf:PATH?speed=2&loop=1&from=10&to=60``.

Options follow the last question mark of the address and are joined by ``&``: ``speed`` (1 is real time, ``max`` as fast
as it is taken), ``loop`` (0 or 1), ``from`` and ``to`` (seconds from the beginning). Nothing is percent-decoded. What
names an existing file as a whole is always that file, whatever its name contains; so is a text without an option after
its last question mark. (A shell wants quotes about ``?`` and ``&``.)

Two kinds of file, two orders of delivery:

- insula's own records (a string stream "insula" of type "Session") are delivered exactly as they were written: chunk
  for chunk in file order, with the recorded stamps, and a `Tick` where the session had one. So a replay is the
  session's sequence of items to the last bit.
- Files by others are put on one clock by their clock offsets, cut where the stamps pass a whole tenth of a second and
  merged by the last stamp of each piece; a `Tick` follows each distinct one, so that a gap in one stream does not
  freeze the windows of the others. All samples before a whole tenth of a second come before the first tick after it.

Within a stream the file's order is kept, also where stamps run backwards: for a regular signal the order is right and
the stamps jitter. Such pieces are merged at the largest stamp the stream has had. Samples whose stamp is no time
are left out of others' files and counted in ``lost``.
"""

from __future__ import annotations

import heapq
import itertools
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from devices.api import Chunk, DeviceError, End, Events, Found, Item, Rewind, StreamInfo, Tick, unit_name
from devices.xdf_format import (
    AFFECT_TYPE,
    EVENT_LOST,
    EVENT_SKIPPED,
    EVENT_TICK,
    OWN_DESC,
    PHYSIOLOGY_TYPE,
    XdfError,
    XdfFile,
    XdfStream,
    are_times,
)

PIECES_A_SECOND = 10
BATCH = 0.5
"""Seconds of signal that one read gives at most, so that an unpaced replay still answers its controls."""
BATCH_ITEMS = 2000
SHORTEST_WAIT = 1e-6
"""Seconds; shorter ones are rounding of the clock, and sleeping them would not move it."""
MAX_UNREADABLE = 100
SHORTEST_ROUND = 0.1
"""Seconds; a loop over less would be nothing but rewinding."""
LONGEST_WAIT = 3600.0
"""A step in the stamps longer than this is a clock jump; nobody waits for it."""

_KINDS = {
    "ekg": "ecg",
    "marker": "markers",
    "events": "markers",
    "event": "markers",
    "stringmarker": "markers",
    "accelerometer": "acc",
    "gyroscope": "gyro",
}


def discover(seconds: float) -> list[Found]:  # noqa: ARG001  (nothing is waited for)
    """The recordings in the current folder; when there are none, how one elsewhere is opened."""
    files = sorted(path for path in Path().glob("*.xdf") if path.is_file() and path.name.isprintable())
    found = [Found(f"xdf:{path.name}", f"recording, {path.stat().st_size / 1e6:.1f} MB") for path in files]
    return found or [Found("xdf:FILE.xdf", "a recording, replayed; there is none in this folder")]


def connect(rest: str) -> XdfReplay:
    """The replay of the recording at this path, with the options that may follow it. Raises DeviceError."""
    path, mark, query = rest.rpartition("?")
    if not mark or "=" not in query or _is_file(rest):
        return XdfReplay(rest)
    given: dict[str, float] = {}
    for option in query.split("&"):
        name, _, text = option.partition("=")
        try:
            value = np.inf if (name, text) == ("speed", "max") else float(text)
        except ValueError:
            value = np.nan
        allowed = {
            "speed": value > 0.0,
            "loop": value in (0.0, 1.0),
            "from": 0.0 <= value < np.inf,
            "to": 0.0 <= value < np.inf,
        }
        if name in given or not allowed.get(name, False):
            raise DeviceError(
                f"xdf:{rest}: {option} cannot be used. After the file, ? and joined by & may stand: speed=2 (or max), "
                "loop=1, from=10, to=60 (seconds from the beginning)."
            )
        given[name] = value
    return XdfReplay(
        path,
        start=given.get("from"),
        stop=given.get("to"),
        speed=given.get("speed", 1.0),
        loop=given.get("loop") == 1.0,
    )


def _is_file(text: str) -> bool:
    try:
        return Path(text).is_file()
    except OSError:  # a name longer than the system takes
        return False


class XdfReplay:
    """A recording as a `Device` with the controls of a `Transport`.

    ``start`` and ``stop`` cut, in seconds from the recording's beginning (the first sample of its signals). ``now``
    and ``sleep`` pace it. With ``loop`` the end is followed by a `Rewind` and the start, unless what there is is
    shorter than SHORTEST_ROUND; while paused it is not, only a further `step` begins the next round. ``left_out`` names
    the streams that are not delivered, with the reason; ``findings`` the damage of the file, growing while it is read.

    Numeric streams are given in their own format, string streams as events, one text a sample (several channels joined
    by "; "). Irregular EEG or ECG of files by others gets its measured rate. Streams without samples of files by others
    are left out.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        start: float | None = None,
        stop: float | None = None,
        speed: float = 1.0,
        loop: bool = False,
        now: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        try:
            self._file = XdfFile(path)
        except XdfError as error:
            raise DeviceError(str(error)) from error
        self.path = self._file.path
        self._now, self._sleep = now, sleep
        self._unreadable: list[str] = []
        self._streams: dict[int, StreamInfo] = {}
        self.left_out: list[tuple[str, str]] = []
        self._session_ids = {s.id for s in self._file.streams.values() if s.is_session}
        self.own = bool(self._session_ids)
        """Whether this is a record that insula made."""
        streams = dict(self._file.streams)
        if self.own:  # in the order of the session, with those that never gave a sample: the model waited for them too
            streams = dict(sorted((streams | self._file.announced()).items()))
        for stream in streams.values():
            self._admit(stream)
        delivered = {number for number in self._file.streams if self._file.samples(number)}
        self.silent = tuple(info for number, info in self._streams.items() if info.numeric and number not in delivered)
        """Streams of numbers that a session of insula had, and of which no sample came."""
        self.skipped_windows, self.missing = self._read_session()
        """``t_end`` of the windows the recorded session skipped because its model was busy; and, by stream, how many
        samples or markers it knew to be missing, where there were any."""
        begin, end = self._extent()
        self._start = begin if start is None else begin + max(0.0, start)
        self._stop = end if stop is None else min(end, begin + stop)
        if not self._start <= self._stop:
            self._file.close()
            raise DeviceError(
                f"{self.path}: nothing between {start or 0:g} s and {end - begin if stop is None else stop:g} s, "
                f"the recording is {end - begin:.1f} s long. Choose a stretch within it."
            )
        self._to_the_end = self._stop == end
        self._cut_start = -np.inf if start is None else self._start
        self._cut_stop = np.inf if stop is None else self._stop
        self._lock = threading.Lock()
        self._speed = 1.0
        self._playing = True
        self._goal: float | None = None
        self._step = 0.0
        self._looping = loop
        self._anchor_is_old = False
        self.set_speed(speed)
        self._begin_again()

    # -- what there is -----------------------------------------------------------------------------------------------

    @property
    def streams(self) -> Sequence[StreamInfo]:
        return tuple(self._streams.values())

    @property
    def findings(self) -> tuple[str, ...]:
        return (*self._file.findings, *self._unreadable)

    def _admit(self, stream: XdfStream) -> None:
        label = f"{stream.name} ({stream.type})"
        if self.own and (stream.id in self._session_ids or stream.type in (AFFECT_TYPE, PHYSIOLOGY_TYPE)):
            return
        if not self.own and not self._file.samples(stream.id):
            self.left_out.append((label, "no samples"))
            return
        if not stream.channels:
            self.left_out.append((label, "no channels"))
            return
        kind = _kind(stream)
        rate = 0.0 if stream.format == "string" else stream.rate
        if stream.format != "string" and rate == 0.0 and kind in ("eeg", "ecg") and not self.own:
            rate = self._measured_rate(stream)
            if rate == 0.0:
                self.left_out.append((label, "no measurable rate"))
                return
        if self.own:
            kind = stream.desc(f"{OWN_DESC}/kind") or kind
        units = {unit_name(unit) for unit in stream.units}
        self._streams[stream.id] = StreamInfo(
            key=self._key(stream, kind),
            kind=kind,
            channels=stream.channels,
            rate=rate,
            unit=units.pop() if len(units) == 1 else "",
            name=stream.name,
            format=stream.format,
            source=f"xdf:{self.path}",
        )

    def _key(self, stream: XdfStream, kind: str) -> str:
        taken = {info.key for info in self._streams.values()}
        wanted = (stream.desc(f"{OWN_DESC}/key") if self.own else "") or kind
        names = itertools.chain([wanted], (f"{wanted}-{i}" for i in itertools.count(2)))
        return next(name for name in names if name not in taken)

    def _measured_rate(self, stream: XdfStream) -> float:
        span = self._file.span(stream.id)
        if span is None or not span[1] > span[0]:
            return 0.0
        return (self._file.samples(stream.id) - 1) / (span[1] - span[0])

    def _read_session(self) -> tuple[frozenset[float], dict[str, int]]:
        skipped: set[float] = set()
        lost: Counter[str] = Counter()
        texts = itertools.chain.from_iterable(map(self._session_texts, self._session_ids))
        for word, _, rest in (text.partition(" ") for text in texts):
            if word == EVENT_SKIPPED:
                skipped.add(_seconds(rest))
            elif word == EVENT_LOST:
                key, count = _lost(rest)
                lost[key] += count
        missing = {info.key: lost[info.key.strip()] for info in self._streams.values()}
        return frozenset(skipped), {key: count for key, count in missing.items() if count}

    def _session_texts(self, number: int) -> Iterator[str]:
        for index in self._file.chunks_of(number):
            yield from (str(text) for text in self._file.decode(int(index), synchronised=False)[1][:, 0])

    def _extent(self) -> tuple[float, float]:
        """First and last stamp of the signals; of all streams when there is no signal."""
        ids = [number for number, info in self._streams.items() if info.rate > 0] or list(self._streams)
        ends: list[float] = []
        for number in ids:
            if number in self._file.streams and (span := self._file.span(number, synchronised=not self.own)):
                ends += span
        return (min(ends), max(ends)) if ends else (0.0, 0.0)

    # -- the sequence of items ---------------------------------------------------------------------------------------

    def _items(self) -> Iterator[tuple[float, Item]]:
        """Every item with the time at which it is due, in the order of delivery."""
        items = self._recorded() if self.own else self._merged()
        if self._cut_start == -np.inf and self._cut_stop == np.inf:
            return items
        last = self._cut_stop  # of a piece that is cut the end may be due later
        return ((min(due, last), kept) for due, item in items if (kept := self._cut(item)) is not None)

    def _cut(self, item: Item) -> Item | None:
        if isinstance(item, Tick):
            return item if self._cut_start <= item.time <= self._cut_stop else None
        if isinstance(item, Chunk | Events):
            keep = (item.times >= self._cut_start) & (item.times <= self._cut_stop)
            if keep.all():
                return item
            if not keep.any():
                return None
            if isinstance(item, Chunk):
                return Chunk(item.stream, item.times[keep], item.data[keep], item.lost)
            return Events(
                item.stream, item.times[keep], tuple(itertools.compress(item.labels, keep.tolist())), item.lost
            )
        return item

    def _recorded(self) -> Iterator[tuple[float, Item]]:
        lost: dict[str, int] = {}
        for index in range(len(self._file)):
            number, _, _ = self._file.chunk(index)
            if number in self._session_ids:
                for text in self._file.decode(index, synchronised=False)[1][:, 0]:
                    word, _, rest = str(text).partition(" ")
                    if word == EVENT_TICK:
                        tick = _seconds(rest)
                        if are_times(np.array([tick]))[0]:
                            yield tick, Tick(tick)
                        else:
                            self._left_out(f"session event {str(text)[:60]!r} has no time; left out")
                    elif word == EVENT_LOST:
                        key, count = _lost(rest)
                        lost[key] = count
            elif number in self._streams:
                times, values = self._file.decode(index, synchronised=False)
                if len(times):
                    key = self._streams[number].key
                    yield float(times[-1]), self._item(number, times, values, lost.pop(key.strip(), 0))
        for info in self._streams.values():
            if (count := lost.get(info.key.strip(), 0)) and self._to_the_end:
                nothing = np.zeros(0)
                empty = Chunk(info.key, nothing, np.zeros((0, len(info.channels)), np.float32), count)
                yield np.nan, empty if info.numeric else Events(info.key, nothing, (), count)  # as soon as it is there

    def _left_out(self, what: str) -> None:
        if what not in self._unreadable and len(self._unreadable) < MAX_UNREADABLE:  # a loop comes by again and again
            self._unreadable.append(what)

    def _merged(self) -> Iterator[tuple[float, Item]]:
        sources = [self._pieces(place, number) for place, number in enumerate(self._streams)]
        reached = -np.inf
        for due, _, item in heapq.merge(*sources, key=lambda piece: piece[:2]):
            if due > reached and reached > -np.inf:
                yield reached, Tick(reached)
            reached = due
            yield due, item
        if reached > -np.inf:
            yield reached, Tick(reached)

    def _pieces(self, place: int, number: int) -> Iterator[tuple[float, int, Item]]:
        """A stream cut where its stamps pass from one tenth of a second into another, with due time and ``place``."""
        due = -np.inf
        lost = 0
        waiting: list[tuple[NDArray[np.float64], NDArray[np.generic]]] = []

        def piece() -> tuple[float, int, Item]:
            nonlocal due, lost
            times = np.concatenate([times for times, _ in waiting])
            values = np.concatenate([values for _, values in waiting])
            waiting.clear()
            due = max(due, float(times[-1]))
            item = self._item(number, times, values, lost)
            lost = 0
            return due, place, item

        cell = np.nan
        for index in self._file.chunks_of(number):
            times, values = self._file.decode(int(index))
            good = are_times(times)
            if not good.all():
                if waiting:
                    yield piece()
                lost += int((~good).sum())
                times, values = times[good], values[good]
            if not len(times):
                continue
            with np.errstate(over="ignore", invalid="ignore"):  # damaged stamps are beyond any clock
                cells = np.floor(times * PIECES_A_SECOND)
                turns = np.flatnonzero(np.diff(cells)) + 1
            if waiting and cells[0] != cell:
                yield piece()
            edges = [0, *turns.tolist(), len(times)]
            for begin, end in itertools.pairwise(edges):
                if begin:
                    yield piece()
                waiting.append((times[begin:end], values[begin:end]))
            cell = float(cells[-1])
        if waiting:
            yield piece()

    def _item(self, number: int, times: NDArray[np.float64], values: NDArray[np.generic], lost: int) -> Item:
        info = self._streams[number]
        if not info.numeric:
            return Events(info.key, times, tuple("; ".join(texts) for texts in values.tolist()), lost)
        numbers: NDArray[Any] = np.ascontiguousarray(values)
        return Chunk(info.key, times, numbers, lost)

    # -- delivery ----------------------------------------------------------------------------------------------------

    def _begin_again(self) -> None:
        self._source = self._items()
        self._head: tuple[float, Item] | None = None
        self._position = self._start
        self._unpaced = -np.inf
        self._anchor: tuple[float, float] | None = None
        self._over = False

    def read(self, timeout: float) -> Iterable[Item]:
        """What is due, at most about half a second of signal; waits up to ``timeout`` seconds for it."""
        with self._lock:
            goal, self._goal = self._goal, None
            step, self._step = self._step, 0.0
            playing, speed = self._playing, self._speed
            if self._anchor_is_old:
                self._anchor = None
                self._anchor_is_old = False
        rewound = False
        if goal is not None:
            rewound = goal < self.position
            if rewound:
                self._begin_again()
            self._unpaced = goal
        if step:
            rewound |= self._prepare_step(step)
        if rewound:
            return [Rewind()]
        deadline = self._now() + timeout
        batch: list[Item] = []
        first = np.nan
        while len(batch) < BATCH_ITEMS:
            if not self._ahead():
                if batch:
                    break
                if not self._looped():
                    if not self._over:
                        self._over = True
                        self._position = self._stop
                        return [End()]
                elif playing:
                    self._begin_again()
                    return [Rewind()]
                self._sleep(max(0.0, deadline - self._now()))
                break
            assert self._head is not None
            due, item = self._head
            if batch and due > first + BATCH:
                break
            if due > self._unpaced:
                if self._unpaced > self._position:
                    self._position = self._unpaced
                    self._anchor = None
                if not (playing and speed == np.inf):
                    wait = self._wait(due, speed) if playing else np.inf
                    if wait > SHORTEST_WAIT:
                        left = deadline - self._now()
                        if batch or left <= SHORTEST_WAIT:
                            break
                        self._sleep(min(wait, left))
                        continue
            first = due if not batch else first
            batch.append(item)
            self._head = None
            self._position = max(self._position, due)
        return batch

    def _ahead(self) -> bool:
        """Whether there is an item left; it is ``_head`` then."""
        if self._head is None and (head := next(self._source, None)) is not None:
            # A stamp that is no number cannot be waited for.
            self._head = head if np.isfinite(head[0]) else (self._position, head[1])
        return self._head is not None

    def _looped(self) -> bool:
        """Whether the end that is reached is followed by the start."""
        return self._looping and self._position - self._start >= SHORTEST_ROUND

    def _prepare_step(self, seconds: float) -> bool:
        """Whether it begins the next round of a loop."""
        again = not self._ahead() and self._looped()
        if again:
            self._begin_again()
        reached = max(self._unpaced, self._position)
        if self._ahead() and self._head is not None and self._head[0] - reached > LONGEST_WAIT:
            reached = self._head[0]
        self._unpaced = reached + seconds
        return again

    def _wait(self, due: float, speed: float) -> float:
        """Seconds on the wall until ``due``; moves the position along."""
        wall = self._now()
        if self._anchor is None or due - self._position > LONGEST_WAIT:
            jump = due - self._position > LONGEST_WAIT
            self._anchor = (wall, due if jump else self._position)
        began, origin = self._anchor
        reached = origin + (wall - began) * speed
        self._position = max(self._position, min(due, reached))
        return (due - reached) / speed

    # -- controls, from any thread -----------------------------------------------------------------------------------

    @property
    def start(self) -> float:
        return self._start

    @property
    def stop(self) -> float:
        return self._stop

    @property
    def position(self) -> float:
        return min(self._position, self._stop)

    @property
    def playing(self) -> bool:
        return self._playing

    @property
    def speed(self) -> float:
        return self._speed

    def play(self) -> None:
        with self._lock:
            self._playing = True
            self._anchor_is_old = True

    def pause(self) -> None:
        with self._lock:
            self._playing = False
            self._anchor_is_old = True

    def set_speed(self, speed: float) -> None:
        if not speed > 0.0:
            raise ValueError(f"a speed is above 0, not {speed}")
        with self._lock:
            self._speed = speed
            self._anchor_is_old = True

    @property
    def looping(self) -> bool:
        return self._looping

    def set_loop(self, on: bool) -> None:
        self._looping = on

    def step(self, seconds: float) -> None:
        if not 0.0 < seconds < np.inf:
            raise ValueError(f"a step is a time above 0, not {seconds}")
        with self._lock:
            self._playing = False
            self._step += seconds
            self._anchor_is_old = True

    def seek(self, time: float) -> None:
        if np.isnan(time):
            raise ValueError("a time to seek is a number")
        with self._lock:
            self._goal = min(max(time, self._start), self._stop)
            self._step = 0.0
            self._anchor_is_old = True

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self._source = iter(())
        self._head = None
        self._file.close()


def _lost(text: str) -> tuple[str, int]:
    """Stream and number of a loss; 0 when it tells none: the file may have been damaged."""
    count, _, key = text.partition(" ")
    # The key in the header is XML text, which is stripped when it is read.
    return key.strip(), int(count) if count.isdecimal() and len(count) < 19 else 0


def _seconds(text: str) -> float:
    """The number a text holds, NaN when it holds none: the file may have been damaged."""
    try:
        return float(text)
    except ValueError:
        return np.nan


def _kind(stream: XdfStream) -> str:
    if stream.format == "string":
        return "markers"
    kind = stream.type.lower()
    kind = _KINDS.get(kind, kind) or "signal"
    # Numbers that come at a rate are a trigger channel, not events.
    return "trigger" if kind == "markers" and stream.rate > 0 else kind

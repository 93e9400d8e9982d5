"""A running session: devices in, windows to the model, estimates, record and messages out. The only owner of threads.

    device threads -> inbox -> analysis thread -> slot -> model thread -> outlet, messages
                                    |                         |
                                    +-----> recorder thread <-+

What gives way when something is too slow, live: the inbox drops the oldest chunk of a stream that is 30 s behind, the
next chunk says so in ``lost``; in the slot the newest window replaces a waiting one, which is counted and recorded; a
stalled disk is said aloud and what cannot wait any longer is counted. A replay waits instead: it drops nothing.
"""

from __future__ import annotations

import math
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace

import numpy as np

from devices.api import Chunk, Device, DeviceError, End, Events, Item, Rewind, StreamInfo, Tick, Transport
from devices.xdf_format import XdfError
from models.api import Estimate, Window
from models.model import Model
from realtime.api import (
    Cleared,
    Ended,
    Estimated,
    Health,
    Hello,
    Mark,
    Marked,
    ModelCard,
    Pause,
    Play,
    Seek,
    SetSpeed,
    Stop,
    StreamHealth,
    Update,
)
from realtime.record import Recordable, Recorder, Skipped
from realtime.remote import Server
from realtime.traces import Thinner
from realtime.windows import Windower

BEHIND = 30.0
"""Seconds of a stream that may wait for the analysis before the oldest chunk gives way."""
AHEAD = 2.0
"""Seconds of signal a replay may be ahead of the analysis."""
UNRECORDED = 50_000
"""Entries that may wait for a stalled disk."""
STALE = 1.0
"""Seconds without a sample after which a live stream is said to be silent."""
DISK_STALL = 2.0
POLL = 0.05
REPORT = 0.25
KEYBOARD = StreamInfo(key="keyboard", kind="markers", channels=("marker",), rate=0.0, unit="", name="insula markers")
"""The researcher's own markers, a stream of every live session."""


@dataclass(frozen=True, slots=True)
class Summary:
    """What a session has done."""

    windows: int
    estimates: int
    """Windows with an estimate that was not withheld."""
    skipped: int
    samples: dict[str, int]
    lost: dict[str, int]
    """Per stream: known to be missing, refused for their stamp, or given way."""
    unrecorded: int
    problem: str
    """"" when the session ended as it should."""


class _Inbox:
    """Items from the device threads to the analysis thread, in the order in which they came."""

    def __init__(self, rates: dict[str, float], waits: bool) -> None:
        self._rates = rates
        self._waits = waits
        self._items: deque[Item] = deque()
        self._seconds = dict.fromkeys(rates, 0.0)
        self._lock = threading.Lock()
        # One token for each item: waiting in C is what makes the hand-over quick.
        self._tokens: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._room = threading.Event()
        self.closed = False

    def put(self, item: Item) -> None:
        if isinstance(item, Chunk):
            key, seconds = item.stream, len(item.times) / self._rates[item.stream]
            while self._waits and self._seconds[key] >= AHEAD and not self.closed:
                self._room.clear()
                self._room.wait(POLL)
            with self._lock:
                if not self._waits and self._seconds[key] > BEHIND:
                    item = self._drop_oldest(item)
                self._seconds[key] += seconds
                self._items.append(item)
        else:
            with self._lock:
                self._items.append(item)
        self._tokens.put(None)

    def _drop_oldest(self, newest: Chunk) -> Chunk:
        """Takes the oldest chunk of the stream out; the one after it, ``newest`` when there is none, says so."""
        mine = [i for i, item in enumerate(self._items) if isinstance(item, Chunk) and item.stream == newest.stream]
        oldest = self._items[mine[0]]
        assert isinstance(oldest, Chunk)
        missing = oldest.lost + len(oldest.times)
        if len(mine) > 1:
            heir = self._items[mine[1]]
            assert isinstance(heir, Chunk)
            self._items[mine[1]] = replace(heir, lost=heir.lost + missing)
        else:
            newest = replace(newest, lost=newest.lost + missing)
        del self._items[mine[0]]
        self._seconds[newest.stream] -= len(oldest.times) / self._rates[newest.stream]
        return newest

    def get(self, timeout: float) -> Item | None:
        """The next item; None when there is none within ``timeout`` seconds, or after `close`."""
        try:
            self._tokens.get(timeout=timeout)
        except queue.Empty:
            return None
        with self._lock:
            if not self._items:  # what the token stood for has been dropped, or it is the one of close
                return None
            item = self._items.popleft()
            if isinstance(item, Chunk):
                self._seconds[item.stream] -= len(item.times) / self._rates[item.stream]
        self._room.set()
        return item

    @property
    def empty(self) -> bool:
        return not self._items

    def close(self) -> None:
        """Nothing more is put; what is there can still be taken."""
        self.closed = True
        self._room.set()
        self._tokens.put(None)


@dataclass(frozen=True, slots=True)
class _Cut:
    """A window on its way to the model, with what its latency is measured from."""

    window: Window
    newest: float
    """Session clock: the newest sample when it was cut."""
    at: float
    """Session clock: when it was cut."""


class _Slot:
    """One window between analysis and model. ``None`` in it means: a new session begins, forget."""

    def __init__(self, waits: bool) -> None:
        self._waits = waits
        self._held: deque[_Cut | None] = deque()
        self._changed = threading.Condition()
        self._closed = False

    def offer(self, cut: _Cut | None) -> _Cut | None:
        """Put a window in; what it replaced, when it replaced one."""
        with self._changed:
            replaced = None
            if self._waits:
                self._changed.wait_for(lambda: not self._held or self._closed)
            elif self._held and self._held[-1] is not None:
                replaced = self._held.pop()
            self._held.append(cut)
            self._changed.notify_all()
            return replaced

    def take(self) -> tuple[bool, _Cut | None]:
        """Whether there was anything before the end, and what. Waits."""
        with self._changed:
            self._changed.wait_for(lambda: self._held or self._closed)
            if not self._held:
                return False, None
            cut = self._held.popleft()
            self._changed.notify_all()
            return True, cut

    def close(self) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify_all()


class Session:
    """Runs ``model`` on what ``devices`` give, until they end, `stop` is called or a dashboard says so.

    ``clock`` is the session clock of a live session; a replay, one device that is a `Transport`, has its own.
    While ``linger`` says so, a replay that has reached its end stays open, to be wound back.
    """

    def __init__(
        self,
        devices: Sequence[Device],
        model: Model,
        *,
        title: str,
        clock: Callable[[], float],
        server: Server | None = None,
        recorder: Callable[[Sequence[StreamInfo]], Recorder] | None = None,
        linger: Callable[[], bool] = lambda: False,
        grace: float | None = None,
    ) -> None:
        self._devices = devices
        self._transport = next((device for device in devices if isinstance(device, Transport)), None)
        if self._transport is not None and len(devices) > 1:
            raise DeviceError("a recording is replayed on its own: its clock is not that of other sources.")
        self._live = self._transport is None
        self._clock = clock
        self._model = model
        self.title = title
        self._server = server
        self._make_recorder = recorder
        self._follow: list[Callable[[Estimate], None]] = []
        self._linger = linger
        own = (KEYBOARD,) if self._live else ()
        streams, self._keys = _unique_keys(devices, {info.key for info in own})
        self.streams = streams + own
        spec = model.bundle.manifest.window
        self._windower = Windower(spec, self.streams) if grace is None else Windower(spec, self.streams, grace=grace)
        rates = {info.key: info.rate for info in self.streams if info.rate}
        self._inbox = _Inbox(rates, waits=not self._live)
        self._slot = _Slot(waits=not self._live)
        self._thinners = {info.key: Thinner(info) for info in self.streams if info.rate} if server else {}
        self._to_record: queue.SimpleQueue[Recordable | None] = queue.SimpleQueue()
        self._recorder: Recorder | None = None
        self._stop = threading.Event()
        self._ended = 0
        self._at_end = False
        self._failures: list[BaseException] = []
        self._alarms: dict[str, str] = {}
        self._unrecorded = 0
        self._record_busy_since = math.nan
        self._record_bytes = 0
        self._recorded_until: dict[str, float] = {}
        self._rewound = False
        self._skips_of_record: frozenset[float] = getattr(self._transport, "skipped_windows", frozenset())
        self._windows = self._estimates = self._skipped = 0
        self._latency = math.nan
        self._newest = dict.fromkeys(rates, math.nan)
        self._samples = dict.fromkeys(rates, 0)
        self._lost = dict.fromkeys(rates, 0)
        self._recent: dict[str, deque[tuple[float, int]]] = {key: deque() for key in rates}

    @property
    def windower(self) -> Windower:
        """What cuts the windows; its ``picked`` says what feeds the model."""
        return self._windower

    def follow(self, follower: Callable[[Estimate], None]) -> None:
        """Before `run`: call ``follower`` with every estimate, in order, from the model thread (outlet, CSV)."""
        self._follow.append(follower)

    # -- running -----------------------------------------------------------------------------------------------------

    def run(self, every: Callable[[Health], None] | None = None) -> Summary:
        """The whole session, in the calling thread and its helpers. ``every`` is called a few times a second.

        Raises what a thread raised, after everything that came has been recorded. KeyboardInterrupt ends the session as
        `stop` does.
        """
        with ExitStack() as stack:
            for device in self._devices:
                stack.enter_context(device)
            if self._make_recorder is not None:
                self._recorder = self._make_recorder(self.streams)
                self._record_bytes = self._recorder.bytes_written
            self._publish(self._hello())
            readers = [self._thread(self._read, f"device {i}", i) for i in range(len(self._devices))]
            analysis = self._thread(self._analyse, "analysis")
            modelling = self._thread(self._estimate, "model")
            recording = self._thread(self._record, "recorder") if self._recorder else None
            try:
                self._supervise(analysis, every)
            except KeyboardInterrupt:
                self._alarms["stopped"] = "stopped from the keyboard"
            finally:
                self._wind_up(readers, analysis, modelling, recording)
        self._alarms.pop("stopped", None)
        if self._failures:
            self._publish(Ended(str(self._failures[0]) or type(self._failures[0]).__name__))
            raise self._failures[0]
        if every:
            every(self._health())
        problem = "; ".join(text for name, text in self._alarms.items() if name.startswith(("record", "device")))
        self._publish(self._health())
        self._publish(Ended(problem))
        return Summary(
            windows=self._windows,
            estimates=self._estimates,
            skipped=self._skipped,
            samples=dict(self._samples),
            lost=self._losses(),
            unrecorded=self._unrecorded,
            problem=problem,
        )

    def stop(self) -> None:
        """End the session; `run` returns once everything that came is analysed and recorded. From any thread."""
        self._stop.set()

    def _thread(self, work: Callable[..., None], name: str, *arguments: object) -> threading.Thread:
        def guarded() -> None:
            try:
                work(*arguments)
            except BaseException as error:  # noqa: BLE001  (handed to whoever called run)
                self._failures.append(error)
                self._stop.set()
                # Nobody may wait for a thread that is gone.
                self._inbox.close()
                self._slot.close()

        thread = threading.Thread(target=guarded, name=name, daemon=True)
        thread.start()
        return thread

    def _supervise(self, analysis: threading.Thread, every: Callable[[Health], None] | None) -> None:
        due = 0.0
        while analysis.is_alive() and not self._stop.wait(POLL):
            self._obey()
            if self._at_end and not self._linger():
                break
            if time.monotonic() >= due:
                due = time.monotonic() + REPORT
                health = self._health()
                self._publish(health)
                if every:
                    every(health)

    def _wind_up(
        self,
        readers: Sequence[threading.Thread],
        analysis: threading.Thread,
        modelling: threading.Thread,
        recording: threading.Thread | None,
    ) -> None:
        """From the source to the disk, each stage empties before the next one is closed."""
        self._stop.set()
        if not self._live:
            self._inbox.close()
        for reader in readers:
            reader.join(5.0)
        self._inbox.close()
        analysis.join()
        self._slot.close()
        modelling.join()
        if recording is not None:
            self._to_record.put(None)
            recording.join()

    def _obey(self) -> None:
        for command in self._server.commands() if self._server else ():
            match command:
                case Stop():
                    self._stop.set()
                case Mark(label) if self._live:
                    self._inbox.put(Events(KEYBOARD.key, np.array([self._clock()]), (label,)))
                case Mark():
                    pass
                case Play() | Pause() | SetSpeed() | Seek() if self._transport is not None:
                    _operate(self._transport, command)

    # -- device threads ----------------------------------------------------------------------------------------------

    def _read(self, index: int) -> None:
        device, keys = self._devices[index], self._keys[index]
        while not self._stop.is_set():
            try:
                items = device.read(POLL * 2)
            except DeviceError as error:  # the others go on
                items = [End(str(error))]
            for item in items:
                self._inbox.put(_renamed(item, keys))
                if isinstance(item, End):
                    if item.reason:
                        self._alarms[f"device {index}"] = item.reason
                    if self._live:
                        return
        if self._live:
            # Drained: what the source sent before the stop belongs to the session.
            until = time.monotonic() + 1.0
            while (items := list(device.read(0.0))) and time.monotonic() < until:
                for item in items:
                    self._inbox.put(_renamed(item, keys))

    # -- analysis thread ---------------------------------------------------------------------------------------------

    def _analyse(self) -> None:
        due = 0.0
        while True:
            item = self._inbox.get(POLL)
            if item is None and self._inbox.closed and self._inbox.empty:
                break
            if item is not None:
                self._take(item)
                if self._ended == len(self._devices):
                    if self._live or not self._linger():
                        break
                    self._offer(self._windower.finish())
                    self._ended = 0
                    self._at_end = True
            now = time.monotonic()
            if now >= due:
                due = now + POLL
                if self._live:
                    self._tick(Tick(self._clock()))
                for thinner in self._thinners.values():
                    self._publish_all(thinner.take())
        self._offer(self._windower.finish())
        for thinner in self._thinners.values():
            self._publish_all(thinner.take(everything=True))

    def _take(self, item: Item) -> None:
        match item:
            case Chunk():
                if not len(item.times):
                    return
                self._keep(item, float(item.times[-1]))
                self._count(item)
                if thinner := self._thinners.get(item.stream):
                    self._publish_all(thinner.add(item))
                self._offer(self._windower.push(item))
            case Events():
                if len(item.times):
                    self._keep(item, float(item.times[-1]))
                for moment, label in zip(item.times.tolist(), item.labels, strict=True):
                    self._publish(Marked(moment, label, item.stream))
            case Tick():
                self._tick(item)
            case Rewind():
                self._start_over()
            case End():
                self._ended += 1

    def _tick(self, tick: Tick) -> None:
        if windows := self._windower.tick(tick.time):
            self._keep_tick(tick)
            self._offer(windows)

    def _keep(self, item: Chunk | Events, last: float) -> None:
        """Into the record first, before any filter. What a rewound replay repeats is there already."""
        if self._recorder is None:
            return
        if self._rewound and not last > self._recorded_until.get(item.stream, -math.inf):
            return
        self._recorded_until[item.stream] = last
        self._entry(item)

    def _keep_tick(self, tick: Tick) -> None:
        if self._rewound and not tick.time > self._recorded_until.get("", -math.inf):
            return
        self._recorded_until[""] = tick.time
        self._entry(tick)

    def _entry(self, entry: Recordable) -> None:
        if self._recorder is None:
            return
        if self._to_record.qsize() >= UNRECORDED:
            self._unrecorded += 1
        else:
            self._to_record.put(entry)

    def _count(self, chunk: Chunk) -> None:
        key, newest = chunk.stream, float(chunk.times[-1])
        self._newest[key] = newest
        self._samples[key] += len(chunk.times)
        self._lost[key] += chunk.lost
        recent = self._recent[key]
        recent.append((newest, len(chunk.times)))
        while recent[0][0] < newest - 5.0:
            recent.popleft()

    def _offer(self, windows: Iterable[Window]) -> None:
        for window in windows:
            self._windows += 1
            if window.t_end in self._skips_of_record:
                self._skip(window.t_end)
                continue
            now = self._clock() if self._live else math.nan
            newest = max((moment for moment in self._newest.values() if not math.isnan(moment)), default=math.nan)
            replaced = self._slot.offer(_Cut(window, newest, now))
            if replaced is not None:
                self._skip(replaced.window.t_end)

    def _skip(self, t_end: float) -> None:
        self._skipped += 1
        self._entry(Skipped(t_end))

    def _start_over(self) -> None:
        self._windower.reset()
        self._slot.offer(None)
        self._rewound = True
        self._at_end = False
        for thinner in self._thinners.values():
            thinner.clear()
        for key in self._newest:
            self._newest[key], self._samples[key], self._lost[key] = math.nan, 0, 0
            self._recent[key].clear()
        self._publish(Cleared())

    # -- model thread ------------------------------------------------------------------------------------------------

    def _estimate(self) -> None:
        newest_kept = -math.inf
        while True:
            there, cut = self._slot.take()
            if not there:
                return
            if cut is None:
                self._model.reset()
                continue
            taken = self._clock() if self._live else math.nan
            estimate = self._model.update(cut.window)
            if self._live:
                done = self._clock()
                parts = {"cut": cut.at - cut.newest, "wait": taken - cut.at, "model": done - taken}
                estimate = replace(estimate, latency=parts)
                self._latency = done - cut.newest
            self._estimates += estimate.withheld is None
            self._publish(Estimated(estimate, dict(cut.window.quality)))
            if estimate.t_end > newest_kept:  # a rewound replay repeats itself to the last bit
                newest_kept = estimate.t_end
                self._entry(estimate)
                for follower in self._follow:
                    follower(estimate)

    # -- recorder thread ---------------------------------------------------------------------------------------------

    def _record(self) -> None:
        recorder = self._recorder
        assert recorder is not None
        while (entry := self._to_record.get()) is not None:
            self._record_busy_since = time.monotonic()
            try:
                recorder.write(entry)
                self._alarms.pop("record", None)
            except XdfError as error:
                self._unrecorded += 1
                self._alarms["record"] = str(error)
            self._record_busy_since = math.nan
            self._record_bytes = recorder.bytes_written
        try:
            recorder.close()
        except XdfError as error:
            self._alarms["record"] = str(error)
        if self._unrecorded:
            said = f"{self._unrecorded} chunks or estimates could not be recorded"
            self._alarms["record"] = f"{self._alarms['record']} {said}." if "record" in self._alarms else f"{said}."
        self._record_bytes = recorder.bytes_written

    # -- messages ----------------------------------------------------------------------------------------------------

    def _publish(self, update: Update) -> None:
        if self._server is not None:
            self._server.publish(update)

    def _publish_all(self, updates: Iterable[Update]) -> None:
        for update in updates:
            self._publish(update)

    @property
    def card(self) -> ModelCard:
        """What a screen or a stream says of the model beside its estimates."""
        bundle = self._model.bundle
        return ModelCard(
            name=bundle.manifest.name,
            hash=bundle.short_hash,
            targets=tuple(target.name for target in bundle.manifest.targets),
            meanings=tuple(target.meaning for target in bundle.manifest.targets),
            seconds=bundle.manifest.window.seconds,
            hop=bundle.manifest.window.hop,
            accuracy=bundle.manifest.accuracy,
            limits=bundle.manifest.limits,
        )

    def _hello(self) -> Hello:
        return Hello(
            title=self.title,
            streams=self.streams,
            used=tuple((kind, picked.stream) for kind, picked in self._windower.picked.items()),
            model=self.card,
            replay=not self._live,
            start=self._transport.start if self._transport else self._clock(),
            stop=self._transport.stop if self._transport else math.nan,
        )

    def _losses(self) -> dict[str, int]:
        counters = self._windower.counters
        return {
            key: lost + (counters[key].refused + counters[key].overrun if key in counters else 0)
            for key, lost in self._lost.items()
        }

    def _health(self) -> Health:
        now = self._transport.position if self._transport else self._clock()
        losses = self._losses()
        streams = tuple(
            StreamHealth(
                key=key,
                stale=now - self._newest[key],
                rate=_rate(tuple(self._recent[key])),
                samples=self._samples[key],
                lost=losses[key],
            )
            for key in self._newest
        )
        return Health(
            now=now,
            streams=streams,
            skipped=self._skipped,
            latency_ms=self._latency * 1e3,
            record=str(self._recorder.path) if self._recorder else "",
            record_bytes=self._record_bytes,
            playing=self._transport.playing if self._transport else True,
            speed=self._transport.speed if self._transport else 1.0,
            alarms=tuple(self._alarming(streams)),
        )

    def _alarming(self, streams: Sequence[StreamHealth]) -> Iterable[str]:
        yield from list(self._alarms.values())
        for device in self._devices:
            if problem := getattr(device, "problem", ""):
                yield problem
        if self._live:
            for health in streams:
                if math.isnan(health.stale):
                    yield f"{health.key}: no sample yet"
                elif health.stale > STALE:
                    yield f"{health.key}: silent for {health.stale:.0f} s"
        if time.monotonic() - self._record_busy_since > DISK_STALL:  # false for NaN: nothing is being written
            yield "record: the disk does not answer; what comes is kept in memory"
        if self._unrecorded:
            yield f"record: {self._unrecorded} chunks or estimates could not be recorded"
        yield from self._model.notes


def _operate(transport: Transport, command: Play | Pause | SetSpeed | Seek) -> None:
    match command:
        case Play():
            transport.play()
        case Pause():
            transport.pause()
        case SetSpeed(speed) if speed > 0:
            transport.set_speed(speed)
        case Seek(moment) if math.isfinite(moment):
            transport.seek(moment)


def _rate(recent: Sequence[tuple[float, int]]) -> float:
    """Hz, from (newest stamp, samples) of the last chunks; NaN from fewer than two."""
    if len(recent) < 2 or not recent[-1][0] > recent[0][0]:
        return math.nan
    return sum(count for _, count in recent[1:]) / (recent[-1][0] - recent[0][0])


def _unique_keys(devices: Sequence[Device], taken: set[str]) -> tuple[tuple[StreamInfo, ...], list[dict[str, str]]]:
    """The streams of all devices under keys that are unique in the session, and each device's renamings."""
    taken = set(taken)
    streams: list[StreamInfo] = []
    renamings: list[dict[str, str]] = []
    for device in devices:
        renamed: dict[str, str] = {}
        for info in device.streams:
            key, number = info.key, 2
            while key in taken:
                key, number = f"{info.key}-{number}", number + 1
            taken.add(key)
            if key != info.key:
                renamed[info.key] = key
            streams.append(replace(info, key=key))
        renamings.append(renamed)
    return tuple(streams), renamings


def _renamed(item: Item, keys: dict[str, str]) -> Item:
    if keys and isinstance(item, Chunk | Events) and item.stream in keys:
        return replace(item, stream=keys[item.stream])
    return item

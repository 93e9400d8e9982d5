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
from collections import Counter, deque
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace

import numpy as np

from devices.api import (
    Chunk,
    Clock,
    Device,
    DeviceError,
    End,
    Events,
    Item,
    Notice,
    Rewind,
    StreamInfo,
    Tick,
    Transport,
)
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
from realtime.handover import Cut, Inbox, Slot
from realtime.record import Recordable, Recorder, Skipped
from realtime.remote import Server
from realtime.traces import Thinner
from realtime.windows import Windower

UNRECORDED = 50_000
"""Entries that may wait for a stalled disk."""
SUSPENDED = 1.0
"""Seconds without a look at the clock: the machine must have slept, and the backlog comes before any deadline."""
CATCH_UP = 0.5
STALE = 1.0
"""Seconds without a sample after which a live stream is said to be silent."""
DISK_STALL = 2.0
READER_PATIENCE = 5.0
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
    """Per stream: samples known to be missing, refused for their stamp, or given way."""
    gaps: dict[str, int]
    """Per stream that feeds the model: holes in time."""
    unrecorded: int
    """Chunks, markers and estimates that the disk did not take."""
    problem: str
    """"" when the session ended as it should."""


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
        self._follow: dict[str, Callable[[Estimate], None]] = {}
        self._linger = linger
        own = (KEYBOARD,) if self._live else ()
        streams, self._keys = _unique_keys(devices, {info.key for info in own})
        self.streams = streams + own
        self._windower = Windower(model.bundle.manifest.window, self.streams)
        rates = {info.key: info.rate for info in self.streams if info.rate}
        self._inbox = Inbox(rates, waits=not self._live)
        self._slot = Slot(waits=not self._live)
        self._thinners = {info.key: Thinner(info) for info in self.streams if info.rate} if server else {}
        self._to_record: queue.SimpleQueue[Recordable | None] = queue.SimpleQueue()
        self._recorder: Recorder | None = None
        self._stop = threading.Event()
        self._asked = False
        self._ended = 0
        self._at_end = False
        self._failures: list[BaseException] = []
        self._alarms: dict[str, str] = {}
        self._unrecorded = 0
        self._record_busy_since = math.nan
        self._owed: dict[str, int] = {}
        self._kept: Counter[str] = Counter()
        self._repeated: Counter[str] = Counter()
        self._undelivered: Counter[str] = Counter()
        self._skips_of_record: frozenset[float] = getattr(self._transport, "skipped_windows", frozenset())
        self._windows = self._estimates = self._skipped = 0
        self._latency = math.nan
        self._estimated_at = math.nan
        self._newest = dict.fromkeys(rates, math.nan)
        self._arrived = dict.fromkeys(rates, math.nan)
        self._samples = dict.fromkeys(rates, 0)
        self._lost = dict.fromkeys(rates, 0)
        self._recent: dict[str, deque[tuple[float, int]]] = {key: deque() for key in rates}

    @property
    def windower(self) -> Windower:
        """What cuts the windows; its ``picked`` says what feeds the model."""
        return self._windower

    def follow(self, name: str, follower: Callable[[Estimate], None]) -> None:
        """Before `run`: call ``follower`` with every estimate, in order, from the model thread (outlet, CSV).

        A replay that is wound back gives them again. A follower that fails is an alarm under its ``name``, and called
        again with the next estimate.
        """
        self._follow[name] = follower

    # -- running -----------------------------------------------------------------------------------------------------

    def run(self, every: Callable[[Health], None] | None = None) -> Summary:
        """The whole session, in the calling thread and its helpers. ``every`` is called a few times a second.

        A device, a follower or a model that fails is an alarm and the rest goes on; a fault of the analysis itself is
        raised, after everything that came has been recorded.
        """
        with ExitStack() as stack:
            for device in self._devices:
                stack.enter_context(device)
            if self._make_recorder is not None:
                self._recorder = self._make_recorder(self.streams)
            self._publish(self._hello())
            readers = [self._thread(self._read, f"device {i}", i) for i in range(len(self._devices))]
            analysis = self._thread(self._analyse, "analysis")
            modelling = self._thread(self._estimate, "model")
            recording = self._thread(self._record, "recorder") if self._recorder else None
            try:
                self._supervise(analysis, every)
            finally:
                self._wind_up(readers, analysis, modelling, recording, every)
        self._report(every)
        if self._failures:
            self._publish(Ended(str(self._failures[0]) or type(self._failures[0]).__name__))
            raise self._failures[0]
        problem = "; ".join(self._alarms.values())
        self._publish(Ended(problem))
        return Summary(
            windows=self._windows,
            estimates=self._estimates,
            skipped=self._skipped,
            samples=dict(self._samples),
            lost=self._losses(),
            gaps={key: counters.gaps for key, counters in self._windower.counters.items()},
            unrecorded=self._unrecorded,
            problem=problem,
        )

    def stop(self) -> None:
        """End the session; `run` returns once everything that came is analysed and recorded.

        From any thread and from signal handlers: it takes no lock.
        """
        self._asked = True

    def _thread(self, work: Callable[..., None], name: str, *arguments: object) -> threading.Thread:
        def guarded() -> None:
            try:
                work(*arguments)
            except BaseException as error:  # noqa: BLE001  (handed to whoever called run)
                self._failures.append(error)
                self._stop.set()
                # Nobody may wait for a thread that is gone. Readers catch their own faults and do not come here.
                self._inbox.close()
                self._slot.close()

        thread = threading.Thread(target=guarded, name=name, daemon=True)
        thread.start()
        return thread

    def _supervise(self, analysis: threading.Thread, every: Callable[[Health], None] | None) -> None:
        due = 0.0
        while analysis.is_alive() and not self._asked and not self._stop.wait(POLL):
            self._obey()
            if self._at_end and not self._linger():
                break
            if time.monotonic() >= due:
                due = time.monotonic() + REPORT
                self._report(every)

    def _report(self, every: Callable[[Health], None] | None) -> None:
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
        every: Callable[[Health], None] | None,
    ) -> None:
        """From the source to the disk, each stage empties before the next one is closed."""

        def wait(thread: threading.Thread) -> None:
            while thread.is_alive():
                thread.join(REPORT)
                if thread.is_alive():
                    self._report(every)  # whoever looks on must see why it takes so long

        self._stop.set()
        if not self._live:
            self._inbox.close()
        patience = time.monotonic() + READER_PATIENCE
        for index, reader in enumerate(readers):
            reader.join(max(0.0, patience - time.monotonic()))
            if reader.is_alive():
                self._alarms[f"device {index}"] = f"source {index + 1} does not answer and was left as it is"
        self._inbox.close()
        wait(analysis)
        self._slot.close()
        wait(modelling)
        if recording is not None:
            self._to_record.put(None)
            wait(recording)

    def _obey(self) -> None:
        for command in self._server.commands() if self._server else ():
            match command:
                case Stop():
                    self._asked = True
                case Mark(label=label, at=at) if self._live:
                    ago = time.monotonic() - at if math.isfinite(at) else 0.0
                    self._inbox.put(Events(KEYBOARD.key, np.array([self._clock() - ago]), (label,)))
                case Mark():
                    pass
                case Play() | Pause() | SetSpeed() | Seek() if self._transport is not None:
                    _operate(self._transport, command)

    # -- device threads ----------------------------------------------------------------------------------------------

    def _read(self, index: int) -> None:
        device = self._devices[index]
        while not self._stop.is_set():
            if self._put(index, self._items(device, POLL * 2)) and self._live:
                return
        if self._live:
            # Drained: what the source sent before the stop belongs to the session.
            until = time.monotonic() + 1.0
            while (items := self._items(device, 0.0)) and time.monotonic() < until:
                if self._put(index, items):
                    return

    def _items(self, device: Device, timeout: float) -> list[Item]:
        """What a device gives; the end, in words, when it fails: the other devices go on."""
        try:
            return list(device.read(timeout))
        except DeviceError as error:
            return [End(str(error))]
        except Exception as error:  # noqa: BLE001  (a driver may raise anything)
            return [End(f"a source failed ({type(error).__name__}: {error})")]

    def _put(self, index: int, items: Iterable[Item]) -> bool:
        """Hand items to the analysis; whether the device has ended."""
        ended = False
        for item in items:
            if isinstance(item, End):
                ended = True
                if item.reason:
                    self._alarms[f"device {index}"] = item.reason
            self._inbox.put(_renamed(item, self._keys[index]))
        return ended

    # -- analysis thread ---------------------------------------------------------------------------------------------

    def _analyse(self) -> None:
        due = looked = held = 0.0
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
            if now - looked > SUSPENDED:
                held = now + CATCH_UP
            looked = now
            if now >= due:
                due = now + POLL
                if self._live and now >= held:
                    self._tick(Tick(self._clock()))
                for thinner in self._thinners.values():
                    self._publish_all(thinner.take())
        self._offer(self._windower.finish())
        for thinner in self._thinners.values():
            self._publish_all(thinner.take(everything=True))

    def _take(self, item: Item) -> None:
        match item:
            case Chunk():
                owed = self._owed.pop(item.stream, 0)
                if not len(item.times):
                    self._owed[item.stream] = owed + item.lost
                    return
                if owed:
                    item = replace(item, lost=item.lost + owed)
                self._keep(item.stream, item)
                self._count(item)
                if thinner := self._thinners.get(item.stream):
                    self._publish_all(thinner.add(item))
                self._offer(self._windower.push(item))
            case Events():
                if len(item.times):
                    self._keep(item.stream, item)
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
            self._keep("tick", tick)
            self._offer(windows)

    def _keep(self, source: str, entry: Recordable) -> None:
        """Into the record, before any filter. What a rewound replay repeats is there already."""
        if self._repeated[source] > 0:
            self._repeated[source] -= 1
            return
        self._kept[source] += 1
        self._entry(entry)

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
        self._arrived[key] = time.monotonic()
        self._samples[key] += len(chunk.times)
        self._lost[key] += chunk.lost
        recent = self._recent[key]
        if recent and newest < recent[-1][0]:
            recent.clear()
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
            fed = [self._newest[picked.stream] for picked in self._windower.picked.values()]
            newest = max((moment for moment in fed if not math.isnan(moment)), default=math.nan)
            replaced = self._slot.offer(Cut(window, newest, now))
            if replaced is not None:
                self._skip(replaced.window.t_end)

    def _skip(self, t_end: float) -> None:
        self._skipped += 1
        self._keep("skipped", Skipped(t_end))

    def _start_over(self) -> None:
        self._windower.reset()
        self._slot.offer(None)
        self._slot.settle()  # no estimate of before may follow what is cleared now
        self._repeated = self._kept.copy()
        self._at_end = False
        self._windows = self._estimates = self._skipped = 0
        self._owed.clear()
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
            estimate = self._ask(cut.window)
            if self._live:
                done = self._clock()
                parts = {"cut": cut.at - cut.newest, "wait": taken - cut.at, "model": done - taken}
                estimate = replace(estimate, latency=parts)
                self._latency, self._estimated_at = done - cut.newest, time.monotonic()
            self._estimates += estimate.withheld is None
            self._publish(Estimated(estimate, dict(cut.window.quality)))
            if estimate.t_end > newest_kept:  # a rewound replay repeats itself to the last bit
                newest_kept = estimate.t_end
                self._entry(estimate)
            for name, follower in self._follow.items():
                self._tell(name, follower, estimate)

    def _ask(self, window: Window) -> Estimate:
        """The model's estimate; a withheld one when the model fails: signals and record are worth going on for."""
        try:
            return self._model.update(window)
        except Exception as error:  # noqa: BLE001  (a runtime may raise anything)
            self._alarms["model"] = f"model: it failed ({type(error).__name__}: {error}); estimates are withheld"
            targets = self.card.targets
            nothing = np.full(len(targets), np.nan)
            return Estimate(
                t_end=window.t_end,
                targets=targets,
                mean=nothing,
                sd=nothing.copy(),
                present=window.present,
                quality=0.0,
                withheld=f"the model failed: {error}",
                model=self._model.bundle.label,
            )

    def _tell(self, name: str, follower: Callable[[Estimate], None], estimate: Estimate) -> None:
        try:
            follower(estimate)
        except Exception as error:  # noqa: BLE001  (a full disk, a network that is gone: the session goes on)
            self._undelivered[name] += 1
            self._alarms[name] = f"{name}: {error}; {self._undelivered[name]} estimates are missing there"

    # -- recorder thread ---------------------------------------------------------------------------------------------

    def _record(self) -> None:
        recorder = self._recorder
        assert recorder is not None
        missing: Counter[str] = Counter()
        while (entry := self._to_record.get()) is not None:
            if isinstance(entry, Chunk) and missing[entry.stream]:
                entry = replace(entry, lost=entry.lost + missing[entry.stream])
            self._record_busy_since = time.monotonic()
            try:
                recorder.write(entry)
            except Exception as error:  # noqa: BLE001  (whatever it is, the next entry may fit)
                self._unrecorded += 1
                self._alarms["record"] = f"{error} {self._unrecorded} chunks or estimates could not be recorded."
                if isinstance(entry, Chunk):
                    missing[entry.stream] = entry.lost + len(entry.times)
            else:
                if isinstance(entry, Chunk):
                    missing[entry.stream] = 0
            self._record_busy_since = math.nan
        try:
            recorder.close()
        except XdfError as error:
            self._alarms["record"] = str(error)

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
        gaps = {key: counters.gaps for key, counters in self._windower.counters.items()}
        streams = tuple(
            StreamHealth(
                key=key,
                # Live by arrival: a source's stamps may lie. NaN before the first sample either way.
                stale=time.monotonic() - self._arrived[key] if self._live else now - self._newest[key],
                rate=_rate(tuple(self._recent[key])),
                samples=self._samples[key],
                lost=losses[key],
                gaps=gaps.get(key, 0),
            )
            for key in self._newest
        )
        recent = time.monotonic() - self._estimated_at < 3 * self._windower.spec.hop  # false for NaN
        return Health(
            now=now,
            streams=streams,
            skipped=self._skipped,
            latency_ms=self._latency * 1e3 if recent else math.nan,
            record=str(self._recorder.path) if self._recorder else "",
            record_bytes=self._recorder.bytes_written if self._recorder else 0,
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
            yield f"record: the disk does not answer; {self._to_record.qsize()} entries wait in memory"
        if self._recorder and (problem := self._recorder.sync_problem):
            yield problem
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
    if keys and isinstance(item, Chunk | Events | Clock | Notice) and item.stream in keys:
        return replace(item, stream=keys[item.stream])
    return item

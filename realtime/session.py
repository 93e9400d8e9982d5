"""A running session: devices in, windows to the model, estimates, record and messages out. The only owner of threads.

    device threads -> inbox -> analysis thread -> slot -> model thread -> outlet, messages
                                    |                         |
                                    +-----> recorder thread <-+

What gives way when something is too slow, live: beyond 256 MB the oldest chunk of the inbox goes, the next one of its
stream says so in ``lost``, and it is an alarm; in the slot the newest window replaces a waiting one, which is counted
and recorded; a stalled disk is said aloud and what cannot wait any longer is counted. A replay waits instead: it drops
nothing.

What is wrong stands in every `Health`; when it begins and when it is over is recorded and published as `Noted`.
"""

from __future__ import annotations

import math
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

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
from models.api import Estimate, Window, WindowSpec
from models.model import Model
from realtime import heap
from realtime.alarms import Alarmed, AlarmLog, Pace, kind, patience, silences
from realtime.api import (
    Body,
    Cleared,
    Ended,
    Estimated,
    Health,
    Hello,
    Mark,
    Marked,
    ModelCard,
    Noted,
    Pause,
    Play,
    Resting,
    Seek,
    SetDisplay,
    SetLoop,
    SetSpeed,
    Step,
    Stop,
    StreamHealth,
    Update,
)
from realtime.display import displays, named
from realtime.handover import Cut, Inbox, Slot
from realtime.meters import Meter
from realtime.physiology import Physiology
from realtime.record import Missing, Recordable, Recorder, Skipped, one_line
from realtime.recording import Recording
from realtime.remote import Server
from realtime.sidecar import beginning, bundle_facts, conclusion
from realtime.windows import Windower

SUSPENDED = 1.0
"""Seconds without a look at the clock: the machine must have slept, and the backlog comes before any deadline."""
CATCH_UP = 0.5
PACE_OVER = 60.0
SKIPPED_MOST = 0.1
"""Share of the windows of `PACE_OVER` seconds that a model may skip without an alarm, when they are more than two."""
MOST_LISTED = 1000
"""Beginnings and ends of alarms in the description of the record; how many alarms there were is said beside them."""
TERMINAL = "messages in the terminal"
Told = TypeVar("Told")
READER_PATIENCE = 5.0
BEGINNING = 0.5
"""Seconds that a session waits for its record to begin, so that one that cannot be ends it at once."""
SLOW_FOLLOWER = 1.0
"""Seconds that one estimate may take a follower without an alarm."""
POLL = 0.05
REPORT = 0.25
TIDY = 60.0
"""Seconds between the times at which memory that is no longer used goes back to the system."""
PHYSIOLOGY_PAUSE, PHYSIOLOGY_LONGEST = 5.0, 300.0
"""Seconds of signal for which heart and rhythms rest when their analysis has failed, doubled each time up to the second
value; after that long without a failure the next pause is the first again."""
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
    """Per stream: holes in time."""
    unrecorded: int
    """Chunks, markers and estimates that the disk did not take."""
    problem: str
    """"" when the session ended as it should."""
    anew: bool = False
    """Whether a replay has begun anew (a loop, a seek backwards): the figures are of what came since."""


class Session:
    """Runs ``model`` on what ``devices`` give, until they end, `stop` is called or a dashboard says so.

    Without a model signals are shown and recorded and nothing is estimated.
    ``clock`` is the session clock of a live session; a replay, one device that is a `Transport`, has its own.
    ``told`` hears of every alarm and notice, from one of the session's threads; when it fails, that is an alarm.
    While ``linger`` says so, a replay that has reached its end stays open, to be wound back.
    """

    def __init__(
        self,
        devices: Sequence[Device],
        model: Model | None,
        *,
        title: str,
        clock: Callable[[], float],
        server: Server | None = None,
        recorder: Callable[[Sequence[StreamInfo]], Recorder] | None = None,
        told: Callable[[Noted], None] | None = None,
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
        self._follow_body: dict[str, Callable[[Body], None]] = {}
        self._physiology: Physiology | None = None
        self._wants_physiology = False
        self._physiology_pause = PHYSIOLOGY_PAUSE
        self._physiology_since: dict[str, float] = {}
        self._linger = linger
        self._told = told
        own = (KEYBOARD,) if self._live else ()
        streams, self._keys = _unique_keys(devices, {info.key for info in own})
        self.streams = streams + own
        self._marks = {info.key for info in self.streams if info.marks}
        self._windower = Windower(model.bundle.manifest.window if model else WindowSpec(inputs=()), self.streams)
        self._paces = {info.key: Pace() for info in self.streams if info.rate}
        self._rates = {info.key: info.rate for info in self.streams if info.rate}
        self._inbox = Inbox(self._rates, waits=not self._live)
        self._slot = Slot(waits=not self._live)
        self._displays = displays(self.streams, self._windower.picked) if server else {}
        self._meters = {info.key: Meter(info) for info in self.streams}
        self._recording: Recording | None = None
        self._description: dict[str, object] = {}
        self._stop = threading.Event()
        self.running = False
        """Whether every source is open: until then there is nothing that an interruption could lose."""
        self._asked = False
        self._ended = 0
        self._at_end = self._anew = False
        self._failures: list[BaseException] = []
        self._alarms: dict[str, str] = {}
        self._past: dict[str, str] = {}
        self._alarm_log = AlarmLog()
        self._looking = threading.Lock()
        self._alarmed: list[Alarmed] = []
        self._silent: dict[str, str] = {}
        self._missing_at_end: Counter[str] = Counter()
        self._began = math.nan
        self._hold_until = 0.0
        self._owed: Counter[str] = Counter()
        self._kept: Counter[str] = Counter()
        self._repeated: Counter[str] = Counter()
        self._undelivered: Counter[str] = Counter()
        self._skips_of_record: frozenset[float] = getattr(self._transport, "skipped_windows", frozenset())
        self._windows = self._estimates = self._skipped = 0
        self._latency = math.nan
        self._estimated_at = math.nan
        self._body_kept = -math.inf
        self._skips: deque[float] = deque()
        self._spent: deque[tuple[float, str, float]] = deque()
        self._busy_with: tuple[str, float] | None = None

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

    def follow_body(self, name: str, follower: Callable[[Body], None]) -> None:
        """Before `run`: call ``follower`` with heart and rhythms once a second of signal, from the analysis thread.

        As `follow` otherwise; it must not wait.
        """
        self._follow_body[name] = follower

    # -- running -----------------------------------------------------------------------------------------------------

    def run(self, every: Callable[[Health], None] | None = None) -> Summary:
        """The whole session, in the calling thread and its helpers. ``every`` is called a few times a second.

        A device, a follower or a model that fails is an alarm and the rest goes on, and so is an OSError of ``every``;
        a fault of the analysis itself is raised, after everything that came has been recorded.
        """
        self._begin_physiology()
        with ExitStack() as stack:
            for index, device in enumerate(self._devices):
                device.__enter__()
                stack.callback(self._leave, index, device)
                if self._asked:
                    raise DeviceError("stopped while its sources were being opened; nothing is recorded.")
            self.running = True
            recording = self._begin_recording() if self._make_recorder is not None else None
            self._publish(self._hello())
            if self._physiology is not None and self._physiology.empty:
                self._publish(self._physiology.body(self._now()))
            self._began = time.monotonic()
            readers = [self._thread(self._read, f"device {i}", i) for i in range(len(self._devices))]
            analysis = self._thread(self._analyse, "analysis")
            modelling = self._thread(self._estimate, "model")
            try:
                self._supervise(analysis, every)
            finally:
                self._wind_up(readers, analysis, modelling, recording, every)
        self._report(every)
        if self._failures:
            self._publish(Ended(self._problem()))
            raise self._failures[0]
        problem = self._problem()
        self._publish(Ended(problem))
        counts = self._counts()
        return Summary(
            windows=self._windows,
            estimates=self._estimates,
            skipped=self._skipped,
            samples={info.key: counts[info.key]["samples"] for info in self.streams if info.numeric},
            lost={key: count["lost"] + count["refused"] for key, count in counts.items()},
            gaps={key: count["gaps"] for key, count in counts.items()},
            unrecorded=self._unrecorded,
            problem=problem,
            anew=self._anew,
        )

    def stop(self) -> None:
        """End the session; `run` returns once everything that came is analysed and recorded.

        Before its sources are open it raises a DeviceError instead, once the one that is being opened is.
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
                if self._recording is not None:
                    self._recording.release()

        thread = threading.Thread(target=guarded, name=name, daemon=True)
        thread.start()
        return thread

    def _supervise(self, analysis: threading.Thread, every: Callable[[Health], None] | None) -> None:
        due = 0.0
        looked = tidied = time.monotonic()
        while analysis.is_alive() and not self._asked and not self._stop.wait(POLL):
            now = time.monotonic()
            if now - looked > SUSPENDED:
                self._hold_until = now + CATCH_UP
                self._put_notice(f"the session was held up for {now - looked:.1f} s; was the machine asleep?")
            looked = now
            self._obey()
            for display in self._displays.values():
                display.learn()
            if self._at_end and not self._linger() and self._at_end:  # it may be wound back meanwhile
                break
            if self._look() or now >= due:
                due = now + REPORT
                self._report(every)
            if now - tidied > TIDY:
                tidied = now
                heap.tidy()

    def _note(self, noted: Noted) -> None:
        self._publish(noted)
        if self._told:
            self._tell(TERMINAL, self._told, noted, "lines")  # a terminal that was closed costs nothing but its lines

    def _put_notice(self, text: str) -> None:
        self._inbox.put(Notice("", self._now(), text))

    def _look(self) -> bool:
        """Whether an alarm has come or gone since the last look; each such change is recorded and published.

        The recorder thread looks too, in the end: what is over only then would not be in the record.
        """
        with self._looking:
            changes = self._alarm_log.update(self._now(), self._alarming())
            for change in changes:
                if len(self._alarmed) < MOST_LISTED:
                    self._alarmed.append(change)
                self._entry(change)
                self._note(Noted(change.time, f"over: {change.text}" if change.over else change.text, not change.over))
        return bool(changes)

    def _report(self, every: Callable[[Health], None] | None) -> None:
        health = self._health()
        self._publish(health)
        if every:
            try:
                every(health)
            except OSError as error:
                self._miss(TERMINAL, error, "lines")

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
                self._look()
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
        self._count_open_ends()
        self._inbox.close()
        wait(analysis)
        if not self._failures:  # it ended with the last of its sources, and what is missing of them is told since
            while not self._inbox.empty:
                if (item := self._inbox.get(0.0)) is not None:
                    self._take(item)
            self._count_missing()
        self._slot.close()
        wait(modelling)
        if recording is not None and self._recording is not None:
            self._look()
            self._recording.close()
            wait(recording)

    def _count_open_ends(self) -> None:
        """What is missing at the end, where no later sample tells of it: a source that never came back, or owes."""
        wall, found = time.monotonic(), {}
        for device, keys in zip(self._devices, self._keys, strict=True):
            for key, count in getattr(device, "owed", {}).items():
                if count:
                    what = f"{count} were refused or are" if count > 1 else "one was refused or is"
                    found[keys.get(key, key)] = count, f"the last {what} missing"
        for key in self._silent:
            arrived = self._meters[key].arrived
            never = math.isnan(arrived)
            quiet = wall - (self._began if never else arrived)
            if never or quiet > patience(self._paces[key].pause):
                count = max(round(quiet * self._rates[key]), found.get(key, (0, ""))[0])
                words = f"no sample in all {quiet:.1f} s" if never else f"silent to the end, for {quiet:.1f} s"
                found[key] = count, f"{words}: {count} samples missing"
        for info in self.streams:
            if info.key in found:
                count, text = found[info.key]
                self._inbox.put(Notice(info.key, self._now(), text))
                self._inbox.put(_nothing(info, count))

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
                case SetDisplay(reference=str(), repair=bool()):
                    for display in self._displays.values():
                        display.ask(command)
                case Play() | Pause() | SetSpeed() | Seek() | Step() | SetLoop() if self._transport is not None:
                    _operate(self._transport, command)

    def _leave(self, index: int, device: Device) -> None:
        try:
            device.__exit__(None, None, None)
        except Exception as error:  # noqa: BLE001  (a driver may raise anything, and everything is recorded by now)
            reason = str(error) or type(error).__name__
            self._alarms[f"closing {index}"] = f"source {index + 1} could not be closed: {reason}"

    # -- device threads ----------------------------------------------------------------------------------------------

    def _read(self, index: int) -> None:
        device = self._devices[index]
        while not self._stop.is_set():
            if self._put(index, self._items(device, POLL * 2)) and self._live:
                return
        if self._live:
            # Drained: what the source sent before the stop belongs to the session.
            until = time.monotonic() + 1.0
            while time.monotonic() < until:  # asked before reading: what has been read is not thrown away
                items = self._items(device, 0.0)
                if not items or self._put(index, items):
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
            item = _renamed(item, self._keys[index])
            if isinstance(item, Chunk) or (isinstance(item, Events) and len(item.times)):
                self._arrive(item.stream, time.monotonic())
            self._inbox.put(item)
        return ended

    def _arrive(self, stream: str, now: float) -> None:
        self._meters[stream].arrived = now
        if stream in self._paces:
            self._paces[stream].arrive(now)

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
                    self._observe(None)
                    self._count_missing()
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
                for display in self._displays.values():
                    self._publish_all(display.turn())
        self._offer(self._windower.finish())
        self._observe(None)
        self._count_missing()
        for display in self._displays.values():
            self._publish_all(display.finish())

    def _take(self, item: Item) -> None:
        match item:
            case Chunk() | Events() if not len(item.times):
                self._owed[item.stream] += item.lost
            case Chunk():
                if owed := self._owed.pop(item.stream, 0):
                    item = replace(item, lost=item.lost + owed)
                self._keep(item.stream, item)
                self._meters[item.stream].take(item)
                if display := self._displays.get(item.stream):
                    self._publish_all(display.push(item))
                self._offer(self._windower.push(item))
                self._observe(item)  # after the window: the model waits for nothing
                if item.stream in self._marks:
                    self._mark(item.stream, item.times, item.texts)
            case Events():
                if owed := self._owed.pop(item.stream, 0):
                    item = replace(item, lost=item.lost + owed)
                self._keep(item.stream, item)
                self._meters[item.stream].take(item)
                if item.stream in self._marks:  # a strap's RR intervals are no marks on the screen
                    self._mark(item.stream, item.times, item.labels)
            case Clock() if item.stream in self._meters:
                self._keep(item.stream, item)
                self._meters[item.stream].take(item)
            case Notice(stream=stream, text=text):
                self._say(Notice(stream, item.time if math.isfinite(item.time) else self._now(), one_line(text)))
            case Tick():
                self._tick(item)
            case Rewind():
                self._start_over()
            case End():
                self._ended += 1

    def _count_missing(self) -> None:
        """At the end of its streams: what is missing of which nothing that came any more could tell."""
        for stream, missing in self._owed.items():
            if missing:
                self._missing_at_end[stream] += missing
                self._keep(stream, Missing(stream, self._now(), missing))
        self._owed.clear()

    def _mark(self, stream: str, times: NDArray[np.float64], texts: Sequence[str]) -> None:
        for moment, text in zip(times.tolist(), texts, strict=True):
            self._publish(Marked(moment, text, stream))

    def _say(self, notice: Notice) -> None:
        self._entry(notice)  # no replay gives notices: none is a repetition
        self._note(Noted(notice.time, f"{notice.stream}: {notice.text}" if notice.stream else notice.text))

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
        if self._recording is not None:
            self._recording.put(entry)

    def _offer(self, windows: Iterable[Window]) -> None:
        for window in windows:
            self._windows += 1
            if (eeg := self._windower.picked.get("eeg")) is not None and eeg.stream in self._displays:
                self._displays[eeg.stream].judge(window.quality.get("eeg", ()))
            if window.t_end in self._skips_of_record:
                self._skip(window.t_end)
                continue
            now = self._clock() if self._live else math.nan
            fed = [self._meters[picked.stream].newest for picked in self._windower.picked.values()]
            newest = max((moment for moment in fed if not math.isnan(moment)), default=math.nan)
            replaced = self._slot.offer(Cut(window, newest, now))
            if replaced is not None:
                self._skip(replaced.window.t_end)

    def _begin_physiology(self) -> None:
        """Heart and rhythms, when anybody wants to know."""
        self._wants_physiology = bool(self._server or self._make_recorder or self._follow_body)
        if self._wants_physiology:
            self._make_physiology()

    def _make_physiology(self) -> None:
        try:
            self._physiology = Physiology(self.streams, self._windower.picked)
        except Exception as error:  # noqa: BLE001  (signals and record are worth going on for)
            self._lose_physiology(error)

    def _lose_physiology(self, error: Exception) -> None:
        """Without heart and rhythms for a while. It is told in signal, not by a clock: a replay fails and begins anew
        where the session did, and a clock that leaps moves nothing."""
        if max(self._physiology_since.values(), default=0.0) >= PHYSIOLOGY_LONGEST:
            self._physiology_pause = PHYSIOLOGY_PAUSE
        reason = f"their analysis failed ({type(error).__name__}: {one_line(str(error))})"
        self._alarms["physiology"] = (
            f"heart and rhythms: {reason}; tried again after {self._physiology_pause:.0f} s, all else goes on"
        )
        if self._physiology is not None:
            self._publish(self._physiology.silent(self._now(), f"heart and rhythms: {reason}"))
        self._physiology = None
        self._physiology_since.clear()

    def _revive_physiology(self) -> None:
        """From nothing, once the pause is over."""
        if max(self._physiology_since.values(), default=0.0) < self._physiology_pause:
            return
        rested, self._physiology_pause = self._physiology_pause, min(2 * self._physiology_pause, PHYSIOLOGY_LONGEST)
        self._physiology_since.clear()
        self._make_physiology()
        if self._physiology is not None:
            self._settle("physiology")
            self._say(Notice("", self._now(), f"heart and rhythms: begun anew after {rested:.0f} s, from nothing"))

    def _observe(self, chunk: Chunk | None) -> None:
        """What ``chunk``, or None for the end, says of heart and rhythms: shown, recorded and passed on."""
        if not self._wants_physiology:
            return
        if chunk is not None and (rate := self._rates.get(chunk.stream)):
            since = self._physiology_since.get(chunk.stream, 0.0) + len(chunk.times) / rate
            self._physiology_since[chunk.stream] = since
            if self._physiology is None:
                self._revive_physiology()
        if self._physiology is None:
            return
        try:
            found = self._physiology.push(chunk) if chunk is not None else self._physiology.finish()
        except Exception as error:  # noqa: BLE001  (as above)
            self._lose_physiology(error)
            return
        for update in found:
            self._publish(update)
            if isinstance(update, Body):
                if update.time > self._body_kept:  # a rewound replay repeats itself to the last bit
                    self._body_kept = update.time
                    self._entry(update)
                for name, follower in self._follow_body.items():
                    self._tell(name, follower, update, "seconds")

    def _skip(self, t_end: float) -> None:
        self._skipped += 1
        if self._live:
            self._skips.append(time.monotonic())
            while self._skips[0] < self._skips[-1] - PACE_OVER:
                self._skips.popleft()
        self._keep("skipped", Skipped(t_end))

    def _start_over(self) -> None:
        self._windower.reset()
        self._physiology_since.clear()
        self._physiology_pause = PHYSIOLOGY_PAUSE
        if self._physiology is not None:
            self._physiology.reset()
        elif self._wants_physiology:  # it may fail where it failed, but not before
            self._make_physiology()
            if self._physiology is not None:
                self._settle("physiology")
        self._slot.offer(None)
        self._slot.settle()  # no estimate of before may follow what is cleared now
        self._repeated = self._kept.copy()
        self._at_end = False
        self._anew = True
        self._windows = self._estimates = self._skipped = 0
        self._owed.clear()
        self._missing_at_end.clear()
        for meter in self._meters.values():
            meter.rewind()
        self._publish(Cleared())
        for display in self._displays.values():
            self._publish_all(display.reset())

    # -- model thread ------------------------------------------------------------------------------------------------

    def _estimate(self) -> None:
        newest_kept = -math.inf
        while True:
            there, cut = self._slot.take()
            if not there:
                return
            if cut is None:
                if self._model is not None:
                    self._model.reset()
                continue
            taken = self._clock() if self._live else math.nan
            self._busy_with = "model", time.monotonic()
            estimate = self._ask(cut.window)
            self._spend()
            if self._live:
                done = self._clock()
                parts = {"cut": cut.at - cut.newest, "wait": taken - cut.at, "model": done - taken}
                estimate = replace(estimate, latency=parts)
                self._latency, self._estimated_at = done - cut.newest, time.monotonic()
            self._estimates += estimate.withheld is None
            quality = named(cut.window.quality, self.streams, self._windower.picked)
            self._publish(Estimated(estimate, quality, self._resting(estimate.t_end)))
            if estimate.t_end > newest_kept:  # a rewound replay repeats itself to the last bit
                newest_kept = estimate.t_end
                self._entry(estimate)
            for name, follower in self._follow.items():
                self._busy_with = name, time.monotonic()
                self._tell(name, follower, estimate, "estimates")
                self._spend()

    def _resting(self, t_end: float) -> Resting | None:
        """How far the baseline is after the window that ends at ``t_end``; None when nobody can look on."""
        if self._model is None or self._server is None:
            return None
        baseline, hop = self._model.baseline, self._model.bundle.manifest.window.hop
        return Resting(
            0.0 if baseline.complete else baseline.seconds_left(t_end),
            baseline.needed * hop,
            {kind: baseline.good_seconds(kind) for kind in self._model.bundle.manifest.kinds},
            baseline.begun,
            baseline.complete,
        )

    def _spend(self) -> None:
        now = time.monotonic()
        if self._busy_with is not None:
            name, since = self._busy_with
            self._spent.append((now, name, now - since))
        self._busy_with = None
        while self._spent and self._spent[0][0] < now - PACE_OVER:
            self._spent.popleft()

    def _slowest(self, wall: float) -> str:
        """What has cost the model thread most of late: the model, or one that follows its estimates."""
        spent = {"model": 0.0}
        for _, name, seconds in tuple(self._spent):
            spent[name] = spent.get(name, 0.0) + seconds
        if (busy := self._busy_with) is not None:
            spent[busy[0]] = spent.get(busy[0], 0.0) + wall - busy[1]
        return max(spent, key=lambda name: spent[name])

    def _ask(self, window: Window) -> Estimate:
        """The model's estimate; a withheld one when the model fails: signals and record are worth going on for."""
        model = self._model
        assert model is not None  # without one there are no windows
        try:
            estimate = model.update(window)
        except Exception as error:  # noqa: BLE001  (a runtime may raise anything)
            self._alarms["model"] = f"model: it failed ({type(error).__name__}: {error}); estimates are withheld"
            targets = tuple(target.name for target in model.bundle.manifest.targets)
            nothing = np.full(len(targets), np.nan)
            return Estimate(
                t_end=window.t_end,
                targets=targets,
                mean=nothing,
                sd=nothing.copy(),
                present=window.present,
                quality=0.0,
                withheld=f"the model failed: {error}",
                model=model.bundle.label,
            )
        self._settle("model")
        return estimate

    def _tell(self, name: str, follower: Callable[[Told], None], told: Told, what: str) -> None:
        try:
            follower(told)
        except Exception as error:  # noqa: BLE001  (a full disk, a network that is gone: the session goes on)
            self._miss(name, error, what)

    def _miss(self, name: str, error: Exception, what: str) -> None:
        self._undelivered[name] += 1
        self._alarms[name] = f"{name}: {error}; {self._undelivered[name]} {what} are missing there"

    def _settle(self, source: str) -> None:
        """What was wrong has gone, but stays in what is said of the whole session."""
        if (text := self._alarms.pop(source, None)) is not None:
            self._past[source] = text

    # -- the record ---------------------------------------------------------------------------------------------

    @property
    def _unrecorded(self) -> int:
        return self._recording.unrecorded if self._recording is not None else 0

    def _begin_recording(self) -> threading.Thread:
        """The recorder thread, which begins the record. What forbids that is raised here; a disk that stalls is not."""
        make = self._make_recorder
        assert make is not None
        identities: dict[str, Mapping[str, str]] = {}
        for device, keys in zip(self._devices, self._keys, strict=True):
            for info in device.streams:
                identities[keys.get(info.key, info.key)] = dict(getattr(device, "identity", {}))
        bundle = bundle_facts(self._model.bundle, self._model.computed_by) if self._model is not None else None
        session_clock, now = self._now(), datetime.now(UTC).astimezone()

        def describe(recorder: Recorder) -> dict[str, object]:
            self._description = beginning(
                title=self.title,
                record=recorder.path.name,
                study=recorder.study,
                streams=self.streams,
                identities=identities,
                bundle=bundle,
                session_clock=session_clock,
                now=now,
            )
            return self._description

        self._recording = Recording(
            lambda: make(self.streams),
            waits=not self._live,
            now=self._now,
            dispensable=self._model is not None,
        )
        begun = threading.Event()
        thread = self._thread(self._recording.run, "recorder", describe, self._end_description, begun.set, self._look)
        until = time.monotonic() + BEGINNING
        while thread.is_alive() and not begun.wait(POLL / 10) and time.monotonic() < until:
            pass
        self._recording.awaited = False
        if not thread.is_alive():  # it lives until the record is closed
            raise self._failures[0]
        return thread

    def _end_description(self) -> dict[str, object]:
        return conclusion(
            self._description,
            counts=self._counts(),
            taken={
                keys.get(info.key, info.key): getattr(device, "taken", ())
                for device, keys in zip(self._devices, self._keys, strict=True)
                for info in device.streams
            },
            alarms=self._alarmed,
            figures={
                "windows": self._windows,
                "skipped": self._skipped,
                "unrecorded": self._unrecorded,
                "alarms_seen": self._alarm_log.begun,
            },
            problem=self._problem(),
            session_clock=self._now(),
            now=datetime.now(UTC).astimezone(),
        )

    def _problem(self) -> str:
        """What went wrong in the whole session, "" when nothing did."""
        if self._failures:
            return str(self._failures[0]) or type(self._failures[0]).__name__
        recording = self._recording.problems if self._recording is not None else {}
        return "; ".join({**self._past, **self._alarms, **recording}.values())

    # -- messages ----------------------------------------------------------------------------------------------------

    def _publish(self, update: Update) -> None:
        if self._server is not None:
            self._server.publish(update)

    def _publish_all(self, updates: Iterable[Update]) -> None:
        for update in updates:
            self._publish(update)

    @property
    def card(self) -> ModelCard | None:
        """What a screen or a stream says of the model beside its estimates; None without a model."""
        if self._model is None:
            return None
        bundle = self._model.bundle
        return ModelCard(
            name=bundle.manifest.name,
            hash=bundle.short_hash,
            targets=tuple(target.name for target in bundle.manifest.targets),
            meanings=tuple(target.meaning for target in bundle.manifest.targets),
            kinds=tuple(target.kind for target in bundle.manifest.targets),
            ranges=tuple(target.range for target in bundle.manifest.targets),
            levels=tuple(target.levels for target in bundle.manifest.targets),
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

    def _now(self) -> float:
        """The session clock; in a replay its position."""
        return self._transport.position if self._transport else self._clock()

    def _counts(self) -> dict[str, dict[str, int]]:
        """Samples or markers, lost, refused and gaps of every stream of a source; markers have no gaps."""
        counts = {
            key: {"samples": meter.samples, "lost": meter.lost, "refused": 0, "gaps": meter.gaps}
            for key, meter in self._meters.items()
            if key != KEYBOARD.key
        }
        for key, counters in self._windower.counters.items():  # the intake sees more than a meter
            counts[key] |= {"refused": counters.refused + counters.overrun, "gaps": counters.gaps}
        for key, missing in self._missing_at_end.copy().items():  # the analysis thread counts
            counts[key]["lost"] += missing
            counts[key]["gaps"] += key in self._rates
        return counts

    def _health(self) -> Health:
        now, wall = self._now(), time.monotonic()
        counts = self._counts()
        nothing = {"lost": 0, "refused": 0, "gaps": 0}
        streams = []
        for info in self.streams:
            meter, count = self._meters[info.key], counts.get(info.key, nothing)
            if info.key == KEYBOARD.key:
                continue
            streams.append(
                StreamHealth(
                    key=info.key,
                    # Live by arrival: a source's stamps may lie. NaN before the first sample either way.
                    stale=wall - meter.arrived if self._live else now - meter.newest,
                    rate=meter.rate,
                    samples=meter.samples,
                    lost=count["lost"] + count["refused"],
                    gaps=count["gaps"],
                    offset_ms=meter.offset * 1e3,
                    offset_sd_ms=meter.offset_sd * 1e3,
                    patience=patience(self._paces[info.key].pause if info.rate else math.nan),
                )
            )
        recent = wall - self._estimated_at < 3 * self._windower.spec.hop  # false for NaN
        return Health(
            now=now,
            streams=tuple(streams),
            skipped=self._skipped,
            latency_ms=self._latency * 1e3 if recent else math.nan,
            record=str(self._recording.path or "") if self._recording is not None else "",
            record_bytes=self._recording.bytes_written if self._recording is not None else 0,
            playing=self._transport.playing if self._transport else True,
            speed=self._transport.speed if self._transport else 1.0,
            looping=self._transport.looping if self._transport else False,
            unrecorded=self._unrecorded,
            alarms=tuple(self._alarming().values()),
        )

    def _alarming(self) -> dict[str, str]:
        """What is wrong right now, in words, by what it is about."""
        wall = time.monotonic()
        found = dict(self._alarms)
        for index, device in enumerate(self._devices):
            for problem in getattr(device, "problem", "").splitlines():
                found[f"problem {index} {kind(problem)}"] = problem
        if self._live and not self._stop.is_set() and not self._asked and wall >= self._hold_until:
            # Of signals only: events come when they come.
            arrived = {info.key: self._meters[info.key].arrived for info in self.streams if info.rate}
            self._silent = silences(wall, self._began, arrived, {key: pace.pause for key, pace in self._paces.items()})
        # Once it has been stopped, as it was: nobody reads the sources any more.
        found |= {f"silent {key}": text for key, text in self._silent.items()}
        skips = sum(at >= wall - PACE_OVER for at in tuple(self._skips))
        if skips > max(2, SKIPPED_MOST * PACE_OVER / self._windower.spec.hop):
            found["pace"] = f"{self._slowest(wall)}: too slow, it skipped {skips} windows in the last {PACE_OVER:.0f} s"
        if (busy := self._busy_with) is not None and busy[0] in self._follow and wall - busy[1] > SLOW_FOLLOWER:
            found["follower"] = f"{busy[0]}: no answer for {wall - busy[1]:.1f} s; estimates wait for it"
        if given_up := self._inbox.given_up:
            found["inbox"] = f"held up for too long: {given_up} samples that had arrived are lost"
        if self._recording is not None:
            found |= self._recording.standing()
        if self._model is not None:
            found |= {f"note {index}": note for index, note in enumerate(self._model.notes)}
        return found


def _operate(transport: Transport, command: Play | Pause | SetSpeed | Seek | Step | SetLoop) -> None:
    match command:
        case Play():
            transport.play()
        case Pause():
            transport.pause()
        case SetSpeed(speed) if speed > 0:
            transport.set_speed(speed)
        case Seek(moment) if math.isfinite(moment):
            transport.seek(moment)
        case Step(seconds) if 0 < seconds < math.inf:
            transport.step(seconds)
        case SetLoop(on):
            transport.set_loop(bool(on))


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


def _nothing(info: StreamInfo, lost: int) -> Chunk | Events:
    """No sample or marker of a stream, and so many that are missing."""
    if not info.numeric:
        return Events(info.key, np.zeros(0), (), lost)
    return Chunk(info.key, np.zeros(0), np.zeros((0, len(info.channels)), np.float32), lost)


def _renamed(item: Item, keys: dict[str, str]) -> Item:
    if keys and isinstance(item, Chunk | Events | Clock | Notice) and item.stream in keys:
        return replace(item, stream=keys[item.stream])
    return item

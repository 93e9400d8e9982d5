"""Streams of the lab streaming layer: ``lsl:type=EEG``, ``lsl:name=Muse,type=EEG``, ``lsl:source_id=...``.

Conditions are joined by commas and must all hold: ``type`` (in any case), ``name``, ``source_id``, ``host``, ``uid``.
``lsl:`` alone takes the only stream there is. A source that was opened is taken again only from the same host.

LSL has neither authentication nor encryption, so only this machine is asked unless the address says ``lan``
(``lsl:type=EEG,lan``) or a configuration of the user's own can be read where liblsl looks for one: LSLAPICFG,
``./lsl_api.cfg``, ``~/lsl_api/lsl_api.cfg``, ``/etc/lsl_api/lsl_api.cfg``; then that file decides alone. liblsl reads
its configuration once in a process: ``lan`` on the first source counts for all, on a later one it is refused. `reach`
says what came of it. This machine's streams then answer no question from the network; but liblsl opens the port of an
outlet on every interface, so that whoever knows or guesses it can read: a firewall closes that.

What a stream says of itself is untrusted text: counts, rates and lengths are capped before anything is allocated.
"""

from __future__ import annotations

import contextlib
import ctypes
import itertools
import math
import os
import queue
import threading
import time
from collections import Counter, deque
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import numpy as np
import pylsl
from numpy.typing import NDArray

from devices.api import Chunk, Clock, DeviceError, Events, Found, Item, Notice, StreamInfo, unit_name
from devices.stamps import Stamps

RESOLVE_TIMEOUT = 5.0
"""Seconds to wait for a stream that fits."""
LISTEN = 0.7
"""Seconds to listen at least: a second stream that fits may answer only to the second round of questions, at 0.5 s."""
OPEN_TIMEOUT = 5.0
DESCRIBE_TIMEOUT = 1.0
CORRECTION_INTERVAL = 5.0
"""Seconds between two `Clock`s; liblsl measures every 2 s."""
BUSY = 0.5
"""Seconds. A measurement whose round trip took longer says nothing: the source was stopped, or the network down. One
that took less is a sign of life, and counts by how long it took; see `devices.stamps.Offset`."""
QUICK, TRIES = 0.01, 3
"""Seconds that a round trip takes on one machine and in most networks: while the first measurement of a source takes
longer, it is repeated, so many in all. The times of its first samples depend on it alone."""
REPORT_INTERVAL = 10.0
"""Seconds between two notices on the samples that are left out."""
SILENCE = 3.0
"""Seconds without a sample after which the network is asked whether a stream is still there: what freezes, or loses its
cable, never closes its connection. A stream without a rate may have nothing to say; see `ANSWERS`."""
ALLOWANCE = 0.25
"""Seconds by which a source that was started anew may seem to have begun before the old one was last heard: the most by
which a measured offset can be wrong."""
STEADY = 1.0
"""Seconds. After a longer pause of the reader what liblsl says may still be of before, and what is read so much later
than is usual is a backlog; and a source that has answered so long after its last sample was quiet, and did not hang."""
ANSWERS = 5.0
"""Seconds within which a source that lives has answered: liblsl asks for its clock every 2 s. A stream without a rate
of which neither a sample nor an answer has come for so long is silent."""
CLOSE_TIMEOUT = 2.0
"""Seconds that closing waits for the keeper, which may be inside a call of liblsl for longer."""
BUFFER_SECONDS = 60
IRREGULAR_BUFFER = 36_000
"""Samples of a stream of numbers without a rate that LSL keeps: a minute of a headset that does not say its rate."""
BURST_WAIT = 0.0003
"""Seconds that a chunk may take to be queued behind its first sample; see `_Link.pull`."""
MAX_BURST = 256

HOLE = 10.0
"""Sample periods: a longer step within a backlog means that samples are missing there."""

MAX_CHANNELS = 1024
ABSURD = 1e12
"""Seconds: since 1970 there have been 2e9. Stamps beyond, and those that are no number, are refused and counted."""
MAX_RATE = 100_000.0
MAX_DESCRIPTION = 1_000_000
MAX_TEXT = 65_536
MAX_NAME = 120
MAX_LISTED = 8
MAX_TAKEN = 1000
"""Outlets that are remembered of those that took the place of another."""
MAX_ASKED = 16
"""Streams that are asked for their description at once."""

KEYS = ("type", "name", "source_id", "host", "uid")
BODILY = ("eeg", "ecg", "ekg", "exg", "emg", "eog")
"""Kinds of signal that nobody sends without a rate on purpose."""

MACHINE = """[ports]
IPv6 = disable
[multicast]
ResolveScope = machine
ListenAddress = 127.0.0.1
Interfaces = 127.0.0.1
AddressesOverride = {127.0.0.1}
[lab]
KnownPeers = {127.0.0.1}
[log]
level = -3
"""
"""Asks and answers on the loopback only, yet finds and is found by LSL programs of this machine that use defaults.

liblsl writes only what is fatal: that a source broke off is said by `LslDevice.problem`, not in the middle of a screen.
"""

_scope = _reach = ""
_scope_lock = threading.Lock()


def lsl_clock() -> float:
    """Now on the session clock, seconds: LSL's ``local_clock``, monotonic, the same in every process of a machine."""
    return float(pylsl.local_clock())


def use_network(lan: bool = False) -> None:
    """Fix how far LSL reaches in this process, before it is used for the first time; see the head of this file."""
    global _scope, _reach
    with _scope_lock:
        if not _scope:
            named = os.environ.get("LSLAPICFG", "")
            home = Path.home() / "lsl_api" / "lsl_api.cfg"
            places = (Path(named), Path("lsl_api.cfg"), home, Path("/etc/lsl_api/lsl_api.cfg"))
            own = next((place for place in places if _can_be_read(place)), None)
            if own is not None:
                _scope, _reach = "configured", f"LSL follows {own.absolute()}"
            elif lan:
                _scope, _reach = "lan", "LSL looks in the local network"
            else:
                pylsl.set_config_content(MACHINE)  # liblsl would take to the network where it finds no file
                _scope = "machine"
            if named and not _can_be_read(Path(named)):
                _reach = f"LSLAPICFG names {named}, which cannot be read; {_reach or 'LSL stays on this machine'}"
        elif lan and _scope == "machine":
            raise DeviceError(
                "lsl: this session already looks on this machine only; put ,lan on its first lsl: source."
            )


def _can_be_read(path: Path) -> bool:
    try:
        with path.open("rb"):
            return True
    except OSError:  # also of a folder
        return False


def reach() -> str:
    """One line when LSL reaches further than this machine, or when a file decides; "" otherwise.

    It is fixed by the first `use_network`; before, LSL is not used and this is "".
    """
    return _reach


def discover(seconds: float = LISTEN, lan: bool = False) -> list[Found]:
    """The streams there are right now, by name, each with an address that means it and no other.

    Of those that would be refused it says so and why.
    """
    use_network(lan)
    found, _ = _listen({}, seconds, seconds)
    found.sort(key=lambda info: (info.name(), info.type()))
    with ThreadPoolExecutor(MAX_ASKED) as pool:  # one that hangs makes no other wait
        refusals = list(pool.map(_refusal_in_full, found))
    return [
        Found(_address(info, found) + (",lan" if lan else ""), _what(info) + (refusal and f"; refused: {refusal}"))
        for info, refusal in zip(found, refusals, strict=True)
    ]


def connect(rest: str) -> LslDevice:
    """The stream that fits the conditions in ``rest``, opened, its clock measured. Raises DeviceError."""
    conditions, lan = _conditions(rest)
    use_network(lan)
    address = f"lsl:{rest}"
    found, others = _listen(conditions, RESOLVE_TIMEOUT, LISTEN)
    if not found:
        there, _ = _listen({}, LISTEN, LISTEN)
        reach = "this machine" if _scope == "machine" else "the network"
        now = f"{reach} has {_list(there)}" if there else f"{reach} has no stream at all"
        advice = "start the source, or add ,lan to look beyond this machine" if reach == "this machine" else ""
        raise DeviceError(
            f"{address}: no such stream in {RESOLVE_TIMEOUT:g} s; right now {now}. "
            f"{(advice or 'start the source').capitalize()}."
        )
    if len(found) > 1:
        keys = [key for key in KEYS if len({_property(info, key) for info in found}) == len(found)]
        raise DeviceError(
            f"{address}: {len(found)} streams fit: {_list(found, uid=keys == ['uid'])}. "
            f"Choose one by adding {' or '.join(f'{key}=...' for key in keys)}."
        )
    try:
        link = _Link(found[0])
    except RuntimeError as error:  # the base of everything that pylsl raises
        raise DeviceError(f"{address}: found, but it cannot be opened: {error} Restart the source.") from error
    twins = [info for info in others if info.source_id() and _near(info) == _near(found[0])]
    return LslDevice(address, found[0], link, twins, pinned="uid" in conditions)


class LslDevice:
    """One LSL stream as a device: one inlet, a thread that watches the source's clock and finds a lost source again.

    A source that goes away and comes back under the same name, type, source_id, host, channels and rate is taken up
    again, and a `Notice` says so; the first chunk then says in ``lost`` how many samples the gap would have held. So is
    one that was started anew while the old one hangs: silent, and no longer answering. Meanwhile ``read`` gives nothing
    and ``problem`` says why. Texts are `Events`; numbers are `Chunk`s in their format, also without a rate.

    Another outlet is taken only when, by its own clock, it was made after the old one was last known alive: a twin
    that was there before is named in ``problem`` and never taken. A connection that stands is no sign of life, it
    outlasts a source that hangs: samples are, and answers. With ``pinned`` no other outlet is taken at all.

    Times of a signal always rise, also from one outlet to the next; `devices.stamps` says what becomes of stamps
    that make no sense.
    """

    def __init__(
        self,
        address: str,
        found: pylsl.StreamInfo,
        link: _Link,
        twins: Sequence[pylsl.StreamInfo] = (),
        pinned: bool = False,
    ) -> None:
        self._address = address
        self._pinned = pinned
        self._found = found
        self._identity = _identity(found)
        self._near = _near(found)
        self._link: _Link | None = link  # set by the reader only
        self._info = link.info
        self._last = math.nan
        self._away = 0.0
        """Seconds for which nobody had read, until what is given has caught up with that; 0 otherwise."""
        self._backlog = 0
        """Samples that were given since then."""
        self._delay = 0.0
        """Seconds from the newest sample to when it is read, while nothing is caught up with."""
        self._said: list[str] = []
        if twins:
            self._said.append(
                f"read from {_pin(link)}; its source_id {_clean(found.source_id())} is sent by others too: "
                f"{_list(twins, uid=True)}"
            )
        if self._info.kind in BODILY and self._info.numeric and not self._info.rate:
            self._said.append(
                f"{self._info.kind.upper()} without a nominal rate: it is recorded as it comes, "
                "but cannot be analysed; set the rate in the program that sends it"
            )
        self._before: tuple[str, float] | None = None  # uid and last arrival of the outlet that was lost
        self._pulled = math.nan
        self._steady = math.inf  # since when the reader has made no long pause
        # Session clock of the last signs of life: a sample, an answer, a connection that stands though nothing comes.
        self._sampled = self._answered = self._stood = lsl_clock()
        self._offset = link.offset
        self._clocked = -math.inf
        self._left_out = (0, 0, 0)
        self._reported = -math.inf
        self._cut = self._told_cut = 0
        self._refused = self._at_end = 0  # and how many of them came after the newest sample that was none of them
        self._refusals, self._refused_at = 0, -math.inf  # of the whole session, and time.monotonic() of the last one
        self._owed = 0
        self._heard = 0.0
        self._again: queue.SimpleQueue[_Link] = queue.SimpleQueue()
        self._wake = threading.Event()
        self._wanted = False
        self._stop = threading.Event()
        self._failure: BaseException | None = None
        self._keeper: threading.Thread | None = None
        self._absence = self._guessed = ""
        self.uid = link.uid
        """LSL's identifier of the outlet that is read: two devices with one uid read the same stream twice."""
        self._who: Mapping[str, str] = link.who
        self._taken: list[tuple[float, Mapping[str, str]]] = []

    @property
    def problem(self) -> str:
        """A line for each thing that is wrong, "" when all is well. May be read from any thread."""
        count, what = self._refusals, "sample" if self._info.numeric else "marker"
        refusals = time.monotonic() - self._refused_at < REPORT_INTERVAL and (
            f"{count} {what}{'s' if count > 1 else ''} refused for stamps that are no times; "
            "check the clock of the source"
        )
        return "\n".join(f"{self._address}: {text}" for text in (self._absence, refusals, self._guessed) if text)

    @property
    def owed(self) -> Mapping[str, int]:
        """How many samples or markers were refused or are missing that nothing given out has told of yet."""
        return {self._info.key: self._owed + self._refused}

    @property
    def identity(self) -> Mapping[str, str]:
        """Who sends: host, uid, source_id, session_id, created_at; manufacturer, model and serial when it says so."""
        return self._who

    @property
    def taken(self) -> Sequence[tuple[float, Mapping[str, str]]]:
        """The outlets that were taken in place of the first: since when, session clock, and their identity; of very
        many the last. May be read from any thread."""
        return tuple(self._taken)

    @property
    def streams(self) -> Sequence[StreamInfo]:
        return (self._info,)

    def __enter__(self) -> Self:
        if self._link is None or self._keeper is not None:
            raise DeviceError(f"{self._address}: a device is opened once.")
        self._heard = time.monotonic()
        try:
            self._link.inlet.open_stream(OPEN_TIMEOUT)
        except pylsl.util.LostError:
            self._let_go("the source has gone; " + self._waits_for("waiting for it to come back"))
        except pylsl.util.TimeoutError:
            pass  # it hangs, and is watched as it would be later
        except RuntimeError as error:
            raise DeviceError(f"{self._address}: found, but sends nothing: {error} Restart the source.") from error
        else:
            self._heard = time.monotonic()
        self._keeper = threading.Thread(target=self._keep, name=f"clock of {self._info.key}", daemon=True)
        self._keeper.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._stop.set()
        self._wake.set()
        if self._keeper is not None:
            self._keeper.join(CLOSE_TIMEOUT)
        if self._link is not None:
            self._link.inlet.close_stream()
        self._link = None

    def read(self, timeout: float) -> list[Item]:
        """What has come, at most one chunk; waits at most ``timeout`` seconds for the first sample."""
        if self._failure is not None:
            raise self._failure
        if self._link is not None and self._link.given_up:
            self._let_go("the source hangs; taking up the one that was started in its place")
        link = self._link
        if link is None:
            try:
                link = self._again.get(timeout=max(timeout, 0.0))
            except queue.Empty:
                return []
            timeout = 0.0
            self._heard = time.monotonic()
            self._link = link
            self.uid, self._who = link.uid, link.who
            self._taken.append((lsl_clock(), link.who))
            del self._taken[:-MAX_TAKEN]
            self._sampled = self._answered = self._stood = lsl_clock()
            self._left_out = (0, 0, 0)
            self._absence = ""
        self._offset = link.offset
        asked = lsl_clock()
        if not asked - self._pulled < STEADY:  # true for the NaN before the first
            self._steady = asked
        try:
            samples, stamps = link.pull(timeout)
        except pylsl.util.LostError:
            self._let_go("the source has gone; " + self._waits_for("waiting for it to come back"))
            return []
        now, unix = lsl_clock(), time.time()
        # Whoever is stopped while waiting for a sample may wake without one: the time counts for what is given next.
        pause = now - self._pulled  # NaN before the first
        if pause - timeout > (BUFFER_SECONDS / 2 if self._info.rate else STEADY):
            self._away += pause
            self._backlog = 0
        self._pulled = now
        self._at_end = 0
        if not len(stamps) and not self._absence and asked - self._steady > STEADY:
            self._stood = asked  # nothing waits, and its connection stands
        if len(stamps):
            self._heard = time.monotonic()
            if self._absence:
                self._absence = ""
            if not np.abs(stamps).max() < ABSURD:  # the usual case; NaN compares false
                samples, stamps = self._refuse(samples, stamps)
        clocks = self._clocks(link, now, unix)
        if not len(stamps) and not link.stamps.waiting:
            return self._notices(link, now) + clocks
        placed = link.stamps.take(samples, stamps, now, unix)
        if len(placed.times):  # what was read late was sent early
            self._sampled = max(self._sampled, min(now, float(placed.times.max())))
        if link.stamps.asks and not link.asked:
            link.asked = True
            self._wake.set()
        given = self._given(link, placed.times, placed.samples, placed.lost, now)
        return self._notices(link, now) + clocks + given

    def _given(
        self, link: _Link, times: NDArray[np.float64], samples: NDArray[Any], lost: int, now: float
    ) -> list[Item]:
        if self._info.rate and len(times) and times[0] <= self._last:  # of one outlet times rise, of two they need not
            if not link.behind:
                link.behind = True
                self._said.append(
                    f"the new outlet begins {self._last - float(times[0]):.3f} s before the end of the old one; "
                    "samples of a time that was read already are left out and counted"
                )
            begin = int(np.searchsorted(times, self._last, "right"))
            times, samples = times[begin:], samples[begin:]
            lost += begin
        if not len(times):
            self._owed += lost
            return []
        gap = float(times[0]) - self._last  # NaN: there is nothing before
        missing = 0
        late, away = self._away > 0, f"nobody read for {self._away:.1f} s, LSL keeps"
        if late and not self._info.rate:
            self._count_backlog(link, len(times), away)
        delay = now - float(times[-1])
        if delay < self._delay + STEADY:
            self._away = 0.0
        if not late:
            self._delay = max(delay, 0.0)
        if gap * self._info.rate > 1.5 and (link.fresh or late):
            missing = round(gap * self._info.rate) - 1
        if link.fresh:
            link.fresh = False
            if self._before is not None:
                uid, heard = self._before
                self._before = None
                seconds = gap if self._info.rate and gap > 0 else self._heard - heard
                held = f", {missing} samples missing" if self._info.rate and not math.isnan(gap) else ""
                self._said.append(
                    f"the source came back as another outlet after {seconds:.3f} s{held}: uid {uid} -> {_pin(link)}"
                )
        elif missing:
            self._said.append(f"{missing} samples missing: {away} {BUFFER_SECONDS} s")
        self._last = float(times[-1])
        if not self._info.numeric:
            self._count_cuts(samples, now)
            lost, self._refused = self._refused, 0
            return [Events(self._info.key, times, _texts(samples), lost)]
        values = samples
        if link.scale is not None:
            with np.errstate(over="ignore"):  # what float32 cannot hold is infinite, and nobody's warning
                values = np.asarray(samples, np.float32) * link.scale
        lost = max(lost + self._owed + self._refused - self._at_end, missing)  # what was left out lies in the gap too
        self._owed, self._refused = 0, self._at_end
        # What LSL let go of while nobody read may lie inside the backlog: the network held some of what came before.
        holes = np.flatnonzero(np.diff(times) * self._info.rate > HOLE) + 1 if late else np.zeros(0, np.int64)
        given: list[Item] = []
        for begin, end in itertools.pairwise([0, *holes.tolist(), len(times)]):
            if begin:
                lost = round(float(times[begin] - times[begin - 1]) * self._info.rate) - 1
                self._said.append(f"{lost} samples missing: {away} {BUFFER_SECONDS} s")
            given.append(Chunk(self._info.key, times[begin:end], values[begin:end], lost))
        return given

    def _count_backlog(self, link: _Link, count: int, away: str) -> None:
        """Say once when so much of a stream without a rate waited as LSL keeps: how much it let go of is not known."""
        if self._backlog < link.kept <= self._backlog + count:
            what = "samples" if self._info.numeric else "markers"
            self._said.append(f"{what} may be missing: {away} {link.kept} of a stream without a rate")
        self._backlog += count

    def _count_cuts(self, samples: NDArray[Any], now: float) -> None:
        """Say the first text that is too long to be kept whole; the others are counted with what is left out."""
        for text in samples.ravel().tolist():
            if len(text) > MAX_TEXT:
                self._cut += 1
                if self._cut == 1:
                    self._told_cut, self._reported = 1, now
                    self._said.append(
                        f"a marker of {_length(text)} characters is cut to {MAX_TEXT} bytes; what follows is counted"
                    )

    def _clocks(self, link: _Link, now: float, unix: float) -> list[Item]:
        """Take up what was measured; at most one `Clock`, never one that was not measured."""
        seen = False
        while link.measured:
            link.stamps.measure(*link.measured.popleft())
            seen = True
        if not seen or now - self._clocked < CORRECTION_INTERVAL - 1.0:
            return []
        self._clocked = now
        return [Clock(self._info.key, now, *link.stamps.clock(now, unix))]

    def _notices(self, link: _Link, now: float) -> list[Item]:
        stamps = link.stamps
        if stamps.notices:
            self._said += stamps.notices
            stamps.notices.clear()
            off = "its stamps are not those of its clock; samples are placed by when they arrive"
            self._guessed = off if stamps.by_arrival else ""
        left_out = (stamps.late, stamps.twice, stamps.wild)
        if left_out != self._left_out and now - self._reported >= REPORT_INTERVAL:
            self._left_out, self._reported = left_out, now
            words = ("out of order", "sent twice", "with wild stamps")
            counts = ", ".join(f"{count} {word}" for count, word in zip(left_out, words, strict=True) if count)
            self._said.append(f"samples of this outlet so far: {counts}")
        if self._cut > self._told_cut and now - self._reported >= REPORT_INTERVAL:
            self._told_cut, self._reported = self._cut, now
            self._said.append(f"{self._cut} markers cut so far")
        if not self._said:
            return []
        said, self._said = self._said, []
        return [Notice(self._info.key, now, text) for text in said]

    def _waits_for(self, usual: str) -> str:
        return f"waiting for uid {self.uid}, as the address says" if self._pinned else usual

    def _let_go(self, why: str) -> None:
        if self._link is not None and self._before is None:
            self._before = self._link.uid, self._heard
        self._link = None
        self._guessed = ""
        self._absence = why
        self._wanted = True
        self._wake.set()

    def _refuse(self, samples: NDArray[Any], stamps: NDArray[np.float64]) -> tuple[NDArray[Any], NDArray[np.float64]]:
        """The samples whose stamp is a time; the others are counted.

        What is given out next says in ``lost`` how many there were, `owed` until then; ``problem`` says how many there
        have been in all while it goes on.
        """
        good = np.abs(stamps) < ABSURD
        if good.all():
            return samples, stamps
        refused = int(len(good) - good.sum())
        self._refused += refused
        self._refusals, self._refused_at = self._refusals + refused, time.monotonic()
        self._at_end = int(np.argmax(good[::-1])) if good.any() else len(good)
        return samples[good], stamps[good]

    def _keep(self) -> None:
        try:
            while not self._stop.is_set():
                self._wake.wait(min(1.0, CORRECTION_INTERVAL))
                self._wake.clear()
                link = self._link
                if self._stop.is_set():
                    return
                if self._wanted:
                    self._wanted = False
                    self._find_again()
                elif link is not None and not link.given_up:
                    link.measure()
                    self._answered = max(self._answered, link.answered)
                    if self._silent():
                        self._look_for_successor(link)
        except BaseException as error:  # noqa: BLE001  (handed to the reader)
            self._failure = error

    def _silent(self) -> bool:
        quiet = time.monotonic() - self._heard
        if self._info.rate:
            return quiet >= SILENCE
        return quiet >= ANSWERS and lsl_clock() - self._answered >= ANSWERS

    def _look_for_successor(self, link: _Link) -> None:
        """Watch a silent source until it is heard, answers, or is given up for one that was started in its place.

        One that answers is not given up: it may have nothing to say, and the other may be a twin.
        """
        resolver = pylsl.ContinuousResolver(forget_after=2.0)
        began, asked = time.monotonic(), lsl_clock()
        ages: dict[str, bool] = {}
        while self._link is link and self._silent() and not self._stop.wait(0.2):
            if time.monotonic() - began < 2 * LISTEN:
                continue
            near = [info for info in resolver.results() if _near(info) == self._near]
            fitting = [info for info in near if _identity(info) == self._identity]
            twins = [info for info in fitting if info.uid() != link.uid]
            if len(twins) < len(fitting):
                self._answered = max(self._answered, asked)
                # Heard again at the earliest when another SILENCE is over: it is not asked all the time.
                self._heard = time.monotonic()
                twins = twins if self._info.rate else []  # markers may be rare
                self._absence = f"the source is silent, but answers; not taken for it: {_list(twins)}" if twins else ""
                return
            if any(self._started_anew(info, ages) for info in twins[:MAX_LISTED]):
                link.given_up = True
                return
            waits = self._waits_for("waiting for it")
            self._absence = f"the source is silent and no longer answers; {waits}{self._others(near, link.uid)}"
        if self._link is link:
            self._absence = ""

    def _started_anew(self, info: pylsl.StreamInfo, ages: dict[str, bool]) -> bool:
        """Whether an outlet that is not ours was made after ours was last known alive; asked once, kept in ``ages``.

        Both are compared on the source's own clock, which the sleep of a host does not move. A clock that runs behind
        where it was is of a host that has been started anew, and so is all that is there.
        """
        if self._pinned:
            return False
        uid = str(info.uid())
        if uid not in ages:
            try:
                when, offset, *_ = _correction(pylsl.StreamInlet(info, recover=False), 1.5)
            except RuntimeError:
                return False  # does not answer at present
            heard = self._last_alive() - self._offset
            ages[uid] = info.created_at() > heard - ALLOWANCE or when - offset < heard - 1.0
        return ages[uid]

    def _last_alive(self) -> float:
        """When the outlet was last known to be there, session clock.

        One that hangs keeps its connection and gives neither samples nor answers: then the last of those counts. One
        that was quiet and answered is alive for as long as its connection stands, unless the answers stop, too.
        """
        heard = max(self._sampled, self._answered)
        quiet = self._answered > self._sampled + STEADY and self._stood - self._answered < ANSWERS
        return max(heard, self._stood) if quiet else heard

    def _others(self, infos: Sequence[pylsl.StreamInfo], chosen: str) -> str:
        """What else than the outlet ``chosen`` goes by the source's name, in words: what differs, and what to do."""
        others = [info for info in infos if info.uid() != chosen]
        changed = [info for info in others if _layout(info) != _layout(self._found) and self._same_host(info)]
        said = [f"{_list([info], uid=True)} sends {self._changes(info)}" for info in changed[:1]]
        if twins := [info for info in others if info not in changed]:
            said.append(_list(twins, uid=True))
        if not said:
            return ""
        advice = "; set it as it was, or end the session and begin another one" if changed else ""
        return f"; not taken for it: {'; '.join(said)}{advice}"

    def _same_host(self, info: pylsl.StreamInfo) -> bool:
        return bool(info.hostname() == self._found.hostname())

    def _changes(self, info: pylsl.StreamInfo) -> str:
        pairs = zip(_layout(info), _layout(self._found), strict=True)
        return " and ".join(f"{there} instead of {before}" for there, before in pairs if there != before)

    def _find_again(self) -> None:
        resolver = pylsl.ContinuousResolver(forget_after=2.0)
        began = time.monotonic()
        ages: dict[str, bool] = {}
        renamed: dict[str, str] = {}  # outlets that name their channels otherwise, and how
        while not self._stop.wait(0.2):
            if time.monotonic() - began < LISTEN:
                continue  # of several twins one is heard first
            near = [info for info in resolver.results() if _near(info) == self._near]
            same = [info for info in near if _identity(info) == self._identity]
            there = [info for info in same[:MAX_LISTED] if info.uid() not in (self.uid, *renamed)]
            fitting = [info for info in there if self._started_anew(info, ages)]
            # What was given up for hanging may stir again; it is taken only when there is nothing else.
            fitting = fitting or [info for info in same if info.uid() == self.uid]
            chosen = fitting[0] if len(fitting) == 1 else None
            uid = str(chosen.uid()) if chosen is not None else ""
            if said := [renamed[info.uid()] for info in near if info.uid() in renamed]:
                self._absence = said[0]
            elif others := self._others(near, uid):
                waits = self._waits_for("")
                self._absence = f"the source has gone; {waits}{others if waits else others[2:]}"
            if chosen is None:
                continue
            try:
                link = _Link(chosen)
                link.inlet.open_stream(OPEN_TIMEOUT)
            except (RuntimeError, DeviceError):
                continue  # gone again already; go on looking
            if link.info != self._info:
                renamed[uid] = (
                    f"the source came back and describes itself otherwise: {_otherwise(link.info, self._info)}; "
                    "set it as it was, or end the session and begin another one"
                )
                continue
            self._again.put(link)
            return


class _Link:
    """An inlet, its description, and its clock, measured before anything is read."""

    def __init__(self, found: pylsl.StreamInfo) -> None:
        refusal = _refusal(found)
        if refusal:
            raise DeviceError(f"lsl: {_label(found)}: {refusal}.")
        self.uid = str(found.uid())
        self.given_up = False
        """Hangs, and another has taken its place: the reader is to let go of it."""
        irregular = not found.nominal_srate() and found.channel_format() != pylsl.cf_string
        length = IRREGULAR_BUFFER // 100 if irregular else BUFFER_SECONDS
        self.kept = 100 * length  # of one with a rate it is seconds
        """Samples of a stream without a rate that LSL keeps: there it counts in hundreds."""
        self.inlet = pylsl.StreamInlet(found, max_buflen=length, recover=False, as_numpy=True)
        full = self.inlet.info(OPEN_TIMEOUT)
        if refusal := _wordy(full):
            raise DeviceError(f"lsl: {_label(found)}: {refusal}.")
        rows = _channels(full)
        self.info = _describe(full, rows)
        factors = [_VOLTS.get(row.unit, 1.0) / _VOLTS.get(self.info.unit, 1.0) for row in rows]
        mixed = self.info.unit in _VOLTS and any(row.unit in _VOLTS and row.unit != self.info.unit for row in rows)
        self.scale = np.array(factors, np.float32) if mixed else None
        if mixed:
            self.info = replace(self.info, format="float32")
        self.who = _who(full)
        self._found = found
        when, offset, uncertainty = _first_correction(self.inlet, found)
        self.stamps = Stamps(self.info.rate, when, offset, uncertainty)
        self.measured: deque[tuple[float, float, float]] = deque([(when, offset, uncertainty)])
        """Measurements that the reader has not taken up yet: session clock, offset, uncertainty."""
        self.answered = when
        """When the source last answered, session clock."""
        self.offset = offset
        """To be added to the source's stamps, as measured last."""
        self.asked = False
        """The reader needs the clock measured at once."""
        self.fresh = True
        self.behind = False
        """Its first samples are of a time that another outlet's had already; it was said."""
        self._burst = 1

    def pull(self, timeout: float) -> tuple[NDArray[Any], NDArray[np.float64]]:
        """What has come: samples (n, channels) and the source's stamps (n,); waits ``timeout`` for the first.

        The reader wakes at the first sample of a chunk, often before liblsl's own thread has queued the others. They
        are waited for, in C and not for long, while no more of them have come than in the chunk before: a chunk read
        in two pieces costs everything behind it twice.
        """
        samples, stamps = self.inlet.pull_chunk(timeout=timeout, min_samples=1, as_numpy=True)
        missing = self._burst - len(stamps)
        if len(stamps) and missing > 0:
            with contextlib.suppress(pylsl.util.LostError):  # the next pull says so; what has come is given out first
                more, later = self.inlet.pull_chunk(timeout=BURST_WAIT, max_samples=missing, as_numpy=True)
                if len(later):
                    samples, stamps = np.concatenate((samples, more)), np.concatenate((stamps, later))
        if len(stamps):
            self._burst = min(len(stamps), MAX_BURST)
        return samples, stamps

    def measure(self) -> None:
        """Called by the keeper: what liblsl has measured since, or, when asked, a measurement of now."""
        asked = self.asked
        try:
            # liblsl measures anew only every 2 s, but at once for a new inlet.
            inlet = pylsl.StreamInlet(self._found, recover=False) if asked else self.inlet
            when, offset, uncertainty, round_trip = _correction(inlet, 1.5 if asked else 1.0)
            if when > self.answered + 1e-3 and round_trip < BUSY:
                self.answered = when
                self.offset = offset
                self.measured.append((when, offset, uncertainty))
        except RuntimeError:
            pass  # no answer: the last measurement stands, and the reader notices when the source is gone
        if asked:  # not when the reader has asked meanwhile
            self.asked = False


pylsl.lib.lib.lsl_time_correction_ex.restype = ctypes.c_double


def _correction(inlet: pylsl.StreamInlet, timeout: float) -> tuple[float, float, float, float]:
    """When it was measured (session clock), the offset to be added to stamps, its sd, and the round trip; seconds.

    liblsl repeats what it has measured last for as long as the source does not answer; the time then is the same as
    before. The error of an offset is at most half the round trip, either way.
    """
    remote, round_trip, error = ctypes.c_double(), ctypes.c_double(), ctypes.c_int()
    offset = float(
        pylsl.lib.lib.lsl_time_correction_ex(
            inlet.obj, ctypes.byref(remote), ctypes.byref(round_trip), ctypes.c_double(timeout), ctypes.byref(error)
        )
    )
    pylsl.util.handle_error(error)
    return remote.value + offset, offset, round_trip.value / math.sqrt(12), round_trip.value


def _first_correction(inlet: pylsl.StreamInlet, found: pylsl.StreamInfo) -> tuple[float, float, float]:
    """When the clock of a source that is opened was measured, the offset and its sd: the quickest of `TRIES`."""
    best = _correction(inlet, OPEN_TIMEOUT)
    for _ in range(TRIES - 1):
        if best[3] <= QUICK:
            break
        with contextlib.suppress(RuntimeError):  # no answer this time
            again = _correction(pylsl.StreamInlet(found, recover=False), 1.5)
            best = min(best, again, key=lambda measured: measured[3])
    return best[:3]


@dataclass(frozen=True, slots=True)
class _Row:
    label: str
    unit: str


_FORMATS = {
    pylsl.cf_string: "string",
    pylsl.cf_float32: "float32",
    pylsl.cf_double64: "double64",
    pylsl.cf_int8: "int8",
    pylsl.cf_int16: "int16",
    pylsl.cf_int32: "int32",
    pylsl.cf_int64: "int64",
}
_VOLTS = {"uV": 1e-6, "mV": 1e-3, "V": 1.0}


def _conditions(rest: str) -> tuple[dict[str, str], bool]:
    conditions: dict[str, str] = {}
    lan = False
    for part in (part.strip() for part in rest.split(",")):
        key, equals, value = part.partition("=")
        if part == "lan":
            lan = True
        elif equals and key in KEYS and value and key not in conditions:
            conditions[key] = value
        elif part:
            raise DeviceError(
                f"lsl:{rest}: {part!r} is not understood. "
                f"Write lsl:type=EEG,name=Muse with conditions of {', '.join(KEYS)}, each once; "
                "lan looks beyond this machine."
            )
    return conditions, lan


def _listen(
    conditions: Mapping[str, str], timeout: float, least: float
) -> tuple[list[pylsl.StreamInfo], list[pylsl.StreamInfo]]:
    """The streams that fit, and the others; returns after ``least`` seconds when one fits, else after ``timeout``."""
    resolver = pylsl.ContinuousResolver(forget_after=max(timeout, 1.0))
    start = time.monotonic()
    while True:
        time.sleep(min(0.05, timeout))
        waited = time.monotonic() - start
        if waited < least:
            continue
        there = resolver.results()
        fitting = [info for info in there if _fits(info, conditions)]
        if fitting or waited >= timeout:
            return fitting, [info for info in there if not _fits(info, conditions)]


def _property(info: pylsl.StreamInfo, key: str) -> str:
    return str(info.hostname() if key == "host" else getattr(info, key)())


def _fits(info: pylsl.StreamInfo, conditions: Mapping[str, str]) -> bool:
    for key, wanted in conditions.items():
        there = _property(info, key)
        if there != wanted and not (key == "type" and there.lower() == wanted.lower()):
            return False
    return True


def _identity(info: pylsl.StreamInfo) -> tuple[object, ...]:
    texts = tuple(_property(info, key) for key in ("name", "type", "source_id", "host"))
    return (*texts, info.channel_count(), info.nominal_srate(), info.channel_format())


def _layout(info: pylsl.StreamInfo) -> tuple[str, str, str]:
    """What a record cannot change on the way: channels, rate and format, in words."""
    rate = f"{info.nominal_srate():g} Hz" if info.nominal_srate() else "no rate"
    return f"{info.channel_count()} channels", rate, _FORMATS.get(info.channel_format(), "an unknown format")


def _otherwise(there: StreamInfo, before: StreamInfo) -> str:
    """The first thing in which two descriptions of the same layout differ."""
    for now, then in zip(there.channels, before.channels, strict=True):
        if now != then:
            return f"channel {now!r} instead of {then!r}"
    return f"unit {there.unit or 'unknown'} instead of {before.unit or 'unknown'}"


def _near(info: pylsl.StreamInfo) -> tuple[str, ...]:
    """What streams share that could be taken for each other."""
    return tuple(_property(info, key) for key in ("name", "type", "source_id"))


def _pin(link: _Link) -> str:
    return f"{link.uid} on host {link.who['host']}"


def _who(full: pylsl.StreamInfo) -> dict[str, str]:
    said = {
        "host": full.hostname(),
        "uid": full.uid(),
        "source_id": full.source_id(),
        "session_id": full.session_id(),
        "created_at": f"{full.created_at():.6f}",
    }
    desc = full.desc()
    for name, others in (("manufacturer", ()), ("model", ()), ("serial", ("serial_number",))):
        for node in (desc, desc.child("acquisition"), desc.child("amplifier"), desc.child("device")):
            for child in (name, *others):
                said.setdefault(name, "")
                said[name] = said[name] or ("" if node.empty() else node.child_value(child))
    return {name: _clean(text) for name, text in said.items() if text}


def _address(info: pylsl.StreamInfo, there: Sequence[pylsl.StreamInfo]) -> str:
    """The shortest address that opens this stream and none of the others there."""
    usable = [key for key in KEYS if _readable(key, _property(info, key))]
    for count in range(2, len(usable) + 1):
        conditions = {key: _property(info, key) for key in usable[:count]}
        if sum(_fits(one, conditions) for one in there) == 1:
            return "lsl:" + ",".join(f"{key}={value}" for key, value in conditions.items())
    return f"lsl:uid={_clean(info.uid())}"


def _readable(key: str, value: str) -> bool:
    """Whether an address can say it."""
    return bool(value) and _clean(value) == value and _conditions_or_none(f"{key}={value}") == {key: value}


def _conditions_or_none(rest: str) -> dict[str, str] | None:
    try:
        return _conditions(rest)[0]
    except DeviceError:
        return None


def _what(info: pylsl.StreamInfo) -> str:
    channels = f"{info.channel_count()} channel{'s' if info.channel_count() > 1 else ''}"
    rate = f"{info.nominal_srate():g} Hz" if info.nominal_srate() else "no rate"
    what = f"{_clean(info.type()) or 'unknown'}, {channels}, {rate}, host {_clean(info.hostname())}"
    return what + (f", source_id {_clean(info.source_id())}" if info.source_id() else "")


def _refusal(info: pylsl.StreamInfo) -> str:
    count, rate = info.channel_count(), info.nominal_srate()
    if not 1 <= count <= MAX_CHANNELS:
        return f"has {count} channels, the limit is {MAX_CHANNELS}"
    if not 0 <= rate <= MAX_RATE:  # false for NaN
        return f"has a rate of {rate:g} Hz, the limit is {MAX_RATE:g}"
    return ""


def _wordy(full: pylsl.StreamInfo) -> str:
    size = len(full.as_xml())
    return f"describes itself in {size / 1e6:.1f} MB, the limit is 1 MB" if size > MAX_DESCRIPTION else ""


def _refusal_in_full(info: pylsl.StreamInfo) -> str:
    """Why a stream would not be opened, by its whole description, too; "" also when it does not send that in time."""
    if refusal := _refusal(info):
        return refusal
    try:
        return _wordy(pylsl.StreamInlet(info, recover=False).info(DESCRIBE_TIMEOUT))
    except RuntimeError:
        return ""


def _clean(text: str, limit: int = MAX_NAME) -> str:
    """Text from outside as one printable line of at most ``limit`` characters."""
    return "".join(letter if letter.isprintable() else " " for letter in text[:limit]).strip()


def _label(info: pylsl.StreamInfo) -> str:
    return f"{_clean(info.name())!r}"


def _list(infos: Sequence[pylsl.StreamInfo], uid: bool = False) -> str:
    lines = []
    for info in sorted(infos, key=lambda info: (str(info.name()), str(info.type())))[:MAX_LISTED]:
        rate = f"{info.nominal_srate():g} Hz" if info.nominal_srate() else "no rate"
        ending = f" uid={_clean(info.uid())}" if uid else ""
        lines.append(
            f"{_label(info)} (type={_clean(info.type())}, {info.channel_count()} ch, {rate}, "
            f"host={_clean(info.hostname())}, source_id={_clean(info.source_id())}{ending})"
        )
    more = len(infos) - len(lines)
    return "; ".join(lines) + (f"; and {more} more" if more > 0 else "")


def _channels(full: pylsl.StreamInfo) -> tuple[_Row, ...]:
    """Label and unit of every channel; what the description lacks is numbered and without unit."""
    rows: list[_Row] = []
    taken: Counter[str] = Counter()
    node = full.desc().child("channels").child("channel")
    for index in range(full.channel_count()):
        label = "" if node.empty() else _clean(node.child_value("label"))
        unit = "" if node.empty() else unit_name(_clean(node.child_value("unit"), 16))
        label = label or f"{index + 1}"
        taken[label] += 1
        rows.append(_Row(label if taken[label] == 1 else f"{label}#{taken[label]}", unit))
        if not node.empty():
            node = node.next_sibling("channel")
    return tuple(rows)


def _describe(info: pylsl.StreamInfo, rows: Sequence[_Row]) -> StreamInfo:
    kind = _clean(info.type()).lower() or "unknown"
    name = _clean(info.name())
    plain = "".join(letter if letter.isalnum() or letter in "-_." else "_" for letter in name)[:40]
    known = Counter(row.unit for row in rows if row.unit).most_common(1)
    format_ = _FORMATS.get(info.channel_format(), "float32")
    again = [f"{key}={_property(info, key)}" for key in ("type", "name", "source_id") if _property(info, key)]
    return StreamInfo(
        key=f"{plain}/{kind}",
        kind=kind,
        channels=tuple(row.label for row in rows),
        rate=float(info.nominal_srate()) if format_ != "string" else 0.0,
        unit=known[0][0] if known else "",
        name=name,
        source=_clean("lsl:" + ",".join(part for part in again if "," not in part), 3 * MAX_NAME),
        format=format_,
    )


def _texts(samples: NDArray[Any]) -> tuple[str, ...]:
    """One text per sample: channels joined by a comma."""
    return tuple(
        ", ".join(text[:MAX_TEXT].decode("utf-8", errors="replace") for text in row) for row in samples.tolist()
    )


def _length(text: bytes) -> int:
    """Characters of UTF-8: its bytes but those that go on a character."""
    return int(np.count_nonzero(np.frombuffer(text, np.uint8) & 0xC0 != 0x80))

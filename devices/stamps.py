"""Where a source's stamps lie on the session clock, also when a clock jumps or the stamps are no times at all."""

from __future__ import annotations

import itertools
import math
from collections import deque
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from devices.clock import DeviceClock

AHEAD = 1.0
"""Seconds. A stamp later than its arrival by more than this is wrong: nothing arrives before it happens."""
EARLY = 0.1
"""Seconds. So is one that leaps ahead of its stream and makes the sample so much younger than any before it."""
BACK = 0.25
"""Seconds. A step back by more than this is a jump of the source's clock; by less, packets out of order or jitter."""
LATE = 0.03
"""Seconds. A packet that ends so much before its predecessor came out of order: it is left out and counted. Stamps
overlap by less where a source stamps its chunks when it sends them; they are pushed together and keep their order."""
BEHIND = 60.0
"""Seconds. A stream that begins, or goes on after a hole, with samples older than this stamps by another clock, unless
a measurement made then finds its clock where it was: then somebody was held up, and the samples are a backlog."""
WILD = 8
"""Samples. So few stamps off between good ones are wrong themselves; more, and a clock is suspected."""
HOLD = 2.0
"""Seconds that samples wait at most for their source's clock to be measured anew; that takes 0.6 s."""
PATIENCE = 10.0
"""Seconds that a backlog waits for the same: it is late already, and whoever was held up may take time to answer."""
RETURN = 5.0
"""Seconds for which the measured clock must explain the stamps again before it is believed again."""
SET = 0.1
"""Seconds. An offset that changes by more has not drifted, a clock was set."""
MEMORY = 60.0
"""Seconds of measurements through which the drift is drawn."""
LEVER = 20.0
"""Seconds of measurements that tell a drift; before, one offset stands: see `Offset`."""
DRIFT = 50e-6
"""What is expected of the drift between two clocks, one standard deviation: two ordinary crystals."""
UNIX = 1e9
"""Seconds. No LSL clock has come this far, Unix time has since 2001."""
REPEATED = 256
"""Samples that are remembered, to know them again when they are sent twice."""


@dataclass(frozen=True, slots=True, eq=False)
class Placed:
    """Samples (n, channels) with their times (n,) on the session clock, and how many are missing before the first."""

    times: NDArray[np.float64]
    samples: NDArray[Any]
    lost: int = 0


class Offset:
    """The offset between two clocks from measurements now and then: a line through those of the last minute.

    Each weighs by its round trip, so that one over a busy network, or of a source that was stopped, counts little; one
    that is missed leaves the line as it is. Before the measurements are `LEVER` apart it is the one that is surest by
    now: of the shortest round trip, unless it is so old that the clocks may have drifted apart by more than a newer one
    can be wrong. Two clocks that differ by 50 ppm move 0.25 ms between two measurements 5 s apart.
    """

    def __init__(self) -> None:
        self._seen: deque[tuple[float, float, float]] = deque()
        self._line = (math.nan, math.nan, 0.0)
        self._sure = (math.nan, DRIFT)
        """One standard deviation of the line at its middle, and of its slope."""

    def add(self, time: float, offset: float, uncertainty: float) -> None:
        """One measurement at ``time`` on the session clock. A clock that was set is followed at once."""
        uncertainty = uncertainty if uncertainty >= 0 else 1e-3
        if abs(offset - self.at(time)) > SET + 4 * uncertainty:  # false for the NaN before the first
            self._seen.clear()
        self._seen.append((time, offset, uncertainty))
        while self._seen[0][0] < time - MEMORY:
            self._seen.popleft()
        if time - self._seen[0][0] < LEVER:
            at, one, sd = min(reversed(self._seen), key=lambda seen: math.hypot(seen[2], DRIFT * (time - seen[0])))
            self._line, self._sure = (at, one, 0.0), (sd, DRIFT)
            return
        when, offsets, uncertainties = np.array(self._seen).T
        weight = 1 / (uncertainties + 2e-5) ** 2
        total = float(weight.sum())
        weight /= total
        middle, height = float(weight @ when), float(weight @ offsets)
        spread = float(weight @ (when - middle) ** 2)
        # Of a single good measurement and poor ones no slope can be told: it would lead to the poor ones.
        slope = weight @ ((when - middle) * (offsets - height)) / (spread + 1 / (total * DRIFT**2))
        self._line = middle, height, float(slope)
        # Not less for many: what is longer on one way than on the other is so each time.
        sd = float(weight @ uncertainties)
        self._sure = sd, min(DRIFT, sd / math.sqrt(spread)) if spread else DRIFT

    def at(self, time: float) -> float:
        """The offset, seconds; NaN before the first measurement."""
        middle, height, slope = self._line
        # A source that was not reached for long may have been switched off: its drift is not drawn on for ever.
        newest = self._seen[-1][0] if self._seen else time
        return height + slope * (min(time, newest + MEMORY) - middle)

    def uncertainty(self, time: float) -> float:
        """One standard deviation of the offset at ``time``, seconds; NaN before the first measurement."""
        return math.hypot(self._sure[0], self._sure[1] * (time - self._line[0]))


class Stamps:
    """Places the samples of one outlet in time. Pure: clocks are arguments; used from one thread.

    As long as they make sense, stamps get the measured offset of the source's clock added, which follows by at most a
    quarter of a sample period a chunk. Where they stop making sense (earlier than what was given out, later than now)
    the samples wait, for `HOLD` (a backlog `PATIENCE`) seconds at most, and `asks` says that the clock is to be
    measured at once. When the new offset explains them, the clock had been set, and it is applied to them all. When it
    is as before and they are only old, though of after what came last, they are a backlog and keep their times. Else
    the source stamps by some other clock: its samples are placed by when they arrive, until the stamps make sense
    again. Lone wild stamps, packets that come too late and samples that come twice are left out and counted. What was
    given out is never followed by an earlier time.

    Streams of ``rate`` 0 are events: each goes where its stamp says, in whatever order, or where it arrived.
    """

    def __init__(self, rate: float, time: float, offset: float, uncertainty: float = math.nan) -> None:
        self._rate = rate
        self._step = 0.25 / rate if rate else math.inf
        """Seconds by which what is added to the stamps follows the offset with a chunk."""
        self._offset = Offset()
        self._offset.add(time, offset, uncertainty)
        self._measured_at = time
        self._applied = offset
        self._began = time
        self._newest = -math.inf
        self._age = math.inf
        self._held: list[tuple[NDArray[Any], NDArray[np.float64], float]] = []
        self._since = math.inf
        self._clock: DeviceClock | None = None  # while samples are placed by arrival
        self._counted: int | None = None  # how many so far, when not even the steps between stamps are of use
        self._last = (math.nan, math.nan)  # newest stamp and its arrival, while placed by arrival
        self._restarted = -math.inf
        self._sense = math.inf
        self._doubted = math.inf
        self._said = False
        self._newest_in_time = -math.inf  # of the markers that came in time
        self._before = math.nan  # the offset when the markers that wait began to
        self._agreed = -math.inf  # when a measurement has found the clock where it was
        self._recent: deque[tuple[NDArray[np.float64], NDArray[Any]]] = deque()
        self._owed = 0
        self.unix = False
        """The stamps are seconds since 1970, as muselsl's are by default; they are mapped by this machine's clock."""
        self.asks = False
        """The source's clock is to be measured now; set back by `measure`."""
        self.notices: list[str] = []
        """What has happened, in words, for whoever empties the list."""
        self.late = 0
        self.twice = 0
        self.wild = 0
        """Samples left out so far: out of order, sent twice, with a stamp that nothing explains."""

    @property
    def by_arrival(self) -> bool:
        """Whether the stamps are of no use at present."""
        return self._clock is not None

    @property
    def waiting(self) -> bool:
        """Whether samples wait for the clock to be measured."""
        return bool(self._held)

    def measure(self, time: float, offset: float, uncertainty: float = math.nan) -> None:
        """The source's clock was measured at ``time``: add ``offset`` to its stamps, give or take ``uncertainty``."""
        self._offset.add(time, offset, uncertainty)
        self._measured_at = time
        self.asks = self.asks and time <= self._since  # one of before what is in question answers nothing

    def clock(self, now: float, unix: float) -> tuple[float, float, float]:
        """Of the clock that the stamps are of: its offset by all that was measured, one standard deviation (NaN:
        unknown), and what of the offset is not in the times that are given out from now on; seconds."""
        if self._clock is not None:
            return self._clock.offset, self._clock.uncertainty, 0.0
        offset = self._target(now, unix)
        uncertainty = math.nan if self.unix else self._offset.uncertainty(now)
        change = offset - self._applied
        # Events get all of it, and so does what follows when a clock was set: what was given out stays where it is.
        if not self._rate or abs(change) > SET:
            return offset, uncertainty, 0.0
        return offset, uncertainty, math.copysign(max(abs(change) - self._step, 0.0), change)

    def take(self, samples: NDArray[Any], stamps: NDArray[np.float64], now: float, unix: float) -> Placed:
        """What can be given out: of ``samples`` (n, channels) with finite ``stamps`` (n,), and of what waited.

        ``now`` is the session clock at the arrival, ``unix`` the seconds since 1970 at the same moment. Called with
        nothing it says what has waited long enough.
        """
        if not self._rate:
            return self._take_events(samples, stamps, now, unix)
        if self._held:
            samples, stamps = self._once(samples, stamps)
            if len(stamps):
                self._held.append((samples, stamps, now))
            return self._decide(now, unix)
        if not len(stamps):
            return Placed(stamps, samples)
        if self._clock is not None:
            return self._by_arrival(samples, stamps, now, unix)
        if not self.unix and stamps[0] + self._applied > UNIX > now and math.isinf(self._newest):
            self._take_for_unix(now, unix)
        self._follow(stamps, now, unix)
        if self._clock is not None:
            return self._by_arrival(samples, stamps, now, unix)
        placed = []
        while True:
            first = self._misfit(stamps + self._applied, now)
            placed.append(self._place(samples[:first], stamps[:first], now))
            samples, stamps = samples[first:], stamps[first:]
            misfits = len(stamps)
            if misfits:
                samples, stamps = self._once(samples, stamps)
            if not len(stamps):
                return _joined(*placed)
            if len(stamps) == misfits:
                break  # else what was sent twice was all that did not fit
        self._held = [(samples, stamps, now)]
        self._since = now
        self.asks = True
        return _joined(*placed, self._decide(now, unix))

    # -- the measured clock ------------------------------------------------------------------------------------------

    def _target(self, now: float, unix: float) -> float:
        return now - unix if self.unix else self._offset.at(now)

    def _take_for_unix(self, now: float, unix: float) -> None:
        self.unix = True
        self._applied = now - unix
        self.notices.append("the stamps are Unix time; they are taken to be of this machine's clock and mapped by it")

    def _follow(self, stamps: NDArray[np.float64], now: float, unix: float) -> None:
        change = self._target(now, unix) - self._applied
        if abs(change) <= SET:
            self._applied += min(max(change, -self._step), self._step)
            self._doubted = math.inf
        elif self._makes_sense(stamps + self._applied + change, now):
            self._applied += change
            self._age = math.inf
            self._doubted = math.inf
            self.notices.append(f"the clock of the source was set: its offset has changed by {change:+.3f} s, followed")
        elif self._makes_sense(stamps + self._applied, now):
            self._doubted = min(self._doubted, now)  # what was stamped before the clock was set may still be coming
            if now - self._doubted >= HOLD:
                self._doubted = math.inf
                self.notices.append(
                    f"the clock of the source was set by {-change:+.3f} s, but not its stamps; "
                    "samples are placed by when they arrive"
                )
                self._go_by_arrival(now, [stamps])

    def _makes_sense(self, times: NDArray[np.float64], now: float) -> bool:
        return bool(-AHEAD <= now - times[-1] < BEHIND and times[0] >= self._newest - BACK)

    def _misfit(self, times: NDArray[np.float64], now: float) -> int:
        """The first of ``times`` (n,) that cannot be right; n when all can."""
        step = np.diff(times, prepend=self._newest)
        if times[-1] <= now and step.min() >= -BACK and step.max() <= BEHIND:
            return len(times)  # the usual case
        age = now - times
        wrong = (age < -AHEAD) | (step < -BACK) | ((step > BEHIND) & (age > BEHIND))
        wrong |= (step > 1 / self._rate + EARLY) & (age < self._youngest())
        return int(np.argmax(wrong)) if wrong.any() else len(times)

    def _youngest(self) -> float:
        """So old is a sample at least when it arrives, by the offset as it is; negative."""
        return min(self._age, 0.0) - EARLY if math.isfinite(self._newest) else -AHEAD

    def _place(self, samples: NDArray[Any], stamps: NDArray[np.float64], now: float) -> Placed:
        """Times by the offset: rising, without what came late or twice."""
        if not len(stamps):
            return Placed(stamps, samples)
        times = stamps + self._applied
        age = now - float(times.max())
        self._age = min(age, self._age + 0.02)
        lost = 0
        if times[0] <= self._newest or not np.all(times[1:] > times[:-1]):
            twice = self._repeats(samples, stamps)
            late = self._out_of_order(times) & ~twice
            self.twice += int(twice.sum())
            self.late += (lost := int(late.sum()))
            keep = ~(twice | late)
            times, samples, stamps = times[keep], samples[keep], stamps[keep]
            if not len(times):
                self._owed += lost
                return Placed(times, samples)
        return self._given(times, samples, lost, stamps)

    def _given(
        self, times: NDArray[np.float64], samples: NDArray[Any], lost: int, stamps: NDArray[np.float64]
    ) -> Placed:
        if times[0] <= self._newest or not np.all(times[1:] > times[:-1]):
            least = 0.01 / self._rate
            ramp = least * np.arange(len(times))
            times = np.maximum.accumulate(np.maximum(times, self._newest + least) - ramp) + ramp
        self._newest = float(times[-1])
        self._recent.append((stamps, samples))
        while len(self._recent) > 1 and sum(len(some) for some, _ in self._recent) - len(self._recent[0][0]) > REPEATED:
            self._recent.popleft()
        lost, self._owed = lost + self._owed, 0
        return Placed(times, samples, lost)

    def _once(self, samples: NDArray[Any], stamps: NDArray[np.float64]) -> tuple[NDArray[Any], NDArray[np.float64]]:
        """What does not fit or comes while samples wait, without what is certainly sent twice."""
        if not len(stamps):
            return samples, stamps
        repeats = self._repeats(samples, stamps, in_order=False)
        self.twice += int(repeats.sum())
        return samples[~repeats], stamps[~repeats]

    def _repeats(self, samples: NDArray[Any], stamps: NDArray[np.float64], in_order: bool = True) -> NDArray[np.bool_]:
        """Which samples are those of before again: the same stamp, to the microsecond, and the same values.

        Samples of a flat signal are alike, and where a packet has one stamp for all of them they are alike in both:
        there they are told apart only by a stamp that goes back; not when that may be the clock, which is what it
        means that they are not ``in_order``. What then is a repeat all the same is left out and counted as lost.
        """
        before = [
            (round(stamp, 6), row.tobytes())
            for some, rows in (*self._recent, *((when, some) for some, when, _ in self._held[-REPEATED:]))
            for stamp, row in zip(some[-REPEATED:].tolist(), rows[-REPEATED:], strict=True)
        ]
        ones = [(round(stamp, 6), row.tobytes()) for stamp, row in zip(stamps.tolist(), samples, strict=True)]
        shared = any(one == other for (one, _), (other, _) in itertools.pairwise(before))
        stamps_of: dict[bytes, set[float]] = {}
        for stamp, values in before + ones:
            stamps_of.setdefault(values, set()).add(stamp)
        known, newest = set(before), max((stamp for stamp, _ in before), default=-math.inf)
        repeats = np.zeros(len(stamps), np.bool_)
        for index, one in enumerate(ones):
            stamp, values = one
            telling = not shared and len(stamps_of) > 1 and len(stamps_of[values]) == 1
            goes_back = in_order and (stamp < newest or (index > 0 and repeats[index - 1]))
            repeats[index] = one in known and (goes_back or telling)
            known.add(one)
            newest = max(newest, stamp)
        return repeats

    def _out_of_order(self, times: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Which samples belong to a packet that ends before what came already."""
        late = np.zeros(len(times), np.bool_)
        starts = np.flatnonzero(np.diff(times) < 0) + 1
        newest = self._newest
        for run in np.split(np.arange(len(times)), starts):
            if times[run[-1]] < newest - LATE:
                late[run] = True
            else:
                newest = max(newest, float(times[run[-1]]))
        return late

    # -- what makes no sense -----------------------------------------------------------------------------------------

    def _decide(self, now: float, unix: float) -> Placed:
        """What becomes of the samples that wait."""
        samples = np.concatenate([samples for samples, *_ in self._held])
        stamps = np.concatenate([stamps for _, stamps, _ in self._held])
        arrived = np.concatenate([np.full(len(stamps), arrival) for _, stamps, arrival in self._held])
        placed = [Placed(np.empty(0), samples[:0])]
        if self._backlog(stamps + self._applied, arrived):
            if self._measured_at > self._since and not self._set(now, unix):
                self._let_go()
                self._age = math.inf
                return self._place(samples, stamps, now)
            if self._measured_at <= self._since and now - self._since < PATIENCE:
                return placed[0]
        while True:  # a handful between good ones
            good = self._fits_again(stamps + self._applied, arrived)
            begin = int(np.argmax(good))
            if not good.any() or begin > WILD:
                break
            end = begin + int(np.argmin(good[begin:])) if not good[begin:].all() else len(good)
            self._leave_out(begin)
            placed.append(self._place(samples[begin:end], stamps[begin:end], now))
            samples, stamps, arrived = samples[end:], stamps[end:], arrived[end:]
            if not len(stamps):
                self._let_go()
                return _joined(*placed)
            self._since = now
            self.asks = True
            self._held = [(samples, stamps, now)]
        if self._measured_at <= self._since and now - self._since < HOLD:
            return _joined(*placed)
        held = self._held
        self._let_go()
        if good[-1] and not self._set(now, unix):
            self.notices.append(
                f"{int((~good).sum())} samples have stamps that nothing explains; they are left out and counted"
            )
            self._leave_out(int((~good).sum()))
            return _joined(*placed, self._place(samples[good], stamps[good], now))
        is_unix = self.unix or stamps[-1] > UNIX > now
        offset = now - unix if is_unix else self._target(now, unix)
        jump = offset - self._applied
        fits = self._fits_new(stamps + offset, arrived)
        if abs(jump) > SET and fits[-1]:
            self.notices.append(
                "the stamps of the source are Unix time now; they are mapped by this machine's clock"
                if is_unix and not self.unix
                else f"the clock of the source was set by {-jump:+.3f} s; its offset was measured anew and applied"
            )
            self.unix, self._applied, self._age = is_unix, offset, math.inf
            self._leave_out(int((~fits).sum()))
            return _joined(*placed, self._place(samples[fits], stamps[fits], now))
        off = stamps[-1] + self._applied - arrived[-1]
        self.notices.append(
            f"the stamps of the source are {off:+.3f} s off and its measured clock does not explain it; "
            "samples are placed by when they arrive"
        )
        self._go_by_arrival(held[0][2], [stamps for _, stamps, _ in held])
        return _joined(*placed, *(self._by_arrival(some, when, at, math.nan) for some, when, at in held))

    def _backlog(self, times: NDArray[np.float64], arrived: NDArray[np.float64]) -> bool:
        """Whether all that is wrong with those that wait may be that they were held up for long."""
        step = np.diff(times, prepend=max(self._newest, self._began - AHEAD))
        return bool(arrived[0] - times[0] > BEHIND and step.min() >= -BACK and np.all(times <= arrived + AHEAD))

    def _set(self, now: float, unix: float) -> bool:
        return abs(self._target(now, unix) - self._applied) > SET

    def _fits_again(self, times: NDArray[np.float64], arrived: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Which of the waiting are, by the offset as it was, as young as samples used to be."""
        age = arrived - times
        usual = self._age if math.isfinite(self._age) else AHEAD
        return (times > self._newest - BACK) & (age > self._youngest()) & (age < usual + BACK)

    def _fits_new(self, times: NDArray[np.float64], arrived: NDArray[np.float64]) -> NDArray[np.bool_]:
        age = arrived - times
        return (times > self._newest - BACK) & (age > -AHEAD) & (age < BEHIND)

    def _let_go(self) -> None:
        self._held = []
        self._since = math.inf
        self.asks = False

    def _leave_out(self, count: int) -> None:
        if count:
            self.wild += count
            self._owed += count

    # -- by arrival --------------------------------------------------------------------------------------------------

    def _go_by_arrival(self, now: float, stamps: list[NDArray[np.float64]]) -> None:
        together = np.concatenate(stamps)
        steps = np.diff(together)
        takes = (len(together) - 1) / self._rate
        runs = bool(np.all(steps >= 0) and abs(float(steps.sum()) - takes) < EARLY + 0.5 * takes)
        runs &= len(steps) == 0 or bool(steps.any())  # a stamp that stands still is no time, however short the wait
        self._clock = DeviceClock()
        self._counted = None if runs else 0
        self._last = (math.nan, now)
        self._sense = math.inf

    def _by_arrival(self, samples: NDArray[Any], stamps: NDArray[np.float64], now: float, unix: float) -> Placed:
        assert self._clock is not None
        if stamps[0] <= self._last[0]:  # false for the NaN before the first
            twice = self._repeats(samples, stamps)
            self.twice += int(twice.sum())
            samples, stamps = samples[~twice], stamps[~twice]
            if not len(stamps):
                return Placed(stamps, samples)
        if math.isfinite(unix) and self._sensible_again(stamps, now, unix):
            # What arrives late was given out as later than it is, by as much: time has to be caught up with.
            begin = int(np.searchsorted(stamps + self._target(now, unix), self._newest - BACK))
            self.late += begin
            self._owed += begin
            samples, stamps = samples[begin:], stamps[begin:]
            if not len(stamps):
                return Placed(stamps, samples)
            self._clock = None
            self._applied, self._age = self._target(now, unix), math.inf
            self.notices.append("the stamps of the source make sense again and are used")
            return self._place(samples, stamps, now)
        if self._counted is None:
            steps = np.diff(stamps, prepend=self._last[0])
            passed = now - self._last[1]
            leap = np.isfinite(steps) & ((steps < -EARLY) | (steps > passed + AHEAD))
            if leap.any():
                self._clock = DeviceClock()
                if leap.sum() > 1 or now - self._restarted < RETURN:
                    self._counted = 0
                    self.notices.append("the stamps of the source are in no order; samples are counted instead")
                self._restarted = now
                stamps = stamps.copy()
                at = int(np.flatnonzero(leap)[-1])
                stamps[:at] = stamps[at] - np.arange(at, 0, -1) / self._rate
        self._last = (float(stamps[-1]), now)
        if self._counted is not None:
            device = (self._counted + np.arange(len(stamps))) / self._rate
            self._counted += len(stamps)
        else:
            device = np.maximum.accumulate(stamps)
        self._clock.update(float(device[-1]), now)
        return self._given(self._clock.to_session(device), samples, 0, stamps)

    def _sensible_again(self, stamps: NDArray[np.float64], now: float, unix: float) -> bool:
        times = stamps + self._target(now, unix)
        sensible = np.all((times > now - AHEAD) & (times < now + EARLY)) and np.all(np.diff(times) >= 0)
        self._sense = min(self._sense, now) if sensible else math.inf
        return now - self._sense >= RETURN

    # -- events ------------------------------------------------------------------------------------------------------

    def _take_events(self, samples: NDArray[Any], stamps: NDArray[np.float64], now: float, unix: float) -> Placed:
        if len(stamps):
            if not self.unix and stamps[0] + self._offset.at(now) > UNIX > now:
                self._take_for_unix(now, unix)
            self._held.append((samples, stamps, now))
        if not self._held:
            return Placed(stamps, samples)
        offset = self._target(now, unix)
        if not self.unix and abs(offset - self._applied) > SET:
            self.notices.append(
                f"the clock of the source was set: its offset has changed by {offset - self._applied:+.3f} s, followed"
            )
        self._applied = offset
        samples = np.concatenate([samples for samples, *_ in self._held])
        stamps = np.concatenate([stamps for _, stamps, _ in self._held])
        arrived = np.concatenate([np.full(len(stamps), arrival) for _, stamps, arrival in self._held])
        times = stamps + offset
        old = times < arrived - BEHIND
        wrong = (times > arrived + AHEAD) | old
        wait = HOLD
        if not self._said and old.any():
            # A backlog comes in order: none of it is of before what came in time, or before its source was opened.
            backlog = old & (times > max(self._newest_in_time, self._began) - AHEAD)
            if self._measured_at > self._since and abs(offset - self._before) <= SET:
                self._agreed = now
            if now - self._agreed < HOLD:
                wrong &= ~backlog
            elif not (wrong & ~backlog).any():
                wait = PATIENCE
        in_time = ~(wrong | old)
        if not wrong.any():
            self._let_go()
            self._note_in_time(times[in_time])
            self._said = False
            return Placed(times, samples)
        if math.isinf(self._since):
            self._since, self._before = now, offset
            self.asks = not self._said
        if not self._said and self._measured_at <= self._since and now - self._since < wait:
            return Placed(np.empty(0), samples[:0])
        self._let_go()
        self._note_in_time(times[in_time])
        self.wild += int(wrong.sum())
        if not self._said:
            self.notices.append(
                f"a marker's stamp is {float((times - arrived)[wrong][-1]):+.3f} s off and the measured clock does not "
                "explain it; such markers are placed where they arrive"
            )
        self._said = bool(wrong[-1])
        return Placed(np.where(wrong, arrived, times), samples)

    def _note_in_time(self, times: NDArray[np.float64]) -> None:
        if len(times):
            self._newest_in_time = max(self._newest_in_time, float(times.max()))


def _joined(*placed: Placed) -> Placed:
    some = [one for one in placed if len(one.times)]
    if not some:
        return placed[-1]
    return Placed(
        np.concatenate([one.times for one in some]),
        np.concatenate([one.samples for one in some]),
        sum(one.lost for one in some),
    )

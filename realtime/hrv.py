"""Heart rate and its variability from the times of beats: each figure with its window, and why when it has none.

Definitions and units are those of the Task Force of the ESC and NASPE (Circulation 93:1043, 1996) over NN intervals,
that is, intervals between normal beats; SD1 and SD2 those of Brennan, Palaniswami and Kamen (IEEE Trans. Biomed. Eng.
48:1342, 2001). Which beats are not normal is decided from the rhythm as Lipponen and Tarvainen do (J. Med. Eng.
Technol. 43:173, 2019) and from the shape of the QRS complex. Their intervals are left out, not replaced: what is
computed has been measured. Beats of which too few in a row are alike are unclear: they count for nothing, and where
most beats of a window are, nothing is said of it.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numba
import numpy as np
from numpy.typing import NDArray

from realtime.beats import Beat

ALPHA = 5.2
"""Quartile deviations that make a threshold; with the next two, the constants of Lipponen and Tarvainen."""
NEAR = 91
"""Beats whose differences make a threshold."""
SLOPE, OFFSET = 0.13, 0.17
MEDIAN = 11
"""Beats whose median is the usual interval."""
LEAST = 0.02
"""Seconds: a threshold is not lower, so that a heart as regular as a clock is not found to be irregular."""
ALIKE = 0.7
"""A beat whose QRS agrees less with the average is not a normal one."""
CLEAR, UPPER = 0.75, 0.65
"""Of the MEDIAN beats around a beat that is clear, the quantile UPPER of their agreement is at least CLEAR. At least a
third of a heart's beats are like their average, in bigeminy half of them; of noise, which is taken for beats at its
peaks, few are. That quantile tells the two apart better than the median does."""
MOST = 0.5
"""Of the beats of a window: when more are unclear nothing is said of it, not even the heart rate."""
EARLY, PAUSE = 0.85, 0.75
"""A beat is premature when its interval is shorter than this share of the usual one or the one before, and than this
share of the pause that follows. Frequent extrasystoles widen the thresholds above, which are made of all beats, until
they hide themselves; this rule does not depend on how many there are."""
PLAUSIBLE = 0.25, 3.0
"""Seconds: what an RR interval can be."""
CORRECTED, CORRECTED_SPECTRUM = 0.35, 0.1
"""Of the beats of a window: when more are not normal nothing is said of variability, or of its spectrum."""
COVERED = 0.6
"""Of a window that its intervals must add up to."""
AFTER_R, LONGER, STEADY, ALTERNATE = 0.36, 1.25, 0.02, 0.8
"""Seconds after a beat within which the next may be its T wave, how much longer the intervals beside it then are, how
much its distance scatters (seconds, standard deviation), and of how many pairs of intervals all this must be true. The
extrasystoles of a bigeminy come later: they have to wait until the chambers can answer again, after the T wave."""
LF, HF = (0.04, 0.15), (0.15, 0.40)
"""Hz."""

NORMAL, ECTOPIC, MISSED, EXTRA, UNUSUAL, UNCLEAR = range(6)
"""What an interval is: between normal beats; beside an ectopic beat; over a beat that was missed; beside a beat that is
none; longer or shorter than the rhythm explains; beside a beat that may be none, or whose time is not to be trusted."""


@dataclass(frozen=True, slots=True)
class Measure:
    """One figure over the ``seconds`` before ``time``."""

    value: float
    """NaN when it is not valid."""
    unit: str
    seconds: float
    time: float
    reason: str = ""
    """Why there is no value, in words."""
    corrected: float = 0.0
    """Share of the beats of the window that are not normal and were left out."""
    beats: int = 0
    """Behind an interval of the waves."""


@dataclass(frozen=True, slots=True)
class Kind:
    """How a figure is computed: its unit, the window it has, and the shortest with which it is shown, seconds."""

    unit: str
    seconds: float
    shortest: float


KINDS: Mapping[str, Kind] = {
    "HR": Kind("bpm", 10.0, 5.0),
    "RMSSD": Kind("ms", 60.0, 30.0),
    "pNN50": Kind("%", 60.0, 60.0),
    "SD1": Kind("ms", 60.0, 30.0),
    "SDNN": Kind("ms", 300.0, 60.0),
    "SD2": Kind("ms", 300.0, 60.0),
    "LF": Kind("ms²", 300.0, 120.0),
    "HF": Kind("ms²", 300.0, 120.0),
    "LF/HF": Kind("", 300.0, 120.0),
}


@numba.njit(cache=True)
def _quantile(ordered, share):  # type: ignore[no-untyped-def]
    at = share * (ordered.shape[0] - 1)
    low = int(at)
    high = min(low + 1, ordered.shape[0] - 1)
    return ordered[low] + (at - low) * (ordered[high] - ordered[low])


@numba.njit(cache=True)
def _renew(ordered, n, leaving, coming):  # type: ignore[no-untyped-def]
    # Of the ``n`` sorted values one goes and another comes, NaN for none; how many there are then. In place, because
    # to sort them anew for every beat would cost more than everything else that is said of a heart.
    if leaving == leaving:
        at = np.searchsorted(ordered[:n], leaving)
        for k in range(at, n - 1):
            ordered[k] = ordered[k + 1]
        n -= 1
    if coming == coming:
        at = n
        while at > 0 and ordered[at - 1] > coming:
            ordered[at] = ordered[at - 1]
            at -= 1
        ordered[at] = coming
        n += 1
    return n


@numba.njit(cache=True)
def _running(values, share, out):  # type: ignore[no-untyped-def]
    # Of each value that quantile of the MEDIAN around it, fewer at the ends; NaN does not count.
    n, half = values.shape[0], MEDIAN // 2
    ordered = np.zeros(MEDIAN + 1)
    count = 0
    for i in range(min(half, n)):
        count = _renew(ordered, count, np.nan, values[i])
    for i in range(n):
        coming = values[i + half] if i + half < n else np.nan
        count = _renew(ordered, count, values[i - half - 1] if i > half else np.nan, coming)
        out[i] = _quantile(ordered[:count], share) if count else np.nan


@numba.njit(cache=True)
def _threshold(values, out):  # type: ignore[no-untyped-def]
    n, half = values.shape[0], NEAR // 2
    ordered = np.zeros(NEAR + 1)
    count = 0
    for i in range(min(half, n)):
        count = _renew(ordered, count, np.nan, abs(values[i]))
    for i in range(n):
        coming = abs(values[i + half]) if i + half < n else np.nan
        count = _renew(ordered, count, abs(values[i - half - 1]) if i > half else np.nan, coming)
        spread = _quantile(ordered[:count], 0.75) - _quantile(ordered[:count], 0.25)
        out[i] = max(LEAST, ALPHA * spread / 2)


@numba.njit(cache=True)
def _classify(rr, kinds):  # type: ignore[no-untyped-def]
    n = rr.shape[0]
    change, excess = np.zeros(n), np.zeros(n)
    change_limit, excess_limit = np.zeros(n), np.zeros(n)
    usual = np.zeros(n)
    _running(rr, 0.5, usual)
    for i in range(1, n):
        change[i] = rr[i] - rr[i - 1]
    for i in range(n):
        excess[i] = rr[i] - usual[i]
        if excess[i] < 0:
            excess[i] *= 2
    _threshold(change, change_limit)
    _threshold(excess, excess_limit)
    for i in range(n):
        change[i] /= change_limit[i]
        excess[i] /= excess_limit[i]
    i = 0
    while i < n:
        d = change[i]
        if abs(d) <= 1:
            if abs(excess[i]) > 3:
                kinds[i] = max(kinds[i], UNUSUAL)
            i += 1
            continue
        before = change[i - 1] if i > 0 else 0.0
        after = change[i + 1] if i + 1 < n else 0.0
        following = change[i + 2] if i + 2 < n else 0.0
        if (d > 1 and max(before, after) < -SLOPE * d - OFFSET) or (
            d < -1 and min(before, after) > -SLOPE * d + OFFSET
        ):
            # Both the interval before the odd beat and the one after it are of no use.
            kinds[i] = ECTOPIC
            kinds[max(0, i - 1)] = ECTOPIC
            i += 1
            continue
        long = d > 1 and min(after, following) < -1
        short = d < -1 and max(after, following) > 1
        if short and i + 1 < n and abs(rr[i] + rr[i + 1] - usual[i]) < excess_limit[i]:
            kinds[i] = EXTRA
            kinds[i + 1] = EXTRA
            i += 2
        elif long and abs(rr[i] / 2 - usual[i]) < excess_limit[i]:
            kinds[i] = MISSED
            i += 1
        else:
            if long or short or abs(excess[i]) > 3:
                kinds[i] = UNUSUAL
            i += 1


def classify(intervals: NDArray[np.float64]) -> NDArray[np.int64]:
    """What each of the successive RR ``intervals`` (n,), seconds, is: NORMAL, ECTOPIC, MISSED, EXTRA or UNUSUAL (n,).

    From the rhythm alone, after Lipponen and Tarvainen 2019; thresholds are not below LEAST.
    """
    kinds = np.zeros(len(intervals), np.int64)
    if len(intervals):
        _classify(np.ascontiguousarray(intervals, np.float64), kinds)
    return kinds


def _premature(intervals: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Whether each of the successive RR ``intervals`` (n,) ends with a premature beat (n,)."""
    n = len(intervals)
    if n < 3:
        return np.zeros(n, np.bool_)
    usual = np.zeros(n)
    _running(np.ascontiguousarray(intervals, np.float64), 0.5, usual)
    previous = np.concatenate([usual[:1], intervals[:-1]])
    after = np.concatenate([intervals[1:], [0.0]])
    early: NDArray[np.bool_] = (intervals < EARLY * np.maximum(usual, previous)) & (intervals < PAUSE * after)
    # Two intervals that make one usual interval have a beat between them that is none.
    early &= np.minimum(previous, after) + intervals > 1.3 * usual
    return early


def _unclear(agreement: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Whether each of the successive beats, whose ``agreement`` (n,) with the average is given, is unclear (n,)."""
    around = np.zeros(len(agreement))
    if len(agreement):
        _running(np.ascontiguousarray(agreement), UPPER, around)
    return around < CLEAR


def _alternate(intervals: NDArray[np.float64]) -> bool:
    """Whether every second one of the successive RR ``intervals`` (n,) may be that from an R peak to its T wave."""
    n = len(intervals)
    if n < 6:
        return False
    short = intervals < AFTER_R
    beside = np.full(n, np.inf)
    beside[1:] = intervals[:-1]
    beside[:-1] = np.minimum(beside[:-1], intervals[1:])
    pairs = short & (beside > LONGER * intervals)
    return bool(2 * np.count_nonzero(pairs) >= ALTERNATE * n and np.std(intervals[pairs]) < STEADY)


def rmssd(changes: NDArray[np.float64]) -> float:
    """Root mean square of the ``changes`` (n,) from one NN interval to the next, in their unit."""
    return float(np.sqrt(np.mean(changes**2)))


def without_line(values: NDArray[np.float64], at: NDArray[np.float64] | None = None) -> NDArray[np.float64]:
    """``values`` (n,) without the straight line that fits them best, ``at`` (n,) or one apart."""
    at = np.arange(float(len(values))) if at is None else at
    across, rest = at - at.mean(), values - values.mean()
    return rest - across * (float(np.sum(across * rest)) / float(np.sum(across * across)))  # type: ignore[no-any-return]


@numba.njit(cache=True)
def _periodogram(times, values, step, first, stop):  # type: ignore[no-untyped-def]
    # The sum of Lomb's periodogram over ``step`` Hz times ``first`` up to, not with, ``stop``. Cosine and sine of each
    # frequency are those of the one before, turned on: to compute them anew takes thirty times as long.
    n = times.shape[0]
    cosines, sines = np.cos(2 * np.pi * first * step * times), np.sin(2 * np.pi * first * step * times)
    turn, lift = np.cos(2 * np.pi * step * times), np.sin(2 * np.pi * step * times)
    total = 0.0
    for _ in range(first, stop):
        even, odd, double, cross = 0.0, 0.0, 0.0, 0.0
        for i in range(n):
            c, s = cosines[i], sines[i]
            even += values[i] * c
            odd += values[i] * s
            double += c * c - s * s
            cross += 2 * c * s
            cosines[i] = c * turn[i] - s * lift[i]
            sines[i] = c * lift[i] + s * turn[i]
        # The least squares fit of a cosine and a sine together: it needs no shift in time.
        cc, ss, cs = 0.5 * (n + double), 0.5 * (n - double), 0.5 * cross
        total += 0.5 * (even * even * ss + odd * odd * cc - 2 * even * odd * cs) / (cc * ss - cs * cs)
    return total


def lomb(times: NDArray[np.float64], intervals: NDArray[np.float64], band: tuple[float, float]) -> float:
    """Power within ``band``, Hz, of ``intervals`` (n,) that end at ``times`` (n,), seconds; their unit squared.

    Lomb's periodogram after the straight line is taken out: needs neither even nor complete intervals. Over all
    frequencies its density adds up to the variance.
    """
    since = times - times[0]
    span = float(since[-1])
    rest = without_line(intervals, since)
    step = 1 / (4 * span)
    first, stop = math.ceil(band[0] / step), math.ceil(band[1] / step)
    # A sine of amplitude a gives n a² / 4 at its peak, which is 1 / span wide: a² / 2 in all.
    return float(_periodogram(since, rest, step, first, stop)) * step * 2 * span / len(times)


@dataclass(frozen=True, slots=True)
class _Stretch:
    """The intervals of a window: all that several figures need of it, in ms but for ``total``, seconds."""

    total: float
    count: int
    corrected: float
    doubt: str
    """Why nothing can be said of it, in words."""
    ends: NDArray[np.float64]
    """Of ``nn``."""
    nn: NDArray[np.float64]
    changes: NDArray[np.float64]
    sums: NDArray[np.float64]


_Solved = tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.int64], NDArray[np.int64]]


class Variability:
    """Keeps the beats of the last minutes and says what they amount to. Belongs to one thread.

    What it says of a moment depends only on the beats up to it.
    """

    def __init__(self, seconds: float = 300.0) -> None:
        self.seconds = seconds
        self._beats: list[Beat] = []
        self._distrusted: list[tuple[float, float, str]] = []
        self._solved: _Solved | None = None
        self._spectrum: tuple[float, float, float, float] | None = None
        self._stretches: dict[tuple[float, float], _Stretch] = {}
        classify(np.ones(3))  # whatever is compiled is compiled before the first second
        lomb(np.arange(30.0), np.ones(30), HF)

    def push(self, beats: Iterable[Beat]) -> None:
        """Take beats in the order of their times."""
        for beat in beats:
            self._beats.append(beat)
            # After each beat, so that what is kept depends on the beats and not on how many of them come at once: the
            # thresholds of a beat are made of those around it.
            if self._beats[0].time < beat.time - 2 * self.seconds:
                floor = beat.time - 1.5 * self.seconds
                self._beats = [kept for kept in self._beats if kept.time >= floor]
                self._distrusted = [kept for kept in self._distrusted if kept[1] >= floor]
        self._forget()

    def distrust(self, start: float, stop: float, reason: str) -> None:
        """Beats from ``start`` to ``stop`` do not count: their times are wrong, for the ``reason`` in words."""
        if self._distrusted and self._distrusted[-1][1] >= start >= self._distrusted[-1][0]:
            start = self._distrusted.pop()[0]
        self._distrusted.append((start, stop, reason))
        self._forget()

    def reset(self) -> None:
        """Forget all beats."""
        self._beats, self._distrusted = [], []
        self._forget()

    def _forget(self) -> None:
        """What was computed is of other beats."""
        self._solved = None
        self._spectrum = None
        self._stretches.clear()

    @property
    def beats(self) -> tuple[Beat, ...]:
        """Those kept: at least those of the last ``seconds``."""
        return tuple(self._beats)

    def intervals(self) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.int64]]:
        """Of the beats kept, but for the first of each segment: when the RR interval ends, how long it is (seconds) and
        what it is: (n,) each."""
        ends, lengths, kinds, _ = self._solve()
        return ends, lengths, kinds

    def _solve(self) -> _Solved:
        if self._solved is None:
            times = np.array([beat.time for beat in self._beats])
            starts = np.array([beat.first for beat in self._beats], bool)
            agreement = np.array([beat.agreement for beat in self._beats])
            odd, unclear = agreement < ALIKE, _unclear(agreement)
            for start, stop, _ in self._distrusted:
                unclear |= (times >= start) & (times <= stop)
            whole = np.flatnonzero(~starts[1:]) + 1
            lengths = times[whole] - times[whole - 1]
            odd[whole[_premature(lengths)]] = True
            beside = odd[whole] | odd[whole - 1] | (lengths < PLAUSIBLE[0]) | (lengths > PLAUSIBLE[1])
            kinds = np.full(len(whole), ECTOPIC, np.int64)
            kinds[lengths > PLAUSIBLE[1]] = MISSED
            unclear = unclear[whole] | unclear[whole - 1]
            kinds[unclear] = UNCLEAR
            certain = ~(beside | unclear)
            kinds[certain] = classify(lengths[certain])
            self._solved = times[whole], lengths, kinds, whole
        return self._solved

    def measures(self, time: float, windows: Mapping[str, float] | None = None) -> dict[str, Measure]:
        """All figures at ``time``, by name as in KINDS; ``windows`` overrides the seconds of some."""
        return {name: self.measure(name, time, (windows or {}).get(name)) for name in KINDS}

    def measure(self, name: str, time: float, seconds: float | None = None) -> Measure:
        """One figure over the ``seconds`` before ``time`` (as in KINDS when None), or over what there is of them."""
        kind = KINDS[name]
        wanted = min(self.seconds, kind.seconds if seconds is None else seconds)
        ends, lengths, kinds, _ = self._solve()
        known = float(ends[0] - lengths[0]) if len(ends) else math.inf
        covered = min(wanted, time - known) if known < time else 0.0
        shortest = min(kind.shortest, wanted)

        def invalid(reason: str) -> Measure:
            return Measure(math.nan, kind.unit, covered, time, reason, corrected)

        corrected = 0.0
        if covered < shortest - 1.0:
            return invalid(f"{covered:.0f} s of beats so far, {name} needs {shortest:.0f} s")
        stretch = self._stretch(time, covered)
        if stretch.count < 3 or stretch.total < COVERED * (covered - 2.0):
            return invalid(f"beats were found in {stretch.total:.0f} s of the last {covered:.0f} s only")
        corrected, nn, changes, sums = stretch.corrected, stretch.nn, stretch.changes, stretch.sums
        if stretch.doubt:
            return invalid(stretch.doubt)
        if name == "HR":
            rate = 60 * _beats_per_second(ends, lengths, kinds, time, covered)
            return Measure(rate, kind.unit, covered, time, "", corrected)
        if corrected > (CORRECTED_SPECTRUM if name in ("LF", "HF", "LF/HF") else CORRECTED):
            return invalid(f"{corrected:.0%} of the beats of {covered:.0f} s are unclear or not normal")
        if len(changes) < 10:
            return invalid(f"{len(changes)} pairs of normal intervals in the last {covered:.0f} s, {name} needs 10")
        if name == "RMSSD":
            value = rmssd(changes)
        elif name == "SDNN":
            value = float(np.std(nn, ddof=1))
        elif name == "pNN50":
            value = 100 * np.count_nonzero(np.abs(changes) > 50) / len(nn)
        elif name == "SD1":
            value = float(np.std(changes, ddof=1)) / math.sqrt(2)
        elif name == "SD2":
            value = float(np.std(sums, ddof=1)) / math.sqrt(2)
        else:
            low, high = self._powers(time, wanted, stretch.ends, nn)
            value = {"LF": low, "HF": high}.get(name, low / high if high > 0 else math.nan)
        return Measure(value, kind.unit, covered, time, "", corrected)

    def _stretch(self, time: float, covered: float) -> _Stretch:
        """The ``covered`` seconds before ``time``, which several figures share."""
        if (time, covered) not in self._stretches:
            if len(self._stretches) > 8:
                self._stretches.clear()
            ends, lengths, kinds, numbers = self._solve()
            inside = (ends <= time) & (ends - lengths >= time - covered - 1e-9)
            ends, lengths, kinds, numbers = ends[inside], lengths[inside], kinds[inside], numbers[inside]
            unclear = kinds == UNCLEAR
            doubt = ""
            if np.count_nonzero(unclear) > MOST * len(kinds):
                doubt = self._why(numbers, time - covered, time)
            elif _alternate(lengths):
                doubt = "doubtful: every second beat may be a T wave"
            normal, milliseconds = kinds == NORMAL, 1000 * lengths
            follows = (np.diff(numbers) == 1) & normal[1:] & normal[:-1]
            self._stretches[time, covered] = _Stretch(
                float(lengths.sum()),
                len(ends),
                _share_of_beats(kinds),  # a premature beat spoils two intervals but is one beat
                doubt,
                ends[normal],
                milliseconds[normal],
                np.diff(milliseconds)[follows],
                (milliseconds[1:] + milliseconds[:-1])[follows],
            )
        return self._stretches[time, covered]

    def _why(self, numbers: NDArray[np.int64], start: float, stop: float) -> str:
        """Why most of the beats of that window, at the places ``numbers``, are unclear."""
        for begin, end, reason in reversed(self._distrusted):
            if begin < stop and end > start:
                return reason
        agreement = [value for n in numbers.tolist() if math.isfinite(value := self._beats[n].agreement)]
        middle = max(0.0, statistics.median(agreement or [0.0]))
        return f"beats agree by {middle:.2f} only: noise, or no heart"

    def doubt(self, time: float, seconds: float, most: float = MOST) -> str:
        """Why nothing can be said of the ``seconds`` before ``time``, in words; "" when something can.

        That is so when more than the share ``most`` of its beats are unclear.
        """
        ends, lengths, kinds, _ = self._solve()
        inside = (ends <= time) & (ends - lengths >= time - seconds - 1e-9)
        stretch = self._stretch(time, seconds)
        share = float(np.mean(kinds[inside] == UNCLEAR)) if inside.any() else 0.0
        if not stretch.doubt and share > most:
            return f"{share:.0%} of the beats of the last {seconds:.0f} s are not clear"
        return stretch.doubt

    def _powers(
        self, time: float, seconds: float, ends: NDArray[np.float64], nn: NDArray[np.float64]
    ) -> tuple[float, float]:
        """Power in LF and HF. Three figures ask for the same two, which cost more than all the others."""
        if self._spectrum is None or self._spectrum[:2] != (time, seconds):
            self._spectrum = (time, seconds, lomb(ends, nn, LF), lomb(ends, nn, HF))
        return self._spectrum[2:]


def _beats_per_second(
    ends: NDArray[np.float64], lengths: NDArray[np.float64], kinds: NDArray[np.int64], time: float, seconds: float
) -> float:
    """Over the ``seconds`` before ``time``. An interval that begins earlier counts by what is inside, so that the rate
    does not jump when a long one leaves. One with a missed beat is two. What looks like an extra beat counts: it is
    more often an interpolated extrasystole than no beat at all."""
    inside = np.clip(np.minimum(ends, time) - np.maximum(ends - lengths, time - seconds), 0.0, None)
    inside[ends > time] = 0.0
    beats = np.where(kinds == MISSED, 2.0, 1.0)
    return float(np.sum(beats * inside / lengths) / np.sum(inside))


def _share_of_beats(kinds: NDArray[np.int64]) -> float:
    spoilt = sum(
        np.count_nonzero(kinds == kind) / (2 if kind in (ECTOPIC, EXTRA) else 1)
        for kind in (ECTOPIC, MISSED, EXTRA, UNUSUAL, UNCLEAR)
    )
    return float(spoilt / max(1, len(kinds)))

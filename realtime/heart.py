"""One ECG lead as it comes, and what a physiologist reads from it: beats, rate, variability, breathing, waves."""

from __future__ import annotations

import math
import statistics
from collections import deque
from collections.abc import Collection, Iterable
from dataclasses import replace
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from scipy import interpolate

from realtime.beats import BATCH, Beat, BeatDetector
from realtime.delineation import AFTER, BEFORE, Waves, delineate, qtc
from realtime.filters import BRIDGE
from realtime.hrv import ALIKE, CORRECTED_SPECTRUM, Measure, Variability, without_line
from realtime.quality import AGREEMENT, BEAT, agreement

BREATHING = 0.1, 0.5
"""Hz: 6 to 30 breaths a minute."""
SLOWEST = 0.08
"""Hz from which on a rhythm is looked for: what is slower than BREATHING must not be taken for its slowest."""
BREATHING_SECONDS = 60.0
BREATHING_RATE = 4.0
"""Hz of the series in which breathing is looked for."""
FINE_SPECTRUM = 2048
"""Points to which that series is lengthened with zeros: its spectrum has a value every 0.12 breaths a minute."""
AGREE = 1.5
"""Breaths a minute by which the two estimates may differ."""
LOBE = 0.03
"""Hz to either side of a rhythm where its power lies in BREATHING_SECONDS."""
CLEAREST = 0.36
"""Of the power of BREATHING that is more than chance puts there. Of white RR intervals and R waves that a rhythm seems
to be common to (at 70 beats a minute one window in eight) one in 60 has as much."""
AHEAD = 0.06
"""Seconds before the next peak at which a beat's waves must have ended."""
INTERVALS = ("PR", "QRS", "QT", "QTc")
RECENT, RECENT_SECONDS = 20, 60.0
"""Beats behind an interval at most, and how old they may be."""
FEWEST = 8
"""Beats that an interval needs, and..."""
SEEN = 0.75
"""...the share of the recent ones in which its waves must be seen."""
SCATTER = 0.02
"""Seconds, standard deviation of an interval from beat to beat (from its quartiles): what is more is noise, or no
interval that one number could tell."""
LONGEST_PR = 0.27
"""Seconds: P waves are looked for 0.28 s before QRS at most, and what begins where the search began is another wave."""
KEPT = 8.0
"""Seconds of signal kept for the waves: beats found by looking back come some seconds late."""

PIECE = 0.02
"""Seconds: a longer piece of signal that is missing counts, up to BRIDGE. Single values are bridged without harm."""
MOST_MISSING = 0.005
"""Of the window of a figure that may be missing in such pieces. The value before stands for them: its end is a step
that is taken for a beat, and a beat under it is not seen."""
COMPARED = 10.0
"""Seconds whose beats are compared with their median beat, as `realtime.quality` does in a window of the model."""
BASELINE, MAINS = 0.3, 0.02
"""Seconds, lengths of the running means between which these beats lie: a baseline goes, and so do 50 and 60 Hz. Short
ones, so that an artefact stays where it is."""


def breathing(beats: Iterable[Beat], time: float) -> Measure:
    """Breaths a minute over the BREATHING_SECONDS before ``time``, from the beats alone.

    Breathing moves the height of the R peak (by the chest) and the RR interval (by the vagus). Only where the strongest
    rhythm of both is the same, within AGREE, is it given: either alone often follows something else. It must stand out,
    or chance would do, and not lie at an edge, beyond which the truth may be. Beats show nothing faster than half their
    rate: quicker breathing looks as if it were slower, by as much as it is beyond that.
    """
    unit, seconds = "/min", BREATHING_SECONDS
    start = time - seconds
    kept = [beat for beat in beats if start <= beat.time <= time]
    if len(kept) < 20 or kept[0].time > start + 3 or kept[-1].time < time - 3:
        return Measure(math.nan, unit, seconds, time, f"breathing needs {seconds:.0f} s of beats")
    if any(beat.first for beat in kept[1:]):
        return Measure(math.nan, unit, seconds, time, f"there is a gap in the last {seconds:.0f} s")
    moments = np.array([beat.time for beat in kept])
    heights = np.abs([beat.amplitude for beat in kept])
    intervals = np.diff(moments)
    spectra = [_rhythm(moments, heights, start, time), _rhythm(moments[1:], intervals, start, time)]
    frequencies = spectra[0][0]
    frequencies = frequencies[frequencies <= 0.5 / float(intervals.mean())]
    powers = [power[: len(frequencies)] for _, power in spectra]
    tops = [int(np.argmax(power)) for power in powers]
    rates = [60 * float(frequencies[top]) for top in tops]
    at = int(np.argmax(powers[0] + powers[1]))
    lobe = np.abs(frequencies - frequencies[at]) <= LOBE
    share = float(np.mean([power[lobe].sum() / max(float(power.sum()), 1e-30) for power in powers]))
    chance = float(np.mean(lobe))
    reason, value = "", math.nan
    if abs(rates[0] - rates[1]) > AGREE:
        reason = f"R waves say {rates[0]:.0f} and RR intervals {rates[1]:.0f} breaths a minute"
    elif not all(BREATHING[0] <= frequencies[top] < frequencies[-1] for top in (*tops, at)):
        low, high = 60 * BREATHING[0], 60 * frequencies[-1]
        reason = f"no rhythm of {low:.0f} to {high:.0f} breaths a minute, which is what these beats can show"
    elif share - chance < CLEAREST * (1 - chance):
        reason = f"no rhythm of breathing stands out: {share:.0%} of the power, {chance:.0%} by chance"
    else:
        value = 60 * float(frequencies[at])
    return Measure(value, unit, seconds, time, reason)


def _rhythm(
    moments: NDArray[np.float64], values: NDArray[np.float64], start: float, stop: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Frequencies of breathing (n,), Hz, and the share of each in what ``values`` at ``moments`` do (n,)."""
    low, high = np.percentile(values, [5, 95])
    steady = np.minimum(np.maximum(values, low), high)  # an extrasystole is neither a breath nor a sigh
    grid = start + np.arange(round((stop - start) * BREATHING_RATE)) / BREATHING_RATE
    inner = np.minimum(np.maximum(grid, moments[0]), moments[-1])
    curve = without_line(interpolate.CubicSpline(moments, steady)(inner))
    curve *= np.hanning(len(curve)) / max(float(curve.std()), 1e-12)
    spectrum = np.fft.rfft(curve - curve.mean(), FINE_SPECTRUM)
    frequencies = np.linspace(0.0, BREATHING_RATE / 2, FINE_SPECTRUM // 2 + 1)
    inside = (frequencies >= SLOWEST) & (frequencies <= BREATHING[1])
    power = np.abs(spectrum[inside]) ** 2 * (2 / (BREATHING_RATE * len(curve)))
    return frequencies[inside], power


def intervals(recent: Collection[tuple[Beat, Waves, float]], time: float) -> dict[str, Measure]:
    """PR, QRS, QT and QTc at ``time``, ms: medians over the ``recent`` beats, which come with waves and RR interval.

    Beats whose QRS is unlike the average do not count. QTc is Fridericia's, of the median QT and the median RR interval
    before these beats: Bazett's overcorrects fast and undercorrects slow hearts (Vandenberk et al., J. Am. Heart Assoc.
    5:e003264, 2016), and an effort or a rest changes the rate. One beat's QT follows its own RR interval but slowly.
    """
    near = [one for one in recent if time - RECENT_SECONDS <= one[0].time <= time]
    alike = [one for one in near if not one[0].agreement < ALIKE]
    seconds = time - near[0][0].time if near else 0.0
    unlike = len(near) - len(alike)

    def measure(name: str, wave: str, values: Iterable[float]) -> Measure:
        seen = [value for value in values if math.isfinite(value)]
        reason, value = "", math.nan
        if len(near) < FEWEST:
            reason = f"{len(near)} beats with waves in the last {RECENT_SECONDS:.0f} s, {name} needs {FEWEST}"
        elif len(alike) < max(FEWEST, len(near) / 2):
            reason = f"{unlike} of the last {len(near)} beats are unlike the others, or the lead is too noisy"
        elif len(seen) < max(FEWEST, SEEN * len(alike)):
            reason = f"{wave} is seen in {len(seen)} of the last {len(alike)} beats only"
        else:
            low, value, high = statistics.quantiles(seen, method="inclusive")
            if high - low > 1.349 * SCATTER:
                reason = f"{name} differs by {1000 * (high - low):.0f} ms from beat to beat: noise, or another rhythm"
        share = unlike / len(near) if near else 0.0
        return Measure(math.nan if reason else 1000 * value, "ms", seconds, time, reason, share, len(seen))

    found = {
        "PR": measure("PR", "P", (waves.pr for _, waves, _ in alike if waves.pr < LONGEST_PR)),
        "QRS": measure("QRS", "QRS", (waves.qrs for _, waves, _ in alike)),
        "QT": measure("QT", "T", (waves.qt for _, waves, _ in alike)),
    }
    lengths = [rr for _, waves, rr in alike if math.isfinite(waves.qt) and math.isfinite(rr)]
    qt = found["QT"]
    if not qt.reason and len(lengths) < FEWEST:
        reason = f"{len(lengths)} RR intervals before the last {len(alike)} beats, QTc needs {FEWEST}"
        found["QTc"] = replace(qt, value=math.nan, reason=reason)
    else:
        value = math.nan if qt.reason else 1000 * qtc(qt.value / 1000, statistics.median(lengths))
        found["QTc"] = replace(qt, value=value, reason=qt.reason.replace("QT ", "QTc "))
    return found


class Heart:
    """Follows one lead. Belongs to one thread; the same bits however the samples are cut."""

    def __init__(self, rate: float) -> None:
        self.rate = rate
        self.detector = BeatDetector(rate)
        self.variability = Variability()
        self._times = np.zeros(0)
        self._samples = np.zeros(0)
        self._before: Beat | None = None
        self._last: Beat | None = None
        self._recent: deque[tuple[Beat, Waves, float]] = deque(maxlen=RECENT)
        self._before_peak, self._after_peak = (round(seconds * rate) for seconds in BEAT)
        around, close = round(BASELINE * rate / 2), round(MAINS * rate / 2)
        self._kernel = np.full(2 * around + 1, -1.0 / (2 * around + 1))
        self._kernel[around - close : around + close + 1] += 1.0 / (2 * close + 1)
        self._awaited: deque[Beat] = deque()
        self._compared: deque[tuple[float, NDArray[np.float64]]] = deque()
        self._number = math.nan
        self._seconds: deque[tuple[float, int, int]] = deque(maxlen=math.ceil(self.variability.seconds) + 1)

    def push(
        self, times: NDArray[np.float64], samples: NDArray[np.float64], marks: NDArray[np.uint8] | None = None
    ) -> tuple[list[Beat], list[tuple[Beat, Waves]]]:
        """The beats that ``samples`` (n,), uV, complete, and the waves of each beat that another one has followed.

        ``times`` (n,) are seconds on the session clock, and so are those of the waves. A segment begins where ``marks``
        (n,) say RESTART. The last beat of a segment has no waves.
        """
        if marks is None:
            marks = np.zeros(len(times), np.uint8)
        beats: list[Beat] = []
        waves: list[tuple[Beat, Waves]] = []
        back = (np.flatnonzero(np.diff(times) < 0) + 1).tolist()
        for begin, stop in pairwise([0, *back, len(times)]):
            if begin < stop and len(self._times) and times[begin] < self._times[-1]:
                self._forget()
            for low in range(begin, stop, BATCH):
                part = slice(low, min(stop, low + BATCH))
                self._count(times[part], samples[part])
                self._times = np.concatenate([self._times, times[part]])
                self._samples = np.concatenate([self._samples, samples[part]])
                for beat in self.detector.push(times[part], samples[part], marks[part]):
                    beats.append(beat)
                    self._awaited.append(beat)
                    if self._last is not None and not beat.first:
                        found, before = self._waves(self._last, beat), self._interval(self._last)
                        waves.append((self._last, found))
                        self._recent.append((self._last, found, before))
                    self._before, self._last = self._last, beat
                self._compare()
                keep = int(self._times.searchsorted(self._times[-1] - KEPT))
                self._times, self._samples = self._times[keep:], self._samples[keep:]
        self.variability.push(beats)
        return beats, waves

    def _count(self, times: NDArray[np.float64], samples: NDArray[np.float64]) -> None:
        """Count what is missing each second, whether it came as no number or did not come.

        What is missing for longer than BRIDGE ends a segment, and no beat is made of it.
        """
        stamps = times[np.isfinite(samples)]
        if not len(stamps):
            return
        steps = np.diff(stamps, prepend=self._number)
        self._number = float(stamps[-1])
        absent = np.round(steps * self.rate) - 1
        counted = (absent > PIECE * self.rate) & (steps <= BRIDGE + 1.5 / self.rate)
        absent = np.where(counted, absent, 0.0)
        whole = np.floor(stamps)
        for second in np.unique(whole).tolist():
            inside = whole == second
            there, missing = int(np.count_nonzero(inside)), int(absent[inside].sum())
            if self._seconds and self._seconds[-1][0] == second:
                _, before, lost = self._seconds.pop()
                there, missing = there + before, missing + lost
            self._seconds.append((second, there, missing))

    def lack(self, time: float, seconds: float) -> str:
        """Why nothing can be said of the ``seconds`` before ``time`` when too much is missing, in words; "" else."""
        inside = [one for one in self._seconds if math.floor(time - seconds) <= one[0] < time]
        missing = sum(one[2] for one in inside)
        share = missing / max(1, missing + sum(one[1] for one in inside))
        return f"{100 * share:.2g} % of the ECG is missing" if share > MOST_MISSING else ""

    def _compare(self) -> None:
        """Distrust the beats of the last COMPARED seconds where they are not alike: noise has peaks that are no beats.

        Beats whose surroundings are complete; those that lie beside a gap are left out.
        """
        half = len(self._kernel) // 2
        while self._awaited:
            time = self._awaited[0].time
            peak = self._nearest(time)
            low, high = peak - self._before_peak - half, peak + self._after_peak + half
            if high > len(self._times):
                return
            self._awaited.popleft()
            if low < 0 or self._times[high - 1] - self._times[low] > 1.1 * (high - low) / self.rate:
                continue
            piece = self._samples[low:high]
            known = np.flatnonzero(np.isfinite(piece))
            if 2 * len(known) < len(piece):
                continue
            piece = np.interp(np.arange(len(piece)), known, piece[known])
            self._compared.append((time, np.convolve(piece, self._kernel, "valid")))
            while self._compared[0][0] < time - COMPARED:
                self._compared.popleft()
            length = self._before_peak + self._after_peak
            peaks = self._before_peak + length * np.arange(len(self._compared))
            likeness = agreement(np.concatenate([beat for _, beat in self._compared]), peaks, self.rate)
            if likeness < AGREEMENT[1]:
                reason = f"beats agree with their median by {max(0.0, likeness):.2f} only: noise, or no heart"
                self.variability.distrust(self._compared[0][0], time, reason)

    def _nearest(self, time: float) -> int:
        """The number of the sample kept that is nearest to ``time``."""
        at = int(self._times.searchsorted(time))
        first = max(0, at - 1)
        return first + int(np.abs(self._times[first : at + 1] - time).argmin())

    def _forget(self) -> None:
        """The signal, and what waits for more of it."""
        self._times, self._samples = np.zeros(0), np.zeros(0)
        self._awaited.clear()
        self._compared.clear()
        self._number = math.nan
        self._seconds.clear()

    def _interval(self, beat: Beat) -> float:
        """The RR interval that ends with ``beat``, which follows ``_before``, seconds."""
        return beat.time - self._before.time if self._before is not None and not beat.first else math.nan

    def _waves(self, beat: Beat, following: Beat) -> Waves:
        stop = min(beat.time + AFTER, following.time - AHEAD)
        low, peak, high = self._times.searchsorted([beat.time - BEFORE, beat.time, stop]).tolist()
        part = self._samples[low:high]
        if high - peak < 3 or peak - low < 3 or not np.all(np.isfinite(part)):
            return Waves(r_peak=beat.time)
        if peak > low and beat.time - self._times[peak - 1] < self._times[peak] - beat.time:
            peak -= 1
        found = delineate(part, self.rate, peak - low, self._interval(beat), following.time - beat.time)
        shift = float(self._times[low])
        names = ("p_onset", "p_peak", "p_offset", "qrs_onset", "qrs_offset", "t_onset", "t_peak", "t_offset")
        return Waves(r_peak=beat.time, **{name: shift + getattr(found, name) for name in names})

    def measures(self, time: float) -> dict[str, Measure]:
        """All figures at ``time``, by name: those of `realtime.hrv.KINDS`, "breathing" and those of `INTERVALS`."""
        found = self.variability.measures(time) | {"breathing": self.breathing(time)} | self.intervals(time)
        broken = self._breaks()
        lacks = {seconds: self.lack(time, seconds) for seconds in {one.seconds for one in found.values()}}
        for name, one in found.items():
            if lack := lacks[one.seconds]:
                found[name] = replace(one, value=math.nan, reason=f"{one.reason} ({lack})" if one.reason else lack)
            elif broken and one.reason:
                found[name] = replace(one, reason=f"{one.reason} ({broken})")
        return found

    def _breaks(self) -> str:
        """How often the newest signal was interrupted for longer than is bridged, in words; "" when it was not.

        Every segment has to be learnt anew: where they are short no beat is found, which is not the heart's doing.
        """
        there = self._times[np.isfinite(self._samples)]
        breaks = int(np.count_nonzero(np.diff(there) > BRIDGE + 1.5 / self.rate))
        if not breaks:
            return ""
        seconds = self._times[-1] - self._times[0]
        return f"the ECG was interrupted {breaks} time{'s' if breaks > 1 else ''} in {seconds:.0f} s"

    def breathing(self, time: float) -> Measure:
        """Breaths a minute at ``time``, of beats that are clear."""
        found = breathing(self.variability.beats, time)
        doubt = self.variability.doubt(time, BREATHING_SECONDS, CORRECTED_SPECTRUM)
        return replace(found, value=math.nan, reason=doubt) if doubt and not found.reason else found

    def intervals(self, time: float) -> dict[str, Measure]:
        """Those of `INTERVALS` at ``time``, of beats that are clear."""
        found = intervals(self._recent, time)
        doubt = self.variability.doubt(time, found["QRS"].seconds)
        if not doubt:
            return found
        return {name: one if one.reason else replace(one, value=math.nan, reason=doubt) for name, one in found.items()}

    def reset(self) -> None:
        """As new."""
        self.detector.reset()
        self.variability.reset()
        self._forget()
        self._before = self._last = None
        self._recent.clear()

"""One ECG lead as it comes, and what a physiologist reads from it: beats, rate, variability, breathing, waves."""

from __future__ import annotations

import math
import statistics
from collections import deque
from collections.abc import Collection, Iterable
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from scipy import interpolate

from realtime.beats import BATCH, Beat, BeatDetector
from realtime.delineation import AFTER, BEFORE, Waves, delineate, qtc
from realtime.filters import RESTART
from realtime.hrv import ALIKE, CORRECTED_SPECTRUM, Measure, Variability, without_line

BREATHING = 0.1, 0.5
"""Hz: 6 to 30 breaths a minute."""
BREATHING_SECONDS = 60.0
BREATHING_RATE = 4.0
"""Hz of the series in which breathing is looked for."""
FINE_SPECTRUM = 2048
"""Points to which that series is lengthened with zeros: its spectrum has a value every 0.12 breaths a minute."""
AGREE = 1.5
"""Breaths a minute by which the two estimates may differ."""
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


def breathing(beats: Iterable[Beat], time: float) -> Measure:
    """Breaths a minute over the BREATHING_SECONDS before ``time``, from the beats alone.

    Breathing moves the height of the R peak (by the chest) and the RR interval (by the vagus). Only where the strongest
    rhythm of both is the same, within AGREE, is it given: either alone often follows something else.
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
    rates = [60 * float(frequencies[np.argmax(power)]) for frequencies, power in spectra]
    if abs(rates[0] - rates[1]) > AGREE:
        reason = f"R waves say {rates[0]:.0f} and RR intervals {rates[1]:.0f} breaths a minute"
        return Measure(math.nan, unit, seconds, time, reason)
    frequencies, _ = spectra[0]
    return Measure(60 * float(frequencies[np.argmax(spectra[0][1] + spectra[1][1])]), unit, seconds, time)


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
    inside = (frequencies >= BREATHING[0]) & (frequencies <= BREATHING[1])
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
        for low in range(0, len(times), BATCH):
            part = slice(low, low + BATCH)
            self._times = np.concatenate([self._times, times[part]])
            self._samples = np.concatenate([self._samples, samples[part]])
            for beat in self.detector.push(times[part], samples[part], marks[part]):
                beats.append(beat)
                if self._last is not None and not beat.first:
                    found, before = self._waves(self._last, beat), self._interval(self._last)
                    waves.append((self._last, found))
                    self._recent.append((self._last, found, before))
                self._before, self._last = self._last, beat
            keep = int(self._times.searchsorted(self._times[-1] - KEPT)) if len(self._times) else 0
            if np.any(marks[part] == RESTART) and np.any(np.diff(self._times) < 0):
                keep = int(np.flatnonzero(np.diff(self._times) < 0)[-1]) + 1
            self._times, self._samples = self._times[keep:], self._samples[keep:]
        self.variability.push(beats)
        return beats, waves

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
        return self.variability.measures(time) | {"breathing": self.breathing(time)} | self.intervals(time)

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
        self._times, self._samples = np.zeros(0), np.zeros(0)
        self._before = self._last = None
        self._recent.clear()

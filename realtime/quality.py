"""How good a channel was over a window: good, doubtful or bad, and the reason in words.

Several criteria look at the window as the model gets it and at the raw signal before the model's filters; the score is
that of the worst one. A channel below `models.api.BAD_SCORE` is bad and does not reach the model, which is given an
interpolation (`models.interpolation`). Above it a reason makes it doubtful: it counts, and what is wrong is said.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numba
import numpy as np
from numpy.typing import NDArray
from scipy import signal

from models.api import BAD_SCORE, InputSpec, Verdict
from models.electrodes import normalised
from realtime.filters import MISSING, SETTLING, STUCK
from realtime.sources import microvolts
from realtime.unfiltered import (
    CLIPPED,
    FIFTY,
    HIGHER,
    LEVEL,
    MAINS,
    PASSED,
    PASSED_FIFTY,
    REPEATED,
    SLOWER,
    TOTAL,
)

FLAT = 0.5
"""uV, standard deviation after filtering: below it there is an open input, not a body."""
TAILS = 0.01
"""Share of a window at either end that its amplitude leaves out: one spike is no bad channel. A QRS complex in every
second is more than this."""
LARGE = {"eeg": (200.0, 500.0), "ecg": (6000.0, 12000.0)}
"""uV, peak to peak: doubtful from the first on, of no use from the second on."""
LARGEST_SAID = 1e6
"""uV; beyond it no figure is said."""
SMALL = {"ecg": (200.0, 100.0)}
"""uV, peak to peak: doubtful below the first, of no use below the second; a lead that lost the skin picks up this
little."""

# In what follows: doubtful from the first figure on, bad from the second.
MAINS_PASSED = (0.2, 0.5)
"""Share of the power that is mains after the model's filters: from a half on the model sees mains, not a body."""
MAINS_RAW = 0.2
"""Share of the power before them from which mains is said, and the channel doubtful, though the filters take it away:
as large as what is doubtful after them. It is bad by what is left after them only, since that is what a model sees:
61 % of 50 Hz is about a third after a band that ends at 45 Hz, and nothing after a notch."""
NOISE = (0.5, 0.8)
"""Power density at 30 to 100 Hz over that below 30 Hz, EEG only: white noise has 1, a brain less than 0.3."""
NOISE_SAID = 10.0
"""Times as much; beyond it no figure is said."""
MUSCLE, MUSCLE_RATIO = 2.0, 0.4
"""uV per root Hz at 30 to 100 Hz, and power density over that below 30 Hz: a second above both has muscle in it. EEG at
rest has less than 1, and whatever is only large has less than the second."""
MUSCLE_SHARE = (0.05, 0.6)
"""Of the seconds of a window."""
DRIFT = 2000.0
"""uV between the means of two seconds of a window, before the filters: doubtful, never bad; the filters remove it."""
HELD = (0.4, 0.9)
"""Share of samples that repeat the one before: values sent twice or held have half and more. Coarse steps of a quiet
signal have less."""
SATURATED = "saturated"
RAILED = 0.05
"""Share of a window in runs of equal values; beyond it the runs are said, not that they lie at the limits."""
CLIPPING = (0.08, 0.2)
"""Share of a second's samples at its two extreme values."""
MISSED = (0.05, 0.2)
"""Share of a window that was not measured. The gate of the model that ships refuses a kind of signal from the second on
(its ``min_present`` is 0.8), and a channel is judged as its kind is."""
SAME, SAME_SHARE = 0.1, 0.75
"""Two channels are the same signal when in this share of the seconds less than the first share of the one is left (root
mean square) once the other, times whatever factor, is taken off it: |correlation| above 0.995. The first is tuned on
half of eegmat's people; in the other half no channel is called so."""
COPY = 1e-3
"""With less left than this they are copies: 15 nV of an EEG of 15 uV, which no amplifier is quiet enough for."""
LEAST_ALIKE = 3
"""Seconds without which nobody can say that two channels are the same."""
BLINKS = 3
"""In a window of 10 s: from so many on they are said. People at rest blink 2 or 3 times in 10 s."""
BLINK = 75.0
"""uV, the height of a blink at the eyes after filtering."""
FRONTAL = frozenset(("FP1", "FP2", "FPZ", "AF3", "AF4", "AF7", "AF8", "AFZ"))
SCORE_SAID = 0.75
"""Of what is only said."""

AGREEMENT = (0.85, 0.66)
"""Median correlation of the beats of a window with their median beat. The second is that of Orphanidou et al., IEEE J
Biomed Health Inform 19, 2015, who take the mean; the median lets a window of sinus rhythm have ectopic beats."""
LONGEST_RR = 3.0
"""Seconds without a beat (Orphanidou et al.)."""
RATES = (30.0, 220.0)
"""Beats per minute, of the median RR interval."""
LEAST_RUN = 5.0
"""Seconds in one piece that are needed to look for beats."""
BEAT = (0.2, 0.3)
"""Seconds before and after an R peak that belong to the beat that is compared."""


@numba.njit(cache=True)
def _measure(signals, flags, measured, stuck, sd):  # type: ignore[no-untyped-def]
    for c in range(signals.shape[0]):
        n, runs, total = 0, 0, 0.0
        for i in range(signals.shape[1]):
            if flags[c, i] & (MISSING | SETTLING) == 0:
                n += 1
                total += signals[c, i]
                if flags[c, i] & STUCK:
                    runs += 1
        mean = total / max(1, n)
        squares = 0.0
        for i in range(signals.shape[1]):
            if flags[c, i] & (MISSING | SETTLING) == 0:
                squares += (signals[c, i] - mean) ** 2
        measured[c] = n
        stuck[c] = runs
        sd[c] = np.sqrt(squares / max(1, n))


Finding = tuple[float, str]
"""A score below 1 and its reason."""


def assess(
    spec: InputSpec,
    signals: NDArray[np.float32],
    flags: NDArray[np.uint8],
    absent: NDArray[np.bool_],
    *,
    rate: float,
    raw: NDArray[np.float64] | None = None,
) -> tuple[Verdict, ...]:
    """One verdict a channel of ``signals`` (channels, time) at ``rate`` Hz in ``spec.unit``, with ``flags`` alike.

    Both are filtered and C-contiguous; ``absent`` (channels,) marks what the stream does not have. Samples that are
    missing or settling are left out of all but the missing share. ``raw`` (seconds, channels, columns) is what
    `realtime.unfiltered.Unfiltered` found before the filters.
    """
    channels, length = signals.shape
    unit = microvolts(spec.unit)
    measured, stuck = np.zeros(channels, np.int64), np.zeros(channels, np.int64)
    sd = np.zeros(channels)
    _measure(signals, flags, measured, stuck, sd)
    valid = flags & (MISSING | SETTLING) == 0
    ordered = np.sort(np.where(valid, signals, np.float32(np.inf)), axis=1)
    tail = (TAILS * measured).astype(np.int64)
    rows = np.arange(channels)
    low, high = ordered[rows, tail], ordered[rows, np.maximum(measured - 1 - tail, 0)]
    found: list[list[Finding]] = []
    for c in range(channels):
        missing = 1.0 - int(measured[c]) / max(1, length)
        share = int(stuck[c]) / max(1, int(measured[c]))
        if absent[c]:
            found.append([(0.0, "absent")])
        elif missing > 0.99:
            found.append([(0.0, "missing")])
        elif unit * float(sd[c]) < FLAT or share > 0.95:
            found.append([(0.0, "flat")])
        else:
            span = unit * (float(high[c]) - float(low[c]))
            found.append(_window_findings(spec.kind, missing, share, span))
    alive = np.array([not absent[c] and all(score > 0 for score, _ in found[c]) for c in rows], np.bool_)
    if spec.kind == "eeg":
        for c in np.flatnonzero(alive).tolist():
            if normalised(spec.channels[c]) in FRONTAL:
                found[c] += _blinks(unit * signals[c].astype(np.float64), valid[c], rate)
    elif spec.kind == "ecg":
        for c in np.flatnonzero(alive).tolist():
            found[c] += _beats(signals[c].astype(np.float64), valid[c], rate)
    if raw is not None and len(raw):
        for c in np.flatnonzero(alive).tolist():
            found[c] += _raw_findings(spec, raw[:, c], unit)
            if stuck[c] > RAILED * measured[c]:
                found[c] = [finding for finding in found[c] if not finding[1].startswith(SATURATED)]
    if spec.kind == "eeg":
        # Last: of equally bad reasons the first is said, and mains or a railed amplifier make channels alike.
        for c, finding in _same(spec.channels, signals, valid, alive, rate).items():
            found[c].append(finding)
    return tuple(_worst(name, findings) for name, findings in zip(spec.channels, found, strict=True))


def _worst(name: str, findings: Sequence[Finding]) -> Verdict:
    score, reason = min(findings, default=(1.0, ""), key=lambda finding: finding[0])
    return Verdict(name, score, reason)


def _graded(value: float, doubtful: float, bad: float) -> float:
    """1 up to ``doubtful``, BAD_SCORE at ``bad``, 0 as far beyond; either may be the larger one."""
    return min(1.0, max(0.0, 1.0 - (1.0 - BAD_SCORE) * (value - doubtful) / (bad - doubtful)))


def _size(value: float) -> str:
    """``value`` uV in words that fit a screen, whatever came in."""
    return f"{value:.0f} uV" if value < LARGEST_SAID else "above 10^6 uV"


def _window_findings(kind: str, missing: float, stuck: float, span: float) -> list[Finding]:
    """What the window itself shows of a channel that is neither missing nor flat; ``span`` in uV."""
    found: list[Finding] = []
    if missing > MISSED[0]:
        found.append((_graded(missing, *MISSED), f"{100 * missing:.0f} % missing"))
    if stuck > RAILED:
        found.append((max(0.0, 1.0 - 2 * stuck), f"railed {100 * stuck:.0f} % of the time"))
    for doubtful, useless in (limits[kind] for limits in (LARGE, SMALL) if kind in limits):
        score = (useless - span) / (useless - doubtful)
        if score < 1:
            found.append((max(0.0, score), f"amplitude {_size(span)}"))
    return found


def _raw_findings(spec: InputSpec, raw: NDArray[np.float64], unit: float) -> list[Finding]:
    """What one channel (seconds, columns) shows before the filters."""
    found: list[Finding] = []

    def judge(value: float, limits: tuple[float, float], reason: str) -> None:
        score = _graded(value, *limits)
        if score < 1:
            found.append((score, reason))

    levels = raw[np.isfinite(raw[:, LEVEL])]
    if len(levels):
        held, clipped = float(np.median(levels[:, REPEATED])), float(np.mean(levels[:, CLIPPED]))
        if not math.isnan(held):  # of each second no two samples in a row
            judge(held, HELD, f"{100 * held:.0f} % of the samples repeat the one before")
        if held < HELD[0]:
            judge(clipped, CLIPPING, f"{SATURATED}: {100 * clipped:.0f} % of the samples at its limits")
        drift = unit * float(np.ptp(levels[:, LEVEL]))
        if drift > DRIFT and spec.kind == "eeg":
            found.append((SCORE_SAID, f"drift of {_size(drift)}"))
    spectra = raw[np.isfinite(raw[:, TOTAL])]
    total, passed = float(spectra[:, TOTAL].sum()), float(spectra[:, PASSED].sum())
    if not (len(spectra) and total > 0 and passed > 0):
        return found
    for at, frequency in enumerate(MAINS):
        before = float(spectra[:, FIFTY + at].sum()) / total
        after = float(spectra[:, PASSED_FIFTY + at].sum()) / passed
        reason = f"{frequency:g} Hz is {100 * before:.0f} % of power"
        judge(after, MAINS_PASSED, reason)
        if before > MAINS_RAW:
            found.append((SCORE_SAID, reason))
    if spec.kind == "eeg":
        slower, higher = spectra[:, SLOWER], spectra[:, HIGHER]
        ratio = float(np.median(higher / np.maximum(slower, 1e-30)))
        times = f"{100 * ratio:.0f} %" if ratio < NOISE_SAID else f"more than {NOISE_SAID:.0f} times"
        judge(ratio, NOISE, f"noise: {times} as much above 30 Hz as below")
        seconds = int(np.count_nonzero((unit**2 * higher > MUSCLE**2) & (higher > MUSCLE_RATIO * slower)))
        judge(seconds / len(spectra), MUSCLE_SHARE, f"muscle in {seconds} of {len(spectra)} s")
    return found


def _same(
    names: Sequence[str],
    signals: NDArray[np.float32],
    valid: NDArray[np.bool_],
    alive: NDArray[np.bool_],
    rate: float,
) -> dict[int, Finding]:
    """Channels that show what others show, be it larger, smaller or upside down.

    Copies are bad: bridged electrodes (Alschuler et al., Clin Neurophysiol 125, 2014) still differ by the noise of two
    amplifiers and are doubtful, unless most of the headset is alike, as it is on a desk.
    """
    rows = np.flatnonzero(alive)
    if len(rows) < 2:
        return {}
    # Every fourth point is enough to tell whether two channels are one. Second by second: a spike that all channels
    # have is in one of them only.
    step, length = 4, max(1, round(rate))
    alike, copied, judged = (np.zeros((len(rows), len(rows)), np.int64) for _ in range(3))
    factors = np.zeros((len(rows), len(rows)))
    for begin in range(0, signals.shape[1] - length + 1, length):
        there = valid[rows, begin : begin + length : step]
        x = np.where(there, signals[rows, begin : begin + length : step], np.float32(0)).astype(np.float64)
        x = np.where(there, x - x.mean(axis=1, keepdims=True), 0.0)
        products = np.einsum("ai,bi->ab", x, x)
        power = np.diagonal(products)
        counted = (2 * there.sum(axis=1) > there.shape[1]) & (power > 0)
        both = counted[:, None] & counted[None]
        left = 1.0 - products**2 / np.where(both, power[:, None] * power[None], 1.0)
        judged += both
        alike += both & (left < SAME**2)
        copied += both & (left < COPY**2)
        factors += np.where(both, products / np.where(both, power[None], 1.0), 0.0)
    enough = np.maximum(SAME_SHARE * judged, LEAST_ALIKE)
    same, copies = alike >= enough, copied >= enough
    for pairs in (same, copies):
        np.fill_diagonal(pairs, False)
    found: dict[int, Finding] = {}
    for at, c in enumerate(rows):
        others = np.flatnonzero(same[at])
        exact = np.flatnonzero(copies[at])
        if len(others) >= 3 and 2 * len(others) >= len(rows) - 1:
            found[int(c)] = (0.0, f"the same as {len(others)} other channels")
        elif len(exact):
            factor = float(factors[at, exact[0]] / judged[at, exact[0]])
            times = "" if abs(factor - 1.0) < 0.005 else f" times {factor:.2g}"
            found[int(c)] = (0.0, f"a copy of {names[rows[exact[0]]]}{times}")
        elif len(others):
            found[int(c)] = (SCORE_SAID, f"the same as {names[rows[others[0]]]}: bridged?")
    return found


def _blinks(samples: NDArray[np.float64], valid: NDArray[np.bool_], rate: float) -> list[Finding]:
    """Blinks of one frontal channel (time,) in uV: waves of a tenth of a second and more that stand out."""
    width = max(1, round(0.1 * rate))
    smooth = np.convolve(np.where(valid, samples, 0.0), np.full(width, 1 / width), "same")
    spread = 1.4826 * float(np.median(np.abs(smooth - np.median(smooth))))
    height = max(BLINK, 4 * spread)
    peaks, _ = signal.find_peaks(smooth, height=height, distance=max(1, round(0.3 * rate)))
    dips, _ = signal.find_peaks(-smooth, height=height, distance=max(1, round(0.3 * rate)))
    blinks = max(len(peaks), len(dips))
    if blinks >= BLINKS * max(1.0, len(samples) / rate / 10):
        return [(SCORE_SAID, f"{blinks} blinks")]
    return []


def _beats(samples: NDArray[np.float64], valid: NDArray[np.bool_], rate: float) -> list[Finding]:
    """Whether one lead (time,) has beats that look alike and come as a heart's do."""
    edges = np.flatnonzero(np.diff(np.concatenate(([0], valid.astype(np.int8), [0]))))
    if not len(edges):
        return []
    at = int((edges[1::2] - edges[::2]).argmax())
    run = samples[edges[2 * at] : edges[2 * at + 1]]
    if len(run) < LEAST_RUN * rate:
        return []
    peaks = r_peaks(run, rate)
    seconds = len(run) / rate
    if len(peaks) < 3:
        return [(0.0, f"{len(peaks)} beats in {seconds:.0f} s")]
    found: list[Finding] = []
    intervals = np.diff(peaks) / rate
    pause = float(max(intervals.max(), peaks[0] / rate, (len(run) - peaks[-1]) / rate))
    if pause > LONGEST_RR:
        found.append((0.25, f"no beat for {pause:.1f} s"))
    pulse = 60 / float(np.median(intervals))
    if not RATES[0] <= pulse <= RATES[1]:
        found.append((0.25, f"{pulse:.0f} beats per minute"))
    likeness = agreement(run, peaks, rate)
    score = _graded(likeness, *AGREEMENT)
    if score < 1 and not math.isnan(likeness):
        found.append((score, f"beats agree by {max(0.0, likeness):.2f} only"))
    return found


def r_peaks(samples: NDArray[np.float64], rate: float) -> NDArray[np.int64]:
    """Where the beats of a short stretch (time,) are, as sample numbers; for judging it, not for intervals.

    Slopes of 5 to 20 Hz, squared and smoothed, that reach a third of what most seconds reach; 0.27 s apart at least.
    """
    sos = signal.butter(2, (5.0, min(20.0, 0.4 * rate)), "bandpass", fs=rate, output="sos")
    steep = np.diff(signal.sosfiltfilt(sos, samples), append=0.0) ** 2
    width = max(1, round(0.1 * rate))
    energy = np.convolve(steep, np.full(width, 1 / width), "same")
    step = max(1, round(1.5 * rate))
    tops = [float(energy[i : i + step].max()) for i in range(0, max(1, len(energy) - step + 1), step)]
    peaks, _ = signal.find_peaks(energy, height=0.3 * float(np.median(tops)), distance=max(1, round(0.27 * rate)))
    reach = round(0.08 * rate)
    return np.array([_steepest(samples, int(peak), reach) for peak in peaks], np.int64)


def _steepest(samples: NDArray[np.float64], peak: int, reach: int) -> int:
    """The sample furthest from the middle of its surroundings."""
    low = max(0, peak - reach)
    piece = samples[low : peak + reach + 1]
    return low + int(np.abs(piece - np.median(piece)).argmax())


def agreement(samples: NDArray[np.float64], peaks: NDArray[np.int64], rate: float) -> float:
    """Median correlation of the beats around ``peaks`` with their median beat; NaN for fewer than three whole beats."""
    before, after = round(BEAT[0] * rate), round(BEAT[1] * rate)
    whole = [samples[p - before : p + after] for p in peaks if p >= before and p + after <= len(samples)]
    if len(whole) < 3:
        return math.nan
    beats = np.stack(whole)
    beats = beats - beats.mean(axis=1, keepdims=True)
    template = np.median(beats, axis=0)
    template -= template.mean()
    lengths = np.sqrt((beats**2).sum(axis=1) * (template**2).sum())
    return float(np.median((beats * template).sum(axis=1) / np.maximum(lengths, 1e-30)))

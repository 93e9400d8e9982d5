"""R peaks of one lead, sample by sample: causal, and the same bits however the samples are cut.

The lead goes through a pair of short linear-phase filters that are a quarter of a period apart (a complex Gabor
kernel), so that the envelope of the QRS complex does not depend on its polarity or shape. A maximum of the envelope
is a beat when it exceeds a threshold between the levels of recent beats and of what lies between them; the threshold
sinks with the time since the last beat, and a beat that is overdue is looked for among what had been turned down (Pan
and Tompkins, IEEE Trans. Biomed. Eng. 32:230, 1985, introduced both levels and the search back). In noise a candidate
counts the less, the less its slopes agree with those of the average beat. The peak itself is then found in a signal
that is hardly filtered, and between the samples by a parabola.

Pacemaker stimuli that are as large as QRS complexes and 0.15 s or more away from them are taken for beats.
"""

from __future__ import annotations

from dataclasses import dataclass

import numba
import numpy as np
from numpy.typing import NDArray

from realtime.filters import BRIDGE, RESTART

FREQUENCY = 16.0
"""Hz, centre of the kernel: above T waves and most of the movement, below muscle."""
WIDTH = 0.028
"""Seconds, standard deviation of the kernel; it reaches three of these to either side."""
FINE = 0.005
"""Seconds, standard deviation of the smoothing in which the peak is timed: mains are damped to a third."""
REACH = 0.07
"""Seconds: a beat is the largest value of the envelope this far to either side."""
REFRACTORY = 0.2
"""Seconds after a beat without another one: 300 beats a minute."""
T_WAVE = 0.36
"""Seconds after a beat in which only what is at least T_WAVE_SHARE as large as beats are is one."""
T_WAVE_SHARE = 0.6
EARLY, DUE, OVERDUE = 0.45, 0.2, 0.11
"""Of the way from the level of noise to that of beats where the threshold lies: right after a beat, when the next one
is due, and for what is looked up once a beat is overdue..."""
NOISY = (0.07, 0.15, 0.085)
"""...and what is added to these three in full noise."""
LATE = 1.4
"""RR intervals without a beat after which one is overdue."""
NOISE = (0.07, 0.1)
"""The level of noise as a share of that of beats from which noise counts, and how much more makes it full. In noise a
candidate is worth less the less its shape agrees with the average beat."""
ADAPTATION = 0.09
"""Weight of a candidate that was turned down in the level of noise."""
LEARN = 3.0
"""Seconds of a segment after which the first levels are known; the beats before are then given out late."""
SILENCE = 4.0
"""Seconds without a beat after which the levels are learnt anew."""
HELD = 10.0
"""Seconds: over a shorter gap the levels are kept, a longer one starts from nothing."""
FLOOR = 15.0
"""uV: an envelope below is never a beat. An unworn strap has this much noise."""
PEAK = 0.07
"""Seconds around the maximum of the envelope in which the peak is looked for."""
TEMPLATE = 0.08
"""Seconds to either side of the peak that are compared with the average beat."""
LARGEST = 3.0
"""Times the envelope of recent beats with which one enters the average: a larger one is an artefact, scaled down."""
RATES = 100.0, 2000.0
BATCH = 4096

_BEATS = 8  # recent beats whose median counts
_LISTED = 128
_COLUMNS = 7
# Levels: floats that the kernel keeps.
_S, _N, _UP, _DOWN, _SIGN, _HELD_VALUE, _LAST_TIME, _LAST_STAMP = range(8)
# Counts: integers that the kernel keeps. Positions count the samples since the start of a segment.
_AT, _LAST, _KNOWN, _LISTS, _RR, _AMPLITUDES, _ABSENT = range(7)


@dataclass(frozen=True, slots=True)
class Beat:
    """One QRS complex."""

    time: float
    """Of its largest deflection, seconds on the session clock, between the samples."""
    amplitude: float
    """Of that deflection, uV against the surroundings; negative when it points down."""
    confidence: float
    """0 to 1: one minus what was largest since the last beat without being a beat, as a share of this one."""
    agreement: float
    """With the average QRS complex so far, in shape and size: 1 when equal, 0 when unlike; NaN for the first. An
    ectopic beat has less, noise little."""
    delay: float
    """Seconds from the peak to the sample with which this beat was found."""
    first: bool
    """The first of its segment: no RR interval ends here."""
    late: bool
    """Found by looking back, or while the levels were being learnt."""


def _kernels(rate: float) -> tuple[NDArray[np.float64], int]:
    """Kernels (4, 2 half + 1) and ``half``: the quadrature pair, the one to time peaks in, the one that smooths."""
    half = int(np.ceil(3 * WIDTH * rate))
    t = np.arange(-half, half + 1) / rate
    bell = np.exp(-0.5 * (t / WIDTH) ** 2)
    bell /= bell.sum()
    wave = bell * np.exp(2j * np.pi * FREQUENCY * t)
    wave -= bell * wave.sum()
    narrow = np.exp(-0.5 * (t / FINE) ** 2)
    wide = np.cos(np.pi * t / (2 * (half + 1) / rate)) ** 2
    narrow /= narrow.sum()
    return np.ascontiguousarray([2 * wave.real, 2 * wave.imag, narrow - wide / wide.sum(), narrow]), half


@numba.njit(cache=True)
def _median(values, n):  # type: ignore[no-untyped-def]
    ordered = np.sort(values[:n])
    return ordered[n // 2] if n % 2 else 0.5 * (ordered[n // 2] + ordered[n // 2 - 1])


@numba.njit(cache=True)
def _learn(level, listed, lists, low, high, amplitudes):  # type: ignore[no-untyped-def]
    # The levels from the maxima of three parts of positions low to high, and from what is left.
    parts = np.zeros(3)
    for q in range(lists):
        part = int(3 * (listed[q, 0] - low) / max(1, high - low))
        if 0 <= part <= 2:
            parts[part] = max(parts[part], listed[q, 1])
    level[_S] = _median(parts, 3)
    rest = np.zeros(lists + 1)
    n = 0
    for q in range(lists):
        if low <= listed[q, 0] < high and listed[q, 1] < 0.5 * level[_S]:
            rest[n] = listed[q, 1]
            n += 1
    level[_N] = _median(rest, n) if n > 0 else 0.1 * level[_S]
    amplitudes[:] = level[_S]


@numba.njit(cache=True)
def _extremes(fine, mask, at, around):  # type: ignore[no-untyped-def]
    up, down = at, at
    for k in range(at - around, at + around + 1):
        if fine[k & mask] > fine[up & mask]:
            up = k
        if fine[k & mask] < fine[down & mask]:
            down = k
    return up, down


@numba.njit(cache=True)
def _likeness(at, template, fine, mask):  # type: ignore[no-untyped-def]
    # Mean and power of what is centred at position ``at``, power of the average beat, and the product of both. Without
    # the baseline, which a breath moves by as much as the QRS complex is high.
    reach = template.shape[0] // 2
    mean = 0.0
    for k in range(-reach, reach + 1):
        mean += fine[(at + k) & mask] / template.shape[0]
    power, norm, product = 0.0, 0.0, 0.0
    for k in range(-reach, reach + 1):
        value = fine[(at + k) & mask] - mean
        power += value * value
        norm += template[reach + k] ** 2
        product += value * template[reach + k]
    return mean, power, norm, product


@numba.njit(cache=True)
def _best_match(at, shifts, template, smooth, mask):  # type: ignore[no-untyped-def]
    # The best correlation of the slopes of the average beat with those around position ``at``. Slopes, because noise of
    # movement and breathing has most of its power where the QRS complex has little.
    best = 0.0
    reach = template.shape[0] // 2
    for shift in range(-shifts, shifts + 1):
        power, norm, product = 0.0, 0.0, 0.0
        for k in range(-reach, reach):
            value = smooth[(at + shift + k + 1) & mask] - smooth[(at + shift + k) & mask]
            slope = template[reach + k + 1] - template[reach + k]
            power += value * value
            norm += slope * slope
            product += value * slope
        if power > 0 and norm > 0:
            best = max(best, product / np.sqrt(power * norm))
    return best


@numba.njit(cache=True)
def _noisiness(level):  # type: ignore[no-untyped-def]
    return min(1.0, max(0.0, (level[_N] - NOISE[0] * level[_S]) / max(NOISE[1] * level[_S], 1e-9)))


@numba.njit(cache=True)
def _give(  # type: ignore[no-untyped-def]
    q,
    late,
    given,
    rate,
    level,
    count,
    listed,
    amplitudes,
    rrs,
    template,
    searched,
    times,
    envelope,
    fine,
    smooth,
    mask,
    around,
    out,
):
    # Candidate q of the list is a beat: timed, compared with the average, given out; what was listed before it goes.
    at, size = int(listed[q, 0]), listed[q, 1]
    up, down = _extremes(fine, mask, at, around)
    high, low = fine[up & mask], -fine[down & mask]
    if level[_SIGN] == 0:
        level[_UP], level[_DOWN] = high, low
        level[_SIGN] = 1.0 if high >= low else -1.0
    # A beat with two deflections of nearly the same size must not be timed now at one, now at the other.
    sign = level[_SIGN]
    if (sign > 0 and low > 2 * high) or (sign < 0 and high > 2 * low):
        sign = -sign
    peak = up if sign > 0 else down
    before, there, after = fine[(peak - 1) & mask], fine[peak & mask], fine[(peak + 1) & mask]
    bend = before - 2 * there + after
    shift = 0.0
    if bend != 0 and (there - before) * (there - after) >= 0:
        shift = min(0.5, max(-0.5, 0.5 * (before - after) / bend))
    step = times[(peak + 1) & mask] - times[peak & mask] if shift > 0 else times[peak & mask] - times[(peak - 1) & mask]
    time = times[peak & mask] + shift * step
    first = count[_LAST] < 0
    if first or time > level[_LAST_TIME]:
        reach = template.shape[0] // 2
        mean, power, norm, product = _likeness(peak, template, fine, mask)
        agreement = 2 * product / (power + norm) if norm > 0 else np.nan
        alike = norm == 0 or product > 0.8 * np.sqrt(power * norm)
        # A few odd beats hardly move the average, a lasting change does in some thirty beats.
        weight = 1.0 if norm == 0 else (0.125 if alike else 0.03)
        scale = min(1.0, LARGEST * level[_S] / max(envelope[at & mask], 1e-9))
        middle = smooth[peak & mask]
        for k in range(-reach, reach + 1):
            template[reach + k] += weight * (scale * (fine[(peak + k) & mask] - mean) - template[reach + k])
            searched[reach + k] += weight * (scale * (smooth[(peak + k) & mask] - middle) - searched[reach + k])
        weight = min(weight, 0.125)
        level[_UP] += weight * (scale * high - level[_UP])
        level[_DOWN] += weight * (scale * low - level[_DOWN])
        if (level[_DOWN] > 1.3 * level[_UP]) if level[_SIGN] > 0 else (level[_UP] > 1.3 * level[_DOWN]):
            # The beats have turned over for good: the average is one of others.
            level[_SIGN] = -level[_SIGN]
            template[:] = 0.0
            searched[:] = 0.0
        between = 0.0
        for k in range(q):
            if listed[k, 0] - count[_LAST] > T_WAVE * rate or first:
                between = max(between, listed[k, 1])
        out[given, 0] = time
        out[given, 1] = there
        out[given, 2] = min(1.0, max(0.0, 1 - between / size)) if size > 0 else 0.0
        out[given, 3] = agreement
        out[given, 4] = level[_LAST_STAMP] - time
        out[given, 5] = first
        out[given, 6] = late
        given += 1
        level[_LAST_TIME] = time
    if not first:
        rrs[count[_RR] % _BEATS] = at - count[_LAST]
        count[_RR] += 1
    amplitudes[count[_AMPLITUDES] % _BEATS] = min(size, 2 * level[_S])
    count[_AMPLITUDES] += 1
    level[_S] = _median(amplitudes, _BEATS)
    count[_LAST] = at
    left = 0
    for k in range(q + 1, count[_LISTS]):
        listed[left] = listed[k]
        left += 1
    count[_LISTS] = left
    return given


@numba.njit(cache=True)
def _rhythm(rate, count, rrs):  # type: ignore[no-untyped-def]
    # The median of the recent RR intervals, in samples.
    n = min(count[_RR], _BEATS)
    return _median(rrs, n) if n > 0 else 0.8 * rate


@numba.njit(cache=True)
def _is_beat(at, size, rate, level, count, rrs):  # type: ignore[no-untyped-def]
    since = (at - count[_LAST]) / rate if count[_LAST] >= 0 else 1e9
    if since < REFRACTORY or size < FLOOR:
        return False
    if since < T_WAVE:
        share = T_WAVE_SHARE
    else:
        noise = _noisiness(level)
        early, due = EARLY + noise * NOISY[0], DUE + noise * NOISY[1]
        share = early + (due - early) * min(1.0, max(0.0, 2 * since * rate / _rhythm(rate, count, rrs) - 1))
    return size > level[_N] + share * (level[_S] - level[_N])


@numba.njit(cache=True)
def _detect(  # type: ignore[no-untyped-def]
    stamps,
    samples,
    marks,
    rate,
    kernels,
    reach,
    around,
    bridge,
    level,
    count,
    raw,
    times,
    envelope,
    fine,
    smooth,
    listed,
    amplitudes,
    rrs,
    template,
    searched,
    out,
):
    taps = kernels.shape[1]
    half = taps // 2
    mask = raw.shape[0] - 1
    shifts = round(0.03 * rate)
    # What is looked at lies this far after the newest filtered sample at most: the peak of a beat may be the latest.
    ahead = max(around + template.shape[0] // 2, shifts + template.shape[0] // 2) - reach + 1
    memory = (
        *(rate, level, count, listed, amplitudes, rrs, template, searched),
        *(times, envelope, fine, smooth, mask, around, out),
    )
    given = 0
    for i in range(samples.shape[0]):
        value = samples[i]
        missing = not np.isfinite(value)
        if missing:
            count[_ABSENT] += 1
            value = level[_HELD_VALUE]
        if marks[i] == RESTART or count[_ABSENT] > bridge:
            gap = stamps[i] - level[_LAST_STAMP]
            count[_AT] = 0
            count[_LAST] = -1
            count[_LISTS] = 0
            if not gap < HELD:
                level[_SIGN] = 0.0
                count[_KNOWN] = 0
                count[_RR] = 0
                template[:] = 0.0
                searched[:] = 0.0
            if missing:
                # Wait for a number: the segment begins with it.
                count[_ABSENT] = bridge + 1
                continue
        if not missing:
            count[_ABSENT] = 0
        level[_HELD_VALUE] = value
        level[_LAST_STAMP] = stamps[i]
        newest = count[_AT]
        count[_AT] += 1
        raw[newest & mask] = value
        times[newest & mask] = stamps[i]
        if newest < taps - 1:
            continue
        at = newest - half
        real, imaginary, timed, even = 0.0, 0.0, 0.0, 0.0
        for k in range(taps):
            value = raw[(newest - k) & mask]
            real += kernels[0, k] * value
            imaginary += kernels[1, k] * value
            timed += kernels[2, k] * value
            even += kernels[3, k] * value
        envelope[at & mask] = np.sqrt(real * real + imaginary * imaginary)
        if at == half:
            # What was before the segment is not known: a beat's edge there is taken to have been as it begins, not as
            # the segment before left it.
            for k in range(1, template.shape[0]):
                fine[(at - k) & mask] = timed
                smooth[(at - k) & mask] = even
        # What follows is not known yet; a beat's edge that reaches beyond is taken to stay where it is.
        for k in range(ahead + 1):
            fine[(at + k) & mask] = timed
            smooth[(at + k) & mask] = even
        here = at - reach
        if here - reach < half:
            continue
        known = count[_KNOWN] == 1
        size = envelope[here & mask]
        top = size > envelope[(here - 1) & mask] and size >= envelope[(here + 1) & mask]
        if top:
            for k in range(here - reach, here + reach + 1):
                if envelope[k & mask] > size:
                    top = False
                    break
        if top:
            if count[_LISTS] == _LISTED:
                listed[:-1] = listed[1:]
                count[_LISTS] -= 1
            noise = _noisiness(level) if known else 0.0
            if noise > 0:
                size *= 1 - noise * (1 - _best_match(here, shifts, searched, smooth, mask))
            listed[count[_LISTS], 0] = here
            listed[count[_LISTS], 1] = size
            count[_LISTS] += 1
            if known:
                if _is_beat(here, size, rate, level, count, rrs):
                    q = count[_LISTS] - 1
                    given = _give(q, False, given, *memory)
                else:
                    level[_N] += ADAPTATION * (min(size, level[_S]) - level[_N])
        if not known:
            if here < LEARN * rate:
                continue
            low, high = here - int(LEARN * rate), here
        elif here - count[_LAST] > SILENCE * rate and count[_LAST] + SILENCE * rate < here and (here % int(rate) == 0):
            low, high = here - int(SILENCE * rate), here
        else:
            low, high = -1, -1
        if high >= 0:
            _learn(level, listed, count[_LISTS], low, high, amplitudes)
            count[_KNOWN] = 1
            q = 0
            while q < count[_LISTS]:
                if listed[q, 0] >= low and _is_beat(listed[q, 0], listed[q, 1], rate, level, count, rrs):
                    given = _give(q, True, given, *memory)
                    q = 0
                else:
                    q += 1
        if count[_LAST] >= 0:
            while count[_LISTS] > 0 and here - count[_LAST] > LATE * _rhythm(rate, count, rrs):
                best = -1
                for q in range(count[_LISTS]):
                    if listed[q, 0] - count[_LAST] > 0.3 * rate and (best < 0 or listed[q, 1] > listed[best, 1]):
                        best = q
                if best < 0:
                    break
                size = listed[best, 1]
                share = OVERDUE + _noisiness(level) * NOISY[2]
                if size < FLOOR or size <= level[_N] + share * (level[_S] - level[_N]):
                    break
                given = _give(best, True, given, *memory)
    return given


class BeatDetector:
    """Finds the beats of one lead. Belongs to one thread."""

    def __init__(self, rate: float) -> None:
        if not RATES[0] <= rate <= RATES[1]:
            raise ValueError(f"R peaks are looked for at {RATES[0]:g} to {RATES[1]:g} Hz, not at {rate:g} Hz")
        self.rate = rate
        self._kernels, half = _kernels(rate)
        self._reach = round(REACH * rate)
        self._around = round(PEAK * rate)
        self._bridge = round(BRIDGE * rate)
        room = 1 << int(np.ceil(np.log2((SILENCE + LEARN + 2) * rate)))
        self._raw, self._times, self._envelope, self._fine, self._smooth = np.zeros((5, room))
        self._level = np.zeros(8)
        self._count = np.zeros(7, np.int64)
        self._listed = np.zeros((_LISTED, 2))
        self._amplitudes, self._rrs = np.zeros((2, _BEATS))
        # The average beat: without its baseline for what beats are compared with, and as it is for its slopes, with
        # which a candidate in noise is: there the difference tells less.
        self._template, self._searched = np.zeros((2, 2 * round(TEMPLATE * rate) + 1))
        self._out = np.zeros((BATCH, _COLUMNS))
        self.lookahead = (half + self._reach + 1) / rate
        """Seconds after its peak at which a beat is found, but for the late ones."""
        self.reset()
        self.push(np.zeros(0), np.zeros(0), np.zeros(0, np.uint8))

    def push(
        self, times: NDArray[np.float64], samples: NDArray[np.float64], marks: NDArray[np.uint8] | None = None
    ) -> list[Beat]:
        """The beats that ``samples`` (n,), uV with stamps ``times`` (n,), complete; in the order of their times.

        A segment begins where ``marks`` (n,) says RESTART. A sample that is no number is taken for the one before it;
        after BRIDGE seconds of them the next number begins a segment. What lies less than ``lookahead`` before the end
        of a segment is not found.
        """
        if marks is None:
            marks = np.zeros(len(times), np.uint8)
        if not len(times) == len(samples) == len(marks):
            raise ValueError(f"{len(times)} stamps came with {len(samples)} samples and {len(marks)} marks")
        beats: list[Beat] = []
        for low in range(0, max(1, len(times)), BATCH):
            part = slice(low, low + BATCH)
            given = _detect(
                np.ascontiguousarray(times[part], np.float64),
                np.ascontiguousarray(samples[part], np.float64),
                np.ascontiguousarray(marks[part], np.uint8),
                self.rate,
                self._kernels,
                self._reach,
                self._around,
                self._bridge,
                self._level,
                self._count,
                self._raw,
                self._times,
                self._envelope,
                self._fine,
                self._smooth,
                self._listed,
                self._amplitudes,
                self._rrs,
                self._template,
                self._searched,
                self._out,
            )
            beats += [
                Beat(time, amplitude, confidence, agreement, delay, bool(first), bool(late))
                for time, amplitude, confidence, agreement, delay, first, late in self._out[:given].tolist()
            ]
        return beats

    def finish(self) -> list[Beat]:
        """Nothing follows: the beats of the last ``lookahead`` and, after less than LEARN seconds, those of the start.

        As if the last value went on for LEARN seconds; as new afterwards.
        """
        last = self._level[_LAST_STAMP]
        more = round((LEARN + 1) * self.rate)
        beats = (
            self.push(last + np.arange(1, more + 1) / self.rate, np.full(more, self._level[_HELD_VALUE]))
            if np.isfinite(last)
            else []
        )
        self.reset()
        return [beat for beat in beats if beat.time <= last]

    def reset(self) -> None:
        """As new."""
        for memory in (self._raw, self._times, self._envelope, self._fine, self._smooth):
            memory[:] = 0.0
        for memory in (self._listed, self._amplitudes, self._rrs, self._template, self._searched):
            memory[:] = 0.0
        self._level[:] = 0.0
        self._level[_LAST_TIME] = self._level[_LAST_STAMP] = -np.inf
        self._count[:] = 0
        self._count[_LAST] = -1

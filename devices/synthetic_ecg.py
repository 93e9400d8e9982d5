"""The heart of the made-up person: ECGSYN, driven by arousal. Pure.

McSharry, Clifford, Tarassenko, Smith, "A dynamical model for generating synthetic electrocardiogram signals", IEEE
Transactions on Biomedical Engineering 50:289-294, 2003: a point turns about a circle once a beat, and at the angles of
P, Q, R, S and T it is pushed up or down. On the circle, which attracts it, x and y are cosine and sine of the angle, so
that only z has to be integrated. With arousal the heart beats faster, RMSSD falls and LF/HF rises.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from scipy.signal import lfilter

from devices.api import StreamInfo
from devices.synthetic_blocks import Blocks
from devices.synthetic_options import Options

# Table I of the paper, for 60 beats a minute: P, Q, R, S, T.
ANGLES = np.array([-np.pi / 3, -np.pi / 12, 0.0, np.pi / 12, np.pi / 2])
PUSHES = np.array([1.2, -5.0, 30.0, -7.5, 0.75])
WIDTHS = np.array([0.25, 0.1, 0.1, 0.1, 0.4])
# They move with the square root of the heart rate as ECGSYN has it: P and T with the root of that, Q and S with it.
ANGLES_FOLLOW = np.array([0.5, 1.0, 0.0, 1.0, 0.5])
MAYER, BREATH = 0.1, 0.25
"""Hz: the centres of the LF and the HF peak of the RR spectrum."""
SPREAD = 0.01
"""Hz: standard deviation of either peak."""
ROUND = 300
"""Seconds after which the variation of the RR intervals repeats itself: five minutes, the length of a short recording
by Task Force 1996, hold just the RMSSD and LF/HF that were asked for, up to what sampling at the beats does to them."""

FASTER = 0.25
"""Share by which the heart is faster at arousal 1."""
LESS_RMSSD = 0.6
MORE_LF_HF = 3.0

R_PEAK = 1000.0
"""uV above what comes before and after it."""
WANDER = 150.0
"""uV: with every breath the baseline is pulled up and down so far."""
NOISE = 8.0
"""uV, standard deviation."""
LEAST_STEPS = 520
"""A second, of the integration."""
SETTLING = 8
"""Seconds computed before sample 0, so that the baseline has settled."""


class Ecg:
    """One chest lead. The first R peak is half a beat after sample 0."""

    def __init__(self, options: Options) -> None:
        self.stream = StreamInfo(
            key="synthetic/ecg",
            kind="ecg",
            channels=("ECG",),
            rate=float(options.ecg_rate),
            unit="uV",
            name="synthetic ECG",
            source="synthetic:ecg",
        )
        blocks = Blocks(options.ecg_rate, lambda: _seconds(options))
        self.samples = blocks.samples
        """Samples ``first`` to ``last`` (n, 1) in uV."""


def r_peaks(options: Options) -> Iterator[float]:
    """The times of the R peaks, seconds from sample 0, without end."""
    heart = _Tachogram(options)
    peak = heart.interval(0.0) / 2
    while True:
        yield peak
        peak += heart.interval(peak)


class _Tachogram:
    """RR intervals whose power lies in two Gaussian peaks, as cosines of random phase, scaled by arousal."""

    def __init__(self, options: Options) -> None:
        self._options = options
        rng = np.random.default_rng([options.seed, 3])
        reach = round(3 * SPREAD * ROUND)
        away = np.arange(-reach, reach + 1) / ROUND
        self._frequencies = np.stack([MAYER + away, BREATH + away])
        weights = np.exp(-0.5 * (away / SPREAD) ** 2)
        self._weights = weights / weights.sum()
        self._phases = rng.uniform(0.0, 2 * np.pi, self._frequencies.shape)

    def interval(self, time: float) -> float:
        """Seconds from an R peak at ``time`` to the next."""
        asked = self._options
        arousal = float(asked.script.at(np.array([time]))[0])
        mean = 60.0 / (asked.bpm * (1.0 + FASTER * arousal))
        rmssd = asked.rmssd / 1000.0 * (1.0 - LESS_RMSSD * arousal)
        ratio = asked.lf_hf * (1.0 + MORE_LF_HF * arousal)
        # The mean square of a difference of neighbours is twice what the autocovariance falls by within one beat.
        fall = 1.0 - np.cos(2 * np.pi * self._frequencies * mean) @ self._weights
        hf = rmssd**2 / (2.0 * (ratio * fall[0] + fall[1]))
        power = np.array([ratio * hf, hf])
        waves = np.cos(2 * np.pi * self._frequencies * time + self._phases) @ np.sqrt(2.0 * self._weights)
        # Beats lie denser where they are short, which lowers their mean by their variance over the mean.
        interval = mean + power.sum() / mean + float(np.sqrt(power) @ waves)
        return float(np.clip(interval, 0.4 * mean, 2.0 * mean))


def _seconds(options: Options) -> Iterator[NDArray[np.float32]]:
    rng = np.random.default_rng([options.seed, 2])
    breath = rng.uniform(0.0, 2 * np.pi)
    fine = -(-LEAST_STEPS // options.ecg_rate)  # steps a sample
    steps = fine * options.ecg_rate
    step = 1.0 / steps
    fade = np.exp(-step)
    loudness = 0.0 if "ECG" in options.flat else 1.0
    coming = r_peaks(options)
    one, two = next(coming), next(coming)
    # Before the first beat the heart has always beaten like that.
    peaks = [one - k * (two - one) for k in range(int(np.ceil((SETTLING + 3) / (two - one))), 0, -1)] + [one, two]
    z = 0.0
    for second in itertools.count(-SETTLING):
        while peaks[-1] <= second + 1:
            peaks.append(next(coming))
        while peaks[1] < second:
            del peaks[0]
        times = second + np.arange(2 * steps + 1) / (2 * steps)
        push = _push(times, np.array(peaks)) + WANDER * np.sin(2 * np.pi * BREATH * times + breath)
        # dz/dt = push - z, exactly but for the integral over a step, which is Simpson's.
        gain = step / 6.0 * (fade * push[:-1:2] + 4.0 * np.sqrt(fade) * push[1::2] + push[2::2])
        course = np.concatenate([[z], lfilter([1.0], [1.0, -fade], gain, zi=[fade * z])[0]])
        z = float(course[-1])
        if second >= 0:
            noisy = course[:-1:fine] + rng.normal(0.0, NOISE, options.ecg_rate)
            yield (loudness * noisy).astype(np.float32)[:, None]


def _push(times: NDArray[np.float64], peaks: NDArray[np.float64]) -> NDArray[np.float64]:
    """What drives z at these times (n,), uV a second, with these R peaks (m,) around them."""
    beat = np.clip(np.searchsorted(peaks, times, side="right") - 1, 0, len(peaks) - 2)
    interval = np.diff(peaks)[beat]
    angle = 2 * np.pi * (times - peaks[beat]) / interval
    faster = np.sqrt(1.0 / interval)  # the square root of beats a minute over 60
    total = np.zeros(len(times))
    for centre, push, width, follow in zip(ANGLES, PUSHES, WIDTHS, ANGLES_FOLLOW, strict=True):
        away = np.mod(angle - centre * faster**follow + np.pi, 2 * np.pi) - np.pi
        total -= push * away * np.exp(-0.5 * (away / (width * faster)) ** 2)
    scale: float = R_PEAK * 2 * np.pi / (PUSHES[2] * WIDTHS[2] ** 2)
    return scale * total

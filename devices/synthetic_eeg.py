"""The brain of the made-up person, and what disturbs its EEG. Pure.

Background with a power falling as 1/f, alpha that open eyes and arousal block, beta that arousal raises; blinks while
the eyes are open, muscle bursts that come more often with arousal, and the mains. Filtered noise, never repeating.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from scipy.signal import butter, sosfilt

from devices.api import StreamInfo
from devices.synthetic_blocks import Blocks
from devices.synthetic_options import Options

# Where an electrode is on the unit sphere (to the right, to the front), and its share of alpha, beta, blinks, muscle.
ELECTRODES = {
    "Fp1": (-0.31, 0.95, 0.15, 0.6, 1.0, 0.5),
    "Fp2": (0.31, 0.95, 0.15, 0.6, 1.0, 0.5),
    "F3": (-0.55, 0.67, 0.2, 0.8, 0.4, 0.3),
    "F4": (0.55, 0.67, 0.2, 0.8, 0.4, 0.3),
    "C3": (-0.72, 0.0, 0.4, 0.9, 0.12, 0.25),
    "C4": (0.72, 0.0, 0.4, 0.9, 0.12, 0.25),
    "P3": (-0.55, -0.67, 0.7, 0.6, 0.05, 0.15),
    "P4": (0.55, -0.67, 0.7, 0.6, 0.05, 0.15),
    "O1": (-0.31, -0.95, 1.0, 0.4, 0.02, 0.35),
    "O2": (0.31, -0.95, 1.0, 0.4, 0.02, 0.35),
    "F7": (-0.81, 0.59, 0.15, 0.6, 0.45, 0.9),
    "F8": (0.81, 0.59, 0.15, 0.6, 0.45, 0.9),
    "T3": (-1.0, 0.0, 0.25, 0.6, 0.1, 1.0),
    "T4": (1.0, 0.0, 0.25, 0.6, 0.1, 1.0),
    "T5": (-0.81, -0.59, 0.7, 0.5, 0.03, 0.6),
    "T6": (0.81, -0.59, 0.7, 0.5, 0.03, 0.6),
    "Fz": (0.0, 0.72, 0.2, 1.0, 0.4, 0.1),
    "Cz": (0.0, 0.0, 0.4, 1.0, 0.12, 0.1),
    "Pz": (0.0, -0.72, 0.8, 0.6, 0.05, 0.1),
}
NEAR = 0.8
"""Radii of the head at which what two electrodes share has fallen to 1/e."""

ALPHA_BAND, BETA_BAND, MUSCLE_BAND = (9.0, 11.0), (14.0, 30.0), (20.0, 150.0)
LOWEST = 0.5
"""Hz: below it the background has no more power."""
BLOCKED_BY_EYES = 0.5
"""Share of alpha that is gone while the eyes are open."""
BLOCKED_BY_AROUSAL = 0.7
"""Share of alpha that is gone at arousal 1."""
MORE_BETA = 1.0
"""Share by which beta is larger at arousal 1."""
BURSTS = (2.0, 12.0)
"""Muscle bursts a minute at arousal 0 and 1."""
BURST_SECONDS = (0.3, 1.2)
BURST_EDGE = 0.05
CLOSING, OPENING = 0.1, 0.2
"""Seconds of a blink before and after its peak."""
REFRACTORY = 0.6
"""Seconds between blinks at least."""
SETTLING = 4
"""Seconds computed before sample 0, so that the filters have settled."""


class Eeg:
    """The channels of the montage that is asked for."""

    def __init__(self, options: Options) -> None:
        self.stream = StreamInfo(
            key="synthetic/eeg",
            kind="eeg",
            channels=options.montage,
            rate=float(options.eeg_rate),
            unit="uV",
            name="synthetic EEG",
            source="synthetic:eeg",
        )
        blocks = Blocks(options.eeg_rate, lambda: _seconds(options))
        self.samples = blocks.samples
        """Samples ``first`` to ``last`` (n, channels) in uV."""


def blinks(options: Options) -> Iterator[tuple[float, float]]:
    """(time of the peak, height in uV) of each blink in order, without end; height 0 where the eyes are closed."""
    rng = np.random.default_rng([options.seed, 4])
    time = 0.0
    while options.blinks > 0:
        time += REFRACTORY + rng.gamma(2.0, (60.0 / options.blinks - REFRACTORY) / 2.0)
        height = options.blink * np.exp(rng.normal(0.0, 0.15))
        yield time, float(height) if options.eyes.at(np.array([time]))[0] > 0.5 else 0.0


def bursts(options: Options) -> Iterator[tuple[float, float]]:
    """(begin, seconds) of each muscle burst in order, without end; seconds 0 where one did not come about."""
    rng = np.random.default_rng([options.seed, 5])
    calm, aroused = BURSTS
    time = 0.0
    while True:
        time += rng.exponential(60.0 / aroused)
        arousal = options.script.at(np.array([time]))[0]
        comes = rng.uniform(0.0, aroused) < calm + (aroused - calm) * arousal
        seconds = rng.uniform(*BURST_SECONDS)
        yield time, float(seconds) if comes else 0.0


class _Noise:
    """Noise of unit standard deviation through a filter, for channels that share what ``mix`` says."""

    def __init__(self, sos: NDArray[np.float64], rate: int, mix: NDArray[np.float64]) -> None:
        self._sos = sos
        impulse = np.zeros(SETTLING * rate)
        impulse[0] = 1.0
        self._mix = mix.T / np.sqrt(np.sum(sosfilt(sos, impulse) ** 2))
        self._state = np.zeros((len(sos), 2, len(mix)))
        self._rate = rate

    def second(self, rng: np.random.Generator) -> NDArray[np.float64]:
        """The next second (rate, channels)."""
        white = rng.standard_normal((self._rate, len(self._mix))) @ self._mix
        noise, self._state = sosfilt(self._sos, white, axis=0, zi=self._state)
        filtered: NDArray[np.float64] = noise
        return filtered


def _falling(rate: int) -> NDArray[np.float64]:
    """Sections whose power falls as 1/f from LOWEST: poles two octaves apart, a zero half way to the next."""
    corners = LOWEST * 4.0 ** np.arange(8)
    poles = np.exp(-2 * np.pi * corners[corners < 0.4 * rate] / rate)
    zeros = np.exp(-2 * np.pi * 2.0 * corners[: len(poles)] / rate)
    return np.array([[1.0, -zero, 0.0, 1.0, -pole, 0.0] for zero, pole in zip(zeros, poles, strict=True)])


def _band(low: float, high: float, rate: int) -> NDArray[np.float64]:
    sections: NDArray[np.float64] = butter(2, (low, min(high, 0.45 * rate)), "bandpass", fs=rate, output="sos")
    return sections


def _seconds(options: Options) -> Iterator[NDArray[np.float32]]:
    rate, names = options.eeg_rate, options.montage
    rng = np.random.default_rng([options.seed, 1])
    table = np.array([ELECTRODES[name] for name in names])
    alpha_share, beta_share, blink_share, muscle_share = table[:, 2:].T
    height = np.sqrt(np.maximum(0.0, 1.0 - table[:, 0] ** 2 - table[:, 1] ** 2))
    places = np.column_stack([table[:, :2], height])
    apart = np.linalg.norm(places[:, None] - places[None], axis=2)
    shared = np.linalg.cholesky(np.exp(-apart / NEAR))
    alone = np.eye(len(names))
    background = _Noise(_falling(rate), rate, shared)
    alpha = _Noise(_band(*ALPHA_BAND, rate), rate, shared)
    beta = _Noise(_band(*BETA_BAND, rate), rate, shared)
    muscle = _Noise(_band(*MUSCLE_BAND, rate), rate, alone)
    # The mean amplitude of narrow noise is the square root of pi/2 standard deviations.
    alpha_size = options.alpha / np.sqrt(np.pi / 2) * alpha_share
    # At half the rate and above, no amplifier lets it through.
    line_size = options.line * rng.uniform(0.5, 1.5, len(names)) * (2 * options.mains < rate)
    line_phase = rng.uniform(-0.3, 0.3, len(names))
    heard = np.array([name not in options.flat for name in names])
    blinking, tense = blinks(options), bursts(options)
    lids: list[tuple[float, float]] = []
    tensions: list[tuple[float, float]] = []
    for second in itertools.count(-SETTLING):
        times = second + np.arange(rate) / rate
        waves = [noise.second(rng) for noise in (background, alpha, beta, muscle)]
        if second < 0:
            continue
        arousal, eyes = options.script.at(times), options.eyes.at(times)
        total = options.background * waves[0]
        blocked = (1.0 - BLOCKED_BY_EYES * eyes) * (1.0 - BLOCKED_BY_AROUSAL * arousal)
        total += blocked[:, None] * alpha_size * waves[1]
        total += (1.0 + MORE_BETA * arousal)[:, None] * (options.beta * beta_share) * waves[2]
        total += _tension(times, _up_to(tensions, tense, second))[:, None] * (options.muscle * muscle_share) * waves[3]
        total += _lid(times, _up_to(lids, blinking, second))[:, None] * blink_share
        total += line_size * np.sin(2 * np.pi * options.mains * times[:, None] + line_phase)
        yield np.where(heard, total, 0.0).astype(np.float32)


def _up_to(
    known: list[tuple[float, float]], coming: Iterator[tuple[float, float]], second: int
) -> list[tuple[float, float]]:
    """What may reach into this second, of events no longer than 2 s that come in order; ``known`` is kept for it."""
    while not known or known[-1][0] < second + 2:
        following = next(coming, None)
        if following is None:
            break
        known.append(following)
    while known and known[0][0] < second - 2:
        del known[0]
    return known


def _tension(times: NDArray[np.float64], tensions: list[tuple[float, float]]) -> NDArray[np.float64]:
    """How tense the muscles are (n,), 0 to 1."""
    total = np.zeros(len(times))
    for begin, seconds in tensions:
        edges = np.minimum(times - begin, begin + seconds - times) / BURST_EDGE
        total = np.maximum(total, np.clip(edges, 0.0, 1.0))
    return total


def _lid(times: NDArray[np.float64], lids: list[tuple[float, float]]) -> NDArray[np.float64]:
    """What the blinks add at Fp1 and Fp2 (n,), uV."""
    total = np.zeros(len(times))
    for peak, height in lids:
        away = np.where(times < peak, (times - peak) / CLOSING, (times - peak) / OPENING)
        total += height * np.where(np.abs(away) < 1.0, 0.5 + 0.5 * np.cos(np.pi * away), 0.0)
    return total

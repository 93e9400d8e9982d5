"""EEG and ECG made up from a seed, for a session without hardware: ``synthetic:``, ``synthetic:ecg?bpm=72``.

``synthetic:eeg`` and ``synthetic:ecg`` give one stream, ``synthetic:`` both. Options follow a question mark and are
joined by ``&``: ``seed``; for EEG ``channels`` (1 to 19, all of 10-20 unless
said), ``eeg_rate`` and ``alpha`` (uV); for ECG ``bpm`` and
``ecg_rate``. Sample n of a stream depends on the options alone, not on how often or how late it is read.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Self
from urllib.parse import parse_qsl

import numpy as np
from numpy.typing import NDArray

from devices.api import Chunk, DeviceError, Item, StreamInfo
from devices.lsl import lsl_clock

# fmt: off
MONTAGE_19 = ("Fp1", "Fp2", "F3", "F4", "C3", "C4", "P3", "P4", "O1", "O2",
              "F7", "F8", "T3", "T4", "T5", "T6", "Fz", "Cz", "Pz")
# fmt: on
MONTAGE_8 = ("Fp1", "Fp2", "C3", "C4", "P3", "P4", "O1", "O2")

PACKET = 0.04
"""Seconds between deliveries, as a headset's packets come."""
EEG_SECONDS = 64
"""After which the EEG repeats itself."""
LONGEST = 1.0
"""Seconds in one chunk at most, also after the reader was away."""

# Amplitude (uV), centre and width (seconds from the R peak) of P, Q, R, S, T in a chest lead: plausible, no more.
BEAT = (
    (110.0, -0.17, 0.025),
    (-90.0, -0.035, 0.010),
    (1000.0, 0.0, 0.011),
    (-200.0, 0.032, 0.011),
    (280.0, 0.24, 0.05),
)
HEART_NOISE = 8.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    seed: int = 0
    channels: int = 19
    eeg_rate: int = 250
    alpha: float = 15.0
    """Mean amplitude of the 10 Hz rhythm at the back of the head, uV."""
    bpm: float = 72.0
    ecg_rate: int = 130


LIMITS = {
    "seed": (0, 2**32 - 1),
    "channels": (1, 19),
    "eeg_rate": (100, 4000),
    "alpha": (0.0, 200.0),
    "bpm": (20.0, 240.0),
    "ecg_rate": (100, 4000),
}


def connect(rest: str) -> SyntheticDevice:
    """The made-up device that ``rest`` describes. Raises DeviceError."""
    kinds, _, query = rest.partition("?")
    if kinds not in ("", "eeg", "ecg"):
        raise DeviceError(
            f"synthetic:{rest}: {kinds!r} is not made here; write synthetic:, synthetic:eeg or synthetic:ecg."
        )
    given: dict[str, float] = {}
    for name, text in parse_qsl(query, keep_blank_values=True):
        low, high = LIMITS.get(name, (0, -1))
        whole = name not in ("alpha", "bpm")
        try:
            value = int(text) if whole else float(text)
        except ValueError:
            value = np.nan
        if not low <= value <= high:
            known = ", ".join(f"{key} {least:g} to {most:g}" for key, (least, most) in LIMITS.items())
            raise DeviceError(f"synthetic:{rest}: {name}={text} cannot be used. Options are {known}.")
        given[name] = value
    options = Options(**given)  # type: ignore[arg-type]  # whole numbers were made above
    return SyntheticDevice(("eeg", "ecg") if not kinds else (kinds,), options)


class SyntheticDevice:
    """The streams ``kinds``, paced by ``now`` and ``sleep``; the first sample is taken when the device is entered."""

    def __init__(
        self,
        kinds: Sequence[str],
        options: Options,
        now: Callable[[], float] = lsl_clock,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._makers: tuple[Maker, ...] = tuple(Eeg(options) if kind == "eeg" else Ecg(options) for kind in kinds)
        self._sent = [0] * len(self._makers)
        self._now = now
        self._sleep = sleep
        self.start = np.nan
        """Session-clock time of sample 0 of every stream."""

    @property
    def streams(self) -> Sequence[StreamInfo]:
        return tuple(maker.stream for maker in self._makers)

    def __enter__(self) -> Self:
        self.start = self._now()
        return self

    def __exit__(self, *exc: object) -> None:
        return None

    def read(self, timeout: float) -> list[Item]:
        items = self._due()
        if not items and timeout > 0:
            elapsed = self._now() - self.start
            self._sleep(min(timeout, (self._packets() + 1) * PACKET - elapsed))
            items = self._due()
        return items

    def _packets(self) -> int:
        # A clock that stands a rounding error before the next packet has reached it: else one could wait for nothing.
        return int(np.floor((self._now() - self.start) / PACKET + 1e-6))

    def _due(self) -> list[Item]:
        elapsed = self._packets() * PACKET
        items: list[Item] = []
        for index, maker in enumerate(self._makers):
            rate = maker.stream.rate
            end = int(np.floor(elapsed * rate + 1e-6)) + 1 if elapsed > 0 else 0
            while self._sent[index] < end:
                first = self._sent[index]
                last = min(end, first + round(LONGEST * rate))
                times = self.start + np.arange(first, last) / rate
                items.append(Chunk(maker.stream.key, times, maker.samples(first, last)))
                self._sent[index] = last
        return items


class Eeg:
    """Background with a power falling as 1/f, and alpha that waxes and wanes, strongest at the back."""

    def __init__(self, options: Options) -> None:
        names = MONTAGE_8[: options.channels] if options.channels <= 8 else MONTAGE_19[: options.channels]
        self.stream = StreamInfo(
            key="synthetic/eeg",
            kind="eeg",
            channels=names,
            rate=float(options.eeg_rate),
            unit="uV",
            name="synthetic EEG",
            source="synthetic:eeg",
        )
        rng = np.random.default_rng([options.seed, 1])
        n = options.eeg_rate * EEG_SECONDS
        common = _shaped_noise(rng, options.eeg_rate, 1)  # what all electrodes see
        table = 0.8 * _shaped_noise(rng, options.eeg_rate, len(names)) + 0.6 * common
        t = np.arange(n)[:, None] / options.eeg_rate
        phases = rng.uniform(0.0, 2.0 * np.pi, len(names))
        # Whole cycles in the table, so that it joins its own beginning.
        envelope = 1.0 + 0.6 * np.sin(2.0 * np.pi * 5 / EEG_SECONDS * t + rng.uniform(0.0, 2.0 * np.pi))
        share = np.array([1.0 if name[0] in "OPT" else 0.5 if name[0] == "C" else 0.25 for name in names])
        table += options.alpha * share * envelope * np.sin(2.0 * np.pi * 10.0 * t + phases)
        self._table = table.astype(np.float32)

    def samples(self, first: int, last: int) -> NDArray[np.float32]:
        """Samples ``first`` to ``last`` (n, channels) in uV."""
        taken: NDArray[np.float32] = np.take(self._table, np.arange(first, last), axis=0, mode="wrap")
        return taken


class Ecg:
    """One chest lead, a beat every ``60 / bpm`` seconds; the first R peak is half a beat after sample 0."""

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
        self._rate = options.ecg_rate
        self._beat = 60.0 / options.bpm
        self._seed = options.seed
        self._blocks: dict[int, NDArray[np.float32]] = {}

    def samples(self, first: int, last: int) -> NDArray[np.float32]:
        """Samples ``first`` to ``last`` (n, 1) in uV."""
        blocks = range(first // self._rate, (last - 1) // self._rate + 1)
        old = self._blocks
        self._blocks = {index: old[index] if index in old else self._block(index) for index in blocks}
        whole = np.concatenate([self._blocks[index] for index in blocks])
        return whole[first - blocks[0] * self._rate : last - blocks[0] * self._rate].copy()

    def _block(self, index: int) -> NDArray[np.float32]:
        """Second ``index`` (rate, 1), always computed whole: the last bit of ``exp`` may depend on the length."""
        t = (index * self._rate + np.arange(self._rate)) / self._rate
        phase = np.mod(t / self._beat, 1.0)
        total = np.random.default_rng([self._seed, 2, index]).normal(0.0, HEART_NOISE, self._rate)
        for amplitude, centre, width in BEAT:
            # P and T move towards the R peak as the heart beats faster, or they would run into the next beat.
            squeeze = min(1.0, np.sqrt(self._beat)) if abs(centre) > 0.1 else 1.0
            for neighbour in (-1.0, 0.0, 1.0):
                away = (phase - 0.5 + neighbour) * self._beat - centre * squeeze
                total += amplitude * np.exp(-0.5 * (away / (width * squeeze)) ** 2)
        return total.astype(np.float32)[:, None]


Maker = Eeg | Ecg


def _shaped_noise(rng: np.random.Generator, rate: int, channels: int) -> NDArray[np.float64]:
    """Gaussian noise (EEG_SECONDS * rate, channels), 10 uV standard deviation, power as 1/f from 0.5 to 100 Hz."""
    n = rate * EEG_SECONDS
    frequencies = np.arange(n // 2 + 1)[:, None] / EEG_SECONDS
    inside = (frequencies >= 0.5) & (frequencies <= 100.0)
    amplitude = np.where(inside, 1.0 / np.sqrt(np.maximum(frequencies, 0.5)), 0.0)
    shape = (len(frequencies), channels)
    spectrum = amplitude * (rng.standard_normal(shape) + 1j * rng.standard_normal(shape))
    noise: NDArray[np.float64] = np.fft.irfft(spectrum, n, axis=0)
    return np.asarray(10.0 * noise / noise.std(axis=0), np.float64)

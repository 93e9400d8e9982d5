"""An archive like eegmat's, made up: under load alpha falls and the heart beats faster."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from offline_training.datasets import eegmat

RATE = 128
NAMES = [
    *("Fp1", "Fp2", "F3", "F4", "F7", "F8", "T3", "T4", "C3", "C4"),
    *("T5", "T6", "P3", "P4", "O1", "O2", "Fz", "Cz", "Pz", "A2-A1", "ECG"),
]


@pytest.fixture(scope="session")
def write_archive() -> Callable[..., None]:
    """Writes such an archive: ``write_archive(folder, people=, rest=, load=)``, the last two in seconds."""

    def write(folder: Path, *, people: int, rest: int, load: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        random = np.random.default_rng(7)
        arrays = {}
        for person in range(people):
            alpha, rate = random.uniform(10.0, 25.0), random.uniform(55.0, 80.0)
            for suffix, seconds, calm, faster in (("1", rest, 1.0, 0.0), ("2", load, 0.5, 15.0)):
                signal = _signal(random, seconds, alpha * calm, (rate + faster) / 60.0)
                arrays[f"Subject{person:02d}_{suffix}"] = np.round(signal / 0.1).astype(np.int16)
        np.savez(folder / eegmat.FILE, channels=np.array(NAMES), fs=np.int64(RATE), scale_uV=np.float64(0.1), **arrays)

    return write


def _signal(random: np.random.Generator, seconds: int, alpha: float, beats: float) -> np.ndarray:
    """(21, time) uV."""
    time = np.arange(seconds * RATE) / RATE
    noise = random.standard_normal((len(NAMES), len(time))) * 6.0
    slow = np.sin(2 * np.pi * (0.07 * time + random.random())) + 0.3 * random.standard_normal()
    wave = alpha * (1.0 + 0.3 * slow) * np.sin(2 * np.pi * 10.0 * time)
    signal = noise + random.uniform(0.5, 1.0, (len(NAMES), 1)) * wave
    phase = np.cumsum(beats * (1.0 + 0.04 * np.sin(2 * np.pi * 0.1 * time)) / RATE)
    to_beat = (phase % 1.0 - 0.5) / beats
    signal[-1] = 600.0 * np.exp(-0.5 * (to_beat / 0.015) ** 2) + 10.0 * random.standard_normal(len(time))
    return signal


@pytest.fixture(scope="session")
def write_ecg() -> Callable[..., None]:
    """Writes an npz as `ecg_npz` reads it, at 130 Hz: ``write_ecg(folder, people=, each=, seconds=, seed=)``."""

    def write(folder: Path, *, people: int, each: int, seconds: int, seed: int = 3) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        random = np.random.default_rng(seed)
        names, rows = [], []
        for person in range(people):
            beats = random.uniform(0.9, 1.5)
            shape = random.uniform(0.02, 0.06), random.uniform(50.0, 250.0), random.uniform(0.2, 0.35)
            for number in range(each):
                names.append(f"s{seed}p{person:02d}/rec_{number}")
                rows.append(np.round(beating(random, seconds, 130, beats, *shape)))
        np.savez(folder / "ecg.npz", data=np.array(rows, np.int16), names=np.array(names), fs=130, scale_uV=1.0)

    return write


def beating(
    random: np.random.Generator, seconds: int, rate: int, beats: float, width: float, t_wave: float, t_after: float
) -> np.ndarray:
    """(time,) uV of a heart with ``beats`` a second: R peaks with P and T waves of the person's own shape."""
    phase = (np.arange(round(seconds * rate)) / rate * beats + random.random()) % 1.0
    away = (phase - 0.4) / beats
    wave = 900.0 * np.exp(-0.5 * (away / 0.012) ** 2) - 120.0 * np.exp(-0.5 * ((away - 0.03) / 0.012) ** 2)
    wave += t_wave * np.exp(-0.5 * ((away - t_after) / width) ** 2) + 80.0 * np.exp(-0.5 * ((away + 0.16) / 0.025) ** 2)
    return wave + 8.0 * random.standard_normal(len(wave))

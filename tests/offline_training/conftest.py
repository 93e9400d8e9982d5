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

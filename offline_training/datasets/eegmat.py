"""EEG and ECG of people at rest and during mental arithmetic (PhysioNet eegmat 1.0.0), from one npz at 128 Hz.

Zyma et al., "Electroencephalograms during mental arithmetic task performance", Data 4(1):14, 2019. The EEG was cleaned
with ICA by its authors. Rest always came first and lasts about 182 s, arithmetic about 62 s.
"""

from __future__ import annotations

import functools
import hashlib
import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from devices.api import Chunk, StreamInfo
from models.bundle import Target
from offline_training.api import Recording, Source, TrainingError

FILE = "eegmat_28_people_128hz_int16_0p1uV.npz"
SOURCE = Source(
    name="eegmat 1.0.0",
    attribution=(
        "Zyma I, Tukaev S, Seleznov I, Kiyono K, Popov A, Chernykh M, Shpenkov O. Electroencephalograms during mental "
        "arithmetic task performance. Data 4(1):14, 2019; PhysioNet eegmat 1.0.0, doi:10.13026/C2JQ1P"
    ),
    licence="ODC-By 1.0",
    url="https://physionet.org/content/eegmat/1.0.0/",
    order="rest always came first, so whatever drifts with time is part of what is measured",
    form=(
        "training used eegmat resampled to 128 Hz and stored as int16 counts of 0.1 uV, while the demonstration's "
        "recording has the original 500 Hz"
    ),
)
TARGET = Target(
    name="arousal",
    kind="binary",
    range=(0.0, 1.0),
    meaning="0: as at rest with eyes closed, 1: as in mental arithmetic",
)
TARGETS = (TARGET,)
PHASES = (("1", "rest", 0.0), ("2", "mental arithmetic", 1.0))
PAUSE = 60.0
"""Seconds at least between the two recordings on the session clock; how long it really was is not known."""
ROUND = 10.0
"""Seconds; recordings begin at whole multiples, so that the windows of all people lie alike in them."""
CHUNK_SAMPLES = 64
"""Half a second at 128 Hz, as a device would send it. Windows do not depend on it."""


def archive(folder: Path) -> Path:
    """The npz inside ``folder``, or inside its ``eegmat``. Raises TrainingError."""
    for path in (folder / FILE, folder / "eegmat" / FILE):
        if path.is_file():
            return path
    raise TrainingError(f"{folder}: no {FILE} there; give the folder that holds it, or the one that holds eegmat/.")


def parts(folder: Path) -> list[str]:
    """The people, as the archive names them."""
    with np.load(archive(folder), allow_pickle=False) as stored:
        return sorted({name.rsplit("_", 1)[0] for name in stored.files if "_" in name and name[-1] in "12"})


def digest(folder: Path, part: str = "") -> str:  # noqa: ARG001  (every part lies in the one archive)
    """sha256 of the archive, in hexadecimal."""
    path = archive(folder)
    there = path.stat()
    return _digest(path, there.st_size, there.st_mtime_ns)


@functools.cache
def _digest(path: Path, size: int, changed: int) -> str:  # noqa: ARG001  (they say whether it is still the same)
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def everyone(folder: Path) -> Iterator[Recording]:
    """The recordings of all people."""
    for part in parts(folder):
        yield from recordings(folder, part)


def recordings(folder: Path, part: str) -> Iterator[Recording]:
    """Rest, then arithmetic, of one person, in microvolts; the A2-A1 channel is left out."""
    path = archive(folder)
    with np.load(path, allow_pickle=False) as stored:
        names = [str(name) for name in stored["channels"]]
        rate, scale = float(stored["fs"]), float(stored["scale_uV"])
        if names[-1] != "ECG" or "A2-A1" not in names:
            raise TrainingError(f"{path}: channels are {' '.join(names)}, expected A2-A1 and, last, ECG.")
        eeg_rows = [row for row, name in enumerate(names) if name not in ("A2-A1", "ECG")]
        streams = (
            StreamInfo(key="eeg", kind="eeg", channels=tuple(names[row] for row in eeg_rows), rate=rate, unit="uV"),
            StreamInfo(key="ecg", kind="ecg", channels=("ECG",), rate=rate, unit="uV"),
        )
        start = 0.0
        for suffix, phase, arousal in PHASES:
            name = f"{part}_{suffix}"
            if name not in stored.files:
                raise TrainingError(f"{path}: no array {name} there.")
            counts = stored[name]
            stop = start + counts.shape[1] / rate
            samples = (counts.T * scale).astype(np.float32)
            pieces = {"eeg": samples[:, eeg_rows], "ecg": samples[:, -1:]}
            yield Recording(
                person=part.removeprefix("Subject"),
                session=part,
                phase=phase,
                targets={"arousal": arousal},
                rest=arousal == 0.0,
                streams=streams,
                chunks=tuple(_cut(pieces, start, rate)),
                start=start,
                stop=stop,
            )
            start = math.ceil((stop + PAUSE) / ROUND) * ROUND


def _cut(parts: dict[str, NDArray[np.float32]], start: float, rate: float) -> Iterator[Chunk]:
    """Chunks of half a second, the streams taking turns as they would live."""
    n = len(next(iter(parts.values())))
    times = start + np.arange(n) / rate
    for first in range(0, n, CHUNK_SAMPLES):
        piece = slice(first, first + CHUNK_SAMPLES)
        for stream, samples in parts.items():
            yield Chunk(stream=stream, times=times[piece], data=np.ascontiguousarray(samples[piece]))

"""ECG of one lead in npz files: PhysioNet's challenge of 2017 and ECG-ID as they are kept for insula, or your own.

A file has ``data``, either all recordings one after the other (with ``lengths``) or one a row, ``names``, one for each
recording, and ``fs`` in hertz; ``scale_uV`` says how many microvolts a count is, one where it is not there. A name of
the form ``person/recording`` says whose recording it is; else every recording counts as a person of its own, as in the
challenge, of whose people nothing is known.
"""

from __future__ import annotations

import functools
import hashlib
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from devices.api import Chunk, StreamInfo
from models.api import InputSpec
from models.bundle import Target
from offline_training.api import Recording, Skipped, Source, TrainingError

SOURCE = Source(
    name="ECG of one lead (PhysioNet challenge-2017 1.0.0, ecgiddb 1.0.0, or others)",
    attribution=(
        "Clifford GD, Liu C, Moody B, Li-wei HL, Silva I, Li Q, Johnson AE, Mark RG. AF classification from a short "
        "single lead ECG recording: the PhysioNet/Computing in Cardiology Challenge 2017. Computing in Cardiology 44, "
        "2017. Lugovaya TS. Biometric human identification based on electrocardiogram. Master's thesis, LETI, Saint "
        "Petersburg, 2005"
    ),
    licence="ODC-By 1.0",
    url="https://physionet.org/content/challenge-2017/1.0.0/, https://physionet.org/content/ecgiddb/1.0.0/",
    order="",
    form="training used the challenge's recordings resampled from 300 to 130 Hz, as int16 counts of about 1 uV",
)
TARGETS: tuple[Target, ...] = ()
INPUTS = (InputSpec(kind="ecg", channels=("ECG",)),)
TOGETHER = 250
"""Recordings in a part."""
CHUNK_SAMPLES = 4096
_NEEDED = ("data", "names", "fs")


def parts(folder: Path) -> list[str]:
    """A file and the numbers of recordings in it, such as "cinc2017/train.npz 0-249"."""
    found = []
    for path in _files(folder):
        place = path.relative_to(folder).as_posix()
        try:
            count = len(_opened(path)[0])
        except TrainingError:
            count = 1
        found += [f"{place} {first}-{min(first + TOGETHER, count) - 1}" for first in range(0, count, TOGETHER)]
    return found


def recordings(folder: Path, part: str) -> Iterator[Recording | Skipped]:
    """Those of one part, in microvolts."""
    path, first, last = _place(folder, part)
    names, offsets, samples, rate, scale = _opened(path)
    stream = StreamInfo(key="ecg", kind="ecg", channels=("ECG",), rate=rate, unit="uV")
    for number in range(first, last + 1):
        counts = samples[offsets[number] : offsets[number + 1]]
        name = names[number]
        if not len(counts) or counts.min() == counts.max():
            yield Skipped(f"{path.name}: {name}", "flat" if len(counts) else "empty")
            continue
        person, slash, _ = name.partition("/")
        yield Recording(
            person=person if slash else name,
            session=name,
            phase="",
            targets={},
            rest=False,
            streams=(stream,),
            chunks=_cut(counts, rate, scale),
            start=0.0,
            stop=len(counts) / rate,
        )


def digest(folder: Path, part: str) -> str:
    """sha256 of the file and of which recordings of it."""
    path, first, last = _place(folder, part)
    there = path.stat()
    return hashlib.sha256(f"{_digest(path, there.st_size, there.st_mtime_ns)} {first} {last}".encode()).hexdigest()


def labels(folder: Path) -> dict[str, str]:
    """The label of each recording that has one, by its name (which is its session); of the challenge N is sinus rhythm,
    A atrial fibrillation, O another rhythm and ~ noise. For judging an encoder, not for training one."""
    found: dict[str, str] = {}
    for path in _files(folder):
        with path.open("rb") as file, np.load(file, allow_pickle=False) as stored:
            if "labels" in stored.files:
                names, told = stored["names"].tolist(), stored["labels"].tolist()
                found |= {str(name): str(label) for name, label in zip(names, told, strict=True)}
    return found


def _files(folder: Path) -> list[Path]:
    """The npz files of ECG in ``folder`` and in the folders in it. Raises TrainingError when there is none."""
    found = [path for path in sorted([*folder.glob("*.npz"), *folder.glob("*/*.npz")]) if _is_ecg(path)]
    if not found:
        raise TrainingError(
            f"{folder}: no npz file with {', '.join(_NEEDED)} there; give the folder that holds it, or the one above."
        )
    return found


def _is_ecg(path: Path) -> bool:
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as stored:
            return all(name in stored.files for name in _NEEDED)
    except (OSError, ValueError, zipfile.BadZipFile):
        return True  # a damaged file is not passed over in silence: it is a part that cannot be used


def _place(folder: Path, part: str) -> tuple[Path, int, int]:
    name, _, numbers = part.rpartition(" ")
    first, _, last = numbers.partition("-")
    return folder / name, int(first), int(last)


def _opened(path: Path) -> tuple[list[str], list[int], NDArray[np.int16], float, float]:
    """Names, where each recording begins and the last ends, all samples, rate and microvolts a count."""
    there = path.stat()
    return _read(path, there.st_size, there.st_mtime_ns)


@functools.lru_cache(maxsize=1)
def _read(path: Path, size: int, changed: int) -> tuple[list[str], list[int], NDArray[np.int16], float, float]:  # noqa: ARG001
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as stored:
            samples, names, rate = stored["data"], [str(name) for name in stored["names"]], float(stored["fs"])
            scale = float(stored["scale_uV"]) if "scale_uV" in stored.files else 1.0
            lengths = stored["lengths"] if "lengths" in stored.files else np.full(len(samples), samples[0].size)
    except (OSError, ValueError, KeyError, IndexError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise TrainingError(f"{path}: cannot be read ({' '.join(str(error).split()):.80}); fetch it again.") from None
    offsets = np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])
    if (
        len(lengths) != len(names)
        or offsets[-1] != samples.size
        or not 0 < rate < 1e5
        or samples.dtype.kind not in "if"
    ):
        raise TrainingError(
            f"{path}: {len(names)} names, {len(lengths)} lengths and {samples.size} samples of {samples.dtype} at "
            f"{rate:g} Hz do not fit together."
        )
    return names, offsets.tolist(), samples.reshape(-1), rate, scale


@functools.cache
def _digest(path: Path, size: int, changed: int) -> str:  # noqa: ARG001  (they say whether it is still the same)
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _cut(counts: NDArray[np.int16], rate: float, scale: float) -> Iterator[Chunk]:
    for first in range(0, len(counts), CHUNK_SAMPLES):
        piece = counts[first : first + CHUNK_SAMPLES]
        times = (first + np.arange(len(piece))) / rate
        yield Chunk(stream="ecg", times=times, data=(piece[:, None] * scale).astype(np.float32))

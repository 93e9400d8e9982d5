"""EEG and ECG of 40 people who watched 16 short and 4 long videos and rated each (AMIGOS, the preprocessed files).

Miranda-Correa et al., IEEE Trans Affective Computing 12(2), 2021. A file Data_Preprocessed_P01.mat a person, at 128 Hz:
14 channels of an Emotiv EPOC, ECG at the right and the left arm, skin conductance (left out). Each video begins with
5 s of baseline: that is a recording of its own, at the beginning of a session of that video. There is no minute of
rest: windows longer than 5 s have no resting baseline at all, and training that needs one says so. The ratings stand as
arousal, valence, dominance, in this order.

Some videos are empty (three people saw no long ones), some copies lie channel-major, and the compressed parts of some
files are longer than they say, which is let pass. The file names no units: EEG is taken as microvolts; ECG as
millivolts when it is of such a size, else as counts of a Shimmer, 4.19 uV each. What is neither is refused in words.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.io import loadmat

from devices.api import StreamInfo
from models.api import InputSpec
from models.bundle import Target
from models.montage import channel_order
from offline_training.api import Recording, Skipped, Source, TrainingError
from offline_training.arrays import (
    SHORTEST,
    as_chunks,
    cells_of,
    in_a_line,
    next_start,
    plainly,
    rating_problem,
    size,
    time_major,
    why_not_microvolts,
)

ELECTRODES = ("AF3", "F7", "F3", "FC5", "T7", "P7", "O1", "O2", "P8", "T8", "FC6", "F4", "F8", "AF4")
RATE = 128.0
BASELINE = 5.0
"""Seconds before each video."""
CHANNELS = 17
UV_PER_COUNT = 3e6 / 4095 / 175
"""Of the ECG, when it is in counts: 12 bits over 3 V, before a gain of 175."""
SOURCE = Source(
    name="AMIGOS, preprocessed",
    attribution=(
        "Miranda-Correa JA, Abadi MK, Sebe N, Patras I. AMIGOS: a dataset for affect, personality and mood research on "
        "individuals and groups. IEEE Trans Affective Computing 12(2):479-493, 2021"
    ),
    licence="for research, by an agreement with its authors; not to be passed on",
    url="https://www.eecs.qmul.ac.uk/mmv/datasets/amigos/",
    order=(
        "everyone saw the same videos, the long ones on another day and some of the people in groups, so what a rating "
        "does to the signals cannot be told from what its video, its day or the company does"
    ),
    form=(
        "training used signals that their authors had filtered and brought to 128 Hz, without units in the file; what "
        "is live is filtered once only"
    ),
)
_RATED = ("arousal", "valence", "dominance")
"""In the order of the columns."""
_MEANINGS = {
    "valence": "felt, rated after the video: 1 most unpleasant, 9 most pleasant",
    "arousal": "felt, rated after the video: 1 calm, 9 excited",
    "dominance": "felt, rated after the video: 1 controlled, 9 in control",
}
TARGETS = tuple(
    Target(name=name, kind="continuous", range=(1.0, 9.0), meaning=meaning) for name, meaning in _MEANINGS.items()
)
INPUTS = (
    InputSpec(kind="eeg", channels=channel_order(ELECTRODES), min_channels=12),
    InputSpec(kind="ecg", channels=("ECG",)),
)
"""What windows are cut for unless other channels are asked for: those of the headset, not all of the 19 of a cap."""
_EEG = StreamInfo(key="eeg", kind="eeg", channels=ELECTRODES, rate=RATE, unit="uV")
_ECG = StreamInfo(key="ecg", kind="ecg", channels=("ECG right", "ECG left"), rate=RATE, unit="uV")
_NAME = re.compile(r"Data_Preprocessed_P(\d{1,4})\.mat")


def _files(folder: Path) -> dict[str, Path]:
    """Person -> file, wherever below ``folder`` it lies."""
    found: dict[str, Path] = {}
    for path in sorted(folder.rglob("Data_Preprocessed_P*.mat")) if folder.is_dir() else ():
        match = _NAME.fullmatch(path.name)
        if match and path.is_file():
            found.setdefault(f"{int(match[1]):02d}", path)
    if not found:
        raise TrainingError(
            f"{folder}: no Data_Preprocessed_P01.mat or the like there; give the folder that holds them."
        )
    return dict(sorted(found.items()))


def _file(folder: Path, part: str) -> Path:
    files = _files(folder)
    if part not in files:
        raise TrainingError(f"{folder}: no file of person {part!r:.20} there.")
    return files[part]


def parts(folder: Path) -> list[str]:
    """The people whose files are there, by number."""
    return list(_files(folder))


def digest(folder: Path, part: str) -> str:
    """sha256 of the person's file, in hexadecimal."""
    with _file(folder, part).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def recordings(folder: Path, part: str) -> Iterator[Recording | Skipped]:
    """Of each video the 5 s before it, then the video, on a clock that begins with the former."""
    path = _file(folder, part)
    try:
        content = loadmat(path, verify_compressed_data_integrity=False)
    except Exception as error:  # noqa: BLE001 - scipy and zlib raise what they like on a damaged file
        raise TrainingError(f"{path}: cannot be read ({in_a_line(error)}); fetch it again.") from None
    try:
        videos = cells_of(content["joined_data"])
        ratings = cells_of(content["labels_selfassessment"])
    except (KeyError, ValueError) as error:
        raise TrainingError(f"{path}: is not as AMIGOS is ({in_a_line(error)}); take the original file.") from None
    names = _names(content.get("VideoIDs"), len(videos))
    signals = [_signal(video) for video in videos]
    scale, unit = _ecg_unit(path, [one for one in signals if isinstance(one, np.ndarray)])
    ecg = replace(_ECG, unit=unit)
    for number, (name, samples) in enumerate(zip(names, signals, strict=True)):
        at = f"{path.name}, video {number + 1}" + (f" ({name})" if name else "")
        if isinstance(samples, str):
            yield Skipped(at, samples)
            continue
        if why := why_not_microvolts("eeg", size("eeg", samples[:, : len(ELECTRODES)], RATE)):
            yield Skipped(at, why)
            continue
        rated = np.asarray(ratings[number] if number < len(ratings) else []).ravel()
        targets = {}
        for column, target in enumerate(_RATED):
            value = rated[column] if column < len(rated) else None
            if why := rating_problem(value, 1.0, 9.0):
                yield Skipped(at, f"{target}: {why}")
            else:
                targets[target] = float(rated[column])
        if not targets:
            continue
        begin = round(BASELINE * RATE)
        start = 0.0
        for rest, piece in ((True, samples[:begin]), (False, samples[begin:])):
            stop = start + len(piece) / RATE
            leads = piece[:, len(ELECTRODES) : len(ELECTRODES) + 2] * np.float32(scale)
            yield Recording(
                person=part,
                session=f"{part}-video{number + 1:02d}",
                phase="before the video" if rest else f"video {name or number + 1}",
                targets={} if rest else targets,
                rest=rest,
                streams=(_EEG, ecg),
                chunks=as_chunks([(_EEG, piece[:, : len(ELECTRODES)]), (ecg, leads)], start),
                start=start,
                stop=stop,
            )
            start = next_start(stop)


def _names(value: object, count: int) -> list[str]:
    """What the videos are called, "" where nothing is told."""
    try:
        told = [str(np.asarray(one).item()) for one in cells_of(value)][:count]
    except ValueError:
        told = []
    told = ["".join(letter for letter in one if letter.isprintable())[:40] for one in told]
    return told + [""] * (count - len(told))


def _signal(video: object) -> NDArray[np.float32] | str:
    """(n, 17), or in words why it cannot be used."""
    try:
        samples = time_major(np.asarray(video), CHANNELS)
    except ValueError as error:
        return f"the signal {error}"
    if len(samples) < (BASELINE + SHORTEST) * RATE:
        needed = BASELINE + SHORTEST
        return f"the signal lasts {len(samples) / RATE:.1f} s, at least {needed:g} s with its baseline are needed"
    return samples


def _ecg_unit(path: Path, signals: list[NDArray[np.float32]]) -> tuple[float, str]:
    """What to multiply a person's ECG by and the unit it then has, by the size of all videos together."""
    sizes = [size("ecg", one[:, len(ELECTRODES) : len(ELECTRODES) + 2], RATE) for one in signals]
    sizes = [one for one in sizes if not math.isnan(one)]
    found = float(np.median(sizes)) if sizes else math.nan
    unit = plainly("ecg", found)
    if unit == "V" or found * UV_PER_COUNT > 50_000.0:
        raise TrainingError(
            f"{path}: the ECG is {found:.2g} large above 1 Hz, which is neither millivolts nor the counts of a "
            "converter; take the original file."
        )
    return (1.0, "mV") if unit == "mV" else (UV_PER_COUNT, "uV")

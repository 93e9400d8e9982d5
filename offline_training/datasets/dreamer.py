"""EEG and ECG of 23 people who watched 18 film clips and rated each (DREAMER v1.0.2), from DREAMER.mat.

Katsigiannis and Ramzan, IEEE J Biomed Health Inform 22(1), 2018. EEG by an Emotiv EPOC (14 channels, 128 Hz), ECG by a
Shimmer2 (two leads, 256 Hz). Before each clip stand 61 s of a neutral one, so each clip is a session of its own that
begins with its own baseline; in which order a person saw the clips is not in the file.

The file names no units. EEG is taken as microvolts, which Emotiv's numbers are, with an offset of some thousand. ECG is
taken as counts of the Shimmer2: 12 bits over 3 V behind a gain of 175, 4.19 uV each. A clip, or a person, whose
signals are too small or too large for that is refused in words, not converted.

scipy reads the whole file, about 2 GB of memory in each process that reads any of it; it is kept until another one is
read.
"""

from __future__ import annotations

import functools
import hashlib
import math
from collections.abc import Iterator
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
    rating_problem,
    size,
    time_major,
    why_not_microvolts,
)

FILE = "DREAMER.mat"
ELECTRODES = ("AF3", "F7", "F3", "FC5", "T7", "P7", "O1", "O2", "P8", "T8", "FC6", "F4", "F8", "AF4")
RATES = {"EEG": 128.0, "ECG": 256.0}
UV_PER_COUNT = 3e6 / 4095 / 175
"""Of the ECG: a count of 12 bits over 3 V, before the Shimmer2's gain of 175."""
UNEVEN = 1.0
"""Seconds by which EEG and ECG of a clip may differ in length; what is longer is cut off."""
SOURCE = Source(
    name="DREAMER v1.0.2",
    attribution=(
        "Katsigiannis S, Ramzan N. DREAMER: a database for emotion recognition through EEG and ECG signals from "
        "wireless low-cost off-the-shelf devices. IEEE J Biomed Health Inform 22(1):98-107, 2018"
    ),
    licence="for research, by the terms its authors ask you to accept; not to be passed on",
    url="https://doi.org/10.5281/zenodo.546113",
    order=(
        "everyone saw the same 18 clips, in an order that is not in the file, so what a rating does to the signals "
        "cannot be told from what the pictures and sounds of its clip do"
    ),
    form=(
        "training used the file's 128 Hz EEG, taken as uV, and its 256 Hz ECG, taken as counts of 4.19 uV; a live "
        "headset and strap differ in rate and noise"
    ),
)
_RATED = (("valence", "ScoreValence"), ("arousal", "ScoreArousal"), ("dominance", "ScoreDominance"))
_MEANINGS = {
    "valence": "felt, rated after the clip: 1 most unpleasant, 5 most pleasant",
    "arousal": "felt, rated after the clip: 1 calm or bored, 5 excited or alert",
    "dominance": "felt, rated after the clip: 1 without control, 5 in control",
}
TARGETS = tuple(
    Target(name=name, kind="ordinal", range=(1.0, 5.0), meaning=_MEANINGS[name], levels=(1.0, 2.0, 3.0, 4.0, 5.0))
    for name, _ in _RATED
)
INPUTS = (
    InputSpec(kind="eeg", channels=channel_order(ELECTRODES), min_channels=12),
    InputSpec(kind="ecg", channels=("ECG",)),
)
"""What windows are cut for unless other channels are asked for: those of the headset, not all of the 19 of a cap."""
_STREAMS = {
    "EEG": StreamInfo(key="eeg", kind="eeg", channels=ELECTRODES, rate=RATES["EEG"], unit="uV"),
    "ECG": StreamInfo(key="ecg", kind="ecg", channels=("ECG1", "ECG2"), rate=RATES["ECG"], unit="uV"),
}


def _file(folder: Path) -> Path:
    for path in (folder / FILE, folder / "DREAMER" / FILE):
        if path.is_file():
            return path
    raise TrainingError(f"{folder}: no {FILE} there; give the folder that holds it.")


def parts(folder: Path) -> list[str]:
    """The people by their number in the file."""
    people = _people(_file(folder))
    return [f"{number:02d}" for number in range(1, len(people) + 1)]


def digest(folder: Path, part: str = "") -> str:  # noqa: ARG001  (everyone lies in the one file)
    """sha256 of the file, in hexadecimal."""
    path = _file(folder)
    there = path.stat()
    return _digest(path, there.st_size, there.st_mtime_ns)


@functools.lru_cache(maxsize=1)
def _digest(path: Path, length: int, changed: int) -> str:  # noqa: ARG001  (they say whether it is still the same)
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def recordings(folder: Path, part: str) -> Iterator[Recording | Skipped]:
    """Of each clip the baseline, then the clip, in uV on a clock that begins with the baseline."""
    path = _file(folder)
    people = _people(path)
    if not (part.isdecimal() and 1 <= int(part) <= len(people)):
        raise TrainingError(f"{path}: has no person {part!r:.20}, there are {len(people)}.")
    where = f"{path.name}, person {part}"
    try:
        person = _record(people[int(part) - 1])
        signals = {
            (kind, what): cells_of(_record(person[kind])[what]) for kind in RATES for what in ("baseline", "stimuli")
        }
        scores = {name: np.asarray(person[field], object).ravel() for name, field in _RATED}
    except (KeyError, ValueError, IndexError, TypeError) as error:
        raise TrainingError(f"{where}: is not as DREAMER is ({in_a_line(error)}); fetch the file again.") from None
    clips = max(len(cells) for cells in signals.values())
    sizes = [_size_of(cells[i]) for i in range(clips) if len(cells := signals["ECG", "stimuli"]) > i]
    known = [one for one in sizes if not math.isnan(one)]
    if known and (why := why_not_microvolts("ecg", float(np.median(known)) * UV_PER_COUNT)):
        raise TrainingError(f"{where}: in counts of {UV_PER_COUNT:.3g} uV {why}, or restore the original file.")
    for number in range(clips):
        at = f"{where}, clip {number + 1}"
        targets = {}
        for name, values in scores.items():
            value = values[number] if number < len(values) else None
            if isinstance(value, np.ndarray):
                value = value.item() if value.size == 1 else None
            if why := rating_problem(value, 1.0, 5.0, whole=True):
                yield Skipped(at, f"{name}: {why}")
            else:
                targets[name] = float(value)  # type: ignore[arg-type]
        if not targets:
            continue
        start = 0.0
        for phase, what in (("neutral clip", "baseline"), (f"clip {number + 1}", "stimuli")):
            try:
                cut = {kind: _signal(kind, signals[kind, what], number) for kind in RATES}
                n = _common_seconds(cut)
            except ValueError as error:
                yield Skipped(f"{at}, {what}", str(error))
                continue
            stop = start + n
            yield Recording(
                person=part,
                session=f"{part}-clip{number + 1:02d}",
                phase=phase,
                targets=targets if what == "stimuli" else {},
                rest=what == "baseline",
                streams=tuple(_STREAMS.values()),
                chunks=as_chunks([(_STREAMS[kind], one[: round(n * RATES[kind])]) for kind, one in cut.items()], start),
                start=start,
                stop=stop,
            )
            start = next_start(stop)


def _signal(kind: str, cells: NDArray[np.object_], number: int) -> NDArray[np.float32]:
    """Of a clip, in uV; ValueError in words when it cannot be used."""
    if number >= len(cells):
        raise ValueError(f"the {kind} is missing")
    channels = len(_STREAMS[kind].channels)
    try:
        samples = time_major(np.asarray(cells[number]), channels)
    except ValueError as error:
        raise ValueError(f"the {kind} {error}") from None
    if len(samples) < SHORTEST * RATES[kind]:
        raise ValueError(f"the {kind} lasts {len(samples) / RATES[kind]:.1f} s, at least {SHORTEST:g} s are needed")
    if kind == "EEG" and (why := why_not_microvolts("eeg", size("eeg", samples, RATES[kind]))):
        raise ValueError(why)
    return samples * np.float32(UV_PER_COUNT) if kind == "ECG" else samples


def _common_seconds(cut: dict[str, NDArray[np.float32]]) -> float:
    """How long both signals last; ValueError when they differ by more than UNEVEN."""
    seconds = {kind: len(samples) / RATES[kind] for kind, samples in cut.items()}
    if max(seconds.values()) - min(seconds.values()) > UNEVEN:
        raise ValueError(f"EEG lasts {seconds['EEG']:.1f} s, ECG {seconds['ECG']:.1f} s: not of the same clip")
    return math.floor(min(seconds.values()) * RATES["EEG"]) / RATES["EEG"]


def _size_of(cell: object) -> float:
    """Of a clip's ECG, in its own unit; NaN when it cannot be told."""
    try:
        samples = time_major(np.asarray(cell), len(_STREAMS["ECG"].channels))
    except ValueError:
        return math.nan
    return size("ecg", samples, RATES["ECG"]) if len(samples) else math.nan


def _people(path: Path) -> NDArray[np.object_]:
    there = path.stat()
    return _loaded(path, there.st_size, there.st_mtime_ns)


@functools.lru_cache(maxsize=1)
def _loaded(path: Path, length: int, changed: int) -> NDArray[np.object_]:  # noqa: ARG001  (still the same file)
    try:
        content = loadmat(path, variable_names=["DREAMER"])
    except Exception as error:  # noqa: BLE001 - scipy and zlib raise what they like on a damaged file
        raise TrainingError(f"{path}: cannot be read ({in_a_line(error)}); fetch it again.") from None
    try:
        top = _record(content["DREAMER"])
        for kind, rate in RATES.items():
            said = float(np.asarray(top[f"{kind}_SamplingRate"]).item())
            if said != rate:
                raise TrainingError(f"{path}: {kind} at {said:g} Hz, DREAMER has {rate:g} Hz; take the original file.")
        named = tuple(str(np.asarray(one).item()) for one in cells_of(top["EEG_Electrodes"]))
        if tuple(name.upper() for name in named) != ELECTRODES:
            raise TrainingError(f"{path}: electrodes are {' '.join(named)[:200]}; take the original file.")
        return cells_of(top["Data"])
    except (KeyError, ValueError, IndexError, TypeError) as error:
        raise TrainingError(f"{path}: is not as DREAMER is ({in_a_line(error)}); take the original file.") from None


def _record(value: object) -> dict[str, object]:
    """The fields of a 1x1 struct, also one inside a cell; ValueError when it is none."""
    array = np.asarray(value)
    while array.dtype == object and array.size == 1:
        array = np.asarray(array.ravel()[0])
    if array.dtype.names is None or array.size != 1:
        raise ValueError("a structure is missing")
    return {name: array.ravel()[0][name] for name in array.dtype.names}

"""EEG and ECG of 20 people who watched 80 clips meant to stir seven emotions (SEED-VII), from the raw CNT files.

Jiang et al., IEEE Trans Affective Computing, 2024. ``EEG_raw/<person>_<date>_<session>.cnt``: 62 electrodes, one ECG
channel, mastoids and eyes (left out), four sessions of 20 clips a person. A clip lies between two triggers, 40 a file;
in two of the files they are not right, and those of ``save_info`` are taken, as the authors do. The emotion is the one
a clip was chosen for, in the published order, the same for everyone; nobody's own rating is used.

Seven emotions are classes, without an order. The target is valence: 1 happy, 0 disgust, fear, sadness or anger. What is
neutral, and surprise, which may be either, carry no label. There is no recording at rest, so there is no resting
baseline, and training that needs one says so.
"""

from __future__ import annotations

import csv
import functools
import hashlib
import re
import warnings
from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import mne
import numpy as np
from numpy.typing import NDArray

from devices.api import StreamInfo
from models.bundle import Target
from models.electrodes import says_ecg
from offline_training.api import Recording, Skipped, Source, TrainingError
from offline_training.arrays import SHORTEST, blockwise, in_a_line, size, why_not_microvolts

CLIPS = 20
LONGEST = 900.0
"""Seconds: clips last two to five minutes; triggers further apart are not of one."""
LEAST_ELECTRODES = 60
NOT_EEG = frozenset(("M1", "M2", "HEO", "VEO", "HEOG", "VEOG", "EKG", "EMG", "TRIGGER"))
BIGGEST_HEADERS_KNOW = 2_000_000_000
"""Bytes; of larger files mne has to be told how wide a sample is."""
BEGUN = {"14_20221015_1": "14:25:34", "9_20221111_3": "14:01:27"}
"""When the recordings began whose own triggers are not right, by the authors' script; their times of day are in
``save_info``."""
SOURCE = Source(
    name="SEED-VII",
    attribution=(
        "Jiang WB, Liu XH, Zheng WL, Lu BL. SEED-VII: a multimodal dataset of six basic emotions with continuous "
        "labels for emotion recognition. IEEE Trans Affective Computing, 2024"
    ),
    licence="for research, by an agreement with its authors; not to be passed on",
    url="https://bcmi.sjtu.edu.cn/home/seed/seed-vii.html",
    order=(
        "everyone saw the same clips in the same order on four days, and not every day has happy ones, so valence "
        "cannot be told from what the day, the time in it or the pictures and sounds of a clip do"
    ),
    form="training used the raw samples at the rate of the files, as the amplifier referenced them",
)
_HALVES = (
    ("happy", "neutral", "disgust", "sadness", "anger"),
    ("anger", "sadness", "fear", "neutral", "surprise"),
    ("happy", "surprise", "disgust", "fear", "anger"),
    ("disgust", "sadness", "fear", "surprise", "happy"),
)
"""The first five clips of each session; then come as many in reverse, and both once more."""
EMOTIONS = tuple((half + half[::-1]) * 2 for half in _HALVES)
"""Of the clips of each session, in the order in which they were seen."""
VALENCE = {"happy": 1.0, "disgust": 0.0, "fear": 0.0, "sadness": 0.0, "anger": 0.0}
TARGETS = (
    Target(
        name="valence",
        kind="binary",
        range=(0.0, 1.0),
        meaning="0: as with a clip of disgust, fear, sadness or anger, 1: as with a happy one",
    ),
)
_NAME = re.compile(r"(\d{1,3})_(\d{8})_([1-4])")


def _files(folder: Path) -> dict[str, Path]:
    """Name without ending -> file, by person and session."""
    for path in (folder / "EEG_raw", folder):
        found = [one for one in path.glob("*.cnt") if _NAME.fullmatch(one.stem)] if path.is_dir() else []
        if found:
            return {one.stem: one for one in sorted(found, key=_place)}
    raise TrainingError(f"{folder}: no EEG_raw/1_20221001_1.cnt or the like there; give the folder that holds EEG_raw.")


def _place(path: Path) -> tuple[int, int, str]:
    person, _, session = path.stem.split("_")
    return int(person), int(session), path.stem


def _file(folder: Path, part: str) -> Path:
    files = _files(folder)
    if part not in files:
        raise TrainingError(f"{folder}: no file {part!r:.40} there.")
    return files[part]


def parts(folder: Path) -> list[str]:
    """The CNT files, a session of a person each, by person and session."""
    return list(_files(folder))


def digest(folder: Path, part: str) -> str:
    """sha256 of the file, and of its triggers in ``save_info`` where those are taken, in hexadecimal."""
    path = _file(folder, part)
    found = hashlib.sha256()
    for one in (path, _saved(path)) if part in BEGUN else (path,):
        if one.is_file():
            with one.open("rb") as file:
                found.update(hashlib.file_digest(file, "sha256").digest())
    return found.hexdigest()


def recordings(folder: Path, part: str) -> Iterator[Recording | Skipped]:
    """The 20 clips of a session, in uV on the clock of the file."""
    path = _file(folder, part)
    person, _, session = part.split("_")
    raw = _opened(path)
    rate = float(raw.info["sfreq"])
    eeg = [name for name in raw.ch_names if name.upper() not in NOT_EEG and not says_ecg(name)]
    heart = [name for name in raw.ch_names if says_ecg(name)]
    if len(eeg) < LEAST_ELECTRODES or len(heart) != 1:
        raise TrainingError(
            f"{path}: has {len(eeg)} electrodes, {len(heart)} ECG channels, SEED-VII has 62 and 1; take the raw file."
        )
    streams = (
        StreamInfo(key="eeg", kind="eeg", channels=tuple(eeg), rate=rate, unit="uV"),
        StreamInfo(key="ecg", kind="ecg", channels=tuple(heart), rate=rate, unit="uV"),
    )
    read = functools.partial(_read, raw, path, streams)
    triggers = _triggers(raw, path, part)
    emotions = EMOTIONS[int(session) - 1]
    for number, (begin, end) in enumerate(zip(triggers[0::2], triggers[1::2], strict=True)):
        at = f"{path.name}, clip {number + 1}"
        seconds = (end - begin) / rate
        if not SHORTEST <= seconds <= LONGEST:
            yield Skipped(at, f"its triggers are {seconds:.1f} s apart, expected {SHORTEST:g} to {LONGEST:g}")
            continue
        if end > raw.n_times:
            yield Skipped(at, f"ends at {end / rate:.1f} s, the file has {raw.n_times / rate:.1f} s")
            continue
        beginning = read(begin, begin + round(SHORTEST * rate))[0][1]
        if why := why_not_microvolts("eeg", size("eeg", beginning, rate)):
            yield Skipped(at, why)
            continue
        valence = VALENCE.get(emotions[number])
        yield Recording(
            person=f"{int(person):02d}",
            session=f"{int(person):02d}-{session}",
            phase=f"clip {number + 1}, {emotions[number]}",
            targets={} if valence is None else {"valence": valence},
            rest=False,
            streams=streams,
            chunks=blockwise(functools.partial(_shifted, read, begin), end - begin, rate, begin / rate),
            start=begin / rate,
            stop=end / rate,
        )


def _opened(path: Path) -> Any:
    """The file as mne reads it, nothing of its samples in memory. Raises TrainingError."""
    large = path.stat().st_size >= BIGGEST_HEADERS_KNOW
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return mne.io.read_raw_cnt(path, data_format="int32" if large else "auto", preload=False, verbose="error")
    except Exception as error:  # noqa: BLE001 - mne raises what it likes on a damaged file
        raise TrainingError(f"{path}: cannot be read ({in_a_line(error)}); fetch it again.") from None


def _triggers(raw: Any, path: Path, part: str) -> list[int]:
    """The samples at which the clips begin and end, in turn. Raises TrainingError when they are not 40 that rise."""
    rate = float(raw.info["sfreq"])
    if part in BEGUN:
        where = _saved(path)
        seconds = _of_the_day(where, BEGUN[part])
    else:
        # Keys that were pressed stand among the triggers.
        pressed = ("KeyPad", "Keyboard", "BAD", "EDGE", "boundary")
        told = zip(raw.annotations.onset, raw.annotations.description, strict=True)
        where, seconds = path, [float(onset) for onset, what in told if not str(what).startswith(pressed)]
    triggers = [round(one * rate) for one in seconds]
    if len(triggers) != 2 * CLIPS or triggers != sorted(triggers) or (triggers and triggers[0] < 0):
        what = "" if len(triggers) != 2 * CLIPS else ", not in the order of time"
        raise TrainingError(
            f"{where}: has {len(triggers)} triggers{what}, SEED-VII has {2 * CLIPS}; take the raw file."
        )
    return triggers


def _saved(path: Path) -> Path:
    """Where the triggers of a file stand in words."""
    name = f"{path.stem}_trigger_info.csv"
    places = [above / "save_info" / name for above in (path.parent.parent, path.parent)]
    return next((place for place in places if place.is_file()), places[0])


def _of_the_day(path: Path, begun: str) -> list[float]:
    """Seconds since ``begun`` (time of day) of the rows of a trigger file: a name, date and time."""
    start = datetime.strptime(begun, "%H:%M:%S")
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = [row for row in csv.reader(file) if row]
        times = [row[1].split()[-1] for row in rows[: 4 * CLIPS]]
        return [
            (datetime.strptime(time, "%H:%M:%S.%f" if "." in time else "%H:%M:%S") - start).total_seconds()
            for time in times
        ]
    except OSError as error:
        raise TrainingError(f"{path}: cannot be read ({error.strerror}); fetch save_info too.") from None
    except (ValueError, IndexError, csv.Error) as error:
        raise TrainingError(f"{path}: is no list of triggers ({in_a_line(error)}); fetch save_info again.") from None


def _read(
    raw: Any, path: Path, streams: tuple[StreamInfo, StreamInfo], first: int, last: int
) -> list[tuple[StreamInfo, NDArray[np.float32]]]:
    """Samples ``first`` to ``last`` of both streams, in uV."""
    eeg, ecg = streams
    try:
        volts = raw.get_data(picks=[*eeg.channels, *ecg.channels], start=first, stop=last, verbose="error")
    except Exception as error:  # noqa: BLE001 - mne raises what it likes on a damaged file
        raise TrainingError(f"{path}: cannot be read ({in_a_line(error)}); fetch it again.") from None
    microvolts = np.ascontiguousarray((1e6 * volts).T, np.float32)
    return [(eeg, microvolts[:, : len(eeg.channels)]), (ecg, microvolts[:, len(eeg.channels) :])]


def _shifted(
    read: functools.partial[list[tuple[StreamInfo, NDArray[np.float32]]]], by: int, first: int, last: int
) -> Sequence[tuple[StreamInfo, NDArray[np.float32]]]:
    return read(by + first, by + last)

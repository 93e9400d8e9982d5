"""EEG and ECG of about 27 people who watched 20 clips and rated each (MAHNOB-HCI, the emotion part), as BDF files.

Soleymani et al., IEEE Trans Affective Computing 3(1), 2012. ``Sessions/<id>/`` has the signals in
``Part_<p>_<N|S>_Trial<t>_emotion.bdf`` and the ratings in ``session.xml``. By a BioSemi system: 32 electrodes, of which
the average is taken off, since its raw channels are against the amplifier's own common mode; ECG is EXG3 less EXG1,
abdomen less right collarbone. Rate and unit are those of the file's header.

The clip lies between the two triggers of the Status channel; where there are not exactly two, 30 s from either end.
What comes before it, half a minute, is the resting baseline of that clip, which is a session of its own; what comes
after it is left out. A folder without BDF or ratings, as those of the tagging part are, is named and left out.
"""

from __future__ import annotations

import functools
import hashlib
import re
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import mne
import numpy as np
from numpy.typing import NDArray

from devices.api import StreamInfo
from devices.xdf_layout import parse_xml
from models.bundle import Target
from models.electrodes import is_electrode
from offline_training.api import Recording, Skipped, Source, TrainingError
from offline_training.arrays import (
    SHORTEST,
    blockwise,
    in_a_line,
    next_start,
    rating_problem,
    size,
    why_not_microvolts,
)
from offline_training.prepare import REST_SECONDS

AROUND = 30.0
"""Seconds before and after the clip."""
LEADS = ("EXG3", "EXG1")
"""ECG is the first less the second."""
LEAST_ELECTRODES = 16
MAX_XML = 1_000_000
SOURCE = Source(
    name="MAHNOB-HCI, emotion",
    attribution=(
        "Soleymani M, Lichtenauer J, Pun T, Pantic M. A multimodal database for affect recognition and implicit "
        "tagging. IEEE Trans Affective Computing 3(1):42-55, 2012"
    ),
    licence="for research, by an agreement with its authors; not to be passed on",
    url="https://mahnob-db.eu/hci-tagging/",
    order=(
        "rest always comes right before its clip, and everyone saw the same clips, so what a rating does to the "
        "signals cannot be told from what time, or the pictures and sounds of its clip do"
    ),
    form="training used the 24-bit samples of the files at the rate of their headers, the EEG less its own average",
)
_RATED = {"valence": "feltVlnc", "arousal": "feltArsl", "dominance": "feltCtrl"}
_MEANINGS = {
    "valence": "felt, rated after the clip: 1 unpleasant, 9 pleasant",
    "arousal": "felt, rated after the clip: 1 calm, 9 excited",
    "dominance": "felt, rated after the clip: 1 without control, 9 in control",
}
TARGETS = tuple(
    Target(name=name, kind="continuous", range=(1.0, 9.0), meaning=meaning) for name, meaning in _MEANINGS.items()
)
_NAME = re.compile(r"Part_(\d{1,4})_[NS]_Trial\d{1,4}_emotion\.bdf")


def _sessions(folder: Path) -> Path:
    for path in (folder / "Sessions", folder):
        if path.is_dir() and path.name == "Sessions":
            return path
    raise TrainingError(f"{folder}: no Sessions there; give the folder that holds it.")


def parts(folder: Path) -> list[str]:
    """The folders of Sessions, by number."""
    sessions = _sessions(folder)
    found = [
        path.name for path in sessions.iterdir() if path.name.isascii() and path.name.isdecimal() and path.is_dir()
    ]
    if not found:
        raise TrainingError(f"{sessions}: no folders with numbers there; give the folder that holds Sessions.")
    return sorted(found, key=lambda name: (int(name), name))


def digest(folder: Path, part: str) -> str:
    """sha256 of the BDF and of session.xml, those that are there, in hexadecimal."""
    found = hashlib.sha256()
    session = _session(folder, part)
    for path in (*_bdfs(session), session / "session.xml"):
        if path.is_file():
            with path.open("rb") as file:
                found.update(hashlib.file_digest(file, "sha256").digest())
    return found.hexdigest()


def recordings(folder: Path, part: str) -> Iterator[Recording | Skipped]:
    """The half minute before the clip, then the clip, in uV on a clock that begins with the former."""
    session = _session(folder, part)
    where = f"Sessions/{part}"
    files = _bdfs(session)
    if len(files) != 1:
        yield Skipped(where, f"{len(files) or 'no'} files Part_..._emotion.bdf, one is needed")
        return
    told = _told(session)
    if isinstance(told, str):
        yield Skipped(f"{where}/session.xml", told)
        return
    person = _person(told)
    in_name = _NAME.fullmatch(files[0].name)
    if not person or in_name is None or int(in_name[1]) != int(person):
        yield Skipped(
            where, f"session.xml says it is of person {person or 'nobody'}, the file is called {files[0].name:.60}"
        )
        return
    targets = {}
    for name, field in _RATED.items():
        if why := rating_problem(told.get(field), 1.0, 9.0):
            yield Skipped(f"{where}/session.xml", f"{name} ({field}): {why}")
        else:
            targets[name] = float(told.get(field, ""))
    if not targets:
        return
    raw = _opened(files[0])
    rate = float(raw.info["sfreq"])
    eeg = [name for name in raw.ch_names if is_electrode(name)]
    if len(eeg) < LEAST_ELECTRODES or not set(LEADS) <= set(raw.ch_names):
        raise TrainingError(
            f"{files[0]}: has {len(eeg)} electrodes and {'' if set(LEADS) <= set(raw.ch_names) else 'not '}the ECG of "
            f"{' and '.join(LEADS)}; take the original file."
        )
    begin, end = _clip(raw, files[0])
    if end - begin < SHORTEST * rate:
        yield Skipped(
            f"{where}/{files[0].name}",
            f"the clip lasts {max(0, end - begin) / rate:.1f} s of {raw.n_times / rate:.1f} s",
        )
        return
    streams = (
        StreamInfo(key="eeg", kind="eeg", channels=tuple(eeg), rate=rate, unit="uV"),
        StreamInfo(key="ecg", kind="ecg", channels=("ECG II",), rate=rate, unit="uV"),
    )
    read = functools.partial(_read, raw, files[0], streams)
    beginning = read(begin, begin + round(SHORTEST * rate))[0][1]
    if why := why_not_microvolts("eeg", size("eeg", beginning, rate)):
        yield Skipped(f"{where}/{files[0].name}", why)
        return
    start = 0.0
    before = max(0, begin - round(REST_SECONDS * rate))
    for rest, first, last in ((True, before, begin), (False, begin, end)):
        stop = start + (last - first) / rate
        if last > first:
            yield Recording(
                person=person,
                session=f"{person}-{part}",
                phase="before the clip" if rest else f"clip {_printable(told.get('mediaFile', '')) or part}",
                targets={} if rest else targets,
                rest=rest,
                streams=streams,
                chunks=blockwise(functools.partial(_shifted, read, first), last - first, rate, start),
                start=start,
                stop=stop,
            )
        start = next_start(stop)


def _session(folder: Path, part: str) -> Path:
    path = _sessions(folder) / part
    if not part.isdecimal() or not path.is_dir():
        raise TrainingError(f"{folder}: no Sessions/{part:.20} there.")
    return path


def _bdfs(session: Path) -> list[Path]:
    return sorted(path for path in session.iterdir() if path.name.endswith("_emotion.bdf") and path.is_file())


def _told(session: Path) -> ET.Element | str:
    """The root of session.xml, or in words why there is none. Entities and DTDs are refused, they are never needed."""
    try:
        with (session / "session.xml").open("rb") as file:
            content = file.read(MAX_XML + 1)
        if len(content) > MAX_XML:
            return f"has more than {MAX_XML} bytes"
        return parse_xml(content.decode("utf-8-sig"))
    except OSError as error:
        return f"cannot be read ({error.strerror})"
    except ValueError as error:
        return f"is no readable XML ({in_a_line(error)})"


def _person(told: ET.Element) -> str:
    subject = told.find("subject")
    number = (subject.get("id", "") if subject is not None else "").strip()
    return f"{int(number):02d}" if number.isascii() and number.isdecimal() and len(number) < 5 else ""


def _opened(path: Path) -> Any:
    """The file as mne reads it, nothing of its samples in memory. Raises TrainingError."""
    try:
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            raw = mne.io.read_raw_bdf(path, preload=False, verbose="warning")
    except Exception as error:  # noqa: BLE001 - mne raises what it likes on a damaged file
        raise TrainingError(f"{path}: cannot be read ({in_a_line(error)}); fetch it again.") from None
    if any("does not match the file size" in str(one.message) for one in told):
        raise TrainingError(f"{path}: has not the length that its header says, it was cut off; fetch it again.")
    return raw


def _clip(raw: Any, path: Path) -> tuple[int, int]:
    """First sample of the clip, and the one after its last."""
    rate = float(raw.info["sfreq"])
    onsets: list[int] = []
    if "Status" in raw.ch_names:
        try:
            status = raw.get_data(picks=["Status"], verbose="error")[0]
        except Exception as error:  # noqa: BLE001 - see above
            raise TrainingError(f"{path}: cannot be read ({in_a_line(error)}); fetch it again.") from None
        # The lowest byte: those above it say how the amplifier is doing.
        code = np.nan_to_num(status).astype(np.int64) & 0xFF
        onsets = (np.flatnonzero((code[1:] != 0) & (code[:-1] == 0)) + 1).tolist()
    if len(onsets) == 2 and onsets[1] - onsets[0] >= SHORTEST * rate:
        return onsets[0], onsets[1]
    around = round(AROUND * rate)
    return around, int(raw.n_times) - around


def _read(
    raw: Any, path: Path, streams: tuple[StreamInfo, StreamInfo], first: int, last: int
) -> list[tuple[StreamInfo, NDArray[np.float32]]]:
    """Samples ``first`` to ``last`` of both streams, in uV."""
    eeg, ecg = streams
    try:
        volts = raw.get_data(picks=[*eeg.channels, *LEADS], start=first, stop=last, verbose="error")
    except Exception as error:  # noqa: BLE001 - mne raises what it likes on a damaged file
        raise TrainingError(f"{path}: cannot be read ({in_a_line(error)}); fetch it again.") from None
    if volts.shape[1] != last - first:
        raise TrainingError(f"{path}: ends before its header says, it was cut off; fetch it again.")
    microvolts = 1e6 * volts
    head, (plus, minus) = microvolts[:-2], microvolts[-2:]
    return [
        (eeg, np.ascontiguousarray((head - head.mean(axis=0)).T, np.float32)),
        (ecg, (plus - minus)[:, np.newaxis].astype(np.float32)),
    ]


def _shifted(
    read: functools.partial[list[tuple[StreamInfo, NDArray[np.float32]]]], by: int, first: int, last: int
) -> Sequence[tuple[StreamInfo, NDArray[np.float32]]]:
    return read(by + first, by + last)


def _printable(text: str) -> str:
    return "".join(letter for letter in text if letter.isprintable())[:40].strip()

"""EEG without labels in EDF and BDF files, in any folders: the TUH EEG Corpus as it lies, BIDS, or your own.

Channels are taken by the place on the head that their label names, whatever its spelling ("EEG FP1-REF"); the others,
and those whose unit is none of voltage, are left out. Any of the 19 published channels will do: what a file lacks is
absent in its windows, and hidden in pre-training. Channels of several rates are brought to the highest by MNE.

Whose recording it is: in the TUH EEG Corpus what its file name begins with (``aaaaaaaa_s001_t000.edf``); elsewhere the
``sub-`` of BIDS; else the first folder below the one given; else the file itself is a person. The patient's name in the
header is never looked at. Of the corpus the first and the last minute are left out, as CBraMod was trained.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mne
import numpy as np

from devices.api import Chunk, StreamInfo, unit_name
from models.api import InputSpec
from models.bundle import Target
from models.electrodes import is_electrode
from models.montage import PUBLISHED
from offline_training.api import Recording, Skipped, Source, TrainingError

SOURCE = Source(
    name="EDF and BDF files",
    attribution=(
        "of the TUH EEG Corpus: Obeid I, Picone J. The Temple University Hospital EEG data corpus. Frontiers in "
        "Neuroscience 10:196, 2016; of other files whoever recorded them"
    ),
    licence="that of the files",
    url="https://isip.piconepress.com/projects/nedc/html/tuh_eeg/",
    order="",
    form="training used the files' own rate and depth",
)
TARGETS: tuple[Target, ...] = ()
INPUTS = (InputSpec(kind="eeg", channels=PUBLISHED, min_channels=1),)
READERS = {".edf": mne.io.read_raw_edf, ".bdf": mne.io.read_raw_bdf}
EDGE = 60.0
"""Seconds at either end of a recording of the corpus that are left out."""
PIECE = 10.0
"""Seconds that are read at a time."""
VOLTAGES = ("V", "mV", "uV")
_CORPUS = re.compile(r"([a-z]{8}|\d{8})_s\d{3}_t\d{3}$")
_BIDS = re.compile(r"(?:^|[/_])(sub-[A-Za-z0-9]+)(?=[/_])")


def parts(folder: Path) -> list[str]:
    """The files, by their path in the folder."""
    found = [path for path in folder.rglob("*") if path.suffix.lower() in READERS and path.is_file()]
    if not found:
        raise TrainingError(f"{folder}: no EDF or BDF file is there.")
    return sorted(path.relative_to(folder).as_posix() for path in found)


def recordings(folder: Path, part: str) -> Iterator[Recording | Skipped]:
    """The one of a file, read in pieces. Raises TrainingError when it has no EEG, or none that can be read."""
    path = folder / part
    header = _open(path, None)
    labels = [label for label in header.ch_names if is_electrode(label)]
    if not labels:
        raise TrainingError(f"no channel names a place on the head: {' '.join(header.ch_names):.120}")
    # Only these: channels that are not wanted, such as annotations at 1 Hz, are then neither read nor resampled.
    raw = _open(path, labels)
    known = [label for label in raw.ch_names if unit_name(_unit(raw, label)) in VOLTAGES]
    for label in raw.ch_names:
        if label not in known:
            yield Skipped(f"{part}: {label}", f"its unit {_unit(raw, label)!r:.20} is none of voltage")
    if not known:
        raise TrainingError("no channel of EEG has a unit of voltage")
    rate = float(raw.info["sfreq"])
    first, last = 0, int(raw.n_times)
    if _CORPUS.match(path.stem):
        first, last = round(EDGE * rate), last - round(EDGE * rate)
    if last - first < rate:
        raise TrainingError(f"{raw.n_times / rate:.0f} s are too short")
    yield Recording(
        person=_person(part),
        session=part,
        phase="",
        targets={},
        rest=False,
        streams=(StreamInfo(key="eeg", kind="eeg", channels=tuple(known), rate=rate, unit="uV"),),
        chunks=_pieces(raw, known, path, first, last),
        start=first / rate,
        stop=last / rate,
    )


def digest(folder: Path, part: str) -> str:
    """sha256 of the file."""
    with (folder / part).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _open(path: Path, labels: list[str] | None) -> Any:
    try:
        return READERS[path.suffix.lower()](path, include=labels, preload=False, verbose="ERROR")
    except OSError:
        raise
    except Exception as error:  # noqa: BLE001  (of a damaged header MNE raises whatever it stumbles over)
        raise TrainingError(f"cannot be read ({type(error).__name__}: {' '.join(str(error).split()):.120})") from None


def _unit(raw: Any, label: str) -> str:
    return str(raw._orig_units.get(label, ""))


def _pieces(raw: Any, labels: list[str], path: Path, first: int, last: int) -> Iterator[Chunk]:
    rate = float(raw.info["sfreq"])
    size = max(1, round(PIECE * rate))
    for begin in range(first, last, size):
        end = min(begin + size, last)
        try:
            volts = raw.get_data(picks=labels, start=begin, stop=end, verbose="ERROR")
        except Exception as error:  # noqa: BLE001  (as above)
            raise TrainingError(
                f"{path.name}: cannot be read at {begin / rate:.0f} s ({' '.join(str(error).split()):.100})"
            ) from None
        # MNE gives volts.
        data = np.ascontiguousarray((volts * 1e6).T, np.float32)
        yield Chunk(stream="eeg", times=np.arange(begin, end) / rate, data=data)


def _person(part: str) -> str:
    """
    >>> _person("edf/01_tcp_ar/000/00000000/s001_2015_12_30/00000000_s001_t000.edf")
    '00000000'
    >>> _person("sub-12/eeg/sub-12_task-rest_eeg.bdf"), _person("anna/monday.edf"), _person("monday.edf")
    ('sub-12', 'anna', 'monday')
    """
    path = Path(part)
    if corpus := _CORPUS.match(path.stem):
        return corpus[1]
    if bids := _BIDS.search(part):
        return bids[1]
    return path.parts[0] if len(path.parts) > 1 else path.stem

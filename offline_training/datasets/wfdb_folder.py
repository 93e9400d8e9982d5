"""ECG of 1 to 12 leads in WFDB records, in any folders: PTB-XL, MIMIC-IV-ECG, the CinC challenges, or your own.

Leads are taken by their names, in the order of the standard twelve; what a record lacks is absent in its windows. A
lead that is flat, has no value at all or a unit that is none of voltage is left out and named. A record with one lead
of ECG of another name ("ECG", "MLII") counts as lead I, or II when its name ends in it.

Whose record it is: in PTB-XL the ``patient_id`` of ``ptbxl_database.csv``; in MIMIC-IV-ECG the folder ``p10000032``; in
ECG-ID the folder ``Person_01``; elsewhere the record itself counts as a person, since nothing is known. Of PTB-XL the
records at 500 Hz are read, those at 100 Hz, which are the same, only when they are alone.
"""

from __future__ import annotations

import csv
import functools
import hashlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import wfdb
from numpy.typing import NDArray

from devices.api import Chunk, StreamInfo, unit_name
from models.api import InputSpec
from models.bundle import Target
from models.electrodes import normalised, says_ecg
from offline_training.api import Recording, Skipped, Source, TrainingError

LEADS = ("I", "II", "III", "aVR", "aVL", "aVF", "V1", "V2", "V3", "V4", "V5", "V6")
SOURCE = Source(
    name="WFDB records of ECG",
    attribution=(
        "of PTB-XL: Wagner P et al., Scientific Data 7:154, 2020; of MIMIC-IV-ECG: Gow B et al., PhysioNet 2023; of "
        "other records whoever recorded them"
    ),
    licence="that of the records",
    url="https://physionet.org/content/ptb-xl/, https://physionet.org/content/mimic-iv-ecg/",
    order="",
    form="training used the records' own rate and depth",
)
TARGETS: tuple[Target, ...] = ()
INPUTS = (InputSpec(kind="ecg", channels=LEADS),)
TOGETHER = 200
"""Records of a folder in a part."""
PIECE = 60.0
"""Seconds that are read at a time."""
MICROVOLTS = {"uV": 1.0, "mV": 1e3, "V": 1e6}
PTBXL = "ptbxl_database.csv"
_PERSON = re.compile(r"p\d{8}$|person[_-]?\d+$", re.IGNORECASE)


def parts(folder: Path) -> list[str]:
    """Folders of records, or so many of those in them: such as "records500/00000 0-199"."""
    found = []
    for place, names in sorted(_records(folder).items()):
        found += [
            f"{place} {first}-{min(first + TOGETHER, len(names)) - 1}" for first in range(0, len(names), TOGETHER)
        ]
    if not found:
        raise TrainingError(f"{folder}: no WFDB record (a file that ends in .hea) is there.")
    return found


def recordings(folder: Path, part: str) -> Iterator[Recording | Skipped]:
    """Those of one part; a record that cannot be used is told, and the others go on."""
    whose = _people(folder)
    for name in _chosen(folder, part):
        try:
            yield from _recording(folder, name, whose)
        except TrainingError as error:
            yield Skipped(name, str(error))


def digest(folder: Path, part: str) -> str:
    """sha256 of the headers and signals of the part, and of what says whose they are."""
    found = hashlib.sha256()
    whose = _people(folder)
    for name in _chosen(folder, part):
        found.update(f"{name} {_person(name, whose)}".encode())
        path = folder / name
        for file in sorted(path.parent.glob(f"{path.name}.*")):
            found.update(file.name.encode())
            found.update(file.read_bytes())
    return found.hexdigest()


@functools.lru_cache(maxsize=1)
def _records(folder: Path) -> dict[str, list[str]]:
    """Folder, relative to ``folder`` -> the records in it. Those of MIMIC-IV-ECG, a folder each, stand together."""
    found: dict[str, list[str]] = {}
    for path in folder.rglob("*.hea"):
        name = path.relative_to(folder).with_suffix("").as_posix()
        above = Path(name).parent
        if above.name.removeprefix("s") == path.stem:  # a record in a folder of its own
            above = above.parent.parent
        found.setdefault(above.as_posix(), []).append(name)
    if any("records500" in place for place in found):
        found = {place: names for place, names in found.items() if "records100" not in place}
    return {place: sorted(names) for place, names in found.items()}


def _chosen(folder: Path, part: str) -> list[str]:
    place, _, numbers = part.rpartition(" ")
    first, _, last = numbers.partition("-")
    return _records(folder)[place][int(first) : int(last) + 1]


@functools.lru_cache(maxsize=1)
def _people(folder: Path) -> dict[str, str]:
    """Name of a record of PTB-XL -> its patient. Empty elsewhere."""
    path = folder / PTBXL
    if not path.is_file():
        return {}
    found: dict[str, str] = {}
    try:
        with path.open(newline="", encoding="utf-8") as file:
            for row in csv.DictReader(file):
                patient = str(int(float(row["patient_id"])))
                found |= {Path(row[column]).name: patient for column in ("filename_lr", "filename_hr")}
    except (OSError, KeyError, ValueError, TypeError, csv.Error) as error:
        raise TrainingError(f"{path}: does not say whose records they are ({error!s:.60}); fetch it again.") from None
    return found


def _person(name: str, whose: dict[str, str]) -> str:
    """
    >>> _person("files/p1000/p10000032/s40689238/40689238", {}), _person("Person_07/rec_1", {}), _person("a/A0001", {})
    ('p10000032', 'Person_07', 'A0001')
    """
    path = Path(name)
    if path.name in whose:
        return whose[path.name]
    return next((one for one in reversed(path.parts[:-1]) if _PERSON.match(one)), path.name)


def _recording(folder: Path, name: str, whose: dict[str, str]) -> Iterator[Recording | Skipped]:
    header = _read(lambda: wfdb.rdheader(str(folder / name)))
    if isinstance(header, wfdb.MultiRecord):
        raise TrainingError("is made of segments, which are read by themselves")
    rate, length = float(header.fs or 0), int(header.sig_len or 0)
    if not 0 < rate < 1e5 or not length or not header.n_sig:
        raise TrainingError(f"has {header.n_sig or 0} signals of {length} samples at {rate:g} Hz")
    columns = _leads([str(one) for one in header.sig_name])
    if not columns:
        raise TrainingError(f"has no lead of ECG: {' '.join(map(str, header.sig_name)):.80}")
    scale = {}
    for lead, column in list(columns.items()):
        unit = unit_name(str(header.units[column]))
        if unit in MICROVOLTS:
            scale[lead] = MICROVOLTS[unit]
        else:
            yield Skipped(f"{name}: {lead}", f"its unit {header.units[column]!r:.20} is none of voltage")
    columns = {lead: column for lead, column in columns.items() if lead in scale}
    if columns:
        for lead, what in _spread(folder / name, columns, rate, length).items():
            if what:
                yield Skipped(f"{name}: {lead}", what)
                del columns[lead]
    if not columns:
        raise TrainingError("has no lead with a signal")
    factors = np.array([scale[lead] for lead in columns])
    yield Recording(
        person=_person(name, whose),
        session=name,
        phase="",
        targets={},
        rest=False,
        streams=(StreamInfo(key="ecg", kind="ecg", channels=tuple(columns), rate=rate, unit="uV"),),
        chunks=_pieces(folder / name, list(columns.values()), factors, rate, length),
        start=0.0,
        stop=length / rate,
    )


def _leads(names: list[str]) -> dict[str, int]:
    """Lead -> its column, in the standard order.

    >>> _leads(["RESP", "avr", "ECG II", "V1"]), _leads(["MLII", "ABP"]), _leads(["ECG"])
    ({'II': 2, 'aVR': 1, 'V1': 3}, {'II': 0}, {'I': 0})
    """
    called = [normalised(name) for name in names]
    found = {lead: called.index(lead.upper()) for lead in LEADS if lead.upper() in called}
    if found:
        return found
    for column, name in enumerate(names):
        if name.upper() in ("MLII", "MLI"):
            return {name.upper().removeprefix("ML"): column}
        if says_ecg(name):
            return {"I": column}
    return {}


def _spread(path: Path, columns: dict[str, int], rate: float, length: int) -> dict[str, str]:
    """Lead -> "" when something was measured there, else why not."""
    low, high = np.full(len(columns), np.inf), np.full(len(columns), -np.inf)
    for values in _values(path, list(columns.values()), rate, length):
        numbers = np.isfinite(values)
        low = np.minimum(low, np.where(numbers, values, np.inf).min(0))
        high = np.maximum(high, np.where(numbers, values, -np.inf).max(0))
    said = ["no value" if a > b else "flat" if a == b else "" for a, b in zip(low, high, strict=True)]
    return dict(zip(columns, said, strict=True))


def _values(path: Path, columns: list[int], rate: float, length: int) -> Iterator[NDArray[np.float64]]:
    """(samples, columns) in the unit of each, NaN where nothing was measured, a piece at a time."""
    size = max(1, round(PIECE * rate))
    for first in range(0, length, size):
        last = min(first + size, length)

        def read(first: int = first, last: int = last) -> Any:
            return wfdb.rdrecord(str(path), sampfrom=first, sampto=last, channels=columns).p_signal

        values: NDArray[np.float64] = _read(read)
        if values is None or values.shape != (last - first, len(columns)):
            raise TrainingError("has fewer samples than its header says")
        yield values


def _pieces(path: Path, columns: list[int], factors: NDArray[np.float64], rate: float, length: int) -> Iterator[Chunk]:
    first = 0
    for values in _values(path, columns, rate, length):
        times = (first + np.arange(len(values))) / rate
        first += len(values)
        yield Chunk(stream="ecg", times=times, data=(values * factors).astype(np.float32))


def _read(read: Any) -> Any:
    try:
        return read()
    except Exception as error:  # noqa: BLE001  (of a damaged record wfdb raises whatever it stumbles over)
        raise TrainingError(f"cannot be read ({type(error).__name__}: {' '.join(str(error).split()):.100})") from None

"""Every board that BrainFlow drives: ``brainflow:synthetic``, ``brainflow:cyton?serial_port=/dev/ttyUSB0``.

The name is BrainFlow's, in any case and without ``_BOARD``; the parameters are those of its ``BrainFlowInputParams``,
joined by ``&``. ``insula devices brainflow`` lists all boards and what each needs. Besides there are, of our own:

- ``delay``: seconds from the electrode to the arrival of the fastest packet, subtracted from every stamp
- ``preset``: ``default``, ``auxiliary``, ``ancillary`` or several, joined by commas; all of the board unless said
- ``ecg``: numbers of the EEG channels, from 1, that carry an ECG; they become a stream of their own
- ``channels``: names for the EEG channels, where the electrodes are not placed as BrainFlow's descriptor says
- ``name``: stands before the streams' keys in place of ``brainflow``

BrainFlow stamps rows with the Unix time of their arrival; here they are stamped anew, from their number and rate, on
the session clock. What is missing is told by the package numbers (``package_numbers.py``).
"""

from __future__ import annotations

import atexit
import difflib
import importlib
import importlib.metadata
import importlib.util
import math
import shutil
import sys
import tempfile
import threading
import time
import types
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self
from urllib.parse import unquote

import numpy as np
from numpy.typing import NDArray

from devices.api import Chunk, Clock, DeviceError, End, Events, Found, Item, Notice, StreamInfo
from devices.clock import DeviceClock
from devices.lsl import lsl_clock
from devices.package_numbers import BY_TIME, BYTE, GANGLION, Numbering, RowCounter, Run

INSTALL = 'pip install "insula[brainflow]"'
POLL = 0.008
"""Seconds between two looks for new rows; BrainFlow cannot be waited for."""
SLOW_POLL = 0.05
"""The same for presets without EEG or ECG, and the least length of a chunk of accelerometers and the like."""
LONGEST = 4096
"""Rows that are taken at once."""
BUFFER_SECONDS, BUFFER_BYTES = 60, 64_000_000
CLOCK_INTERVAL = 5.0
NOTICE_INTERVAL = 5.0
SILENT = 1.0
"""Seconds without a row that are a problem."""
GIVEN_UP = 3.0
"""Seconds without a row after which the connection is opened anew."""
FIRST_ROW = 15.0
"""Seconds that the first row may take."""
PAUSES = (1.0, 2.0, 4.0, 8.0, 15.0, 30.0)
"""Seconds between the attempts to open it; the last one stays."""
CLOSE_TIMEOUT = 2.0
MAX_DELAY = 10.0
MAX_LINE = 8191
"""Bytes of a line that BrainFlow's playback reads at once."""

KINDS = (
    ("eeg", "eeg_channels", "uV"),
    ("ecg", "ecg_channels", "uV"),
    ("emg", "emg_channels", "uV"),
    ("eog", "eog_channels", "uV"),
    ("acc", "accel_channels", ""),
    ("gyro", "gyro_channels", ""),
    ("mag", "magnetometer_channels", ""),
    ("ppg", "ppg_channels", ""),
    ("optical", "optical_channels", ""),
    ("eda", "eda_channels", ""),
    ("temperature", "temperature_channels", ""),
)
"""Rows of a board's descriptor; one that several kinds claim (an amplifier's inputs) is of the first."""
PROMPT = ("eeg", "ecg", "emg", "eog")
OWN = ("delay", "preset", "ecg", "channels", "name")

SERIAL = ("serial_port",)
NEEDS = (
    ("playback_file", ("file", "master_board")),
    ("streaming", ("ip_address", "ip_port", "master_board")),
    ("cyton_wifi", ("ip_port",)),
    ("cyton_daisy_wifi", ("ip_port",)),
    ("ganglion_wifi", ("ip_port",)),
    ("ganglion_native", ()),
    *((name, SERIAL) for name in ("cyton", "ganglion", "freeeeg", "ironbci", "neuropawn", "shimmer3")),
    ("muse_s_bled", SERIAL),
    ("muse_2_bled", SERIAL),
    ("muse_2016_bled", SERIAL),
    ("brainbit_bled", SERIAL),
)
"""What a board cannot do without, by the beginning of its name (BrainFlow's documentation); the first that fits."""
EXAMPLES = {"serial_port": "/dev/ttyUSB0", "ip_port": "6677", "ip_address": "225.1.1.1", "file": "RECORDING.csv"}

NUMBERINGS: tuple[tuple[str, tuple[Numbering, ...]], ...] = (
    ("muse_s_athena", (BY_TIME,)),
    ("cyton_daisy_wifi", (BYTE,)),
    ("cyton_daisy", (Numbering(step=2),)),
    ("ganglion_wifi", (BYTE,)),
    ("ganglion", GANGLION),
    *((name, (BYTE,)) for name in ("synthetic", "cyton", "freeeeg", "aavaa", "neuropawn", "ntl_wifi")),
)
"""As their drivers number rows, by the beginning of the board's name; of others it is learned. Athena numbers packets
of several sensors in one count, so nothing can be told from a gap in it."""
MUSE = {0: 12, 1: 3, 2: 6}
"""Rows of a packet, by preset; its number has 16 bits."""
QUESTIONS = {"cyton": "V", "cyton_daisy": "V"}
"""What a board is asked for its firmware, before it streams."""

EXIT_CODES = {
    1: "its port is already open",
    2: "its port cannot be opened; check the name and your permission, and close other programs that use it",
    3: "its port does not take the settings; check that it is the board's",
    4: "it takes no commands; check the cable and the power",
    7: "it does not answer; switch it on, charge it, and close the maker's own program",
    13: "a parameter is missing or wrong",
    14: "BrainFlow has no driver for it on this system",
    16: "it is open already",
    17: "its driver failed; check that it is switched on, near, and not used by another program",
    18: "it did not answer in time; switch it on and bring it near",
}

_library_lock = threading.RLock()
_log: Path | None = None
_taken: set[tuple[int, str]] = set()
"""Boards that are open in this process, by what BrainFlow tells them apart: its second object of one, when it fails or
is forgotten, would release the first one's."""


def connect(rest: str) -> BrainFlowDevice:
    """The board that ``rest`` names, not opened yet. Raises DeviceError."""
    return BrainFlowDevice(_plan(rest))


def discover(seconds: float) -> list[Found]:  # noqa: ARG001  (nothing is waited for)
    """Every board of the installed BrainFlow, with what it needs and gives; no radio is asked."""
    found = []
    for name in boards():
        needs = needed(name)
        query = "&".join(f"{key}={'BOARD' if key == 'master_board' else EXAMPLES[key]}" for key in needs)
        found.append(Found(f"brainflow:{name}" + (f"?{query}" if query else ""), describe(name)))
    return found


def boards() -> dict[str, int]:
    """BrainFlow's number of each board, by the name that opens it."""
    ids = _library().BoardIds
    return {_plain(one.name): int(one) for one in ids if one.name != "NO_BOARD"}


def needed(name: str) -> tuple[str, ...]:
    """The parameters that a board cannot do without."""
    return next((needs for start, needs in NEEDS if name.startswith(start)), ())


def describe(name: str) -> str:
    """One line on what a board gives."""
    presets = []
    descriptors = _descriptors(boards()[name])
    for preset, descriptor in descriptors.items():
        if "sampling_rate" not in descriptor:
            return f"{descriptor.get('name', name)}: what the board of master_board gives"
        rows = _kinds(descriptor)
        parts = [f"{kind.upper()} {len(rows[kind])} ch at {descriptor['sampling_rate']} Hz" for kind in rows]
        if preset == 0 and "ecg" not in rows:
            parts.append("ECG on any of them by ecg=" if "ecg_channels" in descriptor else "no ECG")
        which = f"preset {_preset_names()[preset]}: " if preset else ""
        presets.append(which + (", ".join(parts) or "nothing of a person"))
    return f"{next(iter(descriptors.values()))['name']}: {'; '.join(presets)}"


def _preset_names() -> dict[int, str]:
    return {int(one): one.name.lower().removesuffix("_preset") for one in _library().BrainFlowPresets}


# -- what an address says ----------------------------------------------------------------------------------------------


@dataclass(slots=True, kw_only=True)
class _Source:
    """A stream, and the rows of a preset that it is made of."""

    info: StreamInfo
    rows: tuple[int, ...]
    waiting: list[tuple[NDArray[np.float64], NDArray[np.float32]]] = field(default_factory=list)
    lost: int = 0


@dataclass(slots=True, kw_only=True)
class _Preset:
    """One table of a board: its streams, its count of rows, its clock."""

    number: int
    rate: float
    height: int
    number_row: int
    time_row: int
    marker_row: int
    sources: list[_Source]
    markers: str
    candidates: tuple[Numbering, ...]
    prompt: bool
    left: int = -1
    """Rows that a file still has; -1 when there is no end."""
    counter: RowCounter = field(init=False)
    clock: DeviceClock = field(default_factory=DeviceClock)
    looked: float = 0.0
    """When it was last looked for rows, session clock: what comes next arrived later."""
    last: float = -math.inf
    """Stamp of the newest sample that was given out."""
    lost: int = 0

    def __post_init__(self) -> None:
        self.counter = RowCounter(self.rate, self.candidates)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Plan:
    address: str
    name: str
    board: int
    master: str
    parameters: Mapping[str, str | int]
    delay: float
    presets: tuple[_Preset, ...]
    reopens: bool


def _plan(rest: str) -> _Plan:
    if not rest.isprintable():
        raise DeviceError(f"brainflow:{rest!r}: there are characters in it that cannot be printed; write it anew.")
    address = f"brainflow:{rest}"
    text, _, query = rest.partition("?")
    board_shim = _library()
    known = boards()
    name = _board(text, address if rest else "brainflow", known)
    given = _query(query, address)
    fields = vars(board_shim.BrainFlowInputParams())
    unknown = [key for key in given if key not in fields and key not in OWN]
    if unknown:
        raise DeviceError(
            f"{address}: there is no parameter {unknown[0]!r}; known are {', '.join((*sorted(fields), *OWN))}."
        )
    lacking = [key for key in needed(name) if not given.get(key)]
    if lacking:
        example = "&".join(f"{key}={EXAMPLES.get(key, 'cyton')}" for key in needed(name))
        raise DeviceError(f"{address}: {lacking[0]} is needed, for example brainflow:{name}?{example}")
    parameters: dict[str, str | int] = {}
    master = name
    for key, value in given.items():
        if key == "master_board":
            master = _board(value, address, known)
            parameters[key] = known[master]
        elif key == "ip_protocol" and _whole(value) is None:
            protocols = {one.name.lower(): int(one) for one in board_shim.IpProtocolTypes}
            if value.lower() not in protocols:
                raise DeviceError(f"{address}: ip_protocol is {value!r}, it must be udp or tcp.")
            parameters[key] = protocols[value.lower()]
        elif key in fields and isinstance(fields[key], int):
            number = _whole(value)
            if number is None:
                raise DeviceError(f"{address}: {key} is {value!r}, it must be a whole number from 0.")
            parameters[key] = number
        elif key in fields:
            parameters[key] = value
    presets = _presets(address, name, master, known[master], given)
    return _Plan(
        address=address,
        name=name,
        board=known[name],
        master=master,
        parameters=parameters,
        delay=_delay(address, given.get("delay", "0")),
        presets=tuple(presets),
        reopens=name not in ("playback_file", "streaming"),
    )


def _presets(address: str, name: str, master: str, board: int, given: Mapping[str, str]) -> list[_Preset]:
    names = _preset_names()
    there = {n: one for n, one in _descriptors(board).items() if "sampling_rate" in one}
    if not there:
        raise DeviceError(f"{address}: {master} is no board that measures; say which with master_board.")
    endings = {0: "", 1: "_aux", 2: "_anc"}
    if name == "playback_file":
        there = {n: one for n, one in there.items() if given.get(f"file{endings[n]}")}
    if name == "streaming":
        there = {n: one for n, one in there.items() if given.get(f"ip_port{endings[n]}")}
    wanted = [one.strip().lower() for one in given.get("preset", "").split(",") if one.strip()]
    absent = [one for one in wanted if one not in [names[n] for n in there]]
    if absent:
        raise DeviceError(f"{address}: no preset {absent[0]!r} here; there is {', '.join(names[n] for n in there)}.")
    prefix = given.get("name", "brainflow")
    if not prefix.replace("-", "").replace("_", "").isalnum() or len(prefix) > 40:
        raise DeviceError(f"{address}: the name {prefix!r} must be of letters and digits, at most 40.")
    if wanted and names[0] not in wanted and (misplaced := [key for key in ("ecg", "channels") if key in given]):
        raise DeviceError(f"{address}: {misplaced[0]} is about the preset {names[0]}, which is not asked for.")
    presets: list[_Preset] = []
    taken: set[str] = set()
    for number, descriptor in there.items():
        if wanted and names[number] not in wanted:
            continue
        rows = _kinds(descriptor)
        labels = _labels(rows, descriptor)
        if number == 0:
            _rename(address, given, rows, labels)
        sources = []
        for kind, unit in ((kind, unit) for kind, _, unit in KINDS if kind in rows):
            key = f"{prefix}/{kind}{endings[number] if f'{prefix}/{kind}' in taken else ''}"
            taken.add(key)
            sources.append(
                _Source(
                    info=StreamInfo(
                        key=key,
                        kind=kind,
                        channels=tuple(labels[kind]),
                        rate=float(descriptor["sampling_rate"]),
                        unit=unit,
                        name=str(descriptor["name"]),
                        source=address,
                    ),
                    rows=tuple(rows[kind]),
                )
            )
        left = -1
        if name == "playback_file":
            left = _lines(address, Path(given[f"file{endings[number]}"]), descriptor)
        presets.append(
            _Preset(
                number=number,
                rate=float(descriptor["sampling_rate"]),
                height=int(descriptor["num_rows"]),
                number_row=int(descriptor["package_num_channel"]),
                time_row=int(descriptor["timestamp_channel"]),
                marker_row=int(descriptor["marker_channel"]),
                sources=sources,
                markers=f"{prefix}/markers{endings[number]}",
                candidates=numberings(master, number),
                prompt=any(kind in rows for kind in PROMPT),
                left=left,
            )
        )
    if not any(preset.sources for preset in presets):
        raise DeviceError(f"{address}: nothing of what this board gives in that preset is measured by a person.")
    return presets


def numberings(name: str, preset: int) -> tuple[Numbering, ...]:
    """How the board may number the rows of a preset; empty when it must be learned."""
    if name.startswith("muse") and "athena" not in name:
        return (Numbering(size=MUSE[preset], modulus=65536),)
    return next((known for start, known in NUMBERINGS if name.startswith(start)), ())


def _kinds(descriptor: Mapping[str, Any]) -> dict[str, list[int]]:
    rows: dict[str, list[int]] = {}
    taken: set[int] = set()
    for kind, key, _ in KINDS:
        own = [int(row) for row in descriptor.get(key, ()) if int(row) not in taken]
        if own:
            rows[kind] = own
            taken.update(own)
    return rows


def _labels(rows: Mapping[str, Sequence[int]], descriptor: Mapping[str, Any]) -> dict[str, list[str]]:
    labels = {}
    for kind, own in rows.items():
        names = [name.strip() for name in str(descriptor.get(f"{kind}_names", "")).split(",")]
        if len(names) != len(own) or len(set(names)) < len(names) or not all(names):
            names = [kind.upper() + (str(n + 1) if len(own) > 1 else "") for n in range(len(own))]
            if kind in ("acc", "gyro", "mag") and len(own) == 3:
                names = ["X", "Y", "Z"]
        labels[kind] = names
    return labels


def _rename(address: str, given: Mapping[str, str], rows: dict[str, list[int]], labels: dict[str, list[str]]) -> None:
    """Apply ``channels`` and ``ecg`` to the EEG rows."""
    if "channels" in given:
        names = [name.strip() for name in given["channels"].split(",")]
        if len(names) != len(rows.get("eeg", ())) or len(set(names)) < len(names) or not all(names):
            count = len(rows.get("eeg", ()))
            raise DeviceError(f"{address}: channels must be {count} different names, joined by commas.")
        labels["eeg"] = names
    if "ecg" in given:
        eeg = rows.get("eeg", [])
        picked = [(_whole(one.strip()) or 0) - 1 for one in given["ecg"].split(",")]
        if not all(0 <= one < len(eeg) for one in picked) or len(set(picked)) < len(picked) or "ecg" in rows:
            raise DeviceError(
                f"{address}: ecg is {given['ecg']!r}, it must be numbers of EEG channels from 1 to {len(eeg)}, "
                "of a board without an ECG of its own."
            )
        rows["ecg"] = [eeg[one] for one in picked]
        labels["ecg"] = ["ECG" + (str(n + 1) if len(picked) > 1 else "") for n in range(len(picked))]
        stay = [one for one in range(len(eeg)) if one not in picked]
        rows["eeg"], labels["eeg"] = [eeg[one] for one in stay], [labels["eeg"][one] for one in stay]
        if not stay:
            del rows["eeg"], labels["eeg"]


def _lines(address: str, path: Path, descriptor: Mapping[str, Any]) -> int:
    """How many rows BrainFlow will play of a recording; says what is wrong with one that it cannot play."""
    height, stamp = int(descriptor["num_rows"]), int(descriptor["timestamp_channel"])
    good, wrong = 0, -1
    if path.exists() and not path.is_file():  # a pipe, or a device, that may never end
        raise DeviceError(f"{address}: {path.name} is no file.")
    try:
        with path.open("rb") as lines:
            while line := lines.readline(MAX_LINE):
                separator = b"\t" if b"\t" in line else b","
                columns = line.rstrip(b"\r\n").rstrip(separator).split(separator)
                if len(columns) != height:
                    wrong = wrong if good else len(columns)
                    continue
                if not good and not 0 <= _number(columns[stamp]) < 1e11:
                    raise DeviceError(f"{address}: {path.name}: column {stamp + 1} is no time in seconds.")
                good += 1
    except OSError as error:
        raise DeviceError(f"{address}: {path.name} cannot be read: {error.strerror}.") from error
    if not good:
        found = f"its lines have {wrong} columns" if wrong >= 0 else "it is empty"
        raise DeviceError(
            f"{address}: {path.name}: {found}, BrainFlow's recordings of {descriptor['name']} have {height}; "
            "check master_board, and of OpenBCI's GUI take the BrainFlow-RAW file."
        )
    return good


def _number(text: bytes) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan


def _whole(text: str) -> int | None:
    """A whole number that BrainFlow can take, None when it is none."""
    return int(text) if text.isdecimal() and len(text) < 11 and int(text) < 2**31 else None


def _delay(address: str, text: str) -> float:
    delay = _number(text.encode())
    if not 0 <= delay <= MAX_DELAY:
        raise DeviceError(f"{address}: delay is {text!r}, it must be seconds from 0 to {MAX_DELAY:g}.")
    return delay


def _query(query: str, address: str) -> dict[str, str]:
    given: dict[str, str] = {}
    for part in filter(None, query.split("&")):
        key, equals, value = part.partition("=")
        if not equals or key in given:
            raise DeviceError(f"{address}: {part!r} is not understood; write key=value, each once, joined by &.")
        given[key] = unquote(value)
        if not given[key].isprintable():
            raise DeviceError(f"{address}: there are characters in {key} that cannot be printed; write it anew.")
    return given


def _plain(name: str) -> str:
    return name.strip().lower().replace("-", "_").replace("_board", "")


def _board(text: str, address: str, known: Mapping[str, int]) -> str:
    name = _plain(text)
    if name not in known:
        near = difflib.get_close_matches(name, known, 5, 0.5)
        hint = f"Nearest {'are' if len(near) > 1 else 'is'} {', '.join(near)}; all" if near else "All"
        raise DeviceError(
            f"{address}: BrainFlow has no board {text!r}. {hint} {len(known)} are listed by `insula devices brainflow`."
        )
    return name


# -- the library -------------------------------------------------------------------------------------------------------


def _library() -> Any:
    """``brainflow.board_shim``, its library loaded and silent. Raises DeviceError when it is not installed."""
    global _log
    with _library_lock:
        if _log is not None:
            return sys.modules["brainflow.board_shim"]
        if importlib.util.find_spec("brainflow") is None:
            raise DeviceError(f"brainflow: the package BrainFlow is missing; install it with: {INSTALL}")
        try:
            with _pkg_resources():
                board_shim = importlib.import_module("brainflow.board_shim")
                board_shim.BoardControllerDLL.get_instance()
        except (ImportError, OSError) as error:
            raise DeviceError(
                f"brainflow: BrainFlow cannot be loaded ({_clean(str(error))}); install it anew with: {INSTALL}"
            ) from error
        folder = Path(tempfile.mkdtemp(prefix="insula-brainflow-"))
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
        log = folder / "log.txt"
        board_shim.BoardShim.set_log_file(str(log))
        board_shim.BoardShim.set_log_level(int(board_shim.LogLevels.LEVEL_OFF))
        _log = log
        return board_shim


@contextmanager
def _pkg_resources() -> Iterator[None]:
    """Lets BrainFlow find its library without setuptools.

    Up to Python 3.11 it asks ``pkg_resources`` for one path (``importlib.resources.files`` takes no plain module
    there), which setuptools 82 no longer has, and 80 warns of. It is given that one function while it loads.
    """
    if "pkg_resources" in sys.modules:
        yield
        return
    stand_in = types.ModuleType("pkg_resources")
    stand_in.resource_filename = _resource_filename  # type: ignore[attr-defined]
    sys.modules["pkg_resources"] = stand_in
    try:
        yield
    finally:
        if sys.modules.get("pkg_resources") is stand_in:
            del sys.modules["pkg_resources"]


def _resource_filename(module: str, path: str) -> str:
    """The file at ``path`` beside the source of ``module``."""
    return str(Path(str(sys.modules[module].__file__)).parent / path.replace("\\", "/"))


def _descriptors(board: int) -> dict[int, dict[str, Any]]:
    """What BrainFlow says of each preset of a board.

    Only the presets that it has: asked for another one, BrainFlow 5.23 answers with an error, enters an empty preset
    into its own table, and from then on refuses to start the board.
    """
    shim = _library().BoardShim
    return {int(preset): dict(shim.get_board_descr(board, preset)) for preset in sorted(shim.get_board_presets(board))}


def _said(start: int) -> str:
    """The last error that BrainFlow wrote into its log from byte ``start`` on, as one line."""
    try:
        with (_log or Path()).open("rb") as log:
            log.seek(max(log.seek(0, 2) - 10_000, start))
            lines = log.read().decode("utf-8", errors="replace").splitlines()
    except OSError:
        return ""
    said = [line.rpartition("[error]")[2].strip() for line in lines if "[error]" in line]
    return _clean(said[-1]) if said else ""


def _clean(text: str) -> str:
    return "".join(letter if letter.isprintable() else " " for letter in text[:200]).strip().rstrip(".")


# -- the device --------------------------------------------------------------------------------------------------------


class BrainFlowDevice:
    """A board as a device. A thread opens it anew when it has fallen silent, with growing pauses.

    While BrainFlow opens one board it answers for no other: a second one is read a moment later, without loss.
    """

    def __init__(self, plan: _Plan) -> None:
        self._plan = plan
        board = str(_descriptors(boards()[plan.master])[0]["name"])
        self._streams = tuple(source.info for preset in plan.presets for source in preset.sources) + tuple(
            StreamInfo(
                key=preset.markers,
                kind="markers",
                channels=("marker",),
                rate=0.0,
                unit="",
                name=f"{preset.sources[0].info.name if preset.sources else board} markers",
                source=plan.address,
            )
            for preset in plan.presets
        )
        self._board: Any = None  # made when it is opened: BrainFlow's object complains when it outlives the interpreter
        self._config: tuple[int, str] | None = None
        self._entered = self._streaming = self._over = False
        self._lock = threading.Lock()
        """Held while rows are read, and while the board goes from one state to another."""
        self._wake = threading.Event()
        self._keeper: threading.Thread | None = None
        self._stop = False
        self._failure: BaseException | None = None
        self._next_look = 0.0
        self._heard = 0.0
        self._since = 0.0
        self._why = ""
        self._spoken: list[Item] = []
        self._measured = self._noticed = -math.inf
        self._identity = {
            "board": board,
            "board_id": str(plan.board),
            "brainflow": importlib.metadata.version("brainflow"),
        } | {key: str(plan.parameters[key]) for key in ("serial_number", "mac_address") if key in plan.parameters}

    @property
    def streams(self) -> Sequence[StreamInfo]:
        return self._streams

    @property
    def identity(self) -> Mapping[str, str]:
        """Board, BrainFlow's number of it, firmware where it says so, BrainFlow's version."""
        return dict(self._identity)

    @property
    def problem(self) -> str:
        """One line while the board gives nothing, else "". May be read from any thread."""
        if not self._entered or self._over:
            return ""
        silent = lsl_clock() - self._heard
        if silent < max(SILENT, 3.0 / max(preset.rate for preset in self._plan.presets)):
            return ""
        return f"{self._plan.address}: gives nothing for {silent:.0f} s" + (f"; {self._why}" if self._why else "")

    def __enter__(self) -> Self:
        if self._entered:
            raise DeviceError(f"{self._plan.address}: a device is opened once.")
        if failure := self._open():
            raise DeviceError(f"{self._plan.address}: {failure}.")
        self._entered = True
        if self._plan.reopens:
            self._keeper = threading.Thread(target=self._keep, name=f"keeper of {self._plan.name}", daemon=True)
            self._keeper.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._stop = True
        self._wake.set()
        if self._keeper is not None:
            self._keeper.join(CLOSE_TIMEOUT)
            if self._keeper.is_alive():
                return  # it is inside BrainFlow, opening the board, and lets go of it afterwards
        with self._lock:
            self._close()

    def read(self, timeout: float) -> list[Item]:
        """What has come; waits at most ``timeout`` seconds for it."""
        until = time.monotonic() + timeout
        while True:
            time.sleep(max(min(self._next_look, until) - time.monotonic(), 0.0))
            self._next_look = time.monotonic() + POLL
            if self._failure is not None:
                raise self._failure
            if not self._lock.acquire(timeout=max(until - time.monotonic(), 0.0)):
                return []  # BrainFlow takes its time to let go of a board
            try:
                items, self._spoken = self._spoken, []
                if self._streaming:
                    items += self._take()
            finally:
                self._lock.release()
            if items or time.monotonic() >= until:
                return items

    def _take(self) -> list[Item]:
        items: list[Item] = []
        ended = True
        for preset in self._plan.presets:
            now = lsl_clock()
            if now - preset.looked < (0.0 if preset.prompt else SLOW_POLL):
                ended = False
                continue
            try:
                table = self._board.get_board_data(LONGEST, preset.number)
            except Exception as error:  # noqa: BLE001  (BrainFlowError, of a library that is imported late)
                self._why = f"BrainFlow says: {_clean(str(error))}"
                ended = False
                continue
            after = lsl_clock()
            if table.shape[1]:
                self._heard = after
                self._why = ""
                arrivals = _arrivals(table[preset.time_row], preset.looked, after, after - time.time())
                if preset.left >= 0:
                    preset.left -= table.shape[1]
                runs = preset.counter.feed(np.ascontiguousarray(table.T), table[preset.number_row], arrivals)
                items += self._give(preset, runs)
            preset.looked = now
            ended &= preset.left == 0
        now = lsl_clock()
        if now - self._measured >= CLOCK_INTERVAL:
            items += self._clocks(now)
        if ended and not self._over:
            self._over = True
            for preset in self._plan.presets:
                items += self._give(preset, preset.counter.flush(), last=True)
            items.append(End())
        return items

    def _give(self, preset: _Preset, runs: Sequence[Run], last: bool = False) -> list[Item]:
        items: list[Item] = []
        for run in runs:
            count = len(run.rows)
            preset.clock.update((run.first + count - 1) / preset.rate, run.arrival)
            samples = (run.first + np.arange(count)) / preset.rate
            times = preset.clock.to_session(samples) - self._plan.delay
            if times[0] <= preset.last:  # the clock was set back under us: order comes first
                times = np.maximum(times, preset.last + np.arange(1, count + 1) * 1e-6)
            preset.last = float(times[-1])
            preset.lost += run.lost
            with np.errstate(over="ignore"):  # a recording may hold any number; nothing is printed of it
                rows = run.rows.astype(np.float32)
            for source in preset.sources:
                if run.lost and source.waiting:
                    items.append(_chunk(source))
                source.lost += run.lost
                source.waiting.append((times, rows[:, source.rows]))
            marked = np.flatnonzero(run.rows[:, preset.marker_row])
            if len(marked):
                labels = tuple(f"{value:g}" for value in run.rows[marked, preset.marker_row])
                items.append(Events(preset.markers, times[marked], labels))
        for source in preset.sources:
            if not source.waiting:
                continue
            span = source.waiting[-1][0][-1] - source.waiting[0][0][0]
            if last or source.info.kind in PROMPT or span >= SLOW_POLL:
                items.append(_chunk(source))
        now = lsl_clock()
        if preset.lost and (last or now - self._noticed >= NOTICE_INTERVAL):
            self._noticed = now
            key = preset.sources[0].info.key if preset.sources else preset.markers
            items.append(Notice(key, now, f"{preset.lost} samples lost"))
            preset.lost = 0
        return items

    def _clocks(self, now: float) -> list[Item]:
        self._measured = now
        items: list[Item] = []
        for preset in self._plan.presets:
            if not math.isfinite(preset.clock.offset):
                continue
            offset, unsure = preset.clock.offset - self._plan.delay, preset.clock.uncertainty
            unsure = unsure if math.isfinite(unsure) else math.nan
            keys = [*(source.info.key for source in preset.sources), preset.markers]
            items += [Clock(key, now, offset, unsure) for key in keys]
        return items

    # -- opening, and opening anew -------------------------------------------------------------------------------------

    def _open(self) -> str:
        """Open the board and let it stream; what is wrong, in words, or ""."""
        board_shim = _library()
        parameters = board_shim.BrainFlowInputParams()
        for key, value in self._plan.parameters.items():
            setattr(parameters, key, value)
        config = self._plan.board, str(parameters.to_json())
        size = max(preset.height for preset in self._plan.presets) * 8
        rate = max(preset.rate for preset in self._plan.presets)
        buffered = max(min(int(BUFFER_SECONDS * rate), BUFFER_BYTES // size), LONGEST)
        with _library_lock:
            if config in _taken:
                return EXIT_CODES[16]
            _taken.add(config)
            self._config = config
            self._board = board_shim.BoardShim(self._plan.board, parameters)
            before = _log.stat().st_size if _log is not None and _log.exists() else 0
            board_shim.BoardShim.set_log_level(int(board_shim.LogLevels.LEVEL_ERROR))
            try:
                self._board.prepare_session()
                self._ask(board_shim)
                self._board.start_stream(buffered)
            except BaseException as error:  # also Ctrl-C, which comes through when BrainFlow has done with opening
                said = _said(before)
                self._close()
                if not isinstance(error, board_shim.BrainFlowError):
                    raise
                words = EXIT_CODES.get(int(error.exit_code), _clean(str(error)))
                return words + (f" (BrainFlow: {said})" if said else "")
            finally:
                board_shim.BoardShim.set_log_level(int(board_shim.LogLevels.LEVEL_OFF))
        self._heard = self._since = lsl_clock()
        for preset in self._plan.presets:
            preset.looked = self._since
        self._streaming = True
        return ""

    def _ask(self, board_shim: Any) -> None:
        question = QUESTIONS.get(self._plan.name)
        if question:
            try:
                answer = str(self._board.config_board(question))
            except board_shim.BrainFlowError:
                return
            self._identity["firmware"] = _clean(answer.replace("$", ""))

    def _close(self) -> None:
        self._streaming = False
        board_shim = _library()
        try:
            if self._board is not None and self._board.is_prepared():
                self._board.release_session()
        except board_shim.BrainFlowError:
            pass  # it is gone, and with it what there was to release
        self._board = None
        if self._config is not None:
            _taken.discard(self._config)
            self._config = None

    def _keep(self) -> None:
        try:
            self._watch()
        except BaseException as error:  # noqa: BLE001  (handed to whoever reads)
            self._failure = error

    def _watch(self) -> None:
        attempts = 0
        heard_before = False
        while not self._stop:
            self._wake.wait(0.25)
            if self._stop:
                return
            now, heard = lsl_clock(), self._heard
            heard_before |= heard > self._since
            slowest = 3.0 / max(preset.rate for preset in self._plan.presets)
            if self._streaming and now - heard < max(GIVEN_UP if heard_before else FIRST_ROW, slowest):
                attempts = 0 if heard > self._since else attempts
                continue
            attempts = self._reopen(heard, attempts)
            heard_before = False

    def _reopen(self, silent_since: float, attempts: int) -> int:
        """Close, wait, open, until it streams; returns how often it was tried."""
        first = self._plan.presets[0]
        key = first.sources[0].info.key if first.sources else first.markers
        with self._lock:
            self._close()
            for preset in self._plan.presets:
                self._spoken += self._give(preset, preset.counter.restart(), last=True)
            self._spoken.append(Notice(key, lsl_clock(), "the board fell silent; its connection is opened anew"))
        while not self._stop:
            self._why = self._why or "its connection is opened anew"
            self._wake.wait(PAUSES[min(attempts, len(PAUSES) - 1)])
            if self._stop:
                break
            attempts += 1
            failure = self._open()
            if not failure:
                if self._stop:
                    self._close()
                    break
                self._why = ""
                away = lsl_clock() - silent_since
                with self._lock:
                    self._spoken.append(Notice(key, lsl_clock(), f"the board is open again after {away:.1f} s"))
                break
            self._why = f"attempt {attempts} to open it anew: {failure}"
        return attempts


def _arrivals(stamps: NDArray[np.float64], earliest: float, now: float, offset: float) -> NDArray[np.float64]:
    """When rows arrived, session clock (n,): their Unix stamps, held between the look before and this one.

    So neither a step of the wall clock nor a board that stamps with a clock of its own can move them by more than the
    time between two looks.
    """
    arrivals = stamps + offset
    if not np.isfinite(arrivals).all():
        arrivals = np.nan_to_num(arrivals, nan=earliest)
    return np.maximum.accumulate(np.minimum(np.maximum(arrivals, earliest), now))


def _chunk(source: _Source) -> Chunk:
    times, rows = (np.concatenate(parts) for parts in zip(*source.waiting, strict=True))
    lost, source.lost = source.lost, 0
    source.waiting.clear()
    return Chunk(source.info.key, times, rows, lost)

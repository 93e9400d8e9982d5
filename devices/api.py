"""What every source of signal owes the rest: streams, and items in the order in which they came."""

from __future__ import annotations

import importlib
import importlib.util
import pkgutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, Self, runtime_checkable

import numpy as np
from numpy.typing import NDArray

_UNITS = {
    **dict.fromkeys(("uv", "µv", "μv", "microvolt", "microvolts", "-6"), "uV"),
    **dict.fromkeys(("mv", "millivolt", "millivolts", "-3"), "mV"),
    **dict.fromkeys(("v", "volt", "volts", "0"), "V"),
    **dict.fromkeys(("none", "na", "n/a"), ""),
}


def unit_name(text: str) -> str:
    """The short name of a unit as sources spell it; the numbers are the powers of ten that MNE-LSL writes.

    >>> [unit_name(text) for text in ("microvolts", "-6", " V", "bpm", "")]
    ['uV', 'uV', 'V', 'bpm', '']
    """
    return _UNITS.get(text.strip().lower(), text.strip())


class DeviceError(Exception):
    """A source that cannot be used: names it, says what was found and what to do. One line."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamInfo:
    """What a stream is. Signals have a nominal rate. Without one, rate 0, texts come as `Events` and numbers as
    `Chunk`s, each sample when it comes."""

    key: str
    """Unique in a session: "eeg", "h10/ecg"."""
    kind: str
    """What is measured: "eeg", "ecg", "markers", "acc", ... always lower case."""
    channels: tuple[str, ...]
    """10-20 labels for EEG, as the source spells them."""
    rate: float
    """Hz, nominal; 0.0 for what comes when it comes: events, and numbers that are recorded but not analysed."""
    unit: str
    """Of every channel: "uV", "mV", "V"; "" when unknown or not applicable."""
    name: str = ""
    """As the source calls itself; text from outside, never to be trusted as a path."""
    source: str = ""
    """The address that opens it again, for the record and the screen."""
    format: str = ""
    """Of the samples, as XDF names it: float32, double64, int8, int16, int32, int64, string. When not said, float32
    with a rate and string without."""

    def __post_init__(self) -> None:
        if not self.format:
            object.__setattr__(self, "format", "float32" if self.rate else "string")

    @property
    def numeric(self) -> bool:
        """Whether it comes as `Chunk`s; else as `Events`."""
        return self.format != "string"

    @property
    def marks(self) -> bool:
        """Whether each of its entries is a mark on the screen: markers, texts or numbers, and lone whole numbers, as a
        trigger box sends them."""
        lone = self.format.startswith("int") and len(self.channels) == 1
        return self.rate == 0.0 and (self.kind == "markers" or lone)


@dataclass(frozen=True, slots=True, eq=False)
class Chunk:
    """Samples of one stream, as they came.

    ``times`` (n,) are seconds on the session clock (LSL's local_clock in a live session, the file's clock in a
    replay), ``data`` is (n, channels) in the stream's unit and format; ``lost`` counts samples known to be missing just
    before. Whoever receives a chunk may keep it: nobody writes into it again. A chunk without samples says that the
    source is there and what it sent is still to come; what it has ``lost`` counts before the next
    sample, or at the end of the stream.
    """

    stream: str
    times: NDArray[np.float64]
    data: NDArray[np.floating[Any] | np.integer[Any]]
    lost: int = 0

    @property
    def single(self) -> NDArray[np.float32]:
        """``data`` in single precision, as it is analysed and shown; what that cannot hold is infinite."""
        with np.errstate(over="ignore"):
            return np.asarray(self.data, np.float32)

    @property
    def texts(self) -> tuple[str, ...]:
        """One text a sample, as a mark on the screen says it: channels joined by a comma, numbers as short as they can
        be said exactly.

        >>> Chunk("box", np.zeros(2), np.array([[0.1, 7.0], [1e-3, 2.5]], np.float32)).texts
        ('0.1, 7', '0.001, 2.5')
        """
        shortest = np.float32 if self.data.dtype == np.float32 else float
        return tuple(", ".join(_number(value, shortest) for value in row) for row in self.data.tolist())


def _number(value: int | float, shortest: type) -> str:
    if isinstance(value, int) or (value.is_integer() and abs(value) < 1e15):
        return str(int(value))
    return str(shortest(value))


@dataclass(frozen=True, slots=True, eq=False)
class Events:
    """Markers of one stream: ``times`` (n,) on the session clock and as many texts; ``lost`` are known to be missing
    just before."""

    stream: str
    times: NDArray[np.float64]
    labels: tuple[str, ...]
    lost: int = 0


@dataclass(frozen=True, slots=True)
class Clock:
    """The clock of a stream's source was measured against the session clock; a device says so every 5 s or so.

    ``time`` is when, on the session clock. ``offset`` (seconds, to be added to the source's own stamps) and its
    ``uncertainty`` (one standard deviation, seconds; NaN when unknown) are what all measurements so far say together,
    each by its worth; ``residual`` is what of it the stamps that are given out from then on do not yet contain.
    """

    stream: str
    time: float
    offset: float
    uncertainty: float
    residual: float = 0.0


@dataclass(frozen=True, slots=True)
class Notice:
    """Something of note has happened to a source at ``time`` on the session clock: one line, recorded and shown."""

    stream: str
    time: float
    text: str


@dataclass(frozen=True, slots=True)
class Tick:
    """The session clock has reached ``time``: windows whose deadline is past are cut without what is missing.

    A live session makes its own ticks from the wall clock and records the ones that cut a window. A device that
    replays a file yields them, so that a replay cuts what the session cut.
    """

    time: float


@dataclass(frozen=True, slots=True)
class Rewind:
    """A replay starts over (seek backwards, loop): whoever keeps state about earlier items forgets it."""


@dataclass(frozen=True, slots=True)
class End:
    """Nothing follows. ``reason`` is "" at the natural end of a recording, else one line on what went wrong."""

    reason: str = ""


Item = Chunk | Events | Clock | Notice | Tick | Rewind | End


class Device(Protocol):
    """A source. A context manager; ``read`` is called from one thread only.

    It may also have, readable from any thread: ``problem``, a line for each thing that is wrong with it, else "": what
    is wrong, then, after a semicolon, details that may change while it is;
    ``greeting``, what the researcher must know to use it, said once at the start and never recorded;
    ``identity``, texts by name (host, uid, serial, firmware) for the record's description;
    ``owed``, by stream how many samples or markers are missing of which no chunk has told yet, asked at the end;
    ``taken``, what has taken the place of the first sender since: session clock and identity of each.
    """

    @property
    def streams(self) -> Sequence[StreamInfo]: ...

    def read(self, timeout: float) -> Iterable[Item]:
        """What has come since the last call; waits at most ``timeout`` seconds and may give nothing."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(self, *exc: object) -> None: ...


@runtime_checkable
class Transport(Protocol):
    """The controls of a device that replays. May be called from any thread; they act at the next ``read``."""

    @property
    def start(self) -> float:
        """Session-clock time of the first sample to be replayed."""
        ...

    @property
    def stop(self) -> float:
        """Session-clock time of the last sample to be replayed."""
        ...

    @property
    def position(self) -> float: ...

    @property
    def playing(self) -> bool: ...

    @property
    def speed(self) -> float:
        """1.0 is real time, ``inf`` as fast as the reader takes it."""
        ...

    def play(self) -> None: ...

    def pause(self) -> None: ...

    def set_speed(self, speed: float) -> None: ...

    @property
    def looping(self) -> bool:
        """Whether the end is followed by the start, with a `Rewind` between, instead of `End`."""
        ...

    def set_loop(self, on: bool) -> None: ...

    def step(self, seconds: float) -> None:
        """Pause, and deliver the next ``seconds`` of the recording at once."""
        ...

    def seek(self, time: float) -> None:
        """Go on at ``time``. Everything before it is still delivered, unpaced, so that state (filters, resting
        baseline) is what it would have been; going backwards yields `Rewind` first."""
        ...


@dataclass(frozen=True, slots=True)
class Found:
    """A source that is there: the address that opens it, and what it is, in a line of text from outside."""

    address: str
    what: str


def schemes() -> list[str]:
    """The address schemes there are: every file of this folder that has ``connect``."""
    import devices

    names = []
    for module in pkgutil.iter_modules(devices.__path__):
        spec = importlib.util.find_spec(f"devices.{module.name}")
        if spec and spec.origin and "\ndef connect(" in _source(spec.origin):
            names.append(module.name)
    return sorted(names)


def _source(origin: str) -> str:
    from pathlib import Path

    return Path(origin).read_text(encoding="utf-8")


def discover(scheme: str, seconds: float) -> list[Found]:
    """What of a scheme is there right now, looking for at most ``seconds``; empty for schemes that cannot look.

    ``devices/<scheme>.py`` may have ``discover(seconds)`` for this. Raises DeviceError in words, also when a package
    that it needs is missing.
    """
    module = importlib.import_module(f"devices.{scheme}")
    found: list[Found] = module.discover(seconds) if hasattr(module, "discover") else []
    return found


def open_device(address: str) -> Device:
    """The device at ``scheme:rest``, for example ``lsl:type=EEG``. Raises DeviceError in words.

    The file name is the registration: ``devices/<scheme>.py`` has ``connect(rest)``.
    """
    scheme, colon, rest = address.partition(":")
    if not colon or scheme not in schemes():
        known = ", ".join(f"{name}:" for name in schemes())
        what = f"{address}: no such kind of source." if address.strip() else "a source without an address."
        raise DeviceError(f"{what} Known are {known} for example lsl:type=EEG.")
    module = importlib.import_module(f"devices.{scheme}")
    device: Device = module.connect(rest)
    return device

"""The messages between the engine and whoever looks at it. Only these cross the process boundary."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from devices.api import StreamInfo
from models.api import Estimate, Verdict

STALE = 0.8
"""Seconds without a sample after which a live stream is said to be silent. A chest strap sends every 0.56 s."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelCard:
    """What the screen says of the model beside its estimates."""

    name: str
    hash: str
    targets: tuple[str, ...]
    meanings: tuple[str, ...]
    """In words, for each target, what the ends of its range are."""
    seconds: float
    hop: float
    accuracy: str
    """One line, measured on people not trained on, for example "balanced accuracy 0.84 [0.79, 0.88], 28 people"."""
    limits: str
    """One line: what the estimate is not."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Hello:
    """First message to whoever attaches: what this session is."""

    title: str
    """"demo", "replay of NAME.xdf", "live"."""
    streams: tuple[StreamInfo, ...]
    used: tuple[tuple[str, str], ...]
    """(kind, stream key) of what the model is fed with."""
    model: ModelCard | None
    """None: signals are shown and recorded, nothing is estimated."""
    replay: bool
    start: float
    """Session clock; for a replay the recording's first sample."""
    stop: float
    """For a replay the recording's last sample; NaN when live."""


@dataclass(frozen=True, slots=True, eq=False)
class Traces:
    """Samples for the eye: raw, in the stream's unit, decimated to min/max pairs when the rate is above 250 Hz.

    ``times`` (n,), ``data`` (n, channels). ``gap`` says that samples are missing just before.
    """

    stream: str
    times: NDArray[np.float64]
    data: NDArray[np.float32]
    gap: bool = False


@dataclass(frozen=True, slots=True)
class Marked:
    """Markers as they came: (time on the session clock, text, stream)."""

    time: float
    label: str
    stream: str


@dataclass(frozen=True, slots=True)
class Noted:
    """Something of note happened at ``time`` on the session clock: an alarm came or went, a source was restarted.

    One line, partly of text from outside. It stays when what is said in `Health.alarms` has gone.
    """

    time: float
    text: str
    alarm: bool = False
    """Whether it is an alarm that begins."""


@dataclass(frozen=True, slots=True, eq=False)
class Estimated:
    """One estimate and the channel verdicts of its window."""

    estimate: Estimate
    quality: dict[str, tuple[Verdict, ...]]


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamHealth:
    key: str
    stale: float
    """Seconds since the newest sample or event; NaN before the first."""
    rate: float
    """Hz, effective, over the last seconds; NaN when unknown, and for events."""
    samples: int
    """Or events."""
    lost: int
    """Samples known to be missing or refused so far."""
    gaps: int = 0
    """Holes in time so far."""
    offset_ms: float = math.nan
    """By which the clock of the source was last found to differ from the session's; NaN when it was not measured."""
    offset_sd_ms: float = math.nan
    """How uncertain that is, one standard deviation; NaN when unknown."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Health:
    """A few times a second: is everything well?"""

    now: float
    """Session clock; in a replay the position."""
    streams: tuple[StreamHealth, ...]
    skipped: int
    """Windows the model was too slow for."""
    latency_ms: float
    """Newest sample to published estimate, last window; NaN when unknown or in a replay."""
    record: str
    """Where the record goes, "" when nothing is recorded."""
    record_bytes: int
    playing: bool = True
    speed: float = 1.0
    looping: bool = False
    unrecorded: int = 0
    """Chunks, markers and estimates that the disk did not take so far."""
    alarms: tuple[str, ...] = ()
    """What is broken right now, one line each; empty when all is well."""


@dataclass(frozen=True, slots=True)
class Cleared:
    """A replay started over: forget traces, markers, notes and estimates."""


@dataclass(frozen=True, slots=True)
class Ended:
    """The session is over; ``reason`` is "" when it ended as it should."""

    reason: str = ""


Update = Hello | Traces | Marked | Noted | Estimated | Health | Cleared | Ended


@dataclass(frozen=True, slots=True)
class Play:
    pass


@dataclass(frozen=True, slots=True)
class Pause:
    pass


@dataclass(frozen=True, slots=True)
class SetSpeed:
    speed: float


@dataclass(frozen=True, slots=True)
class Seek:
    time: float


@dataclass(frozen=True, slots=True)
class Step:
    """Pause a replay and go on by ``seconds`` of it at once."""

    seconds: float


@dataclass(frozen=True, slots=True)
class SetLoop:
    """Whether the end of a replay is followed by its start."""

    on: bool


@dataclass(frozen=True, slots=True)
class Mark:
    """The researcher's marker, stamped when it reaches the engine."""

    label: str
    at: float = field(default=math.nan, compare=False)
    """``time.monotonic()`` when it arrived; filled in by the engine."""


@dataclass(frozen=True, slots=True)
class Stop:
    """End the session."""


Command = Play | Pause | SetSpeed | Seek | Step | SetLoop | Mark | Stop

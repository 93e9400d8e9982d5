"""The messages between the engine and whoever looks at it. Only these cross the process boundary."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from devices.api import StreamInfo
from models.api import Estimate, Verdict

STALE = 0.8
"""Seconds without a sample after which a live stream is said to be silent, unless it sends in packets that are far
apart: `realtime.alarms.patience`."""

BANDS = ("delta", "theta", "alpha", "beta", "gamma")
"""Of rhythms; their edges are in `realtime.bandpower`, which is not needed to look at them."""
RHYTHM_SECONDS = 4.0
"""Of signal behind the figures and the verdicts of a `Brain`."""
HEART_COLUMNS = {
    "hr": "HR",
    "rmssd": "RMSSD",
    "sdnn": "SDNN",
    "pnn50": "pNN50",
    "lf": "LF",
    "hf": "HF",
    "lf_hf": "LF/HF",
    "sd1": "SD1",
    "sd2": "SD2",
    "breathing": "breathing",
    "pr": "PR",
    "qrs": "QRS",
    "qt": "QT",
    "qtc": "QTc",
}
HEART_UNITS = ("bpm", "ms", "ms", "%", "ms^2", "ms^2", "", "ms", "ms", "1/min", "ms", "ms", "ms", "ms")
INTERVAL_BEATS = {"pr_beats": "PR", "qrs_beats": "QRS", "qt_beats": "QT"}
"""How many beats are behind an interval; those behind QT are behind QTc."""
BODY_COLUMNS: dict[str, str] = {
    **dict(zip(HEART_COLUMNS, HEART_UNITS, strict=True)),
    **dict.fromkeys(INTERVAL_BEATS, "beats"),
    "corrected": "%",
    **dict.fromkeys(BANDS, "uV^2"),
    **{f"{band}_share": "%" for band in BANDS},
    "asymmetry": "",
    "theta_beta": "",
    "alpha_peak": "Hz",
    "slope": "",
}
"""Name and unit of every figure of a `Body`, as they are recorded and published."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelCard:
    """What the screen says of the model beside its estimates."""

    name: str
    hash: str
    targets: tuple[str, ...]
    meanings: tuple[str, ...]
    """In words, for each target, what the ends of its range are."""
    kinds: tuple[str, ...]
    """For each target "binary", "ordinal" or "continuous", as `models.bundle.Target` says."""
    ranges: tuple[tuple[float, float], ...]
    """For each target the lowest and the highest value it can have."""
    levels: tuple[tuple[float, ...], ...]
    """For each target, if it is ordinal, its values, rising; else ()."""
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
    """Samples for the eye, in the stream's unit, decimated to min/max pairs when the rate is above 250 Hz.

    ``times`` (n,), ``data`` (n, rows): the stream's channels as they came, or what the last `Shown` of the stream says.
    ``gap`` says that samples are missing just before.
    """

    stream: str
    times: NDArray[np.float64]
    data: NDArray[np.float32]
    gap: bool = False


@dataclass(frozen=True, slots=True)
class Shown:
    """What the `Traces` of a stream are from here on; without one they are its channels as they came.

    For the eye alone: record, model, quality, rhythms and heart take the stream as it came.
    """

    stream: str
    labels: tuple[str, ...]
    """(rows,)."""
    reference: str = "as recorded"
    """What was asked for, as ``repair`` is."""
    repair: bool = False
    said: str = ""
    """What is shown, or why what was asked for is not, in words; "" when nothing was asked for."""
    interpolated: tuple[str, ...] = ()
    """Those of the ``labels`` that are made of the other channels."""
    altered: bool = False
    """Whether anything but what came is shown."""
    anew: bool = False
    """The traces before are void; those of them that are kept come again."""


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


@dataclass(frozen=True, slots=True)
class Resting:
    """How far the resting baseline is: a kind of signal with too little good signal in it is left out afterwards."""

    seconds_left: float
    """Until it can close; 0 when it has, or when only good signal is wanting. All of it before it has begun."""
    needed: float
    """Seconds of good signal that a kind needs."""
    good: Mapping[str, float]
    """kind -> seconds of good signal so far."""
    begun: bool
    complete: bool


@dataclass(frozen=True, slots=True, eq=False)
class Estimated:
    """One estimate and the channel verdicts of its window."""

    estimate: Estimate
    quality: dict[str, tuple[Verdict, ...]]
    resting: Resting | None = None
    """As it is after this window; None when nobody kept it."""


@dataclass(frozen=True, slots=True)
class Figure:
    """One figure of the heart over the ``seconds`` before the time of its `Body`."""

    value: float
    """NaN when it is not valid; ``reason`` says why, in words."""
    unit: str
    seconds: float
    reason: str = ""
    corrected: float = 0.0
    """Share of the beats of the window that are not normal, or not certain, and were left out."""
    beats: int = 0
    """Behind an interval: those in which its waves were seen, valid or not."""


@dataclass(frozen=True, slots=True, eq=False)
class Brain:
    """Rhythms of one EEG stream over the last 4 s; slope and peak over the last 30 s. NaN where not valid.

    Powers are in uV^2, and NaN when the stream's unit is unknown; shares are of the sum over all bands of `BANDS`.
    The figures without a channel are of the channels that are valid and called as an electrode is, or of all valid
    ones when none is: means of powers, shares and ratio, medians of slope and peak.
    """

    stream: str
    labels: tuple[str, ...]
    absolute: NDArray[np.float32]
    """(channels, bands)."""
    relative: NDArray[np.float32]
    """(channels, bands)."""
    slopes: NDArray[np.float32]
    """(channels,) exponent of the aperiodic spectrum: 1/f^x has -x."""
    peaks: NDArray[np.float32]
    """(channels,) Hz."""
    invalid: tuple[str, ...]
    """(channels,) why a channel has no figures, in words; "" where it has."""
    powers: NDArray[np.float64]
    """(bands,)."""
    shares: NDArray[np.float64]
    """(bands,)."""
    theta_beta: float = math.nan
    slope: float = math.nan
    peak: float = math.nan
    asymmetry: tuple[tuple[str, float], ...] = ()
    """("F4-F3", ln alpha right - ln alpha left), the most established pair first."""
    averaged: int = 0
    """Channels behind the figures without a channel."""
    reason: str = ""
    """Why there is nothing at all, in words."""
    remark: str = ""
    """What must be known of the figures, in words."""
    verdicts: tuple[Verdict, ...] = ()
    """Of the channels that were judged for this, over the last 4 s; () when none was."""
    absent: Mapping[str, str] = field(default_factory=dict)
    """Why ``slope``, ``peak``, ``theta_beta`` or ``asymmetry`` is not given, in words, by that name."""


@dataclass(frozen=True, slots=True, eq=False)
class Body:
    """Heart and rhythms at a whole second, ``time`` on the session clock. Once a second of signal.

    The last one of a session is of the second that its end cut short: it decides of the last beats, has no ``brains``,
    and only comes when there are such beats.
    """

    time: float
    ecg: str
    """Key of the stream of the ECG; "" when there is none."""
    heart: dict[str, Figure]
    """By name: HR, RMSSD, SDNN, pNN50, SD1, SD2, LF, HF, LF/HF, breathing, and PR, QRS, QT, QTc, which are medians over
    the last beats; QTc after Fridericia. Empty without an ECG."""
    reason: str
    """Why ``heart`` is empty, in words."""
    remark: str
    """What must be known of the heart's figures, in words."""
    intervals: NDArray[np.float64]
    """(n, 3) RR intervals of which it was decided since the `Body` before what they are, some seconds after they came:
    session clock of the beat that ends it, seconds (NaN for the first beat after a gap), 1.0 when it is between normal
    beats and 0.0 when it was left out."""
    brains: tuple[Brain, ...]
    """Of every EEG stream; what feeds the model first."""

    def values(self) -> tuple[float, ...]:
        """The figures in the order of `BODY_COLUMNS`; NaN where there is none."""
        figures = [figure.value if (figure := self.heart.get(name)) else math.nan for name in HEART_COLUMNS.values()]
        figures += [one.beats if (one := self.heart.get(name)) else math.nan for name in INTERVAL_BEATS.values()]
        variability = self.heart.get("RMSSD")
        figures.append(100 * variability.corrected if variability and not variability.reason else math.nan)
        if not self.brains:
            return (*figures, *(math.nan,) * (len(BODY_COLUMNS) - len(figures)))
        brain = self.brains[0]
        asymmetry = brain.asymmetry[0][1] if brain.asymmetry else math.nan
        rhythms = [*brain.powers.tolist(), *(100 * brain.shares).tolist()]
        return (*figures, *rhythms, asymmetry, brain.theta_beta, brain.peak, brain.slope)


@dataclass(frozen=True, slots=True, eq=False)
class Beats:
    """Beats of the ECG as they are found, some tenths of a second after they were: for marks on its trace.

    ``times`` (n,) of the R peaks, session clock; ``amplitudes`` (n,) uV, negative when they point down, NaN when the
    stream's unit is unknown; ``confidences`` (n,) 0 to 1. ``waves`` (m, 9) are of beats that another one has followed:
    session clock of onset, peak and offset of P, QRS and T, NaN where a wave is not seen.
    """

    stream: str
    channel: str
    """Label of the lead."""
    times: NDArray[np.float64]
    amplitudes: NDArray[np.float64]
    confidences: NDArray[np.float64]
    waves: NDArray[np.float64]


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
    patience: float = STALE
    """Seconds of ``stale`` beyond which it is silent."""


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


Update = Hello | Traces | Shown | Marked | Noted | Estimated | Beats | Body | Health | Cleared | Ended


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
class SetDisplay:
    """Draw EEG against another reference, a name of `realtime.rereference.SCHEMES`, or repaired. For the eye alone."""

    reference: str = "as recorded"
    repair: bool = False
    """Without blinks, and bad channels interpolated."""


@dataclass(frozen=True, slots=True)
class Mark:
    """The researcher's marker, stamped when it reaches the engine."""

    label: str
    at: float = field(default=math.nan, compare=False)
    """``time.monotonic()`` when it arrived; filled in by the engine."""


@dataclass(frozen=True, slots=True)
class Stop:
    """End the session."""


Command = Play | Pause | SetSpeed | Seek | Step | SetLoop | SetDisplay | Mark | Stop

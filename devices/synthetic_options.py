"""What can be asked of the made-up person of ``synthetic:``, and the courses that it follows in time. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from urllib.parse import parse_qsl

import numpy as np
from numpy.typing import NDArray

# fmt: off
MONTAGE_19 = ("Fp1", "Fp2", "F3", "F4", "C3", "C4", "P3", "P4", "O1", "O2",
              "F7", "F8", "T3", "T4", "T5", "T6", "Fz", "Cz", "Pz")
# fmt: on
MONTAGE_8 = ("Fp1", "Fp2", "C3", "C4", "P3", "P4", "O1", "O2")
MOST_PIECES = 1000
SHORTEST_PIECE, LONGEST_PIECE = 0.5, 86400.0
LATEST = 1e7
"""Seconds."""


@dataclass(frozen=True, slots=True)
class Course:
    """A level between 0 and 1 over time, in ``pieces`` of (seconds, level) that repeat.

    A piece begins with a change from the level before it along half a cosine that takes ``ramp`` seconds, or the whole
    piece when that is shorter; the very first has nothing to change from.
    """

    pieces: tuple[tuple[float, float], ...]
    ramp: float

    def at(self, times: NDArray[np.float64]) -> NDArray[np.float64]:
        """The levels (n,) at these seconds from the first sample (n,)."""
        seconds, levels = (np.array(column, np.float64) for column in zip(*self.pieces, strict=True))
        if len(levels) == 1:
            return np.full(len(times), levels[0])
        ends = np.cumsum(seconds)
        within = np.mod(np.maximum(times, 0.0), ends[-1])
        piece = np.minimum(np.searchsorted(ends, within, side="right"), len(ends) - 1)
        before = np.where((piece == 0) & (times < ends[-1]), levels[0], levels[piece - 1])
        since = within - (ends - seconds)[piece]
        ramp = np.minimum(self.ramp, seconds[piece])
        done = np.where(since < ramp, 0.5 - 0.5 * np.cos(np.pi * since / np.maximum(ramp, 1e-9)), 1.0)
        reached: NDArray[np.float64] = before + (levels[piece] - before) * done
        return reached

    def beginnings(self) -> Iterator[tuple[float, float]]:
        """When each piece begins, in seconds from the first sample, and its level; without end, one alone once."""
        within = np.concatenate([[0.0], np.cumsum([seconds for seconds, _ in self.pieces])]).tolist()
        rounds = 0
        while True:
            for begin, (_, level) in zip(within, self.pieces, strict=False):
                yield rounds * within[-1] + begin, level
            if len(self.pieces) == 1:
                return
            rounds += 1


RAMP = 2.0
EYES_RAMP = 0.5
EYES = {"closed": 0.0, "open": 1.0}
RESTING = Course(((1.0, 0.0),), RAMP)
OPEN = Course(((1.0, EYES["open"]),), EYES_RAMP)


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """A person at rest with open eyes, unless said otherwise. Amplitudes in uV, rates in Hz, times in seconds."""

    seed: int = 0
    script: Course = RESTING
    """Arousal."""
    eyes: Course = OPEN
    channels: int = 19
    eeg_rate: int = 250
    background: float = 10.0
    """Standard deviation."""
    alpha: float = 25.0
    """Mean amplitude of the 10 Hz rhythm at O1 and O2, eyes closed, without arousal."""
    beta: float = 3.0
    """Standard deviation at Fz and Cz, without arousal."""
    blink: float = 100.0
    """Height at Fp1 and Fp2."""
    blinks: float = 15.0
    """A minute, while the eyes are open."""
    muscle: float = 15.0
    """Standard deviation within a burst at T3 and T4."""
    line: float = 1.0
    """Amplitude, mean over the channels."""
    mains: int = 50
    """Frequency."""
    bpm: float = 72.0
    """Mean heart rate, beats a minute, without arousal."""
    rmssd: float = 40.0
    """Of the RR intervals, milliseconds, without arousal."""
    lf_hf: float = 1.0
    """Power of the RR intervals about 0.1 Hz (Mayer waves) over that about 0.25 Hz (breathing), without arousal."""
    ecg_rate: int = 130
    dropout: tuple[tuple[float, float], ...] = ()
    """(begin, length): the device is silent and what it measures is lost."""
    flat: tuple[str, ...] = ()
    """Channels of which nothing is heard."""

    @property
    def montage(self) -> tuple[str, ...]:
        """The EEG channels."""
        return MONTAGE_8[: self.channels] if self.channels <= 8 else MONTAGE_19[: self.channels]


LIMITS = {
    "seed": (0, 2**32 - 1),
    "channels": (1, 19),
    "eeg_rate": (100, 4000),
    "background": (0.0, 1000.0),
    "alpha": (0.0, 200.0),
    "beta": (0.0, 200.0),
    "blink": (0.0, 2000.0),
    "blinks": (0.0, 40.0),
    "muscle": (0.0, 2000.0),
    "line": (0.0, 2000.0),
    "bpm": (20.0, 240.0),
    "rmssd": (0.0, 150.0),
    "lf_hf": (0.0, 20.0),
    "ecg_rate": (100, 4000),
}
WHOLE = ("seed", "channels", "eeg_rate", "ecg_rate")
RAMPS = (0.0, LONGEST_PIECE)
USAGE = {
    "script": "script=60:0,60:1 (seconds:arousal from 0 to 1, repeating)",
    "eyes": "eyes=open, eyes=closed or eyes=30:open,30:closed (seconds:eyes, repeating)",
    "dropout": "dropout=30:3,90:10 (begin:length in seconds, one after the other)",
    "mains": "mains=50 or mains=60 (hertz)",
    "flat": "flat=Fp1,O2 (channels that are there, or ECG)",
    "ramp": f"ramp={RAMP:g} (seconds that a change of arousal takes)",
}


def read_options(query: str) -> Options:
    """The options that ``name=value&name=value`` gives. Raises ValueError with what cannot be used and what can."""
    given: dict[str, object] = {}
    ramp = RAMP
    pairs = dict(parse_qsl(query, keep_blank_values=True))
    for name, text in pairs.items():
        try:
            if name == "ramp":
                ramp = _number(text, *RAMPS)
            elif name == "eyes":
                given[name] = Course(_pieces(f"1:{text}" if text in EYES else text, EYES), EYES_RAMP)
            elif name == "script":
                given[name] = Course(_pieces(text, {}), RAMP)
            elif name == "dropout":
                given[name] = _stretches(text)
            elif name == "mains":
                given[name] = {"50": 50, "60": 60}[text]
            elif name == "flat":
                given[name] = tuple(text.split(","))
            else:
                value = _number(text, *LIMITS[name])
                given[name] = int(text) if name in WHOLE else value
        except (ValueError, KeyError):
            said = " ".join(f"{name}={text} cannot be used.".split())  # one line, whatever came percent-encoded
            if name in USAGE:
                raise ValueError(f"{said} Write {USAGE[name]}.") from None
            known = ", ".join(f"{key} {least:g} to {most:g}" for key, (least, most) in LIMITS.items())
            raise ValueError(f"{said} Options are {known}, {', '.join(USAGE)}.") from None
    if isinstance(script := given.get("script"), Course):
        given["script"] = Course(script.pieces, ramp)
    options = Options(**given)  # type: ignore[arg-type]  # each was made of its type above
    if unknown := set(options.flat) - {*options.montage, "ECG"}:
        raise ValueError(
            f"flat={sorted(unknown)[0]!r} is no channel here. There are {', '.join(options.montage)} and ECG."
        )
    return options


def _number(text: str, least: float, most: float) -> float:
    value = float(text)
    if not least <= value <= most:
        raise ValueError
    return value


def _pieces(text: str, names: dict[str, float]) -> tuple[tuple[float, float], ...]:
    pieces = []
    for piece in text.split(","):
        seconds, _, level = piece.partition(":")
        reached = names[level] if names else _number(level, 0.0, 1.0)
        pieces.append((_number(seconds, SHORTEST_PIECE, LONGEST_PIECE), reached))
    if len(pieces) > MOST_PIECES:
        raise ValueError
    return tuple(pieces)


def _stretches(text: str) -> tuple[tuple[float, float], ...]:
    stretches: list[tuple[float, float]] = []
    for stretch in text.split(","):
        begin, _, length = stretch.partition(":")
        stretches.append((_number(begin, 0.0, LATEST), _number(length, 0.01, LONGEST_PIECE)))
        if len(stretches) > 1 and stretches[-1][0] < sum(stretches[-2]):
            raise ValueError
    if len(stretches) > MOST_PIECES:
        raise ValueError
    return tuple(stretches)

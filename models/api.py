"""What goes into a model and what comes out."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

Arrays = Mapping[str, NDArray[np.float32]]


class ModelError(Exception):
    """A bundle or runtime that cannot be used: names it, says what was found and what to do. One line."""


@dataclass(frozen=True, slots=True, kw_only=True)
class InputSpec:
    """One kind of signal a model takes, as its manifest says it."""

    kind: str
    channels: tuple[str, ...]
    """In the order the network sees."""
    unit: str = "uV"
    band: tuple[float, float] = (0.5, 45.0)
    """Hz, causal Butterworth band-pass before resampling."""
    notch: tuple[float, ...] = ()
    """Hz, causal notches, applied where the stream's rate allows them."""
    min_channels: int = 1
    """With fewer of ``channels`` in the stream the kind counts as absent."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WindowSpec:
    """How signals are cut for a model. Nobody types a window length twice: it is in the manifest."""

    inputs: tuple[InputSpec, ...]
    rate: float = 200.0
    """Hz of the model's grid; grid point n lies at n / rate seconds on the session clock."""
    seconds: float = 10.0
    hop: float = 1.0
    """Windows end at whole multiples of this on the session clock."""


BAD_SCORE = 0.5
"""A channel whose score is below it is bad: it does not count, unless a bundle's gate says otherwise."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """How good one channel was over one window."""

    channel: str
    score: float
    """0 (bad) to 1 (good)."""
    reason: str = ""
    """In words, "" when nothing is wrong: "flat", "railed", "amplitude 812 uV", "50 Hz is 61 % of power"."""

    @property
    def level(self) -> Literal["good", "doubtful", "bad"]:
        """Doubtful: it counts, and what is wrong with it is said."""
        if not self.score >= BAD_SCORE:
            return "bad"
        return "doubtful" if self.reason else "good"


@dataclass(frozen=True, slots=True, eq=False)
class Window:
    """What a model sees: ``seconds`` of every kind of signal, ending at ``t_end`` on the session clock.

    ``signals[kind]`` is (channels, time) float32 in the order, unit and rate of the bundle's manifest, filtered; what
    was not measured is 0. ``present[kind]`` is the share of samples really measured, 0..1; ``quality[kind]`` has one
    verdict a channel. A kind that the model takes and the session lacks is all zeros with ``present`` 0.
    """

    t_end: float
    seconds: float
    signals: Mapping[str, NDArray[np.float32]]
    present: Mapping[str, float]
    quality: Mapping[str, tuple[Verdict, ...]]


@dataclass(frozen=True, slots=True, eq=False)
class Estimate:
    """What a model says of a window. When ``withheld`` is not None, ``mean`` and ``sd`` are NaN."""

    t_end: float
    targets: tuple[str, ...]
    mean: NDArray[np.float64]
    """(targets,)"""
    sd: NDArray[np.float64]
    """(targets,) what the estimate would scatter by on people the model was not trained on."""
    present: Mapping[str, float]
    quality: float
    """0..1: the mean channel score of the worst kind that was used, or of the worst kind when nothing was."""
    withheld: str | None
    """The reason in words, for example "resting baseline: 23 s left" or "EEG missing"."""
    used: tuple[str, ...] = ()
    """The kinds of signal it rests on."""
    unused: tuple[str, ...] = ()
    """Why it does not rest on the others, in words; () when withheld, which says so itself."""
    model: str = ""
    """Name and short hash of the bundle."""
    distance: float = math.nan
    """How unlike the training data the kind is that is most so, of those it rests on, or of those looked at when it
    rests on none: 1 at the limit. NaN when withheld before the network ran."""
    latency: Mapping[str, float] = field(default_factory=dict)
    """Parts in seconds, for the screen; not part of the result."""

    def values(self) -> list[float]:
        """The figures under `estimate_channels`: NaN where withheld, quality and what is used always numbers."""
        pairs = zip(self.mean.tolist(), self.sd.tolist(), strict=True)
        used = (float(kind in self.used) for kind in ("eeg", "ecg"))
        return [*(value for pair in pairs for value in pair), self.quality, *used]


def estimate_channels(targets: Sequence[str]) -> tuple[str, ...]:
    """What the columns of estimates are called, on LSL, in records and in tables.

    >>> estimate_channels(["arousal"])
    ('arousal', 'arousal_sd', 'quality', 'used_eeg', 'used_ecg')
    """
    pairs = (label for target in targets for label in (target, f"{target}_sd"))
    return (*pairs, "quality", "used_eeg", "used_ecg")


class Runtime(Protocol):
    """Named arrays in, named arrays out, no state."""

    def __call__(self, inputs: Arrays) -> dict[str, NDArray[np.float32]]: ...

"""What a data set owes the training code: recordings of people with one value a target, and where they come from."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from devices.api import Chunk, StreamInfo


class TrainingError(Exception):
    """A data set, split or training run that cannot be used: names it, says what was found and what to do. One line."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recording:
    """One uninterrupted recording of one person, during which every target keeps one value.

    Recordings of one ``session`` share a clock and follow each other in it; ``rest`` marks the one whose beginning is
    the resting baseline of that session.
    """

    person: str
    """A code, never a name. Splits go by it."""
    session: str
    phase: str
    """As the screen would call it: "rest", "mental arithmetic"."""
    targets: Mapping[str, float]
    """Target name -> value on the target's own range."""
    rest: bool
    streams: tuple[StreamInfo, ...]
    chunks: tuple[Chunk, ...] = field(repr=False)
    start: float
    """Session clock, seconds: the first sample."""
    stop: float
    """Session clock, seconds: one sample period after the last."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """Where a data set comes from, for the manifest of whatever was trained on it."""

    name: str
    attribution: str
    licence: str
    url: str
    order: str
    """The confound that the design of the data cannot exclude, in one sentence."""
    form: str
    """The rate and depth of the samples trained on, and where they differ from what is replayed, in one sentence."""


class DataSet(Protocol):
    """What a module ``offline_training/datasets/<name>.py`` has."""

    SOURCE: Source

    def recordings(self, folder: Path) -> Iterator[Recording]: ...

    def digest(self, folder: Path) -> str: ...

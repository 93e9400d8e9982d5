"""What a data set owes the training code: recordings of people with one value a target, and where they come from."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from devices.api import Chunk, StreamInfo, Tick
from models.bundle import Target


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
    """Target name -> value on the target's own range; none where nothing is told, for training without labels."""
    rest: bool
    streams: tuple[StreamInfo, ...]
    chunks: Iterable[Chunk | Tick] = field(repr=False)
    """Of all streams, in the order of time, with the ticks at which a recorded session cut a window; read once, so that
    hours need not be in memory."""
    start: float
    """Session clock, seconds: the first sample."""
    stop: float
    """Session clock, seconds: one sample period after the last."""


@dataclass(frozen=True, slots=True)
class Skipped:
    """What a data set holds and training leaves out: counted, named to the user, and no reason to stop."""

    where: str
    """File and place in it, as a user finds it again."""
    why: str
    """In one line."""


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
    """What a module ``offline_training/datasets/<name>.py`` has. ``folder`` is where the user keeps the data."""

    SOURCE: Source
    TARGETS: tuple[Target, ...]
    """What its recordings may be labelled with; none for a collection without labels, or when the user's folder says
    what: then the module has ``targets(folder)``. `offline_training.datasets.targets_of` asks both."""

    def parts(self, folder: Path) -> Sequence[str]:
        """What can be read by itself, such as a file or a person: names, in a fixed order, by which preparation is
        spread over processes and taken up again. Raises TrainingError when the folder is not what it should be."""
        ...

    def recordings(self, folder: Path, part: str) -> Iterator[Recording | Skipped]:
        """The recordings of one part, those of a session in the order of time. Raises TrainingError when nothing of
        the part can be used; the other parts go on."""
        ...

    def digest(self, folder: Path, part: str) -> str:
        """sha256, in hexadecimal, of what the part is read from."""
        ...

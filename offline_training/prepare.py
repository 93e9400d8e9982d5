"""Recordings become windows, through the very windower that runs live, with labels beside them."""

from __future__ import annotations

import functools
import hashlib
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import overload

import numpy as np
from numpy.typing import NDArray

import devices
import models
import realtime
from models.api import InputSpec, Verdict, Window, WindowSpec
from models.bundle import Gate, Target
from models.interpolation import as_seen
from models.montage import PUBLISHED
from offline_training.api import Recording, TrainingError
from realtime.windows import iter_windows

KINDS = ("eeg", "ecg")
DEFAULT_SPEC = WindowSpec(
    inputs=(
        InputSpec(kind="eeg", channels=PUBLISHED, min_channels=16),
        InputSpec(kind="ecg", channels=("ECG",)),
    ),
    rate=200.0,
    seconds=10.0,
    hop=1.0,
)
"""With fewer than 16 channels of EEG the share of samples measured can never pass the gate, so it is said at once."""
DEFAULT_GATE = Gate(min_present={"eeg": 0.8, "ecg": 0.8}, min_quality={"eeg": 0.5, "ecg": 0.5})
REST_SECONDS = 60.0
"""Of the beginning of a session; the resting baseline, never scored."""
TRAIN_EVERY, SCORE_EVERY = 2.0, 5.0
"""Seconds: of the windows cut at the live hop, those whose end is a multiple of it are trained on, are scored."""
BLOCK = 64
"""Windows that are copied at a time."""


@dataclass(frozen=True, slots=True, eq=False)
class Prepared:
    """n windows of many people, ordered by person and time."""

    spec: WindowSpec
    target: Target
    signals: Mapping[str, NDArray[np.float32]]
    """kind -> (n, channels, time) in the order and unit of ``spec``, as a network sees it: the bad channels of a usable
    kind are made of the good ones."""
    usable: NDArray[np.bool_]
    """(n, kinds) in the order of `KINDS`: passed the gate."""
    label: NDArray[np.int64]
    """(n,) 0 or 1; of an ordinal target the number of its level, of a continuous one 0."""
    value: NDArray[np.float64]
    """(n,) on the target's own range; NaN for windows of the resting baseline that have none."""
    person: NDArray[np.str_]
    """(n,)"""
    t_end: NDArray[np.float64]
    """(n,) seconds since the beginning of the person's session."""
    baseline: NDArray[np.bool_]
    """(n,) belongs to the resting baseline, at the live hop as live."""
    trained: NDArray[np.bool_]
    """(n,) may be trained on: no sample of it is in the resting baseline."""
    scored: NDArray[np.bool_]
    """(n,) is scored when its person is held out: no sample of it is in the resting baseline."""
    session: NDArray[np.int64]
    """(n,) the number of its session: each has a resting baseline of its own, as live."""

    @property
    def people(self) -> list[str]:
        return sorted(set(self.person.tolist()))


@dataclass(frozen=True, slots=True, eq=False)
class Cut:
    """One window of a recording, and when the session began that the recording belongs to."""

    window: Window
    recording: Recording
    start: float
    """Session clock, seconds: the first sample of the session."""

    @property
    def baseline(self) -> bool:
        """Whether it belongs to the resting baseline of its session."""
        return self.recording.rest and self.window.t_end <= self.start + REST_SECONDS


@dataclass(frozen=True, slots=True, eq=False)
class Columns:
    """What is known of n windows beside their signals, before a gate or a target is asked."""

    t_end: NDArray[np.float64]
    """(n,) session clock, seconds."""
    start: NDArray[np.float64]
    """(n,) session clock, seconds: when the session of the window began."""
    rest: NDArray[np.bool_]
    """(n,) the window is of the recording that begins with the resting baseline."""
    person: NDArray[np.str_]
    """(n,)"""
    value: Mapping[str, NDArray[np.float64]]
    """target -> (n,), NaN where nothing is told."""
    present: Mapping[str, NDArray[np.float64]]
    """kind -> (n,) share of samples measured."""
    score: Mapping[str, NDArray[np.float64]]
    """kind -> (n, channels), 0 (bad) to 1 (good)."""


def cut(recordings: Iterable[Recording], spec: WindowSpec, every: Sequence[float]) -> Iterator[Cut]:
    """The windows of recordings whose end is a multiple of one of ``every`` (seconds), and those of resting baselines.

    Every recording goes through a windower of its own, though those of a session share a clock: no window straddles
    two of them, and the filters start anew, as they do live after a gap.
    """
    opened: dict[str, float] = {}
    for recording in recordings:
        start = opened.setdefault(recording.session, recording.start)
        for window in iter_windows(recording.chunks, spec, recording.streams):
            one = Cut(window, recording, start)
            if one.baseline or any(_is_multiple(window.t_end, step) for step in every):
                yield one


def columns_of(cuts: Sequence[Cut], spec: WindowSpec, targets: Iterable[str]) -> Columns:
    """What is known of windows that were cut for ``spec``, in their order."""
    kinds = [entry.kind for entry in spec.inputs]
    return Columns(
        t_end=np.array([one.window.t_end for one in cuts], np.float64),
        start=np.array([one.start for one in cuts], np.float64),
        rest=np.array([one.recording.rest for one in cuts], np.bool_),
        person=np.array([one.recording.person for one in cuts], np.str_),
        value={
            target: np.array([one.recording.targets.get(target, math.nan) for one in cuts], np.float64)
            for target in targets
        },
        present={kind: np.array([one.window.present[kind] for one in cuts], np.float64) for kind in kinds},
        score={
            kind: np.array([[verdict.score for verdict in one.window.quality[kind]] for one in cuts], np.float64)
            for kind in kinds
        },
    )


def usable_kind(present: float, scores: NDArray[np.float64], kind: str, gate: Gate) -> bool:
    """Whether a kind of signal is good enough in a window, of which the share ``present`` was measured and whose
    channels have ``scores`` (channels,)."""
    return bool(
        present >= gate.min_present[kind]
        and scores.mean() >= gate.min_quality[kind]
        and np.mean(scores < gate.bad_score) <= gate.max_bad_share
    )


def prepare(recordings: Iterable[Recording], spec: WindowSpec, gate: Gate, target: Target) -> Prepared:
    """Windows of all recordings in memory, labelled with what they say of ``target``."""
    cuts = list(cut(recordings, spec, (TRAIN_EVERY, SCORE_EVERY)))
    if not cuts:
        raise TrainingError("no window was cut from any recording; are they shorter than a window?")

    def read(kind: str, rows: NDArray[np.intp]) -> NDArray[np.float32]:
        return np.stack([cuts[row].window.signals[kind] for row in rows])

    columns = columns_of(cuts, spec, (target.name,))
    return labelled(read, columns, spec, gate, target, (TRAIN_EVERY, SCORE_EVERY))


def labelled(
    read: Callable[[str, NDArray[np.intp]], NDArray[np.float32]],
    columns: Columns,
    spec: WindowSpec,
    gate: Gate,
    target: Target,
    every: tuple[float, float],
    room: Callable[[tuple[int, int, int]], NDArray[np.float32]] | None = None,
) -> Prepared:
    """Windows as training takes them, of which ``read(kind, rows)`` gives the signals (rows, channels, time) as cut.

    ``room`` gives the array that they are put into, in memory when it is not said.
    ``every`` are the seconds at whose multiples windows end that are trained on, and that are scored. Windows outside
    the resting baseline are left out where nothing is told of ``target``. Raises TrainingError when none is left.
    """
    missing = [kind for kind in KINDS if kind not in columns.score]
    if missing:
        raise TrainingError(f"the windows have no {' and no '.join(missing)}; prepare them with both kinds.")
    value = columns.value[target.name]
    rest_ends = columns.start + REST_SECONDS
    baseline = columns.rest & (columns.t_end <= rest_ends)
    judged = (columns.t_end - spec.seconds >= rest_ends) & ~np.isnan(value)
    trained, scored = (judged & _is_multiple(columns.t_end, step) for step in every)
    rows = np.flatnonzero(baseline | trained | scored)
    if not len(rows):
        raise TrainingError(
            f"no window is told {target.name}; recordings need a value of it, and be longer than a rest."
        )
    usable = np.array(
        [
            [usable_kind(columns.present[kind][row], columns.score[kind][row], kind, gate) for kind in KINDS]
            for row in rows
        ]
    )
    signals = {}
    for number, entry in enumerate(_inputs(spec)):
        shape = (len(rows), len(entry.channels), round(spec.seconds * spec.rate))
        seen = np.empty(shape, np.float32) if room is None else room(shape)
        for first in range(0, len(rows), BLOCK):
            block = slice(first, first + BLOCK)
            seen[block] = read(entry.kind, rows[block])
        for place in np.flatnonzero(usable[:, number]):
            verdicts = [
                Verdict(channel, float(score))
                for channel, score in zip(entry.channels, columns.score[entry.kind][rows[place]], strict=True)
            ]
            seen[place] = as_seen(seen[place], entry.channels, verdicts, gate.bad_score)
        signals[entry.kind] = seen
    # Clips may all begin at 0 on clocks of their own: within a session time goes on.
    begins = np.ones(len(columns.t_end), np.bool_)
    begins[1:] = (
        (columns.person[1:] != columns.person[:-1])
        | (columns.start[1:] != columns.start[:-1])
        | (columns.t_end[1:] <= columns.t_end[:-1])
    )
    session = np.cumsum(begins) - 1
    label = [0 if math.isnan(one) else class_of(one, target) for one in value[rows].tolist()]
    return Prepared(
        spec,
        target,
        signals,
        usable,
        np.array(label, np.int64),
        value[rows],
        columns.person[rows],
        columns.t_end[rows] - columns.start[rows],
        baseline[rows],
        trained[rows],
        scored[rows],
        session[rows],
    )


def _inputs(spec: WindowSpec) -> tuple[InputSpec, ...]:
    """In the order of `KINDS`."""
    by_kind = {entry.kind: entry for entry in spec.inputs}
    return tuple(by_kind[kind] for kind in KINDS)


def class_of(value: float, target: Target) -> int:
    """The class of a value: of a binary target whether it is in the upper half of the range, of an ordinal one the
    number of the level, of a continuous one 0. Raises TrainingError for a value that the target does not have."""
    low, high = target.range
    if target.kind == "ordinal":
        if value not in target.levels:
            raise TrainingError(f"{target.name}: a recording has the value {value:g}, the levels are {target.levels}.")
        return target.levels.index(value)
    if not low <= value <= high:
        raise TrainingError(f"{target.name}: a recording has the value {value:g}, the range is {low:g} to {high:g}.")
    return int(value > 0.5 * (low + high)) if target.kind == "binary" else 0


@overload
def _is_multiple(time: float, step: float) -> bool: ...
@overload
def _is_multiple(time: NDArray[np.float64], step: float) -> NDArray[np.bool_]: ...
def _is_multiple(time: float | NDArray[np.float64], step: float) -> bool | NDArray[np.bool_]:
    found: bool | NDArray[np.bool_] = np.abs(time / step - np.round(time / step)) < 1e-6
    return found


def cache_key(spec: WindowSpec, gate: Gate, digest: str) -> str:
    """Names what was computed of windows: changes with the data, the windows wanted, the gate and the code that cuts
    windows."""
    text = repr((spec, gate, digest, REST_SECONDS, TRAIN_EVERY, SCORE_EVERY))
    return hashlib.sha256((text + code_that_cuts()).encode()).hexdigest()[:16]


@functools.cache
def code_that_cuts() -> str:
    """sha256, in hexadecimal, of the files that decide what is in a window."""
    found = hashlib.sha256()
    folder = Path(realtime.__path__[0])
    for name in ("windows", "filters", "resample", "intake", "quality", "unfiltered", "ring", "sources"):
        found.update((folder / f"{name}.py").read_bytes())
    found.update((Path(devices.__path__[0]) / "api.py").read_bytes())
    for name in ("electrodes", "interpolation", "montage"):
        found.update((Path(models.__path__[0]) / f"{name}.py").read_bytes())
    found.update(Path(__file__).read_bytes())
    return found.hexdigest()

"""Recordings become windows, through the very windower that runs live, with labels beside them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

import devices
import models
import realtime
from models.api import InputSpec, Window, WindowSpec
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
    """(n,) on the target's own range."""
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

    @property
    def people(self) -> list[str]:
        return sorted(set(self.person.tolist()))


_COLUMNS = ("usable", "label", "value", "person", "t_end", "baseline", "trained", "scored")


def usable_kinds(window: Window, gate: Gate) -> tuple[bool, ...]:
    """For each of `KINDS` whether it is good enough in ``window``."""
    verdicts = []
    for kind in KINDS:
        scores = np.array([verdict.score for verdict in window.quality[kind]])
        verdicts.append(
            bool(
                window.present[kind] >= gate.min_present[kind]
                and scores.mean() >= gate.min_quality[kind]
                and np.mean(scores < gate.bad_score) <= gate.max_bad_share
            )
        )
    return tuple(verdicts)


def prepare(recordings: Iterable[Recording], spec: WindowSpec, gate: Gate, target: Target) -> Prepared:
    """Windows of all recordings, labelled with what they say of ``target``.

    Every recording goes through a windower of its own, though those of a session share a clock: no window straddles
    two of them, and the filters start anew, as they do live after a gap.
    """
    signals: dict[str, list[NDArray[np.float32]]] = {kind: [] for kind in KINDS}
    rows: list[tuple[tuple[bool, ...], int, float, str, float, bool, bool, bool]] = []
    opened: dict[str, float] = {}
    for recording in recordings:
        start = opened.setdefault(recording.session, recording.start)
        rest_ends = start + REST_SECONDS
        for window in iter_windows(recording.chunks, spec, recording.streams):
            baseline = recording.rest and window.t_end <= rest_ends
            later = window.t_end - window.seconds >= rest_ends
            trained = later and _is_multiple(window.t_end, TRAIN_EVERY)
            scored = later and _is_multiple(window.t_end, SCORE_EVERY)
            if not (baseline or trained or scored):
                continue
            value = recording.targets[target.name]
            verdict = usable_kinds(window, gate)
            for entry, usable in zip(_inputs(spec), verdict, strict=True):
                signal = window.signals[entry.kind]
                if usable:
                    signal = as_seen(signal, entry.channels, window.quality[entry.kind], gate.bad_score)
                signals[entry.kind].append(signal)
            rows.append(
                (
                    verdict,
                    class_of(value, target),
                    value,
                    recording.person,
                    window.t_end - start,
                    baseline,
                    trained,
                    scored,
                )
            )
    if not rows:
        raise TrainingError("no window was cut from any recording; are they shorter than a window?")
    columns = (np.array(column) for column in zip(*rows, strict=True))
    return Prepared(spec, target, {kind: np.stack(parts) for kind, parts in signals.items()}, *columns)


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


def _is_multiple(time: float, step: float) -> bool:
    return abs(time / step - round(time / step)) < 1e-6


def save(prepared: Prepared, folder: Path) -> None:
    """Writes the windows into ``folder``, one npy each, so that a later run need not cut them again."""
    folder.mkdir(parents=True, exist_ok=True)
    for kind, values in prepared.signals.items():
        np.save(folder / f"{kind}.npy", values)
    np.savez(folder / "columns.npz", **{name: getattr(prepared, name) for name in _COLUMNS})


def load(folder: Path, spec: WindowSpec, target: Target) -> Prepared:
    """What `save` wrote."""
    with np.load(folder / "columns.npz", allow_pickle=False) as columns:
        return Prepared(
            spec,
            target,
            {kind: np.load(folder / f"{kind}.npy", allow_pickle=False) for kind in KINDS},
            *(columns[name] for name in _COLUMNS),
        )


def cache_key(spec: WindowSpec, gate: Gate, digest: str) -> str:
    """Names a cache folder: changes with the data, the windows wanted, the gate and the code that cuts windows."""
    text = repr((spec, gate, digest, REST_SECONDS, TRAIN_EVERY, SCORE_EVERY))
    found = hashlib.sha256(text.encode())
    folder = Path(realtime.__path__[0])
    for name in ("windows", "filters", "resample", "intake", "quality", "unfiltered", "ring", "sources"):
        found.update((folder / f"{name}.py").read_bytes())
    found.update((Path(devices.__path__[0]) / "api.py").read_bytes())
    for name in ("electrodes", "interpolation", "montage"):
        found.update((Path(models.__path__[0]) / f"{name}.py").read_bytes())
    found.update(Path(__file__).read_bytes())
    return found.hexdigest()[:16]

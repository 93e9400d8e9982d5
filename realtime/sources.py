"""Which stream, and which of its channels, a model is fed from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from devices.api import StreamInfo, unit_name
from models import montage
from models.api import InputSpec, WindowSpec
from models.electrodes import normalised, says_ecg

LEAST_RATE = 100.0
"""Hz: below it the bands that models look at are not there."""
MICROVOLTS = {"uV": 1.0, "mV": 1e3, "V": 1e6}
GENERIC = frozenset(
    ("", "unknown", "signal", "signals", "biosignal", "biosignals", "exg", "misc", "other", "data", "raw", "mixed")
)
"""Kinds that do not say what is measured; unlike "acc" or "gaze", whose channels may be called as an electrode is."""
MAX_NAMED = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Picked:
    """What one kind of a model's input is fed with."""

    kind: str
    stream: str
    """Its key."""
    columns: tuple[int, ...]
    """Of the stream, one for each channel of the spec in its order; -1 where the stream lacks the channel."""
    scale: float
    """From the stream's unit to the spec's."""
    rate: float
    """Hz, the stream's nominal rate."""
    why: str
    """A sentence for the user."""


def choose(streams: Sequence[StreamInfo], spec: WindowSpec) -> dict[str, Picked]:
    """What feeds each kind of ``spec``; a kind that nothing can feed is left out, `lacking` says why.

    Streams of the kind itself are asked first, then those whose labels tell: of a `GENERIC` kind, and for ECG also EEG
    (the ECG channel of an amplifier). Among several the most channels of the spec win, then the higher rate, then the
    first.
    """
    return {one.kind: picked for one in spec.inputs if isinstance(picked := _pick(streams, one), Picked)}


def lacking(streams: Sequence[StreamInfo], spec: WindowSpec) -> dict[str, str]:
    """The kinds of ``spec`` that nothing feeds, each with a sentence for the user that says why."""
    return {one.kind: reason for one in spec.inputs if isinstance(reason := _pick(streams, one), str)}


def _pick(streams: Sequence[StreamInfo], spec: InputSpec) -> Picked | str:
    label = spec.kind.upper()
    found, refused = [], []
    for stream in streams:
        by_labels = stream.kind != spec.kind
        if by_labels and not (_generic(stream) or (spec.kind == "ecg" and stream.kind == "eeg")):
            continue
        columns = _columns(stream, spec)
        matching = sum(column >= 0 for column in columns)
        if by_labels and not matching:
            continue
        if not stream.rate >= LEAST_RATE:
            refused.append(f"{stream.key} runs at {stream.rate:g} Hz, at least {LEAST_RATE:g} are needed")
        elif matching < max(1, spec.min_channels):
            refused.append(f"{stream.key} has {matching} of the model's channels, {spec.min_channels} are needed")
        else:
            found.append(((stream.kind == spec.kind, matching, stream.rate), stream, columns))
    if not found:
        return f"no {label}: {'; '.join(refused)}" if refused else f"no {label}: no stream carries it"
    (rank, stream, columns), *others = sorted(found, key=lambda f: f[0], reverse=True)  # equals keep their order
    scale, remark = _scale(stream, spec)
    why = f"{label} from {stream.key}: {rank[1]} of {len(columns)} channels at {stream.rate:g} Hz"
    if len(columns) == 1:
        why = f"{label} from {stream.key}: channel {stream.channels[columns[0]]} at {stream.rate:g} Hz"
    absent = [name for name, column in zip(spec.channels, columns, strict=True) if column < 0]
    if absent:
        why += f", without {' '.join(absent)}"
    if stream.kind != spec.kind:
        why += f", found by label only (its type is {stream.kind or 'empty'})"
    why += remark
    if others:
        keys = [other.key for _, other, _ in others]
        more = f" and {len(keys) - MAX_NAMED} more" if len(keys) > MAX_NAMED else ""
        why += f"; {', '.join(keys[:MAX_NAMED])}{more} left out: {_rule(rank, others[0][0], label)}"
    return Picked(kind=spec.kind, stream=stream.key, columns=columns, scale=scale, rate=stream.rate, why=why)


def _generic(stream: StreamInfo) -> bool:
    return stream.kind.strip().lower() in GENERIC and stream.rate > 0


def _rule(taken: tuple[bool, int, float], next_best: tuple[bool, int, float], label: str) -> str:
    """What set the stream that was taken before the next best one."""
    rules = (f"a stream of type {label} comes first", "most channels win", "the higher rate wins")
    differing = (rule for rule, a, b in zip(rules, taken, next_best, strict=True) if a != b)
    return next(differing, "of equals the first is taken")


def _columns(stream: StreamInfo, spec: InputSpec) -> tuple[int, ...]:
    names = [normalised(label) for label in stream.channels]
    if spec.kind == "ecg" and len(spec.channels) == 1:
        called = [i for i, label in enumerate(stream.channels) if says_ecg(label)]
        if called:
            return (called[0],)
        wanted = normalised(spec.channels[0])
        if wanted in names:
            return (names.index(wanted),)
        return (0,) if stream.kind == "ecg" and names else (-1,)
    return montage.columns(stream.channels, spec.channels)


def _scale(stream: StreamInfo, spec: InputSpec) -> tuple[float, str]:
    unit = unit_name(stream.unit)
    if unit in MICROVOLTS:
        return MICROVOLTS[unit] / microvolts(spec.unit), ""
    said = f"unit {stream.unit!r} is unknown" if unit else "no unit given"
    return 1.0 / microvolts(spec.unit), f"; {said}, taken as uV"


def microvolts(unit: str) -> float:
    """How many microvolts one ``unit`` is. ValueError when that is not known."""
    try:
        return MICROVOLTS[unit_name(unit)]
    except KeyError:
        raise ValueError(f"{unit!r} is no unit of voltage; uV, mV and V are known") from None

"""Recordings of insula's own sessions (XDF), labelled by the markers of their phases and by what people rated.

``labels.toml`` beside them, in the folder that is given, says which markers are phases and what a phase tells:

    rest = "rest"                # the phase whose first minute is the resting baseline of a session
    stops = ["end", "pause"]     # markers that end a phase and begin none

    [targets.arousal]            # binary, ordinal (with levels) or continuous, as in a bundle
    kind = "binary"
    range = [0, 1]
    meaning = "0: as at rest, 1: as in mental arithmetic"

    [targets.valence]
    kind = "continuous"
    range = [1, 9]
    meaning = "1: most unpleasant, 9: most pleasant"
    rated = true                 # told by the person, not by the phase

    [phases.rest]
    arousal = 0
    [phases."mental arithmetic"]
    arousal = 1

A phase begins at the marker that has its name and lasts to the next phase, the next stop, or the end of the file; other
markers do nothing. A rating is a marker ``rating valence 6`` or ``{"rating": {"valence": 6}}``, or a sample of a stream
of numbers without a rate that has a channel (or is itself) called as the target. It speaks of the phase that began last
before it, also when that has ended; of several the last counts.

The person is the one of the file's name, ``sub-P07_ses-1_task-film_run-01_eeg.xdf`` as ``insula record`` and
LabRecorder write it, or ``participant`` of the JSON beside the file. Files of one person with the same ``ses-`` in the
same folder are one session with one baseline; any other file is a session of its own. Phases before the first resting
one of a session that has one are left out: a live session begins with its baseline. The samples, their stamps and the
ticks are those of a replay.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
import tomllib
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from devices.api import Chunk, DeviceError, End, StreamInfo, Tick, unit_name
from devices.xdf import XdfReplay
from devices.xdf_format import AFFECT_TYPE, PHYSIOLOGY_TYPE, XdfError, XdfFile, XdfStream, are_times
from models.bundle import TARGET_KINDS, Target
from offline_training.api import Recording, Skipped, Source, TrainingError
from offline_training.arrays import ROUND, SHORTEST, in_a_line, rating_problem, size, why_not_microvolts
from realtime.sources import GENERIC, MICROVOLTS

LABELS = "labels.toml"
MAX_LABELS = 1_000_000
MAX_SIDECAR = 10_000_000
NOBODY = "unnamed"
"""The participant of a session that was recorded without one."""
LOOKED_AT = 20.0
"""Seconds of the beginning of a file that tell whether its unit can be right."""
LAG = 60.0
"""Seconds by which a chunk may stand later in a record than others of its time."""
SOURCE = Source(
    name="sessions recorded with insula",
    attribution="whoever recorded them",
    licence="what the participants agreed to",
    url="",
    order="the phases came in the order that the study chose; what drifts with time is part of what is measured",
    form="training used the samples as they were recorded and are replayed",
)
TARGETS: tuple[Target, ...] = ()
_NAME = re.compile(r"sub-([A-Za-z0-9]{1,64})(?:_ses-([A-Za-z0-9]{1,64}))?(?:_.*)?")
_RATING = re.compile(r"rating\s+(\S+)\s+(\S+)")


@dataclass(frozen=True, slots=True)
class _Labels:
    targets: Mapping[str, Target]
    rated: frozenset[str]
    phases: Mapping[str, Mapping[str, float]]
    rest: str
    stops: frozenset[str]


@dataclass(slots=True)
class _Phase:
    name: str
    begin: float
    end: float
    told: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Run:
    """A file: what is in it, but for its samples."""

    path: Path
    person: str
    started: str
    begin: float
    stop: float
    streams: tuple[StreamInfo, ...]
    phases: tuple[_Phase, ...]
    skipped: tuple[Skipped, ...]


def targets(folder: Path) -> tuple[Target, ...]:
    """What ``labels.toml`` defines."""
    return tuple(_labels(folder).targets.values())


def parts(folder: Path) -> list[str]:
    """The sessions: folder and name of those of several files, else the file."""
    _labels(folder)
    return list(_sessions(folder))


def digest(folder: Path, part: str) -> str:
    """sha256 of the session's files, the descriptions beside them and ``labels.toml``, in hexadecimal."""
    found = hashlib.sha256()
    files = _files(folder, part)
    for path in (folder / LABELS, *files, *(path.with_suffix(".json") for path in files)):
        if path.is_file():
            with path.open("rb") as file:
                found.update(hashlib.file_digest(file, "sha256").digest())
    return found.hexdigest()


def recordings(folder: Path, part: str) -> Iterator[Recording | Skipped]:
    """The phases of a session, in the order of time."""
    labels = _labels(folder)
    runs: list[_Run] = []
    broken: list[TrainingError] = []
    files = _files(folder, part)
    for path in files:
        try:
            looked = _look(path, path.relative_to(folder).as_posix(), labels)
        except TrainingError as error:
            broken.append(error)
            if len(broken) == len(files):
                raise broken[0] from None
            continue
        if isinstance(looked, Skipped):
            yield looked
        else:
            runs.append(looked)
    for problem in broken:
        yield Skipped(part, str(problem))
    if all(run.started for run in runs):
        runs.sort(key=lambda run: run.started)
    else:
        runs.sort(key=lambda run: run.begin)
    rests = any(phase.name == labels.rest for run in runs for phase in run.phases)
    reached = -math.inf
    for run in runs:
        yield from run.skipped
        # Clocks begin anew with the machine; a whole number of rounds leaves the windows where they lay.
        shift = 0.0 if run.begin > reached else math.ceil((reached - run.begin) / ROUND + 1) * ROUND
        reached = run.stop + shift
        reader = _Reader(run)
        for phase in run.phases:
            at = f"{run.path.relative_to(folder).as_posix()}, {phase.name!r:.60} at {phase.begin - run.begin:.1f} s"
            resting = phase.name == labels.rest
            if rests and not resting:
                yield Skipped(at, f"stands before the first {labels.rest!r:.60} of its session, which is the baseline")
                continue
            rests = False
            if phase.end - phase.begin < SHORTEST:
                yield Skipped(
                    at, f"lasts {max(0.0, phase.end - phase.begin):.1f} s, at least {SHORTEST:g} s are needed"
                )
                continue
            told = dict(labels.phases.get(phase.name, {})) | phase.told
            silent = [] if resting else sorted(labels.rated - told.keys())
            for name in silent:
                yield Skipped(at, f"{name}: no rating was given")
            if silent and not told:
                continue
            yield Recording(
                person=run.person,
                session=part,
                phase=phase.name,
                targets=told,
                rest=resting,
                streams=run.streams,
                chunks=reader.chunks(phase.begin, phase.end, shift),
                start=phase.begin + shift,
                stop=phase.end + shift,
            )


# -- where files are ---------------------------------------------------------------------------------------------------


def _sessions(folder: Path) -> dict[str, list[Path]]:
    found: dict[str, list[Path]] = {}
    for path in sorted(folder.rglob("*.xdf")):
        relative = path.relative_to(folder)
        match = _NAME.fullmatch(path.stem)
        several = match is not None and match[2] is not None
        name = (relative.parent / f"sub-{match[1]}_ses-{match[2]}") if match and several else relative
        if path.is_file():
            found.setdefault(name.as_posix(), []).append(path)
    if not found:
        raise TrainingError(f"{folder}: no .xdf files there; give the folder that holds the recordings.")
    return found


def _files(folder: Path, part: str) -> list[Path]:
    sessions = _sessions(folder)
    if part not in sessions:
        raise TrainingError(f"{folder}: no recordings of {part!r:.100} there.")
    return sessions[part]


# -- what they mean ----------------------------------------------------------------------------------------------------


def _labels(folder: Path) -> _Labels:
    path = folder / LABELS
    try:
        with path.open("rb") as file:
            content = file.read(MAX_LABELS + 1)
    except OSError as error:
        raise TrainingError(
            f"{path}: cannot be read ({error.strerror}); write there which markers are phases and what they tell."
        ) from None
    try:
        if len(content) > MAX_LABELS:
            raise ValueError(f"has more than {MAX_LABELS} bytes")
        top = tomllib.loads(content.decode("utf-8-sig"))
        return _understood(top)
    except (ValueError, RecursionError) as error:
        raise TrainingError(f"{path}: {in_a_line(error)}") from None


def _understood(top: dict[str, object]) -> _Labels:
    """Raises ValueError in words."""
    _only(top, "it", ("rest", "stops", "targets", "phases"))
    targets, rated = {}, set()
    for name, entry in _tables(top.get("targets"), "targets").items():
        if not re.fullmatch(r"[a-z][a-z0-9_]*", name):
            raise ValueError(f"targets.{name:.40}: a name is made of small letters, digits and _")
        _only(entry, f"targets.{name}", ("kind", "range", "meaning", "levels", "rated"))
        targets[name] = _target(name, entry)
        if entry.get("rated", False) is True:
            rated.add(name)
        elif entry.get("rated", False) is not False:
            raise ValueError(f"targets.{name}.rated is true or false")
    if not targets:
        raise ValueError("has no [targets.NAME]; say there what is to be estimated")
    phases: dict[str, dict[str, float]] = {}
    for phase, entry in _tables(top.get("phases"), "phases").items():
        phases[phase.strip()] = {}
        for name, value in entry.items():
            if name not in targets or name in rated:
                why = "is rated, a phase does not tell it" if name in rated else "is no target"
                raise ValueError(f"phases.{phase:.60}: {name:.40} {why}")
            if why := _wrong_value(value, targets[name]):
                raise ValueError(f"phases.{phase:.60}.{name}: {why}")
            phases[phase.strip()][name] = float(value)  # type: ignore[arg-type]
    rest = top.get("rest", "")
    stops = top.get("stops", [])
    if not isinstance(rest, str) or not isinstance(stops, list) or not all(isinstance(one, str) for one in stops):
        raise ValueError('rest is a text and stops a list of texts, such as rest = "rest" and stops = ["end"]')
    if rest.strip():
        phases.setdefault(rest.strip(), {})
    if not phases:
        raise ValueError("has no [phases.NAME]; name there the markers at which phases begin")
    if both := sorted(phases.keys() & {one.strip() for one in stops}):
        raise ValueError(f"{both[0]!r:.60} is a phase and a stop")
    return _Labels(targets, frozenset(rated), phases, rest.strip(), frozenset(one.strip() for one in stops))


def _target(name: str, entry: Mapping[str, object]) -> Target:
    kind, meaning = entry.get("kind"), entry.get("meaning", "")
    ends, levels = entry.get("range"), entry.get("levels", [])
    if kind not in TARGET_KINDS or not isinstance(kind, str):
        raise ValueError(f"targets.{name}.kind is {kind!r:.40}, expected {' or '.join(TARGET_KINDS)}")
    if not isinstance(meaning, str) or not meaning.strip() or not meaning.isprintable():
        raise ValueError(f"targets.{name}.meaning is a line that says what the ends of the range are")
    if not (_numbers(ends) and isinstance(ends, list) and len(ends) == 2 and ends[0] < ends[1]):
        raise ValueError(f"targets.{name}.range is {ends!r:.60}, expected two rising numbers")
    if not (_numbers(levels) and isinstance(levels, list)) or (kind == "ordinal") != bool(levels):
        raise ValueError(f"targets.{name}.levels are the numbers of an ordinal target, and of no other")
    if levels and (levels[0] != ends[0] or levels[-1] != ends[1] or any(a >= b for a, b in pairwise(levels))):
        raise ValueError(f"targets.{name}.levels rise from {ends[0]} to {ends[1]}, the ends of the range")
    return Target(
        name=name,
        kind=kind,
        range=(float(ends[0]), float(ends[1])),
        meaning=meaning.strip(),
        levels=tuple(float(one) for one in levels),
    )


def _tables(value: object, name: str) -> dict[str, dict[str, object]]:
    if value is None:
        return {}
    if not isinstance(value, dict) or not all(isinstance(one, dict) for one in value.values()):
        raise ValueError(f"{name} are tables, [{name}.NAME]")
    return value


def _only(entry: Mapping[str, object], where: str, known: tuple[str, ...]) -> None:
    unknown = sorted(entry.keys() - set(known))
    if unknown:
        raise ValueError(f"{where} has {unknown[0]!r:.40}, known are {', '.join(known)}")


def _numbers(value: object) -> bool:
    return isinstance(value, list) and all(
        isinstance(one, int | float) and not isinstance(one, bool) and math.isfinite(one) for one in value
    )


def _wrong_value(value: object, target: Target) -> str:
    """In words, why ``value`` cannot be one of ``target``; "" when it can."""
    if isinstance(value, bool):
        return f"{value} is no number"
    why = rating_problem(value, *target.range).replace("the rating", "the value")
    if not why and target.levels and float(value) not in target.levels:  # type: ignore[arg-type]
        why = f"the value is {value}, the levels are {', '.join(f'{one:g}' for one in target.levels)}"
    return why


# -- what is in a file -------------------------------------------------------------------------------------------------


def _look(path: Path, where: str, labels: _Labels) -> _Run | Skipped:
    """What a file has. Raises TrainingError when it cannot be read."""
    named = _NAME.fullmatch(path.stem)
    in_name = named[1] if named else ""
    told, started = _sidecar(path)
    if in_name and told and in_name != told:
        return Skipped(where, f"its name says it is of {in_name}, the description beside it {told!r:.60}")
    person = in_name or told
    if not person or person == NOBODY:
        return Skipped(
            where,
            "no person: call it sub-P07_..., or give participant in the JSON beside it (insula record --participant)",
        )
    try:
        with XdfFile(path) as file:
            own = any(stream.is_session for stream in file.streams.values())
            marks, ratings = _marks(file, own, labels)
            findings = list(file.findings)
        with XdfReplay(path, speed=math.inf) as replay:
            kinds = {"eeg", "ecg", *GENERIC}
            streams = tuple(info for info in replay.streams if info.numeric and info.rate > 0 and info.kind in kinds)
            begin, stop = replay.start, replay.stop + 1.0 / max((info.rate for info in streams), default=1.0)
            why = _unit_problem(replay, streams)
    except (XdfError, DeviceError) as error:
        raise TrainingError(str(error)) from None
    if not streams:
        return Skipped(where, "no EEG and no ECG in it")
    if why:
        return Skipped(where, why)
    skipped = []
    if findings:
        more = f", and {len(findings) - 1} more" if len(findings) > 1 else ""
        skipped.append(Skipped(where, f"damaged, what can be read is used: {findings[0]}{more}"))
    phases = _phases(marks, begin, stop, labels)
    if not phases:
        seen = ", ".join(dict.fromkeys(repr(text)[:40] for _, text in marks[:5])) or "none"
        return Skipped(where, f"no marker in it is a phase of {LABELS} (there are: {seen})")
    for time, name, value in ratings:
        phase = next((one for one in reversed(phases) if one.begin <= time), None)
        at = f"{where}, rating at {time - begin:.1f} s"
        if name not in labels.rated:
            skipped.append(Skipped(at, f"{name!r:.40} is no target of {LABELS} that is rated"))
        elif wrong := _wrong_value(value, labels.targets[name]):
            skipped.append(Skipped(at, f"{name}: {wrong}"))
        elif phase is None:
            skipped.append(Skipped(at, f"{name}: no phase had begun"))
        else:
            phase.told[name] = float(value)  # type: ignore[arg-type]
    return _Run(path, person, started, begin, stop, streams, tuple(phases), tuple(skipped))


def _sidecar(path: Path) -> tuple[str, str]:
    """Participant and time of the beginning (UTC) by the description beside a file, "" where it says nothing."""
    try:
        with path.with_suffix(".json").open("rb") as file:
            content = file.read(MAX_SIDECAR + 1)
        told = json.loads(content) if len(content) <= MAX_SIDECAR else {}
    except (OSError, ValueError, RecursionError):
        return "", ""
    person = told.get("participant") if isinstance(told, dict) else None
    begun = told.get("started") if isinstance(told, dict) else None
    utc = begun.get("utc") if isinstance(begun, dict) else None
    known = isinstance(person, str) and re.fullmatch(r"[A-Za-z0-9]{1,64}", person)
    return person if known and isinstance(person, str) else "", utc if isinstance(utc, str) else ""


def _marks(
    file: XdfFile, own: bool, labels: _Labels
) -> tuple[list[tuple[float, str]], list[tuple[float, str, object]]]:
    """Markers as (time, text), and ratings as (time, target, value), each in the order of time, on a replay's clock."""
    marks: list[tuple[float, str]] = []
    ratings: list[tuple[float, str, object]] = []
    for stream in file.streams.values():
        own_words = stream.is_session or stream.type in (AFFECT_TYPE, PHYSIOLOGY_TYPE)
        if own_words or (stream.format != "string" and stream.rate > 0):
            continue
        times, values = file.read(stream.id, synchronised=not own)
        good = are_times(times)
        times, values = times[good], values[good]
        if stream.format == "string":
            texts = ["; ".join(str(one) for one in row) for row in values.tolist()]
        elif called := _called(stream, labels):
            for column, name in called:
                ratings += [(t, name, v) for t, v in zip(times.tolist(), values[:, column].tolist(), strict=True)]
            continue
        elif stream.type.lower() in ("marker", "markers", "events", "event") or stream.format.startswith("int"):
            texts = list(Chunk(stream.name, times, values).texts)  # type: ignore[arg-type]
        else:
            continue
        for time, text in zip(times.tolist(), (text.strip() for text in texts), strict=True):
            rated = _ratings_of(text) if text not in labels.phases and text not in labels.stops else []
            ratings += [(time, name, value) for name, value in rated]
            if not rated:
                marks.append((time, text))
    return sorted(marks, key=lambda mark: mark[0]), sorted(ratings, key=lambda rating: rating[0])


def _called(stream: XdfStream, labels: _Labels) -> list[tuple[int, str]]:
    """The columns that are ratings, by the labels of the channels, or of a lone one by the name of the stream."""
    found = [
        (i, name.strip().lower()) for i, name in enumerate(stream.channels) if name.strip().lower() in labels.rated
    ]
    if not found and len(stream.channels) == 1 and stream.name.strip().lower() in labels.rated:
        return [(0, stream.name.strip().lower())]
    return found


def _ratings_of(text: str) -> list[tuple[str, object]]:
    """What a marker rates: "rating valence 6" or {"rating": {"valence": 6}}; none when it is another marker."""
    if match := _RATING.fullmatch(text):
        try:
            return [(match[1].lower(), float(match[2]))]
        except ValueError:
            return [(match[1].lower(), match[2])]
    if not text.startswith("{"):
        return []
    try:
        told = json.loads(text)
    except (ValueError, RecursionError):
        return []
    rated = told.get("rating") if isinstance(told, dict) else None
    return [(str(name).lower(), value) for name, value in rated.items()] if isinstance(rated, dict) else []


def _phases(marks: list[tuple[float, str]], begin: float, stop: float, labels: _Labels) -> list[_Phase]:
    edges = [(time, text) for time, text in marks if text in labels.phases or text in labels.stops]
    phases = []
    for (time, text), (following, _) in pairwise([*edges, (stop, "")]):
        if text in labels.phases and time < stop:
            phases.append(_Phase(text, max(time, begin), min(following, stop)))
    return phases


def _unit_problem(replay: XdfReplay, streams: tuple[StreamInfo, ...]) -> str:
    """In words, why the EEG at the beginning cannot be in the unit that it is said to be in; "" when it can."""
    scales = {
        info.key: MICROVOLTS[unit_name(info.unit) or "uV"]
        for info in streams
        if info.kind == "eeg" and (unit_name(info.unit) or "uV") in MICROVOLTS
    }
    pieces: dict[str, list[NDArray[np.float32]]] = {key: [] for key in scales}
    over = False
    while scales and not over and replay.position - replay.start < LOOKED_AT:
        for item in replay.read(0.0):
            over = isinstance(item, End)
            if isinstance(item, Chunk) and item.stream in pieces and len(item.times):
                pieces[item.stream].append(item.single)
    for info in streams:
        if pieces.get(info.key):
            samples = np.concatenate(pieces[info.key]) * np.float32(scales[info.key])
            if why := why_not_microvolts("eeg", size("eeg", samples, info.rate)):
                return f"{info.key}, by its unit {info.unit or '(none)'}: {why}"
    return ""


class _Reader:
    """A file read once from its beginning to its end for phases that are asked for in the order of time; for an
    earlier one it begins again. A minute of chunks is in memory: they may stand later than others of their time."""

    def __init__(self, run: _Run) -> None:
        self._run = run
        self._keys = {info.key for info in run.streams}
        self._replay: XdfReplay | None = None
        self._ahead: deque[Chunk | Tick] = deque()
        self._reached = -math.inf
        self._over = False

    def chunks(self, begin: float, end: float, shift: float) -> Iterator[Chunk | Tick]:
        """The signals from ``begin`` up to ``end`` as a replay gives them, ``shift`` seconds later."""
        try:
            if self._replay is None or begin < self._reached:
                self._ahead.clear()
                self._over = False
                self._replay = XdfReplay(self._run.path, speed=math.inf)
            self._reached = end
            yield from self._between(self._replay, begin, end, shift)
        except (XdfError, DeviceError) as error:
            raise TrainingError(str(error)) from None

    def _between(self, replay: XdfReplay, begin: float, end: float, shift: float) -> Iterator[Chunk | Tick]:
        later: list[Chunk | Tick] = []
        try:
            while self._ahead or self._more(replay, end):
                item = self._ahead.popleft()
                if (item.time if isinstance(item, Tick) else item.times.max()) >= end:
                    later.append(item)
                if (kept := _moved(item, begin, end, shift)) is not None:
                    yield kept
        finally:
            self._ahead.extendleft(reversed(later))

    def _more(self, replay: XdfReplay, end: float) -> bool:
        """Reads on until there is something, up to LAG after ``end``; whether there is."""
        while not (self._ahead or self._over) and replay.position <= end + LAG:
            for item in replay.read(0.0):
                self._over = isinstance(item, End)
                if isinstance(item, Tick) or (
                    isinstance(item, Chunk) and item.stream in self._keys and len(item.times)
                ):
                    self._ahead.append(item)
        return bool(self._ahead)


def _moved(item: Chunk | Tick, begin: float, end: float, shift: float) -> Chunk | Tick | None:
    if isinstance(item, Tick):
        return Tick(item.time + shift) if begin < item.time <= end else None
    keep = (item.times >= begin) & (item.times < end)
    if not keep.any():
        return None
    if keep.all() and not shift:
        return item
    return Chunk(item.stream, item.times[keep] + shift, item.data[keep], item.lost if keep[0] else 0)

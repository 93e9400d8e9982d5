"""Heart and rhythms of a session, once a second, from its chunks: whatever the model takes, and without a model too.

What is reported at a second depends on the samples before it alone, and a second is reported when every source has
passed it. So a replay of a record says what was said live, to the last bit, however the chunks are cut. Only a source
that is `PATIENCE` behind another one is not waited for: until it has caught up, the others go on without it. What the
end of a session decides is decided by the same samples in both.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from devices.api import Chunk, StreamInfo, unit_name
from models.api import InputSpec, WindowSpec
from models.electrodes import is_electrode, normalised
from realtime.api import BANDS, Beats, Body, Brain, Figure
from realtime.bandpower import (
    FRONTAL_PAIRS,
    HOP,
    PEAK_RANGE,
    RESUME,
    SLOW,
    SLOW_LEAST,
    BandPower,
    Pace,
    Rhythms,
)
from realtime.beats import FLOOR, Beat
from realtime.delineation import Waves
from realtime.filters import RESTART
from realtime.heart import Heart
from realtime.hrv import NORMAL
from realtime.intake import CONFIRMED, Intake
from realtime.sources import MICROVOLTS, Picked, choose, lacking

PATIENCE = 3.0
"""Seconds that a source may be behind another one before it is no longer waited for. A strap sends every 0.56 s."""
ABSENT = f"no samples, or more than {PATIENCE:g} s late"
WATCHED = 10
"""Seconds of a lead without a beat after which it is said what may be wrong with it."""
SETTLED = 3
"""Beats after which it is decided whether a beat was normal."""
FASTEST = 2000.0
"""Hz, and..."""
WIDEST = 256
"""...channels up to which rhythms are computed: beyond, they would cost a live session too much."""
MOST_JUDGED = 128000.0
"""Samples a second, of all channels together, up to which channels are judged for the rhythms."""
MOST_NAMED = 3
BATCH = 4096
Report = TypeVar("Report")
ECG = InputSpec(kind="ecg", channels=("ECG",))


@dataclass(frozen=True, slots=True)
class _HeartReport:
    figures: dict[str, Figure]
    intervals: NDArray[np.float64]


class _HeartPart:
    """One lead, through an intake of its own: beats as they are found, figures at whole seconds."""

    def __init__(self, stream: StreamInfo, column: int) -> None:
        """ValueError in words when no beats can be found in such a stream."""
        self.stream = stream
        self.channel = stream.channels[column]
        self._column = column
        self._width = len(stream.channels)
        self._scale = MICROVOLTS.get(unit_name(stream.unit))
        self.remark = "" if self._scale else f"{_unit_trouble(stream)}: taken as µV to find beats, no amplitudes"
        self._heart = Heart(stream.rate)
        self._intake = Intake(stream.rate, BATCH - CONFIRMED)
        self._pace = Pace(stream.rate)
        self._extremes: deque[tuple[int, float, float]] = deque()
        self._next: int | None = None
        self._decided = -math.inf

    def push(self, chunk: Chunk) -> tuple[list[Beats], list[tuple[int, _HeartReport]]]:
        if chunk.data.shape != (len(chunk.times), self._width):
            raise ValueError(f"{chunk.stream}: {len(chunk.times)} stamps came with data {chunk.data.shape}")
        beats: list[Beats] = []
        reports: list[tuple[int, _HeartReport]] = []
        for at in range(0, max(1, len(chunk.times)), BATCH - CONFIRMED):
            part = slice(at, at + BATCH - CONFIRMED)
            values = chunk.single[part, self._column, None]
            keep, marks, stamps = self._intake.admit(chunk.times[part], values, 0 if at else chunk.lost)
            if not len(keep):
                continue
            samples = self._intake.rows[keep, 0].astype(np.float64) * (self._scale or 1.0)
            if self._next is None:
                self._next = math.floor(stamps[0] / HOP) + 1
            begin = 0
            while begin < len(stamps):
                # A second is reported before the first sample at or after it.
                later = np.flatnonzero(stamps[begin:] >= self._next * HOP)
                stop = begin + int(later[0]) if len(later) else len(stamps)
                if stop > begin:
                    self._follow(stamps[begin:stop], marks[begin:stop])
                    self._watch(samples[begin:stop])
                    found, waves = self._heart.push(stamps[begin:stop], samples[begin:stop], marks[begin:stop])
                    if found or waves:
                        beats.append(self._told(found, waves))
                if stop < len(stamps):
                    reports += self._due(float(stamps[stop]))
                begin = stop
        return beats, reports

    def _follow(self, stamps: NDArray[np.float64], marks: NDArray[np.uint8]) -> None:
        begin = 0
        for at in np.flatnonzero(marks).tolist():
            self._pace.write(stamps[begin:at])
            if marks[at] == RESTART:
                self._pace.clear()
            else:
                self._pace.write(self._pace.between(float(stamps[at])), absent=True)
            begin = at
        self._pace.write(stamps[begin:])

    def _watch(self, samples: NDArray[np.float64]) -> None:
        """Between what the lead moves in each second; ``samples`` (n,) lie in one."""
        assert self._next is not None
        there = samples[np.isfinite(samples)]
        low, high = float(there.min(initial=math.inf)), float(there.max(initial=-math.inf))
        if self._extremes and self._extremes[-1][0] == self._next:
            _, below, above = self._extremes.pop()
            low, high = min(low, below), max(high, above)
        self._extremes.append((self._next, low, high))
        while self._extremes[0][0] <= self._next - WATCHED:
            self._extremes.popleft()

    def _still(self, time: float) -> str:
        """Why no beat is found in a lead, as far as its values tell, in words."""
        beats = self._heart.variability.beats
        if len(self._extremes) <= PATIENCE or (beats and beats[-1].time > time - WATCHED * HOP):
            return ""
        moves = max(high for _, _, high in self._extremes) - min(low for _, low, _ in self._extremes)
        if not moves >= 0:
            return "no values: the lead sends no number"
        if moves >= 2 * FLOOR:
            return ""
        if self._scale is None:
            return (
                f"the lead moves by {moves:.2g} of its unit: {_unit_trouble(self.stream)}; beats are looked for in µV"
            )
        return f"the lead moves by {moves:.2g} µV: no beats are looked for below {FLOOR:g} µV"

    def _told(self, beats: Sequence[Beat], waves: Sequence[tuple[Beat, Waves]]) -> Beats:
        amplitudes = [beat.amplitude if self._scale else math.nan for beat in beats]
        return Beats(
            self.stream.key,
            self.channel,
            np.array([beat.time for beat in beats]),
            np.array(amplitudes),
            np.array([beat.confidence for beat in beats]),
            np.array([_points(one) for _, one in waves]).reshape(-1, 9),
        )

    def _due(self, now: float) -> list[tuple[int, _HeartReport]]:
        assert self._next is not None
        reports: list[tuple[int, _HeartReport]] = []
        while self._next * HOP <= now:
            if len(reports) == RESUME:  # a hole: what would be said of its middle is the same again and again
                self._next = math.floor(now / HOP)
            reports.append((self._next, self._report(self._next * HOP)))
            self._next += 1
        return reports

    def _report(self, time: float, settled: int = SETTLED) -> _HeartReport:
        fault = self._pace.fault()
        if fault:
            fault = f"ECG: {fault}"
            self._heart.variability.distrust(self._pace.first, time, fault)
        still = self._still(time)
        figures = {}
        for name, one in self._heart.measures(time).items():
            reason = fault or (still if one.reason and still else one.reason)
            value = math.nan if fault else one.value
            figures[name] = Figure(value, one.unit, one.seconds, reason, one.corrected, one.beats)
        return _HeartReport(figures, self._intervals(settled))

    def finish(self, second: int) -> list[tuple[int, _HeartReport]]:
        """Nothing follows: reports up to ``second``, the last of which decides of all beats; none when all are decided.

        Figures are only given where the lead is not `PATIENCE` behind.
        """
        beats = self._heart.variability.beats
        if self._next is None or not beats or beats[-1].time <= self._decided:
            return []
        if second - self._next > PATIENCE / HOP:
            return [(second, _HeartReport({}, self._intervals(0)))]
        reports = [(due, self._report(due * HOP)) for due in range(self._next, second)]
        reports.append((second, self._report(second * HOP, 0)))
        return reports

    def _intervals(self, settled: int) -> NDArray[np.float64]:
        """What was decided since the last call, as in `Body`, by the ``settled`` beats after each."""
        beats = self._heart.variability.beats
        fresh = [beat for beat in beats[: len(beats) - settled] if beat.time > self._decided]
        if not fresh:
            return np.zeros((0, 3))
        self._decided = fresh[-1].time
        ends, lengths, kinds = self._heart.variability.intervals()
        rows = np.full((len(fresh), 3), math.nan)
        rows[:, 0] = [beat.time for beat in fresh]
        places = ends.searchsorted(rows[:, 0])
        for row, place, beat in zip(rows, places.tolist(), fresh, strict=True):
            if not beat.first and place < len(ends) and ends[place] == beat.time:
                row[1:] = lengths[place], float(kinds[place] == NORMAL)
        rows[np.isnan(rows[:, 1]), 2] = 0.0
        return rows

    def reset(self) -> None:
        self._heart.reset()
        self._intake.reset()
        self._pace.clear()
        self._extremes.clear()
        self._next = None
        self._decided = -math.inf


class _BrainPart:
    """Rhythms of one EEG stream."""

    def __init__(self, stream: StreamInfo, apart: Iterable[int] = ()) -> None:
        """ValueError in words when the stream cannot have rhythms. ``apart`` are columns that are no EEG."""
        if stream.rate > FASTEST:
            raise ValueError(f"{stream.key}: {stream.rate:g} Hz; rhythms are computed up to {FASTEST:g} Hz")
        if len(stream.channels) > WIDEST:
            raise ValueError(f"{stream.key}: {len(stream.channels)} channels; rhythms are computed of up to {WIDEST}")
        self.stream = stream
        self._scaled = unit_name(stream.unit) in MICROVOLTS
        self._remark = ""
        placed = np.array([is_electrode(label) for label in stream.channels])
        placed[list(apart)] = False
        if not placed.any():
            placed[:] = True
            placed[list(apart)] = False
        self._placed = placed
        # What is bad is bad in microvolts.
        judged = np.flatnonzero(placed).tolist() if self._scaled else []
        if not self._scaled:
            self._remark = f"{_unit_trouble(stream)}: no powers, only shares and ratios, of bad channels too"
        elif len(judged) * stream.rate > MOST_JUDGED:
            judged = []
            self._remark = "so many channels at such a rate are not judged: figures are of bad channels too"
        self._power = BandPower(stream, judged=judged)

    def push(self, chunk: Chunk) -> list[tuple[int, Brain]]:
        return [(round(rhythms.time / HOP), self._brain(rhythms)) for rhythms in self._power.push(chunk)]

    def _brain(self, rhythms: Rhythms) -> Brain:
        counted = self._placed & np.array([not fault for fault in rhythms.invalid])
        averaged = int(counted.sum())
        slope, peak = _median(rhythms.slope[counted]), _median(rhythms.peak[counted])
        absolute = rhythms.absolute if self._scaled else np.full_like(rhythms.absolute, np.nan)
        nothing = np.full(len(BANDS), np.nan)
        theta, beta = (float(rhythms.band(name)[counted].sum()) for name in ("theta", "beta"))
        ratio = theta / beta if beta > 0 else math.nan
        faults = [
            (label, fault)
            for label, fault, placed in zip(rhythms.labels, rhythms.invalid, self._placed, strict=True)
            if fault and placed
        ]
        reason = "" if averaged else _common(faults)
        without = "" if reason or not faults else f"without {_listed(faults)}"
        return Brain(
            self.stream.key,
            rhythms.labels,
            absolute.astype(np.float32),
            rhythms.relative.astype(np.float32),
            rhythms.slope.astype(np.float32),
            rhythms.peak.astype(np.float32),
            rhythms.invalid,
            absolute[counted].mean(axis=0) if averaged else nothing,
            rhythms.relative[counted].mean(axis=0) if averaged else nothing,
            ratio,
            slope,
            peak,
            rhythms.asymmetry,
            averaged,
            reason,
            "; ".join(filter(None, (self._remark, without))),
            rhythms.verdicts,
            {} if reason else _absent(rhythms, ratio, slope, peak),
        )

    def reset(self) -> None:
        self._power.reset()


class _Line(Generic[Report]):
    """The reports of one source that wait for those of the others, by their second."""

    def __init__(self) -> None:
        self.waiting: deque[tuple[int, Report]] = deque()
        self.reached: float = -math.inf
        self.awaited = True

    def take(self, reports: Sequence[tuple[int, Report]], done: float) -> list[Report]:
        """Keep what is not ``done`` without it; what came too late."""
        late = []
        for second, report in reports:
            self.reached = second
            if second > done:
                self.waiting.append((second, report))
            else:
                late.append(report)
        self.awaited |= self.reached > done - PATIENCE / HOP
        return late

    def at(self, second: int) -> Report | None:
        return self.waiting.popleft()[1] if self.waiting and self.waiting[0][0] == second else None


class Physiology:
    """`Beats` and `Body` of a session's ``streams``. Belongs to one thread.

    The ECG is ``picked`` for the model, or what a model of one ECG lead would be given; rhythms are those of every
    stream of EEG, at its own rate.
    """

    def __init__(self, streams: Sequence[StreamInfo], picked: Mapping[str, Picked] | None = None) -> None:
        picked = dict(picked or {})
        spec = WindowSpec(inputs=(ECG,))
        lead = picked.get("ecg") or choose(streams, spec).get("ecg")
        by_key = {stream.key: stream for stream in streams}
        self._reason = "" if lead else lacking(streams, spec).get("ecg", "")
        self._heart: _HeartPart | None = None
        if lead is not None:
            column = next(column for column in lead.columns if column >= 0)
            try:
                self._heart = _HeartPart(by_key[lead.stream], column)
            except ValueError as error:
                self._reason = f"{lead.stream}: {error}"
        self._brains: list[_BrainPart] = []
        self._refused: list[Brain] = []
        first = picked["eeg"].stream if "eeg" in picked else ""
        heads = [stream for stream in streams if stream.rate and (stream.kind == "eeg" or stream.key == first)]
        for stream in sorted(heads, key=lambda stream: stream.key != first):
            apart = [column] if lead is not None and lead.stream == stream.key else []
            try:
                self._brains.append(_BrainPart(stream, apart))
            except ValueError as error:
                self._refused.append(_nothing(stream, str(error)))
        self.reset()

    @property
    def empty(self) -> bool:
        """Whether no stream has anything to say."""
        return self._heart is None and not self._brains

    def push(self, chunk: Chunk) -> list[Beats | Body]:
        """Take a chunk; what is now found. Chunks of other streams do nothing."""
        found: list[Beats | Body] = []
        if self._heart is not None and chunk.stream == self._heart.stream.key:
            beats, reports = self._heart.push(chunk)
            found += beats
            self._late += [report.intervals for report in self._heart_line.take(reports, self._done)]
        for part, line in zip(self._brains, self._brain_lines, strict=True):
            if chunk.stream == part.stream.key:
                line.take(part.push(chunk), self._done)
        return found + self._bodies()

    def finish(self) -> list[Beats | Body]:
        """Nothing follows: the seconds that at least one source has passed, and what is left to say of the last beats.

        That is said with a `Body` of the second which the end cut short. Whoever asks again is told nothing new.
        """
        furthest = max((line.reached for line in self._lines), default=-math.inf)
        cut_short = self._heart.finish(int(furthest) + 1) if self._heart is not None and furthest > -math.inf else []
        self._late += [report.intervals for report in self._heart_line.take(cut_short, self._done)]
        found = self._bodies(everything=True)
        if cut_short and found and isinstance(found[-1], Body):
            found[-1] = replace(found[-1], brains=())
        return found

    def silent(self, time: float, reason: str) -> Body:
        """That there is nothing to be said at ``time``, and why."""
        ecg = self._heart.stream.key if self._heart is not None else ""
        brains = [_nothing(part.stream, reason) for part in self._brains]
        return Body(time, ecg, {}, reason, "", np.zeros((0, 3)), (*brains, *self._refused))

    def reset(self) -> None:
        """Forget everything that came: from here on as new."""
        if self._heart is not None:
            self._heart.reset()
        for part in self._brains:
            part.reset()
        self._heart_line: _Line[_HeartReport] = _Line()
        self._brain_lines: list[_Line[Brain]] = [_Line() for _ in self._brains]
        self._late: list[NDArray[np.float64]] = []
        self._first: float = math.inf
        self._done: float = -math.inf

    @property
    def _lines(self) -> list[_Line[_HeartReport] | _Line[Brain]]:
        return [*([self._heart_line] if self._heart is not None else []), *self._brain_lines]

    def _bodies(self, *, everything: bool = False) -> list[Beats | Body]:
        bodies: list[Beats | Body] = []
        lines = self._lines
        while heads := [line.waiting[0][0] for line in lines if line.waiting]:
            second = min(heads)
            self._first = min(self._first, second - 1)
            furthest = max(line.reached for line in lines)
            for line in lines:
                line.awaited &= furthest - max(line.reached, self._first) <= PATIENCE / HOP
            if not everything and any(line.awaited and line.reached < second for line in lines):
                break
            bodies.append(self.body(second * HOP))
            self._done = second
        return bodies

    def body(self, time: float) -> Body:
        """What there is at ``time``; by itself only for what is `empty`, to say why."""
        second = round(time / HOP)
        reason, remark, ecg = self._reason, "", ""
        figures: dict[str, Figure] = {}
        intervals = np.zeros((0, 3))
        if self._heart is not None:
            ecg, remark = self._heart.stream.key, self._heart.remark
            report = self._heart_line.at(second)
            if report is not None:
                figures = report.figures
                self._late.append(report.intervals)
            if not figures:
                reason = f"{ecg}: {ABSENT}"
            if self._late:
                intervals, self._late = np.concatenate(self._late), []
        brains = [
            line.at(second) or _nothing(part.stream, ABSENT)
            for part, line in zip(self._brains, self._brain_lines, strict=True)
        ]
        return Body(time, ecg, figures, reason, remark, intervals, (*brains, *self._refused))


def _listed(faults: Sequence[tuple[str, str]]) -> str:
    """Channels and what is wrong with them, the first few."""
    named = ", ".join(f"{label} ({fault})" for label, fault in faults[:MOST_NAMED])
    return f"{named} and {len(faults) - MOST_NAMED} more" if len(faults) > MOST_NAMED else named


def _common(faults: Sequence[tuple[str, str]]) -> str:
    """Why no channel of EEG is usable."""
    if not faults:
        return "no channel of EEG is valid"
    return faults[0][1] if len({fault for _, fault in faults}) == 1 else f"no usable channel: {_listed(faults)}"


def _nothing(stream: StreamInfo, reason: str) -> Brain:
    labels = stream.channels[:WIDEST]
    nothing = np.full((len(labels), len(BANDS)), np.nan, np.float32)
    none = np.full(len(labels), np.nan, np.float32)
    bands = np.full(len(BANDS), np.nan)
    invalid = (reason,) * len(labels)
    return Brain(stream.key, labels, nothing, nothing, none, none, invalid, bands, bands, reason=reason)


def _absent(rhythms: Rhythms, ratio: float, slope: float, peak: float) -> dict[str, str]:
    """Why a figure of channels that are valid is not given."""
    absent = {}
    if math.isnan(ratio):
        absent["theta_beta"] = "too slow a stream for beta"
    if math.isnan(slope):
        absent["slope"] = absent["peak"] = f"{SLOW_LEAST * HOP:g} good s of {SLOW * HOP:g} are needed"
    elif math.isnan(peak):
        absent["peak"] = f"none of {PEAK_RANGE[0]:g} to {PEAK_RANGE[1]:g} Hz stands out"
    if not rhythms.asymmetry:
        absent["asymmetry"] = f"no pair such as {'/'.join(FRONTAL_PAIRS[0])}"
    elif all(math.isnan(value) for _, value in rhythms.asymmetry):
        pair = rhythms.asymmetry[0][0].split("-")
        faults = zip(rhythms.labels, rhythms.invalid, strict=True)
        absent["asymmetry"] = next(
            (f"{label}: {fault}" for label, fault in faults if fault and normalised(label) in pair), "no alpha"
        )
    return absent


def _median(values: NDArray[np.float64]) -> float:
    finite = values[np.isfinite(values)]
    return float(np.median(finite)) if len(finite) else math.nan


def _points(waves: Waves) -> tuple[float, ...]:
    p = waves.p_onset, waves.p_peak, waves.p_offset
    return (*p, waves.qrs_onset, waves.r_peak, waves.qrs_offset, waves.t_onset, waves.t_peak, waves.t_offset)


def _unit_trouble(stream: StreamInfo) -> str:
    return f"unit {stream.unit!r} is unknown" if unit_name(stream.unit) else "no unit given"

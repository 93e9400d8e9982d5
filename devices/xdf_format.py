"""XDF 1.0: the front door to its reader, its writer, and the words insula uses in its own records.

No device library, only file access.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from devices.xdf_layout import (
    AFFECT_TYPE,
    ANNOUNCED,
    EVENT_ALARM,
    EVENT_CLOCK,
    EVENT_LOST,
    EVENT_NOTE,
    EVENT_OVER,
    EVENT_SKIPPED,
    EVENT_TICK,
    EVENT_UNRECORDED,
    MARKERS_TYPE,
    OWN_DESC,
    PHYSIOLOGY_TYPE,
    SESSION_NAME,
    SESSION_TYPE,
    XdfError,
)
from devices.xdf_reader import XdfFile, XdfStream
from devices.xdf_sync import are_times
from devices.xdf_writer import Desc, XdfWriter

__all__ = [
    "AFFECT_TYPE",
    "ANNOUNCED",
    "EVENT_ALARM",
    "EVENT_CLOCK",
    "EVENT_LOST",
    "EVENT_NOTE",
    "EVENT_OVER",
    "EVENT_SKIPPED",
    "EVENT_TICK",
    "EVENT_UNRECORDED",
    "MARKERS_TYPE",
    "OWN_DESC",
    "PHYSIOLOGY_TYPE",
    "SESSION_NAME",
    "SESSION_TYPE",
    "Desc",
    "StreamSummary",
    "XdfError",
    "XdfFile",
    "XdfStream",
    "XdfWriter",
    "are_times",
    "describe",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamSummary:
    """What `insula inspect` says of a stream. Times are synchronised and in seconds."""

    id: int
    name: str
    type: str
    channels: tuple[str, ...]
    unit: str
    """"" when unknown, "mixed" when the channels differ."""
    format: str
    rate: float
    """Hz, nominal."""
    effective_rate: float
    """Hz, intervals by the time from first to last sample, gaps included (pyxdf's ``effective_srate``, not dejittered);
    NaN for irregular streams, fewer than two samples, and stamps that do not rise from first to last."""
    samples: int
    start: float
    stop: float
    """NaN, like ``start``, without a sample whose stamp is a time."""
    gaps: int
    """Steps between times of more than 0.5 s and 3 nominal intervals; a step back by as much (a clock reset) too."""
    gap_seconds: float
    """What is missing in them altogether."""
    offsets: int
    offset_range: tuple[float, float]
    """Smallest and largest clock offset, NaN without any. Only what is used: a corrupt last one is left out."""
    findings: tuple[str, ...] = ()
    """What only its samples tell, one line with its byte each: chunks that are damaged inside, stamps that are no
    times (no numbers, or beyond any clock), stamps that run backward. `XdfFile.findings` has the rest."""

    @property
    def duration(self) -> float:
        """From the first stamp to the last; 0.0 where they run backward, NaN without any."""
        return 0.0 if self.stop < self.start else self.stop - self.start


def describe(path: str | Path) -> list[StreamSummary]:
    """Every stream of a file in order of appearance, from one pass that keeps few samples in memory.

    The streams that a record of insula announces and of which no sample came are last.
    """
    with XdfFile(path) as file:
        return [_summary(file, stream) for stream in (*file.streams.values(), *file.announced().values())]


def _summary(file: XdfFile, stream: XdfStream) -> StreamSummary:
    interval = 1.0 / stream.rate if stream.rate > 0 else np.inf
    longest = max(0.5, 3.0 * interval)
    known = len(file.findings)
    start = last = np.nan
    samples = gaps = no_times = backward = started = intervals = 0
    first_bad = first_back = -1
    missing = 0.0
    for first, stamps, readable in file.stamps(stream.id) if stream.id in file.streams else ():
        good = are_times(stamps)
        bad = readable & ~good
        if bad.any():
            first_bad = first + int(bad.argmax()) if first_bad < 0 else first_bad
            no_times += int(bad.sum())
        before, samples = samples, samples + int(readable.sum())
        times = stamps[good]
        if not len(times):
            continue
        places = np.flatnonzero(good)
        if np.isnan(start):
            start, started = float(times[0]), before + int(readable[: places[0]].sum())
        intervals = before + int(readable[: places[-1]].sum()) - started
        steps = np.diff(times, prepend=times[0] if np.isnan(last) else last)
        broken = steps[np.abs(steps) > longest]
        gaps += len(broken)
        missing += float((broken[broken > 0] - interval).sum()) if len(broken) else 0.0
        back = steps < -longest
        if back.any():
            first_back = first + int(places[back.argmax()]) if first_back < 0 else first_back
            backward += int(back.sum())
        last = float(times[-1])
    findings = file.findings[known:]
    if no_times:
        findings.append(
            f"byte {file.byte_of(stream.id, first_bad)}: {no_times} of {samples} stamps of stream {stream.id} are no "
            f"times, the first that of sample {first_bad}; they count for no duration, rate or gap"
        )
    if backward:
        findings.append(
            f"byte {file.byte_of(stream.id, first_back)}: stamps of stream {stream.id} run backward by more than "
            f"{longest:g} s {backward} times, first at sample {first_back}"
        )
    if last < start:
        findings.append(
            f"byte {file.byte_of(stream.id, 0)}: stamps of stream {stream.id} end {start - last:g} s before they "
            "begin; it has no duration and no rate"
        )
    span = last - start
    # No signal has more than one sample in a nanosecond: its stamps stand still.
    regular = stream.rate > 0 and intervals and span > 1e-9 * intervals
    pairs = file.used_offsets(stream.id)
    units = set(stream.units)
    return StreamSummary(
        id=stream.id,
        name=stream.name,
        type=stream.type,
        channels=stream.channels,
        unit=units.pop() if len(units) == 1 else ("mixed" if units else ""),
        format=stream.format,
        rate=stream.rate,
        effective_rate=intervals / span if regular else np.nan,
        samples=samples,
        start=start,
        stop=last,
        gaps=gaps,
        gap_seconds=missing,
        offsets=len(pairs),
        offset_range=(float(pairs[:, 1].min()), float(pairs[:, 1].max())) if len(pairs) else (np.nan, np.nan),
        findings=tuple(findings),
    )

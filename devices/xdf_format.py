"""XDF 1.0: the front door to its reader, its writer, and the words insula uses in its own records.

No device library, only file access.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from devices.xdf_layout import (
    AFFECT_TYPE,
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
from devices.xdf_writer import Desc, XdfWriter

__all__ = [
    "AFFECT_TYPE",
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
    """NaN, like ``start``, without samples."""
    gaps: int
    """Steps between samples of more than 0.5 s and 3 nominal intervals; a step back by as much (a clock reset) too."""
    gap_seconds: float
    """What is missing in them altogether."""
    offsets: int
    offset_range: tuple[float, float]
    """Smallest and largest clock offset, NaN without any. Only what is used: a corrupt last one is left out."""

    @property
    def duration(self) -> float:
        return self.stop - self.start


def describe(path: str | Path) -> list[StreamSummary]:
    """Every stream of a file in order of appearance, in one pass that keeps one chunk in memory."""
    with XdfFile(path) as file:
        return [_summary(file, stream) for stream in file.streams.values()]


def _summary(file: XdfFile, stream: XdfStream) -> StreamSummary:
    interval = 1.0 / stream.rate if stream.rate > 0 else np.inf
    longest = max(0.5, 3.0 * interval)
    start = last = np.nan
    samples = gaps = 0
    missing = 0.0
    for index in file.chunks_of(stream.id):
        times, _ = file.decode(int(index))
        if not len(times):
            continue
        start = float(times[0]) if samples == 0 else start
        with np.errstate(over="ignore", invalid="ignore"):  # damaged stamps may be infinite
            steps = np.diff(times, prepend=times[0] if samples == 0 else last)
        broken = steps[np.abs(steps) > longest]
        gaps += len(broken)
        missing += float((broken[broken > 0] - interval).sum()) if len(broken) else 0.0
        samples += len(times)
        last = float(times[-1])
    regular = stream.rate > 0 and samples > 1 and last > start
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
        effective_rate=(samples - 1) / (last - start) if regular else np.nan,
        samples=samples,
        start=start,
        stop=last,
        gaps=gaps,
        gap_seconds=missing,
        offsets=len(pairs),
        offset_range=(float(pairs[:, 1].min()), float(pairs[:, 1].max())) if len(pairs) else (np.nan, np.nan),
    )

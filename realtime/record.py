"""The record of a session: what came, in the order in which it came, and what was made of it, as XDF.

A record is the session's sequence of items. Replaying it gives the same windows and the same estimates, so every tick
that cut a window and every window that was skipped stands in it, at its place, in a string stream of its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from devices.api import Chunk, Events, Item, StreamInfo, Tick
from devices.xdf_format import (
    AFFECT_TYPE,
    EVENT_LOST,
    EVENT_SKIPPED,
    EVENT_TICK,
    MARKERS_TYPE,
    OWN_DESC,
    SESSION_NAME,
    SESSION_TYPE,
    XdfWriter,
)
from models.api import Estimate, estimate_channels


@dataclass(frozen=True, slots=True)
class Skipped:
    """The model was too slow for the window that ends at ``t_end``."""

    t_end: float


Recordable = Item | Estimate | Skipped


class Recorder:
    """Writes a session to ``path``, which must not exist. Used by one thread; raises devices.xdf_format.XdfError.

    ``about`` is put into the header: model, its hash, window, versions.
    """

    def __init__(
        self, path: Path, streams: Sequence[StreamInfo], targets: Sequence[str], about: Mapping[str, str]
    ) -> None:
        self._writer = XdfWriter(path)
        self.path = path
        self._ids: dict[str, int] = {}
        for info in streams:
            self._ids[info.key] = self._writer.add_stream(
                name=info.name or info.key,
                type=MARKERS_TYPE if info.kind == "markers" else info.kind.upper(),
                channels=info.channels if info.rate else ("marker",),
                rate=info.rate,
                format="float32" if info.rate else "string",
                unit=info.unit,
                source_id=info.source,
                desc={OWN_DESC: {"key": info.key, "kind": info.kind}},
            )
        self._session = self._writer.add_stream(
            name=SESSION_NAME, type=SESSION_TYPE, channels=("event",), rate=0.0, format="string", desc=dict(about)
        )
        self._affect = self._writer.add_stream(
            name="insula affect",
            type=AFFECT_TYPE,
            channels=estimate_channels(targets),
            rate=0.0,
            format="double64",
            desc=dict(about),
        )
        self._reasons = self._writer.add_stream(
            name="insula withheld",
            type=AFFECT_TYPE,
            channels=("withheld",),
            rate=0.0,
            format="string",
            desc={"meaning": "why the estimate that ends here was withheld"},
        )

    @property
    def bytes_written(self) -> int:
        return self._writer.bytes_written

    @property
    def sync_problem(self) -> str:
        """ "" while the system confirms that the file reaches the disk, else one line."""
        return self._writer.sync_problem

    def write(self, entry: Recordable) -> None:
        """Append one entry; it is with the operating system when this returns."""
        match entry:
            case Chunk():
                if entry.lost:
                    self._event(float(entry.times[0]), f"{EVENT_LOST} {entry.lost} {entry.stream}")
                self._writer.write(self._ids[entry.stream], entry.times, entry.data)
            case Events():
                self._writer.write_strings(self._ids[entry.stream], entry.times, list(entry.labels))
            case Tick():
                self._event(entry.time, f"{EVENT_TICK} {float(entry.time)!r}")
            case Skipped():
                self._event(entry.t_end, f"{EVENT_SKIPPED} {float(entry.t_end)!r}")
            case Estimate():
                self._writer.write(self._affect, [entry.t_end], np.array([entry.values()]))
                if entry.withheld is not None:
                    self._writer.write_strings(self._reasons, [entry.t_end], [entry.withheld])

    def _event(self, time: float, text: str) -> None:
        self._writer.write_strings(self._session, [time], [text])

    def close(self) -> None:
        self._writer.close()

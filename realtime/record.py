"""The record of a session: what came, in the order in which it came, and what was made of it, as XDF.

A record is the session's sequence of items. Replaying it gives the same windows and the same estimates, so every tick
that cut a window and every window that was skipped stands in it, at its place, in a string stream of its own. So do
alarms, notices and measured clocks, which a replay passes over.
"""

from __future__ import annotations

import contextlib
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from devices.api import Chunk, Clock, Events, Item, Notice, StreamInfo, Tick
from devices.xdf_format import (
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
    XdfWriter,
)
from models.api import Estimate, estimate_channels
from realtime.alarms import Alarmed
from realtime.api import BODY_COLUMNS, Body
from realtime.sidecar import write_sidecar

LAST_RUN = 9999
_LABEL = re.compile(r"[A-Za-z0-9]{1,64}")


@dataclass(frozen=True, slots=True)
class Skipped:
    """The model was too slow for the window that ends at ``t_end``."""

    t_end: float


@dataclass(frozen=True, slots=True)
class Missing:
    """So many samples or markers of a stream are known to be missing at its end, where none follows that could say so.

    ``time`` is when that was known, session clock."""

    stream: str
    time: float
    samples: int


@dataclass(frozen=True, slots=True)
class Unrecorded:
    """``entries`` before this place are missing in the record: the disk did not take them."""

    time: float
    entries: int


Recordable = Item | Estimate | Body | Skipped | Missing | Alarmed | Unrecorded
PHYSIOLOGY_MEANING = (
    "heart and brain rhythms at the time stamp, from the samples before it; NaN where a figure is not valid. Heart "
    "after Task Force 1996 (Circulation 93:1043): hr over 10 s; rmssd, pnn50 and sd1 over 60 s; sdnn, sd2, lf and hf "
    "over up to 300 s; breathing over 60 s; corrected: share of the beats of 60 s that were left out; pr, qrs and qt: "
    "medians over the last 20 beats, of which pr_beats, qrs_beats and qt_beats had the waves; qtc: qt over the cube "
    "root of the RR interval (Fridericia). Bands delta 1-4, "
    "theta 4-8, alpha 8-13, beta 13-30, gamma 30-45 Hz over 4 s, means over the valid electrodes; shares are of "
    "1-45 Hz; asymmetry: ln alpha right - ln alpha left of the first frontal pair that there is; alpha_peak and slope "
    "over 30 s, medians"
)
BEATS_MEANING = (
    "one sample a heartbeat, at its R peak: the RR interval that ends there, NaN after a gap; normal is 0 where it was "
    "left out because one of its beats is not normal or not certain"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Study:
    """Whom and what a record is of: codes, never names. ``session`` may be ""; ``run`` None is the first free one."""

    folder: Path
    participant: str
    session: str
    task: str
    run: int | None = None


def study_path(folder: Path, participant: str, session: str, task: str, run: int | None = None) -> Path:
    """Where the record of a run lies below ``folder``, named as BIDS does; without ``run`` the first that is free.

    XDF is no raw format of BIDS, so it is ``sourcedata/sub-P/ses-S/eeg/sub-P_ses-S_task-T_run-01_eeg.xdf``; without
    ``session`` there is no ``ses-``. Raises XdfError for labels that are not letters and digits, and when a ``run``
    that was asked for is there already.
    """
    entities = {"sub": participant, "ses": session, "task": task}
    for (entity, label), what in zip(entities.items(), ("participant", "session", "task"), strict=True):
        if not _LABEL.fullmatch(label) and not (entity == "ses" and not label):
            raise XdfError(f"{what} {label!r}: only letters and digits make a label, at most 64, for example P07.")
    if run is not None and not 1 <= run <= LAST_RUN:
        raise XdfError(f"run {run}: is a number from 1 to {LAST_RUN}.")
    named = {entity: f"{entity}-{label}" for entity, label in entities.items() if label}
    place = Path(folder, "sourcedata", *(named[entity] for entity in ("sub", "ses") if entity in named), "eeg")
    for number in range(1, LAST_RUN + 1) if run is None else (run,):
        path = place / f"{'_'.join(named.values())}_run-{number:02d}_eeg.xdf"
        if not path.exists() and not path.with_suffix(".json").exists():
            return path
    raise XdfError(f"{path}: exists already, nothing is overwritten. Choose another run, or leave the run out.")


def start_record(
    where: Path | Study, streams: Sequence[StreamInfo], targets: Sequence[str], about: Mapping[str, str]
) -> Recorder:
    """A new record in the file or the study ``where``, whose folders are made. Raises XdfError.

    Nothing is overwritten also when several start at once: who comes second gets the next run.
    """
    if isinstance(where, Path):
        return Recorder(where, streams, targets, about)
    while True:
        path = study_path(where.folder, where.participant, where.session, where.task, where.run)
        made = [above for above in path.parents if not above.exists()]
        number = path.stem.rpartition("_run-")[2].removesuffix("_eeg")
        codes = {"participant": where.participant, "session": where.session, "task": where.task, "run": number}
        study = {name: code for name, code in codes.items() if code}
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            return Recorder(path, streams, targets, about, study=study, folders=made)
        except OSError as error:
            _remove(made)
            raise XdfError(f"{path.parent}: cannot be made ({error.strerror}). Check rights and disk.") from None
        except XdfError:
            _remove(made)
            if where.run is not None or not path.exists():
                raise


def _remove(folders: Sequence[Path]) -> None:
    """Those that are empty, the innermost first: nothing was recorded in them."""
    for folder in folders:
        with contextlib.suppress(OSError):
            folder.rmdir()


class Recorder:
    """Writes a session to ``path``, which must not exist. Used by one thread; raises devices.xdf_format.XdfError.

    ``about`` is put into the header: model, its hash, window, versions. Without ``targets`` there is no place for
    estimates. ``study`` has the codes that the description beside the record gives, ``folders`` were made for it, the
    innermost first. The fsync runs in a thread of its own.

    A stream of numbers has a header of its own from its first sample on; that it is there says the header of the
    session, from the beginning.
    """

    def __init__(
        self,
        path: Path,
        streams: Sequence[StreamInfo],
        targets: Sequence[str],
        about: Mapping[str, str],
        *,
        study: Mapping[str, str] | None = None,
        folders: Sequence[Path] = (),
    ) -> None:
        self.path = path
        self._folders = folders
        self.sidecar = path.with_suffix(".json")
        """The description beside the record."""
        self.study = dict(study or {})
        if self.sidecar.exists():
            raise XdfError(f"{self.sidecar}: exists already, nothing is overwritten. Choose another name.")
        self._writer = XdfWriter(path, sync_apart=True, late_headers=True)
        try:
            self._announce(streams, targets, about)
        except XdfError as error:
            self.discard()
            reason = getattr(error.__cause__, "strerror", None) or error
            raise XdfError(
                f"{path}: could not be begun ({reason}), there is no file. Free disk space or record elsewhere."
            ) from error
        except BaseException:
            self.discard()
            raise

    def _announce(self, streams: Sequence[StreamInfo], targets: Sequence[str], about: Mapping[str, str]) -> None:
        self._ids: dict[str, int] = {}
        for info in streams:
            self._ids[info.key] = self._writer.add_stream(
                name=info.name or info.key,
                type=MARKERS_TYPE if info.kind == "markers" else info.kind.upper(),
                channels=info.channels if info.numeric else ("marker",),
                rate=info.rate,
                format=info.format,
                unit=info.unit,
                source_id=info.source,
                desc={OWN_DESC: {"key": info.key, "kind": info.kind}},
            )
        announced = self._writer.announced()
        self._session = self._writer.add_stream(
            name=SESSION_NAME,
            type=SESSION_TYPE,
            channels=("event",),
            rate=0.0,
            format="string",
            desc={**about, ANNOUNCED: announced} if announced else dict(about),
        )
        if targets:
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
        self._bodies: tuple[int, int] | None = None
        self._silent_on_clock = {*self._ids.values(), self._session}
        self._newest_event = -math.inf
        if targets:
            self._silent_on_clock |= {self._affect, self._reasons}

    @property
    def bytes_written(self) -> int:
        return self._writer.bytes_written

    @property
    def sync_problem(self) -> str:
        """ "" while the system confirms that the file reaches the disk, else one line."""
        return self._writer.sync_problem

    @property
    def sync_seconds(self) -> float:
        """How long the system has been asked to confirm that the file reaches the disk; 0.0 when it is not."""
        return self._writer.sync_seconds

    def describe(self, content: Mapping[str, object]) -> None:
        """Put ``content`` beside the record, in place of what was there: the whole of it or nothing."""
        write_sidecar(self.sidecar, content)

    def write(self, entry: Recordable) -> None:
        """Append one entry; it is with the operating system when this returns."""
        silent = self._silent_on_clock.copy()
        try:
            self._write(entry)
        except BaseException:
            self._silent_on_clock |= silent  # what is not in the file has not been said
            raise

    def _write(self, entry: Recordable) -> None:
        match entry:
            case Chunk():
                with self._writer.together():  # a count without its chunk would be counted again with the next
                    if entry.lost:
                        self._event(float(entry.times[0]), f"{EVENT_LOST} {entry.lost} {entry.stream}")
                    self._say_clock(self._ids[entry.stream], float(entry.times[0]))
                    self._writer.write(self._ids[entry.stream], entry.times, entry.data)
            case Events():
                with self._writer.together():
                    if entry.lost:
                        self._event(float(entry.times[0]), f"{EVENT_LOST} {entry.lost} {entry.stream}")
                    self._strings(self._ids[entry.stream], entry.times.tolist(), entry.labels)
            case Tick():
                self._event(entry.time, f"{EVENT_TICK} {float(entry.time)!r}")
            case Skipped():
                self._event(entry.t_end, f"{EVENT_SKIPPED} {float(entry.t_end)!r}")
            case Missing():
                self._event(entry.time, f"{EVENT_LOST} {entry.samples} {entry.stream}")
            case Clock():
                with self._writer.together():
                    if math.isfinite(entry.time) and math.isfinite(entry.residual):
                        # Collection times are on the stream's clock: its stamps are the session's but for the residual.
                        self._writer.write_offset(self._ids[entry.stream], entry.time - entry.residual, entry.residual)
                        self._silent_on_clock.discard(self._ids[entry.stream])
                    measured = f"{float(entry.offset)!r} {float(entry.uncertainty)!r}"
                    self._event(entry.time, f"{EVENT_CLOCK} {entry.stream} {measured}")
            case Notice():
                self._event(entry.time, f"{EVENT_NOTE} {float(entry.time)!r} {entry.stream} {one_line(entry.text)}")
            case Alarmed():
                word = EVENT_OVER if entry.over else EVENT_ALARM
                self._event(entry.time, f"{word} {float(entry.time)!r} {one_line(entry.text)}")
            case Unrecorded():
                self._event(entry.time, f"{EVENT_UNRECORDED} {entry.entries}")
            case Estimate():
                with self._writer.together():
                    self._numbers(self._affect, [entry.t_end], np.array([entry.values()]))
                    if entry.withheld is not None:
                        self._strings(self._reasons, [entry.t_end], [entry.withheld])
            case Body():
                rows, beats = self._bodies or self._begin_bodies()
                with self._writer.together():
                    self._numbers(rows, [entry.time], np.array([entry.values()]))
                    self._numbers(beats, entry.intervals[:, 0].tolist(), entry.intervals[:, 1:])

    def _begin_bodies(self) -> tuple[int, int]:
        """The streams of heart and rhythms; a session without signals of the body has none."""
        rows = self._writer.add_stream(
            name="insula physiology",
            type=PHYSIOLOGY_TYPE,
            channels=tuple(BODY_COLUMNS),
            rate=0.0,
            format="double64",
            desc={"meaning": PHYSIOLOGY_MEANING, "units": {name: unit for name, unit in BODY_COLUMNS.items() if unit}},
        )
        beats = self._writer.add_stream(
            name="insula beats",
            type=PHYSIOLOGY_TYPE,
            channels=("rr", "normal"),
            rate=0.0,
            format="double64",
            desc={"meaning": BEATS_MEANING, "units": {"rr": "s"}},
        )
        self._bodies = rows, beats
        self._silent_on_clock |= {rows, beats}
        return self._bodies

    def _numbers(self, number: int, times: Sequence[float], values: NDArray[np.float64]) -> None:
        if times:
            self._say_clock(number, times[0])
        self._writer.write(number, times, values)

    def _event(self, time: float, text: str) -> None:
        # What is told late has its own time in its text, or is about what follows: stamps never go back.
        self._newest_event = max(self._newest_event, time)
        self._strings(self._session, [self._newest_event], [text])

    def _strings(self, number: int, times: Sequence[float], labels: Sequence[str]) -> None:
        if times:
            self._say_clock(number, times[0])
        self._writer.write_strings(number, times, labels)

    def _say_clock(self, number: int, time: float) -> None:
        """A stream of which no clock was measured before its first chunk is stamped by the session clock itself.

        That is an offset of zero; pyxdf takes a stream with holes and without any offset for a broken one.
        """
        if number in self._silent_on_clock and math.isfinite(time):
            self._writer.write_offset(number, time, 0.0)
            self._silent_on_clock.remove(number)

    def close(self) -> None:
        self._writer.close()

    def discard(self) -> None:
        """Leave no trace of a record that could not be begun."""
        self._writer.discard()
        _remove(self._folders)


def one_line(text: str) -> str:
    """Text from outside as one printable line of at most 1000 characters.

    >>> one_line("the plug \\n is\\x1b out ")
    'the plug is out'
    """
    return " ".join("".join(letter if letter.isprintable() else " " for letter in text[:1000]).split())

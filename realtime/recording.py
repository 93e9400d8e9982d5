"""What runs in the recorder thread: it begins the record, writes what is put, says what is wrong with the disk, counts
what is missing."""

from __future__ import annotations

import contextlib
import math
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

from devices.api import Chunk, Notice
from devices.xdf_format import XdfError
from realtime.alarms import Alarmed
from realtime.handover import Backlog
from realtime.record import Recordable, Recorder, Unrecorded

DISK_STALL = 1.5
"""Seconds without an answer of the disk that are an alarm."""
DISK_BACK = 2.0
"""Seconds without a failure after which the disk is believed to take everything again."""
HELD = 1000
"""Alarms and notices that wait for a disk that fails to take them."""


class Recording:
    """A record that is being made. ``put`` may be called from any thread, ``run`` is the recorder thread.

    ``begin`` opens the record there: a disk that stalls already then holds up nobody, and what is put meanwhile waits.
    What the disk refuses is counted: samples in the next chunk of their stream that it takes, entries in an
    `Unrecorded` before it. Alarms and notices are kept until it takes them, the newest `HELD`; the others are counted.
    ``now`` is the session clock. A ``dispensable`` record is not all that the session is for: one that turns out only
    late not to begin is a standing alarm, and everything that is put is counted as not recorded.
    """

    def __init__(
        self, begin: Callable[[], Recorder], *, waits: bool, now: Callable[[], float], dispensable: bool = False
    ) -> None:
        self._begin = begin
        self._dispensable = dispensable
        self._recorder: Recorder | None = None
        self.awaited = True
        """Whether somebody waits for the record to begin, and gives up when it cannot."""
        self._backlog = Backlog(waits=waits)
        self._now = now
        self._busy_since = math.nan
        self._unwritten = 0
        self._missing: Counter[str] = Counter()
        self._held: deque[Recordable] = deque(maxlen=HELD)
        self._told = 0
        self._failing = ""
        self._error: Exception | None = None
        self._failed_at = -math.inf
        self._undescribed = ""
        self.problems: dict[str, str] = {}
        """What has been wrong in the whole session, by what it is about."""
        self.put = self._backlog.put
        self.release = self._backlog.release
        self.close = self._backlog.close

    @property
    def path(self) -> Path | None:
        """None until the record is begun."""
        return self._recorder.path if self._recorder is not None else None

    @property
    def bytes_written(self) -> int:
        return self._recorder.bytes_written if self._recorder is not None else 0

    @property
    def unrecorded(self) -> int:
        """Entries that the disk did not take, or that could not wait for it."""
        return self._unwritten + self._backlog.refused

    def run(
        self,
        beginning: Callable[[Recorder], Mapping[str, object]],
        conclusion: Callable[[], Mapping[str, object]],
        begun: Callable[[], object] = lambda: None,
        look: Callable[[], object] = lambda: None,
    ) -> None:
        """Begin the record with its description, write until it is closed and nothing is left, describe what became of
        it. ``begun`` is called once the record is begun. Before the file is closed, and after it, ``look`` is called:
        what is over by then can be put once more.

        Raises XdfError, and leaves no file, when the record cannot be begun while that is ``awaited``, and later unless
        it is ``dispensable``.
        """
        try:
            recorder = self._open(beginning)
        except XdfError as error:
            if self.awaited or not self._dispensable:
                raise
            self._go_without(error, look)
            return
        begun()
        self._write_all(recorder)
        look()
        self._backlog.close()
        self._write_all(recorder)
        self._busy_since = time.monotonic()
        with contextlib.suppress(Exception):  # a disk that is still full: that has been said
            self._catch_up(recorder)
        self._unwritten += len(self._held)
        try:
            recorder.close()
        except XdfError as error:
            self._fail(self._error or error)  # one that stands already stays what it was about
        self._busy_since = math.nan
        look()
        self._busy_since = time.monotonic()
        try:
            recorder.describe(conclusion())
            self._undescribed = ""
        except XdfError as error:
            self.problems["description"] = self._undescribed = str(error)
        self._busy_since = math.nan

    def _open(self, beginning: Callable[[Recorder], Mapping[str, object]]) -> Recorder:
        self._busy_since = time.monotonic()
        try:
            recorder = self._begin()
            try:
                recorder.describe(beginning(recorder))
            except XdfError as error:
                if self.awaited:
                    recorder.discard()
                    raise
                self.problems["description"] = self._undescribed = str(error)  # there is more to be lost by now
            self._recorder = recorder
        finally:
            self._busy_since = math.nan
        return recorder

    def _go_without(self, error: XdfError, look: Callable[[], object]) -> None:
        """Until the session ends: nobody may wait for a record that there is not."""
        self.problems["record"] = self._failing = f"nothing is recorded: {error}"
        while self._backlog.get() is not None:
            self._unwritten += 1
        look()

    def _write_all(self, recorder: Recorder) -> None:
        while (entry := self._backlog.get()) is not None:
            self._busy_since = time.monotonic()
            self._take(recorder, entry)
            self._busy_since = math.nan

    def _take(self, recorder: Recorder, entry: Recordable) -> None:
        if isinstance(entry, Chunk) and self._missing[entry.stream]:
            entry = replace(entry, lost=entry.lost + self._missing[entry.stream])
        try:
            self._catch_up(recorder)
            recorder.write(entry)
        except Exception as error:  # noqa: BLE001  (whatever it is, the next entry may fit)
            self._failed_at = time.monotonic()
            if isinstance(entry, Alarmed | Notice):
                self._unwritten += len(self._held) == HELD  # the oldest gives way
                self._held.append(entry)
            else:
                self._unwritten += 1
            if isinstance(entry, Chunk):
                self._missing[entry.stream] = entry.lost + len(entry.times)
            self._fail(error)
            return
        if isinstance(entry, Chunk):
            self._missing[entry.stream] = 0
        if time.monotonic() - self._failed_at > DISK_BACK:
            self._failing, self._error = "", None

    def _fail(self, error: Exception) -> None:
        # Also of none: the same alarm from its first word to its last.
        count = f"{self.unrecorded} chunks or estimates could not be recorded."
        self._error, self._failing = error, f"{error} {count}"
        self.problems["record"] = self._failing

    def _catch_up(self, recorder: Recorder) -> None:
        """Write what the disk has refused and what is to be said of it."""
        while self._held:
            recorder.write(self._held[0])
            self._held.popleft()
        if (count := self.unrecorded) > self._told:
            recorder.write(Unrecorded(self._now(), count - self._told))
            self._told = count

    def standing(self) -> dict[str, str]:
        """What is wrong right now, by what it is about."""
        found = {}
        if failing := self._failing:
            found["record"] = failing
        if undescribed := self._undescribed:
            found["description"] = undescribed
        refused = self._backlog.refused
        if time.monotonic() - self._busy_since > DISK_STALL:  # false for NaN: nothing is being written
            given_up = f", {refused} were given up" if refused else ""
            found["disk"] = f"record: the disk does not answer; {len(self._backlog)} entries wait in memory{given_up}"
        elif self._recorder is not None and (seconds := self._recorder.sync_seconds) > DISK_STALL:
            found["disk"] = f"record: for {seconds:.0f} s the disk has not confirmed what was written"
        if self._recorder is not None and (problem := self._recorder.sync_problem):
            found["sync"] = problem
        return found

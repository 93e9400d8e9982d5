"""What runs in the recorder thread: it writes what is put, says what is wrong with the disk, counts what is missing."""

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

    What the disk refuses is counted: samples in the next chunk of their stream that it takes, entries in an
    `Unrecorded` before it. Alarms and notices are kept until it takes them, the newest `HELD`; the others are counted.
    ``now`` is the session clock.
    """

    def __init__(self, recorder: Recorder, *, waits: bool, now: Callable[[], float]) -> None:
        self._recorder = recorder
        self._backlog = Backlog(waits=waits)
        self._now = now
        self._busy_since = math.nan
        self._unwritten = 0
        self._missing: Counter[str] = Counter()
        self._held: deque[Recordable] = deque(maxlen=HELD)
        self._told = 0
        self._failing = ""
        self._failed_at = -math.inf
        self.problems: dict[str, str] = {}
        """What has been wrong in the whole session, by what it is about."""
        self.put = self._backlog.put
        self.release = self._backlog.release
        self.close = self._backlog.close

    @property
    def path(self) -> Path:
        return self._recorder.path

    @property
    def bytes_written(self) -> int:
        return self._recorder.bytes_written

    @property
    def unrecorded(self) -> int:
        """Entries that the disk did not take, or that could not wait for it."""
        return self._unwritten + self._backlog.refused

    def run(self, describe: Callable[[], Mapping[str, object]]) -> None:
        """Write until it is closed and nothing is left; in the end the description, which is made then."""
        while (entry := self._backlog.get()) is not None:
            self._busy_since = time.monotonic()
            self._take(entry)
            self._busy_since = math.nan
        self._busy_since = time.monotonic()
        with contextlib.suppress(Exception):  # a disk that is still full: that has been said
            self._catch_up()
        self._unwritten += len(self._held)
        try:
            self._recorder.close()
        except XdfError as error:
            self.problems["record"] = self._failing = str(error)
        try:
            self._recorder.describe(describe())
        except XdfError as error:
            self.problems["description"] = str(error)
        self._busy_since = math.nan

    def _take(self, entry: Recordable) -> None:
        if isinstance(entry, Chunk) and self._missing[entry.stream]:
            entry = replace(entry, lost=entry.lost + self._missing[entry.stream])
        try:
            self._catch_up()
            self._recorder.write(entry)
        except Exception as error:  # noqa: BLE001  (whatever it is, the next entry may fit)
            self._failed_at = time.monotonic()
            if isinstance(entry, Alarmed | Notice):
                self._unwritten += len(self._held) == HELD  # the oldest gives way
                self._held.append(entry)
            else:
                self._unwritten += 1
            if isinstance(entry, Chunk):
                self._missing[entry.stream] = entry.lost + len(entry.times)
            self._failing = f"{error} {self.unrecorded} chunks or estimates could not be recorded."
            self.problems["record"] = self._failing
            return
        if isinstance(entry, Chunk):
            self._missing[entry.stream] = 0
        if time.monotonic() - self._failed_at > DISK_BACK:
            self._failing = ""

    def _catch_up(self) -> None:
        """Write what the disk has refused and what is to be said of it."""
        while self._held:
            self._recorder.write(self._held[0])
            self._held.popleft()
        if (count := self.unrecorded) > self._told:
            self._recorder.write(Unrecorded(self._now(), count - self._told))
            self._told = count

    def standing(self) -> dict[str, str]:
        """What is wrong right now, by what it is about."""
        found = {}
        if failing := self._failing:
            found["record"] = failing
        refused = self._backlog.refused
        if time.monotonic() - self._busy_since > DISK_STALL:  # false for NaN: nothing is being written
            given_up = f", {refused} were given up" if refused else ""
            found["disk"] = f"record: the disk does not answer; {len(self._backlog)} entries wait in memory{given_up}"
        elif (seconds := self._recorder.sync_seconds) > DISK_STALL:
            found["disk"] = f"record: for {seconds:.0f} s the disk has not confirmed what was written"
        if problem := self._recorder.sync_problem:
            found["sync"] = problem
        return found

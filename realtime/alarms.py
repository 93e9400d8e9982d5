"""What is wrong, from when to when: the standing alarms as beginnings and ends, for the record and the screen."""

from __future__ import annotations

import math
import re
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass

from realtime.api import STALE

FIRST = 2.0
"""Seconds in which a source must have begun."""
WITHIN = 0.95
"""Seconds after which a stream is silent of which a packet has been due for a while: said within 1 s."""
LATE = 1.5
"""Pauses after which a packet is late, and not a little behind; a strap sends every 0.56 s, up to 0.2 s late."""
PACKETS = 2.5
"""Of a stream that sends more seldom so many may be due before it is called silent: one that is lost is no silence."""
LONGEST = 10.0
"""Seconds after which every stream is silent, however seldom it sends."""
REMEMBERED = 15
"""Packets that tell the usual pause between two."""
_FIGURE = re.compile(r"(?<![\w.-])\d[\d.]*")
_PLURAL = re.compile(r"(# \w+)s\b")


def words(text: str) -> str:
    """An alarm whatever figures it has reached. Names that end in a number keep it.

    >>> words("eeg-2: 1 sample refused"), words("eeg-2: 13 samples refused")
    ('eeg-2: # sample refused', 'eeg-2: # sample refused')
    """
    return _PLURAL.sub(r"\1", _FIGURE.sub("#", text))


def kind(text: str) -> str:
    """What an alarm is about: its words up to the first semicolon. What follows are details, which may change while it
    stands.

    >>> kind("eeg: the source has gone; waiting for it") == kind("eeg: the source has gone; there is a twin")
    True
    """
    return words(text.partition("; ")[0])


def patience(pause: float) -> float:
    """Seconds without a sample after which a stream is silent that usually sends every ``pause`` seconds, NaN when that
    is not known: within a second of its last sample, a strap too, but for what sends so seldom that a packet would not
    be late by then: `PACKETS` such pauses.

    >>> [patience(pause) for pause in (0.02, math.nan, 0.561, 1.0, 60.0)]
    [0.8, 0.8, 0.95, 2.5, 10.0]
    """
    if not pause > 0:
        return STALE
    within = WITHIN if LATE * pause < WITHIN else LONGEST
    return max(STALE, min(PACKETS * pause, within))


class Pace:
    """The usual pause between the packets of a stream: the median of the last few, which no outage moves."""

    def __init__(self) -> None:
        self._pauses: deque[float] = deque(maxlen=REMEMBERED)
        self._last = math.nan
        self.pause = math.nan
        """Seconds; NaN before the second packet."""

    def arrive(self, now: float) -> None:
        if not math.isnan(self._last):
            self._pauses.append(now - self._last)
            self.pause = sorted(self._pauses)[len(self._pauses) // 2]
        self._last = now


def silences(
    now: float, began: float, arrived: Mapping[str, float], pauses: Mapping[str, float] | None = None
) -> dict[str, str]:
    """The streams that are silent ``now``, in words: the last sample ``arrived`` longer ago than `patience` has with
    its usual pause, or none has come, which is NaN, though the session ``began`` `FIRST` seconds ago. All times are of
    one clock."""
    found = {}
    for stream, last in arrived.items():
        if math.isnan(last) and now - began > FIRST:
            found[stream] = f"{stream}: no sample yet"
        elif now - last > patience((pauses or {}).get(stream, math.nan)):
            found[stream] = f"{stream}: silent for {now - last:.1f} s"
    return found


@dataclass(frozen=True, slots=True)
class Alarmed:
    """An alarm has appeared or has other words now, or, when ``over``, gone, at ``time`` on the session clock."""

    time: float
    text: str
    over: bool = False


class AlarmLog:
    """Turns the alarms that stand at each look into those that have come and gone since the one before."""

    def __init__(self) -> None:
        self._standing: dict[tuple[str, str], str] = {}
        self.begun = 0
        """How many there have been; one whose `words` change while it stands is still the same."""

    def update(self, now: float, alarms: Mapping[str, str]) -> list[Alarmed]:
        """What has changed by ``now``. ``alarms`` are texts by source; of one source a text of another `kind` is
        another alarm, and one of the same kind and other `words` is said once more. The text of one that has gone is
        the last it had."""
        found = {(source, kind(text)): text for source, text in alarms.items()}
        gone = [Alarmed(now, text, over=True) for key, text in self._standing.items() if key not in found]
        said = {key: words(text) for key, text in self._standing.items()}
        come = [Alarmed(now, text) for key, text in found.items() if said.get(key) != words(text)]
        self.begun += len(found.keys() - said.keys())
        self._standing = found
        return gone + come

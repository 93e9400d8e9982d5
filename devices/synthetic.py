"""A person made up from a seed, for a session without hardware: ``synthetic:``, ``synthetic:ecg?bpm=60``.

``synthetic:eeg`` and ``synthetic:ecg`` give one signal, ``synthetic:`` both. Options follow a question mark and are
joined by ``&`` (in a shell the address needs quotes); `devices.synthetic_options.Options` says what each means:

- ``script=60:0,60:1,30:0.5``: arousal, in pieces of seconds:level that repeat. It lowers alpha, RMSSD and RR intervals,
  raises beta, heart rate and LF/HF, and muscle bursts come more often. ``ramp=2``: seconds a change takes.
- ``eyes=closed``, or ``eyes=30:open,30:closed``: open eyes halve alpha, and blink.
- of the EEG: ``background alpha beta blink blinks muscle line mains channels eeg_rate``;
  of the ECG: ``bpm rmssd lf_hf ecg_rate``; of both: ``seed``.
- faults to rehearse with: ``dropout=30:3`` (at 30 s the device is silent for 3 s, what it lost is counted),
  ``flat=Fp1,O2`` (or ``ECG``), ``line=40``.

With a script or a fault a stream of markers tells what is to be seen from when on: "arousal 1.00", "eyes closed",
"dropout 3 s". Sample n of a stream depends on the options alone, not on how often or how late it is read; `truth` gives
what else is known of it: R peaks, blinks, muscle bursts.
"""

from __future__ import annotations

import heapq
import itertools
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
from numpy.typing import NDArray

from devices.api import Chunk, DeviceError, Events, Found, Item, StreamInfo
from devices.lsl import lsl_clock
from devices.synthetic_ecg import Ecg, r_peaks
from devices.synthetic_eeg import Eeg, blinks, bursts
from devices.synthetic_options import EYES, OPEN, RESTING, Options, read_options

PACKET = 0.04
"""Seconds between deliveries, as a headset's packets come."""
LONGEST = 1.0
"""Seconds in one chunk at most, also after the reader was away."""

Maker = Eeg | Ecg
MARKERS = StreamInfo(
    key="synthetic/markers",
    kind="markers",
    channels=("marker",),
    rate=0.0,
    unit="",
    name="synthetic markers",
    source="synthetic:",
)


def discover(seconds: float) -> list[Found]:  # noqa: ARG001  (every scheme is asked the same)
    """It is always there."""
    return [Found("synthetic:", "a made-up person: EEG, 19 channels, 250 Hz, and ECG, 130 Hz")]


def connect(rest: str) -> SyntheticDevice:
    """The made-up device that ``rest`` describes. Raises DeviceError."""
    kind, _, query = rest.partition("?")
    address = " ".join(f"synthetic:{rest}".split())  # one line
    if kind not in ("", "eeg", "ecg"):
        raise DeviceError(f"{address}: {kind!r} is not made here; write synthetic:, synthetic:eeg or synthetic:ecg.")
    try:
        options = read_options(query)
    except ValueError as error:
        raise DeviceError(f"{address}: {error}") from None
    return SyntheticDevice((kind,) if kind else ("eeg", "ecg"), options, address=address)


@dataclass(frozen=True, slots=True, eq=False)
class Truth:
    """What is known of the first seconds of a made-up person. Times in seconds from sample 0, at which the device is
    entered."""

    options: Options
    r_peaks: NDArray[np.float64]
    """(n,)"""
    blinks: NDArray[np.float64]
    """(n,), when the lid is down."""
    bursts: NDArray[np.float64]
    """(n, 2): begin and end of the muscle bursts."""
    markers: tuple[tuple[float, str], ...]

    def arousal(self, times: NDArray[np.float64]) -> NDArray[np.float64]:
        """0 to 1 (n,) at these times (n,)."""
        return self.options.script.at(times)


def truth(options: Options, seconds: float) -> Truth:
    """What is true of the first ``seconds`` of the person that ``options`` describe."""

    def before(events: Iterator[tuple[float, float]]) -> NDArray[np.float64]:
        known = itertools.takewhile(lambda event: event[0] < seconds, events)
        return np.array([event for event in known if event[1] > 0.0], np.float64).reshape(-1, 2)

    return Truth(
        options=options,
        r_peaks=np.array(list(itertools.takewhile(lambda peak: peak < seconds, r_peaks(options)))),
        blinks=before(blinks(options))[:, 0],
        bursts=np.cumsum(before(bursts(options)), axis=1),
        markers=tuple(itertools.takewhile(lambda marker: marker[0] < seconds, _markers(options))),
    )


def _markers(options: Options) -> Iterator[tuple[float, str]]:
    """(seconds from sample 0, text) in order of time."""
    names = {level: name for name, level in EYES.items()}
    yield from heapq.merge(
        ((0.0, f"flat {name}") for name in options.flat),
        ((begin, f"arousal {level:.2f}") for begin, level in options.script.beginnings()),
        ((begin, f"eyes {names[level]}") for begin, level in options.eyes.beginnings()),
        ((begin, f"dropout {seconds:g} s") for begin, seconds in options.dropout),
        key=lambda marker: marker[0],
    )


class SyntheticDevice:
    """The signals ``kinds``, paced by ``now`` and ``sleep``; the first sample is taken when the device is entered."""

    def __init__(
        self,
        kinds: Sequence[str],
        options: Options,
        now: Callable[[], float] = lsl_clock,
        sleep: Callable[[float], None] = time.sleep,
        address: str = "",
    ) -> None:
        self._makers: tuple[Maker, ...] = tuple(Eeg(options) if kind == "eeg" else Ecg(options) for kind in kinds)
        rates = [maker.stream.rate for maker in self._makers]
        self._holes = [
            [(round(begin * rate), round((begin + length) * rate)) for begin, length in options.dropout]
            for rate in rates
        ]
        self._sent = [0] * len(rates)
        self._lost = [0] * len(rates)
        marked = (options.script, options.eyes, options.dropout, options.flat) != (RESTING, OPEN, (), ())
        self._marking = _markers(options) if marked else iter(())
        self._marker = next(self._marking, None)
        signals = [maker.stream for maker in self._makers]
        streams = [*signals, MARKERS] if marked else signals
        self._streams = tuple(replace(stream, source=address or stream.source) for stream in streams)
        self.identity: Mapping[str, str] = {"made up": address} if address else {}
        self._now = now
        self._sleep = sleep
        self.start = np.nan
        """Session-clock time of sample 0 of every stream."""

    @property
    def streams(self) -> Sequence[StreamInfo]:
        return self._streams

    def __enter__(self) -> Self:
        self.start = self._now()
        return self

    def __exit__(self, *exc: object) -> None:
        return None

    def read(self, timeout: float) -> list[Item]:
        items = self._due()
        if not items and timeout > 0:
            elapsed = self._now() - self.start
            self._sleep(min(timeout, (self._packets() + 1) * PACKET - elapsed))
            items = self._due()
        return items

    def _packets(self) -> int:
        # A clock that stands a rounding error before the next packet has reached it: else one could wait for nothing.
        return int(np.floor((self._now() - self.start) / PACKET + 1e-6))

    def _due(self) -> list[Item]:
        elapsed = self._packets() * PACKET
        items: list[Item] = []
        for index, maker in enumerate(self._makers):
            rate = maker.stream.rate
            end = int(np.floor(elapsed * rate + 1e-6)) + 1 if elapsed > 0 else 0
            while self._sent[index] < end:
                first = self._sent[index]
                hole = next((hole for hole in self._holes[index] if hole[1] > first), (end, end))
                if hole[0] <= first:
                    last = min(end, hole[1])
                    self._lost[index] += last - first
                else:
                    last = min(end, hole[0], first + round(LONGEST * rate))
                    times = self.start + np.arange(first, last) / rate
                    items.append(Chunk(maker.stream.key, times, maker.samples(first, last), self._lost[index]))
                    self._lost[index] = 0
                self._sent[index] = last
        while self._marker is not None and self._marker[0] <= elapsed and elapsed > 0:
            moment, text = self._marker
            items.append(Events(MARKERS.key, np.array([self.start + moment]), (text,)))
            self._marker = next(self._marking, None)
        return items

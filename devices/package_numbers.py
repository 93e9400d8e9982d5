"""Which samples of a board are missing, from the package numbers that its rows carry and from when they arrived.

A number stands on one row or on several (a Muse packet has 12) and starts anew after 256, 65536 or what the board
likes. So a gap between two numbers says how much is missing but for whole cycles; those are told by the arrivals:
samples that were only held up (a stalled link, a stopped computer) arrive late and then catch up, lost ones never do.
After a pause of half a cycle the rows are therefore held back for `HOLD` seconds, until that is known.

A packet that comes twice is known by its number when it comes within half a cycle (0.5 s of a Cyton) of the one before
it, whatever the computer's clock does. After an outage of half a cycle or longer its number is just as well that of a
packet one cycle on, and it is taken for that: it is given once more, or the count of what was lost in the outage is off
by as much as a cycle: values are not compared, a flat signal repeats them, too.
"""

from __future__ import annotations

import math
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

HOLD = 0.3
"""Seconds of arrivals after a pause, until it is decided what was lost in it."""
PAUSE = 0.25
"""Seconds without a row that make a pause, where the numbers tell nothing."""
BASELINE = 2.0
"""Seconds before a pause whose fastest packet says how long packets take."""
SLACK = 1.0
"""Seconds that packets may come in a burst; a gap that is longer than the time passed by more is no loss."""
LATE = 8
"""So many packets back, a number is of a packet that came late or twice, not of one that is almost a cycle ahead."""
LEARN_SECONDS, LEARN_PACKETS = 1.2, 16
"""How much is looked at to learn how a board numbers its rows: the shortest cycles take a second."""
AGREEING = 0.8
"""Share of the packets that must follow a rule for it to be one."""
LEAST_RATE = 10.0
"""Hz: slower rows are not worth the waiting that learning takes."""


@dataclass(frozen=True, slots=True)
class Numbering:
    """How a board numbers its rows: ``size`` rows share a number, the next is ``step`` higher, modulo ``modulus``.

    A modulus of 0 is not known yet; a step of 0 means that the numbers tell nothing. ``alone``: number 0 stands on a
    single row, as in the Ganglion's firmware 2. Numbers beyond the modulus are folded (Ganglion: 0-99 and 100-199).
    """

    size: int = 1
    step: int = 1
    modulus: int = 256
    alone: bool = False

    @property
    def cycle(self) -> int:
        """Rows after which the numbers repeat; 0 when not known."""
        return self.modulus // self.step * self.size - (self.size - 1) * self.alone if self.step else 0

    def positions(self, numbers: NDArray[np.int64]) -> NDArray[np.int64]:
        """Which row of its cycle (n,) the first row of a packet is."""
        if self.alone:
            return np.where(numbers > 0, (numbers - 1) % (self.modulus - 1) * self.size + 1, 0)
        folded = numbers % self.modulus if self.modulus else numbers
        return folded // (self.step or 1) * self.size

    def sizes(self, numbers: NDArray[np.int64]) -> NDArray[np.int64]:
        """Rows (n,) that a packet has when it is whole."""
        sizes = np.full(len(numbers), self.size)
        if self.alone:
            sizes[numbers == 0] = 1
        return sizes


BY_TIME = Numbering(step=0, modulus=0)
"""Numbers that tell nothing: only pauses are seen, and what was lost in them is estimated."""
BYTE = Numbering()
GANGLION = (Numbering(size=2, modulus=101, alone=True), Numbering(size=2, modulus=100))
"""Firmware 2 and 3."""


@dataclass(frozen=True, slots=True, eq=False)
class Run:
    """Rows without a gap: ``rows`` (n, k); ``first`` is the sample number of the first, ``lost`` are missing before.

    ``arrival`` is when the last row arrived, seconds.
    """

    rows: NDArray[np.float64]
    first: int
    arrival: float
    lost: int = 0


@dataclass(slots=True)
class _Held:
    rows: NDArray[np.float64]
    first: int
    arrival: float
    lost: int
    paused: float
    """Rows for which time passed, beyond those that are known to be missing; negative for an unexplained gap."""


@dataclass(slots=True, eq=False)
class _Packets:
    rows: NDArray[np.float64]
    numbers: NDArray[np.int64]
    starts: NDArray[np.int64]
    counts: NDArray[np.int64]
    arrivals: NDArray[np.float64]
    """Of the last row of each: BrainFlow spreads the stamps of the others back over the time since the last packet."""


@dataclass(slots=True, eq=False)
class RowCounter:
    """Gives every row its sample number, drops repeated ones and counts what is missing, exactly.

    ``candidates`` are the ways in which the board may number its rows; none: it is learned from the first rows. Exact
    as long as the arrivals are good to half a cycle. What follows a pause in a board without usable numbers, or a count
    that was started anew, is an estimate from the arrivals: ``estimated`` counts it.
    """

    rate: float
    candidates: tuple[Numbering, ...] = ()
    numbering: Numbering | None = None
    """How the rows are numbered, once known."""
    restarts: int = 0
    estimated: int = 0
    _rows: list[tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.float64]]] = field(default_factory=list)
    _index: int = 0
    _next: int | None = None
    """Position in the cycle at which the next packet is expected."""
    _short: int = 0
    """Rows missing in the packet before."""
    _largest: int = 0
    _arrival: float = math.nan
    _delays: deque[tuple[float, float]] = field(default_factory=deque)
    _held: list[_Held] = field(default_factory=list)
    _hold_until: float = math.inf
    _anew: bool = False
    """The numbers have no relation to those before."""
    _by_arrival: bool = False
    """What is held follows on such a change: what is missing is estimated."""

    def __post_init__(self) -> None:
        if len(self.candidates) == 1:
            self.numbering = self.candidates[0]
        elif not self.candidates and self.rate < LEAST_RATE:
            self.numbering = BY_TIME

    def feed(self, rows: NDArray[np.float64], numbers: NDArray[np.float64], arrivals: NDArray[np.float64]) -> list[Run]:
        """What is certain by now. ``rows`` (n, k), their package numbers (n,) and arrivals (n,), seconds, rising."""
        if not len(rows):
            return []
        if not np.abs(numbers).max() < 2.0**53:  # NaN compares false
            numbers = np.clip(np.nan_to_num(numbers), -(2.0**53), 2.0**53)
        whole = numbers.astype(np.int64)
        self._rows.append((rows, whole, arrivals))
        return self._work(final=False)

    def flush(self) -> list[Run]:
        """What was held back; nothing follows that belongs to it."""
        runs = self._work(final=True) if self._rows else []
        return runs + _joined(self._release()) if self._held else runs

    def restart(self) -> list[Run]:
        """The board was started anew: its next number has no relation to the last one. What was held back."""
        learning = self.numbering is None
        runs = self.flush()
        if learning:
            self.numbering = None  # the few rows before the break tell too little
        self._anew = self._next is not None
        return runs

    def _work(self, final: bool) -> list[Run]:
        rows, numbers, arrivals = (np.concatenate(parts) for parts in zip(*self._rows, strict=True))
        if self.numbering is None:
            changes = int(np.count_nonzero(np.diff(numbers)))
            known = arrivals[-1] - arrivals[0] >= LEARN_SECONDS and len(rows) > LEARN_PACKETS
            # Numbers that hardly change are not waited for: they tell nothing.
            if not final and not (known and (changes >= LEARN_PACKETS or len(rows) >= 4 * self.rate)):
                self._rows = [(rows, numbers, arrivals)]
                return []
            self.numbering = learn(numbers, self.candidates)
        packets = _packets(rows, numbers, arrivals, self.numbering)
        sizes = self.numbering.sizes(packets.numbers)
        self._rows = []
        if not final and packets.counts[-1] < sizes[-1]:
            cut = int(packets.starts[-1])
            self._rows = [(rows[cut:], numbers[cut:], arrivals[cut:])]
            packets = _packets(rows[:cut], numbers[:cut], arrivals[:cut], self.numbering)
            sizes = sizes[:-1]
        if not len(packets.numbers):
            return []
        return self._plain(packets, sizes) or self._judge_all(packets)

    def _plain(self, packets: _Packets, sizes: NDArray[np.int64]) -> list[Run]:
        """The usual case, all at once: whole packets that follow each other; nothing when there is anything else."""
        assert self.numbering is not None
        if self._next is None or self._anew or self._held or self._short or np.any(packets.counts != sizes):
            return []
        positions = self.numbering.positions(packets.numbers)
        if self.numbering.step:
            gaps = positions - np.concatenate(([self._next], positions[:-1] + sizes[:-1]))
            if np.any(gaps % self.numbering.cycle if self.numbering.modulus else gaps):
                return []
        passed = (packets.arrivals - np.concatenate(([self._arrival], packets.arrivals[:-1]))) * self.rate - sizes
        if np.any(passed >= self._pause()):
            return []
        run = Run(packets.rows, self._index, float(packets.arrivals[-1]))
        ends = self._index + packets.starts + packets.counts - 1
        self._heard(run.arrival, float(np.min(packets.arrivals - ends / self.rate)))
        self._index += len(packets.rows)
        self._next = int(positions[-1] + sizes[-1])
        self._largest = max(self._largest, int(packets.numbers.max()))
        self._arrival = run.arrival
        return [run]

    def _judge_all(self, packets: _Packets) -> list[Run]:
        pieces: list[Run] = []
        for number, start, count, arrival in zip(
            packets.numbers.tolist(),
            packets.starts.tolist(),
            packets.counts.tolist(),
            packets.arrivals.tolist(),
            strict=True,
        ):
            gap = self._judge(number, count, arrival)
            if gap is None:
                continue
            rows = packets.rows[start : start + count]
            self._index += gap
            passed = (arrival - self._arrival) * self.rate - count
            paused = passed - gap
            if math.isnan(paused):  # the very first
                paused = 0.0
            if self._anew or paused >= self._pause():
                self._hold_until = arrival + HOLD
                self._by_arrival |= self._anew
                self._held.append(_Held(rows, self._index, arrival, gap, paused))
            elif self._held:
                self._held.append(_Held(rows, self._index, arrival, gap, paused))
            else:
                pieces.append(Run(rows, self._index, arrival, gap))
                self._heard(arrival, arrival - (self._index + count - 1) / self.rate)
            self._anew = False
            self._index += count
            self._arrival = arrival
            self._largest = max(self._largest, number)
            if self._held and arrival >= self._hold_until and len(self._held) > 1:
                pieces += self._release()
        return _joined(pieces)

    def _judge(self, number: int, count: int, arrival: float) -> int | None:
        """Rows missing before this packet, but for whole cycles; None when it is a repeated one. Moves on."""
        assert self.numbering is not None
        packet = np.array([number])
        position = int(self.numbering.positions(packet)[0])
        size = int(self.numbering.sizes(packet)[0])
        short, expected = self._short, self._next
        gap = 0
        if expected is not None and self.numbering.step and not self._anew:
            passed = (arrival - self._arrival) * self.rate - count
            gap = position - expected
            if not self.numbering.modulus and gap < 0 and (wrapped := self._wrapped(number, passed)):
                self.numbering = wrapped
                position = int(wrapped.positions(packet)[0])
                gap = position - expected
            cycle = self.numbering.cycle if self.numbering.modulus else 0
            if cycle:
                gap %= cycle
            slack = SLACK * self.rate
            back = cycle - gap if cycle else -gap
            late = LATE * self.numbering.size
            if gap and 0 < back <= late and passed < (gap / 2 if cycle else late):
                return None
            if gap < 0 or (gap > passed + slack and (not cycle or cycle > 4 * slack)):
                gap, self._anew = 0, True
        if self._anew:
            self.restarts += 1
        # The first packet of all may have begun before it was listened to; of others the end is missing.
        self._short = size - count if expected is not None else 0
        self._next = position + size
        return gap + short

    def _wrapped(self, number: int, passed: float) -> Numbering | None:
        """The numbering with the smallest usual modulus at which the count can have gone from the last number here."""
        assert self.numbering is not None
        assert self._next is not None
        for bits in (8, 16, 24, 32):
            if 2**bits > self._largest and 2**bits % self.numbering.step == 0:
                wrapped = replace(self.numbering, modulus=2**bits)
                gap = int(wrapped.positions(np.array([number]))[0]) - self._next + wrapped.cycle
                if 0 <= gap <= passed + SLACK * self.rate:
                    return wrapped
        return None

    def _pause(self) -> float:
        """Rows for which nothing came, from which it is to be found out how many were lost."""
        assert self.numbering is not None
        if not self.numbering.step:
            return max(PAUSE * self.rate, 2.0)
        return self.numbering.cycle / 2 if self.numbering.modulus else math.inf

    def _heard(self, arrival: float, delay: float) -> None:
        self._delays.append((arrival, delay))
        while self._delays[0][0] < arrival - BASELINE:
            self._delays.popleft()

    def _release(self) -> list[Run]:
        """What was held back, packet by packet, with the cycles that were lost in the pause put where they belong."""
        assert self.numbering is not None
        held, self._held = self._held, []
        estimate = self._by_arrival or not self.numbering.step
        quantum = 1 if estimate else self.numbering.cycle
        missing = 0
        if self._delays:
            before = min(delay for _, delay in self._delays)
            last = max(index for index, one in enumerate(held) if not index or one.paused >= self._pause())
            after = min(one.arrival - (one.first + len(one.rows) - 1) / self.rate for one in held[last:])
            missing = max(round((after - before) * self.rate / quantum), 0)
            if estimate and not self._by_arrival and missing < self._pause():
                missing = 0  # it was a delay: nothing is missing, and the scatter of arrivals is no loss
        shares = _shares([one.paused for one in held], missing, quantum, 0.1 * self.rate)
        if estimate:
            self.estimated += missing
        shift, pieces = 0, []
        for one, share in zip(held, shares, strict=True):
            shift += share * quantum
            first = one.first + shift
            pieces.append(Run(one.rows, first, one.arrival, one.lost + share * quantum))
            self._heard(one.arrival, one.arrival - (first + len(one.rows) - 1) / self.rate)
        self._index += shift
        self._by_arrival = False
        self._hold_until = math.inf
        return pieces


def learn(numbers: NDArray[np.int64], candidates: Sequence[Numbering] = ()) -> Numbering:
    """How the rows with these package numbers (n,) are numbered: the candidate that fits best, or what is seen."""
    changes = np.flatnonzero(np.diff(numbers)) + 1
    if candidates:
        starts = np.concatenate(([0], changes))
        follow = []
        for one in candidates:
            ends = one.positions(numbers[starts]) + one.sizes(numbers[starts])
            gaps = (one.positions(numbers[starts])[1:] - ends[:-1]) % one.cycle
            whole = np.diff(starts)[1:] == one.sizes(numbers[starts])[1:-1]
            follow.append(np.count_nonzero(gaps == 0) + np.count_nonzero(whole))
        return candidates[int(np.argmax(follow))]
    sizes, steps = np.diff(changes), np.diff(numbers[changes])
    if len(sizes) < 4:
        return BY_TIME
    (size, agreeing), (step, following) = (Counter(a.tolist()).most_common(1)[0] for a in (sizes, steps))
    if step <= 0 or min(agreeing, following) < AGREEING * len(sizes):
        return BY_TIME
    return Numbering(size=size, step=step, modulus=0)


def _packets(
    rows: NDArray[np.float64], numbers: NDArray[np.int64], arrivals: NDArray[np.float64], numbering: Numbering
) -> _Packets:
    if numbering.size == 1:
        starts = np.arange(len(numbers))
    else:
        starts = np.concatenate(([0], np.flatnonzero(np.diff(numbers)) + 1))[: len(numbers)]
        counts = np.diff(starts, append=len(numbers))
        if np.any(counts > (sizes := numbering.sizes(numbers[starts]))):  # a packet that came twice
            pieces = [
                np.arange(a, a + n, size)
                for a, n, size in zip(starts.tolist(), counts.tolist(), sizes.tolist(), strict=True)
            ]
            starts = np.concatenate(pieces)
    counts = np.diff(starts, append=len(numbers))
    return _Packets(rows, numbers[starts], starts, counts, arrivals[starts + counts - 1])


def _joined(pieces: Sequence[Run]) -> list[Run]:
    """The same rows, those without a gap between them in one."""
    starts = [index for index, piece in enumerate(pieces) if piece.lost or not index]
    ends = [*starts[1:], len(pieces)][: len(starts)]
    return [
        Run(np.concatenate([one.rows for one in pieces[a:b]]), pieces[a].first, pieces[b - 1].arrival, pieces[a].lost)
        for a, b in zip(starts, ends, strict=True)
    ]


def _shares(paused: Sequence[float], missing: int, quantum: int, least: float) -> list[int]:
    """Where ``missing`` quanta of rows were lost: in the pauses, when those are as long; else all at one place.

    A computer that was stopped first delivers what was kept for it, late, and then leaves a gap for which no time
    passed: that is the place, when there is one.
    """
    shares = [max(round(one / quantum), 0) for one in paused]
    if sum(shares) != missing:
        place = int(np.argmin(paused)) if min(paused) < -least else int(np.argmax(paused))
        shares = [missing * (index == place) for index in range(len(paused))]
    return shares

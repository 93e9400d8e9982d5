"""The bytes of a Polar H10 strap: what its notifications and answers say, the order of its packets, and what becomes of
them on the session clock. No Bluetooth.

After Polar's public description of its measurement service (polar-ble-sdk, ``technical_documentation``) and the heart
rate service 1.0 of the Bluetooth SIG. Everything here is untrusted: what does not fit is refused in words.
"""

from __future__ import annotations

import math
import struct
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from devices.api import Chunk, Clock, Item, Notice
from devices.clock import DeviceClock

ECG = 0
"""Type of measurement on the control point and in the frames."""
GET, START, STOP = 1, 2, 3
SAMPLE_RATE, RESOLUTION = 0, 1
RATE = 130
"""Hz, nominal: straps were measured between 128 and 131."""
BITS = 14
SAMPLES = 73
"""In a whole packet, 229 bytes with its head."""
HEAD = 10
LONGEST = 512
"""Bytes: no attribute of Bluetooth is longer."""
ALREADY_IN_STATE = 6

STATUS = {
    1: "invalid operation",
    2: "invalid measurement type",
    3: "not supported",
    4: "invalid length",
    5: "invalid parameter",
    ALREADY_IN_STATE: "already in state",
    7: "invalid resolution",
    8: "invalid sample rate",
    9: "invalid range",
    10: "invalid MTU",
    11: "invalid number of channels",
    12: "invalid state",
    13: "device in charger",
}

SECOND = 1_000_000_000
BACKWARD = 3 * SECOND
"""A stamp so much before the newest is no late packet: the strap was off, its clock began anew (as DeviceClock)."""
AHEAD = 10.0
"""Seconds. A stamp that runs so far ahead of the arrivals is of a clock that was set; or the link had stalled for as
long: in either case the session clock knows better what is missing."""
CLOCK_INTERVAL = 5.0
"""Seconds between two `Clock`s."""
FEW = 4
"""Samples by which a packet may seem longer or shorter than it is: rates are between 128 and 131 Hz."""
REMEMBERED = 64
"""Losses, and packets, that are remembered to tell a late packet from a repeated one."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What the control point answered: to which operation and type, with which status, and what it offers."""

    operation: int
    kind: int
    status: int
    settings: dict[int, tuple[int, ...]]

    @property
    def refusal(self) -> str:
        """Why not, in words; "" when it was granted."""
        return STATUS.get(self.status, f"error {self.status}") if self.status else ""


def settings_request() -> bytes:
    """Asks what ECG streams there are."""
    return bytes((GET, ECG))


def start_request() -> bytes:
    """Starts ECG at 130 Hz with 14 bits.

    >>> start_request().hex(" ")
    '02 00 00 01 82 00 01 01 0e 00'
    """
    return struct.pack("<BBBBHBBH", START, ECG, SAMPLE_RATE, 1, RATE, RESOLUTION, 1, BITS)


def stop_request() -> bytes:
    """Stops ECG."""
    return bytes((STOP, ECG))


def parse_answer(answer: bytes) -> Answer:
    """What an indication of the control point says. Raises ValueError in words.

    >>> parse_answer(bytes.fromhex("f0 01 00 00 00 00 01 82 00 01 01 0e 00")).settings
    {0: (130,), 1: (14,)}
    >>> parse_answer(bytes.fromhex("f0 02 00 0a")).refusal
    'invalid MTU'
    """
    if not 4 <= len(answer) <= LONGEST or answer[0] != 0xF0:
        raise ValueError(f"the answer of the control point is not one: {answer[:8].hex(' ') or 'no bytes'}")
    operation, kind, status = answer[1:4]
    settings: dict[int, tuple[int, ...]] = {}
    if operation == GET and not status:
        at = 5  # after the flag that says whether more follows
        while at < len(answer):
            name, count = answer[at], answer[at + 1] if at + 1 < len(answer) else 255
            at += 2
            if name not in (SAMPLE_RATE, RESOLUTION) or at + 2 * count > len(answer):
                break  # settings of other measurements have other widths; ECG has these two
            settings[name] = struct.unpack_from(f"<{count}H", answer, at)
            at += 2 * count
    return Answer(operation, kind, status, settings)


def offers_ecg(features: bytes) -> bool:
    """Whether a device that describes itself so on its control point measures ECG. Raises ValueError in words."""
    if len(features) < 2 or features[0] != 0x0F:
        raise ValueError(f"the control point does not say what it measures: {features[:8].hex(' ') or 'no bytes'}")
    return bool(features[1] & 1 << ECG)


def decode_ecg(frame: bytes) -> tuple[int, NDArray[np.float32]]:
    """Stamp of the newest sample (ns since 2000-01-01 on the strap's clock) and the samples (n,) in uV.

    ``frame`` is one notification of the data characteristic, type ECG, frame type 0. Raises ValueError in words.

    >>> decode_ecg(bytes.fromhex("00 00ca9a3b00000000 00 010000 ffffff"))
    (1000000000, array([ 1., -1.], dtype=float32))
    """
    if not HEAD < len(frame) <= LONGEST:
        raise ValueError(f"a frame of {len(frame)} bytes")
    if frame[0] != ECG or frame[9]:
        raise ValueError(f"a frame of type {frame[0]}.{frame[9]}, not ECG 0.0")
    if (len(frame) - HEAD) % 3:
        raise ValueError(f"a frame of {len(frame)} bytes, cut within a sample")
    parts = np.frombuffer(frame, np.uint8, offset=HEAD).reshape(-1, 3).astype(np.int32)
    values = parts[:, 0] | parts[:, 1] << 8 | parts[:, 2] << 16
    values -= (values & 0x800000) << 1
    return int.from_bytes(frame[1:9], "little"), values.astype(np.float32)


@dataclass(frozen=True, slots=True)
class Beats:
    """One notification of the heart rate service."""

    bpm: int
    rr_ms: tuple[float, ...]
    """RR intervals since the last notification, oldest first, in ms (counted in 1/1024 s)."""
    contact: bool | None
    """Whether the electrodes touch the skin; None when the strap does not say."""


def decode_beats(value: bytes) -> Beats:
    """Heart rate and RR intervals of a heart rate measurement (characteristic 2A37). Raises ValueError in words.

    >>> decode_beats(bytes.fromhex("16 4a 40 03 00 04"))
    Beats(bpm=74, rr_ms=(812.5, 1000.0), contact=True)
    """
    if not 2 <= len(value) <= LONGEST:
        raise ValueError(f"a heart rate measurement of {len(value)} bytes")
    flags = value[0]
    at = 3 if flags & 1 else 2
    if len(value) < at:
        raise ValueError("a heart rate measurement cut within the heart rate")
    bpm = int.from_bytes(value[1:at], "little")
    at += 2 if flags & 8 else 0  # energy expended
    intervals: tuple[int, ...] = ()
    if flags & 16:
        if len(value) < at or (len(value) - at) % 2:
            raise ValueError(f"a heart rate measurement of {len(value)} bytes, cut within an RR interval")
        intervals = struct.unpack_from(f"<{(len(value) - at) // 2}H", value, at)
    contact = bool(flags & 2) if flags & 4 else None
    return Beats(bpm, tuple(interval * 1000 / 1024 for interval in intervals), contact)


@dataclass(frozen=True, slots=True, eq=False)
class Packet:
    """One ECG notification: stamp of its newest sample (ns, strap's clock), samples (n,) uV, arrival on the session
    clock."""

    stamp: int
    samples: NDArray[np.float32]
    arrival: float


@dataclass(frozen=True, slots=True, eq=False)
class Ordered:
    """A packet in its place. ``times`` (n,) are ns on the strap's clock after ``Order.zero``, as seconds; ``lost``
    counts the samples missing just before; ``anew`` says that the strap's clock began anew, which makes the loss
    unknown to it."""

    packet: Packet
    times: NDArray[np.float64]
    lost: int
    anew: bool


class Order:
    """Packets in the order of their stamps, each once, with what is missing between them counted.

    A packet that leaves a hole is held back until the next arrives, or until `flush`, in case the missing one comes
    late. Every sample sent is given out or counted as lost, once: what comes too late or twice is dropped, what comes
    at a place where nothing was missing is dropped and counted.
    """

    def __init__(self) -> None:
        self.zero: int | None = None
        """Stamp from which the times are counted: seconds since 2000 in nanoseconds do not fit into a float."""
        self.held: Packet | None = None
        self._last: int | None = None
        self._arrival = 0.0
        self._seen: deque[int] = deque(maxlen=REMEMBERED)
        self._holes: deque[tuple[int, int]] = deque(maxlen=REMEMBERED)
        self._uncounted = 0
        self._newest_seen: int | None = None
        self._samples = self._span = 0  # of whole neighbours: the true rate, by the strap's clock
        self._linked = False

    @property
    def rate(self) -> float:
        """Samples a second of the strap's clock, as measured; nominal at the beginning."""
        return (self._samples + RATE * 10) / (self._span / SECOND + 10) if self._span else float(RATE)

    def link(self) -> None:
        """A new connection: the next hole need not be a whole number of packets."""
        self._linked = False
        self._newest_seen = None
        self._seen.clear()
        self._holes.clear()

    def refusal(self, packet: Packet) -> str:
        """Why a packet cannot be whole although its bytes can be read; "" when it can be.

        A notification that was cut to the link's MTU still carries the stamp of a sample that is not in it: then its
        stamp is further from its neighbour's than its samples reach.
        """
        before, self._newest_seen = self._newest_seen, packet.stamp
        count = len(packet.samples)
        if count == SAMPLES or (before is not None and abs((packet.stamp - before) / SECOND * RATE - count) <= 2):
            return ""
        return f"a frame of {count} samples instead of {SAMPLES}"

    def put(self, packet: Packet) -> list[Ordered]:
        """What can be given out now that ``packet`` has come."""
        if packet.stamp in self._seen:
            return []
        self._seen.append(packet.stamp)
        if self._last is None:
            return [self._give(packet)]
        ahead = (packet.stamp - self._last) / SECOND - (packet.arrival - self._arrival)
        if packet.stamp < self._last - BACKWARD or ahead > AHEAD:
            return [*self.flush(), self._give(packet, anew=True)]
        if (packet.stamp - self._last) / SECOND * RATE < len(packet.samples) / 2:
            if not any(low < packet.stamp < high for low, high in self._holes):
                self._uncounted += len(packet.samples)
            return []
        given = []
        if self.held is not None and packet.stamp < self.held.stamp:
            given.append(self._give(packet))
            return given + self.flush() if not self._hole(self.held) else given
        given += self.flush()
        if self._hole(packet):
            self.held = packet
        else:
            given.append(self._give(packet))
        return given

    def flush(self) -> list[Ordered]:
        """What was held back, with the hole before it counted as lost."""
        held, self.held = self.held, None
        return [] if held is None else [self._give(held)]

    def _hole(self, packet: Packet) -> bool:
        assert self._last is not None
        count = len(packet.samples)
        return (packet.stamp - self._last) / SECOND * self.rate > 1.5 * count

    def _give(self, packet: Packet, anew: bool = False) -> Ordered:
        count = len(packet.samples)
        if self.zero is None:
            self.zero = packet.stamp
        lost, self._uncounted = self._uncounted, 0
        start, step = packet.stamp - round((count - 1) * SECOND / self.rate), SECOND / self.rate
        if self._last is not None and not anew:
            gap = packet.stamp - self._last
            missing = gap / SECOND * self.rate - count
            if missing < FEW:
                step = gap / count  # whole neighbours: what lies between their stamps is what they hold
                start = self._last + round(step)
                if missing > -FEW:
                    self._samples += count
                    self._span += gap
            else:
                whole = round(missing / SAMPLES) * SAMPLES
                missing = whole if self._linked and abs(missing - whole) < FEW else round(missing)
                lost += max(int(missing), 0)
                self._holes.append((self._last, packet.stamp))
        self._last, self._arrival = packet.stamp, packet.arrival
        self._linked = True
        times = ((start - self.zero) + step * np.arange(count)) / SECOND
        return Ordered(packet, times, lost, anew)


class Frames:
    """ECG notifications in, items of the session out: samples in order, what is missing counted, stamped by the strap's
    clock laid on the session's. Pure: arrivals are arguments. Used from one thread.

    ``delay`` seconds, known to ``delay_sd``, are subtracted from every stamp.
    """

    def __init__(self, stream: str, delay: float = 0.0, delay_sd: float = 0.0) -> None:
        self._stream = stream
        self._delay, self._delay_sd = delay, delay_sd
        self._clock = DeviceClock()
        self._order = Order()
        self._given_at = math.nan
        self._measured = -math.inf
        self._away_since: float | None = None

    @property
    def holds(self) -> bool:
        """Whether a packet is held back, in case one that is missing before it comes late; until `flush`."""
        return self._order.held is not None

    def link(self) -> None:
        """A new connection."""
        self._order.link()

    def leave(self) -> None:
        """The strap is lost since the last sample: the next one is said to be of a strap that is back."""
        self._away_since = self._given_at

    def take(self, frame: bytes, arrival: float) -> list[Item]:
        """What can be given out now that a notification has come, at ``arrival`` on the session clock; of one that is
        held back a chunk without samples, so that nobody takes the strap for silent.

        Raises ValueError in words when it is none of ECG, or cannot be whole.
        """
        stamp, samples = decode_ecg(frame)
        packet = Packet(stamp, samples, arrival)
        if refusal := self._order.refusal(packet):
            raise ValueError(refusal)
        items = [item for ordered in self._order.put(packet) for item in self._items(ordered)]
        if not items and self.holds:
            return [Chunk(self._stream, np.empty(0), np.empty((0, 1), np.float32))]
        return items

    def flush(self) -> list[Item]:
        """What was held back, with the hole before it counted as lost."""
        return [item for ordered in self._order.flush() for item in self._items(ordered)]

    def _items(self, ordered: Ordered) -> list[Item]:
        """One packet in its place: what is to be said of it, its chunk, and now and then the clock."""
        before = self._clock.resets
        self._clock.update(float(ordered.times[-1]), ordered.packet.arrival)
        times = self._clock.to_session(ordered.times) - self._delay
        lost, jumped = ordered.lost, self._clock.resets > before
        if ordered.anew or (jumped and lost):
            # The strap's clock does not reach over the hole; the session's does, as exactly as a packet arrives.
            lost = max(round((float(times[0]) - self._given_at) * RATE) - 1, 0)
        if times[0] <= self._given_at:
            # The packets before came seconds late, as only this one tells: order comes first.
            times = np.maximum(times, self._given_at + np.arange(1, len(times) + 1) * 1e-6)
        begin = float(times[0])
        items: list[Item] = []
        if ordered.anew or jumped:
            text = "the clock of the strap began anew" if ordered.anew else "a clock has jumped"
            items.append(Notice(self._stream, begin, text))
        if self._away_since is not None:
            text = f"strap back after {begin - self._away_since:.1f} s, {lost} samples lost"
            items.append(Notice(self._stream, begin, text))
            self._away_since = None
        elif lost:
            items.append(Notice(self._stream, begin, f"{lost} samples of ECG lost ({lost / RATE:.2f} s)"))
        self._given_at = float(times[-1])
        items.append(Chunk(self._stream, times, ordered.packet.samples[:, None], lost))
        if self._given_at - self._measured >= CLOCK_INTERVAL or self._given_at < self._measured:
            self._measured = self._given_at
            assert self._order.zero is not None
            offset = self._clock.offset - self._order.zero / SECOND - self._delay
            sd = math.hypot(self._clock.uncertainty, self._delay_sd)
            items.append(Clock(self._stream, self._given_at, offset, sd, self._clock.residual))
        return items


def rr_times(arrival: float, rr_ms: Sequence[float]) -> list[float]:
    """When the beats of one notification (n,) ended: the newest at its arrival, each older one an interval before.

    >>> rr_times(10.0, (800.0, 1000.0)), rr_times(10.0, ())
    ([9.0, 10.0], [])
    """
    return [arrival - sum(rr_ms[beat + 1 :]) / 1000 for beat in range(len(rr_ms))]

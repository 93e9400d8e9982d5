"""The session time of what a device stamped on a clock of its own: offset and drift from the arrival of its packets.

A packet arrives when it was measured, plus the offset of the two clocks, plus a delay that is never below some fastest
value and now and then far above it (Bluetooth, USB, a busy computer). So the line through "arrival minus device time"
is not the mean but lies near the fastest packets: an expectile (Newey and Powell 1987, Econometrica 55:819),
fitted by recursive least squares with forgetting, late packets bounded as in Huber's estimator. With exponential delays
this has a third of the error of the plain line. What remains is constant: the delay of the fastest packets and a part
of the typical excess over it, which no receiver can know; who knows it from elsewhere subtracts it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

FORGET = 300.0
"""Seconds after which a packet counts 1/e: long against the delays, short against the warming of a crystal."""
LEVEL = 0.05
"""Weight of a late packet beside an early one's `1 - LEVEL`."""
BOUND = 4.0
"""Typical residuals beyond which the pull of a packet no longer grows."""
DRIFT_SD = 1e-3
"""What is expected of the drift before anything is known: a crystal has 0.0001, a nominal rate 0.01 at worst."""
DRIFT_SD_KNOWN = 20e-6
"""After a jump the drift of the same device is known no better than this."""
TYPICAL = 0.02
"""Seconds that arrivals scatter, before anything is known."""

FINEST = 1e-5
"""Seconds; arrivals are not said to scatter less, so that exact ones do no harm."""

IMPOSSIBLE = 1.0
"""Seconds. No packet is so much too early: a clock has jumped, believed at once."""
BACKWARD = 3.0
"""Seconds. No packet comes so much after a newer one: the device's clock has gone back, believed at once."""
JUMP = 0.01
"""Seconds. Steps below are not told from scatter; they are followed as the memory fades."""
FAR, LATE, EARLY = 8.0, 2.0, 0.5
"""A packet is far from the line, or at least late or early, beyond so many typical residuals. What is far does
not pull: a stall of a minute would. Only at the beginning what is far too early does, for then the line was late."""
YOUNG = 10
"""Packets."""
AGREEING, AGREEING_LATE = 8, 20
"""So many packets in a row must be off the line by the same amount before a smaller step is believed: those of a
stalled link that catches up are less late one after the other. More of those that are late, yet not far."""
AGREEING_SECONDS = 4.0

SLEW = 0.05
"""Stamps are led back to a corrected line by at most 5 % of their spacing, so that neighbours keep their order."""
SETTLE = 1.0
"""Seconds in which a small correction is spread."""


@dataclass(slots=True)
class _Apart:
    """Packets in a row that are off the line by the same amount: how many, since when, and by how much."""

    since: float
    slope: float
    slope_sd: float
    """Of the line before it was drawn towards them."""
    low: float
    high: float
    count: int = 0


@dataclass(slots=True)
class _Line:
    """``y`` over ``x``, weighted and fading: means and central moments, which lose no digits over hours."""

    prior: float
    """The slope that is expected, and how sure that is: one standard deviation."""
    prior_sd: float
    x: float
    """Weighted means."""
    y: float
    weight: float = 0.0
    xx: float = 0.0
    xy: float = 0.0
    typical: float = TYPICAL
    """Mean size of the residuals, bounded."""
    count: int = 0
    pull: float = 0.0
    """Mean square of weight x residual, and below it the mean weight: the sandwich of an M-estimator's variance."""
    mean_weight: float = 0.5
    effective: float = 0.0
    """Sum of the fading factors, and below it of their squares: together the number of packets that count."""
    effective_squares: float = 0.0
    slope: float = 0.0

    def __post_init__(self) -> None:
        self.slope = self.prior
        self.pull = (self.mean_weight * self.typical) ** 2

    def at(self, x: float) -> float:
        return self.y + self.slope * (x - self.x)

    def take(self, x: float, y: float, fading: float) -> None:
        residual = y - self.at(x)
        bound = BOUND * self.typical
        size = min(abs(residual), bound)
        level = LEVEL if residual > 0 else 1.0 - LEVEL
        if not self.count:
            level = LEVEL  # how late the first one is, nobody knows
        weight = level * (size / abs(residual) if abs(residual) > bound else 1.0)
        far = FAR * self.typical
        if residual > far or (residual < -far and self.count > YOUNG):
            weight = 0.0
        self.count += 1
        self.effective = fading * self.effective + 1.0
        self.effective_squares = fading * fading * self.effective_squares + 1.0
        share = 1.0 / (self.effective + YOUNG)  # so many packets' trust in what was assumed
        self.typical = max(self.typical + share * (size - self.typical), FINEST)
        self.pull += share * ((level * size if weight else 0.0) ** 2 - self.pull)
        self.mean_weight += share * (weight - self.mean_weight)
        self.weight = fading * self.weight + weight
        step_x, step_y = x - self.x, y - self.y
        self.x += weight / self.weight * step_x
        self.y += weight / self.weight * step_y
        self.xx = fading * self.xx + weight * step_x * (x - self.x)
        self.xy = fading * self.xy + weight * step_x * (y - self.y)
        ridge = self.pull / max(self.mean_weight, LEVEL) / self.prior_sd**2
        self.slope = (self.xy + ridge * self.prior) / (self.xx + ridge)

    def drift(self) -> tuple[float, float]:
        """The slope and its standard deviation."""
        return self.slope, math.sqrt(self.variances(self.x)[1])

    def variances(self, x: float) -> tuple[float, float]:
        """Of the line at ``x`` (s^2), and of its slope."""
        packets = self.effective**2 / self.effective_squares if self.effective_squares else 0.0
        if packets < 1.0:
            return math.inf, self.prior_sd**2
        one = self.pull / self.mean_weight**2
        spread = self.xx / self.weight
        slope = 1.0 / (packets * spread / one + self.prior_sd**-2)
        return one / packets + (x - self.x) ** 2 * slope, slope


class DeviceClock:
    """Turns device times into session times, packet by packet; first `update`, then `to_session` of its samples.

    Works on numbers alone: any device time in seconds will do, also a sample number over the nominal rate. What was
    given out is never taken back.
    """

    def __init__(self) -> None:
        self._line: _Line | None = None
        self._zero = 0.0  # device time from which the line counts: huge numbers would cost digits
        self._newest = -math.inf
        self._apart: _Apart | None = None
        self._given: tuple[float, float] | None = None  # the newest pair of times that was given out
        self._floor = -math.inf  # what was given out before a jump
        self._lead: tuple[float, float, float] | None = None  # from which time, by how much, over how long
        self.resets = 0
        """Jumps of either clock that were followed."""

    @property
    def offset(self) -> float:
        """Session time minus device time at the newest packet, seconds; NaN before the first."""
        return math.nan if self._line is None else self._line.at(self._newest) - self._zero

    @property
    def drift(self) -> float:
        """By how much the device's clock is fast, ppm; NaN before the first packet."""
        return math.nan if self._line is None else -self._line.slope / (1.0 + self._line.slope) * 1e6

    @property
    def uncertainty(self) -> float:
        """One standard deviation of the mapping at the newest packet, seconds; infinite before the first.

        It holds for the scatter of independent delays; the constant delay of the fastest packets is not in it.
        """
        return math.inf if self._line is None else math.sqrt(self._line.variances(self._newest)[0])

    @property
    def residual(self) -> float:
        """What the times that were last given out did not yet contain: the line minus them, seconds."""
        if self._line is None or self._given is None:
            return 0.0
        device, time = self._given
        return device + self._line.at(device) - time

    def update(self, device: float, arrival: float) -> None:
        """One packet: its time on the device's clock, and when it arrived on the session clock, both seconds.

        Packets may be late, missing or out of order. Stamps that are no finite number are not taken.
        """
        if not math.isfinite(device - arrival):
            return
        if self._line is None:
            self._start(device, arrival, 0.0, DRIFT_SD)
            return
        line, x = self._line, device - self._zero
        y = arrival - x
        residual = y - line.at(x)
        if x < self._newest - BACKWARD or residual < -IMPOSSIBLE:
            self._jump(device, arrival, *line.drift())
            return
        if apart := self._agreed(residual, arrival):
            # To the fastest of those that agree.
            self._jump(device, arrival - (residual - apart.low), apart.slope, apart.slope_sd)
            return
        passed = min(max(x - self._newest, 0.0), FORGET)
        line.take(x, y, math.exp(-passed / FORGET))
        self._newest = max(self._newest, x)

    def to_session(self, device: NDArray[np.float64]) -> NDArray[np.float64]:
        """Session times (n,) of device times (n,) in rising order; call it once for every sample, in order.

        A corrected line is taken up gradually (`SLEW`), so that samples keep their order also from chunk to chunk.
        After a jump the times follow at once; they go back only where the session clock itself did.
        Raises ValueError before the first `update`.
        """
        if self._line is None:
            raise ValueError("no packet has been seen yet")
        if not len(device):
            return np.empty(0)
        x = np.asarray(device, np.float64) - self._zero
        times: NDArray[np.float64] = x + (self._line.y + self._line.slope * (x - self._line.x))
        if self._given is not None and self._given[0] < x[0]:
            given, time = self._given
            error = time - (given + self._line.at(given))
            self._lead = given, error, max(SETTLE, abs(error) / SLEW)
        elif self._given is None and 0 <= self._floor - times[0] < IMPOSSIBLE:
            # The device's clock has jumped, and the first packet after it came early: half the spacing for a while.
            error = self._floor - times[0] + ((x[-1] - x[0]) / (2 * len(x) - 2) if len(x) > 1 else 1e-6)
            self._lead = x[0], error, 2 * error
        if self._lead is not None:
            start, error, over = self._lead
            times += error * np.clip(1.0 - (x - start) / over, 0.0, 1.0)
        if self._given is None or x[-1] > self._given[0]:
            self._given = float(x[-1]), float(times[-1])
        return times

    def _start(self, device: float, arrival: float, prior: float, prior_sd: float) -> None:
        self._zero = device
        self._newest = 0.0
        self._line = _Line(prior, prior_sd, 0.0, arrival)
        self._line.take(0.0, arrival, 1.0)

    def _jump(self, device: float, arrival: float, slope: float, slope_sd: float) -> None:
        """Begin anew: only the drift remains, for the crystal is the same."""
        self._start(device, arrival, slope, min(max(slope_sd, DRIFT_SD_KNOWN), DRIFT_SD))
        self._apart = self._lead = None
        if self._given is not None:
            self._floor, self._given = self._given[1], None
        self.resets += 1

    def _agreed(self, residual: float, arrival: float) -> _Apart | None:
        """The packets of late when they are off the line by the same amount, enough of them and for long enough."""
        assert self._line is not None
        far = max(JUMP, FAR * self._line.typical)
        if abs(residual) < max(JUMP, (LATE if residual > 0 else EARLY) * self._line.typical):
            self._apart = None
            return None
        apart = self._apart
        if apart is None or max(apart.high, residual) - min(apart.low, residual) > far:
            apart = self._apart = _Apart(arrival, *self._line.drift(), residual, residual)
        apart.low, apart.high = min(apart.low, residual), max(apart.high, residual)
        apart.count += 1
        needed = AGREEING_LATE if 0 < apart.low <= far else AGREEING
        return apart if apart.count >= needed and arrival - apart.since >= AGREEING_SECONDS else None

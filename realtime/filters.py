"""Causal filters that keep their state between chunks: any chunking gives the same bits."""

from __future__ import annotations

import math

import numba
import numpy as np
from numpy.typing import NDArray
from scipy import signal

from models.api import InputSpec

ORDER = 4
"""Of the Butterworth band-pass at each edge: as many second-order sections as this."""
NOTCH_Q = 30.0
"""Centre frequency over -3 dB width of a notch: 1.7 Hz wide at 50 Hz."""
SETTLE = 1.0
"""Seconds after a (re)start that do not count as measured: the transient of a 0.5 Hz high-pass."""
BRIDGE = 0.1
"""Seconds that a channel or stream may be missing before its filter starts anew.

A tenth of a second is less than a hundredth of a window and shorter than any wave the 0.5 Hz edge is there for; a
longer hole would enter the filter as a step between two moments that have nothing to do with each other.
"""
TINY = 1e-100
"""State below this is zero."""

# Flags of a sample of a channel, and marks of a row of samples.
MISSING, STUCK, SETTLING, REACHED = 1, 2, 4, 8
RESTART, HOLE = 1, 2


def design(spec: InputSpec, rate: float) -> NDArray[np.float64]:
    """Second-order sections (sections, 6) of what ``spec`` asks for at ``rate`` Hz.

    A Butterworth band-pass, only its high-pass when the upper edge is above 0.9 of the Nyquist frequency; then the
    notches, but for those above 0.9 of the Nyquist frequency.
    """
    low, high = spec.band
    nyquist = rate / 2
    if not 0 < low < high or low >= 0.9 * nyquist:
        raise ValueError(f"{spec.kind}: a band of {low} to {high} Hz cannot be filtered at {rate} Hz")
    if high > 0.9 * nyquist:
        parts = [signal.butter(ORDER, low, "highpass", fs=rate, output="sos")]
    else:
        parts = [signal.butter(ORDER, (low, high), "bandpass", fs=rate, output="sos")]
    for frequency in spec.notch:
        if frequency <= 0.9 * nyquist:
            parts.append(signal.tf2sos(*signal.iirnotch(frequency, NOTCH_Q, rate)))
    return np.ascontiguousarray(np.concatenate(parts), np.float64)


@numba.njit(cache=True)
def _filter(sos, zi, samples, flags, marks, settle, bridge, state, held, age, absent):  # type: ignore[no-untyped-def]
    n, channels = samples.shape
    for i in range(n):
        for c in range(channels):
            if marks[i] == RESTART:
                age[c] = -1
                absent[c] = 0
            if flags[i, c] & MISSING:
                absent[c] += 1
                if absent[c] > bridge:
                    age[c] = -1
                samples[i, c] = held[c]
            else:
                absent[c] = 0
                held[c] = samples[i, c]
                if age[c] < 0:
                    # As if this value had always been there: a DC offset makes no transient.
                    for s in range(sos.shape[0]):
                        state[s, 0, c] = zi[s, 0] * held[c]
                        state[s, 1, c] = zi[s, 1] * held[c]
                    age[c] = 0
            if age[c] < settle:
                flags[i, c] |= SETTLING
            if age[c] >= 0:
                age[c] += 1
        for s in range(sos.shape[0]):
            b0, b1, b2, a1, a2 = sos[s, 0], sos[s, 1], sos[s, 2], sos[s, 4], sos[s, 5]
            for c in range(channels):
                x = samples[i, c]
                y = b0 * x + state[s, 0, c]
                z0 = b1 * x - a1 * y + state[s, 1, c]
                z1 = b2 * x - a2 * y
                # A device that sends nothing but zeros lets the state die away into subnormal numbers, which make the
                # arithmetic a hundred times slower.
                state[s, 0, c] = z0 if abs(z0) > TINY else 0.0
                state[s, 1, c] = z1 if abs(z1) > TINY else 0.0
                samples[i, c] = y
        for c in range(channels):
            if age[c] < 0:
                samples[i, c] = 0.0


class Filter:
    """A cascade of second-order sections over the channels of one stream, in double precision. Owned by one thread."""

    def __init__(self, sos: NDArray[np.float64], channels: int, rate: float) -> None:
        self.sos = np.ascontiguousarray(sos, np.float64)
        self.rate = rate
        self._zi = np.ascontiguousarray(signal.sosfilt_zi(self.sos), np.float64)
        self._settle = round(SETTLE * rate)
        self._bridge = round(BRIDGE * rate)
        self._state = np.zeros((len(self.sos), 2, channels))
        self._held = np.zeros(channels)
        self._age = np.full(channels, -1, np.int64)
        self._absent = np.zeros(channels, np.int64)
        self.run(np.zeros((0, channels)), np.zeros((0, channels), np.uint8), np.zeros(0, np.uint8))

    def run(self, samples: NDArray[np.float64], flags: NDArray[np.uint8], marks: NDArray[np.uint8]) -> None:
        """Filter ``samples`` (n, channels) in place.

        Where ``flags`` (n, channels) says MISSING the channel's last value goes in, whatever stands in ``samples``; a
        channel missing for longer than BRIDGE starts anew with its next value, and all of them at a row whose ``marks``
        (n,) says RESTART. SETTLING is set on the first SETTLE seconds after a start.
        """
        _filter(
            self.sos,
            self._zi,
            samples,
            flags,
            marks,
            self._settle,
            self._bridge,
            self._state,
            self._held,
            self._age,
            self._absent,
        )

    def reset(self) -> None:
        """As new."""
        self._state[:] = 0.0
        self._held[:] = 0.0
        self._age[:] = -1
        self._absent[:] = 0

    def delay(self, frequency: float = 10.0) -> float:
        """Seconds by which a wave packet of ``frequency`` Hz comes out late (group delay); nothing corrects for it."""
        w = 2 * math.pi * frequency / self.rate
        return float(sum(signal.group_delay((s[:3], s[3:]), [w])[1][0] for s in self.sos)) / self.rate

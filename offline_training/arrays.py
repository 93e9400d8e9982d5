"""What files of plain arrays have in common: which axis is time, what unit the numbers can be in, and the chunks."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import signal

from devices.api import Chunk, StreamInfo
from offline_training.prepare import REST_SECONDS

CHUNK_SECONDS = 0.5
"""As a device would send it. Windows do not depend on it."""
BLOCK_SECONDS = 10.0
"""Of a long file, in memory at a time."""
ROUND = 10.0
"""Seconds: recordings begin at whole multiples on the session clock, so that windows lie alike in all of them."""
SHORTEST = 10.0
"""Seconds: what is shorter holds no window of the default length."""
MILLIVOLTS = {"eeg": 0.2, "ecg": 20.0}
"""`size` below which EEG, or ECG, is plainly not in microvolts: no amplifier is as quiet, no heart as weak."""
VOLTS = {"eeg": 1e-3, "ecg": 0.02}
"""`size` below which it is not in millivolts either."""
LARGEST = {"eeg": 2000.0, "ecg": 50_000.0}
"""`size` above which it is not in microvolts but in something smaller, or not such a signal at all."""


def time_major(array: NDArray[np.generic], channels: int) -> NDArray[np.float32]:
    """``array`` as (n, channels), also when it lies (channels, n). ValueError in words when neither fits.

    When both axes are as long as there are channels it is taken as it lies.
    """
    if array.dtype.kind not in "fiu" or array.ndim != 2:
        what = f"{array.dtype}" if array.dtype.kind not in "fiu" else f"shape {array.shape}"
        raise ValueError(f"holds {what}, expected numbers in a table of {channels} columns")
    if array.size == 0:
        raise ValueError("is empty")
    if array.shape[1] != channels:
        if array.shape[0] != channels:
            raise ValueError(f"has shape {array.shape}, neither axis has the {channels} channels")
        array = array.T
    with np.errstate(over="ignore"):
        return np.ascontiguousarray(array, np.float32)


def size(kind: str, samples: NDArray[np.float32], rate: float) -> float:
    """How large the signal (n, channels) above 1 Hz is, in its own unit; NaN when nothing moves in it.

    Of EEG the standard deviation that the median of the absolute values speaks of, of ECG the 99th percentile, which
    lies within the QRS complexes. The middle one of the channels; missing samples count as none.
    """
    found = []
    high_pass = signal.butter(2, 1.0, "highpass", fs=rate, output="sos")
    for channel in samples.T:
        good = np.isfinite(channel)
        if not good.any():
            continue
        level = float(np.median(channel[good]))
        moved = np.abs(signal.sosfilt(high_pass, np.where(good, channel - level, 0.0)))[good]
        found.append(1.4826 * float(np.median(moved)) if kind == "eeg" else float(np.percentile(moved, 99)))
    found = [one for one in found if one > 0.0]
    return float(np.median(found)) if found else math.nan


def plainly(kind: str, found: float) -> str:
    """What a signal of `size` ``found`` is in when that cannot be microvolts: "V", "mV", "neither"; else ""."""
    if found < VOLTS[kind]:
        return "V"
    if found < MILLIVOLTS[kind]:
        return "mV"
    return "neither" if found > LARGEST[kind] else ""


def why_not_microvolts(kind: str, found: float) -> str:
    """In words, why a signal of `size` ``found`` cannot be in microvolts; "" when it can, or nothing moves in it."""
    unit = plainly(kind, found)
    if not unit:
        return ""
    what = f"the {kind.upper()} is {found:.2g} large above 1 Hz"
    if unit == "neither":
        return f"{what}: microvolts are never as many; convert it to uV"
    return f"{what}: it is in {unit}, not in uV; convert it to uV"


def next_start(stop: float) -> float:
    """Where the recording after a resting one, from 0 to ``stop``, begins on the clock of its session.

    Never before REST_SECONDS, which belong to the baseline however short it is: nothing of what follows is lost to it.
    """
    return math.ceil(max(stop, REST_SECONDS) / ROUND - 1e-9) * ROUND


def as_chunks(signals: Sequence[tuple[StreamInfo, NDArray[np.float32]]], start: float) -> Iterator[Chunk]:
    """Chunks of half a second of arrays (n, channels) that begin together, the streams taking turns as live."""
    longest = max(len(samples) / stream.rate for stream, samples in signals)
    for k in range(math.ceil(longest / CHUNK_SECONDS - 1e-9)):
        for stream, samples in signals:
            first, last = (round((k + i) * CHUNK_SECONDS * stream.rate) for i in (0, 1))
            piece = samples[first:last]
            if len(piece):
                times = start + np.arange(first, first + len(piece)) / stream.rate
                yield Chunk(stream.key, times, np.ascontiguousarray(piece))


def blockwise(
    read: Callable[[int, int], Sequence[tuple[StreamInfo, NDArray[np.float32]]]], n: int, rate: float, start: float
) -> Iterator[Chunk]:
    """Chunks of half a second of a recording of ``n`` samples at ``rate``, read when they are asked for.

    ``read(first, last)`` gives the samples (last - first, channels) of each of its streams.
    """
    block, step = round(BLOCK_SECONDS * rate), round(CHUNK_SECONDS * rate)
    for at in range(0, n, block):
        signals = read(at, min(n, at + block))
        for first in range(at, min(n, at + block), step):
            for stream, samples in signals:
                piece = np.ascontiguousarray(samples[first - at : first - at + step], np.float32)
                yield Chunk(stream.key, start + np.arange(first, first + len(piece)) / rate, piece)


def rating_problem(value: object, low: float, high: float, whole: bool = False) -> str:
    """In words, why ``value`` is no rating from ``low`` to ``high``; "" when it is one."""
    try:
        number = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return "the rating is missing" if value in (None, "") else f"the rating {value!r:.40} is no number"
    if math.isnan(number):
        return "the rating is NaN"
    if not low <= number <= high:
        return f"the rating is {number:g}, expected {low:g} to {high:g}"
    if whole and number != round(number):
        return f"the rating is {number:g}, expected a whole number from {low:g} to {high:g}"
    return ""


def cells_of(value: object) -> NDArray[np.object_]:
    """A cell array of a MAT file as (n,), whatever its orientation, also one inside a cell; ValueError otherwise."""
    array = np.asarray(value)
    while array.dtype == object and array.size == 1 and np.asarray(array.ravel()[0]).dtype == object:
        array = np.asarray(array.ravel()[0])
    if array.dtype != object:
        raise ValueError("a cell array is missing")
    return array.ravel()


def in_a_line(error: BaseException) -> str:
    """What a library says of a file that it cannot read, as one line."""
    if isinstance(error, KeyError) and error.args:
        return f"no {error.args[0]!s:.60}"
    return " ".join(str(error).split())[:200] or type(error).__name__

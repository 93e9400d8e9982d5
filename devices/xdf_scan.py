"""The inner loops of reading XDF: finding chunks and taking their samples out, without a Python step for each.

Pure. ``raw`` is always the whole file as bytes (size,); nothing is read beyond it whatever the file claims.
"""

from __future__ import annotations

import numba
import numpy as np

from devices.xdf_layout import BOUNDARY, TAG_BOUNDARY, TAG_OFFSET, TAG_SAMPLES

TEXTS = -1
"""In place of the bytes a sample's numbers take: a stream of texts."""
REFUSED = -2
"""The same: samples of this stream are passed over."""
OFFSET = -1
"""In place of a number of samples: a clock offset."""

_BOUNDARY = np.frombuffer(BOUNDARY, np.uint8)


@numba.njit(cache=True)
def _length(raw, at, end):  # type: ignore[no-untyped-def]
    """A variable-length integer and the byte after it; -1 for that byte where there is none below 2^63."""
    width = np.int64(raw[at]) if at < end else 0
    if (width != 1 and width != 4 and width != 8) or at + 1 + width > end:
        return 0, -1
    value = np.int64(0)
    for i in range(width):
        value |= np.int64(raw[at + 1 + i]) << (8 * i)
    return (value, at + 1 + width) if value >= 0 else (0, -1)


@numba.njit(cache=True)
def scan(raw, at, stop, ids, channels, widths, rows):  # type: ignore[no-untyped-def]
    """Enter chunks from byte ``at`` on into ``rows`` (k, 3): stream, byte, samples. Returns byte reached and rows used.

    Goes on up to ``stop`` over samples (``byte`` is that of the chunk) and clock offsets (samples is OFFSET, ``byte``
    that of its two numbers) of the streams in ``ids`` (ascending) and boundaries, and stops before anything else,
    before anything that cannot be true, and when ``rows`` are full. ``widths`` are the bytes of a sample's numbers,
    TEXTS or REFUSED.
    """
    size = len(raw)
    used = 0
    while at < stop and used < len(rows):
        length, content = _length(raw, at, size)
        if content < 0 or length < 2 or length > size - content:
            break
        end = content + length
        tag = raw[content] | raw[content + 1] << 8
        if tag == TAG_BOUNDARY:
            if length != 2 + len(_BOUNDARY):
                break
            same = True
            for i in range(len(_BOUNDARY)):
                same = same and raw[content + 2 + i] == _BOUNDARY[i]
            if not same:
                break
            at = end
            continue
        if (tag != TAG_SAMPLES and tag != TAG_OFFSET) or length < 6:
            break
        number = np.int64(0)
        for i in range(4):
            number |= np.int64(raw[content + 2 + i]) << (8 * i)
        place = np.searchsorted(ids, number)
        if place == len(ids) or ids[place] != number:
            break
        if tag == TAG_OFFSET:
            if length != 22:
                break
            rows[used, 0], rows[used, 1], rows[used, 2] = number, content + 6, OFFSET
            used += 1
        elif widths[place] != REFUSED:
            n, first = _length(raw, content + 6, end)
            room = end - first
            if first < 0 or n < 1 or n > room:
                break
            if widths[place] == TEXTS:
                # A text is at least its length: one byte of width, one of value.
                fits = n * (1 + 2 * channels[place]) <= room
            else:
                spare = room - n * (1 + widths[place])
                fits = 0 <= spare <= 8 * n and spare % 8 == 0
            if not fits:
                break
            rows[used, 0], rows[used, 1], rows[used, 2] = number, at, n
            used += 1
        at = end
    return at, used


@numba.njit(cache=True)
def gather(raw, chunks, width, times, values, odd):  # type: ignore[no-untyped-def]
    """Take the samples of a numeric stream out of the ``chunks`` (k,) that begin at these bytes, one after another.

    ``times`` (8 n,) and ``values`` (width n,) are bytes. Chunks in which not every sample has its stamp are left alone
    and marked in ``odd`` (k,).
    """
    size = len(raw)
    place = 0
    for k in range(len(chunks)):
        length, content = _length(raw, chunks[k], size)
        end = content + length
        n, at = _length(raw, content + 6, end)
        odd[k] = end - at != n * (9 + width)
        if not odd[k]:
            for i in range(n):
                if raw[at] != 8:
                    odd[k] = True
                    break
                t = 8 * (place + i)
                for b in range(8):
                    times[t + b] = raw[at + 1 + b]
                at += 9
                v = width * (place + i)
                for b in range(width):
                    values[v + b] = raw[at + b]
                at += width
        place += n

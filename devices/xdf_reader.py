"""Reading XDF 1.0: an index of the file, and every chunk decoded only where it is asked for.

Survives truncation, damage, disorder and counts that were made up. Stamps are never dejittered: a gap stays where it
was. Format: https://github.com/sccn/xdf/wiki/Specifications.
"""

from __future__ import annotations

import contextlib
import itertools
import math
import mmap
import struct
from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Self, TypeAlias

import numpy as np
from numpy.typing import NDArray

from devices.xdf_layout import (
    BOUNDARY,
    FORMATS,
    MAGIC,
    MAX_XML,
    TAG_BOUNDARY,
    TAG_FILE_HEADER,
    TAG_OFFSET,
    TAG_SAMPLES,
    TAG_STREAM_FOOTER,
    TAG_STREAM_HEADER,
    XdfError,
    child_text,
    parse_xml,
)
from devices.xdf_sync import Line, last_is_corrupt, robust_line, segments

Values: TypeAlias = NDArray[np.generic]
"""(n, channels): the stream's number format, or objects that are str."""

MAX_CHANNELS = 65_536
"""In all streams together, a stream without channels as one: a header costs memory by what it claims."""
MAX_STREAMS = 1024
"""Of one file; recorders know a few dozen."""
MAX_STRING = 1 << 20
MAX_FINDINGS = 100
MAX_SECONDS = 1e12
"""Of a clock and between two clocks: thirty thousand years."""
BLOCK = 32 << 20
"""Bytes of the file that are in this process's memory at a time, about: pages of a map count as its own."""
_TOGETHER = 256  # chunks decoded in one step
_PAGES = 1 << 16  # what the system maps around a byte that is asked for
# The beginning of a samples chunk as all writers known make it: length in 4 bytes or 1, tag, stream, count in 4 bytes.
_MANY = 10_000  # different beginnings that are remembered
_LONG, _SHORT = struct.Struct("<BIHIBI"), struct.Struct("<BBHIBI")


class _DamageError(Exception):
    pass


@dataclass(frozen=True, slots=True, kw_only=True)
class XdfStream:
    """A stream as its header says it. All texts come from outside."""

    id: int
    name: str
    type: str
    channels: tuple[str, ...]
    """Labels, "ch1", "ch2", ... where the header has none."""
    units: tuple[str, ...]
    """One a channel, "" where the header has none."""
    rate: float
    """Hz, nominal; 0.0 for irregular streams."""
    format: str
    """float32, double64, int8, int16, int32, int64 or string."""
    source_id: str
    hostname: str
    header: str
    """The XML, for whatever else it says."""

    def desc(self, path: str) -> str:
        """The text of an element below ``<desc>``, such as "synchronization/can_drop_samples"; "" if there is none."""
        return child_text(parse_xml(self.header), f"desc/{path}")


def _stream(number: int, header: str, most: int) -> XdfStream:
    """The stream of one header; raises _DamageError in words when samples could not be read with it."""
    try:
        root = parse_xml(header)
    except ValueError as error:
        raise _DamageError(f"header is not readable XML ({error})") from None
    fmt = child_text(root, "channel_format")
    try:
        count = int(child_text(root, "channel_count"))
        rate = float(child_text(root, "nominal_srate") or 0.0)
    except ValueError:
        raise _DamageError("header has no usable channel_count or nominal_srate") from None
    if fmt != "string" and fmt not in FORMATS:
        raise _DamageError(f"channel format {fmt[:20]!r} is not one of XDF's")
    if count < 0 or max(1, count) > most:
        raise _DamageError(f"{count} channels are not believable")
    if not (np.isfinite(rate) and rate >= 0.0):
        rate = 0.0
    elements = root.findall("desc/channels/channel")[:count]
    labels = [child_text(element, "label") for element in elements]
    units = [child_text(element, "unit") for element in elements]
    missing = range(len(labels), count)
    return XdfStream(
        id=number,
        name=child_text(root, "name"),
        type=child_text(root, "type"),
        channels=tuple(label or f"ch{i + 1}" for i, label in enumerate(labels)) + tuple(f"ch{i + 1}" for i in missing),
        units=tuple(units) + ("",) * len(missing),
        rate=rate,
        format=fmt,
        source_id=child_text(root, "source_id"),
        hostname=child_text(root, "hostname"),
        header=header,
    )


class XdfFile:
    """An XDF file, indexed when it is opened and decoded only where it is asked for. A context manager.

    ``streams`` are by id in order of appearance. ``findings`` tells damage, one line with its byte each; what is
    complete before and after damage is read. Chunks are numbered from 0 in file order.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.findings: list[str] = []
        self._headers: dict[int, XdfStream] = {}
        self.streams = MappingProxyType(self._headers)
        self._refused: set[int] = set()
        self._too_many = False
        self._claimed = 0
        self._units: dict[int, int] = {}  # bytes of a stamped sample of the streams of numbers that are read
        self._seen: dict[bytes, tuple[int, int, int]] = {}  # beginning of a chunk: stream, samples, length
        self._row_ids: array[int] = array("I")
        self._row_at: array[int] = array("q")
        self._row_n: array[int] = array("q")
        self._others: array[int] = array("q")  # where every other chunk begins that was taken
        self._offset_ids: array[int] = array("I")
        self._offset_pairs: array[float] = array("d")
        self._touched = self._reached = 0
        self._drop_at = BLOCK
        self._footer_counts: dict[int, int] = {}
        self._lines: dict[int, list[tuple[int, Line]]] = {}
        self._limits: dict[int, int] = {}
        self._last_stamps: dict[int, float] = {}
        self._bad: set[int] = set()
        self._map = self._open()
        try:
            self._index()
        except BaseException:
            self.close()
            raise

    def _open(self) -> mmap.mmap:
        try:
            with self.path.open("rb") as file:
                start = file.read(4)
                if start == MAGIC:
                    return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except OSError as error:
            raise XdfError(f"{self.path}: cannot be read ({error.strerror}). Check the path.") from error
        if not start:
            raise XdfError(f"{self.path}: the file is empty (0 bytes). Choose another recording.")
        if start[:2] == b"\x1f\x8b":
            raise XdfError(f"{self.path}: begins with gzip at byte 0, not with XDF. Unpack it first (gunzip).")
        if start[:1] == b"\x78" and int.from_bytes(start[:2], "big") % 31 == 0:
            raise XdfError(f"{self.path}: begins with zlib at byte 0, not with XDF. Unpack it first (zlib-flate).")
        raise XdfError(
            f"{self.path}: not an XDF file, byte 0 reads {start!r} instead of {MAGIC!r}. Choose an XDF file."
        )

    def _found(self, byte: int, what: str) -> None:
        if len(self.findings) < MAX_FINDINGS:
            self.findings.append(f"byte {byte}: {what}")
        elif len(self.findings) == MAX_FINDINGS:
            self.findings.append(f"byte {byte}: and more damage from here on")

    # -- index -------------------------------------------------------------------------------------------------------

    def _varlen(self, at: int, end: int) -> tuple[int, int]:
        """A variable-length integer and the byte after it, within ``end``."""
        m = self._map
        width = m[at] if at < end else 0
        after = at + 1 + width
        if width not in (1, 4, 8) or after > end:
            raise _DamageError(f"no length at byte {at}")
        return int.from_bytes(m[at + 1 : after], "little"), after

    def _plausible(self, at: int, size: int) -> bool:
        """Whether a chunk could begin here (or the file end)."""
        if at == size:
            return True
        try:
            length, content = self._varlen(at, size)
        except _DamageError:
            return False
        return 2 <= length <= size - content and 1 <= int.from_bytes(self._map[content : content + 2], "little") <= 6

    def _index(self) -> None:
        size = len(self._map)
        early: array[int] = array("q")
        at = len(MAGIC)
        while at < size:
            at = self._run(at)
            if at == size:
                break
            if at > self._drop_at:
                self._drop()
                self._drop_at = at + BLOCK
            end = at
            try:
                try:
                    length, content = self._varlen(at, size)
                except _DamageError:
                    raise _DamageError("no chunk begins here") from None
                if not 2 <= length <= size - content:
                    left = size - content
                    raise _DamageError(f"a chunk says it has {length} bytes, the file has {left} left (cut off?)")
                end = content + length
                self._take(at, content, end, early)
                at = end
            except _DamageError as damage:
                # The length may be right and only the content wrong: then the next chunk follows at once.
                if end > at and self._plausible(end, size):
                    self._found(at, f"{damage}; chunk left out")
                    at = end
                    continue
                boundary = self._map.find(BOUNDARY, at + 1)
                if boundary < 0:
                    self._found(at, f"{damage}; {size - at} bytes from here on are not readable")
                    break
                self._found(at, f"{damage}; goes on at byte {boundary + len(BOUNDARY)}")
                at = boundary + len(BOUNDARY)
        for offset in early:  # samples that came before their header
            length, content = self._varlen(offset, size)
            try:
                self._samples(offset, content, content + length, None)
            except _DamageError as damage:
                self._found(offset, f"{damage}; chunk left out")
        self._group(bool(early))
        self._drop()

    def _group(self, in_disorder: bool) -> None:
        """From rows to what is asked for: chunks in file order, those of each stream, and the samples before each."""
        self._ids = np.frombuffer(self._row_ids, dtype=np.uint32)
        self._at = np.frombuffer(self._row_at, dtype=np.int64)
        self._n = np.frombuffer(self._row_n, dtype=np.int64)
        if in_disorder:
            order = np.argsort(self._at, kind="stable")
            self._ids, self._at, self._n = self._ids[order], self._at[order], self._n[order]
        numbers = sorted(self._headers)
        order = np.argsort(self._ids, kind="stable")
        edges = np.searchsorted(self._ids, [*numbers, 1 << 32], sorter=order)
        self._first = np.zeros(len(self._ids), dtype=np.int64)
        self._chunks: dict[int, NDArray[np.int64]] = {}
        self._counts: dict[int, int] = {}
        for number, (begin, end) in zip(numbers, itertools.pairwise(edges.tolist()), strict=True):
            own = order[begin:end]
            ends = np.cumsum(self._n[own])
            self._chunks[number] = own
            self._first[own] = ends - self._n[own]
            self._counts[number] = int(ends[-1]) if len(own) else 0
        ids = np.frombuffer(self._offset_ids, dtype=np.uint32)
        pairs = np.frombuffer(self._offset_pairs, dtype=np.float64).reshape(-1, 2)
        order = np.argsort(ids, kind="stable")
        edges = np.searchsorted(ids, [*numbers, 1 << 32], sorter=order)
        self._offsets = {
            number: pairs[order[begin:end]]
            for number, (begin, end) in zip(numbers, itertools.pairwise(edges.tolist()), strict=True)
        }

    def _run(self, at: int) -> int:
        """Index samples of numbers with all their stamps from byte ``at`` on, and return the byte of anything else."""
        m, units, size = self._map, self._units, len(self._map)
        ids, begins, counts = self._row_ids.append, self._row_at.append, self._row_n.append
        last, drop, seen = size - _LONG.size, self._drop_at, self._seen
        while at <= last:
            head = m[at : at + _LONG.size]
            known = seen.get(head)  # most chunks begin as another has begun
            if known:
                number, n, length = known
                end = at + 5 + length
                if end > size:
                    break
            else:
                width, length, tag, number, count_width, n = _LONG.unpack(head)
                if width == 1:
                    _, length, tag, number, count_width, n = _SHORT.unpack_from(head)
                    end = at + 2 + length
                else:
                    end = at + 5 + length
                if (
                    tag != TAG_SAMPLES
                    or number not in units
                    or n * units[number] != length - 11
                    or count_width != 4
                    or not n
                    or width not in (1, 4)
                    or end > size
                ):
                    break
                if width == 4 and len(seen) < _MANY:
                    seen[head] = number, n, length
            ids(number)
            begins(at)
            counts(n)
            at = end
            if at > drop:
                self._drop()
                drop = self._drop_at = at + BLOCK
        return at

    def _drop(self) -> None:
        """Take the file's pages out of this process's memory; the system still has them."""
        self._touched = 0
        if hasattr(self._map, "madvise"):  # Windows trims by itself
            self._map.madvise(mmap.MADV_DONTNEED)

    def _take(self, at: int, content: int, end: int, early: array[int]) -> None:
        """One chunk whose length fits into the file."""
        m = self._map
        tag = int.from_bytes(m[content : content + 2], "little")
        begin = content + 2
        number = 0
        if tag in (TAG_STREAM_HEADER, TAG_SAMPLES, TAG_OFFSET, TAG_STREAM_FOOTER):
            begin += 4
            if begin > end:
                raise _DamageError("chunk too short for its stream id")
            number = int.from_bytes(m[content + 2 : begin], "little")
        if tag == TAG_SAMPLES:
            self._samples(at, content, end, early)
            return
        good = True
        if tag == TAG_OFFSET:
            if end - begin != 16:
                raise _DamageError(f"clock offset of {end - begin} bytes instead of 16")
            good = self._offset(number, at, begin)
        elif tag == TAG_STREAM_HEADER:
            good = self._header(number, at, begin, end)
        elif tag == TAG_STREAM_FOOTER:
            good = self._footer(number, at, begin, end)
        elif tag == TAG_BOUNDARY:
            if m[begin:end] != BOUNDARY:
                raise _DamageError("boundary chunk without its signature")
        elif tag != TAG_FILE_HEADER:
            raise _DamageError(f"unknown chunk tag {tag}")
        if good:
            self._others.append(at)

    def _offset(self, number: int, at: int, begin: int) -> bool:
        pair = struct.unpack("<2d", self._map[begin : begin + 16])
        if not (math.isfinite(pair[0]) and math.isfinite(pair[1])):
            self._found(at, f"clock offset of stream {number} is not finite; left out")
            return False
        if max(map(abs, pair)) > MAX_SECONDS:
            self._found(at, f"clock offset of stream {number} is not believable; left out")
            return False
        self._offset_ids.append(number)
        self._offset_pairs.extend(pair)
        return True

    def _footer(self, number: int, at: int, begin: int, end: int) -> bool:
        if number not in self._headers and len(self._footer_counts) >= MAX_CHANNELS:
            return False
        try:
            footer = parse_xml(self._xml(begin, end))
            self._footer_counts[number] = int(child_text(footer, "sample_count") or -1)
        except ValueError as error:
            self._found(at, f"footer of stream {number} is not readable ({error}); left out")
            return False
        return True

    def _xml(self, begin: int, end: int) -> str:
        if end - begin > 4 * MAX_XML:  # not even copied: no character takes more than four bytes
            raise ValueError(f"{end - begin} bytes of XML")
        return self._map[begin:end].decode("utf-8", "replace")

    def _header(self, number: int, at: int, begin: int, end: int) -> bool:
        self._seen.clear()
        if number not in self._headers and len(self._headers) >= MAX_STREAMS:
            if not self._too_many:  # said once, and not one of them taken apart
                self._too_many = True
                self._found(at, f"stream {number} is beyond {MAX_STREAMS} streams; it and all that follow are left out")
            if len(self._refused) < MAX_CHANNELS:
                self._refused.add(number)
            return False
        try:
            stream = _stream(number, self._xml(begin, end), MAX_CHANNELS - self._claimed)
        except (_DamageError, ValueError) as damage:
            self._found(at, f"stream {number}: {damage}; its samples are left out")
            if len(self._refused) < MAX_CHANNELS:
                self._refused.add(number)
                self._units.pop(number, None)
            return False
        known = self._headers.get(number)
        if known is None:
            self._headers[number] = stream
            self._claimed += max(1, len(stream.channels))
            if stream.format != "string" and number not in self._refused:
                self._units[number] = 9 + len(stream.channels) * FORMATS[stream.format].itemsize
        else:
            same = (known.format, len(known.channels)) == (stream.format, len(stream.channels))
            self._found(at, f"stream {number} has a second header; " + ("ignored" if same else "its samples left out"))
            if not same:
                self._refused.add(number)
                self._units.pop(number, None)
        return known is None

    def _samples(self, at: int, content: int, end: int, early: array[int] | None) -> None:
        """Enter a Samples chunk into the index after checking that its count can be true."""
        number = int.from_bytes(self._map[content + 2 : content + 6], "little")
        if number in self._refused:
            return
        stream = self._headers.get(number)
        if stream is None:
            if early is None:
                self._found(at, f"samples of stream {number}, which has no header; left out")
            else:
                early.append(at)
            return
        try:
            n, first = self._varlen(content + 6, end)
        except _DamageError:
            raise _DamageError(f"samples of stream {number} without their count") from None
        room = end - first
        if stream.format == "string":
            # A text is at least its length: one byte of width, one of value.
            fits = n * (1 + 2 * len(stream.channels)) <= room and (n > 0 or room == 0)
        else:
            spare = room - n * (1 + len(stream.channels) * FORMATS[stream.format].itemsize)
            fits = 0 <= spare <= 8 * n and spare % 8 == 0
        if not fits:
            raise _DamageError(f"{n} samples of stream {number} do not fit {room} bytes")
        if n:
            self._row_ids.append(number)
            self._row_at.append(at)
            self._row_n.append(n)

    # -- what there is -----------------------------------------------------------------------------------------------

    @property
    def size(self) -> int:
        """Bytes."""
        return len(self._map)

    def __len__(self) -> int:
        """Samples chunks."""
        return len(self._ids)

    def chunk(self, index: int) -> tuple[int, int, int]:
        """Stream id, byte offset and number of samples of one chunk."""
        return int(self._ids[index]), int(self._at[index]), int(self._n[index])

    def chunks_of(self, stream_id: int) -> NDArray[np.int64]:
        """The numbers of a stream's chunks, in file order."""
        return self._chunks[stream_id]

    def samples(self, stream_id: int) -> int:
        return self._counts[stream_id]

    def offsets(self, stream_id: int) -> NDArray[np.float64]:
        """The recorded clock offsets (k, 2) as they are: time on the stream's clock, offset; seconds."""
        return self._offsets.get(stream_id, np.empty((0, 2))).copy()

    def used_offsets(self, stream_id: int) -> NDArray[np.float64]:
        """The same without the last one where it is corrupt: those that synchronise the stream."""
        pairs = self.offsets(stream_id)
        return pairs[:-1] if self._ends_corrupt(stream_id, pairs) else pairs

    def _ends_corrupt(self, number: int, pairs: NDArray[np.float64]) -> bool:
        beyond = 0 <= self._footer_counts.get(number, -1) < self._counts[number]
        return beyond and last_is_corrupt(pairs[:, 0], pairs[:, 1])

    def raw_chunks(self) -> Iterator[tuple[int, int, int, bytes]]:
        """Every chunk that is whole, in file order: tag, stream id, number, content.

        The id is 0 where a tag has none, the number -1 but for samples. The content is what follows tag and id; of
        stream headers there are only those in ``streams``.
        """
        size = len(self._map)
        places = np.concatenate([self._at, np.frombuffer(self._others, dtype=np.int64)])
        for place in np.argsort(places, kind="stable").tolist():
            length, begin = self._varlen(int(places[place]), size)
            if self._touched > BLOCK:
                self._drop()
            self._touched += length + _PAGES
            tag = int.from_bytes(self._map[begin : begin + 2], "little")
            has_id = tag in (TAG_STREAM_HEADER, TAG_SAMPLES, TAG_OFFSET, TAG_STREAM_FOOTER)
            number = int.from_bytes(self._map[begin + 2 : begin + 6], "little") if has_id else 0
            index = place if place < len(self._at) else -1
            yield tag, number, index, self._map[begin + (6 if has_id else 2) : begin + length]

    # -- decoding ----------------------------------------------------------------------------------------------------

    def decode(self, index: int, *, synchronised: bool = True) -> tuple[NDArray[np.float64], Values]:
        """Stamps (n,) and values (n, channels) of one chunk, in memory of their own.

        ``synchronised`` puts the stamps on the recorder's clock by the clock offsets. A chunk whose content turns out
        to be damaged gives no samples and one finding.
        """
        number, offset, n = self.chunk(index)
        stream = self._headers[number]
        try:
            if index in self._bad:
                raise _DamageError
            times, values = self._decode(index, stream, *self._content(index), n)
        except _DamageError as damage:
            if index not in self._bad:
                self._bad.add(index)
                self._found(offset, f"{damage} in samples of stream {stream.id}; chunk left out")
            kind = np.dtype(object) if stream.format == "string" else FORMATS[stream.format]
            return np.empty(0), np.empty((0, len(stream.channels)), kind)
        return self._synchronise(stream.id, int(self._first[index]), times, values) if synchronised else (times, values)

    def _content(self, index: int) -> tuple[int, int]:
        """First byte of a chunk's samples and the byte after them; sees to it that not too much stays in memory."""
        at = int(self._at[index])
        length, content = self._varlen(at, len(self._map))
        end = content + length
        _, begin = self._varlen(content + 6, end)
        if self._touched > BLOCK:
            self._drop()
        self._touched += end - at if abs(at - self._reached) < _PAGES else end - at + _PAGES
        self._reached = end
        return begin, end

    def _decode(
        self, index: int, stream: XdfStream, begin: int, end: int, n: int
    ) -> tuple[NDArray[np.float64], Values]:
        if stream.format == "string":
            return self._decode_strings(index, stream, begin, end, n)
        plain, channels = FORMATS[stream.format], len(stream.channels)
        width = channels * plain.itemsize
        if end - begin == n * (9 + width):
            layout = np.dtype([("flag", "u1"), ("time", "<f8"), ("value", plain.newbyteorder("<"), (channels,))])
            records = np.frombuffer(self._map, layout, n, begin)
            if (records["flag"] == 8).all():
                return records["time"].astype(np.float64), records["value"].astype(plain)
            raise _DamageError("a stamp that is neither there nor omitted")
        times = np.empty(n)
        raw = bytearray(n * width)
        at = begin
        for i, (stamp, at) in enumerate(self._stamps(index, stream, begin, end, n, width)):
            times[i] = stamp
            raw[i * width : (i + 1) * width] = self._map[at : at + width]
        if at + width != end and n:
            raise _DamageError(f"{end - at - width} bytes too many")
        return times, np.frombuffer(raw, plain.newbyteorder("<")).astype(plain).reshape(n, channels)

    def _stamps(
        self, index: int, stream: XdfStream, begin: int, end: int, n: int, width: int
    ) -> Iterator[tuple[float, int]]:
        """Stamp and byte of the values of each sample, where some stamps are omitted and all samples ``width`` wide."""
        m, at = self._map, begin
        step = 1.0 / stream.rate if stream.rate > 0 else 0.0
        last: float | None = None
        for _ in range(n):
            flag = m[at] if at < end else -1
            if flag == 8 and at + 9 + width <= end:
                last = struct.unpack_from("<d", m, at + 1)[0]
                at += 9
            elif flag == 0 and at + 1 + width <= end:
                last = (self._last_before(index) if last is None else last) + step
                at += 1
            else:
                raise _DamageError("a stamp that is neither there nor omitted")
            yield last, at
            at += width

    def _last_before(self, index: int) -> float:
        """The last stamp of the stream before this chunk, for a chunk that begins with an omitted stamp."""
        stream = self._headers[int(self._ids[index])]
        own = self._chunks[stream.id]
        place = int(np.searchsorted(own, index)) - 1
        chain = []
        while place >= 0 and (k := int(own[place])) not in self._last_stamps:
            chain.append(k)
            # A chunk that begins with an explicit stamp stands on its own.
            if self._map[self._content(k)[0]] == 8:
                break
            place -= 1
        for k in reversed(chain):
            times, _ = self.decode(k, synchronised=False)
            before = self._last_stamps.get(int(own[place]), 0.0) if place >= 0 else 0.0
            self._last_stamps[k] = float(times[-1]) if len(times) else before
            place = int(np.searchsorted(own, k))
        return self._last_stamps[int(own[place])] if place >= 0 else 0.0

    def _decode_strings(
        self, index: int, stream: XdfStream, begin: int, end: int, n: int
    ) -> tuple[NDArray[np.float64], Values]:
        m, at, channels = self._map, begin, len(stream.channels)
        step = 1.0 / stream.rate if stream.rate > 0 else 0.0
        times, values = np.empty(n), np.empty((n, channels), dtype=object)
        last: float | None = None
        for i in range(n):
            flag = m[at] if at < end else -1
            if flag == 8 and at + 9 <= end:
                last = struct.unpack_from("<d", m, at + 1)[0]
                at += 9
            elif flag == 0:
                last = (self._last_before(index) if last is None else last) + step
                at += 1
            else:
                raise _DamageError("a stamp that is neither there nor omitted")
            times[i] = last
            for channel in range(channels):
                length, at = self._varlen(at, end)
                if length > end - at:
                    raise _DamageError(f"a text of {length} bytes where {end - at} are left")
                values[i, channel] = m[at : at + min(length, MAX_STRING)].decode("utf-8", "replace")
                at += length
        return times, values

    def read(self, stream_id: int, *, synchronised: bool = True) -> tuple[NDArray[np.float64], Values]:
        """All stamps (n,) and values (n, channels) of a stream."""
        if stream_id not in self._headers:
            raise XdfError(f"{self.path}: no stream {stream_id}. There are {sorted(self._headers)}.")
        stream = self._headers[stream_id]
        if stream.format != "string":
            return self._read_numbers(stream, synchronised=synchronised)
        parts = [self.decode(int(k), synchronised=synchronised) for k in self._chunks[stream_id]]
        if not parts:
            return np.empty(0), np.empty((0, len(stream.channels)), object)
        return np.concatenate([times for times, _ in parts]), np.concatenate([values for _, values in parts])

    def _read_numbers(self, stream: XdfStream, *, synchronised: bool) -> tuple[NDArray[np.float64], Values]:
        own, count = self._chunks[stream.id], self._counts[stream.id]
        plain, channels = FORMATS[stream.format], len(stream.channels)
        times, values = np.empty(count), np.empty((count, channels), plain)
        firsts, begins, counts = self._first[own], self._at[own], self._n[own]
        layout = np.dtype([("flag", "u1"), ("time", "<f8"), ("value", plain.newbyteorder("<"), (channels,))])
        odd: list[int] = []
        a = 0
        while a < len(own):
            # Chunks that begin alike at the same distance from each other are taken out together.
            at, n = int(begins[a]), int(counts[a])
            first, end = self._content(int(own[a]))
            b, step = self._alike(begins, counts, a, first - at)
            self._touched += int(begins[b - 1]) - at
            if end - first == n * layout.itemsize:
                records = np.ndarray((b - a, n), layout, self._map, first, (step, layout.itemsize))
                if (records["flag"] == 8).all():
                    place = slice(int(firsts[a]), int(firsts[a]) + (b - a) * n)
                    times[place].reshape(b - a, n)[...] = records["time"]
                    values[place].reshape(b - a, n, channels)[...] = records["value"]
                    a = b
                    continue
            odd.extend(range(a, b))
            a = b
        kept = np.ones(count, dtype=np.bool_) if odd else None
        for k in odd:
            place = slice(int(firsts[k]), int(firsts[k] + counts[k]))
            some_times, some_values = self.decode(int(own[k]), synchronised=False)
            if len(some_times):
                times[place], values[place] = some_times, some_values
            elif kept is not None:
                kept[place] = False
        if synchronised:
            times, values = self._synchronise(stream.id, 0, times, values)
        if kept is not None and not kept.all():
            kept = kept[: len(times)]
            times, values = times[kept], values[kept]
        return times, values

    def _alike(self, begins: NDArray[np.int64], counts: NDArray[np.int64], a: int, head: int) -> tuple[int, int]:
        """The end of the chunks that begin with the same ``head`` bytes as chunk ``a``, and the bytes between two."""
        most = min(a + _TOGETHER, len(begins), int(np.searchsorted(begins, begins[a] + BLOCK, side="right")))
        steps = np.diff(begins[a:most])
        if not len(steps):
            return a + 1, 0
        same = (steps == steps[0]) & (counts[a + 1 : most] == counts[a])
        k = 1 + (len(same) if same.all() else int(same.argmin()))
        heads = np.ndarray((k, head), np.uint8, self._map, int(begins[a]), (int(steps[0]), 1))
        alike = (heads == heads[0]).all(axis=1)
        return a + (k if alike.all() else int(alike.argmin())), int(steps[0])

    def chunks(self, *, synchronised: bool = True) -> Iterator[tuple[int, NDArray[np.float64], Values]]:
        """Stream id, stamps and values of every chunk, in file order."""
        for index in range(len(self)):
            times, values = self.decode(index, synchronised=synchronised)
            yield int(self._ids[index]), times, values

    # -- one clock ---------------------------------------------------------------------------------------------------

    def _synchronise(
        self, number: int, first: int, times: NDArray[np.float64], values: Values
    ) -> tuple[NDArray[np.float64], Values]:
        if number not in self._lines:
            self._lines[number] = self._fit(number)
        limit = max(0, self._limits.get(number, first + len(times)) - first)
        times, values = times[:limit], values[:limit]
        lines = self._lines[number]
        if len(lines) == 1:
            return lines[0][1].apply(times), values
        if lines:
            times = times.copy()
            ends = [start for start, _ in lines[1:]] + [first + len(times)]
            for (start, line), end in zip(lines, ends, strict=True):
                part = slice(max(0, start - first), max(0, end - first))
                times[part] = line.apply(times[part])
        return times, values

    def _fit(self, number: int) -> list[tuple[int, Line]]:
        """Lines and the sample from which each holds; empty when there is nothing to correct."""
        pairs = self.offsets(number)
        if self._ends_corrupt(number, pairs):
            count = self._footer_counts[number]
            pairs = pairs[:-1]
            self._limits[number] = count
            self._found(
                int(self._at[self._chunks[number][-1]]),
                f"the last clock offset of stream {number} is corrupt; {self._counts[number] - count} samples beyond "
                "its footer's count are left out",
            )
        if not np.any(pairs[:, 1]):
            return []
        parts = segments(pairs[:, 0], pairs[:, 1])
        lines = [robust_line(pairs[part, 0], pairs[part, 1]) for part in parts]
        if len(lines) == 1:
            return [(0, lines[0])]
        # Within each stretch the stamps are nearer to its last measurement than to the next stretch's first.
        turns = [(pairs[a.stop - 1, 0], pairs[b.start, 0]) for a, b in itertools.pairwise(parts)]
        starts = [0]
        chunks, at, times = iter(self._chunks[number].tolist()), 0, np.empty(0)
        for end, begin in turns:
            while True:
                beyond = np.abs(times - end) >= np.abs(times - begin)
                if beyond.any():
                    skip = int(beyond.argmax())
                    at, times = at + skip, times[skip:]
                    break
                at += len(times)
                if (index := next(chunks, None)) is None:
                    times = np.empty(0)
                    at = self._counts[number]
                    break
                at = int(self._first[index])
                times, _ = self.decode(index, synchronised=False)
            starts.append(at)
        return list(zip(starts, lines, strict=True))

    def span(self, stream_id: int) -> tuple[float, float] | None:
        """First and last stamp in file order, synchronised; None for a stream without samples."""
        ends: list[float] = []
        for order in (1, -1):
            for index in self._chunks[stream_id][::order]:
                times, _ = self.decode(int(index))
                if len(times):
                    ends.append(float(times[::order][0]))
                    break
        return (ends[0], ends[1]) if len(ends) == 2 else None

    def close(self) -> None:
        # A map cannot be closed while something looks into it, such as the frame of an error; it goes with the last.
        with contextlib.suppress(BufferError):
            self._map.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

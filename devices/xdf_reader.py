"""Reading XDF 1.0: an index of the file, and every chunk decoded only where it is asked for.

Survives truncation, damage, disorder and counts that were made up. Stamps are never dejittered: a gap stays where it
was. Format: https://github.com/sccn/xdf/wiki/Specifications.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import math
import mmap
import stat
import struct
import sys
from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Self, TypeAlias, cast

import numpy as np
from numpy.typing import NDArray

from devices.xdf_layout import (
    ANNOUNCED,
    BOUNDARY,
    FORMATS,
    MAGIC,
    MAX_XML,
    SESSION_NAME,
    SESSION_TYPE,
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
from devices.xdf_sync import MAX_SECONDS, Line, are_times, last_is_corrupt, robust_line, segments

Values: TypeAlias = NDArray[np.generic]
"""(n, channels): the stream's number format, or objects that are str."""

MAX_CHANNELS = 65_536
"""In all streams together, a stream without channels as one: a header costs memory by what it claims."""
MAX_STREAMS = 1024
"""Of one file; recorders know a few dozen."""
MAX_STRING = 1 << 20
MAX_FINDINGS = 100
BLOCK = 32 << 20
"""Bytes of the file that are in this process's memory at a time, about: pages of a map count as its own."""
_TOGETHER = 256  # chunks decoded in one step
_BATCH = 4096  # chunks, and ...
_BATCH_SAMPLES = 1 << 18  # ... samples, that are made ready in one go
_FEW = 32  # samples: fewer are taken out one after the other, without arrays
_TEXTS = 4096  # different short texts that are kept only once
_PAGES = 1 << 16  # what the system maps around a byte that is asked for
# The beginning of a samples chunk as all writers known make it: length in 4 bytes or 1, tag, stream, count in 4 bytes.
_MANY = 10_000  # different beginnings that are remembered
_LONG, _SHORT = struct.Struct("<BIHIBI"), struct.Struct("<BBHIBI")
_STAMP = struct.Struct("<d")
_NO_FLAG = "a stamp that is neither there nor omitted"


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

    @property
    def is_session(self) -> bool:
        """Whether its texts are the events of a session: then the file is a record that insula made."""
        return self.type == SESSION_TYPE and self.name == SESSION_NAME and self.format == "string"

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


def _kind(stream: XdfStream) -> np.dtype[np.generic]:
    return np.dtype(object) if stream.format == "string" else FORMATS[stream.format]


@functools.lru_cache(maxsize=64)
def _layout(fmt: str, channels: int) -> np.dtype[np.void]:
    """A sample with its stamp as it is in the file."""
    return np.dtype([("flag", "u1"), ("time", "<f8"), ("value", FORMATS[fmt].newbyteorder("<"), (channels,))])


class _Sink:
    """Where the samples of a stream go: ``times`` (n,), and ``values`` (n, channels) unless only stamps are wanted."""

    def __init__(self, stream: XdfStream, times: NDArray[np.float64], values: Values | None = None) -> None:
        self.times, self.values = times, values
        self.stamps = cast("memoryview[float]", times.data)
        self.texts: dict[bytes, str] = {}
        self.raw: memoryview | None = None
        if stream.format != "string":
            self.layout = _layout(stream.format, len(stream.channels))
            self.width = self.layout.itemsize - 9
            if values is not None and values.size:
                self.raw = values.view(np.uint8).reshape(-1).data


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
        # Of streams that needed it: the last stamp up to each chunk, and 1 where it is known.
        self._last_stamps: dict[int, tuple[NDArray[np.float64], bytearray]] = {}
        self._bad = bytearray()  # 1 for each chunk that turned out to be damaged
        self._map = self._open()
        try:
            self._index()
        except BaseException:
            self.close()
            raise

    def _open(self) -> mmap.mmap:
        try:
            kind = self.path.stat().st_mode
            if not (stat.S_ISREG(kind) or stat.S_ISDIR(kind)):  # opening a pipe would wait for somebody to write
                raise XdfError(f"{self.path}: is no regular file but a pipe or a device. Copy it to a file first.")
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
        if at + 2 <= end and m[at] == 1:  # the usual case of what there is most of
            return m[at + 1], at + 2
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

    def announced(self) -> dict[int, XdfStream]:
        """The streams of numbers that a record of insula announces, and of which no sample came: by id."""
        found: dict[int, XdfStream] = {}
        claimed = self._claimed
        for session in [stream for stream in self._headers.values() if stream.is_session]:
            for element in parse_xml(session.header).findall(f"desc/{ANNOUNCED}/*"):
                digits = element.tag.removeprefix("stream")
                number = int(digits) if digits.isdecimal() and len(digits) < 10 else 0
                if not number or number in self._headers or number in found or len(found) >= MAX_STREAMS:
                    continue
                with contextlib.suppress(_DamageError):
                    found[number] = _stream(number, element.text or "", MAX_CHANNELS - claimed)
                    claimed += max(1, len(found[number].channels))
        return found

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
        number, _, n = self.chunk(index)
        stream = self._headers[number]
        times, values = np.empty(n), np.empty((n, len(stream.channels)), _kind(stream))
        if self._decode(index, stream, n, 0.0, _Sink(stream, times, values), 0, alone=True) is None:
            return times[:0], values[:0]
        return self._synchronise(stream.id, int(self._first[index]), times, values) if synchronised else (times, values)

    def _decode(
        self, index: int, stream: XdfStream, n: int, last: float, sink: _Sink, place: int, *, alone: bool = False
    ) -> float | None:
        """A chunk into ``sink`` from sample ``place`` on; its last stamp, None when it is damaged.

        ``last`` is the stamp before it, unless the chunk is asked for ``alone``.
        """
        if self._bad and self._bad[index]:
            return None
        begin, end = self._content(index)
        if alone and begin < end and not self._map[begin]:
            last = self._last_before(index)
        try:
            if stream.format == "string":
                return self._decode_texts(stream, begin, end, n, last, sink, place)
            return self._decode_numbers(stream, begin, end, n, last, sink, place)
        except _DamageError as damage:
            self._bad = self._bad or bytearray(len(self))
            self._bad[index] = 1
            self._found(int(self._at[index]), f"{damage} in samples of stream {stream.id}; chunk left out")
            return None

    def _content(self, index: int) -> tuple[int, int]:
        """First byte of a chunk's samples and the byte after them; sees to it that not too much stays in memory."""
        at, m = int(self._at[index]), self._map
        if m[at] == 1:
            length, content = m[at + 1], at + 2
        else:
            length, content = self._varlen(at, len(m))
        end = content + length
        begin = content + 7 + m[content + 6]
        if self._touched > BLOCK:
            self._drop()
        self._touched += end - at if abs(at - self._reached) < _PAGES else end - at + _PAGES
        self._reached = end
        return begin, end

    def _decode_numbers(
        self, stream: XdfStream, begin: int, end: int, n: int, last: float, sink: _Sink, place: int
    ) -> float:
        m, at, width = self._map, begin, sink.width
        step = 1.0 / stream.rate if stream.rate > 0 else 0.0
        if n >= _FEW and end - begin == n * (9 + width):
            records = np.ndarray(n, sink.layout, m, begin)
            if not (records["flag"] == 8).all():
                raise _DamageError(_NO_FLAG)
            sink.times[place : place + n] = records["time"]
            if sink.values is not None:
                sink.values[place : place + n] = records["value"]
            return float(records["time"][-1])
        stamps, raw, stamp_at = sink.stamps, sink.raw, _STAMP.unpack_from
        for i in range(place, place + n):
            flag = m[at] if at < end else -1
            if flag == 8 and at + 9 + width <= end:
                (last,) = stamp_at(m, at + 1)
                at += 9
            elif flag == 0 and at + 1 + width <= end:
                last += step
                at += 1
            else:
                raise _DamageError(_NO_FLAG)
            stamps[i] = last
            if raw is not None:
                raw[i * width : (i + 1) * width] = m[at : at + width]
            at += width
        if at != end:
            raise _DamageError(f"{end - at} bytes too many")
        if raw is not None and sys.byteorder == "big" and sink.values is not None:
            sink.values[place : place + n].byteswap(inplace=True)
        return last

    def _decode_texts(
        self, stream: XdfStream, begin: int, end: int, n: int, last: float, sink: _Sink, place: int
    ) -> float:
        m, at, channels = self._map, begin, range(len(stream.channels))
        step = 1.0 / stream.rate if stream.rate > 0 else 0.0
        stamps, values, texts = sink.stamps, sink.values, sink.texts
        for i in range(place, place + n):
            flag = m[at] if at < end else -1
            if flag == 8 and at + 9 <= end:
                (last,) = _STAMP.unpack_from(m, at + 1)
                at += 9
            elif flag == 0:
                last += step
                at += 1
            else:
                raise _DamageError(_NO_FLAG)
            stamps[i] = last
            for channel in channels:
                length, at = self._varlen(at, end)
                if length > end - at:
                    raise _DamageError(f"a text of {length} bytes where {end - at} are left")
                if values is not None:
                    raw = m[at : at + min(length, MAX_STRING)]
                    text = texts.get(raw)
                    if text is None:
                        text = raw.decode("utf-8", "replace")
                        if length < 256 and len(texts) < _TEXTS:
                            texts[raw] = text
                    values[i, channel] = text
                at += length
        return last

    def _last_before(self, index: int) -> float:
        """The last stamp of the stream before this chunk, for a chunk that begins with an omitted stamp."""
        stream = self._headers[int(self._ids[index])]
        own = self._chunks[stream.id]
        if stream.id not in self._last_stamps:
            self._last_stamps[stream.id] = np.zeros(len(own)), bytearray(len(own))
        stamps, known = self._last_stamps[stream.id]
        here = place = int(np.searchsorted(own, index))
        while place > 0 and not known[place - 1]:
            place -= 1
            # A chunk that begins with a stamp stands on its own, unless it is damaged further on.
            if self._map[self._content(int(own[place]))[0]] == 8 and self._pass(stream, place, 0.0) is not None:
                place += 1
                break
        last = float(stamps[place - 1]) if place else 0.0
        for k in range(place, here):
            end_of = self._pass(stream, k, last)
            last = last if end_of is None else end_of
            stamps[k], known[k] = last, 1
        return last

    def _pass(self, stream: XdfStream, place: int, last: float) -> float | None:
        """The last stamp of a chunk of a stream, None when it is damaged."""
        index = int(self._chunks[stream.id][place])
        n = int(self._n[index])
        end_of = self._decode(index, stream, n, last, _Sink(stream, np.empty(n)), 0)
        if end_of is not None:
            stamps, known = self._last_stamps[stream.id]
            stamps[place], known[place] = end_of, 1
        return end_of

    def read(self, stream_id: int, *, synchronised: bool = True) -> tuple[NDArray[np.float64], Values]:
        """All stamps (n,) and values (n, channels) of a stream."""
        if stream_id not in self._headers:
            raise XdfError(f"{self.path}: no stream {stream_id}. There are {sorted(self._headers)}.")
        stream = self._headers[stream_id]
        count = self._counts[stream_id]
        times, values = np.empty(count), np.empty((count, len(stream.channels)), _kind(stream))
        kept: NDArray[np.bool_] | None = None
        for first, _, some in self._batches(stream, times, values):
            if some is not None:
                kept = np.ones(count, dtype=np.bool_) if kept is None else kept
                kept[first : first + len(some)] = some
        if synchronised:
            times, values = self._synchronise(stream_id, 0, times, values)
        if kept is not None:
            kept = kept[: len(times)]
            times, values = times[kept], values[kept]
        return times, values

    def stamps(self, stream_id: int) -> Iterator[tuple[int, NDArray[np.float64], NDArray[np.bool_]]]:
        """All stamps of a stream, synchronised, in file order and some thousand at a time.

        Number of the first sample, stamps (n,), and whether the sample can be read (n,): the others are in chunks that
        are damaged, and their stamps NaN.
        """
        stream = self._headers[stream_id]
        for first, times, kept in self._batches(stream):
            there = np.ones(len(times), dtype=np.bool_) if kept is None else kept
            moved, _ = self._synchronise(stream_id, first, times, there)
            yield first, moved, there[: len(moved)]

    def byte_of(self, stream_id: int, sample: int) -> int:
        """Where in the file the chunk with this sample of a stream begins."""
        own = self._chunks[stream_id]
        return int(self._at[own[np.searchsorted(self._first[own], sample, side="right") - 1]])

    def _batches(
        self, stream: XdfStream, times: NDArray[np.float64] | None = None, values: Values | None = None
    ) -> Iterator[tuple[int, NDArray[np.float64], NDArray[np.bool_] | None]]:
        """Every chunk of a stream: number of the first sample, stamps as stored, and which samples are not damaged.

        Stamps and values go into ``times`` and ``values`` of the whole stream where they are given, else the stamps
        into arrays of each batch, and values nowhere.
        """
        own = self._chunks[stream.id]
        last = 0.0
        whole = None if times is None else _Sink(stream, times, values)
        a = 0
        while a < len(own):
            some = own[a : a + _BATCH]
            counts = self._n[some]
            some = some[: max(1, int(np.searchsorted(np.cumsum(counts), _BATCH_SAMPLES, side="right")))]
            counts = counts[: len(some)]
            first, n = int(self._first[some[0]]), int(counts.sum())
            sink = whole or _Sink(stream, np.empty(n))
            start = first if whole else 0
            kept: NDArray[np.bool_] | None = None
            for begin, end, end_of in self._pull(stream, some, counts, last, sink, start):
                if end_of is not None:
                    last = end_of
                    continue
                if kept is None:
                    kept = np.ones(n, dtype=np.bool_)
                kept[begin - start : end - start] = False
                sink.times[begin:end] = np.nan
            yield first, sink.times[start : start + n], kept
            a += len(some)

    def _pull(
        self, stream: XdfStream, some: NDArray[np.int64], counts: NDArray[np.int64], last: float, sink: _Sink, at: int
    ) -> Iterator[tuple[int, int, float | None]]:
        """Decode ``some`` chunks of a stream into ``sink`` from sample ``at`` on.

        Gives first and end of the samples of one or more chunks and the last stamp of them, None where damaged.
        """
        indices, many = some.tolist(), counts.tolist()
        edges = self._runs(some, counts) if stream.format != "string" else [*range(1, len(many) + 1)]
        a = 0
        for b in edges:
            n = many[a]
            while b - a > 1 and (b - a) * n >= _FEW:
                # Chunks that begin alike at the same distance from each other are taken out together.
                k, newest = self._together(some[a : min(b, a + _TOGETHER)], n, sink, at)
                if not k:
                    break
                last = newest
                yield at, at + k * n, last
                a, at = a + k, at + k * n
            for place in range(a, b):
                n = many[place]
                end_of = self._decode(indices[place], stream, n, last, sink, at)
                last = last if end_of is None else end_of
                yield at, at + n, end_of
                at += n
            a = b

    def _runs(self, some: NDArray[np.int64], counts: NDArray[np.int64]) -> list[int]:
        """The end of each run of chunks of as many samples at the same distance from each other."""
        begins = self._at[some]
        steps = np.diff(begins)
        steps[counts[1:] != counts[:-1]] = -1
        edges, a = [], 0
        turns = [*(np.flatnonzero(np.diff(steps)) + 1).tolist(), len(steps)] if len(steps) else []
        apart = (steps < 0).tolist()
        for turn in turns:  # steps are alike up to here
            while a < turn:
                a = a + 1 if apart[a] else turn + 1
                edges.append(a)
        if a < len(some):
            edges.append(len(some))
        return edges

    def _together(self, some: NDArray[np.int64], n: int, sink: _Sink, place: int) -> tuple[int, float]:
        """Decode those of ``some`` chunks at the same distance that begin like the first; how many, and their last
        stamp. 0 where they have to be looked at one by one."""
        begins = self._at[some]
        at, step = int(begins[0]), int(begins[1] - begins[0])
        begins = begins[: int(np.searchsorted(begins, at + BLOCK, side="right"))]
        first, end = self._content(int(some[0]))
        if end - first != n * sink.layout.itemsize:
            return 0, 0.0
        heads = np.ndarray((len(begins), first - at), np.uint8, self._map, at, (step, 1))
        alike = (heads == heads[0]).all(axis=1)
        k = len(begins) if alike.all() else int(alike.argmin())
        self._touched += (k - 1) * step
        records = np.ndarray((k, n), sink.layout, self._map, first, (step, sink.layout.itemsize))
        if not (records["flag"] == 8).all():
            return 0, 0.0
        sink.times[place : place + k * n].reshape(k, n)[...] = records["time"]
        if sink.values is not None:
            sink.values[place : place + k * n].reshape(k, n, sink.values.shape[1])[...] = records["value"]
        return k, float(records["time"][-1, -1])

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
        at, times = 0, np.empty(0)
        batches = self._batches(self._headers[number])
        for end, begin in turns:
            while True:
                beyond = are_times(times) & (np.abs(times - end) >= np.abs(times - begin))
                if beyond.any():
                    skip = int(beyond.argmax())
                    at, times = at + skip, times[skip:]
                    break
                at, times, _ = next(batches, (self._counts[number], np.empty(0), None))
                if at == self._counts[number]:
                    break
            starts.append(at)
        return list(zip(starts, lines, strict=True))

    def span(self, stream_id: int, *, synchronised: bool = True) -> tuple[float, float] | None:
        """First and last stamp that is a time, in file order; None for a stream without any."""
        ends: list[float] = []
        for order in (1, -1):
            for index in self._chunks[stream_id][::order]:
                times, _ = self.decode(int(index), synchronised=synchronised)
                times = times[are_times(times)]
                if len(times):
                    ends.append(float(times[::order][0]))
                    break
            else:
                return None
        return (ends[0], ends[1]) if len(ends) == 2 else None

    def close(self) -> None:
        # A map cannot be closed while something looks into it, such as the frame of an error; it goes with the last.
        with contextlib.suppress(BufferError):
            self._map.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

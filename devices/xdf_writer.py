"""Writing XDF 1.0 so that a crash, a full disk or a power cut costs as little as can be."""

from __future__ import annotations

import errno
import os
import re
import struct
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Self, TypeAlias
from xml.etree import ElementTree as ET

import numpy as np
from numpy.typing import ArrayLike, NDArray

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
    chunk_bytes,
    varlen,
    xml_bytes,
)

Desc: TypeAlias = "Mapping[str, str | Desc]"
"""What goes below ``<desc>``: element name -> text or more of it."""

BOUNDARY_EVERY = 10.0
# What fsync answers where a file system has no such thing; anything else means that data may be lost already.
_NO_FSYNC = frozenset({errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP})
# Characters XML 1.0 has no way to write, and the carriage return, which parsers turn into a line feed.
_NOT_XML = re.compile("[^\t\n\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_ELEMENT_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]*")


def _element(parent: ET.Element, name: str, text: str) -> ET.Element:
    child = ET.SubElement(parent, name)
    child.text = _NOT_XML.sub("\ufffd", text)
    return child


def _fill(parent: ET.Element, content: Desc) -> None:
    for name, inner in content.items():
        if not _ELEMENT_NAME.fullmatch(name):
            raise ValueError(f"desc: {name!r} cannot be the name of an XML element")
        if isinstance(inner, str):
            _element(parent, name, inner)
        else:
            _fill(ET.SubElement(parent, name), inner)


class _Stream:
    """What the writer keeps of a stream until its footer."""

    def __init__(self, layout: np.dtype[np.void] | None, channels: int, plain: np.dtype[np.generic] | None) -> None:
        self.layout = layout
        self.plain = plain
        self.channels = channels
        self.samples = 0
        self.first = self.last = 0.0
        self.header = b""
        self.unwritten = b""
        """Header and offsets that go into the file with the first sample."""


class XdfWriter:
    """A new XDF file that grows by whole chunks. A context manager; used from one thread.

    Each call hands one whole chunk to the operating system before it returns, unbuffered: killing the program loses
    nothing that was written, a power cut at most what came since the last boundary (every 10 s by ``now``, with
    fsync; where that fails, writing goes on and ``sync_problem`` says so). When the disk is full the file is cut back
    to its last whole chunk and XdfError is raised; the writer stays usable, so that a later attempt may succeed. Never
    overwrites. With ``sync_apart`` the fsync of a boundary runs in a thread of its own, so that a slow disk does not
    hold up what comes next. With ``late_headers`` that of a stream of numbers is written with its first samples, as are
    the offsets before them: libxdf 0.99.8 crashes on a header of numbers without a sample. A stream of which none came
    is not in the file then.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        now: Callable[[], float] = time.monotonic,
        created: datetime | None = None,
        sync_apart: bool = False,
        late_headers: bool = False,
    ) -> None:
        self.path = Path(path)
        self._sync_apart = sync_apart
        self._late_headers = late_headers
        self._syncing: threading.Thread | None = None
        self._sync_began = 0.0
        self._joined: list[bytes] | None = None
        self._now = now
        self._streams: dict[int, _Stream] = {}
        self._size = 0
        self.sync_problem = ""
        """One line once the system has failed to confirm that data reach the disk, "" when all is well."""
        flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_APPEND | getattr(os, "O_BINARY", 0)
        try:
            self._file: int | None = os.open(self.path, flags, 0o644)
        except FileExistsError:
            raise XdfError(f"{self.path}: exists already, nothing is overwritten. Choose another name.") from None
        except OSError as error:
            raise XdfError(f"{self.path}: cannot be made ({error.strerror}). Check folder and rights.") from error
        self._boundary_at = now()
        root = ET.Element("info")
        _element(root, "version", "1.0")
        _element(root, "datetime", (created or datetime.now(UTC)).strftime("%Y-%m-%dT%H:%M:%S%z"))
        try:
            self._append(MAGIC + chunk_bytes(TAG_FILE_HEADER, None, xml_bytes(root)))
        except XdfError as error:
            self.discard()  # made above, by this call
            reason = getattr(error.__cause__, "strerror", None) or error
            raise XdfError(
                f"{self.path}: could not be begun ({reason}), there is no file. Free disk space or record elsewhere."
            ) from error
        except BaseException:
            self.discard()
            raise

    @property
    def bytes_written(self) -> int:
        return self._size

    def add_stream(
        self,
        *,
        name: str,
        type: str,  # noqa: A002 - XDF's own word
        channels: Sequence[str],
        rate: float,
        format: str,  # noqa: A002 - XDF's own word
        unit: str = "",
        source_id: str = "",
        desc: Desc | None = None,
    ) -> int:
        """Announce a stream and return its id. May be called at any time before the stream's first samples.

        ``format`` is one of XDF's: float32, double64, int8, int16, int32, int64, string; ``rate`` in Hz, 0.0 when
        irregular; ``desc`` is put below ``<desc>`` beside channels and synchronisation.
        """
        if not name.strip():
            raise ValueError("a stream needs a name: other readers fail without one")
        if not channels:
            raise ValueError(f"{name}: a stream needs channels")
        if format != "string" and format not in FORMATS:
            raise ValueError(f"{name}: {format!r} is not one of {', '.join(FORMATS)}, string")
        if not (np.isfinite(rate) and rate >= 0):
            raise ValueError(f"{name}: {rate} is not a rate in Hz")
        if desc and desc.keys() & {"channels", "synchronization"}:
            raise ValueError(f"{name}: channels and synchronization are described by the writer")
        root = ET.Element("info")
        for tag, text in (
            ("name", name),
            ("type", type),
            ("channel_count", str(len(channels))),
            ("nominal_srate", repr(float(rate))),
            ("channel_format", format),
            ("source_id", source_id),
        ):
            _element(root, tag, text)
        below = ET.SubElement(root, "desc")
        group = ET.SubElement(below, "channels")
        for label in channels:
            channel = ET.SubElement(group, "channel")
            for tag, text in (("label", label), ("unit", unit), ("type", type)):
                _element(channel, tag, text)
        # Without this pyxdf lays one straight line through the stamps and smears every dropout over the recording.
        _element(ET.SubElement(below, "synchronization"), "can_drop_samples", "true")
        _fill(below, desc or {})
        number = len(self._streams) + 1
        plain = FORMATS.get(format)
        layout = None
        if plain is not None:
            layout = np.dtype([("flag", "u1"), ("time", "<f8"), ("value", plain.newbyteorder("<"), (len(channels),))])
        stream = _Stream(layout, len(channels), plain)
        stream.header = xml_bytes(root)
        chunk = chunk_bytes(TAG_STREAM_HEADER, number, stream.header)
        if plain is not None and self._late_headers:
            stream.unwritten = chunk
        else:
            self._write(chunk)
        self._streams[number] = stream
        return number

    def announced(self) -> dict[str, str]:
        """The headers, as XML, that wait for a first sample, by "stream" and id; those that fit into a header."""
        waiting = {f"stream{n}": one.header.decode() for n, one in self._streams.items() if one.unwritten}
        room = MAX_XML // 4  # inside XML each < takes four characters
        return {name: text for name, text in waiting.items() if (room := room - len(text)) > 0}

    def write(self, stream_id: int, times: ArrayLike, values: ArrayLike) -> None:
        """Append one chunk: ``times`` (n,) seconds and ``values`` (n, channels), which the format must be able to hold.

        Nothing is written for n = 0.
        """
        stream = self._streams[stream_id]
        if stream.layout is None or stream.plain is None:
            raise ValueError(f"stream {stream_id} holds texts: use write_strings")
        stamps, samples = np.asarray(times, dtype=np.float64), np.asarray(values)
        if stamps.ndim != 1 or samples.shape != (len(stamps), stream.channels):
            raise ValueError(f"stamps {stamps.shape} and values {samples.shape} do not fit {stream.channels} channels")
        if not np.can_cast(samples.dtype, stream.plain, "same_kind"):
            raise ValueError(f"values {samples.dtype} do not fit a stream of {stream.plain}")
        if not len(stamps):
            return
        records = np.empty(len(stamps), dtype=stream.layout)
        records["flag"] = 8
        records["time"] = stamps
        records["value"] = samples
        self._write_samples(stream_id, stamps, records.tobytes())

    def write_strings(self, stream_id: int, times: ArrayLike, labels: Sequence[str]) -> None:
        """Append one chunk of texts: ``times`` (n,) seconds and as many ``labels``. Nothing is written for n = 0."""
        stream = self._streams[stream_id]
        stamps = np.asarray(times, dtype=np.float64)
        if stream.layout is not None or stream.channels != 1:
            raise ValueError(f"stream {stream_id} is not a string stream of one channel")
        if stamps.shape != (len(labels),):
            raise ValueError(f"{stamps.shape} stamps for {len(labels)} texts")
        if not len(stamps):
            return
        parts = []
        for stamp, label in zip(stamps.tolist(), labels, strict=True):
            text = label.encode("utf-8", "replace")
            parts += [struct.pack("<Bd", 8, stamp), varlen(len(text)), text]
        self._write_samples(stream_id, stamps, b"".join(parts))

    def write_offset(self, stream_id: int, time: float, offset: float) -> None:
        """Append one measured clock offset: ``time`` on the stream's clock, recorder's clock minus stream's clock."""
        if stream_id not in self._streams or not (np.isfinite(time) and np.isfinite(offset)):
            raise ValueError(f"stream {stream_id}: ({time}, {offset}) is not a clock offset")
        chunk = chunk_bytes(TAG_OFFSET, stream_id, struct.pack("<2d", time, offset))
        if self._streams[stream_id].unwritten:
            self._streams[stream_id].unwritten += chunk
        else:
            self._write(chunk)

    @contextmanager
    def together(self) -> Iterator[None]:
        """What is written inside gets into the file whole or not at all, when this ends; not to be nested."""
        before = [(one, one.samples, one.first, one.last, one.unwritten) for one in self._streams.values()]
        self._joined = []
        try:
            yield
            blocks, self._joined = self._joined, None
            if blocks:
                self._append(b"".join(blocks))
        except BaseException:
            self._joined = None
            for stream, samples, first, last, unwritten in before:
                stream.samples, stream.first, stream.last, stream.unwritten = samples, first, last, unwritten
            raise

    def _write_samples(self, number: int, stamps: NDArray[np.float64], content: bytes) -> None:
        stream = self._streams[number]
        self._write(stream.unwritten + chunk_bytes(TAG_SAMPLES, number, struct.pack("<BI", 4, len(stamps)) + content))
        stream.unwritten = b""
        if not stream.samples:
            stream.first = float(stamps[0])
        stream.last = float(stamps[-1])
        stream.samples += len(stamps)

    def _write(self, chunk: bytes) -> None:
        now = self._now()
        if now - self._boundary_at < BOUNDARY_EVERY:
            self._append(chunk)
            return
        # In one piece: an error says that neither of the two is in the file, so a second attempt doubles nothing.
        self._append(chunk_bytes(TAG_BOUNDARY, None, BOUNDARY) + chunk)
        self._boundary_at = now
        if not self._sync_apart:
            self._sync()
        elif not self._is_syncing:  # one that takes longer than this confirms the later ones only in part
            self._syncing = threading.Thread(target=self._sync, name="fsync", daemon=True)
            self._sync_began = now
            self._syncing.start()

    @property
    def _is_syncing(self) -> bool:
        return self._syncing is not None and self._syncing.is_alive()

    @property
    def sync_seconds(self) -> float:
        """How long an fsync in a thread of its own has been running; 0.0 when none is."""
        return self._now() - self._sync_began if self._is_syncing else 0.0

    def _append(self, block: bytes) -> None:
        """Hand a whole chunk to the operating system, or leave the file as it was."""
        if self._file is None:
            raise XdfError(f"{self.path}: is closed, nothing more can be written.")
        if self._joined is not None:
            self._joined.append(block)
            return
        rest = memoryview(block)
        try:
            while rest:  # the system takes a chunk in one piece except where the disk fills or a limit is near
                rest = rest[os.write(self._file, rest) :]
        except OSError as error:
            try:
                os.ftruncate(self._file, self._size)
                kept = "cut back to its last whole chunk"
            except OSError as worse:
                kept = f"could not be cut back ({worse.strerror})"
            raise XdfError(
                f"{self.path}: a chunk of {len(block)} bytes at byte {self._size} could not be written "
                f"({error.strerror}); the file was {kept}. Free disk space or record elsewhere."
            ) from error
        self._size += len(block)

    def _sync(self) -> int:
        """Ask for what was written to reach the disk; 0 or the error's number, which ``sync_problem`` then tells.

        The problem stays: a later fsync that succeeds says nothing of the pages that an earlier one failed to write.
        """
        if self._file is None:
            return 0
        try:
            os.fsync(self._file)
        except OSError as error:
            self.sync_problem = (
                f"{self.path}: the system does not confirm that data reach the disk ({error.strerror}); "
                f"a power cut may cost more than {BOUNDARY_EVERY:g} s"
            )
            return error.errno or errno.EIO
        return 0

    def close(self) -> None:
        """Write the footers, fsync and close. The file is closed even when this raises. May be called again.

        A disk that fails raises; a file system without fsync does not, ``sync_problem`` tells it.
        """
        if self._file is None:
            return
        if self._syncing is not None:
            self._syncing.join()  # it uses the file
        try:
            for number, stream in self._streams.items():
                if stream.unwritten:
                    continue
                root = ET.Element("info")
                _element(root, "first_timestamp", repr(stream.first))
                _element(root, "last_timestamp", repr(stream.last))
                _element(root, "sample_count", str(stream.samples))
                self._append(chunk_bytes(TAG_STREAM_FOOTER, number, xml_bytes(root)))
            if self._sync() not in {0, *_NO_FSYNC}:
                raise XdfError(f"{self.sync_problem}. Check the disk and keep a copy elsewhere.")
        finally:
            file, self._file = self._file, None
            try:
                os.close(file)
            except OSError as error:  # a network's disk may say only now that it is full
                raise XdfError(f"{self.path}: could not be closed ({error.strerror}). Check the disk.") from error

    def discard(self) -> None:
        """Close the file and remove it: nothing was recorded."""
        if self._file is not None:
            file, self._file = self._file, None
            with suppress(OSError):
                os.close(file)
            self.path.unlink(missing_ok=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

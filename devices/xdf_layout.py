"""What the reader and the writer of XDF agree on, and the words insula uses in its own records."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from types import MappingProxyType
from xml.etree import ElementTree as ET

import numpy as np


class XdfError(Exception):
    """A file that cannot be read or written: file, what, where (byte), what to do. One line."""


MAGIC = b"XDF:"
BOUNDARY = bytes.fromhex("43A546DCCBF5410FB30ED5467383CBE4")
TAG_FILE_HEADER, TAG_STREAM_HEADER, TAG_SAMPLES, TAG_OFFSET, TAG_BOUNDARY, TAG_STREAM_FOOTER = range(1, 7)
FORMATS: Mapping[str, np.dtype[np.generic]] = MappingProxyType(
    {
        "float32": np.dtype(np.float32),
        "double64": np.dtype(np.float64),
        "int8": np.dtype(np.int8),
        "int16": np.dtype(np.int16),
        "int32": np.dtype(np.int32),
        "int64": np.dtype(np.int64),
    }
)
"""Channel formats of numbers; the other one is "string"."""

# insula's own records. A string stream of this type and name says that a file is one; its texts are the events
# below. A replay delivers such a file's chunks exactly in file order, so that it is the session's item sequence again.
SESSION_TYPE = "Session"
SESSION_NAME = "insula"
AFFECT_TYPE = "Affect"
"""Stream type of the estimates, in records and on LSL. Not delivered as a signal when a record is replayed."""
PHYSIOLOGY_TYPE = "Physiology"
"""Stream type of heart and rhythms, in records and on LSL. Not delivered either: a replay computes them anew."""
MARKERS_TYPE = "Markers"
EVENT_TICK = "tick"
"""``tick <repr of seconds>``: a Tick was given to the session at this place."""
EVENT_SKIPPED = "skipped"
"""``skipped <repr of t_end>``: the model was too slow for this window."""
EVENT_LOST = "lost"
"""``lost <samples> <stream key>``: the next chunk or markers of that stream have ``lost`` set to this."""
EVENT_ALARM = "alarm"
"""``alarm <seconds> <text>``: something is wrong from that time on."""
EVENT_OVER = "over"
"""``over <seconds> <text>``: the alarm has gone; figures in its text may have changed meanwhile."""
EVENT_NOTE = "note"
"""``note <seconds> <stream key> <text>``: something of note happened to a source."""
EVENT_CLOCK = "clock"
"""``clock <stream key> <offset> <uncertainty>``: seconds by which the clock of a source differs from the session's."""
EVENT_UNRECORDED = "unrecorded"
"""``unrecorded <entries>``: so many chunks, markers and estimates before this place are missing in the record."""
OWN_DESC = "insula"
"""Below ``<desc>`` of a recorded stream: ``<insula><key/><kind/></insula>``, the StreamInfo it was in the session."""

ANNOUNCED = "announced"
"""Below ``<desc>`` of the session: ``<streamID>`` with the header, as text, that the stream of numbers with this id has
from its first sample on. What is announced and has no header of its own never gave a sample."""

MAX_XML = 4 << 20
MAX_DEPTH = 64
MAX_TAGS = 250_000
"""Of tags and of attributes: what they cost in memory is many times what they take in the text."""


class _Builder(ET.TreeBuilder):
    """Refuses what an honest header never has, before it costs anything."""

    def __init__(self) -> None:
        super().__init__()
        self._depth = 0

    def doctype(self, *_: str) -> None:
        raise ValueError("a DOCTYPE is not allowed")

    def start(self, tag: str, attrs: dict[str, str], /) -> ET.Element:
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise ValueError(f"nested deeper than {MAX_DEPTH}")
        return super().start(tag, attrs)

    def end(self, tag: str, /) -> ET.Element:
        self._depth -= 1
        return super().end(tag)


def parse_xml(text: str) -> ET.Element:
    """The root element of a chunk's XML. Raises ValueError in words; refuses DTDs, depth and size without sense."""
    if len(text) > MAX_XML:
        raise ValueError(f"{len(text)} characters of XML, more than {MAX_XML}")
    if max(text.count("<"), text.count("=")) > MAX_TAGS:
        raise ValueError(f"more than {MAX_TAGS} tags or attributes")
    try:
        return ET.fromstring(text, ET.XMLParser(target=_Builder()))
    except ET.ParseError as error:
        raise ValueError(str(error)) from None


def child_text(element: ET.Element, path: str) -> str:
    """The stripped text at ``path`` below an element, "" when it is missing or empty."""
    return (element.findtext(path) or "").strip()


def xml_bytes(root: ET.Element) -> bytes:
    """The content of a header or footer."""
    body: str = ET.tostring(root, encoding="unicode")
    return b'<?xml version="1.0"?>' + body.encode("utf-8")


def varlen(value: int) -> bytes:
    """A variable-length integer as its bytes: width 1, 4 or 8.

    >>> varlen(7), varlen(300)
    (b'\\x01\\x07', b'\\x04,\\x01\\x00\\x00')
    """
    if value < 1 << 8:
        return struct.pack("<BB", 1, value)
    return struct.pack("<BI", 4, value) if value < 1 << 32 else struct.pack("<BQ", 8, value)


def chunk_bytes(tag: int, number: int | None, content: bytes) -> bytes:
    """A whole chunk; ``number`` is its stream's id, None for a chunk of no stream."""
    head = struct.pack("<H", tag) if number is None else struct.pack("<HI", tag, number)
    return varlen(len(head) + len(content)) + head + content

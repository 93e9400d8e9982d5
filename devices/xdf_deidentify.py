"""A recording without what tells whose it is, or where and when it was made.

Headers, footers and the description beside the file are made anew from a list of what may stay; whatever is not on it
is gone, known or not. Samples are copied to the byte. What stays and may still tell: channel labels of ordinary shape,
the name of the model, marker texts (unless asked otherwise), numbers, which are those of rates, counts and seconds, and
the signals themselves. How far two clocks are apart tells the date when one of them counts from a year: of what was
measured only changes stay.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import math
import os
import re
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, Literal
from xml.etree import ElementTree as ET

import numpy as np

from devices.api import unit_name
from devices.xdf_layout import (
    AFFECT_TYPE,
    ANNOUNCED,
    EVENT_ALARM,
    EVENT_CLOCK,
    EVENT_LOST,
    EVENT_NOTE,
    EVENT_OVER,
    EVENT_SKIPPED,
    EVENT_TICK,
    EVENT_UNRECORDED,
    MAGIC,
    MARKERS_TYPE,
    OWN_DESC,
    PHYSIOLOGY_TYPE,
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
    chunk_bytes,
    parse_xml,
    varlen,
    xml_bytes,
)
from devices.xdf_reader import XdfFile, XdfStream

Markers = Literal["keep", "number", "drop"]

GONE = "removed"
"""In place of a text of which only the place in time is kept."""
UPTIME = 1e8
"""Seconds: no computer runs for three years. A clock that shows more counts from 1970, 2000 or so, and is a date."""
ANOTHER_CLOCK = 3600.0
"""Seconds by which a source's clock does not go wrong: it is another one."""
MAX_SIDECAR = 16 << 20

_TYPES = frozenset(
    "eeg ecg ekg emg eog gsr eda scl ppg bvp resp respiration temp temperature acc accelerometer gyro gyroscope mag "
    "magnetometer imu markers marker stringmarker stringmarkers event events trigger stim gaze eyetracking pupil hr rr "
    "hrv nirs fnirs audio video mocap position orientation quality impedance battery misc aux ref signal "
    f"{SESSION_TYPE} {AFFECT_TYPE} {PHYSIOLOGY_TYPE}".lower().split()
)
_UNITS = frozenset(
    unit.lower()
    for line in (
        "uV mV V nV volts % bpm Hz kHz s ms us ns g mg dps deg rad rad/s deg/s m/s^2 m/s2 m mm cm px C degC K uS mS S",
        "Ohm kOhm MOhm T uT mT Pa hPa mmHg bool normalized count counts ADC a.u. au arbitrary",
    )
    for unit in line.split()
)
_NUMBER = re.compile(r"[-+]?(\d{1,20}(\.\d{0,40})?|\.\d{1,40})([eE][-+]?\d{1,4})?|[-+]?(nan|inf)", re.IGNORECASE)
_LABEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9 _+\-/.:()']{0,39}")
# A run of digits as in serial numbers, three numbers as in dates and addresses, six pairs as in MAC addresses.
_TELLING = re.compile(r"\d{5}|\d+[-./:_ ]\d+[-./:_ ]\d+|([0-9A-Fa-f]{2}[-:_. ]?){6}")
_VERSION = re.compile(r"(\d(\.\d{1,2}){0,2})($|[+a-z-]|\.dev|\.post)")
_KEY = re.compile(r"([a-z]+)(-\d{1,2})?")
_SYNCHRONISATION = (  # figures, true or false
    "offset_mean",
    "offset_rms",
    "offset_median",
    "offset_5_centile",
    "offset_95_centile",
    "can_drop_samples",
    "inter_stream_sync",
)
_ROUNDED = frozenset((*_SYNCHRONISATION, "measured_srate", "scaling_factor"))
_REWRITTEN = frozenset(("channel_count", "nominal_srate", "first_timestamp", "last_timestamp", "sample_count"))
_KEPT_COUNTS = ("samples", "lost", "refused", "gaps")
_KEPT_FIGURES = ("windows", "skipped", "unrecorded", "alarms_seen")


@dataclass(slots=True, kw_only=True)
class Removed:
    """What was removed, and what was kept that somebody should look at."""

    elements: dict[str, int] = field(default_factory=dict)
    """Texts of headers, footers and the description that are gone, by the name of their element."""
    events: int = 0
    """Texts of alarms and notes in the record that are gone; that there was one, and when, is kept."""
    dropped_markers: int = 0
    numbered_markers: int = 0
    kept_markers: int = 0
    marker_streams: int = 0
    dated_streams: int = 0
    """Streams whose stamps, or the offsets of whose clock, count from some year, and so are dates."""
    named_models: int = 0
    """Names of models that were kept."""
    findings: list[str] = field(default_factory=list)
    """Damage of the source, and what of it was not carried over."""
    sidecar: Path | None = None
    """The description that was written beside the target."""

    def lines(self) -> list[str]:
        """The same in words, without any text of the file itself."""
        names = sorted(self.elements, key=lambda name: (-self.elements[name], name))
        shown = ", ".join(names[:12]) + (f" and {len(names) - 12} more" if len(names) > 12 else "")
        said = [f"removed     {sum(self.elements.values())} texts of headers and footers ({shown})"]
        if self.events:
            said.append(f"removed     {self.events} texts of alarms and notes; their times are kept")
        if self.dropped_markers:
            said.append(f"removed     {self.dropped_markers} markers of {self.marker_streams} streams")
        if self.numbered_markers:
            said.append(f"numbered    {self.numbered_markers} markers; the same text has the same number")
        if self.kept_markers:
            said.append(
                f"kept        {self.kept_markers} marker texts of {self.marker_streams} streams: they may hold names, "
                "look through them"
            )
        said.append("kept        channel labels of ordinary shape: look through them")
        if self.named_models:
            said.append("kept        the name of the model: look through it")
        if self.dated_streams:
            dated = f"those of {self.dated_streams} streams count from some year"
            said.append(f"kept        stamps, and {dated}: they tell the date")
        else:
            said.append("kept        stamps: seconds since some computer was started, no date")
        said += [f"damage      {finding}" for finding in self.findings]
        if self.sidecar is not None:
            said.append("written     a description beside it, from a list of what may stay")
        return [line.replace("[", "(").replace("]", ")") for line in said]

    def _note(self, name: str) -> None:
        name = name if re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]{0,30}", name) else "others"
        if name not in self.elements and len(self.elements) >= 100:
            name = "others"
        self.elements[name] = self.elements.get(name, 0) + 1


def deidentify(source: Path, target: Path, *, markers: Markers = "keep") -> Removed:
    """Copy the XDF file ``source`` to ``target`` without identity, and the description ``.json`` beside it likewise.

    ``markers``: keep their texts, number them (equal texts alike), or drop the samples of marker streams. Of insula's
    own records every item that makes windows is kept to the bit: signals, stamps, ticks, losses. Chunks that are
    damaged are not carried over and said in ``findings``. Nothing is overwritten; after an error there is no target.
    Raises XdfError.
    """
    if markers not in ("keep", "number", "drop"):
        raise ValueError(f"markers are kept, numbered or dropped, not {markers!r}")
    source, target = Path(source), Path(target)
    removed = Removed()
    with XdfFile(source) as file:
        copy = _Copy(file, markers, removed)
        sidecar = copy.sidecar(source.with_suffix(".json"))
        beside = target.with_suffix(".json")
        with contextlib.ExitStack() as made:
            output = made.enter_context(_new(target))
            description = made.enter_context(_new(beside)) if sidecar is not None else None
            try:
                output.write(MAGIC)
                for block in copy.blocks():
                    output.write(block)
                if description is not None and sidecar is not None:
                    description.write((json.dumps(sidecar, indent=2, allow_nan=False) + "\n").encode())
                    removed.sidecar = beside
                for written in (output, description):
                    if written is not None:
                        written.flush()
                        os.fsync(written.fileno())
            except OSError as error:
                raise XdfError(
                    f"{target}: could not be written ({error.strerror}) and was removed. Free disk space or choose "
                    "another folder."
                ) from error
        removed.findings.extend(file.findings)
    return removed


@contextlib.contextmanager
def _new(path: Path) -> Iterator[BinaryIO]:
    """A file that is there under its name only when it is whole; the name is held from the beginning."""
    part = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644))
    except FileExistsError:
        raise XdfError(f"{path}: exists already, nothing is overwritten. Choose another name.") from None
    except OSError as error:
        raise XdfError(f"{path}: cannot be made ({error.strerror}). Check folder and rights.") from error
    try:
        with part.open("xb") as file:
            yield file
        part.replace(path)
    except BaseException as error:
        path.unlink(missing_ok=True)
        part.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise XdfError(f"{path}: could not be written ({error.strerror}). Check folder and rights.") from error
        raise


class _Copy:
    """One file on its way from source to target."""

    def __init__(self, file: XdfFile, markers: Markers, removed: Removed) -> None:
        self._file = file
        self._markers = markers
        self._removed = removed
        self._session = {s.id for s in file.streams.values() if s.is_session}
        self._announced = file.announced()
        self._all = file.streams | self._announced
        if self._session:  # numbered in the order of the session
            self._all = dict(sorted(self._all.items()))
        self._types = {s.id: _type(s) for s in self._all.values()}
        self._names = self._make_names()
        self._keys = self._make_keys()
        self._births = [_number(s.header, "created_at") for s in file.streams.values()]
        self._left_out: set[int] = set()
        self._dated = {s.id for s in file.streams.values() if not self._is_dropped(s) and self._is_dated(s.id)}
        self._tells = bool(self._dated)
        self._bases: dict[str, float] = {}
        self._apart: float | None = None
        self._numbers: dict[str, int] = {}
        marker_streams = [s for s in file.streams.values() if self._is_marker(s) and file.samples(s.id)]
        removed.marker_streams = len(marker_streams)

    def _is_marker(self, stream: XdfStream) -> bool:
        return stream.format == "string" and stream.id not in self._session and stream.type != AFFECT_TYPE

    def _is_dropped(self, stream: XdfStream) -> bool:
        return self._markers == "drop" and self._is_marker(stream)

    def _is_dated(self, number: int) -> bool:
        span = self._file.span(number, synchronised=False)
        return span is not None and max(map(abs, span)) > UPTIME

    def _make_names(self) -> dict[int, str]:
        """A name for each stream from its type only; insula's own streams are recognised by theirs."""
        own = {SESSION_NAME, "insula affect", "insula withheld", "insula physiology", "insula beats"}
        numbered: dict[str, int] = {}
        names = {}
        for stream in self._all.values():
            kind = self._types[stream.id]
            if stream.name in own and kind in (SESSION_TYPE, AFFECT_TYPE, PHYSIOLOGY_TYPE):
                names[stream.id] = stream.name
                continue
            numbered[kind] = numbered.get(kind, 0) + 1
            names[stream.id] = kind if numbered[kind] == 1 else f"{kind}-{numbered[kind]}"
        return names

    def _make_keys(self) -> dict[str, str]:
        """New keys for those of insula's streams that say more than a kind and a number."""
        keys = [s.desc(f"{OWN_DESC}/key") for s in self._all.values()] if self._session else []
        renamed = {key: key for key in keys if (plain := _KEY.fullmatch(key)) and _plain_kind(plain[1])}
        for stream in self._all.values():
            key = stream.desc(f"{OWN_DESC}/key") if self._session else ""
            if key and key not in renamed:
                kind = _kind(stream.desc(f"{OWN_DESC}/kind"))
                free = (k for k in itertools.chain([kind], (f"{kind}-{i}" for i in itertools.count(2))))
                renamed[key] = next(k for k in free if k not in renamed.values())
        return renamed

    # -- chunks ------------------------------------------------------------------------------------------------------

    def blocks(self) -> Iterator[bytes]:
        yield chunk_bytes(TAG_FILE_HEADER, None, xml_bytes(_element("info", version="1.0")))
        for tag, number, index, content in self._file.raw_chunks():
            if tag == TAG_FILE_HEADER:
                for element in _parsed(content).iter():
                    if _text(element) and element.tag != "version":
                        self._removed._note(element.tag)
            elif tag == TAG_STREAM_HEADER:
                yield chunk_bytes(tag, number, self._header(self._file.streams[number]))
            elif tag == TAG_STREAM_FOOTER:
                yield chunk_bytes(tag, number, self._footer(number, content))
            elif tag == TAG_SAMPLES:
                block = self._samples(number, index, content)
                if block is not None:
                    yield chunk_bytes(tag, number, block)
            elif tag == TAG_OFFSET:
                pair = self._pair(number, *struct.unpack("<2d", content))
                if pair is None:
                    self._removed._note("clock_offsets")
                else:
                    yield chunk_bytes(tag, number, struct.pack("<2d", *pair))
            else:
                yield chunk_bytes(tag, None if tag == TAG_BOUNDARY else number, content)
        self._removed.dated_streams = len(self._dated)

    def _samples(self, number: int, index: int, content: bytes) -> bytes | None:
        stream = self._file.streams[number]
        times, values = self._file.decode(index, synchronised=False)
        if not len(times):
            self._left_out.add(number)  # damaged: the file's findings say so
            return None
        if self._is_dropped(stream):
            self._removed.dropped_markers += len(times)
            self._left_out.add(number)
            return None
        if np.any(np.isfinite(times) & (np.abs(times) > UPTIME)):
            self._dated.add(number)
        if stream.format != "string":
            return content
        if number in self._session:
            texts = [[self._event(str(text), number) for text in row] for row in values.tolist()]
        elif stream.type == AFFECT_TYPE:
            texts = [[GONE if text else "" for text in row] for row in values.tolist()]
        else:
            if self._markers == "keep":
                self._removed.kept_markers += values.size
                return content
            self._removed.numbered_markers += values.size
            texts = [[self._numbered(str(text)) for text in row] for row in values.tolist()]
        return _texts(times.tolist(), texts) if texts != values.tolist() else content

    def _numbered(self, text: str) -> str:
        return str(self._numbers.setdefault(text, len(self._numbers) + 1))

    def _pair(self, number: int, time: float, offset: float) -> tuple[float, float] | None:
        """A measured clock offset without the date that it would tell, None when nothing is left of it.

        Clocks that are years apart are moved together, all by the same. Where stamps tell the date anyway it is left as
        it is, so that all streams stay on one clock.
        """
        if self._tells:
            if max(abs(time), abs(offset)) > UPTIME:
                self._dated.add(number)
            return time, offset
        if abs(time) > UPTIME:  # no clock of these stamps
            return None
        if abs(offset) > UPTIME:
            if self._apart is None:
                self._apart = float(round(offset))
            offset -= self._apart
        return (time, offset) if abs(offset) <= UPTIME else None

    def _event(self, text: str, number: int) -> str:
        word, _, rest = text.partition(" ")
        match word:
            case _ if word in (EVENT_TICK, EVENT_SKIPPED) and _NUMBER.fullmatch(rest):
                if abs(float(rest)) > UPTIME:  # it cuts windows, so it stays
                    self._dated.add(number)
                return f"{word} {float(rest)!r}"
            case _ if word == EVENT_UNRECORDED and _COUNT.fullmatch(rest):
                return text
            case _ if word == EVENT_LOST:
                count, _, key = rest.partition(" ")
                if _COUNT.fullmatch(count) and (new := self._key(key)):
                    return text if new == key else f"{word} {count} {new}"
            case _ if word == EVENT_CLOCK:
                key, *figures = rest.rsplit(" ", 2)
                if len(figures) == 2 and all(map(_NUMBER.fullmatch, figures)) and (new := self._key(key)):
                    return f"{word} {new} {self._change(new, float(figures[0]))} {_rounded(figures[1]) or 'nan'}"
            case _ if word in (EVENT_ALARM, EVENT_OVER, EVENT_NOTE):
                self._removed.events += 1
                time = rest.partition(" ")[0]
                if _NUMBER.fullmatch(time) and (abs(float(time)) <= UPTIME or self._tells):
                    return f"{word} {float(time)!r} {GONE}"
                return f"{word} {GONE}"
        self._removed.events += 1
        return GONE

    def _change(self, key: str, offset: float) -> str:
        """By how much a source's clock has gone wrong since its first measurement, in whole microseconds.

        How far it is from the session's, together with the stamps, is the time of day.
        """
        if not math.isfinite(offset):
            return "nan"
        if abs(offset - self._bases.setdefault(key, offset)) > ANOTHER_CLOCK:
            self._bases[key] = offset
        return repr(round(offset - self._bases[key], 6) + 0.0)

    def _key(self, key: str) -> str:
        return self._keys.get(key) or self._keys.get(key.strip(), "")

    # -- headers and footers -----------------------------------------------------------------------------------------

    def _header(self, stream: XdfStream) -> bytes:
        old = parse_xml(stream.header)
        root = _element("info", name=self._names[stream.id], type=self._types[stream.id])
        ET.SubElement(root, "channel_count").text = str(len(stream.channels))
        ET.SubElement(root, "nominal_srate").text = repr(stream.rate)
        ET.SubElement(root, "channel_format").text = stream.format
        born = _number(stream.header, "created_at")
        if math.isfinite(born):
            earliest = min((birth for birth in self._births if math.isfinite(birth)), default=born)
            if 0 <= born - earliest <= UPTIME:
                ET.SubElement(root, "created_at").text = repr(round(born - earliest, 3))
        desc = ET.SubElement(root, "desc")
        if stream.channels and old.find("desc/channels/channel") is not None:
            group = ET.SubElement(desc, "channels")
            described = old.findall("desc/channels/channel")[: len(stream.channels)]
            for place, element in enumerate(described):
                group.append(_element("channel", **self._channel(place, element)))
        synchronisation = {
            name: kept
            for name in _SYNCHRONISATION
            if (text := child_text(old, f"desc/synchronization/{name}"))
            and (kept := text if text in ("true", "false") else _rounded(text))
        }
        if synchronisation:
            desc.append(_element("synchronization", **synchronisation))
        if self._session:
            desc.extend(self._own(old))
        if self._announced and stream.id == min(self._session):
            group = ET.SubElement(desc, ANNOUNCED)
            for number, one in self._announced.items():
                ET.SubElement(group, f"stream{number}").text = self._header(one).decode()
        for below in old.findall("desc") if stream.id in self._session else ():
            for announced in below.findall(ANNOUNCED):
                below.remove(announced)  # what is removed of it is counted where the header is made
        self._note_difference(old, root)
        return xml_bytes(root)

    @staticmethod
    def _channel(place: int, element: ET.Element) -> dict[str, str]:
        label, unit, kind = (child_text(element, name) for name in ("label", "unit", "type"))
        kept = {"label": _label(label, place)}
        if unit_name(unit).lower() in _UNITS:
            kept["unit"] = unit
        if kind.lower() in _TYPES:
            kept["type"] = kind
        if factor := _rounded(child_text(element, "scaling_factor")):
            kept["scaling_factor"] = factor
        return kept

    def _own(self, old: ET.Element) -> Iterable[ET.Element]:
        """What insula itself has written below ``<desc>``."""
        key, kind = (child_text(old, f"desc/{OWN_DESC}/{name}") for name in ("key", "kind"))
        if key:
            yield _element(OWN_DESC, key=self._key(key), kind=_kind(kind))
        software = child_text(old, "desc/software").removeprefix("insula ")
        about = {
            "software": f"insula {version}" if (version := _version(software)) else "",
            "model": self._model_name(child_text(old, "desc/model")),
            "model_hash": text if _HASH.fullmatch(text := child_text(old, "desc/model_hash")) else "",
        }
        for name in ("window_seconds", "hop_seconds"):
            about[name] = (
                f"{float(text)}" if (text := _rounded(child_text(old, f"desc/{name}"), LONGEST_WINDOW)) else ""
            )
        for name, text in about.items():
            if text:
                yield _element(name, text)

    def _model_name(self, text: object) -> str:
        if not isinstance(text, str) or not _SHORT_NAME.fullmatch(text) or _TELLING.search(text):
            return ""
        self._removed.named_models += 1
        return text

    def _footer(self, number: int, content: bytes) -> bytes:
        old = _parsed(content)
        root = ET.Element("info")
        stream = self._file.streams.get(number)
        count = child_text(old, "sample_count")
        span = None
        if stream is not None:
            kept = [] if self._is_dropped(stream) else list(self._file.chunks_of(number))
            span = self._file.span(number, synchronised=False) if kept else None
            if number in self._left_out:  # the footer's count is of more than what is here
                count = str(sum(len(self._file.decode(int(index), synchronised=False)[0]) for index in kept))
        first, last = span or (0.0, 0.0)
        ET.SubElement(root, "first_timestamp").text = repr(first)
        ET.SubElement(root, "last_timestamp").text = repr(last)
        if _COUNT.fullmatch(count):
            ET.SubElement(root, "sample_count").text = count
        if rate := _rounded(child_text(old, "measured_srate")):
            ET.SubElement(root, "measured_srate").text = rate
        if old.find("clock_offsets") is not None:
            group = ET.SubElement(root, "clock_offsets")
            for element in old.findall("clock_offsets/offset"):
                figures = [child_text(element, name) for name in ("time", "value")]
                if all(map(_NUMBER.fullmatch, figures)):
                    pair = self._pair(number, *map(float, figures))
                    if pair is not None and all(map(math.isfinite, pair)):
                        group.append(_element("offset", time=repr(pair[0]), value=repr(pair[1])))
        self._note_difference(old, root)
        return xml_bytes(root)

    def _note_difference(self, old: ET.Element, new: ET.Element) -> None:
        """Count the texts of ``old`` that are not in ``new``, by their element."""
        kept: dict[tuple[str, str], int] = {}
        for element in new.iter():
            mark = _mark(element)
            kept[mark] = kept.get(mark, 0) + 1
        for element in old.iter():
            mark = _mark(element)
            if kept.get(mark, 0):
                kept[mark] -= 1
            elif mark[1] and element.tag not in _REWRITTEN:
                self._removed._note(element.tag)
            for name in element.attrib:
                self._removed._note(name)

    # -- the description beside the record ---------------------------------------------------------------------------

    def sidecar(self, path: Path) -> dict[str, object] | None:
        """What may stay of the description, None without one."""
        if not path.is_file():
            return None
        try:
            if path.stat().st_size > MAX_SIDECAR:
                raise ValueError(f"{path.stat().st_size} bytes")
            old = json.loads(path.read_bytes())
            if not isinstance(old, dict):
                raise ValueError("no object")
            return self._allowed(old)
        except (OSError, ValueError, RecursionError) as error:
            reason = "nested too deep" if isinstance(error, RecursionError) else getattr(error, "strerror", None)
            self._removed.findings.append(
                f"the description beside the file is not readable ({reason or 'no JSON object'}); not carried over"
            )
            return None

    def _allowed(self, old: dict[str, object]) -> dict[str, object]:
        new: dict[str, object] = {}
        for name in ("insula", "python", "pylsl", "liblsl"):
            if version := _version(old.get(name)):
                new[name] = version
        seconds = math.inf if self._tells else UPTIME
        for name in ("started", "stopped"):
            moment = old.get(name)
            if isinstance(moment, dict):
                new[name] = _figures(moment, ("session_clock",), seconds)
        streams = old.get("streams")
        if isinstance(streams, list):
            new["streams"] = [self._described(one) for one in streams if isinstance(one, dict)]
        bundle = old.get("bundle")
        if isinstance(bundle, dict):
            digest = bundle.get("hash")
            kept = {
                "name": self._model_name(bundle.get("name")),
                "version": _version(bundle.get("version")),
                "hash": digest if isinstance(digest, str) and _HASH.fullmatch(digest) else "",
            }
            new["bundle"] = {
                **{name: text for name, text in kept.items() if text},
                **_figures(bundle, ("window_seconds", "hop_seconds"), LONGEST_WINDOW),
            }
        new |= _figures(old, _KEPT_FIGURES)
        alarms = old.get("alarms")
        if isinstance(alarms, list):
            new["alarms"] = [
                {**_figures(one, ("time",), seconds), "over": one.get("over") is True}
                for one in alarms
                if isinstance(one, dict)
            ]
        ended = old.get("ended")
        new["ended"] = ended if ended in (None, "as asked") else "with a problem"
        before, after = dict(_leaves(old, "others")), dict(_leaves(new, "others"))
        for path_of, (name, _) in before.items():
            if path_of not in after:
                self._removed._note(name)
        return new

    def _described(self, old: dict[str, object]) -> dict[str, object]:
        channels = old.get("channels")
        key, kind, unit = (str(old.get(name, "")) for name in ("key", "kind", "unit"))
        return {
            "key": self._key(key) or _kind(kind),
            "kind": _kind(kind),
            "channels": [_label(str(text), i) for i, text in enumerate(channels)] if isinstance(channels, list) else [],
            "unit": unit if unit_name(unit).lower() in _UNITS else "",
            **_figures(old, ("rate", *_KEPT_COUNTS)),
        }


_SHORT_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_.+-]{0,63}")
_HASH = re.compile(r"(sha256:)?[0-9a-f]{6,64}")
_COUNT = re.compile(r"[0-9]{1,12}")
LONGEST_WINDOW = 600.0
MOST = 1e6
"""What no rate in Hz, factor or delay in seconds exceeds."""


def _version(text: object) -> str:
    """The numbers a version begins with, "" without any: what follows may be of a folder or a day."""
    found = _VERSION.match(text) if isinstance(text, str) else None
    return found[1] if found else ""


def _rounded(text: str, most: float = MOST) -> str:
    """A figure in seven digits, which is what single precision holds; "" for what is none, or beyond ``most``."""
    value = float(text) if _NUMBER.fullmatch(text) else math.nan
    return f"{value:.7g}" if abs(value) <= most else ""


def _type(stream: XdfStream) -> str:
    if stream.type.lower() in _TYPES:
        return stream.type
    return MARKERS_TYPE if stream.format == "string" else "Signal"


def _plain_kind(text: str) -> bool:
    return text in _TYPES


def _kind(text: str) -> str:
    return text if _plain_kind(text) else "signal"


def _label(text: str, place: int) -> str:
    return text if _LABEL.fullmatch(text) and not _TELLING.search(text) else f"ch{place + 1}"


def _number(header: str, name: str) -> float:
    text = child_text(parse_xml(header), name)
    return float(text) if _NUMBER.fullmatch(text) else math.nan


def _figures(content: dict[str, object], names: Iterable[str], most: float = 1e12) -> dict[str, object]:
    """Those of ``names`` that are finite numbers and not beyond ``most``, in whole microseconds."""
    return {
        name: round(value, 6)
        for name in names
        if isinstance(value := content.get(name), int | float)
        and not isinstance(value, bool)
        and abs(value) <= most  # also for whole numbers that no float can hold
        and math.isfinite(value)
    }


def _leaves(content: object, name: str, path: str = "") -> Iterator[tuple[str, tuple[str, object]]]:
    """Texts and figures of a description: where each lies, its name and what it says."""
    if isinstance(content, dict):
        for key, value in content.items():
            yield from _leaves(value, str(key), f"{path}/{key}")
    elif isinstance(content, list):
        for place, value in enumerate(content):
            yield from _leaves(value, name, f"{path}/{place}")
    elif content not in (None, ""):
        yield f"{path}={content}", (name, content)


def _parsed(content: bytes) -> ET.Element:
    try:
        return parse_xml(content.decode("utf-8", "replace"))
    except ValueError:
        return ET.Element("info")


def _mark(element: ET.Element) -> tuple[str, str]:
    """Name and text of an element; numbers as they are written here, so that equal ones are equal."""
    text = _text(element)
    if element.tag in _ROUNDED:
        text = _rounded(text) or text
    elif element.tag in ("time", "value") and _NUMBER.fullmatch(text):
        text = repr(float(text))
    return element.tag, text


def _text(element: ET.Element) -> str:
    return (element.text or "").strip()


def _element(name: str, _own: str | None = None, /, **children: str) -> ET.Element:
    element = ET.Element(name)
    element.text = _own
    for tag, text in children.items():
        ET.SubElement(element, tag).text = text
    return element


def _texts(times: list[float], texts: list[list[str]]) -> bytes:
    parts = [struct.pack("<BI", 4, len(times))]
    for time, row in zip(times, texts, strict=True):
        parts.append(struct.pack("<Bd", 8, time))
        for text in row:
            raw = text.encode("utf-8", "replace")
            parts += [varlen(len(raw)), raw]
    return b"".join(parts)

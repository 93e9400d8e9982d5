"""The description that lies beside a record, as JSON: who and what was recorded with what, and how it ended.

It is written when the session starts and again when it ends; the first version, with ``"ended": null``, is what a
session that was killed leaves behind. It holds participant codes, and of each source what it says of itself
(``identity``: host, serial number, address; ``taken``: of those that were read in its place since); the name of this
machine only where a source says it.
"""

from __future__ import annotations

import json
import math
import os
import platform
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from devices.api import StreamInfo
from devices.xdf_format import XdfError
from models.bundle import Bundle
from realtime.alarms import Alarmed

LONGEST = 1000
"""Characters of a text from outside."""


def beginning(
    *,
    title: str,
    record: str,
    study: Mapping[str, str],
    streams: Sequence[StreamInfo],
    identities: Mapping[str, Mapping[str, str]],
    bundle: Mapping[str, object] | None,
    session_clock: float,
    now: datetime,
) -> dict[str, object]:
    """What is known at the start. ``identities`` are what the device of a stream says of itself, by stream key;
    ``study`` has the codes of participant, session, task and run; ``now`` is aware of its time zone."""
    return {
        "insula": _version("insula"),
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.release()} {platform.machine()}",
        "pylsl": _version("pylsl"),
        "liblsl": _liblsl(),
        "title": title,
        "record": record,
        **{name: study.get(name) for name in ("participant", "session", "task", "run")},
        "started": _moment(now, session_clock),
        "streams": [
            {
                "key": info.key,
                "kind": info.kind,
                "channels": list(info.channels),
                "rate": info.rate,
                "unit": info.unit,
                "name": info.name[:LONGEST],
                "source": info.source[:LONGEST],
                "identity": _identity(identities.get(info.key, {})),
            }
            for info in streams
        ],
        "bundle": dict(bundle) if bundle is not None else None,
        "use": "Research use only, not a medical device.",
        "ended": None,
    }


def conclusion(
    begun: Mapping[str, object],
    *,
    counts: Mapping[str, Mapping[str, int]],
    taken: Mapping[str, Sequence[tuple[float, Mapping[str, str]]]] | None = None,
    alarms: Sequence[Alarmed],
    figures: Mapping[str, int],
    problem: str,
    session_clock: float,
    now: datetime,
) -> dict[str, object]:
    """The same at the end. ``counts`` are samples, lost, refused and gaps by stream key, ``taken`` what was read in
    place of the first device, since when on the session clock and its identity; ``figures`` those of the whole session
    (windows, skipped, unrecorded, alarms_seen: how many began, listed or not); ``problem`` is "" when it ended
    as asked."""
    streams = begun["streams"]
    assert isinstance(streams, list)
    return {
        **begun,
        "streams": [
            {**stream, **_taken((taken or {}).get(stream["key"], ())), **counts.get(stream["key"], {})}
            for stream in streams
        ],
        **figures,
        "alarms": [{"time": one.time, "text": one.text, "over": one.over} for one in alarms],
        "stopped": _moment(now, session_clock),
        "ended": problem or "as asked",
    }


def bundle_facts(bundle: Bundle, computed_by: str) -> dict[str, object]:
    """What the description says of the model; ``computed_by`` is its runtime in words."""
    spec = bundle.manifest.window
    return {
        "name": bundle.manifest.name,
        "version": bundle.manifest.version,
        "hash": bundle.hash,
        "runtime": computed_by,
        "window_seconds": spec.seconds,
        "hop_seconds": spec.hop,
    }


def write_sidecar(path: Path, content: Mapping[str, object]) -> None:
    """Write ``content`` whole or not at all, in place of what is there. Raises XdfError."""
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    text = json.dumps(_finite(content), indent=2, ensure_ascii=False, allow_nan=False)
    try:
        try:
            with beside.open("w", encoding="utf-8", errors="replace") as file:
                file.write(text + "\n")
                file.flush()
                os.fsync(file.fileno())
            beside.replace(path)
        finally:
            beside.unlink(missing_ok=True)
    except OSError as error:
        raise XdfError(
            f"{path}: the description of the record could not be written ({error.strerror}). Check disk and rights."
        ) from error


def _taken(outlets: Sequence[tuple[float, Mapping[str, str]]]) -> dict[str, object]:
    if not outlets:
        return {}
    return {"taken": [{"session_clock": time, "identity": _identity(who)} for time, who in outlets]}


def _identity(said: Mapping[str, str]) -> dict[str, str]:
    return {str(name)[:LONGEST]: str(text)[:LONGEST] for name, text in said.items()}


def _moment(now: datetime, session_clock: float) -> dict[str, object]:
    return {
        "utc": now.astimezone(UTC).isoformat(timespec="milliseconds"),
        "local": now.isoformat(timespec="milliseconds"),
        "session_clock": session_clock,
    }


def _finite(content: object) -> object:
    """The same with null for NaN and infinity, which JSON does not have."""
    match content:
        case float():
            return content if math.isfinite(content) else None
        case Mapping():
            return {str(key): _finite(value) for key, value in content.items()}
        case list() | tuple():
            return [_finite(value) for value in content]
        case _:
            return content


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _liblsl() -> str | None:
    """Only where something has loaded it already: a session without LSL needs no liblsl."""
    library = getattr(sys.modules.get("pylsl"), "library_version", None)
    return f"{library() / 100:.2f}" if library else None

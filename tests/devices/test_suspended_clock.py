"""The record of sources that were suspended: whoever reads it finds every stamp at its true time."""

from __future__ import annotations

import contextlib
import math
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import uuid

import numpy as np
import pylsl
import pytest
import pyxdf

from devices import lsl
from devices.api import open_device
from devices.xdf_format import EVENT_CLOCK, SESSION_NAME, XdfFile
from realtime.record import Recorder
from realtime.session import Session

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
KINDS = {"EEG": 1000, "Gaze": 100, "Markers": 20}
"""The streams, and how many samples of each the record holds at least."""
WITHIN = 1e-3
"""Seconds: how far a stamp may be from the truth."""
DELAY = 0.1
"""Seconds by which the questions for its clock reach a source late that has just gone on."""
PROGRAM = """
import sys, time, pylsl
name = sys.argv[1]
kinds = (("EEG", 100.0, "double64"), ("Gaze", 0.0, "double64"), ("Markers", 0.0, "string"))
infos = [pylsl.StreamInfo(name + kind, kind, 1, rate, text, name + kind) for kind, rate, text in kinds]
eeg, gaze, markers = [pylsl.StreamOutlet(info) for info in infos]
start, n = pylsl.local_clock(), 0
print("ready", flush=True)
while True:
    stamp = start + n / 100
    time.sleep(max(0.0, stamp - pylsl.local_clock()))
    eeg.push_sample([stamp % 1000], stamp)
    if n % 10 == 0:
        gaze.push_sample([stamp % 1000], stamp)
    if n % 50 == 0:
        markers.push_sample([repr(stamp % 1000)], stamp)
    n += 1
"""


class Way:
    """The way to a source's time service and back. While ``delay`` is set its questions are late, its answers not: what
    waited for a source that was stopped."""

    def __init__(self, port: int) -> None:
        self.delay, self.port = 0.0, port
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind(("127.0.0.1", 0))
        threading.Thread(target=self._relay, daemon=True).start()

    def _relay(self) -> None:
        with contextlib.suppress(OSError):  # closed
            while True:
                threading.Thread(target=self._carry, args=self.socket.recvfrom(4096), daemon=True).start()

    def _carry(self, question: bytes, asker: tuple[str, int]) -> None:
        time.sleep(self.delay)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as there, contextlib.suppress(OSError):
            there.settimeout(15.0)
            there.sendto(question, ("127.0.0.1", self.port))
            self.socket.sendto(there.recv(4096), asker)


def through(ways, listen):
    """What finds sources, over `Way`s."""

    def relayed(*arguments):
        found, others = listen(*arguments)
        seen = []
        for info in found:
            xml = info.as_xml()
            way = Way(int(re.search(r"<v4service_port>(\d+)<", xml)[1]))
            ways.append(way)
            port = way.socket.getsockname()[1]
            xml = re.sub(r"<v4service_port>\d+<", f"<v4service_port>{port}<", xml)
            xml = xml.replace("<v4address />", "<v4address>127.0.0.1</v4address>")
            make = pylsl.lib.lib.lsl_streaminfo_from_xml
            make.restype = pylsl.lib.lib.lsl_get_info.restype
            seen.append(pylsl.StreamInfo(handle=make(xml.encode())))
        return seen, others

    return relayed


@pytest.fixture(scope="module")
def record(tmp_path_factory):
    """The name of the streams, and the record of a session in which their source was suspended for 7 s."""
    name, path = f"test-{uuid.uuid4().hex[:8]}-", tmp_path_factory.mktemp("suspended") / "suspended.xdf"
    ways = []
    with (
        subprocess.Popen([sys.executable, "-c", PROGRAM, name], stdout=subprocess.PIPE, text=True) as process,
        pytest.MonkeyPatch.context() as patch,
    ):
        patch.setattr(lsl, "_listen", through(ways, lsl._listen))
        try:
            assert process.stdout.readline() == "ready\n"
            devices = [open_device(f"lsl:name={name}{kind}") for kind in KINDS]
            session = Session(
                devices, None, title="t", clock=lsl.lsl_clock, recorder=lambda streams: Recorder(path, streams, (), {})
            )
            runner = threading.Thread(target=session.run)
            runner.start()
            try:
                time.sleep(6.0)
                process.send_signal(signal.SIGSTOP)
                time.sleep(7.0)
                for way in ways:
                    way.delay = DELAY
                process.send_signal(signal.SIGCONT)
                time.sleep(3.5)  # each is asked at least once
                for way in ways:
                    way.delay = 0.0
                time.sleep(2.0)
            finally:
                session.stop()
                runner.join(30)
        finally:
            process.kill()
            for way in ways:
                way.socket.close()
    return name, path


def off(times, truth):
    """How far each of ``times`` is from its ``truth``, which is said modulo 1000 s."""
    away = np.abs(np.asarray(times) - np.asarray(truth, np.float64)) % 1000
    return np.minimum(away, 1000 - away)


def test_pyxdf_at_its_defaults_finds_every_stamp_of_a_source_that_was_suspended_within_a_millisecond(record):
    name, path = record
    streams, _ = pyxdf.load_xdf(path)
    found = {stream["info"]["name"][0]: stream for stream in streams}
    for kind, least in KINDS.items():
        stream = found[name + kind]
        truth = np.array([row[0] for row in stream["time_series"]], np.float64)
        assert len(truth) > least
        assert off(stream["time_stamps"], truth).max() < WITHIN, kind


def test_libxdf_finds_every_stamp_of_a_source_that_was_suspended_within_a_millisecond(record, libxdf):
    name, path = record
    found = libxdf(path)
    for kind in ("EEG", "Gaze"):  # of texts the program says nothing
        rows, _ = found[name + kind]
        assert len(rows) > KINDS[kind]
        assert off(rows[:, 0], rows[:, 1]).max() < WITHIN, kind


def test_our_reader_finds_every_stamp_of_a_source_that_was_suspended_within_a_millisecond(record):
    name, path = record
    with XdfFile(path) as file:
        for stream in file.streams.values():
            if stream.name.startswith(name):
                times, values = file.read(stream.id)
                truth = np.array(np.asarray(values).ravel().tolist(), np.float64)
                assert len(truth) > KINDS[stream.name.removeprefix(name)]
                assert off(times, truth).max() < WITHIN, stream.name


def test_what_a_record_says_of_a_clock_that_was_measured_just_as_its_source_went_on_is_what_its_stamps_got(record):
    """They are of one machine: the true offset is 0."""
    name, path = record
    said = {}
    with XdfFile(path) as file:
        for stream in file.streams.values():
            if stream.name.startswith(name):
                offsets = file.offsets(stream.id)
                assert offsets[-1, 0] - offsets[0, 0] > 10  # one at least after the source went on
                assert np.abs(offsets[:, 1]).max() < WITHIN
            elif stream.name == SESSION_NAME:
                for (text,) in np.asarray(file.read(stream.id)[1]).reshape(-1, 1).tolist():
                    if text.startswith(f"{EVENT_CLOCK} "):
                        _, key, offset, sd = text.split()
                        said.setdefault(key, []).append((float(offset), float(sd)))
    assert len(said) == len(KINDS)
    for clocks in said.values():
        assert all(abs(offset) < WITHIN and sd < WITHIN for offset, sd in clocks), clocks


def test_a_source_that_goes_on_just_when_it_is_opened_is_measured_again_before_anything_is_read(monkeypatch):
    """Its first samples have no other measurement than the first."""
    name = f"test-{uuid.uuid4().hex[:8]}"
    outlet = pylsl.StreamOutlet(pylsl.StreamInfo(name, "Markers", 1, 0.0, "string", name))
    correction, asked = lsl._correction, []

    def late(inlet, timeout):
        when, offset, uncertainty, took = correction(inlet, timeout)
        asked.append(took)
        if len(asked) == 1:
            return when, offset - 0.07, 0.14 / math.sqrt(12), 0.14
        return when, offset, uncertainty, took

    monkeypatch.setattr(lsl, "_correction", late)
    with open_device(f"lsl:name={name}") as device:
        assert outlet.wait_for_consumers(20)
        stamp = pylsl.local_clock()
        outlet.push_sample(["x"], stamp)
        items = []
        deadline = time.monotonic() + 10
        while not items and time.monotonic() < deadline:
            items = [item for item in device.read(0.1) if hasattr(item, "labels")]
    assert len(asked) >= 2
    assert items[0].times[0] == pytest.approx(stamp, abs=5e-3)

"""Streams as laboratories have them, through a whole session: numbers that come when they come, packets far apart."""

from __future__ import annotations

import math
import threading
import time
import uuid

import numpy as np
import pylsl
import pytest
import pyxdf

from devices.api import Chunk, End, Events, StreamInfo, open_device
from devices.lsl import lsl_clock
from devices.xdf import XdfReplay
from realtime.api import Marked
from realtime.record import Recorder
from realtime.remote import Client, Server
from realtime.session import Session

IRREGULAR = {
    "box": ("Markers", 1, "int32", [[16_777_217], [-3]]),
    "trigger": ("Stim", 1, "int64", [[2**40 + 1], [7]]),
    "text": ("Markers", 1, "string", [["go"], ["stop"]]),
    "heart": ("HR", 2, "float32", [[71.5, 0.25], [72.5, 0.125]]),
    "amp": ("EEG", 3, "float32", [[1.5, -2.5, 3.25], [4.0, 5.0, 6.0]]),
    "eye": ("Gaze", 2, "double64", [[0.1, 1 / 3], [1e300, -7.0]]),
}


def replayed(path):
    items = []
    with XdfReplay(path, speed=math.inf) as replay:
        while not (items and isinstance(items[-1], End)):
            items += replay.read(0.1)
        return replay.streams, items


def test_numbers_without_a_rate_are_recorded_as_numbers_shown_as_marks_when_they_are_and_replayed_the_same(tmp_path):
    ending = uuid.uuid4().hex[:8]
    outlets = {
        name: pylsl.StreamOutlet(pylsl.StreamInfo(f"{name}-{ending}", kind, channels, 0.0, fmt, name + ending))
        for name, (kind, channels, fmt, _) in IRREGULAR.items()
    }
    devices = [open_device(f"lsl:name={name}-{ending}") for name in IRREGULAR]
    record, noted, updates = tmp_path / "numbers.xdf", [], []
    with Server() as server:
        client = Client.attach(server.address)
        session = Session(
            devices,
            None,
            title="test",
            clock=lsl_clock,
            server=server,
            recorder=lambda streams: Recorder(record, streams, (), {}),
            told=noted.append,
        )

        def send():
            for name, outlet in outlets.items():
                assert outlet.wait_for_consumers(30)
                for sample in IRREGULAR[name][3]:
                    outlet.push_sample(sample)
            until = time.monotonic() + 30
            marks = 0
            while marks < 6 and time.monotonic() < until:
                updates.extend(client.poll())
                marks = sum(isinstance(update, Marked) for update in updates)
                time.sleep(0.05)
            session.stop()

        sending = threading.Thread(target=send)
        sending.start()
        summary = session.run()
        sending.join()
        updates.extend(client.poll())
        client.close()
    key = {name: device.streams[0].key for name, device in zip(IRREGULAR, devices, strict=True)}
    assert {(one.stream, one.label) for one in updates if isinstance(one, Marked)} == {
        (key["box"], "16777217"),
        (key["box"], "-3"),
        (key["trigger"], "1099511627777"),
        (key["trigger"], "7"),
        (key["text"], "go"),
        (key["text"], "stop"),
    }
    (line,) = [one.text for one in noted if "nominal rate" in one.text]
    assert line.startswith(f"{key['amp']}: EEG without a nominal rate: it is recorded")
    assert all(summary.samples[key[name]] == 2 for name in IRREGULAR if name != "text")
    streams, _ = pyxdf.load_xdf(str(record))
    read = {stream["info"]["name"][0].partition("-")[0]: stream for stream in streams}
    again, items = replayed(record)
    infos = {info.key: info for info in again}
    for name, (_, channels, fmt, sent) in IRREGULAR.items():
        assert read[name]["info"]["channel_format"] == [fmt]
        assert float(read[name]["info"]["nominal_srate"][0]) == 0.0
        if fmt == "string":
            assert read[name]["time_series"] == sent
            continue
        expected = np.array(sent, fmt.replace("double", "float"))
        assert read[name]["time_series"].dtype == expected.dtype
        np.testing.assert_array_equal(read[name]["time_series"], expected)
        info = infos[key[name]]
        assert (info.rate, info.format, len(info.channels)) == (0.0, fmt, channels)
        mine = np.concatenate([item.data for item in items if isinstance(item, Chunk) and item.stream == key[name]])
        assert mine.dtype == expected.dtype
        np.testing.assert_array_equal(mine, expected)


class Strap:
    """Something that sends ECG; the test says when."""

    streams = (StreamInfo(key="strap/ecg", kind="ecg", channels=("ECG",), rate=130.0, unit="uV"),)

    def read(self, timeout):
        return []

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        pass


@pytest.mark.parametrize(
    ("pause", "ago", "silent"), [(0.56, 0.9, False), (0.56, 1.05, True), (1.0, 1.6, False), (0.02, 0.9, True)]
)
def test_a_packet_of_a_strap_may_be_late_and_who_sends_often_or_a_strap_is_silent_within_a_second(pause, ago, silent):
    session = Session([Strap()], None, title="test", clock=lsl_clock)
    session._began = time.monotonic() - 60.0
    for number in range(20, -1, -1):
        session._meters["strap/ecg"].arrived = math.nan
        session._arrive("strap/ecg", time.monotonic() - ago - number * pause)
    health = session._health()
    assert [text.partition(" for")[0] for text in health.alarms] == ["strap/ecg: silent"] * silent
    (strap,) = [stream for stream in health.streams if stream.key == "strap/ecg"]
    assert strap.patience == pytest.approx({0.56: 0.95, 1.0: 2.5, 0.02: 0.8}[pause], abs=0.1)
    assert (strap.stale > strap.patience) is silent


def test_a_chunk_without_samples_says_that_its_source_is_there_and_adds_nothing(tmp_path):
    session = Session([Strap()], None, title="test", clock=lsl_clock)
    session._put(0, [Chunk("strap/ecg", np.empty(0), np.empty((0, 1), np.float32))])
    assert time.monotonic() - session._meters["strap/ecg"].arrived < 60.0
    assert session._counts()["strap/ecg"]["samples"] == 0
    session._put(0, [Events("keyboard", np.empty(0), ())])
    assert math.isnan(session._meters["keyboard"].arrived)

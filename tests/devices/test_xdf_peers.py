"""A record with holes, read by insula, by pyxdf at its defaults and by libxdf: the same samples at the true times."""

from __future__ import annotations

import itertools
import logging
import math
from dataclasses import dataclass, field

import numpy as np
import pytest
import pyxdf

from devices.api import Chunk, Clock, Events, StreamInfo, Tick
from devices.xdf import XdfReplay
from devices.xdf_deidentify import deidentify
from devices.xdf_format import OWN_DESC, SESSION_NAME, SESSION_TYPE, XdfFile, XdfWriter
from realtime.record import Recorder
from realtime.session import Session

GAPS = (0.1, 1.0, 5.0, 30.0)
RATES = {"eeg": 250.0, "ecg": 130.0}
WITHIN = 1e-3
"""Seconds: how far a stamp may be from the truth."""


@dataclass
class Truth:
    """When each sample was taken, and the count that it carries."""

    times: dict[str, np.ndarray] = field(default_factory=dict)

    def pieces(self, rng):
        """(kind, true times, first count) in order of arrival: chunks of about 50 ms; holes of GAPS, a minute apart."""
        every = []
        for kind, rate in RATES.items():
            taken = np.arange(round(300 * rate)) / rate + 1000.0
            lost = np.zeros(len(taken), dtype=bool)
            for place, gap in enumerate(GAPS):
                start = 1040.0 + 60.0 * place + 0.3 * (kind == "ecg")
                lost |= (taken >= start) & (taken < start + gap)
            edges = [0, *(np.flatnonzero(np.diff(lost.astype(int))) + 1).tolist(), len(taken)]
            self.times[kind] = taken[~lost]
            count = 0
            for begin, end in itertools.pairwise(edges):
                if lost[begin]:
                    continue
                at = begin
                while at < end:
                    size = min(int(rng.integers(5, 20)), end - at)
                    every.append((taken[at + size - 1], kind, taken[at : at + size], count))
                    count += size
                    at += size
        for _, kind, times, count in sorted(every, key=lambda piece: piece[0]):
            yield kind, times, count


def channels(times, first):
    counts = first + np.arange(len(times), dtype=np.float32)
    return np.stack([counts, -counts], axis=1)


def session_record(path, rng):
    """As a session writes it: stamps on its own clock, and what they are off is measured near zero every 5 s."""
    truth = Truth()
    streams = [
        StreamInfo(key=kind, kind=kind, channels=("a", "b"), rate=rate, unit="uV", name=kind)
        for kind, rate in RATES.items()
    ]
    streams.append(StreamInfo(key="markers", kind="markers", channels=("marker",), rate=0.0, unit="", name="markers"))
    recorder = Recorder(path, streams, (), {"title": "peers"})
    measured = dict.fromkeys(RATES, 0.0)
    for kind, times, count in truth.pieces(rng):
        stamps = times + 30e-6 * rng.standard_normal() * np.ones(len(times))
        recorder.write(Chunk(kind, stamps, channels(times, count)))
        if times[-1] > measured[kind] + 5.0:
            measured[kind] = times[-1]
            recorder.write(Clock(kind, times[-1], 17.25, 5e-5, residual=50e-6 * float(rng.standard_normal())))
            recorder.write(Events("markers", times[-1:], (f"at {count}",)))
            recorder.write(Tick(float(times[-1])))
    recorder.close()
    return truth


def foreign_record(path, rng):
    """As recorders of LSL write it: stamps on the clock of each sender, seconds away and drifting, offsets to match."""
    truth = Truth()
    clocks = {"eeg": (3.0, 50e-6), "ecg": (-120.0, -20e-6)}  # sender's clock less the recorder's at 1000 s, and drift
    with XdfWriter(path) as writer:
        ids = {
            kind: writer.add_stream(name=kind, type=kind.upper(), channels=["a", "b"], rate=rate, format="float32")
            for kind, rate in RATES.items()
        }
        measured = dict.fromkeys(RATES, 995.0)
        for kind, times, count in truth.pieces(rng):
            ahead, drift = clocks[kind]
            while measured[kind] + 5.0 <= times[0]:  # also while no samples come
                measured[kind] += 5.0
                away = ahead + drift * (measured[kind] - 1000.0)
                writer.write_offset(ids[kind], measured[kind] + away, -away + 20e-6 * rng.standard_normal())
            writer.write(ids[kind], times + ahead + drift * (times - 1000.0), channels(times, count))
    return truth


RECORDS = {"a session of insula": session_record, "clocks of their own": foreign_record}


@pytest.fixture(params=RECORDS)
def record(request, tmp_path):
    path = tmp_path / "holes.xdf"
    return path, RECORDS[request.param](path, np.random.default_rng(3))


def check(name, times, first_channel, truth):
    """Every sample once, in order, at its true time."""
    assert np.array_equal(first_channel, np.arange(len(truth.times[name]))), name
    assert np.abs(times - truth.times[name]).max() < WITHIN, name


def test_our_reader_gives_every_sample_at_its_true_time(record):
    path, truth = record
    with XdfFile(path) as file:
        assert file.findings == []
        for stream in file.streams.values():
            if stream.name in truth.times:
                times, values = file.read(stream.id)
                check(stream.name, times, values[:, 0], truth)


def test_pyxdf_at_its_defaults_gives_every_sample_at_its_true_time(record, caplog):
    path, truth = record
    caplog.set_level(logging.WARNING, logger="pyxdf")
    streams, _ = pyxdf.load_xdf(path)
    found = 0
    for stream in streams:
        name = stream["info"]["name"][0]
        if name in truth.times:
            check(name, stream["time_stamps"], stream["time_series"][:, 0], truth)
            found += 1
    assert found == len(truth.times)
    # Of a stream whose clock nobody measured it says that its clock has no segments; of the others it says nothing.
    unmeasured = [stream["info"]["stream_id"] for stream in streams if not stream["clock_times"]]
    assert [entry.getMessage() for entry in caplog.records] == [
        f"Stream {number}: Segments and clock-segments differ" for number in unmeasured
    ]


def test_libxdf_gives_every_sample_at_its_true_time(record, libxdf):
    path, truth = record
    found = libxdf(path)
    for name in truth.times:
        rows, width = found[name]
        assert width == 2
        check(name, rows[:, 0], rows[:, 1], truth)


def eeg_only(path, seconds=12):
    with XdfWriter(path) as writer:
        number = writer.add_stream(
            name="eeg", type="EEG", channels=["Fp1", "Cz"], rate=250.0, format="float32", unit="uV"
        )
        times = np.arange(250 * seconds) / 250 + 100.0
        noise = 10 * np.random.default_rng(1).standard_normal((len(times), 2))
        writer.write(number, times, noise.astype(np.float32))
    return times


def test_libxdf_and_pyxdf_read_the_record_of_a_session_without_a_heart_and_without_an_estimate(tmp_path, libxdf):
    """No beat comes, and no estimate: the streams that could have held them stay empty."""
    times, path = eeg_only(tmp_path / "a.xdf"), tmp_path / "r.xdf"
    session = Session(
        [XdfReplay(tmp_path / "a.xdf", speed=math.inf)],
        None,
        title="t",
        clock=lambda: 0.0,
        recorder=lambda streams: Recorder(path, streams, ("arousal",), {}),
    )
    session.run()
    rows, width = libxdf(path)["eeg"]
    assert width == 2
    np.testing.assert_allclose(rows[:, 0], times, atol=WITHIN)
    streams, _ = pyxdf.load_xdf(path)
    names = {stream["info"]["name"][0]: len(stream["time_stamps"]) for stream in streams}
    assert names["eeg"] == len(times)
    assert names["insula physiology"] > 5
    assert "insula beats" not in names
    assert "insula affect" not in names


def test_libxdf_reads_a_record_that_was_killed_at_any_moment(tmp_path, libxdf):
    """Between any two writes."""
    path = tmp_path / "r.xdf"
    streams = [StreamInfo(key=kind, kind=kind, channels=("a",), rate=rate, unit="uV") for kind, rate in RATES.items()]
    recorder = Recorder(path, streams, ("arousal",), {"title": "killed"})
    sizes = [recorder.bytes_written]
    for k in range(4):
        recorder.write(Clock("ecg", 99.0 + k, 17.25, 5e-5, residual=1e-5))
        sizes.append(recorder.bytes_written)
        recorder.write(Tick(99.5 + k))
        sizes.append(recorder.bytes_written)
        if k > 1:
            recorder.write(Chunk("ecg", 100.0 + k + np.arange(13) / 130, np.zeros((13, 1), np.float32)))
            sizes.append(recorder.bytes_written)
        recorder.write(Chunk("eeg", 100.0 + k + np.arange(25) / 250, np.ones((25, 1), np.float32), lost=k))
        sizes.append(recorder.bytes_written)
    recorder.close()
    content = path.read_bytes()
    for size in sizes:
        path.write_bytes(content[:size])
        found = libxdf(path)
        with XdfFile(path) as file:
            assert file.findings == []
            samples = {stream.name: file.samples(stream.id) for stream in file.streams.values() if stream.rate}
        assert samples == {name: len(rows) for name, (rows, _) in found.items()}
    assert samples == {"eeg": 100, "ecg": 26}


def test_a_record_of_a_source_that_never_delivered_is_read_by_all_and_says_that_it_was_there(tmp_path, libxdf):
    path = tmp_path / "r.xdf"
    streams = [
        StreamInfo(key="h10/ecg", kind="ecg", channels=("ECG",), rate=130.0, unit="mV", name="h10"),
        StreamInfo(key="eeg", kind="eeg", channels=("Fp1", "Cz"), rate=250.0, unit="uV", name="amp", format="int32"),
        StreamInfo(key="pupil", kind="pupil", channels=("left",), rate=60.0, unit="mm", name="eyes"),
    ]
    recorder = Recorder(path, streams, (), {"title": "silent"})
    recorder.write(Clock("h10/ecg", 99.0, 17.25, 5e-5))
    recorder.write(Chunk("eeg", 100.0 + np.arange(25) / 250, np.ones((25, 2), np.int32)))
    recorder.close()
    assert {name: len(rows) for name, (rows, _) in libxdf(path).items()} == {"amp": 25}
    streams_read, _ = pyxdf.load_xdf(path)
    assert {stream["info"]["name"][0] for stream in streams_read} == {"amp", "insula"}
    with XdfFile(path) as file:
        assert {number: stream.name for number, stream in file.announced().items()} == {1: "h10", 3: "eyes"}
    with XdfReplay(path) as replay:  # the session's streams in its order: what the model waited for, it waits for again
        assert [(s.key, s.kind, s.channels, s.rate, s.unit, s.name, s.format) for s in replay.streams] == [
            (s.key, s.kind, s.channels, s.rate, s.unit, s.name, s.format) for s in streams
        ]
        assert (replay.start, replay.stop) == (100.0, 100.0 + 24 / 250)
        assert [info.key for info in replay.silent] == ["h10/ecg", "pupil"]


def test_a_record_of_before_whose_empty_streams_have_headers_is_replayed_and_copied_as_ever(tmp_path):
    with XdfWriter(tmp_path / "a.xdf") as writer:
        ids = [
            writer.add_stream(
                name=kind, type=kind.upper(), channels=["a"], rate=100.0, format="float32",
                desc={OWN_DESC: {"key": kind, "kind": kind}},
            )
            for kind in ("ecg", "eeg")
        ]  # fmt: skip
        session = writer.add_stream(name=SESSION_NAME, type=SESSION_TYPE, channels=["e"], rate=0.0, format="string")
        writer.write(ids[1], [1.0], np.zeros((1, 1), np.float32))
        writer.write_strings(session, [2.0], ["tick 2.0"])
    deidentify(tmp_path / "a.xdf", tmp_path / "b.xdf")
    for path in (tmp_path / "a.xdf", tmp_path / "b.xdf"):
        with XdfFile(path) as file:
            assert file.announced() == {}
        with XdfReplay(path) as replay:
            assert [info.key for info in replay.streams] == ["ecg", "eeg"]

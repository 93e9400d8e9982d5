"""A record with holes, read by insula, by pyxdf at its defaults and by libxdf: the same samples at the true times."""

from __future__ import annotations

import itertools
import logging
import shutil
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
import pyxdf

from devices.api import Chunk, Clock, Events, StreamInfo, Tick
from devices.xdf_format import XdfFile, XdfWriter
from realtime.record import Recorder

PEERS = Path(__file__).resolve().parents[1] / "peers"
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


@pytest.fixture(scope="session")
def libxdf(tmp_path_factory):
    """The program that reads with libxdf, made here."""
    compiler = shutil.which("g++") or shutil.which("c++")
    if compiler is None:
        pytest.skip("no C++ compiler: libxdf is not tried")
    if not any((Path(folder) / "xdf.h").is_file() for folder in ("/usr/include", "/usr/local/include")):
        pytest.skip("no libxdf (Debian: libxdf-dev)")
    program = tmp_path_factory.mktemp("libxdf") / "read_xdf"
    done = subprocess.run(
        [compiler, "-O1", str(PEERS / "read_xdf.cpp"), "-o", str(program), "-lxdf"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return program


def test_libxdf_gives_every_sample_at_its_true_time(record, libxdf):
    path, truth = record
    done = subprocess.run([str(libxdf), str(path)], capture_output=True, text=True, check=True, timeout=120)
    lines = itertools.dropwhile(lambda line: not line.startswith("stream "), done.stdout.splitlines())  # it talks
    found = 0
    for line in lines:
        word, count, width, name = line.split(" ", 3)
        assert word == "stream"
        rows = np.array([next(lines).split() for _ in range(int(count))], dtype=np.float64)
        if name in truth.times:
            assert int(width) == 2
            check(name, rows[:, 0], rows[:, 1], truth)
            found += 1
    assert found == len(truth.times)

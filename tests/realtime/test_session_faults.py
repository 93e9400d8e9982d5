"""Sessions in which something goes wrong: what is said, what is recorded, what goes on."""

from __future__ import annotations

import errno
import json
import math
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import pyxdf

from devices import xdf_writer
from devices.api import Chunk, Clock, DeviceError, End, Events, Notice, StreamInfo
from devices.lsl import lsl_clock
from devices.xdf import XdfReplay
from devices.xdf_format import XdfError, XdfFile, XdfWriter
from models.model import Model
from models.runtimes import load_runtime
from realtime.alarms import Alarmed
from realtime.api import Body, Cleared, Estimated, Health, Hello, Noted, SetLoop, Step, Traces
from realtime.handover import Backlog
from realtime.physiology import Physiology
from realtime.record import Recorder, Study, start_record
from realtime.recording import HELD, Recording
from realtime.remote import Client, Server
from realtime.session import Session

ROOT = Path(__file__).resolve().parents[2]
DEMO = ROOT / "devices" / "recordings" / "eegmat_subject05.xdf"
RATE = 250


class Amplifier:
    """A live source: numbered samples at 250 Hz of the session clock while it is ``on``, and what is in ``more``."""

    streams = (
        StreamInfo(key="eeg", kind="eeg", channels=("Fp1", "Fp2", "C3", "C4"), rate=float(RATE), unit="uV"),
        StreamInfo(key="marks", kind="markers", channels=("marker",), rate=0.0, unit=""),
    )

    def __init__(self) -> None:
        self.identity = {"serial": "A-17", "firmware": "2.1"}
        self.on = True
        self.problem = ""
        self.more: list = []
        self.sent = 0
        self.number = 0
        self.newest = math.nan
        self._quiet = threading.Event()
        self._last = lsl_clock()

    def read(self, timeout: float):
        self._quiet.wait(min(timeout, 0.05))
        now = lsl_clock()
        due = int((now - self._last) * RATE)
        times = self._last + (1 + np.arange(due)) / RATE
        items, self.more = self.more, []
        if due:
            self._last = float(times[-1])
            self.number += due
        if due and self.on:
            self.sent += due
            self.newest = self._last
            values = np.repeat(np.arange(self.number - due, self.number, dtype=np.float32)[:, None], 4, axis=1)
            return [*items, Chunk("eeg", times, values)]
        return items

    def __enter__(self):
        return self

    def __exit__(self, *exc) -> None:
        pass


def records_to(path, targets=()):
    return lambda streams: Recorder(path, streams, targets, {})


def events(path):
    """What the session stream of a record says."""
    with XdfFile(path) as file:
        number = next(s.id for s in file.streams.values() if s.type == "Session")
        return [str(text) for text in file.read(number)[1][:, 0]]


def samples(path, number=1):
    """The first channel of a stream of a record, which must be undamaged."""
    with XdfFile(path) as file:
        assert file.findings == []
        return file.read(number)[1][:, 0]


def play(session, *steps, patience=30.0):
    """Run a session through ``steps``: each is called with the newest health until it says yes; then it is stopped."""
    left = list(steps)
    end = time.monotonic() + patience

    def every(health) -> None:
        while left and left[0](health):
            left.pop(0)
        if not left or time.monotonic() > end:
            session.stop()

    summary = session.run(every)
    assert not left, f"{len(left)} steps were not reached"
    return summary


def replayed_counts(path):
    """What a replay of a record counts as lost, and as gaps."""
    summary = Session([XdfReplay(path, speed=math.inf)], None, title="t", clock=lsl_clock).run()
    return summary.lost, summary.gaps


def do(work):
    """A step that is done at once."""
    return lambda health: work() or True


def alarmed(words):
    return lambda health: any(words in alarm for alarm in health.alarms)


def well(health):
    return not health.alarms


def test_a_silent_stream_is_said_at_once_recorded_and_over_when_it_is_back(tmp_path):
    amplifier, path = Amplifier(), tmp_path / "r.xdf"
    seen: list = []
    with Server() as server:
        client = Client.attach(server.address)
        session = Session([amplifier], None, title="test", clock=lsl_clock, server=server, recorder=records_to(path))
        summary = play(
            session,
            lambda health: amplifier.sent > 200,
            do(lambda: setattr(amplifier, "on", False)),
            alarmed("eeg: silent for"),
            do(lambda: setattr(amplifier, "before", amplifier.newest)),
            do(lambda: setattr(amplifier, "on", True)),
            well,
            lambda health: seen.extend(client.poll()) or sum(isinstance(update, Noted) for update in seen) >= 2,
        )
        client.close()
    notes = [update for update in seen if isinstance(update, Noted)]
    assert [note.text.partition(" for ")[0] for note in notes] == ["eeg: silent", "over: eeg: silent"]
    assert 0.7 < notes[0].time - amplifier.before < 2.0  # 0.8 s on a quiet machine
    said = [text.split(" ", 2) for text in events(path)]
    assert [(word, text.partition(" for ")[0]) for word, _, text in said] == [
        ("alarm", "eeg: silent"),
        ("over", "eeg: silent"),
    ]
    assert [float(moment) for _, moment, _ in said] == [note.time for note in notes]
    numbers = samples(path)
    assert len(numbers) == amplifier.sent == summary.samples["eeg"]
    assert len(np.unique(numbers)) == len(numbers)
    assert summary.gaps == {"eeg": 1, "marks": 0}
    assert summary.problem == ""  # it came back
    assert not any("marks" in note.text for note in notes)  # events come when they come


def test_no_estimate_rests_on_old_signal_and_they_resume_one_window_after_a_gap(bundle, tmp_path):
    """Ten seconds of EEG are missing, the ECG goes on: for each window, what it rests on."""
    path = tmp_path / "hole.xdf"
    random = np.random.default_rng(3)
    kinds = {one.kind: one.channels for one in bundle.manifest.window.inputs}
    with XdfWriter(path) as writer:
        ids = {
            kind: writer.add_stream(
                name=kind, type=kind.upper(), channels=names, rate=250.0, format="float32", unit="uV"
            )
            for kind, names in kinds.items()
        }
        for tenth in range(700):
            for kind, names in kinds.items():
                times = tenth / 10 + np.arange(25) / 250
                wave = 20 * np.sin(2 * np.pi * 10 * times)[:, None] + 10 * random.standard_normal((25, len(names)))
                if kind == "ecg":
                    wave = 800 * np.exp(-0.5 * (((times * 1.2) % 1 - 0.5) / 0.015) ** 2)[:, None] + 0.05 * wave
                if kind == "ecg" or not 400 <= tenth < 500:
                    writer.write(ids[kind], times, wave.astype(np.float32))
    session = Session(
        [XdfReplay(path, speed=math.inf)], Model(bundle, load_runtime("ort", bundle)), title="test", clock=lsl_clock
    )
    estimates: list = []
    session.follow("list", estimates.append)
    summary = session.run()
    assert summary.gaps == {"eeg": 1, "ecg": 0}
    window = bundle.manifest.window.seconds
    present = {e.t_end: e.present["eeg"] for e in estimates}
    assert all(present[40.0 + k] == pytest.approx(1 - k / window, abs=0.02) for k in range(int(window) + 1))
    assert all(present[40.0 + k] == 0.0 for k in range(int(window), 11))
    with_eeg = [e.t_end for e in estimates if e.withheld is None and "eeg" in e.used]
    assert with_eeg
    assert max(t for t in with_eeg if t <= 50.0) <= 40.0 + 0.1 * window  # a tenth may be missing
    resumed = min(t for t in with_eeg if t > 50.0)
    # The filters begin anew: their first second does not count as present, a tenth of the window may be missing.
    assert 50.0 + 0.9 * window <= resumed <= 50.0 + window + 1.0


def test_what_a_device_notes_and_measures_is_recorded_shown_and_told_to_who_comes_late(tmp_path):
    amplifier, path = Amplifier(), tmp_path / "r.xdf"
    amplifier.more = [
        Clock("eeg", 5.0, 0.25, 0.0004, residual=0.002),
        Clock("marks", 5.0, -0.125, math.nan),
        Notice("eeg", 6.5, "the source\nhas been started anew"),
        Notice("eeg", math.nan, "no time"),
        Events("marks", np.array([7.0]), ("go",)),
    ]
    seen: list = []
    healths: list = []
    with Server() as server:
        session = Session([amplifier], None, title="t", clock=lsl_clock, server=server, recorder=records_to(path))

        def look() -> None:
            client = Client.attach(server.address)  # long after it happened
            end = time.monotonic() + 10
            while not any(isinstance(update, Health) for update in seen) and time.monotonic() < end:
                seen.extend(client.poll())
            client.close()

        play(
            session,
            lambda health: amplifier.sent > 100,
            lambda health: bool(healths.append(health) or True),
            do(look),
        )
    eeg, marks = healths[0].streams
    assert (eeg.offset_ms, eeg.offset_sd_ms) == (250.0, 0.4)
    assert (marks.key, marks.samples, marks.offset_ms) == ("marks", 1, -125.0)
    assert math.isnan(marks.offset_sd_ms)
    notes = [update for update in seen if isinstance(update, Noted)]
    assert notes[0] == Noted(6.5, "eeg: the source has been started anew")
    assert math.isfinite(notes[1].time)
    said = events(path)
    assert "clock eeg 0.25 0.0004" in said
    assert "clock marks -0.125 nan" in said
    assert "note 6.5 eeg the source has been started anew" in said
    streams, _ = pyxdf.load_xdf(str(path), synchronize_clocks=False)
    found = {s["info"]["name"][0]: s for s in streams}
    assert found["eeg"]["clock_values"] == [0.002]
    assert found["eeg"]["clock_times"] == [5.0 - 0.002]
    assert found["marks"]["clock_values"] == [0.0]
    with XdfReplay(path, speed=math.inf) as again:  # none of it disturbs a replay
        items = again.read(0.1)
        while not isinstance(items[-1], End):
            items += again.read(0.1)
        assert sum(len(item.times) for item in items if isinstance(item, Chunk)) == len(samples(path))
        assert not any(isinstance(item, Clock | Notice) for item in items)


def test_a_session_without_a_model_records_and_estimates_nothing(tmp_path):
    amplifier, path = Amplifier(), tmp_path / "r.xdf"
    seen: list = []
    with Server() as server:
        client = Client.attach(server.address)
        session = Session([amplifier], None, title="t", clock=lsl_clock, server=server, recorder=records_to(path))
        summary = play(session, lambda health: seen.extend(client.poll()) or amplifier.sent > 500)
        client.close()
    assert (summary.windows, summary.estimates, summary.problem) == (0, 0, "")
    assert summary.samples == {"eeg": amplifier.sent}
    hello = next(update for update in seen if isinstance(update, Hello))
    assert (hello.model, hello.used) == (None, ())
    assert any(isinstance(update, Traces) for update in seen)
    assert not any(isinstance(update, Estimated) for update in seen)
    streams, _ = pyxdf.load_xdf(str(path))
    assert {s["info"]["type"][0] for s in streams} == {"EEG", "Markers", "Physiology", "Session"}
    np.testing.assert_array_equal(samples(path), np.arange(amplifier.number)[-amplifier.sent :])


class Fails:
    """A real runtime that fails on its third call only."""

    def __init__(self, bundle) -> None:
        self._runtime, self._calls = load_runtime("ort", bundle), 0

    def __call__(self, inputs):
        self._calls += 1
        if self._calls == 3:
            raise RuntimeError("out of memory")
        return self._runtime(inputs)


@pytest.mark.parametrize("most", [1000, 1])
def test_every_alarm_is_an_event_in_the_record_and_counted_beside_it(bundle, tmp_path, monkeypatch, most):
    monkeypatch.setattr("realtime.session.MOST_LISTED", most)
    path = tmp_path / "r.xdf"
    model = Model(bundle, Fails(bundle))
    session = Session(
        [XdfReplay(DEMO, stop=20, speed=8.0)],
        model,
        title="t",
        clock=lsl_clock,
        recorder=records_to(path, ["arousal", "effort"]),
    )

    def full(estimate) -> None:
        raise OSError(28, "No space left on device")

    session.follow("table.csv", full)
    summary = session.run()
    said = [tuple(text.split(" ", 2)) for text in events(path) if text.split()[0] in ("alarm", "over")]
    assert [word for word, _, text in said if text.startswith("model: it failed")] == ["alarm", "over"]
    assert [word for word, _, text in said if text.startswith("table.csv: ")] == ["alarm"]
    for words in ("model: it failed (RuntimeError: out of memory)", "table.csv: [Errno 28]"):
        assert words in summary.problem
    sidecar = json.loads(path.with_suffix(".json").read_text())
    assert sidecar["ended"] == summary.problem
    assert [(alarm["text"], alarm["over"]) for alarm in sidecar["alarms"]] == [
        (text, word == "over") for word, _, text in said[:most]
    ]
    assert sidecar["alarms_seen"] == sum(word == "alarm" for word, _, _ in said) > 1


def test_trouble_of_a_device_and_its_end_are_events_and_the_session_goes_on_with_the_others(tmp_path):
    class Ends(Amplifier):
        gone = False

        def read(self, timeout: float):
            return [End("the plug is out")] if self.gone else super().read(timeout)

    well_one, bad, path = Amplifier(), Ends(), tmp_path / "r.xdf"
    session = Session([well_one, bad], None, title="t", clock=lsl_clock, recorder=records_to(path))
    reached: list = []
    summary = play(
        session,
        lambda health: bad.sent > 100,
        do(lambda: setattr(bad, "problem", "the strap is out of reach")),
        alarmed("out of reach"),
        do(lambda: setattr(bad, "problem", "")),
        lambda health: not alarmed("out of reach")(health),
        do(lambda: setattr(bad, "gone", True)),
        alarmed("the plug is out"),
        alarmed("eeg-2: silent"),
        do(lambda: reached.append(well_one.sent)),
        lambda health: well_one.sent > reached[0] + 100,
    )
    said = [text.split(" ", 2) for text in events(path)]
    told = [(word, text.partition(" for ")[0]) for word, _, text in said]
    assert told[:3] == [
        ("alarm", "the strap is out of reach"),
        ("over", "the strap is out of reach"),
        ("alarm", "the plug is out"),
    ]
    assert ("alarm", "eeg-2: silent") in told
    assert ("alarm", "eeg: silent") not in told
    assert summary.problem == "the plug is out"
    assert summary.samples == {"eeg": well_one.sent, "eeg-2": bad.sent}


def test_of_two_troubles_of_a_device_only_the_one_that_ends_is_said_to_be_over(tmp_path):
    amplifier, told = Amplifier(), []
    session = Session([amplifier], None, title="t", clock=lsl_clock, told=told.append)
    gone, refused = "lsl:A: the source has gone; waiting for it", "lsl:A: 6 markers refused for their stamps"
    play(
        session,
        do(lambda: setattr(amplifier, "problem", gone)),
        alarmed("has gone"),
        do(lambda: setattr(amplifier, "problem", f"{gone}\n{refused}")),
        alarmed("refused"),
        do(lambda: setattr(amplifier, "problem", gone)),
        lambda health: not alarmed("refused")(health),
    )
    assert [one.text for one in told if one.text.removeprefix("over: ").startswith("lsl:A")] == [
        gone,
        refused,
        f"over: {refused}",
    ]


# -- the disk ----------------------------------------------------------------------------------------------------------


def test_a_source_that_never_comes_back_is_a_gap_to_the_end_whose_samples_are_counted(tmp_path):
    amplifier, path, told = Amplifier(), tmp_path / "r.xdf", []
    session = Session([amplifier], None, title="t", clock=lsl_clock, recorder=records_to(path), told=told.append)
    began = []
    summary = play(
        session,
        lambda health: amplifier.sent > 200,
        do(lambda: setattr(amplifier, "on", False)),
        alarmed("eeg: silent for"),
        do(lambda: began.append(time.monotonic())),
        lambda health: time.monotonic() > began[0] + 1.0,
    )
    never_sent = amplifier.number - amplifier.sent
    assert summary.gaps == {"eeg": 1, "marks": 0}
    assert summary.lost["eeg"] == pytest.approx(never_sent, abs=0.5 * RATE)
    (said,) = [one.text for one in told if "silent to the end" in one.text]
    assert said.startswith("eeg: silent to the end, for ")
    assert said.endswith(f"s: {summary.lost['eeg']} samples missing")
    assert any(text.endswith(said.removeprefix("eeg: ")) for text in events(path))
    (described,) = [one for one in json.loads(path.with_suffix(".json").read_text())["streams"] if one["key"] == "eeg"]
    assert (described["lost"], described["gaps"]) == (summary.lost["eeg"], 1)
    assert f"lost {summary.lost['eeg']} eeg" in events(path)
    assert replayed_counts(path) == (summary.lost, summary.gaps)


@pytest.mark.parametrize("ends", [False, True])
def test_a_source_that_never_gives_a_sample_owes_them_from_the_beginning_and_a_replay_counts_the_same(tmp_path, ends):
    class Never(Amplifier):
        over = False

        def read(self, timeout: float):
            return [*super().read(timeout), *([End("the plug is out")] if self.over else [])]

    silent, path, told = Never(), tmp_path / "r.xdf", []
    silent.on = False
    session = Session([silent], None, title="t", clock=lsl_clock, recorder=records_to(path), told=told.append)
    last = [do(lambda: setattr(silent, "over", True)), alarmed("the plug is out")] if ends else []
    summary = play(session, alarmed("eeg: no sample yet"), *last)
    assert summary.lost["eeg"] == pytest.approx(silent.number, abs=0.5 * RATE)
    assert summary.lost["eeg"] > 1.5 * RATE
    assert summary.gaps["eeg"] == 1
    (said,) = [one.text for one in told if "in all" in one.text]
    assert said.endswith(f"s: {summary.lost['eeg']} samples missing")
    assert f"lost {summary.lost['eeg']} eeg" in events(path)
    streams = json.loads(path.with_suffix(".json").read_text())["streams"]
    assert {one["key"]: one["lost"] for one in streams if "lost" in one} == summary.lost
    assert replayed_counts(path) == (summary.lost, summary.gaps)


def test_markers_that_are_missing_are_counted_recorded_and_replayed_and_so_is_what_a_source_still_owes(tmp_path):
    amplifier, path = Amplifier(), tmp_path / "r.xdf"
    amplifier.owed = {"eeg": 4, "marks": 1}
    session = Session([amplifier], None, title="t", clock=lsl_clock, recorder=records_to(path))
    late = Events("marks", np.array([lsl_clock()]), ("go",), lost=2)
    summary = play(session, do(lambda: amplifier.more.append(late)), lambda health: amplifier.sent > 100)
    assert summary.lost == {"eeg": 4, "marks": 3}
    assert "lost 2 marks" in events(path)
    assert any(text.endswith("the last 4 were refused or are missing") for text in events(path))
    assert any(text.endswith("the last one was refused or is missing") for text in events(path))
    counted = {
        one["key"]: one["lost"] for one in json.loads(path.with_suffix(".json").read_text())["streams"] if "lost" in one
    }
    assert counted == {"eeg": 4, "marks": 3}
    with XdfReplay(path, speed=math.inf) as replay:
        items = [item for item in iter(lambda: replay.read(0.1), []) for item in item]
    assert [item.lost for item in items if isinstance(item, Events)] == [2, 1]
    assert sum(item.lost for item in items if isinstance(item, Chunk)) == 4
    assert replayed_counts(path)[0] == summary.lost
    with XdfReplay(path) as replay:
        assert replay.missing == summary.lost


def test_the_stamps_of_what_is_said_of_a_session_never_go_back(tmp_path):
    amplifier, path = Amplifier(), tmp_path / "r.xdf"
    session = Session([amplifier], None, title="t", clock=lsl_clock, recorder=records_to(path))
    old = Chunk("eeg", np.array([lsl_clock() - 60.0]), np.zeros((1, 4), np.float32), lost=5)

    def put() -> None:
        session._put_notice("something")
        amplifier.more.append(old)

    play(session, do(put), lambda health: amplifier.sent > 100)
    said = events(path)
    assert said.index("lost 5 eeg") > next(i for i, text in enumerate(said) if text.endswith("something"))
    with XdfFile(path) as file:
        stamps = file.read(next(s.id for s in file.streams.values() if s.type == "Session"))[0]
    assert np.all(np.diff(stamps) >= 0)


class Disk:
    """What the writer sees of the system: files whose writing can fail, or not come back, for a while."""

    def __init__(self, monkeypatch) -> None:
        self.full = False
        self.refusals = 0
        """How many of the next writes fail."""
        self.answers, self.confirms = threading.Event(), threading.Event()
        self.answers.set()
        self.confirms.set()
        seen_as = vars(os) | {"write": self._write, "fsync": self._fsync}
        monkeypatch.setattr(xdf_writer, "os", SimpleNamespace(**seen_as))

    def _write(self, file, block):
        assert self.answers.wait(60)
        if self.full or self.refusals:
            self.refusals = max(0, self.refusals - 1)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return os.write(file, block)

    def _fsync(self, file):
        assert self.confirms.wait(60)
        os.fsync(file)


def accounted(path, sent):
    """Samples in a record and samples that it says are lost: the sequence of them has no other hole."""
    numbers = samples(path)
    lost = [int(text.split()[1]) for text in events(path) if text.startswith("lost ")]
    steps = np.diff(numbers) - 1
    assert steps[steps > 0].tolist() == lost
    assert len(numbers) + sum(lost) <= sent
    return len(numbers), sum(lost)


def test_a_full_disk_is_said_acquisition_goes_on_and_what_is_missing_stands_in_the_record(tmp_path, monkeypatch):
    disk, amplifier, path = Disk(monkeypatch), Amplifier(), tmp_path / "r.xdf"
    session = Session([amplifier], None, title="t", clock=lsl_clock, recorder=records_to(path))
    reached: list = []

    def valid() -> None:
        reached.append((len(samples(path)), amplifier.sent))

    summary = play(
        session,
        lambda health: amplifier.sent > 200,
        do(lambda: setattr(disk, "full", True)),
        alarmed("No space left on device"),
        do(valid),
        lambda health: amplifier.sent > reached[0][1] + 200,
        do(valid),
        do(lambda: setattr(disk, "full", False)),
        well,
    )
    assert reached[0][0] == reached[1][0] > 0  # the file is whole, and stands still, while the disk is full
    written, lost = accounted(path, amplifier.sent)
    assert lost >= 200
    assert written + lost == amplifier.sent == summary.samples["eeg"]
    said = events(path)
    assert sum(int(text.split()[1]) for text in said if text.startswith("unrecorded ")) == summary.unrecorded > 0
    kinds = [text.split()[0] for text in said if "No space left" in text]
    assert kinds == ["alarm", "over"]
    assert "No space left on device" in summary.problem


def test_a_disk_that_stays_full_to_the_end_is_one_alarm_whose_count_is_the_last_word(tmp_path, monkeypatch):
    disk, amplifier, path, told = Disk(monkeypatch), Amplifier(), tmp_path / "r.xdf", []
    session = Session([amplifier], None, title="t", clock=lsl_clock, recorder=records_to(path), told=told.append)
    reached: list = []
    summary = play(
        session,
        lambda health: amplifier.sent > 200,
        do(lambda: setattr(disk, "full", True)),
        alarmed("No space left on device"),
        do(lambda: reached.append(amplifier.sent)),
        lambda health: amplifier.sent > reached[0] + 100,
    )
    assert not [one.text for one in told if one.text.startswith("over:")]
    assert len([one for one in told if "No space left on device" in one.text]) == 1
    assert f"{summary.unrecorded} chunks or estimates could not be recorded." in summary.problem
    assert summary.unrecorded > 0


def recording_to(path):
    recorder = Recorder(path, Amplifier.streams, (), {})
    return Recording(lambda: recorder, waits=False, now=lambda: 3.0)


def test_what_a_full_disk_refused_is_recorded_also_when_nothing_comes_any_more(tmp_path, monkeypatch):
    disk, path = Disk(monkeypatch), tmp_path / "r.xdf"
    recording = recording_to(path)
    recording.put(Chunk("eeg", np.array([1.0]), np.zeros((1, 4), np.float32)))
    recording.put(Alarmed(2.0, "the plug is out"))
    recording.close()
    disk.refusals = 2  # the chunk, and what is missing before the alarm; then there is room
    recording.run(lambda _: {}, dict)
    assert events(path) == ["alarm 2.0 the plug is out", "unrecorded 1"]


def test_alarms_that_a_full_disk_never_took_are_counted(tmp_path, monkeypatch):
    disk = Disk(monkeypatch)
    recording = recording_to(tmp_path / "r.xdf")
    for second in range(HELD + 2):
        recording.put(Alarmed(float(second), "the plug is out"))
    recording.close()
    disk.full = True
    recording.run(lambda _: {}, dict)
    assert recording.unrecorded == HELD + 2


def test_of_more_alarms_than_are_held_for_a_full_disk_the_oldest_are_counted_in_the_record(tmp_path, monkeypatch):
    disk, path = Disk(monkeypatch), tmp_path / "r.xdf"
    recording = recording_to(path)
    for second in range(HELD + 2):
        recording.put(Alarmed(float(second), "the plug is out"))
    recording.close()
    disk.refusals = HELD + 2
    recording.run(lambda _: {}, dict)
    said = events(path)
    assert said[0] == "alarm 2.0 the plug is out"
    assert (len(said), said[-1], recording.unrecorded) == (HELD + 1, "unrecorded 2", 2)


def test_a_stream_whose_first_chunk_the_disk_refused_has_its_clock_with_the_next(tmp_path, monkeypatch):
    disk, path = Disk(monkeypatch), tmp_path / "r.xdf"
    recorder = Recorder(path, Amplifier.streams, (), {})
    samples = Chunk("eeg", np.array([1.0]), np.zeros((1, 4), np.float32))
    disk.refusals = 1
    with pytest.raises(XdfError, match="No space left"):
        recorder.write(samples)
    recorder.write(samples)
    recorder.close()
    streams, _ = pyxdf.load_xdf(path, synchronize_clocks=False)
    eeg = next(stream for stream in streams if stream["info"]["type"] == ["EEG"])
    assert (eeg["clock_times"], eeg["clock_values"]) == ([1.0], [0.0])


def test_a_disk_that_does_not_answer_is_said_and_nothing_is_lost_when_it_does_again(tmp_path, monkeypatch):
    disk, amplifier, path = Disk(monkeypatch), Amplifier(), tmp_path / "r.xdf"
    session = Session([amplifier], None, title="t", clock=lsl_clock, recorder=records_to(path))
    reached: list = []
    summary = play(
        session,
        lambda health: amplifier.sent > 100,
        do(disk.answers.clear),
        alarmed("the disk does not answer"),
        do(lambda: reached.append((len(samples(path)), amplifier.sent))),
        lambda health: amplifier.sent > reached[0][1] + 100,
        do(disk.answers.set),
        well,
    )
    assert reached[0][0] < reached[0][1]
    np.testing.assert_array_equal(samples(path), np.arange(amplifier.number)[-amplifier.sent :])
    assert (summary.unrecorded, summary.problem) == (0, "")
    assert [text.split()[0] for text in events(path) if "does not answer" in text] == ["alarm", "over"]


def test_a_disk_that_does_not_confirm_is_said_and_the_record_goes_on_meanwhile(tmp_path, monkeypatch):
    monkeypatch.setattr(xdf_writer, "BOUNDARY_EVERY", 0.5)
    disk, amplifier, path = Disk(monkeypatch), Amplifier(), tmp_path / "r.xdf"
    session = Session([amplifier], None, title="t", clock=lsl_clock, recorder=records_to(path))
    reached: list = []
    disk.confirms.clear()
    summary = play(
        session,
        alarmed("has not confirmed"),
        do(lambda: reached.append(amplifier.sent)),
        lambda health: len(samples(path)) > reached[0] + 50,
        do(disk.confirms.set),
        well,
    )
    assert (summary.unrecorded, summary.problem) == (0, "")
    assert len(samples(path)) == amplifier.sent


def test_a_disk_that_stalls_when_the_record_starts_is_said_and_nothing_that_came_is_lost(tmp_path, monkeypatch):
    answers, amplifier, path = threading.Event(), Amplifier(), tmp_path / "r.xdf"
    sync = os.fsync

    def stalled(file):
        assert answers.wait(60)
        sync(file)

    monkeypatch.setattr(os, "fsync", stalled)
    session = Session([amplifier], None, title="t", clock=lsl_clock, recorder=records_to(path))
    reached: list = []
    began = time.monotonic()
    summary = play(
        session,
        alarmed("the disk does not answer"),
        do(lambda: reached.append((time.monotonic() - began, amplifier.sent))),
        lambda health: amplifier.sent > reached[0][1] + 100,
        do(answers.set),
        well,
    )
    assert reached[0][1] > RATE  # acquisition went on
    assert reached[0][0] < 8.0  # 1.6 s on a quiet machine
    np.testing.assert_array_equal(samples(path), np.arange(amplifier.number)[-amplifier.sent :])
    assert (summary.unrecorded, summary.problem) == (0, "")
    assert [text.split()[0] for text in events(path) if "does not answer" in text] == ["alarm", "over"]
    described = json.loads(path.with_suffix(".json").read_text())
    assert described["started"]["session_clock"] < samples_begin(path) + 1.0
    assert [alarm["over"] for alarm in described["alarms"]] == [False, True]


def samples_begin(path):
    with XdfFile(path) as file:
        return file.span(1)[0]


def test_a_record_that_opens_late_is_begun_late_and_one_that_fails_late_ends_the_session(tmp_path, monkeypatch):
    """A file system that answers after seconds to the very first call."""
    answers, amplifier, path = threading.Event(), Amplifier(), tmp_path / "r.xdf"

    def start(streams):
        assert answers.wait(60)
        return Recorder(path, streams, (), {})

    session = Session([amplifier], None, title="t", clock=lsl_clock, recorder=start)
    play(session, alarmed("the disk does not answer"), do(answers.set), well, lambda health: health.record == str(path))
    assert len(samples(path)) == amplifier.sent
    answers.clear()
    again = Session([Amplifier()], None, title="t", clock=lsl_clock, recorder=start)
    with pytest.raises(XdfError, match="exists already"):
        play(again, alarmed("the disk does not answer"), do(answers.set), lambda health: False)


def never_opens(answers):
    """A disk that stalls when the record is begun, and then has no room for it."""

    def start(streams):
        assert answers.wait(60)
        raise XdfError("r.xdf: could not be begun (No space left on device), there is no file.")

    return start


def test_a_session_with_a_model_goes_on_without_a_record_that_turns_out_late_not_to_begin(bundle):
    answers, told, estimates = threading.Event(), [], []
    session = Session(
        [XdfReplay(DEMO, stop=120, speed=8.0)],
        Model(bundle, load_runtime("ort", bundle)),
        title="t",
        clock=lsl_clock,
        recorder=never_opens(answers),
        told=lambda noted: told.append(noted.text),
    )
    session.follow("list", estimates.append)
    reached: list = []
    summary = play(
        session,
        alarmed("the disk does not answer"),
        do(answers.set),
        alarmed("nothing is recorded: r.xdf: could not be begun (No space left on device)"),
        do(lambda: reached.append(len(estimates))),
        lambda health: len(estimates) > reached[0] + 5 and alarmed("nothing is recorded: ")(health),
        patience=120.0,
    )
    assert summary.problem.startswith("nothing is recorded: r.xdf: ")
    assert summary.unrecorded > len(estimates) > 0
    assert sum(text.startswith("nothing is recorded: ") for text in told) == 1  # it stands, and is said once


@pytest.mark.parametrize("dispensable", [False, True])
def test_a_record_that_cannot_be_begun_is_raised_at_once_and_late_only_when_there_is_nothing_else_to_do(dispensable):
    answers = threading.Event()
    answers.set()
    for awaited in (True, False):
        recording = Recording(lambda: never_opens(answers)(()), waits=False, now=lambda: 3.0, dispensable=dispensable)
        recording.awaited = awaited
        recording.put(Chunk("eeg", np.array([1.0]), np.zeros((1, 4), np.float32)))
        recording.close()
        if awaited or not dispensable:
            with pytest.raises(XdfError, match="No space left on device"):
                recording.run(lambda _: {}, dict)
            continue
        recording.run(lambda _: {}, dict)
        assert recording.unrecorded == 1
        assert recording.standing() == recording.problems
        assert recording.problems["record"].startswith("nothing is recorded: r.xdf: could not be begun")


@pytest.mark.parametrize("awaited", [True, False])
def test_a_description_that_fails_is_raised_at_once_and_late_it_is_an_alarm_until_it_is_written(tmp_path, awaited):
    path = tmp_path / "r.xdf"
    recording = Recording(
        lambda: Recorder(path, Amplifier.streams, (), {}), waits=False, now=lambda: 3.0, dispensable=True
    )
    recording.awaited = awaited
    recording.put(Chunk("eeg", np.array([1.0]), np.ones((1, 4), np.float32)))
    recording.close()
    standing: list = []

    def beginning(recorder):
        raise XdfError("r.json: the description of the record could not be written (No space left on device).")

    if awaited:
        with pytest.raises(XdfError, match=r"r\.json"):
            recording.run(beginning, dict)
        assert list(tmp_path.iterdir()) == []
        return
    recording.run(beginning, lambda: {"ended": "late"}, begun=lambda: standing.append(recording.standing()))
    assert [text.partition(":")[0] for text in standing[0].values()] == ["r.json"]
    assert recording.standing() == {}  # at the end it could be written
    assert json.loads(path.with_suffix(".json").read_text()) == {"ended": "late"}
    assert "r.json: the description" in recording.problems["description"]
    assert list(samples(path)) == [1.0]  # what was put is recorded, as are its alarms


def test_a_description_that_fails_late_is_an_alarm_at_once_and_the_record_goes_on(tmp_path, monkeypatch):
    answers, amplifier, path = threading.Event(), Amplifier(), tmp_path / "r.xdf"
    sync = os.fsync

    def full(file):
        assert answers.wait(60)
        monkeypatch.setattr(os, "fsync", sync)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)  # of the description: the record is synced elsewhere, and later
    session = Session([amplifier], None, title="t", clock=lsl_clock, recorder=records_to(path))
    reached: list = []
    summary = play(
        session,
        alarmed("the disk does not answer"),
        do(answers.set),
        alarmed("r.json: the description of the record could not be written (No space left on device)"),
        do(lambda: reached.append(amplifier.sent)),
        lambda health: amplifier.sent > reached[0] + 100,
    )
    assert len(samples(path)) == amplifier.sent
    assert "the description of the record could not be written" in summary.problem
    assert sum("the description" in text for text in events(path) if text.startswith("alarm")) == 1
    described = json.loads(path.with_suffix(".json").read_text())  # at the end it could be
    assert "the description of the record could not be written" in described["ended"]


@pytest.mark.parametrize("stage", ["open", "describe"])
def test_a_record_that_cannot_be_begun_ends_the_session_before_anything_is_read_and_leaves_nothing(
    tmp_path, monkeypatch, stage
):
    amplifier = Amplifier()
    place = Study(folder=tmp_path / "study", participant="P07", session="01", task="rest")

    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    if stage == "open":
        monkeypatch.setattr(xdf_writer, "os", SimpleNamespace(**(vars(os) | {"write": full})))
    else:
        monkeypatch.setattr(os, "fsync", full)
    session = Session(
        [amplifier], None, title="t", clock=lsl_clock, recorder=lambda streams: start_record(place, streams, (), {})
    )
    with pytest.raises(XdfError, match="No space left on device") as refused:
        session.run()
    assert "\n" not in str(refused.value)
    assert "cut back" not in str(refused.value)
    assert amplifier.sent == 0
    assert list(tmp_path.iterdir()) == []  # neither a file that blocks the name nor empty folders


def test_a_stall_that_meets_the_end_of_a_session_is_in_the_record_with_its_end(tmp_path, monkeypatch):
    disk, amplifier, path = Disk(monkeypatch), Amplifier(), tmp_path / "r.xdf"
    session = Session([amplifier], None, title="t", clock=lsl_clock, recorder=records_to(path))
    stalled: list = []

    def every(health) -> None:
        if amplifier.sent > 100 and not stalled:
            stalled.append(health)
            disk.answers.clear()
            session.stop()
        elif alarmed("the disk does not answer")(health):
            disk.answers.set()

    summary = session.run(every)
    assert (summary.unrecorded, summary.problem) == (0, "")
    assert len(samples(path)) == amplifier.sent
    assert [text.split()[0] for text in events(path) if "does not answer" in text] == ["alarm", "over"]
    assert [alarm["over"] for alarm in json.loads(path.with_suffix(".json").read_text())["alarms"]] == [False, True]


@pytest.mark.parametrize("stalls", ["estimates.csv", "model"])
def test_what_stalls_is_named_and_blamed_for_the_windows_skipped_a_follower_or_the_model(bundle, tmp_path, stalls):
    """As a CSV on a disk that does not answer, or a model that is stuck."""
    answers, path = threading.Event(), tmp_path / "r.xdf"

    class Steady(Amplifier):
        """As wide as the model wants it."""

        streams = (
            StreamInfo(
                key="eeg", kind="eeg", channels=bundle.manifest.window.inputs[0].channels, rate=float(RATE), unit="uV"
            ),
        )

        def read(self, timeout: float):
            wide = len(self.streams[0].channels)
            for item in super().read(timeout):
                noise = 10 * np.random.default_rng(self.number).standard_normal((len(item.times), wide))
                yield Chunk("eeg", item.times, noise.astype(np.float32))

    heard: list = []

    def follower(estimate) -> None:
        heard.append(estimate.t_end)
        if len(heard) == 2 and stalls == "estimates.csv":
            assert answers.wait(60)

    class Stuck(Model):
        def update(self, window):
            if len(heard) == 2 and stalls == "model":
                assert answers.wait(60)
            return super().update(window)

    model = Stuck(bundle, load_runtime("ort", bundle))
    session = Session([Steady()], model, title="t", clock=lsl_clock, recorder=records_to(path, ["arousal", "effort"]))
    session.follow("estimates.csv", follower)
    said: list = []
    summary = play(
        session,
        lambda health: said.extend(health.alarms) or alarmed("too slow, it skipped")(health),
        do(answers.set),
        lambda health: not alarmed("no answer for")(health) and len(heard) > 3,
        patience=120.0,
    )
    assert summary.skipped > 2
    assert {text.partition(":")[0] for text in said if "too slow" in text} == {stalls}
    assert {text.partition(":")[0] for text in said if "no answer for" in text} == {stalls} - {"model"}
    text = next((text for text in events(path) if "no answer for" in text and text.startswith("alarm")), "")
    assert bool(text) == (stalls != "model")


def test_what_waits_for_a_disk_is_bounded_by_bytes_and_what_gives_way_is_counted():
    def chunk(k, lost=0):
        return Chunk("eeg", np.arange(100.0) + 100 * k, np.zeros((100, 9), np.float32), lost)

    size = 500 + 100 * (8 + 36)
    backlog = Backlog(waits=False, limit=10 * size)
    for k in range(15):
        backlog.put(chunk(k, lost=k))
    backlog.put(Chunk("other", np.zeros(1), np.zeros((1, 1), np.float32)))
    assert (len(backlog), backlog.refused) == (10, 6)
    backlog.put(Alarmed(1.0, "the disk is slow"))  # what is said of it is little, and not given up
    assert [backlog.get().lost for _ in range(10)] == list(range(10))
    assert backlog.get() == Alarmed(1.0, "the disk is slow")
    backlog.put(chunk(15, lost=1))
    backlog.put(chunk(16))
    backlog.close()
    assert backlog.get().lost == 1 + sum(range(10, 15)) + 500
    assert backlog.get().lost == 0
    assert backlog.get() is None


def test_the_backlog_of_a_replay_waits_instead():
    backlog = Backlog(waits=True, limit=2000)
    entries = [Chunk("eeg", np.arange(50.0), np.full((50, 1), k, np.float32)) for k in range(40)]
    giving = threading.Thread(target=lambda: [backlog.put(entry) for entry in entries] and backlog.close())
    giving.start()
    got = []
    while (entry := backlog.get()) is not None:
        got.append(entry)
        assert len(backlog) <= 2
    giving.join()
    assert got == entries
    assert backlog.refused == 0


TMPFS = """
import os, shutil, subprocess, sys, threading, time
import numpy as np
from pathlib import Path
from devices.api import Chunk, StreamInfo
from devices.lsl import lsl_clock
from realtime.record import Study, start_record
from realtime.session import Session

disk, out = Path(sys.argv[1]), Path(sys.argv[2])
subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "none", disk], check=True)
ballast = disk / "ballast"
ballast.write_bytes(bytes(160 << 10))

class Fast:
    streams = (StreamInfo(key="eeg", kind="eeg", channels=("Cz",), rate=1000.0, unit="uV"),)
    sent = 0
    def read(self, timeout):
        time.sleep(0.02)
        numbers = np.arange(self.sent, self.sent + 40)
        self.sent += 40
        return [Chunk("eeg", 100 + numbers / 1000, numbers[:, None].astype(np.float32))]
    def __enter__(self):
        return self
    def __exit__(self, *exc):
        pass

device, alarms, freed = Fast(), set(), []
def every(health):
    full = any("No space left on device" in alarm for alarm in health.alarms)
    if full and not freed:
        freed.append(device.sent)
    elif freed and device.sent > freed[0] + 1000 and ballast.exists():
        ballast.unlink()
    elif freed and not ballast.exists() and not health.alarms:
        session.stop()
session = Session([device], None, title="t", clock=lsl_clock,
    recorder=lambda streams: start_record(Study(folder=disk, participant="A", session="", task="b"), streams, (), {}))
summary = session.run(every)
for path in disk.rglob("*_eeg.*"):
    shutil.copy(path, out)
print(device.sent, summary.unrecorded, summary.samples["eeg"])
"""


def test_a_real_disk_that_fills_costs_what_did_not_fit_and_the_record_says_how_much(tmp_path):
    unshare = ["unshare", "--map-root-user", "--mount"]
    if shutil.which("unshare") is None or subprocess.run([*unshare, "true"], check=False).returncode:
        pytest.skip("no small disk can be mounted here")
    (tmp_path / "disk").mkdir()
    (tmp_path / "out").mkdir()
    command = [*unshare, sys.executable, "-c", TMPFS, tmp_path / "disk", tmp_path / "out"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    sent, unrecorded, counted = (int(word) for word in done.stdout.split())
    path = tmp_path / "out" / "sub-A_task-b_run-01_eeg.xdf"
    written, lost = accounted(path, sent)
    assert written + lost == sent == counted
    assert lost >= 1000
    assert unrecorded * 40 >= lost
    sidecar = json.loads(path.with_suffix(".json").read_text())
    assert "No space left on device" in sidecar["ended"]
    assert sidecar["unrecorded"] == unrecorded


STALLED = """
import os, sys, threading, types
import insula
from devices import xdf_writer
count = 0
def write(file, block):
    global count
    count += 1
    if count > 60:
        print("stalled", flush=True)
        threading.Event().wait()
    return os.write(file, block)
xdf_writer.os = types.SimpleNamespace(**(vars(os) | {"write": write}))
sys.exit(insula.main(["live", "synthetic:", "--headless", "--record", sys.argv[1]]))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="Ctrl-C of another process")
def test_a_session_whose_disk_never_answers_can_be_ended_and_what_was_written_is_whole(tmp_path):
    path = tmp_path / "r.xdf"
    process = subprocess.Popen(
        [sys.executable, "-c", STALLED, str(path)], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    for line in process.stdout:
        if "stalled" in line:
            break
    for _ in range(3):
        process.send_signal(signal.SIGINT)
        time.sleep(0.5)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130, said
    assert "Traceback" not in said
    assert len(samples(path)) > 0
    assert json.loads(path.with_suffix(".json").read_text())["ended"] is None  # it did not end as it should


# -- replays -----------------------------------------------------------------------------------------------------------


def test_a_looped_replay_goes_on_for_the_dashboard_and_is_recorded_once(bundle, tmp_path):
    seen: list = []
    path = tmp_path / "looped.xdf"
    with Server() as server:
        client = Client.attach(server.address)
        client.send(SetLoop(True))
        device = XdfReplay(DEMO, stop=8, speed=40.0)
        session = Session(
            [device],
            Model(bundle, load_runtime("ort", bundle)),
            title="t",
            clock=lsl_clock,
            server=server,
            recorder=records_to(path, ["arousal", "effort"]),
        )
        estimates: list = []
        session.follow("list", estimates.append)
        healths: list = []

        def round_again(health) -> bool:
            seen.extend(client.poll())
            healths.append(health)
            return sum(isinstance(update, Cleared) for update in seen) >= 3

        play(session, round_again)
        client.close()
    assert healths[-1].looping
    ends = [estimate.t_end for estimate in estimates]
    assert ends.count(ends[0]) >= 3
    shown = [update.estimate.t_end for update in seen if isinstance(update, Estimated)]
    assert shown.count(ends[0]) >= 2
    with XdfReplay(DEMO, stop=8, speed=math.inf) as whole, XdfFile(path) as record:
        items = whole.read(1.0)
        while not isinstance(items[-1], End):
            items += whole.read(1.0)
        once = np.concatenate([item.times for item in items if isinstance(item, Chunk) and item.stream == "eeg"])
        number = next(s.id for s in record.streams.values() if s.type == "EEG")
        np.testing.assert_array_equal(record.read(number)[0], once)
        affect = next(s.id for s in record.streams.values() if s.name == "insula affect")
        assert (np.diff(record.read(affect)[0]) > 0).all()


def test_a_step_goes_on_by_that_much_and_stands_still_again(bundle):
    with Server() as server:
        client = Client.attach(server.address)
        device = XdfReplay(DEMO, stop=30, speed=1.0)
        device.pause()
        session = Session(
            [device], Model(bundle, load_runtime("ort", bundle)), title="t", clock=lsl_clock, server=server
        )
        stood: list = []
        for nonsense in (math.nan, -1.0, math.inf):
            client.send(Step(nonsense))  # a stranger's dashboard
        play(
            session,
            lambda health: bool(stood.append(health.now) or len(stood) > 3),
            do(lambda: client.send(Step(2.0))),
            lambda health: health.now > stood[-1] + 1.9,
            do(lambda: client.send(Step(2.0))),
            lambda health: health.now > stood[-1] + 3.9,
            lambda health: bool(stood.append(health.now) or len(stood) > 7),
        )
        client.close()
    assert stood[3] == device.start
    assert stood[-1] == stood[-4] == pytest.approx(device.start + 4.0)
    assert not device.playing


def test_a_device_error_stays_one_line(bundle):
    class Broken(Amplifier):
        def read(self, timeout: float):
            raise DeviceError("the driver\nhas gone")

    session = Session([Broken()], None, title="t", clock=lsl_clock)
    assert "has gone" in session.run().problem


def test_a_fault_of_the_physiology_costs_its_figures_alone(tmp_path, monkeypatch):
    amplifier, path = Amplifier(), tmp_path / "r.xdf"
    push = Physiology.push

    def failing(self, chunk):
        if amplifier.sent > 4 * RATE:
            raise RuntimeError("no such beat")
        return push(self, chunk)

    monkeypatch.setattr(Physiology, "push", failing)
    at_fault: list = []
    with Server() as server:
        session = Session([amplifier], None, title="test", clock=lsl_clock, server=server, recorder=records_to(path))
        summary = play(
            session,
            lambda health: amplifier.sent > 2 * RATE and well(health),
            alarmed("heart and rhythms: their analysis failed (RuntimeError: no such beat)"),
            do(lambda: at_fault.append(amplifier.sent)),
            lambda health: amplifier.sent > at_fault[0] + RATE,
        )
    assert summary.samples["eeg"] == amplifier.sent
    assert list(samples(path)) == list(range(amplifier.sent))
    assert "no such beat" in summary.problem
    with XdfFile(path) as file:
        rows = next(stream.id for stream in file.streams.values() if stream.name == "insula physiology")
        assert len(file.read(rows)[0]) >= 2


def replayed_with_faults(monkeypatch, faulty, *, stop, path=None):
    """A replay whose analysis of heart and rhythms fails while ``faulty`` (seconds since its start) says so: the
    seconds of the bodies, the notices, how often it failed and the summary."""
    push, failures, bodies, noted = Physiology.push, [], [], []
    device = XdfReplay(DEMO, stop=stop, speed=math.inf)

    def failing(self, chunk):
        if faulty(chunk.times[-1] - device.start):
            failures.append(chunk.times[-1] - device.start)
            raise RuntimeError("no such\nbeat")
        return push(self, chunk)

    monkeypatch.setattr(Physiology, "push", failing)
    recorder = records_to(path) if path else None
    session = Session([device], None, title="test", clock=lsl_clock, recorder=recorder, told=noted.append)
    session.follow_body("list", bodies.append)
    summary = session.run()
    begun = [one for one in noted if "begun anew" in one.text]
    return [body.time - device.start for body in bodies], bodies, begun, failures, summary


def test_heart_and_rhythms_begin_anew_after_a_fault_and_the_record_says_so(tmp_path, monkeypatch):
    path = tmp_path / "r.xdf"
    seconds, bodies, begun, failures, summary = replayed_with_faults(
        monkeypatch, lambda at: 20.0 < at < 20.5, stop=60, path=path
    )
    assert len(failures) == 1  # it rests for 5 s, and the fault has passed by then
    away = [second for second in seconds if 20.5 < second < 25.0]
    assert away == []
    assert max(second for second in seconds if second < 21) >= 19
    again = [body for second, body in zip(seconds, bodies, strict=True) if second > 25]
    assert len(again) > 30
    assert "s of beats so far" in again[0].heart["HR"].reason  # nothing is left of what failed
    assert math.isfinite(again[-1].heart["HR"].value)
    assert [one.text for one in begun] == ["heart and rhythms: begun anew after 5 s, from nothing"]
    assert any("begun anew after 5 s" in text for text in events(path) if text.startswith("note "))
    assert "their analysis failed (RuntimeError: no such beat)" in summary.problem


def test_a_fault_of_the_physiology_that_stays_is_tried_less_and_less_often(monkeypatch):
    seconds, _, begun, failures, _ = replayed_with_faults(monkeypatch, lambda at: at > 10.0, stop=120)
    assert len(failures) == 5
    np.testing.assert_allclose(np.diff(failures), [5, 10, 20, 40], atol=0.5)
    assert [int(one.text.split()[-4]) for one in begun] == [5, 10, 20, 40]
    assert max(seconds) < 11


def test_pauses_are_short_again_once_the_physiology_has_gone_well_for_long(monkeypatch):
    monkeypatch.setattr("realtime.session.PHYSIOLOGY_LONGEST", 20.0)
    _, _, begun, _, _ = replayed_with_faults(monkeypatch, lambda at: 10.0 < at < 16.0 or 60.0 < at < 60.5, stop=80)
    assert [int(one.text.split()[-4]) for one in begun] == [5, 10, 5]


def test_a_dashboard_is_told_why_there_is_no_heart_while_its_analysis_rests(monkeypatch):
    monkeypatch.setattr(Physiology, "push", lambda *_: 1 / 0)
    amplifier, bodies = Amplifier(), []
    with Server() as server:
        client = Client.attach(server.address)
        session = Session([amplifier], None, title="test", clock=lsl_clock, server=server)

        def told(_) -> bool:
            bodies.extend(update for update in client.poll() if isinstance(update, Body))
            return bool(bodies)

        play(session, alarmed("heart and rhythms: their analysis failed (ZeroDivisionError"), told)
        client.close()
    assert "ZeroDivisionError" in bodies[0].reason
    assert "ZeroDivisionError" in bodies[0].brains[0].reason


def test_a_terminal_that_is_closed_costs_its_lines_and_nothing_of_the_record(tmp_path):
    amplifier, path = Amplifier(), tmp_path / "r.xdf"
    looked: list = []

    def closed(*said) -> None:
        raise OSError(errno.EIO, "Input/output error")

    session = Session([amplifier], None, title="test", clock=lsl_clock, recorder=records_to(path), told=closed)

    def every(health) -> None:
        looked.append(health)
        if len(looked) == 2:
            amplifier.more.append(Notice("eeg", math.nan, "the battery is low"))
        if len(looked) > 4:
            session.stop()
            closed()

    summary = session.run(every)
    assert summary.problem.startswith("messages in the terminal: ")
    assert summary.samples["eeg"] == amplifier.sent == len(samples(path)) > 0
    assert any("the battery is low" in text for text in events(path))
    assert any("messages in the terminal: " in text for text in events(path))


def test_a_source_that_cannot_be_closed_is_said_and_the_others_are_closed(tmp_path):
    class Torn(Amplifier):
        def __exit__(self, *exc) -> None:
            raise OSError(errno.ENODEV, "No such device")

    class Other(Amplifier):
        closed = False

        def __exit__(self, *exc) -> None:
            self.closed = True

    torn, other = Torn(), Other()
    session = Session([other, torn], None, title="test", clock=lsl_clock, recorder=records_to(tmp_path / "r.xdf"))
    summary = play(session, lambda health: torn.sent > 50)
    assert "source 2 could not be closed" in summary.problem
    assert "No such device" in summary.problem
    assert other.closed
    assert summary.samples == {"eeg": other.sent, "eeg-2": torn.sent}


def test_a_listener_to_heart_and_rhythms_that_fails_is_an_alarm_and_the_next_is_told():
    def broken(body) -> None:
        raise OSError("the network is gone")

    amplifier, told = Amplifier(), []
    session = Session([amplifier], None, title="test", clock=lsl_clock)
    session.follow_body("LSL physiology", broken)
    session.follow_body("list", told.append)
    play(session, alarmed("LSL physiology: the network is gone; 2 seconds are missing there"))
    assert len(told) >= 2
    assert told[0].reason == "no ECG: no stream carries it"
    assert told[0].time == round(told[0].time)


def test_who_attaches_late_is_told_heart_and_rhythms_so_far():
    amplifier = Amplifier()
    bodies: list = []
    with Server() as server:
        session = Session([amplifier], None, title="test", clock=lsl_clock, server=server)

        def look() -> bool:
            client = Client.attach(server.address)
            end = time.monotonic() + 10.0
            while len(bodies) < 3 and time.monotonic() < end:
                bodies.extend(update for update in client.poll() if isinstance(update, Body))
                time.sleep(0.01)
            client.close()
            return True

        play(session, lambda health: amplifier.sent > 4 * RATE, do(look))
    assert [body.time for body in bodies] == [bodies[0].time + i for i in range(len(bodies))]
    assert bodies[0].time < amplifier.newest - 2.5
    assert bodies[-1].brains[0].labels == ("Fp1", "Fp2", "C3", "C4")

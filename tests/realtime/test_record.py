"""A record and its replay, through real files: what the recorder wrote comes back as the session's sequence."""

from __future__ import annotations

import json
import math
import os
import threading
from datetime import datetime, timedelta, timezone
from types import SimpleNamespace

import numpy as np
import pytest
import pyxdf

from devices import xdf_writer
from devices.api import Chunk, Clock, End, Events, StreamInfo, Tick
from devices.xdf import XdfReplay
from devices.xdf_format import XdfError
from models.api import Estimate, estimate_channels
from realtime.alarms import Alarmed
from realtime.record import Recorder, Skipped, Study, start_record, study_path
from realtime.sidecar import beginning, conclusion, write_sidecar

STREAMS = (
    StreamInfo(key="amp/eeg", kind="eeg", channels=("Cz", "Pz", "Oz"), rate=250.0, unit="uV", name="amp"),
    StreamInfo(key="h10/ecg", kind="ecg", channels=("ECG",), rate=130.0, unit="mV", name="h10"),
    StreamInfo(key="amp/eeg-2", kind="eeg", channels=("Cz",), rate=500.0, unit="V", name="amp"),
    StreamInfo(key="keys", kind="markers", channels=("marker",), rate=0.0, unit=""),
)
TARGETS = ("arousal", "effort")


def plain(item):
    """An item as something that can be compared with ==, to the last bit."""
    if isinstance(item, Chunk):
        return ("chunk", item.stream, item.times.tobytes(), item.data.tobytes(), item.data.shape, item.lost)
    if isinstance(item, Events):
        return ("events", item.stream, item.times.tobytes(), item.labels)
    return item


def replayed(path):
    """Everything that a replay of the record gives but its End, and the replay itself, closed."""
    with XdfReplay(path, speed=math.inf) as replay:
        items = []
        while not (items and isinstance(items[-1], End)):
            items += replay.read(0.1)
        assert items.pop() == End()
        assert replay.findings == ()
        return items, replay


def record(path, entries):
    recorder = Recorder(path, STREAMS, TARGETS, {"model": "small"})
    for entry in entries:
        recorder.write(entry)
    recorder.close()
    assert path.stat().st_size == recorder.bytes_written
    return path


def estimate(t_end, mean, sd, quality, withheld=None):
    return Estimate(t_end, TARGETS, np.array(mean), np.array(sd), {"eeg": 1.0}, quality, withheld)


def session(seed):
    """A session's entries: three signals interleaved, losses, markers, ticks, skipped windows, estimates."""
    random = np.random.default_rng(seed)
    signals = [info for info in STREAMS if info.rate]
    newest = dict.fromkeys((info.key for info in signals), 1000.0)
    entries = []
    for step in range(300):
        info = signals[random.integers(len(signals))]
        count = int(random.integers(1, 40))
        # Stamps jitter and run back at the edges of chunks, as those of real sources do.
        times = newest[info.key] + np.arange(count) / info.rate + random.uniform(-1e-3, 1e-3, count)
        newest[info.key] += count / info.rate
        values = random.normal(0.0, 10.0 ** random.integers(-6, 6), (count, len(info.channels))).astype(np.float32)
        values[random.random(values.shape) < 0.01] = np.nan
        lost = int(random.integers(1, 10**6)) if random.random() < 0.3 else 0
        entries.append(Chunk(info.key, times, values, lost))
        time = 1000.0 + step / 7.0
        if step % 5 == 0:
            entries.append(Tick(time))
        if step % 11 == 0:
            entries.append(Events("keys", np.array([time, time - 0.5]), ("", f"näher\n {step}")))
        if step % 13 == 0:
            entries.append(Skipped(time))
        if step % 17 == 0:
            entries.append(estimate(time, [math.nan] * 2, [math.nan] * 2, step / 300, f"EEG missing: {step} s"))
        if step % 19 == 0:
            entries.append(estimate(time, random.random(2), random.random(2), random.random()))
    return entries


@pytest.mark.parametrize("seed", [1, 2])
def test_a_replay_gives_the_items_of_the_session_chunk_for_chunk_to_the_last_bit(tmp_path, seed):
    entries = session(seed)
    items, replay = replayed(record(tmp_path / "a.xdf", entries))
    expected = [entry for entry in entries if isinstance(entry, Chunk | Events | Tick)]
    assert [plain(item) for item in items] == [plain(item) for item in expected]
    assert replay.skipped_windows == {entry.t_end for entry in entries if isinstance(entry, Skipped)}
    assert len(replay.skipped_windows) == 24
    assert replay.own
    assert replay.left_out == []
    assert [(s.key, s.kind, s.channels, s.rate, s.unit) for s in replay.streams] == [
        (s.key, s.kind, s.channels, s.rate, s.unit) for s in STREAMS
    ]


def chunk(stream, time, lost=0):
    channels = next(len(info.channels) for info in STREAMS if info.key == stream)
    return Chunk(stream, np.array([time]), np.full((1, channels), time, np.float32), lost)


def test_what_was_lost_stays_with_the_chunk_it_came_before(tmp_path):
    entries = [
        chunk("amp/eeg", 1.0, 3),  # before the very first sample
        chunk("h10/ecg", 1.0),
        chunk("amp/eeg-2", 1.0, 5),  # the other stream's key begins with the same letters
        chunk("amp/eeg", 2.0),
        chunk("h10/ecg", 2.0, 7),
        chunk("amp/eeg", 3.0, 11),
        chunk("amp/eeg", 4.0, 13),  # twice in a row
        Tick(4.0),
        chunk("amp/eeg-2", 5.0),
        chunk("h10/ecg", 5.0, 17),
    ]
    items, _ = replayed(record(tmp_path / "a.xdf", entries))
    assert [plain(item) for item in items] == [plain(entry) for entry in entries]


def test_a_record_cut_off_between_a_lost_count_and_its_chunk_gives_what_came_before(tmp_path):
    path = tmp_path / "a.xdf"
    recorder = Recorder(tmp_path / "b.xdf", STREAMS, TARGETS, {})
    recorder.write(chunk("h10/ecg", 1.0))
    before = recorder.bytes_written
    recorder.write(chunk("amp/eeg", 2.0, 9))
    recorder.close()
    content = (tmp_path / "b.xdf").read_bytes()
    for end in range(before, before + 60):  # as a crash leaves it, wherever between the count and its chunk
        path.write_bytes(content[:end])
        with XdfReplay(path, speed=math.inf) as replay:
            items = [item for item in replay.read(0.1) if isinstance(item, Chunk)]
        assert [plain(item) for item in items] == [plain(chunk("h10/ecg", 1.0))]


def test_estimates_given_and_withheld_are_read_by_pyxdf_as_they_were(tmp_path):
    entries = session(3)
    path = record(tmp_path / "a.xdf", entries)
    estimates = [entry for entry in entries if isinstance(entry, Estimate)]
    streams, _ = pyxdf.load_xdf(path, synchronize_clocks=False, dejitter_timestamps=False)
    found = {stream["info"]["name"][0]: stream for stream in streams}
    affect, reasons = found["insula affect"], found["insula withheld"]
    np.testing.assert_array_equal(affect["time_series"], [entry.values() for entry in estimates])
    assert affect["time_stamps"].tolist() == [entry.t_end for entry in estimates]
    labels = [row["label"][0] for row in affect["info"]["desc"][0]["channels"][0]["channel"]]
    assert tuple(labels) == estimate_channels(TARGETS)
    assert affect["info"]["desc"][0]["model"] == ["small"]
    withheld = [(entry.t_end, entry.withheld) for entry in estimates if entry.withheld is not None]
    assert 0 < len(withheld) < len(estimates)
    texts = [text for (text,) in reasons["time_series"]]
    assert list(zip(reasons["time_stamps"].tolist(), texts, strict=True)) == withheld


def test_a_record_never_overwrites_and_needs_a_folder_in_one_line_each(tmp_path):
    there = tmp_path / "there.xdf"
    there.write_bytes(b"precious")
    for path, words in ((there, "exists already"), (tmp_path / "no" / "a.xdf", "cannot be made")):
        with pytest.raises(XdfError, match=words) as refused:
            Recorder(path, STREAMS, TARGETS, {})
        assert "\n" not in str(refused.value)
        assert str(path) in str(refused.value)
    assert there.read_bytes() == b"precious"
    assert not (tmp_path / "no").exists()


# -- where a record of a study lies ------------------------------------------------------------------------------------


def test_a_record_of_a_study_is_named_as_bids_does_and_each_run_is_a_new_one(tmp_path):
    place = tmp_path / "sourcedata" / "sub-P07" / "ses-01" / "eeg"
    for run in (1, 2, 3):
        study = Study(folder=tmp_path, participant="P07", session="01", task="rest")
        recorder = start_record(study, STREAMS, TARGETS, {})
        recorder.close()
        assert recorder.path == place / f"sub-P07_ses-01_task-rest_run-0{run}_eeg.xdf"
        assert recorder.study == {"participant": "P07", "session": "01", "task": "rest", "run": f"0{run}"}
    (place / "sub-P07_ses-01_task-rest_run-02_eeg.xdf").unlink()
    assert study_path(tmp_path, "P07", "01", "rest").name == "sub-P07_ses-01_task-rest_run-02_eeg.xdf"
    (place / "sub-P07_ses-01_task-rest_run-02_eeg.json").write_text("{}")  # somebody's, and kept
    assert study_path(tmp_path, "P07", "01", "rest").name == "sub-P07_ses-01_task-rest_run-04_eeg.xdf"
    with pytest.raises(XdfError, match=r"run-03_eeg\.xdf: exists already"):
        study_path(tmp_path, "P07", "01", "rest", 3)
    assert study_path(tmp_path, "P07", "", "rest", 12).relative_to(tmp_path).as_posix() == (
        "sourcedata/sub-P07/eeg/sub-P07_task-rest_run-12_eeg.xdf"
    )


@pytest.mark.parametrize("label", ["", "a b", "../x", "a/b", "a_b", "José", "x" * 65, "a\n"])
def test_labels_that_are_not_letters_and_digits_are_refused_in_one_line(tmp_path, label):
    for labels in ((label, "01", "rest"), ("P07", "01", label)):
        with pytest.raises(XdfError, match="only letters and digits") as refused:
            study_path(tmp_path, *labels)
        assert "\n" not in str(refused.value)
    with pytest.raises(XdfError, match="run 0"):
        study_path(tmp_path, "P07", "01", "rest", 0)
    assert list(tmp_path.iterdir()) == []


def test_records_that_are_started_at_once_get_runs_of_their_own(tmp_path):
    study = Study(folder=tmp_path, participant="P07", session="01", task="rest")
    ready, made = threading.Barrier(8), []

    def start() -> None:
        ready.wait()
        recorder = start_record(study, STREAMS, TARGETS, {})
        recorder.close()
        made.append(recorder.path)

    threads = [threading.Thread(target=start) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(path.stem.partition("_run-")[2] for path in made) == [f"0{run}_eeg" for run in range(1, 9)]
    assert all(path.exists() for path in made)


def test_a_description_is_never_put_over_a_file_that_is_there(tmp_path):
    (tmp_path / "a.json").write_text("precious")
    with pytest.raises(XdfError, match=r"a\.json: exists already"):
        Recorder(tmp_path / "a.xdf", STREAMS, TARGETS, {})
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]


def test_what_was_measured_of_a_clock_is_recorded_with_the_sign_that_puts_stamps_right(tmp_path):
    """A source's clock is 3 s behind; half of that its stamps do not contain yet: pyxdf puts them where they belong."""
    truth = 1000.0 + np.arange(200) / 10
    info = StreamInfo(key="eeg", kind="eeg", channels=("Cz",), rate=10.0, unit="uV", name="eeg")
    recorder = Recorder(tmp_path / "a.xdf", [info], (), {})
    for k in range(20):
        times = truth[10 * k : 10 * k + 10]
        recorder.write(Clock("eeg", float(times[0]), 3.0, 1e-4, residual=1.5))
        recorder.write(Chunk("eeg", times - 1.5, np.zeros((10, 1), np.float32)))
    recorder.close()
    streams, _ = pyxdf.load_xdf(tmp_path / "a.xdf")
    eeg = next(stream for stream in streams if stream["info"]["type"] == ["EEG"])
    np.testing.assert_allclose(eeg["time_stamps"], truth, rtol=0, atol=1e-6)
    np.testing.assert_allclose(eeg["clock_times"], truth[::10] - 1.5, rtol=0, atol=1e-9)  # on the clock of the stamps
    events = next(stream for stream in streams if stream["info"]["type"] == ["Session"])["time_series"]
    assert {text for (text,) in events} == {"clock eeg 3.0 0.0001"}


def test_a_record_without_targets_has_no_place_for_estimates(tmp_path):
    recorder = Recorder(tmp_path / "a.xdf", STREAMS, (), {})
    recorder.write(chunk("h10/ecg", 1.0))
    recorder.close()
    streams, _ = pyxdf.load_xdf(tmp_path / "a.xdf")
    assert "Affect" not in {stream["info"]["type"][0] for stream in streams}


# -- the description beside it -----------------------------------------------------------------------------------------

MOMENT = datetime(2026, 3, 1, 0, 30, tzinfo=timezone(timedelta(hours=2)))


def begun():
    return beginning(
        title="live",
        record="a.xdf",
        study={"participant": "P07", "session": "01", "task": "rest", "run": "02"},
        streams=STREAMS,
        identities={"h10/ecg": {"serial": "0A1B", "firmware": "3.2.1\n" * 10_000}},
        bundle={"name": "m", "version": "1", "hash": "ab", "window_seconds": 4.0, "hop_seconds": 1.0},
        session_clock=math.nan,
        now=MOMENT,
    )


def test_the_description_says_who_was_recorded_with_what_and_at_the_end_what_became_of_it(tmp_path):
    path = tmp_path / "a.json"
    write_sidecar(path, begun())
    first = json.loads(path.read_text(encoding="utf-8"))
    assert first["ended"] is None
    assert (first["participant"], first["run"]) == ("P07", "02")
    assert first["started"]["utc"] == "2026-02-28T22:30:00.000+00:00"
    assert first["started"]["local"] == "2026-03-01T00:30:00.000+02:00"
    assert first["started"]["session_clock"] is None  # JSON has no NaN
    assert [stream["key"] for stream in first["streams"]] == [info.key for info in STREAMS]
    assert first["streams"][0] == {
        "key": "amp/eeg",
        "kind": "eeg",
        "channels": ["Cz", "Pz", "Oz"],
        "rate": 250.0,
        "unit": "uV",
        "name": "amp",
        "source": "",
        "identity": {},
    }
    assert first["streams"][1]["identity"]["serial"] == "0A1B"
    assert len(first["streams"][1]["identity"]["firmware"]) == 1000
    assert first["bundle"]["window_seconds"] == 4.0
    counts = {"h10/ecg": {"samples": 10, "lost": 1, "refused": 2, "gaps": 3}}
    alarms = [Alarmed(1.0, "h10/ecg: silent for 0.9 s"), Alarmed(4.0, "h10/ecg: silent for 3.9 s", over=True)]
    for problem, ended in (("", "as asked"), ("the plug is out", "the plug is out")):
        content = conclusion(
            begun(),
            counts=counts,
            taken={"h10/ecg": [(7.5, {"uid": "second"}), (9.0, {"uid": "third" * 1000})]},
            alarms=alarms,
            figures={"windows": 7, "alarms_seen": 5},
            problem=problem,
            session_clock=99.5,
            now=MOMENT,
        )
        write_sidecar(path, content)
        last = json.loads(path.read_text(encoding="utf-8"))
        assert last["ended"] == ended
        assert last["streams"][1] | counts["h10/ecg"] == last["streams"][1]
        assert (last["windows"], last["alarms_seen"]) == (7, 5)
        second, third = last["streams"][1]["taken"]
        assert second == {"session_clock": 7.5, "identity": {"uid": "second"}}
        assert len(third["identity"]["uid"]) == 1000
        assert last["streams"][1]["identity"] == first["streams"][1]["identity"]
        assert "taken" not in last["streams"][0]
        assert [alarm["over"] for alarm in last["alarms"]] == [False, True]
        same = first.keys() - {"streams", "ended"}
        assert {name: last[name] for name in same} == {name: first[name] for name in same}
    assert [one.name for one in tmp_path.iterdir()] == ["a.json"]


def test_a_description_that_cannot_be_written_leaves_the_one_that_is_there(tmp_path):
    path = tmp_path / "a.json"
    path.write_text("before")
    with pytest.raises(XdfError, match="could not be written"):
        write_sidecar(tmp_path / "no" / "a.json", begun())
    with pytest.raises(TypeError):
        write_sidecar(path, begun() | {"title": object()})
    assert path.read_text() == "before"
    assert [one.name for one in tmp_path.iterdir()] == ["a.json"]


def test_a_loss_and_its_chunk_are_in_the_record_both_or_not_at_all(tmp_path, monkeypatch):
    """The disk has room for the count but not for the samples: the next attempt must not count them twice."""
    room = math.inf

    def write(file, block):
        nonlocal room
        if len(block) > room:
            raise OSError(28, "No space left on device")
        return os.write(file, block)

    monkeypatch.setattr(xdf_writer, "os", SimpleNamespace(**(vars(os) | {"write": write})))
    recorder = Recorder(tmp_path / "a.xdf", STREAMS, TARGETS, {})
    recorder.write(chunk("amp/eeg", 1.0))
    size, room = recorder.bytes_written, 60
    wide = Chunk("amp/eeg", np.arange(10.0) + 2, np.zeros((10, 3), np.float32), 5)
    for _ in range(3):
        with pytest.raises(XdfError, match="No space left"):
            recorder.write(wide)
    assert recorder.bytes_written == size == (tmp_path / "a.xdf").stat().st_size
    room = math.inf
    recorder.write(wide)
    recorder.close()
    items, _ = replayed(tmp_path / "a.xdf")
    assert [plain(item) for item in items] == [plain(chunk("amp/eeg", 1.0)), plain(wide)]
    streams, _ = pyxdf.load_xdf(tmp_path / "a.xdf")
    footers = {stream["info"]["type"][0]: int(stream["footer"]["info"]["sample_count"][0]) for stream in streams}
    assert footers["EEG"] == 11
    events = next(stream for stream in streams if stream["info"]["type"] == ["Session"])["time_series"]
    assert events == [["lost 5 amp/eeg"]]


@pytest.mark.parametrize("fmt", ["float32", "double64", "int8", "int16", "int32", "int64"])
def test_samples_are_kept_in_the_format_in_which_they_came(tmp_path, fmt):
    """Counts of 32 bits and doubles do not fit into single precision, in which they are analysed."""
    numbers = {"float32": np.float32, "double64": np.float64}.get(fmt) or np.dtype(fmt).type
    most = 1e9 + 1 / 3 if fmt == "double64" else 0.1 if fmt == "float32" else np.iinfo(numbers).max
    data = np.array([[most], [0], [most]], numbers)
    info = StreamInfo(key="eeg", kind="eeg", channels=("Fz",), rate=100.0, unit="uV", name="counts", format=fmt)
    recorder = Recorder(tmp_path / "a.xdf", [info], [], {})
    recorder.write(Chunk("eeg", np.array([1.0, 1.01, 1.02]), data))
    recorder.close()
    with XdfReplay(tmp_path / "a.xdf", speed=np.inf) as replay:
        (again,) = [item for item in replay.read(1.0) if isinstance(item, Chunk)]
        assert replay.streams[0].format == fmt
    assert again.data.dtype == data.dtype
    assert np.array_equal(again.data, data)
    assert again.single.dtype == np.float32

"""Replay: the order of delivery, the pace and the controls. The clock is made by hand."""

from __future__ import annotations

import math
import tracemalloc

import numpy as np
import pytest

from devices.api import Chunk, Device, DeviceError, End, Events, Rewind, Tick, Transport, discover, open_device
from devices.xdf import BATCH, XdfReplay
from devices.xdf_format import (
    AFFECT_TYPE,
    EVENT_LOST,
    EVENT_SKIPPED,
    EVENT_TICK,
    MARKERS_TYPE,
    OWN_DESC,
    SESSION_NAME,
    SESSION_TYPE,
    XdfFile,
    XdfWriter,
)


class Clock:
    """Time passes only when somebody sleeps or the test says so."""

    def __init__(self):
        self.time = 1000.0
        self.slept = []

    def now(self):
        return self.time

    def sleep(self, seconds):
        assert seconds > 0
        self.slept.append(seconds)
        self.time += seconds


def everything(replay):
    items = []
    while not (items and isinstance(items[-1], End)):
        items += replay.read(0.1)
    return items


def plain(item):
    """An item as something that can be compared with ==, to the last bit."""
    if isinstance(item, Chunk):
        return ("chunk", item.stream, item.times.tobytes(), item.data.tobytes(), item.data.shape, item.lost)
    if isinstance(item, Events):
        return ("events", item.stream, item.times.tobytes(), item.labels)
    return item


def test_what_is_known_to_be_missing_after_the_last_sample_is_told_at_the_end_and_not_of_a_part_before_it(tmp_path):
    path = tmp_path / "record.xdf"
    with XdfWriter(path) as writer:
        desc = {OWN_DESC: {"key": "cap/eeg", "kind": "eeg"}}
        eeg = writer.add_stream(
            name="cap", type="EEG", channels=("Cz",), rate=100.0, format="float32", unit="uV", desc=desc
        )
        session = writer.add_stream(
            name=SESSION_NAME, type=SESSION_TYPE, channels=("event",), rate=0.0, format="string", unit=""
        )
        writer.write(eeg, np.arange(100) / 100, np.zeros((100, 1), np.float32))
        writer.write_strings(session, [0.99], ["lost 5 cap/eeg"])
        writer.write(eeg, 1.05 + np.arange(100) / 100, np.zeros((100, 1), np.float32))
        writer.write_strings(session, [4.0, 4.0], ["lost 195 cap/eeg", "lost 7 nobody"])
    with XdfReplay(path, speed=np.inf) as replay:
        assert replay.missing == {"cap/eeg": 200}
        *_, told, end = everything(replay)
        assert isinstance(told, Chunk)
        assert (told.stream, told.data.shape, told.lost) == ("cap/eeg", (0, 1), 195)
        assert isinstance(end, End)
    with XdfReplay(path, start=0.5, stop=1.5, speed=np.inf) as part:
        assert sum(item.lost for item in everything(part) if isinstance(item, Chunk)) == 5


def write_signal(path, *, seconds=3.0, rates=(100.0, 130.0), types=("EEG", "ECG"), offset=0.0, chunk=0.25):
    """Two signals of counting numbers, in chunks, and a marker in the middle."""
    with XdfWriter(path) as writer:
        ids = [
            writer.add_stream(name=kind, type=kind, channels=["a"], rate=rate, format="float32", unit="microvolts")
            for kind, rate in zip(types, rates, strict=True)
        ]
        marker = writer.add_stream(name="m", type="Markers", channels=["m"], rate=0.0, format="string")
        for begin in np.arange(0.0, seconds, chunk):
            for number, rate in zip(ids, rates, strict=True):
                index = np.arange(math.ceil(begin * rate), math.ceil((begin + chunk) * rate))
                writer.write(number, offset + index / rate, index[:, None].astype(np.float32))
        writer.write_strings(marker, [offset + seconds / 2], ["middle"])
    return path


@pytest.fixture
def own_record(tmp_path):
    """A record as the recorder writes it, and the items that a replay of it must give."""
    rng = np.random.default_rng(3)
    path = tmp_path / "record.xdf"
    expected = []
    with XdfWriter(path) as writer:

        def add(key, kind, fmt="float32", rate=250.0, channels=("x",), unit="uV"):
            return writer.add_stream(
                name=key, type=kind.upper(), channels=channels, rate=rate, format=fmt, unit=unit,
                desc={OWN_DESC: {"key": key, "kind": kind}},
            )  # fmt: skip

        session = writer.add_stream(name=SESSION_NAME, type=SESSION_TYPE, channels=["event"], rate=0.0, format="string")
        eeg = add("amp/eeg", "eeg", channels=("Cz", "Pz"))
        rr = add("h10/rr", "rr", rate=0.0, unit="s")
        add("h10/ecg", "ecg", rate=130.0)
        notes = writer.add_stream(
            name="notes", type=MARKERS_TYPE, channels=["m"], rate=0.0, format="string",
            desc={OWN_DESC: {"key": "keyboard", "kind": "markers"}},
        )  # fmt: skip
        affect = writer.add_stream(name="insula", type=AFFECT_TYPE, channels=["arousal"], rate=1.0, format="double64")
        time = 5000.0
        for k in range(40):
            n = int(rng.integers(1, 60))
            times = time + np.sort(rng.uniform(-1, 1, n))  # chunks overlap and stamps run back: kept as they are
            values = rng.normal(size=(n, 2)).astype(np.float32)
            lost = 7 if k == 11 else 0
            if lost:
                writer.write_strings(session, [time], [f"{EVENT_LOST} {lost} amp/eeg"])
            writer.write(eeg, times, values)
            expected.append(Chunk("amp/eeg", times, values, lost))
            time += 0.1 / 3
            if k % 5 == 0:
                writer.write_strings(session, [time, time], [f"{EVENT_TICK} {time!r}", "started recording"])
                writer.write(affect, [time], [[0.5]])
                expected.append(Tick(time))
            if k % 7 == 0:
                writer.write_strings(notes, [time, time - 1], ["", f"näher {k}"])
                writer.write(rr, [time], np.array([[0.8]], np.float32))
                expected.append(Events("keyboard", np.array([time, time - 1]), ("", f"näher {k}")))
                expected.append(Chunk("h10/rr", np.array([time]), np.array([[0.8]], np.float32)))
            if k in (20, 30):
                writer.write_strings(session, [time], [f"{EVENT_SKIPPED} {5000.0 + k!r}"])
    return path, expected


# -- order -----------------------------------------------------------------------------------------------------------


def test_a_record_of_insula_comes_back_as_the_sequence_it_was_to_the_last_bit(own_record):
    path, expected = own_record
    with XdfReplay(path, speed=math.inf) as replay:
        assert replay.own
        items = everything(replay)
        assert replay.skipped_windows == {5020.0, 5030.0}
    assert [plain(item) for item in items] == [plain(item) for item in [*expected, End()]]


def test_the_streams_of_a_record_keep_their_keys_and_the_silent_one_is_there(own_record):
    with XdfReplay(own_record[0]) as replay:
        described = [(s.key, s.kind, s.channels, s.rate, s.unit) for s in replay.streams]
        assert replay.left_out == []
    assert described == [
        ("amp/eeg", "eeg", ("Cz", "Pz"), 250.0, "uV"),
        ("h10/rr", "rr", ("x",), 0.0, "s"),
        ("h10/ecg", "ecg", ("x",), 130.0, "uV"),
        ("keyboard", "markers", ("m",), 0.0, ""),
    ]


def test_a_cut_off_record_is_replayed_up_to_the_cut(own_record, tmp_path):
    path, expected = own_record
    short = tmp_path / "short.xdf"
    short.write_bytes(path.read_bytes()[:-4000])
    with XdfReplay(short, speed=math.inf) as replay:
        items = everything(replay)[:-1]
        assert len(replay.findings) == 1
    assert 10 < len(items) < len(expected)
    assert [plain(item) for item in items] == [plain(item) for item in expected[: len(items)]]


@pytest.mark.parametrize("kind", ["eeg", "markers"])
def test_numbers_without_a_rate_come_out_of_a_record_of_insula_as_they_went_in_whatever_their_kind(tmp_path, kind):
    path = tmp_path / "a.xdf"
    with XdfWriter(path) as writer:
        writer.add_stream(name=SESSION_NAME, type=SESSION_TYPE, channels=["event"], rate=0.0, format="string")
        number = writer.add_stream(name="x", type=kind, channels=["a", "b"], rate=0.0, format="int64")
        writer.write(number, [1.0, 2.0], numbers := np.array([[2**53 + 1, -1], [7, 8]]))
    with XdfReplay(path, speed=math.inf) as replay:
        assert replay.left_out == []
        (info,) = replay.streams
        assert (info.kind, info.rate, info.format, info.channels) == (kind, 0.0, "int64", ("a", "b"))
        assert [plain(item) for item in everything(replay)] == [
            plain(Chunk(info.key, np.array([1.0, 2.0]), numbers)),
            End(),
        ]


def test_a_key_with_blanks_at_its_ends_keeps_what_was_lost(tmp_path):
    path = tmp_path / "a.xdf"
    with XdfWriter(path) as writer:
        session = writer.add_stream(name=SESSION_NAME, type=SESSION_TYPE, channels=["event"], rate=0.0, format="string")
        desc = {OWN_DESC: {"key": " the amp ", "kind": "eeg"}}
        number = writer.add_stream(name="x", type="EEG", channels=["a"], rate=9.0, format="float32", desc=desc)
        writer.write_strings(session, [1.0], [f"{EVENT_LOST} 4  the amp "])
        writer.write(number, [1.0], np.zeros((1, 1), np.float32))
    with XdfReplay(path, speed=math.inf) as replay:
        assert [item.lost for item in everything(replay)[:-1]] == [4]


def test_a_tick_without_a_time_is_left_out_and_reported(tmp_path):
    path = tmp_path / "a.xdf"
    with XdfWriter(path) as writer:
        session = writer.add_stream(name=SESSION_NAME, type=SESSION_TYPE, channels=["event"], rate=0.0, format="string")
        writer.write_strings(session, [1.0, 2.0, 3.0], ["tick 1.0", "tick soon", f"{EVENT_LOST} many eeg"])
    with XdfReplay(path, speed=math.inf) as replay:
        assert everything(replay) == [Tick(1.0), End()]
        (finding,) = replay.findings
    assert "tick soon" in finding


def test_files_by_others_are_merged_in_time_with_a_tick_after_each_piece(tmp_path):
    path = write_signal(tmp_path / "a.xdf")
    with XdfReplay(path, speed=math.inf) as replay, XdfFile(path) as file:
        assert not replay.own
        items = everything(replay)
        for number, info in zip(file.streams, replay.streams, strict=True):
            mine = [item for item in items if isinstance(item, Chunk | Events) and item.stream == info.key]
            assert np.array_equal(np.concatenate([item.times for item in mine]), file.read(number)[0])
            if info.rate:
                assert np.array_equal(np.concatenate([item.data for item in mine]), file.read(number)[1])
                assert all(item.times[-1] - item.times[0] <= 0.1 for item in mine)
                assert len(mine) == 30
    dues = [item.time if isinstance(item, Tick) else item.times[-1] for item in items[:-1]]
    assert dues == sorted(dues)
    ticks = [item.time for item in items if isinstance(item, Tick)]
    assert ticks == sorted(set(dues))
    middle = next(k for k, item in enumerate(items) if isinstance(item, Events))
    assert items[middle + 1] == Tick(1.5) or items[middle + 2] == Tick(1.5)


def test_whatever_lies_before_a_tenth_of_a_second_comes_before_the_first_tick_after_it(tmp_path):
    path = write_signal(tmp_path / "a.xdf", rates=(250.0, 73.0), chunk=0.7, seconds=7.0, offset=3.21)
    clock = -math.inf
    with XdfReplay(path, speed=math.inf) as replay:
        for item in everything(replay)[:-1]:
            if isinstance(item, Tick):
                clock = item.time
            else:
                assert np.floor(item.times[0] * 10) >= np.floor(clock * 10)


def test_a_gap_in_one_stream_does_not_stop_the_ticks(tmp_path):
    path = tmp_path / "a.xdf"
    with XdfWriter(path) as writer:
        eeg = writer.add_stream(name="e", type="EEG", channels=["a"], rate=10.0, format="float32")
        ecg = writer.add_stream(name="h", type="ECG", channels=["a"], rate=10.0, format="float32")
        times = np.arange(100) / 10.0
        writer.write(eeg, times, np.zeros((100, 1), np.float32))
        for part in (times[:20], times[70:]):
            writer.write(ecg, part, np.zeros((len(part), 1), np.float32))
    with XdfReplay(path, speed=math.inf) as replay:
        ticks = [item.time for item in everything(replay) if isinstance(item, Tick)]
    assert np.allclose(ticks, times)


def test_stamps_that_run_back_keep_the_order_of_the_file_and_those_that_are_no_numbers_are_counted(tmp_path):
    path = tmp_path / "a.xdf"
    times = np.array([0.0, 0.5, 0.3, 0.31, 0.6, np.nan, np.inf, 0.9])
    with XdfWriter(path) as writer:
        number = writer.add_stream(name="e", type="EEG", channels=["a"], rate=10.0, format="int16")
        writer.write(number, times, np.arange(8)[:, None])
    with XdfReplay(path, speed=math.inf) as replay:
        chunks = [item for item in everything(replay) if isinstance(item, Chunk)]
    assert np.concatenate([c.data[:, 0] for c in chunks]).tolist() == [0, 1, 2, 3, 4, 7]
    assert np.concatenate([c.times for c in chunks]).tolist() == times[np.isfinite(times)].tolist()
    assert sum(c.lost for c in chunks) == 2


def test_clock_offsets_are_applied_to_files_by_others(tmp_path):
    path = tmp_path / "a.xdf"
    with XdfWriter(path) as writer:
        number = writer.add_stream(name="e", type="EEG", channels=["a"], rate=10.0, format="float32")
        writer.write_offset(number, 0.0, 100.0)
        writer.write(number, [0.0, 0.1], np.zeros((2, 1), np.float32))
    with XdfReplay(path) as replay:
        assert (replay.start, replay.stop) == (100.0, 100.1)


def test_a_long_file_is_replayed_in_little_memory(tmp_path):
    path = tmp_path / "long.xdf"
    with XdfWriter(path) as writer:
        number = writer.add_stream(name="e", type="EEG", channels=["a"] * 64, rate=500.0, format="float32")
        for k in range(2000):
            writer.write(number, k / 10 + np.arange(50) / 500, np.zeros((50, 64), np.float32))
    assert path.stat().st_size > 25e6
    tracemalloc.start()
    with XdfReplay(path, speed=math.inf) as replay:
        samples = 0
        while (batch := list(replay.read(0.1))) != [End()]:
            samples += sum(len(item.times) for item in batch if isinstance(item, Chunk))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert samples == 100_000
    assert peak < 2e6


# -- what is offered -------------------------------------------------------------------------------------------------


def test_kinds_keys_units_and_what_is_left_out(tmp_path):
    path = tmp_path / "a.xdf"
    with XdfWriter(path) as writer:
        streams = [
            ("EEG", 250.0, "float32", "microvolts"),
            ("eeg", 0.0, "float32", "µV"),
            ("EKG", 130.0, "int32", "mV"),
            ("Accelerometer", 50.0, "int16", "g"),
            ("Markers", 0.0, "int32", ""),
            ("Markers", 100.0, "int32", ""),
            ("Stimulus", 10.0, "string", ""),
            ("Gaze", 0.0, "float32", ""),
            ("", 5.0, "float32", ""),
            ("EEG", 250.0, "float32", "V"),
        ]
        for k, (kind, rate, fmt, unit) in enumerate(streams):
            number = writer.add_stream(name=f"n{k}", type=kind, channels=["a"], rate=rate, format=fmt, unit=unit)
            if k == 9:
                continue
            if fmt == "string":
                writer.write_strings(number, [1.0, 2.0], ["a", "b"])
            else:
                writer.write(number, [1.0, 1.5, 2.0], np.array([[1], [2], [3]], np.int16))
    with XdfReplay(path, speed=math.inf) as replay:
        assert [(s.name, s.key, s.kind, s.rate, s.unit) for s in replay.streams] == [
            ("n0", "eeg", "eeg", 250.0, "uV"),
            ("n1", "eeg-2", "eeg", 2.0, "uV"),
            ("n2", "ecg", "ecg", 130.0, "mV"),
            ("n3", "acc", "acc", 50.0, "g"),
            ("n4", "markers", "markers", 0.0, ""),
            ("n5", "trigger", "trigger", 100.0, ""),
            ("n6", "markers-2", "markers", 0.0, ""),
            ("n7", "gaze", "gaze", 0.0, ""),
            ("n8", "signal", "signal", 5.0, ""),
        ]
        assert replay.left_out == [("n9 (EEG)", "no samples")]
        assert [s.key for s in replay.streams if s.marks] == ["markers", "markers-2"]
        chunks = [item for item in everything(replay) if isinstance(item, Chunk)]
        marks = [item for item in chunks if item.stream == "markers"]
        assert np.concatenate([item.data for item in marks]).dtype == np.int32
        assert sum((item.texts for item in marks), ()) == ("1", "2", "3")
        assert np.concatenate([item.data[:, 0] for item in chunks if item.stream == "gaze"]).tolist() == [1.0, 2.0, 3.0]


def test_the_recordings_of_the_folder_are_listed_by_addresses_that_open_them(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (only,) = discover("xdf", 0.1)
    assert (only.address, only.what) == ("xdf:FILE.xdf", "a recording, replayed; there is none in this folder")
    write_signal(tmp_path / "what? 1.xdf")
    (tmp_path / "folder.xdf").mkdir()
    (found,) = discover("xdf", 0.1)
    with open_device(found.address) as device:
        assert len(device.streams) == 3


def test_a_muse_recording_gives_its_eeg_and_names_the_empty_streams(shared_data):
    with XdfReplay(shared_data / "xdf" / "muse_d56a6e_sub-P023.xdf", speed=math.inf) as replay:
        (eeg,) = replay.streams
        assert (eeg.kind, eeg.rate, eeg.unit) == ("eeg", 256.0, "uV")
        assert eeg.channels[:4] == ("TP9", "AF7", "AF8", "TP10")
        assert [reason for _, reason in replay.left_out] == ["no samples"] * 3
        assert sum(len(item.times) for item in everything(replay) if isinstance(item, Chunk)) == 1668


def test_a_file_without_signals_opens_and_ends(tmp_path):
    path = tmp_path / "a.xdf"
    with XdfWriter(path):
        pass
    with XdfReplay(path) as replay:
        assert list(replay.streams) == []
        assert list(replay.read(0.1)) == [End()]


def test_an_unreadable_file_is_one_line_of_device_error(tmp_path):
    path = tmp_path / "notes.xdf"
    path.write_text("hello\n")
    with pytest.raises(DeviceError, match=r"notes\.xdf: not an XDF file"):
        open_device(f"xdf:{path}")


def test_an_address_opens_a_device_with_a_transport(tmp_path):
    device: Device = open_device(f"xdf:{write_signal(tmp_path / 'a.xdf')}")
    with device:
        assert isinstance(device, Transport)
        assert device.streams[0].source == f"xdf:{tmp_path / 'a.xdf'}"


def test_a_stretch_is_cut_out_in_seconds_from_the_beginning(tmp_path):
    path = write_signal(tmp_path / "a.xdf", offset=500.0)
    with XdfReplay(path, start=1.0, stop=2.0, speed=math.inf) as replay:
        assert (replay.start, replay.stop) == (501.0, 502.0)
        items = everything(replay)[:-1]
    times = np.concatenate([item.times for item in items if isinstance(item, Chunk | Events)])
    assert (times.min(), times.max()) == (501.0, 502.0)
    assert len(times) == 101 + 131 + 1
    with pytest.raises(DeviceError, match=r"the recording is 3\.0 s long"):
        XdfReplay(path, start=10.0)


# -- pace and controls -----------------------------------------------------------------------------------------------


def paced(path, **options):
    clock = Clock()
    return XdfReplay(path, now=clock.now, sleep=clock.sleep, **options), clock


@pytest.mark.parametrize("speed", [0.5, 1.0, 4.0])
def test_items_come_when_the_wall_clock_says_so(tmp_path, speed):
    replay, clock = paced(write_signal(tmp_path / "a.xdf"), speed=speed)
    began = clock.time
    with replay:
        while True:
            before = clock.time
            items = list(replay.read(0.03))
            assert clock.time - before <= 0.03 + 1e-9
            if items and isinstance(items[-1], End):
                break
            for item in items:
                due = began + (item.time if isinstance(item, Tick) else item.times[-1]) / speed
                assert due - 1e-9 <= clock.time <= due + 0.03
            assert replay.position == pytest.approx((clock.time - began) * speed, abs=0.1 + 1e-9)
    assert clock.time - began == pytest.approx(2.99 / speed, abs=0.04)


def test_after_the_end_a_read_waits_and_gives_nothing_until_someone_seeks(tmp_path):
    replay, clock = paced(write_signal(tmp_path / "a.xdf"), speed=math.inf)
    with replay:
        first = everything(replay)
        before = clock.time
        assert list(replay.read(0.2)) == []
        assert clock.time == pytest.approx(before + 0.2)
        replay.seek(0.0)
        again = everything(replay)
    assert again[0] == Rewind()
    assert [plain(item) for item in again[1:]] == [plain(item) for item in first]


def test_unpaced_a_read_gives_half_a_second_at_most(tmp_path):
    replay, clock = paced(write_signal(tmp_path / "a.xdf", seconds=8.0), speed=math.inf)
    with replay:
        while (batch := list(replay.read(0.1))) != [End()]:
            stamps = [item.time if isinstance(item, Tick) else item.times[-1] for item in batch]
            assert max(stamps) - min(stamps) <= BATCH + 1e-9
    assert clock.slept == []


def test_a_pause_holds_everything_and_play_goes_on_without_a_jump(tmp_path):
    replay, clock = paced(write_signal(tmp_path / "a.xdf"))
    with replay:
        while replay.position < 1.0:
            replay.read(0.05)
        replay.pause()
        assert not replay.playing
        held = replay.position
        for _ in range(20):
            assert list(replay.read(0.5)) == []
        assert replay.position == held
        replay.play()
        resumed = clock.time
        items = []
        while clock.time < resumed + 0.5:
            items += replay.read(0.05)
        assert replay.position == pytest.approx(held + 0.5, abs=0.06)
        assert max(item.times[-1] for item in items if isinstance(item, Chunk)) <= held + 0.56


def test_the_speed_changes_from_where_the_replay_is(tmp_path):
    replay, clock = paced(write_signal(tmp_path / "a.xdf"))
    with replay:
        while replay.position < 1.0:
            replay.read(0.05)
        at, wall = replay.position, clock.time
        replay.set_speed(2.0)
        while clock.time < wall + 0.5:
            replay.read(0.05)
        assert replay.speed == 2.0
        assert replay.position == pytest.approx(at + 1.0, abs=0.11)
        with pytest.raises(ValueError, match="above 0"):
            replay.set_speed(0.0)


def test_seeking_forward_delivers_everything_before_at_once_and_then_keeps_the_pace(tmp_path):
    path = write_signal(tmp_path / "a.xdf", seconds=6.0)
    with XdfReplay(path, speed=math.inf) as whole:
        expected = [plain(item) for item in everything(whole)]
    replay, clock = paced(path)
    with replay:
        items = list(replay.read(0.25))
        replay.seek(4.0)
        wall = clock.time
        while replay.position < 4.0:
            items += replay.read(0.05)
        # The last of these reads may already wait for what comes after the goal.
        assert clock.time <= wall + 0.05 + 1e-9
        while clock.time < wall + 1.0:
            items += replay.read(0.05)
        assert replay.position == pytest.approx(5.0, abs=0.11)
        items += everything(replay)
    assert [plain(item) for item in items] == expected


def test_seeking_back_rewinds_and_starts_from_the_beginning_also_while_paused(tmp_path):
    replay, clock = paced(write_signal(tmp_path / "a.xdf"))
    with replay:
        while replay.position < 2.0:
            replay.read(0.05)
        replay.pause()
        replay.seek(1.0)
        wall = clock.time
        assert list(replay.read(0.05)) == [Rewind()]
        items = []
        while batch := list(replay.read(0.05)):
            items += batch
        assert clock.time <= wall + 0.05 + 1e-9
        assert not replay.playing
        assert replay.position == 1.0
        stamps = [item.times for item in items if isinstance(item, Chunk)]
        assert stamps[0][0] == 0.0
        assert 0.9 < max(times[-1] for times in stamps) <= 1.0


def test_a_jump_of_the_clock_by_days_is_not_waited_for(tmp_path):
    path = tmp_path / "a.xdf"
    with XdfWriter(path) as writer:
        number = writer.add_stream(name="e", type="EEG", channels=["a"], rate=10.0, format="float32")
        for begin in (0.0, 200_000.0):
            writer.write(number, begin + np.arange(10) / 10, np.zeros((10, 1), np.float32))
    replay, clock = paced(path)
    with replay:
        everything(replay)
    assert clock.time - 1000.0 < 3.0


# -- loop ------------------------------------------------------------------------------------------------------------


def rounds(replay, count, timeout=0.1):
    """Everything of so many rounds, a list each, without the `Rewind` between them."""
    found = [[]]
    while len(found) <= count:
        for item in replay.read(timeout):
            assert not isinstance(item, End)
            if isinstance(item, Rewind):
                found.append([])
            else:
                found[-1].append(plain(item))
    return found[:count]


@pytest.mark.parametrize("speed", [0.5, 1.0, 4.0, math.inf])
def test_a_loop_gives_the_same_items_in_every_round_and_keeps_the_pace(tmp_path, speed):
    path = write_signal(tmp_path / "a.xdf")
    with XdfReplay(path, speed=math.inf) as straight:
        expected = [plain(item) for item in everything(straight)[:-1]]
    replay, clock = paced(path, speed=speed, loop=True)
    began = clock.time
    with replay:
        assert replay.looping
        assert rounds(replay, 3, 0.03) == [expected] * 3
    assert clock.time - began == pytest.approx(3 * 2.99 / speed, abs=0.15)


@pytest.mark.parametrize("speed", [2.0, math.inf])
def test_a_loop_over_a_record_of_insula_gives_the_recorded_order_in_every_round(own_record, speed):
    path, expected = own_record
    replay, _ = paced(path, speed=speed, loop=True)
    with replay:
        assert rounds(replay, 3) == [[plain(item) for item in expected]] * 3


def test_a_loop_over_a_stretch_stays_within_it(tmp_path):
    path = write_signal(tmp_path / "a.xdf")
    replay, clock = paced(path, start=1.0, stop=2.0, loop=True)
    began = clock.time
    with replay:
        one, two, three = rounds(replay, 3)
        assert one == two == three
        assert 1.0 <= replay.position <= 2.0
    assert clock.time - began == pytest.approx(3.0, abs=0.1)
    times = np.concatenate([np.frombuffer(item[2]) for item in one if not isinstance(item, Tick)])
    assert (times.min(), times.max()) == (1.0, 2.0)


def test_a_loop_that_is_switched_off_ends_and_one_that_is_switched_on_after_the_end_begins_again(tmp_path):
    path = write_signal(tmp_path / "a.xdf")
    with XdfReplay(path, speed=math.inf, loop=True) as replay:
        (whole,) = rounds(replay, 1)
        replay.set_loop(False)
        assert [plain(item) for item in everything(replay)] == [*whole, End()]
        assert list(replay.read(0.0)) == []
        replay.set_loop(True)
        assert list(replay.read(0.0)) == [Rewind()]
        assert rounds(replay, 1) == [whole]


def test_seeking_inside_a_round_acts_as_in_the_first(tmp_path):
    path = write_signal(tmp_path / "a.xdf")
    replay, clock = paced(path, loop=True)
    with replay:
        (whole,) = rounds(replay, 1)
        again = []
        while replay.position < 1.0:
            again += replay.read(0.05)
        replay.seek(2.5)
        wall = clock.time
        while replay.position < 2.5:
            again += replay.read(0.05)
        assert clock.time <= wall + 0.05 + 1e-9
        replay.seek(0.5)
        assert list(replay.read(0.05)) == [Rewind()]
        (rest,) = rounds(replay, 1)
        assert rest == whole  # from the beginning, as everything before the goal is delivered too
    assert [plain(item) for item in again] == whole[: len(again)]


def test_a_pause_holds_a_loop_at_its_end_too(tmp_path):
    replay, clock = paced(write_signal(tmp_path / "a.xdf"), loop=True)
    with replay:
        while replay.position < 1.0:
            replay.read(0.05)
        replay.pause()
        replay.seek(replay.stop)
        while replay.read(0.05):
            pass
        before = clock.time
        for _ in range(5):
            assert list(replay.read(0.2)) == []
        assert clock.time == pytest.approx(before + 1.0)
        assert replay.position == replay.stop
        replay.play()
        assert list(replay.read(0.05)) == [Rewind()]


@pytest.mark.parametrize("count", [0, 1, 2])
def test_a_recording_too_short_for_a_loop_ends_instead_of_spinning(tmp_path, count):
    path = tmp_path / "a.xdf"
    with XdfWriter(path) as writer:
        number = writer.add_stream(name="e", type="EEG", channels=["a"], rate=100.0, format="float32")
        writer.write(number, np.arange(count) / 100, np.zeros((count, 1), np.float32))
    with XdfReplay(path, speed=math.inf, loop=True) as replay:
        assert everything(replay)[-1] == End()


def test_a_loop_over_a_hole_in_the_recording_ends_instead_of_spinning(tmp_path):
    path = tmp_path / "a.xdf"
    with XdfWriter(path) as writer:
        number = writer.add_stream(name="e", type="EEG", channels=["a"], rate=100.0, format="float32")
        for begin in (0.0, 10.0):
            writer.write(number, begin + np.arange(100) / 100, np.zeros((100, 1), np.float32))
    with XdfReplay(path, start=3.0, stop=8.0, loop=True) as replay:
        assert everything(replay) == [End()]


def test_damage_is_reported_once_however_often_a_loop_comes_by(tmp_path):
    path = tmp_path / "a.xdf"
    with XdfWriter(path) as writer:
        session = writer.add_stream(name=SESSION_NAME, type=SESSION_TYPE, channels=["event"], rate=0.0, format="string")
        writer.write_strings(session, [1.0, 2.0, 3.0], ["tick 1.0", "tick soon", "tick 3.0"])
        desc = {OWN_DESC: {"key": "amp", "kind": "eeg"}}
        number = writer.add_stream(name="x", type="EEG", channels=["a"], rate=2.0, format="float32", desc=desc)
        writer.write(number, [1.0, 1.5, 2.0], np.zeros((3, 1), np.float32))
    with XdfReplay(path, speed=math.inf, loop=True) as replay:
        rounds(replay, 5)
        assert len(replay.findings) == 1


# -- step ------------------------------------------------------------------------------------------------------------


def delivered(replay):
    """What a paused replay gives until it has nothing more."""
    items = []
    while batch := list(replay.read(0.01)):
        items += batch
    return items


def newest(items):
    return max(item.time if isinstance(item, Tick) else item.times[-1] for item in items)


@pytest.mark.parametrize("speed", [0.5, 1.0, 4.0, math.inf])
def test_a_step_pauses_and_gives_just_that_much_at_once(tmp_path, speed):
    path = write_signal(tmp_path / "a.xdf")
    with XdfReplay(path, speed=math.inf) as straight:
        expected = everything(straight)[:-1]
    replay, clock = paced(path, speed=speed)
    with replay:
        replay.pause()
        assert list(replay.read(0.05)) == []
        wall = clock.time
        replay.step(1.0)
        items = delivered(replay)
        assert clock.time <= wall + 0.02
        assert not replay.playing
        assert replay.position == 1.0
        assert delivered(replay) == []
    due = [item.time if isinstance(item, Tick) else item.times[-1] for item in expected]
    within = [plain(item) for item, moment in zip(expected, due, strict=True) if moment <= 1.0]
    assert [plain(item) for item in items] == within


def test_several_steps_add_up_whether_or_not_they_are_read_between(tmp_path):
    path = write_signal(tmp_path / "a.xdf")
    one, other = paced(path)[0], paced(path)[0]
    with one, other:
        items, same = [], []
        for _ in range(8):
            one.step(0.25)
            items += delivered(one)
            other.step(0.25)
        same += delivered(other)
        assert one.position == other.position == 2.0
        one.step(0.7)
        items += one.read(0.0)  # half a second at most: the rest of the step is still to come
        one.step(0.1)
        items += delivered(one)
        other.step(0.8)
        same += delivered(other)
        assert one.position == pytest.approx(2.8)
        assert other.position == pytest.approx(2.8)
    assert [plain(item) for item in items] == [plain(item) for item in same]


def test_a_step_while_playing_stops_there_and_play_goes_on_from_there(tmp_path):
    replay, clock = paced(write_signal(tmp_path / "a.xdf"))
    with replay:
        while replay.position < 1.0:
            replay.read(0.05)
        at = replay.position
        replay.step(0.5)
        delivered(replay)
        assert not replay.playing
        assert replay.position == pytest.approx(at + 0.5)
        clock.time += 100.0
        replay.play()
        resumed, items = clock.time, []
        while clock.time < resumed + 0.5:
            items += replay.read(0.05)
        assert at + 0.5 < newest(items) <= at + 1.06


def test_a_step_beyond_the_end_gives_what_is_left_and_ends(tmp_path):
    replay, _ = paced(write_signal(tmp_path / "a.xdf"))
    with replay:
        replay.pause()
        replay.seek(2.5)
        items = delivered(replay)
        replay.step(10.0)
        items += delivered(replay)
        assert items[-1] == End()
        assert replay.position == replay.stop
        replay.step(1.0)
        assert delivered(replay) == []
    with XdfReplay(tmp_path / "a.xdf", speed=math.inf) as straight:
        assert [plain(item) for item in items] == [plain(item) for item in everything(straight)]


def test_in_a_loop_a_step_stops_at_the_end_and_the_next_one_begins_the_next_round(tmp_path):
    path = write_signal(tmp_path / "a.xdf")
    replay, _ = paced(path, loop=True)
    with replay:
        replay.step(10.0)
        whole = delivered(replay)
        assert Rewind() not in whole
        assert End() not in whole
        assert replay.position == replay.stop
        replay.step(0.5)
        first, *again = delivered(replay)
        assert first == Rewind()
        assert replay.position == 0.5
        assert newest(again) <= 0.5
        assert [plain(item) for item in again] == [plain(item) for item in whole[: len(again)]]


def test_a_step_after_a_seek_goes_on_from_its_goal_and_a_seek_after_a_step_replaces_it(tmp_path):
    replay, _ = paced(write_signal(tmp_path / "a.xdf"))
    with replay:
        replay.step(2.0)
        delivered(replay)
        replay.seek(1.0)
        replay.step(0.5)
        assert delivered(replay)[0] == Rewind()
        assert replay.position == 1.5
        replay.step(1.0)
        replay.seek(2.0)
        delivered(replay)
        assert replay.position == 2.0


def test_a_step_leaps_over_a_jump_of_the_clock(tmp_path):
    path = tmp_path / "a.xdf"
    with XdfWriter(path) as writer:
        number = writer.add_stream(name="e", type="EEG", channels=["a"], rate=10.0, format="float32")
        for begin in (0.0, 200_000.0):
            writer.write(number, begin + np.arange(10) / 10, np.zeros((10, 1), np.float32))
    replay, _ = paced(path)
    with replay:
        replay.step(1.0)
        assert newest(delivered(replay)) == pytest.approx(0.9)
        replay.step(0.5)
        assert newest(delivered(replay)) == pytest.approx(200_000.5)


def test_what_is_no_step_and_no_time_is_refused(tmp_path):
    with XdfReplay(write_signal(tmp_path / "a.xdf")) as replay:
        for wrong in (0.0, -1.0, math.inf, math.nan):
            with pytest.raises(ValueError, match="a step is a time above 0"):
                replay.step(wrong)
        with pytest.raises(ValueError, match="number"):
            replay.seek(math.nan)


# -- addresses -------------------------------------------------------------------------------------------------------


def test_an_address_takes_speed_loop_and_a_stretch(tmp_path):
    path = write_signal(tmp_path / "a.xdf", offset=500.0)
    with open_device(f"xdf:{path}?speed=2&loop=1&from=1&to=2.5") as replay:
        assert (replay.speed, replay.looping, replay.start, replay.stop) == (2.0, True, 501.0, 502.5)
    with open_device(f"xdf:{path}?speed=max&loop=0") as replay:
        assert (replay.speed, replay.looping, replay.start) == (math.inf, False, 500.0)


@pytest.mark.parametrize(
    "name", ["a?.xdf", "a&b.xdf", "a?speed=2", "a?speed=2&loop=1", "a?b=c.xdf", "50%41?=.xdf", "?"]
)
def test_a_path_that_exists_is_never_broken_by_what_its_name_contains(tmp_path, name):
    path = write_signal(tmp_path / name)
    write_signal(tmp_path / "a", seconds=1.0)
    with open_device(f"xdf:{path}") as replay:
        assert replay.path == path
        assert (replay.speed, replay.looping) == (1.0, False)
        source = replay.streams[0].source
    with open_device(f"{source}?speed=3") as replay:
        assert replay.path == path
        assert replay.speed == 3.0


@pytest.mark.parametrize(
    "query",
    ["sped=2", "speed=0", "speed=-1", "speed=fast", "speed=nan", "loop=yes", "loop=2", "from=-1", "to=inf", "from=",
     "speed=2&speed=3", "speed=2&", "speed=2&loop", "from=%31"],
)  # fmt: skip
def test_an_option_that_cannot_be_used_is_refused_in_one_line(tmp_path, query):
    path = write_signal(tmp_path / "a.xdf")
    with pytest.raises(DeviceError, match=r"cannot be used\. After the file, \? ") as refused:
        open_device(f"xdf:{path}?{query}")
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("rest", ["missing.xdf", "missing.xdf?speed=2", "missing?.xdf", "x" * 5000 + "?loop=1"])
def test_a_file_that_is_not_there_is_said_with_its_path(tmp_path, rest):
    with pytest.raises(DeviceError, match="cannot be read") as refused:
        open_device(f"xdf:{tmp_path}/{rest}")
    assert "?speed" not in str(refused.value)
    assert "?loop" not in str(refused.value)


def test_recordings_of_the_current_folder_are_found_and_without_one_it_is_said_how_to_open_another(
    tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    (nothing,) = discover("xdf", 0.1)
    assert "none in this folder" in nothing.what
    for name in ("b.xdf", "a.xdf", "c.txt"):
        (tmp_path / name).write_bytes(b"XDF:")
    assert [found.address for found in discover("xdf", 0.1)] == ["xdf:a.xdf", "xdf:b.xdf"]


# -- words of later versions -----------------------------------------------------------------------------------------


def test_session_events_of_words_that_are_not_known_change_nothing(own_record, tmp_path):
    """Others and later versions write more words; neither order nor loss nor ticks may suffer."""
    path, expected = own_record
    more = tmp_path / "more.xdf"
    words = [
        "alarm amp/eeg: silent for 1 s", "over amp/eeg: silent for 1 s", "note amp/eeg came back on another host",
        "clock amp/eeg -12.5 0.00012", "clock", "", " ", "ticks 3.0", "Tick 3.0", "lost", "lost 4", "lost x amp/other",
        "losts 4 amp/eeg", "skipped", "skipped soon", "näher\nzwei Zeilen", "tick\t7.0", "x" * 10_000,
    ]  # fmt: skip
    with XdfFile(path) as file, XdfWriter(more) as writer:
        for stream in file.streams.values():
            key, kind = stream.desc(f"{OWN_DESC}/key"), stream.desc(f"{OWN_DESC}/kind")
            writer.add_stream(
                name=stream.name, type=stream.type, channels=stream.channels, rate=stream.rate, format=stream.format,
                unit=stream.units[0], desc={OWN_DESC: {"key": key, "kind": kind}} if key else {},
            )  # fmt: skip
        session = next(number for number, stream in file.streams.items() if stream.name == SESSION_NAME)
        order = list(file.streams)
        for index in range(len(file)):
            number, _, _ = file.chunk(index)
            times, values = file.decode(index, synchronised=False)
            if file.streams[number].format == "string":
                writer.write_strings(order.index(number) + 1, times, [str(text) for text in values[:, 0]])
            else:
                writer.write(order.index(number) + 1, times, values)
            writer.write_strings(order.index(session) + 1, [times[-1]] * len(words), words)
    with XdfReplay(more, speed=math.inf) as replay:
        items = everything(replay)
        assert replay.findings == ()
        assert {moment for moment in replay.skipped_windows if not math.isnan(moment)} == {5020.0, 5030.0}
    assert [plain(item) for item in items[:-1]] == [plain(item) for item in expected]

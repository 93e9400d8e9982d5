"""Replay: the order of delivery, the pace and the controls. The clock is made by hand."""

from __future__ import annotations

import math
import tracemalloc

import numpy as np
import pytest

from devices.api import Chunk, Device, DeviceError, End, Events, Rewind, Tick, Transport, open_device
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
        assert replay.left_out == [("h10/rr (RR)", "irregular numbers")]
    assert described == [
        ("amp/eeg", "eeg", ("Cz", "Pz"), 250.0, "uV"),
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
def test_numbers_without_a_rate_are_left_out_of_a_record_of_insula_whatever_their_kind(tmp_path, kind):
    path = tmp_path / "a.xdf"
    with XdfWriter(path) as writer:
        writer.add_stream(name=SESSION_NAME, type=SESSION_TYPE, channels=["event"], rate=0.0, format="string")
        number = writer.add_stream(name="x", type=kind, channels=["a"], rate=0.0, format="float32")
        writer.write(number, [1.0, 2.0], np.zeros((2, 1), np.float32))
    with XdfReplay(path, speed=math.inf) as replay:
        assert replay.left_out == [(f"x ({kind})", "irregular numbers")]
        assert everything(replay) == [End()]


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
            ("n8", "signal", "signal", 5.0, ""),
        ]
        assert replay.left_out == [("n7 (Gaze)", "irregular numbers"), ("n9 (EEG)", "no samples")]
        labels = [item.labels for item in everything(replay) if isinstance(item, Events) and item.stream == "markers"]
        assert sum(labels, ()) == ("1", "2", "3")


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

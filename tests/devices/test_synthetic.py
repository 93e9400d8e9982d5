"""The made-up device: what it promises of its streams, markers and faults, on a hand-made clock."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from devices.api import Chunk, DeviceError, End, Events, open_device
from devices.synthetic import LONGEST, SyntheticDevice, truth
from devices.synthetic_ecg import Ecg
from devices.synthetic_eeg import Eeg
from devices.synthetic_options import Course, Options, read_options
from models.bundle import default_bundle_folder, load_bundle
from realtime.record import Recorder
from realtime.sources import choose

SCRIPT = "script=20:0,20:1,10:0.5&eyes=15:open,10:closed"


class Clock:
    """A session clock that moves only when somebody sleeps."""

    def __init__(self, start=100.0):
        self.time = start
        self.slept = []

    def now(self):
        return self.time

    def sleep(self, seconds):
        self.slept.append(seconds)
        self.time += seconds


def device(clock, query="", kinds=("eeg", "ecg")):
    return SyntheticDevice(kinds, read_options(query), clock.now, clock.sleep)


def read_until(source, clock, end, timeout=0.2):
    items = []
    while clock.time < end:
        items += source.read(timeout)
    return items


def collected(items, key):
    chunks = [item for item in items if isinstance(item, Chunk) and item.stream == key]
    return np.concatenate([chunk.times for chunk in chunks]), np.concatenate([chunk.data for chunk in chunks])


def marks(items):
    return [(float(item.times[0]), item.labels[0]) for item in items if isinstance(item, Events)]


# -- determinism and pace --------------------------------------------------------------------------------------------


def test_however_often_it_is_read_the_samples_and_markers_are_the_same():
    frequent, rare = Clock(), Clock()
    query = f"{SCRIPT}&dropout=7.3:3,40:1.5&flat=O1"
    with device(frequent, query) as one, device(rare, query) as other:
        pieces = read_until(one, frequent, 175.0, 0.013) + one.read(0.0)
        rare.time = frequent.time
        whole = other.read(0.0)
    for stream in one.streams[:2]:
        times, values = collected(pieces, stream.key)
        times_rare, values_rare = collected(whole, stream.key)
        np.testing.assert_array_equal(values, values_rare)
        np.testing.assert_array_equal(times, times_rare)
        assert len(times) == pytest.approx(70.5 * stream.rate, rel=0.01)
        lost, lost_rare = (
            [(item.times[0], item.lost) for item in items if item.stream == stream.key and item.lost]
            for items in (pieces, whole)
        )
        assert lost == lost_rare
        assert len(lost) == 2
    assert marks(pieces) == marks(whole)


@pytest.mark.parametrize("made", [Eeg, Ecg])
@settings(max_examples=8, deadline=None)
@given(cuts=st.lists(st.integers(0, 3000), min_size=2, max_size=8))
def test_any_cut_in_any_order_gives_the_same_bits(made, cuts):
    options = read_options(f"{SCRIPT}&eeg_rate=130&channels=3&seed=5")
    whole, again = made(options).samples(0, 3001), made(options)
    for first, last in itertools.pairwise(cuts):
        first, last = min(first, last), max(first, last) + 1
        np.testing.assert_array_equal(again.samples(first, last), whole[first:last])


def test_without_faults_the_stamps_are_the_sample_numbers_over_the_rate():
    clock = Clock()
    with device(clock) as source:
        items = read_until(source, clock, 110.0)
    for stream in source.streams:
        times, _ = collected(items, stream.key)
        np.testing.assert_array_equal(times, 100.0 + np.arange(len(times)) / stream.rate)


def test_it_is_paced_by_the_clock_and_waits_no_longer_than_it_may():
    clock = Clock()
    with device(clock, kinds=("eeg",)) as source:
        assert source.read(0.01) == []
        assert clock.slept == [0.01]
        first = source.read(1.0)
        assert sum(clock.slept) == pytest.approx(0.04)
        assert first[0].times[-1] <= clock.time
        clock.time += 10.0
        late = source.read(0.0)
    assert max(len(chunk.times) for chunk in late) <= LONGEST * 250
    assert sum(len(chunk.times) for chunk in late) == 2500


@pytest.mark.parametrize("made", [Eeg, Ecg])
def test_another_seed_is_another_signal_of_the_same_kind(made):
    one, other = (made(Options(seed=seed)).samples(0, 16000) for seed in (1, 2))
    assert np.abs(np.corrcoef(one[:, 0], other[:, 0])[0, 1]) < 0.2
    np.testing.assert_allclose(one.std(axis=0), other.std(axis=0), rtol=0.25)


def test_a_live_session_clock_paces_it_by_default():
    with open_device("synthetic:eeg") as source:
        items = [item for _ in range(5) for item in source.read(0.1)]
    assert items
    assert np.all(np.diff(np.concatenate([item.times for item in items])) > 0)


# -- script, markers and truth ---------------------------------------------------------------------------------------


def test_a_script_tells_its_stages_in_markers_at_their_times_and_so_does_the_truth():
    clock = Clock()
    with device(clock, SCRIPT) as source:
        items = read_until(source, clock, 170.5)
    told = marks(items)
    assert source.streams[-1].kind == "markers"
    expected = [
        (0.0, "arousal 0.00"), (0.0, "eyes open"), (15.0, "eyes closed"), (20.0, "arousal 1.00"), (25.0, "eyes open"),
        (40.0, "arousal 0.50"), (40.0, "eyes closed"), (50.0, "arousal 0.00"), (50.0, "eyes open"),
        (65.0, "eyes closed"), (70.0, "arousal 1.00"),
    ]  # fmt: skip
    assert told == [(100.0 + moment, text) for moment, text in expected]
    assert list(truth(read_options(SCRIPT), 70.5).markers) == expected


def test_a_marker_comes_with_the_samples_of_its_moment_and_never_before():
    clock = Clock()
    given = set()
    with device(clock, SCRIPT) as source:
        while clock.time < 130.0:
            for item in source.read(0.2):
                newest = item.times[-1]
                assert newest <= clock.time + 1e-9
                assert clock.time - newest < 0.09
                given.add(item.stream)
        assert given == {stream.key for stream in source.streams}
        assert "markers" in {stream.kind for stream in source.streams}


def test_a_person_at_rest_has_no_markers():
    assert [stream.kind for stream in open_device("synthetic:").streams] == ["eeg", "ecg"]


@pytest.mark.parametrize("query", ["script=60:0.5", "eyes=closed", "flat=Cz", "dropout=5:1"])
def test_whatever_is_not_rest_is_marked(query):
    assert [stream.kind for stream in open_device(f"synthetic:?{query}").streams] == ["eeg", "ecg", "markers"]


def test_arousal_changes_along_half_a_cosine_and_repeats():
    course = read_options("script=10:0,10:1,5:0.5&ramp=4").script
    times = np.array([0.0, 9.9, 10.0, 12.0, 14.0, 19.9, 20.0, 24.0, 25.0, 27.0, 29.0, 35.0, 37.0])
    levels = [0.0, 0.0, 0.0, 0.5, 1.0, 1.0, 1.0, 0.5, 0.5, 0.25, 0.0, 0.0, 0.5]
    np.testing.assert_allclose(course.at(times), levels, atol=1e-12)
    np.testing.assert_allclose(truth(read_options("script=10:0,10:1,5:0.5&ramp=4"), 1.0).arousal(times), levels)


@given(
    pieces=st.lists(st.tuples(st.floats(0.5, 100), st.floats(0, 1)), min_size=1, max_size=6), ramp=st.floats(0.01, 100)
)
def test_arousal_never_leaves_its_range_and_never_jumps(pieces, ramp):
    times = np.linspace(0.0, 300.0, 30_001)
    levels = Course(tuple(pieces), ramp).at(times)
    assert levels.min() >= min(level for _, level in pieces) - 1e-12
    assert levels.max() <= max(level for _, level in pieces) + 1e-12
    steepest = np.pi / 2 / min(0.5, ramp) if len(pieces) > 1 else 0.0
    assert np.abs(np.diff(levels)).max() <= steepest * 0.01 + 1e-9


# -- faults ----------------------------------------------------------------------------------------------------------


def test_a_dropout_is_silence_and_its_samples_are_counted_to_the_last_one():
    clock = Clock()
    with device(clock, "dropout=3:2.5,8:1") as source, device(Clock()) as healthy:
        items = []
        while clock.time < 112.0:
            got = source.read(0.2)
            if 103.05 < clock.time < 105.45:
                assert got == [] or all(isinstance(item, Events) for item in got)
            items += got
        for index, stream in enumerate(healthy.streams):
            times, values = collected(items, stream.key)
            chunks = [item for item in items if item.stream == stream.key]
            assert [(item.times[0], item.lost) for item in chunks if item.lost] == [
                (100.0 + round(5.5 * stream.rate) / stream.rate, round(5.5 * stream.rate) - round(3 * stream.rate)),
                (100.0 + round(9 * stream.rate) / stream.rate, round(9 * stream.rate) - round(8 * stream.rate)),
            ]
            number = np.round((times - 100.0) * stream.rate).astype(int)
            assert len(times) + sum(item.lost for item in chunks) == number[-1] + 1
            made = (Eeg, Ecg)[index](Options())
            np.testing.assert_array_equal(values, made.samples(0, number[-1] + 1)[number])  # the rest is untouched
    assert [(moment, text) for moment, text in marks(items) if "dropout" in text] == [
        (103.0, "dropout 2.5 s"),
        (108.0, "dropout 1 s"),
    ]


def test_a_flat_channel_holds_still_and_its_neighbours_do_not_notice():
    eeg, broken = Eeg(Options()).samples(0, 1000), Eeg(read_options("flat=Fp1,O2")).samples(0, 1000)
    flat = [name in ("Fp1", "O2") for name in Options().montage]
    assert np.ptp(broken[:, flat]) == 0.0
    np.testing.assert_array_equal(broken[:, np.invert(flat)], eeg[:, np.invert(flat)])
    assert np.ptp(Ecg(read_options("flat=ECG")).samples(0, 1000)) == 0.0


def test_a_record_of_it_holds_the_stages_and_the_losses(tmp_path):
    clock = Clock()
    with device(clock, "script=3:0,3:1&dropout=4:2") as source:
        items = read_until(source, clock, 110.0)
        recorder = Recorder(tmp_path / "r.xdf", source.streams, ["arousal"], {})
        for item in items:
            recorder.write(item)
        recorder.close()
    replayed = []
    with open_device(f"xdf:{tmp_path / 'r.xdf'}?speed=max") as replay:
        while not any(isinstance(item, End) for item in replayed):
            replayed += replay.read(0.1)
    assert marks(replayed) == marks(items)
    lost = {item.stream: item.lost for item in replayed if isinstance(item, Chunk) and item.lost}
    assert lost == {"synthetic/eeg": 500, "synthetic/ecg": 260}
    np.testing.assert_array_equal(collected(replayed, "synthetic/eeg")[1], collected(items, "synthetic/eeg")[1])


# -- addresses -------------------------------------------------------------------------------------------------------


def test_options_come_from_the_address_and_stand_in_the_streams_source():
    (eeg,) = open_device("synthetic:eeg?channels=8&eeg_rate=500").streams
    assert (len(eeg.channels), eeg.rate, eeg.unit) == (8, 500.0, "uV")
    assert eeg.source == "synthetic:eeg?channels=8&eeg_rate=500"
    (ecg,) = open_device("synthetic:ecg?bpm=60.5&seed=3").streams
    assert (ecg.channels, ecg.rate, ecg.unit) == (("ECG",), 130.0, "uV")


def test_unless_said_otherwise_its_eeg_is_all_that_the_default_model_looks_at():
    bundle = load_bundle(default_bundle_folder())
    feeds = choose(open_device("synthetic:").streams, bundle.manifest.window)
    assert {kind: -1 in feed.columns for kind, feed in feeds.items()} == {"eeg": False, "ecg": False}


@pytest.mark.parametrize(
    "rest",
    [
        "emg", "eeg?colour=red", "ecg?bpm=fast", "ecg?bpm=1e9", "eeg?channels=nan", "eeg?channels=2.5", "?mains=55",
        "?script=", "?script=60", "?script=60:2", "?script=0:1", "?script=60:0,", "?script=nan:0", "?eyes=shut",
        "?eyes=10:0.5", "?dropout=30", "?dropout=-1:3", "?dropout=30:3,31:3", "?dropout=inf:3", "?flat=X9",
        "?channels=8&flat=Cz", "?ramp=-1", "?seed=%0A", "?%0A=1", "?flat=%0A", "?script=" + ",".join(["1:0"] * 1001),
    ],
)  # fmt: skip
def test_what_cannot_be_made_is_refused_in_one_line(rest):
    with pytest.raises(DeviceError) as refused:
        open_device(f"synthetic:{rest}")
    assert str(refused.value).startswith(f"synthetic:{rest}: ")
    assert "\n" not in str(refused.value)


def test_an_address_of_two_lines_is_refused_in_one():
    with pytest.raises(DeviceError, match="not made here") as refused:
        open_device("synthetic:e\nm?g=\n")
    assert "\n" not in str(refused.value)

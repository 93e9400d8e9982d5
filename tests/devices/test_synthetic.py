"""The made-up device: what it promises of its signals, on a hand-made clock."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.signal import find_peaks, welch

from devices.api import DeviceError, open_device
from devices.synthetic import Ecg, Eeg, Options, SyntheticDevice
from models.bundle import default_bundle_folder, load_bundle
from realtime.sources import choose


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


def device(clock, kinds=("eeg", "ecg"), **options):
    return SyntheticDevice(kinds, Options(**options), clock.now, clock.sleep)


def collected(items, key):
    chunks = [item for item in items if item.stream == key]
    return np.concatenate([chunk.times for chunk in chunks]), np.concatenate([chunk.data for chunk in chunks])


def test_however_often_it_is_read_the_samples_are_the_same_bits():
    frequent, rare = Clock(), Clock()
    with device(frequent) as one, device(rare) as other:
        pieces = []
        while frequent.time < 175.0:
            pieces += one.read(0.013)
        pieces += one.read(0.0)
        rare.time = frequent.time
        whole = other.read(0.0)
    for stream in one.streams:
        times, values = collected(pieces, stream.key)
        times_rare, values_rare = collected(whole, stream.key)
        np.testing.assert_array_equal(values, values_rare)
        np.testing.assert_array_equal(times, times_rare)
        np.testing.assert_array_equal(times, 100.0 + np.arange(len(times)) / stream.rate)
        assert len(times) == pytest.approx(75 * stream.rate, rel=0.01)


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
    assert max(len(chunk.times) for chunk in late) <= 250
    assert sum(len(chunk.times) for chunk in late) == 2500


def test_another_seed_is_another_signal_of_the_same_kind():
    one, other = (Eeg(Options(seed=seed)).samples(0, 16000) for seed in (1, 2))
    assert np.abs(np.corrcoef(one[:, 0], other[:, 0])[0, 1]) < 0.2
    for samples in (one, other):
        assert np.all((samples.std(axis=0) > 5.0) & (samples.std(axis=0) < 30.0))  # microvolts


def test_eeg_has_a_falling_background_and_alpha_at_the_back():
    eeg = Eeg(Options())
    frequencies, power = welch(eeg.samples(0, 16000), 250.0, nperseg=1000, axis=0)

    def band(low, high):
        return power[(frequencies >= low) & (frequencies < high)].mean(axis=0)

    index = {name: place for place, name in enumerate(eeg.stream.channels)}
    assert len(index) == 19
    assert np.all(band(1, 4) > 3 * band(20, 40))
    assert band(9, 11)[index["O1"]] > 5 * band(9, 11)[index["Fp1"]]
    assert band(9, 11)[index["O1"]] > 10 * band(13, 16)[index["O1"]]


@pytest.mark.parametrize(("bpm", "rate"), [(72.0, 130), (50.0, 250), (160.0, 130)])
def test_the_heart_beats_at_the_rate_that_was_asked_for(bpm, rate):
    samples = Ecg(Options(bpm=bpm, ecg_rate=rate)).samples(0, 60 * rate)[:, 0]
    peaks, _ = find_peaks(samples, height=500.0)
    beats = (np.arange(round(bpm)) + 0.5) * 60.0 / bpm
    assert len(peaks) == len(beats)
    assert np.abs(peaks / rate - beats).max() < 1.0 / rate + 1e-9


def test_options_come_from_the_address():
    assert [stream.kind for stream in open_device("synthetic:").streams] == ["eeg", "ecg"]
    (eeg,) = open_device("synthetic:eeg?channels=8&eeg_rate=500").streams
    assert (len(eeg.channels), eeg.rate, eeg.unit) == (8, 500.0, "uV")
    (ecg,) = open_device("synthetic:ecg?bpm=60.5&seed=3").streams
    assert (ecg.channels, ecg.rate, ecg.unit) == (("ECG",), 130.0, "uV")


def test_unless_said_otherwise_its_eeg_is_all_that_the_default_model_looks_at():
    bundle = load_bundle(default_bundle_folder())
    feeds = choose(open_device("synthetic:").streams, bundle.manifest.window)
    assert {kind: -1 in feed.columns for kind, feed in feeds.items()} == {"eeg": False, "ecg": False}


@pytest.mark.parametrize("rest", ["emg", "eeg?colour=red", "ecg?bpm=fast", "ecg?bpm=1e9", "eeg?channels=nan"])
def test_what_cannot_be_made_is_refused_in_one_line(rest):
    with pytest.raises(DeviceError) as refused:
        open_device(f"synthetic:{rest}")
    assert str(refused.value).startswith(f"synthetic:{rest}: ")
    assert "\n" not in str(refused.value)


def test_a_live_session_clock_paces_it_by_default():
    with open_device("synthetic:eeg") as source:
        items = [item for _ in range(5) for item in source.read(0.1)]
    assert items
    assert np.all(np.diff(np.concatenate([item.times for item in items])) > 0)

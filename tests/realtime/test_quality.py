"""What the verdicts say: of made signals with one fault each, and of real recordings whose faults are known."""

from __future__ import annotations

import numpy as np
import pytest

from devices.api import Chunk, StreamInfo
from models.api import InputSpec, WindowSpec
from realtime.windows import iter_windows

RATE = 250.0
EEG = InputSpec(kind="eeg", channels=("CZ",))
ECG = InputSpec(kind="ecg", channels=("ECG",))


def verdict(samples, spec=EEG, unit="uV"):
    """Of the window from 3 to 13 s of ``samples`` (n,) at 250 Hz."""
    stream = StreamInfo(key="s", kind=spec.kind, channels=spec.channels, rate=RATE, unit=unit)
    chunk = Chunk("s", np.arange(len(samples)) / RATE, np.asarray(samples, np.float32)[:, None])
    windows = {window.t_end: window for window in iter_windows([chunk], WindowSpec(inputs=(spec,)), [stream])}
    return windows[13.0].quality[spec.kind][0]


def brain(seconds=14.0, sd=15.0):
    return sd * np.random.default_rng(0).standard_normal(round(seconds * RATE))


def heart(height=800.0, seconds=14.0):
    times = np.arange(round(seconds * RATE)) / RATE
    return height * np.exp(-((((times + 0.4) % 0.8 - 0.4) / 0.012) ** 2)) + np.random.default_rng(0).normal(
        0, 3, len(times)
    )


def test_a_good_channel_has_no_reason():
    assert (verdict(brain()).score, verdict(brain()).reason) == (1.0, "")
    assert (verdict(heart(), ECG).score, verdict(heart(), ECG).reason) == (1.0, "")


@pytest.mark.parametrize("level", [0.0, 4200.0, -187500.0])
def test_a_constant_is_flat_whatever_its_level(level):
    assert verdict(np.full(3500, level)).reason == "flat"
    assert verdict(np.full(3500, level)).score == 0


def test_a_whisper_of_noise_is_flat():
    assert verdict(brain(sd=0.2)).reason == "flat"


def test_a_railed_stretch_is_said_with_its_share():
    samples = brain()
    samples[round(9.6 * RATE) :] = 187.5
    assert verdict(samples).reason == "railed 34 % of the time"
    assert verdict(samples).score == pytest.approx(0.32, abs=0.01)


def test_large_amplitude_is_doubtful_and_then_bad():
    assert verdict(brain(sd=90)).reason.startswith("amplitude ")
    assert 0.3 < verdict(brain(sd=120)).score < 0.99
    assert verdict(brain(sd=400)).score == 0


def test_one_spike_is_no_bad_channel():
    samples = brain()
    samples[-1000] += 2_000
    assert verdict(samples).score > 0.5


def test_missing_samples_are_said_with_their_share():
    samples = brain()
    samples[round(9.9 * RATE) : round(13.2 * RATE)] = np.nan
    assert verdict(samples).reason == "31 % missing"
    assert verdict(samples).score == pytest.approx(0.69, abs=0.01)


def test_a_lead_without_heart_is_bad_though_it_is_not_flat():
    found = verdict(heart(height=40), ECG)
    assert found.score < 0.2
    assert found.reason.startswith("amplitude ")


def test_limits_hold_in_any_unit():
    for stream_unit, factor in (("mV", 1e-3), ("V", 1e-6)):
        assert verdict(heart() * factor, ECG, stream_unit).score == 1
        assert verdict(heart(height=40) * factor, ECG, stream_unit).score < 0.2
    in_millivolts = InputSpec(kind="ecg", channels=("ECG",), unit="mV")
    assert verdict(heart(), in_millivolts).score == 1
    assert verdict(heart(height=40), in_millivolts).score < 0.2


@pytest.mark.parametrize(
    ("recording", "lost"),
    [
        ("Subject02_1", True),
        ("Subject13_1", True),
        ("Subject20_2", True),
        ("Subject35_2", True),
        ("Subject02_2", False),
        ("Subject05_1", False),
        ("Subject28_1", False),
        ("Subject33_2", False),
    ],
)
def test_real_ecg_that_is_lost_is_bad_and_the_rest_is_good(shared_data, recording, lost):
    with np.load(shared_data / "eegmat" / "eegmat_28_people_128hz_int16_0p1uV.npz") as people:
        labels = tuple(str(label) for label in people["channels"])
        samples = (people[recording].T * people["scale_uV"]).astype(np.float32)
    stream = StreamInfo(key="amp", kind="eeg", channels=labels, rate=128.0, unit="uV")
    spec = WindowSpec(inputs=(InputSpec(kind="eeg", channels=labels[:19]), ECG), hop=5.0)
    windows = list(iter_windows([Chunk("amp", np.arange(len(samples)) / 128, samples)], spec, [stream]))
    scores = np.array([window.quality["ecg"][0].score for window in windows])
    assert np.mean(scores < 0.5) > 0.9 if lost else np.mean(scores > 0.9) > 0.9
    brain = np.array([[v.score for v in window.quality["eeg"]] for window in windows])
    assert np.mean(brain > 0.5) > 0.97

"""Classical features of made-up signals whose answer is known."""

from __future__ import annotations

import numpy as np
import pytest

from offline_training import baselines

RATE = 200.0
TIME = np.arange(2000) / RATE


def beats(at: np.ndarray, noise: float = 0.0) -> np.ndarray:
    ecg = sum(800.0 * np.exp(-0.5 * ((TIME - t) / 0.012) ** 2) for t in at)
    return (ecg + noise * np.random.default_rng(0).standard_normal(len(TIME))).astype(np.float32)


@pytest.mark.parametrize(("frequency", "band"), [(2.0, 0), (6.0, 1), (10.0, 2), (20.0, 3), (38.0, 4)])
def test_the_power_of_a_sine_is_in_its_band_and_is_half_its_square(frequency, band):
    eeg = (20.0 * np.sin(2 * np.pi * frequency * TIME)).astype(np.float32)[None, None]
    power = np.exp(baselines.band_powers(eeg, RATE))[0]
    assert power.argmax() == band
    assert power[band] == pytest.approx(200.0, rel=0.05)


def test_features_stand_channel_by_channel():
    eeg = np.stack([np.sin(2 * np.pi * 10 * TIME), np.sin(2 * np.pi * 20 * TIME)]).astype(np.float32)[None]
    power = baselines.band_powers(eeg, RATE).reshape(2, len(baselines.BANDS))
    assert power.argmax(axis=1).tolist() == [2, 3]


@pytest.mark.parametrize("sign", [1, -1])
def test_r_peaks_are_found_to_ten_milliseconds_in_noise_whatever_the_polarity(sign):
    at = np.arange(0.4, 9.8, 0.83)
    found = baselines.r_peaks(sign * beats(at, noise=30.0), RATE)
    assert len(found) == len(at)
    assert np.abs(found - at).max() < 0.01


def test_heart_rate_and_its_variability_are_those_put_in():
    intervals = 0.8 + 0.05 * np.array([1, -1, 1, -1, 1, -1, 1, -1, 1, -1, 1])
    rate, rmssd, sdnn = baselines.heart_features(beats(0.3 + np.cumsum(intervals))[None], RATE)[0]
    assert rate == pytest.approx(75.0, abs=0.6)
    assert np.exp(rmssd) == pytest.approx(101.0, rel=0.08)
    assert np.exp(sdnn) == pytest.approx(53.7, rel=0.1)


@pytest.mark.parametrize("ecg", [np.zeros(2000), 5.0 * np.sin(2 * np.pi * 0.2 * TIME)])
def test_without_beats_there_are_no_heart_features(ecg):
    assert np.isnan(baselines.heart_features(ecg.astype(np.float32)[None], RATE)).all()


def test_normalisation_sees_every_person_from_their_own_rest():
    random = np.random.default_rng(0)
    person = np.repeat(["a", "b"], 100)
    baseline = np.tile(np.arange(100) < 50, 2)
    features = random.standard_normal((200, 3)) * [[2.0]] + np.where(person == "a", 100.0, -40.0)[:, None]
    seen = baselines.normalise_by_rest(features, person, baseline, np.arange(100))
    for who in "ab":
        rest = seen[(person == who) & baseline]
        assert np.abs(rest.mean(0)).max() < 1e-9
        assert rest.std(0) == pytest.approx(1.0)


def test_what_is_missing_counts_as_at_rest():
    features = np.ones((20, 2))
    features[:, 1] = np.nan
    seen = baselines.normalise_by_rest(features, np.full(20, "a"), np.arange(20) < 10, np.arange(20))
    assert (seen == 0.0).all()


def test_the_test_people_do_not_change_what_the_training_people_look_like():
    random = np.random.default_rng(0)
    person = np.repeat(["a", "b", "c"], 40)
    baseline = np.tile(np.arange(40) < 10, 3)
    features = random.standard_normal((120, 4))
    train = np.arange(80)
    before = baselines.normalise_by_rest(features, person, baseline, train)
    features[80:] *= 1000.0
    after = baselines.normalise_by_rest(features, person, baseline, train)
    assert np.array_equal(before[:80], after[:80])

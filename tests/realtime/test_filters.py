"""The streaming filter against SciPy's, and what it does where samples are missing."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import signal

from models.api import InputSpec
from realtime.filters import MISSING, RESTART, SETTLING, Filter, design

RATES = [100.0, 128.0, 130.0, 250.0, 256.0, 500.0, 1000.0]


def spec(**fields):
    return InputSpec(kind="eeg", channels=("CZ",), **fields)


def no_flags(samples):
    return np.zeros(samples.shape, np.uint8), np.zeros(len(samples), np.uint8)


@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize("notch", [(), (50.0,), (50.0, 100.0)])
def test_it_is_scipys_sosfilt_with_the_same_initial_state(rate, notch):
    sos = design(spec(notch=notch), rate)
    samples = 300 + 50 * np.random.default_rng(0).standard_normal((2000, 3))
    zi = signal.sosfilt_zi(sos)[:, :, None] * samples[0]
    expected, _ = signal.sosfilt(sos, samples, axis=0, zi=zi)
    Filter(sos, 3, rate).run(samples, *no_flags(samples))
    np.testing.assert_allclose(samples, expected, rtol=1e-9, atol=1e-9)


@settings(deadline=None)
@given(cuts=st.lists(st.integers(1, 499), max_size=30), channels=st.integers(1, 9), seed=st.integers(0, 99))
def test_any_chunking_gives_the_same_bits(cuts, channels, seed):
    rng = np.random.default_rng(seed)
    samples = rng.standard_normal((500, channels))
    flags = (rng.random(samples.shape) < 0.1).astype(np.uint8) * MISSING
    marks = (rng.random(500) < 0.005).astype(np.uint8) * RESTART
    sos = design(spec(), 250.0)
    whole, whole_flags = samples.copy(), flags.copy()
    Filter(sos, channels, 250.0).run(whole, whole_flags, marks)
    cut = Filter(sos, channels, 250.0)
    edges = [0, *sorted(set(cuts)), 500]
    for a, b in pairwise(edges):
        cut.run(samples[a:b], flags[a:b], marks[a:b])
    assert samples.tobytes() == whole.tobytes()
    assert flags.tobytes() == whole_flags.tobytes()


@pytest.mark.parametrize("rate", RATES)
def test_the_band_passes_and_the_rest_does_not(rate):
    sos = design(spec(notch=(50.0, 60.0)), rate)
    low, middle, mains = np.abs(signal.freqz_sos(sos, [0.1, 10.0, 50.0], fs=rate)[1])
    assert low < 2e-3
    assert middle == pytest.approx(1, abs=0.01)
    assert mains < (0.02 if rate > 120 else 1)  # at 100 Hz the mains lie on the Nyquist frequency: nothing to notch


def test_notches_near_the_nyquist_frequency_are_left_out():
    assert len(design(spec(notch=(50.0, 60.0)), 128.0)) == len(design(spec(notch=(50.0,)), 128.0))
    assert len(design(spec(notch=(50.0, 60.0)), 250.0)) == len(design(spec(notch=(50.0,)), 250.0)) + 1


def test_a_band_above_what_a_rate_holds_becomes_a_high_pass():
    sos = design(spec(band=(0.5, 75.0)), 128.0)
    assert np.abs(signal.freqz_sos(sos, [60.0], fs=128.0)[1])[0] == pytest.approx(1, abs=1e-3)


def test_a_band_that_makes_no_sense_is_refused_in_words():
    with pytest.raises(ValueError, match=r"45\.0 to 0\.5 Hz cannot be filtered at 250\.0 Hz"):
        design(spec(band=(45.0, 0.5)), 250.0)


def test_an_offset_makes_no_transient():
    samples = np.full((1000, 2), [4200.0, -1e6])
    Filter(design(spec(), 128.0), 2, 128.0).run(samples, *no_flags(samples))
    assert np.abs(samples[:, 0]).max() < 1e-6
    assert np.abs(samples[:, 1]).max() < 1e-3


def test_a_restart_forgets_what_came_before():
    rng = np.random.default_rng(0)
    samples = rng.standard_normal((600, 2))
    samples[300:] += 5000
    alone = samples[300:].copy()
    flags, marks = no_flags(samples)
    marks[300] = RESTART
    Filter(design(spec(), 250.0), 2, 250.0).run(samples, flags, marks)
    Filter(design(spec(), 250.0), 2, 250.0).run(alone, *no_flags(alone))
    np.testing.assert_array_equal(samples[300:], alone)
    assert (flags[300:550] & SETTLING).all()
    assert not (flags[550:] & SETTLING).any()


def test_a_missing_sample_is_held_and_a_long_hole_of_one_channel_restarts_that_channel_only():
    rate = 250.0
    samples = 100 + np.random.default_rng(0).standard_normal((1500, 2))
    samples[700:] += [5000, 0]
    flags, marks = no_flags(samples)
    flags[100] = MISSING, MISSING
    flags[600:700, 0] = MISSING
    held = samples.copy()
    held[100] = held[99]
    samples[100] = np.nan
    samples[600:700, 0] = np.nan
    chain = Filter(design(spec(), rate), 2, rate)
    chain.run(samples, flags, marks)
    sos = chain.sos
    expected, _ = signal.sosfilt(sos, held[:, 1], zi=signal.sosfilt_zi(sos) * held[0, 1])
    np.testing.assert_allclose(samples[:, 1], expected, rtol=1e-9, atol=1e-9)
    fresh, _ = signal.sosfilt(sos, held[700:, 0], zi=signal.sosfilt_zi(sos) * held[700, 0])
    np.testing.assert_allclose(samples[700:, 0], fresh, rtol=1e-9, atol=1e-8)
    assert (flags[700:950, 0] & SETTLING).all()
    assert not (flags[700:950, 1] & SETTLING).any()


def test_a_channel_that_never_had_a_value_is_zero_and_its_neighbour_is_not_touched():
    samples = np.random.default_rng(0).standard_normal((500, 2))
    samples[:, 0] = np.nan
    flags, marks = no_flags(samples)
    flags[:, 0] = MISSING
    Filter(design(spec(), 250.0), 2, 250.0).run(samples, flags, marks)
    assert not samples[:, 0].any()
    assert np.isfinite(samples[:, 1]).all()


@pytest.mark.parametrize("rate", [128.0, 250.0, 1000.0])
def test_it_says_its_delay(rate):
    chain = Filter(design(spec(), rate), 1, rate)
    times = np.arange(round(8 * rate)) / rate
    envelope = np.exp(-(((times - 4) / 0.4) ** 2))
    packet = (envelope * np.cos(2 * np.pi * 10 * (times - 4)))[:, None]
    chain.run(packet, *no_flags(packet))
    strength = np.abs(signal.hilbert(packet[:, 0])) ** 2
    arrived = np.sum(times * strength) / np.sum(strength)
    assert chain.delay(10.0) == pytest.approx(arrived - 4, abs=1e-3)
    assert 0.005 < chain.delay(10.0) < 0.02


def test_a_source_that_falls_silent_leaves_no_subnormal_numbers():
    samples = np.zeros((250 * 60, 2))
    samples[:500] = np.random.default_rng(0).standard_normal((500, 2))
    chain = Filter(design(spec(notch=(50.0,)), 250.0), 2, 250.0)
    chain.run(samples, *no_flags(samples))
    sizes = np.abs(samples[samples != 0])
    assert sizes.min() > np.finfo(np.float64).tiny
    silence = np.zeros((250 * 600, 2))
    chain.run(silence, *no_flags(silence))
    assert not silence[-1].any()

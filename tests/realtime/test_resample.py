"""The resampler against the waves it interpolates and against SciPy."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import signal

from realtime.filters import HOLE, MISSING, REACHED, RESTART, STUCK
from realtime.resample import NEVER, Resampler

RATES = [100.0, 128.0, 130.0, 200.0, 250.0, 256.0, 500.0, 1000.0]


def resampler(rate, channels=1, run=7, passband=45.0):
    return Resampler(rate, 200.0, channels, passband=passband, run=run, batch=512)


def run(one, times, samples, flags=None, marks=None):
    """Everything that comes out: grid indices (m,), values and flags (m, channels)."""
    flags = np.zeros(samples.shape, np.uint8) if flags is None else flags
    if marks is None:
        marks = np.zeros(len(times), np.uint8)
    parts = []
    for a in range(0, max(1, len(times)), 512):
        b, taken = min(a + 512, len(times)), 0
        while taken < b - a:
            taken, at, values, out_flags = one.run(times[a:b], samples[a:b], flags[a:b], marks[a:b], taken)
            parts.append((at[:, 0].copy(), values.copy(), out_flags.copy()))
    return tuple(np.concatenate(column) for column in zip(*parts, strict=True))


@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize("frequency", [1.0, 10.0, 30.0, 40.0])
def test_waves_in_the_band_come_out_where_they_are(rate, frequency):
    times = 1e5 + 0.0123 + np.arange(round(6 * rate)) / rate
    samples = np.stack([np.sin(2 * np.pi * frequency * times), np.cos(2 * np.pi * frequency * times)], 1)
    at, values, _ = run(resampler(rate, 2), times, samples)
    assert (np.diff(at) == 1).all()
    grid = at / 200
    expected = np.stack([np.sin(2 * np.pi * frequency * grid), np.cos(2 * np.pi * frequency * grid)], 1)
    # -60 dB, but for 40 Hz at 100 Hz, which lies in the transition band.
    assert np.abs(values - expected).max() < (0.02 if (rate, frequency) == (100.0, 40.0) else 1e-3)


@pytest.mark.parametrize(("rate", "up", "down"), [(128.0, 25, 16), (250.0, 4, 5), (500.0, 2, 5), (1000.0, 1, 5)])
def test_it_agrees_with_scipys_polyphase_resampling_of_noise_in_the_band(rate, up, down):
    noise = np.random.default_rng(0).standard_normal(round(20 * rate))
    samples = signal.sosfiltfilt(signal.butter(8, (1, 40), "bandpass", fs=rate, output="sos"), noise)
    expected = signal.resample_poly(samples, up, down, window=("kaiser", 12.0))
    at, values, _ = run(resampler(rate), np.arange(len(samples)) / rate, samples[:, None])
    inside = (at > 400) & (at < 3600)
    error = values[inside, 0] - expected[at[inside]]
    assert np.sqrt(np.mean(error**2)) < 2e-3 * expected.std()


def test_on_its_own_grid_it_changes_nothing():
    samples = np.random.default_rng(0).standard_normal((600, 2))
    at, values, _ = run(resampler(200.0, 2), np.arange(600) / 200, samples)
    np.testing.assert_allclose(values, samples[at], rtol=1e-6, atol=1e-6)


def test_an_offset_is_kept_exactly():
    for rate in RATES:
        _, values, _ = run(resampler(rate), np.arange(500) / rate, np.full((500, 1), 1234.5))
        np.testing.assert_allclose(values, 1234.5, rtol=1e-6)


def test_what_lies_above_the_grid_is_not_folded_into_the_band():
    times = np.arange(3000) / 1000
    _, values, _ = run(resampler(1000.0), times, np.sin(2 * np.pi * 170 * times)[:, None])
    assert np.abs(values).max() < 2e-3  # 170 Hz would come out as 30 Hz


def test_a_drifting_clock_bends_the_interpolation_and_shifts_nothing():
    true = np.arange(2600) / 130.7 * (1 + 1e-3 * np.sin(np.arange(2600) / 400))
    at, values, _ = run(resampler(130.0), true, np.sin(2 * np.pi * 5 * true)[:, None])
    assert np.abs(values[:, 0] - np.sin(2 * np.pi * 5 * at / 200)).max() < 3e-3


@settings(deadline=None)
@given(cuts=st.lists(st.integers(1, 799), max_size=40), rate=st.sampled_from(RATES), seed=st.integers(0, 99))
def test_any_chunking_gives_the_same_bits(cuts, rate, seed):
    rng = np.random.default_rng(seed)
    times = 77 + np.cumsum(rng.uniform(0.2, 1.8, 800)) / rate
    times[400:] += 0.5
    samples = rng.standard_normal((800, 3))
    flags = rng.choice(
        np.array([0, MISSING, STUCK, STUCK | REACHED], np.uint8), samples.shape, p=[0.9, 0.05, 0.04, 0.01]
    )
    marks = rng.choice(np.array([0, RESTART, HOLE], np.uint8), 800, p=[0.99, 0.005, 0.005])
    whole = run(resampler(rate, 3), times, samples, flags, marks)
    cut = resampler(rate, 3)
    edges = [0, *sorted(set(cuts)), 800]
    parts = [run(cut, times[a:b], samples[a:b], flags[a:b], marks[a:b]) for a, b in pairwise(edges)]
    for one, other in zip(whole, map(np.concatenate, zip(*parts, strict=True)), strict=True):
        assert one.tobytes() == other.tobytes()


def test_a_point_comes_out_once_the_kernel_has_its_samples_and_never_before():
    one = resampler(250.0)
    times = np.arange(100) / 250
    for i in range(100):
        at, _, _ = run(one, times[i : i + 1], np.zeros((1, 1)))
        reached = i - one.half
        if len(at):
            assert times[reached] <= at[0] / 200 < times[reached + 1]
        assert one.following >= times[max(0, reached)] * 200 or i < 2 * one.half
    assert one.lookahead == pytest.approx(8 / 250)


def test_where_a_segment_ends_the_points_without_support_never_come():
    times = np.concatenate([np.arange(250) / 250, 3 + np.arange(250) / 250])
    one = resampler(250.0)
    at, _, _ = run(one, times, np.ones((500, 1)))
    holes = np.flatnonzero(np.diff(at) > 1)
    assert len(holes) == 1
    assert at[holes[0]] / 200 == pytest.approx(times[249] - 8 / 250, abs=0.005)
    assert at[holes[0] + 1] / 200 == pytest.approx(3 + 7 / 250, abs=0.005)


def test_stamps_that_go_back_never_rewrite_what_came_out():
    times = np.concatenate([np.arange(500) / 250, 1 + np.arange(500) / 250])
    at, _, _ = run(resampler(250.0), times, np.ones((1000, 1)))
    assert (np.diff(at) >= 1).all()
    assert at[-1] == pytest.approx(200 * (times[-1] - 8 / 250), abs=1)


def test_missing_samples_leave_zeros_where_they_were_and_nowhere_else():
    times = np.arange(1000) / 250
    samples = np.full((1000, 2), 5.0)
    flags = np.zeros((1000, 2), np.uint8)
    flags[500:550, 1] = MISSING
    at, values, out_flags = run(resampler(250.0, 2), times, samples, flags)
    gone = (at / 200 >= times[500] - 0.002) & (at / 200 < times[550] - 0.002)
    assert not values[gone, 1].any()
    assert (out_flags[gone, 1] & MISSING).all()
    assert not (out_flags[~gone] & MISSING).any()
    assert (values[:, 0] != 0).all()


@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize(("every", "first"), [(5, 0), (5, 1), (5, 3), (2, 0), (3, 1), (10, 4)])
def test_single_values_that_are_missing_are_counted_at_their_share_at_any_rate(rate, every, first):
    times = 7.0 + np.arange(round(10 * rate)) / rate
    flags = np.zeros((len(times), 2), np.uint8)
    flags[first::every, 1] = MISSING
    _, values, found = run(resampler(rate, 2), times, np.ones((len(times), 2)), flags)
    assert np.mean(found[:, 1] & MISSING != 0) == pytest.approx(1 / every, abs=0.005)
    assert not (found[:, 0] & MISSING).any()
    assert (values[found[:, 1] & MISSING != 0, 1] == 0).all()


def test_a_hole_that_is_bridged_is_missing():
    times = np.delete(np.arange(1000) / 250, np.s_[500:515])
    marks = np.zeros(985, np.uint8)
    marks[500] = HOLE
    at, values, flags = run(resampler(250.0), times, np.ones((985, 1)), marks=marks)
    gone = (at / 200 >= times[499]) & (at / 200 < times[500])
    assert gone.sum() == 12  # 64 ms between the last sample before and the first after
    assert not values[gone].any()
    np.testing.assert_array_equal((flags[:, 0] & MISSING) != 0, gone)


def test_a_run_is_flagged_from_its_beginning():
    flags = np.zeros((600, 1), np.uint8)
    flags[306, 0] = STUCK | REACHED
    flags[307:320, 0] = STUCK
    at, _, out = run(resampler(200.0, run=7), np.arange(600) / 200, np.ones((600, 1)), flags)
    assert at[(out[:, 0] & STUCK) != 0].tolist() == list(range(300, 320))


def test_after_a_reset_it_is_as_new():
    one, new = resampler(130.0), resampler(130.0)
    run(one, 900 + np.arange(500) / 130, np.ones((500, 1)))
    one.reset()
    assert one.following == NEVER
    times, samples = np.arange(300) / 130, np.random.default_rng(0).standard_normal((300, 1))
    for a, b in zip(run(one, times, samples), run(new, times, samples), strict=True):
        np.testing.assert_array_equal(a, b)

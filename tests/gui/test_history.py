"""The memory behind the traces, and what it gives the screen."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gui.history import History, stacked


def wave(count: int, first: int = 0, rate: float = 100.0):
    index = np.arange(first, first + count)
    return index / rate, np.stack([np.sin(index / 7.0), np.cos(index / 3.0)], 1).astype(np.float32)


@given(cuts=st.lists(st.integers(1, 150), min_size=1, max_size=40))
def test_however_the_samples_are_cut_the_newest_are_kept_in_order(cuts):
    history = History(2, 120)
    for first, count in zip(np.cumsum([0, *cuts]), cuts, strict=False):
        history.append(*wave(count, int(first)))
    times, data = history.since(-1.0, 10_000)
    # A chunk as large as the memory loses its oldest rows: at least the last 119 are there.
    expected_times, expected = wave(len(times), sum(cuts) - len(times))
    assert len(times) >= min(sum(cuts), 119)
    np.testing.assert_array_equal(times, expected_times)
    np.testing.assert_array_equal(data, expected)


def test_a_gap_breaks_the_curve_and_costs_one_row():
    history = History(2, 500)
    history.append(*wave(100))
    history.append(*wave(100, 300), gap=True)
    times, data = history.since(0.0, 10_000)
    assert len(times) == 201
    assert np.flatnonzero(np.isnan(data).any(axis=1)).tolist() == [100]


def test_a_gap_before_the_first_sample_breaks_nothing():
    history = History(2, 500)
    history.append(*wave(50), gap=True)
    assert np.isfinite(history.since(0.0, 1000)[1]).all()


@given(points=st.integers(5, 300), count=st.integers(1, 3000))
def test_thinned_out_rows_are_few_and_keep_every_extreme(points, count):
    history = History(2, 3000)
    times, data = wave(count)
    history.append(times, data)
    seen_times, seen = history.since(-1.0, points)
    assert len(seen) <= 2 * points + 2 * (1 + count // points)
    assert np.all(np.diff(seen_times) >= 0)
    np.testing.assert_array_equal(seen.max(axis=0), data.max(axis=0))
    np.testing.assert_array_equal(seen.min(axis=0), data.min(axis=0))


def test_thinning_out_does_not_flicker_while_the_time_goes_on():
    history = History(2, 5000)
    history.append(*wave(4000))
    before = dict(zip(*(part.tolist() for part in history.since(5.0, 300)), strict=True))
    history.append(*wave(3, 4000))
    after = dict(zip(*(part.tolist() for part in history.since(5.03, 300)), strict=True))
    assert len(after) > 300
    same = set(before) & set(after)
    assert len(same) > 0.95 * len(after)
    assert all(before[time] == after[time] for time in same if time < 39.8)


def test_a_clock_that_is_set_back_starts_the_memory_again():
    history = History(2, 500)
    times, data = wave(100)
    history.append(times + 1000.0, data)
    history.append(times, data)
    assert history.since(-1.0, 1000)[0].tolist() == times.tolist()


def test_rows_without_a_finite_time_are_left_out_and_seen_as_a_gap():
    history = History(2, 500)
    history.append(*wave(10))
    times, data = wave(10, 10)
    times[3] = np.nan
    history.append(times, data)
    seen, rows = history.since(0.0, 1000)
    assert np.isfinite(seen).all()
    assert len(seen) == 20
    assert np.isnan(rows[10]).all()


def test_an_empty_memory_has_no_rows_and_no_newest():
    history = History(3, 10)
    times, data = history.since(0.0, 100)
    assert times.shape == (0,)
    assert data.shape == (0, 3)
    assert np.isnan(history.newest)


def test_stacked_channels_are_one_line_with_a_break_between_them():
    x, y = stacked(np.array([1.0, 2.0]), np.array([[1, 5], [2, 6]], np.float32), np.array([0.0, -1.0]))
    np.testing.assert_array_equal(y, [1, 2, np.nan, 4, 5, np.nan])
    assert x[[0, 1, 3, 4]] == pytest.approx([1, 2, 1, 2])
    assert np.isfinite(x).all()

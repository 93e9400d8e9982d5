"""The memory behind the traces, and what it gives the screen."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gui.history import PAGE, History, Moments, stacked

RATE = 100.0


def wave(count: int, first: int = 0, rate: float = RATE):
    index = np.arange(first, first + count)
    return index / rate, np.stack([np.sin(index / 7.0), np.cos(index / 3.0)], 1).astype(np.float32)


def everything(history: History):
    return history.between(-np.inf, np.inf, 10**9)


def small(pages: int = 2) -> History:
    """One that has room for so many pages at each resolution."""
    return History(2, RATE, pages * PAGE * 16)


@given(cuts=st.lists(st.integers(1, 1500), min_size=1, max_size=40))
def test_however_the_samples_are_cut_the_newest_are_kept_as_they_came_and_the_rest_by_its_extremes(cuts):
    history, whole = small(), small()
    for first, count in zip(np.cumsum([0, *cuts]), cuts, strict=False):
        history.append(*wave(count, int(first)))
    times, data = wave(sum(cuts))
    whole.append(times, data)
    for low in (0.0, times[-1] / 2, times[-1] - 5.0):
        for mine, other in zip(history.between(low, np.inf, 400), whole.between(low, np.inf, 400), strict=True):
            np.testing.assert_array_equal(mine, other)
    recent = times >= times[-1] - 20.0
    seen_times, seen = history.between(times[-1] - 20.0, np.inf, 10**6)
    np.testing.assert_array_equal(seen_times, times[recent])
    np.testing.assert_array_equal(seen, data[recent])
    _, past = history.between(0.0, np.inf, 10**6)
    np.testing.assert_array_equal(past.max(axis=0), data.max(axis=0))
    np.testing.assert_array_equal(past.min(axis=0), data.min(axis=0))


def test_the_whole_session_is_there_in_bounded_memory_and_how_finely_is_said():
    history = small()
    blip = 0.0
    for second in range(0, 7200, 10):
        times, data = wave(1000, second * 100)
        if second == 60:
            data[500], blip = 9.0, times[500]
        history.append(times, data)
    assert history.nbytes <= len(history.levels) * 2 * PAGE * 16
    assert history.oldest == 0.0
    assert history.newest == pytest.approx(7199.99)
    assert history.grain(history.newest) == 0.0
    assert 0.0 < history.grain(3600.0) <= history.grain(10.0) < 15.0
    times, rows = history.between(30.0, 90.0, 800)
    assert rows.max() == 9.0  # two hours later the spike of one sample is still seen
    assert times[rows[:, 0].argmax()] == pytest.approx(blip, abs=history.grain(10.0))
    assert 30.0 <= times[0] <= times[-1] <= 90.0


def test_memory_does_not_grow_once_it_is_full():
    history = small()
    sizes = []
    for second in range(0, 3 * 3600, 20):
        history.append(*wave(2000, second * 100))
        sizes.append(history.levels[0].nbytes + history.levels[1].nbytes)
    assert len(set(sizes[len(sizes) // 2 :])) == 1


def test_a_gap_breaks_the_curve_and_costs_one_row():
    history = small()
    history.append(*wave(100))
    history.append(*wave(100, 300), gap=True)
    times, data = everything(history)
    assert len(times) == 201
    assert np.flatnonzero(np.isnan(data).any(axis=1)).tolist() == [100]


def test_a_gap_is_still_seen_where_only_extremes_are_left():
    history = small()
    history.append(*wave(3000))
    history.append(*wave(100_000, 4000), gap=True)
    times, data = history.between(20.0, 50.0, 700)
    assert history.grain(30.0) > 0
    broken = np.flatnonzero(np.isnan(data).all(axis=1))
    assert len(broken) == 1
    assert times[broken[0]] == pytest.approx(29.99)
    assert times[broken[0] + 1] == pytest.approx(40.0)


def test_a_channel_without_values_does_not_hide_the_others_where_only_extremes_are_left():
    history = small()
    times, data = wave(100_000)
    data[:, 1] = np.nan
    data[::50, 0] = np.nan
    history.append(times, data)
    _, rows = history.between(10.0, 40.0, 100)
    assert np.isfinite(rows[:, 0]).all()
    assert np.isnan(rows[:, 1]).all()


def test_a_gap_before_the_first_sample_breaks_nothing():
    history = small()
    history.append(*wave(50), gap=True)
    assert np.isfinite(everything(history)[1]).all()


@given(points=st.integers(5, 300), count=st.integers(1, 9000))
def test_thinned_out_rows_are_few_and_keep_every_extreme(points, count):
    history = small(8)
    times, data = wave(count)
    history.append(times, data)
    seen_times, seen = history.between(-1.0, np.inf, points)
    assert len(seen) <= 2 * points + 2 * (1 + count // points) + 64
    assert np.all(np.diff(seen_times) >= 0)
    np.testing.assert_array_equal(seen.max(axis=0), data.max(axis=0))
    np.testing.assert_array_equal(seen.min(axis=0), data.min(axis=0))


@pytest.mark.parametrize("seconds", [35, 300])
def test_thinning_out_does_not_flicker_while_the_time_goes_on(seconds):
    history = small(40)
    history.append(*wave(40_000))
    before = dict(zip(*(part.tolist() for part in history.between(400 - seconds, np.inf, 300)), strict=True))
    history.append(*wave(3, 40_000))
    after = dict(zip(*(part.tolist() for part in history.between(400.03 - seconds, np.inf, 300)), strict=True))
    assert len(after) > 300
    same = set(before) & set(after)
    assert len(same) > 0.95 * len(after)
    assert all(before[time] == after[time] for time in same if time < 398.0)


def test_what_comes_again_takes_the_place_of_what_came():
    history = small()
    times, data = wave(5000)
    history.append(times, data)
    history.cut(30.0)
    assert history.newest < 30.0
    history.append(times[3000:], 5 + data[3000:])
    seen_times, rows = history.between(25.0, np.inf, 10**6)
    np.testing.assert_array_equal(seen_times, times[2500:])
    np.testing.assert_array_equal(rows[500:], 5 + data[3000:])
    _, coarse = history.between(31.0, 49.0, 30)
    assert coarse.min() > 3.9


def test_a_clock_that_is_set_back_starts_the_memory_again():
    history = small()
    times, data = wave(100)
    history.append(times + 1000.0, data)
    history.append(times, data)
    assert everything(history)[0].tolist() == times.tolist()


def test_rows_without_a_finite_time_are_left_out_and_seen_as_a_gap():
    history = small()
    history.append(*wave(10))
    times, data = wave(10, 10)
    times[3] = np.nan
    history.append(times, data)
    seen, rows = everything(history)
    assert np.isfinite(seen).all()
    assert len(seen) == 20
    assert np.isnan(rows[10]).all()


def test_an_empty_memory_has_no_rows_and_no_newest():
    history = History(3, 10)
    times, data = everything(history)
    assert times.shape == (0,)
    assert data.shape == (0, 3)
    assert np.isnan(history.newest)
    assert np.isnan(history.oldest)
    history.cut(3.0)
    assert np.isnan(history.newest)


def test_moments_are_found_by_their_time_in_order_and_the_oldest_go():
    moments = Moments(100)
    for index in range(1000):
        moments.add(float(index ^ 1), str(index ^ 1))  # neighbours come in the wrong order
    moments.add(np.nan, "never")
    assert moments.between(990.5, 993.0) == [(991.0, "991"), (992.0, "992"), (993.0, "993")]
    assert 100 <= len(moments) <= 110
    assert moments.between(0.0, 800.0) == []


def test_stacked_channels_are_one_line_with_a_break_between_them():
    x, y = stacked(np.array([1.0, 2.0]), np.array([[1, 5], [2, 6]], np.float32), np.array([0.0, -1.0]))
    np.testing.assert_array_equal(y, [1, 2, np.nan, 4, 5, np.nan])
    assert x[[0, 1, 3, 4]] == pytest.approx([1, 2, 1, 2])
    assert np.isfinite(x).all()

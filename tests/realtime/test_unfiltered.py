"""What is measured of the raw signal, second by second, is what was put in, however it is cut."""

from __future__ import annotations

import tracemalloc
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.api import InputSpec
from realtime.filters import MISSING, design
from realtime.unfiltered import (
    CLIPPED,
    COLUMNS,
    FIFTY,
    HIGHER,
    LEVEL,
    PASSED,
    PASSED_FIFTY,
    REPEATED,
    SIXTY,
    SLOWER,
    TOTAL,
    Unfiltered,
)


def measurer(rate=250.0, width=1, notch=()):
    return Unfiltered(rate, width, design(InputSpec(kind="eeg", channels=("CZ",), notch=notch), rate))


def figures(samples, rate=250.0, notch=(), start=10.0):
    """Of the whole seconds of ``samples`` (n,)."""
    made = measurer(rate, notch=notch)
    times = start + np.arange(len(samples)) / rate
    made.take(times, np.asarray(samples, float)[:, None], np.zeros((len(samples), 1), np.uint8))
    return made.over(start, times[-1])[:, 0]


def wave(frequency, amplitude, seconds=5.0, rate=250.0):
    return amplitude * np.sin(2 * np.pi * frequency * np.arange(round(seconds * rate)) / rate)


@pytest.mark.parametrize("rate", [128.0, 250.0, 512.0, 1000.0])
def test_powers_are_those_of_the_waves_that_were_put_in(rate):
    found = figures(wave(10, 10, rate=rate) + wave(50, 20, rate=rate) + 4000, rate)
    assert found[:, TOTAL] == pytest.approx(50 + 200, rel=0.02)
    assert found[:, FIFTY] == pytest.approx(200, rel=0.02)
    assert found[:, SIXTY] == pytest.approx(0, abs=0.5)
    assert found[:, LEVEL] == pytest.approx(4000, abs=0.5)


def test_a_notch_takes_the_mains_out_of_what_passes_and_nothing_else():
    samples = wave(10, 10) + wave(50, 20)
    open_, notched = figures(samples), figures(samples, notch=(50.0,))
    assert open_[:, PASSED_FIFTY].min() > 40
    assert notched[:, PASSED_FIFTY].max() < 4
    assert notched[:, PASSED] == pytest.approx(50, rel=0.1)
    assert np.array_equal(open_[:, TOTAL], notched[:, TOTAL])


def test_white_noise_is_as_dense_above_as_below():
    found = figures(np.random.default_rng(0).normal(0, 10, 50 * 250))
    assert np.median(found[:, HIGHER] / found[:, SLOWER]) == pytest.approx(1, abs=0.1)
    assert np.median(found[:, HIGHER]) == pytest.approx(100 / 125, rel=0.1)


def test_repeats_and_limits_are_counted():
    noise = np.random.default_rng(0).normal(0, 10, 1250)
    assert figures(np.repeat(noise[:625], 2))[:, REPEATED] == pytest.approx(0.5, abs=0.01)
    assert figures(noise)[:, REPEATED].max() == 0
    assert figures(np.clip(noise, -10, 10))[:, CLIPPED] == pytest.approx(0.32, abs=0.1)
    assert figures(noise)[:, CLIPPED] == pytest.approx(2 / 250)


def test_a_second_with_a_hole_or_missing_values_has_no_spectrum_but_a_level():
    made = measurer()
    times = np.arange(1250) / 250
    keep = (times < 1.2) | (times > 1.9)
    flags = np.zeros((keep.sum(), 1), np.uint8)
    samples = (7 + wave(10, 10))[keep, None]
    flags[(times[keep] >= 3) & (times[keep] < 3.5)] = MISSING
    samples[flags != 0] = np.nan
    made.take(times[keep], samples, flags)
    found = made.over(0, 4)[:, 0]
    assert np.isnan(found[:, TOTAL]).tolist() == [False, True, False, True]
    assert np.isfinite(found[:, LEVEL]).all()


def test_only_seconds_wholly_inside_are_given_and_none_is_given_early():
    made = measurer()
    times = np.arange(875) / 250  # three and a half seconds
    made.take(times, np.random.default_rng(0).normal(size=(875, 1)), np.zeros((875, 1), np.uint8))
    assert len(made.over(0, 10)) == 3
    assert len(made.over(0.5, 2.9)) == 1
    assert made.over(20, 30).shape == (0, 1, COLUMNS)
    made.reset()
    assert len(made.over(0, 10)) == 0


@settings(deadline=None, max_examples=30)
@given(st.lists(st.integers(1, 1999), max_size=40))
def test_any_chunking_gives_the_same_bits(cuts):
    rng = np.random.default_rng(0)
    times = 3.7 + np.arange(2000) / 250
    times[900:] += 0.7
    samples = rng.normal(0, 10, (2000, 3)) + 4000
    flags = np.where(rng.random((2000, 3)) < 0.02, MISSING, 0).astype(np.uint8)
    samples[flags != 0] = np.nan
    whole, pieces = measurer(width=3), measurer(width=3)
    whole.take(times, samples, flags)
    edges = [0, *sorted(set(cuts)), 2000]
    for a, b in pairwise(edges):
        pieces.take(times[a:b], samples[a:b], flags[a:b])
    assert whole.over(0, 20).tobytes() == pieces.over(0, 20).tobytes()


def test_a_source_that_is_ten_times_too_fast_costs_no_memory_and_no_error():
    made = measurer()
    times = np.arange(10_000) / 2500
    made.take(times, np.zeros((10_000, 1)), np.zeros((10_000, 1), np.uint8))
    assert len(made.over(0, 3)) == 3


def test_hours_of_signal_leave_nothing_behind_once_they_were_asked_for():
    made = measurer(128.0, width=8)
    samples = np.random.default_rng(0).normal(size=(128, 8))

    def minutes(first, last):
        for second in range(60 * first, 60 * last):
            made.take(second + np.arange(128) / 128, samples, np.zeros((128, 8), np.uint8))
            assert len(made.over(max(0, second - 10), second)) == min(10, second)

    tracemalloc.start()
    minutes(0, 1)
    before = tracemalloc.get_traced_memory()[0]
    minutes(1, 20)
    grown = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    assert grown < 20_000

"""Thinning for the eye loses no peak and hides no gap."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from devices.api import Chunk, StreamInfo
from realtime.traces import Thinner


def info(rate: float) -> StreamInfo:
    return StreamInfo(key="eeg", kind="eeg", channels=("Fz", "Cz"), rate=rate, unit="uV")


def signal(n: int, rate: float):
    data = np.random.default_rng(n).standard_normal((n, 2)).astype(np.float32)
    return np.arange(n) / rate, data


@pytest.mark.parametrize("rate", [130.0, 250.0])
def test_a_slow_stream_passes_unthinned(rate):
    times, data = signal(500, rate)
    thinner = Thinner(info(rate))
    assert thinner.add(Chunk("eeg", times, data)) == []
    (traces,) = thinner.take()
    np.testing.assert_array_equal(traces.data, data)
    np.testing.assert_array_equal(traces.times, times)


@given(st.lists(st.integers(1, 70), min_size=1, max_size=12), st.sampled_from([500.0, 1000.0, 2048.0]))
def test_no_peak_is_lost_however_the_stream_is_cut(sizes, rate):
    times, data = signal(sum(sizes), rate)
    thinner, got, at = Thinner(info(rate)), [], 0
    for size in sizes:
        got += thinner.add(Chunk("eeg", times[at : at + size], data[at : at + size])) + thinner.take()
        at += size
    got += thinner.take(everything=True)
    np.testing.assert_array_equal(np.concatenate([t.data for t in got]).max(axis=0), data.max(axis=0))
    np.testing.assert_array_equal(np.concatenate([t.data for t in got]).min(axis=0), data.min(axis=0))
    moments = np.concatenate([t.times for t in got])
    assert (np.diff(moments) > 0).all()
    assert not any(t.gap for t in got)


def test_thousand_samples_a_second_become_two_hundred_and_fifty():
    times, data = signal(10_000, 1000.0)
    thinner = Thinner(info(1000.0))
    thinner.add(Chunk("eeg", times, data))
    (traces,) = thinner.take()
    assert len(traces.times) == 2500


def test_a_gap_is_said_with_the_first_samples_after_it():
    times, data = signal(1000, 1000.0)
    thinner = Thinner(info(1000.0))
    thinner.add(Chunk("eeg", times[:503], data[:503]))
    before = thinner.add(Chunk("eeg", times[:503] + 1.5, data[:503]))
    after = thinner.take()
    assert [t.gap for t in before + after] == [False, True]
    assert before[0].times[-1] == times[502]
    assert after[0].times[0] == 1.5

"""What is counted of a stream."""

from __future__ import annotations

import math

import numpy as np
import pytest

from devices.api import Chunk, Clock, Events, StreamInfo
from realtime.meters import Meter

EEG = StreamInfo(key="eeg", kind="eeg", channels=("Cz",), rate=250.0, unit="uV")
MARKS = StreamInfo(key="marks", kind="markers", channels=("marker",), rate=0.0, unit="")


def chunk(start, count, lost=0, rate=250.0):
    return Chunk("eeg", start + np.arange(count) / rate, np.zeros((count, 1), np.float32), lost)


@pytest.mark.parametrize("size", [1, 7, 25, 500])
def test_holes_losses_and_the_rate_do_not_depend_on_how_a_stream_is_cut(size):
    meter = Meter(EEG)
    for begin, lost in ((0.0, 0), (10.0, 0), (15.0, 40), (17.5, 0)):  # 6 s, 3 s and half a second are missing
        for at in range(0, 500, size):
            meter.take(chunk(begin + at / 250.0, min(size, 500 - at), 0 if at else lost))
    assert (meter.samples, meter.lost, meter.gaps) == (2000, 40, 3)
    assert meter.newest == pytest.approx(19.496)


def test_a_loss_that_leaves_no_hole_in_the_stamps_is_a_gap_too():
    meter = Meter(EEG)
    meter.take(chunk(0.0, 25))
    meter.take(chunk(0.1, 25, lost=3))
    assert (meter.lost, meter.gaps) == (3, 1)


def test_a_stamp_that_is_no_time_leaves_the_rate_known_and_its_samples_counted():
    meter = Meter(EEG)
    broken = chunk(0.0, 25)
    broken.times[-1] = math.nan
    meter.take(broken)
    assert math.isnan(meter.newest)
    for at in range(1, 100):
        meter.take(chunk(at * 0.1, 25))
    assert meter.samples == 2500
    assert meter.rate == pytest.approx(250.0)


def test_the_steps_of_a_slow_stream_are_no_gaps():
    meter = Meter(StreamInfo(key="eeg", kind="acc", channels=("x",), rate=10.0, unit=""))
    meter.take(chunk(0.0, 50, rate=10.0))
    assert meter.gaps == 0
    assert math.isnan(meter.rate)
    meter.take(chunk(5.0, 50, rate=10.0))
    assert meter.rate == pytest.approx(10.0)


def test_events_are_counted_and_a_measured_clock_is_kept_when_a_replay_starts_over():
    meter = Meter(MARKS)
    meter.take(Events("marks", np.array([1.0, 2.0]), ("a", "b")))
    meter.take(Clock("marks", 3.0, 0.012, 0.0003))
    assert (meter.samples, meter.newest) == (2, 2.0)
    meter.rewind()
    assert meter.samples == 0
    assert (meter.offset, meter.offset_sd) == (0.012, 0.0003)

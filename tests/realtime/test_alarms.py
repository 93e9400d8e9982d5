"""Alarms in virtual time: who is silent, and when something began and was over."""

from __future__ import annotations

import math

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from realtime.alarms import FIRST, Alarmed, AlarmLog, kind, silences

LOOKS = 0.05


def looked_at(arrivals, until):
    """The first moment at which somebody who looks every 50 ms finds the stream silent; None when never."""
    for k in range(round(until / LOOKS)):
        now = k * LOOKS
        before = [at for at in arrivals if at <= now]
        if silences(now, 0.0, {"strap": before[-1] if before else math.nan}):
            return now
    return None


@given(st.lists(st.floats(0.50, 0.75), min_size=5, max_size=40))
def test_a_strap_that_sends_every_561_ms_give_or_take_is_never_called_silent(pauses):
    arrivals = np.cumsum(pauses).tolist()
    assert looked_at(arrivals, arrivals[-1]) is None


@given(st.floats(0.3, 1.9))
def test_a_stream_that_stops_is_silent_within_a_second_of_its_last_sample(last):
    found = looked_at([*np.arange(0.0, last, 0.1).tolist(), last], 5.0)
    assert found is not None
    assert 0.75 < found - last < 1.0


def test_a_source_that_has_not_begun_has_a_moment_before_that_is_an_alarm():
    assert silences(FIRST - 0.1, 0.0, {"eeg": math.nan}) == {}
    assert silences(FIRST + 0.1, 0.0, {"eeg": math.nan}) == {"eeg": "eeg: no sample yet"}


def test_an_alarm_begins_once_and_is_over_once_whatever_figures_it_reaches():
    log = AlarmLog()
    said = []
    for k, text in enumerate(["", "eeg: silent for 0.9 s", "eeg: silent for 1.0 s", "eeg: silent for 12 s", ""]):
        said += log.update(float(k), {"eeg": text} if text else {})
    assert said == [Alarmed(1.0, "eeg: silent for 0.9 s"), Alarmed(4.0, "eeg: silent for 12 s", over=True)]


def test_streams_whose_names_differ_only_in_a_number_have_alarms_of_their_own():
    log = AlarmLog()
    texts = {key: f"{key}: silent for 1.2 s" for key in ("eeg", "eeg-2", "eeg-3", "h10/ecg")}
    assert len(log.update(0.0, texts)) == 4
    assert len({kind(text) for text in texts.values()}) == 4
    assert [one.text[:5] for one in log.update(1.0, {k: v for k, v in texts.items() if k != "eeg-2"})] == ["eeg-2"]


def test_another_trouble_of_the_same_source_is_another_alarm():
    log = AlarmLog()
    log.update(0.0, {"device": "the strap is out of reach"})
    assert log.update(1.0, {"device": "the battery is at 3 %"}) == [
        Alarmed(1.0, "the strap is out of reach", over=True),
        Alarmed(1.0, "the battery is at 3 %"),
    ]

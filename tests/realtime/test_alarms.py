"""Alarms in virtual time: who is silent, and when something began and was over."""

from __future__ import annotations

import importlib.util
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from devices.api import Chunk
from devices.polar_frames import Frames
from realtime.alarms import FIRST, Alarmed, AlarmLog, Pace, kind, silences

_spec = importlib.util.spec_from_file_location("strap", Path(__file__).resolve().parents[1] / "peers" / "strap.py")
peer = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(peer)

LOOKS = 0.05
Y2026 = 835 * 10**15  # ns since 2000-01-01


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


def strap_heard(seed, minutes=30, loss=0.02):
    """When a session hears a strap, packet by packet through the device's own part: 20 ms exponential jitter."""
    random = np.random.default_rng(seed)
    frames, heard = Frames("strap"), []
    count = round(minutes * 60 / 0.5615)
    lost = random.random(count) < loss
    lost[1:] &= ~lost[:-1]  # a single packet at a time
    for number in np.flatnonzero(~lost):
        now = (number + 1) * 73 / 130.045 + random.exponential(0.02)
        frame = peer.frame(Y2026 + number * 73 * 10**9 // 130, np.zeros(73, int))
        if any(isinstance(item, Chunk) for item in frames.take(frame, now)):
            heard.append(now)
    return heard, int(lost.sum())


def silent_spells(heard, until):
    """Beginnings of the times at which somebody who looks every 50 ms finds the stream silent."""
    pace, arrivals, found, last, was = Pace(), iter([*heard, math.inf]), [], math.nan, False
    coming = next(arrivals)
    for k in range(round(until / LOOKS)):
        while coming <= k * LOOKS:
            pace.arrive(last := coming)
            coming = next(arrivals)
        silent = bool(silences(k * LOOKS, 0.0, {"strap": last}, {"strap": pace.pause}))
        if silent and not was:
            found.append(k * LOOKS)
        was = silent
    return found


@pytest.mark.parametrize("seed", [1, 2])
def test_half_an_hour_of_a_strap_has_an_alarm_where_a_packet_is_lost_and_nowhere_else(seed):
    heard, lost = strap_heard(seed)
    assert lost > 40
    *spells, end = silent_spells(heard, heard[-1] + 10.0)
    assert len(spells) == np.count_nonzero(np.diff(heard) > 1.0)
    for found in [*spells, end]:
        last = max(at for at in heard if at <= found)
        assert 0.9 < found - last < 1.05


@pytest.mark.parametrize("seed", [1, 2])
def test_half_an_hour_of_a_strap_that_loses_nothing_has_no_alarm(seed):
    heard, lost = strap_heard(seed, loss=0.0)
    assert lost == 0
    (end,) = silent_spells(heard, heard[-1] + 10.0)
    assert end > heard[-1]


def test_of_what_sends_once_a_second_one_lost_packet_is_no_silence_and_two_in_a_row_are():
    heard = [float(k) for k in range(1, 60) if k not in (20, 40, 41)]
    first, found = silent_spells(heard, heard[-1] + 0.5)
    assert first < 2.0, "before the pause between two is known"
    assert 39 + 2.4 < found < 42


@given(st.floats(0.001, 0.38), st.floats(0.0, 1.0))
def test_whatever_sends_three_times_a_second_is_silent_within_a_second_of_its_last_sample(pause, outage):
    heard = [k * pause for k in range(1, 40)]
    heard += [heard[-1] + outage + k * pause for k in range(1, 40)]
    found = silent_spells(heard, heard[-1] + 3.0)[-1]
    assert 0.75 < found - heard[-1] <= 1.0


def test_an_outage_does_not_make_a_stream_slow():
    pace = Pace()
    for now in (1.0, 1.1, 1.2, 61.2, 61.3, 200.0, 200.1, 200.2):
        pace.arrive(now)
    assert pace.pause == pytest.approx(0.1)


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


@pytest.mark.parametrize(
    "grows",
    [
        ["lsl:name=ME: 1 sample refused for stamps", "lsl:name=ME: 2 samples refused for stamps"],
        ["markers: 1 request refused; 1 too long", "markers: 3 requests refused; 1 too long, 2 broken off"],
        ["lsl:name=A: the source has gone; waiting for it", "lsl:name=A: the source has gone; not taken for it: B"],
    ],
)
def test_an_alarm_that_grows_is_never_said_to_be_over_while_it_stands(grows):
    log, said = AlarmLog(), []
    for k, text in enumerate(grows):
        said += log.update(float(k), {"device": text})
    assert [one.text for one in said if one.over] == []
    assert (said[0].text, log.begun) == (grows[0], 1)
    assert log.update(9.0, {}) == [Alarmed(9.0, grows[-1], over=True)]


def test_new_details_of_an_alarm_that_stands_are_said_once():
    log = AlarmLog()
    log.update(0.0, {"device": "markers: 1 request refused; 1 too long"})
    grown = "markers: 2 requests refused; 1 broken off, 1 too long"
    assert log.update(1.0, {"device": grown}) == [Alarmed(1.0, grown)]
    assert log.update(2.0, {"device": grown.replace("1 too", "3 too").replace("2 req", "4 req")}) == []


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

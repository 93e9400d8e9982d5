"""The whole of the heart on one lead: beats, figures, breathing and waves as they come, however they are cut."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from realtime.filters import RESTART
from realtime.heart import Heart, breathing
from realtime.hrv import KINDS

RATE = 250.0


def lead(seconds, rate=RATE, breaths=0.25, start=1000.0):
    """Times and samples (n,) of a breathing person: P, QRS and T of known place, R moving with breath."""
    times = start + np.arange(round(seconds * rate)) / rate
    samples = np.zeros(len(times))
    beats = [start + 0.5]
    while beats[-1] < start + seconds - 1:
        beats.append(beats[-1] + 0.9 + 0.05 * math.sin(2 * math.pi * breaths * beats[-1]))
    for beat in beats:
        t = times - beat
        height = 1000 * (1 + 0.1 * math.sin(2 * math.pi * breaths * beat))
        samples += height * np.exp(-0.5 * (t / 0.011) ** 2) - 200 * np.exp(-0.5 * ((t - 0.03) / 0.01) ** 2)
        samples += 120 * np.exp(-0.5 * ((t + 0.16) / 0.02) ** 2) + 300 * np.exp(-0.5 * ((t - 0.28) / 0.04) ** 2)
    return times, samples + 3 * np.random.default_rng(0).standard_normal(len(times)), np.array(beats)


_TIMES, _SAMPLES, _ = lead(20.0)
_MARKS = np.zeros(len(_TIMES), np.uint8)
_MARKS[[0, 3000]] = RESTART
_WHOLE = Heart(RATE).push(_TIMES, _SAMPLES, _MARKS)


@settings(deadline=None, max_examples=30)
@given(cuts=st.lists(st.integers(1, len(_TIMES) - 1), max_size=40))
def test_any_chunking_gives_the_same_beats_and_waves(cuts):
    heart = Heart(RATE)
    beats, waves = [], []
    for a, b in pairwise([0, *sorted(set(cuts)), len(_TIMES)]):
        more, those = heart.push(_TIMES[a:b], _SAMPLES[a:b], _MARKS[a:b])
        beats += more
        waves += those
    assert len(waves) > 15
    assert repr((beats, waves)) == repr(_WHOLE)


def test_a_resting_person_has_every_figure_and_the_breathing_that_is_there():
    times, samples, _ = lead(200.0, breaths=0.25)
    heart = Heart(RATE)
    heart.push(times, samples)
    measures = heart.measures(float(times[-1]) - 1)
    assert set(measures) == {*KINDS, "breathing"}
    assert not [measure.reason for measure in measures.values() if measure.reason]
    assert measures["HR"].value == pytest.approx(60 / 0.9, rel=0.03)
    assert measures["breathing"].value == pytest.approx(15, abs=0.5)


def test_breathing_that_heights_and_intervals_disagree_on_is_not_given():
    times, samples, beats = lead(80.0, breaths=0.25)
    for beat in beats:
        samples += 400 * math.sin(2 * math.pi * 0.4 * beat) * np.exp(-0.5 * ((times - beat) / 0.011) ** 2)
    heart = Heart(RATE)
    heart.push(times, samples)
    measure = breathing(heart.variability.beats, float(times[-1]) - 1)
    assert math.isnan(measure.value)
    assert measure.reason == "R waves say 24 and RR intervals 15 breaths a minute"


def test_breathing_needs_a_minute_without_gaps():
    heart = Heart(RATE)
    heart.push(*lead(30.0)[:2])
    assert heart.measures(1029.0)["breathing"].reason == "breathing needs 60 s of beats"
    times, samples, _ = lead(100.0)
    marks = np.zeros(len(times), np.uint8)
    marks[round(60 * RATE)] = RESTART
    heart = Heart(RATE)
    heart.push(times, samples, marks)
    assert heart.measures(1099.0)["breathing"].reason == "there is a gap in the last 60 s"


@pytest.mark.parametrize("rate", [128.0, 250.0, 500.0])
@pytest.mark.parametrize("sign", [1, -1])
def test_waves_lie_where_they_were_put(rate, sign):
    times, samples, beats = lead(30.0, rate)
    _, waves = Heart(rate).push(times, sign * samples)
    assert len(waves) >= len(beats) - 2
    for beat, wave in waves[1:]:
        truth = beats[np.abs(beats - beat.time).argmin()]
        assert wave.r_peak == beat.time
        assert wave.p_peak - truth == pytest.approx(-0.16, abs=0.015)
        assert wave.t_peak - truth == pytest.approx(0.28, abs=0.015)
        assert -0.06 < wave.qrs_onset - truth < -0.015
        assert 0.03 < wave.qrs_offset - truth < 0.09
        assert wave.p_onset < wave.p_peak < wave.p_offset <= wave.qrs_onset
        assert 0.34 < wave.t_offset - truth < 0.42
        assert wave.qt == pytest.approx(wave.t_offset - wave.qrs_onset)


def test_a_lead_without_p_waves_has_no_pr_interval():
    times, samples, beats = lead(20.0)
    for beat in beats:
        samples -= 120 * np.exp(-0.5 * ((times - beat + 0.16) / 0.02) ** 2)
    _, waves = Heart(RATE).push(times, samples)
    assert np.mean([math.isnan(wave.pr) for _, wave in waves]) > 0.9
    assert not any(math.isnan(wave.qrs) for _, wave in waves[1:])


def test_after_reset_nothing_is_left():
    heart = Heart(RATE)
    heart.push(_TIMES, _SAMPLES, _MARKS)
    heart.reset()
    assert repr(heart.push(_TIMES, _SAMPLES, _MARKS)) == repr(_WHOLE)


def test_a_clock_that_goes_back_leaves_no_waves_of_two_times():
    heart = Heart(RATE)
    heart.push(_TIMES, _SAMPLES, _MARKS)
    beats, waves = heart.push(_TIMES - 500, _SAMPLES, _MARKS)
    assert beats
    assert all(wave.qrs < 0.2 for _, wave in waves if not math.isnan(wave.qrs))

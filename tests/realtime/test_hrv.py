"""Heart rate and its variability: by the definitions, of what is normal, and silent when it cannot be known."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import signal

from realtime import hrv
from realtime.beats import Beat
from realtime.hrv import (
    ECTOPIC,
    EXTRA,
    HF,
    KINDS,
    LF,
    MISSED,
    NORMAL,
    UNCLEAR,
    Variability,
    classify,
    lomb,
    without_line,
)


def beats_at(times, agreement=None, firsts=(0,)):
    agreement = np.ones(len(times)) if agreement is None else agreement
    return [Beat(float(time), 800.0, 0.9, float(agreement[i]), 0.2, i in firsts, False) for i, time in enumerate(times)]


def resting(seconds=320.0, seed=0, mean=0.9):
    """Beat times of a resting heart: breathing at 0.25 Hz, a slower wave at 0.1 Hz, and chance."""
    random = np.random.default_rng(seed)
    times = [0.0]
    while times[-1] < seconds:
        t = times[-1]
        times.append(
            t
            + mean
            + 0.03 * math.sin(2 * math.pi * 0.25 * t)
            + 0.02 * math.sin(2 * math.pi * 0.1 * t)
            + 0.01 * random.standard_normal()
        )
    return np.array(times)


def variability(times, **keywords):
    keeper = Variability()
    keeper.push(beats_at(times, **keywords))
    return keeper


def test_every_figure_is_what_its_definition_says():
    times = resting()
    keeper = variability(times)
    now = float(times[-1])
    for name in KINDS:
        measure = keeper.measure(name, now)
        assert measure.reason == ""
        rr = np.diff(times)[times[1:] - np.diff(times) >= now - measure.seconds - 1e-9]
        changes = 1000 * np.diff(rr)
        x1, x2 = 1000 * np.diff(rr) / np.sqrt(2), 1000 * (rr[1:] + rr[:-1]) / np.sqrt(2)
        expected = {
            "RMSSD": np.sqrt(np.mean(changes**2)),
            "pNN50": 100 * np.mean(np.append(np.abs(changes) > 50, False)),
            "SDNN": 1000 * rr.std(ddof=1),
            "SD1": x1.std(ddof=1),
            "SD2": x2.std(ddof=1),
        }
        if name in expected:
            assert measure.value == pytest.approx(expected[name], rel=1e-9), name
        assert measure.corrected == 0


def test_the_heart_rate_is_beats_over_time_and_does_not_jump_when_a_long_interval_leaves():
    times = np.cumsum([0.0] + [0.5] * 10 + [2.0] + [0.5] * 40)
    keeper = variability(times)
    assert keeper.measure("HR", 5.0, 5.0).value == pytest.approx(120)
    rates = [keeper.measure("HR", now, 10.0).value for now in np.arange(12.0, 26.0, 0.5)]
    assert rates[-1] == pytest.approx(120)
    assert np.abs(np.diff(rates)).max() < 7


def test_figures_are_those_of_neurokit():
    nk = pytest.importorskip("neurokit2")
    times = resting()
    keeper = variability(times)
    now = float(times[-1])
    rr = np.diff(times)
    rr = rr[times[1:] - rr >= now - 300 - 1e-9]
    theirs = nk.hrv_time({"RRI": 1000 * rr, "RRI_Time": np.cumsum(rr)}, sampling_rate=1000).iloc[0]
    for name in ("RMSSD", "SDNN", "pNN50"):
        assert keeper.measure(name, now, 300.0).value == pytest.approx(theirs[f"HRV_{name}"], rel=0.01)
    theirs = nk.hrv_nonlinear({"RRI": 1000 * rr, "RRI_Time": np.cumsum(rr)}, sampling_rate=1000).iloc[0]
    for name in ("SD1", "SD2"):
        assert keeper.measure(name, now, 300.0).value == pytest.approx(theirs[f"HRV_{name}"], rel=0.01)


def test_the_spectrum_has_the_power_of_the_waves_in_it():
    times = np.cumsum(np.full(330, 0.9))
    rr = 900 + 30 * np.sqrt(2) * np.sin(2 * np.pi * 0.25 * times) + 20 * np.sqrt(2) * np.sin(2 * np.pi * 0.1 * times)
    assert lomb(times, rr, (0.15, 0.4)) == pytest.approx(900, rel=0.03)
    assert lomb(times, rr, (0.04, 0.15)) == pytest.approx(400, rel=0.03)
    keep = np.random.default_rng(0).random(330) > 0.1
    assert lomb(times[keep], rr[keep], (0.15, 0.4)) == pytest.approx(900, rel=0.1)


def test_slow_waves_are_lf_fast_ones_hf_and_their_ratio_is_lf_over_hf():
    ends = np.cumsum(np.full(400, 0.8))
    rr = 0.8 + 0.01 * np.sqrt(2) * (3 * np.sin(2 * np.pi * 0.1 * ends) + 2 * np.sin(2 * np.pi * 0.25 * ends))
    times = np.cumsum(rr)
    measures = variability(times).measures(float(times[-1]))
    assert measures["LF"].value == pytest.approx(900, rel=0.05)
    assert measures["HF"].value == pytest.approx(400, rel=0.05)
    assert measures["LF/HF"].value == pytest.approx(9 / 4, rel=0.08)


@pytest.mark.parametrize("band", [LF, HF])
@pytest.mark.parametrize("start", [0.0, 2e5])
def test_the_spectrum_is_that_of_scipys_lomb_periodogram(band, start):
    for seed, seconds in enumerate((125.0, 300.0, 320.0)):
        times = resting(seconds, seed)
        ends, rr = start + times[1:], 1000 * np.diff(times)
        keep = np.random.default_rng(seed).random(len(rr)) > 0.05
        ends, rr = ends[keep], rr[keep]
        since = ends - ends[0]
        rest = rr - np.polyval(np.polyfit(since, rr, 1), since)
        step = 1 / (4 * since[-1])
        frequencies = np.arange(math.ceil(band[0] / step), math.ceil(band[1] / step)) * step
        power = signal.lombscargle(since, rest, 2 * np.pi * frequencies)
        assert lomb(ends, rr, band) == pytest.approx(power.sum() * step * 2 * since[-1] / len(rr), rel=1e-9)
    np.testing.assert_allclose(without_line(rr), signal.detrend(rr), rtol=1e-9, atol=1e-9)


@settings(deadline=None, max_examples=50)
@given(st.lists(st.integers(250, 1500), max_size=250), st.integers(0, 3))
def test_thresholds_and_usual_intervals_are_quantiles_of_the_beats_around(milliseconds, ties):
    rr = np.array([value // 10**ties * 10**ties for value in milliseconds]) / 1000 + 0.25
    changes, limits, usual = np.diff(rr, prepend=rr[:1]), np.zeros(len(rr)), np.zeros(len(rr))
    hrv._threshold(changes, limits)
    hrv._running(rr, 0.5, usual)
    for i in range(len(rr)):
        near = np.abs(changes[max(0, i - 45) : i + 46])
        low, high = np.percentile(near, [25, 75])
        assert limits[i] == pytest.approx(max(0.02, 5.2 * (high - low) / 2), rel=1e-9)
        assert usual[i] == pytest.approx(np.median(rr[max(0, i - 5) : i + 6]), rel=1e-9)


def test_beats_of_rest_are_all_normal():
    assert not classify(np.diff(resting())).any()
    assert not classify(np.full(100, 0.8)).any()
    assert classify(np.zeros(0)).shape == (0,)


def test_a_missed_an_extra_and_a_premature_beat_are_told_apart():
    times = resting(120)
    missed = classify(np.diff(np.delete(times, 50)))
    assert missed[49] == MISSED
    assert np.count_nonzero(missed) == 1
    extra = classify(np.diff(np.sort(np.append(times, times[50] + 0.35))))
    assert set(np.flatnonzero(extra)) == {50, 51}
    assert set(extra[[50, 51]]) == {EXTRA}
    premature = times.copy()
    premature[50] -= 0.3
    kinds = classify(np.diff(premature))
    assert set(np.flatnonzero(kinds)) == {49, 50}
    assert set(kinds[[49, 50]]) == {ECTOPIC}


def test_missed_beats_do_not_change_the_heart_rate():
    times = resting(120)
    truth = variability(times).measure("HR", 100.0, 60.0).value
    assert variability(np.delete(times, [55, 70])).measure("HR", 100.0, 60.0).value == pytest.approx(truth, abs=0.3)


@pytest.mark.parametrize("every", [4, 10, 40])
@pytest.mark.parametrize("shaped", [True, False])
def test_extrasystoles_however_frequent_do_not_wreck_rmssd(every, shaped):
    times = resting()
    truth = variability(times).measure("RMSSD", 310.0).value
    early = np.arange(5, len(times) - 1, every)
    disturbed = times.copy()
    disturbed[early] -= 0.35
    agreement = np.ones(len(times))
    if shaped:
        agreement[early] = 0.3
    measure = variability(disturbed, agreement=agreement).measure("RMSSD", 310.0)
    assert np.std(np.diff(np.diff(disturbed))) > 3 * truth / 1000
    assert measure.value == pytest.approx(truth, rel=0.3)
    assert measure.corrected == pytest.approx(1 / every, abs=0.05)


def test_too_many_odd_beats_are_said_in_words_and_the_heart_rate_stays():
    times = np.cumsum(np.random.default_rng(0).choice([0.45, 0.6, 0.8, 1.1, 1.5], 300))
    keeper = variability(times, agreement=np.where(np.arange(300) % 5 < 2, 0.2, 1.0))
    measure = keeper.measure("RMSSD", float(times[-1]))
    assert math.isnan(measure.value)
    assert "% of the beats of 60 s are unclear or not normal" in measure.reason
    assert keeper.measure("HR", float(times[-1]), 60.0).value > 50


def test_too_little_is_said_in_words():
    keeper = Variability()
    assert keeper.measure("HR", 10.0).reason == "0 s of beats so far, HR needs 5 s"
    keeper.push(beats_at(resting(100)))
    measures = keeper.measures(100.0)
    assert measures["LF/HF"].reason == "100 s of beats so far, LF/HF needs 120 s"
    assert math.isnan(measures["LF/HF"].value)
    assert measures["SDNN"].seconds == pytest.approx(100, abs=1)
    assert not measures["RMSSD"].reason
    later = keeper.measure("HR", 200.0)
    assert math.isnan(later.value)
    assert later.reason == "beats were found in 0 s of the last 10 s only"


def test_no_interval_is_counted_across_a_gap():
    times = resting(200)
    gap = (times > 100) & (times < 120)
    first = int(np.flatnonzero(times >= 120)[0]) - np.count_nonzero(gap)
    keeper = variability(times[~gap], firsts=(0, first))
    ends, lengths, kinds = keeper.intervals()
    assert lengths.max() < 1.2
    assert not kinds.any()
    assert len(ends) == np.count_nonzero(~gap) - 2


def test_no_change_of_the_interval_is_counted_across_a_gap():
    before = np.cumsum(np.full(40, 0.8))
    after = before[-1] + 2 + np.cumsum(np.full(40, 0.815))
    measures = variability(np.concatenate([before, after]), firsts=(0, 40)).measures(float(after[-1]), {"SD2": 60.0})
    assert measures["RMSSD"].value == pytest.approx(0, abs=1e-6)
    assert measures["SD1"].value == pytest.approx(0, abs=1e-6)
    assert measures["SD2"].value > 5


def told(keeper, now):
    """Everything that is said of a moment, to the last bit."""
    return [(name, repr(one.value), one.reason, one.corrected) for name, one in keeper.measures(now).items()]


@pytest.mark.parametrize("alike", [0.9, 0.5])
@pytest.mark.parametrize("grouped", [1.0, 10.0])
def test_what_is_said_does_not_depend_on_how_many_beats_come_at_once_however_long_it_lasts(alike, grouped):
    random = np.random.default_rng(0)
    times = np.cumsum(np.clip(0.45 + 0.05 * random.standard_normal(3600), 0.3, 2.0))
    beats = beats_at(times, agreement=np.where(np.arange(len(times)) % 2, 0.95, alike))
    single, several = Variability(), Variability()
    begin = 0
    for now in np.arange(grouped, times[-1], grouped):
        stop = int(times.searchsorted(now))
        for beat in beats[begin:stop]:
            single.push([beat])
        several.push(beats[begin:stop])
        begin = stop
        if now > 580 and now % 20 == 0:
            assert told(single, float(now)) == told(several, float(now))
    assert now > 1500
    assert single.beats == several.beats
    assert len(single.beats) < 1500


def test_what_is_said_of_a_moment_does_not_change_with_what_was_forgotten():
    times = resting(2000)
    whole, piecewise = Variability(), Variability()
    for beat in beats_at(times):
        piecewise.push([beat])
    whole.push(piecewise.beats)
    now = float(times[-1])
    assert told(piecewise, now) == told(whole, now)
    assert len(piecewise.beats) < 800
    whole.push([])
    fewer = Variability()
    fewer.push(beats_at(times)[-500:])
    for name in KINDS:
        assert fewer.measure(name, now).value == pytest.approx(whole.measure(name, now).value, rel=1e-9)


def test_beats_that_are_not_alike_are_noise_and_nothing_is_said_of_them():
    times = resting(320.0)
    agreement = np.random.default_rng(0).normal(0.47, 0.15, len(times))
    keeper = variability(times, agreement=agreement)
    for name, measure in keeper.measures(310.0).items():
        assert math.isnan(measure.value), name
        assert measure.reason.startswith("beats agree by 0.4")
        assert measure.reason.endswith("only: noise, or no heart")
    assert set(keeper.intervals()[2]) == {UNCLEAR}


def test_every_second_beat_an_extrasystole_of_another_shape_is_no_noise():
    times = resting(320.0)
    keeper = variability(times, agreement=np.where(np.arange(len(times)) % 2, 0.2, 0.95))
    assert UNCLEAR not in keeper.intervals()[2]
    assert keeper.measure("HR", 310.0).value == pytest.approx(60 / 0.9, rel=0.05)
    assert "are unclear or not normal" in keeper.measure("RMSSD", 310.0).reason


def test_a_stretch_of_noise_does_not_enter_what_is_said_of_the_beats_around_it():
    times = resting(320.0)
    truth = variability(times).measure("RMSSD", 315.0, 300.0).value
    noise = (times > 150) & (times < 180)
    disturbed = times + noise * np.random.default_rng(1).uniform(-0.3, 0.3, len(times))
    keeper = variability(np.sort(disturbed), agreement=np.where(noise, 0.45, 0.96))
    found = keeper.measure("RMSSD", 315.0, 300.0)
    assert found.value == pytest.approx(truth, rel=0.1)
    assert 0.08 < found.corrected < 0.15
    assert "beats agree by 0.45 only" in keeper.measure("HR", 170.0).reason
    assert not keeper.measure("HR", 200.0).reason
    assert "beats agree by 0.45 only" in keeper.doubt(175.0, 20.0)
    assert keeper.doubt(200.0, 60.0) == ""
    assert "of the beats of the last 60 s are not clear" in keeper.doubt(200.0, 60.0, 0.1)


def test_odd_beats_are_left_out_whatever_the_minutes_before_were_like():
    times = resting(320.0)
    agreement = np.where(times < 240, np.where(np.arange(len(times)) % 5 < 4, 0.3, 0.95), 0.95)
    odd = np.flatnonzero(times > 250)[5:65:10]
    agreement[odd] = 0.3
    ends, _, kinds = variability(times, agreement=agreement).intervals()
    beside = np.isin(ends, times[[*odd, *(odd + 1)]])
    assert set(kinds[beside]) == {ECTOPIC}
    assert np.mean(kinds[(ends > 250) & ~beside] == NORMAL) > 0.8


def test_the_spectrum_needs_more_normal_beats_than_rmssd():
    times = resting(320.0)
    keeper = variability(times, agreement=np.where(np.arange(len(times)) % 5, 0.95, 0.2))
    assert not keeper.measure("RMSSD", 310.0).reason
    for name in ("LF", "HF", "LF/HF"):
        assert keeper.measure(name, 310.0).reason.endswith("of the beats of 300 s are unclear or not normal")


@pytest.mark.parametrize(("interval", "kind"), [(0.2, ECTOPIC), (4.0, MISSED)])
def test_intervals_that_no_heart_has_are_not_normal_however_regular(interval, kind):
    kinds = variability(np.arange(0.0, 80 * interval, interval)).intervals()[2]
    assert set(kinds) == {kind}


def test_beats_at_times_that_are_wrong_do_not_count_and_the_reason_is_told():
    times = resting(320.0)
    keeper = variability(times)
    truth = keeper.measure("RMSSD", 310.0).value
    for second in range(100, 140):
        keeper.distrust(second - 4.0, float(second), "ECG: not the 500 Hz it says")
    assert keeper.measure("HR", 135.0).reason == "ECG: not the 500 Hz it says"
    assert keeper.measure("RMSSD", 140.0).reason == "ECG: not the 500 Hz it says"
    ends, lengths, kinds = keeper.intervals()
    wrong = (ends >= 96) & (ends - lengths <= 139)
    assert set(kinds[wrong]) == {UNCLEAR}
    assert np.count_nonzero(kinds[~wrong]) <= 1
    assert keeper.measure("RMSSD", 310.0).value == truth
    keeper.reset()
    keeper.push(beats_at(times))
    assert not keeper.intervals()[2].any()


def test_an_r_peak_and_its_t_wave_taken_for_two_beats_are_said_to_be_doubtful():
    times = resting(320.0)
    doubled = np.sort(np.concatenate([times, times + 0.28]))
    keeper = variability(doubled)
    for name in KINDS:
        assert keeper.measure(name, 310.0).reason == "doubtful: every second beat may be a T wave"
    bigeminy = np.sort(np.concatenate([times[::2], times[::2] + 0.5]))
    assert not variability(bigeminy).measure("HR", 310.0).reason
    fast = np.cumsum(np.full(1000, 0.32))
    assert variability(fast).measure("HR", 310.0).value == pytest.approx(60 / 0.32)


def test_after_reset_nothing_is_known():
    keeper = variability(resting())
    keeper.reset()
    assert math.isnan(keeper.measure("HR", 310.0).value)
    assert NORMAL == 0

"""The whole of the heart on one lead: beats, figures, breathing and waves as they come, however they are cut."""

from __future__ import annotations

import gzip
import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import interpolate, signal

from realtime.beats import Beat
from realtime.delineation import Waves
from realtime.filters import RESTART
from realtime.heart import INTERVALS, Heart, _rhythm, breathing, intervals
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
    assert set(measures) == {*KINDS, "breathing", *INTERVALS}
    assert not [measure.reason for measure in measures.values() if measure.reason]
    assert measures["HR"].value == pytest.approx(60 / 0.9, rel=0.03)
    assert measures["breathing"].value == pytest.approx(15, abs=0.5)


def beats_of(intervals, heights):
    """Beats at these RR intervals, seconds, of these heights, uV."""
    moments = np.cumsum(intervals)
    pairs = zip(moments.tolist(), heights, strict=True)
    return [Beat(time, float(height), 1.0, 1.0, 0.1, i == 0, False) for i, (time, height) in enumerate(pairs)]


def breathing_person(pulse, breaths, seconds=80.0):
    """Beats of a heart of ``pulse`` a minute whose RR intervals and heights move ``breaths`` times a minute."""
    moments = [0.0]
    while moments[-1] < seconds:
        wave = math.sin(2 * math.pi * breaths / 60 * moments[-1])
        moments.append(moments[-1] + 60 / pulse * (1 + 0.03 * wave))
    return beats_of(np.diff(moments), 1000 + 120 * np.sin(2 * np.pi * breaths / 60 * np.array(moments[1:])))


def test_chance_is_not_taken_for_breathing():
    random, given = np.random.default_rng(0), 0
    for _ in range(150):
        beats = beats_of(0.85 + 0.03 * random.standard_normal(90), 1000 + 30 * random.standard_normal(90))
        given += not breathing(beats, 66.0).reason
    assert given <= 2


@pytest.mark.parametrize("breaths", [4, 5])
def test_breathing_slower_than_can_be_told_is_not_taken_for_the_slowest_that_can(breaths):
    found = breathing(breathing_person(65, breaths), 70.0)
    assert math.isnan(found.value)
    assert found.reason == "no rhythm of 6 to 30 breaths a minute, which is what these beats can show"


@pytest.mark.parametrize("breaths", [7, 15, 25])
def test_breathing_that_heights_and_intervals_show_is_given(breaths):
    assert breathing(breathing_person(65, breaths), 70.0).value == pytest.approx(breaths, abs=0.5)


def test_nothing_is_said_of_breathing_at_the_edge_of_what_a_slow_heart_can_show():
    found = breathing(breathing_person(45, 22.4), 70.0)
    assert math.isnan(found.value)


def test_breathing_that_heights_and_intervals_disagree_on_is_not_given():
    times, samples, beats = lead(80.0, breaths=0.25)
    for beat in beats:
        samples += 400 * math.sin(2 * math.pi * 0.4 * beat) * np.exp(-0.5 * ((times - beat) / 0.011) ** 2)
    heart = Heart(RATE)
    heart.push(times, samples)
    measure = breathing(heart.variability.beats, float(times[-1]) - 1)
    assert math.isnan(measure.value)
    assert measure.reason == "R waves say 24 and RR intervals 15 breaths a minute"


def test_the_rhythm_of_breathing_is_that_of_scipys_periodogram():
    moments = np.cumsum(np.random.default_rng(0).normal(0.9, 0.03, 66))
    values = 1000 + 80 * np.sin(2 * np.pi * 0.25 * moments) + 3 * moments
    frequencies, power = _rhythm(moments, values, 0.0, 60.0)
    low, high = np.percentile(values, [5, 95])
    curve = interpolate.CubicSpline(moments, np.clip(values, low, high))(
        np.clip(np.arange(240) / 4, moments[0], moments[-1])
    )
    curve = signal.detrend(curve)
    theirs = signal.periodogram(curve * np.hanning(240) / curve.std(), 4.0, nfft=2048)
    inside = (theirs[0] >= 0.08) & (theirs[0] <= 0.5)
    np.testing.assert_allclose(frequencies, theirs[0][inside], rtol=1e-9)
    np.testing.assert_allclose(power, theirs[1][inside], rtol=1e-9, atol=1e-9 * theirs[1].max())


def noise(kind, seconds=180.0, rate=130.0):
    """Times and samples (n,) uV of a lead that sees no heart."""
    random = np.random.default_rng(0)
    n = round(seconds * rate)
    white = random.standard_normal(n)
    band, beatlike = (signal.butter(2, edges, "bandpass", fs=rate, output="sos") for edges in ((1, 40), (5, 15)))
    samples = {
        "loud": 400 * white,
        "soft": 60 * white,
        "walk": np.cumsum(30 * white),
        "band": 200 * signal.sosfilt(band, white),
        "like beats": 200 * signal.sosfilt(beatlike, white),
    }[kind]
    return np.arange(n) / rate, samples


@pytest.mark.parametrize("kind", ["loud", "soft", "walk", "band", "like beats"])
def test_noise_has_no_heart_rate_no_variability_no_breathing_and_says_why(kind):
    times, samples = noise(kind)
    heart, given, reasons = Heart(130.0), 0, set()
    for second in range(180):
        part = slice(round(second * 130), round((second + 1) * 130))
        heart.push(times[part], samples[part])
        measures = heart.measures(second + 1.0)
        given += math.isfinite(measures["HR"].value)
        assert [name for name, one in measures.items() if name != "HR" and not one.reason] == []
        reasons.add(measures["HR"].reason)
    assert given <= 0.03 * 180
    assert any("only: noise, or no heart" in reason for reason in reasons)


def seconds_without(heart, times, samples, name="HR", after=20.0, rate=RATE):
    """How many of the seconds later than ``after`` have no figure of that ``name``, and of how many."""
    withheld, seconds = 0, range(1, int(times[-1] - times[0]))
    edges = np.searchsorted(times - times[0], [0, *seconds])
    for second, (low, high) in zip(seconds, pairwise(edges.tolist()), strict=True):
        heart.push(times[low:high], samples[low:high])
        withheld += second > after and bool(heart.variability.measure(name, float(times[0]) + second).reason)
    return withheld, len(seconds) - after


@pytest.mark.parametrize("frequency", [0.3, 1.0])
def test_a_baseline_that_wanders_by_half_of_r_takes_no_heart_rate_away(shared_data, frequency):
    with gzip.open(shared_data / "polar_h10_detectpvc" / "polar_h10.csv.gz", "rt") as lines:
        samples = 1000 * np.genfromtxt(lines, delimiter=",", names=True, max_rows=130 * 90)["ecg"]
    times = np.arange(len(samples)) / 130.0
    wander = 500 * np.sin(2 * np.pi * frequency * times)
    assert seconds_without(Heart(130.0), times, samples + wander)[0] == 0


@pytest.mark.parametrize("size", [3e4, 8.4e6, 1e12, 1e30])
@pytest.mark.parametrize("at", [1.8, 40.3])
def test_one_wrong_value_however_large_costs_no_heart_rate(size, at):
    times, samples, _ = lead(90.0)
    samples[round(at * RATE)] = size
    assert seconds_without(Heart(RATE), times, samples)[0] == 0
    assert seconds_without(Heart(RATE), times, samples, "RMSSD", 60.0)[0] == 0


_NOISE_TIMES, _NOISE = noise("like beats", 40.0)


@settings(deadline=None, max_examples=20)
@given(cuts=st.lists(st.integers(1, len(_NOISE) - 1), max_size=40))
def test_any_chunking_distrusts_the_same_beats(cuts):
    whole, heart = Heart(130.0), Heart(130.0)
    whole.push(_NOISE_TIMES, _NOISE)
    for a, b in pairwise([0, *sorted(set(cuts)), len(_NOISE)]):
        heart.push(_NOISE_TIMES[a:b], _NOISE[a:b])
    assert whole.measures(39.0)["HR"].reason.startswith("beats agree with their median by 0.")
    assert repr(heart.measures(39.0)) == repr(whole.measures(39.0))


def test_half_a_minute_of_beatlike_noise_leaves_no_heart_rate_and_ten_seconds_later_there_is_one_again():
    times, samples, _ = lead(100.0)
    disturbed = (times > 1030) & (times < 1060)
    beatlike = signal.sosfilt(
        signal.butter(2, (5, 15), "bandpass", fs=RATE, output="sos"),
        np.random.default_rng(1).standard_normal(len(times)),
    )
    samples[disturbed] = 800 * beatlike[disturbed]
    heart, given = Heart(RATE), {}
    for second in range(1, 99):
        part = slice(round((second - 1) * RATE), round(second * RATE))
        heart.push(times[part], samples[part])
        given[second] = not heart.variability.measure("HR", 1000.0 + second).reason
    assert all(given[second] for second in (*range(8, 30), *range(73, 99)))
    assert not any(given[second] for second in range(43, 60))


def test_breathing_is_not_read_from_a_minute_with_beats_that_are_not_clear():
    times, samples, _ = lead(200.0)
    disturbed = (times > 1150) & (times < 1170)
    samples[disturbed] += 1500 * np.random.default_rng(3).standard_normal(np.count_nonzero(disturbed))
    heart = Heart(RATE)
    heart.push(times, samples)
    assert not heart.breathing(1145.0).reason
    assert math.isnan(heart.breathing(1180.0).value)
    assert heart.breathing(1180.0).reason


def test_intervals_are_not_given_where_the_beats_behind_them_do_not_count():
    times, samples, _ = lead(60.0)
    heart = Heart(RATE)
    heart.push(times, samples)
    assert not heart.intervals(1059.0)["QRS"].reason
    heart.variability.distrust(1000.0, 1059.0, "its times are wrong")
    assert {one.reason for one in heart.intervals(1059.0).values()} == {"its times are wrong"}
    assert {name: one.value for name, one in heart.intervals(1059.0).items() if not math.isnan(one.value)} == {}
    assert heart.breathing(1059.0).reason


@pytest.mark.parametrize(("height", "doubtful"), [(1000.0, False), (1500.0, True)])
def test_a_peaked_t_wave_larger_than_r_does_not_double_the_heart_rate_in_silence(height, doubtful):
    times, samples, beats = lead(40.0)
    for beat in beats:
        samples += height * np.exp(-0.5 * ((times - beat - 0.28) / 0.025) ** 2)
    heart = Heart(RATE)
    heart.push(times, samples)
    found = heart.measures(1038.0)["HR"]
    if doubtful:
        assert found.reason == "doubtful: every second beat may be a T wave"
    else:
        assert found.value == pytest.approx(60 / 0.9, rel=0.05)


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


def recent(count=20, pr=0.16, qrs=0.09, qt=0.38, rr=0.9, agreement=1.0, scatter=()):
    """Beats of a regular heart with the intervals given, seconds, by turns longer and shorter by their ``scatter``."""
    found = []
    for i in range(count):
        at, names = 100.0 + rr * i, {"pr": pr, "qrs": qrs, "qt": qt}
        a, b, c = (names[name] + dict(scatter).get(name, 0.0) * (-1) ** i for name in names)
        waves = Waves(p_onset=at - a, qrs_onset=at, r_peak=at + 0.04, qrs_offset=at + b, t_offset=at + c)
        found.append((Beat(at + 0.04, 900.0, 0.9, agreement, 0.2, i == 0, False), waves, rr if i else math.nan))
    return found, 100.0 + rr * (count - 1) + 0.54


def test_intervals_are_medians_of_the_last_beats_and_say_of_how_many():
    beats, now = recent()
    beats[3] = recent(pr=0.25, qrs=0.14, qt=0.6)[0][3]
    found = intervals(beats, now)
    values = {name: one.value for name, one in found.items()}
    assert values == pytest.approx({"PR": 160, "QRS": 90, "QT": 380, "QTc": 380 / 0.9 ** (1 / 3)}, abs=1e-6)
    assert {one.unit for one in found.values()} == {"ms"}
    assert [found[name].beats for name in INTERVALS] == [20, 20, 20, 20]
    assert found["QT"].seconds == pytest.approx(19 * 0.9 + 0.5)
    assert found["QT"].corrected == 0


def test_beats_that_are_unlike_the_others_do_not_count_for_intervals():
    beats, now = recent()
    beats[5:9] = recent(qt=0.5, agreement=0.3)[0][5:9]
    found = intervals(beats, now)["QT"]
    assert found.value == pytest.approx(380)
    assert (found.beats, found.corrected) == (16, 0.2)


@pytest.mark.parametrize(
    ("made", "name", "reason"),
    [
        ({"count": 5}, "QT", "5 beats with waves in the last 60 s, QT needs 8"),
        ({"count": 0}, "PR", "0 beats with waves in the last 60 s, PR needs 8"),
        ({"agreement": 0.2}, "QRS", "20 of the last 20 beats are unlike the others, or the lead is too noisy"),
        ({"pr": math.nan}, "PR", "P is seen in 0 of the last 20 beats only"),
        ({"pr": 0.28}, "PR", "P is seen in 0 of the last 20 beats only"),  # where the search for it begins
        ({"qt": math.nan}, "QTc", "T is seen in 0 of the last 20 beats only"),
        ({"scatter": [("qt", 0.03)]}, "QT", "QT differs by 60 ms from beat to beat"),
        ({"scatter": [("qt", 0.03)]}, "QTc", "QTc differs by 60 ms from beat to beat"),
        ({"scatter": [("qrs", 0.02)]}, "QRS", "QRS differs by 40 ms from beat to beat"),
    ],
)
def test_an_interval_that_cannot_be_known_is_withheld_and_says_why(made, name, reason):
    found = intervals(*recent(**made))
    assert math.isnan(found[name].value)
    assert reason in found[name].reason


def test_live_intervals_are_those_of_the_waves_put_in_and_beats_from_long_ago_do_not_count():
    times, samples, _ = lead(40.0)
    heart = Heart(RATE)
    heart.push(times, samples)
    found = heart.measures(1039.0)
    assert found["PR"].value == pytest.approx(1000 * (0.16 + 0.045 - 0.03), abs=15)
    assert found["QT"].value == pytest.approx(1000 * (0.28 + 0.09 + 0.03), abs=15)
    assert found["QTc"].value == pytest.approx(found["QT"].value / 0.9 ** (1 / 3), rel=0.02)
    assert found["QRS"].beats == 20
    assert heart.measures(1120.0)["QRS"].reason == "0 beats with waves in the last 60 s, QRS needs 8"


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


def test_a_lead_that_is_interrupted_too_often_for_a_heart_rate_says_so():
    times, samples, _ = lead(60.0)
    whole, holes = Heart(RATE), Heart(RATE)
    whole.push(times, samples)
    holes.push(times, np.where((times - times[0]) % 2 < 0.15, np.nan, samples))
    assert math.isnan(holes.measures(times[-1])["HR"].value)
    assert "the ECG was interrupted 4 times in 8 s" in holes.measures(times[-1])["HR"].reason
    assert not any("interrupted" in one.reason for one in whole.measures(times[-1]).values())


def pieces(width, every, seconds=90.0):
    """A lead of which ``width`` seconds are missing once in ``every`` seconds: times, samples, whether missing (n,)."""
    times, samples, _ = lead(seconds)
    return times, samples, (times - times[0]) % every < width


@pytest.mark.parametrize("lost", [False, True])
def test_a_lead_with_holes_of_less_than_a_tenth_of_a_second_gives_no_figure_and_says_how_much_is_missing(lost):
    times, samples, missing = pieces(0.08, 0.8)
    heart = Heart(RATE)
    if lost:
        heart.push(times[~missing], samples[~missing])
    else:
        heart.push(times, np.where(missing, np.nan, samples))
    measures = heart.measures(1089.0)
    assert {name for name, one in measures.items() if not math.isnan(one.value)} == set()
    assert {name for name, one in measures.items() if "of the ECG is missing" not in one.reason} == set()


def test_single_values_that_are_missing_and_a_rare_hole_cost_no_figure():
    for width, every in ((0.004, 0.1), (0.04, 12.0)):
        times, samples, missing = pieces(width, every)
        heart = Heart(RATE)
        heart.push(times, np.where(missing, np.nan, samples))
        measures = heart.measures(1089.0)
        assert measures["HR"].value == pytest.approx(60 / 0.9, rel=0.05)
        assert not measures["RMSSD"].reason


def test_only_the_figures_whose_window_has_the_holes_are_withheld_and_the_heart_rate_is_back_after_ten_seconds():
    times, samples, missing = pieces(0.08, 0.8)
    missing &= times < 1030.0
    heart = Heart(RATE)
    heart.push(times[times < 1035], np.where(missing, np.nan, samples)[times < 1035])
    assert "of the ECG is missing" in heart.measures(1035.0)["HR"].reason
    heart.push(times[times >= 1035], samples[times >= 1035])
    measures = heart.measures(1041.0)
    assert not measures["HR"].reason
    assert "of the ECG is missing" in measures["RMSSD"].reason


@settings(deadline=None, max_examples=10)
@given(cuts=st.lists(st.integers(1, len(_TIMES) - 1), max_size=40))
def test_any_chunking_says_the_same_of_what_is_missing(cuts):
    holed = np.where((_TIMES - _TIMES[0]) % 1.5 < 0.05, np.nan, _SAMPLES)
    whole, heart = Heart(RATE), Heart(RATE)
    whole.push(_TIMES, holed)
    for a, b in pairwise([0, *sorted(set(cuts)), len(_TIMES)]):
        heart.push(_TIMES[a:b], holed[a:b])
    assert "of the ECG is missing" in whole.measures(1019.0)["HR"].reason
    assert repr(heart.measures(1019.0)) == repr(whole.measures(1019.0))

"""R peaks: found whatever the polarity, the rate and the cut; T waves, gaps and noise are not beats."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from realtime.beats import FLOOR, BeatDetector
from realtime.filters import RESTART

RATES = [128.0, 130.0, 250.0, 256.0, 360.0, 500.0]


def ecg(beats, rate, seconds, *, t_wave=150.0, start=0.0):
    """Times (n,) and an ECG (n,) in uV with QRS complexes of 1 mV at ``beats``, seconds."""
    times = start + np.arange(round(seconds * rate)) / rate
    samples = np.zeros(len(times))
    for beat in beats:
        t = times - beat
        samples += 1000 * np.exp(-0.5 * (t / 0.011) ** 2) - 250 * np.exp(-0.5 * ((t - 0.03) / 0.012) ** 2)
        samples += t_wave * np.exp(-0.5 * ((t - 0.28) / 0.045) ** 2) + 90 * np.exp(-0.5 * ((t + 0.16) / 0.025) ** 2)
    return times, samples


def rhythm(seconds, mean=0.8, sd=0.04, seed=0, start=0.4):
    intervals = mean + sd * np.random.default_rng(seed).standard_normal(int(seconds / mean) + 9)
    beats = start + np.cumsum(intervals)
    return beats[beats < start + seconds - 0.5]


def found(rate, times, samples, marks=None):
    detector = BeatDetector(rate)
    return detector.push(times, samples, marks) + detector.finish()


@pytest.mark.parametrize("rate", RATES)
def test_every_beat_is_found_and_timed_between_the_samples(rate):
    beats = rhythm(60)
    times, samples = ecg(beats, rate, 61)
    samples += 10 * np.random.default_rng(1).standard_normal(len(samples))
    given_out = found(rate, times, samples)
    errors = np.array([beat.time for beat in given_out]) - beats
    assert np.median(np.abs(errors - np.median(errors))) < 0.001
    assert np.abs(errors).max() < 0.006
    assert all(beat.amplitude > 400 for beat in given_out)
    assert np.mean([beat.agreement for beat in given_out[1:]]) > 0.9
    assert np.mean([beat.confidence for beat in given_out]) > 0.5


@pytest.mark.parametrize("rate", RATES)
def test_an_inverted_lead_gives_the_same_beats_upside_down(rate):
    times, samples = ecg(rhythm(30), rate, 31)
    samples += 20 * np.random.default_rng(1).standard_normal(len(samples))
    upright, inverted = found(rate, times, samples), found(rate, times, -samples)
    assert len(upright) > 30
    assert [beat.time for beat in upright] == [beat.time for beat in inverted]
    assert [beat.amplitude for beat in upright] == [-beat.amplitude for beat in inverted]


_BEATS = np.concatenate([rhythm(20, seed=4), 21 + rhythm(20, mean=0.5, sd=0.1, seed=5)])
_TIMES, _SAMPLES = ecg(_BEATS, 130.0, 42.0)
_SAMPLES += 60 * np.random.default_rng(2).standard_normal(len(_SAMPLES))
_SAMPLES[1000:1004] = np.nan
_SAMPLES[2000:2100] = np.nan
_MARKS = np.zeros(len(_TIMES), np.uint8)
_MARKS[[0, 3500]] = RESTART
_WHOLE = BeatDetector(130.0).push(_TIMES, _SAMPLES, _MARKS)


@settings(deadline=None)
@given(cuts=st.lists(st.integers(1, len(_TIMES) - 1), max_size=60))
def test_any_chunking_gives_the_same_bits(cuts):
    detector = BeatDetector(130.0)
    beats = []
    for a, b in pairwise([0, *sorted(set(cuts)), len(_TIMES)]):
        beats += detector.push(_TIMES[a:b], _SAMPLES[a:b], _MARKS[a:b])
    assert len(beats) > 40
    assert repr(beats) == repr(_WHOLE)


def test_one_sample_at_a_time_gives_the_same_bits():
    detector = BeatDetector(130.0)
    beats = [
        beat for i in range(len(_TIMES)) for beat in detector.push(*(a[i : i + 1] for a in (_TIMES, _SAMPLES, _MARKS)))
    ]
    assert repr(beats) == repr(_WHOLE)


def test_a_beat_is_given_out_with_the_sample_that_its_delay_says():
    times, samples = ecg(rhythm(30), 250.0, 31)
    detector = BeatDetector(250.0)
    given_out = 0
    for i in range(len(times)):
        for beat in detector.push(times[i : i + 1], samples[i : i + 1]):
            assert beat.time + beat.delay == pytest.approx(times[i], abs=1e-9)
            assert beat.late or beat.delay <= detector.lookahead + 0.02
            given_out += not beat.late
    assert given_out > 20


@pytest.mark.parametrize("height", [500.0, 900.0, 1200.0])
def test_t_waves_as_high_as_the_r_wave_are_no_beats(height):
    beats = rhythm(60, mean=1.0)
    times, samples = ecg(beats, 250.0, 61, t_wave=height)
    given_out = found(250.0, times, samples)
    assert len(given_out) == len(beats)
    assert np.abs(np.array([beat.time for beat in given_out]) - beats).max() < 0.02


@pytest.mark.parametrize("interval", [0.3, 0.35, 1.5, 2.0])
def test_fast_and_slow_hearts_are_followed(interval):
    beats = np.arange(0.5, 40, interval)
    times, samples = ecg(beats, 250.0, 41, t_wave=50.0)
    given_out = found(250.0, times, samples)
    assert len(given_out) == pytest.approx(len(beats), abs=1)


def test_beats_a_tenth_as_high_are_found_again_when_the_electrodes_dry():
    beats = rhythm(60)
    times, samples = ecg(beats, 130.0, 61)
    samples[times > 30] *= 0.1
    given_out = np.array([beat.time for beat in found(130.0, times, samples)])
    assert np.count_nonzero(given_out > 36) == np.count_nonzero(beats > 36)


def test_a_huge_artefact_costs_only_the_beats_around_it():
    beats = rhythm(60)
    times, samples = ecg(beats, 130.0, 61)
    samples[(times > 30) & (times < 30.4)] += 100_000
    given_out = np.array([beat.time for beat in found(130.0, times, samples)])
    late = beats[beats > 33]
    assert all(np.abs(given_out - beat).min() < 0.02 for beat in late)
    assert np.count_nonzero(given_out > 33) == len(late)


def test_a_flat_or_unworn_lead_has_no_beats():
    times = np.arange(130 * 60) / 130.0
    assert not found(130.0, times, np.zeros(len(times)))
    noise = FLOOR / 8 * np.random.default_rng(0).standard_normal(len(times))
    assert not found(130.0, times, 300 + noise)


def test_after_a_gap_the_first_beat_says_that_no_interval_ends_there_and_comes_without_learning_anew():
    beats = rhythm(60)
    times, samples = ecg(beats, 130.0, 61)
    keep = (times < 30) | (times > 32)
    marks = np.zeros(len(times), np.uint8)
    marks[np.flatnonzero(times > 32)[0]] = RESTART
    given_out = found(130.0, times[keep], samples[keep], marks[keep])
    firsts = [beat for beat in given_out if beat.first]
    assert len(firsts) == 2
    assert 32 < firsts[1].time < 33.2
    assert firsts[1].delay < 0.3
    assert not any(29.9 < beat.time < 32 for beat in given_out)


def test_after_a_long_gap_the_levels_are_learnt_anew():
    beats = np.concatenate([rhythm(30), rhythm(30, start=60.4)])
    times, samples = ecg(beats, 130.0, 91)
    samples[times > 60] *= 0.05
    keep = (times < 31) | (times > 60)
    marks = np.zeros(len(times), np.uint8)
    marks[np.flatnonzero(times > 60)[0]] = RESTART
    given_out = found(130.0, times[keep], samples[keep], marks[keep])
    assert sum(beat.time > 60 for beat in given_out) == len(beats[beats > 60])


def after_noise(rate, times, samples):
    """Beats of a segment that begins after half a minute of noise of 10 mV and a gap of more than a minute."""
    noise = 1e4 * np.random.default_rng(2).standard_normal(round(30 * rate))
    marks = np.zeros(len(times), np.uint8)
    marks[0] = RESTART
    detector = BeatDetector(rate)
    detector.push(np.arange(len(noise)) / rate, noise)
    return detector.push(times, samples, marks) + detector.finish()


@pytest.mark.parametrize("rate", [128.0, 130.0, 250.0, 500.0])
@pytest.mark.parametrize("first", [0.15, 0.154, 0.4])
def test_after_a_long_gap_no_beat_knows_of_what_was_there_before(rate, first):
    times, samples = ecg(100 + np.arange(first, 30, 0.8), rate, 31, start=100.0)
    samples += 5 * np.random.default_rng(1).standard_normal(len(samples))
    after = after_noise(rate, times, samples)
    assert abs(after[0].time - 100 - first) < 0.01
    assert repr(after) == repr(found(rate, times, samples))


@pytest.mark.parametrize("rate", [128.0, 130.0])
def test_no_beat_of_noise_either_knows_of_what_was_there_before(rate):
    # In noise the largest deflection often lies as far from the maximum of the envelope as is looked at.
    random = np.random.default_rng(3)
    for _ in range(6):
        times = 100 + np.arange(round(12 * rate)) / rate
        samples = 200 * random.standard_normal(len(times)) + np.cumsum(60 * random.standard_normal(len(times)))
        assert repr(after_noise(rate, times, samples)) == repr(found(rate, times, samples))


def test_missing_samples_are_bridged_or_end_a_segment():
    beats = rhythm(30)
    times, samples = ecg(beats, 130.0, 31)
    short, long = samples.copy(), samples.copy()
    short[np.abs(times - 10) < 0.03] = np.nan
    long[np.abs(times - 10) < 0.5] = np.nan
    assert sum(beat.first for beat in found(130.0, times, short)) == 1
    assert sum(beat.first for beat in found(130.0, times, long)) == 2
    assert not found(130.0, times, np.full(len(times), np.nan))


def test_reset_is_as_new():
    detector = BeatDetector(130.0)
    first = detector.push(_TIMES, _SAMPLES, _MARKS)
    detector.reset()
    assert repr(detector.push(_TIMES, _SAMPLES, _MARKS)) == repr(first)


def test_beats_come_in_the_order_of_their_times_in_the_worst_noise():
    random = np.random.default_rng(3)
    for scale in (10.0, 1e3, 1e6):
        times = np.arange(130 * 120) / 130.0
        beats = found(130.0, times, scale * np.cumsum(random.standard_normal(len(times))) * random.random(len(times)))
        assert all(a.time < b.time for a, b in pairwise(beats))


def test_rates_and_shapes_that_cannot_be_used_are_refused_in_words():
    with pytest.raises(ValueError, match="100 to 2000 Hz, not at 64 Hz"):
        BeatDetector(64.0)
    with pytest.raises(ValueError, match="3 stamps came with 2 samples"):
        BeatDetector(130.0).push(np.zeros(3), np.zeros(2))


def test_real_beats_are_found_as_annotated_and_upside_down(shared_data):
    file = np.load(shared_data / "mitdb" / "mitdb_36_records_130hz_int16_5uV.npz")
    samples = file["119_uV"][: 130 * 300] * float(file["scale_uV"])  # every fourth beat is a ventricular extrasystole
    truth = file["119_beat_s"]
    truth = truth[truth < 299]
    for sign in (1, -1):
        given_out = np.array([beat.time for beat in found(130.0, np.arange(len(samples)) / 130, sign * samples)])
        given_out = given_out[given_out < 299.2]
        nearest = np.abs(given_out[:, None] - truth).min(axis=0)
        assert np.mean(nearest < 0.15) > 0.99
        assert len(given_out) == pytest.approx(len(truth), abs=3)

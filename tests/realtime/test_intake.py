"""Stamps of real life: duplicates, leaps, holes, nonsense; and values that are none."""

from __future__ import annotations

import numpy as np
import pytest

from realtime.filters import HOLE, MISSING, REACHED, RESTART, STUCK
from realtime.intake import Intake, Pick

RATE = 250.0


def stamps(n=500, start=100.0):
    return start + np.arange(n) / RATE


def let_in(intake, times, lost=0, first=0):
    """The numbers, counted from ``first``, of the samples that are taken, their marks and stamps."""
    numbers = np.arange(first, first + len(times), dtype=np.float32)[:, None]
    keep, marks, smoothed = intake.admit(np.asarray(times, dtype=np.float64), numbers, lost)
    return intake.rows[keep, 0].astype(int).tolist(), marks.tolist(), smoothed.copy()


def admit(times, lost=0):
    intake = Intake(RATE, 4096)
    keep, marks, _ = let_in(intake, times, lost)
    return keep, marks, intake.counters(0)


def test_regular_stamps_are_all_taken_and_one_segment():
    keep, marks, counters = admit(stamps())
    assert keep == list(range(500))
    assert marks == [RESTART] + [0] * 499
    assert (counters.samples, counters.refused, counters.gaps) == (500, 0, 0)


@pytest.mark.parametrize("stamp", [np.nan, np.inf, -np.inf, 1e300, -1e300])
def test_a_stamp_that_is_no_time_is_refused_wherever_it_stands(stamp):
    for at in (0, 3, 300, 499):
        times = stamps()
        times[at] = stamp
        keep, marks, counters = admit(times)
        assert keep == [i for i in range(500) if i != at]
        assert sum(mark == RESTART for mark in marks) == 1
        assert (counters.samples, counters.refused) == (499, 1)


def test_duplicates_and_late_packets_are_refused():
    times = stamps()
    times[200] = times[199]
    times[300:310] = times[250:260]
    keep, marks, counters = admit(times)
    assert keep == [i for i in range(500) if i != 200 and not 300 <= i < 310]
    assert marks.count(RESTART) == 1
    assert counters.refused == 11


def test_a_short_hole_is_bridged_and_a_longer_one_begins_a_segment():
    short = np.delete(stamps(), np.s_[200:210])
    assert admit(short)[1][200] == HOLE
    assert admit(short)[2].gaps == 1
    long = np.delete(stamps(), np.s_[200:230])
    assert admit(long)[1][200] == RESTART
    tiny = np.delete(stamps(), np.s_[200:203])
    assert admit(tiny)[1][200] == 0


def test_samples_that_a_device_lost_are_a_hole_though_the_stamps_do_not_show_it():
    for lost, mark in ((3, HOLE), (40, RESTART)):
        intake = Intake(RATE, 4096)
        let_in(intake, stamps(100))
        let_in(intake, np.array([np.nan]), lost)  # the loss is not forgotten with a refused sample
        _, marks, _ = let_in(intake, stamps(100, start=100.4))
        assert marks == [mark] + [0] * 99
        assert intake.counters(0).lost == lost


def test_one_wild_stamp_is_refused_and_a_leap_that_lasts_is_followed():
    times = stamps()
    times[250] += 200_000
    keep, marks, _ = admit(times)
    assert keep == [i for i in range(500) if i != 250]
    assert marks.count(RESTART) == 1
    times = stamps()
    times[250:] += 200_000
    keep, marks, counters = admit(times)
    assert keep == list(range(500))
    assert marks[250] == RESTART
    assert marks.count(RESTART) == 2
    assert (counters.samples, counters.refused, counters.gaps) == (500, 0, 1)


@pytest.mark.parametrize("size", [1, 2, 3, 5, 7, 8, 9, 400])
def test_after_an_outage_the_samples_that_waited_for_its_confirmation_are_taken_with_their_values(size):
    """However they come, wild stamps and losses between them: as many taken and refused as came, and the same ones."""
    times = np.concatenate([stamps(100), stamps(60, 200.0), stamps(3, 300.0), stamps(60, 201.0), stamps(5, 400.0)])
    times[105] = 9e5  # in the middle of what waits: the leap begins anew behind it
    whole, pieces = Intake(RATE, 4096), Intake(RATE, 4096)
    keep, marks, smoothed = let_in(whole, times)
    assert keep == [*range(100), *range(106, 160), *range(163, 223)]
    assert [keep[i] for i in np.flatnonzero(marks)] == [0, 106, 163]
    found = [let_in(pieces, times[at : at + size], first=at) for at in range(0, len(times), size)]
    assert [number for one in found for number in one[0]] == keep
    assert [mark for one in found for mark in one[1]] == marks
    assert np.concatenate([one[2] for one in found]).tobytes() == smoothed.tobytes()
    counters = pieces.counters(0)
    assert counters == whole.counters(0)
    assert counters.samples + counters.refused == len(times)
    assert counters.refused == 6 + 3 + 5  # before and with the wild one, those that were alone, and who still wait


def test_what_a_device_lost_while_a_leap_waited_is_a_hole_at_its_place():
    intake = Intake(RATE, 4096)
    let_in(intake, stamps(100))
    assert let_in(intake, stamps(3, 200.0), lost=2000, first=100)[0] == []
    keep, marks, _ = let_in(intake, stamps(20, 200.0 + 5 / RATE), lost=2, first=103)
    assert keep == list(range(100, 123))
    assert [(keep[i], marks[i]) for i in np.flatnonzero(marks)] == [(100, RESTART), (103, HOLE)]
    assert intake.counters(0).lost == 2002


def test_a_first_stamp_that_is_nonsense_is_given_up_for_what_follows():
    times = stamps()
    times[0] = 1.8e9
    intake = Intake(RATE, 4096)
    let_in(intake, times)
    assert intake.first == times[1]
    assert intake.last == times[-1]
    assert (intake.counters(0).samples, intake.counters(0).refused) == (499, 1)


def test_stamps_that_fall_far_back_are_refused_until_they_catch_up():
    times = np.concatenate([stamps(500), stamps(1000) - 10])
    keep, _, counters = admit(np.concatenate([times, stamps(500, start=102.0)]))
    assert keep == [*range(500), *range(1500, 2000)]
    assert counters.refused == 1000


@pytest.mark.parametrize(("rate", "true_rate", "size"), [(250.0, 250.0, 8), (256.0, 255.0, 12), (130.0, 130.4, 7)])
def test_chunks_stamped_when_they_were_sent_lose_nothing_and_the_jitter_is_smoothed(rate, true_rate, size):
    """As most LSL sources do it: the newest sample is stamped with the moment of sending, the others by the rate."""
    truth = 500 + np.arange(round(60 * true_rate) // size * size) / true_rate
    late = np.random.default_rng(1).gamma(1.0, 0.003, len(truth) // size)
    times = np.repeat(truth[size - 1 :: size] + late, size) - np.tile(np.arange(size)[::-1] / rate, len(late))
    assert (np.diff(times) <= 0).any()
    intake = Intake(rate, 1 << 15)
    keep, marks, smoothed = let_in(intake, times)
    assert len(keep) == len(truth)
    assert marks == [RESTART] + [0] * (len(truth) - 1)
    assert (np.diff(smoothed) > 0).all()
    settled = len(truth) // 3
    error = (smoothed - truth)[settled:]
    assert error.std() < 0.5 * (times - truth)[settled:].std()
    assert error.std() < 0.0015
    assert abs(error.mean() - late.mean()) < 0.0015


def test_even_stamps_stay_what_they_are():
    times = 3e5 + np.arange(20_000) / RATE
    _, _, smoothed = let_in(Intake(RATE, 1 << 15), times)
    np.testing.assert_allclose(smoothed, times, rtol=0, atol=1e-7)


def test_before_the_first_sample_there_is_no_time():
    intake = Intake(RATE, 16)
    assert np.isnan(intake.first)
    assert np.isnan(intake.last)


def pick(raw, *, scale=1.0, columns=(0,), marks=None):
    raw = np.asarray(raw, np.float32).reshape(len(raw), -1)
    marks = np.zeros(len(raw), np.uint8) if marks is None else marks
    samples, flags = Pick(columns, scale, 100.0, 4096).run(raw, np.arange(len(raw)), marks)
    return samples, flags


def test_columns_are_picked_in_order_and_scaled():
    samples, _ = pick([[1, 2, 3], [4, 5, 6]], scale=1000.0, columns=(2, 0))
    assert samples.tolist() == [[3000, 1000], [6000, 4000]]


def test_what_is_no_number_is_missing():
    _, flags = pick([1, np.nan, 2, np.inf, -np.inf, 3])
    assert flags[:, 0].tolist() == [0, MISSING, 0, MISSING, MISSING, 0]


def test_five_equal_values_are_a_run_and_four_are_none():
    _, flags = pick([1, 7, 7, 7, 7, 2, 7, 7, 7, 7, 7, 7, 3])
    assert flags[:6, 0].tolist() == [0] * 6
    assert flags[6:, 0].tolist() == [0, 0, 0, 0, STUCK | REACHED, STUCK, 0]


def test_a_new_segment_begins_a_new_run():
    marks = np.zeros(8, np.uint8)
    marks[4] = RESTART
    _, flags = pick([7] * 8, marks=marks)
    assert not flags.any()

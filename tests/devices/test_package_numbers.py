"""Loss is told from package numbers: sent = received + lost, whatever the numbering, the wraps and the cutting."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from devices.package_numbers import BY_TIME, BYTE, GANGLION, Numbering, RowCounter, learn

CYTON = (250.0, BYTE)
DAISY = (125.0, Numbering(step=2))
MUSE = (256.0, Numbering(size=12, modulus=65536))
GYRO = (52.0, Numbering(size=3, modulus=65536))
GANGLION_2, GANGLION_3 = ((200.0, one) for one in GANGLION)
BOARDS = (CYTON, DAISY, MUSE, GYRO, GANGLION_2, GANGLION_3)
NAMES = ("cyton", "daisy", "muse", "muse gyro", "ganglion 2", "ganglion 3")


def send(numbering: Numbering, packets: int, first: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Package numbers of the rows of so many packets, and which packet each row is of."""
    order = (first + np.arange(packets)) * numbering.step % numbering.modulus
    sizes = numbering.sizes(order)
    return np.repeat(order, sizes), np.repeat(np.arange(packets), sizes)


def arrivals_of(rate: float, packet: np.ndarray, jitter: np.ndarray | float = 0.0) -> np.ndarray:
    """Of each row when the last one of its packet was measured, later by ``jitter``, in order."""
    ends = np.flatnonzero(np.diff(packet, append=packet[-1] + 1)) / rate
    return np.maximum.accumulate(100.0 + ends + jitter)[packet]


def count(counter, numbers, arrivals, cuts=()):
    """Rows that were given, the sample numbers they were given, and all that was said to be lost."""
    rows = np.arange(len(numbers), dtype=float)[:, None]
    bounds = [0, *sorted(cuts), len(numbers)]
    runs = []
    for a, b in pairwise(bounds):
        runs += counter.feed(rows[a:b], numbers[a:b].astype(float), arrivals[a:b])
    runs += counter.flush()
    given = np.concatenate([run.rows[:, 0] for run in runs]).astype(int)
    samples = np.concatenate([run.first + np.arange(len(run.rows)) for run in runs])
    return given, samples, sum(run.lost for run in runs)


outages = st.lists(st.tuples(st.integers(20, 200), st.integers(1, 700)), max_size=5)


@pytest.mark.parametrize(("rate", "numbering"), BOARDS, ids=NAMES)
@settings(max_examples=25, derandomize=True, deadline=None)
@given(
    first=st.integers(0, 300),
    outages=outages,
    twice=st.sets(st.integers(3, 400), max_size=4),
    cuts=st.sets(st.integers(1, 3000), max_size=8),
    seed=st.integers(0, 99),
)
def test_what_was_sent_is_what_came_and_what_is_said_to_be_lost(rate, numbering, first, outages, twice, cuts, seed):
    total = 400 + sum(lost for _, lost in outages)
    numbers, packet = send(numbering, total, first)
    arrivals = arrivals_of(rate, packet, np.random.default_rng(seed).exponential(0.005, total))
    there = np.ones(total, bool)
    at = 0
    for heard, lost in outages:
        at += heard
        there[at : at + lost] = False
        at += lost
    order = [p for p in range(total) if there[p] for _ in range(2 if p in twice else 1)]
    rows = np.concatenate([np.flatnonzero(packet == p) for p in order])
    came = np.flatnonzero(there[packet])
    given_rows, samples, lost = count(
        RowCounter(rate, (numbering,)), numbers[rows], arrivals[rows], {c for c in cuts if c < len(rows)}
    )
    assert list(rows[given_rows]) == list(came), "each row once, in order"
    assert len(came) + lost == came[-1] - came[0] + 1
    assert np.array_equal(samples, came - came[0]), "and each with the number of the sample it is"


@pytest.mark.parametrize(("rate", "numbering"), BOARDS, ids=NAMES)
@pytest.mark.parametrize("stalled", [0.3, 1.0, 5.0, 60.0])
def test_a_computer_that_was_stopped_invents_no_loss(rate, numbering, stalled):
    numbers, packet = send(numbering, round((stalled + 20) * rate / numbering.size))
    arrivals = arrivals_of(rate, packet)
    at = 105.0
    arrivals[(arrivals > at) & (arrivals < at + stalled)] = at + stalled
    given_rows, samples, lost = count(RowCounter(rate, (numbering,)), numbers, arrivals, range(7, len(numbers), 61))
    assert lost == 0
    assert np.array_equal(given_rows, samples)
    assert len(samples) == len(numbers)


@pytest.mark.parametrize(("rate", "numbering"), [CYTON, DAISY, GANGLION_3], ids=["cyton", "daisy", "ganglion 3"])
def test_what_did_not_fit_into_the_buffer_while_the_computer_was_stopped_is_counted(rate, numbering):
    numbers, packet = send(numbering, round(90 * rate / numbering.size))
    arrivals = arrivals_of(rate, packet)
    stopped, kept, woken = 110.0, 118.0, 170.7
    came = (arrivals < kept) | (arrivals >= woken)
    arrivals[(arrivals > stopped) & (arrivals < woken)] = woken
    given_rows, samples, lost = count(RowCounter(rate, (numbering,)), numbers[came], arrivals[came])
    assert len(given_rows) + lost == len(numbers)
    assert np.array_equal(samples, np.flatnonzero(came)), "the gap lies behind what was kept"


def test_a_packet_of_which_only_a_part_came_is_counted_as_such():
    rate, numbering = MUSE
    numbers, packet = send(numbering, 50)
    came = np.ones(len(numbers), bool)
    came[127:132] = False  # the end of packet 10
    _, samples, lost = count(RowCounter(rate, (numbering,)), numbers[came], arrivals_of(rate, packet)[came])
    assert lost == 5
    assert np.array_equal(samples, np.flatnonzero(came))


@pytest.mark.parametrize(
    ("rate", "sent"),
    [
        (250.0, Numbering(modulus=65536)),
        (250.0, Numbering(step=2, modulus=256)),
        (250.0, Numbering(size=33, modulus=256)),
        (512.0, BYTE),
    ],
)
def test_an_unknown_board_is_learned_with_its_wrap(rate, sent):
    counter = RowCounter(rate)
    first = sent.modulus // sent.step - 300
    numbers, packet = send(sent, 700, max(first, 0))
    came = (packet < 400) | (packet >= 411)
    _, samples, lost = count(counter, numbers[came], arrivals_of(rate, packet)[came], range(5, 600, 7))
    assert counter.numbering == sent
    assert lost == 11 * sent.size
    assert np.array_equal(samples, np.flatnonzero(came))


def test_the_two_firmwares_of_a_ganglion_are_told_apart():
    for rate, numbering in (GANGLION_2, GANGLION_3):
        for first in (0, 50, 99):
            counter = RowCounter(rate, GANGLION)
            numbers, packet = send(numbering, 400, first)
            numbers = np.where((packet > 180) & (numbers > 0), numbers + 100, numbers)  # 19 bits instead of 18
            _, _, lost = count(counter, numbers, arrivals_of(rate, packet), range(5, len(numbers), 5))
            assert counter.numbering == numbering
            assert lost == 0


def test_numbers_that_tell_nothing_lose_nothing_but_in_pauses():
    rate = 250.0
    time = np.arange(5000) / rate
    for numbers in (np.zeros(5000), np.random.default_rng(1).integers(0, 255, 5000)):
        counter = RowCounter(rate)
        _, samples, lost = count(counter, numbers, 100 + time, range(3, 4000, 9))
        assert (counter.numbering, lost, samples[-1]) == (BY_TIME, 0, 4999)
        counter = RowCounter(rate)
        came = (time < 8) | (time >= 12)
        _, samples, lost = count(counter, numbers[came], 100 + time[came], range(3, 4000, 9))
        assert lost == counter.estimated == 1000
        assert np.array_equal(samples, np.flatnonzero(came))


def test_a_board_that_starts_its_count_anew_loses_what_the_time_says():
    rate, numbering = MUSE
    counter = RowCounter(rate, (numbering,))
    numbers, packet = send(numbering, 600)
    arrivals = arrivals_of(rate, packet)
    came = (packet < 300) | (packet >= 400)
    numbers = np.where(packet >= 400, numbers - 400, numbers)  # it has been off and on
    _, samples, lost = count(counter, numbers[came], arrivals[came], range(5, 5000, 31))
    assert (counter.restarts, lost, counter.estimated) == (1, 1200, 1200)
    assert np.array_equal(samples, np.flatnonzero(came))


def test_after_a_restart_that_was_ordered_the_numbers_may_begin_anywhere():
    counter = RowCounter(250.0, (BYTE,))
    numbers = np.arange(500) % 256
    rows = np.zeros((500, 1))
    runs = counter.feed(rows, numbers.astype(float), 100 + np.arange(500) / 250)
    runs += counter.restart()
    runs += counter.feed(rows, (numbers + 77) % 256.0, 112 + np.arange(500) / 250)
    runs += counter.flush()
    assert [(run.first, run.lost) for run in runs] == [(0, 0), (3000, 2500)]


def test_too_little_to_learn_from_is_given_all_the_same():
    given_rows, _, lost = count(RowCounter(250.0), np.arange(3.0), np.arange(3) / 250)
    assert (list(given_rows), lost) == ([0, 1, 2], 0)
    assert learn(np.zeros(0, np.int64)) == BY_TIME


def test_a_board_that_breaks_off_while_it_is_learned_is_learned_afterwards():
    counter = RowCounter(250.0)
    numbers = np.arange(1300) % 256.0
    rows, arrivals = np.zeros((1300, 1)), 100 + np.arange(1300) / 250
    runs = counter.feed(rows[:5], numbers[:5], arrivals[:5]) + counter.restart()
    came = (np.arange(1300) >= 500) & ((np.arange(1300) < 900) | (np.arange(1300) >= 911))
    runs += counter.feed(rows[came], numbers[came], arrivals[came]) + counter.flush()
    assert counter.numbering == BYTE
    assert [run.lost for run in runs] == [0, 495, 11]


def test_absurd_numbers_are_taken_without_a_word(recwarn):
    numbers = np.arange(400) % 256.0
    numbers[[100, 200, 300]] = 1e300, np.nan, -np.inf
    given_rows, samples, _ = count(RowCounter(250.0, (BYTE,)), numbers, 100 + np.arange(400) / 250, range(50, 400, 50))
    assert (np.diff(samples) > 0).all()
    assert len(given_rows) > 390
    assert not recwarn.list

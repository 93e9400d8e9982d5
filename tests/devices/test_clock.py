"""Device times on the session clock, in virtual time: against a truth that only the test knows."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from devices.clock import DeviceClock

SAMPLES = 73
DELAY = 0.04
JITTER = 0.02


@dataclass
class Packets:
    """What a strap sent: of every packet the true time, the device's stamp and the arrival, in order of arrival."""

    true: np.ndarray
    device: np.ndarray
    arrival: np.ndarray


def strap(
    seconds: float,
    ppm: float = 345.0,
    seed: int = 0,
    *,
    jitter: float = JITTER,
    lost: float = 0.02,
    swapped: float = 0.02,
    start: float = 5000.0,
    zero: float = 8.2e8,
) -> Packets:
    """Packets of 73 samples at 130 Hz of a clock that is ``ppm`` fast; some never come, some come after the next."""
    random = np.random.default_rng(seed)
    own = np.arange(1, int(seconds / (SAMPLES / 130)) + 1) * SAMPLES / 130
    true = own / (1 + ppm * 1e-6) + start
    arrival = true + DELAY + random.exponential(jitter, len(true)) if jitter else true + DELAY
    late = random.random(len(true)) < swapped
    arrival[late] += 0.6
    order = np.argsort(arrival)
    order = order[random.random(len(true))[order] >= lost]
    return Packets(true[order], own[order] + zero, arrival[order])


def follow(packets: Packets, clock: DeviceClock | None = None) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """True time, error and uncertainty of the newest sample of every packet that is newer than all before it."""
    clock = clock or DeviceClock()
    rows, newest = [], -np.inf
    for true, device, arrival in zip(packets.true, packets.device, packets.arrival, strict=True):
        clock.update(device, arrival)
        if device > newest:
            newest = device
            time = clock.to_session(device - np.arange(SAMPLES)[::-1] / 130)[-1]
            rows.append((true, time - true, clock.uncertainty))
    return tuple(np.array(column) for column in zip(*rows, strict=True))


def trend(true: np.ndarray, error: np.ndarray) -> float:
    """By how much the error changes over the recording, seconds."""
    return float(np.polyfit(true - true[0], error, 1)[0] * (true[-1] - true[0]))


@pytest.mark.parametrize("seed", range(6))
def test_half_an_hour_of_a_strap_345_ppm_fast_is_stamped_within_2_ms_after_a_minute(seed):
    true, error, _ = follow(strap(1800, 345.0, seed))
    settled = true > true[0] + 60
    error = error[settled] - error[settled].mean()
    assert error.std() < 2e-3
    assert np.abs(error).max() < 8e-3
    assert abs(trend(true[settled], error)) < 2e-3
    assert abs(trend(true[true > true[0] + 600], error[true[settled] > true[0] + 600])) < 1.5e-3


@pytest.mark.parametrize("ppm", [20.0, -20.0, 100.0, 1000.0, -1000.0])
def test_an_hour_of_drift_is_followed(ppm):
    clock = DeviceClock()
    true, error, _ = follow(strap(3600, ppm, seed=11), clock)
    settled = true > true[0] + 60
    error = error[settled] - error[settled].mean()
    assert error.std() < 2e-3
    assert abs(trend(true[settled], error)) < 2e-3
    assert clock.drift == pytest.approx(ppm, abs=10)
    assert clock.resets == 0


def test_the_constant_that_remains_lies_between_the_fastest_and_the_mean_delay():
    true, error, _ = follow(strap(1800, seed=4))
    assert DELAY < error[true > true[0] + 60].mean() < DELAY + JITTER / 2


def test_the_uncertainty_is_as_large_as_the_error():
    ratios = []
    for seed in range(12):
        true, error, uncertainty = follow(strap(900, seed=seed, swapped=0.0))
        constant = DELAY + 0.293 * JITTER  # the 5 % expectile of an exponential
        for moment in (30, 120, 600):
            at = np.searchsorted(true, true[0] + moment)
            ratios.append((error[at] - constant) / uncertainty[at])
    assert 0.5 < np.sqrt(np.mean(np.square(ratios))) < 1.6


def test_uncertainty_falls_as_packets_come_and_grows_through_silence():
    packets = strap(600, seed=2)
    clock = DeviceClock()
    assert clock.uncertainty == np.inf
    seen = []
    for device, arrival in zip(packets.device, packets.arrival, strict=True):
        clock.update(device, arrival)
        seen.append(clock.uncertainty)
    assert seen[20] > seen[100] > seen[-1]
    clock.update(packets.device[-1] + 3600, packets.arrival[-1] + 3600)
    assert clock.uncertainty > 3 * seen[-1]


@pytest.mark.parametrize("seed", range(3))
def test_samples_keep_their_order_from_chunk_to_chunk(seed):
    packets = strap(300, seed=seed, jitter=0.1)
    clock, times, newest = DeviceClock(), [], -np.inf
    for device, arrival in zip(packets.device, packets.arrival, strict=True):
        clock.update(device, arrival)
        if device > newest:
            newest = device
            times.append(clock.to_session(device - np.arange(SAMPLES)[::-1] / 130))
    steps = np.diff(np.concatenate(times))
    assert steps.min() > 0.9 / 130


@settings(max_examples=60, deadline=None)
@given(
    steps=st.lists(
        st.tuples(st.floats(0.001, 30.0), st.floats(-0.9, 30.0)),  # device time that passes, how late the packet is
        min_size=1,
        max_size=60,
    )
)
def test_whatever_the_lateness_order_is_kept_and_every_stamp_is_a_number(steps):
    clock, device, stamps = DeviceClock(), 7.5e8, []
    for passed, late in steps:
        clock.update(device + passed, device + passed - 7.5e8 + late)
        stamps.append(clock.to_session(np.linspace(device, device + passed, 5)[1:]))
        device += passed
        resets = clock.resets
    times = np.concatenate(stamps)
    assert np.isfinite(times).all()
    if not resets:
        assert (np.diff(times) > 0).all()


@pytest.mark.parametrize("jump", [-200_000.0, 200_000.0, -10.0, 20.0])
@pytest.mark.parametrize("whose", ["device", "session"])
def test_a_jump_of_either_clock_is_followed(jump, whose):
    packets = strap(900, seed=3, swapped=0.0)
    after = packets.true > packets.true[0] + 450
    moved = packets.device if whose == "device" else packets.arrival
    truth = packets.true.copy()
    moved[after] += jump
    if whose == "session":
        truth[after] += jump
    clock = DeviceClock()
    errors = []
    for device, arrival, true in zip(packets.device, packets.arrival, truth, strict=True):
        clock.update(device, arrival)
        errors.append(clock.to_session(np.array([device]))[0] - true)
    errors = np.array(errors) - DELAY
    moment = packets.true - packets.true[after][0]
    assert clock.resets == 1
    assert np.abs(errors[(moment < 0) & (moment > -400)]).max() < 0.02
    assert np.abs(errors[moment > 12]).max() < 0.04
    assert np.abs(errors[moment > 60]).max() < 0.015
    if whose == "device":  # true time went on evenly: nothing may show
        assert np.abs(errors[moment >= 0]).max() < 0.2
        assert clock.offset == pytest.approx(packets.true[-1] - packets.device[-1], abs=0.06)


def test_a_strap_that_was_off_and_counts_from_2019_again_keeps_its_drift():
    clock = DeviceClock()
    first = strap(600, 345.0, seed=5, zero=8.2e8)
    follow(first, clock)
    drift = clock.drift
    second = strap(120, 345.0, seed=6, start=first.true[-1] + 30, zero=5.99e8)
    true, error, _ = follow(second, clock)
    assert clock.resets == 1
    assert clock.drift == pytest.approx(drift, abs=30)
    assert np.abs(error - DELAY).max() < 0.15
    assert np.abs(error[true > true[0] + 30] - DELAY).max() < 0.012


@pytest.mark.parametrize("step", [0.08, -0.08, 0.4, -0.4])
def test_a_step_of_a_fraction_of_a_second_is_followed_once_packets_agree(step):
    """The drift that was learned before is not spoilt by it."""
    packets = strap(900, seed=8, swapped=0.0)
    after = packets.true > packets.true[0] + 450
    packets.arrival[after] += step
    clock = DeviceClock()
    true, error, _ = follow(packets, clock)
    moment = true - packets.true[after][0]
    assert clock.resets <= 1
    assert np.abs(error[moment > 30] - step - DELAY).max() < 0.02
    assert clock.drift == pytest.approx(345, abs=40)


@pytest.mark.parametrize("stall", [2.0, 20.0, 60.0])
def test_a_stalled_link_that_catches_up_is_no_jump(stall):
    packets = strap(900, seed=9, swapped=0.0, lost=0.0)
    held = (packets.true > packets.true[0] + 450) & (packets.true < packets.true[0] + 450 + stall)
    packets.arrival[held] = packets.true[0] + 450 + stall + np.arange(held.sum()) * 0.002 + DELAY
    clock = DeviceClock()
    true, error, _ = follow(packets, clock)
    assert clock.resets == 0
    assert np.abs(error[true > true[0] + 60] - DELAY - 0.006).max() < 0.01


@pytest.mark.parametrize("late", [0.3, 0.9, 5.0])
def test_a_first_packet_that_was_held_up_is_forgotten_soon(late):
    packets = strap(120, seed=13, swapped=0.0, lost=0.0)
    packets.arrival[0] += late
    true, error, _ = follow(packets)
    assert np.abs(error[true > true[0] + 20] - DELAY).max() < 0.03


def test_a_late_packet_hardly_moves_the_line():
    packets = strap(300, seed=10, swapped=0.0)
    clock = DeviceClock()
    follow(packets, clock)
    before = clock.offset
    clock.update(packets.device[-1] + SAMPLES / 130, packets.arrival[-1] + SAMPLES / 130 + 5.0)
    assert clock.offset == pytest.approx(before, abs=1e-3)


@pytest.mark.parametrize(("device", "arrival"), [(np.nan, 1.0), (1.0, np.inf), (-np.inf, 1.0), (np.inf, np.inf)])
def test_a_stamp_that_is_no_number_changes_nothing(device, arrival):
    clock = DeviceClock()
    clock.update(10.0, 110.0)
    clock.update(device, arrival)
    assert clock.to_session(np.array([10.5]))[0] == pytest.approx(110.5)
    assert clock.resets == 0


def test_exact_arrivals_give_exact_times():
    packets = strap(3600, 100.0, jitter=0.0, lost=0.0, swapped=0.0)
    true, error, _ = follow(packets)
    assert np.abs(error[true > true[0] + 60] - DELAY).max() < 2e-5


def test_sample_numbers_at_250_hz_that_come_in_bursts_are_a_clock_too():
    """As boards do that are polled: every 20 ms whatever has come, with a sample now and then a little late."""
    random = np.random.default_rng(12)
    number = np.arange(0, 250 * 600, 5)
    true = 40.0 + number / 250.2  # 800 ppm fast
    arrival = true + 0.01 + random.exponential(0.004, len(true))
    clock = DeviceClock()
    error = []
    for sample, came, at in zip(number, arrival, true, strict=True):
        clock.update(sample / 250, came)
        error.append(clock.to_session(np.array([sample / 250]))[0] - at)
    error = np.array(error)[true > 70]
    assert error.std() < 5e-4
    assert clock.drift == pytest.approx(800, abs=5)


def test_the_residual_is_what_the_times_given_out_did_not_yet_contain():
    clock = DeviceClock()
    assert clock.residual == 0.0
    for number in range(20):
        clock.update(float(number), 100.0 + number)
        clock.to_session(np.array([float(number)]))
    assert clock.residual == pytest.approx(0.0, abs=1e-6)
    for number in range(20, 40):  # everything is 0.3 s early, and nobody asks for times
        clock.update(float(number), 99.7 + number)
    given_out = clock.to_session(np.array([39.0]))[0]
    assert given_out == pytest.approx(138.7, abs=0.02)
    clock.update(40.0, 139.65)
    clock.update(41.0, 140.65)
    assert -0.06 < clock.residual < 0.0


def test_asking_before_the_first_packet_is_refused():
    with pytest.raises(ValueError, match="no packet"):
        DeviceClock().to_session(np.array([1.0]))
    assert np.isnan(DeviceClock().offset)

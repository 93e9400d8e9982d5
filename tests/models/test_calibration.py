"""Resting statistics and calibrated estimates against their definitions."""

from __future__ import annotations

import doctest

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import models.calibration
from models.bundle import BinaryCalibration, ContinuousCalibration, OrdinalCalibration, Target
from models.calibration import calibrated, resting_statistics

AROUSAL = Target(name="arousal", kind="binary", range=(0.0, 1.0), meaning="")
RATING = Target(name="rating", kind="ordinal", range=(1.0, 5.0), levels=(1.0, 2.0, 3.0, 5.0), meaning="")
VALENCE = Target(name="valence", kind="continuous", range=(1.0, 9.0), meaning="")


def estimate(target, logit, calibration):
    mean, sd = calibrated([logit], [target], {target.name: calibration})
    return float(mean[0]), float(sd[0])


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def test_the_examples_in_the_docstrings_hold():
    outcome = doctest.testmod(models.calibration)
    assert outcome.attempted > 2
    assert outcome.failed == 0


def test_without_a_prior_the_statistics_are_the_persons_own():
    x = np.random.default_rng(0).normal(3, 2, (40, 5))
    mean, sd = resting_statistics(x, np.ones(5), prior_windows=0, floor=1e-6)
    np.testing.assert_allclose(mean, x.mean(axis=0))
    np.testing.assert_allclose(sd, x.std(axis=0, ddof=1))


def test_a_prior_of_n_minus_one_windows_weighs_as_much_as_the_person():
    x = np.random.default_rng(1).normal(0, 3, (21, 4))
    sd = resting_statistics(x, np.full(4, 0.5), prior_windows=20, floor=1e-6)[1]
    np.testing.assert_allclose(sd**2, (x.var(axis=0, ddof=1) + 0.25) / 2)


@pytest.mark.parametrize("prior", [0, 5])
def test_one_window_or_a_constant_has_a_spread_above_zero(prior):
    mean, sd = resting_statistics(np.full((1, 3), 7.0), [1.0, 2.0, 4.0], prior_windows=prior, floor=0.1)
    assert mean.tolist() == [7, 7, 7]
    np.testing.assert_allclose(sd, [1, 2, 4])
    sd = resting_statistics(np.full((50, 3), 7.0), [1.0, 2.0, 4.0], prior_windows=0, floor=0.1)[1]
    np.testing.assert_allclose(sd, [0.1, 0.2, 0.4])


@given(st.floats(-1e6, 1e6), st.floats(0.01, 100), st.floats(-10, 10))
def test_a_binary_estimate_is_a_probability(logit, temperature, bias):
    p, sd = estimate(AROUSAL, logit, BinaryCalibration(temperature=temperature, bias=bias, logit_sd=1.0))
    assert 0 <= p <= 1
    assert 0 <= sd <= 0.5
    assert p == pytest.approx(0.5 * (1 + np.tanh(0.5 * (logit / temperature + bias))), abs=1e-12)


@given(st.floats(-1e6, 1e6), st.floats(0.01, 100))
def test_an_ordinal_estimate_is_the_expected_level(logit, temperature):
    fit = OrdinalCalibration(temperature=temperature, thresholds=(-1.0, 0.5, 2.0), logit_sd=1.0)
    mean, sd = estimate(RATING, logit, fit)
    with np.errstate(over="ignore"):
        above = np.array([1.0, *sigmoid(logit / temperature - np.array(fit.thresholds)), 0.0])
    share = above[:-1] - above[1:]
    assert share.min() >= 0
    assert mean == pytest.approx(share @ RATING.levels, abs=1e-9)
    assert 1 <= mean <= 5
    assert 0 <= sd <= 2


def test_an_ordinal_target_of_two_levels_is_a_binary_one():
    two = Target(name="rating", kind="ordinal", range=(0.0, 1.0), levels=(0.0, 1.0), meaning="")
    ordinal = OrdinalCalibration(temperature=2.0, thresholds=(-0.3,), logit_sd=0.7)
    binary = BinaryCalibration(temperature=2.0, bias=0.3, logit_sd=0.7)
    assert estimate(two, 1.1, ordinal) == pytest.approx(estimate(AROUSAL, 1.1, binary))


@given(st.floats(-1e6, 1e6))
def test_a_continuous_estimate_is_a_line_that_ends_with_the_range(logit):
    fit = ContinuousCalibration(slope=1.5, intercept=5.0, sd=0.8)
    assert estimate(VALENCE, logit, fit) == (min(max(5.0 + 1.5 * logit, 1.0), 9.0), 0.8)


def test_the_deviation_is_that_of_logits_that_scatter():
    random = np.random.default_rng(2)
    thresholds = np.array((-1.0, 0.5, 2.0))
    for wide in (0.2, 1.0, 3.0):
        binary = BinaryCalibration(temperature=1.0, bias=0.0, logit_sd=wide)
        ordinal = OrdinalCalibration(temperature=1.0, thresholds=tuple(thresholds), logit_sd=wide)
        for logit in (-2.0, 0.0, 1.0):
            scattered = logit + wide * random.standard_normal(200_000)
            assert estimate(AROUSAL, logit, binary)[1] == pytest.approx(sigmoid(scattered).std(), rel=0.02)
            level = 1.0 + sigmoid(scattered[:, None] - thresholds) @ np.diff(RATING.levels)
            assert estimate(RATING, logit, ordinal)[1] == pytest.approx(level.std(), rel=0.02)


def test_targets_of_different_kinds_stand_side_by_side():
    fits = {
        "arousal": BinaryCalibration(temperature=1.0, bias=0.0, logit_sd=1.0),
        "valence": ContinuousCalibration(slope=2.0, intercept=5.0, sd=0.5),
        "rating": OrdinalCalibration(temperature=1.0, thresholds=(-1.0, 0.0, 1.0), logit_sd=0.0),
    }
    mean, sd = calibrated([0.0, 1.0, 0.0], [AROUSAL, VALENCE, RATING], fits)
    assert mean.tolist() == [0.5, 7.0, pytest.approx(1 + sigmoid(1.0) + 0.5 + 2 * sigmoid(-1.0))]
    assert sd[1:].tolist() == [0.5, pytest.approx(0.0, abs=1e-7)]


def test_a_range_stretches_mean_and_deviation():
    fit = BinaryCalibration(temperature=1.0, bias=0.0, logit_sd=1.0)
    wide = Target(name="arousal", kind="binary", range=(1.0, 9.0), meaning="")
    (p, sd), (stretched, wider) = estimate(AROUSAL, 0.7, fit), estimate(wide, 0.7, fit)
    assert (stretched, wider) == (pytest.approx(1 + 8 * p), pytest.approx(8 * sd))

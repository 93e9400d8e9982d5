"""Resting statistics and probabilities against their definitions."""

from __future__ import annotations

import doctest

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import models.calibration
from models.bundle import Calibration
from models.calibration import on_ranges, probabilities, resting_statistics


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
def test_probabilities_stay_between_zero_and_one(logit, temperature, bias):
    p, sd = probabilities([logit], Calibration(temperature=(temperature,), bias=(bias,), logit_sd=(1.0,)))
    assert 0 <= p[0] <= 1
    assert 0 <= sd[0] <= 0.5
    assert p[0] == pytest.approx(0.5 * (1 + np.tanh(0.5 * (logit / temperature + bias))), abs=1e-12)


def test_the_deviation_is_that_of_logits_that_scatter():
    random = np.random.default_rng(2)
    for wide in (0.2, 1.0, 3.0):
        calibration = Calibration(temperature=(1.0,), bias=(0.0,), logit_sd=(wide,))
        for logit in (-2.0, 0.0, 1.0):
            scattered = 1 / (1 + np.exp(-(logit + wide * random.standard_normal(200_000))))
            assert probabilities([logit], calibration)[1][0] == pytest.approx(scattered.std(), rel=0.02)


def test_a_range_stretches_mean_and_deviation():
    mean, sd = on_ranges(np.array([0.0, 0.5]), np.array([0.1, 0.2]), [(0, 1), (1, 9)])
    np.testing.assert_allclose(mean, [0, 5])
    np.testing.assert_allclose(sd, [0.1, 1.6])

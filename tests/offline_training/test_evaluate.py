"""Figures against scikit-learn, intervals and calibration against what is known beforehand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import special
from sklearn import metrics

from offline_training import evaluate


def sample(seed: int, n: int = 400) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    label = random.integers(2, size=n)
    # Rounded, so that there are ties.
    logit = np.round(random.normal(label - 0.3, 1.5), 1)
    person = np.array([f"{n:02d}" for n in random.integers(12, size=n)])
    return label, logit, person


@settings(deadline=None, max_examples=50)
@given(seed=st.integers(0, 10_000), weighted=st.booleans())
def test_the_figures_are_those_of_scikit_learn(seed, weighted):
    label, logit, _ = sample(seed, 60)
    weight = np.random.default_rng(seed).integers(1, 4, size=60).astype(float) if weighted else None
    decision = logit > 0
    assert evaluate.balanced_accuracy(label, decision, weight) == pytest.approx(
        metrics.balanced_accuracy_score(label, decision, sample_weight=weight)
    )
    assert evaluate.auroc(label, logit, weight) == pytest.approx(
        metrics.roc_auc_score(label, logit, sample_weight=weight)
    )
    assert evaluate.macro_f1(label, decision, weight) == pytest.approx(
        metrics.f1_score(label, decision, average="macro", sample_weight=weight)
    )


def test_a_constant_answer_has_half_balanced_accuracy_and_half_auroc():
    label, logit, person = sample(0)
    scores = evaluate.score(label, np.full_like(logit, 2.0), person, draws=50)
    assert scores.balanced_accuracy.value == scores.auroc.value == 0.5
    assert scores.balanced_accuracy.low == scores.balanced_accuracy.high == 0.5


def test_the_interval_holds_the_value_and_is_wider_when_windows_of_a_person_agree():
    random = np.random.default_rng(3)
    person = np.repeat(np.array([f"{n:02d}" for n in range(20)]), 20)
    label = np.tile(np.repeat([0, 1], 10), 20)
    independent = random.normal(label * 1.0 - 0.5, 1.5)
    shared = label * 1.0 - 0.5 + np.repeat(random.normal(0, 1.5, 40), 10)
    apart = evaluate.score(label, independent, person).balanced_accuracy
    alike = evaluate.score(label, shared, person).balanced_accuracy
    for figure in (apart, alike):
        assert figure.low <= figure.value <= figure.high
    assert alike.high - alike.low > 1.5 * (apart.high - apart.low)


def test_the_intervals_are_the_same_at_every_run():
    assert evaluate.score(*sample(5), draws=100) == evaluate.score(*sample(5), draws=100)


def test_calibration_finds_the_temperature_that_overconfident_log_odds_need():
    random = np.random.default_rng(1)
    true = random.normal(0, 1.5, 20_000)
    label = (random.random(20_000) < special.expit(true)).astype(int)
    person = np.array([f"{n:02d}" for n in range(20)])[np.arange(20_000) % 20]
    fit = evaluate.calibrate(label, 3.0 * true, person)
    assert fit.temperature == pytest.approx(3.0, rel=0.1)
    assert fit.bias == pytest.approx(0.0, abs=0.1)
    before = evaluate.calibration_error(label, special.expit(3.0 * true))
    after = evaluate.nested_calibration_error(label, 3.0 * true, person, np.arange(20_000) % 5)
    assert after < 0.03 < 0.1 < before


def test_the_spread_between_people_is_what_was_put_in():
    random = np.random.default_rng(2)
    person = np.repeat(np.array([f"{n:03d}" for n in range(300)]), 20)
    label = np.tile(np.repeat([0, 1], 10), 300)
    offset = np.repeat(random.normal(0, 0.8, 300), 20)
    logit = (2.0 * label - 1.0) + offset
    fit = evaluate.calibrate(label, logit, person)
    assert fit.logit_sd * fit.temperature == pytest.approx(0.8, rel=0.15)


def test_a_person_with_one_class_only_has_no_figure():
    figures = evaluate.per_person(np.array([0, 1, 0]), np.array([-1.0, 1.0, -1.0]), np.array(["a", "a", "b"]))
    assert figures["a"] == {"balanced_accuracy": 1.0, "auroc": 1.0}
    assert np.isnan(figures["b"]["auroc"])

"""Figures against scikit-learn, intervals and calibration against what is known beforehand."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import special
from sklearn import metrics

from models.bundle import Target
from models.calibration import calibrated
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


def test_resampled_figures_are_those_of_windows_counted_as_often_as_their_person():
    label, logit, person = sample(4)
    _, index = np.unique(person, return_inverse=True)
    times = evaluate.resamples(index, label, 20, 0)
    assert times[0].tolist() == [1] * 12
    found = evaluate.resampled_auroc(index, label, logit, times)
    assert found == pytest.approx([evaluate.auroc(label, logit, row[index].astype(float)) for row in times])
    scores = evaluate.score(label, logit, person, probability=special.expit(logit), draws=20)
    assert scores.balanced_accuracy.value == pytest.approx(evaluate.balanced_accuracy(label, logit > 0))
    assert scores.macro_f1.value == pytest.approx(evaluate.macro_f1(label, logit > 0))
    assert scores.calibration_error.value == pytest.approx(evaluate.calibration_error(label, special.expit(logit)))
    low = np.percentile([evaluate.macro_f1(label, logit > 0, row[index].astype(float)) for row in times[1:]], 2.5)
    assert scores.macro_f1.low == pytest.approx(low)


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
    after = evaluate.calibration_error(
        label, evaluate.nested(AROUSAL, label, label * 1.0, 3.0 * true, person, np.arange(20_000) % 5)[1]
    )
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


# -- what is said of people the model has not seen ---------------------------------------------------------------------

THRESHOLDS = np.array([-2.0, -0.5, 1.5])
RATING = Target(name="rating", kind="ordinal", range=(1.0, 4.0), levels=(1.0, 2.0, 3.0, 4.0), meaning="")
AROUSAL = Target(name="arousal", kind="binary", range=(0.0, 1.0), meaning="")
VALENCE = Target(name="valence", kind="continuous", range=(-20.0, 20.0), meaning="")


def people_with_offsets(seed, people, windows=100, offset=0.7):
    """What is true of each window, (n,), and logits that are off by something of each person's own."""
    random = np.random.default_rng(seed)
    person = np.repeat(np.array([f"{number:03d}" for number in range(people)]), windows)
    true = random.normal(0, 2.0, people * windows)
    return random, person, true, true + np.repeat(random.normal(0, offset, people), windows)


def covered(target, calibration, logit, true):
    """Share of windows whose true value lies within one sd of the estimate."""
    found = [calibrated([value], [target], {target.name: calibration}) for value in logit]
    mean, sd = (np.array([pair[which][0] for pair in found]) for which in (0, 1))
    return float(np.mean(np.abs(mean - true) <= sd))


def test_about_two_thirds_of_new_peoples_probabilities_lie_within_one_sd():
    random, person, true, logit = people_with_offsets(1, 80)
    label = (random.random(len(true)) < special.expit(true)).astype(int)
    fit = evaluate.calibrate(label, 2.0 * logit, person).of_manifest()
    *_, true, logit = people_with_offsets(2, 60)
    share = covered(AROUSAL, fit, 2.0 * logit[::10], special.expit(true[::10]))
    assert share == pytest.approx(0.68, abs=0.08)


def test_about_two_thirds_of_new_peoples_expected_levels_lie_within_one_sd():
    random, person, true, logit = people_with_offsets(3, 80)
    level = (random.random(len(true))[:, None] < special.expit(true[:, None] - THRESHOLDS)).sum(1)
    fit = evaluate.calibrate_ordinal(level, 2.0 * logit, person, 4)
    *_, true, logit = people_with_offsets(4, 60)
    expected = 1.0 + special.expit(true[::10, None] - THRESHOLDS).sum(1)
    assert covered(RATING, fit, 2.0 * logit[::10], expected) == pytest.approx(0.68, abs=0.08)


def test_about_two_thirds_of_new_peoples_values_lie_within_one_sd():
    random, person, true, logit = people_with_offsets(5, 80)
    fit = evaluate.calibrate_continuous(3.0 + true + random.normal(0, 0.5, len(true)), logit / 4.0, person)
    random, _, true, logit = people_with_offsets(6, 60)
    value = 3.0 + true + random.normal(0, 0.5, len(true))
    assert covered(VALENCE, fit, logit[::10] / 4.0, value[::10]) == pytest.approx(0.68, abs=0.05)


def test_ordinal_calibration_finds_the_thresholds_that_were_put_in():
    random, person, true, _ = people_with_offsets(7, 100)
    level = (random.random(len(true))[:, None] < special.expit(true[:, None] - THRESHOLDS)).sum(1)
    fit = evaluate.calibrate_ordinal(level, 3.0 * true, person, 4)
    assert fit.temperature == pytest.approx(3.0, rel=0.06)
    assert fit.thresholds == pytest.approx(THRESHOLDS, abs=0.12)
    assert fit.logit_sd < 0.3


def test_a_level_that_nobody_gave_keeps_the_thresholds_rising_and_a_logit_that_tells_nothing_gives_the_mean():
    random = np.random.default_rng(8)
    level = random.choice([0, 1, 3], 3000, p=[0.5, 0.3, 0.2])
    person = np.array([f"{number:02d}" for number in range(20)])[np.arange(3000) % 20]
    fit = evaluate.calibrate_ordinal(level, random.standard_normal(3000), person, 4)
    assert all(low < high for low, high in pairwise(fit.thresholds))
    mean, _ = calibrated([0.3], [RATING], {"rating": fit})
    assert mean[0] == pytest.approx(1.0 + level.mean(), abs=0.1)


def test_continuous_calibration_finds_the_line_and_everyone_counts_alike():
    random, person, true, _ = people_with_offsets(9, 50)
    value = 2.0 - 0.5 * true + random.normal(0, 0.4, len(true))
    fit = evaluate.calibrate_continuous(value, true, person)
    assert (fit.slope, fit.intercept, fit.sd) == (
        pytest.approx(-0.5, abs=0.01),
        pytest.approx(2.0, abs=0.02),
        pytest.approx(0.4, rel=0.05),
    )
    # One person's windows, many times over, change nothing.
    own = np.flatnonzero(person == "007")
    often = np.concatenate([np.arange(len(person)), *[own] * 50])
    again = evaluate.calibrate_continuous(value[often], true[often], person[often])
    assert (again.slope, again.intercept, again.sd) == pytest.approx((fit.slope, fit.intercept, fit.sd))


def test_a_logit_that_never_changes_is_calibrated_to_the_mean():
    person = np.repeat(np.array(["a", "b"]), 50)
    fit = evaluate.calibrate_continuous(np.tile([1.0, 3.0], 50), np.zeros(100), person)
    assert (fit.slope, fit.intercept, fit.sd) == (0.0, 2.0, 1.0)

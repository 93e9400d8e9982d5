"""The losses against their definitions, and networks trained with them on made-up people whose answer is known."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import special, stats

from models.bundle import Target
from models.fusion import Z_LIMIT
from offline_training.api import TrainingError
from offline_training.finetune import Settings, draw, embed, fit_head, logits, seen_from_rest, train
from offline_training.objectives import Objective, balance
from offline_training.prepare import DEFAULT_SPEC, Prepared, class_of

AROUSAL = Target(name="arousal", kind="binary", range=(0.0, 1.0), meaning="")
RATING = Target(name="rating", kind="ordinal", range=(1.0, 4.0), levels=(1.0, 2.0, 3.0, 4.0), meaning="")
VALENCE = Target(name="valence", kind="continuous", range=(1.0, 9.0), meaning="")
TINY = Settings(layers=1, ffn=40, steps=4, people_per_step=2, baseline_windows=3, class_windows=3)


def test_the_ordinal_loss_is_minus_the_log_of_a_difference_of_sigmoids():
    random = np.random.default_rng(0)
    level = random.integers(4, size=50)
    objective = Objective(RATING, level, level + 1.0)
    edges = np.array([-np.inf, *objective.thresholds().detach().numpy(), np.inf])
    assert (np.diff(edges) > 0).all()
    assert edges[1:-1].mean() == pytest.approx(0.0, abs=1e-6)
    logit = random.normal(0, 2, 50)
    loss = objective(torch.from_numpy(logit), objective.answers(level, level + 1.0)).detach().numpy()
    p = special.expit(edges[level + 1] - logit) - special.expit(edges[level] - logit)
    assert loss == pytest.approx(-np.log(p), rel=1e-5)


@pytest.mark.parametrize("logit", [-1e4, -50.0, 0.0, 50.0, 1e4])
def test_the_ordinal_loss_has_a_finite_value_and_slope_far_out(logit):
    level = np.arange(4)
    objective = Objective(RATING, level, level + 1.0)
    x = torch.full((4,), logit, requires_grad=True)
    loss = objective(x, objective.answers(level, level + 1.0)).sum()
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(x.grad).all()
    assert all(torch.isfinite(one.grad).all() for one in objective.parameters())


def test_an_ordinal_target_of_two_levels_has_the_loss_of_a_binary_one():
    two = Target(name="rating", kind="ordinal", range=(0.0, 1.0), levels=(0.0, 1.0), meaning="")
    label = np.array([0, 1, 1, 0])
    losses = []
    for target in (two, AROUSAL):
        objective = Objective(target, label, label.astype(float))
        losses.append(objective(torch.tensor([0.3, -1.0, 2.0, 0.0]), objective.answers(label, label.astype(float))))
    assert losses[0].tolist() == pytest.approx(losses[1].tolist())


def test_the_continuous_loss_is_the_squared_error_in_deviations_of_the_values():
    value = np.array([2.0, 4.0, 6.0, 8.0])
    objective = Objective(VALENCE, np.zeros(4, np.int64), value)
    loss = objective(torch.zeros(4), objective.answers(np.zeros(4, np.int64), value))
    assert loss.tolist() == pytest.approx(((value - 5) / value.std()) ** 2)
    assert loss.mean() == pytest.approx(1.0)
    with pytest.raises(TrainingError, match="every window to train on has the value 5"):
        Objective(VALENCE, np.zeros(4, np.int64), np.full(4, 5.0))


def test_classes_and_levels_count_alike_however_frequent():
    weight = balance(np.array([0, 0, 0, 2, 2, 5]))
    assert weight.tolist() == pytest.approx([1 / 9, 1 / 9, 1 / 9, 1 / 6, 1 / 6, 1 / 3])


def test_a_value_becomes_a_class_a_level_or_nothing():
    assert [class_of(value, AROUSAL) for value in (0.0, 0.5, 0.6, 1.0)] == [0, 0, 1, 1]
    assert [class_of(value, RATING) for value in (1.0, 2.0, 4.0)] == [0, 1, 3]
    assert class_of(7.3, VALENCE) == 0
    with pytest.raises(TrainingError, match=r"rating: a recording has the value 2\.5"):
        class_of(2.5, RATING)
    with pytest.raises(TrainingError, match="valence: a recording has the value 10"):
        class_of(10.0, VALENCE)


def made_up(target: Target, people: int = 6, windows: int = 60) -> Prepared:
    """People whose alpha falls as the target rises, at rest, too; the heart knows nothing of it."""
    random = np.random.default_rng(5)
    time = np.arange(400) / 200.0
    spec = replace(DEFAULT_SPEC, seconds=2.0)
    baseline = np.tile(np.arange(windows) < 8, people)
    person = np.repeat(np.array([f"{number:02d}" for number in range(people)]), windows)
    low, high = target.range
    value = np.array([random.choice(target.levels or (low, *np.linspace(low, high, 9))) for _ in person])
    if target.kind == "binary":
        value = (value > 0.5 * (low + high)).astype(float)
    alpha = 30.0 - 25.0 * (value - low) / (high - low)
    alpha *= np.repeat(random.uniform(0.8, 1.2, people), windows)
    wave = np.sin(2 * np.pi * (10 * time + random.random((len(person), 1))))
    eeg = 4 * random.standard_normal((len(person), 19, 400)) + (alpha[:, None] * wave)[:, None]
    ecg = 20 * random.standard_normal((len(person), 1, 400))
    ecg += 600 * np.exp(-0.5 * (((1.1 * time + random.random((len(person), 1))) % 1 - 0.5) / 0.015) ** 2)[:, None]
    return Prepared(
        spec=spec,
        target=target,
        signals={"eeg": eeg.astype(np.float32), "ecg": ecg.astype(np.float32)},
        usable=np.ones((len(person), 2), dtype=bool),
        label=np.array([class_of(one, target) for one in value]),
        value=value,
        person=person,
        t_end=np.tile(2.0 + np.arange(windows), people),
        baseline=baseline,
        trained=~baseline,
        scored=~baseline,
        session=np.unique(person, return_inverse=True)[1],
    )


@pytest.mark.parametrize("target", [AROUSAL, RATING, VALENCE], ids=lambda target: target.kind)
def test_a_target_of_any_kind_is_learned_and_told_of_a_person_not_trained_on(target):
    torch.set_num_threads(1)
    prepared = made_up(target)
    trained = train(prepared, np.flatnonzero(prepared.person != "05"), TINY, draw(prepared, TINY, 0))
    rows = np.flatnonzero(prepared.person == "05")
    judged = prepared.scored[rows]
    told, _ = logits(trained, prepared, rows, embed(trained.network, prepared, rows), (True, False))
    assert stats.spearmanr(told[judged], prepared.value[rows][judged]).statistic > 0.75


def test_the_head_of_a_continuous_target_is_the_ridge_regression_of_the_textbook():
    prepared = made_up(VALENCE)
    settings = replace(TINY, steps=0, single_kind=0.0, head_penalty=0.01)
    rows = np.arange(len(prepared.label))
    start = draw(prepared, settings, 0)
    trained = train(prepared, rows, replace(settings, single_kind=0.5), start)
    mean, spread, allowed = seen_from_rest(trained, start.embedding, prepared, rows)
    z = ((start.embedding - mean) / spread).clip(-Z_LIMIT, Z_LIMIT)[prepared.trained]
    value, label = prepared.value[prepared.trained], prepared.label[prepared.trained]
    objective = Objective(VALENCE, label, value)
    # All shares but a trace on windows shown whole: a plain ridge regression.
    whole = replace(settings, single_kind=1e-9)
    fit_head(trained.network, objective, z, label, value, allowed[prepared.trained], whole)
    y, centred = (value - value.mean()) / value.std(), z - z.mean(0)
    ridge = np.linalg.solve(centred.T @ centred / len(z) + 0.01 * np.eye(z.shape[1]), centred.T @ y / len(z))
    linear = trained.network.head[-1]
    got = z @ linear.weight[0].detach().numpy() + linear.bias[0].item()
    assert got == pytest.approx(z @ ridge - z.mean(0) @ ridge, abs=0.02)

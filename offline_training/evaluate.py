"""How good a classifier is on people it was not trained on: figures with intervals over people, calibration."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import optimize, special, stats

from models.bundle import BinaryCalibration, Calibration, ContinuousCalibration, OrdinalCalibration, Target
from offline_training.api import TrainingError

PARTS = 10
"""Of 0..1, in which what is stated is compared with what is so."""
THRESHOLD = 0.0
"""Log odds; fixed beforehand, never fitted."""


@dataclass(frozen=True, slots=True)
class Figure:
    """A measured value and its 95 % interval over people."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"


@dataclass(frozen=True, slots=True)
class Scores:
    """Of a target with more than two classes the first four are of the upper half of its range against the lower."""

    balanced_accuracy: Figure
    auroc: Figure
    macro_f1: Figure
    windows: int
    people: int
    calibration_error: Figure | None = None
    """Expected, of probabilities calibrated on the other folds."""
    rank_correlation: Figure | None = None
    """Spearman's, between values and estimates of one person, the mean of the people whose values differ."""
    absolute_error: Figure | None = None
    """Mean, on the target's own range, everyone counting alike."""

    def to_json(self) -> dict[str, object]:
        return asdict(self)


def balanced_accuracy(
    label: NDArray[np.int64], decision: NDArray[np.bool_], weight: NDArray[np.float64] | None = None
) -> float:
    """Mean of sensitivity and specificity; ``weight`` (n,) counts each window so often."""
    w = np.ones(len(label)) if weight is None else weight
    one, zero = label == 1, label == 0
    return float(0.5 * (w[one & decision].sum() / w[one].sum() + w[zero & ~decision].sum() / w[zero].sum()))


def macro_f1(label: NDArray[np.int64], decision: NDArray[np.bool_], weight: NDArray[np.float64] | None = None) -> float:
    """Unweighted mean of the F1 of both classes; a class neither present nor claimed counts as 0."""
    w = np.ones(len(label)) if weight is None else weight
    one = label == 1
    total = 0.0
    for truth, claim in ((one, decision), (~one, ~decision)):
        claimed = w[truth].sum() + w[claim].sum()
        total += 2.0 * w[truth & claim].sum() / claimed if claimed > 0 else 0.0
    return float(0.5 * total)


def auroc(label: NDArray[np.int64], logit: NDArray[np.float64], weight: NDArray[np.float64] | None = None) -> float:
    """Chance that a window of class 1 has the higher value than one of class 0; ties count half."""
    w = np.ones(len(label)) if weight is None else weight
    _, level = np.unique(logit, return_inverse=True)
    ones = np.bincount(level, w * (label == 1))
    zeros = np.bincount(level, w * (label == 0))
    below = np.cumsum(zeros) - zeros
    return float((ones * (below + 0.5 * zeros)).sum() / (ones.sum() * zeros.sum()))


def score(
    label: NDArray[np.int64],
    logit: NDArray[np.float64],
    person: NDArray[np.str_],
    *,
    probability: NDArray[np.float64] | None = None,
    value: NDArray[np.float64] | None = None,
    expected: NDArray[np.float64] | None = None,
    draws: int = 2000,
    seed: int = 0,
) -> Scores:
    """The figures over windows (n,), each with a 95 % percentile interval over ``draws`` resamples of people.

    ``label`` is 0 or 1 and ``logit`` is compared with `THRESHOLD`. With calibrated probabilities of class 1 there is a
    calibration error, with values and what was ``expected`` of them rank correlation and absolute error.
    """
    if len(set(label.tolist())) < 2:
        raise TrainingError("every window to be scored is of one class; nothing can be told apart.")
    people, index = np.unique(person, return_inverse=True)
    times = resamples(index, label, draws, seed)
    decision = logit > THRESHOLD
    counts = _per_person(index, (label == 1) & decision, (label == 1) & ~decision, (label == 0) & decision, label == 0)
    found, missed, wrong, zeros = (times @ counts).T
    f1 = [2.0 * hit / np.maximum(2.0 * hit + missed + wrong, 1.0) for hit in (found, zeros - wrong)]
    drawn = {
        "balanced_accuracy": 0.5 * (found / (found + missed) + 1.0 - wrong / zeros),
        "auroc": resampled_auroc(index, label, logit, times),
        "macro_f1": 0.5 * (f1[0] + f1[1]),
    }
    if probability is not None:
        drawn["calibration_error"] = _resampled_calibration_error(index, label, probability, times)
    if value is not None and expected is not None:
        own = np.array([rank_correlation(value[index == who], expected[index == who]) for who in range(len(people))])
        known = np.isfinite(own)
        if known.any():
            weight = times[:, known]
            drawn["rank_correlation"] = weight @ own[known] / np.maximum(weight.sum(1), 1)
        error = np.bincount(index, np.abs(value - expected)) / np.bincount(index)
        drawn["absolute_error"] = times @ error / times.sum(1)
    figures = {name: interval(values) for name, values in drawn.items()}
    return Scores(**figures, windows=len(label), people=len(people))


def resamples(index: NDArray[np.intp], label: NDArray[np.int64], draws: int, seed: int) -> NDArray[np.int64]:
    """(1 + draws, people) how often everyone is drawn: first everyone once, then resamples that have both classes.

    ``index`` (n,) is the number of each window's person.
    """
    count = int(index.max()) + 1
    has = _per_person(index, label == 0, label == 1)
    random = np.random.default_rng(seed)
    rows = [np.ones(count, np.int64)]
    while len(rows) <= draws:
        times = np.bincount(random.integers(count, size=count), minlength=count)
        if (times @ has > 0).all():
            rows.append(times)
    return np.array(rows)


def interval(values: NDArray[np.float64]) -> Figure:
    """The first of values (1 + draws,), and where 95 % of the others lie."""
    low, high = np.percentile(values[1:], [2.5, 97.5])
    return Figure(float(values[0]), float(low), float(high))


def resampled_auroc(
    index: NDArray[np.intp], label: NDArray[np.int64], logit: NDArray[np.float64], times: NDArray[np.int64]
) -> NDArray[np.float64]:
    """`auroc` (draws,) with every person counted as often as ``times`` (draws, people) says."""
    one = label == 1
    above = np.empty((times.shape[1], times.shape[1]))
    for who in range(times.shape[1]):
        others = np.sort(logit[~one & (index == who)])
        wins = 0.5 * sum(np.searchsorted(others, logit[one], side) for side in ("left", "right"))
        above[:, who] = np.bincount(index[one], wins, times.shape[1])
    ones, zeros = (times @ _per_person(index, one, ~one)).T
    return np.asarray(np.einsum("dp,pq,dq->d", times, above, times, optimize=True) / (ones * zeros))


def _per_person(index: NDArray[np.intp], *which: NDArray[np.bool_]) -> NDArray[np.float64]:
    """(people, which) how many windows of each person are so."""
    return np.stack([np.bincount(index, one, int(index.max()) + 1) for one in which], axis=1)


def _resampled_calibration_error(
    index: NDArray[np.intp], label: NDArray[np.int64], probability: NDArray[np.float64], times: NDArray[np.int64]
) -> NDArray[np.float64]:
    """`calibration_error` (draws,) with every person counted as often as ``times`` (draws, people) says."""
    off = np.zeros((len(times), PARTS))
    part = _part_of(probability)
    for which in (0, 1):
        own = label == which
        cells = np.zeros((times.shape[1], PARTS))
        np.add.at(cells, (index[own], part[own]), probability[own] - which)
        off += 0.5 * (times @ cells) / (times @ _per_person(index, own))
    return np.asarray(np.abs(off).sum(1))


def rank_correlation(value: NDArray[np.float64], expected: NDArray[np.float64]) -> float:
    """Spearman's of two (n,); NaN when one of them never changes."""
    if len(set(value.tolist())) < 2 or len(set(expected.tolist())) < 2:
        return math.nan
    return float(stats.spearmanr(value, expected).statistic)


@dataclass(frozen=True, slots=True)
class Fit:
    """Calibration of raw log odds: probability = sigmoid(logit / temperature + bias)."""

    temperature: float
    bias: float
    logit_sd: float
    """Spread between people of a person's mean calibrated log odds around their class's mean."""

    def __call__(self, logit: NDArray[np.float64]) -> NDArray[np.float64]:
        return logit / self.temperature + self.bias

    def of_manifest(self) -> BinaryCalibration:
        return BinaryCalibration(temperature=self.temperature, bias=self.bias, logit_sd=self.logit_sd)


def class_weights(label: NDArray[np.int64]) -> NDArray[np.float64]:
    """(n,) weights that give both classes the same sum, with mean 1."""
    share = np.array([np.mean(label == 0), np.mean(label == 1)])
    return np.asarray(0.5 / share[label], dtype=np.float64)


def calibrate(label: NDArray[np.int64], logit: NDArray[np.float64], person: NDArray[np.str_]) -> Fit:
    """Temperature and bias by class-balanced maximum likelihood on log odds (n,) of people not trained on."""
    weight = class_weights(label)

    def loss(parameters: NDArray[np.float64]) -> float:
        value = logit * np.exp(-parameters[0]) + parameters[1]
        # A weak prior on the bias: with few people it must not learn who they were.
        return float(np.mean(weight * (np.logaddexp(0.0, value) - label * value)) + 0.01 * parameters[1] ** 2)

    found = optimize.minimize(loss, np.zeros(2), method="Nelder-Mead", options={"xatol": 1e-5, "fatol": 1e-9})
    temperature, bias = float(np.exp(np.clip(found.x[0], -3.0, 3.0))), float(found.x[1])
    value = logit / temperature + bias
    return Fit(temperature, bias, scatter(value, label, person))


def scatter(value: NDArray[np.float64], label: NDArray[np.int64], person: NDArray[np.str_]) -> float:
    """Standard deviation between people of a person's mean calibrated logit around its class's or level's mean."""
    offsets = []
    for which in np.unique(label):
        means = [
            value[(person == who) & (label == which)].mean() for who in sorted(set(person[label == which].tolist()))
        ]
        offsets.append(np.var(means, ddof=1) if len(means) > 1 else 0.0)
    return float(np.sqrt(np.mean(offsets)))


def everyone_alike(person: NDArray[np.str_]) -> NDArray[np.float64]:
    """(n,) weights that give every person the same sum, all together 1."""
    _, index, count = np.unique(person, return_inverse=True, return_counts=True)
    return np.asarray(1.0 / (len(count) * count[index]), dtype=np.float64)


def calibrate_ordinal(
    level: NDArray[np.int64], logit: NDArray[np.float64], person: NDArray[np.str_], levels: int
) -> OrdinalCalibration:
    """Temperature and thresholds by maximum likelihood on logits (n,) of people not trained on, each counting alike.

    ``level`` (n,) counts from 0. Levels are as frequent as in these people; of a level that nobody gave only a weak
    prior knows the width.
    """
    weight = everyone_alike(person)
    spread = max(float(np.std(logit)), 1e-9)

    def unpack(parameters: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        steps = np.exp(np.clip(parameters[2:], -5.0, 3.0))
        return float(np.exp(np.clip(parameters[0], -5.0, 5.0)) / spread), parameters[1] + np.concatenate(
            [[0.0], np.cumsum(steps)]
        )

    def loss(parameters: NDArray[np.float64]) -> float:
        slope, thresholds = unpack(parameters)
        above = special.expit(slope * logit[:, None] - thresholds)
        edges = np.concatenate([np.ones((len(logit), 1)), above, np.zeros((len(logit), 1))], axis=1)
        rows = np.arange(len(level))
        p = edges[rows, level] - edges[rows, level + 1]
        prior = 0.001 * float(np.square(parameters[2:]).sum())
        return float(-(weight * np.log(np.maximum(p, 1e-12))).sum()) + prior

    # Where the shares of the levels say, as if the logit told nothing.
    share = np.cumsum([weight[level == one].sum() for one in range(levels)])[:-1].clip(0.02, 0.98)
    edges = special.logit(share)
    start = np.concatenate([[0.0, edges[0]], np.log(np.maximum(np.diff(edges), 0.05))])
    found = optimize.minimize(loss, start, method="L-BFGS-B")
    slope, thresholds = unpack(found.x)
    return OrdinalCalibration(
        temperature=1.0 / slope,
        thresholds=tuple(float(value) for value in thresholds),
        logit_sd=scatter(slope * logit, level, person),
    )


def calibrate_continuous(
    value: NDArray[np.float64], logit: NDArray[np.float64], person: NDArray[np.str_]
) -> ContinuousCalibration:
    """Line and scatter by least squares on logits (n,) of people not trained on, everyone counting alike."""
    weight = everyone_alike(person)
    centre, middle = weight @ logit, weight @ value
    variance = weight @ np.square(logit - centre)
    slope = float(weight @ ((logit - centre) * (value - middle)) / variance) if variance > 0 else 0.0
    intercept = float(middle - slope * centre)
    off = value - (slope * logit + intercept)
    return ContinuousCalibration(slope=slope, intercept=intercept, sd=float(np.sqrt(weight @ np.square(off))))


def fit(
    target: Target,
    label: NDArray[np.int64],
    value: NDArray[np.float64],
    logit: NDArray[np.float64],
    person: NDArray[np.str_],
) -> Calibration:
    """The calibration of a target of any kind, from raw logits (n,) of people not trained on.

    ``label`` are classes or levels, ``value`` what was told. Raises TrainingError when all are of one class.
    """
    if target.kind == "continuous":
        return calibrate_continuous(value, logit, person)
    if len(set(label.tolist())) < 2:
        raise TrainingError(f"{target.name}: people to calibrate on are all of one class; there are too few.")
    if target.kind == "ordinal":
        return calibrate_ordinal(label, logit, person, len(target.levels))
    return calibrate(label, logit, person).of_manifest()


def estimate(
    target: Target, calibration: Calibration, logit: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """What a bundle says of raw logits (n,), on the target's range, and how probable the upper half of it is."""
    low, high = target.range
    middle = 0.5 * (low + high)
    if isinstance(calibration, BinaryCalibration):
        upper = special.expit(logit / calibration.temperature + calibration.bias)
        return low + (high - low) * upper, upper
    if isinstance(calibration, OrdinalCalibration):
        above = special.expit(logit[:, None] / calibration.temperature - np.array(calibration.thresholds))
        upper = above[:, sum(level <= middle for level in target.levels) - 1]
        return np.asarray(target.levels[0] + above @ np.diff(target.levels)), upper
    line = calibration.slope * logit + calibration.intercept
    return line.clip(low, high), special.ndtr((line - middle) / max(calibration.sd, 1e-9))


def nested(
    target: Target,
    label: NDArray[np.int64],
    value: NDArray[np.float64],
    logit: NDArray[np.float64],
    person: NDArray[np.str_],
    fold: NDArray[np.int64],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """`estimate` where each fold is calibrated on the raw logits (n,) of the other folds. ``fold`` is (n,)."""
    expected, upper = np.empty(len(label)), np.empty(len(label))
    for number in np.unique(fold):
        other, own = fold != number, fold == number
        found = fit(target, label[other], value[other], logit[other], person[other])
        expected[own], upper[own] = estimate(target, found, logit[own])
    return expected, upper


def calibration_error(label: NDArray[np.int64], probability: NDArray[np.float64]) -> float:
    """Expected calibration error, class-balanced, over `PARTS` equal parts of 0..1."""
    off = class_weights(label) * (probability - label)
    return float(np.abs(np.bincount(_part_of(probability), off, PARTS)).sum() / len(label))


def _part_of(probability: NDArray[np.float64]) -> NDArray[np.intp]:
    return np.minimum((probability * PARTS).astype(np.intp), PARTS - 1)


def per_person(
    label: NDArray[np.int64], logit: NDArray[np.float64], person: NDArray[np.str_]
) -> dict[str, dict[str, float]]:
    """Balanced accuracy and AUROC of each person, NaN where one has only one class."""
    rows = {}
    for who in sorted(set(person.tolist())):
        own = person == who
        both = len(set(label[own].tolist())) == 2
        rows[who] = {
            "balanced_accuracy": balanced_accuracy(label[own], logit[own] > THRESHOLD) if both else float("nan"),
            "auroc": auroc(label[own], logit[own]) if both else float("nan"),
        }
    return rows


COLUMNS = (
    ("balanced accuracy", "balanced_accuracy"),
    ("AUROC", "auroc"),
    ("macro F1", "macro_f1"),
    ("calibration error", "calibration_error"),
    ("rank correlation", "rank_correlation"),
    ("absolute error", "absolute_error"),
)
"""What a table calls the figures of `Scores`."""


def table(rows: Mapping[str, Scores]) -> str:
    """The rows as text, one line each, figures with their 95 % intervals over people."""
    columns = [(name, key) for name, key in COLUMNS if any(getattr(row, key) is not None for row in rows.values())]
    width = max(len(name) for name in rows)
    lines = ["  ".join([" " * width, *(f"{name:22}" for name, _ in columns), "people", "windows"])]
    for name, row in rows.items():
        figures = [f"{str(found) if (found := getattr(row, key)) is not None else '':22}" for _, key in columns]
        lines.append("  ".join([f"{name:{width}}", *figures, f"{row.people:6}", f"{row.windows:7}"]))
    return "\n".join(lines)

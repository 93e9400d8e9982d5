"""Cross-validation by person: log odds of every window from a network that has not seen its person.

Everything is fitted inside a fold. Where settings are to be chosen the choice is nested: in each fold by another
cross-validation over the people trained on. Beside the network stand, on the same folds, what it has to be better than.
What a fold has found is kept as soon as it is there, so that an interruption costs a part of a fold.
"""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import json
import math
import time
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import special

import models
from models.bundle import BinaryCalibration, Calibration, DistanceLimit, Target
from models.distance import limits_of
from models.fusion import FusionConfig, FusionModel
from offline_training import baselines, evaluate
from offline_training.api import TrainingError
from offline_training.early_fusion import EarlyFusion, silenced
from offline_training.finetune import (
    Settings,
    Start,
    Trained,
    distances,
    draw,
    embed,
    logits,
    references,
    seen_from_rest,
    train,
)
from offline_training.prepare import KINDS, Prepared
from offline_training.splits import Fold, grouped_folds
from offline_training.weights import Weights

USES = {"eeg+ecg": (True, True), "eeg": (True, False), "ecg": (False, True)}
ROWS = {"eeg+ecg": "fused", "eeg": "EEG only", "ecg": "ECG only"}
COMPARED = {
    "random": "the same network with encoders left as drawn",
    "frozen": "the same network with pre-trained encoders left as they came",
    "shuffled": "the same network trained on labels shuffled within each person",
    "early": "one encoder that sees the ECG as one more channel",
    "classical": "band power and heart rate in a linear model; also on shuffled labels",
    "riemannian": "the tangent space of EEG covariances in a linear model",
    "majority": "the more frequent class",
}
"""What can stand beside the network in a table."""
BANDS = ("delta", "theta", "alpha", "beta", "gamma")
REPEATS = 5
"""Times that a group of features is shuffled."""
MOST_COMBINATIONS = 64
INNER = 4
"""Folds in which settings are chosen, at most."""


Arrays = dict[str, NDArray[Any]]
"""By name, of the kind that the name has."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How networks are trained in every fold, and what is compared with them."""

    settings: Settings = field(default_factory=Settings)
    grid: Mapping[str, tuple[float | int | bool, ...]] = field(default_factory=dict)
    """Fields of the settings that are chosen, and from what; the first of each is taken when nothing is better."""
    seed: int = 0
    weights: Mapping[str, Weights] = field(default_factory=dict)
    """kind -> what its encoder begins with; ``settings`` are `offline_training.weights.fitted` to them."""
    compared: tuple[str, ...] = tuple(COMPARED)

    def __post_init__(self) -> None:
        unknown = [name for name in self.compared if name not in COMPARED]
        if unknown:
            raise TrainingError(f"{unknown[0]!r:.40} cannot be compared; there are {', '.join(COMPARED)}.")
        if math.prod(len(values) for values in self.grid.values()) > MOST_COMBINATIONS:
            raise TrainingError(f"the settings make more than {MOST_COMBINATIONS} combinations; choose among fewer.")

    @property
    def combinations(self) -> list[Settings]:
        """What is chosen from; one where nothing is."""
        return [
            dataclasses.replace(self.settings, **dict(zip(self.grid, values, strict=True)))  # type: ignore[arg-type]
            for values in itertools.product(*self.grid.values())
        ]


@dataclass(frozen=True, slots=True, eq=False)
class Outcome:
    """Raw out-of-fold figures on the n scored windows, by row of the table."""

    target: Target
    label: NDArray[np.int64]
    value: NDArray[np.float64]
    person: NDArray[np.str_]
    t_end: NDArray[np.float64]
    fold: NDArray[np.int64]
    raw: dict[str, NDArray[np.float64]]
    """row -> (n,): log odds, or whatever a calibration makes values of."""
    exact: dict[str, NDArray[np.bool_]]
    """For rows of the network: whether the window was good enough for all the kinds that the row asks for."""
    distance: dict[str, NDArray[np.float64]]
    """kind -> (n, 2), how far from the windows trained on, plain and seen from rest; NaN where it is not usable."""
    moved: dict[str, NDArray[np.float64]]
    """group of features -> (n, repeats): the fused raw figure when the group is of another window of the person."""
    chosen: list[dict[str, object]]
    """Of each fold, where settings were chosen: which, and how good every combination was in the inner folds."""

    def save(self, path: Path) -> None:
        arrays: Arrays = {name: getattr(self, name) for name in ("label", "value", "person", "t_end", "fold")}
        for part in ("raw", "exact", "distance", "moved"):
            arrays |= {f"{part}: {name}": value for name, value in getattr(self, part).items()}
        arrays["chosen"] = np.array(json.dumps(self.chosen))
        _store(path, arrays)

    @classmethod
    def load(cls, path: Path, target: Target) -> Self:
        """Raises TrainingError when it is not there or damaged."""
        arrays = _stored(path)
        if arrays is None:
            raise TrainingError(f"{path}: is missing or damaged; run `insula evaluate` again.")
        try:
            return cls(
                target,
                label=arrays["label"],
                value=arrays["value"],
                person=arrays["person"],
                t_end=arrays["t_end"],
                fold=arrays["fold"],
                raw=_part(arrays, "raw"),
                exact=_part(arrays, "exact"),
                distance=_part(arrays, "distance"),
                moved=_part(arrays, "moved"),
                chosen=json.loads(str(arrays["chosen"])),
            )
        except (KeyError, ValueError) as error:
            raise TrainingError(f"{path}: is damaged ({error!s:.60}); run `insula evaluate` again.") from None


def cross_validate(
    prepared: Prepared,
    folds: Sequence[Fold],
    plan: Plan,
    kept: Path | None = None,
    told: Callable[[str], None] = lambda _: None,
) -> Outcome:
    """Raw figures of every scored window of the people in ``folds`` by networks that did not see its person.

    Each network is trained once and forgotten. With ``kept`` what a fold has found survives an interruption; the folder
    has to be this plan's and these windows' own (`key`).
    """
    work = _Work(prepared, plan)
    scored = np.flatnonzero(prepared.scored)
    place = np.full(len(prepared.scored), -1)
    place[scored] = np.arange(len(scored))
    found: Arrays = {}
    number_of = np.full(len(scored), -1)
    chosen: list[dict[str, object]] = []
    for number, fold in enumerate(folds):
        began = time.perf_counter()
        where = None if kept is None else kept / f"fold{number}"
        settings, tried = work.choose(fold.train, None if where is None else where / "choice")
        if tried:
            chosen.append({"fold": number, "settings": _grid_of(settings, plan), "tried": tried})
        train_rows, test_rows = fold.rows(prepared.person)
        test = test_rows[prepared.scored[test_rows]]
        number_of[place[test]] = number
        for piece, compute in work.pieces(settings, train_rows, test_rows, number):
            path = None if where is None else where / f"{piece}.npz"
            arrays = None if path is None else _stored(path)
            if arrays is None:
                arrays = compute()
                if path is not None:
                    _store(path, arrays)
            for name, value in arrays.items():
                if name not in found:
                    found[name] = np.zeros((len(scored), *value.shape[1:]), value.dtype)
                found[name][place[test]] = value
        told(f"fold {number + 1} of {len(folds)}: {', '.join(fold.test)} ({time.perf_counter() - began:.0f} s)")
    tested = number_of >= 0
    found = {name: value[tested] for name, value in found.items()}
    rows = scored[tested]
    return Outcome(
        prepared.target,
        prepared.label[rows],
        prepared.value[rows],
        prepared.person[rows],
        prepared.t_end[rows],
        number_of[tested],
        raw=_part(found, "raw"),
        exact=_part(found, "exact"),
        distance=_part(found, "distance"),
        moved=_part(found, "moved"),
        chosen=chosen,
    )


def _part(arrays: Arrays, part: str) -> Arrays:
    return {name[len(part) + 2 :]: value for name, value in arrays.items() if name.startswith(f"{part}: ")}


def choose(
    prepared: Prepared, people: Sequence[str], plan: Plan, kept: Path | None = None
) -> tuple[Settings, list[dict[str, object]]]:
    """The settings to train on ``people`` with, chosen by folds among them, and how good each combination was.

    The second is empty where there is nothing to choose.
    """
    return _Work(prepared, plan).choose(people, kept)


Piece = Callable[[], Arrays]


class _Work:
    """What folds have in common."""

    def __init__(self, prepared: Prepared, plan: Plan) -> None:
        self.prepared, self.plan = prepared, plan
        self._starts: dict[str, Start] = {}
        self._kept: dict[str, object] = {}

    def start(
        self, settings: Settings, *, weights: bool = True, made: Callable[[FusionConfig], FusionModel] = FusionModel
    ) -> Start:
        """The network that training begins with: the same for every fold."""
        key = repr((settings.network(1, 1, 10, 200), weights, made))
        if key not in self._starts:
            # An encoder that sees all channels begins with the weights of EEG; that of ECG has no place in it.
            kinds = KINDS if made is FusionModel else ("eeg",)
            states = {kind: self.plan.weights[kind].state for kind in kinds if weights and kind in self.plan.weights}
            prepared = self.prepared if made is FusionModel else self.silenced()
            self._starts[key] = draw(prepared, settings, self.plan.seed, states, made)
        return self._starts[key]

    def silenced(self) -> Prepared:
        found = self._once("silenced", lambda: silenced(self.prepared))
        assert isinstance(found, Prepared)
        return found

    def _once(self, name: str, compute: Callable[[], object]) -> object:
        if name not in self._kept:
            self._kept[name] = compute()
        return self._kept[name]

    def choose(self, people: Sequence[str], kept: Path | None) -> tuple[Settings, list[dict[str, object]]]:
        plan, prepared = self.plan, self.prepared
        combinations = plan.combinations
        if len(combinations) == 1:
            return combinations[0], []
        inner = grouped_folds(people, min(INNER, len(people)), plan.seed)
        tried: list[dict[str, object]] = []
        best, most = combinations[0], (-math.inf, -math.inf)
        aside = tuple(sorted(set(prepared.people) - set(people)))
        for number, settings in enumerate(combinations):
            path = None if kept is None else kept / f"{number}.npz"
            arrays = None if path is None else _stored(path)
            if arrays is None:
                raw, rows = [], []
                for fold in inner:
                    sides = dataclasses.replace(fold, aside=aside).rows(prepared.person)
                    trained = train(prepared, sides[0], settings, self.start(settings))
                    embedding = embed(trained.network, prepared, sides[1])
                    wanted = prepared.scored[sides[1]]
                    raw.append(logits(trained, prepared, sides[1], embedding, (True, True))[0][wanted])
                    rows.append(sides[1][wanted])
                arrays = {"figures": np.array(_good(prepared, np.concatenate(rows), np.concatenate(raw)))}
                if path is not None:
                    _store(path, arrays)
            figures = (float(arrays["figures"][0]), float(arrays["figures"][1]))
            tried.append({**_grid_of(settings, plan), CHOSEN_BY[prepared.target.kind]: round(figures[0], 6)})
            if figures > most:
                best, most = settings, figures
        return best, tried

    def pieces(
        self, settings: Settings, train_rows: NDArray[np.intp], test_rows: NDArray[np.intp], number: int
    ) -> list[tuple[str, Piece]]:
        """What a fold finds, each by itself; every array is over its scored windows."""
        prepared, plan = self.prepared, self.plan
        wanted = prepared.scored[test_rows]
        untouched = dataclasses.replace(settings, steps=0)

        def network() -> Arrays:
            trained = train(prepared, train_rows, settings, self.start(settings))
            embedding = embed(trained.network, prepared, test_rows)
            seen = embed(trained.network, prepared, train_rows)
            far = distances(trained, references(trained, prepared, train_rows, seen), prepared, test_rows, embedding)
            found: Arrays = {f"distance: {kind}": both[wanted] for kind, both in far.items()}
            for name, use in USES.items():
                value, used = logits(trained, prepared, test_rows, embedding, use)
                found[f"raw: {ROWS[name]}"] = value[wanted]
                found[f"exact: {ROWS[name]}"] = (used == np.array(use)).all(1)[wanted]
            random = np.random.default_rng((plan.seed, number))
            return found | shuffled_groups(trained, prepared, test_rows, embedding, random)

        def left_alone(prefix: str, weights: bool) -> Piece:
            def compute() -> Arrays:
                trained = train(prepared, train_rows, untouched, self.start(settings, weights=weights))
                embedding = embed(trained.network, prepared, test_rows)
                return {
                    f"raw: {prefix}, {ROWS[name]}": logits(trained, prepared, test_rows, embedding, use)[0][wanted]
                    for name, use in USES.items()
                }

            return compute

        def on_shuffled() -> Arrays:
            other = shuffle_labels(prepared, train_rows, plan.seed)
            trained = train(other, train_rows, settings, self.start(settings))
            embedding = embed(trained.network, prepared, test_rows)
            value, _ = logits(trained, prepared, test_rows, embedding, (True, True))
            return {"raw: shuffled labels, fused": value[wanted]}

        def early() -> Arrays:
            # Neither kind can be missing, so that nothing is gained by showing windows without one.
            together = dataclasses.replace(settings, single_kind=0.0)
            start = self.start(together, made=EarlyFusion)
            trained = train(self.silenced(), train_rows, together, start)
            embedding = embed(trained.network, self.silenced(), test_rows)
            value, _ = logits(trained, self.silenced(), test_rows, embedding, (True, True))
            return {"raw: early fusion": value[wanted]}

        def classical() -> Arrays:
            features = self._once("classical", lambda: baselines.classical_features(prepared))
            assert isinstance(features, dict)
            return _raw(baselines.classical(prepared, features, train_rows, test_rows, plan.seed))

        def riemannian() -> Arrays:
            covariance = self._once("covariance", lambda: baselines.covariances(prepared.signals["eeg"]))
            assert isinstance(covariance, np.ndarray)
            return _raw(baselines.riemannian(prepared, covariance, train_rows, test_rows))

        def majority() -> Arrays:
            return _raw(baselines.majority(prepared, train_rows, test_rows))

        there: dict[str, Piece] = {"network": network}
        if settings.steps or plan.weights:
            there["random"] = left_alone("random encoders", weights=False)
        if settings.steps and plan.weights:
            there["frozen"] = left_alone("pre-trained encoders as they came", weights=True)
        there |= {
            "early": early,
            "shuffled": on_shuffled,
            "classical": classical,
            "riemannian": riemannian,
            "majority": majority,
        }
        return [(name, compute) for name, compute in there.items() if name in ("network", *plan.compared)]


CHOSEN_BY = {
    "binary": "balanced_accuracy",
    "ordinal": "rank_correlation",
    "continuous": "rank_correlation",
}
"""Of the fused network in the inner folds; of two alike, the one with the higher AUROC."""


def _good(prepared: Prepared, rows: NDArray[np.intp], raw: NDArray[np.float64]) -> tuple[float, float]:
    if prepared.target.kind == "binary":
        label = prepared.label[rows]
        return evaluate.balanced_accuracy(label, raw > evaluate.THRESHOLD), evaluate.auroc(label, raw)
    person, value = prepared.person[rows], prepared.value[rows]
    found = [evaluate.rank_correlation(value[person == who], raw[person == who]) for who in np.unique(person)]
    known = [one for one in found if math.isfinite(one)]
    return (float(np.mean(known)) if known else 0.0), 0.0


def _grid_of(settings: Settings, plan: Plan) -> dict[str, object]:
    return {name: getattr(settings, name) for name in plan.grid}


def _raw(rows: Mapping[str, NDArray[np.float64]]) -> Arrays:
    return {f"raw: {name}": value for name, value in rows.items()}


def shuffle_labels(prepared: Prepared, rows: NDArray[np.intp], seed: int) -> Prepared:
    """The same windows with the labels of those to train on among ``rows`` shuffled within each person."""
    random = np.random.default_rng(seed)
    label, value = prepared.label.copy(), prepared.value.copy()
    for who in sorted(set(prepared.person[rows].tolist())):
        own = rows[(prepared.person[rows] == who) & prepared.trained[rows]]
        mixed = random.permutation(own)
        label[own], value[own] = prepared.label[mixed], prepared.value[mixed]
    return dataclasses.replace(prepared, label=label, value=value)


def feature_groups(config: FusionConfig) -> dict[str, slice]:
    """Groups of features -> where they stand in the embedding (D,)."""
    width, eeg, total = config.eeg.width, config.eeg_dim, config.embedding_dim
    found = {"EEG embedding": slice(0, width)}
    if config.band_power:
        found |= {f"{name} power": slice(width + number, eeg, len(BANDS)) for number, name in enumerate(BANDS)}
    at = eeg + config.ecg.width
    found["ECG embedding"] = slice(eeg, at)
    if config.heart:
        found |= {"heart rate": slice(at, at + 1), "heart rhythm": slice(at + 1, at + 1 + config.heart_features)}
    if config.variability:
        found["RMSSD"] = slice(total - 1, total)
    return found


@torch.no_grad()
def shuffled_groups(
    trained: Trained,
    prepared: Prepared,
    rows: NDArray[np.intp],
    embedding: NDArray[np.float32],
    random: np.random.Generator,
) -> Arrays:
    """For each group of features the raw fused figures (scored, repeats) with the group taken from another scored
    window of the same person. ``embedding`` (rows, D)."""
    mean, spread, allowed = seen_from_rest(trained, embedding, prepared, rows)
    wanted = np.flatnonzero(prepared.scored[rows])
    person = prepared.person[rows][wanted]
    use = torch.from_numpy(allowed[wanted].astype(np.float32))
    fixed = torch.from_numpy(mean[wanted]), torch.from_numpy(spread[wanted])
    found: Arrays = {}
    for name, part in feature_groups(trained.network.config).items():
        values = np.empty((len(wanted), REPEATS))
        for repeat in range(REPEATS):
            other = embedding[wanted].copy()
            for who in sorted(set(person.tolist())):
                own = np.flatnonzero(person == who)
                other[own, part] = embedding[wanted][random.permutation(own), part]
            values[:, repeat] = trained.network.classify(torch.from_numpy(other), use, *fixed)[:, 0].numpy()
        found[f"moved: {name}"] = values
    return found


# -- what is made of it ------------------------------------------------------------------------------------------------


def scores(outcome: Outcome) -> dict[str, evaluate.Scores]:
    """The figures of every row, of the network as it would be live, and on the windows in which all kinds were good."""
    everything = np.ones(len(outcome.label), np.bool_)
    found = {name: _score(outcome, raw, everything) for name, raw in outcome.raw.items()}
    expected, upper, logit = as_live(outcome)
    found["fused, calibrated on the other folds"] = _figures(outcome, everything, logit, expected, upper)
    for row, wanted in outcome.exact.items():
        if not wanted.all() and len(set(upper_half(outcome)[wanted].tolist())) == 2:
            found[f"{row}, good windows"] = _score(outcome, outcome.raw[row], wanted)
    return found


def upper_half(outcome: Outcome) -> NDArray[np.int64]:
    """(n,) the class, of ordinal and continuous targets whether the value is in the upper half of the range."""
    if outcome.target.kind == "binary":
        return outcome.label
    return (outcome.value > 0.5 * sum(outcome.target.range)).astype(np.int64)


def _score(outcome: Outcome, raw: NDArray[np.float64], wanted: NDArray[np.bool_]) -> evaluate.Scores:
    expected, upper = nested(outcome, raw, wanted)
    middle = 0.5 * sum(outcome.target.range)
    logit = raw[wanted] if outcome.target.kind == "binary" else expected - middle
    return _figures(outcome, wanted, logit, expected, upper)


def nested(
    outcome: Outcome, raw: NDArray[np.float64], wanted: NDArray[np.bool_]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """What raw figures (n,) say in the windows ``wanted``, calibrated on the other folds: see `evaluate.estimate`."""
    return evaluate.nested(
        outcome.target,
        outcome.label[wanted],
        outcome.value[wanted],
        raw[wanted],
        outcome.person[wanted],
        outcome.fold[wanted],
    )


def _figures(
    outcome: Outcome,
    wanted: NDArray[np.bool_],
    logit: NDArray[np.float64],
    expected: NDArray[np.float64],
    upper: NDArray[np.float64],
) -> evaluate.Scores:
    values = outcome.target.kind != "binary"
    return evaluate.score(
        upper_half(outcome)[wanted],
        logit,
        outcome.person[wanted],
        probability=upper,
        value=outcome.value[wanted] if values else None,
        expected=expected if values else None,
    )


def calibrations(outcome: Outcome) -> dict[str, dict[str, Calibration]]:
    """Calibration of the target for every combination of kinds, fitted on all the raw figures of ``outcome``.

    For a bundle from whose training people are left out they come from folds `without` them: leaving out their own rows
    would not do, since the other folds' networks were trained on them.
    """
    found: dict[str, dict[str, Calibration]] = {}
    for name, row in ROWS.items():
        # Calibrated on the windows that really rest on these kinds; live the others fall to another calibration.
        wanted = outcome.exact[row]
        if not wanted.any():
            raise TrainingError(f"no window is good enough to calibrate {name}; check the recordings' quality.")
        fit = evaluate.fit(
            outcome.target,
            outcome.label[wanted],
            outcome.value[wanted],
            outcome.raw[row][wanted],
            outcome.person[wanted],
        )
        found[name] = {outcome.target.name: fit}
    return found


def distance_limits(outcome: Outcome) -> dict[str, DistanceLimit]:
    """kind -> how far 99 % of the usable windows of people not trained on lie at most."""
    return {kind: limits_of(*finite(both).T) for kind, both in outcome.distance.items()}


def distance_quality(outcome: Outcome) -> dict[str, dict[str, float]]:
    """What share of usable windows lies within the limit, by kind, when the limit is taken from the other folds, and
    how it is for the person with the smallest share."""
    quality = {}
    for kind, both in outcome.distance.items():
        within = np.full(len(both), np.nan)
        for number in np.unique(outcome.fold):
            own = (outcome.fold == number) & np.isfinite(both).all(1)
            others = finite(both[outcome.fold != number])
            if len(others):
                limit = limits_of(*others.T)
                within[own] = (both[own] <= (limit.plain, limit.rested)).all(1)
        usable = np.isfinite(within)
        if not usable.any():
            raise TrainingError(f"no window of {kind.upper()} is good enough to be used; check the recordings.")
        people = [within[usable & (outcome.person == who)].mean() for who in np.unique(outcome.person[usable])]
        quality[kind] = {
            "windows": int(usable.sum()),
            "within_nested": float(within[usable].mean()),
            "worst_person": float(min(people)),
        }
    return quality


def finite(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    """Those of rows (n, 2) that have both figures."""
    return rows[np.isfinite(rows).all(1)]


def calibration_quality(outcome: Outcome) -> dict[str, dict[str, float]]:
    """How good calibration is, by combination of kinds, when fitted without the fold that it is measured on."""
    quality = {}
    label = upper_half(outcome)
    for name, row in ROWS.items():
        wanted = outcome.exact[row]
        quality[name] = {"windows": int(wanted.sum()), "share": float(wanted.mean())}
        if len(set(label[wanted].tolist())) < 2:
            continue
        if outcome.target.kind == "binary":
            as_trained = special.expit(outcome.raw[row][wanted])
            quality[name]["ece_as_trained"] = evaluate.calibration_error(label[wanted], as_trained)
        _, upper = nested(outcome, outcome.raw[row], wanted)
        quality[name]["ece_nested"] = evaluate.calibration_error(label[wanted], upper)
    return quality


def as_live(outcome: Outcome) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """What whatever kinds were good in each window say, calibrated on the other folds: the expected value (n,), how
    probable the upper half is, and what is compared with 0 for the decision."""
    target = outcome.target
    expected = np.full(len(outcome.label), 0.5 * sum(target.range))
    upper, logit = np.full(len(expected), 0.5), np.zeros(len(expected))
    for row in reversed(ROWS.values()):
        wanted, raw = outcome.exact[row], outcome.raw[row]
        for number in np.unique(outcome.fold):
            own, other = wanted & (outcome.fold == number), wanted & (outcome.fold != number)
            if own.any():
                fit = evaluate.fit(
                    target, outcome.label[other], outcome.value[other], raw[other], outcome.person[other]
                )
                expected[own], upper[own] = evaluate.estimate(target, fit, raw[own])
                if isinstance(fit, BinaryCalibration):
                    logit[own] = raw[own] / fit.temperature + fit.bias
                else:
                    logit[own] = expected[own] - 0.5 * sum(target.range)
    return expected, upper, logit


def per_person(outcome: Outcome) -> dict[str, dict[str, float]]:
    """Figures of each person by the fused row, NaN where there is nothing to tell apart."""
    raw = outcome.raw[ROWS["eeg+ecg"]]
    if outcome.target.kind == "binary":
        return evaluate.per_person(outcome.label, raw, outcome.person)
    expected, _ = nested(outcome, raw, np.ones(len(raw), np.bool_))
    found = evaluate.per_person(upper_half(outcome), expected - 0.5 * sum(outcome.target.range), outcome.person)
    for who, row in found.items():
        own = outcome.person == who
        row["rank_correlation"] = evaluate.rank_correlation(outcome.value[own], expected[own])
        row["absolute_error"] = float(np.abs(outcome.value[own] - expected[own]).mean())
    return found


def importance(outcome: Outcome, draws: int = 500) -> dict[str, evaluate.Figure]:
    """By how much AUROC of the fused row falls when a group of features is of another window of the person, with its
    95 % interval over people; of ordinal and continuous targets by how much the rank correlation does."""
    raw = outcome.raw[ROWS["eeg+ecg"]]
    people, index = np.unique(outcome.person, return_inverse=True)
    times = evaluate.resamples(index, upper_half(outcome), draws, 0)

    def good(values: NDArray[np.float64]) -> NDArray[np.float64]:
        """(1 + draws,)"""
        if outcome.target.kind == "binary":
            return evaluate.resampled_auroc(index, outcome.label, values, times)
        own = [
            evaluate.rank_correlation(outcome.value[index == who], values[index == who]) for who in range(len(people))
        ]
        known = np.isfinite(own)
        weight = times[:, known]
        return np.asarray(weight @ np.array(own)[known] / np.maximum(weight.sum(1), 1))

    base = good(raw)
    return {
        name: evaluate.interval(base - np.mean([good(moved[:, repeat]) for repeat in range(moved.shape[1])], axis=0))
        for name, moved in outcome.moved.items()
    }


# -- what is kept ------------------------------------------------------------------------------------------------------


def key(windows: str, plan: Plan, people: Sequence[str]) -> str:
    """Names a folder for what folds have found: changes with whatever could change it. ``windows`` says what the
    windows were made from, with what target and gate."""
    weights = {kind: one.about["sha256"] for kind, one in plan.weights.items()}
    said = (
        windows,
        plan.settings,
        dict(plan.grid),
        plan.seed,
        weights,
        list(people),
        torch.__version__,
        INNER,
        REPEATS,
    )
    found = hashlib.sha256(repr(said).encode())
    here, network = Path(__file__).parent, Path(models.__path__[0])
    for name in ("finetune", "objectives", "baselines", "splits", "early_fusion", "crossvalidate"):
        found.update((here / f"{name}.py").read_bytes())
    for name in ("fusion", "descriptors", "calibration", "distance", *(f"encoders/{one.stem}" for one in _encoders())):
        found.update((network / f"{name}.py").read_bytes())
    return found.hexdigest()[:16]


def _encoders() -> list[Path]:
    return sorted((Path(models.__path__[0]) / "encoders").glob("*.py"))


def _store(path: Path, arrays: Mapping[str, NDArray[Any]]) -> None:
    """Whole or not at all. Raises TrainingError when the disk is full."""
    new = path.with_name(f".{path.name}.new")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with new.open("wb") as file:
            np.savez(file, **arrays)  # type: ignore[arg-type]
        new.replace(path)
    except OSError as error:
        new.unlink(missing_ok=True)
        raise TrainingError(
            f"{path}: cannot be written ({error.strerror}); what is finished is kept. Make room and run it again."
        ) from None


def _stored(path: Path) -> Arrays | None:
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None

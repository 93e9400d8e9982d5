"""A run folder: an evaluation, a network trained in the same way on everybody, and the bundle that is made of both.

`evaluate` measures how good networks are on people they were not trained on, `finetune` trains the network that is
kept, `export` puts it together with the calibration that the evaluation has found. What was evaluated and what was
trained each leave an identity behind, and only where the two are the same there is a bundle.
"""

from __future__ import annotations

import dataclasses
import json
import math
import platform
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import safetensors.torch
import scipy
import sklearn
import torch

from models.api import ModelError
from models.bundle import Bundle, Gate, Json, Rest, Target
from models.distance import Reference, pack_references
from models.encoders import read_config
from models.fields import Fields
from models.fusion import FusionModel
from models.runtimes.pytorch import fusion_config
from offline_training import crossvalidate, evaluate
from offline_training.api import Source, TrainingError
from offline_training.crossvalidate import ROWS, Outcome, Plan, cross_validate
from offline_training.export import export_bundle
from offline_training.finetune import (
    MIN_SHARE,
    SIZES,
    References,
    Settings,
    Trained,
    draw,
    embed,
    references,
    setting,
    train,
)
from offline_training.page import page
from offline_training.prepare import DEFAULT_GATE, KINDS, REST_SECONDS, SCORE_EVERY, Prepared
from offline_training.report import card
from offline_training.shards import Shards, read_target, read_window
from offline_training.splits import Fold, grouped_folds, refuse_copies, without
from offline_training.weights import fitted, refuse_seen

EVALUATION, ODDS, APART, PAGE = "evaluation.json", "out_of_fold.npz", "out_of_fold_apart.npz", "report.html"
NETWORK, WEIGHTS, REFERENCES = "network.json", "network.safetensors", "references.npz"
FORMAT = 1
LARGEST = 100_000_000
"""Bytes of a JSON file or of references that are read."""
NOTHING_CHOSEN = "the settings were fixed beforehand and not chosen by these figures"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Study:
    """Windows with one target, and how networks are trained and scored on them."""

    prepared: Prepared
    gate: Gate
    dataset: str
    source: Source
    digest: str
    """Changes with the data and the windows cut of it."""
    plan: Plan
    folds: tuple[Fold, ...]
    """Over everyone."""
    excluded: tuple[str, ...] = ()
    """Scored as everyone is, but in the network and its calibration nothing is of them."""
    left_out: Mapping[str, str] = field(default_factory=dict)
    """Person -> why nothing of the person can be used."""
    command: str = "insula evaluate, finetune, export"
    selection: str = ""
    """How the settings came about, where the plan does not say."""

    def identity(self, settings: Settings) -> dict[str, object]:
        """What an evaluation and a network must have in common to become a bundle."""
        said: dict[str, object] = {
            "data": self.digest,
            "target": dataclasses.asdict(self.prepared.target),
            "window": dataclasses.asdict(self.prepared.spec),
            "gate": dataclasses.asdict(self.gate),
            "people": self.prepared.people,
            "excluded people": sorted(self.excluded),
            "settings": dataclasses.asdict(settings),
            "seed": self.plan.seed,
            "weights": {kind: one.about["sha256"] for kind, one in self.plan.weights.items()},
        }
        as_read: dict[str, object] = json.loads(json.dumps(said))
        return as_read

    @property
    def key(self) -> str:
        """Names a folder for what folds have found."""
        made = repr((self.digest, self.prepared.spec, self.prepared.target, self.gate))
        return crossvalidate.key(made, self.plan, [*self.prepared.people, *("|".join(one.test) for one in self.folds)])


def study_of(
    folder: Path,
    target: str,
    plan: Plan,
    *,
    folds: int = 0,
    excluded: Collection[str] = (),
) -> Study:
    """A study of the shards in a folder; ``folds`` 0 leaves one person out at a time. Raises TrainingError.

    The plan's settings become those of its weights.
    """
    shards = Shards(folder)
    prepared, left_out = usable_people(shards.prepared(DEFAULT_GATE, target_of(shards, target)))
    unknown = sorted(set(excluded) - set(prepared.people))
    if unknown:
        why = left_out.get(unknown[0], f"is not among them ({', '.join(prepared.people[:20])})")
        raise TrainingError(f"{unknown[0]}: cannot be excluded from the people of {folder}: {why}.")
    refuse_seen(plan.weights, shards.dataset, prepared.people)
    refuse_copies(prepared)
    return Study(
        prepared=prepared,
        gate=DEFAULT_GATE,
        dataset=shards.dataset,
        source=shards.source,
        digest=shards.digest,
        plan=dataclasses.replace(plan, settings=fitted(plan.settings, plan.weights)),
        folds=tuple(grouped_folds(prepared.people, folds or len(prepared.people), plan.seed)),
        excluded=tuple(sorted(excluded)),
        left_out=left_out,
    )


def target_of(shards: Shards, name: str) -> Target:
    """What a target of the shards is. Raises TrainingError when there is none of the name."""
    known = {target.name: target for target in shards.targets}
    if name not in known:
        raise TrainingError(f"{shards.folder}: there is no target {name!r:.40}; it has {', '.join(known) or 'none'}.")
    return known[name]


def usable_people(prepared: Prepared) -> tuple[Prepared, dict[str, str]]:
    """The windows of those who can be trained on and scored, and why the others cannot. Raises TrainingError when
    fewer than two are left."""
    why = {}
    for who in prepared.people:
        own = prepared.person == who
        classes = set(prepared.label[own & prepared.trained].tolist())
        if (own & prepared.baseline).sum() < 3:
            why[who] = f"has {(own & prepared.baseline).sum()} windows of resting baseline, 3 are needed"
        elif prepared.target.kind == "binary" and len(classes) < 2:
            why[who] = f"has not both classes of {prepared.target.name}"
        elif not classes or not (own & prepared.scored).any():
            why[who] = f"has no window with a value of {prepared.target.name} after the baseline"
    kept = ~np.isin(prepared.person, list(why))
    if len(prepared.people) - len(why) < 2:
        first = f"; {next(iter(why))} {next(iter(why.values()))}" if why else ""
        raise TrainingError(f"{len(prepared.people) - len(why)} people can be scored, at least 2 are needed{first}.")
    if not why:
        return prepared, why
    rows = {
        one.name: getattr(prepared, one.name)[kept]
        for one in dataclasses.fields(prepared)
        if isinstance(getattr(prepared, one.name), np.ndarray)
    }
    signals = {kind: values[kept] for kind, values in prepared.signals.items()}
    return dataclasses.replace(prepared, signals=signals, **rows), why


def settings_asked(
    base: Settings, *, size: str = "", given: Sequence[str] = (), quick: bool = False, encoder: str = ""
) -> Settings:
    """``base`` with what a user asked for: a size, ``NAME=VALUE``, an encoder, no training of encoders.

    Raises TrainingError in words.
    """
    changes: dict[str, Any] = dict(SIZES[size]) if size else {}
    if encoder:
        changes["encoder"] = encoder
    for text in given:
        name, _, value = text.partition("=")
        changes[name] = setting(name, value)
    if quick:
        changes["steps"] = 0
    asked = dataclasses.replace(base, **changes)
    asked.network(1, 1, 10, 200)  # refuses what cannot be built, before anything is read
    return asked


def grid_asked(given: Sequence[str]) -> dict[str, tuple[float | int | bool, ...]]:
    """``NAME=VALUE,VALUE`` each. Raises TrainingError in words."""
    grid: dict[str, tuple[float | int | bool, ...]] = {}
    for text in given:
        name, _, values = text.partition("=")
        found = tuple(setting(name, value) for value in values.split(","))
        if not all(isinstance(one, int | float) for one in found) or len(set(found)) != len(found):
            raise TrainingError(f"{text!r:.60}: give different numbers to choose from, as in {name}=0.01,0.03,0.1.")
        same = ("dropout", "head_dropout", "d_model", "layers", "heads", "ffn", "variability")
        if name in same:
            raise TrainingError(f"{name}: is of the network itself; evaluate each size in a run of its own.")
        grid[name] = tuple(one for one in found if isinstance(one, int | float))
    return grid


# -- evaluate ----------------------------------------------------------------------------------------------------------


def evaluate_study(
    study: Study,
    to: Path,
    *,
    kept: Path | None = None,
    told: Callable[[str], None] = lambda _: None,
) -> dict[str, Any]:
    """Writes the evaluation of a study into a run folder and returns what its JSON says.

    Finished folds stay in ``kept``, the run's own folder by default: interrupted, it goes on there.
    """
    prepared, plan = study.prepared, study.plan
    kept = (to / "folds" if kept is None else kept) / study.key
    outcome = cross_validate(prepared, study.folds, plan, kept, told)
    network = [who for who in prepared.people if who not in study.excluded]
    if len(network) < 2:
        raise TrainingError("with those excluded fewer than two people are left to train on.")
    apart = outcome
    if study.excluded:
        told(f"the same folds without {', '.join(study.excluded)}, for the calibration")
        folds = list(study.folds)
        for who in study.excluded:
            folds = without(folds, who)
        alone = dataclasses.replace(plan, compared=())
        apart = cross_validate(prepared, folds, alone, kept / f"without-{'-'.join(study.excluded)}", told)
    settings, tried = crossvalidate.choose(prepared, network, plan, kept / "choice")
    crossvalidate.calibrations(apart)  # refused here, not hours later when it is exported
    scores = crossvalidate.scores(outcome)
    content: dict[str, Any] = {
        "format": FORMAT,
        "identity": study.identity(settings),
        "data": {"data set": study.dataset, **dataclasses.asdict(study.source), "sha256": study.digest},
        "target": dataclasses.asdict(prepared.target),
        "people": network,
        "excluded": list(study.excluded),
        "left out": dict(study.left_out),
        "windows": {
            "all": len(prepared.label),
            "trained": int(prepared.trained.sum()),
            "scored": int(prepared.scored.sum()),
            **{f"{kind} good": float(prepared.usable[:, number].mean()) for number, kind in enumerate(KINDS)},
        },
        "folds": [list(fold.test) for fold in study.folds],
        "protocol": protocol(study),
        "selection": study.selection or selection(plan, tried, outcome, settings),
        "settings asked": dataclasses.asdict(plan.settings),
        "settings": dataclasses.asdict(settings),
        "grid": {name: list(values) for name, values in plan.grid.items()},
        "tried": tried,
        "chosen": outcome.chosen,
        "seed": plan.seed,
        "weights": {kind: dict(one.about) for kind, one in plan.weights.items()},
        "accuracy": accuracy_line(prepared.target, scores[ROWS["eeg+ecg"]], len(study.folds)),
        "table": evaluate.table(scores),
        "metrics": {
            "scores": {name: score.to_json() for name, score in scores.items()},
            "per_person": crossvalidate.per_person(outcome),
            "calibration": crossvalidate.calibration_quality(outcome),
            "distance": crossvalidate.distance_quality(outcome),
            "moved": {name: dataclasses.asdict(figure) for name, figure in crossvalidate.importance(outcome).items()},
        },
        "versions": versions(),
    }
    content = _without_nan(content)
    outcome.save(to / ODDS)
    apart.save(to / APART)
    _write(to / PAGE, page(content, outcome).encode())
    _write(to / EVALUATION, _json(content))
    return content


def protocol(study: Study) -> str:
    """What was done, in one line."""
    prepared, count = study.prepared, len(study.folds)
    who = ", ".join(study.excluded)
    split = (
        "one person left out at a time"
        if count == len(prepared.people)
        else f"{count} folds grouped by person, seed {study.plan.seed}"
    )
    parts = [
        f"{prepared.spec.seconds:g} s windows; {split}; each person's first {REST_SECONDS:g} s of rest are the resting "
        f"baseline and not scored; scored every {SCORE_EVERY:g} s at the threshold 0.5 fixed beforehand; intervals are "
        "95 % bootstrap over people"
    ]
    if prepared.target.kind != "binary":
        parts.append(
            "the figures of two classes are of the upper half of the range against the lower, told apart by estimates "
            "that were calibrated on the other folds"
        )
    if study.excluded:
        parts.append(
            f"the bundle's network is trained on everyone but {who}, and its calibration fitted on out-of-fold log "
            f"odds of everyone but {who} by networks not trained on {who} either; so are the limits of distance. The "
            "scores and the nested calibration errors are over everyone"
        )
    if not study.plan.settings.steps:
        came = "they came" if study.plan.weights else "drawn"
        parts.append(f"the encoders were left as {came}, the head alone was trained")
    if study.left_out:
        parts.append(f"nothing of {len(study.left_out)} people could be used ({', '.join(study.left_out)})")
    return ". ".join(part[0].upper() + part[1:] if number else part for number, part in enumerate(parts))


def selection(plan: Plan, tried: Sequence[Mapping[str, object]], outcome: Outcome, settings: Settings) -> str:
    """How the settings came about, in one line."""
    if not tried:
        return NOTHING_CHOSEN
    asked = "; ".join(f"{name} of {', '.join(map(str, values))}" for name, values in plan.grid.items())
    final = ", ".join(f"{name} {getattr(settings, name)}" for name in plan.grid)
    kinds = {json.dumps(one["settings"]) for one in outcome.chosen}
    return (
        f"chosen in every fold by folds among the people trained on ({asked}): {len(kinds)} different choices in "
        f"{len(outcome.chosen)} folds; the network that is kept has {final}, chosen so among all its people"
    )


def accuracy_line(target: Target, score: evaluate.Scores, folds: int) -> str:
    """One line for the screen."""
    exact = score.balanced_accuracy
    text = (
        f"balanced accuracy {exact.value:.2f} [{exact.low:.2f}, {exact.high:.2f}], AUROC {score.auroc.value:.2f}, "
        f"{score.people} people, each scored by a model not trained on them ({folds} folds)"
    )
    if target.kind == "binary":
        return text
    rank = "" if score.rank_correlation is None else f"rank correlation {score.rank_correlation.value:.2f}, "
    error = "" if score.absolute_error is None else f"mean absolute error {score.absolute_error.value:.2g}; "
    return f"{rank}{error}upper half of the range: {text}"


# -- the network -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, eq=False)
class Kept:
    """A network that was trained on everybody but those excluded."""

    trained: Trained
    references: References


def finetune_study(study: Study, settings: Settings, to: Path) -> Kept:
    """Trains the network on everyone but those excluded and writes it into a run folder."""
    prepared, plan = study.prepared, study.plan
    network = [who for who in prepared.people if who not in study.excluded]
    rows = np.flatnonzero(np.isin(prepared.person, network))
    start = draw(prepared, settings, plan.seed, {kind: one.state for kind, one in plan.weights.items()})
    trained = train(prepared, rows, settings, start)
    compared = references(trained, prepared, rows, embed(trained.network, prepared, rows))
    state = {name: value.contiguous() for name, value in trained.network.state_dict().items()}
    _write(to / WEIGHTS, safetensors.torch.save(state))
    _write(to / REFERENCES, pack_references(compared))
    about = {
        "format": FORMAT,
        "identity": study.identity(settings),
        "network": dataclasses.asdict(trained.network.config),
        "settings": dataclasses.asdict(settings),
        "pooled_sd": [float(value) for value in trained.pooled_sd],
        "people": network,
        "excluded": list(study.excluded),
        "seed": plan.seed,
        "data": {"data set": study.dataset, **dataclasses.asdict(study.source), "sha256": study.digest},
        "weights": {kind: dict(one.about) for kind, one in plan.weights.items()},
        "versions": versions(),
    }
    _write(to / NETWORK, _json(_without_nan(about)))
    return Kept(trained, compared)


def settings_of(said: Mapping[str, Any], where: Path) -> Settings:
    """The settings as a JSON file has them. Raises TrainingError."""
    try:
        plain: dict[str, Any] = {name: tuple(one) if isinstance(one, list) else one for name, one in said.items()}
        for kind in KINDS:
            plain[kind] = read_config(Fields(said[kind], str(where), kind)) if said.get(kind) else None
        return Settings(**plain)
    except (TypeError, KeyError, ValueError, ModelError) as error:
        raise TrainingError(f"{where}: its settings cannot be read ({error!s:.80}); run it again.") from None


# -- export ------------------------------------------------------------------------------------------------------------


def export_run(
    run: Path,
    to: Path,
    *,
    name: str = "",
    version: str = "0.1.0",
    limits: str = "",
    licence: str = "",
    remarks: str = "",
    metrics: Json | None = None,
    command: str = "insula evaluate, finetune, export",
) -> Bundle:
    """The bundle of a run folder, written to ``to``. ``metrics`` are added to those of the evaluation.

    Raises TrainingError when there is no evaluation, no network, or they are of different settings, data or people;
    ModelError when ONNX Runtime differs from PyTorch.
    """
    evaluation = read_run(run, EVALUATION, "insula evaluate")
    network = read_run(run, NETWORK, "insula finetune")
    refuse_difference(run, evaluation["identity"], network["identity"])
    try:
        target = read_target(evaluation["target"])
        source = Source(**{one.name: evaluation["data"][one.name] for one in dataclasses.fields(Source)})
        window = read_window(evaluation["identity"]["window"])
        gate = Gate(**evaluation["identity"]["gate"])
        settings = settings_of(network["settings"], run / NETWORK)
        pooled = tuple(float(value) for value in network["pooled_sd"])
        config = fusion_config(Fields(network["network"], str(run / NETWORK), "network"))
        model = FusionModel(config)
        model.load_state_dict(safetensors.torch.load((run / WEIGHTS).read_bytes()))
        compared = _references(run / REFERENCES)
        training: dict[str, object] = {
            "command": command,
            "data": evaluation["data"],
            "people": network["people"],
            "excluded": network["excluded"],
            "left out": evaluation["left out"],
            "seed": network["seed"],
            "settings": network["settings"],
            "weights": network["weights"],
            "folds": evaluation["folds"],
            "protocol": evaluation["protocol"],
            "selection": evaluation["selection"],
            "versions": network["versions"],
        }
        figures = {**evaluation["metrics"], **(metrics or {})}
        accuracy, text = str(evaluation["accuracy"]), str(evaluation["table"])
    except (KeyError, TypeError, ValueError, OSError, RuntimeError, safetensors.SafetensorError) as error:
        raise TrainingError(
            f"{run}: is damaged ({' '.join(str(error).split()):.80}); evaluate and fine-tune again."
        ) from None
    apart = Outcome.load(run / APART, target)
    bundle = export_bundle(
        to,
        model,
        name=name or f"insula-{target.name.replace('_', '-')}",
        version=version,
        window=window,
        targets=(target,),
        rest=Rest(
            seconds=REST_SECONDS,
            min_share=MIN_SHARE,
            pooled_sd=pooled,
            prior_windows=settings.prior_windows,
            floor=settings.rest_floor,
        ),
        gate=gate,
        calibration=crossvalidate.calibrations(apart),
        distance=crossvalidate.distance_limits(apart),
        references=compared,
        accuracy=accuracy,
        limits=limits or f"{target.name} means what the recordings of {source.name} were labelled with",
        metrics=figures,
        training=training,
        licence=licence or f"of the weights, as whoever trained them says; of {source.name}, {source.licence}",
    )
    _write(to / "README.md", card(bundle.manifest, text, source, remarks).encode())
    return bundle


def refuse_difference(run: Path, evaluated: Mapping[str, object], trained: Mapping[str, object]) -> None:
    """Raises TrainingError, with the first thing that differs, unless what was evaluated is what was trained."""
    for name in evaluated:
        if evaluated[name] == trained.get(name):
            continue
        one, other = evaluated[name], trained.get(name)
        if isinstance(one, dict) and isinstance(other, dict):
            inner = next(key for key in [*one, *other] if one.get(key) != other.get(key))
            name, one, other = f"{name}: {inner}", one.get(inner), other.get(inner)
        raise TrainingError(
            f"{run}: the evaluation is not of this network: {name} is {_short(one)} in the evaluation and "
            f"{_short(other)} in the network; evaluate and fine-tune with the same."
        )


def _short(value: object) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _references(path: Path) -> References:
    if path.stat().st_size > LARGEST:
        raise ValueError(f"{path.name} has {path.stat().st_size} bytes")
    with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
        found = {}
        for kind in KINDS:
            pair = [
                Reference(
                    arrays[f"{kind}_{name}_mean"].astype(np.float64), arrays[f"{kind}_{name}_whiten"].astype(np.float64)
                )
                for name in ("plain", "rested")
            ]
            found[kind] = (pair[0], pair[1])
    return found


# -- files -------------------------------------------------------------------------------------------------------------


def read_run(run: Path, name: str, command: str) -> dict[str, Any]:
    """A JSON file of a run folder. Raises TrainingError, which names the command that writes it."""
    path = run / name
    try:
        if path.stat().st_size > LARGEST:
            raise ValueError(f"has more than {LARGEST} bytes")
        content = json.loads(path.read_text(encoding="utf-8"))
        if content["format"] != FORMAT:
            raise ValueError(f"is of format {content['format']!s:.20}, not {FORMAT}")
    except FileNotFoundError:
        raise TrainingError(f"{run}: there is no {name}; run `{command} ... --to {run}` first.") from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise TrainingError(f"{path}: cannot be read ({error!s:.80}); run `{command}` again.") from None
    return dict(content)


def versions() -> dict[str, str]:
    """Of what figures depend on."""
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "scipy": scipy.__version__,
        "sklearn": sklearn.__version__,
        "onnx": onnx.__version__,
    }


def _without_nan(value: Any) -> Any:
    """The same, with None where a number is none: JSON has no other word for it."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {name: _without_nan(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(one) for one in value]
    return value


def _json(content: Mapping[str, object]) -> bytes:
    return (json.dumps(content, indent=1, allow_nan=False) + "\n").encode()


def _write(path: Path, content: bytes) -> None:
    """Whole or not at all. Raises TrainingError."""
    new = path.with_name(f".{path.name}.new")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        new.write_bytes(content)
        new.replace(path)
    except OSError as error:
        new.unlink(missing_ok=True)
        raise TrainingError(f"{path}: cannot be written ({error.strerror}). Make room and run it again.") from None

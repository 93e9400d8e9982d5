"""A bundle for one person, from a resting or labelled recording of that person, in seconds and without torch.

The recording goes through the model as a live session would: the same windows, gate, resting baseline and limits. What
is fitted is the last step of the head: one factor and one offset for each target and combination of kinds, pulled
towards those of the bundle, so that a person whose estimates lie too high or too low is met in the middle. Encoders and
the head's weights are untouched, and so is the graph. How good that is, is measured in blocks of time that the fit has
not seen, with everything left out that overlaps them, beside the bundle as it was on the same windows.

With rest alone nothing can be told apart, and no accuracy is claimed. What rest does tell is how widely this person's
embedding scatters at rest: it takes the place of the spread pooled over other people. The resting mean is still that of
the first minute of each session, since electrodes never sit twice alike.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import optimize, special

from models.api import Arrays, Runtime
from models.bundle import (
    BinaryCalibration,
    Bundle,
    Calibration,
    ContinuousCalibration,
    Manifest,
    OrdinalCalibration,
    Target,
    combination,
    write_bundle,
)
from models.calibration import resting_statistics
from models.model import Model
from offline_training import evaluate
from offline_training.api import Skipped, TrainingError
from offline_training.datasets import sessions
from realtime.windows import iter_windows

BLOCKS = 4
"""Of time, each left out once."""
LEAST_SECONDS = 45.0
"""Of windows of each class or value told, counted in hops, after the resting baseline; and of rest, where nothing else
is told. The minute of a task has about 50 windows of 10 s, one a second."""
PRIOR = 0.05
"""Times the squared offset and log factor, in the loss of a window: how strongly a fit is pulled to the bundle's. Not
tuned."""


@dataclass(frozen=True, slots=True, eq=False)
class Block:
    """What the model made of one person's n windows after the resting baseline."""

    person: str
    t_end: NDArray[np.float64]
    """(n,)"""
    session: NDArray[np.int64]
    rest: NDArray[np.bool_]
    used: list[str]
    """(n) the combination of kinds that the estimate rests on."""
    logit: Mapping[str, NDArray[np.float64]]
    """combination -> (n, targets), NaN where its kinds could not all be used."""
    embedding: NDArray[np.float64]
    """(n, D)"""
    told: Mapping[str, NDArray[np.float64]]
    """target -> (n,), NaN where nothing is told."""
    withheld: int
    """Windows after the baseline in which nothing could be used."""
    skipped: tuple[Skipped, ...]
    sha256: Mapping[str, str]
    """file -> of the recording."""


@dataclass(frozen=True, slots=True)
class Measured:
    """How good a target's estimate is in blocks of time left out, and how good the bundle as it was, on one person."""

    windows: int
    before: Mapping[str, float]
    after: Mapping[str, float]


@dataclass(frozen=True, slots=True, eq=False)
class Personal:
    """A bundle for one person."""

    bundle: Bundle
    person: str
    measured: Mapping[str, Measured]
    """By target; none where only rest was recorded."""
    said: str
    """One line."""
    skipped: tuple[Skipped, ...]


def calibrate_person(
    records: Sequence[Path], bundle: Bundle, runtime: Runtime, to: Path, labels: Path | None = None
) -> Personal:
    """Writes the bundle of whoever the recordings are of. ``labels`` is as the data set of sessions reads it; without
    one a phase called rest is rest, and ratings are of the bundle's targets.

    Raises TrainingError when there is too little, when nothing fits the bundle, and when it would only do harm.
    """
    if to.resolve() == bundle.folder.resolve():
        raise TrainingError(f"{to}: is the bundle itself; give the personal one a folder of its own.")
    block = listen(records, bundle, runtime, labels)
    hop = bundle.manifest.window.hop
    several = [target for target in bundle.manifest.targets if len(_groups(block.told[target.name])) > 1]
    if not several:
        return _from_rest(block, bundle, to)
    calibration = {used: dict(by_target) for used, by_target in bundle.manifest.calibration.items()}
    measured: dict[str, Measured] = {}
    kept: set[str] = set()
    for target in several:
        place = bundle.manifest.targets.index(target)
        value = block.told[target.name]
        short = {one: hop * float((value == one).sum()) for one in _groups(value)}
        enough = [one for one, seconds in short.items() if seconds >= LEAST_SECONDS]
        if len(enough) < 2:
            listed = ", ".join(f"{seconds:.0f} s of {one:g}" for one, seconds in sorted(short.items()))
            raise TrainingError(
                f"{block.person}: too little to calibrate {target.name}: after the resting baseline there are "
                f"{listed} that can be used; at least {LEAST_SECONDS:g} s of two values are needed. Record longer."
            )
        measured[target.name] = _measure(block, bundle, target, place)
        for used, by_target in calibration.items():
            rows = np.isfinite(value) & np.isfinite(block.logit[used][:, place])
            if len(_groups(np.where(rows, value, math.nan))) < 2 or hop * rows.sum() < 2 * LEAST_SECONDS:
                kept.add(used)
                continue
            by_target[target.name] = _fit(
                target, by_target[target.name], block.logit[used][rows, place], value[rows], _blocks(block, value)[rows]
            )
    for name, one in measured.items():
        key, sign = ("balanced_accuracy", 1.0) if "balanced_accuracy" in one.after else ("absolute_error", -1.0)
        if sign * (one.after[key] - one.before[key]) < 0:
            raise TrainingError(
                f"{block.person}: calibrating does not help: {name} has {key.replace('_', ' ')} "
                f"{one.after[key]:.2f} in blocks of time left out, and "
                f"{one.before[key]:.2f} with the bundle as it is; use that one."
            )
    said = "; ".join(f"{name}: {_in_words(one)}" for name, one in measured.items())
    accuracy = f"of {block.person} only, in {BLOCKS} blocks of time left out of one person's recording: {said}"
    manifest = dataclasses.replace(bundle.manifest, calibration=calibration)
    about = {
        "calibrated": sorted(set(calibration) - kept),
        "as it was": sorted(kept),
        "blocks": BLOCKS,
        "measured": {name: dataclasses.asdict(one) for name, one in measured.items()},
    }
    return _write(block, bundle, dataclasses.replace(manifest, accuracy=accuracy[:500]), to, about, measured, said)


def listen(records: Sequence[Path], bundle: Bundle, runtime: Runtime, labels: Path | None = None) -> Block:
    """What the model makes of recordings of one person, window by window as live. Raises TrainingError."""
    manifest = bundle.manifest
    asked = _Asked(runtime)
    model = Model(bundle, asked)
    skipped: list[Skipped] = []
    people: set[str] = set()
    rows: list[tuple[float, int, bool, str, dict[str, NDArray[np.float64]], NDArray[np.float64], dict[str, float]]] = []
    withheld = 0
    with tempfile.TemporaryDirectory() as place:
        folder = _gathered(records, labels, bundle, Path(place))
        targets = {target.name: target for target in sessions.targets(folder)}
        for target in manifest.targets:
            other = targets.get(target.name)
            if other and (other.kind, other.range, other.levels) != (target.kind, target.range, target.levels):
                raise TrainingError(
                    f"{target.name}: the labels make it {other.kind} from {other.range[0]:g} to {other.range[1]:g}, "
                    f"the bundle {target.kind} from {target.range[0]:g} to {target.range[1]:g}; write it as the bundle "
                    "has it."
                )
        for number, part in enumerate(sessions.parts(folder)):
            model.reset()
            for one in sessions.recordings(folder, part):
                if isinstance(one, Skipped):
                    skipped.append(one)
                    continue
                people.add(one.person)
                if len(people) > 1:
                    raise TrainingError(
                        f"the recordings are of {' and '.join(sorted(people))}; a personal bundle is of one person."
                    )
                for window in iter_windows(one.chunks, manifest.window, one.streams):
                    estimate = model.update(window)
                    if estimate.withheld is not None:
                        withheld += model.baseline.complete and "baseline" not in estimate.withheld
                        continue
                    rows.append(
                        (
                            window.t_end,
                            number,
                            one.rest,
                            combination(estimate.used),
                            asked.every_combination(manifest.kinds, estimate.used),
                            asked.outputs["embedding"][0].astype(np.float64),
                            dict(one.targets),
                        )
                    )
    if not rows:
        why = f" The first: {skipped[0].where}: {skipped[0].why}." if skipped else ""
        raise TrainingError(
            f"no window after a resting baseline of {manifest.rest.seconds:g} s could be used; record rest first, for "
            f"longer, and what is to be told apart after it.{why}"
        )
    nothing = np.full(len(manifest.targets), math.nan)
    return Block(
        person=people.pop(),
        t_end=np.array([row[0] for row in rows]),
        session=np.array([row[1] for row in rows]),
        rest=np.array([row[2] for row in rows]),
        used=[row[3] for row in rows],
        logit={used: np.array([row[4].get(used, nothing) for row in rows]) for used in manifest.calibration},
        embedding=np.array([row[5] for row in rows]),
        told={
            target.name: np.array([row[6].get(target.name, math.nan) for row in rows]) for target in manifest.targets
        },
        withheld=withheld,
        skipped=tuple(skipped),
        sha256={path.name: _sha256(path) for path in records},
    )


class _Asked:
    """A runtime that remembers what it was asked last, so that it can be asked with other kinds."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._inputs: Arrays = {}
        self.outputs: dict[str, NDArray[np.float32]] = {}

    def __call__(self, inputs: Arrays) -> dict[str, NDArray[np.float32]]:
        self._inputs, self.outputs = inputs, self._runtime(inputs)
        return self.outputs

    def every_combination(self, kinds: Sequence[str], used: Sequence[str]) -> dict[str, NDArray[np.float64]]:
        """combination of kinds among ``used`` -> raw logits (targets,) of the window asked last."""
        found = {combination(used): self.outputs["logit"][0].astype(np.float64)}
        if len(used) > 1:
            for kind in used:
                use = np.array([[one == kind for one in kinds]], np.float32)
                found[kind] = self._runtime({**self._inputs, "use": use})["logit"][0].astype(np.float64)
        return found


def _gathered(records: Sequence[Path], labels: Path | None, bundle: Bundle, place: Path) -> Path:
    """A folder as the data set of sessions wants it: links to the recordings, what describes them, and the labels."""
    for path in records:
        if not path.is_file():
            raise TrainingError(f"{path}: there is no such recording.")
        folder = place / hashlib.sha256(str(path.resolve().parent).encode()).hexdigest()[:8]
        folder.mkdir(exist_ok=True)
        for one in (path, path.with_suffix(".json")):
            if one.is_file() and not (folder / one.name).exists():
                try:
                    (folder / one.name).symlink_to(one.resolve())
                except OSError:  # where links need a right of their own
                    shutil.copy(one, folder / one.name)
    beside = records[0].parent / sessions.LABELS
    if labels is None and beside.is_file():
        labels = beside
    try:
        text = _usual_labels(bundle) if labels is None else labels.read_bytes()
    except OSError as error:
        raise TrainingError(f"{labels}: cannot be read ({error.strerror}).") from None
    (place / sessions.LABELS).write_bytes(text)
    return place


def _usual_labels(bundle: Bundle) -> bytes:
    lines = ['rest = "rest"', 'stops = ["end"]']
    for target in bundle.manifest.targets:
        lines += [
            f"[targets.{target.name}]",
            f"kind = {json.dumps(target.kind)}",
            f"range = {json.dumps(list(target.range))}",
            f"levels = {json.dumps(list(target.levels))}",
            f"meaning = {json.dumps(target.meaning)}",
            "rated = true",
        ]
    return "\n".join(lines).encode()


def _groups(value: NDArray[np.float64]) -> list[float]:
    return sorted(set(value[np.isfinite(value)].tolist()))


def _blocks(block: Block, value: NDArray[np.float64]) -> NDArray[np.int64]:
    """(n,) which block of time a window belongs to: of every value told the first part, the second, ..."""
    found = np.full(len(value), -1)
    order = np.lexsort((block.t_end, block.session))
    for one in _groups(value):
        own = order[value[order] == one]
        for number, part in enumerate(np.array_split(own, BLOCKS)):
            found[part] = number
    return found


def _measure(block: Block, bundle: Bundle, target: Target, place: int) -> Measured:
    """As live, from whatever kinds each window had, by fits that have not seen its block of time."""
    value = block.told[target.name]
    told = np.isfinite(value)
    blocks = _blocks(block, value)
    seconds = bundle.manifest.window.seconds
    used = np.array(block.used)
    found = {name: np.full((2, len(value)), math.nan) for name in ("before", "after")}
    for number in range(BLOCKS):
        test = told & (blocks == number)
        ends = [np.sort(block.t_end[test & (block.session == one)]) for one in range(int(block.session.max()) + 1)]
        apart = told & ~test & ~_overlapping(block, ends, seconds)
        for combined in np.unique(used[test]).tolist():
            shipped = bundle.manifest.calibration[combined][target.name]
            logit = block.logit[combined][:, place]
            fit = apart & np.isfinite(logit)
            own = test & (used == combined)
            personal = shipped
            if len(_groups(value[fit])) > 1:
                personal = _fit(target, shipped, logit[fit], value[fit], blocks[fit])
            for name, one in (("before", shipped), ("after", personal)):
                found[name][:, own] = evaluate.estimate(target, one, logit[own])
    rows = np.isfinite(found["after"][0])
    figures = {name: _figures(target, value[rows], both[0, rows], both[1, rows]) for name, both in found.items()}
    return Measured(int(rows.sum()), figures["before"], figures["after"])


def _overlapping(block: Block, ends: Sequence[NDArray[np.float64]], seconds: float) -> NDArray[np.bool_]:
    """(n,) whether a window shares samples with one that ends at one of ``ends`` of its session."""
    found = np.zeros(len(block.t_end), np.bool_)
    for session, times in enumerate(ends):
        own = np.flatnonzero(block.session == session)
        if len(times) and len(own):
            after = np.searchsorted(times, block.t_end[own]).clip(0, len(times) - 1)
            before = (after - 1).clip(0)
            nearest = np.minimum(abs(times[after] - block.t_end[own]), abs(times[before] - block.t_end[own]))
            found[own] = nearest < seconds - 1e-6
    return found


def _figures(
    target: Target, value: NDArray[np.float64], expected: NDArray[np.float64], upper: NDArray[np.float64]
) -> dict[str, float]:
    if target.kind == "binary":
        label = (value > 0.5 * sum(target.range)).astype(np.int64)
        return {
            "balanced_accuracy": evaluate.balanced_accuracy(label, upper > 0.5),
            "auroc": evaluate.auroc(label, upper),
            "calibration_error": evaluate.calibration_error(label, upper),
        }
    error = np.abs(value - expected)
    return {"absolute_error": float(np.mean([error[value == one].mean() for one in _groups(value)]))}


def _in_words(one: Measured) -> str:
    if "balanced_accuracy" in one.after:
        return (
            f"balanced accuracy {one.after['balanced_accuracy']:.2f} (the bundle as it was: "
            f"{one.before['balanced_accuracy']:.2f}), AUROC {one.after['auroc']:.2f}, {one.windows} windows"
        )
    return (
        f"mean absolute error {one.after['absolute_error']:.2g} (the bundle as it was: "
        f"{one.before['absolute_error']:.2g}), {one.windows} windows"
    )


def _fit(
    target: Target,
    shipped: Calibration,
    logit: NDArray[np.float64],
    value: NDArray[np.float64],
    blocks: NDArray[np.int64],
) -> Calibration:
    """The calibration with a factor and an offset of the person's own, every value told counting alike."""
    groups, index, count = np.unique(value, return_inverse=True, return_counts=True)
    weight = 1.0 / (len(groups) * count[index])
    low, high = target.range
    label = (value > 0.5 * (low + high)).astype(np.int64)
    levels = np.searchsorted(np.array(target.levels), value) if target.levels else index

    def loss(parameters: NDArray[np.float64]) -> float:
        one = _moved(target, shipped, float(np.exp(np.clip(parameters[0], -2.0, 2.0))), float(parameters[1]))
        if isinstance(one, BinaryCalibration):
            u = logit / one.temperature + one.bias
            off = np.logaddexp(0.0, u) - label * u
        elif isinstance(one, OrdinalCalibration):
            above = special.expit(logit[:, None] / one.temperature - np.array(one.thresholds))
            edges = np.concatenate([np.ones((len(logit), 1)), above, np.zeros((len(logit), 1))], axis=1)
            rows = np.arange(len(logit))
            off = -np.log(np.maximum(edges[rows, levels] - edges[rows, levels + 1], 1e-12))
        else:
            off = 0.5 * np.square((value - one.slope * logit - one.intercept) / max(one.sd, 1e-9))
        return float(weight @ off + PRIOR * np.square(parameters).sum())

    found = optimize.minimize(loss, np.zeros(2), method="Nelder-Mead", options={"xatol": 1e-4, "fatol": 1e-7})
    fitted = _moved(target, shipped, float(np.exp(np.clip(found.x[0], -2.0, 2.0))), float(found.x[1]))
    # Between people nothing scatters here: what is left is how far blocks of time lie from each other.
    if isinstance(fitted, ContinuousCalibration):
        off = value - (fitted.slope * logit + fitted.intercept)
        return dataclasses.replace(fitted, sd=float(np.sqrt(weight @ np.square(off))))
    spread = evaluate.scatter(logit / fitted.temperature, index, blocks.astype(np.str_))
    return dataclasses.replace(fitted, logit_sd=spread)


def _moved(target: Target, one: Calibration, factor: float, offset: float) -> Calibration:
    """A calibration whose logit is ``factor`` times as large around its own zero, and ``offset`` further up."""
    if isinstance(one, BinaryCalibration):
        return dataclasses.replace(one, temperature=one.temperature / factor, bias=one.bias * factor + offset)
    if isinstance(one, OrdinalCalibration):
        thresholds = tuple(threshold - offset for threshold in one.thresholds)
        return dataclasses.replace(one, temperature=one.temperature / factor, thresholds=thresholds)
    middle = 0.5 * sum(target.range)
    intercept = middle + factor * (one.intercept - middle) + offset * one.sd
    return dataclasses.replace(one, slope=one.slope * factor, intercept=intercept)


def _from_rest(block: Block, bundle: Bundle, to: Path) -> Personal:
    manifest = bundle.manifest
    hop, rest = manifest.window.hop, manifest.rest
    pooled = np.array(rest.pooled_sd)
    seconds: dict[str, float] = {}
    begin = 0
    for kind, width in manifest.embedding.items():
        part = slice(begin, begin + width)
        begin += width
        own = block.rest & np.array([kind in used.split("+") for used in block.used])
        seconds[kind] = hop * float(own.sum())
        if seconds[kind] < LEAST_SECONDS:
            continue
        variances = []
        for session in np.unique(block.session[own]).tolist():
            rows = own & (block.session == session)
            if rows.sum() > 1:
                _, sd = resting_statistics(block.embedding[rows, part], pooled[part], rest.prior_windows, rest.floor)
                variances.append(np.square(sd))
        pooled[part] = np.sqrt(np.mean(variances, axis=0))
    known = [kind for kind, length in seconds.items() if length >= LEAST_SECONDS]
    if not known:
        listed = ", ".join(f"{length:.0f} s of {kind.upper()}" for kind, length in seconds.items())
        raise TrainingError(
            f"{block.person}: too little rest: after the resting baseline of {rest.seconds:g} s there are {listed}; at "
            f"least {LEAST_SECONDS:g} s are needed, and for a figure of accuracy a phase that differs. Record longer."
        )
    said = (
        f"the spread at rest is {block.person}'s own ({' and '.join(kind.upper() for kind in known)}); how good the "
        f"estimates are for {block.person} was not measured, as only rest was recorded"
    )
    accuracy = f"{said}. Of the model that it was made from: {manifest.accuracy}"
    changed = dataclasses.replace(
        manifest,
        rest=dataclasses.replace(rest, pooled_sd=tuple(float(value) for value in pooled)),
        accuracy=accuracy[:500],
    )
    about = {"rest": seconds, "spread at rest": known}
    return _write(block, bundle, changed, to, about, {}, said)


def _write(
    block: Block,
    bundle: Bundle,
    manifest: Manifest,
    to: Path,
    about: Mapping[str, object],
    measured: Mapping[str, Measured],
    said: str,
) -> Personal:
    whose = f"made for {block.person} from recordings of {block.person}, and for nobody else"
    personal = {
        "person": block.person,
        "from": bundle.label,
        "recordings": dict(block.sha256),
        "windows": len(block.t_end),
        "withheld": block.withheld,
        **about,
    }
    # Graphs of lower precision stay what they are too: nothing of the network has changed.
    files = {name: bundle.read(name) for name in bundle.files}
    written = write_bundle(
        to,
        dataclasses.replace(
            manifest,
            name=f"{bundle.manifest.name[: 99 - len(block.person)]}-{block.person}",
            limits=f"{whose}; {bundle.manifest.limits}"[:500],
            metrics={**bundle.manifest.metrics, "personal": personal},
            training={**bundle.manifest.training, "personal": {"command": "insula calibrate", **personal}},
        ),
        files,
    )
    general = bundle.folder / "README.md"
    before = general.read_text(encoding="utf-8") if general.is_file() else ""
    (to / "README.md").write_text(
        f"# {written.manifest.name} {written.manifest.version}\n\n{whose[0].upper()}{whose[1:]}.\n\n"
        f"{said[0].upper()}{said[1:]}.\n\nOne person and few recordings: there is no interval, and what drifts with "
        f"time within a recording is part of the figure. Made from {bundle.label} by `insula calibrate`"
        f"{', whose card follows' if before else ''}.\n\n{before}",
        encoding="utf-8",
    )
    return Personal(written, block.person, measured, said, block.skipped)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()

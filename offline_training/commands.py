"""The commands of the training part: what they are asked, and what they answer. `insula.py` has them in its list.

Nothing heavy is imported before a command runs.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import math
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console

    from offline_training.shards import PartDone

SAID = 10
"""Of what was left out so many are told; all of them stand in the JSON."""


def add(commands: argparse._SubParsersAction[Any]) -> None:
    """Adds them to the subcommands of a parser; each sets ``run`` as those of `insula.py` do."""
    one = commands.add_parser(
        "prepare",
        help="cut the windows of a data set, as live sessions see them, and keep them on disk for training",
        description="Cuts the windows of a data set as live sessions see them. Run it again to go on where it stopped.",
    )
    one.add_argument("dataset", metavar="DATASET", help="the name of a data set; a wrong one is answered with all")
    one.add_argument("folder", type=Path, metavar="FOLDER", help="where its files are")
    one.add_argument("--to", type=Path, required=True, metavar="SHARDS", help="the folder for the windows")
    one.add_argument(
        "--jobs", type=counted, default=os.cpu_count() or 1, metavar="N", help="processes (default: one a core)"
    )
    one.add_argument(
        "--kind", choices=("eeg", "ecg", "both"), help="of signal (default: what the data set has for training)"
    )
    one.add_argument("--seconds", type=float, metavar="S", help="length of a window (default: 10)")
    one.add_argument(
        "--every", type=float, metavar="S", help="between windows (default: 2 with labels, half a window without)"
    )
    one.add_argument(
        "--channels",
        nargs="+",
        default=(),
        metavar="LABEL",
        help="the electrodes of a headset (default: 19, or its own)",
    )
    one.set_defaults(run=prepare)

    one = commands.add_parser(
        "pretrain",
        help="train an encoder to fill in what is hidden of windows without labels",
        description="Trains an encoder on shards. Run it again to go on where it stopped; under torchrun it uses all "
        "devices: torchrun --nproc-per-node 2 -m insula pretrain ...",
    )
    one.add_argument("kind", choices=("eeg", "ecg"), help="of signal")
    one.add_argument("shards", type=Path, nargs="+", metavar="SHARDS", help="folders that `insula prepare` has made")
    one.add_argument("--to", type=Path, required=True, metavar="FOLDER", help="for weights, card, pictures, checkpoint")
    one.add_argument(
        "--size", choices=("small", "medium", "published"), default="small", help="of the network (default: small)"
    )
    one.add_argument("--epochs", type=above_zero, default=40.0, metavar="N", help="how often each window is shown (40)")
    one.add_argument("--steps", type=counted, default=0, metavar="N", help="instead of --epochs")
    one.add_argument("--batch", type=counted, default=128, metavar="N", help="windows of a step (128)")
    one.add_argument(
        "--rate", type=above_zero, metavar="R", help="highest learning rate (0.003; published size: 0.0005)"
    )
    one.add_argument("--seed", type=int, default=0, metavar="N", help="of every draw (0)")
    one.add_argument(
        "--exclude", nargs="+", default=(), metavar="PERSON", help="people that are neither trained on nor held out"
    )
    one.add_argument(
        "--held-out", type=share, default=0.05, metavar="SHARE", help="of the people, only looked at (0.05)"
    )
    one.add_argument(
        "--precision", choices=("auto", "bf16", "fp32"), default="auto", help="auto: bf16 on a GPU that has it"
    )
    one.add_argument("--workers", type=int, default=0, metavar="N", help="processes that read (0: the one that trains)")
    one.add_argument("--cpu", action="store_true", help="no GPU, even where there is one")
    one.set_defaults(run=pretrain)

    trained = argparse.ArgumentParser(add_help=False)
    trained.add_argument("shards", type=Path, metavar="SHARDS", help="a folder that `insula prepare` has made")
    trained.add_argument("--target", required=True, metavar="NAME", help="what is to be estimated")
    trained.add_argument("--to", type=Path, required=True, metavar="RUN", help="the run folder")
    trained.add_argument(
        "--exclude", nargs="+", metavar="PERSON", help="people of whom nothing may be in the network that is kept"
    )
    for kind, also in (("eeg", ", or official for those of CBraMod"), ("ecg", "")):
        trained.add_argument(
            f"--{kind}-weights", metavar="FOLDER", help=f"weights of `insula pretrain {kind}` to begin with{also}"
        )
    trained.add_argument("--encoder", default="", metavar="NAME", help="`insula models` lists them (default: cbramod)")
    trained.add_argument("--size", choices=("small", "medium", "published"), default="", help="of cbramod (small)")
    trained.add_argument(
        "--set", action="append", default=[], metavar="NAME=VALUE", help="a setting; a wrong name is answered with all"
    )
    trained.add_argument("--seed", type=int, metavar="N", help="of every draw (0)")
    trained.add_argument("--quick", action="store_true", help="leave the encoders as they are, train the head alone")

    one = commands.add_parser(
        "evaluate",
        parents=[trained],
        help="measure how good a model is on people it was not trained on",
        description="Trains and scores by folds of people, beside what has to be beaten. Run it again to go on where "
        "it stopped.",
    )
    one.add_argument(
        "--folds", type=folds, default=5, metavar="N", help='number of folds, or "people": one left out at a time (5)'
    )
    one.add_argument(
        "--choose",
        action="append",
        default=[],
        metavar="NAME=V,V",
        help="a setting that is chosen in every fold, by folds among the people trained on",
    )
    one.add_argument(
        "--only", nargs="*", metavar="ROWS", help="what stands beside the network; a wrong name is answered with all"
    )
    one.set_defaults(run=evaluate)

    one = commands.add_parser(
        "finetune",
        parents=[trained],
        help="train the network that is kept, on everybody but those excluded",
        description="Where RUN has an evaluation its settings, seed and people left out are taken.",
    )
    one.set_defaults(run=finetune)

    one = commands.add_parser("export", help="make a bundle of a run that was evaluated and fine-tuned")
    one.add_argument("folder", type=Path, metavar="RUN", help="the run folder")
    one.add_argument("--to", type=Path, required=True, metavar="BUNDLE", help="the bundle's folder")
    one.add_argument("--name", default="", help="of the model (default: insula- and the target)")
    one.add_argument("--version", default="0.1.0", help="of the model (0.1.0)")
    one.add_argument("--limits", default="", metavar="TEXT", help="one line: what the estimate is not")
    one.add_argument("--licence", default="", metavar="TEXT", help="one line: who may do what with the weights")
    one.set_defaults(run=export)

    one = commands.add_parser(
        "calibrate",
        help="fit a bundle to one person, from a recorded resting or labelled block",
        description="Takes seconds, and says how good the estimates are for this person, where that can be measured.",
    )
    one.add_argument("records", type=Path, nargs="+", metavar="RECORD.xdf", help="recordings of one person")
    one.add_argument("--bundle", type=Path, metavar="BUNDLE", help="what is fitted (default: the one that ships)")
    one.add_argument("--to", type=Path, required=True, metavar="BUNDLE2", help="the folder of the personal bundle")
    one.add_argument(
        "--labels",
        type=Path,
        metavar="labels.toml",
        help="which markers are phases, and what they tell (beside RECORD)",
    )
    one.set_defaults(run=calibrate)


def folds(text: str) -> int:
    """A number of folds; 0 for one a person."""
    if text == "people":
        return 0
    if not text.isdecimal() or int(text) < 2:
        raise argparse.ArgumentTypeError(f'{text}: a whole number from 2, or "people"')
    return int(text)


def share(text: str) -> float:
    """A number between 0 and 1, neither of them."""
    value = above_zero(text)
    if not value < 1:
        raise argparse.ArgumentTypeError(f"{text!r}: expected a share below 1, such as 0.2")
    return value


def counted(text: str) -> int:
    """A whole number above 0."""
    try:
        value = int(text)
    except ValueError:
        value = 0
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text}: a whole number above 0")
    return value


def above_zero(text: str) -> float:
    """A number above 0."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"{text}: a number above 0")
    return value


def needs(command: str, *packages: str) -> None:
    """Raises TrainingError unless all ``packages`` are installed."""
    from offline_training.api import TrainingError

    missing = [name for name in packages if importlib.util.find_spec(name) is None]
    if missing:
        raise TrainingError(f'`insula {command}` needs {", ".join(missing)}; run: pip install ".[train]"')


@contextlib.contextmanager
def stoppable() -> Iterator[None]:
    """SIGTERM stops as Ctrl-C does, so that what was begun is wound up."""

    def stop(number: int, frame: object) -> None:  # noqa: ARG001  (the signature is Python's)
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def prepare(options: argparse.Namespace, console: Console) -> int:
    """Cut the windows of a data set into shards."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from offline_training import shards

    kinds = () if options.kind is None else ("eeg", "ecg") if options.kind == "both" else (options.kind,)
    wanted = shards.plan(
        options.dataset,
        options.folder,
        kinds=kinds,
        seconds=options.seconds,
        every=options.every,
        channels=options.channels,
    )
    columns = (
        TextColumn("preparing"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("parts, {task.fields[windows]} windows"),
        TimeRemainingColumn(),
    )
    windows = fresh = 0
    with stoppable(), Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task("", total=None, windows=0)

        def told(done: int, of: int, part: PartDone) -> None:
            nonlocal windows, fresh
            windows, fresh = windows + part.windows, fresh + part.fresh
            bar.update(task, completed=done, total=of, windows=windows)

        written = shards.write(wanted, options.to, jobs=options.jobs, told=told)
    found = shards.Shards(options.to)
    console.print(f"shards      {options.to}")
    lasting = written.windows * wanted.spec.seconds / 3600
    console.print(
        f"windows     {written.windows} of {wanted.spec.seconds:g} s ({lasting:.1f} h, where they overlap counted "
        f"twice), {len(found.people)} people, {len(found.parts)} parts"
    )
    if fresh < len(written.parts):
        console.print(f"kept        {len(written.parts) - fresh} parts that were prepared before")
    if written.left_out:
        console.print(f"left out    {written.left_out} windows without any signal")
    skipped = written.skipped
    if skipped:
        console.print(f"skipped     {len(skipped)}, all of them in {options.to / shards.LIST}")
        for one in skipped[:SAID]:
            console.print(f"            {one.where}: {one.why}")
    return 0


def pretrain(options: argparse.Namespace, console: Console) -> int:
    """Train an encoder on windows without labels."""
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    needs("pretrain", "torch", "accelerate", "safetensors", "matplotlib")
    from offline_training import pretrain as training

    rate = options.rate or (5e-4 if options.size == "published" else training.Settings().rate)
    settings = training.Settings(
        size=options.size,
        epochs=options.epochs,
        steps=options.steps,
        batch=options.batch,
        rate=rate,
        final_rate=min(rate, training.Settings().final_rate),
        seed=options.seed,
        held_out=options.held_out,
        precision=options.precision,
    )
    corpus = training.gather(options.kind, options.shards, settings, options.exclude)
    # Of the processes that torchrun starts the first one speaks.
    console.quiet = os.environ.get("RANK", "0") != "0"
    console.print(
        f"windows     {sum(len(one) for one in corpus.trained)} of {len(corpus.people)} people; of "
        f"{len(corpus.held_out)} people held out {sum(len(one) for one in corpus.watched)} are looked at"
    )
    if corpus.unusable:
        console.print(f"left out    {corpus.unusable} windows without a good channel")
    columns = (
        TextColumn("training"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("steps, loss {task.fields[loss]}, held out {task.fields[held_out]}"),
        TimeRemainingColumn(),
    )
    halts = 0

    def halt(number: int, frame: object) -> None:  # noqa: ARG001  (the signature is Python's)
        nonlocal halts
        halts += 1
        if halts > 1:
            raise KeyboardInterrupt

    before = {number: signal.signal(number, halt) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        with Bar(*columns, console=console, disable=not console.is_terminal) as bar:
            task = bar.add_task("", total=None, loss="", held_out="")

            def told(now: training.Progress) -> None:
                left = "" if now.held_out is None else f"{now.held_out.loss:.4f}"
                bar.update(task, completed=now.step, total=now.steps, loss=f"{now.loss:.4f}", held_out=left)

            run = training.pretrain(
                corpus,
                options.to,
                settings,
                cpu=options.cpu,
                workers=options.workers,
                told=told,
                stopped=lambda: halts > 0,
            )
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    last = run.looks[-1]
    speed = "" if math.isnan(run.windows_per_second) else f", {run.windows_per_second:.0f} windows/s"
    console.print(f"trained     {run.step} steps of {settings.batch} windows{speed}")
    console.print(
        f"held out    loss {last.loss:.4f}, of zeros {last.reference:.4f}: {100 * last.loss / last.reference:.1f} % is "
        "left of what was hidden"
    )
    console.print(f"encoder     {options.to / training.WEIGHTS}, its card {training.CARD} beside it")
    return 0


TRAINING = ("torch", "onnx", "onnxscript", "safetensors", "sklearn", "pyriemann", "accelerate", "matplotlib")


def evaluate(options: argparse.Namespace, console: Console) -> int:
    """Measure how good a model is on people it was not trained on."""
    needs("evaluate", *TRAINING)
    from offline_training import runs
    from offline_training.crossvalidate import COMPARED, Plan
    from offline_training.finetune import Settings
    from offline_training.weights import weights_asked

    plan = Plan(
        settings=runs.settings_asked(
            Settings(), size=options.size, given=options.set, quick=options.quick, encoder=options.encoder
        ),
        grid=runs.grid_asked(options.choose),
        seed=options.seed or 0,
        weights=weights_asked(eeg=options.eeg_weights, ecg=options.ecg_weights),
        compared=tuple(COMPARED) if options.only is None else tuple(options.only),
    )
    study = runs.study_of(options.shards, options.target, plan, folds=options.folds, excluded=options.exclude or ())
    prepared = study.prepared
    console.print(f"windows     {len(prepared.label)} of {len(prepared.people)} people, {prepared.scored.sum()} scored")
    for who, why in list(study.left_out.items())[:SAID]:
        console.print(f"left out    {who} {why}")
    with stoppable():
        found = runs.evaluate_study(study, options.to, told=lambda line: console.print(f"            {line}"))
    console.print(found["table"])
    console.print(f"settings    {found['selection']}")
    console.print(f"accuracy    {found['accuracy']}")
    console.print(f"report      {options.to / runs.PAGE}")
    return 0


def finetune(options: argparse.Namespace, console: Console) -> int:
    """Train the network that is kept."""
    needs("finetune", *TRAINING)
    from offline_training import runs
    from offline_training.crossvalidate import Plan
    from offline_training.finetune import Settings
    from offline_training.weights import weights_asked

    base, seed, excluded = Settings(), options.seed, options.exclude
    evaluation = None
    if (options.to / runs.EVALUATION).is_file():
        evaluation = runs.read_run(options.to, runs.EVALUATION, "insula evaluate")
        base = runs.settings_of(evaluation["settings"], options.to / runs.EVALUATION)
        seed = evaluation["seed"] if seed is None else seed
        excluded = evaluation["excluded"] if excluded is None else excluded
    plan = Plan(
        settings=runs.settings_asked(
            base, size=options.size, given=options.set, quick=options.quick, encoder=options.encoder
        ),
        seed=seed or 0,
        weights=weights_asked(eeg=options.eeg_weights, ecg=options.ecg_weights),
    )
    study = runs.study_of(options.shards, options.target, plan, excluded=excluded or ())
    settings = study.plan.settings
    if evaluation is not None:
        runs.refuse_difference(options.to, evaluation["identity"], study.identity(settings))
    with stoppable():
        kept = runs.finetune_study(study, settings, options.to)
    size = sum(one.numel() for one in kept.trained.network.parameters())
    console.print(f"network     {size:,} parameters, {len(study.prepared.people) - len(study.excluded)} people")
    if study.excluded:
        console.print(f"excluded    {', '.join(study.excluded)}")
    console.print(f"seed        {plan.seed}")
    console.print(f"weights     {options.to / runs.WEIGHTS}, what they are of in {runs.NETWORK} beside them")
    if evaluation is None:
        console.print("evaluation  there is none yet; `insula export` wants one of just these settings and people")
    return 0


def export(options: argparse.Namespace, console: Console) -> int:
    """Make a bundle of a run."""
    needs("export", *TRAINING)
    from offline_training import runs

    bundle = runs.export_run(
        options.folder,
        options.to,
        name=options.name,
        version=options.version,
        limits=options.limits,
        licence=options.licence,
    )
    console.print(f"bundle      {bundle.label} in {options.to}, its card README.md beside it")
    console.print(f"accuracy    {bundle.manifest.accuracy}")
    return 0


def calibrate(options: argparse.Namespace, console: Console) -> int:
    """Fit a bundle to one person."""
    from models.bundle import default_bundle_folder, load_bundle
    from models.runtimes import load_runtime
    from offline_training.personal import calibrate_person

    bundle = load_bundle(options.bundle or default_bundle_folder())
    found = calibrate_person(options.records, bundle, load_runtime("ort", bundle), options.to, options.labels)
    for one in found.skipped[:SAID]:
        console.print(f"skipped     {one.where}: {one.why}")
    console.print(f"person      {found.person}")
    console.print(f"measured    {found.said}")
    console.print(f"bundle      {found.bundle.label} in {options.to}")
    return 0

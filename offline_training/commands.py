"""The commands of the training part: what they are asked, and what they answer. `insula.py` has them in its list.

Nothing heavy is imported before a command runs.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
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
    one.set_defaults(run=prepare)


def counted(text: str) -> int:
    """A whole number above 0."""
    try:
        value = int(text)
    except ValueError:
        value = 0
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text}: a whole number above 0")
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
    wanted = shards.plan(options.dataset, options.folder, kinds=kinds, seconds=options.seconds, every=options.every)
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

"""insula: live EEG and ECG in, signal quality and affect estimates out. Research use, not a medical device.

The command line, and the few names for use from Python. What a command needs is imported when it is needed.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import io
import itertools
import math
import os
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import ExitStack
from datetime import datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, Self, TypeAlias, TypeVar

if TYPE_CHECKING:
    from rich.console import Console

    from devices.api import Device, StreamInfo, Transport
    from devices.xdf_format import StreamSummary
    from models.api import Estimate, Runtime
    from models.bundle import Bundle
    from models.model import Model
    from realtime.api import Body, Health, Noted
    from realtime.record import Recorder, Study
    from realtime.remote import Server
    from realtime.session import Session, Summary
    from realtime.sources import Picked

Said = TypeVar("Said")
Plan: TypeAlias = "tuple[str, Sequence[str], Path | Study | None, str | None]"
DEMO_PERSON = "05"
"""Of eegmat: the person of the recording that ships, left out of the training of the model that ships."""
MANY = 12
"""Sources of one kind that `insula devices` lists without being asked for that kind."""
RESEARCH_USE = "Research use only, not a medical device."
_CODED = re.compile(r"([A-Za-z0-9]{1,64})=([a-z]+:.*)", re.DOTALL)
_CODED_BADLY = re.compile(r"([^=:]*)=([a-z]+:.*)", re.DOTALL)
_OBEYED = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


class UsageError(Exception):
    """A request that cannot be served; one line that says what to do."""


class OutputError(OSError):
    """What is to be printed cannot be written."""


def demo_recording() -> Path:
    """The recording that ships: 19 channels of EEG and one of ECG, rest, then mental arithmetic."""
    import devices

    return Path(next(iter(devices.__path__))) / "recordings" / "eegmat_subject05.xdf"


def installed_version() -> str:
    try:
        return version("insula")
    except PackageNotFoundError:
        return "not installed"


# -- models ------------------------------------------------------------------------------------------------------------


def open_bundle(folder: str | None, runtime: str, console: Console) -> tuple[Bundle, Runtime]:
    """The bundle in a folder (the default one without) and its runtime, both told. Raises models.api.ModelError."""
    from models.bundle import default_bundle_folder, load_bundle
    from models.runtimes import load_runtime

    bundle = load_bundle(Path(folder) if folder else default_bundle_folder())
    loaded = load_runtime(runtime, bundle, lambda line: console.print(line, style="yellow"))
    console.print(f"{bundle.label} in {loaded.about}")
    return bundle, loaded


def open_model(folder: str | None, runtime: str, console: Console) -> Model:
    """As `open_bundle`, for one session."""
    from models.model import Model

    return Model(*open_bundle(folder, runtime, console))


# -- what becomes of estimates -----------------------------------------------------------------------------------------


class EstimateTable:
    """Estimates as CSV, a row a window, each whole row with the operating system at once. Never overwrites.

    A replay that is wound back repeats itself to the last bit; what it repeats is in the table already.
    """

    def __init__(self, path: Path, targets: Sequence[str]) -> None:
        from models.api import estimate_channels

        *names, quality, used_eeg, used_ecg = estimate_channels(targets)
        self._newest = -math.inf
        try:
            self._file = path.open("xb", buffering=0)
            present = ("present_eeg", "present_ecg")
            self._write(["t_end", *names, *present, quality, used_eeg, used_ecg, "unused", "withheld"])
        except OSError as error:
            raise UsageError(f"{path}: cannot be written ({error.strerror}). Check folder and disk.") from None

    def __call__(self, estimate: Estimate) -> None:
        if estimate.t_end <= self._newest:
            return
        self._newest = estimate.t_end
        # repr gives the shortest text that reads back as the same number: equal files are equal estimates.
        *given, quality, eeg, ecg = (repr(value) if math.isfinite(value) else "" for value in estimate.values())
        present = [repr(estimate.present.get(kind, 0.0)) for kind in ("eeg", "ecg")]
        why = "; ".join(estimate.unused)
        self._write([repr(estimate.t_end), *given, *present, quality, eeg, ecg, why, estimate.withheld or ""])

    def _write(self, cells: Sequence[str]) -> None:
        row = io.StringIO(newline="")
        csv.writer(row).writerow(cells)
        content = row.getvalue().encode()
        whole = self._file.tell()
        try:
            while content:
                content = content[self._file.write(content) or 0 :]
        except OSError:
            self._file.truncate(whole)  # a full disk must not leave half a row
            self._file.seek(whole)
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self._file.close()


def check_writable(folder: Path) -> None:
    """Before anything is opened: something can be made below ``folder``, which need not be there. Raises UsageError."""
    there = next(above for above in (folder.absolute(), *folder.absolute().parents) if above.exists())
    if hasattr(os, "statvfs") and os.statvfs(there).f_flag & os.ST_RDONLY:
        raise UsageError(f"{there}: the disk is read-only. Choose another folder.")
    if not os.access(there, os.W_OK | os.X_OK) or not there.is_dir():
        raise UsageError(f"{there}: nothing can be written there. Check its rights, or choose another folder.")


def check_outputs(*paths: str | None) -> None:
    """Before anything is opened: every output can be made, and none is there already. Raises UsageError."""
    wanted = [Path(path) for path in paths if path]
    for path in wanted:
        if path.exists():
            raise UsageError(f"{path}: exists already, nothing is overwritten. Choose another name.")
        if not path.parent.is_dir():
            raise UsageError(f"{path}: there is no folder {path.parent}. Make it first.")
        check_writable(path.parent)
    if len({path.absolute() for path in wanted}) < len(wanted):
        raise UsageError(f"{wanted[0]}: is asked for twice. Give estimates and record names of their own.")


def about(bundle: Bundle | None, title: str) -> dict[str, str]:
    """What a record says of the session in its header."""
    said = {"title": title, "software": f"insula {installed_version()}", "use": RESEARCH_USE}
    if bundle is not None:
        spec = bundle.manifest.window
        said |= {
            "model": bundle.manifest.name,
            "model_hash": bundle.hash,
            "window_seconds": repr(spec.seconds),
            "hop_seconds": repr(spec.hop),
        }
    return said


def place_of(path: str | None, options: argparse.Namespace, whose: str | None = None) -> Path | Study | None:
    """Where a session is recorded: in a file that ends in .xdf, else as the next run of a study folder.

    Of several people it is ``whose``.

    Raises UsageError, and XdfError for a label that is none, before anything is opened.
    """
    from realtime.record import Study, study_path

    codes = {"participant": whose or options.participant, "session": options.session, "task": options.task}
    given = {**codes, "run": options.number}
    named = [f"--{name}" for name, code in given.items() if code is not None]
    if path is None or path.endswith(".xdf"):
        if named:
            raise UsageError(f"{', '.join(named)}: name a record in a study folder. Name a folder for the record too.")
        check_outputs(path)
        return None if path is None else Path(path)
    if Path(path).suffix and not Path(path).is_dir():
        raise UsageError(f"{path}: a record is a file that ends in .xdf, or a study folder. Choose one of the two.")
    place = Study(
        folder=Path(path),
        participant=codes["participant"] or "unnamed",
        session=codes["session"] or "",
        task=codes["task"] or "session",
        run=options.number,
    )
    check_writable(place.folder)
    study_path(place.folder, place.participant, place.session, place.task, place.run)
    return place


def recorder_for(
    place: Path | Study, bundle: Bundle | None, title: str, begun: Callable[[Path], None]
) -> Callable[[Sequence[StreamInfo]], Recorder]:
    """Starts the record and tells ``begun`` where it lies."""
    from realtime.record import start_record

    targets = [target.name for target in bundle.manifest.targets] if bundle else []

    def start(streams: Sequence[StreamInfo]) -> Recorder:
        recorder = start_record(place, streams, targets, about(bundle, title))
        begun(recorder.path)
        return recorder

    return start


# -- the dashboard, a process of its own -------------------------------------------------------------------------------


def has_display() -> bool:
    return sys.platform in ("win32", "darwin") or bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))


class Dashboard:
    """The window of a session. The session goes on when it is closed or killed."""

    def __init__(self, server: Server, console: Console) -> None:
        self._console = console
        self._address = server.address
        # A file, not a pipe: nobody reads while the session runs, and a full pipe would stop the window.
        self._said = tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace")  # noqa: SIM115 (closed below)
        self._gone = False
        self._process = subprocess.Popen(
            [sys.executable, "-m", "gui.app", "--attach", server.address],
            stderr=self._said,
            start_new_session=True,  # Ctrl-C in the terminal is for the session
        )

    def open(self) -> bool:
        """Whether the window is there; says once when it is gone while the session goes on."""
        status = self._process.poll()
        if status is None:
            return True
        if not self._gone:
            self._gone = True
            self._said.seek(0)
            last = self._said.read().strip().splitlines()[-1:]
            if status:
                self._console.print(f"The dashboard ended: {last[0] if last else f'status {status}'}")
            self._console.print(
                f"The session goes on. `insula dashboard` opens the window again, Ctrl-C stops. ({self._address})",
            )
        return False

    def wait(self, until: Callable[[], bool]) -> None:
        """Until the window is closed, or ``until`` says so."""
        while self._process.poll() is None and not until():
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(0.1)

    def close(self) -> None:
        self._process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(5.0)
        self._said.close()


class Interrupts:
    """Ctrl-C, SIGTERM and a closed terminal end all sessions in order; only the third in a row abandons them.

    A context manager for the main thread. The handler only counts: an exception in the middle of the wind-up would lose
    what waits for the disk. While the sources are still being opened nothing waits, and the first one ends it.
    """

    def __init__(self) -> None:
        self._sessions: list[Session] = []
        self.count = 0

    def watch(self, session: Session) -> None:
        """From now on they are for ``session``, too; also the one that came while its sources were being opened."""
        self._sessions.append(session)
        if self.count:
            session.stop()

    def _take(self, number: int, frame: object) -> None:  # noqa: ARG002  (the signature is Python's)
        self.count += 1
        for session in self._sessions:
            session.stop()
        if not any(session.running for session in self._sessions):
            raise KeyboardInterrupt
        if self.count == 2:
            with contextlib.suppress(OSError):  # the terminal may be what was closed; unbuffered: print may be at work
                os.write(2, b"insula: finishing; once more abandons what is not written yet\n")
        elif self.count > 2:
            raise KeyboardInterrupt

    def __enter__(self) -> Self:
        names = ("SIGINT", "SIGTERM", "SIGHUP")
        self._before = {number: signal.getsignal(number) for name in names if (number := getattr(signal, name, None))}
        for number in self._before:
            signal.signal(number, self._take)
        return self

    def __exit__(self, *exc: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)


def snapshot(server: Server, path: Path, console: Console) -> None:
    """The dashboard as a picture, rendered offscreen; one line that says what is missing where that cannot be."""
    environment = {**os.environ, "QT_QPA_PLATFORM": "offscreen"}
    command = [sys.executable, "-m", "gui.app", "--attach", server.address, "--snapshot", str(path)]
    try:
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=90, check=False)
    except subprocess.TimeoutExpired:
        console.print("No picture: the dashboard took more than 90 s to draw.", style="yellow")
        return
    if done.returncode:
        last = done.stderr.strip().splitlines()[-1:] or [f"status {done.returncode}"]
        console.print(f"No picture of the dashboard: {last[0]}", style="yellow")
    else:
        console.print(f"dashboard   {path}")


# -- running sessions --------------------------------------------------------------------------------------------------


def describe_sources(session: Session, console: Console, silent: Collection[str] = ()) -> None:
    """What was chosen, and what the model has to do without. Raises UsageError when there is neither EEG nor ECG.

    ``silent`` are the streams of a replay of which no sample came in the session.
    """
    from realtime.sources import lacking

    if session.card is None:
        for info in session.streams:
            rate = f"{info.rate:g} Hz" if info.rate else "no rate"
            what = f"{len(info.channels)} channels, {rate}" if info.numeric else "events"
            console.print(f"{info.key}: {info.name}, {what}")
        return
    say_picked(session.windower.picked.values(), silent, console)
    for kind, why in lacking(session.streams, session.windower.spec).items():
        console.print(f"{kind.upper():<4} {why}", style="yellow")
    if session.windower.picked:
        return
    if not any(info.kind in ("eeg", "ecg") and info.rate for info in session.streams):
        found = ", ".join(f"{info.name or info.key} ({info.kind}, {info.rate:g} Hz)" for info in session.streams)
        raise UsageError(f"{session.title}: no EEG and no ECG among {found or 'no streams at all'}. Check the source.")
    console.print("The model can use none of it: signals are shown and recorded, nothing is estimated.", style="yellow")


def say_picked(chosen: Iterable[Picked], silent: Collection[str], console: Console) -> None:
    """What feeds the model, a line a kind; of a stream of which no sample came, that the model has to do without."""
    for picked in chosen:
        kind = picked.kind.upper()
        if picked.stream in silent:
            console.print(f"{kind:<4} no {kind}: of {picked.stream}, which was chosen, no sample came", style="yellow")
        else:
            console.print(f"{kind:<4} {picked.why}")


def run_session(
    devices: Sequence[Device],
    model: Model | None,
    console: Console,
    *,
    title: str,
    headless: bool,
    estimates: str | None,
    record: Path | Study | None,
    name: str = "insula",
    seconds: float = math.inf,
    picture: Path | None = None,
    keep: Callable[[Estimate], None] | None = None,
    before_end: Callable[[], None] = lambda: None,
    interrupts: Interrupts | None = None,
) -> int:
    """Run a session with everything around it: dashboard, outlet, CSV, record, progress; the exit status.

    Without a ``model`` the session is recorded and shown, nothing is estimated.
    ``keep`` gets every estimate; ``before_end`` says what else there is to say of them; ``name`` is that of the LSL
    outlets. Where there are several sessions, each in a thread, ``interrupts`` are those of all.
    """
    from devices.api import Transport
    from devices.lsl import lsl_clock
    from realtime.outlet import AffectOutlet, PhysiologyOutlet
    from realtime.remote import Server
    from realtime.session import Session

    bundle = model.bundle if model else None
    transport = next((device for device in devices if isinstance(device, Transport)), None)
    recorded: Path | None = None

    def begun(path: Path) -> None:
        nonlocal recorded
        recorded = path
        console.print(f"recording to {path}")

    with ExitStack() as stack:
        server = stack.enter_context(Server(title))
        window: Dashboard | None = None
        session = Session(
            devices,
            model,
            title=title,
            clock=lsl_clock,
            server=server,
            recorder=recorder_for(record, bundle, title, begun) if record is not None else None,
            told=lambda noted: progress.tell(noted),
            linger=lambda: window is not None and window.open(),
        )
        silent = [info.key for device in devices for info in getattr(device, "silent", ())]
        describe_sources(session, console, silent)
        if keep:
            session.follow("table", keep)
        if estimates and session.card:
            session.follow(estimates, stack.enter_context(EstimateTable(Path(estimates), session.card.targets)))
        if session.card and (transport is None or transport.speed != math.inf):
            outlet = stack.enter_context(AffectOutlet(session.card, title, name))
            publish = now_stamped(outlet.push, estimate_time, transport, session.card.hop) if transport else outlet.push
            session.follow("LSL", publish)
        if transport is None or transport.speed != math.inf:
            figures = stack.enter_context(PhysiologyOutlet(title, name))
            follow = now_stamped(figures.push, body_time, transport, 1.0) if transport else figures.push
            session.follow_body("LSL physiology", follow)
        interrupts = interrupts or stack.enter_context(Interrupts())
        interrupts.watch(session)
        if not headless:
            window = Dashboard(server, console)
            stack.callback(window.close)
            console.print("Dashboard opened. Ctrl-C here stops the session.")
        progress = Progress(console, transport, headless)
        if headless and transport is None and model:
            session.follow("terminal", progress.say)
        began = math.nan

        def every(health: Health) -> None:
            nonlocal began
            if math.isnan(began):
                began = time.monotonic()  # every source is open: finding a strap may have taken long
            progress.show(health)
            if time.monotonic() - began > seconds:
                session.stop()
            elif window is not None and not interrupts.count:
                window.open()

        with progress:
            summary = session.run(every)
        if picture is not None:
            snapshot(server, picture, console)
        before_end()
        # A replay may just have been wound back: what never came of it is known from the recording.
        never = silent if transport else [key for key, count in summary.samples.items() if not count]
        status = conclude(summary, console, estimates, recorded, never)
        if window is not None and not interrupts.count:
            console.print("The session has ended; close the window to finish.")
            window.wait(lambda: interrupts.count > 0)
    return status


def estimate_time(estimate: Estimate) -> float:
    return estimate.t_end


def body_time(body: Body) -> float:
    return body.time


def now_stamped(
    push: Callable[[Said, float], None], moment: Callable[[Said], float], transport: Transport, hop: float
) -> Callable[[Said], None]:
    """Publishes what a replay says every ``hop`` seconds, which is about then, as if it were about now.

    While a replay catches up after a seek there is more than one for a moment: the first stands for all, so that
    stamps go forward.
    """
    from devices.lsl import lsl_clock

    newest = -math.inf

    def publish(said: Said) -> None:
        nonlocal newest
        stamp = moment(said) + lsl_clock() - transport.position
        if stamp >= newest + 0.5 * hop / max(transport.speed, 1.0):
            newest = stamp
            push(said, stamp)

    return publish


class Progress:
    """What the terminal shows while a session runs: a bar for a replay, alarms as they come for a live session."""

    def __init__(self, console: Console, transport: object, headless: bool) -> None:
        from rich.progress import BarColumn, TextColumn, TimeElapsedColumn
        from rich.progress import Progress as Bar

        from devices.api import Transport

        self._console = console
        self._transport = transport if isinstance(transport, Transport) else None
        self._bar: Bar | None = None
        if self._transport is not None and headless:
            self._bar = Bar(
                TextColumn("replaying"), BarColumn(), TextColumn("{task.fields[at]}"), TimeElapsedColumn(),
                console=console, transient=not console.is_terminal,
            )  # fmt: skip
            self._task = self._bar.add_task("", total=self._transport.stop - self._transport.start, at="")

    def show(self, health: Health) -> None:
        if self._bar is not None and self._transport is not None:
            done, total = health.now - self._transport.start, self._transport.stop - self._transport.start
            self._bar.update(self._task, completed=done, at=f"{done:.0f} of {total:.0f} s")

    def tell(self, noted: Noted) -> None:
        self._console.print(noted.text, style="bold red" if noted.alarm else "yellow")

    def say(self, estimate: Estimate) -> None:
        self._console.print(f"{estimate.t_end:12.1f} s  {words(estimate)}")

    def __enter__(self) -> Self:
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(self, *exc: object) -> None:
        if self._bar is not None:
            self._bar.stop()


def words(estimate: Estimate) -> str:
    """An estimate in words: the figures, or why there are none."""
    if estimate.withheld is not None:
        return f"withheld: {estimate.withheld}"
    figures = zip(estimate.targets, estimate.mean.tolist(), estimate.sd.tolist(), strict=True)
    alone = f"  ({'; '.join(estimate.unused)})" if estimate.unused else ""
    return "  ".join(f"{target} {mean:.2f} ± {sd:.2f}" for target, mean, sd in figures) + alone


def conclude(
    summary: Summary, console: Console, estimates: str | None, record: Path | None, silent: Sequence[str] = ()
) -> int:
    """What was done, of which streams no sample came, and where it lies; the exit status."""
    lost = sum(summary.lost.values())
    windows = f"{summary.windows} windows, {summary.estimates} with an estimate, {summary.skipped} skipped; "
    console.print(
        ("since it last began anew: " if summary.anew else "")
        + (windows if summary.windows else "")
        + f"{sum(summary.samples.values())} samples, {lost} lost or refused, {sum(summary.gaps.values())} gaps"
        + (f", {summary.unrecorded} entries not in the record" if summary.unrecorded else ""),
    )
    for key in silent:
        console.print(f"{key}: no sample came", style="yellow")
    for what, where in (("estimates", estimates), ("record", record)):
        if where:
            console.print(f"{what:<11} {where}")
    if summary.problem:
        console.print(summary.problem, style="bold red")
    return 1 if summary.problem else 0


# -- commands ----------------------------------------------------------------------------------------------------------


def demo(options: argparse.Namespace, console: Console) -> int:
    """Replay the recording that ships through the default model."""
    from devices.xdf import XdfReplay

    headless = options.headless or not has_display()
    folder = Path(options.to)
    out = folder / f"demo-{datetime.now():%Y%m%d-%H%M%S}"
    try:
        out.mkdir(parents=True)
    except OSError as error:
        raise UsageError(f"{out}: cannot be made ({error.strerror}). Name another folder with --to.") from None
    table, record = str(out / "estimates.csv"), out / "session.xdf"
    console.print(f"insula demo: a real recording of rest, then mental arithmetic. {RESEARCH_USE}")
    model = open_model(None, options.runtime, console)
    device = XdfReplay(demo_recording(), speed=math.inf if headless else 1.0)
    if not headless:
        console.print("It takes 4 minutes in real time; the first is the resting baseline. --headless is faster.")
    estimates: dict[float, Estimate] = {}
    return run_session(
        [device],
        model,
        console,
        title="demo",
        headless=headless,
        estimates=table,
        record=record,
        picture=out / "dashboard.png" if headless else None,
        keep=lambda estimate: estimates.__setitem__(estimate.t_end, estimate),
        before_end=lambda: phase_table(list(estimates.values()), phases(demo_recording()), model.bundle, console),
    )


def phases(recording: Path) -> list[tuple[float, float, str]]:
    """What the participant did: (from, to, phase) on the recording's clock, by its markers."""
    from devices.xdf_format import XdfFile

    with XdfFile(recording) as file:
        number = next(stream.id for stream in file.streams.values() if stream.type == "Markers")
        times, labels = file.read(number)
    marks = list(zip(times.tolist(), [str(label) for label in labels[:, 0]], strict=True))
    return [(begin, end, label) for (begin, label), (end, _) in itertools.pairwise(marks)]


def phase_table(
    estimates: Sequence[Estimate], truth: Sequence[tuple[float, float, str]], bundle: Bundle, console: Console
) -> None:
    """Estimates against what the participant really did."""
    from rich.table import Table

    if not estimates:
        return
    target, seconds = bundle.manifest.targets[0].name, bundle.manifest.window.seconds
    start = truth[0][0]
    table = Table("time", "true phase", target, "", "", title=f"{target} of a person the model was not trained on")
    for at in range(10, int(truth[-1][1] - start) + 1, 10):
        near = [estimate for estimate in estimates if 0 <= start + at - estimate.t_end < 1.0]
        phase = next((label for begin, end, label in truth if begin < start + at <= end), "")
        if near and near[-1].withheld is None:
            mean, sd = float(near[-1].mean[0]), float(near[-1].sd[0])
            table.add_row(f"{at} s", phase, f"{mean:.2f} ± {sd:.2f}", "█" * round(mean * 20), "")
        elif near:
            table.add_row(f"{at} s", phase, "", "", f"withheld: {near[-1].withheld}")
    console.print(table, soft_wrap=False)
    for name, begin, end in spans(truth):
        # A window that reaches back over the change shows both phases.
        inside = [e for e in estimates if begin + (seconds if name != truth[0][2] else 0) <= e.t_end <= end + 1e-6]
        given = [float(estimate.mean[0]) for estimate in inside if estimate.withheld is None]
        mean = sum(given) / len(given) if given else math.nan
        console.print(f"mean {target}, {name}: {mean:.2f} ({len(given)} of {len(inside)} windows)")
    console.print(f"{bundle.label}: {bundle.manifest.accuracy}. {bundle.manifest.limits}")
    if own := own_score(bundle):
        console.print(own)


def own_score(bundle: Bundle) -> str:
    """What the model's cross-validation says of the person of the demo, beside the others; "" when it says nothing."""
    people = bundle.manifest.metrics.get("per_person")
    scores = {
        name: figures["balanced_accuracy"]
        for name, figures in (people.items() if isinstance(people, dict) else ())
        if isinstance(figures, dict) and isinstance(figures.get("balanced_accuracy"), float)
    }
    if DEMO_PERSON not in scores:
        return ""
    return (
        f"People differ: in the cross-validation this person's balanced accuracy was {scores[DEMO_PERSON]:.2f}, "
        f"the median of all {len(scores)} people {statistics.median(scores.values()):.2f}."
    )


def spans(truth: Sequence[tuple[float, float, str]]) -> list[tuple[str, float, float]]:
    """The last minute of the first phase, and all of every later one."""
    (_, end, first), *later = truth
    return [(f"last minute of {first}", end - 60.0, end), *((label, begin, end) for begin, end, label in later)]


def replay(options: argparse.Namespace, console: Console) -> int:
    """Replay a recording through the model."""
    from devices.xdf import XdfReplay

    place = place_of(options.record, options)
    check_outputs(options.estimates)
    if options.end is not None and options.end <= (options.begin or 0.0):
        raise UsageError(
            f"--from {options.begin or 0:g} --to {options.end:g}: nothing lies between. Give a later --to."
        )
    headless = options.headless or not has_display()
    speed = options.speed or (math.inf if headless and not options.loop else 1.0)
    if options.loop and speed == math.inf:
        raise UsageError("--loop --speed max: has no end and no pace. Give a --speed in numbers.")
    device = XdfReplay(options.file, start=options.begin, stop=options.end, speed=speed)
    device.set_loop(options.loop)
    if not device.streams and device.findings:
        raise UsageError(f"{options.file}: no stream can be read. {device.findings[0]}")
    for finding in device.findings:
        console.print(finding, style="yellow")
    return run_session(
        [device],
        open_model(options.model, options.runtime, console),
        console,
        title=f"replay of {Path(options.file).name}",
        headless=headless,
        estimates=options.estimates,
        record=place,
    )


def live(options: argparse.Namespace, console: Console) -> int:
    """Estimate from live sources."""
    people = people_of(options.source)
    if people:
        plans = plans_of(people, options.record, options.estimates, options)
        return attend_together(options, plans, "live", open_bundle(options.model, options.runtime, console))
    place = place_of(options.record, options)
    check_outputs(options.estimates)
    model = open_model(options.model, options.runtime, console)
    return attend(options, options.source, console, model, "live", options.estimates, place)


def record(options: argparse.Namespace, console: Console) -> int:
    """Record live sources; nothing is estimated."""
    if people := people_of(options.source):
        return attend_together(options, plans_of(people, options.to, None, options), "recording", None)
    return attend(options, options.source, console, None, "recording", None, place_of(options.to, options))


def people_of(sources: Sequence[str]) -> dict[str, list[str]]:
    """The addresses of each of several people, by the code before them: ``P01=lsl:name=A``. None without codes."""
    found = [_CODED.fullmatch(source) for source in sources]
    people: dict[str, list[str]] = {}
    for source, coded in zip(sources, found, strict=True):
        if coded:
            people.setdefault(coded[1], []).append(coded[2])
        elif bad := _CODED_BADLY.fullmatch(source):
            raise UsageError(
                f"{source}: {bad[1]!r} is no code of a person. Use letters and digits, at most 64, as in P01={bad[2]}."
            )
        elif any(found):
            raise UsageError(f"{source}: whose is it? Of several people each source needs a code, as in P01={source}.")
    return people


def plans_of(
    people: Mapping[str, Sequence[str]], folder: str | None, table: str | None, options: argparse.Namespace
) -> list[Plan]:
    """For each person: code, addresses, place of the record, table of estimates. Raises UsageError."""
    if options.participant is not None:
        raise UsageError("--participant: the codes before the sources say whom they are of. Leave it out.")
    if folder is not None and folder.endswith(".xdf"):
        raise UsageError(f"{folder}: several people need several records. Name a study folder.")
    plans = []
    for code, addresses in people.items():
        own = table and str(Path(table).with_stem(f"{Path(table).stem}-{code}"))
        plans.append((code, addresses, place_of(folder, options, folder and code), own))
        check_outputs(own)
    return plans


def attend_together(
    options: argparse.Namespace, plans: Sequence[Plan], title: str, computed: tuple[Bundle, Runtime] | None
) -> int:
    """A session for each person, all in this process, with one model thread for all; the worst exit status."""
    from realtime.together import Desk

    statuses: dict[str, int] = {}
    taken: dict[str, str] = {}
    with ExitStack() as stack:
        interrupts = stack.enter_context(Interrupts())
        desk = stack.enter_context(Desk(*computed)) if computed else None

        def attend_one(code: str, addresses: Sequence[str], place: Path | Study | None, table: str | None) -> None:
            statuses[code] = 1
            try:
                console, seat = terminal(f"{code}: "), desk.seat() if desk else None
                statuses[code] = attend(options, addresses, console, seat, title, table, place, code, interrupts, taken)
            except Exception as error:  # noqa: BLE001  (one person's trouble ends one person's session)
                statuses[code] = refuse(error, f"{code}: ")

        threads = [threading.Thread(target=attend_one, args=plan, name=plan[0], daemon=True) for plan in plans]
        for thread in threads:
            thread.start()
        for thread in threads:
            while thread.is_alive():
                thread.join(0.2)  # a wait without an end is deaf to Ctrl-C on some systems
    return max(statuses.values())


def attend(
    options: argparse.Namespace,
    sources: Sequence[str],
    console: Console,
    model: Model | None,
    title: str,
    estimates: str | None,
    place: Path | Study | None,
    whose: str = "",
    interrupts: Interrupts | None = None,
    taken: dict[str, str] | None = None,
) -> int:
    """A session of live sources. Of several people at once, ``whose`` it is, and what the others have ``taken``."""
    from devices.api import DeviceError, open_device
    from devices.lsl import reach, use_network

    opened = [open_device(address) for address in sources]
    use_network()  # also without lsl: sources, for insula's own outlets
    own: dict[str, str] = {}
    for address, device in zip(sources, opened, strict=True):
        if not (uid := getattr(device, "uid", "")):
            continue
        if uid in own:
            raise DeviceError(f"{address}: is the same stream as {own[uid]}. Name each source once.")
        own[uid] = address
        # Several people may share markers, but no signals.
        signals = any(info.kind != "markers" for info in device.streams)
        if signals and taken is not None and (other := taken.setdefault(uid, whose)) != whose:
            raise DeviceError(f"{address}: is the same stream as one of {other}. Nobody shares a headset or strap.")
    console.print(RESEARCH_USE)
    if reaches := reach():
        console.print(reaches, style="yellow")
    for device in opened:
        if greeting := getattr(device, "greeting", ""):
            console.print(greeting)
    return run_session(
        opened,
        model,
        console,
        title=f"{title} {whose}".rstrip(),
        name=f"insula {whose}".rstrip(),
        headless=options.headless or not has_display(),
        estimates=estimates,
        record=place,
        seconds=options.seconds,
        interrupts=interrupts,
    )


def inspect(options: argparse.Namespace, console: Console) -> int:
    """Say what is in a recording."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    from devices.xdf import XdfReplay
    from devices.xdf_format import describe
    from models.bundle import default_bundle_folder, load_bundle
    from realtime.sources import choose, lacking

    streams = describe(options.file)
    table = Table(box=box.SIMPLE, padding=(0, 1, 0, 0))
    for heading in ("name", "type", "channels", "Hz", "effective", "seconds", "samples", "gaps", "offsets"):
        table.add_column(
            heading, overflow="fold", no_wrap=heading != "name", min_width=8 if heading == "name" else None
        )
    for stream in streams:
        table.add_row(*(Text(plain(cell)) for cell in stream_row(stream)))
    console.print(table, soft_wrap=False, crop=False, width=max(console.width, 100))
    for stream in streams:
        low, high = stream.offset_range
        offsets = f"; clock offsets {low * 1e3:+.3f} to {high * 1e3:+.3f} ms" if stream.offsets else ""
        unit = f" [{stream.unit}]" if stream.unit else ""
        console.print(f"{stream.name} ({stream.type}): {', '.join(stream.channels)}{unit}{offsets}")
    spec = load_bundle(Path(options.model) if options.model else default_bundle_folder()).manifest.window
    with XdfReplay(options.file) as device:
        for name, why in device.left_out:
            console.print(f"not used: {name}: {why}")
        for info in device.silent:
            console.print(f"{info.key}: no sample came")
        for key, count in device.missing.items():
            console.print(f"{key}: {count} samples or markers are known to be missing", style="yellow")
        say_picked(choose(device.streams, spec).values(), [info.key for info in device.silent], console)
        for kind, why in lacking(device.streams, spec).items():
            console.print(f"{kind.upper():<4} {why}", style="yellow")
        inside = [finding for stream in streams for finding in stream.findings]
        for finding in dict.fromkeys((*device.findings, *inside)):
            console.print(finding, style="yellow")
    return 0


def stream_row(stream: StreamSummary) -> tuple[str, ...]:
    """A stream as `insula inspect` shows it."""

    return (
        stream.name,
        stream.type,
        str(len(stream.channels)),
        f"{stream.rate:g}" if stream.rate else "irregular",
        f"{stream.effective_rate:.2f}" if math.isfinite(stream.effective_rate) else "-",
        f"{stream.duration:.1f}" if math.isfinite(stream.duration) else "-",
        str(stream.samples),
        f"{stream.gaps} ({stream.gap_seconds:.1f} s)" if stream.gaps else "none",
        str(stream.offsets) if stream.offsets else "none",
    )


def devices(options: argparse.Namespace, console: Console) -> int:
    """List the sources there are."""
    from concurrent.futures import ThreadPoolExecutor

    from devices.api import DeviceError, discover, schemes
    from devices.lsl import reach, use_network

    if options.scheme and options.scheme not in schemes():
        raise UsageError(f"{options.scheme}: no such kind of source. Known are {', '.join(schemes())}.")
    asked = [options.scheme] if options.scheme else schemes()
    use_network(options.lan)
    if reaches := reach():
        console.print(reaches, style="yellow")
    with ThreadPoolExecutor(len(asked)) as pool:  # looking takes seconds, and none waits for another
        answers = [(name, pool.submit(discover, name, options.seconds)) for name in asked]
    for name, answer in answers:
        try:
            found = answer.result()
        except DeviceError as error:
            if options.scheme:
                raise
            console.print(str(error), style="yellow")
            continue
        if len(found) > MANY and not options.scheme:
            console.print(f"{name}:<...>  {len(found)} kinds; `insula devices {name}` lists them")
            continue
        width = max((len(one.address) for one in found), default=0)
        for one in found:
            console.print(f"{one.address:<{width}}  {one.what}")
        if not found and options.scheme:
            console.print(f"insula cannot look for {name}: sources, or none is there right now.")
    return 0


def models(options: argparse.Namespace, console: Console) -> int:  # noqa: ARG001  (every command takes both)
    """List the bundles and encoders there are."""
    from models.api import ModelError
    from models.bundle import default_bundle_folder, load_bundle
    from models.encoders import encoders
    from models.hub import PUBLISHED, fetched, models_folder

    console.print("bundles, for --model:")
    folders = [default_bundle_folder(), *sorted(path.parent for path in models_folder().glob("*/manifest.json"))]
    for folder in folders:
        try:
            bundle = load_bundle(folder)
        except ModelError as error:
            console.print(f"  {error}", style="yellow")
            continue
        window = bundle.manifest.window
        taken = ", ".join(f"{len(one.channels)} x {one.kind.upper()}" for one in window.inputs)
        targets = ", ".join(target.name for target in bundle.manifest.targets)
        console.print(f"  {bundle.label}: {targets} from {taken}, {window.seconds:g} s at {window.rate:g} Hz")
        console.print(
            f"    {'the default' if folder == default_bundle_folder() else folder}; {bundle.manifest.accuracy}"
        )
    console.print("encoders, for training:")
    for name, said in encoders().items():
        console.print(f"  {name}: {said}")
        if path := fetched(name):
            console.print(f"    published weights: {path}")
        elif name in PUBLISHED:
            console.print(f"    published weights: not here; `insula models fetch {name}` fetches them")
    return 0


def fetch_weights(options: argparse.Namespace, console: Console) -> int:
    """Fetch the published weights of an encoder."""
    from rich.progress import DownloadColumn
    from rich.progress import Progress as Bar

    from models.hub import ABOUT, PUBLISHED, fetch

    with Bar("fetching", DownloadColumn(), console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task("", total=None)
        path = fetch(
            options.encoder,
            Path(options.to) if options.to else None,
            progress=lambda have, size: bar.update(task, completed=have, total=size),
        )
    published = PUBLISHED[options.encoder]
    console.print(f"weights     {path}")
    console.print(
        f"licence     {published.licence}; {published.repository} on the Hugging Face hub; see {ABOUT} beside it"
    )
    return 0


def deidentify(options: argparse.Namespace, console: Console) -> int:
    """Copy a recording without what tells whose it is."""
    from devices.xdf_deidentify import deidentify as rewrite

    check_outputs(options.target)
    removed = rewrite(Path(options.file), Path(options.target), markers="drop" if options.drop_markers else "keep")
    for line in removed.lines():
        console.print(line)
    console.print(f"written     {options.target}")
    return 0


def dashboard(options: argparse.Namespace, console: Console) -> int:  # noqa: ARG001  (every command takes both)
    """Open the window of a session that runs already."""
    from realtime.remote import running_sessions

    found = [options.session] if options.session else running_sessions()
    if not found:
        raise UsageError(
            "No session is running. Start one with `insula live SOURCE...`, `insula replay` or `insula demo`."
        )
    return subprocess.run([sys.executable, "-m", "gui.app", "--attach", found[-1]], check=False).returncode


# -- the command line --------------------------------------------------------------------------------------------------


def speed(text: str) -> float:
    try:
        value = math.inf if text == "max" else float(text)
    except ValueError:
        value = math.nan
    if not value > 0:
        raise argparse.ArgumentTypeError(f"{text}: a number above 0, or max")
    return value


def seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value < math.inf:
        raise argparse.ArgumentTypeError(f"{text}: a number of seconds, 0 or more")
    return value


def named(text: str) -> str:
    """A name or a code that was given: an empty one is a variable of a script that was not set."""
    if not text.strip():
        raise argparse.ArgumentTypeError("is empty. Name it, or leave the option out")
    return text


class Parser(argparse.ArgumentParser):
    """Says what is wrong with a command in one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}. See `{self.prog} --help`.\n")


def parser() -> argparse.ArgumentParser:
    made = Parser(
        prog="insula",
        description="Live EEG and ECG in; signal quality and affect estimates out, with their uncertainty.",
        epilog=RESEARCH_USE,
    )
    made.add_argument("--version", action="version", version=f"insula {installed_version()}")
    commands = made.add_subparsers(dest="command", required=True, metavar="COMMAND")

    study = Parser(add_help=False)
    study.add_argument("--headless", action="store_true", help="no dashboard, even where there is a display")
    study.add_argument(
        "--participant", type=named, metavar="CODE", help="in a study folder: never a name (default: unnamed)"
    )
    study.add_argument("--session", type=named, metavar="CODE", help="in a study folder (default: none)")
    study.add_argument("--task", type=named, metavar="CODE", help="in a study folder (default: session)")
    study.add_argument(
        "--run", dest="number", type=int, metavar="N", help="in a study folder (default: the first that is free)"
    )

    computed = Parser(add_help=False)
    computed.add_argument(
        "--runtime",
        default="ort",
        metavar="NAME",
        help="what computes the model: ort, openvino, pytorch, trt, rtx, or auto: a GPU if it can (default: ort)",
    )

    common = Parser(add_help=False, parents=[study, computed])
    common.add_argument(
        "--model", type=named, metavar="BUNDLE", help="folder of a model bundle (default: the one that ships)"
    )
    common.add_argument("--estimates", type=named, metavar="OUT.csv", help="write every estimate as a row")
    common.add_argument(
        "--record",
        type=named,
        metavar="PLACE",
        help="record raw streams, markers and estimates: OUT.xdf, or a study folder",
    )

    timed = Parser(add_help=False)
    timed.add_argument(
        "source",
        nargs="+",
        metavar="SOURCE",
        help="lsl:type=EEG, polar:, ...; see `insula devices`. Of several people: P01=lsl:name=A P02=lsl:name=B",
    )
    timed.add_argument("--seconds", type=seconds, default=math.inf, metavar="S", help="stop after so many seconds")

    one = commands.add_parser(
        "demo", parents=[computed], help="a real recording through the default model, no hardware needed"
    )
    one.add_argument("--headless", action="store_true", help="no dashboard: as fast as it goes, with a table")
    one.add_argument(
        "--to", type=named, metavar="DIR", default="insula-out", help="where its files go (default: %(default)s)"
    )
    one.set_defaults(run=demo)

    one = commands.add_parser("replay", parents=[common], help="a recorded XDF file through a model")
    one.add_argument("file", metavar="FILE.xdf")
    one.add_argument("--speed", type=speed, metavar="X|max", help="1 is real time (default: 1, max without dashboard)")
    one.add_argument("--from", dest="begin", type=seconds, metavar="S", help="begin so many seconds into the recording")
    one.add_argument("--to", dest="end", type=seconds, metavar="S", help="end so many seconds into the recording")
    one.add_argument("--loop", action="store_true", help="start again at the end, until stopped")
    one.set_defaults(run=replay)

    one = commands.add_parser(
        "live", parents=[common, timed], help="live sources through a model, for example lsl:type=EEG"
    )
    one.set_defaults(run=live)

    one = commands.add_parser("record", parents=[study, timed], help="record live sources, without a model")
    one.add_argument("--to", type=named, metavar="PLACE", required=True, help="a study folder, or OUT.xdf")
    one.set_defaults(run=record)

    one = commands.add_parser("inspect", help="what is in an XDF file, and what would be used as EEG and ECG")
    one.add_argument("file", metavar="FILE.xdf")
    one.add_argument("--model", metavar="BUNDLE", help="for which model (default: the one that ships)")
    one.set_defaults(run=inspect)

    one = commands.add_parser("devices", help="the sources there are, by the addresses that open them")
    one.add_argument("scheme", nargs="?", metavar="SCHEME", help="only lsl, brainflow, polar, ...")
    one.add_argument(
        "--seconds", type=seconds, default=3.0, metavar="S", help="how long to look (default: %(default)g)"
    )
    one.add_argument("--lan", action="store_true", help="look for LSL streams beyond this machine too")
    one.set_defaults(run=devices)

    one = commands.add_parser("models", help="the models and encoders there are; published weights")
    one.set_defaults(run=models)
    actions = one.add_subparsers(metavar="ACTION")
    one = actions.add_parser("fetch", help="download an encoder's published weights, checked, as safetensors")
    one.add_argument("encoder", metavar="ENCODER", help="cbramod")
    one.add_argument(
        "--to", type=named, metavar="DIR", help="where they go (default: a folder of insula's own, which is said)"
    )
    one.set_defaults(run=fetch_weights)

    one = commands.add_parser("deidentify", help="copy an XDF file without names, hosts, serials, addresses and dates")
    one.add_argument("file", metavar="FILE.xdf")
    one.add_argument("target", type=named, metavar="OUT.xdf")
    one.add_argument("--drop-markers", action="store_true", help="leave out marker texts, which may hold anything")
    one.set_defaults(run=deidentify)

    one = commands.add_parser("dashboard", help="open the window of a session that is running")
    one.add_argument("session", nargs="?", metavar="SESSION", help="its address (default: the newest)")
    one.set_defaults(run=dashboard)

    from offline_training.commands import add as add_training

    add_training(commands)
    return made


def plain(text: str) -> str:
    """Text, partly from outside, without what a terminal would obey: control characters and changes of direction.

    >>> plain("Cap\\x1b[2J\\u202e:warning: µV")
    'Cap\ufffd[2J\ufffd:warning: µV'
    """
    return _OBEYED.sub("\ufffd", text)


def terminal(before: str = "") -> Console:
    """Where results are printed, each text after ``before``: lines are never broken, so that paths can be copied.

    Texts are printed as they are, but `plain`. Whoever reads a pipe and leaves does not end a session.
    """
    from rich.console import Console

    class Terminal(Console):
        def print(self, *objects: Any, **more: Any) -> None:
            try:
                super().print(*(before + plain(one) if isinstance(one, str) else one for one in objects), **more)
            except OSError as error:
                raise OutputError(error.errno, error.strerror) from error

        def on_broken_pipe(self) -> None:
            self.quiet = True
            print_nowhere()

    # Not a terminal: wide enough for every table.
    width = None if sys.stdout.isatty() or "COLUMNS" in os.environ else 160
    return Terminal(highlight=False, markup=False, emoji=False, soft_wrap=True, width=width)


def print_nowhere() -> None:
    """What is still to be printed goes nowhere: where it cannot be written, the last flush of Python would fail."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)


def refuse(error: Exception, before: str = "") -> int:
    """Says in one line what the user or a file got wrong; the exit status for it. Other errors are raised again."""
    from devices.api import DeviceError
    from devices.xdf_format import XdfError
    from models.api import ModelError
    from offline_training.api import TrainingError
    from realtime.remote import RemoteError

    if isinstance(error, OutputError):
        error = UsageError(f"the output cannot be written ({error.strerror}). Let it go elsewhere.")
    if not isinstance(error, DeviceError | ModelError | TrainingError | XdfError | RemoteError | UsageError):
        raise error
    print(f"insula: {before}{' '.join(plain(str(error)).splitlines())}", file=sys.stderr)
    return 2


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; the exit status. A fault of the user's or of a file's is one line and status 2."""
    from realtime import heap

    options = parser().parse_args(arguments)
    heap.keep_together()
    try:
        status: int = options.run(options, terminal())
    except KeyboardInterrupt:
        print("insula: stopped", file=sys.stderr)
        return 130
    except Exception as error:  # noqa: BLE001  (only what is told in words is taken here)
        status = refuse(error)
    try:
        sys.stdout.flush()
    except OSError:
        print_nowhere()
    return status


if __name__ == "__main__":
    sys.exit(main())

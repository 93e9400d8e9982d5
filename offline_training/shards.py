"""Windows of any number of recordings on disk: written part by part, read window by window.

A folder of shards has one folder for each part of the data set, with

- ``eeg.npy``, ``ecg.npy``: (windows, channels, time) float32, filtered, in the order and unit of the window's inputs,
  as the windower cuts them: bad channels are as they came, absent ones zeros;
- ``columns.npz``: what is known of each window (`COLUMNS`);
- ``part.json``: data set, part, its sha256, the windows wanted, the code, versions, recordings, what was left out;

and ``shards.json``, which is written last: what it lists is whole, and a folder without it is not finished.

The format is NumPy's own: it is documented, needs no library, is mapped into memory without being read, and holds the
very bits that live sessions compute. LitData and WebDataset were weighed: both stream from far away, at the price of an
order that is only shuffled nearby (WebDataset reads a tar from its beginning) or of a copy in a format of their own,
and training here wants any window at any time.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import functools
import hashlib
import importlib.util
import json
import math
import multiprocessing
import os
import platform
import re
import shutil
import signal
import tempfile
import zipfile
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, BinaryIO, Self

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from models.api import InputSpec, ModelError, WindowSpec
from models.bundle import Gate, Target
from models.montage import channel_order
from offline_training.api import DataSet, Recording, Skipped, Source, TrainingError
from offline_training.datasets import open_dataset, targets_of
from offline_training.prepare import (
    DEFAULT_SPEC,
    SCORE_EVERY,
    TRAIN_EVERY,
    Columns,
    Cut,
    Prepared,
    code_that_cuts,
    columns_of,
    cut,
    labelled,
)
from realtime.sources import lacking

FORMAT = 1
"""Of what is on disk."""
COLUMNS = {
    "t_end": "session clock, seconds, at which the window ends",
    "start": "session clock, seconds, at which its session begins",
    "recording": "its number among the recordings of part.json, which say person, session and phase",
    "baseline": "whether it belongs to the resting baseline of its session",
    "value_<target>": "on the target's own range, NaN where nothing is told",
    "present_<kind>": "share of samples measured, 0 to 1",
    "score_<kind>": "(windows, channels) how good each channel is, 0 to 1; 0 also where it is absent",
}
NOTHING = frozenset(("absent", "missing", "flat"))
"""What the quality says of a channel without signal. A window of such channels is left out, unless it belongs to a
resting baseline, of which live sessions count the share that is good."""
LIST, PART, UNFINISHED = "shards.json", "part.json", ".making-"
LEAST_SHARE = 0.8
"""Of a headset's channels that labelled recordings must have."""
TOGETHER = 16
"""Windows that are held before they are written."""
IN_MEMORY = 2_000_000_000
"""Bytes of labelled windows of one kind; more are kept in a file while they are used."""
OPEN = 128
"""Files that are kept mapped while windows are read."""
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO)
"""No part could be written after one of these."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Which windows of which data set are wanted."""

    dataset: str
    folder: Path
    spec: WindowSpec
    every: tuple[float, float]
    """Seconds: windows end at multiples of the first or of the second, those of a resting baseline at every hop."""
    targets: tuple[Target, ...]
    """That recordings may be labelled with."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PartDone:
    """What became of one part."""

    part: str
    windows: int = 0
    left_out: int = 0
    """Windows in which no channel had any signal."""
    skipped: tuple[Skipped, ...] = ()
    failed: str = ""
    """Why the part could not be used at all, in one line."""
    fresh: bool = True
    """Whether it was made now, and not there already."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """What became of all parts."""

    windows: int
    left_out: int
    parts: tuple[PartDone, ...]

    @property
    def skipped(self) -> list[Skipped]:
        """What was left out, failed parts too."""
        found = []
        for one in self.parts:
            found += [Skipped(one.part, one.failed)] if one.failed else []
            found += one.skipped
        return found


def plan(
    dataset: str,
    folder: Path,
    *,
    kinds: Collection[str] = (),
    seconds: float | None = None,
    every: float | None = None,
    channels: Sequence[str] = (),
) -> Plan:
    """What `write` needs: the windows that a data set is made for, or those asked for. Raises TrainingError.

    Of a data set with labels they are cut at the live hop, and those kept that end at multiples of ``every`` (2 s) or
    of 5 s, at which they are scored. Of a collection without labels they end at multiples of ``every``, half a window.
    ``channels`` are the electrodes of a headset: windows of EEG then have these, in the order of `channel_order`.
    """
    source = open_dataset(dataset)
    inputs: tuple[InputSpec, ...] = getattr(source, "INPUTS", DEFAULT_SPEC.inputs)
    known = [entry.kind for entry in inputs]
    for kind in kinds:
        if kind not in known:
            raise TrainingError(f"data set {dataset}: has no {kind} to prepare, only {' and '.join(known)}.")
    length = DEFAULT_SPEC.seconds if seconds is None else seconds
    if length < 2 or length != round(length):
        raise TrainingError(f"windows of {length:g} s cannot be trained on: whole seconds, at least 2.")
    targets = targets_of(source, folder)
    if targets:
        hop, steps = DEFAULT_SPEC.hop, (TRAIN_EVERY if every is None else every, SCORE_EVERY)
    else:
        hop = length / 2 if every is None else every
        steps = (hop, hop)
    if not 0.1 <= steps[0] <= 3600:
        raise TrainingError(f"a window every {steps[0]:g} s cannot be cut: 0.1 to 3600.")
    if channels:
        try:
            order = channel_order(channels)
        except ModelError as error:
            raise TrainingError(str(error)) from None
        # With fewer the gate is never passed, so it is said at once.
        least = math.ceil(LEAST_SHARE * len(order)) if targets else 1
        inputs = tuple(
            dataclasses.replace(entry, channels=order, min_channels=least) if entry.kind == "eeg" else entry
            for entry in inputs
        )
    spec = WindowSpec(
        inputs=tuple(entry for entry in inputs if not kinds or entry.kind in kinds),
        rate=DEFAULT_SPEC.rate,
        seconds=length,
        hop=hop,
    )
    return Plan(dataset=dataset, folder=folder, spec=spec, every=steps, targets=targets)


def write(
    wanted: Plan,
    to: Path,
    *,
    jobs: int = 1,
    parts: Sequence[str] | None = None,
    told: Callable[[int, int, PartDone], None] | None = None,
) -> Written:
    """Cuts the windows of all parts of a data set, or of ``parts``, into the folder ``to``, ``jobs`` of them at a time.

    What an earlier run has finished stays, unless data, windows wanted or code have changed since; so a run that was
    killed is gone on with by the same call. A part that cannot be used is told and left out. ``told`` is called after
    each part with how many of how many are done. Only one run may write to a folder at a time. Raises TrainingError
    when there is nothing to write, when ``to`` holds another data set and when the disk is full.
    """
    names = list(open_dataset(wanted.dataset).parts(wanted.folder)) if parts is None else list(parts)
    if not names:
        raise TrainingError(f"{wanted.folder}: nothing of data set {wanted.dataset} is there.")
    _begin(wanted, to)
    done: list[PartDone] = []
    try:
        for one in _spread(wanted, to, names, min(jobs, len(names))):
            done.append(one)
            if told is not None:
                told(len(done), len(names), one)
    except OSError as error:
        raise TrainingError(
            f"{to}: cannot be written ({error.strerror}); {len(done)} of {len(names)} parts are done and kept. "
            "Make room and run the same command again."
        ) from None
    except BrokenProcessPool:
        raise TrainingError(
            f"a process that prepares was killed, perhaps for want of memory; {len(done)} of {len(names)} parts are "
            "done and kept. Run the same command again, with fewer jobs."
        ) from None
    order = {name: number for number, name in enumerate(names)}
    done.sort(key=lambda one: order[one.part])
    usable = [one for one in done if one.windows]
    if not usable:
        raise TrainingError(f"{wanted.folder}: none of {len(done)} parts gave a window. {_why(done)}")
    written = Written(
        windows=sum(one.windows for one in done), left_out=sum(one.left_out for one in done), parts=tuple(done)
    )
    source = open_dataset(wanted.dataset)
    try:
        _write_json(
            to / LIST,
            {
                "format": FORMAT,
                "data set": wanted.dataset,
                "source": dataclasses.asdict(source.SOURCE),
                "targets": [dataclasses.asdict(target) for target in wanted.targets],
                "window": dataclasses.asdict(wanted.spec),
                "every": list(wanted.every),
                "parts": [_folder_of(one.part) for one in usable],
                "windows": written.windows,
                "left out": written.left_out,
                "skipped": [[one.where, one.why] for one in written.skipped],
            },
        )
    except OSError as error:
        raise TrainingError(f"{to}: cannot be written ({error.strerror}). Make room and run it again.") from None
    return written


def _why(done: Sequence[PartDone]) -> str:
    failed = [one for one in done if one.failed]
    if failed:
        return f"The first: {failed[0].part}: {failed[0].failed}"
    return "They are shorter than a window, or have no signal of the kind wanted."


def _begin(wanted: Plan, to: Path) -> None:
    """The folder is there, of this data set or of none, without what a killed run has left, and not listed as whole."""
    try:
        to.mkdir(parents=True, exist_ok=True)
        listed = to / LIST
        if listed.is_file():
            before = json.loads(listed.read_text(encoding="utf-8")).get("data set")
            if before != wanted.dataset:
                raise TrainingError(f"{to}: holds windows of data set {before!s:.60}; choose another folder.")
            listed.unlink()
        for left in to.glob(f"{UNFINISHED}*"):
            shutil.rmtree(left, ignore_errors=True)
    except OSError as error:
        raise TrainingError(f"{to}: cannot be written ({error.strerror}). Check its rights and the disk.") from None
    except ValueError:
        raise TrainingError(f"{to / LIST}: is damaged; delete this file and run it again.") from None


def _spread(wanted: Plan, to: Path, names: Sequence[str], jobs: int) -> Iterator[PartDone]:
    """What becomes of each part, as they are done."""
    if jobs <= 1:
        for name in names:
            yield _make(wanted, to, name)
        return
    # Spawned, not forked: libraries that this process has started threads of do not survive a fork.
    pool = ProcessPoolExecutor(
        jobs, multiprocessing.get_context("spawn"), initializer=_at_work, initargs=(os.getpid(),)
    )
    waiting: set[Future[PartDone]] = set()
    upcoming = iter(names)
    try:
        while True:
            for name in upcoming:
                waiting.add(pool.submit(_make, wanted, to, name))
                if len(waiting) >= 2 * jobs:
                    break
            if not waiting:
                break
            finished, waiting = wait(waiting, return_when=FIRST_COMPLETED)
            for one in finished:
                yield one.result()
    except BaseException:
        # A part may take minutes: it is not waited for.
        for process in multiprocessing.active_children():
            process.terminate()
        raise
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _at_work(parent: int) -> None:
    """In a process that prepares: it ends with the one that started it, without a word."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    if hasattr(signal, "setitimer"):

        def look(number: int, frame: object) -> None:  # noqa: ARG001  (the signature is Python's)
            if os.getppid() != parent:
                os._exit(1)

        signal.signal(signal.SIGALRM, look)
        signal.setitimer(signal.ITIMER_REAL, 1.0, 1.0)


def _make(wanted: Plan, to: Path, part: str) -> PartDone:
    """Writes one part unless it is there. Raises OSError only when nothing can be written any more."""
    try:
        dataset = open_dataset(wanted.dataset)
        digest = dataset.digest(wanted.folder, part)
        key = _key(wanted, digest)
        folder = to / _folder_of(part)
        there = _there(folder, part, key)
        if there is not None:
            return there
        return _write_part(wanted, dataset, to, part, digest, key)
    except TrainingError as error:
        return PartDone(part=part, failed=str(error))
    except OSError as error:
        if error.errno in FULL:
            raise
        return PartDone(part=part, failed=f"cannot be read ({error.strerror or error})")
    except Exception as error:  # noqa: BLE001  (one file in ten thousand must not end the run, whatever its reader raises)
        return PartDone(part=part, failed=f"{type(error).__name__}: {' '.join(str(error).split()):.200}")


def _folder_of(part: str) -> str:
    """A name for the folder of a part, which may be a path: readable, and its own."""
    readable = re.sub(r"[^A-Za-z0-9._-]+", "_", part).strip("._")[:60]
    return f"{readable}-{hashlib.sha256(part.encode()).hexdigest()[:8]}"


def _key(wanted: Plan, digest: str) -> str:
    """Changes with whatever changes the windows of a part."""
    targets = [target.name for target in wanted.targets]
    text = repr((FORMAT, wanted.dataset, wanted.spec, wanted.every, digest, targets)) + code_that_cuts()
    return hashlib.sha256((text + _code_that_reads(wanted.dataset)).encode()).hexdigest()


@functools.cache
def _code_that_reads(dataset: str) -> str:
    spec = importlib.util.find_spec(f"offline_training.datasets.{dataset}")
    return hashlib.sha256(Path(spec.origin).read_bytes()).hexdigest() if spec and spec.origin else ""


def _there(folder: Path, part: str, key: str) -> PartDone | None:
    """The part as an earlier run has finished it, if it was made from the same."""
    try:
        said = json.loads((folder / PART).read_text(encoding="utf-8"))
        if said["key"] != key:
            return None
        return PartDone(
            part=part,
            windows=said["windows"],
            left_out=said["left out"],
            skipped=tuple(Skipped(where, why) for where, why in said["skipped"]),
            fresh=False,
        )
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _write_part(wanted: Plan, dataset: DataSet, to: Path, part: str, digest: str, key: str) -> PartDone:
    making = to / f"{UNFINISHED}{_folder_of(part)}"
    shutil.rmtree(making, ignore_errors=True)
    making.mkdir()
    try:
        skipped: list[Skipped] = []
        recordings: list[Recording] = []
        targets = [target.name for target in wanted.targets]

        def taken() -> Iterator[Recording]:
            for one in dataset.recordings(wanted.folder, part):
                if isinstance(one, Skipped):
                    skipped.append(one)
                    continue
                wanting = lacking(one.streams, wanted.spec)
                if len(wanting) == len(wanted.spec.inputs):
                    skipped.append(Skipped(one.session, "; ".join(wanting.values())))
                else:
                    recordings.append(one)
                    yield one

        left_out = 0
        with _PartFile(making, wanted.spec, targets) as file:
            for one in cut(taken(), wanted.spec, wanted.every):
                reasons = {verdict.reason for verdicts in one.window.quality.values() for verdict in verdicts}
                if not one.baseline and reasons <= NOTHING:
                    left_out += 1
                    continue
                file.add(one, len(recordings) - 1)
        done = PartDone(part=part, windows=file.windows, left_out=left_out, skipped=tuple(skipped))
        _write_json(
            making / PART,
            {
                "format": FORMAT,
                "data set": wanted.dataset,
                "part": part,
                "sha256": digest,
                "key": key,
                "windows": done.windows,
                "left out": left_out,
                "skipped": [[one.where, one.why] for one in skipped],
                "recordings": [
                    {
                        "person": one.person,
                        "session": one.session,
                        "phase": one.phase,
                        "rest": one.rest,
                        "start": one.start,
                        "stop": one.stop,
                        "targets": dict(one.targets),
                    }
                    for one in recordings
                ],
                "versions": versions(),
            },
        )
        folder = to / _folder_of(part)
        shutil.rmtree(folder, ignore_errors=True)
        making.rename(folder)
        return done
    except BaseException:
        shutil.rmtree(making, ignore_errors=True)
        raise


def versions() -> dict[str, str]:
    """Of what computes windows."""
    found = {"python": platform.python_version()}
    for name in ("insula", "numpy", "scipy", "numba", "mne", "wfdb"):
        with contextlib.suppress(PackageNotFoundError):
            found[name] = version(name)
    return found


def _write_json(path: Path, content: Mapping[str, object]) -> None:
    """Whole or not at all."""
    new = path.with_name(f"{UNFINISHED}{path.name}")
    try:
        with new.open("w", encoding="utf-8") as file:
            json.dump(content, file, indent=1)
            file.flush()
            os.fsync(file.fileno())
        new.replace(path)
    except BaseException:
        new.unlink(missing_ok=True)
        raise


class _PartFile:
    """Writes windows as they come, so that hours of them are never in memory."""

    def __init__(self, folder: Path, spec: WindowSpec, targets: Sequence[str]) -> None:
        self._folder, self._spec, self._targets = folder, spec, targets
        length = round(spec.seconds * spec.rate)
        self._signals = {
            entry.kind: _Array(folder / f"{entry.kind}.npy", (len(entry.channels), length)) for entry in spec.inputs
        }
        self._held: list[Cut] = []
        self._numbers: list[int] = []
        self._columns: list[dict[str, NDArray[np.float64 | np.int32 | np.bool_]]] = []
        self.windows = 0

    def add(self, one: Cut, recording: int) -> None:
        self._held.append(one)
        self._numbers.append(recording)
        if len(self._held) == TOGETHER:
            self._pass_on()

    def _pass_on(self) -> None:
        if not self._held:
            return
        for kind, file in self._signals.items():
            file.append(np.stack([one.window.signals[kind] for one in self._held]))
        known = columns_of(self._held, self._spec, self._targets)
        self._columns.append(
            {
                "t_end": known.t_end,
                "start": known.start,
                "recording": np.array(self._numbers, np.int32),
                "baseline": np.array([one.baseline for one in self._held], np.bool_),
                **{f"value_{name}": value for name, value in known.value.items()},
                **{f"present_{kind}": value for kind, value in known.present.items()},
                **{f"score_{kind}": value for kind, value in known.score.items()},
            }
        )
        self.windows += len(self._held)
        self._held, self._numbers = [], []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        try:
            if error is None:
                self._pass_on()
                columns = {
                    name: np.concatenate([one[name] for one in self._columns])
                    for name in (self._columns[0] if self._columns else ())
                }
                with (self._folder / "columns.npz").open("wb") as file:
                    np.savez(file, **columns)  # type: ignore[arg-type]
                    file.flush()
                    os.fsync(file.fileno())
        finally:
            for array in self._signals.values():
                array.close(whole=error is None)


class _Array:
    """A ``.npy`` of float32 that grows along its first axis; its header has room for the length it ends up with."""

    def __init__(self, path: Path, shape: tuple[int, ...]) -> None:
        self._file: BinaryIO = path.open("wb")
        self._shape, self._rows = shape, 0
        self._header()

    def _header(self) -> None:
        header = {"descr": "<f4", "fortran_order": False, "shape": (self._rows, *self._shape)}
        npy.write_array_header_1_0(self._file, header)

    def append(self, values: NDArray[np.float32]) -> None:
        """``values`` (rows, ...)."""
        self._file.write(np.ascontiguousarray(values, "<f4").data)
        self._rows += len(values)

    def close(self, *, whole: bool) -> None:
        with contextlib.ExitStack() as stack:
            stack.callback(self._close, whole)
            if whole:
                self._file.seek(0)
                self._header()
                self._file.flush()
                os.fsync(self._file.fileno())

    def _close(self, whole: bool) -> None:
        # What is given up need not reach a disk that may be full.
        with contextlib.suppress(*(() if whole else (OSError,))):
            self._file.close()


class Shards:
    """The windows in a folder that `write` has finished: n of them, read from disk when they are asked for.

    In memory are only the columns that are asked for. May be handed to other processes.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        said = self._read_json(folder / LIST)
        try:
            if said["format"] != FORMAT:
                raise TrainingError(f"{folder}: is of format {said['format']!s:.20}, not {FORMAT}; prepare it again.")
            self.dataset = str(said["data set"])
            self.source = Source(**said["source"])
            self.targets: tuple[Target, ...] = tuple(read_target(one) for one in said["targets"])
            self.spec = read_window(said["window"])
            self.every: tuple[float, float] = (said["every"][0], said["every"][1])
            self.parts: list[str] = list(said["parts"])
            self._about = [self._read_json(folder / part / PART) for part in self.parts]
            counts = [int(about["windows"]) for about in self._about]
            sums = [str(about["sha256"]) for about in self._about]
        except (KeyError, TypeError, IndexError, ValueError) as error:
            raise TrainingError(f"{folder}: its JSON is damaged ({error!s:.60}); prepare it again.") from None
        self._first = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
        self.digest = hashlib.sha256(json.dumps([sums, said["window"], said["every"]]).encode()).hexdigest()
        """Changes with the data and the windows cut of it."""

        self._maps = functools.lru_cache(maxsize=OPEN)(self._map)

    def __len__(self) -> int:
        return int(self._first[-1])

    def __getstate__(self) -> dict[str, object]:
        return {name: value for name, value in vars(self).items() if name != "_maps"}

    def __setstate__(self, state: dict[str, object]) -> None:
        vars(self).update(state)
        self._maps = functools.lru_cache(maxsize=OPEN)(self._map)

    @property
    def kinds(self) -> tuple[str, ...]:
        return tuple(entry.kind for entry in self.spec.inputs)

    @functools.cached_property
    def people(self) -> list[str]:
        """Everyone of whom there is a recording, in the order of their codes."""
        return sorted({str(one["person"]) for about in self._about for one in about["recordings"]})

    @functools.cached_property
    def who(self) -> NDArray[np.int32]:
        """(n,) for each window the number of its person in `people`."""
        number = {person: code for code, person in enumerate(self.people)}
        found = [np.zeros(0, np.int32)]
        for part, about in zip(self.parts, self._about, strict=True):
            codes = np.array([number[str(one["person"])] for one in about["recordings"]], np.int32)
            found.append(codes[self._column(part, "recording")])
        return np.concatenate(found)

    def column(self, name: str) -> NDArray[np.float64]:
        """(n, ...) one of `COLUMNS`, of all windows."""
        return np.concatenate([self._column(part, name) for part in self.parts])

    def good(self, kind: str, least: float) -> NDArray[np.bool_]:
        """(n, channels) whether a channel scores at least ``least``."""
        # Part by part: the scores of a large collection take eight times the memory of the answer.
        return np.concatenate([self._column(part, f"score_{kind}") >= least for part in self.parts])

    def signals(self, kind: str, rows: NDArray[np.integer]) -> NDArray[np.float32]:
        """(rows, channels, time) of the windows ``rows``, in any order, as they were cut."""
        (entry,) = (entry for entry in self.spec.inputs if entry.kind == kind)
        out = np.empty((len(rows), len(entry.channels), round(self.spec.seconds * self.spec.rate)), np.float32)
        part = np.searchsorted(self._first, rows, side="right") - 1
        for number in np.unique(part).tolist():
            places = np.flatnonzero(part == number)
            stored = self._maps(number, kind)
            for place in places.tolist():
                out[place] = stored[int(rows[place]) - int(self._first[number])]
        return out

    def prepared(self, gate: Gate, target: Target) -> Prepared:
        """The windows as `offline_training.finetune` takes them: 0.16 MB for each of 10 s with both kinds.

        Those that take more than `IN_MEMORY` bytes of a kind lie in a file without a name in the folder of the shards,
        which is gone with the last who uses them.
        Raises TrainingError when the data set does not tell ``target``, or a kind was not prepared.
        """
        known = [one.name for one in self.targets]
        if target.name not in known:
            raise TrainingError(
                f"{self.folder}: {target.name} is not among its targets ({', '.join(known) or 'none'})."
            )
        columns = Columns(
            t_end=self.column("t_end"),
            start=self.column("start"),
            rest=self.column("baseline").astype(np.bool_),
            person=np.array(self.people)[self.who],
            value={target.name: self.column(f"value_{target.name}")},
            present={kind: self.column(f"present_{kind}") for kind in self.kinds},
            score={kind: self.column(f"score_{kind}") for kind in self.kinds},
        )
        return labelled(self.signals, columns, self.spec, gate, target, self.every, self._room)

    def _room(self, shape: tuple[int, int, int]) -> NDArray[np.float32]:
        if 4 * math.prod(shape) <= IN_MEMORY:
            return np.empty(shape, np.float32)
        try:
            with tempfile.TemporaryFile(dir=self.folder) as file:
                # Taken from the disk now: a mapping that finds it full later ends the process without a word.
                if hasattr(os, "posix_fallocate"):
                    os.posix_fallocate(file.fileno(), 0, 4 * math.prod(shape))
                return np.memmap(file, np.float32, "r+" if hasattr(os, "posix_fallocate") else "w+", shape=shape)
        except OSError as error:
            raise TrainingError(
                f"{self.folder}: has no room for {4 * math.prod(shape) / 1e9:.1f} GB that are needed while training "
                f"({error.strerror})."
            ) from None

    def _column(self, part: str, name: str) -> NDArray[np.float64]:
        try:
            path = self.folder / part / "columns.npz"
            with path.open("rb") as file, np.load(file, allow_pickle=False) as columns:
                found: NDArray[np.float64] = columns[name]
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
            raise self._damaged(part, error) from None
        return found

    def _map(self, number: int, kind: str) -> NDArray[np.float32]:
        part = self.parts[number]
        try:
            stored: NDArray[np.float32] = np.load(self.folder / part / f"{kind}.npy", mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise self._damaged(part, error) from None
        if len(stored) != self._first[number + 1] - self._first[number]:
            raise self._damaged(part, ValueError(f"{len(stored)} windows"))
        return stored

    def _damaged(self, part: str, error: Exception) -> TrainingError:
        return TrainingError(
            f"{self.folder / part}: is damaged ({' '.join(str(error).split()):.80}); delete it and prepare again."
        )

    @staticmethod
    def _read_json(path: Path) -> Any:
        try:
            return json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise TrainingError(
                f"{path.parent}: no {path.name} there, so it holds no shards, or unfinished ones; run `insula prepare` "
                "to its end."
            ) from None
        except (OSError, ValueError) as error:
            raise TrainingError(f"{path}: cannot be read ({error!s:.80}); prepare it again.") from None


def read_window(said: Any) -> WindowSpec:
    """The windows that a JSON of ours describes. Raises KeyError, TypeError or IndexError when it does not."""
    inputs = tuple(
        InputSpec(
            kind=entry["kind"],
            channels=tuple(entry["channels"]),
            unit=entry["unit"],
            band=(entry["band"][0], entry["band"][1]),
            notch=tuple(entry["notch"]),
            min_channels=entry["min_channels"],
        )
        for entry in said["inputs"]
    )
    return WindowSpec(inputs=inputs, rate=said["rate"], seconds=said["seconds"], hop=said["hop"])


def read_target(said: Any) -> Target:
    """The target that a JSON of ours describes. Raises KeyError or TypeError when it does not."""
    return Target(
        name=said["name"],
        kind=said["kind"],
        range=(said["range"][0], said["range"][1]),
        meaning=said["meaning"],
        levels=tuple(said["levels"]),
    )

"""Pre-training: an encoder learns to fill in what is hidden of windows without labels.

Of EEG every one-second patch is hidden with chance one half, as CBraMod was pre-trained (Wang et al., ICLR 2025, arXiv
2412.07236); of ECG patches and whole leads, by the dual masking of `models.masking`. The loss is the mean squared error
over the samples that were hidden. A channel that is bad or absent in a window is hidden too and does not count.

Which windows a step shows, what of them is hidden, and every other draw follow from the seed and the number of the step
alone. So a run that was stopped goes on exactly, and on any number of processes it is the same run: each takes its
share of a step's windows, and their losses are put together by how much was hidden in each.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import io
import json
import math
import os
import pickle
import platform
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from accelerate import Accelerator
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from models.api import BAD_SCORE, ModelError
from models.encoders import build, cbramod, read_config
from models.fields import Fields
from models.fusion import scale_ecg, scale_eeg
from models.masking import MaskConfig, draw_leads, dual_mask, intra_lead, masked_loss
from offline_training.api import TrainingError
from offline_training.finetune import Settings as Downstream
from offline_training.pictures import reconstructions
from offline_training.shards import Shards

WEIGHTS, CARD, CHECKPOINT, LOSSES, PICTURES = (
    "encoder.safetensors",
    "encoder.json",
    "checkpoint.pt",
    "losses.csv",
    "pictures",
)
LOOKS = 20
"""How many times in a run the people held out are asked, beside the beginning, the first hundredth and the end."""
HELD_OUT_WINDOWS = 1024
"""At most so many of theirs, spread evenly."""
SHOWN = 4
"""Windows of a picture."""
LONGEST = 300.0
"""Seconds between checkpoints."""
TOGETHER = 10
"""Steps after which losses are asked for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How an encoder is pre-trained; the card has them. As CBraMod was, but for the warm-up and the learning rate."""

    size: str = "small"
    """Of `SIZES`."""
    epochs: float = 40.0
    """How often each window is shown."""
    steps: int = 0
    """Instead of ``epochs``, when above 0."""
    batch: int = 128
    """Windows of a step, of all processes together."""
    rate: float = 3e-3
    """The highest; 5e-4 was CBraMod's, with which the small size had learnt nothing of ECG after 400 steps."""
    final_rate: float = 1e-5
    warm_up: float = 0.03
    """Share of the steps."""
    weight_decay: float = 5e-2
    clip: float = 1.0
    """Largest norm of a step's gradient."""
    mask: float = 0.5
    """Of EEG: the chance of a patch to be hidden."""
    leads: MaskConfig = field(default_factory=MaskConfig)
    """Of ECG: what is hidden within leads and between them."""
    turned: float = 0.5
    """Of ECG: the share of windows shown upside down, since the sign depends on how a strap is worn."""
    held_out: float = 0.05
    """Share of the people whose windows are only looked at; one at least."""
    seed: int = 0
    precision: str = "auto"
    """bf16, fp32, or auto: bf16 on a GPU that has it. On processors it was slower at the small size."""


def network(kind: str, size: str) -> cbramod.Config:
    """The encoder of a size: small is that of the model that ships, published that of CBraMod."""
    small = Downstream().network(19, 1, 10, 200)
    one = small.eeg if kind == "eeg" else small.ecg
    assert isinstance(one, cbramod.Config)
    return {
        "small": one,
        "medium": dataclasses.replace(one, d_model=80, layers=4, ffn=160),
        "published": cbramod.Config(),
    }[size]


SIZES = ("small", "medium", "published")


@dataclass(frozen=True, slots=True, eq=False)
class Group:
    """Windows of one shape, of one or several folders of shards: all that may stand in one batch."""

    shards: tuple[Shards, ...]
    of: NDArray[np.int16]
    """(n,) the number of the folder."""
    row: NDArray[np.int64]
    """(n,) the window in it."""
    good: NDArray[np.bool_]
    """(n, channels)"""

    def read(self, kind: str, places: NDArray[np.int64]) -> tuple[Tensor, Tensor]:
        """Signals (places, channels, time) and which channels are good (places, channels)."""
        out: NDArray[np.float32] | None = None
        for number in np.unique(self.of[places]).tolist():
            mine = np.flatnonzero(self.of[places] == number)
            found = self.shards[number].signals(kind, self.row[places[mine]])
            if out is None:
                out = np.empty((len(places), *found.shape[1:]), np.float32)
            out[mine] = found
        assert out is not None
        return torch.from_numpy(out), torch.from_numpy(self.good[places])


@dataclass(frozen=True, slots=True, eq=False)
class Corpus:
    """What is trained on, and what is only looked at."""

    kind: str
    shards: tuple[Shards, ...]
    groups: tuple[Group, ...]
    trained: tuple[NDArray[np.int64], ...]
    """Of each group, the places that are shown."""
    watched: tuple[NDArray[np.int64], ...]
    """Of each group, the places of people held out that are looked at."""
    people: tuple[str, ...]
    held_out: tuple[str, ...]
    unusable: int
    """Windows without a good channel: not shown."""


def gather(kind: str, folders: Sequence[Path], settings: Settings, exclude: Collection[str] = ()) -> Corpus:
    """The windows of all folders of shards, split by person. Raises TrainingError when they do not go together.

    People go by data set and code, ``exclude`` names codes; two folders of one data set share their people.
    """
    if kind not in ("eeg", "ecg"):
        raise TrainingError(f"{kind}: no kind of signal that an encoder is pre-trained on; eeg and ecg are.")
    shards = tuple(Shards(folder) for folder in folders)
    entries = []
    for one in shards:
        found = [entry for entry in one.spec.inputs if entry.kind == kind]
        if not found:
            raise TrainingError(f"{one.folder}: has no {kind}; prepare it with --kind {kind} or --kind both.")
        entries.append(found[0])
    for one, entry in zip(shards, entries, strict=True):
        same = (entry.band, entry.notch, entry.unit, one.spec.rate)
        first = (entries[0].band, entries[0].notch, entries[0].unit, shards[0].spec.rate)
        if same != first or (kind == "eeg" and entry.channels != entries[0].channels):
            raise TrainingError(f"{one.folder}: is filtered, sampled or laid out unlike {shards[0].folder}.")
    everyone = sorted({f"{one.dataset}/{person}" for one in shards for person in one.people})
    kept = [name for name in everyone if name.partition("/")[2] not in exclude]
    unknown = sorted(set(exclude) - {name.partition("/")[2] for name in everyone})
    if unknown:
        raise TrainingError(f"{unknown[0]}: is to be left out and is not among the {len(everyone)} people.")
    if len(kept) < 2:
        raise TrainingError(f"{len(kept)} people are too few: one is held out, and another one must be left to learn.")
    count = min(len(kept) - 1, max(1, round(settings.held_out * len(kept))))
    held = {kept[place] for place in np.random.default_rng(settings.seed).permutation(len(kept))[:count].tolist()}
    learnt = set(kept) - held
    shapes: dict[tuple[int, int], list[int]] = {}
    for number, (one, entry) in enumerate(zip(shards, entries, strict=True)):
        shapes.setdefault((len(entry.channels), round(one.spec.seconds * one.spec.rate)), []).append(number)
    groups, trained, watched, unusable = [], [], [], 0
    for members in shapes.values():
        good = [shards[number].good(kind, BAD_SCORE) for number in members]
        of = np.repeat(np.array(members, np.int16), [len(one) for one in good])
        row = np.concatenate([np.arange(len(one)) for one in good])
        sides = []
        for wanted in (learnt, held):
            belongs = [
                np.array([f"{shards[number].dataset}/{person}" in wanted for person in shards[number].people], np.bool_)
                for number in members
            ]
            sides.append(
                np.concatenate([told[shards[number].who] for number, told in zip(members, belongs, strict=True)])
            )
        group = Group(shards, of, row, np.concatenate(good))
        usable = group.good.any(1)
        groups.append(group)
        trained.append(np.flatnonzero(sides[0] & usable))
        watched.append(np.flatnonzero(sides[1] & usable))
        unusable += int(((sides[0] | sides[1]) & ~usable).sum())
    total = sum(len(one) for one in watched)
    if not total:
        raise TrainingError(f"the {count} people held out have no usable window; take another seed, or more people.")
    thin = max(1, math.ceil(total / HELD_OUT_WINDOWS))
    return Corpus(
        kind,
        shards,
        tuple(groups),
        tuple(trained),
        tuple(one[::thin] for one in watched),
        tuple(sorted(learnt)),
        tuple(sorted(held)),
        unusable,
    )


class Order:
    """Which windows each step shows. A batch is of one group; groups take turns by how many windows they have."""

    def __init__(self, corpus: Corpus, batch: int, seed: int) -> None:
        self._places, self._batch, self._seed = corpus.trained, batch, seed
        # A group with fewer windows than a batch makes one that is smaller.
        self._batches = np.repeat(
            np.arange(len(self._places)), [max(len(one) // batch, int(len(one) > 0)) for one in self._places]
        )
        if not len(self._batches):
            raise TrainingError("no window is left to train on.")
        self._epoch = -1
        self._shuffled: list[NDArray[np.int64]] = []
        self._turns: NDArray[np.int64] = np.zeros(0, np.int64)

    @property
    def steps_per_epoch(self) -> int:
        return len(self._batches)

    def step(self, number: int) -> tuple[int, NDArray[np.int64]]:
        """The group of a step and the places in it, for all processes together."""
        epoch, place = divmod(number, len(self._batches))
        if epoch != self._epoch:
            random = np.random.default_rng((self._seed, epoch))
            self._shuffled = [random.permutation(one) for one in self._places]
            self._turns = random.permutation(self._batches)
            self._epoch = epoch
        group = int(self._turns[place])
        turn = int((self._turns[:place] == group).sum())
        return group, self._shuffled[group][turn * self._batch : (turn + 1) * self._batch]


def share(places: NDArray[np.int64], rank: int, of: int) -> tuple[int, int]:
    """From where to where the windows of a step are those of process ``rank``."""
    return len(places) * rank // of, len(places) * (rank + 1) // of


class _Steps(Dataset[tuple[Tensor, Tensor]]):
    """What one process reads for a step."""

    def __init__(self, corpus: Corpus, order: Order, rank: int, of: int) -> None:
        self._corpus, self._order, self._rank, self._of = corpus, order, rank, of

    def __getitem__(self, number: int) -> tuple[Tensor, Tensor]:
        group, places = self._order.step(number)
        first, last = share(places, self._rank, self._of)
        return self._corpus.groups[group].read(self._corpus.kind, places[first:last])


class Reconstruction(nn.Module):
    """An encoder as it is pre-trained: its forward pass is `Encoder.reconstruct`."""

    def __init__(self, encoder: cbramod.Encoder) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, x: Tensor, hidden: Tensor) -> Tensor:
        """(B, C, N, patch) of patches, with those under ``hidden`` (B, C, N) unseen."""
        return self.encoder.reconstruct(x, hidden)


@dataclass(frozen=True, slots=True, eq=False)
class Task:
    """What a step shows and asks."""

    x: Tensor
    """(B, C, N, patch) as the encoder is fed."""
    hidden: Tensor
    """(B, C, N) of bool: not seen."""
    counted: Tensor
    """(B, C, N) of bool: hidden on purpose, in a good channel."""


def draw(
    kind: str, signals: Tensor, good: Tensor, windows: tuple[int, int, int], settings: Settings, rate: int, seed: int
) -> Task:
    """Hides what the seed says of the windows ``windows`` (first, last, how many the step has in all processes).

    ``signals`` (last - first, C, T) in microvolts, ``good`` (last - first, C).
    """
    first, last, total = windows
    generator = torch.Generator().manual_seed(seed)
    seconds = signals.shape[-1] // rate
    if kind == "eeg":
        mask = intra_lead((total, signals.shape[1], seconds), settings.mask, generator)[first:last]
        x = scale_eeg(signals, rate)
    else:
        leads = draw_leads(signals.shape[1], settings.leads, generator)
        mask = dual_mask((total, len(leads), seconds), settings.leads, generator)[first:last]
        turned = torch.rand(total, generator=generator)[first:last] < settings.turned
        signals, good = signals[:, leads], good[:, leads]
        x = scale_ecg(torch.where(turned[:, None, None], -signals, signals), rate)
    silent = ~good[:, :, None].expand_as(mask)
    return Task(x, mask | silent, mask & ~silent)


@dataclass(frozen=True, slots=True, eq=False)
class Look:
    """How well the hidden patches of people held out were filled in."""

    step: int
    loss: float
    """Mean squared error, as in training."""
    reference: float
    """The same of zeros, which is what the encoder is fed there."""


@dataclass(slots=True, eq=False)
class Run:
    """What has been learnt so far; at the end, what came of it."""

    step: int = 0
    losses: list[float] = field(default_factory=list)
    """Of every step, on what it showed."""
    looks: list[Look] = field(default_factory=list)
    windows_per_second: float = math.nan
    """Trained on by this call, without the looks."""


@dataclass(frozen=True, slots=True, eq=False)
class Progress:
    """After a step, for whoever watches."""

    step: int
    steps: int
    loss: float
    held_out: Look | None
    """The newest."""


def pretrain(
    corpus: Corpus,
    to: Path,
    settings: Settings,
    *,
    cpu: bool = False,
    workers: int = 0,
    checkpoint_every: int = 500,
    told: Callable[[Progress], None] | None = None,
    stopped: Callable[[], bool] = lambda: False,
) -> Run:
    """Trains an encoder into the folder ``to``: weights, card, losses, pictures. Goes on where an earlier call ended.

    Under ``torchrun`` there is a process for each device, and all make the same call. ``stopped`` is asked after each
    step; when it says so a checkpoint is written and KeyboardInterrupt raised. Raises TrainingError when ``to`` holds
    another training, the loss is no number, or the disk is full, and then the last checkpoint stays.
    """
    accelerator = Accelerator(cpu=cpu, mixed_precision=_precision(settings.precision, cpu))
    order = Order(corpus, settings.batch, settings.seed)
    steps = settings.steps or math.ceil(settings.epochs * order.steps_per_epoch)
    run = _Training(corpus, to, settings, accelerator, order, steps)
    if run.finished:
        return run.run
    run.go(workers, checkpoint_every, told, stopped)
    return run.run


class _Training:
    """The state of one training in one process."""

    def __init__(
        self, corpus: Corpus, to: Path, settings: Settings, accelerator: Accelerator, order: Order, steps: int
    ) -> None:
        self.corpus, self.to, self.settings, self.order, self.steps = corpus, to, settings, order, steps
        self.accelerator = accelerator
        self.rank, self.of = accelerator.process_index, accelerator.num_processes
        fewest = min(settings.batch, *(len(one) for one in corpus.trained if len(one)))
        if fewest < self.of:
            raise TrainingError(f"a step of {fewest} windows cannot be shared by {self.of} processes.")
        self.rate = round(corpus.shards[0].spec.rate)
        self.key = fingerprint(corpus, settings)
        torch.manual_seed(settings.seed)
        encoder = cbramod.Encoder(network(corpus.kind, settings.size))
        stored = _stored(to, self.key)
        self.run = Run()
        self._kept: int | None = None
        """The step of the last checkpoint."""
        if stored is not None:
            encoder.load_state_dict(stored["model"])
            self._kept = stored["step"]
            looks = [Look(step, loss, reference) for step, loss, reference in stored["looks"]]
            self.run = Run(stored["step"], stored["losses"].tolist(), looks)
        model = Reconstruction(encoder)
        learnt = [one for one in model.parameters() if one.requires_grad]
        optimizer = torch.optim.AdamW(learnt, lr=settings.rate, weight_decay=settings.weight_decay)
        if stored is not None:
            optimizer.load_state_dict(stored["optimizer"])
        self.model, self.optimizer = accelerator.prepare(model, optimizer)
        self._pending: list[Tensor] = []

    @property
    def finished(self) -> bool:
        return self.run.step >= self.steps and (self.to / WEIGHTS).is_file()

    @property
    def encoder(self) -> cbramod.Encoder:
        found: cbramod.Encoder = self.accelerator.unwrap_model(self.model).encoder
        return found

    def go(
        self,
        workers: int,
        checkpoint_every: int,
        told: Callable[[Progress], None] | None,
        stopped: Callable[[], bool],
    ) -> None:
        run = self.run
        # To look takes at most a tenth or so of the time.
        watched = sum(len(one) for one in self.corpus.watched)
        when = _looking(self.steps, math.ceil(4 * watched / self.settings.batch))
        if not run.looks:
            self.look()
        loader = DataLoader(
            _Steps(self.corpus, self.order, self.rank, self.of),
            batch_size=None,
            sampler=range(run.step, self.steps),
            num_workers=workers,
            pin_memory=self.accelerator.device.type == "cuda",
        )
        shown, seconds, since = 0, 0.0, time.perf_counter()
        kept = since
        for signals, good in loader:
            shown += self.train(signals, good)
            if run.step in when:
                self.settle()
                seconds += time.perf_counter() - since
                self.look()
                since = time.perf_counter()
            halt = stopped()
            late = time.perf_counter() - kept > LONGEST
            if halt or late or run.step % checkpoint_every == 0 or run.step == self.steps:
                self.keep()
                kept = time.perf_counter()
            if told is not None and run.losses:
                told(Progress(run.step, self.steps, run.losses[-1], run.looks[-1]))
            if halt and run.step < self.steps:
                raise KeyboardInterrupt
        seconds += time.perf_counter() - since
        run.windows_per_second = shown / seconds if shown else math.nan
        if self.accelerator.is_main_process:
            self.finish()
        self.accelerator.wait_for_everyone()

    def train(self, signals: Tensor, good: Tensor) -> int:
        """One step; how many windows all processes have shown in it."""
        step, settings = self.run.step, self.settings
        for group in self.optimizer.param_groups:
            group["lr"] = rate_at(step, self.steps, settings)
        places = self.order.step(step)[1]
        windows = (*share(places, self.rank, self.of), len(places))
        task = draw(self.corpus.kind, signals, good, windows, settings, self.rate, _seed("mask", settings.seed, step))
        # Dropout is drawn from the global generator: a step's draws must not depend on what came before it.
        torch.manual_seed(_seed("dropout", settings.seed, step, self.rank))
        self.model.train()
        device = self.accelerator.device
        x, counted = task.x.to(device), task.counted.to(device)
        mine = masked_loss(self.model(x, task.hidden.to(device)).float(), x, counted)
        count = counted.sum()
        both = self.accelerator.reduce(torch.stack([mine.detach() * count, count]), "sum")
        total = both[1].clamp(min=1.0)
        # The gradients of all processes are averaged: each counts by how much of what was hidden it has.
        self.optimizer.zero_grad()
        self.accelerator.backward(mine * (count * self.of / total))
        self.accelerator.clip_grad_norm_(self.model.parameters(), settings.clip)
        self.optimizer.step()
        self._pending.append(both[0] / total)
        self.run.step += 1
        if len(self._pending) >= TOGETHER:
            self.settle()
        return len(places)

    def settle(self) -> None:
        """Losses become numbers, several at a time: a GPU is not waited for at every step."""
        if not self._pending:
            return
        found = torch.stack(self._pending).tolist()
        self._pending.clear()
        self.run.losses += found
        if not all(map(math.isfinite, found)):
            at = "there is none before it" if self._kept is None else f"the checkpoint of step {self._kept} stays"
            raise TrainingError(
                f"{self.to}: the loss is no number any more at step {self.run.step}; {at}. Start anew, with a lower "
                "--rate."
            )

    @torch.no_grad()
    def look(self) -> None:
        """How well the hidden patches of people held out are filled in: always the same, with the same hidden."""
        settings = dataclasses.replace(
            self.settings, turned=0.0, leads=dataclasses.replace(self.settings.leads, one_lead=0.0)
        )
        model, device = self.accelerator.unwrap_model(self.model), self.accelerator.device
        model.eval()
        sums = torch.zeros(3, dtype=torch.float64)
        picture = b""
        for number, (group, watched) in enumerate(zip(self.corpus.groups, self.corpus.watched, strict=True)):
            for begin in range(0, len(watched), settings.batch):
                places = watched[begin : begin + settings.batch]
                first, last = share(places, self.rank, self.of)
                if first == last:
                    continue
                signals, good = group.read(self.corpus.kind, places[first:last])
                seed = _seed("held out", settings.seed, number, begin)
                task = draw(self.corpus.kind, signals, good, (first, last, len(places)), settings, self.rate, seed)
                filled = model(task.x.to(device), task.hidden.to(device)).float().cpu()
                count = int(task.counted.sum())
                both = [masked_loss(one, task.x, task.counted).item() for one in (filled, torch.zeros_like(filled))]
                sums += torch.tensor([both[0] * count, both[1] * count, count], dtype=torch.float64)
                if not picture and self.accelerator.is_main_process:
                    # Neighbours are often of one person: some from all over.
                    some = np.linspace(0, last - first - 1, min(last - first, SHOWN)).round().astype(int)
                    x, made, hidden = (one[some].numpy() for one in (task.x, filled, task.counted))
                    picture = reconstructions(x, made, hidden, f"step {self.run.step}, people held out")
        error, reference, count = self.accelerator.reduce(sums.to(device), "sum").tolist()
        self.run.looks.append(Look(self.run.step, error / max(1.0, count), reference / max(1.0, count)))
        if self.accelerator.is_main_process:
            with self._disk():
                (self.to / PICTURES).mkdir(parents=True, exist_ok=True)
                _whole(self.to / PICTURES / f"step-{self.run.step:07d}.png", picture)
                self._write_losses()

    def keep(self) -> None:
        """A checkpoint: all that the next step depends on."""
        self.settle()
        if not self.accelerator.is_main_process:
            return
        content = {
            "key": self.key,
            "step": self.run.step,
            "model": {name: value.detach().cpu() for name, value in self.encoder.state_dict().items()},
            "optimizer": self.optimizer.state_dict(),
            "losses": torch.tensor(self.run.losses, dtype=torch.float64),
            "looks": [(one.step, one.loss, one.reference) for one in self.run.looks],
        }
        file = io.BytesIO()
        torch.save(content, file)
        with self._disk():
            self.to.mkdir(parents=True, exist_ok=True)
            _whole(self.to / CHECKPOINT, file.getvalue())
        self._kept = self.run.step

    def finish(self) -> None:
        state = {name: value.detach().float().cpu().contiguous() for name, value in self.encoder.state_dict().items()}
        about = card(self.corpus, self.settings, self.run, self.accelerator)
        with self._disk():
            self._write_losses()
            _whole(self.to / CARD, (json.dumps(about, indent=1) + "\n").encode())
            _whole(self.to / WEIGHTS, safetensors.torch.save(state))

    def _write_losses(self) -> None:
        watched = {one.step: f"{one.loss!r},{one.reference!r}" for one in self.run.looks}
        rows = [f"{step},{loss!r},{watched.get(step, ',')}" for step, loss in enumerate(self.run.losses, start=1)]
        start = f"0,,{watched.get(0, ',')}"
        _whole(self.to / LOSSES, "\n".join(["step,loss,held_out,zeros", start, *rows, ""]).encode())

    @contextlib.contextmanager
    def _disk(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            at = "there is no checkpoint yet" if self._kept is None else f"the checkpoint of step {self._kept} stays"
            raise TrainingError(
                f"{self.to}: cannot be written ({error.strerror}); {at}. Make room and run the same command again."
            ) from None


def _whole(path: Path, content: bytes) -> None:
    """Writes a file wholly or not at all."""
    new = path.with_name(f".{path.name}.new")
    try:
        with new.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        new.replace(path)
    except OSError:
        new.unlink(missing_ok=True)
        raise


def _stored(to: Path, key: str) -> dict[str, Any] | None:
    """The checkpoint in a folder. Raises TrainingError when it is of another training, or damaged."""
    path = to / CHECKPOINT
    if not path.is_file():
        if (to / WEIGHTS).is_file():
            raise TrainingError(f"{to}: holds an encoder already; choose another folder.")
        return None
    try:
        # Tensors and plain values only: a checkpoint from elsewhere runs nothing.
        stored: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        same = stored["key"] == key
    except (OSError, RuntimeError, ValueError, KeyError, TypeError, EOFError, pickle.UnpicklingError) as error:
        raise TrainingError(
            f"{path}: cannot be read ({' '.join(str(error).split()):.80}); delete it to start anew."
        ) from None
    if not same:
        raise TrainingError(f"{to}: holds a training with other data or settings; choose another folder.")
    return stored


def fingerprint(corpus: Corpus, settings: Settings) -> str:
    """Names a training: changes with its data, people, settings and network."""
    said = [
        corpus.kind,
        [one.digest for one in corpus.shards],
        corpus.people,
        corpus.held_out,
        dataclasses.asdict(settings),
        dataclasses.asdict(network(corpus.kind, settings.size)),
    ]
    return hashlib.sha256(json.dumps(said).encode()).hexdigest()


def rate_at(step: int, steps: int, settings: Settings) -> float:
    """The learning rate of a step, counted from 0: a linear warm-up, then a cosine down to the final rate."""
    warm = max(1, round(settings.warm_up * steps))
    if step < warm:
        return settings.rate * (step + 1) / warm
    way = (step - warm) / max(1, steps - warm)
    return settings.final_rate + (settings.rate - settings.final_rate) * 0.5 * (1.0 + math.cos(math.pi * way))


def _looking(steps: int, least: int) -> set[int]:
    """After which steps the people held out are looked at: early once, then now and then, and at the end.

    At least ``least`` steps lie between those in the middle.
    """
    apart = max(steps / LOOKS, float(least))
    inner = {round(apart * number) for number in range(1, math.ceil(steps / apart))}
    return {math.ceil(steps / 100), steps, *inner}


def _seed(*of: str | int) -> int:
    return int.from_bytes(hashlib.sha256(repr(of).encode()).digest()[:7])


def _precision(wanted: str, cpu: bool) -> str:
    if wanted == "fp32":
        return "no"
    if wanted == "bf16":
        return "bf16"
    return "bf16" if not cpu and torch.cuda.is_available() and torch.cuda.is_bf16_supported() else "no"


def card(corpus: Corpus, settings: Settings, run: Run, accelerator: Accelerator) -> dict[str, object]:
    """What is to be known of an encoder."""
    config = network(corpus.kind, settings.size)
    encoder = cbramod.Encoder(config)
    last = run.looks[-1]
    return {
        "kind": corpus.kind,
        "network": dataclasses.asdict(config),
        "parameters": sum(one.numel() for one in encoder.parameters() if one.requires_grad),
        "input": {
            "eeg": "microvolts / 100, clipped at 1 mV, in patches of one second",
            "ecg": "each lead less its mean, over its mean absolute deviation + 5 uV, in patches of one second",
        }[corpus.kind],
        "window": [dataclasses.asdict(one.spec) for one in corpus.shards],
        "data": [
            {
                "data set": one.dataset,
                **dataclasses.asdict(one.source),
                "sha256": one.digest,
                "windows": len(one),
                "people": len(one.people),
            }
            for one in corpus.shards
        ],
        "windows": sum(len(one) for one in corpus.trained),
        "windows without a good channel": corpus.unusable,
        "people": list(corpus.people),
        "people held out": list(corpus.held_out),
        "settings": dataclasses.asdict(settings),
        "seed": settings.seed,
        "steps": run.step,
        "loss": {"first": run.losses[0], "last hundred": float(np.mean(run.losses[-100:]))},
        "held out": {
            "loss": last.loss,
            "loss of zeros": last.reference,
            "share left": last.loss / last.reference if last.reference else None,
            "course": [[one.step, one.loss] for one in run.looks],
        },
        "precision": accelerator.mixed_precision,
        "device": str(accelerator.device),
        "processes": accelerator.num_processes,
        "versions": {
            "python": platform.python_version(),
            **{name: version(name) for name in ("torch", "accelerate", "numpy")},
        },
        "key": fingerprint(corpus, settings),
    }


def load_encoder(folder: Path, kind: str) -> cbramod.Encoder:
    """The encoder of ``kind`` that `pretrain` has written into a folder, in evaluation mode. Raises ModelError."""
    where = folder / CARD
    try:
        said = json.loads(where.read_text(encoding="utf-8"))
        state = safetensors.torch.load((folder / WEIGHTS).read_bytes())
    except (OSError, ValueError, safetensors.SafetensorError) as error:
        raise ModelError(f"{folder}: holds no encoder that can be read ({' '.join(str(error).split()):.80})") from None
    entry = Fields(said, str(where), "")
    if (found := entry.text("kind")) != kind:
        raise ModelError(f"{folder}: holds an encoder of {found:.20}, not of {kind}")
    try:
        config = read_config(Fields(entry.rest().get("network"), str(where), "network"))
        encoder = build(config, 1, 1)
        assert isinstance(encoder, cbramod.Encoder)
        encoder.load_state_dict(state)
    except (ValueError, RuntimeError) as error:
        raise ModelError(f"{folder}: weights and network differ ({' '.join(str(error).split()):.80})") from None
    return encoder.eval()

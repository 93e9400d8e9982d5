"""Trains the fusion network on windows of people at rest and under load.

Every step draws a few people and, of each, windows of the resting baseline beside windows to be classified: the resting
mean and spread are computed from the embeddings of that very step, so that the encoders learn embeddings that are worth
normalising. Which kinds take part is drawn too, so that either may be missing live.
"""

from __future__ import annotations

import copy
import importlib
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from types import MappingProxyType

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from models.calibration import resting_statistics
from models.distance import Reference, fit_reference
from models.distance import seen_from_rest as less_rest
from models.encoders import EncoderConfig, cbramod, encoders
from models.fusion import Z_LIMIT, FusionConfig, FusionModel
from offline_training.api import TrainingError
from offline_training.objectives import Objective, balance
from offline_training.prepare import KINDS, Prepared

MIN_SHARE = 0.5
"""Of the baseline's windows that must be good for a kind of signal to be used at all."""
FULL_BASELINE = 51
"""Windows of 10 s that end every second within the first 60 s."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Size of the network and how it is trained. Written into the manifest."""

    encoder: str = cbramod.Config().encoder
    """Of EEG and of ECG; sizes of any other than CBraMod are its own, not the next five."""
    d_model: int = 40
    layers: int = 2
    heads: int = 4
    ffn: int = 80
    position_kernel: tuple[int, int] = (5, 3)
    dropout: float = 0.0
    """Inside the encoders; costs a quarter of the time on a CPU."""
    head_dropout: float = 0.1
    head_penalty: float = 0.03
    """Times the sum of squared head weights, in the loss."""
    steps: int = 80
    """0 leaves the encoders as they were drawn: the random-encoder baseline."""
    people_per_step: int = 4
    baseline_windows: int = 8
    """Of each person in a step; resting mean and spread come from them."""
    class_windows: int = 6
    """Of each person in a step twice as many, spread evenly over the classes or levels that the person has."""
    encoder_rate: float = 3e-4
    head_rate: float = 3e-4
    weight_decay: float = 0.05
    label_smoothing: float = 0.1
    warm_up: float = 0.1
    """Share of the steps."""
    single_kind: float = 0.5
    """Share of windows shown with one kind only, either equally often."""
    channel_dropout: float = 0.1
    """Largest share of EEG channels silenced for one person in one step."""
    average: float = 0.95
    """Of the running mean of the weights, which is what is kept."""
    prior_windows: float = 50.0
    """How many windows the pooled resting spread counts for beside the person's own."""
    rest_floor: float = 0.5
    """A person's resting spread is never believed to be below this share of the pooled one."""
    variability: bool = False
    """Give the head log RMSSD too."""
    eeg: EncoderConfig | None = None
    """That of weights that training begins with, instead of one as described above."""
    ecg: EncoderConfig | None = None

    def network(self, eeg_channels: int, ecg_channels: int, seconds: int, rate: int) -> FusionConfig:
        return FusionConfig(
            eeg_channels=eeg_channels,
            ecg_channels=ecg_channels,
            seconds=seconds,
            rate=rate,
            eeg=self.eeg or self._described(self.position_kernel),
            ecg=self.ecg or self._described((1, self.position_kernel[1])),
            band_power=True,
            heart=True,
            variability=self.variability,
            head_dropout=self.head_dropout,
        )

    def _described(self, position_kernel: tuple[int, int]) -> EncoderConfig:
        if self.encoder not in encoders():
            raise TrainingError(f"encoder {self.encoder!r:.40}: there are {', '.join(encoders())}.")
        if self.encoder != cbramod.Config().encoder:
            other: EncoderConfig = importlib.import_module(f"models.encoders.{self.encoder}").Config()
            return other
        try:
            return cbramod.Config(
                d_model=self.d_model,
                layers=self.layers,
                heads=self.heads,
                ffn=self.ffn,
                dropout=self.dropout,
                position_kernel=position_kernel,
            )
        except ValueError as error:
            raise TrainingError(f"no such encoder can be built: {error}.") from None


SIZES: Mapping[str, Mapping[str, object]] = {
    "small": {},
    "medium": {"d_model": 80, "layers": 4, "ffn": 160},
    "published": {
        name: getattr(cbramod.Config(), name)
        for name in ("d_model", "layers", "heads", "ffn", "dropout", "position_kernel")
    },
}
"""Name -> what of `Settings` makes CBraMod of this size; small is that of the model that ships."""


def setting(name: str, text: str) -> str | float | bool | tuple[int, ...]:
    """The value of a field of `Settings` as a user writes it: 0.03, 80, yes, 5x3. Raises TrainingError in words."""
    plain = {field.name: field.default for field in fields(Settings) if field.default is not None}
    if name not in plain:
        raise TrainingError(f"{name!r:.40} is no setting; there are {', '.join(plain)}.")
    usual = plain[name]
    try:
        if isinstance(usual, bool):
            return {"yes": True, "no": False}[text]
        if isinstance(usual, tuple):
            one, other = text.split("x")
            return int(one), int(other)
        if isinstance(usual, int):
            if int(text) < 0:
                raise ValueError
            return int(text)
        if isinstance(usual, float):
            if not 0.0 <= float(text) < 1e6:
                raise ValueError
            return float(text)
    except (ValueError, KeyError):
        kind = {bool: "yes or no", tuple: "two sizes such as 5x3", int: "a whole number, 0 or more"}
        wanted = kind.get(type(usual), "a number, 0 or more")
        raise TrainingError(f"{name}: {text!r:.40} is not {wanted}.") from None
    return text


@dataclass(frozen=True, slots=True, eq=False)
class Trained:
    """A network, ready to use, with what its resting baseline needs."""

    network: FusionModel
    pooled_sd: NDArray[np.float32]
    """(D,) resting standard deviation within a person, pooled over the people trained on."""
    settings: Settings


@dataclass(frozen=True, slots=True, eq=False)
class Start:
    """A network as drawn from a seed, and its embeddings (n, D) of all prepared windows: the same for every fold."""

    network: FusionModel
    embedding: NDArray[np.float32]
    seed: int


def draw(
    prepared: Prepared,
    settings: Settings,
    seed: int,
    weights: Mapping[str, Mapping[str, Tensor]] = MappingProxyType({}),
    made: Callable[[FusionConfig], FusionModel] = FusionModel,
) -> Start:
    """The network that training begins with: as drawn, but for encoders of which there are ``weights``, by kind."""
    torch.manual_seed(seed)
    spec = prepared.spec
    network = made(
        settings.network(
            prepared.signals["eeg"].shape[1], prepared.signals["ecg"].shape[1], round(spec.seconds), round(spec.rate)
        )
    )
    for kind, state in weights.items():
        encoder = network.eeg_encoder if kind == "eeg" else network.ecg_encoder
        assert isinstance(encoder, torch.nn.Module)
        encoder.load_state_dict(dict(state))
    return Start(network.eval(), embed(network, prepared, np.arange(len(prepared.label))), seed)


def train(prepared: Prepared, rows: NDArray[np.intp], settings: Settings, start: Start) -> Trained:
    """Trains on the windows ``rows``; the same seed on the same machine gives the same network.

    The loss is that of the target's kind. First the head alone, to its optimum, on the encoders as they were drawn;
    then everything together, gently. Raises TrainingError when somebody among them lacks resting baseline or a class.
    """
    random = np.random.default_rng(start.seed)
    torch.manual_seed(start.seed)
    network = copy.deepcopy(start.network)
    pools = _pools(prepared, rows)
    embedding = start.embedding[rows]
    drawn = Trained(network.eval(), pooled_spread(network, embedding, prepared, rows), settings)
    mean, spread, allowed = seen_from_rest(drawn, embedding, prepared, rows)
    z = ((embedding - mean) / spread).clip(-Z_LIMIT, Z_LIMIT)
    wanted = prepared.trained[rows]
    label, value = prepared.label[rows][wanted], prepared.value[rows][wanted]
    objective = Objective(prepared.target, label, value, settings.label_smoothing)
    fit_head(network, objective, z[wanted], label, value, allowed[wanted], settings)
    if not settings.steps:
        return drawn
    kept = copy.deepcopy(network).eval()
    body = [p for name, p in network.named_parameters() if not _of_head(name) and p.requires_grad]
    head = [p for name, p in network.named_parameters() if _of_head(name)] + list(objective.parameters())
    optimizer = torch.optim.AdamW(
        [
            {"params": body, "lr": settings.encoder_rate, "weight_decay": settings.weight_decay},
            {"params": head, "lr": settings.head_rate, "weight_decay": 0.0},
        ],
        betas=(0.9, 0.98),
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _rate(step, settings))
    network.train()
    for _ in range(settings.steps):
        people = random.choice(sorted(pools), size=min(settings.people_per_step, len(pools)), replace=False)
        loss = _step_loss(network, objective, prepared, [pools[who] for who in people], settings, random)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(body + head, 1.0)
        optimizer.step()
        schedule.step()
        _average(kept, network, settings.average)
    return Trained(kept, pooled_spread(kept, embed(kept, prepared, rows), prepared, rows), settings)


def _of_head(name: str) -> bool:
    return name.startswith(("head.", "absent_"))


def fit_head(
    network: FusionModel,
    objective: Objective,
    z: NDArray[np.float32],
    label: NDArray[np.int64],
    value: NDArray[np.float64],
    allowed: NDArray[np.bool_],
    settings: Settings,
) -> None:
    """Sets the linear head, what stands for an absent kind and the objective to their optimum on embeddings z (n, D).

    ``z`` is seen from rest, ``allowed`` (n, 2) says which kinds may take part. The loss, balanced over classes or
    levels, of windows shown whole, with EEG only and with ECG only, with a bias for each; the biases become the vectors
    that stand for what is absent.
    """
    linear = network.head[-1]
    assert isinstance(linear, torch.nn.Linear)
    width = network.config.eeg_dim
    kinds = ((True, True), (True, False), (False, True))
    shares = (1.0 - settings.single_kind, 0.5 * settings.single_kind, 0.5 * settings.single_kind)
    answer = objective.answers(label, value)
    parts = []
    for number, (use, share) in enumerate(zip(kinds, shares, strict=True)):
        if share == 0.0:
            continue
        rows = np.flatnonzero((allowed | ~np.array(use)).all(1))
        if len(set(answer[rows].tolist())) < 2:
            raise TrainingError(
                f"the head needs windows that differ in {objective.name}, with EEG, with ECG and with both."
            )
        mask = np.repeat(np.array(use, dtype=np.float32), (width, z.shape[1] - width))
        weight = torch.from_numpy(share * balance(label[rows])).float()
        parts.append((number, torch.from_numpy(z[rows] * mask), answer[rows], weight))
    weights = torch.zeros(z.shape[1], requires_grad=True)
    biases = torch.zeros(len(kinds), requires_grad=True)
    optimizer = torch.optim.LBFGS(
        [weights, biases, *objective.parameters()], max_iter=300, line_search_fn="strong_wolfe"
    )

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss: Tensor = settings.head_penalty * weights.square().sum()
        for number, shown, wanted, weight in parts:
            loss = loss + (weight * objective(shown @ weights + biases[number], wanted)).sum()
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    optimizer.step(closure)  # type: ignore[no-untyped-call]
    with torch.no_grad():
        shown_ways = [number for number, *_ in parts]
        for number in set(range(len(kinds))) - set(shown_ways):
            biases[number] = biases[shown_ways[0]]
        linear.weight[0], linear.bias[0] = weights, biases[0]
        eeg, ecg = weights[:width], weights[width:]
        # The shortest vectors that add exactly the difference of the biases.
        network.absent_ecg.copy_((biases[1] - biases[0]) * ecg / ecg.square().sum().clamp(min=1e-12))
        network.absent_eeg.copy_((biases[2] - biases[0]) * eeg / eeg.square().sum().clamp(min=1e-12))


def _rate(step: int, settings: Settings) -> float:
    """Share of the full learning rate: linear warm-up, then a cosine down to a hundredth."""
    warm = max(1.0, settings.warm_up * settings.steps)
    if step < warm:
        return (step + 1) / warm
    return 0.01 + 0.99 * 0.5 * (1.0 + math.cos(math.pi * min(1.0, (step - warm) / max(1.0, settings.steps - warm))))


Pool = tuple[NDArray[np.intp], list[NDArray[np.intp]]]
"""Row numbers of one person: resting baseline, and each class or level that the person has."""


def _pools(prepared: Prepared, rows: NDArray[np.intp]) -> dict[str, Pool]:
    pools: dict[str, Pool] = {}
    binary = prepared.target.kind == "binary"
    for who in sorted(set(prepared.person[rows].tolist())):
        own = rows[prepared.person[rows] == who]
        baseline, wanted = own[prepared.baseline[own]], own[prepared.trained[own]]
        label = prepared.label[wanted]
        parts = [wanted[label == one] for one in ((0, 1) if binary else np.unique(label))]
        if len(baseline) < 3 or not parts or not all(len(part) for part in parts):
            found = " and ".join(f"{len(part)} of class {one}" for one, part in enumerate(parts)) if binary else "none"
            raise TrainingError(
                f"person {who}: {len(baseline)} resting baseline windows and to train on {found}; training needs 3 and "
                "of each class 1."
            )
        pools[who] = (baseline, parts)
    return pools


def _step_loss(
    network: FusionModel,
    objective: Objective,
    prepared: Prepared,
    pools: list[Pool],
    settings: Settings,
    random: np.random.Generator,
) -> Tensor:
    rows = []
    judged = 2 * settings.class_windows
    for baseline, parts in pools:
        sizes = [len(share) for share in np.array_split(np.arange(judged), len(parts))]
        if sizes[0] != sizes[-1]:
            parts = [parts[index] for index in random.permutation(len(parts))]
        for part, size in zip((baseline, *parts), (settings.baseline_windows, *sizes), strict=True):
            rows.append(random.choice(part, size=size, replace=len(part) < size))
    picked = np.concatenate(rows)
    people, each = len(pools), settings.baseline_windows + judged
    eeg = torch.from_numpy(prepared.signals["eeg"][picked])
    ecg = torch.from_numpy(prepared.signals["ecg"][picked])
    # One electrode cap a person and step: a channel that is silent is so in the baseline, too.
    silent = random.random((people, eeg.shape[1])) < settings.channel_dropout * random.random((people, 1))
    keep = torch.from_numpy(np.repeat(~silent, each, axis=0).astype(np.float32))
    sign = torch.from_numpy(np.repeat(random.choice([-1.0, 1.0], people), each).astype(np.float32))
    embedding = network.embed(eeg * keep[:, :, None], ecg * sign[:, None, None]).reshape(people, each, -1)
    rest = embedding[:, : settings.baseline_windows]
    mean = rest.mean(1, keepdim=True)
    own = rest.var(1, unbiased=False, keepdim=True)
    pooled = own.mean(0, keepdim=True)
    spread = rest_spread(own, pooled, settings)
    shown = embedding[:, settings.baseline_windows :]
    count = people * shown.shape[1]
    judged_rows = picked.reshape(people, each)[:, settings.baseline_windows :].reshape(-1)
    answer = objective.answers(prepared.label[judged_rows], prepared.value[judged_rows])
    usable = prepared.usable[picked].reshape(people, each, len(KINDS))
    # A kind whose baseline is unusable cannot be used by anyone.
    rested = usable[:, : settings.baseline_windows].mean(1, keepdims=True) >= MIN_SHARE
    allowed = (usable[:, settings.baseline_windows :] & rested).reshape(count, len(KINDS))
    use = draw_kinds(allowed, settings.single_kind, random)
    logit = network.classify(
        shown.flatten(0, 1),
        torch.from_numpy(use),
        mean.expand_as(shown).flatten(0, 1),
        spread.expand_as(shown).flatten(0, 1),
    )[:, 0]
    weight = torch.from_numpy((use.sum(1) > 0).astype(np.float32))
    losses: Tensor = objective(logit, answer)
    linear = network.head[-1]
    assert isinstance(linear, torch.nn.Linear)
    return (losses * weight).sum() / weight.sum().clamp(min=1.0) + settings.head_penalty * linear.weight.square().sum()


def rest_spread(own: Tensor, pooled: Tensor, settings: Settings) -> Tensor:
    """The resting spread to divide by, from a person's own variance and the pooled one, as after a full baseline."""
    share = FULL_BASELINE / (FULL_BASELINE + settings.prior_windows)
    mixed = share * own + (1.0 - share) * pooled
    return torch.maximum(mixed, settings.rest_floor**2 * pooled).clamp(min=1e-8).sqrt()


def draw_kinds(allowed: NDArray[np.bool_], single: float, random: np.random.Generator) -> NDArray[np.float32]:
    """``use`` (n, 2): what is ``allowed`` (n, 2), but with chance ``single`` only one of two, each equally often."""
    use = allowed.copy()
    both = allowed.all(1)
    alone = both & (random.random(len(use)) < single)
    which = random.integers(2, size=len(use))
    use[alone, which[alone]] = False
    return use.astype(np.float32)


@torch.no_grad()
def _average(kept: FusionModel, network: FusionModel, share: float) -> None:
    for old, new in zip(kept.parameters(), network.parameters(), strict=True):
        old.lerp_(new, 1.0 - share)


@torch.no_grad()
def embed(network: FusionModel, prepared: Prepared, rows: NDArray[np.intp], batch: int = 64) -> NDArray[np.float32]:
    """Embeddings (rows, D) before the resting baseline, in evaluation mode."""
    network.eval()
    parts = []
    for first in range(0, len(rows), batch):
        some = rows[first : first + batch]
        parts.append(
            network.embed(
                torch.from_numpy(prepared.signals["eeg"][some]), torch.from_numpy(prepared.signals["ecg"][some])
            ).numpy()
        )
    return np.concatenate(parts)


def _kind_slices(network: FusionModel) -> tuple[slice, slice]:
    width = network.config.eeg_dim
    return slice(0, width), slice(width, network.config.embedding_dim)


def pooled_spread(
    network: FusionModel, embedding: NDArray[np.float32], prepared: Prepared, rows: NDArray[np.intp]
) -> NDArray[np.float32]:
    """(D,) resting standard deviation within a session, pooled over those in ``rows``, of embeddings (rows, D)."""
    session, baseline, usable = prepared.session[rows], prepared.baseline[rows], prepared.usable[rows]
    pooled = np.empty(embedding.shape[1], dtype=np.float32)
    for number, part in enumerate(_kind_slices(network)):
        variances = []
        for one in np.unique(session):
            own = (session == one) & baseline
            good = own & usable[:, number]
            if good.sum() >= max(2, MIN_SHARE * own.sum()):
                variances.append(embedding[good, part].astype(np.float64).var(0))
        if not variances:
            raise TrainingError(f"nobody among the people trained on has a usable resting baseline of {KINDS[number]}.")
        # The tiny constant keeps a feature that never moves from being divided by zero.
        pooled[part] = np.sqrt(np.mean(variances, axis=0) + 1e-8)
    return pooled


def seen_from_rest(
    trained: Trained, embedding: NDArray[np.float32], prepared: Prepared, rows: NDArray[np.intp]
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.bool_]]:
    """Resting mean and spread (rows, D) that go with each embedding, and which kinds (rows, 2) may be used.

    ``rows`` must hold the baseline windows of everyone in them. A kind needs a good window and a good baseline in its
    session. Raises TrainingError when a person has none at all.
    """
    settings = trained.settings
    person, session = prepared.person[rows], prepared.session[rows]
    baseline, usable = prepared.baseline[rows], prepared.usable[rows]
    without = sorted(set(person.tolist()) - set(person[baseline].tolist()))
    if without:
        raise TrainingError(f"person {without[0]}: no resting baseline among the windows.")
    mean, spread = np.zeros_like(embedding), np.ones_like(embedding)
    allowed = usable.copy()
    for one in np.unique(session):
        own = session == one
        rest = own & baseline
        for number, part in enumerate(_kind_slices(trained.network)):
            good = rest & usable[:, number]
            if good.sum() < max(2, MIN_SHARE * rest.sum()):
                allowed[own, number] = False
                continue
            centre, sd = resting_statistics(
                embedding[good, part], trained.pooled_sd[part], settings.prior_windows, settings.rest_floor
            )
            cell = np.ix_(own, np.arange(part.start, part.stop))
            mean[cell], spread[cell] = centre, sd
    return mean, spread, allowed


@torch.no_grad()
def logits(
    trained: Trained,
    prepared: Prepared,
    rows: NDArray[np.intp],
    embedding: NDArray[np.float32],
    use: tuple[bool, bool],
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Raw logits (rows,) as live with the kinds ``use``, and which kinds (rows, 2) they really rest on.

    ``embedding`` (rows, D) is what `embed` gives. A kind that is not good enough in a window is not used; where none is
    left the logits are those of no signal at all, where a live session would withhold the estimate.
    """
    mean, spread, allowed = seen_from_rest(trained, embedding, prepared, rows)
    used = allowed & np.array(use)
    value = trained.network.classify(
        torch.from_numpy(embedding),
        torch.from_numpy(used.astype(np.float32)),
        torch.from_numpy(mean),
        torch.from_numpy(spread),
    )
    return value[:, 0].numpy().astype(np.float64), used


References = dict[str, tuple[Reference, Reference]]
"""kind -> what plain embeddings and those seen from rest are compared with."""


def references(
    trained: Trained, prepared: Prepared, rows: NDArray[np.intp], embedding: NDArray[np.float32]
) -> References:
    """Where the usable windows among ``rows`` lie, of embeddings (rows, D): what later windows are compared with."""
    mean, spread, allowed = seen_from_rest(trained, embedding, prepared, rows)
    trained_on, usable = prepared.trained[rows], prepared.usable[rows]
    found = {}
    for number, (kind, part) in enumerate(zip(KINDS, _kind_slices(trained.network), strict=True)):
        plain = usable[:, number] & (trained_on | prepared.baseline[rows])
        rested = allowed[:, number] & trained_on
        found[kind] = (
            fit_reference(embedding[plain, part]),
            fit_reference(less_rest(embedding[rested, part], mean[rested, part], spread[rested, part])),
        )
    return found


def distances(
    trained: Trained,
    compared: References,
    prepared: Prepared,
    rows: NDArray[np.intp],
    embedding: NDArray[np.float32],
) -> dict[str, NDArray[np.float64]]:
    """kind -> plain distance and that seen from rest, (rows, 2), of embeddings (rows, D); NaN where it is not used."""
    mean, spread, allowed = seen_from_rest(trained, embedding, prepared, rows)
    found = {}
    for number, (kind, part) in enumerate(zip(KINDS, _kind_slices(trained.network), strict=True)):
        plain, rested = compared[kind]
        values = embedding[:, part]
        both = np.stack([plain(values), rested(less_rest(values, mean[:, part], spread[:, part]))], axis=1)
        found[kind] = np.where(allowed[:, number, None], both, np.nan)
    return found

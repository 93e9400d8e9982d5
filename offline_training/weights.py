"""Weights that training begins with: of `insula pretrain`, or published ones, and whose recordings they have seen."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

import safetensors.torch
from torch import Tensor

from models.api import ModelError
from models.encoders import EncoderConfig, cbramod
from models.hub import PUBLISHED, fetched
from offline_training.api import TrainingError
from offline_training.finetune import Settings
from offline_training.prepare import KINDS
from offline_training.pretrain import CARD, WEIGHTS, load_encoder

OFFICIAL = "official"
"""Instead of a file: what `insula models fetch cbramod` has kept."""
LARGEST_CARD = 50_000_000


@dataclass(frozen=True, slots=True, eq=False)
class Weights:
    """Of one encoder."""

    config: EncoderConfig
    state: Mapping[str, Tensor]
    about: Mapping[str, object]
    """What goes into a manifest: sha256 of the tensors, data, settings, and of how many people."""
    people: frozenset[str]
    """Everyone trained on, as "data set/code"."""


def read_weights(where: str, kind: str) -> Weights:
    """The weights at ``where``: `OFFICIAL`, a folder of `insula pretrain` or the file in it.

    Raises TrainingError when they are not there, not whole, or of another kind of signal.
    """
    if where == OFFICIAL:
        return _official(kind)
    folder = Path(where)
    folder = folder if folder.is_dir() else folder.parent
    if not (folder / WEIGHTS).is_file():
        raise TrainingError(f"{where}: no {WEIGHTS} there; give the folder that `insula pretrain {kind}` has written.")
    try:
        encoder = load_encoder(folder, kind)
        if (folder / CARD).stat().st_size > LARGEST_CARD:
            raise TrainingError(f"{folder / CARD}: has more than {LARGEST_CARD} bytes.")
        card = json.loads((folder / CARD).read_text(encoding="utf-8"))
        people = frozenset(str(one) for one in card["people"])
        data = [(str(one["data set"]), str(one["sha256"])) for one in card["data"]]
    except ModelError as error:
        raise TrainingError(f"{error}; pre-train it again.") from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise TrainingError(
            f"{folder / CARD}: does not say whose recordings the weights have seen ({error!s:.60}); pre-train again."
        ) from None
    if not people or not data:
        raise TrainingError(
            f"{folder / CARD}: names nobody whose recordings the weights have seen; they cannot be used."
        )
    kept = ("kind", "parameters", "data", "settings", "seed", "steps", "held out")
    about = {"sha256": _digest(encoder.state_dict()), **{name: card[name] for name in kept if name in card}}
    # Collections have hundreds of thousands of people: the card has the list.
    about["people"] = len(people)
    return Weights(encoder.config, encoder.state_dict(), about, people)


def weights_asked(*, eeg: str | None, ecg: str | None) -> dict[str, Weights]:
    """By kind, of those that are asked for. Raises TrainingError."""
    return {kind: read_weights(where, kind) for kind, where in (("eeg", eeg), ("ecg", ecg)) if where is not None}


def _official(kind: str) -> Weights:
    name = "cbramod"
    if kind != "eeg":
        raise TrainingError(f"no official weights of {kind} are known; pre-train them with `insula pretrain {kind}`.")
    path = fetched(name)
    if path is None:
        raise TrainingError(f"the official weights are not here; run `insula models fetch {name}` first.")
    try:
        state = cbramod.load_cbramod(path)
    except ModelError as error:
        raise TrainingError(str(error)) from None
    published = PUBLISHED[name]
    about = {
        "sha256": _digest(state),
        "data": [{"data set": published.repository, "attribution": published.citation, "licence": published.licence}],
    }
    return Weights(cbramod.Config(), state, about, frozenset())


def _digest(state: Mapping[str, Tensor]) -> str:
    return hashlib.sha256(
        safetensors.torch.save({name: state[name].contiguous() for name in sorted(state)})
    ).hexdigest()


def fitted(settings: Settings, weights: Mapping[str, Weights]) -> Settings:
    """The settings, with the encoders that weights are of."""
    eeg, ecg = (weights[kind].config if kind in weights else None for kind in KINDS)
    return dataclasses.replace(settings, eeg=eeg or settings.eeg, ecg=ecg or settings.ecg)


def refuse_seen(weights: Mapping[str, Weights], dataset: str, people: Collection[str]) -> None:
    """Raises TrainingError when weights have been trained on recordings of people who are to be scored."""
    for kind, one in weights.items():
        seen = sorted(who for who in people if f"{dataset}/{who}" in one.people)
        if seen:
            raise TrainingError(
                f"the weights of {kind.upper()} were pre-trained on recordings of {', '.join(seen[:5])}"
                f"{' and others' if len(seen) > 5 else ''} of {dataset}, who are to be scored; pre-train with "
                "--exclude, or leave this data set out."
            )

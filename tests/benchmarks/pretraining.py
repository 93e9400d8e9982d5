"""What pre-training an encoder of ECG was worth: rhythms told apart with it, and with the same encoder as drawn.

``python tests/benchmarks/pretraining.py ENCODER SHARDS LABELS [--json OUT]``. ``ENCODER`` is what `insula pretrain ecg`
wrote, ``SHARDS`` what `insula prepare ecg_npz` made of the recordings, ``LABELS`` the folder in which these lie, with
their labels. Every recording is judged as a whole; tested are those that pre-training held out, so neither their labels
nor their signals have been learnt from. With all labels of the others, and with a tenth and a hundredth of them:

- linear probe: the encoder stays as it is; mean and spread of its embeddings over a recording, a logistic regression
  whose penalty is chosen within the recordings trained on;
- fine-tuning: encoder and a linear layer are trained together on windows, the same way for both;
- heart figures: rate, RMSSD and SDNN of the windows, in the same regression, for comparison.

Figures are means over the seeds, with a 95 % interval over the recordings tested.
"""

from __future__ import annotations

import argparse
import copy
import json
import platform
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegressionCV
from sklearn.metrics import f1_score, recall_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import nn

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))
from models.api import BAD_SCORE, ModelError  # noqa: E402
from models.encoders import build, cbramod  # noqa: E402
from models.fusion import scale_ecg  # noqa: E402
from offline_training.api import TrainingError  # noqa: E402
from offline_training.baselines import heart_features  # noqa: E402
from offline_training.datasets import ecg_npz  # noqa: E402
from offline_training.pretrain import CARD, load_encoder  # noqa: E402
from offline_training.shards import Shards  # noqa: E402

SHARES = (1.0, 0.1, 0.01)
"""Of the labels of the recordings trained on."""
SEEDS = (0, 1, 2)
PENALTIES = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)
EPOCHS, STEPS, BATCH, RATE = 4.0, 60, 64, 1e-3
"""Of fine-tuning: how often each window is shown, fewest steps, windows of a step, highest learning rate."""
DRAWS = 1000


@dataclass(frozen=True, slots=True, eq=False)
class Labelled:
    """Windows of recordings with a label."""

    shards: Shards
    rows: NDArray[np.int64]
    """(n,) windows with a good lead."""
    recording: NDArray[np.int64]
    """(n,) the number of the recording each is of."""
    label: NDArray[np.int64]
    """(recordings,) the number of its label."""
    names: tuple[str, ...]
    """Of the labels."""
    tested: NDArray[np.bool_]
    """(recordings,)"""

    def signals(self, windows: NDArray[np.int64]) -> torch.Tensor:
        """(windows, 1, time) in microvolts, of places in ``rows``."""
        return torch.from_numpy(self.shards.signals("ecg", self.rows[windows]))


def gather(card: dict[str, Any], shards: Shards, labels: dict[str, str]) -> Labelled:
    """The recordings that have a label and a usable window. A recording counts as a person in these collections."""
    if len(shards.spec.inputs[0].channels) != 1:
        raise TrainingError(f"{shards.folder}: the probe takes ECG of one lead.")
    learnt, held = (
        {name.partition("/")[2] for name in card[key] if name.startswith(f"{shards.dataset}/")}
        for key in ("people", "people held out")
    )
    known = [person for person in shards.people if person in labels and person in learnt | held]
    names = tuple(sorted({labels[person] for person in known}))
    if len(names) < 2 or not any(person in held for person in known):
        raise TrainingError(f"{shards.folder}: no labelled recording there was held out when the encoder was trained.")
    number = np.full(len(shards.people), -1)
    number[[shards.people.index(person) for person in known]] = np.arange(len(known))
    rows = np.flatnonzero((number[shards.who] >= 0) & shards.good("ecg", BAD_SCORE).all(1))
    used, recording = np.unique(number[shards.who[rows]], return_inverse=True)
    people = [known[place] for place in used.tolist()]
    return Labelled(
        shards,
        rows,
        recording,
        np.array([names.index(labels[person]) for person in people]),
        names,
        np.array([person in held for person in people]),
    )


@torch.no_grad()
def embeddings(encoder: cbramod.Encoder, data: Labelled) -> NDArray[np.float64]:
    """(windows, width) of all windows."""
    encoder.eval()
    rate = round(data.shards.spec.rate)
    parts = []
    for first in range(0, len(data.rows), 256):
        some = np.arange(first, min(first + 256, len(data.rows)))
        parts.append(encoder.pooled(scale_ecg(data.signals(some), rate)).numpy())
    return np.concatenate(parts).astype(np.float64)


def by_recording(values: NDArray[np.float64], data: Labelled) -> NDArray[np.float64]:
    """Mean and spread (recordings, 2 * figures) of (windows, figures); what no window has is the mean of all."""
    found = np.full((len(data.label), 2 * values.shape[1]), np.nan)
    order = np.argsort(data.recording, kind="stable")
    edges = np.flatnonzero(np.diff(data.recording[order], prepend=-1))
    for number, part in enumerate(np.split(order, edges[1:])):
        own = values[part]
        own = own[np.isfinite(own).all(1)]
        if len(own):
            found[number] = np.concatenate([own.mean(0), own.std(0)])
    return np.where(np.isfinite(found), found, np.nanmean(found, axis=0))


def regression(features: NDArray[np.float64], data: Labelled, fit: NDArray[np.intp], seed: int) -> NDArray[np.int64]:
    """What a logistic regression on the recordings ``fit`` says of the recordings tested."""
    folds = int(min(5, np.bincount(data.label[fit])[np.unique(data.label[fit])].min()))
    machine = make_pipeline(
        StandardScaler(),
        LogisticRegressionCV(
            Cs=PENALTIES,
            cv=max(2, folds),
            class_weight="balanced",
            scoring="f1_macro",
            max_iter=2000,
            random_state=seed,
            l1_ratios=(0.0,),
            use_legacy_attributes=False,
        ),
    )
    machine.fit(features[fit], data.label[fit])
    return np.asarray(machine.predict(features[data.tested]))


def finetuned(encoder: cbramod.Encoder, data: Labelled, fit: NDArray[np.intp], seed: int) -> NDArray[np.int64]:
    """What encoder and a linear layer, trained on the windows of the recordings ``fit``, say of those tested."""
    torch.manual_seed(seed)
    random = np.random.default_rng(seed)
    rate = round(data.shards.spec.rate)
    encoder = copy.deepcopy(encoder)
    head = nn.Linear(encoder.config.width, len(data.names))
    windows = np.flatnonzero(np.isin(data.recording, fit))
    weight = torch.from_numpy(1.0 / np.maximum(1, np.bincount(data.label[fit], minlength=len(data.names)))).float()
    loss_of = nn.CrossEntropyLoss(weight=weight / weight.sum())
    learnt = [*encoder.parameters(), *head.parameters()]
    optimizer = torch.optim.AdamW([one for one in learnt if one.requires_grad], lr=RATE, weight_decay=0.05)
    steps = max(STEPS, round(EPOCHS * len(windows) / BATCH))
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, total_steps=steps, pct_start=0.1)
    encoder.train()
    order: list[int] = []
    for _ in range(steps):
        while len(order) < BATCH:
            order += random.permutation(windows).tolist()
        some = np.array(order[:BATCH])
        del order[:BATCH]
        sign = torch.from_numpy(random.choice(np.float32([-1, 1]), (len(some), 1, 1)))
        logit = head(encoder.pooled(scale_ecg(data.signals(some) * sign, rate)))
        loss = loss_of(logit, torch.from_numpy(data.label[data.recording[some]]))
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(learnt, 1.0)
        optimizer.step()
        schedule.step()
    encoder.eval()
    tested = np.flatnonzero(data.tested[data.recording])
    total = np.zeros((len(data.label), len(data.names)))
    with torch.no_grad():
        for first in range(0, len(tested), 256):
            some = tested[first : first + 256]
            log_p = head(encoder.pooled(scale_ecg(data.signals(some), rate))).log_softmax(-1)
            np.add.at(total, data.recording[some], log_p.numpy().astype(np.float64))
    return np.asarray(total[data.tested].argmax(1))


def scores(label: NDArray[np.int64], said: Sequence[NDArray[np.int64]]) -> dict[str, object]:
    """Macro F1 and balanced accuracy, means over the seeds' answers, with 95 % intervals over recordings."""
    random = np.random.default_rng(0)

    def both(some: NDArray[np.intp]) -> list[float]:
        rows = [
            (
                f1_score(label[some], one[some], average="macro", zero_division=0.0),
                recall_score(label[some], one[some], average="macro", zero_division=0.0),
            )
            for one in said
        ]
        return np.asarray(np.mean(rows, axis=0), dtype=float).tolist()

    drawn = [both(random.integers(len(label), size=len(label))) for _ in range(DRAWS // len(said))]
    low, high = np.percentile(drawn, [2.5, 97.5], axis=0).tolist()
    value = both(np.arange(len(label)))
    return {
        name: {"value": value[at], "low": low[at], "high": high[at]}
        for at, name in enumerate(("macro_f1", "balanced_accuracy"))
    }


def probe(folder: Path, shards: Shards, labels: dict[str, str], say: Callable[[str], object]) -> dict[str, object]:
    """All figures. Raises TrainingError or ModelError."""
    trained = load_encoder(folder, "ecg")
    data = gather(json.loads((folder / CARD).read_text(encoding="utf-8")), shards, labels)
    fit = np.flatnonzero(~data.tested)
    truth = data.label[data.tested]
    count = ", ".join(f"{name} {number}" for name, number in zip(data.names, np.bincount(truth), strict=True))
    say(f"{len(fit)} recordings to learn from, {len(truth)} tested ({count}); {len(data.rows)} windows")
    heart = by_recording(heart_features(data.shards.signals("ecg", data.rows)[:, 0], data.shards.spec.rate), data)
    probed = by_recording(embeddings(trained, data), data)
    drawn, drawn_probed = {}, {}
    for seed in SEEDS:
        torch.manual_seed(seed)
        one = build(trained.config, 1, round(data.shards.spec.seconds))
        assert isinstance(one, cbramod.Encoder)
        drawn[seed], drawn_probed[seed] = one, by_recording(embeddings(one, data), data)
    ways = {
        "heart figures": lambda fit, seed: regression(heart, data, fit, seed),
        "linear probe, as drawn": lambda fit, seed: regression(drawn_probed[seed], data, fit, seed),
        "linear probe, pre-trained": lambda fit, seed: regression(probed, data, fit, seed),
        "fine-tuned, as drawn": lambda fit, seed: finetuned(drawn[seed], data, fit, seed),
        "fine-tuned, pre-trained": lambda fit, seed: finetuned(trained, data, fit, seed),
    }
    found = {}
    for share in SHARES:
        for name, way in ways.items():
            began = time.perf_counter()
            row = scores(truth, [way(_share(data, fit, share, seed), seed) for seed in SEEDS])
            found[f"{name}, {100 * share:g} % of the labels"] = row
            told = "  ".join(
                f"{row[key]['value']:.3f} [{row[key]['low']:.3f}, {row[key]['high']:.3f}]"
                for key in ("macro_f1", "balanced_accuracy")
            )
            say(f"{100 * share:4g} %  {name:26}  {told}  ({time.perf_counter() - began:.0f} s)")
    return {
        "recordings": {"learnt from": len(fit), "tested": len(truth)},
        "labels": dict(zip(data.names, np.bincount(data.label).tolist(), strict=True)),
        "windows": len(data.rows),
        "seeds": list(SEEDS),
        "rows": found,
        "machine": {"processor": platform.processor() or platform.machine(), "torch": torch.__version__},
    }


def _share(data: Labelled, fit: NDArray[np.intp], share: float, seed: int) -> NDArray[np.intp]:
    """That share of the recordings ``fit``, two of each label at least."""
    random = np.random.default_rng(seed)
    kept = []
    for number in range(len(data.names)):
        own = random.permutation(fit[data.label[fit] == number])
        kept.append(own[: max(2, round(share * len(own)))])
    return np.sort(np.concatenate(kept))


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("encoder", type=Path)
    parser.add_argument("shards", type=Path)
    parser.add_argument("labels", type=Path)
    parser.add_argument("--json", type=Path, help="write every figure here")
    chosen = parser.parse_args(arguments)
    try:
        found = probe(
            chosen.encoder, Shards(chosen.shards), ecg_npz.labels(chosen.labels), lambda text: print(text, flush=True)
        )
    except (TrainingError, ModelError) as error:
        print(error, file=sys.stderr)
        return 2
    if chosen.json is not None:
        chosen.json.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())

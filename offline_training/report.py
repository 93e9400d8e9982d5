"""The card of a bundle: what it is, what it was made from, how good it is and what it is not, for a human reader."""

from __future__ import annotations

import numpy as np

from models.bundle import Manifest
from offline_training.api import Source

AT_CHANCE = 0.55
"""Balanced accuracy of one person up to which the card calls the model no better than chance for that person."""


def card(manifest: Manifest, table: str, source: Source, remarks: str = "") -> str:
    """Markdown of a bundle's README.md; ``remarks`` are further limits, in whole sentences."""
    inputs = "\n".join(
        f"- {spec.kind}: {' '.join(spec.channels)} ({spec.unit}, {spec.band[0]:g}-{spec.band[1]:g} Hz causal)"
        for spec in manifest.window.inputs
    )
    targets = "\n".join(
        f"- **{target.name}** {target.range[0]:g}..{target.range[1]:g}: {target.meaning}" for target in manifest.targets
    )
    return f"""# {manifest.name} {manifest.version}

Trained with insula from {manifest.window.seconds:g} s windows at {manifest.window.rate:g} Hz, one every \
{manifest.window.hop:g} s live.

{inputs}

{targets}

The first {manifest.rest.seconds:g} s of a session are the resting baseline; nothing is estimated before.

## Measured on people not trained on

{manifest.accuracy}.

```
{table}
```

Brackets are 95 % intervals over people. Protocol: {manifest.training["protocol"]}.

"Good windows" are those in which every kind that the row asks for passes the quality gate; elsewhere a live \
session falls back to the other kind, as the fused row does, or withholds. {contribution(manifest)}Selection: \
{manifest.training["selection"]}.

{reach(manifest)}
{paragraph(demonstration(manifest))}{paragraph(beginning(manifest))}
## Limits

{manifest.limits[0].upper()}{manifest.limits[1:]}. {source.order[0].upper()}{source.order[1:]}. \
{source.form[0].upper()}{source.form[1:]}. {remarks}{" " if remarks else ""}Research use, not a medical device.

## Data and licence

{source.attribution}. {source.licence}, {source.url}

{manifest.licence}.
"""


def paragraph(text: str) -> str:
    return f"\n{text}\n" if text else ""


def beginning(manifest: Manifest) -> str:
    """What the encoders began with, in a sentence; "" when they were drawn."""
    weights = manifest.training.get("weights")
    if not isinstance(weights, dict) or not weights:
        return ""
    told = []
    for kind, about in weights.items():
        data = ", ".join(str(one.get("name") or one.get("data set")) for one in about["data"])
        told.append(f"{kind.upper()} with weights pre-trained on {data}")
    return f"Training began for {' and for '.join(told)}; nobody scored here is among the people of that training."


def contribution(manifest: Manifest) -> str:
    """What training the encoders was worth, in a sentence; "" when the table has no encoders left as drawn."""
    scores = manifest.metrics["scores"]
    assert isinstance(scores, dict)
    if "random encoders, fused" not in scores:
        return ""
    gain = [
        scores["fused"][name]["value"] - scores["random encoders, fused"][name]["value"]
        for name in ("balanced_accuracy", "auroc")
    ]
    return (
        f"Training the encoders changed balanced accuracy by {gain[0]:+.3f} and AUROC by {gain[1]:+.3f} against "
        "encoders left as they were drawn; compare with the classical rows, which see band power and heart rate only. "
    )


def reach(manifest: Manifest) -> str:
    """What the limit of distance to the training data leaves in, in a sentence or two."""
    quality = manifest.metrics["distance"]
    assert isinstance(quality, dict)
    shares = ", ".join(
        f"{100 * row['within_nested']:.1f} % of {row['windows']} usable windows of {kind.upper()} "
        f"({100 * row['worst_person']:.0f} % of the person with the fewest)"
        for kind, row in quality.items()
    )
    return (
        "A kind of signal that lies farther from the training data than its limit is not used. Within limits taken "
        f"from the other folds lie {shares}. The scores above are of all windows, those beyond the limit included."
    )


def demonstration(manifest: Manifest) -> str:
    """What the bundle says of the person left out of its training, and how well that person was told apart, beside
    the others, in cross-validation; "" when nobody was left out for that."""
    held, people = manifest.metrics.get("held_out_person"), manifest.metrics["per_person"]
    if held is None:
        return ""
    assert isinstance(held, dict)
    assert isinstance(people, dict)
    who, name = held["person"], manifest.targets[0].name
    low, high = held["rest_last_minute"], held["mental_arithmetic"]
    own = people[who]["balanced_accuracy"]
    usual = float(np.median([one for row in people.values() if (one := row["balanced_accuracy"]) is not None]))
    text = (
        f"Person {who}, left out of the training and the calibration of this bundle (but not of the comparison of "
        f"settings): mean {name} {low:.2f} in the last minute of rest, {high:.2f} in the minute of mental arithmetic. "
        f"{who}'s own balanced accuracy in cross-validation is {own:.2f}; the median of all {len(people)} people is "
        f"{usual:.2f}."
    )
    if own <= AT_CHANCE:
        rises = f", although the mean {name} rises" if high > low else ""
        text += f" For this person the model is at chance at the threshold 0.5{rises}."
    return text

"""The card of a bundle: what it is, what it was made from, how good it is and what it is not, for a human reader."""

from __future__ import annotations

from models.bundle import Manifest
from offline_training.api import Source


def card(manifest: Manifest, table: str, source: Source) -> str:
    """Markdown of a bundle's README.md."""
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

## Limits

{manifest.limits[0].upper()}{manifest.limits[1:]}. {source.order[0].upper()}{source.order[1:]}. The EEG of the data \
was cleaned by its authors (ICA); a live headset is noisier. \
Young adults in one laboratory. Research use, not a medical device.

## Data and licence

{source.attribution}. {source.licence}, {source.url}

{manifest.licence}.
"""

"""EEGNet, a compact convolutional network (Lawhern et al., J Neural Eng 15:056013, 2018, arXiv 1611.08024).

Filters in time, a weighted sum of the channels for each of them, then filters in time on those sums: a few thousand
parameters that learn from little data. Three things differ from the paper. The times are kept, not the samples (half a
second of kernel, pooling to about 32 Hz), as it worked at 128 Hz. Normalisation is over one window instead of a batch,
so that a person's window means the same whoever else is in the batch, in training too; overall amplitude is lost with
it. The features are averaged over time instead of flattened, so that any window length gives the same width.

The weighted sum belongs to the channels it was trained with, in their order.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor, nn

from models.fields import Fields

POOLED_HZ = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """The paper's EEGNet-8,2 by default."""

    encoder: str = field(default=__name__.rpartition(".")[2], init=False)
    filters: int = 8
    """In time; each is half a second long."""
    depth: int = 2
    """Weighted sums of the channels for each filter."""
    width: int = 16
    """Features of the last layer, averaged over time."""
    patch: int = 200
    """Samples of one patch, which is one second."""
    dropout: float = 0.25

    def __post_init__(self) -> None:
        if min(self.filters, self.depth, self.width) < 1:
            raise ValueError(f"{self}: sizes must be positive")
        if self.patch < POOLED_HZ:
            raise ValueError(f"{self}: a patch has at least {POOLED_HZ} samples")


def read(entry: Fields) -> Config:
    """From the manifest."""
    return Config(
        filters=entry.integer("filters", 1, 1024),
        depth=entry.integer("depth", 1, 64),
        width=entry.integer("width", 1, 8192),
        patch=entry.integer("patch", POOLED_HZ, 10_000),
        dropout=entry.number("dropout", 0.0, 0.99),
    )


class Encoder(nn.Module):
    """(B, C, N, patch) to (B, width); C is fixed, N is not."""

    def __init__(self, config: Config, channels: int, seconds: int) -> None:  # noqa: ARG002  (any length will do)
        super().__init__()
        self.config = config
        sums = config.filters * config.depth
        around = config.patch // 4
        self.in_time = nn.Conv2d(1, config.filters, (1, 2 * around + 1), padding=(0, around), bias=False)
        self.across_channels = nn.Sequential(
            nn.GroupNorm(1, config.filters),
            nn.Conv2d(config.filters, sums, (channels, 1), groups=config.filters, bias=False),
            nn.GroupNorm(1, sums),
            nn.ELU(),
            nn.AvgPool2d((1, max(1, config.patch // POOLED_HZ))),
            nn.Dropout(config.dropout),
        )
        self.separable = nn.Sequential(
            nn.Conv2d(sums, sums, (1, POOLED_HZ // 2 + 1), padding=(0, POOLED_HZ // 4), groups=sums, bias=False),
            nn.Conv2d(sums, config.width, 1, bias=False),
            nn.GroupNorm(1, config.width),
            nn.ELU(),
            nn.Dropout(config.dropout),
        )

    def pooled(self, x: Tensor) -> Tensor:
        """(B, width), the mean over time of the features of windows ``x`` (B, C, N, patch)."""
        features: Tensor = self.separable(self.across_channels(self.in_time(x.flatten(2)[:, None])))
        return features.mean(dim=(2, 3))

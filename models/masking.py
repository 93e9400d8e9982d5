"""What is hidden from an encoder in pre-training, and how well it fills the gap: dual masking of leads.

Within a lead (intra), one-second patches are hidden by independent draws, as CBraMod hides those of EEG. Between leads
(inter), whole leads are hidden, for all of the window or for a stretch of it, so that they have to be read off the
others. The paper that insula follows (arXiv 2512.15250) names the two and not their ratios: those here are our reading.
Between leads is undefined where there is one lead, as from a chest strap; such a window is masked within its lead only.

Everything is drawn from the generator that is given: the same seed hides the same patches.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class MaskConfig:
    """How much is hidden; either kind alone by setting the other's ratio to 0."""

    intra: float = 0.3
    """Chance of every patch to be hidden, whatever happens to its lead."""
    inter: float = 0.3
    """Mean share of the leads that are hidden; at least one of a window never is."""
    whole: float = 0.5
    """Chance that a hidden lead is hidden for all of the window instead of for a stretch of it."""
    one_lead: float = 0.25
    """Chance that a batch shows a single lead, as a chest strap does."""

    def __post_init__(self) -> None:
        shares = (self.intra, self.inter, self.whole, self.one_lead)
        if not all(0.0 <= share <= 1.0 for share in shares):
            raise ValueError(f"{self}: shares lie between 0 and 1")
        if self.intra == 0.0 and self.inter == 0.0:
            raise ValueError(f"{self}: nothing would be hidden; set intra, inter or both")
        if self.intra == 0.0 and self.one_lead > 0.0:
            raise ValueError(f"{self}: a single lead cannot be masked between leads; set intra, or one_lead to 0")


def draw_leads(leads: int, config: MaskConfig, generator: torch.Generator) -> Tensor:
    """Which leads of ``leads`` a batch shows, rising: all of them, or with chance ``one_lead`` a single one.

    The others are left out of the batch (``x[:, leads]``), not zeroed: a strap's network has one channel, too.
    """
    if leads > 1 and _chance(1, generator).item() < config.one_lead:
        return torch.randint(leads, (1,), generator=generator)
    return torch.arange(leads)


def dual_mask(shape: tuple[int, int, int], config: MaskConfig, generator: torch.Generator) -> Tensor:
    """(B, L, N) of bool, true where a patch is hidden: within leads, between leads, or both.

    Raises ValueError for one lead when nothing is to be hidden within leads.
    """
    if shape[1] == 1:
        if config.intra == 0.0:
            raise ValueError("one lead: masking between leads is undefined; set MaskConfig.intra above 0")
        return intra_lead(shape, config.intra, generator)
    within = intra_lead(shape, config.intra, generator)
    return within | inter_lead(shape, config.inter, config.whole, generator)


def intra_lead(shape: tuple[int, int, int], ratio: float, generator: torch.Generator) -> Tensor:
    """(B, L, N) of bool: every patch is hidden with chance ``ratio``."""
    return _chance(shape, generator) < ratio


def inter_lead(shape: tuple[int, int, int], ratio: float, whole: float, generator: torch.Generator) -> Tensor:
    """(B, L, N) of bool: leads are hidden, each for all of the window with chance ``whole``, else for a stretch of it.

    The number of leads hidden in a window is ``ratio * L`` on average, and at most L - 1. A stretch is 1 to N - 1
    patches, each length equally likely, anywhere. Raises ValueError for one lead: there is none to read it off.
    """
    windows, leads, patches = shape
    if leads < 2:
        raise ValueError(f"{leads} lead: masking between leads is undefined; it takes two or more")
    count = torch.floor(ratio * leads + _chance((windows, 1), generator)).clamp(max=leads - 1)
    # The leads with the lowest of random figures: as many as were drawn, each equally likely.
    rank = _chance((windows, leads), generator).argsort(dim=1).argsort(dim=1)
    hidden = rank < count
    length = torch.floor(1 + (patches - 1) * _chance((windows, leads, 1), generator))
    begin = torch.floor((patches - length + 1) * _chance((windows, leads, 1), generator))
    at = torch.arange(patches)
    stretch = (at >= begin) & (at < begin + length)
    always = _chance((windows, leads, 1), generator) < whole
    return hidden[:, :, None] & (stretch | always)


def masked_loss(reconstruction: Tensor, x: Tensor, mask: Tensor) -> Tensor:
    """Mean squared error over the samples of hidden patches, (B, L, N, patch) against ``mask`` (B, L, N); 0 if none is.

    What was not hidden does not count, whatever it holds: it is there to be seen, not to be learnt by heart.
    """
    hidden = mask.bool()
    # Chosen, not multiplied by zero: a sample that is not a number outside the mask must not reach the sum.
    squares = (reconstruction[hidden] - x[hidden]).square()
    return squares.sum() / max(1, squares.numel())


def _chance(shape: int | tuple[int, ...], generator: torch.Generator) -> Tensor:
    return torch.rand(shape, generator=generator)

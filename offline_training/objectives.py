"""What a network's figure is trained for, by the kind of the target: the loss of one logit a window."""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from models.bundle import Target
from offline_training.api import TrainingError

LEAST_GAP = 0.05
"""Between thresholds at the beginning of training: levels that nobody gave still need their place."""


class Objective(nn.Module):
    """Loss of logits (n,) for a target. What is learned of the target beside the network is a parameter of it.

    - binary: cross-entropy with smoothed labels;
    - ordinal: cumulative link, ``P(above level k) = sigmoid(logit - thresholds[k])``; the thresholds are learned with
      mean 0, since the network has a bias of its own;
    - continuous: squared error of the value, standardised by mean and deviation of the values trained on.
    """

    mean: Tensor
    sd: Tensor

    def __init__(
        self, target: Target, label: NDArray[np.int64], value: NDArray[np.float64], smoothing: float = 0.0
    ) -> None:
        """``label`` (n,) are the classes or levels, ``value`` (n,) the values that will be trained on."""
        super().__init__()
        self.kind, self.name = target.kind, target.name
        self.smoothing = smoothing
        if self.kind == "ordinal":
            share = np.cumsum(np.bincount(label, minlength=len(target.levels)))[:-1] / len(label)
            start = np.log(share.clip(0.01, 0.99) / (1.0 - share.clip(0.01, 0.99)))
            gaps = np.maximum(np.diff(start), LEAST_GAP)
            self.gaps = nn.Parameter(torch.from_numpy(np.log(np.expm1(gaps))).float())
        deviation = float(np.std(value))
        if self.kind == "continuous" and not deviation > 0.0:
            raise TrainingError(f"{target.name}: every window to train on has the value {value[0]:g}.")
        self.register_buffer("mean", torch.tensor(float(np.mean(value))))
        self.register_buffer("sd", torch.tensor(deviation))

    def answers(self, label: NDArray[np.int64], value: NDArray[np.float64]) -> Tensor:
        """What the loss compares logits with, (n,)."""
        if self.kind == "continuous":
            return (torch.from_numpy(value.astype(np.float32)) - self.mean) / self.sd
        if self.kind == "ordinal":
            return torch.from_numpy(label.astype(np.int64))
        return torch.from_numpy(label * (1.0 - self.smoothing) + 0.5 * self.smoothing).float()

    def thresholds(self) -> Tensor:
        """(levels - 1,) rising, with mean 0."""
        rising = torch.cat((self.gaps.new_zeros(1), functional.softplus(self.gaps).cumsum(0)))
        return rising - rising.mean()

    def forward(self, logit: Tensor, answer: Tensor) -> Tensor:
        """The loss of each window, (n,)."""
        if self.kind == "continuous":
            return (logit - answer).square()
        if self.kind == "ordinal":
            return self._cumulative_link(logit, answer)
        return functional.binary_cross_entropy_with_logits(logit, answer, reduction="none")

    def _cumulative_link(self, logit: Tensor, level: Tensor) -> Tensor:
        edge = self.thresholds().new_full((1,), math.inf)
        thresholds = torch.cat((-edge, self.thresholds(), edge))
        # sigmoid(a) - sigmoid(b) is sigmoid(a) sigmoid(-b) (1 - exp(b - a)): each factor has a sound logarithm.
        below, above = thresholds[level], thresholds[level + 1]
        log_p = functional.logsigmoid(above - logit) + functional.logsigmoid(logit - below)
        return -(log_p + torch.log1p(-torch.exp(below - above)))


def balance(label: NDArray[np.int64]) -> NDArray[np.float64]:
    """(n,) weights that sum to 1, every class or level that there is getting the same."""
    count = np.bincount(label)
    return np.asarray(1.0 / np.count_nonzero(count) / count[label], dtype=np.float64)

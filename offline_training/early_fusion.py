"""The other way to put EEG and ECG together, to be compared with: one encoder that sees the ECG as one more channel."""

from __future__ import annotations

import dataclasses

import numpy as np
import torch
from torch import Tensor, nn

from models.encoders import build
from models.fusion import EEG_LIMIT_UV, FusionConfig, FusionModel, scale_ecg, scale_eeg
from offline_training.prepare import KINDS, Prepared

ECG_SHARE = 0.1
"""An R peak is about 10 mean absolute deviations of its lead; so it becomes about as large as 100 uV of EEG."""


class EarlyFusion(FusionModel):
    """One encoder for all channels, ECG last; the descriptors stand beside its embedding as in `FusionModel`.

    Neither kind can be missing: what is not good is fed as zeros (`silenced`).
    """

    def __init__(self, config: FusionConfig) -> None:
        super().__init__(config)
        self.eeg_encoder = build(config.eeg, config.eeg_channels + config.ecg_channels, config.seconds)
        self.ecg_encoder = _Nothing(config.ecg.width)

    def embed(self, eeg: Tensor, ecg: Tensor) -> Tensor:
        """(B, C, T) and (B, L, T) uV to (B, D), that of all channels first."""
        eeg = eeg.clamp(-EEG_LIMIT_UV, EEG_LIMIT_UV)
        rate = self.config.rate
        together = torch.cat((scale_eeg(eeg, rate), ECG_SHARE * scale_ecg(ecg, rate)), dim=1)
        parts = [self.eeg_encoder.pooled(together)]
        if self.band_power is not None:
            parts.append(self.band_power(eeg))
        return torch.cat((*parts, self.embed_ecg(ecg)), dim=-1)


class _Nothing(nn.Module):
    """Stands where the encoder of ECG was."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width

    def pooled(self, x: Tensor) -> Tensor:
        """(B, width) of zeros."""
        return x.new_zeros(len(x), self.width)


def silenced(prepared: Prepared) -> Prepared:
    """The same windows with zeros in place of every kind that is not good enough."""
    if prepared.usable.all():
        return prepared
    signals = {
        kind: np.where(prepared.usable[:, number, None, None], prepared.signals[kind], np.float32(0.0))
        for number, kind in enumerate(KINDS)
    }
    return dataclasses.replace(prepared, signals=signals)

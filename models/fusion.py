"""The network that turns a window of EEG and ECG into target logits: two encoders, pooled, concatenated, a head.

What the head sees is the pooled embedding less the person's resting mean, over the resting standard deviation, one
modality beside the other; a modality that is not used is replaced by a learned vector *after* that normalisation, so
either may be missing. Everything, scaling included, is inside the graph: the runtimes are fed with microvolts.

Optional descriptors stand beside the encoders' embeddings, because classical features carry much of what is known about
rest and load: log band power of every EEG channel, the heart's rhythm, and its variability (`models.descriptors`). They
are part of the graph and see the same resting normalisation.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from models.descriptors import BANDS, MAX_HEART_FIGURES, BandPower, Heart, Variability, heart_grid, patches
from models.encoders import EncoderConfig, build, cbramod

EEG_SCALE_UV = 100.0
EEG_LIMIT_UV = 1000.0
"""Beyond it an EEG sample is an artefact and is clipped; the quality gate is the real defence."""
ECG_LIMIT = 20.0
"""In units of the lead's own mean absolute deviation; an R peak is at about 10."""
ECG_FLOOR_UV = 5.0
"""Added to the lead's scale, so that a flat lead stays flat instead of becoming amplified noise."""
Z_LIMIT = 10.0
"""Normalised embeddings are clipped here: one absurd feature does not decide alone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FusionConfig:
    """All that rebuilds a `FusionModel`; the manifest stores it."""

    eeg_channels: int
    ecg_channels: int = 1
    seconds: int = 10
    """Window length; a whole number of patches."""
    rate: int = 200
    """Hz; one patch is one second."""
    targets: int = 1
    eeg: EncoderConfig = field(default_factory=cbramod.Config)
    """Of any encoder of `models.encoders`."""
    ecg: EncoderConfig = field(default_factory=cbramod.Config)
    """Of any encoder; leads are its channels."""
    band_power: bool = False
    """Append log band power (5 bands a channel) to the EEG embedding."""
    heart: bool = False
    """Append the heart descriptor (log rate, learned view of the rhythm) to the ECG embedding."""
    heart_features: int = 8
    variability: bool = False
    """Append log RMSSD to the ECG embedding."""
    head_hidden: int = 0
    """0: a linear head; else one hidden layer of this width."""
    head_dropout: float = 0.1

    def __post_init__(self) -> None:
        if min(self.eeg_channels, self.ecg_channels, self.targets, self.heart_features) < 1 or self.head_hidden < 0:
            raise ValueError(f"{self}: sizes must be positive")
        if self.seconds < 2:
            raise ValueError(f"a window of {self.seconds} s is too short: at least 2 s")
        if self.eeg.patch != self.rate or self.ecg.patch != self.rate:
            raise ValueError(f"patches must be one second, {self.rate} samples")
        if self.heart and math.prod(heart_grid(self.samples, self.rate)) > MAX_HEART_FIGURES:
            raise ValueError(f"windows of {self.seconds} s at {self.rate} Hz are too long for the heart descriptor")

    @property
    def samples(self) -> int:
        return self.seconds * self.rate

    @property
    def eeg_dim(self) -> int:
        return self.eeg.width + (len(BANDS) * self.eeg_channels if self.band_power else 0)

    @property
    def ecg_dim(self) -> int:
        return self.ecg.width + (1 + self.heart_features if self.heart else 0) + self.variability

    @property
    def embedding_dim(self) -> int:
        """D: the EEG part first."""
        return self.eeg_dim + self.ecg_dim


class FusionModel(nn.Module):
    """Two encoders, pooled, concatenated, and a head. See `forward`.

    Training may call `embed` and `classify` apart: resting statistics need the embeddings first.
    Modality dropout in training is ``use``: draw it at random, never both 0.
    """

    def __init__(self, config: FusionConfig) -> None:
        super().__init__()
        self.config = config
        self.eeg_encoder = build(config.eeg, config.eeg_channels, config.seconds)
        self.ecg_encoder = build(config.ecg, config.ecg_channels, config.seconds)
        self.band_power = BandPower(config.rate) if config.band_power else None
        self.heart = Heart(config.samples, config.rate, config.heart_features) if config.heart else None
        self.variability = Variability(config.samples, config.rate) if config.variability else None
        self.absent_eeg = nn.Parameter(torch.zeros(config.eeg_dim))
        self.absent_ecg = nn.Parameter(torch.zeros(config.ecg_dim))
        layers: list[nn.Module] = [nn.Dropout(config.head_dropout)]
        width = config.embedding_dim
        if config.head_hidden:
            layers += [nn.Linear(width, config.head_hidden), nn.GELU(), nn.Dropout(config.head_dropout)]
            width = config.head_hidden
        self.head = nn.Sequential(*layers, nn.Linear(width, config.targets))

    def forward(
        self, eeg: Tensor, ecg: Tensor, use: Tensor, rest_mean: Tensor, rest_sd: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Logits (B, targets) and embeddings (B, D) of windows ``eeg`` (B, C, T) and ``ecg`` (B, L, T) in uV.

        ``use`` (B, 2) is 1 where EEG, ECG take part and 0 where not. ``rest_mean`` and ``rest_sd`` (B, D) are the
        person's resting baseline of the embedding; the embedding returned is the one before this normalisation.
        """
        embedding = self.embed(eeg, ecg)
        return self.classify(embedding, use, rest_mean, rest_sd), embedding

    def embed(self, eeg: Tensor, ecg: Tensor) -> Tensor:
        """(B, C, T) and (B, L, T) uV to (B, D), EEG part first."""
        return torch.cat((self.embed_eeg(eeg), self.embed_ecg(ecg)), dim=-1)

    def embed_eeg(self, eeg: Tensor) -> Tensor:
        """(B, C, T) uV to (B, D_eeg): the encoder's pooled embedding, then log band power if wanted."""
        eeg = eeg.clamp(-EEG_LIMIT_UV, EEG_LIMIT_UV)
        pooled = self.eeg_encoder.pooled(scale_eeg(eeg, self.config.rate))
        return pooled if self.band_power is None else torch.cat((pooled, self.band_power(eeg)), dim=-1)

    def embed_ecg(self, ecg: Tensor) -> Tensor:
        """(B, L, T) uV to (B, D_ecg): the encoder's pooled embedding, then what is wanted of the heart."""
        scaled = scale_ecg(ecg, self.config.rate)
        parts = [self.ecg_encoder.pooled(scaled)]
        parts += [one(scaled.flatten(2)) for one in (self.heart, self.variability) if one is not None]
        return torch.cat(parts, dim=-1)

    def classify(self, embedding: Tensor, use: Tensor, rest_mean: Tensor, rest_sd: Tensor) -> Tensor:
        """Logits (B, targets) of embeddings (B, D) seen from the resting baseline."""
        z = ((embedding - rest_mean) / rest_sd).clamp(-Z_LIMIT, Z_LIMIT)
        # A choice, not a blend: whatever an unused modality's signal holds, NaN too, cannot reach the head.
        eeg = torch.where(use[:, :1] > 0.5, z[:, : self.config.eeg_dim], self.absent_eeg)
        ecg = torch.where(use[:, 1:] > 0.5, z[:, self.config.eeg_dim :], self.absent_ecg)
        logit: Tensor = self.head(torch.cat((eeg, ecg), dim=-1))
        return logit


def scale_eeg(eeg: Tensor, rate: int) -> Tensor:
    """(B, C, T) uV to patches (B, C, N, rate) of uV / 100, the published scale, clipped at 1 mV."""
    return patches(eeg.clamp(-EEG_LIMIT_UV, EEG_LIMIT_UV) / EEG_SCALE_UV, rate)


def scale_ecg(ecg: Tensor, rate: int) -> Tensor:
    """(B, L, T) uV to patches (B, L, N, rate), each lead in units of its own mean absolute deviation over the window.

    The amplitude of ECG depends on the device and where it sits, so it carries nothing. The sign stays: a lead may be
    inverted, which is for augmentation in training to cover.
    """
    ecg = ecg - ecg.mean(dim=-1, keepdim=True)
    scale = ecg.abs().mean(dim=-1, keepdim=True) + ECG_FLOOR_UV
    return patches((ecg / scale).clamp(-ECG_LIMIT, ECG_LIMIT), rate)

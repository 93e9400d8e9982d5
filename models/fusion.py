"""The network that turns a window of EEG and ECG into target logits: two encoders, pooled, concatenated, a head.

What the head sees is the pooled embedding less the person's resting mean, over the resting standard deviation, one
modality beside the other; a modality that is not used is replaced by a learned vector *after* that normalisation, so
either may be missing. Everything, scaling included, is inside the graph: the runtimes are fed with microvolts.

Two optional descriptors stand beside the encoders' embeddings, because classical features carry much of what is known
about rest and load: log band power of every EEG channel, and the heart's rhythm. They are made of fixed matrices,
export as plain matrix products and see the same resting normalisation.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor, nn

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
BANDS = ((1.0, 4.0), (4.0, 8.0), (8.0, 13.0), (13.0, 30.0), (30.0, 45.0))
"""Hz: delta, theta, alpha, beta, low gamma."""
BAND_FLOOR_UV2 = 0.01
RATES_BPM = (40.0, 180.0)
FLOOR = 1e-6
"""Keeps roots and quotients of a flat ECG finite, in units far below those of any real one."""
SHARPNESS = 80.0
"""Of the softmax over beat intervals; large enough that the highest peak alone decides."""
ENVELOPE_STRIDE = 10
"""Samples of the grid between points of the ECG's envelope."""
MAX_HEART_FIGURES = 20_000_000
"""Of the heart descriptor's largest fixed matrix, which grows with the square of the window: 250 s at 200 Hz."""
RHYTHM_HZ = np.arange(5, 41) / 10.0
"""0.5 to 4 Hz in steps of 0.1 Hz: heart rate and its first harmonics."""


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
        if self.heart and math.prod(_heart_grid(self.samples, self.rate)) > MAX_HEART_FIGURES:
            raise ValueError(f"windows of {self.seconds} s at {self.rate} Hz are too long for the heart descriptor")

    @property
    def samples(self) -> int:
        return self.seconds * self.rate

    @property
    def eeg_dim(self) -> int:
        return self.eeg.width + (len(BANDS) * self.eeg_channels if self.band_power else 0)

    @property
    def ecg_dim(self) -> int:
        return self.ecg.width + (1 + self.heart_features if self.heart else 0)

    @property
    def embedding_dim(self) -> int:
        """D: the EEG part first."""
        return self.eeg_dim + self.ecg_dim


class BandPower(nn.Module):
    """Natural log of Welch band power: (B, C, T) uV to (B, C * bands), ln uV^2, channel by channel.

    Hann windows of 2 s, half overlapping, the mean of each removed.
    """

    cosine: Tensor
    sine: Tensor
    bins_to_bands: Tensor

    def __init__(self, rate: int) -> None:
        super().__init__()
        self.rate = rate
        n = 2 * rate
        frequencies = np.arange(n // 2 + 1) * rate / n
        kept = (frequencies >= BANDS[0][0]) & (frequencies < BANDS[-1][1])
        hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(n) / n)
        angle = 2 * np.pi / n * (np.outer(np.arange(n), np.flatnonzero(kept)) % n)
        # One-sided power spectral density integrated over the bin: 2 |X|^2 / (n * sum(hann^2)), summed in a band.
        scale = hann[:, None] * np.sqrt(2.0 / (n * np.square(hann).sum()))
        member = np.stack([(frequencies[kept] >= low) & (frequencies[kept] < high) for low, high in BANDS], axis=1)
        for name, matrix in (
            ("cosine", np.cos(angle) * scale),
            ("sine", np.sin(angle) * scale),
            ("bins_to_bands", member),
        ):
            self.register_buffer(name, torch.from_numpy(matrix.astype(np.float32)), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        seconds = patches(x, self.rate)
        segments = torch.cat((seconds[:, :, :-1], seconds[:, :, 1:]), dim=-1)  # (B, C, N - 1, 2 * rate)
        segments = segments - segments.mean(dim=-1, keepdim=True)
        power = (segments @ self.cosine).square() + (segments @ self.sine).square()
        bands = power.mean(dim=2) @ self.bins_to_bands
        return torch.log(bands + BAND_FLOOR_UV2).flatten(1)


def _heart_grid(samples: int, rate: int) -> tuple[int, int]:
    """How many points the envelope of an ECG has, and how many frequencies up to 8 Hz its power spectrum."""
    points = (samples - 4) // ENVELOPE_STRIDE - 1
    # Zero-padded to twice the span: a linear, not a circular autocorrelation. Up to 8 Hz, six harmonics of 80 bpm.
    return points, round(8.0 * 2 * points * ENVELOPE_STRIDE / rate)


class Heart(nn.Module):
    """The heart's rhythm from (B, L, T) ECG of any scale and sign: (B, 1 + features).

    First the natural log of the heart rate in Hz: the envelope of the squared slope (QRS complexes as pulses), its
    power spectrum over the window, from that its autocorrelation at the beat intervals of 40 to 180 per minute, and the
    mean over a sharp softmax of it. Then a small learned layer's view of the spectrum between 0.5 and 4 Hz.
    The autocorrelation is not corrected for its shrinking overlap: of a rate and its half the rate wins.
    """

    cosine: Tensor
    sine: Tensor
    lags: Tensor
    log_rates: Tensor
    rhythm_cosine: Tensor
    rhythm_sine: Tensor

    def __init__(self, samples: int, rate: int, features: int) -> None:
        super().__init__()
        points, bins = _heart_grid(samples, rate)
        times = (np.arange(points) * ENVELOPE_STRIDE) / rate
        span = points * ENVELOPE_STRIDE / rate
        frequencies = np.arange(1, bins + 1) / (2 * span)
        log_rates = np.linspace(np.log(RATES_BPM[0] / 60), np.log(RATES_BPM[1] / 60), 128)
        hann = np.hanning(points)[:, None]
        rhythm = 2 * np.pi * np.outer(times, RHYTHM_HZ)
        matrices = {
            "cosine": np.cos(2 * np.pi * np.outer(times, frequencies)),
            "sine": np.sin(2 * np.pi * np.outer(times, frequencies)),
            "lags": np.cos(2 * np.pi * np.outer(frequencies, np.exp(-log_rates))),
            "log_rates": log_rates[:, None],
            "rhythm_cosine": np.cos(rhythm) * hann / hann.sum(),
            "rhythm_sine": np.sin(rhythm) * hann / hann.sum(),
        }
        for name, matrix in matrices.items():
            self.register_buffer(name, torch.from_numpy(matrix.astype(np.float32)), persistent=False)
        self.learned = nn.Sequential(nn.Linear(len(RHYTHM_HZ), 16), nn.GELU(), nn.Linear(16, features))

    def forward(self, ecg: Tensor) -> Tensor:
        slope = ecg[..., 4:] - ecg[..., :-4]
        pulses = nn.functional.avg_pool1d(slope.square(), 2 * ENVELOPE_STRIDE, ENVELOPE_STRIDE).mean(
            dim=1
        )  # (B, points)
        # The ONNX exporter drops constants below about 1e-8 as if they were zero: the floors are above that.
        pulses = torch.sqrt(pulses + FLOOR)
        pulses = (pulses / pulses.mean(dim=-1, keepdim=True)).clamp(max=5.0)
        pulses = pulses - pulses.mean(dim=-1, keepdim=True)
        power = (pulses @ self.cosine).square() + (pulses @ self.sine).square()
        likeness = (power @ self.lags) / (power.sum(dim=-1, keepdim=True) + FLOOR)
        log_rate = torch.softmax(SHARPNESS * likeness, dim=-1) @ self.log_rates
        rhythm = torch.sqrt((pulses @ self.rhythm_cosine).square() + (pulses @ self.rhythm_sine).square() + FLOOR)
        return torch.cat((log_rate, self.learned(rhythm)), dim=-1)


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
        """(B, L, T) uV to (B, D_ecg): the encoder's pooled embedding, then the heart descriptor if wanted."""
        scaled = scale_ecg(ecg, self.config.rate)
        pooled = self.ecg_encoder.pooled(scaled)
        return pooled if self.heart is None else torch.cat((pooled, self.heart(scaled.flatten(2))), dim=-1)

    def classify(self, embedding: Tensor, use: Tensor, rest_mean: Tensor, rest_sd: Tensor) -> Tensor:
        """Logits (B, targets) of embeddings (B, D) seen from the resting baseline."""
        z = ((embedding - rest_mean) / rest_sd).clamp(-Z_LIMIT, Z_LIMIT)
        # A choice, not a blend: whatever an unused modality's signal holds, NaN too, cannot reach the head.
        eeg = torch.where(use[:, :1] > 0.5, z[:, : self.config.eeg_dim], self.absent_eeg)
        ecg = torch.where(use[:, 1:] > 0.5, z[:, self.config.eeg_dim :], self.absent_ecg)
        logit: Tensor = self.head(torch.cat((eeg, ecg), dim=-1))
        return logit


def patches(x: Tensor, rate: int) -> Tensor:
    """(B, C, T) to one-second patches (B, C, N, rate)."""
    return x.reshape(x.shape[0], x.shape[1], -1, rate)


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

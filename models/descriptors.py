"""What is known of rest and load, computed inside the network's graph: band power, the heart's rhythm, its variability.

Of fixed matrices and plain steps that every runtime has; they see the window as the encoders do.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor, nn

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
BEAT_SECONDS = 0.03
"""Half the width of the energy of a QRS complex."""
REFRACTORY_SECONDS = 0.25
BEAT_SHARE = 0.25
"""Of the usual largest slope energy of two seconds: less is no beat."""
INTERVALS_SECONDS = (0.33, 1.7)
"""Of beats: 35 to 180 per minute."""
ECTOPIC_SHARE = 0.2
"""Two intervals that differ by more than this share of either are not both of normal beats (as in `realtime.hrv`)."""
RMSSD_FLOOR = 0.005
"""Seconds, added before the logarithm: below it the sampling of the window decides."""
RMSSD_UNKNOWN = 0.03
"""Seconds, where no two intervals are there to be compared: about what people at rest have."""
NO_BEAT = 1e4
"""Seconds: after everything."""


def patches(x: Tensor, rate: int) -> Tensor:
    """(B, C, T) to one-second patches (B, C, N, rate)."""
    return x.reshape(x.shape[0], x.shape[1], -1, rate)


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


def heart_grid(samples: int, rate: int) -> tuple[int, int]:
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
        points, bins = heart_grid(samples, rate)
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


class Variability(nn.Module):
    """The heart's variability from (B, L, T) ECG of any scale and sign: (B, 1), natural log of RMSSD + 5 ms, in s.

    A beat is where the energy of the slope is largest within a quarter of a second, to either side, and not small; its
    time is the centre of that energy. RMSSD is over pairs of successive normal intervals of this window alone.
    """

    times: Tensor
    inside: Tensor

    def __init__(self, samples: int, rate: int) -> None:
        super().__init__()
        self.rate, self.reach, self.around = rate, round(BEAT_SECONDS * rate), round(REFRACTORY_SECONDS * rate)
        self.most = math.ceil(samples / rate / INTERVALS_SECONDS[0]) + 2
        times = np.arange(samples - 4) / rate
        inside = (np.arange(len(times)) > self.reach) & (np.arange(len(times)) < len(times) - self.reach - 1)
        self.register_buffer("times", torch.from_numpy(times.astype(np.float32)), persistent=False)
        self.register_buffer("inside", torch.from_numpy(inside), persistent=False)

    def forward(self, ecg: Tensor) -> Tensor:
        slope = (ecg[..., 4:] - ecg[..., :-4]).square().mean(dim=1, keepdim=True)  # (B, 1, samples - 4)
        energy = self._around(slope)
        usual = nn.functional.max_pool1d(energy, 2 * self.rate).sort(dim=-1).values
        usual = usual[..., usual.shape[-1] // 2 : usual.shape[-1] // 2 + 1]
        top = nn.functional.max_pool1d(energy, 2 * self.around + 1, 1, self.around)
        beat = (energy >= top) & (energy > BEAT_SHARE * usual + FLOOR) & self.inside
        centre = self._around(slope * self.times) / (energy + FLOOR)
        times = torch.where(beat, centre, NO_BEAT)[:, 0].topk(self.most, dim=-1, largest=False).values
        times = times.sort(dim=-1).values
        interval = times[:, 1:] - times[:, :-1]
        normal = (interval > INTERVALS_SECONDS[0]) & (interval < INTERVALS_SECONDS[1])
        change = interval[:, 1:] - interval[:, :-1]
        least = ECTOPIC_SHARE * torch.minimum(interval[:, 1:], interval[:, :-1])
        counts = (normal[:, 1:] & normal[:, :-1] & (change.abs() < least)).to(change.dtype)
        number = counts.sum(dim=-1, keepdim=True)
        change = change.clamp(-INTERVALS_SECONDS[1], INTERVALS_SECONDS[1])
        mean_square = (counts * change.square()).sum(dim=-1, keepdim=True) / number.clamp(min=1.0)
        known = torch.sqrt(mean_square + FLOOR * FLOOR)
        return torch.log(torch.where(number > 0, known, RMSSD_UNKNOWN) + RMSSD_FLOOR)

    def _around(self, x: Tensor) -> Tensor:
        return nn.functional.avg_pool1d(x, 2 * self.reach + 1, 1, self.reach)

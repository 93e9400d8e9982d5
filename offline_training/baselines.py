"""What a lab would try first: band power and heart rate against each person's own rest, and a logistic regression."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import signal
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

BANDS = ((1.0, 4.0), (4.0, 8.0), (8.0, 13.0), (13.0, 30.0), (30.0, 45.0))
"""Hz: delta, theta, alpha, beta, gamma."""
REFRACTORY = 0.33
"""Seconds between two R peaks at least: 180 beats a minute."""
FLOOR = 0.5
"""Share of the spread over training people below which nobody's own resting spread is believed: few windows of rest
can scatter by chance so little that a division by it would be an explosion."""


def band_powers(eeg: NDArray[np.float32], rate: float) -> NDArray[np.float64]:
    """Natural log of the power (uV^2) in `BANDS`, (windows, channels * bands), of eeg (windows, channels, time).

    Welch, 2 s Hann segments with half overlap.
    """
    segment = round(2.0 * rate)
    frequency, density = signal.welch(eeg, fs=rate, nperseg=segment, noverlap=segment // 2, axis=-1)
    power = [density[..., (frequency >= low) & (frequency < high)].sum(-1) * frequency[1] for low, high in BANDS]
    return np.log(np.stack(power, axis=-1).astype(np.float64) + 1e-6).reshape(len(eeg), -1)


def r_peaks(ecg: NDArray[np.float32], rate: float) -> NDArray[np.float64]:
    """Times of R peaks (seconds from the first sample) in one window ecg (time,).

    Peaks of the squared 8-20 Hz band, smoothed over 0.1 s, each moved to the vertex of a parabola. For a whole
    window at once, not for live use.
    """
    sos = signal.butter(2, (8.0, 20.0), "bandpass", fs=rate, output="sos")
    energy = signal.sosfiltfilt(sos, ecg.astype(np.float64)) ** 2
    width = round(0.1 * rate)
    energy = np.convolve(energy, np.hanning(width + 2)[1:-1], mode="same")
    # The mean of the ten second maxima: one artefact must not raise the threshold above every beat.
    tops = np.median([part.max() for part in np.array_split(energy, max(1, round(len(energy) / rate)))])
    if tops <= 0.0:
        return np.empty(0)
    peaks, _ = signal.find_peaks(energy, height=0.25 * tops, distance=round(REFRACTORY * rate))
    peaks = peaks[(peaks > 0) & (peaks < len(energy) - 1)]
    left, middle, right = energy[peaks - 1], energy[peaks], energy[peaks + 1]
    bend = left - 2.0 * middle + right
    shift = np.where(bend < 0.0, 0.5 * (left - right) / np.where(bend < 0.0, bend, 1.0), 0.0)
    return np.asarray((peaks + shift) / rate, dtype=np.float64)


def heart_features(ecg: NDArray[np.float32], rate: float) -> NDArray[np.float64]:
    """Heart rate (1/min), log RMSSD and log SDNN (ms) of each window, (windows, 3); NaN where beats are not credible.

    ``ecg`` is (windows, time). Intervals more than 30 % off the window's median are not counted.
    """
    features = np.full((len(ecg), 3), np.nan)
    for row, window in enumerate(ecg):
        intervals = np.diff(r_peaks(window, rate))
        if len(intervals) < 4:
            continue
        middle = np.median(intervals)
        good = np.abs(intervals / middle - 1.0) < 0.3
        if good.sum() < max(4, 0.7 * len(intervals)) or not 0.3 < middle < 1.7:
            continue
        steps = np.diff(intervals)[good[1:] & good[:-1]]
        if len(steps) < 2:
            continue
        rmssd, sdnn = np.sqrt(np.mean(steps**2)), np.std(intervals[good], ddof=1)
        features[row] = 60.0 / intervals[good].mean(), np.log(1e3 * rmssd + 1.0), np.log(1e3 * sdnn + 1.0)
    return features


def normalise_by_rest(
    features: NDArray[np.float64], person: NDArray[np.str_], baseline: NDArray[np.bool_], train: NDArray[np.intp]
) -> NDArray[np.float64]:
    """(x - own resting mean) / own resting spread, (windows, features); what is missing becomes 0, "as at rest".

    ``baseline`` (windows,) marks the resting baseline. The floor under the spread is taken from the rows ``train``.
    """
    spreads, centred = np.ones_like(features), np.zeros_like(features)
    counts = np.zeros(features.shape[1])
    total = np.zeros(features.shape[1])
    train_people = set(person[train].tolist())
    for who in sorted(set(person.tolist())):
        rows = person == who
        rest = features[rows & baseline]
        known = (~np.isnan(rest)).sum(0) >= 3
        mean, spread = np.full(rest.shape[1], np.nan), np.full(rest.shape[1], np.nan)
        if known.any():
            mean[known] = np.nanmean(rest[:, known], axis=0)
            spread[known] = np.nanstd(rest[:, known], axis=0)
        centred[rows], spreads[rows] = features[rows] - mean, spread
        if who in train_people:
            total += np.nan_to_num(spread)
            counts += known
    typical = total / np.maximum(counts, 1)
    return np.nan_to_num(centred / np.maximum(spreads, np.maximum(FLOOR * typical, 1e-9)))


def logistic(
    features: NDArray[np.float64], label: NDArray[np.int64], train: NDArray[np.intp], test: NDArray[np.intp]
) -> NDArray[np.float64]:
    """Log odds (test windows,) of a class-balanced logistic regression fitted on the rows ``train``."""
    machine = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, class_weight="balanced", max_iter=2000))
    machine.fit(features[train], label[train])
    return np.asarray(machine.decision_function(features[test]), dtype=np.float64)

"""What a lab would try first: band power and heart rate against each person's own rest, and a logistic regression.

Beside them the Riemannian tangent space of EEG covariances, recentred on each person's own rest (Zanini et al.,
"Transfer learning: a Riemannian geometry framework", IEEE TBME 65(5), 2018), by pyriemann.
"""

from __future__ import annotations

import warnings

import numpy as np
from numpy.typing import NDArray
from scipy import linalg, signal
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from offline_training.objectives import balance
from offline_training.prepare import KINDS, Prepared

BANDS = ((1.0, 4.0), (4.0, 8.0), (8.0, 13.0), (13.0, 30.0), (30.0, 45.0))
"""Hz: delta, theta, alpha, beta, gamma."""
REFRACTORY = 0.33
"""Seconds between two R peaks at least: 180 beats a minute."""
SHRINKAGE = 0.05
"""Of covariances."""
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
    features: NDArray[np.float64],
    session: NDArray[np.int64] | NDArray[np.str_],
    baseline: NDArray[np.bool_],
    train: NDArray[np.intp],
) -> NDArray[np.float64]:
    """(x - own resting mean) / own resting spread, (windows, features); what is missing becomes 0, "as at rest".

    ``session`` (windows,) says whose rest is a window's own, ``baseline`` (windows,) marks the resting baseline. The
    floor under the spread is taken from the rows ``train``.
    """
    spreads, centred = np.ones_like(features), np.zeros_like(features)
    counts = np.zeros(features.shape[1])
    total = np.zeros(features.shape[1])
    trained = set(session[train].tolist())
    for one in sorted(set(session.tolist())):
        rows = session == one
        rest = features[rows & baseline]
        known = (~np.isnan(rest)).sum(0) >= 3
        mean, spread = np.full(rest.shape[1], np.nan), np.full(rest.shape[1], np.nan)
        if known.any():
            mean[known] = np.nanmean(rest[:, known], axis=0)
            spread[known] = np.nanstd(rest[:, known], axis=0)
        centred[rows], spreads[rows] = features[rows] - mean, spread
        if one in trained:
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


def straight(
    features: NDArray[np.float64],
    label: NDArray[np.int64],
    value: NDArray[np.float64],
    train: NDArray[np.intp],
    test: NDArray[np.intp],
) -> NDArray[np.float64]:
    """Values (test windows,) of a ridge regression fitted on the rows ``train``, every class or level counting alike.

    For targets that are no classes; as penalised as `logistic` is.
    """
    machine = make_pipeline(StandardScaler(), Ridge(alpha=len(train) * 0.1))
    weight = balance(label[train]) * len(train)
    machine.fit(features[train], value[train], ridge__sample_weight=weight)
    return np.asarray(machine.predict(features[test]), dtype=np.float64)


def answers(
    prepared: Prepared,
    features: NDArray[np.float64],
    train: NDArray[np.intp],
    test: NDArray[np.intp],
    label: NDArray[np.int64],
    value: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Raw figures (test windows,) of the linear machine for the target's kind, learned from ``label`` or ``value``."""
    if prepared.target.kind == "binary":
        return logistic(features, label, train, test)
    return straight(features, label, value, train, test)


def classical_features(prepared: Prepared) -> dict[str, NDArray[np.float64]]:
    """Features (n, .) of every window, by name of the kind."""
    rate = prepared.spec.rate
    return {
        "eeg": band_powers(prepared.signals["eeg"], rate),
        "ecg": heart_features(prepared.signals["ecg"][:, 0], rate),
    }


def classical(
    prepared: Prepared,
    features: dict[str, NDArray[np.float64]],
    train_rows: NDArray[np.intp],
    test_rows: NDArray[np.intp],
    seed: int,
) -> dict[str, NDArray[np.float64]]:
    """Raw figures of the scored windows among ``test_rows``, by row of the table."""
    fit = train_rows[prepared.trained[train_rows]]
    test = test_rows[prepared.scored[test_rows]]
    found = {}
    for name, kinds in (("both", KINDS), ("EEG", ("eeg",)), ("ECG", ("ecg",))):
        wide = np.concatenate([features[kind] for kind in kinds], axis=1)
        seen = normalise_by_rest(wide, prepared.session, prepared.baseline, train_rows)
        found[f"classical, {name}"] = answers(prepared, seen, fit, test, prepared.label, prepared.value)
        if name == "both":
            label, value = prepared.label.copy(), prepared.value.copy()
            mixed = np.random.default_rng(seed).permutation(len(fit))
            label[fit], value[fit] = label[fit][mixed], value[fit][mixed]
            found["classical, shuffled labels"] = answers(prepared, seen, fit, test, label, value)
    return found


def majority(
    prepared: Prepared, train_rows: NDArray[np.intp], test_rows: NDArray[np.intp]
) -> dict[str, NDArray[np.float64]]:
    """What knows nothing: of classes always the more frequent one, else always the same."""
    fit = train_rows[prepared.trained[train_rows]]
    count = int(prepared.scored[test_rows].sum())
    if prepared.target.kind != "binary":
        return {"majority": np.zeros(count)}
    larger = np.bincount(prepared.label[fit]).argmax()
    return {"majority": np.full(count, 1.0 if larger == 1 else -1.0)}


def covariances(eeg: NDArray[np.float32]) -> NDArray[np.float64]:
    """Covariances (n, C, C) of windows (n, C, time), in uV^2, shrunk towards equal channels by `SHRINKAGE`."""
    from pyriemann.estimation import Covariances

    found = np.asarray(Covariances("scm").transform(eeg.astype(np.float64)))
    size = found.shape[1]
    # An average reference or an interpolated channel makes them singular, and one that is silent a window of zeros.
    level = np.maximum(np.trace(found, axis1=1, axis2=2) / size, 1e-3)[:, None, None]
    return np.asarray((1.0 - SHRINKAGE) * found + SHRINKAGE * level * np.eye(size), np.float64)


def riemannian(
    prepared: Prepared,
    covariance: NDArray[np.float64],
    train_rows: NDArray[np.intp],
    test_rows: NDArray[np.intp],
) -> dict[str, NDArray[np.float64]]:
    """Raw figures of the scored windows among ``test_rows``, from `covariances` (n, C, C) of all windows.

    Each session's are recentred so that the Riemannian mean of its rest is the identity; the tangent space is the one
    there. Sessions with fewer than three good windows of rest, and windows without good EEG, count as at rest.
    """
    usable = prepared.usable[:, KINDS.index("eeg")]
    size = covariance.shape[1]
    seen = np.zeros((len(covariance), size * (size + 1) // 2))
    rows = np.concatenate([train_rows, test_rows])
    for one in np.unique(prepared.session[rows]):
        own = np.flatnonzero((prepared.session == one) & usable)
        rest = own[prepared.baseline[own]]
        if len(rest) >= 3:
            seen[own] = _from_rest(covariance[own], covariance[rest])
    fit = train_rows[prepared.trained[train_rows] & usable[train_rows]]
    test = test_rows[prepared.scored[test_rows]]
    found = answers(prepared, seen, fit, test, prepared.label, prepared.value)
    return {"Riemannian tangent space, EEG": found}


def _from_rest(covariance: NDArray[np.float64], rest: NDArray[np.float64]) -> NDArray[np.float64]:
    """Tangent vectors (n, C (C + 1) / 2) at the Riemannian mean of ``rest``, which becomes the identity."""
    from pyriemann.tangentspace import TangentSpace

    with warnings.catch_warnings():
        # The mean stops after a fixed number of steps, and says so when the last one was not yet tiny.
        warnings.simplefilter("ignore")
        centre = TangentSpace(metric="riemann").fit(rest).reference_
        whiten = linalg.fractional_matrix_power(centre, -0.5).real
        moved = whiten @ covariance @ whiten
        identity = np.eye(len(centre))[None]
        return np.asarray(TangentSpace(metric="riemann").fit(identity).transform(0.5 * (moved + moved.mT)))

"""EEG repaired for the eye: blinks by regression, bad channels by spherical splines. Never recorded.

Both are a `Montage`: a matrix that costs nothing while live, has no delay and gives the same bits however chunks are
cut. Blinks are regressed on the frontal electrodes (Gratton, Coles & Donchin, Electroencephalogr Clin Neurophysiol 55,
1983), with weights taken from the average blink (Croft & Barry, Clin Neurophysiol 111, 2000), where the eye is most of
what is seen. Muscle is not taken out; `realtime.quality` says where it is.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import signal

from models.electrodes import is_electrode, normalised
from models.interpolation import LEAST_GOOD, weights
from realtime.quality import BLINK, FRONTAL
from realtime.rereference import Montage, MontageError

EYES = (0.5, 10.0)
"""Hz, where blinks are looked for and weighed."""
AROUND = 0.25
"""Seconds before and after a blink that count."""
LEAST_BLINKS = 5
"""Without as many there is too little to weigh."""


def interpolated(labels: Sequence[str], bad: Collection[str]) -> Montage:
    """Every channel as it came, but the ``bad`` ones made of the good electrodes by spherical splines."""
    strange = sorted(set(bad) - set(labels))
    if strange:
        raise MontageError(f"interpolation: there is no channel {strange[0][:24]}")
    placeless = [label for label in bad if not is_electrode(label)]
    if placeless:
        raise MontageError(
            f"interpolation: {placeless[0][:24]} names no electrode of the 10-10 system, so nobody knows where it lies"
        )
    broken = tuple(row for row, label in enumerate(labels) if label in bad)
    rows, good, factors = weights(tuple(labels), broken)
    if broken and not rows:
        left = sum(is_electrode(label) for label in labels) - len(broken)
        raise MontageError(
            f"interpolation: {left} good electrodes are left, at least {LEAST_GOOD} are needed; see to the others"
        )
    matrix = np.eye(len(labels))
    if rows:
        matrix[list(rows)] = 0.0
        matrix[np.ix_(rows, good)] = factors
    said = f"interpolated: {', '.join(labels[row] for row in broken)}" if broken else "nothing interpolated"
    return Montage(tuple(labels), matrix, said)


def without_blinks(
    labels: Sequence[str], samples: NDArray[np.float32], rate: float, left_out: Collection[str] = ()
) -> Montage:
    """Every electrode less its share of the blinks that the frontal ones show, learnt from ``samples`` (n, channels).

    The samples are raw EEG in uV with blinks in it: ask for a dozen. The frontal electrodes themselves lose what they
    have in common, brain included. Channels that are ``left_out`` stay as they came and are not regressed on, whatever
    stands for them in ``samples``. MontageError in words when nothing can be learnt. Not for the analysis thread:
    takes tenths of a second for a minute of EEG.
    """
    if samples.ndim != 2 or samples.shape[1] != len(labels):
        raise MontageError(f"blinks: samples {samples.shape} do not fit {len(labels)} channels")
    front = np.array([normalised(label) in FRONTAL and label not in left_out for label in labels])
    head = np.array([is_electrode(label) and label not in left_out for label in labels])
    if not front.any():
        raise MontageError("blinks: no electrode at the eyes (Fp1, Fp2, AF7, AF8, ...) to regress on")
    if not head[~front].any():
        raise MontageError("blinks: there is no electrode but those at the eyes")
    values = np.asarray(samples, np.float64)
    there: NDArray[np.bool_] = np.asarray(np.isfinite(values).all(axis=1))
    if there.sum() < 10 * rate:
        raise MontageError(f"blinks: {there.sum() / rate:.0f} s of EEG to learn from, at least 10 are needed")
    # Holes are bridged for the filter's sake and do not count.
    at = np.arange(len(values))
    values = np.stack([np.interp(at, at[there], column[there]) for column in values.T], axis=1)
    sos = signal.butter(2, EYES, "bandpass", fs=rate, output="sos")
    slow = signal.sosfiltfilt(sos, values - values[there].mean(axis=0), axis=0)
    eyes = slow[:, front].mean(axis=1)
    spread = 1.4826 * float(np.median(np.abs(eyes - np.median(eyes))))
    height, apart = max(BLINK, 4 * spread), max(1, round(2 * AROUND * rate))
    # An amplifier may count upside down: the polarity with more blinks is right.
    blinks = max((signal.find_peaks(sign * eyes, height=height, distance=apart)[0] for sign in (1, -1)), key=len)
    if len(blinks) < LEAST_BLINKS:
        raise MontageError(
            f"blinks: {len(blinks)} in {len(values) / rate:.0f} s, at least {LEAST_BLINKS} are needed; let the person "
            "blink a dozen times"
        )
    # The median blink: what else goes on while the eyes close is not the same every time.
    reach = round(AROUND * rate)
    whole = [slow[p - reach : p + reach + 1] for p in blinks if p >= reach and there[p - reach : p + reach + 1].all()]
    whole = [piece - piece.mean(axis=0) for piece in whole if len(piece) == 2 * reach + 1]
    if len(whole) < LEAST_BLINKS:
        raise MontageError(f"blinks: {len(whole)} without gaps, at least {LEAST_BLINKS} are needed")
    blink = np.median(whole, axis=0)
    x = blink[:, front].mean(axis=1)
    weights = np.where(head, (x @ blink) / (x @ x), 0.0)
    matrix = np.eye(len(labels)) - np.outer(weights, front / front.sum())
    names = ", ".join(label for label, used in zip(labels, front, strict=True) if used)
    return Montage(tuple(labels), matrix, f"{len(blinks)} blinks regressed on {names}")


def after(first: Montage, second: Montage) -> Montage:
    """``first``, and ``second`` of what it made: without blinks, then an average reference."""
    if second.matrix.shape[1] != len(first.labels):
        raise MontageError(
            f"{second.said} is for {second.matrix.shape[1]} channels, {first.said} has {len(first.labels)}"
        )
    return Montage(second.labels, second.matrix @ first.matrix, f"{first.said}; {second.said}")

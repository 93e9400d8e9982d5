"""Electrodes and leads: by what name, and where they lie on a sphere and flat on a topographic map.

The table holds directions from the centre of the sphere fitted to the scalp positions that MNE-Python (BSD-3) carries
as "standard_1020", computed by R. Oostenveld for the Colin27 head (Oostenveld & Praamstra, Clin Neurophysiol 112,
2001).
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

RENAMED = {"T7": "T3", "T8": "T4", "P7": "T5", "P8": "T6"}
"""The 10-10 names of 10-20 positions, as the older names."""
_PREFIX = re.compile(r"^EEG[ _:.-]+(?=.)")
_SUFFIX = re.compile(r"[ _-]*-(REF|LE|RE|AR|AVG|A1A2|A1|A2|M1M2|M1|M2)$")
_HEART = re.compile(r"^(?:ECG|EKG)\d*(?:[ _:.-]+(?:LEAD[ _:.-]*)?(\w+))?$")
_LEADS = frozenset(("I", "II", "III", "AVR", "AVL", "AVF", "V1", "V2", "V3", "V4", "V5", "V6"))
# x to the right ear, y to the nose, z to the vertex.
DIRECTIONS = {
    "FP1": (-0.28733, 0.95728, -0.03263),
    "FPZ": (-0.00574, 0.99983, 0.01768),
    "FP2": (0.27613, 0.96054, -0.03328),
    "AF9": (-0.47557, 0.77169, -0.42228),
    "AF7": (-0.54531, 0.83540, -0.06895),
    "AF5": (-0.45663, 0.88463, 0.09444),
    "AF3": (-0.33558, 0.91046, 0.24176),
    "AF1": (-0.18303, 0.92003, 0.34648),
    "AFZ": (-0.00460, 0.92827, 0.37189),
    "AF2": (0.18166, 0.92070, 0.34542),
    "AF4": (0.33738, 0.90865, 0.24603),
    "AF6": (0.45071, 0.88767, 0.09433),
    "AF8": (0.53681, 0.84079, -0.07013),
    "AF10": (0.47599, 0.76971, -0.42542),
    "F9": (-0.68938, 0.56644, -0.45156),
    "F7": (-0.76619, 0.63700, -0.08478),
    "F5": (-0.69335, 0.68686, 0.21793),
    "F3": (-0.52169, 0.71301, 0.46846),
    "F1": (-0.27827, 0.72468, 0.63040),
    "FZ": (-0.00391, 0.73112, 0.68223),
    "F2": (0.28367, 0.73020, 0.62156),
    "F4": (0.52173, 0.72295, 0.45292),
    "F6": (0.69618, 0.68752, 0.20650),
    "F8": (0.76164, 0.64188, -0.08881),
    "F10": (0.68927, 0.56571, -0.45262),
    "FT9": (-0.83333, 0.30567, -0.46058),
    "FT7": (-0.93245, 0.35077, -0.08661),
    "FC5": (-0.86610, 0.39096, 0.31148),
    "FC3": (-0.65127, 0.41978, 0.63217),
    "FC1": (-0.34775, 0.42544, 0.83551),
    "FCZ": (-0.00331, 0.42996, 0.90284),
    "FC2": (0.34429, 0.43424, 0.83241),
    "FC4": (0.65212, 0.42632, 0.62689),
    "FC6": (0.86377, 0.39966, 0.30689),
    "FT8": (0.92673, 0.36510, -0.08872),
    "FT10": (0.82917, 0.30720, -0.46701),
    "T9": (-0.88853, 0.00724, -0.45876),
    "T3": (-0.99767, 0.00606, -0.06794),
    "C5": (-0.92671, 0.03175, 0.37444),
    "C3": (-0.69634, 0.05167, 0.71585),
    "C1": (-0.36669, 0.06514, 0.92806),
    "CZ": (-0.00301, 0.07079, 0.99749),
    "C2": (0.37194, 0.06954, 0.92565),
    "C4": (0.70192, 0.05955, 0.70976),
    "C6": (0.92889, 0.04219, 0.36793),
    "T4": (0.99738, 0.01790, -0.07003),
    "T10": (0.88471, 0.00180, -0.46615),
    "TP9": (-0.85785, -0.29790, -0.41874),
    "TP7": (-0.94471, -0.32564, -0.03854),
    "CP5": (-0.86893, -0.32478, 0.37346),
    "CP3": (-0.64769, -0.30711, 0.69727),
    "CP1": (-0.34139, -0.28985, 0.89412),
    "CPZ": (-0.00305, -0.28636, 0.95812),
    "CP2": (0.35536, -0.28809, 0.88922),
    "CP4": (0.65800, -0.30058, 0.69043),
    "CP6": (0.87528, -0.31328, 0.36843),
    "TP8": (0.94546, -0.32332, -0.03972),
    "TP10": (0.85357, -0.30469, -0.42258),
    "P9": (-0.73315, -0.56914, -0.37225),
    "T5": (-0.78917, -0.61407, 0.01164),
    "P5": (-0.70828, -0.62254, 0.33283),
    "P3": (-0.52927, -0.61333, 0.58626),
    "P1": (-0.27722, -0.60475, 0.74661),
    "PZ": (-0.00361, -0.59967, 0.80024),
    "P2": (0.29088, -0.59613, 0.74834),
    "P4": (0.53674, -0.60582, 0.58728),
    "P6": (0.70653, -0.62445, 0.33297),
    "T6": (0.78789, -0.61572, 0.01117),
    "P10": (0.72744, -0.57510, -0.37429),
    "PO9": (-0.53635, -0.78595, -0.30758),
    "PO7": (-0.56446, -0.82293, 0.06460),
    "PO5": (-0.49374, -0.83204, 0.25286),
    "PO3": (-0.36941, -0.83675, 0.40422),
    "PO1": (-0.19528, -0.84549, 0.49700),
    "POZ": (-0.00492, -0.84511, 0.53457),
    "PO2": (0.19038, -0.84701, 0.49632),
    "PO4": (0.36055, -0.84286, 0.39949),
    "PO6": (0.49290, -0.83222, 0.25388),
    "PO8": (0.55983, -0.82612, 0.06414),
    "PO10": (0.52667, -0.79142, -0.31028),
    "O1": (-0.29741, -0.94686, 0.12246),
    "OZ": (-0.00606, -0.98325, 0.18217),
    "O2": (0.28920, -0.94936, 0.12277),
    "O9": (-0.28849, -0.92630, -0.24236),
    "IZ": (-0.00683, -0.98218, -0.18783),
    "O10": (0.27611, -0.92955, -0.24436),
    "M1": (-0.77652, -0.25459, -0.57637),
    "M2": (0.77012, -0.25775, -0.58351),
    "A1": (-0.80053, -0.07799, -0.59420),
    "A2": (0.79454, -0.07915, -0.60203),
}
MASTOIDS = (("A1", "A2"), ("M1", "M2"), ("TP9", "TP10"))
"""Left and right, at the ear lobe, at the mastoid, and where many caps and bands have them."""


def normalised(label: str) -> str:
    """The electrode or lead that a channel label names, whatever the spelling.

    >>> [normalised(label) for label in ("EEG Fp1-REF", "T7", "cz.", "EKG", "ECG ECG", "ECG lead II")]
    ['FP1', 'T3', 'CZ', 'ECG', 'ECG', 'II']
    """
    name = _bare(label)
    if heart := _HEART.match(name):
        return str(heart[1]) if heart[1] in _LEADS else "ECG"
    return RENAMED.get(name, name)


def says_ecg(label: str) -> bool:
    """Whether a label says itself that it is ECG, as "EKG" and "ECG lead II" do and "II" does not."""
    return _HEART.match(_bare(label)) is not None


def _bare(label: str) -> str:
    return _SUFFIX.sub("", _PREFIX.sub("", label.strip().upper())).strip(" .")


def is_electrode(label: str) -> bool:
    """Whether a label names a place on the head.

    >>> [is_electrode(label) for label in ("EEG Fp1-REF", "T7", "AUX1", "EXG Channel 0")]
    [True, True, False, False]
    """
    return normalised(label) in DIRECTIONS


def on_sphere(labels: Sequence[str]) -> NDArray[np.float64]:
    """Unit vectors (channels, 3): x to the right, y to the nose, z up; NaN for labels that name no place."""
    return np.array([DIRECTIONS.get(normalised(label), (math.nan,) * 3) for label in labels]).reshape(-1, 3)


def on_map(labels: Sequence[str]) -> NDArray[np.float64]:
    """Places (channels, 2) on a map seen from above, nose up; NaN for labels that name no place.

    Azimuthal equidistant: the vertex is at (0, 0) and what lies 90 degrees from it on the circle of radius 1, about
    through Fpz, T7, Oz and T8; electrodes further down lie outside of it.
    """
    x, y, z = on_sphere(labels).T
    length = np.hypot(x, y)
    with np.errstate(invalid="ignore", divide="ignore"):
        scale = np.where(length > 0, np.arccos(np.clip(z, -1, 1)) / (math.pi / 2) / length, 0.0)
    return np.stack([x * scale, y * scale], axis=1)

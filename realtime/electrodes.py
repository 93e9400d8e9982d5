"""Where electrodes lie: the 10-10 positions on a sphere, and flat for a topographic map.

The table holds directions from the centre of the sphere fitted to the scalp positions that MNE-Python (BSD-3) carries
as "standard_1020", computed by R. Oostenveld for the Colin27 head (Oostenveld & Praamstra, Clin Neurophysiol 112,
2001).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from realtime.sources import normalised

# x to the right ear, y to the nose, z to the vertex.
DIRECTIONS = {
    "FP1": (-0.287, 0.957, -0.033),
    "FPZ": (-0.006, 1, 0.018),
    "FP2": (0.276, 0.961, -0.033),
    "AF9": (-0.476, 0.772, -0.422),
    "AF7": (-0.545, 0.835, -0.069),
    "AF5": (-0.457, 0.885, 0.094),
    "AF3": (-0.336, 0.91, 0.242),
    "AF1": (-0.183, 0.92, 0.346),
    "AFZ": (-0.005, 0.928, 0.372),
    "AF2": (0.182, 0.921, 0.345),
    "AF4": (0.337, 0.909, 0.246),
    "AF6": (0.451, 0.888, 0.094),
    "AF8": (0.537, 0.841, -0.07),
    "AF10": (0.476, 0.77, -0.425),
    "F9": (-0.689, 0.566, -0.452),
    "F7": (-0.766, 0.637, -0.085),
    "F5": (-0.693, 0.687, 0.218),
    "F3": (-0.522, 0.713, 0.468),
    "F1": (-0.278, 0.725, 0.63),
    "FZ": (-0.004, 0.731, 0.682),
    "F2": (0.284, 0.73, 0.622),
    "F4": (0.522, 0.723, 0.453),
    "F6": (0.696, 0.688, 0.207),
    "F8": (0.762, 0.642, -0.089),
    "F10": (0.689, 0.566, -0.453),
    "FT9": (-0.833, 0.306, -0.461),
    "FT7": (-0.932, 0.351, -0.087),
    "FC5": (-0.866, 0.391, 0.311),
    "FC3": (-0.651, 0.42, 0.632),
    "FC1": (-0.348, 0.425, 0.836),
    "FCZ": (-0.003, 0.43, 0.903),
    "FC2": (0.344, 0.434, 0.832),
    "FC4": (0.652, 0.426, 0.627),
    "FC6": (0.864, 0.4, 0.307),
    "FT8": (0.927, 0.365, -0.089),
    "FT10": (0.829, 0.307, -0.467),
    "T9": (-0.889, 0.007, -0.459),
    "T3": (-0.998, 0.006, -0.068),
    "C5": (-0.927, 0.032, 0.374),
    "C3": (-0.696, 0.052, 0.716),
    "C1": (-0.367, 0.065, 0.928),
    "CZ": (-0.003, 0.071, 0.997),
    "C2": (0.372, 0.07, 0.926),
    "C4": (0.702, 0.06, 0.71),
    "C6": (0.929, 0.042, 0.368),
    "T4": (0.997, 0.018, -0.07),
    "T10": (0.885, 0.002, -0.466),
    "TP9": (-0.858, -0.298, -0.419),
    "TP7": (-0.945, -0.326, -0.039),
    "CP5": (-0.869, -0.325, 0.373),
    "CP3": (-0.648, -0.307, 0.697),
    "CP1": (-0.341, -0.29, 0.894),
    "CPZ": (-0.003, -0.286, 0.958),
    "CP2": (0.355, -0.288, 0.889),
    "CP4": (0.658, -0.301, 0.69),
    "CP6": (0.875, -0.313, 0.368),
    "TP8": (0.945, -0.323, -0.04),
    "TP10": (0.854, -0.305, -0.423),
    "P9": (-0.733, -0.569, -0.372),
    "T5": (-0.789, -0.614, 0.012),
    "P5": (-0.708, -0.623, 0.333),
    "P3": (-0.529, -0.613, 0.586),
    "P1": (-0.277, -0.605, 0.747),
    "PZ": (-0.004, -0.6, 0.8),
    "P2": (0.291, -0.596, 0.748),
    "P4": (0.537, -0.606, 0.587),
    "P6": (0.707, -0.624, 0.333),
    "T6": (0.788, -0.616, 0.011),
    "P10": (0.727, -0.575, -0.374),
    "PO9": (-0.536, -0.786, -0.308),
    "PO7": (-0.564, -0.823, 0.065),
    "PO5": (-0.494, -0.832, 0.253),
    "PO3": (-0.369, -0.837, 0.404),
    "PO1": (-0.195, -0.845, 0.497),
    "POZ": (-0.005, -0.845, 0.535),
    "PO2": (0.19, -0.847, 0.496),
    "PO4": (0.361, -0.843, 0.399),
    "PO6": (0.493, -0.832, 0.254),
    "PO8": (0.56, -0.826, 0.064),
    "PO10": (0.527, -0.791, -0.31),
    "O1": (-0.297, -0.947, 0.122),
    "OZ": (-0.006, -0.983, 0.182),
    "O2": (0.289, -0.949, 0.123),
    "O9": (-0.288, -0.926, -0.242),
    "IZ": (-0.007, -0.982, -0.188),
    "O10": (0.276, -0.93, -0.244),
    "M1": (-0.777, -0.255, -0.576),
    "M2": (0.77, -0.258, -0.584),
    "A1": (-0.801, -0.078, -0.594),
    "A2": (0.795, -0.079, -0.602),
}
MASTOIDS = (("A1", "A2"), ("M1", "M2"), ("TP9", "TP10"))
"""Left and right, at the ear lobe, at the mastoid, and where many caps and bands have them."""


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

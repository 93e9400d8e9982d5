"""In which order a network sees the channels of a headset.

A network knows electrodes by their place in its input only, so a bundle names its channels in order, and each is fed
from the channel of that name, or from none: a channel that the headset lacks counts as not measured and is never stood
in for by a neighbour (`columns`); what the network sees there is interpolated for that very place. A network made *for*
a headset takes the headset's own channels, in the order that CBraMod's published pre-processing gives to the places
they are at (`channel_order`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from models.api import ModelError
from models.electrodes import DIRECTIONS, normalised

PUBLISHED = (
    *("FP1", "FP2", "F3", "F4", "C3", "C4", "P3", "P4", "O1", "O2"),
    *("F7", "F8", "T3", "T4", "T5", "T6", "FZ", "CZ", "PZ"),
)
"""The channels of CBraMod's published pre-processing, in its order; its positional convolution depends on it."""


def columns(labels: Sequence[str], channels: Sequence[str]) -> tuple[int, ...]:
    """For each of a model's ``channels`` the first of ``labels`` that names the same place, -1 where none does.

    >>> columns(["Cz", "EEG T7-REF", "AF3"], ["T3", "CZ", "FP1"])
    (1, 0, -1)
    """
    names = [normalised(label) for label in labels]
    return tuple(names.index(name) if (name := normalised(channel)) in names else -1 for channel in channels)


def channel_order(labels: Sequence[str]) -> tuple[str, ...]:
    """The channels that a network made for this headset takes, normalised, in its order.

    Each electrode goes to the nearest of the `PUBLISHED` sites and the sites stand in the published order. Of several
    at one site the nearest comes first; equally near ones come by name. One equally near to several sites, as midline
    electrodes are, goes to the first of them. Labels that name no place (accelerometers, "AUX1") are left out; names
    for one place count once. Raises ModelError when none is left.

    >>> channel_order(["TP9", "AF7", "AF8", "TP10", "Right AUX"])
    ('AF7', 'AF8', 'TP9', 'TP10')
    """
    names = sorted({name for label in labels if (name := normalised(label)) in DIRECTIONS})
    if not names:
        said = ", ".join(labels) or "none"
        raise ModelError(f"no channel of a 10-20 or 10-10 name among {said:.200}; name the channels by their place")
    return tuple(sorted(names, key=lambda name: _place(name)))


def nearest_site(label: str) -> tuple[str, float]:
    """The `PUBLISHED` site nearest to an electrode, and how far apart they are in degrees on the sphere.

    >>> [nearest_site(label)[0] for label in ("AF7", "TP9", "Oz", "P7")]
    ['FP1', 'T3', 'O1', 'T5']
    """
    number, angle = _place(normalised(label))
    return PUBLISHED[number], angle


def _place(name: str) -> tuple[int, float]:
    """Number of the nearest site, and degrees from it."""
    here = _symmetric(name)
    chords = [float(np.linalg.norm(here - _symmetric(site))) for site in PUBLISHED]
    # Rounded: what is equally near must not be decided by the last bit.
    angles = [round(math.degrees(2 * math.asin(min(1.0, chord / 2))), 6) for chord in chords]
    number = angles.index(min(angles))
    return number, angles[number]


def _symmetric(name: str) -> NDArray[np.float64]:
    """Where an electrode lies on a head whose halves are alike: the head of the table is a real one, and is not."""
    x, y, z = (np.array(DIRECTIONS[name]) + np.array(DIRECTIONS[_mirrored(name)]) * (-1.0, 1.0, 1.0)).tolist()
    length = math.sqrt(x * x + y * y + z * z)
    return np.array([x, y, z]) / length


def _mirrored(name: str) -> str:
    """The electrode at the same place of the other half of the head: odd numbers are left, even ones right."""
    letters = name.rstrip("0123456789")
    if letters == name:
        return name
    number = int(name[len(letters) :])
    return f"{letters}{number + 1 if number % 2 else number - 1}"

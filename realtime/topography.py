"""A topographic map: what the electrodes show, interpolated over the head as it is seen from above."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import RBFInterpolator

from models.electrodes import on_map

LEAST_PLACED = 6
"""Electrodes at different places; a map of fewer is mostly made up."""
SIZE = 61
"""Points of the map each way."""
APART = 1e-3
"""Of the radius of the head: electrodes closer together are one place, such as T3 and T7."""


class TopographyError(ValueError):
    """These channels make no map: says why in words. One line."""


@dataclass(frozen=True, slots=True, eq=False)
class Topography:
    """Where the electrodes of a map lie, and what makes the map of their values."""

    columns: tuple[int, ...]
    """Of the channels: those that have a place."""
    places: NDArray[np.float64]
    """(electrodes, 2), x to the right ear and y to the nose; the vertex is 0, 0, the head a circle of radius 1."""
    radius: float
    """Of the map: the head, and more when electrodes lie below its equator."""
    weights: NDArray[np.float64]
    """(SIZE, SIZE, electrodes) from left to right and from the nape to the nose; NaN outside of the radius."""

    def field(self, values: NDArray[np.float64] | NDArray[np.float32]) -> NDArray[np.float64]:
        """The map (SIZE, SIZE) of ``values`` (channels,); NaN outside of the radius."""
        return np.asarray(self.weights @ np.asarray(values, np.float64)[list(self.columns)])


@lru_cache(maxsize=16)
def topography(labels: tuple[str, ...], usable: tuple[bool, ...]) -> Topography:
    """The map of the ``usable`` channels by thin plate splines. TopographyError when they are too few.

    The splines are those of Duchon (1977) as SciPy has them; they go through every value.
    """
    columns: list[int] = []
    places = on_map(labels)
    for column in np.flatnonzero(np.isfinite(places).all(axis=1) & np.array(usable, np.bool_)).tolist():
        if all(np.hypot(*(places[column] - places[other])) > APART for other in columns):
            columns.append(column)
    if len(columns) < LEAST_PLACED:
        found = ", ".join(labels[column][:12] for column in columns) or "none"
        raise TopographyError(
            f"no map: {len(columns)} usable electrodes with a place on the head ({found}), at least {LEAST_PLACED} are "
            "needed"
        )
    places = places[columns]
    radius = max(1.0, float(np.hypot(*places.T).max()) + 0.05)
    axis = np.linspace(-radius, radius, SIZE)
    grid = np.stack(np.meshgrid(axis, axis, indexing="ij"), axis=-1).reshape(-1, 2)
    try:
        weights = RBFInterpolator(places, np.eye(len(columns)), kernel="thin_plate_spline")(grid)
    except np.linalg.LinAlgError:
        raise TopographyError("no map: the usable electrodes lie on one line") from None
    weights[np.hypot(*grid.T) > radius] = np.nan
    weights = weights.reshape(SIZE, SIZE, -1)
    weights.setflags(write=False)
    return Topography(tuple(columns), places, radius, weights)

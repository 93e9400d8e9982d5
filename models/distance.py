"""How unlike the training data a signal is, as the network's own embedding sees it.

Two distances of each kind, both Mahalanobis over the root of the dimension, so that 1 is the size of an ordinary window
of the people trained on. The plain one takes the embedding as the network gives it: it finds what was wrong from the
beginning, another headset or another scale, which a resting baseline would take for the person. The other takes it as
seen from the person's rest: it finds what goes wrong later. A signal is as far as the farther of the two, each over its
limit in the manifest.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from models.bundle import DISTANCE, Bundle, DistanceLimit, Manifest, pack_arrays, read_arrays

SHRINKAGE = 0.3
"""Of the correlations towards none. Ledoit and Wolf's rule takes windows for independent (0.002 to 0.01 on eegmat);
these are of few people and alike, so it believes in directions in which nobody happened to vary, and people it has not
seen were as far as white noise. Of 0.01, 0.1, 0.3, 0.6 and 0.9 this told eight people apart from their signals spoilt
in nine ways best; it was not tuned further."""
Z_LIMIT = 10.0
"""What is seen from rest is clipped here, as before the network's head."""


@dataclass(frozen=True, slots=True, eq=False)
class Reference:
    """Where and how widely embeddings of training windows lie."""

    mean: NDArray[np.float64]
    """(d,)"""
    whiten: NDArray[np.float64]
    """(d, d), lower triangular: takes the shrunk covariance to the identity."""

    def __call__(self, values: ArrayLike) -> NDArray[np.float64]:
        """Distances (n,) of embeddings (n, d)."""
        seen = (np.asarray(values, dtype=np.float64) - self.mean) @ self.whiten.T
        return np.asarray(np.sqrt(np.mean(np.square(seen), axis=1)))


def fit_reference(values: ArrayLike, shrinkage: float = SHRINKAGE) -> Reference:
    """The mean and the shrunk covariance of embeddings (n, d), n >= 2."""
    x = np.asarray(values, dtype=np.float64)
    mean = x.mean(axis=0)
    # A feature that never moved is compared in its own size, or in that of one: never divided by zero.
    spread = np.maximum(x.std(axis=0), 1e-6 * np.maximum(np.abs(mean), 1.0))
    u = (x - mean) / spread
    shrunk = (1.0 - shrinkage) * (u.T @ u) / len(u) + shrinkage * np.eye(x.shape[1])
    return Reference(mean, np.linalg.inv(np.linalg.cholesky(shrunk)) / spread)


def limits_of(plain: NDArray[np.float64], rested: NDArray[np.float64], share: float = 0.99) -> DistanceLimit:
    """The limits within which ``share`` of windows lie with both their distances, (n,) each.

    Both distances get the same multiple of their own quantile.
    """
    one, other = float(np.quantile(plain, share)), float(np.quantile(rested, share))
    factor = float(np.quantile(np.maximum(plain / one, rested / other), share))
    return DistanceLimit(plain=one * factor, rested=other * factor)


def seen_from_rest(values: ArrayLike, mean: ArrayLike, sd: ArrayLike) -> NDArray[np.float64]:
    """Embeddings (n, d) less the person's resting mean, over the resting spread, clipped."""
    z = (np.asarray(values, dtype=np.float64) - np.asarray(mean)) / np.asarray(sd)
    return np.asarray(np.clip(z, -Z_LIMIT, Z_LIMIT))


def pack_references(references: Mapping[str, tuple[Reference, Reference]]) -> bytes:
    """The bytes of ``distance.npz``: by kind the plain reference and the one seen from rest."""
    arrays: dict[str, NDArray[np.float32]] = {}
    for kind, pair in references.items():
        for name, reference in zip(("plain", "rested"), pair, strict=True):
            arrays[f"{kind}_{name}_mean"] = reference.mean.astype(np.float32)
            arrays[f"{kind}_{name}_whiten"] = reference.whiten.astype(np.float32)
    return pack_arrays(arrays)


class Distance:
    """The distances of a bundle. Nothing is kept between calls."""

    def __init__(self, bundle: Bundle) -> None:
        manifest = bundle.manifest
        shapes = array_shapes(manifest)
        arrays = read_arrays(bundle, DISTANCE, shapes)
        self._limits = manifest.distance
        self._references = {
            kind: tuple(
                Reference(
                    arrays[f"{kind}_{name}_mean"].astype(np.float64), arrays[f"{kind}_{name}_whiten"].astype(np.float64)
                )
                for name in ("plain", "rested")
            )
            for kind in manifest.kinds
        }

    def of(
        self, kind: str, embedding: ArrayLike, rest: tuple[NDArray[np.float64], NDArray[np.float64]] | None
    ) -> float:
        """How far an embedding's part (d,) of one kind is, 1 at the limit.

        ``rest`` is its resting mean and spread, (d,) each; None while there is none, when the plain distance decides.
        """
        plain, rested = self._references[kind]
        limit = self._limits[kind]
        values = np.asarray(embedding, dtype=np.float64)[None]
        far = float(plain(values)[0]) / limit.plain
        if rest is not None:
            far = max(far, float(rested(seen_from_rest(values, *rest))[0]) / limit.rested)
        return far if math.isfinite(far) else math.inf


def array_shapes(manifest: Manifest) -> dict[str, tuple[int, ...]]:
    """What ``distance.npz`` holds, by name."""
    shapes: dict[str, tuple[int, ...]] = {}
    for kind, width in manifest.embedding.items():
        for name in ("plain", "rested"):
            shapes[f"{kind}_{name}_mean"] = (width,)
            shapes[f"{kind}_{name}_whiten"] = (width, width)
    return shapes

"""EEG against another reference, for the eye and for rhythms: a matrix and the labels of its rows.

The record and the model are never re-referenced.
"""

from __future__ import annotations

import itertools
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from models.electrodes import MASTOIDS, is_electrode, normalised

CHAINS = (
    ("FP1", "F7", "T3", "T5", "O1"),
    ("FP1", "F3", "C3", "P3", "O1"),
    ("FZ", "CZ", "PZ"),
    ("FP2", "F4", "C4", "P4", "O2"),
    ("FP2", "F8", "T4", "T6", "O2"),
)
"""The longitudinal bipolar montage ("double banana"; ACNS guideline 3, Acharya et al., JCN 33, 2016)."""
LEAST_AVERAGED = 4
"""Electrodes. An average over fewer is mostly the electrode itself."""


class MontageError(ValueError):
    """A reference that these channels do not allow: says what was found and what to do. One line."""


@dataclass(frozen=True, slots=True, eq=False)
class Montage:
    """``matrix`` (rows, channels) makes ``labels`` (rows,) of what a stream has."""

    labels: tuple[str, ...]
    matrix: NDArray[np.float64]
    said: str
    """One line for the user: what it is, and what was left as it came or left out."""

    @property
    def unchanged(self) -> bool:
        """Whether the rows are the channels: nothing is multiplied then, which would wake the threads of BLAS."""
        return self.matrix.shape[0] == self.matrix.shape[1] and bool((self.matrix == np.eye(len(self.matrix))).all())

    def apply(self, samples: NDArray[np.float64] | NDArray[np.float32]) -> NDArray[np.float64]:
        """Samples (n, channels) as (n, rows); NaN where a channel that a row needs is NaN, and only there."""
        if samples.ndim != 2 or samples.shape[1] != self.matrix.shape[1]:
            raise MontageError(
                f"samples {samples.shape} do not fit: this montage was made for {self.matrix.shape[1]} channels"
            )
        if self.unchanged:
            return np.array(samples, np.float64)
        values = np.asarray(samples, np.float64)
        missing = ~np.isfinite(values)
        if not missing.any():
            return values @ self.matrix.T
        out = np.where(missing, 0.0, values) @ self.matrix.T
        out[(missing.astype(np.float64) @ (self.matrix != 0).T.astype(np.float64)) > 0] = np.nan
        return out


def as_recorded(labels: Sequence[str]) -> Montage:
    """What came, unchanged."""
    return Montage(tuple(labels), np.eye(len(labels)), "as recorded")


def average(labels: Sequence[str], *, bad: Collection[str] = ()) -> Montage:
    """Every electrode against the mean of all electrodes that are not ``bad`` (labels of the stream).

    Channels whose label names no electrode stay as they came.
    """
    unknown = [label for label in labels if not is_electrode(label)]
    strange = sorted(set(bad) - set(labels))
    if strange:
        raise MontageError(
            f"average reference: {_listed(strange)} cannot be left out, the stream has {_listed(labels)}"
        )
    head = np.array([is_electrode(label) for label in labels], np.bool_)
    used = head & np.array([label not in bad for label in labels], np.bool_)
    if used.sum() < LEAST_AVERAGED:
        raise MontageError(
            f"average reference: {used.sum()} usable electrodes among {_listed(labels)}, at least {LEAST_AVERAGED} are "
            "needed; name the channels as electrodes (Fp1, Cz, ...) or show them as recorded"
        )
    matrix = np.eye(len(labels)) - np.outer(head, used / used.sum())
    said = f"average of {used.sum()} electrodes"
    if bad:
        said += f", without {_listed(sorted(bad))}"
    return Montage(tuple(labels), matrix, said + _unchanged(unknown))


def linked_mastoids(labels: Sequence[str]) -> Montage:
    """Every electrode against the mean of the two at the ears: A1 A2, M1 M2 or TP9 TP10; these two are left out.

    A stream that was recorded against one of the two and carries the other only is refused: what is not there cannot
    be told from what is zero.
    """
    names = [normalised(label) for label in labels]
    pair = next((pair for pair in MASTOIDS if pair[0] in names and pair[1] in names), None)
    if pair is None:
        wanted = ", ".join(" and ".join(pair) for pair in MASTOIDS)
        raise MontageError(f"linked mastoids: one of the pairs {wanted} is needed, the stream has {_listed(labels)}")
    left, right = names.index(pair[0]), names.index(pair[1])
    head = np.array([is_electrode(label) for label in labels], np.bool_)
    matrix = np.eye(len(labels))
    matrix[head, left] -= 0.5
    matrix[head, right] -= 0.5
    kept = [row for row in range(len(labels)) if row not in (left, right)]
    if not head[kept].any():
        raise MontageError(f"linked mastoids: beside {' and '.join(pair)} there is no electrode in {_listed(labels)}")
    unknown = [labels[row] for row in kept if not head[row]]
    return Montage(
        tuple(labels[row] for row in kept), matrix[kept], f"against linked {' and '.join(pair)}" + _unchanged(unknown)
    )


def bipolar(labels: Sequence[str], chains: Sequence[Sequence[str]] = CHAINS) -> Montage:
    """Neighbours along ``chains`` against each other, "Fp1-F7" and so on, without the pairs that lack an electrode."""
    places = {normalised(label): row for row, label in reversed(list(enumerate(labels)))}
    rows, made, wanting = [], [], []
    for chain in chains:
        for first, second in itertools.pairwise(chain):
            a, b = places.get(normalised(first)), places.get(normalised(second))
            if a is None or b is None:
                wanting.append(f"{first}-{second}")
                continue
            row = np.zeros(len(labels))
            row[a], row[b] = 1.0, -1.0
            rows.append(row)
            made.append(f"{labels[a]}-{labels[b]}")
    if not rows:
        raise MontageError(f"bipolar: none of the pairs {_listed(wanting)} can be made of {_listed(labels)}")
    said = f"bipolar, {len(rows)} pairs"
    if wanting:
        said += f"; not there: {_listed(wanting)}"
    return Montage(tuple(made), np.array(rows), said)


SCHEMES = {
    "as recorded": as_recorded,
    "average": average,
    "linked mastoids": linked_mastoids,
    "bipolar": bipolar,
}
"""By the name that a user chooses."""


def montage(scheme: str, labels: Sequence[str]) -> Montage:
    """The montage of that name for the channels of a stream. MontageError in words."""
    if scheme not in SCHEMES:
        raise MontageError(f"{scheme!r} is no reference; there are {', '.join(SCHEMES)}")
    return SCHEMES[scheme](labels)


def allowed(labels: Sequence[str]) -> tuple[str, ...]:
    """The references that channels called ``labels`` can be shown against.

    >>> allowed(("Fp1", "F7", "A1", "A2"))
    ('as recorded', 'average', 'linked mastoids', 'bipolar')
    >>> allowed(("EXG 0", "EXG 1"))
    ('as recorded',)
    """
    found = []
    for scheme in SCHEMES:
        try:
            montage(scheme, labels)
        except MontageError:
            continue
        found.append(scheme)
    return tuple(found)


def _unchanged(labels: Sequence[str]) -> str:
    return f"; no electrodes, shown as recorded: {_listed(labels)}" if labels else ""


def _listed(labels: Sequence[str], most: int = 8) -> str:
    named = [label[:24] or "(no name)" for label in labels[:most]]
    return ", ".join(named) + (f" and {len(labels) - most} more" if len(labels) > most else "")

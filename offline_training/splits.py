"""Folds by person: nobody is in training and test at once."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from offline_training.api import TrainingError
from offline_training.prepare import KINDS, Prepared


@dataclass(frozen=True, slots=True)
class Fold:
    """Person codes to train on and to score on. Refuses a person on both sides."""

    train: tuple[str, ...]
    test: tuple[str, ...]
    aside: tuple[str, ...] = ()
    """On neither side on purpose."""

    def __post_init__(self) -> None:
        both = sorted(set(self.train) & set(self.test))
        if both:
            raise TrainingError(f"fold: {', '.join(both)} would be trained on and scored; split by person.")
        if not self.train or not self.test:
            raise TrainingError("fold: one side has nobody; use fewer folds or more people.")

    def rows(self, person: NDArray[np.str_]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        """Row numbers of the training and of the test windows, given each window's person (n,)."""
        strangers = sorted(set(person.tolist()) - set(self.train) - set(self.test) - set(self.aside))
        if strangers:
            raise TrainingError(f"fold: {', '.join(strangers)} are on neither side.")
        return np.flatnonzero(np.isin(person, self.train)), np.flatnonzero(np.isin(person, self.test))


def grouped_folds(people: Sequence[str], folds: int, seed: int) -> list[Fold]:
    """``folds`` folds that score every person exactly once; who shares a fold depends on ``seed`` alone."""
    known = sorted(set(people))
    if not 2 <= folds <= len(known):
        raise TrainingError(f"{folds} folds of {len(known)} people: choose 2 to {len(known)} folds.")
    shuffled = np.random.default_rng(seed).permutation(np.array(known))
    tests = [tuple(sorted(part.tolist())) for part in np.array_split(shuffled, folds)]
    return [Fold(train=tuple(code for code in known if code not in test), test=test) for test in tests]


def without(folds: Sequence[Fold], who: str) -> list[Fold]:
    """The same folds without one person, who is then neither trained on nor scored in any of them."""
    left = []
    for fold in folds:
        train, test = (tuple(code for code in side if code != who) for side in (fold.train, fold.test))
        if test:
            left.append(Fold(train=train, test=test, aside=(*fold.aside, who)))
    return left


def refuse_copies(prepared: Prepared) -> None:
    """Raises TrainingError when a good window of one person is, bit by bit, one of another: the same recording under
    two names would stand on both sides of a split."""
    for number, kind in enumerate(KINDS):
        whose: dict[bytes, str] = {}
        for row in np.flatnonzero(prepared.usable[:, number]).tolist():
            who = str(prepared.person[row])
            found = hashlib.blake2b(prepared.signals[kind][row].tobytes(), digest_size=16).digest()
            if whose.setdefault(found, who) != who:
                raise TrainingError(
                    f"{who} and {whose[found]} have the same {kind.upper()}: one recording under two names would be "
                    "trained on and scored; give both one name, or leave one out."
                )

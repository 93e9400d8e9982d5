"""Nobody is trained on and scored."""

from __future__ import annotations

import numpy as np
import pytest

from offline_training.api import TrainingError
from offline_training.splits import Fold, grouped_folds, without

PEOPLE = [f"{n:02d}" for n in range(28)]


def test_every_person_is_scored_exactly_once_and_never_by_a_fold_trained_on_them():
    folds = grouped_folds(PEOPLE, 7, seed=0)
    assert sorted(who for fold in folds for who in fold.test) == PEOPLE
    for fold in folds:
        assert len(fold.test) == 4
        assert sorted(fold.train + fold.test) == PEOPLE


def test_a_fold_with_a_person_on_both_sides_is_refused():
    with pytest.raises(TrainingError, match="03 would be trained on and scored"):
        Fold(train=("01", "03"), test=("03", "04"))


def test_a_fold_refuses_windows_of_people_it_does_not_know():
    with pytest.raises(TrainingError, match="09 are on neither side"):
        Fold(train=("01",), test=("02",)).rows(np.array(["01", "02", "09"]))


def test_rows_of_both_sides_are_apart_and_complete():
    person = np.array(["02", "01", "01", "03", "02"])
    train, test = Fold(train=("01", "03"), test=("02",)).rows(person)
    assert train.tolist() == [1, 2, 3]
    assert test.tolist() == [0, 4]


def test_who_shares_a_fold_depends_on_the_seed_alone():
    assert grouped_folds(PEOPLE, 7, seed=1) == grouped_folds(PEOPLE[::-1] + PEOPLE, 7, seed=1)
    assert grouped_folds(PEOPLE, 7, seed=1) != grouped_folds(PEOPLE, 7, seed=2)


@pytest.mark.parametrize("folds", [1, 29])
def test_too_few_or_too_many_folds_are_refused(folds):
    with pytest.raises(TrainingError, match="28 people"):
        grouped_folds(PEOPLE, folds, seed=0)


def test_folds_without_a_person_neither_train_on_nor_score_them_and_change_nothing_else():
    folds = grouped_folds(PEOPLE, 7, seed=0)
    left = without(folds, "05")
    person = np.array(PEOPLE)
    for fold, before in zip(left, folds, strict=True):
        assert set(fold.train) == set(before.train) - {"05"}
        assert set(fold.test) == set(before.test) - {"05"}
        train, test = fold.rows(person)
        assert "05" not in person[np.concatenate([train, test])]
    assert len(without(grouped_folds(PEOPLE, 28, seed=0), "05")) == 27

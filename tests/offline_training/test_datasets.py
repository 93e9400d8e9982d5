"""Every file of offline_training/datasets with ``parts`` is a data set, and keeps the law of data sets."""

from __future__ import annotations

import inspect
from pathlib import Path

import pytest

from offline_training.api import DataSet, Source, TrainingError
from offline_training.datasets import datasets, open_dataset


@pytest.mark.parametrize("name", datasets())
def test_a_data_set_says_what_it_is_and_where_it_comes_from(name):
    one = open_dataset(name)
    assert isinstance(one.SOURCE, Source)
    assert datasets()[name].strip()
    assert len({target.name for target in one.TARGETS}) == len(one.TARGETS)
    for method in ("parts", "recordings", "digest"):
        wanted = list(inspect.signature(getattr(DataSet, method)).parameters)[1:]
        assert list(inspect.signature(getattr(one, method)).parameters)[: len(wanted)] == wanted


@pytest.mark.parametrize("name", datasets())
def test_an_empty_folder_is_one_line_that_names_it(name, tmp_path):
    with pytest.raises(TrainingError) as caught:
        open_dataset(name).parts(tmp_path)
    assert str(tmp_path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", datasets())
def test_a_folder_that_is_not_there_is_one_line_that_names_it(name):
    gone = Path("/nowhere/at/all")
    with pytest.raises(TrainingError, match="/nowhere/at/all"):
        open_dataset(name).parts(gone)


def test_an_unknown_data_set_is_answered_with_the_known_ones():
    with pytest.raises(TrainingError, match="eegmat"):
        open_dataset("deap")

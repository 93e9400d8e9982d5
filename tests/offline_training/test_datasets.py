"""Every file of offline_training/datasets with ``parts`` is a data set, and keeps the law of data sets."""

from __future__ import annotations

import dataclasses
import inspect
import re
import subprocess
import sys
from pathlib import Path

import pytest

from models.bundle import TARGET_KINDS
from offline_training.api import DataSet, Source, TrainingError
from offline_training.datasets import datasets, open_dataset
from offline_training.prepare import DEFAULT_SPEC, KINDS


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
def test_what_goes_into_a_manifest_is_there_and_in_one_line(name):
    one = open_dataset(name)
    source = dataclasses.asdict(one.SOURCE)
    for what, text in source.items():
        assert text == text.strip(), what
        assert text.isprintable(), what
    needed = ["name", "attribution", "licence", "form"]
    if one.TARGETS or hasattr(one, "targets"):
        needed.append("order")
    assert all(source[what] for what in needed)


@pytest.mark.parametrize("name", datasets())
def test_targets_are_such_as_a_bundle_may_have(name):
    for target in open_dataset(name).TARGETS:
        low, high = target.range
        assert re.fullmatch(r"[a-z][a-z0-9_]*", target.name)
        assert target.kind in TARGET_KINDS
        assert low < high
        assert 0 < len(target.meaning) <= 500
        assert (target.kind == "ordinal") == bool(target.levels)
        if target.levels:
            assert list(target.levels) == sorted(set(target.levels))
            assert (target.levels[0], target.levels[-1]) == target.range


@pytest.mark.parametrize("name", datasets())
def test_windows_can_be_cut_for_the_channels_that_a_data_set_asks_for(name):
    inputs = getattr(open_dataset(name), "INPUTS", DEFAULT_SPEC.inputs)
    assert [kind for kind in KINDS if kind in {entry.kind for entry in inputs}] == [entry.kind for entry in inputs]
    for entry in inputs:
        assert 1 <= entry.min_channels <= len(set(entry.channels)) == len(entry.channels)


def test_what_there_is_can_be_listed_without_loading_what_reads_it():
    listed = "from offline_training.datasets import datasets; import sys; print(*datasets())"
    said = "; print(*sorted({'mne', 'wfdb', 'scipy', 'torch'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", listed + said], capture_output=True, text=True, check=True)
    names, loaded = done.stdout.splitlines()
    assert names.split() == list(datasets())
    assert loaded.split() in ([], ["scipy"])


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

"""ECG in npz files, as they are kept for insula: on files like the real ones and on the real ones."""

from __future__ import annotations

import numpy as np
import pytest

from offline_training.api import Skipped, TrainingError
from offline_training.datasets import ecg_npz


def everything(folder):
    return [one for part in ecg_npz.parts(folder) for one in ecg_npz.recordings(folder, part)]


@pytest.fixture
def two_files(tmp_path, write_ecg):
    """One of rows with people in its names, one of recordings of any length, one after the other, with labels."""
    write_ecg(tmp_path / "rows", people=2, each=3, seconds=20)
    (tmp_path / "row").mkdir()
    lengths = np.array([130 * 9, 130 * 61, 130 * 30], np.int32)
    samples = np.random.default_rng(1).integers(-800, 800, lengths.sum()).astype(np.int16)
    np.savez(
        tmp_path / "row" / "challenge.npz",
        data=samples, lengths=lengths, names=np.array(["A1", "A2", "A3"]), labels=np.array(["N", "~", "A"]), fs=130,
    )  # fmt: skip
    np.savez(tmp_path / "other.npz", channels=np.array(["Fp1"]), fs=128)
    return tmp_path, samples


def test_both_ways_of_keeping_ecg_are_read_sample_by_sample_with_their_people(two_files):
    folder, samples = two_files
    found = everything(folder)
    assert [(one.person, one.session) for one in found][:4] == [("A1", "A1"), ("A2", "A2"), ("A3", "A3"), *[
        ("s3p00", "s3p00/rec_0")
    ]]  # fmt: skip
    assert len({one.person for one in found}) == 5
    joined = np.concatenate([chunk.data[:, 0] for one in found[:3] for chunk in one.chunks])
    assert np.array_equal(joined, samples.astype(np.float32))
    assert found[1].stop == 61.0
    assert all(stream.unit == "uV" for one in found for stream in one.streams)
    assert not found[0].targets


def test_counts_become_microvolts(tmp_path):
    np.savez(tmp_path / "a.npz", data=np.array([[1, 2, 3]], np.int16), names=np.array(["x"]), fs=500, scale_uV=2.5)
    ((one,),) = [list(ecg_npz.recordings(tmp_path, part)) for part in ecg_npz.parts(tmp_path)]
    assert next(iter(one.chunks)).data[:, 0].tolist() == [2.5, 5.0, 7.5]


def test_labels_have_a_place_of_their_own(two_files):
    assert ecg_npz.labels(two_files[0]) == {"A1": "N", "A2": "~", "A3": "A"}


def test_a_flat_recording_is_named_and_left_out(tmp_path):
    data = np.zeros((2, 1300), np.int16)
    data[1, ::2] = 5
    np.savez(tmp_path / "a.npz", data=data, names=np.array(["dead", "alive"]), fs=130)
    first, second = everything(tmp_path)
    assert first == Skipped("a.npz: dead", "flat")
    assert second.person == "alive"


@pytest.mark.parametrize(
    "wrong",
    [
        {"names": np.array(["only one"])},
        {"fs": 0},
        {"lengths": np.array([5, 5])},
        {"data": np.array([["a"], ["b"]])},
    ],
)
def test_a_file_that_does_not_fit_together_is_one_line(tmp_path, wrong):
    good = {"data": np.ones((2, 1300), np.int16), "names": np.array(["a", "b"]), "fs": 130}
    np.savez(tmp_path / "a.npz", **(good | wrong))
    with pytest.raises(TrainingError, match=r"a\.npz") as caught:
        everything(tmp_path)
    assert "\n" not in str(caught.value)


def test_the_digest_follows_the_file(tmp_path, write_ecg):
    write_ecg(tmp_path, people=1, each=1, seconds=20)
    (part,) = ecg_npz.parts(tmp_path)
    first = ecg_npz.digest(tmp_path, part)
    assert ecg_npz.digest(tmp_path, part) == first
    write_ecg(tmp_path, people=1, each=1, seconds=20, seed=4)
    assert ecg_npz.digest(tmp_path, part) != first


def test_the_real_files_are_found_and_nothing_else_of_the_folder(shared_data):
    parts = ecg_npz.parts(shared_data)
    assert {part.split("/")[0] for part in parts} == {"cinc2017", "ecgid"}
    labels = ecg_npz.labels(shared_data)
    assert len(labels) == 8528
    assert set(labels.values()) == {"N", "A", "O", "~"}
    last = [one for one in ecg_npz.recordings(shared_data, parts[-1]) if not isinstance(one, Skipped)]
    assert all(one.stop == 20.0 and one.person.startswith("Person_") for one in last)
    first = next(iter(ecg_npz.recordings(shared_data, parts[0])))
    assert first.session in labels
    assert first.stop == 30.0

"""EDF and BDF files in the layouts of the TUH EEG Corpus, BIDS and none, written by the tests, with their quirks."""

from __future__ import annotations

import edfio
import numpy as np
import pytest

from models.montage import PUBLISHED
from offline_training import shards
from offline_training.api import Recording, Skipped, TrainingError
from offline_training.datasets import edf

RATE = 250


def write(path, labels, *, seconds=20, units="uV", rate=RATE, bdf=False, more=()):
    """A file with noise of 20 uV in every channel; the values in its own unit come back."""
    path.parent.mkdir(parents=True, exist_ok=True)
    scale = {"uV": 20.0, "mV": 0.02, "V": 2e-5}.get(units, 20.0)
    values = np.random.default_rng(len(path.name)).normal(0.0, scale, (len(labels), seconds * rate))
    made = edfio.BdfSignal if bdf else edfio.EdfSignal
    signals = [
        made(row, rate, label=label, physical_dimension=units, physical_range=(-10 * scale, 10 * scale))
        for label, row in zip(labels, values, strict=True)
    ]
    (edfio.Bdf if bdf else edfio.Edf)([*signals, *more]).write(path)
    return values


def read(folder):
    return [one for part in edf.parts(folder) for one in edf.recordings(folder, part)]


def corpus_file(folder, person="aaaaaaaa", session="s001", token="t000", **more):
    path = folder / "edf" / "000" / person / f"{session}_2015" / "01_tcp_ar" / f"{person}_{session}_{token}.edf"
    slow = edfio.EdfSignal(np.arange(float(more.get("seconds", 20))), 1, label="IBI", physical_range=(0, 1000))
    heart = edfio.EdfSignal(
        np.random.default_rng(1).normal(0, 200, more.get("seconds", 20) * RATE),
        RATE, label="EEG EKG1-REF", physical_dimension="uV", physical_range=(-2000, 2000),
    )  # fmt: skip
    return write(path, [f"EEG {name}-REF" for name in PUBLISHED], more=[heart, slow], **more)


def test_a_file_of_the_corpus_gives_its_electrodes_in_microvolts_without_first_and_last_minute(tmp_path):
    values = corpus_file(tmp_path, seconds=150)
    (one,) = read(tmp_path)
    assert one.person == "aaaaaaaa"
    assert one.streams[0].channels == tuple(f"EEG {name}-REF" for name in PUBLISHED)
    assert one.streams[0].rate == RATE
    joined = np.concatenate([chunk.data for chunk in one.chunks])
    assert np.allclose(joined, values[:, 60 * RATE : -60 * RATE].T, atol=0.05)
    assert (one.start, one.stop) == (60.0, 90.0)


def test_sessions_and_files_of_one_person_of_the_corpus_are_one_person(tmp_path):
    for person, session, token in (
        ("aaaaaaab", "s001", "t000"),
        ("aaaaaaab", "s002", "t003"),
        ("aaaaaaac", "s001", "t000"),
    ):
        corpus_file(tmp_path, person, session, token, seconds=125)
    assert [one.person for one in read(tmp_path)] == ["aaaaaaab", "aaaaaaab", "aaaaaaac"]


@pytest.mark.parametrize("units", ["uV", "mV", "V"])
def test_whatever_the_unit_of_the_header_the_samples_are_microvolts(tmp_path, units):
    values = write(tmp_path / "a.edf", ["Fp1", "Cz"], units=units)
    (one,) = read(tmp_path)
    factor = {"uV": 1.0, "mV": 1e3, "V": 1e6}[units]
    joined = np.concatenate([chunk.data for chunk in one.chunks])
    # The header of an EDF has room for eight characters of a range: in volts they are coarse.
    assert np.allclose(joined, values.T * factor, atol=0.05)


def test_a_bdf_is_read_too(tmp_path):
    values = write(tmp_path / "sub-07" / "eeg" / "sub-07_task-rest_eeg.bdf", ["Fp1", "O2"], bdf=True)
    (one,) = read(tmp_path)
    assert one.person == "sub-07"
    assert np.allclose(np.concatenate([chunk.data for chunk in one.chunks]), values.T, atol=0.001)


def test_a_channel_without_a_unit_of_voltage_is_named_and_left_out(tmp_path):
    odd = edfio.EdfSignal(np.zeros(20 * RATE), RATE, label="O1", physical_dimension="%", physical_range=(-1, 1))
    write(tmp_path / "a.edf", ["Fp1"], more=[odd])
    skipped, one = read(tmp_path)
    assert isinstance(skipped, Skipped)
    assert skipped.where == "a.edf: O1"
    assert one.streams[0].channels == ("Fp1",)


def test_hours_are_read_in_pieces(tmp_path, monkeypatch):
    write(tmp_path / "a.edf", ["Fp1"], seconds=60)
    (whole,) = read(tmp_path)
    joined = np.concatenate([chunk.data for chunk in whole.chunks])
    monkeypatch.setattr(edf, "PIECE", 7.0)
    (one,) = read(tmp_path)
    chunks = list(one.chunks)
    assert max(len(chunk.times) for chunk in chunks) == 7 * RATE
    assert np.array_equal(np.concatenate([chunk.data for chunk in chunks]), joined)
    assert np.allclose(np.diff(np.concatenate([chunk.times for chunk in chunks])), 1 / RATE)


def test_what_a_file_lacks_of_the_published_channels_is_absent_in_its_windows(tmp_path):
    write(tmp_path / "muse.edf", ["TP9", "AF7", "Fp1", "Cz"], seconds=30)
    shards.write(shards.plan("edf", tmp_path), tmp_path / "shards")
    good = shards.Shards(tmp_path / "shards").good("eeg", 0.01)
    assert [PUBLISHED[place] for place in np.flatnonzero(good.any(0))] == ["FP1", "CZ"]


def test_files_that_cannot_be_used_are_named_and_the_others_go_on(tmp_path):
    for name in "abcdefg":
        write(tmp_path / f"{name}.edf", ["Fp1", "Cz"], seconds=25)
    (tmp_path / "b.edf").write_bytes(b"nothing of the kind")
    (tmp_path / "c.edf").write_bytes((tmp_path / "c.edf").read_bytes()[:300])
    write(tmp_path / "d.edf", ["RESP", "SpO2"])
    write(tmp_path / "e.edf", ["Fp1"], rate=64)
    (tmp_path / "f.edf").write_bytes(b"")
    done = shards.write(shards.plan("edf", tmp_path), tmp_path / "shards")
    told = {one.where: one.why for one in done.skipped}
    assert set(told) == {"b.edf", "c.edf", "d.edf", "e.edf", "f.edf"}
    assert "RESP SpO2" in told["d.edf"]
    assert "64 Hz" in told["e.edf"]
    assert not any("\n" in why for why in told.values())
    assert shards.Shards(tmp_path / "shards").people == ["a", "g"]


def test_a_file_that_breaks_off_in_the_middle_is_used_as_far_as_it_goes(tmp_path):
    write(tmp_path / "a.edf", ["Fp1"], seconds=40)
    content = (tmp_path / "a.edf").read_bytes()
    (tmp_path / "a.edf").write_bytes(content[: len(content) // 2])
    (one,) = read(tmp_path)
    assert isinstance(one, Recording)
    assert 15 < one.stop < 25
    assert sum(len(chunk.times) for chunk in one.chunks) == round(one.stop * RATE)


def test_a_recording_of_the_corpus_shorter_than_its_edges_is_refused(tmp_path):
    corpus_file(tmp_path, seconds=100)
    with pytest.raises(TrainingError, match="too short"):
        read(tmp_path)

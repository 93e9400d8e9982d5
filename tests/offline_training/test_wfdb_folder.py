"""WFDB records in the layouts of PTB-XL, MIMIC-IV-ECG and the challenges, written by the tests, with their quirks."""

from __future__ import annotations

import csv
import hashlib

import numpy as np
import pytest
import wfdb

from offline_training import shards
from offline_training.api import Recording, Skipped, TrainingError
from offline_training.datasets import wfdb_folder
from offline_training.datasets.wfdb_folder import LEADS

TWELVE = ["I", "II", "III", "AVR", "AVL", "AVF", "V1", "V2", "V3", "V4", "V5", "V6"]


def write(path, *, names=TWELVE, rate=500, seconds=10, units="mV", change=None):
    """A record of made-up beats; the values in its own unit come back."""
    path.parent.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(int.from_bytes(hashlib.sha256(path.name.encode()).digest()[:4]))
    time = np.arange(seconds * rate) / rate
    beat = np.exp(-0.5 * (((time * 1.1) % 1.0 - 0.5) / 0.012) ** 2)
    scale = {"uV": 1000.0, "mV": 1.0, "V": 1e-3}.get(units, 1.0)
    values = beat[:, None] * np.linspace(0.6, 1.5, len(names)) + 0.02 * random.standard_normal((len(time), len(names)))
    values *= scale
    if change:
        change(values)
    wfdb.wrsamp(
        path.name, fs=rate, units=[units] * len(names), sig_name=names, p_signal=values, fmt=["16"] * len(names),
        adc_gain=[1000.0 / scale] * len(names), baseline=[0] * len(names), write_dir=str(path.parent),
    )  # fmt: skip
    return values


def read(folder):
    found = [one for part in wfdb_folder.parts(folder) for one in wfdb_folder.recordings(folder, part)]
    return [one for one in found if isinstance(one, Recording)], [one for one in found if isinstance(one, Skipped)]


def samples(recording):
    return np.concatenate([chunk.data for chunk in recording.chunks])


@pytest.fixture
def ptbxl(tmp_path):
    rows = []
    for number, patient in ((1, "15709.0"), (2, "13243.0"), (3, "15709.0")):
        lr, hr = f"records100/00000/{number:05d}_lr", f"records500/00000/{number:05d}_hr"
        write(tmp_path / lr, rate=100)
        write(tmp_path / hr, rate=500)
        rows.append({"ecg_id": number, "patient_id": patient, "filename_lr": lr, "filename_hr": hr})
    with (tmp_path / "ptbxl_database.csv").open("w", newline="") as file:
        table = csv.DictWriter(file, list(rows[0]))
        table.writeheader()
        table.writerows(rows)
    return tmp_path


def test_records_of_ptbxl_belong_to_their_patients_and_are_read_once_at_500_hz(ptbxl):
    found, skipped = read(ptbxl)
    assert [(one.person, one.streams[0].rate) for one in found] == [("15709", 500), ("13243", 500), ("15709", 500)]
    assert not skipped
    assert found[0].streams[0].channels == LEADS
    for path in (ptbxl / "records500").rglob("*"):
        if path.is_file():
            path.unlink()
    wfdb_folder._records.cache_clear()
    assert [one.streams[0].rate for one in read(ptbxl)[0]] == [100.0] * 3


def test_records_of_mimic_belong_to_the_folder_of_the_patient_and_stand_together_in_a_part(tmp_path):
    for patient, study in (("p10000032", "40689238"), ("p10000032", "44458630"), ("p10000117", "45090959")):
        write(tmp_path / "files" / "p1000" / patient / f"s{study}" / study)
    assert wfdb_folder.parts(tmp_path) == ["files/p1000 0-2"]
    found, _ = read(tmp_path)
    assert [one.person for one in found] == ["p10000032", "p10000032", "p10000117"]


@pytest.mark.parametrize("units", ["uV", "mV", "V"])
def test_whatever_the_unit_of_the_header_the_samples_are_microvolts(tmp_path, units):
    values = write(tmp_path / "a" / "A0001", units=units, seconds=2)
    (one,), _ = read(tmp_path)
    factor = {"uV": 1.0, "mV": 1e3, "V": 1e6}[units]
    assert np.allclose(samples(one), values * factor, atol=1.0)
    assert one.person == "A0001"


def test_leads_stand_in_the_standard_order_whatever_that_of_the_file(tmp_path):
    values = write(tmp_path / "a", names=["V1", "RESP", "aVR", "II"], seconds=2)
    (one,), _ = read(tmp_path)
    assert one.streams[0].channels == ("II", "aVR", "V1")
    assert np.allclose(samples(one), values[:, [3, 2, 0]] * 1e3, atol=1.0)


@pytest.mark.parametrize(("name", "lead"), [("ECG", "I"), ("MLII", "II"), ("ECG lead II", "II")])
def test_a_single_lead_has_a_place_among_the_twelve(tmp_path, name, lead):
    write(tmp_path / "a", names=[name], seconds=2)
    (one,), _ = read(tmp_path)
    assert one.streams[0].channels == (lead,)


def test_flat_leads_and_leads_without_a_value_are_named_and_the_others_kept(tmp_path):
    def change(values):
        values[:, 2] = 0.25
        values[:, 5] = np.nan
        values[100:300, 0] = np.nan

    write(tmp_path / "a", change=change)
    (one,), skipped = read(tmp_path)
    assert skipped == [Skipped("a: III", "flat"), Skipped("a: aVF", "no value")]
    assert len(one.streams[0].channels) == 10
    values = samples(one)
    assert np.isnan(values[100:300, 0]).all()
    assert np.isfinite(values[300:]).all()


def test_a_lead_in_a_unit_that_is_none_of_voltage_is_named(tmp_path):
    write(tmp_path / "a", names=["II"], units="mmHg", seconds=2)
    write(tmp_path / "b", names=["II"], seconds=2)
    found, skipped = read(tmp_path)
    assert [one.session for one in found] == ["b"]
    assert "mmHg" in skipped[0].why
    assert skipped[1] == Skipped("a", "has no lead with a signal")


def test_a_corrupt_record_among_good_ones_is_named_and_the_others_go_on(tmp_path):
    for name in "abcdef":
        write(tmp_path / name, seconds=12)
    (tmp_path / "b.dat").write_bytes((tmp_path / "b.dat").read_bytes()[:5000])
    (tmp_path / "c.hea").write_text("nonsense")
    (tmp_path / "d.dat").unlink()
    (tmp_path / "e.hea").write_text("e 0 500 0\n")
    done = shards.write(shards.plan("wfdb_folder", tmp_path), tmp_path / "shards")
    assert [one.where for one in done.skipped] == ["b", "c", "d", "e"]
    assert not any("\n" in one.why for one in done.skipped)
    stored = shards.Shards(tmp_path / "shards")
    assert stored.people == ["a", "f"]
    assert stored.signals("ecg", np.array([0])).shape == (1, 12, 2000)


def test_a_lead_that_is_absent_is_said_to_be_so_in_its_windows(tmp_path):
    write(tmp_path / "a", names=["II", "V5"], seconds=25)
    shards.write(shards.plan("wfdb_folder", tmp_path), tmp_path / "shards")
    good = shards.Shards(tmp_path / "shards").good("ecg", 0.5)
    assert [LEADS[place] for place in np.flatnonzero(good.all(0))] == ["II", "V5"]
    assert good.any(0).sum() == 2


def test_a_long_record_is_read_in_pieces_and_is_the_same(tmp_path, monkeypatch):
    write(tmp_path / "a", names=["II"], rate=250, seconds=100)
    whole = samples(read(tmp_path)[0][0])
    monkeypatch.setattr(wfdb_folder, "PIECE", 7.0)
    (one,), _ = read(tmp_path)
    chunks = list(one.chunks)
    assert max(len(chunk.times) for chunk in chunks) == 7 * 250
    assert np.array_equal(np.concatenate([chunk.data for chunk in chunks]), whole)
    assert chunks[-1].times[-1] == pytest.approx(100 - 1 / 250)


def test_a_table_of_patients_that_is_damaged_is_one_line(ptbxl):
    (ptbxl / "ptbxl_database.csv").write_text("ecg_id,patient_id\n1,who\n")
    wfdb_folder._people.cache_clear()
    with pytest.raises(TrainingError, match=r"ptbxl_database\.csv"):
        read(ptbxl)


def test_the_digest_follows_the_samples(tmp_path):
    write(tmp_path / "a", seconds=2)
    (part,) = wfdb_folder.parts(tmp_path)
    first = wfdb_folder.digest(tmp_path, part)
    write(tmp_path / "a", seconds=2, change=lambda values: values.__setitem__((0, 0), 0.5))
    assert wfdb_folder.digest(tmp_path, part) != first


def test_a_real_person_with_many_records_is_one_person(shared_data):
    found, skipped = read(shared_data / "ecgid")
    assert len(found) == 20
    assert {one.person for one in found} == {"Person_01"}
    assert not skipped

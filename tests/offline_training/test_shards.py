"""Windows on disk: the bits of live sessions, whole parts only, gone on with after whatever stopped them."""

from __future__ import annotations

import json
import pickle
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from offline_training import shards
from offline_training.api import TrainingError
from offline_training.datasets import ecg_npz, eegmat
from offline_training.prepare import DEFAULT_GATE, DEFAULT_SPEC, prepare
from realtime.windows import iter_windows

ROOT = Path(__file__).resolve().parents[2]
PREPARE = [sys.executable, "-m", "insula", "prepare", "ecg_npz"]


@pytest.fixture
def few_together(monkeypatch):
    """Parts of four recordings."""
    monkeypatch.setattr(ecg_npz, "TOGETHER", 4)


def files(folder: Path) -> dict[str, bytes]:
    """What is on disk, apart from when it was made."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_stored_windows_are_the_bits_that_a_live_session_computes(write_ecg, tmp_path, few_together):
    write_ecg(tmp_path / "ecg", people=3, each=2, seconds=30)
    wanted = shards.plan("ecg_npz", tmp_path / "ecg")
    done = shards.write(wanted, tmp_path / "shards")
    stored = shards.Shards(tmp_path / "shards")
    assert len(stored) == done.windows == 6 * 4
    rows, place = np.random.default_rng(1).permutation(len(stored)), 0
    signals = stored.signals("ecg", rows)[np.argsort(rows)]
    t_end, person = stored.column("t_end"), np.array(stored.people)[stored.who]
    for part in ecg_npz.parts(tmp_path / "ecg"):
        for recording in ecg_npz.recordings(tmp_path / "ecg", part):
            # At the live hop: which windows are asked for has no part in what is in them.
            for window in iter_windows(recording.chunks, DEFAULT_SPEC, recording.streams):
                if window.t_end % 5:
                    continue
                assert np.array_equal(signals[place], window.signals["ecg"])
                assert t_end[place] == window.t_end
                assert person[place] == recording.person
                assert stored.column("score_ecg")[place, 0] == window.quality["ecg"][0].score
                place += 1
    assert place == len(stored)


def test_two_processes_write_what_one_writes(write_ecg, tmp_path):
    write_ecg(tmp_path / "ecg", people=2, each=1, seconds=25)
    write_ecg(tmp_path / "ecg" / "more", people=3, each=1, seconds=25, seed=5)
    for jobs in (1, 2):
        shards.write(shards.plan("ecg_npz", tmp_path / "ecg"), tmp_path / f"{jobs}", jobs=jobs)
    assert files(tmp_path / "1") == files(tmp_path / "2")
    assert len(shards.Shards(tmp_path / "2").people) == 5


def test_a_second_run_makes_nothing_anew_until_the_data_change(write_ecg, tmp_path, few_together):
    write_ecg(tmp_path / "ecg", people=8, each=1, seconds=20)
    wanted = shards.plan("ecg_npz", tmp_path / "ecg")

    def fresh():
        return [one.fresh for one in shards.write(wanted, tmp_path / "shards").parts]

    assert fresh() == [True, True]
    first = files(tmp_path / "shards")
    assert fresh() == [False, False]
    assert files(tmp_path / "shards") == first
    digest = shards.Shards(tmp_path / "shards").digest
    write_ecg(tmp_path / "ecg", people=8, each=1, seconds=20, seed=9)
    assert fresh() == [True, True]
    assert shards.Shards(tmp_path / "shards").digest != digest
    wanted = shards.plan("ecg_npz", tmp_path / "ecg", seconds=5)
    assert fresh() == [True, True]


def test_a_part_that_was_half_written_is_made_anew_and_a_whole_one_kept(write_ecg, tmp_path, few_together):
    write_ecg(tmp_path / "ecg", people=8, each=1, seconds=20)
    wanted = shards.plan("ecg_npz", tmp_path / "ecg")
    shards.write(wanted, tmp_path / "shards")
    before = files(tmp_path / "shards")
    _, second = shards.Shards(tmp_path / "shards").parts
    # As a kill leaves it: the second part under its temporary name, without its end and its JSON, and no list.
    (tmp_path / "shards" / second).rename(tmp_path / "shards" / f"{shards.UNFINISHED}{second}")
    (tmp_path / "shards" / f"{shards.UNFINISHED}{second}" / "part.json").unlink()
    (tmp_path / "shards" / shards.LIST).unlink()
    with pytest.raises(TrainingError, match="insula prepare"):
        shards.Shards(tmp_path / "shards")
    done = shards.write(wanted, tmp_path / "shards")
    assert [one.fresh for one in done.parts] == [False, True]
    assert files(tmp_path / "shards") == before


def test_a_killed_run_is_gone_on_with_and_ends_as_an_undisturbed_one(write_ecg, tmp_path):
    for number in range(6):
        write_ecg(tmp_path / "ecg" / f"{number}", people=3, each=1, seconds=40, seed=number)
    command = [
        sys.executable,
        "-m",
        "insula",
        "prepare",
        "ecg_npz",
        str(tmp_path / "ecg"),
        "--jobs",
        "1",
        "--every",
        "1",
    ]
    with subprocess.Popen([*command, "--to", str(tmp_path / "shards")], cwd=ROOT, stdout=subprocess.DEVNULL) as run:
        limit = time.monotonic() + 120
        while len(list(tmp_path.glob("shards/*/part.json"))) < 2:
            assert run.poll() is None
            assert time.monotonic() < limit
            time.sleep(0.01)
        run.send_signal(signal.SIGKILL)
    there = len(list(tmp_path.glob("shards/[!.]*/part.json")))
    assert there < 6, "the run was over before it was killed"
    wanted = shards.plan("ecg_npz", tmp_path / "ecg", every=1.0)
    done = shards.write(wanted, tmp_path / "shards")
    assert sum(not one.fresh for one in done.parts) == there
    shards.write(wanted, tmp_path / "undisturbed")
    assert files(tmp_path / "shards") == files(tmp_path / "undisturbed")


def test_a_full_disk_is_one_line_and_what_is_done_stays(write_ecg, tmp_path):
    write_ecg(tmp_path / "ecg" / "a", people=1, each=1, seconds=20)
    write_ecg(tmp_path / "ecg" / "b", people=30, each=1, seconds=20)
    command = [*PREPARE, str(tmp_path / "ecg"), "--jobs", "1"]

    def small_disk():
        resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, 300_000))
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)

    done = subprocess.run(
        [*command, "--to", str(tmp_path / "shards")],
        cwd=ROOT, capture_output=True, text=True, check=False, preexec_fn=small_disk, timeout=170,

    )  # fmt: skip
    assert done.returncode == 2, done.stderr
    assert done.stderr.count("\n") == 1
    assert "1 of 2 parts are done and kept" in done.stderr
    assert not list((tmp_path / "shards").glob(f"{shards.UNFINISHED}*"))
    again = shards.write(shards.plan("ecg_npz", tmp_path / "ecg"), tmp_path / "shards")
    assert [one.fresh for one in again.parts] == [False, True]


def test_a_corrupt_file_among_good_ones_is_named_and_the_others_are_prepared(write_ecg, tmp_path):
    for number in range(3):
        write_ecg(tmp_path / "ecg" / f"{number}", people=2, each=1, seconds=20, seed=number)
    (broken,) = (tmp_path / "ecg" / "1").iterdir()
    broken.write_bytes(broken.read_bytes()[:2000])
    done = shards.write(shards.plan("ecg_npz", tmp_path / "ecg"), tmp_path / "shards")
    assert [bool(one.failed) for one in done.parts] == [False, True, False]
    (skipped,) = done.skipped
    assert "1/" in skipped.where
    assert "\n" not in skipped.why
    assert len(shards.Shards(tmp_path / "shards").people) == 4
    assert json.loads((tmp_path / "shards" / shards.LIST).read_text())["skipped"] == [[skipped.where, skipped.why]]


def test_when_nothing_can_be_used_the_first_reason_is_said(write_ecg, tmp_path):
    write_ecg(tmp_path / "ecg", people=1, each=1, seconds=20)
    (broken,) = (tmp_path / "ecg").iterdir()
    broken.write_bytes(b"nothing of the kind")
    with pytest.raises(TrainingError, match=r"none of 1 parts .* cannot be read"):
        shards.write(shards.plan("ecg_npz", tmp_path / "ecg"), tmp_path / "shards")
    assert not (tmp_path / "shards" / shards.LIST).exists()


def test_windows_without_signal_are_left_out_and_counted(tmp_path):
    signal_ = np.random.default_rng(0).integers(-500, 500, (1, 130 * 40)).astype(np.int16)
    signal_[0, 130 * 18 :] = 7
    np.savez(tmp_path / "ecg.npz", data=signal_, names=np.array(["a"]), fs=130)
    done = shards.write(shards.plan("ecg_npz", tmp_path, seconds=5, every=5), tmp_path / "shards")
    assert (done.windows, done.left_out) == (4, 3)
    assert shards.Shards(tmp_path / "shards").column("t_end").tolist() == [5, 10, 15, 20]


def test_labelled_windows_from_disk_are_those_prepared_in_memory(write_archive, tmp_path):
    write_archive(tmp_path, people=2, rest=100, load=30)
    shards.write(shards.plan("eegmat", tmp_path), tmp_path / "shards", jobs=2)
    stored = shards.Shards(tmp_path / "shards")
    fresh = prepare(eegmat.everyone(tmp_path), DEFAULT_SPEC, DEFAULT_GATE, eegmat.TARGET)
    assert stored.targets == eegmat.TARGETS
    again = stored.prepared(DEFAULT_GATE, eegmat.TARGET)
    assert np.array_equal(again.signals["eeg"], fresh.signals["eeg"])
    assert np.array_equal(again.trained, fresh.trained)
    assert again.baseline.sum() == 2 * 51


def test_labelled_windows_that_do_not_fit_into_memory_are_the_same_from_a_file_that_leaves_nothing(
    write_archive, tmp_path, monkeypatch
):
    write_archive(tmp_path, people=1, rest=80, load=20)
    shards.write(shards.plan("eegmat", tmp_path), tmp_path / "shards")
    stored = shards.Shards(tmp_path / "shards")
    before = files(tmp_path)
    small = stored.prepared(DEFAULT_GATE, eegmat.TARGET)
    monkeypatch.setattr(shards, "IN_MEMORY", 1000)
    large = stored.prepared(DEFAULT_GATE, eegmat.TARGET)
    assert isinstance(large.signals["eeg"], np.memmap)
    assert np.array_equal(large.signals["eeg"], small.signals["eeg"])
    assert torch.from_numpy(large.signals["eeg"][np.array([3, 1])]).shape == (2, 19, 2000)
    assert files(tmp_path) == before


def test_shards_may_be_handed_to_other_processes(write_ecg, tmp_path):
    write_ecg(tmp_path / "ecg", people=2, each=1, seconds=20)
    shards.write(shards.plan("ecg_npz", tmp_path / "ecg"), tmp_path / "shards")
    stored = shards.Shards(tmp_path / "shards")
    rows = np.array([1, 0])
    assert np.array_equal(pickle.loads(pickle.dumps(stored)).signals("ecg", rows), stored.signals("ecg", rows))


@pytest.mark.parametrize(("file", "damage"), [("ecg.npy", 100), ("columns.npz", 30), ("part.json", 5), ("ecg.npy", 0)])
def test_a_damaged_part_is_one_line_that_names_it(write_ecg, tmp_path, file, damage):
    write_ecg(tmp_path / "ecg", people=2, each=1, seconds=20)
    shards.write(shards.plan("ecg_npz", tmp_path / "ecg"), tmp_path / "shards")
    (part,) = shards.Shards(tmp_path / "shards").parts
    path = tmp_path / "shards" / part / file
    path.write_bytes(path.read_bytes()[: damage and -damage])

    def read_all():
        shards.Shards(tmp_path / "shards").column("t_end")
        shards.Shards(tmp_path / "shards").signals("ecg", np.array([0]))

    with pytest.raises(TrainingError, match=part) as caught:
        read_all()
    assert "\n" not in str(caught.value)


def test_windows_of_a_headset_have_its_own_channels(write_archive, tmp_path):
    write_archive(tmp_path, people=1, rest=70, load=20)
    wanted = shards.plan("eegmat", tmp_path, channels=["T8", "T7", "Fp2", "Fp1"])
    assert wanted.spec.inputs[0].channels == ("FP1", "FP2", "T3", "T4")
    shards.write(wanted, tmp_path / "shards")
    stored = shards.Shards(tmp_path / "shards")
    whole = prepare(eegmat.everyone(tmp_path), DEFAULT_SPEC, DEFAULT_GATE, eegmat.TARGET)
    order = [DEFAULT_SPEC.inputs[0].channels.index(name) for name in wanted.spec.inputs[0].channels]
    own = stored.prepared(DEFAULT_GATE, eegmat.TARGET)
    assert np.array_equal(own.signals["eeg"], whole.signals["eeg"][:, order])
    with pytest.raises(TrainingError, match="no channel"):
        shards.plan("eegmat", tmp_path, channels=["AUX"])


def test_targets_that_the_folder_defines_are_those_of_its_windows(tmp_path):
    (tmp_path / "labels.toml").write_text(
        '[targets.effort]\nkind = "continuous"\nrange = [1, 9]\nmeaning = "1: none"\nrated = true\n[phases.task]\n'
    )
    wanted = shards.plan("sessions", tmp_path)
    assert [target.name for target in wanted.targets] == ["effort"]
    assert wanted.spec.hop == 1.0


def test_a_folder_of_another_data_set_is_not_written_over(write_ecg, write_archive, tmp_path):
    write_ecg(tmp_path / "ecg", people=1, each=1, seconds=20)
    write_archive(tmp_path / "eegmat", people=1, rest=70, load=20)
    shards.write(shards.plan("ecg_npz", tmp_path / "ecg"), tmp_path / "shards")
    before = files(tmp_path / "shards")
    with pytest.raises(TrainingError, match="another folder"):
        shards.write(shards.plan("eegmat", tmp_path / "eegmat"), tmp_path / "shards")
    assert files(tmp_path / "shards") == before


@pytest.mark.parametrize("wrong", [{"seconds": 1.0}, {"seconds": 7.5}, {"every": 0.0}, {"kinds": ("eeg",)}])
def test_windows_that_cannot_be_cut_are_refused_before_anything_is_read(wrong):
    with pytest.raises(TrainingError):
        shards.plan("ecg_npz", Path("/nowhere"), **wrong)

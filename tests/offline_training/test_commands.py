"""insula prepare and insula pretrain as a user meets them: real processes, real files, real faults."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def insula(*arguments, status=0):
    """Run a command to its end; what it said, on the error output where it is refused."""
    done = subprocess.run(
        [sys.executable, "-m", "insula", *map(str, arguments)],
        cwd=ROOT, capture_output=True, text=True, check=False, timeout=170,
    )  # fmt: skip
    assert done.returncode == status, done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    return done.stderr if status == 2 else done.stdout


def refusal(*arguments):
    said = insula(*arguments, status=2)
    assert said.count("\n") == 1, said
    return said


@pytest.fixture(scope="module")
def shards(tmp_path_factory, write_ecg):
    """Prepared by the command, with a corrupt file among good ones; and what it said."""
    folder = tmp_path_factory.mktemp("commands")
    for number in range(3):
        write_ecg(folder / "raw" / f"{number}", people=2, each=2, seconds=20, seed=number)
    broken = folder / "raw" / "1" / "ecg.npz"
    broken.write_bytes(broken.read_bytes()[:1000])
    said = insula("prepare", "ecg_npz", folder / "raw", "--to", folder / "shards", "--seconds", "4", "--jobs", "2")
    return folder, said


def test_prepare_says_what_there_is_and_what_was_left_out_and_why(shards):
    folder, said = shards
    assert "64 of 4 s" in said
    assert "4 people, 2 parts" in said
    assert "skipped     1" in said
    assert "1/ecg.npz" in said
    assert "cannot be read" in said
    assert json.loads((folder / "shards" / "shards.json").read_text())["windows"] == 64


def test_prepare_run_again_says_what_it_kept(shards):
    folder, _ = shards
    said = insula("prepare", "ecg_npz", folder / "raw", "--to", folder / "shards", "--seconds", "4", "--jobs", "1")
    assert "kept        2 parts" in said


def test_pretrain_trains_says_how_well_and_is_not_done_twice(shards):
    folder, _ = shards
    command = [
        "pretrain",
        "ecg",
        folder / "shards",
        "--to",
        folder / "encoder",
        "--steps",
        "2",
        "--batch",
        "8",
        "--cpu",
    ]
    said = insula(*command)
    assert "held out    loss" in said
    card = json.loads((folder / "encoder" / "encoder.json").read_text())
    assert len(card["people"]) == 3
    assert card["settings"]["batch"] == 8
    before = (folder / "encoder" / "encoder.safetensors").read_bytes()
    assert "trained     2 steps" in insula(*command)
    assert (folder / "encoder" / "encoder.safetensors").read_bytes() == before
    assert "other data or settings" in refusal(*command, "--seed", "1")


def test_a_data_set_that_is_not_known_is_answered_with_those_that_are(tmp_path):
    said = refusal("prepare", "deap", tmp_path, "--to", tmp_path / "out")
    assert "eegmat" in said
    assert "ecg_npz" in said
    assert not (tmp_path / "out").exists()


def test_a_folder_without_data_is_one_line(tmp_path):
    assert str(tmp_path) in refusal("prepare", "ecg_npz", tmp_path, "--to", tmp_path / "out")


@pytest.mark.parametrize(
    ("options", "said"),
    [(["--jobs", "0"], "whole number"), (["--seconds", "0.5"], "at least 2"), (["--kind", "eeg"], "has no eeg")],
)
def test_windows_that_cannot_be_cut_are_refused_in_one_line(tmp_path, options, said):
    assert said in refusal("prepare", "ecg_npz", tmp_path, "--to", tmp_path / "out", *options)


def test_pretrain_of_unfinished_shards_says_what_to_run(tmp_path):
    assert "insula prepare" in refusal("pretrain", "ecg", tmp_path, "--to", tmp_path / "out")


def test_without_the_train_extra_pretrain_says_what_to_install(tmp_path):
    # None in sys.modules is how Python itself marks a module that must not be found.
    code = (
        "import sys; sys.modules.update(dict.fromkeys(('accelerate', 'matplotlib'))); "
        "from insula import main; sys.exit(main(sys.argv[1:]))"
    )
    command = [sys.executable, "-c", code, "pretrain", "ecg", str(tmp_path), "--to", str(tmp_path / "out")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert 'needs accelerate, matplotlib; run: pip install ".[train]"' in done.stderr
    assert done.stderr.count("\n") == 1


def test_the_commands_cost_nothing_before_they_run():
    code = (
        "import sys, argparse; from offline_training.commands import add; "
        "add(argparse.ArgumentParser().add_subparsers()); "
        "print([name for name in ('numpy', 'torch', 'mne', 'rich', 'accelerate') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"

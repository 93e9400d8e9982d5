"""The whole way: recordings in, a bundle out that runs live and says what was measured."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import special

from models.bundle import load_bundle
from models.model import Model
from models.runtimes import load_runtime
from offline_training import crossvalidate, default_bundle, recipe, shards
from offline_training.api import TrainingError
from offline_training.crossvalidate import Plan, calibrations, cross_validate
from offline_training.datasets import eegmat
from offline_training.datasets.eegmat import TARGET
from offline_training.finetune import Settings, draw, embed, logits, train
from offline_training.prepare import DEFAULT_GATE, DEFAULT_SPEC, prepare
from offline_training.report import demonstration
from offline_training.splits import grouped_folds, without
from realtime.windows import iter_windows

TINY = Settings(layers=1, ffn=40, steps=3, people_per_step=2, baseline_windows=3, class_windows=2)


@pytest.fixture(scope="module")
def built(tmp_path_factory, write_archive):
    """A bundle of four made-up people; 03 is held out of its training."""
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("built")
    write_archive(folder / "eegmat", people=4, rest=110, load=40)
    bundle, figures = recipe.build(folder, folder / "bundle", settings=TINY, folds=2, held_out="03")
    return folder, bundle, figures


def test_the_bundle_opens_and_says_what_was_measured_and_what_it_is_not(built):
    folder, bundle, figures = built
    manifest = load_bundle(folder / "bundle").manifest
    assert [target.name for target in manifest.targets] == ["arousal"]
    assert manifest.window.hop == 1.0
    assert manifest.training["excluded"] == ["03"]
    assert "03" not in manifest.training["people"]
    assert manifest.training["data"]["sha256"] == eegmat.digest(folder)
    value = manifest.metrics["scores"]["fused"]["balanced_accuracy"]["value"]
    assert f"balanced accuracy {value:.2f} [" in manifest.accuracy
    assert "4 people" in manifest.accuracy
    assert "valence is not estimated" in manifest.limits
    assert json.loads(json.dumps(figures))["bundle"] == bundle.hash
    card = (folder / "bundle" / "README.md").read_text(encoding="utf-8")
    for wanted in (
        "ODC-By 1.0",
        manifest.accuracy,
        "classical, both",
        "shuffled labels",
        "Not a medical",
        "rest always",
    ):
        assert wanted.lower() in card.lower()


def test_the_card_says_how_the_person_held_out_fares_beside_the_others_and_what_the_samples_were(built):
    folder, bundle, _ = built
    people = bundle.manifest.metrics["per_person"]
    own = people["03"]["balanced_accuracy"]
    usual = np.median([row["balanced_accuracy"] for row in people.values()])
    card = (folder / "bundle" / "README.md").read_text(encoding="utf-8")
    assert (
        f"03's own balanced accuracy in cross-validation is {own:.2f}; the median of all 4 people is {usual:.2f}"
        in card
    )
    assert "128 Hz" in card
    assert "int16" in card
    assert "500 Hz" in card
    assert "settings were compared by cross-validation over everyone, 03 included" in card


@pytest.mark.parametrize(("own", "chance"), [(0.5, True), (0.9, False)])
def test_a_person_at_chance_is_called_so_on_the_card(built, own, chance):
    manifest = built[1].manifest
    people = {who: {**row, "balanced_accuracy": 0.9} for who, row in manifest.metrics["per_person"].items()}
    people["03"]["balanced_accuracy"] = own
    held = {"person": "03", "rest_last_minute": 0.02, "mental_arithmetic": 0.19}
    text = demonstration(replace(manifest, metrics={"per_person": people, "held_out_person": held}))
    assert ("at chance at the threshold 0.5, although the mean arousal rises" in text) == chance
    assert "median of all 4 people is 0.90" in text


def test_the_labels_of_the_person_held_out_do_not_touch_the_calibration_that_ships(built):
    folder, bundle, _ = built
    prepared = prepare(eegmat.everyone(folder), DEFAULT_SPEC, DEFAULT_GATE, TARGET)
    folds = without(grouped_folds(prepared.people, 2, recipe.SEED), "03")

    def calibrated_with_labels_turned_of(who):
        label = np.where(prepared.person == who, 1 - prepared.label, prepared.label)
        turned = replace(prepared, label=label)
        outcome = cross_validate(turned, folds, Plan(settings=TINY, seed=recipe.SEED, compared=()))
        assert sorted(set(outcome.person)) == ["00", "01", "02"]
        return calibrations(outcome)

    assert calibrated_with_labels_turned_of("03") == bundle.manifest.calibration
    touched = calibrated_with_labels_turned_of("02")
    assert all(touched[name] != shipped for name, shipped in bundle.manifest.calibration.items())


def test_what_was_put_into_the_signals_is_learned_and_shuffled_labels_are_not(built):
    scores = built[2]["scores"]
    assert scores["fused"]["auroc"]["value"] > 0.9
    assert scores["EEG only"]["auroc"]["value"] > 0.8
    assert scores["ECG only"]["auroc"]["value"] > 0.7
    assert scores["classical, both"]["auroc"]["value"] > 0.9
    assert scores["majority"]["balanced_accuracy"]["value"] == 0.5
    assert scores["classical, shuffled labels"]["auroc"]["value"] < scores["fused"]["auroc"]["value"]


def test_estimates_of_the_bundle_are_those_of_the_network_that_was_trained(built):
    folder, bundle, figures = built
    recordings = [one for one in eegmat.everyone(folder) if one.person == "03"]
    model = Model(bundle, load_runtime("ort", bundle))
    live = {}
    for recording in recordings:
        for window in iter_windows(recording.chunks, bundle.manifest.window, recording.streams):
            live[window.t_end] = model.update(window)
    prepared = prepare(eegmat.everyone(folder), DEFAULT_SPEC, DEFAULT_GATE, TARGET)
    start = draw(prepared, TINY, recipe.SEED)
    trained = train(prepared, np.flatnonzero(prepared.person != "03"), TINY, start)
    rows = np.flatnonzero(prepared.person == "03")
    raw, used = logits(trained, prepared, rows, embed(trained.network, prepared, rows), (True, True))
    assert used.all()
    calibration = bundle.manifest.calibration["eeg+ecg"]["arousal"]
    expected = special.expit(raw / calibration.temperature + calibration.bias)
    compared = 0
    for row, value in zip(rows, expected, strict=True):
        estimate = live[float(prepared.t_end[row])]
        if prepared.baseline[row]:
            assert estimate.withheld is not None
            continue
        assert estimate.used == ("eeg", "ecg")
        assert estimate.mean[0] == pytest.approx(value, abs=1e-4)
        compared += 1
    assert compared > 20
    held = figures["held_out_person"]
    assert held["mental_arithmetic"] > held["rest_last_minute"]


def test_finished_folds_and_windows_are_taken_from_the_cache(built, tmp_path, monkeypatch):
    folder = built[0]
    settings = replace(TINY, steps=0)

    def measure():
        prepared = recipe.windows(folder, tmp_path, "digest", ["00", "01", "02"])
        folds = grouped_folds(prepared.people, 3, seed=0)
        return cross_validate(prepared, folds, Plan(settings=settings, compared=recipe.COMPARED), tmp_path / "folds")

    first = measure()
    assert len(list((tmp_path / "folds").iterdir())) == 3

    def must_not_be_called(*arguments):
        raise AssertionError("worked again")

    monkeypatch.setattr(shards, "cut", must_not_be_called)
    monkeypatch.setattr(crossvalidate, "train", must_not_be_called)
    second = measure()
    assert first.raw.keys() == second.raw.keys()
    for name, value in first.raw.items():
        assert np.isfinite(value).all()
        assert np.array_equal(value, second.raw[name])


def test_a_person_without_both_classes_cannot_be_trained_on(built):
    folder = built[0]
    prepared = prepare(
        (one for one in eegmat.everyone(folder) if one.person != "00" or one.rest),
        DEFAULT_SPEC,
        DEFAULT_GATE,
        TARGET,
    )
    with pytest.raises(TrainingError, match=r"person 00: .* 0 of class 1"):
        train(prepared, np.arange(len(prepared.label)), TINY, draw(prepared, TINY, 0))


def test_the_command_without_data_says_so_in_one_line_and_exits_with_2(tmp_path, capsys):
    assert default_bundle.main(["--data", str(tmp_path), "--out", str(tmp_path / "out")]) == 2
    captured = capsys.readouterr()
    assert captured.err.count("\n") == 1
    assert "eegmat" in captured.err
    assert not (tmp_path / "out").exists()


def test_a_data_folder_that_does_not_exist_is_one_line_and_2(tmp_path, capsys):
    assert default_bundle.main(["--data", str(tmp_path / "nowhere"), "--out", str(tmp_path / "out")]) == 2
    captured = capsys.readouterr()
    assert captured.err.count("\n") == 1
    assert "nowhere" in captured.err


def test_without_the_train_extra_the_command_says_what_to_install_and_exits_with_2(tmp_path):
    # None in sys.modules is how Python itself marks a module that must not be found.
    code = (
        "import sys; sys.modules.update(dict.fromkeys(('torch', 'onnx', 'sklearn'))); "
        "from offline_training.default_bundle import main; sys.exit(main(sys.argv[1:]))"
    )
    command = [sys.executable, "-c", code, "--data", str(tmp_path), "--out", str(tmp_path / "out")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert done.stderr == 'training needs torch, onnx, sklearn; install them with: pip install ".[train]"\n'


def test_the_help_says_what_the_file_holds(tmp_path, write_archive, capsys):
    write_archive(tmp_path, people=1, rest=20, load=20)
    with pytest.raises(SystemExit) as stopped:
        default_bundle.main(["--help"])
    assert stopped.value.code == 0
    told = capsys.readouterr().out
    assert f"eegmat/{eegmat.FILE}" in told
    with np.load(tmp_path / eegmat.FILE) as archive:
        for name in archive.files:
            assert re.sub(r"\d\d", "NN", name) in told
            assert str(archive[name].dtype).replace("<U5", "str") in told
    for wanted in ("last ECG", "0.1", "128", "PhysioNet"):
        assert wanted in told

"""A bundle for one person: from the recording that ships, through the model that ships."""

from __future__ import annotations

import shutil

import numpy as np
import pytest

from insula import demo_recording, main
from models.bundle import BinaryCalibration, ContinuousCalibration, OrdinalCalibration, Target, default_bundle_folder
from models.bundle import load_bundle as load
from models.runtimes import load_runtime
from offline_training import evaluate, personal

REST = """
rest = "rest"
stops = ["mental arithmetic"]
[targets.arousal]
kind = "binary"
range = [0, 1]
meaning = "0: as at rest, 1: as in mental arithmetic"
[phases.rest]
arousal = 0
"""
BOTH = REST.replace('stops = ["mental arithmetic"]\n', "") + '[phases."mental arithmetic"]\narousal = 1\n'


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    """The recording that ships, as of P05; its two phases labelled."""
    folder = tmp_path_factory.mktemp("recorded")
    shutil.copy(demo_recording(), folder / "sub-P05_eeg.xdf")
    (folder / "labels.toml").write_text(BOTH)
    (folder / "rest.toml").write_text(REST)
    return folder / "sub-P05_eeg.xdf"


def one_line(capsys) -> str:
    told = capsys.readouterr().err
    assert told.count("\n") == 1
    return told


def test_a_labelled_block_gives_a_bundle_of_that_person_with_a_figure_of_its_own(recorded, tmp_path, capsys):
    assert main(["calibrate", str(recorded), "--to", str(tmp_path / "own")]) == 0
    assert "balanced accuracy" in capsys.readouterr().out
    general, own = load(default_bundle_folder()), load(tmp_path / "own")
    assert own.manifest.name == "insula-arousal-P05"
    assert own.manifest.accuracy.startswith("of P05 only, in 4 blocks of time")
    assert "for nobody else" in own.manifest.limits
    measured = own.manifest.metrics["personal"]["measured"]["arousal"]
    assert measured["after"]["balanced_accuracy"] > measured["before"]["balanced_accuracy"]
    assert own.manifest.training["personal"]["recordings"].keys() == {"sub-P05_eeg.xdf"}
    # The network is the same; what differs is the last step.
    assert {name: own.files[name] for name in own.files} == {name: general.files[name] for name in own.files}
    assert own.manifest.rest == general.manifest.rest
    assert own.manifest.calibration["eeg+ecg"] != general.manifest.calibration["eeg+ecg"]
    assert load_runtime("ort", own)
    assert "for nobody else" in (tmp_path / "own" / "README.md").read_text(encoding="utf-8")


def test_rest_alone_gives_the_spread_at_rest_and_claims_no_accuracy(recorded, tmp_path, capsys):
    labels = recorded.parent / "rest.toml"
    assert main(["calibrate", str(recorded), "--to", str(tmp_path / "own"), "--labels", str(labels)]) == 0
    assert "was not measured, as only rest was recorded" in capsys.readouterr().out
    general, own = load(default_bundle_folder()), load(tmp_path / "own")
    assert own.manifest.calibration == general.manifest.calibration
    assert own.manifest.rest.pooled_sd != general.manifest.rest.pooled_sd
    floor = general.manifest.rest.floor * np.array(general.manifest.rest.pooled_sd)
    assert (np.array(own.manifest.rest.pooled_sd) >= floor * (1 - 1e-9)).all()
    assert "was not measured" in own.manifest.accuracy
    assert "measured" not in own.manifest.metrics["personal"]


@pytest.mark.parametrize(
    ("labels", "told"),
    [
        (BOTH.replace('"mental arithmetic"]', '"film"]'), None),
        (BOTH.replace('kind = "binary"', 'kind = "continuous"'), "the labels make it continuous"),
        (REST.replace('rest = "rest"', 'rest = "quiet"').replace("phases.rest", "phases.quiet"), "no window after"),
    ],
)
def test_labels_that_do_not_fit_are_one_line(recorded, tmp_path, capsys, labels, told):
    (tmp_path / "labels.toml").write_text(labels)
    command = ["calibrate", str(recorded), "--to", str(tmp_path / "own"), "--labels", str(tmp_path / "labels.toml")]
    if told is None:  # only rest is left of it
        assert main(command) == 0
        return
    assert main(command) == 2
    assert told in one_line(capsys)
    assert not (tmp_path / "own").exists()


def test_too_little_is_refused_with_what_there_is(recorded, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(personal, "LEAST_SECONDS", 60.0)  # the arithmetic lasts about a minute: 50 windows
    assert main(["calibrate", str(recorded), "--to", str(tmp_path / "own")]) == 2
    told = one_line(capsys)
    assert "P05: too little to calibrate arousal" in told
    assert "s of 1 that can be used; at least 60 s" in told
    assert not (tmp_path / "own").exists()


def test_two_people_and_the_bundle_itself_are_refused(recorded, tmp_path, capsys):
    other = tmp_path / "sub-P06_eeg.xdf"
    shutil.copy(recorded, other)
    labels = recorded.parent / "labels.toml"
    own = ["--to", str(tmp_path / "own"), "--labels", str(labels)]
    assert main(["calibrate", str(recorded), str(other), *own]) == 2
    assert "P05 and P06; a personal bundle is of one person" in one_line(capsys)
    assert main(["calibrate", str(recorded), "--to", str(default_bundle_folder())]) == 2
    assert "is the bundle itself" in one_line(capsys)
    assert main(["calibrate", str(tmp_path / "none.xdf"), *own]) == 2
    assert "no such recording" in one_line(capsys)


def block_of(value, logit):
    """As if one window a second had been heard in one session."""
    n = len(value)
    return personal.Block(
        person="P01",
        t_end=np.arange(n) + 70.0,
        session=np.zeros(n, int),
        rest=np.zeros(n, bool),
        used=["eeg"] * n,
        logit={"eeg": logit[:, None]},
        embedding=np.zeros((n, 1)),
        told={"it": value},
        withheld=0,
        skipped=(),
        sha256={},
    )


def test_blocks_of_time_are_whole_and_nothing_that_overlaps_a_block_is_fitted_on():
    value = np.repeat([0.0, 1.0], 80)
    block = block_of(value, np.zeros(160))
    blocks = personal._blocks(block, value)
    assert [np.flatnonzero(blocks == number).tolist() for number in (0, 3)] == [
        [*range(20), *range(80, 100)],
        [*range(60, 80), *range(140, 160)],
    ]
    ends = [block.t_end[blocks == 1]]
    near = personal._overlapping(block, ends, 10.0)
    assert np.flatnonzero(near).tolist() == [*range(11, 49), *range(91, 129)]


@pytest.mark.parametrize("kind", ["binary", "ordinal", "continuous"])
def test_a_person_whose_estimates_lie_too_high_is_met(kind):
    random = np.random.default_rng(2)
    value = np.repeat([1.0, 5.0, 1.0, 5.0], 60)
    logit = 1.5 * np.sign(value - 3.0) + 3.0 + random.normal(0, 0.7, len(value))
    levels = (1.0, 3.0, 5.0) if kind == "ordinal" else ()
    target = Target(name="it", kind=kind, range=(1.0, 5.0), levels=levels, meaning="")
    shipped = {
        "binary": BinaryCalibration(temperature=1.0, bias=0.0, logit_sd=0.5),
        "ordinal": OrdinalCalibration(temperature=1.0, thresholds=(-0.5, 0.5), logit_sd=0.5),
        "continuous": ContinuousCalibration(slope=1.0, intercept=3.0, sd=1.0),
    }[kind]
    block = block_of(value, logit)
    fitted = personal._fit(target, shipped, logit, value, personal._blocks(block, value))
    before, after = (evaluate.estimate(target, one, logit)[0] for one in (shipped, fitted))
    assert np.abs(after - value).mean() < 0.75 * np.abs(before - value).mean()
    assert type(fitted) is type(shipped)

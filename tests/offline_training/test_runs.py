"""From prepared windows to a bundle: evaluated by person, trained with the same, exported only when both agree."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import asdict, fields, replace
from html.parser import HTMLParser

import numpy as np
import pytest
import safetensors.torch
import torch

from insula import main
from models.bundle import Target, load_bundle
from models.encoders import cbramod
from models.runtimes import load_runtime
from offline_training import crossvalidate, runs, shards
from offline_training.api import TrainingError
from offline_training.crossvalidate import Outcome, Plan
from offline_training.finetune import Settings, Trained, draw, pooled_spread, seen_from_rest
from offline_training.prepare import DEFAULT_SPEC, Columns, labelled
from offline_training.weights import Weights, fitted, refuse_seen, weights_asked

QUICK = Settings(layers=1, ffn=40, steps=0)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory, write_archive):
    """Shards of four made-up people."""
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("prepared")
    write_archive(folder / "eegmat", people=4, rest=110, load=40)
    shards.write(shards.plan("eegmat", folder), folder / "shards")
    return folder / "shards"


ASKED = ("--target", "arousal", "--quick", "--set", "layers=1", "--set", "ffn=40")


@pytest.fixture(scope="module")
def run(prepared, tmp_path_factory):
    """A run of the commands, 03 excluded."""
    folder = tmp_path_factory.mktemp("run") / "run"
    evaluate = ["evaluate", str(prepared), *ASKED, "--to", str(folder), "--folds", "2", "--exclude", "03"]
    assert main([*evaluate, "--only", "classical", "riemannian", "early", "majority", "shuffled"]) == 0
    assert main(["finetune", str(prepared), "--target", "arousal", "--to", str(folder)]) == 0
    return folder


def one_line(capsys) -> str:
    told = capsys.readouterr().err
    assert told.count("\n") == 1
    assert told.startswith("insula: ")
    return told


def test_an_evaluation_says_what_was_measured_beside_what_and_of_whom(run, prepared):
    said = json.loads((run / runs.EVALUATION).read_text())
    scores = said["metrics"]["scores"]
    assert scores["fused"]["auroc"]["value"] > 0.9
    assert scores["shuffled labels, fused"]["auroc"]["value"] < 0.8
    assert scores["majority"]["balanced_accuracy"]["value"] == 0.5
    rows = {"EEG only", "ECG only", "early fusion", "classical, both", "Riemannian tangent space, EEG"}
    assert rows < set(scores)
    for row in scores.values():
        for name in ("balanced_accuracy", "auroc", "macro_f1", "calibration_error"):
            assert row[name]["low"] <= row[name]["high"]
    assert set(said["metrics"]["per_person"]) == {"00", "01", "02", "03"}
    assert said["data"]["sha256"] == shards.Shards(prepared).digest
    assert said["people"] == ["00", "01", "02"]
    assert said["seed"] == 0
    assert said["settings"]["layers"] == 1


def test_what_was_put_into_the_signals_is_what_moves_the_estimate(run):
    moved = json.loads((run / runs.EVALUATION).read_text())["metrics"]["moved"]
    assert {"EEG embedding", "alpha power", "ECG embedding", "heart rate", "heart rhythm"} <= set(moved)
    assert max(moved, key=lambda name: moved[name]["value"]) in ("alpha power", "heart rate")


class Seen(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.fetched: list[str] = []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.fetched += [value for name, value in attrs if name in ("src", "href", "xlink:href") and value[:1] != "#"]


def test_the_report_is_whole_in_itself_and_follows_the_colours_of_the_reader(run):
    text = (run / runs.PAGE).read_text(encoding="utf-8")
    seen = Seen()
    seen.feed(text)
    assert seen.fetched == []
    assert not {"script", "link", "img", "iframe"} & set(seen.tags)
    assert not re.search(r"url\((?!#)|@import", text)
    assert seen.tags.count("figure") == 6
    assert "prefers-color-scheme: dark" in text
    assert "currentColor" in text
    assert "#010203" not in text
    ids = re.findall(r' id="([^"]+)"', text)
    assert len(ids) == len(set(ids))
    for wanted in ("ROC", "Reliability", "Each person", "What moved", "head penalty", "rest always came first", "03"):
        assert wanted.lower() in text.lower()


def test_the_bundle_of_a_run_opens_and_its_calibration_has_not_seen_who_was_excluded(run, prepared, tmp_path, capsys):
    assert main(["export", str(run), "--to", str(tmp_path / "bundle"), "--name", "mine", "--version", "2.0"]) == 0
    assert "balanced accuracy" in capsys.readouterr().out
    manifest = load_bundle(tmp_path / "bundle").manifest
    assert (manifest.name, manifest.version) == ("mine", "2.0")
    assert manifest.training["people"] == ["00", "01", "02"]
    assert manifest.training["excluded"] == ["03"]
    assert load_runtime("ort", load_bundle(tmp_path / "bundle"))
    target = runs.target_of(shards.Shards(prepared), "arousal")
    apart = Outcome.load(run / runs.APART, target)
    assert set(apart.person) == {"00", "01", "02"}
    assert manifest.calibration == crossvalidate.calibrations(apart)
    card = (tmp_path / "bundle" / "README.md").read_text(encoding="utf-8")
    assert "everyone but 03" in card
    assert "ODC-By" in card


def test_without_an_evaluation_or_a_network_there_is_no_bundle(run, tmp_path, capsys):
    for missing, command in ((runs.EVALUATION, "insula evaluate"), (runs.NETWORK, "insula finetune")):
        copy = tmp_path / missing
        shutil.copytree(run, copy, ignore=shutil.ignore_patterns("folds", missing))
        assert main(["export", str(copy), "--to", str(tmp_path / "bundle")]) == 2
        assert command in one_line(capsys)
    assert not (tmp_path / "bundle").exists()


def test_a_network_of_other_settings_than_the_evaluation_is_refused_by_name(run, prepared, tmp_path, capsys):
    copy = tmp_path / "run"
    shutil.copytree(run, copy)
    common = ["finetune", str(prepared), "--target", "arousal", "--to", str(copy)]
    assert main([*common, "--set", "head_penalty=0.5"]) == 2
    told = one_line(capsys)
    assert "settings: head_penalty is 0.03 in the evaluation and 0.5 in the network" in told
    assert main([*common, "--exclude", "02"]) == 2
    assert "people" in one_line(capsys)
    # A network that was trained so all the same, say in another folder, is refused when it is exported.
    said = json.loads((copy / runs.NETWORK).read_text())
    said["identity"]["data"] = "0" * 64
    (copy / runs.NETWORK).write_text(json.dumps(said))
    assert main(["export", str(copy), "--to", str(tmp_path / "bundle")]) == 2
    assert "data is" in one_line(capsys)


def test_finished_folds_survive_an_interruption(prepared, tmp_path, monkeypatch):
    plan = Plan(settings=QUICK, compared=("majority",))
    study = runs.study_of(prepared, "arousal", plan, folds=3)
    trained = []
    train = crossvalidate.train

    def fails_at_the_third(*arguments):
        trained.append(arguments)
        if len(trained) == 3:
            raise KeyboardInterrupt
        return train(*arguments)

    monkeypatch.setattr(crossvalidate, "train", fails_at_the_third)
    with pytest.raises(KeyboardInterrupt):
        runs.evaluate_study(study, tmp_path / "run")
    assert not (tmp_path / "run" / runs.EVALUATION).exists()
    interrupted = runs.evaluate_study(study, tmp_path / "run")
    assert len(trained) == 3 + 1
    monkeypatch.setattr(crossvalidate, "train", train)
    assert runs.evaluate_study(study, tmp_path / "other")["metrics"] == interrupted["metrics"]


def test_settings_are_chosen_without_the_people_they_are_scored_on(prepared):
    plan = Plan(settings=QUICK, grid={"head_penalty": (0.03, 1000.0)}, compared=())
    study = runs.study_of(prepared, "arousal", plan)
    outcome = crossvalidate.cross_validate(study.prepared, study.folds[:1], plan)
    assert [one["fold"] for one in outcome.chosen] == [0]
    assert len(outcome.chosen[0]["tried"]) == 2
    # Turning the labels of one person turns neither the choice nor the figures of the fold that scores this person.
    who = study.folds[0].test[0]
    turned = replace(
        study.prepared, label=np.where(study.prepared.person == who, 1 - study.prepared.label, study.prepared.label)
    )
    again = crossvalidate.cross_validate(turned, study.folds[:1], plan)
    assert again.chosen == outcome.chosen
    assert np.array_equal(again.raw["fused"], outcome.raw["fused"])


def test_one_recording_under_two_names_is_refused(prepared, tmp_path, capsys):
    copy = tmp_path / "shards"
    shutil.copytree(prepared, copy)
    parts = sorted(path for path in copy.iterdir() if path.is_dir())
    for name in ("eeg.npy", "ecg.npy", "columns.npz"):
        shutil.copy(parts[0] / name, parts[1] / name)
    assert main(["evaluate", str(copy), *ASKED, "--to", str(tmp_path / "run"), "--folds", "2"]) == 2
    told = one_line(capsys)
    assert "01 and 00 have the same EEG" in told
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (("--target", "valence"), "no target 'valence'; it has arousal"),
        (("--target", "arousal", "--set", "stepz=3"), "'stepz' is no setting; there are encoder, d_model"),
        (("--target", "arousal", "--set", "steps=-3"), "'-3' is not a whole number, 0 or more"),
        (("--target", "arousal", "--set", "heads=3"), "does not split into 3 heads"),
        (("--target", "arousal", "--encoder", "resnet"), "encoder 'resnet': there are cbramod, eegnet"),
        (("--target", "arousal", "--choose", "d_model=40,80"), "d_model: is of the network itself"),
        (("--target", "arousal", "--only", "svm"), "'svm' cannot be compared; there are random"),
        (("--target", "arousal", "--folds", "9"), "9 folds of 4 people"),
        (("--target", "arousal", "--exclude", "77"), "77: cannot be excluded"),
        (("--target", "arousal", "--eeg-weights", "nowhere"), "nowhere: no encoder.safetensors there"),
        (("--target", "arousal", "--ecg-weights", "official"), "no official weights of ecg"),
    ],
)
def test_what_cannot_be_evaluated_is_one_line(prepared, tmp_path, capsys, options, told):
    assert main(["evaluate", str(prepared), *options, "--to", str(tmp_path / "run")]) == 2
    assert told in one_line(capsys)
    assert not (tmp_path / "run").exists()


def test_official_weights_that_were_not_fetched_name_the_command(prepared, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("INSULA_HOME", str(tmp_path / "home"))
    command = ["finetune", str(prepared), "--target", "arousal", "--to", str(tmp_path / "run")]
    assert main([*command, "--eeg-weights", "official"]) == 2
    assert "insula models fetch cbramod" in one_line(capsys)


def test_people_without_a_class_or_a_baseline_are_left_out_by_name(prepared):
    whole = shards.Shards(prepared).prepared(runs.DEFAULT_GATE, runs.target_of(shards.Shards(prepared), "arousal"))
    poor = replace(
        whole,
        trained=whole.trained & ~((whole.person == "01") & (whole.label == 1)),
        baseline=whole.baseline & (whole.person != "02"),
    )
    kept, why = runs.usable_people(poor)
    assert kept.people == ["00", "03"]
    assert len(kept.signals["eeg"]) == len(kept.label)
    assert why == {
        "01": "has not both classes of arousal",
        "02": "has 0 windows of resting baseline, 3 are needed",
    }


def test_an_ordinal_target_is_scored_by_the_upper_half_and_by_ranks(prepared, tmp_path):
    target = Target(name="load", kind="ordinal", range=(1.0, 3.0), levels=(1.0, 2.0, 3.0), meaning="1: none, 3: much")
    whole = runs.study_of(prepared, "arousal", Plan(settings=QUICK, compared=("classical", "majority")), folds=2)
    # Rest has the two lower levels in turn: only the task can be told from it.
    label = np.where(whole.prepared.label == 1, 2, (whole.prepared.t_end // 20 % 2).astype(int))
    study = replace(whole, prepared=replace(whole.prepared, target=target, label=label, value=label + 1.0))
    said = runs.evaluate_study(study, tmp_path)
    scores = said["metrics"]["scores"]
    assert scores["fused"]["auroc"]["value"] > 0.9
    assert scores["fused"]["rank_correlation"]["value"] > 0.4
    assert scores["fused"]["absolute_error"]["value"] < scores["majority"]["absolute_error"]["value"]
    assert "upper half of the range" in said["protocol"]
    assert "rank correlation" in said["table"]
    assert "upper half" in (tmp_path / runs.PAGE).read_text(encoding="utf-8")


def test_official_weights_make_an_encoder_of_the_published_size_and_are_loaded_strictly(
    prepared, tmp_path, monkeypatch
):
    monkeypatch.setenv("INSULA_HOME", str(tmp_path))
    torch.manual_seed(3)
    state = cbramod.Encoder(cbramod.Config()).state_dict()
    place = tmp_path / "models" / "cbramod"
    place.mkdir(parents=True)
    safetensors.torch.save_file(state, place / "weights.safetensors")
    weights = weights_asked(eeg="official", ecg=None)
    whole = runs.study_of(prepared, "arousal", Plan(settings=QUICK)).prepared
    few = replace(
        whole,
        **{
            one.name: getattr(whole, one.name)[:2]
            for one in fields(whole)
            if isinstance(getattr(whole, one.name), np.ndarray)
        },
        signals={kind: values[:2] for kind, values in whole.signals.items()},
    )
    settings = fitted(QUICK, weights)
    start = draw(few, settings, 0, {kind: one.state for kind, one in weights.items()})
    assert start.network.config.eeg == cbramod.Config()
    assert start.network.config.ecg.d_model == QUICK.d_model
    for name, value in start.network.eeg_encoder.state_dict().items():
        assert torch.equal(value, state[name])
    assert np.isfinite(start.embedding).all()
    # As a run folder keeps settings, they are read again.
    said = json.loads(json.dumps(asdict(settings)))
    assert runs.settings_of(said, tmp_path) == settings


def write_weights(folder, people):
    """As `insula pretrain ecg` does, of weights as drawn."""
    folder.mkdir()
    config = cbramod.Config(d_model=40, layers=1, heads=4, ffn=40, dropout=0.0, position_kernel=(1, 3))
    torch.manual_seed(8)
    state = cbramod.Encoder(config).state_dict()
    (folder / "encoder.safetensors").write_bytes(safetensors.torch.save(state))
    card = {"kind": "ecg", "network": asdict(config), "people": people, "data": [{"data set": "eegmat", "sha256": "0"}]}
    (folder / "encoder.json").write_text(json.dumps(card))
    return state


def test_training_begins_with_pretrained_weights_and_says_so(prepared, tmp_path, capsys):
    state = write_weights(tmp_path / "weights", ["eegmat/90", "other/00"])
    to = tmp_path / "run"
    given = ["--ecg-weights", str(tmp_path / "weights" / "encoder.safetensors")]
    assert main(["finetune", str(prepared), *ASKED, "--to", str(to), *given]) == 0
    kept = safetensors.torch.load((to / runs.WEIGHTS).read_bytes())
    for name, value in state.items():  # with --quick the encoders stay as they are
        assert torch.equal(kept[f"ecg_encoder.{name}"], value)
    said = json.loads((to / runs.NETWORK).read_text())
    assert said["weights"]["ecg"]["data"] == [{"data set": "eegmat", "sha256": "0"}]
    assert said["weights"]["ecg"]["people"] == 2
    assert len(said["identity"]["weights"]["ecg"]) == 64


def test_with_weights_the_same_stands_beside_as_drawn_and_as_they_came(prepared, tmp_path):
    write_weights(tmp_path / "weights", ["other/00"])
    short = replace(QUICK, steps=1, people_per_step=2, baseline_windows=3, class_windows=2)
    weights = weights_asked(eeg=None, ecg=str(tmp_path / "weights"))
    plan = Plan(settings=short, weights=weights, compared=("random", "frozen", "early"))
    study = runs.study_of(prepared, "arousal", plan)
    raw = crossvalidate.cross_validate(study.prepared, study.folds[:1], study.plan).raw
    ecg = [raw[f"{before}ECG only"] for before in ("", "random encoders, ", "pre-trained encoders as they came, ")]
    assert not np.array_equal(ecg[1], ecg[2])
    assert not np.array_equal(ecg[0], ecg[2])
    assert np.isfinite(raw["early fusion"]).all()


def test_pretrained_weights_are_refused_when_they_have_seen_a_scored_person_or_do_not_say(prepared, tmp_path, capsys):
    for number, (people, told) in enumerate(
        ((["eegmat/02"], "pre-trained on recordings of 02 of eegmat"), ([], "names nobody"))
    ):
        write_weights(tmp_path / str(number), people)
        command = ["evaluate", str(prepared), *ASKED, "--to", str(tmp_path / "run"), "--folds", "2"]
        assert main([*command, "--ecg-weights", str(tmp_path / str(number))]) == 2
        assert told in one_line(capsys)
    assert main([*command, "--eeg-weights", str(tmp_path / "0")]) == 2
    assert "holds an encoder of ecg, not of eeg" in one_line(capsys)


def test_weights_that_have_seen_somebody_to_be_scored_are_refused():
    seen = Weights(None, {}, {}, frozenset({"eegmat/02", "other/01"}))
    refuse_seen({"eeg": seen}, "eegmat", ["00", "01"])
    with pytest.raises(TrainingError, match=r"pre-trained on recordings of 02 of eegmat, who are to be scored"):
        refuse_seen({"eeg": seen}, "eegmat", ["00", "02"])


def test_every_session_is_seen_from_its_own_rest_as_live(prepared):
    whole = runs.study_of(prepared, "arousal", Plan(settings=QUICK)).prepared
    assert len(set(whole.session.tolist())) == 4
    # As if every other window of 00 were of a second session.
    own = np.flatnonzero(whole.person == "00")
    session = whole.session.copy()
    session[own[::2]] = 9
    two = replace(whole, session=session)
    start = draw(two, QUICK, 0)
    rows = np.arange(len(two.label))
    spread = pooled_spread(start.network, start.embedding, two, rows)
    mean, _, allowed = seen_from_rest(Trained(start.network, spread, QUICK), start.embedding, two, rows)
    assert allowed[own].all()
    for number in (9, 0):
        mine = session == number
        assert mean[mine] == pytest.approx(
            np.tile(start.embedding[mine & two.baseline].mean(0), (mine.sum(), 1)), rel=1e-4, abs=1e-4
        )


def test_clips_that_all_begin_at_0_are_sessions_of_their_own():
    columns = Columns(
        t_end=np.array([10.0, 20.0, 10.0, 20.0, 10.0]),
        start=np.zeros(5),
        rest=np.ones(5, bool),
        person=np.array(["a", "a", "a", "a", "b"]),
        value={"arousal": np.full(5, np.nan)},
        present={kind: np.ones(5) for kind in ("eeg", "ecg")},
        score={"eeg": np.ones((5, 19)), "ecg": np.ones((5, 1))},
    )
    target = Target(name="arousal", kind="binary", range=(0.0, 1.0), meaning="")

    def read(kind, rows):
        return np.zeros((len(rows), 19 if kind == "eeg" else 1, 2000), np.float32)

    found = labelled(read, columns, DEFAULT_SPEC, runs.DEFAULT_GATE, target, (2.0, 5.0))
    assert found.session.tolist() == [0, 0, 1, 1, 2]

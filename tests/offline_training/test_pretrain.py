"""Pre-training: exactly resumed, the same on several processes, and something is learnt of people held out."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from models.api import ModelError
from models.masking import MaskConfig
from offline_training import pretrain, shards
from offline_training.api import TrainingError
from offline_training.finetune import Settings as Downstream
from offline_training.pretrain import Order, Settings, gather

ROOT = Path(__file__).resolve().parents[2]
SHORT = Settings(steps=6, batch=8, seed=3, rate=5e-4)


@pytest.fixture(scope="module")
def ecg(tmp_path_factory, write_ecg):
    """Shards of one lead: eight people."""
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("ecg")
    write_ecg(folder / "raw", people=8, each=2, seconds=30)
    shards.write(shards.plan("ecg_npz", folder / "raw", seconds=4), folder / "shards")
    return folder / "shards"


@pytest.fixture(scope="module")
def eeg(tmp_path_factory, write_archive):
    folder = tmp_path_factory.mktemp("eeg")
    write_archive(folder / "raw", people=3, rest=20, load=10)
    shards.write(shards.plan("eegmat", folder / "raw", kinds=("eeg",), seconds=4), folder / "shards")
    return folder / "shards"


def train(kind, folder, to, settings=SHORT, **more):
    return pretrain.pretrain(gather(kind, [folder], settings), to, settings, cpu=True, **more)


def test_a_run_that_was_stopped_goes_on_as_if_it_had_not_been(ecg, tmp_path):
    settings = replace(SHORT, size="medium", steps=7)
    whole = train("ecg", ecg, tmp_path / "whole", settings)
    for steps in (2, 3):
        asked = iter(range(1, steps + 1))
        with pytest.raises(KeyboardInterrupt):
            train("ecg", ecg, tmp_path / "parts", settings, stopped=lambda asked=asked, last=steps: next(asked) == last)
    parts = train("ecg", ecg, tmp_path / "parts", settings)
    assert len(whole.losses) == 7
    assert parts.losses == whole.losses
    assert [(one.step, one.loss) for one in parts.looks] == [(one.step, one.loss) for one in whole.looks]
    for name in (pretrain.WEIGHTS, pretrain.LOSSES):
        assert (tmp_path / "parts" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_a_killed_run_goes_on_from_its_checkpoint_to_the_same_weights(ecg, tmp_path):
    script = (
        "import sys; from pathlib import Path; from offline_training import pretrain as p;"
        f"s = p.Settings(steps=2000, batch=8, seed=3, rate=5e-4); c = p.gather('ecg', [Path({str(ecg)!r})], s);"
        "p.pretrain(c, Path(sys.argv[1]), s, cpu=True, checkpoint_every=2)"
    )
    # As many threads as here: sums in another order end in other bits.
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", script, str(tmp_path / "killed")]
    with subprocess.Popen(command, cwd=ROOT, env=environment) as run:
        limit = time.monotonic() + 120
        while not (tmp_path / "killed" / pretrain.CHECKPOINT).exists():
            assert run.poll() is None
            assert time.monotonic() < limit
            time.sleep(0.01)
        time.sleep(0.5)
        run.kill()
    settings = replace(SHORT, steps=2000)
    stored = torch.load(tmp_path / "killed" / pretrain.CHECKPOINT, weights_only=True)
    until = stored["step"] + 2

    def run_for(to, steps):
        asked = iter(range(1, steps + 1))
        with pytest.raises(KeyboardInterrupt):
            train("ecg", ecg, to, settings, stopped=lambda: next(asked) == steps)
        return torch.load(to / pretrain.CHECKPOINT, weights_only=True)

    resumed, undisturbed = run_for(tmp_path / "killed", 2), run_for(tmp_path / "undisturbed", until)
    assert resumed["step"] == undisturbed["step"] == until
    assert torch.equal(resumed["losses"], undisturbed["losses"])
    assert all(torch.equal(resumed["model"][name], value) for name, value in undisturbed["model"].items())


def test_two_processes_train_as_one_does(ecg, tmp_path):
    alone = train("ecg", ecg, tmp_path / "one")
    arguments = ["ecg", ecg, "--to", tmp_path / "two", "--steps", "6", "--batch", "8"]
    arguments += ["--seed", "3", "--rate", "5e-4", "--cpu"]
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m"]
    done = subprocess.run(
        [*torchrun, "insula", "pretrain", *map(str, arguments)],
        cwd=ROOT, capture_output=True, text=True, timeout=170, check=False, env=os.environ | {"OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("held out    loss") == 1
    rows = [line.split(",") for line in (tmp_path / "two" / pretrain.LOSSES).read_text().splitlines()[2:]]
    assert [float(row[1]) for row in rows] == pytest.approx(alone.losses, rel=1e-4)
    card = json.loads((tmp_path / "two" / pretrain.CARD).read_text())
    assert card["processes"] == 2
    assert card["held out"]["loss"] == pytest.approx(alone.looks[-1].loss, rel=1e-4)


def test_people_held_out_are_filled_in_better_than_with_nothing(eeg, tmp_path):
    settings = replace(SHORT, steps=60, rate=5e-3, held_out=0.25)
    run = train("eeg", eeg, tmp_path / "out", settings)
    first, last = run.looks[0], run.looks[-1]
    assert first.reference == last.reference
    assert last.loss < 0.8 * last.reference < first.loss
    card = json.loads((tmp_path / "out" / pretrain.CARD).read_text())
    assert len(card["people held out"]) == 1
    assert not set(card["people"]) & set(card["people held out"])
    assert card["held out"]["loss"] == last.loss
    assert card["data"][0]["sha256"] == shards.Shards(eeg).digest
    pictures = sorted((tmp_path / "out" / pretrain.PICTURES).iterdir())
    assert [path.name for path in pictures][:2] == ["step-0000000.png", "step-0000001.png"]
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in pictures)


@pytest.mark.parametrize("kind", ["ecg", "eeg"])
def test_the_encoder_fits_the_network_that_is_fine_tuned(kind, ecg, eeg, tmp_path):
    train(kind, ecg if kind == "ecg" else eeg, tmp_path / "out", replace(SHORT, steps=1))
    encoder = pretrain.load_encoder(tmp_path / "out", kind)
    network = Downstream().network(19, 1, 4, 200)
    assert encoder.config == (network.eeg if kind == "eeg" else network.ecg)
    assert encoder.pooled(torch.zeros(1, 19 if kind == "eeg" else 1, 4, 200)).shape == (1, encoder.config.width)
    with pytest.raises(ModelError, match="not of"):
        pretrain.load_encoder(tmp_path / "out", "eeg" if kind == "ecg" else "ecg")
    (tmp_path / "out" / pretrain.WEIGHTS).write_bytes(b"\x00" * 100)
    with pytest.raises(ModelError, match="can be read"):
        pretrain.load_encoder(tmp_path / "out", kind)


def test_the_published_size_is_that_of_the_published_network():
    assert pretrain.network("ecg", "published") == pretrain.network("eeg", "published")
    assert pretrain.network("eeg", "published").d_model == 200


def test_every_window_of_an_epoch_is_shown_once_and_epochs_differ(ecg):
    corpus = gather("ecg", [ecg], SHORT)
    order = Order(corpus, 8, seed=1)
    count = order.steps_per_epoch
    first = [order.step(step)[1] for step in range(count)]
    second = [order.step(step)[1] for step in range(count, 2 * count)]
    shown = np.concatenate(first)
    assert len(set(shown.tolist())) == len(shown) == count * 8
    assert set(shown.tolist()) <= set(corpus.trained[0].tolist())
    assert not np.array_equal(shown, np.concatenate(second))
    again = Order(corpus, 8, seed=1)
    assert np.array_equal(again.step(count + 1)[1], second[1])


def test_one_lead_and_twelve_are_trained_on_together_and_never_stand_in_one_batch(ecg, tmp_path):
    stored = shards.Shards(ecg)
    twelve = replace_leads(stored, tmp_path / "twelve")
    settings = replace(SHORT, leads=MaskConfig(one_lead=0.0))
    corpus = gather("ecg", [ecg, twelve], settings)
    order = Order(corpus, 8, seed=1)
    shapes = set()
    for step in range(order.steps_per_epoch):
        group, places = order.step(step)
        signals, good = corpus.groups[group].read("ecg", places)
        shapes.add(signals.shape[1])
        assert good.shape == signals.shape[:2]
    assert shapes == {1, 12}
    run = pretrain.pretrain(corpus, tmp_path / "out", replace(settings, steps=order.steps_per_epoch), cpu=True)
    assert np.isfinite(run.losses).all()


def replace_leads(stored, to):
    """A copy of shards of one lead with twelve, of which the last is absent."""
    to.mkdir()
    said = json.loads((stored.folder / shards.LIST).read_text())
    said["window"]["inputs"][0]["channels"] = [f"L{number}" for number in range(12)]
    (to / shards.LIST).write_text(json.dumps(said))
    for part in stored.parts:
        (to / part).mkdir()
        (to / part / "part.json").write_bytes((stored.folder / part / "part.json").read_bytes())
        signals = np.load(stored.folder / part / "ecg.npy")
        many = signals * np.linspace(1.0, 2.0, 12, dtype=np.float32)[:, None]
        many[:, 11] = 0.0
        np.save(to / part / "ecg.npy", many)
        with np.load(stored.folder / part / "columns.npz") as columns:
            content = dict(columns)
        content["score_ecg"] = np.repeat(content["score_ecg"], 12, axis=1)
        content["score_ecg"][:, 11] = 0.0
        np.savez(to / part / "columns.npz", **content)
    return to


def test_an_absent_lead_is_hidden_and_does_not_count():
    signals = torch.randn(4, 3, 800) * 100
    good = torch.tensor([[True, True, False]] * 4)
    task = pretrain.draw("eeg", signals, good, (0, 4, 4), SHORT, 200, 5)
    assert task.hidden[:, 2].all()
    assert not task.counted[:, 2].any()
    assert task.counted[:, :2].any()
    assert torch.equal(task.counted[:, :2], task.hidden[:, :2])


def test_what_a_process_draws_for_its_share_is_what_one_process_draws_for_all():
    signals, good = torch.randn(6, 3, 800), torch.ones(6, 3, dtype=torch.bool)
    for kind in ("eeg", "ecg"):
        whole = pretrain.draw(kind, signals, good, (0, 6, 6), SHORT, 200, 5)
        part = pretrain.draw(kind, signals[2:5], good[2:5], (2, 5, 6), SHORT, 200, 5)
        assert torch.equal(part.hidden, whole.hidden[2:5])
        assert torch.equal(part.x, whole.x[2:5])


def test_the_people_left_out_are_neither_trained_on_nor_looked_at(ecg):
    corpus = gather("ecg", [ecg], SHORT, exclude=["s3p00", "s3p01"])
    assert len(corpus.people) + len(corpus.held_out) == 6
    stored = shards.Shards(ecg)
    used = np.concatenate([corpus.trained[0], corpus.watched[0]])
    assert not {"s3p00", "s3p01"} & {stored.people[code] for code in stored.who[used].tolist()}
    with pytest.raises(TrainingError, match="nobody"):
        gather("ecg", [ecg], SHORT, exclude=["nobody"])


def test_a_folder_of_another_training_is_not_gone_on_with(ecg, tmp_path):
    train("ecg", ecg, tmp_path / "out", replace(SHORT, steps=1))
    before = (tmp_path / "out" / pretrain.WEIGHTS).read_bytes()
    with pytest.raises(TrainingError, match="other data or settings"):
        train("ecg", ecg, tmp_path / "out", replace(SHORT, steps=1, seed=4))
    again = train("ecg", ecg, tmp_path / "out", replace(SHORT, steps=1))
    assert len(again.losses) == 1
    assert (tmp_path / "out" / pretrain.WEIGHTS).read_bytes() == before


@pytest.mark.parametrize("content", [b"", b"garbage", b"PK\x03\x04garbage"])
def test_a_damaged_checkpoint_is_one_line_that_names_it(ecg, tmp_path, content):
    (tmp_path / pretrain.CHECKPOINT).write_bytes(content)
    with pytest.raises(TrainingError, match=pretrain.CHECKPOINT) as caught:
        train("ecg", ecg, tmp_path)
    assert "\n" not in str(caught.value)


def test_a_full_disk_leaves_the_last_checkpoint_and_is_gone_on_from(ecg, tmp_path):
    settings = replace(SHORT, steps=4)
    whole = train("ecg", ecg, tmp_path / "whole", settings)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)

    def fills(now):
        if now.step == 2:
            resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))

    try:
        with pytest.raises(TrainingError, match="checkpoint of step 2 stays") as caught:
            train("ecg", ecg, tmp_path / "full", settings, checkpoint_every=2, told=fills)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, ignored)
    assert "\n" not in str(caught.value)
    assert train("ecg", ecg, tmp_path / "full", settings).losses == whole.losses
    assert not list((tmp_path / "full").glob("*.new"))


def test_a_loss_that_is_no_number_ends_the_run_and_leaves_the_checkpoint(ecg, tmp_path):
    settings = replace(SHORT, steps=40, rate=1e30, clip=1e30)
    with pytest.raises(TrainingError, match=r"no number any more .* lower --rate"):
        train("ecg", ecg, tmp_path / "out", settings)
    assert not (tmp_path / "out" / pretrain.WEIGHTS).exists()


def test_shards_without_the_kind_are_refused_in_words(ecg, eeg, tmp_path):
    with pytest.raises(TrainingError, match="has no eeg"):
        gather("eeg", [ecg], SHORT)
    with pytest.raises(TrainingError, match="insula prepare"):
        gather("eeg", [tmp_path], SHORT)


def test_pretraining_on_several_leads_hides_whole_leads_as_well_as_patches():
    signals, good = torch.randn(64, 3, 2000), torch.ones(64, 3, dtype=torch.bool)
    both = replace(SHORT, leads=MaskConfig(intra=0.2, inter=0.4, whole=1.0, one_lead=0.0))
    hidden = pretrain.draw("ecg", signals, good, (0, 64, 64), both, 200, 1).counted
    whole = hidden.all(2).float().mean().item()
    # Patches alone would hide a whole lead of ten seconds in 0.2 ** 10 of the cases.
    assert 0.3 < whole < 0.5
    within = replace(both, leads=MaskConfig(intra=0.2, inter=0.0, whole=1.0, one_lead=0.0))
    assert not pretrain.draw("ecg", signals, good, (0, 64, 64), within, 200, 1).counted.all(2).any()
    between = replace(both, leads=MaskConfig(intra=0.0, inter=0.4, whole=1.0, one_lead=0.0))
    alone = pretrain.draw("ecg", signals, good, (0, 64, 64), between, 200, 1).counted
    assert alone.any()
    assert torch.equal(alone.all(2), alone.any(2))

"""The laws that every file of models/encoders/ keeps, and one network of each from training to both runtimes."""

from __future__ import annotations

import copy
import dataclasses
import importlib
import json
import pkgutil
from dataclasses import replace

import numpy as np
import pytest
import safetensors.torch
import torch

import models.encoders
from models.api import InputSpec, ModelError, WindowSpec
from models.bundle import GOLDEN, GRAPH, WEIGHTS, Target, pack_golden, write_bundle
from models.encoders import build, encoders, read_config
from models.fields import Fields
from models.fusion import FusionConfig, FusionModel
from models.runtimes import load_runtime, relative_error
from offline_training.export import example_inputs, onnx_graph, torch_outputs
from offline_training.finetune import Settings, Start, embed, train
from offline_training.prepare import Prepared

NAMES = sorted(module.name for module in pkgutil.iter_modules(models.encoders.__path__))
SMALL = {"cbramod": {"d_model": 40, "layers": 2, "heads": 4, "ffn": 80, "position_kernel": (5, 3)}}
"""So that tests are quick; an encoder that is not named here is taken as its defaults are."""


def config_of(name):
    return importlib.import_module(f"models.encoders.{name}").Config(**SMALL.get(name, {}))


def made(name, channels=4, seconds=3):
    torch.manual_seed(3)
    return build(config_of(name), channels, seconds).eval()


@pytest.fixture(params=NAMES)
def name(request):
    return request.param


def test_every_file_of_the_folder_is_an_encoder_and_says_what_it_is():
    assert list(encoders()) == NAMES
    assert all(said.endswith(".") for said in encoders().values())


@pytest.mark.parametrize("channels", [1, 2, 12, 19])
@pytest.mark.parametrize("seconds", [2, 10])
def test_a_window_becomes_one_vector_whatever_its_channels_and_length(name, channels, seconds):
    config = config_of(name)
    with torch.inference_mode():
        pooled = made(name, channels, seconds).pooled(torch.randn(2, channels, seconds, config.patch))
    assert pooled.shape == (2, config.width)
    assert torch.isfinite(pooled).all()
    assert (pooled[0] != pooled[1]).any()


def test_a_flat_window_gives_finite_figures_and_gradients(name):
    encoder = made(name).train()
    x = torch.zeros(2, 4, 3, config_of(name).patch, requires_grad=True)
    pooled = encoder.pooled(x)
    assert torch.isfinite(pooled).all()
    pooled.square().sum().backward()
    gradients = [x.grad] + [parameter.grad for parameter in encoder.parameters() if parameter.grad is not None]
    assert all(torch.isfinite(gradient).all() for gradient in gradients)


def test_every_sample_and_every_parameter_of_the_path_has_a_gradient(name):
    encoder = made(name)
    x = torch.randn(2, 4, 3, config_of(name).patch, requires_grad=True)
    (encoder.pooled(x) * torch.randn(2, config_of(name).width)).sum().backward()
    assert (x.grad != 0).flatten(2).any(-1).all()
    idle = {
        name.split(".")[0]
        for name, parameter in encoder.named_parameters()
        if parameter.requires_grad and (parameter.grad is None or not parameter.grad.any())
    }
    assert idle <= {"proj_out"}  # only for reconstruction


def test_windows_of_a_batch_do_not_see_each_other(name):
    encoder = made(name)
    x, order = torch.randn(5, 4, 3, config_of(name).patch), torch.tensor([3, 0, 4, 1, 2])
    with torch.inference_mode():
        together = encoder.pooled(x)
        torch.testing.assert_close(encoder.pooled(x[order]), together[order], rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(encoder.pooled(x[2:3]), together[2:3], rtol=1e-4, atol=1e-5)
        other = x.clone()
        other[0] = 1e3
        torch.testing.assert_close(encoder.pooled(other)[1:], together[1:], rtol=1e-4, atol=1e-5)


def entry_of(config):
    """The configuration as a manifest holds it."""
    return json.loads(json.dumps(dataclasses.asdict(config)))


def test_a_configuration_comes_back_from_the_manifest(name):
    config = config_of(name)
    assert config.encoder == name
    assert read_config(Fields(entry_of(config), "manifest.json", "network.eeg")) == config


def test_whatever_is_wrong_in_the_manifest_is_one_line_that_names_the_field(name):
    entry = entry_of(config_of(name))
    for field in entry:
        for value in (None, "x", -1, [], 10**30):
            with pytest.raises((ModelError, ValueError)) as caught:
                read_config(Fields(entry | {field: value}, "manifest.json", "network.eeg"))
            assert f"network.eeg.{field} is " in str(caught.value)
            assert "\n" not in str(caught.value)
        with pytest.raises(ModelError, match=f"network.eeg.{field} is missing"):
            read_config(Fields({k: v for k, v in entry.items() if k != field}, "manifest.json", "network.eeg"))
    with pytest.raises(ModelError, match=r"'network.eeg.dmodel' is not a field"):
        read_config(Fields(entry | {"dmodel": 1}, "manifest.json", "network.eeg"))


@pytest.mark.parametrize("wrong", ["transformer", "__init__", "../cbramod", "cbramod.Config", ""])
def test_an_unknown_encoder_is_answered_with_the_known_ones(wrong):
    with pytest.raises(ModelError) as caught:
        read_config(Fields({"encoder": wrong}, "manifest.json", "network.eeg"))
    said = f"manifest.json: network.eeg.encoder is {wrong!r}, expected one of {', '.join(NAMES)}"
    assert str(caught.value) == said


def prepared_windows(people=3, channels=4, seconds=2):
    """Made-up windows of people at rest, then calm and excited in turn."""
    random = np.random.default_rng(5)
    baseline = np.tile([True] * 4 + [False] * 8, people)
    label = np.tile([0] * 4 + [0, 1] * 4, people)
    n = len(label)
    time = np.arange(seconds * 200) / 200
    alpha = np.where(label, 4.0, 12.0)[:, None, None] * np.sin(2 * np.pi * 10 * time)
    spec = WindowSpec(
        inputs=(
            InputSpec(kind="eeg", channels=tuple(f"c{i}" for i in range(channels))),
            InputSpec(kind="ecg", channels=("ECG",)),
        ),
        seconds=float(seconds),
    )
    return Prepared(
        spec,
        Target(name="arousal", kind="binary", range=(0.0, 1.0), meaning="0 rest, 1 load"),
        {
            "eeg": (alpha + 8 * random.standard_normal((n, channels, len(time)))).astype(np.float32),
            "ecg": (900.0 * (time % 0.8 < 0.03) + 20 * random.standard_normal((n, 1, len(time)))).astype(np.float32),
        },
        usable=np.ones((n, 2), dtype=bool),
        label=label,
        value=label.astype(np.float64),
        person=np.repeat([f"p{i}" for i in range(people)], n // people),
        t_end=np.arange(n, dtype=np.float64),
        baseline=baseline,
        trained=~baseline,
        scored=~baseline,
        session=np.repeat(np.arange(people), n // people),
    )


def test_it_is_trained_exported_and_gives_the_same_estimates_in_both_runtimes(name, bundle, tmp_path):
    prepared = prepared_windows()
    torch.manual_seed(1)
    config = FusionConfig(eeg_channels=4, seconds=2, eeg=config_of(name), ecg=config_of(name), heart=True)
    network = FusionModel(config)
    rows = np.arange(len(prepared.label))
    start = Start(copy.deepcopy(network).eval(), embed(network, prepared, rows), 1)
    trained = train(prepared, rows, Settings(steps=2), start).network
    changed = {key for key, value in trained.state_dict().items() if not torch.equal(value, network.state_dict()[key])}
    assert {key.split(".")[0] for key in changed} >= {"eeg_encoder", "ecg_encoder", "head", "absent_eeg", "absent_ecg"}

    def size(inputs):
        return np.abs(torch_outputs(trained, inputs)["logit"]).max()

    # Of a single logit near zero every error is large.
    inputs = max((example_inputs(trained, batch=1, seed=seed) for seed in range(8)), key=size)
    old, target = bundle.manifest, prepared.target
    manifest = replace(
        old,
        window=prepared.spec,
        targets=(target,),
        calibration={used: {target.name: by_target[target.name]} for used, by_target in old.calibration.items()},
        network=dataclasses.asdict(config),
        embedding={"eeg": config.eeg_dim, "ecg": config.ecg_dim},
        rest=replace(old.rest, pooled_sd=(1.0,) * config.embedding_dim),
    )
    files = {name: bundle.read(name) for name in bundle.files} | {
        GRAPH: onnx_graph(trained),
        WEIGHTS: safetensors.torch.save({k: v.contiguous() for k, v in trained.state_dict().items()}),
        GOLDEN: pack_golden(inputs, torch_outputs(trained, inputs)),
    }
    exported = write_bundle(tmp_path / "exported", manifest, files)
    others = example_inputs(trained, batch=8, seed=8)
    wanted = torch_outputs(trained, others)
    for runtime in ("ort", "pytorch"):
        got = load_runtime(runtime, exported)(others)
        for key in wanted:
            assert relative_error(got[key], wanted[key]) < 1e-4


def test_training_an_eegnet_a_window_does_not_depend_on_the_others_of_its_batch():
    from models.encoders.eegnet import Config, Encoder

    torch.manual_seed(0)
    encoder = Encoder(Config(dropout=0.0), channels=4, seconds=3).train()
    x = torch.randn(4, 4, 3, 200)
    torch.testing.assert_close(encoder.pooled(x)[:1], encoder.pooled(x[:1]), rtol=1e-4, atol=1e-5)


def test_an_eegnet_of_the_papers_size_has_about_as_many_parameters_as_the_paper_says():
    from models.encoders.eegnet import Config, Encoder

    # EEGNet-8,2 of the paper: 8 filters of half a second, 16 sums of 64 channels and the separable part make
    # 512 + 1024 + 256 + 256 weights at 128 Hz; here half a second is 101 samples and the second kernel 17.
    weights = sum(p.numel() for key, p in Encoder(Config(), 64, 1).named_parameters() if p.dim() == 4)
    assert weights == 8 * 101 + 16 * 64 + 16 * 17 + 16 * 16


@pytest.mark.parametrize("wrong", [{"filters": 0}, {"patch": 20}, {"width": 0}])
def test_an_eegnet_that_cannot_be_built_is_refused(wrong):
    from models.encoders.eegnet import Config

    with pytest.raises(ValueError, match=r"."):
        Config(**wrong)

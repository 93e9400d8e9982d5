"""The fusion network: which signals reach which output."""

from __future__ import annotations

import pytest
import torch

from models.encoders import eegnet
from models.encoders.cbramod import Config
from models.fusion import FusionConfig, FusionModel, scale_ecg, scale_eeg
from offline_training.export import example_inputs


def tensors(fusion, batch=3, seed=0):
    return {name: torch.from_numpy(value) for name, value in example_inputs(fusion, batch, seed).items()}


def test_shapes_are_those_of_the_configuration(fusion):
    inputs = tensors(fusion)
    logit, embedding = fusion(*inputs.values())
    assert logit.shape == (3, 2)
    assert embedding.shape == (3, fusion.config.embedding_dim)
    assert fusion.config.embedding_dim == (40 + 6 * 5) + (40 + 9)


@pytest.mark.parametrize(("kind", "use"), [("eeg", [0.0, 1.0]), ("ecg", [1.0, 0.0])])
def test_a_modality_that_is_not_used_does_not_reach_the_logit(fusion, kind, use):
    inputs = tensors(fusion) | {"use": torch.tensor([use] * 3)}
    logit, embedding = fusion(*inputs.values())
    other = inputs | {kind: torch.full_like(inputs[kind], float("nan"))}
    again, other_embedding = fusion(*other.values())
    assert torch.equal(logit, again)
    part = slice(fusion.config.eeg_dim, None) if kind == "eeg" else slice(0, fusion.config.eeg_dim)
    assert torch.equal(embedding[:, part], other_embedding[:, part])


def several_leads(leads, **encoders):
    torch.manual_seed(2)
    encoder = Config(d_model=40, layers=1, heads=4, ffn=40)
    config = FusionConfig(
        eeg_channels=3, ecg_channels=leads, seconds=2, heart=True, **({"eeg": encoder, "ecg": encoder} | encoders)
    )
    return FusionModel(config).eval()


@pytest.mark.parametrize("leads", [1, 2, 3, 12])
@pytest.mark.parametrize("family", ["cbramod", "eegnet"])
def test_ecg_of_one_to_twelve_leads_beside_eeg_alone_or_absent_gives_sound_logits(leads, family):
    more = {"eeg": eegnet.Config(), "ecg": eegnet.Config()} if family == "eegnet" else {}
    model = several_leads(leads, **more)
    inputs = tensors(model)
    logits = []
    for use in ([1.0, 1.0], [1.0, 0.0], [0.0, 1.0]):
        logit, embedding = model(*(inputs | {"use": torch.tensor([use] * 3)}).values())
        assert logit.shape == (3, 1)
        assert torch.isfinite(logit).all()
        assert embedding.shape == (3, model.config.embedding_dim)
        logits.append(logit)
        for unused, kind in ((use[0] == 0, "eeg"), (use[1] == 0, "ecg")):
            if unused:
                spoilt = inputs | {"use": torch.tensor([use] * 3), kind: torch.full_like(inputs[kind], float("nan"))}
                assert torch.equal(model(*spoilt.values())[0], logit)
    assert not torch.allclose(logits[1], logits[2])


@pytest.mark.parametrize("leads", [2, 12])
def test_a_flat_lead_among_several_leaves_the_others_useful(leads):
    model = several_leads(leads)
    inputs = tensors(model) | {"use": torch.tensor([[0.0, 1.0]] * 3)}
    inputs["ecg"][:, 0] = 0
    logit, embedding = model(*inputs.values())
    assert torch.isfinite(embedding).all()
    other = inputs | {"ecg": inputs["ecg"].roll(60, dims=-1) * torch.linspace(1.0, 2.0, 400)}
    assert not torch.allclose(model(*other.values())[0], logit)


def test_each_modality_changes_the_logit_when_it_is_used(fusion):
    inputs = tensors(fusion, batch=2)
    both = fusion(*inputs.values())[0]
    for use in ([0.0, 1.0], [1.0, 0.0], [0.0, 0.0]):
        alone = fusion(*(inputs | {"use": torch.tensor([use] * 2)}).values())[0]
        assert not torch.allclose(both, alone)


def test_an_embedding_at_its_resting_mean_gives_the_same_logit_for_everybody(fusion):
    inputs = tensors(fusion, batch=3)
    embedding = fusion.embed(inputs["eeg"], inputs["ecg"])
    logit = fusion.classify(embedding, torch.ones(3, 2), embedding, torch.ones_like(embedding))
    assert torch.equal(logit[0], logit[1])
    assert torch.equal(logit[0], logit[2])


def test_training_reaches_every_parameter_that_the_output_rests_on():
    encoder = Config(d_model=40, layers=1, heads=4, ffn=40)
    model = FusionModel(FusionConfig(eeg_channels=3, seconds=2, eeg=encoder, ecg=encoder, band_power=True, heart=True))
    inputs = tensors(model) | {"use": torch.tensor([[1.0, 1.0], [1.0, 0.0], [0.0, 1.0]])}
    model.train()
    model(*inputs.values())[0].sum().backward()
    unused = {
        name for name, parameter in model.named_parameters() if parameter.requires_grad and parameter.grad is None
    }
    assert unused == {f"{kind}_encoder.proj_out.0.{what}" for kind in ("eeg", "ecg") for what in ("weight", "bias")}
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)


def test_scaling_clips_artefacts_and_leaves_a_flat_lead_flat():
    assert float(scale_eeg(torch.full((1, 1, 400), 5e6), 200).max()) == 10.0
    assert torch.equal(scale_ecg(torch.full((1, 1, 400), 123.0), 200), torch.zeros(1, 1, 2, 200))
    assert scale_eeg(torch.arange(800.0).reshape(1, 2, 400), 200)[0, 1, 1, 3] == 6.03


@pytest.mark.parametrize("wrong", [{"seconds": 1}, {"eeg_channels": 0}, {"rate": 128}])
def test_a_configuration_that_cannot_be_built_is_refused(wrong):
    with pytest.raises(ValueError, match=r"."):
        FusionConfig(**({"eeg_channels": 4} | wrong))

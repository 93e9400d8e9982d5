"""The fusion network: which signals reach which output, and its descriptors against the textbook."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.signal import butter, resample_poly, sosfilt, welch

from models.encoders import eegnet
from models.encoders.cbramod import Config
from models.fusion import BAND_FLOOR_UV2, BANDS, BandPower, FusionConfig, FusionModel, Heart, scale_ecg, scale_eeg
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


def test_band_power_is_that_of_welch():
    x = 20 * np.random.default_rng(3).standard_normal((2, 4, 1000))
    frequencies, density = welch(x, fs=200, window="hann", nperseg=400, noverlap=200, detrend="constant")
    expected = []
    for low, high in BANDS:
        inside = (frequencies >= low) & (frequencies < high)
        expected.append(density[..., inside].sum(axis=-1) * (frequencies[1] - frequencies[0]))
    got = BandPower(200)(torch.from_numpy(x.astype(np.float32))).reshape(2, 4, len(BANDS))
    np.testing.assert_allclose(got.numpy(), np.log(np.stack(expected, axis=-1) + BAND_FLOOR_UV2), atol=1e-3)


@pytest.mark.parametrize("bpm", [45, 60, 72, 90, 120, 150, 170])
@pytest.mark.parametrize("gain", [1.0, -0.3])
def test_the_heart_descriptor_finds_the_rate_of_either_sign_and_any_amplitude(bpm, gain):
    random = np.random.default_rng(bpm)
    time = np.arange(2000) / 200
    phase = (time * bpm / 60 + 0.3) % 1 * 60 / bpm
    beat = 900 * np.exp(-0.5 * ((phase - 0.2) / 0.012) ** 2) + 150 * np.exp(-0.5 * ((phase - 0.33) / 0.03) ** 2)
    ecg = gain * (beat + 20 * random.standard_normal(2000))
    scaled = scale_ecg(torch.from_numpy(ecg[None, None].astype(np.float32)), 200).flatten(2)
    with torch.inference_mode():
        rate = 60 * float(torch.exp(Heart(2000, 200, 8)(scaled)[0, 0]))
    assert rate == pytest.approx(bpm, rel=0.03)


def test_the_heart_descriptor_agrees_with_annotated_beats_of_real_recordings(shared_data):
    heart = Heart(2000, 200, 8)
    sos = butter(2, [0.5, 45], "band", fs=200, output="sos")
    stored = np.load(shared_data / "mitdb" / "mitdb_36_records_130hz_int16_5uV.npz")
    errors = []
    for record in [name.removesuffix("_uV") for name in stored.files if name[:3].isdigit() and name.endswith("_uV")]:
        ecg = 5.0 * stored[f"{record}_uV"][: 130 * 120]
        ecg = sosfilt(sos, resample_poly(ecg, 20, 13)).astype(np.float32)
        beats = stored[f"{record}_beat_s"]
        for start in range(10, 110, 10):
            intervals = np.diff(beats[(beats >= start) & (beats < start + 10)])
            # An irregular rhythm has no one rate to be compared with.
            if len(intervals) < 4 or intervals.std() > 0.1 * intervals.mean():
                continue
            window = torch.from_numpy(ecg[None, None, start * 200 : (start + 10) * 200])
            with torch.inference_mode():
                rate = 60 * float(torch.exp(heart(scale_ecg(window, 200).flatten(2))[0, 0]))
            errors.append(abs(rate - 60 / intervals.mean()))
    assert len(errors) > 100
    assert np.mean(np.array(errors) < 5) > 0.9


def test_scaling_clips_artefacts_and_leaves_a_flat_lead_flat():
    assert float(scale_eeg(torch.full((1, 1, 400), 5e6), 200).max()) == 10.0
    assert torch.equal(scale_ecg(torch.full((1, 1, 400), 123.0), 200), torch.zeros(1, 1, 2, 200))
    assert scale_eeg(torch.arange(800.0).reshape(1, 2, 400), 200)[0, 1, 1, 3] == 6.03


@pytest.mark.parametrize("wrong", [{"seconds": 1}, {"eeg_channels": 0}, {"rate": 128}])
def test_a_configuration_that_cannot_be_built_is_refused(wrong):
    with pytest.raises(ValueError, match=r"."):
        FusionConfig(**({"eeg_channels": 4} | wrong))

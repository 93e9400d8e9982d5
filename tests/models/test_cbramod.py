"""CBraMod against figures of the published code."""

from __future__ import annotations

import json
import zlib

import numpy as np
import pytest
import torch

from models.encoders.cbramod import Config, Encoder, dft_matrices

STAGES = ("embedding", "encoded", "reconstruction", "reconstruction_masked")
"""All that the golden file holds."""


@pytest.fixture(scope="module")
def published(shared_data):
    """The full network with weights made by the rule that the golden figures were made with."""
    shapes = json.loads((shared_data / "cbramod" / "state_dict_shapes.json").read_text())
    state = {}
    for name, shape in shapes:
        random = (
            np.random.default_rng(zlib.crc32(("insula:" + name).encode())).standard_normal(shape).astype(np.float32)
        )
        if name.endswith("mask_encoding"):
            value = np.zeros(shape)
        elif len(shape) >= 2:
            value = random * 0.5 / np.sqrt(np.prod(shape[1:]))
        else:
            value = 1 + 0.05 * random if name.endswith(".weight") else 0.05 * random
        state[name] = torch.from_numpy(value.astype(np.float32))
    encoder = Encoder(Config())
    assert [(name, list(value.shape)) for name, value in encoder.state_dict().items()] == [
        (name, shape) for name, shape in shapes
    ]
    encoder.load_state_dict(state, strict=True)
    return encoder.eval()


def test_the_default_network_has_as_many_parameters_as_the_published_one():
    encoder = Encoder(Config())
    assert sum(parameter.numel() for parameter in encoder.parameters()) == 4_924_000
    assert len(encoder.state_dict()) == 211


@pytest.mark.parametrize("stage", STAGES)
def test_every_stage_computes_what_the_published_code_computes(published, shared_data, stage):
    golden = np.load(shared_data / "cbramod" / "golden_2x6x4.npz")
    assert set(golden.files) - {"x", "mask"} == set(STAGES)
    x, mask = torch.from_numpy(golden["x"]), torch.from_numpy(golden["mask"])
    with torch.inference_mode():
        got = {
            "embedding": lambda: published.patch_embedding(x),
            "encoded": lambda: published(x),
            "reconstruction": lambda: published.reconstruct(x),
            "reconstruction_masked": lambda: published.reconstruct(x, mask),
        }[stage]()
    assert np.abs(got.numpy() - golden[stage]).max() < 1e-4


@pytest.mark.parametrize("n", [200, 128, 65])
def test_the_matrices_are_the_real_dft(n):
    x = np.random.default_rng(n).standard_normal((5, n)).astype(np.float32)
    cosine, sine = dft_matrices(n)
    got = x @ cosine.numpy() - 1j * (x @ sine.numpy())
    np.testing.assert_allclose(got, np.fft.rfft(x, norm="forward"), atol=1e-6)


@pytest.mark.parametrize("d_model", [40, 80])
@pytest.mark.parametrize("channels", [1, 2, 19])
def test_small_networks_encode_any_number_of_channels(d_model, channels):
    encoder = Encoder(Config(d_model=d_model, layers=2, heads=4, ffn=2 * d_model, position_kernel=(3, 3))).eval()
    x = torch.randn(2, channels, 3, 200)
    assert encoder(x).shape == (2, channels, 3, d_model)
    assert encoder.reconstruct(x).shape == x.shape


def test_a_hidden_patch_does_not_reach_the_network():
    torch.manual_seed(0)
    encoder = Encoder(Config(d_model=40, layers=1, heads=4, ffn=40)).eval()
    x = torch.randn(1, 3, 4, 200)
    mask = torch.zeros(1, 3, 4)
    mask[0, 1, 2] = 1
    other = x.clone()
    other[0, 1, 2] = 1000.0
    assert torch.equal(encoder(x, mask), encoder(other, mask))
    assert not torch.allclose(encoder(x), encoder(x, mask))


def test_the_pooled_embedding_is_the_mean_over_channels_and_patches(published):
    x = torch.randn(2, 3, 4, 200)
    with torch.inference_mode():
        torch.testing.assert_close(published.pooled(x), published(x).mean(dim=(1, 2)))


def test_windows_of_a_batch_do_not_see_each_other():
    torch.manual_seed(0)
    encoder = Encoder(Config(d_model=40, layers=2, heads=4, ffn=40)).eval()
    x = torch.randn(3, 4, 5, 200)
    torch.testing.assert_close(encoder(x)[1:2], encoder(x[1:2]), rtol=1e-4, atol=1e-5)


def test_pretraining_gradients_are_finite_where_patches_are_all_zero():
    encoder = Encoder(Config(d_model=40, layers=1, heads=4, ffn=40))
    x = torch.zeros(1, 2, 3, 200, requires_grad=True)
    encoder.reconstruct(x, torch.ones(1, 2, 3)).square().sum().backward()
    encoder.reconstruct(x).square().sum().backward()
    gradients = [x.grad, *(parameter.grad for parameter in encoder.parameters() if parameter.requires_grad)]
    assert all(gradient is not None and torch.isfinite(gradient).all() for gradient in gradients)


@pytest.mark.parametrize(
    "wrong", [{"d_model": 100}, {"heads": 3}, {"position_kernel": (4, 7)}, {"patch": 10}, {"layers": 0}]
)
def test_a_size_that_cannot_be_built_is_refused(wrong):
    with pytest.raises(ValueError, match=r"."):
        Config(**wrong)

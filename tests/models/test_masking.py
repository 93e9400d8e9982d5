"""Dual masking: how much is hidden, from whom, and what the loss looks at."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.signal import resample_poly

from models.encoders.cbramod import Config, Encoder
from models.fusion import scale_ecg
from models.masking import MaskConfig, draw_leads, dual_mask, inter_lead, intra_lead, masked_loss

MANY = (4000, 12, 10)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("ratio", [0.0, 0.25, 0.5, 1.0])
def test_within_leads_the_share_of_hidden_patches_is_the_ratio_and_every_patch_is_for_itself(ratio):
    mask = intra_lead(MANY, ratio, seeded())
    assert mask.dtype == torch.bool
    assert mask.float().mean() == pytest.approx(ratio, abs=0.01)
    if 0 < ratio < 1:
        pairs = np.corrcoef(mask.float().numpy().reshape(-1, 10).T)
        assert np.abs(pairs[~np.eye(10, dtype=bool)]).max() < 0.02


@pytest.mark.parametrize("leads", [2, 3, 12])
@pytest.mark.parametrize("ratio", [0.0, 0.25, 0.5])
def test_between_leads_the_mean_share_of_hidden_leads_is_the_ratio_and_one_is_always_left(leads, ratio):
    mask = inter_lead((4000, leads, 10), ratio, 1.0, seeded(1))
    leads_hidden = mask.all(dim=2)
    assert torch.equal(leads_hidden, mask.any(dim=2))  # all of the window or none of it
    assert leads_hidden.float().mean() == pytest.approx(ratio, abs=0.01)
    assert not leads_hidden.all(dim=1).any()
    assert leads_hidden.float().mean(dim=0).numpy() == pytest.approx(np.full(leads, ratio), abs=0.03)


def test_a_lead_may_be_hidden_for_one_stretch_only_of_any_length_anywhere():
    mask = inter_lead(MANY, 0.5, 0.0, seeded(2))
    touched = mask[mask.any(dim=2)]
    lengths = touched.sum(dim=1)
    assert set(lengths.tolist()) == set(range(1, 10))
    edges = torch.diff(touched.int(), dim=1, prepend=torch.zeros(len(touched), 1, dtype=torch.int32))
    assert ((edges == 1).sum(dim=1) == 1).all()  # begins once: it is one stretch
    assert touched[lengths == 1].float().mean(dim=0).numpy() == pytest.approx(np.full(10, 0.1), abs=0.03)


@pytest.mark.parametrize("whole", [0.0, 0.3, 1.0])
def test_the_share_of_leads_hidden_for_all_of_the_time_is_configured(whole):
    mask = inter_lead(MANY, 0.5, whole, seeded(3))
    touched = mask[mask.any(dim=2)]
    assert touched.all(dim=1).float().mean() == pytest.approx(whole, abs=0.01)


def test_either_kind_can_be_used_alone_and_both_add_up():
    alone = {"one_lead": 0.0, "whole": 1.0}
    intra = dual_mask(MANY, MaskConfig(intra=0.3, inter=0.0, **alone), seeded(4))
    inter = dual_mask(MANY, MaskConfig(intra=0.0, inter=0.25, **alone), seeded(4))
    both = dual_mask(MANY, MaskConfig(intra=0.3, inter=0.25, **alone), seeded(4))
    assert intra.float().mean() == pytest.approx(0.3, abs=0.01)
    assert torch.equal(inter.all(dim=2), inter.any(dim=2))
    assert inter.float().mean() == pytest.approx(0.25, abs=0.01)
    assert both.float().mean() == pytest.approx(1 - 0.7 * 0.75, abs=0.01)


def test_one_lead_is_masked_within_and_never_between():
    shape = (4000, 1, 10)
    with pytest.raises(ValueError, match="takes two or more"):
        inter_lead(shape, 0.5, 1.0, seeded())
    with pytest.raises(ValueError, match="masking between leads is undefined"):
        dual_mask(shape, MaskConfig(intra=0.0, inter=0.5, one_lead=0.0), seeded())
    mask = dual_mask(shape, MaskConfig(intra=0.3, inter=0.9), seeded())
    assert mask.float().mean() == pytest.approx(0.3, abs=0.01)


@pytest.mark.parametrize("leads", [1, 2, 12])
def test_some_batches_show_one_lead_only_as_a_strap_does(leads):
    generator, config = seeded(5), MaskConfig(one_lead=0.25)
    drawn = [draw_leads(leads, config, generator).tolist() for _ in range(2000)]
    single = [one for one in drawn if len(one) == 1]
    assert all(one == list(range(leads)) for one in drawn if len(one) > 1)
    if leads > 1:
        assert len(single) / len(drawn) == pytest.approx(0.25, abs=0.04)
        assert {one[0] for one in single} == set(range(leads))


def test_the_same_seed_hides_the_same_patches_and_touches_no_other_randomness():
    before = torch.get_rng_state()
    first, second = dual_mask(MANY, MaskConfig(), seeded(6)), dual_mask(MANY, MaskConfig(), seeded(6))
    assert torch.equal(first, second)
    assert not torch.equal(first, dual_mask(MANY, MaskConfig(), seeded(7)))
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize(
    "wrong", [{"intra": 1.1}, {"inter": -0.1}, {"whole": float("nan")}, {"intra": 0.0, "inter": 0.0}, {"intra": 0.0}]
)
def test_ratios_that_make_no_sense_are_refused(wrong):
    with pytest.raises(ValueError, match=r"shares lie|nothing would|a single lead"):
        MaskConfig(**wrong)


def test_the_loss_is_the_mean_square_over_hidden_samples_and_sees_nothing_else():
    random = np.random.default_rng(8)
    made, x = (random.standard_normal((2, 3, 4, 200)).astype(np.float32) for _ in range(2))
    mask = random.random((2, 3, 4)) < 0.4
    got = masked_loss(torch.from_numpy(made), torch.from_numpy(x), torch.from_numpy(mask))
    assert float(got) == pytest.approx(np.mean((made - x)[mask] ** 2), rel=1e-5)
    made[~mask], x[~mask] = np.nan, np.inf
    reconstruction = torch.from_numpy(made).requires_grad_()
    again = masked_loss(reconstruction, torch.from_numpy(x), torch.from_numpy(mask))
    assert torch.equal(got, again)
    again.backward()
    assert (reconstruction.grad[torch.from_numpy(~mask)] == 0).all()
    assert masked_loss(reconstruction, torch.from_numpy(x), torch.zeros(2, 3, 4)) == 0


def test_who_has_practised_between_leads_reads_a_missing_lead_off_the_other_one_better(shared_data):
    stored = np.load(shared_data / "ludb" / "ludb_150_records_leads_I_II_500hz_int16_uV.npz")["data"]
    leads = resample_poly(stored.transpose(0, 2, 1).astype(np.float64), 2, 5, axis=-1)[..., :2000]
    x = scale_ecg(torch.from_numpy(leads.astype(np.float32)), 200)  # (150 people, 2 leads, 10 patches, 200)
    practised, unseen = x[:120], x[120:]

    def error(config):
        """Of each lead of unseen people, read off the other one alone, after 200 steps of pre-training."""
        torch.manual_seed(0)
        generator = seeded()
        encoder = Encoder(Config(d_model=40, layers=1, heads=4, ffn=80, position_kernel=(3, 3), dropout=0.0))
        optimizer = torch.optim.AdamW(encoder.parameters(), lr=6e-3)
        for _ in range(200):
            batch = practised[torch.randint(len(practised), (16,), generator=generator)]
            mask = dual_mask(tuple(batch.shape[:3]), config, generator)
            loss = masked_loss(encoder.reconstruct(batch, mask), batch, mask)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        errors = []
        for lead in range(2):
            mask = torch.zeros(unseen.shape[:3], dtype=torch.bool)
            mask[:, lead] = True
            with torch.inference_mode():
                errors.append(float(masked_loss(encoder.eval().reconstruct(unseen, mask), unseen, mask)))
        return np.array(errors)

    within = error(MaskConfig(intra=0.5, inter=0.0, one_lead=0.0))
    dual = error(MaskConfig(intra=0.3, inter=0.5, whole=1.0, one_lead=0.0))
    # Measured: 10 % and 6 % less with this seed, 8 % and 7 % with another.
    assert (dual < 0.98 * within).all()

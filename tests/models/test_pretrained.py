"""The pre-trained encoder that ships: whole, of what its card says, and better than nothing on people held out."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch

import models
from models.fusion import scale_ecg
from models.masking import intra_lead, masked_loss
from offline_training.datasets import ecg_npz
from offline_training.prepare import DEFAULT_SPEC
from offline_training.weights import read_weights
from realtime.windows import iter_windows

FOLDER = Path(models.__path__[0]) / "pretrained" / "ecg"


def test_the_card_says_of_whom_the_encoder_is_and_what_it_is_worth():
    card = json.loads((FOLDER / "encoder.json").read_text())
    weights = read_weights(str(FOLDER), "ecg")
    assert sum(tensor.numel() for tensor in weights.state.values()) >= card["parameters"] > 30_000
    assert not set(card["people"]) & set(card["people held out"])
    assert not any("mitdb" in str(entry).lower() for entry in (card["data"], card["people"]))
    words = (FOLDER / "README.md").read_text()
    assert "ODC-By 1.0" in words
    assert "not a\nmedical device" in words or "not a medical device" in words
    assert f"{100 * card['held out']['share left']:.1f} %" in words
    assert f"{card['windows']:,} windows" in words


def test_it_fills_in_what_is_hidden_of_real_people_held_out_better_than_it_was_drawn(shared_data):
    from offline_training.pretrain import load_encoder

    encoder = load_encoder(FOLDER, "ecg")
    torch.manual_seed(0)
    drawn = type(encoder)(encoder.config).eval()
    held = {name.partition("/")[2] for name in json.loads((FOLDER / "encoder.json").read_text())["people held out"]}
    folder = shared_data / "ecgid"
    spec = type(DEFAULT_SPEC)(inputs=ecg_npz.INPUTS, rate=200.0, seconds=10.0, hop=5.0)
    windows = []
    for part in ecg_npz.parts(folder):
        for recording in ecg_npz.recordings(folder, part):
            if getattr(recording, "person", None) in held:
                windows += [one.signals["ecg"] for one in iter_windows(recording.chunks, spec, recording.streams)]
    assert len(windows) > 50
    x = scale_ecg(torch.from_numpy(np.stack(windows)), 200)
    mask = intra_lead((len(x), 1, 10), 0.3, torch.Generator().manual_seed(1))
    with torch.no_grad():
        learnt, random, zeros = (
            masked_loss(made, x, mask).item()
            for made in (encoder.reconstruct(x, mask), drawn.reconstruct(x, mask), torch.zeros_like(x))
        )
    assert learnt < 0.9 * zeros
    assert learnt < 0.9 * random

"""The descriptors in the network's graph against the textbook, and against annotated recordings."""

from __future__ import annotations

import dataclasses

import numpy as np
import onnxruntime
import pytest
import torch
from scipy.signal import butter, resample_poly, sosfilt, welch

from models.descriptors import BAND_FLOOR_UV2, BANDS, RMSSD_FLOOR, RMSSD_UNKNOWN, BandPower, Heart, Variability
from models.fusion import FusionModel, scale_ecg
from offline_training.export import example_inputs, onnx_graph, torch_outputs


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


def rmssd_of(beats):
    changes = np.diff(np.diff(beats))
    return np.sqrt(np.mean(np.square(changes)))


def beats_drawn(random, rmssd_ms, seconds=10.0):
    """Beat times in seconds whose intervals are 0.8 s with white noise that makes this RMSSD."""
    intervals = 0.8 + random.standard_normal(20) * rmssd_ms / 1000 / np.sqrt(2)
    beats = 0.4 + np.cumsum(intervals)
    return beats[beats < seconds - 0.3]


def variability(ecg):
    with torch.inference_mode():
        scaled = scale_ecg(torch.from_numpy(np.asarray(ecg, np.float32)[None, None]), 200).flatten(2)
        return float(torch.exp(Variability(scaled.shape[-1], 200)(scaled)[0, 0])) - RMSSD_FLOOR


@pytest.mark.parametrize("rmssd_ms", [10, 20, 40])
@pytest.mark.parametrize("gain", [1.0, -0.2])
def test_the_variability_of_known_beats_is_found_of_either_sign_and_any_amplitude(rmssd_ms, gain):
    random, time, errors = np.random.default_rng(rmssd_ms), np.arange(2000) / 200, []
    for _ in range(10):
        beats = beats_drawn(random, rmssd_ms)
        ecg = sum(
            900 * np.exp(-0.5 * ((time - at) / 0.012) ** 2) + 150 * np.exp(-0.5 * ((time - at - 0.25) / 0.03) ** 2)
            for at in beats
        )
        errors.append(variability(gain * (ecg + 10 * random.standard_normal(2000))) - rmssd_of(beats))
    assert np.median(np.abs(errors)) < 0.0015
    assert np.max(np.abs(errors)) < 0.005


def test_the_variability_of_real_recordings_is_that_of_their_annotated_beats(shared_data):
    """mitdb has no R peaks to the sample, so only windows whose intervals vary enough tell something."""
    sos = butter(2, [0.5, 45], "band", fs=200, output="sos")
    stored = np.load(shared_data / "mitdb" / "mitdb_36_records_130hz_int16_5uV.npz")
    pairs = []
    for record in [name.removesuffix("_uV") for name in stored.files if name[:3].isdigit() and name.endswith("_uV")]:
        ecg = sosfilt(sos, resample_poly(5.0 * stored[f"{record}_uV"][: 130 * 120], 20, 13))
        beats = stored[f"{record}_beat_s"]
        for start in range(10, 110, 10):
            own = beats[(beats >= start + 0.2) & (beats < start + 9.8)]
            intervals = np.diff(own)
            if len(intervals) < 5 or np.abs(np.diff(intervals)).max() > 0.15 * intervals.min():
                continue  # ectopic beats, which are left out by design
            pairs.append((variability(ecg[start * 200 : (start + 10) * 200]), rmssd_of(own)))
    found, wanted = np.log(np.array(pairs) + RMSSD_FLOOR).T
    assert len(pairs) > 100
    assert np.corrcoef(found, wanted)[0, 1] > 0.7
    assert abs(np.median(found - wanted)) < 0.15


@pytest.mark.parametrize("signal", ["flat", "noise", "one beat", "a step"])
def test_where_no_beats_can_be_compared_the_variability_is_a_number(signal):
    time, random = np.arange(2000) / 200, np.random.default_rng(1)
    ecg = {
        "flat": np.zeros(2000),
        "noise": 50 * random.standard_normal(2000),
        "one beat": 900 * np.exp(-0.5 * ((time - 5) / 0.012) ** 2),
        "a step": np.where(time < 5, -1e4, 1e4),
    }[signal]
    found = variability(ecg)
    assert 0 <= found < 0.4
    if signal != "noise":
        assert found == pytest.approx(RMSSD_UNKNOWN, abs=1e-6)


def test_every_runtime_gives_the_head_the_same_variability(fusion):
    network = FusionModel(dataclasses.replace(fusion.config, seconds=10, variability=True)).eval()
    assert network.config.ecg_dim == dataclasses.replace(fusion.config, seconds=10).ecg_dim + 1
    random, time = np.random.default_rng(5), np.arange(2000) / 200
    beats = [beats_drawn(random, 30) for _ in range(8)]
    ecg = [sum(900 * np.exp(-0.5 * ((time - at) / 0.012) ** 2) for at in one) for one in beats]
    inputs = example_inputs(network, 8, seed=1)
    inputs["ecg"] = (np.array(ecg)[:, None] + 20 * random.standard_normal((8, 1, 2000))).astype(np.float32)
    session = onnxruntime.InferenceSession(onnx_graph(network), providers=["CPUExecutionProvider"])
    (got,) = session.run(["embedding"], inputs)
    np.testing.assert_allclose(got[:, -1], torch_outputs(network, inputs)["embedding"][:, -1], atol=1e-4)
    found = np.exp(got[:, -1]) - RMSSD_FLOOR
    np.testing.assert_allclose(found, [rmssd_of(one) for one in beats], atol=0.005)

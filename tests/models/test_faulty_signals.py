"""What is wrong with a source, through the windower that runs live: the right estimate, or none and the reason."""

from __future__ import annotations

import numpy as np
import pytest

from devices.api import Chunk, StreamInfo
from models.model import Model
from models.runtimes import load_runtime
from realtime.windows import iter_windows

CHANNELS = ("Fp1", "Fp2", "C3", "C4", "O1", "O2")
RATE, SECONDS = 250.0, 40
"""The bundle of these tests has windows of 4 s every second and 20 s of rest."""


@pytest.fixture(scope="module")
def runtime(bundle):
    return load_runtime("ort", bundle)


@pytest.fixture(scope="module")
def signals():
    """EEG (n, 6) and ECG (n, 1) in uV."""
    random = np.random.default_rng(3)
    time = np.arange(round(SECONDS * RATE)) / RATE
    eeg = 8 * np.sin(2 * np.pi * 10 * time)[:, None] * random.uniform(0.5, 1, 6)
    eeg += 6 * random.standard_normal((len(time), 6))
    ecg = 800 * np.exp(-0.5 * (((time * 1.2) % 1 - 0.5) / 0.015) ** 2) + 5 * random.standard_normal(len(time))
    return eeg.astype(np.float32), ecg.astype(np.float32)[:, None]


def estimates(bundle, runtime, eeg=None, ecg=None, names=CHANNELS):
    """All estimates by the end of their window, of streams that are there."""
    streams, chunks = [], []
    for key, data, channels in (("eeg", eeg, names), ("ecg", ecg, ("ECG",))):
        if data is not None:
            streams.append(StreamInfo(key=key, kind=key, channels=tuple(channels), rate=RATE, unit="uV"))
    for first in range(0, round(SECONDS * RATE), 25):
        for key, data in (("eeg", eeg), ("ecg", ecg)):
            if data is not None:
                rows = np.arange(first, first + 25)
                rows = rows[~np.isnan(data[rows]).all(1)]  # what is all NaN was never sent
                if len(rows):
                    chunks.append(Chunk(key, rows / RATE, np.ascontiguousarray(data[rows])))
    model = Model(bundle, runtime)
    return {one.t_end: model.update(one) for one in iter_windows(chunks, bundle.manifest.window, streams)}


def all_or_nothing(told):
    """An estimate has every figure, or none and a reason."""
    for estimate in told.values():
        if estimate.withheld is None:
            assert np.isfinite(estimate.mean).all()
            assert np.isfinite(estimate.sd).all()
            assert estimate.used
        else:
            assert np.isnan(estimate.mean).all()
            assert np.isnan(estimate.sd).all()
            assert estimate.withheld


@pytest.fixture(scope="module")
def sound(bundle, runtime, signals):
    told = estimates(bundle, runtime, *signals)
    assert {estimate.used for t, estimate in told.items() if t > 21} == {("eeg", "ecg")}
    return told


@pytest.mark.parametrize("seed", range(3))
def test_a_source_whose_channels_come_in_another_order_gives_the_same_bits(bundle, runtime, signals, sound, seed):
    order = np.random.default_rng(seed).permutation(6)
    eeg, ecg = signals
    told = estimates(bundle, runtime, eeg[:, order], ecg, [CHANNELS[index] for index in order])
    assert told.keys() == sound.keys()
    for t, estimate in told.items():
        assert estimate.mean.tobytes() == sound[t].mean.tobytes()
        assert estimate.sd.tobytes() == sound[t].sd.tobytes()
        assert (estimate.withheld, estimate.used) == (sound[t].withheld, sound[t].used)


def test_channels_that_a_model_does_not_know_change_nothing(bundle, runtime, signals, sound):
    eeg, ecg = signals
    more = np.concatenate([1000 * eeg[:, :1], eeg, -eeg[:, :1]], axis=1)
    told = estimates(bundle, runtime, more, ecg, ("EOG", *CHANNELS, "GSR"))
    assert all(estimate.mean.tobytes() == sound[t].mean.tobytes() for t, estimate in told.items())


@pytest.mark.parametrize("gone", ["eeg", "ecg"])
def test_without_one_kind_of_signal_the_estimates_rest_on_the_other(bundle, runtime, signals, gone):
    given = dict(zip(("eeg", "ecg"), signals, strict=True))
    del given[gone]
    told = estimates(bundle, runtime, **given)
    all_or_nothing(told)
    (left,) = given
    assert {estimate.used for t, estimate in told.items() if t > 21} == {(left,)}
    assert any(f"{gone.upper()} left out" in (estimate.withheld or "") for estimate in told.values())


@pytest.mark.parametrize("kind", ["eeg", "ecg"])
def test_with_half_a_window_missing_the_kind_is_not_used_until_it_is_whole_again(bundle, runtime, signals, sound, kind):
    given = {key: data.copy() for key, data in zip(("eeg", "ecg"), signals, strict=True)}
    given[kind][round(28 * RATE) : round(30 * RATE)] = np.nan
    told = estimates(bundle, runtime, **given)
    all_or_nothing(told)
    (other,) = {"eeg", "ecg"} - {kind}
    for t in (30.0, 31.0, 32.0):
        assert told[t].present[kind] <= 0.5
        assert told[t].used == (other,)
    assert told[27.0].mean.tobytes() == sound[27.0].mean.tobytes()
    assert told[39.0].used == ("eeg", "ecg")


def test_with_half_of_both_missing_the_reason_names_both(bundle, runtime, signals):
    eeg, ecg = (data.copy() for data in signals)
    for data in (eeg, ecg):
        data[round(28 * RATE) : round(30 * RATE)] = np.nan
    told = estimates(bundle, runtime, eeg, ecg)
    all_or_nothing(told)
    assert told[31.0].withheld.startswith("EEG: ")
    assert ", ECG: " in told[31.0].withheld
    assert "% missing" in told[31.0].withheld


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e30])
def test_a_sample_that_is_no_measurement_never_becomes_a_silent_number(bundle, runtime, signals, sound, value):
    eeg, ecg = (data.copy() for data in signals)
    eeg[round(29 * RATE), 2] = value
    told = estimates(bundle, runtime, eeg, ecg)
    all_or_nothing(told)
    assert told[28.0].mean.tobytes() == sound[28.0].mean.tobytes()
    for t, estimate in told.items():
        if t > 33 and value == 1e30:
            # What is finite goes into the filters, which forget it slowly: one channel of six is bad, and counted so.
            assert estimate.quality < sound[t].quality - 0.1
        elif t > 33:  # the sample has left the window, and the filters
            assert estimate.mean == pytest.approx(sound[t].mean, abs=1e-3)


def test_a_channel_that_is_missing_from_the_headset_is_not_measured_and_below_the_least_number_nothing_is_used(
    bundle, runtime, signals
):
    eeg, ecg = signals
    told = estimates(bundle, runtime, eeg[:, :5], ecg, CHANNELS[:5])
    assert told[30.0].present["eeg"] == pytest.approx(5 / 6, abs=0.02)
    assert told[30.0].used == ("ecg",)  # 0.9 of the samples are needed
    told = estimates(bundle, runtime, eeg[:, :3], ecg, CHANNELS[:3])
    assert told[30.0].present["eeg"] == 0
    assert told[30.0].used == ("ecg",)

"""The made-up brain and what disturbs it: each part on its own, at its place, frequency and true time."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.signal import butter, find_peaks, sosfiltfilt, welch

from devices.synthetic import truth
from devices.synthetic_eeg import Eeg
from devices.synthetic_options import MONTAGE_19, read_options

PARTS = ("background", "alpha", "beta", "blink", "muscle", "line")
PLACE = {name: index for index, name in enumerate(MONTAGE_19)}


def only(part, *more):
    """Options with one part of the signal alone."""
    return read_options("&".join([*(f"{other}=0" for other in PARTS if other != part), *more]))


def made(options, seconds=120, begin=0):
    rate = options.eeg_rate
    return Eeg(options).samples(begin * rate, (begin + seconds) * rate).astype(float)


def spectrum(samples, rate=250):
    return welch(samples, rate, nperseg=4 * rate, axis=0)


def band(samples, low, high, rate=250):
    """Mean power density (channels,) from low to high Hz."""
    frequencies, power = spectrum(samples, rate)
    return power[(frequencies >= low) & (frequencies < high)].mean(axis=0)


def columns(*names):
    return [PLACE[name] for name in names]


@pytest.mark.parametrize("rate", [100, 250, 1000])
def test_the_background_falls_as_one_over_f_in_every_channel(rate):
    samples = made(only("background", f"eeg_rate={rate}"))
    frequencies, power = spectrum(samples, rate)
    inside = (frequencies >= 1) & (frequencies <= 30)
    slopes = np.polyfit(np.log10(frequencies[inside]), np.log10(power[inside]), 1)[0]
    assert np.all(np.abs(slopes + 1.0) < 0.2)
    np.testing.assert_allclose(samples.std(axis=0), 10.0, rtol=0.1)


def test_neighbouring_electrodes_share_more_than_distant_ones():
    together = np.corrcoef(made(only("background")).T)
    assert together[PLACE["O1"], PLACE["O2"]] > 0.3
    assert together[PLACE["Fp1"], PLACE["Fp2"]] > together[PLACE["Fp1"], PLACE["O2"]] + 0.2


def test_alpha_is_at_the_back_and_has_the_amplitude_that_was_asked_for():
    samples = made(only("alpha", "alpha=20", "eyes=closed"))
    frequencies, power = spectrum(samples)
    assert frequencies[power[:, PLACE["O1"]].argmax()] == pytest.approx(10.0, abs=1.0)
    level = samples.std(axis=0) * np.sqrt(np.pi / 2)
    assert np.all(np.abs(level[columns("O1", "O2")] - 20.0) < 3.0)
    assert np.all(level[columns("Fp1", "Fp2", "F3", "F4")] < 6.0)


def test_in_the_whole_signal_alpha_stands_out_at_the_back():
    samples = made(read_options("eyes=closed"))
    assert np.all(band(samples, 9, 11)[columns("O1", "O2")] > 5 * band(samples, 9, 11)[columns("Fp1", "Fp2")])
    assert np.all(band(samples, 9, 11)[columns("O1", "O2")] > 10 * band(samples, 13, 16)[columns("O1", "O2")])
    assert np.all(band(samples, 1, 4) > 3 * band(samples, 20, 40))


def test_open_eyes_halve_alpha_from_the_marker_on():
    samples = made(read_options("eyes=30:closed,30:open&blinks=0"), seconds=240)
    stages = samples.reshape(8, 30 * 250, 19)[:, 250:]
    closed, opened = (
        np.mean([band(stage, 9, 11)[columns("O1", "O2")] - 1.2 for stage in stages[k::2]]) for k in (0, 1)
    )
    assert opened < 0.5 * closed


def test_alpha_falls_and_beta_rises_with_arousal():
    levels = (0.0, 0.5, 1.0)
    people = [made(read_options(f"script=60:{level}&eyes=closed&muscle=0")) for level in levels]
    alpha = [band(samples, 9, 11)[columns("O1", "O2")].mean() for samples in people]
    beta = [band(samples, 15, 29)[columns("Fz", "Cz", "F3", "F4")].mean() for samples in people]
    assert alpha[0] > 1.5 * alpha[1] > 1.5 * 1.5 * alpha[2]
    assert beta[0] < beta[1] < beta[2]
    alone = [band(made(only("alpha", "eyes=closed", f"script=60:{level}")), 9, 11)[PLACE["O1"]] for level in levels]
    np.testing.assert_allclose(np.array(alone) / alone[0], [1.0, 0.65**2, 0.3**2], rtol=1e-3)


def test_the_stages_of_a_script_show_in_alpha_at_their_times():
    options = read_options("script=30:0,30:1&eyes=closed")
    sos = butter(2, (9, 11), "bandpass", fs=250, output="sos")
    power = sosfiltfilt(sos, made(options, 240)[:, PLACE["O1"]]) ** 2
    stages = power.reshape(8, 30 * 250)[:, 3 * 250 :].mean(axis=1)
    assert stages[0::2].min() > 1.5 * stages[1::2].max()


def test_blinks_are_at_the_front_at_their_true_times():
    options = read_options("seed=4&alpha=0&muscle=0&blink=150")
    samples = made(options)
    expected = truth(options, 119.0).blinks
    assert 15 < len(expected) < 45
    for name in ("Fp1", "Fp2"):
        slow = sosfiltfilt(butter(2, (0.5, 8), "bandpass", fs=250, output="sos"), samples[:, PLACE[name]])
        found, _ = find_peaks(slow, height=55.0, distance=100)
        distance = np.abs(found[None, :] / 250 - expected[:, None]).min(axis=1)
        assert np.mean(distance < 0.05) > 0.95
        assert len(found) <= len(expected) + 3
    share = only("blink", "seed=4")
    heights = np.abs(made(share)).max(axis=0)
    assert np.all(heights[columns("Fp1", "Fp2")] > 2 * np.delete(heights, columns("Fp1", "Fp2")).max())
    assert heights[PLACE["O1"]] < 0.05 * heights[PLACE["Fp1"]]


def test_closed_eyes_do_not_blink():
    assert np.abs(made(only("blink", "eyes=closed"))).max() == 0.0
    options = only("blink", "eyes=20:open,20:closed", "blinks=30")
    times = truth(options, 200.0).blinks
    assert len(times) > 20
    assert np.all(times % 40.0 < 20.3)


def test_muscle_bursts_are_high_and_temporal_and_come_at_their_true_times():
    options = only("muscle", "script=60:1")
    samples = made(options)
    frequencies, power = spectrum(samples)
    temporal = power[:, columns("T3", "T4")].sum(axis=1)
    assert temporal[(frequencies >= 20) & (frequencies <= 112)].sum() > 0.85 * temporal.sum()
    level = samples.std(axis=0)
    assert np.all(level[columns("T3", "T4")] > 3 * level[columns("Cz", "Pz", "Fz")].max())
    times = np.arange(len(samples)) / 250
    within = np.zeros(len(times), bool)
    for begin, end in truth(options, 120.0).bursts:
        assert 0.25 < end - begin < 1.25
        within |= (times > begin) & (times < end)
    assert 0.02 < within.mean() < 0.4
    assert np.abs(samples[~within]).max() == 0.0
    assert samples[within][:, columns("T3", "T4")].std() == pytest.approx(15.0, rel=0.2)


def test_with_arousal_muscle_bursts_come_more_often():
    calm, aroused = (len(truth(read_options(f"script=60:{level}"), 1800.0).bursts) / 30 for level in (0, 1))
    assert calm == pytest.approx(2.0, abs=0.8)
    assert aroused == pytest.approx(12.0, abs=2.0)


@pytest.mark.parametrize("mains", [50, 60])
def test_the_mains_is_one_line_at_its_frequency(mains):
    frequencies, power = spectrum(made(only("line", "line=40", f"mains={mains}"), 20))
    assert np.all(frequencies[power.argmax(axis=0)] == mains)
    beside = np.abs(frequencies - mains) <= 1.0
    assert np.all(power[beside].sum(axis=0) > 0.99 * power.sum(axis=0))
    np.testing.assert_allclose(np.sqrt(2 * 0.25 * power.sum(axis=0)).mean(), 40.0, rtol=0.25)


def test_an_amplifier_too_slow_for_the_mains_does_not_fold_it_down():
    assert np.abs(made(only("line", "line=40", "eeg_rate=100"), 5)).max() == 0.0


def test_the_signal_does_not_repeat_itself_and_does_not_drift():
    samples = made(read_options(""), seconds=600)[:, PLACE["Cz"]]
    minutes = samples.reshape(10, -1)
    together = np.corrcoef(minutes)[np.triu_indices(10, 1)]
    assert np.abs(together).max() < 0.1
    assert np.abs(minutes.mean(axis=1)).max() < 2.0

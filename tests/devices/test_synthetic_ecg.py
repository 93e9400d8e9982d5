"""The made-up heart: the published model, and the rate and variability that were asked for."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.integrate import solve_ivp
from scipy.interpolate import CubicSpline
from scipy.signal import find_peaks, periodogram

from devices import synthetic_ecg
from devices.synthetic import truth
from devices.synthetic_ecg import R_PEAK, Ecg
from devices.synthetic_options import Options, read_options

FIVE_MINUTES = 300.0


def intervals(options, begin=0.0, end=FIVE_MINUTES):
    peaks = truth(options, end + 10.0).r_peaks
    peaks = peaks[np.searchsorted(peaks, begin) : np.searchsorted(peaks, end) + 1]
    return peaks[:-1], np.diff(peaks)


def rmssd(rr):
    return 1000.0 * np.sqrt(np.mean(np.diff(rr) ** 2))


def lf_hf(times, rr):
    """By the bands of Task Force 1996, from the tachogram resampled at 4 Hz."""
    even = np.arange(times[0], times[-1], 0.25)
    frequencies, power = periodogram(CubicSpline(times, rr)(even), 4.0)
    lf, hf = ((frequencies >= low) & (frequencies < high) for low, high in ((0.04, 0.15), (0.15, 0.4)))
    return power[lf].sum() / power[hf].sum()


def detected(samples, rate):
    """R peaks in seconds by height and distance alone, refined by a parabola."""
    peaks, _ = find_peaks(samples, height=0.5 * np.percentile(samples, 99.5), distance=round(0.25 * rate))
    left, middle, right = samples[peaks - 1], samples[peaks], samples[peaks + 1]
    return (peaks + 0.5 * (left - right) / (left - 2 * middle + right)) / rate


# -- the tachogram ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize(
    ("bpm", "wanted", "ratio"), [(72.0, 40.0, 1.0), (60.0, 20.0, 3.0), (100.0, 30.0, 0.5), (50.0, 80.0, 2.0)]
)
def test_five_minutes_have_the_rate_rmssd_and_lf_hf_that_were_asked_for(seed, bpm, wanted, ratio):
    times, rr = intervals(Options(seed=seed, bpm=bpm, rmssd=wanted, lf_hf=ratio))
    assert 60.0 / rr.mean() == pytest.approx(bpm, rel=0.005)
    assert rmssd(rr) == pytest.approx(wanted, rel=0.03)
    assert lf_hf(times, rr) == pytest.approx(ratio, rel=0.15)


def test_an_independent_judge_finds_what_was_asked_for():
    neurokit = pytest.importorskip("neurokit2")
    peaks = truth(Options(bpm=66.0, rmssd=35.0, lf_hf=2.0), FIVE_MINUTES).r_peaks
    judged = neurokit.hrv_time(np.round(peaks * 1000).astype(int), sampling_rate=1000)
    assert float(judged["HRV_RMSSD"].iloc[0]) == pytest.approx(35.0, rel=0.03)
    assert 60_000.0 / float(judged["HRV_MeanNN"].iloc[0]) == pytest.approx(66.0, rel=0.005)


def test_no_variability_is_a_metronome_and_the_first_beat_is_half_an_interval_in():
    peaks = truth(Options(bpm=90.0, rmssd=0.0), 60.0).r_peaks
    np.testing.assert_allclose(peaks, (np.arange(90) + 0.5) * 60.0 / 90.0, atol=1e-9)


def test_arousal_raises_the_heart_rate_and_lf_hf_and_lowers_rmssd():
    calm, aroused = (intervals(read_options(f"script=60:{level}&bpm=70&rmssd=50&lf_hf=0.8")) for level in (0, 1))
    assert 60.0 / calm[1].mean() == pytest.approx(70.0, rel=0.01)
    assert 60.0 / aroused[1].mean() == pytest.approx(70.0 * 1.25, rel=0.01)
    assert rmssd(calm[1]) == pytest.approx(50.0, rel=0.05)
    assert rmssd(aroused[1]) == pytest.approx(50.0 * 0.4, rel=0.05)
    assert lf_hf(*calm) == pytest.approx(0.8, rel=0.15)
    assert lf_hf(*aroused) == pytest.approx(0.8 * 4, rel=0.15)


def test_every_stage_of_a_script_shows_in_the_beats():
    options = read_options("script=120:0,120:1")
    for begin, level in ((5.0, 0.0), (125.0, 1.0), (245.0, 0.0), (365.0, 1.0)):
        _, rr = intervals(options, begin, begin + 110.0)
        assert 60.0 / rr.mean() == pytest.approx(72.0 * (1.0 + 0.25 * level), rel=0.03)


@pytest.mark.parametrize("query", ["bpm=240&rmssd=150&lf_hf=20&script=60:1", "bpm=20&rmssd=150&lf_hf=20"])
def test_whatever_is_asked_for_the_heart_goes_on(query):
    _, rr = intervals(read_options(query))
    assert rr.min() > 0.05
    assert np.isfinite(Ecg(read_options(query)).samples(0, 130 * 20)).all()


# -- the signal ------------------------------------------------------------------------------------------------------


def test_the_wave_is_the_solution_of_the_three_published_equations(monkeypatch):
    """McSharry et al. 2003, equation (1) and Table I, by SciPy's integrator in x, y and z, at 60 beats a minute."""
    angles = np.array([-1 / 3, -1 / 12, 0, 1 / 12, 1 / 2]) * np.pi
    a, b = np.array([1.2, -5.0, 30.0, -7.5, 0.75]), np.array([0.25, 0.1, 0.1, 0.1, 0.4])

    def motion(time, state):
        x, y, z = state
        alpha, omega = 1.0 - np.hypot(x, y), 2 * np.pi
        away = np.mod(np.arctan2(y, x) - angles + np.pi, 2 * np.pi) - np.pi
        return [alpha * x - omega * y, alpha * y + omega * x, -np.sum(a * away * np.exp(-(away**2) / 2 / b**2)) - z]

    times = np.arange(10.0, 12.0, 0.002)
    # The first R peak, angle 0, is half a second in: at time 0 the point stands opposite, off the circle on purpose.
    solved = solve_ivp(motion, (0.0, 12.0), [-1.2, 0.0, 0.02], t_eval=times, max_step=0.002, rtol=1e-9).y[2]
    monkeypatch.setattr(synthetic_ecg, "NOISE", 0.0)
    monkeypatch.setattr(synthetic_ecg, "WANDER", 0.0)
    ours = Ecg(Options(bpm=60.0, rmssd=0.0, ecg_rate=500)).samples(5000, 6000)[:, 0]
    scale = R_PEAK * 2 * np.pi / (30.0 * 0.1**2)
    assert np.abs(ours - scale * solved).max() < 1.0  # of 1000 uV


@pytest.mark.parametrize(
    ("query", "tolerance"),
    [("", 0.004), ("ecg_rate=1000", 0.003), ("bpm=50&rmssd=80&ecg_rate=250", 0.004), ("bpm=120&rmssd=10", 0.004),
     ("script=20:0,20:1&seed=3", 0.004)],
)  # fmt: skip
def test_a_simple_detector_finds_every_r_peak_at_its_true_time(query, tolerance):
    options = read_options(query)
    samples = Ecg(options).samples(0, 120 * options.ecg_rate)[:, 0].astype(float)
    expected = truth(options, 119.9).r_peaks
    found = detected(samples, options.ecg_rate)[: len(expected)]
    assert len(found) == len(expected)
    assert np.abs(found - expected).max() < tolerance


def test_the_lead_looks_like_a_chest_lead():
    options = Options(bpm=60.0, ecg_rate=500)
    samples = Ecg(options).samples(0, 60 * 500)[:, 0]
    peaks = np.round(truth(options, 58.0).r_peaks[1:] * 500).astype(int)
    beat = np.mean([samples[p - 200 : p + 300] for p in peaks], axis=0)
    level = beat[400]
    assert 700 < beat[200] - level < 1300
    assert 100 < beat[100:180].max() - level < 0.5 * (beat[200] - level)  # P
    assert 100 < beat[260:400].max() - level < 0.5 * (beat[200] - level)  # T
    assert beat[180:200].min() < beat[170]  # Q
    assert beat[200:230].min() < level  # S


def test_the_baseline_has_settled_at_the_first_sample():
    samples = np.stack([Ecg(Options(seed=s)).samples(0, 130 * 20)[:, 0] for s in range(12)])
    medians = np.median(samples.reshape(12, 20, 130), axis=2).mean(axis=0)
    assert abs(medians[0] - medians[1:].mean()) < 60.0

"""Rhythms against MNE on the same window, against made spectra, and on people who close their eyes."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from devices.api import Chunk, StreamInfo
from realtime import bandpower
from realtime.bandpower import BANDS, BandPower, Pace
from realtime.intake import Intake
from realtime.rereference import average, bipolar

CHANNELS = ("Fp1", "F3", "F4", "O1")
RATE = 250.0


def stream(channels=CHANNELS, rate=RATE, unit="uV"):
    return StreamInfo(key="cap", kind="eeg", channels=tuple(channels), rate=rate, unit=unit)


def pink(seconds, channels=4, rate=RATE, exponent=1.0, seed=0):
    """Noise (n, channels) of about 10 uV whose power falls as 1/f^exponent, above 0.5 Hz."""
    n = round(seconds * rate)
    rng = np.random.default_rng(seed)
    f = np.fft.rfftfreq(n, 1 / rate)
    shape = np.where(f >= 0.5, np.maximum(f, 0.5) ** (-exponent / 2), 0.0)
    samples = np.fft.irfft(np.fft.rfft(rng.standard_normal((n, channels)), axis=0) * shape[:, None], n, axis=0)
    return 10 * samples / samples.std()


def wave(frequency, seconds, amplitude, rate=RATE):
    return amplitude * np.sin(2 * np.pi * frequency * np.arange(round(seconds * rate)) / rate)[:, None]


def chunk(samples, rate=RATE, start=100.0, key="cap"):
    return Chunk(key, start + np.arange(len(samples)) / rate, np.asarray(samples, np.float32))


def reports(samples, of=None, montage=None, **kwargs):
    of = of or stream()
    return BandPower(of, montage).push(chunk(samples, of.rate, **kwargs))


def bits(found):
    return [
        (r.time, r.labels, r.invalid, *(x.tobytes() for x in (r.absolute, r.relative, r.theta_beta, r.slope, r.peak)))
        for r in found
    ]


def test_powers_are_those_of_welch_in_mne_on_the_same_window(shared_data):
    mne = pytest.importorskip("mne")
    with np.load(shared_data / "eegmat" / "eegmat_28_people_128hz_int16_0p1uV.npz") as people:
        names = [str(name) for name in people["channels"]][:19]
        samples = (people["Subject00_1"][:19].T * people["scale_uV"]).astype(np.float32)[: 128 * 60]
    found = reports(samples, stream(names, 128.0), start=0.0)
    compared = 0
    for report in found[10::10]:
        end = round(report.time * 128)
        density, f = mne.time_frequency.psd_array_welch(
            samples[end - 512 : end].T.astype(float), 128.0, fmin=0, fmax=64, n_fft=256, n_per_seg=256, n_overlap=128,
            window="hann", verbose="error",
        )  # fmt: skip
        for name, (low, high) in BANDS.items():
            theirs = density[:, (f >= low) & (f < high)].sum(axis=1) * (f[1] - f[0])
            assert np.max(np.abs(report.band(name) / theirs - 1)) < 0.02
            compared += 1
    assert compared == 25


def test_a_wave_of_ten_microvolts_has_fifty_square_microvolts_in_its_band_at_any_rate_and_unit():
    for rate in (100.0, 128.0, 130.0, 250.0, 256.0, 500.0, 1000.0):
        report = reports(wave(10, 6, 10, rate) + 0.001 * pink(6, 1, rate), stream(["Cz"], rate))[-1]
        assert report.band("alpha") == pytest.approx(50, rel=0.01)
        assert report.band("alpha", relative=True) > 0.99
    report = reports(0.01 * wave(10, 6, 1.0) + 1e-6 * pink(6, 1), stream(["Cz"], unit="mV"))[-1]
    assert report.band("alpha") == pytest.approx(50, rel=0.01)


def test_bands_add_up_and_relative_powers_to_one():
    report = reports(pink(8))[-1]
    f, density = bandpower.spectrum(pink(4), RATE)
    whole = density[:, (f >= 1) & (f < 45)].sum(axis=1) * 0.5
    assert np.allclose(bandpower.band_powers(f, density).sum(axis=1), whole)
    assert np.allclose(report.relative.sum(axis=1), 1)


@pytest.mark.parametrize("exponent", [0.5, 1.0, 2.0])
def test_the_slope_of_made_noise_is_found_with_and_without_an_alpha_peak(exponent):
    plain = pink(60, exponent=exponent)
    assert reports(plain)[-1].slope == pytest.approx([-exponent] * 4, abs=0.16)
    peaked = reports(plain + wave(10.2, 60, 6))[-1]
    assert peaked.slope == pytest.approx([-exponent] * 4, abs=0.2)
    assert peaked.peak == pytest.approx([10.2] * 4, abs=0.15)


def test_noise_without_alpha_has_no_alpha_peak():
    assert np.isnan(reports(pink(60))[-1].peak).mean() >= 0.5


def test_slope_and_peak_wait_until_enough_is_averaged():
    found = reports(pink(30) + wave(10, 30, 8))
    valid = [r for r in found if not r.reason]
    assert np.isnan(valid[bandpower.SLOW_LEAST - 2].peak).all()
    assert np.isfinite(valid[bandpower.SLOW_LEAST - 1].peak).all()


def test_more_alpha_on_the_right_is_a_positive_asymmetry():
    samples = pink(6)
    samples[:, 1] += wave(10, 6, 10)[:, 0]
    samples[:, 2] += wave(10, 6, 20)[:, 0]
    ((pair, value),) = reports(samples)[-1].asymmetry
    assert pair == "F4-F3"
    assert value == pytest.approx(np.log(4), abs=0.3)


def test_theta_over_beta():
    report = reports(wave(6, 6, 20) + wave(20, 6, 10) + 0.01 * pink(6, 1), stream(["Cz"]))[-1]
    assert report.theta_beta == pytest.approx(4, rel=0.02)


def test_reports_lie_on_whole_seconds_and_use_only_what_was_before():
    samples = pink(12)
    first = reports(samples, start=99.7)
    later = samples.copy()
    later[round((105.0 - 99.7) * RATE) + 1 :] *= 50
    assert [r.time for r in first] == list(range(100, 112))
    assert [r.reason == "" for r in first] == [r.time >= 104 for r in first]
    assert bits(reports(later, start=99.7))[:6] == bits(first)[:6]


def faulty():
    whole = chunk(pink(20) + 5000)
    whole.times[2000:] += 0.05  # a short hole
    whole.times[3200:] += 2.2  # a long one
    whole.data[1200:1205, 2] = np.nan
    whole.data[4000:4200, 1] = np.nan
    whole.times[700] = np.nan
    return whole


@settings(deadline=None, max_examples=30)
@given(st.lists(st.integers(1, 4999), max_size=50))
def test_any_chunking_gives_the_same_bits(cuts):
    whole = faulty()
    made = BandPower(stream())
    found = []
    edges = [0, *sorted(set(cuts)), len(whole.times)]
    for a, b in pairwise(edges):
        found += made.push(Chunk("cap", whole.times[a:b], whole.data[a:b]))
    assert bits(found) == bits(BandPower(stream()).push(whole))
    made.reset()
    assert bits(made.push(whole)) == bits(found)


def test_sample_by_sample_gives_the_same_bits():
    whole = faulty()
    made = BandPower(stream())
    single = (Chunk("cap", whole.times[i : i + 1], whole.data[i : i + 1]) for i in range(len(whole.times)))
    assert bits(report for one in single for report in made.push(one)) == bits(BandPower(stream()).push(whole))


def test_after_a_gap_nothing_is_valid_until_four_seconds_are_there_and_the_reason_is_said():
    whole = chunk(pink(20))
    whole.times[2500:] += 3.0  # from 110 to 113
    found = {r.time: r for r in BandPower(stream()).push(whole)}
    assert found[110.0].reason == ""
    assert found[112.0].reason == "no samples for 2.0 s"
    assert found[115.0].reason == "2.0 s of signal after a gap, 4 s are needed"
    assert found[117.0].reason == ""
    assert np.isnan(found[115.0].absolute).all()


def test_missing_values_of_one_channel_leave_the_others():
    samples = pink(10)
    samples[1500:1600, 1] = np.nan
    samples[1500:1510, 2] = np.nan
    report = reports(samples)[-3]
    assert report.invalid == ("", "10 % missing", "", "")
    assert np.isnan(report.absolute[1]).all()
    assert np.isfinite(report.absolute[[0, 2, 3]]).all()


def test_a_flat_channel_has_no_rhythm():
    samples = pink(6)
    samples[:, 0] = 12.5
    assert reports(samples)[-1].invalid == ("flat", "", "", "")


@pytest.mark.parametrize(
    ("true", "fault"),
    [
        (250.0, ""),
        (245.0, ""),
        (230.0, "took"),
        (200.0, "took"),
        (125.0, "2.0 s of samples took 4.0 s: not the 250 Hz it says"),
        (270.0, "came in"),
    ],
)
def test_the_pace_of_a_stream_is_told_from_its_smoothed_stamps_and_the_holes_between_them(true, fault):
    intake, pace = Intake(250.0, 4096), Pace(250.0)
    times = np.arange(round(12 * true)) / true
    _, marks, stamps = intake.admit(times, np.zeros((len(times), 1), np.float32), 0)
    for at in range(len(stamps)):
        if marks[at]:
            pace.write(pace.between(stamps[at]), absent=True)
        pace.write(stamps[at : at + 1])
    assert fault in pace.fault()
    assert bool(pace.fault()) == bool(fault)
    pace.clear()
    assert (pace.fault(), pace.written) == ("", 0)


@pytest.mark.parametrize("true", [125.0, 220.0, 500.0])
def test_a_stream_that_does_not_run_at_its_rate_is_refused_in_words(true):
    samples = pink(20, rate=true)
    found = BandPower(stream()).push(Chunk("cap", np.arange(len(samples)) / true, samples.astype(np.float32)))
    assert all(report.reason for report in found)
    assert "% missing" in found[-1].reason or "not the 250 Hz it says" in found[-1].reason


def test_a_hole_of_an_hour_is_no_flood():
    made = BandPower(stream())
    whole = chunk(pink(20))
    whole.times[2500:] += 3600
    assert len(made.push(whole)) < 20 + 2 * bandpower.RESUME
    assert made.skipped > 3000


def test_too_slow_streams_wrong_shapes_and_montages_are_refused_in_words():
    with pytest.raises(ValueError, match=r"cap: 24\.8 Hz; band powers need at least 100 Hz"):
        BandPower(stream(rate=24.8))
    with pytest.raises(ValueError, match="no channel"):
        BandPower(stream(channels=()))
    with pytest.raises(ValueError, match="a montage of 5 channels, the stream has 4"):
        BandPower(stream(), average(["F3", "F4", "C3", "C4", "Cz"]))
    with pytest.raises(ValueError, match="stamps of 4 channels"):
        BandPower(stream()).push(Chunk("cap", np.arange(3.0), np.zeros((3, 2), np.float32)))


@pytest.mark.parametrize("channels", [1, 128])
def test_one_channel_and_many(channels):
    labels = [f"EXG {i}" for i in range(channels)]
    found = reports(pink(6, channels), stream(labels))[-1]
    assert found.absolute.shape == (channels, 5)
    assert np.isfinite(found.absolute).all()
    made = BandPower(stream(labels))
    assert not made.mapped
    assert np.isnan(made.positions).all()


def test_rhythms_of_a_montage_carry_its_labels_and_places():
    made = BandPower(stream(), bipolar(CHANNELS, [("F3", "F4")]))
    samples = pink(6)
    samples[1100:1200, 1] = np.nan
    found = made.push(chunk(samples))
    assert found[-1].labels == ("F3-F4",)
    assert found[-1].invalid == ("F3: 10 % missing",)


def auroc(high, low):
    return np.mean(np.asarray(high)[:, None] > np.asarray(low)[None])


def test_alpha_rises_when_a_person_closes_the_eyes(shared_data):
    lines = (shared_data / "emotiv_eye_state" / "EEG_Eye_State.arff").read_text().splitlines()
    names = [line.split()[1] for line in lines if line.startswith("@ATTRIBUTE")][:14]
    rows = np.array([[float(x) for x in line.split(",")] for line in lines if line[:1].isdigit()], np.float32)
    closed = rows[:, 14] > 0.5
    samples = rows[:, :14]
    samples[np.abs(samples - np.median(samples, axis=0)) > 500] = np.nan  # a few absurd spikes
    found = reports(samples, stream(names, 128.0), montage=average(names), start=0.0)
    back = [names.index(name) for name in ("O1", "O2")]
    alpha = {0: [], 1: []}
    for report in found:
        share = closed[round((report.time - 4) * 128) : round(report.time * 128)].mean() if report.time >= 4 else 0.5
        if share in (0, 1) and not report.reason:
            alpha[int(share)].append(report.band("alpha", relative=True)[back].mean())
    assert min(len(values) for values in alpha.values()) >= 20
    assert auroc(alpha[1], alpha[0]) > 0.6


def test_the_alpha_of_closed_eyes_is_seen_at_the_back_of_an_openbci_recording(shared_data):
    lines = (shared_data / "openbci" / "OpenBCI_GUI-v6-blinks-jawClench-alpha.txt").read_text().splitlines()
    samples = np.array([line.split(",")[1:9] for line in lines if line[:1].isdigit()], np.float32)
    labels = ("Fp1", "Fp2", "C3", "C4", "T5", "T6", "O1", "O2")  # how the headset of that recording is wired
    found = reports(samples, stream(labels), start=0.0)
    back = {report.time: report.band("alpha", relative=True)[-2:].mean() for report in found}
    before, during = ([back[float(t)] for t in range(*span)] for span in ((5, 24), (34, 72)))
    assert np.median(during) > 1.4 * np.median(before)
    assert auroc(during, before) > 0.9
    peaks = np.array([report.peak[-2:] for report in found if 40 <= report.time < 72])
    assert np.nanmean(np.abs(peaks - np.nanmedian(peaks)) < 0.5) > 0.9

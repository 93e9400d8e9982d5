"""What the verdicts say: of made signals with one fault each, and of real recordings whose faults are known."""

from __future__ import annotations

import numpy as np
import pytest

from devices.api import Chunk, StreamInfo
from models.api import InputSpec, WindowSpec
from offline_training.prepare import DEFAULT_GATE
from realtime import quality
from realtime.windows import iter_windows

RATE = 250.0
EEG = InputSpec(kind="eeg", channels=("CZ",))
ECG = InputSpec(kind="ecg", channels=("ECG",))


def verdict(samples, spec=EEG, unit="uV"):
    """Of the window from 3 to 13 s of ``samples`` (n,) at 250 Hz."""
    stream = StreamInfo(key="s", kind=spec.kind, channels=spec.channels, rate=RATE, unit=unit)
    chunk = Chunk("s", np.arange(len(samples)) / RATE, np.asarray(samples, np.float32)[:, None])
    windows = {window.t_end: window for window in iter_windows([chunk], WindowSpec(inputs=(spec,)), [stream])}
    return windows[13.0].quality[spec.kind][0]


def brain(seconds=14.0, sd=15.0, seed=0):
    """Noise whose power falls with frequency, as a brain's does."""
    n = round(seconds * RATE)
    frequencies = np.fft.rfftfreq(n, 1 / RATE)
    shape = np.where(frequencies >= 1, 1 / np.sqrt(np.maximum(frequencies, 1)), 0)
    samples = np.fft.irfft(np.fft.rfft(np.random.default_rng(seed).standard_normal(n)) * shape, n)
    return sd * samples / samples.std()


def heart(height=800.0, seconds=14.0):
    times = np.arange(round(seconds * RATE)) / RATE
    return height * np.exp(-((((times + 0.4) % 0.8 - 0.4) / 0.012) ** 2)) + np.random.default_rng(0).normal(
        0, 3, len(times)
    )


def test_a_good_channel_has_no_reason():
    assert (verdict(brain()).score, verdict(brain()).reason) == (1.0, "")
    assert (verdict(heart(), ECG).score, verdict(heart(), ECG).reason) == (1.0, "")


@pytest.mark.parametrize("level", [0.0, 4200.0, -187500.0])
def test_a_constant_is_flat_whatever_its_level(level):
    assert verdict(np.full(3500, level)).reason == "flat"
    assert verdict(np.full(3500, level)).score == 0


def test_a_whisper_of_noise_is_flat():
    assert verdict(brain(sd=0.2)).reason == "flat"


def test_a_railed_stretch_is_said_with_its_share():
    samples = brain()
    samples[round(9.6 * RATE) :] = 187.5
    assert verdict(samples).reason == "railed 34 % of the time"
    assert verdict(samples).score == pytest.approx(0.32, abs=0.01)


def test_large_amplitude_is_doubtful_and_then_bad():
    assert verdict(brain(sd=60)).reason.startswith("amplitude ")
    assert 0.3 < verdict(brain(sd=75)).score < 0.99
    assert verdict(brain(sd=400)).score == 0


def test_one_spike_is_no_bad_channel():
    samples = brain()
    samples[-1000] += 2_000
    assert verdict(samples).score > 0.5


def test_missing_samples_are_said_with_their_share():
    samples = brain()
    samples[round(9.9 * RATE) : round(13.2 * RATE)] = np.nan
    assert verdict(samples).reason == "31 % missing"
    assert verdict(samples).level == "bad"


@pytest.mark.parametrize(("seconds", "level"), [(0.4, "good"), (1.0, "doubtful"), (1.9, "doubtful"), (5.0, "bad")])
def test_a_channel_of_which_the_gate_would_refuse_the_kind_is_bad(seconds, level):
    samples = np.concatenate([brain(), np.full(500, np.nan)])
    samples[round((13 - seconds) * RATE) :] = np.nan
    found = verdict(samples)
    assert found.level == level
    if level != "good":
        assert found.reason == f"{10 * seconds:.0f} % missing"
    assert 1 - quality.MISSED[1] == pytest.approx(DEFAULT_GATE.min_present["eeg"])


@pytest.mark.parametrize("rate", [128.0, 200.0, 250.0, 500.0, 512.0, 1000.0])
@pytest.mark.parametrize("first", [0, 1, 2])
def test_every_fifth_value_that_is_no_number_is_a_fifth_missing_at_any_rate(rate, first):
    samples = np.interp(np.arange(round(14 * rate)) / rate, TIMES, brain())
    samples[first::5] = np.nan
    (found,) = window(samples[:, None], ["Cz"], rate=rate)
    assert found.reason == "20 % missing"


@pytest.mark.parametrize("scale", [1e6, 1e30])
def test_absurd_values_are_said_in_words_that_fit_a_screen(scale):
    assert verdict(scale * brain()).reason == "amplitude above 10^6 uV"
    assert verdict(scale * heart(), ECG).reason == "amplitude above 10^6 uV"
    assert len(window((scale * TIMES)[:, None], ["Cz"])[0].reason) < 60


def test_a_lead_without_heart_is_bad_though_it_is_not_flat():
    found = verdict(heart(height=40), ECG)
    assert found.score < 0.2
    assert found.reason.startswith("amplitude ")


def test_limits_hold_in_any_unit():
    for stream_unit, factor in (("mV", 1e-3), ("V", 1e-6)):
        assert verdict(heart() * factor, ECG, stream_unit).score == 1
        assert verdict(heart(height=40) * factor, ECG, stream_unit).score < 0.2
    in_millivolts = InputSpec(kind="ecg", channels=("ECG",), unit="mV")
    assert verdict(heart(), in_millivolts).score == 1
    assert verdict(heart(height=40), in_millivolts).score < 0.2


TIMES = np.arange(round(14 * RATE)) / RATE


def window(samples, labels, notch=(), rate=RATE, seconds=10.0):
    """The last window of ``samples`` (n, channels)."""
    spec = WindowSpec(inputs=(InputSpec(kind="eeg", channels=tuple(labels), notch=notch),), seconds=seconds)
    stream = StreamInfo(key="s", kind="eeg", channels=tuple(labels), rate=rate, unit="uV")
    chunk = Chunk("s", np.arange(len(samples)) / rate, np.asarray(samples, np.float32))
    return list(iter_windows([chunk], spec, [stream]))[-1].quality["eeg"]


def cap(count, seconds=14.0):
    return np.stack([brain(seconds, seed=i) for i in range(count)], axis=1)


@pytest.mark.parametrize("mains", [50.0, 60.0])
def test_mains_are_said_with_their_share_of_the_raw_power(mains):
    samples = cap(1)
    samples[:, 0] += 40 * np.sqrt(2) * np.sin(2 * np.pi * mains * TIMES)
    (found,) = window(samples, ["Fp1"])
    share = 100 * 1600 / (1600 + 225)
    said, percent = found.reason.split(" Hz is ")
    assert said == f"{mains:g}"
    assert float(percent.split()[0]) == pytest.approx(share, abs=4)
    assert found.level == ("bad" if mains == 50 else "doubtful")  # at 60 Hz the band's edge takes nine tenths of it


def test_mains_that_the_filters_take_away_are_said_but_the_channel_counts():
    samples = cap(1)
    samples[:, 0] += 100 * np.sin(2 * np.pi * 50 * TIMES)
    (without,), (notched,) = window(samples, ["Fp1"]), window(samples, ["Fp1"], notch=(50.0,))
    assert (without.level, notched.level) == ("bad", "doubtful")
    assert without.reason == notched.reason == "50 Hz is 96 % of power"


@pytest.mark.parametrize(("share", "level"), [(0.1, "good"), (0.33, "doubtful"), (0.61, "doubtful"), (0.9, "bad")])
def test_mains_of_a_third_of_the_power_are_said(share, level):
    samples = cap(1)
    samples[:, 0] += 15 * np.sqrt(2 * share / (1 - share)) * np.sin(2 * np.pi * 50 * TIMES)
    (found,) = window(samples, ["Cz"])
    assert found.level == level
    if level != "good":
        said, percent = found.reason.split(" Hz is ")
        assert said == "50"
        assert float(percent.split()[0]) == pytest.approx(100 * share, abs=4)


def test_mains_on_all_channels_are_said_to_be_mains_and_not_one_signal():
    samples = cap(4) + 400 * np.sin(2 * np.pi * 50 * TIMES)[:, None]
    assert {v.reason for v in window(samples, ["Fp1", "C3", "Cz", "O1"])} == {"50 Hz is 100 % of power"}


def test_an_electrode_that_gives_noise_only_is_bad():
    samples = cap(2)
    samples[:, 1] = np.random.default_rng(1).normal(0, 15, len(samples))
    good, noisy = window(samples, ["C3", "C4"])
    assert good.level == "good"
    assert noisy.level == "bad"
    assert noisy.reason.startswith("noise: ")


def test_muscle_is_said_with_its_seconds():
    samples = cap(1)
    burst = (TIMES >= 6) & (TIMES < 8)
    samples[burst, 0] += np.random.default_rng(1).normal(0, 60, burst.sum())
    (found,) = window(samples, ["T7"])
    assert found.level == "doubtful"
    assert found.reason == "muscle in 2 of 10 s"


def test_blinks_are_said_on_frontal_channels_and_count():
    samples = cap(2)
    for at in np.arange(4.5, 13, 1.7):
        samples += 150 * np.exp(-(((TIMES - at) / 0.08) ** 2))[:, None] * (1.0, 0.95)
    fp1, o1 = window(samples, ["Fp1", "O1"])
    assert fp1.level == "doubtful"
    assert fp1.reason.endswith(" blinks")
    assert "blinks" not in o1.reason


def test_a_headset_on_a_desk_is_not_good_however_plausible_its_signal():
    same = brain(sd=12.4)
    found = window(np.repeat(same[:, None], 8, 1), ["Fp1", "Fp2", "F3", "F4", "C3", "C4", "O1", "O2"])
    assert {(v.level, v.reason) for v in found} == {("bad", "the same as 7 other channels")}
    slightly = same[:, None] + np.stack([brain(sd=0.3, seed=i) for i in range(1, 9)], axis=1)
    assert {v.level for v in window(slightly, ["Fp1", "Fp2", "F3", "F4", "C3", "C4", "O1", "O2"])} == {"bad"}


def test_two_bridged_electrodes_are_named_and_count():
    samples = cap(5)
    samples[:, 3] = samples[:, 1] + 0.5 * samples[:, 4] * 0.1
    found = window(samples, ["Fp1", "F3", "Cz", "C3", "O1"])
    assert [v.reason for v in found] == ["", "the same as C3: bridged?", "", "the same as F3: bridged?", ""]
    assert found[1].level == "doubtful"


@pytest.mark.parametrize("factor", [1.0, 0.7, 1.4, -1.0, -0.7])
def test_a_copy_of_a_channel_is_bad_be_it_scaled_or_upside_down(factor):
    samples = cap(5)
    samples[:, 3] = factor * samples[:, 1]
    found = window(samples, ["Fp1", "F3", "Cz", "C3", "O1"])
    assert [v.level for v in found] == ["good", "bad", "good", "bad", "good"]
    times = "" if factor == 1 else f" times {factor:.2g}"
    assert found[3].reason == f"a copy of F3{times}"
    assert found[1].reason.startswith("a copy of C3")


@pytest.mark.parametrize("factor", [0.7, 1.4, -1.0])
def test_a_bridge_is_told_though_one_of_the_two_is_larger_or_upside_down(factor):
    samples = cap(6)
    samples[:, 3] = factor * (samples[:, 1] + 0.06 * samples[:, 5])
    found = window(samples[:, :5], ["Fp1", "F3", "Cz", "C3", "O1"])
    assert [v.reason for v in found] == ["", "the same as C3: bridged?", "", "the same as F3: bridged?", ""]
    assert found[1].level == "doubtful"


def test_neighbours_that_have_much_in_common_are_good():
    samples = cap(5)
    samples[:, 3] = samples[:, 1] + 0.15 * samples[:, 4]
    assert {v.level for v in window(samples, ["Fp1", "F3", "Cz", "C3", "O1"])} == {"good"}


@pytest.mark.parametrize(("alike", "count"), [(2, 2), (3, 4), (4, 8), (8, 8)])
def test_identical_channels_are_bad_however_many_others_there_are(alike, count):
    samples = cap(count)
    samples[:, :alike] = samples[:, :1]
    found = window(samples, ["Fp1", "Fp2", "F3", "F4", "C3", "C4", "O1", "O2"][:count])
    assert [v.level for v in found] == ["bad"] * alike + ["good"] * (count - alike)


def test_a_spike_that_all_channels_have_makes_them_no_copies():
    samples = cap(4)
    samples[round(8 * RATE) : round(8.02 * RATE)] += 20_000
    assert not {
        v.reason for v in window(samples, ["Fp1", "Fp2", "O1", "O2"]) if "same" in v.reason or "copy" in v.reason
    }


def test_a_movement_of_four_seconds_that_all_channels_show_makes_them_no_copies():
    samples = cap(4) / 4
    moving = (TIMES >= 6) & (TIMES < 10)
    movement = np.convolve(np.random.default_rng(9).standard_normal(moving.sum()), np.ones(25) / 5, "same")
    samples[moving] += 60 * movement[:, None]
    found = window(samples, ["Fp1", "Fp2", "O1", "O2"])
    assert not any("same" in v.reason or "copy" in v.reason for v in found)


def test_channels_that_are_hardly_there_are_not_said_to_be_the_same():
    samples = np.repeat(cap(1), 2, axis=1)
    samples[round(4.0 * RATE) :, 1] = np.nan
    assert not any("copy" in v.reason or "same" in v.reason for v in window(samples, ["Fp1", "Fp2"]))


def test_values_that_are_sent_twice_are_said():
    (found,) = window(np.repeat(cap(1)[::2], 2, axis=0), ["Cz"])
    assert found.reason == "50 % of the samples repeat the one before"
    assert found.level == "doubtful"


def test_a_saturated_channel_is_told_though_it_is_never_at_its_limit_for_long():
    samples = cap(1)
    samples[:, 0] = np.clip(samples[:, 0] + 300 * np.sin(2 * np.pi * 47 * TIMES), -187.5, 187.5)
    (found,) = window(samples, ["Cz"])
    assert found.level == "bad"
    assert found.reason.startswith("saturated: ")


def test_slow_drift_is_said_and_counts():
    (found,) = window(cap(1) + 300 * TIMES[:, None], ["Cz"])
    assert found.level == "doubtful"
    assert found.reason.startswith("drift of 270")


def test_a_lead_whose_beats_do_not_look_alike_is_bad():
    noise = 400 * np.random.default_rng(3).standard_normal(3500)
    noise = np.convolve(noise, np.ones(5) / 5, "same")
    found = verdict(noise, ECG)
    assert found.level == "bad"
    assert found.reason.startswith("beats agree by 0.")


def test_a_heart_that_stops_is_said():
    samples = heart()
    samples[round(6 * RATE) : round(10.5 * RATE)] = np.random.default_rng(0).normal(0, 3, round(4.5 * RATE))
    assert verdict(samples, ECG).level == "bad"
    assert verdict(samples, ECG).reason.startswith("no beat for 5.")


def beating(interval, height=800.0, noise=3.0):
    """A lead with a beat every ``interval`` seconds."""
    phase = (TIMES + interval / 2) % interval - interval / 2
    return height * np.exp(-((phase / 0.012) ** 2)) + np.random.default_rng(0).normal(0, noise, len(TIMES))


@pytest.mark.parametrize(("interval", "said"), [(2.5, "24 beats per minute"), (0.271, "222 beats per minute")])
def test_a_rate_that_no_heart_has_is_said(interval, said):
    found = verdict(beating(interval), ECG)
    assert (found.level, found.reason) == ("bad", said)


@pytest.mark.parametrize("pulse", [33, 60, 120, 200])
def test_a_rate_that_a_heart_may_have_is_good(pulse):
    assert verdict(beating(60 / pulse), ECG).level == "good"


@pytest.mark.parametrize(("wiggle", "low", "high", "level"), [(0.72, 0.70, 0.82, "doubtful"), (1.2, 0.42, 0.62, "bad")])
def test_how_alike_the_beats_are_decides_of_a_lead(wiggle, low, high, level):
    """Beats of one shape, each with a wiggle of its own around it."""
    rng = np.random.default_rng(1)
    samples = beating(0.8, height=1500)
    for at in np.arange(0.0, 13.9, 0.8):
        own = np.convolve(rng.standard_normal(160), np.ones(12) / 12, "same") * np.hanning(160)
        begin = max(0, round(at * RATE) - 60)
        piece = own[: len(samples) - begin]
        samples[begin : begin + len(piece)] += 1500 * wiggle * piece
    found = verdict(samples, ECG)
    assert found.reason.startswith("beats agree by ")
    assert low < float(found.reason.split()[3]) < high
    assert found.level == level


def test_extra_beats_do_not_make_a_lead_bad():
    samples = heart()
    for at in (5.0, 8.2, 11.4):
        early = -1200 * np.exp(-(((TIMES - at) / 0.04) ** 2))
        samples = samples + early
    assert verdict(samples, ECG).level != "bad"


def test_an_inverted_lead_is_as_good():
    assert verdict(-heart(), ECG).level == "good"


@pytest.mark.parametrize("count", [1, 128])
def test_one_channel_and_many_are_judged(count):
    found = window(cap(count), [f"E{i}" for i in range(count)])
    assert [v.level for v in found] == ["good"] * count


@pytest.mark.parametrize("rate", [100.0, 128.0, 130.0, 250.0, 512.0])
def test_clean_signals_are_good_at_any_rate(rate):
    samples = np.interp(np.arange(round(13 * rate)) / rate, TIMES, brain())[:, None]
    assert window(samples, ["Cz"], rate=rate)[0].level == "good"


def test_nothing_but_not_a_number_is_missing():
    assert {v.reason for v in window(np.full((3500, 2), np.nan), ["C3", "C4"])} == {"missing"}


@pytest.mark.parametrize(
    ("recording", "lost"),
    [
        ("Subject02_1", True),
        ("Subject13_1", True),
        ("Subject20_2", True),
        ("Subject35_2", True),
        ("Subject02_2", False),
        ("Subject05_1", False),
        ("Subject28_1", False),
        ("Subject33_2", False),
    ],
)
def test_real_ecg_that_is_lost_is_bad_and_the_rest_is_good(shared_data, recording, lost):
    with np.load(shared_data / "eegmat" / "eegmat_28_people_128hz_int16_0p1uV.npz") as people:
        labels = tuple(str(label) for label in people["channels"])
        samples = (people[recording].T * people["scale_uV"]).astype(np.float32)
    stream = StreamInfo(key="amp", kind="eeg", channels=labels, rate=128.0, unit="uV")
    spec = WindowSpec(inputs=(InputSpec(kind="eeg", channels=labels[:19]), ECG), hop=5.0)
    windows = list(iter_windows([Chunk("amp", np.arange(len(samples)) / 128, samples)], spec, [stream]))
    scores = np.array([window.quality["ecg"][0].score for window in windows])
    assert np.mean(scores < 0.5) > 0.9 if lost else np.mean(scores > 0.9) > 0.9
    brain = np.array([[v.score for v in window.quality["eeg"]] for window in windows])
    assert np.mean(brain > 0.5) > 0.97

"""Heart and rhythms of a session: the same however it is cut, whatever is missing, in any unit."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
from scipy import signal

from devices.api import Chunk, StreamInfo
from models.api import InputSpec, WindowSpec
from realtime import bandpower, hrv
from realtime.api import BANDS, BODY_COLUMNS, HEART_COLUMNS, Beats, Body
from realtime.heart import INTERVALS
from realtime.physiology import PATIENCE, Physiology
from realtime.sources import choose

CAP = StreamInfo(key="cap", kind="eeg", channels=("F3", "F4", "Cz", "AUX"), rate=250.0, unit="uV")
STRAP = StreamInfo(key="strap", kind="ecg", channels=("ECG",), rate=130.0, unit="uV")
SECONDS = 70.0
FORGOTTEN = 1000
"""Seconds of a recording of which the first beats are forgotten, after 600 s."""
START = 500.3


def eeg(seconds=SECONDS, rate=250.0, channels=4):
    """White noise of 5 uV and alpha of 20 uV at 10 Hz, (n, channels) uV; the right side has twice the alpha."""
    n = round(seconds * rate)
    alpha = 20 * np.sin(2 * np.pi * 10 * np.arange(n) / rate)
    return 5 * np.random.default_rng(1).standard_normal((n, channels)) + alpha[:, None] * (
        1 + (np.arange(channels) == 1)
    )


def ecg(seconds=SECONDS, rate=130.0, early=None):
    """75 beats a minute of 1 mV, every fourth interval 40 ms longer, (n, 1) uV; ``early`` is a premature beat."""
    t = np.arange(round(seconds * rate)) / rate
    beats = np.cumsum(0.8 + 0.04 * (np.arange(round(seconds / 0.8) + 2) % 4 == 0))
    if early is not None:
        beats[early] -= 0.35
    rows = 5 * np.random.default_rng(2).standard_normal(len(t))
    for height, width, shift in ((1000, 0.012, 0.0), (90, 0.02, -0.15), (250, 0.045, 0.25)):
        rows += height * np.exp(-0.5 * ((t[:, None] - beats - shift) / width) ** 2).sum(axis=1)
    return rows[:, None]


def cut(stream, samples, sizes, start=START, late=0.0):
    """Chunks of ``samples`` in turns of ``sizes``; each with the time at which it comes."""
    found, at, turn = [], 0, 0
    while at < len(samples):
        n = sizes[turn % len(sizes)]
        times = start + np.arange(at, min(at + n, len(samples))) / stream.rate
        found.append((times[-1] + late, Chunk(stream.key, times, samples[at : at + n].astype(np.float32))))
        at, turn = at + n, turn + 1
    return found


def merged(*parts):
    return [chunk for _, chunk in sorted(itertools.chain(*parts), key=lambda part: part[0])]


def run(physiology, chunks):
    found = [update for chunk in chunks for update in physiology.push(chunk)] + physiology.finish()
    return [x for x in found if isinstance(x, Body)], [x for x in found if isinstance(x, Beats)]


def bits(bodies):
    """Everything that bodies say, to the last bit."""
    return [
        (
            body.time,
            np.array(body.values()).tobytes(),
            {name: (repr(one.value), one.reason, one.seconds, one.corrected) for name, one in body.heart.items()},
            body.reason,
            body.intervals.tobytes(),
            [(b.absolute.tobytes(), b.slopes.tobytes(), b.invalid, b.reason, repr(b.asymmetry)) for b in body.brains],
        )
        for body in bodies
    ]


def value(body, column):
    return body.values()[list(BODY_COLUMNS).index(column)]


@pytest.fixture(scope="module")
def whole():
    return run(Physiology([CAP, STRAP]), merged(cut(CAP, eeg(), [25]), cut(STRAP, ecg(), [73])))


def test_a_session_has_heart_and_rhythms_once_a_second(whole):
    bodies, beats = whole
    assert [body.time for body in bodies] == list(range(501, 501 + len(bodies)))
    assert len(bodies) == 71  # the last second is cut short
    last = bodies[-2]
    assert value(last, "hr") == pytest.approx(60 / 0.81, rel=0.01)
    assert last.heart["HR"].unit == "bpm"
    assert value(last, "rmssd") == pytest.approx(40 / math.sqrt(2), rel=0.08)
    assert last.heart["RMSSD"].seconds == pytest.approx(60, abs=1)
    assert value(last, "corrected") == 0
    assert math.isnan(value(last, "lf_hf"))
    assert "needs 120 s" in last.heart["LF/HF"].reason
    assert value(last, "alpha") == pytest.approx((200 + 800 + 200) / 3, rel=0.03)  # Cz, F3 and F4, not AUX
    assert last.brains[0].averaged == 3
    assert value(last, "alpha_share") > 95
    assert value(last, "asymmetry") == pytest.approx(math.log(4), abs=0.05)
    assert value(last, "alpha_peak") == pytest.approx(10, abs=0.2)
    times = np.concatenate([one.times for one in beats])
    assert len(times) == 86
    assert np.all(np.diff(times) > 0.75)
    assert {one.channel for one in beats} == {"ECG"}
    waves = np.concatenate([one.waves for one in beats])
    order = np.diff(waves[~np.isnan(waves).any(axis=1)], axis=1)
    assert len(order) > 60
    assert np.all(order > 0)


def test_every_beat_is_told_once_with_its_interval_and_a_premature_one_is_left_out():
    samples = ecg(early=40)
    bodies, beats = run(Physiology([STRAP]), merged(cut(STRAP, samples, [73])))
    rows = np.concatenate([body.intervals for body in bodies])
    times = np.concatenate([one.times for one in beats])
    np.testing.assert_array_equal(rows[:, 0], times)
    assert math.isnan(rows[0, 1])
    np.testing.assert_allclose(rows[1:, 1], np.diff(rows[:, 0]), rtol=1e-12)
    assert rows[1:, 2].tolist() == [float(i not in (40, 41)) for i in range(1, len(rows))]
    assert 0 < value(bodies[-1], "corrected") < 5


def test_the_end_decides_of_the_last_beats_once_and_has_no_rhythms_of_a_second_that_is_not_whole():
    physiology = Physiology([CAP, STRAP])
    before = [
        update
        for chunk in merged(cut(CAP, eeg(20), [25]), cut(STRAP, ecg(20), [73]))
        for update in physiology.push(chunk)
    ]
    end = physiology.finish()
    assert physiology.finish() == []
    bodies = [update for update in before if isinstance(update, Body)]
    beats = np.concatenate([update.times for update in before if isinstance(update, Beats)])
    rows = np.concatenate([body.intervals for body in bodies])
    assert 3 <= len(beats) - len(rows) <= 5
    np.testing.assert_array_equal(np.concatenate([rows[:, 0], *(body.intervals[:, 0] for body in end)]), beats)
    assert [body.time for body in (*bodies, *end)] == list(range(501, 522))
    assert end[-1].brains == ()
    assert end[-1].intervals[:, 2].tolist() == [1.0] * len(end[-1].intervals)
    assert value(end[-1], "hr") == pytest.approx(60 / 0.81, rel=0.02)


def test_a_strap_that_was_gone_before_the_end_has_its_last_beats_decided_and_no_figures():
    bodies, beats = run(Physiology([CAP, STRAP]), merged(cut(CAP, eeg(30), [25]), cut(STRAP, ecg(20), [73])))
    rows = np.concatenate([body.intervals for body in bodies])
    np.testing.assert_array_equal(rows[:, 0], np.concatenate([one.times for one in beats]))
    assert bodies[-1].reason == "strap: no samples, or more than 3 s late"
    assert len(bodies[-1].intervals) >= 3


@pytest.mark.parametrize("sizes", [([1], [1]), ([7, 300, 64], [13]), ([500], [260]), ([250, 3], [72, 74])])
def test_any_cut_of_the_chunks_gives_the_same_to_the_last_bit(whole, sizes):
    bodies, beats = run(Physiology([CAP, STRAP]), merged(cut(CAP, eeg(), sizes[0]), cut(STRAP, ecg(), sizes[1])))
    assert bits(bodies) == bits(whole[0])
    for name in ("times", "amplitudes", "confidences", "waves"):
        ours, theirs = (np.concatenate([getattr(one, name) for one in found]) for found in (beats, whole[1]))
        np.testing.assert_array_equal(ours, theirs)


def test_a_replay_that_is_wound_back_says_the_same_again(whole):
    chunks = merged(cut(CAP, eeg(), [25]), cut(STRAP, ecg(), [73]))
    physiology = Physiology([CAP, STRAP])
    run(physiology, chunks[: len(chunks) // 2])
    physiology.reset()
    assert bits(run(physiology, chunks)[0]) == bits(whole[0])


def test_a_strap_that_falls_silent_takes_its_own_figures_with_it_and_brings_them_back():
    strap = [part for part in cut(STRAP, ecg(), [73]) if not START + 30 < part[0] < START + 45]
    chunks = merged(cut(CAP, eeg(), [25]), strap)
    physiology, bodies, lag = Physiology([CAP, STRAP]), [], []
    for chunk in chunks:
        for update in physiology.push(chunk):
            if isinstance(update, Body):
                bodies.append(update)
                lag.append(chunk.times[-1] - update.time)
    silent = [body for body in bodies if not body.heart]
    assert {body.reason for body in silent} == {"strap: no samples, or more than 3 s late"}
    assert [body.time for body in silent] == list(range(531, 546))
    assert all(np.isfinite(body.brains[0].shares).all() for body in bodies[5:])
    assert max(lag) < PATIENCE + 1.5
    assert lag[bodies.index(silent[-2])] < 0.5  # nobody waits for it any more
    assert np.isfinite(value(bodies[-1], "hr"))


def test_without_an_ecg_or_without_eeg_what_there_is_is_given_and_what_is_not_is_said():
    bodies, beats = run(Physiology([CAP]), merged(cut(CAP, eeg(6), [25])))
    assert beats == []
    assert bodies[-1].reason == "no ECG: no stream carries it"
    assert value(bodies[-1], "alpha") > 100
    bodies, _ = run(Physiology([STRAP]), merged(cut(STRAP, ecg(12), [73])))
    assert np.isfinite(value(bodies[-1], "hr"))
    assert bodies[-1].brains == ()
    assert Physiology([]).empty
    assert not Physiology([STRAP]).empty


def test_an_ecg_lead_of_the_amplifier_is_followed_and_is_no_eeg():
    both = StreamInfo(key="amp", kind="eeg", channels=("Fp1", "O1", "ECG"), rate=250.0, unit="uV")
    samples = np.concatenate([eeg(20, channels=2), ecg(20, 250.0)], axis=1)
    bodies, beats = run(Physiology([both]), merged(cut(both, samples, [40])))
    assert value(bodies[-1], "hr") == pytest.approx(60 / 0.81, rel=0.01)
    assert bodies[-2].brains[0].averaged == 2
    assert beats[0].channel == "ECG"


def spoilt(since=30.0, until=50.0, channel=1):
    """`eeg` with noise of 300 uV in one channel for a while."""
    samples = eeg()
    part = slice(round(since * CAP.rate), round(until * CAP.rate))
    samples[part, channel] = np.random.default_rng(7).normal(0, 300, part.stop - part.start)
    return samples


def test_a_bad_channel_is_in_no_figure_of_the_rhythms_is_said_and_comes_back_when_it_is_good():
    bodies = run(Physiology([CAP]), merged(cut(CAP, spoilt(), [25])))[0]
    alone = StreamInfo(key="cap", kind="eeg", channels=("F3", "Cz"), rate=250.0, unit="uV")
    others = run(Physiology([alone]), merged(cut(alone, spoilt()[:, [0, 2]], [25])))[0]
    while_bad = [at for at, body in enumerate(bodies) if START + 32 < body.time < START + 50]
    assert len(while_bad) == 18
    for at in while_bad:
        brain, without = bodies[at].brains[0], others[at].brains[0]
        assert brain.averaged == 2
        assert brain.invalid[1].startswith("amplitude ")
        assert [(one.channel, one.level) for one in brain.verdicts] == [("F3", "good"), ("F4", "bad"), ("Cz", "good")]
        assert brain.remark == f"without F4 ({brain.invalid[1]})"
        assert brain.absent["asymmetry"] == f"F4: {brain.invalid[1]}"
        assert math.isnan(value(bodies[at], "asymmetry"))
        assert np.isnan(brain.absolute[1]).all()
        for name in ("powers", "shares", "theta_beta", "slope", "peak"):
            np.testing.assert_array_equal(getattr(brain, name), getattr(without, name))
    for body in (bodies[20], bodies[-1]):
        assert body.brains[0].averaged == 3
        assert body.brains[0].remark == ""
        assert value(body, "asymmetry") == pytest.approx(math.log(4), abs=0.05)
    assert bodies[-1].brains[0].slopes[1] == pytest.approx(bodies[-1].brains[0].slopes[0], abs=0.3)


def test_when_every_channel_is_bad_there_are_no_rhythms_and_it_is_said_what_is_wrong():
    loud = 400 * np.random.default_rng(3).standard_normal((2500, 4))
    body = run(Physiology([CAP]), merged(cut(CAP, loud, [25])))[0][-1]
    assert body.brains[0].reason.startswith("no usable channel: F3 (amplitude 1")
    assert np.isnan([value(body, name) for name in ("alpha", "alpha_share", "theta_beta", "asymmetry", "slope")]).all()


def test_a_cap_without_a_unit_or_of_very_many_samples_a_second_is_not_judged_and_that_is_said():
    raw = replace(CAP, unit="counts")
    body = run(Physiology([raw]), merged(cut(raw, spoilt(0, 10)[:2500], [25])))[0][-1]
    assert body.brains[0].averaged == 3
    assert "of bad channels too" in body.brains[0].remark
    wide = StreamInfo(key="cap", kind="eeg", channels=tuple(f"E{i}" for i in range(130)), rate=1000.0, unit="uV")
    body = run(Physiology([wide]), merged(cut(wide, eeg(6, 1000.0, 130), [500])))[0][-1]
    assert body.brains[0].averaged == 130
    assert "not judged" in body.brains[0].remark


@pytest.mark.parametrize("sizes", [[1], [7, 300, 64], [5000]])
def test_what_is_bad_and_what_is_missing_is_the_same_to_the_last_bit_however_the_chunks_are_cut(sizes):
    def said(sizes):
        physiology, found, at = Physiology([CAP]), [], 0
        samples = spoilt(10.0, 14.0)[:7500]
        for hole in (4000, 5000, len(samples)):  # the first is bridged, the second is not
            piece = [part for _, part in cut(CAP, samples[at:hole], sizes, START + at / 250)]
            found += [update for chunk in piece for update in physiology.push(chunk)]
            at = hole + (10 if hole == 4000 else 200)
        return [update for update in found if isinstance(update, Body)]

    bodies = said([25])
    assert len({body.brains[0].averaged for body in bodies}) == 3
    assert bits(said(sizes)) == bits(bodies)


def test_what_feeds_the_model_is_followed():
    other = StreamInfo(key="other", kind="ecg", channels=("ECG",), rate=500.0, unit="uV")
    spec = WindowSpec(inputs=(InputSpec(kind="ecg", channels=("ECG",)),))
    bodies, _ = run(Physiology([STRAP, other], choose([STRAP], spec)), merged(cut(STRAP, ecg(12), [73])))
    assert bodies[-1].ecg == "strap"


def test_millivolts_are_microvolts_times_a_thousand_and_an_unknown_unit_gives_no_amplitudes():
    def last(unit, factor):
        streams = [
            StreamInfo(key="cap", kind="eeg", channels=CAP.channels, rate=250.0, unit=unit),
            StreamInfo(key="strap", kind="ecg", channels=("ECG",), rate=130.0, unit=unit),
        ]
        chunks = merged(cut(streams[0], factor * eeg(20), [25]), cut(streams[1], factor * ecg(20), [73]))
        bodies, beats = run(Physiology(streams), chunks)
        return bodies[-2], np.concatenate([one.amplitudes for one in beats])

    known, heights = last("uV", 1.0)
    small, same = last("mV", 1e-3)
    assert value(small, "alpha") == pytest.approx(value(known, "alpha"), rel=1e-4)
    np.testing.assert_allclose(same, heights, rtol=1e-4)
    strange, none = last("counts", 1.0)
    assert math.isnan(value(strange, "alpha"))
    assert value(strange, "alpha_share") == pytest.approx(value(known, "alpha_share"))
    assert np.isnan(none).all()
    assert value(strange, "hr") == value(known, "hr")
    assert "unit 'counts' is unknown" in strange.remark
    assert "only shares" in strange.brains[0].remark


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"rate": 50.0}, "50 Hz"),
        ({"rate": 5000.0}, "5000 Hz"),
        ({"channels": tuple(f"E{i}" for i in range(300))}, "300 channels"),
    ],
)
def test_a_stream_that_cannot_have_rhythms_is_refused_in_words(changes, words):
    odd = StreamInfo(**({"key": "cap", "kind": "eeg", "channels": ("Cz",), "rate": 250.0, "unit": "uV"} | changes))
    physiology = Physiology([odd, STRAP])
    bodies, _ = run(physiology, merged(cut(STRAP, ecg(6), [73])))
    assert words in bodies[-2].brains[0].reason
    assert math.isnan(value(bodies[-2], "alpha"))


def beating(seconds, true):
    """One lead that runs at ``true`` Hz, chunks of a tenth of a second with a stamp of its own for every sample."""
    samples = ecg(seconds, true)
    times = START + np.arange(len(samples)) / true
    step = round(true / 10)
    return [(times[a : a + step], samples[a : a + step].astype(np.float32)) for a in range(0, len(times), step)]


@pytest.mark.parametrize(
    ("true", "said"), [(250.0, 500.0), (120.0, 130.0), (110.0, 130.0), (65.0, 130.0), (140.0, 130.0), (500.0, 250.0)]
)
def test_a_strap_that_does_not_run_at_the_rate_it_says_has_no_figures_and_says_why(true, said):
    stream = StreamInfo(key="strap", kind="ecg", channels=("ECG",), rate=said, unit="uV")
    chunks = [Chunk("strap", times, samples) for times, samples in beating(75.0, true)]
    bodies, beats = run(Physiology([stream]), chunks)
    assert beats
    later = bodies[12:-1]
    assert len(later) > 50
    for body in later:
        assert f"not the {said:g} Hz it says" in body.heart["HR"].reason
        assert [name for name, one in body.heart.items() if not one.reason] == []
    assert not np.concatenate([body.intervals for body in later])[:, 2].any()


def test_a_small_error_of_the_rate_costs_nothing_and_a_wrong_one_counts_until_it_is_over():
    def fed(trues):
        physiology, found, start = Physiology([STRAP]), [], START
        for true in trues:
            for times, samples in beating(75.0, true):
                found += physiology.push(Chunk("strap", times - START + start, samples))
            start += 75.0
        return [update for update in found if isinstance(update, Body)]

    assert value(fed([130.05])[-1], "rmssd") == pytest.approx(40 / math.sqrt(2), rel=0.08)
    bodies = fed([120.0, 130.0])
    assert "not the 130 Hz it says" in bodies[70].heart["HR"].reason
    assert np.isfinite(value(bodies[95], "hr"))
    assert "not the 130 Hz it says" in bodies[90].heart["RMSSD"].reason
    assert value(bodies[-1], "rmssd") == pytest.approx(40 / math.sqrt(2), rel=0.2)


def test_packets_that_are_lost_are_no_wrong_rate():
    random = np.random.default_rng(3)
    samples, lost, chunks = ecg(75.0), 0, []
    for a in range(0, len(samples), 8):
        if random.random() < 0.08:
            lost += 8
            continue
        times = START + np.arange(a, min(a + 8, len(samples))) / 130
        chunks.append(Chunk("strap", times, samples[a : a + 8].astype(np.float32), lost))
        lost = 0
    bodies, _ = run(Physiology([STRAP]), chunks)
    reasons = [body.heart["HR"].reason for body in bodies[12:]]
    assert {reason for reason in reasons if "of the ECG is missing" not in reason} == set()
    assert not any("Hz it says" in reason for reason in reasons)


def test_a_long_recording_cut_as_a_strap_cuts_it_or_whole_is_the_same_to_the_last_bit(shared_data):
    with np.load(shared_data / "mitdb" / "mitdb_36_records_130hz_int16_5uV.npz") as records:
        samples = records["119_uV"][: 130 * FORGOTTEN, None] * float(records["scale_uV"])
    stream = StreamInfo(key="strap", kind="ecg", channels=("ECG",), rate=130.0, unit="uV")
    cuts = ([len(samples)], [73])
    whole, pieces = (bits(run(Physiology([stream]), merged(cut(stream, samples, sizes)))[0]) for sizes in cuts)
    assert len(whole) > FORGOTTEN - 5
    assert [a[0] for a, b in zip(whole, pieces, strict=True) if a != b] == []


def test_an_ecg_at_a_rate_without_r_peaks_is_refused_in_words():
    for rate, words in ((64.0, "64 Hz"), (4000.0, "4000 Hz")):
        slow = StreamInfo(key="slow", kind="ecg", channels=("ECG",), rate=rate, unit="uV")
        bodies, _ = run(Physiology([CAP, slow]), merged(cut(CAP, eeg(6), [25])))
        assert words in bodies[-1].reason


def test_the_names_that_a_screen_uses_are_those_of_the_analysis():
    assert tuple(bandpower.BANDS) == BANDS
    body = run(Physiology([STRAP]), merged(cut(STRAP, ecg(12), [73])))[0][-1]
    assert set(HEART_COLUMNS.values()) == {*hrv.KINDS, "breathing", *INTERVALS} == set(body.heart)
    assert len(body.values()) == len(BODY_COLUMNS)
    body = run(Physiology([CAP]), merged(cut(CAP, eeg(2), [25])))[0][-1]
    assert len(body.values()) == len(BODY_COLUMNS)


def test_intervals_of_the_waves_are_given_with_the_beats_behind_them():
    bodies, _ = run(Physiology([STRAP]), merged(cut(STRAP, ecg(30), [73])))
    last = bodies[-1]
    assert 100 < value(last, "pr") < 200
    assert 40 < value(last, "qrs") < 100
    assert value(last, "qtc") == pytest.approx(value(last, "qt") / 0.81 ** (1 / 3), rel=0.02)
    assert (value(last, "qrs_beats"), value(last, "qt_beats")) == (20, 20)
    assert last.heart["QT"].unit == "ms"
    early = next(body for body in bodies if body.heart["QT"].beats > 0)
    assert math.isnan(value(early, "qt"))
    assert "QT needs 8" in early.heart["QT"].reason


def test_silence_says_why_of_heart_and_rhythms():
    body = Physiology([CAP, STRAP]).silent(600.5, "it failed")
    assert (body.ecg, body.reason, body.brains[0].reason) == ("strap", "it failed", "it failed")
    assert np.isnan(body.values()).all()


def test_a_source_that_is_always_late_costs_its_figures_but_no_beat_and_no_memory():
    chunks = merged(cut(CAP, eeg(), [25]), cut(STRAP, ecg(), [73], late=6.0))
    bodies, beats = run(Physiology([CAP, STRAP]), chunks)
    during = [body for body in bodies if body.time < 560]
    assert not any(body.heart for body in during)
    assert all(np.isfinite(body.brains[0].shares).all() for body in bodies[5:-1])
    rows = np.concatenate([body.intervals for body in bodies])
    np.testing.assert_array_equal(rows[:, 0], np.concatenate([one.times for one in beats]))
    assert len(rows) > 70


def test_a_channel_without_numbers_is_left_out_of_the_averages_and_says_so():
    samples = eeg(12)
    samples[:, 1] = math.nan
    bodies, _ = run(Physiology([CAP]), merged(cut(CAP, samples, [25])))
    brain = bodies[-1].brains[0]
    assert brain.invalid == ("", "100 % missing", "", "")
    assert brain.averaged == 2
    assert value(bodies[-1], "alpha") == pytest.approx(200, rel=0.05)
    assert math.isnan(value(bodies[-1], "asymmetry"))


def test_why_a_figure_of_rhythms_is_not_given_stands_beside_it_in_words(whole):
    samples = eeg(20)
    samples[:, 1] = math.nan
    bodies, _ = run(Physiology([CAP]), merged(cut(CAP, samples, [25])))
    early, late = bodies[5].brains[0], bodies[-1].brains[0]
    needed = "8 good s of 30 are needed"
    assert early.absent == {"slope": needed, "peak": needed, "asymmetry": f"{CAP.channels[1]}: 100 % missing"}
    assert math.isnan(early.slope)
    assert math.isnan(early.peak)
    assert set(late.absent) == {"asymmetry"}
    assert np.isfinite([late.slope, late.peak, late.theta_beta]).all()
    assert whole[0][-2].brains[0].absent == {}
    bare = replace(CAP, channels=("C3", "C4", "P3", "P4"))
    noise = 5 * signal.lfilter([1], [1, -0.999], np.random.default_rng(0).normal(0, 1, (10000, 4)), axis=0)
    flat = run(Physiology([bare]), merged(cut(bare, noise, [25])))[0][-1].brains[0]
    assert flat.absent == {
        "peak": "none of 7 to 13.5 Hz stands out",
        "asymmetry": "no pair such as F3/F4",
    }


def test_a_clock_that_leaps_by_a_year_gives_no_year_of_seconds():
    later = START + 365 * 86400
    chunks = [*merged(cut(CAP, eeg(12), [25]), cut(STRAP, ecg(12), [73]))]
    chunks += merged(cut(CAP, eeg(12), [25], start=later), cut(STRAP, ecg(12), [73], start=later))
    bodies, _ = run(Physiology([CAP, STRAP]), chunks)
    assert len(bodies) < 200
    assert bodies[-1].time > later + 10
    assert np.isfinite(value(bodies[-1], "hr"))
    assert np.all(np.diff([body.time for body in bodies]) > 0)


@pytest.mark.parametrize(
    ("unit", "scale", "said"),
    [
        ("", 0.001, " of its unit: no unit given; beats are looked for in µV"),
        ("furlong", 0.001, " of its unit: unit 'furlong' is unknown; beats are looked for in µV"),
        ("uV", 0.001, " µV: no beats are looked for below 15 µV"),
        ("uV", math.nan, "no values: the lead sends no number"),
    ],
)
def test_a_lead_in_which_no_beat_can_be_found_says_what_may_be_wrong_with_it(unit, scale, said):
    lead = replace(STRAP, unit=unit)
    whole = [body for body in run(Physiology([lead]), merged(cut(lead, ecg(20) * scale, [73])))[0] if body.heart]
    assert said in whole[-1].heart["HR"].reason
    assert {one.reason for one in whole[-1].heart.values()} == {whole[-1].heart["HR"].reason}
    pieces = [body for body in run(Physiology([lead]), merged(cut(lead, ecg(20) * scale, [5])))[0] if body.heart]
    assert bits(pieces) == bits(whole)


def test_a_lead_in_millivolts_that_says_so_has_nothing_wrong_with_it():
    lead = replace(STRAP, unit="mV")
    bodies = run(Physiology([lead]), merged(cut(lead, ecg(20) / 1000, [73])))[0]
    assert value(bodies[-1], "hr") == pytest.approx(60 / 0.81, rel=0.02)
    assert not any("the lead moves" in one.reason for body in bodies for one in body.heart.values())

"""What a dashboard may ask for is for the eye alone, comes at once, and is the same however the stream was cut."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from devices.api import Chunk, StreamInfo
from models.api import Verdict
from realtime.api import SetDisplay, Shown, Traces
from realtime.display import RECOVERED, Display, displays, named
from realtime.repair import after, interpolated, without_blinks
from realtime.rereference import average, bipolar, linked_mastoids
from realtime.sources import Picked

CAP = ("Fp1", "Fp2", "F7", "F3", "Fz", "F4", "F8", "T7", "C3", "Cz", "C4", "T8", "P7", "P3", "Pz", "P4", "O1", "O2")
EARS = (*CAP, "A1", "A2", "AUX1")
RATE = 250.0


def cap(labels=EARS, rate=RATE, unit="uV", kind="eeg"):
    return StreamInfo(key="cap", kind=kind, channels=labels, rate=rate, unit=unit)


def noise(count, labels=EARS, seed=0):
    """Samples (n, channels) with the offset of an amplifier."""
    return (np.random.default_rng(seed).normal(0, 20, (count, len(labels))) + 4000).astype(np.float32)


def feed(display, samples, sizes=(), start=100.0, rate=RATE):
    """Everything that a display says of ``samples``, cut into pieces of ``sizes`` and the rest."""
    said, at = [], 0
    for size in [*sizes, len(samples)]:
        piece = samples[at : at + size]
        said += display.push(Chunk("cap", start + (at + np.arange(len(piece))) / rate, piece))
        said += display.turn()
        at += len(piece)
    return said + display.finish()


def drawn(said):
    return np.concatenate([one.data for one in said if isinstance(one, Traces)])


def shown(said):
    return [one for one in said if isinstance(one, Shown)]


def ask(display, reference="as recorded", repair=False):
    """What a display says once it has been asked, and what could be learnt has been."""
    display.ask(SetDisplay(reference, repair))
    said = display.turn()
    display.learn()
    return said + display.turn()


def blinking(seconds=30, labels=EARS, seed=1):
    """Noise with a blink every 2 s that reaches every electrode with a share of its own, and these shares."""
    times = np.arange(round(seconds * RATE)) / RATE
    blinks = 200 * sum(np.exp(-(((times - at) / 0.08) ** 2)) for at in np.arange(1.0, seconds, 2.0))
    shares = np.linspace(1.0, 0.0, len(labels))
    shares[:2], shares[-1] = 1.0, 0.0
    return (noise(len(times), labels, seed) / 10 + blinks[:, None] * shares).astype(np.float32), shares


def test_without_being_asked_a_stream_is_drawn_as_it_came():
    samples = noise(1000)
    said = feed(Display(cap()), samples, [16] * 20)
    assert shown(said) == []
    assert drawn(said).tobytes() == samples.tobytes()


@pytest.mark.parametrize(
    ("reference", "wanted"), [("average", average), ("linked mastoids", linked_mastoids), ("bipolar", bipolar)]
)
def test_another_reference_is_drawn_of_what_came_before_and_of_what_comes_and_is_said(reference, wanted):
    display, samples = Display(cap()), noise(2000)
    before = feed(display, samples[:1000])
    (said, *past) = ask(display, reference)
    assert (said.reference, said.repair, said.altered, said.anew) == (reference, False, True, True)
    assert "AUX1" in said.said
    assert said.labels[-1] == "AUX1"
    after_it = feed(display, samples[1000:], [7, 30], start=104.0)
    made = wanted(EARS)
    rows = drawn([*past, *after_it])
    pairs = made.apply(samples)
    assert said.labels[: pairs.shape[1]] == made.labels
    np.testing.assert_allclose(rows[:, : pairs.shape[1]], pairs, atol=1e-3)
    np.testing.assert_array_equal(rows[:, -1], samples[:, -1])
    assert drawn(before).tobytes() == samples[:1000].tobytes()
    (back, *again) = ask(display)
    assert (back.labels, back.said, back.altered) == (EARS, "", False)
    assert drawn(again).tobytes() == samples.tobytes()


@settings(deadline=None, max_examples=30)
@given(
    st.lists(st.integers(1, 60), max_size=25),
    st.sampled_from(["average", "linked mastoids", "bipolar"]),
    st.sampled_from([250.0, 500.0]),
)
def test_what_is_drawn_is_the_same_to_the_last_bit_however_the_stream_is_cut(sizes, reference, rate):
    samples = noise(900)
    samples[300:310, 3] = np.nan
    whole, cut = Display(cap(rate=rate)), Display(cap(rate=rate))
    for display in (whole, cut):
        ask(display, reference)
    assert drawn(feed(cut, samples, sizes, rate=rate)).tobytes() == drawn(feed(whole, samples, rate=rate)).tobytes()


@pytest.mark.parametrize("reference", ["average", "linked mastoids", "bipolar"])
def test_what_is_drawn_of_a_moment_does_not_depend_on_what_comes_later(reference):
    samples, other = noise(500), noise(500)
    other[200:] = noise(300, seed=9)
    rows = []
    for one in (samples, other):
        display = Display(cap())
        ask(display, reference)
        rows.append(drawn(feed(display, one)))
    assert rows[0][:200].tobytes() == rows[1][:200].tobytes()
    assert not np.array_equal(rows[0][200:], rows[1][200:])


def test_an_average_is_taken_without_the_channels_that_the_model_found_bad():
    display, samples = Display(cap(CAP), range(len(CAP))), noise(600, CAP)
    samples[:, CAP.index("T7")] = 30000.0
    display.judge([Verdict(label, 0.1 if label == "T7" else 1.0) for label in CAP])
    assert ask(display) == []  # nobody has asked for anything
    (said,) = ask(display, "average")
    assert "without T7" in said.said
    rows = drawn(feed(display, samples))
    assert np.abs(rows[:, 0]).max() < 200  # the other channels show nothing of it


@pytest.mark.parametrize("columns", [(), range(18)])
def test_an_electrode_without_values_blanks_itself_alone_and_is_left_out_of_the_average_and_named(columns):
    labels = (*CAP, "Iz")
    display, samples = Display(cap(labels), columns), noise(1000, labels)
    samples[:, -1] = np.nan
    feed(display, samples)
    (said, *past) = ask(display, "average")
    assert said.said == "average of 18 electrodes, without Iz; no values of Iz"
    rows = drawn(past)
    assert np.isfinite(rows[:, :-1]).all()
    assert np.isnan(rows[:, -1]).all()
    np.testing.assert_allclose(rows[:, :-1], average(CAP).apply(samples[:, :-1]), atol=1e-3)


def test_an_electrode_that_loses_its_values_leaves_the_average_within_a_second_and_comes_back_when_it_lasts():
    display, samples = Display(cap(CAP)), noise(6000, CAP)
    samples[1000:2000, 4] = np.nan
    ask(display, "average")
    said = feed(display, samples, [25] * 239)
    told = [(one.said, one.anew) for one in shown(said)]
    assert told == [
        ("average of 17 electrodes, without Fz; no values of Fz", False),
        ("average of 18 electrodes", False),
    ]
    blank = np.isnan(drawn(said)).any(axis=1)
    others = np.isnan(np.delete(drawn(said), 4, axis=1)).any(axis=1)
    assert blank.sum() == 1000
    assert 250 <= others.sum() <= 275


def test_a_headset_that_sends_no_values_at_all_for_a_while_is_drawn_as_before_when_it_does_again():
    display, samples = Display(cap(CAP)), noise(3000, CAP)
    samples[1000:2000] = np.nan
    ask(display, "average")
    said = feed(display, samples, [25] * 119)
    assert shown(said) == []
    assert np.isnan(drawn(said)).all(axis=1).sum() == 1000


def test_with_repair_an_electrode_without_values_is_made_of_the_others_and_blinks_are_learnt_from_them():
    samples, _ = blinking(labels=CAP)
    samples[:, [0, 9]] = np.nan  # Fp1, Cz
    display = Display(cap(CAP))
    feed(display, samples)
    said = ask(display, "average", repair=True)
    assert shown(said)[-1].interpolated == ("Fp1", "Cz")
    assert "without blinks (15 blinks regressed on Fp1, Fp2); interpolated: Fp1, Cz" in shown(said)[-1].said
    assert np.isfinite(drawn(said)).all()


def test_where_too_few_electrodes_are_left_to_interpolate_blinks_are_still_removed_from_those_that_have_values():
    labels = ("Fp1", "Fp2", "Cz", "Pz", "O1", "O2")
    samples, _ = blinking(labels=labels)
    samples[:, [0, 5]] = np.nan
    display = Display(cap(labels))
    feed(display, samples)
    said = ask(display, repair=True)
    assert "without blinks (15 blinks regressed on Fp2); not interpolated: Fp1, O2" in shown(said)[-1].said
    assert np.isfinite(drawn(said)[:, 1:5]).all()
    assert np.isnan(drawn(said)[:, [0, 5]]).all()


def test_a_bad_ear_under_linked_mastoids_is_said():
    display = Display(cap(), range(len(EARS)))
    ask(display, "linked mastoids")
    display.judge([Verdict(label, 0.1 if label == "A2" else 1.0) for label in EARS])
    (said,) = display.turn()
    assert "where A2 is bad" in said.said


def test_blinks_are_removed_once_enough_of_them_were_seen_and_until_then_it_is_said_why_not():
    display, (samples, _) = Display(cap(), range(len(EARS))), blinking()
    feed(display, samples[:1500])
    said = shown(ask(display, repair=True))
    assert not said[-1].altered
    assert "blinks are still in it (6 s of EEG to learn from, at least 10 are needed)" in said[-1].said
    feed(display, samples[1500:], start=106.0)
    display.turn()
    display.learn()
    (learnt, *past) = display.turn()
    assert learnt.altered
    assert learnt.anew
    assert "without blinks (15 blinks regressed on Fp1, Fp2); no channel is bad" in learnt.said
    before, rows = samples - samples.mean(axis=0), drawn(past)
    rows = rows - rows.mean(axis=0)
    electrodes = [column for column, label in enumerate(EARS) if label not in ("A1", "A2", "AUX1")]
    tops = np.arange(1, 30, 2) * round(RATE)
    assert np.abs(before[tops][:, electrodes]).mean() > 80
    assert np.abs(rows[tops][:, electrodes]).mean() < 8
    np.testing.assert_array_equal(drawn(past)[:, -1], samples[:, -1])  # an auxiliary channel is left alone


def test_with_repair_a_bad_channel_is_made_of_the_others_and_named_until_it_has_been_good_for_a_while():
    display, (samples, _) = Display(cap(CAP), range(len(CAP))), blinking(labels=CAP)
    bad = CAP.index("Cz")
    samples[:, bad] = 30000.0
    display.judge([Verdict(label, 0.0 if label == "Cz" else 1.0, "flat") for label in CAP])
    ask(display, repair=True)
    feed(display, samples)
    said = ask(display, repair=True)
    assert shown(said)[-1].interpolated == ("Cz",)
    assert "interpolated: Cz" in shown(said)[-1].said
    first = interpolated(CAP, ("Cz",))
    patched = first.apply(samples).astype(np.float32)
    # Of a stream of 250 Hz blinks are learnt at 125 Hz.
    learnt = without_blinks(CAP, patched.reshape(-1, 2, len(CAP)).mean(axis=1), RATE / 2)
    np.testing.assert_allclose(drawn(said), after(first, learnt).apply(samples), atol=0.05)
    good = [Verdict(label, 1.0) for label in CAP]
    for _ in range(RECOVERED - 1):
        display.judge(good)
    assert not shown(display.turn())
    display.judge(good)
    assert shown(display.turn())[-1].interpolated == ()


def test_repair_and_reference_go_together_and_a_rewound_replay_learns_anew():
    display, (samples, _) = Display(cap(), range(len(EARS))), blinking()
    feed(display, samples)
    said = shown(ask(display, "average", repair=True))[-1]
    assert said.said.startswith("average of 20 electrodes")
    assert "without blinks" in said.said
    (reset,) = display.reset()
    assert "blinks are still in it" in reset.said
    assert reset.reference == "average"
    assert np.allclose(drawn(feed(display, samples))[:, :20], average(EARS).apply(samples)[:, :20], atol=1e-3)


@pytest.mark.parametrize(
    ("info", "said"),
    [
        (cap(("EXG 0", "EXG 1")), "blinks are still in it (no electrode at the eyes"),
        (cap(unit=""), "blinks are still in it (the unit of the stream is unknown)"),
        (cap(rate=20.0), "blinks are still in it (20 Hz is too slow)"),
        (cap(CAP), "nothing interpolated: no model judges these channels"),
    ],
)
def test_what_cannot_be_repaired_is_drawn_as_it_came_and_said_in_words(info, said):
    display, samples = Display(info), noise(3000, info.channels)
    assert drawn(feed(display, samples, rate=info.rate)).tobytes() == samples.tobytes()
    found = ask(display, repair=True)
    assert said in shown(found)[-1].said
    assert not shown(found)[-1].altered
    assert drawn(found).tobytes() == samples[-len(drawn(found)) :].tobytes()


@pytest.mark.parametrize(("labels", "reference"), [(("Fp1", "Fp2"), "linked mastoids"), (CAP, "laplace")])
def test_a_reference_that_the_labels_do_not_allow_is_not_drawn_and_said(labels, reference):
    display, samples = Display(cap(labels)), noise(500, labels)
    (said,) = ask(display, reference)
    assert said.said.startswith("as recorded (")
    assert drawn(feed(display, samples)).tobytes() == samples.tobytes()


def test_a_hole_in_what_is_kept_stays_a_hole_when_it_is_drawn_anew():
    display = Display(cap())
    feed(display, noise(500))
    feed(display, noise(500), start=110.0)
    gaps = [one.gap for one in ask(display, "average") if isinstance(one, Traces)]
    assert gaps == [False, True]


def test_only_eeg_is_shown_otherwise_and_what_feeds_a_model_with_it_is_eeg():
    strap = StreamInfo(key="strap", kind="ecg", channels=("ECG",), rate=130.0, unit="uV")
    board = cap(kind="exg")
    picked = Picked(kind="eeg", stream="cap", columns=(0, 1, -1), scale=1.0, rate=RATE, why="")
    made = displays((strap, board, StreamInfo(key="m", kind="markers", channels=(), rate=0, unit="")), {"eeg": picked})
    assert set(made) == {"strap", "cap"}
    assert ask(made["strap"], "average") == []
    assert shown(ask(made["cap"], "average"))[0].altered


def test_verdicts_are_told_under_the_labels_of_the_headset_and_so_are_the_channels_that_their_reasons_name():
    labels = ("EEG Fp1-REF", "T7", "T8", "P8")
    columns = {"eeg": (0, 1, 2, -1), "ecg": (0,)}
    strap = StreamInfo(key="strap", kind="ecg", channels=("II",), rate=130.0, unit="uV")
    picked = {
        kind: Picked(kind=kind, stream=key, columns=columns[kind], scale=1.0, rate=RATE, why="")
        for kind, key in (("eeg", "cap"), ("ecg", "strap"))
    }
    eeg = (
        Verdict("FP1", 0.0, "a copy of T3 times -2"),
        Verdict("T3", 0.75, "the same as FP1: bridged?"),
        Verdict("T4", 0.0, "the same as 5 other channels"),
        Verdict("FZ", 0.0, "absent"),
    )
    quality = {"eeg": eeg, "ecg": (Verdict("ECG", 1.0),), "acc": (Verdict("X", 1.0),)}
    assert named(quality, (strap, cap(labels)), picked) == {
        "eeg": (
            Verdict("EEG Fp1-REF", 0.0, "a copy of T7 times -2"),
            Verdict("T7", 0.75, "the same as EEG Fp1-REF: bridged?"),
            Verdict("T8", 0.0, "the same as 5 other channels"),
            Verdict("FZ", 0.0, "absent"),
        ),
        "ecg": (Verdict("II", 1.0),),
        "acc": (Verdict("X", 1.0),),
    }


def test_two_channels_of_one_place_infinity_and_a_wrong_width_are_harmless():
    labels = (*CAP, "T3")
    display, samples = Display(cap(labels), range(len(labels))), noise(600, labels)
    samples[5, 0] = np.inf
    display.judge([Verdict(label, 0.0 if label in ("T3", "Cz") else 1.0) for label in labels])
    ask(display, "average", repair=True)
    assert drawn(feed(display, samples)).shape == samples.shape
    display.push(Chunk("cap", np.arange(3.0), np.zeros((3, 2), np.float32)))

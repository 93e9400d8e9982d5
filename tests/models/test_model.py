"""The model as a state machine: baseline, gate, what it says when it withholds, and that it repeats to the bit."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import models
from devices.api import Chunk, StreamInfo
from models.api import ModelError, Verdict, Window
from models.bundle import DISTANCE, DistanceLimit, combination, load_bundle, write_bundle
from models.calibration import calibrated, resting_statistics
from models.distance import Reference, pack_references
from models.model import Model
from models.runtimes import load_runtime
from realtime.windows import iter_windows

DEFAULT = Path(models.__path__[0]) / "bundles" / "default"

# The bundle of these tests has windows of 4 s every second and a resting baseline of 20 s: windows that end at
# 4, 5, ... 20 s belong to it, 17 in all, of which a kind needs 9.
FIRST, CLOSING = 4, 20


@pytest.fixture(scope="module")
def runtime(bundle):
    return load_runtime("ort", bundle)


@pytest.fixture
def model(bundle, runtime):
    return Model(bundle, runtime)


def feed(model, window, first, last, **what):
    return [model.update(window(float(t), **what)) for t in range(first, last + 1)]


def same(a, b) -> bool:
    return (
        (a.t_end, a.targets, a.withheld, a.used, a.quality, dict(a.present))
        == (b.t_end, b.targets, b.withheld, b.used, b.quality, dict(b.present))
        and a.mean.tobytes() == b.mean.tobytes()
        and a.sd.tobytes() == b.sd.tobytes()
    )


def test_everything_is_withheld_while_the_baseline_runs_and_says_how_long(model, window):
    said = [estimate.withheld for estimate in feed(model, window, FIRST, CLOSING)]
    assert said == [f"resting baseline: {CLOSING - t} s left" for t in range(FIRST, CLOSING)] + [
        "resting baseline complete"
    ]


def test_after_the_baseline_it_estimates_from_both_kinds(model, window, bundle):
    assert all(np.isnan(e.mean).all() and np.isnan(e.sd).all() for e in feed(model, window, FIRST, CLOSING))
    estimate = feed(model, window, CLOSING + 1, CLOSING + 1)[0]
    assert estimate.withheld is None
    assert estimate.used == ("eeg", "ecg")
    assert estimate.targets == ("arousal", "effort")
    assert 0 < estimate.mean[0] < 1
    assert 1 < estimate.mean[1] < 9
    assert (estimate.sd > 0).all()
    assert estimate.quality == pytest.approx(0.9)
    assert estimate.model == bundle.label
    assert model.notes == ()


def test_an_estimate_is_what_its_parts_compute_by_hand(model, window, bundle, runtime):
    feed(model, window, FIRST, CLOSING)
    got = model.update(window(30.0))
    manifest, d = bundle.manifest, bundle.manifest.embedding_dim
    blank = {
        "use": np.ones((1, 2), np.float32),
        "rest_mean": np.zeros((1, d), np.float32),
        "rest_sd": np.ones((1, d), np.float32),
    }

    def run(t, **rest):
        signals = window(float(t)).signals
        return runtime(blank | {kind: signals[kind][None] for kind in ("eeg", "ecg")} | rest)

    resting = np.concatenate([run(t)["embedding"] for t in range(FIRST, CLOSING + 1)])
    rest = manifest.rest
    mean, sd = resting_statistics(resting, rest.pooled_sd, rest.prior_windows, rest.floor)
    logit = run(30, rest_mean=mean[None].astype(np.float32), rest_sd=sd[None].astype(np.float32))["logit"][0]
    by_hand, scatter = calibrated(logit, manifest.targets, manifest.calibration["eeg+ecg"])
    np.testing.assert_allclose(got.mean, by_hand, rtol=1e-6)
    np.testing.assert_allclose(got.sd, scatter, rtol=1e-6)


def test_the_same_windows_give_the_same_bits_also_after_a_reset(bundle, runtime, window):
    model = Model(bundle, runtime)
    faults = {"ecg": (1, "flat")}
    first = feed(model, window, FIRST, 30) + feed(model, window, 31, 33, bad=faults)
    model.reset()
    second = feed(model, window, FIRST, 30) + feed(model, window, 31, 33, bad=faults)
    third = feed(Model(bundle, runtime), window, FIRST, 30)
    assert all(same(a, b) for a, b in zip(first, second, strict=True))
    assert all(same(a, b) for a, b in zip(first, third, strict=False))
    assert first[-4].withheld is None


def test_a_reset_forgets_the_baseline(model, window):
    feed(model, window, FIRST, CLOSING + 1)
    model.reset()
    assert model.update(window(100.0)).withheld == "resting baseline: 16 s left"


def test_nothing_begins_before_there_is_a_signal(model, window):
    nothing = {"eeg": 0.0, "ecg": 0.0}
    early = feed(model, window, FIRST, 30, present=nothing)
    assert {estimate.withheld for estimate in early} == {"EEG missing, ECG missing"}
    assert model.update(window(31.0)).withheld == "resting baseline: 16 s left"
    assert feed(model, window, 32, 47)[-1].withheld == "resting baseline complete"


@pytest.mark.parametrize(("gone", "left"), [("eeg", "ecg"), ("ecg", "eeg")])
def test_either_kind_may_fall_silent_and_come_back(model, window, gone, left):
    feed(model, window, FIRST, CLOSING)
    both, alone, again = (
        model.update(window(30.0)),
        model.update(window(30.0, present={gone: 0.0})),
        model.update(window(30.0)),
    )
    assert alone.withheld is None
    assert alone.used == (left,)
    assert not np.allclose(alone.mean, both.mean)
    assert same(both, again)


def test_a_kind_that_falls_silent_is_calibrated_by_its_own_combination(model, window, bundle, runtime):
    feed(model, window, FIRST, CLOSING)
    got = model.update(window(30.0, present={"eeg": 0.0}))
    assert combination(got.used) == "ecg"
    p = (got.mean - [0, 1]) / [1, 8]
    fits = bundle.manifest.calibration["ecg"]
    plain = {name: replace(fit, temperature=1.0, bias=0.0) for name, fit in fits.items()}
    np.testing.assert_allclose(got.sd, calibrated(np.log(p / (1 - p)), bundle.manifest.targets, plain)[1])


@pytest.mark.parametrize(
    ("what", "said"),
    [
        ({"present": {"eeg": 0.0, "ecg": 0.0}}, "EEG missing, ECG missing"),
        ({"present": {"eeg": 0.69, "ecg": 0.0}}, "EEG: 31 % missing, ECG missing"),
        ({"present": {"eeg": 0.0}, "bad": {"ecg": (1, "flat")}}, "EEG missing, ECG: flat"),
        (
            {"bad": {"eeg": (4, "amplitude 812 uV"), "ecg": (1, "railed")}},
            "EEG: 4 of 6 channels bad (amplitude 812 uV), ECG: railed",
        ),
        ({"present": {"eeg": float("nan"), "ecg": 0.0}}, "EEG missing, ECG missing"),
    ],
)
def test_when_nothing_passes_the_reason_is_in_words(model, window, what, said):
    feed(model, window, FIRST, CLOSING)
    estimate = model.update(window(30.0, **what))
    assert estimate.withheld == said
    assert estimate.used == ()
    assert np.isnan(estimate.mean).all()
    assert model.update(window(31.0)).withheld is None


def test_one_bad_channel_of_many_does_not_stop_a_kind(model, window):
    feed(model, window, FIRST, CLOSING)
    estimate = model.update(window(30.0, bad={"eeg": (1, "flat")}))
    assert estimate.used == ("eeg", "ecg")
    assert estimate.quality == pytest.approx(0.75)


@pytest.mark.parametrize("value", [np.nan, np.inf, 0.0, 400.0])
@pytest.mark.parametrize("while_resting", [False, True])
def test_what_stands_in_a_bad_channel_does_not_reach_an_estimate(bundle, runtime, window, value, while_resting):
    spoilt, sound = Model(bundle, runtime), Model(bundle, runtime)
    for t in range(FIRST, CLOSING + 4):
        one, bad = window(float(t)), {"eeg": (1, "railed")} if while_resting or t > CLOSING else None
        if bad:
            one = window(float(t), bad=bad)
            one.signals["eeg"][0] = value
        got, wanted = spoilt.update(one), sound.update(window(float(t), bad=bad))
        assert same(got, wanted)
    assert got.used == ("eeg", "ecg")
    assert got.withheld is None


def test_channels_that_are_all_poor_stop_a_kind_though_none_is_bad(bundle, runtime, window):
    strict = Model(bundle, runtime)
    feed(strict, window, FIRST, CLOSING)
    good = window(30.0, present={"ecg": 0.0})
    poor = Window(
        t_end=30.0,
        seconds=good.seconds,
        signals=good.signals,
        present=good.present,
        quality={"eeg": (Verdict("Fp1", 0.4, "drift"), *(Verdict(f"c{i}", 0.51, "") for i in range(5))), "ecg": ()},
    )
    assert strict.update(poor).withheld == "EEG: quality 0.49 (drift), ECG missing"


def test_the_baseline_says_what_is_wrong_meanwhile(model, window):
    feed(model, window, FIRST, 9)
    assert model.update(window(10.0, bad={"ecg": (1, "flat")})).withheld == "resting baseline: 10 s left; ECG: flat"


def test_the_baseline_goes_on_while_no_kind_has_enough_good_signal(model, window):
    feed(model, window, FIRST, 8)
    nothing = {"eeg": 0.0, "ecg": 0.0}
    assert feed(model, window, 9, 25, present=nothing)[-1].withheld == (
        "resting baseline: 4 s of good signal wanting; EEG missing; ECG missing"
    )
    said = [estimate.withheld for estimate in feed(model, window, 26, 29)]
    assert said[:3] == [f"resting baseline: {left} s of good signal wanting" for left in (3, 2, 1)]
    assert said[3] == "resting baseline complete"
    assert model.update(window(30.0)).withheld is None


def test_a_kind_that_was_not_there_during_the_baseline_is_left_out_and_that_is_said(model, window):
    feed(model, window, FIRST, CLOSING - 3, present={"ecg": 0.0})
    closing = feed(model, window, CLOSING - 2, CLOSING)[-1]
    said = "ECG left out: good for 3 s of the resting baseline, 9 s are needed"
    assert closing.withheld == f"resting baseline complete; {said}"
    assert model.notes == (said,)
    assert model.update(window(30.0)).used == ("eeg",)
    assert model.update(window(31.0, present={"eeg": 0.0})).withheld == f"EEG missing, {said}"


def test_the_signal_of_a_kind_that_is_left_out_changes_nothing(bundle, runtime, window):
    estimates = []
    for share in (0.0, 1.0):
        model = Model(bundle, runtime)
        feed(model, window, FIRST, CLOSING, present={"ecg": 0.0})
        estimates.append(model.update(window(30.0, present={"ecg": share})))
    assert estimates[0].mean.tobytes() == estimates[1].mean.tobytes()


def test_windows_that_were_skipped_count_as_not_good(model, window):
    for t in (4, 8, 12, 16, 20):
        last = model.update(window(float(t)))
    assert last.withheld == "resting baseline: 4 s of good signal wanting"


def test_a_skipped_closing_window_does_not_prolong_the_baseline(model, window):
    feed(model, window, FIRST, CLOSING - 1)
    assert model.update(window(CLOSING + 1.0)).withheld is None


class Failing:
    """The real network, whose output is spoilt on demand: what a broken driver or accelerator does."""

    def __init__(self, runtime):
        self.runtime, self.value = runtime, None

    def __call__(self, inputs):
        outputs = self.runtime(inputs)
        if self.value is not None:
            outputs = {name: np.full_like(array, self.value) for name, array in outputs.items()}
        return outputs


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_figures_that_are_not_finite_are_withheld_and_leave_no_trace(bundle, runtime, window, value):
    failing = Failing(runtime)
    model, sound = Model(bundle, failing), Model(bundle, runtime)
    feed(model, window, FIRST, 10)
    failing.value = value
    assert model.update(window(11.0)).withheld == "model returned NaN"
    failing.value = None
    feed(model, window, 12, CLOSING)
    feed(sound, window, FIRST, 10)
    feed(sound, window, 12, CLOSING)
    assert same(model.update(window(30.0)), sound.update(window(30.0)))
    failing.value = value
    broken = model.update(window(31.0))
    assert broken.withheld == "model returned NaN"
    assert np.isnan(broken.mean).all()
    failing.value = None
    assert same(model.update(window(32.0)), sound.update(window(32.0)))


def test_a_kind_with_one_value_that_is_not_a_number_is_not_used(model, window):
    feed(model, window, FIRST, CLOSING)
    spoilt = window(30.0)
    spoilt.signals["eeg"][2, 100] = np.nan
    alone, absent = model.update(spoilt), model.update(window(30.0, present={"eeg": 0.0}))
    assert alone.used == ("ecg",)
    assert alone.mean.tobytes() == absent.mean.tobytes()
    spoilt.signals["ecg"][0, 7] = np.inf
    said = "EEG: holds values that are not numbers, ECG: holds values that are not numbers"
    assert model.update(spoilt).withheld == said


def test_a_value_that_is_not_a_number_does_not_reach_the_resting_baseline(bundle, runtime, window):
    spoilt, sound = Model(bundle, runtime), Model(bundle, runtime)
    for t in range(FIRST, CLOSING + 1):
        one = window(float(t))
        if t == 10:
            one.signals["ecg"][:] = np.nan
        spoilt.update(one)
        sound.update(window(float(t), present={"ecg": 0.0} if t == 10 else None))
    assert same(spoilt.update(window(30.0)), sound.update(window(30.0)))


# -- how unlike the training data a signal is --------------------------------------------------------------------------


@pytest.fixture(scope="module")
def near(bundle, runtime, window, tmp_path_factory):
    """The small bundle with limits just beyond what `window` gives: three times its signal is too far."""
    model = Model(bundle, runtime)
    feed(model, window, FIRST, CLOSING)
    seen = [model.update(window(float(t))) for t in range(CLOSING + 1, 60)]
    assert all(estimate.used == ("eeg", "ecg") for estimate in seen)
    blank = {
        "use": np.ones((1, 2), np.float32),
        "rest_mean": np.zeros((1, bundle.manifest.embedding_dim), np.float32),
        "rest_sd": np.ones((1, bundle.manifest.embedding_dim), np.float32),
    }
    embedded = np.concatenate(
        [
            runtime(blank | {kind: signal[None] for kind, signal in window(float(t)).signals.items()})["embedding"]
            for t in range(FIRST, 60)
        ]
    )
    references, limits, begin = {}, {}, 0
    for kind, width in bundle.manifest.embedding.items():
        part = embedded[:, begin : begin + width]
        begin += width
        plain = Reference(part.mean(0).astype(float), np.diag(1 / (part.std(0) + 0.05)))
        references[kind] = (plain, Reference(np.zeros(width), np.eye(width)))
        limits[kind] = DistanceLimit(plain=2.0 * float(plain(part).max()), rested=4.0)
    files = {name: bundle.read(name) for name in bundle.files} | {DISTANCE: pack_references(references)}
    folder = tmp_path_factory.mktemp("near") / "bundle"
    return write_bundle(folder, replace(bundle.manifest, distance=limits), files)


def louder(window, t, kind, times=50.0):
    """Passes the gate, which goes by verdicts, and is unlike anything before."""
    one = window(float(t))
    one.signals[kind][:] *= times if kind == "eeg" else 1.0
    if kind == "ecg":
        one.signals[kind][:] = 300 * np.random.default_rng(0).standard_normal(one.signals[kind].shape)
    return one


@pytest.mark.parametrize(("strange", "left"), [("eeg", "ecg"), ("ecg", "eeg")])
def test_a_kind_unlike_the_training_data_is_not_used_and_changes_nothing(near, runtime, window, strange, left):
    model = Model(near, runtime)
    feed(model, window, FIRST, CLOSING)
    far, absent = model.update(louder(window, 30, strange)), model.update(window(30.0, present={strange: 0.0}))
    assert far.withheld is None
    assert far.used == (left,)
    assert len(far.unused) == 1
    assert far.unused[0].startswith(f"{strange.upper()}: unlike the training data (")
    assert absent.unused == (f"{strange.upper()} missing",)
    assert far.mean.tobytes() == absent.mean.tobytes()
    assert far.sd.tobytes() == absent.sd.tobytes()
    assert far.distance == absent.distance < 1


def test_when_everything_is_unlike_the_training_data_the_reason_says_by_how_much(near, runtime, window):
    model = Model(near, runtime)
    feed(model, window, FIRST, CLOSING)
    strange = louder(window, 30, "eeg")
    strange.signals["ecg"][:] = louder(window, 30, "ecg").signals["ecg"]
    estimate = model.update(strange)
    found = re.fullmatch(
        r"EEG: unlike the training data \(([\d.]+) x the limit\), "
        r"ECG: unlike the training data \(([\d.]+) x the limit\)",
        estimate.withheld,
    )
    assert found, estimate.withheld
    assert np.isnan(estimate.mean).all()
    assert estimate.used == ()
    assert estimate.distance == pytest.approx(max(map(float, found.groups())), rel=0.06)
    assert model.update(window(31.0)).used == ("eeg", "ecg")


def test_what_is_unlike_the_training_data_does_not_become_the_resting_baseline(near, runtime, window):
    model, sound = Model(near, runtime), Model(near, runtime)
    for t in range(FIRST, CLOSING + 1):
        said = model.update(louder(window, t, "eeg") if t in (7, 8, 9) else window(float(t)))
        sound.update(window(float(t), present={"eeg": 0.0} if t in (7, 8, 9) else None))
        if t == 8:
            assert said.withheld.startswith("resting baseline: 12 s left; EEG: unlike the training data (")
            assert said.distance > 1
    assert same(model.update(window(30.0)), sound.update(window(30.0)))


def test_a_kind_that_is_unlike_the_training_data_from_the_beginning_is_left_out(near, runtime, window):
    model = Model(near, runtime)
    for t in range(FIRST, CLOSING + 1):
        closing = model.update(louder(window, t, "eeg"))
    said = "EEG left out: good for 0 s of the resting baseline, 9 s are needed"
    assert closing.withheld == f"resting baseline complete; {said}"
    assert model.update(louder(window, 30, "eeg")).used == ("ecg",)


def test_the_distance_is_known_wherever_the_network_ran_and_nowhere_else(near, runtime, window):
    model = Model(near, runtime)
    assert np.isnan(model.update(window(3.0, present={"eeg": 0.0, "ecg": 0.0})).distance)
    resting = feed(model, window, FIRST, CLOSING)
    assert all(0 < estimate.distance < 1 for estimate in resting)
    assert 0 < model.update(window(30.0)).distance < 1
    assert np.isnan(model.update(window(31.0, present={"eeg": 0.0, "ecg": 0.0})).distance)


@pytest.fixture(scope="module")
def person(shared_data):
    """Raw EEG and ECG (n, 20) of 100 s of a person at rest, uV at 128 Hz, and the labels."""
    with np.load(shared_data / "eegmat" / "eegmat_28_people_128hz_int16_0p1uV.npz") as people:
        labels = [str(name) for name in people["channels"]]
        rows = [row for row, name in enumerate(labels) if name != "A2-A1"]
        samples = people["Subject05_1"][rows, : 100 * 128].T * float(people["scale_uV"])
        return samples.astype(np.float32), [labels[row] for row in rows]


BROKEN = {
    "flat": lambda rng, n: np.full(n, 12.4),
    "large noise": lambda rng, n: rng.normal(0, 400, n),
    "not a number": lambda rng, n: np.full(n, np.nan),
}


def test_three_broken_channels_of_a_real_person_give_the_same_estimates_whatever_they_hold(person):
    default = load_bundle(DEFAULT)
    computed = load_runtime("ort", default)
    samples, labels = person
    streams = [
        StreamInfo(key="eeg", kind="eeg", channels=tuple(labels[:-1]), rate=128.0, unit="uV"),
        StreamInfo(key="ecg", kind="ecg", channels=("ECG",), rate=128.0, unit="uV"),
    ]

    def estimates(fault):
        changed, rng = samples.copy(), np.random.default_rng(0)
        for name in ("F3", "C4", "O2") if fault else ():
            changed[62 * 128 :, labels.index(name)] = fault(rng, 38 * 128)  # after the resting baseline
        times = np.arange(len(samples)) / 128.0
        chunks = [Chunk("eeg", times, changed[:, :-1].copy()), Chunk("ecg", times, changed[:, -1:].copy())]
        model = Model(default, computed)
        found = [model.update(window) for window in iter_windows(chunks, default.manifest.window, streams)]
        return [estimate for estimate in found if 75 <= estimate.t_end <= 95]

    clean = estimates(None)
    spoilt = {name: estimates(fault) for name, fault in BROKEN.items()}
    for name, found in spoilt.items():
        assert all(estimate.used == ("eeg", "ecg") for estimate in found), name
        for one, other in zip(found, spoilt["flat"], strict=True):
            assert one.mean.tobytes() == other.mean.tobytes(), name
    # Three of nineteen are gone, so the estimate moves; what stands there does not move it.
    change = [abs(a.mean[0] - b.mean[0]) for a, b in zip(clean, spoilt["flat"], strict=True)]
    assert np.mean(change) < 0.15, np.mean(change)


def test_a_window_of_another_shape_is_refused_in_words(model, window):
    good = window(4.0)
    for signals in ({"eeg": good.signals["eeg"][:, :-1], "ecg": good.signals["ecg"]}, {"eeg": good.signals["eeg"]}):
        wrong = Window(t_end=4.0, seconds=4.0, signals=signals, present=good.present, quality=good.quality)
        with pytest.raises(ModelError, match="cut windows as the bundle's manifest says"):
            model.update(wrong)

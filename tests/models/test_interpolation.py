"""What a network sees of bad channels: against MNE's splines, and against what was really there."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import signal

from models.api import Verdict
from models.interpolation import LEAST_GOOD, as_seen, repaired, weights
from models.montage import PUBLISHED


@pytest.fixture(scope="module")
def person(shared_data):
    """Ten seconds (19, n) of a person at rest, uV at 128 Hz, filtered as for a model, and the labels."""
    sos = signal.butter(4, (0.5, 45.0), "bandpass", fs=128.0, output="sos")
    with np.load(shared_data / "eegmat" / "eegmat_28_people_128hz_int16_0p1uV.npz") as people:
        labels = tuple(str(name) for name in people["channels"][:19])
        samples = signal.sosfilt(sos, people["Subject05_1"][:19] * float(people["scale_uV"]), axis=1)
        return np.ascontiguousarray(samples[:, 5120:6400], np.float32), labels


def verdicts(labels, bad):
    return [Verdict(label, 0.2 if label in bad else 1.0) for label in labels]


@pytest.mark.parametrize("bad", [("C3",), ("F4", "O1"), ("Fp1", "Cz", "T6", "P3", "O2")])
def test_a_bad_channel_is_interpolated_as_mne_does(person, bad):
    mne = pytest.importorskip("mne")
    samples, labels = person
    raw = mne.io.RawArray(samples.astype(float), mne.create_info(list(labels), 128.0, "eeg"), verbose="error")
    known = mne.channels.get_builtin_montages()
    montage = mne.channels.make_standard_montage("colin27_1020" if "colin27_1020" in known else "standard_1020")
    positions = montage.get_positions()["ch_pos"]
    places = {name: positions[name] for name in labels}
    raw.set_montage(mne.channels.make_dig_montage(places, coord_frame="head"), verbose="error")
    raw.info["bads"] = list(bad)
    theirs = raw.interpolate_bads(origin=(0.0007, -0.0165, -0.0036), verbose="error").get_data()
    mine = as_seen(samples, labels, verdicts(labels, bad))
    for name in bad:
        at = labels.index(name)
        assert np.corrcoef(mine[at], theirs[at])[0, 1] > 0.999
        assert np.std(mine[at] - theirs[at]) < 0.03 * np.std(theirs[at])
    good = [row for row, name in enumerate(labels) if name not in bad]
    assert np.array_equal(mine[good], samples[good])


def test_away_from_the_edge_of_the_cap_it_is_closer_to_what_was_there_than_zeros_are(person):
    samples, labels = person
    left = []
    for name in ("F3", "Fz", "F4", "C3", "Cz", "C4", "P3", "Pz", "P4"):
        at = labels.index(name)
        left.append(np.std(repaired(samples, labels, [at])[at] - samples[at]) / np.std(samples[at]))
    assert np.median(left) < 0.7, left  # zeros: 1


def test_a_constant_on_all_electrodes_is_interpolated_as_that_constant():
    assert np.allclose(repaired(np.full((19, 3), 7.0, np.float32), PUBLISHED, [0, 17]), 7, atol=1e-3)


@settings(deadline=None, max_examples=40)
@given(st.sets(st.integers(0, 18), min_size=1, max_size=8), st.sampled_from([np.nan, np.inf, -np.inf, 1e38, 0.0, 12.4]))
def test_nothing_of_a_bad_channel_reaches_the_network(bad, value):
    samples = np.random.default_rng(0).normal(0, 15, (19, 200)).astype(np.float32)
    spoilt = samples.copy()
    spoilt[list(bad)] = value
    seen = repaired(spoilt, PUBLISHED, sorted(bad))
    assert seen.tobytes() == repaired(samples, PUBLISHED, sorted(bad, reverse=True)).tobytes()
    assert np.isfinite(seen).all()
    assert seen.dtype == np.float32


def test_a_channel_that_the_headset_lacks_is_made_of_those_it_has(person):
    samples, labels = person
    cut = samples.copy()
    cut[labels.index("Pz")] = 0.0
    absent = [Verdict(label, 0.0, "absent") if label == "Pz" else Verdict(label, 1.0) for label in labels]
    at = labels.index("Pz")
    assert np.corrcoef(as_seen(cut, labels, absent)[at], samples[at])[0, 1] > 0.7


def test_the_score_below_which_a_channel_is_bad_is_that_of_the_bundle(person):
    samples, labels = person
    found = [Verdict(label, 0.6 if label == "C3" else 1.0) for label in labels]
    assert as_seen(samples, labels, found) is samples
    at = labels.index("C3")
    strict = as_seen(samples, labels, found, bad_score=0.7)
    assert not np.array_equal(strict[at], samples[at])
    nan = [Verdict(label, np.nan if label == "C3" else 1.0) for label in labels]
    assert as_seen(samples, labels, nan).tobytes() == strict.tobytes()


def test_doubtful_channels_reach_the_network_as_they_are(person):
    samples, labels = person
    assert as_seen(samples, labels, [Verdict(label, 0.5, "60 Hz is 40 % of power") for label in labels]) is samples


def test_the_window_that_came_is_not_changed(person):
    samples, labels = person
    before = samples.tobytes()
    as_seen(samples, labels, verdicts(labels, ("C3", "O1")))
    assert samples.tobytes() == before


def test_what_cannot_be_interpolated_is_zero():
    samples = np.ones((8, 5), np.float32)
    named = ("Fp1", "Fp2", "C3", "C4", "O1", "O2", "Cz", "AUX1")
    assert repaired(samples, named, [7])[7].tolist() == [0] * 5  # nobody knows where it lies
    assert repaired(samples, named, [0])[0] == pytest.approx(np.ones(5), abs=1e-3)  # from six others
    assert repaired(samples, named, [0, 1])[:2].tolist() == [[0] * 5] * 2  # five are not enough
    assert LEAST_GOOD == 6
    custom = tuple(f"EXG {i}" for i in range(8))
    assert repaired(samples, custom, [2]).sum(axis=1).tolist() == [5, 5, 0, 5, 5, 5, 5, 5]
    assert repaired(np.ones((1, 5), np.float32), ("ECG",), [0]).tolist() == [[0] * 5]


def test_a_good_channel_without_a_place_has_no_part_in_it_and_stays():
    samples = np.random.default_rng(0).normal(0, 15, (20, 50)).astype(np.float32)
    with_extra = repaired(samples, (*PUBLISHED, "EMG"), [3])
    assert with_extra[:19].tobytes() == repaired(samples[:19], PUBLISHED, [3]).tobytes()
    assert with_extra[19].tobytes() == samples[19].tobytes()


def test_other_spellings_of_the_same_places_give_the_same_bits(person):
    samples, labels = person
    spelt = tuple({"T3": "T7", "T4": "EEG T8-REF", "T5": "p7"}.get(name, name) for name in labels)
    assert repaired(samples, spelt, [4, 9]).tobytes() == repaired(samples, labels, [4, 9]).tobytes()


def test_the_same_window_gives_the_same_bits_in_another_program_however_it_lies_in_memory(person):
    code = (
        "import sys, numpy as np; from models.interpolation import repaired; from models.montage import PUBLISHED\n"
        "x = np.random.default_rng(1).normal(0, 15, (19, 2000)).astype(np.float32)\n"
        "sys.stdout.write(repaired(x, PUBLISHED, [2, 5, 11]).tobytes().hex())"
    )
    samples = np.random.default_rng(1).normal(0, 15, (19, 2000)).astype(np.float32)
    there = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    here = repaired(np.asfortranarray(samples), PUBLISHED, [2, 5, 11])
    assert bytes.fromhex(there.stdout) == np.ascontiguousarray(here).tobytes()
    aside = np.zeros((40, 2003), np.float32)[1:39:2, 3:]
    aside[:] = samples
    assert repaired(aside, PUBLISHED, [2, 5, 11]).tobytes() == np.ascontiguousarray(here).tobytes()


def test_weights_are_kept_by_the_set_of_bad_channels_and_cannot_be_changed_by_who_gets_them():
    _, _, first = weights(PUBLISHED, (2, 5))
    _, _, again = weights(PUBLISHED, (2, 5))
    assert first is again
    with pytest.raises(ValueError, match="read-only"):
        first[0, 0] = 1.0


def test_a_signal_that_does_not_fit_its_labels_is_refused():
    with pytest.raises(ValueError, match="3 channels came with 19 labels"):
        repaired(np.zeros((3, 4), np.float32), PUBLISHED, [0])

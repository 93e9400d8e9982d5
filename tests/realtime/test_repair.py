"""Repair for the eye: against MNE's interpolation and regression, and on real blinks."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import io, signal

from realtime.repair import after, interpolated, without_blinks
from realtime.rereference import MontageError, average

CAP = (
    "Fp1",
    "Fp2",
    "F7",
    "F3",
    "Fz",
    "F4",
    "F8",
    "T7",
    "C3",
    "Cz",
    "C4",
    "T8",
    "P7",
    "P3",
    "Pz",
    "P4",
    "P8",
    "O1",
    "O2",
)
OPENBCI = ("Fp1", "Fp2", "C3", "C4", "P7", "P8", "O1", "O2")


@pytest.fixture(scope="module")
def person(shared_data):
    """Ten seconds (n, 19) of a person at rest, uV at 128 Hz, and the labels."""
    with np.load(shared_data / "eegmat" / "eegmat_28_people_128hz_int16_0p1uV.npz") as people:
        labels = tuple(str(name) for name in people["channels"][:19])
        return people["Subject05_1"][:19, 5120:6400].T * float(people["scale_uV"]), labels


@pytest.mark.parametrize("bad", [("C3",), ("F4", "O1")])
def test_a_bad_channel_is_interpolated_as_mne_does(person, bad):
    mne = pytest.importorskip("mne")
    samples, labels = person
    samples = samples.copy()
    samples[:, [labels.index(name) for name in bad]] = 12.4
    raw = mne.io.RawArray(samples.T.copy(), mne.create_info(list(labels), 128.0, "eeg"), verbose="error")
    known = mne.channels.get_builtin_montages()
    montage = mne.channels.make_standard_montage("colin27_1020" if "colin27_1020" in known else "standard_1020")
    positions = montage.get_positions()["ch_pos"]
    places = {name: positions[name] for name in labels}
    raw.set_montage(mne.channels.make_dig_montage(places, coord_frame="head"), verbose="error")
    raw.info["bads"] = list(bad)
    theirs = raw.interpolate_bads(origin=(0.0007, -0.0165, -0.0036), verbose="error").get_data().T
    mine = interpolated(labels, bad).apply(samples)
    for name in bad:
        at = labels.index(name)
        assert np.corrcoef(mine[:, at], theirs[:, at])[0, 1] > 0.999
        assert np.std(mine[:, at] - theirs[:, at]) < 0.03 * np.std(theirs[:, at])
    good = [row for row, name in enumerate(labels) if name not in bad]
    assert np.array_equal(mine[:, good], samples[:, good])


def test_an_interpolated_channel_resembles_what_it_replaces(person):
    samples, labels = person
    mine = interpolated(labels, ("Pz",)).apply(samples)
    at = labels.index("Pz")
    assert np.corrcoef(mine[:, at], samples[:, at])[0, 1] > 0.7


def test_a_constant_on_all_electrodes_is_interpolated_as_that_constant():
    assert np.allclose(interpolated(CAP, ("Cz",)).apply(np.full((3, 19), 7.0)), 7, atol=1e-3)


def test_missing_values_of_a_bad_channel_do_not_matter():
    samples = np.random.default_rng(0).standard_normal((5, 19))
    samples[:, CAP.index("Cz")] = np.nan
    assert np.isfinite(interpolated(CAP, ("Cz",)).apply(samples)).all()


@pytest.mark.parametrize(
    ("labels", "bad", "said"),
    [
        (CAP, ("X1",), "there is no channel X1"),
        ((*CAP, "AUX1"), ("AUX1",), "AUX1 names no electrode"),
        (("Fp1", "Fp2", "TP9", "TP10"), ("Fp1",), "3 good electrodes are left, at least 6"),
        (("Cz",), ("Cz",), "0 good electrodes are left"),
    ],
)
def test_what_cannot_be_interpolated_is_refused_in_words(labels, bad, said):
    with pytest.raises(MontageError, match=said):
        interpolated(labels, bad)


@pytest.fixture(scope="module")
def blinking(shared_data):
    """OpenBCI's recording (n, 8) in uV at 250 Hz: blinks in the first 20 s, eyes closed from about 30 s on."""
    path = shared_data / "openbci" / "OpenBCI_GUI-v6-blinks-jawClench-alpha.txt"
    lines = path.read_text().splitlines()
    return np.array([line.split(",")[1:9] for line in lines if line[:1].isdigit()], np.float32)


def band(samples, low, high, rate=250.0):
    sos = signal.butter(4, (low, high), "bandpass", fs=rate, output="sos")
    return signal.sosfiltfilt(sos, samples - samples[0], axis=0)


@pytest.fixture(scope="module")
def looking(shared_data):
    """EEGLAB's sample (n, 32) in uV at 128 Hz with 14 blinks, and its labels."""
    folder = shared_data / "eeglab_sample"
    found = io.loadmat(folder / "eeglab_data.set", simplify_cells=True)["EEG"]
    labels = tuple(place["labels"] for place in found["chanlocs"])
    samples = np.fromfile(folder / "eeglab_data.fdt", "<f4").reshape(-1, len(labels))
    return samples - samples[0], labels


def shares(samples, eyes, tops, rate):
    """Which part of the average blink at the eyes (n,) each channel of ``samples`` (n, channels) shows."""
    reach = round(0.4 * rate)
    pieces = [np.column_stack([eyes, samples])[p - reach : p + reach] for p in tops]
    average = np.mean([piece - piece.mean(axis=0) for piece in pieces], axis=0)
    return average[:, 0] @ average[:, 1:] / (average[:, 0] @ average[:, 0])


@pytest.mark.parametrize("learnt_from", ["first half", "second half"])
def test_of_blinks_that_it_has_not_seen_most_goes_also_at_other_electrodes_than_those_it_regresses_on(
    looking, learnt_from
):
    samples, labels = looking
    before = band(samples, 0.5, 10, 128.0)
    eyes = before[:, labels.index("FPz")]
    tops = signal.find_peaks(eyes, height=75, distance=64)[0]
    middle = int(tops[len(tops) // 2 - 1]) + 100
    seen, kept = (
        (slice(0, middle), tops > middle) if learnt_from == "first half" else (slice(middle, None), tops < middle)
    )
    made = without_blinks(labels, samples[seen], 128.0)
    done = band(made.apply(samples), 0.5, 10, 128.0)
    assert kept.sum() >= 7
    there, left = (shares(x, eyes, tops[kept], 128.0) for x in (before, done))
    frontal = [labels.index(name) for name in ("F3", "Fz", "F4", "FC5", "FC6")]
    assert (there[frontal] > 0.15).all()
    assert (np.abs(left[frontal]) < 0.5 * there[frontal]).all()
    assert np.abs(left[frontal]).sum() < 0.35 * there[frontal].sum()
    # At the back, where there is no blink, none is put in.
    back = [labels.index(name) for name in ("PO7", "PO8", "O1", "Oz", "O2")]
    assert np.abs(left[back]).max() < 0.05
    # What the labels do not place is left alone.
    assert np.array_equal(made.matrix[labels.index("EOG1")], np.eye(32)[labels.index("EOG1")])


def test_the_alpha_of_a_real_recording_stays_where_it_is_strong(blinking):
    made = without_blinks(OPENBCI, blinking[500:5500], 250.0)
    alpha, kept = band(blinking, 8, 13), band(made.apply(blinking), 8, 13)
    closed = slice(34 * 250, 70 * 250)
    assert np.std(kept[closed, 6:], axis=0) == pytest.approx(np.std(alpha[closed, 6:], axis=0), rel=0.15)
    assert "regressed on Fp1, Fp2" in made.said


def test_made_blinks_are_taken_out_with_the_weights_they_were_put_in_with():
    rng = np.random.default_rng(0)
    times = np.arange(30 * 250) / 250
    blinks = 200 * sum(np.exp(-(((times - at) / 0.08) ** 2)) for at in np.arange(2, 29, 2.2))
    shares = np.array([1.0, 1.0, 0.4, 0.4, 0.15, 0.15, 0.05, 0.05])
    samples = blinks[:, None] * shares + rng.normal(0, 5, (len(times), 8))
    made = without_blinks(OPENBCI, samples.astype(np.float32), 250.0)
    assert (np.eye(8) - made.matrix).sum(axis=1) == pytest.approx(shares, abs=0.03)


def test_blinks_that_cannot_be_learnt_are_refused_in_words():
    quiet = np.random.default_rng(0).normal(0, 10, (5000, 8)).astype(np.float32)
    with pytest.raises(MontageError, match="0 in 20 s, at least 5 are needed; let the person blink"):
        without_blinks(OPENBCI, quiet, 250.0)
    with pytest.raises(MontageError, match="no electrode at the eyes"):
        without_blinks(OPENBCI[2:], quiet[:, 2:], 250.0)
    with pytest.raises(MontageError, match="no electrode but those at the eyes"):
        without_blinks(OPENBCI[:1], quiet[:, :1], 250.0)
    with pytest.raises(MontageError, match="0 s of EEG to learn from"):
        without_blinks(OPENBCI, np.full((5000, 8), np.nan, np.float32), 250.0)
    with pytest.raises(MontageError, match="do not fit 8 channels"):
        without_blinks(OPENBCI, quiet[:, :5], 250.0)


def test_repairs_and_references_follow_each_other():
    samples = np.random.default_rng(0).standard_normal((50, 19))
    both = after(interpolated(CAP, ("Cz",)), average(CAP))
    assert np.allclose(both.apply(samples), average(CAP).apply(interpolated(CAP, ("Cz",)).apply(samples)))
    assert both.said == "interpolated: Cz; average of 19 electrodes"
    with pytest.raises(MontageError, match="is for 8 channels"):
        after(average(CAP), average(OPENBCI))

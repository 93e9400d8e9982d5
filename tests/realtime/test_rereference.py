"""Another reference is a matrix with labels; what cannot be made is said in words."""

from __future__ import annotations

import numpy as np
import pytest

from models.electrodes import on_map, on_sphere
from realtime.rereference import CHAINS, MontageError, allowed, average, bipolar, linked_mastoids, montage

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


def samples(channels, n=50):
    return np.random.default_rng(0).standard_normal((n, channels)) + np.arange(channels)


def test_an_average_reference_sums_to_zero_and_does_not_depend_on_the_reference_before():
    values = samples(19)
    made = average(CAP)
    assert np.allclose(made.apply(values).sum(axis=1), 0)
    assert np.allclose(made.apply(values), made.apply(values - values[:, :1]))
    assert made.labels == CAP


def test_average_reference_is_that_of_mne():
    mne = pytest.importorskip("mne")
    values = samples(19)
    raw = mne.io.RawArray(values.T, mne.create_info(list(CAP), 250.0, "eeg"), verbose="error")
    assert np.allclose(average(CAP).apply(values), raw.set_eeg_reference("average", verbose="error").get_data().T)


def test_bad_channels_and_what_is_no_electrode_stay_out_of_the_average():
    labels = (*CAP, "AUX1")
    values = samples(20)
    made = average(labels, bad=["O2"])
    found = made.apply(values)
    assert np.allclose(found[:, :18].sum(axis=1), 0)
    assert np.array_equal(found[:, 19], values[:, 19])
    assert made.said == "average of 18 electrodes, without O2; no electrodes, shown as recorded: AUX1"


def test_linked_mastoids_by_any_of_their_names():
    for pair in (("A1", "A2"), ("M1", "M2"), ("TP9", "TP10")):
        values = samples(4)
        made = linked_mastoids(("Fp1", pair[0], "Cz", pair[1]))
        assert made.labels == ("Fp1", "Cz")
        assert np.allclose(made.apply(values)[:, 0], values[:, 0] - (values[:, 1] + values[:, 3]) / 2)


def test_bipolar_chains_cancel_what_is_common_and_name_their_pairs():
    values = samples(19)
    made = bipolar(CAP)
    assert len(made.labels) == sum(len(chain) - 1 for chain in CHAINS) == 18
    assert made.labels[:2] == ("Fp1-F7", "F7-T7")
    assert np.allclose(made.apply(values), made.apply(values + 100))
    assert np.allclose(made.apply(values)[:, 0], values[:, 0] - values[:, 2])


def test_pairs_that_lack_an_electrode_are_left_out_and_said():
    made = bipolar(("Fp1", "F3", "C3"))
    assert made.labels == ("Fp1-F3", "F3-C3")
    assert "not there: FP1-F7" in made.said
    assert "and 8 more" in made.said


def test_a_value_that_is_missing_costs_only_the_rows_that_need_it():
    values = samples(19)
    values[7, 0] = np.nan
    found = bipolar(CAP).apply(values)
    assert np.isnan(found[7, [0, 4]]).all()
    assert np.isfinite(found).sum() == found.size - 2
    assert np.isnan(average(CAP).apply(values)[7]).all()


@pytest.mark.parametrize(
    ("scheme", "labels", "said"),
    [
        ("average", ("EXG 0", "EXG 1", "Fp1"), "1 usable electrodes among EXG 0, EXG 1, Fp1, at least 4"),
        ("linked mastoids", ("Fp1", "A1"), "one of the pairs A1 and A2, M1 and M2, TP9 and TP10 is needed"),
        ("linked mastoids", ("A1", "A2", "AUX"), "there is no electrode"),
        ("bipolar", ("EXG 0", "Cz"), "can be made of EXG 0, Cz"),
        ("laplace", ("Cz",), "'laplace' is no reference; there are as recorded, average, linked mastoids, bipolar"),
    ],
)
def test_what_cannot_be_made_is_refused_in_words(scheme, labels, said):
    with pytest.raises(MontageError, match=said):
        montage(scheme, labels)


def test_an_unknown_bad_channel_and_a_wrong_width_are_refused_in_words():
    with pytest.raises(MontageError, match="X9 cannot be left out"):
        average(CAP, bad=["X9"])
    with pytest.raises(MontageError, match="made for 19 channels"):
        average(CAP).apply(samples(18))


@pytest.mark.parametrize("count", [1, 128])
def test_one_channel_and_many_come_as_recorded(count):
    values = samples(count)
    assert np.array_equal(montage("as recorded", [f"E{i}" for i in range(count)]).apply(values), values)


def test_positions_are_a_head_seen_from_above():
    places = dict(zip(CAP, on_map(CAP), strict=True))
    assert np.hypot(*places["Cz"]) < 0.1
    assert places["Fp1"][1] > 0.9
    assert places["O1"][1] < -0.8
    assert places["T7"][0] < -0.95
    assert places["T8"][0] > 0.95
    for left, right in (("F3", "F4"), ("C3", "C4"), ("O1", "O2")):
        assert places[left][0] == pytest.approx(-places[right][0], abs=0.06)
    assert np.allclose(np.linalg.norm(on_sphere(CAP), axis=1), 1, atol=1e-3)
    assert np.isnan(on_map(["AUX"])).all()


def test_references_are_offered_that_the_labels_allow():
    assert allowed(CAP) == ("as recorded", "average", "bipolar")
    assert allowed(("TP9", "AF7", "AF8", "TP10")) == ("as recorded", "average", "linked mastoids")
    assert allowed(()) == ("as recorded",)

"""How unlike the training data a signal is: the arithmetic, and the shipped model on real and on spoilt windows."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from scipy.spatial import distance as textbook

from models.bundle import DISTANCE, default_bundle_folder, load_bundle, write_bundle
from models.distance import Distance, Reference, fit_reference, limits_of, pack_references
from models.model import Model
from models.runtimes import load_runtime
from offline_training.datasets import eegmat
from realtime.windows import iter_windows


def test_without_shrinkage_it_is_the_distance_of_mahalanobis_over_the_root_of_the_dimension():
    random = np.random.default_rng(0)
    x = random.standard_normal((500, 6)) @ random.standard_normal((6, 6)) + random.standard_normal(6)
    got = fit_reference(x, shrinkage=0.0)(x[:20])
    inverse = np.linalg.inv(np.cov(x.T, bias=True))
    wanted = [textbook.mahalanobis(one, x.mean(0), inverse) / np.sqrt(6) for one in x[:20]]
    np.testing.assert_allclose(got, wanted)
    assert np.mean(fit_reference(x, 0.0)(x) ** 2) == pytest.approx(1.0)


def test_wholly_shrunk_it_is_the_distance_in_deviations_of_each_feature():
    x = np.random.default_rng(1).normal([1, 2, 3], [1, 10, 100], (200, 3))
    got = fit_reference(x, shrinkage=1.0)(x)
    np.testing.assert_allclose(got, np.sqrt(np.mean(((x - x.mean(0)) / x.std(0)) ** 2, axis=1)))


def test_it_does_not_depend_on_the_unit_of_a_feature():
    x = np.random.default_rng(2).standard_normal((100, 4))
    scaled = x * [1, 1e3, 1e-3, -5] + [0, 7, 1, 2]
    np.testing.assert_allclose(fit_reference(x)(x), fit_reference(scaled)(scaled))


def test_a_feature_that_never_moved_is_no_division_by_zero():
    x = np.random.default_rng(3).standard_normal((50, 3))
    x[:, 1] = 4.0
    reference = fit_reference(x)
    assert np.isfinite(reference(x)).all()
    assert reference([[0.0, 5.0, 0.0]])[0] > 1e3


def test_fewer_windows_than_dimensions_still_give_a_distance():
    x = np.random.default_rng(4).standard_normal((5, 40))
    assert np.isfinite(fit_reference(x)(10 * x)).all()


def test_the_limits_leave_in_the_share_that_they_are_asked_for():
    random = np.random.default_rng(5)
    plain, rested = random.gamma(9, 0.1, 20_000), 3 * random.gamma(4, 0.2, 20_000)
    limit = limits_of(plain, rested)
    assert np.mean((plain <= limit.plain) & (rested <= limit.rested)) == pytest.approx(0.99, abs=0.0005)
    assert np.mean(plain > limit.plain) == pytest.approx(np.mean(rested > limit.rested), abs=0.003)


def test_what_is_stored_gives_the_same_distances(bundle, tmp_path):
    random = np.random.default_rng(6)
    pairs = {
        kind: (fit_reference(random.standard_normal((60, width))), fit_reference(random.standard_normal((60, width))))
        for kind, width in bundle.manifest.embedding.items()
    }
    files = {name: bundle.read(name) for name in bundle.files} | {DISTANCE: pack_references(pairs)}
    stored = Distance(write_bundle(tmp_path / "bundle", bundle.manifest, files))
    value = random.standard_normal(bundle.manifest.embedding["eeg"])
    mean, sd = np.full(len(value), 0.3), np.full(len(value), 0.5)
    plain, rested = pairs["eeg"]
    assert stored.of("eeg", value, None) == pytest.approx(plain(value[None])[0], rel=1e-5)
    assert stored.of("eeg", value, (mean, sd)) == pytest.approx(
        max(plain(value[None])[0], rested(((value - mean) / sd).clip(-10, 10)[None])[0]), rel=1e-5
    )


def test_a_distance_that_is_no_number_is_beyond_every_limit():
    assert not np.isfinite(Reference(np.zeros(2), np.eye(2))([[np.nan, 0.0]])[0])


# -- the model that ships, on a person it was not trained on -----------------------------------------------------------


@pytest.fixture(scope="module")
def shipped():
    bundle = load_bundle(default_bundle_folder())
    return bundle, load_runtime("ort", bundle)


@pytest.fixture(scope="module")
def person(shared_data):
    if not eegmat.archive(shared_data).is_file():
        pytest.skip("no eegmat among the recordings")
    return [one for one in eegmat.everyone(shared_data) if one.person == "05"]


def noise(like):
    return np.random.default_rng(0).standard_normal(like.shape) * like.std()


SPOILT = {
    "five times too large": ("eeg", lambda x: 5 * x),
    "five times too small": ("eeg", lambda x: x / 5),
    "white noise": ("eeg", noise),
}


def spoil(recordings, how):
    """The same recordings with the data of one kind spoilt at the source, labels and stamps as they were."""
    kind, change = how
    for one in recordings:
        keys = {stream.key for stream in one.streams if stream.kind == kind}
        chunks = tuple(
            replace(chunk, data=np.ascontiguousarray(change(chunk.data), dtype=np.float32))
            if chunk.stream in keys
            else chunk
            for chunk in one.chunks
        )
        yield replace(one, chunks=chunks)


def used(shipped, recordings):
    """What becomes of each kind in the windows after the baseline: "used", "far", or what else was said."""
    bundle, runtime = shipped
    model, told = Model(bundle, runtime), {"eeg": Counter(), "ecg": Counter()}
    for one in recordings:
        for window in iter_windows(one.chunks, bundle.manifest.window, one.streams):
            resting = one.rest and window.t_end - one.start <= 60.0
            if not resting and round(window.t_end) % 5:
                continue  # the baseline needs every window, the rest of the session not
            estimate = model.update(window)
            for kind in told if not resting else ():
                faults = model.notes + tuple((estimate.withheld or "").split(", "))
                said = next((text for text in faults if text.startswith(kind.upper())), "not said")
                told[kind]["used" if kind in estimate.used else said.split(" (")[0]] += 1
    return told


def test_windows_of_a_person_not_trained_on_are_not_called_strange(shipped, person):
    told = used(shipped, person)
    for kind, count in told.items():
        assert count["used"] / count.total() > 0.95, (kind, count)


@pytest.mark.parametrize("what", SPOILT)
def test_eeg_that_is_absurd_from_the_beginning_is_not_used(shipped, person, what):
    told = used(shipped, spoil(person, SPOILT[what]))
    assert told["eeg"]["used"] <= 0.05 * told["eeg"].total(), told["eeg"]
    assert told["ecg"]["used"] > 0.9 * told["ecg"].total(), told["ecg"]

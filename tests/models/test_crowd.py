"""Many people through one runtime: everybody gets what they would get alone, and nobody pays for another."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from models.api import ModelError
from models.bundle import write_bundle
from models.crowd import Crowd
from models.model import Model
from models.runtimes import load_runtime

PEOPLE = 16
TOLERANCE = 1e-5
"""Relative, of fp32 on ONNX Runtime: what a batch rounds otherwise."""


@pytest.fixture(scope="module")
def runtime(bundle):
    return load_runtime("ort", bundle)


class Counting:
    """The real network, which says how many windows each call had."""

    def __init__(self, runtime):
        self.runtime, self.calls = runtime, []

    def __call__(self, inputs):
        self.calls.append(len(inputs["use"]))
        return self.runtime(inputs)


def outcomes_of(crowd, due):
    """In the order of ``due``."""
    found = dict(crowd.run(due))
    return [found[index] for index in range(len(due))]


def course(window, person, second):
    """The window of one person at a second: each began at another time and has troubles of their own."""
    t = second - 2 * (person % 5)
    if t < 4 or (person == 3 and second % 7 == 0):
        return None  # not begun, or skipped
    what = {}
    if person == 4:
        what["present"] = {"eeg": 0.0}
    elif person == 5 and t > 22:
        what["present"] = {"ecg": 0.3}
    elif person == 6 and t % 3 == 0:
        what["bad"] = {"ecg": (1, "flat")}
    elif person == 7:
        what["present"] = {"eeg": 0.0, "ecg": 0.0}
    return window(float(t) + 1000.0 * person, **what)


def alone(bundle, runtime, window, seconds):
    models = [Model(bundle, runtime) for _ in range(PEOPLE)]
    told = []
    for second in range(seconds):
        due = [(person, course(window, person, second)) for person in range(PEOPLE)]
        told.append({person: models[person].update(one) for person, one in due if one is not None})
    return told


def together(bundle, runtime, window, seconds, size, shuffled=True):
    crowd, models = Crowd(runtime, size), [Model(bundle, runtime) for _ in range(PEOPLE)]
    random = np.random.default_rng(0)
    told = []
    for second in range(seconds):
        due = [(person, course(window, person, second)) for person in range(PEOPLE)]
        due = [(person, one) for person, one in due if one is not None]
        if shuffled:
            random.shuffle(due)
        outcomes = outcomes_of(crowd, [(models[person], one) for person, one in due])
        told.append({person: outcome for (person, _), outcome in zip(due, outcomes, strict=True)})
    return told


SECONDS = 34


@pytest.fixture(scope="module")
def expected(bundle, runtime, window):
    return alone(bundle, runtime, window, SECONDS)


def test_the_people_of_these_tests_are_at_different_states(expected):
    said = {estimate.withheld and estimate.withheld.split(":")[0] for told in expected for estimate in told.values()}
    assert {None, "resting baseline", "resting baseline complete", "EEG missing, ECG missing"} <= said
    assert {estimate.used for estimate in expected[-1].values()} >= {("eeg", "ecg"), ("ecg",), ("eeg",), ()}


def test_one_window_a_call_gives_everybody_the_bits_they_get_alone(bundle, runtime, window, expected):
    for told, wanted in zip(together(bundle, runtime, window, SECONDS, 1), expected, strict=True):
        assert told.keys() == wanted.keys()
        for person, estimate in told.items():
            assert estimate.mean.tobytes() == wanted[person].mean.tobytes()
            assert estimate.sd.tobytes() == wanted[person].sd.tobytes()
            assert (estimate.withheld, estimate.used) == (wanted[person].withheld, wanted[person].used)


@pytest.mark.parametrize("size", [4, PEOPLE])
def test_many_windows_a_call_give_the_same_within_rounding(bundle, runtime, window, expected, size):
    counting = Counting(runtime)
    for told, wanted in zip(together(bundle, counting, window, SECONDS, size), expected, strict=True):
        for person, estimate in told.items():
            np.testing.assert_allclose(estimate.mean, wanted[person].mean, rtol=TOLERANCE)
            np.testing.assert_allclose(estimate.sd, wanted[person].sd, rtol=TOLERANCE)
            np.testing.assert_allclose(estimate.distance, wanted[person].distance, rtol=TOLERANCE)
            assert (estimate.withheld, estimate.used) == (wanted[person].withheld, wanted[person].used)
    assert max(counting.calls) == (4 if size == 4 else PEOPLE - 1)  # one has no signal at all
    assert len(counting.calls) < SECONDS * PEOPLE / 3


@pytest.fixture
def running(bundle, runtime, window):
    models = [Model(bundle, runtime) for _ in range(4)]
    for model in models:
        for t in range(4, 21):
            model.update(window(float(t)))
    return models


@pytest.mark.parametrize("size", [1, 4])
def test_a_window_of_a_wrong_shape_costs_only_its_own_person(bundle, runtime, window, running, size):
    due = [window(30.0 + person) for person in range(4)]
    short = replace(due[1], signals={kind: signal[:, :-1] for kind, signal in due[1].signals.items()})
    outcomes = outcomes_of(Crowd(runtime, size), list(zip(running, [due[0], short, due[2], due[3]], strict=True)))
    assert isinstance(outcomes[1], ModelError)
    assert [outcomes[person].used for person in (0, 2, 3)] == [("eeg", "ecg")] * 3
    assert running[1].update(due[1]).used == ("eeg", "ecg")


def test_values_that_are_not_numbers_cost_only_their_own_person(runtime, window, running):
    due = [window(30.0 + person) for person in range(4)]
    wanted = [running[person].update(due[person]) for person in (0, 2, 3)]
    for signal in due[1].signals.values():
        signal[:] = np.nan
    outcomes = outcomes_of(Crowd(runtime, 4), list(zip(running, due, strict=True)))
    assert "not numbers" in outcomes[1].withheld
    for person, alone_told in zip((0, 2, 3), wanted, strict=True):
        np.testing.assert_allclose(outcomes[person].mean, alone_told.mean, rtol=TOLERANCE)


class Choosy:
    """The real network, which fails or gives NaN when a certain window is among those it is given."""

    def __init__(self, runtime, marked, value=None):
        self.runtime, self.marked, self.value = runtime, marked, value

    def __call__(self, inputs):
        rows = [row for row, eeg in enumerate(inputs["eeg"]) if np.array_equal(eeg, self.marked)]
        if rows and self.value is None:
            raise RuntimeError("out of memory")
        outputs = self.runtime(inputs)
        for values in outputs.values():
            values[rows] = np.nan if self.value is None else self.value
        return outputs


@pytest.mark.parametrize("size", [1, 4])
@pytest.mark.parametrize(("value", "said"), [(None, "out of memory"), (np.nan, "model returned NaN")])
def test_a_runtime_that_fails_for_one_window_costs_only_its_own_person(
    bundle, runtime, window, running, size, value, said
):
    due = [window(30.0 + person) for person in range(4)]
    wanted = [model.update(one) for model, one in zip(running, due, strict=True)]
    crowd = Crowd(Choosy(runtime, due[2].signals["eeg"], value), size)
    outcomes = outcomes_of(crowd, list(zip(running, due, strict=True)))
    guilty = outcomes.pop(2)
    assert said in (str(guilty) if value is None else guilty.withheld)
    for outcome, alone_told in zip(outcomes, wanted[:2] + wanted[3:], strict=True):
        np.testing.assert_allclose(outcome.mean, alone_told.mean, rtol=TOLERANCE)


def test_a_runtime_that_gives_too_few_rows_is_asked_for_each_window_alone(runtime, window, running):
    def short(inputs):
        return {name: values[:1] for name, values in runtime(inputs).items()}

    outcomes = outcomes_of(Crowd(short, 4), [(model, window(30.0)) for model in running])
    assert all(outcome.used == ("eeg", "ecg") for outcome in outcomes)


def test_nobody_due_is_no_call(runtime):
    counting = Counting(runtime)
    assert outcomes_of(Crowd(counting, 16), []) == []
    assert counting.calls == []


def test_what_cannot_be_meant_is_refused(bundle, runtime, window, tmp_path):
    model = Model(bundle, runtime)
    with pytest.raises(ValueError, match="two windows due at once"):
        outcomes_of(Crowd(runtime, 4), [(model, window(4.0)), (model, window(5.0))])
    files = {name: bundle.read(name) for name in bundle.files}
    other = write_bundle(tmp_path / "other", replace(bundle.manifest, version="0.2"), files)
    with pytest.raises(ValueError, match="different bundles"):
        outcomes_of(Crowd(runtime, 4), [(model, window(4.0)), (Model(other, runtime), window(4.0))])
    with pytest.raises(ValueError, match="at least 1"):
        Crowd(runtime, 0)

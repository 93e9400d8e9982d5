"""Sessions of several people that share one model thread."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest

from models.api import ModelError
from models.bundle import write_bundle
from models.model import Model
from models.runtimes import load_runtime
from realtime.together import Desk, SharedModel

PEOPLE = 6
SECONDS = 70


@pytest.fixture(scope="module")
def runtime(bundle):
    return load_runtime("ort", bundle)


class Watched:
    """The real network, which says from which threads and with how many windows it was called."""

    def __init__(self, runtime):
        self.runtime, self.threads, self.calls = runtime, set(), []

    def __call__(self, inputs):
        self.threads.add(threading.current_thread().name)
        self.calls.append(len(inputs["use"]))
        return self.runtime(inputs)


def figures(estimate):
    """All that an estimate says, to the bit."""
    numbers = (estimate.mean.tobytes(), estimate.sd.tobytes(), np.float64(estimate.distance).tobytes())
    words = (estimate.withheld, estimate.used, estimate.unused, estimate.targets, estimate.model)
    return (estimate.t_end, *numbers, *words, estimate.quality, estimate.present)


def course(model, window, person):
    """A session of one person, each with troubles of their own; the times of no two people are the same."""
    for second in range(SECONDS):
        trouble = {}
        if person == 1 and second % 5 == 0:
            trouble["present"] = {"eeg": 0.0, "ecg": 0.0}
        elif person == 2 and second > 40:
            trouble["present"] = {"ecg": 0.2}
        elif person == 3 and second % 3 == 0:
            trouble["bad"] = {"eeg": (3, "flat")}
        elif person == 4:
            trouble["bad"] = {"ecg": (1, "50 Hz is 61 % of power")}
        yield model.update(window(100.0 * person + second, **trouble))


def alone(bundle, runtime, window):
    return [list(course(Model(bundle, runtime), window, person)) for person in range(PEOPLE)]


def at_a_desk(desk, window):
    with ThreadPoolExecutor(PEOPLE) as pool:
        return list(pool.map(lambda person: list(course(desk.seat(), window, person)), range(PEOPLE)))


def test_each_of_many_gets_to_the_bit_what_they_get_alone_withheld_or_given(bundle, runtime, window):
    watched = Watched(runtime)
    with Desk(bundle, watched) as desk:
        together = at_a_desk(desk, window)
    for told, wanted in zip(together, alone(bundle, runtime, window), strict=True):
        assert [figures(one) for one in told] == [figures(one) for one in wanted]
        assert {one.withheld is None for one in told} == {True, False}
    reasons = {(one.withheld or "given").split(":")[0] for told in together for one in told}
    assert {"given", "resting baseline", "EEG missing, ECG missing"} <= reasons
    assert {one.used for told in together for one in told} >= {("eeg", "ecg"), ("eeg",), ("ecg",), ()}
    assert watched.threads == {"models"}
    assert set(watched.calls) == {1}


def test_of_an_accelerator_each_of_many_gets_what_they_get_alone_within_rounding(bundle, runtime, window):
    watched = Watched(runtime)
    watched.together = 4  # what TensorRT and TensorRT-RTX say of themselves, as a small number
    with Desk(bundle, watched) as desk:
        together = at_a_desk(desk, window)
    for told, wanted in zip(together, alone(bundle, runtime, window), strict=True):
        for one, other in zip(told, wanted, strict=True):
            assert (one.t_end, one.withheld, one.used) == (other.t_end, other.withheld, other.used)
            for name in ("mean", "sd", "distance"):
                np.testing.assert_allclose(getattr(one, name), getattr(other, name), rtol=1e-5)
    assert 1 <= max(watched.calls) <= 4


def test_each_has_the_answer_as_soon_as_the_own_window_is_done_and_not_after_those_of_the_others(
    bundle, runtime, window
):
    steps = [threading.Event() for _ in range(3)]
    begun = threading.Semaphore(0)
    calls = iter(steps)

    def in_steps(inputs):
        begun.release()
        assert next(calls).wait(30)
        return runtime(inputs)

    with Desk(bundle, in_steps) as desk, ThreadPoolExecutor(3) as pool:
        first = pool.submit(desk.seat().update, window(0.0))
        assert begun.acquire(timeout=30)
        # Two more are due while the first is under way: they make one round.
        second = pool.submit(desk.seat().update, window(1.0))
        while desk.waiting < 1:
            pass
        third = pool.submit(desk.seat().update, window(2.0))
        while desk.waiting < 2:
            pass
        steps[0].set()
        assert first.result(30).t_end == 0.0
        steps[1].set()
        assert second.result(30).t_end == 1.0
        assert not third.done()
        steps[2].set()
        assert third.result(30).t_end == 2.0


def test_windows_that_are_due_together_go_through_an_accelerator_in_one_call(bundle, runtime, window):
    watched = Watched(runtime)
    entered, go = threading.Event(), threading.Event()
    plain = watched.runtime

    def slow(inputs):
        entered.set()
        assert go.wait(30)
        return plain(inputs)

    watched.runtime = slow
    watched.together = 4
    with Desk(bundle, watched) as desk, ThreadPoolExecutor(PEOPLE) as pool:
        first = pool.submit(desk.seat().update, window(0.0))
        assert entered.wait(30)
        others = [pool.submit(desk.seat().update, window(float(n))) for n in range(1, PEOPLE)]
        while desk.waiting < PEOPLE - 1:
            pass
        go.set()
        assert [one.result(30).t_end for one in (first, *others)] == [float(n) for n in range(PEOPLE)]
    assert watched.calls == [1, 4, 1]


def test_a_runtime_that_fails_for_one_costs_the_others_nothing(bundle, runtime, window):
    def fails(inputs):
        if inputs["eeg"].max() > 1e5:
            raise RuntimeError("out of memory")
        return runtime(inputs)

    odd = window(1.0)
    odd.signals["eeg"][:] = 1e6
    with Desk(bundle, fails) as desk:
        with pytest.raises(RuntimeError, match="out of memory"):
            desk.seat().update(odd)
        estimate = desk.seat().update(window(1.0))
    assert np.isnan(estimate.mean).all()
    assert estimate.withheld


def test_nobody_waits_when_the_desk_itself_fails(bundle, runtime, window, tmp_path):
    files = {name: bundle.read(name) for name in bundle.files}
    other = write_bundle(tmp_path / "other", replace(bundle.manifest, version="0.2"), files)
    entered, go = threading.Event(), threading.Event()

    def slow(inputs):
        entered.set()
        assert go.wait(30)
        return runtime(inputs)

    with Desk(bundle, slow) as desk, ThreadPoolExecutor(3) as pool:
        first = pool.submit(desk.seat().update, window(0.0))
        assert entered.wait(30)
        wrong = [pool.submit(SharedModel(one, runtime, desk).update, window(1.0)) for one in (bundle, other)]
        while desk.waiting < 2:
            pass
        go.set()
        assert first.result(30).t_end == 0.0
        for each in wrong:
            with pytest.raises(ValueError, match="different bundles"):
                each.result(30)
        assert desk.seat().update(window(2.0)).t_end == 2.0


def test_nobody_waits_for_a_desk_that_is_closed(bundle, runtime, window):
    with Desk(bundle, runtime) as desk:
        seat = desk.seat()
    with pytest.raises(ModelError, match="ended"):
        seat.update(window(1.0))


def test_who_leaves_in_a_hurry_does_not_wait_for_a_model_that_hangs(bundle, runtime, window):
    entered, go = threading.Event(), threading.Event()

    def hangs(inputs):
        entered.set()
        go.wait(60)
        return runtime(inputs)

    desk = Desk(bundle, hangs)
    with ThreadPoolExecutor(1) as pool:
        desk.__enter__()
        waiting = pool.submit(desk.seat().update, window(1.0))
        assert entered.wait(30)
        began = time.monotonic()
        desk.__exit__(KeyboardInterrupt, KeyboardInterrupt(), None)
        assert time.monotonic() - began < 10
        go.set()
        assert waiting.result(30).t_end == 1.0

"""Sessions of several people that share one model thread."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from models.api import ModelError
from models.model import Model
from models.runtimes import load_runtime
from realtime.together import Desk

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


def figures(estimates):
    return [(e.t_end, e.withheld, e.mean.tobytes(), e.sd.tobytes(), e.quality) for e in estimates]


def test_each_of_many_gets_to_the_bit_what_they_get_alone_from_one_thread(bundle, runtime, window):
    def course(model, person):
        return [model.update(window(100.0 * person + second)) for second in range(SECONDS)]

    watched = Watched(runtime)
    with Desk(bundle, watched) as desk, ThreadPoolExecutor(PEOPLE) as pool:
        seats = [desk.seat() for _ in range(PEOPLE)]
        together = list(pool.map(course, seats, range(PEOPLE)))
    for person, estimates in enumerate(together):
        assert figures(estimates) == figures(course(Model(bundle, runtime), person))
        assert any(estimate.withheld is None for estimate in estimates)
    assert watched.threads == {"models"}
    assert set(watched.calls) == {1}


def test_windows_that_are_due_together_go_through_an_accelerator_in_one_call(bundle, runtime, window):
    watched = Watched(runtime)
    entered, go = threading.Event(), threading.Event()
    plain = watched.runtime

    def slow(inputs):
        entered.set()
        assert go.wait(30)
        return plain(inputs)

    watched.runtime = slow
    with Desk(bundle, watched, together=4) as desk, ThreadPoolExecutor(PEOPLE) as pool:
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

"""Several live sessions, one model: a thread of its own runs the windows of all that are due.

Every session keeps its sources, record, dashboard and resting baseline; only the network is shared, and with it the
processor or accelerator.
"""

from __future__ import annotations

import queue
import threading
from concurrent.futures import Future
from typing import Self

from models.api import Estimate, ModelError, Runtime, Window
from models.bundle import Bundle
from models.crowd import Crowd, Outcome
from models.model import Model

PATIENCE = 1.0
"""Seconds after which a waiting session looks whether there is anybody to answer."""

_Request = tuple["SharedModel", Window, "Future[Estimate]"]


class Desk:
    """The thread in which one runtime serves the sessions of many people; a context manager around them.

    What is due when it looks goes through the runtime, at most ``together`` windows in a call, or as many as the
    runtime itself says: one on a processor, many on an accelerator. Each session has its answer as soon as its own
    window is done. With one in a call every estimate is, to the bit, that of a session alone (`models.crowd.Crowd`).
    """

    def __init__(self, bundle: Bundle, runtime: Runtime, together: int | None = None) -> None:
        self._bundle = bundle
        self._runtime = runtime
        self._crowd = Crowd(runtime, together)
        self._requests: queue.SimpleQueue[_Request | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._serve, name="models", daemon=True)

    def seat(self) -> SharedModel:
        """The model of one more person."""
        return SharedModel(self._bundle, self._runtime, self)

    def ask(self, model: SharedModel, window: Window) -> Estimate:
        """What ``model`` says of ``window``; waits for its turn. Raises what the model or the runtime raises."""
        answer: Future[Estimate] = Future()
        self._requests.put((model, window, answer))
        while True:
            try:
                return answer.result(PATIENCE)
            except TimeoutError:
                if not self._thread.is_alive() and not answer.done():
                    raise ModelError("the thread of the models has ended") from None

    @property
    def waiting(self) -> int:
        """Windows that are due and not taken up yet."""
        return self._requests.qsize()

    def _serve(self) -> None:
        over = False
        while not over:
            due = [self._requests.get()]
            # A session waits for its answer, so that none has two windows here.
            while not self._requests.empty():
                due.append(self._requests.get())
            over = None in due
            asked = [request for request in due if request is not None]
            try:
                for index, outcome in self._crowd.run([(model, window) for model, window, _ in asked]):
                    _tell(asked[index][2], outcome)
            except Exception as error:  # noqa: BLE001  (nobody may wait for an answer that does not come)
                for _, _, answer in asked:
                    if not answer.done():
                        answer.set_exception(error)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *exc: object) -> None:
        """When no session runs any more; who leaves in a hurry does not wait for a model that hangs."""
        self._requests.put(None)
        if kind is None:
            self._thread.join()


def _tell(answer: Future[Estimate], outcome: Outcome) -> None:
    if isinstance(outcome, Exception):
        answer.set_exception(outcome)
    else:
        answer.set_result(outcome)


class SharedModel(Model):
    """The model of one person, run at a `Desk` that others use too."""

    def __init__(self, bundle: Bundle, runtime: Runtime, desk: Desk) -> None:
        super().__init__(bundle, runtime)
        self._desk = desk

    def update(self, window: Window) -> Estimate:
        """What the model says of the next window of the session; waits for its turn."""
        return self._desk.ask(self, window)

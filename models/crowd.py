"""Many people at once: the due windows of several models go through one runtime, one call for many."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from models.api import Arrays, Estimate, ModelError, Runtime, Window
from models.model import Model, Steps

Outcome = Estimate | Exception
"""What became of a window: its estimate, or why there is none, which says nothing of the others."""


class Crowd:
    """Runs the windows of many sessions of one bundle. Called from one thread, which owns all the models.

    ``together`` windows at most go through one call of the runtime; left out, as many as the runtime says it computes
    best (`windows_a_call`). With 1 each estimate is, to the bit, what `Model.update` gives, and it is there before the
    next window is looked at. With more a processor or an accelerator rounds otherwise, by the size of the batch and the
    place in it: estimates then agree within the bundle's tolerance, and a replay of one session alone repeats them
    within it, not to the bit.
    """

    def __init__(self, runtime: Runtime, together: int | None = None) -> None:
        together = windows_a_call(runtime) if together is None else together
        if together < 1:
            raise ValueError(f"{together} windows in a call: at least 1")
        self._runtime = runtime
        self._together = together

    def run(self, due: Sequence[tuple[Model, Window]]) -> Iterator[tuple[int, Outcome]]:
        """The outcome of each window as soon as it is done, with its place in ``due``. All models are of one bundle."""
        if len({id(model) for model, _ in due}) < len(due):
            raise ValueError("a model has two windows due at once; give them one after the other")
        if len({model.bundle.hash for model, _ in due}) > 1:
            raise ValueError("the models are of different bundles; a runtime computes one network")
        return self._run(due)

    def _run(self, due: Sequence[tuple[Model, Window]]) -> Iterator[tuple[int, Outcome]]:
        waiting = deque(enumerate(due))
        asking: list[_Asking] = []
        while waiting or asking:
            # Who has to leave a kind out after all asks a second time, first in the next call, and no third time.
            while waiting and len(asking) < self._together:
                index, (model, window) = waiting.popleft()
                one = _Asking(index, model.steps(window))
                if (outcome := one.advance(None)) is None:
                    asking.append(one)
                else:
                    yield index, outcome
            if not asking:
                return
            now, asking = asking, []
            for one, answer in zip(now, self._answers([one.inputs for one in now]), strict=True):
                if (outcome := one.advance(answer)) is None:
                    asking.append(one)
                else:
                    yield one.index, outcome

    def _answers(self, inputs: Sequence[Arrays]) -> list[dict[str, NDArray[np.float32]] | Exception]:
        """The outputs for each of several inputs with a batch of one; in one call, or each alone when that fails."""
        try:
            batch = {name: np.concatenate([one[name] for one in inputs]) for name in inputs[0]}
            outputs = self._runtime(batch)
            for name, values in outputs.items():
                if len(values) != len(inputs):
                    raise ModelError(f"the runtime gave {len(values)} rows of {name} for {len(inputs)} windows")
        except Exception as error:  # noqa: BLE001  (a runtime may raise anything)
            return [error] if len(inputs) == 1 else [answer for one in inputs for answer in self._answers([one])]
        return [{name: values[row : row + 1] for name, values in outputs.items()} for row in range(len(inputs))]


class _Asking:
    """A window under way: its place, and what it asks of the network next."""

    def __init__(self, index: int, steps: Steps) -> None:
        self.index = index
        self.inputs: Arrays = {}
        self._steps = steps

    def advance(self, answer: Arrays | Exception | None) -> Outcome | None:
        """The outcome, or None when the network is asked (again)."""
        if isinstance(answer, Exception):
            self._steps.close()
            return answer
        try:
            self.inputs = next(self._steps) if answer is None else self._steps.send(answer)
        except StopIteration as done:
            estimate: Estimate = done.value
            return estimate
        except Exception as error:  # noqa: BLE001  (a window of a wrong shape must not cost the others theirs)
            return error
        return None


def windows_a_call(runtime: Runtime) -> int:
    """How many windows a runtime should compute in a call: what its ``together`` says, 1 when it says nothing.

    An accelerator computes many in about the time of one; a processor does not, and is right to the bit with one.
    """
    return int(getattr(runtime, "together", 1))

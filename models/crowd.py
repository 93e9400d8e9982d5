"""Many people at once: the due windows of several models go through one runtime, one call for many."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from models.api import Arrays, Estimate, ModelError, Runtime, Window
from models.model import Model, Steps

Outcome = Estimate | Exception
"""What became of a window: its estimate, or why there is none, which says nothing of the others."""


class Crowd:
    """Runs the windows of many sessions of one bundle. Called from one thread, which owns all the models.

    ``together`` windows at most go through one call of the runtime. With 1 each estimate is, to the bit, what
    `Model.update` gives. With more a processor or an accelerator rounds otherwise, by the size of the batch and the
    place in it: estimates then agree within the bundle's tolerance, and a replay of one session alone repeats them
    within it, not to the bit.
    """

    def __init__(self, runtime: Runtime, together: int) -> None:
        if together < 1:
            raise ValueError(f"{together} windows in a call: at least 1")
        self._runtime = runtime
        self._together = together

    def update(self, due: Sequence[tuple[Model, Window]]) -> list[Outcome]:
        """The outcome of each window, in the order of ``due``; the models differ and are of one bundle."""
        if len({id(model) for model, _ in due}) < len(due):
            raise ValueError("a model has two windows due at once; give them one after the other")
        if len({model.bundle.hash for model, _ in due}) > 1:
            raise ValueError("the models are of different bundles; a runtime computes one network")
        running = [model.steps(window) for model, window in due]
        outcomes: dict[int, Outcome] = {}
        asked: dict[int, Arrays] = {}
        for index, steps in enumerate(running):
            _advance(steps, None, index, asked, outcomes)
        # A second round for whoever has to leave a kind out after all, and no third.
        while asked:
            now, asked = asked, {}
            for indices in _groups(sorted(now), self._together):
                for index, answer in zip(indices, self._answers([now[index] for index in indices]), strict=True):
                    _advance(running[index], answer, index, asked, outcomes)
        return [outcomes[index] for index in range(len(due))]

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


def _advance(
    steps: Steps,
    answer: Arrays | Exception | None,
    index: int,
    asked: dict[int, Arrays],
    outcomes: dict[int, Outcome],
) -> None:
    """Takes one session on, to what it asks of the network next or to its outcome."""
    if isinstance(answer, Exception):
        steps.close()
        outcomes[index] = answer
        return
    try:
        asked[index] = next(steps) if answer is None else steps.send(answer)
    except StopIteration as done:
        outcomes[index] = done.value
    except Exception as error:  # noqa: BLE001  (a window of a wrong shape must not cost the others theirs)
        outcomes[index] = error


def _groups(indices: Sequence[int], size: int) -> Iterator[Sequence[int]]:
    for first in range(0, len(indices), size):
        yield indices[first : first + size]

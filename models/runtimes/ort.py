"""ONNX Runtime on the processor: what a live session uses."""

from __future__ import annotations

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from models.api import Arrays, ModelError, Runtime
from models.bundle import GRAPH, INPUTS, OUTPUTS, Bundle

_EXTERNAL = b"\n\x08location"
"""How a tensor kept outside the graph's file names that file, in ONNX's protobuf: field 1, eight letters."""


class OrtRuntime:
    """A session of ONNX Runtime; named arrays in, named arrays out."""

    def __init__(self, session: onnxruntime.InferenceSession) -> None:
        self._session = session

    def __call__(self, inputs: Arrays) -> dict[str, NDArray[np.float32]]:
        feed = {name: np.ascontiguousarray(inputs[name], dtype=np.float32) for name in INPUTS}
        return dict(zip(OUTPUTS, self._session.run(list(OUTPUTS), feed), strict=True))


def load(bundle: Bundle, threads: int = 1) -> Runtime:
    """The graph of ``bundle`` in a session of its own.

    One thread and no spinning: beside acquisition and a dashboard on two cores, more threads cost more than they give
    (p95 of seconds under contention were measured with two).
    """
    graph = bundle.read(GRAPH)
    if _EXTERNAL in graph:
        raise ModelError(
            f"{bundle.folder / GRAPH}: keeps tensors in other files, which is refused; export it as one file"
        )
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.log_severity_level = 4
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.inter_op.allow_spinning", "0")
    try:
        session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # noqa: BLE001 - onnxruntime has no common base class of its errors
        reason = " ".join(str(error).split())[:200]
        raise ModelError(f"{bundle.folder / GRAPH}: ONNX Runtime cannot load it ({reason})") from None
    given = tuple(entry.name for entry in session.get_inputs())
    made = tuple(entry.name for entry in session.get_outputs())
    if sorted(given) != sorted(INPUTS) or sorted(made) != sorted(OUTPUTS):
        raise ModelError(
            f"{bundle.folder / GRAPH}: takes {', '.join(given):.100} and gives {', '.join(made):.100}, "
            f"expected {', '.join(INPUTS)} and {', '.join(OUTPUTS)}"
        )
    return OrtRuntime(session)

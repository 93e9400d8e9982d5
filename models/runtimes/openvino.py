"""OpenVINO on the processor, in bf16 where the processor computes it: the fastest way for a network of published size.

It has two graphs ready: one compiled for a single window, which is what a session asks for, and one for any number.
"""

from __future__ import annotations

import numpy as np
import openvino
from numpy.typing import NDArray

from models.api import Arrays, ModelError
from models.bundle import GRAPH, INPUTS, OUTPUTS, Bundle
from models.runtimes import NamedRuntime, Precision, check_names, first_that_agrees, one_line, read_graph


class OpenVinoRuntime:
    """Requests of two compiled graphs; named arrays in, named arrays out."""

    passed_over: tuple[str, ...] = ()
    together = 1

    def __init__(
        self, one: openvino.CompiledModel, many: openvino.CompiledModel, precision: Precision, threads: int
    ) -> None:
        self._one, self._many = one.create_infer_request(), many.create_infer_request()
        self.precision = precision
        version = openvino.__version__.partition("-")[0]
        self.about = f"OpenVINO {version}, {precision}, {threads} thread{'s' * (threads > 1)}"

    def __call__(self, inputs: Arrays) -> dict[str, NDArray[np.float32]]:
        feed = {name: np.ascontiguousarray(inputs[name], dtype=np.float32) for name in INPUTS}
        request = self._one if len(feed[INPUTS[0]]) == 1 else self._many
        outputs = request.infer(feed)
        # The request owns its outputs and overwrites them at the next call.
        return {name: np.array(outputs[name], dtype=np.float32) for name in OUTPUTS}


def load(bundle: Bundle, threads: int = 1, precision: Precision | None = None) -> NamedRuntime:
    """The graph of ``bundle`` in bf16 where the processor has it and the golden output allows it, else in fp32.

    ``precision`` takes one of the two. fp16 is not offered: it made NaN of the golden window of the bundle that ships.
    """
    graph = read_graph(bundle)
    core = openvino.Core()
    able = "BF16" in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    precisions: list[Precision] = [precision] if precision else ["bf16", "fp32"] if able else ["fp32"]
    return first_that_agrees(
        "openvino", bundle, precisions, lambda each: _compiled(core, graph, str(bundle.folder / GRAPH), each, threads)
    )


def _compiled(core: openvino.Core, graph: bytes, where: str, precision: Precision, threads: int) -> OpenVinoRuntime:
    settings = {
        "INFERENCE_PRECISION_HINT": "bf16" if precision == "bf16" else "f32",
        "INFERENCE_NUM_THREADS": threads,
        "NUM_STREAMS": 1,
        "PERFORMANCE_HINT": "LATENCY",
        "ENABLE_CPU_PINNING": False,  # a pinned thread would share its core with whatever acquisition runs there
    }
    try:
        many = core.read_model(graph)
        given = [entry.get_any_name() for entry in many.inputs]
        made = [entry.get_any_name() for entry in many.outputs]
        check_names(where, given, made)
        one = many.clone()
        one.reshape({name: [1, *list(one.input(name).partial_shape)[1:]] for name in INPUTS})
        alone, any_number = (core.compile_model(model, "CPU", settings) for model in (one, many))
    except RuntimeError as error:
        raise ModelError(f"{where}: OpenVINO cannot load it ({one_line(error)})") from None
    return OpenVinoRuntime(alone, any_number, precision, threads)

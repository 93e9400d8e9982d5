"""ONNX Runtime on the processor: what a live session uses. Also opens a session of one of its plug-in providers."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from models.api import Arrays, ModelError
from models.bundle import GRAPH, INPUTS, OUTPUTS, Bundle
from models.runtimes import NamedRuntime, Precision, check_names, first_that_agrees, one_line, read_graph

QUANTISED = "graph-int8.onnx"
"""What a bundle calls its graph with the large products in 8 bits; `offline_training.precision` makes it."""


class OrtRuntime:
    """A session of ONNX Runtime; named arrays in, named arrays out."""

    passed_over: tuple[str, ...] = ()

    def __init__(
        self, session: onnxruntime.InferenceSession, where: str, precision: Precision = "fp32", together: int = 1
    ) -> None:
        self._session = session
        self.together = together
        self.precision = precision
        self.about = f"ONNX Runtime {onnxruntime.__version__}, {precision}, {where}"

    def __call__(self, inputs: Arrays) -> dict[str, NDArray[np.float32]]:
        feed = {name: np.ascontiguousarray(inputs[name], dtype=np.float32) for name in INPUTS}
        return dict(zip(OUTPUTS, self._session.run(list(OUTPUTS), feed), strict=True))


def load(bundle: Bundle, threads: int = 1, precision: Precision | None = None) -> NamedRuntime:
    """The graph of ``bundle`` in a session of its own: in int8 where the bundle has one and the golden output allows
    it on this processor, else in fp32. ``precision`` takes one of the two.

    One thread and no spinning: beside acquisition and a dashboard on two cores, more threads cost more than they give
    (p95 of seconds under contention were measured with two).
    """
    both: list[Precision] = ["int8", "fp32"] if QUANTISED in bundle.files else ["fp32"]
    where = f"{threads} thread{'s' * (threads > 1)}"

    def made(each: Precision) -> OrtRuntime:
        return OrtRuntime(_session(bundle, _options(threads), QUANTISED if each == "int8" else GRAPH), where, each)

    return first_that_agrees("ort", bundle, [precision] if precision else both, made)


def load_provider(
    bundle: Bundle, provider: str, library: str, settings: Mapping[str, str], together: int
) -> NamedRuntime:
    """The same on the first device of a plug-in ``provider``, whose shared ``library`` brings it.

    ``together`` is how many windows a call on it should compute.
    """
    try:
        # A library stays registered for the life of the process.
        if provider not in {device.ep_name for device in onnxruntime.get_ep_devices()}:
            onnxruntime.register_execution_provider_library(provider, library)
        devices = [device for device in onnxruntime.get_ep_devices() if device.ep_name == provider]
    except Exception as error:  # noqa: BLE001 - onnxruntime has no common base class of its errors
        raise ModelError(f"{provider}: cannot be loaded ({one_line(error)}); is the driver installed?") from None
    if not devices:
        raise ModelError(f"{provider}: finds no device that it can use")
    options = _options(1)
    options.add_provider_for_devices(devices[:1], dict(settings))
    return OrtRuntime(_session(bundle, options), f"{provider} on {devices[0].device.vendor}", together=together)


def _options(threads: int) -> onnxruntime.SessionOptions:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.log_severity_level = 4
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.inter_op.allow_spinning", "0")
    return options


def _session(bundle: Bundle, options: onnxruntime.SessionOptions, name: str = GRAPH) -> onnxruntime.InferenceSession:
    graph = read_graph(bundle, name)
    # A provider of a plug-in stands in the options; naming others would push it aside.
    named = {} if options.has_providers() else {"providers": ["CPUExecutionProvider"]}
    try:
        session = onnxruntime.InferenceSession(graph, options, **named)
    except Exception as error:  # noqa: BLE001 - onnxruntime has no common base class of its errors
        raise ModelError(f"{bundle.folder / name}: ONNX Runtime cannot load it ({one_line(error)})") from None
    given, made = session.get_inputs(), session.get_outputs()
    check_names(str(bundle.folder / name), [entry.name for entry in given], [entry.name for entry in made])
    return session

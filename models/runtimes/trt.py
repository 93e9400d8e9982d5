"""TensorRT on an NVIDIA GPU, from the graphs of a bundle. An engine is compiled once for each GPU and kept.

TensorRT 11 computes a graph in the graph's own types. So a bundle may bring its graph in bf16 and fp16 as well, and the
fastest one that agrees with the golden output is taken.
"""

from __future__ import annotations

import contextlib
import ctypes
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorrt
from cuda.bindings import runtime as cuda
from numpy.typing import NDArray

from models.api import Arrays, ModelError
from models.bundle import Bundle
from models.runtimes import NamedRuntime, Precision, first_that_agrees, read_graph
from models.runtimes.engines import (
    GRAPHS,
    MAX_BATCH,
    EngineError,
    Executor,
    Key,
    build_plan,
    cache_folder,
    candidates,
    input_shapes,
    keep_plan,
    output_shapes,
    read_plan,
)


class TrtRuntime:
    """An engine with its context and memory; named arrays in, named arrays out."""

    passed_over: tuple[str, ...] = ()
    together = MAX_BATCH

    def __init__(self, bundle: Bundle, plan: bytes, precision: Precision) -> None:
        self._logger = tensorrt.Logger(tensorrt.Logger.ERROR)
        self._runtime = tensorrt.Runtime(self._logger)
        self._engine = self._runtime.deserialize_cuda_engine(plan)
        if self._engine is None:
            raise EngineError(f"{bundle.folder}: TensorRT does not take the engine")
        # Kept beside the executor: TensorRT's objects must outlive what was made of them.
        self._context = self._engine.create_execution_context()
        if self._context is None:
            raise ModelError("runtime trt: the GPU has no memory left for the engine; close what else uses it")
        gpu = CudaGpu()
        self._execute = Executor(self._context, gpu, input_shapes(bundle.manifest), output_shapes(bundle.manifest))
        self.precision = precision
        self.about = f"TensorRT {tensorrt.__version__}, {precision}, {gpu.name}"

    def __call__(self, inputs: Arrays) -> dict[str, NDArray[np.float32]]:
        return self._execute(inputs)

    def close(self) -> None:
        """Gives the GPU's memory and the pinned memory of the host back. Without it they go with the runtime itself."""
        self._execute.close()


def load(bundle: Bundle, precision: Precision | None = None) -> NamedRuntime:
    """The fastest graph of ``bundle`` that agrees with its golden output, or the one of ``precision``."""
    name = gpu_name()
    precisions = [precision] if precision else candidates(bundle)
    return first_that_agrees("trt", bundle, precisions, lambda each: _load(bundle, each, name))


def _load(bundle: Bundle, precision: Precision, gpu: str) -> TrtRuntime:
    name = GRAPHS[precision]
    graph = read_graph(bundle, name)
    key = Key(graph=bundle.files[name][0], gpu=gpu, library=f"TensorRT {tensorrt.__version__}", precision=precision)
    folder = cache_folder()
    try:
        return TrtRuntime(bundle, read_plan(folder, key), precision)
    except EngineError:
        plan = build_plan(tensorrt, graph, input_shapes(bundle.manifest), bundle.folder / name)
    with contextlib.suppress(EngineError):  # then it is built again next time
        keep_plan(folder, key, plan)
    return TrtRuntime(bundle, plan, precision)


def gpu_name() -> str:
    """Of the first CUDA device, with its compute capability. Raises ModelError when there is none."""
    error, count = cuda.cudaGetDeviceCount()
    if error != cuda.cudaError_t.cudaSuccess or not count:
        raise ModelError(f"runtime trt: no NVIDIA GPU can be used ({error.name}); check the driver with nvidia-smi")
    properties = _checked(cuda.cudaGetDeviceProperties(0))
    return f"{properties.name.decode(errors='replace')} (SM{properties.major}{properties.minor})"


class CudaGpu:
    """The first CUDA device and a stream on it, with all that was reserved through it."""

    def __init__(self) -> None:
        self.name = gpu_name()
        self._stream = _checked(cuda.cudaStreamCreate())
        self.stream = int(self._stream)
        self._owned: list[tuple[Callable[..., Any], Any]] = [(cuda.cudaStreamDestroy, self._stream)]

    def pinned(self, count: int) -> NDArray[np.float32]:
        address = int(_checked(cuda.cudaHostAlloc(4 * count, cuda.cudaHostAllocDefault)))
        self._owned.append((cuda.cudaFreeHost, address))
        memory = np.ctypeslib.as_array(ctypes.cast(address, ctypes.POINTER(ctypes.c_float)), (count,))
        memory[:] = 0
        return memory

    def reserve(self, size: int) -> int:
        address = int(_checked(cuda.cudaMalloc(size)))
        self._owned.append((cuda.cudaFree, address))
        return address

    def close(self) -> None:
        """Frees it all, the newest first; what is under way is waited for."""
        owned, self._owned = self._owned, []
        if owned:
            cuda.cudaStreamSynchronize(self._stream)
        # Not checked: a device that failed frees what it can, and the rest must be tried all the same.
        for free, what in reversed(owned):
            free(what)

    def upload(self, address: int, host: NDArray[np.float32]) -> None:
        kind = cuda.cudaMemcpyKind.cudaMemcpyHostToDevice
        _checked(cuda.cudaMemcpyAsync(address, host.ctypes.data, host.nbytes, kind, self._stream))

    def download(self, host: NDArray[np.float32], address: int) -> None:
        kind = cuda.cudaMemcpyKind.cudaMemcpyDeviceToHost
        _checked(cuda.cudaMemcpyAsync(host.ctypes.data, address, host.nbytes, kind, self._stream))

    def captured(self, work: Callable[[], None]) -> Callable[[], None]:
        mode = cuda.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
        _checked(cuda.cudaStreamBeginCapture(self._stream, mode))
        try:
            work()
        finally:
            graph = _checked(cuda.cudaStreamEndCapture(self._stream))
        try:
            launchable = _checked(cuda.cudaGraphInstantiate(graph, 0))
        finally:
            cuda.cudaGraphDestroy(graph)
        self._owned.append((cuda.cudaGraphExecDestroy, launchable))

        def launch() -> None:
            _checked(cuda.cudaGraphLaunch(launchable, self._stream))

        return launch

    def wait(self) -> None:
        _checked(cuda.cudaStreamSynchronize(self._stream))


def _checked(answer: tuple[Any, ...]) -> Any:
    """What a call of CUDA gives, without its status. Raises ModelError."""
    status, *values = answer
    if status != cuda.cudaError_t.cudaSuccess:
        raise ModelError(f"runtime trt: the GPU refused ({status.name})")
    return values[0] if values else None

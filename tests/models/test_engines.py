"""What of TensorRT needs no GPU: which engine is whose, which file is refused, and how windows reach an engine."""

from __future__ import annotations

import ctypes
import dataclasses
import enum
import gc
import importlib
import os
import sys
import types
from pathlib import Path
from unittest import mock

import numpy as np
import pytest

from models.api import ModelError
from models.bundle import GRAPH
from models.runtimes.engines import (
    EngineError,
    Executor,
    Key,
    build_plan,
    candidates,
    input_shapes,
    keep_plan,
    output_shapes,
    read_plan,
)

KEY = Key(graph="ab" * 32, gpu="NVIDIA RTX 6000 (SM89)", library="TensorRT 11.4.0", precision="bf16")
PLAN = bytes(range(256)) * 20


def kept(tmp_path):
    keep_plan(tmp_path / "engines", KEY, PLAN)
    return tmp_path / "engines"


def refusal(folder, key=KEY) -> str:
    with pytest.raises(EngineError) as caught:
        read_plan(folder, key)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_an_engine_that_was_kept_is_found_again(tmp_path):
    assert read_plan(kept(tmp_path), KEY) == PLAN


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("graph", "cd" * 32),
        ("gpu", "NVIDIA H200 (SM90)"),
        ("library", "TensorRT 11.5.0"),
        ("precision", "fp16"),
        ("max_batch", 8),
    ],
)
def test_another_graph_gpu_version_precision_or_batch_is_another_engine(tmp_path, field, value):
    other = dataclasses.replace(KEY, **{field: value})
    assert other.file_name != KEY.file_name
    folder = kept(tmp_path)
    assert "no engine is kept yet" in refusal(folder, other)
    (folder / KEY.file_name).rename(folder / other.file_name)
    assert "is the engine of another graph, GPU or version" in refusal(folder, other)


@pytest.mark.parametrize("left", [0, 5, 16, 60, 200, -1, -len(PLAN)])
def test_an_engine_that_was_cut_short_is_refused(tmp_path, left):
    path = kept(tmp_path) / KEY.file_name
    path.write_bytes(path.read_bytes()[:left])
    assert "is no engine of insula" in (said := refusal(path.parent)) or "is cut short or damaged" in said


def test_an_engine_with_a_changed_byte_or_something_after_it_is_refused(tmp_path):
    path = kept(tmp_path) / KEY.file_name
    whole = path.read_bytes()
    for content in (whole + b"x", whole[:-1] + bytes([whole[-1] ^ 1])):
        path.write_bytes(content)
        assert "is cut short or damaged" in refusal(path.parent)


@pytest.mark.parametrize(
    "content",
    [
        b"ptrt" + bytes(1000),
        b"insula engine 1\n" + b"[" * 4000 + b"\n",
        b"insula engine 1\n{}\n",
        b'insula engine 1\n"key"\n',
        b"insula engine 1\n" + b" " * 10_000,
    ],
)
def test_a_file_that_is_something_else_is_refused(tmp_path, content):
    path = kept(tmp_path) / KEY.file_name
    path.write_bytes(content)
    assert "is no engine of insula" in refusal(path.parent)


def test_an_engine_beyond_every_size_is_refused_before_it_is_read(tmp_path):
    path = kept(tmp_path) / KEY.file_name
    os.truncate(path, 10_000_000_000)  # sparse: it takes no room
    assert "at most 2000000000 are read" in refusal(path.parent)


@pytest.mark.skipif(not hasattr(os, "getuid"), reason="rights of files are POSIX's")
def test_an_engine_that_somebody_else_could_have_written_is_refused(tmp_path):
    folder = kept(tmp_path)
    assert (folder / KEY.file_name).stat().st_mode & 0o777 == 0o600
    (folder / KEY.file_name).chmod(0o666)
    assert "is not this user's alone" in refusal(folder)
    (folder / KEY.file_name).chmod(0o600)
    folder.chmod(0o777)
    assert "is not this user's alone" in refusal(folder)


def test_where_nothing_can_be_kept_it_is_said(tmp_path):
    (tmp_path / "engines").write_bytes(b"a file")
    with pytest.raises(EngineError, match="the engine cannot be kept"):
        keep_plan(tmp_path / "engines", KEY, PLAN)


def test_the_fastest_precision_that_a_bundle_has_comes_first(bundle):
    assert candidates(bundle) == ["fp32"]
    files = {**bundle.files, "graph-bf16.onnx": ("0" * 64, 1), "graph-fp16.onnx": ("0" * 64, 1)}
    assert candidates(dataclasses.replace(bundle, files=files)) == ["fp16", "bf16", "fp32"]


class HostGpu:
    """A device whose memory is the host's and whose stream does everything at once; counts what it is asked."""

    stream = 7

    def __init__(self):
        self.memory, self.captures, self.launches = {}, 0, 0
        self.hosts, self.closed = 0, 0

    def pinned(self, count):
        self.hosts += 1
        return np.zeros(count, np.float32)

    def close(self):
        self.closed += 1
        self.memory.clear()

    def reserve(self, size):
        address = 1000 + len(self.memory)
        self.memory[address] = np.full(size // 4, np.nan, np.float32)
        return address

    def upload(self, address, host):
        self.memory[address][: host.size] = host.ravel()

    def download(self, host, address):
        host[...] = self.memory[address][: host.size].reshape(host.shape)

    def captured(self, work):
        self.captures += 1

        def launch():
            self.launches += 1
            work()

        return launch

    def wait(self):
        pass


class Sums:
    """An engine that takes ``x`` (n, 3) and gives its sums (n, 1), from and to the addresses it was told."""

    def __init__(self, gpu):
        self.gpu, self.addresses, self.shapes = gpu, {}, {}

    def set_input_shape(self, name, shape):
        self.shapes[name] = shape
        return shape[0] <= 4

    def set_tensor_address(self, name, address):
        self.addresses[name] = address
        return name in ("x", "sum")

    def execute_async_v3(self, stream):
        assert stream == self.gpu.stream
        batch = self.shapes["x"][0]
        x = self.gpu.memory[self.addresses["x"]][: 3 * batch].reshape(batch, 3)
        self.gpu.memory[self.addresses["sum"]][:batch] = x.sum(axis=1)
        return True


def summing(max_batch=4):
    gpu = HostGpu()
    return Executor(Sums(gpu), gpu, {"x": (3,)}, {"sum": (1,)}, max_batch), gpu


@pytest.mark.parametrize("batch", [1, 3, 4, 5, 11])
def test_windows_go_through_an_engine_and_come_back_in_their_order_however_many(batch):
    execute, _ = summing()
    x = np.random.default_rng(batch).standard_normal((batch, 3)).astype(np.float32)
    np.testing.assert_allclose(execute({"x": x})["sum"], x.sum(axis=1, keepdims=True), rtol=1e-6)


def test_what_was_given_is_not_overwritten_and_nothing_of_a_larger_batch_is_left_in_a_smaller_one():
    execute, _ = summing()
    first = execute({"x": np.ones((4, 3), np.float32)})["sum"]
    second = execute({"x": np.full((2, 3), 5, np.float32)})["sum"]
    assert first.ravel().tolist() == [3, 3, 3, 3]
    assert second.ravel().tolist() == [15, 15]


def test_each_size_of_batch_is_captured_once_and_launched_ever_after():
    execute, gpu = summing()
    for batch in (1, 2, 1, 1, 2, 6):
        execute({"x": np.ones((batch, 3), np.float32)})
    assert gpu.captures == 3  # 1, 2, and the 4 of 6 = 4 + 2
    assert gpu.launches == 7


def test_a_window_of_another_shape_and_a_batch_the_engine_does_not_take_are_refused():
    execute, _ = summing(max_batch=8)
    with pytest.raises(ModelError, match=r"x is of shape \(2, 4\), the engine takes \(3,\) a window"):
        execute({"x": np.ones((2, 4), np.float32)})
    with pytest.raises(ModelError, match="does not take 5 windows of x"):
        execute({"x": np.ones((5, 3), np.float32)})
    gpu = HostGpu()
    with pytest.raises(ModelError, match="has no tensor other"):
        Executor(Sums(gpu), gpu, {"x": (3,)}, {"other": (1,)})


def test_a_closed_engine_has_freed_its_memory_once_and_computes_no_more():
    execute, gpu = summing()
    given = execute({"x": np.ones((2, 3), np.float32)})["sum"]
    assert (gpu.hosts, len(gpu.memory), gpu.closed) == (2, 2, 0)
    execute.close()
    execute.close()
    assert (len(gpu.memory), gpu.closed) == (0, 1)
    assert given.ravel().tolist() == [3, 3]
    with pytest.raises(ModelError, match="the engine is closed"):
        execute({"x": np.ones((2, 3), np.float32)})


def test_an_engine_that_nobody_holds_any_more_frees_its_memory():
    execute, gpu = summing()
    execute({"x": np.ones((2, 3), np.float32)})
    del execute
    gc.collect()
    assert gpu.closed == 1


def test_an_engine_that_cannot_be_made_frees_what_it_had_reserved():
    class Full(HostGpu):
        def reserve(self, size):
            if self.memory:
                raise ModelError("runtime trt: the GPU refused (cudaErrorMemoryAllocation)")
            return super().reserve(size)

    gpu = Full()
    with pytest.raises(ModelError, match="cudaErrorMemoryAllocation"):
        Executor(Sums(gpu), gpu, {"x": (3,)}, {"sum": (1,)})
    assert (gpu.hosts, gpu.closed, gpu.memory) == (2, 1, {})


def cuda_of_a_test(held):
    """In the place of CUDA's bindings: hands out memory of the host and notes in ``held`` what is not freed yet."""
    status = enum.Enum("cudaError_t", {"cudaSuccess": 0, "cudaErrorInvalidValue": 1})
    right, wrong = status
    kept = []

    def given(kind, what):
        held[int(what)] = kind
        return right, what

    def buffer(kind, size):
        kept.append((ctypes.c_char * size)())
        return given(kind, ctypes.addressof(kept[-1]))

    def freeing(kind):
        return lambda what: (right if held.pop(int(what), None) == kind else wrong,)

    module = types.ModuleType("cuda.bindings.runtime")
    module.__dict__.update(
        cudaError_t=status,
        cudaHostAllocDefault=0,
        cudaStreamCaptureMode=types.SimpleNamespace(cudaStreamCaptureModeThreadLocal=1),
        cudaGetDeviceCount=lambda: (right, 1),
        cudaGetDeviceProperties=lambda _: (right, types.SimpleNamespace(name=b"A test", major=8, minor=9)),
        cudaStreamCreate=lambda: given("stream", 11),
        cudaStreamDestroy=freeing("stream"),
        cudaStreamSynchronize=lambda _: (right,),
        cudaStreamBeginCapture=lambda _, mode: (right,),
        cudaStreamEndCapture=lambda _: given("graph", 12),
        cudaGraphInstantiate=lambda graph, flags: given("launchable", 13),
        cudaGraphDestroy=freeing("graph"),
        cudaGraphExecDestroy=freeing("launchable"),
        cudaHostAlloc=lambda size, flags: buffer("pinned", size),
        cudaFreeHost=freeing("pinned"),
        cudaMalloc=lambda size: buffer("device", size),
        cudaFree=freeing("device"),
    )
    return module


def test_what_was_taken_from_cuda_is_all_given_back(monkeypatch):
    held = {}
    cuda = cuda_of_a_test(held)
    bindings = types.ModuleType("cuda.bindings")
    bindings.runtime = cuda
    for name, module in {
        "cuda": types.ModuleType("cuda"),
        "cuda.bindings": bindings,
        "cuda.bindings.runtime": cuda,
        "tensorrt": types.ModuleType("tensorrt"),
    }.items():
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.delitem(sys.modules, "models.runtimes.trt", raising=False)
    trt = importlib.import_module("models.runtimes.trt")
    monkeypatch.delitem(sys.modules, "models.runtimes.trt")
    gpu = trt.CudaGpu()
    assert gpu.name == "A test (SM89)"
    gpu.pinned(10)
    gpu.reserve(40)
    gpu.captured(lambda: None)
    assert sorted(held.values()) == ["device", "launchable", "pinned", "stream"]
    gpu.close()
    gpu.close()
    assert held == {}


def test_fp32_is_compiled_in_all_of_its_bits_and_an_engine_that_was_not_is_not_taken(tmp_path):
    api = mock.MagicMock()
    api.ILogger = type("ILogger", (), {"__init__": lambda self: None})
    api.NetworkDefinitionCreationFlag.STRONGLY_TYPED = 1
    builder = api.Builder.return_value
    builder.build_serialized_network.return_value = b"plan"
    assert build_plan(api, b"graph", {"x": (3,)}, tmp_path) == b"plan"
    config = builder.create_builder_config.return_value
    config.clear_flag.assert_called_once_with(api.BuilderFlag.TF32)
    config.set_flag.assert_not_called()
    assert dataclasses.replace(KEY, tf32=True).file_name != KEY.file_name


def test_the_shapes_of_an_engine_are_those_of_the_golden_window(bundle):
    from models.bundle import golden

    inputs, outputs = golden(bundle)
    assert {name: value.shape[1:] for name, value in inputs.items()} == input_shapes(bundle.manifest)
    assert {name: value.shape[1:] for name, value in outputs.items()} == output_shapes(bundle.manifest)


@pytest.fixture(scope="module")
def rtx():
    """The Python interface of TensorRT-RTX, on the libraries that its plug-in for ONNX Runtime brings."""
    pytest.importorskip("onnxruntime_ep_nv_tensorrt_rtx", exc_type=ImportError, reason="TensorRT-RTX is not installed")
    import ctypes

    import onnxruntime_ep_nv_tensorrt_rtx as provider

    folder = Path(provider.get_library_path()).parent
    for name in ("libtensorrt_rtx.so", "libtensorrt_onnxparser_rtx.so"):
        ctypes.CDLL(str(folder / name), mode=ctypes.RTLD_GLOBAL)
    return pytest.importorskip("tensorrt_rtx_bindings.tensorrt_rtx", exc_type=ImportError, reason="no bindings")


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_tensorrt_rtx_compiles_the_graph_for_a_gpu_that_is_not_here(rtx, bundle, precision):
    import safetensors.numpy

    from models.bundle import WEIGHTS
    from offline_training.precision import lower

    graph = bundle.read(GRAPH)
    if precision != "fp32":
        graph = lower(graph, precision, set(safetensors.numpy.load(bundle.read(WEIGHTS))))
    plan = build_plan(rtx, graph, input_shapes(bundle.manifest), bundle.folder, capability="SM89")
    assert len(plan) > 10_000


def test_a_graph_that_tensorrt_rtx_cannot_read_is_refused_with_its_reason(rtx, bundle):
    with pytest.raises(ModelError, match=r"TensorRT cannot read it \(.+\)"):
        build_plan(rtx, b"no graph", input_shapes(bundle.manifest), bundle.folder)

"""Engines of TensorRT: how one is built, kept, told from others and fed. Knows neither the library nor CUDA itself.

``api`` is the module ``tensorrt``, or the one of TensorRT-RTX, which has the same names and can build without a GPU. A
plan, the bytes of an engine, holds code for the GPU and is run as it is: only one that this user's own program wrote,
for this very graph, GPU and version, is taken from the cache.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
import sys
import weakref
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from models.api import Arrays, ModelError
from models.bundle import GRAPH, Bundle, Manifest
from models.runtimes import Precision

MAX_BATCH = 64
MAX_PLAN_BYTES = 2_000_000_000
MAX_HEADER_BYTES = 4096
WORKSPACE_BYTES = 1 << 30
_MAGIC = b"insula engine 1\n"
GRAPHS: Mapping[Precision, str] = {"fp16": "graph-fp16.onnx", "bf16": "graph-bf16.onnx", "fp32": GRAPH}
"""What a bundle calls its graph in each precision, fastest first; `offline_training.precision` makes two."""


class EngineError(ModelError):
    """A kept engine that cannot be used: what was found. It is built anew."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Key:
    """All that an engine depends on; an engine of another key is another engine."""

    graph: str
    """SHA-256."""
    gpu: str
    """Name and compute capability."""
    library: str
    """TensorRT's name and version."""
    precision: Precision
    max_batch: int = MAX_BATCH
    tf32: bool = False
    """Whether fp32 products were rounded to TF32, as engines were allowed to that are not taken any more."""

    @property
    def file_name(self) -> str:
        text = json.dumps(asdict(self), sort_keys=True)
        return f"{hashlib.sha256(text.encode()).hexdigest()[:32]}.engine"


def cache_folder() -> Path:
    """Where compiled engines are kept: in the user's own cache."""
    if sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA", Path.home() / "AppData" / "Local"))
    else:
        base = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"))
    return base / "insula" / "engines"


def read_plan(folder: Path, key: Key) -> bytes:
    """The plan kept for ``key``. Raises EngineError: none, cut short, damaged, of another key, not this user's."""
    path = folder / key.file_name
    try:
        with path.open("rb") as file:
            status = os.fstat(file.fileno())
            _check_own(path, status)
            _check_own(folder, folder.stat())
            if status.st_size > MAX_PLAN_BYTES + MAX_HEADER_BYTES:
                raise EngineError(f"{path}: has {status.st_size} bytes, at most {MAX_PLAN_BYTES} are read")
            head = file.read(len(_MAGIC) + MAX_HEADER_BYTES)
            header, end = _header(path, head)
            if header["key"] != asdict(key):
                raise EngineError(f"{path}: is the engine of another graph, GPU or version")
            file.seek(end)
            plan = file.read(MAX_PLAN_BYTES + 1)
    except FileNotFoundError:
        raise EngineError(f"{path}: no engine is kept yet") from None
    except OSError as error:
        raise EngineError(f"{path}: cannot be read ({error.strerror})") from None
    if len(plan) != header["bytes"] or hashlib.sha256(plan).hexdigest() != header["sha256"]:
        raise EngineError(f"{path}: is cut short or damaged")
    return plan


def _header(path: Path, head: bytes) -> tuple[dict[str, object], int]:
    """What a kept engine says of itself, and where its plan begins."""
    line, newline, _ = head.removeprefix(_MAGIC).partition(b"\n")
    try:
        found = json.loads(line) if head.startswith(_MAGIC) and newline else None
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict) or set(found) != {"key", "bytes", "sha256"}:
        raise EngineError(f"{path}: is no engine of insula")
    return found, len(_MAGIC) + len(line) + 1


def _check_own(path: Path, status: os.stat_result) -> None:
    """Refuses what somebody else wrote or could have written."""
    if hasattr(os, "getuid") and (status.st_uid != os.getuid() or status.st_mode & (stat.S_IWGRP | stat.S_IWOTH)):
        raise EngineError(f"{path}: is not this user's alone")


def keep_plan(folder: Path, key: Key, plan: bytes) -> None:
    """Writes a plan for `read_plan`, whole or not at all. Raises EngineError."""
    beside = folder / f".{key.file_name}.{os.getpid()}"
    header = json.dumps({"key": asdict(key), "bytes": len(plan), "sha256": hashlib.sha256(plan).hexdigest()})
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        try:
            beside.touch(mode=0o600)
            beside.write_bytes(_MAGIC + header.encode() + b"\n" + plan)
            beside.replace(folder / key.file_name)
        finally:
            beside.unlink(missing_ok=True)
    except OSError as error:
        raise EngineError(f"{folder}: the engine cannot be kept ({error.strerror})") from None


def candidates(bundle: Bundle) -> list[Precision]:
    """The precisions that a bundle has a graph for, fastest first."""
    return [precision for precision, name in GRAPHS.items() if name in bundle.files]


def input_shapes(manifest: Manifest) -> dict[str, tuple[int, ...]]:
    """Of one window, without the batch axis."""
    samples = round(manifest.window.seconds * manifest.window.rate)
    shapes: dict[str, tuple[int, ...]] = {spec.kind: (len(spec.channels), samples) for spec in manifest.window.inputs}
    wide = (manifest.embedding_dim,)
    return shapes | {"use": (len(manifest.kinds),), "rest_mean": wide, "rest_sd": wide}


def output_shapes(manifest: Manifest) -> dict[str, tuple[int, ...]]:
    """Of one window, without the batch axis."""
    return {"logit": (len(manifest.targets),), "embedding": (manifest.embedding_dim,)}


def build_plan(
    api: ModuleType, graph: bytes, shapes: Mapping[str, tuple[int, ...]], where: Path, capability: str | None = None
) -> bytes:
    """Compiles a graph for batches from 1 to `MAX_BATCH`, tuned for one window. Takes from seconds to minutes.

    The network is strongly typed: it is computed in the types of its graph, fp32 in all of its bits. With a
    ``capability``, such as "SM89", TensorRT-RTX compiles for GPUs of that kind, which need not be here. Raises
    ModelError.
    """
    complaints: list[str] = []
    base: Any = api.ILogger

    class Complaints(base):  # type: ignore[misc]
        """Collects what TensorRT would print."""

        def __init__(self) -> None:
            base.__init__(self)

        def log(self, severity: object, message: str) -> None:
            if severity in (api.ILogger.Severity.ERROR, api.ILogger.Severity.INTERNAL_ERROR):
                complaints.append(message)

    logger = Complaints()
    builder = api.Builder(logger)
    network = builder.create_network(1 << int(api.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = api.OnnxParser(network, logger)
    if not parser.parse(graph):
        complaints.extend(str(parser.get_error(index)) for index in range(parser.num_errors))
        raise ModelError(f"{where}: TensorRT cannot read it ({_first(complaints)})")
    config = builder.create_builder_config()
    # On by default: it keeps 11 of 24 bits, which is not the fp32 that the manifest's tolerance is for.
    config.clear_flag(api.BuilderFlag.TF32)
    config.set_memory_pool_limit(api.MemoryPoolType.WORKSPACE, WORKSPACE_BYTES)
    if capability is not None:
        config.num_compute_capabilities = 1
        config.set_compute_capability(getattr(api.ComputeCapability, capability), 0)
    profile = builder.create_optimization_profile()
    for name, shape in shapes.items():
        profile.set_shape(name, (1, *shape), (1, *shape), (MAX_BATCH, *shape))
    config.add_optimization_profile(profile)
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise ModelError(f"{where}: TensorRT cannot compile it ({_first(complaints)})")
    return bytes(memoryview(plan))


def _first(complaints: list[str]) -> str:
    return " ".join(complaints[0].split())[:200] if complaints else "it does not say why"


class Context(Protocol):
    """What is used of TensorRT's ``IExecutionContext``."""

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool: ...

    def set_tensor_address(self, name: str, address: int) -> bool: ...

    def execute_async_v3(self, stream: int) -> bool: ...


class Gpu(Protocol):
    """A device with one stream. Every call raises ModelError when the device refuses."""

    stream: int

    def pinned(self, count: int) -> NDArray[np.float32]:
        """Zeros on the host that the device reads and writes without a copy in between."""
        ...

    def reserve(self, size: int) -> int:
        """The address of so many bytes on the device."""
        ...

    def upload(self, address: int, host: NDArray[np.float32]) -> None: ...

    def download(self, host: NDArray[np.float32], address: int) -> None: ...

    def captured(self, work: Callable[[], None]) -> Callable[[], None]:
        """What ``work`` asks of the stream as one graph, to be launched again and again."""
        ...

    def wait(self) -> None:
        """Until the stream has done everything."""
        ...

    def close(self) -> None:
        """Frees everything it gave, on the host and the device. Called again it does nothing."""
        ...


class Executor:
    """Feeds an engine: windows into pinned memory, one CUDA graph for each size of batch, outputs out of it.

    The memory for `MAX_BATCH` windows is reserved once and never moves: the graphs hold its addresses. A size of batch
    is run once plainly, which lets the library allocate, and captured then. The device is its own: whatever it took is
    freed by `close`, when it cannot be made, and when nobody holds it any more.
    """

    def __init__(
        self,
        context: Context,
        gpu: Gpu,
        inputs: Mapping[str, tuple[int, ...]],
        outputs: Mapping[str, tuple[int, ...]],
        max_batch: int = MAX_BATCH,
    ) -> None:
        self._context, self._gpu, self._max_batch = context, gpu, max_batch
        self._inputs, self._outputs = dict(inputs), dict(outputs)
        self._hosts: dict[str, NDArray[np.float32]] = {}
        self._addresses: dict[str, int] = {}
        self._graphs: dict[int, Callable[[], None]] = {}
        self._freed = weakref.finalize(self, gpu.close)
        try:
            self._reserve()
        except BaseException:
            self.close()
            raise

    def _reserve(self) -> None:
        for name, shape in {**self._inputs, **self._outputs}.items():
            count = self._max_batch * int(np.prod(shape))
            self._hosts[name] = self._gpu.pinned(count)
            self._addresses[name] = self._gpu.reserve(count * np.dtype(np.float32).itemsize)
            if not self._context.set_tensor_address(name, self._addresses[name]):
                raise ModelError(f"TensorRT: the engine has no tensor {name}; clear the cache and build it anew")

    def close(self) -> None:
        """Frees the memory and the graphs; it cannot be called any more. What it gave stays: that was copied."""
        # The views first: what they show is gone afterwards.
        self._graphs.clear()
        self._hosts.clear()
        self._freed()

    def __call__(self, inputs: Arrays) -> dict[str, NDArray[np.float32]]:
        if not self._freed.alive:
            raise ModelError("TensorRT: the engine is closed; load the runtime again")
        parts = [
            self._run({name: inputs[name][rows] for name in self._inputs})
            for rows in slices(len(inputs[next(iter(self._inputs))]), self._max_batch)
        ]
        return {name: np.concatenate([part[name] for part in parts]) for name in self._outputs}

    def _run(self, inputs: Arrays) -> dict[str, NDArray[np.float32]]:
        batch = len(inputs[next(iter(self._inputs))])
        for name, shape in self._inputs.items():
            if inputs[name].shape != (batch, *shape):
                raise ModelError(
                    f"TensorRT: {name} is of shape {inputs[name].shape}, the engine takes {shape} a window"
                )
            np.copyto(self._view(name, batch, shape), inputs[name])
        if batch not in self._graphs:
            self._work(batch)
            self._gpu.wait()
            self._graphs[batch] = self._gpu.captured(lambda: self._work(batch))
        self._graphs[batch]()
        self._gpu.wait()
        return {name: self._view(name, batch, shape).copy() for name, shape in self._outputs.items()}

    def _work(self, batch: int) -> None:
        for name, shape in self._inputs.items():
            if not self._context.set_input_shape(name, (batch, *shape)):
                raise ModelError(f"TensorRT: the engine does not take {batch} windows of {name}")
            self._gpu.upload(self._addresses[name], self._view(name, batch, shape))
        if not self._context.execute_async_v3(self._gpu.stream):
            raise ModelError("TensorRT: the engine could not be started")
        for name, shape in self._outputs.items():
            self._gpu.download(self._view(name, batch, shape), self._addresses[name])

    def _view(self, name: str, batch: int, shape: tuple[int, ...]) -> NDArray[np.float32]:
        return self._hosts[name][: batch * int(np.prod(shape))].reshape(batch, *shape)


def slices(count: int, most: int) -> Iterator[slice]:
    """Cuts a batch into pieces of at most ``most`` windows.

    >>> list(slices(5, 2))
    [slice(0, 2, None), slice(2, 4, None), slice(4, 5, None)]
    """
    return (slice(first, min(first + most, count)) for first in range(0, count, most))

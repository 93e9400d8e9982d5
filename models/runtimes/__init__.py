"""Runtimes compute a bundle's network. ``models/runtimes/<name>.py`` with ``load(bundle)`` is the registration."""

from __future__ import annotations

import functools
import importlib
import importlib.util
import pkgutil
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Literal, Protocol, TypeVar

import numpy as np

from models.api import ModelError, Runtime
from models.bundle import GRAPH, INPUTS, OUTPUTS, Bundle, golden
from models.runtimes.external import why_refused

INSTALL = {
    "onnxruntime": 'pip install "onnxruntime>=1.20"',
    "torch": 'pip install "torch>=2.8,<2.14"',
    "safetensors": 'pip install "safetensors>=0.4"',
    "openvino": 'pip install "insula[openvino]"',
    "tensorrt": 'pip install "insula[tensorrt]"',
    "cuda": 'pip install "insula[tensorrt]"',
    "onnxruntime_ep_nv_tensorrt_rtx": 'pip install "insula[rtx]"',
}
AUTO = ("trt", "rtx", "ort")
"""What ``auto`` takes: the first that this machine can run."""
LOWER = 300.0
"""In bf16, fp16 or int8 a runtime may differ from the golden output by so many times the manifest's tolerance, which is
for fp32: 3 % of the largest value at the usual 1e-4. bf16 keeps 8 significant bits, fp16 11, fp32 24."""
LOWER_MOST = 0.05
"""Of the largest value, whatever the manifest says."""
Precision = Literal["fp32", "bf16", "fp16", "int8"]


class NamedRuntime(Runtime, Protocol):
    """A runtime that says what it is."""

    @property
    def about(self) -> str:
        """For the screen and the record: library, version, precision, device."""
        ...

    @property
    def precision(self) -> Precision:
        """Of the matrix products."""
        ...

    @property
    def together(self) -> int:
        """How many people's windows one call should compute: 1 on a processor, more on an accelerator."""
        ...


class ChoosingRuntime(NamedRuntime, Protocol):
    """One that is there in several precisions: `first_that_agrees`."""

    passed_over: tuple[str, ...]
    """A line for each precision that was tried before its own, and why it is not used."""


_T = TypeVar("_T")
_C = TypeVar("_C", bound=ChoosingRuntime)


def runtimes() -> list[str]:
    """The runtimes there are: every file of this folder that has ``load``."""
    names = []
    for module in pkgutil.iter_modules(__path__):
        spec = importlib.util.find_spec(f"{__name__}.{module.name}")
        if spec and spec.origin and "\ndef load(" in Path(spec.origin).read_text(encoding="utf-8"):
            names.append(module.name)
    return sorted(names)


def load_runtime(name: str, bundle: Bundle, told: Callable[[str], object] = str) -> NamedRuntime:
    """The network of ``bundle`` in the runtime ``name``, checked against the bundle's golden output.

    "auto" is the first of `AUTO` that this machine can run. ``told`` gets a line for each runtime, and each precision
    of the one that is taken, that was passed over, and why. A runtime keeps no state and is called from one thread at
    a time. Raises ModelError in words.
    """
    if name == "auto":
        return _first_that_runs(bundle, told)
    if name not in runtimes():
        raise ModelError(f"runtime {name!r:.60}: there is none of that name; known are auto, {', '.join(runtimes())}")
    try:
        module = importlib.import_module(f"{__name__}.{name}")
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package == "models":
            raise
        if not package:
            raise _unloadable(name, error) from error
        command = INSTALL.get(package, f"pip install {package}")
        raise ModelError(f"runtime {name}: the package {package} is not installed; run: {command}") from None
    except Exception as error:  # a library may raise anything while it is imported
        raise _unloadable(name, error) from error
    runtime = _in_words(name, lambda: _load(module, bundle))
    _agrees(name, bundle, runtime)
    for line in getattr(runtime, "passed_over", ()):
        told(line)
    return runtime


def _load(module: ModuleType, bundle: Bundle) -> NamedRuntime:
    runtime: NamedRuntime = module.load(bundle)
    return runtime


def _agrees(name: str, bundle: Bundle, runtime: NamedRuntime) -> None:
    """`check_golden`; a runtime that does not agree gives back what it holds, if it can, as the next one needs it."""
    try:
        check_golden(name, bundle, runtime)
    except ModelError:
        if close := getattr(runtime, "close", None):
            close()
        raise


def _unloadable(name: str, error: Exception) -> ModelError:
    return ModelError(f"runtime {name}: its package cannot be loaded ({one_line(error)}); install it again")


def _in_words(name: str, work: Callable[[], _T]) -> _T:
    """What ``work`` gives; whatever a library raises in it is a ModelError that names the runtime."""
    try:
        return work()
    except ModelError:
        raise
    except Exception as error:
        raise ModelError(f"runtime {name}: fails ({type(error).__name__}: {one_line(error)})") from error


def _first_that_runs(bundle: Bundle, told: Callable[[str], object]) -> NamedRuntime:
    *wanted, last = AUTO
    for name in wanted:
        try:
            return load_runtime(name, bundle, told)
        except ModelError as error:
            told(f"{error}; another runtime is taken")
    return load_runtime(last, bundle, told)


def first_that_agrees(
    name: str, bundle: Bundle, precisions: Sequence[Precision], load: Callable[[Precision], _C]
) -> _C:
    """The runtime in the first of ``precisions`` that gives the golden output, which says why others were passed over.

    Raises ModelError when none does. The last one is checked by whoever loads it, as every runtime is.
    """
    *lower, last = precisions
    reasons: list[str] = []
    for precision in lower:
        try:
            runtime = _in_words(name, functools.partial(load, precision))
            _agrees(name, bundle, runtime)
        except ModelError as error:
            reasons.append(f"{precision}: {error}")
        else:
            break
    else:
        try:
            runtime = _in_words(name, functools.partial(load, last))
        except ModelError as error:
            raise ModelError("; ".join([*reasons, f"{last}: {error}"]) if reasons else str(error)) from error
    runtime.passed_over = tuple(
        f"runtime {name} passes over {reason}; {runtime.precision} is taken" for reason in reasons
    )
    return runtime


def read_graph(bundle: Bundle, name: str = GRAPH) -> bytes:
    """A graph of the bundle, its hash checked, to be parsed; refused when `why_refused` says so."""
    graph = bundle.read(name)
    try:
        why = why_refused(graph)
    except ValueError as error:
        raise ModelError(f"{bundle.folder / name}: is no ONNX graph ({error}); export the bundle again") from None
    if why:
        raise ModelError(f"{bundle.folder / name}: {why}, which is refused; export the bundle again, as one file")
    return graph


def check_names(where: str, given: list[str], made: list[str]) -> None:
    """Raises ModelError when a graph does not take and give what a bundle's graph does."""
    if sorted(given) != sorted(INPUTS) or sorted(made) != sorted(OUTPUTS):
        raise ModelError(
            f"{where}: takes {', '.join(given):.100} and gives {', '.join(made):.100}, "
            f"expected {', '.join(INPUTS)} and {', '.join(OUTPUTS)}"
        )


def check_golden(name: str, bundle: Bundle, runtime: NamedRuntime) -> None:
    """Raises ModelError when a runtime does not give the bundle's golden output, within what its precision allows."""
    inputs, expected = golden(bundle)
    outputs = _in_words(name, lambda: runtime(inputs))
    allowed = bundle.manifest.tolerance
    if runtime.precision != "fp32":
        allowed = min(allowed * LOWER, LOWER_MOST)
    for key, wanted in expected.items():
        got = outputs.get(key)
        if got is None or got.shape != wanted.shape:
            shape = "nothing" if got is None else f"shape {got.shape}"
            raise ModelError(
                f"{bundle.folder}: runtime {name} gives {shape} for {key}, the golden one is {wanted.shape}"
            )
        error = relative_error(got, wanted)
        if not error <= allowed:
            raise ModelError(
                f"{bundle.folder}: runtime {name} ({runtime.precision}) differs from the golden {key} by {error:.1e} "
                f"of its largest value, {allowed:.1e} is allowed; it is not used in this runtime"
            )


def relative_error(got: np.ndarray, wanted: np.ndarray) -> float:
    """Largest difference over the largest absolute value wanted; NaN when anything is."""
    return float(np.max(np.abs(got.astype(np.float64) - wanted)) / max(float(np.max(np.abs(wanted))), 1e-9))


def one_line(error: BaseException) -> str:
    """What a library complains of, short, on one line."""
    return " ".join(str(error).split())[:200] or type(error).__name__

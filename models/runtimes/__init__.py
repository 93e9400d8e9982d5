"""Runtimes compute a bundle's network. ``models/runtimes/<name>.py`` with ``load(bundle)`` is the registration."""

from __future__ import annotations

import importlib
import importlib.util
import pkgutil
from pathlib import Path

import numpy as np

from models.api import ModelError, Runtime
from models.bundle import Bundle, golden

INSTALL = {
    "onnxruntime": 'pip install "onnxruntime>=1.20"',
    "torch": 'pip install "torch>=2.8,<2.14"',
    "safetensors": 'pip install "safetensors>=0.4"',
}


def runtimes() -> list[str]:
    """The runtimes there are: every file of this folder that has ``load``."""
    names = []
    for module in pkgutil.iter_modules(__path__):
        spec = importlib.util.find_spec(f"{__name__}.{module.name}")
        if spec and spec.origin and "\ndef load(" in Path(spec.origin).read_text(encoding="utf-8"):
            names.append(module.name)
    return sorted(names)


def load_runtime(name: str, bundle: Bundle) -> Runtime:
    """The network of ``bundle`` in the runtime ``name``, checked against the bundle's golden output.

    A runtime keeps no state and is called from one thread at a time. Raises ModelError in words.
    """
    if name not in runtimes():
        raise ModelError(f"runtime {name!r:.60}: there is none of that name; known are {', '.join(runtimes())}")
    try:
        module = importlib.import_module(f"{__name__}.{name}")
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package in ("", "models"):
            raise
        command = INSTALL.get(package, f"pip install {package}")
        raise ModelError(f"runtime {name}: the package {package} is not installed; run: {command}") from None
    runtime: Runtime = module.load(bundle)
    check_golden(name, bundle, runtime)
    return runtime


def check_golden(name: str, bundle: Bundle, runtime: Runtime) -> None:
    """Raises ModelError when a runtime does not give the bundle's golden output, within the manifest's tolerance."""
    inputs, expected = golden(bundle)
    outputs = runtime(inputs)
    for key, wanted in expected.items():
        got = outputs.get(key)
        if got is None or got.shape != wanted.shape:
            shape = "nothing" if got is None else f"shape {got.shape}"
            raise ModelError(
                f"{bundle.folder}: runtime {name} gives {shape} for {key}, the golden one is {wanted.shape}"
            )
        error = relative_error(got, wanted)
        if not error <= bundle.manifest.tolerance:
            raise ModelError(
                f"{bundle.folder}: runtime {name} differs from the golden {key} by {error:.1e} of its largest value, "
                f"{bundle.manifest.tolerance:.1e} is allowed; the model is not used, try another runtime"
            )


def relative_error(got: np.ndarray, wanted: np.ndarray) -> float:
    """Largest difference over the largest absolute value wanted; NaN when anything is."""
    return float(np.max(np.abs(got.astype(np.float64) - wanted)) / max(float(np.max(np.abs(wanted))), 1e-9))

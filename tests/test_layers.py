"""The law of imports: who may know whom, and which file wraps which library."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("devices", "models", "realtime", "gui", "offline_training")
MAY_IMPORT = {
    "devices": {"devices"},
    "models": {"models"},
    "realtime": {"realtime", "devices", "models"},
    "gui": {"gui", "realtime", "devices.api", "models.api"},
    "offline_training": {"offline_training", "realtime", "models", "devices"},
}
WRAPPED = {  # library: the files (or folders) that may import it
    "torch": (
        *("models/encoders/", "models/descriptors.py", "models/fusion.py", "models/masking.py"),
        *("models/runtimes/pytorch.py", "offline_training/"),
    ),
    "PySide6": ("gui/",),
    "pyqtgraph": ("gui/",),
    "bleak": ("devices/polar.py",),
    "brainflow": ("devices/brainflow.py",),
    "pylsl": ("devices/lsl.py", "realtime/outlet.py"),
    "onnxruntime": ("models/runtimes/ort.py", "offline_training/precision.py"),
    "onnxruntime_ep_nv_tensorrt_rtx": ("models/runtimes/rtx.py",),
    "openvino": ("models/runtimes/openvino.py",),
    "tensorrt": ("models/runtimes/trt.py",),
    "cuda": ("models/runtimes/trt.py",),
    "sklearn": ("offline_training/",),
    "mne": ("offline_training/",),
    "wfdb": ("offline_training/datasets/",),
    "accelerate": ("offline_training/pretrain.py",),
    "matplotlib": ("offline_training/",),
    "threading": (
        "devices/",
        "realtime/session.py",
        "realtime/handover.py",
        "realtime/together.py",
        "realtime/remote.py",
        "insula.py",
    ),
}
OFFLINE_MAY_USE = {"api", "ring", "intake", "filters", "resample", "sources", "windows", "quality", "record"}


def imports(path: Path) -> set[str]:
    """Every module that the file imports, wherever the statement stands."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def allowed(module: str, rules: set[str]) -> bool:
    return any(module == rule or module.startswith(rule + ".") for rule in rules)


FILES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))


def test_there_are_files_to_look_at():
    assert {path.relative_to(ROOT).parts[0] for path in FILES} == set(PACKAGES)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_a_file_imports_only_what_its_folder_may(path):
    name = path.relative_to(ROOT).as_posix()
    package = name.split("/")[0]
    for module in imports(path):
        top = module.split(".")[0]
        if top in PACKAGES or top == "insula":
            assert allowed(module, MAY_IMPORT[package]), f"{name} may not import {module}"
        if package == "offline_training" and module.startswith("realtime."):
            assert module.split(".")[1] in OFFLINE_MAY_USE, f"{name} may use only the pure files of realtime"
        if top in WRAPPED:
            assert name.startswith(WRAPPED[top]), f"{name} may not import {top}: only {', '.join(WRAPPED[top])}"


def test_no_test_folder_shadows_a_package():
    assert not list((ROOT / "tests").rglob("__init__.py"))


def test_no_module_is_named_like_one_of_the_standard_library():
    import sys

    for path in FILES:
        assert path.stem == "__init__" or path.stem not in sys.stdlib_module_names, path

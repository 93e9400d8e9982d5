"""What tests of more than one device need."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

BENCHMARK = Path(__file__).resolve().parents[1] / "benchmarks" / "clock.py"


@pytest.fixture(scope="session")
def in_virtual_time() -> ModuleType:
    """The clock benchmark as a module: its straps and hosts serve the tests, too."""
    spec = importlib.util.spec_from_file_location("insula_clock_benchmark", BENCHMARK)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module

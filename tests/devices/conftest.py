"""What tests of more than one device need."""

from __future__ import annotations

import importlib.util
import itertools
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from numpy.typing import NDArray

BENCHMARK = Path(__file__).resolve().parents[1] / "benchmarks" / "clock.py"
READ_XDF = Path(__file__).resolve().parents[1] / "peers" / "read_xdf.cpp"


@pytest.fixture(scope="session")
def in_virtual_time() -> ModuleType:
    """The clock benchmark as a module: its straps and hosts serve the tests, too."""
    spec = importlib.util.spec_from_file_location("insula_clock_benchmark", BENCHMARK)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def libxdf(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Path], dict[str, tuple[NDArray[np.float64], int]]]:
    """Reads a file with libxdf: of each stream with samples, by name, stamps and the first value (n, 2), and how many
    channels it has. The program that does so is made here."""
    compiler = shutil.which("g++") or shutil.which("c++")
    if compiler is None:
        pytest.skip("no C++ compiler: libxdf is not tried")
    if not any((Path(folder) / "xdf.h").is_file() for folder in ("/usr/include", "/usr/local/include")):
        pytest.skip("no libxdf (Debian: libxdf-dev)")
    program = tmp_path_factory.mktemp("libxdf") / "read_xdf"
    made = subprocess.run(
        [compiler, "-O1", str(READ_XDF), "-o", str(program), "-lxdf"], capture_output=True, text=True, check=False
    )
    assert made.returncode == 0, made.stderr

    def read(path: Path) -> dict[str, tuple[NDArray[np.float64], int]]:
        done = subprocess.run([str(program), str(path)], capture_output=True, text=True, check=False, timeout=120)
        assert done.returncode == 0, f"libxdf ended with {done.returncode} {done.stderr}"
        lines = itertools.dropwhile(lambda line: not line.startswith("stream "), done.stdout.splitlines())  # it talks
        found = {}
        for line in lines:
            word, count, width, name = line.split(" ", 3)
            assert word == "stream"
            rows = [next(lines).split() for _ in range(int(count))]
            found[name] = np.array(rows, dtype=np.float64).reshape(-1, 2), int(width)
        return found

    return read

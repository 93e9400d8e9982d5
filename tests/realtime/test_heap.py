"""Memory of a process that runs for hours."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

PROGRAM = """
import ctypes, sys, threading
import insula

if {frugal}:
    insula.main(["models"])  # any command
held = []
waiting = threading.Barrier(9)

def work():
    waiting.wait()
    held.append([bytearray(2000) for _ in range(5000)])
    waiting.wait()

threads = [threading.Thread(target=work) for _ in range(8)]
for thread in threads:
    thread.start()
waiting.wait()
waiting.wait()
library = ctypes.CDLL(None)
sys.stdout.flush()
library.malloc_info(0, ctypes.c_void_p.in_dll(library, "stdout"))
library.fflush(None)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only GNU's C library gives each thread a heap")
def test_the_threads_of_a_command_share_one_heap():
    def heaps(frugal):
        run = subprocess.run(
            [sys.executable, "-c", PROGRAM.format(frugal=frugal)], capture_output=True, text=True, timeout=120
        )
        assert run.returncode == 0, run.stderr
        return run.stdout.count("<heap nr=")

    assert heaps(False) > 1
    assert heaps(True) == 1

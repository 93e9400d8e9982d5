"""A Cyton behind a pseudo-terminal: what BrainFlow's own driver sees of the real one at its serial port."""

from __future__ import annotations

import os
import select
import threading
import time
import tty
from pathlib import Path

import numpy as np


class Cyton:
    """Answers commands and streams 250 Hz packets whose first channel counts; ``link`` is the port's name.

    ``skip`` are packets that are never sent. `unplug` closes the port in the middle of a packet, `plug` opens it again.
    """

    def __init__(self, link: Path, skip: frozenset[int] = frozenset()) -> None:
        self.link = link
        self.skip = skip
        self.sent = 0
        self._next = 0
        self._streaming = False
        self._stop = threading.Event()
        self.plug()

    def plug(self) -> None:
        self._master, slave = os.openpty()
        tty.setraw(slave)
        self.link.unlink(missing_ok=True)
        self.link.symlink_to(os.ttyname(slave))
        self._slave = slave
        self._streaming = False
        self._stop.clear()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def unplug(self) -> None:
        self._stop.set()
        self._thread.join()
        if self._streaming:
            os.write(self._master, self._packet()[:17])
        os.close(self._slave)
        os.close(self._master)
        self.link.unlink(missing_ok=True)

    def _packet(self) -> bytes:
        count = self._next
        values = np.array([count, *range(7)], ">i4").view("u1").reshape(8, 4)[:, 1:].tobytes()
        return bytes([0xA0, count % 256]) + values + bytes(6) + b"\xc0"

    def _run(self) -> None:
        began = 0.0
        while not self._stop.is_set():
            readable, _, _ = select.select([self._master], [], [], 0.004)
            for command in os.read(self._master, 100) if readable else b"":
                if command in b"vdV":
                    os.write(self._master, b"OpenBCI V3 8-16 channel$$$" if command in b"v" else b"v3.1.2$$$")
                if command in b"b":
                    self._streaming, began = True, time.monotonic() - self._next / 250
                if command in b"s":
                    self._streaming = False
            while self._streaming and self._next < (time.monotonic() - began) * 250 and not self._stop.is_set():
                if self._next not in self.skip:
                    os.write(self._master, self._packet())
                    self.sent += 1
                self._next += 1

"""The dashboard process: ``python -m gui.app --attach ADDRESS`` shows a running session.

It reads what the engine says and sends commands; the engine neither needs it nor waits for it.
"""

from __future__ import annotations

import argparse
import importlib.util
import math
import os
import signal
import subprocess
import sys
import time
import traceback
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from realtime.api import Command, Ended, Estimated, Health, Hello, Update
from realtime.remote import Client, RemoteError

if TYPE_CHECKING:
    from PySide6.QtWidgets import QApplication

    from gui.board import Board

POLL_MS = 33
"""Between two looks at what has come: 30 pictures a second."""
SETTLE = 1.0
"""Seconds of a session in real time after its first estimate, before its picture is taken."""
QUIET = 0.5
"""Seconds without a message after which nothing more is expected."""
PATIENCE = 60.0
"""Seconds in which a session must say something before its picture is taken."""
INSTALL = "apt-get install libegl1 libgl1 libxkbcommon0 libdbus-1-3 libfontconfig1"
INSTALL_SCREEN = (
    "libxcb-cursor0 libxcb-icccm4 libxcb-image0 libxcb-keysyms1 libxcb-render-util0 libxcb-shape0 libxcb-xkb1 "
    "libxkbcommon-x11-0"
)


class NoScreenError(Exception):
    """Qt cannot draw here; says in one line what to install."""


def require_qt() -> None:
    """Raise NoScreenError when Qt cannot be loaded or cannot open a screen.

    Qt ends the whole process when its platform plugin does not start, so that is tried in a process of its own.
    """
    for package in ("PySide6", "pyqtgraph"):
        if importlib.util.find_spec(package) is None:
            raise NoScreenError(
                f"insula dashboard: the package {package} is missing; pip install PySide6-Essentials pyqtgraph"
            )
    probe = "from PySide6.QtWidgets import QApplication; QApplication([])"
    try:
        done = subprocess.run(
            [sys.executable, "-c", probe], capture_output=True, text=True, errors="replace", timeout=60, check=False
        )
    except subprocess.TimeoutExpired:
        raise NoScreenError("insula dashboard: Qt did not start within 60 s; is the display reachable?") from None
    if done.returncode == 0:
        return
    lines = [line.strip() for line in done.stderr.splitlines() if line.strip()]
    if any(line.startswith("ImportError") for line in lines):
        raise NoScreenError(f"insula dashboard: Qt cannot be loaded ({lines[-1]}); on Debian: {INSTALL}")
    what = next((line for line in lines if "could not" in line.lower()), lines[-1] if lines else "no reason given")
    raise NoScreenError(
        f"insula dashboard: Qt cannot open a screen ({what}); without a display use --snapshot, with one on Debian: "
        f"{INSTALL} {INSTALL_SCREEN}"
    )


class Link:
    """Board and engine: passes everything that has come to the board, and says when the engine is gone."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.hello = False
        self.modelled = True
        self.estimated = False
        self.ended = False
        self.speed = 1.0
        self.board: Board | None = None

    def send(self, command: Command) -> None:
        """Send a command; an engine that is gone is said on the screen, not raised in the middle of a click."""
        if self.ended:
            return
        try:
            self.client.send(command)
        except RemoteError as error:
            self.take(Ended(str(error)))

    def turn(self) -> int:
        """Take in and draw everything that has come: how many messages."""
        if self.ended or self.board is None:
            return 0
        try:
            arrived = self.client.poll()
        except RemoteError as error:
            arrived = [Ended(str(error))]
        for update in arrived:
            self.take(update)
        if arrived:
            self.board.refresh()
        return len(arrived)

    def take(self, update: Update) -> None:
        match update:
            case Hello(model=model):
                self.hello, self.modelled = True, model is not None
            case Estimated():
                self.estimated = True
            case Health(speed=speed):
                self.speed = speed
                self.estimated |= not self.modelled  # there will never be more to see
            case Ended():
                self.ended = True
        if self.board is not None:
            self.board.apply(update)
            if self.ended:
                self.board.refresh()


def parse_size(text: str) -> tuple[int, int]:
    width, _, height = text.lower().partition("x")
    try:
        found = int(width), int(height)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text}: give width and height like 1400x900") from None
    if not all(200 <= pixels <= 10_000 for pixels in found):
        raise argparse.ArgumentTypeError(f"{text}: between 200 and 10000 pixels each way")
    return found


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(prog="python -m gui.app", description=__doc__)
    made.add_argument("--attach", required=True, metavar="ADDRESS", help="the session, as its engine printed it")
    made.add_argument("--snapshot", type=Path, metavar="OUT.png", help="save one picture without a screen, and end")
    made.add_argument(
        "--size", type=parse_size, metavar="WxH", help="of the window, in pixels; as last time, or 1400x900"
    )
    made.add_argument("--light", action="store_true", help="dark text on a light ground")
    return made


def main(argv: list[str] | None = None) -> int:
    """Run the dashboard. Exit status 0; 2 when no session answers, 3 when Qt cannot draw here."""
    chosen = parser().parse_args(argv)
    if chosen.snapshot:
        os.environ["QT_QPA_PLATFORM"] = "offscreen"
    try:
        require_qt()
        from gui import look, remember
        from gui.board import Board
    except (NoScreenError, ImportError) as error:
        print(
            error if isinstance(error, NoScreenError) else f"insula dashboard: {error}; on Debian: {INSTALL}",
            file=sys.stderr,
        )
        return 3
    from PySide6.QtWidgets import QApplication

    existing = QApplication.instance()
    app = existing if isinstance(existing, QApplication) else QApplication(["insula"])
    app.setApplicationName("insula")
    app.setStyle("Fusion")  # the same controls on every system
    look.use(look.LIGHT if chosen.light else look.DARK)
    app.setPalette(look.palette())
    try:
        client = Client.attach(chosen.attach)
    except RemoteError as error:
        print(error, file=sys.stderr)
        return 2
    if not chosen.snapshot:  # a picture is the same whoever takes it
        remember.use(remember.of_this_user())
    link = Link(client)
    link.board = Board(link.send)
    if chosen.size:
        link.board.resize(*chosen.size)
    try:
        return snapshot(app, link, chosen.snapshot) if chosen.snapshot else show(app, link)
    finally:
        client.close()


def show(app: QApplication, link: Link) -> int:
    """Keep the window open and up to date until it is closed."""
    from PySide6.QtCore import QTimer

    def stop_on(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        # PySide would print the error and go on, thirty times a second. The engine does not need this process.
        traceback.print_exception(kind, error, trace)
        app.exit(1)

    assert link.board is not None
    before = sys.excepthook, signal.getsignal(signal.SIGINT)
    sys.excepthook = stop_on
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl+C ends the dashboard at once, and only it
    timer = QTimer()
    timer.setInterval(POLL_MS)
    timer.timeout.connect(link.turn)
    timer.start()
    link.board.show()
    try:
        return app.exec()
    finally:
        sys.excepthook = before[0]
        signal.signal(signal.SIGINT, before[1])


def snapshot(app: QApplication, link: Link, path: Path) -> int:
    """Take in a session until it is over, or has given an estimate and has caught up; save the window as PNG."""
    assert link.board is not None
    link.board.show()
    heard = time.monotonic()
    estimated = math.inf
    while not link.ended:
        now = time.monotonic()
        if link.turn():
            heard = now
        app.processEvents()
        if link.estimated:
            estimated = min(estimated, now)
        silent = now - heard
        if link.estimated and (silent > QUIET or (math.isfinite(link.speed) and now - estimated > SETTLE)):
            break
        if silent > PATIENCE:
            print(f"insula dashboard: the session said nothing for {PATIENCE:.0f} s", file=sys.stderr)
            break
        time.sleep(0.01)
    if not link.hello:
        print("insula dashboard: the session said nothing that could be drawn", file=sys.stderr)
        return 2
    app.processEvents()  # panels that have just appeared get their sizes before they draw
    link.board.redraw()
    app.processEvents()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        written = link.board.grab().save(str(path), "PNG")
    except OSError:
        written = False
    if not written:
        print(f"{path}: the picture could not be written; is the folder there and open to you?", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""The dashboard as its own process, attached to a real server."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest
from PySide6.QtGui import QImage
from PySide6.QtWidgets import QApplication

from gui import app
from realtime.api import Ended, Health, Pause
from realtime.remote import Client, Server

ROOT = Path(__file__).resolve().parents[2]


def dashboard(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    import os

    return subprocess.run(
        [sys.executable, "-m", "gui.app", *arguments],
        cwd=ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def colours(path: Path) -> int:
    image = QImage(str(path))
    return len({image.pixel(x, y) for x in range(0, image.width(), 4) for y in range(0, image.height(), 4)})


def test_a_finished_session_becomes_a_picture(tmp_path, make_script):
    target = tmp_path / "pictures" / "board.png"
    with Server() as server:
        for update in [*make_script(seconds=40).updates(), Ended()]:
            server.publish(update)
        done = dashboard("--attach", server.address, "--snapshot", str(target), "--size", "1300x850")
    assert done.returncode == 0, done.stderr
    image = QImage(str(target))
    assert (image.width(), image.height()) == (1300, 850)
    assert colours(target) > 100
    assert "Traceback" not in done.stderr


def test_a_running_session_becomes_a_picture_while_it_goes_on(tmp_path, make_script):
    """The picture waits for the first estimate, not for the end."""
    target = tmp_path / "board.png"
    script = make_script(seconds=12, replay=False)
    over = threading.Event()
    with Server() as server:
        for update in script.updates():
            server.publish(update)

        def go_on() -> None:
            second = 12
            while not over.wait(0.05):
                server.publish(script.traces("cap", second))
                server.publish(script.health(second))
                second += 1

        engine = threading.Thread(target=go_on)
        engine.start()
        try:
            done = dashboard("--attach", server.address, "--snapshot", str(target))
        finally:
            over.set()
            engine.join()
    assert done.returncode == 0, done.stderr
    assert colours(target) > 100


def test_a_picture_of_a_session_that_only_records_waits_for_no_estimate(tmp_path, make_script):
    script, target = make_script(replay=False), tmp_path / "a.png"
    over = threading.Event()
    with Server() as server:
        server.publish(replace(script.hello(), model=None, used=()))

        def go_on() -> None:
            second = 0
            while not over.wait(0.05):
                server.publish(script.traces("cap", second))
                server.publish(script.health(second))
                second += 1

        engine = threading.Thread(target=go_on)
        engine.start()
        try:
            done = dashboard("--attach", server.address, "--snapshot", str(target))
        finally:
            over.set()
            engine.join()
    assert done.returncode == 0, done.stderr
    assert colours(target) > 50


def test_an_address_where_nobody_answers_is_one_clear_line(tmp_path):
    done = dashboard("--attach", str(tmp_path / "nobody"), "--snapshot", str(tmp_path / "a.png"))
    assert done.returncode == 2
    assert "no session answers there" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "a.png").exists()


def test_a_picture_that_cannot_be_written_is_one_clear_line(tmp_path, make_script):
    (tmp_path / "file").write_text("in the way")
    with Server() as server:
        for update in [*make_script(seconds=12).updates(), Ended()]:
            server.publish(update)
        done = dashboard("--attach", server.address, "--snapshot", str(tmp_path / "file" / "a.png"))
    assert done.returncode == 2
    assert "could not be written" in done.stderr
    assert "Traceback" not in done.stderr


def test_without_a_display_it_says_what_to_install_and_ends_with_3(tmp_path):
    """Qt aborts the process when its platform plugin does not start; the dashboard must not."""
    done = dashboard("--attach", str(tmp_path), QT_QPA_PLATFORM="xcb", DISPLAY=":987", WAYLAND_DISPLAY="")
    assert done.returncode == 3
    assert "apt-get install libegl1 libgl1 libxkbcommon0 libdbus-1-3 libfontconfig1" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_a_missing_qt_library_is_one_line_and_3(tmp_path):
    """A PySide6 whose import fails as it does where libEGL is missing."""
    package = tmp_path / "PySide6"
    package.mkdir()
    missing = "libEGL.so.1: cannot open shared object file: No such file or directory"
    (package / "__init__.py").write_text(f"raise ImportError({missing!r})\n")
    done = dashboard("--attach", str(tmp_path), "--snapshot", "a.png", PYTHONPATH=str(tmp_path))
    assert done.returncode == 3
    assert "libEGL.so.1" in done.stderr
    assert "apt-get install libegl1" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


@pytest.mark.parametrize("wrong", ["big", "1400", "1400x", "0x900", "1400x99999"])
def test_a_size_that_is_none_is_refused(wrong, capsys):
    with pytest.raises(SystemExit) as ended:
        app.main(["--attach", "x", "--size", wrong])
    assert ended.value.code == 2
    assert "--size" in capsys.readouterr().err


def test_the_link_brings_updates_to_the_board_and_commands_to_the_engine(bench, make_script, qtbot):
    with Server() as server:
        link = app.Link(Client.attach(server.address))
        link.board = bench.board
        for update in make_script().updates():
            server.publish(update)

        def last_word_arrived() -> bool:
            link.turn()
            health = bench.board.health
            return isinstance(health, Health) and health.now == 5030.0

        qtbot.waitUntil(last_word_arrived)
        qtbot.waitUntil(lambda: "0.75" in bench.texts())
        link.send(Pause())
        got = []
        qtbot.waitUntil(lambda: bool(got.extend(server.commands()) or got))
        assert got == [Pause()]
    qtbot.waitUntil(lambda: (link.turn(), link.ended)[1])
    qtbot.waitUntil(lambda: "The engine is gone" in bench.texts())
    link.send(Pause())  # a click after that is harmless
    link.client.close()


def test_a_command_to_an_engine_that_has_gone_is_said_on_the_screen(bench, make_script, qtbot):
    with Server() as server:
        link = app.Link(Client.attach(server.address))
        link.board = bench.board
        bench.play(make_script())
        server.publish(make_script().hello())
        qtbot.waitUntil(lambda: link.turn() > 0)

    def refused() -> bool:
        link.send(Pause())
        return link.ended

    qtbot.waitUntil(refused)
    qtbot.waitUntil(lambda: "The engine is gone" in bench.texts())
    link.client.close()


def test_the_window_runs_until_it_is_closed_and_stops_the_replay(make_script, qtbot, monkeypatch):
    """`main` with its window and timer in this process; the window is closed from outside."""
    from PySide6.QtCore import QTimer

    from gui.board import Board

    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    closed, heights = [], []

    def close_when_drawn() -> None:
        for window in QApplication.topLevelWidgets():
            if isinstance(window, Board) and window.isVisible() and window.health is not None:
                closed.append(window.title.text())
                heights.append(window.height())
                window.resize(790, 690)
                window.close()
                return
        if time.monotonic() < limit:
            QTimer.singleShot(20, close_when_drawn)
        else:
            QApplication.exit(7)

    with Server() as server:
        for update in make_script().updates():
            server.publish(update)
        for expected in (900, 690):  # the second window is as high as the first one was made
            limit = time.monotonic() + 60
            QTimer.singleShot(20, close_when_drawn)
            assert app.main(["--attach", server.address]) == 0
            assert closed.pop() == "replay of sub-05.xdf"
            assert heights.pop() == expected
        commands = []
        qtbot.waitUntil(lambda: bool(commands.extend(server.commands()) or commands))
    assert {type(command).__name__ for command in commands} == {"Stop"}

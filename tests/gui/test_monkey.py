"""Somebody who presses everything: no click, key, wheel, size or turn of the session makes the window fail.

As long as you wish: ``python -m pytest tests/gui/test_monkey.py`` with INSULA_MONKEY set to a number of actions.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from itertools import pairwise

import pytest
from PySide6.QtCore import QPoint, QPointF, QSettings, Qt
from PySide6.QtGui import QWheelEvent
from PySide6.QtTest import QTest
from PySide6.QtWidgets import QApplication, QComboBox, QMessageBox, QWidget

from gui import remember
from gui.board import Board
from realtime.api import Cleared, Ended, Marked, Shown, Update

ACTIONS = int(os.environ.get("INSULA_MONKEY", "200"))
NAMES = ("F", "S", "C", "A", "P", "B", "Plus", "Minus", "Space", "Left", "Right", "Up", "Down", "PageUp", "PageDown")
KEYS = [getattr(Qt.Key, f"Key_{name}") for name in (*NAMES, "Home", "End", "Tab", "Backtab", "Return", "Backspace")]
NONE, ALT, SHIFT, CTRL = (getattr(Qt.KeyboardModifier, f"{name}Modifier") for name in ("No", "Alt", "Shift", "Control"))


class Monkey:
    def __init__(self, board: Board, script, seed: int) -> None:
        self.board, self.script = board, script
        self.random = random.Random(seed)
        self.second = 0

    def act(self) -> None:
        does: Callable[[], None] = self.random.choices(
            (self.key, self.click, self.choose, self.wheel, self.resize, self.hear), (35, 30, 5, 10, 4, 16)
        )[0]
        does()
        for box in self.board.findChildren(QMessageBox):
            box.reject()

    def widget(self) -> QWidget:
        widgets = [w for w in self.board.findChildren(QWidget) if w.isVisible() and w.isEnabled() and w.width() > 2]
        return self.random.choice([w for w in widgets if w.height() > 2])

    def key(self) -> None:
        keys = self.random.choice((NONE, NONE, NONE, ALT, SHIFT, CTRL))
        QTest.keyClick(QApplication.focusWidget() or self.board, self.random.choice(KEYS), keys)

    def click(self) -> None:
        widget = self.widget()
        if not isinstance(widget, QComboBox):  # its list would wait for a choice
            at = QPoint(self.random.randrange(widget.width()), self.random.randrange(widget.height()))
            QTest.mouseClick(widget, Qt.MouseButton.LeftButton, pos=at)

    def choose(self) -> None:
        box = self.random.choice([box for box in self.board.findChildren(QComboBox) if box.isVisible()])
        if box.count():
            box.setCurrentIndex(self.random.randrange(box.count()))
            box.activated.emit(box.currentIndex())

    def wheel(self) -> None:
        view = self.board.panels["traces"].area.viewport()
        at = QPointF(self.random.randrange(view.width()), self.random.randrange(view.height()))
        turned = QPoint(self.random.choice((0, 120, -120, 4000, -9000)), self.random.choice((0, 120, -120)))
        keys = self.random.choice((NONE, SHIFT, CTRL))
        phase = Qt.ScrollPhase.NoScrollPhase
        event = QWheelEvent(at, view.mapToGlobal(at), QPoint(), turned, Qt.MouseButton.NoButton, keys, phase, False)
        QApplication.sendEvent(view, event)

    def resize(self) -> None:
        self.board.resize(self.random.randrange(300, 2200), self.random.randrange(200, 1400))

    def hear(self) -> None:
        """The session goes on: mostly by a second, sometimes with a hole, a rewind or another reference."""
        script, second = self.script, self.second
        said: list[Update] = [script.traces("cap", second), script.traces("strap", second), script.beats(second)]
        said += [script.body(second), script.estimated(second), script.health(second)]
        self.second += self.random.choice((1, 1, 1, 7))
        turn = self.random.random()
        labels = script.hello().streams[0].channels
        if turn < 0.05:
            said, self.second = [Cleared()], 0
        elif turn < 0.08:
            said, self.second = [Ended("gone"), script.hello()], 0
        elif turn < 0.2:
            pairs = tuple(f"{one}-{other}" for one, other in pairwise(labels))
            rows = self.random.choice((labels, labels[:5], pairs))
            reference = self.random.choice(("as recorded", "average", "bipolar"))
            anew = bool(self.random.getrandbits(1))
            said.append(Shown("cap", rows, reference, anew, "said", labels[2:3], altered=True, anew=anew))
        elif turn < 0.3:
            said.append(Marked(script.start + second, "a marker", "marks"))
        for update in said:
            self.board.apply(update)


@pytest.mark.parametrize("seed", [1, 2])
def test_whatever_is_pressed_the_window_goes_on(qtbot, make_script, tmp_path, seed):
    remember.use(QSettings(str(tmp_path / "kept.ini"), QSettings.Format.IniFormat))
    board = Board(lambda command: None)
    qtbot.addWidget(board, before_close_func=lambda board: setattr(board, "hello", None))
    board.show()
    script = make_script(replay=seed == 1, targets=("arousal", "valence"), ranges=((0.0, 1.0), (-1.0, 1.0)))
    board.apply(script.hello())
    monkey = Monkey(board, script, seed)
    for _ in range(ACTIONS):
        monkey.act()
        board.refresh()
        QApplication.processEvents()
        board.show()
    board.apply(script.hello())
    for second in range(30):
        board.apply(script.traces("cap", second))
    panel = board.panels["traces"]
    panel.channels.stream.setCurrentIndex(0)
    panel.channels.do("reset")
    panel.fit_all()
    board.redraw()
    assert len(panel.strips["cap"].curve.getData()[0]) > 1000  # and it still draws

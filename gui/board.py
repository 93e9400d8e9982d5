"""The window: a header, and every panel of ``gui/panels`` in its place."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable

from PySide6.QtCore import QByteArray, Qt
from PySide6.QtGui import QCloseEvent, QResizeEvent
from PySide6.QtWidgets import QHBoxLayout, QMessageBox, QScrollArea, QSplitter, QVBoxLayout, QWidget

import gui.panels
from gui import look, remember
from realtime.api import Command, Ended, Health, Hello, Stop, Update


def panel_names() -> list[str]:
    """The panels there are: every file of ``gui/panels``."""
    return sorted(module.name for module in pkgutil.iter_modules(gui.panels.__path__))


def load_panel(name: str, send: Callable[[Command], None]) -> look.Card:
    """The panel of the file ``gui/panels/<name>.py``."""
    panel: look.Card = importlib.import_module(f"gui.panels.{name}").Panel(send)
    return panel


class Column(QWidget):
    """Panels below each other. A scroll area that holds it scrolls only when they do not fit at their lowest."""

    def __init__(self) -> None:
        super().__init__()
        self.setObjectName("bare")
        self.panels = QVBoxLayout(self)
        self.panels.setContentsMargins(0, 0, 0, 0)
        self.panels.setSpacing(8)

    def heightForWidth(self, width: int) -> int:  # noqa: N802
        return self.panels.minimumHeightForWidth(width)


class Board(QWidget):
    """The dashboard. ``apply`` takes the engine's messages, ``refresh`` draws; ``send`` carries commands to the engine.

    Belongs to the Qt thread. Whoever owns the connection calls ``apply`` for all that has come, then ``refresh`` once.
    """

    def __init__(self, send: Callable[[Command], None]) -> None:
        super().__init__()
        self.setObjectName("board")
        self.setAttribute(Qt.WidgetAttribute.WA_StyledBackground)
        self.setWindowTitle("insula")
        self.setFont(look.font(13))
        self.setStyleSheet(look.style())
        self.send = send
        self.hello: Hello | None = None
        self.health: Health | None = None
        self.ended: Ended | None = None
        self.panels = {name: load_panel(name, send) for name in panel_names()}
        self.title = look.label("", "title", shrink=True)
        self.state = look.label("connecting", "pill")
        self.alarm = look.label("", "pill")
        self.alarm.setStyleSheet(f"color: {look.theme.bad}; border-color: {look.theme.bad};")
        self.alarm.hide()
        self.used = look.label("", "muted", shrink=True)
        self.time = look.label("", "title")
        self._lay_out()
        self.resize(1400, 900)
        self._recall()

    def _lay_out(self) -> None:
        header = QHBoxLayout()
        header.setSpacing(14)
        header.setContentsMargins(4, 0, 4, 0)
        header.addWidget(look.label("insula", "brand"))
        header.addWidget(self.title)
        header.addWidget(self.state)
        header.addWidget(self.alarm)
        header.addStretch(1)
        header.addWidget(self.used)
        header.addWidget(self.time)
        whole = QVBoxLayout(self)
        whole.setContentsMargins(10, 8, 10, 10)
        whole.setSpacing(8)
        whole.addLayout(header)
        self.middle = middle = QSplitter(Qt.Orientation.Horizontal)
        middle.setHandleWidth(8)
        middle.setChildrenCollapsible(False)
        columns = {}
        for side in ("left", "right"):
            column = Column()
            columns[side] = column.panels
            middle.addWidget(column if side == "left" else self._scrolling(column))
        middle.setSizes([840, 540])
        middle.setStretchFactor(0, 3)
        middle.setStretchFactor(1, 1)
        ordered = sorted(self.panels.values(), key=lambda panel: panel.order)
        for panel in ordered:
            if panel.place == "top":
                whole.addWidget(panel)
            elif panel.place in columns:
                columns[panel.place].addWidget(panel, panel.stretch)
        whole.addWidget(middle, 1)
        for panel in ordered:
            if panel.place == "bottom":
                whole.addWidget(panel)

    def _recall(self) -> None:
        """Where the window was and how its columns were divided last time; Qt sees to it that it is on a screen."""
        place, shares = remember.recall("window/place", ""), remember.recall("window/columns", [])
        if place:
            self.restoreGeometry(QByteArray.fromBase64(place.encode("ascii", "ignore")))
        if len(shares) == 2 and all(isinstance(share, int) and share > 0 for share in shares):
            self.middle.setSizes(shares)

    def _keep(self) -> None:
        remember.keep("window/place", bytes(self.saveGeometry().toBase64().data()).decode("ascii"))
        remember.keep("window/columns", list(self.middle.sizes()))

    @staticmethod
    def _scrolling(column: QWidget) -> QScrollArea:
        """``column``, scrolled where the window is too low: no panel may make the window taller than a screen."""
        made = QScrollArea()
        made.setWidgetResizable(True)
        made.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        made.viewport().setAutoFillBackground(False)
        made.setWidget(column)
        column.setAutoFillBackground(False)  # a scroll area turns it on
        made.setMinimumWidth(column.minimumSizeHint().width())
        return made

    def apply(self, update: Update) -> None:
        """Take in one message of the engine. Cheap: nothing is drawn yet."""
        match update:
            case Hello():
                self.hello, self.health, self.ended = update, None, None
                self.setWindowTitle(f"insula: {look.plain(update.title, 80)}")
            case Health():
                self.health = update
            case Ended():
                self.ended = update
        for panel in self.panels.values():
            panel.apply(update)

    def refresh(self) -> None:
        """Draw what has changed since the last call."""
        self._write_header()
        for panel in self.panels.values():
            if not panel.isHidden():
                panel.refresh()

    def redraw(self) -> None:
        """Draw everything anew, as after a change of size."""
        for panel in self.panels.values():
            panel.touch()
        self.refresh()

    def resizeEvent(self, event: QResizeEvent) -> None:  # noqa: N802
        super().resizeEvent(event)
        self.redraw()

    def _write_header(self) -> None:
        if self.hello is None:
            return
        self.title.setText(look.plain(self.hello.title, 70))
        recording = self.health is not None and bool(self.health.record)
        colour = look.theme.accent
        if self.ended is not None:
            words, colour = (
                ("session ended", look.theme.muted) if not self.ended.reason else ("✕ not connected", look.theme.bad)
            )
        elif self.hello.replay:
            words = "replay" if self.health is None or self.health.playing else "replay, paused"
        else:
            words = "● live, recording" if recording else "live, not recording"
        if self.state.text() != words:
            self.state.setText(words)
            self.state.setStyleSheet(f"color: {colour}; border-color: {colour};")
        # Beside the state, never in its place: whether the session is recorded matters most when something is wrong.
        alarms = self.health.alarms if self.health is not None and self.ended is None else ()
        self.alarm.setText("! alarm" if len(alarms) == 1 else f"! {len(alarms)} alarms")
        self.alarm.setVisible(bool(alarms))
        used = ", ".join(f"{look.plain(kind, 12).upper()} from {look.plain(key, 32)}" for kind, key in self.hello.used)
        self.used.setText(f"model input: {used}" if used else "")
        if self.health is not None:
            self.time.setText(look.clock(self.health.now - self.hello.start))

    def closeEvent(self, event: QCloseEvent) -> None:  # noqa: N802
        """A replay ends with its window. A live session goes on unless the researcher says otherwise."""
        if self.hello is None or self.ended is not None:
            event.accept()
        elif self.hello.replay:
            self.send(Stop())
            event.accept()
        else:
            self._ask(event)
        if event.isAccepted():
            self._keep()

    def _ask(self, event: QCloseEvent) -> None:
        box = QMessageBox(self)
        box.setObjectName("close")
        box.setWindowTitle("Close the dashboard")
        box.setTextFormat(Qt.TextFormat.PlainText)
        if self.health is not None and self.health.record:
            box.setText("This session is being recorded. What should happen to it?")
            box.setInformativeText(f"The record: {look.plain(self.health.record, 200)}")
        else:
            box.setText("This session is live. What should happen to it?")
        keep = box.addButton("Keep it running", QMessageBox.ButtonRole.AcceptRole)
        stop = box.addButton("Stop the session", QMessageBox.ButtonRole.DestructiveRole)
        cancel = box.addButton("Cancel", QMessageBox.ButtonRole.RejectRole)
        box.setDefaultButton(keep)
        box.setEscapeButton(cancel)
        box.exec()
        if box.clickedButton() is stop:
            self.send(Stop())
            event.accept()
        elif box.clickedButton() is keep:
            event.accept()
        else:
            event.ignore()

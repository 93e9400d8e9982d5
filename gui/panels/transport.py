"""The controls of a replay: play, pause, step, loop, speed and a bar to seek on; not there in a live session."""

from __future__ import annotations

import math
from collections.abc import Callable

from PySide6.QtCore import QPointF, QRectF, Qt, Signal
from PySide6.QtGui import QKeyEvent, QKeySequence, QMouseEvent, QPainter, QPaintEvent, QPen, QShortcut
from PySide6.QtWidgets import QComboBox, QPushButton, QSizePolicy, QWidget

from gui import look
from realtime.api import (
    Cleared,
    Command,
    Ended,
    Health,
    Hello,
    Marked,
    Pause,
    Play,
    Seek,
    SetLoop,
    SetSpeed,
    Step,
    Update,
)

STEP = 1.0
"""Seconds."""
SPEEDS = (0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0, math.inf)


class SeekBar(QWidget):
    """A recording's length with its markers; press, drag and let go to seek, or use the arrow keys."""

    sought = Signal(float)
    """Seconds from the start of the recording."""

    def __init__(self) -> None:
        super().__init__()
        self.length = 0.0
        self.position = 0.0
        self.marks: list[tuple[float, str]] = []
        self.dragged: float | None = None
        self.setMinimumSize(160, 40)
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
        self.setFocusPolicy(Qt.FocusPolicy.StrongFocus)
        self.setAccessibleName("Position in the recording")
        self.setCursor(Qt.CursorShape.PointingHandCursor)

    def place(self, seconds: float) -> float:
        """Pixels from the left."""
        share = min(max(seconds / self.length, 0.0), 1.0) if self.length > 0 else 0.0
        return 8 + share * (self.width() - 16)

    def seconds(self, pixels: float) -> float:
        return min(max((pixels - 8) / max(self.width() - 16, 1), 0.0), 1.0) * self.length

    def mousePressEvent(self, event: QMouseEvent) -> None:  # noqa: N802
        if event.button() == Qt.MouseButton.LeftButton and self.length > 0:
            self.dragged = self.seconds(event.position().x())
            self.update()

    def mouseMoveEvent(self, event: QMouseEvent) -> None:  # noqa: N802
        if self.dragged is not None:
            self.dragged = self.seconds(event.position().x())
            self.update()

    def mouseReleaseEvent(self, event: QMouseEvent) -> None:  # noqa: N802
        if self.dragged is not None and event.button() == Qt.MouseButton.LeftButton:
            self.position, self.dragged = self.seconds(event.position().x()), None
            self.sought.emit(self.position)
            self.update()

    def keyPressEvent(self, event: QKeyEvent) -> None:  # noqa: N802
        step = {Qt.Key.Key_Left: -5.0, Qt.Key.Key_Right: 5.0, Qt.Key.Key_PageUp: -30.0, Qt.Key.Key_PageDown: 30.0}
        moved = step.get(Qt.Key(event.key()))
        if moved is None or self.length <= 0:
            super().keyPressEvent(event)
            return
        self.position = min(max(self.position + moved, 0.0), self.length)
        self.sought.emit(self.position)
        self.update()

    def paintEvent(self, _event: QPaintEvent) -> None:  # noqa: N802
        t = look.theme
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        y = self.height() - 12.0
        at = self.place(self.position if self.dragged is None else self.dragged)
        painter.setPen(Qt.PenStyle.NoPen)
        painter.setBrush(look.color(t.line))
        painter.drawRoundedRect(QRectF(8, y - 3, self.width() - 16, 6), 3, 3)
        painter.setBrush(look.color(t.accent if self.isEnabled() else t.muted))
        painter.drawRoundedRect(QRectF(8, y - 3, at - 8, 6), 3, 3)
        painter.setFont(look.font(12))
        free = 0.0
        for time, text in self.marks:
            x = self.place(time)
            painter.setPen(QPen(look.color(t.marker), 2))
            painter.drawLine(QPointF(x, y - 12), QPointF(x, y + 7))
            wide = painter.fontMetrics().horizontalAdvance(text)
            left = min(x + 4, self.width() - wide)
            if left >= free:
                painter.drawText(QPointF(left, y - 12), text)
                free = left + wide + 8
        painter.setPen(QPen(look.color(t.card), 2))
        painter.setBrush(look.color(t.text))
        painter.drawEllipse(QPointF(at, y), 7.5, 7.5)
        if self.hasFocus():
            painter.setBrush(Qt.BrushStyle.NoBrush)
            painter.setPen(QPen(look.color(t.accent), 1))
            painter.drawEllipse(QPointF(at, y), 10, 10)


class Panel(look.Card):
    place = "bottom"
    order = 0

    def __init__(self, send: Callable[[Command], None]) -> None:
        super().__init__("", send)
        self.start = 0.0
        self.body.addLayout(self.bar)
        self.body.setContentsMargins(12, 6, 12, 6)
        self.button = QPushButton("Pause")
        self.button.setObjectName("primary")
        self.button.setMinimumWidth(84)
        self.button.clicked.connect(self.toggle)
        self.step = QPushButton(f"Step {STEP:g} s")
        self.step.setAccessibleName(f"Pause and go on by {STEP:g} s")
        self.step.clicked.connect(lambda: self.send(Step(STEP)))
        self.loop = look.Switch("Loop")
        self.loop.setAccessibleName("Begin again at the end")
        self.loop.clicked.connect(lambda on: self.send(SetLoop(on)))
        self.speed = QComboBox()
        for speed in SPEEDS:
            self.speed.addItem("max" if math.isinf(speed) else f"{speed:g} ×", speed)
        self.speed.setCurrentIndex(SPEEDS.index(1.0))
        self.speed.setAccessibleName("Speed")
        self.speed.activated.connect(self.set_speed)
        self.seek = SeekBar()
        self.seek.sought.connect(lambda seconds: self.send(Seek(self.start + seconds)))
        self.time = look.label("0:00 of 0:00")
        self.time.setMinimumWidth(104)
        self.time.setAlignment(Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter)
        self.bar.addWidget(self.button)
        self.bar.addWidget(self.step)
        self.bar.addWidget(self.loop)
        self.bar.addWidget(look.label("Speed", "muted"))
        self.bar.addWidget(self.speed)
        self.bar.addWidget(self.seek, 1)
        self.bar.addWidget(self.time)
        self.space = QShortcut(QKeySequence(Qt.Key.Key_Space), self)
        self.space.setContext(Qt.ShortcutContext.WindowShortcut)
        self.space.activated.connect(self.toggle)
        self.playing = True
        self.over = False
        self.hide()

    def toggle(self) -> None:
        """Play when paused, pause when playing."""
        self.send(Pause() if self.playing else Play())

    def set_speed(self, index: int) -> None:
        self.send(SetSpeed(SPEEDS[index]))

    def apply(self, update: Update) -> None:
        match update:
            case Hello(replay=replay, start=start, stop=stop):
                self.start, self.over = start, False
                self.seek.length = max(stop - start, 0.0) if math.isfinite(stop - start) else 0.0
                self.seek.position = 0.0
                self.seek.marks.clear()
                self.setVisible(replay)
            case Health(now=now, playing=playing, speed=speed, looping=looping):
                self.playing = playing
                self.loop.setChecked(looping)
                self.seek.position = min(max(now - self.start, 0.0), self.seek.length)
                if speed in SPEEDS and not self.speed.view().isVisible():
                    self.speed.setCurrentIndex(SPEEDS.index(speed))
            case Marked(time=time, label=text):
                mark = (time - self.start, look.plain(text, 24))
                if mark not in self.seek.marks[-200:]:  # a seek plays earlier markers again
                    self.seek.marks = [*self.seek.marks[-199:], mark]
            case Ended():
                self.over = True
            case Cleared():
                pass  # the markers stay: they are where to seek to
        for widget in (self.button, self.step, self.loop, self.speed, self.seek):
            widget.setEnabled(not self.over)

    def refresh(self) -> None:
        self.button.setText("Pause" if self.playing and not self.over else "Play")
        self.time.setText(f"{look.clock(self.seek.position)} of {look.clock(self.seek.length)}")
        self.seek.update()

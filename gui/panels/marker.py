"""The researcher's markers: type a text, press Enter or Ctrl+M; live sessions only."""

from __future__ import annotations

from collections.abc import Callable

from PySide6.QtGui import QKeySequence, QShortcut
from PySide6.QtWidgets import QLineEdit, QPushButton

from gui import look
from realtime.api import Command, Ended, Hello, Mark, Marked, Update


class Panel(look.Card):
    place = "bottom"
    order = 1

    def __init__(self, send: Callable[[Command], None]) -> None:
        super().__init__("", send)
        self.body.addLayout(self.bar)
        self.body.setContentsMargins(12, 6, 12, 6)
        self.field = QLineEdit()
        self.field.setMaxLength(200)
        self.field.setPlaceholderText("Marker text, for example: eyes closed")
        self.field.setAccessibleName("Marker text")
        self.field.returnPressed.connect(self.mark)
        self.button = QPushButton("Set marker  (Ctrl+M)")
        self.button.setObjectName("primary")
        self.button.clicked.connect(self.mark)
        self.latest = look.label("no marker yet", "muted")
        self.bar.addWidget(look.label("Marker", "heading"))
        self.bar.addWidget(self.field, 1)
        self.bar.addWidget(self.button)
        self.bar.addWidget(self.latest)
        self.key = QShortcut(QKeySequence("Ctrl+M"), self)
        self.key.activated.connect(self.mark)
        self.start = 0.0
        self.hide()

    def mark(self) -> None:
        """Send the marker. The text stays selected, so that typing replaces it and Enter repeats it."""
        self.send(Mark(self.field.text().strip() or "marker"))
        self.field.selectAll()

    def apply(self, update: Update) -> None:
        match update:
            case Hello(replay=replay, start=start):
                self.start = start
                self.setVisible(not replay)
                self.setEnabled(True)
            case Marked(time=time, label=text):
                self.latest.setText(f"last: {look.plain(text, 32)} at {look.clock(time - self.start)}")
            case Ended():
                self.setEnabled(False)

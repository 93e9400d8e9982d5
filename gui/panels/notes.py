"""What of note has happened: alarms that came and went, sources that were restarted; the last ones, newest first."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from gui import look
from realtime.api import Cleared, Command, Hello, Noted, Update

KEPT = 100
SHOWN = 5


class Panel(look.Card):
    place = "right"
    order = 3

    def __init__(self, send: Callable[[Command], None]) -> None:
        super().__init__("Events", send)
        self.count = look.label("", "muted")
        self.bar.addWidget(self.count)
        self.lines = look.label("", wrap=True)
        self.body.addWidget(self.lines)
        self.start = 0.0
        self.notes: deque[str] = deque(maxlen=KEPT)
        self.total = 0
        self.hide()

    def apply(self, update: Update) -> None:
        match update:
            case Hello(start=start):
                self.start = start
                self.forget()
            case Noted(time=time, text=text):
                self.notes.append(f"{look.clock(time - self.start)}  {look.plain(text, 160)}")
                self.total += 1
            case Cleared():
                self.forget()
            case _:
                return
        self.setVisible(bool(self.notes))
        self.dirty = True

    def forget(self) -> None:
        self.notes.clear()
        self.total = 0

    def refresh(self) -> None:
        if not self.dirty:
            return
        self.dirty = False
        newest = list(self.notes)[::-1]
        self.lines.setText("\n".join(newest[:SHOWN]))
        self.lines.setToolTip("\n".join(newest[:50]))
        self.count.setText(f"the last {SHOWN} of {self.total}" if self.total > SHOWN else "")
        look.fit_height(self.lines)

"""What is broken right now, loud, above everything else; hidden while all is well."""

from __future__ import annotations

from collections.abc import Callable

from gui import look
from realtime.api import Cleared, Command, Ended, Health, Hello, Update


class Panel(look.Card):
    place = "top"
    order = 0

    def __init__(self, send: Callable[[Command], None]) -> None:
        super().__init__("", send)
        self.setObjectName("bare")
        self.body.setContentsMargins(0, 0, 0, 0)
        self.alarm = look.label("", "alarm", wrap=True)
        self.body.addWidget(self.alarm)
        self.over = False
        self.hide()

    def apply(self, update: Update) -> None:
        match update:
            case Hello():
                self.over = False
                self.say(())
            case Health(alarms=alarms) if not self.over:
                self.say(alarms)
            case Ended(reason=reason):
                self.over = True
                self.say((f"{reason} What is drawn is the last that came.",) if reason else ())
            case Cleared():
                self.say(())

    def say(self, alarms: tuple[str, ...]) -> None:
        """Show ``alarms``, at most six lines of them."""
        lines = [f"⚠  {look.plain(alarm, 220)}" for alarm in alarms[:6]]
        if len(alarms) > 6:
            lines.append(f"⚠  and {len(alarms) - 6} more")
        self.alarm.setText("\n".join(lines))
        self.alarm.setVisible(bool(lines))
        self.setVisible(bool(lines))

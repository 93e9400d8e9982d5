"""How good every channel is, in the last window: a sign, a colour and words."""

from __future__ import annotations

from collections.abc import Callable

from PySide6.QtCore import QSize, Qt
from PySide6.QtGui import QResizeEvent
from PySide6.QtWidgets import QGridLayout, QLabel, QScrollArea, QSizePolicy, QWidget

from gui import look
from models.api import Verdict
from realtime.api import Body, Cleared, Command, Estimated, Hello, Update

ABSENT = "absent"
"""The reason of a channel that the stream lacks."""


def grade(verdict: Verdict) -> tuple[str, str, str]:
    """Sign, word and colour of a verdict, by the level that the engine goes by."""
    match verdict.level:
        case "good":
            return "✓", "good", look.theme.good
        case "doubtful":
            return "!", "doubtful", look.theme.fair
        case _:
            return "✕", "bad", look.theme.bad


class Area(QScrollArea):
    """Asks for the height its chips need, and scrolls where it does not get it."""

    wanted = 80

    def sizeHint(self) -> QSize:  # noqa: N802
        return QSize(super().sizeHint().width(), self.wanted)


class Panel(look.Card):
    place = "right"
    order = 1

    def __init__(self, send: Callable[[Command], None]) -> None:
        super().__init__("Signal quality", send)
        self.summary = look.label("waiting for the first window", "muted")
        self.bar.addWidget(self.summary)
        self.inside = QWidget()
        self.inside.setObjectName("bare")
        self.grid = QGridLayout(self.inside)
        self.grid.setContentsMargins(0, 0, 0, 0)
        self.grid.setSpacing(4)
        self.area = Area()
        self.area.setWidgetResizable(True)
        self.area.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self.area.viewport().setAutoFillBackground(False)
        self.area.setWidget(self.inside)
        self.area.setMinimumHeight(64)
        self.body.addWidget(self.area)
        self.chips: dict[tuple[str, str], QLabel] = {}
        self.quality: dict[str, tuple[Verdict, ...]] = {}
        self.fed: frozenset[str] = frozenset()
        """Kinds of signal that the model is fed with."""
        self.eeg: tuple[Verdict, ...] = ()
        """Of a headset that does not feed it, by the rules that the rhythms go by."""

    def apply(self, update: Update) -> None:
        match update:
            case Hello(model=model, used=used):
                self.setVisible(model is not None)  # without one nobody judges windows
                self.fed = frozenset(kind for kind, _ in used)
                self.quality, self.eeg = {}, ()
                self.dirty = True
            case Cleared():
                self.quality, self.eeg = {}, ()
                self.dirty = True
            case Body(brains=(first, *_)) if "eeg" not in self.fed:
                self.eeg = first.verdicts
                self.dirty = True
            case Estimated(quality=quality):
                self.quality = quality
                self.dirty = True

    def refresh(self) -> None:
        if not self.dirty:
            return
        self.dirty = False
        told = [(kind, verdict) for kind, channels in self.quality.items() for verdict in channels]
        # The stream's own channels are named and counted; what the model would like to have besides is only counted.
        verdicts = [(kind, verdict) for kind, verdict in told if verdict.reason != ABSENT]
        lacking = [verdict.channel for kind, verdict in told if verdict.reason == ABSENT and kind in self.fed]
        starved = [look.plain(kind, 6).upper() for kind in self.quality if kind not in self.fed]
        if "eeg" not in self.fed:
            verdicts = [("eeg", verdict) for verdict in self.eeg] + verdicts
        keys = [(kind, verdict.channel) for kind, verdict in verdicts]
        if keys != list(self.chips):
            for chip in self.chips.values():
                self.grid.removeWidget(chip)
                chip.deleteLater()
            self.chips = {key: self.chip() for key in keys}
            self.arrange()
        poor: list[str] = []
        for kind, verdict in verdicts:
            sign, word, colour = grade(verdict)
            name = look.plain(verdict.channel, 10)
            if kind != "eeg" and kind.upper() not in name.upper():
                name = f"{look.plain(kind, 6).upper()} {name}"
            good = verdict.level == "good"
            if not good:
                poor.append(name)
            chip = self.chips[kind, verdict.channel]
            reason = look.plain(verdict.reason, 40)
            text = f"{sign} {name}: {reason}" if reason else f"{sign} {name} {word}"
            if chip.text() != text:
                chip.setText(text)
                ground = look.color(colour, 34 if good else 60)
                edge = "transparent" if good else colour
                chip.setStyleSheet(
                    f"background: rgba({ground.red()},{ground.green()},{ground.blue()},{ground.alpha()});"
                    f"border: 1px solid {edge}; border-left: 3px solid {colour};"
                    "border-radius: 4px; padding: 2px 5px; font-size: 12px;"
                )
        more = f"; not there: {len(lacking)} of the model's" if lacking else ""
        more += f"; the model gets no {', no '.join(starved)}" if starved else ""
        self.summary.setToolTip(f"Not there: {look.plain(', '.join(lacking), 400)}" if lacking else "")
        if not verdicts:
            self.summary.setText("waiting for the first window")
        elif poor:
            names = ", ".join(poor[:4]) + (", ..." if len(poor) > 4 else "")
            self.summary.setText(f"{len(verdicts) - len(poor)} of {len(verdicts)} channels good; not {names}{more}")
        else:
            self.summary.setText(f"all {len(verdicts)} channels good{more}")

    def chip(self) -> QLabel:
        made = look.label("", "chip", wrap=True)
        made.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Preferred)
        made.setAlignment(Qt.AlignmentFlag.AlignLeft | Qt.AlignmentFlag.AlignTop)
        return made

    def arrange(self) -> None:
        """As many columns as there is room for."""
        columns = max(2, self.area.viewport().width() // 112)
        for column in range(self.grid.columnCount()):
            self.grid.setColumnStretch(column, 1 if column < columns else 0)
        for place, chip in enumerate(self.chips.values()):
            self.grid.addWidget(chip, place // columns, place % columns)
        for column in range(columns):
            self.grid.setColumnStretch(column, 1)
        rows = -(-len(self.chips) // columns)
        self.area.wanted = min(max(rows, 2) * 30 + 18, 260)
        self.area.updateGeometry()

    def resizeEvent(self, event: QResizeEvent) -> None:  # noqa: N802
        super().resizeEvent(event)
        self.arrange()

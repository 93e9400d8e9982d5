"""How good every channel is, in the last window: a sign, a colour and words. With a model or without."""

from __future__ import annotations

import math
from collections.abc import Callable

from PySide6.QtCore import QSize, Qt
from PySide6.QtGui import QResizeEvent
from PySide6.QtWidgets import QGridLayout, QLabel, QScrollArea, QSizePolicy, QWidget

from gui import look
from models.api import Verdict
from realtime.api import RHYTHM_SECONDS, Body, Cleared, Command, Estimated, Hello, Traces, Update

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
        # It says more than the column is wide: in several lines, or it would push the column out of the window.
        self.summary = look.label("", "muted", wrap=True)
        self.summary.setAlignment(Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter)
        self.bar.addWidget(self.summary, 8)
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
        self.feeding: frozenset[str] = frozenset()
        """Keys of the streams that feed it."""
        self.heads: dict[str, tuple[Verdict, ...]] = {}
        """Of headsets that do not feed it, by stream: by the rules that the rhythms go by."""
        self.why: dict[str, str] = {}
        """Why one of them has none, for now or for good."""
        self.awaited: dict[str, float] = {}
        """Seconds of signal that a first verdict of a stream needs."""
        self.begun: dict[str, float] = {}
        """When the signals of streams began."""
        self.newest = -math.inf
        self.hop = 1.0
        self.unjudged = ""

    def apply(self, update: Update) -> None:
        match update:
            case Hello():
                self.introduce(update)
            case Cleared():
                self.forget()
            case Traces(stream=key, times=times) if key in self.awaited and len(times):
                self.begun.setdefault(key, float(times[0]))
                before, self.newest = self.newest, max(self.newest, float(times[-1]))
                if self.quality or self.heads or before // 1.0 == self.newest // 1.0:
                    return
            case Body(brains=brains):
                for brain in brains:
                    if brain.stream not in self.feeding:
                        self.heads[brain.stream] = brain.verdicts
                        self.why[brain.stream] = brain.reason or brain.remark
            case Estimated(quality=quality):
                self.quality = quality
            case _:
                return
        self.dirty = True

    def introduce(self, hello: Hello) -> None:
        """Take in what is judged in this session, and after how long."""
        self.fed = frozenset(kind for kind, _ in hello.used)
        self.feeding = frozenset(key for _, key in hello.used)
        self.awaited = {
            stream.key: RHYTHM_SECONDS for stream in hello.streams if stream.kind == "eeg" and stream.rate > 0
        }
        if hello.model is not None:
            self.hop = hello.model.hop
            self.awaited |= dict.fromkeys(self.feeding, hello.model.seconds)
        hearts = [stream.key for stream in hello.streams if stream.kind == "ecg" and stream.rate > 0]
        self.unjudged = "; ECG: not judged without a model" if hearts and hello.model is None else ""
        self.setVisible(bool(self.awaited))
        self.forget()

    def forget(self) -> None:
        self.quality, self.heads, self.why, self.begun, self.newest = {}, {}, {}, {}, -math.inf

    def waiting(self) -> str:
        """When the first verdict comes, or why it does not."""
        if not self.begun:
            return "waiting for the first samples"
        reasons = list(self.unheard().values())
        # Windows end at whole hops.
        ends = [math.ceil((first + self.awaited[key]) / self.hop) * self.hop for key, first in self.begun.items()]
        left = math.ceil(min(ends) - self.newest - 1e-6)
        if left > 0:
            return f"first verdict in {left} s"
        return look.plain(reasons[0], 100) if reasons else "first verdict now"

    def unheard(self) -> dict[str, str]:
        """Why there is no verdict of a headset that does not feed the model, by stream."""
        return {key: why for key, why in self.why.items() if why and not self.heads[key]}

    def verdicts(self) -> list[tuple[str, str, Verdict]]:
        """Group, what goes before the name of the channel, and verdict, of every channel of the streams."""
        several = len(self.heads) + ("eeg" in self.fed) > 1
        found = [
            (key, f"{look.plain(key, 10)} " if several else "", verdict)
            for key, verdicts in self.heads.items()
            for verdict in verdicts
        ]
        # The stream's own channels are named and counted; what the model would like to have besides is only counted.
        for kind, channels in self.quality.items():
            for verdict in channels:
                if verdict.reason != ABSENT:
                    clear = kind == "eeg" or kind.upper() in verdict.channel.upper()
                    found.append((kind, "" if clear else f"{look.plain(kind, 6).upper()} ", verdict))
        return found

    def refresh(self) -> None:
        if not self.dirty:
            return
        self.dirty = False
        told = [(kind, verdict) for kind, channels in self.quality.items() for verdict in channels]
        lacking = [verdict.channel for kind, verdict in told if verdict.reason == ABSENT and kind in self.fed]
        starved = [look.plain(kind, 6).upper() for kind in self.quality if kind not in self.fed]
        verdicts = self.verdicts()
        keys = list(dict.fromkeys((group, verdict.channel) for group, _, verdict in verdicts))
        if keys != list(self.chips):
            for chip in self.chips.values():
                self.grid.removeWidget(chip)
                chip.hide()  # at once: it is deleted later
                chip.deleteLater()
            self.chips = {key: self.chip() for key in keys}
            self.arrange()
        poor: list[str] = []
        for group, before, verdict in verdicts:
            sign, word, colour = grade(verdict)
            name = before + look.plain(verdict.channel, 10)
            good = verdict.level == "good"
            if not good:
                poor.append(name)
            chip = self.chips[group, verdict.channel]
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
        more += "".join(f"; {look.plain(key, 10)}: {look.plain(why, 60)}" for key, why in self.unheard().items())
        more += self.unjudged
        self.summary.setToolTip(f"Not there: {look.plain(', '.join(lacking), 400)}" if lacking else "")
        if not verdicts:
            self.summary.setText(self.waiting())
        elif poor:
            names = ", ".join(poor[:4]) + (", ..." if len(poor) > 4 else "")
            self.summary.setText(f"{len(verdicts) - len(poor)} of {len(verdicts)} channels good; not {names}{more}")
        else:
            self.summary.setText(f"all {len(verdicts)} channels good{more}")
        look.fit_height(self.summary)

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
        for row in range(max(self.grid.rowCount(), rows + 1)):
            self.grid.setRowStretch(row, int(row >= rows))  # what is left over stays below
        self.area.wanted = min(max(rows, 2) * 30 + 18, 260)
        self.area.updateGeometry()

    def resizeEvent(self, event: QResizeEvent) -> None:  # noqa: N802
        super().resizeEvent(event)
        look.fit_height(self.summary)
        self.arrange()

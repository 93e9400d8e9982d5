"""Is everything well: every stream's age, rate and losses, the model's pace, the record."""

from __future__ import annotations

import math
from collections.abc import Callable

from PySide6.QtCore import Qt
from PySide6.QtWidgets import QGridLayout, QLabel

from devices.api import StreamInfo
from gui import look
from realtime.api import Command, Ended, Health, Hello, StreamHealth, Update

SLOW = 0.9
"""Share of the nominal rate below which the rate is called low."""


def judge(stream: StreamInfo | None, health: StreamHealth) -> tuple[str, str, str]:
    """Sign, word and colour for a stream."""
    if stream is not None and stream.rate == 0.0:
        return "●", "events", look.theme.muted
    if not math.isfinite(health.stale):
        return "!", "no samples yet", look.theme.fair
    if health.stale > health.patience:
        return "✕", "silent", look.theme.bad
    if stream is not None and math.isfinite(health.rate) and health.rate < SLOW * stream.rate:
        return "!", "rate is low", look.theme.fair
    return "✓", "well", look.theme.good


def clock_words(health: StreamHealth) -> str:
    """By what the clock of a source differs, and how surely; "" when that was not measured."""
    if not math.isfinite(health.offset_ms):
        return ""
    sure = f" ± {health.offset_sd_ms:.1f}" if math.isfinite(health.offset_sd_ms) else ""
    figures = f"{health.offset_ms:+,.1f}{sure} ms".replace("-", "−").replace(",", " ")
    return f"{look.plain(health.key, 24)} {look.plain(figures, 40)}"


class Panel(look.Card):
    place = "right"
    order = 2

    def __init__(self, send: Callable[[Command], None]) -> None:
        super().__init__("Session health", send)
        self.summary = look.label("", "muted")
        self.bar.addWidget(self.summary)
        self.table = QGridLayout()
        self.table.setHorizontalSpacing(12)
        self.table.setVerticalSpacing(3)
        self.body.addLayout(self.table)
        for column, (title, stretch) in enumerate(
            (("Stream", 3), ("State", 3), ("Last sample", 2), ("Rate", 3), ("Lost samples", 2))
        ):
            self.table.addWidget(self.cell(look.label(title, "muted"), column), 0, column)
            self.table.setColumnStretch(column, stretch)
        self.clocks = look.label("", "muted", wrap=True)
        self.clocks.hide()
        self.body.addWidget(self.clocks)
        self.model = look.label("", wrap=True)
        self.record = look.label("", wrap=True)
        self.body.addWidget(self.model)
        self.body.addWidget(self.record)
        self.streams: dict[str, StreamInfo] = {}
        self.rows: dict[str, list[QLabel]] = {}
        self.newest: Health | None = None
        self.replay = False
        self.over = False

    @staticmethod
    def cell(made: QLabel, column: int) -> QLabel:
        side = Qt.AlignmentFlag.AlignLeft if column < 2 else Qt.AlignmentFlag.AlignRight
        made.setAlignment(side | Qt.AlignmentFlag.AlignVCenter)
        return made

    def apply(self, update: Update) -> None:
        match update:
            case Hello(streams=streams, replay=replay, model=model):
                self.model.setVisible(model is not None)
                self.streams = {stream.key: stream for stream in streams}
                self.replay, self.over, self.newest = replay, False, None
                for row in self.rows.values():
                    for made in row:
                        self.table.removeWidget(made)
                        made.hide()  # at once: it is deleted later
                        made.deleteLater()
                self.rows.clear()
            case Health():
                self.newest = update
            case Ended():
                self.over = True
            case _:
                return
        self.dirty = True

    def refresh(self) -> None:
        if not self.dirty or self.newest is None:
            return
        self.dirty = False
        newest = self.newest
        for health in newest.streams[:12]:
            self.write(health, paused=not newest.playing)
        measured = [words for health in newest.streams[:12] if (words := clock_words(health))]
        self.clocks.setText(f"Clocks of the sources against this one: {'; '.join(measured)}")
        self.clocks.setVisible(bool(measured))
        if self.over:
            self.summary.setText("as last heard")
        elif newest.alarms:
            self.summary.setText(f"{len(newest.alarms)} alarm{'s' if len(newest.alarms) > 1 else ''}, see the top")
        else:
            self.summary.setText("paused" if not newest.playing else "no alarms")
        skipped = f"windows skipped by the model: {newest.skipped}"
        if math.isfinite(newest.latency_ms):
            self.model.setText(f"Sample to estimate: {newest.latency_ms:.0f} ms; {skipped}")
        else:
            self.model.setText(skipped.capitalize())
        colour = look.theme.fair if newest.skipped else look.theme.text
        self.model.setStyleSheet(f"color: {colour};")
        if newest.record:
            doing = "Recorded" if self.over else "● Recording"
            lacks = f"; {newest.unrecorded} entries are missing in it" if newest.unrecorded else ""
            self.record.setText(f"{doing} {look.size(newest.record_bytes)} to {look.plain(newest.record, 200)}{lacks}")
        else:
            self.record.setText("Not recording")
        well = newest.record if not newest.unrecorded else ""
        colour = look.theme.text if well or (self.replay and not newest.record) else look.theme.fair
        self.record.setStyleSheet(f"color: {colour};")

    def write(self, health: StreamHealth, *, paused: bool) -> None:
        """One stream's row."""
        if health.key not in self.rows:
            place = len(self.rows) + 1
            self.rows[health.key] = [self.cell(look.label(), column) for column in range(5)]
            for column, made in enumerate(self.rows[health.key]):
                self.table.addWidget(made, place, column)
        stream = self.streams.get(health.key)
        sign, word, colour = judge(stream, health)
        if self.over or (paused and word == "silent"):
            sign, word, colour = "●", "over" if self.over else "paused", look.theme.muted
        signals = stream is None or stream.rate > 0.0
        stale = f"{health.stale:.1f} s ago" if math.isfinite(health.stale) else "never"
        rate = f"{health.rate:.1f}" if math.isfinite(health.rate) and word != "silent" else "–"
        if stream is not None and signals:
            rate = f"{rate} of {stream.rate:g}"
        name, state, age, pace, lost = self.rows[health.key]
        name.setText(look.plain(health.key, 24))
        state.setText(f"{sign} {word}")
        state.setStyleSheet(f"color: {colour};")
        age.setText(stale)
        pace.setText(f"{rate} Hz" if signals else f"{health.samples} so far")
        gaps = f"{health.gaps} gap{'s' if health.gaps > 1 else ''}"
        known = str(health.lost)
        lost.setText(known if not health.gaps else f"{known}, {gaps}" if health.lost else gaps)
        lost.setStyleSheet(f"color: {look.theme.fair if health.lost or health.gaps else look.theme.text};")

"""The channels of a stream as a list: shown or hidden, in which order, how high, and marked bad by hand.

All of it is for the eye alone: nothing of it is told to the engine.
"""

from __future__ import annotations

from collections.abc import Mapping

from PySide6.QtCore import QEvent, Qt, Signal
from PySide6.QtGui import QKeyEvent
from PySide6.QtWidgets import (
    QAbstractItemView,
    QComboBox,
    QGridLayout,
    QHeaderView,
    QTableWidget,
    QTableWidgetItem,
    QVBoxLayout,
    QWidget,
)

from gui import look
from gui.strip import GAINS, Strip

EYE_ONLY = "For the eye only: record, model and quality take every channel as it came."
NAME, GAIN, BAD = range(3)
WIDTH = 214


KEYS = {
    Qt.Key.Key_Space: "toggle",
    Qt.Key.Key_Plus: "higher",
    Qt.Key.Key_Equal: "higher",
    Qt.Key.Key_Minus: "lower",
    Qt.Key.Key_B: "bad",
}


class Table(QTableWidget):
    """Keys of its own: space shows and hides or marks, + and − are the gain, B marks bad, Alt with arrows moves."""

    pressed_key = Signal(str)

    def event(self, event: QEvent) -> bool:
        # Elsewhere in the window these keys do other things.
        if event.type() == QEvent.Type.ShortcutOverride and isinstance(event, QKeyEvent) and self.meant(event):
            event.accept()
            return True
        return super().event(event)

    def meant(self, event: QKeyEvent) -> str:
        """What a key asks for; "" for nothing of this list."""
        key = Qt.Key(event.key())
        if event.modifiers() & Qt.KeyboardModifier.AltModifier:
            return {Qt.Key.Key_Up: "up", Qt.Key.Key_Down: "down"}.get(key, "")
        if event.modifiers() & Qt.KeyboardModifier.ControlModifier:
            return ""
        return KEYS.get(key, "")

    def keyPressEvent(self, event: QKeyEvent) -> None:  # noqa: N802
        if meant := self.meant(event):
            self.pressed_key.emit(meant)
        else:
            super().keyPressEvent(event)


class ChannelList(QWidget):
    """One row for every channel of one stream, in the order in which they are drawn. Changes the strip's choices."""

    changed = Signal(str)
    """The key of the stream whose choices were changed."""

    def __init__(self) -> None:
        super().__init__()
        self.setObjectName("bare")
        self.setFixedWidth(WIDTH)
        box = QVBoxLayout(self)
        box.setContentsMargins(0, 0, 0, 0)
        box.setSpacing(4)
        self.stream = QComboBox()
        self.stream.setAccessibleName("Stream whose channels are listed")
        self.stream.currentIndexChanged.connect(self.fill)
        box.addWidget(self.stream)
        self.table = Table(0, 3)
        self.table.setAccessibleName("Channels")
        self.table.setToolTip(f"Tick: shown. Gain: + and − keys. Bad: B key. Move: Alt and arrow keys. {EYE_ONLY}")
        self.table.setHorizontalHeaderLabels(["Channel", "Gain", "Bad"])
        self.table.verticalHeader().hide()
        self.table.verticalHeader().setDefaultSectionSize(22)
        self.table.setShowGrid(False)
        self.table.setTabKeyNavigation(False)
        self.table.setSelectionMode(QAbstractItemView.SelectionMode.SingleSelection)
        self.table.setSelectionBehavior(QAbstractItemView.SelectionBehavior.SelectRows)
        self.table.setEditTriggers(QAbstractItemView.EditTrigger.NoEditTriggers)
        self.table.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        header = self.table.horizontalHeader()
        header.setSectionResizeMode(NAME, QHeaderView.ResizeMode.Stretch)
        for column, width in ((GAIN, 48), (BAD, 36)):
            header.setSectionResizeMode(column, QHeaderView.ResizeMode.Fixed)
            header.resizeSection(column, width)
        self.table.itemChanged.connect(self.ticked)
        self.table.pressed_key.connect(self.do)
        box.addWidget(self.table, 1)
        buttons = QGridLayout()
        buttons.setSpacing(4)
        self.buttons: dict[str, look.Button] = {}
        for place, (what, text, meaning) in enumerate(
            (
                ("up", "▲", "Move the channel up (Alt and ↑)"),
                ("down", "▼", "Move the channel down (Alt and ↓)"),
                ("lower", "−", "Draw the channel lower (−)"),
                ("higher", "+", "Draw the channel higher (+)"),
                ("all", "Show all", "Show every channel of this stream"),
                ("reset", "Reset", "All channels shown, in their own order, gain 1, none marked bad"),
            )
        ):
            made = look.Button(text)
            made.setToolTip(meaning)
            made.setAccessibleName(meaning)
            made.clicked.connect(lambda _checked=False, what=what: self.do(what))
            span = 1 if place < 4 else 2
            column = place if place < 4 else 2 * (place - 4)
            buttons.addWidget(made, place // 4, column, 1, span)
            self.buttons[what] = made
        box.addLayout(buttons)
        box.addWidget(look.label("For the eye only.", "muted"))
        self.strips: Mapping[str, Strip] = {}

    def offer(self, strips: Mapping[str, Strip]) -> None:
        """List the channels of these from now on."""
        self.strips = strips
        self.stream.blockSignals(True)
        self.stream.clear()
        for key in strips:
            self.stream.addItem(look.plain(key, 24), key)
        self.stream.blockSignals(False)
        self.stream.setVisible(len(strips) > 1)
        self.fill()

    @property
    def strip(self) -> Strip | None:
        """The one whose channels are listed."""
        return self.strips.get(self.stream.currentData() or "")

    @property
    def label(self) -> str | None:
        """Of the channel that is chosen."""
        item = self.table.item(self.table.currentRow(), NAME)
        found = item.data(Qt.ItemDataRole.UserRole) if item is not None else None
        return found if isinstance(found, str) else None

    def choose(self, key: str, label: str) -> None:
        """Go to a channel."""
        self.stream.setCurrentIndex(max(self.stream.findData(key), 0))
        for row in range(self.table.rowCount()):
            item = self.table.item(row, NAME)
            if item is not None and item.data(Qt.ItemDataRole.UserRole) == label:
                self.table.setCurrentCell(row, NAME)

    def fill(self) -> None:
        """Write the list anew; the chosen channel stays the chosen one."""
        strip, chosen, column = self.strip, self.label, max(self.table.currentColumn(), 0)
        self.table.blockSignals(True)
        labels = [strip.labels[at] for at in strip.choices.sorted(strip.labels)] if strip is not None else []
        self.table.setRowCount(len(labels))
        for row, label in enumerate(labels):
            assert strip is not None
            choice = strip.choices.of(label)
            for place, (text, ticked) in enumerate(
                ((look.plain(label, 16), choice.shown), (f"×{choice.gain:g}", None), ("", choice.bad))
            ):
                item = QTableWidgetItem(text)
                item.setFlags(Qt.ItemFlag.ItemIsEnabled | Qt.ItemFlag.ItemIsSelectable)
                if ticked is not None:
                    item.setFlags(item.flags() | Qt.ItemFlag.ItemIsUserCheckable)
                    item.setCheckState(Qt.CheckState.Checked if ticked else Qt.CheckState.Unchecked)
                item.setData(Qt.ItemDataRole.UserRole, label)
                self.table.setItem(row, place, item)
            if label == chosen:
                self.table.setCurrentCell(row, column)
        self.table.blockSignals(False)

    def ticked(self, item: QTableWidgetItem) -> None:
        """A box was ticked with the mouse."""
        strip, label = self.strip, item.data(Qt.ItemDataRole.UserRole)
        if strip is None or not isinstance(label, str):
            return
        on = item.checkState() == Qt.CheckState.Checked
        choice = strip.choices.of(label)
        if item.column() == NAME:
            choice.shown = on
        elif item.column() == BAD:
            choice.bad = on
        self.changed.emit(strip.stream.key)

    def do(self, what: str) -> None:
        """What a button or a key asks for, with the chosen channel."""
        strip, label = self.strip, self.label
        if strip is None:
            return
        choices = strip.choices
        if what == "all":
            for choice in choices.channels.values():
                choice.shown = True
        elif what == "reset":
            choices.channels.clear()
            choices.order.clear()
        elif label is None:
            return
        elif what in ("up", "down"):
            order = [strip.labels[at] for at in choices.sorted(strip.labels)]
            at = order.index(label)
            to = min(max(at + (1 if what == "down" else -1), 0), len(order) - 1)
            order.insert(to, order.pop(at))
            choices.order = order
        elif what in ("higher", "lower"):
            choice = choices.of(label)
            step = GAINS.index(choice.gain) if choice.gain in GAINS else GAINS.index(1.0)
            choice.gain = GAINS[min(max(step + (1 if what == "higher" else -1), 0), len(GAINS) - 1)]
        elif what == "bad" or (what == "toggle" and self.table.currentColumn() == BAD):
            choices.of(label).bad = not choices.of(label).bad
        elif what == "toggle":
            choices.of(label).shown = not choices.of(label).shown
        self.fill()
        self.changed.emit(strip.stream.key)

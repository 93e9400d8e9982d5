"""The signals: EEG stacked, ECG and others below, all on one time axis that scrolls or is swept over.

They are drawn as they come. The engine draws EEG against another reference, or repaired, when this panel asks for it;
the panel says in words what is drawn. The picture can be held and moved through the whole session while that goes on.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Sequence
from typing import ClassVar

from PySide6.QtCore import QEvent, QObject, QPointF, Qt
from PySide6.QtGui import QKeyEvent, QKeySequence, QMouseEvent, QShortcut, QWheelEvent
from PySide6.QtWidgets import QAbstractSlider, QComboBox, QHBoxLayout, QScrollBar, QWidget

from devices.api import StreamInfo
from gui import look, plots, remember
from gui.channels import ChannelList
from gui.history import Moments
from gui.strip import MARGIN, MOST_CHANNELS, Channel, Strip, View, written
from realtime.api import (
    Beats,
    Body,
    Cleared,
    Command,
    Ended,
    Estimated,
    Health,
    Hello,
    Marked,
    SetDisplay,
    Shown,
    Traces,
    Update,
)
from realtime.rereference import SCHEMES, allowed

TIMEBASES = (1, 2, 5, 10, 20, 30, 60)
ZOOMS = tuple(2.0**power for power in range(-4, 5))
"""Of all channels, beside the scale of each kind."""
MOST_MARKS = 5000
UNTOUCHED = "The record, the model, the quality and the rhythms take the signals as they came."
TENTHS = 10
"""Steps of the bar under the signals in a second."""


def fingerprint(stream: StreamInfo) -> str:
    """Under what the choices for its channels are remembered: another headset of the same channels has them too."""
    return f"{zlib.crc32(chr(0).join((stream.kind, *stream.channels)).encode()):08x}"


class Timeline(QScrollBar):
    """What part of the session is seen. Left and Page Up go back in time, which no setting of Qt's own bar gives."""

    STEPS: ClassVar = {
        Qt.Key.Key_Left: QAbstractSlider.SliderAction.SliderSingleStepSub,
        Qt.Key.Key_Right: QAbstractSlider.SliderAction.SliderSingleStepAdd,
        Qt.Key.Key_PageUp: QAbstractSlider.SliderAction.SliderPageStepSub,
        Qt.Key.Key_PageDown: QAbstractSlider.SliderAction.SliderPageStepAdd,
    }

    def __init__(self) -> None:
        super().__init__(Qt.Orientation.Horizontal)
        self.setFocusPolicy(Qt.FocusPolicy.StrongFocus)

    def keyPressEvent(self, event: QKeyEvent) -> None:  # noqa: N802
        action = self.STEPS.get(Qt.Key(event.key()))
        if action is None:
            super().keyPressEvent(event)
        else:
            self.triggerAction(action)


class Panel(look.Card):
    place = "left"
    order = 0
    stretch = 1

    def __init__(self, send: Callable[[Command], None]) -> None:
        super().__init__("Signals", send)
        self.caption = look.label("unfiltered, centred", "muted", shrink=True)
        self.caption.setToolTip("No filter; every channel is moved up or down so that its middle lies on its row")
        self.bar.insertWidget(1, self.caption)
        self.make_bar()
        self.body.addWidget(self.make_choices())
        across = QHBoxLayout()
        across.setSpacing(8)
        self.area = plots.layout()
        self.area.viewport().installEventFilter(self)
        self.channels = ChannelList()
        self.channels.changed.connect(self.rearrange)
        self.channels.hide()
        across.addWidget(self.area, 1)
        across.addWidget(self.channels)
        self.body.addLayout(across, 1)
        self.body.addLayout(self.make_foot())
        self.strips: dict[str, Strip] = {}
        self.lines: list[plots.Marks] = []
        self.marks: Moments[str] = Moments(MOST_MARKS)
        self.start = 0.0
        self.used: tuple[tuple[str, str], ...] = ()
        """(kind, stream) of what feeds the model: the verdicts are about its channels."""
        self.eeg = ""
        """The one that feeds it with EEG."""
        self.heads: list[StreamInfo] = []
        """Those of EEG."""
        self.fitted = -math.inf
        self.zoom = 1.0
        self.held: float | None = None
        """Session clock of the right end of a picture that is held; None: the newest samples."""
        self.recording = False
        self.redo = True
        """Whether a held picture has to be drawn anew."""
        self.base = 0.0
        """Session clock at the left end of the bar."""
        self.recalled = False
        self.recall()
        for keys, does in (
            (("F",), self.toggle_hold),
            (("S",), self.sweep.click),
            (("C",), self.listing.click),
            (("A",), self.fit_all),
            (("+", "="), lambda: self.change_zoom(1)),
            (("-",), lambda: self.change_zoom(-1)),
        ):
            for key in keys:
                shortcut = QShortcut(QKeySequence(key), self)
                shortcut.activated.connect(does)

    # -- controls ----------------------------------------------------------------------------------------------------

    def make_bar(self) -> None:
        """How much is seen, how high, and how it moves."""
        self.timebase = QComboBox()
        for seconds in TIMEBASES:
            self.timebase.addItem(f"{seconds} s", seconds)
        self.timebase.setCurrentIndex(TIMEBASES.index(10))
        self.timebase.setAccessibleName("Seconds shown")
        self.timebase.setToolTip("Seconds on the screen (Ctrl and wheel)")
        self.timebase.currentIndexChanged.connect(self.keep)
        self.sweep = look.Switch("Sweep")
        self.sweep.setToolTip("Write over the oldest samples from left to right instead of scrolling (S)")
        self.sweep.clicked.connect(self.keep)
        self.bar.addWidget(look.label("Show", "muted"))
        self.bar.addWidget(self.timebase)
        self.bar.addWidget(self.sweep)
        self.gains: dict[str, QComboBox] = {}
        for kind, title, steps in (
            ("eeg", "EEG scale", (5, 10, 20, 50, 100, 200, 500, 1000)),
            ("ecg", "ECG scale", (100, 200, 500, 1000, 2000, 5000)),
        ):
            box = QComboBox()
            box.addItem("auto", None)
            for step in steps:
                box.addItem(written(step, "µV"), float(step))
            box.setAccessibleName(title)
            box.setToolTip(f"{kind.upper()}: how many microvolts are as high as a row; auto follows the signals")
            box.currentIndexChanged.connect(self.set_gains)
            self.bar.addWidget(look.label(kind.upper(), "muted"))
            self.bar.addWidget(box)
            self.gains[kind] = box
        self.halve, self.double, self.auto = look.Button("−"), look.Button("+"), look.Button("Auto")
        for button, meaning, does in (
            (self.halve, "Draw all signals half as high (− key)", lambda: self.change_zoom(-1)),
            (self.double, "Draw all signals twice as high (+ key)", lambda: self.change_zoom(1)),
            (self.auto, "Fit the height of all signals to what is seen (A)", self.fit_all),
        ):
            button.setToolTip(meaning)
            button.setAccessibleName(meaning)
            button.clicked.connect(lambda _checked=False, does=does: does())
            self.bar.addWidget(button)

    def make_choices(self) -> QWidget:
        """Which channels, what EEG is drawn against and whether it is repaired, with words beside it."""
        self.choices = QWidget()
        self.choices.setObjectName("bare")
        row = QHBoxLayout(self.choices)
        row.setContentsMargins(0, 0, 0, 0)
        row.setSpacing(8)
        self.listing = look.Button("Channels")
        self.listing.setCheckable(True)
        self.listing.setToolTip("Hide, reorder, enlarge or mark channels (C)")
        self.listing.toggled.connect(self.list_channels)
        self.waves = look.Switch("P QRS T")
        self.waves.setChecked(True)
        self.waves.setToolTip(
            "Bars below the ECG: P, QRS and T from onset to offset, in this order, as they were found"
        )
        self.waves.toggled.connect(self.touch)
        self.waves.hide()
        self.reference_title = look.label("Reference", "muted")
        self.reference = QComboBox()
        self.reference.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToContents)
        self.reference.setAccessibleName("Reference of the EEG that is drawn")
        self.reference.setToolTip(f"What the EEG is drawn against. {UNTOUCHED}")
        self.reference.activated.connect(self.ask)
        self.repair = look.Switch("Repair for the eye")
        self.repair.setToolTip(f"Draw the EEG without blinks and with bad channels interpolated. {UNTOUCHED}")
        self.repair.clicked.connect(self.ask)
        self.said = look.label("", "muted", wrap=True)
        for widget in (self.listing, self.waves, self.reference_title, self.reference, self.repair):
            row.addWidget(widget)
        row.addWidget(self.said, 1)
        return self.choices

    def make_foot(self) -> QHBoxLayout:
        """Hold the picture, and go through the session."""
        row = QHBoxLayout()
        row.setSpacing(8)
        self.hold = look.Button("Hold")
        self.hold.setMinimumWidth(104)
        self.hold.setToolTip("Hold the picture while the session goes on, and go back to now (F)")
        self.hold.clicked.connect(self.toggle_hold)
        self.past = Timeline()
        self.past.setAccessibleName("Part of the session that is seen")
        self.past.setToolTip(
            "Back through the session: drag, arrow keys, Page Up and Page Down, Home; End is now. "
            "Over the signals: swipe or wheel sideways, or wheel with Shift"
        )
        self.past.valueChanged.connect(self.go)
        self.where = look.label("", "muted", shrink=True)
        row.addWidget(self.hold)
        self.past.setMinimumWidth(120)
        row.addWidget(self.past, 1)
        row.addWidget(self.where)
        return row

    def recall(self) -> None:
        """As it was last time."""
        seconds = remember.recall("signals/seconds", 10)
        self.timebase.setCurrentIndex(max(self.timebase.findData(seconds), 0))
        self.sweep.setChecked(remember.recall("signals/sweep", False))
        for kind, scale in remember.recall("signals/scales", {}).items():
            if kind in self.gains and isinstance(scale, float):
                self.gains[kind].setCurrentIndex(max(self.gains[kind].findData(scale), 0))
        self.listing.setChecked(remember.recall("signals/list", False))
        self.recalled = True

    def keep(self) -> None:
        """Remember what was chosen, and draw it."""
        if self.recalled:
            remember.keep("signals/seconds", int(self.timebase.currentData()))
            remember.keep("signals/sweep", self.sweep.isChecked())
            remember.keep("signals/scales", {kind: box.currentData() for kind, box in self.gains.items()})
        self.touch()

    def list_channels(self, on: bool) -> None:
        """Show the list of channels, or not."""
        self.channels.setVisible(on)
        if on:
            self.channels.table.setFocus()
        remember.keep("signals/list", on)
        self.touch()

    def touch(self) -> None:
        self.fitted = -math.inf
        self.redo = True
        self.dirty = True

    def set_gains(self) -> None:
        """Take over the scales that were chosen."""
        for strip in self.strips.values():
            box = self.gains.get(strip.stream.kind)
            chosen = box.currentData() if box else None
            strip.fixed = chosen is not None
            strip.zoom = self.zoom
            if chosen is not None:
                strip.scale = float(chosen)
            strip.named = -1.0
        self.keep()

    def change_zoom(self, steps: int) -> None:
        """Draw all signals higher or lower."""
        place = ZOOMS.index(self.zoom) + steps
        self.zoom = ZOOMS[min(max(place, 0), len(ZOOMS) - 1)]
        self.set_gains()

    def fit_all(self) -> None:
        """Fit all heights to what is seen."""
        self.zoom = 1.0
        for box in self.gains.values():
            box.setCurrentIndex(0)
        self.set_gains()

    # -- channels ----------------------------------------------------------------------------------------------------

    def rearrange(self, key: str) -> None:
        """Other rows were chosen for a stream."""
        strip = self.strips[key]
        strip.arrange()
        self.keep_channels(strip)
        self.share_height()
        self.say()
        self.touch()

    def keep_channels(self, strip: Strip) -> None:
        """Remember hidden rows, order and gains for every session; what was marked bad for this one alone."""
        choices, name = strip.choices, fingerprint(strip.stream)
        rows = {label: [one.shown, one.gain] for label, one in choices.channels.items() if one != Channel(bad=one.bad)}
        remember.keep(f"channels/{name}", {"rows": rows, "order": choices.order})
        marked = [label for label, one in choices.channels.items() if one.bad]
        remember.keep(f"marked/{name}", {"session": self.start, "stream": strip.stream.key, "labels": marked})

    def recall_channels(self, strip: Strip) -> None:
        """What was chosen for a stream like this one."""
        choices, name = strip.choices, fingerprint(strip.stream)
        kept = remember.recall(f"channels/{name}", {})
        order, rows = kept.get("order"), kept.get("rows")
        choices.order = [label for label in order if isinstance(label, str)] if isinstance(order, list) else []
        for label, row in rows.items() if isinstance(rows, dict) else ():
            match row:
                case [bool(shown), float(gain) | int(gain)] if 0.01 <= gain <= 100:
                    choices.channels[label] = Channel(shown, float(gain))
        # Another person may sit there next time.
        marked = remember.recall(f"marked/{name}", {})
        if marked.get("session") == self.start and marked.get("stream") == strip.stream.key:
            for label in marked.get("labels", ()):
                choices.of(str(label)).bad = True
        strip.arrange()

    def share_height(self) -> None:
        """Strips are as high as they have rows."""
        for row, strip in enumerate(self.strips.values()):
            self.area.ci.layout.setRowStretchFactor(row, 2 + min(len(strip.drawn), 24))

    # -- what is drawn, in words -------------------------------------------------------------------------------------

    def ask(self) -> None:
        """Ask the engine to draw what is chosen."""
        self.send(SetDisplay(self.reference.currentText(), self.repair.isChecked()))

    def offer(self, streams: Sequence[StreamInfo]) -> None:
        """Offer the references that at least one stream of EEG allows; nothing without EEG."""
        self.heads = [stream for stream in streams if stream.rate > 0 and self.is_eeg(stream)]
        possible = {scheme for stream in self.heads for scheme in allowed(stream.channels)}
        self.reference.clear()
        self.reference.addItems([scheme for scheme in SCHEMES if scheme in possible])
        self.repair.setChecked(False)
        for widget in (self.reference_title, self.reference, self.repair):
            widget.setEnabled(True)
            widget.setVisible(bool(self.heads))
        self.say()

    def is_eeg(self, stream: StreamInfo) -> bool:
        return stream.kind == "eeg" or stream.key == self.eeg

    def say(self) -> None:
        """In words what is drawn, when it is not everything as it came or that was asked for."""
        shown = [self.strips[stream.key].shown for stream in self.heads if stream.key in self.strips]
        asked = [one for one in shown if one.said]
        altered = any(one.altered for one in asked)
        parts = [look.plain(one.said, 240) for one in asked]
        if len(self.heads) > 1:
            parts = [f"{look.plain(one.stream, 24)}: {part}" for one, part in zip(asked, parts, strict=True)]
        lead = "Not as recorded, for the eye only: " if altered else "Drawn as recorded: "
        words = [lead + "; ".join(parts) + "."] if parts else []
        marked, hidden, beyond = [], 0, []
        for strip in self.strips.values():
            marked += [
                name for name, label in zip(strip.names, strip.labels, strict=True) if strip.choices.of(label).bad
            ]
            hidden += len(strip.labels) - len(strip.drawn)
            if len(strip.shown.labels) > MOST_CHANNELS:
                beyond.append(
                    f"{look.plain(strip.stream.key, 24)}: the first {MOST_CHANNELS} of "
                    f"{len(strip.shown.labels)} channels are drawn."
                )
        if marked:
            more = f" and {len(marked) - 6} more" if len(marked) > 6 else ""
            words.append(f"⊗ marked bad by hand, for the eye only: {', '.join(marked[:6])}{more}.")
        if hidden:
            words.append(f"{hidden} channel{'s are' if hidden > 1 else ' is'} hidden.")
        words += beyond
        self.said.setText(" ".join(words))
        self.said.setToolTip(f"{self.said.text()} {UNTOUCHED}" if words else "")
        colour = look.theme.other if altered else look.theme.muted
        self.said.setStyleSheet(f"color: {colour};")
        self.caption.setText("not as recorded" if altered else "unfiltered, centred")

    # -- messages ----------------------------------------------------------------------------------------------------

    def apply(self, update: Update) -> None:
        match update:
            case Hello(streams=streams, start=start, used=used):
                self.start = start
                self.used = used
                self.eeg = dict(used).get("eeg", "")
                self.marks.clear()
                self.held = None
                self.lay_out(streams)
                self.offer(streams)
            case Traces(stream=key, times=times, data=data, gap=gap) if key in self.strips:
                strip = self.strips[key]
                if data.ndim != 2 or data.shape[1] < len(strip.names):
                    return
                strip.append(times, data, gap=gap)
            case Shown(stream=key) if key in self.strips:
                self.strips[key].show(update)
                self.reference.setCurrentText(update.reference)
                self.repair.setChecked(update.repair)
                self.channels.fill()
                self.share_height()
                self.say()
                self.touch()
            case Beats(stream=key, channel=channel, times=times, waves=waves) if key in self.strips:
                for moment in times.tolist():
                    self.strips[key].beats.add(moment, channel)
                for points in waves:
                    self.strips[key].waves.add(float(points[4]), (channel, points))
                self.waves.show()
            case Marked(time=time, label=text):
                self.marks.add(time, look.plain(text, 40))
                self.redo = True
            case Estimated(quality=quality):
                for key, strip in self.strips.items():
                    kinds = [kind for kind, stream in self.used if stream == key]
                    verdicts = [one for kind in kinds for one in quality.get(kind, ())]
                    strip.judge(frozenset(one.channel for one in verdicts if one.level == "bad"))
            case Body(brains=brains):
                fed = {stream for _, stream in self.used}
                for brain in brains:  # what the model does not judge goes by the rules that the rhythms go by
                    if brain.stream in self.strips and brain.stream not in fed:
                        bad = (one.channel for one in brain.verdicts if one.level == "bad")
                        self.strips[brain.stream].judge(frozenset(bad))
            case Health(record=record):
                self.recording = bool(record)
                return
            case Cleared():
                for strip in self.strips.values():
                    strip.forget()
                self.marks.clear()
                self.held = None
            case Ended():
                for widget in (self.reference, self.repair):
                    widget.setEnabled(False)  # nobody is there who could draw anything else
            case _:
                return
        self.dirty = True

    def lay_out(self, streams: Sequence[StreamInfo]) -> None:
        """One plot for each stream of signals: EEG first, ECG next, then the others."""
        self.area.clear()
        self.strips.clear()
        self.lines.clear()
        self.waves.hide()
        order = {"eeg": 0, "ecg": 1}
        signals = sorted((s for s in streams if s.rate > 0 and s.channels), key=lambda s: order.get(s.kind, 2))
        for row, stream in enumerate(signals):
            plot = self.area.addPlot(row=row, col=0)
            plots.prepare(plot)
            plot.showGrid(x=True, y=False, alpha=0.12)
            plot.getAxis("left").setWidth(72)
            plot.getAxis("left").setTextPen(look.theme.text)
            last = row == len(signals) - 1
            strip = Strip(stream, plot)
            plots.tell_time(plot.getAxis("bottom"), strip.when)
            plot.getAxis("bottom").setStyle(showValues=last)
            plot.getAxis("bottom").setHeight(24 if last else 3)
            self.recall_channels(strip)
            self.strips[stream.key] = strip
            self.lines.append(plots.Marks(plot))
        self.share_height()
        self.channels.offer(self.strips)
        self.set_gains()

    # -- going back --------------------------------------------------------------------------------------------------

    @property
    def newest(self) -> float:
        """Session clock of the newest samples."""
        newest = [strip.history.newest for strip in self.strips.values() if math.isfinite(strip.history.newest)]
        return max(newest, default=self.start + self.seconds)

    @property
    def oldest(self) -> float:
        """Of the oldest ones that were kept."""
        oldest = [strip.oldest for strip in self.strips.values() if math.isfinite(strip.oldest)]
        return min(oldest, default=self.start)

    @property
    def seconds(self) -> float:
        return float(self.timebase.currentData())

    def toggle_hold(self) -> None:
        """Hold the picture, or go back to now."""
        self.look_at(self.newest if self.held is None else None)
        if self.held is not None:
            self.past.setFocus()  # the arrow keys go through the session at once

    def look_at(self, right: float | None) -> None:
        """Show what was there until ``right`` on the session clock, or what comes now."""
        if right is not None:
            right = min(max(right, self.oldest + self.seconds), self.newest)
        self.held = right
        self.touch()

    def go(self, value: int) -> None:
        """The bar was moved: at its right end the picture follows the session again."""
        self.look_at(self.base + value / TENTHS + self.seconds if value < self.past.maximum() else None)

    def go_by(self, seconds: float) -> None:
        """Go by so much; beyond the newest samples is now."""
        right = (self.newest if self.held is None else self.held) + seconds
        self.look_at(right if right < self.newest else None)

    def eventFilter(self, watched: QObject, event: QEvent) -> bool:  # noqa: N802
        """Wheel and trackpad over the signals; a click on a row goes to it in the list of channels."""
        if isinstance(event, QWheelEvent):
            return self.wheel(event)
        released = event.type() == QEvent.Type.MouseButtonRelease
        if released and isinstance(event, QMouseEvent) and self.channels.isVisible():
            self.choose_at(event.position())
        return super().eventFilter(watched, event)

    def wheel(self, event: QWheelEvent) -> bool:
        turned, exact = event.angleDelta(), event.pixelDelta()
        if event.modifiers() & Qt.KeyboardModifier.ControlModifier:
            step = (turned.y() < 0) - (turned.y() > 0)
            self.timebase.setCurrentIndex(min(max(self.timebase.currentIndex() + step, 0), len(TIMEBASES) - 1))
            return True
        across, pixels = turned.x(), exact.x()
        if event.modifiers() & Qt.KeyboardModifier.ShiftModifier and not across:
            across, pixels = turned.y(), exact.y()
        if not across and not pixels:
            return False
        width = max(self.area.width() - MARGIN, 100.0)
        self.go_by(-self.seconds * (pixels / width if pixels else across / 1200))
        return True

    def choose_at(self, position: QPointF) -> None:
        at = self.area.mapToScene(position.toPoint())
        for key, strip in self.strips.items():
            if strip.plot.sceneBoundingRect().contains(at):
                column = strip.row_at(strip.plot.getViewBox().mapSceneToView(at).y())
                if column >= 0:
                    self.channels.choose(key, strip.labels[column])

    def tell_where(self, view: View) -> None:
        """The bar, and in words what part of the session is seen."""
        newest, oldest = self.newest, self.oldest
        if not self.past.isSliderDown():
            self.base = oldest
            self.past.blockSignals(True)
            self.past.setRange(0, max(0, math.ceil((newest - oldest - view.seconds) * TENTHS)))
            self.past.setPageStep(max(1, round(view.seconds * TENTHS)))
            self.past.setSingleStep(max(1, round(view.seconds * TENTHS / 5)))
            right = (view.now - view.seconds - oldest) * TENTHS
            self.past.setValue(self.past.maximum() if self.held is None else min(round(right), self.past.maximum() - 1))
            self.past.blockSignals(False)
        self.hold.setText("Hold (F)" if self.held is None else "Back to now (F)")
        if self.held is None:
            words = "now"
            if oldest > self.start + 1.0 and newest - oldest > view.seconds:
                words = f"now; what came since {look.clock(oldest - self.start)} can be seen again"
        else:
            low, high = (look.clock(time - self.start) for time in (max(view.oldest, self.start), view.now))
            on = "recording goes on" if self.recording else "the session goes on"
            words = f"Held at {low} to {high}; {on}, now {look.clock(newest - self.start)}"
            grain = max(strip.history.grain(view.oldest) for strip in self.strips.values())
            if grain:
                words += f"; so long ago: smallest and largest value of each {1000 * grain:.0f} ms"
        if self.where.text() != words:
            self.where.setText(words)
            self.where.setToolTip(words if self.held is None else f"{words}. The signs beside the names are of now")
            self.where.setStyleSheet("" if self.held is None else f"color: {look.theme.accent}; font-weight: 600;")

    def refresh(self) -> None:
        if not self.dirty or not self.strips:
            return
        self.dirty = False
        look.fit_height(self.said)
        now = self.newest if self.held is None else self.held
        view = View(self.start, now, self.seconds, sweep=self.sweep.isChecked() and self.held is None)
        self.tell_where(view)
        if self.held is not None and not self.redo:
            return
        self.redo = False
        fit = abs(now - self.fitted) >= 1.0
        if fit:
            self.fitted = now
        marks = sorted((view.x(time), text) for time, text in self.marks.between(view.oldest, view.now))
        for index, strip in enumerate(self.strips.values()):
            width = strip.plot.getViewBox().width()
            strip.draw(view, fit=fit, waves=self.waves.isChecked())
            texts = marks if index == 0 else [(time, "") for time, _ in marks]
            self.lines[index].show(texts, view.left, view.right, strip.high, width - MARGIN)

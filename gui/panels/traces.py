"""The signals: EEG stacked, ECG and others below, all on one scrolling time axis.

They are drawn as they come. The engine draws EEG against another reference, or repaired, when this panel asks for it;
the panel says in words what is drawn.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Sequence

import numpy as np
import pyqtgraph as pg
from numpy.typing import NDArray
from PySide6.QtWidgets import QComboBox, QHBoxLayout, QWidget

from devices.api import StreamInfo
from gui import look, plots
from gui.history import History, stacked
from realtime.api import (
    Beats,
    Body,
    Cleared,
    Command,
    Ended,
    Estimated,
    Hello,
    Marked,
    SetDisplay,
    Shown,
    Traces,
    Update,
)
from realtime.rereference import SCHEMES, allowed

KEEP = 90.0
"""Seconds of every stream that stay in memory."""
MOST_POINTS = 500.0
"""Points a second and channel that are expected at most: the engine thins faster streams out."""
MOST_CHANNELS = 64
TIMEBASES = (1, 2, 5, 10, 20, 30, 60)
STEPS = tuple(m * 10.0**e for e in range(-3, 6) for m in (1.0, 2.0, 5.0))
MICROVOLTS = {"uv": 1.0, "µv": 1.0, "microvolts": 1.0, "mv": 1e3, "millivolts": 1e3, "v": 1e6, "volts": 1e6}
MOST_BEATS = 400
"""More than a strip of 60 s can have."""
UNTOUCHED = "The record, the model, the quality and the rhythms take the signals as they came."
MARGIN = 66.0
"""Pixels right of the newest sample, for the scale bar."""


def nice(value: float) -> float:
    """The first of 1, 2, 5, 10, ... that is not below ``value``."""
    return next((step for step in STEPS if step >= value), STEPS[-1])


def written(value: float, unit: str) -> str:
    """A scale in words: 50 µV, 1 mV, 2 V."""
    if unit == "µV" and value >= 1e6:
        value, unit = value / 1e6, "V"
    elif unit == "µV" and value >= 1000:
        value, unit = value / 1000, "mV"
    return f"{value:g} {unit}".strip()


class Strip:
    """One stream's plot: every channel a row, a scale bar at the right."""

    def __init__(self, stream: StreamInfo, plot: pg.PlotItem) -> None:
        self.stream = stream
        self.plot = plot
        self.shown = Shown(stream.key, stream.channels)
        factor = MICROVOLTS.get(stream.unit.strip().lower())
        self.factor = factor or 1.0
        self.unit = "µV" if factor else look.plain(stream.unit, 8)
        self.scale = 50.0 if stream.kind == "eeg" else 1000.0
        self.fixed = False
        self.poor: frozenset[int] = frozenset()
        self.colour = {"eeg": look.theme.eeg, "ecg": look.theme.ecg}.get(stream.kind, look.theme.other)
        self.curve = pg.PlotCurveItem(pen=pg.mkPen(self.colour, width=1), antialias=True)
        self.poor_curve = pg.PlotCurveItem(pen=pg.mkPen(look.theme.bad, width=1), antialias=True)
        self.beats: deque[tuple[float, str]] = deque(maxlen=MOST_BEATS)
        self.ticks = pg.PlotCurveItem(pen=pg.mkPen(look.theme.text, width=2), connect="pairs")
        self.waves: deque[tuple[str, NDArray[np.float64]]] = deque(maxlen=MOST_BEATS)
        self.wave_bars = [
            pg.PlotCurveItem(pen=pg.mkPen(colour, width=width), connect="pairs")
            for colour, width in ((look.theme.accent, 3), (look.theme.text, 3), (look.theme.good, 3))
        ]
        self.bar = pg.PlotCurveItem(pen=pg.mkPen(look.theme.text, width=2))
        self.bar_text = pg.TextItem(color=look.theme.text, anchor=(0, 0.5))
        self.bar_text.setFont(look.font(12))
        self.note = pg.TextItem("waiting for the first samples", color=look.theme.muted, anchor=(0.5, 0.5))
        self.note.setFont(look.font(13))
        for item in (
            *(self.curve, self.poor_curve, self.ticks, *self.wave_bars),
            *(self.bar, self.bar_text, self.note),
        ):
            plot.addItem(item, ignoreBounds=True)
        self.bad: frozenset[str] = frozenset()
        self.lay_out()

    def lay_out(self) -> None:
        """A row for every channel of what is shown, and nothing in them yet."""
        self.labels = self.shown.labels[:MOST_CHANNELS]
        self.names = [look.plain(name, 12) for name in self.labels]
        rate = min(max(self.stream.rate, 1.0), MOST_POINTS)
        self.history = History(len(self.names), math.ceil(KEEP * rate))
        self.offsets = -np.arange(len(self.names), dtype=np.float64)
        self.low, self.high = (0.2 - len(self.names), 1.2) if len(self.names) > 1 else (-0.75, 1.15)
        self.plot.setYRange(self.low, self.high, padding=0)
        self.name_channels()

    def show(self, shown: Shown) -> None:
        """From here on traces are what ``shown`` says."""
        before, self.shown = self.shown, shown
        if shown.labels != before.labels:
            self.lay_out()
        elif shown.anew:
            self.history.forget()
        self.curve.setPen(pg.mkPen(look.theme.other if shown.altered else self.colour, width=1))
        self.name_channels()

    def name_channels(self) -> None:
        """Write the channel names, those of poor channels with a cross, of interpolated ones with a wavy sign."""
        made = set(self.shown.interpolated)
        bad = self.bad - made
        self.poor = frozenset(row for row, label in enumerate(self.labels) if not bad.isdisjoint(self.behind(label)))
        every = math.ceil(len(self.names) / 40)
        ticks = []
        for row, name in enumerate(self.names):
            sign = "✕ " if row in self.poor else "" if made.isdisjoint(self.behind(self.labels[row])) else "≈ "
            if row % every == 0:
                ticks.append((-float(row), sign + name))
        self.plot.getAxis("left").setTicks([ticks])

    def behind(self, label: str) -> tuple[str, ...]:
        """The channels that a row is named after: itself, or both of a bipolar pair."""
        channels = self.stream.channels
        if label in channels:
            return (label,)
        pairs = ((label[:at], label[at + 1 :]) for at, sign in enumerate(label) if sign == "-")
        return next((pair for pair in pairs if pair[0] in channels and pair[1] in channels), ())

    def judge(self, bad: frozenset[str]) -> None:
        """Take in which channels are bad."""
        if bad != self.bad:
            self.bad = bad
            self.name_channels()

    def fit(self, rows: NDArray[np.float32]) -> None:
        """Choose the scale from centred ``rows`` (m, channels), changing it only when it is clearly off."""
        if self.fixed or not len(rows):
            return
        with np.errstate(invalid="ignore"):
            spread = np.abs(rows)
        seen = spread[np.isfinite(spread)]
        if not seen.size:
            return
        if len(self.names) > 1:
            heights = np.array([np.quantile(c[np.isfinite(c)], 0.95) if np.isfinite(c).any() else 0 for c in spread.T])
            wanted = 1.3 * float(np.median(heights[heights > 0])) if (heights > 0).any() else 0.0
        else:
            wanted = float(np.quantile(seen, 0.998)) / 1.1
        if wanted > 1.15 * self.scale or 0 < wanted < self.scale / 2.6:
            self.scale = nice(wanted / 1.15)

    def draw(self, now: float, seconds: float, start: float, width: float, *, fit: bool, waves: bool = False) -> None:
        """Draw the last ``seconds`` before ``now`` (session clock); x is seconds since ``start``."""
        times, data = self.history.since(now - seconds, int(max(width, 200)))
        rows = data * np.float32(self.factor)
        self.note.setVisible(not len(rows))
        if len(rows):
            rows = rows - middle(rows)
            if fit:
                self.fit(rows)
        rows = rows / np.float32(self.scale)
        good = [row for row in range(len(self.names)) if row not in self.poor]
        poor = sorted(self.poor)
        for curve, chosen in ((self.curve, good), (self.poor_curve, poor)):
            x, y = stacked(times - start, rows[:, chosen], self.offsets[chosen])
            curve.setData(x, y, connect="finite")
        self.draw_beats(now - seconds, start)
        self.draw_waves(now - seconds, start, shown=waves)
        self.draw_scale(now - start, seconds, width)

    def draw_beats(self, since: float, start: float) -> None:
        """A tick above the lead for every R peak ``since`` then."""
        rows = {name: row for row, name in enumerate(self.labels)}
        shown = [(time - start, rows[channel]) for time, channel in self.beats if time >= since and channel in rows]
        x = np.repeat([time for time, _ in shown], 2)
        # One lead has the strip to itself; among others the tick stands above its row.
        low, high = (1.01, 1.13) if len(self.names) == 1 else (0.32, 0.5)
        y = np.array([(low - row, high - row) for _, row in shown]).reshape(-1)
        self.ticks.setData(x, y)

    def draw_waves(self, since: float, start: float, *, shown: bool) -> None:
        """Bars below the lead from onset to offset of P, QRS and T of every beat ``since`` then."""
        rows = {name: row for row, name in enumerate(self.labels)}
        seen = [(rows[name], points) for name, points in self.waves if shown and points[4] >= since and name in rows]
        points = np.array([one for _, one in seen]).reshape(-1, 9)
        level = (-0.62 if len(self.names) == 1 else -0.4) - np.array([float(row) for row, _ in seen])
        for wave, bars in enumerate(self.wave_bars):
            ends = points[:, [3 * wave, 3 * wave + 2]]
            whole = np.isfinite(ends).all(axis=1)
            bars.setData((ends[whole] - start).reshape(-1), np.repeat(level[whole], 2))

    def draw_scale(self, now: float, seconds: float, width: float) -> None:
        """The bar that says how high a microvolt is."""
        per_px = seconds / max(width - MARGIN, 1.0)
        # Not the row of the last channel: the time axis is there.
        foot = self.offsets[-1] / 2 - 0.5 if len(self.names) > 1 else -0.25
        x = now + 9 * per_px
        self.bar.setData(np.array([x, x]), np.array([foot, foot + 1.0]))
        self.bar_text.setText(written(self.scale, self.unit))
        self.bar_text.setPos(x + 3 * per_px, foot + 0.5)
        self.note.setPos(now - seconds / 2, (self.low + self.high) / 2)


def middle(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    """Middle of every channel of ``rows`` (m, channels), NaN left out; 0 for a channel without a value."""
    finite = np.isfinite(rows)
    if finite.all():
        centre: NDArray[np.float32] = np.median(rows, axis=0)
        return centre
    columns = [np.median(c[ok]) if ok.any() else 0.0 for c, ok in zip(rows.T, finite.T, strict=True)]
    return np.array(columns, np.float32)


class Panel(look.Card):
    place = "left"
    order = 0
    stretch = 1

    def __init__(self, send: Callable[[Command], None]) -> None:
        super().__init__("Signals", send)
        self.caption = look.label("unfiltered, centred for display", "muted", shrink=True)
        self.bar.insertWidget(1, self.caption)
        self.timebase = QComboBox()
        for seconds in TIMEBASES:
            self.timebase.addItem(f"{seconds} s", seconds)
        self.timebase.setCurrentIndex(TIMEBASES.index(10))
        self.timebase.setAccessibleName("Seconds shown")
        self.timebase.currentIndexChanged.connect(self.touch)
        self.waves = look.Switch("P QRS T")
        self.waves.setChecked(True)
        self.waves.setToolTip(
            "Bars below the ECG: P, QRS and T from onset to offset, in this order, as they were found"
        )
        self.waves.toggled.connect(self.touch)
        self.waves.hide()
        self.bar.addWidget(self.waves)
        self.bar.addWidget(look.label("Show", "muted"))
        self.bar.addWidget(self.timebase)
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
            box.currentIndexChanged.connect(self.set_gains)
            self.bar.addWidget(look.label(title, "muted"))
            self.bar.addWidget(box)
            self.gains[kind] = box
        self.body.addWidget(self.make_choices())
        self.area = plots.layout()
        self.body.addWidget(self.area, 1)
        self.strips: dict[str, Strip] = {}
        self.lines: list[plots.Marks] = []
        self.marks: deque[tuple[float, str]] = deque(maxlen=500)
        self.start = 0.0
        self.used: tuple[tuple[str, str], ...] = ()
        """(kind, stream) of what feeds the model: the verdicts are about its channels."""
        self.eeg = ""
        """The one that feeds it with EEG."""
        self.heads: list[StreamInfo] = []
        """Those of EEG."""
        self.fitted = -math.inf

    def make_choices(self) -> QWidget:
        """What EEG is drawn against and whether it is repaired, with words beside it."""
        self.choices = QWidget()
        self.choices.setObjectName("bare")
        row = QHBoxLayout(self.choices)
        row.setContentsMargins(0, 0, 0, 0)
        row.setSpacing(8)
        self.reference = QComboBox()
        self.reference.setAccessibleName("Reference of the EEG that is drawn")
        self.reference.setToolTip(f"What the EEG is drawn against. {UNTOUCHED}")
        self.reference.activated.connect(self.ask)
        self.repair = look.Switch("Repair for the eye")
        self.repair.setToolTip(f"Draw the EEG without blinks and with bad channels interpolated. {UNTOUCHED}")
        self.repair.clicked.connect(self.ask)
        self.said = look.label("", "muted", wrap=True)
        row.addWidget(look.label("Reference", "muted"))
        row.addWidget(self.reference)
        row.addWidget(self.repair)
        row.addWidget(self.said, 1)
        self.choices.hide()
        return self.choices

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
        self.choices.setEnabled(True)
        self.choices.setVisible(bool(self.heads))
        self.say()

    def is_eeg(self, stream: StreamInfo) -> bool:
        return stream.kind == "eeg" or stream.key == self.eeg

    def say(self) -> None:
        """In words what is drawn, when it is not what came or that was asked for."""
        shown = [self.strips[stream.key].shown for stream in self.heads if stream.key in self.strips]
        asked = [one for one in shown if one.said]
        altered = any(one.altered for one in asked)
        parts = [look.plain(one.said, 240) for one in asked]
        if len(self.heads) > 1:
            parts = [f"{look.plain(one.stream, 24)}: {part}" for one, part in zip(asked, parts, strict=True)]
        lead = "Not as recorded, for the eye only: " if altered else "Drawn as recorded: "
        self.said.setText(lead + "; ".join(parts) + "." if parts else "")
        self.said.setToolTip(f"{self.said.text()} {UNTOUCHED}" if parts else "")
        colour = look.theme.other if altered else look.theme.muted
        self.said.setStyleSheet(f"color: {colour};")
        self.caption.setText("not as recorded" if altered else "unfiltered, centred for display")

    def touch(self) -> None:
        self.fitted = -math.inf
        self.dirty = True

    def set_gains(self) -> None:
        """Take over the scales that were chosen."""
        for strip in self.strips.values():
            box = self.gains.get(strip.stream.kind)
            chosen = box.currentData() if box else None
            strip.fixed = chosen is not None
            if chosen is not None:
                strip.scale = float(chosen)
        self.touch()

    def apply(self, update: Update) -> None:
        match update:
            case Hello(streams=streams, start=start, used=used):
                self.start = start
                self.used = used
                self.eeg = dict(used).get("eeg", "")
                self.marks.clear()
                self.lay_out(streams)
                self.offer(streams)
            case Traces(stream=key, times=times, data=data, gap=gap) if key in self.strips:
                strip = self.strips[key]
                if data.ndim != 2 or data.shape[1] < len(strip.names):
                    return
                strip.history.append(times, data[:, : len(strip.names)], gap=gap)
            case Shown(stream=key) if key in self.strips:
                self.strips[key].show(update)
                self.reference.setCurrentText(update.reference)
                self.repair.setChecked(update.repair)
                self.say()
                self.touch()
            case Beats(stream=key, channel=channel, times=times, waves=waves) if key in self.strips:
                self.strips[key].beats.extend((moment, channel) for moment in times.tolist())
                self.strips[key].waves.extend((channel, points) for points in waves)
                self.waves.show()
            case Marked(time=time, label=text):
                self.marks.append((time - self.start, look.plain(text, 40)))
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
            case Cleared():
                for strip in self.strips.values():
                    strip.history.forget()
                    strip.beats.clear()
                    strip.waves.clear()
                self.marks.clear()
            case Ended():
                self.choices.setEnabled(False)  # nobody is there who could draw anything else
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
            plot.getAxis("left").setWidth(64)
            plot.getAxis("left").setTextPen(look.theme.text)
            last = row == len(signals) - 1
            plots.tell_time(plot.getAxis("bottom"))
            plot.getAxis("bottom").setStyle(showValues=last)
            plot.getAxis("bottom").setHeight(24 if last else 3)
            strip = Strip(stream, plot)
            self.strips[stream.key] = strip
            self.lines.append(plots.Marks(plot))
            self.area.ci.layout.setRowStretchFactor(row, 2 + min(len(strip.names), 24))
        self.set_gains()

    def refresh(self) -> None:
        if not self.dirty or not self.strips:
            return
        self.dirty = False
        look.fit_height(self.said)
        seconds = float(self.timebase.currentData())
        newest = [strip.history.newest for strip in self.strips.values() if math.isfinite(strip.history.newest)]
        now = max(newest, default=self.start + seconds)
        fit = abs(now - self.fitted) >= 1.0
        if fit:
            self.fitted = now
        for index, strip in enumerate(self.strips.values()):
            width = strip.plot.getViewBox().width()
            strip.draw(now, seconds, self.start, width, fit=fit, waves=self.waves.isChecked())
            low, high = now - self.start - seconds, now - self.start
            strip.plot.setXRange(low, high + MARGIN * seconds / max(width - MARGIN, 1.0), padding=0)
            texts = self.marks if index == 0 else [(time, "") for time, _ in self.marks]
            self.lines[index].show(texts, low, high, strip.high, width - MARGIN)

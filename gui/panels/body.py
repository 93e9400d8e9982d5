"""Heart and brain: heart rate, its variability with window and beats left out, intervals of the waves, RR intervals,
rhythms (`gui.rhythms`)."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable

import numpy as np
import pyqtgraph as pg
from PySide6.QtCore import Qt
from PySide6.QtWidgets import QGridLayout, QHBoxLayout, QLabel, QVBoxLayout, QWidget

from gui import look, plots
from gui.panels.quality import grade
from gui.rhythms import Rhythms
from models.api import Verdict
from realtime.api import Body, Brain, Cleared, Command, Estimated, Figure, Hello, Update

SHOWN = 120.0
"""Seconds of RR intervals on the screen."""
KEPT = 600
"""RR intervals kept: more than SHOWN seconds of any heart."""
FIGURES = {
    "RMSSD": "How much the RR interval changes from beat to beat",
    "SDNN": "How much the RR intervals of the window differ",
    "LF/HF": "Waves of the RR interval of 0.04 to 0.15 Hz over those of 0.15 to 0.4 Hz, as power",
    "breathing": "Breaths a minute, given where the height of the R waves and the RR intervals say the same",
}
INTERVALS = {
    "PR": "From the begin of P to the begin of QRS",
    "QRS": "Duration of QRS",
    "QT": "From the begin of QRS to the end of T",
    "QTc": "QT divided by the cube root of the RR interval in seconds (Fridericia)",
}
HEIGHT = 264
WIDTH = 312
"""Of the heart's part: window and share of beats left out stand beside each value, in one line."""


def written(figure: Figure) -> str:
    """A value in as many digits as it is worth, with its unit."""
    digits = 0 if abs(figure.value) >= 10 else 1
    return f"{figure.value:.{digits}f} {look.plain(figure.unit, 8)}"


def behind(figure: Figure) -> str:
    """What stands behind a value: its window, and the share of its beats that were left out."""
    if figure.unit == "/min":
        return f"last {figure.seconds:.0f} s"  # breathing is read from all beats
    left_out = f"{100 * figure.corrected:.0f} %" if figure.corrected >= 0.005 or not figure.corrected else "<1 %"
    return f"last {figure.seconds:.0f} s, {left_out} left out"


class Panel(look.Card):
    place = "left"
    order = 1

    def __init__(self, send: Callable[[Command], None]) -> None:
        super().__init__("", send)
        self.setFixedHeight(HEIGHT)
        across = QHBoxLayout()
        across.setSpacing(14)
        self.body.addLayout(across)
        self.heart = QWidget()
        self.heart.setObjectName("bare")
        left = QVBoxLayout(self.heart)
        left.setContentsMargins(0, 0, 0, 0)
        left.setSpacing(2)
        heading = QHBoxLayout()
        heading.setSpacing(8)
        heading.addWidget(look.label("Heart", "heading"))
        self.quality = look.label("", "muted", shrink=True)
        heading.addWidget(self.quality, 1)
        self.interval_beats = look.label("", "muted")
        heading.addWidget(self.interval_beats)
        left.addLayout(heading)
        top = QHBoxLayout()
        top.setSpacing(6)
        self.rate = look.label("–", "big")
        self.rate.setFont(look.font(46, bold=True))
        self.rate.setMinimumWidth(self.rate.fontMetrics().horizontalAdvance("000") + 4)
        self.rate.setAlignment(Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter)
        self.rate.setStyleSheet(f"color: {look.theme.ecg};")
        top.addWidget(self.rate)
        top.addWidget(look.label("bpm", "spread"), 0, Qt.AlignmentFlag.AlignBottom)
        top.addStretch(1)
        waves = QGridLayout()
        waves.setHorizontalSpacing(8)
        waves.setVerticalSpacing(0)
        self.interval_values: dict[str, QLabel] = {}
        for row, name in enumerate(INTERVALS):
            value = look.label("–", "muted")
            value.setStyleSheet(f"color: {look.theme.text};")
            value.setAlignment(Qt.AlignmentFlag.AlignRight)
            waves.addWidget(look.label(name, "muted"), row, 0)
            waves.addWidget(value, row, 1)
            self.interval_values[name] = value
        top.addLayout(waves)
        left.addLayout(top)
        self.grid = QGridLayout()
        self.grid.setHorizontalSpacing(8)
        self.grid.setVerticalSpacing(0)
        self.grid.setColumnStretch(2, 1)
        self.values: dict[str, tuple[QLabel, QLabel]] = {}
        # Of the same width whatever stands in it, or the words beside it would be wrapped anew at every change.
        widest = look.label("–", "heading").fontMetrics().horizontalAdvance("000 ms")
        self.grid.setColumnMinimumWidth(1, widest)
        top_left = Qt.AlignmentFlag.AlignLeft | Qt.AlignmentFlag.AlignTop
        for row, (name, meaning) in enumerate(FIGURES.items()):
            title, value, about = look.label(name), look.label("–", "heading"), look.label("", "muted", wrap=True)
            title.setToolTip(meaning)
            self.grid.addWidget(title, row, 0, top_left)
            self.grid.addWidget(value, row, 1, top_left)
            self.grid.addWidget(about, row, 2)
            self.values[name] = value, about
        left.addLayout(self.grid)
        self.note = look.label("", "muted", wrap=True)
        left.addWidget(self.note)
        left.addStretch(1)
        self.heart.setFixedWidth(WIDTH)
        across.addWidget(self.heart)

        self.area = plots.layout()
        self.plot = self.area.addPlot()
        plots.prepare(self.plot)
        plots.tell_time(self.plot.getAxis("bottom"))
        self.plot.showGrid(x=False, y=True, alpha=0.15)
        self.plot.getAxis("left").setWidth(46)
        self.curve = pg.PlotCurveItem(pen=pg.mkPen(look.theme.ecg, width=1), antialias=True)
        self.dots = pg.ScatterPlotItem(size=4, pen=pg.mkPen(None), brush=pg.mkBrush(look.theme.ecg))
        self.crosses = pg.ScatterPlotItem(symbol="x", size=9, pen=pg.mkPen(None), brush=pg.mkBrush(look.theme.bad))
        for item in (self.curve, self.dots, self.crosses):
            self.plot.addItem(item, ignoreBounds=True)
        middle = QVBoxLayout()
        middle.setSpacing(2)
        self.interval_title = look.label("RR intervals, ms", "heading", shrink=True)
        middle.addWidget(self.interval_title)
        middle.addWidget(self.area, 1)
        self.left_out = look.label("", "muted", shrink=True)
        middle.addWidget(self.left_out)
        self.intervals_box = QWidget()
        self.intervals_box.setObjectName("bare")
        middle.setContentsMargins(0, 0, 0, 0)
        self.intervals_box.setLayout(middle)
        across.addWidget(self.intervals_box, 4)

        self.brain = Rhythms(self.touch)
        across.addWidget(self.brain, 5)

        self.start = 0.0
        self.has_ecg = False
        self.newest: Body | None = None
        self.verdict: Verdict | None = None
        self.poor: frozenset[str] = frozenset()
        """Channels of EEG that the model found bad."""
        self.eeg = ""
        """The stream that they are of."""
        self.brains: tuple[Brain, ...] = ()
        self.intervals: deque[tuple[float, float, bool]] = deque(maxlen=KEPT)
        self.limits = (500.0, 1200.0)

    def apply(self, update: Update) -> None:
        match update:
            case Hello(streams=streams, start=start, used=used):
                self.start = start
                self.eeg = dict(used).get("eeg", "")
                kinds = {stream.kind for stream in streams if stream.rate}
                labels = [label.upper() for stream in streams if stream.rate for label in stream.channels]
                self.has_ecg = "ecg" in kinds or any("ECG" in label or "EKG" in label for label in labels)
                self.setVisible(bool(kinds & {"eeg", "ecg"}))
                self.forget()
            case Body():
                self.newest = update
                self.brains = update.brains or self.brains  # the last second of a session, cut short, has none
                if self.intervals and update.time - self.start < self.intervals[-1][0] - 60.0:
                    self.intervals.clear()  # the clock was set back
                for time, seconds, normal in update.intervals.tolist():
                    self.intervals.append((time - self.start, 1000 * seconds, bool(normal)))
            case Estimated(quality=quality):
                self.verdict = min(quality.get("ecg", ()), key=lambda one: one.score, default=None)
                self.poor = frozenset(one.channel for one in quality.get("eeg", ()) if one.level == "bad")
            case Cleared():
                self.forget()
            case _:
                return
        self.dirty = True

    def forget(self) -> None:
        self.newest = None
        self.verdict = None
        self.poor = frozenset()
        self.brains = ()
        self.intervals.clear()

    def refresh(self) -> None:
        if not self.dirty:
            return
        self.dirty = False
        self.write_heart()
        self.draw_intervals()
        self.brain.setVisible(bool(self.brains) or self.newest is None)
        first = self.brains[0] if self.brains else None
        self.brain.write(first, self.poor if first is not None and first.stream == self.eeg else frozenset())

    def write_heart(self) -> None:
        newest = self.newest
        no_ecg = newest is not None and not newest.ecg
        self.intervals_box.setVisible(not no_ecg)
        figures = newest.heart if newest is not None else {}
        rate = figures.get("HR")
        given = rate is not None and math.isfinite(rate.value)
        self.rate.setText(f"{rate.value:.0f}" if rate is not None and given else "–")
        self.write_quality()
        for name, (value, about) in self.values.items():
            figure = figures.get(name)
            if figure is None:
                value.setText("–")
                about.setText("")
            elif math.isfinite(figure.value):
                value.setText(written(figure))
                about.setText(behind(figure))
            else:
                value.setText("–")
                same = rate is not None and figure.reason == rate.reason  # said once, below
                about.setText("" if same else look.plain(figure.reason, 90))
            about.setToolTip(about.text().replace("left out", "of the beats left out"))
        withheld = self.write_waves(figures)
        if newest is None:
            said = "no beats yet" if self.has_ecg else "no ECG: no stream carries it"
        elif newest.reason:
            said = look.plain(newest.reason, 90)
        elif rate is not None and not given:
            said = look.plain(rate.reason, 90)
        elif newest.remark or not all(math.isfinite(figures[name].value) for name in FIGURES if name in figures):
            said = look.plain(newest.remark, 120)
        else:
            said = look.plain(withheld, 90)
        self.note.setText(said)
        self.note.setVisible(bool(said))
        for _, about in self.values.values():
            look.fit_height(about)
        look.fit_height(self.note)

    def write_quality(self) -> None:
        """How good the ECG is by the last window that was judged; without a model nobody judges."""
        if self.verdict is None:
            self.quality.setText("")
            self.quality.setToolTip("")
            return
        sign, word, colour = grade(self.verdict)
        reason = look.plain(self.verdict.reason, 60)
        said = f"{sign} ECG {word}"
        said = f"{said}: {reason}" if reason else said
        self.quality.setText(said)
        self.quality.setToolTip(said)
        self.quality.setStyleSheet(f"color: {colour};")

    def write_waves(self, figures: dict[str, Figure]) -> str:
        """Write the intervals of the waves; why the first that is withheld is."""
        reasons = []
        for name, label in self.interval_values.items():
            figure = figures.get(name)
            given = figure is not None and math.isfinite(figure.value)
            label.setText(f"{figure.value:.0f}" if figure is not None and given else "–")
            about = INTERVALS[name]
            if figure is not None:
                reason = look.plain(figure.reason, 120)
                about += f": {reason}" if reason else f": median of {figure.beats} beats, {behind(figure)}"
                reasons += [reason if name in reason else f"{name}: {reason}"] if reason else []
            label.setToolTip(about)
        beats = max((one.beats for name in INTERVALS if (one := figures.get(name)) is not None), default=0)
        self.interval_beats.setText(f"ms, {beats} beats" if beats else "")
        return reasons[0] if reasons else ""

    def draw_intervals(self) -> None:
        now = self.newest.time - self.start if self.newest is not None else SHOWN
        low = max(0.0, now - SHOWN)
        recent = np.array([one for one in self.intervals if low <= one[0] <= now]).reshape(-1, 3)
        normal = recent[:, 2] > 0
        out = recent[~normal & np.isfinite(recent[:, 1])]
        line = np.where(normal, recent[:, 1], np.nan)
        self.curve.setData(recent[:, 0], line, connect="finite")
        self.dots.setData(recent[normal, 0], recent[normal, 1])
        self.plot.setXRange(low, low + SHOWN, padding=0)
        if normal.any():
            floor, top = 50 * math.floor(np.nanmin(line) / 50 - 0.5), 50 * math.ceil(np.nanmax(line) / 50 + 0.5)
            if floor < self.limits[0] or top > self.limits[1] or top - floor < 0.5 * (self.limits[1] - self.limits[0]):
                self.limits = floor, top  # changed only when it is clearly off: nothing jumps with every beat
        floor, room = self.limits[0], self.limits[1] - self.limits[0]
        self.crosses.setData(out[:, 0], np.clip(out[:, 1], floor + 0.04 * room, floor + 0.96 * room))
        self.plot.setYRange(*self.limits, padding=0.02)
        count = len(out)
        said = f"✕ {count} interval{'' if count == 1 else 's'} left out of the figures" if count else ""
        self.left_out.setText(said)

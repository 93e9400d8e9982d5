"""What the model says: the newest estimate large, all over time with their uncertainty, and why there is none."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pyqtgraph as pg
from numpy.typing import NDArray
from PySide6.QtCore import Qt
from PySide6.QtWidgets import QGraphicsPathItem, QHBoxLayout, QLabel, QVBoxLayout, QWidget

from gui import look, plots
from models.api import Estimate
from realtime.api import Cleared, Command, Estimated, Hello, Marked, ModelCard, Update

MOST_POINTS = 2000
"""Estimates drawn at most; a longer session is thinned out for the eye."""


@dataclass(slots=True)
class Stretch:
    """Time without an estimate, and why."""

    start: float
    stop: float
    reason: str
    """As first said."""
    kind: str
    """The reason without its numbers: "resting baseline: # s left" counts down, but is one stretch."""

    @property
    def words(self) -> str:
        return self.reason if self.kind == self.reason else self.reason.split(":")[0]


class Series:
    """Every estimate of a session: time, mean and sd of each target, in arrays that grow by doubling."""

    def __init__(self, targets: int) -> None:
        self.count = 0
        self.rows = np.empty((256, 1 + 2 * targets))

    def append(self, time: float, mean: NDArray[np.float64], sd: NDArray[np.float64]) -> None:
        if self.count == len(self.rows):
            self.rows = np.concatenate([self.rows, np.empty_like(self.rows)])
        self.rows[self.count] = np.concatenate([[time], mean, sd])
        self.count += 1

    def target(self, index: int) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
        """Times, means and sds of one target, thinned out for the eye."""
        rows = self.rows[: self.count : 1 + self.count // MOST_POINTS]
        return rows[:, 0], rows[:, 1 + index], rows[:, 1 + (rows.shape[1] - 1) // 2 + index]


def band(times: NDArray[np.float64], low: NDArray[np.float64], high: NDArray[np.float64]) -> pg.QtGui.QPainterPath:
    """The area between ``low`` and ``high`` wherever both are finite."""
    xs: list[NDArray[np.float64]] = []
    ys: list[NDArray[np.float64]] = []
    finite = np.concatenate([[False], np.isfinite(low) & np.isfinite(high), [False]])
    edges = np.flatnonzero(np.diff(finite.astype(np.int8)))
    for first, last in edges.reshape(-1, 2):
        part = slice(first, last)
        xs += [times[part], times[part][::-1], [np.nan]]  # type: ignore[list-item]
        ys += [low[part], high[part][::-1], [np.nan]]  # type: ignore[list-item]
    if not xs:
        return pg.QtGui.QPainterPath()
    return pg.functions.arrayToQPath(np.concatenate(xs), np.concatenate(ys), connect="finite")


class Readout:
    """The newest value of one target."""

    def __init__(self, target: str, meaning: str, colour: str) -> None:
        self.box = QHBoxLayout()
        self.box.setSpacing(10)
        name = look.label(look.plain(target, 24).capitalize(), "heading")
        name.setStyleSheet(f"color: {colour};")
        self.value = look.label("–", "big")
        self.value.setFont(look.font(46, bold=True))
        self.value.setMinimumWidth(self.value.fontMetrics().horizontalAdvance("0.00") + 4)
        self.spread = look.label("", "spread")
        beside = QVBoxLayout()
        beside.setSpacing(0)
        beside.addStretch(1)
        beside.addWidget(name)
        beside.addWidget(self.spread)
        beside.addWidget(look.label(look.plain(meaning, 80), "muted"))
        beside.addStretch(1)
        self.box.addWidget(self.value)
        self.box.addLayout(beside)
        self.box.addStretch(1)


class Panel(look.Card):
    place = "right"
    order = 0
    stretch = 5

    def __init__(self, send: Callable[[Command], None]) -> None:
        super().__init__("Affect estimate", send)
        self.bar.addWidget(look.label("research use, not a medical device", "muted"))
        self.values = QHBoxLayout()
        self.values.setSpacing(24)
        self.body.addLayout(self.values)
        self.reason = look.label("waiting for the first window", wrap=True)
        self.body.addWidget(self.reason)
        self.area = plots.layout()
        self.plot = self.area.addPlot()
        plots.prepare(self.plot)
        plots.tell_time(self.plot.getAxis("bottom"))
        self.plot.setYRange(-0.09, 1.26, padding=0)
        self.plot.showGrid(x=False, y=True, alpha=0.15)
        self.plot.getAxis("left").setWidth(86)
        self.marks = plots.Marks(self.plot)
        self.area.setMinimumHeight(120)
        self.body.addWidget(self.area, 1)
        self.caption = look.label("line: estimate; band: ± 1 sd on new people; hatched: withheld", "muted", wrap=True)
        self.body.addWidget(self.caption)
        self.model = look.label("", "muted", wrap=True)
        self.body.addWidget(self.model)
        self.rest = look.tall(QWidget())  # keeps what is said at the top where there is no plot
        self.rest.setObjectName("bare")
        self.rest.hide()
        self.body.addWidget(self.rest, 1)
        self.readouts: list[Readout] = []
        self.curves: list[tuple[pg.PlotCurveItem, QGraphicsPathItem]] = []
        self.shades: list[tuple[pg.LinearRegionItem, pg.TextItem]] = []
        self.targets: tuple[str, ...] = ()
        self.series = Series(0)
        self.stretches: list[Stretch] = []
        self.marked: list[tuple[float, str]] = []
        self.newest: Estimate | None = None
        self.modelled = True
        self.start, self.stop, self.hop = 0.0, math.nan, 1.0

    def apply(self, update: Update) -> None:
        match update:
            case Hello(model=card, start=start, stop=stop):
                self.start, self.stop = start, stop
                self.introduce(card)
                self.forget()
            case Marked(time=time, label=text):
                self.marked.append((time - self.start, look.plain(text, 32)))
                del self.marked[:-2000]
            case Estimated(estimate=estimate) if estimate.targets == self.targets:
                self.take(estimate)
            case Cleared():
                self.forget()
            case _:
                return
        self.dirty = True

    def introduce(self, card: ModelCard | None) -> None:
        """Say which model it is and what it is worth."""
        self.modelled = card is not None
        if card is None:
            self.lay_out((), ())
            self.model.setText("")
        else:
            self.hop = card.hop
            self.lay_out(card.targets, card.meanings)
            name = f"Model {look.plain(card.name, 40)} ({look.plain(card.hash, 10)}), looks at {card.seconds:g} s"
            self.model.setText(
                f"{name}. Measured on new people: {look.plain(card.accuracy, 160)}.\n"
                f"Limits: {look.plain(card.limits, 240)}"
            )
        self.area.setVisible(self.modelled)
        self.caption.setVisible(self.modelled)
        self.rest.setVisible(not self.modelled)

    def lay_out(self, targets: tuple[str, ...], meanings: tuple[str, ...]) -> None:
        """A readout and a curve for each target."""
        for readout in self.readouts:
            empty(readout.box)
            self.values.removeItem(readout.box)
        for curve, area in self.curves:
            self.plot.removeItem(curve)
            self.plot.removeItem(area)
        self.targets = targets
        colours = [look.theme.targets[i % len(look.theme.targets)] for i in range(len(targets))]
        self.readouts = [Readout(*about) for about in zip(targets, meanings, colours, strict=True)]
        self.curves = []
        for readout, colour in zip(self.readouts, colours, strict=True):
            self.values.addLayout(readout.box)
            area = QGraphicsPathItem()
            area.setPen(pg.mkPen(None))
            area.setBrush(look.color(colour, 70))
            curve = pg.PlotCurveItem(pen=pg.mkPen(colour, width=2), antialias=True)
            area.setZValue(5)
            curve.setZValue(10)
            self.plot.addItem(area, ignoreBounds=True)
            self.plot.addItem(curve, ignoreBounds=True)
            self.curves.append((curve, area))
        ticks = [(0.0, "0"), (0.25, "0.25"), (0.5, "0.50"), (0.75, "0.75"), (1.0, "1")]
        self.plot.getAxis("left").setTicks([ticks])

    def forget(self) -> None:
        self.series = Series(len(self.targets))
        self.stretches.clear()
        self.marked.clear()
        self.newest = None

    def take(self, estimate: Estimate) -> None:
        self.newest = estimate
        time = estimate.t_end - self.start
        self.series.append(time, estimate.mean, estimate.sd)
        if estimate.withheld is None:
            return
        reason = look.plain(estimate.withheld, 120)
        kind = re.sub(r"\d+(\.\d+)?", "#", reason)
        last = self.stretches[-1] if self.stretches else None
        if last and last.kind.replace("#", "") == kind.replace("#", "") and time - last.stop <= 1.5 * self.hop:
            last.stop = time
            last.kind = kind
        else:
            start = last.stop if last and time - last.stop <= 1.5 * self.hop else time - self.hop
            if self.series.count == 1:
                start = 0.0  # the first window was still filling: nothing was said either
            self.stretches.append(Stretch(max(0.0, start), time, reason, kind if kind != reason else reason))

    def refresh(self) -> None:
        if not self.dirty:
            return
        self.dirty = False
        self.write()
        for made in (self.reason, self.caption, self.model):
            look.fit_height(made)
        end = self.series.rows[self.series.count - 1, 0] if self.series.count else 0.0
        length = self.stop - self.start if math.isfinite(self.stop) else max(60.0, end * 1.04)
        length = max(length, end)
        self.plot.setXRange(0.0, length, padding=0)
        for index, (curve, area) in enumerate(self.curves):
            times, mean, sd = self.series.target(index)
            curve.setData(times, mean, connect="finite")
            area.setPath(band(times, np.clip(mean - sd, 0.0, 1.0), np.clip(mean + sd, 0.0, 1.0)))
        width = self.plot.getViewBox().width()
        self.shade(length, width)
        self.marks.show(self.marked, 0.0, length, 1.25, width)

    def write(self) -> None:
        """The newest estimate in figures and words."""
        newest = self.newest
        for index, readout in enumerate(self.readouts):
            given = newest is not None and newest.withheld is None and math.isfinite(newest.mean[index])
            if newest is not None and given:
                readout.value.setText(f"{newest.mean[index]:.2f}")
                readout.spread.setText(f"± {newest.sd[index]:.2f} sd")
            else:
                readout.value.setText("–")
                readout.spread.setText("")
        if not self.modelled:
            self.say("Nothing is estimated: this session only records, without a model.", look.theme.text)
        elif newest is None:
            self.say("waiting for the first window", look.theme.muted)
        elif newest.withheld is not None:
            self.say(f"! Withheld: {look.plain(newest.withheld, 120)}", look.theme.fair)
        else:
            used = " and ".join(look.plain(kind, 12).upper() for kind in newest.used) or "nothing"
            without = "".join(f"; {look.plain(reason, 120)}" for reason in newest.unused)
            self.say(f"At {look.clock(newest.t_end - self.start)}, from {used}{without}", look.theme.muted)

    def say(self, text: str, colour: str) -> None:
        if self.reason.text() != text:
            self.reason.setText(text)
            self.reason.setStyleSheet(f"color: {colour};")

    def shade(self, length: float, width: float) -> None:
        """Hatch the stretches without an estimate and write why where there is room."""
        recent = self.stretches[-60:]
        while len(self.shades) < len(recent):
            region = pg.LinearRegionItem(
                movable=False,
                brush=pg.QtGui.QBrush(look.color(look.theme.muted, 90), Qt.BrushStyle.BDiagPattern),
                pen=pg.mkPen(None),
            )
            text = pg.TextItem(color=look.theme.text, anchor=(0.5, 0.5), fill=look.color(look.theme.plot, 225))
            text.setFont(look.font(12))
            text.setZValue(15)
            self.plot.addItem(region, ignoreBounds=True)
            self.plot.addItem(text, ignoreBounds=True)
            self.shades.append((region, text))
        for index, (region, text) in enumerate(self.shades):
            region.setVisible(index < len(recent))
            text.setVisible(index < len(recent))
            if index >= len(recent):
                continue
            stretch = recent[index]
            region.setRegion((stretch.start, stretch.stop))
            room = (stretch.stop - stretch.start) / length * width
            upright = room < 96
            text.setAngle(90 if upright else 0)
            text.setTextWidth(-1 if upright else room - 4)
            text.setText(stretch.words if upright else f"withheld: {stretch.words}")
            text.setPos((stretch.start + stretch.stop) / 2, 0.5)
            text.setVisible(bool(room > 17))


def empty(box: QVBoxLayout | QHBoxLayout) -> None:
    """Remove every widget of ``box``."""
    for label in [item for item in (box.itemAt(i) for i in range(box.count())) if item is not None]:
        widget = label.widget()
        inner = label.layout()
        if isinstance(widget, QLabel):
            widget.hide()
            widget.deleteLater()
        elif isinstance(inner, (QVBoxLayout, QHBoxLayout)):
            empty(inner)

"""Two targets against each other: the newest estimate with its ± 1 sd, and where it came from."""

from __future__ import annotations

import numpy as np
import pyqtgraph as pg
from numpy.typing import NDArray
from PySide6.QtWidgets import QGraphicsEllipseItem, QVBoxLayout, QWidget

from gui import look, plots

Axis = tuple[str, float, float, str]
"""Name, lowest and highest value, colour."""


class Plane(QWidget):
    """A square with a target along and a target upright; estimates of the last ``trail_seconds`` fade with age."""

    trail_seconds = 60.0

    def __init__(self) -> None:
        super().__init__()
        self.setObjectName("bare")
        box = QVBoxLayout(self)
        box.setContentsMargins(0, 0, 0, 0)
        self.area = plots.layout()
        box.addWidget(self.area)
        self.plot = self.area.addPlot()
        plots.prepare(self.plot)
        self.cross = [pg.InfiniteLine(angle=angle, pen=pg.mkPen(look.theme.line)) for angle in (90, 0)]
        self.path = pg.PlotCurveItem(pen=pg.mkPen(look.color(look.theme.text, 60)), connect="finite", antialias=True)
        self.trail = pg.ScatterPlotItem(size=6, pen=None)
        self.ellipse = QGraphicsEllipseItem()
        self.ellipse.setPen(pg.mkPen(look.theme.text, width=1))
        self.ellipse.setBrush(look.color(look.theme.accent, 60))
        self.newest = pg.ScatterPlotItem(
            size=13, pen=pg.mkPen(look.theme.plot, width=2), brush=look.color(look.theme.text)
        )
        self.note = pg.TextItem(color=look.theme.muted, anchor=(0.5, 0.5))
        self.note.setFont(look.font(12))
        for item in (*self.cross, self.path, self.trail, self.ellipse, self.newest, self.note):
            self.plot.addItem(item, ignoreBounds=True)
        self.plot.getAxis("bottom").setHeight(38)
        self.plot.getAxis("left").setWidth(58)

    def lay_out(self, along: Axis, upright: Axis) -> None:
        """Take the ranges and names of two targets."""
        view = self.plot.getViewBox()
        for side, line, (name, low, high, colour) in zip(("bottom", "left"), self.cross, (along, upright), strict=True):
            margin = 0.04 * (high - low)
            (view.setXRange if side == "bottom" else view.setYRange)(low - margin, high + margin, padding=0)
            axis = self.plot.getAxis(side)
            axis.setLabel(look.plain(name, 14), color=colour)
            axis.setTicks([[(value, f"{value:g}".replace("-", "−")) for value in (low, (low + high) / 2, high)]])
            line.setValue((low + high) / 2)
        self.note.setPos((along[1] + along[2]) / 2, (upright[1] + upright[2]) / 2)
        self.draw(np.zeros((0, 5)), 0.0, "")

    def draw(self, rows: NDArray[np.float64], now: float, withheld: str) -> None:
        """Draw ``rows`` (n, 5) of time, both means and both sds; ``withheld`` says why there is no newest one."""
        self.path.setData(rows[:, 1], rows[:, 2])
        seen = rows[np.isfinite(rows[:, 1:3]).all(axis=1)]
        fade = np.clip(1.0 - (now - seen[:, 0]) / self.trail_seconds, 0.0, 1.0)
        brushes = [pg.mkBrush(look.color(look.theme.accent, int(20 + 200 * share))) for share in fade]
        self.trail.setData(x=seen[:, 1], y=seen[:, 2], brush=brushes)
        last = rows[-1] if len(rows) and not withheld and np.isfinite(rows[-1]).all() else None
        self.newest.setData(x=[] if last is None else [last[1]], y=[] if last is None else [last[2]])
        self.ellipse.setVisible(last is not None)
        if last is not None:
            self.ellipse.setRect(last[1] - last[3], last[2] - last[4], 2 * last[3], 2 * last[4])
        self.note.setTextWidth(max(self.plot.getViewBox().width() - 8.0, 60.0))
        self.note.setText(f"withheld: {withheld}" if withheld and not withheld.startswith("waiting") else withheld)
        self.note.setVisible(bool(withheld))
        self.setAccessibleDescription(withheld or "")

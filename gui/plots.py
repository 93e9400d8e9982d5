"""What the plots share: a ground, a time axis that reads as minutes and seconds, and markers as lines with text."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import pyqtgraph as pg
from PySide6.QtCore import QSize, Qt

from gui import look

STEPS = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 15.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1200.0, 1800.0, 3600.0, 7200.0)

ROW = 21.0
"""Pixels between two rows of marker texts."""


def layout() -> pg.GraphicsLayoutWidget:
    """An empty drawing area."""
    made = pg.GraphicsLayoutWidget()
    made.setBackground(look.theme.plot)
    made.ci.layout.setSpacing(2)
    made.ci.layout.setContentsMargins(0, 4, 0, 0)
    made.setFrameShape(made.Shape.NoFrame)
    # A graphics view asks for 640 x 480, and a layout with wrapping labels would give it that before anybody else.
    made.sizeHint = lambda: QSize(200, 120)
    look.tall(made)
    return made


def prepare(plot: pg.PlotItem) -> None:
    """No mouse, no buttons, no automatic ranges: the panel alone decides what is seen."""
    plot.setMouseEnabled(x=False, y=False)
    plot.setMenuEnabled(False)
    plot.hideButtons()
    plot.disableAutoRange()
    for side in ("left", "bottom"):
        axis = plot.getAxis(side)
        axis.setPen(look.theme.line)
        axis.setTextPen(look.theme.muted)
        axis.enableAutoSIPrefix(False)  # would lay out an empty label in every frame
        axis.setStyle(tickFont=look.font(12), tickLength=-4)
    plot.getAxis("bottom").setStyle(autoExpandTextSpace=False, tickTextHeight=20)
    plot.getAxis("bottom").setHeight(24)


def tell_time(axis: pg.AxisItem, when: Callable[[float], float] | None = None) -> None:
    """Make ``axis`` write minutes and seconds, at round instants; ``when`` says which instant stands at a place."""

    def spacing(low: float, high: float, pixels: float) -> list[tuple[float, float]]:
        wanted = (high - low) * 76.0 / max(pixels, 76.0)
        return [(next((step for step in STEPS if step >= wanted), 14400.0), 0.0)]

    def strings(values: list[float], _scale: float, step: float) -> list[str]:
        values = [when(value) for value in values] if when is not None else values
        if step >= 1.0:
            return [look.clock(round(value)) for value in values]
        return [f"{look.clock(value + 1e-6)}.{round(value * 10 + 1e-5) % 10}" for value in values]

    axis.tickSpacing = spacing
    axis.tickStrings = strings


def rewrite(axis: pg.AxisItem) -> None:
    """Have ``axis`` write its instants anew though its range is the same."""
    axis.picture = None
    axis.update()


class Marks:
    """Markers of one plot: a dashed line each, its text at the top; the newest ``most`` inside the range are drawn."""

    def __init__(self, plot: pg.PlotItem, most: int = 24) -> None:
        self.plot = plot
        self.most = most
        self.items: list[tuple[Any, Any]] = []

    def show(self, marks: Iterable[tuple[float, str]], low: float, high: float, top: float, width: float) -> None:
        """Draw those of ``marks`` (seconds, text) within low..high, texts below ``top``; the plot is ``width`` px wide.

        Texts that would overlap go to a second and third row; where that is not enough the text is left out and the
        line stays.
        """
        inside = [mark for mark in marks if low <= mark[0] <= high][-self.most :]
        while len(self.items) < len(inside):
            line = pg.InfiniteLine(angle=90, movable=False, pen=pg.mkPen(look.theme.marker, style=Qt.PenStyle.DashLine))
            text = pg.TextItem(color=look.theme.marker, anchor=(0, 0), fill=look.color(look.theme.plot, 215))
            text.setFont(look.font(12))
            text.textItem.document().setDocumentMargin(2)
            text.setZValue(30)
            line.setZValue(20)
            self.plot.addItem(line, ignoreBounds=True)
            self.plot.addItem(text, ignoreBounds=True)
            self.items.append((line, text))
        per_px = (high - low) / max(width, 1.0)
        bottom, ceiling = self.plot.getViewBox().viewRange()[1]
        row_height = ROW * (ceiling - bottom) / max(self.plot.getViewBox().height(), ROW)
        free = [low - 1.0] * 3
        for index, (line, text) in enumerate(self.items):
            shown = index < len(inside)
            line.setVisible(shown)
            text.setVisible(False)
            if not shown:
                continue
            time, words = inside[index]
            line.setValue(time)
            if text.toPlainText() != words:
                text.setText(words)
            wide = text.boundingRect().width() * per_px
            left = max(low, min(time, high - wide))
            row = next((k for k in range(3) if left >= free[k]), None)
            if row is not None:
                free[row] = left + wide
                text.setPos(left, top - row * row_height)
                text.setVisible(True)

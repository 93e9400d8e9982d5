"""Rhythms of the brain, a part of the panel of heart and brain: bars or a topographic map, and four figures below."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pyqtgraph as pg
from numpy.typing import NDArray
from PySide6.QtCore import Qt
from PySide6.QtWidgets import QComboBox, QGridLayout, QHBoxLayout, QLabel, QStackedWidget, QVBoxLayout, QWidget

from gui import look, plots
from realtime.api import BANDS, Brain

SHARES = "share of power"
FIGURES = {
    "alpha peak": "Individual alpha frequency: the strongest rhythm of 7 to 13.5 Hz; median of channels, last 30 s",
    "slope": "Aperiodic slope: exponent of the spectrum from 2 to 40 Hz, 1/f² has −2; median of channels, last 30 s",
    "θ/β": "Theta power over beta power of all channels, last 4 s",
    "asymmetry": "Frontal alpha asymmetry: ln alpha right − ln alpha left, last 4 s; positive: more on the right. "
    "The first valid pair of F3/F4, F7/F8, AF3/AF4, AF7/AF8, Fp1/Fp2",
}
STEPS = (1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 7.0, 10.0)
SCALE = ("#0b2a42", look.BLUE, look.SKY, look.YELLOW)
"""From nothing to most: brighter all the way, and told apart without red or green."""
BAR_AT = 1.28
"""Left edge of the scale beside the map, in radii of the map."""


def ceiling(value: float) -> float:
    """The first of 1, 1.5, 2, 3, 4, 5, 7, 10, 15, ... that is not below ``value``.

    >>> [ceiling(value) for value in (0.0, 0.8, 21.0, 48.0)]
    [1.0, 1.0, 30.0, 50.0]
    """
    if not value > 0:
        return 1.0
    power = 10.0 ** math.floor(math.log10(value))
    return next(step * power for step in STEPS if step * power >= value * (1 - 1e-9))


def amount(value: float) -> str:
    """A power or share in as many digits as it is worth."""
    return f"{value:.0f}" if value >= 10 else f"{value:.1f}" if value >= 1 else f"{value:.2g}"


class Bars(QWidget):
    """The share of every band."""

    def __init__(self) -> None:
        super().__init__()
        self.setObjectName("bare")
        whole = QVBoxLayout(self)
        whole.setContentsMargins(0, 0, 0, 0)
        self.area = plots.layout()
        self.plot = self.area.addPlot()
        plots.prepare(self.plot)
        self.plot.getAxis("left").hide()
        self.plot.setXRange(-0.6, len(BANDS) - 0.4, padding=0)
        self.plot.setYRange(0.0, 118.0, padding=0)
        self.plot.getAxis("bottom").setTicks([list(enumerate(BANDS))])
        self.bars = pg.BarGraphItem(
            x=np.arange(len(BANDS)), height=np.zeros(len(BANDS)), width=0.7, brush=look.theme.eeg, pen=pg.mkPen(None)
        )
        self.plot.addItem(self.bars, ignoreBounds=True)
        self.texts = []
        for _ in BANDS:
            text = pg.TextItem(color=look.theme.text, anchor=(0.5, 1.0))
            text.setFont(look.font(12))
            text.textItem.document().setDocumentMargin(1)
            self.plot.addItem(text, ignoreBounds=True)
            self.texts.append(text)
        self.ceiling = 100.0
        whole.addWidget(self.area)

    def draw(self, brain: Brain | None) -> None:
        shares = 100 * brain.shares if brain is not None else np.full(len(BANDS), np.nan)
        heights = np.nan_to_num(shares)
        self.bars.setOpts(height=heights)
        wanted = max(40.0, 20 * math.ceil(float(heights.max()) * 1.1 / 20))
        if wanted > self.ceiling or wanted < 0.6 * self.ceiling:
            self.ceiling = wanted
            self.plot.setYRange(0.0, 1.18 * wanted, padding=0)
        for at, text in enumerate(self.texts):
            text.setVisible(bool(np.isfinite(shares[at])))
            text.setText(f"{heights[at]:.0f} %")
            text.setPos(at, heights[at])


class Map(QWidget):
    """One band over the head seen from above, nose up, or a line that says why there is none."""

    def __init__(self) -> None:
        super().__init__()
        self.setObjectName("bare")
        whole = QVBoxLayout(self)
        whole.setContentsMargins(0, 0, 0, 0)
        self.area = plots.layout()
        self.plot = self.area.addPlot()
        plots.prepare(self.plot)
        for side in ("left", "bottom"):
            self.plot.getAxis(side).hide()
        self.plot.setAspectLocked(True)
        colours = pg.ColorMap(np.linspace(0, 1, len(SCALE)), SCALE)
        self.picture = pg.ImageItem()
        self.scale = pg.ImageItem(np.linspace(0, 1, 64)[None, :])
        for image in (self.picture, self.scale):
            image.setColorMap(colours)
        around = np.linspace(0, 2 * np.pi, 73)
        line = pg.mkPen(look.theme.muted, width=1.5)
        self.head = pg.PlotCurveItem(np.sin(around), np.cos(around), pen=line)
        self.nose = pg.PlotCurveItem(np.array([-0.12, 0.0, 0.12]), np.array([0.99, 1.14, 0.99]), pen=line)
        self.dots = pg.ScatterPlotItem(size=4, pen=pg.mkPen(SCALE[0]), brush=pg.mkBrush("#ffffff"))
        for item in (self.picture, self.scale, self.head, self.nose, self.dots):
            self.plot.addItem(item, ignoreBounds=True)
        self.ends = []
        for anchor in ((0, 1), (0, 0)):
            text = pg.TextItem(color=look.theme.text, anchor=anchor)
            text.setFont(look.font(12))
            text.textItem.document().setDocumentMargin(1)
            self.plot.addItem(text, ignoreBounds=True)
            self.ends.append(text)
        self.of, self.most = ("", ""), 1.0
        self.why = look.label("", "muted", wrap=True)
        self.why.setAlignment(Qt.AlignmentFlag.AlignCenter)
        whole.addWidget(self.area)
        whole.addWidget(self.why)
        self.refuse("no rhythms yet")

    def refuse(self, reason: str) -> None:
        """No map, and why."""
        self.area.hide()
        self.why.setText(look.plain(reason, 160))
        self.why.show()

    def draw(self, brain: Brain | None, band: str, poor: frozenset[str]) -> str:
        """Draw ``band``, without the ``poor`` channels; what is seen, in words."""
        # What interpolates takes a second to load, which only those wait for who look at a map.
        from realtime.topography import TopographyError, topography

        if brain is None or brain.reason:
            self.refuse(brain.reason if brain is not None else "no rhythms yet")
            return ""
        at = BANDS.index(band)
        known = bool(np.isfinite(brain.absolute[:, at]).any())
        values: NDArray[np.float32] = brain.absolute[:, at] if known else 100 * brain.relative[:, at]
        unit = "µV²" if known else "%"
        usable = tuple(
            bool(np.isfinite(value)) and label not in poor for label, value in zip(brain.labels, values, strict=True)
        )
        try:
            found = topography(brain.labels, usable)
        except TopographyError as error:
            self.refuse(str(error))
            return ""
        self.why.hide()
        self.area.show()
        measured = values[list(found.columns)]
        top, least = int(measured.argmax()), int(measured.argmin())
        highest = float(measured[top])
        if (band, unit) != self.of or highest > self.most or highest < 0.5 * self.most:
            self.of, self.most = (band, unit), ceiling(highest)  # or only when it is clearly off: nothing flickers
        self.picture.setImage(found.field(values), autoLevels=False, levels=(0.0, self.most))
        radius = found.radius
        edge = radius * len(found.weights) / (len(found.weights) - 1)  # the outermost points are middles of pixels
        self.picture.setRect(-edge, -edge, 2 * edge, 2 * edge)
        self.dots.setData(*found.places.T)
        self.scale.setRect(BAR_AT * radius, -radius, 0.14 * radius, 2 * radius)
        for text, said, end in zip(self.ends, ("0", f"{amount(self.most)} {unit}"), (-radius, radius), strict=True):
            text.setText(said)
            text.setPos((BAR_AT + 0.2) * radius, end)
        self.plot.setRange(xRange=(-radius, 2.3 * radius), yRange=(-1.05 * radius, 1.16 * radius), padding=0)
        names = [look.plain(brain.labels[column], 12) for column in found.columns]
        lowest = amount(float(measured[least]))
        return f"most {names[top]} {amount(highest)} {unit}, least {names[least]} {lowest}, of {len(names)}"


class Rhythms(QWidget):
    """``write`` shows what there is; the box in the heading chooses between bars and the map of a band."""

    def __init__(self, touch: Callable[[], None]) -> None:
        """``touch`` is called when something else is chosen."""
        super().__init__()
        self.setObjectName("bare")
        whole = QVBoxLayout(self)
        whole.setContentsMargins(0, 0, 0, 0)
        whole.setSpacing(2)
        heading = QHBoxLayout()
        heading.setSpacing(8)
        heading.addWidget(look.label("Rhythms", "heading", shrink=True))
        heading.addStretch(1)
        self.view = QComboBox()
        self.view.addItem(SHARES, "")
        for band in BANDS:
            self.view.addItem(f"map of {band}", band)
        self.view.setAccessibleName("Share of every band, or the map of one")
        self.view.setToolTip("The share of every band in the power, or one band over the head seen from above")
        self.view.currentIndexChanged.connect(touch)
        heading.addWidget(self.view)
        whole.addLayout(heading)
        self.bars, self.map = Bars(), Map()
        self.pages = QStackedWidget()
        self.pages.addWidget(self.bars)
        self.pages.addWidget(self.map)
        whole.addWidget(self.pages, 1)
        grid = QGridLayout()
        grid.setHorizontalSpacing(8)
        grid.setVerticalSpacing(0)
        grid.setColumnStretch(1, 1)
        self.figures: dict[str, tuple[QLabel, QLabel]] = {}
        for row, (name, meaning) in enumerate(FIGURES.items()):
            title, value = look.label(name, "muted"), look.label("–", "muted", wrap=True)
            title.setToolTip(meaning)
            grid.addWidget(title, row, 0, Qt.AlignmentFlag.AlignTop)
            grid.addWidget(value, row, 1)
            self.figures[name] = title, value
        whole.addLayout(grid)
        self.source = look.label("", "muted", shrink=True)
        whole.addWidget(self.source)

    def write(self, brain: Brain | None, poor: frozenset[str]) -> None:
        """Show ``brain``; ``poor`` are the channels that are bad and stay out of the map."""
        band = str(self.view.currentData())
        self.pages.setCurrentWidget(self.map if band else self.bars)
        seen = self.map.draw(brain, band, poor) if band else ""
        if not band:
            self.bars.draw(brain)
        for name, (said, given) in told(brain).items():
            label = self.figures[name][1]
            label.setText(said)
            label.setToolTip(f"{said}. {FIGURES[name]}")
            label.setStyleSheet(f"color: {look.theme.text if given else look.theme.muted};")
            look.fit_height(label)
        if brain is None or brain.reason:
            self.source.setText(look.plain(brain.reason, 90) if brain is not None else "no rhythms yet")
        else:
            count = f"{brain.averaged} channel{'' if brain.averaged == 1 else 's'}"
            source = seen or f"{count}, last 4 s"
            self.source.setText(f"{source}; {look.plain(brain.remark, 90)}" if brain.remark else source)
        self.source.setToolTip(self.source.text())


def told(brain: Brain | None) -> dict[str, tuple[str, bool]]:
    """Every figure with its unit, or why there is none; and whether there is one."""
    if brain is None or brain.reason:
        return dict.fromkeys(FIGURES, ("–", False))

    def figure(name: str, value: float, written: str) -> tuple[str, bool]:
        given = math.isfinite(value)
        reason = look.plain(brain.absent.get(name, ""), 90)
        return (written.replace("-", "−"), True) if given else (f"– {reason}".strip(), False)

    pair, value = next((one for one in brain.asymmetry if math.isfinite(one[1])), ("", math.nan))
    return {
        "alpha peak": figure("peak", brain.peak, f"{brain.peak:.1f} Hz"),
        "slope": figure("slope", brain.slope, f"{brain.slope:.2f} (exponent of 1/f)"),
        "θ/β": figure("theta_beta", brain.theta_beta, f"{brain.theta_beta:.1f} (ratio of powers)"),
        "asymmetry": figure("asymmetry", value, f"{value:+.2f} ln alpha {look.plain(pair, 12)}"),
    }

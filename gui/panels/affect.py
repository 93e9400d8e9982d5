"""What the model says: the newest estimate large, all over time with their uncertainty, and why there is none.

Every target has its own plot on its own range; two or more have a plane of the first two as well (`gui.plane`).
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pyqtgraph as pg
from numpy.typing import NDArray
from PySide6.QtCore import Qt
from PySide6.QtGui import QKeySequence, QResizeEvent, QShortcut
from PySide6.QtWidgets import QGraphicsPathItem, QGridLayout, QHBoxLayout, QSizePolicy, QVBoxLayout, QWidget

from gui import look, plots, remember
from gui.plane import Plane
from models.api import Estimate
from realtime.api import Cleared, Command, Estimated, Hello, Marked, ModelCard, Resting, Update

MOST_POINTS = 2000
"""Estimates drawn at most; a longer session is thinned out for the eye."""
MOST_DRAWN = 6
"""Targets with a plot; those beyond it have their figures."""
MOST_SHOWN = 12
"""Targets with figures."""
KINDS = {
    "binary": "how sure the upper end is, laid over its range",
    "ordinal": "the expected one of its levels",
    "continuous": "a value within its range",
}
"""What the number of a target is, by its kind."""


@dataclass(frozen=True, slots=True)
class Target:
    """One of the model's targets, as its card says."""

    name: str
    meaning: str
    kind: str
    low: float
    high: float
    levels: tuple[float, ...]
    colour: str

    @property
    def digits(self) -> int:
        """Decimals of its figures: a hundredth of its range, roughly, is the last digit that is worth reading."""
        return decimals(self.high - self.low)

    def ticks(self, pixels: float) -> list[tuple[float, str]]:
        """Values for its axis: its levels, or quarters of its range; fewer where they have no room."""
        values = list(self.levels) or [self.low + share * (self.high - self.low) for share in (0, 0.25, 0.5, 0.75, 1.0)]
        room, last = max(2, int(pixels // 17)), len(values) - 1
        step = next(step for step in range(1, last + 1) if last % step == 0 and last // step < room)
        return [(value, f"{value:g}".replace("-", "−")) for value in values[::step]]


def targets_of(card: ModelCard) -> tuple[Target, ...]:
    """The targets of a card, each with a colour."""
    colours = look.theme.targets
    return tuple(
        Target(name, meaning, kind, *limits, levels, colours[index % len(colours)])
        for index, (name, meaning, kind, limits, levels) in enumerate(
            zip(card.targets, card.meanings, card.kinds, card.ranges, card.levels, strict=True)
        )
    )


def decimals(span: float) -> int:
    """How many decimals figures within a range of ``span`` are worth.

    >>> [decimals(span) for span in (1.0, 2.0, 8.0, 100.0, 0.1)]
    [2, 2, 1, 0, 3]
    """
    return min(max(round(2 - math.log10(span)), 0), 6) if span > 0 else 2


def figure(value: float, digits: int) -> str:
    """A number with a real minus sign, and never a minus zero.

    >>> figure(-0.254, 2), figure(-0.001, 2), figure(6.24, 1)
    ('−0.25', '0.00', '6.2')
    """
    written = f"{value:.{digits}f}"
    return written.replace("-", "" if not float(written) else "−")


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

    def since(self, time: float) -> NDArray[np.float64]:
        """Rows of time, means and sds from ``time`` on."""
        first = int(np.searchsorted(self.rows[: self.count, 0], time))
        return self.rows[first : self.count]


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

    def __init__(self, target: Target, pixels: int) -> None:
        self.target = target
        self.box = QWidget()
        self.box.setObjectName("bare")
        across = QHBoxLayout(self.box)
        across.setContentsMargins(0, 0, 0, 0)
        across.setSpacing(10)
        name = look.label(look.plain(target.name, 24).capitalize(), "heading", shrink=True)
        name.setStyleSheet(f"color: {target.colour};")
        self.value = look.label("–", "big")
        self.value.setStyleSheet(f"font-size: {pixels}px;")
        self.value.setFont(look.font(pixels, bold=True))
        widest = max((figure(end, target.digits) for end in (target.low, target.high)), key=len)
        self.value.setMinimumWidth(self.value.fontMetrics().horizontalAdvance(re.sub(r"\d", "0", widest)) + 4)
        self.spread = look.label("", "spread", shrink=True)
        self.meaning = look.label(look.plain(target.meaning, 80), "muted", wrap=True, shrink=True)
        beside = QVBoxLayout()
        beside.setSpacing(0)
        beside.addStretch(1)
        beside.addWidget(name)
        beside.addWidget(self.spread)
        beside.addWidget(self.meaning)
        beside.addStretch(1)
        across.addWidget(self.value)
        across.addLayout(beside, 1)
        scale = ", ".join(f"{level:g}" for level in target.levels[:12]) or f"{target.low:g} to {target.high:g}"
        kind = KINDS.get(target.kind, "")
        self.box.setToolTip(f"{look.plain(target.name, 24)}: {kind} ({scale}). {look.plain(target.meaning, 200)}")

    def write(self, mean: float, sd: float) -> None:
        """Show a value; NaN for none."""
        given, digits = math.isfinite(mean), self.target.digits
        self.value.setText(figure(mean, digits) if given else "–")
        self.spread.setText(f"± {figure(sd, digits)} sd" if given else "")


class Track:
    """One target over time: its estimates with their band, hatched where there is none."""

    def __init__(self, plot: pg.PlotItem, target: Target, *, first: bool, last: bool, alone: bool) -> None:
        self.plot = plot
        self.target = target
        self.first = first
        """Only the first of several has words in it."""
        plots.prepare(plot)
        plots.tell_time(plot.getAxis("bottom"))
        plot.getAxis("bottom").setStyle(showValues=last)
        plot.getAxis("bottom").setHeight(24 if last else 3)
        self.span = target.high - target.low
        self.top = target.high + (0.25 if first else 0.08) * self.span
        plot.setYRange(target.low - 0.09 * self.span, self.top + 0.01 * self.span, padding=0)
        plot.showGrid(x=False, y=True, alpha=0.15)
        left = plot.getAxis("left")
        left.setWidth(64)
        self.alone = alone
        self.area = QGraphicsPathItem()
        self.area.setPen(pg.mkPen(None))
        self.area.setBrush(look.color(target.colour, 70))
        self.curve = pg.PlotCurveItem(pen=pg.mkPen(target.colour, width=2), antialias=True)
        self.area.setZValue(5)
        self.curve.setZValue(10)
        plot.addItem(self.area, ignoreBounds=True)
        plot.addItem(self.curve, ignoreBounds=True)
        self.marks = plots.Marks(plot)
        self.shades: list[tuple[pg.LinearRegionItem, pg.TextItem]] = []

    def draw(
        self,
        series: tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]],
        length: float,
        stretches: list[Stretch],
        marks: list[tuple[float, str]],
    ) -> None:
        """Draw a session of ``length`` seconds."""
        times, mean, sd = series
        low, high = self.target.low, self.target.high
        view = self.plot.getViewBox()
        self.plot.setXRange(0.0, length, padding=0)
        self.name_axis(view.height() / 1.3)
        self.curve.setData(times, mean, connect="finite")
        self.area.setPath(band(times, np.clip(mean - sd, low, high), np.clip(mean + sd, low, high)))
        self.shade(stretches, length, view.width())
        shown = marks if self.first else [(time, "") for time, _ in marks]
        self.marks.show(shown, 0.0, length, self.top, view.width())

    def name_axis(self, pixels: float) -> None:
        """Write the values beside ``pixels`` of range, and the name of one of several where it has room."""
        left, ticks = self.plot.getAxis("left"), self.target.ticks(pixels)
        beside = not self.alone and pixels >= 70
        if beside and not left.labelText:
            left.setLabel(look.plain(self.target.name, 12), color=self.target.colour)
        left.showLabel(beside)
        if not beside and not self.alone:  # between the ends of the range, then
            middle = (self.target.low + self.target.high) / 2
            ends = [ticks[0], ticks[-1]] if pixels >= 44 else []
            ticks = [*ends, (middle, look.plain(self.target.name, 9))]
        left.setTicks([ticks])

    def shade(self, stretches: list[Stretch], length: float, width: float) -> None:
        """Hatch the stretches without an estimate and write why where there is room."""
        recent = stretches[-60:]
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
            text.setVisible(index < len(recent) and self.first)
            if index >= len(recent):
                continue
            stretch = recent[index]
            region.setRegion((stretch.start, stretch.stop))
            if not self.first:
                continue
            room = (stretch.stop - stretch.start) / length * width
            upright = room < 96
            text.setAngle(90 if upright else 0)
            text.setTextWidth(-1 if upright else room - 4)
            text.setText(stretch.words if upright else f"withheld: {stretch.words}")
            text.setPos((stretch.start + stretch.stop) / 2, self.target.low + 0.5 * self.span)
            text.setVisible(bool(room > 17))


class Panel(look.Card):
    place = "right"
    order = 0
    stretch = 5

    def __init__(self, send: Callable[[Command], None]) -> None:
        super().__init__("Affect estimate", send)
        self.flat = look.Switch("Plane (P)")
        self.flat.setAccessibleName("Plane of the first two targets")
        self.flat.setToolTip(
            "The first two targets against each other: the newest estimate with its ± 1 sd, "
            "and a trail of the last minute that fades"
        )
        self.flat.setChecked(remember.recall("affect/plane", True))
        self.flat.toggled.connect(self.choose)
        self.flat.hide()
        self.key = QShortcut(QKeySequence("P"), self)
        self.key.activated.connect(self.press)
        self.bar.addWidget(self.flat)
        self.bar.addWidget(look.label("research use, not a medical device", "muted", shrink=True))
        self.values = QGridLayout()
        self.values.setHorizontalSpacing(20)
        self.values.setVerticalSpacing(2)
        self.body.addLayout(self.values)
        self.reason = look.label("waiting for the first window", wrap=True)
        self.body.addWidget(self.reason)
        self.resting = look.label("", "muted", wrap=True)
        self.resting.setToolTip(
            "The model compares with the person at rest. A kind of signal that was not good for long enough "
            "in that time is not used in this session."
        )
        self.resting.hide()
        self.body.addWidget(self.resting)
        self.pictures = QHBoxLayout()
        self.pictures.setSpacing(8)
        self.area = plots.layout()
        self.plane = Plane()
        self.plane.hide()
        self.pictures.addWidget(self.plane)
        self.pictures.addWidget(self.area, 1)
        self.body.addLayout(self.pictures, 1)
        self.caption = look.label("", "muted", wrap=True)
        self.body.addWidget(self.caption)
        self.model = look.label("", "muted", wrap=True)
        self.body.addWidget(self.model)
        self.readouts: list[Readout] = []
        self.tracks: list[Track] = []
        self.targets: tuple[Target, ...] = ()
        self.series = Series(0)
        self.stretches: list[Stretch] = []
        self.marked: list[tuple[float, str]] = []
        self.newest: Estimate | None = None
        self.baseline: Resting | None = None
        self.modelled = self.fed = True
        self.start, self.stop, self.hop = 0.0, math.nan, 1.0

    def press(self) -> None:
        """The key of the plane; where there is no plane it does nothing."""
        if self.flat.isVisible():
            self.flat.toggle()

    def choose(self, on: bool) -> None:
        """Show the plane or not, now and next time."""
        remember.keep("affect/plane", on)
        self.arrange()
        self.touch()

    def arrange(self) -> None:
        """The plane is square where it fits, beside the time."""
        possible = len(self.targets) > 1
        self.flat.setVisible(possible)
        self.plane.setVisible(possible and self.flat.isChecked())
        self.plane.setFixedWidth(min(max(self.area.height(), 190), max(self.width() // 2 - 20, 190)))
        drawn = min(len(self.targets), MOST_DRAWN)
        self.area.setMinimumHeight(120 if drawn < 2 else 42 * drawn + 48)
        words = "line: estimate; band: ± 1 sd on new people; hatched: withheld"
        if not self.plane.isHidden():
            words = "band, ellipse: ± 1 sd on new people; hatched: withheld"
        if len(self.targets) > MOST_DRAWN:
            words += f"; drawn: the first {MOST_DRAWN} of {len(self.targets)} targets, all are in table and record"
        self.caption.setText(words)

    def apply(self, update: Update) -> None:
        match update:
            case Hello(model=card, start=start, stop=stop, used=used):
                self.start, self.stop, self.fed = start, stop, bool(used)
                self.introduce(card)
                self.forget()
            case Marked(time=time, label=text):
                self.marked.append((time - self.start, look.plain(text, 32)))
                del self.marked[:-2000]
            case Estimated(estimate=estimate) if estimate.targets == tuple(one.name for one in self.targets):
                self.take(estimate)
                self.baseline = update.resting or self.baseline
            case Cleared():
                self.forget()
            case _:
                return
        self.dirty = True

    def introduce(self, card: ModelCard | None) -> None:
        """Say which model it is and what it is worth."""
        self.modelled = card is not None
        self.lay_out(targets_of(card) if card is not None else ())
        if card is None:
            self.model.setText("")
        else:
            self.hop = card.hop
            name = f"Model {look.plain(card.name, 40)} ({look.plain(card.hash, 10)}), looks at {card.seconds:g} s"
            self.model.setText(
                f"{name}. Measured on new people: {look.plain(card.accuracy, 160)}.\n"
                f"Limits: {look.plain(card.limits, 240)}"
            )
        # Without a model it is one line, and the room is for the others.
        policy = QSizePolicy.Policy
        self.setSizePolicy(policy.Preferred, policy.Preferred if self.modelled else policy.Maximum)
        self.area.setVisible(self.modelled)
        self.caption.setVisible(self.modelled)

    def lay_out(self, targets: tuple[Target, ...]) -> None:
        """Figures and a plot for each target."""
        for readout in self.readouts:
            self.values.removeWidget(readout.box)
            readout.box.hide()
            readout.box.deleteLater()
        self.targets = targets
        pixels = 46 if len(targets) < 2 else 34 if len(targets) < 3 else 24
        self.readouts = [Readout(target, pixels) for target in targets[:MOST_SHOWN]]
        columns = 1 if len(targets) < 2 else 2
        for place, readout in enumerate(self.readouts):
            self.values.addWidget(readout.box, place // columns, place % columns)
        for column in range(2):
            self.values.setColumnStretch(column, int(column < columns))
        self.area.clear()
        drawn = targets[:MOST_DRAWN]
        self.tracks = [
            Track(
                self.area.addPlot(row=row, col=0),
                target,
                first=row == 0,
                last=row == len(drawn) - 1,
                alone=len(drawn) == 1,
            )
            for row, target in enumerate(drawn)
        ]
        if len(targets) > 1:
            x, y = self.crossed()
            self.plane.lay_out(*((targets[i].name, targets[i].low, targets[i].high, targets[i].colour) for i in (x, y)))
        self.arrange()

    def crossed(self) -> tuple[int, int]:
        """Which of the first two targets lies along, which upright: valence along, arousal upright, as is usual."""
        names = [target.name for target in self.targets[:2]]
        return (1, 0) if names == ["arousal", "valence"] else (0, 1)

    def forget(self) -> None:
        self.series = Series(len(self.targets))
        self.stretches.clear()
        self.marked.clear()
        self.newest = None
        self.baseline = None

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
        self.tell_resting()
        wrapping = (self.reason, self.resting, self.caption, self.model)
        for made in (*wrapping, *(readout.meaning for readout in self.readouts)):
            look.fit_height(made)
        end = self.series.rows[self.series.count - 1, 0] if self.series.count else 0.0
        length = self.stop - self.start if math.isfinite(self.stop) else max(60.0, end * 1.04)
        for index, track in enumerate(self.tracks):
            track.draw(self.series.target(index), max(length, end), self.stretches, self.marked)
        if not self.plane.isHidden():
            self.draw_plane(end)

    def draw_plane(self, now: float) -> None:
        rows = self.series.since(now - self.plane.trail_seconds)
        x, y = self.crossed()
        count = len(self.targets)
        columns = [0, 1 + x, 1 + y, 1 + count + x, 1 + count + y]
        withheld = self.newest.withheld if self.newest is not None else "waiting for the first window"
        self.plane.draw(rows[:, columns], now, look.plain(withheld.split(":")[0], 40) if withheld else "")

    def write(self) -> None:
        """The newest estimate in figures and words."""
        newest = self.newest
        for index, readout in enumerate(self.readouts):
            given = newest is not None and newest.withheld is None
            mean = newest.mean[index] if newest is not None and given else math.nan
            readout.write(mean, newest.sd[index] if newest is not None and given else math.nan)
        if not self.modelled:
            self.say("Nothing is estimated: this session only records, without a model.", look.theme.text)
        elif not self.fed:
            self.say("Nothing is estimated: the model can use none of these signals.", look.theme.fair)
        elif newest is None:
            self.say("waiting for the first window", look.theme.muted)
        elif newest.withheld is not None:
            self.say(f"! Withheld: {look.plain(newest.withheld, 120)}", look.theme.fair)
        else:
            used = " and ".join(look.plain(kind, 12).upper() for kind in newest.used) or "nothing"
            without = "".join(f"; {look.plain(reason, 120)}" for reason in newest.unused)
            if self.baseline is not None and self.baseline.complete and not without:
                without = f"; {self.rested(self.baseline)}"
            self.say(f"At {look.clock(newest.t_end - self.start)}, from {used}{without}", look.theme.muted)

    def tell_resting(self) -> None:
        """How far the resting baseline is, as long as nothing is estimated."""
        state, newest = self.baseline, self.newest
        withheld = newest.withheld if newest is not None and self.modelled else None
        self.resting.setVisible(state is not None and bool(withheld))
        if state is None or not withheld:
            return
        if state.complete:
            self.resting.setText(f"There is a {self.rested(state)}")
            return
        left = f"Resting baseline, {math.ceil(state.seconds_left - 1e-6)} s left, good so far"
        if not state.begun:
            left = "The resting baseline begins with the first good signal"
        elif withheld.startswith("resting baseline"):  # how long it takes stands there
            left = "Good so far"
        kinds = [
            f"{look.plain(kind, 12).upper()} {seconds:g} of {state.needed:g} s{' ✓' * (seconds >= state.needed)}"
            for kind, seconds in state.good.items()
        ]
        self.resting.setText(f"{left}: {', '.join(kinds)}")

    @staticmethod
    def rested(state: Resting) -> str:
        """Of which kinds of signal there is a resting baseline."""
        enough = [look.plain(kind, 12).upper() for kind, seconds in state.good.items() if seconds >= state.needed]
        lacking = [look.plain(kind, 12).upper() for kind, seconds in state.good.items() if seconds < state.needed]
        return f"resting baseline of {' and '.join(enough)}" + (f", not of {', '.join(lacking)}" if lacking else "")

    def say(self, text: str, colour: str) -> None:
        if self.reason.text() != text:
            self.reason.setText(text)
            self.reason.setStyleSheet(f"color: {colour};")

    def resizeEvent(self, event: QResizeEvent) -> None:  # noqa: N802
        super().resizeEvent(event)
        self.arrange()

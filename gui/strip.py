"""One stream's plot: every channel a row, with what is known of it: its scale, its beats, what is wrong with it."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
import pyqtgraph as pg
from numpy.typing import NDArray

from devices.api import StreamInfo
from gui import look, plots
from gui.history import History, Moments, stacked
from realtime.api import Shown
from realtime.traces import row_rate

MOST_CHANNELS = 64
STEPS = tuple(m * 10.0**e for e in range(-3, 6) for m in (1.0, 2.0, 5.0))
MICROVOLTS = {"uv": 1.0, "µv": 1.0, "microvolts": 1.0, "mv": 1e3, "millivolts": 1e3, "v": 1e6, "volts": 1e6}
MOST_BEATS = 50_000
"""More than a heart beats in eight hours."""
MARGIN = 66.0
"""Pixels right of the newest sample, for the scale bar."""
ERASED = 0.03
"""Share of the width that a sweep leaves free before the oldest samples."""
GAINS = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0)
"""Of one channel beside those of its strip."""


def nice(value: float) -> float:
    """The first of 1, 2, 5, 10, ... that is not below ``value``."""
    return next((step for step in STEPS if step >= value), STEPS[-1])


def written(value: float, unit: str) -> str:
    """A scale in words: 50 µV, 1 mV, 2 V."""
    if unit == "µV" and abs(value) >= 1e6:
        value, unit = value / 1e6, "V"
    elif unit == "µV" and abs(value) >= 1000:
        value, unit = value / 1000, "mV"
    return f"{value:.4g} {unit}".strip().replace("-", "−")


@dataclass(frozen=True, slots=True)
class View:
    """What part of the session is on the screen, on the session clock; x is seconds since ``start``."""

    start: float
    now: float
    """The right end; where a sweep is."""
    seconds: float
    sweep: bool = False
    """The newest samples write over the oldest, from left to right."""

    @property
    def origin(self) -> float:
        """Where the picture begins at the left."""
        if not self.sweep:
            return self.now - self.seconds
        return self.start + math.floor((self.now - self.start) / self.seconds) * self.seconds

    @property
    def oldest(self) -> float:
        """Of what is seen."""
        return self.now - self.seconds * (1.0 - ERASED * self.sweep)

    @property
    def left(self) -> float:
        return self.origin - self.start

    @property
    def right(self) -> float:
        return self.left + self.seconds

    def x(self, time: float) -> float:
        """Where ``time`` stands."""
        return time - self.start + (self.seconds if self.sweep and time < self.origin else 0.0)

    def when(self, x: float) -> float:
        """Seconds of the session that stand at ``x``."""
        return x - self.seconds if self.sweep and x > self.now - self.start else x

    def places(self, times: NDArray[np.float64]) -> NDArray[np.float64]:
        """As `x`, of many."""
        return times - self.start + np.where(times < self.origin, self.seconds if self.sweep else 0.0, 0.0)


@dataclass(slots=True)
class Channel:
    """What was chosen for one row, for the eye alone."""

    shown: bool = True
    gain: float = 1.0
    bad: bool = False
    """Marked by hand."""


@dataclass(slots=True)
class Choices:
    """What was chosen for the rows of a stream, by their labels."""

    channels: dict[str, Channel] = field(default_factory=dict)
    order: list[str] = field(default_factory=list)
    """Labels that were moved, and those around them; others follow as they come."""

    def of(self, label: str) -> Channel:
        return self.channels.setdefault(label, Channel())

    def sorted(self, labels: Iterable[str]) -> list[int]:
        """The columns of ``labels`` in the chosen order."""
        places = {label: place for place, label in enumerate(self.order)}
        named = list(enumerate(labels))
        return [column for column, _ in sorted(named, key=lambda one: places.get(one[1], len(places) + one[0]))]


class Strip:
    """One stream's plot: every channel a row, a scale bar at the right."""

    def __init__(self, stream: StreamInfo, plot: pg.PlotItem) -> None:
        self.stream = stream
        self.plot = plot
        self.shown = Shown(stream.key, stream.channels)
        self.choices = Choices()
        factor = MICROVOLTS.get(stream.unit.strip().lower())
        self.factor = factor or 1.0
        self.unit = "µV" if factor else look.plain(stream.unit, 8)
        self.scale = 50.0 if stream.kind == "eeg" else 1000.0
        self.fixed = False
        self.zoom = 1.0
        self.poor: frozenset[int] = frozenset()
        """Columns of channels that the engine found bad."""
        self.colour = {"eeg": look.theme.eeg, "ecg": look.theme.ecg}.get(stream.kind, look.theme.other)
        self.curve = pg.PlotCurveItem(pen=pg.mkPen(self.colour, width=1), antialias=True)
        self.poor_curve = pg.PlotCurveItem(pen=pg.mkPen(look.theme.bad, width=1), antialias=True)
        self.aside_curve = pg.PlotCurveItem(pen=pg.mkPen(look.color(look.theme.muted, 130), width=1), antialias=True)
        self.crossed = pg.PlotCurveItem(pen=pg.mkPen(look.theme.muted, width=1), connect="pairs")
        self.beats: Moments[str] = Moments(MOST_BEATS)
        self.ticks = pg.PlotCurveItem(pen=pg.mkPen(look.theme.text, width=2), connect="pairs")
        self.waves: Moments[tuple[str, NDArray[np.float64]]] = Moments(MOST_BEATS)
        self.wave_bars = [
            pg.PlotCurveItem(pen=pg.mkPen(colour, width=width), connect="pairs")
            for colour, width in ((look.theme.accent, 3), (look.theme.text, 3), (look.theme.good, 3))
        ]
        self.bar = pg.PlotCurveItem(pen=pg.mkPen(look.theme.text, width=2))
        self.bar_text = pg.TextItem(color=look.theme.text, anchor=(0, 0.5))
        self.bar_text.setFont(look.font(12))
        self.note = pg.TextItem("waiting for the first samples", color=look.theme.muted, anchor=(0.5, 0.5))
        self.note.setFont(look.font(13))
        self.eraser = pg.LinearRegionItem(
            movable=False, brush=look.color(look.theme.accent, 40), pen=pg.mkPen(look.theme.accent)
        )
        self.eraser.hide()
        for item in (
            *(self.curve, self.poor_curve, self.aside_curve, self.crossed, self.ticks, *self.wave_bars),
            *(self.bar, self.bar_text, self.note, self.eraser),
        ):
            plot.addItem(item, ignoreBounds=True)
        self.bad: frozenset[str] = frozenset()
        self.pasts: dict[tuple[tuple[str, ...], str, bool], History] = {}
        self.come_again = False
        self.view: View | None = None
        self.lay_out()

    # -- what is drawn -----------------------------------------------------------------------------------------------

    def lay_out(self) -> None:
        """A row for every channel of what is shown."""
        self.labels = self.shown.labels[:MOST_CHANNELS]
        self.names = [look.plain(name, 12) for name in self.labels]
        recorded = (self.stream.channels, "as recorded", False)
        key = (self.shown.labels, self.shown.reference, self.shown.repair)
        for other in [other for other in self.pasts if other not in (recorded, key)]:
            del self.pasts[other]  # two at once are as much memory as a wide stream may have
        if key not in self.pasts:
            self.pasts[key] = History(len(self.names), row_rate(max(self.stream.rate, 1.0)))
        self.history = self.pasts[key]
        self.arrange()

    def arrange(self) -> None:
        """Place the rows that are chosen, in the order that is chosen."""
        self.drawn = [
            column for column in self.choices.sorted(self.labels) if self.choices.of(self.labels[column]).shown
        ]
        self.offsets = -np.arange(len(self.drawn), dtype=np.float64)
        self.low, self.high = (0.2 - len(self.drawn), 1.2) if len(self.drawn) > 1 else (-0.75, 1.15)
        self.plot.setYRange(self.low, self.high, padding=0)
        self.name_channels()

    def show(self, shown: Shown) -> None:
        """From here on traces are what ``shown`` says."""
        before, self.shown = self.shown, shown
        chosen = (shown.labels, shown.reference, shown.repair)
        if chosen != (before.labels, before.reference, before.repair):
            self.lay_out()
            self.come_again = True
        elif shown.anew:
            self.come_again = True
        self.curve.setPen(pg.mkPen(look.theme.other if shown.altered else self.colour, width=1))
        self.name_channels()

    def append(self, times: NDArray[np.float64], data: NDArray[np.float32], *, gap: bool) -> None:
        """Take in rows of what is shown."""
        if self.come_again and len(times):
            # What the engine still has is sent anew when something else is shown; older rows stay as they were drawn.
            self.come_again = False
            self.history.cut(float(times[0]))
            gap = gap or not times[0] - self.history.newest < 3.0 / max(self.stream.rate, 1.0)
        self.history.append(times, data[:, : len(self.labels)], gap=gap)

    def forget(self) -> None:
        """Nothing has come yet."""
        for history in self.pasts.values():
            history.forget()
        self.beats.clear()
        self.waves.clear()

    @property
    def oldest(self) -> float:
        """Session clock of the oldest samples that were kept, drawn in whatever way; NaN without any."""
        return min((past.oldest for past in self.pasts.values() if math.isfinite(past.oldest)), default=math.nan)

    def name_channels(self) -> None:
        """Have the names written anew: crossed when bad, circled when marked by hand, ≈ when interpolated."""
        made = set(self.shown.interpolated)
        bad = self.bad - made
        self.poor = frozenset(row for row, label in enumerate(self.labels) if not bad.isdisjoint(self.behind(label)))
        self.named = -1.0  # to be written when it is known how high a row is

    def write_names(self) -> None:
        """The names that have room; one lead alone has its voltages beside it."""
        height = self.plot.getViewBox().height()
        if height == self.named:
            return
        self.named = height
        axis = self.plot.getAxis("left")
        pixels = height / max(self.high - self.low, 1e-9)
        if len(self.drawn) == 1:
            steps = (-0.5, 0.5, 1.0) if pixels >= 32 else (1.0,)
            values = [(step, written(step * self.scale / self.zoom / self.gain(0), self.unit)) for step in steps]
            axis.setTicks([[(0.0, self.name(0)), *values]])
            return
        every = max(1, math.ceil(14.0 / max(pixels, 0.1)))
        ticks: list[tuple[float, str]] = []
        last, told = -every, False
        for row in range(len(self.drawn)):
            name = self.name(row)
            special = name != self.names[self.drawn[row]]
            if special and row - last < every and not told:
                ticks.pop()  # a name of which there is something to say is not the one that is left out
            if special or row - last >= every:
                ticks.append((-float(row), name))
                last, told = row, special
        axis.setTicks([ticks])

    def name(self, row: int) -> str:
        """Of a row that is drawn, with what is to be said of it."""
        column = self.drawn[row]
        label = self.labels[column]
        choice = self.choices.of(label)
        made = not set(self.shown.interpolated).isdisjoint(self.behind(label))
        sign = "⊗ " if choice.bad else "✕ " if column in self.poor else "≈ " if made else ""
        return sign + self.names[column] + (f" ×{choice.gain:g}" if choice.gain != 1.0 else "")

    def gain(self, row: int) -> float:
        return self.choices.of(self.labels[self.drawn[row]]).gain

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

    # -- drawing -----------------------------------------------------------------------------------------------------

    def fit(self, rows: NDArray[np.float32]) -> None:
        """Choose the scale from centred ``rows`` (m, channels), changing it only when it is clearly off."""
        if self.fixed or not rows.size:
            return
        with np.errstate(invalid="ignore"):
            spread = np.abs(rows)
        seen = spread[np.isfinite(spread)]
        if not seen.size:
            return
        if rows.shape[1] > 1:
            heights = np.array([np.quantile(c[np.isfinite(c)], 0.95) if np.isfinite(c).any() else 0 for c in spread.T])
            wanted = 1.3 * float(np.median(heights[heights > 0])) if (heights > 0).any() else 0.0
        else:
            wanted = float(np.quantile(seen, 0.998)) / 1.1
        if wanted > 1.15 * self.scale or 0 < wanted < self.scale / 2.6:
            self.scale = nice(wanted / 1.15)
            self.named = -1.0

    def draw(self, view: View, *, fit: bool, waves: bool = False) -> None:
        """Draw what ``view`` shows."""
        self.view = view
        width = self.plot.getViewBox().width()
        times, data = self.history.between(view.oldest, view.now, int(max(width, 200)))
        rows = data[:, self.drawn] * np.float32(self.factor)
        self.tell(empty=not rows.size, view=view)
        if rows.size:
            rows = rows - middle(rows)
            if fit:
                used = [row for row, column in enumerate(self.drawn) if not self.choices.of(self.labels[column]).bad]
                self.fit(rows[:, used])
        gains = np.array([self.gain(row) for row in range(len(self.drawn))], np.float32)
        rows = rows * (gains * np.float32(self.zoom / self.scale))
        times, rows = unrolled(view, times, rows)
        aside = [row for row, column in enumerate(self.drawn) if self.choices.of(self.labels[column]).bad]
        poor = [row for row, column in enumerate(self.drawn) if column in self.poor and row not in aside]
        good = [row for row in range(len(self.drawn)) if row not in aside and row not in poor]
        for curve, chosen in ((self.curve, good), (self.poor_curve, poor), (self.aside_curve, aside)):
            x, y = stacked(times, rows[:, chosen], self.offsets[chosen])
            curve.setData(x, y, connect="finite")
        self.crossed.setData(
            np.tile([view.left, view.right], len(aside)), np.repeat(self.offsets[aside], 2) if aside else np.empty(0)
        )
        self.write_names()
        self.draw_beats(view)
        self.draw_waves(view, shown=waves)
        self.draw_frame(view, width)

    def tell(self, *, empty: bool, view: View) -> None:
        """Why nothing is drawn."""
        self.note.setVisible(empty)
        if not empty:
            return
        elsewhere = [past for past in self.pasts.values() if past is not self.history]
        if not self.drawn:
            words = "all channels are hidden"
        elif any(past.oldest <= view.now and past.newest >= view.oldest for past in elsewhere):
            words = "drawn against another reference then: choose it to see what came"
        elif math.isfinite(self.history.newest):
            words = "nothing came in this time"
        else:
            words = "waiting for the first samples"
        self.note.setText(words)

    def draw_beats(self, view: View) -> None:
        """A tick above the lead for every R peak that is in view."""
        rows = {self.labels[column]: row for row, column in enumerate(self.drawn)}
        found = self.beats.between(view.oldest, view.now)
        shown = [(view.x(time), rows[channel]) for time, channel in found if channel in rows]
        x = np.repeat([time for time, _ in shown], 2)
        # One lead has the strip to itself; among others the tick stands above its row.
        low, high = (1.01, 1.13) if len(self.drawn) == 1 else (0.32, 0.5)
        y = np.array([(low - row, high - row) for _, row in shown]).reshape(-1)
        self.ticks.setData(x, y)

    def draw_waves(self, view: View, *, shown: bool) -> None:
        """Bars below the lead from onset to offset of P, QRS and T of every beat that is in view."""
        rows = {self.labels[column]: row for row, column in enumerate(self.drawn)}
        found = self.waves.between(view.oldest, view.now) if shown else []
        seen = [(rows[name], points) for _, (name, points) in found if name in rows]
        points = np.array([one for _, one in seen]).reshape(-1, 9)
        level = (-0.62 if len(self.drawn) == 1 else -0.4) - np.array([float(row) for row, _ in seen])
        for wave, bars in enumerate(self.wave_bars):
            ends = view.places(points[:, [3 * wave, 3 * wave + 2]])
            whole = np.isfinite(ends).all(axis=1) & (ends[:, 0] <= ends[:, 1])  # not across the end of a sweep
            bars.setData(ends[whole].reshape(-1), np.repeat(level[whole], 2))

    def draw_frame(self, view: View, width: float) -> None:
        """The time axis, the bar that says how high a microvolt is, and where a sweep is."""
        per_px = view.seconds / max(width - MARGIN, 1.0)
        self.plot.setXRange(view.left, view.right + MARGIN * per_px, padding=0)
        # Not the row of the last channel: the time axis is there.
        foot = self.offsets[-1] / 2 - 0.5 if len(self.drawn) > 1 else -0.25
        x = view.right + 9 * per_px
        self.bar.setData(np.array([x, x]), np.array([foot, foot + 1.0]))
        self.bar_text.setText(written(self.scale / self.zoom, self.unit))
        self.bar_text.setPos(x + 3 * per_px, foot + 0.5)
        self.note.setPos(view.left + view.seconds / 2, (self.low + self.high) / 2)
        self.eraser.setVisible(view.sweep)
        if view.sweep:
            at = view.now - view.start
            self.eraser.setRegion((at, min(at + ERASED * view.seconds, view.right)))
            plots.rewrite(self.plot.getAxis("bottom"))

    def when(self, x: float) -> float:
        """Seconds of the session that stand at ``x`` of what was drawn last."""
        return self.view.when(x) if self.view is not None else x

    def row_at(self, y: float) -> int:
        """The column of the channel whose row is nearest to ``y``; -1 when none is drawn."""
        if not self.drawn:
            return -1
        return self.drawn[min(max(round(-y), 0), len(self.drawn) - 1)]


def unrolled(
    view: View, times: NDArray[np.float64], rows: NDArray[np.float32]
) -> tuple[NDArray[np.float64], NDArray[np.float32]]:
    """Where rows stand, x (m,) and rows (m, channels); those of a sweep before this one come after a break."""
    split = int(np.searchsorted(times, view.origin)) if view.sweep else 0
    x = view.places(times)
    if split in (0, len(times)):
        return x, rows
    nothing = np.full((1, rows.shape[1]), np.nan, np.float32)
    return np.concatenate([x[split:], x[:1], x[:split]]), np.concatenate([rows[split:], nothing, rows[:split]])


def middle(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    """Middle of every channel of ``rows`` (m, channels), NaN left out; 0 for a channel without a value."""
    finite = np.isfinite(rows)
    if finite.all():
        centre: NDArray[np.float32] = np.median(rows, axis=0)
        return centre
    columns = [np.median(c[ok]) if ok.any() else 0.0 for c, ok in zip(rows.T, finite.T, strict=True)]
    return np.array(columns, np.float32)

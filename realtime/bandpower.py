"""Brain rhythms of a stream, once a second: band powers, aperiodic slope, alpha peak, asymmetry, values for a map.

Every channel of the stream at the stream's own rate, whatever the model takes. However a recording is cut into chunks,
the figures are the same to the last bit: a report is made when the first sample at or after its time has come.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import signal

from devices.api import Chunk, StreamInfo, unit_name
from models.api import InputSpec, Verdict
from models.electrodes import is_electrode, normalised, on_map
from realtime.api import RHYTHM_SECONDS
from realtime.filters import BRIDGE, HOLE, MISSING, RESTART, SETTLING, Filter, design
from realtime.intake import CONFIRMED, Intake, Pick
from realtime.quality import assess
from realtime.rereference import Montage, as_recorded
from realtime.ring import Ring
from realtime.sources import LEAST_RATE, MICROVOLTS
from realtime.unfiltered import Unfiltered

BANDS = {"delta": (1.0, 4.0), "theta": (4.0, 8.0), "alpha": (8.0, 13.0), "beta": (13.0, 30.0), "gamma": (30.0, 45.0)}
"""Hz, the lower edge included and the upper one not. Below 1 Hz is mostly drift, above 45 Hz mains and muscle."""
SECONDS = RHYTHM_SECONDS
SEGMENT = 2.0
"""Seconds of a Welch segment, Hann window, half overlapping: a resolution of 0.5 Hz and three segments in a report."""
HOP = 1.0
"""Reports lie at whole multiples of this on the session clock."""
SLOW = 30
"""Reports whose spectra are averaged for the aperiodic slope and the alpha peak: one spectrum of 4 s is too rough."""
SLOW_LEAST = 8
"""Good reports among them without which neither is given."""
MOST_MISSING = 0.05
"""Share of a channel's window that may be interpolated."""
OFF_RATE = 0.05
"""By this share a stream may run faster or slower than it says, for rhythms and heart alike. The stamps of the intake
follow the true rate up to it: while they find it, in the first minute, RMSSD is off by up to 0.5 ms at 1 %, 1 ms at 2 %
and 5 ms at 4 to 5 %, and by less than 0.3 ms later; a source half as fast as it says makes 23 ms of nothing."""
SLOPE_RANGE = (2.0, 40.0)
"""Hz, for the aperiodic fit."""
PEAK_RANGE = (7.0, 13.5)
"""Hz, where the alpha peak of an adult is looked for."""
PEAK_LEAST = 0.25
"""log10 of power above the aperiodic line that makes a peak: 1.8 times. Noise without a peak rises by 1.5 times."""
FRONTAL_PAIRS = (("F3", "F4"), ("F7", "F8"), ("AF3", "AF4"), ("AF7", "AF8"), ("FP1", "FP2"))
"""Left and right, the most established first. F3 and F4 are the pair of Allen, Coan & Nazarian, Biol Psychol 67, 2004;
the others serve headsets that lack them, the frontopolar pairs with more of the eyes in it."""
RESUME = 60
"""Reports in a row, without a sample in any of them, that a hole gives; it goes on after the hole."""
BATCH = 4096


@dataclass(frozen=True, slots=True, eq=False)
class Rhythms:
    """Of ``stream`` over the `SECONDS` before ``time`` (session clock). NaN where a channel is not valid.

    ``labels`` (channels,) are those of the montage. Power in band b of channel c is ``absolute[c, b]`` in uV^2 and
    ``relative[c, b]`` of the sum over all bands, in the order of `BANDS`.
    """

    time: float
    stream: str
    labels: tuple[str, ...]
    absolute: NDArray[np.float64]
    relative: NDArray[np.float64]
    theta_beta: NDArray[np.float64]
    """(channels,) theta over beta power; Cz or Fz is what is usually quoted."""
    slope: NDArray[np.float64]
    """(channels,) exponent of the aperiodic spectrum, 1/f^x has -x; over the last `SLOW` reports."""
    peak: NDArray[np.float64]
    """(channels,) Hz of the largest alpha peak above the aperiodic line; NaN where there is none."""
    asymmetry: tuple[tuple[str, float], ...]
    """("F4-F3", ln alpha right - ln alpha left) for the `FRONTAL_PAIRS` that are there, the most established first.

    Positive: more alpha, that is less activity, on the right. It depends on the reference."""
    invalid: tuple[str, ...]
    """(channels,) why a channel has no figures, in words; "" where it has."""
    verdicts: tuple[Verdict, ...] = ()
    """Of the columns that were judged, in their order."""

    @property
    def reason(self) -> str:
        """Why there is no figure at all; "" when at least one channel is valid."""
        return self.invalid[0] if self.invalid and all(self.invalid) else ""

    def band(self, name: str, *, relative: bool = False) -> NDArray[np.float64]:
        """Power (channels,) in the band of that name."""
        return (self.relative if relative else self.absolute)[:, list(BANDS).index(name)]


def spectrum(samples: NDArray[np.float64], rate: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Frequencies (f,) and Welch power density (channels, f) in unit^2/Hz of ``samples`` (n, channels)."""
    segment = min(round(SEGMENT * rate), len(samples))
    frequencies, density = signal.welch(
        samples.T, rate, window="hann", nperseg=segment, noverlap=segment // 2, detrend="constant"
    )
    return np.asarray(frequencies), np.asarray(density)


def band_powers(frequencies: NDArray[np.float64], density: NDArray[np.float64]) -> NDArray[np.float64]:
    """Power (channels, bands) in unit^2 of a density (channels, f): the sum over the bins of a band times their width.

    A band that reaches beyond 0.9 of the Nyquist frequency is NaN.
    """
    width = frequencies[1] - frequencies[0]
    powers = np.full((len(density), len(BANDS)), np.nan)
    for at, (low, high) in enumerate(BANDS.values()):
        if high <= 0.9 * frequencies[-1]:
            # Half a bin of tolerance for rounding, none of it at the edges: these are multiples of the bin width at
            # whole rates only.
            inside = (frequencies >= low - 1e-9) & (frequencies < high - 1e-9)
            powers[:, at] = density[:, inside].sum(axis=1) * width
    return powers


def aperiodic(
    frequencies: NDArray[np.float64], density: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Exponent and offset (channels,) each of the line through log10 density (channels, f) over log10 frequency.

    Peaks stand above the line and pull it: bins further above it than its scatter below it are left out, again and
    again (Donoghue et al., Nat Neurosci 23, 2020, remove them as Gaussians). NaN where a density is not above zero.
    """
    low, high = SLOPE_RANGE
    inside = (frequencies >= low) & (frequencies <= min(high, 0.9 * frequencies[-1]))
    x = np.log10(frequencies[inside])
    with np.errstate(divide="ignore", invalid="ignore"):
        y = np.log10(density[:, inside])
    usable: NDArray[np.bool_] = np.asarray(np.isfinite(y).all(axis=1))
    y = np.where(usable[:, None], y, 0.0)
    kept = np.ones(y.shape, np.bool_)
    slope, offset = _lines(x, y, kept)
    for _ in range(6):
        left = y - (offset[:, None] + slope[:, None] * x)
        scatter = np.sqrt((np.minimum(left, 0.0) ** 2).sum(axis=1) / np.maximum((left < 0).sum(axis=1), 1))
        kept = np.asarray(left <= scatter[:, None] + 1e-12)
        slope, offset = _lines(x, y, kept)
    return np.where(usable, slope, np.nan), np.where(usable, offset, np.nan)


def _lines(
    x: NDArray[np.float64], y: NDArray[np.float64], kept: NDArray[np.bool_]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Slope and offset of the least-squares line of every row of ``y`` (rows, n) over ``x`` (n,), of what is kept."""
    n = np.maximum(kept.sum(axis=1), 1)
    mean_x, mean_y = (kept * x).sum(axis=1) / n, (kept * y).sum(axis=1) / n
    away = kept * (x - mean_x[:, None])
    slope = (away * y).sum(axis=1) / np.maximum((away**2).sum(axis=1), 1e-12)
    return slope, mean_y - slope * mean_x


def alpha_peaks(
    frequencies: NDArray[np.float64],
    density: NDArray[np.float64],
    slope: NDArray[np.float64],
    offset: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Hz (channels,) of the largest local maximum above the aperiodic line in `PEAK_RANGE`, NaN where none stands out.

    Between the bins a parabola through the three highest is followed.
    """
    peaks = np.full(len(density), np.nan)
    low, high = PEAK_RANGE
    bins = np.flatnonzero((frequencies >= low) & (frequencies <= high))
    if not len(bins) or bins[-1] + 1 >= len(frequencies):
        return peaks
    around = slice(bins[0] - 1, bins[-1] + 2)
    with np.errstate(divide="ignore", invalid="ignore"):
        above = np.log10(density[:, around]) - offset[:, None] - slope[:, None] * np.log10(frequencies[around])
    width = frequencies[1] - frequencies[0]
    for c in np.flatnonzero(np.isfinite(above).all(axis=1)):
        row = above[c]
        tops = 1 + np.flatnonzero((row[1:-1] >= row[:-2]) & (row[1:-1] >= row[2:]) & (row[1:-1] > PEAK_LEAST))
        if len(tops):
            top = tops[row[tops].argmax()]
            bend = row[top - 1] - 2 * row[top] + row[top + 1]
            shift = 0.5 * (row[top - 1] - row[top + 1]) / bend if bend < 0 else 0.0
            peaks[c] = frequencies[bins[0] - 1 + top] + shift * width
    return peaks


def asymmetry(labels: tuple[str, ...], alpha: NDArray[np.float64]) -> tuple[tuple[str, float], ...]:
    """ln right - ln left of alpha power (channels,) for each of `FRONTAL_PAIRS` that ``labels`` has; NaN where unknown.

    >>> asymmetry(("Fp1", "F3", "F4"), np.array([1.0, 2.0, 2.0]))
    (('F4-F3', 0.0),)
    """
    places = {normalised(label): row for row, label in reversed(list(enumerate(labels)))}
    found = []
    for left, right in FRONTAL_PAIRS:
        if left in places and right in places:
            a, b = float(alpha[places[left]]), float(alpha[places[right]])
            found.append((f"{right}-{left}", math.log(b) - math.log(a) if a > 0 and b > 0 else math.nan))
    return tuple(found)


BEHIND, HOLES = 0.02, 0.25
"""Smoothed stamps follow up to OFF_RATE. Those of a slower source fall behind by this share and, again and again, into
holes, which are filled: together they tell. Packets that are really lost leave the others where they belong. At half
the rate every other sample is a hole; no loss in pieces below BRIDGE comes to the share HOLES."""


class Pace:
    """The stamps of the newest `SECONDS` of a stream, and whether they come at the rate it says. Belongs to one thread.

    ``write`` them in their order, at most `BATCH` at once; short holes are filled, longer ones ``clear`` it.
    """

    def __init__(self, rate: float) -> None:
        self.rate = rate
        self.length = round(SECONDS * rate)
        """Samples."""
        self._bridge = round(BRIDGE * rate)
        self._times = Ring(self.length + 2 * BATCH, 2, np.float64)

    def write(self, stamps: NDArray[np.float64], *, absent: bool = False) -> None:
        """Append ``stamps`` (n,), seconds, of samples, or of what is ``absent`` and stands for a hole."""
        rows = np.empty((len(stamps), 2))
        rows[:, 0], rows[:, 1] = stamps, absent
        self._times.write(rows)

    def clear(self) -> None:
        """As new."""
        self._times.clear()

    @property
    def written(self) -> int:
        """Stamps since it was cleared, those of the holes among them."""
        return self._times.written

    @property
    def first(self) -> float:
        """Of the newest ``length`` stamps, or of what there is; NaN without any."""
        return (
            float(self._times.view(max(0, self.written - self.length), self.written)[0, 0])
            if self.written
            else math.nan
        )

    @property
    def last(self) -> float:
        """The newest stamp; NaN without any."""
        return float(self._times.view(self.written - 1, self.written)[0, 0]) if self.written else math.nan

    @property
    def missing(self) -> float:
        """Share of the newest ``length`` stamps that stand for holes; NaN without any."""
        at = max(0, self.written - self.length)
        return float(self._times.view(at, self.written)[:, 1].mean()) if self.written else math.nan

    def between(self, until: float) -> NDArray[np.float64]:
        """Stamps (n,) that are missing between the last one and ``until``, at most those of `BRIDGE` seconds."""
        if not self.written:
            return np.zeros(0)
        last = self.last
        missing = min(self._bridge, max(0, round((until - last) * self.rate) - 1))
        return last + (until - last) * np.arange(1, missing + 1) / (missing + 1)

    def fault(self) -> str:
        """Why the stream does not run at its rate, in words; "" when it does, or when it is too early to tell."""
        if self.written < self.length:
            return ""
        span = self.last - self.first + 1 / self.rate
        if span < (1 - OFF_RATE) * SECONDS:
            return f"{SECONDS:g} s of samples came in {span:.1f} s: not the {self.rate:g} Hz it says"
        if span > (1 + OFF_RATE) * SECONDS:
            return f"{SECONDS:g} s of samples took {span:.1f} s: not the {self.rate:g} Hz it says"
        missing = self.missing
        there = (1 - missing) * SECONDS
        if missing > HOLES or (span > (1 + BEHIND) * SECONDS and there < (1 - OFF_RATE) * span):
            return f"{there:.1f} s of samples took {span:.1f} s: not the {self.rate:g} Hz it says"
        return ""


class _Judge:
    """What `realtime.quality` says of ``columns`` of a stream over the very samples of a report, at the stream's rate.

    ``take`` what was let in, then ``write`` it in stretches, as the samples themselves are.
    """

    def __init__(self, stream: StreamInfo, columns: Sequence[int], scale: float) -> None:
        self.columns = tuple(columns)
        self._rate = stream.rate
        self._spec = InputSpec(kind="eeg", channels=tuple(stream.channels[column] for column in columns))
        width = len(self.columns)
        self._pick = Pick(self.columns, scale, stream.rate, BATCH)
        self._filter = Filter(design(self._spec, stream.rate), width, stream.rate)
        self._unfiltered = Unfiltered(stream.rate, width, self._filter.sos)
        self._length = round(SECONDS * stream.rate)
        self._values = Ring(self._length + 2 * BATCH, width, np.float32)
        self._flags = Ring(self._length + 2 * BATCH, width, np.uint8)
        self._absent = np.zeros(width, np.bool_)
        self._coming = np.zeros((0, width), np.float32), np.zeros((0, width), np.uint8)

    def take(
        self,
        raw: NDArray[np.float32],
        stamps: NDArray[np.float64],
        keep: NDArray[np.int64],
        marks: NDArray[np.uint8],
    ) -> None:
        samples, flags = self._pick.run(raw, keep, marks)
        self._unfiltered.take(stamps, samples, flags)
        self._filter.run(samples, flags, marks)
        self._coming = samples.astype(np.float32), flags

    def write(self, begin: int, stop: int) -> None:
        """These of the samples that were taken last."""
        values, flags = self._coming
        self._values.write(values[begin:stop])
        self._flags.write(flags[begin:stop])

    def fill(self, count: int) -> None:
        """So many samples are missing."""
        self._values.write(np.zeros((count, len(self.columns)), np.float32))
        self._flags.write(np.full((count, len(self.columns)), MISSING, np.uint8))

    def clear(self) -> None:
        self._values.clear()
        self._flags.clear()

    def reset(self) -> None:
        self._pick.reset()
        self._filter.reset()
        self._unfiltered.reset()
        self.clear()

    def verdicts(self, time: float) -> tuple[Verdict, ...]:
        """One for each of the columns over the newest window, which ends at ``time``."""
        last = self._values.written
        flags = self._flags.view(last - self._length, last)
        # The filters settle after a start: for them, not for the figures, that is missing.
        settled = int((flags & SETTLING == 0).any(axis=1).argmax())
        values = self._values.view(last - self._length + settled, last)
        return assess(
            self._spec,
            np.ascontiguousarray(values.T),
            np.ascontiguousarray(flags[settled:].T),
            self._absent,
            rate=self._rate,
            raw=self._unfiltered.over(time - SECONDS, time),
        )


class BandPower:
    """Turns the chunks of one stream into `Rhythms`. Belongs to one thread.

    A stream that is silent gives nothing. Of the columns ``judged``, those that are bad by `realtime.quality` over the
    window of a report have no figures in it; their thresholds are in uV, and a unit that is not known is taken as that.
    """

    def __init__(self, stream: StreamInfo, montage: Montage | None = None, *, judged: Sequence[int] = ()) -> None:
        """ValueError in words when the stream cannot have rhythms."""
        if not (math.isfinite(stream.rate) and stream.rate >= LEAST_RATE):
            raise ValueError(f"{stream.key}: {stream.rate:g} Hz; band powers need at least {LEAST_RATE:g} Hz")
        if not stream.channels:
            raise ValueError(f"{stream.key}: no channel to take band powers of")
        self.stream = stream
        self.montage = montage or as_recorded(stream.channels)
        if self.montage.matrix.shape[1] != len(stream.channels):
            raise ValueError(
                f"{stream.key}: a montage of {self.montage.matrix.shape[1]} channels, the stream has "
                f"{len(stream.channels)}"
            )
        self.positions = on_map(self.montage.labels)
        """(channels, 2) for a topographic map, see `models.electrodes.on_map`; NaN where the label names no place."""
        self._scale = MICROVOLTS.get(unit_name(stream.unit), 1.0)
        self._pace = Pace(stream.rate)
        self._length = self._pace.length
        self._bridge = round(BRIDGE * stream.rate)
        # What the slow figures look at, not the hundreds of bins above it.
        self._bins = min(round(SEGMENT * stream.rate) // 2 + 1, math.ceil(BANDS["gamma"][1] * SEGMENT) + 1)
        width = len(stream.channels)
        self._intake = Intake(stream.rate, BATCH - CONFIRMED, width)
        self._rows = Ring(self._length + 2 * BATCH, width, np.float32)
        self._slow: deque[NDArray[np.float64]] = deque(maxlen=SLOW)
        self._judge = _Judge(stream, judged, self._scale) if len(judged) else None
        self.reset()

    @property
    def mapped(self) -> bool:
        """Whether at least one channel has a place on the map."""
        return any(is_electrode(label) for label in self.montage.labels)

    def reset(self) -> None:
        """As new: a replay starts over."""
        self._intake.reset()
        self._pace.clear()
        self._rows.clear()
        if self._judge is not None:
            self._judge.reset()
        self._slow.clear()
        self._next: int | None = None
        self._begun = False
        self._torn = False
        self.skipped = 0
        """Reports not given because they lay in a long hole."""

    def push(self, chunk: Chunk) -> list[Rhythms]:
        """Take a chunk of the stream; the reports that are now due."""
        if chunk.data.shape != (len(chunk.times), len(self.stream.channels)):
            raise ValueError(
                f"{chunk.stream}: {len(chunk.times)} stamps of {len(self.stream.channels)} channels came with data "
                f"{chunk.data.shape}"
            )
        found: list[Rhythms] = []
        for at in range(0, max(1, len(chunk.times)), BATCH - CONFIRMED):
            part = slice(at, at + BATCH - CONFIRMED)
            keep, marks, stamps = self._intake.admit(chunk.times[part], chunk.single[part], 0 if at else chunk.lost)
            if len(keep):
                if self._judge is not None:
                    self._judge.take(self._intake.rows, stamps, keep, marks)
                found += self._take(stamps, marks, self._intake.rows[keep])
        return found

    def _take(self, stamps: NDArray[np.float64], marks: NDArray[np.uint8], rows: NDArray[np.float32]) -> list[Rhythms]:
        """Samples that were let in, in stretches that neither a hole nor a due report cuts."""
        if self._next is None:
            self._next = math.floor(stamps[0] / HOP) + 1
        found: list[Rhythms] = []
        begin = 0
        special = [int(i) for i in np.flatnonzero(marks)] + [len(stamps)]
        for stop in special:
            while begin < stop:
                # Reports are due before the first sample at or after their time.
                due = begin + int(stamps[begin:stop].searchsorted(self._next * HOP))
                self._write(stamps, rows, begin, due)
                begin = due
                if due < stop:
                    found += self._due(float(stamps[due]))
            if stop < len(stamps):
                found += self._due(float(stamps[stop]))
                if marks[stop] == RESTART:
                    self._pace.clear()
                    self._rows.clear()
                    if self._judge is not None:
                        self._judge.clear()
                    self._torn = self._begun
                elif marks[stop] == HOLE:
                    self._fill(float(stamps[stop]))
                self._write(stamps, rows, stop, stop + 1)
                begin = stop + 1
        return found

    def _write(self, stamps: NDArray[np.float64], rows: NDArray[np.float32], begin: int, stop: int) -> None:
        self._begun |= stop > begin
        self._pace.write(stamps[begin:stop])
        self._rows.write(np.ascontiguousarray(rows[begin:stop]))
        if self._judge is not None:
            self._judge.write(begin, stop)

    def _fill(self, until: float) -> None:
        """Rows of NaN for a short hole before ``until``, so that samples keep their distance."""
        between = self._pace.between(until)
        self._pace.write(between)
        self._rows.write(np.full((len(between), len(self.stream.channels)), np.nan, np.float32))
        if self._judge is not None:
            self._judge.fill(len(between))

    def _due(self, now: float) -> list[Rhythms]:
        """The reports at or before ``now``, the stamp of a sample that is not part of them."""
        assert self._next is not None
        found: list[Rhythms] = []
        while self._next * HOP <= now:
            if len(found) == RESUME:
                resumed = math.floor(now / HOP)
                self.skipped += resumed - self._next
                self._next = resumed
            found.append(self._report(self._next * HOP))
            self._next += 1
        return found

    def _report(self, time: float) -> Rhythms:
        """From the newest samples, all of which lie before ``time``."""
        labels = self.montage.labels
        newest = self._pace.written
        reason = self._lacking(time)
        if reason:
            return self._nothing(time, (reason,) * len(labels))
        samples = self._rows.view(newest - self._length, newest).astype(np.float64) * self._scale
        missing = ~np.isfinite(samples)
        invalid = np.array([""] * len(labels), dtype=object)
        faults: dict[int, str] = {}
        for c in np.flatnonzero(missing.any(axis=0)).tolist():
            if fault := self._bridged(samples[:, c], missing[:, c]):
                faults[c] = fault
        verdicts: tuple[Verdict, ...] = ()
        if self._judge is not None:
            verdicts = self._judge.verdicts(time)
            for c, verdict in zip(self._judge.columns, verdicts, strict=True):
                if verdict.level == "bad":
                    faults.setdefault(c, verdict.reason)
        for c, fault in faults.items():
            samples[:, c] = np.nan
            named = "" if self.montage.labels == self.stream.channels else f"{self.stream.channels[c]}: "
            invalid[self.montage.matrix[:, c] != 0] = named + fault
        samples = self.montage.apply(samples)
        good = np.array([not fault for fault in invalid])
        frequencies, density = spectrum(np.where(good, samples, 0.0), self.stream.rate)
        flat = good & ~(density.sum(axis=1) > 0)
        invalid[flat] = "flat"
        density[~good | flat] = np.nan
        absolute = band_powers(frequencies, density)
        with np.errstate(invalid="ignore", divide="ignore"):
            relative = absolute / np.nansum(absolute, axis=1, keepdims=True)
            bands = dict(zip(BANDS, absolute.T, strict=True))
            ratio = bands["theta"] / bands["beta"]
        self._slow.append(density[:, : self._bins].copy())  # a view would keep all of it, megabytes a second
        slope, peak = self._slowly(frequencies[: self._bins])
        ok = ~np.isnan(absolute[:, 0])
        return Rhythms(
            time,
            self.stream.key,
            labels,
            absolute,
            relative,
            ratio,
            np.where(ok, slope, np.nan),
            np.where(ok, peak, np.nan),
            asymmetry(labels, bands["alpha"]),
            tuple(str(fault) for fault in invalid),
            verdicts,
        )

    def _lacking(self, time: float) -> str:
        """Why no channel can have figures; "" when all can."""
        if not self._pace.written:
            return "no samples"
        if time - self._pace.last > BRIDGE:
            return f"no samples for {time - self._pace.last:.1f} s"
        if self._pace.written < self._length:
            after = "after a gap" if self._torn else "so far"
            return f"{time - self._pace.first:.1f} s of signal {after}, {SECONDS:g} s are needed"
        return self._pace.fault()

    def _bridged(self, samples: NDArray[np.float64], missing: NDArray[np.bool_]) -> str:
        """Interpolates what is missing of a channel (n,) in place, or says why that cannot be done."""
        share = float(missing.mean())
        edges = np.flatnonzero(np.diff(np.concatenate(([0], missing.astype(np.int8), [0]))))
        longest = int((edges[1::2] - edges[::2]).max())
        if share > MOST_MISSING or longest > self._bridge:
            return f"{100 * share:.0f} % missing"
        at = np.arange(len(samples))
        samples[missing] = np.interp(at[missing], at[~missing], samples[~missing])
        return ""

    def _slowly(self, frequencies: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Slope and peak (channels,) of the mean spectrum of the last reports."""
        stack = np.stack(self._slow)
        there = np.isfinite(stack[:, :, 0])
        count = there.sum(axis=0)
        mean = np.where(there[:, :, None], stack, 0.0).sum(axis=0) / np.maximum(count, 1)[:, None]
        mean[count < SLOW_LEAST] = np.nan
        slope, offset = aperiodic(frequencies, mean)
        return slope, alpha_peaks(frequencies, mean, slope, offset)

    def _nothing(self, time: float, invalid: tuple[str, ...]) -> Rhythms:
        labels = self.montage.labels
        lost = np.full((len(labels), len(BANDS)), np.nan)
        none = np.full(len(labels), np.nan)
        self._slow.append(np.full((len(labels), self._bins), np.nan))
        return Rhythms(
            time,
            self.stream.key,
            labels,
            lost,
            lost.copy(),
            none,
            none.copy(),
            none.copy(),
            asymmetry(labels, none),
            invalid,
        )

"""What of a stream is drawn: as it came, or against another reference and repaired when a dashboard asks for it.

Record, model, quality, rhythms and heart never see any of it. A sample is shown by a matrix of the channels at its own
instant: nothing is delayed, and the same bits come out however the stream is cut into chunks.
"""

from __future__ import annotations

import contextlib
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from devices.api import Chunk, StreamInfo, unit_name
from models.api import Verdict
from models.electrodes import MASTOIDS, is_electrode, normalised
from realtime.api import SetDisplay, Shown, Traces
from realtime.repair import EYES, after, interpolated, without_blinks
from realtime.rereference import SCHEMES, Montage, MontageError, as_recorded, average, montage
from realtime.ring import Ring
from realtime.sources import MICROVOLTS, Picked
from realtime.traces import Thinner

KEPT = 30.0
"""Seconds as they came that are kept: another choice shows them anew, and blinks are learnt from them."""
MOST_KEPT = 16 << 20
"""Bytes of them in memory for a stream; wide and fast ones are kept for less long."""
LEARNING_RATE = 100.0
"""Hz, at least, of what blinks are learnt from: they end at 10 Hz, and all channels at full rate would take long."""
AGAIN = 5.0
"""Seconds of signal after which blinks that could not be learnt are tried again."""
RECOVERED = 10
"""Windows in a row in which a bad channel must be usable to be drawn as it comes again."""
_OTHER = re.compile(r"(a copy of |the same as )(.+?)((?: times .*|: bridged\?)?)$")
LOST, BACK = 1.0, 10.0
"""Seconds without one value after which an electrode counts as gone, and with all of them until it is back again."""
AS_RECORDED = next(iter(SCHEMES))


@dataclass(frozen=True, slots=True, eq=False)
class _Lesson:
    """What blinks are to be learnt from: samples (n, channels) in uV."""

    labels: tuple[str, ...]
    samples: NDArray[np.float32]
    rate: float
    gone: tuple[str, ...]
    """Those of the labels that have no values to learn from, or only such as are not to be used."""


@dataclass(frozen=True, slots=True, eq=False)
class _Learnt:
    lesson: _Lesson
    blinks: Montage | None
    trouble: str


class Display:
    """One stream for the eye. Belongs to the analysis thread, but `ask` and `learn`, which may be called from another.

    EEG follows what is asked for; all other streams are shown as they come.
    """

    def __init__(self, info: StreamInfo, columns: Sequence[int] = ()) -> None:
        """``columns`` of the stream feed the model with EEG and are what its verdicts are about, -1 where it lacks one.

        A stream that has them is EEG whatever it calls itself.
        """
        self._info = info
        self._columns = columns
        self._thinner = Thinner(info)
        self._eeg = bool(info.channels) and (info.kind == "eeg" or bool(columns))
        width = len(info.channels)
        scale = MICROVOLTS.get(unit_name(info.unit))
        self._scale = math.nan if scale is None else scale
        rows = min(round(KEPT * info.rate), MOST_KEPT // (8 * width + 16)) if self._eeg else 1
        self._times = Ring(max(1, rows), 1, np.float64)
        self._rows = Ring(max(1, rows), width, np.float32)
        self._asked = self._followed = SetDisplay()
        self._lesson: _Lesson | None = None
        self._learnt: _Learnt | None = None
        self._matrix: sparse.csr_array | None = None
        self._forget()
        none: tuple[tuple[str, ...], tuple[str, ...]] = ((), ())
        self._chosen = self._followed, none, self._blinks, self._trouble

    def _forget(self) -> None:
        self._times.clear()
        self._rows.clear()
        self._usable: dict[str, int] = {}
        self._bad: tuple[str, ...] = ()
        self._gone: tuple[str, ...] = ()
        self._without = np.zeros(len(self._info.channels), np.int64)
        self._with = np.zeros(len(self._info.channels), np.int64)
        self._unlearn()

    def _unlearn(self) -> None:
        self._blinks: Montage | None = None
        self._trouble = ""
        self._lesson = self._learnt = None
        self._due = 0

    def ask(self, chosen: SetDisplay) -> None:
        """From the next `turn` on: what a dashboard has chosen."""
        self._asked = chosen

    def learn(self) -> None:
        """Learn blinks when there is something to learn from: some hundredths of a second, so not in the analysis."""
        lesson, learnt = self._lesson, self._learnt
        if lesson is None or (learnt is not None and learnt.lesson is lesson):
            return
        try:
            made = without_blinks(lesson.labels, lesson.samples, lesson.rate, lesson.gone)
            self._learnt = _Learnt(lesson, made, "")
        except ValueError as error:
            self._learnt = _Learnt(lesson, None, str(error))

    def judge(self, verdicts: Iterable[Verdict]) -> None:
        """Take in which channels the last window of the model found bad; none of them is trusted again too soon."""
        for column, verdict in zip(self._columns, verdicts, strict=False):
            if column < 0 or not is_electrode(label := self._info.channels[column]):
                continue
            if verdict.level == "bad":
                self._usable[label] = 0
            elif label in self._usable:
                self._usable[label] += 1
                if self._usable[label] >= RECOVERED:
                    del self._usable[label]

    def push(self, chunk: Chunk) -> list[Traces]:
        """Take a chunk; what was waiting when it comes after a gap."""
        if self._eeg and chunk.data.shape == (len(chunk.times), len(self._info.channels)):
            self._times.write(np.ascontiguousarray(chunk.times, np.float64)[:, None])
            self._rows.write(np.ascontiguousarray(chunk.single))
            self._count(np.isfinite(chunk.single))
            if self._matrix is not None:
                chunk = Chunk(chunk.stream, chunk.times, self._made(chunk.single), chunk.lost)
        return self._thinner.add(chunk)

    def _count(self, there: NDArray[np.bool_]) -> None:
        """How many samples each channel has had no value, or one, for: ``there`` (n, channels) is what comes."""
        for run, seen in ((self._without, there), (self._with, ~there)):
            # Since the last sample that ends a run, or on from before.
            since = np.where(seen.any(axis=0), seen[::-1].argmax(axis=0), len(seen) + run) if len(seen) else run
            run[:] = since

    def _missed(self) -> tuple[str, ...]:
        """Electrodes that have no values; none when none has any, which is the silence of the whole headset."""
        lost, back = LOST * self._info.rate, BACK * self._info.rate
        head = [row for row, label in enumerate(self._info.channels) if is_electrode(label)]
        gone = tuple(
            self._info.channels[row]
            for row in head
            if self._without[row] >= lost or (self._info.channels[row] in self._gone and self._with[row] < back)
        )
        return gone if len(gone) < len(head) else ()

    def turn(self) -> list[Shown | Traces]:
        """Follow what was asked for and learnt meanwhile; what is complete of the samples."""
        if not self._eeg:
            return [*self._thinner.take()]
        anew = self._asked != self._followed
        self._followed = self._asked
        self._gone = self._missed()
        bad = tuple(label for label in self._info.channels if label in self._usable or label in self._gone)
        if bad != self._bad:
            self._bad = bad
            self._unlearn()  # the weight of a channel that was bad is none
        if not self._followed.repair:
            self._unlearn()
        elif (learnt := self._learnt) is not None and learnt.lesson is self._lesson:
            anew |= learnt.blinks is not None
            self._blinks, self._trouble = learnt.blinks, learnt.trouble
            self._lesson = None
            self._due = self._rows.written + round(AGAIN * self._info.rate)
        if self._followed.repair and self._blinks is None and self._lesson is None and self._rows.written >= self._due:
            self._lesson = self._teach()
        return [*self._follow(anew), *self._thinner.take()]

    def finish(self) -> list[Traces]:
        """Nothing follows: what is left, complete or not."""
        return self._thinner.take(everything=True)

    def reset(self) -> list[Shown | Traces]:
        """A replay starts over: what was asked for stays, what was learnt does not."""
        self._thinner.clear()
        self._forget()
        return self._follow(anew=False)

    def _made(self, rows: NDArray[np.float32]) -> NDArray[np.float32]:
        """Samples (n, channels) as (n, rows); NaN where a channel that a row needs is.

        Summed in the order of the channels: a product of dense matrices sums in one that depends on how many samples
        come at once, and wakes the threads of BLAS.
        """
        assert self._matrix is not None
        with np.errstate(invalid="ignore"):  # an amplifier may send infinity
            return np.ascontiguousarray((self._matrix @ rows.T.astype(np.float64)).T, np.float32)

    def _follow(self, anew: bool) -> list[Shown | Traces]:
        """Show what is chosen, when that has changed, and with ``anew`` what is kept of the past as well."""
        # What nobody asked for is not worth a message.
        bad, gone = (self._bad, self._gone) if self._followed != SetDisplay() else ((), ())
        chosen = self._followed, (bad, gone), self._blinks, self._trouble
        if chosen == self._chosen and not anew:
            return []
        self._chosen = chosen
        before = [] if anew else self._thinner.take(everything=True)
        made, shown = self._choose(anew)
        self._matrix = sparse.csr_array(made.matrix) if shown.altered else None
        return [*before, shown, *(self._past() if anew else ())]

    def _past(self) -> list[Traces]:
        """What is kept, as it is shown from now on."""
        self._thinner.clear()
        first, last = self._rows.oldest, self._rows.written
        times, rows = self._times.view(first, last)[:, 0].copy(), self._rows.view(first, last)
        rows = rows.copy() if self._matrix is None else self._made(rows)
        found: list[Traces] = []
        breaks = np.flatnonzero(np.abs(np.diff(times)) > 3.0 / self._info.rate) + 1
        for begin, end in zip([0, *breaks.tolist()], [*breaks.tolist(), len(times)], strict=True):
            found += self._thinner.add(Chunk(self._info.key, times[begin:end], rows[begin:end]))
        return found

    def _choose(self, anew: bool) -> tuple[Montage, Shown]:
        """The matrix of what is chosen, and what is to be said of it."""
        chosen, labels, bad = self._followed, self._info.channels, self._bad
        made = as_recorded(labels)
        words: list[str] = []
        interpolates: tuple[str, ...] = ()
        if chosen.repair:
            steps, words, interpolates = self._repairs()
            for step in steps:
                made = after(made, step)
        if chosen.reference != AS_RECORDED:
            try:
                scheme = _scheme(chosen.reference, labels, bad)
                made = after(made, scheme)
                words.insert(0, scheme.said + _warned(chosen.reference, labels, bad, interpolates))
            except MontageError as error:
                words.insert(0, f"as recorded ({error})")
        if self._gone and words:
            words.append(f"no values of {', '.join(self._gone)}")
        return made, Shown(
            self._info.key,
            made.labels,
            chosen.reference,
            chosen.repair,
            "; ".join(words),
            interpolates,
            not made.unchanged,
            anew,
        )

    def _repairs(self) -> tuple[list[Montage], list[str], tuple[str, ...]]:
        """What repairs the stream as it stands, what is to be said of it, and the channels that are interpolated."""
        labels = self._info.channels
        steps: list[Montage] = []
        words: list[str] = []
        interpolates: tuple[str, ...] = ()
        if self._blinks is not None:
            words.append(f"without blinks ({self._blinks.said})")
        else:
            words.append(f"blinks are still in it ({self._trouble.removeprefix('blinks: ') or 'to be learnt'})")
        if self._bad:
            try:
                steps.append(interpolated(labels, self._bad))
                interpolates = self._bad
                words.append(steps[-1].said)
            except MontageError as error:
                words.append(f"not interpolated: {', '.join(self._bad)} ({error})")
        elif not self._columns:
            words.append("nothing interpolated: no model judges these channels")
        else:
            words.append("no channel is bad")
        if self._blinks is not None:
            steps.append(self._blinks)
        return steps, words, interpolates

    def _teach(self) -> _Lesson | None:
        """The newest samples at a rate that is enough for blinks; None when there are none yet."""
        labels, rate = self._info.channels, self._info.rate
        if math.isnan(self._scale) or rate <= 2 * EYES[1]:
            self._trouble = (
                "the unit of the stream is unknown" if math.isnan(self._scale) else f"{rate:g} Hz is too slow"
            )
            return None
        group = max(1, int(rate // LEARNING_RATE))
        count = (self._rows.written - self._rows.oldest) // group
        if not count:
            return None
        rows = self._rows.view(self._rows.written - count * group, self._rows.written)
        samples = rows.reshape(count, group, -1).mean(axis=1) * np.float32(self._scale)
        gone = self._bad
        if self._bad:
            with contextlib.suppress(MontageError):  # said in words where it is shown
                samples = interpolated(labels, self._bad).apply(samples).astype(np.float32)
                gone = ()
        elsewhere = [column for column, label in enumerate(labels) if label in gone or not is_electrode(label)]
        samples[:, elsewhere] = 0.0  # what they lack is no gap of the head
        return _Lesson(labels, samples, rate / group, gone)


def displays(streams: Iterable[StreamInfo], picked: Mapping[str, Picked]) -> dict[str, Display]:
    """A display for every stream of signals, by its key; ``picked`` is what feeds the model."""
    eeg = picked.get("eeg")
    return {
        info.key: Display(info, eeg.columns if eeg is not None and eeg.stream == info.key else ())
        for info in streams
        if info.rate
    }


def named(
    quality: Mapping[str, tuple[Verdict, ...]], streams: Iterable[StreamInfo], picked: Mapping[str, Picked]
) -> dict[str, tuple[Verdict, ...]]:
    """The verdicts of a window, each under the label of its channel in the stream that is ``picked`` for its kind.

    A model spells channels in its own way, "T3" for "EEG T7-REF". What the stream lacks keeps the model's name.
    """
    labels = {info.key: info.channels for info in streams}
    found = dict(quality)
    for kind, one in picked.items():
        verdicts = quality.get(kind, ())
        names = {
            verdict.channel: labels[one.stream][column]
            for verdict, column in zip(verdicts, one.columns, strict=False)
            if column >= 0
        }
        found[kind] = tuple(
            Verdict(names.get(verdict.channel, verdict.channel), verdict.score, _renamed(verdict.reason, names))
            for verdict in verdicts
        )
    return found


def _renamed(reason: str, names: Mapping[str, str]) -> str:
    """``reason``, which may tell of another channel, with that channel called by its label."""
    told = _OTHER.match(reason)
    return f"{told[1]}{names[told[2]]}{told[3]}" if told and told[2] in names else reason


def _scheme(reference: str, labels: Sequence[str], bad: Sequence[str]) -> Montage:
    """As `montage`, but an average without ``bad`` channels, and a bipolar one with what is no electrode as it came."""
    if reference == "average":
        return average(labels, bad=bad)
    made = montage(reference, labels)
    others = [row for row, label in enumerate(labels) if not is_electrode(label)]
    if reference != "bipolar" or not others:
        return made
    kept = tuple(labels[row] for row in others)
    return Montage(
        made.labels + kept,
        np.vstack([made.matrix, np.eye(len(labels))[others]]),
        f"{made.said}; no electrodes, shown as recorded: {', '.join(label[:24] for label in kept[:8])}",
    )


def _warned(reference: str, labels: Sequence[str], bad: Sequence[str], interpolates: Sequence[str]) -> str:
    """That a channel which all the others are shown against is bad, in words."""
    if reference != "linked mastoids":
        return ""
    names = {normalised(label): label for label in reversed(labels)}
    pair = next(pair for pair in MASTOIDS if pair[0] in names and pair[1] in names)
    poor = [names[name] for name in pair if names[name] in bad and names[name] not in interpolates]
    return f", where {' and '.join(poor)} {'is' if len(poor) == 1 else 'are'} bad" if poor else ""

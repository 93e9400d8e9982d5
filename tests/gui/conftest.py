"""A session as the engine tells it: 19 EEG channels and an ECG, rest and arithmetic, one message after the other."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import numpy as np
import pytest
from PySide6.QtCore import QSettings
from PySide6.QtWidgets import QApplication, QLabel

from devices.api import StreamInfo
from gui import remember
from gui.board import Board
from models.api import Estimate, Verdict
from realtime.api import (
    BANDS,
    Beats,
    Body,
    Brain,
    Command,
    Estimated,
    Figure,
    Health,
    Hello,
    Marked,
    ModelCard,
    Resting,
    StreamHealth,
    Traces,
    Update,
)

EEG = (
    "Fp1",
    "Fp2",
    "F3",
    "F4",
    "F7",
    "F8",
    "T3",
    "T4",
    "C3",
    "C4",
    "T5",
    "T6",
    "P3",
    "P4",
    "O1",
    "O2",
    "Fz",
    "Cz",
    "Pz",
)


@dataclass(kw_only=True)
class Script:
    """What happens in a made-up session, in seconds since its start."""

    start: float = 5000.0
    seconds: int = 30
    replay: bool = True
    length: float = 244.0
    eeg_rate: float = 250.0
    ecg_rate: float = 130.0
    targets: tuple[str, ...] = ("arousal",)
    kinds: tuple[str, ...] = ()
    ranges: tuple[tuple[float, float], ...] = ()
    levels: tuple[tuple[float, ...], ...] = ()
    baseline: int = 15
    gap_at: int | None = None
    marks: dict[int, str] = field(default_factory=lambda: {0: "rest", 20: "mental arithmetic"})
    bad: dict[str, Verdict] = field(default_factory=dict)
    record: str = ""
    alarms: tuple[str, ...] = ()

    def hello(self) -> Hello:
        return Hello(
            title="replay of sub-05.xdf" if self.replay else "live",
            streams=(
                StreamInfo(key="cap", kind="eeg", channels=EEG, rate=self.eeg_rate, unit="uV"),
                StreamInfo(key="strap", kind="ecg", channels=("ECG",), rate=self.ecg_rate, unit="mV"),
                StreamInfo(key="marks", kind="markers", channels=("label",), rate=0.0, unit=""),
            ),
            used=(("eeg", "cap"), ("ecg", "strap")),
            model=ModelCard(
                name="rest-arithmetic",
                hash="3fa91c20",
                targets=self.targets,
                meanings=tuple(f"0: low {target}, 1: high {target}" for target in self.targets),
                kinds=self.kinds or ("binary",) * len(self.targets),
                ranges=self.ranges or ((0.0, 1.0),) * len(self.targets),
                levels=self.levels or ((),) * len(self.targets),
                seconds=10.0,
                hop=1.0,
                accuracy="balanced accuracy 0.84 [0.79, 0.88], 27 people",
                limits="validated on rest against arithmetic only",
            ),
            replay=self.replay,
            start=self.start,
            stop=self.start + self.length if self.replay else math.nan,
        )

    def traces(self, key: str, second: int) -> Traces:
        """One second of a stream: 10 Hz waves of 20 uV on an offset of 4000 uV; an R-like peak of 1 mV a second."""
        rate = self.eeg_rate if key == "cap" else self.ecg_rate
        since = np.arange(round(second * rate), round((second + 1) * rate)) / rate
        if key == "cap":
            phase = np.linspace(0.0, 3.0, len(EEG))
            rows = 4000.0 + 20.0 * np.sin(2 * np.pi * 10.0 * since[:, None] + phase)
        else:
            rows = np.exp(-(((since % 1.0 - 0.5) / 0.02) ** 2))[:, None]
        return Traces(key, self.start + since, rows.astype(np.float32), gap=second == self.gap_at)

    def beats(self, second: int) -> Beats:
        """The R peak of `traces`, half a second after each second."""
        one = np.array([self.start + second + 0.5])
        return Beats("strap", "ECG", one, np.array([1000.0]), np.array([0.9]), np.full((1, 9), math.nan))

    def body(self, second: int, **changes: object) -> Body:
        """A heart that beats once a second, RMSSD after 20 s, SDNN not yet; alpha has half of the power."""
        after = second >= 20
        figures = {
            "HR": Figure(60.0, "bpm", 10.0),
            "RMSSD": Figure(42.4 if after else math.nan, "ms", 20.0, "" if after else "RMSSD needs 20 s", 0.02),
            "SDNN": Figure(math.nan, "ms", 20.0, f"{second} s of beats so far, SDNN needs 60 s"),
        }
        shares = np.array([0.2, 0.15, 0.5, 0.1, 0.05])
        table, row = np.tile(shares, (len(EEG), 1)).astype(np.float32), np.full(len(EEG), 10.25, np.float32)
        brain = Brain(
            stream="cap",
            labels=EEG,
            absolute=100 * table,
            relative=table,
            slopes=-row / 10,
            peaks=row,
            invalid=("",) * len(EEG),
            powers=100 * shares,
            shares=shares,
            theta_beta=1.5,
            slope=-1.025,
            peak=10.25,
            asymmetry=(("F4-F3", -0.25),),
            averaged=len(EEG),
        )
        assert len(shares) == len(BANDS)
        intervals = np.array([[self.start + second - 3.5, 1.0 + 0.02 * (second % 2), float(second != 12)]])
        made = Body(self.start + second, "strap", figures, "", "", intervals, (brain,))
        return replace(made, **changes)

    def estimated(self, second: int) -> Estimated:
        withheld = f"resting baseline: {self.baseline - second} s left" if second < self.baseline else None
        low, high = np.array(self.ranges or ((0.0, 1.0),) * len(self.targets)).T
        share = np.nan if withheld else 0.3 if second < 20 else 0.75
        estimate = Estimate(
            t_end=self.start + second,
            targets=self.targets,
            mean=low + share * (high - low),
            sd=(np.nan if withheld else 0.2) * (high - low),
            present={"eeg": 1.0, "ecg": 1.0},
            quality=0.9,
            withheld=withheld,
            used=("eeg", "ecg"),
        )
        eeg = tuple(self.bad.get(name, Verdict(name, 0.95)) for name in EEG)
        good = {"eeg": float(min(second, self.baseline) - 5), "ecg": 2.0}
        resting = Resting(max(0.0, float(self.baseline - second)), 6.0, good, True, not withheld)
        return Estimated(estimate, {"eeg": eeg, "ecg": (Verdict("ECG", 0.9),)}, resting)

    def health(self, second: float) -> Health:
        rows = (("cap", 0.03, self.eeg_rate, 12), ("strap", 0.4, self.ecg_rate, 0), ("marks", 7.0, math.nan, 0))
        return Health(
            now=self.start + second,
            streams=tuple(
                StreamHealth(key=key, stale=stale, rate=rate, samples=99, lost=lost) for key, stale, rate, lost in rows
            ),
            skipped=0,
            latency_ms=math.nan if self.replay else 42.4,
            record=self.record,
            record_bytes=2_400_000 if self.record else 0,
            alarms=self.alarms,
        )

    def updates(self) -> Iterator[Update]:
        yield self.hello()
        for second in range(self.seconds):
            if second in self.marks:
                yield Marked(self.start + second, self.marks[second], "marks")
            if self.gap_at is None or second not in (self.gap_at - 1, self.gap_at - 2):
                yield self.traces("cap", second)
                yield self.traces("strap", second)
                yield self.beats(second)
                yield self.body(second)
            if second >= 10:
                yield self.estimated(second)
            yield self.health(second + 1.0)


class Bench:
    """A shown dashboard and the commands that it has sent."""

    def __init__(self, qtbot) -> None:
        self.sent: list[Command] = []
        self.board = Board(self.sent.append)
        qtbot.addWidget(self.board, before_close_func=self.silence)
        self.board.show()
        qtbot.waitExposed(self.board)

    @staticmethod
    def silence(board: Board) -> None:
        board.hello = None  # so that closing at the end of the test asks nothing

    def tell(self, *updates: Update) -> None:
        for update in updates:
            self.board.apply(update)
        self.board.refresh()
        QApplication.processEvents()  # new widgets get their places
        self.board.redraw()

    def play(self, script: Script) -> None:
        self.tell(*script.updates())

    def health(self, script: Script, second: float, **changes: object) -> None:
        self.tell(replace(script.health(second), **changes))

    def panel(self, name: str):
        return self.board.panels[name]

    def texts(self) -> str:
        """Every text of a label that can be seen."""
        return "\n".join(label.text() for label in self.board.findChildren(QLabel) if label.isVisible())


@pytest.fixture(autouse=True)
def no_home(tmp_path):
    """What a dashboard remembers is never read from or written to the home of whoever runs the tests."""
    QSettings.setPath(QSettings.Format.IniFormat, QSettings.Scope.UserScope, str(tmp_path / "settings"))
    yield
    remember.use(None)


@pytest.fixture
def bench(qtbot) -> Bench:
    return Bench(qtbot)


@pytest.fixture
def make_script() -> type[Script]:
    return Script

"""The choice of what EEG is drawn against and whether it is repaired, driven in a window, drawn by the real engine."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from PySide6.QtCore import Qt
from PySide6.QtWidgets import QApplication

from devices.api import Chunk, StreamInfo
from gui import look
from models.api import Verdict
from realtime.api import Ended, SetDisplay, Shown, Traces
from realtime.display import Display

EARS = ("Fp1", "F7", "F3", "Fz", "T3", "C3", "Cz", "A1", "A2")
RATE = 250.0


class Engine:
    """What shows one stream of a session, fed with noise and a blink every 2 s."""

    def __init__(self, bench, script, labels=EARS, **changes) -> None:
        self.bench = bench
        self.stream = StreamInfo(key="cap", kind="eeg", channels=labels, rate=RATE, unit="uV", **changes)
        self.display = Display(self.stream, range(len(labels)))
        self.start = script.start
        hello = script.hello()
        others = tuple(stream for stream in hello.streams if stream.key != "cap")
        bench.tell(replace(hello, streams=(self.stream, *others)))
        self.at = 0

    def run(self, seconds: float) -> None:
        """So much more signal."""
        times = np.arange(self.at, self.at + round(seconds * RATE)) / RATE
        self.at += len(times)
        blinks = 200 * np.exp(-((((times - 1.0) % 2.0 - 1.0) / 0.08) ** 2))
        shares = np.linspace(1.0, 0.3, len(self.stream.channels))
        rows = np.random.default_rng(self.at).normal(0, 5, (len(times), len(shares))) + blinks[:, None] * shares
        said = self.display.push(Chunk("cap", self.start + times, rows.astype(np.float32)))
        self.bench.tell(*said, *self.display.turn())

    def obey(self) -> None:
        """Do what the window asked for."""
        for command in self.bench.sent:
            self.display.ask(command)
        self.bench.sent.clear()
        said = self.display.turn()
        self.display.learn()
        self.bench.tell(*said, *self.display.turn())

    def judge(self, bad: str) -> None:
        verdicts = [Verdict(label, 0.1 if label == bad else 1.0, "flat" * (label == bad)) for label in EARS]
        self.display.judge(verdicts)


def ticks(panel) -> list[str]:
    return [text for _, text in panel.strips["cap"].plot.getAxis("left")._tickLevels[0]]


@pytest.fixture
def engine(bench, make_script) -> Engine:
    made = Engine(bench, make_script())
    made.run(24)
    return made


@pytest.mark.parametrize(
    ("labels", "offered"),
    [
        (EARS, ["as recorded", "average", "linked mastoids", "bipolar"]),
        (EARS[:-1], ["as recorded", "average", "bipolar"]),
        (("TP9", "AF7", "AF8", "TP10"), ["as recorded", "average", "linked mastoids"]),
        (("EXG 0", "EXG 1"), ["as recorded"]),
    ],
)
def test_only_references_that_the_labels_allow_are_offered(bench, make_script, labels, offered):
    Engine(bench, make_script(), labels)
    panel = bench.panel("traces")
    assert [panel.reference.itemText(row) for row in range(panel.reference.count())] == offered
    assert panel.reference.isVisible()
    assert panel.reference.currentText() == "as recorded"
    assert panel.said.text() == ""


def test_without_eeg_there_is_nothing_to_choose(bench, make_script):
    script = make_script()
    hello = script.hello()
    bench.tell(replace(hello, streams=hello.streams[1:], used=()))
    assert not bench.panel("traces").reference.isVisible()


def test_another_reference_is_chosen_with_the_keyboard_drawn_at_once_and_said(bench, engine, qtbot):
    panel = bench.panel("traces")
    panel.reference.setFocus()
    qtbot.keyClick(panel.reference, Qt.Key.Key_Down)
    assert bench.sent == [SetDisplay("average", repair=False)]
    engine.obey()
    strip = panel.strips["cap"]
    times, rows = strip.history.between(0.0, np.inf, 10**6)
    assert len(times) == engine.at  # what came before the choice is drawn anew, without more of it
    assert np.abs(rows.sum(axis=1)).max() < 0.01
    assert panel.said.text() == "Not as recorded, for the eye only: average of 9 electrodes."
    assert panel.caption.text() == "not as recorded"
    assert panel.said.isVisible()
    assert "The record, the model, the quality and the rhythms take the signals as they came." in panel.said.toolTip()
    assert ticks(panel)[0] == "Fp1"


def test_a_bipolar_montage_has_a_row_for_every_pair_and_back_again_every_channel(bench, engine):
    panel = bench.panel("traces")
    for reference, rows in (("bipolar", ["Fp1-F7", "F7-T3", "Fp1-F3", "F3-C3", "Fz-Cz"]), ("as recorded", list(EARS))):
        panel.reference.setCurrentText(reference)
        panel.reference.activated.emit(panel.reference.currentIndex())
        engine.obey()
        assert ticks(panel) == rows
        y = panel.strips["cap"].curve.getData()[1].reshape(len(rows), -1)
        assert np.nanmedian(y, axis=1) == pytest.approx(-np.arange(len(rows)), abs=0.3)
        assert np.isfinite(y[:, :-1]).all()
    assert panel.said.text() == ""
    assert panel.caption.text() == "unfiltered, centred"
    engine.run(2)
    assert panel.strips["cap"].history.newest == pytest.approx(engine.start + 26, abs=0.1)


def test_repair_is_switched_on_with_the_space_bar_which_then_does_not_pause_the_replay(bench, engine, qtbot):
    panel = bench.panel("traces")
    raw = panel.strips["cap"].curve.opts["pen"].color().name()
    tops = np.abs(panel.strips["cap"].history.between(0.0, np.inf, 10**6)[1][:, 1:]).max()
    panel.repair.setFocus()
    qtbot.keyClick(panel.repair, Qt.Key.Key_Space)
    assert bench.sent == [SetDisplay("as recorded", repair=True)]
    engine.obey()
    strip = panel.strips["cap"]
    assert np.abs(strip.history.between(0.0, np.inf, 10**6)[1][:, 1:]).max() < 0.5 * tops
    assert panel.said.text().startswith("Not as recorded, for the eye only: without blinks (")
    assert "no channel is bad" in panel.said.text()
    assert strip.curve.opts["pen"].color().name() == look.theme.other.lower() != raw
    qtbot.keyClick(panel.repair, Qt.Key.Key_Space)
    engine.obey()
    assert not panel.repair.isChecked()
    assert strip.curve.opts["pen"].color().name() == raw
    assert np.abs(strip.history.between(0.0, np.inf, 10**6)[1][:, 1:]).max() == tops


def test_why_blinks_are_still_seen_is_said(bench, make_script):
    engine = Engine(bench, make_script())
    engine.run(4)
    panel = bench.panel("traces")
    panel.repair.click()
    engine.obey()
    assert panel.said.text().startswith(
        "Drawn as recorded: blinks are still in it (4 s of EEG to learn from, at least 10"
    )
    assert panel.repair.isChecked()
    assert panel.strips["cap"].curve.opts["pen"].color().name() != look.theme.other.lower()


def test_an_interpolated_channel_is_marked_and_not_drawn_as_a_bad_one(bench, engine, make_script):
    panel, script = bench.panel("traces"), make_script(bad={"Cz": Verdict("Cz", 0.1, "flat")})
    bench.tell(script.estimated(24))
    assert "✕ Cz" in ticks(panel)
    engine.judge("Cz")
    panel.repair.click()
    engine.obey()
    assert "≈ Cz" in ticks(panel)
    assert "interpolated: Cz" in panel.said.text()
    assert not panel.strips["cap"].poor
    panel.repair.click()
    engine.obey()
    assert "✕ Cz" in ticks(panel)


def test_a_bipolar_row_is_bad_when_one_of_its_electrodes_is(bench, engine, make_script):
    panel = bench.panel("traces")
    bench.tell(make_script(bad={"F3": Verdict("F3", 0.1, "flat")}).estimated(24))
    bench.sent.append(SetDisplay("bipolar"))
    engine.obey()
    assert [text for text in ticks(panel) if text.startswith("✕")] == ["✕ Fp1-F3", "✕ F3-C3"]


def test_a_bipolar_row_of_an_interpolated_electrode_is_no_bad_one(bench, engine, make_script):
    panel = bench.panel("traces")
    bench.tell(make_script(bad={"F3": Verdict("F3", 0.1, "flat")}).estimated(24))
    engine.judge("F3")
    bench.sent.append(SetDisplay("bipolar", repair=True))
    engine.obey()
    assert [text for text in ticks(panel) if text[0] in "✕≈"] == ["≈ Fp1-F3", "≈ F3-C3"]
    assert not panel.strips["cap"].poor


def test_a_window_that_comes_late_or_second_shows_what_another_one_has_chosen_and_sends_nothing(bench, engine):
    panel = bench.panel("traces")
    made = Shown("cap", EARS, "linked mastoids", True, "against linked A1 and A2", altered=True, anew=True)
    bench.tell(made)
    assert panel.reference.currentText() == "linked mastoids"
    assert panel.repair.isChecked()
    assert bench.sent == []
    # Until the rows of its choice come, what does not fit is not drawn.
    bench.tell(Traces("cap", np.array([engine.start + 30]), np.zeros((1, 3), np.float32)))
    bench.tell(Ended())
    assert not panel.reference.isEnabled()


@pytest.mark.parametrize("size", [(1280, 800), (1920, 1080)])
def test_words_as_long_as_they_get_are_read_whole_beside_the_choice(bench, engine, size):
    bench.board.resize(*size)
    panel = bench.panel("traces")
    said = "average of 18 electrodes, without T3; without blinks (12 blinks regressed on Fp1, Fp2); interpolated: T3"
    bench.tell(Shown("cap", EARS, "average", True, said, ("T3",), altered=True))
    QApplication.processEvents()
    bench.board.redraw()
    QApplication.processEvents()
    assert said in panel.said.text()
    assert panel.said.height() >= panel.said.heightForWidth(panel.said.width())
    assert panel.area.height() > 200
    assert (bench.board.width(), bench.board.height()) == size

"""Estimates of several targets, each on its own range; the plane of two; the resting baseline in words."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from PySide6.QtCore import QSettings, Qt
from PySide6.QtWidgets import QApplication

from gui import remember
from gui.board import Board
from realtime.api import Estimated, Resting

SAM = {
    "targets": ("valence", "arousal", "fatigue"),
    "kinds": ("ordinal", "continuous", "continuous"),
    "ranges": ((1.0, 9.0), (-1.0, 1.0), (0.0, 100.0)),
    "levels": (tuple(float(level) for level in range(1, 10)), (), ()),
}


def ticks(track) -> list[str]:
    return [text for _, text in track.plot.getAxis("left")._tickLevels[0]]


def test_every_target_is_drawn_on_its_own_range_and_read_with_as_many_decimals_as_it_is_worth(bench, make_script):
    bench.board.resize(1600, 1200)
    bench.play(make_script(**SAM))
    panel = bench.panel("affect")
    assert [readout.value.text() for readout in panel.readouts] == ["7.0", "0.50", "75"]
    assert [readout.spread.text() for readout in panel.readouts] == ["± 1.6 sd", "± 0.40 sd", "± 20 sd"]
    for track, (low, high), value in zip(panel.tracks, SAM["ranges"], (7.0, 0.5, 75.0), strict=True):
        x, y = track.curve.getData()
        assert y[x == 25] == pytest.approx(value)
        bottom, top = track.plot.getViewBox().viewRange()[1]
        assert bottom < low
        assert high < top < high + 0.4 * (high - low)
        edges = track.area.path().boundingRect()
        assert edges.bottom() == pytest.approx(min(high, value + 0.2 * (high - low)))
    assert ticks(panel.tracks[0])[0] == "1"
    assert set(ticks(panel.tracks[0])) <= {f"{level}" for level in range(1, 10)}
    assert ticks(panel.tracks[1])[0] == "−1"
    ranges = [track.plot.getViewBox().viewRange()[0] for track in panel.tracks]
    assert ranges[0] == ranges[1] == ranges[2]  # one time axis
    assert "the expected one of its levels (1, 2, 3" in panel.readouts[0].box.toolTip()


def test_an_estimate_below_zero_is_read_with_a_minus(bench, make_script):
    script = make_script(seconds=14, baseline=5, targets=("valence",), ranges=((-1.0, 1.0),))
    bench.play(script)
    assert bench.panel("affect").readouts[0].value.text() == "−0.40"


@pytest.mark.parametrize("size", [(1280, 720), (1920, 1080)])
def test_several_targets_leave_the_signals_their_room_and_can_be_read_whole(bench, make_script, size):
    bench.board.resize(*size)
    script = make_script(**SAM)
    hello = script.hello()
    meanings = ("1: very unpleasant, 9: very pleasant, as rated after each film", "-1: calm, 1: excited", "0 to 100")
    bench.tell(replace(hello, model=replace(hello.model, meanings=meanings)), *list(script.updates())[1:])
    assert (bench.board.width(), bench.board.height()) == size
    affect, traces = bench.panel("affect"), bench.panel("traces")
    assert traces.width() >= 0.45 * size[0]
    for readout in affect.readouts:
        assert readout.value.width() >= readout.value.fontMetrics().horizontalAdvance(readout.value.text())
    for track in affect.tracks:
        assert track.plot.getViewBox().height() >= 30
        name = track.target.name
        named = name in ticks(track) or track.plot.getAxis("left").label.isVisible()
        assert named, name  # not by its colour alone


def test_two_targets_have_a_plane_with_the_newest_estimate_its_spread_and_a_trail_that_fades(bench, make_script):
    bench.play(make_script(seconds=50, targets=("arousal", "valence"), ranges=((0.0, 1.0), (-1.0, 1.0))))
    panel = bench.panel("affect")
    plane = panel.plane
    assert plane.isVisible()
    # Valence lies along and arousal stands upright, whatever the order of the model.
    x, y = plane.newest.getData()
    assert (x[0], y[0]) == pytest.approx((0.5, 0.75))
    box = plane.ellipse.rect()
    assert (box.left(), box.right(), box.top(), box.bottom()) == pytest.approx((0.1, 0.9, 0.55, 0.95))
    assert plane.plot.getAxis("bottom").labelText == "valence"
    alphas = [brush.color().alpha() for brush in plane.trail.data["brush"]]
    assert alphas == sorted(alphas)
    assert alphas[0] < alphas[-1]
    assert len(alphas) == 35


def test_while_the_estimate_is_withheld_the_plane_says_so_and_shows_no_newest_point(bench, make_script):
    script = make_script(targets=("valence", "arousal"))
    bench.play(script)
    lost = script.estimated(30).estimate
    nothing = np.full(2, np.nan)
    bench.tell(Estimated(replace(lost, withheld="ECG missing", mean=nothing, sd=nothing), {}))
    plane = bench.panel("affect").plane
    assert not plane.ellipse.isVisible()
    assert not len(plane.newest.getData()[0])
    assert plane.note.toPlainText() == "withheld: ECG missing"
    assert len(plane.trail.getData()[0]) > 10


def test_the_plane_is_switched_with_a_key_and_is_not_offered_for_one_target(bench, make_script, qtbot):
    bench.play(make_script(targets=("valence", "arousal")))
    panel = bench.panel("affect")
    qtbot.keyClick(bench.board, Qt.Key.Key_P)
    assert not panel.plane.isVisible()
    assert not panel.flat.isChecked()
    panel.flat.setFocus()
    qtbot.keyClick(panel.flat, Qt.Key.Key_Space)
    assert panel.plane.isVisible()
    assert bench.sent == []  # the space bar did not pause the replay
    bench.play(make_script())
    assert not panel.flat.isVisible()
    assert not panel.plane.isVisible()


def test_the_plane_stays_away_next_time_when_it_was_switched_off(bench, make_script, tmp_path, qtbot):
    kept = QSettings(str(tmp_path / "kept.ini"), QSettings.Format.IniFormat)
    remember.use(kept)
    try:
        bench.play(make_script(targets=("valence", "arousal")))
        bench.panel("affect").flat.click()
        again = Board(bench.sent.append)
        qtbot.addWidget(again)
        assert not again.panels["affect"].flat.isChecked()
        kept.setValue("affect/plane", "{[")  # by somebody who opened the file
        assert remember.recall("affect/plane", True) is True
    finally:
        remember.use(None)


def test_how_far_the_resting_baseline_is_stands_with_every_kind_of_signal(bench, make_script):
    script = make_script(seconds=13)
    bench.play(script)
    panel = bench.panel("affect")
    assert panel.resting.isVisible()
    assert panel.reason.text() == "! Withheld: resting baseline: 3 s left"
    assert panel.resting.text() == "Good so far: EEG 7 of 6 s ✓, ECG 2 of 6 s"
    bench.play(make_script())
    assert panel.reason.text() == "At 0:29, from EEG and ECG; resting baseline of EEG, not of ECG"
    assert not panel.resting.isVisible()
    early, newest = script.estimated(10), Resting(60.0, 26.0, {"eeg": 0.0}, False, False)
    bench.tell(replace(early, resting=newest))
    assert panel.resting.text() == "The resting baseline begins with the first good signal: EEG 0 of 26 s"
    failed = replace(early.estimate, withheld="model returned NaN")
    bench.tell(Estimated(failed, {}, replace(newest, begun=True, seconds_left=12.4)))
    assert panel.resting.text() == "Resting baseline, 13 s left, good so far: EEG 0 of 26 s"
    bench.tell(Estimated(failed, {}, Resting(0.0, 6.0, {"eeg": 7.0, "ecg": 2.0}, True, True)))
    assert panel.resting.text() == "There is a resting baseline of EEG, not of ECG"
    bench.tell(replace(script.hello(), model=None))
    QApplication.processEvents()
    assert not panel.resting.isVisible()


def test_a_model_that_can_use_none_of_the_signals_is_not_waited_for(bench, make_script):
    script = make_script()
    bench.tell(replace(script.hello(), used=()), script.traces("cap", 0))
    assert bench.panel("affect").reason.text() == "Nothing is estimated: the model can use none of these signals."


def test_more_targets_than_fit_are_said_not_hidden(bench, make_script):
    names = tuple(f"t{index}" for index in range(9))
    bench.board.resize(1600, 1200)
    bench.play(make_script(targets=names))
    panel = bench.panel("affect")
    assert len(panel.tracks) == 6
    assert len(panel.readouts) == 9
    assert "the first 6 of 9 targets" in panel.caption.text()

"""The signals as one looks at them: sweep, gain, channels hidden, moved and marked, back through the session."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from PySide6.QtCore import QPoint, QPointF, QSettings, Qt
from PySide6.QtGui import QWheelEvent
from PySide6.QtWidgets import QApplication

from gui import look, remember
from gui.board import Board
from realtime.api import Ended, Marked, SetDisplay, Shown, Traces


@pytest.fixture
def signals(bench):
    return bench.panel("traces")


@pytest.fixture
def kept(tmp_path):
    store = QSettings(str(tmp_path / "kept.ini"), QSettings.Format.IniFormat)
    remember.use(store)
    yield store
    remember.use(None)


def rows(strip, curve=None):
    """x and y of every row that is drawn, (rows, points)."""
    x, y = (curve or strip.curve).getData()
    count = len(strip.drawn)
    return x.reshape(count, -1)[:, :-1], y.reshape(count, -1)[:, :-1]


def ticks(strip) -> list[str]:
    return [text for _, text in strip.plot.getAxis("left")._tickLevels[0]]


def cell(panel, row: int, column: int):
    """Middle of a cell of the list of channels, in pixels."""
    table = panel.channels.table
    box = table.visualRect(table.model().index(row, column))
    return QPoint(box.left() + 10, box.center().y())


def wheel(panel, dx=0, dy=0, keys=Qt.KeyboardModifier.NoModifier) -> None:
    view = panel.area.viewport()
    at = QPointF(view.width() / 2, view.height() / 2)
    turned = QWheelEvent(
        at,
        view.mapToGlobal(at),
        QPoint(),
        QPoint(dx, dy),
        Qt.MouseButton.NoButton,
        keys,
        Qt.ScrollPhase.NoScrollPhase,
        False,
    )
    QApplication.sendEvent(view, turned)


# -- scroll and sweep --------------------------------------------------------------------------------------------------


def test_a_sweep_writes_over_the_oldest_samples_behind_a_bar_and_the_axis_tells_their_own_times(
    bench, make_script, qtbot, signals
):
    bench.play(make_script(seconds=47, replay=False))
    qtbot.keyClick(bench.board, Qt.Key.Key_S)
    bench.board.refresh()
    assert signals.sweep.isChecked()
    strip = signals.strips["cap"]
    (left, _), _ = strip.plot.getViewBox().viewRange()
    assert left == pytest.approx(40.0)
    x, y = rows(strip)
    newest = x[0] <= 47.0
    assert x[0][newest].min() == pytest.approx(40.0, abs=0.01)
    assert x[0][newest].max() == pytest.approx(47.0, abs=0.01)
    before = x[0][~newest]
    assert before.min() == pytest.approx(47.3, abs=0.01)  # what is older than the bar is wide is gone
    assert before.max() == pytest.approx(50.0, abs=0.01)
    assert np.isnan(y[0]).sum() == 1  # and no line leads across the bar
    assert strip.eraser.isVisible()
    assert strip.eraser.getRegion() == pytest.approx((47.0, 47.3), abs=0.01)
    axis = signals.strips["strap"].plot.getAxis("bottom")
    assert axis.tickStrings([42.0, 46.0, 48.0], 1.0, 2.0) == ["0:42", "0:46", "0:38"]
    beats = signals.strips["strap"].ticks.getData()[0][::2]
    assert sorted(beats % 1.0) == pytest.approx([0.5] * len(beats))
    assert {40.5, 46.5, 47.5, 49.5} <= set(beats)
    qtbot.keyClick(bench.board, Qt.Key.Key_S)
    bench.board.refresh()
    assert strip.plot.getViewBox().viewRange()[0][0] == pytest.approx(37.0, abs=0.01)
    assert not strip.eraser.isVisible()


def test_in_a_sweep_the_picture_stands_still_and_markers_stay_where_they_are(bench, make_script, signals):
    script = make_script(seconds=42, replay=False, marks={38: "eyes open", 41: "eyes closed"})
    bench.play(script)
    signals.sweep.click()
    ranges = []
    for second in range(42, 48):
        bench.tell(script.traces("cap", second), script.traces("strap", second))
        ranges.append(tuple(signals.strips["cap"].plot.getViewBox().viewRange()[0]))
        shown = {text.toPlainText(): line.value() for line, text in signals.lines[0].items if line.isVisible()}
        assert shown["eyes closed"] == 41.0
        # Of the sweep before this one: beyond the bar until that comes by.
        assert shown.get("eyes open") == (48.0 if second < 47 else None)
    assert len(set(ranges)) == 1


# -- how high ----------------------------------------------------------------------------------------------------------


def test_plus_and_minus_draw_everything_higher_and_lower_and_the_bar_says_how_high(bench, make_script, qtbot, signals):
    bench.play(make_script())
    strip = signals.strips["cap"]
    before, scale = np.nanmax(rows(strip)[1][0]), strip.scale
    qtbot.keyClick(bench.board, Qt.Key.Key_Plus)
    bench.board.refresh()
    assert np.nanmax(rows(strip)[1][0]) == pytest.approx(2 * before, rel=0.01)
    assert strip.bar_text.toPlainText() == f"{scale / 2:g} µV"
    assert signals.strips["strap"].bar_text.toPlainText() == "500 µV"
    for _ in range(2):
        qtbot.mouseClick(signals.halve, Qt.MouseButton.LeftButton)
    bench.board.refresh()
    assert np.nanmax(rows(strip)[1][0]) == pytest.approx(before / 2, rel=0.01)
    signals.gains["eeg"].setCurrentText("1 mV")
    qtbot.keyClick(bench.board, Qt.Key.Key_A)
    bench.board.refresh()
    assert signals.gains["eeg"].currentText() == "auto"
    assert np.nanmax(rows(strip)[1][0]) == pytest.approx(before, rel=0.01)


def test_a_lone_lead_has_its_voltage_on_the_axis(bench, make_script, signals):
    bench.board.resize(1400, 1200)
    bench.play(make_script())
    assert ticks(signals.strips["strap"]) == ["ECG", "−500 µV", "500 µV", "1 mV"]
    signals.gains["ecg"].setCurrentText("2 mV")
    bench.board.refresh()
    assert ticks(signals.strips["strap"])[-1] == "2 mV"


def test_letters_and_signs_typed_as_a_marker_are_text_and_nothing_else(bench, make_script, qtbot, signals):
    bench.play(make_script(replay=False))
    field = bench.panel("marker").field
    field.setFocus()
    qtbot.keyClicks(field, "spca+f-")
    assert field.text() == "spca+f-"
    assert not signals.sweep.isChecked()
    assert signals.zoom == 1.0
    assert signals.held is None
    assert not signals.channels.isVisible()


# -- channels ----------------------------------------------------------------------------------------------------------


def test_a_channel_is_hidden_and_shown_again_with_the_mouse(bench, make_script, qtbot, signals):
    bench.play(make_script(replay=False))
    qtbot.mouseClick(signals.listing, Qt.MouseButton.LeftButton)
    QApplication.processEvents()
    assert signals.channels.isVisible()
    table, strip = signals.channels.table, signals.strips["cap"]
    qtbot.mouseClick(table.viewport(), Qt.MouseButton.LeftButton, pos=cell(signals, 1, 0))
    bench.board.redraw()
    assert "Fp2" not in ticks(strip)
    assert rows(strip)[0].shape[0] == 18
    assert np.nanmedian(rows(strip)[1], axis=1) == pytest.approx(-np.arange(18.0), abs=0.1)
    assert signals.said.text() == "1 channel is hidden."
    qtbot.mouseClick(signals.channels.buttons["all"], Qt.MouseButton.LeftButton)
    bench.board.redraw()
    assert ticks(strip)[:3] == ["Fp1", "Fp2", "F3"]
    assert signals.said.text() == ""
    assert bench.sent == []


def test_with_every_channel_hidden_it_says_so(bench, make_script, signals):
    bench.play(make_script())
    for label in signals.strips["cap"].labels:
        signals.strips["cap"].choices.of(label).shown = False
    signals.rearrange("cap")
    bench.tell()
    assert signals.strips["cap"].note.toPlainText() == "all channels are hidden"
    assert signals.strips["cap"].note.isVisible()


def test_a_channel_is_moved_enlarged_and_marked_with_keys_alone(bench, make_script, qtbot, signals):
    bench.board.resize(1400, 1000)
    bench.play(make_script())
    qtbot.keyClick(bench.board, Qt.Key.Key_C)
    table, strip = signals.channels.table, signals.strips["cap"]
    assert table.hasFocus()
    table.setCurrentCell(0, 0)
    qtbot.keyClick(table, Qt.Key.Key_Down)
    assert signals.channels.label == "Fp2"
    for _ in range(2):
        qtbot.keyClick(table, Qt.Key.Key_Down, Qt.KeyboardModifier.AltModifier)
    bench.board.redraw()
    assert ticks(strip)[:4] == ["Fp1", "F3", "F4", "Fp2"]
    qtbot.keyClick(table, Qt.Key.Key_Plus)
    bench.board.redraw()
    assert ticks(strip)[3] == "Fp2 ×2"
    heights = np.nanmax(rows(strip)[1], axis=1) - np.nanmin(rows(strip)[1], axis=1)
    assert heights[3] == pytest.approx(2 * heights[2], rel=0.03)
    assert signals.zoom == 1.0
    qtbot.keyClick(table, Qt.Key.Key_B)
    bench.board.redraw()
    assert ticks(strip)[3] == "⊗ Fp2 ×2"
    qtbot.keyClick(table, Qt.Key.Key_Space)
    bench.board.redraw()
    assert "⊗ Fp2 ×2" not in ticks(strip)
    assert bench.sent == []  # the space bar did not pause the replay, and the engine was told nothing
    qtbot.mouseClick(signals.channels.buttons["reset"], Qt.MouseButton.LeftButton)
    bench.board.redraw()
    assert ticks(strip)[:3] == ["Fp1", "Fp2", "F3"]


def test_a_channel_marked_by_hand_is_crossed_out_said_and_for_the_eye_only(bench, make_script, qtbot, signals):
    bench.play(make_script(replay=False))
    signals.listing.click()
    QApplication.processEvents()
    strip = signals.strips["cap"]
    qtbot.mouseClick(signals.channels.table.viewport(), Qt.MouseButton.LeftButton, pos=cell(signals, 2, 2))
    bench.board.redraw()
    assert strip.choices.of("F3").bad
    assert "⊗ F3" in ticks(strip)
    x, y = strip.crossed.getData()
    assert set(y) == {-2.0}
    assert x.max() - x.min() == pytest.approx(10.0)
    assert len(strip.aside_curve.getData()[0]) > 100
    assert signals.said.text() == "⊗ marked bad by hand, for the eye only: F3."
    assert "The record, the model, the quality and the rhythms take the signals as they came." in signals.said.toolTip()
    assert "for the eye only" in signals.channels.table.toolTip().lower()
    assert bench.sent == []


def test_a_channel_that_is_far_too_high_does_not_make_the_others_flat_once_it_is_marked(bench, make_script, signals):
    script = make_script(seconds=0)
    bench.tell(*script.updates())
    strip = signals.strips["strap"]
    for second in range(12):
        bench.tell(script.traces("strap", second))
    assert strip.scale == 1000.0
    strip.choices.of("ECG").bad = True
    signals.rearrange("strap")
    bench.tell(replace(script.traces("strap", 12), data=np.full((130, 1), 900.0, np.float32)))
    assert strip.scale == 1000.0


def test_names_of_which_something_is_to_be_said_are_not_left_out_where_rows_are_low(bench, make_script, signals):
    bench.board.resize(1000, 620)
    bench.play(make_script())
    strip = signals.strips["cap"]
    assert len(ticks(strip)) < 19
    left_out = next(name for name in strip.names if name not in ticks(strip))
    strip.choices.of(left_out).bad = True
    signals.rearrange("cap")
    bench.tell()
    assert f"⊗ {left_out}" in ticks(strip)
    assert len(ticks(strip)) < 19


def test_a_click_on_a_row_goes_to_its_channel_in_the_list(bench, make_script, qtbot, signals):
    bench.play(make_script())
    signals.listing.click()
    bench.tell()
    strip = signals.strips["cap"]
    at = signals.area.mapFromScene(strip.plot.getViewBox().mapViewToScene(QPointF(25.0, -5.0)))
    qtbot.mouseClick(signals.area.viewport(), Qt.MouseButton.LeftButton, pos=at)
    assert signals.channels.label == "F8"


def test_what_was_chosen_is_there_next_time_but_what_was_marked_bad_is_not_of_the_next_person(
    bench, make_script, qtbot, kept, signals
):
    script = make_script(replay=False)
    bench.tell(*script.updates())
    signals.timebase.setCurrentIndex(signals.timebase.findData(20))
    signals.sweep.click()
    signals.gains["eeg"].setCurrentText("100 µV")
    signals.listing.click()
    for label, what in (("Fp2", "toggle"), ("F3", "higher"), ("F3", "up"), ("Cz", "bad")):
        signals.channels.choose("cap", label)
        signals.channels.do(what)

    boards = []

    def again(start: float):
        board = Board(bench.sent.append)
        qtbot.addWidget(board, before_close_func=bench.silence)
        board.show()
        board.apply(replace(script.hello(), start=start))
        board.apply(script.traces("cap", 29))
        board.refresh()
        boards.append(board)
        return board.panels["traces"]

    same, other = again(script.start), again(script.start + 4000.0)
    for panel in (same, other):
        assert panel.timebase.currentText() == "20 s"
        assert panel.sweep.isChecked()
        assert panel.gains["eeg"].currentText() == "100 µV"
        assert panel.strips["cap"].scale == 100.0
        assert panel.channels.isVisible()
        names = [panel.strips["cap"].name(row) for row in range(3)]
        assert names == ["Fp1", "F3 ×2", "F4"]
    assert same.strips["cap"].choices.of("Cz").bad
    assert not other.strips["cap"].choices.of("Cz").bad
    assert "1 channel is hidden." in other.said.text()


@pytest.mark.parametrize("junk", ["[1]", '{"rows": {"Fp1": [3, "x"], "F3": [true, 1e9]}, "order": [5]}', "{"])
def test_a_file_of_choices_that_somebody_has_broken_is_passed_over(bench, make_script, kept, signals, junk):
    script = make_script()
    bench.tell(script.hello())
    signals.keep_channels(signals.strips["cap"])
    for key in kept.allKeys():
        kept.setValue(key, junk)
    bench.play(script)
    assert rows(signals.strips["cap"])[0].shape[0] == 19


def test_of_more_channels_than_are_drawn_it_is_said_how_many(bench, make_script, signals):
    script = make_script()
    hello = script.hello()
    wide = replace(hello.streams[0], channels=tuple(f"E{k}" for k in range(128)))
    bench.tell(replace(hello, streams=(wide,), used=()), Traces("cap", np.array([5000.0]), np.zeros((1, 128), "f4")))
    assert signals.said.text() == "cap: the first 64 of 128 channels are drawn."


# -- back through the session ------------------------------------------------------------------------------------------


def test_a_held_picture_stands_still_while_the_session_goes_on_and_says_so(bench, make_script, qtbot, signals):
    script = make_script(seconds=60, replay=False, record="/home/lab/a.xdf")
    bench.play(script)
    strip = signals.strips["cap"]
    qtbot.keyClick(bench.board, Qt.Key.Key_F)
    bench.board.refresh()
    before = strip.curve.getData()[1].copy()
    for second in range(60, 65):
        bench.tell(script.traces("cap", second), script.traces("strap", second), script.health(second))
    np.testing.assert_array_equal(strip.curve.getData()[1], before)
    assert signals.where.text() == "Held at 0:49 to 0:59; recording goes on, now 1:04"
    assert signals.hold.text() == "Back to now (F)"
    assert bench.sent == []
    qtbot.mouseClick(signals.hold, Qt.MouseButton.LeftButton)
    bench.board.refresh()
    assert np.nanmax(strip.curve.getData()[0]) == pytest.approx(65.0, abs=0.01)
    assert signals.where.text() == "now"


def test_the_arrow_keys_page_keys_and_the_ends_go_through_the_whole_session(bench, make_script, qtbot, signals):
    bench.play(make_script(seconds=120, replay=False, marks={3: "begin"}))
    strip, bar = signals.strips["cap"], signals.past
    qtbot.keyClick(bench.board, Qt.Key.Key_F)
    assert bar.hasFocus()
    ends = []
    for key in (Qt.Key.Key_Left, Qt.Key.Key_PageUp, Qt.Key.Key_Home, Qt.Key.Key_PageDown, Qt.Key.Key_End):
        qtbot.keyClick(bar, key)
        bench.board.refresh()
        ends.append(strip.plot.getViewBox().viewRange()[0][0])
        if key == Qt.Key.Key_Home:
            x, _ = rows(strip)
            assert (x.min(), x.max()) == pytest.approx((0.0, 10.0), abs=0.01)
            shown = {text.toPlainText() for line, text in signals.lines[0].items if line.isVisible()}
            assert shown == {"begin"}
            assert len(signals.strips["strap"].ticks.getData()[0]) == 20  # its R peaks too
    assert ends == pytest.approx([108.0, 98.0, 0.0, 10.0, 110.0], abs=0.15)
    assert signals.held is None  # the end is now


def test_swiping_sideways_goes_back_and_forth_and_ctrl_with_the_wheel_changes_the_seconds(bench, make_script, signals):
    bench.play(make_script(seconds=90, replay=False))
    wheel(signals, dx=600)
    assert signals.held == pytest.approx(5000.0 + 85.0, abs=0.05)
    wheel(signals, dy=1200, keys=Qt.KeyboardModifier.ShiftModifier)
    assert signals.held == pytest.approx(5000.0 + 75.0, abs=0.05)
    wheel(signals, dx=-6000)
    assert signals.held is None
    wheel(signals, dy=-120, keys=Qt.KeyboardModifier.ControlModifier)
    assert signals.timebase.currentText() == "20 s"
    wheel(signals, dy=120)  # a wheel without a key leaves the signals alone
    assert signals.held is None
    assert signals.timebase.currentText() == "20 s"


def test_nothing_before_the_session_or_after_now_can_be_gone_to(bench, make_script, signals):
    bench.play(make_script(seconds=30, replay=False))
    signals.go_by(-1000.0)
    bench.board.refresh()
    assert signals.strips["cap"].plot.getViewBox().viewRange()[0][0] == pytest.approx(0.0, abs=0.01)
    signals.go_by(1000.0)
    assert signals.held is None


def test_two_hours_later_the_beginning_is_still_seen_in_bounded_memory_and_it_says_how_finely(
    bench, make_script, signals
):
    script = make_script(seconds=0, replay=False)
    bench.tell(*script.updates())
    labels = tuple(f"E{k}" for k in range(64))
    stream = replace(script.hello().streams[0], channels=labels, rate=1000.0)
    bench.tell(replace(script.hello(), streams=(stream,), used=()))
    noise = np.random.default_rng(0).normal(0, 10, (15_000, 64)).astype(np.float32)
    for minute in range(120):
        rows_ = noise.copy()
        if minute == 1:
            rows_[7000, 5] = 900.0
        bench.board.apply(Traces("cap", script.start + 60 * minute + np.arange(15_000) / 250.0, rows_))
    history = signals.strips["cap"].history
    assert history.nbytes < 200e6
    signals.look_at(script.start + 95.0)
    bench.board.refresh()
    x, y = rows(signals.strips["cap"])
    assert (x.min(), x.max()) == pytest.approx((85.0, 95.0), abs=0.1)
    assert x[5][np.nanargmax(y[5])] == pytest.approx(88.0, abs=0.1)  # the spike of one sample
    assert "so long ago: smallest and largest value of each 64 ms" in signals.where.text()


def test_what_was_drawn_against_another_reference_is_kept_with_it_and_said(bench, make_script, signals):
    script = make_script(seconds=60, replay=False)
    bench.play(script)
    average = Shown("cap", script.hello().streams[0].channels, "average", said="average", altered=True, anew=True)
    bench.tell(average, *(script.traces("cap", second) for second in range(30, 70)))  # 30 s of it come again
    strip = signals.strips["cap"]
    assert strip.history.oldest == pytest.approx(5030.0)
    signals.look_at(5020.0)
    bench.board.refresh()
    assert strip.note.isVisible()
    assert strip.note.toPlainText() == "drawn against another reference then: choose it to see what came"
    again = Shown("cap", script.hello().streams[0].channels, anew=True)
    bench.tell(again, *(script.traces("cap", second) for second in range(45, 75)))
    assert not strip.note.isVisible()
    assert np.isfinite(rows(strip)[1]).all()
    times, _ = strip.history.between(0.0, math.inf, 10**6)
    assert times[0] == pytest.approx(5000.0)
    assert np.diff(times).max() == pytest.approx(0.004)  # nothing twice, nothing missing
    assert bench.sent == []


def test_a_window_that_came_late_says_from_when_on_it_can_go_back(bench, make_script, signals):
    script = make_script(seconds=0, replay=False)
    bench.tell(script.hello(), *(script.traces("cap", second) for second in range(600, 660)))
    assert signals.where.text() == "now; what came since 10:00 can be seen again"
    signals.look_at(5000.0)
    bench.board.refresh()
    assert signals.strips["cap"].plot.getViewBox().viewRange()[0][0] == pytest.approx(600.0, abs=0.01)


def test_after_a_rewind_the_picture_is_not_held_any_more(bench, make_script, signals):
    from realtime.api import Cleared

    bench.play(make_script(seconds=60))
    signals.look_at(5020.0)
    bench.tell(Cleared(), make_script().traces("cap", 0))
    assert signals.held is None
    assert signals.past.maximum() == 0


def test_when_the_engine_is_gone_one_can_still_go_back(bench, make_script, qtbot, signals):
    bench.play(make_script(seconds=60, replay=False))
    bench.tell(Ended("The engine is gone."))
    qtbot.keyClick(bench.board, Qt.Key.Key_F)
    qtbot.keyClick(signals.past, Qt.Key.Key_Home)
    bench.board.refresh()
    assert signals.strips["cap"].plot.getViewBox().viewRange()[0][0] == pytest.approx(0.0, abs=0.01)
    assert signals.listing.isEnabled()


@pytest.mark.parametrize("chosen", [look.DARK, look.LIGHT], ids=["dark", "light"])
@pytest.mark.parametrize("size", [(1280, 720), (1920, 1080)])
def test_with_everything_open_the_window_keeps_its_size_and_words_are_whole(qtbot, make_script, chosen, size):
    look.use(chosen)
    try:
        board = Board(lambda command: None)
        qtbot.addWidget(board, before_close_func=lambda board: setattr(board, "hello", None))
        board.resize(*size)
        board.show()
        script = make_script(seconds=60, replay=False, targets=("valence", "arousal"))
        for update in [*script.updates(), Marked(5059.0, "x", "marks")]:
            board.apply(update)
        panel = board.panels["traces"]
        panel.listing.setChecked(True)
        for label in ("T3", "Cz"):
            panel.strips["cap"].choices.of(label).bad = True
        panel.rearrange("cap")
        panel.toggle_hold()
        for _ in range(2):
            board.redraw()
            QApplication.processEvents()
        assert (board.width(), board.height()) == size
        assert panel.said.height() >= panel.said.heightForWidth(panel.said.width())
        assert panel.past.width() >= 120
        assert panel.area.width() >= 300
        for button in (panel.hold, panel.listing, panel.auto, *panel.channels.buttons.values()):
            assert button.width() >= button.minimumSizeHint().width()
        assert panel.reference.width() >= panel.reference.minimumSizeHint().width()
    finally:
        look.use(look.DARK)


def test_another_reference_is_still_asked_for_and_nothing_else_is(bench, make_script, signals):
    bench.play(make_script(replay=False))
    for does in (signals.toggle_hold, signals.sweep.click, signals.listing.click, signals.auto.click):
        does()
    signals.repair.click()
    assert bench.sent == [SetDisplay("as recorded", repair=True)]

"""The dashboard in an offscreen window, fed with what an engine says."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from PySide6.QtCore import QPoint, Qt, QTimer
from PySide6.QtWidgets import QApplication, QLabel, QMessageBox

from devices.api import StreamInfo
from gui import look
from gui.board import Board, panel_names
from models.api import Verdict
from realtime.api import (
    Cleared,
    Ended,
    Estimated,
    Health,
    Mark,
    Marked,
    Noted,
    Pause,
    Play,
    Seek,
    SetLoop,
    SetSpeed,
    Step,
    Stop,
    Traces,
)

EVIL = '<b>bold</b><img src="http://127.0.0.1/x.png">\u202e{value}%s\x00\n'


def finite_spans(curve) -> list[int]:
    """Lengths of the unbroken stretches of a curve."""
    y = curve.getData()[1]
    edges = np.flatnonzero(np.diff(np.concatenate([[0], np.isfinite(y).astype(int), [0]])))
    return (edges[1::2] - edges[::2]).tolist()


@pytest.mark.parametrize("name", panel_names())
def test_every_panel_takes_every_message_in_any_order_and_draws(name, bench, make_script):
    """The laws of a panel: it is placed, sends nothing on its own, and no message at any moment harms it."""
    panel = bench.panel(name)
    assert isinstance(panel, look.Card)
    assert panel.place in ("top", "left", "right", "bottom")
    script = make_script(seconds=14)
    everything = [*script.updates(), Noted(5001.0, "the strap is back"), Cleared(), Ended("gone")]
    for update in [*reversed(everything), *everything, script.hello(), script.hello()]:
        panel.apply(update)
        panel.refresh()
    assert bench.sent == []


def test_the_window_shows_the_session_and_is_not_blank(bench, make_script):
    bench.play(make_script())
    image = bench.board.grab().toImage()
    colours = {image.pixelColor(x, y).name() for x in range(0, image.width(), 5) for y in range(0, image.height(), 5)}
    assert len(colours) > 50
    assert "replay of sub-05.xdf" in bench.texts()


def test_eeg_is_stacked_centred_and_scaled_and_the_bar_says_how_high(bench, make_script):
    bench.play(make_script())
    strip = bench.panel("traces").strips["cap"]
    _, y = strip.curve.getData()
    rows = y.reshape(19, -1)
    assert np.nanmean(rows, axis=1) == pytest.approx(-np.arange(19), abs=0.1)  # the offset of 4000 uV is gone
    height = np.nanmax(rows, axis=1) - np.nanmin(rows, axis=1)
    assert height * strip.scale == pytest.approx(40.0, rel=0.03)  # 20 uV waves are 40 uV from top to bottom
    assert strip.bar_text.toPlainText() == f"{strip.scale:g} µV"
    foot, top = strip.bar.getData()[1]
    assert top - foot == 1.0
    names = [text for _, text in strip.plot.getAxis("left")._tickLevels[0]]
    assert names[:3] == ["Fp1", "Fp2", "F3"]


def test_streams_of_different_rates_and_units_share_one_time_axis(bench, make_script):
    bench.play(make_script(seconds=30))
    strips = bench.panel("traces").strips
    ranges = [strip.plot.getViewBox().viewRange()[0] for strip in strips.values()]
    assert ranges[0] == ranges[1]
    assert [strip.curve.getData()[0].max() for strip in strips.values()] == pytest.approx([30.0, 30.0], abs=0.01)
    x, y = strips["strap"].curve.getData()
    beats = x[:-1][(y[:-1] > 0.5 * np.nanmax(y))] % 1.0
    assert beats == pytest.approx(0.5, abs=0.04)  # the peaks stand where they were put, half a second after each second
    assert strips["strap"].scale == pytest.approx(1000.0)  # told in mV, scaled in µV
    assert strips["strap"].bar_text.toPlainText() == "1 mV"


def test_a_gap_is_a_break_in_every_channel(bench, make_script):
    bench.play(make_script(seconds=30, gap_at=27))
    strip = bench.panel("traces").strips["cap"]
    spans = finite_spans(strip.curve)
    assert len(spans) == 2 * 19
    assert sum(spans) < 19 * 8.1 * 250


def test_timebase_and_gain_change_what_is_drawn(bench, make_script, qtbot):
    bench.play(make_script(seconds=40))
    panel = bench.panel("traces")
    strip = panel.strips["cap"]
    for seconds in (1, 30, 60):
        panel.timebase.setCurrentIndex(panel.timebase.findData(seconds))
        bench.board.refresh()
        x = strip.curve.getData()[0]
        shown = min(seconds, 40)
        assert x.max() - x[x > 0].min() == pytest.approx(shown, abs=0.1)
        assert finite_spans(strip.curve)[0] <= 2 * strip.plot.getViewBox().width() + 200
    panel.gains["eeg"].setCurrentText("200 µV")
    bench.board.refresh()
    assert strip.bar_text.toPlainText() == "200 µV"
    rows = strip.curve.getData()[1].reshape(19, -1)
    assert np.nanmax(rows[0]) == pytest.approx(20.0 / 200.0, rel=0.05)
    panel.gains["eeg"].setCurrentText("auto")
    bench.board.refresh()
    assert strip.scale < 100


def test_a_poor_channel_is_told_by_sign_and_word_beside_its_colour(bench, make_script):
    bad = {"T3": Verdict("T3", 0.1, "flat"), "O2": Verdict("O2", 0.55, "amplitude 212 uV")}
    bench.play(make_script(bad=bad))
    chips = {key[1]: chip.text() for key, chip in bench.panel("quality").chips.items()}
    assert len(chips) == 20
    assert chips["T3"] == "✕ T3: flat"
    assert chips["O2"] == "! O2: amplitude 212 uV"
    assert chips["Fz"] == "✓ Fz good"
    assert "18 of 20 channels good; not T3, O2" in bench.texts()
    strip = bench.panel("traces").strips["cap"]
    assert "✕ T3" in [text for _, text in strip.plot.getAxis("left")._tickLevels[0]]
    assert len(finite_spans(strip.poor_curve)) == 1
    bench.play(make_script())
    assert "all 20 channels good" in bench.texts()


def test_the_screen_calls_a_channel_what_the_engine_does_with_it(bench, make_script):
    bad = {
        "T3": Verdict("T3", 0.45, "amplitude 525 uV"),  # not given to the model
        "O2": Verdict("O2", 0.75, "61 % of power is 50 Hz"),  # given, and the reason said
        "Cz": Verdict("Cz", 0.5, "muscle in 6 of 10 s"),
    }
    bench.play(make_script(bad=bad))
    chips = {key[1]: chip.text() for key, chip in bench.panel("quality").chips.items()}
    assert chips["T3"] == "✕ T3: amplitude 525 uV"
    assert chips["O2"] == "! O2: 61 % of power is 50 Hz"
    assert chips["Cz"] == "! Cz: muscle in 6 of 10 s"
    assert "17 of 20 channels good; not T3, O2, Cz" in bench.texts()
    crossed = [text for _, text in bench.panel("traces").strips["cap"].plot.getAxis("left")._tickLevels[0]]
    assert [text for text in crossed if text.startswith("✕")] == ["✕ T3"]


def test_a_headset_of_other_channels_than_the_models_is_judged_by_its_own_and_what_the_model_lacks_is_counted(
    bench, make_script
):
    script = make_script()
    hello, judged, body = script.hello(), script.estimated(12), script.body(12)
    absent = tuple(Verdict(name, 0.0, "absent") for name in ("FP1", "FP2", "PZ"))
    own = (Verdict("Fp1", 1.0), Verdict("Fp2", 0.75, "3 blinks"), Verdict("AFz", 0.1, "flat"))
    bench.tell(
        replace(hello, used=hello.used[1:]),
        replace(judged, quality={**judged.quality, "eeg": absent}),
        replace(body, brains=(replace(body.brains[0], verdicts=own),)),
    )
    panel = bench.panel("quality")
    assert [chip.text() for chip in panel.chips.values()] == [
        "✓ Fp1 good",
        "! Fp2: 3 blinks",
        "✕ AFz: flat",
        "✓ ECG good",
    ]
    assert panel.summary.text() == "2 of 4 channels good; not Fp2, AFz; the model gets no EEG"
    strip = bench.panel("traces").strips["cap"]
    assert not strip.poor  # AFz is none of its channels
    flat = (Verdict("Fz", 0.1, "flat"),)
    bench.tell(replace(body, brains=(replace(body.brains[0], verdicts=flat),)))
    assert [strip.labels[row] for row in strip.poor] == ["Fz"]
    eeg = (*judged.quality["eeg"][:18], absent[2])
    bench.tell(hello, replace(judged, quality={**judged.quality, "eeg": eeg}), body)
    assert panel.summary.text() == "all 19 channels good; not there: 1 of the model's"
    assert panel.summary.toolTip() == "Not there: PZ"


def test_what_feeds_the_model_is_crossed_whatever_its_stream_calls_itself(bench, make_script):
    script = make_script(bad={"T3": Verdict("T3", 0.1, "flat")})
    hello = script.hello()
    board = replace(hello.streams[0], kind="exg")
    bench.tell(replace(hello, streams=(board, *hello.streams[1:])), *list(script.updates())[1:])
    assert len(bench.panel("traces").strips["cap"].poor) == 1


def test_a_stream_that_does_not_feed_the_model_is_not_judged_by_the_one_that_does(bench, make_script):
    script = make_script(bad={"T3": Verdict("T3", 0.1, "flat")})
    hello = script.hello()
    spare = replace(hello.streams[0], key="spare")
    bench.tell(replace(hello, streams=(*hello.streams, spare)), *list(script.updates())[1:])
    strips = bench.panel("traces").strips
    assert strips["cap"].poor
    assert not strips["spare"].poor


def test_while_the_baseline_is_taken_the_panel_says_so_and_shows_no_value(bench, make_script):
    bench.play(make_script(seconds=13))
    panel = bench.panel("affect")
    assert panel.reason.text() == "! Withheld: resting baseline: 3 s left"
    assert panel.readouts[0].value.text() == "–"
    assert panel.readouts[0].spread.text() == ""
    assert not np.isfinite(panel.tracks[0].curve.getData()[1]).any()
    assert panel.tracks[0].area.path().isEmpty()


def test_an_estimate_is_shown_with_its_spread_its_model_and_its_limits(bench, make_script):
    bench.play(make_script(seconds=30))
    panel = bench.panel("affect")
    assert panel.readouts[0].value.text() == "0.75"
    assert panel.readouts[0].spread.text() == "± 0.20 sd"
    texts = bench.texts()
    for expected in (
        "Arousal",
        "0: low arousal, 1: high arousal",
        "At 0:29, from EEG and ECG",
        "rest-arithmetic (3fa91c20)",
        "new people: balanced accuracy 0.84 [0.79, 0.88], 27 people",
        "Limits: validated on rest against arithmetic only",
        "research use, not a medical device",
    ):
        assert expected in texts
    x, y = panel.tracks[0].curve.getData()
    assert y[x == 16] == pytest.approx(0.3)
    assert y[x == 25] == pytest.approx(0.75)
    edges = panel.tracks[0].area.path().boundingRect()
    assert (edges.left(), edges.right()) == (15.0, 29.0)
    assert (edges.top(), edges.bottom()) == pytest.approx((0.1, 0.95))
    ticks = [text for _, text in panel.tracks[0].plot.getAxis("left")._tickLevels[0]]
    assert (ticks[0], ticks[-1]) == ("0", "1")


def test_a_withheld_stretch_is_shaded_once_with_its_reason(bench, make_script):
    script = make_script(seconds=60, length=60.0)
    updates = list(script.updates())
    for place, update in enumerate(updates):
        if isinstance(update, Estimated) and 40 <= update.estimate.t_end - script.start < 50:
            lost = replace(update.estimate, withheld="ECG missing", mean=np.array([np.nan]), sd=np.array([np.nan]))
            updates[place] = Estimated(lost, update.quality)
    bench.tell(*updates)
    panel = bench.panel("affect")
    shown = [(r.getRegion(), t.toPlainText()) for r, t in panel.tracks[0].shades if r.isVisible()]
    assert [region for region, _ in shown] == [(0.0, 14.0), (39.0, 49.0)]
    assert shown[0][1].endswith("resting baseline")  # a countdown is one stretch, not fifteen
    assert shown[1][1].endswith("ECG missing")


def test_several_targets_have_a_value_and_a_curve_each(bench, make_script):
    bench.play(make_script(targets=("arousal", "valence")))
    panel = bench.panel("affect")
    assert [readout.value.text() for readout in panel.readouts] == ["0.75", "0.75"]
    assert "0: low valence, 1: high valence" in bench.texts()
    assert len({track.curve.opts["pen"].color().name() for track in panel.tracks}) == 2
    bench.play(make_script())
    assert "Valence" not in bench.texts()
    assert len(panel.tracks) == 1


def test_markers_are_lines_with_text_in_traces_estimates_and_on_the_seek_bar(bench, make_script):
    bench.play(make_script(seconds=25))
    for marks in (bench.panel("affect").tracks[0].marks, bench.panel("traces").lines[0]):
        shown = [(line.value(), text.toPlainText()) for line, text in marks.items if line.isVisible()]
        assert (20.0, "mental arithmetic") in shown
    assert bench.panel("transport").seek.marks == [(0.0, "rest"), (20.0, "mental arithmetic")]


def test_crowded_marker_texts_never_lie_on_each_other(bench, make_script):
    bench.play(make_script(marks={second: f"a rather long marker {second}" for second in range(20, 30)}))
    for marks in (bench.panel("traces").lines[0], bench.panel("affect").tracks[0].marks):
        boxes = [text.mapRectToScene(text.boundingRect()) for _, text in marks.items if text.isVisible()]
        assert boxes
        for index, box in enumerate(boxes):
            inner = box.adjusted(2, 2, -2, -2)
            assert not any(inner.intersects(other) for other in boxes[index + 1 :])


def test_health_tells_age_rate_loss_and_the_record(bench, make_script):
    script = make_script(replay=False, record="/home/lab/sub-05_eeg.xdf")
    bench.play(script)
    rows = {key: [cell.text() for cell in row] for key, row in bench.panel("health").rows.items()}
    assert rows["cap"] == ["cap", "✓ well", "0.0 s ago", "250.0 of 250 Hz", "12"]
    assert rows["strap"][1] == "✓ well"
    assert rows["marks"] == ["marks", "● events", "7.0 s ago", "99 so far", "0"]
    texts = bench.texts()
    assert "Sample to estimate: 42 ms; windows skipped by the model: 0" in texts
    assert "Recording 2.4 MB to /home/lab/sub-05_eeg.xdf" in texts
    assert "● live, recording" in texts
    quiet = replace(script.health(31.0).streams[1], stale=12.0, gaps=1)
    slow = replace(script.health(31.0).streams[0], rate=120.0, gaps=2)
    bench.health(script, 31.0, streams=(slow, quiet))
    rows = {key: [cell.text() for cell in row] for key, row in bench.panel("health").rows.items()}
    assert rows["cap"][1] == "! rate is low"
    assert rows["strap"][1:3] == ["✕ silent", "12.0 s ago"]
    assert [rows[key][4] for key in ("cap", "strap")] == ["12, 2 gaps", "1 gap"]


def test_alarms_stand_on_top_until_they_are_over(bench, make_script):
    script = make_script(replay=False)
    bench.play(script)
    alarm = bench.panel("alarms").alarm
    assert not alarm.isVisible()
    bench.health(script, 30.0, alarms=("strap: no samples for 12 s", "disk: 0.1 GB left"))
    assert alarm.isVisible()
    assert alarm.text() == "⚠  strap: no samples for 12 s\n⚠  disk: 0.1 GB left"
    assert "! 2 alarms" in bench.texts()
    image = alarm.grab().toImage()
    ground = image.pixelColor(image.width() - 20, image.height() // 2)
    assert ground.red() > 150 > 60 > ground.green()
    bench.health(script, 31.0)
    assert not alarm.isVisible()
    assert "! 2 alarms" not in bench.texts()


@pytest.mark.parametrize("size", [(1400, 900), (900, 600)])
def test_an_alarm_never_hides_whether_the_session_is_recorded(bench, make_script, size):
    script = make_script(replay=False, record="/home/lab/a.xdf")
    bench.board.resize(*size)
    bench.play(script)
    state, alarm = bench.board.state, bench.board.alarm
    calm = state.styleSheet()
    assert not alarm.isVisible()
    bench.health(script, 30.0, alarms=("ECG left out: too little good signal in the baseline",))
    assert (state.text(), alarm.text()) == ("● live, recording", "! alarm")
    assert state.styleSheet() == calm  # a note of the model does not make the session look broken
    assert alarm.isVisible()
    assert state.width() >= state.sizeHint().width()
    assert not state.geometry().intersects(alarm.geometry())
    bench.health(script, 31.0, alarms=("record: the disk is full",), record="")
    assert (state.text(), alarm.text()) == ("live, not recording", "! alarm")
    bench.tell(Ended())
    assert state.text() == "session ended"
    assert not alarm.isVisible()


def test_a_replay_is_played_paused_and_sped_up(bench, make_script, qtbot):
    script = make_script()
    bench.play(script)
    panel = bench.panel("transport")
    assert panel.isVisible()
    assert not bench.panel("marker").isVisible()
    qtbot.mouseClick(panel.button, Qt.MouseButton.LeftButton)
    bench.health(script, 30.0, playing=False)
    assert panel.button.text() == "Play"
    assert "replay, paused" in bench.texts()
    qtbot.keyClick(bench.board, Qt.Key.Key_Space)
    for text in ("0.25 ×", "16 ×", "max"):
        panel.speed.setCurrentText(text)
        panel.speed.activated.emit(panel.speed.currentIndex())
    assert bench.sent == [Pause(), Play(), SetSpeed(0.25), SetSpeed(16.0), SetSpeed(math.inf)]
    assert panel.time.text() == "0:30 of 4:04"
    bench.health(script, 30.0, speed=math.inf)
    assert panel.speed.currentText() == "max"


def test_a_replay_is_stepped_and_looped(bench, make_script, qtbot):
    script = make_script()
    bench.play(script)
    panel = bench.panel("transport")
    assert panel.step.text() == "Step 1 s"
    qtbot.mouseClick(panel.step, Qt.MouseButton.LeftButton)
    panel.loop.click()
    bench.health(script, 30.0, looping=True)
    assert panel.loop.isChecked()
    panel.loop.click()
    bench.health(script, 30.0, looping=False)
    assert not panel.loop.isChecked()
    assert bench.sent == [Step(1.0), SetLoop(True), SetLoop(False)]
    bench.tell(Ended())
    assert not panel.step.isEnabled()
    assert not panel.loop.isEnabled()


def test_what_has_happened_is_listed_newest_first_and_stays_when_the_alarm_has_gone(bench, make_script):
    script = make_script(replay=False)
    bench.play(script)
    panel = bench.panel("notes")
    assert not panel.isVisible()
    for k in range(7):
        bench.tell(Noted(script.start + 60 * k, f"strap: silent for {k} s"))
    bench.health(script, 400.0)
    assert not bench.panel("alarms").isVisible()
    lines = panel.lines.text().splitlines()
    assert lines[0] == "6:00  strap: silent for 6 s"
    assert len(lines) == 5
    assert "the last 5 of 7" in bench.texts()
    bench.tell(script.hello())
    assert not panel.isVisible()


def test_the_clocks_of_the_sources_are_told_with_their_uncertainty_once_measured(bench, make_script):
    script = make_script(replay=False)
    bench.play(script)
    assert "Clocks" not in bench.texts()
    cap, strap, marks = script.health(31.0).streams
    measured = (replace(cap, offset_ms=-12.34, offset_sd_ms=0.21), strap, replace(marks, offset_ms=3000.0))
    bench.health(script, 31.0, streams=measured)
    assert "Clocks of the sources against this one: cap −12.3 ± 0.2 ms; marks +3 000.0 ms" in bench.texts()


def test_what_the_disk_did_not_take_is_said_beside_the_record(bench, make_script):
    script = make_script(replay=False, record="/home/lab/a.xdf")
    bench.play(script)
    assert "missing in it" not in bench.texts()
    bench.health(script, 31.0, unrecorded=17)
    assert "to /home/lab/a.xdf; 17 entries are missing in it" in bench.texts()


def test_a_session_without_a_model_says_that_nothing_is_estimated(bench, make_script):
    script = make_script(replay=False, record="/home/lab/a.xdf")
    bench.tell(replace(script.hello(), model=None, used=()), script.traces("cap", 0), script.health(1.0))
    texts = bench.texts()
    assert "Nothing is estimated: this session only records, without a model." in texts
    assert "● live, recording" in texts
    assert bench.panel("traces").isVisible()
    for words in ("skipped by the model", "Measured on new people", "waiting for"):
        assert words not in texts
    bench.play(script)
    assert "Nothing is estimated" not in bench.texts()


def test_seeking_by_mouse_and_keys_asks_for_that_instant(bench, make_script, qtbot):
    script = make_script()
    bench.play(script)
    bar = bench.panel("transport").seek
    middle = QPoint(bar.width() // 2, bar.height() - 12)
    qtbot.mousePress(bar, Qt.MouseButton.LeftButton, pos=QPoint(10, bar.height() - 12))
    qtbot.mouseMove(bar, middle)
    assert bench.sent == []  # nothing before the button is let go
    qtbot.mouseRelease(bar, Qt.MouseButton.LeftButton, pos=middle)
    qtbot.keyClick(bar, Qt.Key.Key_Right)
    first, second = bench.sent
    assert isinstance(first, Seek)
    assert first.time == pytest.approx(script.start + 122.0, abs=0.5)
    assert second == Seek(first.time + 5.0)


def test_after_a_rewind_nothing_old_is_left_but_the_markers_to_seek_to(bench, make_script):
    script = make_script()
    bench.play(script)
    bench.tell(Cleared())
    affect, traces = bench.panel("affect"), bench.panel("traces")
    assert affect.readouts[0].value.text() == "–"
    assert affect.tracks[0].curve.getData()[0] is None or not len(affect.tracks[0].curve.getData()[0])
    assert not any(region.isVisible() for region, _ in affect.tracks[0].shades)
    assert finite_spans(traces.strips["cap"].curve) == []
    assert len(bench.panel("transport").seek.marks) == 2
    bench.tell(*list(script.updates())[1:])
    assert affect.readouts[0].value.text() == "0.75"
    assert len(bench.panel("transport").seek.marks) == 2


def test_a_live_marker_is_sent_by_enter_by_button_and_by_key(bench, make_script, qtbot):
    bench.play(make_script(replay=False))
    panel = bench.panel("marker")
    assert panel.isVisible()
    assert not bench.panel("transport").isVisible()
    qtbot.keyClicks(panel.field, "eyes closed")
    qtbot.keyClick(panel.field, Qt.Key.Key_Return)
    qtbot.mouseClick(panel.button, Qt.MouseButton.LeftButton)
    panel.field.clear()
    qtbot.keyClick(bench.board, Qt.Key.Key_M, Qt.KeyboardModifier.ControlModifier)
    assert bench.sent == [Mark("eyes closed"), Mark("eyes closed"), Mark("marker")]
    bench.tell(Marked(5031.0, "eyes closed", "marks"))
    assert panel.latest.text() == "last: eyes closed at 0:31"


def test_when_the_engine_is_gone_the_window_says_so_and_keeps_what_was_drawn(bench, make_script):
    bench.play(make_script())
    affect, strip = bench.panel("affect"), bench.panel("traces").strips["cap"]
    before = strip.curve.getData()[1].copy()
    bench.tell(Ended("The engine is gone."))
    alarm = bench.panel("alarms").alarm
    assert alarm.isVisible()
    assert alarm.text() == "⚠  The engine is gone. What is drawn is the last that came."
    assert "✕ not connected" in bench.texts()
    assert bench.board.isVisible()
    np.testing.assert_array_equal(strip.curve.getData()[1], before)
    assert affect.readouts[0].value.text() == "0.75"
    assert not bench.panel("transport").button.isEnabled()
    assert "✓ well" not in bench.texts()


def test_a_session_that_ended_as_it_should_raises_no_alarm(bench, make_script):
    bench.play(make_script(record="/home/lab/a.xdf"))
    bench.tell(Ended())
    assert not bench.panel("alarms").alarm.isVisible()
    assert "session ended" in bench.texts()
    assert "Recorded 2.4 MB to /home/lab/a.xdf" in bench.texts()
    assert "Recording" not in bench.texts()


def test_text_from_outside_is_shown_as_it_is_and_never_as_markup(bench, make_script):
    script = make_script(replay=False, record=EVIL, alarms=(EVIL,), targets=(EVIL,), marks={20: EVIL})
    script.bad = {"T3": Verdict("T3", 0.1, EVIL)}
    hello = script.hello()
    card = replace(hello.model, name=EVIL, hash=EVIL, accuracy=EVIL, limits=EVIL)
    streams = (
        *hello.streams,
        StreamInfo(key=EVIL, kind=EVIL, channels=(EVIL, "b" * 70_000), rate=50.0, unit=EVIL, name=EVIL, source=EVIL),
    )
    updates = list(script.updates())
    updates[0] = replace(hello, title=EVIL, model=card, streams=streams, used=((EVIL, EVIL),))
    rows = np.zeros((50, 2), np.float32)
    bench.tell(*updates, Traces(EVIL, script.start + np.arange(50) / 50 + 29, rows), Noted(script.start, EVIL))
    health = script.health(30.0)
    bench.tell(replace(health, streams=(*health.streams, replace(health.streams[0], key=EVIL, offset_ms=1e300))))
    bench.board.grab()
    labels = bench.board.findChildren(QLabel)
    assert all(label.textFormat() == Qt.TextFormat.PlainText for label in labels)
    seen = "\n".join(label.text() for label in labels) + bench.board.windowTitle()
    assert seen.count("<b>bold</b>") >= 6
    assert not any(character in seen for character in "\u202e\x00")
    for _, text in bench.panel("traces").lines[0].items:
        assert text.toPlainText().startswith("<b>bold</b>") or not text.toPlainText()
    assert bench.board.width() <= 1500  # no text makes the window grow


def close_answering(board: Board, button: str) -> str:
    """Close the window and press ``button`` when it asks; returns the question, "" when it did not ask."""
    asked = []

    def answer() -> None:
        box = QApplication.activeModalWidget()
        if isinstance(box, QMessageBox):
            asked.append(box.text())
            next(choice for choice in box.buttons() if choice.text() == button).click()

    QTimer.singleShot(0, answer)
    board.close()
    QApplication.processEvents()
    return asked[0] if asked else ""


@pytest.mark.parametrize(
    ("button", "sent", "open_after"),
    [("Keep it running", [], False), ("Stop the session", [Stop()], False), ("Cancel", [], True)],
)
def test_closing_a_live_recording_asks_first(bench, make_script, button, sent, open_after):
    bench.play(make_script(replay=False, record="/home/lab/a.xdf"))
    assert close_answering(bench.board, button) == "This session is being recorded. What should happen to it?"
    assert bench.sent == sent
    assert bench.board.isVisible() == open_after


def test_closing_a_replay_stops_it_without_asking(bench, make_script):
    bench.play(make_script())
    assert close_answering(bench.board, "Cancel") == ""
    assert bench.sent == [Stop()]
    assert not bench.board.isVisible()


def test_closing_after_the_engine_is_gone_neither_asks_nor_sends(bench, make_script):
    bench.play(make_script(replay=False, record="/home/lab/a.xdf"))
    bench.tell(Ended("gone"))
    assert close_answering(bench.board, "Cancel") == ""
    assert bench.sent == []


def test_a_real_recording_is_drawn(bench, make_script, shared_data):
    """Subject 05 at rest: ten seconds of 19 channels fill their rows without leaving the window."""
    with np.load(shared_data / "eegmat" / "eegmat_28_people_128hz_int16_0p1uV.npz") as archive:
        samples = archive["Subject05_1"][:, : 128 * 12].astype(np.float32) * 0.1
    script = make_script(eeg_rate=128.0)
    times = script.start + np.arange(samples.shape[1]) / 128.0
    bench.tell(script.hello())
    for first in range(0, samples.shape[1], 32):
        part = slice(first, first + 32)
        bench.tell(Traces("cap", times[part], np.ascontiguousarray(samples[:19, part].T)))
    strip = bench.panel("traces").strips["cap"]
    rows = strip.curve.getData()[1].reshape(19, -1) + np.arange(19)[:, None]
    spread = np.nanstd(rows, axis=1)
    assert strip.scale in (20.0, 50.0, 100.0)
    assert 0.1 < np.median(spread) < 0.6


def test_numbers_that_are_not_known_are_dashes(bench, make_script):
    script = make_script(replay=False)
    bench.tell(script.hello())
    unknown = tuple(replace(stream, stale=math.nan, rate=math.nan) for stream in script.health(0.0).streams)
    bench.tell(Health(now=math.nan, streams=unknown, skipped=3, latency_ms=math.nan, record="", record_bytes=0))
    row = [cell.text() for cell in bench.panel("health").rows["cap"]]
    assert row[1:4] == ["! no samples yet", "never", "– of 250 Hz"]
    assert "Windows skipped by the model: 3" in bench.texts()
    assert "Not recording" in bench.texts()
    assert "nan" not in bench.texts()


@pytest.mark.parametrize("chosen", [look.DARK, look.LIGHT], ids=["dark", "light"])
def test_every_text_colour_can_be_read_on_its_ground(chosen):
    def luminance(name: str) -> float:
        parts = [getattr(look.color(name), f"{part}F")() for part in ("red", "green", "blue")]
        red, green, blue = (p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts)
        return 0.2126 * red + 0.7152 * green + 0.0722 * blue

    for ground in (chosen.card, chosen.plot):
        for ink in (chosen.text, chosen.muted, chosen.good, chosen.fair, chosen.bad, chosen.marker, *chosen.targets):
            bright, dark = sorted((luminance(ground), luminance(ink)), reverse=True)
            assert (bright + 0.05) / (dark + 0.05) >= 4.0, (ink, ground)  # WCAG asks 4.5 of small text, 3 of large

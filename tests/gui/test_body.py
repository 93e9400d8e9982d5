"""The panel of heart and brain: what a lab assistant reads, and why there is nothing to read."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from PySide6.QtWidgets import QLabel

from devices.api import StreamInfo
from models.api import Verdict
from realtime.api import Beats, Cleared, Figure


def visible(panel) -> str:
    return "\n".join(label.text() for label in panel.findChildren(QLabel) if label.isVisible() and label.text())


def test_figures_stand_with_unit_window_and_share_of_beats_left_out(bench, make_script):
    bench.play(make_script())
    panel = bench.panel("body")
    assert panel.rate.text() == "60"
    texts = visible(panel)
    for expected in (
        "bpm",
        "RMSSD",
        "42 ms",
        "last 20 s, 2 % left out",
        "29 s of beats so far, SDNN needs 60 s",
        "10.2 Hz",
        "−1.02 (exponent of 1/f)",
        "1.5 (ratio of powers)",
        "−0.25 ln alpha F4−F3",
        "19 channels, last 4 s",
        "✕ 1 interval left out of the figures",
    ):
        assert expected in texts
    assert panel.values["SDNN"][0].text() == "–"


def test_every_figure_of_the_heart_stands_with_its_window_or_with_the_reason_why_it_is_withheld(bench, make_script):
    script = make_script()
    bench.play(script)
    panel = bench.panel("body")
    figures = {
        "LF/HF": Figure(1.84, "", 300.0, "", 0.031),
        "breathing": Figure(14.6, "/min", 60.0),
    }
    bench.tell(script.body(31, heart=script.body(31).heart | figures))
    said = {name: (value.text().strip(), about.text()) for name, (value, about) in panel.values.items()}
    assert said["LF/HF"] == ("1.8", "last 300 s, 3 % left out")
    assert "3 % of the beats left out" in panel.values["LF/HF"][1].toolTip()
    assert said["breathing"] == ("15 /min", "last 60 s")
    reasons = {
        "LF/HF": Figure(math.nan, "", 100.0, "100 s of beats so far, LF/HF needs 120 s"),
        "breathing": Figure(math.nan, "/min", 60.0, "R waves say 24 and RR intervals 15 breaths a minute"),
    }
    bench.tell(script.body(32, heart=script.body(32).heart | reasons))
    for name, figure in reasons.items():
        value, about = panel.values[name]
        assert (value.text(), about.text()) == ("–", figure.reason)
        assert about.isVisible()


def test_what_is_withheld_of_everything_for_one_reason_says_it_once(bench, make_script):
    script = make_script()
    bench.play(script)
    panel = bench.panel("body")
    noise = "beats agree by 0.47 only: noise, or no heart"
    units = {"HR": "bpm", "RMSSD": "ms", "SDNN": "ms", "LF/HF": "", "breathing": "/min"}
    bench.tell(script.body(31, heart={name: Figure(math.nan, unit, 10.0, noise) for name, unit in units.items()}))
    assert panel.rate.text() == "–"
    assert visible(panel).count(noise) == 1


@pytest.mark.parametrize(
    ("score", "reason", "said"),
    [
        (0.9, "", "✓ ECG good"),
        (0.1, "flat", "✕ ECG bad: flat"),
        (0.45, "amplitude 9000 uV", "✕ ECG bad: amplitude 9000 uV"),
        (0.8, "drift", "! ECG doubtful: drift"),
    ],
)
def test_how_good_the_ecg_is_stands_beside_the_heart_rate(bench, make_script, score, reason, said):
    script = make_script()
    bench.play(script)
    panel = bench.panel("body")
    judged = script.estimated(31)
    bench.tell(replace(judged, quality={**judged.quality, "ecg": (Verdict("ECG", score, reason),)}))
    assert panel.quality.text() == said
    assert panel.quality.isVisible()
    bench.tell(Cleared())
    assert panel.quality.text() == ""


def test_intervals_are_drawn_in_milliseconds_and_what_was_left_out_is_crossed(bench, make_script):
    bench.play(make_script())
    panel = bench.panel("body")
    x, y = panel.dots.getData()
    assert len(x) == 25  # of 30; four lie before the start, one was left out
    assert set(np.round(y)) == {1000.0, 1020.0}
    crosses = panel.crosses.getData()
    assert crosses[0].tolist() == [8.5]
    low, high = panel.plot.getViewBox().viewRange()[1]
    assert low < 1000 < 1020 < high


def test_bars_are_as_high_as_the_share_they_say(bench, make_script):
    bench.play(make_script())
    panel = bench.panel("body")
    assert panel.brain.bars.bars.opts["height"] == pytest.approx([20, 15, 50, 10, 5])
    assert [text.toPlainText() for text in panel.brain.bars.texts] == ["20 %", "15 %", "50 %", "10 %", "5 %"]
    low, high = panel.brain.bars.plot.getViewBox().viewRange()[1]
    assert low == 0 and high > 55  # noqa: PT018


def test_why_nothing_is_given_is_said_in_words(bench, make_script):
    script = make_script()
    bench.play(script)
    panel = bench.panel("body")
    few = {"HR": Figure(math.nan, "bpm", 10.0, "beats were found in 2 s of the last 10 s only")}
    bench.tell(script.body(30, heart=few))
    assert panel.rate.text() == "–"
    assert "beats were found in 2 s of the last 10 s only" in visible(panel)
    bench.tell(script.body(31, heart={}, reason="strap: no samples"))
    assert "strap: no samples" in visible(panel)
    assert panel.values["RMSSD"][0].text() == "–"
    bad = replace(script.body(32).brains[0], shares=np.full(5, math.nan), reason="no samples")
    bench.tell(script.body(32, brains=(bad,)))
    assert "no samples" in panel.brain.source.text()
    assert not any(text.isVisible() for text in panel.brain.bars.texts)
    raw = replace(script.body(33).brains[0], remark="no unit given: no powers, only shares and ratios")
    bench.tell(script.body(33, remark="no unit given: taken as µV to find beats, no amplitudes", brains=(raw,)))
    assert "taken as µV" in visible(panel)
    assert "no powers" in panel.brain.source.text()


WAVES = {
    "PR": Figure(math.nan, "ms", 17.0, "P is seen in 5 of the last 20 beats only", beats=5),
    "QRS": Figure(92.4, "ms", 17.0, beats=20),
    "QT": Figure(379.6, "ms", 17.0, beats=19),
    "QTc": Figure(402.0, "ms", 17.0, beats=19),
}


def test_intervals_of_the_waves_stand_with_their_beats_and_one_that_is_withheld_says_why(bench, make_script):
    script = make_script()
    bench.play(script)
    panel = bench.panel("body")
    assert {label.text() for label in panel.interval_values.values()} == {"–"}
    assert panel.interval_beats.text() == ""
    sdnn = {"SDNN": Figure(51.0, "ms", 120.0)}
    bench.tell(script.body(31, heart=script.body(31).heart | sdnn | WAVES))
    assert [label.text() for label in panel.interval_values.values()] == ["–", "92", "380", "402"]
    assert panel.interval_beats.text() == "ms, 20 beats"
    assert "PR: P is seen in 5 of the last 20 beats only" in visible(panel)
    assert "median of 19 beats, last 17 s" in panel.interval_values["QT"].toolTip()
    assert "Fridericia" in panel.interval_values["QTc"].toolTip()
    bench.tell(script.body(32, heart={}, reason="strap: no samples"))
    assert {label.text() for label in panel.interval_values.values()} == {"–"}


def test_the_rhythms_stay_when_the_end_of_a_session_cuts_a_second_short(bench, make_script):
    script = make_script()
    bench.play(script)
    panel = bench.panel("body")
    bench.tell(script.body(30, brains=()))
    assert panel.brain.isVisible()
    assert panel.brain.bars.bars.opts["height"] == pytest.approx([20, 15, 50, 10, 5])


def test_a_clock_that_was_set_back_leaves_no_intervals_of_a_later_time(bench, make_script):
    script = make_script(seconds=100)
    bench.play(script)
    panel = bench.panel("body")
    assert len(panel.intervals) > 90
    bench.tell(script.body(10))
    assert len(panel.intervals) == 1


def test_without_an_ecg_no_intervals_and_without_eeg_no_bars_are_shown(bench, make_script):
    script = make_script()
    bench.play(script)
    panel = bench.panel("body")
    bench.tell(script.body(30, ecg="", heart={}, reason="no ECG: no stream carries it", intervals=np.zeros((0, 3))))
    assert not panel.intervals_box.isVisible()
    assert "no ECG: no stream carries it" in visible(panel)
    bench.tell(Cleared(), script.body(31, brains=()))
    assert panel.intervals_box.isVisible()
    assert not panel.brain.isVisible()
    acc = StreamInfo(key="acc", kind="acc", channels=("x",), rate=50.0, unit="g")
    bench.tell(replace(script.hello(), streams=(acc,)))
    assert not panel.isVisible()


def test_a_rewound_replay_and_a_new_session_begin_with_empty_panels(bench, make_script):
    script = make_script()
    bench.play(script)
    panel = bench.panel("body")
    bench.tell(Cleared())
    assert panel.rate.text() == "–"
    assert "no beats yet" in visible(panel)
    assert len(panel.dots.getData()[0]) == 0
    assert not bench.panel("traces").strips["strap"].beats


def test_every_r_peak_has_a_tick_above_it_on_the_trace_of_the_ecg(bench, make_script):
    bench.play(make_script())
    strip = bench.panel("traces").strips["strap"]
    x, y = strip.ticks.getData()
    assert x[::2].tolist() == pytest.approx([20.5 + second for second in range(10)])
    assert y.min() > 1.0
    assert y.max() < strip.high
    assert len(bench.panel("traces").strips["cap"].ticks.getData()[0]) == 0


def test_bars_below_the_ecg_reach_from_onset_to_offset_of_each_wave_and_can_be_switched_off(bench, make_script):
    script = make_script()
    bench.play(script)
    panel = bench.panel("traces")
    strip = panel.strips["strap"]
    at = script.start + 25.5
    waves = np.array([at - 0.2, at - 0.15, at - 0.1, at - 0.04, at, at + 0.05, math.nan, math.nan, math.nan])
    none = np.zeros(0)
    bench.tell(Beats("strap", "ECG", none, none, none, waves[None]))
    p, qrs, t = ([x.tolist() for x in bars.getData()] for bars in strip.wave_bars)
    assert p[0] == pytest.approx([25.3, 25.4])
    assert qrs[0] == pytest.approx([25.46, 25.55])
    assert t[0] == []
    assert strip.low < min(p[1]) < -0.5
    assert panel.waves.isVisible()
    panel.waves.click()
    panel.refresh()
    assert [len(bars.getData()[0]) for bars in strip.wave_bars] == [0, 0, 0]
    assert len(strip.ticks.getData()[0]) > 0
    bench.tell(script.hello())
    assert not panel.waves.isVisible()  # no beat has come in this session


@pytest.mark.parametrize("size", [(1280, 800), (1920, 1080)])
def test_the_panel_fits_and_nothing_in_it_is_squeezed(bench, make_script, size):
    bench.board.resize(*size)
    script = make_script()
    bench.play(script)
    long = "38% of the beats of 60 s are unclear or not normal"
    figures = {name: Figure(math.nan, "ms", 60.0, long) for name in ("RMSSD", "SDNN", "LF/HF", "breathing")}
    bench.tell(script.body(31, heart=script.body(31).heart | figures | WAVES))
    panel = bench.panel("body")
    assert (bench.board.width(), bench.board.height()) == size
    for label in panel.heart.findChildren(QLabel):
        if label.isVisible() and label.text():
            assert label.height() >= label.heightForWidth(label.width()) > 0 or not label.wordWrap()
            assert label.mapTo(panel, label.rect().bottomLeft()).y() <= panel.height()
            assert label.height() >= label.fontMetrics().height() - 1
    abouts = [about for _, about in panel.values.values()]
    for above, below in pairwise([*abouts, panel.note]):
        assert not above.isVisible() or not below.isVisible() or above.geometry().bottom() < below.geometry().top() + 3
    assert panel.brain.bars.area.height() > 60

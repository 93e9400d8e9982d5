"""Whether every channel is good: with a model or without, and when that is first known."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from PySide6.QtWidgets import QLabel, QScrollArea

from devices.api import Chunk, StreamInfo
from models.api import Verdict
from realtime.api import Body, Traces
from realtime.physiology import Physiology


def judged(script, second, *verdicts, reason="") -> Body:
    """What the rhythms say of the headset."""
    body = script.body(second)
    return replace(body, brains=(replace(body.brains[0], verdicts=verdicts, reason=reason),))


def test_without_a_model_channels_are_judged_by_the_rules_of_the_rhythms_and_shown(bench, make_script):
    script = make_script(replay=False)
    bench.tell(replace(script.hello(), model=None, used=()))
    panel = bench.panel("quality")
    assert panel.isVisible()
    assert panel.summary.text() == "waiting for the first samples"
    bench.tell(script.traces("cap", 0))
    assert panel.summary.text() == "first verdict in 4 s"
    bench.tell(judged(script, 1, reason="1.0 s of signal so far, 4 s are needed"), script.traces("cap", 1))
    assert panel.summary.text() == "first verdict in 3 s"
    good, flat, noisy = Verdict("Fp1", 1.0), Verdict("Fp2", 0.1, "flat"), Verdict("F3", 0.7, "50 Hz is 61 % of power")
    bench.tell(judged(script, 5, good, flat, noisy))
    assert [chip.text() for chip in panel.chips.values()] == [
        "✓ Fp1 good",
        "✕ Fp2: flat",
        "! F3: 50 Hz is 61 % of power",
    ]
    assert panel.summary.text() == "1 of 3 channels good; not Fp2, F3; ECG: not judged without a model"
    assert all(chip.isVisible() for chip in panel.chips.values())
    gap = "1.2 s of signal after a gap, 4 s are needed"
    bench.tell(*(script.traces("cap", second) for second in range(2, 9)), judged(script, 9, reason=gap))
    assert panel.summary.text() == gap
    assert not any(word in bench.texts() for word in ("Fp1 good", "flat"))
    bench.tell(replace(judged(script, 10), brains=()))  # the last one of a session
    assert panel.summary.text() == gap


def test_two_headsets_without_a_model_are_told_apart_by_name(bench, make_script):
    script = make_script(replay=False)
    hello = script.hello()
    spare = replace(hello.streams[0], key="spare")
    bench.tell(replace(hello, streams=(*hello.streams, spare), model=None, used=()))
    body = judged(script, 5, Verdict("Fz", 1.0))
    bench.tell(replace(body, brains=(*body.brains, replace(body.brains[0], stream="spare"))))
    assert [chip.text() for chip in bench.panel("quality").chips.values()] == ["✓ cap Fz good", "✓ spare Fz good"]


def test_with_a_model_the_seconds_until_the_first_verdict_are_counted_down(bench, make_script):
    script = make_script(start=5000.0)
    bench.tell(script.hello(), script.traces("cap", 0))
    panel = bench.panel("quality")
    assert panel.summary.text() == "first verdict in 10 s"
    for second in range(1, 7):
        bench.tell(script.traces("cap", second), script.traces("strap", second), script.body(second))
    assert panel.summary.text() == "first verdict in 4 s"
    for second in range(7, 11):
        bench.tell(script.traces("cap", second))
    assert panel.summary.text() == "first verdict now"
    bench.tell(script.estimated(11))
    assert panel.summary.text() == "all 20 channels good"


def test_a_session_of_an_ecg_alone_without_a_model_has_nobody_to_judge_it_and_shows_no_empty_panel(bench, make_script):
    script = make_script(replay=False)
    hello = script.hello()
    bench.tell(replace(hello, streams=hello.streams[1:], model=None, used=()), script.traces("strap", 0))
    assert not bench.panel("quality").isVisible()


def headset(channels=8, rate=250.0, unit="uV"):
    return StreamInfo(key="cap", kind="eeg", channels=tuple(f"E{i}" for i in range(channels)), rate=rate, unit=unit)


@pytest.mark.parametrize(
    ("stream", "said"),
    [
        (headset(unit=""), "no unit given"),
        (headset(channels=129, rate=1000.0), "so many channels at such a rate are not judged"),
        (headset(channels=300), "300 channels; rhythms are computed of up to 256"),
        (headset(rate=4000.0), "4000 Hz; rhythms are computed up to 2000 Hz"),
        (headset(rate=10.0), "10 Hz; band powers need at least"),
    ],
)
def test_a_headset_that_cannot_be_judged_says_why_instead_of_promising_a_verdict(bench, make_script, stream, said):
    script = make_script(replay=False)
    bench.tell(replace(script.hello(), streams=(stream,), model=None, used=()))
    physiology = Physiology([stream])
    if physiology.empty:
        bench.tell(physiology.body(script.start))  # as a session says it at its beginning
    for second in range(7):
        times = script.start + np.arange(round(second * stream.rate), round((second + 1) * stream.rate)) / stream.rate
        rows = np.random.default_rng(second).normal(0, 15, (len(times), len(stream.channels))).astype(np.float32)
        bench.tell(Traces(stream.key, times, rows, gap=False), *physiology.push(Chunk(stream.key, times, rows)))
    panel = bench.panel("quality")
    assert panel.isVisible()
    assert said in panel.summary.text()
    assert not panel.chips


def test_a_headset_that_is_not_judged_is_not_hidden_by_one_that_is(bench, make_script):
    script = make_script(replay=False)
    hello = script.hello()
    bench.tell(replace(hello, streams=(*hello.streams, replace(hello.streams[0], key="old")), model=None, used=()))
    body = judged(script, 5, Verdict("Fz", 1.0))
    old = replace(body.brains[0], stream="old", verdicts=(), remark="no unit given")
    bench.tell(replace(body, brains=(*body.brains, old)))
    assert "all 1 channels good; old: no unit given" in bench.panel("quality").summary.text()


def test_without_an_ecg_no_beats_are_awaited(bench, make_script):
    script = make_script(replay=False)
    hello = script.hello()
    bench.tell(replace(hello, model=None, used=()))
    assert bench.panel("body").note.text() == "no beats yet"
    bench.tell(replace(hello, streams=hello.streams[:1], model=None, used=()))
    assert bench.panel("body").note.text() == "no ECG: no stream carries it"


@pytest.mark.parametrize("size", [(1280, 720), (1400, 900)])
def test_nothing_that_the_panel_says_makes_its_column_wider_than_the_window_has_room_for(bench, make_script, size):
    script = make_script(replay=False)
    bench.board.resize(*size)
    bench.tell(replace(script.hello(), model=None, used=()))
    panel = bench.panel("quality")
    long = [Verdict(f"Electrode{i}", 0.1, "amplitude 821 uV") for i in range(8)]
    for body in (
        judged(script, 5, *(Verdict(f"E{i}", 1.0) for i in range(8))),
        judged(script, 6, *long),
        judged(script, 7, reason="one rather long reason for which there is no verdict of any channel of it at all"),
    ):
        bench.tell(script.traces("cap", int(body.time - script.start)), body)
        area = panel.parentWidget()
        while not isinstance(area, QScrollArea):
            area = area.parentWidget()
        assert area.widget().width() <= area.viewport().width()
        for label in (one for one in panel.findChildren(QLabel) if one.isVisible()):
            assert label.mapTo(area.viewport(), label.rect().topRight()).x() < area.viewport().width()
        assert panel.summary.height() >= panel.summary.heightForWidth(panel.summary.width())

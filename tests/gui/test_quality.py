"""Whether every channel is good: with a model or without, and when that is first known."""

from __future__ import annotations

from dataclasses import replace

from models.api import Verdict
from realtime.api import Body


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

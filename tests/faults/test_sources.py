"""What a user gets when a source fails: the real command, real LSL streams, every sample of a record numbered."""

from __future__ import annotations

import itertools
import os
import signal
import time

import pylsl
import pytest

OUTAGE = float(os.environ.get("INSULA_OUTAGE", "4"))
"""Seconds that a source is away; 10 in a thorough run."""
SUSPENSION = float(os.environ.get("INSULA_SUSPENSION", "4"))
"""Seconds that the engine is stopped; 60 in a thorough run."""
KEPT = 60.0
"""Seconds of samples that LSL keeps for a reader who does not read."""
WINDOW, HOP = 2.0, 0.5
"""Of the quick model."""
SETTLING = 1.0
"""Seconds after a gap that do not count as present: the filters start anew."""
PACKET = {"eeg": 0.032, "ecg": 73 / 130}
LEEWAY = 0.3
"""Seconds for a loaded machine."""
RUBBISH = {"nan": "missing", "rail": "flat", "flat": "flat", "hold": "flat", "leadoff": "amplitude"}
"""What is sent, and what must be said of it."""
CLEAN, EACH = 6.0, 4.0
"""Seconds of good signal before the rubbish, and of each kind of rubbish."""


def play_kill(live):
    live = live()
    with live.source() as source, live.start() as terminal:
        source.begun()
        live.wait(terminal, 3)
        source.kill()
        killed = pylsl.local_clock()
        time.sleep(OUTAGE)
        with live.source("--epoch", source.epoch) as again:
            again.begun()
            live.wait(terminal, 3)
            again.end()
            time.sleep(0.3)
        terminal.stop()
    return live, live.read(source.epoch), source, again, killed, terminal


def play_suspended_engine(live):
    live = live("eeg", "ecg", "markers")
    with live.source() as source, live.start() as terminal:
        source.begun()
        live.wait(terminal, 2)
        terminal.process.send_signal(signal.SIGSTOP)
        stopped = pylsl.local_clock()
        time.sleep(SUSPENSION)
        terminal.process.send_signal(signal.SIGCONT)
        live.wait(terminal, 4)
        time.sleep(2.0)
        ended = pylsl.local_clock()
        source.end()
        time.sleep(0.3)
        status = terminal.stop()
    return live, live.read(source.epoch), source, (stopped, ended), status


def play_suspended_source(live):
    live = live("eeg")
    with live.source() as source, live.start() as terminal:
        source.begun()
        live.wait(terminal, 2)
        source.process.send_signal(signal.SIGSTOP)
        stopped = pylsl.local_clock()
        time.sleep(2.5)
        source.process.send_signal(signal.SIGCONT)
        live.wait(terminal, 3)
        source.end()
        time.sleep(0.3)
        terminal.stop()
    return live, live.read(source.epoch), source, stopped


def play_rubbish(live):
    live = live()
    spoils = []
    for index, how in enumerate(RUBBISH):
        for kind in ("eeg", "ecg"):
            spoils += ["--spoil", kind, how, CLEAN + EACH * index, CLEAN + EACH * (index + 1)]
    with live.source("--seconds", CLEAN + EACH * len(RUBBISH) + 5, *spoils) as source, live.start() as terminal:
        source.begun()
        source.wait()
        time.sleep(0.3)
        status = terminal.stop()
    return live, live.read(source.epoch), source, status, terminal


@pytest.fixture(scope="module")
def played(scenes, live):
    plays = (play_kill, play_suspended_engine, play_suspended_source, play_rubbish)
    playing = scenes({play.__name__: (play, live) for play in plays})
    yield playing
    playing.close()


@pytest.mark.parametrize("kind", ["eeg", "ecg"])
def test_a_source_that_is_killed_and_restarted_leaves_the_outage_as_a_gap_and_no_sample_twice(played, kind):
    live, read, source, again, killed, _ = played["play_kill"]
    assert read["findings"] == []
    numbers = read["numbers"][kind]
    assert numbers.twice == numbers.backward_stamps == numbers.bad_stamps == 0
    missing, holes = numbers.missing(source.first[kind], again.sent[kind])
    assert len(holes) == 1, holes
    ((begin, end),) = holes
    # From the last packet that was sent to the first sample of the new source.
    assert end == again.first[kind]
    assert -PACKET[kind] - LEEWAY < source.epoch + begin / numbers.rate - killed < PACKET[kind]
    ((_, lost),) = live.said(read, "lost", f"{live.name}-{kind}")
    assert abs(int(lost.split()[1]) - missing) <= 1


@pytest.mark.parametrize("kind", ["eeg", "ecg"])
def test_within_a_second_a_killed_source_is_said_to_be_silent_in_the_record_and_on_the_terminal(played, kind):
    live, read, _, _, killed, terminal = played["play_kill"]
    alarms = [t for t, _ in live.said(read, "alarm", f"{live.name}-{kind}") if t > killed - 0.5]
    assert alarms, read["events"]
    assert alarms[0] - killed < 1.0 + LEEWAY
    assert [t for t, _ in live.said(read, "over", f"{live.name}-{kind}") if t > killed + OUTAGE]
    lines = [t for t, text in terminal.lines if t > killed - 0.2 and f"{live.name}-{kind}" in text]
    assert lines[0] - killed < 1.0 + 2 * LEEWAY


def test_after_an_outage_estimates_resume_one_window_later_and_none_rests_on_old_signal(played):
    _, read, _, again, killed, _ = played["play_kill"]
    back = {"eeg": again.epoch + again.first["eeg"] / 250.0, "ecg": again.epoch + again.first["ecg"] / 130.0}
    # A window may lack a fifth. EEG alone is enough for an estimate, and the strap's last packet is older.
    old = [t for t in read["given"] if killed + 0.2 * WINDOW + PACKET["eeg"] < t < min(back.values()) + 0.8 * WINDOW]
    assert old == []
    resumed = min(t for t in read["given"] if t > killed + OUTAGE)
    assert resumed - max(back.values()) <= SETTLING + WINDOW + HOP
    reasons = [text for t, text in read["withheld"] if killed + WINDOW < t < min(back.values())]
    assert len(reasons) >= 2
    assert all("missing" in text for text in reasons)


@pytest.mark.parametrize("kind", ["eeg", "ecg", "markers"])
def test_an_engine_that_is_suspended_loses_nothing_that_was_buffered_and_counts_the_rest(played, kind):
    live, read, source, (stopped, _), status = played["play_suspended_engine"]
    assert status == 0
    assert read["findings"] == []
    numbers = read["numbers"][kind]
    missing, holes = numbers.missing(source.first[kind], source.sent[kind])
    print(f"{kind}: {source.sent[kind] - source.first[kind]} sent, {missing} missing {holes}, "
          f"worst stamp {1e6 * numbers.worst_stamp:.0f} us off")  # fmt: skip
    assert numbers.twice == numbers.backward_stamps == numbers.bad_stamps == 0
    assert numbers.worst_stamp < 1e-3
    said = [int(text.split()[1]) for _, text in live.said(read, "lost", f"{live.name}-{kind}")]
    assert sum(said) == missing, (said, holes)
    # What is missing is of the suspension, and no more than what LSL does not keep.
    assert missing <= max(0.0, SUSPENSION + 1.0 - KEPT) * numbers.rate
    for begin, end in holes:
        assert stopped - 1.0 < source.epoch + begin / numbers.rate < source.epoch + end / numbers.rate
        assert source.epoch + end / numbers.rate < stopped + SUSPENSION


def test_a_suspension_stands_in_the_record_as_long_as_it_was(played):
    _, read, _, (stopped, _), _ = played["play_suspended_engine"]
    ((said, text),) = [(t, text) for t, text in read["events"] if "held up for" in text]
    assert abs(float(text.partition("held up for ")[2].split()[0]) - SUSPENSION) < 1.0
    assert said > stopped + SUSPENSION - LEEWAY


def test_every_window_of_a_suspension_is_estimated_or_said_to_be_skipped(played):
    live, read, _, (stopped, _), _ = played["play_suspended_engine"]
    skipped = live.skipped(read)
    ends = sorted([*(t for t, _ in read["affect"]), *skipped])
    begun = min(read["given"])
    assert ends[-1] > stopped + SUSPENSION
    if SUSPENSION <= KEPT:  # else there is a time of which nothing came
        assert all(b - a == HOP for a, b in itertools.pairwise(t for t in ends if t >= begun)), ends
    if SUSPENSION < KEPT - 5.0:  # nothing was missing: none is withheld
        assert [t for t, _ in read["withheld"] if begun < t] == []


def test_an_engine_that_was_suspended_leaves_no_alarm_about_its_sources(played):
    live, read, _, (stopped, ended), _ = played["play_suspended_engine"]
    overs = [t for t, _ in live.said(read, "over", live.name)]
    lasting = [
        text
        for t, text in live.said(read, "alarm", live.name)
        if stopped < t < ended - 1 and not any(t <= over < min(t + 2, ended) for over in overs)
    ]
    assert lasting == []


def test_a_source_that_is_suspended_delivers_what_it_had_and_its_silence_is_said(played):
    live, read, source, stopped = played["play_suspended_source"]
    result = read["numbers"]["eeg"].result(source.first["eeg"], source.sent["eeg"])
    assert result["missing"] == result["twice_or_out_of_order"] == 0
    alarms = [t for t, _ in live.said(read, "alarm", live.name) if stopped < t < stopped + 2.5]
    assert alarms, read["events"]
    assert alarms[0] - stopped < 1.0 + LEEWAY
    assert [t for t, _ in live.said(read, "over", live.name) if stopped + 2 < t < stopped + 4]


def test_rubbish_is_recorded_as_it_came_and_estimates_come_back_after_it(played):
    _, read, source, status, terminal = played["play_rubbish"]
    assert status == 0
    assert "Traceback" not in terminal.text
    for kind in ("eeg", "ecg"):
        result = read["numbers"][kind].result(source.first[kind], source.sent[kind])
        assert result["missing"] == result["bad_stamps"] == 0
    assert min(read["given"]) < source.epoch + CLEAN
    assert max(read["given"]) > source.epoch + CLEAN + EACH * len(RUBBISH) + WINDOW


@pytest.mark.parametrize("how", RUBBISH)
def test_no_estimate_rests_on_rubbish_and_the_reason_is_said_of_each_kind_of_signal(played, how):
    _, read, source, _, _ = played["play_rubbish"]
    index = list(RUBBISH).index(how)
    begin, end = source.epoch + CLEAN + EACH * index, source.epoch + CLEAN + EACH * (index + 1)
    # Windows that hold nothing else, beyond a packet of the strap.
    inside = [(t, text) for t, text in read["withheld"] if begin + WINDOW + PACKET["ecg"] < t <= end]
    assert len(inside) >= 2, read["withheld"]
    assert not [t for t in read["given"] if begin + WINDOW + PACKET["ecg"] < t <= end]
    for _, text in inside:
        assert RUBBISH[how] in text, text
        assert "EEG" in text, text
        assert "ECG" in text, text

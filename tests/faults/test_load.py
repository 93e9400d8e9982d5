"""What a user gets when a part of insula is too slow, stuck or wrong: signals, record and the other parts go on."""

from __future__ import annotations

import itertools
import json
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pylsl
import pytest

SCRIPT = Path(__file__).resolve().parents[1] / "benchmarks" / "soak.py"
WINDOW, HOP = 2.0, 0.5
"""Of the quick model."""
BLOCKED = 5.0
NAN, SLOW = (7.0, 10.0), (14.0, 17.0)
"""Seconds into the session in which a huge ECG makes the model return NaN, a huge EEG makes it take seconds."""
OFFSCREEN = {"DISPLAY": ":offscreen", "QT_QPA_PLATFORM": "offscreen"}


def play_stopped_dashboard(live):
    live = live(command="{python} -m insula live {sources} --record {record}", env=OFFSCREEN)
    with live.source() as source, live.start() as terminal:
        source.begun()
        window = attached(terminal)
        time.sleep(3.0)  # it draws
        window.send_signal(signal.SIGSTOP)
        stopped = pylsl.local_clock()
        time.sleep(BLOCKED)
        window.send_signal(signal.SIGCONT)
        time.sleep(1.5)
        alive = window.is_running() and window.status() != psutil.STATUS_ZOMBIE
        source.end()
        time.sleep(0.3)
        status = terminal.stop()
    return live, live.read(source.epoch), source, stopped, status, alive


def attached(terminal):
    """The dashboard's process, once it is connected to the engine."""
    until = time.monotonic() + 60
    while time.monotonic() < until:
        for child in psutil.Process(terminal.process.pid).children():
            if "gui.app" in " ".join(child.cmdline()) and any(
                one.status == "NONE" and one.type == socket.SOCK_STREAM for one in child.net_connections("unix")
            ):
                return child
        time.sleep(0.1)
    raise TimeoutError(terminal.text)


def play_bad_model(live):
    live = live()
    spoils = ["--spoil", "ecg", "big", *NAN, "--spoil", "eeg", "big", *SLOW]
    with live.source("--seconds", SLOW[1] + 9, *spoils) as source, live.start() as terminal:
        source.begun()
        source.wait()
        time.sleep(0.3)
        status = terminal.stop()
    return live, live.read(source.epoch), source, status, terminal


def play_script(folder, name, *options):
    """The figures of the soak script, in a process of its own."""
    figures = folder / f"{name}.json"
    done = subprocess.run(
        [sys.executable, str(SCRIPT), "--json", str(figures), *map(str, options)],
        capture_output=True, text=True, check=False, timeout=140,
    )  # fmt: skip
    assert figures.is_file(), done.stdout + done.stderr
    return json.loads(figures.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def played(scenes, live, quick, tmp_path_factory):
    folder = tmp_path_factory.mktemp("scripts")
    playing = scenes(
        {
            "dashboard": (play_stopped_dashboard, live),
            "model": (play_bad_model, live),
            "soak": (play_script, folder, "soak", "--minutes", 0.4),
            "cycles": (play_script, folder, "cycles", "--cycles", 10, "--model", quick),
        }
    )
    yield playing
    playing.close()


def whole(read, source):
    """That everything sent is in the record once."""
    for kind in ("eeg", "ecg"):
        result = read["numbers"][kind].result(source.first[kind], source.sent[kind])
        assert result["missing"] == result["twice_or_out_of_order"] == result["backward_stamps"] == 0, result


def test_a_dashboard_that_hangs_for_five_seconds_costs_no_sample_and_no_window(played):
    live, read, source, stopped, status, alive = played["dashboard"]
    assert status == 0
    whole(read, source)
    # A loaded machine skips a window now and then and says so; if the engine waited for the dashboard, all would go.
    skipped = live.skipped(read)
    estimated = [t for t, _ in read["affect"] if stopped < t < stopped + BLOCKED]
    assert len(estimated) >= BLOCKED / HOP / 2
    during = sorted([*estimated, *(t for t in skipped if stopped < t < stopped + BLOCKED)])
    assert len(during) >= BLOCKED / HOP - 2
    assert all(b - a == HOP for a, b in itertools.pairwise(during))
    assert alive


def test_while_the_model_returns_nan_estimates_are_withheld_and_say_so(played):
    _, read, source, status, _ = played["model"]
    assert status == 0
    inside = {t: text for t, text in read["withheld"] if NAN[0] + WINDOW < t - source.epoch < NAN[1]}
    assert inside
    assert set(inside.values()) == {"model returned NaN"}
    assert [t for t in read["given"] if t - source.epoch < NAN[0]]
    assert [t for t in read["given"] if NAN[1] + WINDOW < t - source.epoch < SLOW[0]]


def test_while_the_model_is_stuck_windows_are_skipped_and_counted_and_everything_else_goes_on(played):
    live, read, source, _, terminal = played["model"]
    whole(read, source)
    skipped = [t for t in live.skipped(read) if t - source.epoch > SLOW[0]]
    assert len(skipped) >= 2
    # Each window is either skipped or estimated, and afterwards all is as before.
    ends = sorted([*(t for t, _ in read["affect"]), *live.skipped(read)])
    assert all(b - a == HOP for a, b in itertools.pairwise(ends))
    assert [t for t in read["given"] if t - source.epoch > SLOW[1] + WINDOW]
    assert "skipped" in terminal.text


def test_a_session_of_64_channels_at_1_khz_loses_nothing(played):
    figures = played["soak"]
    assert figures["faults"] == []
    assert figures["streams"]["eeg"]["recorded"] == figures["streams"]["eeg"]["sent"] > 20_000
    assert figures["streams"]["ecg"]["recorded"] == figures["streams"]["ecg"]["sent"] > 2_000
    assert figures["streams"]["markers"]["recorded"] == figures["streams"]["markers"]["sent"] > 40


def test_sessions_one_after_the_other_leave_neither_threads_nor_files_nor_memory_behind(played):
    figures = played["cycles"]
    assert figures["cycles"] == 10
    assert figures["faults"] == []

"""The wire between engine and dashboards: late, slow, killed and hostile dashboards."""

from __future__ import annotations

import math
import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from devices.api import StreamInfo
from realtime import remote
from realtime.api import Beats, Body, Cleared, Ended, Figure, Mark, Marked, Pause, Shown, Traces
from realtime.physiology import _nothing
from realtime.remote import PENDING, Client, RemoteError, Server, running_sessions, sessions_folder

SERVE = (
    "import sys; from realtime.remote import Server\n"
    "with Server() as server:\n"
    "    print(server.address, flush=True)\n"
    "    {}"
)
LOOK_ON = "import sys; from realtime.remote import Client; c = Client.attach(sys.argv[1]); print('in', flush=True); {}"


def traces(second: int, stream: str = "eeg") -> Traces:
    return Traces(stream, np.arange(10) / 10 + second, np.zeros((10, 2), np.float32))


def tick(number: int, stream: str) -> Traces:
    """Traces as a session sends them, 32 a second: their stamps are exact."""
    return Traces(stream, np.array([number / 32]), np.zeros((1, 2), np.float32))


def until(condition: Callable[[], object], patience: float = 10.0) -> None:
    """Give the threads of the server and other processes time until ``condition`` holds."""
    end = time.monotonic() + patience
    while not condition():
        assert time.monotonic() < end, "nothing happened"
        time.sleep(0.005)


@contextmanager
def engine(then: str = "sys.stdin.read()") -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A process with a server, which then does ``then``; and the server's address."""
    process = subprocess.Popen(
        [sys.executable, "-c", SERVE.format(then)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        yield process, process.stdout.readline().strip()
    finally:
        process.send_signal(signal.SIGCONT)
        try:
            process.communicate(timeout=20)  # the end of its input is the end of its session
        finally:
            process.kill()
            process.wait()


@pytest.fixture
def places(tmp_path, monkeypatch) -> tuple[Path, Path]:
    """The user's runtime folder and the folder for temporary files, both empty and of this test alone."""
    with tempfile.TemporaryDirectory(prefix="i-") as short:
        runtime, temporary = Path(short) / "run", Path(short) / "tmp"
        runtime.mkdir()
        temporary.mkdir()
        monkeypatch.setenv("XDG_RUNTIME_DIR", str(runtime))
        monkeypatch.setattr(tempfile, "tempdir", str(temporary))
        yield runtime, temporary


def gather(client: Client, enough, patience: float = 5.0) -> list:
    """Everything that arrives until ``enough`` says so."""
    got, until = [], time.monotonic() + patience
    while not enough(got) and time.monotonic() < until:
        got += client.poll()
    return got


def onlooker(server: Server, then: str) -> subprocess.Popen[str]:
    """A dashboard process that has attached and then does ``then``."""
    process = subprocess.Popen(
        [sys.executable, "-c", LOOK_ON.format(then), server.address], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "in\n"
    return process


def test_a_latecomer_is_told_how_a_stream_is_drawn_before_its_traces_and_none_that_were_drawn_otherwise():
    with Server() as server:
        for second in range(5):
            server.publish(traces(second))
        server.publish(Shown("eeg", ("Fp1-F7",), "bipolar", said="bipolar, 1 pair", altered=True, anew=True))
        server.publish(Traces("eeg", np.array([9.0]), np.zeros((1, 1), np.float32)))
        server.publish(Ended())
        client = Client.attach(server.address)
        got = gather(client, lambda got: any(isinstance(update, Ended) for update in got))
        client.close()
    kinds = [type(update) for update in got if isinstance(update, Shown | Traces)]
    assert kinds == [Shown, Traces]
    assert next(update for update in got if isinstance(update, Shown)).labels == ("Fp1-F7",)


def test_a_latecomer_is_told_what_is_still_true():
    with Server() as server:
        server.publish(Marked(1.0, "forgotten", "markers"))
        server.publish(Cleared())
        for second in range(100):
            server.publish(traces(second))
        server.publish(Marked(3.0, "rest", "markers"))
        client = Client.attach(server.address)
        got = gather(client, lambda got: any(isinstance(update, Marked) for update in got))
        assert [update.label for update in got if isinstance(update, Marked)] == ["rest"]
        seconds = [update.times[0] for update in got if isinstance(update, Traces)]
        assert seconds == list(np.arange(seconds[0], 100))
        assert 38 <= seconds[0] <= 41
        client.close()


def test_a_latecomer_gets_the_newest_figures_whole_and_the_heart_rate_of_the_last_hour(monkeypatch):
    monkeypatch.setattr(remote, "BODIES_KEPT", 50)

    def body(second: int) -> Body:
        heart = {name: Figure(60.0 + second, "bpm", 10.0) for name in ("HR", "RMSSD", "LF/HF")}
        return Body(float(second), "ecg", heart, "", "", np.array([[second, 0.8, 1.0]]), ())

    with Server() as server:
        for second in range(200):
            server.publish(body(second))
            server.publish(Beats("ecg", "ECG", np.array([float(second)]), np.ones(1), np.ones(1), np.zeros((0, 9))))
        client = Client.attach(server.address)
        seen: list = []
        until(lambda: seen.extend(client.poll()) or (seen and isinstance(seen[-1], Body) and seen[-1].time == 199))
        bodies = [update for update in seen if isinstance(update, Body)]
        assert [one.time for one in bodies] == list(range(149, 200))
        assert {name for one in bodies[:-1] for name in one.heart} == {"HR", "RMSSD"}
        assert "LF/HF" in bodies[-1].heart
        assert bodies[0].intervals[0].tolist() == [149, 0.8, 1.0]
        assert sum(isinstance(update, Beats) for update in seen) == 200
        server.publish(Cleared())
        client.close()
        client = Client.attach(server.address)
        server.publish(Ended())
        seen = []
        until(lambda: seen.extend(client.poll()) or seen)
        assert not any(isinstance(update, Body | Beats) for update in seen)
        client.close()


def test_commands_arrive_in_order():
    with Server() as server:
        client = Client.attach(server.address)
        client.send(Pause())
        client.send(Mark("eyes closed"))
        got: list = []
        until(lambda: got.extend(server.commands()) or len(got) == 2)
        assert got == [Pause(), Mark("eyes closed")]
        client.close()


def test_a_marker_bears_the_moment_at_which_it_arrived_not_that_at_which_it_was_fetched():
    with Server() as server:
        client = Client.attach(server.address)
        before = time.monotonic()
        client.send(Mark("eyes closed", at=1e9))  # what a dashboard claims does not count
        until(lambda: server._commands)
        arrived = time.monotonic()
        until(lambda: time.monotonic() > arrived + 0.02)
        (mark,) = server.commands()
        assert before <= mark.at <= arrived
        assert math.isnan(Mark("eyes closed").at)
        client.close()


def test_a_newcomer_gets_the_whole_last_minute_and_then_what_comes():
    """More traces than a dashboard may be behind: what was there before it came does not count against it."""
    streams = ("eeg", "ecg")
    with Server() as server:
        for number in range(2000):
            for stream in streams:
                server.publish(tick(number, stream))
        client = Client.attach(server.address)
        until(lambda: server.attached)
        for number in range(2000, 2900):  # while nothing is read yet
            for stream in streams:
                server.publish(tick(number, stream))
        server.publish(Marked(5.0, "last", "markers"))
        got = gather(client, lambda got: got and isinstance(got[-1], Marked), patience=20)
        for stream in streams:
            received = [update for update in got if isinstance(update, Traces) and update.stream == stream]
            assert [update.times[0] for update in received] == [number / 32 for number in range(1999 - 60 * 32, 2900)]
            assert not any(update.gap for update in received)
        assert isinstance(got[-1], Marked)
        client.close()


def test_a_slow_dashboard_gets_its_first_minute_whole_and_a_gap_in_every_stream_that_lost():
    streams = ("eeg", "ecg")
    with Server() as server:
        for number in range(1800):
            server.publish(Traces("eeg", np.array([number / 32]), np.zeros((1, 4096), np.float32)))
        client = Client.attach(server.address)
        until(lambda: server.attached)
        for number in range(1800, 1800 + PENDING):
            for stream in streams:
                server.publish(tick(number, stream))
            if number % 100 == 0:
                server.publish(Marked(number / 32, str(number), "markers"))
        server.publish(Marked(0.0, "last", "markers"))
        got = gather(client, lambda got: got and getattr(got[-1], "label", "") == "last", patience=20)
        for stream, first in (("eeg", 0), ("ecg", 1800)):
            numbers = [round(u.times[0] * 32) for u in got if isinstance(u, Traces) and u.stream == stream]
            gaps = [u.gap for u in got if isinstance(u, Traces) and u.stream == stream]
            steps = np.diff([first - 1, *numbers])
            assert gaps == [bool(step > 1) for step in steps]
            assert any(gaps)
            assert numbers[-1] == 1799 + PENDING
            assert numbers[:1800] == list(range(1800)) or stream == "ecg"
        labels = [update.label for update in got if isinstance(update, Marked)]
        assert labels == [*(str(number) for number in range(1800, 1800 + PENDING, 100)), "last"]
        client.close()


@pytest.mark.parametrize("back", [200_000, 100])
def test_after_a_clock_was_set_back_a_newcomer_gets_what_came_since_then(back):
    with Server() as server:
        for second in (*range(back, back + 50), *range(100)):
            server.publish(traces(second))
        server.publish(Marked(1.0, "last", "markers"))
        client = Client.attach(server.address)
        got = gather(client, lambda got: got and isinstance(got[-1], Marked))
        seconds = [update.times[0] for update in got if isinstance(update, Traces)]
        assert seconds == list(np.arange(seconds[0], 100))
        assert 38 <= seconds[0] <= 41
        client.close()


def test_who_looks_at_a_session_that_has_ended_sees_its_last_rhythms():
    nothing = np.zeros((0, 3))
    brain = _nothing(StreamInfo(key="eeg", kind="eeg", channels=("Cz",), rate=250.0, unit="uV"), "too short")
    with Server() as server:
        server.publish(Body(1.0, "ecg", {}, "", "", nothing, (brain,)))
        server.publish(Body(2.0, "ecg", {}, "", "", nothing, ()))
        server.publish(Marked(3.0, "end", "markers"))
        client = Client.attach(server.address)
        got = gather(client, lambda got: any(isinstance(update, Body) and update.time == 2.0 for update in got))
        (last,) = [update for update in got if isinstance(update, Body) and update.time == 2.0]
        assert [one.stream for one in last.brains] == ["eeg"]
        client.close()


def test_what_is_kept_stays_bounded_whatever_the_stamps_say(monkeypatch):
    monkeypatch.setattr(remote, "TRACES_KEPT", 50)
    with Server() as server:
        for number in range(500):
            server.publish(traces(number % 7))
        server.publish(Marked(1.0, "last", "markers"))
        client = Client.attach(server.address)
        got = gather(client, lambda got: got and isinstance(got[-1], Marked))
        assert [update.times[0] for update in got[:-1]] == [number % 7 for number in range(450, 500)]
        client.close()


def test_a_latecomer_of_a_long_session_gets_the_newest_markers_and_estimates_in_order(monkeypatch):
    monkeypatch.setattr(remote, "KEPT", 300)
    monkeypatch.setattr(remote, "PAGE", 1000)
    with Server() as server:
        for number in range(1000):
            server.publish(Marked(float(number), "x" * (number % 7 * 200), "markers"))
        client = Client.attach(server.address)
        got = gather(client, lambda got: got and got[-1].time == 999)
        assert [(update.time, len(update.label)) for update in got] == [(n, n % 7 * 200) for n in range(700, 1000)]
        client.close()


def test_hours_of_markers_and_estimates_take_little_memory():
    with Server() as server:
        tracemalloc.start()
        before = tracemalloc.get_traced_memory()[0]
        for number in range(7200):
            server.publish(Marked(float(number), f"marker {number}", "lsl/markers"))
        grown = tracemalloc.get_traced_memory()[0] - before
        tracemalloc.stop()
    assert 7200 * 10 < grown < 7200 * 50


def test_a_dashboard_that_does_not_read_loses_traces_only_and_sees_the_gap():
    with Server() as server:
        client = Client.attach(server.address)
        big = np.zeros((1000, 64), np.float32)
        for second in range(PENDING + 500):
            server.publish(Traces("eeg", np.arange(1000) / 1000 + second, big))
        server.publish(Marked(5.0, "kept", "markers"))
        got = gather(client, lambda got: any(isinstance(update, Marked) for update in got), patience=20)
        received = [update for update in got if isinstance(update, Traces)]
        assert 0 < len(received) < PENDING + 500
        steps = np.diff([update.times[0] for update in received])
        assert [bool(update.gap) for update in received[1:]] == [bool(step > 1.5) for step in steps]
        assert any(update.gap for update in received)
        assert any(isinstance(update, Marked) for update in got)
        client.close()


def test_a_killed_dashboard_does_not_disturb_the_engine():
    with Server() as server:
        process = onlooker(server, "sys.stdin.read()")
        os.kill(process.pid, signal.SIGKILL)
        process.communicate()
        for second in range(200):
            server.publish(traces(second))
        client = Client.attach(server.address)
        assert gather(client, lambda got: len(got) >= 60)
        client.close()


def test_the_end_reaches_a_dashboard_before_the_engine_leaves():
    with Server() as server:
        client = Client.attach(server.address)
        until(lambda: server.attached)
        server.publish(Ended("the disk is full"))
    got = gather(client, lambda got: bool(got))
    assert isinstance(got[-1], Ended)
    with pytest.raises(RemoteError, match="engine is gone"):
        client.poll()


def test_a_session_that_was_killed_is_not_listed():
    with engine() as (process, address):
        assert address in running_sessions()
        process.kill()
        process.communicate()
        assert address not in running_sessions()
        assert not Path(address).exists()
        with pytest.raises(RemoteError, match="no session answers"):
            Client.attach(address)


def test_an_engine_that_is_stopped_is_given_up_and_answers_again_when_it_goes_on(monkeypatch):
    with engine() as (process, address):
        os.kill(process.pid, signal.SIGSTOP)
        os.waitpid(process.pid, os.WUNTRACED)
        with monkeypatch.context() as hasty:
            hasty.setattr(remote, "ANSWER", 0.3)
            for _ in range(3):  # more than the system lets wait at the door
                with pytest.raises(RemoteError, match="does not answer") as caught:
                    Client.attach(address)
                assert "\n" not in str(caught.value)
            assert address not in running_sessions()
        assert Path(address).exists()
        os.kill(process.pid, signal.SIGCONT)
        assert address in running_sessions()


def test_an_engine_without_files_to_open_waits_for_one_without_turning_in_circles(monkeypatch):
    then = """
    import os, resource, time
    taken = [os.open(os.devnull, os.O_RDONLY)]
    resource.setrlimit(resource.RLIMIT_NOFILE, (taken[-1] + 1, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
    print("full", flush=True)
    sys.stdin.readline()
    begun, worked = time.monotonic(), time.process_time()
    sys.stdin.readline()
    print((time.process_time() - worked) / (time.monotonic() - begun), flush=True)
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
    print("free", flush=True)
    sys.stdin.read()
"""
    with engine(then.strip()) as (process, address):
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.readline() == "full\n"
        clients = []
        with monkeypatch.context() as hasty:
            hasty.setattr(remote, "ANSWER", 0.5)
            process.stdin.write("begin\n")
            process.stdin.flush()
            with pytest.raises(RemoteError, match="does not answer"):
                clients.extend(Client.attach(address) for _ in range(3))  # a file may have been kept for the first
            process.stdin.write("end\n")
            process.stdin.flush()
        assert float(process.stdout.readline()) < 0.2  # of a processor
        assert process.stdout.readline() == "free\n"
        for client in clients:
            client.close()
        Client.attach(address).close()


def test_what_is_no_session_in_the_folder_of_sessions_is_left_alone(places):
    foreign = ["notes.txt", "123-short", "wayland-0", "0-abcdefgh", "-1-abcdefgh"]
    for name in foreign:
        (sessions_folder() / name).mkdir()
    (sessions_folder() / "file").write_text("not a folder")
    (sessions_folder() / "77-abcdefgh").write_text("not a folder")
    with Server() as server:
        assert running_sessions() == [server.address]
    left = {path.name for path in sessions_folder().iterdir()}
    assert left == {*foreign, "file", "77-abcdefgh"}


def test_a_session_that_ends_while_sessions_are_listed_does_no_harm(places, monkeypatch):
    """The folder goes just before its age is asked for."""
    staying, ending = Server(), Server()
    ask = Path.is_dir

    def end_first(path: Path) -> bool:
        there = ask(path)
        if str(path) == ending.address:
            ending.__exit__()
        return there

    with staying:
        monkeypatch.setattr(Path, "is_dir", end_first)
        assert running_sessions() == [staying.address]
        assert not ask(Path(ending.address))


@pytest.mark.parametrize("wrong", ["missing", "file", "relative", "unwritable", "open to others"])
def test_without_a_usable_runtime_folder_sessions_meet_in_the_temporary_one(places, monkeypatch, wrong):
    runtime, temporary = places
    (runtime / "file").write_text("in the way")
    (runtime / f"insula-{os.getuid()}").mkdir(mode=0o700)
    (runtime / f"insula-{os.getuid()}").chmod(0o777)
    chosen = {
        "missing": str(runtime / "missing"),
        "file": str(runtime / "file"),
        "relative": "run",
        "unwritable": "/proc",
        "open to others": str(runtime),
    }
    monkeypatch.setenv("XDG_RUNTIME_DIR", chosen[wrong])
    with Server() as server:
        assert Path(server.address).parent == temporary / f"insula-{os.getuid()}"
        assert Path(server.address).parent.stat().st_mode & 0o077 == 0
        assert running_sessions() == [server.address]
    assert not (runtime / "missing").exists()


def test_a_session_in_the_temporary_folder_is_found_from_a_shell_that_has_a_runtime_folder(places, monkeypatch):
    runtime, _ = places
    monkeypatch.delenv("XDG_RUNTIME_DIR")
    with Server() as server:
        monkeypatch.setenv("XDG_RUNTIME_DIR", str(runtime))
        with Server() as another:
            assert set(running_sessions()) == {server.address, another.address}


def test_a_runtime_folder_with_too_long_a_path_gives_way_to_the_temporary_one(places, monkeypatch):
    runtime, temporary = places
    long = runtime / ("x" * 100)
    long.mkdir()
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(long))
    with Server() as server:
        assert Path(server.address).is_relative_to(temporary)
        Client.attach(server.address).close()
        assert running_sessions() == [server.address]


@pytest.mark.parametrize("name", ["too long " * 12, "missing"])
def test_without_any_folder_for_the_socket_the_error_is_one_line_and_says_what_to_do(places, monkeypatch, name):
    runtime, temporary = places
    place = temporary / name
    if name != "missing":
        place.mkdir()
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(runtime / "missing"))
    monkeypatch.setattr(tempfile, "tempdir", str(place))
    with pytest.raises(RemoteError, match="Set TMPDIR") as caught:
        Server()
    assert "\n" not in str(caught.value)
    assert running_sessions() == []


def test_a_link_in_the_place_of_the_folder_is_not_followed(places):
    runtime, temporary = places
    elsewhere = runtime / "elsewhere"
    elsewhere.mkdir(mode=0o700)
    (runtime / f"insula-{os.getuid()}").symlink_to(elsewhere)
    with Server() as server:
        assert Path(server.address).is_relative_to(temporary)
    assert list(elsewhere.iterdir()) == []


def test_a_session_that_cannot_be_opened_leaves_nothing_behind(places):
    """No byte can be written, as on a full disk: the key has no place."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    home = sessions_folder()
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, before[1]))
    try:
        with pytest.raises(RemoteError, match="no session can be opened there") as caught:
            Server()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert "\n" not in str(caught.value)
    assert list(home.iterdir()) == []


def test_a_server_whose_folder_was_cleared_away_ends_in_peace(places):
    import shutil

    with Server() as server:
        client = Client.attach(server.address)
        until(lambda: server.attached)
        shutil.rmtree(server.address)
        server.publish(Ended())
    assert [type(update) for update in gather(client, bool)] == [Ended]
    client.close()


def test_on_windows_no_process_is_signalled_and_every_one_counts_as_alive(monkeypatch):
    """There, signal 0 is Ctrl+C."""
    finished = subprocess.Popen([sys.executable, "-c", ""])
    finished.wait()
    assert remote._alive(os.getpid())
    assert not remote._alive(finished.pid)
    with monkeypatch.context() as windows:
        windows.setattr(os, "name", "nt")
        windows.delattr(os, "kill")
        assert remote._alive(finished.pid)


def test_only_the_user_can_read_the_key():
    with Server() as server:
        for name in ("", "engine.json"):
            path = os.path.join(server.address, name)  # noqa: PTH118
            assert os.stat(path).st_mode & 0o077 == 0  # noqa: PTH116


def test_a_dashboard_whose_messages_cannot_be_read_is_hung_up_on_and_the_others_stay():
    with Server() as server:
        other, stranger = Client.attach(server.address), Client.attach(server.address)
        until(lambda: server.attached == 2)
        stranger._connection.send_bytes(b"of another version")
        until(lambda: server.attached == 1)
        other.send(Mark("on"))
        until(lambda: server.commands() == [Mark("on")])
        other.close()
        stranger.close()

"""The wire between engine and dashboards: late, slow, killed and hostile dashboards."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from realtime.api import Cleared, Ended, Mark, Marked, Pause, Traces
from realtime.remote import PENDING, Client, RemoteError, Server, running_sessions

LOOK_ON = "import sys; from realtime.remote import Client; c = Client.attach(sys.argv[1]); print('in', flush=True); {}"


def traces(second: int, stream: str = "eeg") -> Traces:
    return Traces(stream, np.arange(10) / 10 + second, np.zeros((10, 2), np.float32))


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


def test_commands_arrive_in_order():
    with Server() as server:
        client = Client.attach(server.address)
        client.send(Pause())
        client.send(Mark("eyes closed"))
        got: list = []
        until = time.monotonic() + 5
        while len(got) < 2 and time.monotonic() < until:
            got += server.commands()
        assert got == [Pause(), Mark("eyes closed")]
        client.close()


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
        gather(client, lambda got: True, patience=0)
        server.publish(Ended("the disk is full"))
    got = gather(client, lambda got: bool(got))
    assert isinstance(got[-1], Ended)
    with pytest.raises(RemoteError, match="engine is gone"):
        client.poll()


def test_a_session_that_was_killed_is_not_listed():
    code = (
        "from realtime.remote import Server; import sys\n"
        "with Server() as s: print(s.address, flush=True); sys.stdin.read()"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stdin=subprocess.PIPE, text=True)
    assert process.stdout is not None
    address = process.stdout.readline().strip()
    assert address in running_sessions()
    process.kill()
    process.communicate()
    assert address not in running_sessions()
    with pytest.raises(RemoteError, match="no session answers"):
        Client.attach(address)


def test_only_the_user_can_read_the_key():
    with Server() as server:
        for name in ("", "engine.json"):
            path = os.path.join(server.address, name)  # noqa: PTH118
            assert os.stat(path).st_mode & 0o077 == 0  # noqa: PTH116

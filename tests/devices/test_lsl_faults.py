"""What goes wrong with LSL sources, made to happen to real outlets on the loopback: sent = received + counted lost."""

from __future__ import annotations

import json
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import uuid
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np
import pylsl
import pytest

from devices import lsl
from devices.api import Chunk, Clock, DeviceError, Events, Notice, open_device
from devices.xdf_format import XdfFile
from realtime.record import Recorder
from realtime.session import Session

PROGRAM = Path(__file__).resolve().parents[1] / "peers" / "source.py"
RATE = 250.0
pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")


class Source:
    """A source in a process of its own."""

    def __init__(self, process, spec):
        self.process, self.spec = process, spec
        self.name, self.sent = spec["name"], 0

    def tell(self, line):
        """Give a command and come back at once."""
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()

    def told(self):
        self.sent = int(self.process.stdout.readline())
        return self.sent

    def do(self, *lines):
        for line in lines:
            self.tell(line)
        for _ in lines:
            self.told()


@contextmanager
def source(prefix=(), **spec):
    spec = {"name": f"test-{uuid.uuid4().hex[:8]}", "type": "EEG", "channels": 4, "rate": RATE, **spec}
    spec = {"source_id": uuid.uuid4().hex, **spec}
    command = [*prefix, sys.executable, str(PROGRAM), json.dumps(spec)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout.readline() == "ready\n"
            yield Source(process, spec)
        finally:
            process.kill()


class Ledger:
    """Reads a device in a thread and keeps account."""

    def __init__(self, device):
        self.device, self.items, self.over = device, [], False
        self.arrived = []
        self.thread = threading.Thread(target=self._read, daemon=True)
        self.away = threading.Event()
        self.problems = []

    def _read(self):
        while not self.over:
            if self.away.is_set():
                time.sleep(0.01)
                continue
            for item in self.device.read(0.05):
                self.items.append(item)
                if isinstance(item, Chunk):
                    self.arrived.append((lsl.lsl_clock(), float(item.times[-1])))
            if self.device.problem not in self.problems[-1:]:
                self.problems.append(self.device.problem)

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *exc):
        self.over = True
        self.thread.join(5)

    def until(self, enough, seconds=20.0):
        """Wait; the deadline only keeps a failing test from hanging."""
        deadline = time.monotonic() + seconds
        while not enough(self) and time.monotonic() < deadline:
            time.sleep(0.02)
        return self

    @property
    def chunks(self):
        return [item for item in self.items if isinstance(item, Chunk)]

    @property
    def values(self):
        return [int(value) for chunk in self.chunks for value in chunk.data[:, 0]]

    @property
    def times(self):
        return np.concatenate([chunk.times for chunk in self.chunks])

    @property
    def lost(self):
        return sum(chunk.lost for chunk in self.chunks)

    @property
    def notices(self):
        return [item.text for item in self.items if isinstance(item, Notice)]

    def leave(self):
        self.left = lsl.lsl_clock()
        self.away.set()

    def come_back(self):
        self.left = lsl.lsl_clock() - self.left
        self.away.clear()

    def told_what_it_lost(self):
        """How many samples, and for how long nobody had read."""
        said = [re.fullmatch(r"(\d+) samples missing: nobody read for (\S+) s, .*", text) for text in self.notices]
        assert sum(int(one[1]) for one in said) == self.lost
        assert all(self.left - 0.3 < float(one[2]) < self.left + 1.5 for one in said), (self.left, self.notices)

    def balance(self, sent):
        """Everything once, in order, at rising times that are numbers; what is missing is counted."""
        self.until(lambda ledger: len(ledger.values) + ledger.lost >= sent)
        assert np.all(np.isfinite(self.times))
        assert np.all(np.diff(self.times) > 0)
        assert np.all(np.diff(self.values) > 0)
        assert len(self.values) + self.lost == sent


@contextmanager
def read(one):
    with open_device(f"lsl:name={one.name}") as device, Ledger(device) as ledger:
        yield ledger


def test_a_source_that_is_stopped_loses_nothing_when_it_goes_on():
    with source() as one, read(one) as ledger:
        one.tell("run 4")
        ledger.until(lambda ledger: len(ledger.values) > 200)
        one.process.send_signal(signal.SIGSTOP)
        time.sleep(2.0)
        one.process.send_signal(signal.SIGCONT)
        ledger.balance(one.told())
        assert ledger.lost == 0
        assert not ledger.device.problem


def test_a_backlog_comes_with_the_times_it_was_measured_at():
    with source() as one, read(one) as ledger:
        one.do("run 0.5", "pause 3", "run 0.5")
        ledger.balance(one.sent)
        assert ledger.lost == 0
        assert np.max(np.diff(ledger.times)) < 0.05


@pytest.mark.parametrize("jump", [200_000, -10])  # every other jump in virtual time: test_stamps.py
def test_stamps_that_leap_while_the_clock_does_not_are_placed_by_arrival_within_seconds(jump):
    with source() as one, read(one) as ledger:
        one.do("run 1", f"run 3.5 {jump}")
        ledger.balance(one.sent)
        assert ledger.lost == 0
        assert max(abs(arrived - stamp) for arrived, stamp in ledger.arrived[-20:]) < 1.0
        (notice,) = [text for text in ledger.notices if "placed by when they arrive" in text]
        assert f"{jump:+d}." in notice or f"{jump - (jump > 0):+d}." in notice
        assert "placed by when they arrive" in ledger.device.problem


def test_wild_stamps_and_samples_without_a_time_are_counted_and_move_nothing_else():
    with source() as one, read(one) as ledger:
        one.do("run 0.5", "push nan", "push inf -inf 1e300", "run 0.5", "push 3000", "run 0.5", "push -5", "run 0.5")
        ledger.balance(one.sent)
        assert ledger.lost == 6
        assert np.max(np.diff(ledger.times)) < 1.0


def test_samples_that_come_twice_are_given_once():
    with source() as one, read(one) as ledger:
        one.do("run 0.5", "again 5", "run 0.5", "again 1", "run 0.5")
        ledger.until(lambda ledger: len(ledger.values) >= one.sent).balance(one.sent)
        assert ledger.lost == 0
        assert "sent twice" in " ".join(ledger.notices)


def test_a_packet_out_of_order_is_counted_and_moves_nothing_else():
    with source() as one, read(one) as ledger:
        one.do("run 0.5", "push -0.15 -0.146 -0.142", "run 0.5")
        ledger.balance(one.sent)
        assert ledger.lost == 3
        assert "3 out of order" in " ".join(ledger.notices)


def test_a_source_that_loses_samples_leaves_a_hole_of_that_length():
    with source() as one, read(one) as ledger:
        one.do("run 0.5", "lose 100", "run 0.5")
        ledger.until(lambda ledger: len(ledger.values) >= one.sent - 100)
        assert np.all(np.diff(ledger.times) > 0)
        steps = np.diff(ledger.values)
        (at,) = np.flatnonzero(steps > 1)
        assert steps[at] == 101
        assert np.diff(ledger.times)[at] == pytest.approx(101 / RATE, abs=0.03)


def test_a_source_killed_and_started_anew_is_taken_again_and_named_with_its_gap():
    spec = {"name": f"test-{uuid.uuid4().hex[:8]}", "source_id": uuid.uuid4().hex}
    with ExitStack() as stack:
        one = stack.enter_context(source(**spec))
        ledger = stack.enter_context(read(one))
        before_uid = ledger.device.uid
        assert ledger.device.identity["serial"] == "SN 7"
        one.do("run 0.5")
        ledger.balance(one.sent)
        one.process.kill()
        ledger.until(lambda ledger: "gone" in ledger.device.problem)
        time.sleep(1.0)
        two = stack.enter_context(source(**spec))
        ledger.until(lambda ledger: ledger.device.uid != before_uid or not ledger.device.problem)
        before = len(ledger.times)
        two.do("run 0.5")
        ledger.until(lambda ledger: len(ledger.values) >= one.sent + two.sent)
        assert len(ledger.values) == one.sent + two.sent
        assert np.all(np.diff(ledger.times) > 0)
        gap = ledger.times[before] - ledger.times[before - 1]
        assert ledger.lost == round(gap * RATE) - 1
        (notice,) = [text for text in ledger.notices if "came back" in text]
        after_uid = ledger.device.uid
        assert ledger.device.identity["uid"] == after_uid != before_uid
        assert f"uid {before_uid} -> {after_uid} on host {socket.gethostname()}" in notice
        assert f"after {gap:.3f} s, {ledger.lost} samples missing" in notice
        ((since, who),) = ledger.device.taken
        assert who["uid"] == after_uid
        assert ledger.times[before - 1] < since < ledger.arrived[-1][0]
        two.process.kill()
        ledger.until(lambda ledger: "gone" in ledger.device.problem)
        stack.enter_context(source(**spec))
        ledger.until(lambda ledger: len(ledger.device.taken) > 1)
        (again, third) = ledger.device.taken[1]
        assert [who["uid"] for _, who in ledger.device.taken] == [after_uid, ledger.device.uid]
        assert third["uid"] != after_uid
        assert again > since


@pytest.mark.parametrize("how", ["killed", "stopped, then killed", "stopped, then going on"])
def test_a_source_that_fails_while_it_is_being_opened_is_waited_for_and_taken_as_later(monkeypatch, how):
    monkeypatch.setattr(lsl, "OPEN_TIMEOUT", 2.0)
    spec = {"name": f"test-{uuid.uuid4().hex[:8]}", "source_id": "while it is opened"}
    with ExitStack() as stack:
        one = stack.enter_context(source(**spec))
        device = open_device(f"lsl:name={one.name}")
        first = device.uid
        one.process.send_signal(signal.SIGKILL if how == "killed" else signal.SIGSTOP)
        if how == "killed":
            one.process.wait()
        ledger = stack.enter_context(Ledger(stack.enter_context(device)))
        if how == "stopped, then going on":
            ledger.until(lambda ledger: "no longer answers" in device.problem)
            one.process.send_signal(signal.SIGCONT)
            one.do("run 0.3")
            ledger.balance(one.sent)
            assert not device.problem
            return
        one.process.kill()
        ledger.until(lambda ledger: "the source has gone; waiting for it to come back" in device.problem)
        assert "the source has gone; waiting for it to come back" in device.problem
        anew = stack.enter_context(source(**spec))
        ledger.until(lambda ledger: device.uid != first)
        anew.do("run 0.3")
        ledger.balance(anew.sent)
        assert ledger.lost == 0
        assert not device.problem
        (notice,) = ledger.notices
        assert re.fullmatch(
            rf"the source came back as another outlet after \S+ s: uid {first} -> {device.uid} .*", notice
        )


def test_a_session_whose_source_dies_while_it_is_opened_records_what_comes_in_its_place_and_names_both(tmp_path):
    spec = {"name": f"test-{uuid.uuid4().hex[:8]}", "source_id": "before the record"}
    path = tmp_path / "r.xdf"
    with ExitStack() as stack:
        one = stack.enter_context(source(**spec))
        device = open_device(f"lsl:name={one.name}")
        first, refused = device.uid, []
        session = Session(
            [device], None, title="t", clock=lsl.lsl_clock, recorder=lambda streams: Recorder(path, streams, (), {})
        )
        one.process.kill()
        one.process.wait()

        def run():
            try:
                session.run()
            except DeviceError as error:
                refused.append(error)

        runner = threading.Thread(target=run)
        runner.start()
        try:
            time.sleep(1.0)
            anew = stack.enter_context(source(**spec))
            deadline = time.monotonic() + 20
            while device.uid == first and runner.is_alive() and time.monotonic() < deadline:
                time.sleep(0.05)
            assert refused == []
            anew.do("run 0.5")
            time.sleep(0.5)
        finally:
            session.stop()
            runner.join(30)
    (stream, _) = json.loads(path.with_suffix(".json").read_text())["streams"]  # and the keyboard
    assert stream["samples"] == anew.sent
    assert stream["identity"]["uid"] == first
    (taken,) = stream["taken"]
    assert taken["identity"]["uid"] == device.uid != first
    with XdfFile(path) as file:
        assert file.findings == []
        (number,) = [stream.id for stream in file.streams.values() if stream.name == one.name]
        times, values = file.read(number)
    assert values[:, 0].astype(int).tolist() == list(range(anew.sent))
    assert times[0] > taken["session_clock"] - 1.0


def test_three_outlets_share_a_source_id_and_none_is_taken_for_the_one_that_died_but_one_started_anew():
    spec = {"name": f"test-{uuid.uuid4().hex[:8]}", "source_id": "shared"}
    with ExitStack() as stack:
        one = stack.enter_context(source(**spec))
        ledger = stack.enter_context(read(one))
        twins = [stack.enter_context(source(**spec)) for _ in range(2)]
        one.do("run 0.8")
        ledger.balance(one.sent)
        first = ledger.device.uid
        one.process.kill()
        ledger.until(lambda ledger: ledger.device.problem.count("uid=") == 2)
        problem = ledger.device.problem
        assert "not taken for it" in problem
        assert problem.count(f"host={socket.gethostname()}") == 2
        assert len(set(re.findall(r"uid=(\S+)\)", problem))) == 2
        twins[0].process.kill()  # the last one is no less a twin for being alone
        ledger.until(lambda ledger: ledger.device.problem.count("uid=") == 1)
        assert "not taken for it" in ledger.device.problem
        time.sleep(1.5)
        assert ledger.device.uid == first
        anew = stack.enter_context(source(**spec))
        ledger.until(lambda ledger: not ledger.device.problem)
        anew.do("run 0.3")
        ledger.until(lambda ledger: len(ledger.values) >= one.sent + anew.sent)
        assert len(ledger.values) == one.sent + anew.sent
        assert ledger.device.uid not in problem + first


def test_an_address_with_a_uid_never_takes_another_not_even_one_started_anew():
    spec = {"name": f"test-{uuid.uuid4().hex[:8]}", "source_id": "pinned"}
    with ExitStack() as stack:
        one = stack.enter_context(source(**spec))
        with open_device(f"lsl:name={one.name}") as device:
            uid = device.uid
        device = stack.enter_context(open_device(f"lsl:name={one.name},uid={uid}"))
        ledger = stack.enter_context(Ledger(device))
        one.do("run 0.3")
        ledger.balance(one.sent)
        one.process.kill()
        ledger.until(lambda ledger: "gone" in device.problem)
        stack.enter_context(source(**spec))
        ledger.until(lambda ledger: "not taken for it" in device.problem)
        assert f"waiting for uid {uid}, as the address says; not taken for it: " in device.problem
        time.sleep(1.0)
        assert device.uid == uid
        assert device.problem


def test_a_twin_of_a_marker_stream_that_was_started_after_the_last_marker_is_not_taken():
    name = f"test-{uuid.uuid4().hex[:8]}"
    spec = {"name": name, "type": "Markers", "channels": 1, "rate": 0.0, "source_id": name}
    with ExitStack() as stack:
        one = stack.enter_context(source(**spec))
        ledger = stack.enter_context(read(one))
        first = ledger.device.uid
        stack.enter_context(source(**spec))
        time.sleep(3.0)  # both are there, and nothing is marked
        one.process.kill()
        ledger.until(lambda ledger: "not taken for it" in ledger.device.problem)
        time.sleep(1.0)
        assert "not taken for it" in ledger.device.problem
        assert ledger.device.uid == first
        anew = stack.enter_context(source(**spec))
        ledger.until(lambda ledger: not ledger.device.problem)
        assert not ledger.device.problem
        assert ledger.device.uid != first
        assert anew.process.poll() is None


@pytest.mark.parametrize("killed", [True, False])
def test_a_source_that_hangs_and_is_started_anew_at_once_is_taken_again(killed):
    spec = {"name": f"test-{uuid.uuid4().hex[:8]}", "source_id": "at once"}
    with ExitStack() as stack:
        one = stack.enter_context(source(**spec))
        ledger = stack.enter_context(read(one))
        first = ledger.device.uid
        one.do("run 1.5")
        ledger.balance(one.sent)
        one.process.send_signal(signal.SIGSTOP)
        time.sleep(1.2)
        anew = stack.enter_context(source(**spec))
        time.sleep(2.8)
        if killed:
            one.process.kill()
        ledger.until(lambda ledger: ledger.device.uid != first)
        anew.do("run 0.3")
        ledger.until(lambda ledger: len(ledger.values) >= one.sent + anew.sent)
        assert ledger.values == [*range(one.sent), *range(anew.sent)]
        (notice,) = [text for text in ledger.notices if "came back" in text]
        assert f"{ledger.lost} samples missing" in notice


@pytest.mark.parametrize("kind", ["Sensor", "Markers"])
def test_a_stream_without_a_rate_that_hangs_and_is_started_anew_at_once_is_taken_again_within_seconds(kind):
    spec = {"name": f"test-{uuid.uuid4().hex[:8]}", "type": kind, "rate": 0.0, "source_id": "irregular"}
    with ExitStack() as stack:
        one = stack.enter_context(source(**spec))
        ledger = stack.enter_context(read(one))
        first = ledger.device.uid
        for _ in range(20 if kind == "Sensor" else 1):
            one.do("push 0 0 0 0 0")
            time.sleep(0.05)
        one.process.send_signal(signal.SIGSTOP)
        anew = stack.enter_context(source(**spec))
        ledger.until(lambda ledger: ledger.device.uid != first)  # 20 s at most, of which 5 are without an answer
        assert ledger.device.uid != first
        anew.do("push 0")
        ledger.until(lambda ledger: len(ledger.values) > one.sent)
        assert ledger.values == [*range(one.sent), 0]


def test_a_stream_without_a_rate_that_has_nothing_to_say_but_answers_is_not_called_silent():
    spec = {"name": f"test-{uuid.uuid4().hex[:8]}", "rate": 0.0, "source_id": "nothing"}
    with ExitStack() as stack:
        one = stack.enter_context(source(**spec))
        ledger = stack.enter_context(read(one))
        one.do("push 0")
        stack.enter_context(source(**spec))
        time.sleep(lsl.ANSWERS + 2.5)
        one.do("push 0")
        ledger.until(lambda ledger: len(ledger.values) > 1)
        assert ledger.values == [0, 1]
        assert ledger.problems == [""]


def test_a_twin_of_a_signal_that_pauses_but_answers_is_not_taken_when_the_source_dies():
    spec = {"name": f"test-{uuid.uuid4().hex[:8]}", "source_id": "quiet"}
    with ExitStack() as stack:
        one = stack.enter_context(source(**spec))
        ledger = stack.enter_context(read(one))
        one.do("run 0.3")
        ledger.balance(one.sent)
        ledger.until(lambda ledger: ledger.device._answered > ledger.device._sampled + 1.5)
        stack.enter_context(source(**spec))
        time.sleep(0.6)
        one.process.kill()
        ledger.until(lambda ledger: "not taken for it" in ledger.device.problem)
        time.sleep(1.0)
        assert "not taken for it" in ledger.device.problem


@pytest.mark.parametrize(
    ("other", "said"),
    [
        ({"channels": 6, "labels": list("ABCDEF")}, "sends 6 channels instead of 4"),
        ({"rate": 500.0, "format": "int16"}, "sends 500 Hz instead of 250 Hz and int16 instead of float32"),
        ({"labels": ["A", "B", "C", "E"]}, "describes itself otherwise: channel 'E' instead of 'D'"),
    ],
)
def test_a_source_that_comes_back_otherwise_is_said_with_what_differs_and_what_to_do(other, said):
    spec = {"name": f"test-{uuid.uuid4().hex[:8]}", "source_id": "other", "labels": ["A", "B", "C", "D"]}
    with ExitStack() as stack:
        one = stack.enter_context(source(**spec))
        ledger = stack.enter_context(read(one))
        one.do("run 0.3")
        ledger.balance(one.sent)
        one.process.kill()
        ledger.until(lambda ledger: "gone" in ledger.device.problem)
        changed = stack.enter_context(source(**(spec | other)))
        ledger.until(lambda ledger: said in ledger.device.problem)
        assert said in ledger.device.problem
        assert ledger.device.problem.endswith("; set it as it was, or end the session and begin another one")
        assert "\n" not in ledger.device.problem
        changed.process.kill()
        anew = stack.enter_context(source(**spec))
        ledger.until(lambda ledger: not ledger.device.problem)
        anew.do("run 0.3")
        ledger.until(lambda ledger: len(ledger.values) >= one.sent + anew.sent)
        assert len(ledger.values) == one.sent + anew.sent


def test_a_twin_is_not_taken_for_a_source_that_hangs_either(monkeypatch):
    monkeypatch.setattr(lsl, "SILENCE", 0.5)
    spec = {"name": f"test-{uuid.uuid4().hex[:8]}", "source_id": "hangs"}
    with ExitStack() as stack:
        one = stack.enter_context(source(**spec))
        ledger = stack.enter_context(read(one))
        first = ledger.device.uid
        stack.enter_context(source(**spec))
        time.sleep(1.0)
        one.do("run 0.3")
        ledger.balance(one.sent)
        one.process.send_signal(signal.SIGSTOP)
        ledger.until(lambda ledger: "no longer answers" in ledger.device.problem)
        time.sleep(1.0)
        assert "not taken for it" in ledger.device.problem
        assert ledger.device.uid == first
        one.process.send_signal(signal.SIGCONT)
        one.do("run 0.3")
        ledger.balance(one.sent)
        assert not ledger.device.problem


def test_a_source_started_anew_while_the_reader_was_away_is_taken():
    spec = {"name": f"test-{uuid.uuid4().hex[:8]}", "source_id": "away"}
    with ExitStack() as stack:
        one = stack.enter_context(source(**spec))
        ledger = stack.enter_context(read(one))
        one.do("run 2")
        ledger.away.set()
        one.do("run 0.5")  # read when it is no longer there
        one.process.kill()
        one.process.wait()
        anew = stack.enter_context(source(**spec))
        time.sleep(2.0)
        first = ledger.device.uid
        ledger.away.clear()
        ledger.until(lambda ledger: ledger.device.uid != first)
        anew.do("run 0.3")
        ledger.until(lambda ledger: ledger.device.uid != first and ledger.values[-1] == anew.sent - 1)
        assert ledger.device.uid != first
        assert ledger.values[-anew.sent :] == list(range(anew.sent))


def test_a_twin_on_another_host_is_named_and_never_taken():
    unshare = shutil.which("unshare")
    prefix = [unshare or "unshare", "--uts", "sh", "-c", 'hostname elsewhere && exec "$@"', "sh"]
    if not unshare or subprocess.run([*prefix, "true"], capture_output=True, check=False).returncode:
        pytest.skip("needs the right to give a process another host name")
    spec = {"name": f"test-{uuid.uuid4().hex[:8]}", "source_id": "twin"}
    with ExitStack() as stack:
        one = stack.enter_context(source(**spec))
        stack.enter_context(source(prefix, **spec))
        with pytest.raises(DeviceError) as refused:
            open_device(f"lsl:name={one.name}")
        assert "host=elsewhere" in str(refused.value)
        assert f"host={socket.gethostname()}" in str(refused.value)
        device = stack.enter_context(open_device(f"lsl:name={one.name},host={socket.gethostname()}"))
        ledger = stack.enter_context(Ledger(device))
        one.do("run 0.3")
        ledger.balance(one.sent)
        (notice,) = ledger.notices
        assert "host=elsewhere" in notice
        assert f"on host {socket.gethostname()}" in notice
        one.process.kill()
        ledger.until(lambda ledger: "elsewhere" in ledger.device.problem)
        assert "not taken for it" in ledger.device.problem
        anew = stack.enter_context(source(prefix, **spec))  # by its age it could be the source, by its host it is not
        ledger.until(lambda ledger: ledger.device.problem.count("host=elsewhere") == 2)
        time.sleep(1.0)
        assert ledger.device.problem.count("host=elsewhere") == 2
        assert device.identity["host"] == socket.gethostname()
        assert anew.process.poll() is None


def test_a_reader_that_was_away_longer_than_lsl_keeps_is_told_what_it_lost(monkeypatch):
    monkeypatch.setattr(lsl, "BUFFER_SECONDS", 1)
    with source() as one, read(one) as ledger:
        one.do("run 0.5")
        ledger.balance(one.sent)
        ledger.leave()
        one.do("run 2.5")
        ledger.come_back()
        one.do("run 0.5")
        ledger.balance(one.sent)
        assert ledger.lost > 100
        ledger.told_what_it_lost()


def test_a_reader_that_was_stopped_and_first_wakes_without_a_sample_is_told_what_it_lost_all_the_same(monkeypatch):
    monkeypatch.setattr(lsl, "BUFFER_SECONDS", 1)
    with source() as one, read(one) as ledger:
        one.do("run 0.5")
        ledger.balance(one.sent)
        ledger.leave()
        one.do("run 2.5")
        pull = lsl._Link.pull
        waking = iter([True])

        def wake(link, timeout):
            if next(waking, False):
                return np.empty((0, len(link.info.channels)), np.float32), np.empty(0)
            return pull(link, timeout)

        monkeypatch.setattr(lsl._Link, "pull", wake)
        ledger.come_back()
        one.do("run 0.5")
        ledger.balance(one.sent)
        assert ledger.lost > 100
        ledger.told_what_it_lost()


def test_the_clock_is_measured_and_given_and_not_when_the_source_does_not_answer(monkeypatch):
    monkeypatch.setattr(lsl, "CORRECTION_INTERVAL", 1.2)
    with source() as one, read(one) as ledger:
        one.tell("run 30")
        clocks = lambda ledger: [item for item in ledger.items if isinstance(item, Clock)]  # noqa: E731
        ledger.until(lambda ledger: len(clocks(ledger)) >= 3)
        for clock in clocks(ledger):
            assert abs(clock.offset) < 5e-3
            assert 0 < clock.uncertainty < 0.05
            assert abs(clock.residual) < 5e-3
        one.process.send_signal(signal.SIGSTOP)
        time.sleep(1.5)  # what was measured before is taken up
        count = len(clocks(ledger))
        time.sleep(2.5)
        assert len(clocks(ledger)) == count
        one.process.send_signal(signal.SIGCONT)
        ledger.until(lambda ledger: len(clocks(ledger)) > count)
        assert all(abs(clock.offset) < 0.3 for clock in clocks(ledger))


def test_a_measurement_that_took_long_moves_no_clock_and_is_no_sign_of_life(monkeypatch):
    with source() as one:
        link = open_device(f"lsl:name={one.name}")._link  # not entered: nobody else measures
        link.measured.clear()
        for round_trip, taken in ((0.6, 0), (0.4, 1)):
            later = link.answered + 10.0
            monkeypatch.setattr(lsl, "_correction", lambda *_, at=later, took=round_trip: (at, -7.0, took / 2, took))
            link.measure()
            assert len(link.measured) == taken
            assert (link.answered == later, link.offset == -7.0) == (bool(taken), bool(taken))


class Host:
    """Stands between liblsl and a source's time service, so that the source's clock seems to differ by ``shift``."""

    def __init__(self, port):
        self.shift, self.port = 0.0, port
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind(("127.0.0.1", 0))
        threading.Thread(target=self._relay, daemon=True).start()

    def _relay(self):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as there:
            there.settimeout(1.0)
            while True:
                try:
                    question, asker = self.socket.recvfrom(4096)
                    there.sendto(question, ("127.0.0.1", self.port))
                    wave, asked, received, sent = there.recv(4096).split()
                    received, sent = (f"{float(one) + self.shift:.9f}".encode() for one in (received, sent))
                    self.socket.sendto(b" " + b" ".join((wave, asked, received, sent)), asker)
                except TimeoutError:
                    continue
                except OSError:
                    return


@pytest.fixture
def host(monkeypatch):
    """The clock of every source that is opened: liblsl's own measurement, over a relay."""
    hosts = []
    listen = lsl._listen

    def relayed(*arguments):
        found, others = listen(*arguments)
        seen = []
        for info in found:
            xml = info.as_xml()
            hosts.append(Host(int(re.search(r"<v4service_port>(\d+)<", xml)[1])))
            hosts[-1].shift = shift
            port = hosts[-1].socket.getsockname()[1]
            xml = re.sub(r"<v4service_port>\d+<", f"<v4service_port>{port}<", xml)
            xml = xml.replace("<v4address />", "<v4address>127.0.0.1</v4address>")
            make = pylsl.lib.lib.lsl_streaminfo_from_xml
            make.restype = pylsl.lib.lib.lsl_get_info.restype
            seen.append(pylsl.StreamInfo(handle=make(xml.encode())))
        return seen, others

    shift = 3.0
    monkeypatch.setattr(lsl, "_listen", relayed)
    yield hosts
    for one in hosts:
        one.socket.close()


def test_a_host_whose_clock_is_three_seconds_ahead_is_aligned_within_a_millisecond(host):
    with source() as one, read(one) as ledger:
        one.do("run 1 3.0")
        ledger.balance(one.sent)
        assert ledger.lost == 0
        first = next(item for item in ledger.items if isinstance(item, Clock))
        assert first.offset == pytest.approx(-3.0, abs=5e-3)
        delays = [arrived - stamp for arrived, stamp in ledger.arrived]
        assert -1e-3 < min(delays) < 0.02  # a sample arrives 4 ms after it was stamped


@pytest.mark.parametrize("jump", [-200_000.0, 20.0])
def test_the_clock_of_a_host_that_jumps_is_measured_at_once_and_nothing_is_lost(host, jump):
    with source() as one, read(one) as ledger:
        one.do("run 1 3.0")
        host[0].shift = 3.0 + jump
        one.do(f"run 2.5 {3.0 + jump}")
        ledger.balance(one.sent)
        assert ledger.lost == 0
        assert not ledger.device.problem
        (notice,) = ledger.notices
        said = float(re.search(r"set by ([-+][\d.]+) s", notice)[1])
        assert said == pytest.approx(jump, abs=0.01)
        assert np.max(np.diff(ledger.times)) < 1.0
        arrived, stamp = ledger.arrived[-1]
        assert -5e-3 < arrived - stamp < 0.5


@pytest.mark.parametrize(
    ("format_", "channels", "pushed", "label"),
    [
        ("int32", 1, [42], "42"),
        ("double64", 3, [1712345678.125, 7.0, 1712345678.25], "1712345678.125, 7, 1712345678.25"),
        ("float32", 1, [0.1], "0.1"),
        ("string", 1, ["Reiz ü"], "Reiz ü"),
        ("string", 2, ["a", "b"], "a, b"),
        ("int8", 1, [-3], "-3"),
    ],
)
def test_markers_of_every_format_come_as_they_are_with_the_texts_they_stand_for(format_, channels, pushed, label):
    name = f"test-{uuid.uuid4().hex[:8]}"
    outlet = pylsl.StreamOutlet(pylsl.StreamInfo(name, "Markers", channels, 0.0, format_, name))
    with open_device(f"lsl:name={name}") as device:
        assert outlet.wait_for_consumers(20)
        stamp = pylsl.local_clock()
        outlet.push_sample(pushed, stamp)
        items = []
        deadline = time.monotonic() + 10
        while not items and time.monotonic() < deadline:
            items = [item for item in device.read(0.1) if isinstance(item, Events | Chunk)]
    (item,) = items
    assert (item.labels if format_ == "string" else item.texts) == (label,)
    assert device.streams[0].marks
    if format_ != "string":
        assert item.data.tolist() == np.array([pushed], item.data.dtype).tolist()
        assert (str(item.data.dtype), len(device.streams[0].channels)) == (format_.replace("double", "float"), channels)
    assert item.times[0] == pytest.approx(stamp, abs=5e-3)


def test_every_stream_there_has_an_address_that_opens_it_and_no_other():
    kind = f"T{uuid.uuid4().hex[:8]}"
    specs = [("a", "one"), ("a", "two"), ("b, c", "three"), ("b, c", "")]
    outlets = [pylsl.StreamOutlet(pylsl.StreamInfo(name, kind, 2, 100.0, "float32", id_)) for name, id_ in specs]
    found = [one for one in lsl.discover(1.5) if one.what.startswith(f"{kind}, 2 channels, 100 Hz, host ")]
    assert len({one.address for one in found}) == len(outlets)
    uids = set()
    for one in found:
        with open_device(one.address) as device:
            uids.add(device.uid)
    assert len(uids) == len(outlets)
    assert any(one.what.endswith(", source_id three") for one in found)

"""The marker endpoint by real HTTP, as pages, scripts and attackers speak to it."""

from __future__ import annotations

import http.client
import json
import re
import socket
import struct
import subprocess
import threading
import time
import urllib.error
import urllib.request
from contextlib import contextmanager

import numpy as np
import pytest

from devices.api import DeviceError, Events, open_device
from devices.markers import CONNECTIONS, MAX_BODY, MarkerEndpoint


class Hand:
    """A clock that stands where it is put."""

    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


@contextmanager
def listening(clock=None):
    with MarkerEndpoint(0, clock or Hand()) as endpoint:
        yield endpoint


def post(endpoint, body, *, token=None, path="/marker", method="POST", headers=()):
    """Status, answer and headers of one request; the token goes into the header."""
    connection = http.client.HTTPConnection("127.0.0.1", endpoint.port, timeout=10)
    token = endpoint.token if token is None else token
    authorization = {"Authorization": f"Bearer {token}"} if token else {}
    try:
        connection.request(method, path, body, {**authorization, **dict(headers)})
        answer = connection.getresponse()
        text = answer.read()
        ours = answer.getheader("Content-Type") == "application/json"
        return answer.status, json.loads(text) if ours else None, dict(answer.getheaders())
    finally:
        connection.close()


def labels(endpoint):
    return [label for item in endpoint.read(0.0) if isinstance(item, Events) for label in item.labels]


def test_a_marker_is_stamped_on_arrival_and_the_answer_says_when():
    clock = Hand()
    with listening(clock) as endpoint:
        assert post(endpoint, b'{"label": "stimulus 3"}')[:2] == (200, {"label": "stimulus 3", "time": 100.0})
        clock.now = 101.5
        assert post(endpoint, "Reiz ü".encode())[:2] == (200, {"label": "Reiz ü", "time": 101.5})
        (item,) = endpoint.read(0.0)
        assert isinstance(item, Events)
        assert item.stream == endpoint.streams[0].key
        assert (item.labels, item.times.tolist()) == (("stimulus 3", "Reiz ü"), [100.0, 101.5])
        assert endpoint.read(0.01) == []
    assert (endpoint.streams[0].kind, endpoint.streams[0].rate) == ("markers", 0.0)


def test_a_page_says_how_long_ago_it_was():
    with listening() as endpoint:
        assert post(endpoint, b'{"label": "key", "ago_ms": 250}')[1] == {"label": "key", "time": 99.75}
        for ago in (b"-1", b"60001", b"NaN", b"1e999", b'"1"', b"true", b"null"):
            assert post(endpoint, b'{"label": "key", "ago_ms": ' + ago + b"}")[0] == 400
        assert labels(endpoint) == ["key"]


def test_the_ready_made_curl_of_the_greeting_works():
    with listening() as endpoint:
        command = next(line for line in endpoint.greeting.splitlines() if "curl" in line)
        done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, timeout=20, check=False)
        if done.returncode == 127:
            pytest.skip("no curl")
        assert json.loads(done.stdout) == {"label": "stimulus", "time": 100.0}
        assert labels(endpoint) == ["stimulus"]
        assert f"fetch('http://127.0.0.1:{endpoint.port}/marker?token={endpoint.token}'" in endpoint.greeting


def test_the_token_in_the_address_lets_in_and_urllib_needs_nothing_else():
    with listening() as endpoint:
        url = f"http://localhost:{endpoint.port}/marker?token={endpoint.token}"
        with urllib.request.urlopen(url, b"go", timeout=10) as answer:
            assert json.load(answer) == {"label": "go", "time": 100.0}
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(url[:-1], b"go", timeout=10)
        assert refused.value.code == 401
        refused.value.close()


def test_every_endpoint_has_a_token_of_its_own_and_it_is_nowhere_in_the_record():
    with listening() as one, listening() as two:
        assert len(one.token) >= 20
        assert one.token != two.token
        assert one.token in one.greeting
        assert one.token not in repr(one.streams) + one.problem + repr(getattr(one, "identity", ""))


@pytest.mark.parametrize(
    ("change", "status"),
    [
        ({"token": "wrong"}, 401),
        ({"token": "falsch-ü".encode().decode("latin-1")}, 401),
        ({"headers": [("Authorization", "")]}, 401),
        ({"path": "/"}, 404),
        ({"path": "/marker/"}, 404),
        ({"path": "/../marker"}, 404),
        ({"method": "GET"}, 405),
        ({"method": "PUT"}, 405),
        ({"method": "DELETE"}, 405),
        ({"headers": [("Host", "evil.example")]}, 421),
        ({"headers": [("Host", "evil.example:8765")]}, 421),
        ({"headers": [("Host", "127.0.0.1")]}, 421),
        ({"body": b"x" * (MAX_BODY + 1)}, 413),
        ({"body": b"x" * (4 * 1024 * 1024)}, 413),
        ({"body": b"x" * 1001}, 400),
        ({"body": b""}, 400),
        ({"body": b"  \n"}, 400),
        ({"body": b"\xff\xfe"}, 400),
        ({"body": b'{"label": 1'}, 400),
        ({"body": b'{"text": "no label"}'}, 400),
        ({"body": b'{"label": ["a"]}'}, 400),
        ({"body": b'{"label": true}'}, 400),
        ({"body": b'{"label": "\\u0000\\ud800"}'}, 400),
        ({"path": "/marker?" + "a=1&" * 20}, 400),
        ({"body": b'{"label": ' + b"[" * 20_000}, 400),
        ({"body": b'{"label": 1' + b"0" * 5000 + b"}"}, 400),
        ({"body": b'{"label": 1e999}'}, 400),
        ({"body": b'{"label": -1e999}'}, 400),
        ({"body": b'{"label": NaN}'}, 400),
        ({"body": b'{"label": Infinity}'}, 400),
        ({"headers": [("Content-Length", "-5")], "body": None}, 411),
        ({"headers": [("Content-Length", "1e3")], "body": None}, 411),
        ({"headers": [("Content-Length", "9" * 5000)], "body": None}, 413),
    ],
)
def test_what_is_wrong_is_refused_with_its_status_and_leaves_no_marker(change, status, capfd):
    with listening() as endpoint:
        change = {"body": b"label", **change}
        answer = post(endpoint, change.pop("body"), **change)
        assert answer[0] == status
        assert answer[1]["error"]
        assert labels(endpoint) == []
        assert post(endpoint, b"after")[0] == 200
    assert capfd.readouterr() == ("", "")


def test_a_page_of_another_origin_may_ask_first_and_then_post():
    with listening() as endpoint:
        ask = [
            ("Origin", "null"),  # a page opened from a file
            ("Access-Control-Request-Method", "POST"),
            ("Access-Control-Request-Headers", "authorization,content-type"),
            ("Access-Control-Request-Private-Network", "true"),
        ]
        status, _, headers = post(endpoint, None, token="", method="OPTIONS", headers=ask)
        assert status == 204
        assert headers["Access-Control-Allow-Origin"] == "*"
        assert "POST" in headers["Access-Control-Allow-Methods"]
        assert "Authorization" in headers["Access-Control-Allow-Headers"]
        assert headers["Access-Control-Allow-Private-Network"] == "true"
        for token in (None, "wrong"):  # also the refusal can be read by the page
            _, _, headers = post(endpoint, b"go", token=token, headers=[("Origin", "https://lab.example")])
            assert headers["Access-Control-Allow-Origin"] == "*"


def test_only_the_loopback_is_listened_to():
    with listening() as endpoint:
        assert endpoint._server.server_address[0] == "127.0.0.1"
        own = next(
            (a[4][0] for a in socket.getaddrinfo(socket.gethostname(), None, socket.AF_INET) if a[4][0][:4] != "127."),
            "127.0.0.2",
        )
        with pytest.raises(OSError, match=r"refused|unreachable"):
            socket.create_connection((own, endpoint.port), timeout=5).close()


def test_clients_that_trickle_do_not_hold_up_the_others_and_are_cut(monkeypatch):
    monkeypatch.setattr("devices.markers.PATIENCE", 1.0)
    with listening() as endpoint:
        slow = [socket.create_connection(("127.0.0.1", endpoint.port), timeout=20) for _ in range(20)]
        try:
            for one in slow:
                one.sendall(b"POST /marker HTTP/1.1\r\nHost: ")
            assert post(endpoint, b"quick")[0] == 200
            cut = set()
            deadline = time.monotonic() + 20
            while len(cut) < len(slow) and time.monotonic() < deadline:
                for one in slow:
                    try:
                        one.sendall(b"a")  # never silent, never done
                        one.settimeout(0.05)
                        if not one.recv(1000):
                            cut.add(one)
                    except TimeoutError:
                        continue
                    except OSError:
                        cut.add(one)
            assert len(cut) == len(slow)
        finally:
            for one in slow:
                one.close()
        assert post(endpoint, b"after")[0] == 200
        assert labels(endpoint) == ["quick", "after"]


@pytest.mark.parametrize("said", [b"", b"POST /marker HTTP/1.1\r\nAuthorization: Bearer wrong\r\n"])
def test_connections_that_stay_idle_keep_no_marker_out_and_how_many_had_to_go_is_said(said):
    with listening() as endpoint:
        idle = []
        try:
            for _ in range(CONNECTIONS + 8):
                idle.append(socket.create_connection(("127.0.0.1", endpoint.port), timeout=10))
                idle[-1].sendall(said)
            statuses = [post(endpoint, f"honest {number}".encode())[0] for number in range(3)]
            assert statuses == [200] * 3
            assert labels(endpoint) == [f"honest {number}" for number in range(3)]
        finally:
            for one in idle:
                one.close()
        gone = int(re.search(r"(\d+) connections closed to let others in", endpoint.problem)[1])
        assert 8 < gone <= 8 + 3


def test_a_client_that_has_shown_the_token_does_not_give_way_to_idle_ones():
    with listening() as endpoint:
        honest = socket.create_connection(("127.0.0.1", endpoint.port), timeout=10)
        host = f"127.0.0.1:{endpoint.port}"
        head = f"POST /marker HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {endpoint.token}\r\n"
        honest.sendall(f"{head}Content-Length: 4\r\n\r\nslo".encode())
        time.sleep(0.3)
        idle = [socket.create_connection(("127.0.0.1", endpoint.port), timeout=10) for _ in range(CONNECTIONS + 8)]
        try:
            assert post(endpoint, b"quick")[0] == 200
            honest.sendall(b"w")
            assert honest.recv(1000).startswith(b"HTTP/1.1 200")
        finally:
            for one in (honest, *idle):
                one.close()
        assert labels(endpoint) == ["quick", "slow"]


def test_what_is_refused_is_said_with_its_number_and_again_to_a_session_that_ends():
    with listening() as endpoint:
        assert endpoint.problem == ""
        assert [post(endpoint, b"x", token="of yesterday")[0] for _ in range(2)] == [401, 401]
        assert [post(endpoint, body)[0] for body in (b"", b"{")] == [400, 400]
        assert post(endpoint, None, method="GET")[0] == 405
        said = "4 requests refused; 2 not understood, 2 with a wrong token"
        assert endpoint.problem == f"markers:{endpoint.port}: {said}"
        assert endpoint.read(0.01) == []  # the alarm has just said it
        (notice,) = endpoint.read(0.0)
        assert (notice.stream, notice.text) == (endpoint.streams[0].key, f"so far: {said}")


def broken_off(endpoint, head, *, reset):
    """A client that sends its token, ``head`` and a part of its marker, and goes away."""
    with socket.create_connection(("127.0.0.1", endpoint.port), timeout=10) as one:
        host = f"127.0.0.1:{endpoint.port}"
        one.sendall(f"POST /marker HTTP/1.1\r\nHost: {host}\r\n{head(endpoint)}".encode())
        time.sleep(0.3)  # it is being read by then
        if reset:
            one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def in_the_head(endpoint):
    return f"Authorization: Bearer {endpoint.token}\r\n"


def in_the_body(endpoint):
    return f"Authorization: Bearer {endpoint.token}\r\nContent-Length: 10\r\n\r\nabc"


@pytest.mark.parametrize(("head", "reset"), [(in_the_body, False), (in_the_body, True), (in_the_head, True)])
def test_a_marker_whose_connection_breaks_off_is_counted(head, reset):
    with listening() as endpoint:
        broken_off(endpoint, head, reset=reset)
        deadline = time.monotonic() + 20
        while not endpoint.problem and time.monotonic() < deadline:
            time.sleep(0.02)
        assert endpoint.problem == f"markers:{endpoint.port}: 1 request refused; 1 broken off"


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"path": "/markers"}, "to a wrong path"),
        ({"headers": [("Host", "lab.example:8765")]}, "under another host's name"),
        ({"body": b"x" * (MAX_BODY + 1)}, "too long"),
        ({"headers": [("X", "a" * 70_000)]}, "too long"),
        ({"path": "/marker?" + "a" * 70_000}, "too long"),
        ({"headers": [("Content-Length", "-5")], "body": None}, "not understood"),
        ({"path": "/marker?" + "a=1&" * 20}, "not understood"),
    ],
)
def test_a_marker_that_is_refused_although_the_token_is_right_is_counted_with_why(change, why):
    with listening() as endpoint:
        change = {"body": b"label", **change}
        assert post(endpoint, change.pop("body"), **change)[0] >= 400
        assert endpoint.problem == f"markers:{endpoint.port}: 1 request refused; 1 {why}"


def test_who_looks_for_something_else_without_the_token_is_no_marker_that_was_lost():
    with listening() as endpoint:
        assert post(endpoint, b"x", token="", path="/login")[0] == 404
        assert post(endpoint, b"x", token="", headers=[("Host", "lab.example")])[0] == 421
        assert endpoint.problem == ""


def test_many_clients_at_once_lose_nothing():
    with listening() as endpoint:
        statuses = []

        def send(who):
            statuses.extend(post(endpoint, f"{who} {number}".encode())[0] for number in range(20))

        threads = [threading.Thread(target=send, args=(who,)) for who in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
        assert statuses == [200] * 160
        came = labels(endpoint)
        assert sorted(came) == sorted(f"{who} {number}" for who in range(8) for number in range(20))


def test_more_markers_than_anyone_reads_are_refused_and_said(monkeypatch):
    monkeypatch.setattr("devices.markers.WAITING", 3)
    with listening() as endpoint:
        assert [post(endpoint, b"x")[0] for _ in range(5)] == [200, 200, 200, 429, 429]
        assert "3 markers wait" in endpoint.problem
        assert labels(endpoint) == ["x"] * 3
        assert endpoint.problem == f"markers:{endpoint.port}: 2 requests refused; 2 while too many waited"


def test_markers_count_only_while_the_session_runs():
    endpoint = MarkerEndpoint(0, Hand())
    assert post(endpoint, b"early")[0] == 503
    with endpoint:
        assert post(endpoint, b"on time")[0] == 200
        (notice, events) = endpoint.read(0.0)
        assert notice.text == "so far: 1 request refused; 1 while the session did not run"
        assert events.labels == ("on time",)
        assert endpoint.read(0.0) == []
    with pytest.raises(OSError, match="refused"):
        post(endpoint, b"late")


def test_a_port_that_is_taken_is_one_line():
    with listening() as endpoint, pytest.raises(DeviceError) as refused:
        open_device(f"markers:{endpoint.port}")
    line = str(refused.value)
    assert "\n" not in line
    assert f"markers:{endpoint.port}: the port cannot be used" in line
    assert f"markers:{endpoint.port % 65535 + 1}" in line


@pytest.mark.parametrize("rest", ["http", "-1", "0", "65536", "80.5", "８７６５"])
def test_an_address_that_is_no_port_says_how_to_write_it(rest):
    with pytest.raises(DeviceError, match="Write markers: or"):
        open_device(f"markers:{rest}")


def test_a_port_can_be_used_again_at_once():
    with listening() as endpoint:
        port = endpoint.port
        assert post(endpoint, b"x")[0] == 200
    with open_device(f"markers:{port}") as again:
        assert again.port == port
        assert post(again, b"y")[0] == 200


def test_garbage_is_answered_or_cut_and_never_shown(capfd):
    with listening() as endpoint:
        hello = b"\x16\x03\x01\x02\x00"  # TLS
        for garbage in (hello, b"GET\r\n\r\n", b"POST /marker HTTP/9.9\r\n\r\n", b"A" * 100_000, b"\r\n"):
            with socket.create_connection(("127.0.0.1", endpoint.port), timeout=10) as one:
                one.sendall(garbage)
                one.shutdown(socket.SHUT_WR)
                try:
                    while one.recv(10_000):
                        pass
                except ConnectionResetError:
                    continue
        assert post(endpoint, b"after")[0] == 200
    assert capfd.readouterr() == ("", "")


def test_a_session_records_what_is_posted_and_not_the_token(tmp_path):
    from devices.lsl import lsl_clock
    from devices.xdf_format import SESSION_NAME, XdfFile
    from realtime.record import Recorder
    from realtime.session import Session

    endpoint = MarkerEndpoint(0)
    path = tmp_path / "markers.xdf"
    session = Session(
        [endpoint], None, title="markers", clock=lsl_clock, recorder=lambda streams: Recorder(path, streams, (), {})
    )
    runner = threading.Thread(target=session.run)
    runner.start()
    try:
        deadline = time.monotonic() + 20
        while (answer := post(endpoint, b"begin"))[0] == 503 and time.monotonic() < deadline:
            time.sleep(0.02)
        assert answer[0] == 200
        assert post(endpoint, b"x", token="wrong")[0] == 401
    finally:
        session.stop()
        runner.join(30)
    with XdfFile(path) as file:
        (events,) = [file.read(one.id)[1] for one in file.streams.values() if one.name == SESSION_NAME]
        told = [text for (text,) in np.asarray(events).reshape(-1, 1).tolist() if text.startswith("note ")]
        assert told[-1].endswith("1 with a wrong token")
        assert any(text.startswith("alarm ") for (text,) in np.asarray(events).reshape(-1, 1).tolist())
        (stream,) = [stream for stream in file.streams.values() if stream.name == endpoint.streams[0].name]
        times, values = file.read(stream.id)
    assert np.asarray(values).ravel().tolist() == ["begin"]
    assert times.tolist() == pytest.approx([answer[1]["time"]])
    assert endpoint.token.encode() not in path.read_bytes()

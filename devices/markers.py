"""Markers by HTTP, for experiments in a browser (jsPsych, lab.js): ``markers:`` or ``markers:8765``.

    POST http://127.0.0.1:8765/marker        Authorization: Bearer TOKEN  (or ?token=TOKEN)
    {"label": "stimulus 3", "ago_ms": 12.5}  or the label as plain text

Answers ``{"label": ..., "time": ...}``, seconds on the session clock. A marker is stamped when its request arrives;
``ago_ms`` (0 to 60000) says how long before it was sent the event happened, by the page's own ``performance.now()``.

Only this machine is listened to, only with the token, which is made anew each time and never recorded. Pages of any
origin may post, for experiments come from anywhere, also from files; it is the token that lets them in. Requests that
came under another host's name are refused (DNS rebinding). Connections that say nothing keep nobody out: the oldest of
them gives way. Markers that were refused are counted and said, also in the record.
"""

from __future__ import annotations

import contextlib
import hmac
import json
import math
import os
import queue
import secrets
import socket
import socketserver
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self
from urllib.parse import parse_qs, urlsplit

import numpy as np

from devices.api import DeviceError, Events, Found, Item, Notice, StreamInfo
from devices.lsl import lsl_clock

PORT = 8765
HOST = "127.0.0.1"
MAX_BODY = 65_536
UNREAD = 16_000_000
"""Bytes of a refused request that are read and forgotten, so that the client sees the answer."""
MAX_LABEL = 1000
MAX_AGO_MS = 60_000.0
WAITING = 10_000
"""Markers that wait for the session; more are refused, and the page is told."""
CONNECTIONS = 32
"""At once. For one more the oldest that has not shown the token is closed."""
BURST = 0.1
"""Seconds. Younger ones are closed only when none gets through in as long: an honest request takes milliseconds."""
ROOM = 1.0
"""Seconds that one more connection waits for the end of the one that was closed for it."""
REPORT_INTERVAL = 10.0
"""Seconds between two notices on what was refused."""
PATIENCE = 5.0
"""Seconds that a request may take to arrive, however slowly it trickles."""


def discover(seconds: float) -> list[Found]:  # noqa: ARG001  (every scheme is asked the same)
    """It is always there."""
    return [Found("markers:", f"markers by HTTP from this machine, port {PORT} unless said: markers:PORT")]


def connect(rest: str) -> MarkerEndpoint:
    """The endpoint on the port that ``rest`` names, 8765 without one; it listens from now on. Raises DeviceError."""
    if rest and not (rest.isascii() and rest.isdigit() and 0 < int(rest) < 65536):
        raise DeviceError(f"markers:{rest}: {rest!r} is no port. Write markers: or, for example, markers:8765.")
    return MarkerEndpoint(int(rest or PORT))


class MarkerEndpoint:
    """Markers that programs of this machine post, as a device. ``clock`` is the session clock, ``port`` 0 any free one.

    Markers count from when the session begins to the end of the ``with`` block; before, requests are answered 503.
    """

    def __init__(self, port: int = PORT, clock: Callable[[], float] = lsl_clock) -> None:
        self.token = secrets.token_urlsafe(16)
        self._came: queue.Queue[tuple[float, str]] = queue.Queue(WAITING)
        self._open = False
        self._clock = clock
        self._refused: Counter[str] = Counter()
        self._closed: Counter[str] = Counter()
        self._counting = threading.Lock()
        self._told, self._told_at = "", -math.inf
        try:
            self._server = _Server(self, clock, port)
        except OSError as error:
            raise DeviceError(
                f"markers:{port}: the port cannot be used: {error.strerror or error}. "
                f"End the other program, or take another port, for example markers:{port % 65535 + 1}."
            ) from error
        self.port = int(self._server.server_address[1])
        self._info = StreamInfo(
            key="http/markers",
            kind="markers",
            channels=("marker",),
            rate=0.0,
            unit="",
            name="insula HTTP markers",
            source=f"markers:{self.port}",
        )
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.1,), name="markers", daemon=True)
        self._thread.start()

    @property
    def streams(self) -> Sequence[StreamInfo]:
        return (self._info,)

    @property
    def greeting(self) -> str:
        """How to send a marker, token included: to be printed, never to be recorded."""
        url = f"http://{HOST}:{self.port}/marker"
        return (
            f"Markers by HTTP: POST {url}, token {self.token}\n"
            f"  curl -H 'Authorization: Bearer {self.token}' -d 'stimulus' {url}\n"
            f"  const marker = (label) => fetch('{url}?token={self.token}',\n"
            "    {method: 'POST', body: JSON.stringify({label}), keepalive: true})"
        )

    @property
    def problem(self) -> str:
        """A line when more wait than can, and one for each kind of what was refused so far, to the end; "" when all is
        well."""
        full = [f"{WAITING} markers wait, more are refused"] if self._came.qsize() >= WAITING else []
        return "\n".join(f"markers:{self.port}: {text}" for text in (*full, *self._refusals()))

    def _refusals(self) -> list[str]:
        with self._counting:
            refused, closed = sorted(self._refused.items()), sorted(self._closed.items())
        total = sum(count for _, count in refused)
        why = ", ".join(f"{count} {words}" for words, count in refused)
        said = [f"{total} request{'s' if total > 1 else ''} refused; {why}"] if refused else []
        return said + [f"{count} connection{'s' if count > 1 else ''} {words}" for words, count in closed]

    def refuse(self, why: str) -> None:
        """Count a marker that is not taken, from any thread."""
        with self._counting:
            self._refused[why] += 1

    def close(self, why: str) -> None:
        """Count a connection that is closed, from any thread."""
        with self._counting:
            self._closed[why] += 1

    def __enter__(self) -> Self:
        self._open = True
        return self

    def __exit__(self, *exc: object) -> None:
        self._open = False
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(1.0)

    def read(self, timeout: float) -> list[Item]:
        """The markers that have come, in the order of their arrival; waits at most ``timeout`` for the first.

        Every `REPORT_INTERVAL` a notice says what was refused so far, and at once to whoever does not wait: a session
        that ends.
        """
        came = []
        try:
            came.append(self._came.get(timeout=timeout) if timeout > 0 else self._came.get_nowait())
            while len(came) < WAITING:
                came.append(self._came.get_nowait())
        except queue.Empty:
            pass
        items = self._notices(at_once=timeout <= 0)
        if came:
            times, labels = zip(*came, strict=True)
            items.append(Events(self._info.key, np.array(times, np.float64), tuple(labels)))
        return items

    def _notices(self, at_once: bool) -> list[Item]:
        refusals = "; ".join(self._refusals())
        if refusals == self._told:
            return []
        now = time.monotonic()
        if math.isinf(self._told_at):
            self._told_at = now  # the first are said by `problem`
        if not at_once and now - self._told_at < REPORT_INTERVAL:
            return []
        self._told, self._told_at = refusals, now
        return [Notice(self._info.key, self._clock(), f"so far: {refusals}")]

    def post(self, time: float, label: str) -> HTTPStatus:
        """Take one marker, from any thread; OK, or why not."""
        if not self._open:
            self.refuse("while the session did not run")
            return HTTPStatus.SERVICE_UNAVAILABLE
        try:
            self._came.put_nowait((time, label))
        except queue.Full:
            self.refuse("while too many waited")
            return HTTPStatus.TOO_MANY_REQUESTS
        return HTTPStatus.OK


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    allow_reuse_address = os.name != "nt"  # there it would let two programs share the port
    request_queue_size = 128

    def __init__(self, endpoint: MarkerEndpoint, clock: Callable[[], float], port: int) -> None:
        self.endpoint = endpoint
        self.clock = clock
        self._slots = threading.BoundedSemaphore(CONNECTIONS)
        self._strangers: dict[socket.socket, float] = {}
        """Connections that have not shown the token, oldest first, and since when."""
        self._looking = threading.Lock()
        super().__init__((HOST, port), _Request)

    def server_bind(self) -> None:
        # Not HTTPServer's: it asks the name service for this machine's name, which can take seconds.
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = HOST, int(self.server_address[1])

    def process_request(self, request: Any, client_address: Any) -> None:
        if not (self._slots.acquire(blocking=False) or self._make_room()):
            self.endpoint.close("closed unanswered")
            self.shutdown_request(request)
            return
        with self._looking:
            self._strangers[request] = time.monotonic()
        super().process_request(request, client_address)

    def _make_room(self) -> bool:
        """A slot for one more connection: of one that ends by itself, or of the oldest stranger."""
        return self._send_away(BURST) or self._slots.acquire(timeout=BURST) or self._send_away(0.0)

    def _send_away(self, age: float) -> bool:
        with self._looking:
            oldest, since = next(iter(self._strangers.items()), (None, math.inf))
            if oldest is None or time.monotonic() - since < age:
                return False
            del self._strangers[oldest]
            _cut(oldest)
        self.endpoint.close("closed to let others in")
        return self._slots.acquire(timeout=ROOM)

    def welcome(self, request: socket.socket) -> None:
        """It has shown the token: it does not give way."""
        with self._looking:
            self._strangers.pop(request, None)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        # A client that trickles a byte at a time keeps no slot: its connection is cut when its time is up.
        cut = threading.Timer(PATIENCE, _cut, (request,))
        cut.daemon = True
        cut.start()
        try:
            super().process_request_thread(request, client_address)
        finally:
            cut.cancel()
            self.welcome(request)
            self._slots.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away in the middle is its own affair; the screen belongs to the session."""


def _finite(text: str) -> float:
    """A number of JSON; ValueError for NaN and Infinity, which JSON does not have, and for 1e999."""
    if math.isfinite(number := float(text)):
        return number
    raise ValueError(f"{text} is no number")


def _cut(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):  # closed already
        connection.shutdown(socket.SHUT_RDWR)


class _Request(BaseHTTPRequestHandler):
    """One request on one connection: then it is closed, so that nothing idle holds a thread."""

    server: _Server
    timeout = PATIENCE
    server_version = "insula"
    sys_version = ""
    protocol_version = "HTTP/1.1"
    raw_requestline: bytes

    def parse_request(self) -> bool:
        # When its first line has come, not when the connection was made: browsers connect ahead of time.
        self._arrived = self.server.clock()
        try:
            return super().parse_request()
        except OSError:  # reset, or out of time
            if self.raw_requestline.startswith(b"POST "):
                self.server.endpoint.refuse("broken off")
            self.close_connection = True
            return False

    def finish(self) -> None:
        """Read what the client still sends: with bytes left unread its system would throw the answer away."""
        super().finish()
        with contextlib.suppress(OSError):
            self.connection.shutdown(socket.SHUT_WR)
            self.connection.settimeout(0.5)
            left = UNREAD
            while left > 0 and (came := len(self.connection.recv(MAX_BODY))):
                left -= came

    def do_POST(self) -> None:
        if not self._expected():
            return
        self.server.welcome(self.connection)
        length = self.headers.get("Content-Length", "")
        if not (length.isascii() and length.isdigit()):
            self._say(HTTPStatus.LENGTH_REQUIRED, error="say Content-Length")
            return
        if len(length) > 12 or int(length) > MAX_BODY:
            self._say(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, error=f"at most {MAX_BODY} bytes")
            return
        body = self._read_body(int(length))
        if body is None:
            self.server.endpoint.refuse("broken off")
            return
        try:
            label, ago_ms = _marker(body)
        except ValueError as error:
            self._say(HTTPStatus.BAD_REQUEST, error=str(error))
            return
        moment = self._arrived - ago_ms / 1000
        status = self.server.endpoint.post(moment, label)
        if status is HTTPStatus.OK:
            self._say(status, label=label, time=moment)
        else:
            full = status is HTTPStatus.TOO_MANY_REQUESTS
            self._say(status, error="too many markers wait" if full else "the session is not running")

    def _read_body(self, length: int) -> bytes | None:
        """What was posted; None when it breaks off, however it does: closed, reset, or out of time."""
        try:
            body = self.rfile.read(length)
        except OSError:
            return None
        return body if len(body) == length else None

    def do_OPTIONS(self) -> None:
        if self._expected(preflight=True):
            self._say(HTTPStatus.NO_CONTENT)

    def _wrong_method(self) -> None:
        if self._expected(preflight=True):
            self._say(HTTPStatus.METHOD_NOT_ALLOWED, error="POST a marker")

    do_GET = do_HEAD = do_PUT = do_DELETE = do_PATCH = _wrong_method  # noqa: N815  (the names that http.server calls)

    def _expected(self, preflight: bool = False) -> bool:
        """Whether it is for us: addressed by this machine's name, to the path, with the token."""
        try:
            url = urlsplit(self.path)
            query = parse_qs(url.query, max_num_fields=8)
        except ValueError:
            self._say(HTTPStatus.BAD_REQUEST, error="this is no address: POST to /marker")
            return False
        given = self.headers.get("Authorization", "").removeprefix("Bearer ").strip()
        given = given or query.get("token", [""])[0]
        token = self.server.endpoint.token
        shown = hmac.compare_digest(given.encode("utf-8", "replace"), token.encode())
        # Whoever has the token means us, and has lost a marker; others may look for anything.
        if self.headers.get("Host", "") not in {f"{name}:{self.server.endpoint.port}" for name in (HOST, "localhost")}:
            self._say(HTTPStatus.MISDIRECTED_REQUEST, counted=shown, error="this is not the host that was asked for")
        elif url.path != "/marker":
            self._say(HTTPStatus.NOT_FOUND, counted=shown, error="POST to /marker")
        elif not preflight and not shown:
            self._say(HTTPStatus.UNAUTHORIZED, error="wrong token: it is printed where the session was started")
        else:
            return True
        return False

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """What `http.server` refuses itself, before it is known whose it is: lines too long, or no HTTP at all."""
        if self.raw_requestline.startswith(b"POST "):
            self.server.endpoint.refuse(_WORDS.get(HTTPStatus(code), "not understood"))
        super().send_error(code, message, explain)

    def _say(self, status: HTTPStatus, *, counted: bool = True, **content: str | float) -> None:
        if counted and self.command == "POST" and status in _WORDS:
            self.server.endpoint.refuse(_WORDS[status])
        body = b"" if status is HTTPStatus.NO_CONTENT else json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Access-Control-Allow-Origin", "*")
        self.send_header("Access-Control-Allow-Methods", "POST, OPTIONS")
        self.send_header("Access-Control-Allow-Headers", "Authorization, Content-Type")
        self.send_header("Access-Control-Allow-Private-Network", "true")
        self.send_header("Access-Control-Max-Age", "600")
        if status is HTTPStatus.METHOD_NOT_ALLOWED:
            self.send_header("Allow", "POST, OPTIONS")
        if status is HTTPStatus.UNAUTHORIZED:
            self.send_header("WWW-Authenticate", "Bearer")
        if body:
            self.send_header("Content-Type", "application/json")
        if status is not HTTPStatus.NO_CONTENT:
            self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-store")
        self.send_header("Connection", "close")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Nothing: labels and tokens do not belong on the terminal."""


_WORDS = {
    HTTPStatus.UNAUTHORIZED: "with a wrong token",
    HTTPStatus.BAD_REQUEST: "not understood",
    HTTPStatus.LENGTH_REQUIRED: "not understood",
    HTTPStatus.NOT_FOUND: "to a wrong path",
    HTTPStatus.MISDIRECTED_REQUEST: "under another host's name",
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE: "too long",
    HTTPStatus.REQUEST_URI_TOO_LONG: "too long",
    HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE: "too long",
}
"""Why what was posted is no marker; `MarkerEndpoint.post` counts the others."""


def _marker(body: bytes) -> tuple[str, float]:
    """Label and age (ms) of what was posted: a JSON object, a JSON text, or plain text."""
    try:
        text = body.decode("utf-8").strip()
    except UnicodeDecodeError:
        raise ValueError("the body is not UTF-8") from None
    label: object = text
    ago_ms: object = 0.0
    if text[:1] in {"{", '"'}:
        try:
            content = json.loads(text, parse_float=_finite, parse_constant=_finite)
        except (ValueError, RecursionError):
            raise ValueError("the body begins like JSON, but is none, or has a number that is none") from None
        if isinstance(content, dict):
            label, ago_ms = content.get("label"), content.get("ago_ms", 0.0)
        else:
            label = content
    if isinstance(label, int | float) and not isinstance(label, bool):
        label = str(label)
    if not isinstance(label, str):
        label = ""
    if len(label) > MAX_LABEL:
        raise ValueError(f"the label has {len(label)} characters, the limit is {MAX_LABEL}")
    if isinstance(ago_ms, bool) or not isinstance(ago_ms, int | float) or not 0 <= ago_ms <= MAX_AGO_MS:
        raise ValueError(f"ago_ms is to be a number from 0 to {MAX_AGO_MS:g}")
    label = "".join(letter if letter.isprintable() else " " for letter in label).strip()
    if not label:
        raise ValueError('no label: send {"label": "stimulus"} or the label as plain text')
    return label, float(ago_ms)

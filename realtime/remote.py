"""The wire between the engine and its dashboards: a local socket that anybody of the same user can attach to.

The engine must outlive every dashboard and a dashboard may come late, so nothing is inherited: a session writes its
socket's name and key into a folder that only its user can read, and whoever attaches is first told what happened so
far. The engine never waits for a dashboard: one that is slow misses traces, and sees a gap where it did.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import pickle
import re
import secrets
import shutil
import socket
import tempfile
import threading
import time
import zlib
from array import array
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future
from dataclasses import replace
from multiprocessing import AuthenticationError
from multiprocessing.connection import Client as Dial
from multiprocessing.connection import Connection, Listener
from pathlib import Path
from typing import Self, get_args

from realtime.api import (
    Beats,
    Body,
    Cleared,
    Command,
    Ended,
    Estimated,
    Health,
    Hello,
    Mark,
    Marked,
    Noted,
    Shown,
    Traces,
    Update,
)

TRACE_SECONDS = 60.0
"""How far back a newcomer sees traces."""
TRACES_KEPT = 10_000
"""Messages with traces kept of a stream, whatever its stamps say; a session sends about 1 200 in `TRACE_SECONDS`."""
KEPT = 50_000
"""Estimates and markers kept for newcomers: more than 12 hours at one a second."""
BODIES_KEPT = 3600
"""Seconds of heart rate and RR intervals kept for newcomers."""
PAGE = 65_536
"""Bytes of kept messages that are compressed together."""
LASTING_FIGURES = ("HR", "RMSSD")
"""What is kept of the heart beside the newest `Body`."""
BEATS_KEPT = 1000
NOTES_KEPT = 500
"""Notes kept for newcomers."""
PENDING = 2_000
"""Traces a dashboard may be behind before it loses them."""
ANSWER = 5.0
"""Seconds after which an engine that does not answer a newcomer is given up."""
LONGEST_SOCKET = 100
"""Bytes in a socket's path: the shortest limit of the systems is 104 with a closing zero."""
COMMANDS = get_args(Command)
_SESSION = re.compile(r"([1-9]\d{0,9})-\w{8}")
_DIALLING = (OSError, EOFError, ValueError, KeyError, TypeError, AssertionError, AuthenticationError)
"""What a torn card, a door nobody opens or a stranger behind it raise."""


class RemoteError(Exception):
    """The engine cannot be reached, or is gone. One line."""


def sessions_folder() -> Path:
    """Where new sessions of this user are put; readable by this user alone. Raises RemoteError."""
    trouble = ""
    for home in _homes():
        try:
            return _private(home)
        except RemoteError as error:
            trouble = trouble or str(error)
    raise RemoteError(trouble or "No temporary folder can be written. Set TMPDIR to a folder of yours.")


def _homes() -> list[Path]:
    """Where sessions of this user may be, best first: made or not, private or not."""
    name = f"insula-{os.getuid()}" if hasattr(os, "getuid") else f"insula-{os.environ.get('USERNAME', 'user')}"
    bases = [os.environ.get("XDG_RUNTIME_DIR", "")]
    with contextlib.suppress(OSError):
        bases.append(tempfile.gettempdir())
    return [Path(base) / name for base in dict.fromkeys(bases) if Path(base).is_absolute()]


def _private(home: Path) -> Path:
    """``home``, made when it is not there. Raises RemoteError when it cannot serve."""
    try:
        home.mkdir(mode=0o700, exist_ok=True)
        state = home.lstat()  # a link that somebody else has put there is not followed
    except OSError as error:
        raise RemoteError(f"{home}: cannot be made ({_reason(error)}). Set TMPDIR to a folder of yours.") from None
    if hasattr(os, "getuid") and (state.st_uid != os.getuid() or state.st_mode & 0o077):
        raise RemoteError(f"{home}: belongs to somebody else or is open to others. Remove it, then start again.")
    if not os.access(home, os.W_OK | os.X_OK):
        raise RemoteError(f"{home}: cannot be written. Set TMPDIR to a folder of yours.")
    longest = home / "1234567890-12345678" / "socket"
    if os.name != "nt" and len(os.fsencode(longest)) > LONGEST_SOCKET:
        raise RemoteError(f"{home}: is too long a path for a socket. Set TMPDIR to a shorter one, then start again.")
    return home


def _reason(error: BaseException) -> str:
    return (isinstance(error, OSError) and error.strerror) or str(error) or type(error).__name__


def running_sessions() -> list[str]:
    """Addresses of the sessions that answer, oldest first. Remains of killed ones are cleared away."""
    found = []
    for _, folder, pid in sorted(_candidates()):
        try:
            Client.attach(str(folder)).close()
        except RemoteError:
            if not _alive(pid):
                shutil.rmtree(folder, ignore_errors=True)
        else:
            found.append(str(folder))
    return found


def _candidates() -> Iterator[tuple[float, Path, int]]:
    """Time of making, folder and process of everything that is named like a session."""
    for home in _homes():
        try:
            folders = list(_private(home).iterdir()) if home.is_dir() else []
        except (OSError, RemoteError):  # nobody's sessions, or not this user's
            continue
        for folder in folders:
            named = _SESSION.fullmatch(folder.name)
            with contextlib.suppress(OSError):  # it has just ended
                if named and folder.is_dir():
                    yield folder.stat().st_mtime, folder, int(named[1])


def _alive(pid: int) -> bool:
    """Whether a process goes on. On Windows always yes: there, signal 0 would interrupt it as Ctrl+C does."""
    if os.name == "nt":
        return True
    try:
        os.kill(pid, 0)
    except OverflowError:
        return False
    except OSError as error:
        return isinstance(error, PermissionError)
    return True


def _dial(name: str, key: bytes) -> Connection:
    """The connection to a socket. Raises TimeoutError: a stopped engine lets everybody in and greets nobody."""
    answer: Future[Connection] = Future()

    def dial() -> None:
        connection, trouble = None, None
        try:
            connection = Dial(name, authkey=key)
        except _DIALLING as error:
            trouble = error
        if not answer.set_running_or_notify_cancel():  # nobody waits any more
            if connection:
                connection.close()
        elif connection:
            answer.set_result(connection)
        else:
            answer.set_exception(trouble)

    threading.Thread(target=dial, name="dial", daemon=True).start()
    try:
        return answer.result(ANSWER)
    except TimeoutError:
        if answer.cancel():
            raise
        return answer.result()


class _Packed:
    """The newest ``most`` messages, packed as they will be sent, and compressed a page at a time: of an estimate 32
    bytes are left of 400, and these are a sixth of what it takes as objects.

    They lie in pages: kept one by one among the large arrays that come and go, they would pin the memory between them.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self.clear()

    def clear(self) -> None:
        self._page = bytearray()
        """The newest messages, uncompressed."""
        self._ends = array("L", [0])
        self._full: deque[tuple[bytes, array[int]]] = deque()
        """Compressed pages, each with the ends of its messages."""
        self._count = 0

    def append(self, update: Update) -> None:
        self._page += pickle.dumps(update)
        self._ends.append(len(self._page))
        self._count += 1
        if len(self._page) >= PAGE:
            self._full.append((zlib.compress(self._page), self._ends))
            self._page, self._ends = bytearray(), array("L", [0])
        if self._full and self._count - (oldest := len(self._full[0][1]) - 1) >= self._most:
            self._full.popleft()
            self._count -= oldest

    def __iter__(self) -> Iterator[bytes]:
        newest = bytes(self._page), self._ends[:]
        pages = itertools.chain(((zlib.decompress(page), ends) for page, ends in tuple(self._full)), (newest,))
        messages = (page[begin:end] for page, ends in pages for begin, end in itertools.pairwise(ends))
        return itertools.islice(messages, max(0, self._count - self._most), None)


class _History:
    """What a newcomer is told: everything that is still true."""

    def __init__(self) -> None:
        self._hello: Hello | None = None
        self._health: Health | None = None
        self._ended: Ended | None = None
        self._traces: dict[str, deque[Traces]] = {}
        self._shown: dict[str, Shown] = {}
        self._kept = _Packed(KEPT)
        self._newest: Estimated | None = None
        self._notes: deque[Noted] = deque(maxlen=NOTES_KEPT)
        self._beats = _Packed(BEATS_KEPT)
        self._bodies = _Packed(BODIES_KEPT)
        self._body: Body | None = None

    def add(self, update: Update) -> None:
        match update:
            case Hello():
                self._hello = update
            case Health():
                self._health = update
            case Ended():
                self._ended = update
            case Traces():
                queue = self._traces.setdefault(update.stream, deque(maxlen=TRACES_KEPT))
                if queue and update.times[-1] < queue[-1].times[-1] - TRACE_SECONDS:
                    queue.clear()  # a clock was set back: by its stamps, what came before would never grow old
                queue.append(update)
                while queue[0].times[-1] < update.times[-1] - TRACE_SECONDS:
                    queue.popleft()
            case Shown():
                self._shown[update.stream] = update
                if update.anew:
                    self._traces.pop(update.stream, None)
            case Cleared():
                self._traces.clear()
                self._kept.clear()
                self._newest = None
                self._notes.clear()
                self._beats.clear()
                self._bodies.clear()
                self._body = None
            case Beats():
                self._beats.append(update)
            case Body():
                if self._body:
                    figures = {name: self._body.heart[name] for name in LASTING_FIGURES if name in self._body.heart}
                    self._bodies.append(replace(self._body, heart=figures, brains=()))
                # The last second of a session, cut short, says nothing of rhythms.
                before = self._body.brains if self._body else ()
                self._body = update if update.brains else replace(update, brains=before)
            case Noted():
                self._notes.append(update)
            case Marked():
                self._kept.append(update)
            case Estimated():
                if self._newest:
                    # Verdicts are most of an estimate's memory, and only the newest are ever shown.
                    self._kept.append(Estimated(self._newest.estimate, {}))
                self._newest = update

    def __iter__(self) -> Iterator[Update | bytes]:
        if self._hello:
            yield self._hello
        yield from self._shown.values()
        for queue in self._traces.values():
            yield from queue
        yield from self._kept
        if self._newest:
            yield self._newest
        yield from self._beats
        yield from self._bodies
        if self._body:
            yield self._body
        yield from self._notes
        if self._health:
            yield self._health
        if self._ended:
            yield self._ended


class _Peer:
    """One attached dashboard: a thread that sends, a thread that takes its commands.

    What happened before it came is sent first and whole. Of what happens since then, what the next picture
    replaces waits in a queue of its own, which is emptied when a dashboard is too slow; the rest waits as long as a
    newcomer would get it.
    """

    def __init__(self, connection: Connection, backlog: Iterator[Update | bytes], commands: deque[Command]) -> None:
        self._connection = connection
        self._backlog = deque(backlog)
        self._passing: deque[tuple[int, Traces | Beats | Body | Health]] = deque()
        self._lasting: deque[tuple[int, Update]] = deque(maxlen=KEPT)
        self._number = 0
        self._torn: set[str] = set()
        self._commands = commands
        self._wake = threading.Condition()
        self.gone = False
        self._threads = [
            threading.Thread(target=self._send, name="dashboard-send", daemon=True),
            threading.Thread(target=self._receive, name="dashboard-receive", daemon=True),
        ]
        for thread in self._threads:
            thread.start()

    def push(self, update: Update) -> None:
        with self._wake:
            self._number += 1
            if isinstance(update, Traces | Beats | Body | Health):
                if len(self._passing) >= PENDING:
                    # What gives way is what the next picture replaces. The gap in every stream is shown.
                    self._torn |= {waiting.stream for _, waiting in self._passing if isinstance(waiting, Traces)}
                    self._passing.clear()
                if isinstance(update, Traces) and update.stream in self._torn:
                    self._torn.discard(update.stream)
                    update = replace(update, gap=True)
                self._passing.append((self._number, update))
            else:
                self._lasting.append((self._number, update))
            self._wake.notify()

    def _next(self) -> Update | bytes | None:
        """What is to be sent now, in the order in which it was published."""
        if self._backlog:
            return self._backlog.popleft()
        if self._passing and not (self._lasting and self._lasting[0][0] < self._passing[0][0]):
            return self._passing.popleft()[1]
        return self._lasting.popleft()[1] if self._lasting else None

    def _send(self) -> None:
        try:
            while True:
                with self._wake:
                    self._wake.wait_for(lambda: self._backlog or self._passing or self._lasting or self.gone)
                    update = self._next()
                if update is None:
                    break
                if isinstance(update, bytes):
                    self._connection.send_bytes(update)
                else:
                    self._connection.send(update)
        except OSError:
            pass
        finally:
            self._leave()

    def _receive(self) -> None:
        try:
            while True:
                command = self._connection.recv()
                if isinstance(command, Mark):
                    command = replace(command, at=time.monotonic())
                if isinstance(command, COMMANDS):
                    self._commands.append(command)
        except Exception:  # noqa: BLE001  (it hung up, or is of another version and what it says cannot be read)
            self._leave()

    def _leave(self) -> None:
        with self._wake:
            self.gone = True
            self._wake.notify()

    def close(self, patience: float) -> None:
        """Send what is waiting, for at most ``patience`` seconds, then hang up."""
        self._leave()
        self._threads[0].join(patience)
        if os.name != "nt":
            # Closing alone would not end the receiving thread's read, and the other side would wait with it.
            with contextlib.suppress(OSError), socket.socket(fileno=os.dup(self._connection.fileno())) as line:
                line.shutdown(socket.SHUT_RDWR)
        self._threads[1].join(patience)
        self._connection.close()


class Server:
    """The engine's end. ``publish`` may be called from any thread and never waits; ``commands`` empties the inbox."""

    def __init__(self, title: str = "insula") -> None:
        self._lock = threading.Lock()
        self._history = _History()
        self._peers: list[_Peer] = []
        self._commands: deque[Command] = deque()
        self._over = threading.Event()
        self._accepting = threading.Thread(target=self._accept, name="dashboards", daemon=True)
        home = sessions_folder()
        try:
            self._open(home, title)
        except OSError as error:
            raise RemoteError(f"{home}: no session can be opened there ({_reason(error)}).") from None

    def _open(self, home: Path, title: str) -> None:
        """Open the door and write down where it is; leave nothing behind when that fails."""
        with contextlib.ExitStack() as undo:
            self._folder = Path(tempfile.mkdtemp(prefix=f"{os.getpid()}-", dir=home))
            undo.callback(shutil.rmtree, self._folder, ignore_errors=True)
            key = secrets.token_bytes(32)
            local = "AF_PIPE" if os.name == "nt" else "AF_UNIX"
            name = rf"\\.\pipe\{self._folder.name}" if os.name == "nt" else str(self._folder / "socket")
            self._listener = Listener(name, local, authkey=key)
            undo.callback(self._listener.close)
            card = self._folder / "engine.json"
            card.touch(mode=0o600)
            card.write_text(json.dumps({"title": title, "socket": name, "key": key.hex(), "pid": os.getpid()}))
            self._accepting.start()
            undo.pop_all()

    @property
    def address(self) -> str:
        """What a dashboard attaches to."""
        return str(self._folder)

    @property
    def attached(self) -> int:
        """How many dashboards look on."""
        with self._lock:
            return sum(not peer.gone for peer in self._peers)

    def _accept(self) -> None:
        while True:
            try:
                connection = self._listener.accept()
            except (OSError, EOFError, AuthenticationError):
                # A newcomer that hung up, or no file left to open: the next try is better made a little later.
                if self._over.wait(0.1):
                    return
                continue
            with self._lock:
                self._peers = [peer for peer in self._peers if not peer.gone]
                self._peers.append(_Peer(connection, iter(self._history), self._commands))
            if self._over.is_set():  # who came in the last moment is told how it ended, too
                return

    def _knock(self) -> None:
        with contextlib.suppress(RemoteError):
            Client.attach(self.address).close()

    def publish(self, update: Update) -> None:
        with self._lock:
            self._history.add(update)
            for peer in self._peers:
                if not peer.gone:
                    peer.push(update)

    def commands(self) -> list[Command]:
        """Everything the dashboards have asked for since the last call."""
        taken = []
        while self._commands:
            taken.append(self._commands.popleft())
        return taken

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self._over.set()
        # Wakes the accepting thread; in a thread of its own because a stuck newcomer may be in the door.
        threading.Thread(target=self._knock, name="knock", daemon=True).start()
        self._accepting.join(2.0)
        with contextlib.suppress(OSError):  # somebody has cleared the folder away
            self._listener.close()
        with self._lock:
            for peer in self._peers:
                peer.close(patience=1.0)
        shutil.rmtree(self._folder, ignore_errors=True)


class Client:
    """A dashboard's end. ``poll`` and ``send`` never wait for the engine."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    @classmethod
    def attach(cls, address: str) -> Self:
        """The session at ``address`` (a folder, see `Server.address`). Raises RemoteError."""
        try:
            card = json.loads((Path(address) / "engine.json").read_text())
            return cls(_dial(card["socket"], bytes.fromhex(card["key"])))
        except TimeoutError:
            raise RemoteError(
                f"{address}: the session there does not answer. If it was stopped with Ctrl+Z, go on with it: `fg`."
            ) from None
        except _DIALLING as error:
            reason = error.strerror if isinstance(error, OSError) and error.strerror else type(error).__name__
            raise RemoteError(
                f"{address}: no session answers there ({reason}). Start one with `insula live`, `insula replay` or "
                "`insula demo`."
            ) from None

    def poll(self) -> list[Update]:
        """What has arrived. Raises RemoteError when the engine is gone and everything it said has been given."""
        arrived: list[Update] = []
        try:
            while self._connection.poll(0):
                arrived.append(self._connection.recv())
        except (EOFError, OSError):
            if not arrived:
                raise RemoteError("The engine is gone: no new signals arrive. What was recorded is safe.") from None
        return arrived

    def send(self, command: Command) -> None:
        try:
            self._connection.send(command)
        except OSError:
            raise RemoteError("The engine is gone: it takes no commands any more.") from None

    def close(self) -> None:
        self._connection.close()

"""The wire between the engine and its dashboards: a local socket that anybody of the same user can attach to.

The engine must outlive every dashboard and a dashboard may come late, so nothing is inherited: a session writes its
socket's name and key into a folder that only its user can read, and whoever attaches is first told what happened so
far. The engine never waits for a dashboard: one that is slow misses traces, and sees a gap where it did.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import socket
import tempfile
import threading
from collections import deque
from collections.abc import Iterator
from dataclasses import replace
from multiprocessing import AuthenticationError
from multiprocessing.connection import Client as Dial
from multiprocessing.connection import Connection, Listener
from pathlib import Path
from typing import Self, get_args

from realtime.api import Cleared, Command, Ended, Estimated, Health, Hello, Marked, Traces, Update

TRACE_SECONDS = 60.0
"""How far back a newcomer sees traces."""
KEPT = 50_000
"""Estimates and markers kept for newcomers: more than 12 hours at one a second."""
PENDING = 2_000
"""Updates a dashboard may be behind before it loses traces."""
COMMANDS = get_args(Command)


class RemoteError(Exception):
    """The engine cannot be reached, or is gone. One line."""


def sessions_folder() -> Path:
    """Where running sessions of this user can be found; readable by this user alone."""
    base = os.environ.get("XDG_RUNTIME_DIR") or tempfile.gettempdir()
    name = f"insula-{os.getuid()}" if hasattr(os, "getuid") else f"insula-{os.environ.get('USERNAME', 'user')}"
    folder = Path(base) / name
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    state = folder.stat()
    if hasattr(os, "getuid") and (state.st_uid != os.getuid() or state.st_mode & 0o077):
        raise RemoteError(f"{folder}: belongs to somebody else or is open to others. Remove it, then start again.")
    return folder


def running_sessions() -> list[str]:
    """Addresses of the sessions that answer, oldest first. Remains of killed ones are cleared away."""
    found = []
    for folder in sorted(sessions_folder().iterdir(), key=lambda path: path.stat().st_mtime):
        try:
            Client.attach(str(folder)).close()
        except RemoteError:
            if not _alive(int(folder.name.partition("-")[0])):
                shutil.rmtree(folder, ignore_errors=True)
        else:
            found.append(str(folder))
    return found


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except OSError as error:
        return isinstance(error, PermissionError)
    return True


class _History:
    """What a newcomer is told: everything that is still true."""

    def __init__(self) -> None:
        self._hello: Hello | None = None
        self._health: Health | None = None
        self._ended: Ended | None = None
        self._traces: dict[str, deque[Traces]] = {}
        self._kept: deque[Marked | Estimated] = deque(maxlen=KEPT)

    def add(self, update: Update) -> None:
        match update:
            case Hello():
                self._hello = update
            case Health():
                self._health = update
            case Ended():
                self._ended = update
            case Traces():
                queue = self._traces.setdefault(update.stream, deque())
                queue.append(update)
                while queue[0].times[-1] < update.times[-1] - TRACE_SECONDS:
                    queue.popleft()
            case Cleared():
                self._traces.clear()
                self._kept.clear()
            case Marked() | Estimated():
                self._kept.append(update)

    def __iter__(self) -> Iterator[Update]:
        if self._hello:
            yield self._hello
        for queue in self._traces.values():
            yield from queue
        yield from self._kept
        if self._health:
            yield self._health
        if self._ended:
            yield self._ended


class _Peer:
    """One attached dashboard: a thread that sends, a thread that takes its commands."""

    def __init__(self, connection: Connection, backlog: list[Update], commands: deque[Command]) -> None:
        self._connection = connection
        self._pending: deque[Update] = deque(backlog)
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
            if len(self._pending) >= PENDING:
                # What gives way is what the next picture replaces: traces. Their gap is shown.
                self._torn |= {waiting.stream for waiting in self._pending if isinstance(waiting, Traces)}
                self._pending = deque(waiting for waiting in self._pending if not isinstance(waiting, Traces | Health))
            if isinstance(update, Traces) and update.stream in self._torn:
                self._torn.discard(update.stream)
                update = replace(update, gap=True)
            self._pending.append(update)
            self._wake.notify()

    def _send(self) -> None:
        try:
            while True:
                with self._wake:
                    self._wake.wait_for(lambda: self._pending or self.gone)
                    if not self._pending:
                        break
                    update = self._pending.popleft()
                self._connection.send(update)
        except OSError:
            pass
        finally:
            self._leave()

    def _receive(self) -> None:
        try:
            while True:
                command = self._connection.recv()
                if isinstance(command, COMMANDS):
                    self._commands.append(command)
        except (EOFError, OSError):
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
        self._folder = Path(tempfile.mkdtemp(prefix=f"{os.getpid()}-", dir=sessions_folder()))
        key = secrets.token_bytes(32)
        local = "AF_PIPE" if os.name == "nt" else "AF_UNIX"
        name = rf"\\.\pipe\{self._folder.name}" if os.name == "nt" else str(self._folder / "socket")
        self._listener = Listener(name, local, authkey=key)
        card = self._folder / "engine.json"
        card.touch(mode=0o600)
        card.write_text(json.dumps({"title": title, "socket": name, "key": key.hex(), "pid": os.getpid()}))
        self._closing = False
        self._accepting = threading.Thread(target=self._accept, name="dashboards", daemon=True)
        self._accepting.start()

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
                if self._closing:
                    return
                continue
            with self._lock:
                self._peers = [peer for peer in self._peers if not peer.gone]
                self._peers.append(_Peer(connection, list(self._history), self._commands))
            if self._closing:  # who came in the last moment is told how it ended, too
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
        self._closing = True
        # Wakes the accepting thread; in a thread of its own because a stuck newcomer may be in the door.
        threading.Thread(target=self._knock, name="knock", daemon=True).start()
        self._accepting.join(2.0)
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
            return cls(Dial(card["socket"], authkey=bytes.fromhex(card["key"])))
        except (OSError, EOFError, ValueError, KeyError, AuthenticationError) as error:
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

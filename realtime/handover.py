"""What stands between the threads of a session: the analysis' inbox, the model's slot, the recorder's backlog."""

from __future__ import annotations

import queue
import threading
from collections import deque
from dataclasses import dataclass, replace

from devices.api import Chunk, Events, Item
from models.api import Window
from realtime.record import Recordable

BEHIND = 30.0
"""Seconds of a stream that may wait for the analysis before the oldest chunk gives way."""
AHEAD = 2.0
"""Seconds of signal a replay may be ahead of the analysis."""
BACKLOG = 256 << 20
"""Bytes that may wait for a disk that does not answer."""
OVERHEAD = 500
"""Bytes that an entry costs beside its samples."""
PATIENCE = 0.05
"""Seconds after which a waiting thread looks again: no wait is without an end."""


class Inbox:
    """Items from the device threads to the analysis thread, in the order in which they came."""

    def __init__(self, rates: dict[str, float], waits: bool) -> None:
        self._rates = rates
        self._waits = waits
        self._items: deque[Item] = deque()
        self._seconds = dict.fromkeys(rates, 0.0)
        self._lock = threading.Lock()
        # One token for each item: waiting in C is what makes the hand-over quick.
        self._tokens: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._room = threading.Event()
        self.closed = False

    def put(self, item: Item) -> None:
        if isinstance(item, Chunk):
            key, seconds = item.stream, len(item.times) / self._rates[item.stream]
            while self._waits and self._seconds[key] >= AHEAD and not self.closed:
                self._room.clear()
                self._room.wait(PATIENCE)
            with self._lock:
                if not self._waits and self._seconds[key] > BEHIND:
                    item = self._drop_oldest(item)
                self._seconds[key] += seconds
                self._items.append(item)
        else:
            with self._lock:
                self._items.append(item)
        self._tokens.put(None)

    def _drop_oldest(self, newest: Chunk) -> Chunk:
        """Takes the oldest chunk of the stream out; the one after it, ``newest`` when there is none, says so."""
        mine = [i for i, item in enumerate(self._items) if isinstance(item, Chunk) and item.stream == newest.stream]
        oldest = self._items[mine[0]]
        assert isinstance(oldest, Chunk)
        missing = oldest.lost + len(oldest.times)
        if len(mine) > 1:
            heir = self._items[mine[1]]
            assert isinstance(heir, Chunk)
            self._items[mine[1]] = replace(heir, lost=heir.lost + missing)
        else:
            newest = replace(newest, lost=newest.lost + missing)
        del self._items[mine[0]]
        self._seconds[newest.stream] -= len(oldest.times) / self._rates[newest.stream]
        return newest

    def get(self, timeout: float) -> Item | None:
        """The next item; None when there is none within ``timeout`` seconds, or after `close`."""
        try:
            self._tokens.get(timeout=timeout)
        except queue.Empty:
            return None
        with self._lock:
            if not self._items:  # what the token stood for has been dropped, or it is the one of close
                return None
            item = self._items.popleft()
            if isinstance(item, Chunk):
                self._seconds[item.stream] -= len(item.times) / self._rates[item.stream]
        self._room.set()
        return item

    @property
    def empty(self) -> bool:
        return not self._items

    def close(self) -> None:
        """Nothing more is put; what is there can still be taken."""
        self.closed = True
        self._room.set()
        self._tokens.put(None)


@dataclass(frozen=True, slots=True)
class Cut:
    """A window on its way to the model, with what its latency is measured from."""

    window: Window
    newest: float
    """Session clock: the newest sample when it was cut."""
    at: float
    """Session clock: when it was cut."""


class Slot:
    """One window between analysis and model. ``None`` in it means: a new session begins, forget."""

    def __init__(self, waits: bool) -> None:
        self._waits = waits
        self._held: deque[Cut | None] = deque()
        self._changed = threading.Condition()
        self._busy = False
        self._closed = False

    def offer(self, cut: Cut | None) -> Cut | None:
        """Put a window in; what it replaced, when it replaced one."""
        with self._changed:
            replaced = None
            if self._waits:
                while not self._changed.wait_for(lambda: not self._held or self._closed, PATIENCE):
                    pass
            elif self._held and self._held[-1] is not None:
                replaced = self._held.pop()
            self._held.append(cut)
            self._changed.notify_all()
            return replaced

    def settle(self) -> None:
        """Wait until what was put in has been dealt with."""
        with self._changed:
            while not self._changed.wait_for(lambda: self._closed or not (self._held or self._busy), PATIENCE):
                pass

    def take(self) -> tuple[bool, Cut | None]:
        """Whether there was anything before the end, and what. Waits. Taking says that the last one is dealt with."""
        with self._changed:
            self._busy = False
            self._changed.notify_all()
            while not self._changed.wait_for(lambda: self._held or self._closed, PATIENCE):
                pass
            if not self._held:
                return False, None
            self._busy = True
            cut = self._held.popleft()
            self._changed.notify_all()
            return True, cut

    def close(self) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify_all()


class Backlog:
    """Entries on their way to the recorder thread, at most ``limit`` bytes of them.

    Of a live session the chunks and markers that no longer fit are counted in ``refused``, and the next chunk of the
    same stream says in ``lost`` how many samples that were; a replay waits. Everything else is little, and goes in.
    """

    def __init__(self, waits: bool, limit: int = BACKLOG) -> None:
        self._waits = waits
        self._limit = limit
        self._entries: queue.SimpleQueue[Recordable | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._room = threading.Event()
        self._bytes = 0
        self._owed: dict[str, int] = {}
        self._closed = False
        self.refused = 0

    def __len__(self) -> int:
        return self._entries.qsize()

    def put(self, entry: Recordable) -> None:
        size = _size(entry)
        gives_way = isinstance(entry, Chunk | Events)
        while gives_way and self._waits and self._bytes + size > self._limit and self._bytes and not self._closed:
            self._room.clear()
            self._room.wait(PATIENCE)
        with self._lock:
            if gives_way and not self._waits and self._bytes + size > self._limit:
                self.refused += 1
                if isinstance(entry, Chunk):
                    self._owed[entry.stream] = self._owed.get(entry.stream, 0) + entry.lost + len(entry.times)
                return
            if isinstance(entry, Chunk) and (owed := self._owed.pop(entry.stream, 0)):
                entry = replace(entry, lost=entry.lost + owed)
            self._bytes += size
            self._entries.put(entry)

    def get(self) -> Recordable | None:
        """The next entry, waiting for it; None after `close` when there is none left."""
        entry = self._entries.get()
        if entry is not None:
            with self._lock:
                self._bytes -= _size(entry)
            self._room.set()
        return entry

    def release(self) -> None:
        """From here on nobody waits: a thread of the session is gone."""
        self._closed = True
        self._room.set()

    def close(self) -> None:
        """Nothing more is put; what is there can still be taken."""
        self.release()
        self._entries.put(None)


def _size(entry: Recordable) -> int:
    match entry:
        case Chunk():
            return OVERHEAD + entry.times.nbytes + entry.data.nbytes
        case Events():
            return OVERHEAD + entry.times.nbytes + 4 * sum(len(label) for label in entry.labels)
        case _:
            return OVERHEAD

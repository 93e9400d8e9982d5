"""What stands between the threads of a session: the analysis' inbox, the model's slot, the recorder's backlog."""

from __future__ import annotations

import queue
import threading
from collections import deque
from dataclasses import dataclass, replace

from devices.api import Chunk, Events, Item
from models.api import Window
from realtime.record import Recordable

AHEAD = 2.0
"""Seconds of signal a replay may be ahead of the analysis."""
BACKLOG = 256 << 20
"""Bytes that may wait for an analysis that was held up, and for a disk that does not answer."""
OVERHEAD = 500
"""Bytes that an entry costs beside its samples."""
PATIENCE = 0.05
"""Seconds after which a waiting thread looks again: no wait is without an end."""


class Inbox:
    """Items from the device threads to the analysis thread, in the order in which they came.

    Live, at most ``limit`` bytes of them: then the oldest chunk gives way, counted in ``given_up`` and in the ``lost``
    of the next chunk of its stream. That is more than LSL keeps of 64 channels at 1 kHz: a program that was suspended
    loses nothing here that its sources still had.
    """

    def __init__(self, rates: dict[str, float], waits: bool, limit: int = BACKLOG) -> None:
        self._rates = rates
        self._waits = waits
        self._limit = limit
        self._items: deque[Item] = deque()
        self._seconds = dict.fromkeys(rates, 0.0)
        self._bytes = 0
        self._owed: dict[str, int] = {}
        self.given_up = 0
        """Samples."""
        self._lock = threading.Lock()
        # One token for each item: waiting in C is what makes the hand-over quick.
        self._tokens: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._room = threading.Event()
        self.closed = False

    def put(self, item: Item) -> None:
        if self._waits and isinstance(item, Chunk):
            while self._seconds.get(item.stream, 0.0) >= AHEAD and not self.closed:
                self._room.clear()
                self._room.wait(PATIENCE)
        with self._lock:
            self._items.append(item)
            self._count(item, 1)
            while not self._waits and self._bytes > self._limit and self._give_up_oldest(item):
                pass
            if isinstance(item, Chunk) and (owed := self._owed.pop(item.stream, 0)):
                self._items[-1] = replace(item, lost=item.lost + owed)
        self._tokens.put(None)

    def _count(self, item: Item, sign: int) -> None:
        self._bytes += sign * _size(item)
        if isinstance(item, Chunk) and item.stream in self._seconds:
            self._seconds[item.stream] += sign * len(item.times) / self._rates[item.stream]

    def _give_up_oldest(self, newest: Item) -> bool:
        """Takes the oldest chunk but ``newest`` out, for the next one of its stream to tell; False if there is none."""
        place = next((i for i, item in enumerate(self._items) if isinstance(item, Chunk)), None)
        if place is None or self._items[place] is newest:
            return False
        oldest = self._items[place]
        assert isinstance(oldest, Chunk)
        del self._items[place]
        self._count(oldest, -1)
        self.given_up += len(oldest.times)
        missing = oldest.lost + len(oldest.times)
        for i in range(place, len(self._items)):
            heir = self._items[i]
            if isinstance(heir, Chunk) and heir.stream == oldest.stream and heir is not newest:
                self._items[i] = replace(heir, lost=heir.lost + missing)
                return True
        self._owed[oldest.stream] = self._owed.get(oldest.stream, 0) + missing
        return True

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
            self._count(item, -1)
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


def _size(entry: Item | Recordable) -> int:
    match entry:
        case Chunk():
            return OVERHEAD + entry.times.nbytes + entry.data.nbytes
        case Events():
            return OVERHEAD + entry.times.nbytes + 4 * sum(len(label) for label in entry.labels)
        case _:
            return OVERHEAD

"""A ring of samples whose newest stretch is always one piece of memory, written at a cost independent of its length."""

from __future__ import annotations

from typing import Generic, TypeVar

import numba
import numpy as np
from numpy.typing import NDArray

T = TypeVar("T", bound=np.generic)


@numba.njit(cache=True)
def _write(store, written, rows):  # type: ignore[no-untyped-def]
    capacity = store.shape[0] // 2
    for i in range(max(0, rows.shape[0] - capacity), rows.shape[0]):
        at = (written + i) % capacity
        for c in range(rows.shape[1]):
            store[at, c] = rows[i, c]
            store[at + capacity, c] = rows[i, c]


class Ring(Generic[T]):
    """The newest ``capacity`` rows of a table (n, width) that only grows; rows are counted from 0 for ever.

    Every row is stored twice, ``capacity`` apart, so that any stretch of the newest rows is one contiguous view.
    Belongs to one thread.
    """

    def __init__(self, capacity: int, width: int, dtype: type[T]) -> None:
        if capacity < 1:
            raise ValueError(f"a ring needs room for at least one row, not {capacity}")
        self._store: NDArray[T] = np.zeros((2 * capacity, width), dtype)
        self._capacity = capacity
        self._written = 0
        # Compiles, or loads what an earlier run compiled: the first live write must not wait for that.
        _write(self._store, 0, self._store[:0])

    @property
    def capacity(self) -> int:
        return self._capacity

    @property
    def written(self) -> int:
        """Rows ever written: the number of the next row."""
        return self._written

    @property
    def oldest(self) -> int:
        """The number of the oldest row still there."""
        return max(0, self._written - self._capacity)

    def write(self, rows: NDArray[T]) -> None:
        """Append rows (n, width) of the ring's dtype, C-contiguous; more than fit leave the newest."""
        if rows.shape[1] != self._store.shape[1] or rows.dtype != self._store.dtype:
            raise ValueError(
                f"rows are {rows.shape} {rows.dtype}, the ring is {self._store.shape[1]} wide and {self._store.dtype}"
            )
        _write(self._store, self._written, rows)
        self._written += rows.shape[0]

    def view(self, first: int, last: int) -> NDArray[T]:
        """Rows ``first`` to ``last`` (exclusive), not copied: valid until rows are written over them.

        IndexError when one of them is no longer there or not yet written.
        """
        if not self.oldest <= first <= last <= self._written:
            raise IndexError(f"rows {first} to {last} asked for, {self.oldest} to {self._written} are there")
        at = first % self._capacity
        return self._store[at : at + last - first]

    def grow(self, capacity: int) -> None:
        """Make room for ``capacity`` rows and keep what is there. Costs a copy; never shrinks."""
        if capacity <= self._capacity:
            return
        kept = self.view(self.oldest, self._written)
        first = self.oldest
        store: NDArray[T] = np.zeros((2 * capacity, self._store.shape[1]), self._store.dtype)
        _write(store, first, kept)
        self._store, self._capacity = store, capacity

    def clear(self) -> None:
        """As new; the memory is kept."""
        self._written = 0

"""A made-up signal is made second by second and read however one likes. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

SECONDS_KEPT = 4


class Blocks:
    """The signal whose seconds (rate, channels) ``make`` yields one after the other, without end.

    Always whole seconds are computed, in order: the last bit of a sum or of ``exp`` may depend on where an array ends.
    A second from further back than SECONDS_KEPT makes it begin anew. Belongs to one thread.
    """

    def __init__(self, rate: int, make: Callable[[], Iterator[NDArray[np.float32]]]) -> None:
        self._rate = rate
        self._make = make
        self._source = make()
        self._made = 0
        self._kept: dict[int, NDArray[np.float32]] = {}

    def samples(self, first: int, last: int) -> NDArray[np.float32]:
        """A copy of samples ``first`` to ``last`` (n, channels), n at least 1."""
        begin, end = first // self._rate, (last - 1) // self._rate + 1
        if begin < self._made and begin not in self._kept:
            self._source, self._made, self._kept = self._make(), 0, {}
        while self._made < end:
            self._kept[self._made] = next(self._source)
            self._made += 1
            if (old := self._made - 1 - SECONDS_KEPT) < begin:
                self._kept.pop(old, None)
        whole = np.concatenate([self._kept[index] for index in range(begin, end)])
        for old in [index for index in self._kept if index < self._made - SECONDS_KEPT]:
            del self._kept[old]
        return whole[first - begin * self._rate : last - begin * self._rate].copy()

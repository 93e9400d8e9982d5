"""The ring against a plain list of rows."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from realtime.ring import Ring


@settings(deadline=None)
@given(
    capacity=st.integers(1, 40),
    width=st.integers(1, 3),
    chunks=st.lists(st.integers(0, 60), max_size=20),
    growth=st.none() | st.tuples(st.integers(0, 19), st.integers(1, 90)),
)
def test_the_newest_rows_are_one_contiguous_view_of_what_was_written(capacity, width, chunks, growth):
    ring = Ring(capacity, width, np.float32)
    rows = np.random.default_rng(0).standard_normal((sum(chunks), width)).astype(np.float32)
    at, oldest = 0, 0
    for number, size in enumerate(chunks):
        if growth and number == growth[0]:
            ring.grow(growth[1])
        ring.write(rows[at : at + size])
        at += size
        oldest = max(oldest, at - ring.capacity)
        for first in {oldest, (oldest + at) // 2, at}:
            view = ring.view(first, at)
            assert view.flags.c_contiguous
            np.testing.assert_array_equal(view, rows[first:at])
    assert ring.written == at


def test_rows_that_are_gone_or_not_yet_there_are_refused():
    ring = Ring(4, 1, np.int64)
    ring.write(np.arange(6).reshape(6, 1))
    assert ring.view(2, 6)[:, 0].tolist() == [2, 3, 4, 5]
    with pytest.raises(IndexError, match="2 to 6 are there"):
        ring.view(1, 3)
    with pytest.raises(IndexError, match="2 to 6 are there"):
        ring.view(5, 7)


def test_rows_of_another_type_or_width_are_refused():
    ring = Ring(4, 2, np.float32)
    with pytest.raises(ValueError, match="float64"):
        ring.write(np.zeros((1, 2)))
    with pytest.raises(ValueError, match="2 wide"):
        ring.write(np.zeros((1, 3), np.float32))


def test_a_cleared_ring_counts_from_zero():
    ring = Ring(4, 1, np.float32)
    ring.write(np.ones((9, 1), np.float32))
    ring.clear()
    assert (ring.oldest, ring.written) == (0, 0)
    ring.write(np.full((1, 1), 7, np.float32))
    assert ring.view(0, 1)[0, 0] == 7

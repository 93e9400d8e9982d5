"""Half an hour of a strap in virtual time: real notifications in, chunks on the session clock out."""

from __future__ import annotations

import time

import numpy as np
import pytest

from devices.api import Chunk, Clock, Notice
from devices.polar_frames import Frames

DRAWN = time.time_ns() % 1_000_000
"""A seed that no run before had; the test says which."""


@pytest.fixture
def notify(in_virtual_time):
    """Packet ``number`` of a strap at 130 Hz exactly: its bytes."""

    def notification(number: int) -> bytes:
        end = 73 * (number + 1)
        stamp = in_virtual_time.Y2026 + end * 1_000_000_000 // 130
        return in_virtual_time.notification(stamp, np.arange(end - 73, end))

    return notification


@pytest.mark.parametrize("seed", [0, 1, 2, DRAWN], ids=["0", "1", "2", "drawn"])
def test_half_an_hour_of_notifications_late_lost_and_out_of_order_is_stamped_within_2_ms_and_counted(
    in_virtual_time, seed
):
    row = in_virtual_time.strap(seed)
    print(row)
    assert row["never_sent"] > 2000
    assert row["swapped"] > 2000
    assert row["counted_lost"] == row["never_sent"]
    assert row["given"] + row["counted_lost"] == row["sent"]
    assert row["in_order_once"]
    assert row["sd_ms"] < 2.0
    assert abs(row["trend_ms"]) < 2.0
    assert in_virtual_time.strap_faults(row) == []


def test_over_many_straps_the_time_error_has_no_trend(in_virtual_time):
    trends = [in_virtual_time.strap(seed, 900.0)["trend_ppm"] for seed in range(8)]
    print(trends)
    assert abs(np.mean(trends)) < 4 * np.std(trends, ddof=1) / np.sqrt(len(trends))


def test_a_packet_before_which_one_is_missing_waits_until_it_is_asked_for(notify):
    frames = Frames("strap")
    assert len(frames.take(notify(0), 1000.0)) == 2  # its chunk and the clock
    (heard,) = frames.take(notify(2), 1001.1)
    assert isinstance(heard, Chunk)
    assert heard.data.shape == (0, 1)  # the strap is there, its samples are still to come
    assert frames.holds
    said, chunk = frames.flush()
    assert isinstance(said, Notice)
    assert said.text.startswith("73 samples of ECG lost")
    assert isinstance(chunk, Chunk)
    assert chunk.lost == 73
    assert not frames.holds
    assert frames.flush() == []


def test_a_delay_that_is_known_is_subtracted_from_stamps_and_offset(notify):
    plain, shifted = Frames("strap"), Frames("strap", 0.05, 0.01)
    (chunk, clock), (earlier, known) = (one.take(notify(0), 1000.0) for one in (plain, shifted))
    assert isinstance(clock, Clock)
    np.testing.assert_allclose(chunk.times - earlier.times, 0.05)
    assert clock.offset - known.offset == pytest.approx(0.05)
    assert known.uncertainty >= 0.01

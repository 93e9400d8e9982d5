"""Eight hours in virtual time, through the parts that place and admit samples: every one is given or counted."""

from __future__ import annotations

import importlib.util
import pickle
from pathlib import Path

import numpy as np

from devices.api import Chunk
from devices.polar_frames import Frames
from devices.stamps import Stamps
from realtime.intake import Intake

_spec = importlib.util.spec_from_file_location("strap", Path(__file__).resolve().parents[1] / "peers" / "strap.py")
peer = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(peer)

HOURS = 8
HOUR = 3600
RATE = 50.0  # reduced: a packet a second of 50 samples
PPM = 50e-6
STRAP = 345e-6
AHEAD = 3.0
UNIX = 1.7e9
Y2026 = 835 * 10**15  # ns since 2000-01-01


class Sizes:
    """What is remembered, in bytes, at the end of each hour."""

    def __init__(self):
        self.seen = []

    def note(self, *parts):
        self.seen.append(len(pickle.dumps(parts)))

    def check(self):
        assert len(self.seen) == HOURS
        assert max(self.seen) < 1.2 * self.seen[0] + 10_000, self.seen


def fate(second):
    """Each hour: 30 s that never come, 30 s that come in a burst, lost packets of 1 and 5 s, packets sent twice."""
    within = second % HOUR
    if 600 <= within < 630 or 1200 <= within < 1205 or within == 1500:
        return "lost"
    if 1800 <= within < 1830:
        return "held"
    return "twice" if within == 2400 else "sent"


def test_eight_hours_of_an_lsl_source_with_drop_outs_bursts_and_a_drifting_clock_leave_no_sample_unaccounted():
    """Of another host: its clock 3 s ahead, 50 ppm fast, and set 20 s forward in the fifth hour."""
    random = np.random.default_rng(3)
    stamps, intake, sizes = Stamps(RATE, 0.0, -AHEAD, 1e-4), Intake(RATE, 4096), Sizes()
    last, worst, newest, given, lost, twice = -1, 0.0, -np.inf, 0, 0, 0
    waiting = []
    for second in range(HOURS * HOUR):
        begins = np.arange(second * 50, second * 50 + 50)
        was_set = 20.0 if second >= 4.5 * HOUR else 0.0
        truth = begins / RATE
        stamp = truth * (1 + PPM) + AHEAD + was_set
        now = second + 1.0 + 0.002 + random.exponential(0.003)
        match fate(second):
            case "lost":
                lost += 50
                continue
            case "held":
                waiting.append((begins, stamp))
                continue
            case "twice":
                waiting.append((begins, stamp))
                twice += 50
        waiting.append((begins, stamp))
        if second % 5 == 0 or stamps.asks:
            stamps.measure(now, now - (now * (1 + PPM) + AHEAD + was_set) + random.normal(0, 1e-4), 1e-4)
        numbers, sent = (np.concatenate(parts) for parts in zip(*waiting, strict=True))
        waiting.clear()
        placed = stamps.take(numbers[:, None], sent, now, UNIX + now)
        if stamps.asks:  # the clock is measured at once, as the device does
            stamps.measure(now + 0.5, -(now * PPM + AHEAD + was_set) + random.normal(0, 1e-4), 1e-4)
            more = stamps.take(np.zeros((0, 1), np.int64), np.zeros(0), now + 0.6, UNIX + now + 0.6)
            placed = type(placed)(
                np.concatenate((placed.times, more.times)), np.concatenate((placed.samples, more.samples))
            )
        got = placed.samples[:, 0]
        assert placed.lost == 0
        assert np.all(np.diff(got, prepend=last) > 0)
        assert np.all(np.diff(placed.times, prepend=newest) > 0)
        if len(got):
            last, newest = int(got[-1]), float(placed.times[-1])
            worst = max(worst, float(np.abs(placed.times - got / RATE).max()))
            given += len(got)
            for begin in range(0, len(got), 4096):
                part = placed.times[begin : begin + 4096]
                intake.admit(part, np.zeros((len(part), 1), np.float32), 0)
        if (second + 1) % HOUR == 0:
            sizes.note(stamps, intake)
    assert not stamps.waiting
    assert given + lost == HOURS * HOUR * 50
    assert lost == HOURS * 36 * 50
    assert (stamps.twice, stamps.late, stamps.wild) == (twice, 0, 0)
    assert worst < 0.005
    counters = intake.counters(0)
    print(counters)
    assert (counters.samples, counters.refused, counters.gaps) == (given, 0, 3 * HOURS)  # also of each leap over 5 s
    sizes.check()


def test_eight_hours_of_a_strap_that_loses_packets_and_drops_out_leave_no_sample_unaccounted():
    random = np.random.default_rng(4)
    frames, intake, sizes = Frames("strap"), Intake(130.0, 4096), Sizes()
    packets = HOURS * HOUR * 130 // 73
    last, newest, given, counted, lost, worst, hour = -1, -np.inf, 0, 0, 0, 0.0, 1
    for packet in range(packets):
        now = (packet + 1) * 73 / (130.0 * (1 + STRAP)) + random.exponential(0.02)
        away = 600 <= now % HOUR < 630
        if packet and packet < packets - 2 and (away or random.random() < 0.02):
            lost += 73
            continue
        numbers = np.arange(packet * 73, packet * 73 + 73) % 2**23  # 24 bits with a sign hold no more
        for item in frames.take(peer.frame(Y2026 + packet * 73 * 10**9 // 130, numbers), now):
            if not isinstance(item, Chunk) or not len(item.times):
                continue
            got = item.data[:, 0].astype(int)
            assert np.all(np.diff(got, prepend=last) > 0)
            assert np.all(np.diff(item.times, prepend=newest) > 0)
            last, newest = int(got[-1]), float(item.times[-1])
            given, counted = given + len(got), counted + item.lost
            intake.admit(item.times, np.zeros((len(item.times), 1), np.float32), item.lost)
            if now > 60:
                error = item.times - (got + 1) / (130.0 * (1 + STRAP))
                worst = max(worst, float(np.abs(error).max()))
        if now >= hour * HOUR:
            sizes.note(frames, intake)
            hour += 1
    sizes.note(frames, intake)
    assert given + counted == packets * 73
    assert counted == lost > 0.02 * packets * 73
    assert worst < 0.05
    assert intake.counters(0).refused == 0  # also of each leap over a drop-out
    sizes.check()

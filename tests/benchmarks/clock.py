"""How well stamps lie on the session clock, in virtual time: ``python tests/benchmarks/clock.py [--json OUT]``.

1. A strap for half an hour, its clock 345 ppm fast (130.045 Hz), its notifications late by 30 ms and an exponential
   20 ms, 2 % of them lost, 2 % of them after their successor. They are real bytes and go through the product's own way
   from a notification to a chunk (`devices.polar_frames.Frames`). After the first minute: standard deviation of the
   time error of every sample, its largest distance from its mean, its trend over the rest; samples never sent beside
   those counted as lost. The mean itself is the delay of the fastest packets and a part of the jitter, which no
   receiver can know.
2. Two hosts whose clocks are 3 s and 50 ppm apart, for an hour, the offset measured every 2 s as liblsl does
   (`devices.stamps.Stamps`): the worst error of any sample after 5 s.

The exit status is 1 when a standard deviation reaches 2 ms, a trend 2 ms over the half hour, the mean of all trends
three standard errors, when a lost sample is not counted or one too many, or when two hosts are 1 ms apart.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import time
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from devices.api import Chunk, Clock  # noqa: E402
from devices.polar_frames import SAMPLES, Frames  # noqa: E402
from devices.stamps import Stamps  # noqa: E402

FAST = 345e-6
TRUE_RATE = 130 * (1 + FAST)
DELAY, JITTER = 0.03, 0.02
LOST, SWAPPED = 0.02, 0.02
HELD_UP = 0.6
"""Seconds that a notification is late when it comes after its successor."""
HOLD = 1.2
"""Seconds that a strap's packet waits for one before it, as `devices.polar.Radio` has it."""
SETTLING = 60.0
Y2026 = 835 * 10**15
"""ns since 2000-01-01."""


def notification(stamp, numbers):
    """229 bytes: the stamp of the newest sample (ns) and the numbers as 24 bit samples."""
    body = numbers.astype("<i4").view(np.uint8).reshape(-1, 4)[:, :3].tobytes()
    return b"\0" + int(stamp).to_bytes(8, "little") + b"\0" + body


def strap(seed, seconds=1800.0):
    """Sample n of a strap holds n; the figures of what the product makes of its notifications."""
    random = np.random.default_rng(seed)
    start = random.uniform(100.0, 1e5)
    count = int(seconds * TRUE_RATE / SAMPLES)
    ends = np.arange(1, count + 1) * SAMPLES
    arrival = start + ends / TRUE_RATE + DELAY + random.exponential(JITTER, count)
    fate = random.random(count)
    fate[[0, -1]] = 1.0  # of what is lost before the first and after the last nobody can know
    lost, swapped = fate < LOST, (fate >= LOST) & (fate < LOST + SWAPPED)
    arrival[swapped] += HELD_UP
    frames, items, due = Frames("strap"), [], np.inf
    order = np.argsort(arrival)
    for packet in order[~lost[order]].tolist():
        now = float(arrival[packet])
        if now >= due:
            items += frames.flush()
        stamp = Y2026 + round(int(ends[packet]) / 130 * 1e9)
        items += frames.take(notification(stamp, np.arange(ends[packet] - SAMPLES, ends[packet])), now)
        due = now + HOLD if frames.holds else np.inf
    items += frames.flush()
    chunks = [item for item in items if isinstance(item, Chunk)]
    numbers = np.concatenate([chunk.data[:, 0] for chunk in chunks]).astype(np.int64)
    times = np.concatenate([chunk.times for chunk in chunks])
    error = times - (start + (numbers + 1) / TRUE_RATE)
    settled = times > times[0] + SETTLING
    into, error = times[settled] - times[0], error[settled]
    slope = float(np.polyfit(into - into.mean(), error, 1)[0])
    return {
        "seed": seed,
        "sd_ms": 1e3 * float(error.std()),
        "furthest_ms": 1e3 * float(np.abs(error - error.mean()).max()),
        "mean_ms": 1e3 * float(error.mean()),
        "trend_ms": 1e3 * slope * float(into[-1] - into[0]),
        "trend_ppm": 1e6 * slope,
        "swapped": int(swapped.sum()) * SAMPLES,
        "sent": count * SAMPLES,
        "given": len(numbers),
        "never_sent": int(lost.sum()) * SAMPLES,
        "counted_lost": sum(chunk.lost for chunk in chunks),
        "in_order_once": bool(np.all(np.diff(numbers) > 0) and np.all(np.diff(times) > 0)),
        "said_sd_ms": 1e3 * [item for item in items if isinstance(item, Clock)][-1].uncertainty,
    }


def two_hosts(seed, seconds=3600.0):
    """A clock 3 s ahead and 50 ppm fast, measured every 2 s to tens of microseconds; the figures.

    One measurement in ten is missed, a few are of a busy network, and for half a minute there is none.
    """
    random = np.random.default_rng(seed)

    def remote(moment):
        return 3.0 + moment * (1 + 50e-6)

    stamps = Stamps(250.0, 0.0, 0.0 - remote(0.0), 20e-6)
    worst = residual = 0.0
    step, last, next_measure = np.inf, -np.inf, 2.0
    for chunk in range(round(seconds * 10)):  # 25 samples, ten times a second
        true = chunk * 0.1 + np.arange(25) / 250.0
        now = true[-1] + 0.005
        if now >= next_measure:
            next_measure += 2.0
            if random.random() > 0.1 and not 1800 < now < 1830:
                busy = random.random() < 0.02
                error = random.normal(0.0, 5e-3 if busy else 40e-6)
                stamps.measure(now, now - remote(now) + error, 5e-3 if busy else 40e-6)
                residual = max(residual, abs(stamps.clock(now, 0.0)[2])) if not busy else residual
        times = stamps.take(np.zeros((25, 1), np.float32), remote(true), now, 0.0).times
        step, last = min(step, float(times[0] - last)), float(times[-1])
        worst = max(worst, float(np.max(np.abs(times - true)))) if now > 5 else worst
    return {
        "seed": seed,
        "worst_us": 1e6 * worst,
        "residual_us": 1e6 * residual,
        "smallest_step_us": 1e6 * step,
        "notices": list(stamps.notices),
    }


def strap_faults(row):
    """What must not be, in words."""
    faults = []
    if row["sd_ms"] >= 2.0:
        faults.append(f"seed {row['seed']}: the time error has a standard deviation of {row['sd_ms']:.2f} ms")
    if abs(row["trend_ms"]) >= 2.0:
        faults.append(f"seed {row['seed']}: the time error has a trend of {row['trend_ms']:+.2f} ms")
    if row["counted_lost"] != row["never_sent"] or row["given"] + row["never_sent"] != row["sent"]:
        faults.append(f"seed {row['seed']}: {row['never_sent']} never sent, {row['counted_lost']} counted as lost")
    if not row["in_order_once"]:
        faults.append(f"seed {row['seed']}: a sample twice or out of order")
    return faults


def host_faults(row):
    """What must not be, in words."""
    faults = [f"seed {row['seed']}: {text}" for text in row["notices"]]
    if row["worst_us"] >= 1e3:
        faults.append(f"seed {row['seed']}: two hosts are {row['worst_us']:.0f} us apart")
    if row["smallest_step_us"] <= 0:
        faults.append(f"seed {row['seed']}: time goes back")
    return faults


def show(rows, columns):
    """A table, a row for each seed."""
    print("  ".join(f"{column:>13}" for column in columns))
    for row in rows:
        cells = [row[column] for column in columns]
        print("  ".join(f"{cell:13.2f}" if isinstance(cell, float) else f"{cell!s:>13}" for cell in cells))
    print(flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--minutes", type=float, default=30.0, help="of the strap")
    parser.add_argument("--json", type=Path, help="write the figures there, too")
    wanted = parser.parse_args()
    began = time.monotonic()
    straps = [strap(seed, 60 * wanted.minutes) for seed in range(wanted.seeds)]
    hosts = [two_hosts(seed) for seed in range(wanted.seeds)]
    trends = np.array([row["trend_ppm"] for row in straps])
    error = float(trends.std(ddof=1) / np.sqrt(len(trends))) if len(trends) > 1 else float("nan")
    faults = [text for row in straps for text in strap_faults(row)]
    faults += [text for row in hosts for text in host_faults(row)]
    if abs(trends.mean()) > 3 * error:
        faults.append(f"the trends of all seeds have a mean of {trends.mean():+.4f} ppm")
    print(f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, NumPy {np.__version__}")
    print(f"a strap {FAST * 1e6:g} ppm fast, {wanted.minutes:g} min, after the first {SETTLING:g} s")
    columns = ("seed", "sd_ms", "furthest_ms", "mean_ms", "trend_ms", "trend_ppm", "said_sd_ms", "sent", "swapped")
    show(straps, (*columns, "never_sent", "counted_lost"))
    print("two hosts 3 s and 50 ppm apart, an hour")
    show(hosts, ("seed", "worst_us", "residual_us"))
    summary = {
        "sd_ms": [min(row["sd_ms"] for row in straps), max(row["sd_ms"] for row in straps)],
        "furthest_ms": max(row["furthest_ms"] for row in straps),
        "largest_trend_ms": max(abs(row["trend_ms"]) for row in straps),
        "mean_trend_ppm": [float(trends.mean()), error],
        "never_sent": sum(row["never_sent"] for row in straps),
        "counted_lost": sum(row["counted_lost"] for row in straps),
        "two_hosts_worst_us": max(row["worst_us"] for row in hosts),
        "seconds": time.monotonic() - began,
        "faults": faults,
    }
    for key, value in summary.items():
        print(f"{key:>20}  {value}")
    if wanted.json:
        wanted.json.write_text(json.dumps(summary | {"straps": straps, "hosts": hosts}, indent=1), encoding="utf-8")
    sys.exit(1 if faults else 0)


if __name__ == "__main__":
    main()

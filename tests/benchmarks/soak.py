"""A session that lasts, and recordings that are killed: ``python tests/benchmarks/soak.py [--minutes M] [--json OUT]``.

1. The soak (default). A source in a process of its own (`tests/peers/ledger.py`) sends 64 channels of EEG at 1 kHz,
   ECG at 130 Hz in packets of a strap and two markers a second over LSL on the loopback; the real command records them
   without a display. Every sample carries its number. Afterwards the record is read by our reader and compared with
   what was sent: numbers missing, twice or out of order, values, stamps; memory (what stays, every 10 s, slope after
   the warm-up), CPU, the delay from the end of a window to the line of its estimate, alarms, size of the file.
2. ``--kills N``: N recordings, each killed by SIGKILL at a random moment. How many seconds before the kill the record
   ends, by the stream that lost most, and whether our reader and pyxdf read it.
3. ``--cycles N``: N short sessions one after the other in one process: threads, descriptors and memory after each.

The exit status is 1 when a sample is lost, twice, out of order or misplaced, when memory grows by more than
``--growth`` MB an hour, when a killed recording lost more than 2 s or cannot be read, or when sessions leave something
behind.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import os
import random
import re
import shlex
import signal
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import psutil

ROOT = Path(__file__).resolve().parents[2]
LEDGER = ROOT / "tests" / "peers" / "ledger.py"
COMMAND = "{python} -m insula live {sources} --headless --record {record}"
"""What is tried. ``{sources}`` are the addresses, ``{record}`` the file that must come of it."""
RATES = {"eeg": 250.0, "ecg": 130.0, "markers": 2.0}
"""Hz of a `Source` unless it is told otherwise."""
ESTIMATE = re.compile(r"^\s*(\d+\.\d) s  ")
OURS = re.compile(r"^(EEG|ECG|Research use|\d+ windows|record|estimates|withheld)|^\s*$")
"""Lines of a session in which nothing is wrong."""


@dataclass
class Terminal:
    """The lines of a process as they come, each with its time on LSL's clock."""

    process: subprocess.Popen
    lines: list[tuple[float, str]] = field(default_factory=list)

    def __post_init__(self):
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self._thread.start()

    def _listen(self):
        import pylsl

        for line in self.process.stdout:
            self.lines.append((pylsl.local_clock(), line.rstrip("\n")))

    def wait_for(self, pattern, seconds):
        """The time and text of the first line that matches; raises TimeoutError with everything that was said."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            for moment, line in self.lines:
                if re.search(pattern, line):
                    return moment, line
            if self.process.poll() is not None and not self._thread.is_alive():
                break
            time.sleep(0.02)
        raise TimeoutError(f"no line like {pattern!r} within {seconds:g} s; there was:\n{self.text}")

    def finish(self, seconds):
        """The exit status, after the last line has been read."""
        status = self.process.wait(seconds)
        self._thread.join(5)
        return status

    def stop(self, seconds=60):
        """Ctrl-C; the exit status."""
        self.process.send_signal(signal.SIGINT)
        return self.finish(seconds)

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.process.kill()
        self.process.wait()
        self._thread.join(5)
        self.process.stdout.close()

    @property
    def text(self):
        return "\n".join(line for _, line in self.lines)

    @property
    def alarms(self):
        """(time, line) of everything that is neither an estimate nor part of an undisturbed session."""
        return [(t, line) for t, line in self.lines if not ESTIMATE.match(line) and not OURS.match(line)]


def run_terminal(command, **more):
    environment = {**os.environ, "PYTHONUNBUFFERED": "1", "COLUMNS": "300"} | more.pop("env", {})
    return Terminal(
        subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment, cwd=ROOT, **more
        )
    )


def session_command(template, name, record, kinds=("eeg", "ecg", "markers")):
    sources = " ".join(f"lsl:name={name}-{kind}" for kind in kinds)
    words = shlex.split(template)
    filled = []
    for word in words:
        if word == "{sources}":
            filled += sources.split()
        else:
            filled.append(word.replace("{python}", sys.executable).replace("{record}", str(record)))
    return filled


class Source:
    """A running `tests/peers/ledger.py`."""

    def __init__(self, name, *options):
        self.name = name
        self.process = subprocess.Popen(
            [sys.executable, str(LEDGER), name, *map(str, options)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout.readline() == "there\n"
        self.epoch = float("nan")
        self.first = {}
        self.sent = {}

    def begun(self):
        """Wait until it sends."""
        said = json.loads(self.process.stdout.readline())
        self.epoch, self.first = said["epoch"], said["first"]
        return self

    def wait(self):
        """Wait until it has sent everything; the outlets are still there."""
        self.sent = json.loads(self.process.stdout.readline())["sent"]
        return self.sent

    def end(self):
        self.process.stdin.close()
        if not self.sent:
            self.wait()
        self.process.wait(30)

    def kill(self):
        self.process.kill()
        self.process.wait()

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.kill()
        self.process.stdin.close()
        self.process.stdout.close()


# -- 1. the soak -------------------------------------------------------------------------------------------------------


def runs_of(numbers):
    """(first, after the last) of each run of successive numbers."""
    edges = [0, *(np.flatnonzero(np.diff(numbers) != 1) + 1).tolist(), len(numbers)]
    return [(int(numbers[a]), int(numbers[b - 1]) + 1) for a, b in itertools.pairwise(edges)]


class Numbers:
    """The numbers of one stream as they lie in a record, chunk by chunk: memory does not grow with the file."""

    def __init__(self, rate):
        self.rate = rate
        self.samples = 0
        self.runs: list[list[int]] = []
        """[first, after the last] of numbers without a hole."""
        self.twice = 0
        self.backward_stamps = 0
        self.previous_stamp = -np.inf
        self.worst_stamp = 0.0
        self.bad_stamps = 0

    def take(self, stamps, numbers, epoch):
        numbers = np.asarray(numbers, np.int64)
        self.bad_stamps += int(np.count_nonzero(~np.isfinite(stamps)))
        self.samples += len(numbers)
        for begin, end in runs_of(numbers):
            if self.runs and begin == self.runs[-1][1]:
                self.runs[-1][1] = end
            else:
                self.twice += bool(self.runs) and begin < self.runs[-1][1]
                self.runs.append([begin, end])
        self.backward_stamps += int(np.count_nonzero(np.diff(np.concatenate(([self.previous_stamp], stamps))) <= 0))
        self.previous_stamp = float(stamps[-1])
        self.worst_stamp = max(self.worst_stamp, float(np.abs(stamps - (epoch + numbers / self.rate)).max()))

    def missing(self, first, after):
        """How many numbers from ``first`` on, before ``after``, are not in the record, and where they begin."""
        there = sum(end - begin for begin, end in self.runs)
        holes = [(a[1], b[0]) for a, b in itertools.pairwise(self.runs)]
        if self.runs:
            holes = [*([(first, self.runs[0][0])] if self.runs[0][0] > first else []), *holes]
            holes += [(self.runs[-1][1], after)] if self.runs[-1][1] < after else []
        return after - first - there, holes

    def result(self, first, after):
        missing, holes = self.missing(first, after)
        return {
            "sent": after - first,
            "recorded": self.samples,
            "missing": missing,
            "twice_or_out_of_order": self.twice,
            "holes": holes[:20],
            "backward_stamps": self.backward_stamps,
            "bad_stamps": self.bad_stamps,
            "worst_stamp_error_ms": 1e3 * self.worst_stamp,
        }


def ledger_of(record, epoch):
    """What a record holds of a `Source`: `Numbers` of eeg, ecg and markers, session events, findings of the reader."""
    from devices.xdf_format import SESSION_TYPE, XdfFile

    numbers, events, withheld, affect = {}, [], [], []
    with XdfFile(record) as file:
        kinds = {}
        for number, stream in file.streams.items():
            for kind in ("eeg", "ecg", "markers"):
                if stream.name.endswith(f"-{kind}"):
                    kinds[number] = kind
                    numbers[kind] = Numbers(stream.rate or 2.0)
        for index in range(len(file)):
            number, _, count = file.chunk(index)
            if not count:
                continue
            stamps, values = file.decode(index, synchronised=False)
            stream = file.streams[number]
            kind = kinds.get(number)
            if kind == "markers":
                texts = [str(text) for text in values[:, 0]]
                found = [int(text.split()[1]) for text in texts if text.startswith("mark ")]
                if len(found) == len(texts):
                    numbers[kind].take(stamps, found, epoch)
            elif kind:
                numbers[kind].take(stamps, values[:, -1], epoch)
            elif stream.type == SESSION_TYPE:
                events += list(zip(stamps.tolist(), (str(text) for text in values[:, 0]), strict=True))
            elif stream.name == "insula withheld":
                withheld += list(zip(stamps.tolist(), (str(text) for text in values[:, 0]), strict=True))
            elif stream.name == "insula affect":
                affect += list(zip(stamps.tolist(), values.tolist(), strict=True))
        findings = list(file.findings)
    return {"numbers": numbers, "events": events, "withheld": withheld, "affect": affect, "findings": findings}


def resident(process, times=12):
    """MB that stay: the least of some readings within a second and a bit.

    Once a second the rhythms of 64 channels take 4 to 13 MB for less than a tenth of a second. Readings every 10 s are
    now in step with that, now not, which looks like memory that grows.
    """
    found = []
    for _ in range(times):
        found.append(process.memory_info().rss / 1e6)
        time.sleep(0.1)
    return min(found)


def slope(seconds, values):
    """Least squares: per hour."""
    if len(seconds) < 3:
        return float("nan")
    return float(np.polyfit(np.asarray(seconds) / 3600, values, 1)[0])


def soak(minutes, command, folder, every=10.0, channels=64, rate=1000.0):
    """Run it; the figures."""
    name = f"insula-soak-{uuid.uuid4().hex[:8]}"
    record = folder / f"{name}.xdf"
    seconds = 60 * minutes
    options = ("--channels", channels, "--rate", rate, "--seconds", seconds)
    with (
        Source(name, *options) as source,
        # A dashboard that somebody opens meanwhile would find the session and add to its memory.
        run_terminal(session_command(command, name, record), env={"XDG_RUNTIME_DIR": str(folder)}) as terminal,
    ):
        engine = psutil.Process(terminal.process.pid)
        source.begun()
        began, memory, cpu_before = time.monotonic(), [], engine.cpu_times()
        done = threading.Thread(target=source.wait)
        done.start()
        while done.is_alive() and terminal.process.poll() is None:
            memory.append((time.monotonic() - began, resident(engine), engine.num_threads()))
            print(f"{memory[-1][0]:8.0f} s  {memory[-1][1]:8.1f} MB  {len(terminal.alarms)} alarms", flush=True)
            done.join(min(every, max(1.0, seconds / 20)))
        if terminal.process.poll() is not None:
            raise SystemExit(f"the session ended by itself:\n{terminal.text}")
        wall, cpu = time.monotonic() - began, engine.cpu_times()
        load = os.getloadavg()
        time.sleep(0.5)  # what is on its way arrives
        status = terminal.stop()
    read = ledger_of(record, source.epoch)
    streams = {
        key: read["numbers"][key].result(source.first[key], after) if key in read["numbers"] else {"recorded": 0}
        for key, after in source.sent.items()
    }
    delays = [moment - float(found[1]) for moment, line in terminal.lines if (found := ESTIMATE.match(line))]
    warm = [row for row in memory if row[0] > min(300.0, seconds / 3)]
    used = cpu.user + cpu.system - cpu_before.user - cpu_before.system
    return {
        "minutes": wall / 60,
        "load": f"{channels} ch x {rate:g} Hz, ECG 130 Hz, markers",
        "machine": {"cores": os.cpu_count(), "load_average": load},
        "status": status,
        "streams": streams,
        "findings": read["findings"],
        "events": [text for _, text in read["events"] if not text.startswith("tick")][:50],
        "ticks": sum(text.startswith("tick") for _, text in read["events"]),
        "estimates": len(read["affect"]),
        "memory_mb": {
            "begin": memory[0][1],
            "after_warm_up": warm[0][1] if warm else float("nan"),
            "end": memory[-1][1],
            "max": max(row[1] for row in memory),
            "slope_per_hour_after_warm_up": slope([row[0] for row in warm], [row[1] for row in warm]),
        },
        "memory_over_time": memory,
        "cpu": used / wall,
        "estimate_delay_s": _summary(delays),
        "alarms": [line for _, line in terminal.alarms][:50],
        "last_lines": [line for _, line in terminal.lines if not ESTIMATE.match(line)][-6:],
        "record_mb": record.stat().st_size / 1e6,
        "record": str(record),
    }


def _summary(values):
    if not len(values):
        return {}
    return {
        "p50": float(np.median(values)),
        "p99": float(np.percentile(values, 99)),
        "max": float(np.max(values)),
        "count": len(values),
    }


def soak_faults(results, growth):
    """What must not be, in words."""
    faults = []
    for key, row in results["streams"].items():
        for what in ("missing", "twice_or_out_of_order", "backward_stamps", "bad_stamps"):
            count = row.get(what)
            faults += [f"{key}: {count} {what.replace('_', ' ')}"] * (count != 0)
        if row.get("worst_stamp_error_ms", 0) > 1.0:
            faults.append(f"{key}: a stamp is {row['worst_stamp_error_ms']:.2f} ms off")
    faults += results["findings"]
    if results["status"]:
        faults.append(f"exit status {results['status']}")
    steep = results["memory_mb"]["slope_per_hour_after_warm_up"]
    if results["minutes"] >= 10 and steep > growth:
        faults.append(f"memory grows by {steep:.1f} MB an hour")
    return faults


# -- 2. killed recordings ----------------------------------------------------------------------------------------------

KILL_COMMAND = "{python} -m insula live synthetic: --headless --record {record}"


KILLED_WITHIN = 4.0, 25.0
"""Seconds: in the first the record is begun; later clocks come every 5 s, boundaries and fsync every 10 s."""


START_UP = 10.0
"""Seconds from the file to the first sample of all on a busy machine: before it there is nothing to lose."""


def kills(count, command, folder, seed=0, jobs=3):
    """``count`` recordings, ``jobs`` at a time, killed at random moments: every other one of the first seconds."""
    draw = random.Random(seed)
    early, late = KILLED_WITHIN
    moments = [draw.uniform(early, late) if index % 2 else draw.uniform(0.0, early) for index in range(count)]
    with ThreadPoolExecutor(jobs) as pool:
        tried = [
            pool.submit(killed, command, folder / f"killed-{index}.xdf", moment) for index, moment in enumerate(moments)
        ]
        return [one.result() for one in tried]


def killed(command, record, after):
    """Kill a recording ``after`` seconds from when its file appeared; what is left, and whether a sample had come."""
    import pylsl

    with run_terminal(session_command(command, "", record)) as terminal:
        until = time.monotonic() + 90
        while not record.exists():
            if time.monotonic() > until or terminal.process.poll() is not None:
                raise SystemExit(f"no recording began:\n{terminal.text}")
            time.sleep(0.005)
        appeared = pylsl.local_clock()
        time.sleep(after)
        terminal.process.send_signal(signal.SIGKILL)
        moment = pylsl.local_clock()
        terminal.process.wait()
    ours, our_trouble = _ends_by_ours(record)
    theirs, their_trouble = _ends_by_pyxdf(record)

    def lost(ends):
        """Of the stream that lost most; a stream without a sample lost everything since the file appeared."""
        last = [max(end, appeared) if np.isfinite(end) else appeared for end in ends.values()] or [appeared]
        return max(0.0, moment - min(last))

    return {
        "after": after,
        "ours_lost_s": lost(ours),
        "pyxdf_lost_s": lost(theirs),
        "begun": any(np.isfinite(end) for end in ours.values()),
        "trouble": our_trouble or their_trouble,
        "bytes": record.stat().st_size,
    }


def _ends_by_ours(record):
    from devices.xdf_format import XdfError, XdfFile

    try:
        with XdfFile(record) as file:
            ends = {}
            for number, stream in file.streams.items():
                if stream.type in ("EEG", "ECG"):
                    times, _ = file.read(number)
                    ends[stream.type] = float(times[-1]) if len(times) else float("nan")
            return ends, ""
    except XdfError as error:
        # Nothing was there yet: an empty file is said to be one.
        return {}, "" if not record.stat().st_size else f"ours: {error}"


def _ends_by_pyxdf(record):
    import logging
    import warnings

    import pyxdf

    if record.stat().st_size < 5:
        return {}, ""
    logging.getLogger("pyxdf").setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            streams, _ = pyxdf.load_xdf(str(record), synchronize_clocks=False, dejitter_timestamps=False)
    except Exception as error:  # noqa: BLE001  (whatever it raises, the file is not readable)
        return {}, f"pyxdf: {type(error).__name__}: {error}"
    return {
        stream["info"]["type"][0]: float(stream["time_stamps"][-1]) if len(stream["time_stamps"]) else float("nan")
        for stream in streams
        if stream["info"]["type"][0] in ("EEG", "ECG")
    }, ""


def kill_faults(rows):
    faults = [f"killed after {row['after']:.2f} s: {row['trouble']}" for row in rows if row["trouble"]]
    for who in ("ours", "pyxdf"):
        faults += [
            f"killed after {row['after']:.2f} s: {row[f'{who}_lost_s']:.2f} s lost by {who}"
            for row in rows
            if row[f"{who}_lost_s"] > (2.0 if row["begun"] else START_UP)
        ]
    return faults


# -- 3. sessions one after the other -----------------------------------------------------------------------------------


def cycles(count, folder, seconds=0.5, more=(), minutes=math.inf):
    """``count`` sessions of the command line in this process, fewer when ``minutes`` are over; threads, descriptors and
    memory after each."""
    import contextlib
    import gc
    import io

    import insula

    name = f"insula-cycle-{uuid.uuid4().hex[:8]}"
    here, rows, end = psutil.Process(), [], time.monotonic() + 60 * minutes
    with Source(name, "--at-once", "--without", "ecg,markers"):
        for index in range(count):
            if time.monotonic() > end and len(rows) > WARM_CYCLES:
                break
            record = folder / f"{name}-{index}.xdf"
            told = io.StringIO()
            command = ["live", f"lsl:name={name}-eeg", "--headless", "--seconds", str(seconds), *more]
            command += ["--record", str(record)]
            with contextlib.redirect_stdout(told):
                status = insula.main(command)
            if status:
                raise SystemExit(f"cycle {index} ended with {status}:\n{told.getvalue()}")
            for path in folder.glob(f"{record.stem}*"):
                path.unlink()
            gc.collect()
            # liblsl and onnxruntime let go of theirs in threads of their own.
            until = time.monotonic() + 3
            while rows and here.num_threads() > rows[-1]["threads"] and time.monotonic() < until:
                time.sleep(0.05)
            rows.append(
                {"threads": here.num_threads(), "files": here.num_fds(), "memory_mb": here.memory_info().rss / 1e6}
            )
            if len(rows) % 20 == 0:
                print(f"{len(rows):8d} sessions  {json.dumps(rows[-1])}", flush=True)
    return rows


WARM_CYCLES = 3
"""Until everything is imported, compiled and allocated once."""
MANY_CYCLES = 100
"""From so many on what the allocator keeps of the first sessions no longer counts."""


def cycle_growth(rows):
    """What a cycle adds after the warm-up, of each figure."""
    warm = rows[WARM_CYCLES - 1 :]
    return {key: (warm[-1][key] - warm[0][key]) / (len(warm) - 1) for key in rows[0]}


def cycle_faults(rows):
    growth, last, first = cycle_growth(rows), rows[-1], rows[WARM_CYCLES - 1]
    faults = [
        f"{first[key]} {key} after {WARM_CYCLES} sessions, {last[key]} after {len(rows)}"
        for key in ("threads", "files")
        if last[key] > first[key]
    ]
    if growth["memory_mb"] > (1.0 if len(rows) < MANY_CYCLES else 0.05):
        faults.append(f"a session leaves {growth['memory_mb']:.2f} MB behind")
    return faults


# -- putting it together -----------------------------------------------------------------------------------------------


def show(results):
    for key, value in results.items():
        if key not in ("memory_over_time", "moments"):
            print(f"{key:>18}  {json.dumps(value) if isinstance(value, dict | list) else value}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=60.0, help="of the soak; with --cycles: at most")
    parser.add_argument("--channels", type=int, default=64)
    parser.add_argument("--rate", type=float, default=1000.0)
    parser.add_argument("--command", help=f"default: {COMMAND}; for --kills {KILL_COMMAND}")
    parser.add_argument("--kills", type=int, default=0, help="instead: so many recordings are killed")
    parser.add_argument("--cycles", type=int, default=0, help="instead: so many sessions in one process")
    parser.add_argument("--seed", type=int, default=0, help="of the moments of the kills")
    parser.add_argument("--model", type=Path, help="for --cycles: a bundle other than the one that ships")
    parser.add_argument("--growth", type=float, default=10.0, help="MB an hour that memory may grow")
    parser.add_argument("--folder", type=Path, help="keep the records there; else they go when all is done")
    parser.add_argument("--json", type=Path, help="write the figures there, too")
    wanted = parser.parse_args()
    os.environ.setdefault("LSLAPICFG", str(ROOT / "devices" / "loopback.cfg"))
    sys.path.insert(0, str(ROOT))
    with tempfile.TemporaryDirectory() as scratch:
        folder = wanted.folder or Path(scratch)
        if wanted.kills:
            rows = kills(wanted.kills, wanted.command or KILL_COMMAND, folder, wanted.seed)
            results = {
                "kills": len(rows),
                **{f"{who}_lost_s": _summary([row[f"{who}_lost_s"] for row in rows]) for who in ("ours", "pyxdf")},
                "moments": rows,
                "faults": kill_faults(rows),
            }
        elif wanted.cycles:
            more = ["--model", str(wanted.model)] if wanted.model else []
            rows = cycles(wanted.cycles, folder, more=more, minutes=wanted.minutes)
            results = {
                "cycles": len(rows),
                "warm": rows[WARM_CYCLES - 1],
                "last": rows[-1],
                "growth_per_cycle": cycle_growth(rows),
                "moments": rows,
                "faults": cycle_faults(rows),
            }
        else:
            results = soak(
                wanted.minutes, wanted.command or COMMAND, folder, channels=wanted.channels, rate=wanted.rate
            )
            results["faults"] = soak_faults(results, wanted.growth)
        show(results)
        if wanted.json:
            wanted.json.write_text(json.dumps(results, indent=1), encoding="utf-8")
    sys.exit(1 if results["faults"] else 0)


if __name__ == "__main__":
    main()

"""Reading XDF beside pyxdf: ``python tests/benchmarks/xdf.py [--quick] [--chunk S] [--rounds N] [--json OUT]``.

Synthetic recordings of 37 MB, 250 MB and 1 GB (float32, 64 channels at 1 kHz and 8 channels at 250 Hz, a clock offset
every 5 s), written by `devices.xdf_writer.XdfWriter` into a temporary folder, in chunks of half a second as LabRecorder
does or of ``--chunk`` seconds. Each measurement is made in a process of its own, contenders in turn; imports are not
counted, the file is in the page cache (it is read once before each measurement).

- open: `devices.xdf_format.XdfFile` has indexed the file; what it took from nothing to every sample count.
- first 10 s: `devices.xdf.XdfReplay` opened and read up to 10 s of signal.
- decode: opened, and all stamps and values of every stream read, stamps on one clock.
- pyxdf: ``pyxdf.load_xdf`` at its defaults; "pyxdf raw" without its clock synchronisation and dejittering.
- replay: a whole `XdfReplay` at infinite speed, each item looked at and let go.

Memory is the process's largest resident size (VmHWM, reset after the imports) less its resident size after the imports.
It holds mapped pages of the file.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))
LOADS = ((64, 1000), (8, 250))
SIZES = {"37 MB": 37e6, "250 MB": 250e6, "1 GB": 1e9}
TASKS = ("open", "first 10 s", "decode", "pyxdf raw", "pyxdf", "replay")
MEMORY_MB = 150.0


# -- what runs in a process of its own ---------------------------------------------------------------------------------


def make(path, channels, rate, size, chunk):
    """A recording of about ``size`` bytes: one EEG stream."""
    from devices.xdf_writer import XdfWriter

    rng = np.random.default_rng(0)
    n = max(1, round(chunk * rate))
    blocks = [(20 * rng.standard_normal((n, channels))).astype(np.float32) for _ in range(8)]
    stamps = np.arange(n) / rate
    seconds = offsets = 0
    with XdfWriter(path, now=lambda: seconds) as writer:
        eeg = writer.add_stream(
            name="bench", type="EEG", channels=[f"E{i + 1}" for i in range(channels)], rate=rate, format="float32"
        )
        k = 0
        while writer.bytes_written < size:
            seconds = k * n / rate
            if seconds >= 5 * offsets:
                writer.write_offset(eeg, 1000 + seconds, 2e-3 + 1e-5 * float(rng.standard_normal()))
                offsets += 1
            writer.write(eeg, 1000 + seconds + stamps, blocks[k % 8])
            k += 1


def memory(name):
    for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines():
        if line.startswith(name):
            return int(line.split()[1]) / 1e3
    raise LookupError(name)


def prepare(task):
    """Import what the task needs and return it as a call that says how many samples it saw."""
    if task.startswith("pyxdf"):
        import pyxdf

        def load(path):
            raw = {"synchronize_clocks": False, "dejitter_timestamps": False} if task.endswith("raw") else {}
            streams, _ = pyxdf.load_xdf(path, **raw)
            return sum(len(stream["time_stamps"]) for stream in streams)

        return load
    from devices.api import Chunk, End
    from devices.xdf import XdfReplay
    from devices.xdf_format import XdfFile

    def index(path):
        with XdfFile(path) as file:
            return sum(file.samples(number) for number in file.streams)

    def decode(path):
        with XdfFile(path) as file:
            return sum(len(file.read(number)[0]) for number in file.streams)

    def play(path):
        samples, goal = 0, np.inf
        with XdfReplay(path, speed=np.inf) as replay:
            if task == "first 10 s":
                goal = replay.start + 10
            while replay.position < goal:
                for item in replay.read(0.0):
                    if isinstance(item, Chunk):
                        samples += len(item.times)
                    elif isinstance(item, End):
                        return samples
        return samples

    return {"open": index, "decode": decode}.get(task, play)


def do(task, path):
    call = prepare(task)
    with path.open("rb") as file:
        while file.read(1 << 24):
            pass
    can_reset = Path("/proc/self/clear_refs").exists()
    if can_reset:
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    before = memory("VmRSS") if can_reset else 0.0
    start = time.perf_counter()
    samples = call(path)
    seconds = time.perf_counter() - start
    return {
        "seconds": seconds,
        "samples": samples,
        "memory_mb": memory("VmHWM") - before if can_reset else None,
        "imports_mb": before,
    }


# -- putting it together -----------------------------------------------------------------------------------------------


def child(*arguments):
    done = subprocess.run(
        [sys.executable, str(Path(__file__).resolve()), *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        return {"failed": (done.stderr.strip().splitlines() or [f"exit {done.returncode}"])[-1]}
    return json.loads(done.stdout.splitlines()[-1])


def pooled(runs):
    failed = [run for run in runs if "failed" in run]
    if failed:
        return failed[0]
    seconds = [run["seconds"] for run in runs]
    peaks = [run["memory_mb"] for run in runs if run["memory_mb"] is not None]
    return {
        "p50": float(np.median(seconds)),
        "p99": float(np.percentile(seconds, 99)),
        "max": max(seconds),
        "rounds": len(runs),
        "samples": runs[0]["samples"],
        "memory_mb": max(peaks) if peaks else None,
        "imports_mb": runs[0]["imports_mb"],
    }


def judge(results):
    """[(target, figure, met)]; met is None where something is missing."""
    verdicts = []

    def ratio(target, rows, fast, least):
        if "failed" in rows["pyxdf"] or "failed" in rows[fast]:
            verdicts.append((target, "not measured", None))
        else:
            times = rows["pyxdf"]["p50"] / rows[fast]["p50"]
            verdicts.append((target, f"{times:.1f} x", times >= least))

    for load, sizes in results["files"].items():
        channels = int(load.split()[0])
        for size, rows in sizes.items():
            ratio(f"{load}, {size}: opening at least 50 x faster than load_xdf", rows, "open", 50)
            least = 8 if channels == 64 else 20
            ratio(f"{load}, {size}: full decode at least {least} x faster than load_xdf", rows, "decode", least)
            first = rows["first 10 s"]
            verdicts.append(
                (f"{load}, {size}: first 10 s in under 0.2 s", "failed", None)
                if "failed" in first
                else (f"{load}, {size}: first 10 s in under 0.2 s", f"{first['p50']:.3f} s", first["p50"] < 0.2)
            )
            peak = rows["replay"].get("memory_mb")
            target = f"{load}, {size}: replay in less than {MEMORY_MB:g} MB beyond the interpreter"
            verdicts.append((target, "not measured" if peak is None else f"{peak:.0f} MB", peak and peak < MEMORY_MB))
    return verdicts


def show(results):
    for key, value in results["machine"].items():
        print(f"{key:>14}  {value}")
    print(f"\nchunks of {results['chunk']:g} s; warm page cache; each measurement in a process of its own")
    for load, sizes in results["files"].items():
        print(f"\n{load}")
        print(f"{'':>18} {'p50 s':>9} {'p99 s':>9} {'max s':>9} {'rounds':>7} {'memory MB':>10} {'x pyxdf':>8}")
        for size, rows in sizes.items():
            theirs = rows["pyxdf"].get("p50")
            for task, row in rows.items():
                if "failed" in row:
                    print(f"{size:>7} {task:>10}  {row['failed']}")
                    continue
                peak = "" if row["memory_mb"] is None else f"{row['memory_mb']:.0f}"
                times = f"{theirs / row['p50']:.1f}" if theirs else ""
                print(
                    f"{size:>7} {task:>10} {row['p50']:9.4f} {row['p99']:9.4f} {row['max']:9.4f} {row['rounds']:7d}"
                    f" {peak:>10} {times:>8}"
                )
    print()
    for target, figure, met in results["targets"]:
        print(f"{'met' if met else 'MISSED' if met is False else '-':>8}  {target}: {figure}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="only the smallest files")
    parser.add_argument("--chunk", type=float, default=0.5, help="seconds of signal in a chunk")
    parser.add_argument("--rounds", type=int, default=5, help="so often; a fifth of it for what takes above 5 s")
    parser.add_argument("--json", type=Path, help="write the figures there, too")
    parser.add_argument("--do", nargs=2, metavar=("TASK", "FILE"), help=argparse.SUPPRESS)
    parser.add_argument("--make", nargs=5, metavar=("FILE", "CH", "RATE", "SIZE", "CHUNK"), help=argparse.SUPPRESS)
    wanted = parser.parse_args()
    if wanted.do:
        print(json.dumps(do(wanted.do[0], Path(wanted.do[1]))))
        return
    if wanted.make:
        path, channels, rate, size, chunk = wanted.make
        make(Path(path), int(channels), float(rate), float(size), float(chunk))
        print("{}")
        return
    from live import machine

    versions = {"pyxdf": importlib.metadata.version("pyxdf")}
    unused = ("pylsl", "mne-lsl", "ezmsg-lsl")
    about = {key: value for key, value in machine().items() if key not in unused} | versions
    results = {"machine": about, "chunk": wanted.chunk, "files": {}}
    with tempfile.TemporaryDirectory(prefix="insula-bench-") as folder:
        for channels, rate in LOADS:
            sizes = results["files"].setdefault(f"{channels} ch x {rate} Hz", {})
            for name, size in list(SIZES.items())[: 1 if wanted.quick else None]:
                path = Path(folder) / f"{channels}.xdf"
                made = child("--make", path, channels, rate, size, wanted.chunk)
                if "failed" in made:
                    sys.exit(made["failed"])
                child("--do", "replay", path)  # once, so that the compiled loops are cached
                runs = {task: [] for task in TASKS}
                for turn in range(wanted.rounds):  # in turn, because the speed of a machine drifts
                    for task in TASKS:
                        slow = runs[task] and runs[task][0].get("seconds", 0.0) > 5.0
                        if not slow or turn % 5 == 0:
                            runs[task].append(child("--do", task, path))
                sizes[name] = {task: pooled(rows) for task, rows in runs.items()}
                path.unlink()
                print(f"{channels} ch, {name}: done", file=sys.stderr)
    results["targets"] = judge(results)
    show(results)
    if wanted.json:
        wanted.json.write_text(json.dumps(results, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()

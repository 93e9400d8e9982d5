"""The live path beside its peers: ``live.py [--seconds N] [--rounds N] [--outage S] [--only PART] [--json OUT]``.

1. Writing a chunk of 32 samples x 64 channels into the ring, beside a plain slice copy into a buffer made beforehand,
   and beside rolling the whole buffer as MNE-LSL does, for 10, 60 and 300 s at 1 kHz.
2. Latency and CPU from an outlet in a process of its own, every contender in a process of its own (MNE-LSL brings a
   second liblsl). Latency is the moment at which the last sample of a pushed chunk is there for the contender's reader,
   minus the moment at which it was pushed:

   - pylsl: ``pull_chunk(min_samples=1, as_numpy=True)`` has returned, nothing else is done;
   - insula: a whole `realtime.session.Session`: device thread, inbox, analysis thread; ``Windower.push`` has returned,
     so the samples are filtered, resampled and every window that they complete is cut. No dashboard, record or model;
   - MNE-LSL: its acquisition thread has written its buffer. Neither polling nor copying by a reader is charged to it;
   - ezmsg: the message of an ``LSLInletUnit`` has reached a unit that only looks at it, with the stamps on LSL's clock.

   CPU is process time over wall time, all threads and child processes. The delay of causal filters and the resampler's
   reach is a property of the signal, not of the software's speed: it is stated apart.
3. What becomes of a source (250 Hz x 8, `tests/peers/ledger.py`, every sample numbered) that is killed by SIGKILL and
   started again with the same source_id after ``--outage`` seconds: when the program's user can know, and by what (a
   value, event or exception of the interface; a line in a log; nothing), how long after the restart data come again,
   which samples are missing or twice, the hole that the stamps show beside the true outage (from the last sample that
   was sent to the first one of the new source), and whether the count of missing samples is given.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import logging
import os
import platform
import subprocess
import sys
import threading
import time
import uuid
from pathlib import Path
from types import SimpleNamespace

import numpy as np

LEDGER = Path(__file__).resolve().parents[1] / "peers" / "ledger.py"
CHUNK_SECONDS = 0.032
WARM_UP = 2.0
LOADS = ((250, 8), (1000, 64))
CONTENDERS = ("pylsl", "insula", "mne-lsl 10 s", "mne-lsl 300 s", "ezmsg")
SURVIVORS = ("pylsl", "insula", "mne-lsl 10 s", "ezmsg")
PARTS = ("ring", "latency", "outage")
SETTLED = 4.0
"""Seconds of data before the source is killed."""
PATIENCE = 8.0
"""Seconds after the restart in which data must come again."""
RING_SECONDS = (10, 60, 300)


def summary(values):
    """Median, p99 and max of ``values``."""
    return {
        "p50": float(np.median(values)),
        "p99": float(np.percentile(values, 99)),
        "max": float(np.max(values)),
        "count": len(values),
    }


def machine():
    cpu = platform.processor()
    if Path("/proc/cpuinfo").is_file():
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        cpu = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), cpu)
    versions = {}
    for name in ("numpy", "numba", "pylsl", "mne-lsl", "ezmsg", "ezmsg-lsl"):
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = "not installed"
    return {
        "cpu": cpu,
        "cores": os.cpu_count(),
        "load_average": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        "system": platform.platform(),
        "python": platform.python_version(),
        **versions,
    }


# -- 1. the ring -------------------------------------------------------------------------------------------------------


def ring_writes(rate=1000, channels=64, chunk=32, count=1500):
    """Microseconds for one chunk: {seconds: {method: summary}}."""
    from realtime.ring import Ring

    rng = np.random.default_rng(0)
    chunks = [rng.standard_normal((chunk, channels)).astype(np.float32) for _ in range(8)]

    def timed(write, count):
        taken = np.empty(count)
        for index in range(count):
            rows = chunks[index % len(chunks)]
            start = time.perf_counter_ns()
            write(rows)
            taken[index] = (time.perf_counter_ns() - start) / 1e3
        return summary(taken)

    results = {}
    for seconds in RING_SECONDS:
        rows = seconds * rate
        ring = Ring(rows, channels, np.float32)
        flat = np.zeros((rows, channels), np.float32)
        state = {"at": 0, "buffer": np.zeros((rows, channels), np.float32), "stamps": np.zeros(rows)}

        def copy(values, flat=flat, state=state, rows=rows):
            at = state["at"]
            flat[at : at + chunk] = values
            state["at"] = at + chunk if at + 2 * chunk <= rows else 0

        def roll(values, state=state):
            # StreamLSL._acquire of MNE-LSL, the two arrays that it keeps.
            state["buffer"] = np.roll(state["buffer"], -chunk, axis=0)
            state["stamps"] = np.roll(state["stamps"], -chunk, axis=0)
            state["buffer"][-chunk:, :] = values
            state["stamps"][-chunk:] = 0.0

        for _ in range(rows // chunk + 1):  # once round, so that no page is touched for the first time
            ring.write(chunks[0])
            copy(chunks[0])
        roll(chunks[0])
        results[str(seconds)] = {
            "ring": timed(ring.write, count),
            "slice copy": timed(copy, count),
            "roll": timed(roll, max(30, count // max(1, seconds))),
        }
    return results


# -- 2. the outlet and the contenders, each run in a process of its own ------------------------------------------------


def labels(channels):
    return [f"E{index + 1}" for index in range(channels)]


def feed(name, rate, channels):
    """Push chunks for ever, stamped evenly as an amplifier does.

    The first channel is -1, but for the last sample of each chunk: there it is how many microseconds after its stamp
    the chunk was pushed, so that a late outlet is not charged to whoever reads it.
    """
    import pylsl

    info = pylsl.StreamInfo(name, "EEG", channels, rate, "float32", name)
    info.set_channel_labels(labels(channels))
    info.set_channel_units("microvolts")
    outlet = pylsl.StreamOutlet(info)
    size = round(CHUNK_SECONDS * rate)
    rng = np.random.default_rng(0)
    chunks = [(20.0 * rng.standard_normal((size, channels))).astype(np.float32) for _ in range(16)]
    print("ready", flush=True)
    start, index = pylsl.local_clock(), 0
    while os.getppid() != 1:  # not left behind
        index += 1
        stamp = start + index * size / rate
        time.sleep(max(0.0, stamp - pylsl.local_clock()))
        rows = chunks[index % len(chunks)]
        rows[:, 0] = -1.0
        rows[-1, 0] = 1e6 * (pylsl.local_clock() - stamp)
        outlet.push_chunk(rows, stamp)


class Meter:
    """Latencies and CPU of this process, from the end of the warm-up on."""

    def __init__(self, clock, seconds, cpu=time.process_time):
        self.clock = clock
        self.cpu = cpu
        self.seconds = seconds
        self.latencies = []
        self.stages = {}
        self.begun = None
        self.first = None

    def note(self, stamp, first_channel):
        """A sample is there now. Only the last one of a pushed chunk counts."""
        now = self.clock()
        if self.first is None:
            self.first = now
        if self.begun is None and now - self.first > WARM_UP:
            self.begun = (self.cpu(), time.perf_counter())
        if self.begun is not None and first_channel >= 0:
            self.latencies.append(1e3 * (now - stamp - 1e-6 * float(first_channel)))

    def note_stage(self, stage, stamp, first_channel):
        if self.begun is not None and first_channel >= 0:
            taken = 1e3 * (self.clock() - stamp - 1e-6 * float(first_channel))
            self.stages.setdefault(stage, []).append(taken)

    @property
    def done(self):
        return self.begun is not None and time.perf_counter() - self.begun[1] >= self.seconds

    def result(self, **more):
        cpu, wall = self.cpu() - self.begun[0], time.perf_counter() - self.begun[1]
        stages = {stage: summary(values) for stage, values in self.stages.items()}
        return {"latency_ms": summary(self.latencies), "cpu": cpu / wall, "stages_ms": stages, **more}


def run_pylsl(name, rate, channels, seconds):
    import pylsl

    (info,) = pylsl.resolve_byprop("name", name, timeout=10)
    inlet = pylsl.StreamInlet(info)
    meter = Meter(pylsl.local_clock, seconds)
    while not meter.done:
        samples, stamps = inlet.pull_chunk(timeout=0.1, min_samples=1, as_numpy=True)
        if len(stamps):
            meter.note(stamps[-1], samples[-1, 0])
    return meter.result()


class NoModel:
    """Takes windows and says nothing: what a model costs is measured elsewhere."""

    notes = ()

    def __init__(self, window):
        manifest = SimpleNamespace(window=window, name="none", targets=(), accuracy="", limits="")
        self.bundle = SimpleNamespace(manifest=manifest, short_hash="")

    def reset(self):
        pass

    def update(self, window):
        from models.api import Estimate

        nothing = np.empty(0)
        return Estimate(window.t_end, (), nothing, nothing, window.present, 0.0, "no model")


def run_insula(name, rate, channels, seconds):
    from devices.api import Chunk, open_device
    from devices.lsl import lsl_clock
    from models.api import InputSpec, WindowSpec
    from realtime.session import Session

    one = InputSpec(kind="eeg", channels=tuple(labels(channels)), notch=(50.0,))
    device = open_device(f"lsl:type=EEG,name={name}")
    session = Session([device], NoModel(WindowSpec(inputs=(one,))), title="benchmark", clock=lsl_clock)
    meter = Meter(lsl_clock, seconds)
    read, push = device.read, session.windower.push

    def timed_read(timeout):
        items = read(timeout)
        for item in items:
            if isinstance(item, Chunk):
                meter.note_stage("device has read", item.times[-1], item.data[-1, 0])
        return items

    def timed_push(chunk):
        windows = push(chunk)
        meter.note(chunk.times[-1], chunk.data[-1, 0])
        return windows

    device.read, session.windower.push = timed_read, timed_push
    done = session.run(lambda health: session.stop() if meter.done else None)
    if meter.begun is None:
        raise SystemExit(f"the session ended early: {done.problem}")
    return meter.result(
        windows=done.windows,
        lost=sum(done.lost.values()),
        filter_delay_ms=1e3 * session.windower.delay("eeg", 10.0),
        window_complete_ms=1e3 * (session.windower.grace - 1.0),
    )


def run_mne_lsl(name, rate, channels, seconds, buffer):
    from mne_lsl.lsl import local_clock
    from mne_lsl.stream import StreamLSL

    meter = Meter(local_clock, seconds)

    class Watched(StreamLSL):
        newest = 0.0

        def _submit_acquisition_job(self):
            # The end of each acquisition: what came is in the buffer.
            stamp = self._timestamps[-1]
            if stamp > self.newest:
                self.newest = stamp
                meter.note(stamp, self._buffer[-1, 0])
            super()._submit_acquisition_job()

    stream = Watched(bufsize=buffer, name=name).connect(acquisition_delay=0.001, timeout=10)
    while not meter.done:
        time.sleep(0.1)
    result = meter.result()
    stream.disconnect()
    return result


def family_cpu():
    """Process time of this process and its children: ezmsg spreads a graph over processes where it is told to."""
    import psutil

    here = psutil.Process()
    times = [one.cpu_times() for one in (here, *here.children(recursive=True))]
    return sum(each.user + each.system for each in times)


def run_graph(name, take, result):
    """An ezmsg graph of a source and a sink until ``take(message)`` says so; prints ``result()`` and ends the process.

    Its own way to an end waits for units that wait for data.
    """
    import ezmsg.core as ez
    import pylsl
    from ezmsg.lsl.units import LSLInfo, LSLInletSettings, LSLInletUnit
    from ezmsg.util.messages.axisarray import AxisArray

    class Sink(ez.Unit):
        INPUT = ez.InputStream(AxisArray)

        @ez.subscriber(INPUT)
        async def on_message(self, message: AxisArray) -> None:
            if take(message):
                print(json.dumps(result()), flush=True)
                os._exit(0)

    class Graph(ez.Collection):
        INLET = LSLInletUnit(
            LSLInletSettings(info=LSLInfo(name=name), use_lsl_clock=True, processing_flags=pylsl.proc_clocksync)
        )
        SINK = Sink()

        def network(self):
            return ((self.INLET.OUTPUT_SIGNAL, self.SINK.INPUT),)

    ez.run(SYSTEM=Graph())


def stamps_of(message):
    """The stamps of a message's samples: given one by one, or as the first and the rate."""
    axis = message.axes["time"]
    if hasattr(axis, "data"):
        return np.asarray(axis.data, np.float64)
    return axis.offset + axis.gain * np.arange(message.data.shape[0])


def run_ezmsg(name, rate, channels, seconds):
    import pylsl

    meter = Meter(pylsl.local_clock, seconds, family_cpu)

    def take(message):
        meter.note(stamps_of(message)[-1], message.data[-1, 0])
        return meter.done

    run_graph(name, take, meter.result)


def contend(contender, name, rate, channels, seconds):
    kind, _, buffer = contender.partition(" ")
    if kind == "mne-lsl":
        return run_mne_lsl(name, rate, channels, seconds, float(buffer.split()[0]))
    return {"pylsl": run_pylsl, "insula": run_insula, "ezmsg": run_ezmsg}[kind](name, rate, channels, seconds)


# -- 3. a source that is killed and started again ----------------------------------------------------------------------


class Witness:
    """What a program's user is given, and what they are told, until standard input closes."""

    def __init__(self, clock):
        self.clock = clock
        self.stamps = []
        self.numbers = []
        self.arrivals = []
        self.told = []
        """(when, by what, the words)."""
        self.counted = 0
        """Samples said to be missing."""
        self.over = threading.Event()
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self):
        while os.read(sys.stdin.fileno(), 100):
            pass
        self.over.set()

    def take(self, stamps, numbers):
        now = self.clock()
        if not self.numbers:
            print("receiving", flush=True)
        self.stamps += np.asarray(stamps, np.float64).tolist()
        self.numbers += np.asarray(numbers, np.int64).tolist()
        self.arrivals += [now] * len(stamps)

    def tell(self, how, text):
        if not self.told or self.told[-1][1:] != (how, text):
            self.told.append((self.clock(), how, text))

    def follow_log(self, name):
        """Warnings of a library's own log count as told, by the log."""
        witness = self

        class Log(logging.Handler):
            def emit(self, record):
                witness.tell("log", record.getMessage())

        handler = Log(logging.WARNING)
        logging.getLogger(name).addHandler(handler)

    def result(self):
        return {
            "stamps": self.stamps,
            "numbers": self.numbers,
            "arrivals": self.arrivals,
            "told": self.told,
            "counted": self.counted,
        }


def watch_pylsl(name):
    import pylsl

    witness = Witness(pylsl.local_clock)
    (info,) = pylsl.resolve_byprop("name", name, timeout=10)
    inlet = pylsl.StreamInlet(info)
    while not witness.over.is_set():
        try:
            samples, stamps = inlet.pull_chunk(timeout=0.1, min_samples=1, as_numpy=True)
        except pylsl.util.LostError as error:
            witness.tell("exception", str(error))
            break
        if len(stamps):
            witness.take(stamps, samples[:, -1])
    return witness.result()


def watch_mne_lsl(name):
    from mne_lsl.lsl import local_clock
    from mne_lsl.stream import StreamLSL

    witness = Witness(local_clock)
    witness.follow_log("mne_lsl")
    stream = StreamLSL(bufsize=10, name=name).connect(acquisition_delay=0.001, timeout=10)

    def take(rows, stamps, info):
        witness.take(stamps, rows[:, -1])
        return rows, stamps

    stream.add_callback(take)
    while not witness.over.wait(0.05):
        try:
            if not stream.connected:
                witness.tell("value", "connected is False")
            else:
                stream.get_data(winsize=1.0)
        except Exception as error:  # noqa: BLE001  (whatever it raises tells its user)
            witness.tell("exception", f"{type(error).__name__}: {error}")
    return witness.result()


def watch_ezmsg(name):
    import pylsl

    witness = Witness(pylsl.local_clock)
    witness.follow_log("ezmsg")
    uids = []

    def take(message):
        uid = message.attrs.get("lsl_uid", "")
        if uids and uid != uids[-1]:
            witness.tell("value", "attrs: another lsl_uid")
        uids.append(uid)
        witness.take(stamps_of(message), message.data[:, -1])
        return witness.over.is_set()

    run_graph(name, take, witness.result)


def watch_insula(name):
    from devices.api import open_device
    from devices.lsl import lsl_clock
    from models.api import InputSpec, WindowSpec
    from realtime.session import Session

    witness = Witness(lsl_clock)
    one = InputSpec(kind="eeg", channels=("Fp1", "Fp2", "C3", "C4"))
    device = open_device(f"lsl:type=EEG,name={name}")
    session = Session([device], NoModel(WindowSpec(inputs=(one,))), title="benchmark", clock=lsl_clock)
    push = session.windower.push

    def watched_push(chunk):
        witness.counted += chunk.lost
        witness.take(chunk.times, chunk.data[:, -1])
        return push(chunk)

    def every(health):
        if witness.numbers and health.alarms:
            witness.tell("value", health.alarms[0])
        if witness.over.is_set():
            session.stop()

    session.windower.push = watched_push
    session.run(every)
    return witness.result()


WATCHERS = {"pylsl": watch_pylsl, "mne-lsl": watch_mne_lsl, "ezmsg": watch_ezmsg, "insula": watch_insula}


def survive(contender, outage):
    """One program through the death and return of its source: figures, or why there are none."""
    import pylsl

    name = f"insula-bench-{uuid.uuid4().hex[:8]}"
    peer = [sys.executable, str(LEDGER), name, "--without", "ecg,markers"]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with (
        subprocess.Popen(peer, **pipes) as source,
        subprocess.Popen(child("--watch", contender, f"{name}-eeg"), **pipes, stderr=subprocess.PIPE) as watcher,
    ):
        try:
            source.stdout.readline()
            if "receiving\n" not in iter(watcher.stdout.readline, ""):
                return {"failed": (watcher.stderr.read().strip().splitlines() or ["no data came"])[-1]}
            begun = json.loads(source.stdout.readline())
            time.sleep(SETTLED)
            source.kill()
            killed = pylsl.local_clock()
            source.wait()
            time.sleep(outage)
            with subprocess.Popen([*peer, "--at-once", "--epoch", str(begun["epoch"])], **pipes) as again:
                again.stdout.readline()
                restarted = json.loads(again.stdout.readline())
                back = begun["epoch"] + restarted["first"]["eeg"] / 250.0
                time.sleep(PATIENCE)
                # A reader that only looks when something comes must be told while it does.
                watcher.stdin.close()
                late = threading.Timer(PATIENCE, watcher.kill)
                late.start()
                said = watcher.stdout.read()
                late.cancel()
                again.kill()
        finally:
            source.kill()
            watcher.kill()
    figures = [line for line in said.splitlines() if line.startswith('{"stamps"')]
    if not figures:
        return {"failed": "it ended without figures"}
    return judge_outage(json.loads(figures[-1]), killed, back, restarted["first"]["eeg"])


def judge_outage(given, killed, back, first_again):
    numbers, stamps, arrivals = (np.array(given[key]) for key in ("numbers", "stamps", "arrivals"))
    old, new = numbers < first_again, numbers >= first_again
    told = [row for row in given["told"] if row[0] > killed]
    logged = [row for row in told if row[1] == "log"]
    told = [row for row in told if row[1] != "log"]
    figures = {
        "true_outage_s": first_again / 250.0 - (int(numbers[old][-1]) / 250.0),
        "told_after_s": told[0][0] - killed if told else None,
        "told_by": told[0][1] if told else "nothing",
        "told": told[0][2] if told else "",
        "logged_after_s": logged[0][0] - killed if logged else None,
        "data_again_s": float(arrivals[new][0]) - back if new.any() else None,
        "twice": int(len(numbers) - len(np.unique(numbers))),
        "missing": None,
        "hole_in_stamps_s": None,
        "counted": given["counted"],
    }
    if new.any():
        figures["hole_in_stamps_s"] = float(stamps[new][0] - stamps[old][-1])
        figures["missing"] = int(numbers[new][0] - numbers[old][-1] - 1)
    return figures


# -- putting it together -----------------------------------------------------------------------------------------------


def child(*arguments):
    return [sys.executable, str(Path(__file__).resolve()), *map(str, arguments)]


def measure(contender, rate, channels, seconds):
    """One contender's figures, or why there are none."""
    name = f"insula-bench-{uuid.uuid4().hex[:8]}"
    with subprocess.Popen(child("--feed", name, rate, channels), stdout=subprocess.PIPE, text=True) as outlet:
        try:
            outlet.stdout.readline()
            done = subprocess.run(
                child("--contend", contender, name, rate, channels, "--seconds", seconds),
                capture_output=True,
                text=True,
                timeout=seconds + 90,
                check=False,
            )
        finally:
            outlet.kill()
    if done.returncode:
        return {"failed": (done.stderr.strip().splitlines() or ["no message"])[-1]}
    return json.loads(done.stdout.splitlines()[-1])


def pooled(rounds):
    """One contender's rounds as one: the median of each figure, counts added up."""
    failed = [row for row in rounds if "failed" in row]
    if failed:
        return failed[0]

    def merge(parts):
        first = parts[0]
        if isinstance(first, dict):
            return {key: merge([part[key] for part in parts]) for key in first}
        return sum(parts) if isinstance(first, int) else float(np.median(parts))

    return merge(rounds)


def judge(results):
    """[(target, figure, met)]; met is None where a contender is missing."""
    verdicts = []
    if ring := results.get("ring_us"):
        shortest, longest = (ring[str(seconds)]["ring"]["p50"] for seconds in (RING_SECONDS[0], RING_SECONDS[-1]))
        ratio = longest / shortest
        verdicts.append(("ring write at 300 s: at most 2 x that at 10 s", f"{ratio:.2f} x", ratio <= 2.0))
    if outage := results.get("outage", {}).get("insula"):
        after, counted = outage.get("told_after_s"), outage.get("counted")
        met = after is not None and after <= 1.0
        verdicts.append(("outage: told within 1 s", f"{after:.2f} s" if after is not None else "not told", met))
        same = counted is not None and abs(counted - (outage.get("missing") or 0)) <= 1
        verdicts.append(("outage: as many samples said to be missing as are", f"{counted}", same))
        verdicts.append(("outage: no sample twice", f"{outage.get('twice')}", outage.get("twice") == 0))
    if "live" not in results:
        return verdicts
    for rate, channels in LOADS:
        rows = results["live"][f"{rate} Hz x {channels}"]
        verdicts.append(_compare(rows, "insula", "pylsl", f"{rate} Hz x {channels}: p50 at most 2 x bare pylsl's", 2.0))
    rows = results["live"]["1000 Hz x 64"]
    verdicts.append(
        _compare(rows, "mne-lsl 300 s", "insula", "1 kHz x 64: p50 at least 3 x lower than MNE-LSL 300 s", 3.0)
    )
    target = "1 kHz x 64: CPU at most a fifth of MNE-LSL 300 s"
    ours, theirs = rows["insula"].get("cpu"), rows["mne-lsl 300 s"].get("cpu")
    if ours is None or theirs is None:
        verdicts.append((target, "not measured", None))
    else:
        verdicts.append((target, f"{ours / theirs:.2f}", ours <= theirs / 5))
    return verdicts


def _compare(rows, over, under, target, limit):
    if "failed" in rows[over] or "failed" in rows[under]:
        return target, "not measured", None
    ratio = rows[over]["latency_ms"]["p50"] / rows[under]["latency_ms"]["p50"]
    met = ratio >= limit if under == "insula" else ratio <= limit
    return target, f"{ratio:.2f} x", bool(met)


def show(results):
    for key, value in results["machine"].items():
        print(f"{key:>14}  {value}")
    show_outage(results)
    if "ring_us" in results:
        show_ring(results)
    for load, rows in results.get("live", {}).items():
        show_latency(load, rows, results["rounds"])
    print()
    for target, figure, met in results["targets"]:
        print(f"{'met' if met else 'MISSED' if met is False else '-':>8}  {target}: {figure}")


def show_ring(results):
    print("\nring write, us a chunk of 32 x 64 float32 (one call, timer included)")
    print(f"{'length':>10} {'':>12} {'p50':>10} {'p99':>10} {'max':>10}")
    for seconds, methods in results["ring_us"].items():
        for method, row in methods.items():
            print(f"{seconds + ' s':>10} {method:>12} {row['p50']:10.2f} {row['p99']:10.2f} {row['max']:10.2f}")


def show_latency(load, rows, rounds):
    print(f"\n{load}, chunks of {1e3 * CHUNK_SECONDS:g} ms, median of {rounds} rounds: latency in ms, CPU")
    print(f"{'':>16} {'p50':>8} {'p99':>8} {'max':>8} {'CPU':>7} {'chunks':>7}")
    for contender, row in rows.items():
        if "failed" in row:
            print(f"{contender:>16}  {row['failed']}")
            continue
        latency = row["latency_ms"]
        numbers = f"{latency['p50']:8.2f} {latency['p99']:8.2f} {latency['max']:8.2f}"
        print(f"{contender:>16} {numbers} {row['cpu']:7.1%} {latency['count']:7d}")
        for stage, part in row["stages_ms"].items():
            print(f"{'':>16} {part['p50']:8.2f} {part['p99']:8.2f} {part['max']:8.2f}  of it: {stage}")
        if "filter_delay_ms" in row:
            print(
                f"{'':>16} signal delay, apart: filters {row['filter_delay_ms']:.1f} ms at 10 Hz; a window is "
                f"complete {row['window_complete_ms']:.1f} ms after its end (resampler); {row['lost']} samples lost"
            )


def show_outage(results):
    if "outage" not in results:
        return
    print(f"\nsource killed, started again {results['outage_seconds']:g} s later (250 Hz x 8); seconds, samples")
    heads = (
        "told after",
        "by",
        "logged after",
        "data again",
        "true outage",
        "hole seen",
        "missing",
        "said missing",
        "twice",
    )
    print(f"{'':>16} " + " ".join(f"{head:>12}" for head in heads))
    for contender, row in results["outage"].items():
        if "failed" in row:
            print(f"{contender:>16}  {row['failed']}")
            continue
        keys = (
            "told_after_s",
            "told_by",
            "logged_after_s",
            "data_again_s",
            "true_outage_s",
            "hole_in_stamps_s",
            "missing",
            "counted",
            "twice",
        )
        cells = [row[key] for key in keys]
        shown = [f"{cell:.2f}" if isinstance(cell, float) else "-" if cell is None else str(cell) for cell in cells]
        print(f"{contender:>16} " + " ".join(f"{cell:>12}" for cell in shown) + f"  {row['told'][:60]}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--seconds", type=float, default=30.0, help="measured for each contender in all rounds together"
    )
    parser.add_argument("--rounds", type=int, default=3, help="the contenders in turn, so often; medians are reported")
    parser.add_argument("--outage", type=float, default=10.0, help="seconds between the kill and the restart")
    parser.add_argument("--only", choices=PARTS, action="append", help="this part; may be given more than once")
    parser.add_argument("--json", type=Path, help="write the figures there, too")
    parser.add_argument("--feed", nargs=3, metavar=("NAME", "RATE", "CHANNELS"), help=argparse.SUPPRESS)
    parser.add_argument("--contend", nargs=4, metavar=("WHO", "NAME", "RATE", "CHANNELS"), help=argparse.SUPPRESS)
    parser.add_argument("--watch", nargs=2, metavar=("WHO", "NAME"), help=argparse.SUPPRESS)
    wanted = parser.parse_args()
    os.environ.setdefault("LSLAPICFG", str(Path(__file__).resolve().parents[2] / "devices" / "loopback.cfg"))
    if wanted.feed:
        feed(wanted.feed[0], int(wanted.feed[1]), int(wanted.feed[2]))
    elif wanted.contend:
        who, name, rate, channels = wanted.contend
        print(json.dumps(contend(who, name, int(rate), int(channels), wanted.seconds)))
    elif wanted.watch:
        who, name = wanted.watch
        print(json.dumps(WATCHERS[who.partition(" ")[0]](name)))
    else:
        parts = wanted.only or PARTS
        results = {"machine": machine(), "seconds": wanted.seconds, "rounds": wanted.rounds}
        if "outage" in parts:
            results["outage_seconds"] = wanted.outage
            results["outage"] = {who: survive(who, wanted.outage) for who in SURVIVORS}
        if "ring" in parts:
            results["ring_us"] = ring_writes()
        if "latency" in parts:
            results["live"] = {}
        for rate, channels in LOADS if "latency" in parts else ():
            # In turn, because the speed of a machine drifts.
            turns = [
                {who: measure(who, rate, channels, wanted.seconds / wanted.rounds) for who in CONTENDERS}
                for _ in range(wanted.rounds)
            ]
            results["live"][f"{rate} Hz x {channels}"] = {
                who: pooled([turn[who] for turn in turns]) for who in CONTENDERS
            }
        results["targets"] = judge(results)
        show(results)
        if wanted.json:
            wanted.json.write_text(json.dumps(results, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()

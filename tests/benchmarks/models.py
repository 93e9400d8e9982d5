"""The network in every runtime: ``models.py [--rounds N] [--json OUT] [--quick] [--beside-dashboard S] [--people N]``.

The fused network at the published size (CBraMod, 12 layers of width 200, for EEG and again for one lead of ECG; with
random weights, which do not change the time, but for 19 x 10 with ``--published FOLDER``, the trained one that
`parity.py` keeps there) for 14 channels x 4 s, 14 x 10 s and 19 x 10 s, batches of 1, 4 and 16,
two threads each, all contenders in one process, one after the other in every round:

- eager: PyTorch with the published layout (``rfft``, ``nn.MultiheadAttention`` on tokens laid out anew in each layer);
- compiled: the same through ``torch.compile``, where a compiler is here;
- ort fp32 and ort int8: ONNX Runtime; a session uses int8 where the bundle has such a graph
  (`offline_training.precision`) and its golden output allows it, else fp32;
- openvino: in fp32, and in bf16 where the processor has it.

Beside each the largest error of its embedding against eager, over the largest value, with random weights; on trained
ones and real windows `parity.py` states it. Then the bundle that ships, and what each runtime costs in memory, in a
process of its own. ``--beside-dashboard S`` runs a session in real time for S seconds with a dashboard (offscreen) on
two cores, one inference thread, and states how long the model took. ``--people N`` is the real command ``insula live``
with N made-up people on two cores for ``--seconds``, with the bundle that ships and with the published size: how many
windows were skipped.

A target that is missed prints MISSED, and the exit status is 1.
"""

from __future__ import annotations

import argparse
import copy
import dataclasses
import json
import math
import os
import platform
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))
SIZES = ((14, 4), (14, 10), (19, 10))
BATCHES = (1, 4, 16)
THREADS = 2
FASTER, LATE_MS, LOWER_SHARE = 2.0, 40.0, 0.05
missed: list[str] = []


def check(met: bool, what: str) -> None:
    print(f"{'met   ' if met else 'MISSED'}  {what}")
    if not met:
        missed.append(what)


def published(network):
    """The same network with the published layout: ``rfft`` and PyTorch's own multi-head attention."""
    import torch
    from torch import nn

    class Layer(nn.Module):
        def __init__(self, layer) -> None:
            super().__init__()
            self.layer = layer
            half, heads = layer.norm1.normalized_shape[0] // 2, layer.self_attn_s.heads
            self.over_channels, self.over_patches = (
                nn.MultiheadAttention(half, heads, batch_first=True) for _ in range(2)
            )
            self.over_channels.load_state_dict(layer.self_attn_s.state_dict())
            self.over_patches.load_state_dict(layer.self_attn_t.state_dict())

        def forward(self, x):
            batch, channels, patches, width = x.shape
            normed, half, layer = self.layer.norm1(x), width // 2, self.layer
            across = normed[..., :half].transpose(1, 2).contiguous().view(batch * patches, channels, half)
            along = normed[..., half:].contiguous().view(batch * channels, patches, half)
            across = self.over_channels(across, across, across, need_weights=False)[0]
            along = self.over_patches(along, along, along, need_weights=False)[0]
            across = across.contiguous().view(batch, patches, channels, half).transpose(1, 2)
            x = x + torch.cat((across, along.contiguous().view(batch, channels, patches, half)), dim=-1)
            return x + layer.linear2(nn.functional.gelu(layer.linear1(layer.norm2(x))))

    class Embedding(nn.Module):
        def __init__(self, embedding) -> None:
            super().__init__()
            self.embedding = embedding

        def forward(self, x, mask=None):
            batch, channels, patches, samples = x.shape
            one = self.embedding
            time_branch = one.proj_in(x.contiguous().view(batch, 1, channels * patches, samples))
            time_branch = time_branch.permute(0, 2, 1, 3).contiguous().view(batch, channels, patches, -1)
            spectrum = torch.abs(torch.fft.rfft(x.contiguous().view(-1, samples), dim=-1, norm="forward"))
            embedded = time_branch + one.spectral_proj(spectrum.view(batch, channels, patches, -1))
            return embedded + one.positional_encoding(embedded.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)

    made = copy.deepcopy(network)
    for encoder in (made.eeg_encoder, made.ecg_encoder):
        encoder.patch_embedding = Embedding(encoder.patch_embedding)
        encoder.encoder = nn.Sequential(*(Layer(layer) for layer in encoder.encoder.layers))
    return made.eval()


def bundle_of(folder: Path, channels: int, seconds: int):
    """A bundle of the published size with random weights and its graphs of lower precision, and its network. The
    manifest is that of the default."""
    import safetensors.torch
    import torch

    from models.api import InputSpec
    from models.bundle import (
        DISTANCE,
        GOLDEN,
        GRAPH,
        WEIGHTS,
        DistanceLimit,
        default_bundle_folder,
        load_bundle,
        pack_golden,
        write_bundle,
    )
    from models.distance import Reference, pack_references
    from models.fusion import FusionConfig, FusionModel
    from offline_training.export import example_inputs, onnx_graph, torch_outputs
    from offline_training.precision import add_precisions

    torch.manual_seed(0)
    config = FusionConfig(eeg_channels=channels, seconds=seconds, band_power=True, heart=True)
    network = FusionModel(config).eval()
    default = load_bundle(default_bundle_folder())
    old = default.manifest
    eeg, ecg = old.window.inputs
    eeg = InputSpec(kind="eeg", channels=tuple(eeg.channels)[:channels], band=eeg.band, notch=eeg.notch)
    manifest = dataclasses.replace(
        old,
        name="published size",
        window=dataclasses.replace(old.window, inputs=(eeg, ecg), seconds=float(seconds)),
        embedding={"eeg": config.eeg_dim, "ecg": config.ecg_dim},
        rest=dataclasses.replace(old.rest, pooled_sd=(1.0,) * config.embedding_dim),
        network=dataclasses.asdict(config),
        distance={kind: DistanceLimit(plain=1e6, rested=1e6) for kind in ("eeg", "ecg")},
        tolerance=1e-4,
    )
    widths = {"eeg": config.eeg_dim, "ecg": config.ecg_dim}
    anywhere = {kind: Reference(np.zeros(width), np.eye(width)) for kind, width in widths.items()}
    inputs = example_inputs(network, 1, seed=0)
    files = {name: default.read(name) for name in default.files} | {
        GRAPH: onnx_graph(network),
        WEIGHTS: safetensors.torch.save({name: value.contiguous() for name, value in network.state_dict().items()}),
        GOLDEN: pack_golden(inputs, torch_outputs(network, inputs)),
        DISTANCE: pack_references({kind: (one, one) for kind, one in anywhere.items()}),
    }
    plain = write_bundle(folder.with_name(f"{folder.name}-fp32"), manifest, files)
    return add_precisions(plain, folder), network


def contenders(bundle, network, compiled: bool):
    """name -> runtime, and the name of the one that a session takes."""
    import torch

    from models.api import ModelError
    from models.bundle import INPUTS, OUTPUTS
    from models.runtimes import openvino, ort

    torch.set_num_threads(THREADS)

    def eager(model):
        def run(inputs):
            with torch.inference_mode():
                outputs = model(*(torch.from_numpy(inputs[name]) for name in INPUTS))
            return {name: value.numpy() for name, value in zip(OUTPUTS, outputs, strict=True)}

        return run

    official = published(network)
    made = {"eager": eager(official)}
    if compiled:
        made["compiled"] = eager(torch.compile(official, dynamic=False))
    for precision in ("fp32", "int8"):
        made[f"ort {precision}"] = ort.load(bundle, threads=THREADS, precision=precision)
    for precision in ("fp32", "bf16"):
        try:
            made[f"openvino {precision}"] = openvino.load(bundle, threads=THREADS, precision=precision)
        except ModelError as error:
            print(error)
    session = ort.load(bundle)
    taken = session.precision
    print(*session.passed_over, f"a session takes ONNX Runtime in {taken}", sep="\n")
    return made, f"ort {taken}"


def race(runs, inputs, rounds: int, repeats: int = 5):
    """name -> (times in ms, error against the first); interleaved, each warm. One that fails is left out, said."""
    wanted, times, errors = None, {}, {}
    for name, run in list(runs.items()):
        try:
            got = [run(inputs) for _ in range(3)][-1]
        except Exception as error:  # noqa: BLE001  (torch.compile raises what it likes)
            print(f"{name}: cannot run here ({type(error).__name__}: {' '.join(str(error).split())[:120]})")
            del runs[name]
            continue
        wanted = wanted or got
        errors[name] = float(np.abs(got["embedding"] - wanted["embedding"]).max() / np.abs(wanted["embedding"]).max())
        times[name] = []
    for _ in range(rounds):
        for name, run in runs.items():
            run(inputs)
            for _ in range(repeats):
                begun = time.perf_counter()
                run(inputs)
                times[name].append(1e3 * (time.perf_counter() - begun))
    return {name: (np.array(times[name]), errors[name]) for name in runs}


def speed(options, found) -> None:
    import torch

    from models.bundle import default_bundle_folder, load_bundle
    from models.runtimes import load_runtime
    from models.runtimes.pytorch import load_model
    from offline_training.export import example_inputs

    sizes, batches = (SIZES[-1:], BATCHES[:1]) if options.quick else (SIZES, BATCHES)
    for channels, seconds in sizes:
        with tempfile.TemporaryDirectory() as folder:
            if options.published and (channels, seconds) == SIZES[-1]:
                bundle = load_bundle(options.published)
                network = load_model(bundle)
            else:
                bundle, network = bundle_of(Path(folder) / "bundle", channels, seconds)
            runs, default = contenders(bundle, network, not options.quick)
        for batch in batches:
            print(f"\n{channels} channels x {seconds} s + ECG, batch {batch}, {THREADS} threads")
            timed = race(runs, example_inputs(network, batch, seed=3), options.rounds)
            base = float(np.median(timed["eager"][0]))
            for name, (times, error) in timed.items():
                p50, p99 = (float(np.percentile(times, share)) for share in (50, 99))
                print(f"  {name:14} {p50:8.2f} ms  p99 {p99:8.2f} ms  x {base / p50:5.2f}  error {error:.1e}")
                found.append(
                    {"size": [channels, seconds], "batch": batch, "runtime": name, "p50": p50, "p99": p99}
                    | {"faster": base / p50, "error": error}
                )
            if batch == 1:
                times, error = timed[default]
                gain = base / float(np.median(times))
                check(gain >= FASTER, f"{default} {gain:.2f} x faster than eager (at least {FASTER:g})")
                check(error < LOWER_SHARE, f"{default} within {LOWER_SHARE:g} of eager: {error:.1e}")
    default = load_bundle(default_bundle_folder())
    torch.set_num_threads(1)
    runs = {name: load_runtime(name, default) for name in ("pytorch", "ort", "openvino")}
    print(f"\n{default.label}, 19 channels x 10 s + ECG, batch 1, 1 thread")
    for name, (times, error) in race(runs, real_windows()[50], options.rounds).items():
        p50, p99 = (float(np.percentile(times, share)) for share in (50, 99))
        print(f"  {runs[name].about:42} {p50:7.2f} ms  p99 {p99:7.2f} ms  error {error:.1e}")


def real_windows():
    """What the default model feeds its network with over the recording that ships."""
    from models.bundle import default_bundle_folder, load_bundle
    from models.model import Model
    from models.runtimes import load_runtime

    default = load_bundle(default_bundle_folder())
    runtime, taken = load_runtime("ort", default), []

    def listening(inputs):
        taken.append(inputs)
        return runtime(inputs)

    model = Model(default, listening)
    for window in demo_windows(default.manifest.window):
        model.update(window)
    return taken


def demo_windows(spec):
    from devices.api import Chunk, End
    from devices.xdf import XdfReplay
    from insula import demo_recording
    from realtime.windows import iter_windows

    def chunks(device):
        while True:
            for item in device.read(1.0):
                if isinstance(item, End):
                    return
                if isinstance(item, Chunk):
                    yield item

    with XdfReplay(demo_recording(), speed=math.inf) as device:
        return list(iter_windows(chunks(device), spec, device.streams))


MEMORY = """
import sys
sys.path.insert(0, sys.argv[1])
from pathlib import Path
import psutil
from models.bundle import golden, load_bundle
from models.runtimes import load_runtime
bundle = load_bundle(Path(sys.argv[2]))
inputs, before = golden(bundle)[0], psutil.Process().memory_info().rss
runtime = load_runtime(sys.argv[3], bundle)
for _ in range(20):
    runtime(inputs)
print((psutil.Process().memory_info().rss - before) / 1e6)
"""


def memory(found) -> None:
    print("\nmemory of a process beyond Python and the bundle's reader, 19 channels x 10 s + ECG, batch 1")
    with tempfile.TemporaryDirectory() as folder:
        bundle_of(Path(folder) / "bundle", 19, 10)
        for name in ("pytorch", "ort", "openvino"):
            command = [sys.executable, "-c", MEMORY, str(ROOT), f"{folder}/bundle", name]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            said = f"{float(done.stdout):6.0f} MB" if done.returncode == 0 else done.stderr.strip().splitlines()[-1]
            print(f"  {name:10} {said}")
            found.append({"runtime": name, "memory_mb": said})


def two_cores() -> None:
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:2])


def beside_dashboard(seconds: float, name: str, found) -> None:
    """A session of the demo's recording in real time: the default model, and the published size on the same window."""
    two_cores()
    os.environ["QT_QPA_PLATFORM"] = "offscreen"
    from devices.lsl import lsl_clock
    from devices.xdf import XdfReplay
    from insula import demo_recording
    from models.bundle import default_bundle_folder, load_bundle
    from models.model import Model
    from models.runtimes import load_runtime
    from realtime.remote import Server
    from realtime.session import Session

    with tempfile.TemporaryDirectory() as folder:
        large, _ = bundle_of(Path(folder) / "bundle", 19, 10)
        big = load_runtime(name, large)
    default = load_bundle(default_bundle_folder())
    small = load_runtime("ort", default)
    wide = large.manifest.embedding_dim
    took = []

    def both(inputs):
        begun = time.perf_counter()
        rested = {"rest_mean": np.zeros((1, wide), np.float32), "rest_sd": np.ones((1, wide), np.float32)}
        big({**inputs, **rested})
        took.append(1e3 * (time.perf_counter() - begun))
        return small(inputs)

    device = XdfReplay(demo_recording(), speed=1.0)
    device.set_loop(True)
    with Server("benchmark") as server:
        session = Session([device], Model(default, both), title="benchmark", clock=lsl_clock, server=server)
        window = subprocess.Popen([sys.executable, "-m", "gui.app", "--attach", server.address], cwd=ROOT)
        begun = time.monotonic()
        try:
            summary = session.run(lambda health: session.stop() if time.monotonic() - begun > seconds else None)
        finally:
            window.terminate()
            window.wait(10)
    p50, p99 = (float(np.percentile(took[3:], share)) for share in (50, 99))
    print(f"\nbeside a dashboard and acquisition on two cores, {big.about}, {len(took)} windows")
    print(f"  published size: {p50:.1f} ms  p99 {p99:.1f} ms  max {max(took[3:]):.1f} ms; {summary.skipped} skipped")
    found.append({"beside_dashboard": name, "p50": p50, "p99": p99, "skipped": summary.skipped})
    check(p99 < LATE_MS, f"{name} p99 {p99:.1f} ms beside a dashboard (below {LATE_MS:g})")
    check(summary.skipped == 0, f"{summary.skipped} windows skipped beside a dashboard (0)")


def people(count: int, seconds: int, name: str, found) -> None:
    """The real command with ``count`` made-up people; the shipped model, then the published size."""
    two_cores()
    from models.bundle import default_bundle_folder

    with tempfile.TemporaryDirectory() as folder:
        large, _ = bundle_of(Path(folder) / "bundle", 19, 10)
        for said, bundle in (("the bundle that ships", default_bundle_folder()), ("published size", large.folder)):
            sources = [f"P{number:02}=synthetic:?seed={number}" for number in range(1, count + 1)]
            command = [sys.executable, "-m", "insula", "live", *sources, "--headless", "--runtime", name]
            command += ["--seconds", str(seconds), "--model", str(bundle)]
            done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
            if done.returncode:
                raise SystemExit(f"{' '.join(command)}: {done.stdout[-500:]}{done.stderr[-500:]}")
            rows = re.findall(r"P\d+: (\d+) windows, (\d+) with an estimate, (\d+) skipped", done.stdout)
            windows, estimates, skipped = (sum(int(row[at]) for row in rows) for at in range(3))
            print(f"\n{count} people for {seconds} s on two cores, {said}, {name}")
            print(f"  {windows} windows, {estimates} with an estimate, {skipped} skipped; {len(rows)} people")
            found.append({"people": count, "bundle": said, "runtime": name, "windows": windows, "skipped": skipped})
            check(len(rows) == count and skipped == 0, f"{skipped} windows skipped of {count} people, {said} (0)")


def main() -> int:
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--rounds", type=int, default=20)
    made.add_argument("--quick", action="store_true", help="19 channels x 10 s and batch 1 only, without torch.compile")
    made.add_argument("--published", type=Path, metavar="FOLDER", help="a bundle of the published size, trained")
    made.add_argument("--no-speed", action="store_true", help="only the parts asked for")
    made.add_argument("--beside-dashboard", type=float, metavar="S", default=0.0)
    made.add_argument("--people", type=int, metavar="N", default=0)
    made.add_argument("--seconds", type=int, default=120, help="of --people")
    made.add_argument("--runtime", default="ort", help="of --beside-dashboard and --people (default: ort)")
    made.add_argument("--json", type=Path)
    options = made.parse_args()
    import onnxruntime
    import openvino
    import torch

    cpu = next((line for line in lines("/proc/cpuinfo") if line.startswith("model name")), platform.processor())
    versions = f"torch {torch.__version__}, onnxruntime {onnxruntime.__version__}, openvino {openvino.__version__}"
    flags = sorted({"amx_bf16", "avx512_bf16", "avx512f"} & set(" ".join(lines("/proc/cpuinfo")).split()))
    print(f"{cpu.split(':')[-1].strip()} x {os.cpu_count()} ({' '.join(flags)})")
    print(f"Python {platform.python_version()}, {versions}")
    print(f"load before: {os.getloadavg()[0]:.1f}")
    found: list[dict[str, object]] = []
    if not options.no_speed:
        speed(options, found)
        memory(found)
    if options.beside_dashboard:
        beside_dashboard(options.beside_dashboard, options.runtime, found)
    if options.people:
        people(options.people, options.seconds, options.runtime, found)
    if options.json:
        report = {"cpu": cpu, "versions": versions, "missed": missed, "load": os.getloadavg(), "figures": found}
        options.json.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    return 1 if missed else 0


def lines(path: str) -> list[str]:
    return Path(path).read_text(encoding="utf-8").splitlines() if Path(path).exists() else []


if __name__ == "__main__":
    sys.exit(main())

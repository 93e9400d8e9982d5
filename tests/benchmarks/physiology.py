"""What heart, rhythms and quality of a session cost: ``python tests/benchmarks/physiology.py [--seconds 120]``.

A made-up person (`devices.synthetic_eeg`, `devices.synthetic_ecg`) is cut into chunks as an amplifier and a strap send
them and goes through what the analysis thread of a session runs: `Windower` with the verdicts on every channel, and
`Physiology`. Prints the share of one core (CPU time of the thread over seconds of signal) of each, and how long the
slowest chunk took. The first minutes count apart: figures over 5 min of beats cost more than those over one. Then what
the figures of one second cost after ten minutes, when as many beats are kept as ever are.

With ``--ludb FILE.npz`` instead: PR, QRS and QT of each person and lead as a session gives them, against the medians
of what the cardiologists marked, at 500 Hz and at the 130 Hz of a strap. Limits were chosen on the people with odd
numbers. With ``--strap FILE.csv.gz`` in how many seconds of a recording of a Polar H10 (time, mV) they are given.
"""

from __future__ import annotations

import argparse
import gzip
import json
import platform
import sys
import time
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))
RATE, CHANNELS, ECG_RATE, CHUNK = 500.0, 32, 130.0, 16
LABELS = (  # noqa: SIM905  (as a cap lists them)
    "Fp1 Fp2 F7 F3 Fz F4 F8 FC5 FC1 FC2 FC6 T7 C3 Cz C4 T8 CP5 CP1 CP2 CP6 P7 P3 Pz P4 P8 PO9 O1 Oz O2 PO10 AF3 AF4"
).split()


def made(seconds: float, ecg_rate: float):
    """EEG (n, CHANNELS) with alpha, and an ECG (m, 1) of 65 beats a minute that breathe, uV."""
    random = np.random.default_rng(0)
    n = round(seconds * RATE)
    f = np.fft.rfftfreq(n, 1 / RATE)
    spectrum = np.fft.rfft(random.standard_normal((n, CHANNELS)), axis=0)
    spectrum *= np.where(f > 0.5, np.maximum(f, 0.5) ** -0.5, 0.0)[:, None]
    eeg = np.fft.irfft(spectrum, n, axis=0)
    eeg = 12 * eeg / eeg.std() + 8 * np.sin(2 * np.pi * 10 * np.arange(n) / RATE)[:, None]
    t = np.arange(round(seconds * ecg_rate)) / ecg_rate
    beats, at = [], 0.5
    while at < seconds:
        beats.append(at)
        at += 0.92 + 0.05 * np.sin(2 * np.pi * 0.25 * at) + 0.01 * random.standard_normal()
    ecg = 5 * random.standard_normal(len(t))
    for height, width, shift in (
        (1000.0, 0.012, 0.0),
        (-200.0, 0.012, 0.03),
        (100.0, 0.02, -0.16),
        (250.0, 0.05, 0.25),
    ):
        for beat in beats:
            low, high = t.searchsorted([beat + shift - 5 * width, beat + shift + 5 * width])
            ecg[low:high] += height * np.exp(-0.5 * ((t[low:high] - beat - shift) / width) ** 2)
    return eeg.astype(np.float32), ecg[:, None].astype(np.float32)


def chunks(seconds: float, ecg_rate: float):
    from devices.api import Chunk

    eeg, ecg = made(seconds, ecg_rate)
    found = []
    for key, data, rate, size in (("eeg", eeg, RATE, CHUNK), ("ecg", ecg, ecg_rate, 73 if ecg_rate < 200 else CHUNK)):
        times = 1000.0 + np.arange(len(data)) / rate
        found += [Chunk(key, times[at : at + size], data[at : at + size]) for at in range(0, len(data), size)]
    return sorted(found, key=lambda chunk: chunk.times[-1])


def measure(name: str, work, items, seconds: float) -> dict[str, float]:
    """``work`` takes every item; prints the CPU it used, and returns it."""
    spent = np.empty(len(items))
    for at, item in enumerate(items):
        before = time.thread_time()
        work(item)
        spent[at] = time.thread_time() - before
    ends = np.array([item.times[-1] for item in items]) - 1000.0
    early, late = ends < 60, ends >= seconds - 60
    shares = [100 * spent[part].sum() / min(60.0, seconds) for part in (early, late)]
    worst = 1000 * np.quantile(spent, [0.99, 1.0])
    print(
        f"{name:32} {shares[0]:6.2f} % first minute  {shares[1]:6.2f} % last minute   a chunk: "
        f"p99 {worst[0]:.1f} ms, max {worst[1]:.1f} ms"
    )
    return {"first_minute": shares[0], "last_minute": shares[1], "p99_ms": worst[0], "max_ms": worst[1]}


def figures_cost(ecg_rate: float) -> dict[str, float]:
    """What all figures of the heart cost once a second, after ten minutes; prints and returns milliseconds."""
    from realtime.heart import Heart

    _, ecg = made(700.0, ecg_rate)
    times, samples = 1000.0 + np.arange(len(ecg)) / ecg_rate, ecg[:, 0].astype(np.float64)
    heart, spent, size = Heart(ecg_rate), [], round(ecg_rate)
    for second in range(len(ecg) // size):
        part = slice(second * size, (second + 1) * size)
        heart.push(times[part], samples[part])
        before = time.thread_time()
        heart.measures(1001.0 + second)
        spent.append(1000 * (time.thread_time() - before))
    late = np.array(spent[600:])
    print(f"all figures of the heart, once a second: median {np.median(late):.2f} ms, max {late.max():.2f} ms")
    return {"median_ms": float(np.median(late)), "max_ms": float(late.max())}


def marked(at, symbols) -> dict[str, float]:
    """PR, QRS and QT, ms: medians of what is marked; NaN for fewer than three."""
    known: dict[str, list[float]] = {"PR": [], "QRS": [], "QT": []}
    ends = [
        (symbols[k], at[k - 1] if symbols[k - 1] == "(" else np.nan, at[k + 1] if symbols[k + 1] == ")" else np.nan)
        for k in range(1, len(at) - 1)
        if symbols[k] in "pNt"
    ]
    for before, (symbol, onset, offset), after in zip([("", 0, 0), *ends], ends, [*ends[1:], ("", 0, 0)], strict=False):
        if symbol == "N":
            known["QRS"].append(offset - onset)
            known["PR"] += [onset - before[1]] if before[0] == "p" else []
            known["QT"] += [after[2] - onset] if after[0] == "t" else []
    whole = {name: np.array([value for value in values if value == value]) for name, values in known.items()}
    return {name: 1000 * float(np.median(v)) if len(v) > 2 else np.nan for name, v in whole.items()}


def ludb(path: Path) -> dict[str, dict[str, float]]:
    """How far the intervals are from the cardiologists', by rate, half of the people and interval; printed, too."""
    from scipy import signal

    from realtime.heart import Heart

    file, table = np.load(path), {}
    rows: dict[tuple[str, str, str], list[tuple[float, float]]] = {}
    for key in (name.removesuffix("_sample") for name in file.files if name.endswith("_sample")):
        number, lead = key.split("_")
        samples = file["data"][int(number) - 1][:, ("i", "ii").index(lead)] * float(file["scale_uV"])
        truth = marked(file[f"{key}_sample"] / float(file["fs"]), file[f"{key}_sym"])
        for rate, those in ((500.0, samples), (130.0, signal.resample_poly(samples, 13, 50))):
            heart = Heart(rate)
            heart.push(np.arange(len(those)) / rate, those)
            figures = heart.measures(len(those) / rate)
            for name, value in truth.items():
                half = "odd" if int(number) % 2 else "even"
                rows.setdefault((f"{rate:g} Hz", half, name), []).append((figures[name].value, value))
    for kind, pairs in sorted(rows.items(), reverse=True):
        given, real = np.array(pairs).T
        both = np.isfinite(given) & np.isfinite(real)
        error = given[both] - real[both]
        one = {
            "mean_ms": float(error.mean()),
            "sd_ms": float(error.std()),
            "median_absolute_ms": float(np.median(np.abs(error))),
            "given": int(both.sum()),
            "of": int(np.isfinite(real).sum()),
            "given_where_nothing_is_marked": int(np.count_nonzero(np.isfinite(given) & ~np.isfinite(real))),
            "nothing_is_marked": int(np.count_nonzero(~np.isfinite(real))),
        }
        table[" ".join(kind)] = one
        print(
            f"{' '.join(kind):20} {one['mean_ms']:+6.1f} ± {one['sd_ms']:5.1f} ms, median of the absolute error "
            f"{one['median_absolute_ms']:4.1f} ms; given in {one['given']} of {one['of']} leads, and in "
            f"{one['given_where_nothing_is_marked']} of {one['nothing_is_marked']} where nothing is marked"
        )
    return table


def strap(path: Path) -> dict[str, dict[str, float]]:
    """In what share of the seconds after the first 15 each interval is given, and its 5th, 50th and 95th percentile."""
    from realtime.heart import INTERVALS, Heart

    with gzip.open(path, "rt") as lines:
        next(lines)
        samples = 1000 * np.array([float(cells[1]) for line in lines if (cells := line.split(","))[1]])
    size, heart, found = round(ECG_RATE), Heart(ECG_RATE), []
    for second in range(len(samples) // size):
        part = slice(second * size, (second + 1) * size)
        heart.push(np.arange(part.start, part.stop) / ECG_RATE, samples[part])
        found.append([heart.measures(second + 1.0)[name].value for name in INTERVALS])
    table = {}
    for name, values in zip(INTERVALS, np.array(found[15:]).T, strict=True):
        low, middle, high = np.nanpercentile(values, [5, 50, 95]).tolist()
        given = float(np.isfinite(values).mean())
        table[name] = {"given": given, "p5_ms": low, "median_ms": middle, "p95_ms": high}
        print(f"{name:4} given in {given:.0%} of {len(values)} s: {middle:.0f} ms ({low:.0f} to {high:.0f})")
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=330.0, help="of signal")
    parser.add_argument("--json", type=Path, metavar="OUT")
    parser.add_argument("--ludb", type=Path, metavar="FILE.npz")
    parser.add_argument("--strap", type=Path, metavar="FILE.csv.gz")
    chosen = parser.parse_args()
    if chosen.ludb or chosen.strap:
        table = (ludb(chosen.ludb) if chosen.ludb else {}) | (strap(chosen.strap) if chosen.strap else {})
        if chosen.json:
            chosen.json.write_text(json.dumps(table, indent=1), encoding="utf-8")
        return
    from devices.api import StreamInfo
    from models.api import InputSpec, WindowSpec
    from realtime.bandpower import BandPower
    from realtime.physiology import Physiology
    from realtime.windows import Windower

    figures: dict[str, dict[str, dict[str, float]]] = {}
    print(f"{platform.platform()}, Python {platform.python_version()}, NumPy {np.__version__}")
    for ecg_rate in (ECG_RATE, RATE):
        streams = [
            StreamInfo(key="eeg", kind="eeg", channels=tuple(LABELS), rate=RATE, unit="uV"),
            StreamInfo(key="ecg", kind="ecg", channels=("ECG",), rate=ecg_rate, unit="uV"),
        ]
        print(f"{CHANNELS} channels of EEG at {RATE:g} Hz, ECG at {ecg_rate:g} Hz, {chosen.seconds:g} s; of one core:")
        items = chunks(chosen.seconds, ecg_rate)
        eeg, ecg = ([item for item in items if item.stream == key] for key in ("eeg", "ecg"))
        spec = WindowSpec(
            inputs=(InputSpec(kind="eeg", channels=tuple(LABELS)), InputSpec(kind="ecg", channels=("ECG",))), hop=1.0
        )
        got = figures[f"ECG at {ecg_rate:g} Hz"] = {}
        got["heart"] = measure("heart", Physiology(streams[1:]).push, ecg, chosen.seconds)
        got["rhythms"] = measure("rhythms", BandPower(streams[0]).push, eeg, chosen.seconds)
        got["session"] = measure("heart and rhythms of a session", Physiology(streams).push, items, chosen.seconds)
        windower, physiology = Windower(spec, streams), Physiology(streams)
        got["windows"] = measure("filters, windows and quality", windower.push, items, chosen.seconds)
        windower = Windower(spec, streams)

        def everything(item, windower=windower, physiology=physiology) -> None:
            windower.push(item)
            physiology.push(item)

        got["all"] = measure("all of it", everything, items, chosen.seconds)
        got["figures"] = figures_cost(ecg_rate)
    if chosen.json:
        chosen.json.write_text(json.dumps(figures, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()

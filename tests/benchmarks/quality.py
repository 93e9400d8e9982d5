"""Quality, rhythms and their cost: ``python tests/benchmarks/quality.py [--only PART] [--json OUT]``.

Parts, all on recordings of ``INSULA_DATA`` (or ../shared/data beside the project):

- ecg: eegmat at the live hop of 1 s. The leads that it lost must be bad and the others good; bad and doubtful verdicts
  an hour of a channel and of a recording, on what has no known fault; how many of the windows that the shipped model is
  trained on have a bad channel; and what a gate makes of them beside older criteria (flat, railed, missing, amplitude).
- cinc: cinc2017's recordings labelled "~" (noise) against the others, AUROC of the mean score.
- faults: one fault at a time put into clean eegmat recordings; the share of the faulty channels' windows that are bad,
  or at least doubtful, for the right reason.
- bad-channels: by how much broken channels move the estimates of the bundle that ships.
- rhythms: band powers beside MNE's Welch on the same windows, slope beside specparam, alpha with closed eyes.
- repair: how much of real blinks, and of alpha, regression leaves.
- cost: band power and quality of 32 channels of EEG at 500 Hz, share of one core; our filters beside
  ``scipy.signal.sosfilt`` with state and ezmsg-sigproc, nanoseconds a sample of a channel.

Every figure on eegmat and cinc2017 is given for two halves (places even and odd in the sorted list). The limits of the
ECG were set before either was looked at: one is from the literature, the other a round figure. The limits of noise,
muscle and drift come from percentiles over all people of eegmat and the headset recordings, so the false alarms on
these are not those of unseen recordings.
"""

from __future__ import annotations

import argparse
import collections
import json
import os
import platform
import re
import sys
import time
import warnings
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))
FOLDER = Path(os.environ.get("INSULA_DATA", ROOT.parent / "shared" / "data"))
LOST = {"02rest", "13rest", "20mental arithmetic", "35mental arithmetic"}
HALVES = ("first half", "second half")
OPENBCI = ("Fp1", "Fp2", "C3", "C4", "T5", "T6", "O1", "O2")


def windows_of(samples, rate, labels, kind="eeg", *, notch=(), hop=1.0):
    from devices.api import Chunk, StreamInfo
    from models.api import InputSpec, WindowSpec
    from realtime.windows import iter_windows

    stream = StreamInfo(key="s", kind=kind, channels=tuple(labels), rate=rate, unit="uV")
    spec = WindowSpec(inputs=(InputSpec(kind=kind, channels=tuple(labels), notch=notch),), hop=hop)
    times = np.arange(len(samples)) / rate
    return list(iter_windows([Chunk("s", times, np.asarray(samples, np.float32))], spec, [stream]))


def shape_of(reason):
    return re.sub(r"\d[\d.]*", "#", reason)


def eegmat_recordings():
    from offline_training.datasets import eegmat

    people = []
    for recording in eegmat.everyone(FOLDER):
        if recording.person not in people:
            people.append(recording.person)
        yield HALVES[people.index(recording.person) % 2], recording


def joined(recording, key):
    return np.concatenate([chunk.data for chunk in recording.chunks if chunk.stream == key])


def openbci():
    lines = (FOLDER / "openbci" / "OpenBCI_GUI-v6-blinks-jawClench-alpha.txt").read_text().splitlines()
    return np.array([line.split(",")[1:9] for line in lines if line[:1].isdigit()], np.float32)


def emotiv():
    lines = (FOLDER / "emotiv_eye_state" / "EEG_Eye_State.arff").read_text().splitlines()
    names = [line.split()[1] for line in lines if line.startswith("@ATTRIBUTE")][:14]
    rows = np.array([[float(x) for x in line.split(",")] for line in lines if line[:1].isdigit()], np.float32)
    return names, rows[:, :14], rows[:, 14] > 0.5


# -- parts -------------------------------------------------------------------------------------------------------------


def legacy(window, kind):
    """Scores by the criteria that the shipped model was trained with, at most too good: a channel that they and others
    find bad is told by the worst."""
    kept = ("missing", "flat", "absent", "railed", "amplitude")
    return [v.score if not v.reason or any(word in v.reason for word in kept) else 1.0 for v in window.quality[kind]]


def alarms_an_hour(levels):
    """``levels``: of several recordings (windows at a hop of 1 s, channels) words. What is not good, an hour.

    Without the first and the last window of each recording: in the one a second is the filter's transient, in the other
    eegmat's last second is zeros; both are said, and neither is a false alarm.
    """
    ends = sum(int((one[at] != "good").sum()) for one in levels for at in (0, -1))
    levels = [one[1:-1] for one in levels]
    windows = sum(len(one) for one in levels)
    channels = sum(one.size for one in levels)
    table = {
        "hours of recording": round(windows / 3600, 2),
        "hours of a channel": round(channels / 3600, 2),
        "not good at the ends of recordings": ends,
    }
    for level in ("doubtful", "bad"):
        such = [one == level for one in levels]
        # A spell begins where the window before was not so: one event is seen by ten windows, because each is 10 s.
        spells = sum(int(one[:1].sum() + (one[1:] & ~one[:-1]).sum()) for one in such)
        count = sum(int(one.sum()) for one in such)
        table[level] = {
            "windows": count,
            "windows an hour of a channel": round(3600 * count / channels, 2),
            "spells an hour of a channel": round(3600 * spells / channels, 3),
            "windows with any an hour of recording": round(
                3600 * sum(int(one.any(1).sum()) for one in such) / windows, 1
            ),
            "spells an hour of recording": round(3600 * spells / windows, 2),
        }
    return table


def part_ecg_and_alarms():
    from offline_training.prepare import DEFAULT_GATE, DEFAULT_SPEC, REST_SECONDS, TRAIN_EVERY
    from realtime.windows import iter_windows

    lost = collections.Counter()
    levels = {(kind, half): [] for kind in ("EEG", "ECG") for half in HALVES}
    reasons = collections.Counter()
    gate, training = collections.Counter(), collections.Counter()
    opened = {}
    for half, recording in eegmat_recordings():
        name = recording.person + recording.phase
        rest_ends = opened.setdefault(recording.session, recording.start) + REST_SECONDS
        found = {"EEG": [], "ECG": []}
        for window in iter_windows(recording.chunks, DEFAULT_SPEC, recording.streams):
            for kind in found:
                found[kind].append([verdict.level for verdict in window.quality[kind.lower()]])
            if name in LOST:
                lost[found["ECG"][-1][0]] += 1
            resting = recording.rest and window.t_end <= rest_ends
            if resting or (window.t_end - window.seconds >= rest_ends and window.t_end % TRAIN_EVERY == 0):
                training["windows"] += 1
                training["with a bad channel of EEG"] += "bad" in found["EEG"][-1]
            for verdict in window.quality["eeg"]:
                if verdict.reason:
                    reasons[f"{verdict.level}: {shape_of(verdict.reason)}"] += 1
            for kind in ("eeg", "ecg"):
                now = [v.score for v in window.quality[kind]]
                before = legacy(window, kind)
                changed = sum(
                    (a < DEFAULT_GATE.bad_score) != (b < DEFAULT_GATE.bad_score)
                    for a, b in zip(now, before, strict=True)
                )
                passes = [
                    np.mean(s) >= DEFAULT_GATE.min_quality[kind]
                    and np.mean(np.array(s) < DEFAULT_GATE.bad_score) <= DEFAULT_GATE.max_bad_share
                    for s in (now, before)
                ]
                gate[f"{kind} channel windows"] += len(now)
                gate[f"{kind} channel windows newly bad"] += changed
                gate[f"{kind} windows"] += 1
                gate[f"{kind} windows that the gate now refuses"] += bool(passes[1] and not passes[0])
        levels["EEG", half].append(np.array(found["EEG"]))
        if name not in LOST:
            levels["ECG", half].append(np.array(found["ECG"]))
    return {
        "lost ECG windows": dict(lost),
        "other ECG windows called good": {
            half: f"{100 * np.mean(np.concatenate(levels['ECG', half]) == 'good'):.1f} %" for half in HALVES
        },
        "EEG reasons": dict(reasons.most_common(12)),
        "false alarms of good data": {
            f"{kind}, {half}": alarms_an_hour(found) for (kind, half), found in levels.items()
        },
        "what the model is trained on": dict(training),
        "beside the criteria of the shipped model": dict(gate),
    }


def part_cinc(count):
    stored = np.load(FOLDER / "cinc2017" / "cinc2017_train_130hz_int16.npz")
    labels, data = stored["labels"], stored["data"]
    starts = np.concatenate([[0], np.cumsum(stored["lengths"], dtype=np.int64)])
    rng = np.random.default_rng(1)
    table = {}
    for at, half in enumerate(HALVES):
        scores = {}
        for label in "NAO~":
            rows = rng.permutation(np.flatnonzero(labels == label)[at::2])[:count]
            found = []
            for row in rows:
                windows = windows_of(data[starts[row] : starts[row + 1], None], 130.0, ["ECG"], "ecg", hop=2.0)
                if windows:
                    found.append(np.mean([window.quality["ecg"][0].score for window in windows]))
            scores[label] = np.array(found)
        clean = np.concatenate([scores[label] for label in "NAO"])
        noise = scores["~"]
        table[half] = {
            "AUROC": float(np.mean((clean[:, None] > noise) + 0.5 * (clean[:, None] == noise))),
            "recordings with mean score below 0.5": {
                label: f"{np.mean(scores[label] < 0.5):.2f} of {len(scores[label])}" for label in "NAO~"
            },
        }
    return table


def faults():
    """name -> (rows that are faulty, what it does to samples (n, 19), the words of the reason)."""

    def put(rows, make):
        def change(samples, rng):
            out = samples.copy()
            out[:, rows] = make(samples[:, rows], rng, np.arange(len(samples)) / 128.0)
            return out

        return change

    one, whole = [3], list(range(19))
    return {
        "flat": (one, put(one, lambda x, rng, t: np.full_like(x, 12.4)), "flat"),
        "railed for 4 of every 10 s": (
            one,
            put(one, lambda x, rng, t: np.where((t % 10 < 4)[:, None], 187.5, x)),
            "railed",
        ),
        "saturated at +-20 uV": (one, put(one, lambda x, rng, t: np.clip(4 * x, -20, 20)), "railed|saturated"),
        "unplugged: white noise of 8 uV": (one, put(one, lambda x, rng, t: rng.normal(0, 8, x.shape)), "noise"),
        "unplugged: 300 uV of 50 Hz": (
            one,
            put(one, lambda x, rng, t: x + 300 * np.sin(2 * np.pi * 50 * t)[:, None]),
            "50 Hz",
        ),
        "mains-swamped: 40 uV of 50 Hz": (
            whole,
            put(whole, lambda x, rng, t: x + 40 * np.sin(2 * np.pi * 50 * t)[:, None]),
            "50 Hz",
        ),
        "identical channels": (whole, put(whole, lambda x, rng, t: np.repeat(x[:, :1], x.shape[1], 1)), "the same as"),
        "identical but for 1 uV of noise": (
            whole,
            put(whole, lambda x, rng, t: np.repeat(x[:, :1], x.shape[1], 1) + rng.normal(0, 0.3, x.shape)),
            "the same as",
        ),
        "a copy, times -0.7": ([3, 4], put([3, 4], lambda x, rng, t: x[:, :1] * (1.0, -0.7)), "a copy of"),
        "one value in five missing": (
            one,
            put(one, lambda x, rng, t: np.where((np.arange(len(t)) % 5 == 0)[:, None], np.nan, x)),
            "^(19|20|21) % missing",
        ),
        "50 Hz with half the power of the EEG": (
            one,
            put(one, lambda x, rng, t: x + x[:1280].std() * np.sin(2 * np.pi * 50 * t)[:, None]),
            "50 Hz",
        ),
        "held: every value twice": (
            whole,
            put(whole, lambda x, rng, t: np.repeat(x[::2], 2, axis=0)[: len(x)]),
            "repeat the one before",
        ),
        "packet loss: 20 % of the values": (
            whole,
            put(whole, lambda x, rng, t: np.where((np.floor(t * 2) % 5 == 0)[:, None], np.nan, x)),
            "missing",
        ),
        "muscle in 3 of every 10 s": (
            one,
            put(one, lambda x, rng, t: x + np.where((t % 10 < 3)[:, None], rng.normal(0, 40, x.shape), 0)),
            "muscle",
        ),
        "drift of 500 uV a second": (one, put(one, lambda x, rng, t: x + 500 * t[:, None]), "drift"),
        "amplitude 20 times": (one, put(one, lambda x, rng, t: 20 * x), "amplitude"),
    }


def part_faults(recordings):
    table = {half: {} for half in HALVES}
    counts = {half: collections.defaultdict(collections.Counter) for half in HALVES}
    rng = np.random.default_rng(0)
    for at, (half, recording) in enumerate(eegmat_recordings()):
        if not recording.rest or at // 4 >= recordings:
            continue
        labels = recording.streams[0].channels
        samples = joined(recording, "eeg")[: 60 * 128]
        for name, (rows, change, words) in faults().items():
            for window in windows_of(change(samples, rng), 128.0, labels, hop=5.0)[1:]:
                for row in rows:
                    verdict = window.quality["eeg"][row]
                    counts[half][name][verdict.level] += 1
                    counts[half][name]["named"] += bool(re.search(words, verdict.reason))
                    counts[half][name]["windows"] += 1
    for half in HALVES:
        for name, found in counts[half].items():
            n = found["windows"]
            table[half][name] = {key: round(found[key] / n, 3) for key in ("bad", "doubtful", "good", "named")}
    return table


BROKEN = {
    "flat": lambda x, rng, t: np.full_like(x, 12.4),
    "noise of 400 uV": lambda x, rng, t: rng.normal(0, 400, x.shape),
    "at the rail for 2 of 4 s": lambda x, rng, t: np.where((t % 4 < 2)[:, None], 3000.0, x),
}
SEEN = ("as it came", "zeros", "interpolated")


def part_bad_channels(people):
    """By how much broken channels, which the verdicts call bad, move the estimates of the bundle that ships, by what
    the network is given in their place. The resting baseline is clean; windows every 5 s after it.

    Beside what a user gets stands what the network alone would say, were nothing refused for being unlike the training
    data."""
    import dataclasses
    import types

    import models.model
    from models.bundle import load_bundle
    from models.interpolation import repaired
    from models.model import Model
    from models.runtimes import load_runtime
    from realtime.windows import iter_windows

    bundle = load_bundle(ROOT / "models" / "bundles" / "default")
    runtime = load_runtime("ort", bundle)
    spec = bundle.manifest.window
    sparse = dataclasses.replace(spec, hop=5.0)
    interpolated = models.model.as_seen
    ways = dict(zip(SEEN, (lambda signal, *_: signal, zeroed, interpolated), strict=True))
    moved = collections.defaultdict(list)
    windows_bad = collections.Counter()
    missed = collections.defaultdict(list)

    def said(model, windows, way, limited=True):
        models.model.as_seen, distance = ways[way], model._distance
        if not limited:
            model._distance = types.SimpleNamespace(of=lambda *_: 0.0)
        try:
            return [model.update(window) for window in windows]
        finally:
            models.model.as_seen, model._distance = interpolated, distance

    for person in people:
        recordings = [one for _, one in eegmat_recordings() if one.person == person]
        model = Model(bundle, runtime)
        for window in iter_windows(recordings[0].chunks, spec, recordings[0].streams):
            if window.t_end > 61:
                break
            model.update(window)
        # From here on the model's state does not change any more: every window may be asked about many times.
        clean = [list(iter_windows(one.chunks, sparse, one.streams)) for one in recordings]
        clean = [[window for window in windows if window.t_end >= 75] for windows in clean]
        wanted = [said(model, windows, "as it came") for windows in clean]
        for row, label in enumerate(spec.inputs[0].channels):
            pairs = [(w.signals["eeg"][row], repaired(w.signals["eeg"], spec.inputs[0].channels, [row])[row])
                     for windows in clean for w in windows]  # fmt: skip
            true, made = np.array(pairs).transpose(1, 0, 2).reshape(2, -1)
            missed[label].append(np.sqrt(np.mean((made - true) ** 2) / np.mean(true**2)))
        for fault, change in BROKEN.items():
            for count in (1, 3, 5):
                rng = np.random.default_rng(int(person) * 10 + count)
                rows = rng.permutation(19)[:count]
                for recording, sound, true in zip(recordings, clean, wanted, strict=True):
                    spoilt = [broken(chunk, rows, change, rng) for chunk in recording.chunks]
                    at = {window.t_end: window for window in iter_windows(spoilt, sparse, recording.streams)}
                    windows = [at[window.t_end] for window in sound]
                    called = [sum(v.level == "bad" for v in window.quality["eeg"]) for window in windows]
                    windows_bad[fault] += sum(n == count for n in called)
                    windows_bad[f"{fault}, windows"] += len(called)
                    for way in SEEN:
                        alone = said(model, windows, way, limited=False)
                        for one, bare, other in zip(said(model, windows, way), alone, true, strict=True):
                            if other.withheld is None and "eeg" in other.used:
                                shift = abs(one.mean[0] - other.mean[0]) if one.withheld is None else np.nan
                                kept = "eeg" in one.used
                                moved[fault, count, way].append((shift, kept, abs(bare.mean[0] - other.mean[0])))
    table = {}
    for fault in BROKEN:
        table[fault] = {"windows in which just these were called bad": f"{windows_bad[fault]} of "
                        f"{windows_bad[f'{fault}, windows']}"}  # fmt: skip
        for count in (1, 3, 5):
            for way in SEEN:
                shift, kept, alone = np.array(moved[fault, count, way], float).T
                table[fault][f"{count} channels, {way}"] = {
                    "estimate": round(float(np.nanmean(shift)), 3),
                    "network alone": round(float(alone.mean()), 3),
                    "EEG refused": f"{100 * np.mean(kept == 0):.0f} %",
                    "withheld": f"{100 * np.mean(np.isnan(shift)):.0f} %",
                    "windows": len(shift),
                }
    return {
        "people": " ".join(people),
        "mean absolute change of arousal": table,
        "of a clean channel that is taken out the splines miss (root mean square, median of the people)": {
            label: f"{100 * np.median(found):.0f} %" for label, found in missed.items()
        },
    }


def zeroed(signal, channels, verdicts, bad_score):
    out = signal.copy()
    out[[not verdict.score >= bad_score for verdict in verdicts]] = 0.0
    return out


def broken(chunk, rows, change, rng):
    """The chunk with something wrong on ``rows`` of its EEG from 62 s on."""
    if chunk.stream != "eeg" or chunk.times[0] < 62:
        return chunk
    import dataclasses

    data = chunk.data.copy()
    data[:, rows] = change(chunk.data[:, rows], rng, chunk.times)
    return dataclasses.replace(chunk, data=data)


def part_headsets():
    table = {}
    names, samples, _ = emotiv()
    for name, windows in (
        ("openbci as it is", windows_of(openbci(), 250.0, OPENBCI)),
        ("openbci with a notch at 60 Hz", windows_of(openbci(), 250.0, OPENBCI, notch=(60.0,))),
        ("emotiv", windows_of(samples, 128.0, names)),
    ):
        levels, reasons = collections.Counter(), collections.Counter()
        for window in windows:
            for verdict in window.quality["eeg"]:
                levels[verdict.level] += 1
                if verdict.reason:
                    reasons[f"{verdict.level}: {shape_of(verdict.reason)}"] += 1
        table[name] = {"channel windows": dict(levels), "reasons": dict(reasons.most_common(6))}
    return table


def rhythms_of(samples, rate, labels, montage=None):
    from devices.api import Chunk, StreamInfo
    from realtime.bandpower import BandPower

    made = BandPower(StreamInfo(key="s", kind="eeg", channels=tuple(labels), rate=rate, unit="uV"), montage)
    return made.push(Chunk("s", np.arange(len(samples)) / rate, np.asarray(samples, np.float32)))


def auroc(high, low):
    high, low = np.asarray(high), np.asarray(low)
    return float(np.mean((high[:, None] > low) + 0.5 * (high[:, None] == low)))


def part_rhythms():
    from realtime.bandpower import BANDS, SEGMENT
    from realtime.rereference import average

    table = {}
    try:
        import mne

        worst = collections.defaultdict(float)
        for _, recording in eegmat_recordings():
            if not recording.rest:
                continue
            samples = joined(recording, "eeg")
            found = rhythms_of(samples, 128.0, recording.streams[0].channels)
            for report in found[20:60:20]:
                end = round(report.time * 128)
                density, f = mne.time_frequency.psd_array_welch(
                    samples[end - 512 : end].T.astype(float), 128.0, fmin=0, fmax=64, n_fft=round(SEGMENT * 128),
                    n_per_seg=round(SEGMENT * 128), n_overlap=128, window="hann", verbose="error",
                )  # fmt: skip
                for name, (low, high) in BANDS.items():
                    theirs = density[:, (f >= low) & (f < high)].sum(axis=1) * (f[1] - f[0])
                    worst[name] = max(worst[name], float(np.abs(report.band(name) / theirs - 1).max()))
        table["largest relative difference to Welch in MNE"] = dict(worst)
    except ImportError:
        table["largest relative difference to Welch in MNE"] = "mne is not installed"
    table["specparam"] = specparam_beside()
    names, samples, closed = emotiv()
    samples = samples.copy()
    samples[np.abs(samples - np.median(samples, axis=0)) > 500] = np.nan
    for title, montage in (("as recorded", None), ("average reference", average(names))):
        found = [r for r in rhythms_of(samples, 128.0, names, montage) if not r.reason]
        for part, wanted in (("O1 O2", ("O1", "O2")), ("all 14", names)):
            rows = [names.index(name) for name in wanted]
            share = np.array([closed[round((r.time - 4) * 128) : round(r.time * 128)].mean() for r in found])
            alpha = np.array([np.nanmean(r.band("alpha", relative=True)[rows]) for r in found])

            def score(share, alpha=alpha):
                return auroc(alpha[share == 1], alpha[share == 0])

            # Windows overlap and neighbours resemble each other: the eye states are turned around in time instead.
            turned = []
            for shift in range(128 * 5, len(closed) - 128 * 5, 64):
                rolled = np.roll(closed, shift)
                other = np.array([rolled[round((r.time - 4) * 128) : round(r.time * 128)].mean() for r in found])
                if min((other == 1).sum(), (other == 0).sum()) >= 8:
                    turned.append(score(other))
            mine = score(share)
            table[f"emotiv, relative alpha, {part}, {title}"] = {
                "closed over open": float(np.median(alpha[share == 1]) / np.median(alpha[share == 0])),
                "AUROC": mine,
                "p by turning": float((1 + sum(t >= mine for t in turned)) / (1 + len(turned))),
                "windows closed, open": [int((share == 1).sum()), int((share == 0).sum())],
            }
    found = {r.time: r for r in rhythms_of(openbci(), 250.0, OPENBCI)}
    before, during = (
        [float(found[float(t)].band("alpha", relative=True)[-2:].mean()) for t in range(*span)]
        for span in ((5, 24), (34, 72))
    )
    table["openbci, relative alpha of O1 O2, 34-72 s over 5-24 s"] = {
        "ratio": float(np.median(during) / np.median(before)),
        "AUROC": auroc(during, before),
    }
    return table


def specparam_beside():
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            from specparam import SpectralModel
    except ImportError:
        return "specparam is not installed"
    from realtime.bandpower import alpha_peaks, aperiodic, spectrum

    slopes, peaks, missed = [], [], 0
    for _, recording in list(eegmat_recordings())[::8]:
        f, density = spectrum(joined(recording, "eeg")[: 34 * 128].astype(float), 128.0)
        slope, offset = aperiodic(f, density)
        peak = alpha_peaks(f, density, slope, offset)
        for c in range(0, 19, 3):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                model = SpectralModel(peak_width_limits=(1, 8), max_n_peaks=6, verbose=False)
                model.fit(f[1:], density[c, 1:], [2, 40])
                results = model.results
                theirs = -float(results.params.aperiodic.params[-1])
                table = np.atleast_2d(results.params.periodic.params)
            slopes.append((slope[c], theirs))
            alpha = [row for row in table if np.isfinite(row[0]) and 7 <= row[0] <= 13.5 and row[1] > 0.25]
            if alpha and np.isfinite(peak[c]):
                peaks.append((peak[c], max(alpha, key=lambda row: row[1])[0]))
            else:
                missed += bool(alpha) != bool(np.isfinite(peak[c]))
    mine, theirs = np.array(slopes).T
    apart = np.abs(np.diff(np.array(peaks), axis=1))
    return {
        "spectra": len(slopes),
        "slope: correlation": float(np.corrcoef(mine, theirs)[0, 1]),
        "slope: median absolute difference": float(np.median(np.abs(mine - theirs))),
        "alpha peak: median absolute difference, Hz": float(np.median(apart)),
        "alpha peak: within 0.5 Hz": float(np.mean(apart <= 0.5)),
        "alpha peak: found by one only": missed,
    }


def eeglab():
    from scipy import io

    found = io.loadmat(FOLDER / "eeglab_sample" / "eeglab_data.set", simplify_cells=True)["EEG"]
    labels = tuple(place["labels"] for place in found["chanlocs"])
    samples = np.fromfile(FOLDER / "eeglab_sample" / "eeglab_data.fdt", "<f4").reshape(-1, len(labels))
    return labels, samples - samples[0]


def mnes_regression(labels, samples, front, tops):
    """The weights that MNE's regression gives to a virtual EOG, the mean of the frontal channels, around ``tops``."""
    try:
        import mne
        from mne.preprocessing import EOGRegression
    except ImportError:
        return None
    with mne.utils.use_log_level("error"):
        named = mne.create_info([*labels, "VEOG"], 128.0, ["eeg"] * len(labels) + ["eog"])
        raw = mne.io.RawArray(1e-6 * np.column_stack([samples, samples[:, front].mean(axis=1)]).T, named)
        raw.filter(0.5, 30.0)
        events = np.column_stack([tops, 0 * tops, 0 * tops + 1])
        epochs = mne.Epochs(raw, events, 1, -0.4, 0.4, baseline=None, preload=True, picks="all")
        epochs.set_eeg_reference([])
        return EOGRegression(picks="eeg", picks_artifact="eog", proj=False).fit(epochs).coef_.ravel()


def part_repair():
    """Blinks: learnt from one half of a recording, left of those in the other half; and alpha with closed eyes.

    Interpolation stands beside MNE's in the tests. What of the average blink is left is its projection on the blink at
    the eyes, since what else goes on at an electrode is there before and after: beside it stands how large the average
    of as many stretches without a blink is.
    """
    from scipy import signal

    from models.electrodes import is_electrode
    from realtime.quality import FRONTAL
    from realtime.repair import without_blinks

    def band(values, low, high, rate):
        sos = signal.butter(4, (low, high), "bandpass", fs=rate, output="sos")
        return signal.sosfiltfilt(sos, values, axis=0)

    table = {}
    names, raw, _ = emotiv()
    raw = np.clip(raw - np.median(raw, axis=0), -500, 500)
    for title, (labels, samples) in {"EEGLAB's sample": eeglab(), "Emotiv": (tuple(names), raw)}.items():
        front = np.array([label.upper() in FRONTAL for label in labels])
        before = band(samples, 0.5, 10, 128.0)
        eyes = before[:, front].mean(axis=1)
        tops = signal.find_peaks(eyes, height=75, distance=64)[0]
        tops = tops[(tops > 52) & (tops < len(samples) - 52)]
        middle, around = int(tops[len(tops) // 2 - 1]) + 52, np.arange(-51, 51)
        quiet = [p for p in range(52, len(samples) - 52, 10) if np.abs(tops - p).min() > 102]
        for half, kept in (("first", tops > middle), ("second", tops < middle)):
            seen = slice(0, middle) if half == "first" else slice(middle, None)
            made = without_blinks(labels, samples[seen], 128.0)
            theirs = mnes_regression(labels, samples[seen], front, tops[~kept] - (seen.start or 0))
            blink = np.mean([before[p + around] for p in tops[kept]], axis=0)
            blink -= blink.mean(axis=0)
            eye = blink[:, front].mean(axis=1)
            share = eye @ blink / (eye @ eye)
            rng = np.random.default_rng(0)
            nothing = [
                np.ptp(np.mean([before[p + around] for p in rng.choice(quiet, kept.sum())], 0), 0) for _ in range(50)
            ]
            rows = table[f"{title}: learnt from the {half} half, {made.said}, left of {kept.sum()} others"] = {}
            for c, label in enumerate(labels):
                if not is_electrode(label) or front[c]:
                    continue
                left = share[c] - (np.eye(len(labels)) - made.matrix)[c].sum()
                rows[label] = {
                    "uV": round(float(np.ptp(blink[:, c]))),
                    "uV without a blink": round(float(np.mean(nothing, axis=0)[c])),
                    "of the blink at the eyes": round(float(share[c]), 3),
                    "left": round(float(left), 3),
                    "MNE": "-" if theirs is None else round(float(share[c] - theirs[c]), 3),
                }
            near = [c for c in range(len(labels)) if is_electrode(labels[c]) and not front[c] and abs(share[c]) > 0.1]
            total = np.abs(share[near]).sum()
            taken = (np.eye(len(labels)) - made.matrix).sum(axis=1)
            rows["electrodes with more than a tenth of the blink"] = {
                "left": round(float(np.abs(share - taken)[near].sum() / total), 2),
                "MNE": "-" if theirs is None else round(float(np.abs(share - theirs)[near].sum() / total), 2),
            }
    samples = openbci()
    made = without_blinks(OPENBCI, samples[500:5500], 250.0)
    alpha, kept = band(samples - samples[0], 8, 13, 250.0), band(made.apply(samples - samples[0]), 8, 13, 250.0)
    closed = slice(34 * 250, 70 * 250)
    left = kept[closed].std(axis=0) / alpha[closed].std(axis=0)
    table["OpenBCI, alpha amplitude left with closed eyes"] = dict(zip(OPENBCI, left.round(2).tolist(), strict=True))
    return table


def part_cost():
    import realtime.windows as module
    from devices.api import Chunk, StreamInfo
    from models.api import InputSpec, WindowSpec
    from realtime.bandpower import BandPower
    from realtime.windows import Windower

    rate, count, seconds, size = 500.0, 32, 60, 16
    labels = [f"E{i}" for i in range(count)]
    rng = np.random.default_rng(0)
    samples = rng.normal(0, 15, (round(seconds * rate), count)).cumsum(axis=0).astype(np.float32)
    samples -= np.linspace(samples[0], samples[-1], len(samples))
    stream = StreamInfo(key="s", kind="eeg", channels=tuple(labels), rate=rate, unit="uV")
    spec = WindowSpec(inputs=(InputSpec(kind="eeg", channels=tuple(labels)),))
    pieces = [
        Chunk("s", np.arange(at, at + size) / rate, np.ascontiguousarray(samples[at : at + size]))
        for at in range(0, len(samples) - size, size)
    ]

    def share(make):
        best = np.inf
        for _ in range(3):
            taker = make()
            begin = time.process_time()
            for piece in pieces:
                taker.push(piece)
            best = min(best, time.process_time() - begin)
        return 100 * best / seconds

    whole = share(lambda: Windower(spec, [stream]))
    kept, take = module.assess, module.Unfiltered.take
    module.assess = lambda spec, signals, flags, absent, **more: ()
    module.Unfiltered.take = lambda self, *arguments: None
    without = share(lambda: Windower(spec, [stream]))
    module.assess, module.Unfiltered.take = kept, take
    return {
        "load": f"{count} channels at {rate:g} Hz in chunks of {size}",
        "band power, % of a core": share(lambda: BandPower(stream)),
        "windower with quality, % of a core": whole,
        "windower without quality, % of a core": without,
        "quality, % of a core": whole - without,
        "filters, ns a sample of a channel": part_filters(),
    }


def part_filters():
    """32 channels of 500 Hz, band-pass of order 4 and a notch: nine sections."""
    from scipy import signal

    from models.api import InputSpec
    from realtime.filters import Filter, design

    rate, count = 500.0, 32
    sos = design(InputSpec(kind="eeg", channels=("a",), notch=(50.0,)), rate)
    rng = np.random.default_rng(0)
    table = {}
    for size in (8, 16, 32, 64):
        block = rng.normal(0, 15, (size, count))
        flags, marks = np.zeros((size, count), np.uint8), np.zeros(size, np.uint8)
        ours = Filter(sos, count, rate)
        state = [np.zeros((len(sos), 2, count))]

        def mine(ours=ours, block=block, flags=flags, marks=marks):
            ours.run(block.copy(), flags, marks)

        def scipys(state=state, block=block):
            _, state[0] = signal.sosfilt(sos, block, axis=0, zi=state[0])

        contenders = {"insula": mine, "scipy sosfilt": scipys}
        if theirs := ezmsg(sos, block, rate):
            contenders["ezmsg-sigproc"] = theirs
        rounds = {name: [] for name in contenders}
        for _ in range(15):
            for name, call in contenders.items():
                begin = time.perf_counter()
                for _ in range(40):
                    call()
                rounds[name].append((time.perf_counter() - begin) / 40 / block.size * 1e9)
        table[f"chunks of {size}"] = {name: round(float(np.median(values)), 1) for name, values in rounds.items()}
    return table


def ezmsg(sos, block, rate):
    try:
        from ezmsg.sigproc.filter import FilterSettings, FilterTransformer
        from ezmsg.util.messages.axisarray import AxisArray
    except ImportError:
        return None
    taker = FilterTransformer(FilterSettings(coef_type="sos", coefs=sos))
    message = AxisArray(block, dims=["time", "ch"], axes={"time": AxisArray.TimeAxis(fs=rate)}, key="s")
    taker(message)
    return lambda: taker(message)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parts = {
        "ecg": part_ecg_and_alarms,
        "cinc": lambda: part_cinc(options.recordings),
        "faults": lambda: part_faults(options.people),
        "headsets": part_headsets,
        "bad-channels": lambda: part_bad_channels(options.bad_channels_of),
        "rhythms": part_rhythms,
        "repair": part_repair,
        "cost": part_cost,
    }
    parser.add_argument("--only", choices=list(parts), action="append", help="this part only; may be given again")
    parser.add_argument("--recordings", type=int, default=120, help="of each label of cinc2017 and half")
    parser.add_argument("--people", type=int, default=7, help="of eegmat and half that get faults")
    parser.add_argument(
        "--bad-channels-of",
        nargs="+",
        default=["00", "04", "05", "07", "16", "23", "29", "33"],
        metavar="PERSON",
        help="people of eegmat whose channels are broken",
    )
    parser.add_argument("--json", type=Path, help="write the figures there")
    options = parser.parse_args()
    figures = {"machine": f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}"}
    for name in options.only or parts:
        begin = time.perf_counter()
        figures[name] = parts[name]()
        print(f"== {name} ({time.perf_counter() - begin:.0f} s)")
        show(figures[name], 1)
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1), encoding="utf-8")


def show(value, depth):
    for key, found in value.items():
        if isinstance(found, dict) and any(isinstance(inner, dict) for inner in found.values()):
            print("  " * depth + str(key))
            show(found, depth + 1)
        elif isinstance(found, dict):
            cells = ", ".join(f"{k} {v:.3g}" if isinstance(v, float) else f"{k} {v}" for k, v in found.items())
            print("  " * depth + f"{key}: {cells}")
        else:
            print(
                "  " * depth + f"{key}: {found:.4g}" if isinstance(found, float) else "  " * depth + f"{key}: {found}"
            )


if __name__ == "__main__":
    main()

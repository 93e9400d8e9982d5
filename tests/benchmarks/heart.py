"""Heart on real recordings, beside its peers on the same samples:

``python tests/benchmarks/heart.py [--mitdb FILE.npz] [--ludb FILE.npz] [--data FOLDER] [--only PART,...] [--json OUT]``

1. ``mitdb``: R peaks, after EC57: 150 ms, the first five minutes are left out, gross over all beats, with and without
   the paced records 102, 107 and 217. Tuned on every second record of the sorted list (the first, third, ...): that
   half and the other are told apart. The same records upside down. The error of the peak is its distance from the
   annotation; MAD is the median over records of the median absolute deviation. Latency is from the peak to the sample
   with which a beat is given out, at once for the peers, which see the whole recording.
2. ``noise``: NSTDB 118 at 24, 12, 6 and 0 dB, of which HeartPy keeps two minutes each, 40 s to 96 s of them before
   the noise begins; annotations are those of mitdb 118, whose place was found by correlation.
3. ``strap``: a Polar H10 with frequent extrasystoles, its own RR intervals and heart rate. RMSSD with every interval,
   and as it is; on mitdb records with extrasystoles RMSSD against that between the annotated normal beats.
4. ``rest``: HRV of NeuroKit's resting recordings, ours and NeuroKit's functions on the same intervals, and on their
   own; LF, HF and LF/HF beside those of its ``hrv_frequency`` as it is by default, on the same normal intervals.
5. ``ludb``: onsets, peaks and offsets of P, QRS and T against the cardiologists', both leads, between the first and the
   last annotated beat; found is within 150 ms; mean and standard deviation of the error beside the tolerance of the CSE
   working party (2 s). Tuned on the people with odd numbers. NeuroKit's is ``ecg_delineate(method="dwt")``.
6. ``doubt``: share of the seconds in which HR, RMSSD and breathing are given, and in which they are withheld because
   beats are not alike or may be T waves: noise, eegmat's lost leads, good recordings (limits were taken from the first,
   third, ... of mitdb and eegmat each; every fifth second); RMSSD of a heart as regular as a clock whose source runs at
   another rate than it says; peaked T waves of several heights.
7. ``missing``: the first minute after five of each mitdb record with values lost in pieces of 8, 40 and 80 ms, as
   NaN and, of 80 ms, as samples that never come: share of the seconds in which the heart rate is given, and of these
   in which it is off by more than 2 bpm from that of the same lead with all its values; without the rule and with it.
   Its share was chosen on the first, third, ... record.
8. ``cost``: microseconds for a sample at 130, 250 and 500 Hz in chunks of 16.
"""

from __future__ import annotations

import argparse
import gzip
import importlib.metadata
import importlib.util
import json
import os
import platform
import sys
import time
import warnings
from pathlib import Path

import numpy as np
from scipy import interpolate, signal

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT))

from devices.api import Chunk, StreamInfo  # noqa: E402
from realtime.api import Body  # noqa: E402
from realtime.beats import BeatDetector  # noqa: E402
from realtime.delineation import Waves  # noqa: E402
from realtime.heart import Heart  # noqa: E402
from realtime.hrv import NORMAL, Variability, lomb  # noqa: E402
from realtime.physiology import Physiology  # noqa: E402

WINDOW = 0.15
LEARNING = 300.0
PACED = ("102", "107", "217")
NOISY_FROM = 540.0
"""Seconds of the record from which the noise of the stress test is in the excerpts."""
EXCERPTS = {"24": 160000 / 360, "12": 500.0, "06": 500.0, "00": 500.0}


def match(truth, found, window=WINDOW):
    """(pairs of indices (m, 2), missed, extra): each annotation with the nearest free detection within ``window``."""
    free = np.ones(len(found), bool)
    pairs = []
    for i, moment in enumerate(truth):
        low, high = np.searchsorted(found, [moment - window, moment + window], side="left")
        near = [k for k in range(low, min(high + 1, len(found))) if free[k] and abs(found[k] - moment) <= window]
        if near:
            best = min(near, key=lambda k: abs(found[k] - moment))
            free[best] = False
            pairs.append((i, best))
    return np.array(pairs, int).reshape(-1, 2), len(truth) - len(pairs), int(free.sum())


def ours(samples, rate):
    detector = BeatDetector(rate)
    return detector.push(np.arange(len(samples)) / rate, samples) + detector.finish()


def peers():
    """Detectors by name: (samples uV, rate) -> times."""
    found = {}
    try:
        import neurokit2 as nk

        def neurokit(method):
            def detect(samples, rate):
                clean = nk.ecg_clean(samples, sampling_rate=int(rate), method=method)
                return nk.ecg_peaks(clean, sampling_rate=int(rate), method=method)[1]["ECG_R_Peaks"] / rate

            return detect

        found["neurokit"] = neurokit("neurokit")
        found["pan-tompkins"] = neurokit("pantompkins1985")
    except ImportError:
        print("neurokit2 is not installed")
    try:
        from wfdb import processing

        def xqrs(samples, rate):
            detector = processing.XQRS(sig=samples / 1000, fs=rate)
            detector.detect(verbose=False)
            return np.asarray(detector.qrs_inds) / rate

        found["xqrs"] = xqrs
    except ImportError:
        print("wfdb is not installed")
    return found


def score(truth, found, start, stop):
    """Counts and errors of the beats from ``start`` to ``stop``; a match may lie beyond either."""
    truth = truth[(truth >= start) & (truth < stop)]
    found = np.sort(np.asarray(found, float))
    found = found[(found >= start - WINDOW) & (found < stop + WINDOW)]
    pairs, missed, _ = match(truth, found)
    taken = np.zeros(len(found), bool)
    taken[pairs[:, 1]] = True
    extra = int(np.count_nonzero(~taken & (found >= start) & (found < stop)))
    errors = 1000 * (found[pairs[:, 1]] - truth[pairs[:, 0]])
    return {
        "beats": len(truth),
        "missed": missed,
        "extra": extra,
        "bias_ms": float(np.median(errors)) if len(errors) else float("nan"),
        "mad_ms": float(np.median(np.abs(errors - np.median(errors)))) if len(errors) else float("nan"),
    }


def gross(scores):
    """Sensitivity and positive predictivity, %, over all beats of several scores."""
    hit = sum(one["beats"] - one["missed"] for one in scores)
    missed, extra = sum(one["missed"] for one in scores), sum(one["extra"] for one in scores)
    return 100 * hit / max(1, hit + missed), 100 * hit / max(1, hit + extra)


def mitdb(file, others):
    names = sorted(key.removesuffix("_uV") for key in file.files if key.endswith("_uV") and key != "scale_uV")
    rate, scale = float(file["fs"]), float(file["scale_uV"])
    detectors = {"insula": lambda samples, rate: [beat.time for beat in ours(samples, rate)], **others}
    scores = {name: {} for name in [*detectors, "insula, upside down"]}
    delays, late, total = [], 0, 0
    for record in names:
        samples, truth = file[f"{record}_uV"] * scale, file[f"{record}_beat_s"].astype(float)
        stop = len(samples) / rate
        for name, detect in detectors.items():
            scores[name][record] = score(truth, detect(samples, rate), LEARNING, stop)
        scores["insula, upside down"][record] = score(truth, detectors["insula"](-samples, rate), LEARNING, stop)
        beats = ours(samples, rate)
        delays += [1000 * beat.delay for beat in beats]
        late += sum(beat.late for beat in beats)
        total += len(beats)
    print(f"\nR peaks, {len(names)} records at {rate:g} Hz, lead as recorded; Se and +P in %, errors in ms")
    print(f"{'record':>8}" + "".join(f"{name:>34}" for name in detectors))
    for record in names:
        row = f"{record:>7}{'p' if record in PACED else 't' if record in names[::2] else ' '}"
        for name in detectors:
            one = scores[name][record]
            se, pp = gross([one])
            row += f"{se:9.2f}{pp:7.2f} -{one['missed']:<4}+{one['extra']:<5}{one['mad_ms']:6.1f}"
        print(row)
    print("(p paced, t tuned on; Se, +P, -missed, +extra, MAD of the peak)")
    groups = {
        "all records": names,
        "without paced": [name for name in names if name not in PACED],
        "tuned half": names[::2],
        "other half": names[1::2],
        "other half, without paced": [name for name in names[1::2] if name not in PACED],
    }
    table = {}
    print(f"\n{'gross':>26}" + "".join(f"{name:>22}" for name in scores))
    for title, chosen in groups.items():
        row = f"{title:>26}"
        for name in scores:
            se, pp = gross([scores[name][record] for record in chosen])
            mad = float(np.nanmedian([scores[name][record]["mad_ms"] for record in chosen]))
            table[f"{title} / {name}"] = {"Se": se, "+P": pp, "MAD_ms": mad}
            row += f"{se:9.3f}{pp:8.3f}{mad:5.1f}"
        print(row)
    latency = {f"p{q}": float(np.percentile(delays, q)) for q in (50, 99, 100)}
    print(
        f"latency after the peak, ms: median {latency['p50']:.0f}, p99 {latency['p99']:.0f}, max {latency['p100']:.0f};"
        f" {100 * late / total:.2f} % of the beats by looking back or while learning"
    )
    return {"records": scores, "gross": table, "latency_ms": latency, "late_share": late / total}


def column(path):
    with gzip.open(path, "rt") as lines:
        return np.loadtxt(lines)


def noise(folder, file, others):
    if not (folder / "118e24.csv.gz").is_file():
        return None
    print("\nNSTDB 118: Se and +P in %, -missed +extra, in the part with noise (first 5 s of the excerpt left out)")
    detectors = {"insula": lambda samples, rate: [beat.time for beat in ours(samples, rate)], **others}
    print(f"{'dB':>6}{'beats':>7}" + "".join(f"{name:>28}" for name in detectors))
    table = {}
    for level, begin in EXCERPTS.items():
        samples = 1000 * column(folder / f"118e{level}.csv.gz")
        truth = file["118_beat_s"].astype(float) - begin
        start = max(5.0, NOISY_FROM - begin)
        row = ""
        for name, detect in detectors.items():
            one = score(truth, detect(samples, 360), start, 119.8)
            se, pp = gross([one])
            table[f"{int(level)} dB / {name}"] = {"Se": se, "+P": pp, **one}
            row += f"{se:11.2f}{pp:8.2f} -{one['missed']:<3}+{one['extra']:<3}"
        print(f"{int(level):>6}{one['beats']:>7}{row}")
    return table


def strap(path, file):
    if not path.is_file():
        return None
    with gzip.open(path, "rt") as lines:
        rows = np.genfromtxt(lines, delimiter=",", names=True)
    times = rows["time"] / 1e9
    times -= times[0]
    theirs = rows["rr"][~np.isnan(rows["rr"])] / 1000
    beats = ours(1000 * rows["ecg"], 130.0)
    detector = BeatDetector(130.0)
    beats = detector.push(times, 1000 * rows["ecg"]) + detector.finish()
    moments = np.array([beat.time for beat in beats])
    # The strap's RR intervals come without stamps, a few beats late: laid beside ours where they fit best.
    their_beats = np.cumsum(theirs)
    shifts = np.arange(-3.0, 6.0, 0.002)
    misfit = [np.median(np.abs(_nearest(moments, their_beats + shift) - their_beats - shift)) for shift in shifts]
    their_beats = their_beats + shifts[int(np.argmin(misfit))]
    pairs, _, _ = match(their_beats, moments, 0.1)
    following = np.flatnonzero((np.diff(pairs[:, 0]) == 1) & (np.diff(pairs[:, 1]) == 1))
    difference = 1000 * (np.diff(moments)[pairs[following, 1]] - theirs[pairs[following, 0] + 1])
    keeper, hr, agreed = Variability(600.0), [], []
    given = 0
    for now in range(15, int(times[-1]), 1):
        count = sum(beat.time + beat.delay <= now for beat in beats[given : given + 20])
        keeper.push(beats[given : given + count])
        given += count
        mine = keeper.measure("HR", float(now)).value
        newest = moments[given - 1]
        inside = np.minimum(their_beats, newest + 0.05) - np.maximum(their_beats - theirs, now - 10)
        inside = np.where(their_beats <= newest + 0.05, np.clip(inside, 0, None), 0)
        hr.append(mine - 60 * np.sum(inside / theirs) / inside.sum() if inside.sum() > 5 else np.nan)
        # Where only one of the two has a beat the other's rate differs by six: told apart.
        alone = [*moments[sorted(set(range(len(moments))) - set(pairs[:, 1]))]]
        alone += [*their_beats[sorted(set(range(len(their_beats))) - set(pairs[:, 0]))]]
        agreed.append(not any(now - 11.5 < moment < now for moment in alone))
    hr, agreed = np.array(hr), np.array(agreed)
    agreed &= ~np.isnan(hr)
    asked, within = np.count_nonzero(~np.isnan(hr)), np.count_nonzero(np.abs(hr) <= 2)
    every = 1000 * np.diff(moments)
    whole = Variability(600.0)
    whole.push(beats)
    kept = whole.measure("RMSSD", float(times[-1]), 600.0)
    table = {
        "beats": len(beats),
        "strap_beats": len(theirs),
        "RR_median_abs_ms": float(np.median(np.abs(difference))),
        "RR_p95_abs_ms": float(np.percentile(np.abs(difference), 95)),
        "RR_compared": len(difference),
        "HR_10s_within_2bpm": within / asked,
        "HR_windows": int(asked),
        "HR_10s_within_2bpm_same_beats": float(np.mean(np.abs(hr[agreed]) <= 2)),
        "HR_windows_same_beats": int(agreed.sum()),
        "beats_of_the_strap_that_are_not_ours": len(theirs) - len(pairs),
        "beats_of_ours_that_are_not_the_straps": len(beats) - len(pairs),
        "RMSSD_every_interval": float(np.sqrt(np.mean(np.diff(every) ** 2))),
        "RMSSD": kept.value,
        "corrected": kept.corrected,
    }
    print(
        f"\nPolar H10: {len(beats)} beats, the strap {len(theirs)}; RR against the strap's: median"
        f" {table['RR_median_abs_ms']:.1f} ms, p95 {table['RR_p95_abs_ms']:.1f} ms of {len(difference)};"
        f" HR of 10 s within 2 bpm of the strap's RR in {100 * within / asked:.1f} % of {asked} windows,"
        f" in {100 * table['HR_10s_within_2bpm_same_beats']:.1f} % of the {agreed.sum()} where both have the same beats"
        f" (of the strap's {len(theirs) - len(pairs)} are not ours, of ours {len(beats) - len(pairs)} not the strap's);"
        f" RMSSD of every interval {table['RMSSD_every_interval']:.0f} ms, of normal ones {kept.value:.1f} ms"
        f" ({100 * kept.corrected:.0f} % of the beats left out)"
    )
    if file is None:
        return table
    print("RMSSD over 60 s against that between annotated normal beats; median, p10 and p90 of the ratio")
    titles = "".join(f"{title:>9}" for title in ("withheld", "ours", "p10", "p90", "every", "left out", "ectopic"))
    print(f"{'record':>8}{'windows':>9}{titles}")
    for record in ("100", "106", "119", "202", "208", "233", "116", "201", "213", "223"):
        if f"{record}_uV" not in file.files:
            continue
        samples = file[f"{record}_uV"] * float(file["scale_uV"])
        beats = ours(samples, 130.0)
        truth, symbols = file[f"{record}_beat_s"].astype(float), file[f"{record}_sym"]
        keeper, given, ratios = Variability(), 0, []
        for now in range(300, int(len(samples) / 130), 30):
            count = given
            while count < len(beats) and beats[count].time + beats[count].delay <= now:
                count += 1
            keeper.push(beats[given:count])
            given = count
            measure = keeper.measure("RMSSD", float(now))
            inside = (truth > now - 60) & (truth <= now)
            normal = np.isin(symbols[inside], ["N", "L", "R", "/"])
            rr = 1000 * np.diff(truth[inside])
            usable = normal[1:] & normal[:-1]
            changes = np.diff(rr)[usable[1:] & usable[:-1]]
            if len(changes) >= 10:
                real = np.sqrt(np.mean(changes**2))
                ratios.append(
                    (
                        measure.value / real,
                        np.sqrt(np.mean(np.diff(rr) ** 2)) / real,
                        measure.corrected,
                        1 - normal.mean(),
                    )
                )
        ratios = np.array(ratios)
        valid = ratios[~np.isnan(ratios[:, 0])]
        low, middle, high = np.percentile(valid[:, 0], [10, 50, 90])
        table[f"RMSSD {record}"] = {
            "median_ratio": middle,
            "p10": low,
            "p90": high,
            "every": float(np.median(valid[:, 1])),
        }
        print(
            f"{record:>8}{len(ratios):>9}{len(ratios) - len(valid):>9}{middle:9.2f}{low:9.2f}{high:9.2f}"
            f"{np.median(valid[:, 1]):9.2f}{100 * ratios[:, 2].mean():8.1f}%{100 * ratios[:, 3].mean():8.1f}%"
        )
    return table


def _nearest(values, wanted):
    at = np.clip(np.searchsorted(values, wanted), 1, len(values) - 1)
    return np.where(np.abs(values[at] - wanted) < np.abs(values[at - 1] - wanted), values[at], values[at - 1])


def resting(folder):
    """ECG (n,) in uV and breathing (n,) at 100 Hz, by name."""
    found = {}
    for name in ("bio_resting_5min_100hz", "bio_resting_8min_100hz"):
        path = folder / f"{name}.csv.gz"
        if path.is_file():
            with gzip.open(path, "rt") as lines:
                header = lines.readline().strip().split(",")
                rows = np.loadtxt(lines, delimiter=",")
            found[name] = 1000 * rows[:, header.index("ECG")], rows[:, header.index("RSP")]
    return found


def rest(folder):
    try:
        import neurokit2 as nk
    except ImportError:
        return None
    table = {}
    for name, (samples, _) in resting(folder).items():
        seconds = len(samples) / 100
        beats = ours(samples, 100.0)
        keeper = Variability(seconds)
        keeper.push(beats)
        ends, lengths, kinds = keeper.intervals()
        mine = {key: keeper.measure(key, seconds, seconds).value for key in ("RMSSD", "SDNN", "pNN50", "SD1", "SD2")}
        same = {"RRI": 1000 * lengths, "RRI_Time": ends}
        peaks = nk.ecg_peaks(nk.ecg_clean(samples, sampling_rate=100), sampling_rate=100)[1]["ECG_R_Peaks"]
        fine = nk.ecg_clean(
            nk.signal_resample(samples, sampling_rate=100, desired_sampling_rate=1000), sampling_rate=1000
        )
        fine = nk.ecg_peaks(fine, sampling_rate=1000)[1]["ECG_R_Peaks"]
        odd = np.count_nonzero(kinds != NORMAL)
        print(f"\n{name}: {len(beats)} beats, NeuroKit {len(peaks)}; intervals not normal: {odd}")
        print(f"{'':>8}{'insula':>10}{'nk, same RR':>14}{'nk, its own, 1 kHz':>20}{'its own, 100 Hz':>18}")
        results = []
        for given, rate in ((same, 1000), (fine, 1000), (peaks, 100)):
            both = nk.hrv_time(given, sampling_rate=rate).iloc[0].to_dict()
            both |= nk.hrv_nonlinear(given, sampling_rate=rate).iloc[0].to_dict()
            results.append({key: float(both[f"HRV_{key}"]) for key in mine})
        for key, value in mine.items():
            cells = "".join(f"{one[key]:10.2f} {100 * (value / one[key] - 1):+6.2f}%" for one in results)
            print(f"{key:>8}{value:10.2f}{cells}")
            table[f"{name} {key}"] = {
                "insula": value,
                **dict(zip(("same", "own_1khz", "own_100hz"), (one[key] for one in results), strict=True)),
            }
        normal = kinds == NORMAL
        at, nn = ends[normal], 1000 * lengths[normal]
        # Welch of the series, interpolated at 100 Hz; in the intervals' own unit.
        spectrum = nk.hrv_frequency({"RRI": nn, "RRI_Time": at}, sampling_rate=1000, normalize=False).iloc[0]
        powers = {}
        for title, band in (("LF", (0.04, 0.15)), ("HF", (0.15, 0.4))):
            span = at[-1] - at[0]
            detrended = nn - np.polyval(np.polyfit(at, nn, 1), at)
            even = np.arange(at[0], at[-1], 0.25)
            f, p = signal.periodogram(interpolate.interp1d(at, detrended, "cubic")(even), 4.0, nfft=4 * len(even))
            welch = float(np.sum(p[(f >= band[0]) & (f < band[1])]) * (f[1] - f[0]))
            value = powers[title] = lomb(at, nn, band)
            theirs = float(spectrum[f"HRV_{title}"])
            print(
                f"{title:>8}{value:10.1f} ms² (Lomb), {welch:.1f} of the series resampled at 4 Hz (cubic, periodogram),"
                f" {theirs:.1f} NeuroKit's default of the same: {100 * (value / theirs - 1):+.1f} %; {span:.0f} s"
            )
            table[f"{name} {title}"] = {"lomb": value, "resampled": welch, "neurokit": theirs}
        ratio, theirs = powers["LF"] / powers["HF"], float(spectrum["HRV_LFHF"])
        print(f"{'LF/HF':>8}{ratio:10.3f}, NeuroKit's default {theirs:.3f}: {100 * (ratio / theirs - 1):+.1f} %")
        table[f"{name} LF/HF"] = {"lomb": ratio, "neurokit": theirs}
    return table


POINTS = {"p": ("p_onset", "p_peak", "p_offset"), "N": ("qrs_onset", "r_peak", "qrs_offset")}
POINTS["t"] = ("t_onset", "t_peak", "t_offset")
CSE = {"p_onset": 10.2, "p_offset": 12.7, "qrs_onset": 6.5, "qrs_offset": 11.6, "t_offset": 30.6}
"""ms, two standard deviations among the readers of the CSE working party, Eur. Heart J. 6:815, 1985."""
THEIR_NAMES = {
    "ECG_P_Onsets": "p_onset",
    "ECG_P_Peaks": "p_peak",
    "ECG_P_Offsets": "p_offset",
    "ECG_R_Onsets": "qrs_onset",
    "ECG_R_Offsets": "qrs_offset",
    "ECG_T_Onsets": "t_onset",
    "ECG_T_Peaks": "t_peak",
    "ECG_T_Offsets": "t_offset",
}


def waves_of_neurokit(samples, rate):
    import neurokit2 as nk

    clean = nk.ecg_clean(samples, sampling_rate=rate)
    peaks = nk.ecg_peaks(clean, sampling_rate=rate)[1]["ECG_R_Peaks"]
    found = {"r_peak": np.asarray(peaks) / rate}
    try:
        _, waves = nk.ecg_delineate(clean, peaks, sampling_rate=rate, method="dwt")
        found |= {mine: np.array(waves[theirs], float) / rate for theirs, mine in THEIR_NAMES.items()}
    except (ValueError, IndexError, ZeroDivisionError, TypeError, KeyError):
        pass  # it gives up on some leads: nothing found
    return found


def our_waves(samples, rate):
    heart = Heart(float(rate))
    _, waves = heart.push(np.arange(len(samples)) / rate, samples)
    return {name: np.array([getattr(wave, name) for _, wave in waves]) for name in Waves.__slots__}


def ludb(file, with_peers):
    rate = int(file["fs"])
    contenders = {"insula": our_waves}
    if with_peers and importlib.util.find_spec("neurokit2"):
        contenders["neurokit dwt"] = waves_of_neurokit
    errors, wanted, extra = {}, {}, {}
    for key in sorted(name.removesuffix("_sample") for name in file.files if name.endswith("_sample")):
        number, name = key.split("_")
        samples = file["data"][int(number) - 1][:, ("i", "ii").index(name)] * float(file["scale_uV"])
        at, symbols = file[f"{key}_sample"].astype(int) / rate, file[f"{key}_sym"]
        truth = {point: [] for points in POINTS.values() for point in points}
        for k, symbol in enumerate(symbols):
            if symbol in POINTS:
                onset, peak, offset = POINTS[symbol]
                truth[peak].append(at[k])
                if k and symbols[k - 1] == "(":
                    truth[onset].append(at[k - 1])
                if k + 1 < len(at) and symbols[k + 1] == ")":
                    truth[offset].append(at[k + 1])
        # A stream has no waves of its last beat before another follows, and annotators left the ends of a record out.
        first, last = truth["r_peak"][0] + 0.1, truth["r_peak"][-1] - 0.1
        half = "odd" if int(number) % 2 else "even"
        for contender, find in contenders.items():
            found = find(samples, rate)
            for point, moments in truth.items():
                real = np.array([moment for moment in moments if first < moment < last])
                given = found.get(point, np.zeros(0))
                given = np.sort(given[np.isfinite(given)])
                pairs, _, _ = match(real, given)
                which = (half, contender, point)
                wanted[which] = wanted.get(which, 0) + len(real)
                errors.setdefault(which, []).extend(1000 * (given[pairs[:, 1]] - real[pairs[:, 0]]))
                free = np.delete(given, pairs[:, 1])
                extra[which] = extra.get(which, 0) + int(np.count_nonzero((free > first) & (free < last)))
    table = {}
    for half in ("odd", "even"):
        print(f"\nLUDB, people with {half} numbers{' (tuned on)' if half == 'odd' else ''}: Se, +P in %, error in ms")
        print(f"{'':>12}{'CSE':>7}" + "".join(f"{name + ' (mean ± sd, robust sd)':>50}" for name in contenders))
        for point in Waves.__slots__:
            row = f"{point:>12}{CSE.get(point, float('nan')):7.1f}"
            for contender in contenders:
                which = (half, contender, point)
                error = np.array(errors[which])
                se = 100 * len(error) / max(1, wanted[which])
                pp = 100 * len(error) / max(1, len(error) + extra[which])
                robust = 1.4826 * float(np.median(np.abs(error - np.median(error))))
                row += f"{se:15.2f}{pp:8.2f}{error.mean():+8.1f} ±{error.std():6.1f}{robust:8.1f}   "
                table[" / ".join(which)] = {
                    "Se": se,
                    "+P": pp,
                    "mean_ms": error.mean(),
                    "sd_ms": error.std(),
                    "robust_sd_ms": robust,
                }
            print(row)
    return table


def breaths(folder):
    table = {}
    for name, (samples, belt) in resting(folder).items():
        heart = Heart(100.0)
        heart.push(np.arange(len(samples)) / 100, samples)
        belt = signal.sosfiltfilt(signal.butter(2, (0.05, 1), "bandpass", fs=100, output="sos"), belt)
        errors, asked = [], 0
        for now in range(60, len(samples) // 100, 10):
            frequencies, power = signal.periodogram(
                signal.detrend(belt[100 * (now - 60) : 100 * now]) * np.hanning(6000), 100, nfft=51200
            )
            inside = (frequencies >= 0.1) & (frequencies <= 0.5)
            real = 60 * frequencies[inside][np.argmax(power[inside])]
            errors.append(heart.breathing(float(now)).value - real)
            asked += 1
        errors = np.array(errors)
        given = errors[~np.isnan(errors)]
        table[name] = {
            "given": len(given) / asked,
            "within_2": float(np.mean(np.abs(given) <= 2)),
            "mean_abs": float(np.abs(given).mean()),
        }
        print(
            f"{name}: breathing given in {100 * len(given) / asked:.0f} % of {asked} windows of 60 s, within 2 of"
            f" the belt in {100 * np.mean(np.abs(given) <= 2):.0f} % of these, mean error {np.abs(given).mean():.2f}"
        )
    return table


LOST = ("Subject02_1", "Subject13_1", "Subject20_2", "Subject35_2")
SHOWN = ("HR", "RMSSD", "breathing")


def leads(folder, file):
    """Groups of leads, by name: [(samples uV, rate)]; the half that limits were taken from, and the other."""
    random = np.random.default_rng(0)
    n = 130 * 600
    found = {"white noise, 400 uV": [(400 * random.standard_normal(n), 130.0)]}
    found["white noise, 60 uV"] = [(60 * random.standard_normal(n), 130.0)]
    found["random walk"] = [(np.cumsum(30 * random.standard_normal(n)), 130.0)]
    for low, high in ((1, 40), (8, 30), (5, 15), (6, 12), (8, 10), (10, 14)):
        band = signal.butter(2, (low, high), "bandpass", fs=130, output="sos")
        found[f"noise of {low} to {high} Hz"] = [(200 * signal.sosfilt(band, random.standard_normal(n)), 130.0)]
    people = folder / "eegmat" / "eegmat_28_people_128hz_int16_0p1uV.npz"
    good = []
    if people.is_file():
        with np.load(people) as recordings:
            row = [str(label) for label in recordings["channels"]].index("ECG")
            scale = float(recordings["scale_uV"])
            names = [name for name in sorted(recordings.files) if name.startswith("Subject")]
            found["eegmat, lost leads"] = [(recordings[name][row] * scale, 128.0) for name in LOST]
            good = [(recordings[name][row] * scale, 128.0) for name in names if name not in LOST]
        found["eegmat, tuned half"], found["eegmat, other half"] = good[::2], good[1::2]
    if file is not None:
        names = sorted(key.removesuffix("_uV") for key in file.files if key.endswith("_uV") and key != "scale_uV")
        good = [(file[f"{name}_uV"] * float(file["scale_uV"]), float(file["fs"])) for name in names]
        found["mitdb, tuned half"], found["mitdb, other half"] = good[::2], good[1::2]
    path = folder / "polar_h10_detectpvc" / "polar_h10.csv.gz"
    if path.is_file():
        with gzip.open(path, "rt") as lines:
            found["Polar H10"] = [(1000 * np.genfromtxt(lines, delimiter=",", names=True)["ecg"], 130.0)]
    return found


def regular(true, said, seconds=90.0, **wave):
    """What is said each second of a heart of 75 a minute, of a source that runs at ``true`` Hz and says ``said``."""
    times = np.arange(round(seconds * true)) / true
    samples = 5 * np.random.default_rng(0).standard_normal(len(times))
    for beat in np.arange(0.5, seconds, 0.8):
        samples += 1000 * np.exp(-0.5 * ((times - beat) / 0.012) ** 2)
        if wave:
            samples += wave["height"] * np.exp(-0.5 * ((times - beat - 0.28) / wave["width"]) ** 2)
    lead = StreamInfo(key="lead", kind="ecg", channels=("ECG",), rate=said, unit="uV")
    physiology, found = Physiology([lead]), []
    for low in range(0, len(times), 8):
        part = slice(low, low + 8)
        found += physiology.push(Chunk("lead", times[part], samples[part, None].astype(np.float32)))
    return [update.heart for update in found if isinstance(update, Body)]


def doubt(folder, file):
    print("\nshare of the seconds in which a figure is given, and is withheld because beats are unclear or doubtful, %")
    print(f"{'':>22}{'seconds':>9}" + "".join(f"{name:>22}" for name in SHOWN))
    table = {}
    for title, recordings in leads(folder, file).items():
        every = 5 if title.startswith("mitdb") else 1
        rows = []
        for samples, rate in recordings:
            heart, times, given = Heart(rate), np.arange(len(samples)) / rate, 0
            for now in range(1, int(len(samples) / rate), every):
                count = int(np.searchsorted(times, now, side="right"))
                heart.push(times[given:count], samples[given:count])
                given = count
                figures = [heart.variability.measure(name, float(now)) for name in SHOWN[:2]]
                figures.append(heart.breathing(float(now)))
                words = ("agree", "clear", "T wave")
                rows.append([(not one.reason, any(word in one.reason for word in words)) for one in figures])
        shares = 100 * np.mean(rows, axis=0)
        print(f"{title:>22}{len(rows):>9}" + "".join(f"{a:14.2f}{b:8.2f}" for a, b in shares))
        table[title] = {name: {"given": a, "doubtful": b} for name, (a, b) in zip(SHOWN, shares, strict=True)}
    print("\na clock of 75 a minute whose source runs at another rate than it says: largest RMSSD, ms (truth 0)")
    for said in (130.0, 250.0, 500.0):
        row = f"{said:6g} Hz:"
        for off in (0.0, 0.001, 0.005, 0.01, 0.02, 0.04, -0.02, -0.04, -0.08, -0.5, 0.08, 1.0):
            bodies = regular(said * (1 + off), said)
            values = [heart["RMSSD"].value for heart in bodies if not heart["RMSSD"].reason]
            table[f"{said:g} Hz {100 * off:+g} %"] = max(values, default=float("nan"))
            row += f"  {100 * off:+g} %: " + (f"{max(values):.1f}" if values else "withheld")
        print(row)
    print("\npeaked T waves at 0.28 s, height over that of R: heart rate (truth 75)")
    for width in (0.02, 0.025, 0.03, 0.04):
        row = f"sd {1000 * width:g} ms:"
        for height in (0.8, 1.0, 1.2, 1.3, 1.4, 1.5, 2.0, 3.0):
            one = regular(130.0, 130.0, 30.0, height=1000 * height, width=width)[-1]["HR"]
            row += f"  {height:g}: " + ("doubtful" if one.reason else f"{one.value:.0f}")
        print(row)
    return table


def missing(file):
    from realtime import heart as module

    names = sorted(key.removesuffix("_uV") for key in file.files if key.endswith("_uV") and key != "scale_uV")
    rate, length, whole, table = 130.0, 65 * 130, {}, {}

    def rates(times, values):
        heart, given, found = Heart(rate), 0, []
        for now in range(1, length // 130):
            count = int(np.searchsorted(times, now, side="right"))
            heart.push(times[given:count], values[given:count])
            given = count
            one = heart.variability.measure("HR", float(now))
            found.append(np.nan if heart.lack(float(now), one.seconds) else one.value)
        return found[11:]

    print("\nvalues missing in pieces: heart rate given in %, off by more than 2 bpm in % of these")
    titles = "".join(f"{half + ', ' + rule:>28}" for half in ("tuned", "other") for rule in ("no rule", "with it"))
    print(f"{'pieces':>16}{'missing':>9}{titles}")
    rule = module.MOST_MISSING
    for width, gone in ((0.008, False), (0.04, False), (0.08, False), (0.08, True)):
        for share in (0.005, 0.01, 0.02, 0.1, 0.4):
            cells, row = {}, ""
            for at, name in enumerate(names):
                begin = round(LEARNING * rate)
                samples = file[f"{name}_uV"][begin : begin + length] * float(file["scale_uV"])
                times = np.arange(length) / rate
                if name not in whole:
                    whole[name] = rates(times, samples)
                random, lost, size, place = np.random.default_rng(at), np.zeros(length, bool), round(width * rate), 0
                while share:
                    place += max(1, round(random.exponential(size * (1 - share) / share)))
                    if place >= length:
                        break
                    lost[place : place + size] = True
                    place += size
                values = np.where(lost, np.nan, samples)
                kept = ~lost if gone else np.ones(length, bool)
                for limit in (1.0, rule):
                    module.MOST_MISSING = limit
                    found = rates(times[kept], values[kept])
                    cells.setdefault((at % 2, limit), []).extend(
                        (not np.isnan(one), abs(one - real) > 2) for one, real in zip(found, whole[name], strict=True)
                    )
            module.MOST_MISSING = rule
            what = f"{1000 * width:.0f} ms, {'lost' if gone else 'NaN'}"
            for half in (0, 1):
                for limit in (1.0, rule):
                    said, off = np.sum(cells[half, limit], axis=0)
                    of = len(cells[half, limit])
                    row += f"{100 * said / of:18.1f}{100 * off / max(1, said):10.2f}"
                    label = f"{what} {share:.0%} {'tuned' if half == 0 else 'other'} {limit:g}"
                    table[label] = {"given": said / of, "off": off / max(1, said)}
            print(f"{what:>16}{share:>9.0%}{row}", flush=True)
    return table


def cost():
    table = {}
    print("\ncost in chunks of 16 samples")
    for rate in (130.0, 250.0, 500.0):
        n = int(120 * rate)
        times = np.arange(n) / rate
        samples = 1000 * np.exp(-0.5 * (((times % 0.8) - 0.4) / 0.012) ** 2) + np.random.default_rng(0).standard_normal(
            n
        )
        detector = BeatDetector(rate)
        spent = []
        for low in range(0, n, 16):
            begin = time.perf_counter()
            detector.push(times[low : low + 16], samples[low : low + 16])
            spent.append(time.perf_counter() - begin)
        share = sum(spent) / 120
        table[f"{rate:g} Hz"] = {"us_per_sample": 1e6 * sum(spent) / n, "share_of_core": share}
        print(f"{rate:6g} Hz: {1e6 * sum(spent) / n:6.2f} us a sample, {100 * share:.3f} % of a core")
    keeper = Variability()
    keeper.push(ours(samples, rate))
    begin = time.perf_counter()
    for _ in range(20):
        keeper._solved = None
        keeper.measures(110.0)
    print(
        f"all figures of variability: {1000 * (time.perf_counter() - begin) / 20:.2f} ms each time they are asked for"
    )
    return table


def machine():
    cpu = platform.processor()
    if Path("/proc/cpuinfo").is_file():
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        cpu = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), cpu)
    versions = {}
    for name in ("numpy", "scipy", "numba", "neurokit2", "wfdb"):
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = "not installed"
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    return {"cpu": cpu, "cores": os.cpu_count(), "load": load, "python": platform.python_version(), **versions}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    data = Path(os.environ.get("INSULA_DATA", ROOT.parent / "shared" / "data"))
    parser.add_argument("--data", type=Path, default=data, help="folder of the recordings")
    parser.add_argument("--mitdb", type=Path, help="<record>_uV, _beat_s, _sym and fs, scale_uV")
    parser.add_argument("--ludb", type=Path, help="data, fs, scale_uV and <n>_<i|ii>_sample, _sym")
    parser.add_argument("--only", default="mitdb,noise,strap,rest,ludb,doubt,missing,cost")
    parser.add_argument("--no-peers", action="store_true")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    warnings.filterwarnings("ignore")
    about = machine()
    print("  ".join(f"{key} {value}" for key, value in about.items()))
    path = options.mitdb or options.data / "mitdb" / "mitdb_36_records_130hz_int16_5uV.npz"
    file = np.load(path, allow_pickle=False) if path.is_file() else None
    others = {} if options.no_peers else peers()
    parts, results = options.only.split(","), {"machine": about}
    if "mitdb" in parts and file is not None:
        results["mitdb"] = mitdb(file, others)
    if "noise" in parts and file is not None:
        results["noise"] = noise(options.data / "heartpy_ecg", file, others)
    if "strap" in parts:
        results["strap"] = strap(options.data / "polar_h10_detectpvc" / "polar_h10.csv.gz", file)
    if "rest" in parts:
        results["rest"] = rest(options.data / "neurokit")
        results["breathing"] = breaths(options.data / "neurokit")
    path = options.ludb or options.data / "ludb" / "ludb_150_records_leads_I_II_500hz_int16_uV.npz"
    if "ludb" in parts and path.is_file():
        results["ludb"] = ludb(np.load(path, allow_pickle=False), not options.no_peers)
    if "doubt" in parts:
        results["doubt"] = doubt(options.data, file)
    if "missing" in parts and file is not None:
        results["missing"] = missing(file)
    if "cost" in parts:
        results["cost"] = cost()
    if options.json:
        options.json.write_text(json.dumps(results, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()

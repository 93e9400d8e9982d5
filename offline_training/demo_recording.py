"""The recording that ships with the project: eegmat subject 05 as one XDF file with EEG, ECG and markers.

``python -m offline_training.demo_recording --edf DIR --out FILE``, where DIR holds Subject05_1.edf and
Subject05_2.edf of PhysioNet eegmat 1.0.0. The same input gives the same file, byte for byte.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import mne
import numpy as np
from numpy.typing import NDArray
from scipy.signal import resample_poly

from devices.xdf_format import XdfWriter

PARTS = (("Subject05_1.edf", "rest"), ("Subject05_2.edf", "mental arithmetic"))
ECG_CHANNEL = "ECG ECG"
LEFT_OUT = "EEG A2-A1"
RATE = 500.0
MOST_BYTES = 13_000_000
SOURCE = "PhysioNet eegmat 1.0.0, subject 05, https://doi.org/10.13026/C2JQ1P, ODC-By 1.0"


def without_padding(samples: NDArray[np.float64]) -> NDArray[np.float64]:
    """(channels, n) without the end that only fills EDF's whole records: one value held, then zeros.

    The held value is left out altogether: it does not continue the signal.
    """
    changes = np.flatnonzero((samples[:, 1:] != samples[:, :-1]).any(axis=0)) + 1
    end = samples.shape[1]
    for change in changes[::-1]:
        if end - change < 10:  # real samples never repeat in all channels for 20 ms
            break
        end = int(change)
    return samples[:, :end]


def read_part(path: Path) -> tuple[list[str], NDArray[np.float64], NDArray[np.float64]]:
    """10-20 labels, EEG (channels, n) and ECG (1, n), both in uV at 500 Hz."""
    raw = mne.io.read_raw_edf(path, preload=True, verbose="error")
    if raw.info["sfreq"] != RATE:
        raise SystemExit(f"{path}: {raw.info['sfreq']} Hz instead of {RATE:g}; take the original EDF files.")
    microvolts = without_padding(raw.get_data() * 1e6)
    eeg = [i for i, name in enumerate(raw.ch_names) if name.startswith("EEG ") and name != LEFT_OUT]
    labels = [raw.ch_names[i].removeprefix("EEG ") for i in eeg]
    return labels, microvolts[eeg], microvolts[[raw.ch_names.index(ECG_CHANNEL)]]


def write(out: Path, folder: Path) -> None:
    parts = [(label, *read_part(folder / name)) for name, label in PARTS]
    channels = parts[0][1]
    total = sum(eeg.shape[1] for _, _, eeg, _ in parts)
    # Per sample: flag, stamp and float32 values, in each of the two streams.
    down = 2 if total * (4 * (len(channels) + 1) + 18) > MOST_BYTES else 1
    rate = RATE / down
    lengths = ", then ".join(f"{eeg.shape[1] / RATE:.3f} s of {label}" for label, _, eeg, _ in parts)
    desc = {
        "acquisition": {"source": SOURCE},
        "processing": {
            "join": f"two recordings joined back to back, the time between them is not known: {lengths}",
            "padding": "the constant values that fill each EDF's last records are left out",
            "resampling": "none" if down == 1 else f"{RATE:g} to {rate:g} Hz, scipy.signal.resample_poly",
            "by_its_authors": "filtered, and the EEG cleaned by independent component analysis",
        },
    }
    written = 0.0  # seconds: the boundaries of the file follow the recording's own time
    with XdfWriter(out, now=lambda: written, created=datetime(2018, 12, 17, tzinfo=UTC)) as writer:
        eeg_id = writer.add_stream(
            name="eegmat EEG", type="EEG", channels=channels, rate=rate, format="float32", unit="uV",
            source_id="eegmat-05-eeg", desc=desc,
        )  # fmt: skip
        ecg_id = writer.add_stream(
            name="eegmat ECG", type="ECG", channels=["ECG"], rate=rate, format="float32", unit="uV",
            source_id="eegmat-05-ecg", desc=desc,
        )  # fmt: skip
        marker_id = writer.add_stream(
            name="eegmat markers", type="Markers", channels=["label"], rate=0.0, format="string",
            source_id="eegmat-05-markers",
        )  # fmt: skip
        step = round(0.1 * rate)
        begin = 0
        for label, _, eeg, ecg in parts:
            if down > 1:
                eeg, ecg = (resample_poly(signal, 1, down, axis=1) for signal in (eeg, ecg))
            writer.write_strings(marker_id, [begin / rate], [label])
            for at in range(0, eeg.shape[1], step):
                n = min(step, eeg.shape[1] - at)
                times = np.arange(begin + at, begin + at + n) / rate
                written = float(times[0])
                writer.write(eeg_id, times, eeg[:, at : at + n].T.astype(np.float32))
                writer.write(ecg_id, times, ecg[:, at : at + n].T.astype(np.float32))
            begin += eeg.shape[1]
        writer.write_strings(marker_id, [(begin - 1) / rate], ["end"])
    print(f"{out}: {lengths}; {len(channels)} EEG channels and ECG at {rate:g} Hz, {out.stat().st_size} bytes")


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--edf", type=Path, required=True, help="folder with Subject05_1.edf and Subject05_2.edf")
    parser.add_argument("--out", type=Path, required=True, help="the XDF file to make")
    chosen = parser.parse_args(arguments)
    write(chosen.out, chosen.edf)


if __name__ == "__main__":
    main()

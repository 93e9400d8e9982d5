"""A headset, a strap and a marker program in a process of their own, every sample numbered: nothing is lost unseen.

``ledger.py NAME [--channels N] [--rate HZ] [--seconds S] ...`` makes the LSL streams NAME-eeg, NAME-ecg and
NAME-markers. Sample n of a stream lies at ``epoch + n / rate`` on LSL's clock and carries n in its last channel,
``COUNT``; marker n is "mark n". The numbers follow the clock, so a source that is killed and started again with the
same ``--epoch`` leaves out exactly the numbers of its outage. Labels of the 10-20 system come first, so that a model
can use the streams.

It waits for a reader of every stream (not with ``--at-once``), prints a line of JSON with the epoch and the first
numbers, and at its end, after ``--seconds`` or when its standard input closes, a line with the numbers it stopped
before. The outlets live until it is told to go.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import threading
import time

import numpy as np
import pylsl

# fmt: off
MONTAGE = ("Fp1", "Fp2", "C3", "C4", "O1", "O2", "F3", "F4", "P3", "P4", "F7", "F8", "T3", "T4", "T5", "T6", "Fz", "Cz",
           "Pz")
# fmt: on
ECG_RATE = 130.0
ECG_PACKET = 73
"""Samples that a Polar H10 sends at a time."""
MARK_EVERY = 0.5
BLOCK_SECONDS = 8


def brain(rate, channels, seed=0):
    """Background with an alpha rhythm, about 15 uV: (seconds, channels) that can be repeated without a jump."""
    random = np.random.default_rng(seed)
    n = round(BLOCK_SECONDS * rate)
    frequency = np.fft.rfftfreq(n, 1 / rate)
    shape = 1 / np.maximum(frequency, 1.0) ** 0.5
    shape[(frequency > 45) | (frequency < 0.5)] = 0
    spectrum = random.standard_normal((len(frequency), channels)) + 1j * random.standard_normal(
        (len(frequency), channels)
    )
    spectrum *= shape[:, None]
    spectrum[round(10 * BLOCK_SECONDS)] *= 8
    wave = np.fft.irfft(spectrum, n, axis=0)
    return (15 * wave / wave.std(axis=0)).astype(np.float32)


def heart(rate, seed=1):
    """A QRS complex and a T wave, 75 a minute, and 5 uV of noise: (seconds, 1)."""
    random = np.random.default_rng(seed)
    n = round(BLOCK_SECONDS * rate)
    phase = (np.arange(n) / rate) % 0.8
    beat = 1000 * np.exp(-0.5 * ((phase - 0.3) / 0.012) ** 2) + 250 * np.exp(-0.5 * ((phase - 0.54) / 0.04) ** 2)
    return (beat + 5 * random.standard_normal(n))[:, None].astype(np.float32)


class Stream:
    """One outlet; `push` sends what is due."""

    def __init__(self, name, kind, labels, rate, packet, block):
        self.rate, self.packet, self.block = rate, packet, block
        info = pylsl.StreamInfo(f"{name}-{kind.lower()}", kind, len(labels), rate, "float32", name)
        info.set_channel_labels(list(labels))
        info.set_channel_units("microvolts")
        self.outlet = pylsl.StreamOutlet(info)
        self.next = 0

    def begin(self, epoch, now):
        self.epoch = epoch
        self.next = max(0, int(np.ceil((now - epoch) * self.rate)))

    def push(self, now, spoil):
        """Whole packets that are due at ``now``; what a stopped process could not send follows in pieces."""
        due = int((now - self.epoch) * self.rate) + 1
        while due - self.next >= self.packet:
            n = np.arange(self.next, self.next + self.packet)
            values = np.empty((self.packet, self.block.shape[1] + 1), np.float32)
            values[:, :-1] = self.block[n % len(self.block)]
            spoil(values[:, :-1], n, self.rate)
            values[:, -1] = n
            stamps = self.epoch + n / self.rate
            self.outlet.push_chunk(values, stamps.tolist())
            self.next += self.packet


def spoiler(kind, columns):
    """What is wrong with the signals: changes values (n, channels) of samples ``n`` in place."""
    random = np.random.default_rng(2)

    def spoil(values, n, rate):
        part = values[:, columns] if columns else values
        if kind == "nan":
            part[:] = np.nan
        elif kind == "rail":
            part[:] = 187_500.0
        elif kind == "flat":
            part[:] = 0.0
        elif kind == "hold":  # what some drivers repeat while packets are missing
            part[:] = 10.0 * (n[:, None] // round(0.4 * rate) % 5) + np.arange(part.shape[1])
        elif kind == "leadoff":  # an open electrode: mains at the rails
            part[:] = 150_000 * np.sign(np.sin(2 * np.pi * 50 * n / rate))[:, None] + random.standard_normal(part.shape)
        elif kind == "big":
            part *= 3.0
        values[:, columns if columns else slice(None)] = part

    return spoil


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("name")
    parser.add_argument("--channels", type=int, default=8)
    parser.add_argument("--rate", type=float, default=250.0)
    parser.add_argument("--packet", type=float, default=0.032, help="seconds of EEG sent at a time")
    parser.add_argument("--seconds", type=float, default=float("inf"))
    parser.add_argument("--epoch", type=float)
    parser.add_argument("--at-once", action="store_true")
    parser.add_argument("--without", default="", help="streams left out: eeg, ecg, markers, joined by commas")
    parser.add_argument("--spoil", nargs=4, metavar=("STREAM", "HOW", "FROM", "TO"), action="append", default=[])
    parser.add_argument(
        "--columns", type=int, nargs="*", default=[], help="of the stream that is spoilt; all unless said"
    )
    options = parser.parse_args()

    absent = options.without.split(",")
    labels = [*MONTAGE, *(f"X{index}" for index in range(options.channels))][: options.channels]
    streams = {}
    if "eeg" not in absent:
        packet = max(1, round(options.packet * options.rate))
        block = brain(options.rate, options.channels)
        streams["eeg"] = Stream(options.name, "EEG", [*labels, "COUNT"], options.rate, packet, block)
    if "ecg" not in absent:
        streams["ecg"] = Stream(options.name, "ECG", ["ECG", "COUNT"], ECG_RATE, ECG_PACKET, heart(ECG_RATE))
    outlets = [stream.outlet for stream in streams.values()]
    if "markers" not in absent:
        info = pylsl.StreamInfo(f"{options.name}-markers", "Markers", 1, 0.0, "string", options.name)
        markers = pylsl.StreamOutlet(info)
        outlets.append(markers)
    print("there", flush=True)
    if not options.at_once:
        until = time.monotonic() + 60
        while not all(one.have_consumers() for one in outlets) and time.monotonic() < until:
            time.sleep(0.01)
    began = pylsl.local_clock()
    epoch = began if options.epoch is None else options.epoch
    for stream in streams.values():
        stream.begin(epoch, began)
    mark = max(0, int(np.ceil((began - epoch) / MARK_EVERY)))
    first = {key: stream.next for key, stream in streams.items()}
    if "markers" not in absent:
        first["markers"] = mark
    print(json.dumps({"epoch": epoch, "first": first}), flush=True)

    spoilers = [(which, spoiler(how, options.columns), float(a), float(b)) for which, how, a, b in options.spoil]
    told = threading.Event()

    def listen():
        # The descriptor itself: a thread inside sys.stdin would hold its lock when Python ends.
        while os.read(sys.stdin.fileno(), 100):
            pass
        told.set()

    threading.Thread(target=listen, daemon=True).start()
    while not told.is_set():
        now = pylsl.local_clock()
        if now - began > options.seconds:
            break
        for key, stream in streams.items():
            wrong = [do for which, do, a, b in spoilers if which == key and a <= now - began < b]
            stream.push(now, wrong[0] if wrong else lambda values, n, rate: None)
        if "markers" not in absent and epoch + mark * MARK_EVERY <= now:
            markers.push_sample([f"mark {mark}"], epoch + mark * MARK_EVERY)
            mark += 1
        time.sleep(0.008)
    sent = {key: stream.next for key, stream in streams.items()}
    if "markers" not in absent:
        sent["markers"] = mark
    print(json.dumps({"sent": sent}), flush=True)
    told.wait()


if __name__ == "__main__":
    main()

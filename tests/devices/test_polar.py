"""A strap over the air: frames as they are, and the product's own code over real ATT bytes of a virtual link."""

from __future__ import annotations

import contextlib
import importlib.util
import sys
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from devices import polar
from devices.api import Chunk, Clock, DeviceError, Events, Notice, open_device
from devices.polar import Radio, firmware_warning
from devices.polar_frames import STATUS, Order, Packet, decode_beats, decode_ecg, parse_answer

_spec = importlib.util.spec_from_file_location("strap", Path(__file__).resolve().parents[1] / "peers" / "strap.py")
peer = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(peer)

SECOND = 1_000_000_000
PACKET = 73 * SECOND // 130
Y2026 = 835 * 10**15  # ns since 2000-01-01
Y2019 = 599 * 10**15
TRUE_RATE = 130.045


def samples_of(number: int) -> np.ndarray:
    """The samples of a packet: each value occurs once in a test."""
    return np.arange(73) + 73 * number


class Session:
    """A strap that is worn, a device that is connected to it, and a session clock that the test moves."""

    def __init__(self, air, strap, *, rest: str = "", **waits: float):
        self.air, self.strap, self.now = air, strap, 1000.0
        quick = {"scan": 5.0, "listen": 0.2, "connect": 10.0, "answer": 5.0, "hold": 60.0, "pauses": (0.05, 0.1)}
        self.radio = Radio(client=air.client, scanner=air.scanner, **(quick | waits))
        self.items: list = []
        self.device = polar.connect(rest, radio=self.radio, clock=lambda: self.now)

    def __enter__(self):
        self.device.__enter__()
        return self

    def __exit__(self, *exc):
        self.device.__exit__(*exc)

    def at(self, now: float, stamp: int, number: int) -> None:
        """Packet ``number`` arrives at ``now``."""
        self.now = now
        self.strap.send(peer.frame(stamp, samples_of(number)))

    def take(self) -> list:
        self.items += self.device.read(0.0)
        return self.items

    def until(self, condition, seconds: float = 15.0) -> None:
        end = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < end, f"not in {seconds} s; problem: {self.device.problem!r}"
            self.items += self.device.read(0.02)

    def of(self, kind: type) -> list:
        """Chunks with samples only."""
        return [item for item in self.take() if isinstance(item, kind) and (kind is not Chunk or len(item.times))]

    def times(self) -> np.ndarray:
        return np.concatenate([chunk.times for chunk in self.of(Chunk)])

    def values(self) -> np.ndarray:
        return np.concatenate([chunk.data[:, 0] for chunk in self.of(Chunk)])

    def lost(self) -> int:
        return sum(chunk.lost for chunk in self.of(Chunk))

    def notices(self) -> str:
        return "\n".join(notice.text for notice in self.of(Notice))


@pytest.fixture
def air():
    made = peer.Air()
    yield made
    made.close()


@pytest.fixture
def worn(air):
    """A strap that is connected and sends nothing yet."""
    with Session(air, peer.Strap(air)) as session:
        yield session


# -- bytes -----------------------------------------------------------------------------------------------------------


def test_a_notification_of_229_bytes_gives_73_samples_and_the_stamp_exactly():
    values = np.concatenate([[0, 1, -1, 8_388_607, -8_388_608, 300, -300], np.arange(66) * 1001 - 30_000])
    frame = peer.frame(599_616_000_123_456_789, values)
    assert len(frame) == 229
    assert frame[:10].hex(" ") == "00 15 cd ff 40 93 43 52 08 00"  # 0x0852439340ffcd15 ns
    stamp, samples = decode_ecg(frame)
    assert stamp == 599_616_000_123_456_789
    assert samples.dtype == np.float32
    np.testing.assert_array_equal(samples, values)


@pytest.mark.parametrize(
    ("frame", "why"),
    [
        (b"", "0 bytes"),
        (bytes(10), "10 bytes"),
        (bytes(228), "cut within a sample"),
        (bytes(20), "cut within a sample"),
        (b"\x02" + bytes(228), "type 2.0"),
        (bytes(9) + b"\x80" + bytes(219), "type 0.128"),
        (bytes(10 + 3 * 400), "1210 bytes"),
    ],
)
def test_a_frame_that_is_none_is_refused_in_words(frame, why):
    with pytest.raises(ValueError, match=why):
        decode_ecg(frame)


@pytest.mark.parametrize("code", STATUS)
def test_every_refusal_of_the_control_point_has_a_name(code):
    assert parse_answer(bytes([0xF0, 2, 0, code])).refusal == STATUS[code]


@given(st.binary(max_size=300))
def test_rubbish_is_decoded_or_refused_and_nothing_else(rubbish):
    for decode in (decode_ecg, decode_beats, parse_answer):
        with contextlib.suppress(ValueError):
            decode(rubbish)


@pytest.mark.parametrize(
    ("value", "bpm", "rr", "contact"),
    [
        ("00 48", 72, (), None),
        ("10 48 00 04", 72, (1000.0,), None),
        ("16 4a 40 03 00 04", 74, (812.5, 1000.0), True),
        ("04 00", 0, (), False),
        ("19 2c 01 ff ff 00 02", 300, (500.0,), None),
    ],
)
def test_heart_rate_and_intervals_are_read_by_their_flags(value, bpm, rr, contact):
    beats = decode_beats(bytes.fromhex(value))
    assert (beats.bpm, beats.rr_ms, beats.contact) == (bpm, rr, contact)


# -- order and loss --------------------------------------------------------------------------------------------------


@settings(max_examples=150, deadline=None)
@given(
    fates=st.lists(st.sampled_from(["sent"] * 12 + ["lost", "twice", "after the next"]), min_size=3, max_size=120),
    rate=st.floats(128.3, 130.9),
)
def test_every_sample_is_given_out_once_in_order_or_counted_as_lost(fates, rate):
    fates[0] = fates[-1] = "sent"
    packets, carried = [], []
    for number, fate in enumerate(fates):
        stamp = Y2026 + round((number + 1) * 73 / rate * SECOND)
        packet = Packet(stamp, samples_of(number).astype(np.float32), number * 73 / rate)
        if fate == "after the next":
            carried.append(packet)
            continue
        packets += [packet] * {"sent": 1, "twice": 2, "lost": 0}[fate]
        if fate != "lost":
            packets += carried
            carried = []
    order = Order()
    given_out = [ordered for packet in packets for ordered in order.put(packet)] + order.flush()
    values = np.concatenate([ordered.packet.samples for ordered in given_out])
    assert (np.diff(values) > 0).all()
    assert len(values) + sum(ordered.lost for ordered in given_out) == 73 * len(fates)
    times = np.concatenate([ordered.times for ordered in given_out])
    truth = (values - values[0]) / rate
    assert (np.diff(times) > 0.3 / rate).all()
    np.testing.assert_allclose(times - times[0], truth, atol=0.012)  # the first packet does not know the true rate


def test_a_packet_is_held_back_for_one_other_at_most():
    order = Order()
    for number in range(5):
        order.put(Packet(Y2026 + number * PACKET, samples_of(number), number))
    assert order.put(Packet(Y2026 + 6 * PACKET, samples_of(6), 6)) == []
    given_out = order.put(Packet(Y2026 + 7 * PACKET, samples_of(7), 7))
    assert [ordered.lost for ordered in given_out] == [73, 0]
    assert order.put(Packet(Y2026 + 5 * PACKET, samples_of(5), 5)) == []  # too late: it is counted already
    assert order.put(Packet(Y2026 + 8 * PACKET, samples_of(8), 8))[0].lost == 0


# -- over the air ----------------------------------------------------------------------------------------------------


def test_the_strap_is_asked_for_its_settings_then_for_ecg_and_says_who_it_is(worn):
    assert [request.hex(" ") for request in worn.strap.asked] == ["01 00", "02 00 00 01 82 00 01 01 0e 00"]
    identity = worn.device.identity
    assert identity["serial"] == "1A2B3C12"
    assert identity["firmware"] == "3.0.56"
    assert identity["battery"] == "80 %"
    assert identity["address"] == "24:AC:AC:01:02:03"
    ecg, rr = worn.device.streams
    assert (ecg.kind, ecg.rate, ecg.unit, ecg.channels) == ("ecg", 130.0, "uV", ("ECG",))
    assert (rr.kind, rr.rate) == ("rr", 0.0)
    assert ecg.source == "polar:Polar H10 1A2B3C12"


def test_until_the_first_ecg_the_problem_says_that_it_may_take_a_while(worn):
    assert "waiting for the first ECG" in worn.device.problem
    worn.at(1025.0, Y2026, 0)
    assert worn.device.problem == ""
    np.testing.assert_array_equal(worn.values(), samples_of(0))
    assert worn.times()[-1] == pytest.approx(1025.0)


def test_three_minutes_with_jitter_loss_and_disorder_are_stamped_well_and_counted_exactly(worn):
    random = np.random.default_rng(1)
    count = 320
    true = 1000.0 + np.arange(1, count + 1) * 73 / TRUE_RATE
    arrival = true + 0.03 + random.exponential(0.02, count)
    fate = random.random(count)
    fate[[0, -1]] = 1.0
    arrival[(fate > 0.02) & (fate < 0.05)] += 0.65
    packets = [(arrival[number], number) for number in range(count) if fate[number] > 0.02]
    packets += [(arrival[number] + 0.1, number) for number in range(count) if fate[number] > 0.98]
    for now, number in sorted(packets):
        worn.at(now, Y2026 + (number + 1) * PACKET, number)
    worn.device._thread._loop.call_soon_threadsafe(lambda: worn.device._give(worn.device._frames.flush()))
    worn.until(lambda: worn.values()[-1] == samples_of(count - 1)[-1])
    values, times = worn.values(), worn.times()
    missing = int((fate <= 0.02).sum()) * 73
    assert missing > 0
    assert len(values) + worn.lost() == 73 * count
    assert worn.lost() == missing
    assert (np.diff(values) > 0).all()
    assert (np.diff(times) > 0.9 / 131).all()
    error = times - (1000.0 + (values + 1) / TRUE_RATE)
    error = error[times > times[0] + 60]
    assert error.std() < 2e-3
    assert 0.03 < error.mean() < 0.045
    assert worn.notices().count("lost") >= 1
    clocks = worn.of(Clock)
    assert 25 < len(clocks) < 40
    assert 1e-5 < clocks[-1].uncertainty < 5e-3
    assert clocks[-1].offset + (Y2026 + count * PACKET) / SECOND == pytest.approx(true[-1] + 0.035, abs=0.02)


def test_a_strap_that_comes_back_with_its_clock_at_2019_leaves_a_gap_as_long_as_the_outage(worn):
    for number in range(40):
        worn.at(1000.0 + number * 0.5615, Y2026 + number * PACKET, number)
    worn.strap.take_off()
    worn.until(lambda: "strap lost" in worn.device.problem)
    assert "the connection broke" in worn.device.problem
    worn.strap.streaming = False
    worn.strap.put_on()
    worn.until(lambda: worn.strap.streaming)
    back = 1000.0 + 39 * 0.5615 + 20.0
    for number in range(40):
        worn.at(back + number * 0.5615, Y2019 + number * PACKET, 100 + number)
    times, values = worn.times(), worn.values()
    assert worn.device.problem == ""
    assert (np.diff(times) > 0).all()
    assert len(np.unique(values)) == len(values) == 80 * 73
    gap = np.diff(times).max()
    assert gap == pytest.approx(20.0 - 73 / 130, abs=0.05)
    assert worn.lost() == pytest.approx(gap * 130, abs=2)
    assert "strap lost: the connection broke" in worn.notices()
    assert "strap back after 19.4 s" in worn.notices()
    assert "began anew" in worn.notices()


def test_a_strap_lost_behind_a_hole_is_lost_once_and_back_once(worn):
    for number in (0, 1, 3):
        worn.at(1000.0 + number * 0.5615, Y2026 + number * PACKET, number)
    worn.strap.drop()
    worn.until(lambda: "strap lost" in worn.notices() and worn.strap.streaming)
    assert "strap back" not in worn.notices()
    for number in (20, 21):
        worn.at(1000.0 + number * 0.5615, Y2026 + number * PACKET, number)
    assert [notice.text.partition(":")[0] for notice in worn.of(Notice)] == [
        "73 samples of ECG lost (0.56 s)",
        "strap lost",
        "strap back after 9.0 s, 1168 samples lost",
    ]
    assert len(worn.values()) + worn.lost() == 22 * 73


def test_after_a_short_loss_with_the_clock_running_on_the_samples_lost_are_counted_exactly(worn):
    spacing = 73 / TRUE_RATE
    for number in range(60):
        worn.at(1000.0 + number * spacing, Y2026 + number * PACKET, number)
    worn.strap.drop()
    worn.until(lambda: worn.strap.streaming)
    shift = 1500  # samples, not a whole number of packets
    stamp = Y2026 + 59 * PACKET + round((shift + 73) / 130 * SECOND)
    for number in range(10):
        worn.at(1000.0 + 59 * spacing + (shift + 73 * (number + 1)) / TRUE_RATE, stamp + number * PACKET, 60 + number)
    assert worn.lost() == shift
    assert "strap back after 11.5 s, 1500 samples lost" in worn.notices()
    assert "anew" not in worn.notices()


def test_a_strap_in_which_ecg_still_runs_is_stopped_and_started(air):
    strap = peer.Strap(air)
    strap.refuses[2] = [6]
    with Session(air, strap) as session:
        assert [request[0] for request in strap.asked] == [1, 2, 3, 2]
        session.at(1001.0, Y2026, 0)
        assert len(session.of(Chunk)) == 1


def test_what_is_read_of_the_control_point_is_not_taken_for_an_answer(air):
    strap = peer.Strap(air)
    strap.echoes = True
    with Session(air, strap) as session:
        session.at(1001.0, Y2026, 0)
        assert len(session.of(Chunk)) == 1


@pytest.mark.parametrize(("operation", "code"), [(1, 3), (2, 10), (2, 13), (2, 8)])
def test_a_strap_that_refuses_says_why_in_words(air, operation, code):
    strap = peer.Strap(air)
    strap.refuses[operation] = [code]
    with pytest.raises(DeviceError, match=f"{STATUS[code]}.*code {code}"), Session(air, strap):
        pass
    assert len(strap.asked) == operation


def test_a_strap_that_never_answers_its_control_point_is_given_up_in_words(air):
    strap = peer.Strap(air)
    strap.deaf = True
    with pytest.raises(DeviceError, match=r"did not answer in 0\.3 s, asked for the ECG settings"):
        Session(air, strap, answer=0.3).__enter__()


def test_a_strap_that_cannot_be_connected_is_given_up_in_words(air):
    strap = peer.Strap(air)
    strap.heavy = True
    with pytest.raises(DeviceError, match=r"does not let itself be connected in 0\.3 s"):
        Session(air, strap, connect=0.3).__enter__()


def test_no_strap_at_all_is_said_after_the_scan(air):
    with pytest.raises(DeviceError, match=r"polar:1A2B: the strap did not answer in 0\.3 s.*insula devices"):
        polar.connect("1A2B", radio=Radio(client=air.client, scanner=air.scanner, scan=0.3))


def test_without_a_name_no_strap_at_all_is_said_as_clearly(air):
    with pytest.raises(DeviceError, match=r"^polar: no strap answered in 0\.3 s\. Wet the electrodes"):
        polar.connect("", radio=Radio(client=air.client, scanner=air.scanner, scan=0.3))


@pytest.mark.parametrize("name", ["Polar H10 what?", "Polar H10 1A\n2B"])
def test_a_strap_with_an_odd_name_is_found_again_by_the_address_that_is_listed(air, name):
    peer.Strap(air, name)
    radio = Radio(client=air.client, scanner=air.scanner, scan=5.0, listen=0.2)
    (found,) = polar.discover(0.4, radio=radio)
    assert found.what.isprintable()
    device = polar.connect(found.address.removeprefix("polar:"), radio=radio)
    device.__exit__()
    assert device.streams[0].source == found.address == "polar:24:AC:AC:01:02:03"


def test_a_strap_that_never_answers_what_it_was_asked_is_given_up_in_words(air):
    strap = peer.Strap(air)
    strap.chatty = True
    with pytest.raises(DeviceError, match=r"did not answer in 0\.5 s, asked for the ECG settings"):
        Session(air, strap, answer=0.5).__enter__()


def test_a_battery_that_cannot_be_read_costs_no_ecg(air):
    strap = peer.Strap(air)
    strap.shy = True
    with Session(air, strap, battery=0.0) as session:
        session.at(1001.0, Y2026, 0)
        assert "battery" not in session.device.identity
        session.until(lambda: strap.looked >= 3)
        session.at(1002.0, Y2026 + PACKET, 1)
        assert session.notices() == ""
        assert len(strap.asked) == 2


def test_a_strap_that_is_connected_but_silent_is_connected_anew(air):
    with Session(air, peer.Strap(air), first=2.0, silence=0.8) as session:
        session.until(lambda: len(session.strap.asked) >= 4)
        session.until(lambda: session.strap.streaming)
        session.at(1001.0, Y2026, 0)
        session.until(lambda: "no ECG for" in session.device.problem)
        session.until(lambda: "strap lost: connected, but no ECG" in session.notices())


def test_notifications_cut_to_a_small_mtu_are_refused_counted_and_said(air):
    with Session(air, peer.Strap(air, mtu=100)) as session:
        for number in range(5):
            session.at(1000.0 + number * 0.56, Y2026 + number * PACKET, number)
        assert session.of(Chunk) == []
        assert "5 notifications of the strap were refused" in session.device.problem
        assert "29 samples instead of 73" in session.device.problem
        assert session.notices().count("refused") == 1


def test_a_truncated_frame_among_whole_ones_is_counted_as_lost(worn):
    for number in range(10):
        worn.now = 1000.0 + number * 0.56
        frame = peer.frame(Y2026 + number * PACKET, samples_of(number))
        worn.strap.send(frame[:97] if number == 4 else frame[:50] if number == 6 else frame)
    worn.at(1005.6, Y2026 + 10 * PACKET, 10)
    assert worn.lost() == 2 * 73
    assert len(worn.values()) == 9 * 73


def test_a_single_absurd_stamp_does_not_tear_the_record(worn):
    for number in range(60):
        stamp = Y2026 + (number + 1) * PACKET + (200_000 * SECOND if number == 30 else 0)
        worn.at(1000.0 + (number + 1) * 73 / 130, stamp, number)
    times = worn.times()
    assert len(times) == 60 * 73
    assert (np.diff(times) > 0).all()
    np.testing.assert_allclose(times, 1000.0 + np.arange(1, 60 * 73 + 1) / 130, atol=0.02)
    assert worn.lost() <= 4


def test_heart_rate_and_intervals_become_events(worn):
    worn.now = 1010.0
    worn.strap.beat(bytes.fromhex("16 4a 40 03 00 04"))
    worn.now = 1010.9
    worn.strap.beat(bytes.fromhex("16 4b 00 04 00 04 00 04"))
    first, second = worn.of(Events)
    assert first.labels == ("rr 812.5 ms", "rr 1000.0 ms", "hr 74 bpm")
    np.testing.assert_allclose(first.times, [1009.0, 1010.0, 1010.0])
    assert second.labels[-1] == "hr 75 bpm"
    np.testing.assert_allclose(second.times, [1010.0, 1010.0, 1010.9, 1010.9])
    worn.strap.beat(bytes.fromhex("04 00"))
    assert "no skin contact" in worn.notices()
    worn.strap.beat(bytes.fromhex("10 48 00"))  # cut within an interval
    assert "refused a heart rate measurement of 3 bytes" in worn.notices()
    assert "lost" not in worn.notices()


def test_a_heart_rate_without_intervals_is_one_event_with_one_time(worn):
    worn.strap.beat(bytes.fromhex("00 48"))
    (event,) = worn.of(Events)
    assert event.labels == ("hr 72 bpm",)
    assert len(event.times) == 1


def test_packets_of_a_link_that_stalled_at_the_beginning_are_stamped_in_order(worn):
    true = 1000.0 + np.arange(1, 60) * 73 / TRUE_RATE
    for number, moment in enumerate(true):
        worn.at(max(moment, 1006.0 + number * 0.01), Y2026 + number * PACKET, number)
    times = worn.times()
    assert len(times) == 59 * 73
    assert (np.diff(times) > 0).all()
    assert times[-1] == pytest.approx(true[-1], abs=0.02)


def test_the_delay_of_the_address_is_subtracted_and_its_uncertainty_said(air):
    strap = peer.Strap(air)
    with Session(air, strap, rest="1A2B3C12?delay=0.05&delay_sd=0.01") as session:
        session.at(1001.0, Y2026, 0)
        assert session.times()[-1] == pytest.approx(1000.95)
        assert session.of(Clock)[0].uncertainty >= 0.01
        session.now = 1010.0
        strap.beat(bytes.fromhex("16 4a 40 03 00 04"))
        np.testing.assert_allclose(session.of(Events)[0].times, [1008.95, 1009.95, 1009.95])
        assert session.device.identity["delay"] == "50 ms subtracted from every stamp, known to 10 ms"
        assert session.device.streams[0].source.endswith("?delay=0.05&delay_sd=0.01")


@pytest.mark.parametrize(
    "rest", ["x?delay=much", "x?delay=nan", "x?delay=11", "x?delay=-1", "x?delay_sd=-1", "x?latency=1", "x\ny?lag=%0A"]
)
def test_an_option_that_makes_no_sense_is_refused_in_one_line(rest):
    with pytest.raises(DeviceError, match=r"^polar:x.*seconds.*$") as error:
        polar.connect(rest)
    assert "\n" not in str(error.value)


def test_of_two_straps_the_address_must_say_which(air):
    peer.Strap(air)
    peer.Strap(air, "Polar H10 99887766", "24:AC:AC:0A:0B:0C")
    radio = Radio(client=air.client, scanner=air.scanner, scan=5.0, listen=0.4)
    with pytest.raises(DeviceError, match=r"2 straps fit: Polar H10 1A2B3C12 .*, Polar H10 99887766"):
        polar.connect("", radio=radio)
    for rest in ("99887766", "polar h10 99887766", "24:ac:ac:0a:0b:0c"):
        device = polar.connect(rest, radio=radio)
        assert device.streams[0].name == "Polar H10 99887766"
        device.__exit__()
    found = polar.discover(0.4, radio=radio)
    assert [item.address for item in found] == ["polar:Polar H10 1A2B3C12", "polar:Polar H10 99887766"]


def test_a_low_battery_is_a_notice(air):
    with Session(air, peer.Strap(air, battery=15)) as session:
        session.until(lambda: "battery of the strap at 15 %" in session.notices())


def test_a_device_that_measures_no_ecg_is_refused(air):
    with pytest.raises(DeviceError, match="measures no ECG"), Session(air, peer.Strap(air, features=0b100)):
        pass


def test_the_firmware_is_warned_of_once_where_it_is_known_to_fail(air, monkeypatch):
    monkeypatch.setattr(polar, "sys", SimpleNamespace(platform="win32"))
    strap = peer.Strap(air, firmware="4.0.4")
    with Session(air, strap) as session:
        session.at(1001.0, Y2026, 0)
        assert session.notices().count("firmware 4.0.4 of the strap is known to disconnect from Windows") == 1
        strap.drop()
        session.until(lambda: "strap lost" in session.notices() and strap.streaming)
        session.at(1010.0, Y2026 + 20 * PACKET, 1)
        assert session.notices().count("known to disconnect") == 1


def test_a_strap_that_stays_away_is_looked_for_more_and_more_seldom_and_one_that_came_back_at_once(air, monkeypatch):
    pauses, slept, sleep = (0.011, 0.022, 0.033), [], polar.asyncio.sleep

    def recorded(seconds, *rest):
        if seconds in pauses:
            slept.append(seconds)
        return sleep(seconds, *rest)

    monkeypatch.setattr(polar.asyncio, "sleep", recorded)
    with Session(air, peer.Strap(air), pauses=pauses) as session:
        session.device._radio = replace(session.radio, scan=0.05, connect=1.0)  # in vain, and soon
        for outage, expected in enumerate(([0.011, 0.022, 0.033, 0.033], [0.011])):
            session.at(1001.0 + 100 * outage, Y2026 + 200 * outage * PACKET, outage)
            slept.clear()
            session.strap.take_off()
            session.until(lambda expected=expected: slept[: len(expected)] == expected)
            session.strap.streaming = False
            session.strap.put_on()
            session.until(lambda: session.strap.streaming)


@pytest.mark.parametrize(
    ("firmware", "platform", "warned"),
    [("4.0.4", "win32", True), ("4.1.0", "win32", True), ("3.0.56", "win32", False), ("4.0.4", "linux", False)],
)
def test_a_firmware_that_disconnects_on_windows_is_warned_of(firmware, platform, warned):
    assert bool(firmware_warning(firmware, platform)) is warned


def test_what_a_reader_leaves_waiting_too_long_is_counted_as_lost(air, monkeypatch):
    monkeypatch.setattr(polar, "WAITING", 8)
    with Session(air, peer.Strap(air)) as session:
        for number in range(30):
            session.at(1000.0 + (number + 1) * 73 / 130, Y2026 + number * PACKET, number)
        kept = len(session.values())
        assert 0 < kept <= 8 * 73
        assert [chunk.lost for chunk in session.of(Chunk)] == [30 * 73 - kept, *[0] * (kept // 73 - 1)]
        session.at(1000.0 + 31 * 73 / 130, Y2026 + 30 * PACKET, 30)
        assert len(session.values()) + session.lost() == 31 * 73


def test_a_packet_behind_a_hole_does_not_wait_for_the_next(air):
    with Session(air, peer.Strap(air), hold=0.05) as session:
        for number in (0, 1, 3):
            session.at(1001.0 + number * 73 / 130, Y2026 + number * PACKET, number)
        session.until(lambda: len(session.of(Chunk)) == 3)
        assert [chunk.lost for chunk in session.of(Chunk)] == [0, 0, 73]


def test_a_closed_device_gives_the_strap_free_for_the_next(air):
    strap = peer.Strap(air)
    for _ in range(2):
        with Session(air, strap) as session:
            session.at(1001.0, Y2026, 0)
            assert len(session.of(Chunk)) == 1
        end = time.monotonic() + 5.0
        while strap.connection is not None:
            assert time.monotonic() < end, "still connected"
            time.sleep(0.01)


def test_a_device_is_opened_once(worn):
    with pytest.raises(DeviceError, match="opened once"):
        worn.device.__enter__()


@pytest.mark.skipif(sys.platform != "linux", reason="Bluetooth is reached over D-Bus on Linux only")
@pytest.mark.parametrize(
    ("bus", "said"),
    [("unix:path=/nonexistent/bus", "no Bluetooth here.*Plug in an adapter"), ("nonsense", "Bluetooth says: ")],
)
def test_without_bluetooth_one_clear_error(monkeypatch, bus, said):
    monkeypatch.setenv("DBUS_SYSTEM_BUS_ADDRESS", bus)
    for attempt in (lambda: open_device("polar:1A2B3C12"), lambda: polar.discover(0.1)):
        with pytest.raises(DeviceError, match=rf"^polar:.*{said}"):
            attempt()

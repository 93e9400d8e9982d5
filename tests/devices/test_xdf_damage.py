"""Hostile and damaged XDF files: what is whole is kept, damage is named with its byte, nothing costs what it claims.

``python tests/devices/test_xdf_damage.py COUNT SEED`` makes COUNT mutations; INSULA_MUTATIONS says how many the test
makes.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import re
import struct
import subprocess
import sys
import tempfile
import tracemalloc
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest

from devices.api import DeviceError, End
from devices.xdf import XdfReplay
from devices.xdf_deidentify import deidentify
from devices.xdf_format import XdfError, XdfFile, XdfWriter, describe
from devices.xdf_layout import BOUNDARY

ROOT = Path(__file__).resolve().parents[2]
MUTATIONS = int(os.environ.get("INSULA_MUTATIONS", "1500"))
SPARE = 64e6


def chunk(tag, content, stream=None):
    head = struct.pack("<H", tag) if stream is None else struct.pack("<HI", tag, stream)
    return struct.pack("<BI", 4, len(head) + len(content)) + head + content


def varlen(value):
    return struct.pack("<BI", 4, value)


def header(stream=1, channels=1, fmt="float32", rate=100, more=""):
    xml = (
        f'<?xml version="1.0"?><info><name>s{stream}</name><type>EEG</type><channel_count>{channels}</channel_count>'
        f"<nominal_srate>{rate}</nominal_srate><channel_format>{fmt}</channel_format>{more}</info>"
    )
    return chunk(2, xml.encode(), stream)


def samples(stamps, values, stream=1, extra=b""):
    """A Samples chunk of one float32 channel; a stamp of None is omitted; ``extra`` follows each value."""
    body = b"".join(
        (b"\x00" if t is None else struct.pack("<Bd", 8, t)) + struct.pack("<f", v) + extra
        for t, v in zip(stamps, values, strict=True)
    )
    return chunk(3, varlen(len(values)) + body, stream)


def xdf(*chunks):
    return b"XDF:" + chunk(1, b'<?xml version="1.0"?><info><version>1.0</version></info>') + b"".join(chunks)


def opened(tmp_path, content):
    path = tmp_path / "made.xdf"
    path.write_bytes(content)
    return XdfFile(path)


def named(findings, content, what):
    """Whether a finding names the byte at which ``what`` stands."""
    return any(finding.startswith(f"byte {content.index(what)}: ") for finding in findings)


@contextlib.contextmanager
def memory_of(size, times=3, spare=SPARE):
    """Not more than 3 x the file and 64 MB."""
    tracemalloc.start()
    try:
        yield
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < times * size + spare, f"{peak / 1e6:.0f} MB for {size / 1e6:.0f} MB"


# -- the list of known attacks and faults ------------------------------------------------------------------------------


def test_257_bytes_that_claim_2_to_the_28_texts_cost_nothing_and_the_chunk_is_left_out(tmp_path):
    claim = chunk(3, varlen(2**28), 1)
    content = xdf(header(fmt="string")) + claim
    with memory_of(len(content)), opened(tmp_path, content) as file:
        assert file.samples(1) == 0
        assert named(file.findings, content, claim)
        assert "268435456 samples of stream 1 do not fit 0 bytes" in file.findings[0]


@pytest.mark.parametrize(
    ("length", "word"), [(2**62, "the file has"), (2**63, "the file has"), (0, "a chunk says it has 0 bytes")]
)
def test_a_chunk_length_that_cannot_be_true_keeps_what_was_read_and_goes_on_at_the_next_boundary(
    tmp_path, length, word
):
    claim = struct.pack("<BQ", 8, length) + struct.pack("<HI", 3, 1)
    content = xdf(header(), samples([0.0], [1]), claim, chunk(5, BOUNDARY), samples([2.0], [3]))
    with memory_of(len(content)), opened(tmp_path, content) as file:
        assert file.read(1)[0].tolist() == [0.0, 2.0]
        assert named(file.findings, content, claim)
        assert word in file.findings[0]


def test_headers_that_together_claim_more_channels_than_are_believable_cost_nothing_and_are_named(tmp_path):
    claims = [header(stream, 30_000, rate=1) for stream in (1, 2, 3)]
    content = xdf(*claims, header(4), samples([0.0], [1], stream=4))
    with memory_of(len(content)), opened(tmp_path, content) as file:
        assert sorted(file.streams) == [1, 2, 4]
        assert file.samples(4) == 1
        (finding,) = file.findings
        assert named([finding], content, claims[2])
        assert "stream 3: 30000 channels are not believable" in finding


def test_a_count_of_losses_that_no_number_holds_is_none(tmp_path):
    with XdfWriter(tmp_path / "a.xdf") as writer:
        session = writer.add_stream(name="insula", type="Session", channels=["e"], rate=0.0, format="string")
        eeg = writer.add_stream(name="eeg", type="EEG", channels=["Cz"], rate=10.0, format="float32")
        writer.write_strings(session, [0.0], ["lost " + "9" * 5000 + " eeg"])
        writer.write(eeg, [1.0], np.zeros((1, 1), np.float32))
    with XdfReplay(tmp_path / "a.xdf", speed=np.inf) as replay:
        assert [item.lost for item in replay.read(0.0) if hasattr(item, "data")] == [0]


def test_a_tag_that_is_cut_in_half_keeps_everything_before_it(tmp_path):
    content = xdf(header(), samples([0.0, 1.0], [1, 2])) + b"\x04\x20\x00\x00\x00\x03"
    with opened(tmp_path, content) as file:
        assert file.read(1)[0].tolist() == [0.0, 1.0]
        assert file.findings == [
            f"byte {len(content) - 6}: a chunk says it has 32 bytes, the file has 1 left (cut off?); "
            "6 bytes from here on are not readable"
        ]


def test_stamps_that_are_no_numbers_are_read_as_they_are_and_never_delivered(tmp_path):
    with opened(tmp_path, xdf(header(), samples([0.0, np.nan, np.inf, 0.03], [1, 2, 3, 4]))) as file:
        assert str(file.read(1)[0].tolist()) == "[0.0, nan, inf, 0.03]"
    with XdfReplay(tmp_path / "made.xdf", speed=np.inf) as replay:
        items = list(replay.read(0.0))
        while not isinstance(items[-1], End):
            items += replay.read(0.0)
    chunks = [item for item in items if hasattr(item, "data")]
    assert np.concatenate([item.times for item in chunks]).tolist() == [0.0, 0.03]
    assert sum(item.lost for item in chunks) == 2


def test_stamps_that_are_no_times_are_named_with_stream_count_and_byte_and_make_no_gap_and_no_duration(tmp_path):
    stamps = np.arange(500) / 100
    wrong = np.random.default_rng(0).choice(np.arange(120, 480), 70, replace=False)
    stamps[wrong] = np.resize([np.nan, np.inf, -np.inf, 1e300, -1e18], 70)
    blocks = [samples(stamps[k : k + 10], np.arange(10)) for k in range(0, 500, 10)]
    content = xdf(header(), *blocks)
    (tmp_path / "made.xdf").write_bytes(content)
    (summary,) = describe(tmp_path / "made.xdf")
    (finding,) = summary.findings
    assert named([finding], content, blocks[wrong.min() // 10])
    assert "70 of 500 stamps of stream 1 are no times" in finding
    assert (summary.start, summary.stop, summary.samples) == (0.0, 4.99, 500)
    assert (summary.gaps, summary.gap_seconds) == (0, 0.0)
    assert summary.effective_rate == pytest.approx(100.0)


def test_a_stream_of_which_no_stamp_is_a_time_has_no_duration(tmp_path):
    (tmp_path / "made.xdf").write_bytes(xdf(header(), samples([np.nan, 1e300, -1e13], [1, 2, 3])))
    (summary,) = describe(tmp_path / "made.xdf")
    assert "3 of 3 stamps" in summary.findings[0]
    assert str((summary.start, summary.duration, summary.effective_rate)) == "(nan, nan, nan)"
    with XdfFile(tmp_path / "made.xdf") as file:
        assert file.span(1) is None


@pytest.mark.parametrize("step", [-0.004, -5.0])
def test_stamps_that_run_backward_are_named_and_no_duration_is_negative(tmp_path, step):
    content = xdf(header(), *[samples([100 + k * step], [1]) for k in range(300)])
    (tmp_path / "made.xdf").write_bytes(content)
    (summary,) = describe(tmp_path / "made.xdf")
    assert (summary.duration, str(summary.effective_rate)) == (0.0, "nan")
    assert "before they begin" in summary.findings[-1]
    assert [finding for finding in summary.findings if "run backward" in finding and "299 times" in finding] == (
        [summary.findings[0]] if step < -0.5 else []
    )


def test_stamps_that_hardly_move_make_no_rate_of_300_digits(tmp_path):
    (tmp_path / "made.xdf").write_bytes(xdf(header(), samples([0.0, 1e-300], [1, 2])))
    assert str(describe(tmp_path / "made.xdf")[0].effective_rate) == "nan"


def test_clock_offsets_that_are_no_numbers_are_left_out_and_named(tmp_path):
    bad = [chunk(4, struct.pack("<2d", *pair), 1) for pair in ((0.0, np.nan), (np.inf, 1.0))]
    content = xdf(header(), *bad, chunk(4, struct.pack("<2d", 0.0, 2.0), 1), samples([1.0], [1]))
    with opened(tmp_path, content) as file:
        assert file.read(1)[0].tolist() == [3.0]
        assert all(named(file.findings, content, offset) for offset in bad)


def test_a_second_header_with_the_same_id_replaces_nothing_and_is_named(tmp_path):
    second = header(rate=250)
    content = xdf(header(), samples([0.0], [1]), second, samples([1.0], [2]))
    with opened(tmp_path, content) as file:
        assert file.read(1)[0].tolist() == [0.0, 1.0]
        assert file.streams[1].rate == 100.0
        assert named(file.findings, content, second)


def test_12_bytes_too_many_in_each_sample_make_no_samples_and_no_rate(tmp_path):
    wrong = samples(np.arange(50) / 100, np.ones(50), extra=b"\x08" * 12)
    content = xdf(header(), wrong)
    with opened(tmp_path, content) as file:
        assert len(file.read(1)[0]) == 0
        assert named(file.findings, content, wrong)
    (summary,) = describe(tmp_path / "made.xdf")
    assert (summary.samples, str(summary.effective_rate)) == (0, "nan")


def test_xml_that_grows_when_it_is_read_is_refused_before_it_grows(tmp_path):
    entities = "".join(f'<!ENTITY l{i} "{f"&l{i - 1};" * 10}">' for i in range(1, 30))
    laughs = f'<?xml version="1.0"?><!DOCTYPE a [<!ENTITY l0 "ha">{entities}]><info><name>&l29;</name></info>'
    bomb = chunk(2, laughs.encode(), 1)
    content = xdf(bomb, samples([0.0], [1]), header(2), samples([0.0], [1], stream=2))
    with memory_of(len(content)), opened(tmp_path, content) as file:
        assert list(file.streams) == [2]
        assert named(file.findings, content, bomb)
        assert "DOCTYPE" in file.findings[0]


def test_an_external_entity_reads_no_file(tmp_path):
    secret = tmp_path / "secret.txt"
    secret.write_text("a secret")
    xml = f'<!DOCTYPE a [<!ENTITY x SYSTEM "{secret.as_uri()}">]><info><name>&x;</name></info>'
    with opened(tmp_path, xdf(chunk(2, xml.encode(), 1), header(2))) as file:
        assert list(file.streams) == [2]
        assert "secret" not in " ".join(file.findings)


@pytest.mark.parametrize(
    ("xml", "word"),
    [
        ("<info>" + "<a/>" * 600_000 + "</info>", "tags or attributes"),
        ("<info " + " ".join(f"a{i}='x'" for i in range(300_000)) + "/>", "tags or attributes"),
        ("<info><name>" + "x" * (5 << 20) + "</name></info>", "XML"),
        ("<info>" + "<a>" * 100_000 + "</a>" * 100_000 + "</info>", "nested"),
    ],
)
def test_headers_without_measure_are_refused_within_the_memory_they_may_cost(tmp_path, xml, word):
    content = xdf(chunk(2, xml.encode(), 1), header(2))
    with memory_of(len(content)), opened(tmp_path, content) as file:
        assert list(file.streams) == [2]
        assert word in file.findings[0]


def test_a_footer_whose_xml_is_cut_costs_no_sample(tmp_path):
    footer = chunk(6, b"<info><first_timestamp>0</first_times", 1)
    content = xdf(header(), samples([0.0, 0.01], [1, 2]), footer)
    with opened(tmp_path, content) as file:
        assert file.read(1)[0].tolist() == [0.0, 0.01]
        assert named(file.findings, content, footer)
        assert "footer of stream 1 is not readable" in file.findings[0]


def test_stamps_that_are_omitted_are_continued_at_the_nominal_rate(tmp_path):
    with opened(tmp_path, xdf(header(), samples([5.0, None, None], [1, 2, 3]), samples([None], [4]))) as file:
        assert file.read(1)[0] == pytest.approx([5.0, 5.01, 5.02, 5.03])
        assert file.findings == []


def test_streams_beyond_a_thousand_are_left_out_and_the_first_of_them_is_named(tmp_path):
    headers = [header(number) for number in range(1, 5001)]
    content = xdf(*headers, samples([0.0], [1], stream=1024), samples([0.0], [1], stream=1025))
    with opened(tmp_path, content) as file:
        assert list(file.streams) == list(range(1, 1025))
        assert file.samples(1024) == 1
        (finding,) = file.findings
        assert named([finding], content, headers[1024])
        assert "1024 streams" in finding


@pytest.mark.skipif(sys.platform == "win32", reason="pipes and devices of POSIX")
def test_a_pipe_or_a_device_is_refused_at_once_and_nobody_waits_for_it(tmp_path):
    os.mkfifo(tmp_path / "pipe.xdf")
    for path in (tmp_path / "pipe.xdf", Path("/dev/zero")):
        with pytest.raises(XdfError, match="is no regular file") as refused:
            XdfFile(path)
        assert str(path) in str(refused.value)


@pytest.mark.parametrize(
    "packed", [zlib.compress(xdf(header())), b"\x1f\x8b\x08" + bytes(20)], ids=["zlib of LabRecorder", "gzip of pyxdf"]
)
def test_a_packed_file_is_refused_in_a_line_that_says_what_to_do_and_is_never_unpacked(tmp_path, packed):
    path = tmp_path / "made.xdfz"
    path.write_bytes(packed)
    with pytest.raises(XdfError, match=r"made\.xdfz: .*[Uu]npack it first") as error:
        XdfFile(path)
    assert "\n" not in str(error.value)


# -- memory ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "content",
    [
        xdf(header(fmt="int8"), b"".join([struct.pack("<BBHIBBBb", 1, 10, 3, 1, 1, 1, 0, 5)] * 20_000)),
        xdf(b"".join([struct.pack("<BBHIBBBb", 1, 10, 3, 1, 1, 1, 0, 5)] * 20_000), header(fmt="int8")),
        xdf(b"".join(struct.pack("<BBHI", 1, 6, 2, number) for number in range(20_000))),
        xdf(b"".join(struct.pack("<BBHI7s", 1, 13, 6, number, b"<info/>") for number in range(15_000))),
        xdf(b"".join(struct.pack("<BBHI2d", 1, 22, 4, number, 1.0, 1.0) for number in range(15_000))),
        xdf(b"".join(header(number, channels=0) for number in range(1_000))),
        xdf(b"".join(struct.pack("<BBH", 1, 2, 1) for _ in range(50_000))),
    ],
    ids=["samples", "samples before the header", "headers", "footers", "clock offsets", "streams", "file headers"],
)
def test_a_file_full_of_the_smallest_chunks_is_opened_within_ten_times_its_size(tmp_path, content):
    with memory_of(len(content), times=10, spare=8e6), opened(tmp_path, content):
        pass


def tiny(body, samples=1):
    """A Samples chunk of stream 1 with as few bytes around it as there can be."""
    return struct.pack("<BBHIBB", 1, 8 + len(body), 3, 1, 1, samples) + body


def stamped(k, value=b"\x05"):
    return struct.pack("<Bd", 8, k / 100) + value


COSTLY = {
    "stream headers": lambda: xdf(*[header(number) for number in range(1, 30_001)]),
    "stamped numbers": lambda: xdf(header(), *[tiny(stamped(k, bytes(4))) for k in range(250_000)]),
    "every other stamp omitted": lambda: xdf(
        header(fmt="int8"), *[tiny(stamped(k) if k % 2 else b"\0\5") for k in range(300_000)]
    ),
    "all stamps omitted": lambda: xdf(header(fmt="int8"), tiny(b"\0\5") * 300_000),
    "no stamp a time": lambda: xdf(header(fmt="int8"), tiny(stamped(np.nan)), tiny(b"\0\5") * 300_000),
    "texts": lambda: xdf(
        header(fmt="string", rate=0), *[tiny(stamped(k, b"\1\5%05d" % (k % 100_000))) for k in range(250_000)]
    ),
}

MEASURED = """
import resource, sys
from pathlib import Path
import scipy.optimize
from devices.xdf_format import XdfFile, describe
def memory(name):
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(name))
Path("/proc/self/clear_refs").write_text("5")
before = memory("VmRSS")
resource.setrlimit(resource.RLIMIT_CPU, (60, 60))
describe(sys.argv[1])
with XdfFile(sys.argv[1]) as file:
    for number in file.streams:
        file.read(number)
print(memory("VmHWM") - before)
"""


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="measures memory as Linux does")
@pytest.mark.parametrize("what", COSTLY)
def test_tiny_chunks_by_the_hundred_thousand_are_described_and_read_within_three_times_the_file_and_64_mb(
    tmp_path, what
):
    path = tmp_path / "made.xdf"
    path.write_bytes(COSTLY[what]())
    done = subprocess.run(
        [sys.executable, "-c", MEASURED, str(path)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert int(done.stdout) < 3 * path.stat().st_size + SPARE


def test_tiny_chunks_of_every_kind_in_any_mixture_are_read_as_one_by_one(tmp_path):
    dice = random.Random(3)
    bodies = []
    for k in range(20_000):
        kind = dice.randrange(6) if k // 700 % 2 else k // 100 % 3
        bodies.append(
            [
                tiny(stamped(k)),
                tiny(b"\0\6"),
                tiny(stamped(k) + stamped(k + 0.5), 2),
                tiny(stamped(k) + b"\0\7", 2),
                tiny(b"\x09" + bytes(9)),  # damaged: no such flag
                tiny(b"\0\1" * 40, 40),
            ][kind]
        )
    offsets = [chunk(4, struct.pack("<2d", 10.0 * k, 1.5 + 1e-5 * k), 1) for k in range(20)]
    with opened(tmp_path, xdf(header(fmt="int8"), *offsets, *bodies)) as file:
        expected = [file.decode(int(k)) for k in file.chunks_of(1)]
    with opened(tmp_path, tmp_path.joinpath("made.xdf").read_bytes()) as file:
        times, values = file.read(1)
        found = [(stamps[kept], first) for first, stamps, kept in file.stamps(1)]
    assert np.array_equal(times, np.concatenate([some for some, _ in expected]))
    assert np.array_equal(values, np.concatenate([some for _, some in expected]))
    assert np.array_equal(times, np.concatenate([some for some, _ in found]))
    with opened(tmp_path, tmp_path.joinpath("made.xdf").read_bytes()) as file:
        backward = [file.decode(int(k))[0] for k in file.chunks_of(1)[::-1]]
    assert np.array_equal(times, np.concatenate(backward[::-1]))


# -- cuts and mutations ------------------------------------------------------------------------------------------------


def recording(path):
    """Every kind of chunk, two formats of numbers, texts, an offset, boundaries, omitted stamps."""
    clock = iter(range(0, 100_000, 4))
    with XdfWriter(path, now=lambda: float(next(clock))) as writer:
        eeg = writer.add_stream(name="e", type="EEG", channels=["a", "b"], rate=4.0, format="float32", unit="uV")
        acc = writer.add_stream(name="x", type="ACC", channels=["x", "y", "z"], rate=2.0, format="int16")
        events = writer.add_stream(name="m", type="Markers", channels=["m"], rate=0.0, format="string")
        for k in range(8):
            writer.write(eeg, k + np.arange(4) / 4, np.full((4, 2), k, np.float32))
            writer.write(acc, [k, k + 0.5], np.full((2, 3), k, np.int16))
            writer.write_strings(events, [k], [f"event {k}"])
            writer.write_offset(eeg, float(k), 0.5 + 1e-5 * k)
    content = path.read_bytes()
    body = header(7, rate=10) + samples([20.0, None, None], [1, 2, 3], stream=7) + samples([None], [4], stream=7)
    path.write_bytes(content + body + chunk(5, BOUNDARY) + samples([30.0], [5], stream=7))


def test_cut_at_every_byte_every_whole_chunk_is_kept_and_the_cut_is_named(tmp_path):
    path = tmp_path / "whole.xdf"
    recording(path)
    whole = path.read_bytes()
    ends, starts = [], set()
    with XdfFile(path) as file:
        assert file.findings == []
        expected = [(file.chunk(k), *file.decode(k, synchronised=False)) for k in range(len(file))]
    at = 4
    while at < len(whole):
        starts.add(at)
        content = at + 1 + whole[at]
        end = content + int.from_bytes(whole[at + 1 : content], "little")
        if whole[content] == 3:
            ends.append(end)
        at = end
    starts.add(len(whole))
    for cut in range(4, len(whole)):
        with opened(tmp_path, whole[:cut]) as file:
            kept = sum(end <= cut for end in ends)
            assert len(file) == kept
            assert [file.chunk(k) for k in range(kept)] == [key for key, *_ in expected[:kept]]
            if kept:
                times, values = file.decode(kept - 1, synchronised=False)
                assert np.array_equal(times, expected[kept - 1][1])
                assert np.array_equal(values, expected[kept - 1][2])
            start = max(place for place in starts if place <= cut)
            assert [finding.partition(":")[0] for finding in file.findings] == (
                [] if start == cut else [f"byte {start}"]
            )


def mutated(whole, dice):
    """A damaged version of ``whole``: bytes changed, inserted, deleted, doubled, moved, or numbers made extreme."""
    content = bytearray(whole)
    for _ in range(dice.choice((1, 1, 1, 2, 3, 8))):
        if len(content) < 8:
            break
        at = dice.randrange(4, len(content))
        kind = dice.randrange(8)
        span = dice.choice((1, 2, 4, 8, 16, 200))
        if kind == 0:
            content[at] = dice.randrange(256)
        elif kind == 1:
            content[at] ^= 1 << dice.randrange(8)
        elif kind == 2:
            content[at:at] = dice.randbytes(span)
        elif kind == 3:
            del content[at : at + span]
        elif kind == 4:
            content[at:at] = content[at : at + span]
        elif kind == 5:
            del content[at:]
        elif kind == 6:
            extreme = dice.choice((0, 1, 2**8 - 1, 2**15, 2**31, 2**32 - 1, 2**53, 2**62, 2**63, 2**64 - 1))
            raw = struct.pack("<Q", extreme)[: dice.choice((1, 2, 4, 8))]
            content[at : at + len(raw)] = raw
        else:
            raw = struct.pack("<d", dice.choice((np.nan, np.inf, -np.inf, 1e308, -1e308, 5e-324, -1.0, 1e18)))
            content[at : at + 8] = raw
    return bytes(content)


def mutated_description(dice):
    """A damaged version of what lies beside a record: bytes changed, or one value made something else."""
    values = [1, 1.5, None, True, "x", [], {}, [[1]], {"a": {}}, -(10**400), 10**400, 1e308, "\ud800", "9" * 10_000]
    described = {
        "insula": "0.1.0", "started": {"session_clock": 1.5}, "windows": 3, "skipped": 0, "ended": "as asked",
        "streams": [{"key": "eeg", "kind": "eeg", "channels": ["Cz"], "rate": 250.0, "unit": "uV", "samples": 7}],
        "bundle": {"name": "m", "version": "1", "hash": "ab12cd34ef", "window_seconds": 4.0, "hop_seconds": 1.0},
        "alarms": [{"time": 1.0, "text": "x", "over": False}],
    }  # fmt: skip
    if dice.random() < 0.3:
        return mutated(json.dumps(described).encode(), dice)
    place = described
    while True:
        key = dice.choice(list(place) if isinstance(place, dict) else range(len(place)))
        if not isinstance(place[key], dict | list) or dice.random() < 0.3:
            place[key] = dice.choice(values)
            return json.dumps(described).encode()
        place = place[key]


def one_line(error):
    assert len(str(error).splitlines()) == 1


def use_everything(path):
    """All that insula does with a file; only XdfError and DeviceError may come out of it. Returns the findings."""
    findings = []
    try:
        with XdfFile(path) as file:
            for number in file.streams:
                whole = file.read(number, synchronised=False)
                parts = [file.decode(int(k), synchronised=False)[0] for k in file.chunks_of(number)]
                assert sum(map(len, parts)) == len(whole[0]) == len(whole[1])
                times, values = file.read(number)
                assert len(times) == len(values)
                file.span(number)
            findings = list(file.findings)
        describe(path)
    except XdfError as error:
        one_line(error)
    try:
        with XdfReplay(path, speed=np.inf) as replay:
            items = [None]
            while not isinstance(items[-1], End):
                items = list(replay.read(0.0)) or [None]
    except DeviceError as error:
        one_line(error)
    try:
        deidentify(path, path.with_name("without.xdf"), markers="number")
        with XdfFile(path.with_name("without.xdf")) as file:
            assert file.findings == []
    except XdfError as error:
        one_line(error)
    for suffix in (".xdf", ".json"):
        path.with_name("without").with_suffix(suffix).unlink(missing_ok=True)
    return findings


def mutate(count, seed):
    """Make ``count`` mutations under a limit of memory; raises what comes out of insula uncaught."""
    import resource

    warnings.simplefilter("error")
    found = 0
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.xdf"
        recording(path)
        whole = path.read_bytes()
        use_everything(path)  # imports and caches are not the file's
        now = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (now + 3 * len(whole) + int(SPARE), resource.RLIM_INFINITY))
        for k in range(count):
            dice = random.Random(seed + k)
            damaged = mutated(whole, dice)
            path.write_bytes(damaged)
            path.with_suffix(".json").write_bytes(mutated_description(dice))
            try:
                findings = use_everything(path)
            except BaseException as error:
                error.add_note(f"mutation {seed + k} of test_xdf_damage.py")
                raise
            assert all(re.match(r"byte \d+: .", finding) for finding in findings), findings
            found += bool(findings)
    print(f"{count} mutations from seed {seed}: {found} with findings, no exception, below 3 x the file and 64 MB")


@pytest.mark.skipif(sys.platform != "linux", reason="limits memory as Linux does")
def test_no_mutation_raises_anything_but_one_line_or_costs_memory():
    done = subprocess.run(
        [sys.executable, __file__, str(MUTATIONS), "0"],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OPENBLAS_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.startswith(f"{MUTATIONS} mutations")


if __name__ == "__main__":
    mutate(int(sys.argv[1]), int(sys.argv[2]))

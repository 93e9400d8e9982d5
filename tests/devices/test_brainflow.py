"""BrainFlow's boards: its own synthetic, playback and Cyton drivers, and what an address may say of all the others."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import psutil
import pytest
import pyxdf

from devices import brainflow
from devices.api import Chunk, Clock, DeviceError, End, Events, Notice, discover, open_device

ROOT = Path(__file__).resolve().parents[2]


def peer(name: str):
    spec = importlib.util.spec_from_file_location(name, ROOT / "tests" / "peers" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def read(device, seconds: float, until=lambda items: False) -> list:
    items = []
    end = time.monotonic() + seconds
    while time.monotonic() < end and not until(items):
        items += device.read(0.1)
    return items


def joined(items, key: str) -> tuple[np.ndarray, np.ndarray, int]:
    chunks = [item for item in items if isinstance(item, Chunk) and item.stream == key]
    times = np.concatenate([chunk.times for chunk in chunks])
    return times, np.concatenate([chunk.data for chunk in chunks]), sum(chunk.lost for chunk in chunks)


def recording(source: Path, path: Path, first: int, rows: int) -> np.ndarray:
    """Rows of an OpenBCI GUI recording, as BrainFlow itself records a Cyton: (rows, 24), stamps in seconds."""
    lines = [line for line in source.read_text().splitlines() if line[0] not in "%S"][first : first + rows]
    table = np.array([[float(value) for value in line.split(",")[:24]] for line in lines])
    # The GUI's stamps are of milliseconds, several rows at once: played as evenly as they were measured.
    table[:, 22] = 1.6e9 + np.arange(len(table)) / 250
    path.write_text("\n".join("\t".join(f"{value:.6f}" for value in row) for row in table) + "\n")
    return table


def test_every_board_can_be_addressed_and_says_what_it_gives():
    found = discover("brainflow", 0.1)
    assert len(found) == len(brainflow.boards()) > 50
    for one in found:
        address = one.address.replace("=BOARD", "=cyton").replace("&file=RECORDING.csv", "")
        if "playback_file" in address:
            continue
        device = open_device(address)
        assert device.streams, address
        assert one.what
        for stream in device.streams:
            assert stream.rate > 0 or stream.kind == "markers"
            assert stream.name.endswith(" markers") if stream.kind == "markers" else stream.name
            assert len(set(stream.channels)) == len(stream.channels) > 0
            assert stream.kind not in ("eeg", "ecg", "emg", "eog") or stream.unit == "uV"
        keys = [stream.key for stream in device.streams]
        assert len(set(keys)) == len(keys)


def test_a_board_with_several_presets_says_which_one_gives_what():
    said = brainflow.describe("synthetic")
    default, *others = said.split("; ")
    assert default.startswith("Synthetic: EEG 16 ch at 250 Hz")
    assert [other.partition(":")[0] for other in others] == ["preset auxiliary"]
    for part in (default, *others):
        kinds = [one.split()[0] for one in part.partition(": ")[2].split(", ")]
        assert len(set(kinds)) == len(kinds)


def test_the_rows_of_a_board_are_those_of_its_descriptor():
    streams = {one.key: one for one in open_device("brainflow:MUSE_S_BOARD").streams}
    assert streams["brainflow/eeg"].channels == ("TP9", "AF7", "AF8", "TP10")
    assert (streams["brainflow/eeg"].rate, streams["brainflow/acc"].rate, streams["brainflow/ppg"].rate) == (
        256,
        52,
        64,
    )
    trio = {one.kind: one.channels for one in open_device("brainflow:synchroni_trio_3_channels").streams}
    assert (len(trio["eeg"]), trio["ecg"]) == (2, ("ECG",))


def test_channels_of_an_amplifier_become_ecg_and_get_the_names_of_their_places():
    device = open_device("brainflow:cyton?serial_port=/dev/x&ecg=8&channels=F3,F4,C3,C4,P3,P4,O1,x&name=left")
    streams = {one.key: one.channels for one in device.streams}
    assert streams["left/eeg"] == ("F3", "F4", "C3", "C4", "P3", "P4", "O1")
    assert streams["left/ecg"] == ("ECG",)


@pytest.mark.parametrize(
    ("rest", "said"),
    [
        ("muse", "no board 'muse'"),
        ("", "no board ''"),
        ("cyton", "serial_port is needed"),
        ("cyton?serial=1", "known are"),
        ("synthetic?timeout=soon", "whole number"),
        ("synthetic?timeout=²", "whole number"),
        ("synthetic?timeout=" + "9" * 5000, "whole number"),
        ("synthetic?ip_protocol=²", "udp or tcp"),
        ("synthetic?ecg=²", "from 1 to 16"),
        ("synthetic?preset=auxiliary&ecg=3", "ecg is about the preset default"),
        ("synthetic?preset=%0A", "cannot be printed"),
        ("playback_file?file=%00&master_board=cyton", "cannot be printed"),
        ("playback_file?file=/dev/zero&master_board=cyton", "zero is no file"),
        ("synthetic?delay=nan", "delay"),
        ("synthetic?ecg=17", "from 1 to 16"),
        ("synthetic?channels=a,b", "16 different names"),
        ("synthetic?preset=ancillary", "there is default, auxiliary"),
        ("synthetic?name=../x", "letters and digits"),
        ("synthetic?delay=1&delay=2", "each once"),
        ("galea?ip_protocol=ipx", "udp or tcp"),
        ("playback_file?file=/nowhere/x.csv&master_board=cyton", "cannot be read"),
        ("playback_file?file=x&master_board=synthetic_2", "no board"),
        ("streaming?ip_address=1&ip_port=1&master_board=streaming", "no board that measures"),
    ],
)
def test_what_cannot_be_is_said_in_one_line(rest, said):
    with pytest.raises(DeviceError) as error:
        open_device(f"brainflow:{rest}")
    text = str(error.value)
    assert said in text
    assert text.startswith(f"brainflow:{rest}")
    assert "\n" not in text


@pytest.mark.parametrize("rest", ["", "cyton\n", "playback_file?file=\udcff"])
def test_an_address_that_is_none_is_said_in_one_line(rest):
    with pytest.raises(DeviceError, match=r"^brainflow:[ '][^:]") as error:
        open_device(f"brainflow:{rest}")
    assert str(error.value).isprintable()


def test_a_board_that_is_not_there_is_said_with_what_brainflow_says(capfd):
    with (
        pytest.raises(DeviceError, match=r"port cannot be opened.*BrainFlow") as error,
        open_device("brainflow:cyton?serial_port=/dev/nowhere"),
    ):
        pass
    assert "\n" not in str(error.value)
    assert capfd.readouterr() == ("", "")


def test_the_synthetic_board_gives_every_sample_at_its_rate(capfd):
    device = open_device("brainflow:synthetic?ecg=16&delay=0.02")
    with device:
        items = read(device, 6)
        assert device.problem == ""
    times, data, lost = joined(items, "brainflow/eeg")
    assert (data.shape[1], lost) == (15, 0)
    assert data.shape[0] > 1000
    assert np.all(np.diff(times) > 0)
    assert np.median(np.diff(times)) == pytest.approx(0.004, rel=0.02)
    ecg = joined(items, "brainflow/ecg")
    assert np.array_equal(ecg[0], times), "the streams of one table have the same times"
    clocks = [item for item in items if isinstance(item, Clock)]
    assert {item.stream for item in clocks} == {stream.key for stream in device.streams}
    by_key = {item.stream: item for item in clocks}
    assert by_key["brainflow/ecg"].offset == by_key["brainflow/eeg"].offset
    assert device.identity["board_id"] == "-1"
    assert capfd.readouterr() == ("", "")


def test_while_brainflow_lets_go_of_a_board_reading_waits_no_longer_than_asked():
    with open_device("brainflow:synthetic?preset=default") as device, ThreadPoolExecutor(1) as pool:
        with device._lock:
            waiting = pool.submit(device.read, 0.05)
            assert waiting.result(10) == []
        assert read(device, 10, bool)


def test_what_goes_wrong_while_a_board_is_opened_anew_comes_out_of_reading(monkeypatch):
    def fail():
        raise OSError("out of memory")

    with open_device("brainflow:synthetic?preset=default") as device:
        monkeypatch.setattr(device, "_open", fail)
        monkeypatch.setattr(brainflow, "PAUSES", (0.01,))
        monkeypatch.setattr(brainflow, "FIRST_ROW", 0.0)
        device._keeper.join(20)
        with pytest.raises(OSError, match="out of memory"):
            device.read(0.1)


class Waits(threading.Event):
    """Says how long was to be waited, and does not wait as long."""

    def __init__(self):
        super().__init__()
        self.pauses = []

    def wait(self, timeout=None):
        if timeout != 0.25:  # between two looks
            self.pauses.append(timeout)
        return super().wait(0.01)


def test_a_board_that_stays_away_is_asked_more_and_more_seldom_and_one_that_came_back_at_once(monkeypatch):
    device = open_device("brainflow:synthetic?preset=default")
    waits = device._wake = Waits()
    monkeypatch.setattr(brainflow, "FIRST_ROW", 0.0)
    monkeypatch.setattr(brainflow, "GIVEN_UP", 0.0)
    with device:
        whole = device._open

        def refuse():
            return "" if len(waits.pauses) in (8, 9) and not whole() else "it is switched off"

        monkeypatch.setattr(device, "_open", refuse)
        until = time.monotonic() + 30
        while len(waits.pauses) < 8 and time.monotonic() < until:
            time.sleep(0.01)  # nobody reads: the board is silent
        assert read(device, 20, lambda items: any(isinstance(item, Chunk) for item in items[-1:]))
        while len(waits.pauses) < 10 and time.monotonic() < until:
            time.sleep(0.01)
    assert waits.pauses[:8] == [1.0, 2.0, 4.0, 8.0, 15.0, 30.0, 30.0, 30.0]
    assert 1.0 in waits.pauses[8:10]


def test_a_board_that_is_open_already_is_refused_and_goes_on():
    with open_device("brainflow:synthetic?preset=default&name=first") as device:
        before = read(device, 10, bool)
        with pytest.raises(DeviceError, match="it is open already"), open_device("brainflow:synthetic?name=second"):
            pass
        after = read(device, 10, lambda items: sum(isinstance(item, Chunk) for item in items) > 20)
        assert (joined(before + after, "first/eeg")[2], device.problem) == (0, "")
    with open_device("brainflow:synthetic?name=second") as device:
        assert read(device, 10, bool)


def test_many_openings_leave_nothing_behind():
    process = psutil.Process()
    for opening in range(40):
        with open_device("brainflow:synthetic?preset=default") as device:
            device.read(0.0)
        if opening == 9:
            before = process.num_threads(), process.num_fds()
    assert process.num_threads() <= before[0]
    assert process.num_fds() <= before[1]


def test_markers_of_the_board_come_at_their_sample():
    device = open_device("brainflow:synthetic?preset=default")
    with device:
        read(device, 0.5)
        device._board.insert_marker(7.0)
        items = read(device, 3, lambda items: any(isinstance(item, Events) for item in items))
    (event,) = [item for item in items if isinstance(item, Events)]
    assert (event.stream, event.labels) == ("brainflow/markers", ("7",))
    assert event.times[0] in joined(items, "brainflow/eeg")[0]


def test_a_recording_is_played_sample_by_sample_and_what_was_cut_out_of_it_is_counted(shared_data, tmp_path):
    source = shared_data / "openbci" / "OpenBCI_GUI-v6-blinks-jawClench-alpha.txt"
    path = tmp_path / "played.csv"
    table = recording(source, path, 0, 600)
    table = np.concatenate((table[:200], table[237:]))  # as if a radio had lost it
    path.write_text("\n".join("\t".join(f"{value:.6f}" for value in row) for row in table) + "\n")
    steps = np.diff(table[:, 0]) % 256
    device = open_device(f"brainflow:playback_file?file={path}&master_board=cyton")
    with device:
        items = read(device, 20, lambda items: bool(items) and isinstance(items[-1], End))
        assert items[-1].reason == ""
        assert device.problem == ""
    times, data, lost = joined(items, "brainflow/eeg")
    np.testing.assert_allclose(data, table[:, 1:9], rtol=1e-6)
    assert lost == int(np.sum(steps - 1)) == 37
    assert np.all(np.diff(times) > 0)
    assert times[200] - times[199] == pytest.approx(38 / 250, rel=0.06)
    assert any(isinstance(item, Notice) and "lost" in item.text for item in items)


def test_a_recording_that_brainflow_would_pass_over_in_silence_is_refused(shared_data):
    path = shared_data / "openbci" / "OpenBCI_GUI-v6-blinks-jawClench-alpha.txt"
    with pytest.raises(DeviceError, match=r"columns.*have 24; check master_board"):
        open_device(f"brainflow:playback_file?file={path}&master_board=cyton")


def test_a_cyton_at_its_port_loses_what_was_lost_and_comes_back_after_it_was_unplugged(tmp_path, capfd):
    skipped = frozenset(range(300, 311)) | {400}
    cyton = peer("cyton").Cyton(tmp_path / "port", skipped)
    device = open_device(f"brainflow:cyton?serial_port={tmp_path / 'port'}")
    with device:
        assert device.identity["firmware"] == "v3.1.2"
        items = read(device, 4)
        counted = joined(items, "brainflow/eeg")
        numbers = np.round(counted[1][:, 0] / (4.5e6 / 24 / (2**23 - 1))).astype(int)
        assert counted[2] == len(skipped)
        assert np.array_equal(np.setdiff1d(np.arange(numbers[-1] + 1), numbers), sorted(skipped))
        cyton.unplug()
        read(device, 2.2)
        assert "gives nothing" in device.problem
        cyton.plug()
        after = read(device, 30, lambda items: sum(isinstance(item, Chunk) for item in items) > 60)
        assert device.problem == ""
    cyton.unplug()
    notices = [item.text for item in after if isinstance(item, Notice)]
    assert any("fell silent" in text for text in notices)
    assert any("open again" in text for text in notices)
    times, _, lost = joined(after, "brainflow/eeg")
    gap = times[0] - counted[0][-1]
    assert lost == pytest.approx(gap * 250, abs=50), "the outage is a counted gap"
    assert np.all(np.diff(times) > 0)
    assert capfd.readouterr() == ("", "")


def python(code: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )


BLOCK = """
import sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {names}:
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Absent())
"""


def test_it_works_without_setuptools_and_leaves_no_trace_of_a_stand_in():
    code = BLOCK.format(names={"pkg_resources", "setuptools"}) + (
        "from devices.api import open_device\n"
        "import sys\n"
        "device = open_device('brainflow:synthetic')\n"
        "assert 'pkg_resources' not in sys.modules\n"
        "with device:\n"
        "    while not device.read(1.0): pass\n"
    )
    done = python(code)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_without_brainflow_the_command_that_installs_it_is_said():
    code = (
        "import importlib.util as u\nfind = u.find_spec\n"
        "u.find_spec = lambda name, *rest: None if name == 'brainflow' else find(name, *rest)\n"
        "from devices.api import open_device\nopen_device('brainflow:synthetic')\n"
    )
    last = python(code).stderr.strip().splitlines()[-1]
    assert 'pip install "insula[brainflow]"' in last
    assert "DeviceError" in last


def test_a_step_of_the_wall_clock_moves_no_sample():
    stamps = 1.7e9 + np.arange(5) * 0.004
    arrivals = brainflow._arrivals(stamps, 10.0, 10.02, 10.02 - (1.7e9 + 3600))
    assert np.all((arrivals >= 10.0) & (arrivals <= 10.02))
    arrivals = brainflow._arrivals(np.array([np.nan, np.inf, 1e300]), 10.0, 10.02, 0.0)
    assert np.all((arrivals >= 10.0) & (arrivals <= 10.02))


def test_a_session_records_the_synthetic_board(tmp_path):
    path = tmp_path / "x.xdf"
    done = subprocess.run(
        [
            *(sys.executable, "-m", "insula", "live", "brainflow:synthetic?preset=default&ecg=16", "--headless"),
            *("--seconds", "8", "--record", str(path)),
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    streams, _ = pyxdf.load_xdf(str(path))
    eeg = next(stream for stream in streams if stream["info"]["type"][0].lower() == "eeg")
    assert eeg["time_series"].shape[1] == 15
    assert len(eeg["time_stamps"]) > 1200

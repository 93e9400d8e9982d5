"""The command line as a user meets it: real processes, real files, real faults."""

from __future__ import annotations

import contextlib
import csv
import itertools
import json
import math
import os
import re
import resource
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import psutil
import pylsl
import pytest
import pyxdf

import insula as insula_module
from devices.api import Chunk, DeviceError, StreamInfo, Tick, open_device
from devices.xdf_format import XdfFile, XdfWriter
from models.api import Estimate
from models.bundle import default_bundle_folder, load_bundle
from realtime.record import Missing, Recorder
from realtime.remote import Client, running_sessions
from realtime.session import Session

ROOT = Path(__file__).resolve().parents[1]
DEMO = ROOT / "devices" / "recordings" / "eegmat_subject05.xdf"
INSULA = [sys.executable, "-m", "insula"]
SHORT = ["--from", "0", "--to", "75"]


@pytest.fixture(autouse=True)
def no_session_outlives_its_test():
    """One that a failed test has started would be found by others on LSL."""
    yield
    for child in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            child.kill()


def insula(*arguments, status=0, **more):
    """Run a command to its end; its standard output. No display: a terminal on a server."""
    environment = {k: v for k, v in os.environ.items() if k not in ("DISPLAY", "WAYLAND_DISPLAY")} | {"COLUMNS": "200"}
    done = subprocess.run(
        [*INSULA, *map(str, arguments)],
        capture_output=True, text=True, check=False, env=environment | more.pop("env", {}), timeout=170, **more,
    )  # fmt: skip
    assert done.returncode == status, done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    return done.stderr if status == 2 else done.stdout


def rows(path):
    with open(path, newline="") as file:  # noqa: PTH123
        return list(csv.DictReader(file))


def refusal(*arguments, **more):
    """What a request that cannot be served is answered with: one line, status 2."""
    said = insula(*arguments, status=2, **more)
    assert said.count("\n") == 1, said
    return said


# -- the demo ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    folder = tmp_path_factory.mktemp("demo")
    said = insula("demo", "--headless", cwd=folder)
    (out,) = (folder / "insula-out").iterdir()
    return said, out


def test_the_demo_tells_arithmetic_from_rest_and_its_table_says_so(demo):
    _, out = demo
    estimates = rows(out / "estimates.csv")
    assert list(estimates[0]) == [
        *("t_end", "arousal", "arousal_sd", "present_eeg", "present_ecg", "quality", "used_eeg", "used_ecg"),
        *("unused", "withheld"),
    ]
    streams, _ = pyxdf.load_xdf(str(DEMO))
    marks = next(stream for stream in streams if stream["info"]["type"] == ["Markers"])
    times = dict(zip((label for (label,) in marks["time_series"]), marks["time_stamps"], strict=True))
    change, end = times["mental arithmetic"], times["end"]

    def mean(begin, stop):
        given = [float(row["arousal"]) for row in estimates if begin < float(row["t_end"]) <= stop and row["arousal"]]
        assert len(given) >= 45
        return np.mean(given)

    assert mean(change, end) > mean(change - 60, change) + 0.05


def test_the_first_minute_of_the_demo_is_withheld_and_says_why(demo):
    _, out = demo
    estimates = rows(out / "estimates.csv")
    for row in estimates:
        assert bool(row["withheld"]) == (row["arousal"] == "") == (row["arousal_sd"] == "")
        assert 0 <= float(row["quality"]) <= 1
        assert 0 <= float(row["arousal"] or 0) <= 1
    first = next(float(row["t_end"]) for row in estimates if row["arousal"])
    assert 60 <= first <= 62
    assert "resting baseline: 23 s left" in {row["withheld"] for row in estimates}


def test_the_demo_says_what_it_is_and_where_everything_lies(demo):
    said, out = demo
    for piece in ("not a medical device", "true phase", "mental arithmetic", "mean arousal", "balanced accuracy"):
        assert piece in said
    for name in ("estimates.csv", "session.xdf", "dashboard.png"):
        assert (out / name).stat().st_size > 1000
        assert f" {Path('insula-out') / out.name / name}\n" in said


def test_the_record_of_the_demo_gives_the_same_estimates_again(demo, tmp_path):
    _, out = demo
    insula("replay", out / "session.xdf", "--headless", "--estimates", tmp_path / "again.csv")
    assert (tmp_path / "again.csv").read_bytes() == (out / "estimates.csv").read_bytes()


def test_where_qt_cannot_be_loaded_the_demo_leaves_the_picture_out_and_says_what_to_install(tmp_path):
    broken = tmp_path / "site" / "PySide6"
    broken.mkdir(parents=True)
    (broken / "__init__.py").write_text("raise ImportError('libEGL.so.1: cannot open shared object file')")
    said = insula("demo", "--headless", "--to", tmp_path / "out", env={"PYTHONPATH": str(tmp_path / "site")})
    assert "No picture" in said
    assert "apt-get install" in said
    (out,) = (tmp_path / "out").iterdir()
    assert {path.name for path in out.iterdir()} == {"estimates.csv", "session.xdf", "session.json"}


def test_a_headless_replay_loads_neither_torch_nor_qt(tmp_path):
    code = (
        "import sys, insula\n"
        f"status = insula.main(['replay', {str(DEMO)!r}, '--headless', '--to', '15'])\n"
        "assert status == 0\n"
        "loaded = {'torch', 'PySide6', 'pyqtgraph', 'sklearn', 'mne'} & set(sys.modules)\n"
        "assert not loaded, loaded\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stderr


# -- replay ------------------------------------------------------------------------------------------------------------


def test_a_stretch_is_a_session_of_its_own(tmp_path):
    said = insula("replay", DEMO, "--headless", "--from", "100", "--to", "140", "--estimates", tmp_path / "e.csv")
    estimates = rows(tmp_path / "e.csv")
    assert "EEG from eeg: 19 of 19 channels" in said
    assert [float(row["t_end"]) for row in (estimates[0], estimates[-1])] == [110.0, 139.0]
    assert all(row["withheld"].startswith("resting baseline") for row in estimates)


def test_a_recording_without_the_models_channels_is_shown_and_says_that_nothing_is_estimated(shared_data, tmp_path):
    muse, record = shared_data / "xdf" / "muse_adc9ff_sub-P001.xdf", tmp_path / "r.xdf"
    said = insula("replay", muse, "--headless", "--record", record)
    assert "0 of the model's channels" in said
    assert "nothing is estimated" in said
    with XdfFile(record) as file:
        eeg = next(s for s in file.streams.values() if s.type == "EEG")
        assert file.samples(eeg.id) > 1000


def test_ecg_alone_is_enough(tmp_path):
    with XdfFile(DEMO) as source, XdfWriter(tmp_path / "ecg.xdf") as writer:
        stream = next(s for s in source.streams.values() if s.type == "ECG")
        times, values = source.read(stream.id)
        number = writer.add_stream(
            name="strap", type="ECG", channels=("ECG",), rate=stream.rate, format="float32", unit="uV"
        )
        for at in range(0, 90 * 500, 73):
            writer.write(number, times[at : at + 73], values[at : at + 73])
    insula("replay", tmp_path / "ecg.xdf", "--headless", "--estimates", tmp_path / "e.csv")
    estimates = rows(tmp_path / "e.csv")
    given = [row for row in estimates if row["arousal"]]
    assert len(given) >= 25
    assert {row["present_eeg"] for row in estimates} == {"0.0"}


def test_nothing_is_overwritten_and_a_refused_command_leaves_nothing_behind(tmp_path):
    table, record = tmp_path / "e.csv", tmp_path / "r.xdf"
    both = ["--estimates", table, "--record", record]
    for precious, other in ((table, record), (record, table)):
        precious.write_text("precious")
        assert "exists already" in refusal("replay", DEMO, "--headless", *SHORT, *both)
        assert precious.read_text() == "precious"
        assert not other.exists()
        precious.unlink()
    assert "no folder" in refusal("replay", DEMO, "--headless", *SHORT, "--record", tmp_path / "none" / "r.xdf")
    assert "ends in .xdf" in refusal("replay", DEMO, "--headless", "--estimates", table, "--record", table)
    assert list(tmp_path.iterdir()) == []


def test_what_a_rewound_replay_repeats_is_in_the_table_once(tmp_path):
    def estimate(t_end: float) -> Estimate:
        return Estimate(t_end, ("arousal",), np.array([0.25]), np.array([0.1]), {"eeg": 1.0}, 0.5, None)

    with insula_module.EstimateTable(tmp_path / "e.csv", ["arousal"]) as table:
        for t_end in (1.0, 2.0, 3.0, 1.0, 2.0, 3.0, 4.0):
            table(estimate(t_end))
    assert [float(row["t_end"]) for row in rows(tmp_path / "e.csv")] == [1.0, 2.0, 3.0, 4.0]


def small_disk() -> None:
    """Files of at most 300 kB, as on a disk that is nearly full."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, 300_000))


def test_a_disk_that_fills_is_said_the_session_goes_on_and_what_was_recorded_is_readable(tmp_path):
    outputs = ["--record", tmp_path / "r.xdf", "--estimates", tmp_path / "e.csv"]
    said = insula("replay", DEMO, "--headless", *SHORT, *outputs, status=1, preexec_fn=small_disk)
    assert "could not be recorded" in said
    assert len(rows(tmp_path / "e.csv")) == 65
    with XdfFile(tmp_path / "r.xdf") as file:
        assert file.findings == []
        eeg = next(s for s in file.streams.values() if s.type == "EEG")
        assert 1_000 < len(file.read(eeg.id)[0]) < 5_000


def test_a_table_that_cannot_grow_holds_whole_rows_and_the_session_goes_on(tmp_path):
    def smaller_disk() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (2_000, 2_000))

    table = tmp_path / "e.csv"
    said = insula("replay", DEMO, "--headless", *SHORT, "--estimates", table, status=1, preexec_fn=smaller_disk)
    kept = rows(table)
    assert f"{65 - len(kept)} estimates are missing there" in said.replace("\n", " ")
    assert 10 < len(kept) < 65
    assert table.read_bytes().endswith(b"\r\n")


@pytest.mark.parametrize(
    "wrong",
    [("--speed", "0"), ("--speed", "nan"), ("--from", "nan"), ("--to", "-1"), ("--from", "30", "--to", "20"),
     ("--to", "0"), ("--from", "9999"), ("--frm", "1")],
)  # fmt: skip
def test_options_without_sense_are_refused_in_one_line(wrong):
    refusal("replay", DEMO, "--headless", *wrong)


def test_a_paced_replay_publishes_on_lsl_as_of_now(tmp_path):
    process = subprocess.Popen([*INSULA, "replay", str(DEMO), "--headless", "--speed", "8"], stdout=subprocess.PIPE)
    try:
        (info,) = pylsl.resolve_bypred("type='Affect' and name='insula'", timeout=30)
        inlet = pylsl.StreamInlet(info)
        got = [(*inlet.pull_sample(20), pylsl.local_clock()) for _ in range(6)]
    finally:
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=30)
    stamps = np.array([stamp for _, stamp, _ in got])
    assert (np.diff(stamps) > 0).all()
    assert all(-0.5 < now - stamp < 3 for _, stamp, now in got)
    assert process.returncode == 0


# -- faults ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", ["replay", "inspect"])
def test_a_text_file_named_xdf_is_refused(tmp_path, command):
    (tmp_path / "notes.xdf").write_text("participant 7 was late")
    said = refusal(command, tmp_path / "notes.xdf")
    assert "notes.xdf" in said


@pytest.mark.parametrize("command", ["replay", "inspect"])
def test_a_file_that_is_not_there_is_named(tmp_path, command):
    assert "nowhere.xdf" in refusal(command, tmp_path / "nowhere.xdf")


def test_a_recording_cut_short_is_replayed_up_to_the_cut_and_the_damage_is_said(tmp_path):
    (tmp_path / "cut.xdf").write_bytes(DEMO.read_bytes()[:1_500_001])
    said = insula("replay", tmp_path / "cut.xdf", "--headless", "--estimates", tmp_path / "e.csv")
    assert "byte 1" in said
    assert len(rows(tmp_path / "e.csv")) > 10
    assert "byte 1" in insula("inspect", tmp_path / "cut.xdf")


def test_a_recording_cut_before_its_first_sample_is_refused(tmp_path):
    (tmp_path / "cut.xdf").write_bytes(DEMO.read_bytes()[:1000])
    assert "cut.xdf" in refusal("replay", tmp_path / "cut.xdf", "--headless")


def test_a_model_whose_hash_is_wrong_is_refused(tmp_path):
    shutil.copytree(default_bundle_folder(), tmp_path / "model")
    graph = tmp_path / "model" / "graph.onnx"
    content = bytearray(graph.read_bytes())
    content[len(content) // 2] ^= 1
    graph.write_bytes(content)
    said = refusal("replay", DEMO, "--model", tmp_path / "model")
    assert "graph.onnx" in said


@pytest.mark.parametrize("source", ["lsl:name=nobody-sends-this", "usb:3", "synthetic:eeg?channels=1000"])
def test_a_source_that_does_not_exist_is_refused(source):
    assert source.split(":")[0] in refusal("live", source)


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("", "insula: a source without an address. Known are brainflow:, "),
        ("P 1=synthetic:", "'P 1' is no code of a person. Use letters and digits, at most 64, as in P01=synthetic:."),
        ("synthetic:a\nb=1", "b=1"),
        ("brainflow:xenophone", "Nearest is enophone; all "),
    ],
)
def test_an_address_that_cannot_be_used_is_answered_in_one_line_that_says_what_is_wrong_with_it(source, words):
    assert words in refusal("live", source, "--headless")


def test_what_sources_there_are_is_listed_by_the_addresses_that_open_them():
    name = f"insula-listed-{os.getpid()}"
    info = pylsl.StreamInfo(name, "EEG", 8, 250, pylsl.cf_float32, f"{name}-1")
    outlet = pylsl.StreamOutlet(info)
    said = insula("devices")
    del outlet
    (line,) = [line for line in said.splitlines() if name in line]
    assert line.startswith("lsl:")
    assert "8 channels" in line
    assert "250 Hz" in line


def test_a_configuration_that_decides_how_far_lsl_reaches_is_said(tmp_path):
    own = tmp_path / "own.cfg"
    own.write_text("[multicast]\nResolveScope = machine\nListenAddress = 127.0.0.1\n")
    arguments = ["record", "synthetic:", "--headless", "--seconds", "0.5", "--to"]
    assert f"LSL follows {own}" in insula(*arguments, tmp_path / "a.xdf", env={"LSLAPICFG": str(own)})
    missing = str(tmp_path / "missing.cfg")
    assert "stays on this machine" in insula(*arguments, tmp_path / "b.xdf", env={"LSLAPICFG": missing})


def test_a_kind_of_source_that_does_not_exist_is_answered_with_the_known_ones():
    assert "lsl" in refusal("devices", "usb")


def test_a_recording_lies_in_the_study_folder_with_its_description_and_the_next_one_beside_it(tmp_path):
    study = tmp_path / "study"
    codes = ["--participant", "P07", "--session", "2", "--task", "rest"]
    for _ in range(2):
        said = insula("record", "synthetic:", "--headless", "--seconds", "1.5", "--to", study, *codes)
        assert "recording to" in said
    folder = study / "sourcedata" / "sub-P07" / "ses-2" / "eeg"
    stems = ["sub-P07_ses-2_task-rest_run-01_eeg", "sub-P07_ses-2_task-rest_run-02_eeg"]
    assert sorted(path.name for path in folder.iterdir()) == [f"{s}.{end}" for s in stems for end in ("json", "xdf")]
    beside = json.loads((folder / f"{stems[0]}.json").read_text())
    assert (beside["participant"], beside["session"], beside["task"], beside["run"]) == ("P07", "2", "rest", "01")
    assert beside["bundle"] is None
    assert beside["ended"] == "as asked"
    with XdfFile(folder / f"{stems[0]}.xdf") as file:
        kept = {stream.name: len(file.read(number)[0]) for number, stream in file.streams.items()}
    for stream in beside["streams"]:
        if stream["rate"]:
            assert kept[stream["name"]] == stream["samples"] > 100


@pytest.mark.parametrize(
    "wrong",
    [
        ["--to", "study", "--participant", "Jane Doe"],
        ["--to", "study", "--task", "../../etc"],
        ["--to", "study", "--run", "0"],
        ["--to", "study.edf"],
        ["--to", "record.xdf", "--participant", "P07"],
        ["--to", "study", "--participant", ""],
        ["--to", "study", "--task", " "],
        ["--to", ""],
    ],
)
def test_a_record_that_cannot_be_named_so_is_refused_before_anything_is_opened(tmp_path, wrong):
    refusal("record", "synthetic:", "--headless", *wrong, cwd=tmp_path)
    assert not list(tmp_path.iterdir())


def test_markers_alone_are_no_session(tmp_path):
    with XdfWriter(tmp_path / "marks.xdf") as writer:
        number = writer.add_stream(name="m", type="Markers", channels=("m",), rate=0.0, format="string")
        writer.write_strings(number, [1.0, 2.0], ["a", "b"])
    assert "no EEG and no ECG" in refusal("replay", tmp_path / "marks.xdf", "--headless")


# -- inspect -----------------------------------------------------------------------------------------------------------


def table_of(said):
    """The rows of the table that inspect prints, cells by heading."""
    lines = said.splitlines()
    top = next(i for i, line in enumerate(lines) if "effective" in line)
    heads = [*re.finditer(r"\S+", lines[top])]
    begins = [head.start() for head in heads] + [None]
    body = itertools.takewhile(str.strip, lines[top + 2 :])
    names = [head.group() for head in heads]
    return [dict(zip(names, (line[a:b].strip() for a, b in itertools.pairwise(begins)), strict=True)) for line in body]


def test_inspect_shows_every_stream_and_what_would_be_used():
    said = insula("inspect", DEMO)
    rows = table_of(said)
    assert [(row["type"], row["channels"], row["Hz"], row["samples"], row["gaps"]) for row in rows] == [
        ("EEG", "19", "500", "120019", "none"),
        ("ECG", "1", "500", "120019", "none"),
        ("Markers", "1", "irregular", "3", "none"),
    ]
    for piece in ("Fp1, Fp2, F3", "19 of 19 channels", "channel ECG"):
        assert piece in said


def test_inspect_counts_what_pyxdf_reads_in_what_others_recorded(shared_data):
    paths = sorted((shared_data / "xdf").glob("*.xdf"))
    assert len(paths) > 10
    for path in paths:
        rows = {(row["type"], row["channels"], row["samples"]) for row in table_of(insula("inspect", path))}
        streams, _ = pyxdf.load_xdf(str(path), dejitter_timestamps=False)
        for stream in streams:
            info = stream["info"]
            if path.stem.startswith("out_of_order"):  # pyxdf gives up at the disorder, we do not
                continue
            assert (info["type"][0], info["channel_count"][0], str(len(stream["time_stamps"]))) in rows, path


def test_inspect_names_stamps_that_are_no_times_and_its_table_stays_in_shape(tmp_path):
    stamps = np.arange(5000) / 500
    stamps[::7] = np.resize([np.nan, np.inf, 1e300, -1e300], len(stamps[::7]))
    with XdfWriter(tmp_path / "made.xdf") as writer:
        number = writer.add_stream(name="e", type="EEG", channels=["Cz"], rate=500.0, format="float32", unit="uV")
        for begin in range(0, 5000, 250):
            writer.write(number, stamps[begin : begin + 250], np.zeros((250, 1), np.float32))
    said = insula("inspect", tmp_path / "made.xdf")
    (row,) = table_of(said)
    assert (row["samples"], row["seconds"], row["effective"], row["gaps"]) == ("5000", "10.0", "500.00", "none")
    assert re.search(r"byte \d+: 715 of 5000 stamps of stream 1 are no times", said)


def half_silent(path):
    """A record of a session whose strap never delivered; its EEG is a little noise."""
    channels = next(one.channels for one in load_bundle(default_bundle_folder()).manifest.window.inputs)
    streams = [
        StreamInfo(key="QE/ecg", kind="ecg", channels=("ECG",), rate=130.0, unit="uV", name="QE"),
        StreamInfo(key="eeg", kind="eeg", channels=channels, rate=250.0, unit="uV", name="cap"),
    ]
    recorder = Recorder(path, streams, (), {})
    for tenth in range(80):
        times = 100 + tenth / 10 + np.arange(25) / 250
        recorder.write(Chunk("eeg", times, 9 * np.random.default_rng(tenth).standard_normal((25, 19), np.float32)))
        recorder.write(Tick(float(times[-1])))
    recorder.write(Missing("QE/ecg", 108.0, 1040))
    recorder.close()
    return path


def test_inspect_and_replay_do_not_promise_a_stream_of_which_no_sample_came(tmp_path):
    path = half_silent(tmp_path / "r.xdf")
    inspected = insula("inspect", path)
    silent = [row for row in table_of(inspected) if row["samples"] == "0"]
    assert [(row["name"], row["type"], row["channels"], row["Hz"], row["effective"]) for row in silent] == [
        ("QE", "ECG", "1", "130", "-")
    ]
    replayed = insula("replay", path, "--headless")
    assert "\nQE/ecg: no sample came\n" in inspected
    assert "\nQE/ecg: no sample came\n" in replayed.partition(" samples, ")[2]  # in the summary
    assert "eeg: no sample came" not in replayed
    assert "\nQE/ecg: 1040 samples or markers are known to be missing\n" in inspected
    assert " 1040 lost or refused, 1 gaps\n" in replayed
    for said in (inspected, replayed):
        assert "ECG  no ECG: of QE/ecg, which was chosen, no sample came\n" in said
        assert "EEG from eeg: 19 of 19 channels" in said
        assert "ECG from QE/ecg" not in said


class OneIsSilent:
    """A live source of two streams, of which one never delivers."""

    streams = (
        StreamInfo(key="QF", kind="ecg", channels=("ECG",), rate=130.0, unit="uV"),
        StreamInfo(key="eeg", kind="eeg", channels=("Cz",), rate=250.0, unit="uV"),
    )

    def read(self, timeout):
        time.sleep(timeout)
        return [Chunk("eeg", np.array([pylsl.local_clock()]), np.zeros((1, 1), np.float32))]

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        pass


def test_the_summary_of_a_live_session_names_the_streams_that_delivered_nothing(capsys):
    insula_module.run_session(
        [OneIsSilent()], None, insula_module.terminal(), title="t", headless=True, estimates=None, record=None,
        seconds=0.5,
    )  # fmt: skip
    ended = capsys.readouterr().out.partition(" samples, ")[2]
    assert "\nQF: no sample came\n" in ended
    assert "eeg: no sample came" not in ended


# -- live --------------------------------------------------------------------------------------------------------------


def start_live(tmp_path, *more, env=None):
    record = tmp_path / "live.xdf"
    process = subprocess.Popen(
        [*INSULA, "live", "synthetic:", "--record", str(record), *more],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env={**os.environ, **(env or {})},
    )  # fmt: skip
    until = time.monotonic() + 60
    while not (record.exists() and record.stat().st_size > 20_000):
        assert time.monotonic() < until
        assert process.poll() is None, process.stdout.read()
        time.sleep(0.05)
    return process, record


def newest(record):
    """Stamp of the newest sample that pyxdf finds, for the slower of EEG and ECG."""
    streams, _ = pyxdf.load_xdf(str(record), synchronize_clocks=False, dejitter_timestamps=False)
    return min(s["time_stamps"][-1] for s in streams if s["info"]["type"][0] in ("EEG", "ECG"))


@pytest.mark.filterwarnings("ignore")
def test_an_engine_that_is_killed_leaves_a_record_up_to_the_last_two_seconds(tmp_path):
    process, record = start_live(tmp_path, "--headless")
    time.sleep(2.0)  # real time: the record must keep up with it
    process.send_signal(signal.SIGKILL)
    killed = pylsl.local_clock()
    process.communicate()
    assert killed - newest(record) < 2.0


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_live_session_that_is_stopped_ends_in_order(tmp_path, stop):
    process, record = start_live(tmp_path, "--headless")
    process.send_signal(stop)
    process.send_signal(stop)  # impatience loses nothing
    said, _ = process.communicate(timeout=30)
    assert process.returncode == 0
    assert "Traceback" not in said
    assert "0 lost or refused" in said
    content = record.read_bytes()
    with XdfFile(record) as file:
        assert file.findings == []
        assert content.count(b"<sample_count>") == len(file.streams)  # every stream has its footer


def affect_streams():
    return [info for info in pylsl.resolve_streams(3.0) if info.type() == "Affect" and info.name() == "insula"]


def test_a_dashboard_that_is_killed_leaves_the_engine_recording_and_publishing(tmp_path):
    process, record = start_live(tmp_path, env={"DISPLAY": ":offscreen", "QT_QPA_PLATFORM": "offscreen"})
    (session,) = [address for address in running_sessions() if Path(address).name.startswith(f"{process.pid}-")]
    client = Client.attach(session)
    (window,) = [p for p in psutil.Process(process.pid).children() if "gui.app" in " ".join(p.cmdline())]
    until = time.monotonic() + 30
    while not any(
        connection.status == "NONE" and connection.type == socket.SOCK_STREAM
        for connection in window.net_connections("unix")
    ):
        assert time.monotonic() < until
        time.sleep(0.05)
    window.kill()
    window.wait()
    before = record.stat().st_size
    info = max(affect_streams(), key=pylsl.StreamInfo.created_at)  # other sessions may run on this machine
    inlet = pylsl.StreamInlet(info)
    inlet.open_stream(10)
    inlet.pull_sample(20)
    sample, stamp = inlet.pull_sample(20)
    assert math.isnan(sample[0])  # the resting baseline
    assert sample[3:] == [0.0, 0.0]
    assert 0 <= pylsl.local_clock() - stamp < 5
    assert record.stat().st_size > before + 1000
    assert client.poll()
    client.close()
    done = subprocess.run(
        [sys.executable, "-m", "gui.app", "--attach", session, "--snapshot", str(tmp_path / "again.png")], check=False
    )
    assert done.returncode == 0
    assert (tmp_path / "again.png").stat().st_size > 10_000
    process.send_signal(signal.SIGINT)
    said, _ = process.communicate(timeout=30)
    assert "The session goes on" in said
    assert process.returncode == 0


def test_the_record_of_a_live_lsl_session_gives_its_estimates_again_with_the_model_that_ships(tmp_path):
    """As a lab does it: two streams, more than the resting baseline, Ctrl-C; then replay."""
    name = f"insula-cli-{os.getpid()}"
    feeder = subprocess.Popen([sys.executable, str(ROOT / "tests" / "peers" / "feed.py"), name, "70"])
    table, record = tmp_path / "live.csv", tmp_path / "live.xdf"
    session = subprocess.Popen(
        [*INSULA, "live", f"lsl:name={name}-eeg", f"lsl:name={name}-ecg", "--headless",
         "--estimates", str(table), "--record", str(record)],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    assert feeder.wait(120) == 0
    session.send_signal(signal.SIGINT)
    said, _ = session.communicate(timeout=30)
    assert session.returncode == 0, said
    given = [row for row in rows(table) if row["arousal"]]
    assert len(given) >= 5
    assert {(row["present_eeg"], row["present_ecg"]) for row in given} == {("1.0", "1.0")}
    insula("replay", record, "--headless", "--estimates", tmp_path / "again.csv")
    assert (tmp_path / "again.csv").read_bytes() == table.read_bytes()


def test_the_first_ctrl_c_ends_a_command_whose_sources_are_not_open_yet():
    session = Session([], None, title="nothing", clock=pylsl.local_clock)
    with insula_module.Interrupts() as interrupts:
        interrupts.watch(session)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


def test_two_people_are_measured_at_once_each_with_a_record_and_a_table_that_a_replay_repeats(tmp_path):
    people = ["A1=synthetic:?seed=1", "B2=synthetic:?seed=2"]
    options = ["--headless", "--record", str(tmp_path), "--task", "rest", "--estimates", str(tmp_path / "e.csv")]
    session = subprocess.Popen(
        [*INSULA, "live", *people, *options], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    said = []
    while sum("withheld" in line for line in said) < 6:
        said.append(session.stdout.readline())
    session.send_signal(signal.SIGINT)
    rest, _ = session.communicate(timeout=60)
    assert session.returncode == 0, "".join(said) + rest
    for code in ("A1", "B2"):
        assert any(line.startswith(f"{code}: ") and "withheld" in line for line in said)
        assert re.search(rf"^{code}: .*\d+ windows", rest, re.MULTILINE), rest
        (record,) = tmp_path.glob(f"sourcedata/sub-{code}/**/*_task-rest_run-01_eeg.xdf")
        assert json.loads(record.with_suffix(".json").read_text())["ended"] == "as asked"
        table = tmp_path / f"e-{code}.csv"
        assert len(rows(table)) >= 3
        again = tmp_path / f"again-{code}.csv"
        insula("replay", record, "--headless", "--estimates", again)
        assert again.read_bytes() == table.read_bytes()


def test_one_of_two_people_whose_source_is_not_there_is_told_and_the_other_is_recorded(tmp_path):
    arguments = ["A1=synthetic:", "B2=lsl:name=nobody-sends-this", "--headless", "--seconds", "3", "--to", tmp_path]
    assert insula("record", *arguments, status=2).startswith("insula: B2: lsl:name=nobody-sends-this")
    (record,) = tmp_path.rglob("*.xdf")
    assert record.name.startswith("sub-A1_")
    with XdfFile(record) as file:
        assert file.streams


@pytest.fixture
def eeg_and_markers():
    """LSL sources of a name that is theirs alone, which send as long as the test lasts."""
    name = f"insula-shared-{os.getpid()}-{time.monotonic_ns()}"
    eeg = pylsl.StreamOutlet(pylsl.StreamInfo(f"{name}-eeg", "EEG", 4, 100, pylsl.cf_float32, f"{name}-e"))
    markers = pylsl.StreamOutlet(pylsl.StreamInfo(f"{name}-m", "Markers", 1, 0, pylsl.cf_string, f"{name}-m"))
    over = threading.Event()

    def send():
        while not over.wait(0.05):
            eeg.push_chunk(np.ones((5, 4), np.float32))
            markers.push_sample(["on"])

    sender = threading.Thread(target=send)
    sender.start()
    yield name
    over.set()
    sender.join()


def test_two_people_may_share_markers_but_never_a_headset(eeg_and_markers, tmp_path):
    name = eeg_and_markers
    people = [f"A1=lsl:name={name}-m", "A1=synthetic:", f"B2=lsl:name={name}-m", f"B2=lsl:name={name}-eeg"]
    insula("record", *people, "--headless", "--seconds", "2", "--to", tmp_path / "both")
    assert len(list((tmp_path / "both").rglob("*.xdf"))) == 2
    people = [f"A1=lsl:name={name}-eeg", f"B2=lsl:source_id={name}-e"]
    said = insula("record", *people, "--headless", "--seconds", "2", "--to", tmp_path / "one", status=2)
    other = re.search("is the same stream as one of (A1|B2)", said)[1]
    (record,) = (tmp_path / "one").rglob("*.xdf")
    assert record.name.startswith(f"sub-{other}_")


def test_who_is_still_being_opened_when_all_are_told_to_end_is_not_recorded(tmp_path):
    device = open_device("synthetic:")
    late = Session(
        [device], None, title="late", clock=pylsl.local_clock, recorder=lambda streams: pytest.fail("it was recorded")
    )
    with insula_module.Interrupts() as interrupts:
        interrupts.watch(SimpleNamespace(running=True, stop=lambda: None))
        signal.raise_signal(signal.SIGTERM)
        interrupts.watch(late)
        with pytest.raises(DeviceError, match="stopped while"):
            late.run()


@pytest.mark.parametrize(
    "wrong",
    [
        ["A1=synthetic:", "synthetic:"],
        ["A1=synthetic:", "B2=synthetic:", "--participant", "P3"],
        ["A1=synthetic:", "B2=synthetic:", "--record", "both.xdf"],
        ["A/1=synthetic:"],
    ],
)
def test_sources_of_several_people_that_cannot_be_told_apart_are_refused(wrong, tmp_path):
    refusal("live", *wrong, "--headless", cwd=tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="an error output that fails is simulated where there is one")
def test_a_second_signal_that_cannot_be_answered_ends_a_session_in_order_all_the_same():
    """A closed window sends SIGHUP, and its shell another."""
    program = (
        "import insula, signal, types\n"
        "session = types.SimpleNamespace(running=True, stop=lambda: None)\n"
        "with insula.Interrupts() as interrupts:\n"
        "    interrupts.watch(session)\n"
        "    signal.raise_signal(signal.SIGTERM)\n"
        "    signal.raise_signal(signal.SIGTERM)\n"
        "print(interrupts.count)\n"
    )
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-c", program], cwd=ROOT, stdout=subprocess.PIPE, stderr=full, text=True, check=False
        )
    assert (done.returncode, done.stdout) == (0, "2\n")


def test_who_reads_the_output_and_leaves_does_not_end_a_session(tmp_path):
    record = tmp_path / "r.xdf"
    options = ["record", "synthetic:", "--to", str(record), "--headless", "--seconds", "3"]
    session = subprocess.Popen([*INSULA, *options], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert session.stdout.readline()
    session.stdout.close()
    _, trouble = session.communicate(timeout=60)
    assert (session.returncode, trouble) == (0, "")
    assert json.loads(record.with_suffix(".json").read_text())["ended"] == "as asked"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="an output that fails is simulated where there is one")
@pytest.mark.parametrize("command", [("record", "synthetic:", "--to", "r.xdf"), ("devices", "synthetic")])
def test_an_output_that_cannot_be_written_is_one_line(tmp_path, command):
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "insula", *command], cwd=tmp_path, stdout=full, stderr=subprocess.PIPE, text=True,
            timeout=120, check=False,
        )  # fmt: skip
    (line,) = done.stderr.splitlines()
    assert line == "insula: the output cannot be written (No space left on device). Let it go elsewhere."
    assert done.returncode == 2
    assert list(tmp_path.iterdir()) == []


def test_text_from_outside_is_printed_and_not_obeyed(capsys):
    insula_module.terminal().print("Cap\x1b[2J\x9b2J\u202e\ud800 [red] :warning: µV ± 1")
    assert capsys.readouterr().out == "Cap\ufffd[2J\ufffd2J\ufffd\ufffd [red] :warning: µV ± 1\n"


class SlowToOpen:
    """A source that takes a while to be found, as a chest strap does."""

    streams = (StreamInfo(key="ecg", kind="ecg", channels=("ecg",), rate=100.0, unit="uV"),)

    def read(self, timeout):
        time.sleep(timeout)
        if not timeout:
            return []
        return [Chunk("ecg", pylsl.local_clock() - np.arange(10)[::-1] / 100, np.zeros((10, 1), np.float32))]

    def __enter__(self):
        time.sleep(1.5)
        return self

    def __exit__(self, *exc):
        pass


def test_seconds_are_counted_from_when_every_source_is_open(tmp_path):
    console, path = insula_module.terminal(), tmp_path / "r.xdf"
    insula_module.run_session(
        [SlowToOpen()], None, console, title="test", headless=True, estimates=None, record=path, seconds=1.5
    )
    with XdfFile(path) as file:
        assert file.samples(1) >= 100

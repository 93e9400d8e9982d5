"""What a user gets when the disk fails or the engine is killed: the real command, a small disk of its own."""

from __future__ import annotations

import csv
import os
import shutil
import signal
import subprocess
import sys
import time

import pylsl
import pytest
import pyxdf

from devices.xdf_format import XdfFile

KILLS = int(os.environ.get("INSULA_KILLS", "6"))
SEED = int(os.environ.get("INSULA_SEED", time.time_ns()))
"""Of the moments of the kills; every run has others, and says which."""
DISK = "200k"
SECONDS = 16
"""Of the session on the small disk; about 25 kB come every second."""
ON_A_DISK = """
mount -t tmpfs -o {options} tmpfs "$1" || exit 77
{python} -u -m insula live synthetic: --headless --seconds {seconds} --model "$4" --record "$1/r.xdf" --estimates "$3"
status=$?
cp "$1/r.xdf" "$2" 2>/dev/null
exit $status
"""
"""In a mount namespace of its own, so that the disk is seen by nobody else and gone with its process."""


def may_mount():
    if not shutil.which("unshare"):
        return False
    tried = subprocess.run(["unshare", "-m", "true"], capture_output=True, check=False)
    return tried.returncode == 0 and hasattr(os, "getuid") and os.getuid() == 0


needs_mount = pytest.mark.skipif(not may_mount(), reason="a small disk needs root and unshare -m")


def play_disk(soak, quick, folder, options, seconds):
    folder.mkdir()
    disk, kept, table = folder / "disk", folder / "kept.xdf", folder / "e.csv"
    disk.mkdir()
    script = ON_A_DISK.format(options=options, python=sys.executable, seconds=seconds)
    with soak.run_terminal(["unshare", "-m", "sh", "-c", script, "sh", disk, kept, table, quick]) as terminal:
        status = terminal.finish(120)
    if status == 77:
        pytest.skip("mounting a tmpfs is not allowed here")
    return terminal, kept, table, status


def play_kills(soak, folder):
    folder.mkdir()
    return soak.kills(KILLS, soak.KILL_COMMAND, folder, seed=SEED)


@pytest.fixture(scope="module")
def played(scenes, soak, quick, tmp_path_factory):
    folder = tmp_path_factory.mktemp("disks")
    plays = {"kills": (play_kills, soak, folder / "kills")}
    if may_mount():
        plays["full"] = (play_disk, soak, quick, folder / "full", f"size={DISK}", SECONDS)
        plays["read-only"] = (play_disk, soak, quick, folder / "ro", "ro", 5)
    playing = scenes(plays)
    yield playing
    playing.close()


@needs_mount
def test_a_full_disk_is_said_within_two_seconds_and_in_the_exit_status(played):
    terminal, kept, _, status = played["full"]
    assert status == 1
    assert "Traceback" not in terminal.text
    said = next(t for t, line in terminal.lines if "No space left" in line)
    with XdfFile(kept) as file:
        newest = max(span[1] for number in file.streams if (span := file.span(number)))
    assert said - newest < 2.0
    assert "No space left" in terminal.lines[-1][1], "the last word of the session is what went wrong"


@needs_mount
def test_on_a_full_disk_the_record_is_valid_to_its_last_whole_chunk(played):
    _, kept, _, _ = played["full"]
    assert kept.stat().st_size > 180_000
    with XdfFile(kept) as file:
        assert file.findings == []
        ours = {file.streams[number].name: file.samples(number) for number in file.streams}
    streams, _ = pyxdf.load_xdf(str(kept), dejitter_timestamps=False)
    assert {stream["info"]["name"][0]: len(stream["time_stamps"]) for stream in streams} == ours
    assert min(ours[name] for name in ours if name.startswith("synthetic")) > 500


@needs_mount
def test_estimates_go_on_when_the_disk_of_the_record_is_full(played):
    terminal, _, table, _ = played["full"]
    full = next(t for t, line in terminal.lines if "No space left" in line)
    with table.open(newline="") as file:
        ends = [float(row["t_end"]) for row in csv.DictReader(file) if row["arousal"]]
    assert len([t for t in ends if t > full]) >= 5


@needs_mount
def test_a_folder_that_cannot_be_written_is_refused_in_one_line(played):
    terminal, kept, _, status = played["read-only"]
    assert status == 2
    assert "Traceback" not in terminal.text
    lines = [line for _, line in terminal.lines if "read-only" in line]
    assert len(lines) == 1, terminal.text
    assert str(kept.parent) in lines[0]
    assert not kept.exists()
    assert not any("arousal" in line for _, line in terminal.lines)


def test_a_recording_that_is_killed_at_any_moment_is_readable_and_lacks_at_most_two_seconds(played, soak):
    rows = played["kills"]
    print(f"INSULA_SEED={SEED}, killed after {[round(row['after'], 3) for row in rows]} s")
    assert len(rows) == KILLS
    assert soak.kill_faults(rows) == []
    assert max(row["bytes"] for row in rows) > 20_000


def test_a_recording_on_lsl_that_is_killed_lacks_at_most_what_was_on_its_way(live):
    live = live()
    with live.source() as source, live.start() as terminal:
        source.begun()
        live.wait(terminal, 1)
        terminal.process.send_signal(signal.SIGKILL)
        killed = pylsl.local_clock()
        terminal.process.wait()
        source.end()
    read = live.read(source.epoch)
    for kind, packet in (("eeg", 0.032), ("ecg", 73 / 130)):
        numbers = read["numbers"][kind]
        assert numbers.twice == numbers.backward_stamps == 0
        assert [begin for begin, _ in numbers.runs] == [source.first[kind]]
        end = source.epoch + numbers.runs[-1][1] / numbers.rate
        assert killed - end < packet + 1.0

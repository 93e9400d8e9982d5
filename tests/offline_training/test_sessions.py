"""Sessions: records by insula's own recorder, files by others, and the labels that markers and ratings give them."""

from __future__ import annotations

import json
import math
import re
import shutil
import textwrap
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from devices.api import Chunk, End, Events, StreamInfo, Tick
from devices.xdf import XdfReplay
from devices.xdf_format import XdfWriter
from insula import demo_recording
from models.api import InputSpec, WindowSpec
from offline_training.api import Recording, Skipped, TrainingError
from offline_training.datasets import open_dataset, sessions, targets_of
from offline_training.prepare import DEFAULT_GATE, DEFAULT_SPEC, prepare
from realtime.record import Study, start_record
from realtime.windows import iter_windows

LABELS = """
rest = "rest"
stops = ["end"]

[targets.arousal]
kind = "binary"
range = [0, 1]
meaning = "0: as at rest, 1: as in a task"

[targets.valence]
kind = "continuous"
range = [1, 9]
meaning = "1: most unpleasant, 9: most pleasant"
rated = true

[phases.rest]
arousal = 0
[phases.task]
arousal = 1
[phases.film]
"""
CHANNELS = ("Fp1", "Fp2", "C3", "C4", "O1", "O2")
STREAMS = (
    StreamInfo(key="amp/eeg", kind="eeg", channels=CHANNELS, rate=250.0, unit="uV", name="amp"),
    StreamInfo(key="h10/ecg", kind="ecg", channels=("ECG",), rate=130.0, unit="uV", name="h10"),
    StreamInfo(key="keys", kind="markers", channels=("marker",), rate=0.0, unit="", name="keys"),
    StreamInfo(key="slider", kind="rating", channels=("Valence",), rate=0.0, unit="", format="float32", name="slider"),
)
SPEC = WindowSpec(
    inputs=(InputSpec(kind="eeg", channels=CHANNELS, min_channels=4), InputSpec(kind="ecg", channels=("ECG",))),
    rate=200.0,
    seconds=10.0,
    hop=1.0,
)
BEGIN = 5123.456789


def signal(info: StreamInfo, times: np.ndarray, scale: float = 1.0) -> np.ndarray:
    random = np.random.default_rng(len(times))
    if info.kind == "eeg":
        wave = np.sin(2 * np.pi * 10 * times[:, None] + np.arange(len(info.channels)))
        return (scale * (12 * wave + 4 * random.standard_normal(wave.shape))).astype(np.float32)
    to_beat = (1.1 * times) % 1.0 - 0.5
    beat = 900 * np.exp(-0.5 * (to_beat / 0.015) ** 2) + 130 * np.exp(-0.5 * ((to_beat - 0.27) / 0.05) ** 2)
    return (scale * (beat + 3 * random.standard_normal(len(times))))[:, None].astype(np.float32)


def entries(marks, seconds, begin=BEGIN, ratings=(), scale=1.0):
    """What a session gives, in the order in which it came: chunks of 0.2 s that lag by their own length."""
    found = [(begin + at, Events("keys", np.array([begin + at]), (text,))) for at, text in marks]
    found += [(begin + at, Chunk("slider", np.array([begin + at]), np.array([[v]], np.float32))) for at, v in ratings]
    for info in STREAMS[:2]:
        times = begin + np.arange(round(seconds * info.rate)) / info.rate
        values = signal(info, times, scale)
        step = round(0.2 * info.rate)
        for at in range(0, len(times), step):
            piece = slice(at, at + step)
            found.append((times[piece][-1], Chunk(info.key, times[piece], values[piece])))
    return [item for _, item in sorted(found, key=lambda entry: entry[0])]


def record(folder, items, participant="P07", session="1", task="study", utc="2026-01-01T10:00:00.000+00:00"):
    where = Study(folder=folder, participant=participant, session=session, task=task)
    recorder = start_record(where, STREAMS, (), {"title": "test"})
    recorder.describe({"participant": participant, "started": {"utc": utc}})
    for item in items:
        recorder.write(item)
    recorder.close()
    return recorder.path


def write_labels(folder, text=LABELS):
    (folder / "labels.toml").write_text(text, encoding="utf-8")
    return folder


def read(folder, part=None):
    names = sessions.parts(folder)
    found = [one for name in names if part in (None, name) for one in sessions.recordings(folder, name)]
    return [one for one in found if isinstance(one, Recording)], [one for one in found if isinstance(one, Skipped)]


MARKS = ((2.0, "rest"), (40.0, "cue left"), (64.0, "task"), (66.0, "cue left"), (84.0, "end"))


def test_phases_of_a_record_have_the_values_that_the_labels_give_them(tmp_path):
    record(write_labels(tmp_path), entries(MARKS, 100))
    assert sessions.parts(tmp_path) == ["sourcedata/sub-P07/ses-1/eeg/sub-P07_ses-1"]
    (rest, task), skipped = read(tmp_path)
    assert [one.why for one in skipped] == ["valence: no rating was given"]
    assert skipped[0].where.endswith("_eeg.xdf, 'task' at 64.0 s")
    assert (rest.person, rest.phase, rest.rest, rest.targets) == ("P07", "rest", True, {"arousal": 0.0})
    assert (task.person, task.phase, task.rest, task.targets) == ("P07", "task", False, {"arousal": 1.0})
    assert rest.session == task.session
    assert (rest.start, rest.stop) == pytest.approx((BEGIN + 2, BEGIN + 64))
    assert (task.start, task.stop) == pytest.approx((BEGIN + 64, BEGIN + 84))


def test_the_windows_are_those_of_the_samples_as_they_came_to_the_last_bit(tmp_path):
    items = entries(MARKS, 100)
    # A tick that cut windows before a late stream came stands in the record, and cuts them again.
    items.insert(
        next(i for i, one in enumerate(items) if isinstance(one, Chunk) and one.times[0] > BEGIN + 70),
        Tick(BEGIN + 90.5),
    )
    record(write_labels(tmp_path), items)
    for recording in read(tmp_path)[0]:
        begin, end = recording.start, recording.stop
        wanted = []
        for item in items:
            if isinstance(item, Tick) and begin < item.time <= end:
                wanted.append(item)
            elif isinstance(item, Chunk) and item.stream != "slider":
                keep = (item.times >= begin) & (item.times < end)
                if keep.any():
                    wanted.append(Chunk(item.stream, item.times[keep], item.data[keep]))
        expected = list(iter_windows(wanted, SPEC, recording.streams))
        found = list(iter_windows(recording.chunks, SPEC, recording.streams))
        assert len(found) == len(expected) >= 10
        for one, other in zip(found, expected, strict=True):
            assert one.t_end == other.t_end
            assert one.present == other.present
            for kind in ("eeg", "ecg"):
                assert one.signals[kind].tobytes() == other.signals[kind].tobytes()


def test_phases_may_be_read_in_any_order_and_in_part(tmp_path):
    def plain(item):
        return item if isinstance(item, Tick) else (item.stream, item.times.tobytes(), item.data.tobytes())

    record(write_labels(tmp_path), entries(MARKS, 100))
    rest, task = ([plain(one) for one in recording.chunks] for recording in read(tmp_path)[0])
    one, other = read(tmp_path)[0]
    assert [plain(item) for item in other.chunks] == task
    assert [plain(item) for item in one.chunks] == rest
    one, other = read(tmp_path)[0]
    assert plain(next(iter(one.chunks))) == rest[0]
    assert [plain(item) for item in other.chunks] == task


def test_the_recording_that_ships_gives_the_windows_of_its_replay(tmp_path):
    shutil.copy(demo_recording(), tmp_path / "sub-05_task-arithmetic_eeg.xdf")
    write_labels(tmp_path, LABELS.replace("[phases.task]", '[phases."mental arithmetic"]'))
    (rest, task), _ = read(tmp_path)
    assert (rest.person, rest.phase, task.phase) == ("05", "rest", "mental arithmetic")
    replayed = {}
    with XdfReplay(demo_recording(), stop=70.0, speed=math.inf) as replay:
        items = []
        while not any(isinstance(item, End) for item in items[-1:]):
            items += replay.read(0.0)
        for window in iter_windows(items, DEFAULT_SPEC, replay.streams):
            replayed[window.t_end] = window
    same = 0
    for window in iter_windows(rest.chunks, DEFAULT_SPEC, rest.streams):
        if window.t_end > 60.0:
            break
        assert window.signals["eeg"].tobytes() == replayed[window.t_end].signals["eeg"].tobytes()
        same += 1
    assert same > 40


def test_training_takes_the_first_minute_as_baseline(tmp_path):
    record(write_labels(tmp_path), entries(MARKS, 100))
    prepared = prepare(read(tmp_path)[0], SPEC, DEFAULT_GATE, sessions.targets(tmp_path)[0])
    assert prepared.baseline.sum() >= 50
    assert prepared.usable.all()
    assert set(prepared.label[prepared.trained]) == {1}
    assert prepared.people == ["P07"]


@pytest.mark.parametrize("where", ["text", "json", "stream"])
def test_a_rating_speaks_of_the_phase_that_began_last_before_it(tmp_path, where):
    marks = [(0.0, "rest"), (62.0, "film"), (75.0, "end"), (80.0, "film"), (95.0, "end")]
    told = [(76.0, 3.0), (97.0, 8.0), (98.0, 6.5)]
    if where == "text":
        marks += [(at, f"rating valence {value:g}") for at, value in told]
    elif where == "json":
        marks += [(at, json.dumps({"rating": {"valence": value}})) for at, value in told]
    record(write_labels(tmp_path), entries(marks, 100, ratings=told if where == "stream" else ()))
    found, skipped = read(tmp_path)
    assert not skipped
    assert [(one.phase, dict(one.targets)) for one in found] == [
        ("rest", {"arousal": 0.0}),
        ("film", {"valence": 3.0}),
        ("film", {"valence": 6.5}),
    ]


def test_ratings_that_cannot_be_used_are_named(tmp_path):
    marks = [(0.0, "rating valence 5"), (1.0, "rest"), (62.0, "film"), (75.0, "end"), (76.0, "rating valence eleven")]
    marks += [(77.0, "rating valence 11"), (78.0, "rating mood 3"), (79.0, '{"rating": {"valence": null}}')]
    marks += [(80.0, '{"valence": 5}'), (80.5, '{"rating": 5}'), (81.0, "{broken")]
    record(write_labels(tmp_path), entries(marks, 100))
    found, skipped = read(tmp_path)
    assert [one.phase for one in found] == ["rest"]
    assert [one.why for one in skipped] == [
        "valence: no phase had begun",
        "valence: the value 'eleven' is no number",
        "valence: the value is 11, expected 1 to 9",
        "'mood' is no target of labels.toml that is rated",
        "valence: the value is missing",
        "valence: no rating was given",
    ]
    assert all("sub-P07_ses-1_task-study_run-01_eeg.xdf" in one.where for one in skipped)


def test_runs_of_one_session_follow_each_other_in_time_and_share_its_baseline(tmp_path):
    write_labels(tmp_path)
    record(tmp_path, entries([(0.0, "task")], 30, BEGIN + 500), task="a", utc="2026-01-01T11:00:00.000+00:00")
    record(tmp_path, entries([(0.0, "rest")], 70), task="b", utc="2026-01-01T10:00:00.000+00:00")
    assert len(sessions.parts(tmp_path)) == 1
    found = read(tmp_path)[0]
    assert [(one.phase, one.start) for one in found] == [("rest", BEGIN), ("task", BEGIN + 500)]
    assert found[0].session == found[1].session


def test_a_run_whose_clock_began_anew_comes_after_the_one_before_with_the_same_windows(tmp_path):
    write_labels(tmp_path)
    record(tmp_path, entries([(0.0, "rest")], 70), task="a", utc="2026-01-01T10:00:00.000+00:00")
    record(tmp_path, entries([(0.0, "task")], 30, 100.2534), task="b", utc="2026-01-01T11:00:00.000+00:00")
    rest, task = read(tmp_path)[0]
    assert task.start > rest.stop
    shift = task.start - 100.2534
    assert shift == pytest.approx(round(shift / 10) * 10)
    moved = list(iter_windows(task.chunks, SPEC, task.streams))
    times = np.concatenate([one.times for one in read(tmp_path)[0][1].chunks if isinstance(one, Chunk)])
    assert times.min() == pytest.approx(task.start)
    plain = list(iter_windows(entries([], 30, 100.2534), SPEC, task.streams))
    for one, other in zip(moved, plain, strict=False):
        assert one.t_end - shift == pytest.approx(other.t_end)
        assert one.signals["eeg"] == pytest.approx(other.signals["eeg"], abs=0.02)  # of 16: stamps are rounded


def test_files_without_a_session_label_are_sessions_of_their_own(tmp_path):
    write_labels(tmp_path)
    record(tmp_path, entries([(0.0, "rest")], 70), session="", task="a")
    record(tmp_path, entries([(0.0, "task")], 30), session="", task="b")
    found, _ = read(tmp_path)
    assert len({one.session for one in found}) == 2


def test_phases_before_the_baseline_and_phases_too_short_are_named(tmp_path):
    record(write_labels(tmp_path), entries([(0.0, "task"), (20.0, "rest"), (85.0, "task"), (89.0, "end")], 100))
    found, skipped = read(tmp_path)
    assert [one.phase for one in found] == ["rest"]
    assert [one.why for one in skipped] == [
        "stands before the first 'rest' of its session, which is the baseline",
        "lasts 4.0 s, at least 10 s are needed",
    ]


def test_a_file_of_nobody_or_of_two_people_is_left_out_with_the_reason(tmp_path):
    write_labels(tmp_path)
    items = entries([(0.0, "rest")], 30)
    path = record(tmp_path, items, participant="unnamed", session="")
    assert read(tmp_path) == ([], [Skipped(sessions.parts(tmp_path)[0], read(tmp_path)[1][0].why)])
    assert "no person" in read(tmp_path)[1][0].why
    plain = tmp_path / "monday.xdf"
    path.rename(plain)
    path.with_suffix(".json").unlink()
    assert "no person" in read(tmp_path)[1][0].why
    plain.with_suffix(".json").write_text('{"participant": "P09"}')
    assert read(tmp_path)[0][0].person == "P09"
    plain.rename(tmp_path / "sub-P08_task-x_eeg.xdf")
    (tmp_path / "sub-P08_task-x_eeg.json").write_text('{"participant": "P09"}')
    assert read(tmp_path)[1][0].why == "its name says it is of P08, the description beside it 'P09'"


def test_a_file_without_eeg_or_ecg_is_left_out(tmp_path):
    with XdfWriter(write_labels(tmp_path) / "sub-P01.xdf") as writer:
        number = writer.add_stream(name="watch", type="Accelerometer", channels=["x"], rate=50.0, format="float32")
        writer.write(number, np.arange(500) / 50.0, np.zeros((500, 1), np.float32))
    assert read(tmp_path) == ([], [Skipped("sub-P01.xdf", "no EEG and no ECG in it")])


def test_a_file_without_a_phase_says_what_markers_it_has(tmp_path):
    record(write_labels(tmp_path), entries([(0.0, "Rest"), (30.0, "stimulus 4")], 60))
    assert read(tmp_path)[1][0].why == "no marker in it is a phase of labels.toml (there are: 'Rest', 'stimulus 4')"


def test_eeg_in_a_unit_that_cannot_be_is_refused_in_words(tmp_path):
    record(write_labels(tmp_path), entries([(0.0, "rest")], 30, scale=1e-6))
    assert "amp/eeg, by its unit uV" in read(tmp_path)[1][0].why
    assert "it is in V, not in uV" in read(tmp_path)[1][0].why


def test_a_damaged_file_costs_that_file_only(tmp_path):
    write_labels(tmp_path)
    good = record(tmp_path, entries([(0.0, "rest")], 70), task="a")
    bad = record(tmp_path, entries([(0.0, "task")], 30, BEGIN + 100), task="b")
    bad.write_bytes(b"nothing")
    found, skipped = read(tmp_path)
    assert [one.phase for one in found] == ["rest"]
    assert "not an XDF file" in skipped[0].why
    good.write_bytes(b"XDF")
    with pytest.raises(TrainingError, match="not an XDF file"):
        read(tmp_path)


def test_a_file_that_was_cut_off_is_used_as_far_as_it_goes(tmp_path):
    path = record(write_labels(tmp_path), entries(MARKS, 100))
    content = path.read_bytes()
    path.write_bytes(content[: round(0.5 * len(content))])
    found, skipped = read(tmp_path)
    assert skipped[0].why.startswith("damaged, what can be read is used: byte ")
    assert [one.phase for one in found] == ["rest"]
    assert 40 < found[0].stop - found[0].start < 60


def test_the_file_of_another_recorder_is_put_on_one_clock_as_in_a_replay(tmp_path):
    write_labels(tmp_path)
    folder = tmp_path / "sub-P01" / "ses-S001" / "eeg"
    folder.mkdir(parents=True)
    path = folder / "sub-P01_ses-S001_task-Default_run-001_eeg.xdf"
    clocks = {"EEG": 0.0, "ECG": -300.0, "Markers": 1000.0}  # what each computer's clock is off by
    with XdfWriter(path) as writer:
        for info, name in zip(STREAMS[:2], ("EEG", "ECG"), strict=True):
            number = writer.add_stream(
                name=name, type=name, channels=info.channels, rate=info.rate, format="float32", unit="microvolts"
            )
            times = 50.0 + np.arange(round(90 * info.rate)) / info.rate
            for at in (50.0, 90.0, 130.0):
                writer.write_offset(number, at - clocks[name], clocks[name])
            writer.write(number, times - clocks[name], signal(info, times))
        number = writer.add_stream(name="keys", type="Markers", channels=["m"], rate=0.0, format="int32")
        for at in (50.0, 90.0, 130.0):
            writer.write_offset(number, at - 1000.0, 1000.0)
        writer.write(number, np.array([51.0, 113.0]) - 1000.0, np.array([[1], [2]], np.int32))
    write_labels(tmp_path, LABELS.replace('rest = "rest"', 'rest = "1"').replace("[phases.task]", "[phases.2]"))
    (rest, task), _ = read(tmp_path)
    assert (rest.start, task.start) == pytest.approx((51.0, 113.0), abs=1e-3)
    assert [info.unit for info in rest.streams] == ["uV", "uV"]
    windows = list(iter_windows(rest.chunks, SPEC, rest.streams))
    assert len(windows) > 40
    assert min(window.present[kind] for window in windows[2:] for kind in ("eeg", "ecg")) == 1.0


def test_the_targets_are_those_of_the_folder(tmp_path):
    write_labels(tmp_path)
    one = open_dataset("sessions")
    assert [(target.name, target.kind, target.range) for target in targets_of(one, tmp_path)] == [
        ("arousal", "binary", (0.0, 1.0)),
        ("valence", "continuous", (1.0, 9.0)),
    ]
    assert targets_of(open_dataset("eegmat"), tmp_path) == open_dataset("eegmat").TARGETS


ORDINAL = (
    '[targets.load]\nkind = "ordinal"\nrange = [1, 5]\nlevels = [1, 3, 5]\nmeaning = "1 none, 5 all"\n[phases.a]\n'
)


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("rest = ", "Invalid value"),
        ("", "has no \\[targets.NAME\\]"),
        ("rest = " + "[" * 100_000, "labels.toml: "),
        ("typo = 1\n" + LABELS, "it has 'typo', known are rest, stops, targets, phases"),
        (LABELS.replace("arousal = 1\n", "arousal = 2\n"), "phases.task.arousal: the value is 2, expected 0 to 1"),
        (LABELS.replace("arousal = 1\n", 'arousal = "high"\n'), "phases.task.arousal: the value 'high' is no number"),
        (LABELS.replace("arousal = 1\n", "arousal = true\n"), "phases.task.arousal: True is no number"),
        (LABELS.replace("arousal = 1\n", "valence = 5\n"), "phases.task: valence is rated"),
        (LABELS.replace("arousal = 1\n", "calm = 1\n"), "phases.task: calm is no target"),
        (LABELS.replace('"binary"', '"classes"'), "targets.arousal.kind is 'classes'"),
        (LABELS.replace("[0, 1]", "[1, 0]"), "targets.arousal.range"),
        (LABELS.replace("rated = true", "rated = 1"), "targets.valence.rated is true or false"),
        (LABELS.replace('["end"]', '["task"]'), "'task' is a phase and a stop"),
        (ORDINAL + "load = 2", "the value is 2, the levels are 1, 3, 5"),
        (ORDINAL.replace("[1, 3, 5]", "[1, 3]"), "targets.load.levels rise from 1 to 5"),
        ("[targets]\narousal = 1", "targets are tables"),
    ],
)
def test_labels_that_cannot_be_understood_are_one_line_that_says_what(tmp_path, text, what):
    write_labels(tmp_path, text)
    with pytest.raises(TrainingError, match=what) as caught:
        sessions.parts(tmp_path)
    assert str(caught.value).startswith(str(tmp_path / "labels.toml"))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("place", ["docs/training.md", "offline_training/datasets/sessions.py"])
def test_the_labels_that_are_shown_are_understood(tmp_path, place):
    shown = (Path(__file__).parents[2] / place).read_text(encoding="utf-8")
    pattern = r"```toml\n(.*?)```" if place.endswith(".md") else r"\n( {4}rest = .*?)\nA phase begins"
    write_labels(tmp_path, textwrap.dedent(re.search(pattern, shown, re.DOTALL)[1]))
    assert [(one.name, one.kind) for one in sessions.targets(tmp_path)] == [
        ("arousal", "binary"),
        ("valence", "continuous"),
    ]


def test_the_digest_is_of_recordings_descriptions_and_labels(tmp_path):
    path = record(write_labels(tmp_path), entries([(0.0, "rest")], 20))
    part = sessions.parts(tmp_path)[0]
    before = sessions.digest(tmp_path, part)
    write_labels(tmp_path, LABELS + "\n# a note\n")
    middle = sessions.digest(tmp_path, part)
    path.with_suffix(".json").write_text("{}")
    assert all(one != other for one, other in pairwise([before, middle, sessions.digest(tmp_path, part)]))

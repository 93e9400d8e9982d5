"""SEED-VII, on Neuroscan CNT files made like the real ones, with triggers, keys among them, and the two odd files."""

from __future__ import annotations

import struct
from collections import Counter

import numpy as np
import pytest

from models.api import InputSpec, WindowSpec
from models.montage import PUBLISHED
from offline_training.api import Recording, Skipped, TrainingError
from offline_training.datasets import seed7
from offline_training.prepare import DEFAULT_GATE, prepare

RATE = 128
HEAD = (
    *("FP1", "FPZ", "FP2", "AF3", "AF4", "F7", "F5", "F3", "F1", "FZ", "F2", "F4", "F6", "F8", "FT7", "FC5", "FC3"),
    *("FC1", "FCZ", "FC2", "FC4", "FC6", "FT8", "T7", "C5", "C3", "C1", "CZ", "C2", "C4", "C6", "T8", "TP7", "CP5"),
    *("CP3", "CP1", "CPZ", "CP2", "CP4", "CP6", "TP8", "P7", "P5", "P3", "P1", "PZ", "P2", "P4", "P6", "P8", "PO7"),
    *("PO5", "PO3", "POZ", "PO4", "PO6", "PO8", "CB1", "O1", "OZ", "O2", "CB2"),
)
LABELS = (*HEAD[:32], "M1", *HEAD[32:42], "M2", *HEAD[42:], "HEO", "VEO", "ECG")
CLIP, PAUSE = 12, 1
SECONDS = 20 * (CLIP + PAUSE) + 1
TIMES = [PAUSE + i * (CLIP + PAUSE) + edge for i in range(20) for edge in (0, CLIP)]


def signals(seed: int, scale: float = 1.0) -> np.ndarray:
    """(channels, n) uV."""
    random = np.random.default_rng(seed)
    time = np.arange(SECONDS * RATE) / RATE
    wave = 12 * np.sin(2 * np.pi * 10 * time + random.uniform(0, 6, (len(LABELS), 1)))
    values = 4 * random.standard_normal((len(LABELS), len(time))) + wave
    to_beat = (1.1 * time) % 1.0 - 0.5
    values[-1] = 3 * random.standard_normal(len(time))
    values[-1] += 900 * np.exp(-0.5 * (to_beat / 0.015) ** 2) + 130 * np.exp(-0.5 * ((to_beat - 0.27) / 0.05) ** 2)
    return scale * values


def cnt(values: np.ndarray, labels=LABELS, times=TIMES, keys=()) -> bytes:
    """Neuroscan's: a header, 75 bytes a channel, whole numbers of 32 bits by sample, the table of events.

    ``keys`` are the times of keys that were pressed.
    """
    count, n = len(labels), values.shape[1]
    header = bytearray(900)
    header[:12] = b"Version 3.0\0"
    header[225:235], header[235:247] = b"10/01/22\0\0", b"14:00:00\0\0\0\0"
    struct.pack_into("<H", header, 370, count)
    struct.pack_into("<H", header, 376, RATE)
    struct.pack_into("<i", header, 864, n)
    table = 900 + 75 * count + 4 * count * n
    struct.pack_into("<i", header, 886, table)
    struct.pack_into("<f", header, 890, n / RATE)
    struct.pack_into("<i", header, 894, 0)
    per_count = 0.03
    for label in labels:
        channel = bytearray(75)
        channel[: len(label)] = label.encode()
        struct.pack_into("<f", channel, 59, per_count * 204.8)
        struct.pack_into("<f", channel, 71, 1.0)
        header += channel
    events = b""
    for time, key in sorted([(one, 0) for one in times] + [(one, 3) for one in keys]):
        offset = 900 + 75 * count + 4 * count * (round(time * RATE) + 1)
        events += struct.pack("<HBclhhfccc", 0 if key else 1, 0, bytes([key]), offset, 0, 0, 0.0, b"\0", b"\0", b"\0")
    body = np.round(values.T / per_count).astype("<i4").tobytes()
    return bytes(header) + body + struct.pack("<Bll", 2, len(events), 0) + events


@pytest.fixture(scope="module")
def content():
    return cnt(signals(1))


def write(folder, content, name="1_20221001_1"):
    path = folder / "EEG_raw" / f"{name}.cnt"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def read(folder, part="1_20221001_1"):
    found = list(seed7.recordings(folder, part))
    return [one for one in found if isinstance(one, Recording)], [one for one in found if isinstance(one, Skipped)]


def test_each_emotion_has_the_clips_that_were_published():
    counts = Counter(emotion for session in seed7.EMOTIONS for emotion in session)
    assert counts == {**dict.fromkeys(("happy", "surprise", "disgust", "fear", "sadness", "anger"), 12), "neutral": 8}
    assert all(len(session) == 20 and len(set(session)) == 5 for session in seed7.EMOTIONS)
    assert seed7.EMOTIONS[1][:7] == ("anger", "sadness", "fear", "neutral", "surprise", "surprise", "neutral")


def test_files_are_read_by_person_and_session(tmp_path, content):
    for name in ("10_20221002_1", "2_20221020_2", "2_20221010_1"):
        write(tmp_path, content, name)
    write(tmp_path, b"", "notes")
    assert seed7.parts(tmp_path) == ["2_20221010_1", "2_20221020_2", "10_20221002_1"]
    found = read(tmp_path, "2_20221020_2")[0]
    assert (found[0].person, found[0].session, found[0].phase) == ("02", "02-2", "clip 1, anger")
    assert not any(one.rest for one in found)


def test_clips_have_the_valence_they_were_chosen_for_and_neutral_and_surprise_none(tmp_path, content):
    write(tmp_path, content)
    found, skipped = read(tmp_path)
    assert not skipped
    assert [one.targets.get("valence") for one in found[:10]] == [1.0, None, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, None, 1.0]
    assert [one.phase for one in found[:2]] == ["clip 1, happy", "clip 2, neutral"]
    write(tmp_path, content, "1_20221103_4")
    last = read(tmp_path, "1_20221103_4")[0]
    assert [one.targets.get("valence") for one in last[:5]] == [0.0, 0.0, 0.0, None, 1.0]


def test_a_clip_lies_between_its_triggers_in_microvolts_without_eyes_and_mastoids(tmp_path, content):
    write(tmp_path, content)
    made, clip = signals(1), read(tmp_path)[0][2]
    assert [(one.start, one.stop) for one in read(tmp_path)[0]] == list(zip(TIMES[0::2], TIMES[1::2], strict=True))
    assert clip.streams[0].channels == HEAD
    rows = [LABELS.index(name) for name in HEAD]
    chunks = list(clip.chunks)
    where = slice(TIMES[4] * RATE, TIMES[5] * RATE)
    for key, expected in (("eeg", made[rows][:, where]), ("ecg", made[[-1]][:, where])):
        samples = np.concatenate([chunk.data for chunk in chunks if chunk.stream == key])
        assert samples == pytest.approx(expected.T, abs=0.02)
    times = np.concatenate([chunk.times for chunk in chunks if chunk.stream == "eeg"])
    assert times == pytest.approx(TIMES[4] + np.arange(CLIP * RATE) / RATE)


def test_windows_are_good(tmp_path, content):
    write(tmp_path, content)
    spec = WindowSpec(
        inputs=(InputSpec(kind="eeg", channels=PUBLISHED, min_channels=16), InputSpec(kind="ecg", channels=("ECG",))),
        rate=200.0,
        seconds=5.0,
        hop=1.0,
    )
    prepared = prepare(read(tmp_path)[0][:10], spec, DEFAULT_GATE, seed7.TARGETS[0])
    assert prepared.usable.all()
    assert prepared.scored.any()
    assert not prepared.baseline.any()


def test_keys_among_the_triggers_are_no_triggers(tmp_path):
    write(tmp_path, cnt(signals(1), keys=(3, 100.5)))
    assert len(read(tmp_path)[0]) == 20


def test_the_two_files_without_right_triggers_take_those_of_save_info(tmp_path):
    write(tmp_path, cnt(signals(1), times=()), "14_20221015_1")
    with pytest.raises(TrainingError, match=r"14_20221015_1_trigger_info\.csv: cannot be read.*save_info"):
        read(tmp_path, "14_20221015_1")
    saved = tmp_path / "save_info" / "14_20221015_1_trigger_info.csv"
    saved.parent.mkdir()
    rows = [
        f"{i % 2 + 1},2022-10-15 14:{(34 + t) // 60 + 25:02d}:{(34 + t) % 60:02d}.250000" for i, t in enumerate(TIMES)
    ]
    saved.write_text("\n".join(rows) + "\n")
    found = read(tmp_path, "14_20221015_1")[0]
    assert [one.start for one in found] == [begin + 0.25 for begin in TIMES[0::2]]
    before = seed7.digest(tmp_path, "14_20221015_1")
    saved.write_text("begin,nonsense\n")
    assert seed7.digest(tmp_path, "14_20221015_1") != before
    with pytest.raises(TrainingError, match="is no list of triggers"):
        read(tmp_path, "14_20221015_1")


@pytest.mark.parametrize(("times", "what"), [(TIMES[:-3], "has 37 triggers"), ((), "has 0 triggers")])
def test_another_number_of_triggers_is_refused_for_that_file(tmp_path, times, what):
    write(tmp_path, cnt(signals(1), times=times))
    with pytest.raises(TrainingError, match=what):
        read(tmp_path)


def test_a_clip_of_an_impossible_length_is_named(tmp_path):
    moved = list(TIMES)
    moved[3] = moved[2] + 4
    write(tmp_path, cnt(signals(1), times=moved))
    found, skipped = read(tmp_path)
    assert skipped == [Skipped("1_20221001_1.cnt, clip 2", "its triggers are 4.0 s apart, expected 10 to 900")]
    assert len(found) == 19


@pytest.mark.parametrize(("scale", "unit"), [(1e4, "microvolts are never as many"), (0.01, "it is in mV")])
def test_signals_of_another_size_are_refused_in_words(tmp_path, scale, unit):
    write(tmp_path, cnt(signals(1, scale)))
    found, skipped = read(tmp_path)
    assert not found
    assert len(skipped) == 20
    assert unit in skipped[0].why


def test_a_file_without_ecg_is_refused(tmp_path):
    labels = (*LABELS[:-1], "EMG")
    write(tmp_path, cnt(signals(1), labels))
    with pytest.raises(TrainingError, match="has 62 electrodes, 0 ECG channels"):
        read(tmp_path)


def test_a_damaged_file_costs_that_file_only(tmp_path, content):
    write(tmp_path, content)
    write(tmp_path, content[: len(content) // 2], "2_20221001_1")
    write(tmp_path, b"", "3_20221001_1")
    for part in ("2_20221001_1", "3_20221001_1"):
        with pytest.raises(TrainingError, match=rf"{part}\.cnt: cannot be read") as caught:
            read(tmp_path, part)
        assert "\n" not in str(caught.value)
    assert len(read(tmp_path)[0]) == 20

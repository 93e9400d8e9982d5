"""AMIGOS, on files made like the real ones: empty cells, channel-major copies, overlong compressed parts, no units."""

from __future__ import annotations

import struct
import zlib

import numpy as np
import pytest
from scipy.io import savemat

from models.api import WindowSpec
from offline_training.api import Recording, Skipped, TrainingError
from offline_training.datasets import amigos
from offline_training.prepare import DEFAULT_GATE, prepare
from realtime.windows import iter_windows

VIDEOS = 4
VIDEO_IDS = ("10", "13", "138", "N1")


def spec(seconds: float) -> WindowSpec:
    return WindowSpec(
        inputs=amigos.INPUTS,
        rate=200.0,
        seconds=seconds,
        hop=1.0,
    )


def video(random: np.random.Generator, seconds: float = 30.0, ecg: float = 1.0) -> np.ndarray:
    """(M, 17) at 128 Hz: EEG in uV, ECG of ``ecg`` from foot to peak, skin conductance."""
    time = np.arange(round(seconds * 128)) / 128
    wave = 12 * np.sin(2 * np.pi * 10 * time)[:, None] * random.uniform(0.3, 1.0, 14)
    to_beat = (1.1 * time) % 1.0 - 0.5
    beat = ecg * (np.exp(-0.5 * (to_beat / 0.015) ** 2) + 0.15 * np.exp(-0.5 * ((to_beat - 0.27) / 0.05) ** 2))
    noise = 0.005 * ecg * random.standard_normal((len(time), 2))
    leads = np.stack([beat, 0.8 * beat], axis=1) + noise
    skin = 5e-7 * np.ones((len(time), 1))
    return np.hstack([8 * random.standard_normal((len(time), 14)) + wave, leads, skin])


def cells(values) -> np.ndarray:
    row = np.empty((1, len(values)), object)
    for column, value in enumerate(values):
        row[0, column] = value
    return row


def person(seed: int = 1, ecg: float = 1.0) -> dict:
    random = np.random.default_rng(seed)
    ratings = [[[2.5, 7.25, 4.0, 6.0, 1.0, 0, 1, 0, 0, 0, 0, 0]], [[8.9, 1.0, 5.5, 2.0, 1.0, 1, 0, 0, 0, 0, 0, 0]]]
    return {
        "joined_data": [video(random, ecg=ecg) for _ in range(VIDEOS)],
        "labels_selfassessment": [np.array(ratings[i % 2]) for i in range(VIDEOS)],
    }


def write(folder, content, number=1, compressed=False):
    path = folder / f"Data_Preprocessed_P{number:02d}.mat"
    path.parent.mkdir(parents=True, exist_ok=True)
    arrays = {name: cells(values) for name, values in content.items()}
    savemat(path, {**arrays, "VideoIDs": cells(VIDEO_IDS)}, do_compression=compressed)
    return path


def read(folder, part="01"):
    found = list(amigos.recordings(folder, part))
    return [one for one in found if isinstance(one, Recording)], [one for one in found if isinstance(one, Skipped)]


def joined(recording, key):
    return np.concatenate([chunk.data for chunk in recording.chunks if chunk.stream == key])


def test_each_video_begins_with_five_seconds_of_its_own_and_keeps_its_ratings(tmp_path):
    made = person()
    write(tmp_path / "Data_Preprocessed_P01", made)
    write(tmp_path / "Data_Preprocessed_P02", person(2), 2)
    assert amigos.parts(tmp_path) == ["01", "02"]
    recordings, skipped = read(tmp_path)
    assert not skipped
    assert [(one.session, one.phase, one.rest) for one in recordings[:3]] == [
        ("01-video01", "before the video", True),
        ("01-video01", "video 10", False),
        ("01-video02", "before the video", True),
    ]
    before, clip = recordings[:2]
    assert (before.start, before.stop, clip.start, clip.stop) == (0.0, 5.0, 60.0, 85.0)
    assert before.targets == {}
    eeg = np.concatenate([joined(read(tmp_path)[0][0], "eeg"), joined(clip, "eeg")])
    assert eeg == pytest.approx(made["joined_data"][0][:, :14].astype(np.float32))


def test_the_columns_are_arousal_valence_and_dominance_in_this_order(tmp_path):
    write(tmp_path, person())
    assert read(tmp_path)[0][1].targets == {"arousal": 2.5, "valence": 7.25, "dominance": 4.0}


@pytest.mark.parametrize(("height", "unit", "scale"), [(1.0, "mV", 1.0), (240.0, "uV", amigos.UV_PER_COUNT)])
def test_ecg_gets_its_unit_by_its_size(tmp_path, height, unit, scale):
    made = person(ecg=height)
    write(tmp_path, made)
    clip = read(tmp_path)[0][1]
    assert clip.streams[1].unit == unit
    assert joined(clip, "ecg") == pytest.approx(made["joined_data"][0][640:, 14:16] * scale, rel=1e-5)
    assert clip.streams[1].channels[0] == "ECG right"


@pytest.mark.parametrize("height", [1e-3, 1e6])
def test_ecg_that_is_neither_refuses_that_person_alone(tmp_path, height):
    write(tmp_path, person(ecg=height))
    write(tmp_path, person(), 2)
    with pytest.raises(TrainingError, match=r"P01\.mat: the ECG is"):
        read(tmp_path)
    assert len(read(tmp_path, "02")[0]) == 2 * VIDEOS


@pytest.mark.parametrize("height", [1.0, 240.0])
def test_windows_are_good_and_nothing_of_a_video_is_lost_to_the_baseline(tmp_path, height):
    write(tmp_path, person(ecg=height))
    prepared = prepare(read(tmp_path)[0], spec(4.0), DEFAULT_GATE, amigos.TARGETS[0])
    assert prepared.usable[prepared.scored].all()
    assert prepared.t_end[prepared.scored].min() == 65.0
    assert prepared.baseline.any()
    long = prepare(read(tmp_path)[0], spec(10.0), DEFAULT_GATE, amigos.TARGETS[0])
    assert long.scored.any()
    assert not long.baseline.any()


def test_a_channel_major_copy_gives_the_same_samples(tmp_path):
    made = person()
    write(tmp_path / "a", made)
    made["joined_data"][0] = made["joined_data"][0].T
    write(tmp_path / "b", made)
    found, expected = read(tmp_path / "b")[0][1], read(tmp_path / "a")[0][1]
    assert joined(found, "eeg").tobytes() == joined(expected, "eeg").tobytes()


def test_what_is_empty_missing_or_impossible_is_named_and_the_rest_goes_on(tmp_path):
    broken = person()
    broken["joined_data"][0] = np.zeros((0, 0))
    broken["joined_data"][1] = video(np.random.default_rng(1), 9.0)
    broken["labels_selfassessment"][2] = np.zeros((0, 0))
    broken["labels_selfassessment"][3] = np.array([[np.nan, 0.0, 5.0]])
    write(tmp_path, broken)
    recordings, skipped = read(tmp_path)
    assert [(one.where, one.why) for one in skipped] == [
        ("Data_Preprocessed_P01.mat, video 1 (10)", "the signal is empty"),
        (
            "Data_Preprocessed_P01.mat, video 2 (13)",
            "the signal lasts 9.0 s, at least 15 s with its baseline are needed",
        ),
        *[
            ("Data_Preprocessed_P01.mat, video 3 (138)", f"{name}: the rating is missing")
            for name in ("arousal", "valence", "dominance")
        ],
        ("Data_Preprocessed_P01.mat, video 4 (N1)", "arousal: the rating is NaN"),
        ("Data_Preprocessed_P01.mat, video 4 (N1)", "valence: the rating is 0, expected 1 to 9"),
    ]
    assert [one.targets for one in recordings] == [{}, {"dominance": 5.0}]


def test_an_impossible_shape_or_eeg_in_volts_costs_that_video(tmp_path):
    broken = person()
    broken["joined_data"][0] = np.ones((3000, 12))
    broken["joined_data"][1][:, :14] *= 1e-6
    write(tmp_path, broken)
    recordings, skipped = read(tmp_path)
    assert skipped[0].why == "the signal has shape (3000, 12), neither axis has the 17 channels"
    assert "it is in V, not in uV" in skipped[1].why
    assert len(recordings) == 2 * (VIDEOS - 2)


def test_a_lost_ecg_lead_and_nan_stretches_are_passed_on(tmp_path):
    made = person()
    made["joined_data"][0][:, 14:16] = np.nan
    made["joined_data"][1][10 * 128 : 14 * 128, :14] = np.nan
    write(tmp_path, made)
    recordings, skipped = read(tmp_path)
    assert not skipped
    lost, holed = (
        {one.t_end: one.present for one in iter_windows(recordings[i].chunks, spec(4.0), recordings[i].streams)}
        for i in (1, 3)
    )
    assert all(present["ecg"] == 0.0 for present in lost.values())
    assert lost[80.0]["eeg"] == 1.0
    assert holed[69.0]["eeg"] < 0.1


def overlong(content: bytes) -> bytes:
    """The file with 16 bytes too many inside each compressed part, as some files of AMIGOS have."""
    out, at = content[:128], 128
    while at < len(content):
        kind, length = struct.unpack_from("<II", content, at)
        piece = content[at + 8 : at + 8 + length]
        if kind == 15:
            piece = zlib.compress(zlib.decompress(piece) + bytes(16))
        out += struct.pack("<II", kind, len(piece)) + piece
        at += 8 + length
    return out


def test_a_file_whose_compressed_parts_are_too_long_is_read(tmp_path):
    path = write(tmp_path, person(), compressed=True)
    path.write_bytes(overlong(path.read_bytes()))
    assert len(read(tmp_path)[0]) == 2 * VIDEOS


def test_a_damaged_file_costs_that_person_only(tmp_path):
    path = write(tmp_path, person())
    path.write_bytes(path.read_bytes()[:100_000])
    write(tmp_path, person(2), 2)
    (tmp_path / "Data_Preprocessed_P03.mat").write_bytes(b"")
    savemat(tmp_path / "Data_Preprocessed_P04.mat", {"something": 1.0})
    assert amigos.parts(tmp_path) == ["01", "02", "03", "04"]
    for part, what in (("01", "cannot be read"), ("03", "cannot be read"), ("04", "no joined_data")):
        with pytest.raises(TrainingError, match=what) as caught:
            read(tmp_path, part)
        assert f"P{part}.mat" in str(caught.value)
        assert "\n" not in str(caught.value)
    assert len(read(tmp_path, "02")[0]) == 2 * VIDEOS


def test_the_digest_is_of_the_persons_own_file(tmp_path):
    write(tmp_path, person(1))
    write(tmp_path, person(2), 2)
    before = amigos.digest(tmp_path, "01"), amigos.digest(tmp_path, "02")
    write(tmp_path, person(3))
    assert amigos.digest(tmp_path, "01") != before[0]
    assert amigos.digest(tmp_path, "02") == before[1]

"""DREAMER, on a file made like the real one: structures in cells, offsets, no units, and what goes wrong in copies."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.io import savemat

from devices.api import Chunk
from models.api import WindowSpec
from offline_training.api import Recording, Skipped, TrainingError
from offline_training.datasets import dreamer
from offline_training.prepare import DEFAULT_GATE, prepare
from realtime.windows import iter_windows

CLIPS = 3
SECONDS = {"baseline": 61, "stimuli": 66}
EPOC = WindowSpec(
    inputs=dreamer.INPUTS,
    rate=200.0,
    seconds=10.0,
    hop=1.0,
)


def eeg(seconds: float, random: np.random.Generator) -> np.ndarray:
    """(M, 14) as Emotiv counts it: an offset of thousands, a rhythm, noise."""
    n = round(seconds * 128)
    wave = 12 * np.sin(2 * np.pi * 10 * np.arange(n) / 128)
    return 4200 + 30 * np.arange(14) + 8 * random.standard_normal((n, 14)) + wave[:, None] * random.uniform(0.3, 1, 14)


def ecg(seconds: float, random: np.random.Generator) -> np.ndarray:
    """(M, 2) as a 12-bit converter counts it: whole numbers about an offset, a beat 240 counts high."""
    time = np.arange(round(seconds * 256)) / 256
    to_beat = (1.1 * time) % 1.0 - 0.5
    beat = 240 * np.exp(-0.5 * (to_beat / 0.013) ** 2) + 35 * np.exp(-0.5 * ((to_beat - 0.27) / 0.05) ** 2)
    return np.round(2040 + np.stack([beat, 0.7 * beat], axis=1) + 2 * random.standard_normal((len(time), 2)))


def cells(values) -> np.ndarray:
    column = np.empty((len(values), 1), object)
    for row, value in enumerate(values):
        column[row, 0] = value
    return column


def person(seed: int) -> dict:
    random = np.random.default_rng(seed)
    return {
        "Age": "22",
        "Gender": "male",
        "EEG": {what: cells([eeg(seconds, random) for _ in range(CLIPS)]) for what, seconds in SECONDS.items()},
        "ECG": {what: cells([ecg(seconds, random) for _ in range(CLIPS)]) for what, seconds in SECONDS.items()},
        "ScoreValence": np.array([[4.0], [3.0], [5.0]]),
        "ScoreArousal": np.array([[3.0], [3.0], [4.0]]),
        "ScoreDominance": np.array([[2.0], [1.0], [4.0]]),
    }


def write(folder, people, **changed) -> None:
    top = {
        "Data": cells(people).T,
        "EEG_SamplingRate": 128.0,
        "ECG_SamplingRate": 256.0,
        "EEG_Electrodes": cells(dreamer.ELECTRODES).T,
        "noOfSubjects": float(len(people)),
        "noOfVideoSequences": float(CLIPS),
        "Disclaimer": "While every care has been taken",
        "Provider": "made up",
        "Version": "1.0.2",
        "Acknowledgement": "none",
        **changed,
    }
    savemat(folder / "DREAMER.mat", {"DREAMER": top})


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("dreamer")
    write(folder, [person(1), person(2)])
    return folder


def read(folder, part="01"):
    found = list(dreamer.recordings(folder, part))
    return [one for one in found if isinstance(one, Recording)], [one for one in found if isinstance(one, Skipped)]


def joined(recording, key):
    chunks = [chunk for chunk in recording.chunks if chunk.stream == key]
    return np.concatenate([chunk.times for chunk in chunks]), np.concatenate([chunk.data for chunk in chunks])


def test_each_clip_is_a_session_that_begins_with_its_own_minute_of_rest(folder):
    assert dreamer.parts(folder) == ["01", "02"]
    recordings, skipped = read(folder)
    assert not skipped
    assert [(one.session, one.phase, one.rest) for one in recordings[:4]] == [
        ("01-clip01", "neutral clip", True),
        ("01-clip01", "clip 1", False),
        ("01-clip02", "neutral clip", True),
        ("01-clip02", "clip 2", False),
    ]
    assert len(recordings) == 2 * CLIPS
    assert {one.person for one in recordings} == {"01"}
    rest, clip = recordings[:2]
    assert (rest.start, rest.stop, clip.start, clip.stop) == (0.0, 61.0, 70.0, 136.0)
    assert rest.targets == {}
    assert clip.targets == {"valence": 4.0, "arousal": 3.0, "dominance": 2.0}


def test_every_sample_comes_once_eeg_as_it_is_and_ecg_in_microvolts(folder):
    made = person(1)
    clip = read(folder)[0][1]
    chunks = list(clip.chunks)
    assert sorted(chunk.times[-1] for chunk in chunks) == [chunk.times[-1] for chunk in sorted(chunks, key=last)]
    for key, kind, scale in (("eeg", "EEG", 1.0), ("ecg", "ECG", dreamer.UV_PER_COUNT)):
        times, values = joined(read(folder)[0][1], key)
        assert values.dtype == np.float32
        assert values == pytest.approx(made[kind]["stimuli"][0, 0] * scale, rel=1e-5)
        assert times == pytest.approx(70.0 + np.arange(len(values)) / dreamer.RATES[kind])


def last(chunk: Chunk) -> float:
    return float(chunk.times[-1])


def test_windows_of_clip_and_baseline_are_good_in_spite_of_the_offsets(folder):
    recordings, _ = read(folder)
    prepared = prepare(recordings, EPOC, DEFAULT_GATE, dreamer.TARGETS[0])
    assert prepared.usable.all()
    assert prepared.baseline.sum() == 51 * CLIPS
    assert (prepared.scored & ~prepared.baseline).sum() >= 10 * CLIPS
    assert set(prepared.value[prepared.scored]) == {3.0, 4.0, 5.0}
    assert set(prepared.label[prepared.scored]) == {2, 3, 4}


@pytest.mark.parametrize("kind", ["EEG", "ECG"])
def test_a_channel_major_copy_gives_the_same_samples(tmp_path, folder, kind):
    turned = person(1)
    turned[kind]["stimuli"][0, 0] = turned[kind]["stimuli"][0, 0].T
    write(tmp_path, [turned])
    found, expected = read(tmp_path)[0][1], read(folder)[0][1]
    assert joined(found, kind.lower())[1].tobytes() == joined(expected, kind.lower())[1].tobytes()


def test_what_is_missing_or_impossible_is_named_and_the_rest_goes_on(tmp_path):
    broken = person(1)
    broken["ScoreValence"][0, 0] = np.nan
    broken["ScoreArousal"][0, 0] = 7.0
    broken["ScoreDominance"] = broken["ScoreDominance"][:2]
    broken["EEG"]["stimuli"][1, 0] = np.zeros((0, 0))
    broken["EEG"]["baseline"][2, 0] = np.ones((700, 9))
    broken["ECG"]["stimuli"][2, 0] = ecg(5.0, np.random.default_rng(3))
    write(tmp_path, [broken])
    recordings, skipped = read(tmp_path)
    said = {one.where.removeprefix("DREAMER.mat, person 01, "): one.why for one in skipped}
    assert said["clip 1"] in ("valence: the rating is NaN", "arousal: the rating is 7, expected 1 to 5")
    assert sorted(one.why for one in skipped if one.where.endswith("clip 1")) == [
        "arousal: the rating is 7, expected 1 to 5",
        "valence: the rating is NaN",
    ]
    assert said["clip 3"] == "dominance: the rating is missing"
    assert said["clip 2, stimuli"] == "the EEG is empty"
    assert said["clip 3, baseline"] == "the EEG has shape (700, 9), neither axis has the 14 channels"
    assert said["clip 3, stimuli"] == "the ECG lasts 5.0 s, at least 10 s are needed"
    assert [(one.phase, one.rest) for one in recordings] == [
        ("neutral clip", True),
        ("clip 1", False),
        ("neutral clip", True),
    ]
    assert recordings[1].targets == {"dominance": 2.0}


def test_a_clip_that_nobody_rated_is_left_out_with_its_baseline(tmp_path):
    silent = person(1)
    for name in ("ScoreValence", "ScoreArousal", "ScoreDominance"):
        silent[name][0, 0] = np.nan
    write(tmp_path, [silent])
    recordings, skipped = read(tmp_path)
    assert {one.session for one in recordings} == {"01-clip02", "01-clip03"}
    assert [one.where for one in skipped] == ["DREAMER.mat, person 01, clip 1"] * 3


@pytest.mark.parametrize(("factor", "unit"), [(1e-6, "V"), (1e-3, "mV")])
def test_eeg_in_other_units_is_refused_in_words(tmp_path, factor, unit):
    scaled = person(1)
    scaled["EEG"]["stimuli"][0, 0] = scaled["EEG"]["stimuli"][0, 0] * factor
    write(tmp_path, [scaled])
    recordings, skipped = read(tmp_path)
    assert len(recordings) == 2 * CLIPS - 1
    assert [one.where for one in skipped] == ["DREAMER.mat, person 01, clip 1, stimuli"]
    assert f"it is in {unit}, not in uV" in skipped[0].why


@pytest.mark.parametrize(("factor", "unit"), [(4.19e-6, "V"), (4.19e-3, "mV")])
def test_ecg_in_other_units_refuses_that_person_alone(tmp_path, factor, unit):
    scaled = person(1)
    for what in SECONDS:
        scaled["ECG"][what] = cells([one * factor for one in scaled["ECG"][what].ravel()])
    write(tmp_path, [scaled, person(2)])
    with pytest.raises(TrainingError, match=rf"person 01.*it is in {unit}") as caught:
        read(tmp_path)
    assert "\n" not in str(caught.value)
    assert len(read(tmp_path, "02")[0]) == 2 * CLIPS


def test_nan_stretches_are_passed_on_and_counted_as_missing_by_the_windows(tmp_path):
    holed = person(1)
    holed["EEG"]["stimuli"][0, 0][20 * 128 : 25 * 128] = np.nan
    write(tmp_path, [holed])
    clip = read(tmp_path)[0][1]
    present = {window.t_end: window.present["eeg"] for window in iter_windows(clip.chunks, EPOC, clip.streams)}
    assert present[85.0] > 0.85
    assert present[95.0] < 0.6
    assert present[115.0] == 1.0


def test_a_person_whose_entry_is_not_a_structure_costs_that_person_only(tmp_path):
    write(tmp_path, [np.zeros((2, 2)), person(2)])
    with pytest.raises(TrainingError, match="person 01"):
        read(tmp_path)
    assert len(read(tmp_path, "02")[0]) == 2 * CLIPS


def test_a_damaged_file_is_one_line(tmp_path, folder):
    whole = (folder / "DREAMER.mat").read_bytes()
    (tmp_path / "DREAMER.mat").write_bytes(whole[: len(whole) // 2])  # as a broken download leaves it
    with pytest.raises(TrainingError, match=r"DREAMER\.mat: cannot be read") as caught:
        dreamer.parts(tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "changed", [{"EEG_SamplingRate": 100.0}, {"EEG_Electrodes": cells(("AF3", "F7")).T}, {"Data": 3.0}]
)
def test_another_rate_other_electrodes_or_no_people_are_refused(tmp_path, changed):
    write(tmp_path, [person(1)], **changed)
    with pytest.raises(TrainingError, match="original file"):
        dreamer.parts(tmp_path)


def test_the_digest_changes_with_the_file(tmp_path):
    write(tmp_path, [person(1)])
    before = dreamer.digest(tmp_path, "01")
    write(tmp_path, [person(2)])
    assert dreamer.digest(tmp_path, "01") != before
    assert len(before) == 64

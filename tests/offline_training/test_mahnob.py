"""MAHNOB-HCI, on BDF files and session.xml made like the real ones."""

from __future__ import annotations

import numpy as np
import pytest

from models.api import InputSpec, WindowSpec
from models.montage import PUBLISHED
from offline_training.api import Recording, Skipped, TrainingError
from offline_training.datasets import mahnob
from offline_training.prepare import DEFAULT_GATE, prepare

RATE = 256
HEAD = (
    *("Fp1", "AF3", "F3", "F7", "FC5", "FC1", "C3", "T7", "CP5", "CP1", "P3", "P7", "PO3", "O1", "Oz", "Pz"),
    *("Fp2", "AF4", "Fz", "F4", "F8", "FC6", "FC2", "Cz", "C4", "T8", "CP6", "CP2", "P4", "P8", "PO4", "O2"),
)
LABELS = (*HEAD, *(f"EXG{i}" for i in range(1, 9)), "GSR1", "GSR2", "Erg1", "Erg2", "Resp", "Temp", "Status")
CLIP = 25
SPEC = WindowSpec(
    inputs=(InputSpec(kind="eeg", channels=PUBLISHED, min_channels=16), InputSpec(kind="ecg", channels=("ECG",))),
    rate=200.0,
    seconds=10.0,
    hop=1.0,
)
RATINGS = {"feltEmo": "4", "feltArsl": "6", "feltVlnc": "8", "feltCtrl": "5", "feltPred": "3"}


def signals(seed: int, seconds: int) -> np.ndarray:
    """(channels without Status, n) uV: a large common mode on everything, as BioSemi's raw channels have."""
    random = np.random.default_rng(seed)
    time = np.arange(seconds * RATE) / RATE
    common = 2000 + 150 * np.sin(2 * np.pi * 50 * time)
    phase = random.uniform(0, 6, (32, 1))
    brain = 4 * random.standard_normal((32, len(time))) + 12 * np.sin(2 * np.pi * 10 * time + phase)
    to_beat = (1.1 * time) % 1.0 - 0.5
    beat = np.exp(-0.5 * (to_beat / 0.015) ** 2) + 0.15 * np.exp(-0.5 * ((to_beat - 0.27) / 0.05) ** 2)
    others = np.zeros((14, len(time)))
    others[0], others[1], others[2] = -400 * beat, 300 * beat, 800 * beat
    return np.vstack([brain, others + 2 * random.standard_normal(others.shape)]) + common


def bdf(values: np.ndarray, triggers=(30, 30 + CLIP), unit="uV") -> bytes:
    """A BDF of records of 1 s; ``triggers`` (seconds) are in the lowest byte of Status, the amplifier's bits above."""
    count, n = len(LABELS), values.shape[1]
    status = np.full(n, 0x100000)
    for at in triggers:
        status[round(at * RATE) : round(at * RATE) + 50] += 16

    def column(texts, width):
        return "".join(f"{text:<{width}}"[:width] for text in texts)

    head = "".join(
        [
            *(f"{'made up':<80}", f"{'Startdate':<80}", "01.01.10", "12.00.00"),
            *(f"{256 * (count + 1):<8}", f"{'24BIT':<44}", f"{n // RATE:<8}", f"{1:<8}", f"{count:<4}"),
            column(LABELS, 16),
            column(["Active electrode"] * (count - 1) + ["Triggers and Status"], 80),
            column([unit] * (count - 1) + ["Boolean"], 8),
            column([-262144] * (count - 1) + [-8388608], 8),
            column([262143] * (count - 1) + [8388607], 8),
            column([-8388608] * count, 8),
            column([8388607] * count, 8),
            column(["DC 417 Hz"] * count, 80),
            column([RATE] * count, 8),
            column(["Reserved"] * count, 32),
        ]
    )
    digital = np.vstack([np.round(values * 32).astype(np.int64), status])
    records = digital.reshape(count, n // RATE, RATE).transpose(1, 0, 2)
    raw = records.astype("<i4").view(np.uint8).reshape(-1, 4)[:, :3]
    return b"\xffBIOSEMI" + head.encode("ascii") + np.ascontiguousarray(raw).tobytes()


def xml(person=1, **ratings) -> str:
    told = "".join(f' {name}="{value}"' for name, value in ratings.items())
    return (
        f'<?xml version="1.0" encoding="utf-8"?>\n<session xmlns:xsd="http://www.w3.org/2001/XMLSchema" sessionId="10"'
        f' isStim="1"{told} cutNr="1" cutLenSec="{CLIP}.0" mediaFile="69.avi">\n'
        f'  <subject id="{person}" gender="female" />\n  <track type="Physiological" />\n</session>'
    )


def write(folder, number=10, person=1, content=None, text=None):
    session = folder / "Sessions" / str(number)
    session.mkdir(parents=True)
    if content is None:
        content = bdf(signals(number, 60 + CLIP))
    path = session / f"Part_{person}_S_Trial{number // 2}_emotion.bdf"
    path.write_bytes(content)
    if text != "":
        (session / "session.xml").write_text(text or xml(person, **RATINGS), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("mahnob")
    write(folder, 130, person=2)
    write(folder, 10)
    return folder


def read(folder, part="10"):
    found = list(mahnob.recordings(folder, part))
    return [one for one in found if isinstance(one, Recording)], [one for one in found if isinstance(one, Skipped)]


def joined(recording, key):
    return np.concatenate([chunk.data for chunk in recording.chunks if chunk.stream == key])


def test_the_half_minute_before_the_clip_is_its_rest_and_the_one_after_it_is_left_out(folder):
    assert mahnob.parts(folder) == ["10", "130"]
    recordings, skipped = read(folder)
    assert not skipped
    rest, clip = recordings
    assert (rest.person, rest.session, rest.rest, rest.targets) == ("01", "01-10", True, {})
    assert (clip.person, clip.session, clip.rest) == ("01", "01-10", False)
    assert clip.targets == {"valence": 8.0, "arousal": 6.0, "dominance": 5.0}
    assert clip.phase == "clip 69.avi"
    assert (rest.start, rest.stop, clip.start, clip.stop) == (0.0, 30.0, 60.0, 60.0 + CLIP)
    assert read(folder, "130")[0][0].person == "02"


def test_samples_are_microvolts_without_what_all_electrodes_share(folder):
    made = signals(10, 60 + CLIP)[:, 30 * RATE : (30 + CLIP) * RATE]
    clip = read(folder)[0][1]
    assert clip.streams[0].channels == HEAD
    head = made[:32] - made[:32].mean(axis=0)
    assert joined(clip, "eeg") == pytest.approx(head.T, abs=0.05)
    assert joined(read(folder)[0][1], "ecg")[:, 0] == pytest.approx(made[34] - made[32], abs=0.1)
    times = np.concatenate([chunk.times for chunk in read(folder)[0][1].chunks if chunk.stream == "eeg"])
    assert times == pytest.approx(60.0 + np.arange(CLIP * RATE) / RATE)


def test_windows_are_good_and_the_rest_is_a_baseline(folder):
    prepared = prepare(read(folder)[0], SPEC, DEFAULT_GATE, mahnob.TARGETS[0])
    assert prepared.usable.all()
    assert prepared.baseline.sum() == 20
    assert prepared.t_end[prepared.scored].min() == 70.0


def test_a_file_that_goes_while_it_is_read_is_one_line_that_names_it(tmp_path):
    path = write(tmp_path)
    chunks = iter(read(tmp_path)[0][1].chunks)
    next(chunks)
    path.unlink()
    with pytest.raises(TrainingError, match=r"Trial5_emotion\.bdf: cannot be read"):
        list(chunks)


@pytest.mark.parametrize("triggers", [(), (30,), (5, 9, 12)])
def test_without_two_triggers_the_clip_lies_half_a_minute_from_either_end(tmp_path, triggers):
    write(tmp_path, content=bdf(signals(1, 60 + CLIP), triggers))
    rest, clip = read(tmp_path)[0]
    assert (rest.stop, clip.stop - clip.start) == (30.0, CLIP)


def test_triggers_say_where_the_clip_is(tmp_path):
    write(tmp_path, content=bdf(signals(1, 60 + CLIP), (28.5, 50.0)))
    rest, clip = read(tmp_path)[0]
    assert (rest.stop, clip.stop - clip.start) == (28.5, 21.5)


@pytest.mark.parametrize(
    ("text", "where", "why"),
    [
        ("", "/session.xml", "cannot be read (No such file or directory)"),
        ("<session", "/session.xml", "is no readable XML"),
        (
            '<!DOCTYPE s [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;&a;">]><session feltVlnc="&b;"/>',
            "/session.xml",
            "a DOCTYPE is not allowed",
        ),
        (xml(1), "/session.xml", "valence (feltVlnc): the rating is missing"),
        (
            xml(1, **(RATINGS | {"feltArsl": "12"})),
            "/session.xml",
            "arousal (feltArsl): the rating is 12, expected 1 to 9",
        ),
        (
            xml(1, **(RATINGS | {"feltCtrl": "five"})),
            "/session.xml",
            "dominance (feltCtrl): the rating 'five' is no number",
        ),
        (xml(2, **RATINGS), "", "session.xml says it is of person 02, the file is called Part_1_S_Trial5_emotion.bdf"),
        (xml("", **RATINGS), "", "session.xml says it is of person nobody"),
    ],
)
def test_what_session_xml_lacks_or_gets_wrong_is_named(tmp_path, text, where, why):
    write(tmp_path, text=text)
    recordings, skipped = read(tmp_path)
    assert skipped[0].where == f"Sessions/10{where}"
    assert why in skipped[0].why
    assert "\n" not in skipped[0].why
    rated = (
        0 if text in ("",) or "session.xml says" in why or "XML" in why or "DOCTYPE" in why or "missing" in why else 2
    )
    assert [len(one.targets) for one in recordings if not one.rest] == ([rated] if rated else [])


def test_a_folder_of_the_tagging_part_is_named_and_left_out(tmp_path):
    path = write(tmp_path)
    path.rename(path.with_name("Part_1_tagging.bdf"))
    assert read(tmp_path) == ([], [Skipped("Sessions/10", "no files Part_..._emotion.bdf, one is needed")])


def test_a_clip_that_is_too_short_or_not_in_microvolts_is_left_out(tmp_path):
    write(tmp_path, 10, content=bdf(signals(1, 65), ()))
    write(tmp_path, 12, content=bdf(signals(1, 60 + CLIP) / 1e3))
    assert read(tmp_path, "10")[1][0].why == "the clip lasts 5.0 s of 65.0 s"
    assert "it is in mV, not in uV" in read(tmp_path, "12")[1][0].why


def test_a_header_in_other_units_is_believed(tmp_path):
    write(tmp_path, content=bdf(signals(10, 60 + CLIP) / 1e3 * 1e3, unit="uV"))
    expected = joined(read(tmp_path)[0][1], "ecg")
    write(tmp_path, 12, content=bdf(signals(10, 60 + CLIP) / 1e3, unit="mV"))
    assert joined(read(tmp_path, "12")[0][1], "ecg") == pytest.approx(expected, abs=70.0)


def test_a_damaged_file_costs_that_part_only(tmp_path):
    whole = write(tmp_path, 10)
    content = whole.read_bytes()
    whole.write_bytes(content[: len(content) // 2])
    write(tmp_path, 12, content=b"")
    write(tmp_path, 14, content=content[:300])
    write(tmp_path, 16)
    for part, what in (("10", "cut off"), ("12", "cannot be read"), ("14", "cannot be read")):
        with pytest.raises(TrainingError, match=what) as caught:
            read(tmp_path, part)
        assert f"Sessions/{part}" in str(caught.value)
        assert "\n" not in str(caught.value)
    assert len(read(tmp_path, "16")[0]) == 2


def test_the_digest_is_of_the_file_and_its_ratings(folder, tmp_path):
    path = write(tmp_path)
    before = mahnob.digest(tmp_path, "10")
    assert before == mahnob.digest(folder, "10")
    (path.parent / "session.xml").write_text(xml(1, **(RATINGS | {"feltArsl": "2"})))
    assert mahnob.digest(tmp_path, "10") != before

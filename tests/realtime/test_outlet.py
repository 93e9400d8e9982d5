"""The estimate outlet, read back by a plain pylsl inlet in a process that knows nothing of insula."""

from __future__ import annotations

import json
import math
import subprocess
import sys
import time

import numpy as np
import pytest

from devices.lsl import lsl_clock
from models.api import Estimate
from realtime.api import BODY_COLUMNS, Body, Brain, Figure, ModelCard
from realtime.outlet import AffectOutlet, PhysiologyOutlet

READER = """
import json, sys
import pylsl

(info,) = pylsl.resolve_bypred(f"name='{sys.argv[1]}' and type='{sys.argv[3]}'", timeout=15)
inlet = pylsl.StreamInlet(info)
full = inlet.info(10)
inlet.open_stream(10)
print(full.as_xml().replace("\\n", " "), flush=True)
for _ in range(int(sys.argv[2])):
    sample, stamp = inlet.pull_sample(10)
    print(json.dumps([stamp + inlet.time_correction(5), sample]), flush=True)
print(json.dumps([full.get_channel_labels(), full.source_id(), full.nominal_srate()]))
"""
CARD = ModelCard(
    name="default",
    hash="0123456789abcdef",
    targets=("arousal", "valence"),
    meanings=("0 rest, 1 arithmetic", "-1 unpleasant, 1 pleasant"),
    kinds=("binary", "continuous"),
    ranges=((0.0, 1.0), (-1.0, 1.0)),
    levels=((), ()),
    seconds=10.0,
    hop=1.0,
    accuracy="balanced accuracy 0.84 [0.79, 0.88], 28 people",
    limits="rest against arithmetic <only>",
)


def estimate(t_end, withheld=None, quality=0.75, targets=("arousal", "valence")):
    mean, sd = np.array([0.25, -0.5]), np.array([0.125, 0.0625])
    return Estimate(
        t_end=t_end,
        targets=targets,
        mean=mean if withheld is None else np.full(2, np.nan),
        sd=sd if withheld is None else np.full(2, np.nan),
        present={"eeg": 1.0},
        quality=quality,
        withheld=withheld,
        used=() if withheld else ("ecg",),
    )


def test_another_program_reads_what_was_estimated_when_it_was():
    name = f"insula-test-{time.monotonic_ns()}"
    now = lsl_clock()
    with AffectOutlet(CARD, name=name) as outlet:
        command = [sys.executable, "-c", READER, name, "3", "Affect"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as reader:
            description = reader.stdout.readline()  # the reader is connected from here on
            outlet.push(estimate(now - 3.0))
            outlet.push(estimate(now - 2.0, withheld="resting baseline: 23 s left", quality=0.5))
            outlet.push(estimate(now - 1.0, withheld="EEG missing", quality=0.0))
            rows = [json.loads(line) for line in reader.stdout]
    *samples, (labels, source_id, rate) = rows
    np.testing.assert_allclose([stamp for stamp, _ in samples], now + np.array([-3.0, -2.0, -1.0]), atol=2e-3)
    assert samples[0][1] == [0.25, 0.125, -0.5, 0.0625, 0.75, 0.0, 1.0]
    assert np.isnan(samples[1][1][:4]).all()
    assert samples[1][1][4] == 0.5
    assert samples[2][1][4:] == [0.0, 0.0, 0.0]
    assert labels == ["arousal", "arousal_sd", "valence", "valence_sd", "quality", "used_eeg", "used_ecg"]
    assert rate == 0.0
    assert source_id.startswith("insula-affect-")
    for piece in (
        "<channel_format>double64</channel_format>",
        "<seconds>10</seconds>",
        "<hop>1</hop>",
        "<name>default</name>",
        "<hash>0123456789abcdef</hash>",
        "<meaning>-1 unpleasant, 1 pleasant</meaning>",
        "rest against arithmetic &lt;only&gt;",
        "Not a medical device",
    ):
        assert piece in description


def test_an_estimate_of_other_targets_is_refused():
    with AffectOutlet(CARD, name="insula-test-targets") as outlet, pytest.raises(ValueError, match="valence"):
        outlet.push(estimate(1.0, targets=("valence", "arousal")))


def test_another_program_reads_heart_and_rhythms_with_their_units():
    name = f"insula-test-{time.monotonic_ns()}"
    now = lsl_clock()
    none = np.zeros((1, 5), np.float32)
    brain = Brain(
        "cap", ("Cz",), none, none, none[0], none[0], ("",), np.arange(5.0), np.full(5, 0.2), 1.5, -1.1, 10.25,
        (("F4-F3", 0.25),), 1,
    )  # fmt: skip
    heart = {"HR": Figure(61.5, "bpm", 10.0), "RMSSD": Figure(42.0, "ms", 60.0, corrected=0.125)}
    heart |= {"QT": Figure(381.0, "ms", 17.0, beats=19), "PR": Figure(math.nan, "ms", 17.0, "P is seen in 4", beats=4)}
    with PhysiologyOutlet(name=name) as outlet:
        command = [sys.executable, "-c", READER, name, "2", "Physiology"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as reader:
            description = reader.stdout.readline()
            outlet.push(Body(now - 2.0, "ecg", heart, "", "", np.zeros((0, 3)), (brain,)))
            outlet.push(Body(now - 1.0, "", {}, "no ECG: no stream carries it", "", np.zeros((0, 3)), ()))
            rows = [json.loads(line) for line in reader.stdout]
    (first, values), (second, nothing), (labels, source_id, rate) = rows
    np.testing.assert_allclose([first, second], [now - 2.0, now - 1.0], atol=2e-3)
    assert labels == list(BODY_COLUMNS)
    read = dict(zip(labels, values, strict=True))
    expected = {"hr": 61.5, "rmssd": 42.0, "corrected": 12.5, "alpha": 2.0, "alpha_share": 20.0, "asymmetry": 0.25}
    expected |= {"qt": 381.0, "qt_beats": 19.0, "pr_beats": 4.0}
    assert {name: read[name] for name in expected} == expected
    assert np.isnan(read["pr"])
    assert (read["theta_beta"], read["alpha_peak"]) == (1.5, 10.25)
    assert np.isnan(read["sdnn"])
    assert np.isnan(nothing).all()
    assert rate == 0.0
    assert source_id.startswith("insula-physiology-")
    for piece in ("<unit>bpm</unit>", "<unit>uV^2</unit>", "Task Force 1996", "Not a medical device"):
        assert piece in description

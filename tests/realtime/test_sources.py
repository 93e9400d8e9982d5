"""Which stream feeds what: labels as real devices spell them, several candidates, units."""

from __future__ import annotations

import pytest

from devices.api import StreamInfo
from models.api import InputSpec, WindowSpec
from realtime.sources import choose, lacking

CHANNELS = ("FP1", "T3", "T4", "T5", "T6", "CZ")
SPEC = WindowSpec(
    inputs=(
        InputSpec(kind="eeg", channels=CHANNELS, min_channels=4),
        InputSpec(kind="ecg", channels=("ECG",)),
    )
)


def stream(key, kind, channels, rate=250.0, unit="uV"):
    return StreamInfo(key=key, kind=kind, channels=tuple(channels), rate=rate, unit=unit)


def test_columns_come_in_the_order_of_the_model_whatever_the_names():
    picked = choose([stream("cap", "eeg", ["Cz", "P8", "X", "T7", "EEG Fp1-REF", "T8", "P7"])], SPEC)["eeg"]
    assert picked.columns == (4, 3, 5, 6, 1, 0)
    assert picked.why == "EEG from cap: 6 of 6 channels at 250 Hz"


def test_channels_that_are_not_there_are_said():
    picked = choose([stream("cap", "eeg", ["Fp1", "T3", "T4", "Cz"])], SPEC)["eeg"]
    assert picked.columns == (0, 1, 2, -1, -1, 3)
    assert "without T5 T6" in picked.why


def test_too_few_channels_or_too_low_a_rate_are_refused_with_the_reason():
    few = [stream("cap", "eeg", ["Fp1", "T3", "O1"])]
    assert choose(few, SPEC) == {}
    assert lacking(few, SPEC) == {
        "eeg": "no EEG: cap has 2 of the model's channels, 4 are needed",
        "ecg": "no ECG: no stream carries it",
    }
    slow = [stream("cap", "eeg", CHANNELS, rate=0.0), stream("strap", "ecg", ["ecg"], rate=64.0)]
    assert choose(slow, SPEC) == {}
    assert lacking(slow, SPEC)["ecg"] == "no ECG: strap runs at 64 Hz, at least 100 are needed"
    assert choose([stream("cap", "eeg", CHANNELS, rate=float("nan"))], SPEC) == {}


def test_most_channels_win_then_the_rate_then_the_first():
    poor, slow, fast, late = (
        stream("poor", "eeg", CHANNELS[:5], rate=1000.0),
        stream("slow", "eeg", CHANNELS, rate=128.0),
        stream("fast", "eeg", CHANNELS, rate=500.0),
        stream("late", "eeg", CHANNELS, rate=500.0),
    )
    picked = choose([poor, slow, fast, late], SPEC)["eeg"]
    assert picked.stream == "fast"
    assert picked.why.endswith("; late, slow, poor left out: of equals the first is taken")
    assert choose([slow, fast, poor], SPEC)["eeg"].why.endswith("; slow, poor left out: the higher rate wins")
    assert choose([poor, slow], SPEC)["eeg"].why.endswith("; poor left out: most channels win")
    assert "late, slow, poor and 1 more left out" in choose([poor, slow, fast, late, poor], SPEC)["eeg"].why


@pytest.mark.parametrize("kind", ["", "unknown", "signal", "misc", "other", "data"])
def test_a_stream_whose_type_says_nothing_is_found_by_its_labels(kind):
    picked = choose([stream("pose", "acc", ["x", "y", "z"]), stream("amp", kind, [*CHANNELS, "ECG"])], SPEC)
    assert (picked["eeg"].stream, picked["eeg"].columns) == ("amp", (0, 1, 2, 3, 4, 5))
    assert (picked["ecg"].stream, picked["ecg"].columns) == ("amp", (6,))
    for one in picked.values():
        assert one.why.endswith(f" at 250 Hz, found by label only (its type is {kind or 'empty'})")


@pytest.mark.parametrize("kind", ["acc", "gyro", "ppg", "gaze", "audio", "markers"])
def test_a_stream_of_something_else_is_never_taken_whatever_its_labels(kind):
    assert choose([stream("other", kind, [*CHANNELS, "ECG"])], SPEC) == {}


def test_a_stream_whose_type_says_nothing_needs_labels_and_a_rate():
    assert choose([stream("amp", "signal", ["1", "2", "3", "4"])], SPEC) == {}
    assert choose([stream("amp", "signal", [*CHANNELS, "ECG"], rate=0.0)], SPEC) == {}
    few = [stream("amp", "signal", CHANNELS[:3])]
    assert lacking(few, SPEC)["eeg"] == "no EEG: amp has 3 of the model's channels, 4 are needed"


def test_a_stream_of_the_kind_itself_comes_before_one_found_by_labels():
    amp = stream("amp", "signal", [*CHANNELS, "ECG"], rate=1000.0)
    cap, strap = stream("cap", "eeg", CHANNELS[:4]), stream("strap", "ecg", ["ch1"], rate=130.0)
    picked = choose([amp, cap, strap], SPEC)
    assert (picked["eeg"].stream, picked["ecg"].stream) == ("cap", "strap")
    assert picked["eeg"].why.endswith("; amp left out: a stream of type EEG comes first")
    assert picked["ecg"].why == "ECG from strap: channel ch1 at 130 Hz; amp left out: a stream of type ECG comes first"


def test_an_ecg_channel_among_eeg_is_found_but_a_strap_comes_first():
    cap = stream("cap", "eeg", [*CHANNELS, "EKG"], rate=500.0)
    strap = stream("strap", "ecg", ["ch1"], rate=130.0)
    assert choose([cap], SPEC)["ecg"].columns == (6,)
    assert choose([cap, strap], SPEC)["ecg"].stream == "strap"
    assert choose([stream("bare", "eeg", CHANNELS)], SPEC).keys() == {"eeg"}


def test_a_strap_with_several_channels_gives_the_one_called_ecg():
    assert choose([stream("strap", "ecg", ["battery", "ECG"])], SPEC)["ecg"].columns == (1,)
    assert choose([stream("strap", "ecg", ["lead", "other"])], SPEC)["ecg"].columns == (0,)


def test_leads_of_a_model_with_several_are_found_by_name():
    spec = WindowSpec(inputs=(InputSpec(kind="ecg", channels=("I", "II", "V1")),))
    assert choose([stream("amp", "ecg", ["ECG V1", "II", "ECG I"])], spec)["ecg"].columns == (2, 1, 0)


@pytest.mark.parametrize(
    ("unit", "scale"), [("uV", 1), ("µV", 1), ("microvolts", 1), ("mV", 1e3), ("V", 1e6), ("0", 1e6), ("-6", 1)]
)
def test_units_are_brought_to_the_models(unit, scale):
    picked = choose([stream("cap", "eeg", CHANNELS, unit=unit)], SPEC)["eeg"]
    assert picked.scale == scale
    assert "unit" not in picked.why


def test_a_unit_that_is_not_known_is_taken_as_microvolts_and_said():
    assert choose([stream("cap", "eeg", CHANNELS, unit="")], SPEC)["eeg"].why.endswith("; no unit given, taken as uV")
    counts = choose([stream("cap", "eeg", CHANNELS, unit="counts")], SPEC)["eeg"]
    assert counts.scale == 1
    assert "unit 'counts' is unknown, taken as uV" in counts.why


def test_a_model_in_millivolts_gets_millivolts():
    spec = WindowSpec(inputs=(InputSpec(kind="ecg", channels=("ECG",), unit="mV"),))
    assert choose([stream("strap", "ecg", ["ecg"])], spec)["ecg"].scale == pytest.approx(1e-3)

"""Labels as people write them."""

from __future__ import annotations

import pytest

from models.electrodes import normalised


@pytest.mark.parametrize(
    ("label", "name"),
    [
        ("Fp1", "FP1"),
        ("EEG Fp1-REF", "FP1"),
        ("EEG FP1-LE", "FP1"),
        ("eeg cz", "CZ"),
        ("Cz-A1A2", "CZ"),
        ("Fc5.", "FC5"),
        ("T7", "T3"),
        ("P8", "T6"),
        ("EKG", "ECG"),
        ("ECG ECG", "ECG"),
        ("EEG A2-A1", "A2"),
        ("Fp1-F7", "FP1-F7"),
        ("ECG 1", "ECG"),
        ("ECG2", "ECG"),
        ("EKG-V2", "V2"),
        ("ECGX", "ECGX"),
        ("", ""),
        ("EEG", "EEG"),
    ],
)
def test_labels_are_read_as_people_write_them(label, name):
    assert normalised(label) == name

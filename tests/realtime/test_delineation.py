"""Waves and intervals of single beats, where a cardiologist puts them and where nothing can be known."""

from __future__ import annotations

import math

import numpy as np
import pytest

from realtime.delineation import Waves, delineate, qtc


def test_qt_is_corrected_by_the_formula_that_is_named():
    assert qtc(0.4, 1.0) == qtc(0.4, 1.0, "Bazett") == pytest.approx(0.4)
    assert qtc(0.32, 0.512) == pytest.approx(0.4)
    assert qtc(0.32, 0.64, "Bazett") == pytest.approx(0.4)
    with pytest.raises(ValueError, match="Hodges is no known correction of QT: Fridericia or Bazett"):
        qtc(0.4, 1.0, "Hodges")


def test_intervals_of_waves_that_are_not_seen_are_nan():
    waves = Waves(qrs_onset=1.0, qrs_offset=1.09, t_offset=1.4)
    assert math.isnan(waves.pr)
    assert waves.qrs == pytest.approx(0.09)
    assert waves.qt == pytest.approx(0.4)


@pytest.mark.parametrize("length", [7, 20, 60, 400])
@pytest.mark.parametrize("kind", ["noise", "flat", "step"])
def test_anything_can_be_delineated_without_an_error(length, kind):
    random = np.random.default_rng(length)
    samples = {"noise": random.standard_normal(length) * 100, "flat": np.zeros(length), "step": np.arange(length) > 3}
    for peak in range(3, length - 3, 5):
        waves = delineate(samples[kind].astype(float), 130.0, peak, 0.8, 0.8)
        assert waves.r_peak == peak / 130
        assert waves.qrs >= 0
        if kind == "flat":
            assert math.isnan(waves.p_peak)
            assert math.isnan(waves.t_peak)


def test_on_real_leads_most_onsets_and_offsets_are_near_those_of_cardiologists(shared_data):
    file = np.load(shared_data / "ludb" / "ludb_150_records_leads_I_II_500hz_int16_uV.npz")
    marks = {"p": "p", "N": "qrs", "t": "t"}
    errors: dict[str, list[float]] = {f"{wave}_{end}": [] for wave in marks.values() for end in ("onset", "offset")}
    for person in range(1, 151, 5):
        samples = file["data"][person - 1][:, 1].astype(float)
        at, symbols = file[f"{person}_ii_sample"].astype(int), file[f"{person}_ii_sym"]
        peaks = at[symbols == "N"]
        for i in range(1, len(peaks) - 1):
            before, after = (peaks[i] - peaks[i - 1]) / 500, (peaks[i + 1] - peaks[i]) / 500
            waves = delineate(samples, 500.0, int(peaks[i]), before, after)
            for k in range(1, len(at) - 1):
                if symbols[k] in marks and (symbols[k - 1], symbols[k + 1]) == ("(", ")"):
                    for end, sample in (("onset", at[k - 1]), ("offset", at[k + 1])):
                        error = getattr(waves, f"{marks[symbols[k]]}_{end}") - sample / 500
                        if abs(error) < 0.15:
                            errors[f"{marks[symbols[k]]}_{end}"].append(error)
    for name, limit in {
        "p_onset": 0.012,
        "p_offset": 0.012,
        "qrs_onset": 0.01,
        "qrs_offset": 0.012,
        "t_offset": 0.02,
    }.items():
        assert len(errors[name]) > 100
        assert np.median(np.abs(errors[name])) < limit, name

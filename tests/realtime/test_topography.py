"""A topographic map goes through what the electrodes show, and too few of them make none."""

from __future__ import annotations

import numpy as np
import pytest

from models.electrodes import on_map
from realtime.topography import SIZE, TopographyError, topography

CAP = (
    "Fp1",
    "Fp2",
    "F7",
    "F3",
    "Fz",
    "F4",
    "F8",
    "T7",
    "C3",
    "Cz",
    "C4",
    "T8",
    "P7",
    "P3",
    "Pz",
    "P4",
    "P8",
    "O1",
    "O2",
)
ALL = (True,) * len(CAP)


def at(made, field, place):
    """The value of the point of the map that is nearest to a place."""
    x, y = np.rint((np.asarray(place) / made.radius + 1) / 2 * (SIZE - 1)).astype(int)
    return field[x, y]


def test_the_map_shows_at_every_electrode_about_what_the_electrode_shows():
    made = topography(CAP, ALL)
    values = 10 + 5 * on_map(CAP)[:, 1] + 2 * on_map(CAP)[:, 0]
    field = made.field(values)
    assert [at(made, field, place) for place in made.places] == pytest.approx(values.tolist(), abs=0.2)
    assert np.nanmax(np.abs(made.field(np.full(len(CAP), 7.0)) - 7)) < 1e-6
    assert np.isnan(field[0, 0])


def test_what_is_strong_at_the_back_is_strong_at_the_back_of_the_map_and_left_is_left():
    made = topography(CAP, ALL)
    field = made.field(np.array([30.0 if name == "O1" else 1.0 for name in CAP]))
    x, y = np.unravel_index(np.nanargmax(field), field.shape)
    assert x < SIZE / 2
    assert y < SIZE / 4


def test_a_channel_that_is_not_usable_or_has_no_place_or_the_place_of_another_has_no_part_in_it():
    labels = (*CAP, "AUX1", "T3")
    usable = tuple(name != "Cz" for name in labels)
    made = topography(labels, usable)
    assert made.columns == tuple(row for row, name in enumerate(CAP) if name != "Cz")
    values = np.ones(len(labels))
    values[[CAP.index("Cz"), 19, 20]] = np.nan, 500.0, 500.0
    assert np.nanmax(np.abs(made.field(values) - 1)) < 1e-6


def test_electrodes_below_the_equator_are_on_the_map():
    made = topography((*CAP, "TP9", "TP10"), (*ALL, True, True))
    assert np.hypot(*made.places.T).max() < made.radius
    assert topography(CAP, ALL).radius < made.radius


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        (("Fp1", "Fp2", "C3", "C4", "O1"), "no map: 5 usable electrodes .* .Fp1, Fp2, C3, C4, O1., at least 6"),
        (("EXG 0", "EXG 1"), "no map: 0 usable electrodes with a place on the head .none."),
        ((), "no map: 0 usable"),
    ],
)
def test_too_few_electrodes_are_refused_in_words(labels, said):
    with pytest.raises(TopographyError, match=said):
        topography(labels, (True,) * len(labels))


def test_the_most_a_cap_can_have_makes_a_map_and_six_on_a_line_a_map_or_a_reason():
    from models.electrodes import DIRECTIONS

    names = tuple(DIRECTIONS)
    made = topography(names, (True,) * len(names))
    assert np.isfinite(made.field(np.random.default_rng(0).random(len(names)))).mean() > 0.7
    line = ("Fpz", "AFz", "Fz", "FCz", "Cz", "CPz", "Pz")
    try:
        assert np.isfinite(topography(line, (True,) * 7).field(np.ones(7))).any()
    except TopographyError as error:
        assert "line" in str(error)  # noqa: PT017

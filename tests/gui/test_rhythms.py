"""What is read of the brain's rhythms: four figures or why there is none, and the map of a band."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from PySide6.QtCore import QPointF, Qt
from PySide6.QtWidgets import QApplication

from gui import look
from gui.rhythms import FIGURES, SCALE
from models.api import Verdict
from realtime.api import BANDS, Cleared


def figures(bench) -> dict[str, str]:
    return {name: value.text() for name, (_, value) in bench.panel("body").brain.figures.items()}


def tell(bench, script, second=31, **changes) -> None:
    """A `Body` with such a brain."""
    bench.tell(script.body(second, brains=(replace(script.body(second).brains[0], **changes),)))


def choose(bench, band) -> None:
    view = bench.panel("body").brain.view
    view.setCurrentIndex(view.findData(band))
    bench.board.refresh()
    QApplication.processEvents()


@pytest.fixture
def script(bench, make_script):
    made = make_script()
    bench.play(made)
    return made


@pytest.fixture
def occipital(script):
    """Alpha of 4 uV^2 everywhere and of 40 at O1 and O2, in the order of the script's channels."""
    brain = script.body(31).brains[0]
    absolute = np.full((len(brain.labels), len(BANDS)), 1.0, np.float32)
    absolute[:, BANDS.index("alpha")] = [40.0 if name in ("O1", "O2") else 4.0 for name in brain.labels]
    return absolute


def test_every_figure_stands_with_its_unit_and_what_it_is_can_be_read(bench, script):
    assert figures(bench) == {
        "alpha peak": "10.2 Hz",
        "slope": "−1.02 (exponent of 1/f)",
        "θ/β": "1.5 (ratio of powers)",
        "asymmetry": "−0.25 ln alpha F4−F3",
    }
    for name, (title, value) in bench.panel("body").brain.figures.items():
        assert title.isVisible()
        assert value.isVisible()
        assert FIGURES[name] in value.toolTip()


def test_a_figure_that_is_not_given_says_why_in_its_place(bench, script):
    absent = {
        "slope": "8 good s of 30 are needed",
        "peak": "none of 7 to 13.5 Hz stands out",
        "theta_beta": "too slow a stream for beta",
        "asymmetry": "no pair such as F3/F4",
    }
    nothing = {"slope": math.nan, "peak": math.nan, "theta_beta": math.nan, "asymmetry": ()}
    tell(bench, script, **nothing, absent=absent)
    assert figures(bench) == {
        "alpha peak": "– none of 7 to 13.5 Hz stands out",
        "slope": "– 8 good s of 30 are needed",
        "θ/β": "– too slow a stream for beta",
        "asymmetry": "– no pair such as F3/F4",
    }
    tell(bench, script, reason="no samples for 3.0 s", shares=np.full(5, math.nan))
    assert set(figures(bench).values()) == {"–"}
    assert bench.panel("body").brain.source.text() == "no samples for 3.0 s"


def test_the_first_pair_that_is_valid_is_shown(bench, script):
    tell(bench, script, asymmetry=(("F4-F3", math.nan), ("F8-F7", 0.31)))
    assert figures(bench)["asymmetry"] == "+0.31 ln alpha F8−F7"


def test_the_map_of_a_band_is_chosen_with_the_keyboard(bench, script, occipital, qtbot):
    brain = bench.panel("body").brain
    assert brain.bars.isVisible()
    tell(bench, script, absolute=occipital)
    brain.view.setFocus()
    for _ in range(3):
        qtbot.keyClick(brain.view, Qt.Key.Key_Down)
    bench.board.refresh()
    assert brain.view.currentText() == "map of alpha"
    assert brain.map.area.isVisible()
    assert not brain.bars.isVisible()
    assert bench.sent == []
    image = brain.map.picture.image
    x, y = np.unravel_index(np.nanargmax(image), image.shape)
    assert y < 15  # the nape is below
    assert abs(x - 30) < 16
    assert tuple(brain.map.picture.levels) == (0.0, 40.0)
    assert [text.toPlainText() for text in brain.map.ends] == ["0", "40 µV²"]
    assert brain.source.text() == "most O1 40 µV², least Fp1 4.0, of 19"
    assert len(brain.map.dots.getData()[0]) == 19
    choose(bench, "")
    assert brain.bars.isVisible()
    assert brain.source.text() == "19 channels, last 4 s"


def test_the_map_is_drawn_bright_where_there_is_most_and_differs_in_brightness_not_only_in_hue(
    bench, script, occipital
):
    tell(bench, script, absolute=occipital)
    choose(bench, "alpha")
    area = bench.panel("body").brain.map.area
    view = bench.panel("body").brain.map.plot.getViewBox()
    picture = area.grab().toImage()

    def brightness(x, y):
        spot = area.mapFromScene(view.mapViewToScene(QPointF(x, y)))
        return picture.pixelColor(spot).lightnessF()

    assert brightness(0.1, -0.95) > brightness(0.1, 0.4) + 0.15
    lightness = [0.2126 * c.redF() + 0.7152 * c.greenF() + 0.0722 * c.blueF() for c in map(look.color, SCALE)]
    assert lightness == sorted(lightness)
    assert np.diff(lightness).min() > 0.1


def test_a_bad_channel_and_one_without_a_figure_stay_out_of_the_map(bench, script, occipital, make_script):
    occipital[5] = np.nan
    occipital[6] = 9000.0  # T3, which the model calls bad
    tell(bench, script, absolute=occipital)
    bench.tell(make_script(bad={"T3": Verdict("T3", 0.1, "amplitude 900 uV")}).estimated(31))
    choose(bench, "alpha")
    brain = bench.panel("body").brain
    assert brain.source.text() == "most O1 40 µV², least Fp1 4.0, of 17"
    assert brain.map.picture.levels[1] == 40.0


def test_too_few_electrodes_say_why_there_is_no_map(bench, script, occipital):
    choose(bench, "theta")
    rows = occipital[:5]
    tell(bench, script, labels=("Fp1", "Fp2", "C3", "C4", "AUX"), absolute=rows, relative=rows)
    brain = bench.panel("body").brain
    assert not brain.map.area.isVisible()
    assert brain.map.why.isVisible()
    assert brain.map.why.text() == (
        "no map: 4 usable electrodes with a place on the head (Fp1, Fp2, C3, C4), at least 6 are needed"
    )
    bench.tell(Cleared())
    assert brain.map.why.text() == "no rhythms yet"
    tell(bench, script, absolute=occipital)
    assert brain.map.area.isVisible()


def test_without_a_unit_the_map_is_of_shares(bench, script):
    tell(bench, script, absolute=np.full((19, 5), np.nan, np.float32))
    choose(bench, "alpha")
    assert bench.panel("body").brain.map.ends[1].toPlainText() == "50 %"


def test_the_scale_of_the_map_stays_while_it_fits(bench, script, occipital):
    tell(bench, script, absolute=occipital)
    choose(bench, "alpha")
    seen = []
    for factor in (1.0, 0.9, 0.55, 1.0, 1.2, 0.4):
        tell(bench, script, absolute=(factor * occipital).astype(np.float32))
        seen.append(bench.panel("body").brain.map.most)
    assert seen == pytest.approx([40, 40, 40, 40, 50, 20])
    choose(bench, "theta")
    assert bench.panel("body").brain.map.most < 1.0  # another band has a scale of its own


@pytest.mark.parametrize("size", [(1280, 800), (1920, 1080)])
def test_map_and_figures_fit(bench, script, occipital, size):
    bench.board.resize(*size)
    tell(bench, script, absolute=occipital)
    choose(bench, "alpha")
    bench.board.redraw()
    QApplication.processEvents()
    panel = bench.panel("body")
    assert (bench.board.width(), bench.board.height()) == size
    assert panel.brain.map.area.height() > 90
    assert bench.panel("traces").area.height() > 250
    nothing = {"slope": math.nan, "peak": math.nan, "theta_beta": math.nan, "asymmetry": ()}
    long = "8 s of samples took 9.1 s: not the 250 Hz it says"
    tell(bench, script, **nothing, absent={"peak": "none of 7 to 13.5 Hz stands out", "asymmetry": f"F3: {long}"})
    QApplication.processEvents()
    for _, value in panel.brain.figures.values():
        assert value.height() >= value.heightForWidth(value.width())
        assert value.mapTo(panel, value.rect().bottomLeft()).y() <= panel.height()

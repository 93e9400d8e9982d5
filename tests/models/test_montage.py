"""Any headset against the order of the published channels."""

from __future__ import annotations

import numpy as np
import pytest

from devices.api import StreamInfo
from models.api import InputSpec, ModelError, WindowSpec
from models.electrodes import DIRECTIONS, on_sphere
from models.montage import PUBLISHED, _mirrored, channel_order, columns, nearest_site
from realtime.sources import choose, lacking

MUSE = ("TP9", "AF7", "AF8", "TP10")
EMOTIV = ("AF3", "F7", "F3", "FC5", "T7", "P7", "O1", "O2", "P8", "T8", "FC6", "F4", "F8", "AF4")
ULTRACORTEX = ("Fp1", "Fp2", "C3", "C4", "P7", "P8", "O1", "O2")


def test_the_published_channels_in_any_spelling_and_order_come_in_the_published_order():
    spelt = [{"T3": "T7", "T4": "EEG T8-REF", "T5": "p7", "T6": "P8-A1"}.get(name, name) for name in PUBLISHED]
    shuffled = [spelt[i] for i in np.random.default_rng(1).permutation(len(spelt))]
    assert channel_order(shuffled) == PUBLISHED
    assert [shuffled[i] for i in columns(shuffled, PUBLISHED)] == spelt


@pytest.mark.parametrize(
    ("headset", "order"),
    [
        (MUSE, ("AF7", "AF8", "TP9", "TP10")),
        (EMOTIV, ["AF3", "AF4", "F3", "F4", "O1", "O2", "F7", "FC5", "F8", "FC6", "T3", "T4", "T5", "T6"]),
        (ULTRACORTEX, ("FP1", "FP2", "C3", "C4", "O1", "O2", "T5", "T6")),
    ],
    ids=["Muse", "Emotiv EPOC", "8 channels"],
)
def test_a_headset_has_the_order_of_the_sites_it_is_nearest_to(headset, order):
    assert channel_order(headset) == tuple(order)
    assert channel_order(headset[::-1]) == tuple(order)


def test_a_model_of_another_headset_is_fed_with_its_own_channels_only_and_never_with_neighbours():
    assert columns(MUSE, PUBLISHED) == (-1,) * 19
    named = [name for name, column in zip(PUBLISHED, columns(EMOTIV, PUBLISHED), strict=True) if column >= 0]
    assert named == ["F3", "F4", "O1", "O2", "F7", "F8", "T3", "T4", "T5", "T6"]
    assert columns(["T7", "T3"], ["T3"]) == (0,)


@pytest.mark.parametrize(("headset", "count"), [(EMOTIV, 10), (ULTRACORTEX, 8), (MUSE, 0)])
def test_a_model_of_19_says_what_it_lacks_and_a_model_for_the_headset_takes_it(headset, count):
    stream = StreamInfo(key="band", kind="eeg", channels=headset, rate=256.0, unit="uV")

    def spec(channels, least):
        return WindowSpec(inputs=(InputSpec(kind="eeg", channels=tuple(channels), min_channels=least),))

    said = f"no EEG: band has {count} of the model's channels, 16 are needed"
    assert lacking([stream], spec(PUBLISHED, 16)) == {"eeg": said}
    if count:
        assert choose([stream], spec(PUBLISHED, count))["eeg"].columns.count(-1) == 19 - count
    own = channel_order(headset)
    assert sorted(choose([stream], spec(own, len(own)))["eeg"].columns) == list(range(len(headset)))


def test_every_site_is_nearest_to_itself():
    assert [nearest_site(site) for site in PUBLISHED] == [(site, 0.0) for site in PUBLISHED]


def test_left_and_right_are_treated_alike():
    for name in DIRECTIONS:
        site, angle = nearest_site(name)
        other, same = nearest_site(_mirrored(name))
        assert same == angle
        # On the midline a tie between left and right goes to the first in the published order.
        assert other == (_mirrored(site) if _mirrored(name) != name else site)


def test_the_nearest_site_is_the_one_that_positions_say_wherever_the_asymmetry_of_a_head_does_not_decide():
    sites = on_sphere(PUBLISHED)
    for name in DIRECTIONS:
        angles = np.degrees(np.arccos(np.clip(sites @ on_sphere([name])[0], -1, 1)))
        first, second = np.sort(angles)[:2]
        if second - first > 3:
            assert nearest_site(name)[0] == PUBLISHED[int(angles.argmin())]


def test_ties_go_to_the_first_published_site_and_of_one_site_the_nearest_comes_first():
    assert [nearest_site(label)[0] for label in ("Oz", "FPz")] == ["O1", "FP1"]
    order = channel_order(["FPz", "AF7", "Fp1", "Fp2"])
    assert order[:1] == ("FP1",)
    assert order[-1:] == ("FP2",)
    assert sorted(order[1:3], key=lambda label: nearest_site(label)[1]) == list(order[1:3])


def test_what_names_no_place_is_left_out_and_nothing_at_all_is_said():
    assert channel_order(["Fp1", "AUX1", "ACC X", "FP1"]) == ("FP1",)
    with pytest.raises(ModelError, match="EXG Channel 0, EXG Channel 1; name the channels by their place"):
        channel_order(["EXG Channel 0", "EXG Channel 1"])

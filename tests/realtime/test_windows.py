"""The law of the one path: however a recording is cut and interleaved, its windows are the same to the last bit."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from devices.api import Chunk, End, Events, Rewind, StreamInfo, Tick
from models.api import InputSpec, WindowSpec
from realtime.windows import Windower, iter_windows

CHANNELS = ("FP1", "CZ", "O2")
SPEC = WindowSpec(
    inputs=(
        InputSpec(kind="eeg", channels=CHANNELS, notch=(50.0,)),
        InputSpec(kind="ecg", channels=("ECG",), unit="mV", band=(0.5, 40.0)),
    ),
    seconds=2.0,
    hop=0.5,
)
EEG = StreamInfo(key="cap", kind="eeg", channels=("Fp1", "Cz", "EEG O2-REF"), rate=250.0, unit="uV")
ECG = StreamInfo(key="strap/ecg", kind="ecg", channels=("",), rate=130.0, unit="uV")


def recording(stream, seconds, *, start=1000.2, seed=0, holes=(), jitter=0.0, bad=0.0, offset=0.0):
    """One chunk of noise around waves, (n, channels), with holes (from, to) and a share of NaN."""
    rng = np.random.default_rng(seed)
    n = round(seconds * stream.rate)
    times = start + np.arange(n) / stream.rate + jitter * rng.uniform(-0.4, 0.4, n) / stream.rate
    waves = np.sin(2 * np.pi * (10 + np.arange(len(stream.channels))) * times[:, None])
    samples = (offset + 30 * waves + 5 * rng.standard_normal((n, len(stream.channels)))).astype(np.float32)
    samples[rng.random(samples.shape) < bad] = np.nan
    keep = np.ones(n, np.bool_)
    for first, last in holes:
        keep &= (times < start + first) | (times >= start + last)
    return Chunk(stream.key, times[keep], samples[keep])


def pieces(chunk, cuts, lost_at=None):
    """The chunk cut before each of the row numbers ``cuts``; before row ``lost_at`` it says that 3 are lost."""
    edges = sorted({0, len(chunk.times), *(c for c in cuts if c < len(chunk.times)), *([lost_at] if lost_at else [])})
    return [
        Chunk(chunk.stream, chunk.times[a:b], chunk.data[a:b], lost=3 if a == lost_at else 0)
        for a, b in pairwise(edges)
    ]


def bits(windows):
    """Everything a window says, in a form that compares to the last bit."""
    return [
        (
            w.t_end,
            w.seconds,
            {kind: (x.shape, x.dtype.str, x.tobytes()) for kind, x in w.signals.items()},
            dict(w.present),
            dict(w.quality),
        )
        for w in windows
    ]


def run(windower, items):
    windows = []
    for item in items:
        windows += windower.push(item) if isinstance(item, Chunk) else windower.tick(item.time)
    return windows + windower.finish()


@pytest.fixture(scope="module")
def faulty():
    """Seven seconds with holes short and long, NaN, jitter, lost samples and stamps out of order."""
    eeg = recording(EEG, 7, holes=((1.3, 1.34), (3.0, 3.6)), jitter=1.0, bad=0.01, offset=4200)
    eeg.times[600:603] = np.nan, eeg.times[590], 1e300
    eeg.data[900:1000, 1] = 17.0
    ecg = recording(ECG, 7.3, start=1000.0, seed=1, holes=((5.0, 5.09),), bad=0.01)
    whole = pieces(eeg, (), lost_at=700) + pieces(ecg, (), lost_at=400)
    return eeg, ecg, bits(run(Windower(SPEC, [EEG, ECG]), whole))


@settings(deadline=None, max_examples=60)
@given(
    eeg_cuts=st.lists(st.integers(1, 1750), max_size=60),
    ecg_cuts=st.lists(st.integers(1, 950), max_size=60),
    order=st.randoms(use_true_random=False),
)
def test_any_chunking_and_interleaving_gives_the_same_bits(faulty, eeg_cuts, ecg_cuts, order):
    eeg, ecg, expected = faulty
    queues = [pieces(eeg, eeg_cuts, lost_at=700), pieces(ecg, ecg_cuts, lost_at=400)]
    items = []
    while any(queues):
        items.append(order.choice([queue for queue in queues if queue]).pop(0))
    assert len(expected) == 11
    assert bits(run(Windower(SPEC, [EEG, ECG]), items)) == expected


@pytest.mark.parametrize("size", [1, 3, 7, 9])
def test_after_an_outage_all_that_comes_is_taken_however_it_is_cut_and_the_windows_are_the_same_bits(size):
    """The first samples after more than 5 s wait until enough of them agree, and then count like the others."""
    eeg = recording(EEG, 20, holes=((4.0, 12.0),))
    cut = Windower(SPEC, [EEG])
    assert bits(run(cut, pieces(eeg, range(size, len(eeg.times), size)))) == bits(run(Windower(SPEC, [EEG]), [eeg]))
    counters = cut.counters["cap"]
    assert (counters.samples, counters.refused, counters.gaps) == (len(eeg.times), 0, 1)


def test_samples_one_by_one_give_the_same_bits(faulty):
    eeg, ecg, expected = faulty
    items = pieces(eeg, range(len(eeg.times)), lost_at=700) + pieces(ecg, range(len(ecg.times)), lost_at=400)
    assert bits(run(Windower(SPEC, [EEG, ECG]), items)) == expected


def test_read_only_strided_and_double_chunks_give_the_same_bits(faulty):
    eeg, ecg, expected = faulty
    wide = np.asfortranarray(eeg.data.astype(np.float64))
    wide.flags.writeable = False
    items = [*pieces(Chunk(EEG.key, eeg.times, wide), (33, 999), lost_at=700), *pieces(ecg, (), lost_at=400)]
    assert bits(run(Windower(SPEC, [EEG, ECG]), items)) == expected


def test_after_a_reset_a_windower_is_as_new(faulty):
    eeg, ecg, expected = faulty
    windower = Windower(SPEC, [EEG, ECG])
    run(windower, [recording(EEG, 9, start=5000.0, seed=7), recording(ECG, 3, start=5000.0, seed=8)])
    windower.reset()
    assert bits(run(windower, pieces(eeg, (), lost_at=700) + pieces(ecg, (), lost_at=400))) == expected


def test_items_of_a_device_give_the_windows_of_the_windower(faulty):
    eeg, ecg, expected = faulty
    items = [
        recording(EEG, 5, start=900.0),
        Rewind(),
        *pieces(eeg, (500,), lost_at=700),
        Events("marks", np.array([1001.0]), ("task",)),
        Tick(1001.0),
        *pieces(ecg, (), lost_at=400),
        End(),
        recording(EEG, 5, start=1100.0),
    ]
    assert bits(iter_windows(items, SPEC, [EEG, ECG])) == expected


@pytest.mark.parametrize("rate", [100.0, 128.0, 130.0, 250.0, 256.0, 500.0, 1000.0])
def test_a_wave_keeps_its_phase_and_amplitude_at_any_rate(rate):
    stream = StreamInfo(key="cap", kind="eeg", channels=CHANNELS, rate=rate, unit="uV")
    spec = WindowSpec(inputs=(InputSpec(kind="eeg", channels=CHANNELS),), seconds=4.0)
    times = 50.0 + np.arange(round(12 * rate)) / rate
    data = np.repeat(1000 + 40 * np.cos(2 * np.pi * 10 * times)[:, None], 3, 1).astype(np.float32)
    windower = Windower(spec, [stream])
    window = run(windower, [Chunk("cap", times, data)])[-1]
    grid = window.t_end - 4 + np.arange(800) / 200
    turn = 2 * np.mean(window.signals["eeg"][0] * np.exp(-2j * np.pi * 10 * grid))
    assert abs(turn) == pytest.approx(40, rel=0.01)
    # The filter turns the phase by what its own frequency response says and nothing else does: the same at any rate,
    # but for the bilinear transform's bend near a low rate's Nyquist frequency.
    response = frequency_response(windower, "eeg", 10.0)
    assert np.angle(turn / response) == pytest.approx(0, abs=2e-3)


def frequency_response(windower, kind, frequency):
    from scipy.signal import freqz_sos

    chain = windower._lanes[kind].filter
    return freqz_sos(chain.sos, [frequency], fs=chain.rate)[1][0]


def test_a_kind_without_a_stream_is_zeros_and_not_waited_for():
    windows = run(Windower(SPEC, [EEG]), [recording(EEG, 5)])
    assert [w.t_end for w in windows] == [1002.5, 1003.0, 1003.5, 1004.0, 1004.5, 1005.0]
    assert not windows[0].signals["ecg"].any()
    assert windows[0].signals["ecg"].shape == (1, 400)
    assert windows[0].present["ecg"] == 0
    assert windows[0].quality["ecg"][0].reason == "absent"


def test_absent_channels_are_zero_and_count_as_not_measured():
    stream = StreamInfo(key="cap", kind="eeg", channels=("O2", "Fp1"), rate=250.0, unit="uV")
    window = run(Windower(SPEC, [stream]), [recording(stream, 6)])[-1]
    assert window.present["eeg"] == pytest.approx(2 / 3)
    assert not window.signals["eeg"][1].any()
    assert [v.reason for v in window.quality["eeg"]] == ["", "absent", ""]


def test_the_first_window_lies_wholly_after_the_first_sample():
    spec = WindowSpec(inputs=SPEC.inputs[:1], seconds=2.0, hop=0.5)
    assert run(Windower(spec, [EEG]), [recording(EEG, 5, start=1000.0)])[0].t_end == 1002.0
    assert run(Windower(spec, [EEG]), [recording(EEG, 5, start=1000.004)])[0].t_end == 1002.5


def test_a_long_hole_is_zeros_and_the_filter_starts_anew_after_it():
    eeg = recording(EEG, 12, start=1000.0, holes=((4.0, 7.0),), offset=4200)
    windows = {w.t_end: w for w in run(Windower(SPEC, [EEG]), [eeg])}
    assert windows[7.0 + 1000].present["eeg"] == 0
    assert not windows[7.0 + 1000].signals["eeg"].any()
    assert windows[1000 + 7.0].quality["eeg"][0].reason == "missing"
    assert windows[1000 + 8.0].present["eeg"] == pytest.approx(0, abs=0.01)  # the first second settles
    assert windows[1000 + 10.0].present["eeg"] == 1
    # No step from before the hole, none from the offset of 4200 uV.
    assert max(np.abs(w.signals["eeg"]).max() for w in windows.values()) < 70


def test_a_tick_cuts_what_is_overdue_and_nothing_else():
    windower = Windower(SPEC, [EEG, ECG], grace=1.0)
    eeg, ecg = recording(EEG, 4, start=1000.0), recording(ECG, 2.5, start=1000.0)
    cut = windower.push(eeg) + windower.push(ecg)
    assert [w.t_end for w in cut] == [1002.0]
    assert windower.tick(1002.5 + windower.grace) == []
    late = windower.tick(1003.0 + windower.grace + 1e-6)
    assert [w.t_end for w in late] == [1002.5, 1003.0]
    assert late[1].present["eeg"] == pytest.approx(1)
    assert late[1].present["ecg"] == pytest.approx(0.7, abs=0.05)


def test_late_samples_are_in_the_windows_that_follow():
    windower = Windower(SPEC, [EEG, ECG])
    ecg = recording(ECG, 8, start=1000.0)
    windower.push(recording(EEG, 8, start=1000.0))
    windower.push(Chunk(ECG.key, ecg.times[:400], ecg.data[:400]))
    assert windower.tick(1004.0 + windower.grace + 0.1)[-1].present["ecg"] < 0.6
    after = windower.push(Chunk(ECG.key, ecg.times[400:], ecg.data[400:]))
    assert after[0].t_end == 1004.5
    assert after[0].present["ecg"] == 1


def test_the_same_ticks_at_the_same_place_give_the_same_bits():
    eeg, ecg = recording(EEG, 6, start=1000.0), recording(ECG, 6, start=1000.0)
    head, tail = pieces(ecg, (300,))
    items = [eeg, head, Tick(1003.6), tail]
    idle = [Tick(0.0), eeg, Tick(1002.3), head, Tick(1003.5), Tick(1003.6), Tick(1003.6), tail, Tick(float("nan"))]
    first, second = (Windower(SPEC, [EEG, ECG], grace=0.4) for _ in range(2))
    assert bits(run(first, items)) == bits(run(second, idle))


def test_ticks_go_on_in_silence_and_a_suspended_hour_is_no_flood():
    windower = Windower(SPEC, [EEG, ECG])
    assert windower.tick(1e6) == []  # nothing has ever come
    windower.push(recording(EEG, 4, start=1000.0))
    cut = [w for i in range(100) for w in windower.tick(1004.0 + 0.25 * i)]
    assert np.allclose(np.diff([w.t_end for w in cut]), 0.5)
    assert cut[-1].present == {"eeg": 0, "ecg": 0}
    flood = windower.tick(4604.0)
    assert len(flood) == 60
    assert windower.skipped > 7000
    assert windower.tick(4604.5)[0].t_end == 4603.0


def test_a_hole_of_days_costs_neither_windows_nor_memory():
    eeg = recording(EEG, 10, start=1000.0)
    eeg.times[1250:] += 200_000
    windower = Windower(SPEC, [EEG])
    windows = run(windower, [eeg])
    assert len(windows) < 100
    assert windows[-1].t_end > 201_000
    assert windows[-1].present["eeg"] == 1
    assert windower.skipped > 390_000


def test_a_whole_recording_may_come_stream_by_stream():
    eeg, ecg = recording(EEG, 100, start=1000.0), recording(ECG, 100, start=1000.0)
    apart = run(Windower(SPEC, [EEG, ECG]), [eeg, ecg])
    together = run(
        Windower(SPEC, [EEG, ECG]),
        [
            c
            for pair in zip(pieces(eeg, range(0, 25000, 2500)), pieces(ecg, range(0, 13000, 1300)), strict=True)
            for c in pair
        ],
    )
    assert len(apart) == 196
    assert bits(apart) == bits(together)


def test_an_ecg_channel_of_the_eeg_amplifier_feeds_both_kinds():
    stream = StreamInfo(key="amp", kind="eeg", channels=("Fp1", "EKG", "Cz", "O2"), rate=500.0, unit="uV")
    windower = Windower(SPEC, [stream])
    window = run(windower, [recording(stream, 6)])[-1]
    assert window.present == {"eeg": 1, "ecg": 1}
    assert {p.stream for p in windower.picked.values()} == {"amp"}
    assert windower.counters["amp"].samples == 3000


def test_losses_are_counted():
    eeg = recording(EEG, 6, holes=((2.0, 4.0),))
    eeg.times[10] = np.nan
    eeg.times[20] = eeg.times[19]
    windower = Windower(SPEC, [EEG])
    run(windower, pieces(eeg, (), lost_at=100))
    counters = windower.counters["cap"]
    assert (counters.samples, counters.refused, counters.lost, counters.gaps) == (998, 2, 3, 2)
    assert windower.newest("eeg") == eeg.times[-1]
    assert np.isnan(windower.newest("ecg"))


def test_a_chunk_of_the_wrong_shape_is_refused_in_words():
    with pytest.raises(ValueError, match="cap: 5 stamps of 3 channels"):
        Windower(SPEC, [EEG]).push(Chunk("cap", np.arange(5.0), np.zeros((5, 2), np.float32)))


def test_nothing_is_compiled_once_a_windower_is_made(faulty):
    from realtime import filters, intake, quality, resample, ring, windows

    kernels = [
        intake._admit,
        intake._pick,
        filters._filter,
        resample._resample,
        ring._write,
        windows._place,
        quality._measure,
    ]
    windower = Windower(SPEC, [EEG, ECG])
    before = [len(kernel.signatures) for kernel in kernels]
    assert all(before)
    eeg, ecg, _ = faulty
    locked = Chunk(EEG.key, eeg.times.copy(), np.asfortranarray(eeg.data))
    locked.times.flags.writeable = locked.data.flags.writeable = False
    run(windower, [locked, *pieces(ecg, (1, 2, 500)), Tick(2000.0)])
    assert [len(kernel.signatures) for kernel in kernels] == before


@pytest.mark.parametrize("now", [float("inf"), float("-inf"), float("nan"), 1e300, -1e300])
def test_a_clock_that_is_no_time_cuts_nothing(now):
    windower = Windower(SPEC, [EEG])
    windower.push(recording(EEG, 5))
    assert windower.tick(now) == []


@pytest.mark.parametrize("start", [-30.0, 0.0, 3.3e5, 1.8e9])
def test_windows_lie_on_whole_hops_of_any_clock(start):
    windows = run(Windower(SPEC, [EEG]), [recording(EEG, 6, start=start)])
    assert [w.t_end - start for w in windows] == pytest.approx([2, 2.5, 3, 3.5, 4, 4.5, 5, 5.5][: len(windows)])
    assert len(windows) == 8
    assert windows[-1].present["eeg"] == 1

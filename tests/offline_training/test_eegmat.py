"""The data set reader and the windows made of it, on a file like the real one and on the real one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import models
from devices.api import Chunk
from models.bundle import load_bundle
from models.model import Model
from offline_training import shards
from offline_training.api import TrainingError
from offline_training.datasets import eegmat
from offline_training.datasets.eegmat import TARGET
from offline_training.prepare import DEFAULT_GATE, DEFAULT_SPEC, prepare
from realtime.windows import iter_windows


@pytest.fixture
def folder(tmp_path, write_archive):
    write_archive(tmp_path / "eegmat", people=2, rest=100, load=30)
    return tmp_path


def test_rest_comes_before_arithmetic_of_every_person_on_one_clock(folder):
    found = list(eegmat.everyone(folder))
    assert [(one.person, one.phase, one.rest, one.targets["arousal"]) for one in found] == [
        ("00", "rest", True, 0.0),
        ("00", "mental arithmetic", False, 1.0),
        ("01", "rest", True, 0.0),
        ("01", "mental arithmetic", False, 1.0),
    ]
    assert found[0].session == found[1].session != found[2].session
    assert found[1].start >= found[0].stop + eegmat.PAUSE


def test_chunks_hold_every_sample_once_in_microvolts_without_the_ear_channel(folder):
    recording = next(eegmat.everyone(folder))
    with np.load(eegmat.archive(folder)) as stored:
        counts, names = stored["Subject00_1"], [str(name) for name in stored["channels"]]
    eeg, ecg = recording.streams
    assert "A2-A1" not in eeg.channels
    assert len(eeg.channels) == 19
    for stream in (eeg, ecg):
        parts = [chunk for chunk in recording.chunks if chunk.stream == stream.key]
        times = np.concatenate([chunk.times for chunk in parts])
        assert times == pytest.approx(np.arange(counts.shape[1]) / 128.0)
        rows = [names.index(name) for name in stream.channels]
        assert np.concatenate([chunk.data for chunk in parts]) == pytest.approx(counts[rows].T * 0.1, abs=1e-3)


def test_a_folder_without_the_archive_is_refused_in_words(tmp_path):
    with pytest.raises(TrainingError, match=r"no eegmat_28_people"):
        next(eegmat.everyone(tmp_path))


def test_training_windows_are_the_live_windows_to_the_last_bit(folder):
    recordings = list(eegmat.everyone(folder))
    prepared = prepare(recordings, DEFAULT_SPEC, DEFAULT_GATE, TARGET)
    rest = recordings[0]
    whole = [
        Chunk(
            stream.key,
            np.concatenate([chunk.times for chunk in rest.chunks if chunk.stream == stream.key]),
            np.concatenate([chunk.data for chunk in rest.chunks if chunk.stream == stream.key]),
        )
        for stream in rest.streams
    ]
    live = {window.t_end: window for window in iter_windows(whole, DEFAULT_SPEC, rest.streams)}
    rows = np.flatnonzero((prepared.person == "00") & (prepared.label == 0))
    assert len(rows) > 60
    for row in rows:
        for kind in ("eeg", "ecg"):
            assert np.array_equal(prepared.signals[kind][row], live[prepared.t_end[row]].signals[kind])


def test_a_bad_channel_is_trained_on_as_the_live_model_feeds_it_to_the_network(folder):
    def broken(recording):
        def change(chunk):
            if chunk.stream != "eeg":
                return chunk
            data = chunk.data.copy()
            data[:, 4] = np.random.default_rng(int(chunk.times[0] * 128)).normal(0, 400, len(data))
            return replace(chunk, data=data)

        return replace(recording, chunks=tuple(change(chunk) for chunk in recording.chunks))

    recordings = [broken(recording) for recording in eegmat.everyone(folder)][:1]
    prepared = prepare(recordings, DEFAULT_SPEC, DEFAULT_GATE, TARGET)
    default = load_bundle(Path(models.__path__[0]) / "bundles" / "default")
    fed = {}

    def listening(inputs):
        fed[len(fed)] = inputs["eeg"][0]
        return {
            "logit": np.zeros((1, 1), np.float32),
            "embedding": np.zeros((1, default.manifest.embedding_dim), np.float32),
        }

    model = Model(default, listening)
    bad = DEFAULT_SPEC.inputs[0].channels.index("F7")
    for window in iter_windows(recordings[0].chunks, default.manifest.window, recordings[0].streams):
        before = len(fed)
        model.update(window)
        rows = np.flatnonzero(prepared.t_end == window.t_end)
        if window.t_end <= 60:
            assert window.quality["eeg"][bad].level == "bad"
            assert len(fed) > before
            assert np.array_equal(fed[before], prepared.signals["eeg"][rows[0]])
            assert not np.array_equal(fed[before][bad], window.signals["eeg"][bad])
    assert len(fed) > 40


def test_no_window_that_counts_shares_a_sample_with_the_resting_baseline_or_straddles_the_recordings(folder):
    prepared = prepare(eegmat.everyone(folder), DEFAULT_SPEC, DEFAULT_GATE, TARGET)
    counted = prepared.trained | prepared.scored
    assert not (counted & prepared.baseline).any()
    assert prepared.t_end[prepared.baseline].max() == 60.0
    assert prepared.t_end[counted & (prepared.label == 0)].min() >= 70.0
    assert prepared.t_end[prepared.label == 0].max() <= 100.0
    assert prepared.t_end[prepared.label == 1].min() == 170.0
    for who in ("00", "01"):
        own = prepared.person == who
        assert (own & prepared.baseline).sum() == 51
        # The window that ends with the recording is not cut: the resampler looks a little ahead.
        assert prepared.t_end[own & prepared.scored & (prepared.label == 0)].tolist() == [70, 75, 80, 85, 90, 95]
        assert prepared.t_end[own & prepared.scored & (prepared.label == 1)].tolist() == [170, 175, 180, 185]


def test_stored_windows_come_back_as_they_were(folder, tmp_path):
    prepared = prepare(eegmat.everyone(folder), DEFAULT_SPEC, DEFAULT_GATE, TARGET)
    shards.write(shards.plan("eegmat", folder), tmp_path / "shards")
    again = shards.Shards(tmp_path / "shards").prepared(DEFAULT_GATE, TARGET)
    assert again.spec == prepared.spec
    for kind in ("eeg", "ecg"):
        assert np.array_equal(again.signals[kind], prepared.signals[kind])
    for name in ("usable", "label", "value", "person", "t_end", "baseline", "trained", "scored"):
        assert np.array_equal(getattr(again, name), getattr(prepared, name))


def test_a_dead_lead_is_kept_but_marked_unusable(folder):
    def silenced(recording):
        chunks = tuple(
            replace(chunk, data=np.zeros_like(chunk.data)) if chunk.stream == "ecg" else chunk
            for chunk in recording.chunks
        )
        return replace(recording, chunks=chunks)

    prepared = prepare(map(silenced, eegmat.everyone(folder)), DEFAULT_SPEC, DEFAULT_GATE, TARGET)
    assert prepared.usable[:, 0].all()
    assert not prepared.usable[:, 1].any()


def test_the_real_archive_has_28_people_and_lost_leads_are_found(shared_data):
    known = {"02": 0, "20": 1, "05": None}
    chosen = [one for one in eegmat.everyone(shared_data) if one.person in known]
    assert len(chosen) == 6
    prepared = prepare(chosen, DEFAULT_SPEC, DEFAULT_GATE, TARGET)
    for who, lost in known.items():
        for label in (0, 1):
            rows = (prepared.person == who) & (prepared.label == label)
            share = prepared.usable[rows, 1].mean()
            assert share < 0.2 if label == lost else share > 0.9
            assert prepared.usable[rows, 0].all()

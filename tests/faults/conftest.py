"""Whole programs under faults: a numbered source, the real command, a small model that can be made to fail."""

from __future__ import annotations

import importlib.util
import sys
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from itertools import pairwise
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import safetensors.numpy
from onnx import TensorProto, helper, numpy_helper

from models.api import InputSpec, WindowSpec
from models.bundle import (
    DISTANCE,
    GOLDEN,
    GRAPH,
    INPUTS,
    OUTPUTS,
    WEIGHTS,
    BinaryCalibration,
    DistanceLimit,
    Gate,
    Manifest,
    Rest,
    Target,
    pack_golden,
    write_bundle,
)
from models.distance import Reference, pack_references
from models.fusion import FusionConfig

ROOT = Path(__file__).resolve().parents[2]
SECONDS, HOP, RATE, REST = 2.0, 0.5, 200.0, 3.0
LABELS = ("Fp1", "Fp2", "C3", "C4")
NAN_ABOVE = 1500.0
"""uV of ECG, absolute, above which the model returns NaN."""
SLOW_ABOVE = 120.0
"""uV of EEG, absolute, above which the model takes seconds."""
TURNS = 1200
"""Products of 400 x 400 that it takes them with."""


@pytest.fixture(scope="session")
def soak():
    """The soak script as a module: its sources, terminals and ledgers serve the fault tests, too."""
    spec = importlib.util.spec_from_file_location("insula_soak", ROOT / "tests" / "benchmarks" / "soak.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def graph() -> bytes:
    """Mean absolute amplitudes as embedding; NaN for a huge ECG, a long row of products for a huge EEG."""
    node = helper.make_node
    floats = {"zero": 0.0, "limit": NAN_ABOVE, "loud": SLOW_ABOVE}
    constants = [numpy_helper.from_array(np.array(value, np.float32), name) for name, value in floats.items()]
    constants += [
        numpy_helper.from_array(np.array([15.0, 100.0], np.float32), "scale"),
        numpy_helper.from_array(np.array([1, 2], np.int64), "last_two"),
        numpy_helper.from_array(np.array([1], np.int64), "second"),
        numpy_helper.from_array(np.full((400, 400), 1 / 400, np.float32), "square"),
    ]
    results = ["first", *(f"turned {turn}" for turn in range(TURNS))]
    turning = helper.make_graph(
        [node("MatMul", [before, "square"], [after]) for before, after in pairwise(results)],
        "turning",
        [],
        [helper.make_tensor_value_info(results[-1], TensorProto.FLOAT, [400, 400])],
    )
    resting = helper.make_graph(
        [node("Identity", ["square"], ["rested"])],
        "resting",
        [],
        [helper.make_tensor_value_info("rested", TensorProto.FLOAT, [400, 400])],
    )
    nodes = [
        node("Abs", ["eeg"], ["eeg_size"]),
        node("Abs", ["ecg"], ["ecg_size"]),
        node("ReduceMean", ["eeg_size", "last_two"], ["eeg_mean"], keepdims=0),
        node("ReduceMean", ["ecg_size", "last_two"], ["ecg_mean"], keepdims=0),
        node("Unsqueeze", ["eeg_mean", "second"], ["eeg_column"]),
        node("Unsqueeze", ["ecg_mean", "second"], ["ecg_column"]),
        node("Concat", ["eeg_column", "ecg_column"], ["sizes"], axis=1),
        node("Div", ["sizes", "scale"], ["embedding"]),
        node("Sub", ["embedding", "rest_mean"], ["beyond"]),
        node("Div", ["beyond", "rest_sd"], ["score"]),
        node("Mul", ["score", "use"], ["counted"]),
        node("ReduceSum", ["counted", "second"], ["sum"], keepdims=1),
        # sqrt of a negative number is NaN, and so is 0 x NaN
        node("ReduceMax", ["ecg_size"], ["ecg_peak"], keepdims=0),
        node("Sub", ["limit", "ecg_peak"], ["below"]),
        node("Sqrt", ["below"], ["root"]),
        node("Mul", ["root", "zero"], ["nothing"]),
        node("ReduceMax", ["eeg_size"], ["eeg_peak"], keepdims=0),
        node("Greater", ["eeg_peak", "loud"], ["is_loud"]),
        node("Cast", ["is_loud"], ["one_if_loud"], to=TensorProto.FLOAT),
        node("Mul", ["square", "one_if_loud"], ["first"]),  # of constants alone a runtime computes it beforehand
        node("If", ["is_loud"], ["turned"], then_branch=turning, else_branch=resting),
        node("ReduceMax", ["turned"], ["turned_peak"], keepdims=0),
        node("Mul", ["turned_peak", "zero"], ["nothing_either"]),
        node("Add", ["sum", "nothing"], ["sum_or_nan"]),
        node("Add", ["sum_or_nan", "nothing_either"], ["logit"]),
    ]
    samples = round(SECONDS * RATE)
    shapes = {
        "eeg": ["batch", len(LABELS), samples],
        "ecg": ["batch", 1, samples],
        "use": ["batch", 2],
        "rest_mean": ["batch", 2],
        "rest_sd": ["batch", 2],
    }
    made = helper.make_graph(
        nodes,
        "amplitudes",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shapes[name]) for name in INPUTS],
        [
            helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", width])
            for name, width in zip(OUTPUTS, (1, 2), strict=True)
        ],
        constants,
    )
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.checker.check_model(model, full_check=True)
    return model.SerializeToString()


@pytest.fixture(scope="session")
def quick(tmp_path_factory) -> Path:
    """A bundle with windows of 2 s, twice a second, 3 s of rest; NaN for a huge ECG, slow for a huge EEG."""
    content = graph()
    random = np.random.default_rng(0)
    samples = round(SECONDS * RATE)
    inputs = {
        "eeg": 10 * random.standard_normal((1, len(LABELS), samples)),
        "ecg": 100 * random.standard_normal((1, 1, samples)),
        "use": np.ones((1, 2)),
        "rest_mean": np.full((1, 2), 0.5),
        "rest_sd": np.ones((1, 2)),
    }
    inputs = {name: value.astype(np.float32) for name, value in inputs.items()}
    outputs = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"]).run(list(OUTPUTS), inputs)
    calibration = {"arousal": BinaryCalibration(temperature=1.0, bias=0.0, logit_sd=1.0)}
    anywhere = Reference(np.zeros(1), np.full((1, 1), 0.001))
    manifest = Manifest(
        name="quick",
        version="0.1",
        window=WindowSpec(
            inputs=(InputSpec(kind="eeg", channels=LABELS, min_channels=3), InputSpec(kind="ecg", channels=("ECG",))),
            rate=RATE,
            seconds=SECONDS,
            hop=HOP,
        ),
        targets=(Target(name="arousal", kind="binary", range=(0.0, 1.0), meaning="0 as at rest, 1 more"),),
        embedding={"eeg": 1, "ecg": 1},
        rest=Rest(seconds=REST, min_share=0.5, pooled_sd=(0.5, 0.5), prior_windows=10.0, floor=0.1),
        gate=Gate(min_present={"eeg": 0.8, "ecg": 0.8}, min_quality={"eeg": 0.5, "ecg": 0.5}),
        calibration={"eeg+ecg": calibration, "eeg": calibration, "ecg": calibration},
        distance={kind: DistanceLimit(plain=1.0, rested=1.0) for kind in ("eeg", "ecg")},
        accuracy="none: amplitudes only",
        limits="for tests only",
        metrics={},
        training={"people": []},
        licence="BSD-3-Clause",
        network=asdict(FusionConfig(eeg_channels=len(LABELS), seconds=round(SECONDS), rate=round(RATE))),
    )
    # What is described is a real network; the graph is another one.
    weights = {"absent_eeg": (1,), "absent_ecg": (1,), "head.1.weight": (1, 2), "head.1.bias": (1,)}
    files = {
        GRAPH: content,
        WEIGHTS: safetensors.numpy.save({name: np.zeros(shape, np.float32) for name, shape in weights.items()}),
        DISTANCE: pack_references(dict.fromkeys(("eeg", "ecg"), (anywhere, anywhere))),
        GOLDEN: pack_golden(inputs, dict(zip(OUTPUTS, outputs, strict=True))),
    }
    folder = tmp_path_factory.mktemp("quick") / "bundle"
    write_bundle(folder, manifest, files)
    return folder


class Scenes:
    """Sessions that mostly wait, played at the same time: a test asks for its own and gets its failures, too."""

    def __init__(self, played) -> None:
        self._pool = ThreadPoolExecutor(len(played))
        self._scenes = {name: self._pool.submit(play, *given) for name, (play, *given) in played.items()}

    def __getitem__(self, name):
        return self._scenes[name].result(300)

    def close(self) -> None:
        self._pool.shutdown(cancel_futures=True)


@pytest.fixture(scope="session")
def scenes():
    """Plays scenes given as name -> (function, arguments...)."""
    return Scenes


class Live:
    """The real command on the streams of numbered sources, with the quick model; everything that is left of it."""

    def __init__(self, soak, quick, folder, *kinds, command="", model=None, env=None) -> None:
        self.soak = soak
        self.name = f"insula-fault-{uuid.uuid4().hex[:8]}"
        self.record = folder / f"{self.name}.xdf"
        self.kinds = kinds or ("eeg", "ecg")
        template = command or "{python} -m insula live {sources} --headless --record {record}"
        template += f" --model {model or quick}"
        self._command = soak.session_command(template, self.name, self.record, self.kinds)
        self._env = env or {}

    def source(self, *options):
        absent = ",".join({"eeg", "ecg", "markers"} - set(self.kinds))
        return self.soak.Source(self.name, *(["--without", absent] if absent else []), *options)

    def start(self):
        return self.soak.run_terminal(self._command, env=self._env)

    def read(self, epoch):
        """What is in the record; ``given``: the ends of the windows with an estimate."""
        read = self.soak.ledger_of(self.record, epoch)
        read["given"] = [t for t, values in read["affect"] if values[0] == values[0]]
        return read

    @staticmethod
    def said(read, word, about):
        """(time, text) of the session events that begin with a word and are about something."""
        return [(t, text) for t, text in read["events"] if text.startswith(f"{word} ") and about in text]

    @staticmethod
    def skipped(read):
        """The ends of the windows that were skipped; the stamps of what is said of a session never go back."""
        return [float(text.split()[1]) for _, text in read["events"] if text.startswith("skipped ")]

    @staticmethod
    def estimates(terminal):
        return sum("arousal" in line for _, line in list(terminal.lines))

    def wait(self, terminal, more, seconds=40.0):
        """Until so many more windows have an estimate than now."""
        until, wanted = time.monotonic() + seconds, self.estimates(terminal) + more
        while self.estimates(terminal) < wanted:
            assert time.monotonic() < until, terminal.text
            assert terminal.process.poll() is None, terminal.text
            time.sleep(0.05)


@pytest.fixture(scope="module")
def live(soak, quick, tmp_path_factory):
    """Makes a `Live`."""
    folder = tmp_path_factory.mktemp("live")
    return lambda *kinds, **more: Live(soak, quick, folder, *kinds, **more)

"""Every runtime computes the same network, and one that does not is refused when it loads."""

from __future__ import annotations

import importlib.abc
import importlib.util
import math
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest

from devices.api import Chunk, End
from devices.xdf import XdfReplay
from insula import demo_recording
from models.api import ModelError
from models.bundle import (
    GOLDEN,
    GRAPH,
    WEIGHTS,
    default_bundle_folder,
    golden,
    load_bundle,
    pack_golden,
    write_bundle,
)
from models.model import Model
from models.runtimes import check_golden, first_that_agrees, load_runtime, relative_error, runtimes
from models.runtimes.ort import load as load_ort
from offline_training.export import example_inputs, torch_outputs
from realtime.windows import iter_windows

ROOT = Path(__file__).resolve().parents[2]
HERE = [name for name in runtimes() if name != "openvino"]
"""OpenVINO 2026.4 once crashed a process that compiled many graphs beside PyTorch: it is tested in one of its own."""


def rebuilt(bundle, tmp_path, **files):
    """The bundle with other files in it, rightly listed."""
    names = {"graph": GRAPH, "weights": WEIGHTS, "golden": GOLDEN}
    content = {name: bundle.read(name) for name in bundle.files}
    return write_bundle(
        tmp_path / "rebuilt", bundle.manifest, content | {names[key]: value for key, value in files.items()}
    )


def refusal(name, bundle) -> str:
    with pytest.raises(ModelError) as caught:
        load_runtime(name, bundle)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def runnable(name, bundle):
    """The runtime, or a skip with the reason where this machine has no GPU or package for it."""
    try:
        return load_runtime(name, bundle)
    except ModelError as error:
        if "differs" in str(error) or name in ("ort", "pytorch"):
            raise
        pytest.skip(str(error))


def allowed(runtime) -> float:
    """Of random windows, whose logits may lie near zero."""
    return 1e-4 if runtime.precision == "fp32" else 0.1


def test_the_runtimes_are_the_files_of_the_folder():
    assert {"ort", "pytorch", "openvino", "trt", "rtx"} == set(runtimes())


@pytest.mark.parametrize("name", HERE)
@pytest.mark.parametrize("batch", [1, 3, 70])
def test_a_runtime_agrees_with_the_network_it_was_exported_from(bundle, fusion, name, batch):
    runtime = runnable(name, bundle)
    for seed in range(2):
        inputs = example_inputs(fusion, batch, seed=100 + seed)
        got = runtime(inputs)
        for key, wanted in torch_outputs(fusion, inputs).items():
            assert got[key].shape == wanted.shape
            assert got[key].dtype == np.float32
            assert relative_error(got[key], wanted) < allowed(runtime)


@pytest.mark.parametrize("name", HERE)
def test_a_runtime_says_its_library_and_precision_and_keeps_what_it_gave(bundle, fusion, name):
    runtime = runnable(name, bundle)
    assert runtime.precision in runtime.about
    assert runtime.about.isprintable()
    inputs = example_inputs(fusion, 1, seed=1)
    first = runtime(inputs)
    kept = {key: value.copy() for key, value in first.items()}
    runtime(example_inputs(fusion, 1, seed=2))
    assert all(np.array_equal(first[key], kept[key]) for key in kept)


@pytest.mark.parametrize("name", [name for name in HERE if name != "pytorch"])
def test_every_runtime_gives_the_estimate_of_pytorch_on_real_windows(name, real_inputs):
    default = load_bundle(default_bundle_folder())
    runtime, reference = runnable(name, default), load_runtime("pytorch", default)
    got, wanted = runtime(real_inputs), reference(real_inputs)
    share = 1e-3 if runtime.precision == "fp32" else 0.03
    for key in wanted:
        assert relative_error(got[key], wanted[key]) < share
    chance, expected = (1 / (1 + np.exp(-each["logit"])) for each in (got, wanted))
    assert np.max(np.abs(chance - expected)) < (1e-3 if runtime.precision == "fp32" else 0.03)


@pytest.fixture(scope="module")
def real_inputs():
    """What the network was fed with every 12 s of the recording that ships: eegmat, rest and mental arithmetic."""
    default = load_bundle(default_bundle_folder())
    runtime, taken = load_runtime("ort", default), []

    def listening(inputs):
        taken.append(inputs)
        return runtime(inputs)

    model = Model(default, listening)
    with XdfReplay(demo_recording(), speed=math.inf) as device:
        chunks = (item for item in replayed(device) if isinstance(item, Chunk))
        for window in iter_windows(chunks, default.manifest.window, device.streams):
            model.update(window)
    assert len(taken) > 200
    return {name: np.concatenate([one[name] for one in taken[::12]]) for name in taken[0]}


def replayed(device):
    while True:
        for item in device.read(1.0):
            if isinstance(item, End):
                return
            yield item


@pytest.mark.parametrize("use", [(1, 1), (1, 0), (0, 1), (0, 0)])
def test_onnx_runtime_agrees_with_pytorch_whatever_is_missing(bundle, fusion, use):
    inputs = example_inputs(fusion, 2, seed=9) | {"use": np.array([use] * 2, dtype=np.float32)}
    ort, torch_runtime = load_runtime("ort", bundle)(inputs), load_runtime("pytorch", bundle)(inputs)
    assert relative_error(ort["logit"], torch_runtime["logit"]) < 1e-4


IN_OPENVINO = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
import numpy as np
from models.bundle import golden, load_bundle
from models.runtimes import load_runtime, relative_error
assert "torch" not in sys.modules
bundle = load_bundle(Path(sys.argv[2]))
runtime = load_runtime("openvino", bundle)
inputs, wanted = golden(bundle)
for batch in (1, 3):
    outputs = runtime({name: np.repeat(value, batch, axis=0) for name, value in inputs.items()})
    for key, value in outputs.items():
        assert value.shape == (batch, *wanted[key].shape[1:])
        assert relative_error(value[-1:], wanted[key]) < (1e-4 if runtime.precision == "fp32" else 0.05)
print(runtime.about)
"""


def in_openvino(folder):
    pytest.importorskip("openvino")
    command = [sys.executable, "-c", IN_OPENVINO, str(ROOT), str(folder)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)


@pytest.mark.parametrize("default", [True, False])
def test_openvino_gives_the_golden_output_alone_and_in_a_batch_and_says_its_precision(bundle, default):
    done = in_openvino(default_bundle_folder() if default else bundle.folder)
    assert done.returncode == 0, done.stderr
    assert re.fullmatch(r"OpenVINO 20\S+, (bf16|fp32), 1 thread\n", done.stdout)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"not a graph", "is no ONNX graph"),
        (
            bytes.fromhex("3a062a046a020a00"),
            "keeps tensors in other files",
        ),  # a graph of one tensor that lies elsewhere
        (b"", "cannot load it"),
    ],
)
def test_openvino_refuses_a_graph_that_is_none_or_keeps_tensors_in_other_files(bundle, tmp_path, content, said):
    done = in_openvino(rebuilt(bundle, tmp_path, graph=content).folder)
    assert "ModelError" in done.stderr.splitlines()[-1]
    assert said in done.stderr


def test_the_same_input_gives_the_same_bits(bundle, fusion):
    inputs = example_inputs(fusion, 1, seed=4)
    first, second = load_runtime("ort", bundle), load_runtime("ort", bundle)
    for key, value in first(inputs).items():
        assert value.tobytes() == first(inputs)[key].tobytes() == second(inputs)[key].tobytes()


def test_a_flat_window_gives_finite_figures(bundle, fusion):
    inputs = example_inputs(fusion, 1, seed=4)
    inputs |= {kind: np.zeros_like(inputs[kind]) for kind in ("eeg", "ecg")}
    assert all(np.isfinite(value).all() for value in load_runtime("ort", bundle)(inputs).values())


def test_an_unknown_runtime_is_answered_with_the_known_ones(bundle):
    assert refusal("tpu", bundle).endswith(f"known are auto, {', '.join(runtimes())}")
    assert "known are" in refusal("../ort", bundle)


@pytest.mark.parametrize("name", HERE)
def test_a_runtime_that_differs_from_the_golden_output_is_refused(bundle, tmp_path, name):
    runnable(name, bundle)
    inputs, outputs = golden(bundle)
    outputs["logit"] = outputs["logit"] * 1.2
    other = rebuilt(bundle, tmp_path, golden=pack_golden(inputs, outputs))
    assert "differs from the golden logit by" in refusal(name, other)


def test_a_runtime_in_a_lower_precision_may_differ_three_hundred_times_as_much_and_no_more(bundle, tmp_path):
    runtime = load_runtime("ort", bundle)
    _, outputs = golden(bundle)
    largest = np.abs(outputs["logit"]).max()

    class Lower:
        about, precision = "a test, bf16", "bf16"

        def __init__(self, by):
            self.by = by

        def __call__(self, inputs):
            return runtime(inputs) | {"logit": runtime(inputs)["logit"] + self.by * largest}

    assert bundle.manifest.tolerance == 1e-4
    check_golden("lower", bundle, Lower(0.027))
    with pytest.raises(ModelError, match=r"lower \(bf16\) differs from the golden logit"):
        check_golden("lower", bundle, Lower(0.033))
    tolerant = replace(bundle, manifest=replace(bundle.manifest, tolerance=1e-3))
    with pytest.raises(ModelError, match=r"lower \(bf16\) differs from the golden logit"):
        check_golden("lower", tolerant, Lower(0.055))  # never more than this, whatever the manifest says


@pytest.mark.parametrize("name", ["ort"])
@pytest.mark.parametrize(
    ("content", "said"),
    [(b"", "cannot load it"), (b"not a graph", "is no ONNX graph"), (bytes(1000), "is no ONNX graph")],
)
def test_a_graph_that_is_none_is_refused(bundle, tmp_path, name, content, said):
    runnable(name, bundle)
    assert said in refusal(name, rebuilt(bundle, tmp_path, graph=content))


@pytest.mark.parametrize("name", HERE)
def test_a_file_swapped_after_the_bundle_was_opened_is_refused_before_it_is_parsed(folder, name):
    opened = load_bundle(folder)
    runnable(name, opened)
    file = folder / (WEIGHTS if name == "pytorch" else GRAPH)
    file.write_bytes(b"\x80\x04" + file.read_bytes()[2:])
    assert "SHA-256 is" in refusal(name, opened)


def test_no_runtime_and_nothing_that_opens_a_bundle_unpickles():
    folder = ROOT / "models"
    files = [*(folder / "runtimes").glob("*.py"), folder / "bundle.py", folder / "distance.py", folder / "model.py"]
    for path in files:
        source = path.read_text(encoding="utf-8")
        assert not re.search(r"import pickle|pickle\.load|\bnp\.load\(|allow_pickle=True|weights_only=False", source), (
            path
        )


def stand_in(monkeypatch, name, load):
    """Another file in the place of models/runtimes/NAME.py: one for a library or GPU that this machine lacks."""
    monkeypatch.delitem(sys.modules, f"models.runtimes.{name}", raising=False)
    module = importlib.util.module_from_spec(importlib.util.find_spec(f"models.runtimes.{name}"))
    module.load = load
    monkeypatch.setitem(sys.modules, module.__name__, module)


def test_auto_tries_a_gpu_before_the_processor_and_says_in_a_line_each_what_was_passed_over(bundle, monkeypatch):
    tried, lines = [], []

    def refusing(name, error):
        def load(opened):
            assert opened is bundle
            tried.append(name)
            raise error

        return load

    stand_in(monkeypatch, "trt", refusing("trt", ModelError("runtime trt: no NVIDIA GPU can be used")))
    stand_in(monkeypatch, "rtx", refusing("rtx", ModelError("runtime rtx: no driver")))
    runtime = load_runtime("auto", bundle, lines.append)
    assert runtime.about.startswith("ONNX Runtime")
    assert tried == ["trt", "rtx"]
    assert lines == [
        "runtime trt: no NVIDIA GPU can be used; another runtime is taken",
        "runtime rtx: no driver; another runtime is taken",
    ]
    monkeypatch.delitem(sys.modules, "models.runtimes.rtx")
    stand_in(monkeypatch, "trt", load_ort)
    assert load_runtime("auto", bundle, lines.append).about.startswith("ONNX Runtime")
    assert len(lines) == 2  # nothing was passed over for it
    assert "models.runtimes.rtx" not in sys.modules  # nor looked at


@pytest.mark.parametrize(
    "error",
    [RuntimeError("CUDA driver\nis too old"), AttributeError("no such name"), MemoryError(), OSError(5, "no device")],
)
@pytest.mark.parametrize("when", ["loading", "computing", "importing"])
def test_auto_falls_back_whatever_a_library_raises_and_says_what(bundle, monkeypatch, error, when):
    class Computing:
        about, precision = "a test, fp32", "fp32"

        def __call__(self, inputs):
            raise error

    class Importing(importlib.abc.MetaPathFinder):
        def find_spec(self, fullname, path, target=None):
            if fullname == "tensorrt":
                raise error

    def load(opened):
        if when == "loading":
            raise error
        return Computing()

    if when == "importing":
        monkeypatch.setattr(sys, "meta_path", [Importing(), *sys.meta_path])
        for name in ("tensorrt", "models.runtimes.trt"):
            monkeypatch.delitem(sys.modules, name, raising=False)
    else:
        stand_in(monkeypatch, "trt", load)
    monkeypatch.setitem(sys.modules, "onnxruntime_ep_nv_tensorrt_rtx", None)
    monkeypatch.delitem(sys.modules, "models.runtimes.rtx", raising=False)
    lines = []
    assert load_runtime("auto", bundle, lines.append).about.startswith("ONNX Runtime")
    assert [line.split()[:2] for line in lines] == [["runtime", "trt:"], ["runtime", "rtx:"]]
    assert (" ".join(str(error).split()) or type(error).__name__) in lines[0]
    assert all("\n" not in line and line.endswith("; another runtime is taken") for line in lines)


class Off:
    """The network in a lower precision, as a test has it: right, or off by a share of the largest logit."""

    passed_over = ()

    def __init__(self, precision, by, runtime):
        self.precision, self.by, self.runtime = precision, by, runtime
        self.about = f"a test, {precision}"

    def __call__(self, inputs):
        outputs = self.runtime(inputs)
        return outputs | {"logit": outputs["logit"] + self.by * np.abs(outputs["logit"]).max()}


def choosing(bundle, off):
    """A runtime with three precisions: what ``off`` says of each is raised, or how far it is off."""
    runtime = load_ort(bundle)

    def made(precision):
        if isinstance(off[precision], Exception):
            raise off[precision]
        return Off(precision, off[precision], runtime)

    return lambda opened: first_that_agrees("trt", opened, ["fp16", "bf16", "fp32"], made)


def test_each_precision_that_is_passed_over_is_a_line_with_its_reason(bundle, monkeypatch):
    lines = []
    off = {"fp16": RuntimeError("no kernel"), "bf16": 0.5, "fp32": 0.0}
    stand_in(monkeypatch, "trt", choosing(bundle, off))
    assert load_runtime("trt", bundle, lines.append).precision == "fp32"
    assert len(lines) == 2
    assert lines[0] == "runtime trt passes over fp16: runtime trt: fails (RuntimeError: no kernel); fp32 is taken"
    assert re.fullmatch(r"runtime trt passes over bf16: .*differs from the golden logit by .*; fp32 is taken", lines[1])
    stand_in(monkeypatch, "trt", choosing(bundle, off | {"fp16": 0.0}))
    assert load_runtime("trt", bundle, lines.append).precision == "fp16"
    assert len(lines) == 2


def test_a_precision_that_is_passed_over_gives_back_what_it_holds_before_the_next_is_loaded(bundle):
    told = []

    class Holding(Off):
        def close(self):
            told.append(f"{self.precision} closed")

    def made(precision):
        told.append(f"{precision} loaded")
        return Holding(precision, 0.0 if precision == "fp32" else 0.5, load_ort(bundle))

    first_that_agrees("trt", bundle, ["fp16", "bf16", "fp32"], made)
    assert told == ["fp16 loaded", "fp16 closed", "bf16 loaded", "bf16 closed", "fp32 loaded"]


def test_when_no_precision_can_be_used_the_reason_of_each_is_said(bundle, monkeypatch):
    off = {"fp16": RuntimeError("no kernel"), "bf16": 0.5, "fp32": ModelError("runtime trt: the GPU refused")}
    stand_in(monkeypatch, "trt", choosing(bundle, off))
    said = refusal("trt", bundle)
    assert "fp16: runtime trt: fails (RuntimeError: no kernel); bf16: " in said
    assert said.endswith("; fp32: runtime trt: the GPU refused")
    stand_in(monkeypatch, "trt", choosing(bundle, off | {"fp32": 0.5}))
    assert "(fp32) differs from the golden logit" in refusal("trt", bundle)


def test_without_the_package_a_runtime_says_which_command_installs_it(bundle, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    monkeypatch.delitem(sys.modules, "models.runtimes.trt", raising=False)
    assert refusal("trt", bundle).endswith('tensorrt is not installed; run: pip install "insula[tensorrt]"')


@pytest.mark.parametrize("name", ["ort", "trt", "rtx"])
def test_a_graph_that_keeps_tensors_in_other_files_is_refused(bundle, tmp_path, name):
    runnable(name, bundle)
    model = onnx.load_from_string(bundle.read(GRAPH))
    tensor = model.graph.initializer[0]
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.ClearField("raw_data")
    tensor.external_data.add(key="location", value="/etc/hostname")
    other = rebuilt(bundle, tmp_path, graph=model.SerializeToString())
    assert "keeps tensors in other files" in refusal(name, other)


@pytest.mark.parametrize("name", ["ort"])
def test_a_graph_with_other_inputs_is_refused(bundle, tmp_path, name):
    runnable(name, bundle)
    model = onnx.load_from_string(bundle.read(GRAPH))
    model.graph.output.pop()
    assert "expected eeg, ecg, use" in refusal(name, rebuilt(bundle, tmp_path, graph=model.SerializeToString()))


def test_the_graph_says_nothing_of_the_machine_that_made_it(bundle):
    graph = bundle.read(GRAPH)
    for trace in (b".py", b"site-packages", b"/root", b"/home", b"/tmp"):
        assert trace not in graph

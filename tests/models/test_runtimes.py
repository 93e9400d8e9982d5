"""Every runtime computes the same network, and one that does not is refused when it loads."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from models.api import ModelError
from models.bundle import GOLDEN, GRAPH, WEIGHTS, golden, pack_golden, write_bundle
from models.runtimes import load_runtime, relative_error, runtimes
from offline_training.export import example_inputs, torch_outputs


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


def test_the_runtimes_are_the_files_of_the_folder():
    assert {"ort", "pytorch"} <= set(runtimes())


@pytest.mark.parametrize("name", ["ort", "pytorch"])
@pytest.mark.parametrize("batch", [1, 3])
def test_a_runtime_agrees_with_the_network_it_was_exported_from(bundle, fusion, name, batch):
    runtime = load_runtime(name, bundle)
    for seed in range(5):
        inputs = example_inputs(fusion, batch, seed=100 + seed)
        got = runtime(inputs)
        for key, wanted in torch_outputs(fusion, inputs).items():
            assert got[key].shape == wanted.shape
            assert got[key].dtype == np.float32
            assert relative_error(got[key], wanted) < 1e-4


@pytest.mark.parametrize("use", [(1, 1), (1, 0), (0, 1), (0, 0)])
def test_onnx_runtime_agrees_with_pytorch_whatever_is_missing(bundle, fusion, use):
    inputs = example_inputs(fusion, 2, seed=9) | {"use": np.array([use] * 2, dtype=np.float32)}
    ort, torch_runtime = load_runtime("ort", bundle)(inputs), load_runtime("pytorch", bundle)(inputs)
    assert relative_error(ort["logit"], torch_runtime["logit"]) < 1e-4


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
    assert refusal("tpu", bundle).endswith(f"known are {', '.join(runtimes())}")
    assert "known are" in refusal("../ort", bundle)


@pytest.mark.parametrize("name", ["ort", "pytorch"])
def test_a_runtime_that_differs_from_the_golden_output_is_refused(bundle, tmp_path, name):
    inputs, outputs = golden(bundle)
    outputs["logit"] = outputs["logit"] * 1.01
    other = rebuilt(bundle, tmp_path, golden=pack_golden(inputs, outputs))
    assert "differs from the golden logit by" in refusal(name, other)


@pytest.mark.parametrize("content", [b"", b"not a graph", bytes(1000)])
def test_a_graph_that_is_none_is_refused(bundle, tmp_path, content):
    assert "ONNX Runtime cannot load it" in refusal("ort", rebuilt(bundle, tmp_path, graph=content))


def test_a_graph_that_keeps_tensors_in_other_files_is_refused(bundle, tmp_path):
    model = onnx.load_from_string(bundle.read(GRAPH))
    tensor = model.graph.initializer[0]
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.ClearField("raw_data")
    tensor.external_data.add(key="location", value="/etc/hostname")
    other = rebuilt(bundle, tmp_path, graph=model.SerializeToString())
    assert "keeps tensors in other files" in refusal("ort", other)


def test_a_graph_with_other_inputs_is_refused(bundle, tmp_path):
    model = onnx.load_from_string(bundle.read(GRAPH))
    model.graph.output.pop()
    assert "expected eeg, ecg, use" in refusal("ort", rebuilt(bundle, tmp_path, graph=model.SerializeToString()))


@pytest.mark.parametrize("content", [b"", b"\x00" * 100, b"\xff" * 100])
def test_weights_that_are_none_are_refused(bundle, tmp_path, content):
    assert "weights.safetensors: does not fit" in refusal("pytorch", rebuilt(bundle, tmp_path, weights=content))


def test_the_graph_says_nothing_of_the_machine_that_made_it(bundle):
    graph = bundle.read(GRAPH)
    for trace in (b".py", b"site-packages", b"/root", b"/home", b"/tmp"):
        assert trace not in graph

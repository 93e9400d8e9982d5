"""Graphs in bf16, fp16 and int8: what is lowered, what is not, and how far they are from the one in fp32."""

from __future__ import annotations

import dataclasses

import numpy as np
import onnx
import onnxruntime
import pytest
import safetensors.numpy
from onnx import TensorProto

from models.api import ModelError
from models.bundle import GOLDEN, GRAPH, WEIGHTS, golden, pack_golden, write_bundle
from models.runtimes import load_runtime, ort, relative_error
from models.runtimes.engines import GRAPHS, candidates
from models.runtimes.ort import QUANTISED
from offline_training.export import example_inputs, onnx_graph, torch_outputs
from offline_training.precision import add_precisions, lower, quantised


@pytest.fixture(scope="module")
def trained(bundle):
    return set(safetensors.numpy.load(bundle.read(WEIGHTS)))


@pytest.fixture(scope="module")
def wide(bundle, fusion, tmp_path_factory):
    """A bundle whose feed-forward layers are large, with all its graphs; and its network."""
    import safetensors.torch
    import torch

    from models.fusion import FusionModel

    torch.manual_seed(11)
    encoder = dataclasses.replace(fusion.config.eeg, d_model=200, ffn=400, layers=1)
    network = FusionModel(dataclasses.replace(fusion.config, eeg=encoder, ecg=encoder)).eval()
    config = network.config
    manifest = dataclasses.replace(
        bundle.manifest,
        embedding={"eeg": config.eeg_dim, "ecg": config.ecg_dim},
        rest=dataclasses.replace(bundle.manifest.rest, pooled_sd=(0.5,) * config.embedding_dim),
        network=dataclasses.asdict(config),
    )
    inputs = example_inputs(network, 1, seed=0)
    files = {name: bundle.read(name) for name in bundle.files} | {
        GRAPH: onnx_graph(network),
        WEIGHTS: safetensors.torch.save({name: value.contiguous() for name, value in network.state_dict().items()}),
        GOLDEN: pack_golden(inputs, torch_outputs(network, inputs)),
    }
    folder = tmp_path_factory.mktemp("wide")
    return add_precisions(write_bundle(folder / "fp32", manifest, files), folder / "all"), network


def test_the_large_products_are_put_into_8_bits_and_nothing_else(wide):
    bundle, _ = wide
    graph = onnx.load_from_string(bundle.read(QUANTISED))
    whole = [node for node in graph.graph.node if node.op_type == "MatMulInteger"]
    assert len(whole) == 4  # two of the feed-forward layer of either encoder
    large = [tensor for tensor in graph.graph.initializer if tensor.data_type == TensorProto.INT8 and tensor.dims]
    assert {tuple(tensor.dims) for tensor in large if len(tensor.dims) == 2} == {(200, 400), (400, 200)}
    assert len(bundle.read(QUANTISED)) < 0.7 * len(bundle.read(GRAPH))


def test_onnx_runtime_takes_the_graph_in_8_bits_where_a_bundle_has_one_and_says_so(wide):
    bundle, network = wide
    runtime = load_runtime("ort", bundle)
    assert runtime.precision == "int8"
    assert "int8" in runtime.about
    exact = ort.load(bundle, precision="fp32")
    for seed in range(3):
        inputs = example_inputs(network, 1, seed=seed)
        got, again, full = runtime(inputs), runtime(inputs), exact(inputs)
        for key, wanted in torch_outputs(network, inputs).items():
            assert np.array_equal(got[key], again[key])
            assert relative_error(full[key], wanted) < 1e-4
        assert 0 < relative_error(got["embedding"], full["embedding"]) < 0.03


def test_a_graph_in_8_bits_that_is_far_off_is_not_used(wide, tmp_path):
    bundle, _ = wide
    graph = onnx.load_from_string(bundle.read(QUANTISED))
    for tensor in graph.graph.initializer:
        if tensor.data_type == TensorProto.INT8 and len(tensor.dims) == 2:
            tensor.raw_data = (onnx.numpy_helper.to_array(tensor) // 2).tobytes()
    files = {name: bundle.read(name) for name in bundle.files} | {QUANTISED: graph.SerializeToString()}
    spoilt = write_bundle(tmp_path / "spoilt", bundle.manifest, files)
    for name in ("ort", "auto"):
        lines = []
        assert load_runtime(name, spoilt, lines.append).precision == "fp32"
        assert lines[-1].startswith("runtime ort passes over int8: ")
        assert lines[-1].endswith("fp32 is taken")


def test_a_small_network_has_nothing_to_gain_from_8_bits(bundle, trained):
    assert quantised(bundle.read(GRAPH), trained) is None


def test_a_bundle_gets_its_graph_in_both_and_stays_what_it_was(bundle, tmp_path):
    more = add_precisions(bundle, tmp_path / "more")
    assert candidates(more) == ["fp16", "bf16", "fp32"]
    assert more.read(GRAPH) == bundle.read(GRAPH)
    assert more.read(GOLDEN) == bundle.read(GOLDEN)
    assert more.manifest == bundle.manifest
    again = add_precisions(bundle, tmp_path / "again")
    assert again.hash == more.hash
    assert QUANTISED not in more.files


def test_in_fp16_the_golden_output_is_near(bundle, trained):
    inputs, wanted = golden(bundle)
    graph = lower(bundle.read(GRAPH), "fp16", trained)
    session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
    for key, value in zip(wanted, session.run(list(wanted), inputs), strict=True):
        assert value.dtype == np.float32
        assert 0 < relative_error(value, wanted[key]) < 0.02


@pytest.mark.parametrize(("precision", "type_"), [("bf16", TensorProto.BFLOAT16), ("fp16", TensorProto.FLOAT16)])
def test_the_weights_of_the_layers_are_lowered_and_fixed_matrices_and_the_head_are_not(
    bundle, trained, precision, type_
):
    model = onnx.load_from_string(lower(bundle.read(GRAPH), precision, trained))
    lowered = {tensor.name for tensor in model.graph.initializer if tensor.data_type == type_}
    assert lowered
    assert not [name for name in lowered if name.startswith(("head", "heart", "band_power")) or "cosine" in name]
    fixed = {tensor.name for tensor in model.graph.initializer if tensor.data_type == TensorProto.FLOAT}
    assert {"band_power.cosine", "heart.lags"} <= fixed
    assert {entry.type.tensor_type.elem_type for entry in (*model.graph.input, *model.graph.output)} == {
        TensorProto.FLOAT
    }
    assert GRAPHS[precision] == f"graph-{precision}.onnx"


def test_a_weight_without_room_in_fp16_and_a_graph_without_products_are_refused(bundle, trained):
    model = onnx.load_from_string(bundle.read(GRAPH))
    for tensor in model.graph.initializer:
        if len(tensor.dims) == 2 and tensor.name in trained:
            tensor.raw_data = np.full(tuple(tensor.dims), 1e5, np.float32).tobytes()
    with pytest.raises(ModelError, match=r"reaches 1\.0e\+05, fp16 ends at 65504"):
        lower(model.SerializeToString(), "fp16", trained)
    kept = onnx.load_from_string(bundle.read(GRAPH))
    for node in kept.graph.node:
        node.op_type = "Other" if node.op_type in ("MatMul", "Gemm") else node.op_type
    without = kept.SerializeToString()
    with pytest.raises(ModelError, match="no product of the graph can be computed in bf16"):
        lower(without, "bf16", trained)

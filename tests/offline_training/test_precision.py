"""Graphs in bf16 and fp16: what is lowered, what is not, and how far they are from the one in fp32."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
import safetensors.numpy
from onnx import TensorProto

from models.api import ModelError
from models.bundle import GOLDEN, GRAPH, WEIGHTS, golden
from models.runtimes import relative_error
from models.runtimes.engines import GRAPHS, candidates
from offline_training.precision import add_precisions, lower


@pytest.fixture(scope="module")
def trained(bundle):
    return set(safetensors.numpy.load(bundle.read(WEIGHTS)))


def test_a_bundle_gets_its_graph_in_both_and_stays_what_it_was(bundle, tmp_path):
    more = add_precisions(bundle, tmp_path / "more")
    assert candidates(more) == ["fp16", "bf16", "fp32"]
    assert more.read(GRAPH) == bundle.read(GRAPH)
    assert more.read(GOLDEN) == bundle.read(GOLDEN)
    assert more.manifest == bundle.manifest
    again = add_precisions(bundle, tmp_path / "again")
    assert again.hash == more.hash


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

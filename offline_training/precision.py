"""Adds graphs of lower precision to a bundle: ``python -m offline_training.precision BUNDLE OUT``.

**int8, for ONNX Runtime on a processor.** The large products, in CBraMod's published size the two of each feed-forward
layer and two thirds of all the work, are computed in 8 bits by ONNX Runtime's own dynamic quantisation, the weights by
column and what meets them by its range in that very window. All of the graph in 8 bits was 65 % off; this is 1 to 2 %
off. A small network has no large products, and gets no such graph.

**bf16 and fp16, for TensorRT**, which computes a graph in the types that stand in it. The products with trained
weights, nearly all of the work, are put into a lower type, with casts around them; everything else stays fp32: norms,
softmax, the head, and the fixed matrices of the spectra, as squares of microvolts have no room in fp16. Converters that
go through a whole graph exist (onnxruntime's float16, for fp16 only; NVIDIA's ModelOpt AutoCast, for both, with a
training stack of its own); what stays in fp32 would have to be told to them node by node.
"""

from __future__ import annotations

import argparse
import logging
import sys
import tempfile
from collections.abc import Collection
from pathlib import Path

import numpy as np
import onnx
import safetensors.numpy
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import QuantType, quantize_dynamic

from models.api import ModelError
from models.bundle import WEIGHTS, Bundle, load_bundle, write_bundle
from models.runtimes import Precision, read_graph
from models.runtimes.engines import GRAPHS
from models.runtimes.ort import QUANTISED

TYPES: dict[Precision, int] = {"bf16": TensorProto.BFLOAT16, "fp16": TensorProto.FLOAT16}
LARGEST_FP16 = 65504.0
LARGE = 1 << 16
"""Entries of a matrix from which on a product in 8 bits gains more than finding the range of its input costs."""
_PRODUCTS = ("MatMul", "Gemm")
_SMALL = ("head.", "heart.")
"""Trained, but too small to be worth a rounding."""


def lower(graph: bytes, precision: Precision, trained: Collection[str]) -> bytes:
    """The graph with its products by trained matrices computed in ``precision``; inputs and outputs stay fp32.

    ``trained`` are the names of the network's weights: a matrix of another dotted name is a fixed one. Raises
    ModelError when nothing is lowered, or a weight has no room in the type.
    """
    model = onnx.load_from_string(graph)
    weights = {tensor.name: tensor for tensor in model.graph.initializer}
    constant = set(weights)
    wanted = TYPES[precision]
    done: dict[str, str] = {}
    nodes = []

    def lowered(name: str) -> str:
        if name not in done:
            done[name] = f"{name}.{precision}"
            if name in weights:
                values = numpy_helper.to_array(weights[name])
                if precision == "fp16" and np.abs(values).max(initial=0.0) > LARGEST_FP16:
                    raise ModelError(f"{name}: reaches {np.abs(values).max():.1e}, fp16 ends at {LARGEST_FP16:.0f}")
                dtype = helper.tensor_dtype_to_np_dtype(wanted)
                model.graph.initializer.append(numpy_helper.from_array(values.astype(dtype), done[name]))
            else:
                nodes.append(helper.make_node("Cast", [name], [done[name]], to=wanted))
        return done[name]

    count = 0
    for node in model.graph.node:
        if set(node.input) <= constant:
            constant |= set(node.output)
        elif node.op_type in _PRODUCTS and node.input[1] in constant and not _stays(node.input[1], trained):
            count += 1
            node.input[:] = [lowered(name) for name in node.input]
            made = node.output[0]
            node.output[0] = f"{made}.{precision}.product"
            nodes += [node, helper.make_node("Cast", [node.output[0]], [made], to=TensorProto.FLOAT)]
            continue
        nodes.append(node)
    if not count:
        raise ModelError(f"no product of the graph can be computed in {precision}")
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    used = {name for node in nodes for name in node.input}
    left = [tensor for tensor in model.graph.initializer if tensor.name in used]
    del model.graph.initializer[:]
    model.graph.initializer.extend(left)
    del model.graph.value_info[:]
    onnx.checker.check_model(model, full_check=True)
    made_graph: bytes = model.SerializeToString(deterministic=True)
    return made_graph


def quantised(graph: bytes, trained: Collection[str]) -> bytes | None:
    """The graph with its large products by trained matrices in 8 bits; None when it has none."""
    model = onnx.load_from_string(graph)
    large = {tensor.name for tensor in model.graph.initializer if tensor.name in trained and _entries(tensor) >= LARGE}
    wanted = [
        # The quantiser makes a MatMul of every Gemm first and calls it so.
        f"{node.name}_MatMul" if node.op_type == "Gemm" else node.name
        for node in model.graph.node
        if node.op_type in _PRODUCTS and node.input[1] in large and not _stays(node.input[1], trained)
    ]
    if not wanted:
        return None
    with tempfile.TemporaryDirectory() as folder:
        made = Path(folder) / QUANTISED
        root, level = logging.getLogger(), logging.getLogger().level
        root.setLevel(logging.ERROR)  # it recommends a step that was taken
        try:
            quantize_dynamic(model, made, nodes_to_quantize=wanted, per_channel=True, weight_type=QuantType.QInt8)
        finally:
            root.setLevel(level)
        smaller = onnx.load(made)
    left = sum(node.op_type == "MatMulInteger" for node in smaller.graph.node)
    if left != len(wanted):
        raise ModelError(f"{left} of {len(wanted)} products were put into 8 bits; another version of onnxruntime?")
    lower_graph: bytes = smaller.SerializeToString(deterministic=True)
    return lower_graph


def _entries(tensor: onnx.TensorProto) -> int:
    return int(np.prod(tensor.dims)) if len(tensor.dims) == 2 else 0


def _stays(name: str, trained: Collection[str]) -> bool:
    return name.startswith(_SMALL) or ("." in name and name not in trained)


def add_precisions(bundle: Bundle, folder: Path) -> Bundle:
    """A copy of ``bundle`` in ``folder`` with its graph in bf16, fp16 and, where it pays, int8 beside that in fp32."""
    files = {name: bundle.read(name) for name in bundle.files}
    trained = set(safetensors.numpy.load(files[WEIGHTS]))
    graph = read_graph(bundle)
    files |= {GRAPHS[precision]: lower(graph, precision, trained) for precision in TYPES}
    if small := quantised(graph, trained):
        files[QUANTISED] = small
    return write_bundle(folder, bundle.manifest, files)


def main() -> int:
    parser = argparse.ArgumentParser(description="Adds graphs of lower precision to a bundle.")
    parser.add_argument("bundle", type=Path)
    parser.add_argument("out", type=Path)
    options = parser.parse_args()
    print(add_precisions(load_bundle(options.bundle), options.out).label)
    return 0


if __name__ == "__main__":
    sys.exit(main())

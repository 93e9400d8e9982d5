"""What no bundle's graph may hold is found however the graph writes it down, before a runtime sees it."""

from __future__ import annotations

import onnx
import pytest
from onnx import TensorProto, helper

from models.bundle import GRAPH
from models.runtimes.external import why_refused


def tensor(external=True):
    made = helper.make_tensor("t", TensorProto.FLOAT, [1], [1.0])
    if external:
        made.data_location = TensorProto.EXTERNAL
        made.external_data.add(key="location", value="other.bin")
    return made


def packed(number, content):
    """A field of bytes; its length as two bytes of seven bits, which may be more than it needs."""
    assert len(content) < 1 << 14
    return bytes([number << 3 | 2, 0x80 | len(content) & 0x7F, len(content) >> 7]) + content


def model(nodes=(), initializers=(), sparse=(), functions=()):
    graph = helper.make_graph(list(nodes), "g", [], [], list(initializers), sparse_initializer=list(sparse))
    return helper.make_model(graph, functions=list(functions))


def inner(one):
    return helper.make_graph([], "inner", [], [], [one])


PLACES = {
    "an initializer": lambda one: model(initializers=[one]),
    "a constant": lambda one: model([helper.make_node("Constant", [], ["c"], value=one)]),
    "a branch": lambda one: model([helper.make_node("If", ["c"], ["o"], then_branch=inner(one))]),
    "a list of tensors": lambda one: model([helper.make_node("X", [], ["o"], many=[one, one])]),
    "a sparse initializer": lambda one: model(sparse=[helper.make_sparse_tensor(one, tensor(False), [1])]),
    "a function": lambda one: model(
        functions=[helper.make_function("d", "f", [], ["c"], [helper.make_node("Constant", [], ["c"], value=one)], [])]
    ),
}


@pytest.mark.parametrize("place", PLACES)
def test_it_is_found_wherever_a_tensor_may_stand(place):
    assert why_refused(PLACES[place](tensor()).SerializeToString()) == "keeps tensors in other files"
    assert not why_refused(PLACES[place](tensor(False)).SerializeToString())


def test_it_is_found_when_its_numbers_are_written_longer_than_they_need_be():
    plain = model(initializers=[tensor()]).SerializeToString()
    key = b"\n\x08location"
    assert key in plain
    entry = tensor().external_data[0].SerializeToString()
    longer = entry.replace(key, b"\n\x88\x00location")

    hidden = packed(7, packed(5, packed(13, longer) + bytes([14 << 3, 0x81, 0x00])))
    read = onnx.load_from_string(hidden)
    assert read.graph.initializer[0].external_data[0].value == "other.bin"
    assert key not in hidden
    assert why_refused(hidden) == "keeps tensors in other files"


@pytest.mark.parametrize("tag", [bytes([0xEA, 0x80, 0x80, 0x80, 0x10]), bytes([0xEA, 0x80, 0x80, 0x80, 0x80, 0x00])])
def test_a_field_number_that_parsers_would_cut_short_is_refused(tag):
    entry = tensor().external_data[0].SerializeToString()
    hidden = packed(7, packed(5, tag + bytes([len(entry)]) + entry))
    with pytest.raises(ValueError, match="a field whose number is none"):
        why_refused(hidden)


def test_the_graph_that_ships_keeps_its_tensors_itself(bundle):
    assert not why_refused(bundle.read(GRAPH))


@pytest.mark.parametrize("rubbish", [b"\xff" * 20, b"\x3a\x7f", b"\x3b", b"\x3a"])
def test_what_is_no_protobuf_is_said(rubbish):
    with pytest.raises(ValueError, match=r"field|number"):
        why_refused(rubbish)


def test_graphs_inside_graphs_without_an_end_are_refused():
    graph = b""
    for _ in range(60):
        graph = packed(1, packed(5, packed(6, graph)))
    with pytest.raises(ValueError, match="inside each other"):
        why_refused(packed(7, graph))


@pytest.mark.parametrize("name", ["EPContext", "Loop", "Scan"])
@pytest.mark.parametrize("domain", ["", "com.microsoft"])
def test_nodes_that_hold_code_or_need_not_end_are_refused_wherever_they_stand(name, domain):
    node = helper.make_node(name, ["c"], ["o"], domain=domain)
    branch = helper.make_node("If", ["c"], ["o"], then_branch=helper.make_graph([node], "inner", [], []))
    for one in (model([node]), model([branch]), model(functions=[helper.make_function("d", "f", [], [], [node], [])])):
        assert why_refused(one.SerializeToString())
    other = model([helper.make_node(f"{name}s", ["c"], ["o"], domain=domain)])
    assert not why_refused(other.SerializeToString())


def test_a_protobuf_that_onnx_runtime_would_read_as_its_own_format_is_refused():
    # A field of bytes whose content begins at byte 4.
    hidden = bytes([13 << 3 | 2, 0x84, 0x80, 0x00]) + b"ORTM"
    assert hidden[4:8] == b"ORTM"
    assert "own format" in why_refused(hidden)

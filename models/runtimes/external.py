"""What an ONNX graph of a bundle may not hold, found by walking it as the protobuf it is before anything parses it.

A search for words can be deceived: protobuf writes the same number in several ways.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

MODEL, GRAPH, NODE, ATTRIBUTE, SPARSE, FUNCTION, TRAINING, TENSOR = range(8)
INSIDE: Mapping[int, Mapping[int, int]] = {
    MODEL: {7: GRAPH, 20: TRAINING, 25: FUNCTION},
    GRAPH: {1: NODE, 5: TENSOR, 15: SPARSE},
    NODE: {5: ATTRIBUTE},
    ATTRIBUTE: {5: TENSOR, 6: GRAPH, 10: TENSOR, 11: GRAPH, 22: SPARSE, 23: SPARSE},
    SPARSE: {1: TENSOR, 2: TENSOR},
    FUNCTION: {7: NODE, 11: ATTRIBUTE},
    TRAINING: {1: GRAPH, 2: GRAPH},
}
"""Where messages that may hold tensors stand in others, by field number (onnx.proto, IR version 12)."""
EXTERNAL_DATA, DATA_LOCATION = 13, 14
"""Fields of a tensor that say where its data lies; the second is 0 when it lies in the tensor."""
OP_TYPE = 4
"""Field of a node: what it computes."""
REFUSED_NODES: Mapping[bytes, str] = {
    b"EPContext": "holds an engine made elsewhere, which is code",
    b"Loop": "has a loop, which need not end",
    b"Scan": "has a loop, which need not end",
}
"""No graph that insula exports has them."""
ORT_FORMAT = b"ORTM"
"""At byte 4 of a file it makes ONNX Runtime read it as its own format, whatever else the file is."""
DEEPEST = 100
"""Messages inside each other; protobuf's own limit."""


def why_refused(graph: bytes) -> str:
    """In words, why an ONNX model is not given to any runtime; "" when it is. ValueError if it is no protobuf."""
    if graph[4:8] == ORT_FORMAT:
        return "is of ONNX Runtime's own format"
    waiting = [(MODEL, memoryview(graph), 0)]
    while waiting:
        kind, content, depth = waiting.pop()
        if depth > DEEPEST:
            raise ValueError(f"more than {DEEPEST} messages inside each other")
        for number, value in _fields(content):
            if kind == TENSOR:
                if number == EXTERNAL_DATA or (number == DATA_LOCATION and value != 0):
                    return "keeps tensors in other files"
            elif isinstance(value, memoryview):
                if kind == NODE and number == OP_TYPE and (why := REFUSED_NODES.get(bytes(value[:32]))):
                    return why
                if number in INSIDE[kind]:
                    waiting.append((INSIDE[kind][number], value, depth + 1))
    return ""


def _fields(content: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """Number and value of every field of a message; of one of fixed size the value is 0."""
    at = 0
    while at < len(content):
        begin = at
        key, at = _varint(content, at)
        if key >> 32 or at - begin > 5 or key < 8:  # a parser may drop the bits above 32, and read another field
            raise ValueError("a field whose number is none")
        number, wire = key >> 3, key & 7
        if wire == 0:
            value, at = _varint(content, at)
            yield number, value
            continue
        if wire == 2:
            length, at = _varint(content, at)
        elif wire in (1, 5):
            length = 8 if wire == 1 else 4
        else:
            raise ValueError(f"a field of wire type {wire}")
        if length > len(content) - at:
            raise ValueError("a field is cut off")
        yield number, content[at : at + length] if wire == 2 else 0
        at += length


def _varint(content: memoryview, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if at == len(content):
            break
        byte = content[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value & (1 << 64) - 1, at
    raise ValueError("a number without an end")

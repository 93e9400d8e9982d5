"""The ``network`` of a manifest, held against its window, targets and weights without the library that builds it.

What a bundle's default runtime computes is its graph, so a network that is described wrongly would show only when
somebody rebuilds it. Here it is refused when the bundle is read, as far as it can be: the fields of each encoder have
the types that its file declares, but their sizes only the file itself can check, which is done when it is imported.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from models.api import ModelError, WindowSpec
from models.encoders import declared, encoders
from models.fields import Fields, read_json

MAX_HEADER_BYTES = 20_000_000
MAX_TENSORS = 20_000
MAX_FIELD = 10**6
"""No size of an encoder is beyond it."""
MAX_ENTRIES = 1024
"""Of a list of an encoder's configuration that has no length of its own."""

Shapes = Mapping[str, tuple[int, ...]]


def tensor_shapes(content: bytes, where: str) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the tensors of a safetensors file, read from its header alone. Raises ModelError.

    All are float32, and together they are the rest of the file: no shape claims more than there is.
    """
    size = int.from_bytes(content[:8], "little")
    if len(content) < 8 or not 2 <= size <= min(len(content) - 8, MAX_HEADER_BYTES):
        raise ModelError(f"{where}: not safetensors (its header is cut off); export the bundle again")
    try:
        header = read_json(content[8 : 8 + size])
    except ValueError as error:
        raise ModelError(f"{where}: not safetensors ({error!s:.100}); export the bundle again") from None
    if not isinstance(header, dict) or len(header) > MAX_TENSORS:
        raise ModelError(
            f"{where}: not safetensors (no list of at most {MAX_TENSORS} tensors); export the bundle again"
        )
    header.pop("__metadata__", None)
    found: dict[str, tuple[int, ...]] = {}
    places = []
    for name, value in header.items():
        entry = Fields(value, where, ascii(name)[1:-1])
        dtype = entry.text("dtype")
        if dtype != "F32":
            raise entry.wrong("dtype", dtype, "F32")
        shape = entry.integers("shape", 0, 8, 0, 2**40)
        first, last = entry.integers("data_offsets", 2, 2, 0, 2**40)
        if last - first != 4 * math.prod(shape):
            raise entry.wrong("shape", list(shape), f"one of {last - first} bytes of float32")
        found[name] = shape
        places.append((first, last))
    end = 0
    for first, last in sorted(places):
        if first != end:
            raise ModelError(f"{where}: not safetensors (tensors overlap or leave a hole); export the bundle again")
        end = last
    if end != len(content) - 8 - size:
        raise ModelError(
            f"{where}: the tensors take {end} bytes, {len(content) - 8 - size} follow; export the bundle again"
        )
    return found


def check_network(
    entry: Fields, window: WindowSpec, targets: int, embedding: Mapping[str, int], tensors: Shapes, weights: str
) -> None:
    """Raises ModelError unless the network is one of this window, these targets and the tensors of ``weights``."""
    for index, spec in enumerate(window.inputs):
        _same(entry, f"{spec.kind}_channels", len(spec.channels), f"window.inputs[{index}].channels")
    _same(entry, "seconds", window.seconds, "window.seconds")
    _same(entry, "rate", window.rate, "window.rate")
    _same(entry, "targets", targets, "targets")
    for spec in window.inputs:
        _check_encoder(entry.part(spec.kind), window.rate)
    entry.boolean("band_power")
    heart = entry.boolean("heart")
    features = entry.integer("heart_features", 1, 1024)
    if "variability" in entry.names():  # not in bundles made before there was one
        entry.boolean("variability")
    hidden = entry.integer("head_hidden", 0, 65_536)
    entry.number("head_dropout", 0.0, 0.99)
    entry.close()
    wanted: dict[str, tuple[int, ...]] = {f"absent_{kind}": (width,) for kind, width in embedding.items()}
    wanted |= {"heart.learned.2.bias": (features,)} if heart else {}
    width, last = sum(embedding.values()), 1
    if hidden:
        wanted |= {"head.1.weight": (hidden, width), "head.1.bias": (hidden,)}
        width, last = hidden, 4
    wanted |= {f"head.{last}.weight": (targets, width), f"head.{last}.bias": (targets,)}
    check_tensors({name: tensors[name] for name in wanted if name in tensors}, wanted, weights)


def check_tensors(found: Shapes, wanted: Shapes, weights: str) -> None:
    """Raises ModelError unless the tensors of ``weights`` are those of the manifest's network, all and no others."""
    for name in [*wanted, *found]:
        if found.get(name) != wanted.get(name):
            held, expected = found.get(name, "missing"), wanted.get(name, "no such tensor")
            raise ModelError(
                f"{weights}: {ascii(name)[1:-1]:.80} is {held!s:.60}, the manifest's network makes it "
                f"{expected!s:.60}; export the bundle again"
            )


def _same(entry: Fields, field: str, wanted: float, of: str) -> None:
    value = entry.integer(field, 1, MAX_FIELD)
    if value != wanted:
        raise entry.wrong(field, value, f"{wanted:g}, as {of} says")


def _check_encoder(entry: Fields, rate: float) -> None:
    name = entry.text("encoder")
    if name not in encoders():
        raise entry.wrong("encoder", name, f"one of {', '.join(encoders())}")
    for field, kind in declared(name).items():
        if field == "patch":
            patch = entry.integer(field, 1, MAX_FIELD)
            if patch != rate:
                raise entry.wrong(field, patch, f"{rate:g}: a patch is one second at window.rate")
        elif kind == "int":
            entry.integer(field, 0, MAX_FIELD)
        elif kind == "float":
            entry.number(field, -float(MAX_FIELD), float(MAX_FIELD))
        elif kind == "bool":
            entry.boolean(field)
        elif kind == "str":
            entry.line(field, 200)
        elif kind.startswith("tuple[int"):
            least, most = (0, MAX_ENTRIES) if kind.endswith("...]") else [kind.count("int")] * 2
            entry.integers(field, least, most, 0, MAX_FIELD)
        else:
            entry.take(field)
    entry.close()

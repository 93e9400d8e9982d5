"""Reads the tensors of a PyTorch state dict file (``.pth``) without unpickling it.

Such a file is a zip: ``data.pkl`` says which tensor takes which piece of which storage, ``data/<key>`` are those.
``torch.load`` runs an unpickler over it, with ``weights_only`` one that calls permitted functions only. Here nothing is
called: `pickletools` names the instructions of the pickle, and only the few that a plain state dict is made of are
understood, as descriptions of tensors. Anything else is refused.
"""

from __future__ import annotations

import io
import math
import pickletools
import struct
import zipfile
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

MAX_PICKLE_BYTES = 4_000_000
MAX_TENSORS = 100_000
_UNREADABLE = (
    *(zipfile.BadZipFile, ValueError, IndexError, KeyError, TypeError, OSError, EOFError, NotImplementedError),
    *(RuntimeError, OverflowError, struct.error),
)


class PthError(Exception):
    """A file that is no plain state dict of float32 tensors: what was found, in words."""


@dataclass(frozen=True, slots=True)
class _Name:
    """A function or class that the pickle names. It is compared, never looked up."""

    path: str


@dataclass(frozen=True, slots=True)
class _Storage:
    key: str
    count: int


@dataclass(frozen=True, slots=True)
class _Piece:
    """A tensor: a contiguous piece of a storage."""

    storage: _Storage
    offset: int
    shape: tuple[int, ...]


class _Mark:
    """Where a group on the stack begins."""


def read_state(content: bytes) -> dict[str, NDArray[np.float32]]:
    """The tensors by name, in the file's order. Raises PthError for anything but a plain float32 state dict.

    ``content`` is the file: its caller has bounded it and knows its hash. Members that are compressed are refused, so
    nothing takes more memory than the file did.
    """
    try:
        archive = zipfile.ZipFile(io.BytesIO(content))
        members = {member.filename: member for member in archive.infolist()}
        pickles = [name for name in members if name.rpartition("/")[2] == "data.pkl"]
        if len(pickles) != 1 or len(members) > MAX_TENSORS:
            raise PthError(f"{len(pickles)} pickles in {len(members)} members, expected one state dict")
        if any(member.compress_type != zipfile.ZIP_STORED for member in members.values()):
            raise PthError("compressed members, which PyTorch does not write")
        if members[pickles[0]].file_size > MAX_PICKLE_BYTES:
            raise PthError(f"a description of {members[pickles[0]].file_size} bytes, at most {MAX_PICKLE_BYTES}")
        folder = pickles[0].removesuffix("data.pkl")
        if f"{folder}byteorder" in members and archive.read(f"{folder}byteorder") != b"little":
            raise PthError("numbers that are not little-endian")
        pieces = _described(archive.read(pickles[0]))
        storages: dict[str, NDArray[np.float32]] = {}
        for piece in pieces.values():
            key, count = piece.storage.key, piece.storage.count
            if key not in storages:
                storages[key] = np.frombuffer(archive.read(f"{folder}data/{key}"), dtype="<f4")
            if len(storages[key]) != count:
                raise PthError(f"storage {key:.20} of {len(storages[key])} numbers, {count} are described")
        return {name: _cut(storages[piece.storage.key], piece) for name, piece in pieces.items()}
    except _UNREADABLE as error:
        raise PthError(f"no state dict can be read ({' '.join(str(error).split()):.120})") from None


def _cut(storage: NDArray[np.float32], piece: _Piece) -> NDArray[np.float32]:
    end = piece.offset + math.prod(piece.shape)
    if not 0 <= piece.offset <= end <= len(storage):
        raise PthError(f"a tensor at {piece.offset} to {end} of a storage of {len(storage)} numbers")
    return storage[piece.offset : end].reshape(piece.shape).astype(np.float32)


def _described(pickled: bytes) -> dict[str, _Piece]:
    """The tensors that the pickle describes, by name."""
    stack: list[object] = []
    memo: dict[object, object] = {}

    def group() -> list[object]:
        """What lies above the last mark, taken off with it."""
        at = max(i for i, one in enumerate(stack) if isinstance(one, _Mark))
        above = stack[at + 1 :]
        del stack[at:]
        return above

    for instruction, argument, _ in pickletools.genops(pickled):
        match instruction.name:
            case "PROTO" | "FRAME":
                pass
            case "STOP":
                break
            case "MARK":
                stack.append(_Mark())
            case "EMPTY_DICT":
                stack.append({})
            case "EMPTY_TUPLE":
                stack.append(())
            case "BINUNICODE" | "SHORT_BINUNICODE" | "BININT" | "BININT1" | "BININT2" | "LONG1":
                stack.append(argument)
            case "NONE":
                stack.append(None)
            case "NEWTRUE" | "NEWFALSE":
                stack.append(instruction.name == "NEWTRUE")
            case "TUPLE":
                stack.append(tuple(group()))
            case "TUPLE1" | "TUPLE2" | "TUPLE3":
                size = int(instruction.name[-1])
                stack[-size:] = [tuple(stack[-size:])]
            case "BINPUT" | "LONG_BINPUT":
                memo[argument] = stack[-1]
            case "MEMOIZE":
                memo[len(memo)] = stack[-1]
            case "BINGET" | "LONG_BINGET":
                stack.append(memo[argument])
            case "GLOBAL":
                stack.append(_Name(str(argument)))
            case "BINPERSID":
                stack.append(_storage(stack.pop()))
            case "REDUCE":
                given = stack.pop()
                stack.append(_built(stack.pop(), given))
            case "SETITEM":
                value = stack.pop()
                _set(stack[-2], [stack.pop(), value])
            case "SETITEMS":
                items = group()
                _set(stack[-1], items)
            case "BUILD":
                stack.pop()  # what PyTorch notes beside the tensors: versions of modules
                if not isinstance(stack[-1], dict):
                    raise PthError("an object with a state of its own")
            case other:
                raise PthError(f"the instruction {other}, which a state dict does not need")
    result = stack.pop() if len(stack) == 1 else None
    if not isinstance(result, dict) or not all(isinstance(value, _Piece) for value in result.values()):
        raise PthError("something else than names with tensors")
    return result


def _set(target: object, items: list[object]) -> None:
    names = items[::2]
    if not isinstance(target, dict) or len(items) % 2 or not all(isinstance(name, str) for name in names):
        raise PthError("items that are not named")
    target.update(zip(names, items[1::2], strict=True))


def _storage(described: object) -> _Storage:
    match described:
        case ("storage", _Name("torch FloatStorage"), str(key), str(), int(count)) if count >= 0 and key.isalnum():
            return _Storage(key, count)
    raise PthError("a storage that is not of float32")


def _built(name: object, given: object) -> object:
    match name, given:
        case _Name("collections OrderedDict"), ():
            return {}
        case _Name("torch._utils _rebuild_tensor_v2"), (_Storage() as storage, int(at), tuple(shape), tuple(steps), *_):
            sizes = tuple(size for size in shape if isinstance(size, int) and size >= 0)
            rows = [math.prod(sizes[i + 1 :]) for i in range(len(sizes))]
            if len(sizes) != len(shape) or any(
                found != step for found, step, size in zip(steps, rows, sizes, strict=True) if size > 1
            ):
                raise PthError("a tensor that is not laid out row by row")
            return _Piece(storage, at, sizes)
        case _Name(path), _:
            raise PthError(f"a call of {path:.60}, which a state dict does not need")
    raise PthError("a call of nothing")

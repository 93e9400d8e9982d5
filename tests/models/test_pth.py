"""A state dict is read without running anything of it."""

from __future__ import annotations

import collections
import io
import pickle
import zipfile

import numpy as np
import pytest
import torch

from models.pth import PthError, read_state


def saved(value) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return buffer.getvalue()


def a_state():
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Conv2d(3, 4, (2, 5)), torch.nn.Linear(7, 3)).state_dict()


def rewritten(content: bytes, **members) -> bytes:
    """The file with other members: data_pkl=..., byteorder=... ."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(buffer, "w") as new:
        for info in old.infolist():
            name = info.filename.rpartition("/")[2].replace(".", "_")
            new.writestr(info.filename, members.get(name, old.read(info)))
    return buffer.getvalue()


@pytest.mark.parametrize(
    "make", [a_state, lambda: dict(a_state()), collections.OrderedDict], ids=["module", "dict", "none"]
)
def test_what_pytorch_wrote_is_what_is_read(make):
    state = make()
    got = read_state(saved(state))
    assert list(got) == list(state)
    assert all(np.array_equal(got[name], value.numpy()) for name, value in state.items())
    assert all(value.dtype == np.float32 for value in got.values())


def test_tensors_that_share_a_storage_are_read_from_their_place():
    whole = torch.arange(24.0).reshape(4, 6)
    got = read_state(saved({"whole": whole, "rows": whole[2:], "number": whole[1, 2]}))
    assert np.array_equal(got["rows"], whole[2:].numpy())
    assert got["number"] == 8.0


class Malicious:
    def __reduce__(self):
        return (print, ("executed",))


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ({"a": Malicious()}, "a call of __builtin__ print"),
        ([torch.zeros(1)], "instruction EMPTY_LIST"),
        ({"a": torch.zeros(2, dtype=torch.float64)}, "not of float32"),
        ({"a": torch.zeros(2, 3).T}, "not laid out row by row"),
        ({"a": 1.0}, "instruction BINFLOAT"),
        ({"a": 1}, "something else than names with tensors"),
        ({1: torch.zeros(1)}, "items that are not named"),
        (torch.zeros(2), "something else than names with tensors"),
        (torch.nn.Linear(2, 2), "a call of|the instruction|state of its own"),
    ],
    ids=lambda value: type(value).__name__ if not isinstance(value, str) else "",
)
def test_anything_but_a_plain_state_dict_is_refused_and_nothing_is_run(value, said, capsys):
    with pytest.raises(PthError, match=said):
        read_state(saved(value))
    assert capsys.readouterr().out == ""


def test_a_pickle_that_is_no_zip_is_refused(capsys):
    with pytest.raises(PthError, match="no state dict can be read"):
        read_state(pickle.dumps(Malicious()))
    assert capsys.readouterr().out == ""


def test_claims_that_the_file_does_not_bear_out_are_refused():
    content = saved(a_state())
    with pytest.raises(PthError, match="little-endian"):
        read_state(rewritten(content, byteorder=b"big"))
    with pytest.raises(PthError, match=r"storage 0 of \d+ numbers"):
        read_state(rewritten(content, **{"0": b"\0" * 8}))
    with pytest.raises(PthError, match="a description of"):
        read_state(rewritten(content, data_pkl=b"\0" * 5_000_000))
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as bomb:
        bomb.writestr("archive/data.pkl", b"\0" * 1000)
    with pytest.raises(PthError, match="compressed members"):
        read_state(buffer.getvalue())


def test_a_damaged_file_is_refused_or_read_but_never_a_traceback():
    content = saved(a_state())
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        pickled = archive.read(next(name for name in archive.namelist() if name.endswith("data.pkl")))
    random = np.random.default_rng(0)
    refused = 0
    for _ in range(400):
        damaged = bytearray(pickled)
        for at in random.integers(len(damaged), size=random.integers(1, 4)):
            damaged[at] = random.integers(256)
        try:
            read_state(rewritten(content, data_pkl=bytes(damaged)))
        except PthError:
            refused += 1
    for length in range(0, len(content), 97):
        with pytest.raises(PthError):
            read_state(content[:length])
    assert refused > 200

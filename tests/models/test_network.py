"""What a manifest says of its network is held against the weights and the window before anything is built of it."""

from __future__ import annotations

import json
import struct
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy

from models.api import ModelError
from models.bundle import WEIGHTS, default_bundle_folder, load_bundle, write_bundle
from models.network import tensor_shapes
from models.runtimes import load_runtime

ROOT = Path(__file__).resolve().parents[2]


def with_network(bundle, folder, change):
    """The bundle with another ``network``, which ``change`` makes of a copy of its own."""
    network = json.loads(json.dumps(bundle.manifest.network))
    change(network)
    return write_bundle(
        folder / "other", replace(bundle.manifest, network=network), {name: bundle.read(name) for name in bundle.files}
    )


def line(error) -> str:
    text = str(error.value)
    assert text.isprintable()
    assert len(text) < 800
    return text


def packed(header, body=b""):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + body


def one(**other):
    return {"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]} | other}


def test_names_and_shapes_of_weights_are_those_that_safetensors_reads():
    content = (default_bundle_folder() / WEIGHTS).read_bytes()
    assert tensor_shapes(content, "w") == {name: value.shape for name, value in safetensors.numpy.load(content).items()}
    empty = {"none": np.zeros((0, 3), np.float32), "single": np.ones((), np.float32)}
    assert tensor_shapes(safetensors.numpy.save(empty, {"by": "a test"}), "w") == {"none": (0, 3), "single": ()}


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "header is cut off"),
        (bytes(100), "header is cut off"),
        (b"\xff" * 100, "header is cut off"),
        (struct.pack("<Q", 10**10) + b"{}", "header is cut off"),
        (packed(b"no JSON"), "not safetensors"),
        (packed(b"[" * 100_000), "not safetensors"),
        (packed(b'{"a": 1, "a": 2}'), "stands twice"),
        (packed([1]), "no list of at most"),
        (packed({f"x{i}": {} for i in range(30_000)}), "no list of at most"),
        (packed({"a": 1}), "a is 1, expected an object"),
        (packed({"a\n\x1b[31m": {}}), "dtype is missing"),
        (packed(one(dtype="F64"), bytes(8)), "a.dtype is 'F64', expected F32"),
        (packed(one(shape=[10**9, 10**9]), bytes(8)), "a.shape is"),
        (packed(one(shape=[-1, -2]), bytes(8)), "a.shape[0] is -1"),
        (packed(one(shape=[2.0]), bytes(8)), "a.shape[0] is 2.0"),
        (packed(one(data_offsets=[8, 16]), bytes(16)), "overlap or leave a hole"),
        (packed(one(data_offsets=[8, 0]), bytes(8)), "a.shape is"),
        (packed(one()), "the tensors take 8 bytes, 0 follow"),
        (packed(one(), bytes(9)), "the tensors take 8 bytes, 9 follow"),
        (packed(one() | {"b": one()["a"]}, bytes(8)), "overlap or leave a hole"),
    ],
)
def test_weights_that_are_no_safetensors_are_refused_when_the_bundle_is_read(bundle, tmp_path, content, said):
    files = {name: bundle.read(name) for name in bundle.files} | {WEIGHTS: content}
    with pytest.raises(ModelError, match=r"weights\.safetensors: ") as error:
        write_bundle(tmp_path / "other", bundle.manifest, files)
    assert said in line(error)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda n: n.pop("eeg"), "network.eeg is missing"),
        (lambda n: n.update(eeg=[]), "network.eeg is [], expected an object"),
        (lambda n: n["eeg"].update(encoder="transformer"), "network.eeg.encoder is 'transformer', expected one of cb"),
        (lambda n: n["eeg"].update(encoder=["cbramod"]), "network.eeg.encoder is"),
        (lambda n: n["eeg"].update(dmodel=1), "'network.eeg.dmodel' is not a field"),
        (lambda n: n["ecg"].update(d_model="40"), "network.ecg.d_model is '40', expected a whole number"),
        (lambda n: n["ecg"].update(layers=10**30), "network.ecg.layers is a huge number"),
        (lambda n: n["ecg"].update(position_kernel=[1]), "network.ecg.position_kernel is [1], expected a list of 2"),
        (lambda n: n["ecg"].update(position_kernel=[1, 2.5]), "network.ecg.position_kernel[1] is 2.5"),
        (lambda n: n["ecg"].update(encoder="eegnet"), "network.ecg.filters is missing"),
        (lambda n: n.update(surprise=1), "'network.surprise' is not a field"),
        (lambda n: n.update(head_hidden=8), "head.1.weight is (2, 119), the manifest's network makes it (8, 119)"),
        (lambda n: n.update(heart_features=9), "heart.learned.2.bias is (8,), the manifest's network makes it (9,)"),
    ],
)
def test_a_network_that_cannot_be_is_named_when_the_bundle_is_read_whatever_computes_it(bundle, tmp_path, change, said):
    with pytest.raises(ModelError) as error:
        with_network(bundle, tmp_path, change)
    assert said in line(error)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda m: m["window"]["inputs"][0].update(unit="mV"), "window.inputs[0].unit is 'mV', expected \"uV\""),
        (lambda m: m["window"]["inputs"][1].update(unit="V"), "window.inputs[1].unit is 'V', expected \"uV\""),
        (lambda m: m["window"].update(rate=250.0), "network.rate is 200, expected 250, as window.rate says"),
        (lambda m: m["window"].update(rate=200.5), "network.rate is 200, expected 200.5, as window.rate says"),
        (lambda m: m["window"].update(seconds=5.0), "network.seconds is 4, expected 5, as window.seconds says"),
        (lambda m: m["window"].update(seconds=4.001), "network.seconds is 4, expected 4.001, as window.seconds says"),
        (
            lambda m: m["window"]["inputs"][0]["channels"].append("Cz"),
            "network.eeg_channels is 6, expected 7, as window.inputs[0].channels says",
        ),
        (
            lambda m: m["window"]["inputs"][1]["channels"].append("ECG2"),
            "network.ecg_channels is 1, expected 2, as window.inputs[1].channels says",
        ),
        (lambda m: m["network"].update(rate=100), "network.rate is 100, expected 200, as window.rate says"),
        (lambda m: m["network"]["ecg"].update(patch=100), "network.ecg.patch is 100, expected 200: a patch is one"),
        (lambda m: m["network"].update(targets=3), "network.targets is 3, expected 2, as targets says"),
    ],
)
def test_a_window_that_is_not_the_networks_is_one_line_when_the_bundle_is_read(folder, change, said):
    path = folder / "manifest.json"
    manifest = json.loads(path.read_text(encoding="utf-8"))
    change(manifest)
    path.write_text(json.dumps(manifest), encoding="utf-8")
    with pytest.raises(ModelError) as error:
        load_bundle(folder)
    assert said in line(error)


def test_weights_of_another_network_are_refused_when_the_bundle_is_read(bundle, tmp_path):
    tensors = safetensors.numpy.load(bundle.read(WEIGHTS))
    for name in ("absent_eeg", "absent_ecg", "head.1.weight", "head.1.bias"):
        for held in ({}, {name: tensors[name][..., :-1].copy()}):
            others = {key: value for key, value in tensors.items() if key != name} | held
            files = {key: bundle.read(key) for key in bundle.files} | {WEIGHTS: safetensors.numpy.save(others)}
            with pytest.raises(ModelError, match=f"{WEIGHTS}: {name} is .*, the manifest's network makes it") as error:
                write_bundle(tmp_path / "other", bundle.manifest, files)
            line(error)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda n: n["eeg"].update(d_model=80), "network makes embeddings of"),
        (lambda n: n.update(band_power=False), "network makes embeddings of"),
        (lambda n: n["eeg"].update(ffn=81), "eeg_encoder.encoder.layers.0.linear1.weight is (80, 40)"),
        (lambda n: n["ecg"].update(layers=3), "ecg_encoder.encoder.layers.2.self_attn_s.in_proj_weight is missing"),
        (lambda n: n["ecg"].update(layers=1), "the manifest's network makes it no such tensor"),
        (lambda n: n["eeg"].update(layers=0), "network.eeg.layers is 0, expected a whole number from 1"),
        (lambda n: n["eeg"].update(heads=5), "network cannot be built (d_model 40 does not split into 5 heads"),
        (lambda n: n["eeg"].update(heads=8), "differs from the golden"),
        (lambda n: n["eeg"].update(norm_groups=3), "network cannot be built (d_model 40 is no multiple"),
        (lambda n: n["eeg"].update(position_kernel=[5, 4]), "network cannot be built"),
    ],
)
def test_what_only_the_encoder_can_check_is_refused_in_a_line_before_its_network_is_built(
    bundle, tmp_path, change, said
):
    other = with_network(bundle, tmp_path, change)
    with pytest.raises(ModelError) as error:
        load_runtime("pytorch", other)
    assert said in line(error)


def figures(value, path=()):
    """Where the figures and switches of a network stand, however deep."""
    if isinstance(value, dict | list):
        for key, entry in value.items() if isinstance(value, dict) else enumerate(value):
            yield from figures(entry, (*path, key))
    elif isinstance(value, int):
        yield path


def test_every_figure_of_a_network_that_is_another_than_it_was_trained_with_is_refused(bundle, tmp_path):
    described = json.loads(json.dumps(bundle.manifest.network))
    paths = list(figures(described))
    for path in paths:

        def change(network, path=path):
            for key in path[:-1]:
                network = network[key]
            held = network[path[-1]]
            network[path[-1]] = not held if isinstance(held, bool) else held * 2 + 2

        with pytest.raises(ModelError) as error:
            load_runtime("pytorch", with_network(bundle, tmp_path, change))
        assert line(error), path
    assert len(paths) > 20


HUGE = """
import json, resource, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from models.api import ModelError
from models.bundle import load_bundle
from models.runtimes import load_runtime
folder = Path(sys.argv[2])
pristine = (folder / "manifest.json").read_text(encoding="utf-8")
load_runtime("pytorch", load_bundle(folder))
used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + 4_000_000_000,) * 2)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
wide = {"d_model": 8160, "ffn": 65536, "layers": 256}
for change in (
    lambda m: m["network"]["eeg"].update(wide),
    lambda m: (m["network"]["eeg"].update(wide), m["embedding"].update(eeg=8160 + 5 * 6),
               m["rest"].update(pooled_sd=[1.0] * (8190 + m["embedding"]["ecg"]))),
    lambda m: m["network"]["ecg"].update(layers=256, ffn=65536),
    lambda m: m["network"]["ecg"].update(position_kernel=[999, 999]),
    lambda m: m["network"].update(head_hidden=65536),
    lambda m: (m["network"].update(seconds=3600), m["window"].update(seconds=3600.0), m["rest"].update(seconds=3600.0)),
    lambda m: m["network"].update(eeg_channels=1024),
    lambda m: (m["network"].update(rate=10000), m["window"].update(rate=10000.0),
               [m["network"][kind].update(patch=10000) for kind in ("eeg", "ecg")]),
):
    manifest = json.loads(pristine)
    change(manifest)
    (folder / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    try:
        load_runtime("pytorch", load_bundle(folder))
    except ModelError as error:
        print(error)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="looks at its memory as Linux tells it")
def test_a_network_that_claims_gigabytes_is_refused_without_taking_them(folder):
    command = [sys.executable, "-c", HUGE, str(ROOT), str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    *lines, megabytes = done.stdout.splitlines()
    assert len(lines) == 8, lines
    assert int(megabytes) < 300


@pytest.mark.parametrize("name", ["default", "small"])
def test_a_bundle_that_is_right_is_read(bundle, name):
    assert load_bundle(default_bundle_folder() if name == "default" else bundle.folder)

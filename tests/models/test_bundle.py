"""A bundle is opened whole or not at all: each damage is one line that names file, finding and remedy."""

from __future__ import annotations

import hashlib
import io
import json
import subprocess
import sys
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from models.api import ModelError
from models.bundle import default_bundle_folder, golden, load_bundle, write_bundle

ROOT = Path(__file__).resolve().parents[2]


def edit(folder, change):
    """Applies ``change`` to the parsed manifest."""
    path = folder / "manifest.json"
    manifest = json.loads(path.read_text(encoding="utf-8"))
    change(manifest)
    path.write_text(json.dumps(manifest), encoding="utf-8")


def list_again(folder, name):
    """Makes the manifest agree with a file that was changed: an author who did it on purpose."""
    content = (folder / name).read_bytes()
    entry = {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
    edit(folder, lambda manifest: manifest["files"].update({name: entry}))


def refusal(folder) -> str:
    with pytest.raises(ModelError) as caught:
        golden(load_bundle(folder))
    text = str(caught.value)
    assert "\n" not in text
    assert text.isprintable()
    assert len(text) < 600 + len(str(folder))
    return text.replace(str(folder), "FOLDER")


def test_what_was_written_is_what_is_loaded(bundle):
    loaded = load_bundle(bundle.folder)
    assert loaded == bundle
    assert loaded.hash == hashlib.sha256((bundle.folder / "manifest.json").read_bytes()).hexdigest()
    assert loaded.short_hash == loaded.hash[:12]
    assert loaded.label == f"small 0.1 ({loaded.short_hash})"
    assert [spec.kind for spec in loaded.manifest.window.inputs] == ["eeg", "ecg"]


def test_writing_a_loaded_manifest_again_gives_the_same_hash(bundle, tmp_path):
    files = {name: bundle.read(name) for name in bundle.files}
    assert write_bundle(tmp_path / "again", bundle.manifest, files).hash == bundle.hash


def test_a_copy_has_the_same_hash_and_any_other_manifest_another(bundle, folder):
    assert load_bundle(folder).hash == bundle.hash
    edit(folder, lambda manifest: manifest.update(accuracy="perfect"))
    assert load_bundle(folder).hash != bundle.hash


@pytest.mark.parametrize("name", ["manifest.json", "graph.onnx", "weights.safetensors", "golden.npz"])
def test_a_missing_file_is_named(folder, name):
    (folder / name).unlink()
    assert refusal(folder) == f"FOLDER/{name}: missing; fetch or export the bundle again"


def test_a_missing_folder_is_named(tmp_path):
    assert refusal(tmp_path / "nowhere").startswith("FOLDER: no such folder")


@pytest.mark.parametrize("name", ["graph.onnx", "weights.safetensors", "golden.npz"])
def test_one_changed_byte_is_found(folder, name):
    content = bytearray((folder / name).read_bytes())
    content[len(content) // 2] ^= 1
    (folder / name).write_bytes(content)
    assert refusal(folder).startswith(f"FOLDER/{name}: SHA-256 is ")


def test_a_truncated_file_is_found(folder):
    (folder / "graph.onnx").write_bytes((folder / "graph.onnx").read_bytes()[:-1])
    assert "bytes, the manifest says" in refusal(folder)


def test_a_file_changed_after_loading_is_not_used(folder):
    loaded = load_bundle(folder)
    (folder / "graph.onnx").write_bytes(b"x" * loaded.files["graph.onnx"][1])
    with pytest.raises(ModelError, match="SHA-256"):
        loaded.read("graph.onnx")


@pytest.mark.parametrize(
    "name", ["../manifest.json", "/etc/passwd", "a/b", "a\\b", "..", ".hidden", "C:x", "", "a\nb", "x" * 300]
)
def test_a_file_outside_the_folder_cannot_be_named(folder, name):
    edit(folder, lambda manifest: manifest["files"].update({name: {"sha256": "0" * 64, "bytes": 1}}))
    assert "plain file names in its own folder only" in refusal(folder)


def test_a_folder_in_the_place_of_a_file_is_refused(folder):
    (folder / "graph.onnx").unlink()
    (folder / "graph.onnx").mkdir()
    assert refusal(folder) == "FOLDER/graph.onnx: is not a file"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "no JSON",
        "[1, 2]",
        "[" * 100_000,
        '{"schema": NaN}',
        '{"schema": 1, "schema": 1}',
        "9" * 10_000,
        "\x00",
        '"\ud800"',
    ],
)
def test_a_manifest_that_is_no_json_object_is_refused(folder, text):
    (folder / "manifest.json").write_bytes(text.encode("utf-8", "surrogatepass"))
    assert refusal(folder).startswith("FOLDER/manifest.json: ")


def test_a_huge_manifest_is_not_read(folder):
    (folder / "manifest.json").write_bytes(b" " * 5_000_000)
    assert "at most 4000000 are read" in refusal(folder)


@pytest.mark.parametrize("schema", [2, 0, "1", True, None, {}])
def test_an_unknown_schema_is_refused(folder, schema):
    edit(folder, lambda manifest: manifest.update(schema=schema))
    assert "this insula reads 1; update insula or the bundle" in refusal(folder)


def fields(value, path=()):
    """Every field of a manifest, however deep, apart from what stands in its free parts."""
    if path[:1] in (("metrics",), ("training",), ("network",)):
        return
    if isinstance(value, dict):
        for key, entry in value.items():
            yield (*path, key)
            yield from fields(entry, (*path, key))
    elif isinstance(value, list):
        for index, entry in enumerate(value[:2]):
            yield from fields(entry, (*path, index))


def test_every_field_is_needed_and_checked(bundle, folder):
    pristine = json.loads((bundle.folder / "manifest.json").read_text(encoding="utf-8"))
    seen = 0
    for path in fields(pristine):
        for wrong in (None, "deleted", -1e300, 10**400, [[]], {"surprise": 1}, "line\nbreak\x1b[31m"):
            manifest = json.loads(json.dumps(pristine))
            entry = manifest
            for key in path[:-1]:
                entry = entry[key]
            free = wrong == {"surprise": 1} and path[0] in ("metrics", "training", "network")
            if free or (wrong == "deleted" and isinstance(path[-1], int)):
                continue
            if wrong == "deleted":
                del entry[path[-1]]
            else:
                entry[path[-1]] = wrong
            (folder / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
            assert refusal(folder), path
            seen += 1
    assert seen > 300


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda m: m.update(surprise=1), "'surprise' is not a field"),
        (lambda m: m["window"].update(seconds=1e9), "window.seconds"),
        (lambda m: m["window"]["inputs"][0].update(band=[45, 0.5]), "0 < low < high"),
        (lambda m: m["window"]["inputs"][0].update(channels=["C3"] * 6), "names that differ"),
        (lambda m: m["window"]["inputs"].reverse(), "['eeg', 'ecg'], in this order"),
        (lambda m: m["window"]["inputs"][0].update(min_channels=7), "a whole number from 1 to 6"),
        (lambda m: m["embedding"].update(eeg=3), "rest.pooled_sd"),
        (lambda m: m["rest"]["pooled_sd"].__setitem__(3, 0.0), "rest.pooled_sd[3] is 0.0"),
        (lambda m: m["rest"].update(seconds=1), "rest.seconds is 1"),
        (lambda m: m["calibration"].pop("ecg"), "calibration.ecg is missing"),
        (lambda m: m["calibration"]["eeg"].update(temperature=[0.0, 1.0]), "calibration.eeg.temperature[0]"),
        (lambda m: m["targets"][0].update(kind="magic"), '"binary"'),
        (lambda m: m["targets"][1].update(name="arousal"), "names that differ"),
        (lambda m: m["targets"][0].update(name="a,b"), "becomes a column"),
        (lambda m: m["targets"][0].update(range=[1, 0]), "low < high"),
        (lambda m: m["files"]["graph.onnx"].update(bytes=10**15), "files.graph.onnx.bytes"),
        (lambda m: m["files"].pop("golden.npz"), "files lacks golden.npz"),
        (lambda m: m["gate"]["min_present"].pop("ecg"), "gate.min_present.ecg is missing"),
    ],
)
def test_a_wrong_field_is_named(folder, change, said):
    edit(folder, change)
    assert said in refusal(folder)


def packed(arrays):
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    return buffer.getvalue()


def bomb():
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("in_eeg.npy", bytes(80_000_000))
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: b"PK not really", "no arrays can be read"),
        (lambda: packed({"in_eeg": np.zeros(3)}), "holds in_eeg, expected in_eeg, in_ecg"),
        (lambda: packed({"in_eeg": np.array([{"a": 1}], dtype=object)}), "no arrays can be read"),
        (bomb, "unpacks to 80000000 bytes"),
    ],
)
def test_a_golden_file_of_something_else_is_refused(folder, make, said):
    (folder / "golden.npz").write_bytes(make())
    list_again(folder, "golden.npz")
    assert said in refusal(folder)


def test_golden_values_that_are_not_finite_are_refused(folder, bundle):
    inputs, outputs = golden(bundle)
    arrays = {f"in_{name}": value for name, value in inputs.items()}
    arrays |= {f"out_{name}": np.full_like(value, np.nan) for name, value in outputs.items()}
    (folder / "golden.npz").write_bytes(packed(arrays))
    list_again(folder, "golden.npz")
    assert "not finite" in refusal(folder)


def test_an_invalid_manifest_cannot_be_written(bundle, tmp_path):
    files = {name: bundle.read(name) for name in bundle.files}
    with pytest.raises(ModelError, match="licence"):
        write_bundle(tmp_path / "bundle", replace(bundle.manifest, licence=""), files)
    with pytest.raises(ModelError, match="not a file name"):
        write_bundle(tmp_path / "bundle", bundle.manifest, {"../graph.onnx": b""})


def test_the_default_bundle_lies_inside_the_package():
    assert default_bundle_folder() == ROOT / "models" / "bundles" / "default"


def test_opening_and_running_a_bundle_imports_no_torch(bundle):
    program = (
        "import sys; from pathlib import Path; from models.bundle import load_bundle\n"
        "from models.model import Model; from models.runtimes import load_runtime\n"
        f"bundle = load_bundle(Path({str(bundle.folder)!r})); Model(bundle, load_runtime('ort', bundle))\n"
        "assert not {'torch', 'safetensors', 'onnx'} & set(sys.modules), sorted(sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr

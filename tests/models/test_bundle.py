"""A bundle is opened whole or not at all: each damage is one line that names file, finding and remedy."""

from __future__ import annotations

import hashlib
import io
import json
import subprocess
import sys
import tracemalloc
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy

from insula import own_score
from models.api import ModelError
from models.bundle import (
    GOLDEN,
    WEIGHTS,
    ContinuousCalibration,
    OrdinalCalibration,
    Target,
    default_bundle_folder,
    golden,
    load_bundle,
    pack_golden,
    write_bundle,
)
from models.distance import Distance

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


@pytest.mark.parametrize("schema", [1, 3, 0, "2", True, None, {}])
def test_an_unknown_schema_is_refused(folder, schema):
    edit(folder, lambda manifest: manifest.update(schema=schema))
    assert "this insula reads 2; update insula or the bundle" in refusal(folder)


def test_a_bundle_of_schema_1_is_answered_with_one_line_before_anything_else_of_it_is_read(folder):
    old = {"schema": 1, "calibration": {"eeg": {"temperature": [1.0]}}, "files": "gone"}
    (folder / "manifest.json").write_text(json.dumps(old), encoding="utf-8")
    assert refusal(folder) == "FOLDER/manifest.json: schema is 1, this insula reads 2; update insula or the bundle"


@pytest.fixture(scope="module")
def mixed(bundle, tmp_path_factory):
    """The small bundle, said to have a target of each kind; nothing computes its graph."""
    inputs, outputs = golden(bundle)
    outputs["logit"] = np.zeros((1, 3), np.float32)
    manifest = replace(
        bundle.manifest,
        targets=(
            *bundle.manifest.targets[:1],
            Target(name="rating", kind="ordinal", range=(1.0, 5.0), levels=(1.0, 2.0, 3.5, 5.0), meaning="1 low"),
            Target(name="valence", kind="continuous", range=(1.0, 9.0), meaning="1 sad, 9 glad"),
        ),
        calibration={
            used: {
                "arousal": fits["arousal"],
                "rating": OrdinalCalibration(temperature=1.0, thresholds=(-1.0, 0.0, 1.5), logit_sd=0.5),
                "valence": ContinuousCalibration(slope=-1.0, intercept=5.0, sd=1.5),
            }
            for used, fits in bundle.manifest.calibration.items()
        },
        network={**bundle.manifest.network, "targets": 3},
    )
    weights = safetensors.numpy.load(bundle.read(WEIGHTS))
    weights |= {name: np.repeat(weights[name], 2, axis=0)[:3] for name in ("head.1.weight", "head.1.bias")}
    files = {name: bundle.read(name) for name in bundle.files} | {
        GOLDEN: pack_golden(inputs, outputs),
        WEIGHTS: safetensors.numpy.save(weights),
    }
    return write_bundle(tmp_path_factory.mktemp("mixed") / "bundle", manifest, files)


def test_targets_of_every_kind_are_read_as_they_were_written(mixed):
    loaded = load_bundle(mixed.folder).manifest
    assert loaded == mixed.manifest
    assert [target.kind for target in loaded.targets] == ["binary", "ordinal", "continuous"]
    assert loaded.calibration["ecg"]["rating"].thresholds == (-1.0, 0.0, 1.5)


def fields(value, path=()):
    """Every field of a manifest, however deep; of entries that are alike, as the figures of each person, two."""
    if isinstance(value, dict):
        seen = {}
        for key, entry in value.items():
            yield (*path, key)
            alike = str(sorted(entry)) if isinstance(entry, dict) else key
            seen[alike] = seen.get(alike, 0) + 1
            if seen[alike] <= 2:
                yield from fields(entry, (*path, key))
    elif isinstance(value, list):
        for index, entry in enumerate(value[:2]):
            yield (*path, index)
            yield from fields(entry, (*path, index))


FREE = ("metrics", "training")
"""Whatever an author writes there is read by people only; no estimate depends on it."""
WRONG = (None, "deleted", True, "", -1e300, 1e300, 10**400, [], [[]], {}, {"surprise": 1}, "line\nbreak\x1b[31m")


def copy_of(bundle, folder):
    folder.mkdir()
    for path in bundle.folder.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    return folder


def spoilt(pristine):
    """For every field of a manifest and each wrong value: where it is, what it is, and the manifest with it."""
    for path in fields(pristine):
        held = pristine
        for key in path:
            held = held[key]
        for wrong in WRONG:
            same = wrong == held and type(wrong) is type(held)
            if same or (wrong == "deleted" and isinstance(path[-1], int)):
                continue
            manifest = json.loads(json.dumps(pristine))
            entry = manifest
            for key in path[:-1]:
                entry = entry[key]
            if wrong == "deleted":
                del entry[path[-1]]
            else:
                entry[path[-1]] = wrong
            yield path, wrong, manifest


@pytest.mark.parametrize("which", ["shipped", "of every kind of target"])
def test_every_field_is_needed_and_checked(mixed, tmp_path, which):
    original = load_bundle(default_bundle_folder()) if which == "shipped" else mixed
    folder = copy_of(original, tmp_path / "spoilt")
    pristine = json.loads((original.folder / "manifest.json").read_text(encoding="utf-8"))
    reached = set()
    for path, wrong, manifest in spoilt(pristine):
        free = path[0] in FREE and (len(path) > 1 or isinstance(wrong, dict))
        # Not in bundles made before there was one; of a switch without weights only who builds the network knows.
        if free or (path == ("network", "variability") and (wrong == "deleted" or isinstance(wrong, bool))):
            continue
        (folder / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
        assert refusal(folder), (path, wrong)
        reached.add(path)
    assert {path[0] for path in reached} == set(pristine)
    assert len([path for path in reached if path[0] == "network"]) >= 30


def test_what_an_author_says_of_scores_and_training_cannot_harm_whatever_it_is(tmp_path):
    original = load_bundle(default_bundle_folder())
    folder = copy_of(original, tmp_path / "spoilt")
    pristine = json.loads((original.folder / "manifest.json").read_text(encoding="utf-8"))
    reached = set()
    for path, wrong, manifest in spoilt(pristine):
        if path[0] not in FREE or len(path) == 1:
            continue
        (folder / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
        loaded = load_bundle(folder)
        said = {part: getattr(loaded.manifest, part) for part in FREE}
        assert replace(original.manifest, **said) == loaded.manifest, (path, wrong)
        assert own_score(loaded).isprintable()  # what of it the demonstration shows
        reached.add(path)
    assert len(reached) > 100


def objects(value, path=()):
    """Where the objects of a manifest stand whose fields are all known."""
    if isinstance(value, dict) and path[:1] not in (("metrics",), ("training",)):
        yield path
        for key, entry in value.items():
            yield from objects(entry, (*path, key))
    elif isinstance(value, list):
        for index, entry in enumerate(value):
            yield from objects(entry, (*path, index))


def test_a_field_that_no_part_of_a_manifest_has_is_not_passed_over(mixed, tmp_path):
    folder = copy_of(mixed, tmp_path / "mixed")
    pristine = json.loads((mixed.folder / "manifest.json").read_text(encoding="utf-8"))
    places = list(objects(pristine))
    for path in places:
        manifest = json.loads(json.dumps(pristine))
        entry = manifest
        for key in path:
            entry = entry[key]
        entry["surprise"] = 1
        (folder / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
        assert "surprise" in refusal(folder), path
    assert len(places) > 25


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda m: m["targets"][1].update(levels=[1, 3, 2, 5]), "2 or more rising values from 1 to 5"),
        (lambda m: m["targets"][1].update(levels=[1, 5, 5, 5]), "targets[1].levels"),
        (lambda m: m["targets"][1].update(levels=[1, 2, 3.5, 4]), "the ends of the range"),
        (lambda m: m["targets"][1].update(levels=[1]), "2 or more"),
        (lambda m: m["targets"][1].update(levels=list(range(1000))), "a list of 0 to 16"),
        (lambda m: m["targets"][0].update(levels=[0, 1]), "none of a binary target"),
        (lambda m: m["targets"][2].update(kind="ordinal"), "targets[2].levels"),
        (lambda m: m["targets"][2].update(kind="binary"), "calibration.eeg+ecg.valence.temperature is missing"),
        (lambda m: m["calibration"]["eeg"]["rating"].update(thresholds=[0, 0, 1]), "rising values"),
        (lambda m: m["calibration"]["eeg"]["rating"].update(thresholds=[0, 1]), "a list of 3"),
        (lambda m: m["calibration"]["eeg"].pop("valence"), "calibration.eeg.valence is missing"),
        (lambda m: m["calibration"]["ecg"]["valence"].update(sd=-1), "calibration.ecg.valence.sd is -1"),
        (lambda m: m["distance"].pop("ecg"), "distance.ecg is missing"),
        (lambda m: m["distance"]["eeg"].update(plain=0), "distance.eeg.plain is 0"),
        (lambda m: m["files"].pop("distance.npz"), "files lacks distance.npz"),
    ],
)
def test_a_wrong_target_calibration_or_limit_is_named(mixed, tmp_path, change, said):
    folder = copy_of(mixed, tmp_path / "mixed")
    edit(folder, change)
    assert said in refusal(folder)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda m: m.update(surprise=1), "'surprise' is not a field"),
        (lambda m: m["window"].update(seconds=1e9), "window.seconds"),
        (lambda m: m["window"]["inputs"][0].update(band=[45, 0.5]), "<= low < high"),
        (lambda m: m["window"]["inputs"][0].update(band=[1e-7, 45]), "<= low < high"),
        (lambda m: m["window"]["inputs"][0].update(channels=["C3"] * 6), "names that differ"),
        (lambda m: m["window"]["inputs"].reverse(), "['eeg', 'ecg'], in this order"),
        (lambda m: m["window"]["inputs"][0].update(min_channels=7), "a whole number from 1 to 6"),
        (lambda m: m["embedding"].update(eeg=3), "rest.pooled_sd"),
        (lambda m: m["rest"]["pooled_sd"].__setitem__(3, 0.0), "rest.pooled_sd[3] is 0.0"),
        (lambda m: m["rest"].update(seconds=1), "rest.seconds is 1"),
        (lambda m: m["calibration"].pop("ecg"), "calibration.ecg is missing"),
        (lambda m: m["calibration"]["eeg"]["effort"].update(temperature=0.0), "calibration.eeg.effort.temperature"),
        (lambda m: m["targets"][0].update(kind="magic"), '"binary"'),
        (lambda m: m["targets"][1].update(name="arousal"), "names that differ"),
        (lambda m: m["targets"][0].update(name="a,b"), "becomes a column"),
        (lambda m: m["targets"][0].update(range=[1, 0]), "above low"),
        (lambda m: m["targets"][0].update(range=[0, 1e-300]), "above low"),
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


def scrambled(content):
    return content[:80] + bytes(255 - byte for byte in content[80:100]) + content[100:]


def member(content, name="in_eeg.npy", claimed=None, how=zipfile.ZIP_DEFLATED):
    """A zip of one member, which may claim another size than it has."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", how) as archive:
        archive.writestr(name, content)
    packed_bytes = bytearray(buffer.getvalue())
    if claimed is not None:
        directory = packed_bytes.rindex(b"PK\x01\x02")
        packed_bytes[directory + 24 : directory + 28] = claimed.to_bytes(4, "little")
    return bytes(packed_bytes)


def npy(shape, descr="<f4", body=b""):
    """The bytes of an array that claims a shape and a type."""
    header = repr({"descr": descr, "fortran_order": False, "shape": shape}).encode()
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + body


class Marking:
    """What a pickle can do when somebody loads it."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


@pytest.mark.parametrize("name", ["golden.npz", "distance.npz"])
@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: b"PK not really", "no arrays can be read"),
        (lambda: packed({"in_eeg": np.zeros(3)}), "holds in_eeg, expected "),
        (lambda: packed({}), "holds nothing, expected "),
        (lambda: packed({f"x{i}": np.zeros(1) for i in range(100)}), "in 100 arrays, at most"),
        (lambda: packed({"a\n\x1b[31mb": np.zeros(1)}), "expected "),
        (lambda: packed({"in_eeg": np.array([{"a": 1}], dtype=object)}), "no arrays can be read"),
        (lambda: packed({"in_eeg": np.array(["text"])}), "no arrays can be read"),
        (lambda: packed({"in_eeg": np.array([1j])}), "no arrays can be read"),
        (lambda: member(bytes(80_000_000)), "unpacks to 80000000 bytes"),
        (lambda: member(bytes(80_000_000), claimed=1000), "no arrays can be read"),
        (lambda: member(npy((10**5, 10**5))), "no arrays can be read"),
        (lambda: member(npy((10**30,))), "no arrays can be read"),
        (lambda: member(npy((-1,))), "no arrays can be read"),
        (lambda: member(npy((2,), body=bytes(8)).replace(b"NUMPY\x01", b"NUMPY\x07")), "no arrays can be read"),
        (lambda: member(npy((2,), descr="O", body=bytes(8))), "no arrays can be read"),
        (lambda: member(npy((2,), descr="<f4", body=bytes(7))), "no arrays can be read"),
        (lambda: member(b""), "no arrays can be read"),
        (lambda: member(npy((2,)).replace(b"'<f4'", b"('<f4'")), "no arrays can be read"),  # brackets without an end
        (lambda: member(npy((2,)).replace(b"{", b"\n ")), "no arrays can be read"),  # indented for no reason
        (
            lambda: scrambled(member(npy((2,), body=bytes(range(250)) * 40), how=zipfile.ZIP_LZMA)),
            "no arrays can be read",
        ),
        (lambda: packed({"in_eeg": np.zeros(3)})[:-30], "no arrays can be read"),
    ],
)
def test_an_array_file_of_something_else_is_refused_without_taking_memory(folder, name, make, said):
    (folder / name).write_bytes(make())
    list_again(folder, name)
    damaged = load_bundle(folder)  # the hash is right: an author who did it on purpose
    tracemalloc.start()
    with pytest.raises(ModelError) as caught:
        golden(damaged) if name == "golden.npz" else Distance(damaged)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    text = str(caught.value)
    assert said in text
    assert text.isprintable()
    assert len(text) < 900 + len(str(folder))
    assert peak < 200e6


@pytest.mark.parametrize("name", ["golden.npz", "distance.npz"])
def test_a_pickle_in_an_array_file_is_not_run(folder, tmp_path, name):
    touched = tmp_path / "touched"
    array = np.empty(1, dtype=object)
    array[0] = Marking(touched)
    (folder / name).write_bytes(packed({"in_eeg": array}))
    list_again(folder, name)
    damaged = load_bundle(folder)
    with pytest.raises(ModelError, match="no arrays can be read"):
        golden(damaged) if name == "golden.npz" else Distance(damaged)
    assert not touched.exists()
    np.load(io.BytesIO(packed({"in_eeg": array})), allow_pickle=True)["in_eeg"]
    assert touched.exists()  # it would have


@pytest.mark.parametrize("name", ["golden.npz", "distance.npz"])
def test_arrays_of_another_shape_than_the_manifest_says_are_refused(folder, name):
    with np.load(folder / name) as stored:
        arrays = {key: stored[key] for key in stored.files}
    for key in arrays:
        (folder / name).write_bytes(packed(arrays | {key: np.concatenate([arrays[key], arrays[key]])}))
        list_again(folder, name)
        with pytest.raises(ModelError, match=" is of shape"):
            golden(load_bundle(folder)) if name == "golden.npz" else Distance(load_bundle(folder))


def test_a_golden_file_may_hold_several_windows(folder, bundle):
    inputs, outputs = golden(bundle)
    inputs, outputs = (
        {name: np.repeat(array, 3, axis=0) for name, array in part.items()} for part in (inputs, outputs)
    )
    (folder / "golden.npz").write_bytes(pack_golden(inputs, outputs))
    list_again(folder, "golden.npz")
    assert golden(load_bundle(folder))[1]["logit"].shape == (3, 2)


def test_hashes_of_two_files_that_were_swapped_are_found(folder):
    def swap(manifest):
        files = manifest["files"]
        files["graph.onnx"], files["golden.npz"] = files["golden.npz"], files["graph.onnx"]

    edit(folder, swap)
    assert "the manifest says" in refusal(folder)


def test_a_link_to_a_file_elsewhere_that_is_not_what_the_manifest_says_is_refused(folder, tmp_path):
    secret = tmp_path / "secret"
    secret.write_bytes(b"not of the bundle")
    (folder / "graph.onnx").unlink()
    (folder / "graph.onnx").symlink_to(secret)
    said = refusal(folder)
    assert said.startswith("FOLDER/graph.onnx: has 17 bytes, the manifest says")
    assert "not of the bundle" not in said


@pytest.mark.skipif(not Path("/dev/zero").exists(), reason="no endless device on this system")
def test_a_link_to_an_endless_device_is_refused(folder):
    (folder / "graph.onnx").unlink()
    (folder / "graph.onnx").symlink_to("/dev/zero")
    assert refusal(folder) == "FOLDER/graph.onnx: is not a file"


def test_a_file_that_really_is_ten_gigabytes_is_not_read(folder):
    with (folder / "weights.safetensors").open("r+b") as file:
        file.truncate(10**10)  # without taking the disk
    assert "has 10000000000 bytes" in refusal(folder)
    edit(folder, lambda manifest: manifest["files"]["weights.safetensors"].update(bytes=10**10))
    assert "files.weights.safetensors.bytes" in refusal(folder)


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

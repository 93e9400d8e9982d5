"""A bundle: the folder that a model is. Manifest, graph, weights, what it was trained on in figures, a golden output.

``manifest.json`` names every other file with its size and SHA-256, so one short hash identifies all of it. Nothing of a
bundle is parsed before its hash is right, nothing is unpickled, and whatever is wrong is one line of `ModelError`. That
makes a bundle safe to open, not right: the figures in it are its author's.
"""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import math
import re
import stat
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from models.api import InputSpec, ModelError, WindowSpec
from models.fields import Fields, read_json
from models.network import Shapes, check_network, tensor_shapes

SCHEMA = 2
MANIFEST = "manifest.json"
GRAPH, WEIGHTS, GOLDEN, DISTANCE = "graph.onnx", "weights.safetensors", "golden.npz", "distance.npz"
REQUIRED = (GRAPH, WEIGHTS, GOLDEN, DISTANCE)
MAX_MANIFEST_BYTES = 4_000_000
MAX_TOLERANCE = 1e-3
"""What two runtimes in fp32 may differ by at most, over the largest value."""
MAX_FILE_BYTES = 2_000_000_000
MAX_UNPACKED_BYTES = 64_000_000
"""Of an npz once unpacked: a few kilobytes of zip may claim gigabytes."""
MAX_ARRAYS = 64
ANY = 0
"""In the shape of an array: a length that the manifest leaves open."""
MAX_CHANNELS = 1024
MAX_WINDOW_SAMPLES = 1_000_000
KINDS = ("eeg", "ecg")
"""The kinds of signal that this schema knows."""
LOWEST_EDGE = 1e-3
"""Hz: below it a causal filter cannot be computed."""
NARROWEST = 1e-6
"""Between the ends of a target's range: what is narrower cannot be drawn."""
UNIT = "uV"
"""Of every input: the scaling to what an encoder wants is inside the graph."""
INPUTS = (*KINDS, "use", "rest_mean", "rest_sd")
OUTPUTS = ("logit", "embedding")
TARGET_KINDS = ("binary", "ordinal", "continuous")
_FILE_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,99}")

Json = Mapping[str, object]
"""What a JSON object may hold, unchecked."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """One thing the model estimates."""

    name: str
    kind: str
    """"binary": the probability of the upper end, laid over ``range``; "ordinal": the expected one of ``levels``;
    "continuous": a value within ``range``."""
    range: tuple[float, float]
    meaning: str
    """In words, what the ends of the range are."""
    levels: tuple[float, ...] = ()
    """Of an ordinal target: its values, rising, the ends of ``range`` first and last; else none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rest:
    """The resting baseline: the embedding is seen from its mean and spread at the beginning of a session."""

    seconds: float
    min_share: float
    """A kind of signal takes part with at least this share of the baseline's windows good."""
    pooled_sd: tuple[float, ...]
    """(D,) resting standard deviation within a person, pooled over the people trained on."""
    prior_windows: float
    """How many windows the pooled spread counts for beside the person's own."""
    floor: float
    """The spread is never below this share of the pooled one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Gate:
    """When a kind of signal is good enough to be used."""

    min_present: Mapping[str, float]
    """kind -> least share of samples really measured."""
    min_quality: Mapping[str, float]
    """kind -> least mean channel score."""
    bad_score: float = 0.5
    """A channel below it is bad."""
    max_bad_share: float = 0.3
    """With a larger share of bad channels the kind is not used."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DistanceLimit:
    """How far from the training data a kind of signal may lie and still be used, as `models.distance` measures it.

    99 % of the windows of people not trained on lie within both.
    """

    plain: float
    """Of the embedding as the network gives it."""
    rested: float
    """Of the embedding seen from the person's rest."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BinaryCalibration:
    """``p = sigmoid(logit / temperature + bias)``."""

    temperature: float
    bias: float
    logit_sd: float
    """By how much the calibrated logit scatters between people not trained on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OrdinalCalibration:
    """Cumulative link: ``P(above level k) = sigmoid(logit / temperature - thresholds[k])``."""

    temperature: float
    thresholds: tuple[float, ...]
    """One fewer than there are levels, rising."""
    logit_sd: float
    """By how much ``logit / temperature`` scatters between people not trained on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ContinuousCalibration:
    """``value = slope * logit + intercept``."""

    slope: float
    intercept: float
    sd: float
    """Root mean square of what the value was off by on people not trained on, everyone counting alike."""


Calibration = BinaryCalibration | OrdinalCalibration | ContinuousCalibration


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """Everything a bundle says of itself, apart from its files."""

    name: str
    version: str
    window: WindowSpec
    targets: tuple[Target, ...]
    embedding: Mapping[str, int]
    """kind -> width, in the order in which they stand in the embedding."""
    rest: Rest
    gate: Gate
    calibration: Mapping[str, Mapping[str, Calibration]]
    """For every combination of kinds used, "eeg+ecg", "eeg", "ecg", that of each target by name."""
    distance: Mapping[str, DistanceLimit]
    """kind -> how far from the training data it may lie; `models.distance` says how that is measured."""
    accuracy: str
    """One line for the screen, measured on people not trained on."""
    limits: str
    """One line: what the estimate is not."""
    metrics: Json
    training: Json
    """Data sets, people, protocol, command."""
    licence: str
    network: Json
    """What rebuilds the network from its weights: the fields of `models.fusion.FusionConfig`."""
    tolerance: float = 1e-4
    """Largest error of a runtime on the golden output, relative to the output's largest value."""

    @property
    def kinds(self) -> tuple[str, ...]:
        return tuple(self.embedding)

    @property
    def embedding_dim(self) -> int:
        return sum(self.embedding.values())


@dataclass(frozen=True, slots=True, kw_only=True)
class Bundle:
    """A folder whose manifest is valid and whose files are what it says."""

    folder: Path
    manifest: Manifest
    files: Mapping[str, tuple[str, int]]
    """name -> (SHA-256, bytes)."""
    hash: str
    """SHA-256 of the manifest, which holds those of the files."""

    @property
    def short_hash(self) -> str:
        return self.hash[:12]

    @property
    def label(self) -> str:
        """Name, version and short hash: what an estimate carries."""
        return f"{self.manifest.name} {self.manifest.version} ({self.short_hash})"

    def read(self, name: str) -> bytes:
        """The bytes of one file, checked again against the hash: what was checked is what is used."""
        if name not in self.files:
            raise ModelError(f"{self.folder}: the manifest lists no {name}; it lists {', '.join(self.files)}")
        return _read_checked(self.folder, name, *self.files[name])


def default_bundle_folder() -> Path:
    """Where the bundle lies that ships with the project."""
    return Path(__file__).parent / "bundles" / "default"


def combination(kinds: Sequence[str]) -> str:
    """How the manifest calls a set of kinds used together: "eeg+ecg"."""
    return "+".join(kinds)


def golden(bundle: Bundle) -> tuple[dict[str, NDArray[np.float32]], dict[str, NDArray[np.float32]]]:
    """The stored inputs and the outputs they must give, by name."""
    arrays = read_arrays(bundle, GOLDEN, _golden_shapes(bundle.manifest))
    return {name: arrays[f"in_{name}"] for name in INPUTS}, {name: arrays[f"out_{name}"] for name in OUTPUTS}


def pack_golden(inputs: Mapping[str, NDArray[np.float32]], outputs: Mapping[str, NDArray[np.float32]]) -> bytes:
    """The bytes of a ``golden.npz``."""
    return pack_arrays(
        {f"in_{name}": inputs[name] for name in INPUTS} | {f"out_{name}": outputs[name] for name in OUTPUTS}
    )


def _golden_shapes(manifest: Manifest) -> dict[str, tuple[int, ...]]:
    """Any number of windows, the same in every array."""
    samples = round(manifest.window.seconds * manifest.window.rate)
    shapes = {f"in_{spec.kind}": (ANY, len(spec.channels), samples) for spec in manifest.window.inputs}
    wide = (ANY, manifest.embedding_dim)
    return shapes | {
        "in_use": (ANY, len(manifest.kinds)),
        "in_rest_mean": wide,
        "in_rest_sd": wide,
        "out_logit": (ANY, len(manifest.targets)),
        "out_embedding": wide,
    }


def read_arrays(bundle: Bundle, name: str, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, NDArray[np.float32]]:
    """The arrays of an npz file of the bundle, finite, of just these names and ``shapes``. Nothing is unpickled.

    `ANY` stands for a length that is the same wherever it stands, 1 or more.
    """
    where = f"{bundle.folder / name}"
    try:
        archive = zipfile.ZipFile(io.BytesIO(bundle.read(name)))
        members = archive.infolist()
        claimed = sum(member.file_size for member in members)
        if claimed > MAX_UNPACKED_BYTES or len(members) > MAX_ARRAYS:
            raise ModelError(
                f"{where}: unpacks to {claimed} bytes in {len(members)} arrays, at most {MAX_UNPACKED_BYTES} in "
                f"{MAX_ARRAYS} are read"
            )
        arrays = {member.filename.removesuffix(".npy"): _array(archive, member) for member in members}
    except ModelError:
        raise
    except Exception as error:  # noqa: BLE001 - readers of zip, headers and compressions raise what they like
        raise ModelError(
            f"{where}: no arrays can be read ({_one_line(error)}); fetch or export the bundle again"
        ) from None
    if sorted(arrays) != sorted(shapes):
        held = ", ".join(ascii(key)[1:-1] for key in sorted(arrays))
        raise ModelError(f"{where}: holds {held or 'nothing':.200}, expected {', '.join(shapes)}")
    length = max(len(array) if array.ndim else 0 for array in arrays.values())
    for key, shape in shapes.items():
        wanted = tuple(max(1, length) if size == ANY else size for size in shape)
        if arrays[key].shape != wanted:
            raise ModelError(f"{where}: {key} is of shape {arrays[key].shape}, the manifest makes it {wanted}")
    if not all(np.isfinite(array).all() for array in arrays.values()):
        raise ModelError(f"{where}: holds values that are not finite; export the bundle again")
    return arrays


def _array(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> NDArray[np.float32]:
    # Read with a limit of its own: a member may unpack to more than it claims, and an array claim more than it holds.
    with archive.open(member) as file:
        content = file.read(MAX_UNPACKED_BYTES + 1)
    if len(content) > MAX_UNPACKED_BYTES:
        raise ValueError(f"{member.filename!r:.60} is larger than it says")
    stream = io.BytesIO(content)
    version = np.lib.format.read_magic(stream)
    read_header = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    if version not in read_header:
        raise ValueError(f"{member.filename!r:.60} is of npy version {version}")
    shape, _, dtype = read_header[version](stream)
    if dtype.kind not in "fiub" or math.prod(shape) * dtype.itemsize != len(content) - stream.tell():
        raise ValueError(f"{member.filename!r:.60} holds {dtype} in shape {shape}, which is not what follows")
    stream.seek(0)
    return np.asarray(np.lib.format.read_array(stream, allow_pickle=False), dtype=np.float32)


def pack_arrays(arrays: Mapping[str, NDArray[np.float32]]) -> bytes:
    """The bytes of an npz file; the same arrays give the same bytes and so the same hash."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, array in arrays.items():
            member = io.BytesIO()
            np.lib.format.write_array(member, np.asarray(array, dtype=np.float32), allow_pickle=False)
            archive.writestr(
                zipfile.ZipInfo(f"{name}.npy", (1980, 1, 1, 0, 0, 0)), member.getvalue(), zipfile.ZIP_DEFLATED
            )
    return buffer.getvalue()


def write_bundle(folder: Path, manifest: Manifest, files: Mapping[str, bytes]) -> Bundle:
    """Writes a bundle and opens it again. The manifest comes last: an interrupted write is refused when opened."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / MANIFEST).unlink(missing_ok=True)
    listed = {}
    for name, content in files.items():
        if not _FILE_NAME.fullmatch(name) or name == MANIFEST:
            raise ModelError(f"{folder}: {name!r} is not a file name that a bundle may hold")
        (folder / name).write_bytes(content)
        listed[name] = {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
    text = json.dumps(
        {"schema": SCHEMA, **dataclasses.asdict(manifest), "files": listed},
        indent=2,
        ensure_ascii=False,
        allow_nan=False,
    )
    # A list of plain figures takes one line; a newline inside a JSON string would be escaped.
    text = re.sub(r"\[\n\s+[^\[\]{}\"]*?\n\s+\]", lambda match: " ".join(match[0].split()), text)
    (folder / MANIFEST).write_text(text + "\n", encoding="utf-8", newline="\n")
    return load_bundle(folder)


def load_bundle(folder: Path) -> Bundle:
    """The bundle in ``folder``, all of it checked. Raises ModelError, one line, for anything that is wrong."""
    folder = Path(folder)
    if not folder.is_dir():
        raise ModelError(f"{folder}: no such folder; a model is a folder with {MANIFEST} in it")
    raw = _read_regular(folder, MANIFEST, MAX_MANIFEST_BYTES)
    where = str(folder / MANIFEST)
    try:
        parsed = read_json(raw)
    except ValueError as error:
        raise ModelError(f"{where}: not JSON ({_one_line(error)}); fetch or export the bundle again") from None
    top = Fields(parsed, where, "")
    schema = top.take("schema")
    if schema != SCHEMA or isinstance(schema, bool):
        raise ModelError(f"{where}: schema is {schema!r:.40}, this insula reads {SCHEMA}; update insula or the bundle")
    files = _files(top.part("files"), where)
    tensors: Shapes = {}
    for name, (sha256, size) in files.items():
        content = _read_checked(folder, name, sha256, size)
        if name == WEIGHTS:
            tensors = tensor_shapes(content, str(folder / name))
    manifest = _manifest(top)
    check_network(
        Fields(dict(manifest.network), where, "network"),
        manifest.window,
        len(manifest.targets),
        manifest.embedding,
        tensors,
        str(folder / WEIGHTS),
    )
    return Bundle(folder=folder, manifest=manifest, files=files, hash=hashlib.sha256(raw).hexdigest())


def _files(listed: Fields, where: str) -> dict[str, tuple[str, int]]:
    files = {}
    for name in listed.names():
        if not _FILE_NAME.fullmatch(name) or name == MANIFEST:
            raise ModelError(
                f"{where}: files names {name!r:.60}; a bundle holds plain file names in its own folder only"
            )
        entry = listed.part(name)
        sha256 = entry.text("sha256")
        if not re.fullmatch(r"[0-9a-f]{64}", sha256):
            raise entry.wrong("sha256", sha256, "64 hexadecimal digits")
        files[name] = (sha256, entry.integer("bytes", 0, MAX_FILE_BYTES))
        entry.close()
    missing = [name for name in REQUIRED if name not in files]
    if missing:
        raise ModelError(f"{where}: files lacks {', '.join(missing)}; export the bundle again")
    return files


def _manifest(top: Fields) -> Manifest:
    window = _window(top.part("window"))
    targets = tuple(_target(entry) for entry in top.parts("targets", 1, 64))
    if len({target.name for target in targets}) < len(targets):
        raise top.wrong("targets", [target.name for target in targets], "names that differ")
    kinds = [spec.kind for spec in window.inputs]
    widths = top.part("embedding")
    embedding = {kind: widths.integer(kind, 1, 100_000) for kind in widths.names()}
    if list(embedding) != kinds:
        raise top.wrong("embedding", list(embedding), f"the kinds of window.inputs in their order, {kinds}")
    rest_entry = top.part("rest")
    rest = Rest(
        seconds=rest_entry.number("seconds", window.seconds, 3600.0),
        min_share=rest_entry.number("min_share", 0.0, 1.0),
        pooled_sd=rest_entry.numbers("pooled_sd", sum(embedding.values()), 1e-12, 1e12),
        prior_windows=rest_entry.number("prior_windows", 0.0, 1e6),
        floor=rest_entry.number("floor", 1e-6, 1.0),
    )
    rest_entry.close()
    gate_entry = top.part("gate")
    least = {name: gate_entry.part(name) for name in ("min_present", "min_quality")}
    gate = Gate(
        min_present={kind: least["min_present"].number(kind, 0.0, 1.0) for kind in kinds},
        min_quality={kind: least["min_quality"].number(kind, 0.0, 1.0) for kind in kinds},
        bad_score=gate_entry.number("bad_score", 0.0, 1.0),
        max_bad_share=gate_entry.number("max_bad_share", 0.0, 1.0),
    )
    for entry in (*least.values(), gate_entry):
        entry.close()
    calibrations = top.part("calibration")
    calibration = {}
    for size in range(len(kinds), 0, -1):
        for used in combinations(kinds, size):
            entry = calibrations.part(combination(used))
            calibration[combination(used)] = {
                target.name: _calibration(entry.part(target.name), target) for target in targets
            }
            entry.close()
    calibrations.close()
    limits = top.part("distance")
    distance = {kind: _distance(limits.part(kind)) for kind in kinds}
    limits.close()
    manifest = Manifest(
        name=top.line("name", 100),
        version=top.line("version", 40),
        window=window,
        targets=targets,
        embedding=embedding,
        rest=rest,
        gate=gate,
        calibration=calibration,
        distance=distance,
        accuracy=top.line("accuracy", 500),
        limits=top.line("limits", 500),
        metrics=top.part("metrics").rest(),
        training=top.part("training").rest(),
        licence=top.line("licence", 500),
        network=top.part("network").rest(),
        tolerance=top.number("tolerance", 0.0, MAX_TOLERANCE),
    )
    top.close()
    return manifest


def _window(entry: Fields) -> WindowSpec:
    inputs = []
    rate = entry.number("rate", 1.0, 100_000.0)
    for one in entry.parts("inputs", 1, 16):
        channels = one.lines("channels", 1, MAX_CHANNELS)
        if len(set(channels)) < len(channels):
            raise one.wrong("channels", channels, "names that differ")
        low, high = one.numbers("band", 2, 0.0, 1e6)
        if not LOWEST_EDGE <= low < high < rate / 2:
            raise one.wrong("band", [low, high], f"{LOWEST_EDGE:g} <= low < high < {rate / 2:g} Hz")
        unit = one.line("unit", 20)
        if unit != UNIT:
            raise one.wrong("unit", unit, f'"{UNIT}", which every network takes')
        inputs.append(
            InputSpec(
                kind=one.line("kind", 40),
                channels=channels,
                unit=unit,
                band=(low, high),
                notch=one.numbers("notch", None, 1.0, 1e6),
                min_channels=one.integer("min_channels", 1, len(channels)),
            )
        )
        one.close()
    if [spec.kind for spec in inputs] != list(KINDS):
        raise entry.wrong("inputs", [spec.kind for spec in inputs], f"{list(KINDS)}, in this order")
    window = WindowSpec(
        inputs=tuple(inputs),
        rate=rate,
        seconds=entry.number("seconds", 0.1, 3600.0),
        hop=entry.number("hop", 0.001, 3600.0),
    )
    if window.seconds * rate > MAX_WINDOW_SAMPLES:
        raise entry.wrong("seconds", window.seconds, f"at most {MAX_WINDOW_SAMPLES} samples a window")
    entry.close()
    return window


def _target(entry: Fields) -> Target:
    low, high = entry.numbers("range", 2, -1e6, 1e6)
    if not high - low >= NARROWEST:
        raise entry.wrong("range", [low, high], f"high at least {NARROWEST:g} above low")
    target = Target(
        name=entry.line("name", 40),
        kind=entry.line("kind", 40),
        range=(low, high),
        meaning=entry.line("meaning", 500),
        levels=entry.numbers("levels", None, -1e6, 1e6),
    )
    if not re.fullmatch(r"[a-z][a-z0-9_]*", target.name):
        raise entry.wrong("name", target.name, "small letters, digits and _ (it becomes a column)")
    if target.kind not in TARGET_KINDS:
        raise entry.wrong("kind", target.kind, " or ".join(f'"{kind}"' for kind in TARGET_KINDS))
    levels = list(target.levels)
    if target.kind != "ordinal":
        if levels:
            raise entry.wrong("levels", levels, f"none of a {target.kind} target")
    elif len(levels) < 2 or not _rising(levels) or (levels[0], levels[-1]) != (low, high):
        raise entry.wrong("levels", levels, f"2 or more rising values from {low:g} to {high:g}, the ends of the range")
    entry.close()
    return target


def _calibration(entry: Fields, target: Target) -> Calibration:
    found: Calibration
    if target.kind == "binary":
        found = BinaryCalibration(
            temperature=entry.number("temperature", 1e-3, 1e3),
            bias=entry.number("bias", -100.0, 100.0),
            logit_sd=entry.number("logit_sd", 0.0, 100.0),
        )
    elif target.kind == "ordinal":
        found = OrdinalCalibration(
            temperature=entry.number("temperature", 1e-3, 1e3),
            thresholds=entry.numbers("thresholds", len(target.levels) - 1, -100.0, 100.0),
            logit_sd=entry.number("logit_sd", 0.0, 100.0),
        )
        if not _rising(found.thresholds):
            raise entry.wrong("thresholds", list(found.thresholds), "rising values")
    else:
        found = ContinuousCalibration(
            slope=entry.number("slope", -1e6, 1e6),
            intercept=entry.number("intercept", -1e6, 1e6),
            sd=entry.number("sd", 0.0, 1e6),
        )
    entry.close()
    return found


def _distance(entry: Fields) -> DistanceLimit:
    found = DistanceLimit(plain=entry.number("plain", 1e-3, 1e6), rested=entry.number("rested", 1e-3, 1e6))
    entry.close()
    return found


def _rising(values: Sequence[float]) -> bool:
    return all(one < other for one, other in pairwise(values))


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__


def _read_regular(folder: Path, name: str, limit: int) -> bytes:
    path = folder / name
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise ModelError(f"{path}: is not a file")
        if status.st_size > limit:
            raise ModelError(f"{path}: has {status.st_size} bytes, at most {limit} are read")
        with path.open("rb") as file:
            # One byte more than there should be: Python takes the memory for all that is asked for.
            return file.read(status.st_size + 1)
    except FileNotFoundError:
        raise ModelError(f"{path}: missing; fetch or export the bundle again") from None
    except OSError as error:
        raise ModelError(f"{path}: cannot be read ({_one_line(error)})") from None


def _read_checked(folder: Path, name: str, sha256: str, size: int) -> bytes:
    content = _read_regular(folder, name, MAX_FILE_BYTES)
    path = folder / name
    if len(content) != size:
        raise ModelError(
            f"{path}: has {len(content)} bytes, the manifest says {size}; fetch or export the bundle again"
        )
    found = hashlib.sha256(content).hexdigest()
    if found != sha256:
        raise ModelError(
            f"{path}: SHA-256 is {found[:12]}..., the manifest says {sha256[:12]}...; fetch or export the bundle again"
        )
    return content

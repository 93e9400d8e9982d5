"""A trained fusion network becomes a bundle: graph, weights, golden output, manifest. ONNX Runtime has to agree."""

from __future__ import annotations

import dataclasses
import logging
import warnings
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
import safetensors.torch
import torch
from numpy.typing import NDArray

from models.api import ModelError, WindowSpec
from models.bundle import (
    DISTANCE,
    GOLDEN,
    GRAPH,
    INPUTS,
    OUTPUTS,
    WEIGHTS,
    Bundle,
    Calibration,
    DistanceLimit,
    Gate,
    Json,
    Manifest,
    Rest,
    Target,
    pack_golden,
    write_bundle,
)
from models.distance import Reference, pack_references
from models.fusion import FusionModel
from models.runtimes import load_runtime, relative_error

OPSET = 20
"""The first in which GELU is one step."""


def export_bundle(
    folder: Path,
    fusion: FusionModel,
    *,
    name: str,
    version: str,
    window: WindowSpec,
    targets: tuple[Target, ...],
    rest: Rest,
    gate: Gate,
    calibration: Mapping[str, Mapping[str, Calibration]],
    distance: Mapping[str, DistanceLimit],
    references: Mapping[str, tuple[Reference, Reference]],
    accuracy: str,
    limits: str,
    metrics: Json,
    training: Json,
    licence: str,
    tolerance: float = 1e-4,
) -> Bundle:
    """Writes ``fusion`` as a bundle into ``folder`` and opens it with ONNX Runtime.

    ``window.inputs`` are EEG and ECG, in this order; ``references`` are by kind what plain embeddings and those seen
    from rest are compared with, and ``distance`` their limits. Raises ModelError when ONNX Runtime differs from PyTorch
    by more than ``tolerance``, on the golden input or on a batch of three others.
    """
    config = fusion.config
    shapes = [(spec.kind, len(spec.channels)) for spec in window.inputs]
    if shapes != [("eeg", config.eeg_channels), ("ecg", config.ecg_channels)]:
        raise ModelError(f"{folder}: window.inputs are {shapes}, the network takes EEG and ECG of {config}")
    if round(window.seconds * window.rate) != config.samples or window.rate != config.rate:
        raise ModelError(
            f"{folder}: windows of {window.seconds} s at {window.rate} Hz, the network takes {config.seconds} s"
        )
    if len(targets) != config.targets:
        raise ModelError(f"{folder}: {len(targets)} targets, the network has {config.targets}")
    manifest = Manifest(
        name=name,
        version=version,
        window=window,
        targets=targets,
        embedding={"eeg": config.eeg_dim, "ecg": config.ecg_dim},
        rest=rest,
        gate=gate,
        calibration=calibration,
        distance=distance,
        accuracy=accuracy,
        limits=limits,
        metrics=metrics,
        training=training,
        licence=licence,
        network=dataclasses.asdict(config),
        tolerance=tolerance,
    )
    model = fusion.eval().cpu()
    inputs = example_inputs(model, batch=1, seed=0)
    files = {
        GRAPH: onnx_graph(model),
        WEIGHTS: safetensors.torch.save({name: value.contiguous() for name, value in model.state_dict().items()}),
        GOLDEN: pack_golden(inputs, torch_outputs(model, inputs)),
        DISTANCE: pack_references(references),
    }
    bundle = write_bundle(folder, manifest, files)
    runtime = load_runtime("ort", bundle)
    others = example_inputs(model, batch=3, seed=1)
    got = runtime(others)
    for key, wanted in torch_outputs(model, others).items():
        error = relative_error(got[key], wanted)
        if not error <= tolerance:
            raise ModelError(
                f"{folder}: ONNX Runtime differs from PyTorch by {error:.1e} in {key}, at most {tolerance:.1e}"
            )
    return bundle


def example_inputs(fusion: FusionModel, batch: int, seed: int) -> dict[str, NDArray[np.float32]]:
    """Inputs as the network meets them: EEG-like noise, beats on the ECG, a resting baseline near the embedding.

    In a batch of three or more the first window has both kinds, the second only EEG, the third only ECG.
    """
    config = fusion.config
    random = np.random.default_rng(seed)
    time = np.arange(config.samples) / config.rate
    eeg = np.cumsum(random.standard_normal((batch, config.eeg_channels, config.samples)), axis=-1)
    eeg = 2 * (eeg - eeg.mean(axis=-1, keepdims=True)) + 10 * np.sin(2 * np.pi * 10 * time)
    beats = np.exp(-0.5 * ((time[None] * random.uniform(0.9, 1.8, (batch, 1)) % 1.0 - 0.5) / 0.015) ** 2)
    ecg = 900 * beats[:, None] + 15 * random.standard_normal((batch, config.ecg_channels, config.samples))
    inputs = {"eeg": eeg.astype(np.float32), "ecg": ecg.astype(np.float32)}
    with torch.inference_mode():
        embedding = fusion.eval().embed(torch.from_numpy(inputs["eeg"]), torch.from_numpy(inputs["ecg"])).numpy()
    spread = 0.1 + np.abs(embedding).mean()
    use = np.ones((batch, 2))
    if batch >= 3:
        use[1, 1] = use[2, 0] = 0
    return inputs | {
        "use": use.astype(np.float32),
        "rest_mean": (embedding + spread * random.standard_normal(embedding.shape)).astype(np.float32),
        "rest_sd": (spread * random.uniform(0.5, 1.5, embedding.shape)).astype(np.float32),
    }


def torch_outputs(fusion: FusionModel, inputs: dict[str, NDArray[np.float32]]) -> dict[str, NDArray[np.float32]]:
    """What PyTorch computes for named inputs, in evaluation mode."""
    with torch.inference_mode():
        outputs = fusion.eval()(*(torch.from_numpy(inputs[name]) for name in INPUTS))
    return {name: value.numpy() for name, value in zip(OUTPUTS, outputs, strict=True)}


def onnx_graph(fusion: FusionModel) -> bytes:
    """The network as one ONNX file with a free batch axis, without traces of the machine that made it."""
    # Two windows: an axis of length one would be taken for a constant.
    inputs = example_inputs(fusion, batch=2, seed=2)
    batch = torch.export.Dim("batch", min=1)
    with warnings.catch_warnings():
        # The exporter warns of its own deprecated calls; what matters is checked on the graph it makes.
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            fusion.eval(),
            tuple(torch.from_numpy(inputs[name]) for name in INPUTS),
            input_names=list(INPUTS),
            output_names=list(OUTPUTS),
            dynamic_shapes={name: {0: batch} for name in INPUTS},
            opset_version=OPSET,
            dynamo=True,
            verbose=False,
        )
    if program is None:
        raise ModelError("torch.onnx.export gave no program")
    model = program.model_proto
    _forget_origin(model)
    onnx.checker.check_model(model, full_check=True)
    graph: bytes = model.SerializeToString(deterministic=True)
    return graph


def _forget_origin(model: onnx.ModelProto) -> None:
    """Takes the exporter's stack traces, with the paths of this machine, out of the graph."""
    del model.metadata_props[:]
    for graph in (model.graph, *model.functions):
        del graph.metadata_props[:]
        del graph.value_info[:]
        graph.doc_string = ""
        for node in graph.node:
            del node.metadata_props[:]
            node.doc_string = ""
    for value in (*model.graph.input, *model.graph.output, *model.graph.initializer):
        del value.metadata_props[:]
        value.doc_string = ""


logging.getLogger("torch.onnx").setLevel(logging.ERROR)

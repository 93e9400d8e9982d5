"""PyTorch on the processor: rebuilds the network from the manifest and the weights. The reference for every runtime."""

from __future__ import annotations

import numpy as np
import safetensors.torch
import torch
from numpy.typing import NDArray

from models.api import Arrays, ModelError
from models.bundle import INPUTS, MANIFEST, OUTPUTS, WEIGHTS, Bundle
from models.encoders import read_config
from models.fields import Fields
from models.fusion import FusionConfig, FusionModel
from models.network import check_tensors, tensor_shapes
from models.runtimes import NamedRuntime, Precision, one_line


class TorchRuntime:
    """A fusion network in evaluation mode; named arrays in, named arrays out."""

    precision: Precision = "fp32"
    together = 1

    def __init__(self, model: FusionModel) -> None:
        self._model = model.eval()
        self.about = f"PyTorch {torch.__version__}, fp32, {torch.get_num_threads()} threads"

    def __call__(self, inputs: Arrays) -> dict[str, NDArray[np.float32]]:
        with torch.inference_mode():
            feed = [torch.from_numpy(np.array(inputs[name], dtype=np.float32)) for name in INPUTS]
            outputs: tuple[torch.Tensor, ...] = self._model(*feed)
        return {name: value.numpy() for name, value in zip(OUTPUTS, outputs, strict=True)}


def load(bundle: Bundle) -> NamedRuntime:
    """The network of ``bundle`` with its weights."""
    return TorchRuntime(load_model(bundle))


def load_model(bundle: Bundle) -> FusionModel:
    """The network itself, to be looked into or trained further."""
    where = bundle.folder / MANIFEST
    try:
        config = fusion_config(Fields(dict(bundle.manifest.network), str(where), "network"))
    except ValueError as error:
        raise ModelError(f"{where}: network cannot be built ({one_line(error)})") from None
    made = {"eeg": config.eeg_dim, "ecg": config.ecg_dim}
    if made != bundle.manifest.embedding:
        raise ModelError(f"{where}: network makes embeddings of {made}, embedding is {dict(bundle.manifest.embedding)}")
    weights, path = bundle.read(WEIGHTS), str(bundle.folder / WEIGHTS)
    # On a device without memory first: what is described takes none before the weights are found to be of it.
    try:
        with torch.device("meta"):
            wanted = {name: tuple(value.shape) for name, value in FusionModel(config).state_dict().items()}
    except (ValueError, TypeError, ArithmeticError, RuntimeError) as error:
        raise ModelError(f"{where}: network cannot be built ({one_line(error)})") from None
    check_tensors(tensor_shapes(weights, path), wanted, path)
    model = FusionModel(config)
    try:
        model.load_state_dict(safetensors.torch.load(weights))
    except (RuntimeError, safetensors.SafetensorError) as error:
        raise ModelError(f"{path}: does not fit the manifest's network ({one_line(error)})") from None
    return model.eval()


def fusion_config(network: Fields) -> FusionConfig:
    """The configuration that a manifest's ``network`` stands for."""
    config = FusionConfig(
        eeg_channels=network.integer("eeg_channels", 1, 1024),
        ecg_channels=network.integer("ecg_channels", 1, 1024),
        seconds=network.integer("seconds", 2, 3600),
        rate=network.integer("rate", 25, 10_000),
        targets=network.integer("targets", 1, 64),
        eeg=read_config(network.part("eeg")),
        ecg=read_config(network.part("ecg")),
        band_power=network.boolean("band_power"),
        heart=network.boolean("heart"),
        heart_features=network.integer("heart_features", 1, 1024),
        variability="variability" in network.names() and network.boolean("variability"),
        head_hidden=network.integer("head_hidden", 0, 65_536),
        head_dropout=network.number("head_dropout", 0.0, 0.99),
    )
    network.close()
    return config

"""Encoders turn the patches of a window into one vector. ``models/encoders/<name>.py`` is the registration.

Such a file has

- ``Config``, a frozen dataclass that rebuilds the network: `EncoderConfig`, with ``encoder`` set to the file's name;
- ``read(entry: Fields) -> Config``, the same from a bundle's manifest, every field checked;
- ``Encoder(config, channels, seconds)``, a ``torch.nn.Module`` with ``pooled``: `Encoder`.

One that can be pre-trained also has ``reconstruct(x, mask)``: the patches it makes of those that ``mask`` leaves it.
"""

from __future__ import annotations

import ast
import functools
import importlib
import importlib.util
import pkgutil
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from models.fields import Fields

if TYPE_CHECKING:
    from torch import Tensor


class EncoderConfig(Protocol):
    """What every encoder's ``Config`` says."""

    @property
    def encoder(self) -> str:
        """The name of the file: what a manifest calls the encoder."""
        ...

    @property
    def width(self) -> int:
        """Of the pooled embedding."""
        ...

    @property
    def patch(self) -> int:
        """Samples of a patch, which is one second."""
        ...


class Encoder(Protocol):
    """What the fusion network asks of an encoder, which is a ``torch.nn.Module``."""

    def pooled(self, x: Tensor) -> Tensor:
        """(B, width) of windows ``x`` (B, C, N, patch): each by itself, finite where the input is, flat ones too."""
        ...


def encoders() -> dict[str, str]:
    """The encoders there are, every file of this folder with an ``Encoder``: name -> the first line it says of itself.

    Nothing is imported for it.
    """
    return dict(_described())


@functools.cache
def _described() -> dict[str, str]:
    sources = {module.name: _source(module.name) for module in pkgutil.iter_modules(__path__)}
    return {
        name: (ast.get_docstring(ast.parse(source)) or "").split("\n\n")[0].replace("\n", " ")
        for name, source in sorted(sources.items())
        if "\nclass Encoder(" in source
    }


def declared(name: str) -> dict[str, str]:
    """The fields of an encoder's ``Config`` apart from ``encoder``, and the type of each as its file writes it.

    Nothing is imported for it: so a manifest is checked where the library that builds the network is not installed.
    """
    return dict(_declared(name))


@functools.cache
def _declared(name: str) -> dict[str, str]:
    return {
        field.target.id: ast.unparse(field.annotation)
        for part in ast.parse(_source(name)).body
        if isinstance(part, ast.ClassDef) and part.name == "Config"
        for field in part.body
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name) and field.target.id != "encoder"
        if not ast.unparse(field.annotation).startswith("ClassVar")
    }


@functools.cache
def _source(name: str) -> str:
    spec = importlib.util.find_spec(f"{__name__}.{name}")
    return Path(spec.origin).read_text(encoding="utf-8") if spec and spec.origin else ""


def read_config(entry: Fields) -> EncoderConfig:
    """The configuration that a manifest's ``network.eeg`` or ``network.ecg`` stands for.

    Raises ModelError in words, also when there is no encoder of the name; ValueError when the sizes cannot be built.
    """
    name = entry.text("encoder")
    if name not in encoders():
        raise entry.wrong("encoder", name, f"one of {', '.join(encoders())}")
    config: EncoderConfig = importlib.import_module(f"{__name__}.{name}").read(entry)
    entry.close()
    return config


def build(config: EncoderConfig, channels: int, seconds: int) -> Encoder:
    """The network of ``config``, with weights as drawn, for windows of ``channels`` and ``seconds``."""
    encoder: Encoder = importlib.import_module(f"{__name__}.{config.encoder}").Encoder(config, channels, seconds)
    return encoder

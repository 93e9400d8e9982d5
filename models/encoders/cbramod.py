"""CBraMod, the criss-cross brain foundation model (Wang et al., ICLR 2025, arXiv 2412.07236).

At the default `Config` the network, its parameter names and its shapes are those of the published one, so its weights
load strictly. The same network with leads as channels encodes ECG. It sees a window as one-second patches:
(B, C, N, patch).

The magnitude spectrum of the patch embedding is two fixed DFT matrices instead of ``rfft``: the same figures, and it
exports to every runtime. GroupNorm's statistics run over all patches of a window, so a patch's embedding depends on its
window and cannot be carried over to the next one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import safetensors.torch
import torch
from torch import Tensor, nn

from models.api import ModelError
from models.fields import Fields

TIME_KERNEL, TIME_STRIDE, TIME_PADDING = 49, 25, 24
DEFAULT_POSITION_KERNEL = (19, 7)
MAX_WEIGHTS_BYTES = 50_000_000
MAX_PATCH = 2000
"""Samples of a patch that a manifest may ask for: the matrices of its spectrum grow with the square."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """The published network by default; smaller ones keep ``d_model`` a multiple of ``steps * norm_groups``."""

    encoder: str = field(default=__name__.rpartition(".")[2], init=False)
    d_model: int = 200
    layers: int = 12
    heads: int = 8
    """Half of them attend over channels, half over patches."""
    ffn: int = 800
    patch: int = 200
    """Samples of one patch; 1 s at 200 Hz."""
    dropout: float = 0.1
    norm_groups: int = 5
    position_kernel: tuple[int, int] = DEFAULT_POSITION_KERNEL
    """(channels, patches) seen by the positional convolution; both odd."""

    def __post_init__(self) -> None:
        if min(self.d_model, self.layers, self.heads, self.ffn, self.norm_groups, *self.position_kernel) < 1:
            raise ValueError(f"{self}: sizes must be positive")
        if self.patch < TIME_STRIDE:
            raise ValueError(f"{self}: a patch has at least {TIME_STRIDE} samples")
        if self.d_model % (self.steps * self.norm_groups):
            raise ValueError(f"d_model {self.d_model} is no multiple of {self.steps} steps x {self.norm_groups} groups")
        if self.heads % 2 or self.d_model % self.heads:
            raise ValueError(
                f"d_model {self.d_model} does not split into {self.heads} heads, half spatial, half temporal"
            )
        if any(size % 2 == 0 for size in self.position_kernel):
            raise ValueError(f"position_kernel {self.position_kernel}: both sizes must be odd")

    @property
    def width(self) -> int:
        """Of the pooled embedding."""
        return self.d_model

    @property
    def steps(self) -> int:
        """Time steps that the convolutions make of a patch; 8 of 200 samples."""
        return (self.patch + 2 * TIME_PADDING - TIME_KERNEL) // TIME_STRIDE + 1

    @property
    def conv_channels(self) -> int:
        return self.d_model // self.steps


def read(entry: Fields) -> Config:
    """From the manifest."""
    channels, patches = entry.integers("position_kernel", 2, 2, 1, 999)
    return Config(
        d_model=entry.integer("d_model", 8, 8192),
        layers=entry.integer("layers", 1, 256),
        heads=entry.integer("heads", 2, 256),
        ffn=entry.integer("ffn", 1, 65_536),
        patch=entry.integer("patch", 25, MAX_PATCH),
        dropout=entry.number("dropout", 0.0, 0.99),
        norm_groups=entry.integer("norm_groups", 1, 1024),
        position_kernel=(channels, patches),
    )


def dft_matrices(n: int) -> tuple[Tensor, Tensor]:
    """Cosine and sine matrices (n, n // 2 + 1) with ``x @ cos - 1j * x @ sin == rfft(x, norm="forward")``."""
    # The angle is reduced modulo n in integers: exact for every product.
    angle = 2 * np.pi / n * (np.outer(np.arange(n), np.arange(n // 2 + 1)) % n)
    return torch.from_numpy((np.cos(angle) / n).astype(np.float32)), torch.from_numpy(
        (np.sin(angle) / n).astype(np.float32)
    )


class PatchEmbedding(nn.Module):
    """(B, C, N, patch) to (B, C, N, d_model): convolutions in time + magnitude spectrum + position."""

    cosine: Tensor
    sine: Tensor

    def __init__(self, config: Config) -> None:
        super().__init__()
        d, c, groups = config.d_model, config.conv_channels, config.norm_groups
        kernel = config.position_kernel
        self.positional_encoding = nn.Sequential(
            nn.Conv2d(d, d, kernel, padding=(kernel[0] // 2, kernel[1] // 2), groups=d)
        )
        # Replaces a hidden patch before both branches; fixed at zero, as published.
        self.mask_encoding = nn.Parameter(torch.zeros(config.patch), requires_grad=False)
        self.proj_in = nn.Sequential(
            nn.Conv2d(1, c, (1, TIME_KERNEL), stride=(1, TIME_STRIDE), padding=(0, TIME_PADDING)),
            nn.GroupNorm(groups, c),
            nn.GELU(),
            nn.Conv2d(c, c, (1, 3), padding=(0, 1)),
            nn.GroupNorm(groups, c),
            nn.GELU(),
            nn.Conv2d(c, c, (1, 3), padding=(0, 1)),
            nn.GroupNorm(groups, c),
            nn.GELU(),
        )
        self.spectral_proj = nn.Sequential(nn.Linear(config.patch // 2 + 1, d), nn.Dropout(config.dropout))
        cosine, sine = dft_matrices(config.patch)
        self.register_buffer("cosine", cosine, persistent=False)
        self.register_buffer("sine", sine, persistent=False)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        if mask is not None:
            x = torch.where(mask.bool()[..., None], self.mask_encoding, x)
        batch, channels, patches, samples = x.shape
        time = self.proj_in(x.reshape(batch, 1, channels * patches, samples))  # (B, c, C*N, steps)
        time = time.permute(0, 2, 1, 3).reshape(batch, channels, patches, -1)
        # The tiny constant keeps the gradient of an all-zero patch at 0 instead of NaN.
        spectrum = torch.sqrt((x @ self.cosine).square() + (x @ self.sine).square() + 1e-20)
        embedded: Tensor = time + self.spectral_proj(spectrum)
        position: Tensor = self.positional_encoding(embedded.permute(0, 3, 1, 2))
        return embedded + position.permute(0, 2, 3, 1)


class Attention(nn.Module):
    """Multi-head self-attention of flat tokens, parameters named as in ``nn.MultiheadAttention``."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.in_proj_weight = nn.Parameter(torch.empty(3 * width, width))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * width))
        self.out_proj = nn.Linear(width, width)
        nn.init.xavier_uniform_(self.in_proj_weight)

    def forward(self, x: Tensor, channels: int, patches: int, over_channels: bool) -> Tensor:
        """Tokens (B * channels * patches, width) that see those of their patch, or else of their channel.

        They come flat, and only the heads are laid out anew: as a graph it is a third fewer steps than laying out the
        tokens, and each matrix product takes its bias along.
        """
        width = x.shape[-1]
        size = width // self.heads
        # Queries are scaled through their weights, which an exported graph holds ready.
        scale = torch.cat((x.new_full((width,), size**-0.5), x.new_ones(2 * width)))
        qkv = nn.functional.linear(x, self.in_proj_weight * scale[:, None], self.in_proj_bias * scale)
        qkv = qkv.reshape(-1, channels, patches, 3, self.heads, size)
        # (3, B, patches, heads, channels, size), or with channels and patches exchanged
        qkv = qkv.permute(3, 0, 2, 4, 1, 5) if over_channels else qkv.permute(3, 0, 1, 4, 2, 5)
        seen = torch.softmax(qkv[0] @ qkv[1].transpose(-1, -2), dim=-1)
        mixed = nn.functional.dropout(seen, self.dropout, self.training) @ qkv[2]
        mixed = mixed.permute(0, 3, 1, 2, 4) if over_channels else mixed.permute(0, 1, 3, 2, 4)
        projected: Tensor = self.out_proj(mixed.reshape(-1, width))
        return projected


class CrissCrossLayer(nn.Module):
    """Pre-norm layer: half the features attend over channels within a patch, half over patches within a channel."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        half = config.d_model // 2
        self.self_attn_s = Attention(half, config.heads // 2, config.dropout)
        self.self_attn_t = Attention(half, config.heads // 2, config.dropout)
        self.linear1 = nn.Linear(config.d_model, config.ffn)
        self.dropout = nn.Dropout(config.dropout)
        self.linear2 = nn.Linear(config.ffn, config.d_model)
        self.norm1 = nn.LayerNorm(config.d_model)
        self.norm2 = nn.LayerNorm(config.d_model)
        self.dropout1 = nn.Dropout(config.dropout)
        self.dropout2 = nn.Dropout(config.dropout)

    def forward(self, x: Tensor, channels: int, patches: int) -> Tensor:
        """Tokens (B * channels * patches, d_model)."""
        across, along = self.norm1(x).split(x.shape[-1] // 2, dim=-1)
        across = self.self_attn_s(across, channels, patches, over_channels=True)
        along = self.self_attn_t(along, channels, patches, over_channels=False)
        x = x + self.dropout1(torch.cat((across, along), dim=-1))
        hidden = self.dropout(nn.functional.gelu(self.linear1(self.norm2(x))))
        mixed: Tensor = x + self.dropout2(self.linear2(hidden))
        return mixed


class Layers(nn.Module):
    """The stack of layers; no norm follows it. A module of its own for the published parameter names."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.layers = nn.ModuleList(CrissCrossLayer(config) for _ in range(config.layers))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, N, d_model)"""
        _, channels, patches, width = x.shape
        tokens = x.reshape(-1, width)
        for layer in self.layers:
            tokens = layer(tokens, channels, patches)
        return tokens.reshape(-1, channels, patches, width)


class Encoder(nn.Module):
    """(B, C, N, patch) to (B, C, N, d_model). EEG comes in microvolts / 100 at 200 Hz.

    The positional convolution is all it knows about electrodes: the order of the channels matters. Their number and the
    length of a window do not: the weights fit any.
    """

    def __init__(self, config: Config, channels: int = 1, seconds: int = 1) -> None:  # noqa: ARG002  (the same for any)
        super().__init__()
        self.config = config
        self.patch_embedding = PatchEmbedding(config)
        self.encoder = Layers(config)
        # Reconstructs a patch in pre-training; not used downstream.
        self.proj_out = nn.Sequential(nn.Linear(config.d_model, config.patch))
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Encoded patches; ``mask`` (B, C, N) hides patches where it is true."""
        encoded: Tensor = self.encoder(self.patch_embedding(x, mask))
        return encoded

    def pooled(self, x: Tensor) -> Tensor:
        """(B, d_model), the mean over channels and patches."""
        return self(x).mean(dim=(1, 2))  # type: ignore[no-any-return]

    def reconstruct(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """What the network makes of every patch, (B, C, N, patch), with those under ``mask`` (B, C, N) hidden."""
        reconstruction: Tensor = self.proj_out(self(x, mask))
        return reconstruction


def check_published(shapes: Mapping[str, tuple[int, ...]], where: str) -> None:
    """Raises ModelError unless ``shapes`` are the names and shapes of the published network, all of them, no others."""
    with torch.device("meta"):
        wanted = {name: tuple(value.shape) for name, value in Encoder(Config()).state_dict().items()}
    for name in [*wanted, *shapes]:
        if shapes.get(name) != wanted.get(name):
            found, expected = shapes.get(name, "missing"), wanted.get(name, "no such tensor")
            raise ModelError(
                f"{where}: {name!r:.80} is {found!s:.40}, expected {expected} of the {len(wanted)} tensors of the "
                "published CBraMod; fetch it again"
            )


def load_cbramod(path: Path) -> dict[str, Tensor]:
    """The published weights, for ``load_state_dict`` of an encoder of the default `Config`.

    ``path`` is the ``weights.safetensors`` that `models.hub.fetch` made. Raises ModelError unless it holds exactly the
    published tensors, all finite.
    """
    try:
        # Bounded before it is read: the published network has 20 MB.
        if path.stat().st_size > MAX_WEIGHTS_BYTES:
            raise ModelError(f"{path}: has {path.stat().st_size} bytes, at most {MAX_WEIGHTS_BYTES} are read")
        state = safetensors.torch.load(path.read_bytes())
    except OSError as error:
        raise ModelError(f"{path}: cannot be read ({error.strerror}); run `insula models fetch cbramod`") from None
    except safetensors.SafetensorError as error:
        raise ModelError(f"{path}: not safetensors ({' '.join(str(error).split()):.80}); fetch it again") from None
    check_published({name: tuple(value.shape) for name, value in state.items()}, str(path))
    for name, value in state.items():
        if value.dtype != torch.float32 or not torch.isfinite(value).all():
            raise ModelError(f"{path}: {name:.80} holds {value.dtype} that are not all finite; fetch it again")
    return state

"""The wav2vec 2.0 / HuBERT Transformer, with padding masked everywhere.

Sources: arXiv 2006.11477 §2, 2106.07447; state-dict keys as fairseq's `TransformerEncoder`, except that the
positional convolution uses torch's weight-norm parametrization, as k2SSL does.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import cast

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils.parametrizations import weight_norm

from sslbench.errors import SslbenchError
from sslbench.nn.dropout import attention, dropout
from sslbench.nn.positional import positional


@dataclass
class TransformerShape:
    """Sizes and regularisation of a `TransformerEncoder`."""

    layers: int
    dim: int
    ffn_dim: int
    heads: int
    norm_first: bool = False
    conv_pos: int = 128
    conv_pos_groups: int = 16
    dropout: float = 0.1
    attention_dropout: float = 0.1
    activation_dropout: float = 0.0
    layerdrop: float = 0.0

    def __post_init__(self) -> None:
        if self.dim % self.heads or self.dim % self.conv_pos_groups:
            raise SslbenchError(
                f"transformer: width {self.dim} must divide by {self.heads} heads "
                f"and {self.conv_pos_groups} positional groups"
            )


class SelfAttention(nn.Module):
    """Multi-head scaled dot-product self-attention."""

    def __init__(self, dim: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.dropout = dropout
        self.k_proj = nn.Linear(dim, dim)
        self.v_proj = nn.Linear(dim, dim)
        self.q_proj = nn.Linear(dim, dim)
        self.out_proj = nn.Linear(dim, dim)

    def forward(self, x: torch.Tensor, key_mask: torch.Tensor | None) -> torch.Tensor:
        """(B, F, D) -> (B, F, D); `key_mask` is (B, 1, 1, F) bool, True where attended to."""
        batch, frames, dim = x.shape

        def split(y: torch.Tensor) -> torch.Tensor:
            return y.view(batch, frames, self.heads, -1).transpose(1, 2)  # (B, H, F, D / H)

        q, k, v = split(self.q_proj(x)), split(self.k_proj(x)), split(self.v_proj(x))
        y = attention(q, k, v, key_mask, self.dropout if self.training else 0.0)
        out: torch.Tensor = self.out_proj(y.transpose(1, 2).reshape(batch, frames, dim))
        return out


class TransformerLayer(nn.Module):
    """Self-attention and feed-forward with LayerNorm after (Base) or before (Large) each."""

    def __init__(self, shape: TransformerShape) -> None:
        super().__init__()
        self.norm_first = shape.norm_first
        self.dropout = shape.dropout
        self.activation_dropout = shape.activation_dropout
        self.self_attn = SelfAttention(shape.dim, shape.heads, shape.attention_dropout)
        self.self_attn_layer_norm = nn.LayerNorm(shape.dim)
        self.fc1 = nn.Linear(shape.dim, shape.ffn_dim)
        self.fc2 = nn.Linear(shape.ffn_dim, shape.dim)
        self.final_layer_norm = nn.LayerNorm(shape.dim)

    def forward(self, x: torch.Tensor, key_mask: torch.Tensor | None) -> torch.Tensor:
        """(B, F, D) -> (B, F, D)."""
        if self.norm_first:
            x = x + self._drop(self.self_attn(self.self_attn_layer_norm(x), key_mask))
            return x + self._feed_forward(self.final_layer_norm(x))
        x = self.self_attn_layer_norm(x + self._drop(self.self_attn(x, key_mask)))
        y: torch.Tensor = self.final_layer_norm(x + self._feed_forward(x))
        return y

    def _feed_forward(self, x: torch.Tensor) -> torch.Tensor:
        hidden = dropout(F.gelu(self.fc1(x)), self.activation_dropout, self.training)
        return self._drop(self.fc2(hidden))

    def _drop(self, x: torch.Tensor) -> torch.Tensor:
        return dropout(x, self.dropout, self.training)


class TransformerEncoder(nn.Module):
    """Convolutional relative position, then layers; a clip's frames do not depend on its padding."""

    def __init__(self, shape: TransformerShape) -> None:
        super().__init__()
        self.shape = shape
        conv = nn.Conv1d(
            shape.dim, shape.dim, shape.conv_pos, padding=shape.conv_pos // 2, groups=shape.conv_pos_groups
        )
        nn.init.normal_(conv.weight, 0.0, math.sqrt(4.0 / (shape.conv_pos * shape.dim)))
        self.layers = nn.ModuleList(TransformerLayer(shape) for _ in range(shape.layers))
        self.layer_norm = nn.LayerNorm(shape.dim)
        self.apply(_init_bert)
        nn.init.zeros_(conv.bias)  # type: ignore[arg-type]
        self.pos_conv = nn.ModuleList([weight_norm(conv, dim=2)])

    def forward(self, x: torch.Tensor, valid: torch.Tensor | None) -> list[torch.Tensor]:
        """Every layer's frames.

        Args:
            x: (B, F, D).
            valid: (B, F) bool; None when every frame of every clip is valid.

        Returns:
            layers + 1 tensors (B, F, D): the first layer's input, then each layer's output; with norm
            before layers, the last is after the closing LayerNorm. Padded frames hold arbitrary values.
        """
        key_mask = None
        if valid is not None:
            x = x.masked_fill(~valid[..., None], 0.0)
            key_mask = valid[:, None, None, :]
        x = x + self._position(x)
        if not self.shape.norm_first:
            x = self.layer_norm(x)
        x = dropout(x, self.shape.dropout, self.training)
        states = [x]
        for layer in self.layers:
            if not self._skip():
                x = layer(x, key_mask)
            states.append(x)
        if self.shape.norm_first:
            states[-1] = self.layer_norm(x)
        return states

    def _skip(self) -> bool:
        # Drawn only when layerdrop is used, so that 0 leaves the random stream alone.
        rate = self.shape.layerdrop
        return self.training and rate > 0 and float(torch.rand(())) < rate

    def _position(self, x: torch.Tensor) -> torch.Tensor:
        return F.gelu(positional(x, cast(nn.Conv1d, self.pos_conv[0])))


def _init_bert(module: nn.Module) -> None:
    # fairseq's init_bert_params: every linear weight N(0, 0.02), biases zero.
    if isinstance(module, nn.Linear):
        nn.init.normal_(module.weight, 0.0, 0.02)
        nn.init.zeros_(module.bias)

"""Settings of the Zipformer family; the defaults are k2SSL's Zipformer Base."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from sslbench.errors import SslbenchError
from sslbench.nn.masked_config import MaskedUnitConfig


@dataclass
class ZipformerConfig(MaskedUnitConfig):
    """One Zipformer; lists have one entry per stack."""

    downsampling: list[int] = field(default_factory=lambda: [1, 2, 4, 8, 4, 2])
    """Frame-rate reduction inside each stack, relative to the front end's frames."""
    layers: list[int] = field(default_factory=lambda: [2, 2, 3, 4, 3, 2])
    """Layers."""
    dims: list[int] = field(default_factory=lambda: [192, 256, 448, 768, 448, 192])
    """Widths; the model's output has the largest."""
    unmasked_dims: list[int] = field(default_factory=lambda: [192, 192, 256, 256, 256, 192])
    """Channels that training's channel masking never drops."""
    ffn_dims: list[int] = field(default_factory=lambda: [512, 768, 1024, 1536, 1024, 768])
    """Hidden width of the middle feed-forward module; the first has 3/4 and the last 5/4 of it."""
    heads: list[int] = field(default_factory=lambda: [4, 4, 4, 8, 4, 4])
    """Attention heads."""
    kernels: list[int] = field(default_factory=lambda: [31, 31, 15, 15, 15, 31])
    """Odd kernels of the convolution modules, in the stack's frames."""
    query_head_dim: int = 32
    """Width of queries and keys per head."""
    value_head_dim: int = 12
    """Width of values per head."""
    pos_head_dim: int = 4
    """Width of the positional query per head."""
    pos_dim: int = 48
    """Width of the relative positional encoding; even."""
    warmup_batches: float = 4000.0
    """Batch count over which layer skipping ends, stack after stack."""
    schedule_speed: float = 1.0
    """Factor on the batch count: schedules (dropout, skipping, balancing) end that much earlier."""
    features: Literal["padded", "stitched"] = "padded"
    """Each stack's `hidden_states`: filled up to one width with zeros ("padded"), or with the channels that
    earlier stacks have beyond it ("stitched"). The last state is the model's output either way."""

    def __post_init__(self) -> None:
        super().__post_init__()
        lists = {
            name: getattr(self, name)
            for name in ("downsampling", "layers", "dims", "unmasked_dims", "ffn_dims", "heads", "kernels")
        }
        uneven = [name for name, values in lists.items() if len(values) != len(self.dims)]
        if uneven or not self.dims:
            raise SslbenchError(
                f"zipformer: {', '.join(uneven) or 'dims'} needs one entry per stack, as dims has"
            )
        if any(kernel % 2 == 0 for kernel in self.kernels) or self.pos_dim % 2:
            raise SslbenchError("zipformer: kernels must be odd and pos_dim even")
        if any(u > d for u, d in zip(self.unmasked_dims, self.dims, strict=True)):
            raise SslbenchError("zipformer: unmasked_dims must not exceed dims")

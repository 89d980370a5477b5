"""One Zipformer layer and its parts (arXiv 2310.11230, section 3; icefall's `zipformer.py`)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sslbench.nn.balancer import Balancer
from sslbench.nn.biasnorm import BiasNorm, limit_sometimes
from sslbench.nn.scheduled import FloatLike, ScheduledFloat, current
from sslbench.nn.swoosh import LEFT, RIGHT, SwooshLinear
from sslbench.nn.whiten import Whiten
from sslbench.upstream.zipformer.attention import (
    AttentionWeights,
    NonlinAttention,
    SelfAttention,
    share,
    whitening_limit,
)


def module_dropout() -> ScheduledFloat:
    """Dropout of the feed-forward modules."""
    return ScheduledFloat((0.0, 0.3), (20000.0, 0.1))


def clip_keep(x: Tensor, drop: FloatLike, training: bool) -> Tensor | None:
    """(B, 1, 1) of 1 and 0, the latter with probability `drop`; None where nothing can be dropped."""
    p = current(drop)
    if not training or p == 0.0:
        return None
    return (torch.rand(x.shape[0], 1, 1, device=x.device) > p).to(x.dtype)


def add_kept(x: Tensor, update: Tensor, keep: Tensor | None) -> Tensor:
    """x + update for the clips that keep it."""
    return x + update if keep is None else torch.addcmul(x, update.to(x.dtype), keep)


class FeedForward(nn.Module):
    """Linear, SwooshL, dropout over whole channels, linear."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.in_proj = nn.Linear(dim, hidden)
        self.hidden_balancer = Balancer(0.3, 1.0, 0.75, 5.0)
        self.out_proj = SwooshLinear(hidden, dim, LEFT, dropout=module_dropout(), initial_scale=0.1)
        self.out_whiten = Whiten(whitening_limit(7.5))

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, D) -> (B, T, D)."""
        y: Tensor = self.out_whiten(self.out_proj(self.hidden_balancer(self.in_proj(x))))
        return y


def depthwise(x: Tensor, conv: nn.Conv1d) -> Tensor:
    """(B, T, D) -> (B, T, D): `conv`, which keeps the length and has a group per channel.

    On CPUs it is written as a convolution of images T high, one wide, channels last: ten to thirty times
    faster than `nn.Conv1d`, whose channels come first, and without its transposed copies.
    """
    if x.is_cuda:
        y: Tensor = conv(x.transpose(1, 2))
        return y.transpose(1, 2)
    image = x.unsqueeze(2).permute(0, 3, 1, 2)  # (B, D, T, 1)
    weight, padding = conv.weight[..., None], (conv.kernel_size[0] // 2, 0)
    return F.conv2d(image, weight, conv.bias, padding=padding, groups=conv.groups)[..., 0].transpose(1, 2)


class ConvolutionModule(nn.Module):
    """Gated linear unit, depthwise convolution over time, SwooshR, linear."""

    def __init__(self, dim: int, kernel: int) -> None:
        super().__init__()
        self.in_proj = nn.Linear(dim, 2 * dim)
        # Keeps the sigmoid's input in a range where it has a useful gradient.
        self.balancer1 = Balancer(
            ScheduledFloat((0.0, 0.05), (8000.0, 0.025)),
            1.0,
            1.5,
            ScheduledFloat((0.0, 5.0), (8000.0, 10.0), default=1.0),
        )
        self.depthwise_conv = nn.Conv1d(dim, dim, kernel, padding=kernel // 2, groups=dim)
        self.balancer2 = Balancer(
            ScheduledFloat((0.0, 0.1), (8000.0, 0.05)),
            1.0,
            ScheduledFloat((0.0, 0.2), (20000.0, 0.5)),
            10.0,
        )
        self.whiten = Whiten(whitening_limit(7.5))
        self.out_proj = SwooshLinear(dim, dim, RIGHT, initial_scale=0.05)

    def forward(self, x: Tensor, valid: Tensor | None) -> Tensor:
        """(B, T, D), (B, T) bool False on padding or None -> (B, T, D)."""
        projected = self.in_proj(x)
        content, gate = projected.chunk(2, dim=-1)
        balanced = self.balancer1(gate)
        x = F.glu(projected, dim=-1) if balanced is gate else content * balanced.sigmoid()
        if valid is not None:
            x = x.masked_fill(~valid[..., None], 0.0)
        x = self.balancer2(depthwise(x, self.depthwise_conv))
        y: Tensor = self.out_proj(self.whiten(x))
        return y


class Bypass(nn.Module):
    """old + (new - old) · c with a learned c per channel; in training it may skip a clip altogether."""

    def __init__(self, dim: int, skip_rate: FloatLike = 0.0) -> None:
        super().__init__()
        self.bypass_scale = nn.Parameter(torch.full((dim,), 0.5))
        self.skip_rate = skip_rate
        self.scale_min = ScheduledFloat((0.0, 0.9), (20000.0, 0.2))

    def forward(self, old: Tensor, new: Tensor) -> Tensor:
        """Two (B, T, D) tensors -> (B, T, D)."""
        scale = limit_sometimes(self.bypass_scale, current(self.scale_min), 1.0, self.training)
        keep = clip_keep(new, self.skip_rate, self.training)
        return torch.lerp(old, new.to(old.dtype), scale if keep is None else scale * keep)


class ZipformerLayer(nn.Module):
    """Attention weights, then feed-forward, attention and convolution modules around two bypasses.

    `bypass_scale` is a leftover of the original: never used, kept so that checkpoints load strictly.
    """

    def __init__(
        self,
        dim: int,
        ffn_dim: int,
        heads: int,
        kernel: int,
        pos_dim: int,
        query_dim: int,
        value_dim: int,
        pos_head_dim: int,
        skip_rate: ScheduledFloat,
    ) -> None:
        super().__init__()
        self.bypass = Bypass(dim, skip_rate)
        self.bypass_mid = Bypass(dim)
        self.self_attn_weights = AttentionWeights(dim, pos_dim, heads, query_dim, pos_head_dim)
        self.self_attn1 = SelfAttention(dim, heads, value_dim)
        self.self_attn2 = SelfAttention(dim, heads, value_dim)
        self.feed_forward1 = FeedForward(dim, ffn_dim * 3 // 4)
        self.feed_forward2 = FeedForward(dim, ffn_dim)
        self.feed_forward3 = FeedForward(dim, ffn_dim * 5 // 4)
        self.nonlin_attention = NonlinAttention(dim, 3 * dim // 4)
        self.conv_module1 = ConvolutionModule(dim, kernel)
        self.conv_module2 = ConvolutionModule(dim, kernel)
        self.bypass_scale = nn.Parameter(torch.full((dim,), 0.5))
        self.norm = BiasNorm(dim)
        self.attention_skip_rate = ScheduledFloat((0.0, 0.2), (4000.0, 0.05), (16000.0, 0.0))
        self.conv_skip_rate = ScheduledFloat((0.0, 0.2), (4000.0, 0.05), (16000.0, 0.0))
        self.ff2_skip_rate = ScheduledFloat((0.0, 0.1), (4000.0, 0.01), (50000.0, 0.0))
        self.ff3_skip_rate = ScheduledFloat((0.0, 0.1), (4000.0, 0.01), (50000.0, 0.0))
        self.balancer1 = Balancer(0.45, 0.55, 0.2, 4.0)
        self.balancer2 = Balancer(0.45, 0.55, 0.1, 4.0)
        self.balancer_na = Balancer(0.3, 0.7, ScheduledFloat((0.0, 0.004), (4000.0, 0.02)), share=0.05)
        small, large = ScheduledFloat((0.0, 0.0), (4000.0, 0.1)), ScheduledFloat((0.0, 0.0), (4000.0, 0.2))
        self.balancer_ff2 = Balancer(0.3, 0.7, small, 2.0, share=0.05)
        self.balancer_ff3 = Balancer(0.3, 0.7, large, 4.0, share=0.05)
        self.whiten = Whiten(whitening_limit(4.0, ratio=3.0))

    def forward(self, x: Tensor, positions: Tensor, valid: Tensor | None) -> Tensor:
        """One layer.

        Args:
            x: (B, T, D).
            positions: (2T - 1, pos_dim).
            valid: (B, T) bool, False on padding; None when there is none.

        Returns:
            (B, T, D).
        """
        old = x
        first_head, weights1, weights2 = share(self.self_attn_weights(x, positions, valid))
        x = x + self.feed_forward1(x)
        keep = clip_keep(x, self.attention_skip_rate, self.training)
        x = add_kept(x, self.balancer_na(self.nonlin_attention(x, first_head)), keep)
        x = add_kept(x, self.self_attn1(x, weights1), keep)
        x = add_kept(x, self.conv_module1(x, valid), clip_keep(x, self.conv_skip_rate, self.training))
        update = self.balancer_ff2(self.feed_forward2(x))
        x = add_kept(x, update, clip_keep(x, self.ff2_skip_rate, self.training))
        x = self.bypass_mid(old, x)
        x = add_kept(x, self.self_attn2(x, weights2), keep)
        x = add_kept(x, self.conv_module2(x, valid), clip_keep(x, self.conv_skip_rate, self.training))
        update = self.balancer_ff3(self.feed_forward3(x))
        x = add_kept(x, update, clip_keep(x, self.ff3_skip_rate, self.training))
        x = self.bypass(old, self.norm(self.balancer1(x)))
        y: Tensor = self.whiten(self.balancer2(x))
        return y

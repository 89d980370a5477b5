"""Zipformer's attention: weights computed once per layer and used by three modules.

Source: Zipformer (arXiv 2310.11230, section 3.2) and icefall's `zipformer.py`; state-dict names are theirs.
Scores are not divided by √d: the initial scale of the projection takes that part.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from sslbench.nn.balancer import Balancer
from sslbench.nn.scheduled import ScheduledFloat, chance
from sslbench.nn.strided import CHUNK_VALUES, without_autocast
from sslbench.nn.swoosh import scale_initial
from sslbench.nn.whiten import Whiten

MASKED_SCORE = -1000.0  # exp gives exactly 0, and a row of nothing but padding gives no NaN
SCORE_LIMIT, SCORE_PENALTY, SCORE_CHECK_SHARE = 25.0, 1e-4, 0.1
POSITION_DROPOUT = 0.15


def whitening_limit(start: float, ratio: float = 2.0) -> ScheduledFloat:
    """A limit that grows by `ratio` over the first 20,000 batches."""
    return ScheduledFloat((0.0, start), (20000.0, ratio * start), default=start)


def relative_positions(frames: int, dim: int, device: torch.device | None = None) -> Tensor:
    """Encodings of offsets -(frames - 1) … frames - 1: (2 · frames - 1, dim) float32.

    Offsets are compressed logarithmically beyond about √dim frames, bent to an angle by arctan, and
    expanded in dim / 2 cosines and sines; the last channel is 1.
    """
    offset = torch.arange(1 - frames, frames, device=device, dtype=torch.float32)
    knee = math.sqrt(dim)
    compressed = offset.sign() * knee * ((offset.abs() + knee).log() - math.log(knee))
    angle = (compressed * (2 * math.pi / dim)).atan()[:, None]
    multiples = angle * torch.arange(1, dim // 2 + 1, device=device)
    table = torch.stack([multiples.cos(), multiples.sin()], dim=2).flatten(1)
    table[:, -1] = 1.0
    return table


def _by_source(x: Tensor) -> Tensor:
    """View of (…, T, 2T - 1) scores by offset as (…, T, T) scores by source frame."""
    frames = x.shape[-2]
    strides = (*x.stride()[:-2], x.stride(-2) - x.stride(-1), x.stride(-1))
    start = x.storage_offset() + (frames - 1) * x.stride(-1)
    return x.as_strided((*x.shape[:-1], frames), strides, start)


def _in_pieces(scores: Tensor) -> Iterator[slice]:
    """Rows of (N, T, T) scores by turns, so many that their scores by offset stay in a CPU's cache."""
    limit = CHUNK_VALUES.get(scores.device.type, CHUNK_VALUES["cpu"])
    size = max(1, limit // (2 * scores.shape[1] ** 2))
    return (slice(begin, begin + size) for begin in range(0, len(scores), size))


class _AddRelative(torch.autograd.Function):
    """Adds where @ offsets, by source frame, to scores: whose memory is used.

    By offset there are twice as many scores: they exist for a few heads of a few clips at a time.
    """

    @staticmethod
    def forward(ctx: Any, scores: Tensor, where: Tensor, offsets: Tensor) -> Tensor:
        """(B · H, T, T), (B · H, T, p), (B · H, p, 2T - 1) -> (B · H, T, T)."""
        ctx.save_for_backward(where, offsets)
        ctx.mark_dirty(scores)
        for piece in _in_pieces(scores):
            scores[piece] += _by_source(where[piece] @ offsets[piece])
        return scores

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        (g,), (where, offsets) = grads, ctx.saved_tensors
        grad_where, grad_offsets = torch.empty_like(where), torch.empty_like(offsets)
        by_offset: Tensor | None = None
        for piece in _in_pieces(g):
            part = g[piece]
            if by_offset is None:  # zeros outside the view stay
                by_offset = g.new_zeros(*part.shape[:2], offsets.shape[2])
            rows = by_offset[: len(part)]
            _by_source(rows).copy_(part)
            grad_where[piece] = rows @ offsets[piece].transpose(1, 2)
            grad_offsets[piece] = where[piece].transpose(1, 2) @ rows
        return g, grad_where, grad_offsets


class _Mix(torch.autograd.Function):
    """Values (B, H, T, v) averaged with weights (B, H, T, T).

    Few channels by many frames: on CPUs that product is twice as fast transposed, but its gradient would
    then come transposed as well.
    """

    @staticmethod
    def forward(ctx: Any, values: Tensor, weights: Tensor) -> Tensor:
        ctx.save_for_backward(values, weights)
        return (values.transpose(2, 3) @ weights.transpose(2, 3)).transpose(2, 3)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor]:
        (g,), (values, weights) = grads, ctx.saved_tensors
        return (g.transpose(2, 3) @ weights).transpose(2, 3), g @ values.transpose(2, 3)


class _Share(torch.autograd.Function):
    """Attention weights (B, H, T, T) for their three users, the first of which reads one head only."""

    @staticmethod
    def forward(ctx: Any, weights: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return weights[:, 0], weights.view_as(weights), weights.view_as(weights)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        first_head, once, twice = grads
        total = once + twice
        total[:, 0] += first_head
        return total


class _PenaliseLarge(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, limit: float, penalty: float) -> Tensor:
        ctx.save_for_backward(torch.where(x.abs() > limit, x.sign(), 0.0).to(torch.int8))
        ctx.penalty = penalty
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        return grads[0] + ctx.saved_tensors[0] * ctx.penalty, None, None


def penalise_large(x: Tensor, limit: float = SCORE_LIMIT, penalty: float = SCORE_PENALTY) -> Tensor:
    """Identity that adds the gradient of penalty · Σ relu(|x| - limit)."""
    y: Tensor = _PenaliseLarge.apply(x, limit, penalty)
    return y


def share(weights: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(B, H, T, T) attention weights -> the first head's (B, T, T), and all of them twice.

    As plain indexing would give, but for cheaper gradients.
    """
    views: tuple[Tensor, Tensor, Tensor] = _Share.apply(weights)
    return views


class AttentionWeights(nn.Module):
    """Multi-head attention weights with compact relative positions."""

    def __init__(self, dim: int, pos_dim: int, heads: int, query_dim: int, pos_head_dim: int) -> None:
        super().__init__()
        self.heads, self.query_dim, self.pos_head_dim = heads, query_dim, pos_head_dim
        projected = (2 * query_dim + pos_head_dim) * heads
        self.in_proj = scale_initial(nn.Linear(dim, projected), query_dim**-0.25)
        self.linear_pos = scale_initial(nn.Linear(pos_dim, heads * pos_head_dim, bias=False), 0.05)
        self.whiten_keys = Whiten(whitening_limit(3.0), groups=heads, strength=0.025)
        # A constant added to all keys changes nothing, so rounding alone would let their bias drift.
        self.balance_keys = Balancer(0.4, 0.6, 0.0, 100.0, share=0.025)
        self.pos_emb_skip_rate = ScheduledFloat((0.0, 0.5), (4000.0, 0.0))

    def forward(self, x: Tensor, positions: Tensor, valid: Tensor | None) -> Tensor:
        """Weights of source frames for each target frame.

        Args:
            x: (B, T, D).
            positions: (2T - 1, pos_dim), from `relative_positions`.
            valid: (B, T) bool, False on padding; None when there is none.

        Returns:
            (B, heads, T, T), rows summing to one.
        """
        width = self.query_dim * self.heads
        query, key, where = self.in_proj(x).split([width, width, self.pos_head_dim * self.heads], dim=-1)
        key = self.whiten_keys(self.balance_keys(key))
        batch, heads = len(x), self.heads
        query = query.unflatten(-1, (heads, -1)).transpose(1, 2).flatten(0, 1)  # (B · H, T, q)
        key = key.unflatten(-1, (heads, -1)).permute(0, 2, 3, 1).flatten(0, 1)  # (B · H, q, T)
        scores = query @ key
        if not (self.training and chance(self.pos_emb_skip_rate)):
            where = where.unflatten(-1, (heads, -1)).transpose(1, 2).flatten(0, 1)  # (B · H, T, p)
            offsets = self.linear_pos(positions).unflatten(-1, (heads, -1)).permute(1, 2, 0)
            with without_autocast(x.device):
                scores = _AddRelative.apply(scores, where, offsets.repeat(batch, 1, 1))
        scores = scores.unflatten(0, (batch, heads))
        penalised = self.training and chance(SCORE_CHECK_SHARE)
        if penalised:
            scores = penalise_large(scores)
        if valid is not None:
            padding = ~valid[:, None, None]
            if penalised:
                scores = scores.masked_fill(padding, MASKED_SCORE)
            else:  # past autograd's eyes: softmax gives these exactly no weight, and so no gradient
                scores.detach().masked_fill_(padding, MASKED_SCORE)
        return scores.softmax(dim=-1)


class SelfAttention(nn.Module):
    """Values, weighted by attention weights that another module computed."""

    def __init__(self, dim: int, heads: int, value_dim: int) -> None:
        super().__init__()
        self.heads = heads
        self.in_proj = nn.Linear(dim, heads * value_dim)
        self.out_proj = scale_initial(nn.Linear(heads * value_dim, dim), 0.05)
        self.whiten = Whiten(whitening_limit(7.5, ratio=3.0))

    def forward(self, x: Tensor, weights: Tensor) -> Tensor:
        """(B, T, D), (B, heads, T, T) -> (B, T, D)."""
        values = self.in_proj(x).unflatten(-1, (self.heads, -1)).transpose(1, 2)  # (B, H, T, v)
        with without_autocast(x.device):
            mixed = _Mix.apply(values, weights.to(values.dtype))
        y: Tensor = self.whiten(self.out_proj(mixed.transpose(1, 2).flatten(2)))
        return y


class NonlinAttention(nn.Module):
    """Gated features, averaged with the first head's weights, and gated again."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.in_proj = nn.Linear(dim, 3 * hidden)
        self.out_proj = scale_initial(nn.Linear(hidden, dim), 0.05)
        # Wide limits: good modules have large values before the tanh.
        self.balancer = Balancer(
            ScheduledFloat((0.0, 0.25), (20000.0, 0.05)),
            ScheduledFloat((0.0, 0.75), (20000.0, 0.95)),
            0.5,
            5.0,
        )
        self.whiten1 = Whiten(whitening_limit(5.0))
        self.whiten2 = Whiten(whitening_limit(5.0, ratio=3.0))

    def forward(self, x: Tensor, weights: Tensor) -> Tensor:
        """(B, T, D), (B, T, T) weights of one head -> (B, T, D)."""
        gate, content, second_gate = self.in_proj(x).chunk(3, dim=-1)
        content = self.whiten1(content) * self.balancer(gate).tanh()
        y: Tensor = self.whiten2(self.out_proj((weights @ content) * second_gate))
        return y

"""The Transformer's positional convolution with channels last, as its frames lie.

On a CPU (768 channels in 16 groups, kernel 128, fp32, one thread) the convolution operator reaches 75 GFLOP/s
forward and 45 backward with channels first; this 104, and backward 104 (input) and 83 (weight). Autocast does
not narrow it: oneDNN's grouped bf16 kernel with channels last reads uninitialised memory (torch 2.8), and
with channels first takes longer than this in fp32.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sslbench.nn.strided import compute_dtype, without_autocast


def positional(x: Tensor, conv: nn.Conv1d) -> Tensor:
    """(B, T, D) -> (B, T, D): `conv` padded by half its kernel, without the frame more of an even kernel."""
    if x.device.type != "cpu" or torch.compiler.is_compiling():
        y: Tensor = conv(x.transpose(1, 2))
        return y[..., : x.shape[1]].transpose(1, 2)
    with without_autocast(x.device):
        y = _Positional.apply(x.float(), conv.weight, conv.bias, conv.groups)
    return y.to(compute_dtype(conv.weight))


class _Positional(torch.autograd.Function):
    """In fp32."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, groups: int) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.groups = groups
        padding, wide = (weight.shape[2] // 2, 0), weight[..., None].float()
        y = F.conv2d(_image(x), wide, bias.float(), padding=padding, groups=groups)
        return y[:, :, : x.shape[1], 0].transpose(1, 2)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (grad,), (x, weight) = grads, ctx.saved_tensors
        kernel = weight.shape[2]
        grad_x, _, _ = torch.ops.aten.convolution_backward(
            _image(F.pad(grad, (0, 0, 0, 1 - kernel % 2))), _image(x), weight[..., None].float(), None,
            [1, 1], [kernel // 2, 0], [1, 1], False, [0, 0], ctx.groups, [True, False, False],
        )  # fmt: skip
        grad_weight = _weight_gradient(grad, x, kernel, ctx.groups)
        return grad_x[..., 0].transpose(1, 2), grad_weight, grad.sum((0, 1)), None


def _image(x: Tensor) -> Tensor:
    """(B, T, D) as (B, D, T, 1) with channels last."""
    return x.unsqueeze(2).permute(0, 3, 1, 2)


def _weight_gradient(grad: Tensor, x: Tensor, kernel: int, groups: int) -> Tensor:
    """(D, D / groups, kernel): per clip and group, a product for every tap."""
    clips, frames, _ = x.shape
    padded = F.pad(x, (0, 0, kernel // 2, (kernel - 1) // 2))
    grad, padded = (
        y.unflatten(2, (groups, -1)).transpose(1, 2).contiguous() for y in (grad, padded)
    )  # (B, G, T, c)
    width = grad.shape[3]
    total = x.new_zeros(groups, kernel, width, width)
    for clip in range(clips):
        for group in range(groups):
            shifted = padded[clip, group].unfold(0, frames, 1).transpose(1, 2)  # (kernel, T, c)
            total[group].baddbmm_(grad[clip, group].T.expand(kernel, -1, -1), shifted)
    return total.permute(0, 2, 3, 1).flatten(0, 1)

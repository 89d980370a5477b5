"""Which operators do arithmetic that counts, which do none, and formulas for those torch does not know.

`FlopCounterMode` counts an operator it has no formula for as zero, in silence. Here every operator that a
model runs must be counted, or known to be free (elementwise, views, reductions, normalisation), or it is
named to the user.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

aten = torch.ops.aten

# Linear in the number of elements, and so below the resolution of a MAC count; torch tags most of these
# kinds as pointwise or as views, the rest is listed.
_FREE_NAMES = """
_adaptive_avg_pool2d _assert_async _assert_tensor_metadata _conj_copy _cudnn_rnn_flatten_weight
_foreach_add _local_scalar_dense _log_softmax _native_batch_norm_legit
_native_batch_norm_legit_no_training _pack_padded_sequence _pad_packed_sequence _pin_memory _reshape_alias
_reshape_copy _resize_output _safe_softmax _softmax _to_copy _unsafe_index _unsafe_index_put _unsafe_view
_weight_norm_interface adaptive_avg_pool1d alias_copy all amax amin aminmax any arange argmax argmin
as_strided_copy avg_pool1d avg_pool2d bernoulli bincount bucketize cat col2im constant_pad_nd contiguous
copy copy_ count_nonzero cummax cumprod cumsum detach device diagonal_copy embedding empty empty_like
empty_permuted empty_strided equal eye fill flip floor_divide full full_like gather glu hamming_window
hann_window histc im2col index index_add index_copy index_fill index_put index_select is_nonzero isin item
lift lift_fresh linalg_vector_norm linspace log_sigmoid_forward logcumsumexp logspace logsumexp
masked_fill masked_scatter masked_select max max_pool1d max_pool2d_with_indices mean median min
multinomial narrow_copy native_batch_norm native_dropout native_group_norm native_layer_norm new_empty
new_empty_strided new_full new_ones new_zeros nonzero norm normal one_hot ones ones_like pixel_shuffle
prod rand rand_like randint randint_like randn randn_like random randperm reflection_pad1d
reflection_pad2d repeat repeat_interleave replication_pad1d resize rms_norm roll scalar_tensor scatter
scatter_add scatter_reduce searchsorted select_scatter set_ slice_scatter sort split_with_sizes_copy stack
std std_mean stft_pad sum sym_size take topk tril tril_indices triu triu_indices unfold_copy uniform
unique_consecutive unique_dim upsample_linear1d upsample_nearest1d upsample_nearest2d var var_mean zero
zeros zeros_like
"""
FREE = frozenset(_FREE_NAMES.split())


def _numel(shape: Any) -> int:
    return math.prod(int(size) for size in shape)


def _fft_flops(shape: Any, dims: list[int], *_: Any, out_shape: Any, **__: Any) -> int:
    """5 N log2 N for a complex transform of N points (Cooley and Tukey); half of that for real ones."""
    points = math.prod(max(int(shape[dim]), int(out_shape[dim])) for dim in dims)
    rows = max(_numel(shape), _numel(out_shape)) // max(points, 1)
    return int(rows * 5 * points * math.log2(max(points, 2)))


def _real_fft_flops(shape: Any, dims: list[int], *rest: Any, out_shape: Any, **named: Any) -> int:
    return _fft_flops(shape, dims, *rest, out_shape=out_shape, **named) // 2


def _sdpa_flops(query: Any, key: Any, value: Any, *_: Any, **__: Any) -> int:
    """Two products per head: (T, D) x (D, S) and (T, S) x (S, Dv)."""
    batch, heads, frames, dim = (int(size) for size in query)
    return 2 * batch * heads * frames * int(key[-2]) * (dim + int(value[-1]))


def _product_flops(left: Any, *_: Any, **__: Any) -> int:
    return 2 * _numel(left)


def _addmv_flops(_bias: Any, matrix: Any, *_: Any, **__: Any) -> int:
    return 2 * _numel(matrix)


# torch 2.8 on a CPU runs attention in an operator that the counter lacks, and so loses it
# (efficient-attention formulas exist for CUDA only); vectors and FFTs are missing everywhere.
FORMULAS: dict[Any, Callable[..., int]] = {
    aten._scaled_dot_product_flash_attention_for_cpu: _sdpa_flops,
    aten._fft_r2c: _real_fft_flops,
    aten._fft_c2r: _real_fft_flops,
    aten._fft_c2c: _fft_flops,
    aten.mv: _product_flops,
    aten.dot: _product_flops,
    aten.addmv: _addmv_flops,
}


def kind_of(operator: Any) -> str:
    """`convolution`, `attention`, `fft`, or `linear` (matrix products, attention's own `bmm` among them)."""
    name = str(operator)
    for kind, words in {"convolution": ("conv",), "attention": ("attention",), "fft": ("fft",)}.items():
        if any(word in name for word in words):
            return kind
    return "batched_products" if "bmm" in name else "linear"


def is_free(operator: Any) -> bool:
    """Whether an operator is known to do no multiplications worth counting."""
    if torch.Tag.pointwise in operator.tags or operator.is_view:
        return True
    namespace, _, name = operator._schema.name.partition("::")
    return namespace in ("aten", "prims", "prim") and (name in FREE or name.rstrip("_") in FREE)


class OperatorLog(TorchDispatchMode):
    """Records which operators ran, and which parameters they read."""

    def __init__(self) -> None:
        super().__init__()
        self.operators: dict[Any, int] = {}
        self.parameters: dict[int, int] = {}  # id -> elements

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Log the call and let it through."""
        self.operators[func] = self.operators.get(func, 0) + 1
        for value in args:
            if isinstance(value, torch.nn.Parameter):
                self.parameters[id(value)] = value.numel()
        return func(*args, **(kwargs or {}))

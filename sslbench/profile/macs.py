"""Multiply-accumulates on the SUPERB challenge's 32 lengths, without computing anything.

The lengths and buckets are those of the challenge's profiling script (DeepSpeed, branch `superb-challenge`,
`testing/s3prl_profiling_test.py`): every 82nd utterance of LibriSpeech test-clean, batch 1, summed. Only
the lengths matter, so models run on the meta device, where no arithmetic happens.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode, flop_registry

from sslbench.audio import SAMPLE_RATE_HZ
from sslbench.errors import SslbenchError
from sslbench.profile.operators import FORMULAS, OperatorLog, is_free, kind_of

BUCKETS: dict[str, tuple[int, ...]] = {
    "short": (20560, 34560, 38480, 42560, 45600, 48720, 52000, 55120),
    "medium": (59120, 62720, 66400, 71200, 75200, 78640, 82800, 87520),
    "long": (92720, 98560, 104400, 111120, 118480, 125040, 132720, 142640),
    "longer": (154000, 166720, 180880, 197920, 217920, 239280, 268160, 326000),
}
"""Samples at 16 kHz of the 32 utterances, by the challenge's four buckets."""

SMALL = 20_000_000
"""Parameters below which computing is quicker than faking."""

TOTAL_AUDIO_S = sum(sum(lengths) for lengths in BUCKETS.values()) / SAMPLE_RATE_HZ

Forward = Callable[[nn.Module, torch.Tensor], Any]


@dataclass
class Macs:
    """What a model costs on the 32 lengths."""

    buckets_g: dict[str, float]
    """10^9 MACs per bucket."""
    kinds_g: dict[str, float]
    """10^9 MACs by kind of operator: convolution, linear, batched_products, attention, fft."""
    unlisted: list[str]
    """Operators that were neither counted nor known to be free; with any, the total is a lower bound."""
    params_active: int
    """Parameters that the forward pass reads."""
    counted_on: str
    """"meta"; "fake" for models that read lengths as Python numbers; "cpu" for those that need more real
    values. The counts are the same."""
    notes: list[str] = field(default_factory=list)
    """Why not "meta"."""

    @property
    def total_g(self) -> float:
        """10^9 MACs over all buckets."""
        return sum(self.buckets_g.values())


def upstream_forward(model: nn.Module, wav: torch.Tensor) -> Any:
    """The upstream contract: a list of (T,) waveforms."""
    return model([wav])


def count_macs(
    build: Callable[[], nn.Module],
    forward: Forward = upstream_forward,
    lengths: Mapping[str, Sequence[int]] = BUCKETS,
) -> Macs:
    """Count a model's MACs, by default on the official lengths.

    Args:
        build: makes the model. It is called again when the model turns out to need real values (for
            example when it turns lengths into Python numbers); the count then computes on the CPU.
        forward: how one (T,) waveform goes through the model.
        lengths: samples of each clip, by bucket.

    Raises:
        SslbenchError: the model fails on the CPU too.
    """
    notes = []
    for where, what in (("meta", "on the meta device"), ("fake", "with fake tensors")):
        model = build().eval()
        if where == "fake" and sum(p.numel() for p in model.parameters()) < SMALL:
            continue
        try:
            macs = _count(model, forward, where, lengths)
            break
        except Exception as error:
            # whatever a foreign model raises without real values, the CPU decides
            notes.append(f"does not run {what} ({_first_line(error)})")
    else:
        try:
            macs = _count(build().eval(), forward, "cpu", lengths)
        except Exception as error:
            problem = f"the model fails on a clip of these lengths: {_first_line(error)}"
            raise SslbenchError(f"profile: {problem}") from error
    if macs.counted_on == "cpu":
        macs.notes.append("MACs counted while computing, since the model " + " and ".join(notes))
    return macs


def _count(model: nn.Module, forward: Forward, where: str, clips: Mapping[str, Sequence[int]]) -> Macs:
    if where == "meta":
        model.to("meta")
    # a fake tensor has no values either, but remembers those of one-element constants such as a clip's length
    fake = FakeTensorMode(allow_non_fake_inputs=True) if where == "fake" else contextlib.nullcontext()
    device = "meta" if where == "meta" else "cpu"
    buckets_g: dict[str, float] = {}
    kinds_g: dict[str, float] = {}
    log = OperatorLog()
    counted: set[Any] = set(flop_registry) | set(FORMULAS)
    fast_path = torch.backends.mha.get_fastpath_enabled()
    # the fused encoder layer is one operator that no counter can look into
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        for bucket, lengths in clips.items():
            flops: dict[Any, int] = {}
            for samples in lengths:
                with fake:
                    counts = _flops(model, forward, torch.zeros(samples, device=device), log)
                for operator, count in counts.items():
                    flops[operator] = flops.get(operator, 0) + count
            buckets_g[bucket] = sum(flops.values()) / 2e9
            for operator, count in flops.items():
                kinds_g[kind_of(operator)] = kinds_g.get(kind_of(operator), 0.0) + count / 2e9
    finally:
        torch.backends.mha.set_fastpath_enabled(fast_path)
    unlisted = sorted(str(op) for op in log.operators if op.overloadpacket not in counted and not is_free(op))
    return Macs(buckets_g, kinds_g, unlisted, sum(log.parameters.values()), where)


def _flops(model: nn.Module, forward: Forward, wav: torch.Tensor, log: OperatorLog) -> dict[Any, int]:
    counter = FlopCounterMode(display=False, custom_mapping=FORMULAS)
    # the log lies outside the counter, so that it sees what composite operators were taken apart into
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), log, counter, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        forward(model, wav)
    return dict(counter.get_flop_counts().get("Global", {}))


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0][:160]}" if lines else type(error).__name__

"""A frozen upstream as the probe engine sees it: every layer's frames of each clip."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from sslbench.audio import SAMPLE_RATE_HZ
from sslbench.errors import SslbenchError
from sslbench.nn.foreign import check_frames
from sslbench.provenance import versions

SAMPLED = 16
LIBRARIES = ("torch", "s3prl", "transformers")


def libraries() -> dict[str, str]:
    """The versions of what upstreams are made of; "" for one that is not installed."""
    return dict.fromkeys(LIBRARIES, "") | versions(LIBRARIES)


def _sampled(state: torch.Tensor) -> list[float]:
    values = state.float().cpu().flatten()
    return [float(v) for v in values[torch.linspace(0, len(values) - 1, SAMPLED).long()]]


def same_sample(one: Sequence[Sequence[float]], other: Sequence[Sequence[float]], tolerance: float) -> bool:
    """Whether two `Encoder.sample` agree, layer by layer, within `tolerance` of the layer's largest value.

    A hash of rounded values would differ whenever a value lies near a rounding's edge.
    """
    return [len(layer) for layer in one] == [len(layer) for layer in other] and all(
        abs(a - b) <= tolerance * max(1e-6, *map(abs, mine))
        for mine, theirs in zip(one, other, strict=True)
        for a, b in zip(mine, theirs, strict=True)
    )


class Encoder:
    """Layers as one tensor per clip, in true eval mode and without gradients.

    A clip of n samples has round(n / stride) frames, at least one, or as many as its upstream emits where
    these are fewer (`ForeignUpstream`: 49 of a second for HuBERT, 98 for fbank): s3prl's featurizer
    (s3prl/upstream/interfaces.py, `tolist`), whose protocol this engine follows, cuts and never fills up.
    """

    def __init__(self, upstream: nn.Module, device: str = "cpu", precision: str = "fp32") -> None:
        """Take over an upstream.

        Args:
            upstream: any that keeps the contract.
            device: where it runs.
            precision: "bf16" runs it under autocast; features stay float32.

        Raises:
            SslbenchError: its layers differ in shape, or its frames do not fit its downsample rate.
        """
        self.upstream = upstream.to(device).eval().requires_grad_(False)
        self.device, self.precision = device, precision
        rate: Any = upstream.get_downsample_rates
        self.stride = int(rate("hidden_states"))
        noise = torch.randn(SAMPLE_RATE_HZ, generator=torch.Generator().manual_seed(0)) * 0.1
        probe, (emitted,) = self._states([noise])
        shapes = {tuple(state.shape) for state in probe}
        if len(shapes) != 1:
            raise SslbenchError(
                f"upstream: its layers differ in shape ({sorted(shapes)}); see 'sslbench check UPSTREAM'"
            )
        check_frames(SAMPLE_RATE_HZ, probe[0].shape[1], self.stride)
        frames = min(self.num_frames(SAMPLE_RATE_HZ), emitted)
        self.sample = [_sampled(state[:, :frames]) for state in probe]
        """Some values of each layer on the fixed noise: they tell other code from the same."""
        self.layers, self.dim = len(probe), int(probe[0].shape[-1])

    def num_frames(self, num_samples: int) -> int:
        """Most frames that a clip can have."""
        return max(1, round(num_samples / self.stride))

    def encode(self, wavs: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """(L, F, D) float32 on the CPU for each (T,) clip."""
        layers, emitted = self._states(list(wavs))
        states = torch.stack(layers).float().cpu()  # (L, B, F, D)
        check_frames(max(map(len, wavs)), states.shape[2], self.stride)
        if not bool(torch.isfinite(states).all()):
            raise SslbenchError("upstream: gives values that are not finite; check its checkpoint")
        frames = [min(self.num_frames(len(wav)), own) for wav, own in zip(wavs, emitted, strict=True)]
        return [states[:, i, :count] for i, count in enumerate(frames)]

    def _states(self, wavs: list[torch.Tensor]) -> tuple[list[torch.Tensor], list[int]]:
        """Layers, each (B, F, D), and the frames that the upstream itself gave each clip."""
        bf16 = torch.autocast(self.device.split(":")[0], torch.bfloat16, enabled=self.precision == "bf16")
        with torch.inference_mode(), bf16:
            given = self.upstream([wav.to(self.device) for wav in wavs])
        states = list(given["hidden_states"])
        return states, given.get("emitted", [states[0].shape[1]] * len(wavs))

    def tolerance(self) -> float:
        """How far `sample` may be from that of the same code on other threads, relative to a layer's peak."""
        return 3e-2 if self.precision == "bf16" else 2e-3

    def fingerprint(self) -> str:
        """sha256 of parameters and buffers: features of other weights are never reused."""
        digest = hashlib.sha256()
        for name, value in sorted(self.upstream.state_dict().items()):
            if isinstance(value, torch.Tensor):
                digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
                digest.update(
                    value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
                )
        return digest.hexdigest()

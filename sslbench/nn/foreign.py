"""Somebody else's upstream behind our contract: frozen stays frozen, frame counts fit, weights are named."""

from __future__ import annotations

import hashlib
from typing import Any

import torch
from torch import nn

from sslbench.errors import SslbenchError

# s3prl's own S3PRLUpstream pads clips below 0.05 s up to that (nn/upstream.py: MIN_SECOND)
MIN_SAMPLES = 800
TOLERABLE_FRAMES = 5


class ForeignUpstream(nn.Module):
    """An expert of s3prl's calling convention with the attributes and behaviour that our evaluations rely on.

    Attributes:
        weights: "imported", "none" (no parameters, as fbank) or "random".
        weights_sha256: of the parameters and buffers; None for "none" and "random".
    """

    def __init__(self, expert: nn.Module, weights: str, frozen: bool = True, raw: bool = False) -> None:
        """Wrap an expert; `raw` leaves frame counts as the expert emits them."""
        super().__init__()
        self.expert = expert
        self.weights = weights
        self.weights_sha256 = _state_sha256(expert) if weights == "imported" else None
        self.frozen = frozen
        self.raw = raw
        # without parameters a batch saves nothing, and clip by clip is free of padding
        self._alone = weights == "none"
        if frozen:
            self.requires_grad_(False)
            self.eval()

    def train(self, mode: bool = True) -> ForeignUpstream:
        """As `nn.Module.train`, but a frozen upstream stays in eval mode."""
        return super().train(mode and not self.frozen)

    def get_downsample_rates(self, key: str = "hidden_states") -> int:
        """Samples per frame. Raises `SslbenchError` when layers differ in it."""
        expert: Any = self.expert
        rates = expert.get_downsample_rates(key)
        if isinstance(rates, int):
            return rates
        if len(set(rates)) != 1:
            raise SslbenchError(
                f"its layers have different frame rates {sorted(set(rates))}; one rate is needed"
            )
        return int(rates[0])

    def forward(self, wavs: list[torch.Tensor]) -> dict[str, Any]:
        """Features of a list of (T,) float32 clips at 16 kHz.

        Returns:
            `hidden_states`: list of (B, ceil(max T / stride), D), zero beyond each clip's
            ceil(T/stride) frames; missing frames repeat the last one, as in `S3PRLUpstream`.
            `emitted`: list of B counts, how many of a clip's frames the expert itself gave.

        Raises:
            SslbenchError: no clip, an empty one, or frames that do not fit the downsample rate.
        """
        if not wavs or min(len(wav) for wav in wavs) == 0:
            raise SslbenchError("an upstream needs at least one clip, and no clip may be empty")
        if self.raw:
            return self.expert(wavs)
        lens = [-(-len(wav) // self.get_downsample_rates()) for wav in wavs]
        padded = [nn.functional.pad(wav, (0, max(0, MIN_SAMPLES - len(wav)))) for wav in wavs]
        groups = [[wav] for wav in padded] if self._alone else [padded]
        batches = [self.expert(group)["hidden_states"] for group in groups]
        emitted: list[int] = []
        for group, batch in zip(groups, batches, strict=True):
            check_frames(max(map(len, group)), batch[0].shape[1], self.get_downsample_rates())
            emitted += [batch[0].shape[1]] * len(group)
        states = [
            _join([_fit(batch[layer], max(lens)) for batch in batches], lens)
            for layer in range(len(batches[0]))
        ]
        emitted = [min(pair) for pair in zip(emitted, lens, strict=True)]
        return {"hidden_states": states, "last_hidden_state": states[-1], "emitted": emitted}


def check_frames(samples: int, frames: int, stride: int) -> None:
    """Raise `SslbenchError` when frames differ from round(samples / stride) by 5 or more.

    Cutting or repeating so many would hide a wrong downsample rate (s3prl/upstream/interfaces.py, `tolist`,
    has the same limit).
    """
    if abs(frames - round(samples / stride)) >= TOLERABLE_FRAMES:
        raise SslbenchError(
            f"upstream: gives {frames} frames for {samples} samples, where its downsample rate {stride} says "
            f"{round(samples / stride)}; mend its get_downsample_rates"
        )


def _fit(states: torch.Tensor, frames: int) -> torch.Tensor:
    """(B, F, D) cut to, or continued with its last frame up to, `frames`."""
    missing = frames - states.shape[1]
    if missing <= 0:
        return states[:, :frames]
    return torch.cat([states, states[:, -1:].expand(-1, missing, -1)], dim=1)


def _join(parts: list[torch.Tensor], lens: list[int]) -> torch.Tensor:
    states = torch.cat(parts)  # (B, F, D)
    valid = (
        torch.arange(states.shape[1], device=states.device)
        < torch.tensor(lens, device=states.device)[:, None]
    )
    return states.masked_fill(~valid[..., None], 0.0)


def _state_sha256(module: nn.Module) -> str:
    digest = hashlib.sha256()
    for name, value in sorted(module.state_dict().items()):
        if isinstance(value, torch.Tensor):
            digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
            digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()

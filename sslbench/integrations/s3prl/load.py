"""Any upstream of s3prl behind our contract: frozen stays frozen, frame counts fit, weights are named."""

from __future__ import annotations

import hashlib
import importlib
import socket
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from sslbench import registry
from sslbench.errors import SslbenchError, did_you_mean
from sslbench.integrations.s3prl.names import s3prl_names

# s3prl's own S3PRLUpstream pads clips below 0.05 s up to that (nn/upstream.py: MIN_SECOND)
MIN_SAMPLES = 800
DOWNLOAD_TIMEOUT_S = 20.0


class ForeignUpstream(nn.Module):
    """An s3prl expert with the attributes and behaviour that our evaluations rely on.

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
        """
        if not wavs or min(len(wav) for wav in wavs) == 0:
            raise SslbenchError("an upstream needs at least one clip, and no clip may be empty")
        if self.raw:
            return self.expert(wavs)
        lens = [-(-len(wav) // self.get_downsample_rates()) for wav in wavs]
        padded = [nn.functional.pad(wav, (0, max(0, MIN_SAMPLES - len(wav)))) for wav in wavs]
        groups = [[wav] for wav in padded] if self._alone else [padded]
        batches = [self.expert(group)["hidden_states"] for group in groups]
        states = [
            _join([_fit(batch[layer], max(lens)) for batch in batches], lens)
            for layer in range(len(batches[0]))
        ]
        return {"hidden_states": states, "last_hidden_state": states[-1]}


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


def load_s3prl_upstream(
    name: str,
    ckpt: Path | str | None = None,
    frozen: bool = True,
    raw: bool = False,
    seed: int = 0,
    **options: Any,
) -> ForeignUpstream:
    """Build an upstream that s3prl knows.

    Args:
        name: a name of `s3prl.hub`.
        ckpt: file, folder or address, for names ending in `_local`, `_url` and `_custom`.
        frozen: False to fine-tune.
        raw: leave frame counts and short clips as the expert treats them (for `sslbench check`).
        seed: of random weights, where they stand in for ones that cannot be fetched.
        **options: passed to s3prl's entry.

    Raises:
        SslbenchError: unknown name (with the nearest known ones), or s3prl cannot build it.
    """
    entry = _find(name)
    if ckpt is not None:
        options["ckpt"] = str(ckpt)
    try:
        expert = _call(entry, options)
    except (OSError, ImportError, AssertionError, KeyError, RuntimeError, TypeError, ValueError) as error:
        fallback = _stand_in(name, seed) if ckpt is None and isinstance(error, OSError) else None
        if fallback is None:
            what = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
            raise SslbenchError(
                f"{name}: s3prl cannot build it ({what}); give --ckpt, or see s3prl's docs"
            ) from error
        warnings.warn(
            f"{name}: its weights cannot be fetched; the architecture has RANDOM weights", stacklevel=2
        )
        return ForeignUpstream(fallback, "random", frozen, raw)
    has_parameters = any(True for _ in expert.parameters())
    return ForeignUpstream(expert, "imported" if has_parameters else "none", frozen, raw)


def _find(name: str) -> Callable[..., nn.Module]:
    from sslbench.integrations.s3prl import compat

    compat.apply()
    hub = sys.modules.get("s3prl.hub")
    known = s3prl_names()
    if hub is not None and hasattr(hub, name):  # also what others registered there
        return getattr(hub, name)
    if name not in known:
        ours = [entry.name for entry in registry.upstreams()]
        raise SslbenchError(f"no upstream named {name!r}; {did_you_mean(name, [*ours, *known])}")
    try:
        return getattr(importlib.import_module(known[name]), name)
    except ImportError as error:
        raise SslbenchError(f"{name}: {error}; pip install 'sslbench[s3prl]'") from error


def _call(entry: Callable[..., nn.Module], options: dict[str, Any]) -> nn.Module:
    """Build the expert; a download behind a silent firewall fails soon instead of hanging."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(before or DOWNLOAD_TIMEOUT_S)
    try:
        return entry(**options)
    finally:
        socket.setdefaulttimeout(before)


def _stand_in(name: str, seed: int) -> nn.Module | None:
    from sslbench.integrations.s3prl.stand_in import stand_in

    try:
        return stand_in(name, seed)
    except ImportError:
        return None

"""Bottleneck and convolution adapters in a frozen encoder, put in by forward hooks.

Both start as the identity: the last projection is zero.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from sslbench.errors import SslbenchError
from sslbench.finetune.peft.settings import PeftSettings
from sslbench.finetune.peft.sites import Site, blocks, last_parts, sites
from sslbench.finetune.peft.tuning import Tuning
from sslbench.nn.frontend import length_mask

WINDOW = 400  # samples that one frame of wav2vec 2.0's front end sees, and of the usual filterbank


class Bottleneck(nn.Module):
    """x + up(gelu(down(x))), frame by frame (Houlsby et al., ICML 2019)."""

    def __init__(self, dim: int, width: int) -> None:
        super().__init__()
        self.down = nn.Linear(dim, width)
        self.up = nn.Linear(width, dim)
        nn.init.zeros_(self.up.weight)
        nn.init.zeros_(self.up.bias)

    def forward(self, x: torch.Tensor, valid: torch.Tensor | None) -> torch.Tensor:
        """(B, T, D) -> (B, T, D)."""
        y: torch.Tensor = x + self.up(F.gelu(self.down(x)))
        return y


class ConvBottleneck(nn.Module):
    """x + up(gelu(conv(down(x)))) with a depthwise convolution over time.

    After the ConvAdapter of SURE (Li et al., ICASSP 2023), whose bottleneck is convolutional too.
    """

    def __init__(self, dim: int, width: int, kernel: int) -> None:
        super().__init__()
        self.down = nn.Linear(dim, width)
        self.conv = nn.Conv1d(width, width, kernel, padding=kernel // 2, groups=width)
        self.up = nn.Linear(width, dim)
        nn.init.zeros_(self.up.weight)
        nn.init.zeros_(self.up.bias)

    def forward(self, x: torch.Tensor, valid: torch.Tensor | None) -> torch.Tensor:
        """(B, T, D), (B, T) bool False on padding -> (B, T, D)."""
        hidden = self.down(x)
        if valid is not None:
            hidden = hidden * valid[:, :, None]
        hidden = self.conv(hidden.transpose(1, 2)).transpose(1, 2)
        y: torch.Tensor = x + self.up(F.gelu(hidden))
        return y


class Hooked(Tuning):
    """Adapters applied to the output of modules of the upstream."""

    def __init__(self, upstream: nn.Module, places: list[Site], adapters: list[nn.Module]) -> None:
        super().__init__()
        self.places = places
        self.adapters = nn.ModuleList(adapters)
        self._lens: torch.Tensor | None = None
        modules = dict(upstream.named_modules())
        for place, adapter in zip(places, adapters, strict=True):
            modules[place.name].register_forward_hook(self._hook(place, adapter))

    def use_lens(self, audio_lens: torch.Tensor) -> None:
        """Lets convolutions know where clips end."""
        self._lens = audio_lens

    def _hook(self, place: Site, adapter: nn.Module) -> Any:
        def change(module: nn.Module, args: Any, output: Any) -> Any:
            if isinstance(output, (tuple, list)):
                return (change(module, args, output[0]), *output[1:])
            frames = output if place.batch_axis == 0 else output.transpose(0, 1)  # (B, T, D)
            changed = adapter(frames, self._valid(place, frames))
            return changed if place.batch_axis == 0 else changed.transpose(0, 1)

        return change

    def _valid(self, place: Site, frames: torch.Tensor) -> torch.Tensor | None:
        if self._lens is None or len(self._lens) != len(frames):
            return None
        # the frames that a window of 25 ms gives: those that encoders count as valid, and never more
        lens = torch.div((self._lens - WINDOW).clamp(min=0), place.stride, rounding_mode="floor") + 1
        return length_mask(lens.to(frames.device).clamp(max=frames.shape[1]), frames.shape[1])


class HoulsbyAdapters(Hooked):
    """Two bottlenecks per layer: after its attention and after its feed-forward part."""

    def __init__(self, upstream: nn.Module, settings: PeftSettings) -> None:
        places = last_parts(upstream)
        super().__init__(upstream, places, [Bottleneck(place.dim, settings.bottleneck) for place in places])


class ConvAdapters(Hooked):
    """One convolutional bottleneck after every layer."""

    def __init__(self, upstream: nn.Module, settings: PeftSettings) -> None:
        places = sites(upstream, blocks(upstream))
        if not places:
            raise SslbenchError("peft: the output of this upstream's layers is no sequence of frames")
        sizes = settings.bottleneck, settings.kernel
        super().__init__(upstream, places, [ConvBottleneck(place.dim, *sizes) for place in places])

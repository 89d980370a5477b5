"""Frame features at 50 Hz for k-means: MFCC, or one layer of an upstream.

HuBERT's first iteration clusters 39-dimensional MFCC (13 cepstra with two orders of differences), its
second a hidden layer (Hsu et al. 2021, arXiv:2106.07447, §IV-B). Every source here gives exactly
ceil(T/320) frames, so labels line up with the encoders of this package.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import torch
from torch.nn import functional as F

from sslbench.audio import SAMPLE_RATE_HZ
from sslbench.errors import SslbenchError

FRAME_SAMPLES = 320
"""Samples per label: 20 ms, 50 Hz."""
MFCC_WINDOW_MS = 25.0


class Features(Protocol):
    """A source of 50 Hz frame features."""

    name: str
    """As on the command line: `mfcc` or `UPSTREAM:LAYER`."""
    normalize: str
    """Usual normalisation of this source: "utterance", "global" or "none"."""

    def facts(self) -> dict[str, Any]:
        """What identifies the features, for `units.yaml`."""
        ...

    def frames(self, wavs: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """The (ceil(T/320), D) float32 frames of each (T,) clip."""
        ...


def num_frames(num_samples: int) -> int:
    """Labels of a clip: one per started 20 ms."""
    return -(-num_samples // FRAME_SAMPLES)


class MfccFeatures:
    """13 MFCC with Δ and ΔΔ (39 dims), Kaldi's definition.

    HuBERT's scripts compute them every 10 ms. Here the hop is 20 ms at once: each clip is extended to a
    multiple of 320 samples by mirroring its tail and cut without Kaldi's edge snipping, which centres
    frame i on sample 320·i + 160 and gives ceil(T/320) frames.

    Not normalised, as in HuBERT's scripts (fairseq, examples/hubert/simple_kmeans): the cepstra's own
    scales weigh them sensibly. On the embedded corpus, 100 units on held-out speakers had a PNMI of 0.571
    raw, 0.527 with each utterance and 0.525 with the corpus brought to zero mean and unit variance.
    """

    name = "mfcc"
    normalize = "none"

    def facts(self) -> dict[str, Any]:
        return {"feature": self.name, "dim": 39, "hop_ms": 20.0, "window_ms": MFCC_WINDOW_MS}

    def frames(self, wavs: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        return [_mfcc(wav) for wav in wavs]


def _mfcc(wav: torch.Tensor) -> torch.Tensor:
    from torchaudio.compliance.kaldi import mfcc
    from torchaudio.functional import compute_deltas

    wanted = num_frames(len(wav))
    # one hop is shorter than the window, so the shortest clips are framed over two
    missing = max(wanted, 2) * FRAME_SAMPLES - len(wav)
    if missing:
        tail = wav.flip(0)[:missing]
        wav = F.pad(torch.cat([wav, tail]), (0, missing - len(tail)))
    static = mfcc(
        wav[None],
        sample_frequency=SAMPLE_RATE_HZ,
        frame_length=MFCC_WINDOW_MS,
        frame_shift=1000.0 * FRAME_SAMPLES / SAMPLE_RATE_HZ,
        snip_edges=False,
        use_energy=False,
    ).T[:, :wanted]  # (13, F)
    delta = compute_deltas(static)
    return torch.cat([static, delta, compute_deltas(delta)]).T.contiguous()


class UpstreamFeatures:
    """One layer of a frozen upstream, at 50 Hz."""

    normalize = "none"

    def __init__(
        self,
        upstream: str,
        layer: int | None,
        ckpt: Path | str | None = None,
        device: str = "cpu",
        random_too: bool = False,
    ) -> None:
        """Load the upstream; no layer means the middle one.

        Raises:
            SslbenchError: it has no such layer, its frames do not fit 20 ms, there is no such device, or
                its weights are random and neither `ckpt` nor `random_too` asks for such.
        """
        from sslbench.device import pick_device
        from sslbench.nn.upstream import weights_of
        from sslbench.upstreams import load_upstream

        self.device = pick_device(device)
        self.model = load_upstream(upstream, ckpt=ckpt, stand_in=random_too).to(self.device).eval()
        weights, self.ckpt_sha256 = weights_of(self.model)
        if weights == "random" and not (random_too or ckpt):
            raise SslbenchError(
                f"{upstream}: has random weights; give --ckpt, or say --random_weights for units of such"
            )
        rate: Any = self.model.get_downsample_rates
        self.stride = int(rate("hidden_states"))
        if self.stride % FRAME_SAMPLES and FRAME_SAMPLES % self.stride:
            raise SslbenchError(
                f"{upstream}: one frame per {self.stride} samples does not fit labels every 320"
            )
        layers = len(self._states([torch.zeros(SAMPLE_RATE_HZ // 2)]))
        layer = layers // 2 if layer is None else layer
        if not -layers <= layer < layers:
            raise SslbenchError(
                f"{upstream}: has no layer {layer}; it has {layers}, numbered from 0 to {layers - 1}"
            )
        self.layer = layer % layers
        self.name = f"{upstream}:{self.layer}"

    def facts(self) -> dict[str, Any]:
        upstream, sha = self.name.rpartition(":")[0], self.ckpt_sha256
        return {"feature": self.name, "upstream": upstream, "layer": self.layer, "ckpt_sha256": sha}

    def frames(self, wavs: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        states = self._states(list(wavs))[self.layer].float().cpu()  # (B, F, D)
        if self.stride < FRAME_SAMPLES:
            states = states[:, :: FRAME_SAMPLES // self.stride]
        elif self.stride > FRAME_SAMPLES:
            states = states.repeat_interleave(self.stride // FRAME_SAMPLES, dim=1)
        return [_fit(clip, num_frames(len(wav))) for clip, wav in zip(states, wavs, strict=True)]

    def _states(self, wavs: list[torch.Tensor]) -> list[torch.Tensor]:
        with torch.inference_mode():
            states: list[torch.Tensor] = list(self.model([w.to(self.device) for w in wavs])["hidden_states"])
        return states


def _fit(frames: torch.Tensor, wanted: int) -> torch.Tensor:
    """The first `wanted` frames; foreign encoders emit one or two fewer, then the last is repeated."""
    if len(frames) < wanted:
        frames = torch.cat([frames, frames[-1:].expand(wanted - len(frames), -1)])
    return frames[:wanted]


def open_features(
    name: str, ckpt: Path | str | None = None, device: str = "cpu", random_too: bool = False
) -> Features:
    """The source for a command-line name.

    Raises:
        SslbenchError: a name of neither form, or as `UpstreamFeatures`.
    """
    if name == "mfcc":
        if ckpt:
            raise SslbenchError("--feature mfcc: takes no --ckpt; name a layer as UPSTREAM:LAYER to use one")
        return MfccFeatures()
    upstream, _, layer = name.rpartition(":")
    if not upstream or not (layer == "middle" or layer.lstrip("-").isdigit()):
        raise SslbenchError(
            f"--feature {name}: expected 'mfcc' or UPSTREAM:LAYER, for example hubert_k2ssl:6 "
            "or hubert_k2ssl:middle"
        )
    return UpstreamFeatures(upstream, None if layer == "middle" else int(layer), ckpt, device, random_too)

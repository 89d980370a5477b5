"""Seeded span masking for masked prediction.

The distribution is that of wav2vec 2.0 and HuBERT (fairseq, `compute_mask_indices`, static length):
floor(prob * frames / span + u) span starts without replacement, overlaps allowed, and rows of a batch
trimmed to the count of the least masked one. Unlike the originals' it is reproducible, vectorised, and
defined for clips of any length.
"""

from __future__ import annotations

import torch

from sslbench.nn.frontend import length_mask


def span_mask(
    frame_lens: torch.Tensor,
    max_frames: int,
    prob: float,
    span: int,
    generator: torch.Generator | None,
    min_spans: int = 2,
) -> torch.Tensor:
    """Which frames to mask.

    Clips too short for `min_spans` spans of the full length get shorter spans, so that at least one frame
    stays visible; a clip of one frame is not masked. Rows of equal length end with equal counts, as
    published; a row is never trimmed because of a shorter clip in its batch.

    Args:
        frame_lens: (B,) int64 valid frames, on any device.
        max_frames: F, the width of the result.
        prob: share of frames covered if spans did not overlap.
        span: frames per span.
        generator: on the CPU; None uses the global one.
        min_spans: fewest spans per clip.

    Returns:
        (B, F) bool on `frame_lens`' device; False beyond each clip.
    """
    lens = frame_lens.cpu()
    batch = len(lens)
    offset = torch.rand(batch, generator=generator)
    spans = (prob * lens / span + offset).long().clamp_min(min_spans)
    spans = torch.minimum(spans, (lens - 1).clamp_min(0))
    short = lens - span <= spans
    length = torch.where(short, (lens - 1) // spans.clamp_min(1), span).clamp_min(1)  # (B,)

    keys = torch.rand(batch, max_frames, generator=generator)
    starts = _lowest(keys, length_mask(lens - length, max_frames), spans)
    # A frame is masked when a start lies in the `length` frames that end with it.
    count = torch.cat([torch.zeros(batch, 1, dtype=torch.long), starts.long().cumsum(1)], dim=1)  # (B, F + 1)
    ends = torch.arange(1, max_frames + 1)[None].expand(batch, -1)
    mask = (count.gather(1, ends) - count.gather(1, (ends - length[:, None]).clamp_min(0))) > 0

    masked = mask.sum(1)
    same = lens[:, None] == lens[None]  # (B, B)
    keep = torch.where(same, masked[None], max_frames).amin(1)
    mask = _lowest(torch.rand(batch, max_frames, generator=generator), mask, keep)
    return mask.to(frame_lens.device)


def _lowest(keys: torch.Tensor, allowed: torch.Tensor, counts: torch.Tensor) -> torch.Tensor:
    """(B, F) bool, True at the `counts` allowed positions with the lowest keys of each row."""
    rank = keys.masked_fill(~allowed, 2.0).argsort(dim=1).argsort(dim=1)
    return (rank < counts[:, None]) & allowed

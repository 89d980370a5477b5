"""SpecAugment on a batch of features, with the rules and the draws of s3prl's `downstream/specaug.py`.

Park et al. 2019 (arXiv 1904.08779). s3prl applies it to the weighted sum of the frozen layers while
training, so it belongs to the head here.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F


class SpecAugment(nn.Module):
    """Warp time, mask dimensions, mask time; the identity in eval mode."""

    def __init__(
        self,
        warp_frames: int = 5,
        dim_masks: int = 4,
        dim_mask_width: int = 50,
        time_masks: int = 2,
        time_mask_frames: int = 40,
    ) -> None:
        """The defaults are those of s3prl's `asr/config.yaml` and `ctc/snips.yaml`.

        Args:
            warp_frames: a point of each clip moves by less than this; shorter clips stay as they are.
            dim_masks: masks over feature dimensions per clip.
            dim_mask_width: each is narrower than this.
            time_masks: masks over frames per clip.
            time_mask_frames: each is shorter than this.
        """
        super().__init__()
        self.warp_frames = warp_frames
        self.dim_masks, self.dim_mask_width = dim_masks, dim_mask_width
        self.time_masks, self.time_mask_frames = time_masks, time_mask_frames

    def forward(self, features: torch.Tensor, lens: torch.Tensor) -> torch.Tensor:
        """(B, F, D) and (B,) frames → (B, F, D)."""
        if not self.training:
            return features
        clips = [self._warped(clip[: int(n)]) for clip, n in zip(features, lens, strict=True)]
        warped = nn.utils.rnn.pad_sequence(clips, batch_first=True)
        warped = F.pad(warped, (0, 0, 0, features.shape[1] - warped.shape[1]))
        masked = warped.masked_fill(_masks(warped, 2, self.dim_masks, self.dim_mask_width), 0.0)
        return masked.masked_fill(_masks(masked, 1, self.time_masks, self.time_mask_frames), 0.0)

    def _warped(self, clip: torch.Tensor) -> torch.Tensor:
        """(F, D): stretch up to a random frame, squeeze after it, or the other way round."""
        frames, window = len(clip), self.warp_frames
        if frames <= 2 * window:
            return clip
        center = int(torch.randint(window, frames - window, (1,)))
        moved = int(torch.randint(center - window, center + window, (1,))) + 1
        return torch.cat([_resized(clip[:center], moved), _resized(clip[center:], frames - moved)])


def _resized(clip: torch.Tensor, frames: int) -> torch.Tensor:
    size = (frames, clip.shape[1])
    return F.interpolate(clip[None, None], size, mode="bicubic", align_corners=False)[0, 0]


def _masks(features: torch.Tensor, axis: int, count: int, width: int) -> torch.Tensor:
    """True where one of `count` masks per clip lies, along `axis`; places count over the padded length."""
    size, device = features.shape[axis], features.device
    lengths = torch.randint(0, width, (len(features), count), device=device)[..., None]
    # one bound for all masks of the batch, from the longest: s3prl's
    starts = torch.randint(0, max(1, size - int(lengths.max())), (len(features), count), device=device)
    places = torch.arange(size, device=device)
    covered = ((starts[..., None] <= places) & (places < starts[..., None] + lengths)).any(dim=1)
    return covered[:, :, None] if axis == 1 else covered[:, None, :]

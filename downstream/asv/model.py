"""The x-vector and its additive-margin softmax, as SUPERB's speaker verification trains them.

Sources: Snyder et al., ICASSP 2018 (x-vector); Wang et al., arXiv:1801.05599 (AM-softmax); sizes and
quirks from s3prl/downstream/sv_voxceleb1 (configs/amsoftmax.yaml, model.py, expert.py).
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

HIDDEN, POOLED = 512, 1500
CONTEXTS = ((5, 1), (3, 2), (3, 3), (1, 1), (1, 1))  # (width, dilation) of each layer
LOST_FRAMES = sum((width - 1) * dilation for width, dilation in CONTEXTS)  # 14
LEAST_FRAMES = LOST_FRAMES + 2  # a standard deviation needs two
SCALE, MARGIN = 30.0, 0.4


class XVector(nn.Module):
    """Frames → speaker embedding; in training mode → cosines with every training speaker."""

    def __init__(self, input_dim: int, speakers: int) -> None:
        """Set up for `speakers` training speakers."""
        super().__init__()
        self.connector = nn.Linear(input_dim, HIDDEN)
        outputs = [HIDDEN] * 4 + [POOLED]
        self.tdnn = nn.ModuleList(
            nn.Conv1d(HIDDEN, size, width, dilation=dilation)
            for size, (width, dilation) in zip(outputs, CONTEXTS, strict=True)
        )
        self.linear1 = nn.Linear(2 * POOLED, HIDDEN)
        self.linear2 = nn.Linear(HIDDEN, HIDDEN)
        self.speakers = nn.Parameter(nn.init.xavier_normal_(torch.empty(HIDDEN, speakers)))

    def forward(self, features: torch.Tensor, lens: torch.Tensor) -> torch.Tensor:
        """(B, F, D) and (B,) frame counts → (B, speakers) in training, (B, 512) of length 1 in eval mode."""
        pooled = self._statistics(features, lens)
        first = F.relu(self.linear1(pooled))
        if not self.training:
            return F.normalize(first, dim=-1)
        embedding = F.relu(self.linear2(first))
        return F.normalize(embedding, dim=1) @ F.normalize(self.speakers, dim=0)

    def _statistics(self, features: torch.Tensor, lens: torch.Tensor) -> torch.Tensor:
        """Mean and standard deviation over a clip's frames → (B, 3000)."""
        short = LEAST_FRAMES - features.shape[1]
        if short > 0:
            features = F.pad(features, (0, 0, 0, short))
        hidden = self.connector(features).transpose(1, 2)  # (B, 512, F)
        for layer in self.tdnn:
            hidden = F.relu(layer(hidden))
        counts = lens - LOST_FRAMES
        if self.training:
            # s3prl counts one frame too many for a clip that is padded in its batch
            counts = (counts + 1).clamp(max=hidden.shape[2])
        counts = counts.clamp(min=LEAST_FRAMES - LOST_FRAMES)
        valid = (torch.arange(hidden.shape[2], device=lens.device) < counts[:, None])[:, None]  # (B, 1, F)
        mean = (hidden * valid).sum(dim=2) / counts[:, None]
        squares = ((hidden - mean[..., None]) * valid).square().sum(dim=2)
        # a unit that is off in every frame has no deviation; the bound keeps its gradient 0, not NaN
        deviation = (squares / (counts[:, None] - 1)).clamp(min=1e-20).sqrt()
        return torch.cat([mean, deviation], dim=-1)


def am_softmax(cosines: torch.Tensor, speakers: torch.Tensor) -> torch.Tensor:
    """(B, speakers) cosines and (B,) indices → mean loss: cross-entropy after taking the margin off the
    right speaker's cosine."""
    margin = MARGIN * F.one_hot(speakers, cosines.shape[1])
    return F.cross_entropy(SCALE * (cosines - margin), speakers)

"""The recurrent head of the tasks that write text: projection, bidirectional LSTMs with dropout, linear."""

from __future__ import annotations

import torch
from torch import nn

from sslbench.probe.specaug import SpecAugment


class BiLSTM(nn.Module):
    """A bidirectional LSTM over padded clips, each read backwards from its own last frame.

    The same numbers as a packed `nn.LSTM(bidirectional=True)`, whose backward pass takes five times as long
    on a CPU (torch 2.8: packed sequences miss oneDNN).
    """

    def __init__(self, input_dim: int, dim: int) -> None:
        """`dim` per direction."""
        super().__init__()
        self.ahead = nn.LSTM(input_dim, dim, batch_first=True)
        self.back = nn.LSTM(input_dim, dim, batch_first=True)

    def forward(self, features: torch.Tensor, lens: torch.Tensor) -> torch.Tensor:
        """(B, F, D) and (B,) frames → (B, F, 2·dim); padded frames hold nothing of use."""
        times = torch.arange(features.shape[1], device=features.device)
        turned = lens[:, None] - 1 - times
        order = torch.where(turned >= 0, turned, times)[..., None]  # (B, F, 1), its own inverse
        back = self.back(features.gather(1, order.expand_as(features)))[0]
        return torch.cat([self.ahead(features)[0], back.gather(1, order.expand_as(back))], dim=-1)


class RecurrentHead(nn.Module):
    """s3prl's `projector` and `RNNs` (downstream/asr/model.py), with the options that SUPERB uses."""

    def __init__(
        self, input_dim: int, classes: int, dim: int = 1024, layers: int = 2, dropout: float = 0.2,
        augment: bool = True,
    ) -> None:  # fmt: skip
        """SUPERB's sizes by default.

        Args:
            input_dim: of the features.
            classes: of the output.
            dim: of the projection and of each direction of each LSTM.
            layers: LSTMs.
            dropout: after each LSTM.
            augment: SpecAugment in training.
        """
        super().__init__()
        self.augment = SpecAugment() if augment else None
        self.projector = nn.Linear(input_dim, dim)
        widths = [dim] + [2 * dim] * (layers - 1)
        self.rnns = nn.ModuleList(BiLSTM(width, dim) for width in widths)
        self.dropout = nn.Dropout(dropout)
        self.linear = nn.Linear(2 * dim, classes)

    def forward(self, features: torch.Tensor, lens: torch.Tensor) -> torch.Tensor:
        """(B, F, D) and (B,) frames → (B, F, classes); padded frames hold nothing of use."""
        if self.augment is not None:
            features = self.augment(features, lens)
        hidden = self.projector(features)
        for rnn in self.rnns:
            hidden = self.dropout(rnn(hidden, lens))
        logits: torch.Tensor = self.linear(hidden)
        return logits

"""The recurrent head of the tasks that write text: projection, bidirectional LSTMs with dropout, linear."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from sslbench.probe.specaug import SpecAugment


class RecurrentHead(nn.Module):
    """s3prl's `projector` and `RNNs` (downstream/asr/model.py), with the options that SUPERB uses."""

    def __init__(
        self, input_dim: int, classes: int, dim: int = 1024, layers: int = 2, dropout: float = 0.2
    ) -> None:
        """SUPERB's sizes by default.

        Args:
            input_dim: of the features.
            classes: of the output.
            dim: of the projection and of each direction of each LSTM.
            layers: LSTMs.
            dropout: after each LSTM.
        """
        super().__init__()
        self.augment = SpecAugment()
        self.projector = nn.Linear(input_dim, dim)
        widths = [dim] + [2 * dim] * (layers - 1)
        self.rnns = nn.ModuleList(
            nn.LSTM(width, dim, bidirectional=True, batch_first=True) for width in widths
        )
        self.dropout = nn.Dropout(dropout)
        self.linear = nn.Linear(2 * dim, classes)

    def forward(self, features: torch.Tensor, lens: torch.Tensor) -> torch.Tensor:
        """(B, F, D) and (B,) frames → (B, F, classes); padded frames hold nothing of use."""
        hidden = self.projector(self.augment(features, lens))
        for rnn in self.rnns:
            packed = pack_padded_sequence(hidden, lens.cpu(), batch_first=True, enforce_sorted=False)
            hidden, _ = pad_packed_sequence(rnn(packed)[0], batch_first=True, total_length=features.shape[1])
            hidden = self.dropout(hidden)
        logits: torch.Tensor = self.linear(hidden)
        return logits

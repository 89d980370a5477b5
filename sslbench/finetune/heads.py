"""What follows the features: frame stacking, projection, recurrence, and CTC, a transducer, or both."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from sslbench.errors import SslbenchError
from sslbench.finetune.config import FinetuneConfig
from sslbench.finetune.featurizer import stack_frames
from sslbench.finetune.rnnt import BLANK
from sslbench.finetune.transducer import Transducer
from sslbench.integrations import k2_rnnt
from sslbench.nn.upstream import LossOutput


class Head(nn.Module):
    """Stacks frames up to the head's stride, projects, and scores symbols.

    Attributes:
        output: classes of every frame, for CTC; None without it.
        transducer: None without it.
    """

    def __init__(self, input_dim: int, classes: int, stack: int, config: FinetuneConfig) -> None:
        super().__init__()
        self.stack, self.ctc_scale = stack, config.ctc_scale
        width = config.projection_dim or input_dim * stack
        self.projection: nn.Module = (
            nn.Linear(input_dim * stack, width) if config.projection_dim else nn.Identity()
        )
        self.dropout = nn.Dropout(config.dropout)
        self.blstm: nn.LSTM | None = None
        if config.head == "blstm":
            between = config.dropout if config.blstm_layers > 1 else 0.0
            self.blstm = nn.LSTM(
                width, config.blstm_dim, config.blstm_layers,
                batch_first=True, bidirectional=True, dropout=between,
            )  # fmt: skip
            width = 2 * config.blstm_dim
        self.output = nn.Linear(width, classes) if config.objective != "transducer" else None
        self.transducer: Transducer | None = None
        if config.objective != "ctc":
            pruning = k2_rnnt.Pruning() if config.transducer_loss == "pruned" else None
            self.transducer = Transducer(width, classes, config.transducer, pruning, config.context_dropout)

    def encode(self, features: torch.Tensor, lens: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Frames that symbols are scored from.

        Args:
            features: (B, F, D), zero beyond each length.
            lens: (B,) valid frames.

        Returns:
            (B, ceil(F / stack), H), and the valid frames of each clip.
        """
        hidden = self.dropout(self.projection(stack_frames(features, self.stack)))
        lens = -(-lens // self.stack)
        if self.blstm is not None:
            packed = pack_padded_sequence(hidden, lens.cpu(), batch_first=True, enforce_sorted=False)
            hidden, _ = pad_packed_sequence(
                self.blstm(packed)[0], batch_first=True, total_length=hidden.shape[1]
            )
            hidden = self.dropout(hidden)
        return hidden, lens

    def log_probs(self, hidden: torch.Tensor) -> torch.Tensor:
        """CTC's log-probabilities (B, F', classes) in fp32. Raises `SslbenchError` without CTC."""
        if self.output is None:
            raise SslbenchError("this recognizer is a transducer without CTC")
        scores: torch.Tensor = self.output(hidden)
        return scores.float().log_softmax(-1)

    def forward(self, features: torch.Tensor, lens: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """CTC's log-probabilities, and the valid frames of each clip; arguments as `encode`'s."""
        hidden, lens = self.encode(features, lens)
        return self.log_probs(hidden), lens

    def loss(
        self, features: torch.Tensor, lens: torch.Tensor, targets: list[list[int]], warm: float
    ) -> LossOutput:
        """Negative log-likelihood, summed over a batch.

        Args:
            features: (B, F, D).
            lens: (B,) valid frames.
            targets: classes of each clip; may be empty.
            warm: how far the start of training is, 0 to 1.

        Returns:
            The summed loss; `frames` counts target symbols and one per clip, so that empty ones weigh too.
            With both losses, CTC's is scaled by `ctc_scale` and reported apart.
        """
        hidden, lens = self.encode(features, lens)
        if self.transducer is None:
            return ctc_loss(self.log_probs(hidden), lens, targets)
        loss = self.transducer.loss(hidden, lens, targets, warm)
        count = torch.tensor(sum(map(len, targets)) + len(targets))
        if self.output is None:
            return LossOutput(loss, count)
        beside = ctc_loss(self.log_probs(hidden), lens, targets).loss_sum
        return LossOutput(loss + self.ctc_scale * beside, count, {"ctc_loss": beside.detach()})


def ctc_loss(log_probs: torch.Tensor, lens: torch.Tensor, targets: list[list[int]]) -> LossOutput:
    """CTC (Graves et al., ICML 2006), summed over a batch.

    Args:
        log_probs: (B, F, classes) fp32.
        lens: (B,) valid frames.
        targets: classes of each clip; may be empty.

    Returns:
        The summed loss; `frames` counts target symbols and one per clip, so that empty ones weigh too.
    """
    flat = torch.tensor([number for target in targets for number in target], dtype=torch.long)
    target_lens = torch.tensor([len(target) for target in targets])
    loss = F.ctc_loss(
        log_probs.transpose(0, 1),
        flat.to(log_probs.device),
        lens.cpu(),
        target_lens,
        BLANK,
        "sum",
        zero_infinity=True,
    )
    return LossOutput(loss, target_lens.sum() + len(targets))

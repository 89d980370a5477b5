"""A transducer head: stateless predictor, joiner, and its loss by k2 (pruned) or over the full lattice.

The predictor sees only the last symbols (Ghodsi et al., ICASSP 2020), as in k2SSL's recipes.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from sslbench.finetune.rnnt import BLANK, pad_targets, rnnt_loss
from sslbench.finetune.shapes import TransducerShape
from sslbench.integrations import k2_rnnt

MOST_LATTICE_ELEMENTS = 2**27  # logits held at once (512 MiB in fp32); larger batches go clip by clip


class Predictor(nn.Module):
    """Embeds the last `context` symbols: no state to carry, so that equal contexts give equal outputs."""

    def __init__(self, classes: int, dim: int, context: int) -> None:
        super().__init__()
        self.context = context
        self.embedding = nn.Embedding(classes, dim)
        self.conv = nn.Conv1d(dim, dim, context, groups=dim // 4 if dim % 4 == 0 else 1, bias=False)

    def forward(self, symbols: torch.Tensor) -> torch.Tensor:
        """(B, context - 1 + N) symbols -> (B, N, dim), each from the `context` symbols up to it."""
        embedded = self.embedding(symbols).transpose(1, 2)
        return F.relu(self.conv(embedded).transpose(1, 2))


def _normalised(input_dim: int, dim: int) -> nn.Module:
    return nn.Sequential(nn.Linear(input_dim, dim), nn.LayerNorm(dim))


class Transducer(nn.Module):
    """Scores of the next symbol, blank included, from a frame and the symbols before."""

    def __init__(
        self,
        input_dim: int,
        classes: int,
        shape: TransducerShape,
        pruning: k2_rnnt.Pruning | None = None,
        context_dropout: float = 0.0,
    ) -> None:
        """Build.

        Args:
            input_dim: width of the frames.
            classes: with the blank as class 0.
            shape: sizes.
            pruning: settings of k2's pruned loss; None for the full lattice.
            context_dropout: share of the contexts that training hides.
        """
        super().__init__()
        self.shape, self.pruning, self.context_dropout = shape, pruning, context_dropout
        self.predictor = Predictor(classes, shape.predictor_dim, shape.context)
        # Both are normalised: recurrent states are small at first, and a sum in which the contexts prevail
        # learns the transcripts' order long before it listens.
        self.frame_projection = _normalised(input_dim, shape.joiner_dim)
        self.context_projection = _normalised(shape.predictor_dim, shape.joiner_dim)
        self.output = nn.Linear(shape.joiner_dim, classes)
        self.simple: nn.ModuleDict | None = None
        if pruning is not None:
            frames, contexts = nn.Linear(input_dim, classes), nn.Linear(shape.predictor_dim, classes)
            self.simple = nn.ModuleDict({"frames": frames, "contexts": contexts})

    def contexts(self, symbols: torch.Tensor) -> torch.Tensor:
        """(N, context) last symbols -> (N, joiner_dim)."""
        projected: torch.Tensor = self.context_projection(self.predictor(symbols))
        return projected[:, 0]

    def join(self, frames: torch.Tensor, contexts: torch.Tensor) -> torch.Tensor:
        """Logits (…, classes) of projected frames and contexts (…, joiner_dim), broadcast."""
        logits: torch.Tensor = self.output(torch.tanh(frames + contexts))
        return logits

    def loss(
        self, frames: torch.Tensor, lens: torch.Tensor, targets: list[list[int]], warm: float = 1.0
    ) -> torch.Tensor:
        """Summed negative log-likelihood of a batch.

        Args:
            frames: (B, T, input_dim).
            lens: (B,) valid frames.
            targets: classes of each clip.
            warm: how far the start of training is, 0 to 1; only the pruned loss asks.
        """
        padded, target_lens = pad_targets(targets, frames.device)
        predicted = self.predictor(F.pad(padded, (self.shape.context, 0), value=BLANK))  # (B, U + 1, P)
        if self.training and self.context_dropout:
            unseen = torch.rand(predicted.shape[:2], device=predicted.device) < self.context_dropout
            predicted = predicted.masked_fill(unseen[:, :, None], 0.0)
        frames = frames[:, : int(lens.max())]
        if self.simple is not None and self.pruning is not None:
            return self._pruned(frames, lens, predicted, padded, target_lens, warm)
        encoded, contexts = self.frame_projection(frames), self.context_projection(predicted)
        size = encoded.shape[0] * encoded.shape[1] * contexts.shape[1] * self.output.out_features
        if size <= MOST_LATTICE_ELEMENTS:
            return self._full(encoded, contexts, padded, lens, target_lens)
        total = encoded.new_zeros(())
        for i in range(len(targets)):
            one = slice(i, i + 1)
            total = total + self._full(encoded[one], contexts[one], padded[one], lens[one], target_lens[one])
        return total

    def _full(
        self,
        encoded: torch.Tensor,
        contexts: torch.Tensor,
        targets: torch.Tensor,
        lens: torch.Tensor,
        target_lens: torch.Tensor,
    ) -> torch.Tensor:
        most, symbols = int(lens.max()), int(target_lens.max())
        with torch.autocast(encoded.device.type, enabled=False):
            logits = self.join(
                encoded[:, :most, None].float(), contexts[:, None, : symbols + 1].float()
            )  # (B, T, U + 1, classes)
            return rnnt_loss(logits, targets[:, :symbols], lens, target_lens).sum()

    def _pruned(
        self,
        frames: torch.Tensor,
        lens: torch.Tensor,
        predicted: torch.Tensor,
        targets: torch.Tensor,
        target_lens: torch.Tensor,
        warm: float,
    ) -> torch.Tensor:
        assert self.simple is not None and self.pruning is not None  # noqa: S101, PT018 (for the type checker)
        if not targets.shape[1]:  # k2 wants room for a symbol, though no clip has one
            targets, predicted = F.pad(targets, (0, 1)), F.pad(predicted, (0, 0, 0, 1))
        scores = self.simple["frames"](frames), self.simple["contexts"](predicted)
        joined = self.frame_projection(frames), self.context_projection(predicted), self.join
        simple, pruned = k2_rnnt.pruned_loss(scores, joined, targets, lens, target_lens, self.pruning)
        # k2SSL's weights: the simple loss from 1 to 0.5, the pruned one from 0.1 to 1
        return (1.0 - 0.5 * warm) * simple.sum() + (0.1 + 0.9 * warm) * pruned.sum()

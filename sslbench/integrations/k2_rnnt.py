"""k2's pruned transducer loss (Kuang et al., Interspeech 2022, arXiv 2206.13236), where k2 is importable.

Needs torch and k2 only, so that it can be tested in k2's own, older environment.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

Join = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


@dataclass(frozen=True)
class Pruning:
    """How the lattice is pruned; the defaults are k2SSL's."""

    prune_range: int = 5
    """Symbols kept per frame."""
    lm_scale: float = 0.25
    """Share of the predictor's own scores mixed into the simple joiner."""
    am_scale: float = 0.0
    """Share of the encoder's own scores."""


def _boundary(lens: torch.Tensor, target_lens: torch.Tensor) -> torch.Tensor:
    zeros = torch.zeros_like(lens)
    return torch.stack([zeros, zeros, target_lens, lens], dim=1).long()  # (B, 4)


def full_loss(
    logits: torch.Tensor, targets: torch.Tensor, lens: torch.Tensor, target_lens: torch.Tensor
) -> torch.Tensor:
    """k2's loss over the full lattice.

    Args:
        logits: (B, T, U + 1, classes) fp32, class 0 the blank.
        targets: (B, U).
        lens: (B,) frames.
        target_lens: (B,) symbols.

    Returns:
        (B,) negative log-likelihoods.
    """
    import k2

    found: torch.Tensor = k2.rnnt_loss(
        logits, targets.long(), 0, boundary=_boundary(lens, target_lens), reduction="none"
    )
    return found


def pruned_loss(
    simple: tuple[torch.Tensor, torch.Tensor],
    joined: tuple[torch.Tensor, torch.Tensor, Join],
    targets: torch.Tensor,
    lens: torch.Tensor,
    target_lens: torch.Tensor,
    pruning: Pruning,
) -> tuple[torch.Tensor, torch.Tensor]:
    """The two losses of the pruned transducer.

    Args:
        simple: scores (B, T, classes) of frames and (B, U + 1, classes) of contexts, which the simple
            joiner adds.
        joined: frames (B, T, J), contexts (B, U + 1, J), and the function of two (B, T, range, J)
            tensors that gives (B, T, range, classes).
        targets: (B, U).
        lens: (B,) frames.
        target_lens: (B,) symbols.
        pruning: settings.

    Returns:
        The simple joiner's loss (B,) that the pruning bounds come from, and the joiner's pruned loss (B,).
    """
    import k2

    boundary, symbols = _boundary(lens, target_lens), targets.long()
    frames, contexts = simple
    encoded, predicted, join = joined
    exact = torch.autocast(
        frames.device.type, enabled=False
    )  # k2 multiplies matrices in what dtype it is given
    with exact:
        simple_loss, (px_grad, py_grad) = k2.rnnt_loss_smoothed(
            lm=contexts.float(), am=frames.float(), symbols=symbols, termination_symbol=0,
            lm_only_scale=pruning.lm_scale, am_only_scale=pruning.am_scale,
            boundary=boundary, reduction="none", return_grad=True,
        )  # fmt: skip
        ranges = k2.get_rnnt_prune_ranges(
            px_grad=px_grad, py_grad=py_grad, boundary=boundary, s_range=pruning.prune_range
        )
        encoded, predicted = k2.do_rnnt_pruning(am=encoded, lm=predicted, ranges=ranges)
    logits = join(encoded, predicted)
    with exact:
        loss = k2.rnnt_loss_pruned(
            logits=logits.float(), symbols=symbols, ranges=ranges, termination_symbol=0,
            boundary=boundary, reduction="none",
        )  # fmt: skip
    return simple_loss, loss

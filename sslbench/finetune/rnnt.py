"""The transducer loss over the full lattice: torchaudio's kernel, or plain torch where that is absent.

RNN-T (Graves 2012, arXiv 1211.3711): from node (t, u) a blank leads to (t + 1, u) and the next symbol to
(t, u + 1); the last step is a blank from (T - 1, U).
"""

from __future__ import annotations

import warnings

import torch
import torch.nn.functional as F

BLANK = 0  # the class of "no symbol" in every head
NEVER = -1e30  # log of nothing, finite so that no gradient becomes NaN


def pad_targets(targets: list[list[int]], device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """(B, U) classes, zero beyond each length, and (B,) lengths."""
    lens = torch.tensor([len(target) for target in targets])
    padded = torch.zeros(len(targets), int(lens.max()), dtype=torch.long)
    for row, target in zip(padded, targets, strict=True):
        row[: len(target)] = torch.tensor(target, dtype=torch.long)
    return padded.to(device), lens.to(device)


def rnnt_loss(
    logits: torch.Tensor, targets: torch.Tensor, lens: torch.Tensor, target_lens: torch.Tensor
) -> torch.Tensor:
    """Negative log-likelihood of each clip's symbols, summed over all alignments.

    Args:
        logits: (B, T, U + 1, classes) fp32, not normalised.
        targets: (B, U) classes.
        lens: (B,) valid frames, the longest T.
        target_lens: (B,) symbols, the longest U.

    Returns:
        (B,) in nats.
    """
    kernel = _torchaudio_kernel()
    if kernel is None:
        return lattice_loss(logits, targets, lens, target_lens)
    with warnings.catch_warnings():  # it announces its own removal
        warnings.simplefilter("ignore")
        loss: torch.Tensor = kernel(
            logits.contiguous(), targets.int().contiguous(), lens.int(), target_lens.int(),
            blank=BLANK, reduction="none",
        )  # fmt: skip
    return loss


def _torchaudio_kernel():  # type: ignore[no-untyped-def]
    try:
        import torchaudio
    except (ImportError, OSError):
        return None
    return getattr(torchaudio.functional, "rnnt_loss", None)


def lattice_loss(
    logits: torch.Tensor, targets: torch.Tensor, lens: torch.Tensor, target_lens: torch.Tensor
) -> torch.Tensor:
    """As `rnnt_loss`, in plain torch: one step per frame, all symbols of a frame at once.

    Within a frame, alpha(u) = E(u) + log Σ_{v≤u} exp(entered(v) - E(v)), where E is the running sum of the
    symbols' log-probabilities: a cumulative sum instead of a loop over u.
    """
    scores = logits.log_softmax(-1)
    blank = scores[..., BLANK]  # (B, T, U + 1)
    index = targets[:, None, :, None].expand(-1, scores.shape[1], -1, 1)
    emitted = scores[:, :, :-1].gather(-1, index).squeeze(-1)  # (B, T, U)
    running = F.pad(emitted.cumsum(-1), (1, 0))  # (B, T, U + 1)
    first = torch.full_like(blank[:, 0], NEVER)
    first[:, 0] = 0.0
    alphas = [_across(first, running[:, 0])]
    for t in range(1, scores.shape[1]):
        alphas.append(_across(alphas[-1] + blank[:, t - 1], running[:, t]))
    final = torch.stack(alphas, dim=1) + blank  # (B, T, U + 1)
    rows = torch.arange(len(lens), device=logits.device)
    return -final[rows, lens - 1, target_lens]


def _across(entered: torch.Tensor, running: torch.Tensor) -> torch.Tensor:
    return running + (entered - running).logcumsumexp(-1)

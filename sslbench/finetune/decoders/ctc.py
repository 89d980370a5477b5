"""CTC decoding without a language model: best path, and prefix beam search (Graves 2012; Hannun 2014)."""

from __future__ import annotations

import math

import torch

from sslbench.finetune.rnnt import BLANK

NEVER = -math.inf
LEAST_LOG_PROB = -12.0  # symbols less likely than this in a frame start no prefix


def greedy(log_probs: torch.Tensor, lens: torch.Tensor) -> list[list[int]]:
    """Best class of each frame, repeats joined, blanks dropped.

    Args:
        log_probs: (B, F, classes).
        lens: (B,) valid frames.
    """
    best = log_probs.argmax(-1).cpu()  # (B, F)
    decoded = []
    for row, length in zip(best, lens.tolist(), strict=True):
        joined = torch.unique_consecutive(row[:length])
        decoded.append(joined[joined != BLANK].tolist())
    return decoded


def beam(log_probs: torch.Tensor, lens: torch.Tensor, size: int) -> list[list[int]]:
    """The likeliest symbols of each clip, summed over their alignments, with `size` prefixes kept.

    Args:
        log_probs: (B, F, classes).
        lens: (B,) valid frames.
        size: prefixes kept after each frame.
    """
    return [
        prefixes(row[:length], size)[0][0]
        for row, length in zip(log_probs.float().cpu(), lens.tolist(), strict=True)
    ]


def prefixes(log_probs: torch.Tensor, size: int) -> list[tuple[list[int], float]]:
    """Prefix beam search of one clip.

    Args:
        log_probs: (F, classes).
        size: prefixes kept; also the number of symbols tried per frame.

    Returns:
        Symbol sequences with their log-probabilities, likeliest first.
    """
    values, classes = log_probs.topk(min(size + 1, log_probs.shape[1]), dim=1)
    blanks = log_probs[:, BLANK].tolist()
    kept: dict[tuple[int, ...], tuple[float, float]] = {(): (0.0, NEVER)}  # ends in a blank, in a symbol
    for blank, scores, symbols in zip(blanks, values.tolist(), classes.tolist(), strict=True):
        tried = [(c, s) for c, s in zip(symbols, scores, strict=True) if c != BLANK and s > LEAST_LOG_PROB]
        grown = _grow(kept, blank, tried)
        best = sorted(grown, key=lambda prefix: -log_add(*grown[prefix]))[:size]
        kept = {prefix: grown[prefix] for prefix in best}
    return [(list(prefix), log_add(*ends)) for prefix, ends in kept.items()]


def _grow(
    kept: dict[tuple[int, ...], tuple[float, float]], blank: float, tried: list[tuple[int, float]]
) -> dict[tuple[int, ...], tuple[float, float]]:
    """One frame further: each prefix stays (blank, or its last symbol repeated) or takes a symbol."""
    grown: dict[tuple[int, ...], tuple[float, float]] = {}

    def put(prefix: tuple[int, ...], in_blank: float, in_symbol: float) -> None:
        old = grown.get(prefix, (NEVER, NEVER))
        grown[prefix] = log_add(old[0], in_blank), log_add(old[1], in_symbol)

    for prefix, (in_blank, in_symbol) in kept.items():
        total = log_add(in_blank, in_symbol)
        put(prefix, total + blank, NEVER)
        for symbol, score in tried:
            if prefix and symbol == prefix[-1]:
                put(prefix, NEVER, in_symbol + score)
                if in_blank > NEVER:
                    put((*prefix, symbol), NEVER, in_blank + score)
            else:
                put((*prefix, symbol), NEVER, total + score)
    return grown


def log_add(a: float, b: float) -> float:
    """log(exp(a) + exp(b))."""
    high, low = (a, b) if a > b else (b, a)
    return high if low == NEVER else high + math.log1p(math.exp(low - high))

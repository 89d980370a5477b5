"""Transducer decoding, batched over clips: greedy, and beam search with one symbol per frame at most.

The latter is icefall's "modified beam search" (`modified_beam_search` there): hypotheses stay in step with
the frames, and those that spell the same symbols are one, their probabilities added. At the end the highest
log-probability per symbol wins, the blanks of the first context counted (icefall's
`get_most_probable(length_norm=True)`). What a recurrent encoder holds back and emits in one frame, only
greedy search can follow.
"""

from __future__ import annotations

import torch

from sslbench.finetune.decoders.ctc import NEVER, log_add
from sslbench.finetune.rnnt import BLANK
from sslbench.finetune.transducer import Transducer


def greedy(
    model: Transducer, frames: torch.Tensor, lens: torch.Tensor, most_per_frame: int = 10
) -> list[list[int]]:
    """The best symbol at each step.

    Args:
        model: the head.
        frames: (B, T, D).
        lens: (B,) valid frames.
        most_per_frame: symbols that one frame may emit; a recurrent encoder may well wait and emit a whole
            word at once.
    """
    encoded = model.frame_projection(frames)
    batch, context = len(frames), model.shape.context
    decoded: list[list[int]] = [[] for _ in range(batch)]
    last = torch.full((batch, context), BLANK, device=frames.device)
    contexts = model.contexts(last)  # (B, J)
    ends = lens.to(frames.device)
    for t in range(int(lens.max())):
        active = ends > t  # (B,)
        for _ in range(most_per_frame):
            symbol = model.join(encoded[:, t], contexts).argmax(-1)  # (B,)
            active = active & (symbol != BLANK)
            if not bool(active.any()):
                break
            shifted = torch.cat([last[:, 1:], symbol[:, None]], dim=1)
            last = torch.where(active[:, None], shifted, last)
            contexts = model.contexts(last)
            for row in active.nonzero().flatten().tolist():
                decoded[row].append(int(symbol[row]))
    return decoded


Beam = dict[tuple[int, ...], float]


def beam(model: Transducer, frames: torch.Tensor, lens: torch.Tensor, size: int) -> list[list[int]]:
    """The symbols of each clip that are likeliest for their length, with `size` hypotheses kept; at most one
    symbol per frame.

    Args:
        model: the head.
        frames: (B, T, D).
        lens: (B,) valid frames.
        size: hypotheses kept after each frame.
    """
    encoded = model.frame_projection(frames)
    ends = lens.tolist()
    start = (BLANK,) * model.shape.context
    beams: list[Beam] = [{start: 0.0} for _ in ends]
    for t in range(max(ends)):
        rows = [row for row, end in enumerate(ends) if t < end]
        _advance(model, encoded[rows, t], beams, rows, size)
    return [list(max(found, key=lambda h: found[h] / len(h))[model.shape.context :]) for found in beams]


def _advance(model: Transducer, encoded: torch.Tensor, beams: list[Beam], rows: list[int], size: int) -> None:
    """Take the beams of `rows`, whose frames are `encoded` (R, J), one frame further."""
    context = model.shape.context
    hypotheses = [(place, h) for place, row in enumerate(rows) for h in beams[row]]
    last = torch.tensor([h[-context:] for _, h in hypotheses], device=encoded.device)
    owner = torch.tensor([place for place, _ in hypotheses], device=encoded.device)
    scores = model.join(encoded[owner], model.contexts(last)).float().log_softmax(-1)  # (N, classes)
    values, symbols = scores.topk(min(size + 1, scores.shape[1]), dim=1)
    grown: list[Beam] = [{} for _ in rows]
    for (place, h), best, classes in zip(hypotheses, values.tolist(), symbols.tolist(), strict=True):
        so_far = beams[rows[place]][h]
        for value, symbol in zip(best, classes, strict=True):
            longer = h if symbol == BLANK else (*h, symbol)
            old = grown[place].get(longer, NEVER)
            grown[place][longer] = log_add(old, so_far + value)
    for row, found in zip(rows, grown, strict=True):
        kept = sorted(found, key=lambda h: -found[h])[:size]
        beams[row] = {h: found[h] for h in kept}

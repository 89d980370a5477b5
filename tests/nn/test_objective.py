"""Heads and losses: masked frames only, and the cosine objective's definition taken literally."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from sslbench.nn.objective import MaskedCosineLoss, MaskedUnitLoss, feature_penalty, masked_frames

B, T, D, UNITS = 2, 9, 6, 5


def inputs() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    labels = torch.randint(0, UNITS, (B, T))
    labels[1, 6:] = -1
    return torch.randn(B, T, D), labels, torch.rand(B, T) < 0.6


def pick(hidden: torch.Tensor, labels: torch.Tensor, mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    chosen = masked_frames(labels, mask)
    return hidden.flatten(0, 1)[chosen], labels.flatten()[chosen]


def test_cross_entropy_over_masked_labelled_frames() -> None:
    hidden, labels, mask = inputs()
    head = MaskedUnitLoss(D, UNITS)
    frames, targets = pick(hidden, labels, mask)
    loss, correct = head(frames, targets)
    assert set(head.state_dict()) == {"weight", "bias"}
    expected, right = torch.zeros(()), 0
    pairs = [(b, t) for b in range(B) for t in range(T) if mask[b, t] and labels[b, t] >= 0]
    for b, t in pairs:
        logits = (head.weight @ hidden[b, t] + head.bias) / 0.1
        expected = expected - logits.log_softmax(-1)[labels[b, t]]
        right += int(logits.argmax() == labels[b, t])
    assert len(targets) == len(pairs)
    assert int(correct) == right
    torch.testing.assert_close(loss, expected)


def test_unmasked_frames_get_no_gradient() -> None:
    hidden, labels, mask = inputs()
    hidden.requires_grad_()
    loss, _ = MaskedUnitLoss(D, UNITS)(*pick(hidden, labels, mask))
    (gradient,) = torch.autograd.grad(loss, hidden)
    assert torch.equal(gradient.abs().sum(-1) > 0, mask & (labels >= 0))


def test_cosine_objective_is_the_gathered_softmax() -> None:
    # The published form: the positive first, then every unit with the positive's copy at -inf, target 0.
    hidden, labels, mask = inputs()
    head, embeddings = MaskedCosineLoss(D, 4), torch.rand(UNITS, 4)
    loss, _ = head(*pick(hidden, labels, mask), embeddings)
    chosen = mask & (labels >= 0)
    frames = F.linear(hidden[chosen], head.weight, head.bias)  # (N, 4)
    candidates = torch.cat(
        [embeddings[labels[chosen]][None], embeddings[:, None].expand(-1, len(frames), -1)]
    )
    logits = F.cosine_similarity(frames[None], candidates, dim=-1) / 0.1  # (units + 1, N)
    copies = torch.arange(UNITS)[:, None] == labels[chosen][None]
    logits[1:][copies] = float("-inf")
    expected = F.cross_entropy(logits.T, torch.zeros(len(frames), dtype=torch.long), reduction="sum")
    torch.testing.assert_close(loss, expected)


def test_no_masked_frame_gives_zero_not_nan() -> None:
    hidden, labels, mask = inputs()
    frames, targets = pick(hidden, labels, torch.zeros_like(mask))
    loss, correct = MaskedUnitLoss(D, UNITS)(frames, targets)
    assert float(loss.detach()) == 0.0
    assert (len(targets), int(correct)) == (0, 0)


def test_feature_penalty_counts_valid_frames_only() -> None:
    features = torch.ones(1, 4, 3)
    features[0, 2:] = 100.0
    valid = torch.tensor([[True, True, False, False]])
    assert float(feature_penalty(features, valid)) == 1.0
    assert float(feature_penalty(features)) > 1000

"""Every transducer loss against a brute-force sum over alignments: values and gradients."""

from __future__ import annotations

import itertools

import pytest
import torch

from sslbench.finetune.rnnt import lattice_loss, pad_targets, rnnt_loss
from sslbench.finetune.shapes import TransducerShape
from sslbench.finetune.transducer import Transducer
from sslbench.integrations import k2, k2_rnnt


def every_alignment(logits: torch.Tensor, target: list[int]) -> torch.Tensor:
    """Sum over all orders of T - 1 blanks and U symbols, then the closing blank. logits: (T, U + 1, V)."""
    scores = logits.double().log_softmax(-1)
    frames, symbols = len(logits), len(target)
    paths = []
    for places in itertools.combinations(range(frames - 1 + symbols), symbols):
        t = u = 0
        total = torch.zeros((), dtype=torch.double)
        for step in range(frames - 1 + symbols):
            if step in places:
                total, u = total + scores[t, u, target[u]], u + 1
            else:
                total, t = total + scores[t, u, 0], t + 1
        paths.append(total + scores[t, u, 0])
    return -torch.stack(paths).logsumexp(0)


def dynamic_programme(logits: torch.Tensor, target: list[int]) -> torch.Tensor:
    """Node by node, for lattices with too many paths to list."""
    scores = logits.double().log_softmax(-1)
    alpha: dict[tuple[int, int], torch.Tensor] = {(0, 0): torch.zeros((), dtype=torch.double)}
    for t, u in itertools.product(range(len(logits)), range(len(target) + 1)):
        ways = [alpha[t - 1, u] + scores[t - 1, u, 0]] if t else []
        ways += [alpha[t, u - 1] + scores[t, u - 1, target[u - 1]]] if u else []
        if ways:
            alpha[t, u] = torch.stack(ways).logsumexp(0)
    last = len(logits) - 1, len(target)
    return -(alpha[last] + scores[(*last, 0)])


BACKENDS = {"default": rnnt_loss, "torch": lattice_loss}
if k2.available():
    BACKENDS["k2"] = k2_rnnt.full_loss

TARGETS = [[1, 2, 2], [3], [], [1, 1, 4, 2]]
LENS = [4, 3, 2, 1]


def lattice() -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return (2 * torch.randn(4, 4, 5, 5, generator=generator)).requires_grad_()


@pytest.mark.parametrize("backend", BACKENDS)
def test_equals_the_sum_over_all_alignments(backend: str) -> None:
    logits = lattice()
    targets, target_lens = pad_targets(TARGETS, torch.device("cpu"))
    weights = torch.tensor([1.0, 0.5, 2.0, 1.5])  # a gradient that differs by clip
    found = BACKENDS[backend](logits, targets, torch.tensor(LENS), target_lens)
    (found_grad,) = torch.autograd.grad((found * weights).sum(), logits)
    expected = torch.stack(
        [
            every_alignment(logits[i, :n, : len(t) + 1], t)
            for i, (n, t) in enumerate(zip(LENS, TARGETS, strict=True))
        ]
    )
    (expected_grad,) = torch.autograd.grad((expected * weights).sum(), logits)
    torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(found_grad, expected_grad, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("backend", BACKENDS)
def test_larger_lattice_and_positive_control(backend: str) -> None:
    generator = torch.Generator().manual_seed(1)
    logits = torch.randn(1, 30, 13, 20, generator=generator)
    target = torch.randint(1, 20, (12,), generator=generator).tolist()
    expected = float(dynamic_programme(logits[0], target))
    lens = torch.tensor([30]), torch.tensor([12])
    found = float(BACKENDS[backend](logits, torch.tensor([target]), *lens))
    assert found == pytest.approx(expected, rel=1e-5)
    other = [*target[:-1], target[-1] % 19 + 1]  # one wrong symbol
    assert float(BACKENDS[backend](logits, torch.tensor([other]), *lens)) != pytest.approx(expected, rel=1e-3)
    logits[0, 29, 12, 0] += 1  # and one node's score moved
    assert float(BACKENDS[backend](logits, torch.tensor([target]), *lens)) != pytest.approx(
        expected, rel=1e-4
    )


def test_the_two_references_agree() -> None:
    logits = lattice().detach()
    for i, target in enumerate(TARGETS):
        listed = every_alignment(logits[i, :, : len(target) + 1], target)
        torch.testing.assert_close(listed, dynamic_programme(logits[i, :, : len(target) + 1], target))


def test_long_sums_stay_exact() -> None:
    """Running sums of hundreds of nats must not cost precision, nor turn a gradient into NaN."""
    generator = torch.Generator().manual_seed(2)
    logits = (10 * torch.randn(1, 120, 41, 30, generator=generator)).requires_grad_()
    target = torch.randint(1, 30, (40,), generator=generator)
    lens = torch.tensor([120]), torch.tensor([40])
    found = lattice_loss(logits, target[None], *lens).sum()
    (grad,) = torch.autograd.grad(found, logits)
    assert float(found.detach()) == pytest.approx(
        float(dynamic_programme(logits[0].detach(), target.tolist())), rel=1e-5
    )
    assert torch.isfinite(grad).all()


def transducer(pruning: k2_rnnt.Pruning | None = None) -> Transducer:
    torch.manual_seed(0)
    return Transducer(6, 5, TransducerShape(8, 8, 2), pruning).eval()


def test_head_loss_ignores_padding_and_splits_large_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    model = transducer()
    frames, lens = torch.randn(4, 6, 6), torch.tensor([6, 3, 2, 4])
    together = model.loss(frames, lens, TARGETS)
    alone = [
        model.loss(frames[i : i + 1, :n], lens[i : i + 1], [TARGETS[i]]) for i, n in enumerate(lens.tolist())
    ]
    torch.testing.assert_close(together, torch.stack(alone).sum(), rtol=1e-5, atol=1e-5)
    monkeypatch.setattr("sslbench.finetune.transducer.MOST_LATTICE_ELEMENTS", 10)
    torch.testing.assert_close(model.loss(frames, lens, TARGETS), together, rtol=1e-5, atol=1e-5)


def test_predictor_sees_exactly_its_context() -> None:
    predictor = transducer().predictor
    symbols = torch.tensor([[0, 0, 1, 2, 3]])
    other = torch.tensor([[0, 0, 4, 2, 3]])
    ours, theirs = predictor(symbols), predictor(other)
    assert ours.shape == (1, 4, 8)
    assert torch.equal(ours[:, 0], theirs[:, 0])
    assert not torch.equal(ours[:, 1], theirs[:, 1])
    assert not torch.equal(ours[:, 2], theirs[:, 2])
    assert torch.equal(ours[:, 3], theirs[:, 3])


@pytest.mark.skipif(not k2.available(), reason="k2 is not installed")
def test_pruned_loss_with_a_wide_range_is_the_full_one() -> None:
    model = transducer(k2_rnnt.Pruning(prune_range=10, lm_scale=0.0))
    frames, lens = torch.randn(2, 6, 6), torch.tensor([6, 5])
    targets = [[1, 2, 2], [3, 1, 4]]
    model.simple["frames"].weight.data.zero_()  # type: ignore[index,union-attr,operator]
    both = model.loss(frames, lens, targets, warm=1.0)
    only_simple = model.loss(frames, lens, targets, warm=-1 / 9)  # 0.1 + 0.9 w = 0
    simple = only_simple / (1 + 0.5 / 9)
    full = transducer()
    full.load_state_dict({k: v for k, v in model.state_dict().items() if not k.startswith("simple")})
    torch.testing.assert_close(both - 0.5 * simple, full.loss(frames, lens, targets), rtol=1e-4, atol=1e-4)


@pytest.mark.skipif(not k2.available(), reason="k2 is not installed")
def test_pruned_loss_of_clips_without_symbols_is_that_of_blanks() -> None:
    """As in the silent clip of a process that has run out of data."""
    model = transducer(k2_rnnt.Pruning())
    frames, lens = torch.randn(2, 6, 6), torch.tensor([6, 4])
    full = transducer()
    full.load_state_dict({k: v for k, v in model.state_dict().items() if not k.startswith("simple")})
    simple = model.loss(frames, lens, [[], []], warm=-1 / 9) / (1 + 0.5 / 9)  # 0.1 + 0.9 w = 0
    pruned = model.loss(frames, lens, [[], []]) - 0.5 * simple
    torch.testing.assert_close(pruned, full.loss(frames, lens, [[], []]), rtol=1e-4, atol=1e-4)
    pruned.backward()
    assert all(p.grad is None or torch.isfinite(p.grad).all() for p in model.parameters())
    assert float(pruned) != pytest.approx(float(full.loss(frames, lens, [[1], []])), rel=1e-2)


@pytest.mark.skipif(not k2.available(), reason="k2 is not installed")
def test_pruned_loss_under_autocast_stays_near_that_in_fp32() -> None:
    torch.manual_seed(0)
    joiner, seen = torch.nn.Linear(8, 5), []

    def join(encoded: torch.Tensor, predicted: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = joiner(torch.tanh(encoded + predicted))
        seen.append(logits.dtype)
        return logits

    targets, target_lens = pad_targets([[1, 2, 2], [3, 1]], torch.device("cpu"))
    scores = torch.randn(2, 6, 5), torch.randn(2, 4, 5)
    encoded, predicted, lens = torch.randn(2, 6, 8), torch.randn(2, 4, 8), torch.tensor([6, 5])

    def losses() -> list[torch.Tensor]:
        rest = targets, lens, target_lens, k2_rnnt.Pruning()
        return list(k2_rnnt.pruned_loss(scores, (encoded, predicted, join), *rest))

    expected = losses()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = losses()
    assert seen == [torch.float32, torch.bfloat16], "the joiner runs under autocast, k2's losses do not"
    assert torch.equal(found[0], expected[0])
    torch.testing.assert_close(found[1], expected[1], rtol=0.02, atol=0)

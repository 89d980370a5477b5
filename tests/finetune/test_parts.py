"""Vocabulary, CTC bounds, masking and batching, one by one."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from sslbench.errors import SslbenchError
from sslbench.finetune.augment import FeatureMasker
from sslbench.finetune.config import FinetuneConfig
from sslbench.finetune.decoders.ctc import greedy
from sslbench.finetune.featurizer import WeightedSum, stack_frames
from sslbench.finetune.heads import Head, ctc_loss
from sslbench.finetune.shapes import TransducerShape
from sslbench.finetune.transducer import Transducer
from sslbench.finetune.vocab import CharVocab, frames_needed


def test_vocabulary_round_trip_and_unknown_characters(tmp_path: Path) -> None:
    vocab = CharVocab.from_texts(["AB C", "CAÉ"])
    assert vocab.symbols == ["<blank>", "|", "A", "B", "C", "É"]
    assert vocab.decode(vocab.encode("  CAB  ÉA ")) == "CAB ÉA"
    assert vocab.decode(vocab.encode("AXBX")) == "AB"
    assert vocab.unknown == {"X": 2}
    assert vocab.decode([1, 1, 2, 1]) == "A"
    vocab.save(tmp_path / "v.json")
    assert CharVocab.load(tmp_path / "v.json").symbols == vocab.symbols
    with pytest.raises(SslbenchError, match=r"'\|'"):
        CharVocab.from_texts(["A|B"])


@pytest.mark.parametrize("classes", [[], [1], [1, 2, 3], [1, 1], [2, 2, 2, 3, 3]])
def test_frames_needed_is_exactly_where_ctc_becomes_possible(classes: list[int]) -> None:
    needed = frames_needed(classes)
    scores = torch.zeros(1, max(needed, 1), 4).log_softmax(-1)
    possible = torch.nn.functional.ctc_loss(
        scores.transpose(0, 1), torch.tensor([classes]), torch.tensor([needed]), torch.tensor([len(classes)])
    )
    assert torch.isfinite(possible)
    if needed > 1:
        impossible = torch.nn.functional.ctc_loss(
            scores.transpose(0, 1),
            torch.tensor([classes]),
            torch.tensor([needed - 1]),
            torch.tensor([len(classes)]),
        )
        assert torch.isinf(impossible)


def test_ctc_loss_against_all_paths() -> None:
    """Two symbols in four frames: the sum over every path that collapses to the target."""
    torch.manual_seed(0)
    scores = torch.randn(1, 4, 3).log_softmax(-1)
    total = 0.0
    for path in torch.cartesian_prod(*[torch.arange(3)] * 4):
        joined = torch.unique_consecutive(path)
        if joined[joined != 0].tolist() == [1, 2]:
            total += float(scores[0, torch.arange(4), path].sum().exp())
    found = ctc_loss(scores, torch.tensor([4]), [[1, 2]])
    assert float(found.loss_sum) == pytest.approx(-torch.tensor(total).log().item(), rel=1e-5)
    assert int(found.frames) == 3


def test_greedy_joins_repeats_and_drops_blanks() -> None:
    best = torch.tensor([[1, 1, 0, 1, 2, 2], [0, 0, 3, 3, 1, 1]])
    scores = torch.nn.functional.one_hot(best, 4).float()
    assert greedy(scores, torch.tensor([6, 4])) == [[1, 1, 2], [3]]


@pytest.mark.parametrize("head", ["linear", "blstm"])
@pytest.mark.parametrize("stack", [1, 2])
def test_head_ignores_padding(head: str, stack: int) -> None:
    torch.manual_seed(0)
    config = FinetuneConfig(head=head, projection_dim=8, blstm_dim=8, dropout=0.0)  # type: ignore[arg-type]
    model = Head(5, 7, stack, config).eval()
    long, short = torch.randn(1, 9, 5), torch.randn(1, 5, 5)
    both = torch.cat([long, torch.nn.functional.pad(short, (0, 0, 0, 4))])
    together, lens = model(both, torch.tensor([9, 5]))
    alone, alone_lens = model(short, torch.tensor([5]))
    assert lens.tolist() == [-(-9 // stack), -(-5 // stack)]
    torch.testing.assert_close(
        together[1, : int(lens[1])], alone[0, : int(alone_lens[0])], rtol=1e-5, atol=1e-5
    )


def test_stacking_keeps_every_frame() -> None:
    frames = torch.arange(10.0).reshape(1, 5, 2)
    stacked = stack_frames(frames, 2)
    assert stacked.shape == (1, 3, 4)
    assert stacked.flatten()[:10].tolist() == frames.flatten().tolist()


def test_weighted_sum_starts_as_the_mean_and_learns() -> None:
    states = torch.randn(2, 4, 3, 6)
    plain = WeightedSum(3, 6, "none")
    torch.testing.assert_close(plain(states), states.mean(2))
    with torch.no_grad():
        plain.weights.copy_(torch.tensor([50.0, 0.0, 0.0]))
    torch.testing.assert_close(plain(states), states[:, :, 0])
    layer = WeightedSum(1, 6, "layer")(1000 * states[:, :, :1] + 5)
    torch.testing.assert_close(layer.mean(-1), torch.zeros(2, 4), atol=1e-4, rtol=0)


def test_channel_statistics_ignore_padding_and_dead_channels() -> None:
    torch.manual_seed(0)
    states = 3 * torch.randn(4, 50, 1, 5) + 7
    states[..., 4] = 2.0
    lens = torch.tensor([50, 40, 30, 20])
    padded = states.clone()
    for row, length in enumerate(lens.tolist()):
        padded[row, length:] = 1e6
    featurizer = WeightedSum(1, 5, "channel")
    featurizer.fit([(padded[:2], lens[:2]), (padded[2:], lens[2:])])
    valid = torch.cat([row[:length] for row, length in zip(states, lens.tolist(), strict=True)])[None]
    found = featurizer(valid)[0]
    torch.testing.assert_close(found.mean(0), torch.zeros(5), atol=1e-5, rtol=0)
    torch.testing.assert_close(found.std(0)[:4], torch.ones(4), atol=1e-2, rtol=0)
    assert not found[:, 4].any()


def test_masks_stay_within_the_clip_and_its_share() -> None:
    torch.manual_seed(0)
    masker = FeatureMasker(2, 20, 1, 0.25)
    lens = torch.tensor([100, 30])
    covered = torch.zeros(2, 100)
    for _ in range(200):
        masked = masker(torch.ones(2, 100, 8), lens)
        rows = masked.amax(-1) == 0
        assert rows.sum(1)[0] <= 20
        assert rows.sum(1)[1] <= 6
        assert not rows[1, 30:].any()
        assert ((masked.amax(1) == 0).sum(1) <= 2).all()
        covered += rows
    assert (covered[0] > 0).all()  # every frame gets its turn
    assert (covered[1, :30] > 0).all()


def test_hidden_contexts_leave_the_transducer_to_the_frames() -> None:
    torch.manual_seed(0)
    model = Transducer(6, 5, TransducerShape(8, 8, 2), context_dropout=1.0)
    frames, lens, targets = torch.randn(2, 7, 6), torch.tensor([7, 5]), [[1, 2, 3], [4]]
    train, evaluate = model.train().loss(frames, lens, targets), model.eval().loss(frames, lens, targets)
    torch.nn.init.normal_(model.predictor.embedding.weight)
    assert model.train().loss(frames, lens, targets).item() == train.item()
    assert model.eval().loss(frames, lens, targets).item() != evaluate.item()

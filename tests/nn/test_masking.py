"""Span masks: the published distribution, seeded, and defined for every clip length."""

from __future__ import annotations

import pytest
import torch

from sslbench.nn.masking import span_mask


def masks(lens: list[int], seed: int = 0, prob: float = 0.8, span: int = 10) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return span_mask(torch.tensor(lens), max(lens), prob, span, generator)


@pytest.mark.parametrize(("prob", "share"), [(0.8, 0.532), (0.65, 0.456)])
def test_masked_share_is_the_published_one(prob: float, share: float) -> None:
    # Measured with k2SSL's own sampler on 8 rows of 781 frames.
    generator = torch.Generator().manual_seed(0)
    lens = torch.full((8,), 781)
    measured = torch.stack(
        [span_mask(lens, 781, prob, 10, generator).float().mean() for _ in range(100)]
    ).mean()
    assert abs(float(measured) - share) < 0.01


def test_same_seed_same_masks() -> None:
    assert torch.equal(masks([300, 200], seed=3), masks([300, 200], seed=3))
    assert not torch.equal(masks([300, 200], seed=3), masks([300, 200], seed=4))


def test_generator_state_resumes_the_sequence() -> None:
    lens = torch.tensor([150, 150])
    generator = torch.Generator().manual_seed(1)
    span_mask(lens, 150, 0.8, 10, generator)
    state = generator.get_state()
    expected = span_mask(lens, 150, 0.8, 10, generator)
    resumed = torch.Generator()
    resumed.set_state(state)
    assert torch.equal(span_mask(lens, 150, 0.8, 10, resumed), expected)


def test_nothing_is_masked_beyond_a_clip() -> None:
    mask = masks([781, 400, 33, 5])
    for row, frames in zip(mask, [781, 400, 33, 5], strict=True):
        assert not row[frames:].any()
        assert row[:frames].any()


@pytest.mark.parametrize("frames", range(1, 41))
def test_short_clips_keep_a_visible_frame(frames: int) -> None:
    for seed in range(20):
        masked = int(masks([frames], seed).sum())
        assert masked < frames
        assert masked > 0 or frames == 1


def test_equal_lengths_get_equal_counts_and_short_clips_do_not_trim_long_ones() -> None:
    mask = masks([500] * 8)
    assert len(set(mask.sum(1).tolist())) == 1
    ragged = masks([500, 3])
    assert int(ragged[0].sum()) > 150


def test_untrimmed_rows_are_made_of_whole_spans() -> None:
    row = masks([400])[0].int()
    edges = torch.diff(torch.cat([torch.zeros(1, dtype=torch.int), row, torch.zeros(1, dtype=torch.int)]))
    runs = (edges == -1).nonzero()[:, 0] - (edges == 1).nonzero()[:, 0]
    assert int(runs.min()) >= 10

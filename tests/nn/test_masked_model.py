"""Masked-unit models on either front end: heads on several layers, labels at the model's rate, masks."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F

from sslbench.errors import SslbenchError
from sslbench.nn.fbank import FbankConfig
from sslbench.nn.masked_model import at_rate
from sslbench.nn.masked_transformer import MaskedTransformer, MaskedTransformerConfig
from sslbench.nn.upstream import PretrainBatch

UNITS = 7


class Toy(MaskedTransformer):
    family = "toy"


def make(**changes: Any) -> Toy:
    torch.manual_seed(0)
    settings: dict[str, Any] = {
        "front_end": "fbank", "fbank": FbankConfig(mel_bins=16, conv_channels=32, channels=24), "layers": 3,
        "dim": 32, "ffn_dim": 48, "heads": 2, "conv_pos": 8, "conv_pos_groups": 4, "num_units": UNITS,
        "dropout": 0.0, "attention_dropout": 0.0, "feature_penalty": 0.0,
    }  # fmt: skip
    return Toy(MaskedTransformerConfig(**{**settings, **changes}))


def batch(lens: tuple[int, ...] = (32_000, 20_000)) -> PretrainBatch:
    torch.manual_seed(1)
    audio = torch.zeros(len(lens), max(lens))
    labels = torch.full((len(lens), -(-max(lens) // 320)), -1)
    for row, samples in enumerate(lens):
        audio[row, :samples] = 0.1 * torch.randn(samples)
        labels[row, : -(-samples // 320)] = torch.randint(0, UNITS, (-(-samples // 320),))
    return PretrainBatch(audio, torch.tensor(lens), labels, ["a", "b"])


def test_loss_is_the_mean_over_heads_of_cross_entropies_on_hand_picked_frames() -> None:
    model, data = make(predict_layers=[1, 3]).eval(), batch()
    features, lens = model.features(data.audio, data.audio_lens)
    mask = torch.zeros(2, features.shape[1], dtype=torch.bool)
    mask[:, 3:20] = True
    labels = at_rate(data.labels, 640)
    output = model.masked_loss(features, lens, labels, mask)
    states, expected = model.encode(features, lens, mask), []
    for layer, head in zip((1, 3), model.final_proj, strict=True):  # type: ignore[call-overload]
        picked = torch.cat([states[layer][row, 3:20] for row in range(2)])
        logits = (picked @ head.weight.T + head.bias) / 0.1
        # every second label: unit 2 k belongs to the 25 Hz frame k
        targets = torch.cat([data.labels[row, 6:40:2] for row in range(2)])
        expected.append(F.cross_entropy(logits, targets, reduction="sum"))
        assert int(output.metrics[f"correct_layer{layer}"]) == int((logits.argmax(1) == targets).sum())
    assert int(output.frames) == 34
    torch.testing.assert_close(output.loss_sum, sum(expected) / 2)
    torch.testing.assert_close(output.metrics["loss_layer1"], expected[0])
    assert torch.equal(output.metrics["correct"], output.metrics["correct_layer3"])
    wrong = model.masked_loss(features, lens, data.labels[:, 1::2], mask)
    assert not torch.isclose(wrong.loss_sum, output.loss_sum)


def test_one_supervised_layer_is_the_plain_objective() -> None:
    data = batch()
    plain, named = make().eval(), make(predict_layers=[3]).eval()
    assert set(plain.state_dict()) == set(named.state_dict())
    assert torch.equal(plain(data).loss_sum, named(data).loss_sum)
    assert set(plain(data).metrics) == {"correct"}


@pytest.mark.parametrize("objective", ["ce", "nce"])
def test_every_head_trains_the_layers_up_to_its_own(objective: str) -> None:
    model = make(predict_layers=[1, 3], objective=objective, final_dim=8).train()
    model(batch()).loss_sum.backward()
    assert [name for name, p in model.named_parameters() if p.grad is None] == []
    model = make(predict_layers=[1], objective=objective, final_dim=8).train()
    model(batch()).loss_sum.backward()
    dead = {name.split(".")[2] for name, p in model.encoder.named_parameters("encoder") if p.grad is None}
    assert dead == {"1", "2"}


def test_cosine_heads_have_their_own_embeddings() -> None:
    model = make(predict_layers=[1, 3], objective="nce", final_dim=8)
    assert model.label_embs_concat.shape == (2 * UNITS, 8)
    model(batch()).metrics["correct"]
    first, second = (model._embeddings(number)[0] for number in (0, 1))
    assert torch.equal(torch.cat([first, second]), model.label_embs_concat)


def test_labels_follow_the_model_s_rate() -> None:
    labels = torch.arange(10)[None]
    assert at_rate(labels, 320).tolist() == labels.tolist()
    assert at_rate(labels, 640).tolist() == [[0, 2, 4, 6, 8]]
    assert at_rate(labels, 160)[0, :6].tolist() == [0, 0, 1, 1, 2, 2]
    with pytest.raises(SslbenchError, match="do not fit units"):
        at_rate(labels, 480)


@pytest.mark.parametrize(("span_frames", "span_ms"), [(5, 200), (10, 400)])
def test_span_frames_sets_the_length_of_masked_spans(span_frames: int, span_ms: int) -> None:
    seen: list[torch.Tensor] = []

    class Watched(Toy):
        def masked_loss(self, features: Any, lens: Any, labels: Any, mask: Any) -> Any:
            seen.append(mask)
            return super().masked_loss(features, lens, labels, mask)

    config = make(span_frames=span_frames, mask_prob=0.2).config
    assert config.span_frames * config.fbank.stride / 16 == span_ms
    Watched(config)(batch((160_000, 160_000)))
    runs = [len(run) for row in seen[0].int().tolist() for run in "".join(map(str, row)).split("0") if run]
    # rows are trimmed to the least masked one, so some spans lose frames; most are whole
    assert sorted(runs)[len(runs) // 2] >= span_frames


def test_masked_frames_are_zero_before_the_projection_or_one_vector_after_it() -> None:
    data, mask = batch(), torch.zeros(2, 50, dtype=torch.bool)
    mask[:, 4:9] = True
    zeros = make(mask_with="zeros", input_norm=False).eval()
    features, _ = zeros.features(data.audio, data.audio_lens)
    bias: Any = zeros.post_extract_proj.bias  # type: ignore[union-attr]
    x = zeros.embed(features, mask[:, : features.shape[1]])
    torch.testing.assert_close(x[:, 4:9], bias.expand(2, 5, -1))
    assert "mask_emb" not in zeros.state_dict()
    learned = make().eval()
    x = learned.embed(features, mask[:, : features.shape[1]])
    assert torch.equal(x[:, 4:9], learned.mask_emb.expand(2, 5, -1))  # type: ignore[union-attr]


def test_what_is_masked_does_not_reach_the_loss() -> None:
    """Audio under masked frames may change without changing any prediction."""
    for settings in ({}, {"mask_with": "zeros", "input_norm": False}):
        model, data = make(**settings).eval(), batch((32_000, 32_000))
        features, lens = model.features(data.audio, data.audio_lens)
        mask = torch.zeros(2, features.shape[1], dtype=torch.bool)
        mask[:, 10:30] = True
        changed = features.clone()
        changed[:, 10:30] += torch.randn(2, 20, features.shape[2])
        labels = at_rate(data.labels, 640)
        before, after = (model.masked_loss(f, lens, labels, mask).loss_sum for f in (features, changed))
        assert torch.equal(before, after)


def test_a_layer_that_does_not_exist_is_named() -> None:
    with pytest.raises(SslbenchError, match=r"predict_layers \[4\] do not exist; states go from 0 to 3"):
        make(predict_layers=[1, 4])
    with pytest.raises(SslbenchError, match="different layers"):
        make(predict_layers=[2, 2])

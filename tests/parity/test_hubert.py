"""HuBERT against recorded outputs of k2SSL's code, and against torchaudio's implementation."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from sslbench.nn.frontend import length_mask
from sslbench.nn.upstream import LossOutput
from sslbench.upstream.hubert_k2ssl.model import Hubert, HubertConfig
from sslbench.upstreams import build_model

CONV = [(24, 10, 5)] + [(24, 3, 2)] * 4 + [(24, 2, 2)] * 2
TINY = {"layers": 3, "dim": 48, "ffn_dim": 96, "heads": 4, "conv_pos": 16, "conv_pos_groups": 4}


class Case:
    """One recorded model: ours with its weights, and what the original computed."""

    def __init__(self, folder: Path, objective: str) -> None:
        self.io = load_file(folder / "io.safetensors")
        self.gradients = load_file(folder / "grads_eval.safetensors")
        self.meta = json.loads((folder / "meta.json").read_text())
        config = HubertConfig(
            **TINY,
            conv_layers=CONV,
            num_units=28,
            objective=objective,
            final_dim=16,
            compat="k2ssl",
        )
        self.model = Hubert(config).eval()
        self.model.load_state_dict(load_file(folder / "state.safetensors"), strict=True)
        self.lens = (self.io["in.padding_mask"] == 0).sum(1)
        self.mask = self.io["in.mask_indices"].bool()

    def features(self) -> tuple[torch.Tensor, torch.Tensor]:
        return self.model.features(self.io["in.source"], self.lens)

    def layer_error(self, mode: str) -> float:
        """Largest difference of any layer's frames (of the unpadded clips' and the padded one's)."""
        with torch.no_grad():
            features, lens = self.features()
            states = self.model.encode(features, lens, self.mask if mode == "mask" else None)
            inputs = self.model.embed(features, None)  # recorded before masking
            found = {
                "feature_extractor": features.transpose(1, 2),
                "layer_norm": self.model.layer_norm(features),  # type: ignore[misc]
                "post_extract_proj": inputs,
            }
            if mode == "nomask":
                valid = length_mask(lens, inputs.shape[1])[..., None]
                found["encoder.pos_conv"] = self.model.encoder._position(inputs * valid).transpose(1, 2)
        errors = [x - self.io[f"eval_{mode}.{name}"] for name, x in found.items()]
        for index in range(3):
            reference = self.io[f"eval_{mode}.encoder.layers.{index}"].transpose(0, 1)
            errors.append(states[index + 1] - reference[:, : states[0].shape[1]])
        errors.append(states[-1] - self.io[f"eval_{mode}.x"])
        return max(float(error.abs().max()) for error in errors)

    def logit_error(self) -> float:
        """Largest difference of the masked and the unmasked frames' logits."""
        with torch.no_grad():
            features, lens = self.features()
            frames = self.model.encode(features, lens, self.mask)[-1]
            valid = length_mask(lens, frames.shape[1])
            errors = []
            for kind, chosen in (("m", valid & self.mask), ("u", valid & ~self.mask)):
                wanted = self.io[f"loss.logit_{kind}"]
                logits = self.model.final_proj.logits(frames[chosen], *self.model._embeddings(0))
                if (
                    self.model.config.objective == "nce"
                ):  # the target's cosine comes first, and is -inf in its place
                    labels = self.io["in.kmeans"][:, : frames.shape[1]][chosen][:, None]
                    logits = torch.cat([logits.gather(1, labels), logits.scatter(1, labels, -torch.inf)], 1)
                same = wanted.isinf() == logits.isinf()
                assert bool(same.all())
                errors.append(float((logits - wanted)[~wanted.isinf()].abs().max()))
        return max(errors)

    def loss(self) -> LossOutput:
        return self.model.masked_loss(*self.features(), self.io["in.kmeans"], self.mask)

    def gradient_error(self) -> float:
        """Largest difference of any parameter's gradient, relative to the largest of that parameter.

        The bias of the key projection has no influence on attention: its gradients are rounding
        noise in both, and measured against the largest gradient of all.
        """
        self.model.zero_grad()
        self.loss().loss_sum.backward()
        assert set(self.gradients) == {name for name, _ in self.model.named_parameters()}
        largest = max(float(g.abs().max()) for g in self.gradients.values())
        errors = []
        for name, parameter in self.model.named_parameters():
            reference = self.gradients[name]
            scale = largest if name.endswith("k_proj.bias") else float(reference.abs().max())
            assert parameter.grad is not None
            errors.append(float((parameter.grad - reference).abs().max()) / scale)
        return max(errors)


@pytest.fixture(params=["ce", "nce"])
def case(request: pytest.FixtureRequest, shared_dir: Path) -> Case:
    return Case(shared_dir / "fixtures" / f"hubert_tiny_{request.param}", request.param)


def disturb(model: Hubert) -> None:
    with torch.no_grad():
        model.encoder.layers[1].fc1.weight[0, 0] += 0.5  # type: ignore[union-attr,operator]


@pytest.mark.parametrize("mode", ["nomask", "mask"])
def test_every_layer_equals_the_original(case: Case, mode: str) -> None:
    assert case.layer_error(mode) <= 1e-5


def test_padding_mask_and_logits_equal_the_original(case: Case) -> None:
    _, lens = case.features()
    wanted = case.io["eval_nomask.padding_mask"] == 0
    assert torch.equal(length_mask(lens, wanted.shape[1]), wanted)
    assert case.logit_error() <= 1e-4  # cosines and logits are divided by 0.1
    case.model.compat = False
    assert not torch.equal(length_mask(case.features()[1], wanted.shape[1]), wanted)


def test_loss_equals_the_original(case: Case) -> None:
    out, reference = case.loss(), case.meta["loss"]
    assert abs(out.loss_sum.item() - reference["total"]) <= 1e-5 * reference["total"]
    assert int(out.frames) == reference["sample_size"]
    assert int(out.metrics["correct"]) == reference["logging_output"]["correct_m_0"]
    penalty = 10 * float(out.metrics["feature_penalty"])
    assert penalty == pytest.approx(reference["logging_output"]["loss_features_pen"], rel=1e-5)


def test_gradients_equal_the_original(case: Case) -> None:
    assert case.gradient_error() <= 1e-4


def test_one_disturbed_weight_fails_every_check_above(case: Case) -> None:
    disturb(case.model)
    total = case.meta["loss"]["total"]
    assert case.layer_error("nomask") > 1e-3
    assert case.logit_error() > 1e-3
    assert abs(case.loss().loss_sum.item() - total) > 1e-5 * total
    assert case.gradient_error() > 1e-3


@pytest.mark.parametrize(
    ("preset", "listing", "others"),
    [
        ("hubert_k2ssl_base", "hubert_base_ce", {}),
        ("hubert_k2ssl_large", "hubert_large_ce", {}),
        ("hubert_orig_base", "hubert_base_nce", {"final_dim": 768}),  # icefall's default; fairseq has 256
        ("hubert_orig_large", "hubert_large_nce", {}),
    ],
)
def test_full_size_keys_and_shapes_are_the_published_ones(
    shared_dir: Path, preset: str, listing: str, others: dict[str, int]
) -> None:
    lines = (shared_dir / "fixtures" / "listings" / f"{listing}.txt").read_text().splitlines()
    rows = [line.split("\t") for line in lines if line and not line.startswith("#")]
    expected = {key: json.loads(shape) for key, shape, _ in rows}
    with torch.device("meta"):
        model = build_model(preset, others)
    assert {key: list(value.shape) for key, value in model.state_dict().items()} == expected


def from_torchaudio(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """torchaudio's wav2vec2_model names to ours."""
    renames = [
        ("encoder.feature_projection.layer_norm", "layer_norm"),
        ("encoder.feature_projection.projection", "post_extract_proj"),
        ("encoder.transformer.pos_conv_embed.conv.", "encoder.pos_conv.0."),
        (".attention.", ".self_attn."),
        (".feed_forward.intermediate_dense", ".fc1"),
        (".feed_forward.output_dense", ".fc2"),
        ("encoder.transformer.layer_norm", "encoder.layer_norm"),
        ("encoder.transformer.layers", "encoder.layers"),
        (".weight_g", ".parametrizations.weight.original0"),
        (".weight_v", ".parametrizations.weight.original1"),
    ]
    result = {}
    for original, value in state.items():
        key = original
        for old, new in renames:
            key = key.replace(old, new)
        if key.startswith("encoder.layers") and ".layer_norm" in key:
            key = key.replace(".layer_norm", ".self_attn_layer_norm")
        if key.startswith("feature_extractor"):
            norm = ".2.1." if "feature_extractor.conv_layers.1.layer_norm.weight" in state else ".2."
            key = key.replace(".conv.", ".0.").replace(".layer_norm.", norm)
        result[key] = value
    return result


@pytest.mark.parametrize("large", [False, True])
def test_unpadded_clips_equal_torchaudio(large: bool) -> None:
    torchaudio_models = pytest.importorskip("torchaudio.models")
    torch.manual_seed(0)
    reference = torchaudio_models.wav2vec2_model(
        extractor_mode="layer_norm" if large else "group_norm",
        extractor_conv_layer_config=CONV,
        extractor_conv_bias=False,
        encoder_embed_dim=48,
        encoder_projection_dropout=0.0,
        encoder_pos_conv_kernel=16,
        encoder_pos_conv_groups=4,
        encoder_num_layers=3,
        encoder_num_heads=4,
        encoder_attention_dropout=0.0,
        encoder_ff_interm_features=96,
        encoder_ff_interm_dropout=0.0,
        encoder_dropout=0.0,
        encoder_layer_norm_first=large,
        encoder_layer_drop=0.0,
        aux_num_out=None,
    ).eval()
    mode = "layer" if large else "group"
    config = HubertConfig(**TINY, conv_layers=CONV, num_units=28, layer_norm_first=large, extractor_mode=mode)
    model = Hubert(config).eval()
    ours = model.state_dict()
    model.load_state_dict({**ours, **from_torchaudio(reference.state_dict())}, strict=True)
    replaced = set(from_torchaudio(reference.state_dict()))
    assert set(ours) - replaced == {"mask_emb", "final_proj.weight", "final_proj.bias"}
    audio = torch.randn(2, 16000)
    with torch.no_grad():
        states = model.encode(*model.features(audio, torch.full((2,), 16000)))
        expected, _ = reference(audio)
        layers, _ = reference.extract_features(audio)
    torch.testing.assert_close(states[-1], expected, atol=1e-5, rtol=0)
    for state, layer in zip(states[1:-1], layers[:-1], strict=True):
        torch.testing.assert_close(state, layer, atol=1e-5, rtol=0)

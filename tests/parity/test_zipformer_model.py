"""The whole Zipformer against the original's recorded run, in its compatibility mode."""

import json
import math

import pytest
import torch
from safetensors.torch import load_file

from sslbench.nn.frontend import length_mask
from sslbench.upstream.zipformer.config import ZipformerConfig
from sslbench.upstream.zipformer.layer import ZipformerLayer
from sslbench.upstream.zipformer.model import ZipformerSSL
from sslbench.upstreams import build_model

LIMIT = 1e-5
# Both signals of the recording; the model is told where the second one ends, as the original was.
LENS = torch.tensor([20240, 14537])


def numbers(text: str, stacks: int = 4) -> list[int]:
    values = [int(v) for v in text.split(",")]
    return values * (stacks if len(values) == 1 else 1)


@pytest.fixture(scope="module")
def folder(shared_dir):
    return shared_dir / "fixtures/zipformer_tiny"


@pytest.fixture(scope="module")
def meta(folder):
    return json.loads((folder / "meta.json").read_text())


@pytest.fixture(scope="module")
def io(folder):
    return load_file(folder / "io.safetensors")


@pytest.fixture
def model(folder, meta):
    args = meta["args"]
    settings = ZipformerConfig(
        downsampling=numbers(args["downsampling_factor"]),
        layers=numbers(args["num_encoder_layers"]),
        dims=numbers(args["encoder_dim"]),
        unmasked_dims=numbers(args["encoder_unmasked_dim"]),
        ffn_dims=numbers(args["feedforward_dim"]),
        heads=numbers(args["num_heads"]),
        kernels=numbers(args["cnn_module_kernel"]),
        query_head_dim=8,
        value_head_dim=6,
        pos_head_dim=4,
        pos_dim=16,
        conv_layers=[(24, 10, 5)] + [(24, 3, 2)] * 4 + [(24, 2, 2)] * 2,
        num_units=28,
        compat="k2ssl",
    )
    model = ZipformerSSL(settings)
    model.load_state_dict(load_file(folder / "state.safetensors"), strict=True)
    return model.eval()


def recorded_run(model, io, masked: bool) -> dict[str, torch.Tensor]:
    """Every tensor that the recording has, by its name there, batch first."""
    found, hooks = {}, []
    for name, module in model.named_modules():
        if isinstance(module, ZipformerLayer) or name.endswith("downsample"):
            hook = module.register_forward_hook(lambda m, a, y, name=name: found.__setitem__(name, y))
            hooks.append(hook)
    features, lens = model.features(io["in.source"], LENS)
    mask = io["in.mask_indices"].bool() if masked else None
    inputs, *stacks, output = model.encode(features, lens, mask)
    for hook in hooks:
        hook.remove()
    found |= {f"encoder.encoders.{i}": x for i, x in enumerate(stacks)}
    found |= {"feature_extractor": features, "layer_norm": model.layer_norm(features), "x": output}
    found["post_extract_proj"] = model.embed(features, None)  # recorded before masking
    if not masked:
        assert torch.equal(inputs, found["post_extract_proj"])
    return found


def worst(found: dict, io: dict, kind: str) -> dict[str, float]:
    turns = {"feature_extractor": (1, 2), "layer_norm": (0, 0), "post_extract_proj": (0, 0), "x": (0, 0)}
    result = {}
    for name, x in found.items():
        wanted = io[f"{kind}.{name}"].transpose(*turns.get(name, (0, 1)))
        result[name] = float((x - wanted).abs().max())
    return result


@pytest.mark.parametrize("masked", [False, True])
def test_every_layer_and_stack(model, io, meta, masked):
    kind = "eval_mask" if masked else "eval_nomask"
    with torch.no_grad():
        found = worst(recorded_run(model, io, masked), io, kind)
        left = {k[len(kind) + 1 :] for k in meta["shapes"] if k.startswith(kind)} - set(found)
        assert left <= {"padding_mask"}
        assert max(found.values()) < LIMIT, found
        model.encoder.encoders[0].layers[0].norm.log_scale += 0.001
        assert max(worst(recorded_run(model, io, masked), io, kind).values()) > 10 * LIMIT


@pytest.mark.parametrize(("mode", "recorded"), [("ignore", "nomask"), ("mask", "kpm")])
def test_encoder_with_and_without_key_padding_mask(model, io, mode, recorded):
    x, wanted = io["enc.in.x"].transpose(0, 1), io[f"enc.out.{recorded}"].transpose(0, 1)
    lens = (io["enc.in.key_padding_mask"] == 0).sum(1)
    with torch.no_grad():
        assert float((model.encoder(x, lens, mode)[0] - wanted).abs().max()) < LIMIT
        other = "mask" if mode == "ignore" else "ignore"
        assert float((model.encoder(x, lens, other)[0] - wanted).abs().max()) > 1000 * LIMIT


def logit_difference(model, io) -> float:
    """Of the masked and the unmasked frames, which the original counts with a weight of 0."""
    features, lens = model.features(io["in.source"], LENS)
    mask = io["in.mask_indices"].bool()
    frames = model.encode(features, lens, mask)[-1]
    valid = length_mask(lens, frames.shape[1])
    chosen = {"m": valid & mask, "u": valid & ~mask}
    logits = {kind: model.final_proj.logits(frames[rows]) for kind, rows in chosen.items()}
    return max(float((x - io[f"loss.logit_{kind}"]).abs().max()) for kind, x in logits.items())


def test_padding_mask_and_logits(model, io):
    wanted = io["eval_nomask.padding_mask"] == 0
    with torch.no_grad():
        assert torch.equal(length_mask(model.features(io["in.source"], LENS)[1], wanted.shape[1]), wanted)
        assert logit_difference(model, io) < 10 * LIMIT  # logits are divided by 0.1
        model.encoder.encoders[0].layers[0].norm.log_scale += 0.01
        assert logit_difference(model, io) > 100 * LIMIT
        model.compat = False
        assert not torch.equal(length_mask(model.features(io["in.source"], LENS)[1], wanted.shape[1]), wanted)


def loss_of(model, io):
    features, lens = model.features(io["in.source"], LENS)
    return model.masked_loss(features, lens, io["in.kmeans"], io["in.mask_indices"].bool())


def gradient_difference(model, wanted: dict[str, torch.Tensor]) -> float:
    """Largest difference over parameters, relative to each parameter's largest gradient."""
    result = 0.0
    for name, p in model.named_parameters():
        if name not in wanted or not wanted[name].any():
            assert p.grad is None or not p.grad.any(), name
            continue
        result = max(result, float((p.grad - wanted[name]).abs().max() / wanted[name].abs().max()))
    return result


def test_loss(model, io, meta):
    output = loss_of(model, io)
    log = meta["loss"]["logging_output"]
    assert output.loss_sum.item() == pytest.approx(meta["loss"]["total"], rel=LIMIT)
    assert int(output.frames) == meta["loss"]["sample_size"]
    assert int(output.metrics["correct"]) == log["correct_m_0"]
    assert 10 * float(output.metrics["feature_penalty"]) == pytest.approx(log["loss_features_pen"], rel=LIMIT)
    with torch.no_grad():
        model.final_proj.bias[0] += 0.1
    assert loss_of(model, io).loss_sum.item() != pytest.approx(meta["loss"]["total"], rel=LIMIT)


def test_gradients(model, io, folder, meta):
    wanted = load_file(folder / "grads_eval.safetensors")
    loss_of(model, io).loss_sum.backward()
    assert gradient_difference(model, wanted) < 1e-4
    assert {n for n, p in model.named_parameters() if p.grad is None} == set(meta["params_without_grad"])
    loss_of(model, io).loss_sum.backward()  # the control: gradients doubled
    assert gradient_difference(model, wanted) > 0.5


def test_gradients_in_training_mode_without_chance(model, io, folder, monkeypatch):
    """Schedules at their defaults and every random decision against: training is the same function."""
    import sslbench.nn.balancer as balancer
    import sslbench.nn.biasnorm as biasnorm
    import sslbench.nn.whiten as whiten
    import sslbench.upstream.zipformer.attention as attention
    import sslbench.upstream.zipformer.encoder as encoder

    model.train()
    for module in (balancer, biasnorm, whiten, attention):
        monkeypatch.setattr(module, "chance", lambda probability: False)
    monkeypatch.setattr(encoder, "POSITION_DROPOUT", 0.0)
    monkeypatch.setattr(encoder, "NARROW_SHARE", -1.0)
    loss_of(model, io).loss_sum.backward()
    wanted = load_file(folder / "grads_train_det.safetensors")
    assert gradient_difference(model, wanted) < 1e-4
    model.zero_grad()
    monkeypatch.setattr(encoder, "NARROW_SHARE", 0.9)
    loss_of(model, io).loss_sum.backward()
    assert gradient_difference(model, wanted) > 0.1


DEFAULTS = {"dims": [192, 256, 384, 512, 384, 256]}  # of icefall's flags, which build no published model


@pytest.mark.parametrize(
    ("name", "preset", "others", "count"),
    [
        ("base", "zipformer_base", {}, 94_561_917),
        ("large", "zipformer_large", {}, 305_938_464),
        ("pretrain_defaults", "zipformer_base", DEFAULTS, 67_940_861),
    ],
)
def test_full_sizes_have_the_originals_keys(shared_dir, name, preset, others, count):
    lines = (shared_dir / f"fixtures/listings/zipformer_{name}.txt").read_text().splitlines()
    wanted = dict(line.split("\t")[:2] for line in lines if not line.startswith("#"))
    with torch.device("meta"):
        model = build_model(preset, others)
    assert {k: str(list(v.shape)) for k, v in model.state_dict().items()} == wanted
    assert (
        sum(p.numel() for p in model.parameters())
        == count
        == sum(math.prod(json.loads(shape)) for shape in wanted.values())
    )

"""Zipformer SSL beyond the original: padding-safe, seeded, resumable, within the upstream contract."""

import copy

import pytest
import torch

from sslbench import config as configs
from sslbench.errors import SslbenchError
from sslbench.nn.upstream import PretrainBatch
from sslbench.optim import ScaledAdam
from sslbench.upstream.zipformer.config import ZipformerConfig
from sslbench.upstream.zipformer.encoder import Downsample, ZipformerEncoder, stitch
from sslbench.upstream.zipformer.hubconf import CONFIGS, zipformer_tiny
from sslbench.upstream.zipformer.model import MODEL, ZipformerSSL

CNN = [(16, 10, 5), (16, 3, 2), (16, 3, 2), (16, 3, 2), (16, 3, 2), (16, 2, 2), (24, 2, 2)]


def small(**kwargs) -> ZipformerSSL:
    torch.manual_seed(0)
    settings = {
        "downsampling": [1, 2, 4, 2], "layers": [1, 1, 2, 1], "dims": [24, 32, 48, 32],
        "kernels": [7, 7, 7, 7], "unmasked_dims": [24, 24, 32, 24], "ffn_dims": [32, 48, 64, 48],
        "heads": [4, 4, 4, 4], "query_head_dim": 8, "value_head_dim": 6, "pos_dim": 16,
        "conv_layers": CNN, "num_units": 20,
    }  # fmt: skip
    return ZipformerSSL(ZipformerConfig(**{**settings, **kwargs}))


def batch(seed: int = 0, lens: tuple[int, ...] = (16000, 12345, 9000)) -> PretrainBatch:
    generator = torch.Generator().manual_seed(seed)
    audio = torch.zeros(len(lens), max(lens))
    labels = torch.full((len(lens), -(-max(lens) // 320)), -1)
    for row, samples in enumerate(lens):
        audio[row, :samples] = torch.randn(samples, generator=generator)
        frames = -(-samples // 320)
        labels[row, :frames] = torch.randint(0, 20, (frames,), generator=generator)
    return PretrainBatch(audio, torch.tensor(lens), labels, [str(row) for row in range(len(lens))])


@pytest.mark.parametrize("features", ["padded", "stitched"])
@pytest.mark.parametrize("samples", [1, 319, 400, 8000, 8001, 12345])
def test_a_clip_is_the_same_alone_and_padded(samples, features):
    model = small(features=features).eval()
    audio = torch.randn(samples)
    padded = torch.zeros(2, 20000)
    padded[0, :samples], padded[1] = audio, torch.randn(20000)
    with torch.no_grad():
        alone = model.hidden_states(audio[None], torch.tensor([samples]))
        together = model.hidden_states(padded, torch.tensor([samples, 20000]))
    frames = -(-samples // 320)
    assert len(alone) == len(together) == 6
    for a, b in zip(alone, together, strict=True):
        assert a.shape == (1, frames, 48)
        assert b.shape == (2, 63, 48)
        assert float((a[0] - b[0, :frames]).abs().max()) < 1e-4
        assert not b[0, frames:].any()


def test_the_originals_handling_of_padding_is_not_the_same():
    """The control of the test above: k2SSL's encoder mixes a clip with its padding."""
    model = small(compat="k2ssl").eval()
    audio = torch.randn(1, 8000)
    padded = torch.nn.functional.pad(audio, (0, 12000))
    with torch.no_grad():
        alone = model.hidden_states(audio, torch.tensor([8000]))[-1]
        together = model.hidden_states(padded, torch.tensor([8000]))[-1]
    assert float((alone - together[:, :25]).abs().max()) > 1e-2


def test_unpadded_clips_give_the_originals_numbers():
    audio, lens = torch.randn(2, 9000), torch.tensor([9000, 9000])
    safe, original = small().eval(), small(compat="k2ssl").eval()
    with torch.no_grad():
        for a, b in zip(safe.hidden_states(audio, lens), original.hidden_states(audio, lens), strict=True):
            assert torch.allclose(a, b, atol=1e-5)


def test_last_group_repeats_each_clips_own_last_frame():
    layer = Downsample(4)
    torch.nn.init.normal_(layer.bias)
    x, lens = torch.randn(3, 11, 5), torch.tensor([11, 6, 4])
    y = layer(x, lens)
    for row, n in enumerate(lens.tolist()):
        own = torch.cat([x[row, :n], x[row, n - 1 : n].expand(-n % 4, -1)]).view(-1, 4, 5)
        wanted = (own * layer.bias.softmax(0)[:, None]).sum(1)
        assert torch.allclose(y[row, : len(wanted)], wanted, atol=1e-6)


def test_stitching_takes_each_channel_from_the_last_stack_that_has_it():
    outputs = [torch.full((1, 1, dim), float(i)) for i, dim in enumerate([192, 256, 448, 768, 448, 192])]
    wanted = [5.0] * 192 + [4.0] * 256 + [3.0] * 320
    assert stitch(outputs)[0, 0].tolist() == wanted


def test_masks_and_losses_repeat_with_the_seed():
    def losses() -> list[float]:
        model = small().train()
        model.set_batch_count(0)
        torch.manual_seed(5)
        return [model(batch(i)).loss_sum.item() for i in range(3)]

    assert losses() == losses()
    model = small().eval()
    first = model(batch()).loss_sum.item()
    assert model(batch()).loss_sum.item() == first
    assert len(set(losses())) == 3


def test_training_reduces_the_loss_and_resumes_bit_for_bit():
    def steps(model, optimizer, begin: int, end: int) -> list[float]:
        losses = []
        for step in range(begin, end):
            model.set_batch_count(step)
            output = model(batch(step % 2, lens=(5000, 4000)))
            (output.loss_sum / output.frames).backward()
            optimizer.step()
            optimizer.zero_grad()
            losses.append(output.loss_sum.item() / output.frames.item())
        return losses

    def started(**kwargs):
        shape = {
            "downsampling": [1, 2], "layers": [1, 1], "dims": [24, 32], "kernels": [7, 7],
            "unmasked_dims": [24, 24], "ffn_dims": [32, 48], "heads": [4, 4],
        }  # fmt: skip
        model = small(schedule_speed=200.0, **shape, **kwargs).train()
        return model, ScaledAdam(model.named_parameters(), lr=0.02)

    model, optimizer = started()
    torch.manual_seed(1)
    losses = steps(model, optimizer, 0, 20)
    saved = model.state_dict(), optimizer.state_dict(), model.training_state(), torch.get_rng_state()
    saved = [{k: v.clone() for k, v in saved[0].items()}, *saved[1:]]
    saved[1] = copy.deepcopy(saved[1])
    straight = steps(model, optimizer, 20, 26)
    assert sum(straight[-5:]) < 0.9 * sum(losses[:5])

    model, optimizer = started(mask_seed=9)
    model.load_state_dict(saved[0])
    optimizer.load_state_dict(saved[1])
    model.load_training_state(saved[2])
    torch.set_rng_state(saved[3])
    assert steps(model, optimizer, 20, 26) == straight


def test_padding_does_not_reach_the_loss():
    model = small().eval()
    full = batch(lens=(9000, 8000))
    longer = PretrainBatch(
        torch.nn.functional.pad(full.audio, (0, 5000)),
        full.audio_lens,
        torch.nn.functional.pad(full.labels, (0, 16), value=-1),
        full.ids,
    )
    a, b = model.features(full.audio, full.audio_lens), model.features(longer.audio, longer.audio_lens)
    mask = torch.zeros(b[0].shape[:2], dtype=torch.bool)
    mask[:, 3:13] = True
    losses = [
        model.masked_loss(*x, y.labels, mask[:, : x[0].shape[1]]).loss_sum.item()
        for x, y in ((a, full), (b, longer))
    ]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


def test_training_only_machinery_rests_in_eval():
    model = small().eval()
    model.set_batch_count(0)
    state = torch.get_rng_state()
    model(batch()).loss_sum.backward()
    assert torch.equal(torch.get_rng_state(), state)
    assert float(small().encoder.encoders[0].layers[0].feed_forward1.out_proj.dropout) == 0.0
    assert float(model.encoder.encoders[0].layers[0].feed_forward1.out_proj.dropout) == 0.3


@pytest.mark.parametrize("answer", [True, False])
def test_every_random_branch_trains(monkeypatch, answer):
    model = small().train()
    model.set_batch_count(0)
    for module in ("nn.balancer", "nn.biasnorm", "nn.whiten", "upstream.zipformer.attention"):
        monkeypatch.setattr(f"sslbench.{module}.chance", lambda probability: answer)
    model(batch()).loss_sum.backward()
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)


def test_bfloat16_autocast_trains():
    model = small().train()
    model.set_batch_count(100)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = model(batch()).loss_sum
    loss.backward()
    assert loss.isfinite()
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)


def test_tiny_preset_is_small_and_public():
    with pytest.warns(UserWarning, match="RANDOM"):
        upstream = zipformer_tiny()
    assert MODEL is ZipformerSSL
    assert sum(p.numel() for p in upstream.parameters()) == 1_435_682
    upstream.train()
    wavs = [torch.randn(5000), torch.randn(3000)]
    first, second = upstream(wavs), upstream(wavs)
    assert torch.equal(first["last_hidden_state"], second["last_hidden_state"])
    assert upstream.get_downsample_rates() == 320


def test_stacks_warm_up_one_after_the_other():
    encoder = ZipformerEncoder(configs.load(ZipformerConfig, CONFIGS / "zipformer_tiny.yaml"))
    encoder.set_batch_count(1700)
    rates = [m.skip_rate.value for _, m in encoder.named_modules() if hasattr(m, "norm") for m in [m.bypass]]
    assert rates == sorted(rates)
    assert rates[0] == 0.035
    assert rates[-1] == 0.5


@pytest.mark.parametrize(
    "change", [{"dims": [24, 32, 48]}, {"kernels": [7, 7, 7, 8]}, {"unmasked_dims": [25, 24, 32, 24]}]
)
def test_impossible_shapes_are_refused(change):
    with pytest.raises(SslbenchError, match="zipformer"):
        small(**change)


def test_labels_beyond_the_head_are_refused():
    wrong = batch()
    wrong.labels[0, 0] = 20
    with pytest.raises(SslbenchError, match="num_units"):
        small()(wrong)

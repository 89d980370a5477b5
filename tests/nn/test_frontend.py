"""The waveform CNN: padding-safe, defined for every length, and mapped to the frame contract."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from sslbench.errors import SslbenchError
from sslbench.nn import strided
from sslbench.nn.frontend import (
    WaveformCNN,
    expand_to_contract,
    length_mask,
    masked_channel_norm,
    min_samples,
    normalise_waveform,
    scale_gradient,
)

LAYERS = [(8, 10, 5)] + [(8, 3, 2)] * 4 + [(8, 2, 2)] * 2


def padded_batch(lens: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    audio = 0.1 * torch.randn(len(lens), max(lens)) + 0.02
    lens_t = torch.tensor(lens)
    return audio * length_mask(lens_t, max(lens)), lens_t


@pytest.mark.parametrize("norm", ["group", "layer"])
def test_padding_changes_no_valid_frame(norm: str) -> None:
    cnn = WaveformCNN(LAYERS, norm)
    audio, lens = padded_batch([8000, 5000, 401, 399, 1])
    features, frame_lens = cnn(audio, lens)
    for row, length in enumerate(lens.tolist()):
        alone, alone_lens = cnn(audio[row : row + 1, :length], lens[row : row + 1])
        assert alone.shape[1] == alone_lens[0] == frame_lens[row] == cnn.frame_lens(lens)[row]
        torch.testing.assert_close(alone[0], features[row, : frame_lens[row]], atol=1e-5, rtol=0)


def test_leaking_group_norm_is_what_the_check_above_catches() -> None:
    cnn = WaveformCNN(LAYERS, leak_padding=True)
    audio, lens = padded_batch([8000, 4000])
    features, frame_lens = cnn(audio, lens)
    alone, _ = cnn(audio[1:, :4000], lens[1:])
    assert (alone[0] - features[1, : frame_lens[1]]).abs().max().item() > 1e-2


@pytest.mark.parametrize(
    "layers", [LAYERS, [(8, 8, 4), (6, 4, 2), (6, 5, 2), (4, 1, 2), (4, 3, 1)], LAYERS[:1]]
)
@pytest.mark.parametrize("norm", ["group", "layer"])
@pytest.mark.parametrize("bias", [False, True])
def test_matrix_products_equal_the_convolution_operators(
    layers: list[tuple[int, int, int]], norm: str, bias: bool
) -> None:
    """Outputs and all gradients, the samples' too; clips of one length, which both forms treat alike."""
    torch.manual_seed(0)
    ours, published = WaveformCNN(layers, norm, bias), WaveformCNN(layers, norm, bias, leak_padding=True)
    for parameter in ours.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    published.load_state_dict(ours.state_dict())
    audio = (0.1 * torch.randn(3, 3300) + 0.05).requires_grad_()
    lens = torch.full((3,), 3300)
    (a, _), (b, _) = ours(audio, lens), published(audio, lens)
    torch.testing.assert_close(a, b, atol=1e-5, rtol=0)
    probe = torch.randn_like(a)
    # a bias before GroupNorm changes nothing, so its gradient is rounding alone
    names = [name for name, _ in ours.named_parameters() if (norm, name) != ("group", "conv_layers.0.0.bias")]
    found, wanted = (
        torch.autograd.grad((y * probe).sum(), [audio, *(m.get_parameter(name) for name in names)])
        for y, m in ((a, ours), (b, published))
    )
    for g, h in zip(found, wanted, strict=True):
        torch.testing.assert_close(g, h, atol=1e-5 * float(h.abs().max()), rtol=0)
    with torch.no_grad():
        next(ours.parameters())[0, 0, 0] += 0.01
        assert not torch.allclose(ours(audio, lens)[0], b, atol=1e-5)


def test_chunks_of_the_first_layer_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    cnn = WaveformCNN(LAYERS)
    audio, lens = padded_batch([3000, 2500, 1200])
    weight = cnn.conv_layers[0]["0"].weight  # type: ignore[index]

    def run() -> tuple[torch.Tensor, torch.Tensor]:
        y, _ = cnn(audio, lens)
        return y, torch.autograd.grad(y.square().sum(), weight)[0]

    whole = run()
    monkeypatch.setitem(strided.CHUNK_VALUES, "cpu", 1)
    for a, b in zip(run(), whole, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


def test_autocast_narrows_the_products_and_stays_close() -> None:
    cnn = WaveformCNN(LAYERS)
    audio, lens = padded_batch([3000, 2500])
    exact, _ = cnn(audio, lens)
    with torch.autocast("cpu", torch.bfloat16):
        y, _ = cnn(audio, lens)
    assert y.dtype == torch.bfloat16
    assert float((y - exact).abs().max()) < 0.05 * float(exact.abs().max())
    y.float().square().sum().backward()
    assert all(p.grad.dtype == torch.float32 and p.grad.isfinite().all() for p in cnn.parameters())


def test_masked_channel_norm_equals_group_norm_clip_by_clip() -> None:
    torch.manual_seed(0)
    lens = torch.tensor([40, 23, 7])
    x = (torch.randn(3, 5, 40) + 0.5).requires_grad_()
    weight, bias = torch.randn(5, requires_grad=True), torch.randn(5, requires_grad=True)
    weights_of_sum = torch.randn(3, 5, 40) * length_mask(lens, 40)[:, None]
    ours = (masked_channel_norm(x, lens, weight, bias) * weights_of_sum).sum()
    clips = [F.group_norm(x[i : i + 1, :, :n], 5, weight, bias) for i, n in enumerate(lens)]
    theirs = torch.stack(
        [(c[0] * weights_of_sum[i, :, :n]).sum() for i, (c, n) in enumerate(zip(clips, lens, strict=True))]
    )
    torch.testing.assert_close(ours, theirs.sum(), atol=1e-4, rtol=0)
    leaves = (x, weight, bias)
    for a, b in zip(
        torch.autograd.grad(ours, leaves), torch.autograd.grad(theirs.sum(), leaves), strict=True
    ):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=0)


def test_every_length_meets_the_frame_contract() -> None:
    cnn = WaveformCNN(LAYERS)
    assert min_samples(cnn.geometry) == 400
    for length in range(1, 3001, 37):
        audio, lens = padded_batch([length])
        features, frame_lens = cnn(audio, lens)
        states = expand_to_contract(features, frame_lens, lens)
        assert states.shape == (1, -(-length // 320), 8)
        assert torch.equal(states[0, -1], features[0, frame_lens[0] - 1])


def test_contract_is_zero_beyond_each_clip() -> None:
    audio, lens = padded_batch([3200, 700])
    features, frame_lens = WaveformCNN(LAYERS)(audio, lens)
    states = expand_to_contract(features, frame_lens, lens)
    assert states[1, 3:].abs().max() == 0
    assert states[1, :3].abs().min(dim=1).values.max() > 0
    assert expand_to_contract(features, frame_lens, lens, max_samples=6400).shape[1] == 20


def test_normalised_waveform_has_unit_variance_over_its_own_samples() -> None:
    audio, lens = padded_batch([1000, 300])
    y = normalise_waveform(audio, lens)
    assert abs(float(y[1, :300].mean())) < 1e-5
    assert abs(float(y[1, :300].var(correction=0)) - 1) < 1e-2
    assert y[1, 300:].abs().max() == 0


def test_scaled_gradient() -> None:
    x = torch.ones(3, requires_grad=True)
    (gradient,) = torch.autograd.grad(scale_gradient(x, 0.25).sum(), x)
    assert gradient.tolist() == [0.25] * 3
    assert not scale_gradient(x, 0.0).requires_grad


def test_unknown_norm_is_refused() -> None:
    with pytest.raises(SslbenchError, match="norm"):
        WaveformCNN(LAYERS, "batch")

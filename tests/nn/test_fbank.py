"""The fbank front end: Kaldi's numbers, blind to padding, normalised as configured."""

from __future__ import annotations

import pytest
import torch

from sslbench.errors import SslbenchError
from sslbench.nn.fbank import (
    LEAST_VARIANCE,
    UNFITTED_MEAN,
    FbankConfig,
    FbankFrontend,
    analysis_window,
    fbank,
    mel_filters,
)

LENGTHS = (16000, 7777, 3200, 879, 401, 400, 399, 160, 1)
FAST = FbankConfig(mel_bins=20, conv_channels=32, channels=16)
MEL = FbankConfig(mel_bins=20, window="hamming", stack=2, kernels=[])
MIXED = FbankConfig(mel_bins=20, stack=2, kernels=[3], channels=16, cmvn="utterance")


def speechlike(samples: int, seed: int = 0) -> torch.Tensor:
    """Noise under a slow envelope, with a strong tone: bins differ by many orders of magnitude."""
    time = torch.arange(samples) / 16_000
    noise = torch.randn(samples, generator=torch.Generator().manual_seed(seed))
    return 0.2 * (3 * time).sin().square() * noise + 0.3 * (2 * torch.pi * 440 * time).sin()


def padded(lengths: tuple[int, ...]) -> tuple[torch.Tensor, torch.Tensor]:
    audio = torch.zeros(len(lengths), max(lengths))
    for row, samples in enumerate(lengths):
        audio[row, :samples] = speechlike(samples, seed=samples)
    return audio, torch.tensor(lengths)


@pytest.mark.parametrize("window", ["povey", "hamming"])
@pytest.mark.parametrize("bins", [40, 80, 128])
def test_equals_kaldi_as_torchaudio_has_it(bins: int, window: str) -> None:
    kaldi = pytest.importorskip("torchaudio.compliance.kaldi")
    wav = speechlike(48_000)[None]
    expected = kaldi.fbank(wav * 2**15, num_mel_bins=bins, window_type=window, sample_frequency=16_000)
    ours = fbank(wav, mel_filters(bins), analysis_window(window))[0]
    torch.testing.assert_close(ours, expected, atol=1e-4, rtol=0)
    other = fbank(wav, mel_filters(bins), analysis_window({"povey": "hamming"}.get(window, "povey")))[0]
    assert float((other - expected).abs().max()) > 0.05  # a wrong window would be seen


@pytest.mark.filterwarnings("ignore:.*snip_edges")
def test_equals_lhotse() -> None:
    from lhotse.features.kaldi import Fbank
    from lhotse.features.kaldi import FbankConfig as LhotseConfig

    wav = speechlike(48_000)
    extractor = Fbank(LhotseConfig(num_mel_bins=80, high_freq=0.0, snip_edges=True, dither=0.0))
    expected = torch.from_numpy(extractor.extract((wav * 2**15).numpy(), 16_000))
    ours = fbank(wav[None], mel_filters(80), analysis_window("povey"))[0]
    torch.testing.assert_close(ours, expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize("config", [FAST, MEL, MIXED], ids=["convolved", "stacked", "both"])
def test_frames_do_not_depend_on_padding_at_any_length(config: FbankConfig) -> None:
    torch.manual_seed(0)
    front = FbankFrontend(config)
    audio, lens = padded(LENGTHS)
    with torch.no_grad():
        together, frames = front(audio, lens)
        for row, samples in enumerate(LENGTHS):
            alone, count = front(audio[row : row + 1, :samples], lens[row : row + 1])
            assert int(frames[row]) == int(count) == alone.shape[1]
            assert 1 <= int(count) <= max(1, -(-samples // front.stride))
            torch.testing.assert_close(together[row, : int(count)], alone[0], atol=1e-4, rtol=0)
            assert not together[row, int(count) :].any()


def test_stride_and_width_follow_the_configuration() -> None:
    expected = {"fast": (640, 512), "mel": (320, 40), "mixed": (640, 16), "zipformer": (320, 512)}
    configs = {"fast": FbankConfig(), "mel": MEL, "mixed": MIXED, "zipformer": FbankConfig(kernels=[5])}
    for name, config in configs.items():
        front = FbankFrontend(config)
        assert (front.stride, front.channels) == expected[name]
        frames, lens = front(*padded((64_000, 32_000)))
        assert frames.shape[2] == front.channels
        assert abs(64_000 / int(lens[0]) / front.stride - 1) < 0.03


def test_stacking_puts_even_and_odd_frames_side_by_side_and_fills_the_last_with_zeros() -> None:
    audio, _ = padded((16_000,))  # 98 frames; one hop less gives 97
    for samples in (16_000, 15_840):
        front = FbankFrontend(MEL)
        x, _ = front.log_mel(audio[:, :samples], torch.tensor([samples]))
        plain = front.normalise(x, torch.tensor([x.shape[1]]))[0]
        stacked, _ = front(audio[:, :samples], torch.tensor([samples]))
        assert torch.equal(stacked[0, :, :20], plain[::2])
        odd = plain[1::2]
        assert torch.equal(stacked[0, : len(odd), 20:], odd)
        assert not stacked[0, len(odd) :, 20:].any()


def test_convolutions_halve_the_rate_as_their_definition_says() -> None:
    torch.manual_seed(0)
    front = FbankFrontend(FAST)
    audio, lens = padded((8000,))
    x = front.normalise(front.log_mel(audio, lens)[0], lens).transpose(1, 2)
    for conv in front.conv_layers:
        values, gates = torch.nn.functional.conv1d(x, conv.weight, conv.bias, stride=2, padding=2).chunk(2, 1)
        x = values * gates.sigmoid()
    torch.testing.assert_close(front(audio, lens)[0], x.transpose(1, 2))


def test_global_statistics_are_fitted_over_valid_frames_and_kept_in_the_state() -> None:
    front = FbankFrontend(MEL)
    assert float(front.cmvn_mean[0]) == UNFITTED_MEAN
    clips = [padded((16_000, 5000)), padded((9000,))]
    seen = front.fit(clips)
    frames = []
    for audio, lens in clips:
        for row, samples in zip(audio, lens, strict=True):
            frames.append(front.log_mel(row[None, : int(samples)], samples[None])[0][0])
    every = torch.cat(frames).double()
    assert seen == len(every)
    torch.testing.assert_close(front.cmvn_mean.double(), every.mean(0), rtol=1e-5, atol=0)
    torch.testing.assert_close(front.cmvn_std.double(), every.std(0, correction=0), rtol=1e-4, atol=0)
    assert set(front.state_dict()) == {"cmvn_mean", "cmvn_std"}
    assert front.fit([]) == 0
    assert float(front.cmvn_mean[0]) != UNFITTED_MEAN


def test_utterance_normalisation_brings_each_clip_to_mean_0_and_variance_1() -> None:
    front = FbankFrontend(FbankConfig(mel_bins=20, cmvn="utterance", kernels=[]))
    clips = padded((16_000, 8000))
    frames, lens = front(*clips)
    raw, _ = front.log_mel(*clips)
    for row, plain, count in zip(frames, raw, lens.tolist(), strict=True):
        torch.testing.assert_close(row[:count].mean(0), torch.zeros(20), atol=1e-4, rtol=0)
        variance = plain[:count].var(0, correction=0)
        scaled = variance / (variance + LEAST_VARIANCE)
        torch.testing.assert_close(row[:count].var(0, correction=0), scaled, atol=1e-3, rtol=0)
    assert not FbankFrontend(FbankConfig(cmvn="none", kernels=[])).state_dict()


def test_half_precision_autocast_leaves_the_spectrum_exact() -> None:
    front = FbankFrontend(MEL)
    audio, lens = padded((16_000,))
    with torch.autocast("cpu", torch.bfloat16):
        low, _ = front(audio, lens)
    assert torch.equal(low, front(audio, lens)[0])


def test_silence_and_full_scale_stay_finite_with_finite_gradients() -> None:
    front = FbankFrontend(FAST)
    audio = torch.stack([torch.zeros(4000), torch.ones(4000), speechlike(4000).sign()]).requires_grad_()
    front(audio, torch.tensor([4000] * 3))[0].square().sum().backward()
    assert audio.grad is not None
    assert bool(audio.grad.isfinite().all())
    assert bool(audio.grad[2].any())


def test_settings_that_cannot_be_are_named() -> None:
    with pytest.raises(SslbenchError, match="kernels odd"):
        FbankConfig(kernels=[4])

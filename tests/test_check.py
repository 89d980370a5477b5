"""The contract checker finds each breach that it claims to look for, and passes what is sound."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from torch import nn

from sslbench import check
from sslbench.cli import main


class Sound(nn.Module):
    """One frame per 320 samples from that block alone, so nothing depends on padding."""

    stride = 320

    def __init__(self, frozen: bool = True) -> None:
        super().__init__()
        self.frozen = frozen
        self.linear = nn.Linear(320, 6)
        nn.init.normal_(self.linear.weight, generator=torch.Generator().manual_seed(0))
        self.dropout = nn.Dropout(0.5)
        if frozen:
            self.requires_grad_(False).eval()

    def train(self, mode: bool = True) -> Sound:
        return super().train(mode and not self.frozen)

    def get_downsample_rates(self, key: str) -> int:
        return self.stride

    def frames(self, wavs: list[torch.Tensor]) -> torch.Tensor:
        audio = nn.utils.rnn.pad_sequence(wavs, batch_first=True)
        blocks = nn.functional.pad(audio, (0, -audio.shape[1] % 320)).unflatten(1, (-1, 320))
        return self.dropout(self.linear(blocks))

    def forward(self, wavs: list[torch.Tensor]) -> dict[str, Any]:
        frames = self.frames(wavs)
        return {"hidden_states": [frames, frames.tanh()]}


class Thaws(Sound):
    def train(self, mode: bool = True) -> Sound:
        return nn.Module.train(self, mode)


class DropsShort(Sound):
    def frames(self, wavs: list[torch.Tensor]) -> torch.Tensor:
        return super().frames(wavs)[:, : max(1, (max(map(len, wavs)) - 80) // 320)]


class SeesPadding(Sound):
    def frames(self, wavs: list[torch.Tensor]) -> torch.Tensor:
        return super().frames(wavs) + 1e-3 * max(map(len, wavs)) / 16_000


class Noisy(Sound):
    def frames(self, wavs: list[torch.Tensor]) -> torch.Tensor:
        frames = super().frames(wavs)
        return frames + 1e-7 * torch.randn_like(frames)


class Uneven(Sound):
    def forward(self, wavs: list[torch.Tensor]) -> dict[str, Any]:
        frames = self.frames(wavs)
        return {"hidden_states": [frames, frames[..., :3]]}


class SkipsLayers(Sound):
    def forward(self, wavs: list[torch.Tensor]) -> dict[str, Any]:
        states = super().forward(wavs)["hidden_states"]
        return {"hidden_states": states[: 1 if len(wavs) == 1 else 2]}


class Detached(Sound):
    def frames(self, wavs: list[torch.Tensor]) -> torch.Tensor:
        return super().frames([wav.detach() for wav in wavs])


class Explodes(Sound):
    def frames(self, wavs: list[torch.Tensor]) -> torch.Tensor:
        return super().frames(wavs) / wavs[0].abs().max()


class ListRate(Sound):
    def get_downsample_rates(self, key: str) -> Any:
        return [320, 320]


class WrongRate(Sound):
    stride = 160


def breached(model: type[Sound]) -> set[str]:
    return {point.name for point in check.check(model) if not point.ok}


def test_a_sound_upstream_passes_every_point() -> None:
    points = check.check(Sound)
    assert [point for point in points if not point.ok] == []
    assert {
        "downsample_rate",
        "layers",
        "frames",
        "padding",
        "frozen",
        "determinism",
        "gradients",
        "finite",
    } == {point.name for point in points}


@pytest.mark.parametrize(
    ("model", "point"),
    [
        (Thaws, "frozen"),
        (DropsShort, "frames"),
        (SeesPadding, "padding"),
        (Noisy, "determinism"),
        (Uneven, "layers"),
        (SkipsLayers, "layers"),
        (Detached, "gradients"),
        (Explodes, "finite"),
        (ListRate, "downsample_rate"),
        (WrongRate, "downsample_rate"),
    ],
)
def test_each_breach_is_found(model: type[Sound], point: str) -> None:
    assert point in breached(model)


def test_only_what_is_broken_is_named() -> None:
    assert breached(Thaws) == {"frozen"}
    assert breached(SeesPadding) == {"padding"}
    assert breached(Noisy) <= {"determinism", "frozen"}


def test_an_upstream_that_raises_is_a_breach_with_its_message() -> None:
    class Raises(Sound):
        def forward(self, wavs: list[torch.Tensor]) -> dict[str, Any]:
            raise ValueError("no clip is good enough")

    points = check.check(Raises)
    assert not any(point.ok for point in points)
    assert any("no clip is good enough" in point.note for point in points)


def test_the_s3prl_crash_window_is_among_the_lengths() -> None:
    """HuBERT's front end makes S3PRLUpstream stop on 961 to 1039 samples."""
    assert set(range(961, 1040)) & check.critical_lengths(320)
    assert {1, 2, 320, 321, 400, 401, 640, 641} <= check.critical_lengths(320)


def test_ranges_are_short() -> None:
    assert check._ranges([1, 2, 3, 7]) == "1-3, 7"


@pytest.mark.parametrize("name", ["zipformer_tiny", "hubert_k2ssl_tiny"])
def test_our_tiny_presets_keep_the_contract(name: str, capsys) -> None:
    assert main(["check", name, "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert (result["upstream"], result["ok"], result["weights"]) == (name, True, "random")
    assert all({"name", "ok", "measured", "limit"} <= set(point) for point in result["points"])
    padding = next(point for point in result["points"] if point["name"] == "padding")
    assert 0 < padding["measured"] <= 1e-4


def test_s3prls_fbank_is_reported_as_it_is(capsys) -> None:
    pytest.importorskip("s3prl")
    assert main(["check", "fbank"]) == 1
    out = capsys.readouterr().out
    assert "BREACH" in out
    assert "choose a window size" in out


def test_check_of_an_unknown_name_is_wrong_input(capsys) -> None:
    assert main(["check", "zipformr_tiny"]) == 2
    assert "zipformer_tiny" in capsys.readouterr().err


def test_extract_writes_every_layer(tmp_path, capsys) -> None:
    for name, samples in (("a", 16_000), ("b", 8123)):
        soundfile.write(tmp_path / f"{name}.wav", check.clip(samples).numpy(), 16_000)
    wavs = [str(tmp_path / f"{name}.wav") for name in ("a", "b")]
    assert main(["extract", "zipformer_tiny", *wavs, "--out", str(tmp_path / "f.npz")]) == 0
    arrays = np.load(tmp_path / "f.npz")
    layers = len(arrays.files) // 2
    assert f"a.layer{layers - 1:02d}" in arrays
    assert arrays["a.layer00"].shape[0] == 50
    assert arrays["b.layer00"].shape[0] == 26
    assert arrays["a.layer00"].dtype == np.float32
    from sslbench.audio import load_audio
    from sslbench.upstreams import load_upstream

    states = load_upstream("zipformer_tiny")([load_audio(wavs[1])])["hidden_states"]
    assert np.allclose(arrays["b.layer01"], states[1][0].numpy(), atol=1e-5)


def test_extract_names_what_it_skips(tmp_path, capsys) -> None:
    soundfile.write(tmp_path / "good.wav", check.clip(4000).numpy(), 16_000)
    soundfile.write(tmp_path / "slow.wav", check.clip(4000).numpy(), 8000)
    good, slow, out = (str(tmp_path / name) for name in ("good.wav", "slow.wav", "f.npz"))
    assert main(["extract", "zipformer_tiny", good, slow, "--out", out]) == 1
    assert "8000 Hz" in capsys.readouterr().err
    assert {name.split(".")[0] for name in np.load(out).files} == {"good"}
    assert main(["extract", "zipformer_tiny", slow, "--resample", "--out", out]) == 0
    assert np.load(out)["slow.layer00"].shape[0] == 25
    assert main(["extract", "zipformer_tiny", good, good, "--out", out]) == 2

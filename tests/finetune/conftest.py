"""Spelled-out tones: a corpus that a recognizer can learn in seconds, and filterbanks to hear it with."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from lhotse import MonoCut, Recording, SupervisionSegment
from torch import nn

from sslbench.data.manifests import write_corpus
from sslbench.finetune import experiment
from sslbench.finetune.config import FinetuneConfig

LETTERS = "ABCDE "
LETTER_S = 0.12


def spell(text: str, seed: int) -> np.ndarray:
    """Each letter a tone with fading ends, in a little noise: (T,) float32."""
    time_s = np.arange(int(LETTER_S * 16000)) / 16000
    fade = np.sin(np.pi * time_s / LETTER_S)
    tones = [np.sin(2 * np.pi * 300 * (1 + LETTERS.index(letter)) * time_s) * fade for letter in text]
    tones = tones or [np.zeros(1600)]
    noise = np.random.default_rng(seed).normal(0, 0.01, sum(map(len, tones)))
    return (0.3 * np.concatenate(tones) + noise).astype(np.float32)


def write_split(folder: Path, split: str, texts: list[str], wavs: list[np.ndarray] | None = None) -> Path:
    """A manifest FOLDER/SPLIT/SPLIT.jsonl.gz with one clip per text, two speakers in turn."""
    folder = folder / split
    cuts = []
    for number, text in enumerate(texts):
        name = f"{split}-{number}"
        path = folder / "audio" / f"{name}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, spell(text, number) if wavs is None else wavs[number], 16000)
        recording = Recording.from_file(path, recording_id=name)
        told = SupervisionSegment(name, name, 0.0, recording.duration, text=text, speaker=f"s{number % 2}")
        cuts.append(MonoCut(name, 0.0, recording.duration, 0, recording=recording, supervisions=[told]))
    write_corpus(folder, "tones", {split: cuts}, synthetic=True)
    return folder / f"{split}.jsonl.gz"


def words(number: int, seed: int) -> list[str]:
    """Random two-word texts."""
    rng = random.Random(seed)
    return [" ".join("".join(rng.choices("ABCDE", k=3)) for _ in range(2)) for _ in range(number)]


class Filterbank(nn.Module):
    """A parameter-free upstream: log power in 24 bands every 20 ms, at two scales as two layers."""

    weights, weights_sha256 = "none", None
    calls = 0

    def get_downsample_rates(self, key: str) -> int:
        return 320

    def forward(self, wavs: list[torch.Tensor]) -> dict[str, Any]:
        Filterbank.calls += 1
        states = []
        for wav in wavs:
            padded = nn.functional.pad(wav, (0, -len(wav) % 320 + 80))
            frames = padded.unfold(0, 400, 320) * torch.hann_window(400)
            bands = torch.fft.rfft(frames).abs()[:, :96].reshape(len(frames), 24, 4).mean(-1)
            states.append((bands + 1e-3).log())
        last = nn.utils.rnn.pad_sequence(states, batch_first=True)
        return {"hidden_states": [last, last.exp()]}


class Tunable(Filterbank):
    """The same with a parameter to tune and a dropout to freeze."""

    weights = "random"

    def __init__(self, frozen: bool) -> None:
        super().__init__()
        self.layer = nn.Linear(24, 24)
        self.dropout = nn.Dropout(0.5)
        nn.init.eye_(self.layer.weight)
        if frozen:
            self.requires_grad_(False).eval()

    def forward(self, wavs: list[torch.Tensor]) -> dict[str, Any]:
        first = super().forward(wavs)["hidden_states"][0]
        return {"hidden_states": [first, self.dropout(self.layer(first))]}


@pytest.fixture(autouse=True)
def _fake_upstreams(monkeypatch: pytest.MonkeyPatch) -> None:
    def load(name: str, ckpt: str | None, frozen: bool, **_: Any) -> nn.Module:
        torch.manual_seed(0)
        return Tunable(frozen) if name == "tunable" else Filterbank()

    monkeypatch.setattr(experiment, "load_upstream", load)


@pytest.fixture(scope="session")
def tones(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with the manifests of `train` (24 clips) and `dev` (6 of them again)."""
    folder = tmp_path_factory.mktemp("tones")
    texts = words(24, seed=0)
    write_split(folder, "train", texts)
    write_split(folder, "dev", texts[:6])
    return folder


@pytest.fixture
def make_config(tones: Path, tmp_path: Path) -> Callable[..., FinetuneConfig]:
    """Small settings with changes."""
    base = FinetuneConfig(
        upstream="filterbank", train_manifest=str(tones / "train" / "train.jsonl.gz"),
        dev_manifest=str(tones / "dev" / "dev.jsonl.gz"), exp_dir=str(tmp_path / "exp"),
        projection_dim=32, blstm_dim=32, blstm_layers=1, dropout=0.0, lr=1e-2, head_stride=320,
        steps=60, eval_every_steps=30, log_every_steps=5, max_duration_s=10.0, device="cpu",
    )  # fmt: skip
    return lambda **changes: dataclasses.replace(base, **changes)

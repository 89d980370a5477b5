"""A small corpus of synthetic speakers, and an upstream whose layers differ in worth."""

from __future__ import annotations

import zlib
from pathlib import Path

import numpy as np
import soundfile
import torch
from lhotse import MonoCut, Recording, SupervisionSegment
from lhotse.supervision import AlignmentItem
from torch import nn

from sslbench.data.manifests import write_corpus

TONES = {"AA": 400.0, "IY": 1100.0, "SH": 2600.0, "UW": 700.0}


def make_clip(path: Path, seed: int, speaker: int, session: int | None = None, phones: int = 4) -> MonoCut:
    """Tones (phones) over a hum of the speaker's own pitch; 120 ms per phone, of which 40 ms are a pause.

    Without pauses a phone that follows itself is one longer tone, which no frame tells from a single one.
    """
    rng = np.random.default_rng(seed)
    order = [str(p) for p in rng.choice(list(TONES), phones)]
    times = np.arange(1280) / 16_000
    pause = np.zeros(640)
    wave = np.concatenate([x for p in order for x in (0.3 * np.sin(2 * np.pi * TONES[p] * times), pause)])
    hum = 0.2 * np.sin(2 * np.pi * (3200 + 400 * speaker) * np.arange(len(wave)) / 16_000 + rng.uniform(0, 6))
    soundfile.write(path, wave + hum + rng.normal(0, 0.01, len(wave)), 16_000, subtype="PCM_16")
    recording = Recording.from_file(path, recording_id=path.stem)
    segment = SupervisionSegment(
        path.stem, path.stem, 0, recording.duration, text="A", speaker=f"spk{speaker}"
    )
    segment.alignment = {"phone": [AlignmentItem(f"{p}1", i * 0.12, 0.12) for i, p in enumerate(order)]}
    if session is not None:
        segment.custom = {"session": session}
    return MonoCut(path.stem, 0, recording.duration, 0, recording=recording, supervisions=[segment])


def make_corpus(root: Path, speakers: int = 4, per_session: int = 4) -> Path:
    """train-clean-100, dev-clean and test-clean; every speaker has three sessions in each."""
    root.mkdir(parents=True, exist_ok=True)
    splits: dict[str, list[MonoCut]] = {}
    for split in ("train-clean-100", "dev-clean", "test-clean"):
        splits[split] = [
            make_clip(
                root / f"{split}-{k}-{session}-{i}.wav",
                zlib.crc32(f"{split}{k}{session}{i}".encode()),
                k,
                session,
            )
            for k in range(speakers)
            for session in range(3)
            for i in range(per_session)
        ]
    write_corpus(root / "manifests", "tones", splits, synthetic=True)
    return root / "manifests"


class Spectral(nn.Module):
    """Layer 0 is noise, layer 1 the log spectrum of each 20 ms: exactly ceil(T/320) frames."""

    weights = "none"
    weights_sha256 = None

    def __init__(self, useful: bool = True) -> None:
        super().__init__()
        self.useful = useful
        self.calls = 0

    def get_downsample_rates(self, key: str) -> int:
        return 320

    def forward(self, wavs: list[torch.Tensor]) -> dict[str, list[torch.Tensor]]:
        self.calls += 1
        audio = nn.utils.rnn.pad_sequence(wavs, batch_first=True)
        audio = nn.functional.pad(audio, (0, -audio.shape[1] % 320)).unflatten(1, (-1, 320))
        spectrum = torch.fft.rfft(audio * torch.hann_window(320)).abs()[..., :96].clamp_min(1e-3).log()
        # as good as random, but the same for a clip in any batch
        noise = torch.sin(1e4 * audio.sum(dim=-1, keepdim=True) * torch.arange(1, 98)[:96])
        return {"hidden_states": [noise, spectrum if self.useful else noise.cos()]}

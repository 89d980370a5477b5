"""Two-speaker conversations of the embedded corpus, for diarization: who speaks when is known exactly."""

from __future__ import annotations

import random
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sslbench import io
from sslbench.corpora.mini.render import SAMPLE_RATE_HZ, write_flac
from sslbench.corpora.mini.speakers import GENERATOR_VERSION

if TYPE_CHECKING:
    from lhotse import MonoCut
    from numpy.typing import NDArray

# mixture split -> the split whose speakers talk
SOURCES = {"mix2-train": "train-clean-100", "mix2-dev": "dev-clean", "mix2-test": "test-clean"}
PER_SPEAKER = 3
TURNS = 4
OVERLAP = (0.15, 0.40)  # share of the shorter neighbour


def mixture_rows(rows: list[dict[str, Any]], split: str, root: Path, seed: int) -> list[dict[str, Any]]:
    """The mixtures of one split, made now or found complete from before.

    Args:
        rows: truth of the single-speaker recordings (`render.speaker_rows`).
        split: a key of `SOURCES`.
        root: the corpus folder; audio goes to `root/mixtures/<split>/`, turns to `<split>.rttm` there.
        seed: the corpus's seed.
    """
    voices: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        if row["split"] == SOURCES[split] and row["labels"]["kind"] == "sentence":
            voices.setdefault(row["speaker"], []).append(row)
    names = sorted(voices)
    if len(names) < 2:
        return []
    key = io.sha256_json(
        [GENERATOR_VERSION, seed, split, [r["pcm_sha256"] for n in names for r in voices[n]]]
    )
    truth_path = root / "truth" / f"{split}.json"
    if truth_path.is_file():
        truth = io.read_json(truth_path)
        if truth["key"] == key and all(_size(root / row["path"]) == row["bytes"] for row in truth["rows"]):
            found: list[dict[str, Any]] = truth["rows"]
            return found
    draw = random.Random(f"mixtures {seed} {split}")
    mixtures = [
        _mix(root, Path("mixtures", split, f"{split}-{number:04d}.flac"), voices, draw)
        for number in range(PER_SPEAKER * len(names))
    ]
    _write_rttm(root / "mixtures" / f"{split}.rttm", mixtures)
    io.write_json(truth_path, {"key": key, "rows": mixtures})
    return mixtures


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else -1


def _mix(
    root: Path, path: Path, voices: dict[str, list[dict[str, Any]]], draw: random.Random
) -> dict[str, Any]:
    """Let two speakers take turns, each beginning before the other has ended."""
    import soundfile

    turns: list[dict[str, Any]] = []
    parts: list[tuple[int, NDArray[np.int32]]] = []
    pair = draw.sample(sorted(voices), 2)
    chosen = [draw.sample(voices[speaker], min(TURNS // 2, len(voices[speaker]))) for speaker in pair]
    order = [row for turn in zip(*chosen, strict=False) for row in turn]
    end, before = 0, 0
    for row in order:
        spoken = [(p, a, b) for p, a, b in row["phones"] if p != "SIL"]
        first, last = spoken[0][1], spoken[-1][2]
        share = draw.uniform(*OVERLAP)
        # speech, not the silence around it, overlaps
        start = max(0, end - int(share * min(before, last - first)) - first)
        pcm, _ = soundfile.read(root / row["path"], dtype="int16")
        parts.append((start, pcm.astype(np.int32)))
        end, before = start + last, last - first
        turns.append(
            {
                "id": f"{path.stem}-{len(turns)}", "source": row["id"], "speaker": row["speaker"],
                "gender": row["gender"], "text": row["text"], "start": start + first, "end": start + last,
            }
        )  # fmt: skip
    total = np.zeros(max(start + len(pcm) for start, pcm in parts), np.int32)
    for start, pcm in parts:
        total[start : start + len(pcm)] += pcm
    write_flac(root / path, total.clip(-32768, 32767).astype(np.int16))
    return {
        "id": path.stem, "path": str(path), "bytes": (root / path).stat().st_size,
        "samples": len(total), "turns": turns,
    }  # fmt: skip


def _write_rttm(path: Path, mixtures: list[dict[str, Any]]) -> None:
    lines = [
        f"SPEAKER {row['id']} 1 {turn['start'] / SAMPLE_RATE_HZ:.4f} "
        f"{(turn['end'] - turn['start']) / SAMPLE_RATE_HZ:.4f} <NA> <NA> {turn['speaker']} <NA> <NA>\n"
        for row in mixtures
        for turn in row["turns"]
    ]
    io.write_text(path, "".join(lines))


def mixture_cut(root: Path, row: dict[str, Any]) -> MonoCut:
    """A cut with one supervision per turn."""
    from lhotse import AudioSource, MonoCut, Recording, SupervisionSegment

    rate = SAMPLE_RATE_HZ
    source = AudioSource("file", [0], str((root / row["path"]).resolve()))
    recording = Recording(row["id"], [source], rate, row["samples"], row["samples"] / rate)
    supervisions = [
        SupervisionSegment(
            turn["id"], row["id"], turn["start"] / rate, round((turn["end"] - turn["start"]) / rate, 6),
            text=turn["text"], language="English", speaker=turn["speaker"], gender=turn["gender"],
            custom={"kind": "turn", "source": turn["source"]},
        )
        for turn in row["turns"]
    ]  # fmt: skip
    return MonoCut(row["id"], 0.0, recording.duration, 0, supervisions, recording=recording)

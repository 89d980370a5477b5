"""Opening, first batch, resume and memory of manifests of 1,000 to 1,000,000 cuts, each in a fresh process.

The cuts are synthetic (2 to 16 s, with transcript and units); their audio is real flac that a thousand
files share, so that the first batch is really read. Peers: lhotse's own lazy manifest under the same
sampler, and its eager one, which holds every cut (up to 100,000 cuts: it needs about 5 GB per million).
How to read the result: docs/benchmarks/data.md.
"""

from __future__ import annotations

import argparse
import gzip
import json
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

EXAMPLES = """examples:
  python benchmarks/manifests.py                                   1k, 100k and 1M cuts (about 4 minutes)
  python benchmarks/manifests.py --cuts 1000 20000 --readers jsonl shar
  python benchmarks/manifests.py --folder /scratch/cuts --json out.json     keeps the manifests
"""
READERS = ("jsonl", "shar", "lhotse_lazy", "lhotse_eager")
EAGER_AT_MOST = 100_000
VOICES, SHARD = 1000, 1000
MAX_DURATION_S, BUCKETS, BATCHES_AFTER = 600.0, 30, 50


def main() -> None:
    """Make the manifests, measure every reader on every size, print a table."""
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, epilog=EXAMPLES, formatter_class=raw)
    parser.add_argument("--cuts", type=int, nargs="+", default=[1000, 100_000, 1_000_000])
    parser.add_argument("--readers", nargs="+", choices=READERS, default=list(READERS))
    parser.add_argument("--folder", type=Path, help="where the manifests go (default: a temporary folder)")
    parser.add_argument("--json", type=Path, help="also write the figures here")
    parser.add_argument("--worker", nargs=3, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        reader, folder, cuts = args.worker
        print(json.dumps(measure(reader, Path(folder), int(cuts))))
        return
    with tempfile.TemporaryDirectory() as temporary:
        folder = args.folder or Path(temporary)
        rows = list(measure_all(folder, args.cuts, args.readers))
    print_table(rows)
    if args.json:
        args.json.write_text(json.dumps(rows, indent=2) + "\n")


def measure_all(folder: Path, sizes: list[int], readers: list[str]) -> Iterator[dict[str, Any]]:
    """One fresh process per (size, reader), one at a time."""
    audio = make_audio(folder / "audio")
    for cuts in sizes:
        make_jsonl(folder, audio, cuts)
        make_shar(folder, audio, cuts)
        for reader in readers:
            if reader == "lhotse_eager" and cuts > EAGER_AT_MOST:
                continue
            words = [sys.executable, __file__, "--worker", reader, str(folder), str(cuts)]
            done = subprocess.run(words, capture_output=True, text=True, check=True)
            row: dict[str, Any] = {"reader": reader, "cuts": cuts, **json.loads(done.stdout)}
            print(f"  {cuts} {reader}: {row}", file=sys.stderr, flush=True)
            yield row


# --- the corpus


def make_audio(folder: Path) -> list[tuple[Path, float]]:
    """A thousand flac files of 2 to 16 s: quiet tones, so that they are small."""
    import numpy as np
    import soundfile

    folder.mkdir(parents=True, exist_ok=True)
    rng, made = random.Random(0), []
    for number in range(VOICES):
        samples = rng.randrange(32_000, 256_000)
        path = folder / f"{number:06d}.flac"
        if not path.is_file():
            tone = 0.1 * np.sin(np.arange(samples) * (0.02 + number * 1e-5))
            soundfile.write(path, tone, 16_000)
        made.append((path, samples / 16_000))
    return made


def row_of(number: int, voice: int, path: Path, seconds: float, shar: bool) -> dict[str, Any]:
    """A cut like LibriSpeech's, with units."""
    name = f"{voice:06d}" if shar else f"{number % 2400}-{number:08d}"
    samples = round(seconds * 16_000)
    kind = ("shar", "") if shar else ("file", str(path))
    recording = {
        "id": name, "sources": [{"type": kind[0], "channels": [0], "source": kind[1]}],
        "sampling_rate": 16_000, "num_samples": samples, "duration": seconds, "channel_ids": [0],
    }  # fmt: skip
    supervision = {
        "id": name, "recording_id": name, "start": 0.0, "duration": seconds, "channel": 0,
        "text": "AN UTTERANCE OF SOME WORDS " * 4, "speaker": str(number % 2400),
    }  # fmt: skip
    return {
        "id": name, "start": 0.0, "duration": seconds, "channel": 0, "supervisions": [supervision],
        "recording": recording, "custom": {"kmeans": units_of(voice, samples)}, "type": "MonoCut",
    }  # fmt: skip


@lru_cache(VOICES)
def units_of(voice: int, samples: int) -> str:
    """50 labels per second of 500."""
    return " ".join(map(str, random.Random(voice).choices(range(500), k=-(-samples // 320))))


def make_jsonl(folder: Path, audio: list[tuple[Path, float]], cuts: int) -> None:
    """One manifest."""
    path = folder / f"cuts{cuts}.jsonl.gz"
    if path.is_file():
        return
    with gzip.open(path.with_suffix(".tmp"), "wt", compresslevel=1) as stream:
        for number in range(cuts):
            voice = number % len(audio)
            stream.write(json.dumps(row_of(number, voice, *audio[voice], shar=False)) + "\n")
    path.with_suffix(".tmp").replace(path)


def make_shar(folder: Path, audio: list[tuple[Path, float]], cuts: int) -> None:
    """A Shar folder whose shards share one tar (by links), so that 1M cuts do not fill the disk."""
    out = folder / f"shar{cuts}"
    if out.is_dir():
        return
    one = make_tar(folder / "voices.tar", audio)
    temporary = folder / f".shar{cuts}"
    temporary.mkdir(exist_ok=True)
    for shard, first in enumerate(range(0, cuts, SHARD)):
        rows = (
            row_of(first + voice, voice, *audio[voice], shar=True)
            for voice in range(min(SHARD, cuts - first))
        )
        with gzip.open(temporary / f"cuts.{shard:06d}.jsonl.gz", "wt", compresslevel=1) as stream:
            stream.writelines(json.dumps(row) + "\n" for row in rows)
        tar = temporary / f"recording.{shard:06d}.tar"
        tar.unlink(missing_ok=True)
        tar.hardlink_to(one)
    temporary.replace(out)


def make_tar(path: Path, audio: list[tuple[Path, float]]) -> Path:
    """Every voice as lhotse's Shar has it: the audio, then its description."""
    import io
    import tarfile

    with tarfile.open(path, "w") as tar:
        for voice, (file, _) in enumerate(audio):
            for name, data in ((f"{voice:06d}.flac", file.read_bytes()), (f"{voice:06d}.json", b"{}\n")):
                member = tarfile.TarInfo(name)
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))
    return path


# --- a worker


def measure(reader: str, folder: Path, cuts: int) -> dict[str, Any]:
    """Seconds to open, to the first batch, to the first batch after a resume in the middle; memory."""
    import torch
    from lhotse import CutSet

    from sslbench.data.loading import BatchLoader
    from sslbench.data.manifests import open_manifest

    torch.set_num_threads(1)
    manifest = folder / (f"shar{cuts}" if reader == "shar" else f"cuts{cuts}.jsonl.gz")
    openers = {"lhotse_lazy": CutSet.from_jsonl_lazy, "lhotse_eager": CutSet.from_file}
    before = memory("VmRSS")
    began = time.monotonic()
    opened = openers.get(reader, open_manifest)(manifest)
    if reader == "lhotse_eager":
        opened = opened.to_eager()
    open_s = time.monotonic() - began

    def loader() -> BatchLoader:
        return BatchLoader(opened, MAX_DURATION_S, shuffle=True, num_buckets=BUCKETS)

    began = time.monotonic()
    stream = loader().endless()
    batch = next(stream)
    first_s = time.monotonic() - began
    for _ in range(BATCHES_AFTER):
        batch = next(stream)
    state = {"epoch": 0, "done": round(cuts * 9.0 / MAX_DURATION_S / 2), "seed": 0, "world_size": 1}
    again = loader()
    again.load_state_dict({**state, "seen": 0, "skipped": 0})
    began = time.monotonic()
    batch = next(again.endless())
    if len(batch) == 0:
        raise RuntimeError("the batch after a resume is empty")
    return {
        "open_s": round(open_s, 4),
        "first_batch_s": round(first_s, 3),
        "resume_s": round(time.monotonic() - began, 3),
        "imports_mib": round(before),
        "resident_mib": round(memory("VmRSS")),
        "peak_mib": round(memory("VmHWM")),
    }


def memory(which: str) -> float:
    """MiB, as the kernel counts."""
    line = next(x for x in Path("/proc/self/status").read_text().splitlines() if x.startswith(which))
    return int(line.split()[1]) / 1024


def print_table(rows: list[dict[str, Any]]) -> None:
    """Markdown."""
    print("| cuts | reader | open, s | first batch, s | resume in the middle, s | grown, MiB | peak, MiB |")
    print("|---:|---|---:|---:|---:|---:|---:|")
    for row in rows:
        figures = (row["open_s"], row["first_batch_s"], row["resume_s"])
        grown = row["resident_mib"] - row["imports_mib"]
        cells = [f"{row['cuts']:,}", row["reader"], *figures, grown, row["peak_mib"]]
        print("| " + " | ".join(map(str, cells)) + " |")


if __name__ == "__main__":
    main()

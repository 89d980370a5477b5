"""Audio-hours per second: our loader, a plain PyTorch DataLoader, ESPnet's iterator, over the same files.

All read the same flac or wav files into zero-padded batches of the same size, with as many worker processes.
They take turns within one run; each turn is a fresh start followed by whole passes over the data, timed from
the first batch. `--training` also trains tiny models and reports the share of time they wait for data.
How to read the result: docs/benchmarks/data.md.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

EXAMPLES = """examples:
  python benchmarks/loader.py                                   the embedded corpus (made first), two minutes
  python benchmarks/loader.py --librispeech /corpora/LibriSpeech --max_duration_s 200 --workers 0 4
  python benchmarks/loader.py --manifest data/train.jsonl.gz --rounds 7
  python benchmarks/loader.py --training                        and the data-wait share of tiny models
"""
REFERENCE = "torch_dataloader"
Batches = Iterator[float]
"""Seconds of audio of each batch, padding not counted, epoch after epoch."""


def main() -> None:
    """Measure by turns, print a table of medians."""
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, epilog=EXAMPLES, formatter_class=raw)
    parser.add_argument("--manifest", type=Path, help="cuts to read")
    parser.add_argument(
        "--librispeech", type=Path, help="prepare this folder first and read its training part"
    )
    parser.add_argument("--max_duration_s", type=float, default=60.0, help="padded audio per batch")
    parser.add_argument("--workers", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--min_turn_s", type=float, default=1.5, help="passes are repeated for at least this")
    parser.add_argument("--training", action="store_true", help="also train tiny models")
    parser.add_argument("--json", type=Path, help="also write the figures here")
    args = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    with tempfile.TemporaryDirectory() as temporary:
        scratch = Path(temporary)
        manifest = args.manifest or prepare(scratch, args.librispeech)
        figures = {"manifest": str(manifest), "throughput": compare(manifest, scratch, args)}
        print_throughput(figures["throughput"])
        if args.training:
            figures["training"] = [train(manifest, scratch, name) for name in TINY]
            print_training(figures["training"])
    if args.json:
        args.json.write_text(json.dumps(figures, indent=2) + "\n")


def run(*words: object) -> None:
    """An sslbench command."""
    subprocess.run(
        [sys.executable, "-m", "sslbench", *map(str, words)], check=True, stdout=subprocess.DEVNULL
    )


def prepare(scratch: Path, librispeech: Path | None) -> Path:
    """Manifests of LibriSpeech, or of the embedded corpus."""
    corpus, root = ("librispeech", librispeech) if librispeech else ("mini", scratch / "audio")
    preset = [] if librispeech else ["--preset", "tiny"]
    run("data", "prepare", corpus, *preset, "--root", root, "--out", scratch / "manifests")
    trains = sorted((scratch / "manifests").glob("train*.jsonl.gz"), key=lambda path: path.stat().st_size)
    return trains[-1]


# --- the three readers


def ours(manifest: Path, workers: int, max_duration_s: float) -> Batches:
    """`BatchLoader`."""
    from sslbench.data.loading import BatchLoader
    from sslbench.data.manifests import open_manifest

    loader = BatchLoader(open_manifest(manifest), max_duration_s, shuffle=True, num_workers=workers)
    return (float(batch.audio_lens.sum()) / 16_000 for batch in loader.endless())


class Files:
    """A map-style data set as anyone would write it."""

    def __init__(self, paths: list[str]) -> None:
        self.paths = paths

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, number: int) -> Any:
        import soundfile
        import torch

        return torch.from_numpy(soundfile.read(self.paths[number], dtype="float32")[0])


def pad(clips: list[Any]) -> tuple[Any, Any]:
    """Zero-pad and count."""
    import torch
    from torch.nn.utils.rnn import pad_sequence

    return pad_sequence(clips, batch_first=True), torch.tensor([len(clip) for clip in clips])


def torch_dataloader(manifest: Path, workers: int, max_duration_s: float) -> Batches:
    """`torch.utils.data.DataLoader` with as many random clips per batch as fit on average."""
    import torch

    files = audio_files(manifest)
    mean_s = sum(seconds for _, seconds in files) / len(files)
    loader = torch.utils.data.DataLoader(
        Files([path for path, _ in files]),
        batch_size=max(1, round(max_duration_s / mean_s)),
        shuffle=True,
        collate_fn=pad,
        num_workers=workers,
        persistent_workers=workers > 0,
    )
    while True:
        for _, lens in loader:
            yield float(lens.sum()) / 16_000


def espnet_iterator(manifest: Path, workers: int, max_duration_s: float) -> Batches:
    """ESPnet's `SequenceIterFactory` over its `ESPnetDataset`, batches by number of samples."""
    # a script's own folder is searched first, and a benchmark beside this one is called espnet.py
    own = Path(__file__).resolve().parent
    sys.path[:] = [place for place in sys.path if Path(place).resolve() != own]
    from espnet2.iterators.sequence_iter_factory import SequenceIterFactory
    from espnet2.samplers.build_batch_sampler import build_batch_sampler
    from espnet2.train.collate_fn import CommonCollateFn
    from espnet2.train.dataset import ESPnetDataset

    folder = Path(tempfile.mkdtemp(prefix="espnet-"))
    files = audio_files(manifest)
    names = [f"u{number:07d}" for number in range(len(files))]
    scp, shape = folder / "wav.scp", folder / "speech_shape"
    scp.write_text("".join(f"{name} {path}\n" for name, (path, _) in zip(names, files, strict=True)))
    lengths = (f"{name} {round(s * 16_000)}\n" for name, (_, s) in zip(names, files, strict=True))
    shape.write_text("".join(lengths))
    sampler = build_batch_sampler(
        type="numel", batch_size=1, batch_bins=round(max_duration_s * 16_000), shape_files=[str(shape)]
    )
    factory = SequenceIterFactory(
        ESPnetDataset([(str(scp), "speech", "sound")]), sampler, shuffle=True, num_workers=workers,
        collate_fn=CommonCollateFn(),
    )  # fmt: skip
    epoch = 0
    while True:
        epoch += 1
        for _, batch in factory.build_iter(epoch):
            yield float(batch["speech_lengths"].sum()) / 16_000


def audio_files(manifest: Path) -> list[tuple[str, float]]:
    """(path, seconds) of every cut."""
    from sslbench.data.manifests import read_rows

    return [(row["recording"]["sources"][0]["source"], row["duration"]) for row in read_rows(manifest)]


# --- measuring


def compare(manifest: Path, scratch: Path, args: argparse.Namespace) -> list[dict[str, Any]]:
    """Medians over the rounds, every reader in turn within each."""
    import torch

    torch.set_num_threads(1)
    total_s = sum(seconds for _, seconds in audio_files(manifest))
    run("data", "shar", manifest, "--out", scratch / "shar" / "train", "--jobs", "1")
    readers: dict[str, Callable[[int, float], Batches]] = {
        REFERENCE: lambda workers, size: torch_dataloader(manifest, workers, size),
        "espnet": lambda workers, size: espnet_iterator(manifest, workers, size),
        "sslbench": lambda workers, size: ours(manifest, workers, size),
        "sslbench_shar": lambda workers, size: ours(scratch / "shar" / "train", workers, size),
    }
    cells: dict[tuple[int, str], list[float]] = {}
    for number in range(args.rounds + 1):  # the first warms the file cache up
        for workers in args.workers:
            for name, make in readers.items():
                rate = turn(make(workers, args.max_duration_s), total_s, args.min_turn_s)
                if number:
                    cells.setdefault((workers, name), []).append(rate)
        print(f"  round {number} of {args.rounds} done", file=sys.stderr, flush=True)
    return [summary(workers, name, rates, cells) for (workers, name), rates in cells.items()]


def turn(batches: Batches, total_s: float, min_turn_s: float) -> float:
    """Audio-hours per second over whole passes, from the first batch on."""
    next(batches)
    began, audio_s, wall_s = time.perf_counter(), 0.0, 0.0
    while audio_s < total_s or wall_s < min_turn_s:
        audio_s += next(batches)
        wall_s = time.perf_counter() - began
    return audio_s / 3600 / wall_s


def summary(
    workers: int, name: str, rates: list[float], cells: dict[tuple[int, str], list[float]]
) -> dict[str, Any]:
    """Median, spread and the ratio to the reference within the same rounds."""
    ratios = [own / other for own, other in zip(rates, cells[workers, REFERENCE], strict=True)]
    return {
        "workers": workers,
        "reader": name,
        "audio_hours_per_s": round(statistics.median(rates), 4),
        "min": round(min(rates), 4),
        "max": round(max(rates), 4),
        "ratio": round(statistics.median(ratios), 3),
    }


# --- waiting for data in training

TINY = ("zipformer_tiny", "hubert_k2ssl_tiny")
STEPS, LOG_EVERY = 120, 20


def train(manifest: Path, scratch: Path, upstream: str) -> dict[str, Any]:
    """Train a tiny model and read the shares that the trainer logged, the first line (start-up) apart."""
    units = scratch / "units"
    labelled = units / "train.jsonl.gz"
    if not labelled.is_file():
        run("units", "fit", "--manifest", manifest, "--feature", "mfcc", "--clusters", 50, "--out", units)
        run("units", "apply", "--units", units, "--manifest", manifest, "--out", labelled)
    exp = scratch / upstream
    settings = {
        "upstream": upstream, "train_manifest": str(labelled), "exp_dir": str(exp), "max_steps": STEPS,
        "max_duration_s": 40.0, "log_every": LOG_EVERY, "model": {"num_units": 50}, "tensorboard": False,
        "num_workers": 1,
    }  # fmt: skip
    config = scratch / f"{upstream}.yaml"
    config.write_text(json.dumps(settings))
    run("pretrain", "--config", config)
    rows = [json.loads(line) for line in (exp / "log.jsonl").read_text().splitlines()]
    rows = [row for row in rows if "data_wait_share" in row][1:]
    return {
        "upstream": upstream,
        "data_wait_share": statistics.median(row["data_wait_share"] for row in rows),
        "worst": max(row["data_wait_share"] for row in rows),
        "step_s": statistics.median(row["step_s"] for row in rows),
    }


def print_throughput(rows: list[dict[str, Any]]) -> None:
    """Markdown."""
    print(f"| workers | reader | audio-hours per second | min to max | ratio to {REFERENCE} |")
    print("|---:|---|---:|---:|---:|")
    for row in rows:
        spread = f"{row['min']} to {row['max']}"
        print(
            f"| {row['workers']} | {row['reader']} | {row['audio_hours_per_s']} | {spread} | {row['ratio']} |"
        )


def print_training(rows: list[dict[str, Any]]) -> None:
    """Markdown."""
    print("\n| model | data-wait share | worst line | step, s |")
    print("|---|---:|---:|---:|")
    for row in rows:
        print(
            f"| {row['upstream']} | {row['data_wait_share']:.2%} | {row['worst']:.2%} | {row['step_s']:.3f} |"
        )


if __name__ == "__main__":
    main()

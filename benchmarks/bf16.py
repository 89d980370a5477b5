"""Does bf16 train as fp32 does? Tiny models, several fp32 seeds and bf16, the same data in the same order.

Prints per model the loss per masked frame over the last tenth of the run, for every seed in fp32 and for the
first seed in bf16. Exit status 0: bf16 lies within the spread of the fp32 seeds for every model; 1: outside
for one. A run that is one more draw of the same kind lies outside n seeds with chance 2/(n + 1).
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from sslbench import io
from sslbench.nn.upstream import PretrainBatch, SSLModel
from sslbench.optim import ScaledAdam
from sslbench.upstreams import build_model

SAMPLES = 32_000
UNITS = 20


def batch(step: int, clips: int) -> PretrainBatch:
    """Clips of tones whose pitch is their unit: something that a small model can learn in 200 steps."""
    generator = torch.Generator().manual_seed(step)
    frames = SAMPLES // 320
    segments = torch.randint(UNITS, (clips, frames // 10), generator=generator)
    labels = segments.repeat_interleave(10, dim=1)  # (B, F)
    pitch_hz = 150.0 * 1.12 ** labels.repeat_interleave(320, dim=1)  # (B, T)
    audio = 0.3 * (2 * torch.pi * pitch_hz / 16_000).cumsum(1).sin()
    audio = audio + 0.02 * torch.randn(audio.shape, generator=generator)
    lens = torch.full((clips,), SAMPLES)
    return PretrainBatch(audio, lens, labels, [str(row) for row in range(clips)])


def train(name: str, seed: int, bf16: bool, steps: int, clips: int) -> list[float]:
    """Losses per masked frame of one run."""
    torch.manual_seed(seed)
    model: SSLModel = build_model(name, {"num_units": UNITS, "mask_seed": seed}).train()
    optimizer: Any = ScaledAdam(model.named_parameters(), lr=0.02)
    losses = []
    for step in range(steps):
        model.set_batch_count(step)
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            output = model(batch(step, clips))
        loss = output.loss_sum / output.frames.clamp(min=1)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    return losses


def verdict(name: str, run: Callable[[int, bool], list[float]], seeds: int) -> dict[str, Any]:
    """One model's row."""
    fp32 = [run(seed, False) for seed in range(seeds)]
    bf16 = run(0, True)
    tail = max(1, len(bf16) // 10)
    ends, end = [statistics.fmean(losses[-tail:]) for losses in fp32], statistics.fmean(bf16[-tail:])
    return {
        "model": name,
        "start": fp32[0][0],
        "fp32": ends,
        "bf16": end,
        "within": min(ends) <= end <= max(ends),
        "losses": {"fp32": fp32, "bf16": bf16},
    }


def main() -> int:
    """Run, print one line per model, and write the curves."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="examples:\n  python benchmarks/bf16.py\n  python benchmarks/bf16.py --steps 20 --seeds 3",
    )
    parser.add_argument("--models", nargs="+", default=["zipformer_tiny", "hubert_k2ssl_tiny"])
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--seeds", type=int, default=5, help="fp32 runs that make the spread (at least 2)")
    parser.add_argument("--clips", type=int, default=4, help="of two seconds, per step")
    parser.add_argument("--out", default="build/bench-bf16/bf16.json")
    options = parser.parse_args()
    if options.seeds < 2:
        parser.error("--seeds: one run has no spread; give at least 2")
    rows = []
    for name in options.models:
        row = verdict(
            name, lambda seed, bf16, n=name: train(n, seed, bf16, options.steps, options.clips), options.seeds
        )
        rows.append(row)
        ends = " ".join(f"{end:.3f}" for end in row["fp32"])
        side = "within" if row["within"] else "outside"
        print(
            f"{name}: start {row['start']:.3f}; fp32 seeds end at {ends}; bf16 at {row['bf16']:.3f}, "
            f"{side} their spread",
            flush=True,
        )
    out = Path(options.out)
    out.parent.mkdir(parents=True, exist_ok=True)
    io.write_json(out, rows)
    print(f"wrote {out}", file=sys.stderr)
    return 0 if all(row["within"] for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())

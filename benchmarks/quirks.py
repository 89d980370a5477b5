"""What the published models' behaviours change, in numbers, on random weights and noise.

Each row switches one behaviour of k2SSL's or fairseq's code on (`compat: k2ssl`, or only a part of it) and
says how far the model's output moves, beside our default. The families' READMEs say which are kept.
"""

from __future__ import annotations

import argparse
import copy
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import torch

from sslbench.nn.frontend import length_mask
from sslbench.nn.masking import span_mask
from sslbench.nn.objective import feature_penalty
from sslbench.upstreams import build_model

EXAMPLES = """examples:
  python benchmarks/quirks.py                              Base sizes (about two minutes)
  python benchmarks/quirks.py zipformer_tiny hubert_k2ssl_tiny
"""
CLIP, PADDED = 32_000, 64_000
DRAWS = 5
Row = tuple[str, str, str]


def main() -> None:
    """Print one table per preset."""
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("presets", nargs="*", default=["zipformer_base", "hubert_k2ssl_base"])
    for preset in parser.parse_args().presets:
        print(f"\n| {preset} | published | here |\n|---|---|---|")
        for row in measure(preset):
            print(f"| {' | '.join(row)} |", flush=True)


@torch.no_grad()
def measure(preset: str) -> Iterator[Row]:
    """Rows of (behaviour, published, here)."""
    torch.manual_seed(0)
    ours: Any = build_model(preset).eval()
    theirs = copy.deepcopy(ours)
    theirs.compat = theirs.feature_extractor.leak_padding = True
    zipformer = hasattr(ours.config, "downsampling")
    wav = 0.1 * torch.randn(1, CLIP)

    norm_only, encoder_only = copy.deepcopy(ours), copy.deepcopy(theirs)
    norm_only.feature_extractor.leak_padding = True
    encoder_only.feature_extractor.leak_padding = False
    padding = "2 s clip padded to 4 s, relative rms change of the output"
    yield f"{padding}: all leaks", _moved(theirs, wav), _moved(ours, wav)
    yield f"{padding}: GroupNorm alone", _moved(norm_only, wav), _moved(ours, wav)
    if zipformer:
        yield f"{padding}: encoder alone", _moved(encoder_only, wav), _moved(ours, wav)

    batch = torch.nn.functional.pad(wav, (0, PADDED - CLIP))
    lens = torch.tensor([CLIP])
    (features, more), (_, fewer) = theirs.features(batch, lens), ours.features(batch, lens)
    yield "valid frames of that clip", str(int(more)), str(int(fewer))
    valid = length_mask(fewer, features.shape[1])
    features, _ = ours.features(batch, lens)
    leaky, exact = float(feature_penalty(features)), float(feature_penalty(features, valid))
    yield "its feature penalty, relative to the clip's own", f"{leaky / exact:.3f}", "1.000"
    yield from _masks(ours)
    if zipformer:
        yield from _widths(ours, wav)
        yield (
            "attention without 1/√d: relative rms change if it is put in",
            _with_root_d(ours, wav),
            "kept",
        )


def _output(model: Any, audio: torch.Tensor, samples: int) -> torch.Tensor:
    states: torch.Tensor = model.encode(*model.features(audio, torch.tensor([samples])))[-1][0]
    return states


def _moved(model: Any, wav: torch.Tensor) -> str:
    alone = _output(model, wav, wav.shape[1])
    padded = _output(model, torch.nn.functional.pad(wav, (0, PADDED - CLIP)), CLIP)
    return _relative(padded[: len(alone)], alone)


def _relative(changed: torch.Tensor, reference: torch.Tensor) -> str:
    return f"{float((changed - reference).square().mean().sqrt() / reference.square().mean().sqrt()):.2g}"


def _masks(model: Any) -> Iterator[Row]:
    """How much the loss of one and the same batch depends on whether masks are seeded."""
    audio = 0.1 * torch.randn(2, CLIP)
    lens = torch.tensor([CLIP, CLIP])
    features, frame_lens = model.features(audio, lens)
    labels = torch.randint(0, model.config.num_units, (2, features.shape[1]))
    losses = []
    for seed in (*range(DRAWS), 0):
        generator = torch.Generator().manual_seed(seed)
        mask = span_mask(frame_lens, features.shape[1], 0.8, 10, generator)
        output = model.masked_loss(features, frame_lens, labels, mask)
        losses.append(float(output.loss_sum / output.frames))
    spread = torch.tensor(losses[:DRAWS]).std() / losses[0]
    again = abs(losses[-1] - losses[0]) / losses[0]
    yield (
        "masks unseeded: relative deviation of one batch's loss between runs",
        f"{float(spread):.1%}",
        f"{again:.1%}",
    )
    masked = [
        int(span_mask(torch.tensor([n]), n, 0.8, 10, torch.Generator().manual_seed(0)).sum())
        for n in (2, 5, 12)
    ]
    yield "masked frames of clips of 2, 5 and 12 frames", "may raise", ", ".join(map(str, masked))


def _widths(model: Any, wav: torch.Tensor) -> Iterator[Row]:
    dims = model.config.dims
    stacks = model.encode(*model.features(wav, torch.tensor([CLIP])))[1:-1]
    for number, (dim, after) in enumerate(pairwise(dims), 1):
        if after < dim:
            energy = stacks[number - 1].square().mean((0, 1))  # (dim,)
            share = float(energy[after:].sum() / energy.sum())
            what = (
                f"stack {number} to {number + 1}: {dim - after} of {dim} channels end here, share of energy"
            )
            yield what, f"{share:.1g}", "kept"


def _with_root_d(model: Any, wav: torch.Tensor) -> str:
    divided = copy.deepcopy(model)
    query_dim = model.config.query_head_dim
    for module in divided.modules():
        if hasattr(module, "query_dim"):
            width = module.query_dim * module.heads
            module.in_proj.weight[:width] /= query_dim**0.5
            module.in_proj.bias[:width] /= query_dim**0.5
    return _relative(_output(divided, wav, CLIP), _output(model, wav, CLIP))


if __name__ == "__main__":
    main()

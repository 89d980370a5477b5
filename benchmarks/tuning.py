"""What each way of tuning one upstream gives and costs: WER, trainable parameters, step time, memory.

Every way starts from the same weights and the same seed and makes as many updates, in a process of its own,
so that its peak memory is its own. Memory is told twice: the process's peak, and the bytes that one update
keeps for its backward pass, which do not depend on the machine. Read the result with docs/benchmarks/peft.md.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import warnings
from dataclasses import replace
from typing import Any

from asr_options import manifest, options

EXAMPLES = """examples:
  make bench-peft                                     the embedded corpus and a HuBERT pretrained on it
  python benchmarks/tuning.py --upstream zipformer_tiny --ckpt exp/upstream --data data/mini --out /tmp/p
  python benchmarks/tuning.py --data data/mini --out /tmp/p --ways lora full --steps 50
"""
WAYS = {
    "frozen": "weighted sum",
    "ladder": "ladder side-tuning",
    "lora": "LoRA",
    "adalora": "AdaLoRA",
    "houlsby": "Houlsby adapters",
    "conv_adapter": "convolution adapters",
    "full": "full fine-tuning",
}


def main() -> None:
    """Train, decode and score by every way; print and write the table."""
    parser = options(__doc__, EXAMPLES, upstream="hubert_k2ssl_tiny")
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS))
    parser.add_argument("--steps", type=int, default=700)
    parser.add_argument("--max_duration_s", type=float, default=5.0)
    parser.add_argument("--saved", metavar="WAY", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.saved:
        print(json.dumps(sizes(args, args.saved)))
        return
    args.out.mkdir(parents=True, exist_ok=True)
    facts = {"upstream": args.upstream, "ckpt": args.ckpt, "steps": args.steps, "rows": []}
    for way in args.ways:
        facts["rows"].append(measure(args, way))
        (args.out / "peft.json").write_text(json.dumps(facts, indent=2) + "\n")
    print(table(facts["rows"]))


def settings(args: argparse.Namespace, way: str) -> dict[str, Any]:
    """The settings of one way; all but `tune` and `exp_dir` are common."""
    values = {
        "upstream": args.upstream,
        "train_manifest": manifest(args, "train"),
        "dev_manifest": manifest(args, "dev"),
        "exp_dir": str(args.out / way),
        "tune": way,
        "steps": args.steps,
        "eval_every_steps": args.steps,
        "max_duration_s": args.max_duration_s,
        "upstream_lr": 5e-4,
    }
    return {**values, "ckpt": args.ckpt} if args.ckpt else values


def measure(args: argparse.Namespace, way: str) -> dict[str, Any]:
    """Train, test and account for one way."""
    given = {
        **settings(args, way),
        "test_manifest": manifest(args, "test"),
        "system": f"peft-{way}",
        "results": args.out / "results",
        "tier": "smoke",
    }
    flags = [word for key, value in given.items() for word in (f"--{key}", str(value))]
    run([sys.executable, "-m", "sslbench", "finetune", *flags])
    stored = json.loads((args.out / "results" / f"peft-{way}" / "asr.json").read_text())
    done = json.loads((args.out / way / "DONE").read_text())
    again = [sys.executable, __file__, *sys.argv[1:], "--saved", way]
    counted = json.loads(run(again).splitlines()[-1])
    wer = stored["metrics"]["wer"]
    return {
        "way": way,
        "wer": wer["value"],
        "low": wer["low"],
        "high": wer["high"],
        "params_trainable": done["params_trainable"],
        "step_s": done["step_s"],
        "peak_mem_bytes": done["peak_mem_bytes"],
        **counted,
    }


def run(command: list[str]) -> str:
    """The output of a command whose failure ends the benchmark."""
    found = subprocess.run(command, check=False, stdout=subprocess.PIPE, text=True)
    if found.returncode:
        sys.exit(f"bench-peft: {' '.join(command)} failed")
    return found.stdout


def sizes(args: argparse.Namespace, way: str) -> dict[str, int]:
    """Parameters of the head and the weighted sum alone, and what `saved_bytes` counts."""
    warnings.simplefilter("ignore")
    from sslbench import config as configs
    from sslbench.finetune.config import FinetuneConfig, resolve
    from sslbench.finetune.experiment import build_recognizer, load_experiment

    vocab = load_experiment(args.out / way).vocab
    config = resolve(configs.build(FinetuneConfig, settings(args, way), where="bench-peft"))
    plain = build_recognizer(replace(config, tune="frozen"), vocab)
    return {
        "params_head": sum(p.numel() for p in plain.parameters() if p.requires_grad),
        "saved_bytes": saved_bytes(build_recognizer(config, vocab)),
    }


def saved_bytes(model: Any) -> int:
    """Bytes that autograd keeps for the backward pass of 10 seconds of audio, each tensor counted once."""
    import torch

    model.train()
    if model.upstream is not None:
        model.upstream.requires_grad_(True).train()
    kept: dict[int, int] = {}
    weights = {
        p.untyped_storage().data_ptr() for p in [*model.parameters(), *model.any_upstream.parameters()]
    }

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    audio = 0.1 * torch.randn(4, 40_000, generator=torch.Generator().manual_seed(0))
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        states = model.states(audio, torch.full((4,), 40_000))
        loss = model.loss(*states, [[2, 3, 4, 5, 6]] * 4).loss_sum
        total = sum(kept.values())
    loss.backward()
    return total


def table(rows: list[dict[str, Any]]) -> str:
    """The rows as Markdown."""
    lines = [
        "| way | WER % | added or tuned parameters | step s | kept for backward, MB | peak memory, MB |",
        "|---|---|---|---|---|---|",
    ]
    for row in rows:
        interval = f"{row['wer']:.1f} [{row['low']:.1f}, {row['high']:.1f}]"
        added = row["params_trainable"] - row["params_head"]
        lines.append(
            f"| {WAYS[row['way']]} | {interval} | {added:,} | {row['step_s']:.3f} "
            f"| {row['saved_bytes'] / 1e6:.1f} | {row['peak_mem_bytes'] / 1e6:.0f} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()

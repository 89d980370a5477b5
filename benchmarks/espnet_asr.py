"""What ESPnet's ASR costs beside ours: training per hour of audio, and greedy CTC decoding of the same audio.

Training: both take the same frozen upstream, head size, whole passes, and batches as many per pass: ESPnet
closes a batch when it exceeds `batch_bins`, ours before, so ours is given the length that makes as many. Each
is a process of its own, by turns. ESPnet computes the upstream's features anew in every pass; ours keeps them
on disk. The time is that of the whole process, imports included; ESPnet's collect_stats stage is told apart.

Decoding of the test split: ESPnet's `Speech2Text` (what asr_inference calls, utterance by utterance; beam 1,
CTC only) and a batched greedy search on the very same weights, by turns in one process, imports and loading
left out; then `sslbench decode` on our recognizer of the same size. Rounds are medians. Last, each of our
searches on a joint CTC and transducer recognizer that has learned enough to emit symbols.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import re
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from asr_options import manifest, options

EXAMPLES = """examples:
  make bench-espnet                                   the embedded corpus, minutes on two cores
  python benchmarks/espnet_asr.py --data data/mini --out /tmp/e --upstream hubert_k2ssl_tiny --rounds 3
"""
CONFIG = Path(__file__).with_name("espnet_blstm.yaml")
BLSTM_DIM, BLSTM_LAYERS = 128, 2  # as in CONFIG
WORSE_WER = 1.0
"""Points by which our WER may exceed ESPnet's on the same weights before no ratio is given."""


def main() -> None:
    """Train, decode, print and write the table."""
    parser = options(__doc__, EXAMPLES, upstream="zipformer_tiny")
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--utterances", type=int, help="decoded per round (default: the whole test split)")
    parser.add_argument("--joint_steps", type=int, default=750, help="updates of the joint recognizer")
    parser.add_argument("--batch", type=int, default=20, help="clips that our greedy search takes at once")
    parser.add_argument("--threads", type=int, help="of torch, everywhere (default: torch's own)")
    args = parser.parse_args()
    if args.threads:
        os.environ["OMP_NUM_THREADS"] = str(args.threads)  # of the processes that it starts
    if (args.out / "espnet0").exists():
        sys.exit(f"bench-espnet: {args.out} holds another run, whose times would be mixed; remove it")
    train_s = audio_s(manifest(args, "train"))
    hours = args.epochs * train_s / 3600
    trained = [(espnet_training(args, i), our_training(args, i)) for i in range(args.rounds)]
    theirs = espnet_batches(args.out / "espnet0")
    batch_s, ours = our_batches(args, theirs)
    facts = {
        "espnet_batches_per_pass": theirs,
        "our_batches_per_pass": sum(ours) / args.epochs,
        "our_max_duration_s": batch_s,
        "upstream": args.upstream,
        "audio_hours_per_training": hours,
        "espnet_train_s_per_h": median(e["train"] for e, _ in trained) / hours,
        "espnet_collect_stats_s": median(e["collect_stats"] for e, _ in trained),
        "our_train_s_per_h": median(o for _, o in trained) / hours,
        **decoding(args),
        "searches_audio_s_per_s": searches(args),
    }
    facts["train_ratio"] = facts["espnet_train_s_per_h"] / facts["our_train_s_per_h"]
    (args.out / "espnet.json").write_text(json.dumps(facts, indent=2) + "\n")
    print(table(facts))


def median(values: Any) -> float:
    """Of an iterable of seconds."""
    return statistics.median(list(values))


def audio_s(path: str) -> float:
    """Seconds of audio of a manifest."""
    from sslbench.data.manifests import open_manifest

    return sum(cut.duration for cut in open_manifest(path))


def run(*words: str) -> float:
    """Wall seconds of an sslbench command, whose failure ends the benchmark."""
    began = time.perf_counter()
    if subprocess.run([sys.executable, "-m", "sslbench", *words], stdout=subprocess.DEVNULL).returncode:
        sys.exit(f"bench-espnet: sslbench {' '.join(words)} failed")
    return time.perf_counter() - began


def common(args: argparse.Namespace) -> list[str]:
    """The upstream's flags."""
    return ["--upstream", args.upstream, *(["--ckpt", args.ckpt] if args.ckpt else [])]


def espnet_training(args: argparse.Namespace, number: int) -> dict[str, float]:
    """Seconds of ESPnet's stages."""
    from sslbench.integrations.espnet.asr import stage_seconds

    out = args.out / f"espnet{number}"
    splits = [f"--{s}={manifest(args, s)}" for s in ("train", "dev", "test")]
    run(
        "espnet", "asr", *common(args), *splits, "--out", str(out), "--config", str(CONFIG),
        "--system", "bench", "--results", str(args.out / "results"), "--epochs", str(args.epochs),
        "--stop_after", "train",
    )  # fmt: skip
    return stage_seconds(out)


def espnet_batches(out: Path) -> int:
    """Batches of one of ESPnet's passes, from its log."""
    found = re.search(r"\[train\] Batch sampler: .*N-batch=(\d+)", (out / "train.log").read_text())
    if found is None:
        sys.exit(f"bench-espnet: {out / 'train.log'} does not say how many batches a pass has")
    return int(found[1])


def our_batches(args: argparse.Namespace, wanted: int) -> tuple[float, list[int]]:
    """The shortest batch with which our passes have at most `wanted` batches on average, and each one's."""
    from sslbench.data.manifests import open_manifest
    from sslbench.data.sampling import BatchPlan, SamplingSettings

    cuts = open_manifest(manifest(args, "train"))
    for seconds in range(2, 1000):
        plan = BatchPlan(cuts, SamplingSettings(seconds, shuffle=True))
        counts = [sum(1 for _ in plan.epoch(epoch)) for epoch in range(args.epochs)]
        if sum(counts) <= wanted * args.epochs:
            return float(seconds), counts
    sys.exit(f"bench-espnet: no batch is long enough for {wanted} of them per pass")


def our_training(args: argparse.Namespace, number: int) -> float:
    """Seconds of as many passes by `sslbench finetune`."""
    batch_s, counts = our_batches(args, espnet_batches(args.out / "espnet0"))
    return run(
        "finetune", *common(args), "--exp_dir", str(args.out / f"ours{number}"), "--steps", str(sum(counts)),
        "--train_manifest", manifest(args, "train"), "--max_duration_s", str(batch_s),
        "--dev_manifest", manifest(args, "dev"),
        "--eval_every_steps", str(sum(counts) // args.epochs),
        "--blstm_dim", str(BLSTM_DIM), "--blstm_layers", str(BLSTM_LAYERS), "--head_stride", "320",
    )  # fmt: skip


def decoding(args: argparse.Namespace) -> dict[str, float]:
    """Seconds of audio per second by each decoder."""
    import torch

    import sslbench

    if args.threads:
        torch.set_num_threads(args.threads)
    sslbench.register()
    from espnet2.bin.asr_inference import Speech2Text

    from sslbench.data.loading import read_cut
    from sslbench.data.manifests import open_manifest, write_manifest

    decoded = args.out / "decoded.jsonl.gz"
    cuts = list(itertools.islice(open_manifest(manifest(args, "test")), args.utterances))
    write_manifest(cuts, decoded)
    seconds = sum(cut.duration for cut in cuts)
    folder = args.out / "espnet0" / "model"
    decoder = Speech2Text(
        asr_train_config=str(folder / "config.yaml"), asr_model_file=str(folder / "valid.loss.best.pth"),
        beam_size=1, ctc_weight=1.0, lm_weight=0.0, maxlenratio=0.5,
    )  # fmt: skip
    clips = [read_cut(cut) for cut in cuts]
    theirs, ours = [], []
    for _ in range(args.rounds):
        began = time.perf_counter()
        said = [decoder(clip.numpy())[0][0] for clip in clips]
        theirs.append(time.perf_counter() - began)
        began = time.perf_counter()
        found = greedy(decoder, clips, args.batch)
        ours.append(time.perf_counter() - began)
    spoken = [cut.supervisions[0].text for cut in cuts]
    return {
        "decoded_audio_s": seconds,
        "threads": torch.get_num_threads(),
        "batch": args.batch,
        "espnet_audio_s_per_s": seconds / median(theirs),
        "greedy_same_weights_audio_s_per_s": seconds / median(ours),
        "decode_ratio_same_weights": median(theirs) / median(ours),
        "sslbench_decode_audio_s_per_s": decode_speed(args.out / "ours0", decoded),
        "same_texts": sum(a == b for a, b in zip(said, found, strict=True)),
        "utterances": len(clips),
        "espnet_wer": wer(spoken, said),
        "greedy_wer": wer(spoken, found),
    }


def wer(spoken: list[str], found: list[str]) -> float:
    """Word errors, %."""
    from sslbench.finetune.counts import count_edits

    pairs = zip(spoken, found, strict=True)
    return (
        100 * sum(count_edits(a.split(), b.split()).errors for a, b in pairs) / len(" ".join(spoken).split())
    )


def decode_speed(recognizer: Path, manifest: Path | str, *words: str) -> float:
    """Seconds of audio per second by `sslbench decode`: reading, features, head and search."""
    from sslbench.finetune.decode import meta_path

    hypotheses = recognizer / "bench.jsonl"
    run("decode", str(recognizer), "--manifest", str(manifest), "--out", str(hypotheses), *words)
    return 1 / json.loads(meta_path(hypotheses).read_text())["rtf"]


def searches(args: argparse.Namespace) -> dict[str, float]:
    """Seconds of audio per second by each search of a joint recognizer, over the whole test split."""
    folder = args.out / "joint"
    run(
        "finetune", *common(args), "--exp_dir", str(folder), "--objective", "joint",
        "--train_manifest", manifest(args, "train"), "--dev_manifest", manifest(args, "dev"),
        "--steps", str(args.joint_steps), "--eval_every_steps", str(args.joint_steps),
        "--max_duration_s", "10",
    )  # fmt: skip
    return {
        f"{by}, {'greedy' if beam == 1 else f'beam {beam}'}": decode_speed(
            folder, manifest(args, "test"), "--by", by, "--beam", str(beam)
        )
        for by in ("ctc", "transducer")
        for beam in (1, 4)
    }


def greedy(decoder: Any, clips: list[Any], size: int) -> list[str]:
    """Batched greedy CTC on the weights of an ESPnet recognizer."""
    import torch
    from torch.nn.utils.rnn import pad_sequence

    texts = {}
    longest_first = sorted(range(len(clips)), key=lambda number: -len(clips[number]))  # ESPnet asks for it
    with torch.no_grad():
        for start in range(0, len(clips), size):
            chosen = longest_first[start : start + size]
            batch = [clips[number] for number in chosen]
            lens = torch.tensor([len(clip) for clip in batch])
            states, frames = decoder.asr_model.encode(pad_sequence(batch, batch_first=True), lens)
            best = decoder.asr_model.ctc.argmax(states)
            for number, row, count in zip(chosen, best, frames, strict=True):
                classes = [int(c) for c in torch.unique_consecutive(row[:count]) if c != 0]
                texts[number] = decoder.tokenizer.tokens2text(decoder.converter.ids2tokens(classes))
    return [texts[number] for number in range(len(clips))]


def decode_ratio(facts: dict[str, Any], ratio: float) -> str:
    """How much faster, where speed is not bought with errors: ESPnet's beam of 1 is no best-path search."""
    if facts["greedy_wer"] > facts["espnet_wer"] + WORSE_WER:
        return "none: more errors"
    return f"{ratio:.1f}"


def table(facts: dict[str, Any]) -> str:
    """The figures as Markdown."""
    end_to_end: float = facts["sslbench_decode_audio_s_per_s"] / facts["espnet_audio_s_per_s"]
    return "\n".join(
        [
            "| | ESPnet | sslbench | ratio |",
            "|---|---|---|---|",
            f"| training, s per hour of audio | {facts['espnet_train_s_per_h']:.0f} "
            f"| {facts['our_train_s_per_h']:.0f} | {facts['train_ratio']:.2f} |",
            f"| greedy CTC on the same weights, s of audio per s | {facts['espnet_audio_s_per_s']:.1f} "
            f"| {facts['greedy_same_weights_audio_s_per_s']:.1f} "
            f"| {decode_ratio(facts, facts['decode_ratio_same_weights'])} |",
            f"| sslbench decode, s of audio per s | {facts['espnet_audio_s_per_s']:.1f} "
            f"| {facts['sslbench_decode_audio_s_per_s']:.1f} | {decode_ratio(facts, end_to_end)} |",
            "",
            "| search of a joint recognizer | s of audio per s |",
            "|---|---|",
            *(f"| {name} | {speed:.1f} |" for name, speed in facts["searches_audio_s_per_s"].items()),
            "",
            f"Training: {facts['espnet_batches_per_pass']} and {facts['our_batches_per_pass']:.0f} batches "
            f"per pass. Decoding on {facts['threads']} threads, ours {facts['batch']} clips at once. "
            f"ESPnet also takes {facts['espnet_collect_stats_s']:.0f} s for collect_stats. "
            f"On the same weights ESPnet's WER is {facts['espnet_wer']:.1f} %, ours "
            f"{facts['greedy_wer']:.1f} %; "
            f"{facts['same_texts']} of {facts['utterances']} texts are the same.",
        ]
    )


if __name__ == "__main__":
    main()

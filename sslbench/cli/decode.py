"""`sslbench decode`: transcribe a manifest with a trained recognizer."""

from __future__ import annotations

import argparse

EXAMPLES = """examples:
  sslbench decode exp/asr --manifest data/test-clean.jsonl.gz --out exp/asr/hyp/test-clean.jsonl
"""


def main(argv: list[str]) -> None:
    """Transcribe one manifest."""
    parser = argparse.ArgumentParser(
        prog="sslbench decode",
        description="Batched greedy CTC decoding with the weights of the best dev WER; measures its speed.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("experiment", help="exp_dir of 'sslbench finetune'")
    parser.add_argument(
        "--manifest", required=True, help="cuts to transcribe; their transcripts are not used"
    )
    parser.add_argument(
        "--out", required=True, help="JSON lines of id and text; HYP.meta.json comes beside it"
    )
    parser.add_argument("--max_duration_s", type=float, help="audio per batch (default: as in training)")
    parser.add_argument("--device", help="cpu, cuda or auto (default: as in training)")
    args = parser.parse_args(argv)

    from sslbench.finetune.decode import decode
    from sslbench.finetune.experiment import load_experiment

    done = decode(load_experiment(args.experiment, args.device), args.manifest, args.out, args.max_duration_s)
    print(f"{done.utterances} transcripts in {done.path}; {done.skipped} clips could not be read")
    print(f"real-time factor {done.rtf:.4f} ({done.audio_s / done.wall_s:.0f} seconds of audio per second)")

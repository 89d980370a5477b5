"""`sslbench decode`: transcribe a manifest with a trained recognizer."""

from __future__ import annotations

import argparse

from sslbench.cli._parser import Parser

EXAMPLES = """examples:
  sslbench decode exp/asr --manifest data/test-clean.jsonl.gz --out exp/asr/hyp/test-clean.jsonl
  sslbench decode exp/asr --manifest data/test-clean.jsonl.gz --out hyp/beam.jsonl --beam 8
  sslbench lm data/train-clean-100.jsonl.gz --order 3 --out exp/3gram.arpa
  sslbench decode exp/asr --manifest data/test-clean.jsonl.gz --out hyp/lm.jsonl --lm exp/3gram.arpa

Texts appear in HYP.part as they are found; the same command again goes on where it stopped.
"""


def main(argv: list[str]) -> None:
    """Transcribe one manifest."""
    parser = Parser(
        prog="sslbench decode",
        description="Batched decoding with the weights of the best dev WER: greedy, beam search, or a word "
        "n-gram model; measures its speed.",
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
    parser.add_argument(
        "--max_duration_s", type=float, help="audio per batch (default: as in training, and at least 60)"
    )
    parser.add_argument(
        "--by", choices=("auto", "ctc", "transducer"), default="auto",
        help="whose scores (default: the transducer's where there is one)",
    )  # fmt: skip
    parser.add_argument(
        "--beam", type=int, default=1,
        help="hypotheses kept (default: 1, greedy; with --lm 50, by flashlight only). Of a transducer, beam "
        "search takes at most one symbol per frame, greedy search up to ten",
    )  # fmt: skip
    parser.add_argument("--lm", metavar="ARPA", help="word n-gram model for CTC, from 'sslbench lm' or KenLM")
    parser.add_argument(
        "--lm_weight", type=float, default=1.5, help="of its log-probabilities (default: 1.5)"
    )
    parser.add_argument(
        "--word_score", type=float, default=0.0, help="added per word, with --lm by flashlight (default: 0)"
    )
    parser.add_argument(
        "--lm_search", choices=("auto", "flashlight", "k2"), default="auto",
        help="lexicon beam search by flashlight, or an HLG graph by k2 (default: what is installed)",
    )  # fmt: skip
    parser.add_argument("--device", help="cpu, cuda or auto (default: as in training)")
    args = parser.parse_args(argv)

    from sslbench.finetune.decode import decode
    from sslbench.finetune.decoders.choose import DecodeSettings
    from sslbench.finetune.experiment import load_experiment

    settings = DecodeSettings(
        args.by, args.beam, args.lm, args.lm_weight, args.word_score, args.lm_search
    )  # fmt: skip
    experiment = load_experiment(args.experiment, args.device)
    done = decode(experiment, args.manifest, args.out, args.max_duration_s, settings)
    print(f"{done.utterances} transcripts in {done.path}; {done.skipped} clips could not be read")
    print(f"real-time factor {done.rtf:.4f} ({done.audio_s / done.wall_s:.0f} seconds of audio per second)")

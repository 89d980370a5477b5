"""`sslbench score`: error rates of hypotheses against references."""

from __future__ import annotations

import argparse

from sslbench.cli._parser import Parser
from sslbench.cli._rows import add_row_arguments, row_options

EXAMPLES = """examples:
  sslbench score data/test-clean.jsonl.gz exp/asr/hyp/test-clean.jsonl
  sslbench score ref.trn hyp.trn --normaliser words --errors errors.txt
  sslbench score data/test-clean.jsonl.gz exp/a/hyp.jsonl --against exp/b/hyp.jsonl
  sslbench score ref-phones.trn hyp-phones.trn --unit phone
  sslbench score data/test-clean.jsonl.gz exp/asr/hyp/test-clean.jsonl \\
      --system fbank --results results --tier smoke
"""


def main(argv: list[str]) -> None:
    """Score one hypothesis file."""
    parser = Parser(
        prog="sslbench score",
        description="WER and CER (or PER) with counts, 95 % intervals over speakers, breakdowns by speaker "
        "and length, and aligned errors.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "reference",
        help="manifest (.jsonl.gz or Shar folder), .jsonl with id and text, .trn, or Kaldi text; "
        "for a row, the manifest that was transcribed",
    )
    parser.add_argument("hypotheses", help="in any of the same forms")
    parser.add_argument(
        "--errors", metavar="FILE", help="breakdowns and aligned errors (default: beside HYP, as .errors.txt)"
    )
    parser.add_argument(
        "--unit", choices=("word", "phone"),
        help="phone: the reference is a manifest's phones, the score PER (default: what 'sslbench decode' "
        "transcribed in, else word)",
    )  # fmt: skip
    parser.add_argument(
        "--counts", choices=("levenshtein", "sclite"), default="levenshtein",
        help="levenshtein: equal costs, as jiwer (default); sclite: NIST's costs and ties",
    )  # fmt: skip
    parser.add_argument(
        "--against", metavar="HYP", help="another system's hypotheses: paired test of the two"
    )
    parser.add_argument(
        "--normaliser", choices=("upper", "words", "raw"),
        help="upper: NFKC, upper case (default); words: also without punctuation; raw: as written "
        "(default for phones)",
    )  # fmt: skip
    parser.add_argument("--upstream", help="checked against the one that the hypotheses were made with")
    parser.add_argument(
        "--seed", type=int, default=0, help="of the intervals' and the paired test's draws (default: 0)"
    )
    add_row_arguments(parser)
    args = parser.parse_args(argv)

    from sslbench.finetune.evaluate import ScoreOptions, score_files

    how = ScoreOptions(args.normaliser, args.unit, args.counts, args.errors, args.against, args.seed)
    row = row_options(args.system, args.results, args.tier, args.evaluation, args.upstream)
    score_files(args.reference, args.hypotheses, how, row)

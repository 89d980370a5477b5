"""`sslbench score`: error rates of hypotheses against references."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from sslbench.cli._parser import Parser

if TYPE_CHECKING:
    from sslbench.finetune.rows import RowOptions

EXAMPLES = """examples:
  sslbench score data/test-clean.jsonl.gz exp/asr/hyp/test-clean.jsonl
  sslbench score ref.trn hyp.trn --normaliser words --errors errors.txt
  sslbench score data/test-clean.jsonl.gz exp/a/hyp.jsonl --against exp/b/hyp.jsonl
  sslbench score data/test-clean.jsonl.gz exp/phones/hyp.jsonl --unit phone
  sslbench score data/test-clean.jsonl.gz exp/asr/hyp/test-clean.jsonl \\
      --system fbank --results results --tier smoke
"""


def add_row_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags that make an evaluation write its result row."""
    parser.add_argument("--system", metavar="LABEL", help="what reports call this system; needs --results")
    parser.add_argument("--results", metavar="DIR", help="write DIR/LABEL/asr.json")
    parser.add_argument(
        "--tier", choices=("smoke", "short", "full"), default="short", help="how much the row claims"
    )
    parser.add_argument(
        "--evaluation", default="asr", help="name of the row, for example asr_other (default: asr)"
    )


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
        "reference", help="manifest (.jsonl.gz), .jsonl with id and text, .trn, or Kaldi text"
    )
    parser.add_argument("hypotheses", help="in any of the same forms")
    parser.add_argument(
        "--errors", metavar="FILE", help="breakdowns and aligned errors (default: HYP.errors.txt beside HYP)"
    )
    parser.add_argument(
        "--unit", choices=("word", "phone"), default="word",
        help="phone: the reference is a manifest's phones, the score PER (default: word)",
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
    parser.add_argument("--seed", type=int, default=None, help="of the intervals (default: the run's)")
    add_row_arguments(parser)
    args = parser.parse_args(argv)

    from sslbench.finetune.evaluate import ScoreOptions, score_files

    how = ScoreOptions(args.normaliser, args.unit, args.counts, args.errors, args.against)
    row = row_options(args.system, args.results, args.tier, args.evaluation, args.upstream, args.seed)
    score_files(args.reference, args.hypotheses, how, row)


def row_options(
    system: str | None,
    results: str | None,
    tier: str,
    evaluation: str,
    upstream: str | None = None,
    seed: int | None = None,
) -> RowOptions | None:
    """The row's options; None when no row is wanted. Raises `SslbenchError` when only half is given."""
    from sslbench.errors import SslbenchError
    from sslbench.finetune.rows import RowOptions

    if bool(system) != bool(results):
        raise SslbenchError("a row needs both --system LABEL and --results DIR")
    return RowOptions(system, results, tier, upstream, evaluation, seed) if system and results else None

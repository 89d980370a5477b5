"""`sslbench lm`: a word n-gram model from transcripts."""

from __future__ import annotations

import argparse

from sslbench.cli._parser import Parser

EXAMPLES = """examples:
  sslbench lm data/train-clean-100.jsonl.gz --order 3 --out exp/3gram.arpa
  sslbench lm librispeech-lm-norm.txt --order 2 --out exp/2gram.arpa

For text beyond some million words, KenLM's lmplz is faster and makes the same kind of file.
"""


def main(argv: list[str]) -> None:
    """Estimate one model."""
    parser = Parser(
        prog="sslbench lm",
        description="Interpolated Kneser-Ney n-grams of transcripts or text, as an ARPA file for "
        "'sslbench decode --lm'.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "text", nargs="+", help="manifests or other transcripts, or .txt: one utterance per line"
    )
    parser.add_argument("--order", type=int, default=3, help="longest n-gram (default: 3)")
    parser.add_argument("--out", required=True, help="the ARPA file")
    parser.add_argument(
        "--normaliser", choices=("upper", "words", "raw"), default="upper",
        help="applied to the text, as 'sslbench score' does (default: upper)",
    )  # fmt: skip
    args = parser.parse_args(argv)

    from sslbench.finetune.arpa import KneserNey
    from sslbench.finetune.scoring import NORMALISERS
    from sslbench.finetune.transcripts import read_transcripts
    from sslbench.io import read_text, write_text

    texts = []
    for name in args.text:
        if name.endswith(".txt"):
            texts += read_text(name).splitlines()
        else:
            texts += [one.text for one in read_transcripts(name).values()]
    model = KneserNey([NORMALISERS[args.normaliser](text) for text in texts], args.order)
    write_text(args.out, "\n".join(model.arpa()) + "\n")
    print(f"{len(model.words)} words, {len(texts)} utterances, order {args.order}, in {args.out}")

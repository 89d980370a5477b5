"""`sslbench convert`: checkpoints of other toolkits as upstream checkpoints, and back."""

from __future__ import annotations

import argparse
from pathlib import Path

from sslbench.cli._parser import Parser
from sslbench.convert import FORMATS

EPILOG = """examples:
  sslbench convert --from k2ssl epoch-300.pt --use_average --out zipformer
  sslbench convert --from k2ssl pretrained.pt --model_config args.json --out zipformer
  sslbench convert --from fairseq hubert_base_ls960.pt --out hubert
  sslbench convert --from s3prl hubert_converted.pt --out hubert
  sslbench convert --from hf hubert-base-ls960 --out hubert
  sslbench convert --from sslbench hubert --to hf --out hubert-hf
then, with the family that the first line of output names:
  sslbench check hubert_k2ssl --ckpt hubert

Files are read without running anything in them. Settings come from the checkpoint, or from the weights'
shapes; --model_config (JSON or YAML of the other toolkit's names, for k2ssl icefall's arguments) goes before
both. Every tensor must fit, or nothing is written.
"""


def main(argv: list[str]) -> None:
    """Run the verb."""
    args = _parse(argv)
    from sslbench.convert.run import convert, convert_back

    if args.source_format == "sslbench":
        made, left_out = convert_back(args.source, args.out, args.to)
        print(f"wrote {args.out} ({made.family} in the format of {args.to}, {made.weights} weights)")
        if left_out:
            print(f"left out, since {args.to} has no place for them: {', '.join(left_out)}")
        return
    made = convert(
        args.source_format, args.source, args.out, args.use_average, args.model_config, args.family
    )
    values = sum(tensor.numel() for tensor in made.state.values())
    print(f"wrote {args.out} ({made.family}, {len(made.state)} tensors, {values:,} values, imported weights)")
    if "left_out" in made.card:
        print(f"left out: {', '.join(made.card['left_out'])}")
    for key, value in made.card.get("assumed", {}).items():
        print(f"note: nothing states {key}; taken as {value} (state it with --model_config if that is wrong)")


def _parse(argv: list[str]) -> argparse.Namespace:
    parser = Parser(
        prog="sslbench convert",
        description="Write another toolkit's checkpoint as an upstream checkpoint, or the reverse.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("source", type=Path, metavar="SRC", help="file, or folder for hf and sslbench")
    parser.add_argument(
        "--from", dest="source_format", choices=(*FORMATS, "sslbench"), required=True, help="format of SRC"
    )
    parser.add_argument("--to", choices=("sslbench", "hf"), help="format to write (default: sslbench)")
    parser.add_argument("--out", type=Path, required=True, help="folder to write")
    parser.add_argument("--model_config", type=Path, metavar="FILE", help="settings that SRC lacks")
    parser.add_argument("--use_average", action="store_true", help="k2ssl: model_avg instead of model")
    parser.add_argument("--family", help="of our models, where several could fit")
    args = parser.parse_args(argv)
    if args.source_format == "sslbench" and args.to in (None, "sslbench"):
        parser.error("--from sslbench needs another format with --to")
    if args.source_format == "sslbench" and (args.use_average or args.model_config or args.family):
        parser.error("--from sslbench takes only SRC, --to and --out")
    if args.source_format != "sslbench" and args.to == "hf":
        parser.error("write our format first, then --from sslbench --to hf")
    return args

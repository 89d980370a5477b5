"""`sslbench espnet`: ESPnet's own trainers and data format with our upstreams."""

from __future__ import annotations

import argparse
import importlib.util
import subprocess
import sys

from sslbench.cli._parser import Parser
from sslbench.cli._rows import add_tier, check_labels
from sslbench.errors import SslbenchError

DESCRIPTION = """ESPnet's own ASR with our upstreams, through its unmodified `frontend: s3prl`.

asr_train, asr_inference and ssl_train are ESPnet's programs; every argument is theirs. In their YAML:
  frontend: s3prl
  frontend_conf: {frontend_conf: {upstream: zipformer, path_or_url: CKPT_FOLDER}, multilayer_feature: true}
  freeze_param: [frontend.upstream]
path_or_url is the upstream's checkpoint; extra_conf: {frozen: false} beside it fine-tunes.
  encoder: zipformer          our encoders (names of upstreams) on ESPnet's own frames, from random weights;
  encoder_conf: {input_layer: conv2d2}   and any setting of the family"""

EPILOG = """examples:
  sslbench espnet export data/mini/test-clean.jsonl.gz data/kaldi/test
  sslbench espnet export data/mini/train-10min.jsonl.gz data/kaldi/train --speeds 0.9 1.1
  sslbench espnet export units/train.jsonl.gz data/kaldi/train_units --labels units
  sslbench espnet asr_train --config train.yaml --output_dir exp ...
  sslbench espnet asr --upstream zipformer --ckpt exp/upstream --train T.jsonl.gz --dev D.jsonl.gz \\
      --test E.jsonl.gz --out exp/espnet --system zipformer --results results --tier smoke --epochs 5
"""

PASSED_ON = ("asr_train", "asr_inference", "ssl_train")


def main(argv: list[str]) -> int:
    """Run a sub-verb. Returns ESPnet's exit status, or 0."""
    if argv and argv[0] in PASSED_ON:
        return _pass_on(argv[0], argv[1:])
    args = _parse(argv)
    if args.what == "export":
        from sslbench.integrations.espnet.export import export

        done = export(args.manifest, args.out_dir, args.labels, tuple(args.speeds))
        print(
            f"{args.out_dir}: {done.utterances} utterances, samples saved for {done.saved_audio}, "
            f"{done.skipped} skipped"
        )
        return 0
    return _asr(args)


def _pass_on(tool: str, words: list[str]) -> int:
    _need_espnet()
    command = [sys.executable, "-m", f"sslbench.integrations.espnet.{tool}", *words]
    return subprocess.run(command).returncode


def _need_espnet() -> None:
    for package in ("espnet2", "s3prl"):
        if importlib.util.find_spec(package) is None:
            raise SslbenchError(f"espnet: {package} is not installed; pip install 'sslbench[espnet,s3prl]'")


def _asr(args: argparse.Namespace) -> int:
    check_labels([args.system])
    _need_espnet()
    from sslbench.integrations.espnet.asr import AsrRun, run
    from sslbench.integrations.espnet.row import write_row

    kept = {key: value for key, value in vars(args).items() if key in AsrRun.__dataclass_fields__}
    settings = AsrRun(**{**kept, "speeds": tuple(args.speeds)})
    hypotheses = run(settings, args.stop_after, random_too=args.tier != "full")
    if args.stop_after != "score":
        return 0
    write_row(settings, hypotheses, args.system, args.results, args.tier)
    return 0


def _parse(argv: list[str]) -> argparse.Namespace:
    raw = argparse.RawDescriptionHelpFormatter
    parser = Parser(prog="sslbench espnet", description=DESCRIPTION, epilog=EPILOG, formatter_class=raw)
    verbs = parser.add_subparsers(
        dest="what", required=True, metavar="{asr_train,asr_inference,ssl_train,export,asr}"
    )
    for tool in PASSED_ON:
        verbs.add_parser(tool, help=f"espnet2.bin.{tool}, arguments passed on", add_help=False)
    out = verbs.add_parser("export", help="a manifest as a Kaldi-style folder")
    out.add_argument("manifest", help="lhotse cuts (.jsonl.gz)")
    out.add_argument("out_dir", help="receives wav.scp, text, utt2spk, spk2utt")
    out.add_argument(
        "--labels", choices=("text", "units"), default="text", help="what text holds (units: for ssl_train)"
    )
    out.add_argument(
        "--speeds",
        type=float,
        nargs="*",
        default=(),
        help="also write copies at these speeds (0.9 1.1); text only",
    )
    asr = verbs.add_parser("asr", help="export, collect stats, train, decode, score, result row")
    asr.add_argument("--upstream", required=True, help="registered name, or any name of s3prl")
    asr.add_argument("--ckpt", help="checkpoint of the upstream")
    for split in ("train", "dev", "test"):
        asr.add_argument(f"--{split}", required=True, metavar="M", help=f"{split} manifest")
    asr.add_argument("--out", required=True, metavar="EXP", help="experiment folder; run again to go on")
    asr.add_argument("--system", required=True, help="what reports call this model")
    asr.add_argument("--results", required=True, metavar="DIR", help="folder of the result rows")
    add_tier(asr)
    asr.add_argument("--config", help="ESPnet training YAML replacing the shipped one")
    asr.add_argument("--decode_config", help="ESPnet inference YAML replacing greedy CTC")
    asr.add_argument("--units", choices=("char", "bpe"), default="char", help="characters or word pieces")
    asr.add_argument("--bpe_size", type=int, default=5000, help="word pieces, with --units bpe")
    asr.add_argument(
        "--speeds",
        type=float,
        nargs="*",
        default=(),
        help="also learn from copies at these speeds (0.9 1.1)",
    )
    asr.add_argument("--epochs", type=int, help="instead of the YAML's max_epoch")
    asr.add_argument("--lr", type=float, help="instead of the YAML's")
    asr.add_argument(
        "--stop_after", choices=("export", "train", "decode", "score"), default="score",
        help="run only so far; the same command without it goes on",
    )  # fmt: skip
    asr.add_argument("--ngpu", type=int, default=0, help="GPUs that ESPnet uses (default 0)")
    asr.add_argument("--seed", type=int, default=0, help="of ESPnet's random numbers (default 0)")
    return parser.parse_args(argv)

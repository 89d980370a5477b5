"""`sslbench finetune`: train a recognizer on an upstream, and on request test it."""

from __future__ import annotations

from typing import Any

from sslbench.cli._parser import Parser
from sslbench.cli._rows import add_row_arguments, row_options

EXAMPLES = """examples:
  sslbench finetune --train_manifest data/train-10min.jsonl.gz --dev_manifest data/dev-clean.jsonl.gz \\
      --upstream fbank --exp_dir exp/asr_fbank
  sslbench finetune --config conf/asr.yaml --upstream zipformer_tiny --ckpt exp/upstream \\
      --exp_dir exp/asr_zipformer
  sslbench finetune --config conf/asr.yaml --upstream zipformer_tiny --ckpt exp/upstream --tune lora \\
      --objective transducer --units bpe --bpe_size 100 --exp_dir exp/asr_lora
  sslbench finetune --config conf/asr.yaml --exp_dir exp/asr_fbank \\
      --test_manifest data/test-clean.jsonl.gz --system fbank --results results --tier smoke

testing, after training (as decode and score do, into EXP/hyp):
  --test_manifest M   transcribe M with the best weights and score it
  --system LABEL --results DIR [--tier smoke|short|full] [--evaluation NAME]   also write the result row

The same command again goes on where it stopped, or skips what is done. Several GPUs:
  torchrun --nproc_per_node 8 -m sslbench finetune --config conf/asr.yaml --exp_dir exp/asr_zipformer
"""


def main(argv: list[str]) -> None:
    """Train, then test where a test manifest is given."""
    # the test's flags are taken out first; all others are fields of the configuration
    tests = Parser(add_help=False)
    tests.add_argument("--test_manifest", help="transcribed and scored after training")
    add_row_arguments(tests)
    args, rest = tests.parse_known_args(argv)

    from sslbench import config as configs
    from sslbench.errors import SslbenchError
    from sslbench.finetune.config import FinetuneConfig

    config = configs.parse(
        FinetuneConfig, rest, prog="sslbench finetune",
        description="A recognizer (CTC, transducer or both) on any upstream.", epilog=EXAMPLES,
    )  # fmt: skip
    options = row_options(args.system, args.results, args.tier, args.evaluation, config.upstream)
    if options is not None and not args.test_manifest:
        raise SslbenchError("finetune: a row needs --test_manifest")
    if args.test_manifest and config.dev_manifest:
        from sslbench.data.manifests import describe

        if describe(args.test_manifest).sha256 == describe(config.dev_manifest).sha256:
            raise SslbenchError(
                f"finetune: --test_manifest {args.test_manifest} holds the data of --dev_manifest, on which "
                "the best step is chosen: test on other data ('decode' and 'score' take any)"
            )

    from sslbench.finetune.search import finetune
    from sslbench.train.dist import launched_as

    done = finetune(config)
    if launched_as()[0] > 0:
        return
    print(
        f"dev WER {done['dev_wer']:.2f} % at step {done['step']}, {done['wall_s']:.0f} s, in {config.exp_dir}"
    )
    print(f"cost: {_cost(done)}")
    if args.test_manifest:
        from sslbench.finetune.evaluate import evaluate

        evaluate(config.exp_dir, args.test_manifest, options, config.device)


def _cost(done: dict[str, Any]) -> str:
    """What stands beside the WER: only the ladder and the weighted sum spare the backbone's backward pass."""
    step = "" if done.get("step_s") is None else f"{done['step_s']:.3f} s per step, "
    return (
        f"{done['params_trainable'] / 1e6:.2f} M trainable parameters, {step}"
        f"peak memory {done['peak_mem_bytes'] / 2**30:.2f} GiB"
    )

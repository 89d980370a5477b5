"""`sslbench pretrain`: train an encoder, or go on with a run."""

from __future__ import annotations

DESCRIPTION = "Pretrain an encoder on units. Run the same command again to go on after any interruption."

EPILOG = """examples:
  sslbench pretrain --config conf/pretrain_zipformer.yaml --exp_dir exp/zipformer
  sslbench pretrain --upstream zipformer_tiny --train_manifest units/train.jsonl.gz \\
      --dev_manifest units/dev.jsonl.gz --exp_dir exp/try --max_steps 200 --max_duration_s 60
  sslbench pretrain --config C.yaml --model.num_units 500 --precision bf16 --average_every 200
  torchrun --nproc_per_node 8 -m sslbench pretrain --config conf/pretrain_zipformer.yaml
  torchrun --nproc_per_node 4 -m sslbench pretrain --config C.yaml --allow_reshard     a run of 8 on 4 GPUs
"""


def main(argv: list[str]) -> int:
    """Run the verb. Returns 0 when complete, 130 when stopped by a signal (saved)."""
    from sslbench.config import parse
    from sslbench.pretrain.config import PretrainConfig

    said = ("true", "false")  # a switch; with a value, as every setting is written, too
    argv = [
        "--allow_reshard=true" if word == "--allow_reshard" and after.lower() not in said else word
        for word, after in zip(argv, [*argv[1:], ""], strict=True)
    ]
    config = parse(PretrainConfig, argv, "sslbench pretrain", DESCRIPTION, EPILOG)
    from sslbench.pretrain.trainer import run

    return run(config)

"""What normalises a model's input, fitted on the training data before the first update."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from sslbench.data.loading import BatchLoader, SkipLog
from sslbench.data.manifests import open_manifest
from sslbench.nn.upstream import SSLModel
from sslbench.pretrain.config import PretrainConfig

FIT_S = 3600.0
"""Most audio that the statistics are taken from, in a shuffled order: an hour has hundreds of speakers'
utterances, and takes seconds."""
BATCH_S = 60.0


def fit_inputs(model: SSLModel, config: PretrainConfig) -> int:
    """Fit the model's input statistics, where it has any; the same on every process and in every resumed run.

    Args:
        model: just built.
        config: names the training manifest and the seed of the order.

    Returns:
        How many frames were seen; 0 when the model has nothing to fit, and then no audio is read.
    """
    return model.fit_inputs(_clips(config))


def _clips(config: PretrainConfig) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    loader = BatchLoader(
        open_manifest(config.train_manifest),
        BATCH_S,
        shuffle=True,
        seed=config.seed,
        min_duration_s=config.min_duration_s,
        max_cut_duration_s=config.max_cut_duration_s,
        skip_log=SkipLog(limit_share=1.0),  # training itself counts and names what it cannot read
    )
    seconds = 0.0
    for batch in loader.epoch(0):
        yield batch.audio, batch.audio_lens
        seconds += float(batch.audio_lens.sum()) / 16_000
        if seconds >= FIT_S:
            return

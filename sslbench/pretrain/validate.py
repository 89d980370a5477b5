"""Loss and masked accuracy on held-out cuts, the same masks every time."""

from __future__ import annotations

import torch

from sslbench.data.loading import SkipLog
from sslbench.pretrain.batches import collate, make_loader
from sslbench.pretrain.config import PretrainConfig
from sslbench.pretrain.logging import per_frame
from sslbench.pretrain.randomness import seed_everything
from sslbench.pretrain.update import UpdateMaker


@torch.no_grad()
def validate(maker: UpdateMaker, config: PretrainConfig, manifest: str) -> dict[str, float]:
    """Means per masked frame over a manifest, over all processes: `loss`, `acc`, …

    Leaves the model in training mode; draws nothing that training draws from, since every batch of
    training seeds the generators itself.
    """
    world, model = maker.world, maker.model
    loader = make_loader(config, manifest, world, SkipLog(limit_share=config.skip_limit_share))
    sums: dict[str, float] = {}
    model.eval()
    for audio in loader.epoch(0):
        if len(audio) == 0:
            continue
        seed_everything(model, config.seed, "valid", audio.position * world.size + world.rank)
        batch = collate(audio, config, manifest, world.device)
        with maker.autocast():
            output = model(batch)
        for name, value in [
            ("loss_sum", output.loss_sum),
            ("frames", output.frames),
            *output.metrics.items(),
        ]:
            sums[name] = sums.get(name, 0.0) + float(value)
    model.train()
    # a process without a batch does not know the model's metrics, so only the common ones are reported
    names = ["loss_sum", "frames", "correct"]
    totals = world.sum([sums.get(name, 0.0) for name in names])
    return per_frame(dict(zip(names, totals, strict=True)))

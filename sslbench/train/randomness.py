"""Randomness as a function of (seed, batch number), so that no generator's state needs to be stored.

Before each batch every generator is seeded anew from the run's seed and the batch's global number. A
resumed run, and the same batches dealt to another number of processes, draw the same masks and dropout.
"""

from __future__ import annotations

import hashlib
import random

import numpy as np
import torch
from torch import nn


def derive(seed: int, *place: int | str) -> int:
    """A 63-bit seed for a place in training, unrelated to its neighbours'."""
    text = ":".join(str(part) for part in (seed, *place))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def seed_everything(model: nn.Module, seed: int, *place: int | str) -> None:
    """Seed python, numpy, torch and every `torch.Generator` or `random.Random` that a module holds."""
    value = derive(seed, *place)
    random.seed(value)
    np.random.seed(value % 2**32)  # models may draw from numpy's global generator
    torch.manual_seed(value)
    for name, module in model.named_modules():
        for attribute, held in vars(module).items():
            if isinstance(held, torch.Generator):
                held.manual_seed(derive(value, name, attribute))
            elif isinstance(held, random.Random):
                held.seed(derive(value, name, attribute))

"""Settings of a pretraining run."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any, Literal

from sslbench.errors import SslbenchError
from sslbench.train.settings import LoopSettings

MAY_CHANGE = frozenset(
    {
        "exp_dir",
        "max_steps",
        "device",
        "num_workers",
        "skip_limit_share",
        "allow_reshard",
        "recompute_activations",
        "compile",
        "valid_max_s",
        "log_every",
        "valid_every",
        "save_every",
        "keep_last",
        "tensorboard",
        "utterance_log",
    }
)
"""What a resumed run may set differently: it does not enter the mathematics (adamw's decay ends at
`max_steps`, so raising that extends the decay)."""


@dataclass
class PretrainConfig:
    """A run: what is trained, on which data, how, and what is kept."""

    upstream: str
    """Preset to train, as `sslbench list upstreams` shows it."""
    train_manifest: str
    """Cuts with units in `custom.kmeans`, as `sslbench units apply` writes them."""
    exp_dir: str
    """Folder of the run: log, checkpoints, summary."""
    dev_manifest: str | None = None
    """Cuts with units for validation; None for none."""
    model: dict[str, Any] = field(default_factory=dict)
    """Model settings that differ from the preset's."""
    seed: int = 0
    """Of the initial weights, the order of the data, masks and dropout."""
    max_steps: int = 1000
    """Updates."""
    accum: int = 1
    """Batches per update and process."""
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    """"bf16": autocast alone; "fp16": with a loss scale by k2SSL's rules, for GPUs without bf16."""
    recompute_activations: bool = False
    """Keep only each encoder layer's input for the backward pass: less memory, about a third more time."""
    compile: bool = False
    """`torch.compile` each encoder layer: a minute or more at the start for faster steps on GPUs. The
    watchdog then leaves activations alone."""
    watchdog: bool = True
    """Watch loss, gradients and activations: on an alarm go back to the last good checkpoint with half the
    rate, once; then stop and say why."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """"auto": a GPU when there is one."""

    max_duration_s: float = 200.0
    """Audio per batch and process, padding included (k2SSL Base: 600 on 8 GPUs)."""
    min_duration_s: float = 1.0
    """Shorter cuts are left out (k2SSL: 2)."""
    max_cut_duration_s: float | None = None
    """Longer cuts are left out."""
    num_buckets: int = 10
    """Groups of similar duration that batches are drawn from (k2SSL: 30)."""
    quadratic_duration_s: float | None = None
    """A cut of d seconds counts as d + d²/this against `max_duration_s` (k2SSL Large: 1024)."""
    crop: Literal["none", "shortest"] = "none"
    """"none": pad; "shortest": a random piece of each clip, as long as the batch's shortest (k2SSL)."""
    crop_s: float | None = None
    """With `crop: shortest`, the longest piece (k2SSL Base: 15.6)."""
    label_rate_hz: float = 50.0
    """Units per second: 50, as `sslbench units` writes them (earlier runs state it)."""
    num_workers: int = 1
    """Reading processes; 0 reads between updates."""
    skip_limit_share: float = 0.01
    """Share of unreadable cuts above which the run ends."""

    optimizer: Literal["scaled_adam", "adamw"] = "scaled_adam"
    """ScaledAdam with Eden (k2SSL), or AdamW with linear warm-up and polynomial decay (HuBERT)."""
    lr: float | None = None
    """Base rate for scaled_adam (default 0.045), peak rate for adamw (default 5e-4)."""
    lr_batches: float = 7500.0
    """Eden: updates after which the rate falls noticeably."""
    lr_epochs: float = 10.5
    """Eden: epochs (or hours, see `lr_epoch_unit`) after which it falls."""
    lr_epoch_unit: Literal["epochs", "hours"] = "epochs"
    """Eden: passes over the data (LibriSpeech), or nominal hours of audio (Libri-Light: 10000)."""
    warmup_steps: int = 5000
    """Updates of linear warm-up."""
    warmup_start: float = 0.0
    """Factor on the rate at update 0 (scaled_adam)."""
    decay_power: float = 1.0
    """adamw: power of the polynomial decay to 0 at `max_steps`."""
    weight_decay: float = 0.01
    """adamw: on all but norms, biases and `no_decay`."""
    no_decay: list[str] = field(default_factory=list)
    """adamw: further parameters without decay, as shell-style patterns of their names."""
    lr_scales: dict[str, float] = field(default_factory=dict)
    """adamw: pattern of parameter names -> factor on their rate, such as `{"feature_extractor.*": 0.1}`."""
    betas: tuple[float, float] = (0.9, 0.98)
    """Decay of the optimizer's averages."""
    clip_norm: float = 10.0
    """adamw: largest gradient norm, per frame; scaled_adam clips by itself."""
    ref_duration_s: float = 600.0
    """Audio of one batch in the unit that the model's schedules count in (k2SSL: 600)."""

    average_every: int = 0
    """Updates between additions to the running average of the weights (k2SSL: 200); 0 for none."""
    allow_reshard: bool = False
    """Go on with another number of processes than before (`--allow_reshard`): the epoch's remaining batches
    are dealt out anew, none twice. Batch counts and effective batch size change with the number."""
    log_every: int = 50
    """Updates per log line."""
    valid_every: int = 500
    """Updates between validations."""
    valid_max_s: float | None = None
    """Audio that a validation stops after, over all processes; None for all of `dev_manifest`."""
    save_every: int = 500
    """Updates between checkpoints."""
    keep_last: int = 3
    """Checkpoints kept."""
    tensorboard: bool = True
    """Also write curves for tensorboard, where it is installed."""
    utterance_log: bool = False
    """Write which cuts each update used, to `utterances-RANK.jsonl`."""

    def __post_init__(self) -> None:
        positive = ("max_steps", "accum", "max_duration_s", "log_every", "valid_every", "save_every")
        faults = [f"{name} must be above 0" for name in positive if getattr(self, name) <= 0]
        if self.keep_last < 2:
            faults.append("keep_last must be at least 2: a damaged newest checkpoint needs one before it")
        if self.max_cut_duration_s is not None and self.max_cut_duration_s < self.min_duration_s:
            faults.append("max_cut_duration_s is below min_duration_s")
        if self.optimizer == "scaled_adam" and (self.lr_scales or self.no_decay):
            faults.append("lr_scales and no_decay need optimizer: adamw (scaled_adam sizes steps by itself)")
        if self.label_rate_hz != 50:
            faults.append(
                "label_rate_hz must be 50; 'sslbench units import --label_rate_hz' thins out others"
            )
        if self.crop_s is not None and self.crop == "none":
            faults.append("crop_s needs crop: shortest")
        if faults:
            raise SslbenchError("pretrain config: " + "; ".join(faults))

    @property
    def base_lr(self) -> float:
        """The rate in use."""
        defaults = {"scaled_adam": 0.045, "adamw": 5e-4}
        return defaults[self.optimizer] if self.lr is None else self.lr

    def update_s(self, world_size: int) -> float:
        """Nominal audio of one update, over all processes."""
        return self.accum * self.max_duration_s * world_size

    def loop_settings(self) -> LoopSettings:
        """What the engine needs to know."""
        names = (field.name for field in fields(LoopSettings))
        return LoopSettings(**{name: getattr(self, name) for name in names if hasattr(self, name)})


def identity(values: dict[str, Any]) -> dict[str, Any]:
    """The settings that decide what is learnt, of a config's plain form."""
    return {key: value for key, value in values.items() if key not in MAY_CHANGE}

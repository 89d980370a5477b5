"""Settings of an ASR fine-tuning run."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, Literal

from sslbench.errors import SslbenchError
from sslbench.finetune.peft.settings import PeftSettings
from sslbench.finetune.shapes import TransducerShape
from sslbench.train.settings import LoopSettings

MOST_BAD_UPDATES = 10  # in a row; a clip that CTC cannot align must not end a run
LEAST = {
    "steps": 1, "accum": 1, "eval_every_steps": 1, "log_every_steps": 1, "num_workers": 0, "time_masks": 0,
    "feature_masks": 0,
}  # fmt: skip


@dataclass
class FinetuneConfig:
    """A recognizer on an upstream.

    The defaults fit minutes of labels on a CPU; `downstream/asr/config.yaml` holds SUPERB's protocol.
    """

    upstream: str = "fbank"
    """A name of `sslbench list upstreams`, or any name that s3prl knows."""
    ckpt: str | None = None
    """Checkpoint folder of the upstream; without one, its weights are random."""
    train_manifest: str = ""
    """Manifest with the labelled training cuts."""
    dev_manifest: str = ""
    """Manifest that selects the best step (and learning rate)."""
    exp_dir: str = "exp/asr"
    """Folder of the run: config, vocabulary, log, checkpoints."""
    seed: int = 0
    """Of the head's weights, dropout, masking and data order."""

    tune: Literal["frozen", "full", "lora", "adalora", "houlsby", "conv_adapter", "ladder"] = "frozen"
    """What of the upstream learns. `frozen`: nothing, features are computed once and cached; `ladder`: a side
    network on the same features; `full`: everything; the others: what they add to it, while its own weights
    stay and it remains in eval mode."""
    peft: PeftSettings = field(default_factory=PeftSettings)
    """Sizes of what is added."""

    units: Literal["char", "bpe", "phone"] = "char"
    """What is recognised: characters; word pieces, learned by sentencepiece from the training transcripts; or
    phones, from the cuts' alignments or the lexicon beside the manifest (errors are then PER)."""
    bpe_size: int = 500
    """Word pieces, blank and unknown included."""
    objective: Literal["ctc", "transducer", "joint"] = "ctc"
    """`joint`: a transducer with CTC beside it, as k2SSL offers."""
    ctc_scale: float = 0.2
    """Weight of CTC in `joint` (k2SSL's)."""
    transducer: TransducerShape = field(default_factory=TransducerShape)
    """Sizes of the transducer."""
    context_dropout: float = 0.2
    """Share of the transducer's contexts that training hides. Transcripts that the predictor knows by heart
    say nothing about when a symbol is spoken; a hidden context leaves that to the frames."""
    transducer_loss: Literal["auto", "full", "pruned"] = "auto"
    """`pruned`: k2's; `full`: over the whole lattice; `auto`: pruned where k2 can be used. The run's
    config.yaml says which it was."""
    pruned_warmup_steps: int = 100
    """Steps in which the pruned loss takes over from the simple one (k2SSL: 2,000)."""

    head: Literal["blstm", "linear"] = "blstm"
    """What follows the weighted sum and the projection."""
    head_stride: int = 640
    """Samples per frame of the head: finer upstreams have frames stacked up to it."""
    normalise: Literal["none", "layer", "channel"] = "channel"
    """Before the weighted sum. `channel`: mean 0 and variance 1 of every channel over training frames, so
    that short runs do not measure how a model happens to scale its features; `layer`: layer norm of every
    frame (s3prl's `normalize`); `none`: SUPERB."""
    projection_dim: int = 128
    """Width between the weighted sum and the head; the linear head uses none when 0."""
    blstm_layers: int = 2
    """Layers of the recurrent head."""
    blstm_dim: int = 128
    """Cells per direction."""
    dropout: float = 0.1
    """After the projection and between recurrent layers."""

    lr: float = 4e-3
    """Peak learning rate of the head and the layer weights."""
    lr_grid: list[float] = field(default_factory=list)
    """Several rates to try instead, each in its own subfolder; the best dev WER wins."""
    upstream_lr: float = 1e-4
    """Peak learning rate of the upstream with `tune: full`."""
    layer_lr_decay: float = 1.0
    """With `tune: full`, each of the upstream's layers learns at this factor times the rate of the next."""
    adapter_lr: float = 1e-3
    """Peak learning rate of what LoRA, AdaLoRA and adapters add."""
    upstream_freeze_steps: int = 0
    """With `tune: full`, the upstream learns only from this step on."""
    weight_decay: float = 1e-2
    """AdamW's, on matrices only."""
    steps: int = 500
    """Optimizer steps."""
    warmup_share: float = 0.1
    """Share of the steps in which the rate rises linearly."""
    schedule: Literal["cosine", "constant"] = "cosine"
    """What the rate does after the warm-up: fall to a hundredth of the peak, or stay."""
    clip_norm: float = 5.0
    """Largest gradient norm."""
    max_duration_s: float = 20.0
    """Audio per batch and process, padding included."""
    accum: int = 1
    """Batches per update and process, where a GPU does not hold all at once."""
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    """bf16 and fp16 run the forward pass under autocast; CTC itself stays in fp32."""
    device: str = "auto"
    """`cpu`, `cuda`, or `auto`: a GPU when there is one."""

    span_mask_prob: float = 0.0
    """Span masking inside an upstream that runs: share of its frames replaced by its mask embedding, were
    there no overlaps (k2SSL: 0.65); 0 for none."""
    span_mask_ms: float = 200.0
    """Length of such a span."""
    time_masks: int = 0
    """SpecAugment on features: spans of frames set to zero; 0 for none."""
    time_mask_ms: float = 400.0
    """Longest such span; all spans together never cover more than a fifth of a clip."""
    feature_masks: int = 0
    """Bands of feature channels set to zero (sensible for filterbanks)."""
    feature_mask_share: float = 0.1
    """Widest such band, as a share of the channels."""

    eval_every_steps: int = 100
    """Dev WER, and a checkpoint, every so many steps and at the end."""
    log_every_steps: int = 10
    """A line in `log.jsonl` every so many steps."""
    keep_checkpoints: int = 2
    """Newest checkpoints kept, beside the best one; at least 2."""
    max_skipped_share: float = 0.05
    """Unreadable or too short clips above this share end the run."""
    cache_limit_gib: float = 20.0
    """Frozen features are kept on disk in half precision; above this size they are computed each epoch."""
    num_workers: int = 0
    """Audio reading processes."""
    tensorboard: bool = False
    """Also write curves for tensorboard, where it is installed."""
    utterance_log: bool = False
    """Write which clips each update used, to `utterances-RANK.jsonl`."""

    def loop_settings(self) -> LoopSettings:
        """What the engine needs to know."""
        return LoopSettings(
            exp_dir=self.exp_dir,
            max_steps=self.steps,
            seed=self.seed,
            log_every=self.log_every_steps,
            valid_every=self.eval_every_steps,
            save_every=self.eval_every_steps,
            keep_last=self.keep_checkpoints,
            accum=self.accum,
            precision=self.precision,
            bad_updates=MOST_BAD_UPDATES,
            mean_first=True,
            tensorboard=self.tensorboard,
            utterance_log=self.utterance_log,
        )

    def check(self) -> None:
        """Raise `SslbenchError` for settings that cannot work."""
        needed = ("train_manifest", "dev_manifest")
        rules: list[tuple[bool, str]] = [
            *((bool(getattr(self, name)), f"{name} is missing") for name in needed),
            *((getattr(self, name) >= n, f"{name} must be at least {n}") for name, n in LEAST.items()),
            (
                self.keep_checkpoints >= 2,
                "keep_checkpoints must be at least 2: a damaged newest checkpoint needs one before it",
            ),
            (self.max_duration_s > 0, "max_duration_s must be above 0"),
            (0 <= self.dropout < 1, "dropout must be in [0, 1)"),
            (0 <= self.warmup_share < 1, "warmup_share must be in [0, 1)"),
            (0 < self.layer_lr_decay <= 1, "layer_lr_decay must be in (0, 1]"),
            (
                self.head != "blstm" or min(self.projection_dim, self.blstm_layers, self.blstm_dim) >= 1,
                "the blstm head needs projection_dim, blstm_layers and blstm_dim of at least 1",
            ),
            (
                self.span_mask_prob <= 0 or self.tune not in ("frozen", "ladder"),
                "span_mask_prob masks inside an upstream that learns; with kept features use time_masks",
            ),
            (
                self.tune != "full" or self.upstream_freeze_steps < self.steps,
                f"upstream_freeze_steps is {self.upstream_freeze_steps} and steps {self.steps}, so the "
                "upstream would never learn: lower the first, raise the second, or choose tune: frozen",
            ),
            (
                self.tune not in ("conv_adapter", "ladder") or self.peft.kernel % 2 == 1,
                f"peft.kernel {self.peft.kernel} is even: a convolution needs a middle frame",
            ),
        ]
        problems = [what for holds, what in rules if not holds]
        if problems:
            raise SslbenchError("finetune: " + "; ".join(problems))


def resolve(config: FinetuneConfig) -> FinetuneConfig:
    """The same settings with `auto` decided for this machine.

    Raises:
        SslbenchError: the pruned loss without k2.
    """
    from sslbench.integrations import k2

    if config.objective == "ctc":
        return replace(config, transducer_loss="full")
    if config.transducer_loss == "pruned" and not k2.available():
        raise SslbenchError(
            f"finetune: transducer_loss: pruned needs k2 ({k2.why_not()}); use full, or see 'sslbench doctor'"
        )
    if config.transducer_loss == "auto":
        return replace(config, transducer_loss="pruned" if k2.available() else "full")
    return config


# What may differ between a run and its continuation without changing the numbers.
RESUME_MAY_CHANGE = (
    "exp_dir",
    "device",
    "num_workers",
    "keep_checkpoints",
    "log_every_steps",
    "tensorboard",
    "utterance_log",
)


def identity(settings: dict[str, Any]) -> dict[str, Any]:
    """The settings that must be equal for a run to be continued."""
    return {key: value for key, value in settings.items() if key not in RESUME_MAY_CHANGE}

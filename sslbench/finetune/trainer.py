"""Fine-tuning as a job for the training engine."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from sslbench import config as configs
from sslbench.data.loading import SkipLog
from sslbench.data.manifests import Described, describe
from sslbench.finetune import experiment as exp
from sslbench.finetune.augment import FeatureMasker
from sslbench.finetune.config import RESUME_MAY_CHANGE, FinetuneConfig, identity, resolve
from sslbench.finetune.data import Batch as Labelled
from sslbench.finetune.data import LabelledSet, LabelledStream, fitting, label_reader, read_labelled
from sslbench.finetune.decode import batch_states, transcribe
from sslbench.finetune.features import FeatureCache
from sslbench.finetune.model import Recognizer
from sslbench.finetune.optimizer import make_updater
from sslbench.finetune.scoring import score
from sslbench.finetune.transcripts import Transcript
from sslbench.finetune.vocab import Vocab, build_vocab
from sslbench.io import read_json, read_jsonl, sha256_json, write_json, write_yaml
from sslbench.nn.upstream import LossOutput, weights_of
from sslbench.train import checkpoint
from sslbench.train.dist import World, join
from sslbench.train.job import Autocast, Batch, Job
from sslbench.train.logging import peak_mem_bytes
from sslbench.train.loop import Trainer
from sslbench.train.schedule import batch_count
from sslbench.train.settings import claim

MEASURED_S = 600.0  # audio that channel statistics are taken from
REF_DURATION_S = 600.0  # of the upstream's schedules, as k2SSL's fine-tuning


def run(config: FinetuneConfig, features_dir: Path | None = None) -> dict[str, Any]:
    """Train to the end, go on with a run, or find that it is done.

    Args:
        config: settings of one run, checked by `search.finetune`.
        features_dir: where frozen features are kept; runs that differ in lr may share it.

    Returns:
        The content of `DONE`: best step and dev WER, cost, data.

    Raises:
        SslbenchError: no k2 for the pruned loss, missing or unusable data, a folder of another run, or one
            begun on other data.
        DivergedError: a loss that stays not finite.
        KeyboardInterrupt: asked to stop; a checkpoint is saved.
    """
    config = resolve(config)
    folder = Path(config.exp_dir)
    world = join(config.device)
    settings = claim(config, RESUME_MAY_CHANGE)
    data = {part: describe(getattr(config, f"{part}_manifest")) for part in ("train", "dev")}
    exp.begun(folder, _sums(data))
    if world.share(int((folder / exp.DONE).is_file())):
        if world.is_main:
            print(f"{folder}: already trained")
        return dict(read_json(folder / exp.DONE))
    if world.is_main:
        write_yaml(folder / exp.CONFIG, settings)
    job = FinetuneJob(config, world, data, features_dir or folder / "features")
    if not Trainer(job, config.loop_settings(), world).fit():
        raise KeyboardInterrupt
    return dict(read_json(folder / exp.DONE))


def _sums(data: Mapping[str, Described]) -> dict[str, str]:
    return {f"{part}_sha256": found.sha256 for part, found in data.items()}


class FinetuneJob(Job[Labelled, Labelled]):
    """A recognizer that learns to transcribe."""

    name = "finetune"
    seed_place = "finetune"
    model: Recognizer

    def __init__(
        self, config: FinetuneConfig, world: World, data: Mapping[str, Described], features_dir: Path
    ) -> None:
        """Read the data and build the model.

        Args:
            config: settings, `auto` decided.
            world: the processes.
            data: what the `train` and `dev` manifests hold.
            features_dir: where frozen features are kept.

        Raises:
            SslbenchError: unusable data, other data than the run was begun with, or an unfit upstream.
        """
        self.config, self.world, self.data = config, world, data
        self.folder, self.features_dir = Path(config.exp_dir), features_dir
        self.skip_log = SkipLog(self.folder / exp.skipped_name(world.rank), config.max_skipped_share)
        train = read_labelled(config.train_manifest, self.skip_log)
        dev = read_labelled(config.dev_manifest, self.skip_log)
        read = label_reader(config.train_manifest, config.units)
        texts = {cut.id: read(cut) for cut in train}
        self.vocab = self._vocabulary(list(texts.values()))
        self.model = exp.build_recognizer(config, self.vocab).to_device(world.device)
        if world.is_main:
            exp.pin(self.folder, config.upstream, self.model.any_upstream, _sums(data))
        train, targets = fitting(texts, train, self.vocab, self.model.frames, self.skip_log)
        self.train = LabelledSet(
            train, targets, config.max_duration_s, shuffle=True, seed=config.seed,
            skip_log=self.skip_log, num_workers=config.num_workers,
            rank=world.rank, world_size=world.size,
        )  # fmt: skip
        self.dev = LabelledSet(dev, {}, config.max_duration_s, skip_log=self.skip_log)
        read = label_reader(config.dev_manifest, config.units)
        self.references = {cut.id: Transcript(cut.id, read(cut), cut.supervisions[0].speaker) for cut in dev}
        self.stream = LabelledStream(self.train)
        self.updater = make_updater(self.model, config)
        mask_frames = round(config.time_mask_ms * 16 / self.model.stride)
        self.masker = FeatureMasker(
            config.time_masks, mask_frames, config.feature_masks, config.feature_mask_share
        )  # fmt: skip
        self.best: dict[str, Any] = {}
        self.step = 0
        self.updater.optimizer.register_step_post_hook(lambda *_: self.model.tuning.after_update(self.step))

    def _vocabulary(self, texts: list[str]) -> Vocab:
        """The run's own where it was begun before: other numbers would permute what its weights mean."""
        path = self.folder / exp.VOCAB
        if exp.begun(self.folder, _sums(self.data)):
            return Vocab.load(path)
        vocab = build_vocab(self.config.units, texts, self.config.bpe_size)
        if self.world.is_main:
            vocab.save(path)
        return vocab

    # --- learning

    def begin(self, step: int) -> None:
        """Compute a frozen upstream's features; before the first update, measure the channels."""
        if step < self.config.steps:
            self._cache_features()
        if step == 0 and self.config.normalise == "channel":
            self.model.featurizer.fit(self._measured())

    def before_update(self, step: int) -> None:
        """Modes, the freeze-then-unfreeze step, and an upstream's schedules, which count from 0 again."""
        self.step = step
        self.model.train()
        upstream, first = self.model.upstream, self.config.upstream_freeze_steps
        if upstream is None:
            return
        upstream.requires_grad_(step >= first)
        upstream.train(step >= first)  # before that, as repeatable as a frozen one
        encoder: Any = getattr(upstream, "model", None)
        if hasattr(encoder, "set_batch_count"):
            update_s = self.config.max_duration_s * self.config.accum * self.world.size
            encoder.set_batch_count(batch_count(max(0, step - first), update_s, REF_DURATION_S))

    def collate(self, raw: Labelled) -> Batch[Labelled]:
        """Name what is in a batch; one without clips is filled with a silent clip that counts nothing."""
        ids, seconds = [str(cut.id) for cut in raw.cuts], raw.seconds
        return Batch(raw if ids else self._filler(raw), ids, seconds, raw.epoch)

    def loss(self, inputs: Labelled) -> LossOutput:
        """The head's loss, summed over symbols."""
        states = batch_states(self.model, inputs, self.world.device)
        warm = min(1.0, self.step / max(1, self.config.pruned_warmup_steps))
        return self.model.loss(*states, inputs.targets, self.masker, warm)

    def _filler(self, raw: Labelled) -> Labelled:
        if raw.states is None:
            tone = (torch.arange(16_000) * 0.1).sin()[None] * 0.01
            return Labelled([], [[]], raw.position, raw.epoch, audio=tone, lens=torch.tensor([16_000]))
        states = torch.zeros(1, 50, self.model.layers, self.model.dim)
        return Labelled([], [[]], raw.position, raw.epoch, states=states, lens=torch.tensor([50]))

    @torch.no_grad()
    def _measured(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """States of the first minutes of training data, the same on every process."""
        self.model.eval()
        seconds = 0.0
        for batch in self.train.epoch(0, alone=True):
            yield batch_states(self.model, batch, self.world.device)
            seconds += batch.seconds
            if seconds >= MEASURED_S:
                return

    def _cache_features(self) -> None:
        """Compute a frozen upstream's features, unless they would not fit."""
        if self.model.backbone_runs:
            return
        frames = (self.train.seconds + self.dev.seconds) * 16000 / self.model.stride
        size = 2 * frames * self.model.layers * self.model.dim
        if size > self.config.cache_limit_gib * 2**30:
            print(f"finetune: frozen features need {size / 2**30:.1f} GiB, above cache_limit_gib: not cached")
            return
        if not self.world.is_main:
            self.world.wait()  # until the main process has written them
        for name, data in (("train", self.train), ("dev", self.dev)):
            key = {
                "upstream": self.config.upstream,
                "weights": list(weights_of(self.model.any_upstream)),
                "seed": self.config.seed,
                "cuts": sha256_json([cut.to_dict() for cut in data.cuts]),
            }
            path, limit = self.features_dir / f"{name}.f16", self.config.max_duration_s
            data.use_cache(FeatureCache.build(path, key, data.cuts, self._states, self.skip_log, limit))
        if self.world.is_main:
            self.world.wait()

    def _states(self, audio: torch.Tensor, lens: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return self.model.states(audio.to(self.world.device), lens)

    # --- judging

    def validate(self, step: int, autocast: Autocast) -> dict[str, float]:
        """Dev WER in fp32, on the main process; the weights are kept when it is the lowest so far."""
        if not self.world.is_main:
            return {}
        texts = transcribe(self.model, self.vocab, self.dev, self.world.device)
        scored = score(self.references, {i: Transcript(i, text) for i, text in texts}, unit=self.vocab.scored)
        # of phones there is one rate; both names keep it, so that the best is chosen alike
        second = "words" if self.vocab.scored == "phone" else "characters"
        row = {"dev_wer": 100 * scored.total("words").rate, "dev_cer": 100 * scored.total(second).rate}
        if not self.best or (row["dev_wer"], row["dev_cer"]) < (self.best["dev_wer"], self.best["dev_cer"]):
            self.best = {"step": step, **row}
            snapshot = checkpoint.Snapshot(step, self.model.state_dict(), None, {}, dict(row))
            checkpoint.save(self.folder / exp.BEST, snapshot, keep_last=1)
        return row

    def state(self) -> dict[str, Any]:
        """The best so far, and the tuning's own."""
        return {"best": self.best, "tuning": self.model.tuning.state()}

    def load_state(self, state: dict[str, Any]) -> None:
        """Restore it."""
        self.best = state["best"]
        self.model.tuning.load_state(state["tuning"])

    def finish(self, facts: dict[str, Any]) -> None:
        """Write `DONE`."""
        done = {
            **self.best,
            "steps": facts["steps"],
            "wall_s": facts["wall_s"],
            "peak_mem_bytes": peak_mem_bytes(),
            "step_s": self._step_s(),
            "params_trainable": sum(p.numel() for p in self.model.parameters() if p.requires_grad),
            "params_upstream": sum(p.numel() for p in self.model.any_upstream.parameters()),
            **self.model.tuning.facts(),
            "layer_weights": [round(w, 4) for w in self.model.featurizer.weights.softmax(0).tolist()],
            "train_hours": self.data["train"].data.hours,
            **_sums(self.data),
            "config_sha256": sha256_json(identity(configs.to_dict(self.config))),
            "skipped": self.skip_log.count,
        }
        write_json(self.folder / exp.DONE, done)

    def _step_s(self) -> float | None:
        """Median seconds per update over the log's windows; the first one warms up, where there are more."""
        times = [row["step_s"] for row in read_jsonl(self.folder / exp.LOG) if "step_s" in row]
        return round(statistics.median(times[1:] or times), 5) if times else None

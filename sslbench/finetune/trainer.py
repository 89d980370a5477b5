"""CTC fine-tuning: one run, from a configuration to the checkpoint with the best dev WER."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from sslbench import config as configs
from sslbench.checkpoint import load_strict
from sslbench.data.loading import SkipLog
from sslbench.data.manifests import describe
from sslbench.errors import SslbenchError
from sslbench.finetune import experiment as exp
from sslbench.finetune.augment import FeatureMasker
from sslbench.finetune.config import FinetuneConfig, identity
from sslbench.finetune.data import Batch, LabelledSet, fitting, read_labelled, transcript
from sslbench.finetune.decode import batch_states, transcribe
from sslbench.finetune.features import FeatureCache
from sslbench.finetune.model import ctc_loss
from sslbench.finetune.optimizer import Updater
from sslbench.finetune.scoring import score
from sslbench.finetune.transcripts import Transcript
from sslbench.finetune.vocab import CharVocab
from sslbench.io import read_json, sha256_json, write_json
from sslbench.pretrain import checkpoint
from sslbench.pretrain.logging import JsonLog, Meter, peak_mem_bytes
from sslbench.pretrain.randomness import seed_everything
from sslbench.progress import Progress

MOST_BAD_STEPS = 10  # in a row
MEASURED_S = 600.0  # audio that channel statistics are taken from


class FinetuneRun:
    """One run in one folder; running it again goes on where it stopped, with the same numbers."""

    def __init__(self, config: FinetuneConfig, features_dir: Path | None = None) -> None:
        """Read the data and build the model.

        Args:
            config: checked settings.
            features_dir: where frozen features are kept; runs that differ in lr may share it.

        Raises:
            SslbenchError: bad settings, missing or unusable data, or a folder of another run.
        """
        config.check()
        self.config, self.folder = config, Path(config.exp_dir)
        exp.claim(self.folder, config)
        self.device = exp.pick_device(config.device)
        self.skip_log = SkipLog(self.folder / exp.SKIPPED, config.max_skipped_share)
        train = read_labelled(config.train_manifest, self.skip_log)
        dev = read_labelled(config.dev_manifest, self.skip_log)
        self.vocab = CharVocab.from_texts(transcript(cut) or "" for cut in train)
        self.vocab.save(self.folder / exp.VOCAB)
        self.model = exp.build_recognizer(config, self.vocab).to_device(self.device)
        train, targets = fitting(train, self.vocab, self.model.frames, self.skip_log)
        self.train = LabelledSet(
            train, targets, config.max_duration_s, shuffle=True, seed=config.seed,
            skip_log=self.skip_log, num_workers=config.num_workers,
        )  # fmt: skip
        self.dev = LabelledSet(dev, {}, config.max_duration_s, skip_log=self.skip_log)
        self.references = {
            cut.id: Transcript(cut.id, transcript(cut) or "", cut.supervisions[0].speaker) for cut in dev
        }
        self.updater = Updater(self.model, config)
        mask_frames = round(config.time_mask_ms * 16 / self.model.stride)
        self.masker = FeatureMasker(
            config.time_masks, mask_frames, config.feature_masks, config.feature_mask_share
        )  # fmt: skip
        self.log = JsonLog(self.folder / exp.LOG)
        self.step = self.epoch = self.position = self.bad_steps = 0
        self.wall_s = 0.0
        self.best: dict[str, Any] = {}
        self.features_dir = features_dir or self.folder / "features"

    def run(self) -> dict[str, Any]:
        """Train to the end, or find that it is done.

        Returns:
            The content of `DONE`: best step and dev WER, cost, data.

        Raises:
            SslbenchError: the loss stays not finite, or too many clips are unusable.
        """
        if (self.folder / exp.DONE).is_file():
            print(f"{self.folder}: already trained")
            return dict(read_json(self.folder / exp.DONE))
        self._restore()
        began = time.monotonic() - self.wall_s
        self._cache_features()
        if self.step == 0 and self.config.normalise == "channel":
            self.model.featurizer.fit(self._measured())
        meter = Meter()
        with Progress("finetune", self.config.steps, self.step) as progress:
            for batch in self._stream():
                self._update(batch, meter)
                self.wall_s = time.monotonic() - began
                if self.step % self.config.log_every_steps == 0:
                    self._log_training(meter)
                if self.step % self.config.eval_every_steps == 0 or self.step == self.config.steps:
                    self._evaluate()
                    self.wall_s = time.monotonic() - began
                    self._save()
                    meter.restart_clock()
                progress.advance(note=f"dev WER {self.best['dev_wer']:.1f} %" if self.best else "")
        return self._finish()

    def _stream(self) -> Iterator[Batch]:
        """Batches until the last step, over as many epochs as it takes."""
        while self.step < self.config.steps:
            found = False
            for batch in self.train.epoch(self.epoch, self.position):
                self.position, found = batch.position + 1, True
                yield batch
                if self.step >= self.config.steps:
                    return
            if not found and self.position == 0:
                raise SslbenchError(f"finetune: no batch could be read; see {self.folder / exp.SKIPPED}")
            self.epoch, self.position = self.epoch + 1, 0

    def _update(self, batch: Batch, meter: Meter) -> None:
        seed_everything(self.model, self.config.seed, "finetune", self.step)
        self.updater.prepare(self.step)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.config.precision == "bf16"):
            log_probs, lens = self._forward(batch)
        found = ctc_loss(log_probs, lens, batch.targets)
        loss = found.loss_sum / found.frames
        norm = self.updater.step(loss) if bool(torch.isfinite(loss)) else math.nan
        self.step += 1
        if math.isfinite(norm):
            self.bad_steps = 0
            sums = {"loss_sum": float(found.loss_sum.detach()), "frames": float(found.frames)}
            meter.add(sums, batch.seconds)
            return
        self.bad_steps += 1
        ids = [cut.id for cut in batch.cuts]
        self.log.write({"step": self.step, "event": "not finite, update skipped", "cuts": ids})
        if self.bad_steps >= MOST_BAD_STEPS:
            raise SslbenchError(
                f"finetune: {self.bad_steps} updates in a row were not finite, last on {', '.join(ids[:3])}; "
                "lower lr or upstream_lr"
            )

    def _forward(self, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
        return self.model.log_probs(*batch_states(self.model, batch, self.device), self.masker)

    @torch.no_grad()
    def _measured(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """States of the first minutes of training data."""
        self.model.eval()
        seconds = 0.0
        for batch in self.train.epoch(0):
            yield batch_states(self.model, batch, self.device)
            seconds += batch.seconds
            if seconds >= MEASURED_S:
                return

    def _log_training(self, meter: Meter) -> None:
        means, cost = meter.close()
        row = {"step": self.step, "epoch": self.epoch, "lr": self.updater.lr, **means, **cost}
        self.log.write({**row, "wall_s": round(self.wall_s, 2)})

    def _evaluate(self) -> None:
        """Dev WER; the weights are kept when it is the lowest so far."""
        found = {
            i: Transcript(i, text) for i, text in transcribe(self.model, self.vocab, self.dev, self.device)
        }
        scored = score(self.references, found)
        row = {
            "step": self.step,
            "dev_wer": 100 * scored.total("words").rate,
            "dev_cer": 100 * scored.total("characters").rate,
        }
        self.log.write(row)
        if not self.best or (row["dev_wer"], row["dev_cer"]) < (self.best["dev_wer"], self.best["dev_cer"]):
            self.best = row
            facts = {"dev_wer": row["dev_wer"], "dev_cer": row["dev_cer"]}
            state = checkpoint.Snapshot(self.step, self.model.state_dict(), None, {}, facts)
            checkpoint.save(self.folder / exp.BEST, state, keep_last=1)

    def _save(self) -> None:
        trainer = {
            "optimizer": self.updater.optimizer.state_dict(),
            "epoch": self.epoch,
            "position": self.position,
            "bad_steps": self.bad_steps,
            "best": self.best,
            "wall_s": self.wall_s,
        }
        facts = {"dev_wer": self.best["dev_wer"], "best_step": self.best["step"]}
        state = checkpoint.Snapshot(self.step, self.model.state_dict(), None, trainer, facts)
        checkpoint.save(self.folder / exp.CHECKPOINTS, state, self.config.keep_checkpoints)

    def _restore(self) -> None:
        step = checkpoint.newest_good(self.folder / exp.CHECKPOINTS)
        self.log.rewind(step or 0)
        if step is None:
            return
        folder = checkpoint.folder_of(self.folder / exp.CHECKPOINTS, step)
        state = checkpoint.load(folder)
        load_strict(self.model, state.model, where=str(folder))
        self.updater.optimizer.load_state_dict(state.trainer["optimizer"])
        self.step = state.step
        for name in ("epoch", "position", "bad_steps", "best", "wall_s"):
            setattr(self, name, state.trainer[name])
        print(f"{self.folder}: goes on from step {step}")

    def _cache_features(self) -> None:
        """Compute a frozen upstream's features, unless they would not fit."""
        if self.model.upstream is not None or self.step >= self.config.steps:
            return
        frames = (self.train.seconds + self.dev.seconds) * 16000 / self.model.stride
        size = 2 * frames * self.model.layers * self.model.dim
        if size > self.config.cache_limit_gib * 2**30:
            print(f"finetune: frozen features need {size / 2**30:.1f} GiB, above cache_limit_gib: not cached")
            return
        weights = exp.weights_of(self.model.any_upstream)
        for name, data in (("train", self.train), ("dev", self.dev)):
            cuts = sha256_json([cut.to_dict() for cut in data.cuts])
            key = {
                "upstream": self.config.upstream,
                "weights": list(weights),
                "seed": self.config.seed,
                "cuts": cuts,
            }
            path = self.features_dir / f"{name}.f16"
            data.use_cache(
                FeatureCache.build(
                    path, key, data.cuts, self._states, self.skip_log, self.config.max_duration_s
                )
            )

    def _states(self, audio: torch.Tensor, lens: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return self.model.states(audio.to(self.device), lens)

    def _finish(self) -> dict[str, Any]:
        trainable = sum(p.numel() for p in self.model.parameters())
        data = describe(self.config.train_manifest)
        done = {
            **self.best,
            "steps": self.config.steps,
            "wall_s": round(self.wall_s, 2),
            "peak_mem_bytes": peak_mem_bytes(),
            "params_trainable": trainable,
            "layer_weights": [round(w, 4) for w in self.model.featurizer.weights.softmax(0).tolist()],
            "train_hours": data.data.hours,
            "train_sha256": data.sha256,
            "dev_sha256": describe(self.config.dev_manifest).sha256,
            "config_sha256": sha256_json(identity(configs.to_dict(self.config))),
            "skipped": self.skip_log.count,
        }
        write_json(self.folder / exp.DONE, done)
        return done

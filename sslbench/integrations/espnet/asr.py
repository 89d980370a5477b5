"""An upstream judged by ESPnet's own ASR: collect stats, train, decode, score, one result row.

ESPnet runs unmodified in processes of its own; its s3prl front end finds our names on `s3prl.hub` and
hands `path_or_url` to the entry as `ckpt` (espnet2/asr/frontend/s3prl.py, s3prl/nn/upstream.py).
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from sslbench import io, registry
from sslbench.errors import SslbenchError
from sslbench.finetune.vocab import BpeVocab
from sslbench.integrations.espnet.claim import claim, decode_yaml, train_yaml
from sslbench.integrations.espnet.export import export
from sslbench.integrations.s3prl._hook import installed
from sslbench.nn.upstream import weights_of
from sslbench.upstreams import load_upstream

TAIL_LINES = 15
ACCOUNT_S = 60.0  # a run that is killed loses at most so much of its time
STAGES = ("export", "train", "decode")
BLANK, UNKNOWN, SPACE, SENTENCE_END = "<blank>", "<unk>", "<space>", "<sos/eos>"


@dataclass(frozen=True)
class AsrRun:
    """Settings of one run."""

    upstream: str
    """Registered name, or any name of s3prl."""
    train: str
    """Manifest to learn from."""
    dev: str
    """Manifest that picks the epoch."""
    test: str
    """Manifest to transcribe."""
    out: str
    """Folder of the experiment."""
    ckpt: str | None = None
    """Checkpoint of the upstream."""
    config: str | None = None
    """ESPnet YAML replacing the shipped one; its front end's upstream is filled in here."""
    decode_config: str | None = None
    """ESPnet YAML of `asr_inference` replacing the shipped greedy CTC."""
    units: str = "char"
    """`char`, or `bpe`: word pieces learned from the training transcripts."""
    bpe_size: int = 5000
    """Word pieces."""
    speeds: tuple[float, ...] = ()
    """Factors of speed-perturbed copies of the training set, beside the original."""
    epochs: int | None = None
    """Passes over the training set, where not as the YAML says."""
    lr: float | None = None
    """Peak learning rate, where not as the YAML says."""
    ngpu: int = 0
    """GPUs for training and decoding."""
    seed: int = 0
    """Of ESPnet's random numbers."""

    @cached_property
    def built(self) -> tuple[str, str | None, int]:
        """Kind and sha256 of the upstream's weights, and the width of its last layer; it is built once."""
        upstream = load_upstream(self.upstream, ckpt=self.ckpt)
        with torch.no_grad():
            states = upstream([torch.zeros(16_000)])["hidden_states"]
        return *weights_of(upstream), int(states[-1].shape[-1])


def run(settings: AsrRun, stop_after: str = "decode", random_too: bool = True) -> Path:
    """Do every stage that is not complete yet.

    Args:
        settings: of the run.
        stop_after: one of `STAGES`.
        random_too: False refuses an upstream with random weights.

    Returns:
        The hypotheses, `id words` per line.

    Raises:
        SslbenchError: the folder holds another run, or an ESPnet stage failed (its last
            lines are shown and its log is named).
    """
    out = Path(settings.out).resolve()
    claim(out, settings, random_too)
    _export(out, settings)
    if stop_after == "export":
        return out / "data"
    config = _train_config(settings)
    io.write_yaml(out / "train.yaml", config)
    ours = config.get("encoder") in _our_names()
    _stage(out, "collect_stats", "asr_train", _collect_words(out, settings), ours)
    _stage(out, "train", "asr_train", _train_words(out, settings), ours)
    if stop_after == "train":
        return out / "model"
    _stage(out, "decode", "asr_inference", _decode_words(out, settings, _model_file(out, config)), ours)
    return out / "decode" / "1best_recog" / "text"


def _our_names() -> set[str]:
    """Encoders that only our wrapper programs know."""
    return {entry.name for entry in registry.upstreams()}


def _export(out: Path, settings: AsrRun) -> None:
    for split in ("train", "dev", "test"):
        if not (out / "data" / split / "spk2utt").is_file():
            speeds = settings.speeds if split == "train" else ()
            # nothing is learned from the test set: also what is silent there can be transcribed
            done = export(
                getattr(settings, split), out / "data" / split, speeds=speeds, keep_silent=split == "test"
            )
            print(f"{split}: {done.utterances} utterances, {done.skipped} skipped", file=sys.stderr)
    if (out / "tokens.txt").is_file():
        return
    text = out / "data" / "train" / "text"
    listed = word_pieces(text, out, settings.bpe_size) if settings.units == "bpe" else tokens(text)
    io.write_text(out / "tokens.txt", "".join(f"{token}\n" for token in listed))


def _model_file(out: Path, config: Mapping[str, Any]) -> Path:
    """The average of the best epochs where ESPnet made one, else the best epoch."""
    split, metric, _ = (config.get("best_model_criterion") or [["valid", "loss", "min"]])[-1]
    average = out / "model" / f"{split}.{metric}.ave.pth"
    return average if average.exists() else average.with_name(f"{split}.{metric}.best.pth")


def _common_words(out: Path, settings: AsrRun) -> list[Any]:
    words: list[Any] = ["--config", out / "train.yaml", "--ngpu", settings.ngpu, "--seed", settings.seed]
    words += ["--token_type", settings.units, "--token_list", out / "tokens.txt"]
    if settings.units == "bpe":
        words += ["--bpemodel", out / BpeVocab.MODEL]
    for flag, split in (("train", "train"), ("valid", "dev")):
        folder = out / "data" / split
        for value in (f"{folder / 'wav.scp'},speech,sound", f"{folder / 'text'},text,text"):
            words += [f"--{flag}_data_path_and_name_and_type", value]
    return words


def _collect_words(out: Path, settings: AsrRun) -> list[Any]:
    words = [*_common_words(out, settings), "--collect_stats", "true", "--normalize", "none"]
    words += [
        "--train_shape_file",
        out / "data/train/wav.scp",
        "--valid_shape_file",
        out / "data/dev/wav.scp",
    ]
    return [*words, "--output_dir", out / "stats"]


def _train_words(out: Path, settings: AsrRun) -> list[Any]:
    words = [*_common_words(out, settings), "--resume", "true"]
    if settings.ngpu > 1:  # a process per GPU; without it ESPnet uses DataParallel
        words += ["--multiprocessing_distributed", "true"]
    for split in ("train", "valid"):
        for shape in ("speech_shape", "text_shape"):
            words += [f"--{split}_shape_file", out / "stats" / split / shape]
    return [*words, "--output_dir", out / "model"]


def _decode_words(out: Path, settings: AsrRun, model: Path) -> list[Any]:
    scp, config = out / "data/test/wav.scp", decode_yaml(settings)
    words = ["--ngpu", settings.ngpu, "--config", config, "--key_file", scp]
    words += ["--data_path_and_name_and_type", f"{scp},speech,sound"]
    words += ["--asr_train_config", model.with_name("config.yaml"), "--asr_model_file", model]
    return [*words, "--output_dir", out / "decode"]


def tokens(text: Path) -> list[str]:
    """ESPnet's character list of a training text: blank, unknown, the characters, end of sentence."""
    lines = text.read_text(encoding="utf-8").splitlines()
    seen = {character for line in lines for character in line.partition(" ")[2]}
    letters = [SPACE if character == " " else character for character in sorted(seen)]
    return [BLANK, UNKNOWN, *letters, SENTENCE_END]


def word_pieces(text: Path, out: Path, size: int) -> list[str]:
    """ESPnet's list of word pieces learned from a training text; sentencepiece's model comes into `out`."""
    lines = text.read_text(encoding="utf-8").splitlines()
    learned = BpeVocab.from_texts((line.partition(" ")[2] for line in lines), size)
    with io.atomic_path(out / BpeVocab.MODEL) as temporary:
        temporary.write_bytes(learned.model)
    return [BLANK, UNKNOWN, *learned.symbols[2:], SENTENCE_END]


def _train_config(settings: AsrRun) -> dict[str, Any]:
    """The YAML with the upstream filled in: as front end, and its width before a linear pre-encoder."""
    config: dict[str, Any] = io.read_yaml(train_yaml(settings))
    source = {"path_or_url": str(Path(settings.ckpt).resolve())} if settings.ckpt else {}
    config["frontend"] = "s3prl"
    config["frontend_conf"] = {
        "frontend_conf": {"upstream": settings.upstream, **source},
        "multilayer_feature": True,
    }
    if config.get("preencoder") == "linear":
        config["preencoder_conf"] = {**config.get("preencoder_conf", {}), "input_size": settings.built[2]}
    if settings.lr is not None:
        config["optim_conf"] = {**config.get("optim_conf", {}), "lr": settings.lr}
    if settings.epochs is not None:
        config["max_epoch"] = settings.epochs
    return config


def _stage(out: Path, stage: str, tool: str, words: list[Any], ours: bool = False) -> None:
    """Run one ESPnet program once; `DONE.<stage>` marks it complete. `ours`: it needs our encoders."""
    mark, log, spent = out / f"DONE.{stage}", out / f"{stage}.log", out / f"spent.{stage}.json"
    if mark.is_file():
        print(f"{stage}: complete, skipped", file=sys.stderr)
        return
    # with the start-up hook ESPnet's own program finds our names; without it our wrapper registers them
    package = "espnet2.bin" if installed() and not ours else "sslbench.integrations.espnet"
    command = [sys.executable, "-m", f"{package}.{tool}", *map(str, words)]
    print(f"{stage}: {package}.{tool}, log in {log}", file=sys.stderr)
    # only a training goes on where it was
    resumes = stage == "train" and (out / "model" / "checkpoint.pth").is_file() and spent.is_file()
    status = _run(command, log, spent, io.read_json(spent)["wall_s"] if resumes else 0.0)
    if status:
        tail = "\n".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-TAIL_LINES:])
        raise SslbenchError(f"ESPnet's {stage} stopped with status {status}; {log} ends with:\n{tail}")
    io.write_json(mark, io.read_json(spent))


def _run(command: list[str], log: Path, spent: Path, before_s: float) -> int:
    """Run a program, adding to its log; `spent` says how long it took so far, with the runs before it."""
    started = time.monotonic()

    def account() -> None:
        io.write_json(spent, {"wall_s": before_s + time.monotonic() - started})

    with (
        log.open("a", encoding="utf-8") as stream,
        subprocess.Popen(command, stdout=stream, stderr=subprocess.STDOUT) as process,
    ):
        try:
            while True:
                try:
                    return process.wait(ACCOUNT_S)
                except subprocess.TimeoutExpired:
                    account()
        except BaseException:  # as subprocess.run
            process.kill()
            raise
        finally:
            account()


def stage_seconds(out: Path | str) -> dict[str, float]:
    """Wall seconds of each stage, from its mark."""
    marks = sorted(Path(out).glob("DONE.*"))
    return {mark.suffix[1:]: float(io.read_json(mark)["wall_s"]) for mark in marks}

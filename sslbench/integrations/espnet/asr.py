"""An upstream judged by ESPnet's own ASR: collect stats, train, decode, score, one result row.

ESPnet runs unmodified in processes of its own; its s3prl front end finds our names on `s3prl.hub` and
hands `path_or_url` to the entry as `ckpt` (espnet2/asr/frontend/s3prl.py, s3prl/nn/upstream.py).
"""

from __future__ import annotations

import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from sslbench import io
from sslbench.errors import SslbenchError
from sslbench.integrations.espnet.export import export
from sslbench.integrations.s3prl._hook import installed

HERE = Path(__file__).parent
TAIL_LINES = 15
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
    epochs: int = 10
    """Passes over the training set."""
    lr: float = 1e-3
    """Learning rate of Adam, the only thing that SUPERB lets differ between upstreams."""
    ngpu: int = 0
    """GPUs for training and decoding."""
    seed: int = 0
    """Of ESPnet's random numbers."""


def run(settings: AsrRun) -> Path:
    """Do every stage that is not complete yet.

    Returns:
        The hypotheses, `id words` per line.

    Raises:
        SslbenchError: the folder holds a run with other settings, or an ESPnet stage failed (its last
            lines are shown and its log is named).
    """
    out = Path(settings.out).resolve()
    _claim(out, settings)
    for split in ("train", "dev", "test"):
        if not (out / "data" / split / "spk2utt").is_file():
            done = export(getattr(settings, split), out / "data" / split)
            print(f"{split}: {done.utterances} utterances, {done.skipped} skipped", file=sys.stderr)
    if not (out / "tokens.txt").is_file():
        io.write_text(out / "tokens.txt", "".join(f"{t}\n" for t in tokens(out / "data" / "train" / "text")))
    io.write_yaml(out / "train.yaml", _train_config(settings))
    _stage(out, "collect_stats", "asr_train", _collect_words(out, settings))
    _stage(out, "train", "asr_train", _train_words(out, settings))
    _stage(out, "decode", "asr_inference", _decode_words(out, settings))
    return out / "decode" / "1best_recog" / "text"


def _common_words(out: Path, settings: AsrRun) -> list[Any]:
    words: list[Any] = ["--config", out / "train.yaml", "--ngpu", settings.ngpu, "--seed", settings.seed]
    words += ["--token_type", "char", "--token_list", out / "tokens.txt"]
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
    words = [*_common_words(out, settings), "--max_epoch", settings.epochs, "--resume", "true"]
    for split in ("train", "valid"):
        for shape in ("speech_shape", "text_shape"):
            words += [f"--{split}_shape_file", out / "stats" / split / shape]
    return [*words, "--output_dir", out / "model"]


def _decode_words(out: Path, settings: AsrRun) -> list[Any]:
    scp, model = out / "data/test/wav.scp", out / "model"
    words = ["--ngpu", settings.ngpu, "--config", HERE / "decode_ctc.yaml", "--key_file", scp]
    words += ["--data_path_and_name_and_type", f"{scp},speech,sound"]
    words += ["--asr_train_config", model / "config.yaml", "--asr_model_file", model / "valid.loss.best.pth"]
    return [*words, "--output_dir", out / "decode"]


def tokens(text: Path) -> list[str]:
    """ESPnet's character list of a training text: blank, unknown, the characters, end of sentence."""
    lines = text.read_text(encoding="utf-8").splitlines()
    seen = {character for line in lines for character in line.partition(" ")[2]}
    letters = [SPACE if character == " " else character for character in sorted(seen)]
    return [BLANK, UNKNOWN, *letters, SENTENCE_END]


def _claim(out: Path, settings: AsrRun) -> None:
    """One folder holds one run: mixing stages of two would give a number of neither."""
    wanted = {key: value for key, value in asdict(settings).items() if key != "out"}
    path = out / "run.yaml"
    if path.is_file() and (found := io.read_yaml(path)) != wanted:
        differ = ", ".join(sorted(key for key in wanted if found.get(key) != wanted[key]))
        raise SslbenchError(
            f"{out}: holds a run with another {differ}; give another --out or remove the folder"
        )
    io.write_yaml(path, wanted)


def _train_config(settings: AsrRun) -> dict[str, Any]:
    config: dict[str, Any] = io.read_yaml(settings.config or HERE / "asr_ctc.yaml")
    source = {"path_or_url": str(Path(settings.ckpt).resolve())} if settings.ckpt else {}
    config["frontend"] = "s3prl"
    config["frontend_conf"] = {
        "frontend_conf": {"upstream": settings.upstream, **source},
        "multilayer_feature": True,
    }
    config["optim_conf"] = {**config.get("optim_conf", {}), "lr": settings.lr}
    return config


def _stage(out: Path, stage: str, tool: str, words: list[Any]) -> None:
    """Run one ESPnet program once; `DONE.<stage>` marks it complete."""
    mark, log = out / f"DONE.{stage}", out / f"{stage}.log"
    if mark.is_file():
        print(f"{stage}: complete, skipped", file=sys.stderr)
        return
    # with the start-up hook ESPnet's own program finds our names; without it our wrapper registers them
    package = "espnet2.bin" if installed() else "sslbench.integrations.espnet"
    command = [sys.executable, "-m", f"{package}.{tool}", *map(str, words)]
    print(f"{stage}: {package}.{tool}, log in {log}", file=sys.stderr)
    started = time.monotonic()
    with log.open("w", encoding="utf-8") as stream:
        status = subprocess.run(command, stdout=stream, stderr=subprocess.STDOUT).returncode
    if status:
        tail = "\n".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-TAIL_LINES:])
        raise SslbenchError(f"ESPnet's {stage} stopped with status {status}; {log} ends with:\n{tail}")
    io.write_json(mark, {"wall_s": time.monotonic() - started})


def stage_seconds(out: Path | str) -> dict[str, float]:
    """Wall seconds of each stage, from its mark."""
    marks = sorted(Path(out).glob("DONE.*"))
    return {mark.suffix[1:]: float(io.read_json(mark)["wall_s"]) for mark in marks}

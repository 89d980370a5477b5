"""An invented benchmark: five systems, five evaluations. Never a result."""

from __future__ import annotations

import json
import math
import random
from pathlib import Path
from typing import Any

from sslbench.report import store
from sslbench.report.schema import Metric, ResultRow
from sslbench.report.stats import bootstrap_ratio

WORDS = "THE CAT SAW A RED FOX RUN OVER HILLS WHERE OLD TREES STAND BY SLOW RIVERS".split()  # noqa: SIM905

# name, upstream, weights, word error probability, phone factor, sid accuracy, params, MACs G, RTF, train s/s
SYSTEMS = (
    ("zipformer-mini", "zipformer_tiny", "trained", 0.21, 0.8, 0.93, 1_312_004, 21.4, 0.0031, 78.0),
    ("hubert-k2ssl-mini", "hubert_k2ssl_tiny", "trained", 0.24, 0.85, 0.92, 1_239_140, 24.4, 0.0042, 58.8),
    ("hubert-orig-mini", "hubert_orig_tiny", "trained", 0.245, 0.9, 0.88, 1_239_140, 24.4, 0.0044, 31.2),
    ("zipformer-random", "zipformer_tiny", "random", 0.62, 0.7, 0.55, 1_312_004, 21.4, 0.0031, 78.0),
    ("fbank", "fbank", "none", 0.71, 0.8, 0.41, 0, 0.61, 0.0011, None),
)


def stamp(**changes: Any) -> dict[str, Any]:
    """A provenance record."""
    return {
        "created_utc": "2026-11-21T11:30:00+00:00",
        "commit": "0123456789abcdef0123456789abcdef01234567",
        "dirty": False,
        "packages": {"sslbench": "0.1.0", "torch": "2.8.0", "lhotse": "1.33.0"},
        "python": "3.11.2",
        "platform": "Linux-6.1-x86_64",
        "cpu": "AMD EPYC 9655 96-Core Processor",
        "cpu_count": 2,
        "gpu": "none",
        "torch_threads": 2,
        "config_sha256": "c" * 64,
        "data_sha256": "d" * 64,
        "seed": 0,
        "command": "sslbench superb run --task sid --upstream zipformer_tiny",
        **changes,
    }


def fields(system: str = "a-system", evaluation: str = "asr", **changes: Any) -> dict[str, Any]:
    """The fields of a valid row."""
    return {
        "system": system,
        "upstream": "zipformer_tiny",
        "evaluation": evaluation,
        "tier": "short",
        "weights": "trained",
        "weights_sha256": "e" * 64,
        "data": {"corpus": "mini", "split": "test-clean", "synthetic": True, "hours": 0.25},
        "metrics": {
            "wer": {
                "value": 12.345,
                "unit": "%",
                "higher_is_better": False,
                "low": 11.2,
                "high": 13.6,
                "n": 90,
            }
        },
        "provenance": stamp(),
        **changes,
    }


def write_benchmark(folder: Path) -> Path:
    """Results with predictions and layer weights, and three training runs; returns the results folder."""
    results = folder / "results"
    for index, system in enumerate(SYSTEMS):
        name, upstream, weights, wer, phone_factor, sid = system[:6]
        known = {
            "upstream": upstream,
            "weights": weights,
            "weights_sha256": None if weights in ("random", "none") else "e" * 64,
        }
        _recognition(results, name, "asr", "wer", wer, index, known)
        _recognition(results, name, "pr", "per", wer * phone_factor, index, known)
        _identification(results, name, sid, index, known)
        _profile(results, system, known)
        if weights == "trained":
            _pretraining(results, name, 40.0 + 25 * index, known)
    _logs(folder)
    return results


def _recognition(
    results: Path, name: str, evaluation: str, metric: str, rate: float, index: int, known: dict[str, Any]
) -> None:
    draw, noise = random.Random(1), random.Random(100 + index)
    lines, errors, lengths = [], [], []
    for number in range(150):
        said = draw.choices(WORDS, k=draw.randint(4, 14))
        heard = [noise.choice(WORDS) + "S" if noise.random() < rate else word for word in said]
        errors.append(sum(a != b for a, b in zip(said, heard, strict=True)))
        lengths.append(len(said))
        lines.append(
            {
                "id": f"utt-{number:03}",
                "speaker": f"spk{number % 15}",
                "ref": " ".join(said),
                "hyp": " ".join(heard),
            }
        )
    low, high = bootstrap_ratio(errors, lengths, [str(line["speaker"]) for line in lines])
    value = Metric(
        value=100 * sum(errors) / sum(lengths),
        unit="%",
        higher_is_better=False,
        low=100 * low,
        high=100 * high,
        n=150,
    )
    _write(results, name, evaluation, {metric: value}, lines, known, layers=index + 5)


def _identification(results: Path, name: str, accuracy: float, index: int, known: dict[str, Any]) -> None:
    noise = random.Random(200 + index)
    right = [float(noise.random() < accuracy) for _ in range(200)]
    lines = [
        {
            "id": f"sid-{number:03}",
            "speaker": f"spk{number % 15}",
            "ref": f"spk{number % 15}",
            "hyp": f"spk{number % 15}" if ok else "spkX",
        }
        for number, ok in enumerate(right)
    ]
    low, high = bootstrap_ratio(right, [1.0] * len(right))
    value = Metric(
        value=100 * sum(right) / len(right),
        unit="%",
        higher_is_better=True,
        low=100 * low,
        high=100 * high,
        n=200,
    )
    _write(results, name, "sid", {"accuracy": value}, lines, known, layers=index + 5)


def _write(
    results: Path,
    name: str,
    evaluation: str,
    metrics: dict[str, Metric],
    lines: list[Any],
    known: Any,
    layers: int,
) -> None:
    folder = results / name / evaluation
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "predictions.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    raw = [math.exp(-abs(layer - layers / 2)) for layer in range(layers)]
    (folder / "layer_weights.json").write_text(json.dumps([weight / sum(raw) for weight in raw]))
    artifacts = {
        key: f"{evaluation}/{key}.{end}" for key, end in (("predictions", "jsonl"), ("layer_weights", "json"))
    }
    command = f"sslbench superb run --task {evaluation} --system {name} --results results"
    row = fields(
        name, evaluation, metrics=metrics, artifacts=artifacts, provenance=stamp(command=command), **known
    )
    store.save(store.make_row(**row), results)


def _profile(results: Path, system: Any, known: dict[str, Any]) -> None:
    name, upstream = system[:2]
    params, macs, rtf, train = system[6:]
    numbers = {
        "macs_g": (macs, "G", False),
        "params_total": (params, "parameters", False),
        "rtf": (rtf, "s/s", False),
        "audio_s_per_s": (1.2 / rtf, "s/s", True),
        "train_audio_s_per_s": (train, "s/s", True),
        "peak_mem_train_bytes": (None if train is None else 9e8 - 3e6 * train, "bytes", False),
        "longest_batch_audio_s": (None if train is None else 5.0 * round(3 * train), "s", True),
    }
    metrics = {
        key: Metric(value=value, unit=unit, higher_is_better=higher)
        for key, (value, unit, higher) in numbers.items()
        if value is not None
    }
    data = {"corpus": "superb-32-lengths", "split": "noise", "synthetic": True, "hours": 0.0625}
    made = stamp(command=f"sslbench profile {upstream} --results results")
    cost = {"single_spread": 0.012, "batch_spread": 0.021, "unlisted_operators": 0.0}
    row: ResultRow = store.make_row(
        **fields(name, "profile", metrics=metrics, data=data, cost=cost, provenance=made, **known)
    )
    store.save(row, results)


def write_large(results: Path, utterances: int = 300) -> Path:
    """200 rows: 25 systems with long names, six scores with predictions, cost with growth, pretraining."""
    draw = random.Random(7)
    scores = {"asr": "wer", "pr": "per", "sid": "accuracy", "ks": "accuracy", "ic": "accuracy", "asv": "eer"}
    families = ("zipformer-fbank-base", "hubert-k2ssl-base", "hf-wavlm-base", "melhubert-20ms", "fast-hubert")
    for number in range(25):
        name = f"{families[number % 5]}-librispeech960-it{number // 5 + 1}"
        for evaluation, metric in scores.items():
            rises = metric == "accuracy"
            share = (0.95 - 0.013 * number if rises else 0.05 + 0.017 * number) + draw.uniform(-0.02, 0.02)
            length = 1 if rises else 15
            lines = [
                {
                    "id": f"utt-{n:04}",
                    "speaker": f"spk{n % 40}",
                    "ref": " ".join(WORDS[:length]),
                    "hyp": " ".join(WORDS[:length]),
                    "errors": sum(draw.random() < share for _ in range(length)),
                    "length": length,
                }
                for n in range(utterances)
            ]
            value = 100 * sum(int(str(line["errors"])) for line in lines) / (length * utterances)
            found = Metric(
                value=value, unit="%", higher_is_better=rises, low=value - 1.1, high=value + 1.2, n=utterances
            )
            _write(results, name, evaluation, {metric: found}, lines, {}, layers=13)
        macs, train = draw.uniform(400, 1700), draw.uniform(2, 20)
        system = (name, "zipformer_base", "trained", 0, 0, 0, 94_561_917, macs, macs / 2e4, train)
        _profile(results, system, {})
        row = store.load(store.row_path(results, name, "profile"))
        row.cost |= {
            f"macs_at_{t}s_g": macs * t / 225 * (1 + t / 900) for t in (5, 10, 20, 40, 80, 160, 320, 600)
        }
        row.cost |= {f"wall_at_{t}s_s": macs * t / 5e6 * (1 + t / 90) for t in (5, 10, 20, 40)}
        store.save(row, results)
        _pretraining(results, name, draw.uniform(60, 900), {})
    return results


def _pretraining(results: Path, name: str, hours: float, known: dict[str, Any]) -> None:
    metrics = {
        "dev_acc": Metric(value=9.0, unit="%", higher_is_better=True),
        "device_hours": Metric(value=hours, unit="h", higher_is_better=False),
    }
    made = stamp(command=f"sslbench export exp/{name} --results results")
    store.save(store.make_row(**fields(name, "pretrain", metrics=metrics, provenance=made, **known)), results)


def _logs(folder: Path) -> None:
    noise = random.Random(5)
    for run, speed in (("pretrain-zipformer", 250.0), ("pretrain-hubert", 400.0)):
        rows: list[dict[str, Any]] = []
        for step in range(10, 2001, 10):
            loss = 2.2 + 2.4 * math.exp(-step / speed)
            rows.append(
                {"step": step, "loss": loss + 0.08 * noise.random(), "acc": (4.7 - loss) / 6, "lr": 1e-3}
            )
            if step % 250 == 0:
                rows.append({"step": step, "dev_loss": loss + 0.15, "dev_acc": (4.6 - loss) / 6})
        _log(folder / "exp" / run, rows)
    rows = [{"step": step, "loss": 3 * math.exp(-step / 200) + 0.3} for step in range(10, 601, 10)]
    rows += [
        {"step": step, "dev_wer": 20 + 70 * math.exp(-step / 150), "dev_cer": 9.0}
        for step in range(100, 601, 100)
    ]
    _log(folder / "exp" / "asr-zipformer", rows)


def _log(folder: Path, rows: list[dict[str, Any]]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    torn = '{"step": 99'  # as a killed writer leaves it
    (folder / "log.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows) + torn)

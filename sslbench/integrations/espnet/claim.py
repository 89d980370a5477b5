"""One folder holds one ESPnet run: its settings, and the content of every file that they name."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sslbench import io
from sslbench.data.manifests import describe
from sslbench.errors import SslbenchError

if TYPE_CHECKING:
    from sslbench.integrations.espnet.asr import AsrRun

HERE = Path(__file__).parent
RUN = "run.yaml"


def train_yaml(settings: AsrRun) -> Path:
    """ESPnet's training YAML."""
    return Path(settings.config or HERE / "asr_ctc.yaml")


def decode_yaml(settings: AsrRun) -> Path:
    """ESPnet's inference YAML."""
    return Path(settings.decode_config or HERE / "decode_ctc.yaml")


def claim(out: Path, settings: AsrRun, random_too: bool = True) -> None:
    """Take a folder for a run, or find it taken by the same: stages of two would give a number of neither.

    Args:
        out: the folder.
        settings: of the run.
        random_too: an upstream with random weights is welcome.

    Raises:
        SslbenchError: it holds a run with other settings, a file has changed since, or random weights.
    """
    wanted = {key: value for key, value in asdict(settings).items() if key != "out"}
    wanted["speeds"] = list(settings.speeds)  # as YAML reads it back
    wanted["content"] = content(settings)
    if wanted["content"]["upstream"] == "random" and not random_too:
        raise SslbenchError(
            f"espnet: {settings.upstream} has random weights, which tier full does not take: give --ckpt, or "
            "choose --tier short"
        )
    path = out / RUN
    if path.is_file() and (found := io.read_yaml(path)) != wanted:
        raise SslbenchError(
            f"{out}: holds a run with another {', '.join(_differ(found, wanted))}; "
            "give another --out or remove the folder"
        )
    io.write_yaml(path, wanted)


def content(settings: AsrRun) -> dict[str, str]:
    """sha256 of what the settings name; for an upstream without a weights file, `random` or `none`."""
    kind, weights, _ = settings.built
    yamls = {"config": train_yaml(settings), "decode_config": decode_yaml(settings)}
    return {
        **{name: io.sha256_json(io.read_yaml(path)) for name, path in yamls.items()},
        **{split: describe(getattr(settings, split)).sha256 for split in ("train", "dev", "test")},
        "upstream": weights or kind,
    }


def _differ(found: dict[str, Any], wanted: dict[str, Any]) -> list[str]:
    named = [key for key in wanted if key != "content" and found.get(key) != wanted[key]]
    was = found.get("content", {})
    if not was:
        return ["version's layout"]
    return sorted(named) + [
        f"content of {key}" for key, value in wanted["content"].items() if was.get(key) != value
    ]

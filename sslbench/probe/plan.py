"""What a task will work on: its clips, folds and identity, before anything is computed."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lhotse.cut import Cut, MonoCut

from sslbench import __version__
from sslbench.config import to_dict
from sslbench.errors import SslbenchError
from sslbench.io import sha256_json
from sslbench.probe.task import PARTS, Example, Parts, ProbeTask, limited

SAMPLED_BYTES = 4096


@dataclass(frozen=True)
class Plan:
    """The clips of a task, each once, and which of them every fold uses."""

    examples: list[Example]
    folds: dict[str, dict[str, list[int]]]
    """Fold name → part → numbers of examples."""

    def test(self) -> list[Example]:
        """The test clips of all folds."""
        numbers = {n for parts in self.folds.values() for n in parts["test"]}
        return [self.examples[n] for n in sorted(numbers)]


def make_plan(task: ProbeTask, root: Path, seed: int) -> Plan:
    """Prepare a task's data, reduced as its tier says.

    Raises:
        SslbenchError: the data is unusable, or one id names two different clips.
    """
    examples: list[Example] = []
    known: dict[str, int] = {}
    folds: dict[str, dict[str, list[int]]] = {}
    for name, prepared in task.folds(root).items():
        folds[name] = {}
        for part in PARTS:
            numbers = []
            for example in _kept(task, prepared, part, seed):
                number = known.setdefault(example.id, len(examples))
                if number == len(examples):
                    examples.append(example)
                elif _place(examples[number].cut) != _place(example.cut):
                    raise SslbenchError(
                        f"{task.name}: two different clips share the id {example.id}; ids must be unique"
                    )
                numbers.append(number)
            folds[name][part] = numbers
    return Plan(examples, folds)


def _kept(task: ProbeTask, prepared: Parts, part: str, seed: int) -> list[Example]:
    kept = limited(prepared[part], task.protocol.hours(part), seed)
    if part == "train":
        return [_shortened(example, task.protocol.max_train_clip_s, seed) for example in kept]
    return kept


def _shortened(example: Example, longest_s: float | None, seed: int) -> Example:
    """A training clip cut to the protocol's length, at a place that depends on seed and id."""
    if longest_s is None or example.cut.duration <= longest_s:
        return example
    share = int(sha256_json([seed, example.id])[:8], 16) / 0xFFFFFFFF
    offset = round(share * (example.cut.duration - longest_s), 4)
    return replace(example, cut=example.cut.truncate(offset=offset, duration=longest_s, preserve_id=True))


def _place(cut: Cut) -> tuple[str, float, float]:
    path = _file(cut)
    return (path or "", float(cut.start), float(cut.duration))


def _file(cut: Cut) -> str | None:
    if not isinstance(cut, MonoCut) or cut.recording is None:
        return None
    sources = cut.recording.sources
    return str(sources[0].source) if len(sources) == 1 and sources[0].type == "file" else None


def audio_digest(examples: list[Example]) -> str:
    """A checksum that changes when an audio file does: of each one's size and three samples of its bytes.

    Whole files are not read, which would take hours for large corpora; time stamps are left out, so that a
    copied corpus counts as the same.
    """
    digest = hashlib.sha256()
    seen: dict[str, bytes] = {}
    for example in examples:
        path = _file(example.cut)
        if path is not None and path not in seen:
            seen[path] = _sampled(Path(path))
        digest.update(seen.get(path or "", b""))
    return digest.hexdigest()


def _sampled(path: Path) -> bytes:
    try:
        size = path.stat().st_size
        digest = hashlib.sha256(str(size).encode())
        with path.open("rb") as stream:
            for start in (0, size // 2, max(0, size - SAMPLED_BYTES)):
                stream.seek(start)
                digest.update(stream.read(SAMPLED_BYTES))
    except OSError:
        return b"unreadable"
    return digest.digest()


def identity(task: ProbeTask, plan: Plan, audio: str, grid: list[float]) -> dict[str, Any]:
    """What of task and data decides a unit's result."""
    protocol = to_dict(task.protocol)
    protocol.pop("lr_grid")
    if task.protocol.early_stop:  # then grid points depend on each other
        protocol["lr_grid"] = grid
    data = [
        [e.id, e.cut.start, e.cut.duration, e.reference, sha256_json(_plain(e.target))] for e in plan.examples
    ]
    return {
        "tier": task.tier,
        "protocol": protocol,
        "labels": sha256_json(task.facts()),
        "data": sha256_json([data, plan.folds, audio]),
        "version": __version__,
    }


def _plain(target: Any) -> Any:
    return target.tolist() if hasattr(target, "tolist") else target

"""What a task will work on: its clips, folds and identity, before anything is computed."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lhotse import AudioSource
from lhotse.cut import Cut, MixedCut, MonoCut

from sslbench import __version__
from sslbench.config import to_dict
from sslbench.errors import SslbenchError
from sslbench.io import sha256_json
from sslbench.probe.task import PARTS, Example, Parts, ProbeTask, limited

SAMPLED_BYTES = 4096
WHOLE_BYTES = 1 << 16  # of a file that is read whole


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


def _place(cut: Cut) -> tuple[list[str], float, float, list[str]]:
    return [str(s.source) for s in _sources(cut)], float(cut.start), float(cut.duration), _treatment(cut)


def _sources(cut: Cut) -> list[AudioSource]:
    """What the cut's audio is read from, those of all tracks of a mixture."""
    cuts = [track.cut for track in cut.tracks] if isinstance(cut, MixedCut) else [cut]
    recordings = [getattr(one, "recording", None) for one in cuts]  # padding has none
    return [source for recording in recordings if recording is not None for source in recording.sources]


def _treatment(cut: Cut) -> list[str]:
    """A checksum of what the cut makes of its files (mixing, channel, transforms); none for reading one."""
    if isinstance(cut, MonoCut) and cut.channel == 0 and not (cut.recording and cut.recording.transforms):
        return []
    return [sha256_json(_without(cut.to_dict(), {"sources", "supervisions", "custom"}))]


def _without(value: Any, names: set[str]) -> Any:
    if isinstance(value, dict):
        return {key: _without(inner, names) for key, inner in value.items() if key not in names}
    return [_without(inner, names) for inner in value] if isinstance(value, list | tuple) else value


def audio_digest(examples: list[Example]) -> str:
    """A checksum that changes when an audio file does: of each one's size and three samples of its bytes.

    Files above `WHOLE_BYTES` are not read whole, which would take hours for large corpora; time stamps are
    left out, so that a copied corpus counts as the same.
    """
    digest = hashlib.sha256()
    seen: dict[str, bytes] = {}
    for source in (source for example in examples for source in _sources(example.cut)):
        if source.type != "file":
            held = source.source
            digest.update(held if isinstance(held, bytes) else str(held).encode())
            continue
        path = str(source.source)
        if path not in seen:
            seen[path] = _sampled(Path(path))
        digest.update(seen[path])
    return digest.hexdigest()


def _sampled(path: Path) -> bytes:
    try:
        size = path.stat().st_size
        digest = hashlib.sha256(str(size).encode())
        with path.open("rb") as stream:
            for start in (0, size // 2, max(0, size - SAMPLED_BYTES)):
                stream.seek(start)
                digest.update(stream.read(WHOLE_BYTES if size <= WHOLE_BYTES else SAMPLED_BYTES))
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
        [e.id, e.cut.start, e.cut.duration, e.reference, sha256_json(_plain(e.target)), *_treatment(e.cut)]
        for e in plan.examples
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

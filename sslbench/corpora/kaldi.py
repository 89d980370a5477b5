"""Kaldi data directories: `wav.scp`, and where they are there `segments`, `text`, `utt2spk`, `spk2gender`.

`--root` is one such directory, or a folder of several (`train`, `dev`, …), which become splits of their
names. Paths in `wav.scp` may be relative to the directory, to one of the two above it, or to where the
command runs. Entries that are commands ("sph2pipe … |") are never run.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sslbench.audio import SAMPLE_RATE_HZ
from sslbench.corpora import PrepareOptions
from sslbench.corpora._checked import Checked, check_all, hold_out, make_cut, report_skipped
from sslbench.errors import SslbenchError

if TYPE_CHECKING:
    from lhotse import MonoCut


def prepare(root: Path, out: Path, options: PrepareOptions) -> dict[str, Any]:
    """Make one manifest per data directory; other formats than 16 kHz mono wav or flac get a copy.

    Without any dev (test) split, some speakers of `train…` become `dev-heldout` (`test-heldout`).

    Returns:
        The content of `corpus.json`.

    Raises:
        SslbenchError: no `wav.scp`, a malformed line (file and line are named), a command instead of a
            file, or no recording that can be used.
    """
    from sslbench.data.manifests import write_corpus

    options.refuse_preset("kaldi")
    root, out = root.resolve(), out.resolve()
    folders = [root] if (root / "wav.scp").is_file() else sorted(p.parent for p in root.glob("*/wav.scp"))
    if not folders:
        raise SslbenchError(f"{root}: neither it nor a folder in it has a wav.scp; check --root")
    splits: dict[str, list[MonoCut]] = {}
    skipped: list[dict[str, Any]] = []
    total = 0
    for folder in folders:
        splits[folder.name], bad, count = _split(folder, out, options)
        skipped += bad
        total += count
    report_skipped(out, "kaldi", total, skipped)
    notes = hold_out(splits, "kaldi", list(splits))
    return write_corpus(
        out, root.name or "kaldi", splits, synthetic=False, skipped=skipped, facts={"notes": notes}
    )


def _split(
    folder: Path, out: Path, options: PrepareOptions
) -> tuple[list[MonoCut], list[dict[str, Any]], int]:
    """The cuts of one data directory, the utterances left out, and how many there were."""
    recordings = {name: _audio(folder, name, where, line) for name, where, line in _table(folder / "wav.scp")}
    segments = _segments(folder, recordings)
    texts = {name: text for name, text, _ in _table(folder / "text", optional=True, may_be_empty=True)}
    speakers = {name: speaker for name, speaker, _ in _table(folder / "utt2spk", optional=True)}
    genders = {name: gender for name, gender, _ in _table(folder / "spk2gender", optional=True)}
    names = options.limited(sorted(segments), str)
    used = {recording: recordings[recording] for recording in sorted({segments[n][0] for n in names})}
    copies = {path: out / "audio" / folder.name / f"{name}.flac" for name, path in used.items()}
    checked = check_all(
        list(copies), out, options.jobs, f"{folder.name}: files decoded", lambda path: copies[path]
    )
    cuts, skipped = [], []
    for name in names:
        recording, start, end = segments[name]
        facts = checked[used[recording]]
        reason = facts.reason or _outside(facts, start, end)
        if reason:
            skipped.append({"id": name, "path": str(used[recording]), "reason": reason})
            continue
        speaker = speakers.get(name)
        cut = make_cut(
            name, facts, text=texts.get(name), speaker=speaker, gender=_gender(genders.get(speaker or ""))
        )
        cuts.append(cut if end is None else _piece(cut, recording, start, end))
    return cuts, skipped, len(names)


def _piece(cut: MonoCut, recording: str, start: float, end: float) -> MonoCut:
    """A segment of a recording, with its times on the sample grid."""
    rate, name = cut.sampling_rate, cut.id
    first, last = round(start * rate), min(round(end * rate), cut.recording.num_samples)
    cut.recording.id = recording
    cut.start, cut.duration = first / rate, (last - first) / rate
    cut.supervisions[0].recording_id, cut.supervisions[0].duration = recording, cut.duration
    cut.custom.pop("pcm_sha256")  # of the whole recording
    cut.id = name
    return cut


def _outside(facts: Checked, start: float, end: float | None) -> str:
    length_s = facts.samples / SAMPLE_RATE_HZ
    if end is not None and (end <= start or end > length_s + 0.5 or start >= length_s):
        return f"the segment {start:g} s to {end:g} s does not lie within the recording's {length_s:.2f} s"
    return ""


def _audio(folder: Path, name: str, where: str, line: int) -> Path:
    """The file of a wav.scp entry. Raises `SslbenchError` for a command, or an entry within an archive."""
    at = f"{folder / 'wav.scp'}:{line}"
    if where.endswith("|") or where.startswith("|"):
        raise SslbenchError(
            f"{at}: {name} is a command ({where[:60]!r}), and commands are not run; write the audio to files "
            "first (in Kaldi: wav-copy scp:wav.scp ark,scp… or sox), then name them in wav.scp"
        )
    if ":" in where and where.rsplit(":", 1)[1].isdigit():
        raise SslbenchError(
            f"{at}: {name} lies in an archive ({where[-60:]!r}); copy the audio to files first (wav-copy)"
        )
    candidates = [base / where for base in (folder, folder.parent, folder.parent.parent, Path.cwd())]
    return next((path for path in candidates if path.is_file()), candidates[0])


def _segments(folder: Path, recordings: dict[str, Path]) -> dict[str, tuple[str, float, float | None]]:
    """Utterance to (recording, start, end); without a `segments` file every recording is an utterance."""
    path = folder / "segments"
    if not path.is_file():
        return {name: (name, 0.0, None) for name in recordings}
    found: dict[str, tuple[str, float, float | None]] = {}
    for name, rest, line in _table(path):
        try:
            recording, start, end = rest.split()
            found[name] = (recording, float(start), float(end))
        except ValueError:
            raise SslbenchError(f"{path}:{line}: expected UTTERANCE RECORDING START END") from None
        if recording not in recordings:
            raise SslbenchError(f"{path}:{line}: wav.scp has no recording {recording}")
    return found


def _table(path: Path, optional: bool = False, may_be_empty: bool = False) -> Iterator[tuple[str, str, int]]:
    """(key, rest, line number) of every line of a Kaldi table."""
    if not path.is_file():
        if optional:
            return
        raise SslbenchError(f"{path}: no such file")
    seen: set[str] = set()
    with path.open(encoding="utf-8", errors="replace") as stream:
        for number, line in enumerate(stream, 1):
            words = line.split(maxsplit=1)
            if not words:
                continue
            if len(words) < 2 and not may_be_empty:
                raise SslbenchError(f"{path}:{number}: has a key but no value: {line.strip()[:60]!r}")
            if words[0] in seen:
                raise SslbenchError(f"{path}:{number}: {words[0]} appears twice")
            seen.add(words[0])
            yield words[0], words[1].strip() if len(words) > 1 else "", number


def _gender(value: str | None) -> str | None:
    return value.strip().upper()[:1] if value else None

"""Recordings decoded once: what each holds, or why it was left out. Interrupted checks go on."""

from __future__ import annotations

import hashlib
import json
import math
import re
import sys
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sslbench import io
from sslbench.audio import SAMPLE_RATE_HZ, load_audio
from sslbench.errors import AudioError, SslbenchError
from sslbench.progress import Progress

if TYPE_CHECKING:
    from lhotse import MonoCut
    from torch import Tensor

MIN_SAMPLES = SAMPLE_RATE_HZ // 40  # one 25 ms window: shorter files hold no frame
CACHE_FILE = "checked.jsonl"
SHOWN = 5
HELD_OUT_PERCENT = 10


@dataclass(frozen=True)
class Checked:
    """One decoded recording."""

    path: str
    """As it was found."""
    bytes: int
    mtime_ns: int
    samples: int = 0
    """Length as a 16 kHz mono signal."""
    rate_hz: int = 0
    channels: int = 0
    pcm_sha256: str = ""
    """Checksum of the 16 kHz mono samples as little-endian int16."""
    audio: str = ""
    """The file to read: `path`, or its 16 kHz mono copy."""
    reason: str = ""
    """Why the recording is left out; empty when it is sound."""


def check_audio(path: Path, copy: Path | None = None) -> Checked:
    """Decode one file completely.

    Args:
        path: an audio file.
        copy: where a 16 kHz mono FLAC goes when the file is anything else; None refuses such files.

    Returns:
        The facts, or the reason why the file is not usable. Never raises for a bad file.
    """
    import soundfile

    try:
        stat = path.stat()
    except OSError:
        return Checked(str(path), 0, 0, reason="no such file")
    seen = Checked(str(path), stat.st_size, stat.st_mtime_ns)
    if stat.st_size == 0:
        return replace(seen, reason="the file is empty (0 bytes)")
    try:
        with soundfile.SoundFile(str(path)) as stream:
            rate_hz, channels, frames = stream.samplerate, stream.channels, stream.frames
            lost = _bytes_lost(stream.extra_info)
    except (soundfile.LibsndfileError, RuntimeError) as error:
        return replace(seen, reason=f"not readable as audio ({_short(error)})")
    seen = replace(seen, rate_hz=rate_hz, channels=channels)
    if lost:
        return replace(seen, reason=f"truncated: the header promises {lost} more bytes than there are")
    try:
        wav = load_audio(path, resample=True)
    except AudioError as error:
        return replace(seen, reason=str(error).removeprefix(f"{path}: ").split(";")[0])
    if abs(len(wav) - frames * SAMPLE_RATE_HZ / rate_hz) > 1 + SAMPLE_RATE_HZ / rate_hz:
        return replace(seen, reason=f"truncated: the header promises {frames} samples at {rate_hz} Hz")
    if len(wav) < MIN_SAMPLES:
        return replace(seen, reason=f"shorter than 25 ms ({len(wav)} samples at 16 kHz)")
    return _with_audio(replace(seen, samples=len(wav)), wav, path, copy)


def _with_audio(seen: Checked, wav: Tensor, path: Path, copy: Path | None) -> Checked:
    """Add the checksum and the file to read, which is made here when the original will not do."""
    import soundfile

    # a float file may exceed full scale: its copy is scaled down rather than clipped
    scale = 32768 / max(1.0, float(wav.abs().max()))
    pcm = (wav * scale).round().clamp(-32768, 32767).short().numpy().astype("<i2")
    seen = replace(seen, pcm_sha256=hashlib.sha256(pcm.tobytes()).hexdigest())
    if seen.rate_hz == SAMPLE_RATE_HZ and seen.channels == 1 and path.suffix.lower() in (".wav", ".flac"):
        return replace(seen, audio=str(path.resolve()))
    if copy is None:
        what = f"{seen.rate_hz} Hz, {seen.channels} channel{'s' * (seen.channels > 1)}"
        return replace(seen, reason=f"{what} instead of 16 kHz mono; the corpus 'folder' converts")
    with io.atomic_path(copy) as temporary:
        soundfile.write(str(temporary), pcm, SAMPLE_RATE_HZ, format="FLAC", subtype="PCM_16")
    return replace(seen, audio=str(copy.resolve()))


def _bytes_lost(log: str) -> int:
    """How much shorter a RIFF file is than its header says, from libsndfile's log."""
    match = re.search(r"data : (\d+) \(should be (\d+)\)", log)
    # writers to a pipe cannot know the length and promise (nearly) 2 or 4 GiB
    if match is None or int(match[1]) >= 0x7FFFF000 or int(match[1]) == 0:
        return 0
    return max(0, int(match[1]) - int(match[2]))


def _short(error: Exception) -> str:
    text = str(error)
    return text.rsplit(": ", 1)[-1].rstrip(".") if "Error opening" in text else text.rstrip(".")


def check_all(
    paths: Sequence[Path],
    out: Path,
    jobs: int,
    what: str,
    copy_of: Callable[[Path], Path] | None = None,
) -> dict[Path, Checked]:
    """Decode many files; files that an earlier run has seen and that did not change are not read again.

    Args:
        paths: the files.
        out: the corpus folder, which keeps `checked.jsonl`.
        jobs: files at a time.
        what: the progress line's name.
        copy_of: where the 16 kHz mono copy of a file goes; None refuses files that need one.
    """
    cache_path = out / CACHE_FILE
    known = _read_cache(cache_path)
    io.write_jsonl(cache_path, [asdict(entry) for entry in known.values()])  # without a torn last line
    fresh = [path for path in paths if not _is_current(known.get(str(path)), path, copy_of)]
    with (
        ThreadPoolExecutor(max(1, jobs)) as pool,
        cache_path.open("a", encoding="utf-8") as cache,
        Progress(what, len(paths), done=len(paths) - len(fresh)) as progress,
    ):
        for entry in pool.map(lambda path: check_audio(path, copy_of(path) if copy_of else None), fresh):
            known[entry.path] = entry
            cache.write(json.dumps(asdict(entry), ensure_ascii=False) + "\n")
            progress.advance()
    return {path: known[str(path)] for path in paths}


def _read_cache(path: Path) -> dict[str, Checked]:
    if not path.is_file():
        return {}
    try:
        return {row["path"]: Checked(**row) for row in io.read_jsonl(path)}
    except (SslbenchError, TypeError, KeyError):
        return {}  # another version's cache: checking again is always right


def _is_current(entry: Checked | None, path: Path, copy_of: Callable[[Path], Path] | None) -> bool:
    try:
        stat = path.stat()
    except OSError:
        return False
    if entry is None or (entry.bytes, entry.mtime_ns) != (stat.st_size, stat.st_mtime_ns):
        return False
    if entry.reason:
        return copy_of is None  # a folder run may now be able to make the copy that was refused
    wanted = {str(path.resolve())} | ({str(copy_of(path).resolve())} if copy_of else set())
    return entry.audio in wanted and Path(entry.audio).is_file()


def report_skipped(
    out: Path, corpus: str, total: int, skipped: list[dict[str, Any]], show: bool = True
) -> None:
    """Name what was left out on the terminal.

    Raises:
        SslbenchError: when nothing is left; `skipped.jsonl` is written first.
    """
    from sslbench.data.manifests import SKIPPED_FILE

    if skipped and show:
        print(f"{corpus}: {len(skipped)} of {total} recordings left out", file=sys.stderr)
        for row in skipped[:SHOWN]:
            print(f"  {row['path']}: {row['reason']}", file=sys.stderr)
        if len(skipped) > SHOWN:
            print(f"  … all are named in {out / SKIPPED_FILE}", file=sys.stderr)
    if total and len(skipped) >= total:
        io.write_jsonl(out / SKIPPED_FILE, skipped)
        raise SslbenchError(
            f"{corpus}: none of {total} recordings can be used (first: {skipped[0]['path']}: "
            f"{skipped[0]['reason']}); see {out / SKIPPED_FILE}"
        )


def make_cut(
    cut_id: str,
    checked: Checked,
    *,
    text: str | None = None,
    speaker: str | None = None,
    gender: str | None = None,
    language: str | None = None,
    labels: dict[str, Any] | None = None,
) -> MonoCut:
    """One cut over a whole checked recording."""
    from lhotse import AudioSource, MonoCut, Recording, SupervisionSegment

    seconds = checked.samples / SAMPLE_RATE_HZ
    source = AudioSource("file", [0], checked.audio)
    recording = Recording(cut_id, [source], SAMPLE_RATE_HZ, checked.samples, seconds)
    supervision = SupervisionSegment(
        cut_id, cut_id, 0.0, seconds, 0, text=text, language=language, speaker=speaker, gender=gender
    )
    if labels:
        supervision.custom = dict(labels)
    custom = {"pcm_sha256": checked.pcm_sha256}
    return MonoCut(cut_id, 0.0, seconds, 0, [supervision], recording=recording, custom=custom)


def bucket(name: str, count: int) -> int:
    """A number below `count` that depends on the name alone, on every machine."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big") % count


def held_out(groups: Iterable[str], percent: int, salt: str = "") -> set[str]:
    """The groups (speakers, folders, files) kept for testing: about `percent` of them, never all.

    A group's lot depends on its name (and the salt) alone, so adding data moves nobody from one side to
    the other, unless chance had picked none or all. Where `percent` means three groups or fewer, chance
    may pick too few for an interval over speakers; then the lowest lots make up that number.
    """
    lots = {name: bucket(salt + name, 1 << 32) / (1 << 32) for name in groups}
    if len(lots) < 2:
        return set()
    chosen = {name for name, lot in lots.items() if lot < percent / 100}
    least = min(math.ceil(len(lots) * percent / 100), 3, len(lots) - 1)
    if least <= len(chosen) < len(lots):
        return chosen
    return set(sorted(lots, key=lambda name: (lots[name], name))[:least])


def hold_out(splits: dict[str, list[MonoCut]], corpus: str, training: Iterable[str]) -> list[str]:
    """Derive missing dev and test splits from training speakers, and say so.

    Args:
        splits: changed in place: `dev-heldout` and `test-heldout` are added.
        corpus: for the message.
        training: names of splits that may give speakers away, of which those named `train…` do. Every
            other split named `train…` loses these speakers too.

    Returns:
        What was done, in words.
    """
    notes, givers = [], [name for name in training if name.startswith("train")]
    for kind in ("dev", "test"):
        parts = {name: splits[name] for name in givers if splits[name]}
        if not parts or any(name.startswith(kind) for name in splits):
            continue
        people = {_speaker(c) for cuts in parts.values() for c in cuts}
        speakers = held_out(people, HELD_OUT_PERCENT, kind)
        taken = [c for cuts in parts.values() for c in cuts if _speaker(c) in speakers]
        if not taken:
            continue
        for name in filter(lambda name: name.startswith("train"), splits):  # limited ones too
            splits[name] = [c for c in splits[name] if _speaker(c) not in speakers]
        splits[f"{kind}-heldout"] = taken
        named = ", ".join(sorted(speakers))
        notes.append(
            f"no official {kind} split here, so {len(speakers)} of the training speakers "
            f"({named}) became {kind}-heldout"
        )
    for note in notes:
        print(f"{corpus}: {note}")
    return notes


def _speaker(cut: MonoCut) -> str:
    return str(cut.supervisions[0].speaker)

"""Manifests as the Kaldi-style folders that ESPnet reads: wav.scp, text, utt2spk, spk2utt.

lhotse's own export names the recording, whatever a cut does with it: segments, resampling and speed
changes are lost or become shell pipes that ESPnet cannot open. Here such cuts are saved as audio.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from sslbench.audio import SAMPLE_RATE_HZ
from sslbench.errors import AudioError, SslbenchError
from sslbench.io import atomic_path, read_json, write_json, write_jsonl, write_text
from sslbench.progress import Progress

if TYPE_CHECKING:
    from lhotse.cut import Cut

    from sslbench.data.loading import SkipLog

CNN_WINDOW, CNN_STRIDE = 400, 320  # samples
SLACK_S = 0.01  # manifests round times
CUTS = "utt2cut.jsonl"


class _Row(NamedTuple):
    wav: str
    text: str
    speaker: str
    cut: str
    """Of the manifest."""


@dataclass(frozen=True)
class Exported:
    """What `export` wrote."""

    utterances: int
    saved_audio: int
    """Utterances whose samples had to be written; the others name their source file."""
    skipped: int


def export(
    manifest: Path | str,
    folder: Path | str,
    labels: Literal["text", "units"] = "text",
    speeds: Sequence[float] = (),
    keep_silent: bool = False,
) -> Exported:
    """Write one Kaldi-style data folder. Audio that an earlier, interrupted export of the same saved is kept.

    Args:
        manifest: lhotse cuts with a transcript each; a cut with several supervisions is split.
        folder: receives wav.scp, text, utt2spk, spk2utt (sorted bytewise, as Kaldi's tools want), `wav/`
            where samples had to be saved, `skipped.jsonl` where audio could not be used, and `utt2cut.jsonl`:
            the manifest's cut of every utterance.
        labels: what `text` holds: transcripts, or the units of the whole cut (from `sslbench units apply`)
            for `ssl_train`, one per frame of the wav2vec 2.0 CNN.
        speeds: factors of copies at another speed, added to the originals.
        keep_silent: also write utterances with an empty transcript, from which ESPnet cannot learn.

    Raises:
        SslbenchError: speeds that cannot be, no usable utterance, an id that comes twice or holds white
            space, too much bad audio.
    """
    from sslbench.data.loading import SkipLog
    from sslbench.data.manifests import describe, open_manifest

    if not all(speed > 0 for speed in speeds) or (speeds and labels == "units"):
        raise SslbenchError("espnet: --speeds must be above 0, and units fit the original speed only")
    folder, about = Path(folder), describe(manifest)
    again = _claim_audio(folder, {"manifest": about.sha256, "labels": labels, "speeds": list(speeds)})
    skips = SkipLog(folder / "skipped.jsonl")
    rows: dict[str, _Row] = {}
    saved = 0
    with Progress(f"export {Path(manifest).name}", about.cuts) as progress:
        for whole in open_manifest(manifest):
            for cut in _pieces(whole, labels, speeds, skips):
                skips.saw(1)
                speaker = (cut.supervisions[0].speaker if cut.supervisions else None) or cut.id
                identifier = utterance_id(cut.id, speaker)
                if identifier in rows:
                    raise SslbenchError(f"{manifest}: utterance {identifier!r} comes twice")
                text = (
                    _units(cut) if labels == "units" else " ".join((cut.supervisions[0].text or "").split())
                )
                if not text and not keep_silent:
                    skips.add(cut.id, "too short" if labels == "units" else "no transcript")
                    continue
                try:
                    source, is_copy = _audio(cut, folder / "wav" / f"{identifier}.wav", again)
                except AudioError as error:
                    skips.add(cut.id, str(error))
                    continue
                saved += is_copy
                rows[identifier] = _Row(str(source.resolve()), text, speaker, whole.id)
            progress.advance()
    skips.check()
    if not rows:
        raise SslbenchError(f"{manifest}: holds no utterance with audio and transcript")
    _write_tables(folder, rows)
    return Exported(len(rows), saved, skips.count)


def _claim_audio(folder: Path, made_from: dict[str, Any]) -> bool:
    """Whether the audio files in a folder are of an export like this one; from now on they are."""
    path = folder / "export.json"
    if path.is_file():
        if read_json(path) == made_from:
            return True
        shutil.rmtree(folder / "wav", ignore_errors=True)  # of other audio, which is not this export's
    elif (folder / "wav").exists():
        raise SslbenchError(f"{folder}/wav: was not made by this verb; export into another folder")
    write_json(path, made_from)
    return False


def _pieces(whole: Cut, labels: str, speeds: Sequence[float], skips: SkipLog) -> list[Cut]:
    """The utterances of a cut of the manifest."""
    if labels == "units":
        return [whole]
    variants = [whole, *(whole.perturb_speed(speed) for speed in speeds)]
    return [cut for variant in variants for cut in _utterances(variant, skips)]


def _audio(cut: Cut, path: Path, again: bool) -> tuple[Path, bool]:
    """The file with exactly the cut's samples, and whether it is a copy at `path`. Raises `AudioError`."""
    if again and path.is_file():
        return path, True
    source = _plain_file(cut)
    return (_save(cut, path), True) if source is None else (source, False)


def utterance_id(cut_id: str, speaker: str) -> str:
    """Kaldi sorts by utterance and by speaker at once, so an id must begin with its speaker.

    Raises:
        SslbenchError: white space, which separates columns there.
    """
    identifier = cut_id if cut_id.startswith(speaker) else f"{speaker}-{cut_id}"
    if len(identifier.split()) != 1 or len(speaker.split()) != 1 or "/" in identifier:
        raise SslbenchError(
            f"cut {cut_id!r}, speaker {speaker!r}: Kaldi ids hold neither white space nor '/'"
        )
    return identifier


def _utterances(cut: Cut, skips: SkipLog) -> list[Cut]:
    """One cut per supervision; a cut that is one supervision and nothing else stays as it is.

    Words said before the cut begins or after it ends have no audio here: such supervisions are skipped.
    """
    outside = [s for s in cut.supervisions if s.start < -SLACK_S or s.end > cut.duration + SLACK_S]
    for supervision in outside:
        skips.saw(1)
        skips.add(supervision.id, f"its words reach beyond the audio of cut {cut.id}")
    names = {supervision.id for supervision in outside}
    inside = cut.filter_supervisions(lambda supervision: supervision.id not in names)
    if len(inside.supervisions) == 1 and inside.supervisions[0].duration > cut.duration - SLACK_S:
        return [inside]
    return list(inside.trim_to_supervisions(keep_overlapping=False)) if inside.supervisions else []


def _units(cut: Cut) -> str:
    """Units of the frames that ESPnet's `wav2vec_cnn` computes (espnet2/asr/frontend/cnn.py): its masks index
    labels by frame, so there must be as many."""
    from sslbench.data.units.apply import parse_units

    frames = max(0, (cut.num_samples - CNN_WINDOW) // CNN_STRIDE + 1)
    return " ".join(map(str, parse_units(cut)[:frames]))


def _plain_file(cut: Cut) -> Path | None:
    """The source file when its samples are exactly the cut's, else None. Raises `AudioError`."""
    import soundfile

    recording = getattr(cut, "recording", None)
    if recording is None or recording.transforms or len(recording.sources) != 1:
        return None
    source = recording.sources[0]
    if source.type != "file" or cut.start != 0 or cut.num_samples != recording.num_samples:
        return None
    try:
        header = soundfile.info(source.source)
    except (soundfile.LibsndfileError, RuntimeError, TypeError) as error:
        raise AudioError(f"{source.source}: cannot be read as audio ({error})") from None
    fits = (header.samplerate, header.channels, header.frames) == (SAMPLE_RATE_HZ, 1, cut.num_samples)
    return Path(source.source) if fits else None


def _save(cut: Cut, path: Path) -> Path:
    """Write the cut's own samples as 16 kHz mono."""
    import soundfile

    from sslbench.data.loading import read_cut

    samples = read_cut(cut if cut.sampling_rate == SAMPLE_RATE_HZ else cut.resample(SAMPLE_RATE_HZ)).numpy()
    # 16 bits are what every tool reads; floats only where they would clip
    subtype = "PCM_16" if abs(samples).max() < 1 else "FLOAT"
    with atomic_path(path) as temporary:
        soundfile.write(temporary, samples, SAMPLE_RATE_HZ, subtype=subtype, format="WAV")
    return path


def _write_tables(folder: Path, rows: dict[str, _Row]) -> None:
    order = sorted(rows, key=str.encode)
    spoken: dict[str, list[str]] = {}
    for identifier in order:
        spoken.setdefault(rows[identifier].speaker, []).append(identifier)
    speakers = sorted(spoken, key=str.encode)
    write_jsonl(folder / CUTS, [{"id": identifier, "cut": row.cut} for identifier, row in rows.items()])
    _write_table(folder / "wav.scp", [(i, rows[i].wav) for i in order])
    _write_table(folder / "text", [(i, rows[i].text) for i in order])
    _write_table(folder / "utt2spk", [(i, rows[i].speaker) for i in order])
    _write_table(folder / "spk2utt", [(s, " ".join(spoken[s])) for s in speakers])


def _write_table(path: Path, rows: list[tuple[str, str]]) -> None:
    write_text(path, "".join(f"{key} {value}\n" for key, value in rows))

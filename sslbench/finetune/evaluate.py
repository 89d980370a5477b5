"""Decode, score and write the row: what follows every training."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from sslbench.data.manifests import split_name
from sslbench.errors import SslbenchError
from sslbench.finetune.decode import decode, meta_path
from sslbench.finetune.experiment import load_experiment
from sslbench.finetune.listing import difference, listing, missing, summary
from sslbench.finetune.rows import RowOptions, write_row
from sslbench.finetune.scoring import Score, compare, score
from sslbench.finetune.transcripts import read_transcripts
from sslbench.io import read_json, write_text


@dataclass(frozen=True)
class ScoreOptions:
    """How to score, and what to write."""

    normaliser: str | None = None
    """A name in `scoring.NORMALISERS`, applied to both sides; by default `upper`, for phones `raw`."""
    unit: str | None = None
    """`word` or `phone`; by default what the facts beside the hypotheses say, else `word`."""
    counting: str = "levenshtein"
    """`levenshtein` or `sclite`."""
    errors: Path | str | None = None
    """The listing; `HYP.errors.txt` by default."""
    against: Path | str | None = None
    """Another system's hypotheses, for a paired test."""
    seed: int = 0
    """Of the draws behind intervals and the paired test."""


def score_files(
    reference: Path | str,
    hypotheses: Path | str,
    options: ScoreOptions | None = None,
    row: RowOptions | None = None,
) -> Score:
    """Score a hypothesis file, write the listing of errors and, with `row`, the result row.

    Args:
        reference: manifest, JSON lines, trn or Kaldi text; for a row, the manifest that was transcribed.
        hypotheses: the same forms.
        options: how.
        row: what a person says about the row.

    Raises:
        SslbenchError: files that do not go together, or were transcribed in another unit; after the score is
            printed, as `write_row`.
    """
    how = options or ScoreOptions()
    unit = _unit(how.unit, hypotheses)
    said = read_transcripts(reference, unit)

    def scored_of(path: Path | str) -> Score:
        return score(said, read_transcripts(path), how.normaliser, unit, how.counting, how.seed)

    scored = scored_of(hypotheses)
    path = Path(hypotheses)
    listed = Path(how.errors) if how.errors else path.with_name(_stem(path) + ".errors.txt")
    text = listing(scored)
    print(summary(scored))
    if how.against is not None:
        _unit(unit, how.against)
        other, name = scored_of(how.against), _stem(Path(how.against))
        lines = [difference(compare(scored, other), _stem(path), name)]
        lines += [f"{name}: {line}" for line in missing(other)]
        print("\n".join(lines))
        text = "\n".join([*lines, text])
    write_text(listed, text)
    print(f"errors aligned in {listed}")
    if row is not None:
        print(f"row written to {write_row(scored, reference, hypotheses, listed, row)}")
    return scored


def _unit(asked: str | None, hypotheses: Path | str) -> str:
    """What hypotheses consist of: as the facts beside them say; where there are none, as asked, or words."""
    path = meta_path(hypotheses)
    known = read_json(path).get("scored") if path.is_file() else None
    if asked and known and asked != known:
        raise SslbenchError(f"score: {hypotheses} was transcribed in {known}s, not in {asked}s")
    return str(known or asked or "word")


def _stem(path: Path) -> str:
    return path.name.removesuffix(".jsonl")


def evaluate(exp_dir: str, manifest: str, options: RowOptions | None, device: str | None = None) -> Score:
    """Transcribe a manifest with an experiment's best weights into `EXP/hyp/SPLIT.jsonl`, and score it.

    Phones are scored as they are written, words by the normaliser `upper`.
    """
    out = Path(exp_dir) / "hyp" / f"{split_name(manifest)}.jsonl"
    experiment = load_experiment(exp_dir, device)
    decoded = decode(experiment, manifest, out)
    print(f"{decoded.utterances} transcripts in {out}, real-time factor {decoded.rtf:.4f}")
    return score_files(manifest, out, row=options)

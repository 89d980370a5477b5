"""Decode, score and write the row: what follows every training."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from sslbench.data.manifests import split_name
from sslbench.finetune.decode import decode
from sslbench.finetune.experiment import load_experiment
from sslbench.finetune.listing import difference, listing, summary
from sslbench.finetune.rows import RowOptions, write_row
from sslbench.finetune.scoring import Score, compare, score
from sslbench.finetune.transcripts import read_transcripts
from sslbench.io import write_text


@dataclass(frozen=True)
class ScoreOptions:
    """How to score, and what to write."""

    normaliser: str | None = None
    """A name in `scoring.NORMALISERS`, applied to both sides; by default `upper`, for phones `raw`."""
    unit: str = "word"
    """`word` or `phone`."""
    counting: str = "levenshtein"
    """`levenshtein` or `sclite`."""
    errors: Path | str | None = None
    """The listing; `HYP.errors.txt` by default."""
    against: Path | str | None = None
    """Another system's hypotheses, for a paired test."""


def score_files(
    reference: Path | str,
    hypotheses: Path | str,
    options: ScoreOptions | None = None,
    row: RowOptions | None = None,
) -> Score:
    """Score a hypothesis file, write the listing of errors and, with `row`, the result row.

    Args:
        reference: manifest, JSON lines, trn or Kaldi text.
        hypotheses: the same forms.
        options: how.
        row: what a person says about the row.
    """
    how = options or ScoreOptions()
    said = read_transcripts(reference, how.unit)
    scored = score(said, read_transcripts(hypotheses), how.normaliser, how.unit, how.counting)
    path = Path(hypotheses)
    listed = Path(how.errors) if how.errors else path.with_name(_stem(path) + ".errors.txt")
    text = listing(scored)
    print(summary(scored))
    if how.against is not None:
        other = score(said, read_transcripts(how.against), how.normaliser, how.unit, how.counting)
        line = difference(compare(scored, other), _stem(path), _stem(Path(how.against)))
        print(line)
        text = f"{line}\n{text}"
    write_text(listed, text)
    print(f"errors aligned in {listed}")
    if row is not None:
        print(f"row written to {write_row(scored, hypotheses, listed, row)}")
    return scored


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
    return score_files(manifest, out, ScoreOptions(unit=experiment.vocab.scored), options)

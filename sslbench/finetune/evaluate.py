"""Decode, score and write the row: what follows every training."""

from __future__ import annotations

from pathlib import Path

from sslbench.data.manifests import split_name
from sslbench.finetune.decode import decode
from sslbench.finetune.experiment import load_experiment
from sslbench.finetune.rows import RowOptions, write_row
from sslbench.finetune.scoring import Score, listing, score, summary
from sslbench.finetune.transcripts import read_transcripts
from sslbench.io import write_text


def score_files(
    reference: Path | str,
    hypotheses: Path | str,
    out: Path | str | None = None,
    normaliser: str = "upper",
    options: RowOptions | None = None,
) -> Score:
    """Score a hypothesis file, write the listing of errors and, with `options`, the result row.

    Args:
        reference: manifest, JSON lines, trn or Kaldi text.
        hypotheses: the same forms.
        out: the listing; `HYP.errors.txt` by default.
        normaliser: applied to both sides.
        options: of the row.
    """
    scored = score(read_transcripts(reference), read_transcripts(hypotheses), normaliser)
    path = Path(hypotheses)
    listed = Path(out) if out else path.with_name(path.name.removesuffix(".jsonl") + ".errors.txt")
    write_text(listed, listing(scored))
    print(summary(scored))
    print(f"errors aligned in {listed}")
    if options is not None:
        print(f"row written to {write_row(scored, hypotheses, listed, options)}")
    return scored


def evaluate(exp_dir: str, manifest: str, options: RowOptions | None, device: str | None = None) -> Score:
    """Transcribe a manifest with an experiment's best weights into `EXP/hyp/SPLIT.jsonl`, and score it."""
    out = Path(exp_dir) / "hyp" / f"{split_name(manifest)}.jsonl"
    decoded = decode(load_experiment(exp_dir, device), manifest, out)
    print(f"{decoded.utterances} transcripts in {out}, real-time factor {decoded.rtf:.4f}")
    return score_files(manifest, out, options=options)

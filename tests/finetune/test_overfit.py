"""Heads learn 20 utterances by heart, synthetic and real ones: 0 % errors on what they have seen."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from lhotse import MonoCut, Recording, SupervisionSegment

from sslbench.data.manifests import open_manifest, write_corpus
from sslbench.finetune import experiment
from sslbench.finetune.config import FinetuneConfig
from sslbench.finetune.decode import decode
from sslbench.finetune.decoders.choose import DecodeSettings
from sslbench.finetune.evaluate import evaluate
from sslbench.finetune.experiment import load_experiment
from sslbench.finetune.search import finetune
from sslbench.finetune.shapes import TransducerShape
from sslbench.io import read_jsonl
from sslbench.upstreams import load_upstream

UTTERANCES = 20
HEADS: dict[str, dict[str, Any]] = {
    "ctc-char": {},
    "ctc-bpe": {"units": "bpe", "bpe_size": 60},
    "ctc-phone": {"units": "phone"},
    # decoded by the transducer
    "joint-bpe": {"objective": "joint", "units": "bpe", "bpe_size": 60, "steps": 360},
    "transducer-bpe": {"objective": "transducer", "units": "bpe", "bpe_size": 60, "steps": 480},
}
REAL_HEADS = {"ctc-char": {"steps": 300}, "transducer-bpe": HEADS["transducer-bpe"] | {"steps": 900}}


@pytest.fixture(scope="module")
def twenty(mini_corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A manifest of the 20 shortest transcribed training clips: the test must stay quick."""
    folder = tmp_path_factory.mktemp("twenty")
    cuts = list(open_manifest(mini_corpus / "train-clean-100.jsonl.gz"))
    spoken = [cut for cut in cuts if cut.supervisions[0].text]
    short = sorted(spoken, key=lambda cut: cut.duration)[:UTTERANCES]
    write_corpus(folder / "m", "mini", {"train": short}, synthetic=True)
    return folder / "m" / "train.jsonl.gz"


@pytest.fixture(scope="module")
def twenty_real(shared_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A manifest of the 20 smallest files of Mini LibriSpeech's training set."""
    folder = tmp_path_factory.mktemp("real")
    corpus = shared_dir / "data" / "librispeech_mini" / "LibriSpeech" / "train-clean-5"
    if not corpus.is_dir():
        pytest.skip("Mini LibriSpeech is not on this machine")
    files = sorted(corpus.rglob("*.flac"), key=lambda path: path.stat().st_size)[:UTTERANCES]
    cuts = []
    for path in files:
        recording = Recording.from_file(path, recording_id=path.stem)
        (lines,) = path.parent.glob("*.trans.txt")
        texts = dict(line.split(" ", 1) for line in lines.read_text().splitlines())
        said = SupervisionSegment(
            path.stem, path.stem, 0.0, recording.duration, text=texts[path.stem], speaker=path.parts[-3]
        )
        cuts.append(MonoCut(path.stem, 0.0, recording.duration, 0, recording=recording, supervisions=[said]))
    write_corpus(folder / "m", "librispeech_mini", {"train": cuts}, synthetic=False)
    return folder / "m" / "train.jsonl.gz"


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("head", REAL_HEADS)
def test_learns_twenty_real_utterances_by_heart(
    twenty_real: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, head: str
) -> None:
    if "bpe" in head:
        pytest.importorskip("sentencepiece")
    monkeypatch.setattr(experiment, "load_upstream", load_upstream)
    config = FinetuneConfig(
        upstream="hubert_k2ssl_tiny", train_manifest=str(twenty_real), dev_manifest=str(twenty_real),
        exp_dir=str(tmp_path / "exp"), projection_dim=64, blstm_layers=1, blstm_dim=96, dropout=0.0,
        eval_every_steps=500, max_duration_s=30.0, device="cpu", lr=6e-3, transducer_loss="full",
        transducer=TransducerShape(64, 64, 2), **REAL_HEADS[head],
    )  # fmt: skip
    done = finetune(config)
    assert done["dev_wer"] == 0.0
    assert evaluate(config.exp_dir, str(twenty_real), None).total("words").errors == 0


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("head", HEADS)
def test_learns_twenty_utterances_by_heart(
    twenty: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, head: str
) -> None:
    if "bpe" in head:
        pytest.importorskip("sentencepiece")
    monkeypatch.setattr(experiment, "load_upstream", load_upstream)
    config = FinetuneConfig(
        upstream="hubert_k2ssl_tiny", train_manifest=str(twenty), dev_manifest=str(twenty),
        exp_dir=str(tmp_path / "exp"), projection_dim=64, blstm_layers=1, blstm_dim=96, dropout=0.0,
        eval_every_steps=500, max_duration_s=30.0, device="cpu", transducer_loss="full",
        transducer=TransducerShape(64, 64, 2), **{"steps": 240, "lr": 6e-3, **HEADS[head]},
    )  # fmt: skip
    done = finetune(config)
    assert done["dev_wer"] == 0.0
    assert evaluate(config.exp_dir, str(twenty), None).total("words").errors == 0
    if config.objective == "ctc":  # a beam finds the same
        out = tmp_path / "beam.jsonl"
        decode(load_experiment(config.exp_dir), twenty, out, settings=DecodeSettings("ctc", beam=4))
        assert list(read_jsonl(out)) == list(read_jsonl(Path(config.exp_dir) / "hyp" / "train.jsonl"))

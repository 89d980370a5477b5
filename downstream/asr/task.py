"""Speech recognition (ASR): CTC characters, word error rate. Trained by `sslbench finetune`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from lhotse.cut import Cut
from torch import nn

from sslbench import config as configs
from sslbench.data.loading import SkipLog
from sslbench.data.manifests import splits
from sslbench.errors import SslbenchError
from sslbench.finetune.config import FinetuneConfig
from sslbench.finetune.data import read_labelled, transcript
from sslbench.finetune.heads import Head
from sslbench.finetune.scoring import score
from sslbench.finetune.transcripts import Transcript
from sslbench.finetune.vocab import CharVocab
from sslbench.report.schema import Metric

CONFIG = Path(__file__).with_name("config.yaml")
SPLITS = {"train": "train-clean-100", "dev": "dev-clean", "test": "test-clean"}


class Task:
    """SUPERB's ASR: the parts that a caller other than `sslbench finetune` may want.

    It is no probe task of `sslbench superb`: its head is recurrent and large, and fine-tuning trains it.
    """

    name = "asr"
    headline = "wer"

    def __init__(self) -> None:
        self.config = configs.load(FinetuneConfig, CONFIG)
        self.vocab: CharVocab | None = None

    def prepare(self, root: Path | str) -> dict[str, list[Cut]]:
        """The transcribed cuts of SUPERB's splits; the training text fixes the vocabulary.

        Raises:
            SslbenchError: a split is missing or has no transcripts.
        """
        root = Path(root)
        found = splits(root)
        missing = [split for split in SPLITS.values() if split not in found]
        if missing:
            raise SslbenchError(f"{root}: lacks {', '.join(missing)} (has {', '.join(found) or 'no split'})")
        cuts = {part: read_labelled(root / f"{split}.jsonl.gz", SkipLog()) for part, split in SPLITS.items()}
        self.vocab = CharVocab.from_texts(transcript(cut) or "" for cut in cuts["train"])
        return cuts

    def head(self, input_dim: int) -> nn.Module:
        """The head for features of a width. Raises `SslbenchError` before `prepare`, which fixes them."""
        if self.vocab is None:
            raise SslbenchError("asr: the head needs the vocabulary; call prepare(root) first")
        return Head(input_dim, len(self.vocab), 1, self.config)

    def metrics(
        self, predictions: Mapping[str, str], references: Mapping[str, Transcript]
    ) -> dict[str, Metric]:
        """WER and CER with intervals, of texts by utterance id."""
        heard = {identifier: Transcript(identifier, text) for identifier, text in predictions.items()}
        scored = score(references, heard)
        return {"wer": scored.metric("words"), "cer": scored.metric("characters")}

"""CTC decoding with a word n-gram model: flashlight's lexicon beam search through torchaudio, and KenLM."""

from __future__ import annotations

import importlib
import shutil
import tempfile
from pathlib import Path
from typing import Any

import torch

from sslbench.errors import SslbenchError
from sslbench.finetune.arpa import END, START, UNKNOWN, arpa_words, opened
from sslbench.finetune.rnnt import BLANK
from sslbench.finetune.vocab import BLANK_SYMBOL, SPACE, Vocab

MARKS = {START, END, UNKNOWN}
UNLIKELY = -30.0


class NgramDecoder:
    """Words of an ARPA file, spelled in a recognizer's units, weighed by the file's probabilities."""

    def __init__(
        self, vocab: Vocab, arpa: Path | str, beam: int, lm_weight: float, word_score: float
    ) -> None:
        """Build the search.

        Args:
            vocab: characters or word pieces.
            arpa: language model with word n-grams, which may be gzipped; its unigrams are the words that can
                be recognised.
            beam: hypotheses kept.
            lm_weight: of the model's log-probabilities.
            word_score: added per word.

        Raises:
            SslbenchError: missing packages or file, a vocabulary of phones, or no word that can be spelled.
        """
        self.closes = SPACE in vocab.symbols
        lexicon = spellings(vocab, arpa, self.closes)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "lexicon.txt")
            path.write_text(
                "".join(f"{word} {' '.join(units)}\n" for word, units in lexicon), encoding="utf-8"
            )
            model = _unpacked(Path(arpa), Path(folder))
            self._search = _build(vocab, str(path), str(model), beam, lm_weight, word_score, self.closes)
        self._boundary = vocab.symbols.index(SPACE) if self.closes else BLANK

    def __call__(self, log_probs: torch.Tensor, lens: torch.Tensor) -> list[str]:
        """Texts of (B, F, classes) log-probabilities with (B,) valid frames."""
        texts = []
        for row, length in zip(*closed(log_probs, lens, self._boundary), strict=True):
            found = self._search(row[None, : int(length)])[0]
            texts.append(" ".join(found[0].words) if found else "")
        return texts


def closed(log_probs: torch.Tensor, lens: torch.Tensor, boundary: int) -> tuple[torch.Tensor, torch.Tensor]:
    """A last word ends with the clip: one more frame that can be a boundary, or a blank.

    Args:
        log_probs: (B, F, classes).
        lens: (B,) valid frames.
        boundary: class of the word boundary.

    Returns:
        (B, F + 1, classes) fp32 on the CPU, and `lens` + 1.
    """
    longer = torch.nn.functional.pad(log_probs.float().cpu(), (0, 0, 0, 1))
    end = torch.full((longer.shape[-1],), UNLIKELY)
    end[[BLANK, boundary]] = 0.0
    longer[torch.arange(len(lens)), lens.cpu()] = end
    return longer, lens.cpu() + 1


def spellings(vocab: Vocab, arpa: Path | str, closes: bool) -> list[tuple[str, list[str]]]:
    """The words of an ARPA file that a vocabulary can spell, with their units; `closes` ends each in `|`.

    Raises:
        SslbenchError: missing file, a vocabulary of phones, or no word that can be spelled.
    """
    if vocab.scored != "word":
        raise SslbenchError("decode: a word language model needs characters or word pieces, not phones")
    spelled = []
    for word in arpa_words(arpa):
        before = sum(vocab.unknown.values())
        units = [vocab.symbols[number] for number in vocab.encode(word)]
        if word not in MARKS and units and sum(vocab.unknown.values()) == before:
            spelled.append((word, [*units, SPACE] if closes else units))
    if not spelled:
        raise SslbenchError(
            f"{arpa}: none of its words can be spelled with the recognizer's units; if only upper and lower "
            "case differ, 'sslbench lm --normaliser raw' makes one from texts as the training transcripts are"
        )
    return spelled


def _unpacked(arpa: Path, folder: Path) -> Path:
    """A file that KenLM reads whether or not it was built with zlib."""
    if arpa.suffix != ".gz":
        return arpa
    with opened(arpa) as packed, (folder / arpa.stem).open("w", encoding="utf-8") as plain:
        shutil.copyfileobj(packed, plain)
    return folder / arpa.stem


def _build(
    vocab: Vocab, lexicon: str, arpa: str, beam: int, lm_weight: float, word_score: float, closes: bool
) -> Any:
    try:
        from torchaudio.models.decoder import ctc_decoder

        importlib.import_module("flashlight.lib.text.decoder.kenlm")
    except ImportError as error:
        raise SslbenchError(
            f"decode: --lm needs flashlight-text ({error}): pip install 'sslbench[lm]'"
        ) from None
    return ctc_decoder(
        lexicon=lexicon, tokens=vocab.symbols, lm=arpa, nbest=1, beam_size=beam, lm_weight=lm_weight,
        word_score=word_score, blank_token=BLANK_SYMBOL, sil_token=SPACE if closes else BLANK_SYMBOL,
        unk_word="<unk>",
    )  # fmt: skip

"""The search that a recognizer decodes with, by settings."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch

from sslbench.errors import SslbenchError
from sslbench.finetune.arpa import read_arpa
from sslbench.finetune.decoders import ctc, transducer
from sslbench.finetune.decoders.ngram import NgramDecoder, closed, spellings
from sslbench.finetune.heads import Head
from sslbench.finetune.rnnt import BLANK
from sslbench.finetune.vocab import SPACE, Vocab
from sslbench.integrations import k2

Search = Callable[[torch.Tensor, torch.Tensor], list[str]]
"""(head's frames (B, F, H), valid frames (B,)) -> texts."""


@dataclass(frozen=True)
class DecodeSettings:
    """How to search."""

    by: Literal["auto", "ctc", "transducer"] = "auto"
    """Which scores: `auto` is the transducer where there is one."""
    beam: int = 1
    """Hypotheses kept; 1 is greedy search, and with a language model the search's own width."""
    lm: str | None = None
    """ARPA file of words, for CTC."""
    lm_weight: float = 1.5
    """Of its log-probabilities."""
    word_score: float = 0.0
    """Added per word, with a language model and flashlight."""
    lm_search: Literal["auto", "flashlight", "k2"] = "auto"
    """`k2`: an HLG graph, with the sound weighed 1 / lm_weight; `auto`: flashlight where it is installed."""


def make_search(head: Head, vocab: Vocab, settings: DecodeSettings) -> tuple[str, Search]:
    """A name for result rows, and the search.

    Raises:
        SslbenchError: settings that the head cannot follow.
    """
    by = settings.by
    if by == "auto":
        by = "ctc" if head.transducer is None or settings.lm else "transducer"
    if settings.beam < 1:
        raise SslbenchError("decode: the beam must keep at least one hypothesis")
    if by == "transducer":
        return _transducer(head, vocab, settings)
    if head.output is None:
        raise SslbenchError("decode: this recognizer was trained without CTC (objective: transducer)")
    if settings.lm and lm_search(settings) == "k2":
        return _graph(head, vocab, settings)
    if settings.lm:
        wide = settings.beam if settings.beam > 1 else 50
        ngram = NgramDecoder(vocab, settings.lm, wide, settings.lm_weight, settings.word_score)
        name = f"CTC, beam {wide}, word n-grams (weight {settings.lm_weight:g}, word {settings.word_score:g})"
        return name, lambda hidden, lens: ngram(head.log_probs(hidden), lens)

    def search(hidden: torch.Tensor, lens: torch.Tensor) -> list[str]:
        scores = head.log_probs(hidden)
        found = ctc.greedy(scores, lens) if settings.beam == 1 else ctc.beam(scores, lens, settings.beam)
        return [vocab.decode(classes) for classes in found]

    return "greedy CTC" if settings.beam == 1 else f"CTC prefix beam {settings.beam}", search


def lm_search(settings: DecodeSettings) -> str:
    """`flashlight` or `k2`. Raises `SslbenchError` when the one that was asked for, or both, are missing."""
    here = {
        "flashlight": importlib.util.find_spec("flashlight") is not None,
        "k2": k2.available(),
    }
    wanted = list(here) if settings.lm_search == "auto" else [settings.lm_search]
    for name in wanted:
        if here[name]:
            return name
    raise SslbenchError(
        f"decode: --lm needs {' or '.join(wanted)}: pip install 'sslbench[lm]' brings flashlight; "
        "'sslbench doctor' says how to get k2"
    )


def _graph(head: Head, vocab: Vocab, settings: DecodeSettings) -> tuple[str, Search]:
    from sslbench.integrations.k2_decode import GraphDecoder

    if settings.lm_weight <= 0:
        raise SslbenchError("decode: --lm_weight must be above 0 with --lm_search k2")
    if settings.beam != 1 or settings.word_score:
        raise SslbenchError(
            "decode: --beam and --word_score are flashlight's, and k2 would search here; leave them out, or "
            "install flashlight: pip install 'sslbench[lm]'"
        )
    grams = read_arpa(str(settings.lm))
    closes = SPACE in vocab.symbols
    number = {symbol: place for place, symbol in enumerate(vocab.symbols)}
    spelled = [
        (word, [number[unit] for unit in units]) for word, units in spellings(vocab, str(settings.lm), closes)
    ]
    graph = GraphDecoder(spelled, len(vocab), grams)
    boundary = number[SPACE] if closes else BLANK

    def search(hidden: torch.Tensor, lens: torch.Tensor) -> list[str]:
        log_probs, longer = closed(head.log_probs(hidden), lens, boundary)
        return graph(log_probs, longer, 1.0 / settings.lm_weight)

    return f"CTC, HLG by k2 (weight {settings.lm_weight:g})", search


def _transducer(head: Head, vocab: Vocab, settings: DecodeSettings) -> tuple[str, Search]:
    model = head.transducer
    if model is None or settings.lm:
        why = "a language model needs CTC" if model is not None else "this recognizer has no transducer"
        raise SslbenchError(f"decode: {why}; use --by ctc")

    def search(hidden: torch.Tensor, lens: torch.Tensor) -> list[str]:
        if settings.beam == 1:
            found = transducer.greedy(model, hidden, lens)
        else:
            found = transducer.beam(model, hidden, lens, settings.beam)
        return [vocab.decode(classes) for classes in found]

    return ("greedy" if settings.beam == 1 else f"modified beam {settings.beam}") + " transducer", search

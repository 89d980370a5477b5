"""Searches against the sum over every alignment; the language model against its own arithmetic."""

from __future__ import annotations

import gzip
import itertools
import math
from collections import defaultdict
from pathlib import Path

import pytest
import torch

from sslbench.errors import SslbenchError
from sslbench.finetune.arpa import KneserNey, arpa_words, read_arpa
from sslbench.finetune.config import FinetuneConfig
from sslbench.finetune.decoders import ctc, transducer
from sslbench.finetune.decoders.choose import DecodeSettings, make_search
from sslbench.finetune.decoders.ngram import NgramDecoder
from sslbench.finetune.heads import Head
from sslbench.finetune.rnnt import lattice_loss
from sslbench.finetune.shapes import TransducerShape
from sslbench.finetune.transducer import Transducer
from sslbench.finetune.vocab import BpeVocab, CharVocab, PhoneVocab, Vocab
from sslbench.integrations import k2


def every_path(log_probs: torch.Tensor) -> dict[tuple[int, ...], float]:
    """Log-probability of every symbol sequence, by listing all paths."""
    found: dict[tuple[int, ...], float] = defaultdict(float)
    for path in itertools.product(range(log_probs.shape[1]), repeat=len(log_probs)):
        joined = torch.unique_consecutive(torch.tensor(path))
        weight = math.exp(sum(float(log_probs[t, c]) for t, c in enumerate(path)))
        found[tuple(joined[joined != 0].tolist())] += weight
    return {symbols: math.log(weight) for symbols, weight in found.items()}


def test_prefix_search_sums_over_alignments() -> None:
    torch.manual_seed(0)
    for _ in range(5):
        log_probs = (2 * torch.randn(5, 3)).log_softmax(-1)
        expected = every_path(log_probs)
        found = ctc.prefixes(log_probs, 200)
        assert len(found) == len(expected)
        for symbols, score in found:
            assert score == pytest.approx(expected[tuple(symbols)], abs=1e-4)
        assert tuple(found[0][0]) == max(expected, key=lambda symbols: expected[symbols])


def test_prefix_search_finds_what_the_best_path_misses() -> None:
    """Two frames, P(blank) = 0.55: the best path is empty (0.30), the best text is not (0.70)."""
    log_probs = torch.tensor([[0.55, 0.45], [0.55, 0.45]]).log()[None]
    lens = torch.tensor([2])
    assert ctc.greedy(log_probs, lens) == [[]]
    assert ctc.beam(log_probs, lens, 4) == [[1]]


def test_searches_ignore_padding() -> None:
    torch.manual_seed(0)
    log_probs = (3 * torch.randn(2, 8, 5)).log_softmax(-1)
    lens = torch.tensor([8, 3])
    for search in (ctc.greedy, lambda p, n: ctc.beam(p, n, 4)):
        together = search(log_probs, lens)
        assert together[1] == search(log_probs[1:, :3], lens[1:])[0]
    model, frames = head(), torch.randn(2, 8, 6)
    for search in (transducer.greedy, lambda m, f, n: transducer.beam(m, f, n, 4)):
        together = search(model, frames, lens)
        assert together[1] == search(model, frames[1:, :3], lens[1:])[0]
        assert together[0] == search(model, frames[:1], lens[:1])[0]


def head(scale: float = 3.0) -> Transducer:
    torch.manual_seed(1)
    model = Transducer(6, 4, TransducerShape(8, 8, 2)).eval()
    model.output.weight.data *= scale
    return model


@torch.no_grad()
def step_by_step(model: Transducer, frames: torch.Tensor, most: int) -> list[int]:
    """Greedy search of one clip (T, D), one symbol at a time."""
    symbols: list[int] = []
    for t in range(len(frames)):
        for _ in range(most):
            context = torch.tensor([([0, 0, *symbols])[-2:]])
            logits = model.join(model.frame_projection(frames[t : t + 1]), model.contexts(context))
            if int(logits.argmax()) == 0:
                break
            symbols.append(int(logits.argmax()))
    return symbols


@torch.no_grad()
def test_greedy_transducer_equals_one_symbol_at_a_time() -> None:
    model, frames = head(), torch.randn(6, 12, 6)
    lens = torch.tensor([12, 11, 5, 1, 12, 8])
    for most in (1, 3):
        expected = [step_by_step(model, frames[i, :n], most) for i, n in enumerate(lens.tolist())]
        assert transducer.greedy(model, frames, lens, most) == expected
        assert any(expected)


@torch.no_grad()
def test_wide_transducer_beam_finds_the_symbols_likeliest_for_their_length() -> None:
    """All sequences of up to one symbol per frame, each summed over its alignments of that kind."""
    model, without = head(), []
    for seed in range(8):
        frames = torch.randn(1, 4, 6, generator=torch.Generator().manual_seed(seed))
        scores = {
            symbols: one_per_frame(model, frames, list(symbols))
            for length in range(5)
            for symbols in itertools.product((1, 2, 3), repeat=length)
        }
        best = max(scores, key=lambda symbols: scores[symbols] / (2 + len(symbols)))
        assert transducer.beam(model, frames, torch.tensor([4]), 1000) == [list(best)]
        without.append(best == max(scores, key=lambda symbols: scores[symbols]))
    assert 0 < sum(without) < len(without), "the length decided nothing, or everything"


def one_per_frame(model: Transducer, frames: torch.Tensor, symbols: list[int]) -> float:
    """Sum over the choices of the frames that emit."""
    padded = torch.tensor([[0, 0, *symbols]])
    contexts = model.context_projection(model.predictor(padded))
    scores = model.join(model.frame_projection(frames)[:, :, None], contexts[:, None])[0].log_softmax(-1)
    total = 0.0
    for places in itertools.combinations(range(frames.shape[1]), len(symbols)):
        u, weight = 0, 0.0
        for t in range(frames.shape[1]):
            weight += float(scores[t, u, symbols[u] if t in places else 0])
            u += t in places
        total += math.exp(weight)
    return math.log(total) if total else -math.inf


@torch.no_grad()
def test_transducer_beam_is_no_worse_than_greedy_of_one_symbol_per_frame() -> None:
    model, frames = head(), torch.randn(8, 10, 6)
    lens = torch.full((8,), 10)
    first, second = transducer.greedy(model, frames, lens, 1), transducer.beam(model, frames, lens, 8)
    losses = [[float(loss(model, frames[i], found[i])) for i in range(8)] for found in (first, second)]
    assert sum(losses[1]) < sum(losses[0])
    ones = torch.ones(8, dtype=torch.long)  # more symbols in a frame are for greedy search only
    assert max(map(len, transducer.greedy(model, frames, ones))) > 1
    assert max(map(len, transducer.beam(model, frames, ones, 8))) == 1


def loss(model: Transducer, frames: torch.Tensor, symbols: list[int]) -> torch.Tensor:
    target = torch.tensor([symbols], dtype=torch.long)
    contexts = model.context_projection(model.predictor(torch.nn.functional.pad(target, (2, 0))))
    logits = model.join(model.frame_projection(frames)[None, :, None], contexts[:, None])
    return lattice_loss(logits, target, torch.tensor([len(frames)]), torch.tensor([len(symbols)]))[0]


TEXTS = ["THE CAT SAT", "THE CAT RAN", "A DOG RAN", "THE DOG SAT DOWN", "A CAT", "THE CAT SAT"]


@pytest.mark.parametrize("order", [1, 2, 3])
def test_ngram_probabilities_sum_to_one(order: int) -> None:
    model = KneserNey(TEXTS, order)
    histories: list[tuple[str, ...]] = [
        (),
        ("THE",),
        ("<s>",),
        ("<s>", "THE"),
        ("CAT", "SAT"),
        ("SAT", "CAT"),
        ("X",),
    ]
    for history in histories:
        if len(history) < order:
            assert sum(model.probability((*history, word)) for word in model.words) == pytest.approx(1.0)


def test_arpa_file_is_read_as_written(tmp_path: Path) -> None:
    kenlm = pytest.importorskip("flashlight.lib.text.decoder.kenlm")
    dictionary = pytest.importorskip("flashlight.lib.text.dictionary")
    path = tmp_path / "lm.arpa"
    model = KneserNey(TEXTS, 3)
    path.write_text("\n".join(model.arpa()) + "\n")
    words = dictionary.Dictionary(list(model.words))
    read = kenlm.KenLM(str(path), words)

    def score(sentence: list[str]) -> float:
        state, total = read.start(False), 0.0
        for word in sentence:
            state, value = read.score(state, words.get_index(word))
            total += value
        return float(total + read.finish(state)[1])

    for text in ("THE CAT SAT", "DOG THE A", "A UNKNOWNWORD RAN"):
        known = [word if word in model.words else "<unk>" for word in text.split()]
        padded = ["<s>", *known, "</s>"]
        grams = [tuple(padded[max(0, end - 3) : end]) for end in range(2, len(padded) + 1)]
        ours = sum(math.log10(model.probability(gram)) for gram in grams)
        assert score(known) == pytest.approx(ours, abs=1e-4)
    assert score(["THE", "CAT", "SAT"]) > score(["SAT", "CAT", "THE"])
    assert [len(level) for level in read_arpa(path)] == [len(model.words) + 1, *map(len, model.counts[1:])]
    probability, backoff = read_arpa(path)[1]["THE", "CAT"]
    assert probability == pytest.approx(math.log10(model.probability(("THE", "CAT"))), abs=1e-5)
    assert backoff == pytest.approx(math.log10(model.backoff(("THE", "CAT"))), abs=1e-5)


def test_words_are_read_without_the_longer_n_grams(tmp_path: Path) -> None:
    lines = [*KneserNey(TEXTS, 3).arpa()]
    path = tmp_path / "lm.arpa.gz"
    path.write_bytes(gzip.compress("\n".join(lines).encode()))
    (grams,) = read_arpa(path)[:1]
    assert list(arpa_words(path)) == [word for (word,) in grams]
    place = lines.index("\\2-grams:")
    path.write_bytes(gzip.compress("\n".join([*lines[: place + 2], "no n-gram"]).encode()))
    assert set(arpa_words(path)) == {word for (word,) in grams}
    with pytest.raises(SslbenchError, match="expected a probability, 2 words"):
        read_arpa(path)


def spoken(vocab: Vocab, text: str, doubt: dict[int, int]) -> torch.Tensor:
    """(1, F, classes): each class of a text, then a blank; at the places of `doubt` another is likelier."""
    classes = vocab.encode(text)
    logits = torch.zeros(1, 2 * len(classes), len(vocab))
    for place, number in enumerate(classes):
        logits[0, 2 * place, number] = 8.0
        logits[0, 2 * place + 1, 0] = 8.0
        if place in doubt:
            logits[0, 2 * place, doubt[place]] = 8.1  # a little likelier, so that best path takes it
    return logits.log_softmax(-1)


@pytest.mark.parametrize("unit", ["char", "bpe"])
def test_language_model_decides_between_words(tmp_path: Path, unit: str) -> None:
    pytest.importorskip("flashlight.lib.text.decoder.kenlm")
    path = tmp_path / "lm.arpa"
    path.write_text("\n".join(KneserNey(["THE CAT SAT", "THE CAT SAT", "THE CAB RAN"], 3).arpa()) + "\n")
    vocab = CharVocab.from_texts(["THE CAT SAB RN"]) if unit == "char" else bpe()
    said, other = vocab.encode("THE CAT SAT"), vocab.encode("THE CAB SAT")
    (place,) = (n for n, (a, b) in enumerate(zip(said, other, strict=True)) if a != b)
    log_probs = spoken(vocab, "THE CAT SAT", {place: other[place]})
    lens = torch.tensor([log_probs.shape[1]])
    packed = tmp_path / "lm.arpa.gz"
    packed.write_bytes(gzip.compress(path.read_bytes()))
    for arpa in (path, packed):
        assert NgramDecoder(vocab, arpa, 20, 1.0, 0.0)(log_probs, lens) == ["THE CAT SAT"]
    # positive control: without the model the other word wins
    assert vocab.decode(ctc.beam(log_probs, lens, 8)[0]) == "THE CAB SAT"


def bpe() -> BpeVocab:
    pytest.importorskip("sentencepiece")
    return BpeVocab.from_texts(["THE CAT SAT", "THE CAB RAN"] * 4, 24)  # CAT and CAB are pieces


def test_language_model_refusals(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x.arpa"
    with pytest.raises(SslbenchError, match="no such language model"):
        read_arpa(path)
    path.write_text("hello\n")
    with pytest.raises(SslbenchError, match="is no ARPA file"):
        read_arpa(path)
    path.write_bytes(b"mmap lm http://kheafield.com/code format version 5\n\0" + bytes(range(256)))
    with pytest.raises(SslbenchError, match=r"no ARPA text file, plain or \.gz \(a KenLM binary\)"):
        read_arpa(path)
    packed = tmp_path / "x.arpa.gz"
    packed.write_bytes(gzip.compress("\n".join(KneserNey(TEXTS, 3).arpa()).encode())[:-50])
    with pytest.raises(SslbenchError, match="no ARPA text file"):
        read_arpa(packed)
    path.write_text("\\1-grams:\n-1.0\tTHE\n-1,0\tCAT\n")
    with pytest.raises(SslbenchError, match=r"x\.arpa:3: expected a probability, 1 words"):
        read_arpa(path)
    with pytest.raises(SslbenchError, match="not phones"):
        NgramDecoder(PhoneVocab.from_texts(["AH"]), path, 5, 1.0, 0.0)
    path.write_text("\n".join(KneserNey(["the cat"], 2).arpa()))
    with pytest.raises(SslbenchError, match="sslbench lm --normaliser raw"):
        NgramDecoder(CharVocab.from_texts(["THE CAT"]), path, 5, 1.0, 0.0)
    vocab = CharVocab.from_texts(["THE CAT"])
    model = Head(4, len(vocab), 1, FinetuneConfig())
    monkeypatch.setattr(k2, "available", lambda: True)
    settings = DecodeSettings(lm=str(path), lm_weight=0.0, lm_search="k2")
    with pytest.raises(SslbenchError, match="lm_weight must be above 0"):
        make_search(model, vocab, settings)
    for ignored in ({"beam": 4}, {"word_score": -1.0}):
        settings = DecodeSettings(lm=str(path), lm_search="k2", **ignored)
        with pytest.raises(SslbenchError, match="--beam and --word_score are flashlight's"):
            make_search(model, vocab, settings)
    with pytest.raises(SslbenchError, match="holds no words"):
        KneserNey(["", " "], 2)

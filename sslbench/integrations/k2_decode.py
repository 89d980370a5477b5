"""CTC decoding on k2's graphs: H ∘ L ∘ G from a spelled lexicon and an ARPA file, and one-best search.

The order of compositions is icefall's (`compile_hlg.py`). Needs torch and k2 only.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch

from sslbench.errors import SslbenchError

Grams = list[dict[tuple[str, ...], tuple[float, float]]]
START, END = "<s>", "</s>"
Arc = tuple[int, int, int, float]  # source, destination, label, score


def grammar_arcs(grams: Grams, words: dict[str, int], backoff: int) -> list[Arc]:
    """An ARPA model as an acceptor's arcs; state 0 is the start, the highest state the end.

    Args:
        grams: as `arpa.read_arpa` gives them.
        words: number of every word that may be recognised, from 1.
        backoff: label of back-off arcs.
    """
    histories = [(), *(gram for level in grams[:-1] for gram in level if gram[-1] != END)]
    start = (START,) if (START,) in histories else ()
    order = [start, *(history for history in histories if history != start)]
    state = {history: number for number, history in enumerate(order)}
    final, arcs = len(order), []
    for level in grams:
        for gram, (log10, _) in level.items():
            source = state.get(gram[:-1])
            if source is None or (gram[-1] not in words and gram[-1] != END):
                continue
            target = final if gram[-1] == END else _longest(gram, state)
            label = -1 if gram[-1] == END else words[gram[-1]]
            # an arc into the end must carry -1; the word marking the end is no word
            arcs.append((source, target, label, log10 * math.log(10)))
    for history, number in state.items():
        if history:
            weight = grams[len(history) - 1][history][1]
            arcs.append((number, _longest(history[1:], state), backoff, weight * math.log(10)))
    return sorted(arcs)


def _longest(history: tuple[str, ...], state: dict[tuple[str, ...], int]) -> int:
    while history not in state:
        history = history[1:]
    return state[history]


def lexicon_arcs(
    spelled: Sequence[tuple[int, list[int]]], marks: list[int], backoff: tuple[int, int]
) -> list[Any]:
    """Spellings as a transducer's arcs (source, destination, unit, word, score) with a loop at state 0.

    Args:
        spelled: (word, units) pairs.
        marks: a disambiguation unit for each pair, closing its spelling.
        backoff: unit and word of the loop that lets back-off arcs through.
    """
    arcs: list[Any] = [(0, 0, *backoff, 0.0)]
    free = 1
    for (word, units), mark in zip(spelled, marks, strict=True):
        here = 0
        for place, unit in enumerate([*units, mark]):
            there = 0 if place == len(units) else free
            free += place < len(units)
            arcs.append((here, there, unit, word if place == 0 else 0, 0.0))
            here = there
    return [*sorted(arcs), (0, free, -1, -1, 0.0)]


class GraphDecoder:
    """HLG and its search."""

    def __init__(self, spelled: Sequence[tuple[str, list[int]]], classes: int, grams: Grams) -> None:
        """Compile.

        Args:
            spelled: words with their classes.
            classes: of the recognizer, class 0 the blank.
            grams: of the language model.

        Raises:
            SslbenchError: no words.
        """
        import k2

        if not spelled:
            raise SslbenchError("k2: no word of the language model can be spelled")
        self.words = [word for word, _ in spelled]
        numbers = {word: number for number, word in enumerate(self.words, 1)}
        no_word = len(self.words) + 1  # word of back-off arcs
        # every spelling gets a mark of its own: homophones and prefixes stay apart, and L is deterministic
        marks = [classes + 1 + number for number in range(len(spelled))]
        first_mark, word_arcs = classes, grammar_arcs(grams, numbers, no_word)
        pairs = [(numbers[word], units) for word, units in spelled]
        lexicon = k2.Fsa.from_str(
            _text(sorted_by_source(lexicon_arcs(pairs, marks, (first_mark, no_word)))), num_aux_labels=1
        )
        grammar = k2.Fsa.from_str(_text(word_arcs))
        graph = k2.compose(k2.arc_sort(lexicon), k2.arc_sort(grammar))
        graph = k2.connect(k2.determinize(k2.connect(graph)))
        graph.labels = graph.labels.masked_fill(graph.labels >= first_mark, 0)  # k2 refuses changes in place
        graph.aux_labels.values[graph.aux_labels.values >= no_word] = 0
        graph = k2.connect(k2.remove_epsilon(graph))
        graph.aux_labels = graph.aux_labels.remove_values_eq(0)
        self.graph = k2.connect(k2.compose(k2.ctc_topo(classes - 1), k2.arc_sort(graph)))

    def __call__(self, log_probs: torch.Tensor, lens: torch.Tensor, acoustic_scale: float = 1.0) -> list[str]:
        """Texts of (B, F, classes) log-probabilities, which are scaled, with (B,) valid frames."""
        import k2

        order = lens.argsort(descending=True)  # k2 wants the longest first
        segments = torch.stack([order, torch.zeros_like(order), lens[order]], dim=1).int()
        dense = k2.DenseFsaVec(acoustic_scale * log_probs.float().cpu(), segments.cpu())
        lattice = k2.intersect_dense_pruned(self.graph, dense, 20.0, 8.0, 30, 10_000)
        best = k2.shortest_path(lattice, use_double_scores=True)
        texts = [""] * len(lens)
        for place, row in enumerate(order.tolist()):
            found = best[place].aux_labels
            numbers = found.values if isinstance(found, k2.RaggedTensor) else found
            texts[row] = " ".join(self.words[number - 1] for number in numbers.tolist() if number > 0)
        return texts


def sorted_by_source(arcs: list[Any]) -> list[Any]:
    """As k2's text form wants them, the final arc's source included."""
    return sorted(arcs, key=lambda arc: arc[0])


def _text(arcs: list[Any]) -> str:
    final = max(arc[1] for arc in arcs)
    return "\n".join([*(" ".join(map(str, arc)) for arc in arcs), str(final)])

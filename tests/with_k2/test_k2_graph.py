"""HLG decoding with the real k2: the language model decides where the sound does not."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

pytest.importorskip("k2")

from sslbench.finetune.arpa import KneserNey, read_arpa
from sslbench.integrations.k2_decode import GraphDecoder

UNITS = ["<blank>", "|", *"ABCEHNRST"]
SPELLED = {word: [UNITS.index(c) for c in word + "|"] for word in ("THE", "CAT", "CAB", "SAT", "RAN")}


def heard(text: str, likelier: dict[int, str]) -> torch.Tensor:
    """(1, F, classes): each character, then a blank; `likelier` is a little likelier at some places."""
    classes = [UNITS.index(c) for c in text.replace(" ", "|") + "|"]
    logits = torch.zeros(1, 2 * len(classes), len(UNITS))
    for place, number in enumerate(classes):
        logits[0, 2 * place, number] = 8.0
        logits[0, 2 * place + 1, 0] = 8.0
        if place in likelier:
            logits[0, 2 * place, UNITS.index(likelier[place])] = 8.1
    return logits.log_softmax(-1)


def decoder(folder: Path, order: int) -> GraphDecoder:
    path = folder / "lm.arpa"
    path.write_text("\n".join(KneserNey(["THE CAT SAT"] * 3 + ["THE CAB RAN"], order).arpa()) + "\n")
    return GraphDecoder(list(SPELLED.items()), len(UNITS), read_arpa(path))


@pytest.mark.parametrize("order", [1, 2, 3])
def test_graph_decides_by_the_language_model(tmp_path: Path, order: int) -> None:
    search = decoder(tmp_path, order)
    doubt = heard("THE CAT SAT", {6: "B"})
    lens = torch.tensor([doubt.shape[1]])
    assert search(doubt, lens) == ["THE CAT SAT"]
    assert search(doubt, lens, acoustic_scale=1e3) == ["THE CAB SAT"]  # positive control: nearly no model


def test_batches_and_back_off(tmp_path: Path) -> None:
    search = decoder(tmp_path, 3)
    texts = ["RAN THE CAB", "SAT", "CAT CAT THE"]  # none of them in the model's text
    rows = [heard(text, {}) for text in texts]
    lens = torch.tensor([row.shape[1] for row in rows])
    batch = torch.cat(
        [torch.nn.functional.pad(row, (0, 0, 0, int(lens.max()) - row.shape[1])) for row in rows]
    )
    assert search(batch, lens) == texts

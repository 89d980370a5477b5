"""Make `sclite_pairs.json`: what NIST's sclite counts in pairs with empty, Unicode and numeral cases.

python tests/finetune/make_sclite_fixture.py /usr/lib/sctk/bin/sclite     (Debian: apt install sctk)
"""

from __future__ import annotations

import random
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from sslbench.io import write_text

OUT = Path(__file__).with_name("sclite_pairs.json")
PAIRS = 700
ENGLISH = ["THE", "A", "CAT", "SAT", "ON", "MAT", "AND", "THEN", "IT'S", "O'CLOCK", "WENT", "HOME", "AGAIN"]
UNICODE = ["ÄÖÜ", "ÉTÉ", "NAÏVE", "STRASSE", "ŁÓDŹ", "ΑΘΗΝΑ", "МОСКВА", "日本語", "東京", "Ñ", "ÇA"]
NUMERALS = ["1", "2", "3", "10", "27", "1984", "3.14", "2ND", "1,000", "007", "TWENTY", "SEVEN"]


def pairs() -> list[tuple[str, str]]:
    """(reference, hypothesis): random edits, and now and then an empty side."""
    rng = random.Random(5)
    made = []
    for number in range(PAIRS):
        words = (ENGLISH, ENGLISH + UNICODE, ENGLISH + NUMERALS, UNICODE, NUMERALS)[number % 5]
        said = rng.choices(words, k=rng.randint(0 if number % 10 == 0 else 1, 15))
        heard = []
        for word in said:
            chance = rng.random()
            heard += [] if chance < 0.12 else [rng.choice(words)] if chance < 0.3 else [word]
            heard += [rng.choice(words)] if rng.random() < 0.1 else []
        if number % 29 == 0:  # sclite's costs take 3 deletions and 3 insertions rather than 5 substitutions
            said = rng.sample(ENGLISH, 5)
            heard = [*said[3:], *rng.sample(NUMERALS, 3)]
        made.append((" ".join(said), "" if number % 23 == 0 else " ".join(heard)))
    return made


def count(sclite: str, made: list[tuple[str, str]]) -> list[list[int]]:
    """[correct, substituted, deleted, inserted] of each pair."""
    with tempfile.TemporaryDirectory() as folder:
        for side, name in enumerate(("ref", "hyp")):
            lines = [f"{pair[side]} (s-{number:05})\n" for number, pair in enumerate(made)]
            Path(folder, name).write_text("".join(lines), encoding="utf-8")
        command = [
            sclite,
            "-r",
            "ref",
            "trn",
            "-h",
            "hyp",
            "trn",
            "-i",
            "spu_id",
            "-e",
            "utf-8",
            "-s",
            "-o",
            "pra",
            "stdout",
        ]
        printed = subprocess.run(command, cwd=folder, check=True, capture_output=True).stdout.decode("utf-8")
    found = {}
    for block in printed.split("\nid: ")[1:]:
        identifier = re.match(r"\((\S+)\)", block)
        scores = re.search(r"Scores: \(#C #S #D #I\) (\d+) (\d+) (\d+) (\d+)", block)
        assert identifier
        assert scores
        found[identifier.group(1)] = [int(number) for number in scores.groups()]
    return [found[f"s-{number:05}"] for number in range(len(made))]


def main() -> None:
    """Write the fixture."""
    import json

    made = pairs()
    rows = [[ref, hyp, *counts] for (ref, hyp), counts in zip(made, count(sys.argv[1], made), strict=True)]
    lines = ",\n".join(json.dumps(row, ensure_ascii=False) for row in rows)
    write_text(OUT, f"[\n{lines}\n]\n")
    print(f"{len(rows)} pairs in {OUT}")


if __name__ == "__main__":
    main()

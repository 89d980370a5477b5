"""Base upstreams side by side: every cost measured in one run, compared, and written to a page.

Weights are random (cost does not depend on them). Rows, the HTML report and the page's figure are kept.
How to read the result: docs/benchmarks/base.md, which this writes.
"""

from __future__ import annotations

import argparse
import base64
import subprocess
import sys
from pathlib import Path

from sslbench.io import write_text
from sslbench.report.build import build
from sslbench.report.content import Content
from sslbench.report.growth import growth_figures
from sslbench.report.html import shared_facts
from sslbench.report.markdown import flags, plain, summary_cells, table
from sslbench.report.numbers import ABSENT, significant
from sslbench.report.readings import cost_ratios
from sslbench.report.schema import ResultRow
from sslbench.report.strips import strips

EXAMPLES = """examples:
  make bench-base                                     about 11 minutes on two quiet cores
  make bench-base ARGS="--memory_gib 4"               and the longest batch, about 18
  python benchmarks/base.py --page /tmp/base.md --memory_gib 1 --models zipformer_tiny hubert_k2ssl_tiny
  python benchmarks/base.py --page /tmp/base.md --no_measure     the page again, from the rows that are there
"""
MODELS = [
    "hubert_orig_base", "hubert_k2ssl_base", "fast_hubert_base", "melhubert_base_20ms",
    "zipformer_base", "zipformer_fbank_base", "hf_wav2vec2_base", "hf_wavlm_base",
]  # fmt: skip

INTRODUCTION = """# What Base upstreams cost

    make bench-base

profiles {count} upstreams of Base size by turns in one run and writes this page. The weights are random: cost
does not depend on them, and **nothing on this page says anything about quality**. Scores that others
published for trained checkpoints of these architectures are in `sslbench/report/published/` with their
sources; they were measured elsewhere, so no table here mixes them with these figures.

## How to read it

- **MACs** are counted, not timed, on the SUPERB challenge's 32 clips (224.9 s): they are the same everywhere.
- **RTF** is computing time over audio time for one clip of 10 s; **training speed** is the audio per second
  of forward and backward on 4 clips of 5 s, without an optimizer; medians of interleaved rounds. Absolute
  figures hold for this machine alone; ratios carry over to similar processors, and not to a GPU.
- **Training memory** is the peak of a fresh process over two such steps, libraries and weights included.
{longest}- A dash was not measured: models of transformers have no pretraining loss here to train with.
- Fewer MACs need not mean faster: small operators and log-mel are cheap to count and slow to run.
"""


def main() -> None:
    """Measure, compare, write."""
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--models", nargs="+", default=MODELS, help="the first is what others are compared to"
    )
    parser.add_argument(
        "--memory_gib", type=float, help="also find the longest batch in this memory (a minute per model)"
    )
    parser.add_argument("--repeats", type=int, default=5, help="rounds of each timing (default 5)")
    parser.add_argument("--out", type=Path, default=Path("build/bench-base"), help="rows and HTML report")
    parser.add_argument("--page", type=Path, default=Path("docs/benchmarks/base.md"), help="what to write")
    parser.add_argument("--no_measure", action="store_true", help="use the rows that are in --out")
    args = parser.parse_args()
    results = args.out / "results"
    if not args.no_measure:
        words = ["--growth"]
        if args.memory_gib is not None:
            words += ["--longest_batch", "--memory_gib", f"{args.memory_gib:g}"]
        words += ["--tier", "full", "--repeats", str(args.repeats), "--results", str(results)]
        sslbench("profile", *args.models, *words)
    sslbench("compare", *args.models, "--results", str(results))
    content, paths = build(results, args.out / "report")
    write_page(args.page, content, args.models)
    print(f"wrote {args.page} and {paths[0]}")


def sslbench(*words: str) -> None:
    """Run a verb as users do; 1 is a measurement with a caution, and more an error that it has named."""
    code = subprocess.run([sys.executable, "-m", "sslbench", *words], check=False).returncode
    if code > 1:
        sys.exit(code)


def write_page(path: Path, content: Content, models: list[str]) -> None:
    """The page, and its figures beside it."""
    rows = [row for row in content.rows if row.system in models and row.evaluation == "profile"]
    rows.sort(key=lambda row: models.index(row.system))
    limits = {row.methods["longest_batch"] for row in rows if "longest_batch" in row.methods}
    longest = (
        f"- **Longest batch** is the audio of one update: {'; '.join(sorted(limits))}.\n" if limits else ""
    )
    parts = [INTRODUCTION.format(count=len(rows), longest=longest), "## Result", ""]
    parts += [*(f"- {plain(line)}" for line in [*content.cautions, *content.headlines]), ""]
    parts += [
        *table(*summary_cells(content.summary)),
        "",
        "Bold is a column's best. ↓ lower is better, ↑ higher.",
        "",
    ]
    parts += [f"Everything over `{models[0]}`, so below 1 is less:", ""]
    parts += [*(f"- {plain(line)}" for line in cost_ratios(content.summary, models[0])), ""]
    parts += figures(path, content)
    parts += ["## By length of the clip", "", *table(*by_length(rows)), ""]
    parts += [
        "## Where the numbers come from",
        "",
        *(f"- {k}: {plain(v)}" for k, v in shared_facts(rows)),
        "",
    ]
    noted = flags(rows)
    parts += (
        ["Noted by the runs themselves:", "", *(f"- {plain(line)}" for line in noted), ""] if noted else []
    )
    write_text(path, "\n".join(parts))


def figures(path: Path, content: Content) -> list[str]:
    """Write the figures as SVG on white, and the lines that show them."""
    lines = []
    found = strips("All costs at once", content.summary, content.summary.costs, log=True)
    for name, figure in zip(
        ("costs", "macs", "rtf"), [*found, *growth_figures(content.summary)], strict=False
    ):
        svg = base64.b64decode(figure.light.partition(",")[2]).decode()
        file = path.with_name(f"{path.stem}_{name}.svg")
        write_text(file, svg.replace("<defs>", '<rect width="100%" height="100%" fill="white"/><defs>', 1))
        lines += [f"![{plain(figure.alt)}]({file.name})", ""]
    return lines


def by_length(rows: list[ResultRow]) -> tuple[list[str], list[list[str]]]:
    """Header and lines: MACs per second of audio from the shortest to the longest clip."""
    lengths = sorted(
        int(key.split("_")[2][:-1]) for row in rows[:1] for key in row.cost if key.startswith("macs_at_")
    )
    header = ["G MACs per s of audio, clips of", *(f"{length} s" for length in lengths), "× longest/shortest"]
    lines = []
    for row in rows:
        found = [row.cost[f"macs_at_{length}s_g"] / length for length in lengths]
        lines.append(
            [row.system, *map(significant, found), significant(found[-1] / found[0]) if found else ABSENT]
        )
    return header, lines


if __name__ == "__main__":
    main()

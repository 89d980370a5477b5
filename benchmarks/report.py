"""How long a report of 200 rows takes: tables, tests on predictions, figures, every format.

The rows are the tests' invented benchmark (25 systems, six scores with 300 predictions each, cost, growth,
pretraining). Every build is a fresh process; its time is CPU time, imports left out.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

EXAMPLES = """examples:
  python benchmarks/report.py                    three builds
  python benchmarks/report.py --utterances 2620  as many predictions as LibriSpeech test-clean has
"""
ROWS_MAKER = Path(__file__).parents[1] / "tests" / "report"


def main() -> None:
    """Print each build's time, and the median."""
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--builds", type=int, default=3)
    parser.add_argument("--utterances", type=int, default=300, help="predictions of each of the 150 scores")
    parser.add_argument("--build", nargs=2, metavar=("ROWS", "OUT"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.build:
        _build(*map(Path, args.build))
        return
    sys.path.insert(0, str(ROWS_MAKER))
    import fake_benchmark

    with tempfile.TemporaryDirectory() as folder:
        rows = fake_benchmark.write_large(Path(folder) / "rows", args.utterances)
        command = [sys.executable, __file__, "--build", str(rows), f"{folder}/out"]
        times = [float(subprocess.check_output(command)) for _ in range(args.builds)]
    shown = " ".join(f"{seconds:.1f}" for seconds in times)
    print(f"200 rows, s of CPU time: {shown}, median {median(times):.1f}")


def _build(rows: Path, out: Path) -> None:
    import matplotlib.figure  # noqa: F401

    from sslbench.report.build import build

    started = time.process_time()
    build(rows, out)
    print(time.process_time() - started)


if __name__ == "__main__":
    main()

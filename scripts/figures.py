"""Make every table and figure of the evaluation from records alone: ``python scripts/figures.py``.

Reads the runs in results/ and the committed ones in results/reference/ (``--results PLACE …`` for others: results
folders or archives), and writes CSV, LaTeX, PDF and PNG to results/figures/ (``--out FOLDER``).
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

PROJECT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(PROJECT))

from lumos.errors import LumosError  # noqa: E402
from lumos.suite.paths import RESULTS  # noqa: E402
from lumos.suite.report import build  # noqa: E402
from lumos.suite.report.published import PUBLISHED  # noqa: E402


def arguments(description: str, out: Path) -> argparse.Namespace:
    """What the scripts that read records can be told."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--results", type=Path, nargs="+", default=RESULTS, help="results folders, archives")
    parser.add_argument("--paper", type=Path, default=PUBLISHED, help="the published numbers")
    parser.add_argument("--scale", help="only runs at this scale")
    parser.add_argument("--out", type=Path, default=out, help="where to write")
    return parser.parse_args()


def main() -> int:
    """Write tables and figures, and say what was found."""
    options = arguments("Tables and figures from records.", PROJECT / "results" / "figures")
    started = time.perf_counter()
    try:
        data = build.evaluation(options.results, options.paper, options.scale)
        build.write_tables(data, options.out)
        names = build.write_figures(data, options.out)
    except (LumosError, OSError) as error:
        print(f"figures: {error}", file=sys.stderr)
        return 1
    missing = [w for w in data.paper.workloads if w not in data.headlines]
    print(f"{len(data.results.finished)} finished runs of {len(data.headlines)} workloads", end="")
    print(f"; no record of {', '.join(missing)}" if missing else "")
    for name in ("fig10_features", "fig12_scaling", "fig13_convergence"):
        if name not in names:
            print(f"{name}: no record has what it shows; its table has dashes")
    print(f"wrote {options.out} in {time.perf_counter() - started:.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())

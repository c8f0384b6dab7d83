"""Make results/report.html, one page with every table, figure and record: ``python scripts/report.py``."""

from __future__ import annotations

import sys

from figures import PROJECT, arguments

from lumos.errors import LumosError
from lumos.suite.report import build


def main() -> int:
    """Write the page."""
    options = arguments("A page from records.", PROJECT / "results" / "report.html")
    try:
        build.write_page(build.evaluation(options.results, options.paper, options.scale), options.out)
    except (LumosError, OSError) as error:
        print(f"report: {error}", file=sys.stderr)
        return 1
    print(
        f"wrote {options.out} ({options.out.stat().st_size / 1e6:.1f} MB); it opens in any browser, without a network"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())

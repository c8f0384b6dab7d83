"""Draw samples of the workloads to ``docs/figures/<name>.png``: all workloads that have a sheet, or those named.

python scripts/contact_sheets.py [NAME ...]
"""

from __future__ import annotations

import argparse
import importlib
from pathlib import Path

PROJECT = Path(__file__).resolve().parent.parent
SHEETS = sorted(file.parent.name for file in (PROJECT / "workloads").glob("*/figures.py"))


def main() -> None:
    """Draw the sheets and print where they are."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help=f"of {', '.join(SHEETS)}; all of them if none is named"
    )
    parser.add_argument("--folder", type=Path, default=PROJECT / "docs" / "figures", help="where to draw them")
    arguments = parser.parse_args()
    unknown = sorted(set(arguments.names) - set(SHEETS))
    if unknown:
        parser.error(f"no contact sheet of {', '.join(unknown)}; there are {', '.join(SHEETS)}")
    arguments.folder.mkdir(parents=True, exist_ok=True)
    for name in arguments.names or SHEETS:
        print(importlib.import_module(f"lumos.workloads.{name}.figures").contact_sheet(arguments.folder))


if __name__ == "__main__":
    main()

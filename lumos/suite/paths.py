"""Where the suite finds its configuration, and where it writes. Imports no torch."""

from pathlib import Path

PACKAGE = Path(__file__).resolve().parent.parent
CONF = PACKAGE / "conf"
"""Hydra's configuration; it travels inside the package."""

PROJECT = PACKAGE.parent if (PACKAGE.parent / "run.py").exists() else Path.cwd()
"""The checkout, or, for an installed package, the folder in which the process was started: results go there."""

RESULTS = (PROJECT / "results", PROJECT / "results" / "reference")
"""Where runs are looked for unless other places are given: one's own, then the committed ones."""

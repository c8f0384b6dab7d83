"""Where the suite finds its configuration, and where it writes. Imports no torch."""

import os
from pathlib import Path

PACKAGE = Path(__file__).resolve().parent.parent
CONF = PACKAGE / "conf"
"""Hydra's configuration; it travels inside the package."""

CHECKOUT = PACKAGE.parent if (PACKAGE.parent / "run.py").exists() else None
"""The repository, where this is one and no installed package."""
PROJECT = CHECKOUT or Path.cwd()
"""The checkout, or, for an installed package, the folder in which the process was started: results go there."""

RESULTS = (Path(os.environ.get("LUMOS_RESULTS", PROJECT / "results")).expanduser(), PROJECT / "results" / "reference")
"""Where runs are looked for unless other places are given: one's own, then the committed ones."""

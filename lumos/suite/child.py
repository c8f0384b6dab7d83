"""How ``lumos run`` is started in another process, from a checkout or from an installed package."""

import os
import sys

from lumos.suite.paths import PACKAGE

MODULE = ("-m", "lumos", "run")
COMMAND = (sys.executable, *MODULE)
LAUNCHED_HERE = "LUMOS_LAUNCHED_HERE"
"""The variable of processes that train together, begun by one which itself says which of them was killed."""


def environment() -> dict[str, str]:
    """Return this process's environment, with which the other one imports the very same package."""
    before = os.environ.get("PYTHONPATH")
    return {**os.environ, "PYTHONPATH": os.pathsep.join([str(PACKAGE.parent), *([before] if before else [])])}

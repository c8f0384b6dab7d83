"""``python run.py workload=cfd lumos.lambda=1e-3``: the same as ``lumos run …``.

Train a workload dense and gated, cut, verify, measure, record.
"""

import sys

from lumos.suite.cli import main

if __name__ == "__main__":
    main(["run", *sys.argv[1:]], program="run.py")

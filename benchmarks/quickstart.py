"""Does the README's example find its two features with other optimizers and seeds? `python benchmarks/quickstart.py`.

The example is run as it stands there, with another optimizer in its line and another seed; nothing else in the loop
changes. The seeds are ones on which no default was chosen.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import re
import time
from pathlib import Path

import torch
from torch import Tensor

PROJECT = Path(__file__).resolve().parent.parent
BLOCK = re.compile(r"<!-- example -->\n```python\n(.*?)^```$", re.S | re.M)
LINE = "torch.optim.Adam(gated.parameters(), lr=3e-3)"
OPTIMIZERS = {
    "Adam": LINE,
    "SGD with momentum": "torch.optim.SGD(gated.parameters(), lr=0.05, momentum=0.9)",
    "AdamW, one group": "torch.optim.AdamW(gated.parameters(), lr=3e-3, weight_decay=0.01)",
}


def example() -> str:
    """The README's code."""
    found = BLOCK.search((PROJECT / "README.md").read_text())
    if found is None or LINE not in found[1]:
        raise SystemExit(f"README.md: expected an example that says {LINE}")
    return found[1]


def unseen(rows: int = 4000) -> tuple[Tensor, Tensor]:
    """Fresh rows of the example's problem."""
    x = torch.randn(rows, 20, generator=torch.Generator().manual_seed(2**31))
    return x, x[:, :1] * x[:, 1:2]


def main() -> None:
    """Print a row of a Markdown table for each optimizer and seed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", default="10,11,12")
    seeds = [int(seed) for seed in parser.parse_args().seeds.split(",")]
    print("| optimizer | seed | features kept | parameters | R2 on unseen rows | seconds |\n|---|---|---|---|---|---|")
    for name, made in OPTIMIZERS.items():
        for seed in seeds:
            names: dict = {}
            torch.manual_seed(seed)
            began = time.process_time()
            with contextlib.redirect_stdout(io.StringIO()):
                exec(example().replace(LINE, made), names)
            seconds = time.process_time() - began
            small, (x, y) = names["small"], unseen()
            share = sum(p.numel() for p in small.parameters()) / sum(p.numel() for p in names["model"].parameters())
            with torch.no_grad():
                r2 = 1 - float((small(x) - y).square().mean() / y.var())
            print(
                f"| {name} | {seed} | {' '.join(small.features)} | {share:.1%} | {r2:.4f} | {seconds:.1f} |", flush=True
            )


if __name__ == "__main__":
    main()

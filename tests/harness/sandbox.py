"""A folder with a bit of all that LUMOS reads, put back as it was before each trial."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd

from lumos import measure
from lumos.suite import measurements
from tests.harness.child import run

Tree = Mapping[str, tuple[int, int]]


def quick_measurements(figures: Mapping[str, Any] | None) -> None:
    """Let a run find known figures in place of its measurements, which take their time and are tried elsewhere."""
    known = figures or {}
    measure.inference_cost = lambda models, *_, **__: {name: dict(known.get(name, {})) for name in models}
    measurements.step_cost = lambda *_, **__: known.get("training")


def draw_without_rendering() -> None:
    """Let figures be drawn and written empty: pixels and fonts are most of their time."""
    from matplotlib.figure import Figure

    def save(self: Figure, target: Any, **_: Any) -> None:
        target.write(b'<svg width="100pt"/>')

    Figure.savefig = save  # type: ignore[method-assign]


@dataclass
class Sandbox:
    """``root/whole`` has the files as they are made once; trials work in a copy, ``root/copy``.

    Attributes:
        root: A folder of its own; ``copy/results`` has to be what LUMOS_RESULTS said when LUMOS was imported.
    """

    root: Path
    ids: dict[str, str] = field(default_factory=dict)

    @property
    def copy(self) -> Path:
        """Where trials work."""
        return self.root / "copy"

    @property
    def said(self) -> Path:
        """What the last trial said."""
        return self.root / "said"

    @cached_property
    def figures(self) -> dict[str, Any]:
        """What was measured in the run of the sandbox."""
        home = next(f for f in (self.root / "whole", self.copy) if f.exists())
        entries = [json.loads(p.read_text()) for p in home.glob("results/runs/synthetic/*/record.json")]
        entry = next(e for e in entries if e["seed"] == 0)
        own = ("score", "scores", "valid_score", "train_seconds", "steps", "phases")
        sides = {side: {k: v for k, v in entry[side].items() if k not in own} for side in ("dense", "compact")}
        return {**sides, "training": entry["training"]}

    def make(self) -> None:
        """Make the files: tables in every format, two runs, an archive, a sweep, weights, a study."""
        from lumos.suite.cli import main

        work = self.copy / "work"
        work.mkdir(parents=True)
        rng = np.random.default_rng(0)
        table = pd.DataFrame(rng.standard_normal((60, 4)), columns=list("abcy"))
        table["kind"] = np.where(np.arange(60) % 3, "one", "two")
        table.to_csv(work / "t.csv", index=False)
        table.to_parquet(work / "t.parquet")
        with h5py.File(work / "t.h5", "w") as opened:
            for name in "abcy":
                opened[name] = table[name].to_numpy()
        table.drop(columns="kind").to_xarray().to_netcdf(work / "t.nc")
        (work / "mine.csv").write_text(
            "smiles,label\n" + "".join(f"{'C' * (i // 8 + 1)}C1{'C' * (1 + i % 8)}N1,{i % 2}\n" for i in range(128))
        )
        small = ("scale=tiny", "trainer.max_steps=4", "trainer.device=cpu")
        calls = (
            ("run", "workload=synthetic", *small),
            ("run", "-m", "workload=synthetic", "seed=1,2", *small),
            ("fit", "t.csv", "--targets", "y", "--lambda", "0.001", *small),
            ("pack", "../results", "-o", "old.jsonl.gz"),
            ("feature-report", "workload=synthetic", *small, "--methods", "", "--table", "report.csv"),
            ("suite features", "--m", "2", "--problems", "ring", "--folds", "1", "--methods", "pearson", "--records",
             "study.ndjson", "--out", "study"),
        )  # fmt: skip
        for number, words in enumerate(calls):
            first = number == 0

            def call(words: tuple[str, ...] = words, first: bool = first) -> None:
                if not first:
                    quick_measurements(self.figures)
                main(words)

            outcome = run(call, self.said, work, patience=300)
            assert outcome.code == 0, outcome.said
        shutil.copytree(self.copy, self.root / "whole", symlinks=True)

    def restore(self) -> None:
        """Put the copy back as it was made."""
        shutil.rmtree(self.copy, ignore_errors=True)
        shutil.copytree(self.root / "whole", self.copy, symlinks=True)

    def files(self) -> list[Path]:
        """All files of the copy that LUMOS reads."""
        found = sorted(path for path in self.copy.rglob("*") if path.is_file())
        return [p for p in found if p.name not in (".lock", "train.log") and p.suffix not in (".png", ".pdf")]

    def tree(self) -> Tree:
        """Every path below the root, with size and time; folders have neither."""
        found = {}
        for folder, folders, names in os.walk(self.root):
            for name in (*folders, *names):
                path = Path(folder, name)
                at = path.lstat()
                found[path.relative_to(self.root).as_posix()] = (
                    (0, 0) if path.is_dir() else (at.st_size, at.st_mtime_ns)
                )
        return found


def written_outside(before: Tree, after: Tree, allowed: Iterable[str]) -> list[str]:
    """Paths that appeared, changed or went, and are below none of the allowed ones."""
    roots = [root.rstrip("/") for root in allowed]
    different = {path for path in before.keys() | after.keys() if before.get(path) != after.get(path)}
    return sorted(p for p in different if not any(p == root or p.startswith(f"{root}/") for root in roots))

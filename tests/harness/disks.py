"""A disk that is full at any stage: one line, nothing half-written, and the same call works once there is room."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lumos.suite import cli
from tests.harness.child import run
from tests.harness.sandbox import Sandbox, quick_measurements
from tests.harness.words import SMALL

CACHED = ("braintumor", "cfd", "cosmoflow", "dms", "em_denoise", "fluid", "molhiv", "optical", "ppa", "puremd", "slstr",
          "stemdl")  # fmt: skip
"""Workloads that write what they generate."""
SIZES = (0, 1_000, 20_000, 200_000)
"""Bytes that a file may have."""


def calls(ids: dict[str, str]) -> dict[str, tuple[str, ...]]:
    """What writes, by the stage that it is at."""
    folder = f"../results/runs/synthetic/{ids['synthetic']}"
    return {
        **{f"generation: {name}": ("run", f"workload={name}", *SMALL) for name in CACHED},
        "training, cut and record": ("run", "workload=synthetic", "lumos.lambda=0.01", "trainer.checkpoint_steps=1",
                                     *SMALL),
        "a run by force": ("run", "workload=synthetic", "force=true", "trainer.checkpoint_steps=1", *SMALL),
        "a sweep": ("run", "-m", "workload=synthetic", "seed=3,4", *SMALL),
        "lumos fit": ("fit", "t.csv", "--targets", "y", "--lambda", "0.02", *SMALL),
        "lumos predict": ("predict", ids["table"], "t.csv", "-o", "out.csv"),
        "lumos export": ("export", folder, "--to", "out.onnx"),
        "lumos pack": ("pack", "../results", "-o", "new.jsonl.gz"),
        "lumos unpack": ("unpack", "old.jsonl.gz", "-o", "back"),
        "lumos figures": ("figures", "--results", "../results", "--out", "out"),
        "lumos report": ("report", "--results", "../results", "--out", "out.html"),
        "lumos feature-report": ("feature-report", ids["synthetic"], "--methods", "", "--table", "out.csv"),
        "lumos suite": ("suite", "--only", "synthetic", *SMALL),
        "lumos suite features": ("suite features", "--m", "2,4", "--problems", "ring", "--folds", "1", "--methods",
                                 "pearson", "--records", "new.ndjson", "--out", "out"),
    }  # fmt: skip


def trial(sandbox: Sandbox, words: tuple[str, ...], size: int) -> tuple[str | None, bool]:
    """Do a call with files limited to so many bytes, then without a limit; what is wrong, and whether room lacked."""
    sandbox.restore()
    figures: dict[str, Any] = sandbox.figures

    def call() -> None:
        quick_measurements(figures)
        cli.main(words)

    work = sandbox.copy / "work"
    full = run(call, sandbox.said, work, most_bytes=size, patience=300)
    return _judged(sandbox, full, call, work), bool(full.code)


def on_a_small_disk(sandbox: Sandbox, words: tuple[str, ...], kilobytes: int) -> tuple[str | None, bool]:
    """The same with results, cache and work on a file system that is full."""
    sandbox.restore()
    figures: dict[str, Any] = sandbox.figures

    def call() -> None:
        quick_measurements(figures)
        cli.main(words)

    with small_disk(sandbox.copy / "disk", kilobytes) as disk:
        (disk / "work").mkdir()
        for path in (sandbox.copy / "work").iterdir():
            (disk / "work" / path.name).symlink_to(path)
        (disk / "results").symlink_to(sandbox.copy / "results")

        def there() -> None:
            os.environ.update(LUMOS_RESULTS=str(disk / "results-here"), LUMOS_CACHE=str(disk / "cache"))
            call()

        full = run(there, sandbox.said, disk / "work", patience=300)
        left = [p.name for p in disk.rglob("*") if _half_written(p)]
    wrong = full.fault or (f"left behind: {left}" if left else None)
    return wrong, bool(full.code)


def _judged(sandbox: Sandbox, full: Any, call: Any, work: Path) -> str | None:
    if full.fault or full.asked:
        return full.fault or "at work for minutes"
    left = [p.name for p in sandbox.copy.rglob("*") if _half_written(p)]
    if left:
        return f"left behind: {left[:5]}"
    if not full.code:  # there was room enough, and some calls refuse to do again what is done
        return None
    again = run(call, sandbox.said, work, patience=300)
    if again.fault or again.code:
        return f"once there is room: code {again.code}: {again.fault or again.said[-300:]}"
    return None


def _half_written(path: Path) -> bool:
    return path.is_file() and (path.suffix == ".tmp" or (path.name.startswith(".") and path.name != ".lock"))


@contextmanager
def small_disk(place: Path, kilobytes: int) -> Iterator[Path]:
    """A file system of its own of this size. Raises CalledProcessError where this user may make none."""
    place.mkdir(parents=True, exist_ok=True)
    subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={kilobytes}k", "tmpfs", str(place)], check=True, capture_output=True
    )
    try:
        yield place
    finally:
        subprocess.run(["umount", "--lazy", str(place)], check=False, capture_output=True)

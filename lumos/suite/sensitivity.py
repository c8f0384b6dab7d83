"""``lumos suite sensitivity``: the score of every workload's dense network against its width.

A problem on which an eighth of the network does as well as all of it, or a straight line does, says nothing about
pruning. Each run is ``method=dense``, a process of its own; what is finished is not run again. The runs are listed in
``sensitivity.json`` of the results folder. ``conf/widths.yaml`` says which keys hold a network's widths.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import yaml

from lumos.errors import ConfigError
from lumos.files import atomic
from lumos.suite import record
from lumos.suite.config import compose, read
from lumos.suite.paths import CONF
from lumos.suite.report.sensitivity import LIST, listed
from lumos.suite.run_suite import Job, run, workload_of

WIDTHS = CONF / "widths.yaml"
SHARES = "1/8,1/4,1/2,1"
"""Of the widths of the network at this scale."""
SEEDS = "100,101,102"
"""No table of the suite reports these."""


@dataclass(frozen=True)
class Cell:
    """One training of the study: a workload, or a further problem of one, at a share of its widths, with a seed."""

    workload: str
    share: Fraction
    seed: int


@dataclass(frozen=True)
class Narrowing:
    """Which keys of a workload hold widths, and further words of its runs in the study."""

    widths: list[str]
    words: list[str]


def narrowings() -> dict[str, Narrowing]:
    """Read what is narrowed of each workload's network, in the order of the study."""
    found = yaml.safe_load(WIDTHS.read_text())
    return {name: Narrowing(of["widths"], of.get("words") or []) for name, of in found.items()}


def cells(only: str | None = None, shares: str = SHARES, seeds: str = SEEDS) -> list[Cell]:
    """List what is to be run: workload by workload, and of each all widths of a seed before the next seed.

    Args:
        only: These workloads, with commas between them; all where None.
        shares: Of the widths, with commas between them: 1/8 or 0.125.
        seeds: The seeds, with commas between them.

    Raises:
        ConfigError: There is no such workload, or a share or a seed is none.

    Example:
        >>> [str(cell.share) for cell in cells("cfd", "1/2,1", "100")]
        ['1/2', '1']
    """
    known = list(narrowings())
    chosen = only.split(",") if only else known
    if unknown := [w for w in chosen if w not in known]:
        raise ConfigError(f"--only {','.join(unknown)}: there is no such workload; expected {', '.join(known)}")
    try:
        parts = [Fraction(word) for word in shares.split(",")]
    except (ValueError, ZeroDivisionError):
        parts = []
    if not parts or not all(0 < part <= 1 for part in parts):
        raise ConfigError(f"--widths {shares}: expected shares of the widths with commas between them, such as 1/8,1")
    if not all(word.isdigit() for word in seeds.split(",")):
        raise ConfigError(f"--seeds {seeds}: expected whole numbers with commas between them")
    return [Cell(w, part, int(seed)) for w in chosen for seed in seeds.split(",") for part in parts]


def narrowed(value: Any, share: Fraction) -> Any:
    """Multiply a width, or a list of widths, by a share; a width is at least 1.

    Example:
        >>> narrowed([784, 300, 100], Fraction(1, 8)), narrowed(64, Fraction(1, 4))
        ([98, 38, 12], 16)
    """
    if isinstance(value, Sequence):
        return [narrowed(inner, share) for inner in value]
    return max(1, round(value * share))


def job(cell: Cell, given: Sequence[str] = ()) -> Job:
    """Describe the run of a cell. Raises ConfigError where its configuration is wrong."""
    how = narrowings()[cell.workload]
    workload = workload_of(cell.workload, how.words)
    more = [word for word in how.words if not word.startswith("workload=")]
    words = [f"workload={workload}", "scale=small", f"seed={cell.seed}", "method=dense", *more, *given]
    if cell.share != 1:
        settings = read(compose(words)).resolved["workload"]
        for key in how.widths:
            words.append(f"workload.{key}={json.dumps(narrowed(settings[key], cell.share))}".replace(" ", ""))
    return Job(workload, tuple(words), read(compose(words)).folder(workload))


def run_study(
    wanted: Sequence[Cell], words: Sequence[str] = (), minutes: float | None = None, say: Callable[[str], None] = print
) -> bool:
    """Do the runs that are not finished yet.

    Args:
        wanted: What :func:`cells` listed.
        words: ``KEY=VALUE`` for all runs.
        minutes: After how many no further run is begun.
        say: Takes a line for each run.

    Returns:
        Whether every run is finished. What is wrong with one is said, and the others go on.

    Raises:
        ConfigError: A word is wrong.
    """
    started, whole = time.perf_counter(), True
    for number, cell in enumerate(wanted, 1):
        made = job(cell, words)
        name = f"[{number:3d}/{len(wanted)}] {cell.workload}, width {cell.share}, seed {cell.seed}"
        entry = record.finished(made.folder)
        if entry is None:
            if minutes is not None and time.perf_counter() - started > 60 * minutes:
                say(f"stopped after {minutes:g} minutes; the same command goes on")
                return False
            if problem := run(made, None):
                say(f"{name}: FAILED: {problem}")
                whole = False
                continue
            entry = record.read(made.folder)
        _note(made, cell)
        say(f"{name}: {entry['metric']['name']} {_score(entry)}, {entry['dense']['params']:,} parameters")
    return whole


def _score(entry: Mapping[str, Any]) -> str:
    score = entry["dense"]["score"]
    return "-" if score is None else f"{score:.4f}"


def _note(job: Job, cell: Cell) -> None:
    """Name a finished run in the study's list."""
    path = job.results / LIST
    entry = {"workload": cell.workload, "width": str(cell.share), "seed": cell.seed, "run_id": job.folder.name}
    before = listed(path) if path.exists() else []
    key = [entry[name] for name in ("workload", "width", "seed")]
    kept = [e for e in before if [e[name] for name in ("workload", "width", "seed")] != key]
    with atomic(path) as temporary:
        temporary.write_text(json.dumps({"runs": [*kept, entry]}, indent=1) + "\n")

"""Run ways to rank features on the problems, cell by cell; each finished cell is a line of a file of records."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lumos.errors import ConfigError, RecordError, reads
from lumos.suite.selection.problems import FOLDS, TRUE, problem, sizes
from lumos.suite.selection.rankings import RANKINGS

KEY = ("problem", "features", "fold", "seed", "method")


def cells(
    problems: Sequence[str], features: Sequence[int], folds: int, methods: Sequence[str], seed: int
) -> list[dict[str, Any]]:
    """List what is to be run, small problems first, so that a study that is stopped has some of each.

    Args:
        problems: Some of the four.
        features: Numbers of features; of these, a problem is posed with those that :func:`sizes` lists.
        folds: How many of the six.
        methods: Some of the rankings.
        seed: Of the rows.

    Raises:
        ConfigError: There is no such problem, method, size or fold.
    """
    _known("--problems", problems, TRUE)
    _known("--methods", methods, RANKINGS)
    possible = sorted({m for name in TRUE for m in sizes(name)})
    _known("--m", features, possible)
    if not 1 <= folds <= FOLDS:
        raise ConfigError(f"--folds {folds}: expected 1 to {FOLDS}")
    wanted = set(features or possible)
    return [
        dict(zip(KEY, (name, m, fold, seed, method), strict=True))
        for fold in range(folds) for m in possible for name in problems or TRUE for method in methods or RANKINGS
        if m in wanted and m in sizes(name)
    ]  # fmt: skip


def run_study(
    wanted: Sequence[dict[str, Any]], path: Path, minutes: float | None = None, say: Callable[[str], None] = print
) -> bool:
    """Run the cells that the file does not have yet.

    Args:
        wanted: What :func:`cells` listed.
        path: The file of records, a line of JSON for each finished cell.
        minutes: After how many no further cell is begun.
        say: Takes a line for each cell.

    Returns:
        Whether all cells are finished.

    Raises:
        RecordError: A line of the file is none of these records.
    """
    done = {_key(row) for row in read(path)} if path.exists() else set()
    left = [cell for cell in wanted if _key(cell) not in done]
    say(f"{len(wanted) - len(left)} of {len(wanted)} cells are finished")
    started = time.perf_counter()
    for number, cell in enumerate(left, 1):
        if minutes is not None and time.perf_counter() - started > 60 * minutes:
            say(f"stopped after {minutes:g} minutes; {len(left) - number + 1} cells are left: the same command goes on")
            return False
        row = run_cell(cell)
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a") as file:
            file.write(json.dumps(row) + "\n")
        say(f"[{number}/{len(left)}] {row['problem']} of {row['features']}, fold {row['fold']}, {row['method']}: "
            f"{row['found']} of {TRUE[row['problem']]} in {row['seconds']:.1f} s")  # fmt: skip
    return True


def run_cell(cell: dict[str, Any]) -> dict[str, Any]:
    """Rank the features of one fold; ``found`` is how many of the k true ones are among the k best."""
    posed = problem(cell["problem"], cell["features"], cell["fold"], cell["seed"])
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    started = time.process_time()
    try:
        score = RANKINGS[cell["method"]](posed.x, posed.y, cell["fold"])
    finally:
        torch.set_num_threads(threads)
    seconds = time.process_time() - started
    place = np.empty(len(score), np.int64)
    place[np.argsort(-score, kind="stable")] = np.arange(1, len(score) + 1)
    ranks = sorted(place[posed.true].tolist())
    return {**cell, "found": sum(rank <= len(ranks) for rank in ranks), "ranks": ranks, "seconds": round(seconds, 3)}


@reads("expected the records of a study", error=RecordError)
def read(path: Path) -> list[dict[str, Any]]:
    """Read the records of a study; of a line that a kill cut off at the end, nothing remains.

    Raises:
        RecordError: A line is none of these records.
    """
    return list(_rows(path))


def _rows(path: Path) -> Iterator[dict[str, Any]]:
    lines = path.read_text().splitlines()
    for number, line in enumerate(lines, 1):
        try:
            row = json.loads(line)
            missing = [key for key in (*KEY, "found", "ranks", "seconds") if key not in row]
            if missing:
                raise ValueError(f"{missing[0]} is missing")
        except (ValueError, TypeError) as error:
            if number == len(lines):
                path.write_text("".join(f"{kept}\n" for kept in lines[:-1]))
                return
            raise RecordError(f"{path}, line {number}: not a record of a study ({error}); delete the line") from None
        yield row


def _key(row: dict[str, Any]) -> tuple[Any, ...]:
    return tuple(row[key] for key in KEY)


def _known(option: str, given: Sequence[Any], known: Any) -> None:
    unknown = [str(value) for value in given if value not in known]
    if unknown:
        raise ConfigError(f"{option} {','.join(unknown)}: expected some of {', '.join(map(str, known))}")

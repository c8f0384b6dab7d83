"""Which records there are, which of them differ only by their seed, and which stand for a workload in the tables."""

from __future__ import annotations

import json
import logging
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from lumos.errors import one_line
from lumos.suite import archive
from lumos.suite.identity import MACHINE_KEYS
from lumos.suite.report.quantities import device_kind
from lumos.suite.rows import Row

SUITE = "suite.json"
"""A results folder's list of the runs that stand for their workloads, written by the suite."""
TOLERANCE, REDUCTIONS = "tolerance", "reductions"
"""What the suite asks: the same of all workloads, which stands for them; and of each the paper's reduction."""
SCALES = ("tiny", "bench", "small", "paper")
log = logging.getLogger("lumos")

_SEED = ("seed", "workload.seed")

Record = dict[str, Any]


@dataclass(frozen=True)
class SeedGroup:
    """Finished runs of one configuration that differ only by their seed."""

    runs: tuple[Record, ...]

    @property
    def first(self) -> Record:
        """The run with the lowest seed."""
        return self.runs[0]

    @property
    def workload(self) -> str:
        """The workload's name."""
        return self.first["workload"]

    @property
    def ids(self) -> tuple[str, ...]:
        """The runs' ids."""
        return tuple(r["run_id"] for r in self.runs)

    def values(self, quantity: Callable[[Record], float | None]) -> list[float]:
        """Return the quantity of each seed that has it."""
        return [v for v in map(quantity, self.runs) if v is not None]

    def mean(self, quantity: Callable[[Record], float | None]) -> float | None:
        """Return the mean over the seeds; None where no run has the quantity."""
        values = self.values(quantity)
        return statistics.fmean(values) if values else None

    def spread(self, quantity: Callable[[Record], float | None]) -> float | None:
        """Return the standard deviation over the seeds; None where fewer than two have the quantity."""
        values = self.values(quantity)
        return statistics.stdev(values) if len(values) > 1 else None


@dataclass(frozen=True)
class Results:
    """Every record at some places; a run that is at several counts once, from the first that has it.

    A place is a results folder (with ``runs/`` or archives in it) or an archive. ``scale`` leaves out all other scales.
    """

    places: tuple[Path, ...]
    scale: str | None = None

    @cached_property
    def runs(self) -> dict[str, archive.Run]:
        """Every run by its id, oldest first."""
        known: dict[str, archive.Run] = {}
        for run in (run for place in self.places for run in archive.runs(place)):
            if self.scale in (None, run.record["scale"]):
                known.setdefault(run.record["run_id"], run)
        ordered = sorted(known.values(), key=lambda run: (run.record["provenance"]["started_utc"], run.name))
        return {run.record["run_id"]: run for run in ordered}

    @property
    def records(self) -> list[Record]:
        """Every record, finished or not, oldest first."""
        return [run.record for run in self.runs.values()]

    @property
    def finished(self) -> list[Record]:
        """The finished ones."""
        return [r for r in self.records if r["status"] == "finished"]

    @cached_property
    def groups(self) -> list[SeedGroup]:
        """Finished runs by configuration, whatever the seed."""
        by_key: dict[str, list[Record]] = {}
        for entry in self.finished:
            by_key.setdefault(configuration(entry), []).append(entry)
        return [SeedGroup(tuple(sorted(runs, key=lambda r: r["seed"]))) for runs in by_key.values()]

    def group_of(self, entry: Record) -> SeedGroup:
        """Return the runs that differ from a finished one only by their seed, itself among them."""
        runs = [r for r in self.finished if configuration(r) == configuration(entry) and r["run_id"] != entry["run_id"]]
        return SeedGroup(tuple(sorted([entry, *runs], key=lambda r: r["seed"])))

    def of(self, workload: str, method: str | None = None) -> list[SeedGroup]:
        """Return the groups of a workload, of one method or of all."""
        return [g for g in self.groups if g.workload == workload and method in (None, method_of(g.first))]

    def headline(
        self, workload: str, method: str = "lumos", device: str | None = None, question: str | None = None
    ) -> SeedGroup | None:
        """Return the runs that stand for a workload: those the suite names, or largest scale, most seeds, latest.

        Scores play no part in it, so nothing is picked for being good. Of the suite's those count first that were asked
        the same as all workloads.

        Args:
            workload: Its name.
            method: Whose runs.
            device: ``cpu`` or ``gpu``, where they were made; None for any.
            question: Only runs that the suite asked this, ``reductions`` say; None for any run.

        Returns:
            The runs; None where there are none.
        """

        def rank(group: SeedGroup) -> tuple[bool, bool, int, int, str, str]:
            scale = SCALES.index(group.first["scale"]) if group.first["scale"] in SCALES else -1
            latest = max(r["provenance"]["started_utc"] for r in group.runs)
            ids = set(group.ids)
            first, named = bool(ids & self.asked.get(TOLERANCE, set())), bool(ids & self.suite)
            return first, named, scale, len(group.runs), latest, group.ids[0]

        groups = [g for g in self.of(workload, method) if device in (None, device_kind(g.first))]
        if question is not None:
            groups = [g for g in groups if set(g.ids) & self.asked.get(question, set())]
        return max(groups, key=rank, default=None)

    @cached_property
    def asked(self) -> dict[str, set[str]]:
        """The ids that the suites' lists at these places name, by what was asked; not those of further problems."""
        named: dict[str, set[str]] = {}
        for place in self.places:
            path = (place.parent if archive.is_archive(place) else place) / SUITE
            for run in suite_runs(path) if path.exists() else []:
                if not run.get("problem"):
                    named.setdefault(run.get("question") or REDUCTIONS, set()).add(run["run_id"])
        return named

    @property
    def suite(self) -> set[str]:
        """All of these ids."""
        return set().union(*self.asked.values())

    def table(self, entry: Record, name: str = "curve.csv") -> list[Row]:
        """Read a table beside a run's record; see :func:`lumos.suite.rows.read_rows`. No rows without one."""
        return self.runs[entry["run_id"]].table(name)


def suite_runs(path: Path) -> list[dict[str, Any]]:
    """Read a suite's list of runs; what is none is named in a warning and left out."""
    try:
        found = json.loads(path.read_text())["runs"]
        good = [run for run in found if isinstance(run, dict) and isinstance(run.get("run_id"), str)]
    except (OSError, ValueError, KeyError, TypeError) as error:
        log.warning(f"{path}: not a suite's list ({one_line(error)}); left out, run the suite again")
        return []
    if len(good) < len(found):
        log.warning(f"{path}: {len(found) - len(good)} of its entries are no runs; left out")
    return good


def method_of(entry: Record) -> str:
    """Return the method of a record."""
    return entry.get("method") or "lumos"


def configuration(entry: Record, *without: str) -> str:
    """Name a record's configuration, less seed and machine and less the keys given."""
    kept = [entry["workload"], method_of(entry), entry["scale"], flat_config(entry.get("config") or {}, *without)]
    return json.dumps(kept, sort_keys=True)


def problem(entry: Record) -> str:
    """Name what methods are compared on: a record's configuration without what is the methods' own."""
    return configuration({**entry, "method": "any"}, "lumos", "method")


def flat_config(config: dict[str, Any], *without: str) -> dict[str, Any]:
    """Flatten a configuration to dotted keys, less what is null, less seed and machine and less the keys given."""
    out: dict[str, Any] = {}
    left_out = (*_SEED, *MACHINE_KEYS, *without)

    def walk(value: Any, path: str) -> None:
        if isinstance(value, dict) and value:
            for key, inner in value.items():
                walk(inner, f"{path}.{key}" if path else key)
        elif value is not None and not any(f"{path}.".startswith(f"{key}.") for key in left_out):
            out[path] = value

    walk(config, "")
    return out


def dominates(one: tuple[float, float], other: tuple[float, float], higher_is_better: bool) -> bool:
    """Return whether a network, as parameters and score, is no larger and no worse than another, and better in one.

    >>> dominates((100, 0.95), (200, 0.95), higher_is_better=True)
    True
    """
    sign = 1 if higher_is_better else -1
    (params, score), (others_params, others_score) = one, other
    return one != other and params <= others_params and sign * score >= sign * others_score


def pareto_front(entries: Sequence[Record]) -> list[Record]:
    """Return the finished runs than which no other of the same workload and scale is smaller and no worse."""
    done = [r for r in entries if r["status"] == "finished" and r["compact"].get("score") is not None]

    def beats(a: Record, b: Record) -> bool:
        one, other = ((r["compact"]["params"], r["compact"]["score"]) for r in (a, b))
        alike = (a["workload"], a["scale"]) == (b["workload"], b["scale"])
        return alike and dominates(one, other, a["metric"]["higher_is_better"])

    return [r for r in done if not any(beats(other, r) for other in done)]

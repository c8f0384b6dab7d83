"""Run every workload, dense and LUMOS, at ``scale=small``: ``python scripts/suite.py [--only cfd,fluid] [KEY=VALUE …]``

One workload after the other, each in a process of its own. What is finished is not run again, so a suite that was
stopped goes on where it was. Settings of single workloads are in conf/suite.yaml; KEY=VALUE holds for all of them.
The runs are listed in ``suite.json`` of the results folder: they are the ones that the tables of the report show.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PROJECT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(PROJECT))

import yaml  # noqa: E402
from hydra import compose, initialize_config_dir  # noqa: E402
from hydra.errors import HydraException  # noqa: E402
from omegaconf.errors import OmegaConfBaseException  # noqa: E402
from rich.console import Console  # noqa: E402

from lumos.errors import ConfigError, LumosError
from lumos.files import atomic
from lumos.suite import record, report
from lumos.suite.cli import explain
from lumos.suite.config import read, register_resolvers
from lumos.suite.paths import CONF
from lumos.suite.report import quantities as q
from lumos.suite.report.published import Published
from lumos.suite.report.results import SUITE

SETTINGS = PROJECT / "conf" / "suite.yaml"


@dataclass(frozen=True)
class Job:
    """One run of the suite: its command and the folder of its record."""

    workload: str
    overrides: tuple[str, ...]
    folder: Path

    @property
    def results(self) -> Path:
        """The results folder."""
        return self.folder.parents[2]


def workloads() -> list[str]:
    """Every workload that has a configuration, in the paper's order, then the others."""
    known = sorted(p.stem for p in (PROJECT / "conf" / "workload").glob("*.yaml"))
    order = Published.read().workloads
    return [w for w in order if w in known] + [w for w in known if w not in order]


def settings() -> dict[str, list[str]]:
    """The overrides of single workloads. Raises ConfigError for a file that is not a table of lists of words."""
    found = yaml.safe_load(SETTINGS.read_text()) or {}
    good = isinstance(found, dict) and all(
        isinstance(v, list) and all(isinstance(o, str) and "=" in o for o in v) for v in found.values()
    )
    if not good:
        raise ConfigError(f"{SETTINGS.name}: expected a line `workload: [KEY=VALUE, …]` for each workload")
    unknown = sorted(set(found) - set(workloads()))
    if unknown:
        raise ConfigError(f"{SETTINGS.name}: there is no workload {', '.join(unknown)}")
    return found


def job(workload: str, seed: int, own: Sequence[str], given: Sequence[str]) -> Job:
    """The run of a workload. Raises ConfigError where its configuration is wrong."""
    overrides = (f"workload={workload}", "scale=small", f"seed={seed}", *own, *given)
    try:
        config = read(compose("config", list(overrides)))
    except (HydraException, OmegaConfBaseException) as error:
        raise ConfigError(explain(error)) from None
    return Job(workload, overrides, config.folder(workload))


def run(job: Job, minutes: float | None) -> str | None:
    """Do a run in a process of its own, its output in a log. Returns what went wrong, in one line, or None."""
    log = job.results / "suite" / f"{job.workload}-{job.folder.name}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("w") as file:
        try:
            done = subprocess.run(
                [sys.executable, str(PROJECT / "run.py"), *job.overrides],
                stdout=file, stderr=subprocess.STDOUT, cwd=PROJECT, check=False,
                timeout=None if minutes is None else 60 * minutes,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            return f"stopped after {minutes:g} minutes (log: {log})"
    if done.returncode == 0:
        # A workload may have a name of its own: then the record is not where its configuration's name says.
        return None if record.finished(job.folder) else f"it left no finished record in {job.folder} (log: {log})"
    lines = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()]
    return f"{lines[-1] if lines else f'exit code {done.returncode}'} (log: {log})"


def note(job: Job) -> None:
    """Name a finished run in the suite's list."""
    path = job.results / SUITE
    runs = json.loads(path.read_text())["runs"] if path.exists() else []
    entry = {"workload": job.workload, "run_id": job.folder.name, "overrides": list(job.overrides)}
    seed = next(o for o in reversed(job.overrides) if o.startswith("seed="))
    runs = [r for r in runs if (r["workload"], seed in r["overrides"]) != (job.workload, True)]
    with atomic(path) as temporary:
        temporary.write_text(json.dumps({"runs": [*runs, entry]}, indent=1) + "\n")


def line(entry: dict[str, Any]) -> str:
    """What came of a run."""
    dense, compact = entry["dense"]["score"], entry["compact"]["score"]
    cut, faster = q.params_reduction(entry), q.best_speedup(q.device_kind(entry))(entry)
    return (
        f"{entry['metric']['name']} {dense:.4f} -> {compact:.4f}, {cut:.1f}% of the parameters cut, {faster or 1:.2f}x"
    )


def main(arguments: Sequence[str]) -> int:
    """Run the suite. Returns 1 where a run failed."""
    parser = argparse.ArgumentParser(description="All workloads, dense and LUMOS, one after the other.")
    parser.add_argument("--only", metavar="A,B", help="these workloads only")
    parser.add_argument("--seeds", default="0", metavar="0,1", help="0 unless given")
    parser.add_argument("--minutes", type=float, help="stop a run after so many minutes")
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="for all runs, as run.py takes them")
    # Options may stand between the overrides.
    options = parser.parse_intermixed_args(arguments)
    register_resolvers()
    known, own = workloads(), settings()
    chosen = options.only.split(",") if options.only else known
    wrong = [w for w in chosen if w not in known]
    if wrong:
        raise ConfigError(f"--only {','.join(wrong)}: there is no such workload; expected {', '.join(known)}")
    if not all(s.isdigit() for s in options.seeds.split(",")):
        raise ConfigError(f"--seeds {options.seeds}: expected whole numbers with commas between them")
    wanted = [(w, int(s)) for w in chosen for s in options.seeds.split(",")]
    failed: dict[str, str] = {}
    entries, started = [], time.perf_counter()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        for number, (workload, seed) in enumerate(wanted, 1):
            label = f"[{number:2d}/{len(wanted)}] {workload}" + (f" seed {seed}" if "," in options.seeds else "")
            print(label, end=" … ", flush=True)
            begun = time.perf_counter()
            try:
                todo = job(workload, seed, own.get(workload, []), options.overrides)
                before = record.finished(todo.folder)
                problem = None if before else run(todo, options.minutes)
            except LumosError as error:
                todo, before, problem = None, None, str(error)
            if problem or todo is None:
                failed[f"{workload} seed {seed}"] = problem or ""
                print(f"FAILED after {time.perf_counter() - begun:.0f} s: {problem}", flush=True)
                continue
            note(todo)
            entries.append(record.read(todo.folder))
            took = "finished before" if before else f"{time.perf_counter() - begun:.0f} s"
            print(f"{took}: {line(entries[-1])}", flush=True)
    console = Console()
    (console if console.is_terminal else Console(width=160)).print(report.runs_table(entries))
    print(f"{len(entries)} of {len(wanted)} finished, {(time.perf_counter() - started) / 60:.1f} minutes")
    for name, problem in failed.items():
        print(f"failed: {name}: {problem}", file=sys.stderr)
    return int(bool(failed))


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        print("\nsuite: stopped; the next call goes on from here", file=sys.stderr)
        sys.exit(130)
    except LumosError as error:
        print(f"suite: {error}", file=sys.stderr)
        sys.exit(2)

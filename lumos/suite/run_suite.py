"""``lumos suite``: every workload, dense and gated, at ``scale=small``, one after the other.

conf/suite.yaml has the questions: what is asked of all of them, and of each the paper's reduction. Each run is a
process of its own. What is finished is not run again, so a suite that was stopped goes on where it was. The runs are
listed in ``suite.json`` of the results folder: they are the ones that the tables of the report show.
"""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import yaml
from rich.console import Console

from lumos.errors import ConfigError, LumosError
from lumos.files import atomic
from lumos.suite import record, report
from lumos.suite.child import COMMAND, environment
from lumos.suite.config import compose, read
from lumos.suite.paths import CONF
from lumos.suite.report import quantities as q
from lumos.suite.report.published import Published
from lumos.suite.report.results import REDUCTIONS, SUITE, TOLERANCE, suite_runs

SETTINGS = CONF / "suite.yaml"
QUESTIONS = (TOLERANCE, REDUCTIONS)
ALL = "all"
"""The line of a question that holds for every workload."""


@dataclass(frozen=True)
class Job:
    """One run of the suite: its command and the folder of its record."""

    workload: str
    overrides: tuple[str, ...]
    folder: Path
    problem: str = ""
    """What conf/suite.yaml calls it, where that is not the workload: a second problem of one."""
    question: str = TOLERANCE
    """Which question it answers."""

    @property
    def results(self) -> Path:
        """The results folder."""
        return self.folder.parents[2]


def workloads() -> list[str]:
    """List every workload that has a configuration, in the paper's order, then the others."""
    known = sorted(p.stem for p in (CONF / "workload").glob("*.yaml"))
    order = Published.read().workloads
    return [w for w in order if w in known] + [w for w in known if w not in order]


@dataclass(frozen=True)
class Settings:
    """What the suite asks: words of each question, by workload or ``all``, and of each further problem."""

    questions: dict[str, dict[str, list[str]]]
    problems: dict[str, list[str]]

    @classmethod
    def read(cls) -> Settings:
        """Read conf/suite.yaml.

        Raises:
            ConfigError: The file is not a table of such lists of words, or names a workload that there is not.
        """
        found = yaml.safe_load(SETTINGS.read_text()) or {}
        read = cls(found.get("questions") or {}, found.get("problems") or {}) if isinstance(found, dict) else None
        good = read is not None and not set(found) - {"questions", "problems"} and isinstance(read.questions, dict)
        if read is None or not good or set(read.questions) - set(QUESTIONS):
            raise ConfigError(f"{SETTINGS.name}: expected `questions:` with {' and '.join(QUESTIONS)}, and `problems:`")
        for lines in (*read.questions.values(), read.problems):
            if not _are_words(lines):
                raise ConfigError(f"{SETTINGS.name}: expected a line `workload: [KEY=VALUE, …]` for each workload")
        asked = {name for lines in read.questions.values() for name in lines} - {ALL, *read.problems}
        named = asked | {workload_of(name, own) for name, own in read.problems.items()}
        if unknown := sorted(named - set(workloads())):
            raise ConfigError(f"{SETTINGS.name}: there is no workload {', '.join(unknown)}")
        return read

    def words(self, name: str, question: str) -> list[str]:
        """List the words of a workload's, or of a further problem's, run that answers a question."""
        asked = self.questions.get(question, {})
        return [*self.problems.get(name, ()), *asked.get(ALL, ()), *asked.get(name, ())]


def _are_words(lines: Any) -> bool:
    return isinstance(lines, dict) and all(
        isinstance(words, list) and all(isinstance(word, str) and "=" in word for word in words)
        for words in lines.values()
    )


def workload_of(name: str, own: Sequence[str]) -> str:
    """Return the workload of a line of the settings: the one that its words say, else its name."""
    return next((word.removeprefix("workload=") for word in own if word.startswith("workload=")), name)


def job(name: str, seed: int, own: Sequence[str], given: Sequence[str], question: str = TOLERANCE) -> Job:
    """Describe the run of a workload, or of a further problem. Raises ConfigError where its configuration is wrong."""
    workload = workload_of(name, own)
    more = [word for word in own if not word.startswith("workload=")]
    overrides = (f"workload={workload}", "scale=small", f"seed={seed}", *more, *given)
    folder = read(compose(overrides)).folder(workload)
    return Job(workload, overrides, folder, "" if name == workload else name, question)


def run(job: Job, minutes: float | None) -> str | None:
    """Do a run in a process of its own, its output in a log. Returns what went wrong, in one line, or None."""
    log = job.results / "suite" / f"{job.workload}-{job.folder.name}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("w") as file:
        try:
            done = subprocess.run(
                [*COMMAND, *job.overrides], stdout=file, stderr=subprocess.STDOUT, env=environment(), check=False,
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
    runs = suite_runs(path) if path.exists() else []
    entry = {
        "workload": job.workload, "question": job.question, "run_id": job.folder.name, "overrides": list(job.overrides),
    }  # fmt: skip
    if job.problem:
        entry["problem"] = job.problem
    seed = next(o for o in reversed(job.overrides) if o.startswith("seed="))

    def same(run: dict[str, Any]) -> bool:
        which = run.get("workload"), run.get("problem") or "", run.get("question") or REDUCTIONS
        return which == (job.workload, job.problem, job.question) and seed in (run.get("overrides") or ())

    runs = [r for r in runs if not same(r)]
    with atomic(path) as temporary:
        temporary.write_text(json.dumps({"runs": [*runs, entry]}, indent=1) + "\n")


def line(entry: dict[str, Any]) -> str:
    """Say in a line what came of a run."""
    dense, compact = entry["dense"]["score"], entry["compact"]["score"]
    cut, faster = q.params_reduction(entry), q.best_speedup(q.device_kind(entry))(entry)
    scores = " -> ".join("-" if score is None else f"{score:.4f}" for score in (dense, compact))
    return f"{entry['metric']['name']} {scores}, {cut or 0:.1f}% of the parameters cut, {faster or 1:.2f}x"


def run_suite(
    words: Sequence[str] = (), *, only: str | None = None, ask: str | None = None, seeds: str = "0",
    minutes: float | None = None,
) -> bool:  # fmt: skip
    """Run the suite and print a table of each question.

    Args:
        words: ``KEY=VALUE`` for all runs.
        only: These workloads, with commas between them; all where None.
        ask: These questions, with commas between them; all where None.
        seeds: The seeds, with commas between them.
        minutes: After how many a run is stopped.

    Returns:
        Whether every run finished.

    Raises:
        ConfigError: There is no such workload or question, or a seed is no number. What is wrong with a single run is
            printed.
    """
    own = Settings.read()
    known = list(dict.fromkeys([*workloads(), *own.problems]))
    chosen = only.split(",") if only else known
    questions = ask.split(",") if ask else list(QUESTIONS)
    if [w for w in chosen if w not in known]:
        raise ConfigError(f"--only {only}: there is no such workload; expected {', '.join(known)}")
    if set(questions) - set(QUESTIONS):
        raise ConfigError(f"--ask {ask}: there is no such question; expected {', '.join(QUESTIONS)}")
    if not all(s.isdigit() for s in seeds.split(",")):
        raise ConfigError(f"--seeds {seeds}: expected whole numbers with commas between them")
    wanted = [(w, int(s), question) for w in chosen for s in seeds.split(",") for question in questions]
    failed: dict[str, str] = {}
    entries: dict[str, list[dict[str, Any]]] = {question: [] for question in questions}
    started = time.perf_counter()
    for number, (workload, seed, question) in enumerate(wanted, 1):
        name = f"{workload} seed {seed} {question}"
        click.echo(f"[{number:2d}/{len(wanted)}] {name} … ", nl=False)
        begun = time.perf_counter()
        try:
            made = job(workload, seed, own.words(workload, question), words, question)
            entry, before = _finished(made, minutes)
        except LumosError as error:
            failed[name] = str(error)
            click.echo(f"FAILED after {time.perf_counter() - begun:.0f} s: {error}")
            continue
        entries[question].append(entry)
        took = "finished before" if before else f"{time.perf_counter() - begun:.0f} s"
        click.echo(f"{took}: {line(entry)}")
    console = Console()
    for question, found in entries.items():
        click.echo(f"{question}:")
        (console if console.is_terminal else Console(width=160)).print(report.runs_table(found))
    done = sum(map(len, entries.values()))
    click.echo(f"{done} of {len(wanted)} finished, {(time.perf_counter() - started) / 60:.1f} minutes")
    for name, problem in failed.items():
        click.echo(f"failed: {name}: {problem}", err=True)
    return not failed


def _finished(job: Job, minutes: float | None) -> tuple[dict[str, Any], bool]:
    """The record of a run that is finished now, named in the suite's list, and whether it was before."""
    before = record.finished(job.folder) is not None
    if not before and (problem := run(job, minutes)):
        raise LumosError(problem)
    note(job)
    return record.read(job.folder), before

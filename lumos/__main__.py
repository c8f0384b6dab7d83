"""``python -m lumos explain | list | compare | export``: a workload's structure, runs in tables, files to deploy."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import NoReturn

from lumos.errors import ConfigError
from lumos.suite.cli import build_workload, exit_on_error
from lumos.suite.config import read, register_resolvers
from lumos.suite.paths import CONF, RESULTS

USAGE = (
    "usage: python -m lumos explain [KEY=VALUE …] | list [PLACE …] [--workload W] [--method M] [--scale S] "
    "[--status S] [--pareto] | compare RUN RUN (a record's folder, or the beginning of its id) "
    "| export RUN --to FILE.onnx|FILE.pt2"
)


def main(arguments: list[str]) -> None:
    """Run one of the commands. Raises ConfigError for any other word."""
    command, rest = (arguments[0], arguments[1:]) if arguments else ("", [])
    commands = {"explain": _explain, "list": _list, "compare": _compare, "export": _export}
    if command not in commands:
        raise ConfigError(USAGE)
    commands[command](rest)


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise ConfigError(f"{message}; {USAGE}")


def _explain(overrides: list[str]) -> None:
    from hydra import compose, initialize_config_dir

    register_resolvers()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = compose("config", overrides)
    read(cfg)
    from lumos.compaction.explain import explain

    workload = build_workload(cfg)
    print(explain(workload.model(), workload.example(), features=workload.features()))  # noqa: T201


def _list(arguments: list[str]) -> None:
    from rich.console import Console

    from lumos.suite import report
    from lumos.suite.report.results import Results, method_of, on_front

    parser = _Parser(prog="python -m lumos list", add_help=False)
    parser.add_argument("folders", nargs="*", type=Path, default=RESULTS)
    for name in ("--workload", "--method", "--scale", "--status"):
        parser.add_argument(name)
    parser.add_argument("--pareto", action="store_true")
    options = parser.parse_args(arguments)
    for folder in options.folders:
        if not folder.exists():
            raise ConfigError(f"{folder}: there is no such folder or archive")
    entries = Results(tuple(options.folders), options.scale).records
    wanted = {"workload": options.workload, "status": options.status}
    entries = [e for e in entries if all(v in (None, e[k]) for k, v in wanted.items())]
    entries = [e for e in entries if options.method in (None, method_of(e))]
    if options.pareto:
        entries = on_front(entries)
    console = Console()
    if not console.is_terminal:
        console = Console(width=200)
    console.print(report.runs_table(entries))


def _compare(arguments: list[str]) -> None:
    from rich.console import Console

    from lumos.suite import archive
    from lumos.suite.report import compare

    parser = _Parser(prog="python -m lumos compare", add_help=False)
    parser.add_argument("runs", nargs=2)
    parser.add_argument("--results", nargs="+", type=Path, default=RESULTS)
    options = parser.parse_args(arguments)
    first, second = (archive.find(name, options.results).record for name in options.runs)
    console = Console()
    console.print(compare.table(first, second))
    for line in compare.lines(first, second):
        console.print(line, markup=False, highlight=False, soft_wrap=True)


def _export(arguments: list[str]) -> None:
    from lumos.suite.export_run import main

    main(arguments)


if __name__ == "__main__":
    with exit_on_error():
        main(sys.argv[1:])

"""``python -m lumos explain workload=cfd`` shows a workload's structure; ``python -m lumos list`` shows all runs."""

from __future__ import annotations

import sys
from pathlib import Path

from lumos.cli import build_workload, exit_on_error
from lumos.config import PROJECT, read, register_resolvers
from lumos.errors import ConfigError

USAGE = "usage: python -m lumos explain [KEY=VALUE …] | python -m lumos list [RESULTS_FOLDER]"


def main(arguments: list[str]) -> None:
    """Run one of the commands. Raises ConfigError for any other word."""
    command, rest = (arguments[0], arguments[1:]) if arguments else ("", [])
    if command == "explain":
        _explain(rest)
    elif command == "list":
        _list(rest)
    else:
        raise ConfigError(USAGE)


def _explain(overrides: list[str]) -> None:
    from hydra import compose, initialize_config_dir

    register_resolvers()
    with initialize_config_dir(str(PROJECT / "conf"), version_base="1.3"):
        cfg = compose("config", overrides)
    read(cfg)
    from lumos.describe import explain

    workload = build_workload(cfg)
    print(explain(workload.model(), workload.example(), features=workload.features()))  # noqa: T201


def _list(arguments: list[str]) -> None:
    from rich.console import Console

    from lumos import record, report

    results = Path(arguments[0]) if arguments else PROJECT / "results"
    Console().print(report.runs_table(record.all_records(results)))


if __name__ == "__main__":
    with exit_on_error():
        main(sys.argv[1:])

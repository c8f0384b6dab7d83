"""``python -m lumos export RUN --to FILE``: the compact model of a run as a file for other programs."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any, NoReturn

import hydra.utils
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from lumos.compaction.model import load
from lumos.errors import ConfigError, ExportError
from lumos.exporting import Exported, export, format_of, reduced
from lumos.suite import archive, record
from lumos.suite.cli import build_workload
from lumos.suite.config import register_resolvers
from lumos.suite.identity import full_target
from lumos.suite.paths import CONF, RESULTS
from lumos.suite.workload import Workload

USAGE = (
    "usage: python -m lumos export RUN_FOLDER|COMPACT_FILE|RUN_ID --to FILE.onnx|FILE.pt2 [--aoti] [--reduced] "
    "[data.KEY=VALUE …]"
)


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise ConfigError(f"{message}; {USAGE}")


def main(arguments: list[str]) -> None:
    """Export and say what was written. Raises ConfigError, RecordError, CompactionError, DataError or ExportError."""
    parser = _Parser(prog="python -m lumos export", add_help=False)
    parser.add_argument("run", type=Path)
    parser.add_argument("overrides", nargs="*")
    parser.add_argument("--to", type=Path, required=True)
    parser.add_argument("--aoti", action="store_true")
    parser.add_argument("--reduced", action="store_true")
    options = parser.parse_intermixed_args(arguments)
    run = options.run if options.run.exists() else archive.find(str(options.run), RESULTS).folder
    print(export_run(run, options.to, options.overrides, aoti=options.aoti, reduce=options.reduced))  # noqa: T201


def export_run(
    run: Path, to: Path, overrides: list[str] | None = None, *, aoti: bool = False, reduce: bool = False
) -> Exported:
    """Export a run's compact model; ``run`` is its folder or its ``compact.pt``.

    The record says which workload it was; that builds the network and gives the example inputs, which needs its
    samples (generated ones are made where the cache has none). With ``reduce`` the file takes the kept features only.
    """
    kind = format_of(to, "aoti" if aoti else None)
    file = run if run.suffix == ".pt" else run / "compact.pt"
    if not file.is_file():
        raise ExportError(f"{file}: there is no such file; give the folder of a finished run, or its compact.pt")
    workload = recorded_workload(file.parent, overrides or [])
    model, example = load(file, workload.model(), select=not reduce), workload.example()
    return export(model, reduced(model, example) if reduce else example, to, format=kind)


def recorded_workload(folder: Path, overrides: list[str]) -> Workload:
    """The workload of a run, as its record has it; where its data is kept comes from this machine's configuration."""
    config = record.read(folder)["config"]
    kept: dict[str, Any] = config["data"]
    given = [f"data={kept['source']}", *([f"data.root={kept['root']}"] if kept.get("root") else []), *overrides]
    for word in overrides:
        if not word.startswith("data."):
            raise ConfigError(f"{word}: the record says all of the run but where its data is; expected data.KEY=VALUE")
    register_resolvers()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = compose("config", given)
    settings = dict(config["workload"])
    settings["_target_"] = full_target(str(settings.get("_target_")))
    try:
        takes_data = "data" in hydra.utils.get_class(settings["_target_"]).__dataclass_fields__
    except Exception as error:
        raise ConfigError(f"{folder}: the workload {settings.get('_target_')} cannot be found ({error})") from None
    if takes_data:
        settings["data"] = OmegaConf.to_container(cfg.data, resolve=True)
    return build_workload(OmegaConf.create({"workload": settings}))

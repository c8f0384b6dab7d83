"""OGB's raw layout, written line by line as OGB packs it, and runs on such a tree."""

import gzip
from collections.abc import Iterable, Mapping
from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_dir

from lumos.suite.config import register_resolvers
from lumos.suite.paths import CONF
from lumos.suite.run import run
from lumos.suite.training import loop

CPU = torch.device("cpu")


def composed(name: str, *overrides: str):
    """The configuration of a workload."""
    register_resolvers()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose("config", overrides=[f"workload={name}", *overrides])


def write_tree(folder: Path, files: Mapping[str, Iterable[object]]) -> None:
    """Write ``folder/<name>.csv.gz`` for each name, a line an entry."""
    for name, lines in files.items():
        path = folder / f"{name}.csv.gz"
        path.parent.mkdir(parents=True, exist_ok=True)
        with gzip.open(path, "wt") as file:
            file.writelines(f"{line}\n" for line in lines)


def run_on(name: str, root: Path, place: Path, monkeypatch: pytest.MonkeyPatch) -> dict:
    """The record of a tiny run on the public data at ``root``, which asks nobody and reaches nowhere."""
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("it asks on stdin"))
    monkeypatch.setattr("socket.socket.connect", lambda *_: pytest.fail("it reaches out"))
    places = [f"paths.cache={place / 'cache'}", f"paths.results={place / 'results'}"]
    return run(composed(name, "scale=tiny", "data=public", f"data.root={root}", "trainer.device=cpu", *places))


def scores_fresh_and_stale(workload, config, monkeypatch: pytest.MonkeyPatch) -> tuple[list[float], list[float]]:
    """The valid scores of gated epochs with batch statistics taken anew before a score counts, and without."""

    def scores() -> list[float]:
        trained = loop.train(workload, workload.loaders(), config, CPU, gated=True)
        return [row["valid"] for row in trained.curve]

    fresh = scores()
    monkeypatch.setattr(loop, "recalibrate", lambda *_: None)
    return fresh, scores()

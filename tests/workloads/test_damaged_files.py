"""Public files with random damage: what a workload reads of them is samples, or one clear line that names the file."""

import random
import shutil
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from lumos.errors import DataError
from lumos.suite.workload import DataSource
from lumos.suite.workload_class import build_workload
from lumos.workloads.cfd.mesh import box_with_bump, write_domn
from lumos.workloads.fluid.data import falling_block, write_fluid
from tests.configurations import composed
from tests.harness.faults import damaged
from tests.workloads.puremd.test_files import box, ff, forcefield_text, pdb_text  # noqa: F401 -- fixtures

LAYOUTS = ("braintumor", "cosmoflow", "dms", "em_denoise", "molhiv", "optical", "ppa", "slstr", "stemdl")
"""Workloads whose generated samples are written in the published layout, and read from it."""
INPUTS = ("cfd", "fluid", "puremd", "table csv", "table parquet", "table h5")
"""Workloads that take a file of someone's."""


def read(workload) -> None:
    """Read a few batches of each split, and what else a run asks for before it trains."""
    loaders = workload.loaders()
    for split in (loaders.train, loaders.valid, loaders.test):
        for _, _ in zip(split, range(2), strict=False):
            pass
    workload.features()
    workload.example()
    _ = workload.metric, workload.recipe


@pytest.fixture
def public(request, tmp_path, box, ff):  # noqa: F811 -- fixtures
    """A function that makes the workload of the parameter read its public files, and the folder that they are in."""
    name = request.param
    words = [f"workload={name.split()[0]}", "scale=tiny", f"paths.cache={tmp_path / 'cache'}"]
    root = tmp_path / "public"
    root.mkdir()
    if name == "cfd":
        write_domn(box_with_bump((5, 4, 3)), root / "a.domn")
    elif name == "fluid":
        write_fluid(root / "in.fluid", 70.0, falling_block(70.0, np.random.default_rng(5)))
    elif name == "puremd":
        (root / "ffield").write_text(forcefield_text())
        (root / "mixture.pdb").write_text(pdb_text(box, ff))
    elif name.startswith("table"):
        draws = np.random.default_rng(0)
        table = pd.DataFrame(draws.standard_normal((60, 4)), columns=list("abcy"))
        file = root / f"t.{name.split()[1]}"
        {"csv": lambda: table.to_csv(file, index=False), "parquet": lambda: table.to_parquet(file),
         "h5": lambda: hdf(table, file)}[name.split()[1]]()  # fmt: skip
        words.append("workload.targets=[y]")
    workload: Any = build_workload(composed(words))
    if name in LAYOUTS:
        workload = workload.tiny()
        workload.loaders()
        made = Path(workload.root if hasattr(workload, "root") else workload.generate())
        shutil.copytree(made, root / made.name)
    where = next(root.iterdir()) if name.startswith("table") or name == "fluid" else root
    if name in LAYOUTS and name not in ("molhiv", "ppa"):
        where = next(root.iterdir())

    def reading():
        shutil.rmtree(tmp_path / "decoded", ignore_errors=True)
        source = DataSource("public", root=where, cache=tmp_path / "decoded")
        return replace(workload, data=source)

    return reading, root


def hdf(table: pd.DataFrame, file: Path) -> None:
    import h5py

    with h5py.File(file, "w") as opened:
        for name in table:
            opened[name] = table[name].to_numpy()


def trial(public, times: int, seed: int) -> int:
    """Damage one file at a time; return in how many trials a line said so."""
    reading, root = public
    read(reading())
    files, draws, lines = sorted(path for path in root.rglob("*") if path.is_file()), random.Random(seed), 0
    for _ in range(times):
        file = draws.choice(files)
        whole = file.read_bytes()
        file.write_bytes(damaged(whole, draws))
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                read(reading())
        except DataError:
            lines += 1
        finally:
            file.write_bytes(whole)
    return lines


@pytest.mark.parametrize("public", ["molhiv", "table csv"], indirect=True)
def test_damage_is_one_line(public):
    assert trial(public, 8, seed=0)


@pytest.mark.slow
@pytest.mark.parametrize("public", [*LAYOUTS, *INPUTS], indirect=True)
def test_much_damage_is_one_line(public):
    assert trial(public, 70, seed=1)

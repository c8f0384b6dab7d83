"""The readers of LUMOS, each as a function of one file, with files that they read."""

from __future__ import annotations

import gzip
import io
import itertools
import json
import os
import random
import re
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import h5py
import numpy as np
import pandas as pd
import tifffile
import torch
from PIL import Image
from rich.console import Console
from safetensors.torch import save
from torch import nn

import lumos
from lumos.errors import LumosError
from lumos.suite import archive, baseline, execution_modes, record, report, sweep
from lumos.suite.config import compose, read
from lumos.suite.finished_run import finished_run
from lumos.suite.paths import CONF
from lumos.suite.report import compare, feature_table, quantities
from lumos.suite.report.published import PUBLISHED, Published
from lumos.suite.report.results import Results, pareto_front, suite_runs
from lumos.suite.rows import read_rows
from lumos.suite.selection import study
from lumos.suite.training import checkpoint, pretrained
from lumos.suite.workload_class import build_workload
from lumos.tabular.files import read_columns
from lumos.tabular.predictor import Schema, read_predictor, write_schema
from lumos.workloads.braintumor import data as braintumor
from lumos.workloads.cfd import mesh
from lumos.workloads.common import ogb_layout
from lumos.workloads.cosmoflow import data as cosmoflow
from lumos.workloads.cosmoflow.tfrecord import write_example, write_record
from lumos.workloads.dms import data as dms
from lumos.workloads.em_denoise import data as em_denoise
from lumos.workloads.fluid import data as fluid
from lumos.workloads.molhiv import data as molhiv
from lumos.workloads.optical import data as optical
from lumos.workloads.puremd import files as boxes
from lumos.workloads.puremd.forcefield import published, read_forcefield
from lumos.workloads.slstr import data as slstr
from lumos.workloads.stemdl import data as stemdl
from tests.harness.faults import damage
from tests.records import entry


@dataclass(frozen=True)
class Target:
    """A reader.

    Attributes:
        name: The name of the file that it reads; its folder is otherwise empty.
        read: Called with the file.
        seeds: Makes files that it can read.
    """

    name: str
    read: Callable[[Path], object]
    seeds: Callable[[], list[bytes]]


def attempt(target: Target, content: bytes, folder: Path) -> bool:
    """Give a reader these bytes. Returns whether it could read them; whatever else it raises is a fault."""
    file = folder / target.name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content)
    try:
        target.read(file)
    except LumosError:
        return False
    return True


def damaged_files(target: Target, name: str, times: int, folder: Path) -> Iterator[str]:
    """Give a reader files with damage that is drawn; yields ``read`` or ``one line`` for each."""
    draws, known = random.Random(name), target.seeds()
    file = folder / "drawn" / target.name.rpartition("/")[2]
    file.parent.mkdir(parents=True, exist_ok=True)
    for _ in range(times):
        file.write_bytes(draws.choice(known))
        for _ in range(draws.choice((1, 1, 2))):
            damage(file, draws)
        yield "read" if attempt(target, file.read_bytes(), folder / "read") else "one line"


# ---- files that can be read ---------------------------------------------------------------------------------------


def _table() -> pd.DataFrame:
    rng = np.random.default_rng(0)
    found = pd.DataFrame(rng.standard_normal((6, 2)), columns=["a", "T [K]"])
    return found.assign(kind=["one", "two", None, "one", "2001-12-31", "x"], when=pd.Timestamp("2020-01-01"))


def _made(write: Callable[[Any], object]) -> bytes:
    held = io.BytesIO()
    write(held)
    return held.getvalue()


def _hdf5(**arrays: Any) -> Callable[[], list[bytes]]:
    def make() -> list[bytes]:
        def write(held: Any) -> None:
            with h5py.File(held, "w") as file:
                for name, value in arrays.items():
                    file[name.replace("__", "/")] = value

        return [_made(write)]

    return make


def _raw_patterns() -> list[bytes]:
    def write(held: Any) -> None:
        with h5py.File(held, "w") as file:
            group = file.create_group("sample_0_0")
            group["cbed_stack"] = np.ones((3, 8, 8), np.float32)
            group.attrs["space_group"] = 12

    return [_made(write)]


def _images() -> list[bytes]:
    grey = Image.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8))
    deep = Image.fromarray(np.arange(64, dtype=np.uint16).reshape(8, 8))
    kinds = [(grey, kind) for kind in braintumor.FORMATS] + [(deep, "PNG"), (grey.convert("P"), "PNG")]
    return [_made(lambda held, image=image, kind=kind: image.save(held, format=kind)) for image, kind in kinds]


def _colours() -> list[bytes]:
    image = Image.fromarray(np.arange(192, dtype=np.uint8).reshape(8, 8, 3))
    return [_made(lambda held, kind=kind: image.save(held, format=kind)) for kind in dms.FORMATS]


def _tiff(shape: tuple[int, ...], dtype: Any) -> Callable[[], list[bytes]]:
    return lambda: [_made(lambda held: tifffile.imwrite(held, np.ones(shape, dtype)))]


def _parquet_images() -> list[bytes]:
    rows = pd.DataFrame({"image": [{"bytes": _images()[0], "path": "a"}] * 2, "label": [0, 1]})
    return [_made(lambda held: rows.to_parquet(held))]


def _netcdf() -> list[bytes]:
    return [bytes(_table()[["a"]].to_xarray().to_netcdf())]


def _cube() -> list[bytes]:
    example = write_example({"x": np.ones((4, 4, 4, 4), "<i2").tobytes(), "y": np.zeros(4, np.float32)})

    def packed(compressed: bool) -> bytes:
        return _written("a.tfrecord", lambda file: write_record(file, example, compressed=compressed))

    return [packed(True), packed(False)]


def _written(name: str, write: Callable[[Path], object]) -> bytes:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder) / name)
        return (Path(folder) / name).read_bytes()


def _domn() -> list[bytes]:
    return [_written("a.domn", lambda file: mesh.write_domn(mesh.box_with_bump((2, 2, 2)), file))]


def _fluid() -> list[bytes]:
    rows = np.full((3, 9), 0.01, "<f4")
    return [struct.pack("<fi", 70.0, 3) + rows.tobytes()]


PDB = """CRYST1   20.000   20.000   20.000  90.00  90.00  90.00 P 1
ATOM      1  O   HOH     1       1.000   1.000   1.000  1.00  0.00           O
ATOM      2  H   HOH     1       2.000   1.000   1.000  1.00  0.00           H
"""
ATOMS = """two atoms

0.0 20.0 xlo xhi
0.0 20.0 ylo yhi
0.0 20.0 zlo zhi

Masses

1 15.999
2 1.008

Atoms

1 1 0.0 1.0 1.0 1.0
2 2 0.0 2.0 1.0 1.0
"""


def _forcefield() -> list[bytes]:
    from tests.workloads.puremd.test_files import forcefield_text

    return [forcefield_text().encode()]


def _records() -> list[bytes]:
    words = ("workload=cfd", "scale=tiny", "data.cache=/tmp")
    config = json.loads(json.dumps(read(compose(words)).recorded, default=str))
    kinds = (entry(), entry(gpu=True), entry(old=True), entry(status="failed"))
    return [json.dumps(kind | {"config": config}).encode() for kind in kinds]


def _archive() -> list[bytes]:
    line = {
        "run": "cfd/aaa",
        "record": entry(run_id="aaa"),
        "files": {"curve.csv": "phase,step\n", "a.pt": {"base64": ""}},
    }
    return [(json.dumps(line) + "\n").encode() * 2]


def _weights() -> list[bytes]:
    state = nn.Linear(3, 2).state_dict()
    return [_made(lambda held: torch.save(state, held)), save(state)]


def _compact() -> list[bytes]:
    model, x = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 1)), torch.zeros(2, 3)
    compact: Any = lumos.compact(lumos.gate(model, x))
    return [_written("compact.pt", compact.save)]


def _checkpoint() -> list[bytes]:
    content = {"identity": {"run": "a"}, "state": {"step": 1, "x": torch.ones(2)}}
    return [_written("a.ckpt", lambda file: checkpoint.write(file, file.with_name("b"), content))]


# ---- readers ------------------------------------------------------------------------------------------------------


def _read_table(group: str = "") -> Callable[[Path], object]:
    return lambda file: read_columns(file, group)


def _read_record(file: Path) -> None:
    """All that tables and comparisons take from a record."""
    made = record.read(file)
    shown = Results((file.parent.parent.parent.parent,)).records
    console = Console(file=io.StringIO(), width=200)
    console.print(report.runs_table(pareto_front(shown)))
    if made["status"] == "finished":
        report.run_rows(made)
        report.run_lines(made, file)
        console.print(compare.table(made, made))
        for name, quantity in vars(quantities).items():
            if name.endswith(("_reduction", "_overhead", "_share")) and callable(quantity):
                quantity(made)
        for kind, device in itertools.product(("latency", "throughput", "dynamic"), ("cpu", "gpu")):
            quantities.speedup(kind, device)(made)
            quantities.speedup_spread(made, kind, device)
            quantities.mode_speedup("compiled", kind)(made)
        execution_modes.has_part(made, "cpu")
        execution_modes.has_part(made, "compiled")
        with suppress(LumosError):
            execution_modes.batches_of(made)
    compare.lines(made, made)


def _read_finished(file: Path) -> None:
    """All that another run takes from a record."""
    finished_run(archive.Run(record.read(file), file.parent))


def _read_archive(file: Path) -> None:
    for run in archive.runs(file):
        for name in run.files:
            run.read(name)
        run.table()
        run.table("features.csv")


def _read_dense(file: Path) -> None:
    model = nn.Linear(3, 2)
    torch.save(model.state_dict(), file.parent / "dense.pt")
    baseline._read(file.parent, SimpleNamespace(model=lambda: nn.Linear(3, 2)))  # type: ignore[arg-type]


def _read_dense_weights(file: Path) -> None:
    facts = {"valid_score": 0.5, "seconds": 1.0, "steps": 10, "curve": []}
    (file.parent / "dense.json").write_text(json.dumps(facts))
    baseline._read(file.parent, SimpleNamespace(model=lambda: nn.Linear(3, 2)))  # type: ignore[arg-type]


def _read_compact(file: Path) -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 1))
    lumos.load(file, model)(torch.zeros(2, 3))


def _read_predictor(file: Path) -> None:
    (file.parent / "compact.pt").write_bytes(_seed_of_predictor()[1])
    predictor = read_predictor(file.parent)
    predictor.predict({name: np.zeros(2) for name in ("a", "b", "k")})


@cache
def _seed_of_predictor() -> tuple[bytes, bytes]:
    import tempfile

    from lumos.tabular.network import TableNetwork

    options = {"widths": [4]}
    with tempfile.TemporaryDirectory() as folder:
        schema = Schema(["a", "b"], {"k": ["x", None]}, ["y"])
        kinds = {"numbers": 2, "categories": [2], "outputs": 1, **options}
        model = TableNetwork(**kinds)
        x = torch.zeros(2, 3)
        compact: Any = lumos.compact(lumos.gate(model, x, features=schema.names))
        compact.save(Path(folder) / "compact.pt")
        write_schema(Path(folder), schema, kinds, schema.names)
        return (Path(folder) / "predictor.json").read_bytes(), (Path(folder) / "compact.pt").read_bytes()


def _read_settings(file: Path) -> None:
    """A workload that a user describes in a YAML file beside the command."""
    folder = file.parent.parent
    cfg = compose([f"hydra.searchpath=[file://{folder}]", "workload=mine", "scale=tiny"])
    read(cfg)
    workload = build_workload(cfg)
    _ = workload.recipe, workload.metric


SETTINGS = CONF / "workload" / "synthetic.yaml"


def _read_smiles(file: Path) -> None:
    found = molhiv.csv_molecules(file)
    for smiles, label in zip(found.smiles[:8], found.labels, strict=False):
        molecule = molhiv.parse(smiles)
        if molecule is not None and molecule.GetNumAtoms():
            molhiv.molecule_graph(molecule, int(label))
            molhiv.scaffold(smiles)


def _read_patterns(file: Path) -> None:
    stemdl.Patterns([(file, None)], 4).read(0, 0)


def _read_raw_patterns(file: Path) -> None:
    for sample in stemdl._materials(file):
        stemdl.Patterns([(file, sample)], 4).read(0, 0)


def _read_pairs(file: Path) -> None:
    (file.parent / em_denoise.CLEAN).write_bytes(file.read_bytes())
    pairs = em_denoise.ImagePairs(file.parent)
    em_denoise.PairSamples(pairs, range(min(len(pairs), 2)), seed=0).read(0, 1)


def _read_dms(file: Path) -> None:
    labels = dms.read_labels(file, "train", (4, 4))
    dms.Patterns(file, "train", [0], labels).read(0, 0)


def _read_image_table(file: Path) -> None:
    for part in braintumor._table_parts(file):
        for _, where, content in part.read():
            braintumor.decode(content, where, 8)


def _csv(frame: Any) -> Callable[[], list[bytes]]:
    return lambda: [frame().to_csv(index=False).encode()]


TARGETS: Mapping[str, Target] = {
    "csv": Target("t.csv", _read_table(), _csv(_table)),
    "csv.gz": Target("t.csv.gz", _read_table(), lambda: [gzip.compress(_csv(_table)()[0])]),
    "parquet": Target("t.parquet", _read_table(), lambda: [_made(lambda held: _table().to_parquet(held))]),
    "hdf5": Target("t.h5", _read_table(), _hdf5(a=np.arange(3.0), b=np.arange(3), g__c=np.arange(3))),
    "netcdf": Target("t.nc", _read_table(), _netcdf),
    "npz": Target("sample-0.npz", _read_patterns,
                  lambda: [_made(lambda held: np.savez(held, data=np.ones((3, 4, 4), "f4"), label=np.array([3])))]),
    "stemdl hdf5": Target("batch_0.h5", _read_raw_patterns, _raw_patterns),
    "em_denoise hdf5": Target(em_denoise.NOISE, _read_pairs, _hdf5(images=np.ones((2, 8, 8, 1), np.float32))),
    "em_denoise tiff": Target("a.tif", em_denoise._tiff, _tiff((8, 8), np.float32)),
    "slstr hdf5": Target("S3A_0.hdf", lambda file: slstr.Patches([file], (4, 4), 4).read(0, 0),
                         _hdf5(refs=np.ones((4, 4, 6)), bts=np.ones((4, 4, 3)), bayes=np.ones((4, 4, 1)))),
    "dms hdf5": Target("a.h5", _read_dms, _hdf5(train__images=np.ones((2, 4, 4, 3), "f4"),
                                                train__labels=np.array([0, 1]))),
    "dms image": Target("a.png", lambda file: dms.SingleImages(file.parent, [file], (8, 8)).read(0, 0), _colours),
    "optical tiff": Target("a.TIFF", lambda file: optical.read_image(file, (8, 8)), _tiff((8, 8), np.uint16)),
    "image": Target("a.jpg", lambda file: braintumor.decode(file.read_bytes(), str(file), 8), _images),
    "images in parquet": Target("train-0.parquet", _read_image_table, _parquet_images),
    "tfrecord": Target("u_000.tfrecord", lambda file: cosmoflow.read_cube(cosmoflow.Cube(file, 0, "u"), 4), _cube),
    "cosmoflow hdf5": Target("u.hdf5", lambda file: [
        cosmoflow.read_cube(cosmoflow.Cube(file, k, "u"), 4) for k in range(min(2, cosmoflow._cubes_in_hdf5(file, 4)))],
        _hdf5(full=np.ones((4, 4, 4, 4), "i2"), unitPar=np.zeros(4, "f4"))),
    "domn": Target("a.domn", mesh.read_domn, _domn),
    "fluid": Target("a.fluid", fluid.read_fluid, _fluid),
    "force field": Target("ffield", read_forcefield, _forcefield),
    "pdb": Target("a.pdb", lambda file: boxes.read_pdb(file, published()), lambda: [PDB.encode()]),
    "lammps": Target("a.data", lambda file: boxes.read_data(file, published()), lambda: [ATOMS.encode()]),
    "ogb column": Target("num-node-list.csv.gz", lambda file: ogb_layout._read_all(file, np.int64),
                         lambda: [gzip.compress(b"1\n2\n3\n")]),
    "smiles": Target("mine.csv", _read_smiles, lambda: [b"smiles,HIV_active\nCCO,0\nc1ccccc1N,1\nC1CC1,0\n"]),
    "record": Target("results/runs/cfd/aaa/record.json", _read_record, _records),
    "recorded configuration": Target("cfd/aaa/record.json", _read_finished, _records),
    "archive": Target("a.jsonl", _read_archive, _archive),
    "suite list": Target("suite.json", suite_runs, lambda: [b'{"runs": [{"workload": "cfd", "run_id": "aaa"}]}']),
    "sweep": Target("0/job.json", lambda file: sweep.rows(sweep.jobs(file.parent.parent)) and sweep.show(
        file.parent.parent, sweep.jobs(file.parent.parent), Console(file=io.StringIO())),
        lambda: [b'{"job": 0, "overrides": ["a=1"], "status": "failed", "error": "x", "log": null}']),
    "curve": Target("curve.csv", lambda file: read_rows(file.read_bytes(), str(file), ("phase", "step", "loss")),
                    lambda: [b"phase,epoch,step,loss\ndense,1,10,0.5\n"]),
    "feature report": Target("r.csv", lambda file: feature_table.lines(feature_table.read(file)), lambda: [
        b"workload,run_id,seed,feature,enters,kept,closed_at,order,kept_in,runs,p@1,p@2\ncfd,a,0,x,1,1,,,1,1,0.5,0.9\n"]),
    "study": Target("s.ndjson", study.read, lambda: [b'{"problem": "ring", "m": 2, "fold": 0, "method": "pearson"}\n']),
    "published": Target("p.csv", Published.read, lambda: [PUBLISHED.read_bytes()[:600]]),
    "dense.json": Target("dense.json", _read_dense,
                         lambda: [b'{"valid_score": 0.5, "seconds": 1.0, "steps": 10, "curve": []}']),
    "dense.pt": Target("dense.pt", _read_dense_weights, lambda: _weights()[:1]),
    "compact.pt": Target("compact.pt", _read_compact, lambda: [*_compact(), *_weights()]),
    "init_from": Target("w.pt", lambda file: pretrained.initialize(nn.Linear(3, 2), file, strict=False), _weights),
    "checkpoint": Target("a.ckpt", checkpoint.read, _checkpoint),
    "predictor": Target("predictor.json", _read_predictor, lambda: [_seed_of_predictor()[0]]),
    "settings": Target("workload/mine.yaml", _read_settings, lambda: [SETTINGS.read_bytes()]),
}  # fmt: skip


# ---- atheris ------------------------------------------------------------------------------------------------------


def place_of(folder: Path, name: str) -> Path:
    """The folder of a reader's inputs."""
    return folder / re.sub(r"\W", "_", name)


def campaign(seconds: int, folder: Path) -> dict[str, Any]:
    """Let atheris feed each reader for so many seconds; what it found, for the record."""
    project = Path(__file__).resolve().parents[2]
    python = os.environ.get("LUMOS_FUZZ_PYTHON", sys.executable)
    command = [python, "-m", "tests.fuzz.run", str(seconds), str(folder), *TARGETS]
    subprocess.run(command, cwd=project, env={**os.environ, "PYTHONPATH": str(project)}, check=True)
    wrong, tried = [], {}
    for name in TARGETS:
        corpus = place_of(folder, name)
        said, code = (corpus / "said").read_text(errors="replace"), int((corpus / "code").read_text())
        counts = re.findall(r"(?:stat::number_of_executed_units:|^#|Done )\s*(\d+)", said, re.M)
        tried[name] = int(counts[-1]) if counts else 0
        if code:
            raised = re.findall(r"^\s*[\w.]+(?:Error|Exception)\b.*", said, re.M)
            problem = raised[-1].strip() if raised else f"code {code}: {said[-300:]}"
            wrong.append({"trial": f"fuzz:{name}", "problem": problem})
        print(f"{name}: {tried[name]:,} inputs{f': {wrong[-1]}' if code else ''}", flush=True)  # noqa: T201
    return {"trials": sum(tried.values()), "seconds": seconds, "readers": len(TARGETS), "inputs": tried,
            "faults": wrong}  # fmt: skip

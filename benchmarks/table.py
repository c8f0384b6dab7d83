"""How many of the right columns one command finds in a generated table, and in how long: `python benchmarks/table.py`.

The table is that of workloads/table/generated.py: 50,000 rows, 40 columns in units far apart, six of them categories,
3% of the values missing; nine columns matter. It is written to a file, and `lumos fit` sees nothing but the file. With
``--by-hand`` a workload that was written for such a file (benchmarks/table_plugin) is run after it, on each seed, with
as many steps and the same hidden layers; its lines are counted. Seconds are those of the CPU, whole processes.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pandas as pd

from lumos.workloads.table.generated import generate

PLUGIN = Path(__file__).resolve().parent / "table_plugin"


def by_hand(file: Path, words: list[str]) -> list[str]:
    """What runs the workload of one's own."""
    search = f"hydra.searchpath=[file://{PLUGIN}/conf]"
    return ["run", search, "workload=by_hand", f"workload.file={file}", "lumos.tolerance=0.01", *words]


def run(words: list[str], results: Path) -> tuple[set[str], dict[str, Any], float]:
    """Run a command of ``lumos``; returns the kept columns, the record and the CPU seconds that it took."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    command = [sys.executable, "-m", "lumos", *words, f"paths.results={results}"]
    path = os.pathsep.join([str(PLUGIN), os.environ.get("PYTHONPATH", "")])
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env={**os.environ, "PYTHONPATH": path})
    now = resource.getrusage(resource.RUSAGE_CHILDREN)
    ((folder,),) = (list(place.iterdir()) for place in (results / "runs").iterdir())
    rows = csv.DictReader((folder / "features.csv").read_text().splitlines())
    kept = {row["feature"].split("=")[0].removesuffix(" is missing") for row in rows if row["kept"] == "1"}
    entry = json.loads((folder / "record.json").read_text())
    return kept, entry, now.ru_utime + now.ru_stime - used.ru_utime - used.ru_stime


def lines_of_code(folder: Path) -> int:
    """The lines of a folder's files that are not blank."""
    files = [path for path in folder.rglob("*") if path.suffix in (".py", ".yaml")]
    return sum(1 for path in files for line in path.read_text().splitlines() if line.strip())


def main() -> None:
    """Print a line for each seed and way."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--rows", type=int, default=50_000)
    parser.add_argument("--columns", type=int, default=40)
    parser.add_argument("--by-hand", action="store_true", help="run a workload of one's own besides")
    parser.add_argument("words", nargs="*", metavar="KEY=VALUE", help="what `lumos fit` takes besides")
    asked = parser.parse_args()
    if asked.by_hand:
        print(f"lines that were written by hand: {lines_of_code(PLUGIN)}")
    print("seed,way,right,needed,needless,test_R2,dense_R2,parameters,cpu_seconds")
    for seed in map(int, asked.seeds.split(",")):
        columns, true = generate(asked.rows, asked.columns, seed)
        with tempfile.TemporaryDirectory() as folder:
            file, words = Path(folder) / "table.parquet", [f"seed={seed}", *asked.words]
            pd.DataFrame(columns.values).to_parquet(file)
            ways = {"lumos fit": ["fit", str(file), "--targets", "y", *words]}
            if asked.by_hand:
                ways["by hand"] = by_hand(file, words)
            for way, command in ways.items():
                kept, entry, seconds = run(command, Path(folder) / way.replace(" ", "_"))
                found = f"{len(kept & set(true))},{len(true)},{len(kept - set(true))}"
                scores = f"{entry['compact']['score']:.4f},{entry['dense']['score']:.4f},{entry['compact']['params']}"
                print(f"{seed},{way},{found},{scores},{seconds:.0f}", flush=True)


if __name__ == "__main__":
    main()

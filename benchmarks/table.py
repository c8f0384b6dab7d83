"""How many of the right columns one command finds in a generated table, and in how long: `python benchmarks/table.py`.

The table is that of workloads/table/generated.py: 50,000 rows, 40 columns in units far apart, six of them categories,
3% of the values missing; nine columns matter. It is written to a file, and `lumos fit` sees nothing but the file.
"""

from __future__ import annotations

import argparse
import csv
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pandas as pd

from lumos.workloads.table.generated import generate


def kept_columns(file: Path, results: Path, words: list[str]) -> tuple[set[str], dict, float]:
    """Run the command; returns the kept columns, the record and the seconds that it took."""
    started = time.perf_counter()
    command = [sys.executable, "-m", "lumos", "fit", str(file), "--targets", "y", f"paths.results={results}", *words]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    seconds = time.perf_counter() - started
    (folder,) = (results / "runs" / "table").iterdir()
    rows = csv.DictReader((folder / "features.csv").read_text().splitlines())
    entry = json.loads((folder / "record.json").read_text())
    return {row["feature"] for row in rows if row["kept"] == "1"}, entry, seconds


def main() -> None:
    """Print a line for each seed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--rows", type=int, default=50_000)
    parser.add_argument("--columns", type=int, default=40)
    parser.add_argument("words", nargs="*", metavar="KEY=VALUE", help="what `lumos fit` takes besides")
    asked = parser.parse_args()
    print("seed,right,needed,needless,test_R2,dense_R2,parameters,seconds")
    for seed in map(int, asked.seeds.split(",")):
        columns, true = generate(asked.rows, asked.columns, seed)
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "table.parquet"
            pd.DataFrame(columns.values).to_parquet(file)
            kept, entry, seconds = kept_columns(file, Path(folder) / "results", [f"seed={seed}", *asked.words])
        scores = f"{entry['compact']['score']:.4f},{entry['dense']['score']:.4f},{entry['compact']['params']}"
        print(f"{seed},{len(kept & set(true))},{len(true)},{len(kept - set(true))},{scores},{seconds:.0f}", flush=True)


if __name__ == "__main__":
    main()

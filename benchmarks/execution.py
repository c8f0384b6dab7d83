"""The networks of finished runs, called in several ways: `python benchmarks/execution.py RUN … [--write FILE.csv]`.

Dense and compact network of each run are called as Python calls them (eager), compiled by torch.compile, and as ONNX
files in onnxruntime, with one thread each, in turns at each batch. Where the run's workload was given its dense network
as an ONNX file, that file is called too (published). RUN is a folder or the beginning of a run id; batches are
``--batches 1,25,1000``. A row of the table is one network, way and batch, with the run's score beside it. Times are
those of the processor: on a machine that others use too, the clock counts them.
"""

from __future__ import annotations

import argparse
import csv
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch
from torch import nn

import lumos
from lumos.measure.execution import compiled
from lumos.measure.sizes import resized
from lumos.measure.timing import inference, ratio, summary
from lumos.suite.exit_codes import exit_on_error
from lumos.suite.finished_run import FinishedRun, read_run

SECONDS = 2.0
"""How many seconds of the processor each call is timed."""
WARM_UP, FEWEST = 20, 20
Call = Callable[[], Any]


def session(file: Path) -> onnxruntime.InferenceSession:
    """Load an ONNX file, to run on one thread."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])


def by_onnxruntime(loaded: onnxruntime.InferenceSession, inputs: Sequence[torch.Tensor]) -> Call:
    """Make a call of a loaded file on these inputs, arrays in and arrays out."""
    feed = {node.name: x.numpy() for node, x in zip(loaded.get_inputs(), inputs, strict=True)}
    return lambda: loaded.run(None, feed)


def processor_times(calls: dict[str, Call], seconds: float) -> dict[str, list[float]]:
    """Time calls that take turns in rotating order: the seconds that this thread had of the processor in each."""
    order, found = list(calls), {name: [] for name in calls}
    for _ in range(WARM_UP):
        for call in calls.values():
            call()
    end = time.thread_time() + seconds * len(calls)
    while time.thread_time() < end or len(found[order[0]]) < FEWEST:
        for name in order:
            start = time.thread_time()
            calls[name]()
            found[name].append(time.thread_time() - start)
        order = order[1:] + order[:1]
    return found


def rows_of(run: FinishedRun, batches: Sequence[int], seconds: float) -> list[dict[str, Any]]:
    """Time the networks of one run; a row for each network, way and batch."""
    example, found = run.workload.example(), []
    models: dict[str, nn.Module] = {"dense": (run.dense or run.workload.model()).eval(), "compact": run.compact.eval()}
    with tempfile.TemporaryDirectory() as folder:
        files = {name: Path(folder) / f"{name}.onnx" for name in models}
        for name, model in models.items():
            lumos.export(model, example, files[name])
        published = [file for file in run.workload.files() if file.suffix == ".onnx"]
        files |= {"published": published[0]} if published else {}
        loaded = {name: session(file) for name, file in files.items()}
    for batch in batches:
        inputs = resized(example, batch)
        torch.compiler.reset()
        ways: dict[str, dict[str, Call]] = {
            "eager": {name: inference(model, inputs) for name, model in models.items()},
            "compiled": {name: compiled(model, inputs) for name, model in models.items()},
            "onnxruntime": {name: by_onnxruntime(one, inputs) for name, one in loaded.items()},
        }
        for way, calls in ways.items():
            times = processor_times(calls, seconds)
            for name in calls:
                side = "compact" if name == "compact" else "dense"
                faster = ratio(times["dense"], times[name])
                found.append({
                    "run": run.run.name, "seed": run.config.seed, "network": name,
                    "params": run.entry[side]["params"], "score": run.entry[side]["score"], "way": way, "batch": batch,
                    "ms": summary(times[name])["p50"], "faster": faster["p50"], "faster_p25": faster["p25"],
                    "faster_p75": faster["p75"], "calls": len(times[name]),
                })  # fmt: skip
    return found


def main() -> None:
    """Time what the command line names, print the table and write it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+")
    parser.add_argument("--batches", default="1,25,1000")
    parser.add_argument("--seconds", type=float, default=SECONDS)
    parser.add_argument("--write", type=Path)
    words = parser.parse_args()
    torch.set_num_threads(1)
    batches = [int(n) for n in words.batches.split(",")]
    rows = [row for name in words.runs for row in rows_of(read_run(name), batches, words.seconds)]
    for row in rows:
        print(f"{row['run']:28} {row['network']:10} {row['way']:12} batch {row['batch']:6} {row['ms']:9.4f} ms "
              f"{row['faster']:6.2f}x ({row['faster_p25']:.2f} to {row['faster_p75']:.2f})")  # fmt: skip
    means = {(row["network"], row["way"], row["batch"]): [] for row in rows}
    for row in rows:
        means[row["network"], row["way"], row["batch"]].append(row["faster"])
    for (network, way, batch), values in means.items():
        print(f"mean of {len(values)}: {network:10} {way:12} batch {batch:6} {np.mean(values):6.2f}x")
    if words.write:
        with words.write.open("w", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)


if __name__ == "__main__":
    with exit_on_error():
        main()

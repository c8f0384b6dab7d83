"""One workload of `scripts/gpu_suite.py`, in a process of its own: data, both trainings, then measurements on demand.

It says what it does in lines of JSON on its standard output, and reads one word a line from its standard input:
`measure` (until then it waits, its trainings done), then `compile`, `cuda_graph`, `compiled` or `cpu`. The end of the
input ends it.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any, TextIO

import torch

from lumos.errors import LumosError, one_line
from lumos.files import atomic
from lumos.measure.execution import release
from lumos.suite import record, runner
from lumos.suite.archive import Run
from lumos.suite.config import RunConfig, compose, read
from lumos.suite.execution_modes import add_part, compile_ahead
from lumos.suite.finished_run import FinishedRun
from lumos.suite.training.evaluation import evaluate
from lumos.suite.training.loading import Reader
from lumos.suite.training.loop import steps_of
from lumos.suite.training.optimizer import make_optimizer
from lumos.suite.training.signals import StoppedError, ending_by_exception
from lumos.suite.workload import to_device
from lumos.suite.workload_class import build_workload

PROBE = 6
"""Steps by which the time of a step is told, after as many that are not timed."""
FEWEST = 20
GATED = 1.6
"""A gated step's time over a dense one's, as it is reckoned beforehand."""
SHARE = 0.6
"""Share of the time that is planned for steps; the rest is for traces, cuts, scores, and others on the same device."""


def main(arguments: list[str]) -> None:
    """Do what the module says."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("workload")
    parser.add_argument("words", nargs="*", help="KEY=VALUE, as lumos run takes them")
    parser.add_argument("--plan", type=Path, required=True, help="where the number of steps is kept")
    parser.add_argument("--seconds", type=float, required=True, help="for data and trainings, from now on")
    parser.add_argument("--cores", type=int, required=True, help="threads of the measurements")
    parsed, until = parser.parse_args(arguments), time.monotonic()
    until += parsed.seconds
    channel = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what is printed on the way goes to the log

    def say(event: str, **facts: Any) -> None:
        channel.write(json.dumps({"event": event, **facts}) + "\n")

    with ending_by_exception():
        try:
            work(parsed, until, say, sys.stdin)
        except StoppedError as error:
            say("stopped", line=one_line(error))
            sys.exit(error.code)
        except Exception as error:
            say("failed", line=one_line(error) or type(error).__name__)
            if not isinstance(error, LumosError):
                raise
            sys.exit(1)


def work(parsed: argparse.Namespace, until: float, say: Callable[..., None], words: TextIO) -> None:
    """Train, wait for the turn, measure, and measure more where that is asked for."""
    asked = [f"workload={parsed.workload}", *parsed.words]
    config = read(compose(asked))
    device = runner.prepare(config)
    say("data")
    workload = build_workload(compose(asked))
    workload.loaders()
    say("plan")
    steps = planned(parsed.plan, config, workload, device, until)
    if steps is not None:
        asked.append(f"trainer.max_steps={steps}")
        config = read(compose(asked))
    sys.argv = ["lumos run", *asked]  # records say how they are made
    say("training", steps=steps or steps_of(workload, workload.loaders(), config))

    def wait() -> None:
        release(device)
        say("trained")
        if words.readline().strip() != "measure":
            raise StoppedError(15, "stopped before the measurements; the same call goes on from there")
        torch.set_num_threads(parsed.cores)
        # Batches of many sizes are tried: looking for the best algorithm of each would take the time of the others.
        torch.backends.cudnn.benchmark = False

    entry = runner.run(config, workload, runner.Measuring(wait, cpu_too=False))
    release(device)
    if entry["status"] != "finished":
        raise LumosError((entry["error"] or {}).get("line", entry["status"]))
    folder = config.folder(workload.name)
    say("measured")
    torch.set_num_threads(parsed.cores)
    for word in iter(words.readline, ""):
        run = FinishedRun(Run(record.read(folder), folder), config, workload, " ".join(sys.argv))
        part = word.strip()
        try:
            if part == "compile":
                compile_ahead(run, device)
            else:
                add_part(run, part, device)
        except (LumosError, RuntimeError) as error:
            say("lacking", part=part, line=one_line(error))
        else:
            say("added", part=part)


def planned(file: Path, config: RunConfig, workload: Any, device: torch.device, until: float) -> int | None:
    """Return how many steps each training has, None for all of them; the same in every later call.

    As many as fit until then by the time of a dense step beside all others that train now, two digits of them.
    """
    if file.exists():
        return json.loads(file.read_text())["steps"]
    most = steps_of(workload, workload.loaders(), config)
    step, valid = probe(workload, device)
    batches = len(workload.loaders().train)
    each = (1 + GATED) * step + 2 * valid / batches
    fitting = SHARE * max(0.0, until - time.monotonic()) / each
    steps = None if fitting >= most else max(min(FEWEST, most), rounded(fitting))
    with atomic(file) as temporary:
        temporary.write_text(json.dumps({"steps": steps, "step_seconds": step, "score_seconds": valid}) + "\n")
    return steps


def rounded(number: float) -> int:
    """Round down to two digits.

    >>> rounded(1987.6), rounded(42.7)
    (1900, 42)
    """
    scale = 10 ** max(0, len(str(int(number))) - 2)
    return int(number) // scale * scale


def probe(workload: Any, device: torch.device) -> tuple[float, float]:
    """Measure the seconds of a dense step, its batch's reading included, and of a score on the validation split."""
    model = workload.model().to(device).train()
    optimizer, reader = make_optimizer(model, workload), Reader(workload.loaders().train)

    def finish() -> float:
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return time.monotonic()

    started, done = finish(), 0
    for number, batch in enumerate(islice(reader.open(0), 2 * PROBE)):
        if number == PROBE:
            started, done = finish(), 0
        optimizer.zero_grad(set_to_none=True)
        workload.loss(model, to_device(batch, device)).backward()
        optimizer.step()
        done += 1
    step = (finish() - started) / done
    started = time.monotonic()
    evaluate(workload, model, workload.loaders().valid, device)
    valid = finish() - started
    del model, optimizer
    release(device)
    return step, valid


if __name__ == "__main__":
    main(sys.argv[1:])

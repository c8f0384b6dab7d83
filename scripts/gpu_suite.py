"""All of the evaluation that a GPU can show, in one go of a few minutes: trainings side by side, then measurements.

    python scripts/gpu_suite.py [--minutes 9] [--archive gpu.tar.gz] [--only cfd,slstr]
    python scripts/gpu_suite.py --device cpu --scale tiny --minutes 4     a rehearsal
    python scripts/gpu_suite.py --wheels                                  packages to carry to a machine without network

The thirteen workloads of the paper, at its widths, on little generated data (conf/gpu.yaml), dense and at the paper's
reductions of the parameters, a process each, as many steps as fit. Then one process at a time measures: latency of one
sample, best batch, batch at the memory bound, energy (NVML), peak memory, a training step dense, gated and compact;
then the same calls as CUDA graphs and compiled, and on the CPU while there is time. Records are those of `lumos run`.

A second call goes on: finished trainings and measurements are not done again, and where the results folder is gone, the
archive has them. Killed at any moment, it leaves whole records and a whole archive.
"""

from __future__ import annotations

import argparse
import importlib.util
import io
import json
import os
import queue
import signal
import subprocess
import sys
import tarfile
import threading
import time
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

PROJECT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(PROJECT))

WHEELS = PROJECT / "build" / "gpu-wheels"
NEEDED = {"hydra": "hydra-core", "omegaconf": "omegaconf", "antlr4": "antlr4-python3-runtime", "pydantic": "pydantic",
          "pydantic_core": "pydantic-core", "annotated_types": "annotated-types",
          "typing_inspection": "typing-inspection", "rdkit": "rdkit", "ogb": "ogb"}  # fmt: skip
"""Modules that a machine for deep learning may lack, and the packages that have them; others are taken as there."""
EXPECTED = ("torch", "torch_geometric", "timm", "h5py", "numba", "matplotlib", "pandas", "scipy", "sklearn", "networkx",
            "safetensors", "filelock", "click", "rich", "jinja2", "yaml", "jaxtyping", "PIL", "tifffile")  # fmt: skip
TRAINING = 0.5
"""Share of the time that data and trainings are planned for."""
MEASURING = 15.0
"""Seconds for the first measurements of a workload; trainings that leave less are stopped, the next call goes on."""
BUSY = ("starting", "data", "plan", "training")
"""Stages of a process that has not trained yet."""
LAST = 8.0
"""Seconds at the end for archive and table."""
MOST_BYTES = 16_000_000
"""Size of the archive."""
TEXTS = ("record.json", "curve.csv", "features.csv", "train.log")


def main(arguments: Sequence[str] | None = None) -> int:
    """Do what the module says; the exit code is 0 where every workload has its record."""
    options = parsed(arguments)
    if options.wheels is not None:
        return collect(options.wheels)
    unpack_wheels(options.site)
    if missing := [name for name in (*NEEDED, *EXPECTED) if importlib.util.find_spec(name) is None]:
        lack = ", ".join(NEEDED.get(name, name) for name in missing)
        return failed(
            f"packages are missing: {lack}; where there is a network, `python scripts/gpu_suite.py --wheels` collects "
            f"hydra-core and what it needs in {WHEELS.relative_to(PROJECT)}: carry that folder along"
        )
    os.environ["LUMOS_RESULTS"] = str(options.results)
    try:
        suite = Suite(options)
    except Exception as error:  # a wrong word, an archive of something else: one line says it
        return failed(str(error).splitlines()[0] if str(error) else type(error).__name__)
    return suite.run()


def failed(line: str) -> int:
    """Say what is wrong in one line; the exit code of a wrong call."""
    print(f"gpu_suite: {line}", file=sys.stderr)
    return 2


def parsed(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("words", nargs="*", metavar="KEY=VALUE", help="settings for all runs, as for lumos run")
    parser.add_argument("--minutes", type=float, default=9.0, help="how long it may take in all (9)")
    parser.add_argument("--device", default="cuda", help="cuda, or cpu for a rehearsal")
    parser.add_argument("--scale", default="paper", choices=("paper", "tiny"), help="tiny for a rehearsal")
    parser.add_argument("--only", help="some workloads, with commas between them")
    parser.add_argument("--jobs", type=int, help="trainings at a time; all on a GPU, one for each core on a CPU")
    parser.add_argument("--results", type=Path, default=PROJECT / "results" / "gpu", help="folder of the records")
    parser.add_argument("--archive", type=Path, help="where all results go; gpu.tar.gz in the folder of the records")
    parser.add_argument("--site", type=Path, default=WHEELS, help="folder of wheels that this machine lacks")
    parser.add_argument("--wheels", type=Path, nargs="?", const=WHEELS, help="collect these wheels, and end")
    options = parser.parse_args(arguments)
    if options.minutes <= 0:
        parser.error(f"--minutes {options.minutes:g}: expected a number > 0")
    if options.jobs is not None and options.jobs < 1:
        parser.error(f"--jobs {options.jobs}: expected a number of trainings >= 1")
    if not options.device.startswith(("cuda", "cpu")):
        parser.error(f"--device {options.device}: expected cuda, cuda:N or cpu")
    options.results = options.results.resolve()
    options.archive = (options.archive or options.results / "gpu.tar.gz").resolve()
    return options


# ---- the processes --------------------------------------------------------------------------------------------------


@dataclass
class Worker:
    """A process that trains and measures one workload, and what is known of it."""

    workload: str
    process: subprocess.Popen[str]
    log: Path
    stage: str = "starting"
    line: str = ""
    parts: dict[str, str] = field(default_factory=dict)
    since: float = field(default_factory=time.monotonic)

    @property
    def alive(self) -> bool:
        """Whether it can still be asked for something."""
        return self.process.poll() is None

    def ask(self, word: str) -> None:
        """Send it a word."""
        assert self.process.stdin is not None
        with suppress(OSError):
            self.process.stdin.write(word + "\n")
            self.process.stdin.flush()

    def close(self) -> None:
        """End its input: a process that waits for a word ends."""
        assert self.process.stdin is not None
        with suppress(OSError):
            self.process.stdin.close()


class Suite:
    """One call of the script."""

    def __init__(self, options: argparse.Namespace) -> None:
        from lumos.errors import ConfigError
        from lumos.suite.run_suite import workloads

        self.options, self.started = options, time.monotonic()
        self.deadline = self.started + 60 * options.minutes
        self.words = settings()
        paper = [name for name in workloads() if name in self.words]
        self.workloads = options.only.split(",") if options.only else paper
        if unknown := [name for name in self.workloads if name not in paper]:
            raise ConfigError(f"--only {','.join(unknown)}: there is no such workload; expected {', '.join(paper)}")
        self.cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        on_gpu = options.device.startswith("cuda")
        self.jobs = options.jobs or (len(self.workloads) if on_gpu else self.cores)
        self.parts = ("cuda_graph", "compiled", "cpu") if on_gpu else ("compiled",)
        self.workers: dict[str, Worker] = {}
        self.events: queue.Queue[tuple[str, dict[str, Any]]] = queue.Queue()
        options.results.mkdir(parents=True, exist_ok=True)
        unpack(options.archive, options.results)

    def run(self) -> int:
        """Train, measure, and say what came of it, whatever ends it."""
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
        try:
            self.train()
            self.measure()
            self.measure_more()
        except KeyboardInterrupt:
            self.say("interrupted; the same call goes on from here")
        finally:
            self.end()
            self.finish()
        return 0 if all(self.entry(name) for name in self.workloads) else 1

    def end(self) -> None:
        """Let all processes end: by themselves, by a signal that keeps a training's state, at last by force."""
        for worker in self.workers.values():
            worker.stage = "ending" if worker.alive else worker.stage
            worker.close()
        for number in (signal.SIGTERM, signal.SIGKILL):
            until = time.monotonic() + 2
            while any(w.alive for w in self.workers.values()) and time.monotonic() < until:
                time.sleep(0.1)
            for worker in self.workers.values():
                if worker.alive:
                    worker.process.send_signal(number)

    # ---- data and trainings ----

    def train(self) -> None:
        """Start the processes, some at a time, and wait until each has trained or its time is over."""
        # Those whose records lack a part at most come last.
        waiting = sorted((w for w in self.workloads if not self.complete(w)), key=lambda w: self.entry(w) is not None)
        together = min(self.jobs, len(waiting))
        self.say(f"{len(waiting)} workloads on {self.options.device}, {together} trainings at a time")
        while True:
            busy = [w for w in self.workers.values() if w.alive and w.stage in BUSY]
            while waiting and len(busy) < self.jobs and time.monotonic() < self.training_ends:
                turns = -(-len(waiting) // self.jobs)
                planned = self.started + TRAINING * 60 * self.options.minutes - time.monotonic()
                busy.append(self.start(waiting.pop(0), max(1.0, planned / max(1, turns))))
            if not busy and (not waiting or time.monotonic() >= self.training_ends):
                break
            if time.monotonic() >= self.training_ends:
                for worker in busy:
                    worker.stage = "late"
                    worker.process.send_signal(signal.SIGTERM)
                    self.say(f"{worker.workload}: stopped in its training; the next call goes on with it")
                break
            self.listen(0.5)
        for name in waiting:
            self.say(f"{name}: not begun; the next call does")

    @property
    def training_ends(self) -> float:
        """When trainings are stopped: those that have begun need the rest of the time for their measurements."""
        begun = sum(w.alive and w.stage in (*BUSY, "trained") for w in self.workers.values())
        return self.deadline - LAST - MEASURING * max(1, begun)

    def start(self, workload: str, seconds: float) -> Worker:
        """Start the process of a workload, which has some seconds for data and trainings."""
        options, logs = self.options, self.options.results / "logs"
        fastest = ["trainer.deterministic=false"] if options.device.startswith("cuda") else []
        logs.mkdir(parents=True, exist_ok=True)
        words = [f"scale={options.scale}", f"trainer.device={options.device}", "trainer.checkpoint_seconds=60",
                 f"trainer.threads={max(1, self.cores // self.jobs)}", f"paths.results={options.results}",
                 f"paths.cache={options.results / 'data'}", *fastest, *self.own_words(workload),
                 *options.words]  # fmt: skip
        command = [sys.executable, str(PROJECT / "scripts" / "gpu_worker.py"), workload, *words,
                   "--plan", str(options.results / "plans" / f"{workload}-{options.scale}.json"),
                   "--seconds", f"{seconds:.1f}", "--cores", str(self.cores)]  # fmt: skip
        path = os.pathsep.join(filter(None, [str(PROJECT), os.environ.get("PYTHONPATH")]))
        threads = str(max(1, self.cores // self.jobs))
        environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": threads,
                       "TORCHINDUCTOR_COMPILE_THREADS": "2",
                       "TORCHINDUCTOR_CACHE_DIR": str(options.results / "inductor")}  # fmt: skip
        log = logs / f"{workload}.log"
        with log.open("a") as file:
            process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=file, text=True, env=environment,
                cwd=PROJECT,
            )  # fmt: skip
        worker = self.workers[workload] = Worker(workload, process, log)
        threading.Thread(target=self.read, args=(worker,), daemon=True).start()
        return worker

    def own_words(self, workload: str) -> list[str]:
        """Return a workload's words; a rehearsal's few steps cannot take as much away as the paper does."""
        return self.words[workload] if self.options.scale == "paper" else ["lumos.target.params=0.6"]

    def read(self, worker: Worker) -> None:
        """Pass on what a process says, to its end."""
        assert worker.process.stdout is not None
        for line in worker.process.stdout:
            with suppress(ValueError):
                self.events.put((worker.workload, json.loads(line)))
        worker.process.wait()
        self.events.put((worker.workload, {"event": "ended"}))

    def listen(self, seconds: float) -> None:
        """Take what the processes have said, and wait for it so long."""
        try:
            name, event = self.events.get(timeout=max(0.01, seconds))
        except queue.Empty:
            return
        worker, kind = self.workers[name], event["event"]
        if kind == "ended":
            if worker.stage not in ("failed", "late", "stopped", "ending"):
                worker.stage, worker.line = "failed", worker.line or f"it ended with code {worker.process.poll()}"
                self.say(f"{name}: FAILED: {worker.line} (log: {worker.log})")
            return
        took, worker.since = time.monotonic() - worker.since, time.monotonic()
        if kind in ("failed", "stopped"):
            worker.stage, worker.line = kind, event["line"]
            self.say(f"{name}: {'FAILED' if kind == 'failed' else 'stopped'}: {event['line']} (log: {worker.log})")
        elif kind in ("added", "lacking"):
            worker.stage, worker.parts[event["part"]] = "measured", event.get("line", "")
            outcome = "measured" if kind == "added" else f"not measured: {event['line']}"
            self.say(f"{name}: {event['part']} {outcome} ({took:.0f} s)")
        else:
            worker.stage = kind
            more = f", {event['steps']} steps each, dense and gated" if "steps" in event else ""
            done = {"data": "started", "plan": "data there", "training": "planned", "trained": "trained"}
            self.say(f"{name}: {done.get(kind, kind)}{more} ({took:.0f} s)")

    # ---- measurements ----

    def measure(self) -> None:
        """Let one process after the other measure; nothing else runs."""
        self.settle()
        for worker in self.at("trained"):
            if not self.turn(worker, "measure", "measured"):
                return
            pack(self.options.archive, self.options.results)

    def measure_more(self) -> None:
        """Let the records grow, a part at a time over all workloads, while there is time."""
        for part in self.parts:
            if part == "compiled" and self.options.device.startswith("cuda"):
                self.compile_together()
            for worker in self.at("measured"):
                entry = self.entry(worker.workload)
                if entry is None or has_part(entry, part):
                    continue
                if not self.turn(worker, part, "measured"):
                    return
                pack(self.options.archive, self.options.results)

    def turn(self, worker: Worker, word: str, then: str) -> bool:
        """Ask a process for something and wait until it is done. Returns False where the time is over."""
        if self.left <= 0:
            return False
        worker.stage, worker.since = word, time.monotonic()
        worker.ask(word)
        while worker.stage == word and worker.alive and self.left > 0:
            self.listen(min(0.5, self.left))
        if worker.stage == word and worker.alive:
            self.say(f"{worker.workload}: no time left for {word}; the next call does it")
            worker.stage = "ending"
            return False
        return worker.stage == then or self.left > 0

    def compile_together(self) -> None:
        """Let all processes compile at once: the timings find it done."""
        asked = [w for w in self.at("measured") if not has_part(self.entry(w.workload) or {}, "compiled")]
        for worker in asked:
            worker.stage, worker.since = "compile", time.monotonic()
            worker.ask("compile")
        while any(w.stage == "compile" and w.alive for w in asked) and self.left > 0:
            self.listen(min(0.5, self.left))

    @property
    def left(self) -> float:
        """Seconds until the end, less what archive and table take."""
        return self.deadline - LAST - time.monotonic()

    def at(self, stage: str) -> list[Worker]:
        """List the processes at a stage, in the paper's order."""
        known = [self.workers[name] for name in self.workloads if name in self.workers]
        return [worker for worker in known if worker.alive and worker.stage == stage]

    def settle(self) -> None:
        """Wait for those that were stopped: measurements want the machine alone."""
        late = [w for w in self.workers.values() if w.stage == "late"]
        for worker in late:
            with suppress(subprocess.TimeoutExpired):
                worker.process.wait(10)
            if worker.alive:
                worker.process.kill()

    # ---- results ----

    def entry(self, workload: str) -> dict[str, Any] | None:
        """Read the latest finished record that these words make of a workload; None where there is none."""
        from lumos.suite import record

        asked = {f"scale={self.options.scale}", *self.own_words(workload), *self.options.words}
        folders = self.options.results.glob(f"runs/{workload}/*")
        found = [entry for folder in folders if (entry := record.finished(folder)) and entry["status"] == "finished"]
        mine = [entry for entry in found if asked <= set(entry["provenance"]["command"].split())]
        return max(mine, key=lambda entry: entry["provenance"]["started_utc"], default=None)

    def complete(self, workload: str) -> bool:
        """Tell whether a workload's record has every part."""
        entry = self.entry(workload)
        return entry is not None and all(has_part(entry, part) for part in self.parts)

    def finish(self) -> None:
        """Write the archive and print the table."""
        from scripts.gpu_table import table_of

        entries = [entry for name in self.workloads if (entry := self.entry(name))]
        text = table_of(self.options.results, entries)
        (self.options.results / "table.txt").write_text(text)
        size = pack(self.options.archive, self.options.results, models=True)
        print(text)
        for name in self.workloads:
            worker = self.workers.get(name)
            if worker and worker.line:
                print(f"{name}: {worker.line}")
        self.say(f"{len(entries)} of {len(self.workloads)} workloads; {self.options.archive} ({size / 1e6:.1f} MB)")

    def say(self, line: str) -> None:
        """Print a line with the seconds since the start."""
        print(f"[{time.monotonic() - self.started:5.0f} s] {line}", flush=True)


def settings() -> dict[str, list[str]]:
    """Read the words of each workload from conf/gpu.yaml."""
    import yaml

    return yaml.safe_load((PROJECT / "conf" / "gpu.yaml").read_text())


def has_part(entry: dict[str, Any], part: str) -> bool:
    """Tell whether a record has a part already."""
    from lumos.suite.execution_modes import has_part

    return has_part(entry, part)


# ---- the archive ----------------------------------------------------------------------------------------------------


def pack(archive: Path, results: Path, models: bool = False) -> int:
    """Write the archive, whole or not at all: records, their tables and logs; compact models while there is room.

    Returns:
        Its size in bytes.
    """
    from lumos.files import atomic

    plain = sorted(p for p in results.glob("runs/*/*/*") if p.name in TEXTS)
    plain += sorted([*results.glob("plans/*.json"), *results.glob("logs/*.log"), *results.glob("table.txt")])
    large = sorted(results.glob("runs/*/*/compact.pt"), key=lambda p: p.stat().st_size) if models else []
    room = 0.9 * MOST_BYTES - sum(p.stat().st_size for p in plain) / 3  # text shrinks to a third and less
    for path in large:  # weights do not shrink
        room -= path.stat().st_size
        plain += [path] if room > 0 else []
    with atomic(archive) as temporary:
        with tarfile.open(temporary, "w:gz") as tar:
            for path in plain:
                content = path.read_bytes()
                info = tarfile.TarInfo(path.relative_to(results).as_posix())
                info.size, info.mtime = len(content), int(path.stat().st_mtime)
                tar.addfile(info, io.BytesIO(content))
        size = temporary.stat().st_size
        if size > MOST_BYTES and models:
            return pack(archive, results)
    return size


def unpack(archive: Path, results: Path) -> None:
    """Take from an earlier archive what is not in the results folder; nothing of it goes elsewhere.

    Raises:
        ConfigError: The file is no archive of ours.
    """
    from lumos.errors import ConfigError
    from lumos.files import atomic

    if not archive.exists():
        return
    try:
        with tarfile.open(archive, "r:gz") as tar:
            members = [m for m in tar.getmembers() if m.isfile()]
            # A folder with a record is whole: records come last.
            for member in sorted(members, key=lambda m: m.name.endswith("record.json")):
                path = (results / member.name).resolve()
                if results not in path.parents:
                    raise ConfigError(f"--archive {archive}: {member.name} would be written outside of the results")
                file = tar.extractfile(member)
                if file is not None and not path.exists():
                    with atomic(path) as temporary:
                        temporary.write_bytes(file.read())
    except (tarfile.TarError, OSError, EOFError) as error:
        raise ConfigError(f"--archive {archive}: not an archive of this script ({error}); move it away") from None


# ---- packages -------------------------------------------------------------------------------------------------------


def pinned() -> Iterator[str]:
    """Yield the packages to carry, with the versions of requirements.lock."""
    lock = (PROJECT / "requirements.lock").read_text().splitlines()
    for package in NEEDED.values():
        yield next(line.split(" ")[0].strip() for line in lock if line.startswith(f"{package}=="))


def collect(folder: Path, python: str = "3.12") -> int:
    """Collect the wheels of what a bare machine lacks, for Linux on x86-64."""
    folder.mkdir(parents=True, exist_ok=True)
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
    for package in pinned():
        platforms = [f"--platform=manylinux{name}_x86_64" for name in ("_2_28", "_2_27", "_2_17", "2014")]
        download = [*pip, "download", "--no-deps", "--only-binary=:all:", f"--python-version={python}", *platforms,
                    "--dest", str(folder), package]  # fmt: skip
        # Where there is no wheel it is pure Python, and is built here.
        build = [*pip, "wheel", "--no-deps", "--wheel-dir", str(folder), package]
        if subprocess.run(download, stderr=subprocess.DEVNULL).returncode and subprocess.run(build).returncode:
            return failed(f"{package}: pip finds neither a wheel for Python {python} nor a source to build one")
    names = sorted(path.name for path in folder.glob("*.whl"))
    print(f"{len(names)} wheels in {folder}: {', '.join(names)}")
    return 0


def unpack_wheels(folder: Path) -> None:
    """Put what is in a folder of wheels on Python's path, behind what is installed."""
    wheels = sorted(folder.glob("*.whl"))
    if not wheels or not any(importlib.util.find_spec(name) is None for name in NEEDED):
        return
    site = folder / f"site-{sys.version_info[0]}.{sys.version_info[1]}"
    for wheel in wheels:
        done = site / f"{wheel.stem}.unpacked"
        if not done.exists():
            with zipfile.ZipFile(wheel) as file:
                file.extractall(site)
            done.touch()
    sys.path.append(str(site))
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [os.environ.get("PYTHONPATH"), str(site)]))
    importlib.invalidate_caches()


if __name__ == "__main__":
    sys.exit(main())

"""``python -m tests.fuzz.run SECONDS FOLDER READER…``: readers, fed by atheris one after the other.

Each has a folder below FOLDER, with the inputs that it was fed, ``crash-…`` where one ended in what is no line,
``said`` and the exit ``code``. All is imported once, and a process forked for each reader: imports of code whose
branches are followed take long.
"""

import os
import signal
import sys
import tempfile
import time
import warnings
from pathlib import Path

os.environ["NUMBA_DISABLE_JIT"] = "1"  # numba cannot compile code whose branches are followed

import atheris  # pyright: ignore[reportMissingImports]

with atheris.instrument_imports(include=["lumos", "workloads"]):
    from tests.fuzz import targets

GRACE = 60.0
"""Seconds beyond its time after which a reader hangs."""


def main() -> None:
    """Feed the readers, each until its time is over or it raises something that is no line."""
    seconds, folder = int(sys.argv[1]), Path(sys.argv[2])
    for name in sys.argv[3:]:
        corpus = targets.place_of(folder, name)
        corpus.mkdir(parents=True, exist_ok=True)
        pid = os.fork()
        if not pid:
            _feed(targets.TARGETS[name], seconds, corpus)
        (corpus / "code").write_text(str(_ended(pid, seconds + GRACE)))


def _ended(pid: int, patience: float) -> int:
    end = time.monotonic() + patience
    while time.monotonic() < end:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.1)
    os.kill(pid, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def _feed(target: targets.Target, seconds: int, corpus: Path) -> None:
    """Feed one reader, in a process that ends with it."""
    said = os.open(corpus / "said", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for stream in (1, 2):
        os.dup2(said, stream)
    for number, seed in enumerate(target.seeds()):
        (corpus / f"seed-{number}").write_bytes(seed)
    place = Path(tempfile.mkdtemp(prefix="lumos-fuzz-", dir="/dev/shm" if Path("/dev/shm").is_dir() else None))
    warnings.simplefilter("ignore")

    def one(content: bytes) -> None:
        targets.attempt(target, content, place)

    options = [f"-max_total_time={seconds}", "-timeout=20", "-rss_limit_mb=8000", "-print_final_stats=1",
               "-max_len=65536", f"-artifact_prefix={corpus}/"]  # fmt: skip
    atheris.Setup([sys.argv[0], *options, str(corpus)], one)
    atheris.Fuzz()


if __name__ == "__main__":
    main()

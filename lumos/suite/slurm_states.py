"""What became of a sweep's jobs on a Slurm without accounting: submitit asks sacct alone, and would wait for ever."""

from __future__ import annotations

import shutil
import subprocess
from typing import Any

from submitit.slurm.slurm import SlurmInfoWatcher, SlurmJob

from lumos.suite.sweep import AT_WORK

COLUMNS = ("JobID", "State", "NodeList")
GONE = "FORGOTTEN"
"""The state of a job that the controller no longer knows: it ended minutes ago."""


class ControllerWatcher(SlurmInfoWatcher):
    """Asks the controller for the states of jobs, in the words of sacct."""

    def _make_command(self) -> list[str] | None:
        if super()._make_command() is None:
            return None
        # By their numbers, squeue fails for all where it knows one no longer.
        return ["squeue", "--noheader", "--all", "--states=all", "--array", "--format=%i|%T|%N"]

    def read_info(self, string: bytes | str) -> dict[str, dict[str, str]]:
        """Read what squeue says; a job that it does not list has ended."""
        said = string if isinstance(string, str) else string.decode()
        found: dict[str, Any] = super().read_info("|".join(COLUMNS) + "\n" + said)
        for job in found.values():
            if job["State"] in AT_WORK:  # submitit knows not all of them
                job["State"] = "RUNNING"
        gone = {job: dict.fromkeys(COLUMNS, "") | {"JobID": job, "State": GONE} for job in self._registered}
        return gone | found


def ask_the_controller() -> None:
    """Let submitit ask the controller where this machine's Slurm keeps no accounts."""
    if shutil.which("squeue") is None or _has_accounts():
        return
    SlurmJob.watcher = ControllerWatcher(delay_s=SlurmJob.watcher._delay_s)


def _has_accounts() -> bool:
    if shutil.which("sacct") is None:
        return False
    asked = subprocess.run(["sacct", "--noheader", "--jobs=1"], capture_output=True, timeout=60, check=False)
    return asked.returncode == 0

"""What submitit is told of a sweep's jobs where Slurm keeps no accounts."""

import pytest

pytest.importorskip("submitit")

from lumos.suite.slurm_states import GONE, ControllerWatcher


def test_a_job_that_was_cancelled_or_is_gone_is_done():
    """And one that waits, works, or is being set up is not."""
    watcher = ControllerWatcher()
    for job in ("7_0", "7_1", "7_2", "7_3"):
        watcher.register_job(job)
    watcher._info_dict = watcher.read_info("7_0|CANCELLED|n1\n7_1|CONFIGURING|\n7_2|RUNNING|n2\n9|RUNNING|n2\n")
    assert [watcher.is_done(f"7_{k}", mode="cache") for k in range(4)] == [True, False, False, True]
    assert watcher.get_state("7_3", mode="cache") == GONE
    assert watcher.read_info("")["7_0"]["State"] == GONE

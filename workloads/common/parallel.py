"""Jobs that run side by side, with a progress bar."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed

from lumos.workloads.common.progress import track


def run_all(jobs: Sequence[Callable[[], object]], description: str) -> None:
    """Run every job in a thread, as many at once as there are cores.

    Numpy, numba and the codecs work outside Python's lock, so that threads do and nothing has to be copied.

    Raises:
        Exception: what the first job raises that fails; jobs that have not begun are dropped.
    """
    with ThreadPoolExecutor(max(1, min(len(jobs), os.cpu_count() or 1))) as pool:
        running = [pool.submit(job) for job in jobs]
        try:
            for job in track(as_completed(running), description, total=len(running)):
                job.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise

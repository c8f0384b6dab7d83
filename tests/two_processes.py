"""Two processes on this machine that find each other."""

import socket
import sys
from collections.abc import Callable
from typing import Any

import torch.multiprocessing as mp


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def run_in_two(work: Callable[..., None], *more: Any) -> None:
    """Run ``work(rank, port, *more)`` in two processes, and say ``same`` where both end well."""
    mp.spawn(work, (free_port(), *more), nprocs=2)
    sys.stdout.write("same\n")

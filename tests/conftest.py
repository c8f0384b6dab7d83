"""Shapes in signatures are executed: the arrays that go in and out are checked while the tests run."""

import os

from tests.annotations import execute_shapes

# Two test processes share two cores; torch's own threads would only stand in each other's way.
os.environ.setdefault("OMP_NUM_THREADS", "1")
hook = execute_shapes()

import hypothesis  # noqa: E402
import pytest  # noqa: E402
import torch  # noqa: E402

# How long an example takes says how busy the machine is, and nothing of the code.
hypothesis.settings.register_profile("untimed", deadline=None)
hypothesis.settings.load_profile("untimed")


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


@pytest.fixture(autouse=True, scope="session")
def _threads():
    torch.set_num_threads(1)

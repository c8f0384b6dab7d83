"""Precision, deterministic algorithms, and the batches that are kept for batch statistics."""

from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
from torch import nn

from lumos.errors import ConfigError
from lumos.suite.config import read
from lumos.suite.training.loop import train
from lumos.suite.training.precision import set_arithmetic
from lumos.suite.training.recent import RecentBatches
from lumos.workloads.synthetic import Synthetic
from tests.configurations import composed

CPU = torch.device("cpu")


@pytest.fixture
def arithmetic() -> Iterator[None]:
    """Leave torch's settings as they were."""
    kept = torch.backends.cudnn.allow_tf32, torch.backends.cudnn.benchmark
    yield
    set_arithmetic(None, deterministic=False)
    torch.backends.cudnn.allow_tf32, torch.backends.cudnn.benchmark = kept


def config(*words: str):
    return read(composed(["workload=synthetic", "scale=tiny", "lumos.lambda=1e-3", *words]))


def test_the_defaults_are_no_part_of_an_id():
    plain = config()
    assert plain.run_id == config("trainer.precision=null", "trainer.deterministic=true").run_id
    assert not {"precision", "deterministic"} & set(plain.resolved["trainer"])
    ids = {config(word).run_id for word in ("seed=0", "trainer.precision=bf16", "trainer.deterministic=false")}
    assert len(ids) == 3


@pytest.mark.parametrize("word", ["trainer.precision=fp16", "trainer.deterministic=null", "trainer.deterministic=2"])
def test_other_values_are_refused(word: str):
    with pytest.raises(ConfigError, match=word.replace(".", r"\.")):
        config(word)


@pytest.mark.parametrize("precision", ["bf16", "tf32", "fp32"])
def test_a_gated_training_keeps_gates_and_weights_in_single_precision(precision: str):
    workload = replace(Synthetic().tiny(), epochs=2)
    seen = set()

    settings = config(f"trainer.precision={precision}", "trainer.max_steps=8")
    kept = workload.loss

    def loss(model, batch):
        handle = next(m for m in model.modules() if isinstance(m, nn.Linear)).register_forward_hook(
            lambda _, __, out: seen.add((out.dtype, torch.is_grad_enabled()))
        )
        value = kept(model, batch)
        handle.remove()
        return value

    object.__setattr__(workload, "loss", loss)
    trained = train(workload, workload.loaders(), settings, CPU, gated=True)
    assert (torch.bfloat16 if precision == "bf16" else torch.float32, True) in seen
    assert all(p.dtype == torch.float32 for p in trained.model.parameters())
    assert trained.equivalence is not None  # the cut was verified, or it would have raised
    assert torch.isfinite(torch.tensor([row["loss"] for row in trained.curve])).all()


@pytest.mark.parametrize(("precision", "deterministic"), [(None, True), ("fp32", True), ("tf32", False)])
def test_what_a_gpu_computes_with(precision, deterministic: bool, arithmetic: None):
    set_arithmetic(precision, deterministic=deterministic)
    assert torch.get_float32_matmul_precision() == ("high" if precision == "tf32" else "highest")
    assert torch.backends.cudnn.allow_tf32 is (precision != "fp32")
    assert torch.are_deterministic_algorithms_enabled() is deterministic
    assert torch.backends.cudnn.benchmark is not deterministic


def test_recent_batches_stay_within_their_bytes():
    recent = RecentBatches(4, limit=1000)
    for k in range(9):
        recent.append((torch.full((50,), float(k)), torch.zeros(10)))
    assert [int(x[0]) for x, _ in recent] == [5, 6, 7, 8]
    recent.append((torch.full((200,), 9.0), torch.zeros(10)))
    assert [int(x[0]) for x, _ in recent] == [9] or recent.nbytes <= 1000
    recent.append((torch.zeros(500), torch.zeros(10)))
    assert len(recent) == 1  # one at least
    nothing = RecentBatches(0)
    nothing.append(torch.zeros(3))
    assert not len(nothing)

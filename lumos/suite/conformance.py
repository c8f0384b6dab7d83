"""The conformance suite: does an object fulfil the contract of a workload? For third parties' workloads too.

In a test: ``lumos.suite.conformance.check_workload(MyWorkload())``, or one test for each of its ``CHECKS``. Every check
takes a *tiny* workload and raises AssertionError with what was found and what was expected.
"""

from __future__ import annotations

import math
import re
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from lumos.api import gate
from lumos.compaction.compact import compact
from lumos.compaction.model import load
from lumos.compaction.verify import difference, verify
from lumos.gating.gated_model import GatedModel
from lumos.suite.standard_error import score_terms
from lumos.suite.training.evaluation import evaluate
from lumos.suite.training.loading import set_epoch
from lumos.suite.workload import Metric, Recipe, Workload, to_device

CPU = torch.device("cpu")


def check_workload(workload: Workload) -> None:
    """Run every check on ``workload.tiny()``. Raises AssertionError at the first that fails."""
    check_members(workload)
    tiny = workload.tiny()
    for check in CHECKS:
        check(tiny)


def check_members(workload: Any) -> None:
    """Check that the members are there and of the right kind."""
    assert isinstance(workload, Workload), f"{type(workload).__name__} lacks a member of lumos.suite.workload.Workload"
    name = workload.name
    assert re.fullmatch(r"[a-z][a-z0-9_]*", name), f"name {name!r}: expected lower-case letters, digits and _"
    assert isinstance(workload.metric, Metric), f"metric is {workload.metric!r}, expected a Metric"
    assert isinstance(workload.recipe, Recipe), f"recipe is {workload.recipe!r}, expected a Recipe"
    assert isinstance(workload.tiny(), type(workload)), "tiny() is not the same workload"


def check_model(workload: Workload) -> None:
    """Check that the model follows torch's seed, runs on the example and returns finite numbers for each sample."""
    first, second = _seeded(workload, 0), _seeded(workload, 0)
    for (name, a), b in zip(first.named_parameters(), second.parameters(), strict=True):
        assert torch.equal(a, b), f"model(): {name} differs between two calls with one seed"
    with torch.no_grad():
        out = first.eval()(*workload.example())
    for t in pytree.tree_leaves(out):
        if isinstance(t, Tensor) and t.is_floating_point():
            assert bool(torch.isfinite(t).all()), "model(*example()): the output is not finite"
    assert all(p.device == CPU for p in first.parameters()), "model(): expected a model on the CPU"


def check_loaders(workload: Workload) -> None:
    """Check that there are three splits, the same at every call, in an order that seed and epoch alone decide."""
    loaders = workload.loaders()
    for split in ("train", "valid", "test"):
        count = getattr(loaders, f"n_{split}")
        assert count > 0, f"loaders(): n_{split} is {count}"
        assert sum(1 for _ in getattr(loaders, split)) > 0, f"loaders(): the {split} loader yields nothing"
    assert len(loaders.train) > 0  # type: ignore[arg-type]
    assert re.fullmatch(r"[0-9a-f]{64}", loaders.sha256), f"loaders(): sha256 is {loaders.sha256!r}"
    assert workload.loaders().sha256 == loaders.sha256, "loaders(): two calls give different samples"
    set_epoch(loaders.train, 3)
    once = [_leaves(b) for b in loaders.train]
    set_epoch(loaders.train, 3)
    again = [_leaves(b) for b in loaders.train]
    assert _equal(once, again), "loaders(): one epoch comes in two orders; use a sampler with set_epoch"
    if len(once) > 1:
        set_epoch(loaders.train, 4)
        assert not _equal(once, [_leaves(b) for b in loaders.train]), "loaders(): two epochs come in the same order"


def check_loss(workload: Workload) -> None:
    """Check that the loss is one finite number of the order of one, with gradients for the weights."""
    model = _seeded(workload, 0).train()
    loss = workload.loss(model, next(iter(workload.loaders().train)))
    assert loss.shape == (), f"loss: shape {tuple(loss.shape)}, expected a scalar"
    size = float(loss.detach())
    assert math.isfinite(size), f"loss: {size} with fresh weights"
    assert size < 100, f"loss: {size:.3g} with fresh weights; scale it to the order of one"
    loss.backward()
    assert any(p.grad is not None and bool(p.grad.any()) for p in model.parameters()), "loss: no weight has a gradient"


def check_score(workload: Workload) -> None:
    """Check that the score is finite, the same twice, and does not depend on the order of calls."""
    model = _seeded(workload, 0)
    loaders = workload.loaders()
    first = evaluate(workload, model, loaders.valid, CPU)
    evaluate(workload, model, loaders.test, CPU)
    assert math.isfinite(first), f"score: {first}"
    assert evaluate(workload, model, loaders.valid, CPU) == first, "score: the same model scores differently twice"
    if hasattr(workload, "score_terms"):
        terms = score_terms(workload, model, loaders.test, CPU, evaluate(workload, model, loaders.test, CPU))
        assert terms is not None, "score_terms(): expected one number for each sample, whose mean is the score"
        groups = getattr(workload, "test_groups", lambda: None)()
        assert groups is None or len(groups) == len(terms), "test_groups(): expected a number for each of score_terms()"
    for name, score in getattr(workload, "baselines", dict)().items():
        assert math.isfinite(score), f"baselines(): {name} is {score}"


def check_features(workload: Workload) -> None:
    """Check that feature names are unique, and as many as the input features that the trace finds."""
    names = list(workload.features())
    assert len(set(names)) == len(names), "features(): names repeat"
    gated = _gated(workload)
    if names:
        assert list(gated.structure.feature_names) == names, "features(): not what the model's inputs have"


def check_gating(workload: Workload) -> None:
    """Check that open gates change nothing, that gated and compact agree, and that a saved model loads."""
    gated = _gated(workload)
    inputs = workload.example()
    with torch.no_grad():
        gated.gates.log_alpha.fill_(8.0)
        gated.eval()
        same = difference(gated.model(*inputs), gated(*inputs))[1]
        assert same < 1e-5, f"open gates change the output by {same:.1e}"
        torch.manual_seed(1)
        gated.gates.log_alpha.copy_(torch.rand_like(gated.gates.log_alpha) * 8 - 4)
        gated.project()
    verify(gated, inputs)
    small = compact(gated)
    with tempfile.TemporaryDirectory() as folder:
        small.save(Path(folder) / "compact.pt")
        back = load(Path(folder) / "compact.pt", workload.model()).eval()
    with torch.no_grad():
        gap = difference(small(*inputs), back(*inputs))[1]
    # The kernels of convolutions depend on how memory is aligned: equal weights, and outputs to rounding.
    assert gap < 1e-6, f"a compact model that was saved and loaded differs by {gap:.1e}"
    stored = back.state_dict()
    for name, value in small.state_dict().items():
        assert torch.equal(value, stored[name]), f"a compact model that was saved and loaded has another {name}"
    assert back.features == small.features


def check_training(workload: Workload) -> None:
    """Check that a gated training step moves weights and gates."""
    gated = _gated(workload).train()
    loss = workload.loss(gated, to_device(next(iter(workload.loaders().train)), CPU)) + 1e-3 * gated.penalty()
    loss.backward()
    grad = gated.gates.log_alpha.grad
    assert grad is not None and bool(torch.isfinite(grad).all()), "the gates' gradient is not finite"  # noqa: PT018
    assert bool(grad.any()), "the gates have no gradient"


CHECKS: tuple[Callable[[Workload], None], ...] = (
    check_members,
    check_model,
    check_loaders,
    check_loss,
    check_score,
    check_features,
    check_gating,
    check_training,
)


def _seeded(workload: Workload, seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return workload.model()


def _gated(workload: Workload) -> GatedModel:
    return gate(_seeded(workload, 0), workload.example(), features=workload.features())


def _leaves(batch: Any) -> list[Tensor]:
    leaves = pytree.tree_leaves(batch)
    if not any(isinstance(x, Tensor) for x in leaves) and hasattr(batch, "to_dict"):
        leaves = pytree.tree_leaves(batch.to_dict())
    return [x for x in leaves if isinstance(x, Tensor)]


def _equal(a: list[list[Tensor]], b: list[list[Tensor]]) -> bool:
    return len(a) == len(b) and all(
        len(x) == len(y) and all(_same(s, t) for s, t in zip(x, y, strict=True)) for x, y in zip(a, b, strict=True)
    )


def _same(s: Tensor, t: Tensor) -> bool:
    """Whether two tensors hold the same values; NaN, a missing one, is the same as NaN."""
    return s.shape == t.shape and s.dtype == t.dtype and bool(((s == t) | ((s != s) & (t != t))).all())

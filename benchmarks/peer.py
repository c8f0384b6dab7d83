"""What torch-pruning does with a model that is handed to it as it is; only the last layer is named by hand."""

from __future__ import annotations

import copy
import io
from typing import Any

import torch
from torch import Tensor, nn

from lumos.compaction.double_precision import to_double
from lumos.compaction.verify import difference
from lumos.exporting import exportable
from lumos.tracing.inputs import map_inputs

KINDS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)


def cell(error: Exception) -> str:
    """An error in a table."""
    return f"fails: {type(error).__name__}"


def pruner(model: nn.Module, inputs: tuple[Any, ...], ratio: float) -> Any:
    """torch-pruning's magnitude pruner for a share of the channels of every layer but the last."""
    import torch_pruning as tp  # pyright: ignore[reportMissingImports]

    last: list[nn.Module] = []
    last.extend([m for m in model.modules() if isinstance(m, KINDS)][-1:])
    example: Any = inputs[0] if len(inputs) == 1 else inputs
    return tp.pruner.MagnitudePruner(
        model.eval(),
        example,
        importance=tp.importance.MagnitudeImportance(p=2),
        pruning_ratio=ratio,
        ignored_layers=last,
        in_channel_groups={},
        out_channel_groups={},
        num_heads={},
    )


class Zeroed:
    """A copy of the dense model in which what is pruned is zero where a layer makes it and where one reads it."""

    def __init__(self, model: nn.Module) -> None:
        self.model = copy.deepcopy(model)
        twins = dict(self.model.named_modules())
        self.twin = {id(m): twins[n] for n, m in model.named_modules()}
        self.left: dict[tuple[int, int], Tensor] = {}
        self.known = True

    def close(self, pruned: Any, graph: Any) -> None:
        """Zero what a group of torch-pruning's is about to take, in the layers that make it and that read it."""
        for dep, places in pruned:
            module = dep.target.module
            if isinstance(module, nn.MultiheadAttention | nn.RNNBase):
                self.known = False
            if not isinstance(module, nn.Linear | nn.modules.conv._ConvNd):
                continue
            if getattr(module, "groups", 1) > 1:
                # A depthwise convolution mixes nothing: what it gives for a zeroed channel nobody reads.
                self.known &= module.groups == module.in_channels
                continue
            reads = graph.is_in_channel_pruning_fn(dep.handler)
            self._zero(module, int(reads) if not getattr(module, "transposed", False) else int(not reads), list(places))

    def _zero(self, module: nn.Linear | nn.modules.conv._ConvNd, dim: int, places: list[int]) -> None:
        """Zero places along a weight's dimension, counted among those that are left, and the bias of what it makes."""
        left = self.left.setdefault((id(module), dim), torch.arange(module.weight.shape[dim]))
        gone = torch.zeros(len(left), dtype=torch.bool)
        gone[places] = True
        twin = self.twin[id(module)]
        with torch.no_grad():
            twin.get_parameter("weight").index_fill_(dim, left[gone], 0.0)
            if module.bias is not None and dim == int(bool(getattr(module, "transposed", False))):
                twin.get_parameter("bias").index_fill_(0, left[gone], 0.0)
        self.left[id(module), dim] = left[~gone]


def prune(build: Any, ratio: float) -> tuple[nn.Module, tuple[Any, ...], float, float | None]:
    """The model pruned in float64, its inputs, the share of parameters left and the largest relative difference to
    the dense model with the pruned channels zeroed; None where that is not defined here (grouped convolutions)."""
    torch.manual_seed(0)
    model, inputs = build()
    dense = sum(p.numel() for p in model.parameters())
    to_double(model.eval())
    inputs = map_inputs(inputs, lambda _path, x: x.double() if x.is_floating_point() else x)
    zeroed, working = Zeroed(model), pruner(model, inputs, ratio)
    for group in working.step(interactive=True):
        zeroed.close(group, working.DG)
        group.prune()
    with torch.no_grad():
        gap = difference(zeroed.model(*inputs), model(*inputs))[1]
    left = sum(p.numel() for p in model.parameters()) / dense
    return model, inputs, left, gap if zeroed.known else None


def row(build: Any) -> dict[str, str]:
    """torch-pruning's columns for one model."""
    try:
        torch.manual_seed(0)
        model, inputs = build()
        working = pruner(model, inputs, 0.5)
        found = {"traced": "yes", "units": str(units(working, model))}
    except Exception as error:
        return {"traced": cell(error)}
    left, gaps, half = [], [], None
    torch.set_default_dtype(torch.float64)
    try:
        for ratio in (0.5, 0.7, 0.9):
            try:
                small, inputs, share, gap = prune(build, ratio)
            except Exception as error:
                left.append(cell(error))
                continue
            left.append(f"{share:.0%}")
            gaps.append(gap)
            half = half or (small, inputs)
    finally:
        torch.set_default_dtype(torch.float32)
    found["left"] = " / ".join(left) if len(set(left)) > 1 or not left[0].startswith("fails") else left[0]
    if half is None:
        return found
    found["difference"] = "-" if None in gaps else f"{max(gaps):.0e}"
    found["reload"] = reloaded(*half, build)
    model, inputs = half[0]._apply(single), map_inputs(half[1], lambda _path, x: single(x))
    for kind in ("pt2", "onnx"):
        found[kind] = exportable(model, inputs, kind)
    return found


def single(t: Tensor) -> Tensor:
    """In single precision, complex weights included, which ``Module.float`` leaves as they are."""
    return t.float() if t.is_floating_point() else t.to(torch.complex64) if t.is_complex() else t


def units(working: Any, model: nn.Module) -> int:
    """Channels in the groups that the pruner may take from."""
    groups = working.DG.get_all_groups(
        ignored_layers=working.ignored_layers, root_module_types=working.root_module_types
    )
    return sum(len(group[0].idxs) for group in groups)


def reloaded(model: nn.Module, inputs: tuple[Any, ...], build: Any) -> str:
    """Whether its own saved state comes back, without pickle, in a fresh model with equal outputs."""
    import torch_pruning as tp  # pyright: ignore[reportMissingImports]

    try:
        file = io.BytesIO()
        torch.save(tp.state_dict(model), file)
        file.seek(0)
        fresh = to_double(build()[0]).eval()
        back = tp.load_state_dict(fresh, torch.load(file, weights_only=True)) or fresh
        with torch.no_grad():
            gap = difference(model(*inputs), back(*inputs))[1]
    except Exception as error:
        return cell(error)
    return "yes" if gap < 1e-10 else f"differs by {gap:.0e}"


__all__ = ["cell", "row"]

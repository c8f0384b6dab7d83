"""The compact model: a smaller network of the user's own class, saved and loaded without pickle."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lumos.compaction.layers import convert_layers
from lumos.compaction.surgery import replace_tensors, set_attributes
from lumos.errors import CompactionError
from lumos.files import atomic
from lumos.shapes import Int
from lumos.tracing.inputs import InputPath, replaced, tensors

FORMAT = "lumos-compact-1"


@dataclass(frozen=True)
class Selection:
    """Which places along one dimension of an input stay.

    ``width`` is the full width where the model's own code still wants it (columns that index tables): what does not
    stay is zero there. None: the model takes what stays, and nothing else.
    """

    path: InputPath
    dim: int
    kept: Int[Tensor, " kept"]
    width: int | None

    def of_full(self, x: Tensor) -> Tensor:
        """What the model takes, from the full input."""
        reduced = x.index_select(self.dim, self.kept.to(x.device))
        return reduced if self.width is None else self.of_reduced(reduced)

    def of_reduced(self, x: Tensor) -> Tensor:
        """What the model takes, from an input that has what stays and nothing else."""
        if self.width is None:
            return x
        full = x.new_zeros([self.width if d == self.dim % x.ndim else n for d, n in enumerate(x.shape)])
        return full.index_copy(self.dim, self.kept.to(x.device), x)


class CompactModel(nn.Module):
    """A smaller model of the user's own class, and the features that it needs.

    ``model`` is the plain module. Called, this wrapper takes the full inputs and selects from them (``select=True``),
    or takes reduced ones (``select=False``). ``features`` names what is kept.
    """

    def __init__(
        self,
        model: nn.Module,
        inputs: Iterable[Selection],
        features: list[str],
        select: bool = True,
        attributes: dict[str, dict[str, int]] | None = None,
        layers: dict[str, dict[str, Any]] | None = None,
    ) -> None:
        super().__init__()
        self.model = model
        self.features = features
        self.select = select
        self.attributes = attributes or {}
        self.layers = layers or {}
        self._inputs = list(inputs)
        for number, selection in enumerate(self._inputs):
            self.register_buffer(f"kept_{number}", selection.kept)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """The model's output for full inputs, or for reduced ones where ``select`` is off."""
        return self.model(*self.selected(*args), **kwargs)

    def selected(self, *args: Any) -> tuple[Any, ...]:
        """What the inner model takes, from what this one does."""
        if not self._inputs:
            return args
        found, new = tensors(args), {}
        for number, selection in enumerate(self._inputs):
            selection = replace(selection, kept=self.get_buffer(f"kept_{number}"))
            x = found[selection.path]
            new[selection.path] = selection.of_full(x) if self.select else selection.of_reduced(x)
        return replaced(args, new)

    def save(self, path: str | Path) -> None:
        """Write tensors and names, no code and no pickle; read it back with ``lumos.load``."""
        inputs = [{"path": list(s.path), "dim": s.dim, "kept": s.kept.cpu(), "width": s.width} for s in self._inputs]
        state = {n: t.detach().cpu().contiguous() for n, t in self.model.state_dict().items()}
        with atomic(Path(path)) as temporary:
            saved = {"format": FORMAT, "state": state, "inputs": inputs, "features": self.features}
            torch.save({**saved, "attributes": self.attributes, "layers": self.layers}, temporary)


def load(path: str | Path, model: nn.Module, select: bool = True) -> CompactModel:
    """Read a compact model into ``model``, a fresh instance of the dense one (its weights do not matter).

    Raises CompactionError where the file is not a compact model of this architecture.
    """
    try:
        saved = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise CompactionError(f"{path}: there is no such file; save a compact model there first") from None
    except Exception as error:
        raise CompactionError(f"{path}: not a compact model that LUMOS wrote ({type(error).__name__})") from error
    if not isinstance(saved, dict) or saved.get("format") != FORMAT:
        raise CompactionError(f"{path}: not a compact model that LUMOS wrote (expected format {FORMAT})")
    model = copy.deepcopy(model)
    layers = saved.get("layers", {})
    try:
        convert_layers(model, layers)
    except (AttributeError, KeyError, TypeError) as error:
        raise CompactionError(
            f"{path}: the model has other layers ({error!r}); build the dense model that was compacted"
        ) from error
    own, theirs = set(model.state_dict()), set(saved["state"])
    if own != theirs:
        name = sorted(own ^ theirs)[0]
        side = "the file" if name in own else "the model"
        raise CompactionError(f"{path}: {name} is missing in {side}; build the dense model that was compacted")
    replace_tensors(model, saved["state"])
    set_attributes(model, saved["attributes"])
    inputs = [Selection(tuple(i["path"]), i["dim"], i["kept"], i["width"]) for i in saved["inputs"]]
    return CompactModel(model, inputs, saved["features"], select, saved["attributes"], layers)

"""The compact model: a smaller network of the user's own class, saved and loaded without pickle."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lumos.compaction import compact_file
from lumos.compaction.compact_file import CompactFile
from lumos.compaction.layers import convert_layers
from lumos.compaction.surgery import replace_tensors, set_attributes
from lumos.errors import CompactionError
from lumos.gating.layers import ungated_copy
from lumos.shapes import Int
from lumos.tracing.inputs import InputPath, as_positional, input_tensors, replace_inputs
from lumos.tracing.modules import named_tensors


@dataclass(frozen=True)
class Selection:
    """Which places along one dimension of an input stay.

    Attributes:
        path: Where the tensor stands among the inputs.
        dim: The dimension.
        kept: The indices that stay.
        width: The full width, where the model's own code still wants it (columns that index tables): what does not stay
            is zero there. None: the model takes what stays, and nothing else.
    """

    path: InputPath
    dim: int
    kept: Int[Tensor, " kept"]
    width: int | None

    def reduce(self, x: Tensor, kept: Tensor) -> Tensor:
        """Select what stays of a full input; ``kept`` are the indices, where the model is."""
        return x.index_select(self.dim, kept.to(x.device))

    def expand(self, x: Tensor, kept: Tensor) -> Tensor:
        """Make what the model takes of an input that has what stays and nothing else."""
        if self.width is None:
            return x
        full = x.new_zeros([self.width if d == self.dim % x.ndim else n for d, n in enumerate(x.shape)])
        return full.index_copy(self.dim, kept.to(x.device), x)


def _reduced_and_expanded(selection: Selection, x: Tensor, kept: Tensor) -> Tensor:
    return selection.expand(selection.reduce(x, kept), kept)


class CompactModel(nn.Module):
    """A smaller model of the user's own class, and the features that it needs; :func:`lumos.compact` makes it.

    Called, it takes the full inputs and selects from them, or takes inputs with the kept features alone
    (``select=False``). ``model`` is the plain module inside, of the class of the user's own model.

    Args:
        model: The plain module.
        inputs: What stays of each input of which something goes.
        features: Names of the features that are kept, in the model's order.
        select: Whether it takes full inputs.
        attributes: Whole numbers of modules that follow the sizes, by module path and attribute.
        layers: Layers that have another class, by path.

    Example:
        >>> import tempfile, torch, lumos
        >>> dense = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.ReLU(), torch.nn.Linear(4, 1))
        >>> gated = lumos.gate(dense, torch.randn(8, 3)).eval()
        >>> gated.gates.log_alpha.data[:1] = -8.0  # x0 is closed
        >>> small, x = lumos.compact(gated), torch.randn(5, 3)
        >>> small.features
        ['x1', 'x2']
        >>> only = lumos.compact(gated, select=False)
        >>> torch.equal(only(x[:, 1:]), small(x))
        True
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
        # One selection of each argument, and none inside containers.
        places = [selection.path for selection in self._inputs]
        self._are_arguments = all(len(path) == 1 for path in places) and len(set(places)) == len(places)
        for number, selection in enumerate(self._inputs):
            self.register_buffer(f"kept_{number}", selection.kept)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Compute the model's output for full inputs, or for reduced ones where ``select`` is off."""
        if kwargs and self._inputs:
            args, kwargs = as_positional(self.model, args, kwargs)
        return self.model(*self.selected(*args), **kwargs)

    def selected(self, *args: Any) -> tuple[Any, ...]:
        """Make what the plain module takes of what this one takes."""
        return self._mapped(args, _reduced_and_expanded if self.select else Selection.expand)

    def reduced(self, *args: Any) -> tuple[Any, ...]:
        """Make what this model takes with ``select=False`` of full inputs: those without what it does not need."""
        return self._mapped(args, Selection.reduce)

    def _mapped(
        self, args: tuple[Any, ...], function: Callable[[Selection, Tensor, Tensor], Tensor]
    ) -> tuple[Any, ...]:
        if not self._inputs:
            return args
        # The indices as buffers are on the model's device.
        kept = [getattr(self, f"kept_{number}") for number in range(len(self._inputs))]
        if self._are_arguments and all(
            len(args) > s.path[0] and isinstance(args[s.path[0]], Tensor) for s in self._inputs
        ):
            # What small networks are called with; walking through containers takes longer than they do.
            new = list(args)
            for selection, indices in zip(self._inputs, kept, strict=True):
                new[selection.path[0]] = function(selection, new[selection.path[0]], indices)
            return tuple(new)
        found = input_tensors(args)
        return replace_inputs(
            args,
            {s.path: function(s, found[s.path], k) for s, k in zip(self._inputs, kept, strict=True) if s.path in found},
        )

    def save(self, path: str | Path) -> None:
        """Write the model to one file, without code and without pickle; :func:`lumos.load` reads it.

        The file is in the safetensors format, whatever its name: tensors, and JSON in its header.

        Args:
            path: The file. What was there is replaced once the new one is whole.

        Raises:
            OSError: The folder cannot be written or the disk is full.
        """
        inputs = [{"path": list(s.path), "dim": s.dim, "kept": s.kept.tolist(), "width": s.width} for s in self._inputs]
        state = self.model.state_dict(keep_vars=True)  # a parameter with two names is the same object then
        # Buffers that the state leaves out are saved too: they may be cut, or be no longer what the constructor makes.
        state = {n: t for n, t in state.items() if isinstance(t, Tensor)} | dict(self.model.named_buffers())
        content = CompactFile(state, inputs, self.features, self.attributes, self.layers)
        compact_file.write(Path(path), content)


def load(path: str | Path, model: nn.Module, select: bool = True) -> CompactModel:
    """Read a compact model that :meth:`CompactModel.save` wrote.

    Args:
        path: The file.
        model: A fresh instance of the dense model; it stays as it is, and its weights do not matter.
        select: Whether the result takes full inputs, or those with the kept features alone.

    Returns:
        The compact model on the CPU, in the mode of ``model``.

    Raises:
        CompactionError: The file is not a compact model of this architecture.

    Example:
        >>> import tempfile, torch, lumos
        >>> from pathlib import Path
        >>> def dense():
        ...     return torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.ReLU(), torch.nn.Linear(4, 1))
        >>> x = torch.randn(8, 3)
        >>> small = lumos.compact(lumos.gate(dense(), x).eval())
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     file = Path(folder) / "compact.safetensors"
        ...     small.save(file)
        ...     back = lumos.load(file, dense()).eval()
        >>> torch.equal(back(x), small(x))
        True
    """
    saved = compact_file.read(Path(path))
    model = ungated_copy(model, named_tensors(model))
    try:
        convert_layers(model, saved.layers)
    except (AttributeError, KeyError, TypeError) as error:
        raise CompactionError(
            f"{path}: the model has other layers ({error!r}); build the dense model that was compacted"
        ) from error
    theirs = set(saved.state)
    own = {name for name, t in model.state_dict().items() if isinstance(t, Tensor)}
    own |= {name for name, _ in model.named_buffers()} & theirs
    if own != theirs:
        name = sorted(own ^ theirs)[0]
        side = "the file" if name in own else "the model"
        raise CompactionError(f"{path}: {name} is missing in {side}; build the dense model that was compacted")
    replace_tensors(model, saved.state)
    set_attributes(model, saved.attributes)
    inputs = [
        Selection(_path(i["path"]), i["dim"], torch.as_tensor(i["kept"], dtype=torch.int64), i["width"])
        for i in saved.inputs
    ]
    return CompactModel(model, inputs, saved.features, select, saved.attributes, saved.layers)


def _path(saved: list[Any]) -> InputPath:
    """A path as JSON keeps it: its tuples are lists there."""
    return tuple(_path(key) if isinstance(key, list) else key for key in saved)

"""The modules of a model, its tensors, the whole numbers that it keeps; and a copy of the modules alone."""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Collection
from functools import cache
from types import CellType, CodeType, FunctionType
from typing import Any

from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from lumos.errors import StructureError
from lumos.tracing.calls import tensor_leaves


def named_modules(model: nn.Module) -> list[tuple[str, nn.Module]]:
    """Return every module with its first path: ``model.named_modules()``, without a generator for every level."""
    found: list[tuple[str, nn.Module]] = []
    seen: set[int] = set()
    waiting = [("", model)]
    while waiting:
        path, module = waiting.pop()
        if id(module) not in seen:
            seen.add(id(module))
            found.append((path, module))
            start = f"{path}." if path else ""
            waiting += [(start + key, m) for key, m in reversed(module._modules.items()) if m is not None]
    return found


def named_tensors(model: nn.Module) -> dict[str, Tensor]:
    """Return parameters, then buffers, each by its first name: torch's own walks, in one."""
    modules = named_modules(model)
    found: dict[str, Tensor] = {}
    for store in ("_parameters", "_buffers"):
        seen: set[int] = set()
        for path, module in modules:
            for key, t in module.__dict__[store].items():
                if t is not None and id(t) not in seen:
                    seen.add(id(t))
                    found[f"{path}.{key}" if path else key] = t
    return found


def int_attributes(module: nn.Module, value: int) -> tuple[str, ...]:
    """Return the names of the attributes in which a module of the user's own keeps this whole number."""
    if type(module).__module__.startswith("torch.nn."):
        return ()
    return tuple(n for n, v in vars(module).items() if type(v) is int and v == value and not n.startswith("_"))


def reads_training(model: nn.Module) -> set[str]:
    """Return the paths of the modules of the user's own whose code asks whether they are in train mode."""
    return {path for path, m in named_modules(model) if _class_reads_training(plain_class(type(m)))}


@cache
def _class_reads_training(kind: type) -> bool:
    classes = [c for c in kind.__mro__ if not c.__module__.startswith(("torch.nn.", "lumos.")) and c is not object]
    return any("training" in _names(f.__code__) for c in classes for f in vars(c).values() if type(f) is FunctionType)


def _names(code: CodeType) -> set[str]:
    inner = [_names(c) for c in code.co_consts if isinstance(c, CodeType)]
    return set(code.co_names).union(*inner)


def structural_copy(model: nn.Module, private: Collection[str] = (), known: dict[int, Any] | None = None) -> nn.Module:
    """Copy a model's modules; parameters and buffers are the very tensors of the model.

    What the copy's code stores on its modules, their training flags and their classes are its own. Writing into a
    parameter or buffer writes into the model's: give the copy other tensors first, or protect them
    (:class:`lumos.tracing.protection.TensorProtection`).

    Args:
        model: The model.
        private: The names of parameters and buffers that are copied after all.
        known: What is to stand in the copy for objects of the model, by their ids.

    Raises:
        StructureError: Something that a module holds cannot be copied.

    Example:
        >>> layer = nn.Linear(3, 2)
        >>> copied = structural_copy(layer).eval()
        >>> layer.training, copied.weight is layer.weight
        (True, True)
    """
    own = named_tensors(model)
    known = {id(t): copy.deepcopy(t) if name in private else t for name, t in own.items()} | (known or {})
    modules = [m for _, m in named_modules(model)]
    try:
        if not all(_copies_plainly(plain_class(type(m))) for m in modules):
            for module in modules:
                _detach_activations(module.__dict__, known)
            return copy.deepcopy(model, known)
        # Modules are many and their attributes mostly simple: a deep copy takes ten times as long.
        known |= {id(m): object.__new__(type(m)) for m in modules}
        for module in modules:  # handles of hooks lead to these
            for key in _HOOKS & module.__dict__.keys():
                value = module.__dict__[key]
                known[id(value)] = type(value)()
        for module in modules:
            copied = known[id(module)].__dict__
            for key, value in module.__dict__.items():
                kind = type(value)
                if kind in _NEVER_CHANGE:
                    copied[key] = value
                elif key in _HOOKS:
                    copied[key] = known[id(value)]
                    copied[key].update((k, _copied(v, known)) for k, v in value.items())
                elif kind in _STORES and not value:  # most attributes are hooks that the module does not have
                    copied[key] = kind()
                else:
                    copied[key] = _copied(value, known)
        return known[id(model)]
    except Exception as error:
        raise StructureError(
            f"{type(model).__name__} cannot be copied ({type(error).__name__}: {error}); "
            "expected modules that copy.deepcopy can copy; remove what it cannot from the modules' attributes"
        ) from error


def plain_class(kind: type) -> type:
    """Return the class that a module has without what LUMOS put on it: its own one for a module of the user's."""
    return getattr(kind, PLAIN_CLASS, kind)


def derive(plain: type[nn.Module], name: str, members: dict[str, Any], base: type | None = None) -> type[nn.Module]:
    """Make a class that stands in for the class of a user's module.

    The user's own code does not notice it: what it makes by calling the class (``self.__class__(…)``) is of the user's
    class, and an ``__init_subclass__``, which may ask for arguments and keep what it sees, is not told.

    Args:
        plain: The user's class.
        name: The new class's name.
        members: Its attributes.
        base: A class that comes before the user's.
    """
    told = any("__init_subclass__" in vars(c) for c in plain.__mro__ if c is not object)
    bases = (*([] if base is None else [base]), *([_Untold] if told else []), plain)
    return _calls(type(plain))(name, bases, {**members, _CALLED: plain})


class _Untold(nn.Module):
    """Stands before a class whose ``__init_subclass__`` is not to be told of another one."""

    def __init_subclass__(cls, **_options: Any) -> None:
        pass


@cache
def _calls(metaclass: type) -> Any:
    """Return a metaclass whose classes make objects of the user's class when they are called."""

    def call(kind: Any, *args: Any, **kwargs: Any) -> Any:
        return getattr(kind, _CALLED)(*args, **kwargs)

    return type(metaclass.__name__, (metaclass,), {"__call__": call})


_CALLED = "_lumos_called_class"
PLAIN_CLASS = "_lumos_plain_class"
"""The attribute in which a class of ours, made for a copy of a user's module, names the user's class."""


def _copies_plainly(kind: type) -> bool:
    """Return whether a deep copy of such a module is a copy of its attributes."""
    own = {n for c in kind.__mro__ if not c.__module__.startswith("torch.nn.") and c is not object for n in vars(c)}
    return own.isdisjoint(("__deepcopy__", "__reduce__", "__reduce_ex__", "__getstate__", "__setstate__", "__new__"))


def _copied(value: Any, known: dict[int, Any]) -> Any:
    """Copy an attribute of a module."""
    if id(value) in known:
        return known[id(value)]
    kind = type(value)
    if kind in (dict, OrderedDict):  # its tensors, its modules, its hooks
        return kind(
            (k, v if type(v) in _NEVER_CHANGE else known[id(v)] if id(v) in known else _copied(v, known))
            for k, v in value.items()
        )
    if kind is tuple and all(type(item) in _NEVER_CHANGE for item in value):
        return value
    if kind is FunctionType and value.__closure__:
        return _over_copies(value, known)
    _detach_activations(value, known)
    known |= {id(h): RemovableHandle(OrderedDict()) for h in _dead_handles(value)}
    return copy.deepcopy(value, known)


def _dead_handles(value: Any) -> list[RemovableHandle]:
    """Handles of hooks of a module that is no more, which torch does not copy: those of a copied module."""
    items = value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else (value,)
    handles = [h for h in items if isinstance(h, RemovableHandle)]
    return [h for h in handles if any(r() is None for r in (h.hooks_dict_ref, *h.extra_dict_ref))]


def _over_copies(function: FunctionType, known: dict[int, Any]) -> FunctionType:
    """Copy a function that a module keeps, where it is one over the module's own parts: over their copies."""
    cells = [_content(cell) for cell in function.__closure__ or ()]
    if not any(id(content) in known for content in cells):
        return function
    closure = tuple(
        CellType(known[id(content)]) if id(content) in known else cell
        for content, cell in zip(cells, function.__closure__ or (), strict=True)
    )
    made = FunctionType(function.__code__, function.__globals__, function.__name__, function.__defaults__, closure)
    made.__kwdefaults__, made.__dict__ = function.__kwdefaults__, dict(function.__dict__)
    known[id(function)] = made
    return made


def _content(cell: CellType) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # nothing was assigned to it yet
        return None


def _detach_activations(value: Any, known: dict[int, Any]) -> None:
    """Prepare copies of the tensors that a forward left on its module: torch copies no tensor with a history."""
    for t in tensor_leaves(value, []):
        if not t.is_leaf and id(t) not in known:
            known[id(t)] = t.detach().clone()


_NEVER_CHANGE = {type(None), bool, int, float, str}
_STORES = {dict, OrderedDict, set}
_HOOKS = {key for key, value in vars(nn.Module()).items() if "hooks" in key and isinstance(value, dict)}

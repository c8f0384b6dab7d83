"""The modules of a model, its tensors and the whole numbers that it keeps."""

from __future__ import annotations

from torch import Tensor, nn


def walk(model: nn.Module) -> list[tuple[str, nn.Module]]:
    """``model.named_modules()``, without a generator for every level."""
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


def own_tensors(model: nn.Module) -> dict[str, Tensor]:
    """Parameters, then buffers, each by its first name: torch's own walks, in one."""
    modules = walk(model)
    found: dict[str, Tensor] = {}
    for store in ("_parameters", "_buffers"):
        seen: set[int] = set()
        for path, module in modules:
            for key, t in module.__dict__[store].items():
                if t is not None and id(t) not in seen:
                    seen.add(id(t))
                    found[f"{path}.{key}" if path else key] = t
    return found


def own_numbers(module: nn.Module, value: int) -> tuple[str, ...]:
    """Names of the attributes in which a module of the user's own keeps this whole number."""
    if type(module).__module__.startswith("torch.nn."):
        return ()
    return tuple(n for n, v in vars(module).items() if type(v) is int and v == value and not n.startswith("_"))

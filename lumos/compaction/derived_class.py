"""Classes of a user's modules that do one thing more: made at run time, and told to pickle."""

from __future__ import annotations

from functools import cache, wraps
from typing import Any, ClassVar

from torch import nn

from lumos.tracing.modules import derive


class Derived(nn.Module):
    """The base of what stands before a user's class; its ``forward`` calls that of the user's."""

    prefix: ClassVar[str]
    """What the name of a class made of it begins with."""
    _made_of: ClassVar[tuple[type[Derived], type[nn.Module]]]

    def __reduce_ex__(self, protocol: Any) -> Any:
        make, arguments, *rest = super().__reduce_ex__(protocol)
        plain = self._made_of[1]
        arguments = tuple(plain if a is type(self) else a for a in arguments)
        return (_rebuilt, (self._made_of, make, arguments), *rest)


@cache
def derived_class(base: type[Derived], plain: type[nn.Module]) -> type[nn.Module]:
    """Return the class of a module of the user's with what ``base`` does before it; it stays the user's otherwise.

    Example:
        >>> class Doubled(Derived):
        ...     prefix = "Doubled"
        ...     def forward(self, *args):
        ...         return 2 * super().forward(*args)
        >>> module = nn.Identity()
        >>> module.__class__ = derived_class(Doubled, nn.Identity)
        >>> module(3), type(module).__name__
        (6, 'DoubledIdentity')
    """

    @wraps(plain.forward)  # whoever asks what it takes is told what the user's takes
    def forward(self: Any, *args: Any, **kwargs: Any) -> Any:
        return base.forward(self, *args, **kwargs)

    members = {"__module__": plain.__module__, "forward": forward, "_made_of": (base, plain)}
    return derive(plain, f"{base.prefix}{plain.__name__}", members, base)


def _rebuilt(made_of: tuple[type[Derived], type[nn.Module]], make: Any, arguments: tuple[Any, ...]) -> nn.Module:
    module = make(*arguments)
    module.__class__ = derived_class(*made_of)
    return module

"""Parts of a training that a checkpoint keeps."""

from __future__ import annotations

from typing import Any, ClassVar


class Resumable:
    """A part of a training whose attributes named in ``memory`` change on the way, and go into its checkpoints."""

    memory: ClassVar[tuple[str, ...]] = ()

    def state_dict(self) -> dict[str, Any]:
        """Return the attributes by name; numbers, tensors and containers of them."""
        return {name: getattr(self, name) for name in self.memory}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take the attributes that :meth:`state_dict` returned."""
        for name in self.memory:
            setattr(self, name, state[name])

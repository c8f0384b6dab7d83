"""The shape of a gate's distribution, the kinds of penalty, the other methods. Imports no torch."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

Penalty = Literal["gates", "params", "macs"]


@dataclass(frozen=True)
class StructureOptions:
    """What more of a model is made removable, where that changes one of its layers.

    ``streams``: residual streams that a LayerNorm reads; the norm then knows its original width. ``private``: each
    linear layer may leave out inputs that other layers keep; it then gathers those that it reads. ``query_key``: the
    dimensions of queries and keys within the heads of an attention, the same places in all of its heads.
    """

    streams: bool = False
    private: bool = False
    query_key: bool = False


@dataclass(frozen=True)
class GateSettings:
    """The shape of a gate's distribution.

    ``tau`` is the temperature; noise is drawn from U(``t_l``, ``t_u``), so that with 0 < t_l and t_u < 1 gates far
    from the middle are deterministic (semi-stochastic, eq. 1); ``gamma`` < 0 and ``zeta`` > 1 stretch the interval
    before it is clipped to [0, 1]; ``initial_open`` is the open probability at the start. Raises ValueError.
    """

    tau: float = 2 / 3
    t_l: float = 0.4
    t_u: float = 0.6
    gamma: float = -0.1
    zeta: float = 1.1
    initial_open: float = 0.99

    def __post_init__(self) -> None:
        if not self.tau > 0:
            raise ValueError(f"tau={self.tau}: expected a number > 0")
        if not 0 <= self.t_l < 0.5:
            raise ValueError(f"t_l={self.t_l}: expected a number in [0, 0.5)")
        if not 0.5 < self.t_u <= 1:
            raise ValueError(f"t_u={self.t_u}: expected a number in (0.5, 1]")
        if not self.gamma < 0:
            raise ValueError(f"gamma={self.gamma}: expected a number < 0")
        if not self.zeta > 1:
            raise ValueError(f"zeta={self.zeta}: expected a number > 1")
        if not self.zeta > -self.gamma:  # at log_alpha 0, the floor of a group's widest gate, a gate has to be open
            raise ValueError(f"zeta={self.zeta}: expected a number > {-self.gamma:g}, which is -gamma")
        if not 0 < self.initial_open < 1:
            raise ValueError(f"initial_open={self.initial_open}: expected a number in (0, 1)")

    @property
    def shift(self) -> float:
        """``tau * log(-gamma / zeta)``, at or below which a gate is closed at test time."""
        return self.tau * math.log(-self.gamma / self.zeta)


MethodName = Literal["dense", "lumos", "scratch", "l1", "slimming", "depgraph", "oto", "loxia"]


@dataclass(frozen=True)
class MethodConfig:
    """Another method than ours, to compare with. See conf/method/ for what each one reads, and docs/peers.md.

    ``target`` is the share of the dense parameters that is left, ``prune_at`` the share of the steps after which the
    network shrinks, ``restart`` whether the learning rate falls before that as well as after. Raises ValueError.
    """

    name: MethodName
    target: float | None = None
    prune_at: float = 0.5
    restart: bool = False
    regularization: float = 0.0
    max_pruning_ratio: float = 0.9
    lambda_: float = 0.0
    drop_first: float = 0.2
    drop_rest: float = 0.5

    def __post_init__(self) -> None:
        if self.name != "dense" and (self.target is None or not 0 < self.target < 1):
            raise ValueError(f"target={self.target}: expected the share of the dense parameters to keep, in (0, 1)")
        for name in ("prune_at", "drop_first", "drop_rest"):
            if not 0 < getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)}: expected a number between 0 and 1")
        for name, value in (("regularization", self.regularization), ("lambda", self.lambda_)):
            if value < 0:
                raise ValueError(f"{name}={value}: expected a number >= 0")
        if not 0 < self.max_pruning_ratio <= 1:
            raise ValueError(f"max_pruning_ratio={self.max_pruning_ratio}: expected a share in (0, 1]")

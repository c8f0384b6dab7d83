"""The hard-concrete gate: LUMOS equations 1-5; Louizos, Welling and Kingma, ICLR 2018."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from lumos.gating.hard_concrete import (
    LOG_ALPHA_BOUND,
    OPEN,
    concrete,
    expected_open,
    log_alpha_of,
    median,
    open_probability,
    stretched,
)
from lumos.gating.settings import GateSettings
from lumos.shapes import Bool, Float
from lumos.tracing.devices import read_at_once, to_gpu
from lumos.tracing.structure import Group


def rounded_up(
    groups: Sequence[Group], values: Float[Tensor, " units"], keep: Bool[Tensor, " units"], multiple: int
) -> Bool[Tensor, " units"]:
    """``keep``, and of each hidden group the units of the largest values that make their number a multiple."""
    if multiple == 1:
        return keep
    ranked, out = values.masked_fill(keep, torch.inf), keep.clone()
    for group in groups:
        if group.kind == "hidden":
            count = min(group.size, -(-int(keep[group.gates].sum()) // multiple) * multiple)
            widest = ranked[group.gates].topk(count).indices
            out[group.gates] = torch.zeros_like(out[group.gates]).index_fill(0, widest, True)
    return out


class Gates(nn.Module):
    """One flat vector of gates for a whole model; each group owns a slice of it.

    Called, it returns values in [0, 1]: a sample in training mode, the test-time values in eval mode.
    """

    log_alpha: nn.Parameter
    owner: Tensor
    protected: Tensor

    def __init__(self, groups: Sequence[Group], settings: GateSettings) -> None:
        super().__init__()
        self.settings = settings
        units = max((g.stop for g in groups), default=0)
        start = log_alpha_of(settings.initial_open, settings)
        self.log_alpha = nn.Parameter(torch.full((units,), start))
        owner = torch.empty(units, dtype=torch.int64)
        for number, group in enumerate(groups):
            owner[group.gates] = number
        self.register_buffer("owner", owner, persistent=False)
        self.register_buffer("protected", torch.tensor([not g.optional for g in groups], dtype=torch.bool))
        self.group_count = len(groups)
        self.fixed = False
        """Whether the gates stand still at their test-time values, in training mode too."""
        self.noise: Tensor | None = None
        """What was drawn last, in (0, 1), one number for each gate."""
        self._leaders: Tensor | None = None

    def forward(self) -> Float[Tensor, " units"]:
        """Return the gates' values: in training mode those of newly drawn noise, in eval mode the median."""
        if self.sampling:
            self.noise = self.drawn()
        return self.values()

    @property
    def sampling(self) -> bool:
        """Whether the gates' values are those of the noise that was drawn last, and not those of test time."""
        return self.training and not self.fixed

    def values(self) -> Float[Tensor, " units"]:
        """Return the gates' values for the noise that was drawn last, in eval mode the median."""
        return stretched(concrete(self.log_alpha, self.noise if self.sampling else None, self.settings), self.settings)

    def drawn(self, generator: torch.Generator | None = None) -> Float[Tensor, " units"]:
        """Return new noise, one number for each gate: of torch's generator for their device, or of one on the CPU."""
        low, high = self.settings.t_l, self.settings.t_u
        if generator is None:
            noise = torch.rand_like(self.log_alpha, requires_grad=False)
        else:
            noise = torch.rand(len(self.log_alpha), generator=generator, dtype=self.log_alpha.dtype)
            noise = to_gpu(noise, self.log_alpha.device)
        noise = noise.mul_(high - low).add_(low)
        return noise.clamp_(OPEN, 1 - OPEN) if low < OPEN or high > 1 - OPEN else noise

    def expected_open(self) -> Float[Tensor, " units"]:
        """Return what the penalty counts of each gate: equation 5."""
        return expected_open(self.log_alpha, self.settings)

    def open_probability(self) -> Float[Tensor, " units"]:
        """Return the probability that each gate is open when it is sampled."""
        return open_probability(self.log_alpha, self.settings)

    def is_open(self) -> Bool[Tensor, " units"]:
        """Which gates are open at test time."""
        return median(self.log_alpha.detach(), self.settings) > 0

    @torch.no_grad()
    def project(self) -> bool:
        """Keep log_alpha in bounds, and in each protected group the widest open gate open.

        A layer whose units all closed would cut the network; the floor keeps that one gate at one half. Returns True
        where it is known that no group has closed, optional ones included; False where that is to be looked at.
        """
        self.log_alpha.clamp_(-LOG_ALPHA_BOUND, LOG_ALPHA_BOUND)
        on_cpu = read_at_once(self.log_alpha)
        # While the gates that led their groups at the last look are open, nothing is to be lifted.
        if on_cpu and self._leaders is not None and float(self.log_alpha[self._leaders].min()) >= 0:
            return True
        top = self.log_alpha.new_full((self.group_count,), -torch.inf)
        top = top.scatter_reduce(0, self.owner, self.log_alpha, "amax")
        leads = self.log_alpha == top[self.owner]
        lifted = torch.where(leads & self.protected[self.owner], self.log_alpha.clamp(min=0.0), self.log_alpha)
        self.log_alpha.copy_(lifted)
        self._leaders = leads.nonzero().squeeze(1) if on_cpu and len(leads) else None
        return False

"""The hard-concrete gate: LUMOS equations 1-5; Louizos, Welling and Kingma, ICLR 2018."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from lumos.gating.settings import GateSettings
from lumos.shapes import Float

OPEN = 1e-6
"""Noise stays this far inside (0, 1): at 0 and 1 the logit is infinite."""


LOG_ALPHA_BOUND = 8.0
"""|log_alpha| is kept below this, so that a gate that went far can still come back."""


def concrete(
    log_alpha: Float[Tensor, " units"], noise: Float[Tensor, " units"] | None, settings: GateSettings
) -> Float[Tensor, " units"]:
    """Return each gate before it is stretched, in (0, 1): equation 2; without noise, that of the median."""
    logit = log_alpha if noise is None else torch.logit(noise) + log_alpha
    return torch.sigmoid(logit / settings.tau)


def stretched(concrete: Float[Tensor, " units"], settings: GateSettings) -> Float[Tensor, " units"]:
    """Stretch gates to (gamma, zeta) and clip them to [0, 1]: equation 3."""
    return clipped(unclipped(concrete, settings))


def unclipped(concrete: Float[Tensor, " units"], settings: GateSettings) -> Float[Tensor, " units"]:
    """Stretch gates to (gamma, zeta)."""
    return concrete * (settings.zeta - settings.gamma) + settings.gamma


def clipped(values: Float[Tensor, " units"]) -> Float[Tensor, " units"]:
    """Clip stretched gates to [0, 1]."""
    # hardtanh is clamp with a backward of one kernel: beside a layer's products, small operations cost by their number.
    return F.hardtanh(values, 0.0, 1.0)


def sample(
    log_alpha: Float[Tensor, " units"], noise: Float[Tensor, " units"], settings: GateSettings
) -> Float[Tensor, " units"]:
    """Sample gates: ``sigmoid((log(noise / (1 - noise)) + log_alpha) / tau)``, stretched and clipped.

    The paper's equation 2 prints the division outside the sigmoid, where the value could exceed 1; the published
    distribution has it inside, and so do we.

    Args:
        log_alpha: Parameter of each gate, shape (units,).
        noise: Uniform numbers in (0, 1), shape (units,).
        settings: The shape of the distribution.

    Returns:
        Values in [0, 1], shape (units,), differentiable in ``log_alpha``. Source: LUMOS equations 2 and 3.
    """
    return stretched(concrete(log_alpha, noise, settings), settings)


def median(log_alpha: Float[Tensor, " units"], settings: GateSettings) -> Float[Tensor, " units"]:
    """Return the gates of test time, the distribution's median: ``sigmoid(log_alpha / tau)``, stretched and clipped."""
    return stretched(concrete(log_alpha, None, settings), settings)


def expected_open(log_alpha: Float[Tensor, " units"], settings: GateSettings) -> Float[Tensor, " units"]:
    """Return what the penalty counts of each gate, differentiable in log_alpha: equation 5.

    It is the probability that the gate is not exactly zero where the noise is from all of (0, 1); with a narrower range
    it goes on having a gradient where the gate is certainly open or closed.

    Units: none, in (0, 1).  Source: LUMOS eq. 5; Louizos et al. 2018, eq. 12.
    """
    return torch.sigmoid(log_alpha - settings.shift)


def open_probability(log_alpha: Float[Tensor, " units"], settings: GateSettings) -> Float[Tensor, " units"]:
    """Return the probability that each gate is not exactly zero when it is sampled: for noise from U(t_l, t_u).

    A gate is above zero where its noise is above ``sigmoid(shift - log_alpha)``.

    Units: none, in [0, 1].
    """
    least = torch.sigmoid(settings.shift - log_alpha)
    return ((settings.t_u - least) / (settings.t_u - settings.t_l)).clamp(0.0, 1.0)


def log_alpha_of(probability: float, settings: GateSettings) -> float:
    """Return the log_alpha at which equation 5 gives this probability."""
    return math.log(probability / (1 - probability)) + settings.shift

"""The tests execute annotations of shapes, and of nothing else."""

import jaxtyping
import pytest
import torch

from lumos.gating.hard_concrete import median
from lumos.gating.settings import GateSettings
from lumos.tracing.structure import Bound, Structure
from tests.annotations import names_shapes


def test_a_shape_that_is_not_as_annotated_is_an_error():
    with pytest.raises(jaxtyping.TypeCheckError, match="units"):
        median(torch.zeros(2, 3), GateSettings())
    with pytest.raises(jaxtyping.TypeCheckError, match="units"):
        Bound("a", (0, 0, 0), 1, units=torch.zeros(3))


def test_functions_without_shapes_are_as_they_are():
    assert not names_shapes(Structure.group)
    assert not hasattr(Structure.group, "__wrapped__")
    assert names_shapes(median)

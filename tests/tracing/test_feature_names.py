"""Names of features where a model takes several inputs."""

from typing import Any

import pandas as pd
import pytest
import torch
from torch import nn

import lumos
from lumos.errors import StructureError


class Two(nn.Module):
    """A model of two columns of one input, and of three inside another one."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Linear(2, 8), nn.Linear(3, 8), nn.Linear(8, 1)

    def forward(self, left: torch.Tensor, right: dict[str, torch.Tensor]) -> torch.Tensor:
        return self.c(torch.relu(self.a(left) + self.b(right["x"])))


INPUTS = torch.randn(8, 2), {"x": torch.randn(8, 3)}


@pytest.mark.parametrize(
    ("given", "names"),
    [
        (None, ("x0", "x1", "x2", "x3", "x4")),
        (list("abcde"), ("a", "b", "c", "d", "e")),
        ({"left": ["a", "b"], "right": ["c", "d", "e"]}, ("a", "b", "c", "d", "e")),
        ({"x": ["c", "d", "e"]}, ("x0", "x1", "c", "d", "e")),
        ({"right.x": ["c", "a", "e"], "left": ["a", "b"]}, ("left.a", "b", "c", "right.x.a", "e")),
        ([["a", "b"], None], ("a", "b", "x2", "x3", "x4")),
    ],
)
def test_names_are_given_in_one_list_or_for_each_input(given, names):
    assert lumos.gate(Two(), INPUTS, features=given).structure.feature_names == names


def test_names_of_an_input_are_those_that_are_kept_and_grouped():
    names = {"left": ["a", "b"], "right": ["a", "c", "d"]}
    gated = lumos.gate(Two(), INPUTS, features=names, keep=["left.a"], groups={"pair": ["c", "d"]})
    assert sum(group.size for group in gated.structure.groups if group.kind == "feature") == 3
    assert "left.a" in gated.kept_features()


@pytest.mark.parametrize(
    ("given", "line"),
    [
        ({"up": ["a"]}, r"features: no input with features is called 'up'; there are left \(2\), right.x \(3\)"),
        ({"left": ["a"]}, "features: 1 name for input left, which has 2 features; give a list of 2"),
        ({"left": "ab"}, "features: the text for input left, which has 2 features"),
        ([["a", "b"]], "features: 1 list of names for 2 inputs with features; give a list, or None, for each of left"),
        (["a"], r"1 feature names for inputs with 5 features \(left \(2\), right.x \(3\)\); give one name for each"),
    ],
)
def test_names_that_do_not_fit_are_said_in_one_line(given, line):
    with pytest.raises(StructureError, match=line):
        lumos.gate(Two(), INPUTS, features=given)


def test_columns_of_a_data_frame_are_names():
    columns: Any = pd.DataFrame({"t": [1.0], "p": [2.0]}).columns
    assert lumos.gate(nn.Linear(2, 1), torch.randn(8, 2), features=columns).structure.feature_names == ("t", "p")

"""The network that takes the columns of a table as they are."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import lumos
from lumos.tabular.categories import codes, find_categories
from lumos.tabular.network import TableNetwork

KINDS = [
    {}, {"bins": 4}, {"missing": True}, {"bins": 3, "missing": True},
    {"bins": 2, "encoding": "periodic", "missing": True},
]  # fmt: skip


def table(numbers, categories, rows=32):
    x = torch.randn(rows, numbers, generator=torch.Generator().manual_seed(0)) * 3 + 1
    x[0], x[1, :1] = torch.nan, torch.nan
    codes = torch.randint(-1, 3, (rows, categories), generator=torch.Generator().manual_seed(1))
    return torch.cat([x, codes.float()], 1)


@pytest.mark.parametrize("kind", KINDS, ids=str)
@pytest.mark.parametrize(("numbers", "categories"), [(4, 2), (4, 0), (0, 3), (1, 1)])
def test_a_closed_column_has_no_say(numbers, categories, kind):
    """One gate a column, whatever it is encoded as; also where it is the last one of its kind."""
    torch.manual_seed(0)
    x = table(numbers, categories)
    gated = lumos.gate(TableNetwork(numbers, [3, 2, 3][:categories], 2, (16, 8), **kind).scaled_by(x), x).eval()
    first = gated.structure.groups[0]
    assert (first.name, first.size) == ("input", numbers + categories)
    kinds = {"numbers": range(numbers), "categories": range(numbers, numbers + categories), "first": [0]}
    for closed in kinds.values():
        if not 0 < len(closed) < numbers + categories:
            continue
        gated.gates.log_alpha.data.fill_(3.0)
        gated.gates.log_alpha.data[list(closed)] = -9.0
        assert lumos.verify(gated, x).max_rel_diff < 1e-10
        small, other = lumos.compact(gated), x.clone()
        other[:, list(closed)] = 7.0
        assert torch.equal(small(x), small(other))
        assert not torch.equal(small(x), small(other * 1.5))


@given(scale=st.integers(-25, 25), offset=st.sampled_from([0.0, 1.0, 100.0]), bins=st.integers(0, 5))
@settings(max_examples=30)
def test_the_encoding_is_that_of_a_column_in_any_unit(scale, offset, bins):
    x = torch.randn(200, 1, generator=torch.Generator().manual_seed(0)) + offset
    plain, other = (TableNetwork(1, [], 1, (4,), bins=bins).scaled_by(z) for z in (x, x * 10.0**scale))
    torch.testing.assert_close(plain.encode(x), other.encode(x * 10.0**scale), atol=1e-2, rtol=1e-2)
    assert plain.encode(x)[:, 1:].min() >= 0 if bins else True


@pytest.mark.parametrize(
    "values", [[5.0] * 9, [torch.nan] * 9, [1e-40 * k for k in range(9)]], ids=["5", "none", "dust"]
)
def test_a_column_that_does_not_vary_is_zero_whatever_comes(values):
    x = torch.tensor(values)[:, None]
    network = TableNetwork(1, [], 1, (4,), bins=3).scaled_by(x)
    assert torch.equal(network.encode(torch.tensor([[5.0], [-1e6], [torch.nan]])), torch.zeros(3, 4))


def test_a_column_with_few_values_has_fewer_bins():
    x = torch.tensor([0.0] * 90 + [1.0] * 10)[:, None]
    encoded = TableNetwork(1, [], 1, (4,), bins=8).scaled_by(x).encode(torch.tensor([[0.0], [0.5], [1.0]]))
    assert encoded[:, 1].tolist() == [0.0, 0.5, 1.0]
    assert encoded[:, 2:].abs().sum() == 0


def test_categories_are_sorted_counted_and_limited():
    values = ["b", "a", "b", np.nan, None, "c", np.str_("a")]
    assert find_categories(values) == ["a", "b", "c", None]
    assert find_categories(values, most=2) == ["a", "b", None]
    assert find_categories([10, 9, True, "x"]) == [True, 9, 10, "x"]
    assert codes(["a", "zz", np.nan], ["a", "b"]).tolist() == [0, -1, -1]

"""Features that others stand for: constants, copies, linear relations."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import lumos


def table(rows=120, columns=6, seed=0):
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed))


def compact_of(x, *, encoding=None, closed=(), reader=None):
    torch.manual_seed(0)
    width = x.shape[1] if encoding is None else encoding.out_features
    first = [] if encoding is None else [encoding]
    body = reader or nn.Sequential(*first, nn.Linear(width, 12), nn.Tanh(), nn.Linear(12, 2))
    gated = lumos.gate(body, x[:8]).eval()
    gated.gates.log_alpha.data[list(closed)] = -9.0
    return lumos.compact(gated)


@given(
    target=st.integers(0, 5),
    terms=st.dictionaries(st.integers(0, 5), st.floats(-4, 4).filter(lambda c: abs(c) > 0.1), max_size=3),
    constant=st.floats(-5, 5),
    closed=st.integers(-1, 5),
)
@settings(max_examples=8)
def test_any_linear_relation_goes_into_the_others_weights(target, terms, constant, closed):
    x, terms = table(), {k: c for k, c in terms.items() if k not in (target, closed)}
    x[:, target] = sum((c * x[:, k] for k, c in terms.items()), torch.full((len(x),), constant))
    small = compact_of(x, closed=[] if closed in (-1, target) else [closed])
    others = [name for name in small.features if name != f"x{target}"]
    found = lumos.fold_inputs(small, x, keep=others)
    assert found.model.features == others
    torch.testing.assert_close(found.model(x), small(x), atol=1e-4, rtol=1e-4)
    (relation,) = found.relations
    assert relation.feature == f"x{target}"
    assert relation.terms is not None
    assert relation.terms == pytest.approx({f"x{k}": c for k, c in terms.items()}, abs=1e-3)


def test_of_several_copies_one_stays_and_the_model_is_saved_as_it_is(tmp_path):
    x = table()
    x[:, 2], x[:, 5], x[:, 3] = x[:, 0], x[:, 0], 7.0
    small = compact_of(x)
    found = lumos.fold_inputs(small, x)
    assert len({"x0", "x2", "x5"} & set(found.model.features)) == 1
    assert "x3" not in found.model.features
    assert [str(r) for r in found.relations if r.feature == "x3"] == ["x3 = 7 on all 120 rows"]
    found.model.save(tmp_path / "small.safetensors")
    dense = nn.Sequential(nn.Linear(6, 12), nn.Tanh(), nn.Linear(12, 2))
    back = lumos.load(tmp_path / "small.safetensors", dense).eval()
    assert torch.equal(back(x), found.model(x))


@pytest.mark.parametrize("kind", ["quantiles", "plain", "periodic"])
def test_a_copy_goes_through_the_encoding_where_that_repeats_it(kind):
    x = table()
    x[:, 4] = 2 * x[:, 1] + 3
    x[3, [1, 4]] = torch.nan
    small = compact_of(x, encoding=lumos.encode(x, kind, 3))
    found = lumos.fold_inputs(small, x)
    if kind == "periodic":  # its frequencies differ
        assert found.model is small
        return
    assert len(found.model.features) == 5
    torch.testing.assert_close(found.model(x), small(x), atol=1e-4, rtol=1e-4)


class Squares(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(6, 3)

    def forward(self, x):
        return self.layer(x * x)


@pytest.mark.parametrize("reader", [Squares(), nn.Sequential(nn.Linear(6, 3, bias=False), nn.ReLU(), nn.Linear(3, 1))])
def test_what_is_no_linear_function_of_what_is_read_stays(reader):
    x = table()
    x[:, 2] = x[:, 0] + x[:, 1]
    small = compact_of(x, reader=reader)
    found = lumos.fold_inputs(small, x)
    assert found.model is small
    assert not found.relations


def test_with_few_rows_there_is_always_a_relation_and_none_is_taken():
    x = table(rows=7)
    small = compact_of(x)
    assert lumos.fold_inputs(small, x).model is small
    assert lumos.fold_inputs(small, table()).model is small

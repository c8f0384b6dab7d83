"""The encoding of columns in front of a network of one's own."""

import pytest
import torch
from torch import nn

import lumos
from lumos.errors import ConfigError

X = torch.rand(200, 5, generator=torch.Generator().manual_seed(0)) * 7 - 2


def in_front(encoding):
    return nn.Sequential(encoding, nn.Linear(encoding.out_features, 12), nn.Tanh(), nn.Linear(12, 2))


@pytest.mark.parametrize("suffix", [pytest.param("onnx", marks=pytest.mark.slow), "pt2"])
@pytest.mark.parametrize("kind", ["quantiles", "plain", "periodic"])
def test_the_compact_and_the_exported_network_encode_the_kept_columns_inside(kind, suffix, tmp_path):
    torch.manual_seed(0)
    x = torch.cat([X, torch.randint(-1, 3, (200, 1), generator=torch.Generator().manual_seed(1)).float()], 1)
    x[3, 1], x[5, 0] = torch.nan, torch.nan
    gated = lumos.gate(in_front(lumos.encode(x, kind, 4, categories=[3])), x[:8])
    assert [group.size for group in gated.structure.groups] == [6, 12]
    gated.gates.log_alpha.data[[1, 4]] = -9.0
    small = lumos.compact(gated.eval())
    assert small.features == ["x0", "x2", "x3", "x5"]
    assert len(small.model[0].mean) == 3
    assert lumos.verify(gated, x).max_rel_diff < 1e-10
    made = lumos.export(small, (x[:4],), tmp_path / f"net.{suffix}")
    assert made.inputs["input"][1] == 6


def test_a_bin_goes_from_zero_to_one_between_quantiles():
    x = torch.linspace(0, 8, 801)[:, None]
    encoded = lumos.encode(x, "quantiles", 4)(torch.tensor([[0.0], [3.0], [8.0], [99.0]]))[:, 1:]
    torch.testing.assert_close(encoded, torch.tensor([[0, 0, 0, 0], [1, 0.5, 0, 0], [1, 1, 1, 1], [1, 1, 1, 1.0]]))


def test_periodic_frequencies_are_trained():
    torch.manual_seed(0)
    model = in_front(lumos.encode(X, "periodic", 3))
    model(X).square().mean().backward()
    assert model[0].frequency.shape == (5, 3)
    assert model[0].frequency.grad.abs().min() > 0


@pytest.mark.parametrize(
    ("arguments", "said"),
    [({"kind": "splines"}, "splines"), ({"bins": -1}, "bins=-1"),
     ({"categories": [2] * 6}, "shape")],
)  # fmt: skip
def test_what_cannot_be_is_said(arguments, said):
    with pytest.raises(ConfigError, match=said):
        lumos.encode(X, **arguments)

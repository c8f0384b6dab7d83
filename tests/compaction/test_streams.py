"""Norms over residual streams, in the ways in which modules write them: channels go, and the function stays."""

import pickle

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import lumos
from lumos.tracing.options import StructureOptions
from tests.tracing.test_forms_of_attention import RMSNorm, assert_exact, hidden

STREAMS = StructureOptions(streams=True)
WIDTH = 12


class Affine(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.rand(WIDTH) + 0.5), nn.Parameter(torch.randn(WIDTH))


class ChannelsFirst(nn.LayerNorm):
    def __init__(self) -> None:
        super().__init__(WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        x = F.layer_norm(x.permute(0, 2, 3, 1), self.normalized_shape, self.weight, self.bias, self.eps)
        return x.permute(0, 3, 1, 2)


class WrittenLayerNorm(Affine):
    def forward(self, x: Tensor) -> Tensor:
        mean = x.mean(1, keepdim=True)
        variance = (x - mean).pow(2).mean(1, keepdim=True)
        x = (x - mean) / torch.sqrt(variance + 1e-6)
        return self.weight[:, None, None] * x + self.bias[:, None, None]


class GlobalResponseNorm(Affine):
    """ConvNeXt V2's."""

    def forward(self, x: Tensor) -> Tensor:
        size = x.norm(p=2, dim=(1, 2), keepdim=True)
        return x + self.weight * (x * (size / (size.mean(-1, keepdim=True) + 1e-6))) + self.bias


class Standardised(nn.Module):
    def __init__(self, unbiased: bool) -> None:
        super().__init__()
        self.unbiased = unbiased

    def forward(self, x: Tensor) -> Tensor:
        return (x - x.mean(-1, True)) / (x.std(-1, unbiased=self.unbiased, keepdim=True) + 1e-5)


class Normalized(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return F.normalize(x, dim=-1) * x.shape[0]


class FlatVariance(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x / (x.transpose(-1, -2).var(-2, correction=0) + 1e-5).sqrt().unsqueeze(-1)


ROWS = {
    "nn.LayerNorm": lambda: nn.LayerNorm(WIDTH),
    "nn.RMSNorm": lambda: nn.RMSNorm(WIDTH),
    "RMSNorm": lambda: RMSNorm(WIDTH),
    "no weight": lambda: nn.RMSNorm(WIDTH, elementwise_affine=False, eps=1e-5),
    "standardised": lambda: Standardised(True),
    "standardised, biased": lambda: Standardised(False),
    "normalize": Normalized,
    "variance": FlatVariance,
}
IMAGES = {
    "ChannelsFirst": ChannelsFirst,
    "WrittenLayerNorm": WrittenLayerNorm,
    "GroupNorm(1)": lambda: nn.GroupNorm(1, WIDTH),
}


class Stream(nn.Module):
    """Two residual branches behind norms, on rows or on images."""

    def __init__(self, make, images: bool) -> None:
        super().__init__()
        layer = (lambda a, b: nn.Conv2d(a, b, 1)) if images else nn.Linear
        self.first, self.last = layer(4, WIDTH), layer(WIDTH, 3)
        self.norms = nn.ModuleList([make(), make()])
        self.branches = nn.ModuleList([layer(WIDTH, WIDTH), layer(WIDTH, WIDTH)])

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        for norm, branch in zip(self.norms, self.branches, strict=True):
            x = x + torch.tanh(branch(norm(x)))
        return self.last(x)


def built(name: str) -> tuple[nn.Module, Tensor]:
    torch.manual_seed(0)
    images = name in IMAGES
    return Stream((IMAGES if images else ROWS)[name], images), torch.randn(3, 4, 5, 6) if images else torch.randn(6, 4)


QUICK = "RMSNorm", "no weight", "normalize", "ChannelsFirst", "GroupNorm(1)"


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[] if n in QUICK else pytest.mark.slow) for n in (*ROWS, *IMAGES)]
)
def test_channels_of_a_stream_go_and_the_function_stays(name, tmp_path):
    model, x = built(name)
    gated = lumos.gate(model, x, options=STREAMS)
    assert hidden(gated.structure)["first"] == WIDTH
    assert_exact(gated, x)
    group = gated.structure.group("first")
    for left in (WIDTH - 1, 1):  # and half-open gates
        with torch.no_grad():
            gated.gates.log_alpha.fill_(0.3)
            gated.gates.log_alpha[group.start : group.stop - left] = -8.0
        lumos.verify(gated.eval(), x)
    with torch.no_grad():
        gated.gates.log_alpha[group.start : group.start + 4] = 8.0
    small = lumos.compact(gated)
    small.save(tmp_path / "compact")
    for back in (lumos.load(tmp_path / "compact", built(name)[0]).eval(), pickle.loads(pickle.dumps(small))):
        torch.testing.assert_close(back(x), small(x))


@pytest.mark.parametrize(
    "name", ["RMSNorm", *(pytest.param(n, marks=pytest.mark.slow) for n in (*ROWS, *IMAGES) if n != "RMSNorm")]
)
def test_a_compact_stream_is_exported(name):
    model, x = built(name)
    gated = lumos.gate(model, x, options=STREAMS)
    with torch.no_grad():
        gated.gates.log_alpha.fill_(8.0)
        gated.gates.log_alpha[gated.structure.group("first").gates][::2] = -8.0
    small = lumos.compact(gated.eval())
    torch.testing.assert_close(torch.export.export(small, (x,), strict=False).module()(x), small(x))


def test_a_compact_stream_trains_with_the_gradients_of_the_gated_one():
    for name in ("RMSNorm", "ChannelsFirst"):
        model, x = built(name)
        gated = lumos.gate(model, x, options=STREAMS).double().eval()
        with torch.no_grad():
            gated.gates.log_alpha.fill_(8.0)
            gated.gates.log_alpha[gated.structure.group("first").gates][::2] = -8.0
        small, x = lumos.compact(gated), x.double()
        slopes = [torch.autograd.grad(f(y).square().sum(), y)[0] for f in (gated, small)
                  for y in [x.clone().requires_grad_()]]  # fmt: skip
        torch.testing.assert_close(*slopes)


def test_a_global_response_norm_loses_channels():
    torch.manual_seed(0)
    x = torch.randn(2, 4, 4, 5)
    model = nn.Sequential(nn.Linear(5, WIDTH), nn.GELU(), GlobalResponseNorm(), nn.Linear(WIDTH, 3))
    gated = lumos.gate(model, x, options=STREAMS)
    assert hidden(gated.structure) == {"0": WIDTH}
    assert_exact(gated, x)
    assert "mixed by mean in 2 (GlobalResponseNorm" in lumos.gate(model, x).structure.fixed[0].reason


def test_one_norm_for_two_streams_ties_them():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b, self.norm = nn.Linear(5, WIDTH), nn.Linear(5, WIDTH), RMSNorm(WIDTH)
            self.c = nn.Linear(WIDTH, 2)

        def forward(self, x):
            return self.c(self.norm(self.a(x))) + self.c(self.norm(self.b(x)).abs())

    torch.manual_seed(0)
    x = torch.randn(6, 5)
    gated = lumos.gate(Twice(), x, options=STREAMS)
    assert hidden(gated.structure) == {"a": WIDTH}
    assert_exact(gated, x)


class Scaled(Affine):
    """Channels are scaled apart before their mean is taken: those that are gone are not all alike."""

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.bias
        return self.weight * x * torch.rsqrt(x.square().mean(-1, keepdim=True) + 1e-6)


class Largest(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x / (1 + x.abs().amax(-1, keepdim=True))


@pytest.mark.parametrize(("norm", "call"), [(Scaled, "mean"), (Largest, "amax")])
def test_what_cannot_make_up_for_channels_holds_them(norm, call):
    torch.manual_seed(0)
    structure = lumos.gate(Stream(norm, False), torch.randn(6, 4), options=STREAMS).structure
    assert f"mixed by {call} in norms.0 ({norm.__name__}" in {f.name: f.reason for f in structure.fixed}["first"]

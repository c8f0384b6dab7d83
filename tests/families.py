"""One small model for each family that the engine must follow; used by tests and benchmarks."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

Built = tuple[nn.Module, tuple[Any, ...]]
FAMILIES: dict[str, Callable[[], Built]] = {}
VARIANTS = re.compile(
    "G(IN|CN), virtual node, JK sum|GIN, virtual node, JK cat|GCN, virtual node, JK last|CNN [13]D, .*|FNO 1D"
)
"""Families that differ in a detail from another one; tests over all of them leave these to the slow tests."""


def family(name: str) -> Callable[[Callable[[], Built]], Callable[[], Built]]:
    def add(build: Callable[[], Built]) -> Callable[[], Built]:
        FAMILIES[name] = build
        return build

    return add


def each_family() -> list[Any]:
    """The names of all families as parameters of a test."""
    slow = pytest.mark.slow
    return [pytest.param(name, marks=slow) if VARIANTS.fullmatch(name) else name for name in FAMILIES]


class Net(nn.Module):
    """Layers by name, and a forward given as a function."""

    def __init__(self, forward: Callable[..., Any], **layers: Any) -> None:
        super().__init__()
        for name, layer in layers.items():
            setattr(self, name, layer)
        self._forward = forward

    def forward(self, *args: Any) -> Any:
        return self._forward(self, *args)


@family("MLP + BN + skip")
def mlp() -> Built:
    def forward(m, x):
        h = F.relu(m.bn(m.a(x)))
        return m.c(h + F.gelu(m.b(h)))

    return Net(forward, a=nn.Linear(7, 12), bn=nn.BatchNorm1d(12), b=nn.Linear(12, 12), c=nn.Linear(12, 3)), (
        torch.randn(3, 7),
    )


@family("MLP + LayerNorm")
def mlp_layer_norm() -> Built:
    model = nn.Sequential(nn.Linear(7, 12), nn.LayerNorm(12), nn.ReLU(), nn.Linear(12, 9), nn.ReLU(), nn.Linear(9, 2))
    return model, (torch.randn(3, 7),)


class Residual(nn.Module):
    def __init__(self, conv, norm, width: int) -> None:
        super().__init__()
        self.a, self.na = conv(width, 2 * width, 3, padding=1), norm(2 * width)
        self.b, self.nb = conv(2 * width, width, 3, padding=1), norm(width)

    def forward(self, x):
        return F.relu(x + self.nb(self.b(F.relu(self.na(self.a(x))))))


def cnn(dim: int, norm_of: Callable[[int], nn.Module] | None = None) -> Built:
    conv = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}[dim]
    bn = {1: nn.BatchNorm1d, 2: nn.BatchNorm2d, 3: nn.BatchNorm3d}[dim]
    pool = {1: nn.MaxPool1d, 2: nn.MaxPool2d, 3: nn.MaxPool3d}[dim]
    norm = norm_of or bn
    layers = [conv(3, 8, 3, padding=1), norm(8), nn.ReLU(), pool(2), Residual(conv, norm, 8), conv(8, 6, 1)]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(6 * 4**dim, 3)), (torch.randn(2, 3, *[8] * dim),)


for _dim in (1, 2, 3):
    FAMILIES[f"CNN {_dim}D, BN, residual, flatten"] = lambda dim=_dim: cnn(dim)
FAMILIES["CNN, GroupNorm"] = lambda: cnn(2, lambda width: nn.GroupNorm(4, width))


@family("DenseNet")
def dense_net() -> Built:
    def forward(m, x):
        h = F.relu(m.a(x))
        h = torch.cat([h, F.relu(m.b(m.nb(h)))], 1)
        h = torch.cat([h, F.relu(m.c(m.nc(h)))], 1)
        return m.d(F.adaptive_avg_pool2d(m.nd(h), 1).flatten(1))

    layers = {
        "a": nn.Conv2d(3, 8, 3),
        "nb": nn.BatchNorm2d(8),
        "b": nn.Conv2d(8, 4, 3, padding=1),
        "nc": nn.BatchNorm2d(12),
        "c": nn.Conv2d(12, 4, 3, padding=1),
        "nd": nn.BatchNorm2d(16),
        "d": nn.Linear(16, 2),
    }
    return Net(forward, **layers), (torch.randn(2, 3, 8, 8),)


@family("squeeze-excite, depthwise")
def squeeze() -> Built:
    def forward(m, x):
        h = F.silu(m.bn(m.a(x)))
        h = F.hardswish(m.depth(h))
        gate = torch.sigmoid(m.up(F.relu(m.down(h.mean((2, 3), keepdim=True)))))
        return m.head((h * gate).mean((2, 3)))

    layers = {
        "a": nn.Conv2d(3, 8, 3),
        "bn": nn.BatchNorm2d(8),
        "depth": nn.Conv2d(8, 8, 3, groups=8),
        "down": nn.Conv2d(8, 4, 1),
        "up": nn.Conv2d(4, 8, 1),
        "head": nn.Linear(8, 2),
    }
    return Net(forward, **layers), (torch.randn(2, 3, 8, 8),)


@family("grouped convolution")
def grouped() -> Built:
    layers = [
        nn.Conv2d(3, 8, 3),
        nn.ReLU(),
        nn.Conv2d(8, 12, 3, groups=4),
        nn.BatchNorm2d(12),
        nn.ReLU(),
        nn.Conv2d(12, 5, 1),
    ]
    return nn.Sequential(*layers, nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(5, 2)), (
        torch.randn(2, 3, 8, 8),
    )


@family("VGG, flatten")
def vgg() -> Built:
    layers: list[nn.Module] = []
    for a, b in ((3, 6), (6, 8)):
        layers += [nn.Conv2d(a, b, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)]
    layers += [nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(32, 16), nn.ReLU(), nn.Dropout(), nn.Linear(16, 4)]
    return nn.Sequential(*layers), (torch.randn(2, 3, 8, 8),)


@family("UNet, bilinear and transposed")
def unet() -> Built:
    def block(a, b):
        return nn.Sequential(
            nn.Conv2d(a, b, 3, padding=1), nn.ReLU(), nn.BatchNorm2d(b), nn.Conv2d(b, b, 3, padding=1), nn.ReLU()
        )

    def forward(m, x):
        a = m.a(x)
        b = m.b(F.max_pool2d(a, 2))
        c = m.c(F.max_pool2d(b, 2))
        d = m.d(torch.cat([b, m.up(c)], 1))
        e = m.e(torch.cat([a, F.interpolate(d, scale_factor=2, mode="bilinear", align_corners=True)], 1))
        return m.out(e)

    layers = {
        "a": block(2, 4),
        "b": block(4, 8),
        "c": block(8, 12),
        "up": nn.ConvTranspose2d(12, 6, 2, stride=2),
        "d": block(14, 8),
        "e": block(12, 4),
        "out": nn.Conv2d(4, 1, 1),
    }
    return Net(forward, **layers), (torch.randn(2, 2, 8, 8),)


def _autoencoder(image: Callable[[torch.Tensor], torch.Tensor]) -> Built:
    """``image`` gives the decoder's flat output its shape."""

    def forward(m, x):
        h = F.relu(m.conv(x)).flatten(1)
        h = F.relu(m.decode(F.relu(m.encode(h))))
        return m.back(image(h))

    layers = {
        "conv": nn.Conv2d(1, 4, 3, stride=2, padding=1),
        "encode": nn.Linear(64, 8),
        "decode": nn.Linear(8, 96),
        "back": nn.ConvTranspose2d(6, 1, 2, stride=2),
    }
    return Net(forward, **layers), (torch.randn(2, 1, 8, 8),)


@family("autoencoder, Linear -> view(-1) -> convT")
def autoencoder() -> Built:
    return _autoencoder(lambda h: h.view(h.shape[0], -1, 4, 4))


@family("embedding + FC")
def embedding() -> Built:
    def forward(m, k, x):
        return m.b(F.relu(m.a(torch.cat([m.table(k).flatten(1), x], 1))))

    return Net(forward, table=nn.Embedding(10, 6), a=nn.Linear(15, 8), b=nn.Linear(8, 1)), (
        torch.randint(10, (4, 2)),
        torch.randn(4, 3),
    )


class GraphNet(nn.Module):
    """GIN or GCN as OGB's examples write them, with virtual node and jumping knowledge."""

    def __init__(self, kind: str, knowledge: str = "last", layers: int = 2, width: int = 8) -> None:
        super().__init__()
        from torch_geometric.nn import MessagePassing

        class Conv(MessagePassing):
            def __init__(self) -> None:
                super().__init__(aggr="add")
                self.edge = nn.Linear(5, width)
                if kind == "gin":
                    self.mlp = nn.Sequential(
                        nn.Linear(width, 2 * width), nn.BatchNorm1d(2 * width), nn.ReLU(), nn.Linear(2 * width, width)
                    )
                    self.eps = nn.Parameter(torch.zeros(1))
                else:
                    self.lin, self.root = nn.Linear(width, width), nn.Embedding(1, width)

            def forward(self, x, edge_index, edge_attr):
                e = self.edge(edge_attr)
                if kind == "gin":
                    return self.mlp((1 + self.eps) * x + self.propagate(edge_index, x=x, e=e, norm=None))
                x = self.lin(x)
                degree = torch.bincount(edge_index[0], minlength=len(x)).to(x.dtype) + 1
                root = degree.pow(-0.5)
                norm = root[edge_index[0]] * root[edge_index[1]]
                out = self.propagate(edge_index, x=x, e=e, norm=norm)
                return out + F.relu(x + self.root.weight) / degree.view(-1, 1)

            def message(self, x_j, e, norm):
                message = F.relu(x_j + e)
                return message if norm is None else norm.view(-1, 1) * message

        self.knowledge, self.layers = knowledge, layers
        self.atoms = nn.Embedding(9, width)
        self.virtual = nn.Embedding(1, width)
        self.convs = nn.ModuleList(Conv() for _ in range(layers))
        self.norms = nn.ModuleList(nn.BatchNorm1d(width) for _ in range(layers))
        self.vn = nn.Sequential(
            nn.Linear(width, 2 * width), nn.BatchNorm1d(2 * width), nn.ReLU(), nn.Linear(2 * width, width), nn.ReLU()
        )
        self.head = nn.Linear(width * (layers + 1 if knowledge == "cat" else 1), 3)

    def forward(self, z, edge_attr, edge_index, batch):
        from torch_geometric.nn import global_add_pool, global_mean_pool

        h = [self.atoms(z)]
        v = self.virtual(torch.zeros(int(batch[-1]) + 1, dtype=torch.long))
        for i, (conv, norm) in enumerate(zip(self.convs, self.norms, strict=True)):
            x = h[-1] + v[batch]
            y = norm(conv(x, edge_index, edge_attr))
            y = F.relu(y) if i < self.layers - 1 else y
            h.append(y + x)
            if i < self.layers - 1:
                v = self.vn(global_add_pool(x, batch) + v)
        stack = {"last": lambda: h[-1], "sum": lambda: sum(h), "cat": lambda: torch.cat(h, 1)}[self.knowledge]()
        return self.head(global_mean_pool(stack, batch))


def graph_inputs() -> tuple[Tensor, ...]:
    edges = torch.randint(0, 10, (2, 30))
    return torch.randint(0, 9, (10,)), torch.randn(30, 5), edges, torch.tensor([0] * 5 + [1] * 5)


for _kind in ("gin", "gcn"):
    for _knowledge in ("last", "sum", "cat"):
        FAMILIES[f"{_kind.upper()}, virtual node, JK {_knowledge}"] = lambda k=_kind, j=_knowledge: (
            GraphNet(k, j),
            graph_inputs(),
        )


def pyg(name: str, **options: Any) -> Callable[[], Built]:
    def build() -> Built:
        import torch_geometric.nn as gnn

        conv = getattr(gnn, name)
        if name == "GINEConv":
            a = conv(nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 8)), edge_dim=4)
            b = conv(nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 8)), edge_dim=4)
        else:
            a, b = conv(6, 8, **options), conv(8 * options.get("heads", 1), 8)

        def forward(m, x, edges, attributes):
            extra = (attributes,) if name == "GINEConv" else ()
            return m.head(F.relu(m.b(F.relu(m.a(x, edges, *extra)), edges, *extra)))

        inputs = (torch.randn(10, 6), torch.randint(0, 10, (2, 30)), torch.randn(30, 4))
        return Net(forward, a=a, b=b, head=nn.Linear(8, 2)), inputs

    return build


FAMILIES["GINE (PyG)"] = pyg("GINEConv")
FAMILIES["SAGE (PyG)"] = pyg("SAGEConv")
FAMILIES["GAT (PyG)"] = pyg("GATConv", heads=4)


class Attention(nn.Module):
    """Written out, as textbooks do."""

    def __init__(self, dim: int, heads: int, fused: bool) -> None:
        super().__init__()
        self.heads, self.head_dim, self.fused = heads, dim // heads, fused
        self.qkv, self.proj = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)

    def forward(self, x):
        b, n, _ = x.shape
        q, k, v = self.qkv(x).reshape(b, n, 3, self.heads, self.head_dim).permute(2, 0, 3, 1, 4)
        if self.fused:
            y = F.scaled_dot_product_attention(q, k, v)
        else:
            y = torch.softmax(q @ k.transpose(-2, -1) * self.head_dim**-0.5, -1) @ v
        return self.proj(y.transpose(1, 2).reshape(b, n, -1))


class SeparateAttention(nn.Module):
    """Queries, keys and values by layers of their own, and the scale of the scores written in one of several ways."""

    SCALES = ("number", "attribute", "shape", "fused", "literal", "minus one")

    def __init__(self, dim: int, heads: int, scale: str) -> None:
        super().__init__()
        self.heads, self.head_dim, self.how, self.number = heads, dim // heads, scale, (dim // heads) ** -0.5
        self.q, self.k, self.v, self.proj = (nn.Linear(dim, dim) for _ in range(4))

    def split(self, x):
        b, n, _ = x.shape
        if self.how == "literal":
            return x.view(b, n, 4, 4).transpose(1, 2)
        return x.view(b, n, self.heads, -1 if self.how == "minus one" else self.head_dim).transpose(1, 2)

    def scores(self, q, k):
        scale = {"attribute": self.head_dim**-0.5, "shape": q.shape[-1] ** -0.5}.get(self.how, self.number)
        return q @ k.transpose(-2, -1) * scale

    def forward(self, x):
        q, k, v = (self.split(layer(x)) for layer in (self.q, self.k, self.v))
        fused = self.how == "fused"
        y = F.scaled_dot_product_attention(q, k, v) if fused else torch.softmax(self.scores(q, k), -1) @ v
        return self.proj(y.transpose(1, 2).reshape(*x.shape[:2], -1))


def separate_vit(scale: str, dim: int = 16, heads: int = 4) -> Built:
    model = PlainViT(True, dim, heads)
    for block in model.blocks:
        block[1] = SeparateAttention(dim, heads, scale)  # type: ignore[index]
    return model, (torch.randn(2, 1, 8, 8),)


FAMILIES["ViT, separate q, k and v"] = lambda: separate_vit("fused")


class PlainViT(nn.Module):
    def __init__(self, fused: bool, dim: int = 16, heads: int = 4) -> None:
        super().__init__()
        self.patch = nn.Conv2d(1, dim, 4, stride=4)
        self.token = nn.Parameter(torch.randn(1, 1, dim))
        self.position = nn.Parameter(torch.randn(1, 5, dim))
        self.blocks = nn.ModuleList(
            nn.ModuleList(
                [
                    nn.LayerNorm(dim),
                    Attention(dim, heads, fused),
                    nn.LayerNorm(dim),
                    nn.Linear(dim, 24),
                    nn.Linear(24, dim),
                ]
            )
            for _ in range(2)
        )
        self.head = nn.Linear(dim, 3)

    def forward(self, x):
        h = self.patch(x).flatten(2).transpose(1, 2)
        h = torch.cat([self.token.expand(len(h), -1, -1), h], 1) + self.position
        for n1, attention, n2, up, down in self.blocks:
            h = h + attention(n1(h))
            h = h + down(F.gelu(up(n2(h))))
        return self.head(h[:, 0])


FAMILIES["ViT, matmul attention"] = lambda: (PlainViT(False), (torch.randn(2, 1, 8, 8),))
FAMILIES["ViT, fused attention"] = lambda: (PlainViT(True), (torch.randn(2, 1, 8, 8),))


@family("ViT (timm)")
def timm_vit() -> Built:
    from timm.models.vision_transformer import VisionTransformer

    return VisionTransformer(16, 4, 1, 3, embed_dim=24, depth=2, num_heads=4), (torch.randn(2, 1, 16, 16),)


@family("TransformerEncoder (torch)")
def encoder() -> Built:
    layer = nn.TransformerEncoderLayer(16, 4, 32, batch_first=True)

    def forward(m, x):
        return m.head(m.encoder(m.embed(x)).mean(1))

    return Net(forward, embed=nn.Linear(5, 16), encoder=nn.TransformerEncoder(layer, 2), head=nn.Linear(16, 2)), (
        torch.randn(2, 6, 5),
    )


@family("LSTM between linear layers")
def lstm() -> Built:
    def forward(m, x):
        h, _ = m.lstm(F.relu(m.b(F.relu(m.a(x)))))
        return m.d(F.relu(m.c(h[:, -1])))

    layers = {
        "a": nn.Linear(4, 10),
        "b": nn.Linear(10, 6),
        "lstm": nn.LSTM(6, 8, batch_first=True),
        "c": nn.Linear(8, 10),
        "d": nn.Linear(10, 1),
    }
    return Net(forward, **layers), (torch.randn(3, 5, 4),)


class Spectral(nn.Module):
    def __init__(self, width: int, modes: int) -> None:
        super().__init__()
        self.out_channels, self.modes = width, modes
        self.weight = nn.Parameter(torch.randn(width, width, modes, dtype=torch.cfloat) / width)

    def forward(self, x):
        f = torch.fft.rfft(x)
        out = torch.zeros(x.shape[0], self.out_channels, x.shape[-1] // 2 + 1, dtype=f.dtype)
        out[:, :, : self.modes] = torch.einsum("bix,iox->box", f[:, :, : self.modes], self.weight)
        return torch.fft.irfft(out, n=x.shape[-1])


@family("FNO 1D")
def fno() -> Built:
    def forward(m, x):
        h = m.lift(x).transpose(1, 2)
        for spectral, point in zip(m.spectral, m.point, strict=True):
            h = F.gelu(spectral(h) + point(h))
        return m.out(F.gelu(m.down(h.transpose(1, 2))))

    layers = {
        "lift": nn.Linear(2, 8),
        "spectral": nn.ModuleList(Spectral(8, 5) for _ in range(2)),
        "point": nn.ModuleList(nn.Conv1d(8, 8, 1) for _ in range(2)),
        "down": nn.Linear(8, 12),
        "out": nn.Linear(12, 1),
    }
    return Net(forward, **layers), (torch.randn(2, 16, 2),)


@family("shared weights, dict out, in place")
def shared() -> Built:
    def forward(m, x, y):
        h = m.a(x)
        h.relu_()
        other = m.b(h)
        other += h
        h = other
        h = torch.tanh(m.b(h)) * m.scale
        return {"one": m.c(h), "two": (m.c(torch.relu(m.a(y))),)}

    layers = {"a": nn.Linear(4, 9), "b": nn.Linear(9, 9), "c": nn.Linear(9, 2), "scale": nn.Parameter(torch.randn(9))}
    return Net(forward, **layers), (torch.randn(3, 4), torch.randn(3, 4))


for _dim in (1, 3):
    FAMILIES[f"CNN {_dim}D, GroupNorm"] = lambda dim=_dim: cnn(dim, lambda width: nn.GroupNorm(4, width))


@family("autoencoder, Linear -> view(6, 4, 4) -> convT")
def constant_autoencoder() -> Built:
    return _autoencoder(lambda h: h.view(-1, 6, 4, 4))


@family("GRU between linear layers")
def gru() -> Built:
    def forward(m, x):
        h, _ = m.gru(F.relu(m.b(F.relu(m.a(x)))))
        return m.d(F.relu(m.c(h[:, -1])))

    layers = {
        "a": nn.Linear(4, 10),
        "b": nn.Linear(10, 6),
        "gru": nn.GRU(6, 8, num_layers=2, batch_first=True),
        "c": nn.Linear(8, 10),
        "d": nn.Linear(10, 1),
    }
    return Net(forward, **layers), (torch.randn(3, 5, 4),)


@family("dict and tuple in, tuple out, unwrapped parameters")
def containers() -> Built:
    def forward(m, inputs, pair):
        left, right = pair
        h = torch.tanh(m.a(inputs["x"]) * m.scale + m.shift)
        h = torch.relu(h @ m.w + m.b(torch.cat([left, right], 1)))
        return m.c(h), {"norm": m.d(h)}

    layers = {
        "a": nn.Linear(4, 8),
        "b": nn.Linear(5, 6),
        "c": nn.Linear(6, 2),
        "d": nn.Linear(6, 1),
        "w": nn.Parameter(torch.randn(8, 6)),
        "scale": nn.Parameter(torch.randn(8)),
        "shift": nn.Parameter(torch.randn(1, 8)),
    }
    return Net(forward, **layers), ({"x": torch.randn(3, 4)}, (torch.randn(3, 2), torch.randn(3, 3)))


@family("MultiheadAttention (torch), across two inputs")
def cross_attention() -> Built:
    def forward(m, x, y):
        h = m.x(x)
        h = h + m.attention(h, m.y(y), m.z(y), need_weights=True)[0]
        return m.head(torch.relu(m.mlp(h)).mean(1))

    layers = {
        "x": nn.Linear(3, 12),
        "y": nn.Linear(5, 12),
        "z": nn.Linear(5, 12),
        "attention": nn.MultiheadAttention(12, 3, batch_first=True),
        "mlp": nn.Linear(12, 7),
        "head": nn.Linear(7, 2),
    }
    return Net(forward, **layers), (torch.randn(2, 4, 3), torch.randn(2, 6, 5))


class Spectral2d(nn.Module):
    def __init__(self, width: int, modes: int) -> None:
        super().__init__()
        self.out_channels, self.modes = width, modes
        self.weights = nn.ParameterList(
            torch.randn(width, width, modes, modes, dtype=torch.cfloat) / width for _ in range(2)
        )

    def forward(self, x):
        f, m = torch.fft.rfft2(x), self.modes
        out = torch.zeros(x.shape[0], self.out_channels, x.shape[-2], x.shape[-1] // 2 + 1, dtype=f.dtype)
        out[:, :, :m, :m] = torch.einsum("bixy,ioxy->boxy", f[:, :, :m, :m], self.weights[0])
        out[:, :, -m:, :m] = torch.einsum("bixy,ioxy->boxy", f[:, :, -m:, :m], self.weights[1])
        return torch.fft.irfft2(out, s=x.shape[-2:])


@family("FNO 2D")
def fno2d() -> Built:
    def forward(m, x):
        h = m.lift(x)
        h = F.gelu(m.spectral(h) + m.point(h))
        return m.out(F.gelu(m.down(h)))

    layers = {
        "lift": nn.Conv2d(2, 8, 1),
        "spectral": Spectral2d(8, 3),
        "point": nn.Conv2d(8, 8, 1),
        "down": nn.Conv2d(8, 12, 1),
        "out": nn.Conv2d(12, 1, 1),
    }
    return Net(forward, **layers), (torch.randn(2, 2, 8, 8),)

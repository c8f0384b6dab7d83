"""Trace, probe and cut beside torch-pruning's graph and prune, and a compact model beside the same one built anew.

``python benchmarks/compaction.py [NAME ...]`` prints ratios within one run: both take turns on the same model and
example, on one thread, and the median of the CPU seconds of a few rounds counts. Below 1 ours is the faster.
"""

from __future__ import annotations

import copy
import gc
import statistics
import sys
import time
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import lumos
from lumos.gating.hard_concrete import LOG_ALPHA_BOUND

ROUNDS = 5
CALLS = 300
TURNS = 60
Built = tuple[nn.Module, torch.Tensor]


class UNet(nn.Module):
    """The usual UNet: two convolutions a level, max pooling, transposed convolutions up, concatenated skips."""

    def __init__(self, width: int, depth: int = 4) -> None:
        super().__init__()
        widths = [width * 2**i for i in range(depth + 1)]
        self.down = nn.ModuleList(self.block(a, b) for a, b in zip([3, *widths], widths, strict=False))
        self.up = nn.ModuleList(nn.ConvTranspose2d(2 * w, w, 2, 2) for w in widths[-2::-1])
        self.merge = nn.ModuleList(self.block(2 * w, w) for w in widths[-2::-1])
        self.head = nn.Conv2d(width, 1, 1)

    @staticmethod
    def block(before: int, after: int) -> nn.Module:
        """Two convolutions, each with batch norm and ReLU."""
        layers: list[nn.Module] = []
        for channels in (before, after):
            layers += [nn.Conv2d(channels, after, 3, padding=1, bias=False), nn.BatchNorm2d(after), nn.ReLU()]
        return nn.Sequential(*layers)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Images to one channel of the same size."""
        skips = []
        for level, block in enumerate(self.down):
            x = block(nn.functional.max_pool2d(x, 2) if level else x)
            skips.append(x)
        for up, merge, skip in zip(self.up, self.merge, skips[-2::-1], strict=True):
            x = merge(torch.cat([up(x), skip], 1))
        return self.head(x)


def models() -> dict[str, Callable[[], Built]]:
    """Name and builder of each model with its example."""
    import timm
    import torchvision.models as tv

    image = torch.randn(2, 3, 64, 64)
    return {
        "ResNet18": lambda: (tv.resnet18(num_classes=10), image),
        "ResNet50": lambda: (tv.resnet50(num_classes=10), image),
        "DenseNet121": lambda: (tv.densenet121(num_classes=10), image),
        "UNet w64": lambda: (UNet(64), image),
        "ViT-tiny": lambda: (timm.create_model("vit_tiny_patch16_224", num_classes=10, img_size=64), image),
    }


def ours(model: nn.Module, example: torch.Tensor) -> nn.Module:
    """Trace, probe, close half of each group and cut."""
    gated = lumos.gate(model, example)
    with torch.no_grad():
        for group in gated.structure.groups:
            gated.gates.log_alpha[group.gates] = LOG_ALPHA_BOUND
            if group.kind == "hidden":
                gated.gates.log_alpha[group.start : group.start + group.size // 2] = -LOG_ALPHA_BOUND
    return lumos.compact(gated)


def theirs(model: nn.Module, example: torch.Tensor) -> nn.Module:
    """torch-pruning's dependency graph and one step to half of the channels."""
    import torch_pruning as tp  # pyright: ignore[reportMissingImports]

    last: list[nn.Module] = []
    last.extend([m for m in model.modules() if isinstance(m, nn.Linear | nn.Conv2d)][-1:])
    pruner = tp.pruner.MagnitudePruner(
        model, example, importance=tp.importance.MagnitudeImportance(p=2), pruning_ratio=0.5, ignored_layers=last
    )
    pruner.step()
    return model


def seconds(call: Callable[[], Any]) -> float:
    """CPU seconds of one call."""
    start = time.process_time()
    call()
    return time.process_time() - start


def alone(call: Callable[[], Any]) -> float:
    """CPU seconds of one call that does not pay for what others left to be collected."""
    gc.collect()
    return seconds(call)


def cutting(wanted: list[str]) -> None:
    """The table of trace, probe and cut."""
    print("| model | ours, s | torch-pruning, s | ratio |\n|---|---|---|---|")
    for name, build in models().items():
        if wanted and name not in wanted:
            continue
        torch.manual_seed(0)
        model, example = build()
        model.eval()
        mine, other, failure = [], [], ""
        for _ in range(ROUNDS):
            own, their = copy.deepcopy(model), copy.deepcopy(model)
            mine.append(alone(partial(ours, own, example)))
            try:
                other.append(alone(partial(theirs, their, example)))
            except Exception as error:
                failure = f"fails: {type(error).__name__}"
        a = statistics.median(mine)
        if failure or not other:
            print(f"| {name} | {a:.2f} | {failure} | - |", flush=True)
        else:
            b = statistics.median(other)
            print(f"| {name} | {a:.2f} | {b:.2f} | {a / b:.2f} |", flush=True)


def mlp(widths: list[int]) -> nn.Module:
    """A plain chain of linear layers."""
    layers: list[nn.Module] = []
    for before, after in zip(widths, widths[1:], strict=False):
        layers += [nn.Linear(before, after), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def cnn(widths: list[int]) -> nn.Module:
    """A plain chain of convolutions with batch norm, then a linear layer."""
    layers: list[nn.Module] = []
    for before, after in zip(widths[:-1], widths[1:-1], strict=False):
        layers += [nn.Conv2d(before, after, 3, padding=1), nn.BatchNorm2d(after), nn.ReLU(), nn.MaxPool2d(2)]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(widths[-2], widths[-1]))


def beside(name: str, small: Any, native: nn.Module, other: nn.Module, example: torch.Tensor, turns: int) -> None:
    """A row: a compact model's CPU time beside that of the same architecture built at its widths, and of one more
    such, which tells how far equal models are apart. All have the same weights: pooling takes longer over some values
    than over others. Each turn runs all three, in an order that changes, and the median of the turns' ratios counts."""
    trio = small, native, other
    for model in trio[1:]:
        model.load_state_dict(small.model.state_dict())
    times: list[list[float]] = [[], [], []]
    with torch.inference_mode():
        for model in trio:
            model(example)
        for turn in range(turns):
            order = [(turn + i) % 3 for i in range(3)]
            for which in order if turn % 2 else reversed(order):
                times[which].append(seconds(partial(trio[which], example)))
    a, b = (statistics.median(t) * 1e3 for t in times[:2])
    ratio, noise = (statistics.median(x / y for x, y in zip(times[i], times[1], strict=True)) for i in (0, 2))
    print(f"| {name} | {a:.3f} | {b:.3f} | {ratio:.3f} | {noise:.3f} |", flush=True)


def against_native() -> None:
    """The table of a compact model beside the same architecture built at its widths."""
    print("\n| model | compact, ms | built at those widths, ms | ratio | built again |\n|---|---|---|---|---|")
    cases: dict[str, tuple[Callable[[list[int]], nn.Module], list[int], torch.Tensor]] = {
        "MLP 20-784-300-100-5, batch 1000": (mlp, [20, 784, 300, 100, 5], torch.randn(1000, 20)),
        "CNN 3-32-64-128-10, batch 8": (cnn, [3, 32, 64, 128, 10], torch.randn(8, 3, 64, 64)),
    }
    for name, (build, widths, example) in cases.items():
        torch.manual_seed(0)
        small = ours(build(widths), example[:2]).eval()
        left = [widths[0], *(w - w // 2 for w in widths[1:-1]), widths[-1]]
        beside(name, small, build(left).eval(), build(left).eval(), example, CALLS)


def half_resnet(block: Any, layers: list[int]) -> nn.Module:
    """torchvision's ResNet with half of every width."""
    import torchvision.models as tv

    model = tv.ResNet(block, layers, num_classes=10)
    model.inplanes = 32
    model.conv1, model.bn1 = nn.Conv2d(3, 32, 7, 2, 3, bias=False), nn.BatchNorm2d(32)
    for i, count in enumerate(layers):
        setattr(model, f"layer{i + 1}", model._make_layer(block, 32 * 2**i, count, stride=min(2, 1 + i)))
    model.fc = nn.Linear(256 * block.expansion, 10)
    return model


def half_vit() -> nn.Module:
    """timm's ViT-tiny with two heads of three, and half of its MLPs' widths; its stream, which norms read, is whole."""
    import timm

    model: Any = timm.create_model("vit_tiny_patch16_224", num_classes=10, img_size=64, mlp_ratio=2.0)
    for block in model.blocks:
        attention = block.attn
        attention.num_heads, attention.attn_dim = 2, 128
        attention.qkv, attention.proj = nn.Linear(192, 3 * 128), nn.Linear(128, 192)
    return model


def large_against_native() -> None:
    """The same for the models of the first table at half of their widths."""
    import torchvision.models as tv
    from torchvision.models.resnet import BasicBlock, Bottleneck

    natives: dict[str, Callable[[], nn.Module]] = {
        "ResNet18": lambda: half_resnet(BasicBlock, [2, 2, 2, 2]),
        "ResNet50": lambda: half_resnet(Bottleneck, [3, 4, 6, 3]),
        "DenseNet121": lambda: tv.DenseNet(16, (6, 12, 24, 16), 32, num_classes=10),
        "UNet w64": lambda: UNet(32),
        "ViT-tiny": half_vit,
    }
    for name, build in natives.items():
        torch.manual_seed(0)
        model, example = models()[name]()
        beside(f"{name}, batch 2", ours(model.eval(), example).eval(), build().eval(), build().eval(), example, TURNS)


def main() -> None:
    """Print both tables."""
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    cutting(sys.argv[1:])
    if not sys.argv[1:]:
        against_native()
        large_against_native()


if __name__ == "__main__":
    main()

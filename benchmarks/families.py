"""Every family, ours beside torch-pruning's, both run here: ``python benchmarks/families.py``.

For each model: how many units LUMOS finds removable, the share of parameters left at 50, 70 and 90% closed units, the
largest relative difference between gated and compact in float64, whether a saved compact model reads back, the seconds
for trace and probe; then what torch-pruning (if installed) does with the same model when asked to prune half of its
channels: parameters left and whether the result still runs. Failures are printed as they are.
"""

from __future__ import annotations

import random
import sys
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils import _pytree as pytree

PROJECT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(PROJECT))

import lumos  # noqa: E402
from tests.unit.families import FAMILIES  # noqa: E402


def close(gated: lumos.GatedModel, share: float) -> None:
    """Close a share of the units of every group, at random, and keep at least one."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        gated.gates.log_alpha.fill_(8.0)
        for group in gated.structure.groups:
            order = torch.randperm(group.size, generator=generator)
            gated.gates.log_alpha[group.start + order[: min(group.size - 1, round(share * group.size))]] = -8.0


def ours(build: Any) -> list[str]:
    """Our columns for one model."""
    torch.manual_seed(0)
    model, inputs = build()
    start = time.perf_counter()
    try:
        gated = lumos.gate(model, inputs)
    except Exception as error:
        return ["no", str(error).splitlines()[0][:60], "", "", "", ""]
    seconds = time.perf_counter() - start
    dense = sum(p.numel() for p in model.parameters())
    left, worst = [], 0.0
    for share in (0.5, 0.7, 0.9):
        close(gated, share)
        try:
            worst = max(worst, lumos.verify(gated, inputs).max_rel_diff)
            left.append(f"{sum(p.numel() for p in lumos.compact(gated).parameters()) / dense:.0%}")
        except lumos.CompactionError as error:
            left.append(f"fails: {error}"[:40])
    return [
        "yes",
        str(gated.structure.units),
        " / ".join(left),
        f"{worst:.0e}",
        reloads(gated, build, inputs),
        f"{seconds:.2f}",
    ]


def reloads(gated: lumos.GatedModel, build: Any, inputs: tuple[Any, ...]) -> str:
    """Whether a compact model comes back from its file with equal outputs."""
    small = lumos.compact(gated.eval())
    with tempfile.TemporaryDirectory() as folder, torch.no_grad():
        small.save(Path(folder) / "compact.pt")
        back = lumos.load(Path(folder) / "compact.pt", build()[0]).eval()
        pairs = zip(pytree.tree_leaves(small(*inputs)), pytree.tree_leaves(back(*inputs)), strict=True)
        return "yes" if all(torch.equal(a, b) for a, b in pairs) else "no"


def torch_prunings(build: Any) -> list[str]:
    """What torch-pruning does with the same model: parameters left at a pruning ratio of one half."""
    try:
        import torch_pruning as tp  # pyright: ignore[reportMissingImports]
    except ImportError:
        return ["not installed"]
    torch.manual_seed(0)
    model, inputs = build()
    dense = sum(p.numel() for p in model.parameters())
    # The layers before the outputs must keep their size; torch-pruning wants them named by hand.
    kinds = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
    last: list[nn.Module] = []
    last.extend([m for m in model.modules() if isinstance(m, kinds)][-1:])
    try:
        example = inputs[0] if len(inputs) == 1 else inputs
        pruner = tp.pruner.MagnitudePruner(
            model.eval(),
            example,
            importance=tp.importance.MagnitudeImportance(p=2),
            pruning_ratio=0.5,
            ignored_layers=last,
        )
        pruner.step()
        with torch.no_grad():
            model(*inputs)
    except Exception as error:
        return [f"fails: {type(error).__name__}"]
    left = sum(p.numel() for p in model.parameters()) / dense
    return [f"{left:.0%}" if left < 1 else "nothing pruned"]


def zoo() -> dict[str, Any]:
    """Architectures of torchvision and timm at small sizes, as published, failures included."""
    import timm
    import torchvision.models as tv

    image = (torch.randn(2, 3, 64, 64),)

    def vision(name: str, **options: Any) -> Any:
        return lambda: (getattr(tv, name)(num_classes=10, **options), image)

    def of_timm(name: str, size: int = 64, **options: Any) -> Any:
        return lambda: (timm.create_model(name, num_classes=10, **options), (torch.randn(2, 3, size, size),))

    names = """resnet18 resnet50 densenet121 mobilenet_v2 mobilenet_v3_small efficientnet_b0 squeezenet1_1
    shufflenet_v2_x0_5 regnet_y_400mf mnasnet0_5 convnext_tiny"""
    found = {f"torchvision {n}": vision(n) for n in names.split()}
    found["torchvision googlenet"] = vision("googlenet", aux_logits=False, init_weights=False)
    found["torchvision ViT (4 layers)"] = lambda: (tv.VisionTransformer(64, 16, 4, 4, 64, 128, num_classes=10), image)
    found |= {
        f"timm {n}": of_timm(n) for n in ("resnet26d", "ghostnet_050", "hrnet_w18_small", "repvgg_a0", "poolformer_s12")
    }
    found["timm vit_tiny_patch16_224"] = of_timm("vit_tiny_patch16_224", 64, img_size=64)
    found["timm mixer_s32_224"] = of_timm("mixer_s32_224", 64, img_size=64)
    found["timm mobilevit_xxs"] = of_timm("mobilevit_xxs")
    return found


def main() -> None:
    """Print the table, row by row."""
    warnings.simplefilter("ignore")
    random.seed(0)
    print(
        "| model | traced | units | parameters left at 50 / 70 / 90% | difference | reloads | s | torch-pruning, half |"
    )
    print("|---|---|---|---|---|---|---|---|")
    wanted = [a for a in sys.argv[1:] if not a.startswith("-")]
    for name, build in {**FAMILIES, **zoo()}.items():
        if not wanted or any(w in name for w in wanted):
            print("| " + " | ".join([name, *ours(build), *torch_prunings(build)]) + " |", flush=True)


if __name__ == "__main__":
    main()

"""Every family, ours beside torch-pruning's, both run here: ``python benchmarks/families.py [--write] [NAME ...]``.

For each model: whether it is traced, how many units can be removed, the share of parameters left at 50, 70 and 90%,
the largest relative difference between the model with closed units and the one without them (float64), whether a
saved compact model reads back without pickle, and whether it can be exported to torch.export and ONNX. Each model
runs in a process of its own with limits on time and memory. What was run is kept in results/reference/families.json:
a row that is there is not run again, unless it is named. ``--write`` puts the table into docs/suite/families.md.
"""

from __future__ import annotations

import functools
import json
import multiprocessing
import platform
import random
import resource
import subprocess
import sys
import tempfile
import time
import warnings
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch.utils import _pytree as pytree

PROJECT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(PROJECT))

import lumos  # noqa: E402
from benchmarks import peer  # noqa: E402
from lumos.exporting import exportable  # noqa: E402
from lumos.tracing.options import StructureOptions  # noqa: E402
from tests.families import FAMILIES  # noqa: E402

RECORD = PROJECT / "results" / "reference" / "families.json"
PAGE = PROJECT / "docs" / "suite" / "families.md"
MARKS = "<!-- families.py -->", "<!-- end of families.py -->"
SECONDS, MEMORY = 150, 12 * 2**30
"""Limits of one model: seconds of wall time, and bytes of data."""
BUDGET = 240
"""Seconds after which no further model is begun; the next call goes on."""


def close(gated: lumos.GatedModel, share: float) -> None:
    """Close a share of the units of every group, at random, and keep at least one."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        gated.gates.log_alpha.fill_(8.0)
        for group in gated.structure.groups:
            order = torch.randperm(group.size, generator=generator)
            gated.gates.log_alpha[group.start + order[: min(group.size - 1, round(share * group.size))]] = -8.0


def ours(build: Any) -> dict[str, str]:
    """Our columns for one model."""
    torch.manual_seed(0)
    model, inputs = build()
    start = time.process_time()
    try:
        gated = lumos.gate(model, inputs, options=getattr(build, "options", None))
    except Exception as error:
        return {"traced": peer.cell(error)}
    found = {"traced": "yes", "seconds": f"{time.process_time() - start:.2f}", "units": str(gated.structure.units)}
    found["fixed"] = str(sum(f.size for f in gated.structure.fixed))
    dense = sum(p.numel() for p in model.parameters())
    left, worst = [], 0.0
    for share in (0.5, 0.7, 0.9):
        close(gated, share)
        try:
            worst = max(worst, lumos.verify(gated, inputs).max_rel_diff)
            left.append(f"{sum(p.numel() for p in lumos.compact(gated).parameters()) / dense:.0%}")
        except lumos.CompactionError as error:
            left.append(peer.cell(error))
    found |= {"left": " / ".join(left), "difference": f"{worst:.0e}", "reload": reloads(gated, build, inputs)}
    close(gated, 0.5)
    small = lumos.compact(gated.eval())
    for kind in ("pt2", "onnx"):
        found[kind] = exportable(small, inputs, kind)
    return found


def reloads(gated: lumos.GatedModel, build: Any, inputs: tuple[Any, ...]) -> str:
    """Whether a compact model comes back from its file with equal weights and outputs."""
    small = lumos.compact(gated.eval())
    with tempfile.TemporaryDirectory() as folder, torch.no_grad():
        small.save(Path(folder) / "compact.pt")
        back = lumos.load(Path(folder) / "compact.pt", build()[0]).eval()
        pairs = zip(pytree.tree_leaves(small(*inputs)), pytree.tree_leaves(back(*inputs)), strict=True)
        stored = back.state_dict()
        same = all(torch.equal(t, stored[n]) for n, t in small.state_dict().items())
        return "yes" if same and all(torch.allclose(a, b, rtol=1e-5, atol=1e-6) for a, b in pairs) else "no"


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
    shufflenet_v2_x0_5 regnet_y_400mf mnasnet0_5 convnext_tiny alexnet swin_t"""
    found = {f"torchvision {n}": vision(n) for n in names.split()}
    found["torchvision googlenet"] = vision("googlenet", aux_logits=False, init_weights=False)
    found["torchvision ViT (4 layers)"] = lambda: (tv.VisionTransformer(64, 16, 4, 4, 64, 128, num_classes=10), image)
    few = "resnet26d ghostnet_050 hrnet_w18_small repvgg_a0 poolformer_s12 mobilevit_xxs"
    found |= {f"timm {n}": of_timm(n) for n in few.split()}
    found["timm vit_tiny_patch16_224"] = of_timm("vit_tiny_patch16_224", 64, img_size=64)
    found["timm mixer_s32_224"] = of_timm("mixer_s32_224", 64, img_size=64)
    few = "dla34 ese_vovnet19b_dw cspresnet50 lcnet_050 edgenext_xx_small xcit_nano_12_p16_224"
    found |= {f"timm {n}": of_timm(n) for n in few.split()}
    sized = "deit_tiny_patch16_224 resmlp_12_224"
    found |= {f"timm {n}": of_timm(n, 64, img_size=64) for n in sized.split()}
    found["torchvision inception_v3"] = lambda: (
        tv.inception_v3(num_classes=10, aux_logits=False, init_weights=False),
        (torch.randn(2, 3, 96, 96),),
    )
    for name, build in dimensions().items():
        build.options = StructureOptions(query_key=True)
        found[f"{name}, query_key"] = build
    return found


def dimensions() -> dict[str, Any]:
    """Models whose queries' and keys' dimensions are removed as well."""
    import timm

    names = ["ViT, separate q, k and v", "ViT, fused attention", "TransformerEncoder (torch)"]
    found: dict[str, Any] = {name: functools.partial(FAMILIES[name]) for name in names}
    found["timm vit_tiny_patch16_224"] = lambda: (
        timm.create_model("vit_tiny_patch16_224", num_classes=10, img_size=64),
        (torch.randn(2, 3, 64, 64),),
    )
    return found


def child(pipe: Any, build: Any) -> None:
    """Run one model, ours first, so that what torch-pruning leaves behind meets nobody."""
    resource.setrlimit(resource.RLIMIT_DATA, (MEMORY, MEMORY))
    warnings.simplefilter("ignore")
    for run in (ours, peer.row):
        try:
            pipe.send(run(build))
        except Exception as error:
            pipe.send({"traced": peer.cell(error)})


def run(build: Any) -> dict[str, Any]:
    """One model's row, within the limits."""
    fork = multiprocessing.get_context("fork")
    receive, send = fork.Pipe(duplex=False)
    process = fork.Process(target=child, args=(send, build))
    process.start()
    send.close()
    end, row = time.monotonic() + SECONDS, {}
    for side in ("ours", "theirs"):
        try:
            late = not receive.poll(max(0.0, end - time.monotonic()))
            row[side] = {"traced": f"fails: over {SECONDS} s"} if late else receive.recv()
        except EOFError:
            row[side] = {"traced": "fails: ended by the system"}
    process.kill()
    process.join()
    return row


def made() -> dict[str, Any]:
    """What the rows were run with."""
    packages = ("torch", "torchvision", "timm", "torch-geometric", "torch-pruning", "onnx", "onnxruntime")
    commit = subprocess.run(["git", "rev-parse", "HEAD"], cwd=PROJECT, capture_output=True, text=True, check=True)
    return {
        "date": time.strftime("%Y-%m-%d"),
        "commit": commit.stdout.strip(),
        "machine": platform.machine(),
        "threads": torch.get_num_threads(),
        "packages": {name: version(name) for name in packages},
    }


HEADS = (
    "model | LUMOS: units | left at 50 / 70 / 90% | difference | reload | pt2, ONNX | CPU s"
    " | torch-pruning: units | left at 50 / 70 / 90% | difference | reload | its pt2, ONNX"
)


def line(name: str, row: dict[str, Any]) -> str:
    """One row of the table; a cell with an error's text is a no."""

    def cells(side: dict[str, str], keys: tuple[str, ...]) -> list[str]:
        if side["traced"] != "yes":
            return [side["traced"], *[""] * len(keys)]
        export = [side.get(kind, "") for kind in ("pt2", "onnx")]
        marks = ", ".join("yes" if e == "yes" else "no" for e in export) if all(export) else ""
        return [side["units"], *(marks if key == "export" else side.get(key, "") for key in keys)]

    common = ("left", "difference", "reload", "export")
    return " | ".join([name, *cells(row["ours"], (*common, "seconds")), *cells(row["theirs"], common)])


def table(rows: dict[str, Any]) -> str:
    """The table of all rows that were run, in the order of the models, and why an export of ours failed."""
    names = [n for n in [*FAMILIES, *zoo()] if n in rows]
    head = [f"| {HEADS} |", "|" + "---|" * 12]
    failed = [
        f"- {name}, {kind}: {rows[name]['ours'][kind].splitlines()[0][:240]}"
        for name in names
        for kind in ("pt2", "onnx")
        if rows[name]["ours"].get(kind, "yes") != "yes"
    ]
    why = ["", "Exports of ours that failed, and why:", "", *failed] if failed else []
    return "\n".join([*head, *(f"| {line(n, rows[n])} |" for n in names), *why])


def write(record: dict[str, Any]) -> None:
    """Put the table into the page, between its marks."""
    before, rest = PAGE.read_text().split(MARKS[0])
    after = rest.split(MARKS[1])[1]
    packages = ", ".join(f"{name} {number}" for name, number in record["made"]["packages"].items())
    note = f"Run on {record['made']['date']}, one thread, with {packages}."
    PAGE.write_text(f"{before}{MARKS[0]}\n{note}\n\n{table(record['rows'])}\n{MARKS[1]}{after}")


def main() -> None:
    """Run what is missing or named, print it, keep it."""
    warnings.simplefilter("ignore")
    random.seed(0)
    torch.set_num_threads(1)
    record = json.loads(RECORD.read_text()) if RECORD.exists() else {"rows": {}}
    wanted = [a for a in sys.argv[1:] if not a.startswith("-")]
    ours(next(iter(FAMILIES.values())))  # what is imported on demand is imported once, before anything is timed
    start, waiting = time.monotonic(), 0
    print(f"| {HEADS} |\n|" + "---|" * 12)
    for name, build in {**FAMILIES, **zoo()}.items():
        if any(w in name for w in wanted) if wanted else name not in record["rows"] and "--write" not in sys.argv:
            if time.monotonic() - start > BUDGET:
                waiting += 1
                continue
            record["rows"][name] = run(build)
            record["made"] = made()
            RECORD.write_text(json.dumps(record, indent=1) + "\n")
            print(f"| {line(name, record['rows'][name])} |", flush=True)
    if waiting:
        print(f"{waiting} models are left; run the same again")
    if "--write" in sys.argv:
        write(record)


if __name__ == "__main__":
    main()

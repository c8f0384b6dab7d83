"""Models of other libraries, closed at random: ``python benchmarks/outside.py [--write] [--again] [NAME ...]``.

For each model of ``benchmarks/outside_models.py``: batch statistics of real activations first; then the seconds of
gate(), the share of parameters that is removable, and the largest relative difference (float64) between the gated and
the compact model over 20 random closings of unequal shares of every group, on inputs that gate() did not see, and with
every optional group closed alone; then the gradients with gradient checkpointing beside those without. Beside it,
torch-pruning and NVIDIA's Model Optimizer (FastNAS), where they are installed. Each model runs in a process of its own
with limits on time and memory. What was run is kept in results/reference/outside.json: a row that is there is not run
again, unless it is named, or ``--again`` is given: then all that was not run on this commit is, the oldest first, so
that a run that was stopped goes on. ``--write`` puts the tables into docs/how-it-works/followed.md.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import importlib
import json
import multiprocessing
import os
import random
import resource
import signal
import statistics
import subprocess
import sys
import time
import traceback
import warnings
from collections import Counter
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from torch import nn

PROJECT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(PROJECT))

import lumos  # noqa: E402
from benchmarks import peer  # noqa: E402
from benchmarks.outside_models import OUTSIDE, Outside  # noqa: E402
from lumos.compaction.verify import difference  # noqa: E402
from lumos.errors import LumosError  # noqa: E402
from lumos.gating.gates import Gates  # noqa: E402
from lumos.measure import parameters  # noqa: E402
from lumos.tracing.containers import tensors_in  # noqa: E402
from lumos.tracing.inputs import map_inputs  # noqa: E402
from lumos.tracing.structure import Structure  # noqa: E402

RECORD = PROJECT / "results" / "reference" / "outside.json"
PAGE = PROJECT / "docs" / "how-it-works" / "followed.md"
SECONDS, WAIT, MEMORY = 90, 1200, 8 * 2**30
"""Limits of one side of one model: seconds of CPU time, seconds of wall time, and bytes of data."""
CLOSINGS, MOST_OPTIONAL, MOST_SECONDS = 20, 60, 25
"""Random closings; optional groups closed alone at most; CPU seconds after which no further closing is tried."""
PACKAGES = [
    *("torch", "torchvision", "timm", "transformers", "torch-geometric", "neuraloperator", "monai", "diffusers"),
    *("zuko", "nflows", "vit-pytorch", "mace-torch", "schnetpack", "chgnet", "torch-pruning", "nvidia-modelopt"),
]
IMPORTED = [
    *("timm", "torchvision.models", "torch_geometric.nn", "transformers", "monai.networks.nets", "neuralop.models"),
    *("diffusers", "zuko", "torch_pruning", "modelopt.torch.nas", "modelopt.torch.prune", "onnx"),
]
"""What is imported once, before any process is forked."""


# ---- one model -----------------------------------------------------------------------------------------------------


def build(entry: Outside) -> tuple[nn.Module, tuple[Any, ...]]:
    """A model with batch statistics of activations, as a trained one has, and its inputs."""
    torch.manual_seed(0)
    model, inputs = entry.build()
    if any("running_mean" in name for name, _ in model.named_buffers()):
        for module in model.modules():  # those alone: in train mode, a detector asks for what it is to find
            module.training = hasattr(module, "running_mean")
        with torch.no_grad():
            for _ in range(10):
                model(*other_inputs(inputs))
    return model.eval(), inputs


def other_inputs(inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    """Inputs near the given ones: numbers are changed by a tenth of their size."""

    def change(_path: Any, x: torch.Tensor) -> torch.Tensor:
        if not x.is_floating_point() or bool((x == x.round()).all()):  # masks, kinds, and lattices stay
            return x.clone()
        return x.detach() + 0.1 * x.detach().std() * torch.randn_like(x)

    return map_inputs(inputs, change)


def set_gates(gates: Gates, structure: Structure, closed: torch.Tensor) -> None:
    """Close units; the other gates are open by unequal amounts."""
    with torch.no_grad():
        opened = torch.rand(structure.units) * 4 - 0.5
        gates.log_alpha.copy_(torch.where(closed, torch.tensor(-8.0), opened))


def random_closing(structure: Structure) -> torch.Tensor:
    """An own share of every group's units, at least one of which stays."""
    closed = torch.zeros(structure.units, dtype=torch.bool)
    for group in structure.groups:
        count = min(group.size - 1, round(random.random() * group.size))
        closed[group.start + torch.randperm(group.size)[:count]] = True
    return closed


def all_but_one(structure: Structure) -> torch.Tensor:
    """Of every group, all units but one."""
    closed = torch.ones(structure.units, dtype=torch.bool)
    closed[[group.start for group in structure.groups]] = False
    return closed


def ours(entry: Outside) -> dict[str, Any]:
    """Our columns for one model."""
    try:
        model, inputs = build(entry)
    except ModuleNotFoundError as error:
        return {"status": "not installed", "why": str(error)}
    except Exception as error:
        return {"status": "not built", "why": one_line(error)}
    clock = time.process_time()
    try:
        gated = lumos.gate(model, inputs)
    except LumosError as error:
        return {"status": "refused", "why": one_line(error), "seconds": time.process_time() - clock}
    except Exception as error:
        return {"status": "defect", "why": one_line(error), "trace": traceback.format_exc()[-1500:]}
    structure, dense = gated.structure, parameters(model)
    row: dict[str, Any] = {
        "status": "exact", "seconds": time.process_time() - clock, "parameters": dense, "units": structure.units,
        "groups": len(structure.groups), "optional": sum(g.optional for g in structure.groups),
        "fixed": [[f.name, f.size, f.reason] for f in structure.fixed], "unreached": list(structure.unreached),
    }  # fmt: skip
    problems: list[str] = []
    gated.eval()
    set_gates(gated.gates, structure, all_but_one(structure))
    try:
        row["left_at_one"] = parameters(lumos.compact(gated)) / dense
        half = torch.zeros(structure.units, dtype=torch.bool)
        for group in structure.groups:
            half[group.start + torch.randperm(group.size)[: min(group.size - 1, round(group.size / 2))]] = True
        set_gates(gated.gates, structure, half)
        row["left_at_half"] = parameters(lumos.compact(gated)) / dense
    except Exception as error:
        problems.append(f"cutting: {one_line(error)}")
    row |= closed_at_random(gated, inputs, problems)
    if entry.checkpoint:
        row["checkpoint"] = checkpointing(entry, problems)
    if problems:
        row |= {"status": "defect", "why": problems[0], "problems": problems[:8]}
    return row


def closed_at_random(gated: lumos.GatedModel, inputs: tuple[Any, ...], problems: list[str]) -> dict[str, Any]:
    """Random closings and optional groups alone: the largest difference, and how often the output shows its input."""
    structure, worst, shows, begun = gated.structure, 0.0, 0, time.process_time()
    trials = [("random closing", random_closing(structure)) for _ in range(CLOSINGS)]
    for group in [g for g in structure.groups if g.optional][:MOST_OPTIONAL]:
        closed = torch.zeros(structure.units, dtype=torch.bool)
        closed[group.gates] = True
        trials.append((f"{group.name} closed whole", closed))
    done = 0
    for number, (name, closed) in enumerate(trials):
        if time.process_time() - begun > MOST_SECONDS:
            break
        set_gates(gated.gates, structure, closed)
        new = inputs if number % 2 else other_inputs(inputs)
        try:
            worst = max(worst, lumos.verify(gated, new, tolerance=1e-6).max_rel_diff)
        except Exception as error:
            # A model may refuse any inputs but the given ones; what it does with these is what counts.
            text = one_line(error)
            problems.append(f"{name}: {text}" + ("" if isinstance(error, LumosError) else " (raw)"))
        done += 1
        if name == "random closing":
            shows += depends(gated, inputs)
    return {"difference": worst, "trials": done, "of": len(trials), "shows": shows}


def depends(gated: lumos.GatedModel, inputs: tuple[Any, ...]) -> bool:
    """Whether another input gives another output: else equality says little."""
    try:
        with torch.set_grad_enabled(gated.structure.gradients):
            a, b = (gated(*map_inputs(x, lambda _p, t: t.clone())) for x in (inputs, other_inputs(inputs)))
            return difference(a, b)[1] > 0 or difference(a, gated(*random_tokens(inputs)))[1] > 0
    except Exception:
        return False


def random_tokens(inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    """Inputs with whole numbers in another order."""
    return map_inputs(inputs, lambda _p, x: x.flip(-1) if not x.is_floating_point() and x.ndim > 1 else x.clone())


def checkpointing(entry: Outside, problems: list[str]) -> str:
    """The largest relative difference of gradients with gradient checkpointing and without."""
    found = []
    for on in (False, True):
        model, inputs = build(entry)
        if on:
            try:
                getattr(model, entry.checkpoint)()
            except Exception as error:
                return f"the model has none: {one_line(error, 60)}"
        try:
            gated = lumos.gate(model, inputs).train()
            set_gates(gated.gates, gated.structure, torch.zeros(gated.structure.units, dtype=torch.bool))
            for dropout in gated.modules():
                if isinstance(dropout, nn.modules.dropout._DropoutNd):
                    dropout.p = 0.0
            torch.manual_seed(1)
            outputs = [t for t in tensors(gated(*inputs)) if t.requires_grad]
            torch.stack([(t - 1).square().mean() for t in outputs]).sum().backward()
        except Exception as error:
            problems.append(f"checkpointing {'on' if on else 'off'}: {one_line(error)}")
            return "fails"
        found.append({n: p.grad for n, p in gated.named_parameters() if p.grad is not None})
    plain, again = found
    if plain.keys() != again.keys():
        problems.append(f"checkpointing: gradients of {sorted(plain.keys() ^ again.keys())[:3]} come in one way only")
        return "fails"
    largest = max(float(g.abs().max()) for g in plain.values())
    gap = max(
        float((plain[n] - again[n]).abs().max()) / max(float(plain[n].abs().max()), 1e-3 * largest) for n in plain
    )
    if not gap < 1e-3:  # single precision
        problems.append(f"checkpointing: gradients differ by {gap:.0e}")
    return f"{gap:.0e}"


def tensors(outputs: Any) -> list[torch.Tensor]:
    """Floating-point tensors of what a model returned."""
    return [t for t in tensors_in(outputs) if t.is_floating_point()]


def torch_pruning(entry: Outside) -> dict[str, Any]:
    """What torch-pruning leaves when it is asked for half of every layer, and how far that is from the dense model."""
    try:
        torch.set_default_dtype(torch.float64)
        _, _, left, gap = peer.prune(lambda: build_single(entry), 0.5)
    except ModuleNotFoundError as error:
        return {"status": "not installed", "why": str(error)}
    except Exception as error:
        return {"status": "fails", "why": one_line(error)}
    finally:
        torch.set_default_dtype(torch.float32)
    return {"status": "cut", "left_at_half": left, "difference": gap}


def build_single(entry: Outside) -> tuple[nn.Module, tuple[Any, ...]]:
    """The model as it is built by default, while torch-pruning works in double precision."""
    torch.set_default_dtype(torch.float32)
    try:
        return build(entry)
    finally:
        torch.set_default_dtype(torch.float64)


def model_optimizer(entry: Outside) -> dict[str, Any]:
    """The smallest model in the search space that Model Optimizer's FastNAS finds."""
    try:
        nas, _ = (importlib.import_module(f"modelopt.torch.{part}") for part in ("nas", "prune"))
    except Exception as error:
        return {"status": "not installed", "why": one_line(error)}
    try:
        model, inputs = build(entry)
        dense = parameters(model)
        space = nas.convert(model, mode="fastnas")
        nas.sample(space, sample_func=min)
        small = nas.export(space)
        small.eval()(*inputs)
    except Exception as error:
        return {"status": "fails", "why": one_line(error)}
    return {"status": "cut", "left_at_least": parameters(small) / dense}


def one_line(error: Exception, length: int = 300) -> str:
    """An error in a table."""
    text = " ".join(f"{type(error).__name__}: {error}".split())
    return text.replace(str(PROJECT), ".")[:length]


SIDES = {"lumos": ours, "torch_pruning": torch_pruning, "model_optimizer": model_optimizer}


def child(pipe: Any, entry: Outside, sides: list[str]) -> None:
    """Run one model, ours first, so that what the others leave behind meets nobody."""
    resource.setrlimit(resource.RLIMIT_DATA, (MEMORY, MEMORY))
    warnings.simplefilter("ignore")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    for side in sides:
        random.seed(0)
        used, most = int(time.process_time()) + 1, resource.getrlimit(resource.RLIMIT_CPU)[1]
        resource.setrlimit(resource.RLIMIT_CPU, (used + SECONDS, most))
        try:
            pipe.send(SIDES[side](entry))
        except Exception as error:
            pipe.send({"status": "defect", "why": one_line(error), "trace": traceback.format_exc()[-1500:]})
        gc.collect()


def run(entry: Outside, sides: list[str]) -> dict[str, Any]:
    """One model's row, within the limits."""
    fork = multiprocessing.get_context("fork")
    receive, send = fork.Pipe(duplex=False)
    process = fork.Process(target=child, args=(send, entry, sides))
    process.start()
    send.close()
    row: dict[str, Any] = {}
    for side in sides:
        end = time.monotonic() + WAIT
        try:
            late = not receive.poll(max(0.0, end - time.monotonic()))
            row[side] = {"status": "late", "why": f"over {WAIT} s of wall time"} if late else receive.recv()
        except EOFError:
            process.join()
            late = process.exitcode == -signal.SIGXCPU
            row[side] = {"status": "late", "why": f"over {SECONDS} s"} if late else {
                "status": "ended", "why": "ended by the system"}  # fmt: skip
        if row[side]["status"] in ("late", "ended"):
            break
    process.kill()
    process.join()
    return row


# ---- the record ----------------------------------------------------------------------------------------------------


def made() -> dict[str, Any]:
    """What a side of a row was run with."""
    commit = subprocess.run(["git", "rev-parse", "HEAD"], cwd=PROJECT, capture_output=True, text=True, check=True)
    return {"date": time.strftime("%Y-%m-%d %H:%M"), "commit": commit.stdout.strip()[:12]}


def made_of(row: dict[str, Any], side: str = "lumos") -> dict[str, Any]:
    """What a side was run with; nothing where it was not run."""
    return row.get(side, {}).get("made", {})


def packages() -> dict[str, str]:
    """Versions of the packages that are installed."""
    found = {}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


# ---- the page ------------------------------------------------------------------------------------------------------

MARKS = "<!-- outside.py -->", "<!-- end of outside.py -->"
WHY = {
    "it is an output of the model": "What the model returns keeps its shape.",
    "mixed by": "One value is made of all channels: a norm over them, a sum, a Fourier transform. A channel less would "
    "change the others. For norms, `StructureOptions(streams=True)` removes them after all.",
    "meets a value of fixed size": "The channels are added to or multiplied with something that keeps its size: an "
    "input, a constant, another layer's held channels.",
    "its values are read": "The model's own code looks at the values: as indices, as flags, as Python numbers.",
    "there is no rule for": "An operator that LUMOS does not know. What it takes stays.",
    "the rule does not follow": "An operator in a form that LUMOS does not know.",
    "the probe could not cut it": "The cut was tried before the training and did not compute the same: often a size "
    "that the model's code writes as a number, or computes in a way of its own.",
    "holds it in no single dimension": "One parameter holds the unit at places that are not a row or a column.",
    "an example": "A part of the model that the example does not reach may read it.",
    "other": "Other reasons; `lumos.explain(model, inputs)` gives each with its line of code.",
}
"""Why units are held: how a reason begins or what it has, and what it means."""


def reason_of(text: str) -> str:
    """The kind of a reason."""
    return next((key for key in WHY if key in text), "other")


def share(value: Any) -> str:
    """A share as a percentage."""
    return "" if value is None else f"{value:.0%}"


def outcome(side: dict[str, Any]) -> str:
    """What came of a model: a difference, or why there is none."""
    words = {"refused": "nothing removable", "defect": "**fails**", "late": "over the time", "ended": "ended",
             "not installed": "not installed", "not built": "not built"}  # fmt: skip
    if side["status"] == "refused" and "does not run" in side["why"]:
        return "does not run here"
    return words.get(side["status"]) or f"{side['difference']:.0e}"


def theirs(row: dict[str, Any]) -> list[str]:
    """The columns of torch-pruning and Model Optimizer."""
    cells = []
    for side, key in (("torch_pruning", "left_at_half"), ("model_optimizer", "left_at_least")):
        found = row.get(side) or {"status": "not run"}
        cells.append(share(found[key]) if found["status"] == "cut" else found["status"])
        if side == "torch_pruning":
            gap = found.get("difference")
            cells.append("" if found["status"] != "cut" else "-" if gap is None else f"{gap:.0e}")
    return cells


def model_table(rows: dict[str, Any]) -> list[str]:
    """A row for each model."""
    heads = ["model", "parameters", "units", "removable", "left at half", "difference", "closings", "checkpointing",
             "gate(), s", "torch-pruning: left at half", "its difference", "FastNAS: left at least"]  # fmt: skip
    lines = [f"| {' | '.join(heads)} |", "|" + "---|" * len(heads)]
    for name in [n for n in OUTSIDE if n in rows]:
        mine = rows[name]["lumos"]
        least = mine.get("left_at_one")
        cells = [name, f"{mine['parameters']:,}" if "parameters" in mine else "", str(mine.get("units", "")),
                 share(None if least is None else 1 - least), share(mine.get("left_at_half")), outcome(mine),
                 f"{mine['trials']} of {mine['of']}" if "trials" in mine else "",
                 mine.get("checkpoint", "") if "fails" not in mine.get("checkpoint", "") else "fails",
                 f"{mine['seconds']:.1f}" if "seconds" in mine else "", *theirs(rows[name])]  # fmt: skip
        if cells[7].startswith("the model has none"):
            cells[7] = "none"
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def kind_table(rows: dict[str, Any]) -> list[str]:
    """A row for each kind of model: how many are exact, what goes, and why the rest stays."""
    heads = ["kind", "models", "exact", "removable: least, median, most", "why units are held, most frequent first"]
    lines = [f"| {' | '.join(heads)} |", "|" + "---|" * len(heads)]
    for kind in sorted({OUTSIDE[n].kind for n in rows if n in OUTSIDE}):
        mine = [rows[n]["lumos"] for n in OUTSIDE if n in rows and OUTSIDE[n].kind == kind]
        mine = [m for m in mine if m["status"] not in ("not installed", "not built")]
        if not mine:
            continue
        gone = sorted(1 - m["left_at_one"] for m in mine if "left_at_one" in m)
        held = Counter(reason_of(f[2]) for m in mine for f in m.get("fixed", ()))
        held.pop("it is an output of the model", None)
        shares = " / ".join(map(share, (gone[0], statistics.median(gone), gone[-1]))) if gone else ""
        exact = sum(m["status"] == "exact" for m in mine)
        lines.append(f"| {kind} | {len(mine)} | {exact} | {shares} | {', '.join(k for k, _ in held.most_common(3))} |")
    return lines


def page(rows: dict[str, Any], versions: dict[str, str]) -> str:
    """All that the record says."""
    known = {n: r for n, r in rows.items() if n in OUTSIDE}
    mine = {n: r["lumos"] for n, r in known.items() if r["lumos"]["status"] not in ("not installed", "not built")}
    exact = {n: m for n, m in mine.items() if m["status"] == "exact"}
    worst = max((m["difference"] for m in exact.values()), default=0.0)
    trials = sum(m.get("trials", 0) for m in mine.values())
    seconds = sorted(m["seconds"] for m in mine.values() if "seconds" in m)
    checked = [m for m in mine.values() if m.get("checkpoint", "")[:1].isdigit()]
    held = Counter(reason_of(f[2]) for m in mine.values() for f in m.get("fixed", ()))
    runs = [made_of(row) for row in known.values()]
    dates, commits = sorted({r["date"][:10] for r in runs}), sorted({r["commit"] for r in runs})
    lines = [
        f"{len(mine)} models ran ({' to '.join(sorted({dates[0], dates[-1]}))}, "
        f"{f'commit {commits[0]}' if len(commits) == 1 else f'{len(commits)} commits'}, one thread, "
        f"{', '.join(f'{n} {v}' for n, v in versions.items())}).",
        "",
        f"- {len(exact)} of them are exact, to {worst:.0e} at worst, in {trials:,} closings.",
        f"- {len(checked)} ran with gradient checkpointing, too.",
        f"- gate() takes {statistics.median(seconds):.2f} s (median), {seconds[-1]:.0f} s at most (CPU time, on a "
        "machine with other work).",
        "",
        "## By kind of model",
        "",
        *kind_table(known),
        "",
        "## Why units are held",
        "",
        "| reason | what it means | how often |",
        "|---|---|---|",
        *(f"| {key} | {WHY[key]} | {count} |" for key, count in held.most_common()),
        "",
        "## Every model",
        "",
        *model_table(known),
    ]
    bad = {n: m for n, m in mine.items() if m["status"] != "exact"}
    if bad:
        lines += ["", "## What is not followed, and what fails", ""]
        lines += [f"- **{n}**: {m['why'].replace('|', '/').replace('<', '(')[:260]}" for n, m in bad.items()]
    return "\n".join(lines)


def write(record: dict[str, Any]) -> None:
    """Put the tables into the page, between its marks."""
    before, rest = PAGE.read_text().split(MARKS[0])
    after = rest.split(MARKS[1])[1]
    PAGE.write_text(f"{before}{MARKS[0]}\n{page(record['rows'], record['packages'])}\n{MARKS[1]}{after}")


def main() -> None:
    """Run what is missing, named, or oldest; print it, keep it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", help="parts of names of models")
    parser.add_argument("--write", action="store_true", help="write the page from the record, and run nothing")
    parser.add_argument("--again", action="store_true", help="run all again, the oldest rows first")
    parser.add_argument("--only", default="", help="sides, by commas: lumos,torch_pruning,model_optimizer")
    parser.add_argument("--seconds", type=float, default=1e9, help="begin no further model after this many")
    asked = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    record = json.loads(RECORD.read_text()) if RECORD.exists() else {"rows": {}}
    rows = record["rows"]
    if asked.write:
        write(record)
        return
    sides = asked.only.split(",") if asked.only else list(SIDES)
    names = [n for n in OUTSIDE if not asked.names or any(w in n for w in asked.names)]
    if asked.again:
        now = made()["commit"]
        names = [n for n in names if any(made_of(rows.get(n, {}), s).get("commit") != now for s in sides)]
        names.sort(key=lambda n: min(made_of(rows.get(n, {}), s).get("date", "") for s in sides))
    elif not asked.names:
        names = [n for n in names if any(s not in rows.get(n, {}) for s in sides)]
    for module in IMPORTED:
        with contextlib.suppress(Exception):
            importlib.import_module(module)
    lumos.verify(
        lumos.gate(nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2)), torch.randn(4, 3)), torch.randn(4, 3)
    )
    begun = time.monotonic()
    for name in names:
        if time.monotonic() - begun > asked.seconds:
            break
        with_this = made()
        found = {side: facts | {"made": with_this} for side, facts in run(OUTSIDE[name], sides).items()}
        record["packages"] = packages()
        rows[name] = row = {**rows.get(name, {}), **found}
        RECORD.write_text(json.dumps(record, indent=1) + "\n")
        mine = row["lumos"]
        print(f"{name}: {mine['status']} {mine.get('difference', '')} left {mine.get('left_at_one', '')} "
              f"{mine.get('seconds', '')} {mine.get('why', '')} | {row.get('torch_pruning')} | "
              f"{row.get('model_optimizer')}", flush=True)  # fmt: skip


if __name__ == "__main__":
    main()

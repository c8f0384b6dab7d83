"""Make README.md's table and figure from the records under results/reference/.

``python scripts/readme.py`` rewrites what stands between the markers in README.md and draws docs/figures/cfd.png;
with ``--check`` it only says whether the README agrees with the records.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

PROJECT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(PROJECT))

from lumos import record, report  # noqa: E402

README, RESULTS = PROJECT / "README.md", PROJECT / "results" / "reference"
FIGURE = PROJECT / "docs" / "figures" / "cfd.png"


def runs(workload: str) -> list[dict[str, Any]]:
    """The reference records of a workload, by seed."""
    found = [r for r in record.all_records(RESULTS) if r["workload"] == workload and r["status"] == "finished"]
    return sorted(found, key=lambda r: r["seed"])


def cfd_block() -> str:
    """What the main job prints, as text."""
    entry = runs("cfd")[0]
    rows = [("", "dense", "compact", "change"), *report.run_rows(entry)]
    widths = [max(len(row[i]) for row in rows) for i in range(4)]
    lines = ["  ".join(c.ljust(w) if i == 0 else c.rjust(w) for i, (c, w) in enumerate(zip(row, widths, strict=True)))
             for row in rows]  # fmt: skip
    tail = [line for line in report.run_lines(entry, Path()) if not line.startswith("record:")]
    return "\n".join(["```", *(line.rstrip() for line in lines), *tail, "```"])


def synthetic_block() -> str:
    """The runs whose right answer is known: how many of the true features were kept, and how many others."""
    lines = [
        "| seed | true features kept | others kept | R2 dense | R2 compact | parameters |",
        "|---|---|---|---|---|---|",
    ]
    for entry in runs("synthetic"):
        true, kept = set(entry["true_features"]), set(entry["gates"]["features_kept"])
        others = len(entry["features"]) - len(true)
        less = 100 * (1 - entry["compact"]["params"] / entry["dense"]["params"])
        lines.append(
            f"| {entry['seed']} | {len(kept & true)} of {len(true)} | {len(kept - true)} of {others} "
            f"| {entry['dense']['score']:.4f} | {entry['compact']['score']:.4f} | -{less:.1f}% |"
        )
    return "\n".join(lines)


def machine_block() -> str:
    """Where the numbers come from."""
    made = runs("cfd")[0]["provenance"]
    versions = made["versions"]
    return (
        f"Measured on {made['device']}, Python {versions['python']}, torch {versions['torch']}, "
        f"{made['started_utc'][:10]}; the records are under `results/reference/`."
    )


def filled(text: str) -> str:
    """The README with every block made anew."""
    for name, make in (("cfd", cfd_block), ("synthetic", synthetic_block), ("machine", machine_block)):
        pattern = rf"(<!-- {name} -->\n).*?(\n<!-- /{name} -->)"
        text = re.sub(pattern, lambda m, make=make: m[1] + make() + m[2], text, flags=re.S)
    return text


def draw() -> None:
    """The course of the main job and what it leaves of the network."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    import pandas as pd

    entry = runs("cfd")[0]
    curve = pd.read_csv(RESULTS / "runs" / "cfd" / entry["run_id"] / "curve.csv")
    plt.rcParams.update(
        {"font.size": 9, "axes.spines.top": False, "axes.spines.right": False, "font.family": "sans-serif"}
    )
    figure, (left, right) = plt.subplots(1, 2, figsize=(8.2, 3.1), width_ratios=[1.5, 1], layout="constrained")
    dense, lumos = (pd.DataFrame(curve[curve.phase == phase]) for phase in ("dense", "gated"))
    left.semilogy(dense.step, 1 - dense.valid, color="#555555", lw=1.5, marker="o", ms=3)
    left.semilogy(lumos.step, 1 - lumos.valid, color="#0072B2", lw=1.8, marker="o", ms=3)
    cut = lumos[lumos.open_gates.isna()].step.min() - (lumos.step.iloc[1] - lumos.step.iloc[0])
    left.axvline(cut, color="#D55E00", lw=1, ls="--")
    left.text(cut, 0.98, " closed units cut out", color="#D55E00", va="top", transform=left.get_xaxis_transform())
    for y, name, color in ((0.62, "LUMOS", "#0072B2"), (0.54, "dense", "#555555")):
        label = f"{name}, {_params(entry, name):,} parameters"
        left.text(0.98, y, label, color=color, ha="right", transform=left.transAxes)
    left.set(xlabel="training step", ylabel="1 − R² on validation flows", xlim=(0, None), ylim=(1e-3, None))
    groups = entry["gates"]["groups"]
    names = [{"input": "input features"}.get(n, f"layer {i}") for i, n in enumerate(groups)]
    total = [g["total"] for g in groups.values()]
    kept = [g["open"] for g in groups.values()]
    right.barh(names, total, color="#DDDDDD")
    right.barh(names, kept, color="#0072B2")
    for y, (k, t) in enumerate(zip(kept, total, strict=True)):
        right.text(t + 12, y, f"{k} of {t}", va="center")
    right.set(xlim=(0, max(total) * 1.3), xlabel="units kept")
    right.invert_yaxis()
    FIGURE.parent.mkdir(exist_ok=True)
    figure.savefig(FIGURE, dpi=160)


def _params(entry: dict[str, Any], name: str) -> int:
    return entry["dense" if name == "dense" else "compact"]["params"]


def main() -> int:
    """Write or check."""
    text = README.read_text()
    if "--check" in sys.argv[1:]:
        if filled(text) != text:
            print("README.md is not what the records say; run `python scripts/readme.py`")
        return int(filled(text) != text)
    README.write_text(filled(text))
    draw()
    print(f"wrote {README.name} and {FIGURE.relative_to(PROJECT)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

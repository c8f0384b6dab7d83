"""Draw docs/figures/packages.svg: the packages of lumos, in the order of the import contract, and what imports what.

``python scripts/draw_packages.py [FILE]``. Boxes stand on the diagonal, the highest layer first. A line leaves a
package to the right and comes down on what it imports; the number at its corner counts the imports. All lines are above
the diagonal, since no package imports one that stands before it.
"""

from __future__ import annotations

import ast
import sys
import textwrap
import tomllib
from pathlib import Path

import grimp
import matplotlib as mpl

mpl.use("svg")
import matplotlib.pyplot as plt
from matplotlib.patches import FancyBboxPatch

PROJECT = Path(__file__).resolve().parent.parent
FILE = PROJECT / "docs" / "figures" / "packages.svg"
ENGINE, SUITE, INK = "#0b6e75", "#a3541d", "#20262e"
BASE = "errors, files, shapes"
"""The small modules under all packages, drawn as one."""
OF_SUITE = ("__main__", "workloads", "suite")
WIDTH, HEIGHT, STEP_X, STEP_Y = 1.76, 0.82, 1.0, 1.0


def layers() -> list[str]:
    """The packages from the highest layer to the lowest, as the first import contract has them."""
    tools = tomllib.loads((PROJECT / "pyproject.toml").read_text())["tool"]["importlinter"]
    found = [name for layer in tools["contracts"][0]["layers"][:-1] for name in layer.split(" | ")]
    return [*found, BASE]


def imports(graph: grimp.ImportGraph, names: list[str]) -> dict[tuple[str, str], int]:
    """How many imports lead from one package to another."""
    found: dict[tuple[str, str], int] = {}
    for module in graph.modules:
        for target in graph.find_modules_directly_imported_by(module):
            edge = (package(module, names), package(target, names))
            if edge[0] != edge[1] and None not in edge:
                found[edge] = found.get(edge, 0) + 1  # type: ignore[index]
    return found  # type: ignore[return-value]


def package(module: str, names: list[str]) -> str | None:
    """The box that a module belongs to; None for lumos/__init__.py, which only says where names are."""
    parts = module.split(".")
    name = parts[1] if len(parts) > 1 else None
    return BASE if name in BASE.split(", ") else name if name in names else None


def subject(name: str) -> str:
    """The first sentence of a package's docstring."""
    path = PROJECT / "lumos" / name
    path = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    text = (ast.get_docstring(ast.parse(path.read_text())) or "") if path.exists() else "small modules under all"
    return text.split("\n\n")[0].replace("\n", " ").replace("`", "").rstrip(".")


def draw(file: Path) -> None:
    """Write the drawing."""
    names = layers()
    edges = imports(grimp.build_graph("lumos", cache_dir=None), names)
    at = {name: (i * STEP_X, -i * STEP_Y) for i, name in enumerate(names)}
    mpl.rcParams.update({"svg.hashsalt": "lumos", "svg.fonttype": "none", "font.family": "sans-serif"})
    figure, axes = plt.subplots(figsize=(13, 9.6))
    for (one, other), count in sorted(edges.items()):
        (x, y), (to_x, to_y) = at[one], at[other]
        color = SUITE if one in OF_SUITE else ENGINE
        axes.annotate(
            "", (to_x, to_y + HEIGHT / 2), (to_x, y),
            arrowprops={"arrowstyle": "-|>", "color": color, "lw": 1.1, "shrinkA": 0, "shrinkB": 0, "alpha": 0.75},
        )  # fmt: skip
        axes.plot([x + WIDTH / 2, to_x], [y, y], color=color, lw=1.1, alpha=0.75, solid_capstyle="butt")
        axes.text(to_x, y, str(count), size=8, color="white", ha="center", va="center", zorder=5,
                  bbox={"boxstyle": "circle,pad=0.28", "fc": color, "ec": "white", "lw": 1})  # fmt: skip
    for name, (x, y) in at.items():
        color = SUITE if name in OF_SUITE else ENGINE
        style = {"boxstyle": "round,pad=0,rounding_size=0.06", "fc": "white", "ec": color, "lw": 1.6, "zorder": 6}
        axes.add_patch(FancyBboxPatch((x - WIDTH / 2, y - HEIGHT / 2), WIDTH, HEIGHT, **style))
        lines = textwrap.wrap(subject(name), 29, max_lines=3, placeholder="…")
        axes.text(
            x,
            y + 0.26,
            name,
            size=8 if name == BASE else 10,
            weight="bold",
            color=color,
            ha="center",
            va="center",
            zorder=7,
        )
        axes.text(
            x, y - 0.11, "\n".join(lines), size=6.3, color=INK, ha="center", va="center", zorder=7, linespacing=1.25
        )
    for line, (text, color) in enumerate((("the suite", SUITE), ("the engine, which stands alone", ENGINE))):
        axes.text(-WIDTH / 2, at[BASE][1] + 0.3 * (1 - line), text, size=11, color=color, weight="bold")
    axes.axis("off")
    axes.margins(0.01)
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file, bbox_inches="tight", facecolor="white", metadata={"Date": None})


if __name__ == "__main__":
    draw(Path(sys.argv[1]) if len(sys.argv) > 1 else FILE)

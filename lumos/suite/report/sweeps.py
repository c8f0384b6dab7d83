"""Sweeps that the records hold: runs that differ in one setting of LUMOS, and tables of them."""

from __future__ import annotations

from dataclasses import dataclass

from lumos.suite.report import quantities as q
from lumos.suite.report.paper_tables import Evaluation
from lumos.suite.report.results import SeedGroup, configuration, flat_config
from lumos.suite.report.table import Table, mean, number, word

TOGETHER = (("lumos.t_l", "lumos.t_u"),)
"""Keys that are swept as one."""


@dataclass(frozen=True)
class Sweep:
    """Groups of one workload that differ in ``keys`` (and by seed) only, in the order of their values."""

    workload: str
    keys: tuple[str, ...]
    groups: tuple[tuple[tuple[float, ...], SeedGroup], ...]

    @property
    def name(self) -> str:
        """A file name for the sweeps over these keys."""
        return "sweep_" + self.label.replace(", ", "_").replace(".", "_")

    @property
    def label(self) -> str:
        """The keys' last words: ``lambda``, ``t_l, t_u``."""
        return ", ".join(key.removeprefix("lumos.") for key in self.keys)

    def lines(self) -> dict[str, list[tuple[tuple[float, ...], SeedGroup]]]:
        """Return what a figure joins over the first key; of a grid a line for each value of the second, by its name."""
        if len(self.keys) == 1 or len({v[1] for v, _ in self.groups}) == len(self.groups):
            return {"": list(self.groups)}
        name = self.label.split(", ")[1]
        return {
            f"{name} = {second:g}": [pair for pair in self.groups if pair[0][1] == second]
            for second in sorted({v[1] for v, _ in self.groups})
        }


def find_sweeps(evaluation: Evaluation) -> list[Sweep]:
    """Find every sweep that the records hold: a key of ``lumos.*`` takes two values or more, and all else is equal."""
    out = []
    for workload in evaluation.workloads:
        groups = evaluation.results.of(workload, "lumos")
        keys = sorted({k for g in groups for k in flat_config(g.first.get("config") or {}) if k.startswith("lumos.")})
        joint = {k for pair in TOGETHER for k in pair}
        for chosen in [*((k,) for k in keys if k not in joint), *TOGETHER]:
            families: dict[str, list[tuple[tuple[float, ...], SeedGroup]]] = {}
            for group in groups:
                values = tuple(flat_config(group.first.get("config") or {}).get(k) for k in chosen)
                if all(isinstance(v, float | int) and not isinstance(v, bool) for v in values):
                    families.setdefault(configuration(group.first, *chosen), []).append((values, group))  # type: ignore[arg-type]
            for family in families.values():
                if len({values for values, _ in family}) > 1:
                    out.append(Sweep(workload, chosen, tuple(sorted(family, key=lambda pair: pair[0]))))
    return out


def sweep_tables(evaluation: Evaluation) -> list[Table]:
    """Make one table for each key that is swept."""
    found = find_sweeps(evaluation)
    tables = []
    for keys in dict.fromkeys(s.keys for s in found):
        rows = []
        for number_of, sweep in enumerate(s for s in found if s.keys == keys):
            for values, group in sweep.groups:
                rows.append((
                    word(evaluation.paper.title(sweep.workload)), word(str(number_of + 1)),
                    *(number(v, "g") for v in values),
                    *(mean(group, f, form) for f, form in (
                        (q.field("dense", "score"), ".4f"), (q.field("compact", "score"), ".4f"),
                        (q.params_reduction, ".1f"), (q.macs_reduction, ".1f"), (q.features_reduction, ".1f"))),
                    number(len(group.runs), ".0f"),
                ))  # fmt: skip
        label = next(s.label for s in found if s.keys == keys)
        columns = ("Workload", "Sweep", *(k.removeprefix("lumos.") for k in keys), "Dense", "LUMOS",
                   "Parameters cut [%]", "MACs cut [%]", "Features cut [%]", "Seeds")  # fmt: skip
        name = next(s.name for s in found if s.keys == keys)
        tables.append(
            Table(name, f"Sweep over {label}", columns, tuple(rows), "All else equal within a sweep.", left=2)
        )
    return tables

"""The paper's tables and the tables behind its figures: published, ours and the difference side by side."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property

from lumos.suite.report import method_table
from lumos.suite.report import quantities as q
from lumos.suite.report.published import Published
from lumos.suite.report.quantities import Record
from lumos.suite.report.results import REDUCTIONS, Results, SeedGroup
from lumos.suite.report.table import EMPTY, Cell, Table, difference, mean, number, published, word

MINE = ("dense", "scratch", "loxia")
"""Methods that the paper's comparison does not have: dense, the compact shape trained from scratch, L0 per weight."""

MEAN = Cell("Mean", "mean")


@dataclass(frozen=True)
class Evaluation:
    """The records and what was published; every table is made from them."""

    results: Results
    paper: Published
    first: str | None = None
    """The device, ``cpu`` or ``gpu``, whose records stand for a workload where it has such ones; None: any."""
    question: str | None = None
    """What the suite asked of the runs that stand for a workload; None: any."""

    @cached_property
    def gpu_first(self) -> Evaluation:
        """The same with a GPU's records where there are any: for what the paper measured on one."""
        return replace(self, first="gpu")

    @cached_property
    def at_the_papers_sizes(self) -> Evaluation:
        """The same with the runs that were asked for the paper's reductions."""
        return replace(self, question=REDUCTIONS)

    @property
    def workloads(self) -> list[str]:
        """The paper's workloads in its order, then others that have a record."""
        own = sorted({r["workload"] for r in self.results.finished})
        return list(dict.fromkeys([*self.paper.workloads, *own]))

    @cached_property
    def headlines(self) -> dict[str, SeedGroup]:
        """The runs that stand for each workload that has one."""
        found = {
            w: (self.first and self.results.headline(w, device=self.first, question=self.question))
            or self.results.headline(w, question=self.question)
            for w in self.workloads
        }
        return {w: group for w, group in found.items() if group}

    def values(self, quantity: Callable[[Record], float | None]) -> dict[str, float]:
        """Return a quantity of each workload that has a record with it."""
        found = {w: g.mean(quantity) for w, g in self.headlines.items()}
        return {w: v for w, v in found.items() if v is not None}

    def known(self, quantity: Callable[[Record], float | None]) -> dict[str, float]:
        """Return a quantity of each of the paper's workloads that has a record with it: what averages are over."""
        return {w: v for w, v in self.values(quantity).items() if w in self.paper.workloads}

    def tables(self) -> list[Table]:
        """Make all of them, in the paper's order."""
        return [
            self.averages(), self.workloads_table(), self.peers(), self.gpu_first.training_time(), self.speedups(),
            self.scores(), self.parameters(), self.macs(), self.gpu_first.energy(), self.gpu_first.memory(),
            *self.modes(),
        ]  # fmt: skip

    # ---- Tables II, III and IV ------------------------------------------------------------------------------------

    def workloads_table(self) -> Table:
        """Make Table II: what each workload is, and what our runs of it were made with."""
        rows = []
        for name in self.workloads:
            group = self.headlines.get(name)
            texts = [self.paper.text("II", key, name) for key in ("domain", "network", "task", "metric")]
            rows.append((word(self.paper.title(name)), *map(word, texts), *_setting(group)))
        columns = ("Workload", "Domain", "Network", "Task", "Metric", "Our metric", "Scale", "Data", "Training samples",
                   "Parameters", "MACs a sample", "Seeds")  # fmt: skip
        note = "Domain, network, task and metric as published; the rest is what our records were made with."
        return Table("table2_workloads", "Table II: workloads", columns, tuple(rows), note, left=8)

    def peers(self) -> Table:
        """Make Table III: parameter reduction, score and time of each method, published and ours."""
        methods = [*self.paper.methods, *MINE]
        rows = []
        for name in self.workloads:
            published_here = name in self.paper.shown("III")
            if not published_here and not any(self.results.of(name, m) for m in methods if m != "lumos"):
                continue
            ours = method_table.matched(self.results, name, methods)
            unsupported = method_table.unsupported(self.results, name, ours)
            for method in methods:
                group, reason = ours.get(method), unsupported.get(method)
                if group is None and reason is None and (method in MINE or not published_here):
                    continue
                rows.append(method_table.row(self.paper, name, method, group, reason))
        return Table(
            "table3_peers",
            "Table III: other pruning methods",
            method_table.COLUMNS,
            tuple(rows),
            method_table.NOTE,
            left=3,
        )

    def training_time(self) -> Table:
        """Make Table IV: what gates cost in training time, of the whole training and of a step."""
        rows = []
        others = [w for w in self.headlines if w not in self.paper.shown("IV")]
        for name in [*self.paper.shown("IV"), *others]:
            group = self.headlines.get(name)
            theirs = self.paper.number("IV", "train_overhead", name)
            ours = group.mean(q.train_overhead) if group else None
            minutes = [self.paper.number("IV", "train_minutes", name, m) for m in ("dense", "lumos")]
            rows.append((
                word(self.paper.title(name)), *(published(m, ".0f") for m in minutes), published(theirs, "+.2f"),
                _device(group), *(mean(group, q.field(side, "train_seconds"), ".1f") for side in ("dense", "compact")),
                mean(group, q.train_overhead, "+.1f"), difference(ours, theirs),
                mean(group, q.step_overhead, "+.1f"), mean(group, q.gate_share, ".2f"),
            ))  # fmt: skip
        columns = ("Workload", "Dense, published [min]", "LUMOS, published [min]", "Overhead, published [%]", "Device",
                   "Dense, ours [s]", "LUMOS, ours [s]", "Overhead, ours [%]", "Difference", "A gated step [%]",
                   "Gates per parameter [%]")  # fmt: skip
        note = (
            "Of a GPU's record where there is one. Overhead of the whole training, equal in steps; ours cuts the "
            "closed units out on the way, so it may be negative. A gated step: how much longer it takes than a dense "
            "one, before the cut."
        )
        return Table("table4_training_time", "Table IV: training time", columns, tuple(rows), note)

    # ---- Figures 9 and 11 -----------------------------------------------------------------------------------------

    def speedups(self) -> Table:
        """Make the table of figure 9a: how many times as many samples a second, on CPU and GPU."""
        kinds = (("latency", "one sample"), ("throughput", "best batch"), ("dynamic", "memory bound"))
        columns, sources = ["Workload"], (("cpu", self), ("gpu", self.gpu_first))
        for device, _ in sources:
            columns += [f"{device.upper()}, published", f"{device.upper()}, ours", f"{device.upper()}, difference"]
            columns += [f"{device.upper()}, {title}" for _, title in kinds]

        def row(name: str) -> tuple[Cell, ...]:
            cells = [word(self.paper.title(name))]
            for device, source in sources:
                group = source.headlines.get(name)
                cells += source._compared("9a", f"speedup_{device}", name, q.best_speedup(device), ".2f", "×")
                cells += [mean(group, q.speedup(kind, device), ".2f", "×") for kind, _ in kinds]
            return tuple(cells)

        rows = [row(name) for name in self.workloads]
        note = (
            "Samples a second over those of the dense network. Ours: each model with the largest batch within one "
            "memory bound, as published (older records: one fixed batch); then with one sample a call, at the best "
            "batch of each, and at that bound. Devices differ from the paper's; see the records."
        )
        means = [
            (*source._mean_of("9a", f"speedup_{d}", q.best_speedup(d), ".2f", "×"),
             *(source._mean_of("", "", q.speedup(kind, d), ".2f", "×")[1] for kind, _ in kinds))
            for d, source in sources
        ]  # fmt: skip
        rows.append((MEAN, *means[0], *means[1]))
        return Table("fig9a_speedup", "Fig. 9a: speed-up of inference", tuple(columns), tuple(rows), note, footer=1)

    def scores(self) -> Table:
        """Make the table of figure 9b: scores before and after."""
        rows = []
        for name in self.workloads:
            group = self.headlines.get(name)
            rows.append((
                word(self.paper.title(name)), word(group.first["metric"]["name"] if group else None),
                *(mean(group, q.field(side, "score"), ".4g") for side in ("dense", "compact")),
                mean(group, q.field("difference", "standard_error"), ".2g"),
                *self._compared("9b", "score_change", name, q.score_change, "+.2f"),
                number(len(group.runs), ".0f") if group else EMPTY,
            ))  # fmt: skip
        columns = ("Workload", "Metric", "Dense", "LUMOS", "Standard error", "Change, published [%]",
                   "Change, ours [%]", "Difference", "Seeds")  # fmt: skip
        note = (
            "Test scores; ± is the standard deviation over the seeds. Standard error: of LUMOS less dense, from the "
            "samples of the test split. Change: percent of the dense score, positive where LUMOS is better."
        )
        return Table("fig9b_score", "Fig. 9b: scores", columns, tuple(rows), note, left=2)

    def parameters(self) -> Table:
        """Make the table of figure 9c: parameters before and after."""
        return self._sizes("fig9c_parameters", "Fig. 9c: parameters", "9c", "params", q.params_reduction)

    def macs(self) -> Table:
        """Make the table of figure 9d: multiply-accumulates before and after."""
        note = "Multiply-accumulates of one sample; FLOPs are twice as many."
        return self._sizes("fig9d_macs", "Fig. 9d: multiply-accumulates", "9d", "macs", q.macs_reduction, note)

    def energy(self) -> Table:
        """Make the table of figure 11a: energy of inference."""
        note = (
            "Joules per 1,000 samples, by NVML or RAPL, of a GPU's record where there is one; a dash where the machine "
            "has no meter that can be read."
        )
        return self._sizes("fig11a_energy", "Fig. 11a: energy", "11a", "energy", q.energy_reduction, note)

    def memory(self) -> Table:
        """Make the table of figure 11b: peak memory of inference."""
        rows = []
        for name in self.workloads:
            group = self.headlines.get(name)
            saved = self.paper.number("11b", "memory_saved_mb", name)
            rows.append((
                word(self.paper.title(name)), mean(group, q.memory_mb("dense"), ".2f"),
                mean(group, q.memory_mb("compact"), ".2f"),
                *self._compared("11b", "memory_reduction", name, q.memory_reduction, ".1f"), published(saved, ".0f"),
                mean(group, q.memory_saved_mb, ".2f"), mean(group, q.training_memory_reduction, ".1f"),
            ))  # fmt: skip
        rows.append((
            MEAN, EMPTY, EMPTY, *self._mean_of("11b", "memory_reduction", q.memory_reduction, ".1f"), EMPTY,
            self._mean_of("", "", q.memory_saved_mb, ".2f")[1],
            self._mean_of("", "", q.training_memory_reduction, ".1f")[1],
        ))  # fmt: skip
        columns = ("Workload", "Dense [MB]", "LUMOS [MB]", "Reduction, published [%]", "Reduction, ours [%]",
                   "Difference", "Saved, published [MB]", "Saved, ours [MB]", "In training [%]")  # fmt: skip
        note = (
            "Weights and the most that one call allocates, counted at the allocator, with the same batch for both; of "
            "a GPU's record where there is one. "
            "In training: what a step allocates beyond weights and optimiser state."
        )
        return Table("fig11b_memory", "Fig. 11b: peak memory", columns, tuple(rows), note, footer=1)

    def modes(self) -> list[Table]:
        """Make the table of calls as CUDA graphs and compiled; none where no record has them."""
        source = self.gpu_first
        kinds = (("latency", "one sample"), ("throughput", "best batch"), ("dynamic", "memory bound"))
        modes = (("eager", "eager"), ("cuda_graph", "CUDA graph"), ("compiled", "compiled"))

        def quantity(mode: str, kind: str) -> Callable[[Record], float | None]:
            return q.own_speedup(kind) if mode == "eager" else q.mode_speedup(mode, kind)

        wanted = [(f"{title}, {way}", quantity(mode, kind)) for kind, title in kinds for mode, way in modes]
        calls = [q.mode_speedup(mode, kind) for mode, _ in modes for kind, _ in kinds]
        names = [name for name, group in source.headlines.items() if any(group.mean(find) for find in calls)]
        if not names:
            return []
        rows = [
            (word(self.paper.title(name)), _device(source.headlines[name]),
             *(mean(source.headlines[name], find, ".2f", "×") for _, find in wanted))
            for name in names
        ]  # fmt: skip
        note = (
            "Samples a second over those of the dense network that is called in the same way, each with its own batch."
        )
        columns = ("Workload", "Device", *(title for title, _ in wanted))
        return [Table("fig9a_modes", "Speed-up by the way of calling", columns, tuple(rows), note, left=2)]

    def _sizes(
        self, file: str, title: str, table: str, key: str, quantity: Callable[[Record], float | None], note: str = ""
    ) -> Table:
        rows = []
        field, form = {"energy": ("energy_j", ".3g")}.get(key, (key, ",.0f"))
        for name in self.workloads:
            group = self.headlines.get(name)
            rows.append((
                word(self.paper.title(name)),
                *(mean(group, q.field(side, field), form) for side in ("dense", "compact")),
                *self._compared(table, f"{key}_reduction", name, quantity, ".1f"),
            ))  # fmt: skip
        rows.append((MEAN, EMPTY, EMPTY, *self._mean_of(table, f"{key}_reduction", quantity, ".1f")))
        columns = ("Workload", "Dense", "LUMOS", "Reduction, published [%]", "Reduction, ours [%]", "Difference")
        return Table(file, title, columns, tuple(rows), note, footer=1)

    def _compared(
        self, table: str, key: str, name: str, quantity: Callable[[Record], float | None], form: str, unit: str = ""
    ) -> tuple[Cell, Cell, Cell]:
        """Make the cells published, ours and the difference."""
        theirs, group = self.paper.number(table, key, name), self.headlines.get(name)
        ours = group.mean(quantity) if group else None
        signed = form if form.startswith("+") else f"+{form}"
        return (
            published(theirs, form, unit),
            mean(group, quantity, form, unit),
            difference(ours, theirs, signed, unit),
        )

    # ---- the average rows -----------------------------------------------------------------------------------------

    def averages(self) -> Table:
        """Make the table of averages, over exactly the workloads that have a record, and how many these are."""
        on_gpu = ("9a", "11a", "11b", "IV")  # as published: the CPU's figures of a GPU's record count as the CPU's
        wanted: tuple[tuple[str, str, str, Callable[[Record], float | None], str], ...] = (
            ("Parameters, reduction", "9c", "params_reduction", q.params_reduction, "%"),
            ("FLOPs, reduction", "9d", "macs_reduction", q.macs_reduction, "%"),
            ("Speed-up, GPU", "9a", "speedup_gpu", q.best_speedup("gpu"), "×"),
            ("Speed-up, CPU", "9a", "speedup_cpu", q.best_speedup("cpu"), "×"),
            ("Energy, reduction", "11a", "energy_reduction", q.energy_reduction, "%"),
            ("Peak memory, reduction", "11b", "memory_reduction", q.memory_reduction, "%"),
            ("Gates per parameter", "12", "gate_share", q.gate_share, "%"),
            ("Training time, overhead", "IV", "train_overhead", q.train_overhead, "%"),
            ("Score, change", "9b", "score_change", q.score_change, "%"),
            ("Input features, reduction", "10", "features_reduction", q.features_reduction, "%"),
        )
        rows = [
            (self.gpu_first if row[1] in on_gpu and row[2] != "speedup_cpu" else self)._average(*row) for row in wanted
        ]
        columns = (
            "Average of", "Published", "Ours", "Difference", "Median, ours", "Geometric mean, ours",
            "Ours, at the paper's reductions", "Workloads",
        )  # fmt: skip
        note = (
            f"Means over the workloads that have a record (of the paper's {len(self.paper.workloads)}, the count in "
            "the last column), each the mean over its seeds; published: over all of the paper's. At the paper's "
            "reductions: the runs of the suite that were asked for the sizes that the paper reports."
        )
        return Table("averages", "Averages", columns, tuple(rows), note)

    def _average(
        self, title: str, table: str, key: str, quantity: Callable[[Record], float | None], unit: str
    ) -> tuple[Cell, ...]:
        found = self.known(quantity)
        values, theirs = list(found.values()), self.paper.number(table, key)
        sized_of = self.at_the_papers_sizes.known(quantity)
        sized = list(sized_of.values())
        ours = statistics.fmean(values) if values else None
        form = ".2f" if unit == "×" or abs(ours or 1) < 10 else ".1f"
        positive = unit == "×" and values
        return (
            word(title), published(theirs, ".2f" if theirs and len(theirs.text) > 4 else ".1f", unit),
            number(ours, form, unit, [i for w in found for i in self.headlines[w].ids]),
            difference(ours, theirs, f"+{form}", " points" if unit == "%" else unit),
            number(statistics.median(values) if values else None, form, unit),
            number(statistics.geometric_mean(values) if positive else None, form, unit),
            number(
                statistics.fmean(sized) if sized else None, form, unit,
                [i for w in sized_of for i in self.at_the_papers_sizes.headlines[w].ids],
            ),
            self._count(found),
        )  # fmt: skip

    def _count(self, found: dict[str, float]) -> Cell:
        return Cell(f"{len(found)} of {len(self.paper.workloads)}", len(found))

    def _mean_of(
        self, table: str, key: str, quantity: Callable[[Record], float | None], form: str, unit: str = ""
    ) -> tuple[Cell, Cell, Cell]:
        """Make the cells published, ours and the difference of the means; ours says over how many workloads."""
        theirs, found = self.paper.number(table, key), self.known(quantity)
        ours = statistics.fmean(found.values()) if found else None
        shown = number(ours, form, unit)
        count = self._count(found)
        mine = Cell(f"{shown.text} ({count.text})", shown.value) if found else EMPTY
        precise = form if theirs is None or len(theirs.text) < 5 else ".2f"
        return published(theirs, precise, unit), mine, difference(ours, theirs, f"+{precise}", unit)


def _setting(group: SeedGroup | None) -> tuple[Cell, ...]:
    """Make the cells that say what a workload's runs were made with."""
    if group is None:
        return (EMPTY,) * 7
    first, ids = group.first, group.ids
    return (
        word(first["metric"]["name"]), word(first["scale"]), word(first.get("data", {}).get("source")),
        number(q.field("data", "n_train")(first), ",.0f", runs=ids), number(first["dense"]["params"], ",.0f", runs=ids),
        number(first["dense"]["macs"], ",.0f", runs=ids), number(len(group.runs), ".0f"),
    )  # fmt: skip


def _device(group: SeedGroup | None) -> Cell:
    return word(group.first["provenance"].get("device") if group else None)

"""Make the tables of README.md and of the workloads' READMEs from the records under results/reference/.

``python scripts/readme.py`` rewrites what stands between the markers and draws docs/figures/cfd.png; with ``--check``
it only says whether the texts agree with the records.
"""

from __future__ import annotations

import csv
import json
import re
import statistics
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

PROJECT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(PROJECT))

from lumos.suite import archive, report  # noqa: E402
from lumos.suite.report import build, method_table, sensitivity  # noqa: E402
from lumos.suite.report.results import REDUCTIONS, SUITE, TOLERANCE, Results  # noqa: E402

README, RESULTS = PROJECT / "README.md", PROJECT / "results" / "reference"
RESULTS_PAGE, PEERS, COST, SENSITIVITY = (
    PROJECT / "docs" / "suite" / f"{name}.md" for name in ("index", "peers", "cost", "sensitivity")
)
STUDY = PROJECT / "results" / "studies" / "sensitivity.jsonl.gz"
PUBLISHED, PUBLISHED_PAGE = (
    PROJECT / "results" / "studies" / "published.jsonl.gz",
    PROJECT / "docs" / "suite" / "published.md",
)
FIGURE = PROJECT / "docs" / "figures" / "cfd.png"
SELECTIONS = ("all", "pearson", "mutual_information", "lasso", "forward", "stg", "lassonet", "lumos")


OF_THE_MACHINE = ("run.py", "seed=", "scale=small", "paths.", "trainer.threads=", "force=")
"""What a command may say without asking for another result; the seed is told apart."""


@cache
def results() -> Results:
    """The committed records."""
    return Results((RESULTS,))


def asked(entry: dict[str, Any]) -> list[str]:
    """What a run's command asks for, but for the seed and what belongs to the machine."""
    words = entry["provenance"]["command"].split()
    return [word for word in words if "=" in word and not word.startswith(OF_THE_MACHINE)]


def runs(*words: str) -> list[dict[str, Any]]:
    """The reference records of the runs that were asked for with these words, by seed."""
    found = [r for r in results().finished if sorted(asked(r)) == sorted(words)]
    return sorted(found, key=lambda r: r["seed"])


def main_job() -> dict[str, Any]:
    """The newest record of ``make run``."""
    return max(runs("workload=cfd", "lumos.lambda=1e-3"), key=lambda entry: entry["provenance"]["started_utc"])


def cfd_block() -> str:
    """What the main job prints, as text."""
    entry = main_job()
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
    for entry in runs("workload=synthetic", "workload.relevant_features=16"):
        true, kept = set(entry["true_features"]), set(entry["gates"]["features_kept"])
        others = len(entry["features"]) - len(true)
        less = 100 * (1 - entry["compact"]["params"] / entry["dense"]["params"])
        lines.append(
            f"| {entry['seed']} | {len(kept & true)} of {len(true)} | {len(kept - true)} of {others} "
            f"| {entry['dense']['score']:.4f} | {entry['compact']['score']:.4f} | -{less:.1f}% |"
        )
    return "\n".join(lines)


def suite_block(page: str = "workloads/{}/README.md") -> str:
    """What `make suite` found: a line for each workload, with a link to its page."""
    lines = [
        "| workload | metric | best trivial predictor | dense | compact | parameters | MACs | input features "
        "| samples a second in 128 MB | seeds | at the paper's reduction |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    sized = suite(REDUCTIONS)
    for name, entries in suite().items():
        first = entries[0]
        metric = first["metric"]["name"] + ("" if first["metric"]["higher_is_better"] else ", less is better")
        features = _numbers([len(e["gates"]["features_kept"]) for e in entries], lambda n: f"{n:.3g}")
        row = (
            f"[{name}]({page.format(first['workload'])})",
            metric,
            best_trivial(first),
            score(entries, "dense"),
            score(entries, "compact") + _missed(entries),
            change(entries, "params"),
            change(entries, "macs"),
            f"{features} of {first['gates']['features_total']}",
            speed(entries),
            ", ".join(str(entry["seed"]) for entry in entries),
            f"{score(sized[name], 'dense')} to {score(sized[name], 'compact')} ({change(sized[name], 'params')})"
            if name in sized
            else "–",
        )
        lines.append("| " + " | ".join(row) + " |")
    return "\n".join(lines)


def published_block() -> str:
    """Runs on published data with a tolerance: a line for each workload, in the suite's columns."""
    found: dict[str, list[dict[str, Any]]] = {}
    for run in archive.runs(PUBLISHED):
        found.setdefault(run.record["workload"], []).append(run.record)
    lines = [
        "| workload | metric | best trivial predictor | dense | compact | parameters | MACs | input features "
        "| samples a second in 128 MB | kept its line |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for name in sorted(found, key=[*evaluation_order(), *found].index):
        entries = sorted(found[name], key=lambda entry: entry["seed"])
        first = entries[0]
        features = _numbers([len(e["gates"]["features_kept"]) for e in entries], lambda n: f"{n:.3g}")
        row = (
            name, first["metric"]["name"], best_trivial(first), score(entries, "dense"), score(entries, "compact"),
            change(entries, "params"), change(entries, "macs"), f"{features} of {first['gates']['features_total']}",
            speed(entries), f"{sum(map(keeps_its_line, entries))} of {len(entries)}",
        )  # fmt: skip
        lines.append("| " + " | ".join(row) + " |")
    return "\n".join(lines)


def keeps_its_line(entry: dict[str, Any]) -> bool:
    """Whether a run that was asked for a tolerance keeps to it on the validation split; true where it was not."""
    return (entry.get("steering") or {}).get("met") is not False


def _missed(entries: list[dict[str, Any]]) -> str:
    """A star where a seed missed its line, and how many of several did."""
    missed = sum(not keeps_its_line(entry) for entry in entries)
    return (" \\*" + (f" ({missed} of {len(entries)})" if len(entries) > 1 else "")) if missed else ""


def score(entries: list[dict[str, Any]], side: str) -> str:
    """The test score of one side: the mean over the seeds, with its standard deviation where there are several."""
    return _numbers([entry[side]["score"] for entry in entries], _digits)


def change(entries: list[dict[str, Any]], key: str) -> str:
    """How much less of the parameters or operations there is: the mean over the seeds."""
    return f"{100 * statistics.fmean(e['compact'][key] / e['dense'][key] - 1 for e in entries):+.1f}%"


def speed(entries: list[dict[str, Any]]) -> str:
    """How many times as many samples a second: the geometric mean over the seeds."""
    return f"{statistics.geometric_mean(e['compact']['speedup']['dynamic']['p50'] for e in entries):.1f}x"


def _numbers(values: list[float], form: Callable[[float], str]) -> str:
    spread = statistics.stdev(values) if len(values) > 1 else 0.0
    return form(statistics.fmean(values)) + (f" ± {spread:.1g}" if spread else "")


def best_trivial(entry: dict[str, Any]) -> str:
    """The best score of the trivial predictors of a run, and which it is."""
    known = {name: score for name, score in entry["baselines"].items() if score is not None}
    if not known:
        return "–"
    name = (max if entry["metric"]["higher_is_better"] else min)(known, key=lambda key: known[key])
    return f"{_digits(known[name])} ({name.replace('_', ' ')})"


KINDS = {
    "cfd": "fully connected: flux through a face of a flow solver",
    "molhiv": "graph (GIN): structural alerts in molecules",
    "braintumor": "transformer (ViT): tumours in phantom images",
    "em_denoise": "convolutional (UNet): denoise electron micrographs",
}
"""A network of each kind, for the README's first table."""


def kinds_block() -> str:
    """What the suite found for a network of each kind, in few columns."""
    lines = ["| network | score, dense to compact | parameters | inputs | speed |", "|---|---|---|---|---|"]
    for name, title in KINDS.items():
        entries = suite(REDUCTIONS)[name]
        first = entries[0]
        metric = first["metric"]["name"] + ("" if first["metric"]["higher_is_better"] else " (less is better)")
        scores = f"{metric} {score(entries, 'dense')} to {score(entries, 'compact')}"
        size = f"{first['dense']['params']:,} to {statistics.fmean(e['compact']['params'] for e in entries):,.0f}"
        found = _numbers([len(e["gates"]["features_kept"]) for e in entries], lambda n: f"{n:.3g}")
        inputs = f"{found} of {first['gates']['features_total']}"
        lines.append(f"| {title} | {scores} | {size} | {inputs} | {speed(entries)} |")
    return "\n".join(lines)


def training_block() -> str:
    """What a gated training costs beside the dense one: a line for each workload of the suite."""
    lines = ["| workload | dense step, ms | gated step | compact step | gated training |", "|---|---|---|---|---|"]
    for name, (entry, *_) in suite().items():
        steps = entry["training"]
        dense = steps["dense"]["step_ms"]["p50"]
        gated, compact = 1 + steps["overhead"]["p50"], steps["compact"]["step_ms"]["p50"] / dense
        before = entry["config"]["lumos"]["freeze_at"]
        whole = before * gated + (1 - before) * compact
        lines.append(f"| {name} | {dense:.1f} | {gated:.2f} | {compact:.2f} | {whole:.2f} |")
    return "\n".join(lines)


def machine_block() -> str:
    """Where the numbers of the suite come from."""
    made = max((e["provenance"] for es in suite().values() for e in es), key=lambda made: made["started_utc"])
    versions = made["versions"]
    return (
        f"Measured on {made['device']}, Python {versions['python']}, torch {versions['torch']}, "
        f"{made['started_utc'][:10]}; the records are under `results/reference/`."
    )


def numbers_block(entry: dict[str, Any], sized: dict[str, Any] | None = None) -> str:
    """A workload's scores, dense and compact, beside its trivial predictors; and those at the paper's reduction."""
    dense, compact, made = entry["dense"], entry["compact"], entry["provenance"]
    metric = entry["metric"]["name"]
    others = [name for name in dense.get("scores", {}) if name != metric]
    less = {key: f" ({100 * (compact[key] / dense[key] - 1):+.1f}%)" for key in ("params", "macs")}
    rows = [("predictor", metric, *others, "parameters", "MACs a sample"), ("---",) * (len(others) + 4)]
    rows += [
        (name.replace("_", " "), _digits(score), *[""] * (len(others) + 2))
        for name, score in entry["baselines"].items()
    ]
    rows += [
        (name, _digits(side["score"]), *(_digits(side["scores"][o]) for o in others),
         *(f"{side[key]:,}{less[key] if side is compact else ''}" for key in ("params", "macs")))
        for name, side in (("dense", dense), ("compact", compact))
    ]  # fmt: skip
    kept, total = entry["gates"]["features_kept"], entry["features"]
    data = entry["data"]
    which = (
        f"Features kept: {len(kept)} of {len(total)}{': ' + ', '.join(kept) if len(kept) < len(total) <= 40 else ''}. "
        if total
        else ""
    )
    where = results().runs[entry["run_id"]].place.relative_to(PROJECT)
    source = (
        f"`python run.py {' '.join(asked(entry))}`, `scale=small`, seed {entry['seed']}, on {made['device']}, "
        f"{made['started_utc'][:10]}; {data['n_train']:,} samples train, {data['n_test']:,} test; "
        f"record: `{entry['run_id']}` of `{where}`."
    )
    course = f"Compact and gated agree to {entry['equivalence']['max_rel_diff']:.1e}."
    missed = "" if keeps_its_line(entry) else "It missed the line of its tolerance on the validation split. "
    more = "" if sized is None else _at_the_papers_size(sized)
    return "\n".join([source, "", *("| " + " | ".join(row) + " |" for row in rows), "", which + missed + course + more])


def _at_the_papers_size(entry: dict[str, Any]) -> str:
    compact, gates = entry["compact"], entry["gates"]
    words = " ".join(word for word in asked(entry) if word.startswith("lumos.")) or "the defaults"
    return (
        f" At the paper's reduction (`{words}`, record `{entry['run_id']}`): {entry['metric']['name']} "
        f"{_digits(compact['score'])}, {compact['params']:,} parameters ({change([entry], 'params')}), "
        f"{len(gates['features_kept'])} of {gates['features_total']} features."
    )


def peers_block() -> str:
    """Our half of Table III: the mean score and its spread over the seeds, method by method, and the seconds."""
    rows = build.evaluation([RESULTS]).peers().rows
    found: dict[str, dict[str, Any]] = {}
    for row in rows:
        found.setdefault(f"{row[0].text}, {row[2].text}", {})[row[1].text] = row
    methods = list(dict.fromkeys(row[1].text for row in rows))
    lines = ["| | " + " | ".join(methods) + " |", "|---" * (len(methods) + 1) + "|"]
    for title, ours in found.items():
        cells = [_peer(ours[m]) if m in ours else "–" for m in methods]
        lines.append(f"| {title} | " + " | ".join(cells) + " |")
    seeds = {row[10].text for row in rows if row[10].value}
    return "\n".join([*lines, "", f"Seeds a cell: {', '.join(sorted(seeds))}."])


def _peer(row: Any) -> str:
    cut, score, spread, seconds = row[4].value, row[7].value, row[9].value, row[11].value
    if not isinstance(score, float):  # a method that cannot treat the model
        return str(row[7].text)
    digits = ".1f" if score > 1 else ".4f"
    size = f"-{cut:.1f}%, " if cut else ""
    return f"{score:{digits}} ± {spread or 0:{digits}} ({size}{seconds:.0f} s)"


def size_block() -> str:
    """Score against size: the runs of the experiment pareto, a row for each share of the parameters."""
    found: dict[str, dict[float, dict[str, str]]] = {}
    for entry in results().records:
        share = method_table.target(entry)
        if share is None or "experiment=pareto" not in entry["provenance"]["command"]:
            continue
        compact = entry.get("compact")
        title = f"{entry['workload']}, {entry['metric']['name']}"
        score = _digits(compact["score"]) if compact else entry["status"]
        found.setdefault(title, {}).setdefault(share, {})[entry["method"]] = score
    methods = ("lumos", "scratch", "l1", "slimming", "depgraph", "oto", "loxia")
    lines: list[str] = []
    for title, shares in sorted(found.items(), reverse=True):
        lines += [f"| {title} | " + " | ".join(methods) + " |", "|---" * (len(methods) + 1) + "|"]
        for share, scores in sorted(shares.items(), reverse=True):
            lines.append(f"| {share:.0%} left | " + " | ".join(scores.get(m, "–") for m in methods) + " |")
        lines.append("")
    return "\n".join(lines[:-1])


def sensitivity_block() -> str:
    """Score against dense width: the study's table; nothing where it was not run."""
    if not STUDY.exists():
        return "Not measured yet."
    return "\n".join(sensitivity.markdown(sensitivity.curves(sensitivity.read(STUDY))))


def _digits(value: float) -> str:
    return f"{value:.3g}" if 0 < abs(value) < 0.1 else f"{value:.4f}"


def features_block() -> str:
    """Selections of inputs: the score of a dense network trained on what each keeps, the mean over the seeds."""
    with (RESULTS / "feature_peers.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    titles: list[str] = []
    scores: list[dict[str, list[float]]] = []
    for workload in dict.fromkeys(row["workload"] for row in rows):
        of = [row for row in rows if row["workload"] == workload]
        seeds = len({row["seed"] for row in of})
        titles.append(f"{workload}, {of[-1]['kept']} of {of[-1]['of']} ({seeds} seed{'s' * (seeds > 1)})")
        scores.append({m: [float(row["score"]) for row in of if row["method"] == m] for m in SELECTIONS})
    lines = [f"| | {' | '.join(titles)} |", "|---" * (len(titles) + 1) + "|"]
    for method in SELECTIONS:
        means = " | ".join(f"{sum(s[method]) / len(s[method]):.4f}" for s in scores)
        lines.append(f"| {method.replace('_', ' ')} | {means} |")
    return "\n".join(lines)


@cache
def suite(question: str = TOLERANCE) -> dict[str, list[dict[str, Any]]]:
    """The suite's records of each workload that answer a question, by seed; for the first question any it has."""
    found: dict[str, dict[str, list[dict[str, Any]]]] = {}
    for run in json.loads((RESULTS / SUITE).read_text())["runs"]:
        name, asked = run.get("problem") or run["workload"], run.get("question") or REDUCTIONS
        found.setdefault(name, {}).setdefault(asked, []).append(results().runs[run["run_id"]].record)
    picked = {name: of.get(question) or (of[REDUCTIONS] if question == TOLERANCE else []) for name, of in found.items()}
    order = [*evaluation_order(), *picked]
    return {n: sorted(picked[n], key=lambda e: e["seed"]) for n in dict.fromkeys(order) if picked.get(n)}


def evaluation_order() -> tuple[str, ...]:
    """The paper's workloads in its order."""
    return tuple(build.evaluation([RESULTS]).paper.workloads)


def filled(text: str, blocks: dict[str, Callable[[], str]]) -> str:
    """A text with every block made anew."""
    for name, make in blocks.items():
        pattern = rf"(<!-- {name} -->\n).*?(<!-- /{name} -->)"
        text = re.sub(pattern, lambda m, make=make: f"{m[1]}{make()}\n{m[2]}", text, flags=re.S)
    return text


def texts() -> dict[Path, str]:
    """Every file with blocks, and what it should say."""
    blocks = {
        "kinds": kinds_block,
        "cfd": cfd_block,
        "synthetic": synthetic_block,
        "suite": suite_block,
        "machine": machine_block,
    }
    found: dict[Path, str] = {README: filled(README.read_text(), blocks)}
    found[PEERS] = filled(PEERS.read_text(), {"table3": peers_block, "size": size_block, "features": features_block})
    found[RESULTS_PAGE] = filled(
        RESULTS_PAGE.read_text(), {"suite": lambda: suite_block("workloads/{}.md"), "machine": machine_block}
    )
    found[SENSITIVITY] = filled(SENSITIVITY.read_text(), {"sensitivity": sensitivity_block})
    found[PUBLISHED_PAGE] = filled(PUBLISHED_PAGE.read_text(), {"published": published_block})
    found[COST] = filled(COST.read_text(), {"training": training_block})
    for name, (entry, *_) in suite().items():
        path, workload = PROJECT / "workloads" / entry["workload"] / "README.md", entry["workload"]
        block = "numbers" if name == workload else f"numbers {name}"
        text = found[path] if path in found else path.read_text()
        sized = next(iter(suite(REDUCTIONS).get(name, [])), None)
        sized = None if sized is None or sized["run_id"] == entry["run_id"] else sized
        found[path] = filled(text, {block: lambda entry=entry, sized=sized: numbers_block(entry, sized)})
    return found


def draw() -> None:
    """The course of the main job and what it leaves of the network."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    import pandas as pd

    entry = main_job()
    curve = pd.DataFrame(results().table(entry))
    plt.rcParams.update(
        {"font.size": 9, "axes.spines.top": False, "axes.spines.right": False, "font.family": "sans-serif"}
    )
    figure, (left, right) = plt.subplots(1, 2, figsize=(8.2, 3.1), width_ratios=[1.5, 1], layout="constrained")
    dense, lumos = (pd.DataFrame(curve[curve.phase == phase]) for phase in ("dense", "gated"))
    left.semilogy(dense.step, 1 - dense.valid, color="#555555", lw=1.5, marker="o", ms=3)
    left.semilogy(lumos.step, 1 - lumos.valid, color="#0072B2", lw=1.8, marker="o", ms=3)
    cut = lumos[lumos.open_gates.isna()].step.min() - (lumos.step.iloc[1] - lumos.step.iloc[0])
    left.axvline(cut, color="#D55E00", lw=1, ls="--")
    left.text(cut, 0.98, " closed units removed", color="#D55E00", va="top", transform=left.get_xaxis_transform())
    for y, name, color in ((0.62, "LUMOS", "#0072B2"), (0.54, "dense", "#555555")):
        label = f"{name}, {_params(entry, name):,} parameters"
        left.text(0.98, y, label, color=color, ha="right", transform=left.transAxes)
    left.set(xlabel="training step", ylabel="1 − R² on validation flows", xlim=(0, None), ylim=(1e-3, None))
    left.set_yticks([0.001, 0.002, 0.005, 0.01], ["0.001", "0.002", "0.005", "0.01"])
    left.minorticks_off()
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
    if "--check" in sys.argv[1:]:
        wrong = [str(path.relative_to(PROJECT)) for path, text in texts().items() if text != path.read_text()]
        if wrong:
            print(f"{', '.join(wrong)}: not what the records say; run `python scripts/readme.py`")
        return int(bool(wrong))
    for path, text in texts().items():
        path.write_text(text)
    draw()
    print(f"wrote README.md, those of the workloads, pages of docs/suite and {FIGURE.relative_to(PROJECT)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

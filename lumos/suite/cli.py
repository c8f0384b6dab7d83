"""The command ``lumos``: one thin layer over what the suite does, a function for each sub-command.

Words of the form ``KEY=VALUE`` are Hydra's, everywhere. What a sub-command needs is imported when it runs, so that
those that read records start without torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from lumos import __version__
from lumos.errors import ConfigError
from lumos.suite import paths
from lumos.suite.exit_codes import exit_on_error
from lumos.suite.wording import did_you_mean, one_of

WORDS = {"ignore_unknown_options": True, "allow_interspersed_args": True, "help_option_names": ["-h", "--help"]}


class Commands(click.Group):
    """A group of commands that knows what a mistyped one may have meant, and keeps the order of their definition."""

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        """Find the sub-command, of one word or of two. Raises ConfigError where there is none of this name."""
        both = self.get_command(ctx, " ".join(args[:2]))
        if both is not None and len(args) > 1:
            return both.name, both, args[2:]
        if args and self.get_command(ctx, args[0]) is None:
            known = self.list_commands(ctx)
            raise ConfigError(f"{args[0]}: there is no such command{did_you_mean(args[0], known)}; expected "
                              f"{one_of(known)}")  # fmt: skip
        return super().resolve_command(ctx, args)

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The names, as they are defined."""
        return list(self.commands)


def main(arguments: Sequence[str] | None = None, program: str = "lumos") -> None:
    """Run the command and end the process on an error: one line on stderr, code 2 for a wrong word, 1 for a failure.

    Args:
        arguments: The words; those of the process where None.
        program: How the process was started: ``lumos`` or ``run.py``.
    """
    with exit_on_error():
        try:
            lumos.main(arguments, prog_name="lumos", standalone_mode=False, obj=program)
        except click.ClickException as error:
            raise ConfigError(error.format_message().rstrip(".").replace("\n", " ")) from None
        except click.exceptions.Abort:
            raise KeyboardInterrupt from None


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120})
@click.version_option(__version__, message="%(version)s")
def lumos() -> None:
    """L0 gates on every input feature and unit of a PyTorch model: train once, cut the closed ones out, keep the same
    function. This command runs the benchmark suite and reads its records.

    \b
    lumos run workload=cfd scale=tiny      train a workload dense and gated, cut, verify, measure, record
    lumos list                             all runs as a table
    lumos COMMAND --help                   what a command takes
    """


def _choices(group: str) -> str:
    return ", ".join(sorted(path.stem for path in (paths.CONF / group).glob("*.yaml")))


def _run_help() -> str:
    return f"""Train a workload dense and gated, cut, verify, measure, and write the record.

    WORDS are Hydra's. A run that is finished is shown and not done again; one that was stopped goes on.

    \b
    lumos run workload=cfd                               the default, at scale=small
    lumos run workload=cfd lumos.lambda=1e-3 scale=tiny
    lumos run workload=cfd lumos.target.params=0.1       a tenth of the parameters
    lumos run workload=cfd lumos.tolerance=0.01          as small as 1% of the score allows
    lumos run -m workload=cfd,fluid seed=0,1,2           a sweep over all combinations
    lumos run -m … hydra/launcher=slurm                  each of its runs as a Slurm job
    lumos run workload=cfd --cfg job --resolve           the configuration, and nothing else
    lumos run --hydra-help                               Hydra's own options

    \b
    workload=    {_wrapped(_choices("workload"))}
    scale=       tiny (seconds), small (minutes on a CPU), paper
    lumos.       lambda, or target.params, target.macs, target.features, or tolerance; and the gates' settings
    method=      {_wrapped(_choices("method"))}
    +experiment= {_wrapped(_choices("experiment"))}
    data=public data.root=PATH                           the published files in place of generated samples
    paths.results=FOLDER                                 where records go (or set LUMOS_RESULTS)

    Every key has a comment in {paths.CONF}.
    """


def _wrapped(text: str) -> str:
    import textwrap

    return ("\n" + 17 * " ").join(textwrap.wrap(text, 80))


@lumos.command(
    help=_run_help(), short_help="Train a workload dense and gated, cut, verify, measure, record.",
    context_settings={**WORDS, "allow_interspersed_args": False}, options_metavar="[-m] [HYDRA'S OPTIONS]",
)  # fmt: skip
@click.argument("words", nargs=-1, type=click.UNPROCESSED)
@click.pass_obj
def run(program: str, words: tuple[str, ...]) -> None:
    """Hand the words to Hydra."""
    from lumos.suite.run import main as run_main

    run_main(words, program=program if program != "lumos" else "lumos run")


@lumos.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.argument("words", nargs=-1, metavar="[KEY=VALUE]...")
@click.option("--targets", required=True, metavar="A,B", help="The columns to predict.")
@click.option("--tolerance", type=float, help="How much worse the score may be, 0.01 for 1%  [default: 0.01]")
@click.option("--features", type=int, help="Keep so many columns.")
@click.option("--params", type=float, help="Keep this share of the dense network's parameters.")
@click.option("--latency", type=float, help="Take this share of the time of a dense call, as measured here.")
@click.option("--lambda", "strength", type=float, help="What a gate costs, in units of the loss.")
@click.option("--inputs", metavar="A,B", help="The columns to learn from; all others by default.")
@click.option("--drop", metavar="A,B", help="Columns to leave out: an id, say.")
@click.option("--keep", metavar="A,B", help="Columns that stay, whatever they are worth.")
@click.option("--categories", metavar="A,B", help="Columns of numbers that are categories; those of text are.")
@click.option("--split-by", metavar="COLUMN", help="Hold out whole groups: shots, samples, subjects.")
@click.option("--split-time", metavar="COLUMN", help="Hold out the last rows by this column.")
@click.option("--group", help="The group of an HDF5 or NetCDF file that holds the table.")
@click.option("--seed", type=int, help="Of the split and the training.")
def fit(
    file: Path, words: tuple[str, ...], targets: str, tolerance: float | None, features: int | None,
    params: float | None, latency: float | None, strength: float | None, inputs: str | None, drop: str | None,
    keep: str | None, categories: str | None,
    split_by: str | None, split_time: str | None, group: str | None, seed: int | None,
) -> None:  # fmt: skip
    """Find the columns of a table that a small network needs to predict others.

    FILE is CSV, Parquet, HDF5 or NetCDF. It is the workload `table`: KEY=VALUE are its keys and those of `lumos run`.

    \b
    lumos fit flux.parquet --targets fx,fy --tolerance 0.01
    lumos fit shots.csv --targets power --split-by shot --features 6 workload.widths=[64,64]
    lumos fit shots.csv --targets power --keep current lumos.groups={coils:[c1,c2,c3]} lumos.prices={laser:10}
    """
    from lumos.suite import fit_file
    from lumos.suite.run import main as run_main

    goal = {"tolerance": tolerance, "target.features": features, "target.params": params, "target.latency": latency,
            "lambda": strength}  # fmt: skip
    listed = {"inputs": inputs, "drop": drop, "categories": categories, "keep": keep}
    settings = {key: [n.strip() for n in value.split(",")] for key, value in listed.items() if value}
    settings |= {"split_by": split_by, "split_time": split_time, "group": group, "seed": seed}
    made = [*fit_file.words_of(file, targets, goal, settings), *words]
    run_main(made, program="lumos run")
    click.echo("\n".join(fit_file.report_of(made)))


@lumos.command()
@click.argument("run", metavar="RUN")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("-o", "--out", type=click.Path(path_type=Path), metavar="FILE.csv|FILE.parquet",
              help="The file to write  [default: NAME_predicted.csv]")  # fmt: skip
@click.option("--group", default="", help="The group of an HDF5 or NetCDF file that holds the table.")
def predict(run: str, file: Path, out: Path | None, group: str) -> None:
    """Predict the rows of another file with the network that `lumos fit` found.

    RUN is the folder of the run or the beginning of its id. FILE needs the columns that the network kept.

    \b
    lumos predict 13d7bcc5a9d4 new.csv -o fluxes.csv
    """
    from lumos.suite.fit_file import predict_file

    click.echo("\n".join(predict_file(run, file, out, group)))


@lumos.command()
@click.argument("words", nargs=-1, metavar="[KEY=VALUE]...")
def explain(words: tuple[str, ...]) -> None:
    """Show what can be removed from a workload's network, and what cannot and why.

    \b
    lumos explain workload=cfd
    lumos explain workload=stemdl lumos.streams=true
    """
    from lumos.suite.config import compose, read
    from lumos.suite.workload_class import build_workload

    cfg = compose(words)
    settings = read(cfg).lumos
    from lumos.compaction.explain import explain as explained
    from lumos.suite.workload import outline

    workload = build_workload(cfg)
    model, inputs = outline(workload)
    asked = settings.constraints
    click.echo(explained(model, inputs, features=workload.features(), options=settings.structure, keep=asked.keep,
                         exclude=asked.exclude, groups=asked.groups))  # fmt: skip


@lumos.command()
@click.argument("run", metavar="RUN")
@click.argument("words", nargs=-1, metavar="[data.KEY=VALUE]...")
@click.option("--to", "path", type=click.Path(path_type=Path), required=True, metavar="FILE.onnx|FILE.pt2",
              help="The file to write; its ending says the format.")  # fmt: skip
@click.option("--aoti", is_flag=True, help="A .pt2 compiled for this machine, for C++ (AOTInductor).")
@click.option("--reduced", is_flag=True, help="The file takes the kept features only.")
def export(run: str, words: tuple[str, ...], path: Path, aoti: bool, reduced: bool) -> None:
    """Write the compact model of a run as a file for other programs.

    RUN is the folder of a finished run, its compact.pt, or the beginning of its id.

    \b
    lumos export 13d7bcc5a9d4 --to cfd.onnx
    """
    from lumos.suite.export_run import export_run

    click.echo(export_run(run, path, list(words), aoti=aoti, reduce=reduced))


# ---- records --------------------------------------------------------------------------------------------------------


@lumos.command(name="list")
@click.argument("folders", nargs=-1, type=click.Path(path_type=Path), metavar="[PLACE]...")
@click.option("--workload", help="Runs of this workload only.")
@click.option("--method", help="Runs of this method only: lumos, dense, l1 …")
@click.option("--scale", help="Runs at this scale only.")
@click.option("--status", help="Runs of this status only: finished, failed, stopped …")
@click.option("--pareto", is_flag=True, help="Only runs than which no other is smaller and no worse.")
def list_runs(
    folders: tuple[Path, ...], workload: str | None, method: str | None, scale: str | None, status: str | None,
    pareto: bool,
) -> None:  # fmt: skip
    """List runs as a table.

    PLACE is a results folder or an archive of runs; the folder of the runs and the committed records unless given.
    """
    from lumos.suite import report
    from lumos.suite.report.results import Results, method_of, pareto_front

    for folder in folders:
        if not folder.exists():
            raise ConfigError(f"{folder}: there is no such folder or archive")
    wanted = {"workload": workload, "status": status}
    entries = [
        e for e in Results(folders or paths.RESULTS, scale).records if all(v in (None, e[k]) for k, v in wanted.items())
    ]
    entries = [e for e in entries if method in (None, method_of(e))]
    _console().print(report.runs_table(pareto_front(entries) if pareto else entries))


@lumos.command()
@click.argument("places", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="PLACE...")
@click.option("-o", "--out", type=click.Path(path_type=Path), required=True, metavar="FILE.jsonl.gz",
              help="The archive to write, *.jsonl or *.jsonl.gz; one that is there is replaced.")  # fmt: skip
@click.option("--without", multiple=True, metavar="PATTERN",
              help="Leave out files of this name, such as '*.pt'; can be given again.")  # fmt: skip
def pack(places: tuple[Path, ...], out: Path, without: tuple[str, ...]) -> None:
    """Pack runs into one file, an archive, which all commands read as they read folders.

    PLACE is a results folder, the folder of a run, or an archive; a run that is in several counts once.

    \b
    lumos pack results -o mine.jsonl.gz
    lumos pack mine.jsonl.gz results/runs/cfd/13d7bcc5a9d4 -o mine.jsonl.gz      add a run to it
    """
    from lumos.suite import archive

    click.echo(f"wrote {out}: {archive.pack(places, out, without)} runs, {out.stat().st_size / 1e6:.2f} MB")


@lumos.command()
@click.argument("path", type=click.Path(path_type=Path), metavar="ARCHIVE")
@click.argument("ids", nargs=-1, metavar="[RUN_ID]...")
@click.option("-o", "--out", type=click.Path(path_type=Path), required=True, metavar="FOLDER",
              help="The results folder in which the runs' folders are made.")  # fmt: skip
def unpack(path: Path, ids: tuple[str, ...], out: Path) -> None:
    """Unpack runs of an archive into folders, with the bytes that the runs wrote.

    All of them, or those whose ids begin with one of RUN_ID.

    \b
    lumos unpack results/reference/suite.jsonl.gz 3240 -o some/folder
    """
    from lumos.suite import archive

    for folder in archive.unpack(path, out, ids):
        click.echo(folder)


def _results_option(function: Any) -> Any:
    return click.option(
        "--results", "places", multiple=True, type=click.Path(path_type=Path), metavar="PLACE", default=paths.RESULTS,
        help="Read the runs of this results folder or archive; can be given again.",
    )(function)  # fmt: skip


@lumos.command()
@click.argument("first", metavar="RUN")
@click.argument("second", metavar="RUN")
@_results_option
def compare(first: str, second: str, places: tuple[Path, ...]) -> None:
    """Compare two runs: figures, whether scores differ by more than their standard error, configuration, features.

    RUN is a record's file or folder, or the beginning of its id. Where both are there for several seeds, scores are
    compared over the seeds.
    """
    from lumos.suite import archive
    from lumos.suite.report import compare as pair
    from lumos.suite.report.results import Results

    a, b = (archive.find(name, places).record for name in (first, second))
    console = _console(None)
    console.print(pair.table(a, b))
    known = Results(places)
    for line in [*pair.verdicts(a, b, (known.group_of(a), known.group_of(b))), *pair.lines(a, b)]:
        console.print(line, markup=False, highlight=False, soft_wrap=True)


def _evaluation_options(function: Any) -> Any:
    """The options of the commands that read records: which ones, and what to compare them with."""
    out = click.option("--out", type=click.Path(path_type=Path), help="Where to write.")
    scale = click.option("--scale", help="Only runs at this scale.")
    paper = click.option("--paper", type=click.Path(path_type=Path), help="Other published numbers.")
    return _results_option(paper(scale(out(function))))


@lumos.command()
@_evaluation_options
def figures(places: tuple[Path, ...], paper: Path | None, scale: str | None, out: Path | None) -> None:
    """Make every table and figure of the evaluation from records alone: CSV, LaTeX, PDF and PNG."""
    import time

    from lumos.suite.report import build
    from lumos.suite.report.published import PUBLISHED

    started, out = time.perf_counter(), out or paths.RESULTS[0] / "figures"
    data = build.evaluation(places, paper or PUBLISHED, scale)
    build.write_tables(data, out)
    names = build.write_figures(data, out)
    missing = [w for w in data.paper.workloads if w not in data.headlines]
    click.echo(
        f"{len(data.results.finished)} finished runs of {len(data.headlines)} workloads"
        + (f"; no record of {', '.join(missing)}" if missing else "")
    )
    for name in (name for name in build.figure_names() if name not in names):
        click.echo(f"{name}: no record has what it shows; its table has dashes")
    click.echo(f"wrote {out} in {time.perf_counter() - started:.0f} s")


@lumos.command()
@_evaluation_options
def report(places: tuple[Path, ...], paper: Path | None, scale: str | None, out: Path | None) -> None:
    """Make one page with every table, figure and record; it opens in any browser, without a network."""
    from lumos.suite.report import build
    from lumos.suite.report.published import PUBLISHED

    out = out or paths.RESULTS[0] / "report.html"
    build.write_page(build.evaluation(places, paper or PUBLISHED, scale), out)
    click.echo(f"wrote {out} ({out.stat().st_size / 1e6:.1f} MB); it opens in any browser, without a network")


# ---- studies --------------------------------------------------------------------------------------------------------


@lumos.command()
@click.argument("words", nargs=-1, metavar="[KEY=VALUE]...")
@click.option("--only", metavar="A,B", help="These workloads only.")
@click.option("--ask", metavar="A,B", help="Some of tolerance,reductions  [default: both]")
@click.option("--seeds", default="0", metavar="0,1", show_default=True, help="A run for each of these seeds.")
@click.option("--minutes", type=float, help="Stop a run after so many minutes.")
def suite(words: tuple[str, ...], only: str | None, ask: str | None, seeds: str, minutes: float | None) -> None:
    """Run every workload, dense and gated, at scale=small, one after the other.

    Two questions are asked: how small within 1% of the dense network's validation score (tolerance), and how good at
    the paper's reductions (reductions). The dense network is trained once for both. What is finished is not run again,
    so that a suite that was stopped goes on where it was. KEY=VALUE holds for all runs; conf/suite.yaml has the rest.
    """
    from lumos.suite.run_suite import run_suite

    if not run_suite(words, only=only, ask=ask, seeds=seeds, minutes=minutes):
        raise click.exceptions.Exit(1)


@lumos.command("suite features")
@click.option("--problems", default="", metavar="A,B", help="Some of ring,xor,ring+xor,ring+xor+sum  [default: all]")
@click.option(
    "--m", "sizes", default="", metavar="A,B", help="Some of the numbers of features, 2 to 2048  [default: all]"
)
@click.option("--folds", type=int, default=6, show_default=True, help="So many of the six folds.")
@click.option("--methods", default="lumos,screening,pearson,random_forest", metavar="A,B", show_default=True,
              help="Some of lumos,screening,gates,random_forest,mutual_information,lasso,pearson.")  # fmt: skip
@click.option("--seed", type=int, default=0, show_default=True, help="Of the rows.")
@click.option("--minutes", type=float, help="Begin no further cell after so many minutes.")
@click.option(
    "--records", type=click.Path(path_type=Path), help="The file of records  [default: in the results folder]"
)
@click.option("--out", type=click.Path(path_type=Path), help="Folder of CSV and figure  [default: beside the records]")
@click.option("--draw", is_flag=True, help="Run nothing; table and figure from the records alone.")
def suite_features(
    problems: str, sizes: str, folds: int, methods: str, seed: int, minutes: float | None, records: Path | None,
    out: Path | None, draw: bool,
) -> None:  # fmt: skip
    """Find features that carry a nonlinear signal among noise: a public benchmark, beside its published figures.

    The four problems of Passemiers et al. (Scientific Reports 2024). A cell is a problem, a number of features, a fold
    and a method; each finished one is a line of the records, so that the same command goes on after a stop.

    \b
    lumos suite features --m 2,16,128 --folds 2 --minutes 5
    lumos suite features --draw --records results/reference/feature_selection.ndjson --out FOLDER
    """
    from lumos.suite.selection import study, table

    def listed(text: str) -> list[str]:
        return [word.strip() for word in text.split(",") if word.strip()]

    path = records or paths.RESULTS[0] / "feature_selection.ndjson"
    if not all(word.isdigit() for word in listed(sizes)):
        raise ConfigError(f"--m {sizes}: expected whole numbers with commas between them")
    finished = True
    if not draw:
        wanted = study.cells(listed(problems), [int(m) for m in listed(sizes)], folds, listed(methods), seed)
        finished = study.run_study(wanted, path, minutes, click.echo)
    if not path.exists():
        raise ConfigError(f"{path}: there are no records; run the command without --draw")
    rows = [*table.summarise([r for r in study.read(path) if r["seed"] == seed]), *table.published()]
    click.echo("\n".join(table.markdown(rows)))
    click.echo("wrote " + ", ".join(str(made) for made in table.write(rows, out or path.parent)))
    if not finished:
        raise click.exceptions.Exit(1)


@lumos.command("suite sensitivity")
@click.argument("words", nargs=-1, metavar="[KEY=VALUE]...")
@click.option("--only", metavar="A,B", help="These workloads only.")
@click.option("--widths", default="1/8,1/4,1/2,1", metavar="A,B", show_default=True, help="Shares of the widths.")
@click.option("--seeds", default="100,101,102", metavar="A,B", show_default=True, help="A run for each of these seeds.")
@click.option("--minutes", type=float, help="Begin no further run after so many minutes.")
@click.option("--draw", type=click.Path(path_type=Path), metavar="PLACE",
              help="Run nothing; table and figure from this results folder or archive.")  # fmt: skip
@click.option("--out", type=click.Path(path_type=Path), help="Folder of CSV and figure  [default: beside the records]")
def suite_sensitivity(
    words: tuple[str, ...], only: str | None, widths: str, seeds: str, minutes: float | None, draw: Path | None,
    out: Path | None,
) -> None:  # fmt: skip
    """Train the dense network of every workload at several widths: does its size matter there?

    What is finished is not run again, so that the same command goes on after a stop. The runs go to the folder
    sensitivity/ of the results folder, where no other table reads them. KEY=VALUE holds for all runs.

    \b
    lumos suite sensitivity --only cfd,synthetic --minutes 30 trainer.threads=1
    lumos suite sensitivity --draw results/studies/sensitivity.jsonl.gz --out FOLDER
    """
    from lumos.suite import sensitivity
    from lumos.suite.report import sensitivity as table

    place, finished = draw or paths.RESULTS[0] / "sensitivity", True
    if draw is None:
        wanted = sensitivity.cells(only, widths, seeds)
        finished = sensitivity.run_study(wanted, [f"paths.results={place}", *words], minutes, click.echo)
    rows = table.read(place)
    click.echo("\n".join(table.markdown(table.curves(rows))))
    beside = place if place.is_dir() else place.parent
    click.echo("wrote " + ", ".join(str(made) for made in table.write(rows, out or beside)))
    if not finished:
        raise click.exceptions.Exit(1)


@lumos.command("feature-report")
@click.argument("runs", nargs=-1, metavar="[RUN|KEY=VALUE]...")
@click.option("--seeds", is_flag=True, help="Also the runs beside it that differ only in their seed.")
@click.option("--methods", default="lasso,stg,lassonet", show_default=True, help="Selections beside it; empty: none.")
@click.option("--table", type=click.Path(path_type=Path),
              help="The CSV  [default: feature_report.csv in the run's folder]")  # fmt: skip
@click.option("--figure", type=click.Path(path_type=Path), help="The figure, .png, .pdf or .svg  [default: beside it]")
@click.option("--draw", type=click.Path(path_type=Path), metavar="CSV", help="Draw a report's figure again.")
def feature_report(
    runs: tuple[str, ...], seeds: bool, methods: str, table: Path | None, figure: Path | None, draw: Path | None
) -> None:
    """Report what became of every input feature of a run, or over several seeds: one CSV and one figure.

    \b
    lumos feature-report RUN                                 one run, by its folder or id
    lumos feature-report RUN --seeds                         and the runs that differ only in their seed
    lumos feature-report workload=cfd lumos.lambda=1e-3      the run that `lumos run` makes of these words
    lumos feature-report --draw TABLE.csv                    the figure again, from the CSV alone
    """
    from lumos.suite.feature_report import redraw, report_features

    names = [name for name in methods.split(",") if name]
    lines = redraw(draw, figure) if draw else report_features(runs, seeds, names, table, figure)
    click.echo("\n".join(lines))


@lumos.group("sweep")
def sweep_group() -> None:
    """Look after a sweep whose jobs are at work, or were.

    \b
    lumos sweep status results/sweeps/2026-11-27_02-00-00
    """


@sweep_group.command("status")
@click.argument("folder", type=click.Path(path_type=Path))
def sweep_status(folder: Path) -> None:
    """Show what has become of each job of a sweep so far; the process that started it may have ended.

    FOLDER is the sweep's folder, RESULTS/sweeps/DATE_TIME. The code is 1 where jobs failed.

    \b
    lumos sweep status results/sweeps/2026-11-27_02-00-00
    """
    from lumos.suite import sweep

    if sweep.status(folder, _console()):
        raise SystemExit(1)


@lumos.command("in-the-loop")
@click.argument("words", nargs=-1, metavar="RUN|[KEY=VALUE]...")
@click.option("--steps", type=click.IntRange(min=1), help="How far to run on  [default: the simulation's own]")
@click.option("--threads", type=click.IntRange(min=1), default=1, show_default=True,
              help="Threads of the networks; with one, times are the processor's.")  # fmt: skip
@click.option("--out", type=click.Path(path_type=Path), help="Folder of the JSON and the CSV.")
def in_the_loop(words: tuple[str, ...], steps: int | None, threads: int, out: Path | None) -> None:
    """Replace a simulation's kernel by the networks of a run and run on: drift, error and speed.

    Trains nothing. RUN is the folder or id of a finished run; in its place KEY=VALUE, what `lumos run` made it of.

    \b
    lumos in-the-loop workload=cfd
    lumos in-the-loop 3240cc39c0ee --steps 50
    """
    from lumos.suite.in_the_loop import run_in_the_loop

    run_in_the_loop(words, steps=steps, threads=threads, folder=out)


def _console(width: int | None = 200) -> Any:
    """Where tables go: as wide as the terminal, or as given where there is none."""
    from rich.console import Console

    console = Console()
    return console if console.is_terminal or width is None else Console(width=width)

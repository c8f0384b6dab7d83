"""Wrong command lines, drawn: each is one that works, with words exchanged by what no one meant."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any

import click
from omegaconf import OmegaConf

from lumos.suite import cli
from lumos.suite.config import compose

SMALL = ("scale=tiny", "trainer.max_steps=4", "trainer.device=cpu")
VALUES = (
    "null", "''", "-1", "0", "1.5", "1e11", "1e400", "nan", "[]", "{}", "text", "true", "[1,text]", "{a:1}",
    "18446744073709551616", "'a\nb'", "../x", "[null]", "[-1]", "[[1]]", "${nothing}", "${oc.env:HOME}", "é", "9" * 30,
    "[a,b", "{a:", "'", "\\", "=", "a=b", "1,2", "range(3)", "glob(*)", "choice(1)", "%", "\x1b[31m", " ",
)  # fmt: skip
"""What stands for a value, in Hydra's grammar or out of it."""
JUNK = ("", "=", "~", "+", "++", "~~", "a", "--", "-", "---", "-m", "workload", "workload=", "=cfd", "+workload=cfd",
        "~workload", "~lumos", "a.b.c=1", "lumos", "lumos.=1", ".lambda=1", "{", "}", "[", "'", '"', "\\", "$", "${",
        "@", "a@b=c", "--nothing", "--nothing=1", "-x", "--help=1", "--cfg", "--cfg=x", "--multirun=1", "é=ü", "\n",
        "workload=cfd,fluid", "seed=0,1", "hydra/launcher=none", "hydra.sweep.dir=", "+hydra=1",
        "nothing.csv", "a" * 5000)  # fmt: skip
"""Words that are none."""
FILES = ("t.csv", "t.parquet", "t.h5", "t.nc", "mine.csv", "old.jsonl.gz", "report.csv", "study.ndjson", "study", "..",
         "nowhere", "nowhere/at/all", "", ".", "../results", "../results/suite", "a\nb", "x" * 300, "/proc/nothing",
         "../..", "é.csv", "t.csv/below")  # fmt: skip
"""Places: files of every kind, folders, and what is nowhere; none where something else than a trial's could be hurt."""


def working(ids: Mapping[str, str]) -> list[tuple[float, tuple[str, ...]]]:
    """Command lines that work in the sandbox, with how often each is to be drawn.

    Args:
        ids: Run ids by workload.
    """
    synthetic, table = ids["synthetic"], ids["table"]
    folder = f"../results/runs/synthetic/{synthetic}"
    return [
        (8, ("run", "workload=synthetic", *SMALL, "lumos.lambda=0.01")),
        (2, ("run", "workload=cfd", *SMALL)),
        (2, ("run", "workload=molhiv", "workload.smiles=mine.csv", *SMALL)),
        (2, ("run", "workload=table", "data.root=t.csv", "workload.targets=[y]", *SMALL)),
        (2, ("run", "-m", "workload=synthetic", "seed=1,2", *SMALL)),
        (3, ("run", "workload=synthetic", *SMALL, "method=l1", "method.target=0.5")),
        (3, ("run", "workload=synthetic", *SMALL)),
        (2, ("run", "workload=synthetic", *SMALL, "--cfg", "job", "--resolve")),
        (6, ("fit", "t.csv", "--targets", "y", "--lambda", "0.01", *SMALL)),
        (2, ("fit", "t.parquet", "--targets", "y", "--features", "2", *SMALL)),
        (2, ("fit", "t.h5", "--targets", "y", "--inputs", "a,b", *SMALL)),
        (2, ("fit", "t.nc", "--targets", "y", "--params", "0.5", *SMALL)),
        (4, ("predict", table, "t.csv", "-o", "out.csv")),
        (2, ("predict", table, "t.parquet", "-o", "out.parquet")),
        (3, ("explain", "workload=cfd", "scale=tiny")),
        (3, ("export", folder, "--to", "out.onnx")),
        (4, ("list", "../results", "--status", "finished")),
        (4, ("list", "old.jsonl.gz", "--pareto")),
        (4, ("list",)),
        (3, ("pack", "../results", "-o", "new.jsonl.gz", "--without", "*.pt")),
        (3, ("unpack", "old.jsonl.gz", synthetic[:6], "-o", "back")),
        (4, ("compare", folder, f"../results/runs/table/{table}")),
        (2, ("figures", "--results", "../results", "--out", "out")),
        (2, ("report", "--results", "../results", "--out", "out.html")),
        (2, ("suite", "--only", "synthetic", "--seeds", "0", "--minutes", "0.2", *SMALL)),
        (2, ("suite features", "--m", "2", "--problems", "ring", "--folds", "1", "--methods", "pearson",
             "--records", "study.ndjson", "--out", "out")),
        (3, ("feature-report", synthetic, "--methods", "", "--table", "out.csv")),
        (3, ("feature-report", "--draw", "report.csv", "--figure", "out.png")),
        (3, ("sweep", "status", "SWEEP")),
        (2, ("in-the-loop", "workload=cfd", *SMALL, "--steps", "2", "--out", "out")),
    ]  # fmt: skip


@cache
def keys(workload: str) -> tuple[str, ...]:
    """All keys of a workload's configuration, with the groups that they are in."""

    def walk(config: Mapping[str, Any], above: str = "") -> Iterator[str]:
        for key, value in config.items():
            yield above + key
            if isinstance(value, Mapping):
                yield from walk(value, f"{above}{key}.")

    found: Any = OmegaConf.to_container(compose([f"workload={workload}"]), resolve=False)
    return tuple(walk(found))


@cache
def options(command: str) -> tuple[str, ...]:
    """The options that a command takes."""
    found: Any = cli.lumos.commands.get(command)
    if isinstance(found, click.Group):
        found = next(iter(found.commands.values()))
    return tuple(o for p in found.params if isinstance(p, click.Option) for o in p.opts) if found else ()


def wrong(words: tuple[str, ...], draws: random.Random) -> tuple[str, ...]:
    """Exchange one or two words of a command line."""
    out = list(words)
    for _ in range(draws.choice((1, 1, 2))):
        at = draws.randrange(1, len(out)) if len(out) > 1 else 1
        kind = draws.random()
        if kind < 0.35 and any("=" in word for word in out[1:]):
            out = _wrong_value(out, draws)
        elif kind < 0.5 and options(out[0]):
            value = draws.choice((*VALUES, *FILES))
            out[at:at] = draws.choice(([draws.choice(options(out[0])), value], [draws.choice(options(out[0]))]))
        elif kind < 0.65:
            out[at : at + 1] = [draws.choice(FILES)]
        elif kind < 0.75:
            out[at:at] = [draws.choice(JUNK)]
        elif kind < 0.82:
            del out[at : at + 1]
        elif kind < 0.92 and at < len(out) and out[at]:
            out[at] = _mistyped(out[at], draws)
        elif at < len(out):
            out[at] = draws.choice((*JUNK, *VALUES))
    return tuple(word.replace("\0", "") for word in out)


def _wrong_value(words: list[str], draws: random.Random) -> list[str]:
    """A key that is there, or any other of the configuration, gets a value that it is not meant for."""
    workload = next((w.partition("=")[2] for w in words if w.startswith("workload=")), "table")
    known = keys(workload) if workload in ("synthetic", "cfd", "molhiv", "table") else keys("synthetic")
    given = [k for k, word in enumerate(words) if k and "=" in word and not word.startswith("-")]
    value = draws.choice(VALUES)
    if draws.random() < 0.4 and given:
        at = draws.choice(given)
        return [*words[:at], f"{words[at].partition('=')[0]}={value}", *words[at + 1 :]]
    sign = draws.choice(("", "", "", "+", "++", "~"))
    return [*words, f"{sign}{draws.choice(known)}" + ("" if sign == "~" and draws.random() < 0.5 else f"={value}")]


def _mistyped(word: str, draws: random.Random) -> str:
    at = draws.randrange(len(word))
    kind = draws.randrange(4)
    other = draws.choice("=,.[]{}'\"$\\ ~+-@:x0é\n")
    return (word[:at] + word[at + 1 :], word[:at] + other + word[at:], word[:at] + other + word[at + 1 :], word * 2)[
        kind
    ]


def own_places(words: tuple[str, ...]) -> list[str]:
    """Where a command line asks to write, below the folder that it is called in, as far as its words say."""
    found = []
    for number, word in enumerate(words):
        if word.startswith("-"):
            name, sign, value = word.partition("=")
            value = value if sign else (words[number + 1] if number + 1 < len(words) else "")
            if name in ("-o", "--out", "--to", "--table", "--figure", "--records"):
                found.append(value)
        for key in ("paths.results", "paths.cache", "data.cache", "hydra.sweep.dir", "hydra.run.dir", "paths"):
            if word.lstrip("+").startswith(f"{key}="):
                found.append(word.partition("=")[2].strip("'"))
    return [place for place in found if place.strip()]  # nothing is no place

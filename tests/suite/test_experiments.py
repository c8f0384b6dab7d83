"""conf/experiment: each file composes, asks for what its keys may be, and the suite's is the one of `make suite`."""

import re

import pytest
import yaml
from hydra.core.override_parser.overrides_parser import OverridesParser

from lumos.suite.config import read
from lumos.suite.paths import PROJECT
from lumos.suite.run_suite import Settings
from tests.configurations import composed

FILES = sorted((PROJECT / "conf" / "experiment").glob("*.yaml"))
SWEPT = [path for path in FILES if path.stem != "adaptive"]


def values(key, words):
    """All values that a sweep gives a key."""
    if words == "glob(*)":
        return [p.stem for p in (PROJECT / "conf" / key).glob("*.yaml")]
    (override,) = OverridesParser.create().parse_overrides([f"{key}={words}"])
    return list(override.sweep_iterator()) if override.is_sweep_override() else [str(words)]


@pytest.mark.parametrize(
    "path",
    [path if path.stem == "lambda" else pytest.param(path, marks=pytest.mark.slow) for path in SWEPT],
    ids=lambda p: p.stem,
)
def test_every_value_of_an_experiment_is_a_valid_run(path):
    params = yaml.safe_load(path.read_text())["hydra"]["sweeper"]["params"]
    every = {key: values(key, str(words)) for key, words in params.items()}
    assert all(every.values())
    first = {key: found[0] for key, found in every.items()}
    for key, found in every.items():
        for value in found:
            chosen = {"workload": "cfd", **first, key: value}
            keys = [f"{k}={v}" for k, v in chosen.items()]
            if key != "method" and path.stem in ("pareto", "table3"):
                keys.append("method=lumos")
            # a target belongs to a method that has one
            keys = [k for k in keys if "method=dense" not in keys or not k.startswith("method.target")]
            read(composed([f"+experiment={path.stem}", *keys]))


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)
def test_the_call_in_an_experiments_first_lines_is_of_that_experiment(path):
    call = re.search(r"python run\.py (?:-m )?\+experiment=(\w+)", path.read_text())
    assert call
    assert call[1] == path.stem


@pytest.mark.slow
@pytest.mark.parametrize(("experiment", "question"), [("suite", "tolerance"), ("reductions", "reductions")])
def test_an_experiment_makes_the_suites_runs(experiment, question):
    asked = Settings.read()
    for workload in values("workload", "glob(*)"):
        suite = read(composed([f"workload={workload}", "scale=small", *asked.words(workload, question)]))
        other = read(composed([f"+experiment={experiment}", f"workload={workload}"]))
        assert other.run_id == suite.run_id, f"{workload}: {experiment}.yaml lacks a key of conf/suite.yaml"


def test_the_docs_name_every_experiment():
    text = (PROJECT / "docs" / "suite" / "evaluation.md").read_text()
    assert [p.stem for p in FILES if f"`{p.stem}`" not in text] == []

"""From Hydra's tree to dataclasses: what is renamed, what is refused, what names a run."""

import pytest
from hydra import compose, initialize_config_dir
from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException

from lumos.cli import explain
from lumos.config import PROJECT, read, register_resolvers
from lumos.errors import ConfigError


def config(*overrides: str):
    register_resolvers()
    with initialize_config_dir(str(PROJECT / "conf"), version_base="1.3"):
        return compose("config", list(overrides))


def test_lambda_is_renamed_here_and_nowhere_else():
    assert read(config("lumos.lambda=0.25")).lumos.lambda_ == 0.25


def test_scale_chooses_the_values():
    widths = {scale: read(config(f"scale={scale}")).resolved["workload"]["widths"] for scale in ("tiny", "paper")}
    assert widths == {"tiny": [32, 32], "paper": [784, 300, 100]}


def test_an_override_beats_the_scale():
    assert read(config("scale=paper", "workload.epochs=3")).resolved["workload"]["epochs"] == 3


def test_the_run_id_leaves_the_machine_out():
    base = read(config())
    machine = ("paths.results=/elsewhere", "force=true", "trainer.threads=7", "trainer.device=cpu", "data.workers=3")
    for override in machine:
        assert read(config(override)).run_id == base.run_id, override
    for override in ("seed=1", "lumos.lambda=2e-3", "workload.epochs=3", "scale=tiny"):
        assert read(config(override)).run_id != base.run_id, override


def test_the_baseline_does_not_depend_on_the_gates():
    base = read(config())
    assert read(config("lumos.lambda=1", "lumos.tau=0.5")).baseline_id == base.baseline_id
    assert read(config("seed=1")).baseline_id != base.baseline_id


@pytest.mark.parametrize(
    ("override", "line"),
    [
        ("lumos.lambda=abc", "lumos.lambda=abc: expected a number"),
        ("lumos.lambda=true", "lumos.lambda=True: expected a number"),
        ("lumos.lambda=null", "lumos.lambda=null: expected a value"),
        ("lumos.lambda=inf", "lumos.lambda=inf: expected a number"),
        ("lumos.penalty=size", "lumos.penalty=size: expected one of gates, params, macs"),
        ("lumos.t_l=0.7", r"lumos.t_l=0.7: expected a number in \[0, 0.5\)"),
        ("lumos.freeze_at=1", "lumos.freeze_at=1.0: expected a number between 0 and 1"),
        ("lumos.warmup=-1", "lumos.warmup=-1.0"),
        ("lumos.learning_rate=0", "lumos.learning_rate=0.0: expected a number > 0"),
        ("trainer.device=gpu", "trainer.device=gpu: expected auto, cpu, cuda or cuda:N"),
        ("trainer.threads=0", "trainer.threads=0: expected a number > 0, or null"),
        ("trainer.max_steps=2.5", "trainer.max_steps=2.5: expected a whole number"),
        ("seed=-1", "seed=-1: expected a whole number >= 0"),
        ("force=maybe", "force=maybe: expected true or false"),
        ("+lumos.foo=1", "lumos.foo: there is no such key"),
        ("+sede=1", r"sede: there is no such key \(did you mean seed\?\)"),
        ("scale=huge", "scale=huge: expected one of tiny, small, paper"),
        ("scale=smal", r"expected one of tiny, small, paper \(did you mean small\?\)"),
    ],
)
def test_refused_in_one_line(override, line):
    with pytest.raises(ConfigError, match=line) as error:
        read(config(override))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("override", "line"),
    [
        ("workload=cdf", "workload=cdf: there is no such workload; expected one of cfd, "),
        ("lumos.lamda=1", "lumos.lamda: there is no such key (did you mean lambda?); expected one of lambda, penalty"),
        ("workload.epoch=1", "workload.epoch: there is no such key (did you mean epochs?)"),
        ("lumos=paper", "lumos=paper: there is no such lumos; expected one of default"),
        ("bogus", "Error parsing override 'bogus'"),
    ],
)
def test_hydras_own_errors_become_one_line(override, line):
    with pytest.raises((HydraException, OmegaConfBaseException)) as error:
        config(override)
    assert explain(error.value).startswith(line)
    assert "\n" not in explain(error.value)

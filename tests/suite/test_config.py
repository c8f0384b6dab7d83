"""From Hydra's tree to settings: what is refused, and how, and what names a run."""

import pytest

from lumos.errors import ConfigError
from lumos.suite.config import compose, read
from tests.configurations import composed


def config(*overrides: str):
    return composed(overrides)


def test_lambda_is_renamed_here_and_nowhere_else():
    assert read(config("lumos.lambda=0.25")).lumos.lambda_ == 0.25


def test_scale_chooses_the_values():
    widths = {scale: read(config(f"scale={scale}")).resolved["workload"]["widths"] for scale in ("tiny", "paper")}
    assert widths == {"tiny": [32, 32], "paper": [784, 300, 100]}


def test_an_override_beats_the_scale():
    assert read(config("scale=paper", "workload.epochs=3")).resolved["workload"]["epochs"] == 3


def test_gates_name_only_the_runs_that_have_them():
    by_method = {
        name: {read(config(f"method={name}", key)).run_id for key in ("lumos.tau=0.5", "lumos.tau=0.6")}
        for name in ("lumos", "scratch", "dense", "l1")
    }
    assert {name: len(ids) for name, ids in by_method.items()} == {"lumos": 2, "scratch": 2, "dense": 1, "l1": 1}


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


def test_what_is_not_used_is_no_part_of_an_id_and_what_is_of_both():
    base = read(config())
    assert read(config("trainer.ema=null")).run_id == base.run_id
    assert read(config("trainer.compile=false")).run_id == base.run_id
    assert not {"ema", "compile"} & set(base.resolved["trainer"])
    assert read(config("trainer.compile=true")).baseline_id != base.baseline_id
    older = config("workload=cfd", "lumos.lambda=1e-3", "workload.schedule=decay")  # as before there was a choice
    assert read(older).run_id == "13d7bcc5a9d4"
    assert "encoding" not in read(config("workload=table")).resolved["workload"]
    averaged = read(config("trainer.ema=0.999"))
    assert averaged.trainer.ema == 0.999
    assert averaged.run_id != base.run_id
    assert averaged.baseline_id != base.baseline_id


def test_what_is_asked_of_the_units_names_a_run_where_it_says_something():
    base = read(config())
    for unset in ("lumos.keep=[]", "lumos.exclude=null", "lumos.groups={}", "lumos.prices={}"):
        assert read(config(unset)).run_id == base.run_id, unset
    asked = ("lumos.keep=[a]", "lumos.exclude=[a]", "lumos.groups={p: [a, b]}", "lumos.prices={a: 2}")
    runs = [read(config(key)) for key in asked]
    assert len({run.run_id for run in (base, *runs)}) == 5
    assert {run.baseline_id for run in runs} == {base.baseline_id}
    assert runs[2].lumos.constraints.groups == {"p": ["a", "b"]}


def test_compiling_is_refused_for_several_processes():
    with pytest.raises(ConfigError, match=r"trainer.compile=true: expected null where trainer.devices or"):
        read(config("trainer.compile=true", "trainer.devices=2"))


@pytest.mark.parametrize(
    ("override", "line"),
    [
        ("lumos.lambda=abc", "lumos.lambda=abc: expected a number"),
        ("lumos.lambda=true", "lumos.lambda=true: expected a number"),
        ("lumos.tau=null", "lumos.tau=null: expected a number"),
        ("lumos.target=0.3", "lumos.target=0.3: expected one of the keys lumos.target.params, lumos.target.macs, "),
        ("lumos.target.params=1", "lumos.target.params=1.0: expected a share between 0 and 1, or null"),
        ("lumos.target.macs=0", "lumos.target.macs=0.0: expected a share between 0 and 1, or null"),
        ("lumos.target.features=0", "lumos.target.features=0: expected a whole number >= 1, or null"),
        ("lumos.target.features=2.5", "lumos.target.features=2.5: expected a whole number"),
        ("+lumos.target.param=.3", r"lumos.target.param: there is no such key \(did you mean params\?\)"),
        ("lumos.tolerance=1", r"lumos.tolerance=1.0: expected a share in \[0, 1\), or null"),
        ("lumos.lambda=inf", "lumos.lambda=inf: expected a number"),
        ("lumos.penalty=size", "lumos.penalty=size: expected one of gates, params, macs"),
        ("lumos.t_l=0.7", r"lumos.t_l=0.7: expected a number in \[0, 0.5\)"),
        ("lumos.rate_gain=0.5", "lumos.rate_gain=0.5: expected a number >= 1"),
        ("lumos.freeze_at=1", "lumos.freeze_at=1: expected a number between 0 and 1"),
        ("lumos.warmup=-1", r"lumos.warmup=-1: expected a number in \[0, 1\)"),
        ("lumos.keep=dt", r"lumos.keep=dt: expected a list of names, as \[a,b\], or null"),
        ("lumos.keep=[a, 1]", "lumos.keep.1=1: expected a word"),
        ("lumos.groups={p: 1}", r"lumos.groups.p=1: expected a list of names, as \[a,b\]"),
        ("lumos.groups={1: [a]}", "lumos.groups.1=1: expected a word"),
        ("lumos.prices={a: -1}", "lumos.prices: 'a' costs -1.0; expected a number >= 0"),
        ("lumos.groups=[a]", r"lumos.groups=\['a'\]: expected names with values, as {a: …}, or null"),
        ("lumos.groups={p: [a], q: [a]}", "lumos.groups: feature 'a' is in 'p' and in 'q'"),
        ("lumos.learning_rate=0", "lumos.learning_rate=0: expected a number > 0"),
        ("trainer.device=gpu", "trainer.device=gpu: expected auto, cpu, cuda or cuda:N"),
        ("trainer.threads=0", "trainer.threads=0: expected a whole number >= 1"),
        ("trainer.join_seconds=0", "trainer.join_seconds=0: expected a number > 0"),
        ("paths.results=", "paths.results=: expected a folder"),
        ("paths.cache=' '", "paths.cache= : expected a folder"),
        ("paths=null", "paths=None: expected a group of keys; set paths.KEY=VALUE"),
        ("trainer.ema=1", "trainer.ema=1: expected a decay between 0 and 1, such as 0.999, or null"),
        ("trainer.ema=0", "trainer.ema=0: expected a decay between 0 and 1"),
        ("trainer.ema=yes", "trainer.ema=yes: expected a number"),
        ("trainer.compile=maybe", "trainer.compile=maybe: expected true, false or null"),
        ("trainer.max_steps=2.5", "trainer.max_steps=2.5: expected a whole number"),
        ("seed=-1", "seed=-1: expected a whole number >= 0"),
        ("force=maybe", "force=maybe: expected true or false"),
        ("+lumos.foo=1", "lumos.foo: there is no such key"),
        ("~lumos.tau", "lumos.tau: expected a value, and none is given"),
        ("+sede=1", r"sede: there is no such key \(did you mean seed\?\)"),
        ("scale=huge", "scale=huge: expected one of tiny, small, paper"),
        ("scale=smal", r"expected one of tiny, small, paper \(did you mean small\?\)"),
    ],
)
def test_refused_in_one_line(override, line):
    with pytest.raises(ConfigError, match=line) as error:
        read(config(override))
    assert "\n" not in str(error.value)


def test_lambda_is_a_thousandth_unless_something_else_is_set():
    assert read(config()).lumos.mode == {"lumos.lambda": 1e-3}
    assert read(config()).resolved["lumos"]["lambda"] == 1e-3
    assert read(config()).run_id == read(config("lumos.lambda=1e-3")).run_id
    assert read(config("lumos.tolerance=0.01")).lumos.mode == {"lumos.tolerance": 0.01}
    features = read(config("lumos.target.features=16"))
    assert features.lumos.mode == {"lumos.target.features": 16}
    assert features.resolved["lumos"]["lambda"] is None


def test_every_mode_has_its_own_run():
    modes = ("lumos.lambda=.3", "lumos.tolerance=.3", "lumos.target.params=.3", "lumos.target.macs=.3")
    assert len({read(config(mode)).run_id for mode in modes}) == len(modes)
    assert len({read(config(mode)).baseline_id for mode in modes}) == 1


@pytest.mark.parametrize(
    ("overrides", "line"),
    [
        (("lumos.lambda=1e-3", "lumos.target.params=.3"), "lumos.lambda=0.001 and lumos.target.params=0.3: set one of"),
        (("lumos.target.macs=.5", "lumos.target.params=.3"), "lumos.target.params=0.3 and lumos.target.macs=0.5: set"),
        (("lumos.tolerance=.01", "lumos.target.features=3"), "lumos.tolerance=0.01 and lumos.target.features=3: set"),
        (("lumos.lambda=0", "lumos.tolerance=0"), "lumos.lambda=0.0 and lumos.tolerance=0.0: set one of them"),
    ],
)
def test_one_mode_at_a_time(overrides, line):
    with pytest.raises(ConfigError, match=line) as error:
        read(config(*overrides))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("override", "line"),
    [
        ("workload=cdf", "workload=cdf: there is no such workload; expected one of braintumor, cfd, "),
        ("lumos.lamda=1", "lumos.lamda: there is no such key (did you mean lambda?); expected one of lambda, penalty"),
        ("workload.epoch=1", "workload.epoch: there is no such key (did you mean epochs?)"),
        ("lumos=paper", "lumos=paper: there is no such lumos; expected one of default"),
        ("bogus", "Error parsing override 'bogus'"),
    ],
)
def test_hydras_own_errors_become_one_line(override, line):
    with pytest.raises(ConfigError) as error:
        compose([override])
    assert str(error.value).startswith(line)
    assert "\n" not in str(error.value)


def test_tests_compose_as_hydra_does():
    words = [
        "workload=molhiv",
        "scale=tiny",
        "lumos.lambda=1e-3",
        "+workload.x=1",
        "~lumos.tau",
        "lumos.keep=[a, b]",
    ]
    assert composed(words) == compose(words)

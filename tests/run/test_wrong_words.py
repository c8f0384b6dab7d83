"""Every key of the configuration with every kind of wrong value: one clear line, or a run that can be built."""

import random
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest
from omegaconf import DictConfig, OmegaConf

from lumos.errors import ConfigError, DataError
from lumos.suite import runner
from lumos.suite.config import compose, read
from lumos.suite.paths import CONF
from lumos.suite.workload_class import build_workload
from tests.configurations import composed

WORKLOADS = sorted(path.stem for path in (CONF / "workload").glob("*.yaml"))
VALUES = (
    "null", "''", "-1", "0", "1.5", "1e11", "1e400", "nan", "[]", "{}", "text", "true", "[1,text]", "{a:1}",
    "18446744073709551616", "'a\nb'", "../x", "[null]", "[-1]", "[[1]]", "${nothing}",
)  # fmt: skip


def keys(config: Mapping[str, Any], above: str = "") -> Iterator[str]:
    """All keys, with those of the groups that they are in."""
    for key, value in config.items():
        yield above + key
        if isinstance(value, Mapping):
            yield from keys(value, f"{above}{key}.")


def words(name: str) -> list[str]:
    """A word for every key of a workload's configuration and every value, and one that takes the key away."""
    config: Any = OmegaConf.to_container(compose([f"workload={name}"]), resolve=False)
    known = [key for key in keys(config) if name == "cfd" or key.startswith("workload.")]
    return [word for key in known for word in (f"~{key}", *(f"{key}={value}" for value in VALUES))]


def attempt(word: str, composed: Callable[[str], DictConfig]) -> None:
    """Do all that a run does before its data: either it can be done, or one line says what is wrong."""
    try:
        cfg = composed(word)
        config, workload = read(cfg), build_workload(cfg)
        config.folder(workload.name)
        _ = workload.recipe, workload.metric
        runner.prepare(config)
    except (ConfigError, DataError):
        pass
    except Exception as error:
        raise AssertionError(word) from error


@pytest.fixture(autouse=True)
def _threads_stay(monkeypatch):
    monkeypatch.setattr(runner.torch, "set_num_threads", lambda count: None)


def test_a_wrong_value_is_one_line():
    draws = random.Random(0)
    for name in draws.sample(WORKLOADS, 3):
        for word in draws.sample(words(name), 2):
            attempt(word, lambda word, name=name: compose([f"workload={name}", "scale=tiny", word]))


@pytest.mark.slow
@pytest.mark.parametrize("name", WORKLOADS)
def test_every_wrong_value_of_every_key_is_one_line(name):
    for word in words(name):
        attempt(word, lambda word: composed([f"workload={name}", "scale=tiny", word]))

"""The same suite over every workload that has a file in conf/workload."""

from dataclasses import replace
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir

from lumos.errors import DataError
from lumos.suite.config import register_resolvers
from lumos.suite.conformance import CHECKS, check_members
from lumos.suite.paths import CONF, PROJECT
from lumos.suite.workload_class import build_workload

NAMES = sorted(path.stem for path in (PROJECT / "conf" / "workload").glob("*.yaml"))


@pytest.fixture(scope="session")
def tiny(cache):
    """Each workload as its configuration makes it at scale=tiny, then its tiny version; built once."""
    register_resolvers()
    built = {}

    def get(name):
        if name not in built:
            with initialize_config_dir(str(CONF), version_base="1.3"):
                cfg = compose("config", overrides=[f"workload={name}", "scale=tiny", f"paths.cache={cache}"])
            workload = build_workload(cfg)
            assert workload.name == name
            built[name] = workload.tiny()
        return built[name]

    return get


def test_there_are_workloads():
    assert {"cfd", "synthetic"} <= set(NAMES)


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("name", NAMES)
def test_conforms(tiny, name, check):
    check(tiny(name))


@pytest.mark.parametrize("name", NAMES)
def test_a_negative_seed_is_refused_before_anything_is_drawn(tiny, name):
    with pytest.raises(DataError, match=r"^workload\.seed=-1: expected at least 0$"):
        replace(tiny(name), seed=-1)


@pytest.mark.parametrize("name", NAMES)
def test_readme_is_there(name):
    assert (PROJECT / "workloads" / name / "README.md").exists()


def test_check_workload_names_what_is_missing():
    with pytest.raises(AssertionError, match="lacks a member"):
        check_members(Path())

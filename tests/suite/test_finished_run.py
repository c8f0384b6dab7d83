"""What a record can make happen: the workload of the configuration here, with plain values, and nothing else."""

import pytest

from lumos.errors import ConfigError, LumosError
from lumos.suite.finished_run import recorded_config
from lumos.suite.workload_class import build_workload
from tests.records import entry

HOSTILE = {"_target_": "os.system", "_args_": ["touch /tmp/x"]}


def kept(**workload):
    """A record of a run of cfd with some keys of its workload replaced."""
    values = {"_target_": "workloads.cfd.CFD", **workload}
    config = {
        "data": {"source": "generated"},
        "scale": "tiny",
        "seed": 0,
        "workload": values,
        "lumos": {},
        "trainer": {},
    }
    return {**entry(), "workload": "cfd", "config": config}


@pytest.mark.parametrize("target", ["os.system", "pandas.read_pickle", "workloads.fluid.Fluid"])
def test_a_class_that_a_record_names_is_not_imported(target):
    with pytest.raises(
        ConfigError, match=rf"workload=cfd: workloads\.cfd\.CFD here, but the run was made with {target}"
    ):
        recorded_config(kept(_target_=target))


@pytest.mark.parametrize("key", ["widths", "epochs", "mach", "rows"])
@pytest.mark.parametrize("value", [HOSTILE, [HOSTILE], "${oc.env:HOME}", ["${oc.env:HOME}"]])
def test_values_of_a_record_are_data(key, value, monkeypatch):
    monkeypatch.setenv("HOME", "secret")
    with pytest.raises(LumosError, match=f"workload.{key}=") as refused:
        build_workload(recorded_config(kept(**{key: value})))
    assert "secret" not in str(refused.value)

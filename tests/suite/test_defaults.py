"""The configuration's defaults are the library's, and the docs say what each key means."""

import subprocess
import sys

import pytest
import yaml

from lumos.gating.settings import GateSettings
from lumos.suite.config import LumosConfig
from lumos.suite.paths import PROJECT
from lumos.suite.settings import CallConfig


def test_library_defaults_are_the_configurations():
    conf = yaml.safe_load((PROJECT / "conf" / "lumos" / "default.yaml").read_text())
    conf = {("lambda_" if k == "lambda" else k): v for k, v in conf.items()}
    assert CallConfig(**conf.pop("call")) == LumosConfig.model_fields["call"].default == CallConfig()
    unset = ("tolerance", "streams", "private", "query_key", "align", "keep", "exclude", "groups", "prices")
    modes = {k: conf.pop(k) for k in ("lambda_", "target", *unset)}
    assert set(modes.pop("target").values()) | set(modes.values()) == {None}
    numbers = {"lambda_": None} | {k: v if k == "penalty" else float(v) for k, v in conf.items()}
    ours, library = LumosConfig(**numbers).gates, GateSettings()
    assert (ours.t_l, ours.t_u, ours.gamma, ours.zeta, ours.initial_open) == (
        library.t_l, library.t_u, library.gamma, library.zeta, library.initial_open,
    )  # fmt: skip
    assert ours.tau == pytest.approx(library.tau, abs=1e-4)


def test_docs_say_what_the_configuration_says():
    script = PROJECT / "scripts" / "config_docs.py"
    done = subprocess.run([sys.executable, str(script), "--check"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout

"""The examples in the suite's docstrings run and give what they say."""

import doctest
import importlib

import pytest

from lumos.suite.paths import PACKAGE

FILES = [path for path in sorted((PACKAGE / "suite").rglob("*.py")) if ">>> " in path.read_text()]
MODULES = [".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts) for path in FILES]


@pytest.mark.parametrize("name", MODULES)
def test_examples_run(name):
    found = doctest.testmod(importlib.import_module(name), optionflags=doctest.ELLIPSIS)
    assert found.attempted
    assert not found.failed

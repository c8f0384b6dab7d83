"""The examples in the engine's docstrings run and give what they say."""

import doctest
import importlib
import inspect
import pkgutil

import pytest
import torch

import lumos

REST = ("lumos.suite", "lumos.workloads", "lumos.__main__", "lumos.conf")


def examples():
    """Every documented object of the engine whose docstring has an example."""
    names = [m.name for m in pkgutil.walk_packages(lumos.__path__, "lumos.") if not m.name.startswith(REST)]
    for name in ["lumos", *names]:
        module = importlib.import_module(name)
        found = {name: module.__doc__}
        for key, value in vars(module).items():
            if getattr(value, "__module__", None) == name and callable(value):
                found[f"{name}.{key}"] = value.__doc__
                if inspect.isclass(value):
                    methods = {k: v for k, v in vars(value).items() if callable(v) or isinstance(v, property)}
                    found |= {f"{name}.{key}.{k}": v.__doc__ for k, v in methods.items()}
        yield from ((module, place, text) for place, text in found.items() if text and ">>>" in text)


@pytest.mark.parametrize(("module", "place", "text"), [pytest.param(*e, id=e[1]) for e in examples()])
def test_examples_run(module, place, text):
    names = vars(module) | {"torch": torch, "nn": torch.nn, "lumos": lumos}
    example = doctest.DocTestParser().get_doctest(text, names, place, None, None)
    said: list[str] = []
    failed = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS).run(example, out=said.append).failed
    assert not failed, "".join(said)

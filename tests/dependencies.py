"""What pyproject.toml declares, by the names of distributions and of the modules that they bring."""

import re
import tomllib
from functools import cache
from importlib.metadata import packages_distributions
from pathlib import Path

PROJECT = Path(__file__).resolve().parent.parent


def declared(*extras: str) -> set[str]:
    """The distributions that the package needs, with some of its extras."""
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]
    found: set[str] = set()
    for requirement in (*project["dependencies"], *(r for e in extras for r in project["optional-dependencies"][e])):
        name, inner = re.fullmatch(r"([\w.-]+)(?:\[([\w,-]+)\])?.*", requirement).groups()  # type: ignore[union-attr]
        found |= declared(*inner.split(",")) if name == project["name"] else {normal(name)}
    return found


def distributions(module: str) -> set[str]:
    """The distributions that a module of this environment comes from."""
    return {normal(name) for name in installed().get(module, [module])}


installed = cache(packages_distributions)


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()

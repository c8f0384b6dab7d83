"""Which annotations the tests execute: those of shapes, as PEP 484 means them, where an int is also a float."""

from pathlib import Path

import jaxtyping
from beartype import BeartypeConf, beartype

ROOT = Path(__file__).parents[1]
check = beartype(conf=BeartypeConf(is_pep484_tower=True))


def execute_shapes():
    """Execute the annotations of every module of lumos that names shapes of arrays.

    The other modules' annotations are pyright's: to execute them too doubles the time of the tests, for each call of
    each function then binds its arguments anew.
    """
    return jaxtyping.install_import_hook(modules_with_shapes(), "tests.annotations.check")


def modules_with_shapes() -> list[str]:
    """List the modules of lumos whose code names shapes, by the names under which they are imported."""
    files = [*(ROOT / "lumos").rglob("*.py"), *(ROOT / "workloads").rglob("*.py")]
    return sorted(module_name(file) for file in files if names_shapes(file.read_text()))


def names_shapes(code: str) -> bool:
    return any(f"from {source} import" in code for source in ("jaxtyping", "lumos.shapes"))


def module_name(file: Path) -> str:
    parts = file.relative_to(ROOT).with_suffix("").parts
    package = parts if parts[0] == "lumos" else ("lumos", *parts)
    return ".".join(package[:-1] if package[-1] == "__init__" else package)

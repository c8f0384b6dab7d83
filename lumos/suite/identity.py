"""What of a configuration names a run: two runs with the same name are the same run."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

MACHINE_KEYS = ("paths", "force", "stop_at_failure",
                "data.cache", "data.workers", "data.limit_gb", "workload.data", "trainer.device", "trainer.threads",
                "trainer.devices", "trainer.nodes", "trainer.join_seconds", "trainer.checkpoint_seconds",
                "trainer.checkpoint_steps", "trainer.log")  # fmt: skip
"""What differs between machines but not between runs; these keys are left out of a run's id. A workload's ``data`` is
the copy of ``data`` that it is made with."""


AS_BEFORE: dict[str, Any] = {
    "schedule": "decay", "log_scale": True, "truth": "sum", "spread": 0.1, "label": None, "encoding": None,
    "force_field": None,
    "valid_images": None, "valid_materials": None, "valid_pairs": None, "valid_scenes": None, "valid_species": None,
    "valid_universes": None,
    "held_out_graphs_each": None, "test_materials": None, "test_scenes": None, "test_species": None,
}  # fmt: skip
"""Keys of ``workload`` that older runs did not have, each with the value at which a run is what it was without the key:
then it is no part of an id, and a record that lacks the key has this value."""


WITH_GATES = ("lumos", "scratch")
"""Methods that train gates or take the shape that they leave; settings of gates name no run of another one."""


def digest(config: Mapping[str, Any]) -> str:
    """Return twelve hexadecimal digits that name a configuration."""
    return hashlib.sha256(json.dumps(config, sort_keys=True, default=str).encode()).hexdigest()[:12]


def of_run(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return what names a run: all but the machine's keys, modes that are not set, and gates where there are none."""
    kept = without(config, MACHINE_KEYS)
    if (kept.get("method") or {}).get("name", "lumos") not in WITH_GATES:
        del kept["lumos"]
        return kept
    kept["lumos"] = {key: _given(value) for key, value in kept["lumos"].items()}
    kept["lumos"] = {key: value for key, value in kept["lumos"].items() if value is not None}
    return kept


def _given(value: Any) -> Any:
    """What of a group of keys, or of a list, has a value; None where none has."""
    if not isinstance(value, Mapping):
        return None if value == [] else value
    return {key: inner for key, inner in value.items() if inner is not None} or None


def without(config: Mapping[str, Any], keys: tuple[str, ...], prefix: str = "") -> dict[str, Any]:
    """Return a configuration less some keys, which are paths with dots."""
    out = {}
    for key, value in config.items():
        path = f"{prefix}{key}"
        if path not in keys:
            out[key] = without(value, keys, f"{path}.") if isinstance(value, Mapping) else value
    return out


SUITE = "lumos."
"""The package that the suite's own workloads live in."""


def short_target(target: str) -> str:
    """Return a workload's class as ids and records name it, ``workloads.cfd.CFD``, wherever the package keeps it."""
    return target.removeprefix(SUITE) if target.startswith(f"{SUITE}workloads.") else target


def full_target(target: str) -> str:
    """Return the path from which the class that :func:`short_target` names is imported."""
    return SUITE + target if target.startswith("workloads.") else target

"""Samples of the flux kernel: what one face's flux is computed from, and the flux."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import Float

from lumos.errors import DataError
from lumos.workloads.cfd.mesh import FAR_FIELD, WALL, Mesh
from lumos.workloads.cfd.solver import Gas, compute_flux, free_stream, gas, run
from lumos.workloads.common.progress import track

VERSION = "1"
"""Part of the cache's key: changed whenever equal settings would give other samples."""

INPUTS = (
    *("rho_i", "mx_i", "my_i", "mz_i", "E_i"),
    *("rho_j", "mx_j", "my_j", "mz_j", "E_j"),
    *("nx", "ny", "nz", "area"),
    *("p_i", "p_j", "speed_i", "speed_j", "c_i", "c_j"),
)
"""The 20 inputs: both states, the inward normal and its length, and what follows from the states."""

OUTPUTS = ("flux_rho", "flux_mx", "flux_my", "flux_mz", "flux_E")

Split = Literal["train", "valid", "test"]
SPLITS: tuple[Split, ...] = ("train", "valid", "test")
SHARES = {"train": 0.8, "valid": 0.1, "test": 0.1}
"""Of the rows asked for."""


@dataclass(frozen=True)
class Condition:
    """A flow: Mach number, angle of attack in degrees."""

    mach: float
    angle: float


def held_out(mach: Sequence[float], angle: Sequence[float]) -> dict[Split, list[Condition]]:
    """Pair every Mach number with every angle, and put each condition into one split.

    Of every four, two train, one is valid and one test. The choice follows the order of the two lists alone, so that
    every seed is tested on the same flows.

    Raises:
        DataError: there are fewer than four conditions, or the same one twice.
    """
    conditions = [Condition(float(m), float(a)) for m, a in product(mach, angle)]
    if len(conditions) < 4 or len(set(conditions)) < len(conditions):
        raise DataError(
            f"workload.mach={list(mach)}, workload.angle={list(angle)}: expected at least four different conditions "
            "(Mach numbers times angles), so that some can be held out"
        )
    turn: tuple[Split, ...] = ("train", "test", "train", "valid")
    return {split: [c for k, c in enumerate(conditions) if turn[k % 4] == split] for split in SPLITS}


def domn_files(root: Path) -> list[Path]:
    """List the ``.domn`` files of a folder, or the one file that ``root`` is. Raises DataError where there are none."""
    files = sorted(root.glob("*.domn*")) if root.is_dir() else [root]
    if not files:
        raise DataError(f"data.root={root}: there is no .domn file in that folder; give the file itself or its folder")
    return files


def generate(
    meshes: Sequence[Mesh],
    conditions: dict[Split, list[Condition]],
    iterations: int,
    snapshots: int,
    rows: int,
    seed: int,
) -> dict[str, np.ndarray]:
    """Simulate every condition on every mesh and draw faces from the states that are recorded.

    Args:
        meshes: What to simulate on.
        conditions: The flows of each split.
        iterations: Iterations of the solver for each flow.
        snapshots: States recorded of each flow, evenly spaced up to the last iteration.
        rows: Faces in all splits, 80% of them train; each split's are drawn in equal shares from its recorded states,
            no face of a state twice.
        seed: Draws the faces.

    Returns:
        Arrays ``{split}_{inputs,outputs}``, (rows, 20) and (rows, 5), float32.

    Raises:
        DataError: a flow is not physical, or a state has fewer faces than asked for.
    """
    if not 1 <= snapshots <= iterations:
        raise DataError(f"workload.snapshots={snapshots}: expected 1 to workload.iterations={iterations}")
    recorded = {round(iterations * (k + 1) / snapshots) for k in range(snapshots)}
    flows = [(split, c, mesh) for split in SPLITS for c in conditions[split] for mesh in meshes]
    rng = np.random.default_rng(seed)
    shares = {
        split: iter(_shares(round(SHARES[split] * rows), len(conditions[split]) * len(meshes) * len(recorded)))
        for split in SPLITS
    }
    drawn: dict[str, list[np.ndarray]] = {f"{split}_{part}": [] for split in SPLITS for part in ("inputs", "outputs")}
    for split, condition, mesh in track(flows, "simulating flows", total=len(flows)):
        for iteration, w in enumerate(run(mesh, condition.mach, condition.angle, iterations), start=1):
            if iteration in recorded:
                picked = _pick(rng, mesh, next(shares[split]))
                inputs, outputs = sample(mesh, w, free_stream(condition.mach, condition.angle), picked)
                drawn[f"{split}_inputs"].append(inputs.astype(np.float32))
                drawn[f"{split}_outputs"].append(outputs.astype(np.float32))
    return {name: np.concatenate(parts) for name, parts in drawn.items()}


def _shares(rows: int, states: int) -> list[int]:
    """Cut ``rows`` into ``states`` parts that differ by one at most."""
    return np.diff(np.arange(states + 1) * rows // states).tolist()


def _pick(rng: np.random.Generator, mesh: Mesh, count: int) -> np.ndarray:
    if not 1 <= count <= mesh.neighbour.size:
        raise DataError(
            f"workload.rows: {count} rows of one recorded state, expected 1 to {mesh.neighbour.size} (its faces); "
            "change the rows, or record more states with workload.snapshots, or use a larger mesh"
        )
    return rng.choice(mesh.neighbour.size, count, replace=False)


def sample(
    mesh: Mesh, w: Float[np.ndarray, "elements 5"], far: Float[np.ndarray, " 5"], faces: np.ndarray
) -> tuple[Float[np.ndarray, "faces 20"], Float[np.ndarray, "faces 5"]]:
    """Compute inputs and outputs of the flux kernel at some faces, numbered element * 4 + face; units of the solver.

    The neighbour's state is that of the element across the face. Beyond the far field's boundary it is the free
    stream, and behind a wall a mirrored ghost: the same density and energy, the momentum reflected in the wall.
    """
    state, beyond = gas(w), gas(far[None])
    return face_inputs(mesh, state, far, faces), compute_flux(mesh, state, beyond).reshape(-1, 5)[faces]


def face_inputs(
    mesh: Mesh, state: Gas, far: Float[np.ndarray, " 5"], faces: np.ndarray
) -> Float[np.ndarray, "faces 20"]:
    """Compute the first half of :func:`sample`: the inputs alone."""
    element, code = faces // 4, mesh.neighbour.reshape(-1)[faces]
    normal = -mesh.normal.reshape(-1, 3)[faces]
    one = state.take(element)
    other_w = np.where((code == FAR_FIELD)[:, None], far, state.w[np.maximum(code, 0)])
    wall = code == WALL
    other_w[wall] = _mirrored(one.w[wall], normal[wall])
    other = gas(other_w)
    length = np.linalg.norm(normal, axis=1)
    derived = [one.p, other.p, one.speed, other.speed, one.c, other.c]
    return np.concatenate([one.w, other.w, normal, np.stack([length, *derived], axis=1)], axis=1)


def _mirrored(w: Float[np.ndarray, "faces 5"], normal: Float[np.ndarray, "faces 3"]) -> Float[np.ndarray, "faces 5"]:
    along = np.einsum("fk,fk->f", w[:, 1:4], normal) / np.einsum("fk,fk->f", normal, normal)
    ghost = w.copy()
    ghost[:, 1:4] -= 2 * along[:, None] * normal
    return ghost

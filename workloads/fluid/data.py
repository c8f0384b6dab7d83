"""Samples of the pair kernel, the simulations that they come from, and PARSEC's ``.fluid`` files."""

from __future__ import annotations

import os
import struct
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import Float, Int

from lumos.errors import DataError, reads
from lumos.workloads.common.damaged import readable
from lumos.workloads.fluid.solver import (
    BOX_MAX,
    BOX_MIN,
    SMALLEST_SQUARE,
    Kernel,
    Pairs,
    State,
    advance,
    densities,
    neighbour_pairs,
    pair_terms,
)

VERSION = "1"
"""Part of the cache's key: changed whenever equal settings would give other samples."""

INPUTS = (
    *("dx", "dy", "dz"),
    *("vx_i", "vy_i", "vz_i"),
    *("vx_j", "vy_j", "vz_j"),
    *("r_squared", "r", "h_minus_r"),
    *("rho_i", "rho_j", "rho_sum"),
)
"""The 15 inputs: displacement x_i - x_j (m), velocities (m/s), r^2 (m2), r, h - r (m), densities, their sum (kg/m3)."""

OUTPUTS = ("ax", "ay", "az")
"""What the pair adds to the acceleration of i and takes from that of j, m/s2."""

Split = Literal["train", "valid", "test"]
SPLITS: tuple[Split, ...] = ("train", "valid", "test")
CYCLE: tuple[Split | None, ...] = ("train", "train", "train", "train", "train", None, "valid", None, "test", None)
"""Splits of successive snapshots, over and over; the snapshot between two splits belongs to neither."""

SHARES: Mapping[Split, float] = {"train": 0.8, "valid": 0.1, "test": 0.1}
"""Of the rows asked for."""

SPRAY_DENSITY = 970.0
"""A pair whose two densities are both below this (kg/m3) is spray; see :func:`in_the_fluid`."""


@dataclass(frozen=True)
class Schedule:
    """``snapshots`` of a simulation, ``steps`` time steps of 1 ms before each; ``rows`` of each split from all of it.

    ``turn`` starts the cycle of splits elsewhere, so that several simulations do not hold out the same moments (the
    impact, say) together. Raises DataError for fewer snapshots than one cycle of splits has, or numbers below 1.
    """

    snapshots: int
    steps: int
    rows: Mapping[Split, int]
    turn: int = 0

    def __post_init__(self) -> None:
        if self.snapshots < len(CYCLE):
            raise DataError(
                f"workload.snapshots={self.snapshots}: expected at least {len(CYCLE)}, so that valid and test "
                "have snapshots of their own"
            )
        if self.steps < 1:
            raise DataError(f"workload.steps={self.steps}: expected at least 1")

    @classmethod
    def of(cls, number: int, conditions: int, *, snapshots: int, steps: int, rows: int) -> Schedule:
        """Make the schedule of one of the conditions: its share of the rows, its own place to start the cycle at."""
        mine: dict[Split, int] = {}
        for split in SPLITS:
            total = round(SHARES[split] * rows)
            mine[split] = total * (number + 1) // conditions - total * number // conditions
        return cls(snapshots, steps, mine, 3 * number)

    def splits(self) -> list[Split | None]:
        """List the split of each snapshot, None for a gap."""
        return [CYCLE[(k + self.turn) % len(CYCLE)] for k in range(self.snapshots)]

    def shares(self) -> list[int]:
        """Share each split's rows among its snapshots, equally but for one at most."""
        splits = self.splits()
        counts = [0] * self.snapshots
        for split, rows in self.rows.items():
            mine = [k for k, s in enumerate(splits) if s == split]
            for place, k in enumerate(mine):
                counts[k] = rows * (place + 1) // len(mine) - rows * place // len(mine)
        return counts


def falling_block(particles_per_metre: float, rng: np.random.Generator) -> State:
    """Make a block of water at rest density, somewhere above the floor of the box, thrown sideways and turning.

    Particles stand on a cubic lattice of the rest distance, each moved by up to 5% of it. Positions in m, m/s.
    """
    spacing = 1.0 / particles_per_metre
    room = BOX_MAX - BOX_MIN - 2 * spacing
    size = room * rng.uniform([0.5, 0.35, 0.97], [0.8, 0.6, 1.0])
    low = BOX_MIN + spacing + (room - size) * rng.uniform([0, 0, 0], [1, 0, 1])
    low[1] += rng.uniform(0.0, 0.02)
    axes = [np.arange(max(2, int(s / spacing))) * spacing + at for s, at in zip(size, low, strict=True)]
    x = np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, 3)
    middle = x.mean(0)
    x = x + rng.uniform(-0.05, 0.05, x.shape) * spacing
    drift = rng.uniform(-0.2, 0.2, 3)
    spin = rng.uniform(-2.0, 2.0, 3)  # rad/s
    v = drift + np.cross(spin, x - middle)
    return State(x, v.copy(), v.copy())


def pair_inputs(
    state: State, kernel: Kernel, rho: Float[np.ndarray, " particles"], pairs: Pairs
) -> Float[np.ndarray, "pairs 15"]:
    """Compute the kernel's inputs for pairs (i, j), with densities ``rho`` in kg/m3, in the order of :data:`INPUTS`."""
    i, j = pairs[:, 0], pairs[:, 1]
    d = state.x[i] - state.x[j]
    square = (d**2).sum(1)
    r = np.sqrt(np.maximum(square, SMALLEST_SQUARE))
    scalars = np.stack([square, r, kernel.h - r, rho[i], rho[j], rho[i] + rho[j]], axis=1)
    return np.concatenate([d, state.v[i], state.v[j], scalars], axis=1)


def in_the_fluid(pairs: Pairs, rho: Float[np.ndarray, " particles"]) -> Int[np.ndarray, "kept 2"]:
    """Keep the pairs of which at least one particle is in the body of the fluid, not in spray.

    A drop alone in the air has 322 kg/m3, and up to three that cling together up to 965. Nothing balances them: they
    collide with up to 600 m/s2, where the standard deviation of all pairs is 7. They are 2% of the pairs, but without
    this bound on the tail a handful of them would decide R2.
    """
    return pairs[rho[pairs].max(1) >= SPRAY_DENSITY]


def simulate(
    state: State, kernel: Kernel, schedule: Schedule, rng: np.random.Generator
) -> Iterator[dict[str, np.ndarray]]:
    """Run the simulation and draw pairs from its snapshots: chunks ``{split}_{inputs,outputs}``, float32.

    Pairs in spray are left out (:func:`in_the_fluid`), no pair of a snapshot is drawn twice, and which of a pair's
    particles comes first is drawn too.

    Raises:
        DataError: a snapshot has fewer pairs than its share of the rows, or the simulation is not stable.
    """
    for split, count in zip(schedule.splits(), schedule.shares(), strict=True):
        try:
            advance(state, kernel, schedule.steps)
        except FloatingPointError as error:
            raise DataError(f"{error}; start from particles that overlap less") from error
        if split is None or not count:
            continue
        near = neighbour_pairs(state.x, kernel.h)
        rho = densities(state.x, near, kernel)
        pairs = in_the_fluid(near, rho)
        if count > len(pairs):
            raise DataError(
                f"workload.rows: {count} rows of one snapshot, which has {len(pairs)} pairs; lower workload.rows, or "
                "raise workload.snapshots or workload.particles_per_metre"
            )
        chosen = pairs[rng.choice(len(pairs), count, replace=False)]
        flip = rng.random(count) < 0.5
        chosen[flip] = chosen[flip, ::-1]
        inputs = pair_inputs(state, kernel, rho, chosen)
        outputs = pair_terms(state.x, state.v, rho, chosen, kernel)
        yield {f"{split}_inputs": inputs.astype(np.float32), f"{split}_outputs": outputs.astype(np.float32)}


_HEADER = struct.Struct("<fi")


@reads()
def read_fluid(path: Path) -> tuple[float, State]:
    """Read rest particles per metre and the state from a PARSEC ``.fluid`` file, widened to float64.

    Little-endian: float32 rest particles per metre, int32 n, then n times 9 float32: position (m), velocity half a step
    back, velocity (m/s). A few particles may be just outside the box.

    Raises:
        DataError: the file is something else; the message has the byte.
    """
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); expected a PARSEC .fluid file") from error
    if len(raw) < _HEADER.size:
        raise DataError(f"{path}: byte {len(raw)}: the file ends in its header; expected {_HEADER.size} bytes of it")
    rest, n = _HEADER.unpack_from(raw)
    if n < 2:
        raise DataError(f"{path}: byte 4: {n} particles; expected at least 2: is this a PARSEC .fluid file?")
    expected = _HEADER.size + 36 * n
    if len(raw) != expected:
        raise DataError(
            f"{path}: {len(raw)} bytes, but {n} particles take {expected}; the file is cut or damaged, fetch it again"
        )
    table = np.frombuffer(raw, "<f4", offset=_HEADER.size).reshape(n, 9).astype(np.float64)
    wrong = ~np.isfinite(table)
    if wrong.any():
        at = _HEADER.size + 4 * int(wrong.ravel().argmax())
        raise DataError(f"{path}: byte {at}: a value that is not a finite number; the file is damaged, fetch it again")
    x, half_v, v = (np.ascontiguousarray(table[:, k : k + 3]) for k in (0, 3, 6))
    return float(rest), State(x, half_v, v)


def find_starts(root: Path, on_error: str) -> list[Path]:
    """List the ``.fluid`` files of a folder, or the one file that ``root`` is, from which a simulation can start.

    Raises:
        DataError: no file can be used; or one is damaged, and ``on_error`` is ``fatal``.
    """
    files = sorted(root.glob("*.fluid")) if root.is_dir() else [root]
    good = [file for file, _ in readable(files, _check_rest, on_error)]
    if not good:
        raise DataError(f"data.root={root}: no .fluid file there could be read; give the file itself or its folder")
    return good


def _check_rest(file: Path) -> None:
    rest, _ = read_fluid(file)
    if not 0 < rest < float("inf"):
        raise DataError(
            f"{file}: byte 0: {rest} particles a metre; expected more than 0: frames that the benchmark "
            "writes do not keep it, start from an in_*.fluid file"
        )


def write_fluid(path: Path, rest_per_metre: float, state: State) -> None:
    """Write a state as a PARSEC ``.fluid`` file (float32), under a temporary name that is then renamed.

    Raises:
        DataError: the file cannot be written.
    """
    table = np.concatenate([state.x, state.half_v, state.v], axis=1).astype("<f4")
    draft = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        draft.write_bytes(_HEADER.pack(rest_per_metre, len(table)) + table.tobytes())
        os.replace(draft, path)
    except OSError as error:
        raise DataError(f"{path}: cannot write the particles ({error.strerror})") from error
    finally:
        draft.unlink(missing_ok=True)

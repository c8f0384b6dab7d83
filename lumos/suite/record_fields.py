"""What a record has to say for tables and figures to be made of it. Imports no torch.

A record is a file that anyone may have written or damaged. Whatever reads one may rely on these fields and their types,
and on no others; those that are not named here may be there, and older records lack those with a default.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

Count = Annotated[int, Field(ge=0, lt=2**63)]
NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,199}")
"""What a workload, a run and a file of a run may be called: never a path."""


def _named(name: str) -> str:
    if not NAME.fullmatch(name):
        raise ValueError(f"{name[:40]!r}, expected letters, digits, dots, _ and -")
    return name


Id = Annotated[str, AfterValidator(_named)]
Short = Annotated[str, Field(max_length=10_000)]


class Fields(BaseModel):
    """Fields by name; numbers are finite, and a truth value is no number."""

    model_config = ConfigDict(strict=True, extra="allow", allow_inf_nan=False)


class Spread(Fields):
    """Median and quartiles of a ratio."""

    p50: float
    p25: float
    p75: float


class Times(Fields):
    """Milliseconds of a call."""

    p50: Annotated[float, Field(gt=0)]
    batch: Count | None = None


class Largest(Fields):
    """The largest batch within a bound, and its rate."""

    batch: Count
    samples_per_second: float
    bound_mb: float
    limit: Short = "memory"


class Speedup(Fields):
    """How many times as many samples a second as dense."""

    latency: Spread | None = None
    throughput: Spread | None = None
    dynamic: Spread | None = None


class Timed(Fields):
    """What was measured on one device."""

    latency_ms: Times
    throughput: Annotated[float, Field(gt=0)]
    throughput_batch: Count | None = None
    dynamic: Largest | None = None
    speedup: Speedup | None = None
    peak_mb: float
    peak_batch: Count | None = None


class Mode(Fields):
    """What was measured of calls that are made in one way."""

    latency: dict[str, Any] | None = None
    throughput: dict[str, Any] | None = None
    dynamic: dict[str, Any] | None = None


class Network(Timed):
    """One of the two networks of a run."""

    score: float | None
    standard_error: Annotated[float, Field(ge=0)] | None = None
    valid_score: float | None = None
    scores: dict[str, float | None] | None = None
    params: Count
    macs: Count
    macs_traced: Count | None = None
    bytes: Count
    energy_j: float | None = None
    train_seconds: float | None
    steps: Count | None = None
    phases: dict[str, Count] | None = None
    schedule: Short | None = None
    schedules: dict[str, float | None] | None = None
    cpu: Timed | None = None
    modes: dict[str, Mode | None] | None = None


class Group(Fields):
    """The units of a group."""

    open: Count
    total: Count


class Fixed(Fields):
    """Units that have no gates, and why."""

    name: Short
    size: Count
    reason: Short


class Gates(Fields):
    """What became of the gates."""

    open: Count
    total: Count
    features_kept: list[Short]
    features_total: Count
    groups: dict[str, Group]
    fixed: list[Fixed] = []


class Misfit(Fields):
    """How far a fitted cost is off."""

    median: float
    largest: float


class Steering(Fields):
    """What was asked for, and what became of it."""

    key: Short = ""
    asked: float | None = None
    reached: float | None = None
    line: float | None = None
    met: bool | None = None
    measured: float | None = None
    predicted: float | None = None
    finished: float | None = None
    least: float | None = None
    measures: Short | None = None
    call: dict[str, Any] | None = None
    calibration_error: Misfit | None = None

    @model_validator(mode="after")
    def _together(self) -> Steering:
        given = self.model_fields_set
        of_measured = ("measures", "call", "calibration_error", "predicted", "least")
        for first, others in (("reached", ("asked",)), ("line", ("asked", "met")), ("measured", of_measured)):
            lacking = [name for name in (first, *others) if getattr(self, name) is None] if first in given else []
            if lacking or (first == "reached" and first in given and not self.asked):
                raise ValueError(f"{', '.join(lacking) or 'asked'} with {first}")
        return self


class Step(Fields):
    """A training step of one network."""

    step_ms: Times
    peak_mb: float | None = None


class Training(Fields):
    """What gates cost in a training."""

    overhead: Spread
    share: float
    dense: Step
    gated: Step
    compact: Step


class Difference(Fields):
    """By how much the compact network's test score is above the dense one's, and its standard error."""

    score: float | None
    standard_error: Annotated[float, Field(ge=0)] | None = None


class Equivalence(Fields):
    """How far the compact network is from the gated one."""

    max_rel_diff: float
    dtype: Short


class Metric(Fields):
    """The score."""

    name: Short
    unit: Short = ""
    higher_is_better: bool
    target: float | None = None


class Provenance(Fields):
    """Where and with what a run was made."""

    started_utc: Short
    command: Short = ""
    device: Short | None = None
    host: Short | None = None
    git: Short | None = None
    dirty: bool | None = None
    seconds: float | None = None
    versions: dict[str, Short | None] | None = None


class Problem(Fields):
    """Why a run ended."""

    line: Short | None = None


class Data(Fields):
    """The samples."""

    source: Short
    sha256: Short | None = None
    n_train: Count | None = None
    n_valid: Count | None = None
    n_test: Count | None = None


class Choice(Fields):
    """The features that a run kept, judged by what is known of them."""

    needed: list[Short]
    lost: list[Short]
    repeats: list[Short]
    repeated: list[Short]
    idle: list[Short]
    idle_kept: list[Short]


class Entry(Fields):
    """A record; of one that is finished also what it found."""

    run_id: Id
    workload: Id
    status: Short
    error: Problem | None = None
    method: Short | None = None
    scale: Short
    seed: Count
    note: Short | None = None
    config: dict[str, Any] | None = None
    provenance: Provenance
    metric: Metric
    data: Data | None = None
    features: list[Short] | None = None
    true_features: list[Short] | None = None
    gates: Gates | None = None
    choice: Choice | None = None
    steering: Steering | None = None
    training: Training | None = None
    equivalence: Equivalence | None = None
    baselines: dict[str, float | None] | None = None
    difference: Difference | None = None


class Finished(Entry):
    """A record of a run that is finished."""

    dense: Network
    compact: Network

    @model_validator(mode="after")
    def _alike(self) -> Finished:
        if self.baselines is None:
            raise ValueError("no baselines")
        if self.data is None:
            raise ValueError("no data")
        if self.dense.dynamic is not None and self.compact.dynamic is None:
            raise ValueError("dynamic of dense alone")
        if self.steering and self.steering.line is not None and self.compact.valid_score is None:
            raise ValueError("a tolerance without a validation score")
        return self


class Job(Fields):
    """What a job of a sweep says of itself."""

    job: Count
    overrides: list[Short]
    status: Short
    error: Short | None = None
    record: Short | None = None
    log: Short | None = None
    node: Short | None = None
    slurm: Short | None = None
    host: Short | None = None
    pid: Count | None = None


class Source(Fields):
    """Where the samples come from."""

    source: Short


class Config(Fields):
    """The configuration of a run of the suite, from which it can be composed again."""

    workload: dict[str, Any]
    lumos: dict[str, Any]
    trainer: dict[str, Any]
    data: Source
    scale: Short
    seed: Count


def what_is_wrong(kind: type[Fields], values: Mapping[str, Any]) -> str | None:
    """Say what of these values is not as a kind of fields asks; None where all is."""
    try:
        kind.model_validate(values)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(str(part) for part in first["loc"])
        return f"{place}: {first['msg']}" if place else first["msg"]
    return None


def wrong_in_record(values: Mapping[str, Any]) -> str | None:
    """Say what makes a record of no use; None where there is nothing."""
    return what_is_wrong(_kind(values), values)


def with_defaults(values: dict[str, Any]) -> dict[str, Any]:
    """Fill in, where it lacks one, the fields of a record that have a default, and return it."""
    _fill(_kind(values).model_validate(values), values)
    return values


def _kind(values: Mapping[str, Any]) -> type[Entry]:
    return Finished if values.get("status") == "finished" else Entry


def _fill(part: Any, values: Any) -> None:
    if isinstance(part, Fields):
        for name in type(part).model_fields:
            value = getattr(part, name)
            if name in values:
                _fill(value, values[name])
            elif value is not None:
                values[name] = value
    elif isinstance(part, dict):
        for name, value in part.items():
            _fill(value, values[name])
    elif isinstance(part, list):
        for value, raw in zip(part, values, strict=True):
            _fill(value, raw)

"""The settings of a run as models, and the one line that says what is wrong with a value.

Each class has the keys of one folder of conf/, whose comments say what they mean. The engine's own settings
(``Lambda``, ``Target``, ``Tolerance``, ``GateSettings``, ``StructureOptions``) check their ranges themselves.

Imports no torch.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, get_args

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from lumos.errors import ConfigError, StructureError
from lumos.gating.settings import GateSettings
from lumos.pruning.settings import DEFAULT_LAMBDA, Call, Cost, Goal, Lambda, Target, Tolerance
from lumos.suite.wording import did_you_mean, one_of
from lumos.tracing.constraints import Constraints
from lumos.tracing.options import StructureOptions

T = TypeVar("T", bound=BaseModel)


def _expected(holds: Callable[[Any], bool], phrase: str) -> AfterValidator:
    def check(value: Any) -> Any:
        if not holds(value):
            raise ValueError(phrase)
        return value

    return AfterValidator(check)


def _is_device(name: str) -> bool:
    return bool(re.fullmatch(r"cpu|cuda(:\d+)?", name))


Folder = Annotated[str, _expected(lambda path: bool(path.strip()), "a folder")]
Positive = Annotated[float, _expected(lambda x: x > 0, "a number > 0")]
Inside = Annotated[float, _expected(lambda x: 0 < x < 1, "a number between 0 and 1")]
NotNegative = Annotated[float, _expected(lambda x: x >= 0, "a number >= 0")]
Count = Annotated[int, _expected(lambda n: 1 <= n < 2**31, "a whole number >= 1 and below 2^31")]


class Settings(BaseModel):
    """Settings that cannot be changed, with no other keys than their own; whole numbers count as numbers."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False, populate_by_name=True)


class TargetConfig(Settings):
    """A budget that the compact model has to meet: a share of the dense size, or a number of input features."""

    params: float | None = None
    macs: float | None = None
    features: int | None = None
    latency: float | None = None
    memory: float | None = None


class CallConfig(Settings):
    """How the compact model will be called, where its time or its memory is asked for."""

    batch: Count | None = None
    device: Annotated[str, _expected(_is_device, "cpu, cuda or cuda:N")] | None = None
    threads: Count | None = None
    precision: Literal["float32", "bfloat16", "float16"] | None = None


class LumosConfig(Settings):
    """The gates of a run: what they cost, their distribution, and when they are cut. See conf/lumos/default.yaml.

    One of ``lambda_``, a target and ``tolerance`` is set; where none is given, ``lambda_`` becomes 1e-3.
    """

    lambda_: float | None = Field(alias="lambda")
    penalty: Cost
    target: TargetConfig = TargetConfig()
    call: CallConfig = CallConfig()
    tolerance: float | None = None
    tau: float
    t_l: float
    t_u: float
    gamma: float
    zeta: float
    initial_open: float
    learning_rate: Positive
    warmup: Annotated[float, _expected(lambda x: 0 <= x < 1, "a number in [0, 1)")]
    freeze_at: Inside
    rate_gain: Annotated[float, _expected(lambda x: x >= 1, "a number >= 1")]
    streams: bool | None = None
    private: bool | None = None
    query_key: bool | None = None
    align: Annotated[int, _expected(lambda n: n >= 2, "a whole number >= 2")] | None = None
    keep: list[str] | None = None
    exclude: list[str] | None = None
    groups: dict[str, list[str]] | None = None
    prices: dict[str, float] | None = None

    @model_validator(mode="before")
    @classmethod
    def _default_lambda(cls, values: Any) -> Any:
        """Set lambda where nothing else says how far to go."""
        if not isinstance(values, Mapping):
            return values
        target = values.get("target")
        target = target.model_dump() if isinstance(target, TargetConfig) else target
        asked = [values.get("tolerance"), *(target.values() if isinstance(target, Mapping) else [target])]
        if any(value is not None for value in asked):
            return values
        name = "lambda_" if "lambda_" in values else "lambda"
        return {**values, name: DEFAULT_LAMBDA if values.get(name) is None else values[name]}

    @model_validator(mode="after")
    def _buildable(self) -> LumosConfig:
        """Build what the engine takes, so that a bad value is reported before anything runs."""
        if len(self.mode) > 1:
            given = " and ".join(f"{key}={value}" for key, value in self.mode.items())
            raise ConfigError(f"{given}: set one of them and not both")
        try:
            _ = self.goal
        except ValueError as error:
            raise ConfigError(str(error) if self.lambda_ is not None else f"{error}, or null") from None
        try:
            _ = self.gates
        except ValueError as error:
            raise ConfigError(f"lumos.{error}") from None
        try:
            _ = self.constraints
        except StructureError as error:
            raise ConfigError(f"lumos.{error}") from None
        return self

    @property
    def mode(self) -> dict[str, float]:
        """What steers the training, key and value: lambda, a target or the tolerance."""
        keys = {"lumos.lambda": self.lambda_, "lumos.tolerance": self.tolerance}
        keys |= {f"lumos.target.{name}": value for name, value in self.target.model_dump().items()}
        return {key: value for key, value in keys.items() if value is not None}

    @property
    def goal(self) -> Goal:
        """What steers the training, as the engine takes it."""
        call = Call(**self.call.model_dump())
        if self.tolerance is not None:
            return Tolerance(self.tolerance, penalty=self.penalty, call=call)
        if self.lambda_ is None:
            # A price of features would give the same id to another run; it is for loops of one's own so far.
            return Target(**self.target.model_dump(), feature_price=0.0, call=call)
        return Lambda(self.lambda_, self.penalty, call)

    @property
    def structure(self) -> StructureOptions:
        """What more of a model is made removable."""
        return StructureOptions(bool(self.streams), bool(self.private), bool(self.query_key))

    @property
    def constraints(self) -> Constraints:
        """What is asked of the units beforehand."""
        return Constraints(self.keep or (), self.exclude or (), self.groups or {}, self.prices or {})

    @property
    def gates(self) -> GateSettings:
        """The gates' distribution."""
        return GateSettings(self.tau, self.t_l, self.t_u, self.gamma, self.zeta, self.initial_open)


class TrainerConfig(Settings):
    """Device, threads and limits of a run. See conf/trainer/default.yaml."""

    device: Annotated[
        str, _expected(lambda d: bool(re.fullmatch(r"auto|cpu|cuda(:\d+)?", d)), "auto, cpu, cuda or cuda:N")
    ]
    threads: Count | None = None
    max_steps: Count | None = None
    clip_norm: Positive | None = None
    devices: Count = 1
    nodes: Count = 1
    join_seconds: Positive = 300.0
    checkpoint_seconds: Positive | None = 300.0
    checkpoint_steps: Count | None = None
    ema: Annotated[float, _expected(lambda x: 0 < x < 1, "a decay between 0 and 1, such as 0.999")] | None = None
    compile: bool | None = None
    precision: Literal["fp32", "tf32", "bf16"] | None = None
    deterministic: bool = True
    log: Literal["tensorboard", "mlflow", "wandb"] | None = None

    @model_validator(mode="after")
    def _alone(self) -> TrainerConfig:
        if self.compile and self.processes > 1:
            raise ConfigError(
                "trainer.compile=true: expected null where trainer.devices or trainer.nodes ask for processes"
            )
        return self

    @property
    def processes(self) -> int:
        """Processes that train together, one for each device."""
        return self.devices * self.nodes


TO_KEEP = "the share of the dense parameters to keep, in (0, 1)"
MethodName = Literal["dense", "lumos", "scratch", "l1", "slimming", "depgraph", "oto", "loxia"]


class MethodConfig(Settings):
    """Another method than ours, to compare with. See conf/method/ for what each one reads.

    ``target`` is the share of the dense parameters that is left, ``prune_at`` the share of the steps after which the
    network shrinks, ``restart`` whether the learning rate falls before that as well as after.
    """

    name: MethodName
    target: Annotated[float, _expected(lambda x: 0 < x < 1, TO_KEEP)] | None = None
    prune_at: Inside = 0.5
    restart: bool = False
    regularization: NotNegative = 0.0
    max_pruning_ratio: Annotated[float, _expected(lambda x: 0 < x <= 1, "a share in (0, 1]")] = 0.9
    lambda_: NotNegative = Field(0.0, alias="lambda")
    drop_first: Inside = 0.2
    drop_rest: Inside = 0.5

    @model_validator(mode="after")
    def _has_target(self) -> MethodConfig:
        if self.name != "dense" and self.target is None:
            raise ConfigError(f"method.target=null: expected {TO_KEEP}")
        return self


class PathsConfig(Settings):
    """Where a run reads and writes."""

    results: Folder
    cache: Folder


class RunSettings(Settings):
    """Every key of the configuration, conf/config.yaml. What a workload takes is checked by its own class."""

    workload: dict[str, Any]
    lumos: LumosConfig
    trainer: TrainerConfig
    data: dict[str, Any]
    method: MethodConfig | None = None
    scale: str
    seed: Annotated[int, _expected(lambda n: 0 <= n < 2**32, "a whole number >= 0 and below 2^32")]
    init_from: str | None = None
    init_strict: bool | None = None
    freeze_backbone: bool | None = None
    force: bool
    stop_at_failure: bool
    paths: PathsConfig

    @property
    def results(self) -> Path:
        """The folder of the records."""
        return Path(self.paths.results).expanduser()


def validate(kind: type[T], values: Mapping[str, Any]) -> T:
    """Make settings from plain values.

    Args:
        kind: The class of the settings.
        values: Its keys, as in the YAML files.

    Raises:
        ConfigError: A key or a value is wrong; the line says which, what is expected, and what may have been meant.
    """
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        raise ConfigError(_line(kind, error.errors(include_url=False)[0])) from None


_NAME = "[key]"
"""The word of pydantic for a name of a mapping."""

PHRASES = {
    "float_type": "a number",
    "finite_number": "a number",
    "int_type": "a whole number",
    "bool_type": "true or false",
    "string_type": "a word",
    "list_type": "a list of names, as [a,b]",
    "dict_type": "names with values, as {a: …}",
}
"""What a key expects, by the kind of the error."""


def _line(kind: type[BaseModel], error: Mapping[str, Any]) -> str:
    """One line for an error of pydantic's."""
    cause = error.get("ctx", {}).get("error")
    if isinstance(cause, ConfigError):
        return str(cause)
    path = [str(part) for part in error["loc"]]
    key = ".".join(part for part in path if part != _NAME)
    if error["type"] == "extra_forbidden":
        known = [field.alias or name for name, field in _inner(_type_at(kind, path[:-1])).model_fields.items()]
        all_of_them = f"; expected {one_of(known)}" if len(path) == 1 else ""
        return f"{key}: there is no such key{did_you_mean(path[-1], known)}{all_of_them}"
    asked = _type_at(kind, path)
    if error["type"] in ("model_type", "model_attributes_type"):
        keys = (f"{key}.{f.alias or name}" for name, f in _inner(asked).model_fields.items())
        phrase = f"one of the keys {', '.join(keys)}"
    elif error["type"] == "literal_error":
        phrase = one_of(get_args(_inner(asked)))
    else:
        phrase = str(cause) if cause else PHRASES.get(error["type"], error["msg"])
        if type(None) in get_args(asked):
            phrase = "true, false or null" if error["type"] == "bool_type" else f"{phrase}, or null"
    if error["type"] == "missing":
        return f"{key}: expected a value, and none is given"
    return f"{key}={_as_written(error['input'])}: expected {phrase}"


def _type_at(kind: Any, path: list[str]) -> Any:
    """The type that is asked for at a key, at a place of a list, or at a name of a mapping."""
    for part in path:
        within = _inner(kind)
        if hasattr(within, "model_fields"):
            kind = next(f for name, f in within.model_fields.items() if part in (name, f.alias)).annotation
        elif part != _NAME:
            kind = get_args(within)[-1]
    return kind


def _inner(annotation: Any) -> Any:
    """The type itself of one that may be null."""
    inner = [arg for arg in get_args(annotation) if arg is not type(None)]
    return inner[0] if type(None) in get_args(annotation) else annotation


def _as_written(value: Any) -> str:
    """A value as YAML and the command line have it."""
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)

"""From Hydra's DictConfig to frozen dataclasses, validated; the one place that renames ``lambda``."""

from __future__ import annotations

import difflib
import hashlib
import math
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, is_dataclass, replace
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from lumos.errors import ConfigError, one_line
from lumos.gating.settings import GateSettings, Penalty
from lumos.pruning.settings import DEFAULT_LAMBDA, Goal, Lambda, Target, Tolerance
from lumos.suite.identity import MACHINE_KEYS, digest, of_run, short_target, without
from lumos.suite.paths import CONF, PROJECT
from lumos.tracing.options import StructureOptions

PRETRAINED = ("init_from", "init_strict", "freeze_backbone")
"""Keys of a start from a pretrained network."""


T = TypeVar("T")


@dataclass(frozen=True)
class TargetConfig:
    """A budget that the compact model has to meet: a share of the dense size, or a number of input features."""

    params: float | None = None
    macs: float | None = None
    features: int | None = None


@dataclass(frozen=True)
class LumosConfig:
    """The gates of a run: what they cost, their distribution and their phases. See conf/lumos/default.yaml.

    One of ``lambda_``, a target and ``tolerance`` is set; where none is given, ``lambda_`` becomes 1e-3.
    """

    lambda_: float | None
    penalty: Penalty
    tau: float
    t_l: float
    t_u: float
    gamma: float
    zeta: float
    initial_open: float
    learning_rate: float
    warmup: float
    freeze_at: float
    rate_gain: float
    target: TargetConfig = field(default_factory=TargetConfig)
    tolerance: float | None = None
    streams: bool | None = None
    private: bool | None = None
    query_key: bool | None = None
    align: int | None = None

    def __post_init__(self) -> None:
        given = self.mode
        if len(given) > 1:
            raise ConfigError(f"{' and '.join(f'{k}={v}' for k, v in given.items())}: set one of them and not both")
        if not given:
            object.__setattr__(self, "lambda_", DEFAULT_LAMBDA)
        try:
            self.goal  # noqa: B018 -- as the gates below
        except ValueError as error:
            raise ConfigError(f"{error}, or null") from None
        expect(self.learning_rate > 0, "lumos.learning_rate", self.learning_rate, "a number > 0")
        expect(0 <= self.warmup < 1, "lumos.warmup", self.warmup, "a number in [0, 1)")
        expect(0 < self.freeze_at < 1, "lumos.freeze_at", self.freeze_at, "a number between 0 and 1")
        expect(self.rate_gain >= 1, "lumos.rate_gain", self.rate_gain, "a number >= 1")
        expect(self.align is None or self.align >= 2, "lumos.align", self.align, "a whole number >= 2, or null")
        try:
            self.gates  # noqa: B018 -- built here, so that a bad value is reported before anything runs
        except ValueError as error:
            raise ConfigError(f"lumos.{error}") from None

    @property
    def mode(self) -> dict[str, float]:
        """What steers the training, key and value: lambda, a target or the tolerance."""
        keys = {"lumos.lambda": self.lambda_, "lumos.tolerance": self.tolerance}
        keys |= {f"lumos.target.{name}": value for name, value in asdict(self.target).items()}
        return {key: value for key, value in keys.items() if value is not None}

    @property
    def goal(self) -> Goal:
        """What steers the training, as the engine takes it."""
        if self.tolerance is not None:
            return Tolerance(self.tolerance, penalty=self.penalty)
        if any(value is not None for value in asdict(self.target).values()):
            return Target(**asdict(self.target))
        assert self.lambda_ is not None
        return Lambda(self.lambda_, self.penalty)

    @property
    def structure(self) -> StructureOptions:
        """What more of a model is made removable."""
        return StructureOptions(bool(self.streams), bool(self.private), bool(self.query_key))

    @property
    def gates(self) -> GateSettings:
        """The gates' distribution."""
        return GateSettings(self.tau, self.t_l, self.t_u, self.gamma, self.zeta, self.initial_open)


@dataclass(frozen=True)
class TrainerConfig:
    """Device, threads and limits of a run. See conf/trainer/default.yaml."""

    device: str
    threads: int | None
    max_steps: int | None
    clip_norm: float | None
    devices: int = 1
    nodes: int = 1
    checkpoint_seconds: float | None = 300.0
    checkpoint_steps: int | None = None
    ema: float | None = None
    compile: bool | None = None

    def __post_init__(self) -> None:
        known = re.fullmatch(r"auto|cpu|cuda(:\d+)?", self.device)
        expect(known is not None, "trainer.device", self.device, "auto, cpu, cuda or cuda:N")
        for name in ("threads", "max_steps", "clip_norm", "checkpoint_seconds", "checkpoint_steps"):
            value = getattr(self, name)
            expect(value is None or value > 0, f"trainer.{name}", value, "a number > 0, or null")
        decays = self.ema is None or 0 < self.ema < 1
        expect(decays, "trainer.ema", self.ema, "a decay between 0 and 1, such as 0.999, or null")
        for name in ("devices", "nodes"):
            expect(getattr(self, name) >= 1, f"trainer.{name}", getattr(self, name), "a whole number >= 1")
        alone = not self.compile or self.processes == 1
        expect(alone, "trainer.compile", self.compile, "null where trainer.devices or trainer.nodes ask for processes")

    @property
    def processes(self) -> int:
        """Processes that train together, one for each device."""
        return self.devices * self.nodes


@dataclass(frozen=True)
class RunConfig:
    """One run: everything that the engine needs beside the workload itself."""

    scale: str
    seed: int
    force: bool
    lumos: LumosConfig
    trainer: TrainerConfig
    results: Path
    resolved: dict[str, Any]
    """The whole configuration as plain values, for the record."""
    method: MethodConfig | None = None
    """None: ours."""
    init_from: Path | None = None
    """The file of the weights to start from; ``resolved`` and the run's id have its checksum instead."""
    init_strict: bool = True
    freeze_backbone: bool = False

    @property
    def run_id(self) -> str:
        """A hash of the resolved configuration less the machine's keys."""
        return digest(of_run(self.resolved))

    @property
    def recorded(self) -> dict[str, Any]:
        """The configuration as a record keeps it: without the folders of the machine that made it."""
        return without(self.resolved, ("paths", "data.cache", "workload.data"))

    @property
    def baseline_id(self) -> str:
        """A hash of what the dense baseline depends on: all of it but the gates."""
        return digest(without(self.resolved, (*MACHINE_KEYS, "lumos", "method")))

    def at_target(self, params: float) -> RunConfig:
        """Our own run of the same problem with this share of the dense parameters."""
        lumos = replace(self.lumos, lambda_=None, tolerance=None, target=TargetConfig(params=params))
        plain = {**self.resolved["lumos"], "lambda": None, "tolerance": None, "target": asdict(lumos.target)}
        resolved = {key: value for key, value in self.resolved.items() if key != "method"} | {"lumos": plain}
        return replace(self, lumos=lumos, resolved=resolved, method=None)

    def folder(self, workload: str) -> Path:
        """Where the run's record, curve, log and compact model are kept."""
        return self.results / "runs" / workload / self.run_id


def expect(condition: bool, key: str, value: Any, expected: str) -> None:
    """Raise ConfigError unless the condition holds."""
    if not condition:
        raise ConfigError(f"{key}={value}: expected {expected}")


def one_of(allowed: Any) -> str:
    """The allowed values as a phrase."""
    return "one of " + ", ".join(str(a) for a in allowed)


def register_resolvers() -> None:
    """``${by_scale:{small: a, paper: b}}`` picks by the key ``scale``, ``${by_workload:{name: a}}`` by the workload.

    ``${project:x}`` is a folder of the project, ``${suite:key}`` what conf/suite.yaml sets a key to, null if nothing.
    """

    def by_scale(options: Mapping[str, Any], *, _root_: DictConfig) -> Any:
        # bench is small where small is quick
        scale = "small" if _root_.scale == "bench" and "bench" not in options else _root_.scale
        if scale not in options:
            raise ConfigError(f"scale={scale}: expected {one_of(options)}{did_you_mean(str(scale), list(options))}")
        return options[scale]

    def by_workload(options: Mapping[str, Any], *, _root_: DictConfig) -> Any:
        name = str(_root_.workload._target_).split(".")[-2]
        expect(name in options, "workload", name, f"{one_of(options)} here")
        return options[name]

    def suite(key: str, *, _root_: DictConfig) -> Any:
        own: Any = OmegaConf.to_container(OmegaConf.load(CONF / "suite.yaml"))
        return OmegaConf.select(OmegaConf.from_dotlist(own.get(_root_.workload._target_.split(".")[-2], [])), key)

    OmegaConf.register_new_resolver("by_scale", by_scale, replace=True)
    OmegaConf.register_new_resolver("by_workload", by_workload, replace=True)
    OmegaConf.register_new_resolver("suite", suite, replace=True)
    OmegaConf.register_new_resolver("project", lambda name: str(PROJECT / name), replace=True)


def read(cfg: DictConfig) -> RunConfig:
    """Resolve and validate a composed configuration. Raises ConfigError."""
    try:
        resolved: Any = OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True)
    except OmegaConfBaseException as error:
        # A resolver's own message stands between OmegaConf's prefix and its key.
        inner = re.search(r"ConfigError raised while resolving interpolation: (.*)", str(error))
        raise ConfigError(inner[1] if inner else one_line(error)) from None
    resolved.pop("hydra", None)
    if isinstance(resolved.get("workload"), dict):
        resolved["workload"]["_target_"] = short_target(str(resolved["workload"].get("_target_")))
    known = {"workload", "method", "lumos", "trainer", "data", "scale", "seed", "force", "paths", *PRETRAINED}
    for key in resolved:
        if key not in known:
            raise ConfigError(f"{key}: there is no such key{did_you_mean(str(key), known)}; expected {one_of(known)}")
    lumos = {("lambda_" if k == "lambda" else k): v for k, v in resolved["lumos"].items()}
    gates = _build(LumosConfig, "lumos", lumos)
    method, pretrained = _method(resolved), _pretrained(resolved)
    if resolved["lumos"]["lambda"] is None:
        resolved["lumos"]["lambda"] = gates.lambda_
    for key in ("ema", "compile"):
        if (value := resolved["trainer"].get(key)) is None or value is False:
            resolved["trainer"].pop(key, None)  # what is not used is no part of an id, as if there were no such key
    seed = resolved["seed"]
    expect(isinstance(seed, int) and not isinstance(seed, bool) and seed >= 0, "seed", seed, "a whole number >= 0")
    expect(isinstance(resolved["force"], bool), "force", resolved["force"], "true or false")
    config = RunConfig(
        scale=str(resolved["scale"]),
        seed=seed,
        force=resolved["force"],
        lumos=gates,
        trainer=_build(TrainerConfig, "trainer", resolved["trainer"]),
        results=Path(resolved["paths"]["results"]).expanduser(),
        resolved=resolved,
        method=method,
        **pretrained,
    )
    # Our own method is the same run, with the same id, as by its own key.
    return config.at_target(method.target or 1.0) if method and method.name == "lumos" else config


def _pretrained(resolved: dict[str, Any]) -> dict[str, Any]:
    """What to start from, for a RunConfig; in ``resolved`` its checksum, and nothing where it is not used."""
    path, strict, frozen = (resolved.pop(key, None) for key in PRETRAINED)
    for key, value in (("init_strict", strict), ("freeze_backbone", frozen)):
        expect(value is None or isinstance(value, bool), key, value, "true, false or null")
    if path is None:
        expect(not frozen, "freeze_backbone", frozen, "init_from=FILE with it: a frozen backbone has to know something")
        return {}
    path = Path(str(path)).expanduser()
    try:
        with path.open("rb") as file:
            resolved["init_from"] = f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()[:16]}"
    except OSError as error:
        raise ConfigError(f"init_from={path}: cannot be read ({error.strerror}); expected a file of weights") from None
    resolved |= ({"init_strict": False} if strict is False else {}) | ({"freeze_backbone": True} if frozen else {})
    return {"init_from": path, "init_strict": strict is not False, "freeze_backbone": bool(frozen)}


def _method(resolved: dict[str, Any]) -> MethodConfig | None:
    """The other method that is asked for; none is no part of a run's id."""
    values = resolved.pop("method", None)
    if values is None:
        return None
    expect(isinstance(values, Mapping), "method", values, one_of(get_args(MethodName)))
    resolved["method"] = values
    try:
        method = _build(MethodConfig, "method", {("lambda_" if k == "lambda" else k): v for k, v in values.items()})
    except ValueError as error:
        raise ConfigError(f"method.{error}") from None
    asked = {**resolved["lumos"], **resolved["lumos"]["target"]}
    modes = ("lambda", "tolerance", "params", "macs", "features")
    if method.name == "lumos" and any(asked[key] is not None for key in modes):
        raise ConfigError("method=lumos sets lumos.target.params to method.target; set no other lambda or target")
    return method


def _build(kind: type[T], group: str, values: Mapping[str, Any]) -> T:
    """A dataclass from plain values, each checked against the field's type."""
    hints = get_type_hints(kind)
    names = {f.name for f in fields(kind)}  # type: ignore[arg-type]
    for key in values:
        if key not in names:
            allowed = [n.rstrip("_") for n in names]
            raise ConfigError(f"{group}.{key}: there is no such key{did_you_mean(key, allowed)}")
    return kind(**{k: _as(hints[k], v, f"{group}.{k.rstrip('_')}") for k, v in values.items()})


def _as(hint: Any, value: Any, key: str) -> Any:
    if isinstance(hint, type) and is_dataclass(hint):
        keys = [f"{key}.{f.name}" for f in fields(hint)]
        expect(isinstance(value, Mapping), key, value, f"one of the keys {', '.join(keys)}")
        return _build(hint, key, value)
    if get_origin(hint) is Literal:
        expect(value in get_args(hint), key, value, one_of(get_args(hint)))
        return value
    kinds = get_args(hint) if not isinstance(hint, type) else (hint,)
    if value is None:
        expect(type(None) in kinds, key, "null", "a value")
        return None
    if float in kinds:
        try:
            number = math.nan if isinstance(value, bool) else float(value)
        except (TypeError, ValueError):
            number = math.nan
        expect(math.isfinite(number), key, value, "a number")
        return number
    if bool in kinds:
        expect(isinstance(value, bool), key, value, "true or false")
    if int in kinds:
        expect(isinstance(value, int) and not isinstance(value, bool), key, value, "a whole number")
    if str in kinds:
        expect(isinstance(value, str), key, value, "a word")
    return value


def did_you_mean(word: str, allowed: Any) -> str:
    """A hint where a known word is near."""
    near = difflib.get_close_matches(word, [str(a) for a in allowed], n=1)
    return f" (did you mean {near[0]}?)" if near else ""


MethodName = Literal["dense", "lumos", "scratch", "l1", "slimming", "depgraph", "oto", "loxia"]


@dataclass(frozen=True)
class MethodConfig:
    """Another method than ours, to compare with. See conf/method/ for what each one reads, and docs/suite/peers.md.

    ``target`` is the share of the dense parameters that is left, ``prune_at`` the share of the steps after which the
    network shrinks, ``restart`` whether the learning rate falls before that as well as after. Raises ValueError.
    """

    name: MethodName
    target: float | None = None
    prune_at: float = 0.5
    restart: bool = False
    regularization: float = 0.0
    max_pruning_ratio: float = 0.9
    lambda_: float = 0.0
    drop_first: float = 0.2
    drop_rest: float = 0.5

    def __post_init__(self) -> None:
        if self.name != "dense" and (self.target is None or not 0 < self.target < 1):
            raise ValueError(f"target={self.target}: expected the share of the dense parameters to keep, in (0, 1)")
        for name in ("prune_at", "drop_first", "drop_rest"):
            if not 0 < getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)}: expected a number between 0 and 1")
        for name, value in (("regularization", self.regularization), ("lambda", self.lambda_)):
            if value < 0:
                raise ValueError(f"{name}={value}: expected a number >= 0")
        if not 0 < self.max_pruning_ratio <= 1:
            raise ValueError(f"max_pruning_ratio={self.max_pruning_ratio}: expected a share in (0, 1]")

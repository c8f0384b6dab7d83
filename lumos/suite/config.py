"""From the words of a command to a validated run: Hydra composes, pydantic checks, and a hash names it."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import hydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep, QuotedString
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from lumos.errors import ConfigError, one_line
from lumos.suite.identity import AS_BEFORE, MACHINE_KEYS, digest, of_run, short_target, without
from lumos.suite.paths import CONF, PROJECT
from lumos.suite.settings import LumosConfig, MethodConfig, RunSettings, TargetConfig, TrainerConfig, validate
from lumos.suite.wording import did_you_mean, one_of


@dataclass(frozen=True)
class RunConfig:
    """One run: everything that it needs beside the workload itself."""

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
        return without(self.resolved, ("paths", "data.cache", "data.limit_gb", "workload.data"))

    @property
    def baseline_id(self) -> str:
        """A hash of what the dense baseline depends on: all of it but the gates."""
        return self.baseline_of(None)

    def baseline_of(self, schedule: str | None) -> str:
        """Return the hash of a dense baseline.

        Args:
            schedule: How its learning rate goes, where ``workload.schedule`` leaves the choice; None for what is
                configured.
        """
        depends = without(self.resolved, (*MACHINE_KEYS, "lumos", "method"))
        if schedule is not None:
            depends["workload"].pop("schedule", None)
            depends["workload"] |= {} if schedule == AS_BEFORE["schedule"] else {"schedule": schedule}
        return digest(depends)

    def at_target(self, params: float) -> RunConfig:
        """Return our own run of the same problem with this share of the dense parameters."""
        target = TargetConfig(params=params)
        lumos = self.lumos.model_copy(update={"lambda_": None, "tolerance": None, "target": target})
        plain = {**self.resolved["lumos"], "lambda": None, "tolerance": None, "target": target.model_dump()}
        resolved = {key: value for key, value in self.resolved.items() if key != "method"} | {"lumos": plain}
        return replace(self, lumos=lumos, resolved=resolved, method=None)

    def folder(self, workload: str) -> Path:
        """Return where the run's record, curve, log and compact model are kept."""
        return self.results / "runs" / workload / self.run_id


def compose(overrides: Sequence[str]) -> DictConfig:
    """Compose the configuration as ``lumos run`` does with these words.

    Args:
        overrides: ``KEY=VALUE``, in Hydra's grammar.

    Returns:
        The configuration, not yet resolved; :func:`read` validates it.

    Raises:
        ConfigError: A word names no key, or a choice that is not there.
    """
    register_resolvers()
    check_groups(overrides)
    try:
        with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
            return hydra.compose("config", list(overrides))
    except ConfigError:
        raise
    except Exception as error:  # whatever Hydra and PyYAML raise for words and for files of one's own
        raise ConfigError(describe_error(error)) from error


def check_groups(overrides: Sequence[str]) -> None:
    """Check words that choose a file of the configuration, on which Hydra raises errors of any kind.

    Args:
        overrides: ``KEY=VALUE``, in Hydra's grammar; other words are left to Hydra.

    Raises:
        ConfigError: A file is chosen by something that is no name.
    """
    groups = {path.name for path in CONF.iterdir() if path.is_dir()}
    for word in overrides:
        if word.partition("=")[0].lstrip("+~") not in groups:
            continue
        try:
            chosen = OverridesParser.create().parse_override(word)
        except HydraException as error:
            raise ConfigError(describe_error(error)) from error
        value = chosen.value()
        names = value.list if isinstance(value, ChoiceSweep) else [value]
        if chosen.is_delete() or not all(isinstance(name, str | QuotedString) and str(name) for name in names):
            known = sorted(path.stem for path in (CONF / chosen.key_or_group).glob("*.yaml"))
            raise ConfigError(f"{word}: expected {chosen.key_or_group}={one_of(known)}")


def describe_error(error: BaseException) -> str:
    """Say in one line what was wrong for Hydra or OmegaConf, and what is allowed."""
    text = str(error)
    group = re.search(r"Could not find '(?P<group>[\w/]+)/(?P<choice>[^'/]+)'", text)
    if group:
        options = re.findall(r"^\t(\S+)", text.split("Available options", 1)[-1], re.M)
        options = [o for o in options if "provider" not in o]
        name, choice = group["group"], group["choice"]
        return f"{name}={choice}: there is no such {name}; expected {one_of(options)}{did_you_mean(choice, options)}"
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, OmegaConfBaseException):
        cause = cause.__cause__
    if isinstance(cause, OmegaConfBaseException) and cause.full_key and cause.parent_node is not None:
        siblings = [str(k) for k in getattr(cause.parent_node, "keys", list)()]
        word = str(cause.full_key).rsplit(".", 1)[-1]
        if siblings and word not in siblings:
            hint = did_you_mean(word, siblings)
            return f"{cause.full_key}: there is no such key{hint}; expected {one_of(siblings)}"
    return one_line(error)


def read(cfg: DictConfig) -> RunConfig:
    """Resolve and validate a composed configuration. Raises ConfigError."""
    resolved = _resolved(cfg)
    settings = validate(RunSettings, resolved)
    method = settings.method
    if method and method.name == "lumos" and _asks_for_something(resolved["lumos"]):
        raise ConfigError("method=lumos sets lumos.target.params to method.target; set no other lambda or target")
    # What is not used is no part of an id, as if there were no such key.
    unused_trainer = (resolved["trainer"], ("ema", "compile", "log", "precision"))
    if settings.trainer.deterministic:
        resolved["trainer"].pop("deterministic", None)
    for group, unused in ((resolved, ("method",)), unused_trainer):
        for key in unused:
            if group.get(key) is None or group[key] is False:
                group.pop(key, None)
    for key, value in AS_BEFORE.items():
        if resolved["workload"].get(key) == value:
            resolved["workload"].pop(key, None)
    if resolved["lumos"].get("lambda") is None:
        resolved["lumos"]["lambda"] = settings.lumos.lambda_
    config = RunConfig(
        scale=settings.scale,
        seed=settings.seed,
        force=settings.force,
        lumos=settings.lumos,
        trainer=settings.trainer,
        results=settings.results,
        resolved=resolved,
        method=method,
        **_pretrained(settings, resolved),
    )
    # Our own method is the same run, with the same id, as by its own key.
    return config.at_target(method.target or 1.0) if method and method.name == "lumos" else config


def _resolved(cfg: DictConfig) -> dict[str, Any]:
    """The configuration as plain values, the workload's class by its short name."""
    try:
        for name in ("paths", "data", "lumos", "trainer"):
            group = OmegaConf.select(cfg, name)
            if not isinstance(group, DictConfig):
                raise ConfigError(f"{name}={group}: expected a group of keys; set {name}.KEY=VALUE")
        resolved: Any = OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True)
    except OmegaConfBaseException as error:
        # A resolver's own message stands between OmegaConf's prefix and its key.
        inner = re.search(r"ConfigError raised while resolving interpolation: (.*)", str(error))
        raise ConfigError(inner[1] if inner else one_line(error)) from None
    resolved.pop("hydra", None)
    if isinstance(resolved.get("workload"), dict):
        resolved["workload"]["_target_"] = short_target(str(resolved["workload"].get("_target_")))
    return resolved


def _asks_for_something(lumos: Mapping[str, Any]) -> bool:
    return any(
        value is not None
        for value in (lumos.get("lambda"), lumos.get("tolerance"), *(lumos.get("target") or {}).values())
    )


def _pretrained(settings: RunSettings, resolved: dict[str, Any]) -> dict[str, Any]:
    """What to start from, for a RunConfig; in ``resolved`` its checksum, and nothing where it is not used."""
    for key in ("init_from", "init_strict", "freeze_backbone"):
        resolved.pop(key, None)
    frozen, strict = bool(settings.freeze_backbone), settings.init_strict is not False
    if settings.init_from is None:
        if frozen:
            raise ConfigError(
                "freeze_backbone=true: expected init_from=FILE with it: a frozen backbone has to know something"
            )
        return {}
    path = Path(settings.init_from).expanduser()
    try:
        with path.open("rb") as file:
            resolved["init_from"] = f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()[:16]}"
    except OSError as error:
        raise ConfigError(f"init_from={path}: cannot be read ({error.strerror}); expected a file of weights") from None
    resolved |= ({} if strict else {"init_strict": False}) | ({"freeze_backbone": True} if frozen else {})
    return {"init_from": path, "init_strict": strict, "freeze_backbone": frozen}


def quoted(value: Any) -> str:
    """Write a value in Hydra's grammar.

    Example:
        >>> quoted("it's"), quoted(["a,b", 2])
        ("'it\\\\'s'", "['a,b',2]")
    """
    if isinstance(value, str):
        return "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"
    if isinstance(value, Sequence):
        return "[" + ",".join(map(quoted, value)) + "]"
    return str(value)


def register_resolvers() -> None:
    """Define what the YAML files use.

    ``${by_scale:{small: a, paper: b}}`` picks by the key ``scale``, ``${by_workload:{name: a}}`` by the workload.

    ``${project:x}`` is a folder of the project, ``${suite:key}`` what conf/suite.yaml sets a key to for the paper's
    reduction, null if nothing.
    """

    def by_scale(options: Mapping[str, Any], *, _root_: DictConfig) -> Any:
        # bench is small where small is quick
        scale = "small" if _root_.scale == "bench" and "bench" not in options else _root_.scale
        if scale not in options:
            raise ConfigError(f"scale={scale}: expected {one_of(options)}{did_you_mean(str(scale), list(options))}")
        return options[scale]

    def by_workload(options: Mapping[str, Any], *, _root_: DictConfig) -> Any:
        name = str(_root_.workload._target_).split(".")[-2]
        if name not in options:
            raise ConfigError(f"workload={name}: expected {one_of(options)} here")
        return options[name]

    def suite(key: str, *, _root_: DictConfig) -> Any:
        found: Any = OmegaConf.to_container(OmegaConf.load(CONF / "suite.yaml"))
        own = found["questions"]["reductions"]
        return OmegaConf.select(OmegaConf.from_dotlist(own.get(_root_.workload._target_.split(".")[-2], [])), key)

    OmegaConf.register_new_resolver("by_scale", by_scale, replace=True)
    OmegaConf.register_new_resolver("by_workload", by_workload, replace=True)
    OmegaConf.register_new_resolver("suite", suite, replace=True)
    OmegaConf.register_new_resolver("project", lambda name: str(PROJECT / name), replace=True)

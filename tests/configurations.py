"""Configurations as ``lumos run`` composes them, of which Hydra composes each choice of files once in a process."""

import copy
from collections.abc import Sequence
from functools import cache

from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf

from lumos.suite.config import compose
from lumos.suite.paths import CONF

GROUPS = {path.name for path in CONF.iterdir() if path.is_dir()}
"""Keys that choose a file."""


def composed(words: Sequence[str]) -> DictConfig:
    """Return what Hydra composes of words that are right.

    Args:
        words: ``KEY=VALUE``, in Hydra's grammar.
    """
    choices = tuple(word for word in words if word.partition("=")[0].lstrip("+~") in GROUPS)
    cfg = copy.deepcopy(_chosen(choices))
    for word in words:
        if word not in choices:
            change(cfg, word)
    return cfg


def change(cfg: DictConfig, word: str) -> None:
    """Do to a composed configuration what Hydra does for one more word."""
    said = OverridesParser.create().parse_override(word)
    OmegaConf.set_struct(cfg, not (said.is_add() or said.is_force_add() or said.is_delete()))
    if said.is_delete():
        holder, _, key = said.key_or_group.rpartition(".")
        del (OmegaConf.select(cfg, holder) if holder else cfg)[key]
    else:
        OmegaConf.update(cfg, said.key_or_group, said.value(), merge=False)


@cache
def _chosen(choices: tuple[str, ...]) -> DictConfig:
    return compose(choices)

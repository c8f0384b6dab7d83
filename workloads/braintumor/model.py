"""timm's vision transformer, at any size, from scratch or from weights that are on this machine."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import timm
from huggingface_hub import constants, try_to_load_from_cache
from timm.models import get_pretrained_cfg, load_state_dict
from timm.models.vision_transformer import checkpoint_filter_fn
from torch import nn

from lumos.errors import DataError

ARCHITECTURE = "vit_base_patch16_224"
"""timm's name of the network whose sizes are changed, and whose published weights ``pretrained=true`` stands for."""

PASSED_OVER = ("head.", "fc_norm.", "norm.", "cls_token", "pre_logits.")
"""Beginnings of the tensors that start anew: the head, and what stands before it or not, by the kind of pooling."""

WEIGHT_FILES = ("model.safetensors", "pytorch_model.bin")


@dataclass(frozen=True)
class Sizes:
    """Of the images (``pixels``, ``channels``), of a patch, and of the transformer; ``head_width`` 0: a linear head.

    ``pool`` is what the head reads: a class token's features, or the average (``avg``) of all patches'.
    Raises DataError for sizes that do not go together.
    """

    pixels: int
    channels: int
    patch: int
    width: int
    depth: int
    heads: int
    head_width: int
    pool: str = "token"

    def __post_init__(self) -> None:
        for key in ("pixels", "patch", "width", "depth", "heads"):
            if getattr(self, key) < 1:
                raise DataError(f"workload.{key}={getattr(self, key)}: expected at least 1")
        if self.channels not in (1, 3):
            raise DataError(f"workload.channels={self.channels}: expected 1 (grey) or 3 (the same three times)")
        if self.pixels % self.patch:
            raise DataError(f"workload.pixels={self.pixels}: expected a multiple of workload.patch={self.patch}")
        if self.width % self.heads:
            raise DataError(f"workload.width={self.width}: expected a multiple of workload.heads={self.heads}")
        if self.pool not in ("token", "avg"):
            raise DataError(f"workload.pool={self.pool}: expected token or avg")
        if self.head_width < 0:
            raise DataError(f"workload.head_width={self.head_width}: expected a width, or 0 for a linear head")


def find_weights(pretrained: bool | str | Path) -> Path | None:
    """Find the file of weights that ``pretrained`` asks for; None for none.

    ``true`` looks into the cache of the Hugging Face hub, and nowhere else.

    Raises:
        DataError: the file is not there: nothing is downloaded during a run.
    """
    if pretrained is False:
        return None
    if pretrained is not True:
        file = Path(pretrained).expanduser()
        if not file.is_file():
            raise DataError(f"workload.pretrained={pretrained}: there is no such file; expected weights, true or false")
        return file
    repository = getattr(get_pretrained_cfg(ARCHITECTURE), "hf_hub_id", None)
    for name in WEIGHT_FILES:
        # Read anew, not from huggingface_hub's constant, which is set once at its import.
        cache = os.environ.get("HF_HUB_CACHE", constants.HF_HUB_CACHE)
        file = try_to_load_from_cache(str(repository), name, cache_dir=cache)
        if isinstance(file, str) and Path(file).is_file():
            return Path(file)
    raise DataError(
        f"workload.pretrained=true: {repository} is not in the cache {constants.HF_HUB_CACHE}, and a run downloads "
        f"nothing; call `hf download {repository} {WEIGHT_FILES[0]}` where there is a network, or give "
        "workload.pretrained=PATH, a file of weights"
    )


def build(sizes: Sizes, classes: int, weights: Path | None) -> nn.Module:
    """Build the network: images (n, channels, pixels, pixels) to logits (n, classes).

    Weights of other image sizes and channels are adapted by timm (position embedding, first layer); a head for another
    number of classes starts anew.

    Raises:
        DataError: the weights are those of another network, or their file is damaged.
    """
    if weights is None:
        model = _create(sizes, classes)
    else:
        try:
            model = _create_from(weights, sizes, classes)
        except Exception as error:  # whatever a file of other weights raises, the remedy is the same
            reason = " ".join(str(error).split())[:200]
            raise DataError(
                f"{weights}: cannot be loaded into a ViT of patch {sizes.patch}, width {sizes.width}, depth "
                f"{sizes.depth}, {sizes.heads} heads ({type(error).__name__}: {reason}); give weights of that network, "
                "or set workload.{patch,width,depth,heads} to theirs"
            ) from error
    if sizes.head_width:
        # The layer norm before it is the transformer's last one.
        model.head = nn.Sequential(
            nn.Linear(sizes.width, sizes.head_width), nn.GELU(), nn.Linear(sizes.head_width, classes)
        )
    return model


def _create(sizes: Sizes, classes: int, **options: Any) -> nn.Module:
    return timm.create_model(
        ARCHITECTURE,
        img_size=sizes.pixels,
        in_chans=sizes.channels,
        patch_size=sizes.patch,
        embed_dim=sizes.width,
        depth=sizes.depth,
        num_heads=sizes.heads,
        num_classes=classes,
        global_pool=sizes.pool,
        class_token=sizes.pool == "token",
        # timm's own start has standard deviation 0.02 at every width: too little for narrow networks to learn from.
        weight_init="jax",
        **options,
    )


def _create_from(weights: Path, sizes: Sizes, classes: int) -> nn.Module:
    overlay: dict[str, Any] = {"file": str(weights)}
    if weights.suffix == ".npz":
        return _create(sizes, classes, pretrained=True, pretrained_cfg_overlay={**overlay, "custom_load": True})
    # Read here first: only tensors, so that timm, which reads the file again, never meets a pickled object.
    state = load_state_dict(str(weights), weights_only=True)
    model = _create(sizes, classes, pretrained=True, pretrained_cfg_overlay=overlay)
    # timm passes over tensors that are missing or too many once the head differs; we do not.
    names = set(checkpoint_filter_fn(state, model))  # type: ignore[arg-type]
    odd = sorted(n for n in names ^ set(model.state_dict()) if not n.startswith(PASSED_OVER))
    if odd:
        raise ValueError(f"{len(odd)} tensors are in one of the two only, {odd[0]} first")
    return model

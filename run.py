"""``python run.py workload=cfd lumos.lambda=1e-3``: train a workload dense and gated, cut, verify, measure, record."""

from contextlib import nullcontext

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from lumos.cli import exit_on_error, run
from lumos.config import register_resolvers

register_resolvers()


@hydra.main(version_base="1.3", config_path="conf", config_name="config")
def main(cfg: DictConfig) -> None:
    """One run of one workload."""
    # Alone, a run says itself what went wrong; in a sweep that is the launcher's part.
    alone = HydraConfig.get().mode is RunMode.RUN
    with exit_on_error() if alone else nullcontext():
        run(cfg)


if __name__ == "__main__":
    with exit_on_error():
        main()

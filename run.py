"""``python run.py workload=cfd lumos.lambda=1e-3``: train a workload dense and gated, cut, verify, measure, record."""

from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from lumos.suite.cli import exit_on_error, job, run, summarised


@hydra.main(version_base="1.3", config_path="conf", config_name="config")
def main(cfg: DictConfig) -> float | None:
    """One run of one workload, or one job of a sweep over many."""
    here = HydraConfig.get()
    if here.mode is RunMode.RUN:
        with exit_on_error():
            run(cfg)
        return None
    return job(cfg, Path(here.sweep.dir) / here.sweep.subdir, here.job.num, list(here.overrides.task))


if __name__ == "__main__":
    with exit_on_error(), summarised():
        main()

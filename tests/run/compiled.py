"""Trainings with and without torch.compile, as JSON: a program of its own, since annotations that are executed, as the
tests do it, cannot be compiled. ``python -m tests.run.compiled FOLDER``"""

import json
import sys
from dataclasses import replace
from pathlib import Path

import torch

from lumos.suite.training.checkpoint import Store
from lumos.suite.training.loop import train
from lumos.suite.training.objective import compiled_loss
from lumos.suite.training.state import TrainState
from lumos.workloads.synthetic import Synthetic
from tests.suite.training.test_checkpoint import IDENTITY, Killed, killer
from tests.suite.training.test_loop import CPU, run_config


def main(folder: Path) -> None:
    torch.set_num_threads(1)
    workload = replace(
        Synthetic(relevant_features=4).tiny(), train_rows=600, valid_rows=200, epochs=4, learning_rate=0.01
    )
    loaders, eager = workload.loaders(), run_config(lambda_=0.02)
    config = replace(eager, trainer=eager.trainer.model_copy(update={"compile": True}))

    def curve(config, store=None):
        trained = train(workload, loaders, config, CPU, gated=True, store=store)
        weights = sum(float(p.double().abs().sum()) for p in trained.model.parameters())
        return [row["loss"] for row in trained.curve] + [trained.valid_score, weights]

    out = {"eager": curve(eager), "compiled": curve(config)}
    store = lambda: Store(folder, "gated", IDENTITY, None, 2)  # noqa: E731
    for step in (7, 17):  # before and after the cut at step 12
        TrainState.__setattr__ = killer(step)
        try:
            curve(config, store())
        except Killed:
            del TrainState.__setattr__
        else:
            sys.exit("nothing died")
    out["resumed"] = curve(config, store())
    model, loss = workload.model(), compiled_loss(workload, dynamic=True)
    batches = [(x[:n], y[:n]) for n, (x, y) in zip((50, 31, 17), loaders.train, strict=False)]
    out["sizes"] = [[float(f(model, batch)) for batch in batches] for f in (workload.loss, loss)]
    sys.stdout.write(json.dumps(out))


if __name__ == "__main__":
    main(Path(sys.argv[1]))

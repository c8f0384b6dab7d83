"""``lumos export``: the compact model of a run as a file for other programs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from lumos.compaction.model import load
from lumos.errors import ConfigError, ExportError
from lumos.exporting import Exported, export, format_of
from lumos.suite import archive, record
from lumos.suite.finished_run import recorded_config
from lumos.suite.paths import RESULTS
from lumos.suite.workload_class import build_workload

OWN_KEYS = ("data.", "hydra.searchpath=")
"""What differs from machine to machine: where samples are, and where workloads of one's own are described."""


def export_run(
    run: str | Path, to: Path, overrides: Sequence[str] = (), *, aoti: bool = False, reduce: bool = False
) -> Exported:
    """Export a run's compact model.

    The record says which workload it was; that builds the network and gives the example inputs, which needs its
    samples (generated ones are made where the cache has none).

    Args:
        run: The run's folder, its ``compact.pt``, or the beginning of its id.
        to: The file to write; its ending says the format.
        overrides: ``data.KEY=VALUE``, where this machine keeps the samples; ``hydra.searchpath=[…]``.
        aoti: Compile a ``.pt2`` for this machine.
        reduce: The file takes the kept features only.

    Raises:
        ConfigError: A word is none of those above.
        RecordError: There is no record.
        CompactionError, DataError, ExportError: The model, the samples or the export fail.
    """
    kind = format_of(to, "aoti" if aoti else None)
    path = Path(run)
    folder = path if path.exists() or path.suffix else archive.find(str(run), RESULTS).folder
    file = folder if folder.suffix == ".pt" else folder / "compact.pt"
    if not file.is_file():
        raise ExportError(f"{file}: there is no such file; give the folder of a finished run, or its compact.pt")
    for word in overrides:
        if not word.startswith(OWN_KEYS):
            raise ConfigError(f"{word}: the record says all of the run but where its data is; expected data.KEY=VALUE")
    workload = build_workload(recorded_config(record.read(file.parent), overrides))
    model, example = load(file, workload.model(), select=not reduce), workload.example()
    return export(model, model.reduced(*example) if reduce else example, to, format=kind)

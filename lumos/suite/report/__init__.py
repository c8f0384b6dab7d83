"""From records to what people read: a run's table, the evaluation's tables and figures, a page. Imports no torch.

Read in this order; a file imports only files above it:

1. ``published.py``: the paper's numbers (``published.csv``); ``quantities.py``: every number derived from a record.
2. ``results.py``: which records there are, which differ only by their seed, which stand for a workload.
3. ``table.py`` (with ``table.tex``): a table whose cells know the runs behind them, as CSV and LaTeX.
4. ``method_table.py``, ``paper_tables.py``: the paper's tables; ``sweeps.py``, ``run_tables.py``: tables of runs.
5. ``style.py``, ``run_figures.py``, ``paper_figures.py``: their figures.
6. ``page.py`` (with ``page.html``): all of it on one page; ``build.py``: for ``lumos figures`` and ``lumos report``.

Apart from these: ``console.py`` and ``compare.py`` for the terminal, ``feature_table.py`` and ``feature_figure.py`` for
``lumos feature-report``.
"""

from lumos.suite.report.console import print_run, run_lines, run_rows, run_table, runs_table

__all__ = ["print_run", "run_lines", "run_rows", "run_table", "runs_table"]

"""From records to what people read: a run's table, the evaluation's tables and figures, a page. Imports no torch."""

from lumos.suite.report.console import print_run, run_lines, run_rows, run_table, runs_table

__all__ = ["print_run", "run_lines", "run_rows", "run_table", "runs_table"]

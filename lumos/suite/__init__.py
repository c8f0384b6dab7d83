"""The benchmark suite: workloads trained dense and gated, cut, verified, measured and recorded.

A run reads top to bottom: the command (``cli``) hands Hydra's words to ``run``; ``config`` turns them into settings;
``runner.run`` trains both networks through ``training``, measures them and writes the ``record``. Beside it:

- ``workload`` is the contract that a scientific problem fulfils, ``conformance`` the checks for it, ``workload_class``
  how the one that a configuration names is built.
- ``methods`` holds the other methods of pruning that ours is compared with, ``report`` tables, figures and pages.
- ``sweep`` collects the jobs of a sweep, ``run_suite`` does all workloads, ``finished_run`` reads a run back for
  ``export_run``, ``feature_report`` and ``in_the_loop``.
- ``identity`` says what names a run, ``paths`` where things are, ``exit_codes`` how the command ends.
"""

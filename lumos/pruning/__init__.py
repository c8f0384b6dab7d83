"""Turns gates into a decision while a model trains: what the penalty costs, and what goes through the cut.

Read in this order: ``settings`` (what can be asked for), ``controllers`` (lambda at every step), ``budget`` (a target
in numbers), ``collapse_detection``, ``optimizers`` and ``averaging`` (what goes through the cut), ``feature_history``
and ``report`` (what is noted on the way), ``resumable`` (what a checkpoint keeps), ``fit`` (a whole training).
"""
